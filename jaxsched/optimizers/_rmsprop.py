"""torch.optim.RMSprop. Its count is that of its updates; 0 is the first."""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxsched._schedule import Hyperparameter, ScheduleLike
from jaxsched._validate import is_zero, require_eps, require_rule_arguments
from jaxsched.optimizers._rule import lerp, mean_of_squares, update_rule
from jaxsched.optimizers._scheduled import schedulable


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
      momentum: μ. At an update where it is 0 the buffer is left as it is.
      centered: divides by the deviation, not by the root mean square.
      maximize: ascends, with -g for g.

    Returns:
      A transformation; every number may be a schedule of the updates made. torch
      has no buffer, and fails, where the first update's momentum is 0 and a
      later one's is not; here the buffer then starts from zeros.

    Raises:
      ValueError: a number out of its range; weight decay without ``params``.

    Source: ``torch.optim.RMSprop``, torch 2.13. ``optax.rmsprop`` keeps the rate
    inside its buffer, so that a moving rate acts late; if not told otherwise it
    adds ε under the root (google-deepmind/optax#532) and decays by 0.9.

    >>> tx = rmsprop(0.5, alpha=0.75)
    >>> params = jnp.ones(2)
    >>> updates, state = tx.update(params, tx.init(params), params)
    >>> [round(float(u), 6) for u in updates]
    [-1.0, -1.0]
    """
    require_rule_arguments(
        learning_rate=learning_rate,
        alpha=alpha,
        eps=eps,
        weight_decay=weight_decay,
        momentum=momentum,
    )
    require_eps(eps)

    def scalars(
        step: Any, learning_rate: Any, alpha: Any, eps: Any, momentum: Any
    ) -> dict[str, Any]:
        return {
            "step": -learning_rate,
            "keep": alpha,
            "add": 1 - alpha,
            "eps": eps,
            "momentum": momentum,
        }

    kept = {"grad_avg": centered, "momentum_buffer": not is_zero(momentum)}
    return update_rule(
        _leaf,
        scalars,
        numbers={
            "learning_rate": learning_rate,
            "alpha": alpha,
            "eps": eps,
            "momentum": momentum,
        },
        trees=dict.fromkeys(
            ["square_avg", *(n for n, is_kept in kept.items() if is_kept)], jnp.zeros_like
        ),
        weight_decay=weight_decay,
        maximize=maximize,
    )


def _leaf(
    c: Any,
    g: jax.Array,
    p: jax.Array,
    square_avg: jax.Array,
    grad_avg: jax.Array | None = None,
    momentum_buffer: jax.Array | None = None,
) -> Any:
    after = {"square_avg": mean_of_squares(square_avg, g, c["keep"], c["add"])}
    square = after["square_avg"]
    if grad_avg is not None:
        after["grad_avg"] = a = lerp(grad_avg, g, c["add"])
        square = square - a * a
    scaled = g / (jnp.sqrt(square) + c["eps"])
    if momentum_buffer is None:
        return c["step"] * scaled, after
    moves = c["momentum"] > 0
    b = jnp.where(moves, momentum_buffer * c["momentum"] + scaled, momentum_buffer)
    after["momentum_buffer"] = b
    return c["step"] * jnp.where(moves, b, scaled), after
