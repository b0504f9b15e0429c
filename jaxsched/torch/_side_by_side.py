"""Compare an Optax transformation and a torch optimizer on the same gradients."""

import contextlib
import dataclasses
import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

from jaxsched._groups import Groups, map_groups
from jaxsched._recipe import Recipe
from jaxsched._trace import Trace
from jaxsched._validate import is_number, require_count, require_nonnegative
from jaxsched.optimizers import hyperparameters
from jaxsched.parity import compare
from jaxsched.torch._convert import as_schedulers, from_torch
from jaxsched.torch._detached import Ended, make_stepper, rows
from jaxsched.torch._groups import (
    as_optimizers,
    find_rule,
    labels_by_parameter,
    parameters,
    reader,
    rule_of,
    split_labels,
)
from jaxsched.torch._state import export_state, is_rule_state, leaves_by_path
from jaxsched.torch._state_dict import join
from jaxsched.torch._update_causes import DISTINCT, explain
from jaxsched.torch._update_runs import SHAPED, Arrays, Case, entries, row_of

SHAPES = {"weight": (7, 5), "bias": (5,), "norm": (5,)}
"""The default parameters' shapes: one parameter for each usual label."""

RATE_BOUND = 1e-11
"""The smallest bound of a rate, relative to its largest value so far: a closed form's distance from
torch's recursion in float64."""

LIKELY = "likely cause: "
NO_CAUSE = "no usual mistake explains it"

Factory = Callable[[dict[str, torch.nn.Parameter]], Any]


def assert_optimizer_matches(
    tx: optax.GradientTransformation,
    torch_optimizer_factory: Factory,
    *,
    params: Mapping[str, Any] | None = None,
    updates: int = 100,
    steps_per_epoch: int = 1,
    accumulation: int = 1,
    clip_norm: float | None = None,
    labels: Sequence[str] | None = None,
    bound: float = 1e-14,
    seed: int = 0,
) -> None:
    """Fail if the two differ; the message names the first difference and the likely causes.

    Both start from the same parameters and get the same random gradients, in float64. After every
    update the rates are compared, if ``tx``'s state holds them; the parameters; and the state, if it
    is that of a rule of ``jaxsched.optimizers``.

    If they differ, the usual mistakes are tried on torch's recipe. The last lines of the message,
    ``likely cause: …``, are the mistakes that reproduce ``tx``'s parameters after every update. If
    none does and rates differ, the causes are those of ``jaxsched.compare`` for the rates: an argument
    of a schedule, or its clock. If there is no cause, a line says so.

    Args:
      tx: ``recipe.optimizer(labels)`` or any other transformation.
      torch_optimizer_factory: a function from ``{path: parameter}``, with the paths of ``params``
        such as ``"head/kernel"``, to an optimizer, an optimizer and its scheduler, a list of
        optimizers, or a list of optimizers and a list of their schedulers, None for an optimizer
        without one. It is called again for the causes. Parameters that it leaves out, or that need no
        gradient, are frozen.
      params: a tree of arrays; if not given, one each of ``weight``, ``bias`` and ``norm``.
      updates: number of updates.
      steps_per_epoch: batches from one step of the scheduler to the next.
      accumulation: batches in an update, whose gradients torch sums. ``tx`` gets each by itself, and
        must not change the parameters before the last. ``optax.MultiSteps`` accumulates in float64 if
        built inside ``jax.enable_x64(True)`` with ``accumulator_dtype`` float64.
      clip_norm: limit to which torch clips the norm of all gradients together before each update, with
        ``clip_grad_norm_``; no clip if None.
      labels: the labels of torch's groups, those of one optimizer after those of another, unless
        they are ``"0"``, ``"1"``, ….
      bound: the largest allowed difference of an entry, relative to the largest entry of its leaf so
        far; for a rate, relative to its largest value so far, and at least ``RATE_BOUND``.
      seed: seed of the parameters and gradients.

    Raises:
      AssertionError: they differ; the message has the place, both values, and the causes.
      ValueError: the labels do not fit, a number is out of its range, the scheduler needs a metric.

    >>> from jaxsched import optimizers
    >>> def adam(parameters):
    ...     return torch.optim.Adam(parameters.values(), lr=0.01)
    >>> assert_optimizer_matches(optimizers.adam(0.01), adam, updates=10)
    """
    require_count("updates", updates, at_least=1)
    require_count("steps_per_epoch", steps_per_epoch, at_least=1)
    require_count("accumulation", accumulation, at_least=1)
    if clip_norm is not None:
        require_nonnegative(clip_norm=clip_norm)
    rng = np.random.default_rng(seed)
    default = torch.get_default_dtype()
    if params is None:
        params = {name: rng.normal(size=shape) for name, shape in SHAPES.items()}
    with jax.enable_x64(True):
        try:
            torch.set_default_dtype(torch.float64)
            params = jax.tree.map(lambda p: jnp.asarray(p, jnp.float64), params)
            clocks = updates, accumulation, steps_per_epoch
            setup = _Setup(torch_optimizer_factory, params, *clocks, clip_norm, labels, bound)
            of_rates, of_leaves, steps, rates = zip(*_run(tx, setup, rng), strict=True)
            differences = filter(None, itertools.chain(*zip(of_rates, of_leaves, strict=True)))
            if (first := next(differences, None)) is None:
                return
            why = _leaf_causes(setup, steps) if any(of_leaves) else []
            if any(of_rates) and not any(line.startswith(LIKELY) for line in why):
                why = _rate_causes(setup, rates) or why or [NO_CAUSE]
        finally:
            torch.set_default_dtype(default)
    raise AssertionError("\n".join([first, *why]))


