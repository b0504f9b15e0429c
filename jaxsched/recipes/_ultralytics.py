"""Ultralytics' own training policy as a recipe."""

import functools
import math
import re
from collections.abc import Callable
from typing import Any, ParamSpec, cast

from jaxsched._recipe import Recipe
from jaxsched._validate import describe, require, require_choice, require_count
from jaxsched.recipes import _policy as policy
from jaxsched.recipes import _settings as settings
from jaxsched.recipes._settings import Settings

P = ParamSpec("P")

ARGUMENTS = dict(epochs="epochs", batch_size="batch", optimizer="optimizer", cos_lr="cos_lr")
"""Arguments of ``ultralytics`` that may also be in ``args``, and their keys there."""

OPTIMIZERS = ("SGD", "MuSGD", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "RMSProp", "auto")

Release = tuple[int, int, int]

LONG_RUN = 10_000  # iterations; "auto" and MuSGD's ratios change above
CHANGES: dict[Release, dict[str, Any]] = {
    (8, 0, 227): {},
    (8, 0, 228): {"saves_first": True},
    (8, 1, 42): {"lags": False, "saves_first": False},
    (8, 2, 8): {"drops": False},
    (8, 4, 0): {
        # That release put the weights first, but still warmed up group 0 as the biases.
        "bias_first": True,
        "auto": ("MuSGD", "SGD"),
        "musgd": ((0.5, 0.5), (0.5, 0.5)),
        "has_rmsprop": False,
    },
    (8, 4, 3): {
        "bias_first": False,
        "auto": ("MuSGD", "MuSGD"),
        "musgd": ((0.1, 1.0), (0.5, 0.5)),
    },
    (8, 4, 4): {"musgd": ((0.5, 0.5), (0.1, 1.0))},
    (8, 4, 8): {"auto": ("AdamW", "MuSGD"), "musgd": ((0.2, 1.0), (0.2, 1.0))},
    (8, 4, 103): {"warmup_floor": 0, "short_warmup": True, "open_warmup": True},
    (8, 4, 105): {"has_rmsprop": True},
    (8, 4, 177): {"caps_batches": True},
    (8, 4, 183): {"open_warmup": False, "whole_ramp": True},
}
"""The first release of each change, and the fields of ``policy.Version`` that it changed.

A release has all changes up to its own. Taken from the released wheels and from runs of them.
"""

UNSETTLED: tuple[tuple[Release, Release], ...] = (((8, 2, 6), (8, 2, 8)),)
"""Releases between which a change was made: 8.2.7 was never published."""

LAST = {(8, 0): 239, (8, 1): 47, (8, 2): 103, (8, 3): 253, (8, 4): 190}
"""The last release of each minor version that was checked."""


def _version(text: Any) -> policy.Version:
    """Return the version of a release such as ``"8.3.143"``; refuse one whose rules are unknown."""
    if not isinstance(text, str):
        raise TypeError(f"version must be a release such as '8.4.190', got {describe(text)}.")
    parts = text.split(".")
    is_release = len(parts) == 3 and all(re.fullmatch("0|[1-9][0-9]{0,3}", part) for part in parts)
    release = cast(Release, tuple(map(int, parts))) if is_release else (0, 0, 0)
    last = LAST.get(release[:2], -1)
    if release < min(CHANGES) or release[2] > last:
        ends = ", ".join(f"{a}.{b}.{c}" for (a, b), c in LAST.items())
        raise ValueError(
            f"version must be a release from {_format_release(min(CHANGES))} on, the last of each minor "
            f"version being {ends}, got {describe(text)}. Take the nearest of them."
        )
    for before, since in UNSETTLED:
        if before < release < since:
            raise ValueError(
                f"version must be up to {_format_release(before)} or from {_format_release(since)} on, between "
                f"which the rules changed, got {describe(text)}. Take the one that you compare with."
            )
    fields: dict[str, Any] = {}
    for first, changes in CHANGES.items():
        if first <= release:
            fields |= changes
    return policy.Version(**fields)


def _format_release(release: Release) -> str:
    return ".".join(map(str, release))


