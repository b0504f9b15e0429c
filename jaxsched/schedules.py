"""Pure curves of a count, and the combinators that join them.

A schedule is a pure function of a count; 0 is the first. What is counted is
the caller's to say: the curves here count epochs where a recipe hands them to
``per_epoch``, iterations where it does not.

torch computes a learning rate as a Python float and hands it to a float32
kernel, so the value that acts is the float32 nearest to a float64. That is
what every schedule here returns, under ``jit``, ``vmap`` and ``lax.scan`` too:
its formula is evaluated in float64 inside the graph and rounded once. With
``jax_enable_x64`` the float64 itself is returned.
"""

import functools
import inspect
import math
import numbers
import operator
from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from jaxsched.float64 import computed

Schedule = Callable[[ArrayLike], jax.Array]
Hyperparameter = float | jax.Array
"""A number, or a traced scalar (``jax.vmap`` over recipes)."""

P = ParamSpec("P")
S = TypeVar("S")


def remembered(factory: Callable[P, S]) -> Callable[P, S]:
    """A factory whose schedules know how they were made.

    ``schedule.origin`` is ``(factory, arguments)``, as a ``Recipe`` has it: so a
    schedule can be made anew with one thing changed, which is how
    ``jaxsched.parity`` looks for the mistake that leads from one curve to another.

    >>> factory, arguments = cosine(100, lrf=0.2).origin
    >>> factory is cosine, arguments["epochs"]
    (True, 100)
    """
    signature = inspect.signature(factory)

    @functools.wraps(factory)
    def remembering(*args: P.args, **kwargs: P.kwargs) -> S:
        schedule = factory(*args, **kwargs)
        if callable(schedule):
            bound = signature.bind(*args, **kwargs)
            bound.apply_defaults()
            schedule.__dict__["origin"] = (remembering, bound.arguments)
        return schedule

    return remembering


def is_number(value: Any) -> bool:
    """Whether ``value`` is a plain number: no array, no tracer, no bool."""
    # The tracer first: numbers.Real, an abstract class, takes long to see that it is none.
    return not isinstance(value, Tracer | bool | np.bool_) and isinstance(value, numbers.Real)


def require(name: str, value: Any, rule: str, holds: Callable[[Any], Any]) -> None:
    """Refuses a concrete ``value`` that breaks ``rule``, in one sentence.

    What is known only while the graph runs passes: schedules, tracers, and JAX
    arrays, which to read would be to wait for their device.

    Args:
      name: the argument, as its caller wrote it.
      value: what was passed.
      rule: how the sentence goes on, ``"at least 0"``.
      holds: whether a concrete value keeps the rule.

    Raises:
      ValueError: ``warmup_iterations must be at least 0, got -3``.

    >>> require("lrf", -1.0, "a finite number of at least 0", lambda v: v >= 0)
    Traceback (most recent call last):
    ...
    ValueError: lrf must be a finite number of at least 0, got -1.0
    """
    if isinstance(value, jax.Array) or callable(value):
        return
    try:
        kept = bool(holds(value))
    except (TypeError, ValueError, OverflowError):
        kept = False
    if not kept:
        raise ValueError(f"{name} must be {rule}, got {value!r}")


def require_count(name: str, value: Any, *, at_least: int = 0) -> None:
    """Refuses a concrete ``value`` that is no integer of at least ``at_least``."""
    require(
        name,
        value,
        f"an integer of at least {at_least}",
        lambda v: not isinstance(v, bool) and operator.index(v) >= at_least,
    )


def require_nonnegative(**values: Any) -> None:
    """Refuses concrete values that are negative, infinite or NaN."""
    for name, value in values.items():
        require(name, value, "a finite number of at least 0", lambda v: math.isfinite(v) and v >= 0)


