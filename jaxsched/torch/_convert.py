"""From live torch objects to a recipe.

The recipe counts iterations; 0 is the live objects' next batch.
"""

import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from torch.optim import lr_scheduler as live
from torch.optim.swa_utils import SWALR

from jaxsched import lr_scheduler
from jaxsched._recipe import Recipe
from jaxsched._schedule import Schedule
from jaxsched._validate import is_number, require_count
from jaxsched.param_groups import FROZEN
from jaxsched.schedules import per_epoch, shift, table
from jaxsched.torch._detached import Ended, detached, rows
from jaxsched.torch._groups import labelled, places, read, rule_of, unwrap

HORIZON = 100_000
"""Steps of the scheduler that are recorded where ``iterations`` is not given."""

BOUND = 1e-11
"""Of the peak: what a closed form may be from torch's recursion, and is here."""


def from_torch(
    optimizer: torch.optim.Optimizer,
    scheduler: Any = None,
    *,
    model: torch.nn.Module | None = None,
    labels: Sequence[str] | None = None,
    steps_per_epoch: int | None = None,
    batches_done: int = 0,
    iterations: int | None = None,
) -> Recipe:
    """The recipe that a live optimizer and scheduler would go on with.

    A copy of the scheduler is stepped on a stand-in for the optimizer and what it
    sets is recorded: a table, equal to the bit. Where the scheduler is one of
    torch.optim's whose ``jaxsched.lr_scheduler`` is within 1e-11 of the peak all
    along that table, its closed form goes on past the end; every other table
    refuses concrete iterations past its end and holds its last value for traced
    ones. The live objects stay as they are.

    Args:
      optimizer: of any class of torch.optim that ``jaxsched.optimizers`` has, with
        any number of groups; accelerate's wrappers of both are taken off.
      scheduler: any object with ``step()``: of torch.optim, nested or not, timm's,
        transformers', the user's own. None: the rates stay as they are.
      model: names the parameters: ``origin``'s arguments then have a ``labels``, as
        ``parameter_labels`` returns them, for ``recipe.optimizer``.
      labels: a name for each group; ``"0"``, ``"1"``, … if not given.
      steps_per_epoch: batches from one step of the scheduler to the next; 1 where
        it steps after every update.
      batches_done: batches since its last step.
      iterations: how many batches are recorded; if not given, those of 100,000
        steps of the scheduler, or as many as it can make.

    Returns:
      A recipe whose ``origin`` has the arguments, the class names and the version
      of torch.

    Raises:
      ValueError: an optimizer or scheduler that cannot be converted, a number out
        of its range, labels that do not fit.
    """
    optimizer, scheduler = unwrap(optimizer, "optimizer"), unwrap(scheduler, "scheduler")
    rule = rule_of(optimizer)
    groups = labelled(optimizer, labels)
    origin: dict[str, Any] = {
        "optimizer": type(optimizer).__name__,
        "scheduler": None if scheduler is None else type(scheduler).__name__,
        "torch": torch.__version__,
        "steps_per_epoch": steps_per_epoch,
        "batches_done": batches_done,
        "iterations": iterations,
        **({} if model is None else {"labels": parameter_labels(model, optimizer, labels)}),
    }
    of_group = {label: places(group, rule) for label, group in groups.items()}

    def values(groups: Sequence[Mapping[str, Any]]) -> list[Any]:
        return [
            read(group, place)
            for group, found in zip(groups, of_group.values(), strict=True)
            for place in found.values()
        ]

    every = steps_per_epoch or 1
    if scheduler is None:
        columns = [(value,) for value in values(optimizer.param_groups)]
    else:
        _require_scheduler(scheduler, optimizer, steps_per_epoch, batches_done, iterations)
        steps = None if iterations is None else (batches_done + iterations - 1) // every
        columns = list(zip(*_recorded(rows(scheduler, optimizer, values), steps), strict=True))
    run = iter(columns)
    # A copy of its own: an lr_lambda that is traced may change what it closes over.
    own = hasattr(scheduler, "__dict__") and "get_lr" in vars(scheduler)
    known = None if own or type(scheduler) not in CLOSED else detached(scheduler, optimizer)[0]

    def entry(index: int, name: str) -> Any:
        column = next(run)
        constant = len(set(column)) == 1 and name != "learning_rate"
        closed = _closed_form(known, index, name)
        if scheduler is None or not is_number(column[0]) or (constant and closed is None):
            return column[0]
        closed = closed if closed and _agrees(closed, np.array(column, np.float64)) else None
        schedule = per_epoch(table(np.array(column, np.float64), then=closed), every)
        return shift(schedule, -batches_done) if batches_done else schedule

    return Recipe(
        {
            label: {name: entry(index, name) for name in found}
            for index, (label, found) in enumerate(of_group.items())
        },
        rule,
        length=iterations,
        origin=(from_torch, origin),
    )