def _fill_from_args(factory: Callable[P, Recipe]) -> Callable[P, Recipe]:
    """Decorate a factory to take missing arguments from ``args``; refuse contradictory ones."""

    @functools.wraps(factory)
    def ultralytics(*positional: P.args, **keywords: P.kwargs) -> Recipe:
        args: dict[str, Any] = settings.read("args", cast(Settings, keywords.get("args")))
        for name, key in ARGUMENTS.items():
            if key not in args or args[key] is None:
                continue
            if name in keywords and not _agree(keywords[name], args[key]):
                raise ValueError(
                    f"{name} must agree with args, got {describe(keywords[name])} against {key}: {describe(args[key])}. "
                    "Leave one of the two out."
                )
            keywords[name] = args[key]
        return factory(*positional, **keywords)

    return ultralytics


def _agree(value: Any, other: Any) -> bool:
    """Return whether two values of an argument are equal; strings in any case."""
    if isinstance(value, str) and isinstance(other, str):
        return value.lower() == other.lower()
    return value == other


@_fill_from_args
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
    r"""Ultralytics' run: its groups, warm-up, decay, accumulation, clip and average.

    With i the iteration, n ``steps_per_epoch``, e = i // n and w the warm-up's iterations:

    .. math::
        \gamma_i &= \operatorname{interp}(i, [0, w], [\gamma_{\mathrm{start}}, \mathrm{lr0} f(e)])
                    && i \le w \\
        \gamma_i &= \mathrm{lr0} f(e) && i > w \\
        \mu_i &= \operatorname{interp}(i, [0, w], [\mathrm{warmup\_momentum}, \mathrm{momentum}])

    f is ``schedules.linear`` or, with ``cos_lr``, ``schedules.one_cycle``. w is
    max(round(warmup_epochs n), 100), from 8.4.103 on round(min(warmup_epochs, E - 1) n), and 0 turns
    it off. ``"weight"`` and ``"muon"`` decay by weight_decay · batch_size · a / nbs with
    a = max(round(nbs / batch_size), 1). Versions are ranges of releases; what each changed is in
    docs/recipes/ultralytics.md: up to 8.1.41 rates lag by an epoch after the warm-up, as YOLOv5's do.

    MuSGD has the groups ``"muon"``, ``"weight"``, ``"norm"``, ``"bias"``, and ``"muon_head"``,
    ``"weight_head"``, ``"norm_head"``, ``"bias_head"`` at three times the rate; label the
    parameters with ``jaxsched.flax.by_muon`` or ``param_groups.by_muon``. The other optimizers have
    ``"weight"``, ``"bias"`` and ``"norm"``, which are the labels of either with ``dimensions=()``.

    **The loss that it expects** is the original's: the mean over the batch times ``batch_size``,
    the global one, on however many devices, for gradients are summed over the batches of an update.
    For classification it is the plain mean, which the original does not multiply by ``batch_size``;
    on several devices, the sum of the devices' means.

    Args:
      epochs: epochs of the run, E.
      steps_per_epoch: batches in an epoch.
      batch_size: images in a batch, on all devices together.
      args: the original's settings, a mapping or a YAML file such as a run's own ``args.yaml``;
        missing keys have their defaults, keys that do not concern the recipe are ignored; ``time``,
        by which the original sets the epochs while it runs, is refused. ``epochs``, ``batch``,
        ``optimizer`` and ``cos_lr`` in it are used for arguments that are not passed here.
      optimizer: "SGD" (with Nesterov), "MuSGD", "Adam", "AdamW", "Adamax", "NAdam", "RAdam",
        "RMSProp", in any case, or "auto", which chooses by the run's iterations. In 8.4.0 to 8.4.104
        "RMSProp" is SGD without Nesterov, since the original finds no class of this name.
      cos_lr: whether the rate decays along a cosine instead of a line.
      classes: classes of the data set, for "auto".
      images: training images of the data set, for "auto", and for MuSGD in 8.4.3 to 8.4.7, whose
        ratios follow the run's iterations.
      start_epoch: the epoch in which this process starts.
      resumed: whether it starts with its predecessor's optimizer and average.
      version: a release from "8.0.227" to "8.4.190".

    Returns:
      A recipe of these groups.

    Raises:
      ValueError: a number out of range, an unknown key or optimizer, a release whose rules are
        unknown, an argument that ``args`` contradicts, MuSGD in a release without it.

    Source: ``BaseTrainer`` of Ultralytics,
    https://github.com/ultralytics/ultralytics/blob/v8.4.190/ultralytics/engine/trainer.py

    >>> recipe = ultralytics(epochs=100, steps_per_epoch=500)
    >>> round(float(recipe.at(1500)["weight"]["learning_rate"]), 8)
    0.009703
    """
    arguments = dict(locals())
    policy.require_arguments(arguments)
    release = _version(version)
    read = settings.read("args", args)
    # "optimize" is a setting of the exporter, not a typo.
    settings.refuse_typos("args", read, [*ARGUMENTS.values(), "optimize"])
    if read.get("time"):
        raise ValueError(
            "args['time'] must be null, for with it the original sets the epochs by the clock as it "
            f"runs, got {describe(read['time'])}. Pass the epochs that the run came to, and time: null."
        )
    args = settings.numbers("args", read, {**policy.DEFAULTS, "nbs": 64})
    arguments["args"] = dict(args)
    rule = "a whole number of at least 1"
    require("args['nbs']", args["nbs"], rule, lambda v: v >= 1 and v % 1 == 0)
    for name, value in (("classes", classes), ("images", images)):
        if value is not None:
            require_count(name, value, at_least=1)
    name = optimizer.lower() if isinstance(optimizer, str) else optimizer
    optimizer = {each.lower(): each for each in OPTIMIZERS}.get(name, optimizer)
    require_choice("optimizer", optimizer, OPTIMIZERS)

    is_long: Any = None
    if images is not None:
        is_long = math.ceil(images / max(batch_size, args["nbs"])) * epochs > LONG_RUN
    if optimizer == "auto":
        if classes is None or images is None:
            raise ValueError(
                'optimizer="auto" must go with classes and images, got '
                f"classes={classes!r}, images={images!r}. Pass both, or name the optimizer."
            )
        optimizer = release.auto[is_long]
        args["lr0"] = 0.01 if is_long else round(0.002 * 5 / (4 + classes), 6)
        args["warmup_bias_lr"] = 0.0  # for any optimizer
        args["momentum"] = 0.9
    ratios = (0.5, 0.5)
    if optimizer == "MuSGD":
        ratios = _ratios(release, version, is_long)

    warmup = 0
    if args["warmup_epochs"] > 0:
        length = (
            min(args["warmup_epochs"], epochs - 1)
            if release.short_warmup
            else args["warmup_epochs"]
        )
        warmup = max(round(length * steps_per_epoch), release.warmup_floor)
    last = warmup - 1 if release.open_warmup else warmup
    is_warmed = warmup > 0 and (resumed or start_epoch * steps_per_epoch <= last)
    if optimizer in policy.WITH_MOMENTUM and is_warmed:
        # The warm-up ends at the configured momentum, even if "auto" chose another.
        args["momentum"] = arguments["args"]["momentum"]
    batches = max(round(args["nbs"] / batch_size), 1)
    args["weight_decay"] = args["weight_decay"] * batch_size * batches / args["nbs"]
    return policy.build(
        (ultralytics, arguments),
        release,
        args,
        optimizer=optimizer,
        warmup=warmup,
        nbs=args["nbs"],
        batches=batches,
        ratios=ratios,
    )


def _ratios(release: policy.Version, version: str, is_long: bool | None) -> tuple[float, float]:
    """Return the factors of MuSGD's two moves."""
    if release.musgd is None:
        raise ValueError(f"MuSGD must go with a version from 8.4.0 on, got {describe(version)}.")
    short, long = release.musgd
    if short != long and is_long is None:
        raise ValueError(
            f"MuSGD of {version} must go with images, for its ratios follow the run's iterations, "
            "got images=None. Pass the number of training images."
        )
    return long if is_long else short
