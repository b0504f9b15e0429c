"""torch.optim.RAdam. Its count is that of its updates; 0 is the first."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxsched._schedule import Hyperparameter, ScheduleLike
from jaxsched._validate import require_beta, require_eps, require_rule_arguments
from jaxsched.optimizers._rule import lerp, mean_of_squares, update_rule
from jaxsched.optimizers._scheduled import schedulable


@schedulable
def radam(
    learning_rate: Hyperparameter | ScheduleLike,
    *,
    b1: Hyperparameter | ScheduleLike = 0.9,
    b2: Hyperparameter | ScheduleLike = 0.999,
    eps: Hyperparameter | ScheduleLike = 1e-8,
    weight_decay: Hyperparameter | ScheduleLike = 0.0,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Rectified Adam with torch's order of operations.

    .. math::
        d_t &= g_t + \lambda p_{t-1}, \quad
        m_t = m_{t-1} + (1 - \beta_1) (d_t - m_{t-1}), \quad
        v_t = \beta_2 v_{t-1} + (1 - \beta_2) d_t^2 \\
        \rho_\infty &= \frac{2}{1 - \beta_2} - 1, \quad
        \rho_t = \rho_\infty - \frac{2 t \beta_2^t}{1 - \beta_2^t} \\
        s_t &= \sqrt{\frac{(\rho_t - 4) (\rho_t - 2) \rho_\infty}
                          {(\rho_\infty - 4) (\rho_\infty - 2) \rho_t}}
               \cdot \frac{\sqrt{1 - \beta_2^t}}{\sqrt{v_t} + \epsilon}
               \text{ if } \rho_t > 5, \quad 1 \text{ (else)} \\
        p_t &= p_{t-1} - \gamma \frac{m_t}{1 - \beta_1^t} s_t

    Args:
      learning_rate: γ.
      b1: β₁, at least 0 and below 1.
      b2: β₂, at least 0 and below 1.
      eps: ε, beside the root of the uncorrected moment.
      weight_decay: λ, coupled: it goes through the moments.
      decoupled_weight_decay: instead of λ in the gradient, the parameters are
        first multiplied by 1 - γλ.
      maximize: ascends, with -g for g.

    Returns:
      A transformation; every number may be a schedule of the updates made.

    Raises:
      ValueError: a number out of its range; weight decay without ``params``.

    Source: ``torch.optim.RAdam``, torch 2.13. ``optax.radam`` adds ε to the root
    of the corrected moment, which makes it larger by ``1 / sqrt(1 - b2**t)``,
    and rectifies from ρ = 5 on, torch above it.

    >>> tx = radam(0.5)
    >>> params = jnp.ones(2)
    >>> updates, state = tx.update(params, tx.init(params), params)
    >>> [round(float(u), 6) for u in updates]
    [-0.5, -0.5]
    """
    require_rule_arguments(learning_rate=learning_rate, eps=eps, weight_decay=weight_decay)
    require_eps(eps)
    require_beta(b1=b1, b2=b2)

    def scalars(step: Any, learning_rate: Any, b1: Any, b2: Any, eps: Any) -> dict[str, Any]:
        correction = 1 - b2**step
        limit = 2 / (1 - b2) - 1
        rho = limit - 2 * step * b2**step / correction
        rectified = rho > 5.0
        square = (rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho)
        return {
            "weight": 1 - b1,
            "keep": b2,
            "add": 1 - b2,
            "correction": 1 - b1**step,
            "learning_rate": learning_rate,
            "eps": eps,
            "rectified": rectified,
            "root": jnp.sqrt(correction),
            "rectification": jnp.sqrt(jnp.where(rectified, square, 1.0)),
        }

    return update_rule(
        _leaf,
        scalars,
        numbers={"learning_rate": learning_rate, "b1": b1, "b2": b2, "eps": eps},
        trees=dict.fromkeys(["exp_avg", "exp_avg_sq"], jnp.zeros_like),
        weight_decay=weight_decay,
        decoupled_weight_decay=decoupled_weight_decay,
        maximize=maximize,
    )


def _leaf(c: Any, g: jax.Array, p: jax.Array, exp_avg: jax.Array, exp_avg_sq: jax.Array) -> Any:
    m = lerp(exp_avg, g, c["weight"])
    v = mean_of_squares(exp_avg_sq, g, c["keep"], c["add"])
    plain = m / c["correction"] * c["learning_rate"]
    adaptive = plain * (c["root"] / (jnp.sqrt(v) + c["eps"])) * c["rectification"]
    return -jnp.where(c["rectified"] > 0, adaptive, plain), {"exp_avg": m, "exp_avg_sq": v}
