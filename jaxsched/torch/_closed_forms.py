"""The closed forms of torch's schedulers, from live ones."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from torch.optim import lr_scheduler as live
from torch.optim.swa_utils import SWALR

from jaxsched import lr_scheduler
from jaxsched._schedule import Schedule

# The most that a closed form may differ from torch's recursion, and what each step adds to it, as
# shares of the peak. Measured: 4.5e-11 after 100,000 steps, of cosines of 10 to 30,000.
BOUND, DRIFT = 1e-11, 1e-15


def evaluate(schedule: Schedule, counts: np.ndarray) -> np.ndarray:
    """Return a schedule's float64 values at counts, (n,)."""
    with jax.enable_x64(True):
        return np.asarray(jax.vmap(schedule)(jnp.asarray(counts)))


def _one_cycle(scheduler: Any, index: int) -> Any:
    group, ends = scheduler.optimizer.param_groups[index], scheduler._schedule_phases
    total = scheduler.total_steps
    return lr_scheduler.one_cycle_lr(
        group["max_lr"],
        total,
        pct_start=(ends[0]["end_step"] + 1) / total,
        anneal_strategy=scheduler._anneal_func_type,
        cycle_momentum=scheduler.cycle_momentum,
        base_momentum=group.get("base_momentum", 0.85),
        max_momentum=group.get("max_momentum", 0.95),
        div_factor=group["max_lr"] / group["initial_lr"],
        final_div_factor=group["initial_lr"] / group["min_lr"],
        three_phase=len(ends) == 3,
    )


def _cyclic(scheduler: Any, index: int) -> Any:
    up = scheduler.total_size * scheduler.step_ratio
    names = ("base_momentum", "max_momentum") if scheduler.cycle_momentum else ()
    momenta = {name: getattr(scheduler, f"{name}s")[index] for name in names}
    same = ("mode", "gamma", "scale_mode", "cycle_momentum")
    return lr_scheduler.cyclic_lr(
        scheduler.base_lrs[index],
        scheduler.max_lrs[index],
        up,
        scheduler.total_size - up,
        scale_fn=scheduler._scale_fn_custom,
        **{name: getattr(scheduler, name) for name in same},
        **momenta,
    )


def _by_name(function: Callable[..., Any]) -> Callable[[Any, int], Any]:
    names = [*inspect.signature(function).parameters][1:-1]  # between base_lr and steps
    return lambda s, k: function(s.base_lrs[k], **{name: getattr(s, name) for name in names})


CLOSED: dict[type, Callable[[Any, int], Any]] = {
    live.LambdaLR: lambda s, k: lr_scheduler.lambda_lr(s.base_lrs[k], s.lr_lambdas[k]),
    live.StepLR: _by_name(lr_scheduler.step_lr),
    live.MultiStepLR: lambda s, k: lr_scheduler.multi_step_lr(
        s.base_lrs[k], sorted(s.milestones.elements()), s.gamma
    ),
    live.ConstantLR: _by_name(lr_scheduler.constant_lr),
    live.LinearLR: _by_name(lr_scheduler.linear_lr),
    live.ExponentialLR: _by_name(lr_scheduler.exponential_lr),
    live.PolynomialLR: _by_name(lr_scheduler.polynomial_lr),
    live.CosineAnnealingLR: _by_name(lr_scheduler.cosine_annealing_lr),
    live.CosineAnnealingWarmRestarts: _by_name(lr_scheduler.cosine_annealing_warm_restarts),
    live.CyclicLR: _cyclic,
    live.OneCycleLR: _one_cycle,
    SWALR: lambda s, k: lr_scheduler.swa_lr(
        s.base_lrs[k], s.optimizer.param_groups[k]["swa_lr"], s.anneal_epochs, s._anneal_strategy
    ),
}
"""For each class with a closed form, a function from a live scheduler and a group's index to it."""


def closed_form(scheduler: Any, index: int, name: str, column: Sequence[Any]) -> Schedule | None:
    """Return a hyperparameter's closed form as a function of the scheduler's steps, or None.

    It is built from the attributes of a copy, and must agree with ``column``, the values from the
    copy's step on, up to the drift of torch's recursion.
    """
    if name not in ("learning_rate", "momentum", "b1"):
        return None
    try:
        scheduler.base_lrs = [float(rate) for rate in scheduler.base_lrs]  # they may be tensors
        curve = CLOSED[type(scheduler)](scheduler, index)
    except (ValueError, TypeError, AttributeError, KeyError, ZeroDivisionError):
        return None
    closed = curve if name == "learning_rate" else curve.momentum
    if closed is None:
        return None
    values, counts = np.array(column), np.arange(len(column))
    try:
        ours = evaluate(closed, scheduler.last_epoch + counts)
    except Exception:  # an lr_lambda that cannot be traced may raise any error
        return None
    bound = (BOUND + DRIFT * counts) * np.abs(values).max()
    return closed if (np.abs(ours - values) <= bound).all() else None
