"""What the update rules share: scalars that keep their precision, trees walked once.

Nothing here counts.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxsched.schedules import as_float64, is_number


def is_zero(value: Any) -> bool:
    """Whether ``value`` is known to be the constant 0 while the graph is traced."""
    return is_number(value) and value == 0


def scalars_by_dtype(**scalars: Any) -> Callable[[Any], dict[str, jax.Array]]:
    """Float64 scalars, each cast once for each dtype of parameters.

    Returns:
      A function from a parameter's dtype to the scalars in the dtype that its
      arithmetic is done in: float32 for half precision, where torch computes in
      float32 too, the parameter's own otherwise.
    """

    @functools.cache
    def cast(dtype: Any) -> dict[str, jax.Array]:
        with jax.enable_x64(True):
            wide = widened(dtype)
            return {
                name: jnp.asarray(as_float64(value)).astype(wide) for name, value in scalars.items()
            }

    return cast


def widened(dtype: Any) -> Any:
    """What is computed in: float32 for what is narrower or an integer, else the dtype itself.

    ``jnp.promote_types`` refuses to choose under strict dtype promotion. Complex is
    refused: torch's rules square and compare the real and the imaginary part each.
    """
    if jnp.issubdtype(dtype, jnp.complexfloating):
        raise ValueError(
            f"parameters and gradients must be real, got {jnp.dtype(dtype)}. Wrap the "
            "transformation in optax.contrib.split_real_and_imaginary."
        )
    is_wide = jnp.issubdtype(dtype, jnp.inexact) and jnp.finfo(dtype).bits >= 32
    return jnp.dtype(dtype if is_wide else jnp.float32)


def as_leaf(x: Any) -> Any:
    """An array as it is, a Python number as one."""
    return x if hasattr(x, "dtype") else jnp.asarray(x, jnp.result_type(float))


def round_to(value: jax.Array, like: jax.Array) -> jax.Array:
    """``value`` in the dtype of ``like``."""
    return value.astype(like.dtype)


def leafwise(
    function: Callable[..., tuple[Any, ...]], tree: optax.Updates, *rest: Any
) -> tuple[Any, ...]:
    """``function`` mapped over the leaves of trees, a tree for each value that it returns.

    It returns one for ``tree``, one for each of ``rest`` but the first. Where one
    of ``rest`` has None for a leaf, so does the row.
    """
    leaves, structure = jax.tree.flatten(tree)
    columns = [leaves, *(structure.flatten_up_to(other) for other in rest)]
    rows = [function(*row) for row in zip(*columns, strict=True)]
    if not rows:
        return (tree, *rest[1:])
    return tuple(structure.unflatten(column) for column in zip(*rows, strict=True))
