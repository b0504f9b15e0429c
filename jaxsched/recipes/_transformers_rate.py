"""The rate of transformers' ``Trainer``, from ``lr_scheduler_type`` and its arguments."""

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any

from jax.core import Tracer

from jaxsched import schedules
from jaxsched._schedule import Hyperparameter, Schedule
from jaxsched._validate import describe, require, require_choice, require_nonnegative
from jaxsched.lr_scheduler import lambda_lr
from jaxsched.recipes._settings import parse_json


def update_rate(a: Mapping[str, Any], steps: int) -> Hyperparameter | Schedule:
    """Return the rate of an update."""
    lr, kind, kwargs = (a[k] for k in ("learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs"))
    require_nonnegative(**{"arguments['learning_rate']": lr})
    if kind in ("reduce_lr_on_plateau", "greedy"):
        raise ValueError(
            "arguments['lr_scheduler_type'] must name a function of the update, got "
            f"{kind}, which follows a metric. See lr_scheduler.reduce_lr_on_plateau."
        )
    require_choice("arguments['lr_scheduler_type']", kind, ["constant", *SCHEDULES])
    if isinstance(kwargs, str):
        kwargs = parse_json("arguments['lr_scheduler_kwargs']", kwargs) if kwargs else None
    kwargs = {} if kwargs is None else kwargs
    if not isinstance(kwargs, Mapping):
        raise TypeError(
            f"arguments['lr_scheduler_kwargs'] must be a mapping or None, got {describe(kwargs)}."
        )
    if kind == "constant":
        return lr
    schedule = SCHEDULES[kind]
    names = list(inspect.signature(schedule).parameters)[3:]
    if kind == "constant_with_warmup":  # transformers does not pass them on
        kwargs = {}
    elif unknown := sorted(set(map(str, kwargs)) - set(names)):
        rule = f"be among {', '.join(names)}" if names else "be empty"
        raise ValueError(
            f"arguments['lr_scheduler_kwargs'] of {kind} must {rule}, got {', '.join(unknown)}."
        )
    return lambda_lr(lr, schedule(lr, _warmup(a, steps), steps, **kwargs))


def _warmup(a: Mapping[str, Any], steps: int) -> int:
    """Return the updates of the warm-up."""
    for key in ("warmup_steps", "warmup_ratio"):
        if isinstance(a[key], Tracer):
            raise TypeError(
                f"arguments[{key!r}] must be a number, for it sets a count of updates, got a traced "
                "value. Pass it from outside of jit and vmap."
            )
    updates, ratio = a["warmup_steps"] or 0, a["warmup_ratio"] or 0
    require_nonnegative(warmup_steps=updates)
    require("warmup_ratio", ratio, "from 0 to 1", lambda v: 0 <= v <= 1)
    return int(updates) if updates >= 1 else math.ceil(steps * (updates or ratio))


def _cosine_with_min_lr(
    lr: Any,
    warmup: int,
    steps: int,
    num_cycles: float = 0.5,
    min_lr: float | None = None,
    min_lr_rate: float | None = None,
) -> Schedule:
    rate = _lowest(lr, min_lr, min_lr_rate)
    return schedules.cosine_with_warmup(warmup, steps, num_cycles, min_lr_rate=rate)


def _cosine_warmup_with_min_lr(
    lr: Any,
    warmup: int,
    steps: int,
    num_cycles: float = 0.5,
    min_lr: float | None = None,
    min_lr_rate: float | None = None,
    warmup_lr_rate: float | None = None,
) -> Schedule:
    rate = _lowest(lr, min_lr, min_lr_rate)
    return schedules.cosine_warmup_with_min_lr(
        warmup, steps, num_cycles, min_lr_rate=rate, warmup_lr_rate=warmup_lr_rate
    )


def _lowest(lr: Any, min_lr: Any, min_lr_rate: Any) -> Any:
    """Return the lowest factor, from a rate or from a share of the rate."""
    if (min_lr is None) == (min_lr_rate is None):
        raise ValueError(
            "one of min_lr and min_lr_rate must be in lr_scheduler_kwargs, got "
            f"{min_lr} and {min_lr_rate}. Leave the other out."
        )
    if min_lr is None:
        return min_lr_rate
    require_nonnegative(min_lr=min_lr)
    require("arguments['learning_rate']", lr, "above 0, to divide min_lr by", lambda v: v > 0)
    return min_lr / lr


def _polynomial(
    lr: Any, warmup: int, steps: int, lr_end: float = 1e-7, power: float = 1.0
) -> Schedule:
    return schedules.polynomial_with_warmup(warmup, steps, lr_end, power, lr_init=lr)


def _warmup_stable_decay(
    lr: Any,
    warmup: int,
    steps: int,
    num_decay_steps: int | None = None,
    num_stable_steps: int | None = None,
    warmup_type: str = "linear",
    decay_type: str = "cosine",
    min_lr_ratio: float = 0,
    num_cycles: float = 0.5,
) -> Schedule:
    if num_decay_steps is None:
        raise ValueError(
            "num_decay_steps must be in lr_scheduler_kwargs of warmup_stable_decay, got none. "
            "Add it."
        )
    return schedules.warmup_stable_decay(
        warmup,
        _whole(num_decay_steps),
        steps if num_stable_steps is None else None,
        _whole(num_stable_steps),
        warmup_type,
        decay_type,
        min_lr_ratio,
        num_cycles,
    )


def _whole(value: Any) -> Any:
    """Convert a whole float such as 10.0, which transformers accepts as a count, to an integer."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


# From (learning rate, updates of the warm-up, of the run, **lr_scheduler_kwargs) to a factor.
SCHEDULES: Mapping[str, Callable[..., Schedule]] = {
    "linear": lambda lr, warmup, steps: schedules.linear_with_warmup(warmup, steps),
    "cosine": lambda lr, warmup, steps, num_cycles=0.5: schedules.cosine_with_warmup(
        warmup, steps, num_cycles
    ),
    "cosine_with_restarts": lambda lr, warmup, steps, num_cycles=1: schedules.cosine_with_restarts(
        warmup, steps, num_cycles
    ),
    "polynomial": _polynomial,
    "constant_with_warmup": lambda lr, warmup, steps: schedules.constant_with_warmup(warmup),
    "inverse_sqrt": lambda lr, warmup, steps, timescale=None: schedules.inverse_sqrt(
        warmup, timescale
    ),
    "cosine_with_min_lr": _cosine_with_min_lr,
    "cosine_warmup_with_min_lr": _cosine_warmup_with_min_lr,
    "warmup_stable_decay": _warmup_stable_decay,
}