def parameter_labels(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    labels: Sequence[str] | None = None,
) -> dict[str, str]:
    """The label of each of a model's parameters, by torch's name.

    ``recipe.optimizer`` takes it as it stands where the Flax tree has torch's
    names (``param_groups.torch_name``); where it has not, with the mapping of
    ``match_names``: ``{path: labels[name] for path, name in mapping.items()}``.

    Args:
      model: whose ``named_parameters`` they are.
      optimizer: whose groups they are in.
      labels: a name for each group; ``"0"``, ``"1"``, … if not given.

    Returns:
      ``{name: label}``, ``"frozen"`` for what the optimizer does not hold and for
      what needs no gradient.
    """
    of = {
        id(parameter): label
        for label, group in labelled(optimizer, labels).items()
        for parameter in group["params"]
    }
    return {
        name: of.get(id(parameter), FROZEN) if parameter.requires_grad else FROZEN
        for name, parameter in model.named_parameters()
    }


def _require_scheduler(
    scheduler: Any,
    optimizer: torch.optim.Optimizer,
    steps_per_epoch: int | None,
    batches_done: int,
    iterations: int | None,
) -> None:
    if isinstance(scheduler, live.ReduceLROnPlateau):
        raise ValueError(
            "scheduler must not depend on a metric, got ReduceLROnPlateau. "
            "Use jaxsched.lr_scheduler.reduce_lr_on_plateau."
        )
    if not callable(getattr(scheduler, "step", None)):
        raise ValueError(f"scheduler must have a step(), got {type(scheduler).__name__}.")
    # Of a wrapped optimizer the groups are the same list. Its rates would stay as they are, silently.
    stepped = getattr(getattr(scheduler, "optimizer", optimizer), "param_groups", None)
    if stepped is not None and stepped is not optimizer.param_groups:
        raise ValueError(
            f"scheduler must be of the optimizer that is given, got {type(scheduler).__name__} of "
            "another. Pass scheduler.optimizer."
        )
    if steps_per_epoch is None:
        raise ValueError(
            "steps_per_epoch must be given with a scheduler, got None. "
            "Pass the batches between two of its steps, 1 where it steps after every update."
        )
    require_count("steps_per_epoch", steps_per_epoch, at_least=1)
    require_count("batches_done", batches_done)
    if batches_done >= steps_per_epoch:
        raise ValueError(
            f"batches_done must be below steps_per_epoch, got {batches_done} of {steps_per_epoch}."
        )
    if iterations is not None:
        require_count("iterations", iterations, at_least=1)


def _recorded(run: Iterator[list[Any]], steps: int | None) -> list[list[Any]]:
    """The rows of 0 to ``steps``; as many as there are of ``HORIZON``, if None."""
    taken: list[list[Any]] = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # no optimizer steps between the scheduler's
            for row in itertools.islice(run, (HORIZON if steps is None else steps) + 1):
                if not all(map(_is_finite, row)):
                    raise Ended("it set a number that is not finite")
                taken.append(row)
    except Ended as end:
        if steps is not None or not taken:
            raise ValueError(
                f"scheduler must make {steps or 0} steps for these iterations, got one that ends "
                f"at step {len(taken)} ({end}). Pass fewer iterations."
            ) from end
    return taken


def _is_finite(value: Any) -> bool:
    # A power of a negative number is complex.
    return math.isfinite(value) if isinstance(value, float) else not isinstance(value, complex)


def _agrees(closed: Schedule, values: np.ndarray) -> bool:
    """Whether the closed form is within ``BOUND`` of the peak all along the table."""
    try:
        with jax.enable_x64(True):
            ours = np.asarray(jax.vmap(closed)(jnp.arange(len(values))))
    except Exception:  # an lr_lambda that cannot be traced raises what it will
        return False
    return bool((np.abs(ours - values) <= BOUND * np.abs(values).max()).all())


