"""torch.optim.Adamax. Its count is that of its updates; 0 is the first."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxsched._schedule import Hyperparameter, ScheduleLike
from jaxsched._validate import require_beta, require_eps, require_rule_arguments
from jaxsched.optimizers._rule import lerp, update_rule
from jaxsched.optimizers._scheduled import schedulable


@schedulable
def adamax(
    learning_rate: Hyperparameter | ScheduleLike,
    *,
    b1: Hyperparameter | ScheduleLike = 0.9,
    b2: Hyperparameter | ScheduleLike = 0.999,
    eps: Hyperparameter | ScheduleLike = 1e-8,
    weight_decay: Hyperparameter | ScheduleLike = 0.0,
    maximize: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Adam with the largest gradient for its second moment, as torch computes it.

    .. math::
        d_t &= g_t + \lambda p_{t-1}, \quad
        m_t = m_{t-1} + (1 - \beta_1) (d_t - m_{t-1}) \\
        u_t &= \max(\beta_2 u_{t-1}, |d_t| + \epsilon) \\
        p_t &= p_{t-1} - \frac{\gamma}{1 - \beta_1^t} \cdot \frac{m_t}{u_t}

    Args:
      learning_rate: γ; torch's default is 2e-3.
      b1: β₁, at least 0 and below 1.
      b2: β₂, at least 0 and below 1.
      eps: ε, within the maximum.
      weight_decay: λ, coupled: it goes through the moments.
      maximize: ascends, with -g for g.

    Returns:
      A transformation; every number may be a schedule of the updates made.

    Raises:
      ValueError: a number out of its range; weight decay without ``params``.

    Source: ``torch.optim.Adamax``, torch 2.13. ``optax.adamax`` has the formula,
    with the bias correction in float32, which puts its updates with β₁ = 0.999 off by
    2e-5 of them; under bfloat16 parameters a moving β₁ becomes bfloat16, and near 1
    divides by 0. It does not decay.

    >>> tx = adamax(0.5)
    >>> params = jnp.ones(2)
    >>> updates, state = tx.update(params, tx.init(params), params)
    >>> [round(float(u), 6) for u in updates]
    [-0.5, -0.5]
    """
    require_rule_arguments(learning_rate=learning_rate, eps=eps, weight_decay=weight_decay)
    require_eps(eps)
    require_beta(b1=b1, b2=b2)

    def scalars(step: Any, learning_rate: Any, b1: Any, b2: Any, eps: Any) -> dict[str, Any]:
        return {
            "weight": 1 - b1,
            "keep": b2,
            "eps": eps,
            "step": -(learning_rate / (1 - b1**step)),
        }

    return update_rule(
        _leaf,
        scalars,
        numbers={"learning_rate": learning_rate, "b1": b1, "b2": b2, "eps": eps},
        trees=dict.fromkeys(["exp_avg", "exp_inf"], jnp.zeros_like),
        weight_decay=weight_decay,
        maximize=maximize,
    )


def _leaf(c: Any, g: jax.Array, p: jax.Array, exp_avg: jax.Array, exp_inf: jax.Array) -> Any:
    m = lerp(exp_avg, g, c["weight"])
    u = jnp.maximum(exp_inf * c["keep"], jnp.abs(g) + c["eps"])
    return c["step"] * m / u, {"exp_avg": m, "exp_inf": u}
