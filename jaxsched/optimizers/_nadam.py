"""torch.optim.NAdam. Its count is that of its updates; 0 is the first."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxsched._schedule import Hyperparameter, ScheduleLike
from jaxsched._validate import require_beta, require_eps, require_rule_arguments
from jaxsched.optimizers._rule import lerp, mean_of_squares, update_rule
from jaxsched.optimizers._scheduled import schedulable


@schedulable
def nadam(
    learning_rate: Hyperparameter | ScheduleLike,
    *,
    b1: Hyperparameter | ScheduleLike = 0.9,
    b2: Hyperparameter | ScheduleLike = 0.999,
    eps: Hyperparameter | ScheduleLike = 1e-8,
    weight_decay: Hyperparameter | ScheduleLike = 0.0,
    momentum_decay: Hyperparameter | ScheduleLike = 4e-3,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Adam with Nesterov's momentum, with torch's order of operations.

    .. math::
        d_t &= g_t + \lambda p_{t-1} \\
        \mu_t &= \beta_1 (1 - \tfrac{1}{2} 0.96^{t \psi}), \quad
        \Pi_t = \mu_t \Pi_{t-1}, \quad \Pi_0 = 1 \\
        m_t &= m_{t-1} + (1 - \beta_1) (d_t - m_{t-1}), \quad
        v_t = \beta_2 v_{t-1} + (1 - \beta_2) d_t^2 \\
        p_t &= p_{t-1} - \gamma \Big( \frac{1 - \mu_t}{1 - \Pi_t} d_t
               + \frac{\mu_{t+1}}{1 - \Pi_t \mu_{t+1}} m_t \Big)
               \Big/ \Big( \sqrt{v_t / (1 - \beta_2^t)} + \epsilon \Big)

    Args:
      learning_rate: γ; torch's default is 2e-3.
      b1: β₁, at least 0 and below 1.
      b2: β₂, at least 0 and below 1.
      eps: ε, outside the root.
      weight_decay: λ, coupled: it goes through the moments.
      momentum_decay: ψ.
      decoupled_weight_decay: instead of λ in the gradient, the parameters are
        first multiplied by 1 - γλ.
      maximize: ascends, with -g for g.

    Returns:
      A transformation; every number may be a schedule of the updates made. Π is
      ``mu_product`` in the state's ``scalars``: float32 unless x64 is on, as
      torch keeps it in its default dtype.

    Raises:
      ValueError: a number out of its range; no ``params``.

    Source: ``torch.optim.NAdam``, torch 2.13. ``optax.nadam`` has no ψ: its μ is
    β₁ throughout.

    >>> tx = nadam(0.5, b1=0.0)
    >>> params = jnp.ones(2)
    >>> updates, state = tx.update(params, tx.init(params), params)
    >>> [round(float(u), 6) for u in updates]
    [-0.5, -0.5]
    """
    require_rule_arguments(
        learning_rate=learning_rate,
        eps=eps,
        weight_decay=weight_decay,
        momentum_decay=momentum_decay,
    )
    require_eps(eps)
    require_beta(b1=b1, b2=b2)

    def scalars(
        step: Any,
        learning_rate: Any,
        b1: Any,
        b2: Any,
        eps: Any,
        momentum_decay: Any,
        mu_product: Any,
    ) -> dict[str, Any]:
        mu = b1 * (1.0 - 0.5 * 0.96 ** (step * momentum_decay))
        mu_next = b1 * (1.0 - 0.5 * 0.96 ** ((step + 1) * momentum_decay))
        # torch multiplies, and rounds, in the dtype of its product.
        mu_product = mu_product * mu.astype(mu_product.dtype)
        product = mu_product.astype(jnp.float64)
        return {
            "weight": 1 - b1,
            "keep": b2,
            "add": 1 - b2,
            "correction": 1 - b2**step,
            "eps": eps,
            "step_of_gradient": -learning_rate * (1.0 - mu) / (1.0 - product),
            "step_of_moment": (-learning_rate * mu_next) / (1.0 - product * mu_next),
            "mu_product": mu_product,
        }

    return update_rule(
        _leaf,
        scalars,
        numbers={
            "learning_rate": learning_rate,
            "b1": b1,
            "b2": b2,
            "eps": eps,
            "momentum_decay": momentum_decay,
        },
        trees=dict.fromkeys(["exp_avg", "exp_avg_sq"], jnp.zeros_like),
        kept={"mu_product": 1.0},
        weight_decay=weight_decay,
        decoupled_weight_decay=decoupled_weight_decay,
        maximize=maximize,
        reads_params="nadam",
    )


def _leaf(c: Any, g: jax.Array, p: jax.Array, exp_avg: jax.Array, exp_avg_sq: jax.Array) -> Any:
    m = lerp(exp_avg, g, c["weight"])
    v = mean_of_squares(exp_avg_sq, g, c["keep"], c["add"])
    denominator = jnp.sqrt(v / c["correction"]) + c["eps"]
    # torch adds the two one after the other, and rounds the parameter in between.
    first = p + c["step_of_gradient"] * g / denominator - p
    added = first + c["step_of_moment"] * m / denominator
    return added, {"exp_avg": m, "exp_avg_sq": v}
