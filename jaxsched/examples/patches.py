"""A convolution of small images as one matrix product, which is faster on a CPU."""

import functools
import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

__all__ = ["MAX_POSITIONS", "conv_general_dilated"]

MAX_POSITIONS = 4
"""The largest number of output positions (height × width) for which patches are faster.

On a CPU, XLA's value and gradients take 5 to 33 times as long at 2 × 2 and 1 × 1, and less at 4 × 4
(``benchmarks/training_step.py``)."""


def conv_general_dilated(
    x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: Any, **options: Any
) -> jax.Array:
    """``jax.lax.conv_general_dilated`` for ``flax.nnx.Conv`` and ``flax.linen.Conv``.

    On a CPU, if the output has at most ``MAX_POSITIONS`` positions, the image's patches are
    concatenated and multiplied by the kernel as a matrix. Otherwise, and with dilations, feature
    groups, or a padding by name or as wide as the kernel, XLA's convolution is called.

    Args:
      x: images (n, height, width, inputs), or with another number of spatial axes.
      kernel: (height, width, inputs, outputs).
      strides: for each axis of the image.
      padding: zeros before and after, for each axis of the image.
      options: as Flax passes them.
    """
    xla = functools.partial(
        jax.lax.conv_general_dilated, window_strides=strides, padding=padding, **options
    )
    dilations = (*(options.get("lhs_dilation") or ()), *(options.get("rhs_dilation") or ()))
    positions = math.prod(jax.eval_shape(xla, x, kernel).shape[1:-1])
    if (
        positions > MAX_POSITIONS
        or any(n != 1 for n in (*dilations, options.get("feature_group_count", 1)))
        or isinstance(padding, str)
        or any(not 0 <= n < k for k, pair in zip(kernel.shape, padding, strict=False) for n in pair)
    ):
        return xla(x, kernel)
    dtypes = {name: options.get(name) for name in ("precision", "preferred_element_type")}
    product = functools.partial(_product, strides=strides, padding=padding, **dtypes)
    return jax.lax.platform_dependent(x, kernel, cpu=product, default=xla)


def _product(
    x: jax.Array,
    kernel: jax.Array,
    *,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    **options: Any,
) -> jax.Array:
    """Multiply patches by the kernel, without the kernel's rows and columns that see only padding."""
    kernel_part, windows = [], []
    axes = zip(x.shape[1:-1], kernel.shape, strides, padding, strict=False)
    for size, width, stride, (before, after) in axes:
        last = (size + before + after - width) // stride * stride
        rows = range(max(before - last, 0), min(size + before, width))
        kernel_part.append(slice(rows[0], rows[-1] + 1))
        windows.append([slice(k, k + last + 1, stride) for k in rows])
    padded = jnp.pad(x, [(0, 0), *padding, (0, 0)])
    patches = jnp.concatenate([padded[:, *window] for window in itertools.product(*windows)], -1)
    return jnp.matmul(patches, kernel[*kernel_part].reshape(-1, kernel.shape[-1]), **options)
