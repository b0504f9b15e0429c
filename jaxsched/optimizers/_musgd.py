"""Ultralytics' MuSGD. It counts updates; 0 is the first."""

from typing import Any

import jax
import optax
from jax.typing import DTypeLike

from jaxsched._schedule import Hyperparameter, ScheduleLike
from jaxsched._validate import is_zero
from jaxsched.optimizers._newton_schulz import (
    BFLOAT16,
    layout_of,
    orthogonalize,
    require_iteration,
    require_parameters,
    torch_shape,
)
from jaxsched.optimizers._rule import Leaves, Rule, Scalars, update_rule
from jaxsched.optimizers._scheduled import schedulable
from jaxsched.optimizers._sgd import sgd_leaf

EPS = 1e-7
RATIOS = ("muon", "sgd")  # without effect in groups without use_muon


@schedulable
def musgd(
    learning_rate: Hyperparameter | ScheduleLike,
    momentum: Hyperparameter | ScheduleLike = 0.0,
    *,
    weight_decay: Hyperparameter | ScheduleLike = 0.0,
    nesterov: bool = False,
    use_muon: bool = False,
    muon: Hyperparameter | ScheduleLike = 0.5,
    sgd: Hyperparameter | ScheduleLike = 0.5,
    layout: str = "flax",
    iteration_dtype: DTypeLike = BFLOAT16,
) -> optax.GradientTransformationExtraArgs:
    r"""MuSGD: SGD, after a step of Muon if ``use_muon``, as Ultralytics computes it.

    .. math::
        m_t &= \mu m_{t-1} + (1 - \mu) g_t, \quad
        u_t = \mu m_t + (1 - \mu) g_t \text{ (Nesterov)}, \quad m_t \text{ (else)} \\
        q_t &= p_{t-1} - \gamma \rho \sqrt{\max(1, s)} \operatorname{orthogonalize}(u_t) \\
        d_t &= g_t + \lambda q_t, \quad v_t = \mu v_{t-1} + d_t \\
        p_t &= q_t - \gamma \sigma (d_t + \mu v_t) \text{ (Nesterov)}, \quad
        q_t - \gamma \sigma v_t \text{ (else)}

    Without ``use_muon``, q is p and σ is 1. Both buffers begin at 0; with ``use_muon`` SGD's is called
    ``momentum_buffer_SGD``, as in the original.

    Args:
      learning_rate: γ.
      momentum: μ, of both buffers.
      weight_decay: λ, coupled, in SGD's step, of the parameter after Muon's step.
      nesterov: looks ahead by one step of the momentum, in both steps.
      use_muon: whether Muon's step comes first. The parameters must have torch's dimensions, 2 or 4
        in Flax's layout. A kernel of ConvTranspose has them with ``transpose_kernel=True``; without
        it, this function cannot detect the difference.
      muon: ρ; 0.2 in Ultralytics 8.4.190, 0.5 in 8.4.0.
      sgd: σ, where ``use_muon``; 1 in Ultralytics 8.4.190, 0.5 in 8.4.0.
      layout: which dimension is the output, and thus the rows of the orthogonalized matrix: the last
        in ``"flax"``, the first in ``"torch"`` and in leaves called ``embedding``. s is the ratio of
        the last two dimensions of torch's parameter: outputs by inputs for a dense layer, height by
        width for a convolution's window.
      iteration_dtype: dtype of the five Newton-Schulz steps; Ultralytics' is bfloat16.

    Raises:
      ValueError: another layout or dtype; a parameter of other dimensions under ``use_muon``, on
        ``init``.

    Source: ``ultralytics.optim.MuSGD``, ultralytics 8.4.0 to 8.4.190. In bfloat16 a parameter is
    within 0.15 times the sum of γρ so far; releases before 8.4.102 also apply the factor in bfloat16,
    which this bound does not cover. With float32 on both sides it is within 1e-5 over 12 updates.

    >>> import jax.numpy as jnp
    >>> tx, params = musgd(0.5, use_muon=True), {"kernel": jnp.ones((1, 2))}
    >>> tx.update(params, tx.init(params), params)[0]["kernel"].round(1)
    Array([[-0.4, -0.4]], dtype=float32)
    """
    dtype = require_iteration(layout, iteration_dtype)
    if not use_muon:
        return update_rule(
            sgd_leaf,
            _sgd_scalars,
            locals(),
            trees=["momentum_buffer"],
            switches={"nesterov": bool(nesterov)},
            duplicate_grad=True,
            exact_scalars=True,
        )
    transformation = update_rule(
        _muon_leaf,
        _muon_scalars,
        locals(),
        trees=["momentum_buffer", "momentum_buffer_SGD"],
        decays_itself=True,
        switches={"nesterov": bool(nesterov), "decays": not is_zero(weight_decay), "dtype": dtype},
        switches_of_leaf=lambda path: {"layout": layout_of(path, layout)},
    )

    def init(params: optax.Params) -> Any:
        rule = "parameters of musgd with use_muon must have 2 or 4 dimensions, in torch's layout at least 2"
        remedy = "Give them a group without use_muon."
        require_parameters(params, layout, dtype, _fits, rule, remedy)
        return transformation.init(params)

    return Rule(init, transformation.update)


def _fits(layout: str, dimensions: int) -> bool:
    # Flax's attention has kernels of 3 where torch's have 2.
    return dimensions >= 2 if layout == "torch" else dimensions in (2, 4)


def _sgd_scalars(
    step: Any, learning_rate: Any, momentum: Any, muon: Any, sgd: Any
) -> dict[str, Any]:
    del muon, sgd  # checked, but without effect
    constants = {"add": 1.0, "moves": 1.0}
    return {"step": -learning_rate, "look_ahead": momentum, "keep": momentum, **constants}


def _muon_scalars(
    step: Any, learning_rate: Any, momentum: Any, muon: Any, sgd: Any
) -> dict[str, Any]:
    moves = {"muon": -(learning_rate * muon), "sgd": -(learning_rate * sgd)}
    return {**moves, "momentum": momentum, "weight": 1 - momentum, "eps": EPS}


def scale(shape: tuple[int, ...]) -> float:
    """Return the factor of Muon's step from the shape of torch's parameter."""
    return max(1, shape[-2] / shape[-1]) ** 0.5


def _muon_leaf(
    c: Scalars,
    g: jax.Array,
    p: jax.Array,
    old: Leaves,
    *,
    nesterov: bool,
    decays: bool,
    dtype: str,
    layout: str,
) -> Any:
    m = c["momentum"] * old["momentum_buffer"] + c["weight"] * g
    u = c["momentum"] * m + c["weight"] * g if nesterov else m
    x = orthogonalize(u, c["eps"], layout=layout, dtype=dtype, adds_eps=True).astype(g.dtype)
    by_muon = c["muon"] * (scale(torch_shape(g.shape) if layout == "flax" else g.shape) * x)
    d = g + c["decay"] * (p + by_muon) if decays else g
    v = c["momentum"] * old["momentum_buffer_SGD"] + d
    by_sgd = c["sgd"] * (d + c["momentum"] * v if nesterov else v)
    return by_muon + by_sgd, {"momentum_buffer": m, "momentum_buffer_SGD": v}
