"""torch.optim.Muon. Its count is that of its updates; 0 is the first."""

import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxsched._schedule import Hyperparameter, ScheduleLike
from jaxsched._validate import require, require_count
from jaxsched.optimizers._rule import Leaves, Rule, Scalars, lerp, update_rule
from jaxsched.optimizers._scheduled import schedulable
from jaxsched.param_groups import leaf_path


@schedulable
def muon(
    learning_rate: Hyperparameter | ScheduleLike,
    *,
    weight_decay: Hyperparameter | ScheduleLike = 0.1,
    momentum: Hyperparameter | ScheduleLike = 0.95,
    nesterov: bool = True,
    ns_coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315),
    eps: Hyperparameter | ScheduleLike = 1e-7,
    ns_steps: int = 5,
    adjust_lr_fn: str | None = None,
    transposed: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Momentum, orthogonalized by Newton and Schulz's iteration, as torch computes it.

    .. math::
        b_t &= b_{t-1} + (1 - \mu) (g_t - b_{t-1}), \quad
        u_t = g_t + \mu (b_t - g_t) \text{ (Nesterov)}, \quad b_t \text{ (else)} \\
        X_0 &= u_t / \max(\|u_t\|, \epsilon), \quad
        X_{k+1} = a X_k + (b A_k + c A_k^2) X_k, \quad A_k = X_k X_k^\top \\
        p_t &= (1 - \gamma \lambda) p_{t-1} - \gamma r X_n

    Args:
      learning_rate: γ.
      weight_decay: λ, decoupled.
      momentum: μ, of an average: the gradient goes in by 1 - μ.
      nesterov: looks ahead by one step of the momentum.
      ns_coefficients: a, b and c, no schedules.
      eps: ε, the least norm that is divided by.
      ns_steps: n, below 100; an array makes it a loop.
      adjust_lr_fn: r, of a parameter of A rows and B columns: ``"original"`` or None,
        :math:`\sqrt{\max(1, A / B)}`; ``"match_rms_adamw"``, :math:`0.2 \sqrt{\max(A, B)}`.
      transposed: whether parameters are (inputs, outputs), as Flax's kernels
        are, where torch's are (outputs, inputs): A and B change places.

    Raises:
      ValueError: another ``adjust_lr_fn``; a parameter that is not 2-D, on ``init``.

    Source: ``torch.optim.Muon``, torch 2.13. The iteration is in bfloat16, whose roundings differ
    between kernels: the buffer equals torch's, a parameter is within 0.15 of the γr summed up so
    far (0.04 in the tests' runs). ``optax.contrib.muon`` iterates in the gradient's dtype, corrects
    its momentum's bias, and takes other parameters too.

    >>> tx, params = muon(0.5, weight_decay=0.0), jnp.ones((2, 1))
    >>> tx.update(params, tx.init(params), params)[0].shape
    (2, 1)
    """
    require_count("ns_steps", ns_steps)
    require("ns_steps", ns_steps, "below 100", lambda v: v < 100)
    require("ns_coefficients", ns_coefficients, "3 numbers", lambda v: len(v) == 3)
    rule = 'None, "original" or "match_rms_adamw"'
    require(
        "adjust_lr_fn", adjust_lr_fn, rule, lambda v: v in (None, "original", "match_rms_adamw")
    )
    is_loop = isinstance(ns_steps, jax.Array)  # inside optax.inject_hyperparams
    transformation = update_rule(
        _leaf,
        _scalars,
        locals(),
        trees=["momentum_buffer"],
        numbers=["ns_steps"] if is_loop else [],
        decoupled_weight_decay=True,
        switches={
            "nesterov": bool(nesterov),
            "ns_coefficients": tuple(ns_coefficients),
            "ns_steps": None if is_loop else int(ns_steps),
            "adjust_lr_fn": adjust_lr_fn,
            "transposed": bool(transposed),
        },
    )

    def init(params: optax.Params) -> Any:
        others = [
            f"{'/'.join(leaf_path(keys))} of shape {jnp.shape(p)}"
            for keys, p in jax.tree_util.tree_leaves_with_path(params)
            if jnp.ndim(p) != 2
        ]
        if others:
            raise ValueError(
                f"parameters of muon must be 2-D, got {', '.join(others)}. Give them another rule."
            )
        return transformation.init(params)

    return Rule(init, transformation.update)


def _scalars(step: Any, learning_rate: Any, momentum: Any, eps: Any, **loop: Any) -> dict[str, Any]:
    constants = {"momentum": momentum, "eps": eps, **loop}
    return {"step": -learning_rate, "weight": 1 - momentum, **constants}


def adjustment(shape: tuple[int, ...], adjust_lr_fn: str | None) -> float:
    """The factor of the rate for a matrix of this shape."""
    rows, columns = shape
    if adjust_lr_fn == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    return math.sqrt(max(1, rows / columns))


def _orthogonalize(
    u: jax.Array,
    eps: jax.Array,
    *loop: jax.Array,
    coefficients: tuple[float, float, float],
    steps: int | None,
) -> jax.Array:
    """The matrix with u's singular vectors and singular values near 1, in bfloat16.

    Rounded where torch's kernels round: each product is summed in float32 and
    rounded with what is added to it.
    """
    a, b, c = coefficients

    def rounded(x: jax.Array) -> jax.Array:
        return x.astype(jnp.bfloat16)

    def product(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.matmul(x, y, preferred_element_type=jnp.float32)

    tall = u.shape[0] > u.shape[1]
    x = rounded(u.T if tall else u)
    norm = rounded(jnp.sqrt(jnp.sum(jnp.square(x.astype(jnp.float32)))))
    x = rounded(x / jnp.maximum(norm, rounded(eps)))

    def iterate(_: Any, x: jax.Array) -> jax.Array:
        gram = rounded(product(x, x.T))
        polynomial = rounded(b * gram.astype(jnp.float32) + c * product(gram, gram))
        return rounded(a * x.astype(jnp.float32) + product(polynomial, x))

    if steps is None:
        x = jax.lax.fori_loop(0, loop[0].astype(jnp.int32), iterate, x)
    for k in range(steps or 0):
        x = iterate(k, x)
    return x.T if tall else x


def _leaf(
    c: Scalars,
    g: jax.Array,
    p: jax.Array,
    old: Leaves,
    *,
    nesterov: bool,
    ns_coefficients: tuple[float, float, float],
    ns_steps: int | None,
    adjust_lr_fn: str | None,
    transposed: bool,
) -> Any:
    b = lerp(old["momentum_buffer"], g, c["weight"])
    u = lerp(g, b, c["momentum"]) if nesterov else b
    orthogonalize: Any = functools.partial(
        _orthogonalize, coefficients=ns_coefficients, steps=ns_steps
    )
    sharding = jax.typeof(u).sharding
    if jax.sharding.AxisType.Explicit in sharding.mesh.axis_types:
        # Let XLA lay out products of sharded matrices, as it does on automatic axes.
        orthogonalize = jax.sharding.auto_axes(orthogonalize, out_sharding=sharding)
    x = orthogonalize(u, c["eps"], *([c["ns_steps"]] if ns_steps is None else []))
    ratio = adjustment(g.shape[::-1] if transposed else g.shape, adjust_lr_fn)
    return c["step"] * ratio * x.astype(g.dtype), {"momentum_buffer": b}
