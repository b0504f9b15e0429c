"""Float64 arithmetic rounded as in NumPy, which XLA would round differently; counts as integers."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


def quotient(x: jax.Array, n: Any, count: jax.Array) -> jax.Array:
    """Return ``x / n``, rounded as in float64 even if n is a constant.

    XLA divides by a constant by multiplying by its reciprocal, which rounds once more: a line that
    should end at 0 then ends slightly above or below it. Here n depends on ``count``, so XLA cannot
    treat it as a constant.
    """
    return x / (n + 0.0 * count)


def interp(x: jax.Array, n: Any, start: Any, end: Any) -> jax.Array:
    r"""Interpolate from ``start`` at 0 to ``end`` at n, as ``np.interp``, to the bit in float64.

    .. math:: \mathrm{start} + \operatorname{interp}(x, [0, 1], [0, m]),
              \quad m = (\mathrm{end} - \mathrm{start}) / n

    The original's line is ``np.interp(ni, [0, nw], [start, initial_lr * lf(epoch)])``. ``np.interp``
    multiplies x by the slope m, where ``jnp.interp`` first divides x by the interval's length. On
    ``[0, n]`` that quotient is rounded: a third of 480,000 random values differ in the last bit of
    float64. None differed in float32, though a value at a tie of float32 can. On an interval of
    length 1 the division is exact, and none differed in float64.

    Args:
      x: the count; below 0 the value is ``start``, and past n it continues the line.
      n: where the line reaches ``end``, above 0.
      start: the value at 0.
      end: the value at n, one for each x if it varies.
    """
    rise = end - start
    # XLA may know the count but not the ends (a traced start): n must not be a constant then either.
    slope = quotient(rise, jnp.where(n > 0, n, 1.0), x + rise)
    return jnp.vectorize(_line)(x, slope) + start


@jax.custom_jvp
def _line(x: jax.Array, slope: jax.Array) -> jax.Array:
    """Return ``slope * x``, or 0 where x is below 0."""
    return jnp.interp(x, jnp.array([0.0, 1.0]), jnp.stack([0.0, slope]), right="extrapolate")


@_line.defjvp
def _line_jvp(primals: Any, tangents: Any) -> tuple[jax.Array, jax.Array]:
    # JAX may transpose jnp.interp with x64 disabled: the zeros of a slice would then be float32.
    (x, slope), (dx, dslope) = primals, tangents
    return _line(x, slope), jnp.where(x < 0, 0.0, slope * dx + x * dslope)


def integer(value: Any) -> Any:
    """Return a count or a length as int64; a NumPy count stays one."""
    if isinstance(value, np.generic | np.ndarray | int):
        return np.asarray(value).astype(np.int64)
    return jnp.asarray(value).astype(jnp.int64)
