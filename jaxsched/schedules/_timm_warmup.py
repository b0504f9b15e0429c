"""The warm-up of timm's schedulers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from jaxsched._arithmetic import quotient
from jaxsched._schedule import Schedule, formula_of
from jaxsched._validate import (
    require_base_lr,
    require_bool,
    require_count,
    require_nonnegative,
)


def with_warmup(
    factory: Callable[..., Schedule],
    arguments: Mapping[str, Any],
    curve: Callable[..., Any],
    values: Sequence[Any],
    *,
    toward_curve: bool = False,
) -> Schedule:
    """Build the schedule of a curve with timm's warm-up, before the curve or over its beginning.

    Args:
      factory: the public function.
      arguments: its ``locals()``.
      curve: the rate as a function of the count since the schedule's start, ``base_lr`` and
        ``values``.
      values: further arguments of ``curve``.
      toward_curve: whether the warm-up rises toward the curve instead of ``base_lr``.
    """
    base_lr, warmup_t, start = (
        arguments[name] for name in ("base_lr", "warmup_t", "warmup_lr_init")
    )
    require_base_lr(base_lr)
    require_count("warmup_t", warmup_t)
    require_nonnegative(warmup_lr_init=start)
    require_bool(warmup_prefix=arguments["warmup_prefix"])
    length = int(warmup_t)
    shift = length if arguments["warmup_prefix"] else 0

    def formula(count: Any, base_lr: Any, start: Any, *values: Any) -> Any:
        rate = jnp.where(count == 0, base_lr, curve(count - shift, base_lr, *values))
        if not length:
            return rate
        end = base_lr
        if toward_curve:
            end = curve(jnp.asarray(float(length - shift)), base_lr, *values)
        rising = start + count * quotient(end - start, float(length), count)
        return jnp.where(count < length, rising, rate)

    return Schedule(factory, arguments, formula_of(formula, base_lr, start, *values))
