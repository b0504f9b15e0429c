"""torch.optim.Adagrad. Its count is that of its updates; 0 is the first."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxsched._schedule import Hyperparameter, ScheduleLike
from jaxsched._validate import require_eps, require_rule_arguments
from jaxsched.optimizers._rule import update_rule
from jaxsched.optimizers._scheduled import schedulable


@schedulable
def adagrad(
    learning_rate: Hyperparameter | ScheduleLike,
    *,
    lr_decay: Hyperparameter | ScheduleLike = 0.0,
    weight_decay: Hyperparameter | ScheduleLike = 0.0,
    initial_accumulator_value: Hyperparameter = 0.0,
    eps: Hyperparameter | ScheduleLike = 1e-10,
    maximize: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Adagrad with torch's order of operations.

    .. math::
        d_t &= g_t + \lambda p_{t-1}, \quad
        s_t = s_{t-1} + d_t^2, \quad s_0 = \tau \\
        p_t &= p_{t-1} - \frac{\gamma}{1 + (t - 1) \eta} \cdot \frac{d_t}{\sqrt{s_t} + \epsilon}

    Args:
      learning_rate: γ.
      lr_decay: η.
      weight_decay: λ, coupled: it goes into the sum.
      initial_accumulator_value: τ, read once, when the state is made. A group's own in a
        recipe; torch takes that of its constructor for all groups.
      eps: ε, outside the root.
      maximize: ascends, with -g for g.

    Returns:
      A transformation; every number but τ may be a schedule of the updates made.

    Raises:
      ValueError: a number out of its range; weight decay without ``params``.

    Source: ``torch.optim.Adagrad``, torch 2.13. ``optax.adagrad`` has ε under the
    root, starts from τ = 0.1 and has no ``lr_decay``.

    >>> tx = adagrad(0.5)
    >>> params = jnp.ones(2)
    >>> updates, state = tx.update(params, tx.init(params), params)
    >>> [round(float(u), 6) for u in updates]
    [-0.5, -0.5]
    """
    require_rule_arguments(
        learning_rate=learning_rate,
        lr_decay=lr_decay,
        weight_decay=weight_decay,
        initial_accumulator_value=initial_accumulator_value,
        eps=eps,
    )
    require_eps(eps)

    def scalars(step: Any, learning_rate: Any, lr_decay: Any, eps: Any) -> dict[str, Any]:
        return {"step": -(learning_rate / (1 + (step - 1) * lr_decay)), "eps": eps}

    return update_rule(
        _leaf,
        scalars,
        numbers={"learning_rate": learning_rate, "lr_decay": lr_decay, "eps": eps},
        trees={"sum": lambda p: jnp.full_like(p, initial_accumulator_value)},
        weight_decay=weight_decay,
        maximize=maximize,
    )


def _leaf(c: Any, g: jax.Array, p: jax.Array, sum: jax.Array) -> Any:
    sum = sum + g * g
    return c["step"] * g / (jnp.sqrt(sum) + c["eps"]), {"sum": sum}
