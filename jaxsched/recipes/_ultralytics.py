"""Ultralytics' own training policy. Counts iterations, one a batch; 0 is the first."""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, ParamSpec, cast

from jaxsched import schedules
from jaxsched._recipe import Recipe
from jaxsched._validate import (
    describe,
    require,
    require_bool,
    require_choice,
    require_count,
    require_run,
)
from jaxsched.lr_scheduler import lambda_lr
from jaxsched.optimizers import EMA, Accumulation
from jaxsched.recipes import _policy as policy
from jaxsched.recipes import _settings as settings
from jaxsched.recipes._settings import Settings

P = ParamSpec("P")

DEFAULTS = {
    "lr0": 0.01,
    "lrf": 0.01,
    "momentum": 0.937,
    "weight_decay": 0.0005,
    "warmup_epochs": 3.0,
    "warmup_momentum": 0.8,
    "warmup_bias_lr": 0.1,
    "nbs": 64,
}
"""What Ultralytics' default settings have for the optimizer."""

ARGUMENTS = {
    "epochs": "epochs",
    "batch_size": "batch",
    "optimizer": "optimizer",
    "cos_lr": "cos_lr",
}
"""Arguments of ``ultralytics`` that ``args`` may hold too, and their keys there."""


@dataclasses.dataclass(frozen=True)
class Version:
    """Where Ultralytics' releases differ.

    Attributes:
      lags: the scheduler steps at an epoch's end, so that rates lag by an epoch.
      saves_first: where it lags, a checkpoint is saved before the scheduler steps, so that a
        resumed process repeats the rate of its predecessor's last epoch.
      drops: pending gradients are dropped at an epoch's start.
      warmup_floor: iterations that a warm-up lasts at least.
      short_runs: the warm-up is no longer than the run without its last epoch, and the
        accumulation ramps to an integer that the run can reach.
      bias_label: the group whose warm-up starts from the bias rate.
      auto_short: the optimizer that "auto" takes for up to 10,000 iterations.
      auto_long: the one that it takes for more.
    """

    lags: bool
    saves_first: bool
    drops: bool
    warmup_floor: int
    short_runs: bool
    bias_label: str
    auto_short: str
    auto_long: str


_OLD = Version(
    lags=True,
    saves_first=False,
    drops=True,
    warmup_floor=100,
    short_runs=False,
    bias_label="bias",
    auto_short="AdamW",
    auto_long="SGD",
)
_KEEPS = dataclasses.replace(_OLD, lags=False, drops=False)

VERSIONS = {
    "8.0.227": _OLD,
    "8.1.24": dataclasses.replace(_OLD, saves_first=True),
    "8.3.250": _KEEPS,
    # That release put the weights first and went on warming up group 0 as the biases.
    "8.4.0": dataclasses.replace(_KEEPS, bias_label="weight", auto_short="MuSGD"),
    "8.4.190": dataclasses.replace(_KEEPS, warmup_floor=0, short_runs=True, auto_long="MuSGD"),
}


def _args_first(factory: Callable[P, Recipe]) -> Callable[P, Recipe]:
    """Take from ``args`` what was not given; refuse what was and is contradicted there."""

    @functools.wraps(factory)
    def ultralytics(*positional: P.args, **given: P.kwargs) -> Recipe:
        args: dict[str, Any] = settings.read("args", cast(Settings, given.get("args")))
        for name, key in ARGUMENTS.items():
            if key not in args or args[key] is None:
                continue
            if name in given and given[name] != args[key]:
                raise ValueError(
                    f"{name} must agree with args, got {describe(given[name])} against {key}: {describe(args[key])}. "
                    "Leave one of the two out."
                )
            given[name] = args[key]
        return factory(*positional, **given)

    return ultralytics