class _Setup(NamedTuple):
    """Torch's side of the comparison, and what both sides share."""

    factory: Factory
    params: Any
    updates: int
    accumulation: int
    steps_per_epoch: int
    clip_norm: float | None
    labels: Sequence[str] | None
    bound: float

    def build(self) -> tuple[dict[str, torch.nn.Parameter], list[torch.optim.Optimizer], list[Any]]:
        """Return torch's parameters by path, the optimizers, and the scheduler of each, or None."""
        theirs = {
            path: torch.nn.Parameter(torch.tensor(np.asarray(leaf)))
            for path, leaf in leaves_by_path(self.params).items()
        }
        result = self.factory(dict(theirs))
        optimizer, scheduler = result if isinstance(result, tuple) else (result, None)
        optimizers = as_optimizers(optimizer)
        schedulers = as_schedulers(scheduler, optimizer, optimizers)
        if any(isinstance(s, torch.optim.lr_scheduler.ReduceLROnPlateau) for s in schedulers):
            raise ValueError(
                "scheduler must not depend on a metric, got ReduceLROnPlateau. "
                "Compare jaxsched.lr_scheduler.reduce_lr_on_plateau by its rates."
            )
        return theirs, optimizers, schedulers


def _run(
    tx: optax.GradientTransformation, setup: _Setup, rng: np.random.Generator
) -> Iterator[tuple[str | None, str | None, dict[str, Arrays], tuple[Groups, Groups]]]:
    """Yield, after each update, the first difference of a rate, and of a leaf; a row of ``Case``; rates."""
    params, accumulation = setup.params, setup.accumulation
    structure = jax.tree.structure(params)
    theirs, optimizers, schedulers = setup.build()
    number = {p: k for k, p in enumerate(parameters(*optimizers))}
    trained = {path: p for path, p in theirs.items() if p in number and p.requires_grad}
    # Both sides have torch's layout here, also kernels.
    mapping = {path: (number[p], np.asarray) for path, p in trained.items()}
    state, update = tx.init(params), jax.jit(tx.update)
    steps = [make_stepper(scheduler) for scheduler in schedulers if scheduler is not None]
    pending, shaped = [], _is_shaped(optimizers)
    named = split_labels(optimizers, setup.labels)
    readers = [(reader(each, own), each) for each, own in zip(optimizers, named, strict=True)]
    largest = {(p, "parameter"): _largest(leaf) for p, leaf in leaves_by_path(params).items()}
    for batch in range(setup.updates * accumulation):
        pending.append({path: rng.normal(size=p.shape) for path, p in theirs.items()})
        for path, p in trained.items():
            gradient = torch.tensor(pending[-1][path])
            p.grad = gradient if p.grad is None else p.grad + gradient
        changes, state = update(structure.unflatten(pending[-1].values()), state, params)
        params = optax.apply_updates(params, changes)
        if len(pending) == accumulation:
            count = batch // accumulation
            before = {k: v for read, each in readers for k, v in read(each.param_groups).items()}
            if setup.clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(trained.values(), setup.clip_norm)
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
            mine = {path: np.asarray(leaf) for path, leaf in leaves_by_path(params).items()}
            after = {path: p.detach().numpy() for path, p in theirs.items()}
            leaves = itertools.chain(
                ((path, "parameter", mine[path], after[path]) for path in mine),
                _state_pairs(state, params, mapping, optimizers),
            )
            ours, torchs = rates = _both_rates(state, before)
            numbers = (
                (label, name, value, torchs[label][name])
                for label, group in ours.items()
                for name, value in group.items()
            )
            of_rate = _first_difference(largest, max(setup.bound, RATE_BOUND), count, numbers)
            of_leaf = _first_difference(largest, setup.bound, count, leaves)
            row = row_of(pending, mine, after, shaped)
            yield of_rate, of_leaf, row, rates
            pending = []
        for step in steps if (batch + 1) % setup.steps_per_epoch == 0 else ():
            with warnings.catch_warnings():
                # With accumulation the scheduler may step before the optimizer does.
                warnings.filterwarnings("ignore", "Detected call of", UserWarning)
                try:
                    step()
                except ValueError as error:  # such as OneCycleLR's after its last step
                    raise ValueError(
                        f"updates must be at most {batch // accumulation}, where the scheduler ends, "
                        f"got {setup.updates}: {error}"
                    ) from error


