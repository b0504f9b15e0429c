"""Combinators: schedules made of other schedules."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsched._arithmetic import integer, interp
from jaxsched._schedule import (
    Hyperparameter,
    Schedule,
    ScheduleLike,
    as_float64,
    float64_formula,
    freeze,
)
from jaxsched._validate import require, require_count, require_nonnegative


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
    inner, steps_per_epoch = float64_formula(schedule), freeze(steps_per_epoch)

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
    inner, after = float64_formula(schedule), freeze(after)

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
    inner, counts = float64_formula(schedule), freeze(counts)

    def formula(count: Any) -> Any:
        return inner(count - integer(counts).astype(count.dtype))

    return Schedule(shift, locals(), formula)


def scaled(schedule: ScheduleLike, factor: Hyperparameter) -> Schedule:
    """``s(count) = schedule(count) * factor``.

    Args:
      schedule: a schedule.
      factor: for example the rate of a layer as a share of the highest.

    >>> from jaxsched.schedules import constant
    >>> float(scaled(constant(0.5), 0.25)(3))
    0.125
    """
    inner, factor = float64_formula(schedule), freeze(factor)
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

    >>> from jaxsched.schedules import constant
    >>> [float(override(lambda c: c, constant(7.0), at=1)(c)) for c in range(3)]
    [0.0, 7.0, 2.0]
    """
    at, when = freeze(at), freeze(when)
    inner, there = float64_formula(schedule), float64_formula(other)

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
    at, until, inner = freeze(at), freeze(until), float64_formula(schedule)

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

    >>> from jaxsched.schedules import constant
    >>> rate = warmup(constant(1.0), 4, start=0.0)
    >>> [float(rate(i)) for i in range(6)]
    [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    """
    require_nonnegative(iterations=iterations)
    iterations, start, inner = (
        freeze(iterations),
        freeze(start),
        float64_formula(schedule),
    )

    def formula(count: Any) -> Any:
        x, target, n = as_float64(count), inner(count), as_float64(iterations)
        return jnp.where(x < n, interp(x, n, as_float64(start), target), target)

    return Schedule(warmup, locals(), formula)