def _one_cycle(scheduler: Any, index: int) -> Any:
    group, ends = scheduler.optimizer.param_groups[index], scheduler._schedule_phases
    total = scheduler.total_steps
    return lr_scheduler.one_cycle_lr(
        group["max_lr"],
        total,
        pct_start=(ends[0]["end_step"] + 1) / total,
        anneal_strategy=scheduler._anneal_func_type,
        cycle_momentum=scheduler.cycle_momentum,
        base_momentum=group.get("base_momentum", 0.85),
        max_momentum=group.get("max_momentum", 0.95),
        div_factor=group["max_lr"] / group["initial_lr"],
        final_div_factor=group["initial_lr"] / group["min_lr"],
        three_phase=len(ends) == 3,
    )


def _cyclic(scheduler: Any, index: int) -> Any:
    up = scheduler.total_size * scheduler.step_ratio
    momenta = scheduler.cycle_momentum and {
        "base_momentum": scheduler.base_momentums[index],
        "max_momentum": scheduler.max_momentums[index],
    }
    return lr_scheduler.cyclic_lr(
        scheduler.base_lrs[index],
        scheduler.max_lrs[index],
        up,
        scheduler.total_size - up,
        scheduler.mode,
        scheduler.gamma,
        scheduler._scale_fn_custom,
        scheduler.scale_mode,
        scheduler.cycle_momentum,
        **(momenta or {}),
    )


CLOSED: dict[type, Callable[[Any, int], Any]] = {
    live.LambdaLR: lambda s, k: lr_scheduler.lambda_lr(s.base_lrs[k], s.lr_lambdas[k]),
    live.StepLR: lambda s, k: lr_scheduler.step_lr(s.base_lrs[k], s.step_size, s.gamma),
    live.MultiStepLR: lambda s, k: lr_scheduler.multi_step_lr(
        s.base_lrs[k], sorted(s.milestones.elements()), s.gamma
    ),
    live.ConstantLR: lambda s, k: lr_scheduler.constant_lr(s.base_lrs[k], s.factor, s.total_iters),
    live.LinearLR: lambda s, k: lr_scheduler.linear_lr(
        s.base_lrs[k], s.start_factor, s.end_factor, s.total_iters
    ),
    live.ExponentialLR: lambda s, k: lr_scheduler.exponential_lr(s.base_lrs[k], s.gamma),
    live.PolynomialLR: lambda s, k: lr_scheduler.polynomial_lr(
        s.base_lrs[k], s.total_iters, s.power
    ),
    live.CosineAnnealingLR: lambda s, k: lr_scheduler.cosine_annealing_lr(
        s.base_lrs[k], s.T_max, s.eta_min
    ),
    live.CosineAnnealingWarmRestarts: lambda s, k: lr_scheduler.cosine_annealing_warm_restarts(
        s.base_lrs[k], s.T_0, s.T_mult, s.eta_min
    ),
    live.CyclicLR: _cyclic,
    live.OneCycleLR: _one_cycle,
    SWALR: lambda s, k: lr_scheduler.swa_lr(
        s.base_lrs[k],
        s.optimizer.param_groups[k]["swa_lr"],
        s.anneal_epochs,
        s._anneal_strategy,
    ),
}
"""The function of each class that has a closed form, of a live one and a group's number."""


def _closed_form(scheduler: Any, index: int, name: str) -> Schedule | None:
    """A hyperparameter as a function of further steps; None where there is no such function.

    It is a guess, read off the attributes of a copy, and to be checked.
    """
    if scheduler is None or name not in ("learning_rate", "momentum", "b1"):
        return None
    try:
        scheduler.base_lrs = [float(rate) for rate in scheduler.base_lrs]  # of a tensor, too
        found = CLOSED[type(scheduler)](scheduler, index)
        first = int(scheduler.last_epoch)
    except (ValueError, TypeError, AttributeError, KeyError, ZeroDivisionError):
        return None
    curve = found if name == "learning_rate" else found.momentum
    if curve is None or not first:
        return curve
    return shift(curve, -first)