def exact(formula: Callable[..., ArrayLike], *hyperparameters: Hyperparameter) -> Schedule:
    r"""The schedule of a ``jnp`` formula, evaluated in float64 and rounded once.

    .. math:: s(c) = \operatorname{round}(\mathrm{formula}(c, h_1, h_2, …))

    Args:
      formula: a function of the count, which it receives as a float64 array,
        and of the hyperparameters; operators and ``jnp`` act in float64 within it.
      *hyperparameters: what else it takes: numbers, handed on as Python floats,
        or arrays and tracers, handed on as float64.

    Returns:
      A schedule of any real count (a Python or NumPy number, an array or a
      tracer of any integer or float dtype; arrays are mapped elementwise):
      float32, or float64 where x64 is on.

    >>> float(exact(lambda count, rate: rate * count, 0.1)(3)) == float(np.float32(0.1 * 3))
    True
    """

    def schedule(count: ArrayLike) -> jax.Array:
        dtype = jnp.result_type(float)

        def value() -> jax.Array:
            exactly = formula(as_float64(jnp.asarray(count)), *map(as_float64, hyperparameters))
            rounded = jnp.asarray(exactly).astype(dtype)
            return rounded if rounded.ndim else jnp.broadcast_to(rounded, jnp.shape(count))

        return computed(value)

    return schedule


def as_float64(value: Any) -> Any:
    """``value`` as a float64 array, or as a Python float where it is a plain number.

    To be called where x64 is on, inside a formula that is given to ``exact``.
    """
    return float(value) if is_number(value) else jnp.asarray(value).astype(jnp.float64)


def quotient(x: jax.Array, n: Any, count: jax.Array) -> jax.Array:
    """``x / n`` as float64 has it, where n may be a constant.

    XLA divides by a constant by way of its reciprocal, which rounds once more: a
    line that ends in 0 ends in dust then, on either side of it. Here it cannot know
    n before ``count``.
    """
    return x / (n + 0.0 * count)


def interp(x: jax.Array, n: Any, start: Any, end: Any) -> jax.Array:
    r"""Interpolate from ``start`` at 0 to ``end`` at n, as ``np.interp``, to the bit in float64.

    .. math:: \mathrm{start} + \operatorname{interp}(x, [0, 1], [0, m]),
              \quad m = (\mathrm{end} - \mathrm{start}) / n

    The original's line is ``np.interp(ni, [0, nw], [start, initial_lr * lf(epoch)])``. ``np.interp``
    multiplies x by the slope m, where ``jnp.interp`` first divides x by the interval's length. On
    ``[0, n]`` that quotient is rounded: of 480,000 random values a third differ in the last bit of
    float64. None differs in float32, though a value at a tie of float32 can. On an interval of
    length one the division is exact, and none differs in float64.

    Args:
      x: the count; below 0 the value is ``start``, and past n it continues the line.
      n: where the line reaches ``end``, above 0.
      start: the value at 0.
      end: the value at n, one for each x where it moves.
    """
    rise = end - start
    # Where XLA knows the count but not the ends, as with a traced start, n must still be hidden.
    slope = quotient(rise, jnp.where(n > 0, n, 1.0), x + rise)
    return jnp.vectorize(_line)(x, slope) + start


@jax.custom_jvp
def _line(x: jax.Array, slope: jax.Array) -> jax.Array:
    """Return ``slope * x``, or 0 where x is below 0."""
    return jnp.interp(x, jnp.array([0.0, 1.0]), jnp.stack([0.0, slope]), right="extrapolate")


@_line.defjvp
def _line_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    # JAX transposes jnp.interp where x64 may be off: the zeros of a slice would be float32 there.
    (x, slope), (dx, dslope) = primals, tangents
    return _line(x, slope), jnp.where(x < 0, 0.0, slope * dx + x * dslope)


@remembered
def constant(value: Hyperparameter) -> Schedule:
    """``s(count) = value``.

    >>> float(constant(0.5)(10))
    0.5
    """
    return exact(jnp.full_like, value)


@remembered
def cosine(epochs: Hyperparameter, *, lrf: Hyperparameter) -> Schedule:
    r"""Cosine factor from 1 to ``lrf``, in the article's order of operations.

    .. math:: f(e) = \frac{1 + \cos(e \pi / E)}{2} (1 - \mathrm{lrf}) + \mathrm{lrf}

    It is an ``lr_lambda``: a factor, to be given to ``lr_scheduler.lambda_lr``.
    Past ``epochs`` the cosine climbs again, as the original does.

    Args:
      epochs: half the cosine's period, E.
      lrf: the factor at ``epochs``.

    Source: ``lf`` of the article.

    >>> float(cosine(100, lrf=0.25)(100))
    0.25
    """
    require("epochs", epochs, "a finite number above 0", lambda v: v > 0 and math.isfinite(v))
    return exact(
        lambda count, epochs, lrf: (
            ((1 + jnp.cos(quotient(count * math.pi, epochs, count))) / 2) * (1 - lrf) + lrf
        ),
        epochs,
        lrf,
    )


