"""The rate that rises once and falls, and the momentum that moves against it."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsched._schedule import Hyperparameter, Schedule
from jaxsched._validate import require, require_anneal_strategy, require_count
from jaxsched.lr_scheduler._recursion import HOST, torch_schedule


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
    *,
    steps: int | None = None,
) -> Schedule:
    r"""Up to ``max_lr``, and down to far below where it began.

    .. math:: s(c) = b + \frac{a - b}{2} (1 + \cos(\pi p)),\quad
              p = \frac{c - c_{k-1}}{c_k - c_{k-1}}

    In phase k, from count :math:`c_{k-1}` to :math:`c_k`, the rate goes from a to b; with
    ``"linear"`` it is :math:`(b - a) p + a`. The phases end at ``pct_start * total_steps - 1``, which
    may be a fraction, and at ``total_steps - 1``. At count ``total_steps`` the last phase's curve
    goes on (the cosine climbs again); past it concrete counts are refused, as torch refuses them, and
    traced ones hold that value. ``.momentum`` is the schedule of the momentum, which moves the other
    way: a group is ``{"learning_rate": cycle, "momentum": cycle.momentum}``.

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
      steps: replays torch for counts 0 to ``steps``, momentum included.

    Source: ``torch.optim.lr_scheduler.OneCycleLR``, torch 2.13;
    https://arxiv.org/abs/1708.07120.

    >>> schedule = one_cycle_lr(1.0, total_steps=10, anneal_strategy="linear", div_factor=4.0)
    >>> [round(float(schedule(c)), 3) for c in range(5)]
    [0.25, 0.625, 1.0, 0.857, 0.714]
    >>> round(float(schedule.momentum(2)), 6)
    0.85
    """
    arguments = dict(locals())
    if total_steps is None:
        if epochs is None or steps_per_epoch is None:
            raise ValueError(
                "total_steps must be given, or epochs and steps_per_epoch, got "
                f"epochs={epochs!r} and steps_per_epoch={steps_per_epoch!r}."
            )
        require_count("epochs", epochs, at_least=1)
        require_count("steps_per_epoch", steps_per_epoch, at_least=1)
        total_steps = epochs * steps_per_epoch
    require_count("total_steps", total_steps, at_least=1)
    share = "a float within 0 and 1"
    require("pct_start", pct_start, share, lambda v: isinstance(v, float) and 0 <= v <= 1)
    for name, value in {"div_factor": div_factor, "final_div_factor": final_div_factor}.items():
        require(name, value, "other than 0, to be divided by", lambda v: v != 0)
    require_anneal_strategy(anneal_strategy)

    def of_phases(*values):
        return values if three_phase else (*values[:-2], values[-1])  # without the middle phase

    def phase_ends(pct, total):
        return of_phases(pct * total - 1, 2 * pct * total - 2, total - 1)

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

    def refuse_past(count: Any) -> None:
        if count > last:
            raise ValueError(
                f"count must be at most {last}, where the cycle of one_cycle_lr ends, got {count}. "
                "Raise total_steps."
            )

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
            # The select keeps XLA from a fused multiply-add, which leaves dust of a rate of 0.
            return xp.where(part != 0, (b - a) * part, 0.0) + a
        return b + (a - b) / 2.0 * (xp.cos(math.pi * part) + 1)

    def closed(count, max_lr, div, final_div, pct, total):
        initial = max_lr / div
        levels = of_phases(initial, max_lr, initial, initial / final_div)
        return anneal(jnp, jnp.minimum(count, last), pct, total, *levels)

    def prepare(group, max_lr, div, final_div, *_):
        initial = max_lr / div
        group.update(initial_lr=initial, max_lr=max_lr, min_lr=initial / final_div)

    def rule(now, _, div, final_div, pct, total):
        refuse_past(now.epoch)
        levels = of_phases(*map(now.group.get, ("initial_lr", "max_lr", "initial_lr", "min_lr")))
        return anneal(HOST, now.epoch, pct, total, *levels)

    def momentum(xp, count, *values):
        return anneal(xp, jnp.minimum(count, last) if xp is jnp else count, *values)

    if steps is not None and known:
        refuse_past(min(steps, last + 1))
    levels = of_phases(max_momentum, base_momentum, max_momentum, max_momentum)
    return torch_schedule(
        one_cycle_lr,
        arguments,
        (max_lr, div_factor, final_div_factor, pct_start, total_steps),
        closed,
        rule,
        prepare=prepare,
        momentum=(momentum, (pct_start, total_steps, *levels)) if cycle_momentum else None,
        check=(lambda counts: refuse_past(np.max(counts, initial=0))) if known else None,
    )
