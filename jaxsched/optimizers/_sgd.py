"""torch.optim.SGD. Its count is that of its updates; 0 is the first."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxsched._schedule import Hyperparameter, ScheduleLike
from jaxsched._validate import is_number, is_zero, require_rule_arguments
from jaxsched.optimizers._rule import update_rule
from jaxsched.optimizers._scheduled import schedulable


@schedulable
def sgd(
    learning_rate: Hyperparameter | ScheduleLike,
    momentum: Hyperparameter | ScheduleLike = 0.0,
    *,
    dampening: Hyperparameter | ScheduleLike = 0.0,
    weight_decay: Hyperparameter | ScheduleLike = 0.0,
    nesterov: bool = False,
    maximize: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Stochastic gradient descent with torch's order of operations.

    .. math::
        d_t &= g_t + \lambda p_{t-1} \\
        b_t &= \mu b_{t-1} + (1 - \tau) d_t, \quad b_t = d_t \text{ at the first update with } \mu \ne 0 \\
        s_t &= d_t + \mu b_t \text{ (Nesterov)}, \quad b_t \text{ (else)}, \quad d_t \text{ if } \mu = 0 \\
        p_t &= p_{t-1} - \gamma s_t

    Args:
      learning_rate: γ.
      momentum: μ. At an update where it is 0 the buffer is left as it is.
      dampening: τ, not applied to the gradient that starts the buffer.
      weight_decay: λ, coupled: it goes through the momentum.
      nesterov: looks ahead by one step of the momentum.
      maximize: ascends, with -g for g.

    Returns:
      A transformation; every number may be a schedule of the updates made.
      ``started`` in the state's ``scalars`` says whether an update with a
      momentum other than 0 has been made, and with it torch's buffer.

    Raises:
      ValueError: a negative or non-finite number; Nesterov with a constant
        momentum of 0 or with dampening, which torch refuses too; weight decay
        without ``params``.

    Source: ``torch.optim.SGD``, torch 2.13. ``optax.sgd`` has no dampening, its
    ``trace`` starts from zeros, and it does not decay.

    >>> tx = sgd(0.5, 0.9, nesterov=True)
    >>> params = jnp.ones(2)
    >>> updates, state = tx.update(params, tx.init(params), params)
    >>> [round(float(u), 6) for u in updates]
    [-0.95, -0.95]
    """
    require_rule_arguments(
        learning_rate=learning_rate,
        momentum=momentum,
        dampening=dampening,
        weight_decay=weight_decay,
    )
    if nesterov and (is_zero(momentum) or (is_number(dampening) and dampening)):
        raise ValueError(
            "nesterov must go with a momentum above 0 and no dampening, got "
            f"momentum={momentum!r}, dampening={dampening!r}. Pass nesterov=False."
        )

    def scalars(
        step: Any, learning_rate: Any, momentum: Any, dampening: Any, started: Any
    ) -> dict[str, Any]:
        if is_number(momentum) and momentum and is_zero(dampening):
            # The buffer is 0 before the first update, which then copies the gradient into it.
            known = {"keep": momentum, "add": 1.0, "moves": 1.0, "started": True}
            return {"step": -learning_rate, "look_ahead": momentum, **known}
        # torch has no buffer before the first update with momentum, which copies the
        # gradient into it; and where momentum is 0 it leaves the buffer alone.
        moves = jnp.asarray(momentum != 0)
        first = moves & ~started
        return {
            "step": -learning_rate,
            "look_ahead": momentum,
            "keep": jnp.where(moves, jnp.where(first, 0.0, momentum), 1.0),
            "add": jnp.where(moves, jnp.where(first, 1.0, 1.0 - dampening), 0.0),
            "moves": moves,
            "started": started | moves,
        }

    return update_rule(
        _leaf,
        scalars,
        numbers={"learning_rate": learning_rate, "momentum": momentum, "dampening": dampening},
        trees={} if is_zero(momentum) else {"momentum_buffer": jnp.zeros_like},
        kept={"started": False},
        weight_decay=weight_decay,
        maximize=maximize,
        switches={"nesterov": bool(nesterov)},
        takes_again=True,
        exact_scalars=is_number(dampening),
    )


def _leaf(
    c: Any,
    g: jax.Array,
    p: jax.Array,
    again: jax.Array,
    momentum_buffer: jax.Array | None = None,
    *,
    nesterov: bool,
) -> Any:
    if momentum_buffer is None:
        return c["step"] * g, {}
    b = c["keep"] * momentum_buffer + c["add"] * g
    ahead = again + c["look_ahead"] * b if nesterov else jnp.where(c["moves"] > 0, b, again)
    return c["step"] * ahead, {"momentum_buffer": b}
