"""torch.optim.Adam, AdamW, NAdam, RAdam and Adamax: averages of gradients and of their squares.

They count updates; 0 is the first.
"""

from typing import Any

import jax
import jax.numpy as jnp
import optax

from jaxsched._schedule import Hyperparameter, ScheduleLike
from jaxsched.optimizers._rule import Leaves, Scalars, lerp, mean_of_squares, update_rule
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

    If β is a schedule, the bias correction uses its current value, as in torch.

    Args:
      learning_rate: γ.
      b1: β₁, at least 0 and below 1.
      b2: β₂, at least 0 and below 1.
      eps: ε, outside the root.
      weight_decay: λ, coupled: included in the moments.
      amsgrad: divides by the largest second moment so far.

    Source: ``torch.optim.Adam``, torch 2.13. ``optax.adam`` computes the bias corrections in float32,
    and 1 - β too if β is a schedule; it has no weight decay. ``optax.amsgrad`` corrects the bias
    before it takes the maximum (google-deepmind/optax#1389).

    >>> tx, params = adam(0.5), jnp.ones(2)
    >>> tx.update(params, tx.init(params), params)[0].round(6)
    Array([-0.5, -0.5], dtype=float32)
    """
    trees = ["exp_avg", "exp_avg_sq", *(["max_exp_avg_sq"] if amsgrad else [])]
    return update_rule(_adam_leaf, _adam_scalars, locals(), trees=trees)


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
    r"""Adam with decoupled weight decay.

    .. math::
        m_t &= m_{t-1} + (1 - \beta_1) (g_t - m_{t-1}) \\
        v_t &= \beta_2 v_{t-1} + (1 - \beta_2) g_t^2, \quad
        \hat v_t = \max(\hat v_{t-1}, v_t) \text{ (AMSGrad)}, \quad v_t \text{ (else)} \\
        p_t &= (1 - \gamma \lambda) p_{t-1} - \frac{\gamma}{1 - \beta_1^t} \cdot
               \frac{m_t}{\sqrt{\hat v_t} / \sqrt{1 - \beta_2^t} + \epsilon}

    Args:
      learning_rate: γ.
      b1: β₁, at least 0 and below 1.
      b2: β₂, at least 0 and below 1.
      eps: ε, outside the root.
      weight_decay: λ, decoupled: it acts on the parameter alone.
      amsgrad: divides by the largest second moment so far.

    Source: ``torch.optim.AdamW``, torch 2.13. The default λ is 1e-4 in ``optax.adamw`` and 1e-2 in
    torch; ``optax.adamw`` also has the differences of ``optax.adam``.

    >>> tx, params = adamw(0.5, weight_decay=0.5), jnp.ones(2)
    >>> tx.update(params, tx.init(params), params)[0].round(6)
    Array([-0.75, -0.75], dtype=float32)
    """
    return adam(**locals(), decoupled_weight_decay=True)


def _adam_scalars(step: Any, learning_rate: Any, b1: Any, b2: Any, eps: Any) -> dict[str, Any]:
    return {
        "weight": 1 - b1,
        "keep": b2,
        "add": 1 - b2,
        "root": jnp.sqrt(1 - b2**step),
        "eps": eps,
        "step": -(learning_rate / (1 - b1**step)),
    }


def _moments(c: Scalars, g: jax.Array, old: Leaves) -> tuple[jax.Array, jax.Array]:
    m = lerp(old["exp_avg"], g, c["weight"])
    return m, mean_of_squares(old["exp_avg_sq"], g, c["keep"], c["add"])


def _adam_leaf(c: Scalars, g: jax.Array, p: jax.Array, old: Leaves) -> Any:
    m, v = _moments(c, g, old)
    largest = jnp.maximum(old["max_exp_avg_sq"], v) if "max_exp_avg_sq" in old else v
    added = c["step"] * m / (jnp.sqrt(largest) / c["root"] + c["eps"])
    return added, {"exp_avg": m, "exp_avg_sq": v, "max_exp_avg_sq": largest}


@schedulable
def nadam(
    learning_rate: Hyperparameter | ScheduleLike,
    *,
    b1: Hyperparameter | ScheduleLike = 0.9,
    b2: Hyperparameter | ScheduleLike = 0.999,
    eps: Hyperparameter | ScheduleLike = 1e-8,
    weight_decay: Hyperparameter | ScheduleLike = 0.0,
    momentum_decay: Hyperparameter | ScheduleLike = 4e-3,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Adam with Nesterov's momentum, with torch's order of operations.

    .. math::
        d_t &= g_t + \lambda p_{t-1} \\
        \mu_t &= \beta_1 (1 - \tfrac{1}{2} 0.96^{t \psi}), \quad
        \Pi_t = \mu_t \Pi_{t-1}, \quad \Pi_0 = 1 \\
        m_t &= m_{t-1} + (1 - \beta_1) (d_t - m_{t-1}), \quad
        v_t = \beta_2 v_{t-1} + (1 - \beta_2) d_t^2 \\
        p_t &= p_{t-1} - \gamma \Big( \frac{1 - \mu_t}{1 - \Pi_t} d_t
               + \frac{\mu_{t+1}}{1 - \Pi_t \mu_{t+1}} m_t \Big)
               \Big/ \Big( \sqrt{v_t / (1 - \beta_2^t)} + \epsilon \Big)

    Π is ``mu_product`` in the state's ``scalars``, in the default dtype, as in torch.

    Args:
      learning_rate: γ; torch's default is 2e-3.
      b1: β₁, at least 0 and below 1.
      b2: β₂, at least 0 and below 1.
      eps: ε, outside the root.
      weight_decay: λ, coupled: included in the moments.
      momentum_decay: ψ.

    Source: ``torch.optim.NAdam``, torch 2.13. ``optax.nadam`` has no ψ: its μ is always β₁.

    >>> tx, params = nadam(0.5, b1=0.0), jnp.ones(2)
    >>> tx.update(params, tx.init(params), params)[0].round(6)
    Array([-0.5, -0.5], dtype=float32)
    """
    trees, initial_scalars = ["exp_avg", "exp_avg_sq"], {"mu_product": 1.0}
    return update_rule(
        _nadam_leaf,
        _nadam_scalars,
        locals(),
        trees=trees,
        initial_scalars=initial_scalars,
        reads_params="nadam",
    )


def _nadam_scalars(
    step: Any, learning_rate: Any, b1: Any, b2: Any, eps: Any, momentum_decay: Any, mu_product: Any
) -> dict[str, Any]:
    mu = b1 * (1.0 - 0.5 * 0.96 ** (step * momentum_decay))
    mu_next = b1 * (1.0 - 0.5 * 0.96 ** ((step + 1) * momentum_decay))
    # torch multiplies, and rounds, in the dtype of its product.
    mu_product = mu_product * mu.astype(mu_product.dtype)
    product = mu_product.astype(jnp.float64)
    return {
        "weight": 1 - b1,
        "keep": b2,
        "add": 1 - b2,
        "correction": 1 - b2**step,
        "eps": eps,
        "step_of_gradient": -learning_rate * (1.0 - mu) / (1.0 - product),
        "step_of_moment": (-learning_rate * mu_next) / (1.0 - product * mu_next),
        "mu_product": mu_product,
    }


def _nadam_leaf(c: Scalars, g: jax.Array, p: jax.Array, old: Leaves) -> Any:
    m, v = _moments(c, g, old)
    denominator = jnp.sqrt(v / c["correction"]) + c["eps"]
    # torch adds the two terms in turn, and rounds the parameter in between.
    first = p + c["step_of_gradient"] * g / denominator - p
    added = first + c["step_of_moment"] * m / denominator
    return added, {"exp_avg": m, "exp_avg_sq": v}


@schedulable
def radam(
    learning_rate: Hyperparameter | ScheduleLike,
    *,
    b1: Hyperparameter | ScheduleLike = 0.9,
    b2: Hyperparameter | ScheduleLike = 0.999,
    eps: Hyperparameter | ScheduleLike = 1e-8,
    weight_decay: Hyperparameter | ScheduleLike = 0.0,
    decoupled_weight_decay: bool = False,
    maximize: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Rectified Adam with torch's order of operations.

    .. math::
        d_t &= g_t + \lambda p_{t-1}, \quad
        m_t = m_{t-1} + (1 - \beta_1) (d_t - m_{t-1}), \quad
        v_t = \beta_2 v_{t-1} + (1 - \beta_2) d_t^2 \\
        \rho_\infty &= \frac{2}{1 - \beta_2} - 1, \quad
        \rho_t = \rho_\infty - \frac{2 t \beta_2^t}{1 - \beta_2^t} \\
        s_t &= \sqrt{\frac{(\rho_t - 4) (\rho_t - 2) \rho_\infty}
                          {(\rho_\infty - 4) (\rho_\infty - 2) \rho_t}}
               \cdot \frac{\sqrt{1 - \beta_2^t}}{\sqrt{v_t} + \epsilon}
               \text{ if } \rho_t > 5, \quad 1 \text{ (else)} \\
        p_t &= p_{t-1} - \gamma \frac{m_t}{1 - \beta_1^t} s_t

    Args:
      learning_rate: γ.
      b1: β₁, at least 0 and below 1.
      b2: β₂, at least 0 and below 1.
      eps: ε, outside the root of the uncorrected moment.
      weight_decay: λ, coupled: included in the moments.

    Source: ``torch.optim.RAdam``, torch 2.13. ``optax.radam`` adds ε to the root of the corrected
    moment, which is larger by ``1 / sqrt(1 - b2**t)``, and rectifies if ρ ≥ 5, torch if ρ > 5.

    >>> tx, params = radam(0.5), jnp.ones(2)
    >>> tx.update(params, tx.init(params), params)[0].round(6)
    Array([-0.5, -0.5], dtype=float32)
    """
    return update_rule(_radam_leaf, _radam_scalars, locals(), trees=["exp_avg", "exp_avg_sq"])


def _radam_scalars(step: Any, learning_rate: Any, b1: Any, b2: Any, eps: Any) -> dict[str, Any]:
    correction = 1 - b2**step
    limit = 2 / (1 - b2) - 1
    rho = limit - 2 * step * b2**step / correction
    rectified = rho > 5.0
    square = (rho - 4) * (rho - 2) * limit / ((limit - 4) * (limit - 2) * rho)
    return {
        "weight": 1 - b1,
        "keep": b2,
        "add": 1 - b2,
        "correction": 1 - b1**step,
        "learning_rate": learning_rate,
        "eps": eps,
        "rectified": rectified,
        "root": jnp.sqrt(correction),
        "rectification": jnp.sqrt(jnp.where(rectified, square, 1.0)),
    }


def _radam_leaf(c: Scalars, g: jax.Array, p: jax.Array, old: Leaves) -> Any:
    m, v = _moments(c, g, old)
    plain = m / c["correction"] * c["learning_rate"]
    adaptive = plain * (c["root"] / (jnp.sqrt(v) + c["eps"])) * c["rectification"]
    return -jnp.where(c["rectified"] > 0, adaptive, plain), {"exp_avg": m, "exp_avg_sq": v}


@schedulable
def adamax(
    learning_rate: Hyperparameter | ScheduleLike,
    *,
    b1: Hyperparameter | ScheduleLike = 0.9,
    b2: Hyperparameter | ScheduleLike = 0.999,
    eps: Hyperparameter | ScheduleLike = 1e-8,
    weight_decay: Hyperparameter | ScheduleLike = 0.0,
    maximize: bool = False,
) -> optax.GradientTransformationExtraArgs:
    r"""Adamax: Adam with the largest gradient for its second moment, as torch computes it.

    .. math::
        d_t &= g_t + \lambda p_{t-1}, \quad
        m_t = m_{t-1} + (1 - \beta_1) (d_t - m_{t-1}) \\
        u_t &= \max(\beta_2 u_{t-1}, |d_t| + \epsilon) \\
        p_t &= p_{t-1} - \frac{\gamma}{1 - \beta_1^t} \cdot \frac{m_t}{u_t}

    Args:
      learning_rate: γ; torch's default is 2e-3.
      b1: β₁, at least 0 and below 1.
      b2: β₂, at least 0 and below 1.
      eps: ε, inside the maximum.
      weight_decay: λ, coupled: included in the moments.

    Source: ``torch.optim.Adamax``, torch 2.13. ``optax.adamax`` has the same formula with the bias
    correction in float32, which gives its updates a relative error of 2e-5 at β₁ = 0.999; for
    bfloat16 parameters a scheduled β₁ becomes bfloat16, and near 1 divides by 0. It has no weight
    decay.

    >>> tx, params = adamax(0.5), jnp.ones(2)
    >>> tx.update(params, tx.init(params), params)[0].round(6)
    Array([-0.5, -0.5], dtype=float32)
    """
    return update_rule(_adamax_leaf, _adamax_scalars, locals(), trees=["exp_avg", "exp_inf"])


def _adamax_scalars(step: Any, learning_rate: Any, b1: Any, b2: Any, eps: Any) -> dict[str, Any]:
    return {"weight": 1 - b1, "keep": b2, "eps": eps, "step": -(learning_rate / (1 - b1**step))}


def _adamax_leaf(c: Scalars, g: jax.Array, p: jax.Array, old: Leaves) -> Any:
    m = lerp(old["exp_avg"], g, c["weight"])
    u = jnp.maximum(old["exp_inf"] * c["keep"], jnp.abs(g) + c["eps"])
    return c["step"] * m / u, {"exp_avg": m, "exp_inf": u}
