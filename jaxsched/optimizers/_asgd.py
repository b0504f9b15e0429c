"""torch.optim.ASGD. Its count is that of its updates; 0 is the first."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxsched._schedule import Hyperparameter, ScheduleLike
from jaxsched._validate import require_rule_arguments
from jaxsched.optimizers._rule import scaling_update, update_rule
from jaxsched.optimizers._scheduled import schedulable


@schedulable
def asgd(
    learning_rate: Hyperparameter | ScheduleLike,
    *,
    lambd: Hyperparameter | ScheduleLike = 1e-4,
    alpha: Hyperparameter | ScheduleLike = 0.75,
    t0: Hyperparameter | ScheduleLike = 1e6,
    weight_decay: Hyperparameter | ScheduleLike = 0.0,
    maximize: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Averaged stochastic gradient descent, as torch computes it.

    .. math::
        d_t &= g_t + \lambda p_{t-1}, \quad
        p_t = (1 - \Lambda \eta_t) p_{t-1} - \eta_t d_t \\
        a_t &= p_t \text{ if } \mu_t = 1, \quad a_{t-1} + \mu_t (p_t - a_{t-1}) \text{ (else)} \\
        \eta_{t+1} &= \frac{\gamma_t}{(1 + \Lambda \gamma_t t)^\alpha}, \quad
        \mu_{t+1} = \frac{1}{\max(1, t - t_0)}, \quad \eta_1 = \gamma_1, \quad \mu_1 = 1

    η is computed after it has been used: a moving rate acts one update late, and
    that of the first update twice. So it is in torch.

    Args:
      learning_rate: γ.
      lambd: Λ, by which the parameters shrink.
      alpha: α, the power by which the rate falls.
      t0: the update after which the average a begins.
      weight_decay: λ, coupled: it goes into the gradient.
      maximize: ascends, with -g for g.

    Returns:
      A transformation; every number may be a schedule of the updates made. The
      average is ``ax`` in the state's ``trees``; ``eta`` and ``mu`` in its
      ``scalars`` are what the next update uses: float32 unless x64 is on, as
      torch keeps them in its default dtype.

    Raises:
      ValueError: a number out of its range; no ``params``.

    Source: ``torch.optim.ASGD``, torch 2.13. Optax has none.

    >>> tx = asgd(0.5, lambd=0.0)
    >>> params = jnp.ones(2)
    >>> updates, state = tx.update(params, tx.init(params), params)
    >>> [round(float(u), 6) for u in updates]
    [-0.5, -0.5]
    """
    require_rule_arguments(
        learning_rate=learning_rate,
        lambd=lambd,
        alpha=alpha,
        t0=t0,
        weight_decay=weight_decay,
    )

    def scalars(
        step: Any, learning_rate: Any, lambd: Any, alpha: Any, t0: Any, eta: Any, mu: Any
    ) -> dict[str, Any]:
        # torch's state begins with the first update, at that update's rate.
        used = jnp.where(step == 1, jnp.asarray(learning_rate).astype(eta.dtype), eta)
        used = used.astype(jnp.float64)
        return {
            "step": -used,
            "shrink_by_lambd": 1 - lambd * used,
            "weight": mu,
            "eta": learning_rate / (1 + lambd * learning_rate * step) ** alpha,
            "mu": 1 / jnp.maximum(1.0, step - t0),
        }

    return update_rule(
        _leaf,
        scalars,
        numbers={"learning_rate": learning_rate, "lambd": lambd, "alpha": alpha, "t0": t0},
        trees={"ax": jnp.zeros_like},
        kept={"eta": 0.0, "mu": 1.0},
        weight_decay=weight_decay,
        maximize=maximize,
        reads_params="asgd",
    )


def _leaf(c: Any, g: jax.Array, p: jax.Array, ax: jax.Array) -> Any:
    added = scaling_update(p, c["shrink_by_lambd"]) + c["step"] * g
    moved = p + added
    averaged = jnp.where(c["weight"] != 1, ax + (moved - ax) * c["weight"], moved)
    return added, {"ax": averaged}
