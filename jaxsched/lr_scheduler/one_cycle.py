"""The rate that rises once and falls, and the momentum that moves against it.

It counts calls of ``scheduler.step()``; 0 is the constructor's. In most scripts
that counts iterations here.
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from jaxsched.lr_scheduler.replay import (
    HOST,
    TorchSchedule,
    formula_schedule,
    require_integer,
    require_start,
    torch_schedule,
)
from jaxsched.lr_scheduler.swa import require_anneal_strategy
from jaxsched.schedules import Hyperparameter, Schedule, remembered, require


@remembered
def one_cycle_lr(
    max_lr: Hyperparameter,
    total_steps: int | jax.Array | None = None,
    epochs: int | None = None,
    steps_per_epoch: int | None = None,
    pct_start: Hyperparameter = 0.3,
    anneal_strategy: str = "cos",
    cycle_momentum: bool = True,
    base_momentum: Hyperparameter = 0.85,
    max_momentum: Hyperparameter = 0.95,
    div_factor: Hyperparameter = 25.0,
    final_div_factor: Hyperparameter = 1e4,
    three_phase: bool = False,
    last_epoch: int = -1,
    *,
    steps: int | None = None,
) -> TorchSchedule:
    r"""Up to ``max_lr``, and down to far below where it began.

    .. math:: s(c) = b + \frac{a - b}{2} (1 + \cos(\pi p)),\quad
              p = \frac{c - c_{k-1}}{c_k - c_{k-1}}

    In phase k, from count :math:`c_{k-1}` to :math:`c_k`, the rate goes from a to
    b; with ``"linear"`` it is :math:`(b - a) p + a`. The phases end at
    ``pct_start * total_steps - 1``, a fraction as often as not, and at
    ``total_steps - 1``. At count ``total_steps`` the last phase's curve goes on
    (the cosine climbs again); past it concrete counts are refused, as torch
    refuses them, and traced ones hold that value. ``.momentum`` of what is
    returned is the schedule of the momentum, which moves the other way: a group
    is ``{"learning_rate": cycle, "momentum": cycle.momentum}``.

    Args:
      max_lr: the highest rate; the optimizer's own plays no part.
      total_steps: how many counts the cycle has; or ``epochs * steps_per_epoch``.
      epochs: used where ``total_steps`` is not given.
      steps_per_epoch: likewise.
      pct_start: the share of the rise, a float within 0 and 1, such that a phase
        does not begin where it ends.
      anneal_strategy: ``"cos"`` or ``"linear"``.
      cycle_momentum: whether ``.momentum`` is a schedule, or None.
      base_momentum: the lowest momentum, at ``max_lr``.
      max_momentum: the highest momentum.
      div_factor: the rate begins at ``max_lr / div_factor``.
      final_div_factor: and ends at that over this.
      three_phase: falls back to where it began at ``2 * pct_start *
        total_steps - 2``, and from there to its end.
      last_epoch: torch's default, -1; others are refused, since nothing is resumed.
      steps: replays torch for counts 0 to ``steps``, momentum included.

    Source: ``torch.optim.lr_scheduler.OneCycleLR``, torch 2.13;
    https://arxiv.org/abs/1708.07120.

    >>> schedule = one_cycle_lr(1.0, total_steps=10, anneal_strategy="linear", div_factor=4.0)
    >>> [round(float(schedule(c)), 3) for c in range(5)]
    [0.25, 0.625, 1.0, 0.857, 0.714]
    >>> round(float(schedule.momentum(2)), 6)
    0.85
    """
    require_start(last_epoch)
    if total_steps is None:
        if epochs is None or steps_per_epoch is None:
            raise ValueError(
                "total_steps must be given, or epochs and steps_per_epoch, got "
                f"epochs={epochs!r} and steps_per_epoch={steps_per_epoch!r}."
            )
        require_integer("epochs", epochs, at_least=1)
        require_integer("steps_per_epoch", steps_per_epoch, at_least=1)
        total_steps = epochs * steps_per_epoch
    require_integer("total_steps", total_steps, at_least=1)
    require(
        "pct_start",
        pct_start,
        "a float within 0 and 1",
        lambda v: isinstance(v, float) and 0 <= v <= 1,
    )
    require("div_factor", div_factor, "other than 0, to be divided by", lambda v: v != 0)
    require(
        "final_div_factor", final_div_factor, "other than 0, to be divided by", lambda v: v != 0
    )
    require_anneal_strategy(anneal_strategy)

    def phase_ends(pct, total):
        rise = [pct * total - 1]
        return [*rise, 2 * pct * total - 2, total - 1] if three_phase else [*rise, total - 1]

    known = not any(isinstance(value, jax.Array) for value in (pct_start, total_steps))
    last: Any = total_steps
    if known:
        ends = phase_ends(pct_start, total_steps)
        if ends[0] == 0:
            raise ValueError(
                f"pct_start * total_steps must not be 1, got {pct_start!r} * {total_steps!r}: "
                "the first phase would have no length to divide by. Change pct_start."
            )
        if ends[-2] == ends[-1]:
            # The last phase has no length, and torch divides by it at total_steps.
            last = total_steps - 1

    def anneal(xp, count, pct, total, *levels):
        """Where ``count`` stands in its phase, between that phase's two levels."""
        ends = phase_ends(pct, total)
        start, end, a, b = ends[-2], ends[-1], levels[-2], levels[-1]
        for k in reversed(range(len(ends) - 1)):
            phase = (ends[k - 1] if k else 0.0, ends[k], levels[k], levels[k + 1])
            inside = count <= ends[k]
            start, end, a, b = (
                xp.where(inside, *pair) for pair in zip(phase, (start, end, a, b), strict=True)
            )
        part = (count - start) / (end - start)
        if anneal_strategy == "linear":
            return (b - a) * part + a
        return b + (a - b) / 2.0 * (xp.cos(math.pi * part) + 1)

    def rates(initial, highest, least):
        return (initial, highest, initial, least) if three_phase else (initial, highest, least)

    def closed(count, max_lr, div, final_div, pct, total):
        initial = max_lr / div
        levels = rates(initial, max_lr, initial / final_div)
        return anneal(jnp, jnp.minimum(count, last), pct, total, *levels)

    def prepare(group, max_lr, div, final_div, *_):
        initial = max_lr / div
        group.update(initial_lr=initial, max_lr=max_lr, min_lr=initial / final_div)

    def rule(now, _, div, final_div, pct, total):
        _refuse_past(last, now.epoch)
        levels = rates(*(now.group[key] for key in ("initial_lr", "max_lr", "min_lr")))
        return anneal(HOST, now.epoch, pct, total, *levels)

    schedule = torch_schedule(
        "one_cycle_lr",
        None,
        (max_lr, div_factor, final_div_factor, pct_start, total_steps),
        closed,
        rule,
        prepare=prepare,
        steps=steps,
    )
    if cycle_momentum:
        levels = (max_momentum, base_momentum, max_momentum, max_momentum)
        momenta = (pct_start, total_steps, *levels[: 4 if three_phase else 3])
        momentum = formula_schedule(
            "momentum of one_cycle_lr",
            lambda xp, count, *values: anneal(
                xp, jnp.minimum(count, last) if xp is jnp else count, *values
            ),
            momenta,
            steps,
        )
        schedule = dataclasses.replace(schedule, momentum=momentum)
    if steps is not None or not known:
        return schedule
    return dataclasses.replace(
        schedule,
        curve=_bounded(schedule.curve, last),
        momentum=_bounded(schedule.momentum, last),
    )


def _refuse_past(last: Any, count: Any) -> None:
    if count > last:
        raise ValueError(
            f"count must be at most {last}, where the cycle of one_cycle_lr ends, got {count}. "
            "Raise total_steps."
        )


def _bounded(schedule: Any, last: int) -> Schedule | None:
    """``schedule``, which refuses concrete counts past ``last``."""
    if schedule is None:
        return None

    def bounded(count: ArrayLike) -> jax.Array:
        if not isinstance(count, Tracer):
            _refuse_past(last, np.max(np.asarray(count), initial=0))
        return schedule(count)

    return bounded