@remembered
def linear(epochs: Hyperparameter, *, lrf: Hyperparameter) -> Schedule:
    r"""Linear factor from 1 to ``lrf``.

    .. math:: f(e) = (1 - e / E) (1 - \mathrm{lrf}) + \mathrm{lrf}

    It is an ``lr_lambda``, and falls on past ``epochs``.

    Args:
      epochs: where it reaches ``lrf``, E.
      lrf: the factor at ``epochs``.

    Source: ``lf`` of YOLOv5 and Ultralytics without ``cos_lr``.

    >>> float(linear(100, lrf=0.5)(50))
    0.75
    """
    require("epochs", epochs, "a finite number above 0", lambda v: v > 0 and math.isfinite(v))
    return exact(
        lambda count, epochs, lrf: (1 - quotient(count, epochs, count)) * (1 - lrf) + lrf,
        epochs,
        lrf,
    )


@remembered
def one_cycle(epochs: Hyperparameter, *, lrf: Hyperparameter) -> Schedule:
    r"""Cosine factor from 1 to ``lrf``, in YOLOv5's order of operations.

    .. math:: f(e) = \frac{1 - \cos(e \pi / E)}{2} (\mathrm{lrf} - 1) + 1

    The curve of ``cosine``, rounded otherwise. It is an ``lr_lambda``.

    Args:
      epochs: half the cosine's period, E.
      lrf: the factor at ``epochs``.

    Source: ``one_cycle`` of YOLOv5 and Ultralytics, with ``cos_lr``.

    >>> float(one_cycle(100, lrf=0.25)(100))
    0.25
    """
    require("epochs", epochs, "a finite number above 0", lambda v: v > 0 and math.isfinite(v))
    return exact(
        lambda count, epochs, lrf: (
            ((1 - jnp.cos(quotient(count * math.pi, epochs, count))) / 2) * (lrf - 1) + 1
        ),
        epochs,
        lrf,
    )


