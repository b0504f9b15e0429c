"""torch.optim.Rprop. Its count is that of its updates; 0 is the first."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxsched._schedule import Hyperparameter, ScheduleLike
from jaxsched.optimizers._rule import Leaves, Scalars, update_rule
from jaxsched.optimizers._scheduled import schedulable

NUMBERS = ("eta_minus", "eta_plus", "step_size_min", "step_size_max")


@schedulable
def rprop(
    learning_rate: Hyperparameter | ScheduleLike,
    *,
    eta_minus: Hyperparameter | ScheduleLike = 0.5,
    eta_plus: Hyperparameter | ScheduleLike = 1.2,
    step_size_min: Hyperparameter | ScheduleLike = 1e-6,
    step_size_max: Hyperparameter | ScheduleLike = 50.0,
    maximize: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Resilient backpropagation, as torch computes it.

    .. math::
        s_t &= \operatorname{clip}(s_{t-1} f, s_{\min}, s_{\max}), \quad
        f = \eta_+, \eta_-, 1 \text{ where } g_t h_{t-1} > 0, < 0, = 0, \quad s_0 = \gamma_1 \\
        h_t &= 0 \text{ where } g_t h_{t-1} < 0, \quad g_t \text{ (else)} \\
        p_t &= p_{t-1} - \operatorname{sign}(h_t) s_t

    Args:
      learning_rate: γ, the first step size. torch reads the rate at the first
        update only, so a schedule of it has no say later.
      eta_minus: η₋, above 0 and below 1: torch's ``etas[0]``.
      eta_plus: η₊, above 1: torch's ``etas[1]``.
      step_size_min: the least step: torch's ``step_sizes[0]``.
      step_size_max: the largest step: torch's ``step_sizes[1]``.

    Source: ``torch.optim.Rprop``, torch 2.13. ``optax.rprop`` keeps for h what it
    was to add, at the last update, and returns that where the sign holds: its
    steps come one update late; and it clips no step whose factor is 1.

    >>> tx, params = rprop(0.5), jnp.ones(2)
    >>> _, state = tx.update(params, tx.init(params))
    >>> tx.update(params, state)[0].round(6)
    Array([-0.6, -0.6], dtype=float32)
    """
    return update_rule(_leaf, _scalars, locals(), trees=["prev", "step_size"], numbers=NUMBERS)


def _scalars(step: Any, learning_rate: Any, **others: Any) -> dict[str, Any]:
    return {"first": step == 1, "learning_rate": learning_rate, **others}


def _leaf(c: Scalars, g: jax.Array, p: jax.Array, old: Leaves) -> Any:
    agreement = g * old["prev"]
    grow = jnp.where(agreement < 0, c["eta_minus"], 1)
    grow = jnp.where(agreement > 0, c["eta_plus"], grow)
    size = jnp.where(c["first"] > 0, c["learning_rate"], old["step_size"]) * grow
    size = jnp.clip(size, c["step_size_min"], c["step_size_max"])
    prev = jnp.where(agreement < 0, 0, g)
    # torch's sign of NaN is 0: the entry stays, and moves again with the next gradient.
    sign = jnp.where(jnp.isnan(prev), 0, jnp.sign(prev))
    return -sign * size, {"prev": prev, "step_size": size}
