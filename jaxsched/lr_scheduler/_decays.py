"""Decays: curves from one rate to another, and their values past the end."""

import functools
import math
from bisect import bisect_right
from collections.abc import Iterable

import jax
import jax.numpy as jnp

from jaxsched._schedule import Hyperparameter, Schedule, as_float64
from jaxsched._validate import require, require_choice, require_count
from jaxsched.lr_scheduler._recursion import HOST, to_host, torch_schedule


def step_lr(
    base_lr: Hyperparameter,
    step_size: int | jax.Array,
    gamma: Hyperparameter = 0.1,
    *,
    steps: int | None = None,
) -> Schedule:
    r"""Multiply the rate by ``gamma`` every ``step_size`` counts.

    .. math:: s(c) = \mathrm{base\_lr} \cdot \gamma^{\lfloor c / \mathrm{step\_size} \rfloor}

    Args:
      step_size: counts between two drops, at least 1.
      gamma: the factor of a drop.

    Source: ``torch.optim.lr_scheduler.StepLR``, torch 2.13.

    >>> [float(step_lr(1.0, 2, 0.5)(c)) for c in range(5)]
    [1.0, 1.0, 0.5, 0.5, 0.25]
    """
    require_count("step_size", step_size, at_least=1)
    return torch_schedule(
        step_lr,
        locals(),
        (step_size, gamma),
        lambda count, base_lr, size, gamma: base_lr * gamma ** (count // size),
        lambda now, size, gamma: now.lr if now.epoch == 0 or now.epoch % size else now.lr * gamma,
        restart=lambda base_lr, size, gamma: base_lr,
    )


def multi_step_lr(
    base_lr: Hyperparameter,
    milestones: Iterable[int] | jax.Array,
    gamma: Hyperparameter = 0.1,
    *,
    steps: int | None = None,
) -> Schedule:
    r"""Multiply the rate by ``gamma`` at each milestone.

    .. math:: s(c) = \mathrm{base\_lr} \cdot \gamma^{|\{m : m \le c\}|}

    Args:
      milestones: the counts of the drops, in any order; a duplicate drops twice.
      gamma: the factor of a drop.

    Source: ``torch.optim.lr_scheduler.MultiStepLR``, torch 2.13.

    >>> [float(multi_step_lr(1.0, [1, 3, 3], 0.5)(c)) for c in range(5)]
    [1.0, 0.5, 0.5, 0.125, 0.125]
    """
    if isinstance(milestones, Iterable) and not isinstance(milestones, jax.Array):
        milestones = list(milestones)  # an iterator can be read only once
    require(
        "milestones",
        milestones,
        "integers of at least 0",
        lambda values: all(int(m) == m and m >= 0 for m in values),
    )
    if not isinstance(milestones, jax.Array):
        milestones = [int(m) for m in milestones]
    sorted_milestones = functools.cache(lambda: sorted(to_host(milestones)))

    def closed_form(count, base_lr, gamma):
        reached = count[..., None] >= as_float64(milestones)
        return base_lr * gamma ** jnp.sum(reached, axis=-1, dtype=float)

    def rule(now, gamma):
        drops = sorted_milestones().count(now.epoch)
        return now.lr * gamma**drops if drops else now.lr

    def restart(base_lr, gamma):
        return base_lr * gamma ** bisect_right(sorted_milestones(), 0)

    return torch_schedule(multi_step_lr, locals(), (gamma,), closed_form, rule, restart=restart)


def constant_lr(
    base_lr: Hyperparameter,
    factor: Hyperparameter = 1.0 / 3,
    total_iters: int | jax.Array = 5,
    *,
    steps: int | None = None,
) -> Schedule:
    r"""A smaller rate until ``total_iters``, then the base rate.

    .. math:: s(c) = \mathrm{base\_lr} \cdot \mathrm{factor} \text{ if } c < \mathrm{total\_iters},
              \text{ else } \mathrm{base\_lr}

    Args:
      factor: above 0, since torch divides by it later, and at most 1.
      total_iters: the count at which the factor ends; with 0 it never does, as in torch.

    Source: ``torch.optim.lr_scheduler.ConstantLR``, torch 2.13.

    >>> [float(constant_lr(1.0, 0.5, 2)(c)) for c in range(4)]
    [0.5, 0.5, 1.0, 1.0]
    """
    require(
        "factor", factor, "a number above 0 and at most 1, to be divided by", lambda v: 0 < v <= 1
    )
    require_count("total_iters", total_iters)

    def closed_form(count, base_lr, factor, total):
        low = base_lr * factor
        return jnp.where((count >= total) & (total > 0), low * (1.0 / factor), low)

    def rule(now, factor, total):
        if now.epoch == 0:
            return now.lr * factor
        return now.lr * (1.0 / factor) if now.epoch == total else now.lr

    return torch_schedule(
        constant_lr,
        locals(),
        (factor, total_iters),
        closed_form,
        rule,
        restart=lambda base_lr, factor, total: base_lr * (factor + (total <= 0) * (1 - factor)),
    )


def linear_lr(
    base_lr: Hyperparameter,
    start_factor: Hyperparameter = 1.0 / 3,
    end_factor: Hyperparameter = 1.0,
    total_iters: int | jax.Array = 5,
    *,
    steps: int | None = None,
) -> Schedule:
    r"""Linear factor from ``start_factor`` to ``end_factor``.

    .. math:: s(c) = \mathrm{base\_lr} \left(f_0 + (f_1 - f_0)
              \frac{\min(c, T)}{T}\right)

    Args:
      start_factor: the factor f₀ at 0, above 0 and at most 1.
      end_factor: the factor f₁ from ``total_iters`` on, within 0 and 1.
      total_iters: the length T; with 0 the factor stays at f₀, as in torch.

    Source: ``torch.optim.lr_scheduler.LinearLR``, torch 2.13.

    >>> [float(linear_lr(1.0, 0.5, 1.0, 4)(c)) for c in range(6)]
    [0.5, 0.625, 0.75, 0.875, 1.0, 1.0]
    """
    require("start_factor", start_factor, "above 0 and at most 1", lambda v: 0 < v <= 1)
    require("end_factor", end_factor, "within 0 and 1", lambda v: 0 <= v <= 1)
    require_count("total_iters", total_iters)

    def closed_form(count, base_lr, start, end, total):
        return base_lr * (start + (end - start) * _progress(count, total))

    def rule(now, start, end, total):
        if now.epoch == 0:
            return now.lr * start
        if now.initial or now.epoch > total:
            return now.lr
        return now.lr * (1.0 + (end - start) / (total * start + (now.epoch - 1) * (end - start)))

    return torch_schedule(
        linear_lr,
        locals(),
        (start_factor, end_factor, total_iters),
        closed_form,
        rule,
        restart=lambda base_lr, start, end, total: base_lr * (start + _progress_at_restart(total)),
    )


def exponential_lr(
    base_lr: Hyperparameter, gamma: Hyperparameter, *, steps: int | None = None
) -> Schedule:
    r"""Multiply the rate by ``gamma`` at every count.

    .. math:: s(c) = \mathrm{base\_lr} \cdot \gamma^c

    Args:
      gamma: the factor of a count.

    Source: ``torch.optim.lr_scheduler.ExponentialLR``, torch 2.13.

    >>> [float(exponential_lr(1.0, 0.5)(c)) for c in range(4)]
    [1.0, 0.5, 0.25, 0.125]
    """
    return torch_schedule(
        exponential_lr,
        locals(),
        (gamma,),
        lambda count, base_lr, gamma: base_lr * gamma**count,
        lambda now, gamma: now.lr if now.initial else now.lr * gamma,
        restart=lambda base_lr, gamma: base_lr,
    )


def polynomial_lr(
    base_lr: Hyperparameter,
    total_iters: int | jax.Array = 5,
    power: Hyperparameter = 1.0,
    *,
    steps: int | None = None,
) -> Schedule:
    r"""A power of the remaining share of the run, down to 0.

    .. math:: s(c) = \mathrm{base\_lr} \left(1 - \frac{\min(c, T)}{T}\right)^{\mathrm{power}}

    Args:
      total_iters: the length T, after which the rate is 0; with 0 it stays at ``base_lr``.
      power: at least 0; torch divides by zero at T if it is negative.

    Source: ``torch.optim.lr_scheduler.PolynomialLR``, torch 2.13.

    >>> [float(polynomial_lr(1.0, 4, 2.0)(c)) for c in range(6)]
    [1.0, 0.5625, 0.25, 0.0625, 0.0, 0.0]
    """
    require("power", power, "at least 0, as 0 is raised to it", lambda v: v >= 0)
    require_count("total_iters", total_iters)

    def closed_form(count, base_lr, total, power):
        return base_lr * (1.0 - _progress(count, total)) ** power

    def rule(now, total, power):
        if now.initial or now.epoch > total:
            return now.lr
        left = (1.0 - now.epoch / total) / (1.0 - (now.epoch - 1) / total)
        return now.lr * left**power

    return torch_schedule(
        polynomial_lr,
        locals(),
        (total_iters, power),
        closed_form,
        rule,
        restart=lambda base_lr, total, power: (
            base_lr * (1.0 - _progress_at_restart(total)) ** power
        ),
    )


def cosine_annealing_lr(
    base_lr: Hyperparameter,
    T_max: int | jax.Array,
    eta_min: Hyperparameter = 0.0,
    *,
    steps: int | None = None,
) -> Schedule:
    r"""Cosine from ``base_lr`` to ``eta_min`` and back.

    .. math:: s(c) = \eta_{\min} + (\mathrm{base\_lr} - \eta_{\min})
              \frac{1 + \cos(\pi c / T_{\max})}{2}

    Args:
      T_max: half the period, above 0.
      eta_min: the lowest rate, at ``T_max``.

    Source: ``torch.optim.lr_scheduler.CosineAnnealingLR``, torch 2.13.

    >>> [round(float(cosine_annealing_lr(1.0, 2)(c)), 6) for c in range(5)]
    [1.0, 0.5, 0.0, 0.5, 1.0]
    """
    require("T_max", T_max, "a number above 0, to be divided by", lambda v: v > 0)

    def closed_form(count, base_lr, T_max, eta_min):
        return eta_min + (base_lr - eta_min) * (1 + jnp.cos(math.pi * count / T_max)) / 2

    def rule(now, T_max, eta_min):
        if now.initial:
            return now.lr
        if (now.epoch - 1 - T_max) % (2 * T_max) == 0:  # at the minimum the quotient is 0 / 0
            return now.lr + (now.base_lr - eta_min) * (1 - math.cos(math.pi / T_max)) / 2
        before = 1 + math.cos(math.pi * (now.epoch - 1) / T_max)
        if before == 0:
            raise ValueError(
                f"T_max must be an integer, or such that no count is at the lowest rate, got {T_max!r}: "
                f"torch divides by zero after count {now.epoch - 1}. Or leave steps out."
            )
        quotient = (1 + math.cos(math.pi * now.epoch / T_max)) / before
        return quotient * (now.lr - eta_min) + eta_min

    return torch_schedule(
        cosine_annealing_lr,
        locals(),
        (T_max, eta_min),
        closed_form,
        rule,
        restart=lambda base_lr, T_max, eta_min: eta_min + (base_lr - eta_min) * 2.0 / 2,
    )


def swa_lr(
    base_lr: Hyperparameter,
    swa_lr: Hyperparameter,
    anneal_epochs: int | jax.Array = 10,
    anneal_strategy: str = "cos",
    *,
    steps: int | None = None,
) -> Schedule:
    r"""Anneal from the group's rate to the constant rate of stochastic weight averaging.

    .. math:: s(c) = \mathrm{swa\_lr} \cdot \alpha + \mathrm{base\_lr} (1 - \alpha),\quad
              t = \frac{\min(c, E)}{E},\quad
              \alpha = \frac{1 - \cos(\pi t)}{2} \text{ or } t

    Args:
      base_lr: the group's rate when the averaging begins.
      swa_lr: the rate from ``anneal_epochs`` on.
      anneal_epochs: the length E, at least 0; with 0 the rate is ``swa_lr`` from the start.
      anneal_strategy: ``"cos"`` or ``"linear"``, α as above.

    Source: ``torch.optim.swa_utils.SWALR``, torch 2.13.

    >>> [float(swa_lr(1.0, 0.5, 2, "linear")(c)) for c in range(4)]
    [1.0, 0.75, 0.5, 0.5]
    """
    require_choice("anneal_strategy", anneal_strategy, ("cos", "linear"))
    require_count("anneal_epochs", anneal_epochs)

    def alpha(xp, t):
        return t if anneal_strategy == "linear" else (1 - xp.cos(math.pi * t)) / 2

    def closed_form(count, base_lr, swa_lr, epochs):
        started = jnp.where(epochs == 0, count + 1, count)
        weight = alpha(jnp, _progress(started, jnp.maximum(epochs, 1)))
        return swa_lr * weight + base_lr * (1 - weight)

    def rule(now, _, epochs):
        swa_lr = now.group["swa_lr"]  # another SWALR of the group may have written it
        step = now.calls - 1 if epochs else max(1, now.calls - 1)
        before, after = (alpha(HOST, max(0, min(1, k / max(1, epochs)))) for k in (step - 1, step))
        start = swa_lr if before == 1 else (now.lr - before * swa_lr) / (1 - before)
        return swa_lr * after + start * (1 - after)

    return torch_schedule(
        _FACTORY,
        locals(),
        (swa_lr, anneal_epochs),
        closed_form,
        rule,
        prepare=lambda group, swa_lr, epochs: group.update(swa_lr=swa_lr),
    )


_FACTORY = swa_lr  # inside the function, an argument has its name


def _progress(count: jax.Array, total: Hyperparameter) -> jax.Array:
    """Return the share of ``total`` counts that is done, from 0 to 1; 0 if ``total`` is 0.

    The end is selected, not computed: XLA divides by a constant by multiplying by its reciprocal,
    which may exceed 1, and a power of the remaining share would be one of a negative number.
    """
    return jnp.where(count < total, count / jnp.maximum(total, 1), jnp.minimum(total, 1))


def _progress_at_restart(total: int) -> float:
    """Return the progress at a milestone of ``sequential_lr``, 0; refuse a length of 0."""
    if total == 0:
        raise ValueError(
            "total_iters must be at least 1 after a milestone, where torch divides by it, got 0."
        )
    return 0.0
