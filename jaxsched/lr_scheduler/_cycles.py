"""Cyclic rates: warm restarts, triangles, one cycle.

torch evaluates a formula at each step, so one function serves both forms, with ``jnp`` in the graph
and ``math`` on the host.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsched._schedule import Formula, Hyperparameter, Schedule, formula_of
from jaxsched._validate import describe, is_number, require, require_choice, require_count
from jaxsched.lr_scheduler import _recursion
from jaxsched.lr_scheduler._recursion import HOST, refuse_negative, torch_schedule


def cosine_annealing_warm_restarts(
    base_lr: Hyperparameter,
    T_0: int,
    T_mult: int = 1,
    eta_min: Hyperparameter = 0.0,
    *,
    steps: int | None = None,
) -> Schedule:
    r"""Cosine from ``base_lr`` to ``eta_min`` with restarts, each ``T_mult`` times as long.

    .. math:: s(c) = \eta_{\min} + (\mathrm{base\_lr} - \eta_{\min})
              \frac{1 + \cos(\pi T_{cur} / T_i)}{2},\quad
              T_i = T_0 T_{mult}^i,\quad T_{cur} = c - \sum_{j < i} T_j

    An integer count is the number of ``scheduler.step()`` calls. A float is the epoch passed to
    ``scheduler.step(epoch + i / iterations)``: torch then computes the period from a logarithm, which
    at some restarts (the 5th for ``T_mult=3``, the 3rd for 10) is too small by a rounding, so that the
    rate is at its lowest instead of its highest. This function does the same. Under ``jit`` a float
    count is float32 without x64.

    Args:
      T_0: the first period, at least 1.
      T_mult: the ratio of each period to the previous one, an integer of at least 1.
      eta_min: the lowest rate.
      steps: replays torch for the integer counts 0 to ``steps``.

    Source: ``torch.optim.lr_scheduler.CosineAnnealingWarmRestarts``, torch 2.13;
    https://arxiv.org/abs/1608.03983.

    >>> schedule = cosine_annealing_warm_restarts(1.0, 2, T_mult=2)
    >>> [round(float(schedule(c)), 3) for c in (0, 1, 1.5, 2, 3, 4, 5, 6)]
    [1.0, 0.5, 0.146, 1.0, 0.854, 0.5, 0.146, 1.0]
    """
    for name, value in {"T_0": T_0, "T_mult": T_mult}.items():
        require(name, value, "an integer of at least 1", lambda v: isinstance(v, int) and v >= 1)
        if not isinstance(value, int):
            raise ValueError(f"{name} must be a known integer, got {describe(value)}.")
    require("eta_min", eta_min, "a number", is_number)
    starts, periods = [0.0], [float(T_0)]
    while T_mult > 1 and starts[-1] < 2**53:  # float64 has all integers up to there
        starts.append(starts[-1] + periods[-1])
        periods.append(periods[-1] * T_mult)

    def rate(xp, position, period, base_lr, eta_min):
        return eta_min + (base_lr - eta_min) * (1 + xp.cos(math.pi * position / period)) / 2

    def closed_form(borders: Sequence[float]) -> Formula:
        def formula(count, base_lr, eta_min):
            if T_mult == 1:
                return rate(jnp, count % T_0, T_0, base_lr, eta_min)
            index = jnp.searchsorted(jnp.asarray(borders), count, side="right")
            position = count - jnp.asarray(starts)[index]
            return rate(jnp, position, jnp.asarray(periods)[index], base_lr, eta_min)

        return formula_of(formula, base_lr, eta_min, check=refuse_negative)

    by_call = closed_form(starts[1:])
    by_epoch = closed_form(_borders_by_logarithm(T_0, T_mult, starts))

    def formula(count: Any) -> Any:
        return (by_epoch if jnp.issubdtype(count.dtype, jnp.floating) else by_call)(count)

    def rule(now, eta_min):
        position, period = max(now.epoch, 0), T_0
        if T_mult == 1:
            position %= T_0
        while position >= period:
            position -= period
            period *= T_mult
        return rate(HOST, position, period, now.base_lr, eta_min)

    schedule = torch_schedule(cosine_annealing_warm_restarts, locals(), (eta_min,), None, rule)
    return schedule if steps is not None else dataclasses.replace(schedule, formula=formula)


def _borders_by_logarithm(T_0: int, T_mult: int, starts: Sequence[float]) -> list[float]:
    """Return the first epochs that ``step(epoch)`` counts to the 1st, 2nd, … restart.

    They are computed with torch's ``math.log``; another logarithm may round differently.
    """

    def has_reached(epoch: float, restarts: int) -> bool:
        return int(math.log(epoch / T_0 * (T_mult - 1) + 1, T_mult)) >= restarts

    borders = []
    for restarts, border in enumerate(starts[1:], start=1):
        while has_reached(math.nextafter(border, 0), restarts) and border > T_0:
            border = math.nextafter(border, 0)
        while not has_reached(border, restarts):
            border = math.nextafter(border, math.inf)
        borders.append(border)
    return borders


def cyclic_lr(
    base_lr: Hyperparameter,
    max_lr: Hyperparameter,
    step_size_up: Hyperparameter = 2000,
    step_size_down: Hyperparameter | None = None,
    mode: str = "triangular",
    gamma: Hyperparameter = 1.0,
    scale_fn: Callable[[Any], Any] | None = None,
    scale_mode: str = "cycle",
    cycle_momentum: bool = True,
    base_momentum: Hyperparameter = 0.8,
    max_momentum: Hyperparameter = 0.9,
    *,
    steps: int | None = None,
) -> Schedule:
    r"""Triangles between ``base_lr`` and ``max_lr``, of constant or decreasing height.

    .. math:: s(c) = \mathrm{base\_lr} + (\mathrm{max\_lr} - \mathrm{base\_lr})
              \cdot h(c) \cdot \mathrm{scale}

    In each cycle h goes linearly from 0 to 1 in ``step_size_up`` counts and back in
    ``step_size_down``. ``.momentum`` is the schedule of the momentum: ``max_momentum`` less triangles.

    Args:
      base_lr: the lowest rate; it replaces the optimizer's.
      max_lr: the highest rate, before the scale.
      step_size_up: counts of a rise, above 0.
      step_size_down: counts of a fall, at least 0; ``step_size_up`` if None. If it is 0,
        ``step_size_up`` must be an integer, unless ``steps`` is given.
      mode: the scale if ``scale_fn`` is None: 1 for ``"triangular"``, half of the previous cycle's
        for ``"triangular2"``, gamma to the power of the count for ``"exp_range"``.
      gamma: the base of ``"exp_range"``.
      scale_fn: the scale as a function of the cycle, from 1 on, or of the count. Without ``steps``
        it must consist of operators and ``jnp``.
      scale_mode: the argument of ``scale_fn``: ``"cycle"``, or ``"iterations"`` for the count.
      cycle_momentum: if False, ``.momentum`` is None.
      base_momentum: the lowest momentum, at ``max_lr``.
      max_momentum: the highest momentum, at ``base_lr``.

    Source: ``torch.optim.lr_scheduler.CyclicLR``, torch 2.13; https://arxiv.org/abs/1506.01186.

    >>> schedule = cyclic_lr(0.25, 1.25, 2, mode="triangular2", max_momentum=0.875)
    >>> [float(schedule(c)) for c in range(7)]
    [0.25, 0.75, 1.25, 0.75, 0.25, 0.5, 0.75]
    >>> float(schedule.momentum(0))
    0.875
    """
    require("step_size_up", step_size_up, "a number above 0, to be divided by", lambda v: v > 0)
    down = step_size_up if step_size_down is None else step_size_down
    require("step_size_down", down, "at least 0", lambda v: v >= 0)
    if steps is None and is_number(down) and down == 0:
        # A fall of length 0 is a jump, whose count depends on the rounding of a quotient.
        rule = "an integer if step_size_down is 0, unless steps=n replays it"
        require("step_size_up", step_size_up, rule, lambda v: int(v) == v)
    modes = ("triangular", "triangular2", "exp_range")
    if scale_fn is None and mode not in modes:
        raise ValueError(
            f"mode must be among {', '.join(modes)}, got {describe(mode)}. Or pass scale_fn."
        )
    by_cycle = scale_mode == "cycle" if scale_fn is not None else mode != "exp_range"
    factor = None if scale_fn is None else _recursion.factor_formula(scale_fn, "scale_fn")

    def scale(xp, x, gamma):
        if scale_fn is not None and factor is not None:
            return _recursion.factor_on_host(scale_fn, x) if xp is HOST else factor(x)
        if mode == "triangular":
            return 1.0
        return gamma**x if mode == "exp_range" else 1 / 2.0 ** (x - 1)

    def height(xp, count, span, up, down, gamma):
        total = up + down
        ratio = up / total
        # In the graph count / total is a product with a reciprocal, which may be too small at a
        # cycle's end; for fractional sizes torch's expression matters.
        cycle = math.floor(1 + count / total) if xp is HOST else 1 + count // total
        x = 1.0 + count / total - cycle
        rising = x <= ratio
        part = xp.where(rising, x, x - 1) / xp.where(rising, ratio, ratio - 1)
        return span * part * scale(xp, cycle if by_cycle else count, gamma)

    def rate(xp, count, base_lr, max_lr, *shape):
        return base_lr + height(xp, count, max_lr - base_lr, *shape)

    def momentum(xp, count, low, high, *shape):
        return high - height(xp, count, high - low, *shape)

    shape = (step_size_up, down, gamma)
    momenta = (base_momentum, max_momentum, *shape)
    return torch_schedule(
        cyclic_lr,
        locals(),
        (base_lr, max_lr, *shape),
        lambda count, *values: rate(jnp, count, *values),
        lambda now, _, *values: rate(HOST, now.epoch, now.base_lr, *values),
        prepare=lambda group, base_lr, *_: group.update(lr=base_lr),
        sets_base_lr=True,
        momentum=(momentum, momenta) if cycle_momentum else None,
    )


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
    r"""One cycle: up to ``max_lr``, then down to far below the first rate.

    .. math:: s(c) = b + \frac{a - b}{2} (1 + \cos(\pi p)),\quad
              p = \frac{c - c_{k-1}}{c_k - c_{k-1}}

    In phase k, from count :math:`c_{k-1}` to :math:`c_k`, the rate goes from a to b; with
    ``"linear"`` it is :math:`(b - a) p + a`. The phases end at ``pct_start * total_steps - 1``, which
    may be a fraction, and at ``total_steps - 1``. At count ``total_steps`` the last phase's curve
    continues (the cosine rises again); concrete counts past it are refused, as in torch, and traced
    ones keep that value. ``.momentum`` is the schedule of the momentum, which moves in the opposite
    direction: a group is ``{"learning_rate": cycle, "momentum": cycle.momentum}``; under Adam and its
    kin the momentum is ``b1``. ``schedules.one_cycle`` is another curve.

    Args:
      max_lr: the highest rate; the optimizer's rate is ignored.
      total_steps: number of counts in the cycle; ``epochs * steps_per_epoch`` if None.
      epochs: used if ``total_steps`` is None.
      steps_per_epoch: likewise.
      pct_start: the share of the rise, a float from 0 to 1; no phase may have length 0.
      anneal_strategy: ``"cos"`` or ``"linear"``.
      cycle_momentum: if False, ``.momentum`` is None.
      base_momentum: the lowest momentum, at ``max_lr``.
      max_momentum: the highest momentum.
      div_factor: the first rate is ``max_lr / div_factor``.
      final_div_factor: the final rate is ``max_lr / div_factor / final_div_factor``.
      three_phase: whether the rate first falls back to the first rate, until
        ``2 * pct_start * total_steps - 2``, and then to the final one.

    Source: ``torch.optim.lr_scheduler.OneCycleLR``, torch 2.13; https://arxiv.org/abs/1708.07120.

    >>> schedule = one_cycle_lr(1.0, total_steps=10, anneal_strategy="linear", div_factor=4.0)
    >>> [round(float(schedule(c)), 3) for c in range(5)]
    [0.25, 0.625, 1.0, 0.857, 0.714]
    >>> round(float(schedule.momentum(2)), 6)
    0.85
    """
    total: Any = total_steps
    if total is None:
        if epochs is None or steps_per_epoch is None:
            raise ValueError(
                "total_steps must be given, or epochs and steps_per_epoch, got "
                f"epochs={epochs!r} and steps_per_epoch={steps_per_epoch!r}."
            )
        require_count("epochs", epochs, at_least=1)
        require_count("steps_per_epoch", steps_per_epoch, at_least=1)
        total = epochs * steps_per_epoch
    require_count("total_steps", total, at_least=1)
    share = "a float within 0 and 1"
    require("pct_start", pct_start, share, lambda v: isinstance(v, float) and 0 <= v <= 1)
    for name, value in {"div_factor": div_factor, "final_div_factor": final_div_factor}.items():
        require(name, value, "a number other than 0, to be divided by", lambda v: v != 0)
    require_choice("anneal_strategy", anneal_strategy, ("cos", "linear"))

    def select_phases(*values):
        """Leave out the middle phase, unless there are three."""
        return values if three_phase else (*values[:-2], values[-1])

    def phase_ends(pct, total):
        return select_phases(pct * total - 1, 2 * pct * total - 2, total - 1)

    is_concrete = not any(isinstance(value, jax.Array) for value in (pct_start, total))
    last = total
    if is_concrete:
        ends = phase_ends(pct_start, total)
        if ends[0] == 0:
            raise ValueError(
                f"pct_start * total_steps must not be 1, got {pct_start!r} * {total!r}: "
                "the first phase would have no length to divide by. Change pct_start."
            )
        if ends[-2] == ends[-1]:
            # The last phase has length 0, by which torch divides at total_steps.
            last = total - 1

    def refuse_past(count: Any) -> None:
        if count > last:
            raise ValueError(
                f"count must be at most {last}, where the cycle of one_cycle_lr ends, got {count}. "
                "Raise total_steps."
            )

    def check(counts: Any) -> None:
        refuse_negative(counts)
        if is_concrete:
            refuse_past(np.max(counts, initial=0))

    def anneal(xp, count, pct, total, *levels):
        """Interpolate at ``count`` between the two levels of its phase."""
        ends = phase_ends(pct, total)
        start, end, a, b = ends[-2], ends[-1], levels[-2], levels[-1]
        for k in reversed(range(len(ends) - 1)):
            phase = (ends[k - 1] if k else 0.0, ends[k], levels[k], levels[k + 1])
            inside = count <= ends[k]
            start, end, a, b = (
                xp.where(inside, *pair) for pair in zip(phase, (start, end, a, b), strict=True)
            )
        progress = (count - start) / (end - start)
        if anneal_strategy == "linear":
            # The select prevents a fused multiply-add, which would turn a rate of 0 into a rounding.
            return xp.where(progress != 0, (b - a) * progress, 0.0) + a
        return b + (a - b) / 2.0 * (xp.cos(math.pi * progress) + 1)

    def closed_form(count, max_lr, div, final_div, pct, total):
        initial = max_lr / div
        levels = select_phases(initial, max_lr, initial, initial / final_div)
        return anneal(jnp, jnp.minimum(count, last), pct, total, *levels)

    def prepare(group, max_lr, div, final_div, *_):
        initial = max_lr / div
        group.update(initial_lr=initial, max_lr=max_lr, min_lr=initial / final_div)

    def rule(now, _, div, final_div, pct, total):
        refuse_past(now.epoch)
        levels = select_phases(
            *map(now.group.get, ("initial_lr", "max_lr", "initial_lr", "min_lr"))
        )
        return anneal(HOST, now.epoch, pct, total, *levels)

    def momentum(xp, count, *values):
        return anneal(xp, jnp.minimum(count, last) if xp is jnp else count, *values)

    if steps is not None and is_concrete:
        refuse_past(min(steps, last + 1))
    levels = select_phases(max_momentum, base_momentum, max_momentum, max_momentum)
    return torch_schedule(
        one_cycle_lr,
        locals(),
        (max_lr, div_factor, final_div_factor, pct_start, total),
        closed_form,
        rule,
        prepare=prepare,
        momentum=(momentum, (pct_start, total, *levels)) if cycle_momentum else None,
        check=check,
    )
