"""torch.optim.Adafactor. Its count is that of its updates; 0 is the first."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxsched._schedule import Hyperparameter, ScheduleLike
from jaxsched.optimizers._rule import Leaves, Scalars, lerp, update_rule
from jaxsched.optimizers._scheduled import schedulable


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

    A parameter of one axis or none keeps v itself, as an average of g². The last
    two axes are factored: in a convolution's kernel those are height and width
    for torch, inputs and outputs for Flax. What a parameter does not keep is one
    entry of 0 in the state.

    Args:
      learning_rate: γ, the most that the relative step can be.
      beta2_decay: δ, at most 0.
      eps1: ε₁; None is the spacing at 1 of the dtype of the arithmetic.
      eps2: ε₂, the least scale of a parameter.
      d: d, the root mean square at which an update is clipped, at least 1.
      weight_decay: λ, decoupled.

    Source: ``torch.optim.Adafactor``, torch 2.13. ``optax.adafactor`` factors the
    two largest axes, those of 128 and above only, adds ε to g², and does not
    bound the rate by :math:`1 / \sqrt t`.

    >>> tx, params = adafactor(0.5), jnp.ones(2)
    >>> tx.update(params, tx.init(params), params)[0].round(6)
    Array([-0.5, -0.5], dtype=float32)
    """
    return update_rule(
        _leaf,
        _scalars,
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


def _scalars(
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
    """Zeros for the mean over an axis; one entry, which is not used, for what is not factored."""
    return jnp.zeros_like(norm(p, axis)) if p.ndim > 1 else jnp.zeros(1, p.dtype)


def norm(x: jax.Array, axis: int | None = None) -> jax.Array:
    """Euclidean norm over an axis, which stays with length 1, or over all."""
    return jnp.sqrt(jnp.sum(x * x, axis, keepdims=axis is not None))


def rms(x: jax.Array) -> jax.Array:
    """Root mean square."""
    return norm(x) / x.size**0.5


def _leaf(c: Scalars, g: jax.Array, p: jax.Array, old: Leaves, *, least_of_dtype: bool) -> Any:
    least, after = jnp.finfo(g.dtype).eps if least_of_dtype else c["eps1"], dict(old)
    if p.ndim < 2:
        after["variance"] = v = lerp(old["variance"], g * g, c["weight"])
    else:
        rows, columns = (norm(g, axis) ** 2 / g.shape[axis] for axis in (-1, -2))
        after["row_var"] = rows = lerp(old["row_var"], rows, c["weight"])
        after["col_var"] = columns = lerp(old["col_var"], columns, c["weight"])
        v = rows * columns / jnp.maximum(rows.mean(-2, keepdims=True), least)
    u = jax.lax.rsqrt(jnp.maximum(v, least * least)) * g
    # Python's max, which torch takes, keeps the first of the two beside a NaN: one entry
    # that is not a number leaves the others of a vector alone.
    scale, clip = rms(p), rms(u) / c["d"]
    step = jnp.where(scale > c["eps2"], scale, c["eps2"]) * c["relative_step"]
    return -step / jnp.where(clip > 1, clip, 1) * u, after
