"""Convert live torch objects to a recipe."""

import itertools
import math
import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import torch
from torch.optim import lr_scheduler as live
from torch.optim.swa_utils import SWALR

from jaxsched._groups import by_column, map_groups
from jaxsched._recipe import Recipe
from jaxsched._validate import is_number, require_count
from jaxsched.param_groups import FROZEN
from jaxsched.schedules import per_epoch, shift, table
from jaxsched.torch._closed_forms import CLOSED, closed_form, evaluate
from jaxsched.torch._detached import Ended, detach, rows
from jaxsched.torch._groups import (
    Optimizers,
    as_optimizers,
    has_made_updates,
    labels_by_parameter,
    reader,
    rule_of,
    split_labels,
    unwrap,
)

HORIZON = 100_000  # steps of the scheduler that are recorded where iterations is not given
# Steps on which a closed form is checked, besides SPANS; and the longest span that is.
MIN_CHECKED, MAX_CHECKED = 1_000, 1_000_000
# Attributes of schedulers: the steps of a period, or to the last change.
SPANS = ("total_iters", "step_size", "T_max", "T_i", "total_size", "total_steps", "anneal_epochs")


def from_torch(
    optimizer: Optimizers,
    scheduler: Any = None,
    *,
    model: torch.nn.Module | None = None,
    labels: Sequence[str] | None = None,
    start: int | None = None,
    steps_per_epoch: int | None = None,
    batches_done: int = 0,
    iterations: int | None = None,
) -> Recipe:
    """Return the recipe with which a live optimizer and scheduler would continue.

    A copy of the scheduler is stepped on a copy of the optimizer, and the values that it sets are
    recorded in a table, equal to the bit. Outside the table concrete iterations are refused and traced
    ones give NaN, unless ``jaxsched.lr_scheduler`` has the scheduler's closed form. This form is checked
    to 1,000 steps past the next turn of its period, or past its last change; if it is within 1e-11 of
    the peak, plus 1e-15 a step, it gives the iterations before and after the table. Constant columns
    become numbers, except the learning rate and a momentum that the scheduler cycles. The live objects
    do not change.

    Args:
      optimizer: of any class of torch.optim that ``jaxsched.optimizers`` has, with
        any number of groups; accelerate's wrappers of both are taken off. Of a list each optimizer
        makes an update where the others do, and the recipe has the rule of each label.
      scheduler: any object with ``step()``: of torch.optim, nested or not, timm's,
        transformers', the user's own. None: the rates stay as they are. Beside a list of optimizers
        a list of theirs, in the same order, None for one without.
      model: names the parameters: ``origin``'s arguments then have a ``labels``, as
        ``parameter_labels`` returns them, for ``recipe.optimizer``.
      labels: a name for each group, those of one optimizer after those of another; ``"0"``,
        ``"1"``, … if not given.
      start: the iteration of the next batch, counted from the start of the run. If not given,
        ``last_epoch * steps_per_epoch + batches_done``, where ``last_epoch`` is the steps that
        the scheduler has made; else 0, with a warning: ChainedScheduler, SWALR, an object that is
        no LRScheduler, restarts stepped by fractions, a ``last_epoch`` that was set, an optimizer
        without a scheduler that has made updates.
      steps_per_epoch: batches from one step of the scheduler to the next: 1 if it steps after
        every batch, k if after every update of k accumulated batches.
      batches_done: batches since its last step.
      iterations: how many batches are recorded, from ``start``; if not given, those of 100,000
        steps of a scheduler that has a closed form, or as many as it can make.

    Returns:
      A recipe whose ``origin`` has the arguments, the class names and the version
      of torch, and a ``note`` where ``start`` is not known.

    Raises:
      ValueError: an optimizer or scheduler that cannot be converted, a number out
        of its range, labels that do not fit; no ``iterations`` and no closed form.

    >>> optimizer = torch.optim.SGD(torch.nn.Linear(2, 1).parameters(), lr=0.1, momentum=0.9)
    >>> scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=2)
    >>> recipe = from_torch(optimizer, scheduler, labels=["all"], steps_per_epoch=5, iterations=20)
    >>> [round(float(recipe.at(i)["all"]["learning_rate"]), 6) for i in (0, 9, 10)]
    [0.1, 0.1, 0.01]
    """
    optimizers = as_optimizers(optimizer)
    schedulers = as_schedulers(scheduler, optimizer, optimizers)
    rules, named = [rule_of(each) for each in optimizers], split_labels(optimizers, labels)
    runs = [*zip(optimizers, schedulers, named, strict=True)]
    counters = [each for each in schedulers if each is not None]
    for each, stepper, _ in runs:
        if stepper is not None:
            _require_scheduler(stepper, each, len(runs) > 1)
    if counters:
        if steps_per_epoch is None:
            raise ValueError(
                "steps_per_epoch must be given with a scheduler, got None. "
                "Pass the batches between two of its steps: 1 if it steps after every batch, k if "
                "after every update of k batches."
            )
        require_count("steps_per_epoch", steps_per_epoch, at_least=1)
        require_count("batches_done", batches_done)
        if batches_done >= steps_per_epoch:
            raise ValueError(
                f"batches_done must be below steps_per_epoch, got {batches_done} of {steps_per_epoch}."
            )
        if iterations is not None:
            require_count("iterations", iterations, at_least=1)
    every, note = steps_per_epoch or 1, {}
    if start is None:
        is_fresh = not counters and not any(map(has_made_updates, optimizers))
        steps = 0 if is_fresh else _steps_of_run(counters)
        start = 0 if steps is None else steps * every + batches_done
        if steps is None:
            counter = [*counters, *optimizers][0]
            note["note"] = (
                "start must be given where the steps of the run are not known, got "
                f"{type(counter).__name__}: iterations count from 0."
            )
            warnings.warn(f"{note['note']} Pass start, that of the next batch.", stacklevel=2)
    require_count("start", start)
    origin: dict[str, Any] = {
        "optimizer": _class_names(optimizers),
        "scheduler": _class_names(schedulers),
        "torch": torch.__version__,
        "start": start,
        "steps_per_epoch": steps_per_epoch,
        "batches_done": batches_done,
        "iterations": iterations,
        **note,
        **({} if model is None else {"labels": parameter_labels(model, optimizers, labels)}),
    }
    groups: dict[str, dict[str, Any]] = {}
    for run in runs:
        groups |= _groups(*run, start, every, batches_done, iterations)
    return Recipe(
        groups,
        {k: rule for rule, own in zip(rules, named, strict=True) for k in own},
        start=start,
        length=None if iterations is None else start + iterations,
        origin=(from_torch, origin),
    )


