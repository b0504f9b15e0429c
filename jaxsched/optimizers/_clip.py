"""torch's gradient clipping. Nothing here counts."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxsched._schedule import Hyperparameter, as_float64
from jaxsched._validate import require
from jaxsched.optimizers._rule import compute_dtype


def clip_grad_norm(
    max_norm: Hyperparameter, *, norm_type: float | str = 2.0
) -> optax.GradientTransformation:
    r"""Gradients scaled so that their norm is ``max_norm`` at most.

    .. math::
        g' = g \min\Big(\frac{1}{n + 10^{-6}} c, 1\Big), \quad
        n = \|(\|g_1\|_q, \|g_2\|_q, …)\|_q

    All leaves together, in whatever group they are: it goes before
    ``optax.multi_transform``, not into it. ``Recipe(clip_norm=…)`` puts it there.

    Args:
      max_norm: c; ``math.inf`` scales nothing.
      norm_type: q, what ``float`` reads, ``"inf"`` too: infinity for the largest
        entry, minus infinity for the smallest; 0 counts entries that are not 0 in
        each leaf, and of all leaves together those where there are any, as in torch.

    Raises:
      ValueError: a ``max_norm`` that is negative or NaN; a ``norm_type`` that is no number.

    Source: ``torch.nn.utils.clip_grad_norm_``, torch 2.13. ``optax.clip_by_global_norm`` divides by
    the norm without the 1e-6, in another order, and leaves gradients alone whose norm is below
    ``max_norm``; torch scales those too whose norm is less than 1e-6 below it. On a CPU torch's
    float32 norm of a large leaf is off, by 4e-4 of it at 11 million entries, where this one is
    within 1e-7 of float64's: there the two differ by as much. Of half precision the norm is taken
    in float32; torch rounds it to the gradients' dtype, up to 0.4 % of it in bfloat16.

    >>> tx = clip_grad_norm(1.0)
    >>> gradients = {"bias": jnp.array([3.0]), "kernel": jnp.array([4.0])}
    >>> updates, state = tx.update(gradients, tx.init(gradients))
    >>> [round(float(u[0]), 4) for u in updates.values()]
    [0.6, 0.8]
    """
    require("max_norm", max_norm, "at least 0", lambda v: v >= 0)
    require("norm_type", norm_type, 'a number, "inf" or "-inf"', lambda v: not math.isnan(float(v)))
    power = float(norm_type)

    def clipped(updates: optax.Updates, params: optax.Params | None = None) -> Any:
        del params
        leaves = [wide(leaf) for leaf in jax.tree.leaves(updates)]
        # The smallest entry, or the sum of inverses, is of those there are.
        norms = [p_norm(leaf, power) for leaf in leaves if leaf.size]
        if not norms:
            return updates
        widest = max((norm.dtype for norm in norms), key=lambda dtype: dtype.itemsize)
        norm = p_norm(jnp.stack([norm.astype(widest) for norm in norms]), power)
        with jax.enable_x64(True):
            most = jnp.asarray(as_float64(max_norm)).astype(norm.dtype)
        # torch writes max_norm / tensor and computes a reciprocal, times max_norm.
        coefficient = jnp.minimum(1.0 / (norm + 1e-6) * most, 1.0)
        return jax.tree.map(
            lambda g: (wide(g) * coefficient.astype(compute_dtype(g.dtype))).astype(g.dtype),
            updates,
        )

    return optax.stateless(clipped)


def clip_grad_value(clip_value: Hyperparameter) -> optax.GradientTransformation:
    r"""Gradients held within ``±clip_value``, each entry by itself.

    .. math:: g' = \min(\max(g, -c), c)

    Args:
      clip_value: c; ``math.inf`` clips nothing.

    Raises:
      ValueError: a ``clip_value`` that is negative or NaN.

    Source: ``torch.nn.utils.clip_grad_value_``, torch 2.13. It is ``optax.clip``, with the check.

    >>> tx = clip_grad_value(1.0)
    >>> [float(g) for g in tx.update(jnp.array([-3.0, 0.5]), tx.init(None))[0]]
    [-1.0, 0.5]
    """
    require("clip_value", clip_value, "at least 0", lambda v: v >= 0)
    return optax.clip(clip_value)


def wide(x: jax.Array) -> jax.Array:
    """Half precision in float32."""
    return x.astype(compute_dtype(x.dtype))


def p_norm(x: jax.Array, norm_type: float) -> jax.Array:
    """The norm of all entries, as of one vector."""
    if math.isinf(norm_type):
        return (jnp.max if norm_type > 0 else jnp.min)(jnp.abs(x))
    if norm_type == 0:
        return jnp.sum(x != 0).astype(x.dtype)
    if norm_type == 2:
        return jnp.sqrt(jnp.sum(x * x))
    return jnp.sum(jnp.abs(x) ** norm_type) ** (1 / norm_type)
