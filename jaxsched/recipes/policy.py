"""What YOLOv5's and Ultralytics' policies share. Counts iterations; 0 is the first.

The article's simulation of the policy is built of it too.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxsched import optimizers, schedules
from jaxsched.lr_scheduler import lambda_lr
from jaxsched.optimizers import Accumulation
from jaxsched.optimizers.arithmetic import is_zero
from jaxsched.schedules import Hyperparameter, Schedule, require, require_count

UPDATE_RULES: Mapping[str, Callable[..., Any]] = {
    "SGD": optimizers.sgd,
    "Adam": optimizers.adam,
    "AdamW": optimizers.adamw,
}

NBS = 64
"""The nominal batch size, to which the originals accumulate."""


def require_run(*, epochs: Any, steps_per_epoch: Any, start_epoch: Any) -> None:
    """Refuses a run that has no epoch, no iteration, or starts past its end."""
    require_count("epochs", epochs, at_least=1)
    require_count("steps_per_epoch", steps_per_epoch, at_least=1)
    require_count("start_epoch", start_epoch)
    if not isinstance(epochs, jax.Array):
        require("start_epoch", start_epoch, f"below epochs, {epochs}", lambda v: v < epochs)
    require(
        "epochs * steps_per_epoch",
        epochs * steps_per_epoch,
        "below 2**31, where int32 counts end",
        lambda v: v < 2**31,
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
    late = start_epoch * steps_per_epoch > warmup_iterations
    if not (resumed or is_zero(start_epoch)):
        # LambdaLR has set the rate of epoch 0 in a new optimizer.
        lagging = _starting(lagging, lambda: rate(0), start_epoch, late)
    elif saves_first and not is_zero(start_epoch):
        before = functools.partial(lagging, start_epoch - 1)
        lagging = _starting(lagging, before, start_epoch, late)
    return schedules.per_epoch(lagging, steps_per_epoch)


@schedules.remembered
def _starting(
    lagging: Schedule, first: Callable[[], jax.Array], start_epoch: int, late: ArrayLike
) -> Schedule:
    """``lagging``, but for the first epoch, which runs at the rate that its optimizer came with.

    Where the process starts ``late``, after the warm-up, nothing overwrites it.
    """
    return schedules.exact(
        lambda epoch: jnp.where((epoch == start_epoch) & late, first(), lagging(epoch))
    )


def groups(
    rate: Schedule,
    *,
    optimizer: str,
    warmup_iterations: Any,
    bias_rate: Hyperparameter,
    momentum: Hyperparameter,
    warmup_momentum: Hyperparameter,
    weight_decay: Hyperparameter,
    biased: str = "bias",
) -> dict[str, dict[str, Any]]:
    """The three groups, warmed up toward ``rate``.

    Args:
      rate: the rate after the warm-up, and its moving target, of the iteration.
      optimizer: a key of ``UPDATE_RULES``.
      warmup_iterations: length of the warm-up.
      bias_rate: where the warm-up of the group ``biased`` starts; the others start at 0.
      momentum: SGD's momentum after the warm-up; Adam's b1 all along.
      warmup_momentum: where the momentum's warm-up starts.
      weight_decay: decay of the group "weight".
      biased: the group that counts as the biases.
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
            "learning_rate": falling if label == biased else rising,
            "weight_decay": weight_decay if label == "weight" else 0.0,
            **moment,
        }
        for label in ("weight", "bias", "norm")
    }


def require_switches(**values: Any) -> None:
    """Refuses what is neither true nor false."""
    for name, value in values.items():
        require(name, value, "True or False", lambda v: isinstance(v, bool))


def require_choice(name: str, value: Any, known: Iterable[str]) -> None:
    """Refuses what is not among ``known``, and names those."""
    known = list(known)
    require(name, value, f"one of {', '.join(known)}", lambda v: v in known)


def batches_per_update(batch_size: int, nbs: float = NBS) -> int:
    """Batches an update once the ramp is over, rounded half to even."""
    return max(round(nbs / batch_size), 1)


def updates_before(accumulation: Accumulation, start: int) -> int:
    """Updates that a predecessor made in the iterations before ``start``."""
    return int(accumulation.simulate(0, start)["stepped"].sum()) if start else 0


def accumulation(
    *, warmup_iterations: int, ramp_to: float, then: int, drop_every: int | None
) -> Accumulation:
    """Batches an update, ramped up from 1 over the warm-up, rounded half to even.

    Args:
      warmup_iterations: length of the ramp; 0 for none.
      ramp_to: where it ends, before rounding.
      then: batches after it.
      drop_every: iterations in an epoch, where pending gradients are dropped at its start.
    """
    require("warm-up", warmup_iterations, "at most 1e8 iterations", lambda v: v <= 1e8)
    # On the host: a half that another device's float64 rounds elsewhere would move updates.
    ramp = np.interp(np.arange(warmup_iterations), [0, max(warmup_iterations, 1)], [1, ramp_to])
    counts = np.append(np.maximum(1, ramp.round()), then)

    def formula(count: Any) -> Any:
        return jnp.asarray(counts)[jnp.clip(count.astype(jnp.int64), 0, len(counts) - 1)]

    return Accumulation(schedules.exact(formula), drop_every)
