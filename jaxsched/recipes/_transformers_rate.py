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

SCHEDULES: Mapping[str, tuple[Callable[..., Schedule], tuple[str, ...]]] = {
    "linear": (schedules.linear_with_warmup, ()),
    "cosine": (schedules.cosine_with_warmup, ("num_cycles",)),
    "cosine_with_restarts": (schedules.cosine_with_restarts, ("num_cycles",)),
    "polynomial": (schedules.polynomial_with_warmup, ("lr_end", "power")),
    "constant_with_warmup": (schedules.constant_with_warmup, ()),
    "inverse_sqrt": (schedules.inverse_sqrt, ("timescale",)),
    "cosine_with_min_lr": (schedules.cosine_with_warmup, ("num_cycles", "min_lr", "min_lr_rate")),
    "cosine_warmup_with_min_lr": (
        schedules.cosine_warmup_with_min_lr,
        ("num_cycles", "min_lr", "min_lr_rate", "warmup_lr_rate"),
    ),
    "warmup_stable_decay": (
        schedules.warmup_stable_decay,
        (
            *("num_decay_steps", "num_stable_steps", "warmup_type", "decay_type"),
            *("min_lr_ratio", "num_cycles"),
        ),
    ),
}
"""The factor that ``lr_scheduler_type`` names, and what ``lr_scheduler_kwargs`` may hold."""


def update_rate(args: Mapping[str, Any], steps: int) -> Hyperparameter | Schedule:
    """Return the rate of an update."""
    lr, kind, kwargs = (
        args[k] for k in ("learning_rate", "lr_scheduler_type", "lr_scheduler_kwargs")
    )
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
    factor, names = SCHEDULES[kind]
    if kind == "constant_with_warmup":  # transformers does not pass them on
        kwargs = {}
    elif unknown := sorted(set(map(str, kwargs)) - set(names)):
        rule = f"be among {', '.join(names)}" if names else "be empty"
        raise ValueError(
            f"arguments['lr_scheduler_kwargs'] of {kind} must {rule}, got {', '.join(unknown)}."
        )
    options = {
        "num_warmup_steps": _warmup(args, steps),
        "num_training_steps": steps,
        "lr_init": lr,
        **kwargs,
    }
    if "min_lr" in names:
        options["min_lr_rate"] = _lowest_factor(lr, kwargs.get("min_lr"), kwargs.get("min_lr_rate"))
    if kind == "warmup_stable_decay":
        if kwargs.get("num_decay_steps") is None:
            raise ValueError(
                "num_decay_steps must be in lr_scheduler_kwargs of warmup_stable_decay, got none. "
                "Add it."
            )
        if kwargs.get("num_stable_steps") is not None:
            options["num_training_steps"] = None
        for name in ("num_decay_steps", "num_stable_steps"):
            options[name] = _as_integer(kwargs.get(name))
    parameters = inspect.signature(factor).parameters
    return lambda_lr(lr, factor(**{k: v for k, v in options.items() if k in parameters}))


def _warmup(args: Mapping[str, Any], steps: int) -> int:
    """Return the updates of the warm-up."""
    for key in ("warmup_steps", "warmup_ratio"):
        if isinstance(args[key], Tracer):
            raise TypeError(
                f"arguments[{key!r}] must be a number, for it sets a count of updates, got a traced "
                "value. Pass it from outside of jit and vmap."
            )
    updates, ratio = args["warmup_steps"] or 0, args["warmup_ratio"] or 0
    require_nonnegative(warmup_steps=updates)
    require("warmup_ratio", ratio, "from 0 to 1", lambda v: 0 <= v <= 1)
    return int(updates) if updates >= 1 else math.ceil(steps * (updates or ratio))


def _lowest_factor(lr: Any, min_lr: Any, min_lr_rate: Any) -> Any:
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


def _as_integer(value: Any) -> Any:
    """Convert a whole float such as 10.0, which transformers accepts as a count, to an integer."""
    return int(value) if isinstance(value, float) and value.is_integer() else value
