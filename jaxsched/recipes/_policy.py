"""What YOLOv5's and Ultralytics' policies, and the article's simulation of one, have in common."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from jaxsched import optimizers, schedules
from jaxsched._recipe import Recipe
from jaxsched._schedule import Hyperparameter, Schedule
from jaxsched._validate import is_zero, require_bool, require_choice, require_count, require_run
from jaxsched.lr_scheduler import lambda_lr

UPDATE_RULES: Mapping[str, Callable[..., Any]] = {
    "SGD": optimizers.sgd,
    "Adam": optimizers.adam,
    "AdamW": optimizers.adamw,
}

DEFAULTS = {
    "lr0": 0.01,
    "lrf": 0.01,
    "momentum": 0.937,
    "weight_decay": 0.0005,
    "warmup_epochs": 3.0,
    "warmup_momentum": 0.8,
    "warmup_bias_lr": 0.1,
}
"""What ``hyp.scratch-low.yaml`` and Ultralytics' default settings have for the optimizer."""


@dataclasses.dataclass(frozen=True)
class Version:
    """Where the releases of the originals differ.

    Attributes:
      lags: the scheduler steps at an epoch's end, so that rates lag by an epoch.
      saves_first: where it lags, a checkpoint is saved before the scheduler steps, so that a
        resumed process repeats the rate of its predecessor's last epoch.
      drops: pending gradients are dropped at an epoch's start.
      warmup_floor: iterations that a warm-up lasts at least.
      short_runs: the warm-up is no longer than the run without its last epoch, and the
        accumulation ramps to an integer that the run can reach.
      clip_norm: norm that all gradients together are clipped to.
      bias_label: the group whose warm-up starts from the bias rate.
      auto_short: the optimizer that "auto" takes for up to 10,000 iterations.
      auto_long: the one that it takes for more.
    """

    lags: bool = True
    saves_first: bool = False
    drops: bool = True
    warmup_floor: int = 100
    short_runs: bool = False
    clip_norm: float | None = 10.0
    bias_label: str = "bias"
    auto_short: str = "AdamW"
    auto_long: str = "SGD"


def release_of(arguments: Mapping[str, Any], versions: Mapping[str, Version]) -> Version:
    """Return the version that the arguments of a policy name, and refuse those it cannot take."""
    require_run(**{name: arguments[name] for name in ("epochs", "steps_per_epoch", "start_epoch")})
    require_count("batch_size", arguments["batch_size"], at_least=1)
    require_bool(**{name: arguments[name] for name in ("cos_lr", "resumed")})
    require_choice("version", arguments["version"], versions)
    return versions[arguments["version"]]


def build(
    origin: tuple[Callable[..., Recipe], Mapping[str, Any]],
    release: Version,
    hyp: Mapping[str, Any],
    *,
    optimizer: str,
    warmup: int,
    nbs: float,
    batches: int,
) -> Recipe:
    """Build the recipe of an original; ``origin`` are the policy and its arguments.

    ``hyp`` are its hyperparameters, the decay scaled, ``nbs`` is the nominal batch size, to which it
    accumulates, and ``batches`` those of an update once the ramp is over.
    """
    run = origin[1]
    epochs, steps_per_epoch = run["epochs"], run["steps_per_epoch"]
    factor = (schedules.one_cycle if run["cos_lr"] else schedules.linear)(epochs, lrf=hyp["lrf"])
    if release.lags:
        rate = lagging_rate(hyp["lr0"], factor, warmup, run, saves_first=release.saves_first)
    else:
        rate = schedules.per_epoch(lambda_lr(hyp["lr0"], factor), steps_per_epoch)
    ramp_end = nbs / run["batch_size"]
    if release.short_runs:
        ramp_end = batches = min(batches, steps_per_epoch * epochs)
    ramp = schedules.batch_ramp(warmup, end=ramp_end, then=batches)
    drop = steps_per_epoch if release.drops else None
    accumulation = optimizers.Accumulation(ramp, drop, last_update=-1)
    start, updates = run["start_epoch"] * steps_per_epoch, 0
    if run["resumed"] and start:
        updates = int(accumulation.simulate(0, start)["stepped"].sum())
    return Recipe(
        groups(rate, hyp, warmup, optimizer=optimizer, bias_label=release.bias_label),
        UPDATE_RULES[optimizer],
        clip_norm=release.clip_norm,
        accumulation=accumulation,
        ema=optimizers.EMA(updates=updates),
        start=start,
        length=epochs * steps_per_epoch,
        origin=origin,
    )


def lagging_rate(
    lr0: Hyperparameter,
    factor: Schedule,
    warmup: Any,
    run: Mapping[str, Any],
    *,
    saves_first: bool = False,
) -> Schedule:
    """The rate of an iteration where the scheduler steps at each epoch's end, and so lags.

    Until iteration ``warmup`` the warm-up writes the rate, toward the current epoch's; the lag shows
    from the epoch after. ``run`` holds a policy's arguments: a process that starts in ``start_epoch``
    is ``resumed`` where it has its predecessor's optimizer state; ``saves_first`` if that was saved
    before the scheduler stepped.
    """
    steps_per_epoch, start_epoch = run["steps_per_epoch"], run["start_epoch"]
    rate = lambda_lr(lr0, factor)
    lagging = schedules.lagged(rate, after=warmup // steps_per_epoch)
    if not is_zero(start_epoch):
        # After the warm-up nothing overwrites the rate that its optimizer came with.
        late = start_epoch * steps_per_epoch > warmup
        if not run["resumed"]:  # LambdaLR has set the rate of epoch 0 in a new optimizer
            first = schedules.shift(rate, start_epoch)
            lagging = schedules.override(lagging, first, at=start_epoch, when=late)
        elif saves_first:
            before = schedules.shift(lagging, 1)
            lagging = schedules.override(lagging, before, at=start_epoch, when=late)
    return schedules.per_epoch(lagging, steps_per_epoch)


def groups(
    rate: Schedule,
    hyp: Mapping[str, Any],
    warmup: Any,
    *,
    optimizer: str = "SGD",
    bias_label: str = "bias",
) -> dict[str, dict[str, Any]]:
    """The three groups, warmed up toward ``rate``, which moves, in ``warmup`` iterations.

    The rate's warm-up starts from ``warmup_bias_lr`` in the group ``bias_label`` and from 0 in the
    others. ``momentum`` is SGD's after its warm-up, Adam's b1 all along. Only "weight" decays.
    """
    moment = {"b1": hyp["momentum"], "b2": 0.999}
    if optimizer == "SGD":
        after = schedules.constant(hyp["momentum"])
        momentum = schedules.warmup(after, warmup, start=hyp["warmup_momentum"])
        moment = {"momentum": momentum, "nesterov": True}
    rising = schedules.warmup(rate, warmup, start=0.0)
    falling = schedules.warmup(rate, warmup, start=hyp["warmup_bias_lr"])
    return {
        label: {
            "learning_rate": falling if label == bias_label else rising,
            "weight_decay": hyp["weight_decay"] if label == "weight" else 0.0,
            **moment,
        }
        for label in ("weight", "bias", "norm")
    }