def _groups(
    optimizer: torch.optim.Optimizer,
    scheduler: Any,
    labels: Sequence[str],
    start: int,
    every: int,
    batches_done: int,
    iterations: int | None,
) -> dict[str, dict[str, Any]]:
    """Return the recipe's groups for one optimizer."""
    read = reader(optimizer, labels)
    groups = read(optimizer.param_groups)

    def values(now: Any) -> list[Any]:
        return [*by_column(read(now)).values()]

    steps = None if iterations is None else (batches_done + iterations - 1) // every
    copy: Any = None
    checked, ended, recorded = None, False, [values(optimizer.param_groups)]
    if scheduler is not None:
        # A separate copy: an lr_lambda may change its closure when traced.
        if type(scheduler) in CLOSED and "get_lr" not in vars(scheduler):
            copy = detach(scheduler, optimizer)[0]
            checked = _steps_to_check(copy)
        recorded, ended = _record_rows(rows(scheduler, optimizer, values), steps, checked or 0)
    columns = dict(zip(by_column(groups), zip(*recorded, strict=True), strict=True))
    first = max((start - batches_done) // every, 0)  # the scheduler's step before the first row
    late = start - batches_done - first * every

    def entry(label: str, name: str, _: Any) -> Any:
        column = columns[f"{label}/{name}"]
        closed = closed_form(copy, [*groups].index(label), name, column) if checked else None
        if steps is not None and not (closed and ended):
            column = column[: steps + 1]
        cycles = ("momentum", "b1") if _has_momentum_cycle(scheduler) else ()
        ends = name in ("learning_rate", *cycles)
        if scheduler is None or not is_number(column[0]) or (len(set(column)) == 1 and not ends):
            return column[0]
        if steps is None and not (closed or ended):
            raise ValueError(
                "iterations must be given where the scheduler has no closed form, got None for "
                f"{type(scheduler).__name__}. Pass the batches from the next one to the end of the run."
            )
        begin, then = first, None
        if closed:
            ahead = first - copy.last_epoch
            then = None if ended else shift(closed, ahead) if ahead else closed
            if ahead == late == 0:  # earlier iterations are known, too
                column, begin = [*evaluate(closed, np.arange(first)), *column], 0
        schedule = per_epoch(table(np.array(column, np.float64), start=begin, then=then), every)
        return shift(schedule, late) if late else schedule

    return map_groups(entry, groups)


def parameter_labels(
    model: torch.nn.Module, optimizer: Optimizers, labels: Sequence[str] | None = None
) -> dict[str, str]:
    """Return the label of each parameter of a model, by torch's name.

    Pass the result to ``recipe.optimizer`` if the Flax tree has torch's names
    (``param_groups.torch_name``); else convert it with the mapping of ``match_names``:
    ``{path: labels[name] for path, name in mapping.items()}``.

    Args:
      model: a module with ``named_parameters``.
      optimizer: the optimizer of the model, or a list of optimizers.
      labels: as in ``from_torch``.

    Returns:
      ``{name: label}``; parameters in no optimizer, or that need no gradient, are ``"frozen"``.

    >>> model = torch.nn.Linear(2, 1)
    >>> parameter_labels(model, torch.optim.SGD([model.weight]), ["decay"])
    {'weight': 'decay', 'bias': 'frozen'}
    """
    label_of = labels_by_parameter(as_optimizers(optimizer), labels)
    return {name: label_of.get(p, FROZEN) for name, p in model.named_parameters()}


def as_schedulers(scheduler: Any, optimizer: Any, optimizers: Sequence[Any]) -> list[Any]:
    """Return the scheduler of each optimizer or None, without accelerate's wrappers."""
    is_list = isinstance(optimizer, list | tuple)
    if isinstance(scheduler, torch.optim.Optimizer):
        raise TypeError(
            f"scheduler must not be an optimizer, got {type(scheduler).__name__}. Pass several "
            "optimizers as a list."
        )
    if scheduler is not None and is_list != isinstance(scheduler, list | tuple):
        raise TypeError(
            "scheduler must be a list where optimizer is one, and only there, got "
            f"{type(scheduler).__name__} beside {type(optimizer).__name__}. "
            "Pass [optimizer, …] and [scheduler, …], None for an optimizer without."
        )
    schedulers = [None] * len(optimizers) if scheduler is None else scheduler
    schedulers = list(schedulers) if is_list else [scheduler]
    if len(schedulers) != len(optimizers):
        raise ValueError(
            f"scheduler must have one for each of {len(optimizers)} optimizers, got "
            f"{len(schedulers)}. Put None for an optimizer without."
        )
    return [unwrap(each, "scheduler") for each in schedulers]


def _class_names(instances: Sequence[Any]) -> Any:
    """Return the class names of objects, None for None; the name itself if there is one object."""
    names = [None if each is None else type(each).__name__ for each in instances]
    return names[0] if len(names) == 1 else names


def _steps_of_run(schedulers: Sequence[Any]) -> int | None:
    """Return the steps that the run has made; None if no scheduler counts them."""
    steps = [(type(each).__name__, _steps_made(each)) for each in schedulers]
    counts = {count for _, count in steps if count is not None}
    if len(counts) > 1:
        raise ValueError(
            "start must be given where schedulers have not made equally many steps, got "
            f"{' and '.join(f'{count} of {name}' for name, count in steps if count is not None)}. "
            "Pass start, that of the next batch."
        )
    return next(iter(counts), None)


def _require_scheduler(
    scheduler: Any, optimizer: torch.optim.Optimizer, is_list: bool = False
) -> None:
    if isinstance(scheduler, live.ReduceLROnPlateau):
        raise ValueError(
            "scheduler must not depend on a metric, got ReduceLROnPlateau. "
            "Use jaxsched.lr_scheduler.reduce_lr_on_plateau."
        )
    if not callable(getattr(scheduler, "step", None)):
        raise ValueError(f"scheduler must have a step(), got {type(scheduler).__name__}.")
    # A wrapper shares the optimizer's list of groups. The rates of another optimizer would not change.
    stepped = getattr(getattr(scheduler, "optimizer", optimizer), "param_groups", None)
    if stepped is not None and stepped is not optimizer.param_groups:
        raise ValueError(
            f"scheduler must be of the optimizer that is given, got {type(scheduler).__name__} of "
            f"another. {'Put each in the place of its own.' if is_list else 'Pass scheduler.optimizer.'}"
        )


def _steps_made(scheduler: Any) -> int | None:
    """Return the steps that the run has made; None if the scheduler does not count them."""
    try:
        steps = _own_steps(scheduler)
    except AttributeError:
        return None
    # SWALR is built in mid-run, and counts from there.
    counts = isinstance(scheduler, live.LRScheduler) and not isinstance(scheduler, SWALR)
    return steps if counts and steps == scheduler.last_epoch else None


def _own_steps(scheduler: Any) -> int:
    if isinstance(scheduler, live.SequentialLR):
        # At a milestone torch 2.13 sets the next member to 0, while 2.9 steps it.
        entered = {mark for mark in scheduler._milestones if 0 < mark <= scheduler.last_epoch}
        left = scheduler.last_epoch - sum(map(_own_steps, scheduler._schedulers))
        return scheduler.last_epoch if left in (0, len(entered)) else -1
    if isinstance(scheduler, live.CosineAnnealingWarmRestarts):
        # It counts no steps; a fractional position was set by step(epoch) with a fraction.
        return max(scheduler.last_epoch, 0) if isinstance(scheduler.T_cur, int) else -1
    return scheduler._step_count - 1


def _has_momentum_cycle(scheduler: Any) -> bool:
    """Return whether a scheduler, or one inside it, cycles the momentum."""
    return bool(getattr(scheduler, "cycle_momentum", False)) or any(
        map(_has_momentum_cycle, getattr(scheduler, "_schedulers", ()))
    )


def _steps_to_check(scheduler: Any) -> int | None:
    """Return the number of steps that determine a closed form; None if there are too many."""
    spans = [getattr(scheduler, name, 0) for name in SPANS]
    span = math.ceil(max(*spans, *getattr(scheduler, "milestones", ())))
    return span + MIN_CHECKED if span <= MAX_CHECKED else None


def _record_rows(run: Iterable[Any], steps: int | None, checked: int) -> tuple[list[Any], bool]:
    """Return rows up to ``steps`` (or ``HORIZON``) and ``checked``, and whether the run ended earlier."""
    recorded: list[Any] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # no optimizer steps between the scheduler's
            most = max(HORIZON if steps is None else steps, checked)
            for row in itertools.islice(run, most + 1):
                floats = (value for value in row if isinstance(value, float | complex))
                if not all(isinstance(v, float) and math.isfinite(v) for v in floats):
                    raise Ended("it set a number that is not finite")
                recorded.append(row)
    except Ended as end:
        if len(recorded) <= (steps or 0):
            raise ValueError(
                f"scheduler must make {steps or 0} steps for these iterations, got one that ends "
                f"at step {len(recorded)} ({end}). Pass fewer iterations."
            ) from end
        return recorded, True
    return recorded, False
