"""transformers' factors of the learning rate by update: a warm-up, then a decay.

Each is an ``lr_lambda`` for ``lr_scheduler.lambda_lr``; arguments keep transformers' names.
w is ``num_warmup_steps``, T is ``num_training_steps``; both count updates. Source:
https://github.com/huggingface/transformers/blob/v5.24.0/src/transformers/optimization.py
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxsched._arithmetic import quotient
from jaxsched._schedule import Hyperparameter, Schedule, as_float64, formula_of
from jaxsched._validate import (
    require,
    require_choice,
    require_count,
    require_nonnegative,
    require_positive,
)

Count = int | jax.Array

SHAPES: dict[str, Callable[[Any], Any]] = {
    "linear": lambda progress: 1.0 - progress,
    "1-sqrt": lambda progress: 1.0 - jnp.sqrt(progress),
}
"""Factors that fall from 1 to 0 as the progress rises from 0 to 1."""


def constant_with_warmup(num_warmup_steps: Count) -> Schedule:
    r"""Linear factor from 0 to 1, then 1.

    .. math:: f(c) = c / w \text{ if } c < w, \text{ else } 1

    Args:
      num_warmup_steps: updates of the warm-up, w.

    Source: ``get_constant_schedule_with_warmup`` of transformers 5.24.

    >>> [float(constant_with_warmup(2)(c)) for c in range(4)]
    [0.0, 0.5, 1.0, 1.0]
    """
    require_count("num_warmup_steps", num_warmup_steps)

    def formula(count: Any, warmup: Any) -> Any:
        return _with_warmup(count, warmup, jnp.ones_like(count))

    return Schedule(constant_with_warmup, locals(), formula_of(formula, num_warmup_steps))


def linear_with_warmup(num_warmup_steps: Count, num_training_steps: Count) -> Schedule:
    r"""Linear factor from 0 to 1, then linear to 0.

    .. math:: f(c) = c / w \text{ if } c < w, \text{ else } \max(0, (T - c) / (T - w))

    Args:
      num_warmup_steps: updates of the warm-up, w.
      num_training_steps: updates of the run, T.

    Source: ``get_linear_schedule_with_warmup`` of transformers 5.24.

    >>> [float(linear_with_warmup(2, 6)(c)) for c in range(8)]
    [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0, 0.0]
    """
    _require_steps(num_warmup_steps, num_training_steps)

    def formula(count: Any, warmup: Any, end: Any) -> Any:
        after = quotient(end - count, jnp.maximum(end - warmup, 1), count)
        return _with_warmup(count, warmup, jnp.maximum(after, 0.0))

    steps = num_warmup_steps, num_training_steps
    return Schedule(linear_with_warmup, locals(), formula_of(formula, *steps))


def cosine_with_warmup(
    num_warmup_steps: Count,
    num_training_steps: Count,
    num_cycles: Hyperparameter = 0.5,
    *,
    min_lr_rate: Hyperparameter = 0.0,
) -> Schedule:
    r"""Linear factor from 0 to 1, then a cosine to ``min_lr_rate``.

    .. math:: f(c) = c / w \text{ if } c < w, \text{ else }
              \frac{1 + \cos(2 \pi k \frac{c - w}{T - w})}{2} (1 - r) + r

    Args:
      num_warmup_steps: updates of the warm-up, w.
      num_training_steps: updates of the run, T.
      num_cycles: periods of the cosine in the run, k; 0.5 ends at the minimum.
      min_lr_rate: the lowest factor, r.

    Source: ``get_cosine_schedule_with_warmup`` and ``get_cosine_with_min_lr_schedule_with_warmup``
    of transformers 5.24.

    >>> [float(cosine_with_warmup(2, 6, min_lr_rate=0.5)(c)) for c in (0, 1, 2, 4, 6)]
    [0.0, 0.5, 1.0, 0.75, 0.5]
    """
    _require_steps(num_warmup_steps, num_training_steps)

    def formula(count: Any, warmup: Any, end: Any, cycles: Any, lowest: Any) -> Any:
        progress = quotient(count - warmup, jnp.maximum(end - warmup, 1), count)
        return _with_warmup(count, warmup, _cosine(progress, cycles, lowest))

    values = num_warmup_steps, num_training_steps, num_cycles, min_lr_rate
    return Schedule(cosine_with_warmup, locals(), formula_of(formula, *values))


def cosine_with_restarts(
    num_warmup_steps: Count, num_training_steps: Count, num_cycles: Hyperparameter = 1
) -> Schedule:
    r"""Linear factor from 0 to 1, then half cosines from 1 to 0, then 0.

    .. math:: f(c) = c / w \text{ if } c < w, \text{ else }
              \frac{1 + \cos(\pi (k \frac{c - w}{T - w} \bmod 1))}{2} \text{ if } c < T, \text{ else } 0

    Args:
      num_warmup_steps: updates of the warm-up, w.
      num_training_steps: updates of the run, T.
      num_cycles: half cosines in the run, k.

    Source: ``get_cosine_with_hard_restarts_schedule_with_warmup`` of transformers 5.24.

    >>> [round(float(cosine_with_restarts(2, 10, num_cycles=2)(c)), 6) for c in (1, 2, 4, 6, 10)]
    [0.5, 1.0, 0.5, 1.0, 0.0]
    """
    _require_steps(num_warmup_steps, num_training_steps)

    def formula(count: Any, warmup: Any, end: Any, cycles: Any) -> Any:
        progress = quotient(count - warmup, jnp.maximum(end - warmup, 1), count)
        wave = 0.5 * (1.0 + jnp.cos(math.pi * ((cycles * progress) % 1.0)))
        return _with_warmup(count, warmup, jnp.where(progress >= 1.0, 0.0, jnp.maximum(wave, 0.0)))

    values = num_warmup_steps, num_training_steps, num_cycles
    return Schedule(cosine_with_restarts, locals(), formula_of(formula, *values))


def cosine_warmup_with_min_lr(
    num_warmup_steps: Count,
    num_training_steps: Count,
    num_cycles: Hyperparameter = 0.5,
    *,
    min_lr_rate: Hyperparameter,
    warmup_lr_rate: Hyperparameter | None = None,
) -> Schedule:
    r"""Linear factor from ``warmup_lr_rate`` to 1, then a cosine, one update ahead.

    .. math:: f(c) &= (c + 1) / w \text{, or } q + (1 - q) c / (w - 1) \quad && c < w \\
              f(c) &= \frac{1 + \cos(2 \pi k \frac{c - w + 1}{T - w})}{2} (1 - r) + r && c \ge w

    Args:
      num_warmup_steps: updates of the warm-up, w.
      num_training_steps: updates of the run, T.
      num_cycles: periods of the cosine in the run, k; 0.5 ends at the minimum.
      min_lr_rate: the lowest factor after the warm-up, r.
      warmup_lr_rate: the factor at 0, q; 1 / w if None.

    Source: ``get_cosine_with_min_lr_schedule_with_warmup_lr_rate`` of transformers 5.24.

    >>> [float(cosine_warmup_with_min_lr(2, 6, min_lr_rate=0.5)(c)) for c in (0, 1, 3, 5)]
    [0.5, 1.0, 0.75, 0.5]
    """
    _require_steps(num_warmup_steps, num_training_steps)

    def formula(count: Any, warmup: Any, end: Any, cycles: Any, lowest: Any, *first: Any) -> Any:
        if first:
            rise = quotient((1.0 - first[0]) * count, jnp.maximum(warmup - 1, 1), count)
            rise = first[0] + rise
        else:
            rise = quotient(count + 1.0, jnp.maximum(warmup, 1), count)
        progress = quotient(count - warmup + 1.0, jnp.maximum(end - warmup, 1), count)
        return jnp.where(count < warmup, rise, _cosine(progress, cycles, lowest))

    values = num_warmup_steps, num_training_steps, num_cycles, min_lr_rate
    first = () if warmup_lr_rate is None else (warmup_lr_rate,)
    return Schedule(cosine_warmup_with_min_lr, locals(), formula_of(formula, *values, *first))


def polynomial_with_warmup(
    num_warmup_steps: Count,
    num_training_steps: Count,
    lr_end: Hyperparameter = 1e-7,
    power: Hyperparameter = 1.0,
    *,
    lr_init: Hyperparameter,
) -> Schedule:
    r"""Linear factor from 0 to 1, then a power of the remaining share of the run.

    .. math:: f(c) = c / w \text{ if } c < w, \text{ else }
              \left((\gamma_0 - \gamma_1) \left(1 - \frac{c - w}{T - w}\right)^p + \gamma_1\right) / \gamma_0

    Past T it is γ₁ / γ₀.

    Args:
      num_warmup_steps: updates of the warm-up, w.
      num_training_steps: updates of the run, T, above w.
      lr_end: the last rate, γ₁.
      power: the exponent p.
      lr_init: the base rate, which the factor multiplies, γ₀, above γ₁.

    Source: ``get_polynomial_decay_schedule_with_warmup`` of transformers 5.24.

    >>> [float(polynomial_with_warmup(1, 5, 0.25, lr_init=1.0)(c)) for c in (0, 1, 3, 5, 6)]
    [0.0, 1.0, 0.625, 0.25, 0.25]
    """
    _require_steps(num_warmup_steps, num_training_steps)
    require_nonnegative(lr_end=lr_end)
    if not any(isinstance(value, jax.Array) for value in (lr_init, lr_end)):
        require("lr_init", lr_init, f"above lr_end, {lr_end}", lambda v: v > lr_end)
    if not any(isinstance(n, jax.Array) for n in (num_warmup_steps, num_training_steps)):
        rule = f"other than num_warmup_steps, {num_warmup_steps}, to leave something to decay in"
        require("num_training_steps", num_training_steps, rule, lambda v: v != num_warmup_steps)

    def formula(count: Any, warmup: Any, end: Any, last: Any, power: Any, first: Any) -> Any:
        run = quotient(jnp.clip(count, warmup, end) - warmup, end - warmup, count)
        rate = jnp.where(count > end, last, (first - last) * (1 - run) ** power + last)
        return _with_warmup(count, warmup, quotient(rate, first, count))

    values = num_warmup_steps, num_training_steps, lr_end, power, lr_init
    return Schedule(polynomial_with_warmup, locals(), formula_of(formula, *values))


def inverse_sqrt(num_warmup_steps: Count, timescale: Hyperparameter | None = None) -> Schedule:
    r"""Linear factor from 0 to 1, then the inverse of a square root.

    .. math:: f(c) = c / w \text{ if } c < w, \text{ else } 1 / \sqrt{(c + \tau - w) / \tau}

    Args:
      num_warmup_steps: updates of the warm-up, w.
      timescale: τ, above 0; w if None, or 10,000 if w is 0.

    Source: ``get_inverse_sqrt_schedule`` of transformers 5.24.

    >>> [float(inverse_sqrt(4)(c)) for c in (0, 2, 4, 16)]
    [0.0, 0.5, 1.0, 0.5]
    """
    require_count("num_warmup_steps", num_warmup_steps)
    if timescale is not None:
        require_positive("timescale", timescale)

    def formula(count: Any, warmup: Any, *optional: Any) -> Any:
        scale = optional[0] if optional else jnp.where(as_float64(warmup) > 0, warmup, 10_000.0)
        after = jnp.maximum(count, warmup) + (scale - warmup)
        return _with_warmup(count, warmup, 1.0 / jnp.sqrt(quotient(after, scale, count)))

    scale = () if timescale is None else (timescale,)
    return Schedule(inverse_sqrt, locals(), formula_of(formula, num_warmup_steps, *scale))


def warmup_stable_decay(
    num_warmup_steps: Count,
    num_decay_steps: Count,
    num_training_steps: Count | None = None,
    num_stable_steps: Count | None = None,
    warmup_type: str = "linear",
    decay_type: str = "cosine",
    min_lr_ratio: Hyperparameter = 0.0,
    num_cycles: Hyperparameter = 0.5,
) -> Schedule:
    r"""Factor that rises from ``min_lr_ratio`` to 1, stays there, and falls to ``min_lr_ratio``.

    .. math:: f(c) &= u(c / w) (1 - r) + r && c < w \\
              f(c) &= 1 && c < w + s \\
              f(c) &= d((c - w - s) / n) (1 - r) + r \quad && c < w + s + n \\
              f(c) &= r && c \ge w + s + n

    ``warmup_type`` selects u, ``decay_type`` d:

    - ``"linear"``: u(x) = x, d(x) = 1 - x;
    - ``"1-sqrt"``: u(x) = 1 - √(1 - x), d(x) = 1 - √x;
    - ``"cosine"``: u(x) = (1 - cos(πx)) / 2, d(x) = (1 + cos(2πkx)) / 2.

    Args:
      num_warmup_steps: updates of the warm-up, w.
      num_decay_steps: updates of the decay, n.
      num_training_steps: updates of the run, from which s = T - w - n follows.
      num_stable_steps: updates at 1, s, in place of ``num_training_steps``.
      warmup_type: ``"linear"``, ``"cosine"`` or ``"1-sqrt"``.
      decay_type: ``"linear"``, ``"cosine"`` or ``"1-sqrt"``.
      min_lr_ratio: the lowest factor, r.
      num_cycles: periods of the cosine in the decay, k.

    Raises:
      ValueError: both or none of ``num_training_steps`` and ``num_stable_steps`` are given; an
        unknown type; a count below 0.

    Source: ``get_wsd_schedule`` of transformers 5.24.

    >>> [float(warmup_stable_decay(2, 4, 8, decay_type="linear")(c)) for c in (0, 1, 2, 3, 4, 7, 8)]
    [0.0, 0.5, 1.0, 1.0, 1.0, 0.25, 0.0]
    """
    require_count("num_warmup_steps", num_warmup_steps)
    require_count("num_decay_steps", num_decay_steps)
    if (num_training_steps is None) == (num_stable_steps is None):
        raise ValueError(
            "one of num_training_steps and num_stable_steps must be given, got "
            f"{num_training_steps} and {num_stable_steps}. Leave the other None."
        )
    is_stable = num_stable_steps is not None
    last = num_stable_steps if is_stable else num_training_steps
    require_count("num_stable_steps" if is_stable else "num_training_steps", last)
    for name, value in (("warmup_type", warmup_type), ("decay_type", decay_type)):
        require_choice(name, value, [*SHAPES, "cosine"])

    def formula(count: Any, warmup: Any, decay: Any, last: Any, ratio: Any, cycles: Any) -> Any:
        stable = last if is_stable else last - warmup - decay
        begin = warmup + stable
        rising = quotient(jnp.minimum(count, warmup), jnp.maximum(warmup, 1), count)
        falling = quotient(jnp.clip(count - begin, 0, decay), jnp.maximum(decay, 1), count)
        if warmup_type == "cosine":
            rise = 0.5 * (1.0 - jnp.cos(math.pi * rising))
        else:
            rise = rising if warmup_type == "linear" else SHAPES[warmup_type](1.0 - rising)
        fall = _wave(falling, cycles) if decay_type == "cosine" else SHAPES[decay_type](falling)
        rise, fall = (jnp.maximum(f * (1.0 - ratio) + ratio, 0.0) for f in (rise, fall))
        after = jnp.where(count < begin, 1.0, jnp.where(count < begin + decay, fall, ratio))
        return jnp.where(count < warmup, rise, after)

    values = num_warmup_steps, num_decay_steps, last, min_lr_ratio, num_cycles
    return Schedule(warmup_stable_decay, locals(), formula_of(formula, *values))


def _with_warmup(count: Any, warmup: Any, after: Any) -> Any:
    """Return the factor: linear from 0 to 1 over the warm-up, then ``after``."""
    return jnp.where(count < warmup, quotient(count, jnp.maximum(warmup, 1), count), after)


def _wave(progress: Any, cycles: Any) -> Any:
    return 0.5 * (1.0 + jnp.cos(math.pi * cycles * 2.0 * progress))


def _cosine(progress: Any, cycles: Any, lowest: Any) -> Any:
    return jnp.maximum(_wave(progress, cycles) * (1 - lowest) + lowest, 0.0)


def _require_steps(num_warmup_steps: Any, num_training_steps: Any) -> None:
    require_count("num_warmup_steps", num_warmup_steps)
    require_count("num_training_steps", num_training_steps)
