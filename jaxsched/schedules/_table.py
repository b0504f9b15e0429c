"""Tables of numbers by count, and functions that are tabulated."""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxsched import _schedule
from jaxsched._arithmetic import integer
from jaxsched._schedule import Schedule, ScheduleLike
from jaxsched._validate import require, require_count


def table(values: Any, *, start: int = 0, then: ScheduleLike | None = None) -> Schedule:
    """``s(count) = values[count - start]``, a table of numbers.

    Args:
      values: one number a count, shape (n,); kept in float64.
      start: the count of the first value.
      then: a schedule of the same count, for counts past the table.

    Returns:
      A schedule of integer counts. Before ``start``, and past its end without ``then``, it
      refuses concrete counts and is NaN at traced ones. A concrete fraction is refused, a traced
      one is truncated. A gradient through ``jnp.where(count < n, table(count), other)`` is NaN past
      the end too; with ``then`` or ``jax.lax.cond`` the table is evaluated only inside.

    Raises:
      TypeError: the values are not real numbers.
      ValueError: the table is empty or not one-dimensional, or a concrete count is outside it or
        not an integer.

    >>> float(table([0.5, 0.25])(1))
    0.25
    >>> import jax
    >>> float(jax.jit(table([0.5, 0.25]))(2))
    nan
    >>> table([0.5, 0.25])(2)
    Traceback (most recent call last):
    ...
    ValueError: the table holds counts 0 to 1, got 2. Give more steps, of from_torch more iterations.
    """
    values = np.asarray(values)
    if values.dtype.kind in "OSUMmc":  # NumPy would convert None to NaN and "1" to 1
        raise TypeError(f"values must be real numbers, got {values.dtype} among them")
    require_count("start", start)
    values = values.astype(np.float64)
    if values.ndim != 1 or not values.size:
        raise ValueError(
            f"values must be a sequence of at least 1 number, got shape {values.shape}"
        )
    return Schedule(table, locals(), table_formula(values, start, then))


def table_formula(
    values: np.ndarray, start: int = 0, then: ScheduleLike | None = None
) -> _schedule.Formula:
    """Return the formula of ``table``."""
    last = values.size - 1
    end = math.inf if then is not None else start + last
    past = None if then is None else _schedule.float64_formula(then)

    def check(counts: np.ndarray) -> None:
        outside = counts[(counts < start) | (counts > end)]
        if outside.size:
            raise ValueError(
                f"the table holds counts {start} to {start + last}, got {outside.flat[0]}. "
                "Give more steps, of from_torch more iterations."
            )
        between = counts[counts != np.floor(counts)]
        if between.size:
            raise ValueError(
                f"the table holds whole counts, got {between.flat[0]}. Only a formula has "
                "values between them."
            )

    def formula(count: Any) -> Any:
        if not isinstance(count, Tracer):
            check(np.asarray(count))
        index = integer(count) - start
        value = entry(values, index)
        after: Any = math.nan
        if past is not None:
            # Only past the table: a NaN at a count inside would reach the gradient.
            maximum: Any = jnp.maximum if isinstance(count, Tracer) else np.maximum
            after = past(maximum(count, start + last + 1))
        return jnp.where(index < 0, math.nan, jnp.where(index <= last, value, after))

    return formula


def entry(values: np.ndarray, index: Any) -> Any:
    """Return ``values[index]``, of the nearest end outside; on the host if the index is there."""
    last = len(values) - 1
    if isinstance(index, jax.Array):
        return jnp.asarray(values)[jnp.clip(index, 0, last)]
    return values[np.clip(index, 0, last)]  # no program for each length of a table


def tabulate(function: Callable[[int], float], steps: int) -> Schedule:
    """Table of ``function`` at counts 0 to ``steps - 1``, called on the host.

    For Python functions that cannot be traced (``math.cos``, branches), and devices without float64.

    Args:
      function: a function from an int to a real number.
      steps: number of counts to tabulate, at least 1.

    Returns:
      ``table`` of the values: outside it concrete counts are refused, and traced ones give NaN.

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
