"""torch.optim.Adagrad, Adadelta and RMSprop: divided by a root of squares.

Their count is that of their updates; 0 is the first.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxsched._schedule import Hyperparameter, ScheduleLike
from jaxsched._validate import is_zero, require_nonnegative
from jaxsched.optimizers._rule import Leaves, Scalars, lerp, mean_of_squares, update_rule
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
      initial_accumulator_value: τ, a number, read once, when the state is made. A group's own in a
        recipe; torch takes that of its constructor for all groups.
      eps: ε, outside the root.

    Source: ``torch.optim.Adagrad``, torch 2.13. ``optax.adagrad`` has ε under the
    root, starts from τ = 0.1 and has no ``lr_decay``.

    >>> tx, params = adagrad(0.5), jnp.ones(2)
    >>> tx.update(params, tx.init(params), params)[0].round(6)
    Array([-0.5, -0.5], dtype=float32)
    """
    require_nonnegative(initial_accumulator_value=initial_accumulator_value)
    trees = {"sum": lambda p: jnp.full_like(p, initial_accumulator_value)}
    return update_rule(_adagrad_leaf, _adagrad_scalars, locals(), trees=trees)


def _adagrad_scalars(step: Any, learning_rate: Any, lr_decay: Any, eps: Any) -> dict[str, Any]:
    return {"step": -(learning_rate / (1 + (step - 1) * lr_decay)), "eps": eps}


def _adagrad_leaf(c: Scalars, g: jax.Array, p: jax.Array, old: Leaves) -> Any:
    sum = old["sum"] + g * g
    return c["step"] * g / (jnp.sqrt(sum) + c["eps"]), {"sum": sum}


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

    Source: ``torch.optim.Adadelta``, torch 2.13. ``optax.adadelta`` has the
    formula, but once ρ is a schedule its 1 - ρ is float32: at ρ = 0.999 both averages,
    which are torch's state, are off by 1.3e-5 of them and the first updates by 7e-6.
    ``maximize`` is another transformation there.

    >>> tx, params = adadelta(1.0, eps=0.0625, rho=0.0), jnp.ones(2)
    >>> tx.update(params, tx.init(params), params)[0].round(6)
    Array([-0.242536, -0.242536], dtype=float32)
    """
    return update_rule(
        _adadelta_leaf, _adadelta_scalars, locals(), trees=["square_avg", "acc_delta"]
    )


def _adadelta_scalars(step: Any, learning_rate: Any, rho: Any, eps: Any) -> dict[str, Any]:
    return {"step": -learning_rate, "keep": rho, "add": 1 - rho, "eps": eps}


def _adadelta_leaf(c: Scalars, g: jax.Array, p: jax.Array, old: Leaves) -> Any:
    v = mean_of_squares(old["square_avg"], g, c["keep"], c["add"])
    delta = jnp.sqrt(old["acc_delta"] + c["eps"]) / jnp.sqrt(v + c["eps"]) * g
    u = mean_of_squares(old["acc_delta"], delta, c["keep"], c["add"])
    return c["step"] * delta, {"square_avg": v, "acc_delta": u}


@schedulable
def rmsprop(
    learning_rate: Hyperparameter | ScheduleLike,
    *,
    alpha: Hyperparameter | ScheduleLike = 0.99,
    eps: Hyperparameter | ScheduleLike = 1e-8,
    weight_decay: Hyperparameter | ScheduleLike = 0.0,
    momentum: Hyperparameter | ScheduleLike = 0.0,
    centered: bool = False,
    maximize: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""RMSprop with torch's order of operations.

    .. math::
        d_t &= g_t + \lambda p_{t-1}, \quad
        v_t = \alpha v_{t-1} + (1 - \alpha) d_t^2 \\
        a_t &= a_{t-1} + (1 - \alpha) (d_t - a_{t-1}), \quad
        r_t = \sqrt{v_t - a_t^2} \text{ (centered)}, \quad \sqrt{v_t} \text{ (else)} \\
        b_t &= \mu b_{t-1} + d_t / (r_t + \epsilon) \\
        p_t &= p_{t-1} - \gamma b_t, \quad
               \text{with } d_t / (r_t + \epsilon) \text{ for } b_t \text{ if } \mu = 0

    Args:
      learning_rate: γ, outside the buffer.
      alpha: α.
      eps: ε, outside the root.
      weight_decay: λ, coupled: it goes through the averages.
      momentum: μ. At an update where it is 0 the buffer is left as it is. Where it is 0 at the first
        update and not at a later one, the buffer starts from zeros; torch has none then, and fails.
      centered: divides by the deviation, not by the root mean square.

    Source: ``torch.optim.RMSprop``, torch 2.13. ``optax.rmsprop`` keeps the rate
    inside its buffer, so that a moving rate acts late; if not told otherwise it
    adds ε under the root (google-deepmind/optax#532) and decays by 0.9.

    >>> tx, params = rmsprop(0.5, alpha=0.75), jnp.ones(2)
    >>> tx.update(params, tx.init(params), params)[0].round(6)
    Array([-1., -1.], dtype=float32)
    """
    averages = ["square_avg", "grad_avg"] if centered else ["square_avg"]
    buffers = [] if is_zero(momentum) else ["momentum_buffer"]
    return update_rule(_rmsprop_leaf, _rmsprop_scalars, locals(), trees=averages + buffers)


def _rmsprop_scalars(
    step: Any, learning_rate: Any, alpha: Any, eps: Any, momentum: Any
) -> dict[str, Any]:
    constants = {"eps": eps, "momentum": momentum}
    return {"step": -learning_rate, "keep": alpha, "add": 1 - alpha, **constants}


def _rmsprop_leaf(c: Scalars, g: jax.Array, p: jax.Array, old: Leaves) -> Any:
    square = mean_of_squares(old["square_avg"], g, c["keep"], c["add"])
    after = {"square_avg": square}
    if "grad_avg" in old:
        after["grad_avg"] = a = lerp(old["grad_avg"], g, c["add"])
        square = square - a * a
    scaled = g / (jnp.sqrt(square) + c["eps"])
    if "momentum_buffer" not in old:
        return c["step"] * scaled, after
    b, moves = old["momentum_buffer"], c["momentum"] > 0
    after["momentum_buffer"] = b = jnp.where(moves, b * c["momentum"] + scaled, b)
    return c["step"] * jnp.where(moves, b, scaled), after
