"""torch.optim.Adadelta. Its count is that of its updates; 0 is the first."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxsched._schedule import Hyperparameter, ScheduleLike
from jaxsched._validate import require, require_eps, require_rule_arguments
from jaxsched.optimizers._rule import mean_of_squares, update_rule
from jaxsched.optimizers._scheduled import schedulable


@schedulable
def adadelta(
    learning_rate: Hyperparameter | ScheduleLike,
    *,
    rho: Hyperparameter | ScheduleLike = 0.9,
    eps: Hyperparameter | ScheduleLike = 1e-6,
    weight_decay: Hyperparameter | ScheduleLike = 0.0,
    maximize: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Adadelta with torch's order of operations.

    .. math::
        d_t &= g_t + \lambda p_{t-1}, \quad
        v_t = \rho v_{t-1} + (1 - \rho) d_t^2 \\
        \Delta_t &= \frac{\sqrt{u_{t-1} + \epsilon}}{\sqrt{v_t + \epsilon}} d_t, \quad
        u_t = \rho u_{t-1} + (1 - \rho) \Delta_t^2 \\
        p_t &= p_{t-1} - \gamma \Delta_t

    Args:
      learning_rate: γ; torch's default is 1.
      rho: ρ, from 0 to 1.
      eps: ε, under both roots.
      weight_decay: λ, coupled: it goes through the averages.
      maximize: ascends, with -g for g.

    Returns:
      A transformation; every number may be a schedule of the updates made.

    Raises:
      ValueError: a number out of its range; weight decay without ``params``.

    Source: ``torch.optim.Adadelta``, torch 2.13. ``optax.adadelta`` has the
    formula, but once ρ is a schedule its 1 - ρ is float32: at ρ = 0.999 both averages,
    which are torch's state, are off by 1.3e-5 of them and the first updates by 7e-6.
    ``maximize`` is another transformation there.

    >>> tx = adadelta(1.0, eps=0.0625, rho=0.0)
    >>> params = jnp.ones(2)
    >>> updates, state = tx.update(params, tx.init(params), params)
    >>> [round(float(u), 6) for u in updates]
    [-0.242536, -0.242536]
    """
    require_rule_arguments(learning_rate=learning_rate, eps=eps, weight_decay=weight_decay)
    require_eps(eps)
    require("rho", rho, "from 0 to 1", lambda v: 0 <= v <= 1)

    def scalars(step: Any, learning_rate: Any, rho: Any, eps: Any) -> dict[str, Any]:
        return {"step": -learning_rate, "keep": rho, "add": 1 - rho, "eps": eps}

    return update_rule(
        _leaf,
        scalars,
        numbers={"learning_rate": learning_rate, "rho": rho, "eps": eps},
        trees=dict.fromkeys(["square_avg", "acc_delta"], jnp.zeros_like),
        weight_decay=weight_decay,
        maximize=maximize,
    )


def _leaf(c: Any, g: jax.Array, p: jax.Array, square_avg: jax.Array, acc_delta: jax.Array) -> Any:
    v = mean_of_squares(square_avg, g, c["keep"], c["add"])
    delta = jnp.sqrt(acc_delta + c["eps"]) / jnp.sqrt(v + c["eps"]) * g
    u = mean_of_squares(acc_delta, delta, c["keep"], c["add"])
    return c["step"] * delta, {"square_avg": v, "acc_delta": u}
