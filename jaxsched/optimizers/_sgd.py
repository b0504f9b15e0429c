"""torch.optim.SGD, ASGD and Rprop: no moments of the gradient.

They count updates; 0 is the first.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxsched._schedule import Hyperparameter, ScheduleLike
from jaxsched._validate import is_number, is_zero
from jaxsched.optimizers._rule import Leaves, Scalars, scaling_update, update_rule
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
      momentum: μ. An update with momentum 0 leaves the buffer unchanged.
      dampening: τ, not applied to the gradient that starts the buffer.
      weight_decay: λ, coupled: included in the momentum.
      nesterov: looks ahead by one step of the momentum.

    ``started`` in the state's ``scalars`` is true after the first update with a momentum other than
    0, which creates torch's buffer.

    Raises:
      ValueError: Nesterov with a constant momentum of 0 or with dampening, as in torch.

    Source: ``torch.optim.SGD``, torch 2.13. ``optax.sgd`` has no dampening and no weight decay, and
    its ``trace`` starts from zeros.

    >>> tx, params = sgd(0.5, 0.9, nesterov=True), jnp.ones(2)
    >>> tx.update(params, tx.init(params), params)[0].round(6)
    Array([-0.95, -0.95], dtype=float32)
    """
    if nesterov and (is_zero(momentum) or (is_number(dampening) and dampening)):
        raise ValueError(
            "nesterov must go with a momentum above 0 and no dampening, got "
            f"momentum={momentum!r}, dampening={dampening!r}. Pass nesterov=False."
        )
    return update_rule(
        sgd_leaf,
        _sgd_scalars,
        locals(),
        trees=[] if is_zero(momentum) else ["momentum_buffer"],
        initial_scalars={"started": False},
        switches={"nesterov": bool(nesterov)},
        duplicate_grad=True,
        exact_scalars=is_number(dampening),
    )


def _sgd_scalars(
    step: Any, learning_rate: Any, momentum: Any, dampening: Any, started: Any
) -> dict[str, Any]:
    if is_number(momentum) and momentum and is_zero(dampening):
        # The buffer is 0 before the first update, which then copies the gradient into it.
        constants = {"keep": momentum, "add": 1.0, "moves": 1.0, "started": True}
        return {"step": -learning_rate, "look_ahead": momentum, **constants}
    # torch has no buffer before the first update with momentum, which copies the gradient into it;
    # an update with momentum 0 does not change the buffer.
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


def sgd_leaf(c: Scalars, g: jax.Array, p: jax.Array, old: Leaves, *, nesterov: bool) -> Any:
    """Return SGD's update of a leaf and the leaf's new buffer."""
    if "momentum_buffer" not in old:
        return c["step"] * g, {}
    b, again = c["keep"] * old["momentum_buffer"] + c["add"] * g, old["again"]
    ahead = again + c["look_ahead"] * b if nesterov else jnp.where(c["moves"] > 0, b, again)
    return c["step"] * ahead, {"momentum_buffer": b}


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
    r"""ASGD: averaged stochastic gradient descent, as torch computes it.

    .. math::
        d_t &= g_t + \lambda p_{t-1}, \quad
        p_t = (1 - \Lambda \eta_t) p_{t-1} - \eta_t d_t \\
        a_t &= p_t \text{ if } \mu_t = 1, \quad a_{t-1} + \mu_t (p_t - a_{t-1}) \text{ (else)} \\
        \eta_{t+1} &= \frac{\gamma_t}{(1 + \Lambda \gamma_t t)^\alpha}, \quad
        \mu_{t+1} = \frac{1}{\max(1, t - t_0)}, \quad \eta_1 = \gamma_1, \quad \mu_1 = 1

    As in torch, η is computed after its use: a scheduled rate acts one update late, and the first
    rate twice. The average is ``ax`` in the state's ``trees``; ``eta`` and ``mu`` in its ``scalars``
    are those of the next update, in the default dtype, as in torch.

    Args:
      learning_rate: γ.
      lambd: Λ, by which the parameters shrink.
      alpha: α, the power by which the rate falls.
      t0: the update after which the average a begins.
      weight_decay: λ, coupled: added to the gradient.

    Source: ``torch.optim.ASGD``, torch 2.13. Optax has none.

    >>> tx, params = asgd(0.5, lambd=0.0), jnp.ones(2)
    >>> tx.update(params, tx.init(params), params)[0].round(6)
    Array([-0.5, -0.5], dtype=float32)
    """
    initial_scalars = {"eta": 0.0, "mu": 1.0}
    return update_rule(
        _asgd_leaf,
        _asgd_scalars,
        locals(),
        trees=["ax"],
        initial_scalars=initial_scalars,
        reads_params="asgd",
    )


def _asgd_scalars(
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


def _asgd_leaf(c: Scalars, g: jax.Array, p: jax.Array, old: Leaves) -> Any:
    added = scaling_update(p, c["shrink_by_lambd"]) + c["step"] * g
    moved = p + added
    averaged = jnp.where(c["weight"] != 1, old["ax"] + (moved - old["ax"]) * c["weight"], moved)
    return added, {"ax": averaged}


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
    r"""Rprop: resilient backpropagation, as torch computes it.

    .. math::
        s_t &= \operatorname{clip}(s_{t-1} f, s_{\min}, s_{\max}), \quad
        f = \eta_+, \eta_-, 1 \text{ where } g_t h_{t-1} > 0, < 0, = 0, \quad s_0 = \gamma_1 \\
        h_t &= 0 \text{ where } g_t h_{t-1} < 0, \quad g_t \text{ (else)} \\
        p_t &= p_{t-1} - \operatorname{sign}(h_t) s_t

    Args:
      learning_rate: γ, the first step size. torch reads it at the first update only, so later values
        of a schedule have no effect.
      eta_minus: η₋, above 0 and below 1: torch's ``etas[0]``.
      eta_plus: η₊, above 1: torch's ``etas[1]``.
      step_size_min: the least step: torch's ``step_sizes[0]``.
      step_size_max: the largest step: torch's ``step_sizes[1]``.

    Source: ``torch.optim.Rprop``, torch 2.13. ``optax.rprop`` returns the previous update if the sign
    stays the same, so that its steps come one update late; and it does not clip a step whose factor
    is 1.

    >>> tx, params = rprop(0.5), jnp.ones(2)
    >>> _, state = tx.update(params, tx.init(params))
    >>> tx.update(params, state)[0].round(6)
    Array([-0.6, -0.6], dtype=float32)
    """
    numbers = ["eta_minus", "eta_plus", "step_size_min", "step_size_max"]
    trees = ["prev", "step_size"]
    return update_rule(_rprop_leaf, _rprop_scalars, locals(), trees=trees, numbers=numbers)


def _rprop_scalars(step: Any, learning_rate: Any, **others: Any) -> dict[str, Any]:
    return {"first": step == 1, "learning_rate": learning_rate, **others}


def _rprop_leaf(c: Scalars, g: jax.Array, p: jax.Array, old: Leaves) -> Any:
    agreement = g * old["prev"]
    grow = jnp.where(agreement < 0, c["eta_minus"], 1)
    grow = jnp.where(agreement > 0, c["eta_plus"], grow)
    size = jnp.where(c["first"] > 0, c["learning_rate"], old["step_size"]) * grow
    size = jnp.clip(size, c["step_size_min"], c["step_size_max"])
    prev = jnp.where(agreement < 0, 0, g)
    # torch's sign of NaN is 0: the entry stays, and moves with the next gradient.
    sign = jnp.where(jnp.isnan(prev), 0, jnp.sign(prev))
    return -sign * size, {"prev": prev, "step_size": size}
