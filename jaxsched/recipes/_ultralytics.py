"""Ultralytics' own training policy. Counts iterations, one a batch; 0 is the first."""

import functools
import math
from collections.abc import Callable
from typing import Any, ParamSpec, cast

from jaxsched._recipe import Recipe
from jaxsched._validate import describe, require, require_choice, require_count
from jaxsched.recipes import _policy as policy
from jaxsched.recipes import _settings as settings
from jaxsched.recipes._settings import Settings

P = ParamSpec("P")

ARGUMENTS = dict(epochs="epochs", batch_size="batch", optimizer="optimizer", cos_lr="cos_lr")
"""Arguments of ``ultralytics`` that ``args`` may hold too, and their keys there."""

_NO_LAG = functools.partial(policy.Version, lags=False, drops=False)
VERSIONS = {
    "8.0.227": policy.Version(),
    "8.1.24": policy.Version(saves_first=True),
    "8.3.250": _NO_LAG(),
    # That release put the weights first and went on warming up group 0 as the biases.
    "8.4.0": _NO_LAG(bias_label="weight", auto_short="MuSGD"),
    "8.4.190": _NO_LAG(warmup_floor=0, short_runs=True, auto_long="MuSGD"),
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

    With i the iteration, n ``steps_per_epoch``, e = i // n and w the warm-up's iterations:

    .. math::
        \gamma_i &= \operatorname{interp}(i, [0, w], [\gamma_{\mathrm{start}}, \mathrm{lr0} f(e)])
                    && i \le w \\
        \gamma_i &= \mathrm{lr0} f(e) && i > w \\
        \mu_i &= \operatorname{interp}(i, [0, w], [\mathrm{warmup\_momentum}, \mathrm{momentum}])

    f is ``schedules.linear`` or, with ``cos_lr``, ``schedules.one_cycle``. What the
    versions differ in is listed in ``_policy.Version``: 8.0.227 and 8.1.24 lag by an epoch after
    the warm-up, as YOLOv5 does, and drop what is pending at an epoch's end; 8.4.0 warms
    up the *weights* from ``warmup_bias_lr``. w is max(round(warmup_epochs n), 100), in
    8.4.190 round(min(warmup_epochs, E - 1) n), and 0 turns it off. ``"weight"`` decays by
    weight_decay · batch_size · a / nbs with a = max(round(nbs / batch_size), 1).

    **The loss that it expects** is the original's: the mean over the batch times ``batch_size``,
    the global one, on however many devices, for gradients are summed over the batches of an update.

    Args:
      epochs: epochs of the run, E.
      steps_per_epoch: batches in an epoch.
      batch_size: images in a batch, on all devices together.
      args: the original's settings, a mapping or a YAML file such as a run's own ``args.yaml``;
        what is missing has its default, what belongs to other parts is passed over. ``epochs``,
        ``batch``, ``optimizer`` and ``cos_lr`` in it stand for arguments that are not given here.
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
    release = policy.release_of(arguments, VERSIONS)
    read = settings.read("args", args)
    # "optimize" is a setting of the exporter, not a typo.
    settings.refuse_typos("args", read, [*ARGUMENTS.values(), "optimize"])
    a = settings.numbers("args", read, {**policy.DEFAULTS, "nbs": 64})
    arguments["args"] = dict(a)
    rule = "a whole number of at least 1"
    require("args['nbs']", a["nbs"], rule, lambda v: v >= 1 and v % 1 == 0)
    if optimizer == "auto":
        if classes is None or images is None:
            raise ValueError(
                'optimizer="auto" must go with classes and images, got '
                f"classes={classes!r}, images={images!r}. Pass both, or name the optimizer."
            )
        require_count("classes", classes, at_least=1)
        require_count("images", images, at_least=1)
        iterations = math.ceil(images / max(batch_size, a["nbs"])) * epochs
        optimizer = release.auto_long if iterations > 10_000 else release.auto_short
        if optimizer == "MuSGD":
            raise ValueError(
                'optimizer="auto" must not lead to MuSGD, which is not built yet, got version '
                f"{version} with {iterations} iterations. Name the optimizer."
            )
        a["lr0"] = 0.01 if optimizer == "SGD" else round(0.002 * 5 / (4 + classes), 6)
        a["warmup_bias_lr"] = 0.0  # whichever optimizer was chosen
        a["momentum"] = 0.9
    require_choice("optimizer", optimizer, [*policy.UPDATE_RULES, "auto"])

    warmup = 0
    if a["warmup_epochs"] > 0:
        length = min(a["warmup_epochs"], epochs - 1) if release.short_runs else a["warmup_epochs"]
        warmup = max(round(length * steps_per_epoch), release.warmup_floor)
    if optimizer == "SGD" and warmup and (resumed or start_epoch * steps_per_epoch <= warmup):
        # The warm-up leads to the given momentum, also where "auto" built SGD with another.
        a["momentum"] = arguments["args"]["momentum"]
    batches = max(round(a["nbs"] / batch_size), 1)
    a["weight_decay"] = a["weight_decay"] * batch_size * batches / a["nbs"]
    return policy.build(
        (ultralytics, arguments),
        release,
        a,
        optimizer=optimizer,
        warmup=warmup,
        nbs=a["nbs"],
        batches=batches,
    )
