"""What YOLOv5's and Ultralytics' policies share. Counts iterations; 0 is the first.

The article's simulation of the policy is built of it too.
"""

from collections.abc import Callable, Mapping
from typing import Any

from jaxsched import optimizers, schedules
from jaxsched._schedule import Hyperparameter, Schedule
from jaxsched._validate import is_zero
from jaxsched.lr_scheduler import lambda_lr
from jaxsched.optimizers import Accumulation

UPDATE_RULES: Mapping[str, Callable[..., Any]] = {
    "SGD": optimizers.sgd,
    "Adam": optimizers.adam,
    "AdamW": optimizers.adamw,
}

NBS = 64
"""The nominal batch size, to which the originals accumulate."""


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


def batches_per_update(batch_size: int, nbs: float = NBS) -> int:
    """Batches an update once the ramp is over, rounded half to even."""
    return max(round(nbs / batch_size), 1)


def updates_before(accumulation: Accumulation, start: int) -> int:
    """Updates that a predecessor made in the iterations before ``start``."""
    return int(accumulation.simulate(0, start)["stepped"].sum()) if start else 0