@_args_first
def ultralytics(
    *,
    epochs: int,
    steps_per_epoch: int,
    batch_size: int = 16,
    args: Settings = None,
    optimizer: str = "SGD",
    cos_lr: bool = False,
    classes: int | None = None,
    images: int | None = None,
    start_epoch: int = 0,
    resumed: bool = False,
    version: str = "8.4.190",
) -> Recipe:
    r"""Ultralytics' run: three groups, warm-up, decay, accumulation, clip and average.

    With i the iteration, n ``steps_per_epoch``, e = i // n and w the warm-up's
    iterations:

    .. math::
        \gamma_i &= \operatorname{interp}(i, [0, w], [\gamma_{\mathrm{start}}, \mathrm{lr0} f(e)])
                    && i \le w \\
        \gamma_i &= \mathrm{lr0} f(e) && i > w \\
        \mu_i &= \operatorname{interp}(i, [0, w], [\mathrm{warmup\_momentum}, \mathrm{momentum}])

    f is ``schedules.linear`` or, with ``cos_lr``, ``schedules.one_cycle``. What the
    versions differ in is listed in ``Version``: 8.0.227 and 8.1.24 lag by an epoch after
    the warm-up, as YOLOv5 does, and drop what is pending at an epoch's end; 8.4.0 warms
    up the *weights* from ``warmup_bias_lr``. w is max(round(warmup_epochs n), 100), in
    8.4.190 round(min(warmup_epochs, E - 1) n), and 0 turns it off. ``"weight"`` decays by
    weight_decay · batch_size · a / nbs with a = max(round(nbs / batch_size), 1).

    **The loss that it expects** is the original's: the mean over the batch times
    ``batch_size``, the global one, on however many devices, for gradients are summed
    over the batches of an update.

    Args:
      epochs: epochs of the run, E.
      steps_per_epoch: batches in an epoch.
      batch_size: images in a batch, on all devices together.
      args: the original's settings, a mapping or a YAML file such as a run's own
        ``args.yaml``; what is missing has its default, what belongs to other parts is
        passed over. ``epochs``, ``batch``, ``optimizer`` and ``cos_lr`` in it stand for
        arguments that are not given here.
      optimizer: "SGD" (with Nesterov), "Adam", "AdamW", or "auto", which chooses by the
        run's iterations.
      cos_lr: decays along a cosine in place of a line.
      classes: classes of the data set, for "auto".
      images: training images of the data set, for "auto".
      start_epoch: the epoch in which this process starts.
      resumed: whether it starts with its predecessor's optimizer and average.
      version: "8.0.227", "8.1.24", "8.3.250", "8.4.0" or "8.4.190".

    Returns:
      A recipe of the groups ``"weight"``, ``"bias"`` and ``"norm"``.

    Raises:
      ValueError: a number out of range, an unknown key, optimizer or version, an
        argument that ``args`` contradicts, or a run for which the version would take
        MuSGD, which is not built yet.

    Source: ``BaseTrainer`` of Ultralytics.

    >>> recipe = ultralytics(epochs=100, steps_per_epoch=500)
    >>> round(float(recipe.at(1500)["weight"]["learning_rate"]), 8)
    0.009703
    """
    arguments = dict(locals())
    require_run(epochs=epochs, steps_per_epoch=steps_per_epoch, start_epoch=start_epoch)
    require_count("batch_size", batch_size, at_least=1)
    require_bool(cos_lr=cos_lr, resumed=resumed)
    require_choice("version", version, VERSIONS)
    release = VERSIONS[version]
    read = settings.read("args", args)
    # "optimize" is a setting of the exporter, not a typo.
    settings.refuse_typos("args", read, [*ARGUMENTS.values(), "optimize"])
    a = settings.numbers("args", read, DEFAULTS)
    arguments["args"] = dict(a)
    require(
        "args['nbs']", a["nbs"], "a whole number of at least 1", lambda v: v >= 1 and v % 1 == 0
    )
    momentum = a["momentum"]
    if optimizer == "auto":
        optimizer, a["lr0"], momentum = _auto(
            release, version, epochs, batch_size, a["nbs"], classes, images
        )
        a["warmup_bias_lr"] = 0.0  # whichever optimizer was chosen
    require_choice("optimizer", optimizer, [*policy.UPDATE_RULES, "auto"])

    start = start_epoch * steps_per_epoch
    warmup = 0
    if a["warmup_epochs"] > 0:
        length = min(a["warmup_epochs"], epochs - 1) if release.short_runs else a["warmup_epochs"]
        warmup = max(round(length * steps_per_epoch), release.warmup_floor)
    factor = (schedules.one_cycle if cos_lr else schedules.linear)(epochs, lrf=a["lrf"])
    if release.lags:
        rate = policy.lagging_rate(
            a["lr0"],
            factor,
            steps_per_epoch=steps_per_epoch,
            warmup_iterations=warmup,
            start_epoch=start_epoch,
            resumed=resumed,
            saves_first=release.saves_first,
        )
    else:
        rate = schedules.per_epoch(lambda_lr(a["lr0"], factor), steps_per_epoch)

    batches = policy.batches_per_update(batch_size, a["nbs"])
    reachable = min(batches, steps_per_epoch * epochs)
    accumulation = Accumulation(
        schedules.batch_ramp(
            warmup,
            end=reachable if release.short_runs else a["nbs"] / batch_size,
            then=reachable if release.short_runs else batches,
        ),
        steps_per_epoch if release.drops else None,
    )
    if warmup and (resumed or start <= warmup):
        # The warm-up leads to the given momentum, also where "auto" built SGD with another.
        momentum = momentum if optimizer != "SGD" else a["momentum"]
    return Recipe(
        policy.groups(
            rate,
            optimizer=optimizer,
            warmup_iterations=warmup,
            bias_rate=a["warmup_bias_lr"],
            bias_label=release.bias_label,
            momentum=momentum,
            warmup_momentum=a["warmup_momentum"],
            weight_decay=a["weight_decay"] * batch_size * batches / a["nbs"],
        ),
        policy.UPDATE_RULES[optimizer],
        clip_norm=10.0,
        accumulation=accumulation,
        ema=EMA(updates=policy.updates_before(accumulation, start) if resumed else 0),
        start=start,
        length=epochs * steps_per_epoch,
        origin=(ultralytics, arguments),
    )


def _auto(
    release: Version,
    version: str,
    epochs: int,
    batch_size: int,
    nbs: float,
    classes: int | None,
    images: int | None,
) -> tuple[str, float, float]:
    """The optimizer that "auto" stands for, its rate and its momentum."""
    if classes is None or images is None:
        raise ValueError(
            'optimizer="auto" must go with classes and images, got '
            f"classes={classes!r}, images={images!r}. Pass both, or name the optimizer."
        )
    require_count("classes", classes, at_least=1)
    require_count("images", images, at_least=1)
    iterations = math.ceil(images / max(batch_size, nbs)) * epochs
    name = release.auto_long if iterations > 10_000 else release.auto_short
    if name == "MuSGD":
        raise ValueError(
            f'optimizer="auto" must not lead to MuSGD, which is not built yet, got version {version} '
            f"with {iterations} iterations. Name the optimizer."
        )
    if name == "SGD":
        return name, 0.01, 0.9
    return name, round(0.002 * 5 / (4 + classes), 6), 0.9
