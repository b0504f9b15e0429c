"""What the update rules share: scalars that keep their precision, trees walked once.

Nothing here counts.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxsched.schedules import is_number


def is_zero(value: Any) -> bool:
    """Whether ``value`` is known to be the constant 0 while the graph is traced."""
    return is_number(value) and value == 0


def scalars_by_dtype(count: jax.Array, /, **scalars: Any) -> Callable[[Any], dict[str, jax.Array]]:
    """Float64 scalars, each cast once for each dtype of parameters.

    Returns:
      A function from a parameter's dtype to the scalars in the dtype that its
      arithmetic is done in: float32 for half precision, where torch computes in
      float32 too, the parameter's own otherwise.
    """

    @functools.cache
    def in_dtype(dtype: Any) -> dict[str, jax.Array]:
        with jax.enable_x64(True):
            wide = widened(dtype)
            # Plain numbers stay constants, which each kernel has in itself.
            constants = {name: jnp.asarray(v, wide) for name, v in scalars.items() if is_number(v)}
            moving = {
                name: jnp.asarray(v).astype(wide)
                for name, v in scalars.items()
                if name not in constants
            }
            return constants | computed_once(moving, count)

    return in_dtype


def computed_once(values: dict[str, jax.Array], count: jax.Array) -> dict[str, jax.Array]:
    """Scalars of one dtype, each to be computed in a kernel of its own.

    XLA on a CPU computes a formula anew in every kernel that reads it, and so in each
    leaf's, but not what ends in a division: here by 1, which it cannot know before
    ``count``. To be called where x64 is on.
    """
    if not values:
        return {}
    one = 1 + 0.0 * count.astype(next(iter(values.values())).dtype)
    return {name: value / one for name, value in values.items()}


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
    function: Callable[..., tuple[Any, ...]],
    tree: optax.Updates,
    params: optax.Params,
    state: Sequence[Any],
) -> tuple[Any, ...]:
    """``function(leaf, parameter, state)`` mapped over the leaves of trees.

    Args:
      function: from the leaf of ``tree``, its parameter and its leaves of the state to
        a new leaf for ``tree``, then one for each of ``state``.
      tree: whose leaves are walked.
      params: a tree of its structure.
      state: trees that are made anew; a leaf that is None there is None in the row.

    Returns:
      A tree for each value that ``function`` returns.
    """
    leaves, structure = jax.tree.flatten(tree)
    columns = [structure.flatten_up_to(other) for other in (params, *state)]
    rows = [
        function(leaf, parameter, old)
        for leaf, parameter, *old in zip(leaves, *columns, strict=True)
    ]
    if not rows:
        return (tree, *state)
    return tuple(structure.unflatten(column) for column in zip(*rows, strict=True))
