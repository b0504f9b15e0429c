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
    momentum: float,
    weight_decay: float,
    nbs: float,
    batches: int,
) -> Recipe:
    """Build the recipe of an original.

    Args:
      origin: the policy and its arguments.
      release: the version.
      hyp: the original's hyperparameters.
      optimizer: a key of ``UPDATE_RULES``.
      warmup: length of the warm-up, in iterations.
      momentum: where its momentum leads.
      weight_decay: decay of the group "weight", scaled.
      nbs: the nominal batch size, to which the original accumulates.
      batches: batches an update once the ramp is over.
    """
    epochs, steps_per_epoch, batch_size, cos_lr, start_epoch, resumed = (
        origin[1][name]
        for name in ("epochs", "steps_per_epoch", "batch_size", "cos_lr", "start_epoch", "resumed")
    )
    factor = (schedules.one_cycle if cos_lr else schedules.linear)(epochs, lrf=hyp["lrf"])
    if release.lags:
        rate = lagging_rate(
            hyp["lr0"],
            factor,
            steps_per_epoch=steps_per_epoch,
            warmup_iterations=warmup,
            start_epoch=start_epoch,
            resumed=resumed,
            saves_first=release.saves_first,
        )
    else:
        rate = schedules.per_epoch(lambda_lr(hyp["lr0"], factor), steps_per_epoch)
    reachable = min(batches, steps_per_epoch * epochs)
    ramp = schedules.batch_ramp(
        warmup,
        end=reachable if release.short_runs else nbs / batch_size,
        then=reachable if release.short_runs else batches,
    )
    accumulation = optimizers.Accumulation(ramp, steps_per_epoch if release.drops else None)
    start, updates = start_epoch * steps_per_epoch, 0
    if resumed and start:
        updates = int(accumulation.simulate(0, start)["stepped"].sum())
    return Recipe(
        groups(
            rate,
            optimizer=optimizer,
            warmup_iterations=warmup,
            bias_rate=hyp["warmup_bias_lr"],
            bias_label=release.bias_label,
            momentum=momentum,
            warmup_momentum=hyp["warmup_momentum"],
            weight_decay=weight_decay,
        ),
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
    *,
    steps_per_epoch: int,
    warmup_iterations: Any,
    start_epoch: int,
    resumed: bool,
    saves_first: bool = False,
) -> Schedule:
    """The rate of an iteration where the scheduler steps at each epoch's end, and so lags.

    Args:
      lr0: base rate.
      factor: ``lr_lambda``, counting epochs.
      steps_per_epoch: iterations in an epoch.
      warmup_iterations: until then the warm-up writes the rate, toward the current
        epoch's; the lag shows from the epoch after.
      start_epoch: the epoch in which this process starts.
      resumed: whether it starts with its predecessor's optimizer state.
      saves_first: whether that state was saved before the scheduler stepped.
    """
    rate = lambda_lr(lr0, factor)
    lagging = schedules.lagged(rate, after=warmup_iterations // steps_per_epoch)
    if not is_zero(start_epoch):
        # After the warm-up nothing overwrites the rate that its optimizer came with.
        late = start_epoch * steps_per_epoch > warmup_iterations
        if not resumed:  # LambdaLR has set the rate of epoch 0 in a new optimizer
            first = schedules.shift(rate, start_epoch)
            lagging = schedules.override(lagging, first, at=start_epoch, when=late)
        elif saves_first:
            before = schedules.shift(lagging, 1)
            lagging = schedules.override(lagging, before, at=start_epoch, when=late)
    return schedules.per_epoch(lagging, steps_per_epoch)


def groups(
    rate: Schedule,
    *,
    optimizer: str,
    warmup_iterations: Any,
    bias_rate: Hyperparameter,
    momentum: Hyperparameter,
    warmup_momentum: Hyperparameter,
    weight_decay: Hyperparameter,
    bias_label: str = "bias",
) -> dict[str, dict[str, Any]]:
    """The three groups, warmed up toward ``rate``.

    Args:
      rate: the rate after the warm-up, and its moving target, of the iteration.
      optimizer: a key of ``UPDATE_RULES``.
      warmup_iterations: length of the warm-up.
      bias_rate: where the warm-up of the group ``bias_label`` starts; the others start at 0.
      momentum: SGD's momentum after the warm-up; Adam's b1 all along.
      warmup_momentum: where the momentum's warm-up starts.
      weight_decay: decay of the group "weight".
      bias_label: the group that starts from ``bias_rate``.
    """
    if optimizer == "SGD":
        moment = {
            "momentum": schedules.warmup(
                schedules.constant(momentum), warmup_iterations, start=warmup_momentum
            ),
            "nesterov": True,
        }
    else:
        moment = {"b1": momentum, "b2": 0.999}
    rising = schedules.warmup(rate, warmup_iterations, start=0.0)
    falling = schedules.warmup(rate, warmup_iterations, start=bias_rate)
    return {
        label: {
            "learning_rate": falling if label == bias_label else rising,
            "weight_decay": weight_decay if label == "weight" else 0.0,
            **moment,
        }
        for label in ("weight", "bias", "norm")
    }
