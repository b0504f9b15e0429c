"""torch.optim.Adagrad, Adadelta, RMSprop and Adafactor: gradients divided by a root of squares.

They count updates; 0 is the first.
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
      weight_decay: λ, coupled: included in the sum.
      initial_accumulator_value: τ, a number, read once, by ``init``. In a recipe each group may have
        its own; torch takes that of its constructor for all groups.
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
      weight_decay: λ, coupled: included in the averages.

    Source: ``torch.optim.Adadelta``, torch 2.13. ``optax.adadelta`` has the same formula, but if ρ is
    a schedule its 1 - ρ is float32: at ρ = 0.999 both averages have a relative error of 1.3e-5, and
    the first updates one of 7e-6. ``maximize`` is another transformation there.

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
      weight_decay: λ, coupled: included in the averages.
      momentum: μ. An update with momentum 0 leaves the buffer unchanged. If it is 0 at the first
        update and not at a later one, the buffer starts from zeros; torch fails then.
      centered: divides by the standard deviation instead of the root mean square.

    Source: ``torch.optim.RMSprop``, torch 2.13. ``optax.rmsprop`` multiplies by the rate before its
    buffer, so that a change of the rate acts late; by default it adds ε under the root
    (google-deepmind/optax#532) and α is 0.9.

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


@schedulable
def adafactor(
    learning_rate: Hyperparameter | ScheduleLike,
    *,
    beta2_decay: Hyperparameter | ScheduleLike = -0.8,
    eps1: Hyperparameter | ScheduleLike | None = None,
    eps2: Hyperparameter | ScheduleLike = 1e-3,
    d: Hyperparameter | ScheduleLike = 1.0,
    weight_decay: Hyperparameter | ScheduleLike = 0.0,
    maximize: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Adafactor as torch computes it.

    .. math::
        w_t &= t^\delta, \quad
        \alpha_t = \max(\epsilon_2, \operatorname{rms}(p_{t-1})) \min(\gamma, 1 / \sqrt t) \\
        R_t &= R_{t-1} + w_t (\operatorname{mean}_{-1}(g_t^2) - R_{t-1}), \quad
        C_t = C_{t-1} + w_t (\operatorname{mean}_{-2}(g_t^2) - C_{t-1}) \\
        v_t &= \frac{R_t C_t}{\max(\operatorname{mean}(R_t), \epsilon_1)}, \quad
        u_t = \frac{g_t}{\sqrt{\max(v_t, \epsilon_1^2)}} \\
        p_t &= (1 - \gamma \lambda) p_{t-1} - \alpha_t \frac{u_t}{\max(1, \operatorname{rms}(u_t) / d)}

    For a parameter of at most one dimension, v is an average of g². Otherwise the last two dimensions
    are factored: of a convolution's kernel, height and width in torch, inputs and outputs in Flax.
    Parts of the state that a parameter does not need are one entry of 0.

    Args:
      learning_rate: γ, the largest relative step.
      beta2_decay: δ, at most 0.
      eps1: ε₁; None is the spacing at 1 of the dtype of the arithmetic.
      eps2: ε₂, the smallest scale of a parameter.
      d: d, the root mean square at which an update is clipped, at least 1.
      weight_decay: λ, decoupled.

    Source: ``torch.optim.Adafactor``, torch 2.13. ``optax.adafactor`` factors the two largest
    dimensions, if both are at least 128, adds ε to g², and does not limit the rate by
    :math:`1 / \sqrt t`.

    >>> tx, params = adafactor(0.5), jnp.ones(2)
    >>> tx.update(params, tx.init(params), params)[0].round(6)
    Array([-0.5, -0.5], dtype=float32)
    """
    return update_rule(
        _adafactor_leaf,
        _adafactor_scalars,
        {**locals(), "eps1": 0.0 if eps1 is None else eps1},
        trees={
            "row_var": lambda p: factor(p, -1),
            "col_var": lambda p: factor(p, -2),
            "variance": lambda p: jnp.zeros(1, p.dtype) if p.ndim > 1 else jnp.zeros_like(p),
        },
        decoupled_weight_decay=True,
        switches={"least_of_dtype": eps1 is None},
        reads_params="adafactor",
    )


def _adafactor_scalars(
    step: Any, learning_rate: Any, beta2_decay: Any, eps1: Any, eps2: Any, d: Any
) -> dict[str, Any]:
    return {
        "weight": step**beta2_decay,
        "relative_step": jnp.minimum(learning_rate, 1 / jnp.sqrt(step)),
        "eps1": eps1,
        "eps2": eps2,
        "d": d,
    }


def factor(p: jax.Array, axis: int) -> jax.Array:
    """Return zeros for the mean over an axis; one unused entry for a parameter not factored."""
    return jnp.zeros_like(norm(p, axis)) if p.ndim > 1 else jnp.zeros(1, p.dtype)


def norm(x: jax.Array, axis: int | None = None) -> jax.Array:
    """Euclidean norm over an axis, which is kept with length 1, or over all."""
    return jnp.sqrt(jnp.sum(x * x, axis, keepdims=axis is not None))


def rms(x: jax.Array) -> jax.Array:
    """Root mean square."""
    return norm(x) / x.size**0.5


def _adafactor_leaf(
    c: Scalars, g: jax.Array, p: jax.Array, old: Leaves, *, least_of_dtype: bool
) -> Any:
    least, after = jnp.finfo(g.dtype).eps if least_of_dtype else c["eps1"], dict(old)
    if p.ndim < 2:
        after["variance"] = v = lerp(old["variance"], g * g, c["weight"])
    else:
        rows, columns = (norm(g, axis) ** 2 / g.shape[axis] for axis in (-1, -2))
        after["row_var"] = rows = lerp(old["row_var"], rows, c["weight"])
        after["col_var"] = columns = lerp(old["col_var"], columns, c["weight"])
        v = rows * columns / jnp.maximum(rows.mean(-2, keepdims=True), least)
    u = jax.lax.rsqrt(jnp.maximum(v, least * least)) * g
    # torch calls Python's max, which returns the first argument if one is NaN, so that a NaN entry
    # does not affect the other entries of a vector.
    scale, clip = rms(p), rms(u) / c["d"]
    step = jnp.where(scale > c["eps2"], scale, c["eps2"]) * c["relative_step"]
    return -step / jnp.where(clip > 1, clip, 1) * u, after