@remembered
def per_epoch(schedule: Schedule, steps_per_epoch: int | jax.Array) -> Schedule:
    """``s(iteration) = schedule(iteration // steps_per_epoch)``.

    Args:
      schedule: a schedule that counts epochs.
      steps_per_epoch: iterations in an epoch, at least 1.

    Returns:
      A schedule that counts iterations.

    >>> float(per_epoch(lambda epoch: epoch, 30)(61))
    2.0
    """
    require_count("steps_per_epoch", steps_per_epoch, at_least=1)
    # In integers: XLA divides floats by a constant by way of its reciprocal, and 49 / 49 falls
    # below 1. And to cosine_annealing_warm_restarts a float is something else.
    return exact(
        lambda count, steps: schedule(count.astype(jnp.int64) // jnp.asarray(steps, jnp.int64)),
        steps_per_epoch,
    )


@remembered
def lagged(schedule: Schedule, *, after: int | jax.Array) -> Schedule:
    r"""``schedule``, one count late from ``after`` on.

    .. math:: s(e) = \mathrm{schedule}(e) \text{ if } e \le \mathrm{after},
              \text{ else } \mathrm{schedule}(e - 1)

    This is what ``scheduler.last_epoch = start_epoch - 1`` leads to: the
    scheduler's first step, at the end of epoch 0, brings it to epoch 0. While a
    warm-up writes the rates itself nobody sees it; after the epoch in which the
    warm-up ends, each epoch runs at the rate of the one before, and the rate of
    the last epoch is never used.

    Args:
      schedule: a schedule that counts epochs.
      after: the last epoch that is in step, that in which the warm-up ends.

    >>> [float(lagged(lambda epoch: epoch, after=1)(e)) for e in range(4)]
    [0.0, 1.0, 1.0, 2.0]
    """
    return exact(
        lambda count, after: schedule(
            (count - jnp.where(count > after, 1.0, 0.0)).astype(jnp.int64)
        ),
        after,
    )


@remembered
def warmup(
    schedule: Schedule, iterations: int | float | jax.Array, *, start: Hyperparameter
) -> Schedule:
    r"""Linear interpolation from ``start`` toward a target that moves.

    .. math:: s(i) = \operatorname{interp}(i, [0, n], [\mathrm{start}, \mathrm{schedule}(i)])

    The target is the schedule's value at the current iteration, not at the
    warm-up's end: where ``schedule`` falls from epoch to epoch, the rate drops
    at each epoch border inside the warm-up. From ``iterations`` on the value is
    ``schedule(i)``; so it is at 0 if ``iterations`` is 0, as ``np.interp`` has it.

    Args:
      schedule: the target, counted as this one is.
      iterations: the warm-up's length n, at least 0.
      start: the value at 0.

    Source: the warm-up of the article and of YOLOv5, ``np.interp`` in the loop.

    >>> rate = warmup(constant(1.0), 4, start=0.0)
    >>> [float(rate(i)) for i in range(6)]
    [0.0, 0.25, 0.5, 0.75, 1.0, 1.0]
    """
    require_nonnegative(iterations=iterations)

    def warmed(given: ArrayLike) -> jax.Array:
        # The target gets the count as it was given, for integers and floats differ to some.
        def formula(count, n, start):
            target = as_float64(schedule(given))
            rising = interp(count, n, start, target)
            return jnp.where(count < n, rising, target)

        return exact(formula, iterations, start)(given)

    return warmed


def table(values: Any, *, start: int = 0) -> Schedule:
    """``s(count) = values[count - start]``, from numbers known beforehand.

    Args:
      values: one number a count, shape (n,); kept in float64.
      start: the count of the first value.

    Returns:
      A schedule of integer counts. Past its end it refuses concrete counts and
      holds its last value for traced ones; before ``start`` likewise, holding
      its first. A fraction is refused, and cut off where it is traced.

    Raises:
      ValueError: the table is empty, not one-dimensional or of no real numbers, or
        a concrete count lies outside it or between two.

    >>> float(table([0.5, 0.25])(1))
    0.25
    >>> table([0.5, 0.25])(2)
    Traceback (most recent call last):
    ...
    ValueError: the table holds counts 0 to 1, got 2. Tabulate more steps.
    """
    given = np.asarray(values)
    if given.dtype.kind in "OSUMmc":  # NumPy would read None as NaN and text as what it says
        raise ValueError(f"values must be real numbers, got {given.dtype} among them")
    numbers_ = given.astype(np.float64)
    if numbers_.ndim != 1 or not numbers_.size:
        raise ValueError(
            f"values must be a sequence of at least 1 number, got shape {numbers_.shape}"
        )
    last = numbers_.size - 1

    def formula(count):
        index = (count - start).astype(jnp.int64)
        return jnp.asarray(numbers_)[jnp.clip(index, 0, last)]

    lookup = exact(formula)

    def schedule(count: ArrayLike) -> jax.Array:
        if not isinstance(count, Tracer):
            counts = np.asarray(count)
            outside = counts[(counts < start) | (counts > start + last)]
            if outside.size:
                raise ValueError(
                    f"the table holds counts {start} to {start + last}, got {outside.flat[0]}. "
                    "Tabulate more steps."
                )
            between = counts[counts != np.floor(counts)]
            if between.size:
                raise ValueError(
                    f"the table holds whole counts, got {between.flat[0]}. Only a formula has "
                    "values between them."
                )
        return lookup(count)

    return schedule


def tabulate(function: Callable[[int], float], steps: int) -> Schedule:
    """``function`` run on the host for counts 0 to ``steps - 1``, as a schedule.

    For Python functions that cannot be traced, an ``lr_lambda`` with
    ``math.cos`` and branches, say; and for devices without float64.

    Args:
      function: from an int to a real number.
      steps: how many counts are tabulated, at least 1.

    Returns:
      ``table`` of the values: past its end it refuses concrete counts and holds
      its last value for traced ones.

    Raises:
      ValueError: ``steps`` is below 1, or a value is not a finite number.

    >>> float(tabulate(lambda epoch: 0.95**epoch, 10)(2)) == float(np.float32(0.95**2))
    True
    """
    require_count("steps", steps, at_least=1)
    values = [function(count) for count in range(steps)]
    for count, value in enumerate(values):
        require(f"function({count})", value, "a finite number", lambda v: math.isfinite(float(v)))
    return table([float(value) for value in values])
