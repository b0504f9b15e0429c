"""Pure curves of a count, and the combinators that join them.

A schedule is a pure function of a count; 0 is the first. Curves passed to ``per_epoch`` count epochs,
all others count iterations.

torch computes a learning rate as a Python float and passes it to a float32 kernel, so the value that
acts is the float32 nearest to a float64. Every schedule here returns that value, also under ``jit``,
``vmap`` and ``lax.scan``: its formula is evaluated in float64 inside the graph and rounded once. With
``jax_enable_x64`` the float64 itself is returned. XLA flushes a float32 below 1.2e-38 to 0. If
torch's learning rate is a float32 tensor, torch rounds it at each step of the scheduler, and a
schedule once.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxsched import _schedule
from jaxsched._arithmetic import integer, interp, quotient
from jaxsched._schedule import Hyperparameter, Schedule, ScheduleLike, as_float64, freeze
from jaxsched._table import table, tabulate
from jaxsched._timm_cycles import timm_cosine, timm_poly, timm_tanh
from jaxsched._timm_decays import timm_multistep, timm_step, timm_wsd
from jaxsched._update_clock import per_update, update_batches
from jaxsched._validate import require, require_count, require_nonnegative
from jaxsched._warmup_factors import (
    constant_with_warmup,
    cosine_warmup_with_min_lr,
    cosine_with_restarts,
    cosine_with_warmup,
    inverse_sqrt,
    linear_with_warmup,
    polynomial_with_warmup,
    warmup_stable_decay,
)

__all__ = [
    "Hyperparameter",
    "Schedule",
    "ScheduleLike",
    "batch_ramp",
    "constant",
    "constant_with_warmup",
    "cosine",
    "cosine_warmup_with_min_lr",
    "cosine_with_restarts",
    "cosine_with_warmup",
    "hold",
    "inverse_sqrt",
    "lagged",
    "linear",
    "linear_with_warmup",
    "one_cycle",
    "override",
    "per_epoch",
    "per_update",
    "polynomial_with_warmup",
    "scaled",
    "shift",
    "table",
    "tabulate",
    "timm_cosine",
    "timm_multistep",
    "timm_poly",
    "timm_step",
    "timm_tanh",
    "timm_wsd",
    "update_batches",
    "warmup",
    "warmup_stable_decay",
]


def constant(value: Hyperparameter) -> Schedule:
    """``s(count) = value``.

    >>> float(constant(0.5)(10))
    0.5
    """
    value = freeze(value)
    return Schedule(constant, locals(), lambda count: jnp.full(jnp.shape(count), as_float64(value)))


def cosine(epochs: Hyperparameter, *, lrf: Hyperparameter) -> Schedule:
    r"""Cosine factor from 1 to ``lrf``, in the article's order of operations.

    .. math:: f(e) = \frac{1 + \cos(e \pi / E)}{2} (1 - \mathrm{lrf}) + \mathrm{lrf}

    It is an ``lr_lambda``, for ``lr_scheduler.lambda_lr``. Past ``epochs`` it rises again.

    Args:
      epochs: half the cosine's period, E.
      lrf: the factor at ``epochs``.

    Source: ``lf`` of the article.

    >>> float(cosine(100, lrf=0.25)(100))
    0.25
    """

    def formula(count: Any, epochs: Any, lrf: Any) -> Any:
        return ((1 + jnp.cos(quotient(count * math.pi, epochs, count))) / 2) * (1 - lrf) + lrf

    return _factor(cosine, formula, epochs, lrf)


def linear(epochs: Hyperparameter, *, lrf: Hyperparameter) -> Schedule:
    r"""Linear factor from 1 to ``lrf``.

    .. math:: f(e) = (1 - e / E) (1 - \mathrm{lrf}) + \mathrm{lrf}

    It is an ``lr_lambda``, and continues to fall past ``epochs``.

    Args:
      epochs: where it reaches ``lrf``, E.
      lrf: the factor at ``epochs``.

    Source: ``lf`` in ``train.py`` of YOLOv5 7.0 and ``BaseTrainer`` of Ultralytics, without ``cos_lr``.

    >>> float(linear(100, lrf=0.5)(50))
    0.75
    """

    def formula(count: Any, epochs: Any, lrf: Any) -> Any:
        return (1 - quotient(count, epochs, count)) * (1 - lrf) + lrf

    return _factor(linear, formula, epochs, lrf)


def one_cycle(epochs: Hyperparameter, *, lrf: Hyperparameter) -> Schedule:
    r"""Cosine factor from 1 to ``lrf``, in YOLOv5's order of operations.

    .. math:: f(e) = \frac{1 - \cos(e \pi / E)}{2} (\mathrm{lrf} - 1) + 1

    The curve of ``cosine`` with other roundings. It is an ``lr_lambda``.

    Args:
      epochs: half the cosine's period, E.
      lrf: the factor at ``epochs``.

    Source: ``one_cycle`` of YOLOv5 and Ultralytics, with ``cos_lr``.

    >>> float(one_cycle(100, lrf=0.25)(100))
    0.25
    """

    def formula(count: Any, epochs: Any, lrf: Any) -> Any:
        return ((1 - jnp.cos(quotient(count * math.pi, epochs, count))) / 2) * (lrf - 1) + 1

    return _factor(one_cycle, formula, epochs, lrf)


def _factor(
    factory: Callable[..., Schedule], formula: Any, epochs: Hyperparameter, lrf: Hyperparameter
) -> Schedule:
    require("epochs", epochs, "a finite number above 0", lambda v: v > 0 and math.isfinite(v))
    return Schedule(factory, locals(), _schedule.formula_of(formula, epochs, lrf))


def per_epoch(schedule: ScheduleLike, steps_per_epoch: ArrayLike) -> Schedule:
    """``s(iteration) = schedule(iteration // steps_per_epoch)``.

    Args:
      schedule: a schedule that counts epochs.
      steps_per_epoch: iterations in an epoch, an integer of at least 1.

    Returns:
      A schedule that counts iterations.

    >>> float(per_epoch(lambda epoch: epoch, 30)(61))
    2.0
    """
    require_count("steps_per_epoch", steps_per_epoch, at_least=1)
    inner, steps_per_epoch = _schedule.float64_formula(schedule), freeze(steps_per_epoch)

    def formula(count: Any) -> Any:
        # In integers: XLA divides floats by a constant by multiplying by its reciprocal, and 49 / 49
        # falls below 1. Also, cosine_annealing_warm_restarts treats floats differently.
        return inner(integer(count) // integer(steps_per_epoch))

    return Schedule(per_epoch, locals(), formula)


def lagged(schedule: ScheduleLike, *, after: ArrayLike) -> Schedule:
    r"""``schedule``, one count late from ``after`` on.

    .. math:: s(e) = \mathrm{schedule}(e) \text{ if } e \le \mathrm{after},
              \text{ else } \mathrm{schedule}(e - 1)

    ``scheduler.last_epoch = start_epoch - 1`` causes this lag: the scheduler's first step, at the
    end of epoch 0, sets it to epoch 0. After the epoch in which the warm-up ends, each epoch runs at
    the rate of the one before, and the rate of the last epoch is never used.

    Args:
      schedule: a schedule that counts epochs.
      after: the last epoch without lag, in which the warm-up ends.

    >>> [float(lagged(lambda epoch: epoch, after=1)(e)) for e in range(4)]
    [0.0, 1.0, 1.0, 2.0]
    """
    inner, after = _schedule.float64_formula(schedule), freeze(after)

    def formula(count: Any) -> Any:
        late = jnp.where(as_float64(count) > as_float64(after), 1, 0)
        return inner(integer(count) - late)

    return Schedule(lagged, locals(), formula)


def shift(schedule: ScheduleLike, counts: ArrayLike) -> Schedule:
    """``s(count) = schedule(count - counts)``.

    The schedule is evaluated at ``count - counts``, which must be a count that it has: in the first
    ``counts`` counts a late one is evaluated at negative counts.

    Args:
      schedule: a schedule.
      counts: how many counts late; negative for early.

    >>> [float(shift(lambda count: count, 2)(c)) for c in (2, 3)]
    [0.0, 1.0]
    """
    require("counts", counts, "an integer", lambda v: int(v) == v)
    inner, counts = _schedule.float64_formula(schedule), freeze(counts)

    def formula(count: Any) -> Any:
        return inner(count - integer(counts).astype(count.dtype))

    return Schedule(shift, locals(), formula)


def scaled(schedule: ScheduleLike, factor: Hyperparameter) -> Schedule:
    """``s(count) = schedule(count) * factor``.

    Args:
      schedule: a schedule.
      factor: for example the rate of a layer as a share of the highest.

    >>> float(scaled(constant(0.5), 0.25)(3))
    0.125
    """
    inner, factor = _schedule.float64_formula(schedule), freeze(factor)
    return Schedule(scaled, locals(), lambda count: inner(count) * as_float64(factor))


def override(
    schedule: ScheduleLike, other: ScheduleLike, *, at: ArrayLike, when: bool | jax.Array = True
) -> Schedule:
    r"""``schedule``, except at one count, where it is ``other``.

    .. math:: s(c) = \mathrm{other}(c) \text{ if } c = \mathrm{at} \text{ and } \mathrm{when},
              \text{ else } \mathrm{schedule}(c)

    A process that starts with a new optimizer after the warm-up runs its first epoch at the rate of
    epoch 0, which ``LambdaLR`` sets in that optimizer.

    Args:
      schedule: a schedule.
      other: another schedule of the same count.
      at: the count.
      when: whether to override at all; may be traced.

    >>> [float(override(lambda c: c, constant(7.0), at=1)(c)) for c in range(3)]
    [0.0, 7.0, 2.0]
    """
    at, when = freeze(at), freeze(when)
    inner, there = _schedule.float64_formula(schedule), _schedule.float64_formula(other)

    def formula(count: Any) -> Any:
        is_there = (as_float64(count) == as_float64(at)) & when
        # Evaluate ``other`` at that count only: it may have no value at others.
        return jnp.where(is_there, there(integer(at)), inner(count))

    return Schedule(override, locals(), formula)


def hold(schedule: ScheduleLike, *, at: ArrayLike, until: ArrayLike | None = None) -> Schedule:
    r"""``schedule``, held from one count to another at its value at the first.

    .. math:: s(c) = \mathrm{schedule}(\mathrm{at}) \text{ if } \mathrm{at} \le c < \mathrm{until},
              \text{ else } \mathrm{schedule}(c)

    Args:
      schedule: a schedule.
      at: the count whose value is held.
      until: the first count at which the value is no longer held; None to hold it forever.

    Source: a warm-up that ends before its last value, as in ``BaseTrainer`` of Ultralytics 8.4.103 to
    8.4.182.

    >>> [float(hold(lambda c: c, at=1, until=3)(c)) for c in range(5)]
    [0.0, 1.0, 1.0, 3.0, 4.0]
    """
    at, until, inner = freeze(at), freeze(until), _schedule.float64_formula(schedule)

    def formula(count: Any) -> Any:
        is_held = as_float64(count) >= as_float64(at)
        if until is not None:
            is_held &= as_float64(count) < as_float64(until)
        return inner(jnp.where(is_held, integer(at), integer(count)))

    return Schedule(hold, locals(), formula)


def warmup(
    schedule: ScheduleLike, iterations: Hyperparameter, *, start: Hyperparameter
) -> Schedule:
    r"""Linear interpolation from ``start`` toward a moving target.

    .. math:: s(i) = \operatorname{interp}(i, [0, n], [\mathrm{start}, \mathrm{schedule}(i)])

    The target is the schedule's value at the current iteration, not at the warm-up's end: if
    ``schedule`` falls from epoch to epoch, so does the rate inside the warm-up. From ``iterations``
    on the value is ``schedule(i)``.

    Args:
      schedule: the target, with the same count.
      iterations: the warm-up's length n, at least 0.
      start: the value at 0.

    Source: the warm-up of the article and of YOLOv5, ``np.interp`` in the loop.

    >>> rate = warmup(constant(1.0), 4, start=0.0)
    >>> [float(rate(i)) for i in range(6)]
    [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    """
    require_nonnegative(iterations=iterations)
    iterations, start, inner = (
        freeze(iterations),
        freeze(start),
        _schedule.float64_formula(schedule),
    )

    def formula(count: Any) -> Any:
        x, target, n = as_float64(count), inner(count), as_float64(iterations)
        return jnp.where(x < n, interp(x, n, as_float64(start), target), target)

    return Schedule(warmup, locals(), formula)


def batch_ramp(iterations: int, *, end: float, then: float) -> Schedule:
    r"""Batches an update: a ramp from 1 over the warm-up, rounded half to even.

    .. math:: s(i) = \max(1, \operatorname{round}(\operatorname{interp}(i, [0, n], [1, \mathrm{end}])))
              \text{ if } i < n, \text{ else } \mathrm{then}

    Args:
      iterations: length n of the ramp, at most 1e8; 0 for no ramp.
      end: where the ramp ends, before rounding.
      then: batches from ``iterations`` on.

    Source: ``accumulate`` in ``train.py`` of YOLOv5 7.0 and ``BaseTrainer`` of Ultralytics.

    >>> [int(batch_ramp(4, end=4.0, then=4)(i)) for i in range(5)]
    [1, 2, 2, 3, 4]
    """
    require_count("iterations", iterations)
    require("iterations", iterations, "at most 1e8, the longest warm-up", lambda v: v <= 1e8)
    # On the host: a device that rounds a half differently would move updates.
    ramp = np.interp(np.arange(iterations), [0, max(iterations, 1)], [1, end])
    counts = np.append(np.maximum(1, ramp.round()), then)

    def formula(count: Any) -> Any:
        return jnp.asarray(counts)[jnp.clip(integer(count), 0, len(counts) - 1)]

    return Schedule(batch_ramp, locals(), formula)
