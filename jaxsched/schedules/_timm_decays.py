"""timm's schedulers without cycles as schedules: steps, milestones, warm-up-stable-decay.

Names, arguments and defaults are timm's, with ``base_lr`` in place of the optimizer.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsched._arithmetic import quotient
from jaxsched._schedule import Hyperparameter, Schedule
from jaxsched._validate import (
    require,
    require_choice,
    require_count,
    require_nonnegative,
    require_positive,
)
from jaxsched.schedules._timm_warmup import with_warmup

DECAY_POWER, DECAY_RATIO = 0.5, 0.1  # timm's defaults, which its factory does not pass on


def timm_step(
    base_lr: Hyperparameter,
    decay_t: Hyperparameter,
    decay_rate: Hyperparameter = 1.0,
    *,
    warmup_t: int = 0,
    warmup_lr_init: Hyperparameter = 0.0,
    warmup_prefix: bool = True,
) -> Schedule:
    r"""Timm's step decay: times ``decay_rate`` every ``decay_t`` counts, with a warm-up.

    .. math:: s(c) = \mathrm{base\_lr} \cdot \mathrm{decay\_rate}^{\lfloor t / \mathrm{decay\_t} \rfloor}

    with t the count, less ``warmup_t`` with ``warmup_prefix``; the warm-up is that of ``timm_cosine``.

    Args:
      base_lr: the group's rate before any schedule.
      decay_t: counts between two drops, above 0; need not be whole.
      decay_rate: the factor of a drop.
      warmup_t: counts of the warm-up.
      warmup_lr_init: where the warm-up starts.
      warmup_prefix: whether counts begin after the warm-up.

    Raises:
      ValueError: a number out of its range.

    Source: ``timm.scheduler.StepLRScheduler``, timm 1.0.31.

    >>> [float(timm_step(1.0, 2, 0.5, warmup_t=1)(c)) for c in range(5)]
    [0.0, 1.0, 1.0, 0.5, 0.5]
    """
    require_positive("decay_t", decay_t)
    require_nonnegative(decay_rate=decay_rate)

    def curve(t: Any, base_lr: Any, decay_t: Any, decay_rate: Any) -> Any:
        return base_lr * decay_rate ** (jnp.maximum(t, 0.0) // decay_t)

    return with_warmup(timm_step, locals(), curve, (decay_t, decay_rate))


def timm_multistep(
    base_lr: Hyperparameter,
    decay_t: Sequence[int],
    decay_rate: Hyperparameter = 1.0,
    *,
    warmup_t: int = 0,
    warmup_lr_init: Hyperparameter = 0.0,
    warmup_prefix: bool = True,
) -> Schedule:
    r"""Timm's milestone decay: times ``decay_rate``, one count early, with a warm-up.

    .. math:: s(c) = \mathrm{base\_lr} \cdot \mathrm{decay\_rate}^{|\{m : m \le t + 1\}|}

    with t the count, less ``warmup_t`` with ``warmup_prefix``. The drop of milestone m is at
    t = m - 1, where torch's ``MultiStepLR`` drops at m.

    Args:
      base_lr: the group's rate before any schedule.
      decay_t: the milestones, in ascending order.
      decay_rate: the factor of a drop.
      warmup_t: counts of the warm-up, which is that of ``timm_cosine``.
      warmup_lr_init: where the warm-up starts.
      warmup_prefix: whether counts begin after the warm-up.

    Raises:
      ValueError: a number out of its range, milestones in another order.

    Source: ``timm.scheduler.MultiStepLRScheduler``, timm 1.0.31.

    >>> [float(timm_multistep(1.0, [2, 4], 0.5)(c)) for c in range(5)]
    [1.0, 0.5, 0.5, 0.25, 0.25]
    """
    require_milestones("decay_t", decay_t)
    require_nonnegative(decay_rate=decay_rate)
    milestones = np.asarray(decay_t, np.float64)

    def curve(t: Any, base_lr: Any, decay_rate: Any) -> Any:
        reached = jnp.sum(t[..., None] + 1 >= jnp.asarray(milestones), axis=-1, dtype=float)
        return base_lr * decay_rate**reached

    return with_warmup(timm_multistep, locals(), curve, (decay_rate,))


def require_milestones(name: str, value: Any) -> None:
    """Refuse anything but integers of at least 0 in ascending order."""
    rule = "integers of at least 0 in ascending order"
    require(name, value, rule, lambda v: [max(int(m), 0) for m in v] == sorted(v))


STABLE = ("constant", "rsqrt")
DECAYS: Mapping[str, Callable[[Any], Any]] = {
    "1-sqrt": lambda done: 1.0 - jnp.sqrt(done),
    "linear": lambda done: 1.0 - done,
    "cosine": lambda done: 0.5 * (1.0 + jnp.cos(math.pi * done)),
    "power": lambda done: 1.0 - done**DECAY_POWER,
    "exp": lambda done: (DECAY_RATIO**done - DECAY_RATIO) / (1.0 - DECAY_RATIO),
}


def timm_wsd(
    base_lr: Hyperparameter,
    t_initial: int,
    decay_t: int,
    lr_min: Hyperparameter = 0.0,
    *,
    stable_fn: str = "constant",
    stable_timescale: Hyperparameter | None = None,
    decay_fn: str = "1-sqrt",
    warmup_t: int = 0,
    warmup_lr_init: Hyperparameter = 0.0,
) -> Schedule:
    r"""Timm's warm-up, stable phase and decay to ``lr_min``.

    .. math::
        s(c) &= \eta_{\min} + (v(t) - \eta_{\min})\, f\!\left(\frac{t - T + D}{D}\right) \\
        v(t) &= \max(\mathrm{base\_lr}\, g(t), \eta_{\min}), \quad t = c - \mathrm{warmup\_t}

    with T ``t_initial``, D ``decay_t``, f = 1 before the decay and 0 after it, and g = 1 or, with
    ``stable_fn="rsqrt"``, :math:`(1 + t / \mathrm{stable\_timescale})^{-1/2}`. The warm-up is that of
    ``timm_cosine`` and always comes first.

    Args:
      base_lr: the group's rate before any schedule.
      t_initial: counts of the stable phase and the decay.
      decay_t: counts of the decay.
      lr_min: the rate from ``warmup_t + t_initial`` on.
      stable_fn: g, ``"constant"`` or ``"rsqrt"``.
      stable_timescale: counts, above 0; ``warmup_t`` if None.
      decay_fn: f of the decay's progress x: ``"1-sqrt"`` or ``"power"`` for :math:`1 - \sqrt x`,
        ``"linear"`` for 1 - x, ``"cosine"``, or ``"exp"`` for :math:`(0.1^x - 0.1) / 0.9`.
      warmup_t: counts of the warm-up.
      warmup_lr_init: where the warm-up starts.

    Raises:
      ValueError: a number out of its range.

    Source: ``timm.scheduler.WSDLRScheduler``, timm 1.0.31.

    >>> [float(timm_wsd(1.0, 4, 2, decay_fn="linear", warmup_t=1)(c)) for c in range(6)]
    [0.0, 1.0, 1.0, 1.0, 0.5, 0.0]
    """
    require_count("t_initial", t_initial, at_least=1)
    require_count("decay_t", decay_t, at_least=1)
    if not isinstance(t_initial, jax.Array):
        require("decay_t", decay_t, f"at most t_initial, {t_initial}", lambda v: v <= t_initial)
    require_nonnegative(lr_min=lr_min)
    require_choice("stable_fn", stable_fn, STABLE)
    require_choice("decay_fn", decay_fn, DECAYS)
    timescale = warmup_t if stable_timescale is None else stable_timescale
    if stable_fn == "rsqrt":
        rule = "above 0 with rsqrt, or None for the length of the warm-up"
        require("stable_timescale", timescale, rule, lambda v: v > 0)

    def curve(t: Any, base_lr: Any, lr_min: Any, length: Any, decay_t: Any, scale: Any) -> Any:
        stable = base_lr
        if stable_fn == "rsqrt":
            stable = base_lr * (1.0 + quotient(jnp.maximum(t, 0.0), scale, t)) ** -0.5
        stable = jnp.maximum(stable, lr_min)
        decaying = t - (length - decay_t)
        done = jnp.clip(quotient(decaying, decay_t, t), 0.0, 1.0)
        decayed = lr_min + (stable - lr_min) * DECAYS[decay_fn](done)
        return jnp.where(decaying > 0, decayed, stable)

    values = (lr_min, t_initial, decay_t, timescale)
    arguments = {**locals(), "warmup_prefix": True}
    return with_warmup(timm_wsd, arguments, curve, values)