def _is_shaped(optimizers: Sequence[torch.optim.Optimizer]) -> bool:
    """Return whether a rule acts on whole parameters, so that all their entries are compared."""
    return any(find_rule(optimizer) in SHAPED for optimizer in optimizers)


def _leaf_causes(setup: _Setup, updates_seen: Sequence[dict[str, Arrays]]) -> list[str]:
    """Return the lines with the likely causes of the parameters' differences."""
    theirs, optimizers, schedulers = setup.build()
    steps, shaped = 2 * (setup.updates * setup.accumulation + 1), _is_shaped(optimizers)
    trained = labels_by_parameter(optimizers, setup.labels)
    label_of = {path: trained[p] for path, p in theirs.items() if p in trained}
    stacked = jax.tree.map(lambda *row: np.stack(row), *updates_seen)
    start = {p: x.detach().numpy() for p, x in theirs.items()}
    lines, is_distinct = [], False
    named = split_labels(optimizers, setup.labels)
    for k, (optimizer, scheduler, own) in enumerate(
        zip(optimizers, schedulers, named, strict=True)
    ):
        # Parameters of no optimizer are compared with those of the first.
        leaves = [p for p in theirs if label_of.get(p, named[0][0] if k == 0 else "") in own]
        try:
            rule = rule_of(optimizer)
            rows_of = _scheduler_rows(optimizer, scheduler, steps, own)
        except ValueError as error:  # an optimizer or scheduler without known mistakes
            return [f"no usual mistake was tried: {error}"]
        case = Case(
            start={p: start[p] if rule in SHAPED else entries(start[p], shaped) for p in leaves},
            **{
                name: values if name == "squares" else {p: values[p] for p in leaves}
                for name, values in stacked.items()
            },
            labels=label_of,
            rule=rule,
            rows=rows_of,
            steps_per_epoch=setup.steps_per_epoch,
            clip_norm=setup.clip_norm,
            bound=setup.bound,
        )
        is_distinct |= bool(case.differing_leaves(DISTINCT))
        if case.differing_leaves():
            causes = explain(case) if case.differing_leaves(DISTINCT) else []
            where = "" if len(optimizers) == 1 else f" ({type(optimizer).__name__})"
            lines += [f"{LIKELY}{cause}{where}" for cause in causes] or [NO_CAUSE + where]
    if not is_distinct:
        return [
            "the parameters are not so far apart that one cause can be distinguished from another"
        ]
    return lines


def _scheduler_rows(
    optimizer: torch.optim.Optimizer, scheduler: Any, steps: int, labels: Sequence[str]
) -> list[Groups]:
    """Return the arguments of the groups after 0, 1, 2, … steps of the scheduler, until it ends."""
    of_groups = reader(optimizer, labels)
    if scheduler is None:
        return [of_groups(optimizer.param_groups)]
    scheduler_rows = []
    with contextlib.suppress(Ended), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no optimizer steps between the scheduler's
        for values in itertools.islice(rows(scheduler, optimizer, of_groups), steps):
            scheduler_rows.append(values)
    return scheduler_rows


