"""timm's schedulers with cycles as schedules: cosine, tanh and polynomial.

Names, arguments and defaults are timm's, with ``base_lr`` in place of the optimizer.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsched._arithmetic import quotient
from jaxsched._schedule import Hyperparameter, Schedule
from jaxsched._validate import (
    INT32_LIMIT,
    require,
    require_count,
    require_nonnegative,
    require_positive,
)
from jaxsched.schedules._timm_warmup import with_warmup

MAX_CYCLES = 10_000  # in a table


def timm_cosine(
    base_lr: Hyperparameter,
    t_initial: int,
    lr_min: Hyperparameter = 0.0,
    *,
    cycle_mul: float = 1.0,
    cycle_decay: float = 1.0,
    cycle_limit: int = 1,
    warmup_t: int = 0,
    warmup_lr_init: Hyperparameter = 0.0,
    warmup_prefix: bool = False,
    k_decay: Hyperparameter = 1.0,
) -> Schedule:
    r"""Timm's cosine with restarts, a warm-up and k-decay.

    .. math::
        s(c) = \eta_{\min} + \frac{\mathrm{base\_lr} \cdot d^i - \eta_{\min}}{2}
               \left(1 + \cos\frac{\pi t^k}{T_i^k}\right), \quad T_i = m^i\, \mathrm{t\_initial}

    in the cycle i, with t the counts since its start, m ``cycle_mul`` and d ``cycle_decay``; after
    ``cycle_limit`` cycles the rate is ``lr_min``. While c < ``warmup_t`` the rate rises linearly
    from ``warmup_lr_init`` toward ``base_lr``, whatever the curve's value at ``warmup_t``; the
    cycles begin at 0, or at ``warmup_t`` with ``warmup_prefix``. Counts are epochs or updates, as in
    timm. At 0 the rate is the one that timm's constructor sets: ``warmup_lr_init`` or, without a
    warm-up, ``base_lr``.

    Args:
      base_lr: the group's rate before any schedule.
      t_initial: counts in the first cycle.
      lr_min: the rate at the end of a cycle, and after the last.
      cycle_mul: the ratio of each cycle's length to the previous one's.
      cycle_decay: the ratio of each cycle's highest rate to the previous one's.
      cycle_limit: the number of cycles, at most 10,000.
      warmup_t: counts of the warm-up.
      warmup_lr_init: where the warm-up starts.
      warmup_prefix: whether the warm-up comes before the first cycle, not in it.
      k_decay: the exponent k; above 1 the rate stays high for longer.

    Raises:
      ValueError: a number out of its range.

    Source: ``timm.scheduler.CosineLRScheduler``, timm 1.0.31.

    >>> [float(timm_cosine(1.0, 4, warmup_t=2)(c)) for c in range(5)]
    [0.0, 0.5, 0.5, 0.1464466154575348, 0.0]
    """
    cycles = _Cycles(locals())

    def curve(t: Any, base_lr: Any, lr_min: Any, k: Any) -> Any:
        peak, progress, is_over = cycles.at(t, base_lr, k)
        rate = lr_min + 0.5 * (peak - lr_min) * (1 + jnp.cos(progress(math.pi)))
        return jnp.where(is_over, lr_min, rate)

    return with_warmup(timm_cosine, locals(), curve, (lr_min, k_decay))


def timm_tanh(
    base_lr: Hyperparameter,
    t_initial: int,
    lb: Hyperparameter = -7.0,
    ub: Hyperparameter = 3.0,
    lr_min: Hyperparameter = 0.0,
    *,
    cycle_mul: float = 1.0,
    cycle_decay: float = 1.0,
    cycle_limit: int = 1,
    warmup_t: int = 0,
    warmup_lr_init: Hyperparameter = 0.0,
    warmup_prefix: bool = False,
) -> Schedule:
    r"""Timm's hyperbolic tangent with restarts and a warm-up.

    .. math::
        s(c) = \eta_{\min} + \frac{\mathrm{base\_lr} \cdot d^i - \eta_{\min}}{2}
               \left(1 - \tanh(\mathrm{lb} (1 - t / T_i) + \mathrm{ub}\, t / T_i)\right)

    Cycles and arguments are those of ``timm_cosine``, except that a warm-up without
    ``warmup_prefix`` rises toward the curve's value at ``warmup_t``. Without a warm-up the rate at 0
    is ``base_lr``, from which the formula differs by 1e-6.

    Args:
      base_lr: the group's rate before any schedule.
      t_initial: counts in the first cycle.
      lb: the argument of tanh at a cycle's start.
      ub: the argument at its end, above ``lb``; the rate ends near ``lr_min``, not at it.
      lr_min: the lowest rate.
      cycle_mul: as in ``timm_cosine``.
      cycle_decay: as in ``timm_cosine``.
      cycle_limit: as in ``timm_cosine``.
      warmup_t: counts of the warm-up.
      warmup_lr_init: where the warm-up starts.
      warmup_prefix: whether the warm-up comes before the first cycle, not in it.

    Raises:
      ValueError: a number out of its range.

    Source: ``timm.scheduler.TanhLRScheduler``, timm 1.0.31.

    >>> [round(float(timm_tanh(1.0, 4)(c)), 4) for c in (0, 1, 3, 4)]
    [1.0, 0.9999, 0.2689, 0.0]
    """
    for name, value in (("lb", lb), ("ub", ub)):
        require(name, value, "a finite number", math.isfinite)
    if not isinstance(ub, jax.Array):
        require("lb", lb, f"below ub, {ub}", lambda v: v < ub)
    cycles = _Cycles(locals())

    def curve(t: Any, base_lr: Any, lr_min: Any, lb: Any, ub: Any) -> Any:
        peak, progress, is_over = cycles.at(t, base_lr)
        done = progress(1.0)
        # (1 - tanh x) / 2, written with exp, which keeps its precision on a TPU.
        factor = 1 / (1 + jnp.exp(2 * (lb * (1.0 - done) + ub * done)))
        return jnp.where(is_over, lr_min, lr_min + (peak - lr_min) * factor)

    values = (lr_min, lb, ub)
    return with_warmup(timm_tanh, locals(), curve, values, toward_curve=not warmup_prefix)


def timm_poly(
    base_lr: Hyperparameter,
    t_initial: int,
    power: Hyperparameter = 0.5,
    lr_min: Hyperparameter = 0.0,
    *,
    cycle_mul: float = 1.0,
    cycle_decay: float = 1.0,
    cycle_limit: int = 1,
    warmup_t: int = 0,
    warmup_lr_init: Hyperparameter = 0.0,
    warmup_prefix: bool = False,
    k_decay: Hyperparameter = 1.0,
) -> Schedule:
    r"""Timm's polynomial with restarts, a warm-up and k-decay.

    .. math::
        s(c) = \eta_{\min} + (\mathrm{base\_lr} \cdot d^i - \eta_{\min})
               \left(1 - \frac{t^k}{T_i^k}\right)^{\mathrm{power}}

    Cycles and arguments are those of ``timm_cosine``.

    Args:
      base_lr: the group's rate before any schedule.
      t_initial: counts in the first cycle.
      power: the exponent, at least 0; timm's factory passes ``decay_rate``.
      lr_min: the rate at the end of a cycle, and after the last.
      cycle_mul: as in ``timm_cosine``.
      cycle_decay: as in ``timm_cosine``.
      cycle_limit: as in ``timm_cosine``.
      warmup_t: counts of the warm-up.
      warmup_lr_init: where the warm-up starts.
      warmup_prefix: whether the warm-up comes before the first cycle, not in it.
      k_decay: the exponent k.

    Raises:
      ValueError: a number out of its range.

    Source: ``timm.scheduler.PolyLRScheduler``, timm 1.0.31.

    >>> [float(timm_poly(1.0, 4, 2.0)(c)) for c in range(5)]
    [1.0, 0.5625, 0.25, 0.0625, 0.0]
    """
    require_nonnegative(power=power)
    cycles = _Cycles(locals())

    def curve(t: Any, base_lr: Any, lr_min: Any, k: Any, power: Any) -> Any:
        peak, progress, is_over = cycles.at(t, base_lr, k)
        left = jnp.maximum(1 - progress(1.0), 0.0)
        return jnp.where(is_over, lr_min, lr_min + (peak - lr_min) * left**power)

    return with_warmup(timm_poly, locals(), curve, (lr_min, k_decay, power))


class _Cycles:
    """The cycles of a schedule, by counts since the schedule's start.

    timm computes the cycle of a count from a logarithm, whose rounding can move a border by one
    count (with ``cycle_mul=3``, the fifth is late). Each border is therefore computed on the host,
    with timm's expression.
    """

    def __init__(self, arguments: Mapping[str, Any]) -> None:
        require_count("t_initial", arguments["t_initial"], at_least=1)
        for name in ("cycle_mul", "k_decay"):
            require_positive(name, arguments.get(name, 1.0))
        require_nonnegative(lr_min=arguments["lr_min"], cycle_decay=arguments["cycle_decay"])
        require_count("cycle_limit", arguments["cycle_limit"])
        limit, mul = int(arguments["cycle_limit"]), float(arguments["cycle_mul"])
        require("cycle_limit", limit, f"at most {MAX_CYCLES:,}", lambda v: v <= MAX_CYCLES)
        first, decay = int(arguments["t_initial"]), float(arguments["cycle_decay"])
        lengths, starts, peaks, borders = [], [], [], []
        for i in range(limit):
            border = _border(i + 1, first, mul)
            lengths.append(mul**i * first)
            starts.append((1 - mul**i) / (1 - mul) * first if mul != 1 else first * i)
            peaks.append(decay**i)
            borders.append(border)
            if border >= INT32_LIMIT:
                break
        # A schedule without cycles is over from the start.
        self.lengths = np.asarray(lengths or [first], np.float64)
        self.starts = np.asarray(starts or [0], np.float64)
        self.peaks = np.asarray(peaks or [1], np.float64)
        self.borders = np.asarray(borders or [-1], np.float64)

    def at(self, t: Any, base_lr: Any, k: Any = 1.0) -> tuple[Any, Callable[[float], Any], Any]:
        """Return the cycle's highest rate, its progress from 0 to 1, and whether all are over.

        The progress is a function of a factor, by which timm multiplies before it divides.
        """
        index = jnp.sum(t[..., None] >= jnp.asarray(self.borders), axis=-1)
        cycle = jnp.minimum(index, len(self.borders) - 1)
        length, start, peak = (
            jnp.asarray(values)[cycle] for values in (self.lengths, self.starts, self.peaks)
        )
        done = jnp.maximum(t - start, 0.0) ** k

        def progress(factor: float) -> Any:
            return quotient(factor * done, length**k, t)

        return base_lr * peak, progress, index >= len(self.borders)


def _border(index: int, first: int, mul: float) -> int:
    """Return the first count since the start that timm places in a cycle of at least ``index``."""
    if mul == 1:
        return index * first
    try:
        near = (1 - mul**index) / (1 - mul) * first
    except OverflowError:
        return INT32_LIMIT
    if near >= INT32_LIMIT:
        return INT32_LIMIT

    def cycle(t: int) -> float:
        rest = 1 - t / first * (1 - mul)
        # If all cycles together are shorter than t, timm raises a math domain error.
        return math.floor(math.log(rest, mul)) if rest > 0 else math.inf

    first_near = max(math.floor(near) - 1, 0)
    border = next((t for t in range(first_near, math.ceil(near) + 3) if cycle(t) >= index), None)
    if border is None or border == first_near:  # near 1 the logarithm is all rounding
        raise ValueError(
            f"cycle_mul must be 1 or differ from 1 by more than rounding, got {mul!r}. Pass 1.0."
        )
    return border
