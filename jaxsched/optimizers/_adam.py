"""torch.optim.Adam and AdamW. Their count is that of their updates; 0 is the first."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxsched._schedule import Hyperparameter, ScheduleLike
from jaxsched._validate import require_beta, require_eps, require_rule_arguments
from jaxsched.optimizers._rule import lerp, mean_of_squares, update_rule
from jaxsched.optimizers._scheduled import schedulable


@schedulable
def adam(
    learning_rate: Hyperparameter | ScheduleLike,
    *,
    b1: Hyperparameter | ScheduleLike = 0.9,
    b2: Hyperparameter | ScheduleLike = 0.999,
    eps: Hyperparameter | ScheduleLike = 1e-8,
    weight_decay: Hyperparameter | ScheduleLike = 0.0,
    amsgrad: bool = False,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Adam with torch's order of operations.

    .. math::
        d_t &= g_t + \lambda p_{t-1} \\
        m_t &= m_{t-1} + (1 - \beta_1) (d_t - m_{t-1}) \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) d_t^2, \quad
        \hat v_t = \max(\hat v_{t-1}, v_t) \text{ (AMSGrad)}, \quad v_t \text{ (else)} \\
        p_t &= p_{t-1} - \frac{\gamma}{1 - \beta_1^t} \cdot
               \frac{m_t}{\sqrt{\hat v_t} / \sqrt{1 - \beta_2^t} + \epsilon}

    Where β moves, its bias correction is that of its present value, as in torch.

    Args:
      learning_rate: γ.
      b1: β₁, at least 0 and below 1.
      b2: β₂, at least 0 and below 1.
      eps: ε, outside the root.
      weight_decay: λ, coupled: it goes through the moments.
      amsgrad: divides by the largest second moment so far.
      decoupled_weight_decay: instead of λ in the gradient, the parameters are
        first multiplied by 1 - γλ.
      maximize: ascends, with -g for g.

    Returns:
      A transformation; every number may be a schedule of the updates made.

    Raises:
      ValueError: a number out of its range; weight decay without ``params``.

    Source: ``torch.optim.Adam``, torch 2.13. ``optax.adam`` takes 1 - β and the
    bias corrections in float32 once a β moves, and the corrections always; it
    does not decay. ``optax.amsgrad`` corrects the bias before it takes the
    maximum (google-deepmind/optax#1389).

    >>> tx = adam(0.5)
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
            "add": 1 - b2,
            "root": jnp.sqrt(1 - b2**step),
            "eps": eps,
            "step": -(learning_rate / (1 - b1**step)),
        }

    names = ["exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if amsgrad else [])]
    return update_rule(
        _leaf,
        scalars,
        numbers={"learning_rate": learning_rate, "b1": b1, "b2": b2, "eps": eps},
        trees=dict.fromkeys(names, jnp.zeros_like),
        weight_decay=weight_decay,
        decoupled_weight_decay=decoupled_weight_decay,
        maximize=maximize,
    )


@schedulable
def adamw(
    learning_rate: Hyperparameter | ScheduleLike,
    *,
    b1: Hyperparameter | ScheduleLike = 0.9,
    b2: Hyperparameter | ScheduleLike = 0.999,
    eps: Hyperparameter | ScheduleLike = 1e-8,
    weight_decay: Hyperparameter | ScheduleLike = 1e-2,
    amsgrad: bool = False,
    maximize: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""``adam`` with decoupled weight decay.

    .. math::
        p_t = (1 - \gamma \lambda) p_{t-1} - \text{Adam's step, of the gradient alone}

    Args:
      learning_rate: γ.
      b1: as in ``adam``.
      b2: as in ``adam``.
      eps: as in ``adam``.
      weight_decay: λ.
      amsgrad: as in ``adam``.
      maximize: as in ``adam``.

    Returns:
      A transformation; every number may be a schedule of the updates made.

    Raises:
      ValueError: a number out of its range; weight decay without ``params``.

    Source: ``torch.optim.AdamW``, torch 2.13. ``optax.adamw`` decays by 1e-4 if
    not told otherwise, torch by 1e-2; what differs in ``optax.adam`` differs here.

    >>> tx = adamw(0.5, weight_decay=0.5)
    >>> params = jnp.ones(2)
    >>> updates, state = tx.update(params, tx.init(params), params)
    >>> [round(float(u), 6) for u in updates]
    [-0.75, -0.75]
    """
    return adam(
        learning_rate,
        b1=b1,
        b2=b2,
        eps=eps,
        weight_decay=weight_decay,
        amsgrad=amsgrad,
        decoupled_weight_decay=True,
        maximize=maximize,
    )


def _leaf(
    c: Any,
    g: jax.Array,
    p: jax.Array,
    exp_avg: jax.Array,
    exp_avg_sq: jax.Array,
    max_exp_avg_sq: jax.Array | None = None,
) -> Any:
    m = lerp(exp_avg, g, c["weight"])
    v = largest = mean_of_squares(exp_avg_sq, g, c["keep"], c["add"])
    if max_exp_avg_sq is not None:
        largest = jnp.maximum(max_exp_avg_sq, v)
    added = c["step"] * m / (jnp.sqrt(largest) / c["root"] + c["eps"])
    return added, {"exp_avg": m, "exp_avg_sq": v, "max_exp_avg_sq": largest}
