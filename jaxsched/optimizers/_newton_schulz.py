"""The Newton-Schulz iteration on parameters in Flax's layout or torch's."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxsched._validate import dtype_name, require_choice
from jaxsched.optimizers._rule import compute_dtype
from jaxsched.param_groups import Path, leaf_path

COEFFICIENTS = (3.4445, -4.7750, 2.0315)
LAYOUTS = ("flax", "torch")
DTYPES = ("bfloat16", "float32", "float64")
# Names, since optax.inject_hyperparams would take jnp.bfloat16, a callable, for a schedule.
BFLOAT16 = jnp.dtype(jnp.bfloat16)


def layout_of(path: Path, layout: str) -> str:
    """Return the layout of one leaf; an ``embedding`` always has torch's."""
    return "torch" if path[-1:] == ("embedding",) else layout


def torch_shape(kernel: Sequence[int]) -> tuple[int, ...]:
    """Return the shape of torch's weight from that of Flax's kernel: outputs, inputs, window.

    >>> torch_shape((5, 3, 16, 32))
    (32, 16, 5, 3)
    """
    return (*kernel[:-3:-1], *kernel[:-2]) if len(kernel) > 1 else tuple(kernel)


def require_iteration(layout: Any, iteration_dtype: Any) -> str:
    """Refuse another layout or dtype of the iteration; return the dtype's name."""
    require_choice("layout", layout, LAYOUTS)
    name = dtype_name(iteration_dtype)
    require_choice("iteration_dtype", name, DTYPES)
    return name


def require_parameters(
    params: Any, layout: str, dtype: str, fits: Callable[[str, int], bool], rule: str, remedy: str
) -> None:
    """Refuse parameters that have other dimensions than ``fits(layout, ndim)``; float64 without x64."""
    if jax.dtypes.canonicalize_dtype(dtype) != dtype:
        raise ValueError(
            f"iteration_dtype must be bfloat16 or float32 without x64, got {dtype}. "
            "Set jax_enable_x64."
        )
    others = [
        f"{'/'.join(path)} of shape {jnp.shape(leaf)}"
        for keys, leaf in jax.tree_util.tree_leaves_with_path(params)
        if not fits(layout_of(path := leaf_path(keys), layout), jnp.ndim(leaf))
    ]
    if others:
        raise ValueError(f"{rule}, got {', '.join(others)}. {remedy}")


def orthogonalize(u: jax.Array, *scalars: jax.Array, **options: Any) -> jax.Array:
    r"""Return an array whose matrix has u's singular vectors and singular values near 1.

    .. math::
        X_0 = u / n(\|u\|), \quad X_{k+1} = a X_k + (b A_k + c A_k^2) X_k, \quad A_k = X_k X_k^\top

    The matrix is torch's: a row for each output, a column for each input, in any order. X is this
    matrix, or its transpose if it has more rows than columns. The products contract the array's own
    dimensions, so that neither layout needs a transposed copy.

    Args:
      u: an array of at least 2 dimensions.
      *scalars: ε; with ``steps=None`` the number of steps too.
      **options: options of ``_orthogonalize``.
    """
    function: Any = functools.partial(_orthogonalize, **options)
    sharding = jax.typeof(u).sharding
    if jax.sharding.AxisType.Explicit in sharding.mesh.axis_types:
        # XLA then chooses the sharding of products, as on automatic axes.
        function = jax.sharding.auto_axes(function, out_sharding=sharding)
    return function(u, *scalars)


def _orthogonalize(
    u: jax.Array,
    eps: jax.Array,
    *loop: jax.Array,
    layout: str,
    dtype: str,
    adds_eps: bool,
    coefficients: tuple[float, float, float] = COEFFICIENTS,
    steps: int | None = 5,
) -> jax.Array:
    """Iterate as in ``orthogonalize``, in ``dtype``; n is ‖u‖ + ε, or the larger of the two.

    In bfloat16 the roundings are those of torch's kernels: each product, with the term added to it,
    is summed in float32 and rounded once.
    """
    (a, b, c), wide = coefficients, compute_dtype(jnp.dtype(dtype))
    # By default a GPU would multiply float32 in TF32, and a TPU in bfloat16.
    precision = None if dtype == "bfloat16" else jax.lax.Precision.HIGHEST
    m = u.reshape(-1, u.shape[-1]) if layout == "flax" else u.reshape(u.shape[0], -1)
    outputs, inputs = (1, 0) if layout == "flax" else (0, 1)
    # The dimensions of X, which has at most as many rows as columns.
    row, column = (outputs, inputs) if m.shape[outputs] <= m.shape[inputs] else (inputs, outputs)

    def round_to_dtype(x: jax.Array) -> jax.Array:
        return x.astype(dtype)

    def product(x: jax.Array, y: jax.Array, i: int, j: int) -> jax.Array:
        dimensions = ((i,), (j,)), ((), ())
        return jax.lax.dot_general(
            x, y, dimensions, precision=precision, preferred_element_type=wide
        )

    x = round_to_dtype(m)
    norm = round_to_dtype(jnp.sqrt(jnp.sum(jnp.square(x.astype(wide)))))
    least = round_to_dtype(eps)
    x = round_to_dtype(x / (norm + least if adds_eps else jnp.maximum(norm, least)))

    def iterate(_: Any, x: jax.Array) -> jax.Array:
        gram = round_to_dtype(product(x, x, column, column))
        polynomial = round_to_dtype(b * gram.astype(wide) + c * product(gram, gram, 1, 0))
        moved = product(polynomial, x, 1, 0) if row == 0 else product(x, polynomial, 1, 1)
        return round_to_dtype(a * x.astype(wide) + moved)

    if steps is None:
        x = jax.lax.fori_loop(0, loop[0].astype(jnp.int32), iterate, x)
    for k in range(steps or 0):
        x = iterate(k, x)
    return x.reshape(u.shape)
