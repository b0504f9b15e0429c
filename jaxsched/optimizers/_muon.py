"""torch.optim.Muon. It counts updates; 0 is the first."""

import math
from typing import Any

import jax
import optax
from jax.typing import DTypeLike

from jaxsched._schedule import Hyperparameter, ScheduleLike
from jaxsched._validate import require, require_count
from jaxsched.optimizers._newton_schulz import (
    BFLOAT16,
    COEFFICIENTS,
    layout_of,
    orthogonalize,
    require_iteration,
    require_parameters,
    torch_shape,
)
from jaxsched.optimizers._rule import Leaves, Rule, Scalars, lerp, update_rule
from jaxsched.optimizers._scheduled import schedulable


@schedulable
def muon(
    learning_rate: Hyperparameter | ScheduleLike,
    *,
    weight_decay: Hyperparameter | ScheduleLike = 0.1,
    momentum: Hyperparameter | ScheduleLike = 0.95,
    nesterov: bool = True,
    ns_coefficients: tuple[float, float, float] = COEFFICIENTS,
    eps: Hyperparameter | ScheduleLike = 1e-7,
    ns_steps: int = 5,
    adjust_lr_fn: str | None = None,
    layout: str = "flax",
    iteration_dtype: DTypeLike = BFLOAT16,
) -> optax.GradientTransformationExtraArgs:
    r"""Muon: momentum orthogonalized by the Newton-Schulz iteration, as torch computes it.

    .. math::
        b_t &= b_{t-1} + (1 - \mu) (g_t - b_{t-1}), \quad
        u_t = g_t + \mu (b_t - g_t) \text{ (Nesterov)}, \quad b_t \text{ (else)} \\
        X_0 &= u_t / \max(\|u_t\|, \epsilon), \quad
        X_{k+1} = a X_k + (b A_k + c A_k^2) X_k, \quad A_k = X_k X_k^\top \\
        p_t &= (1 - \gamma \lambda) p_{t-1} - \gamma r X_n

    Args:
      learning_rate: γ.
      weight_decay: λ, decoupled.
      momentum: μ, of an average: the gradient has the weight 1 - μ.
      nesterov: looks ahead by one step of the momentum.
      ns_coefficients: a, b and c, not schedules.
      eps: ε, the smallest divisor.
      ns_steps: n, below 100; if an array, the iteration is a loop.
      adjust_lr_fn: r, for a parameter of A outputs and B inputs: ``"original"`` or None,
        :math:`\sqrt{\max(1, A / B)}`; ``"match_rms_adamw"``, :math:`0.2 \sqrt{\max(A, B)}`.
      layout: which dimension is the output: the last in ``"flax"``, the first in ``"torch"``, as in
        leaves called ``embedding``.
      iteration_dtype: of X; torch's is bfloat16.

    Raises:
      ValueError: another ``adjust_lr_fn``, layout or dtype; a parameter that is not 2-D, on ``init``.

    Source: ``torch.optim.Muon``, torch 2.13. The roundings of bfloat16 differ between kernels: the
    buffer equals torch's, and a parameter is within 0.15 times the sum of γr so far. ``optax.contrib.muon`` iterates in the gradient's dtype, corrects its momentum's
    bias, and accepts other parameters too.

    >>> import jax.numpy as jnp
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
    dtype = require_iteration(layout, iteration_dtype)
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
            "coefficients": tuple(ns_coefficients),
            "steps": None if is_loop else int(ns_steps),
            "adjust_lr_fn": adjust_lr_fn,
            "dtype": dtype,
        },
        switches_of_leaf=lambda path: {"layout": layout_of(path, layout)},
    )

    def init(params: optax.Params) -> Any:
        rule, remedy = "parameters of muon must be 2-D", "Give them another rule."
        require_parameters(params, layout, dtype, lambda _, n: n == 2, rule, remedy)
        return transformation.init(params)

    return Rule(init, transformation.update)


def _scalars(step: Any, learning_rate: Any, momentum: Any, eps: Any, **loop: Any) -> dict[str, Any]:
    constants = {"momentum": momentum, "eps": eps, **loop}
    return {"step": -learning_rate, "weight": 1 - momentum, **constants}


def adjustment(shape: tuple[int, ...], adjust_lr_fn: str | None) -> float:
    """Return the factor of the rate for a matrix of torch's shape."""
    rows, columns = shape
    if adjust_lr_fn == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    return math.sqrt(max(1, rows / columns))


def _leaf(
    c: Scalars,
    g: jax.Array,
    p: jax.Array,
    old: Leaves,
    *,
    nesterov: bool,
    adjust_lr_fn: str | None,
    layout: str,
    **iteration: Any,
) -> Any:
    b = lerp(old["momentum_buffer"], g, c["weight"])
    u = lerp(g, b, c["momentum"]) if nesterov else b
    scalars = (c[name] for name in ("eps", "ns_steps") if name in c)
    x = orthogonalize(u, *scalars, layout=layout, adds_eps=False, **iteration)
    ratio = adjustment(torch_shape(g.shape) if layout == "flax" else g.shape, adjust_lr_fn)
    return c["step"] * ratio * x.astype(g.dtype), {"momentum_buffer": b}