def _both_rates(state: Any, theirs: Groups) -> tuple[Groups, Groups]:
    """Return the numbers of ``tx``, with torch's for those it does not hold, and torch's numbers."""
    mine: Groups = {}
    with contextlib.suppress(ValueError):  # tx's state holds none
        mine = hyperparameters(state)
    mine = {label: mine["all"] for label in theirs} if set(mine) == {"all"} else mine
    if mine and set(mine) != set(theirs):
        raise ValueError(
            f"labels of torch's groups must be those of tx, got {', '.join(theirs)} for "
            f"{', '.join(mine)}. Pass labels, in the order of param_groups."
        )
    torchs = {
        label: {name: np.float64(value) for name, value in group.items() if is_number(value)}
        for label, group in theirs.items()
    }
    ours = map_groups(lambda label, k, v: np.float64(mine.get(label, {}).get(k, v)), torchs)
    return ours, torchs


def _rate_causes(setup: _Setup, rates: Sequence[tuple[Groups, Groups]]) -> list[str]:
    """Return the causes that ``compare`` finds for rates that differ by more than the bound."""
    header = Trace({}, clock="update")
    mine, theirs = (Trace.stack(rows, header_of=header) for rows in zip(*rates, strict=True))

    def snap(label: str, name: str, x: np.ndarray) -> np.ndarray:
        y = theirs.groups[label][name]
        allowed = max(setup.bound, RATE_BOUND) * np.maximum.accumulate(np.abs(y))
        return y if (np.abs(x - y) <= allowed).all() else x

    mine = dataclasses.replace(mine, groups=map_groups(snap, mine.groups))
    report = compare(mine, _recipe(setup) or theirs)
    return [f"{LIKELY}{cause}" for cause in report.causes]


def _recipe(setup: _Setup) -> Recipe | None:
    """Return torch's recipe, for the search of ``compare``; None if it cannot be converted."""
    if setup.accumulation > 1:
        return None
    _, optimizers, schedulers = setup.build()
    has_scheduler = any(scheduler is not None for scheduler in schedulers)
    with contextlib.suppress(ValueError):
        return from_torch(
            optimizers,
            schedulers,
            labels=setup.labels,
            start=0,
            steps_per_epoch=setup.steps_per_epoch if has_scheduler else None,
            iterations=setup.updates,
        )
    return None


def _state_pairs(
    state: Any, params: Any, mapping: Mapping[str, Any], optimizers: Sequence[Any]
) -> Iterator[tuple[str, str, Any, Any]]:
    """Yield path, name and both values of each entry of a rule's state."""
    if not any(map(is_rule_state, jax.tree.leaves(state, is_leaf=is_rule_state))):
        return
    theirs = join([optimizer.state_dict() for optimizer in optimizers])
    mine = export_state(state, params, mapping, like=theirs)["state"]
    for path, (number, _) in mapping.items():
        for name, value in theirs["state"].get(number, {}).items():
            here = mine.get(number, {}).get(name)
            if value is not None or here is not None:
                yield path, name, np.nan if here is None else here, value


def _largest(values: Any) -> float:
    return np.abs(np.asarray(values, np.float64)).max(initial=0.0)


def _first_difference(
    largest: dict[Any, float], bound: float, count: int, pairs: Iterable[tuple[str, str, Any, Any]]
) -> str | None:
    """Return the message about the first entry whose difference exceeds the bound, or None."""
    for where, name, *both in pairs:
        mine, theirs = (np.asarray(values, np.float64) for values in both)
        # Not relative to the current largest: a parameter of one entry may pass through zero.
        size = largest[where, name] = max(largest.get((where, name), 0.0), _largest(theirs))
        off, allowed = np.abs(mine - theirs), bound * size
        if (off <= allowed).all():
            continue
        at = np.unravel_index(int(np.nanargmax(np.where(np.isnan(off), np.inf, off))), off.shape)
        index = f"[{', '.join(map(str, at))}]" if at else ""
        return (
            f"the two differ at update {count}: {name} of {where}{index} is "
            f"{np.broadcast_to(mine, off.shape)[at]} for torch's {theirs[at]}, "
            f"{off[at]:.3g} off where {allowed:.3g} is allowed."
        )
    return None
