"""The cause of a difference: the simplest change of one run that gives the other.

A change is one of four kinds: an argument, the clock, the value, the groups. Numbers are solved
for, and what does not reproduce every row that differs is no cause.
"""

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import Any

import jax
import numpy as np

from jaxsched._schedule import sharing_key
from jaxsched._validate import is_number
from jaxsched.parity._explain import _changes as changes
from jaxsched.parity._explain._cause import Cause, Key, choose, format_value, merge
from jaxsched.parity._explain._runs import Case, Path, Run, evaluate, evaluate_each
from jaxsched.parity._explain._solve import float_grid, int_grid, solve
from jaxsched.parity._rows import equal

EAGER, AT_ONCE = 24, 6  # numbers of a grid, and of an interval, where JAX cannot trace them
MAX_PREFIXES = 5  # changes that explain the first rows, from which a second is looked for
REFUSED = (ValueError, TypeError, KeyError)  # what a factory raises that refuses a value


def explain(mine: Run, reference: Run) -> tuple[Cause, ...]:
    """Return the causes of all that differs in runs with the same rows: the fewest and simplest."""
    cases = (Case(reference, mine, True), Case(mine, reference, False))
    differing, rounded = list(cases[0].differing), list(_rounded(cases[0]))
    causes = list(rounded)
    with np.errstate(over="ignore", invalid="ignore"):
        for search in (_single, None, _inside, _double, changes.arithmetic):
            whole = [c for c in merge(causes) if c.exact and c.is_throughout]
            left = [key for key in differing if not any(key in c.quantities for c in whole)]
            is_one = any(set(differing) <= set(c.quantities) for c in whole)
            for case in cases:
                if search is not None:
                    causes += _each(case, left, search)
                elif differing:  # one argument for all goes before one for each
                    causes += _of_factory(case, causes, not is_one)
    return tuple(choose(causes, [*differing, *(key for c in rounded for key in c.quantities)]))


def _rounded(case: Case) -> Iterator[Cause]:
    """Yield float64 quantities that differ by one side's rounding to float32 alone."""
    for key in case.keys:
        traces = (case.base.trace, case.target.trace)
        columns = [(run.groups[key[0]] if key[0] else run.run)[key[1]] for run in traces]
        if key not in case.differing and not equal(*columns).all():
            side = "mine" if case.target.column(key).dtype == np.float32 else "the reference"
            sentence = f"{side} rounded to float32"
            yield Cause("value", "float32", sentence, quantities=(key,), numbers=0)


def _each(
    case: Case, keys: list[Key], search: Callable[[Case, Key], changes.Causes]
) -> Iterator[Cause]:
    """``search`` for each quantity, once for those that have the same curves."""
    causes: dict[Hashable, list[Cause]] = {}
    for key in keys:
        entry, x, y = case.base.entry(key), case.target.column(key), case.base.column(key)
        shared = (y.tobytes() if entry is None else sharing_key(entry)), x.tobytes()
        if shared not in causes:
            causes[shared] = list(filter(None, search(case, key)))
        for cause in causes[shared]:
            (curve,) = cause.curves.values()
            yield dataclasses.replace(cause, quantities=(key,), curves={key: curve})


def _single(case: Case, key: Key) -> changes.Causes:
    """One argument, or one change of the clock, the value or the groups."""
    yield from changes.column_changes(case, key)
    entry, other = case.base.entry(key), case.target.entry(key)
    if callable(entry):
        yield from _causes(case, key, changes.arguments_of(entry))
        yield from _causes(case, key, changes.combinators_of(entry, case))
    elif entry is not None and other is not None and not callable(other):
        yield from _causes(case, key, [changes.Edit(key[1], entry, entry, choices=(other,))])


def _inside(case: Case, key: Key) -> changes.Causes:
    if callable(entry := case.base.entry(key)):
        yield from _causes(case, key, changes.wrapped_parts(entry, case))


def _causes(case: Case, key: Key, edits: Iterable[changes.Edit]) -> changes.Causes:
    for edit in edits:
        for _, curve, change in _attempts(case, key, edit):
            cause = case.fit(key, curve, change)
            yield cause
            if cause and cause.is_throughout:
                break


def _attempts(case: Case, key: Key, edit: changes.Edit) -> Iterator[tuple[Any, np.ndarray, Cause]]:
    """The schedules that an edit makes, with their curves and the changes in words."""
    for value in _candidates(case, key, edit):
        with contextlib.suppress(*REFUSED):
            entry = edit.build(value)
            yield entry, evaluate(entry, case.base.counts), _change(case, edit, value)


def _change(case: Case, edit: changes.Edit, value: Any) -> Cause:
    """An edit as a cause: the new value is mine's where the reference is changed."""
    sides = [edit.shown(value), edit.shown(edit.value)]
    mine, reference = sides if case.changes_reference else sides[::-1]
    name, texts = edit.name or mine.__name__, (format_value(mine), format_value(reference))
    sentence = edit.words(*texts, name=name, k=value)
    return Cause(edit.kind, name, sentence, mine, reference, numbers=edit.numbers)


def _candidates(case: Case, key: Key, edit: changes.Edit) -> Iterator[Any]:
    """The values to try of an edit, those that reproduce the most of the sampled rows first."""
    if edit.choices is not None:
        yield from edit.choices
        return
    rows, guards = case.sample(key)
    rows = np.concatenate([rows, guards])
    counts = case.base.counts[rows]

    def is_equal(values: np.ndarray, _: np.ndarray) -> np.ndarray:
        return case.is_same(key, values, rows[: values.shape[1]])

    def one_by_one(candidates: np.ndarray) -> np.ndarray:
        values = np.full((len(candidates), len(counts)), np.nan)
        for row, candidate in zip(values, candidates, strict=True):
            with contextlib.suppress(*REFUSED):
                row[:] = evaluate(edit.build(candidate.item()), counts)
        return values

    if isinstance(edit.value, int | np.integer):
        n = int(case.base.counts[-1]) + 1
        value = int(edit.value) if abs(edit.value) < 2**31 else n
        grid = int_grid(value, case.epoch or 1, 2 * n)
    else:
        grid = float_grid(float(edit.value))
    x, entry = case.target.column(key), case.target.entry(key)
    others = changes.arguments_of(entry) if callable(entry) else ()
    same = [other.value for other in others if other.name == edit.name and is_number(other.value)]
    ends = [float(str(np.float32(v))) for v in (x[0], x[-1], x.max(), x.min())]
    hints = [*map(float, same), *ends]
    problem = {"target": x[rows], "is_equal": is_equal, "guards": len(guards), "hints": hints}
    find = functools.partial(solve, **problem)
    try:
        numbers = find(functools.partial(evaluate_each, edit.build, counts=counts), grid=grid)
    except (jax.errors.JAXTypeError, TypeError, ValueError):  # JAX cannot trace the number
        near = grid[np.abs(grid - edit.value).argsort()[:EAGER]]
        grid = np.union1d(grid[:: len(grid) // EAGER], near)
        numbers = find(one_by_one, grid=grid, size=AT_ONCE)
    yield from (number for number in numbers if number != edit.value)


def _double(case: Case, key: Key) -> changes.Causes:
    """Two arguments, where the first explains the first rows and none explains all."""
    (trace, recipe), entry, (label, name) = case.base, case.base.entry(key), key
    if not callable(entry) or recipe is None:
        return
    longest: dict[Path, tuple[int, tuple[Any, np.ndarray, Cause]]] = {}
    for edit in changes.arguments_of(entry):
        for attempt in _attempts(case, key, edit):
            rows = case.count_prefix(key, attempt[1])
            if rows and rows >= longest.get(edit.paths[0], (0,))[0]:
                longest[edit.paths[0]] = rows, attempt
    by_rows = sorted(longest.items(), key=lambda item: -item[1][0])
    for path, (_, (changed, curve, first)) in by_rows[:MAX_PREFIXES]:
        columns = {**trace.groups, label: {**trace.groups[label], name: curve}}
        entries = {**recipe.groups, label: {**recipe.groups[label], name: changed}}
        run = Run(
            dataclasses.replace(trace, groups=columns), dataclasses.replace(recipe, groups=entries)
        )
        between = Case(run, case.target, case.changes_reference)
        edits = (edit for edit in changes.arguments_of(changed) if edit.paths[0] != path)
        for second in _causes(between, key, edits) if key in between.differing else ():
            if second and second.is_throughout:
                yield _together(case, first, second)


def _together(case: Case, first: Cause, second: Cause) -> Cause:
    """The cause that two changes are: of one list's entries, the list."""
    if first.name != second.name or not isinstance(second.mine, tuple):
        sentence, parts = f"{first.sentence}, and {second.sentence}", (first, second)
        return dataclasses.replace(second, sentence=sentence, numbers=2, parts=parts)
    side = "reference" if case.changes_reference else "mine"
    before, between = getattr(first, side), getattr(second, side)
    sentence = second.sentence.replace(format_value(between), format_value(before))
    return dataclasses.replace(second, sentence=sentence, numbers=2, **{side: before})


def _of_factory(case: Case, causes: list[Cause], is_wide: bool) -> Iterator[Cause]:
    """An argument of the factory that made the recipe, which acts in all groups at once."""
    if case.base.recipe is None or case.base.recipe.origin is None:
        return
    factory, arguments = case.base.recipe.origin
    for name, value in arguments.items():
        inner = dict(value) if hasattr(value, "items") else {None: value}  # such as ``hyp``
        for place, present in inner.items():
            for other in _others(case, present, causes, is_wide):
                new = other if place is None else {**inner, place: other}
                change = _change(case, changes.Edit(place or name, present, None), other)
                with contextlib.suppress(*REFUSED):
                    recipe = factory(**{**arguments, name: new})
                    yield from _in_all_groups(case, change, recipe.complete_groups())


def _in_all_groups(case: Case, change: Cause, groups: Any) -> list[Cause]:
    """A change's causes, if its groups reproduce all quantities of the other run."""

    def curve(key: Key) -> np.ndarray:
        return evaluate(groups[key[0]][key[1]], case.base.counts)

    fits = (case.fit(key, curve(key), change) for key in case.differing)
    causes = [cause for cause in itertools.takewhile(bool, fits) if cause]
    alike = [key for key in case.keys if key[0] and key not in case.differing]
    is_whole = len(causes) == len(case.differing)
    return causes if is_whole and all(case.is_same(k, curve(k)).all() for k in alike) else []


def _others(case: Case, value: Any, causes: list[Cause], is_wide: bool) -> list[Any]:
    """Other values of a factory's argument: what was solved for in a schedule, and neighbours."""
    if isinstance(value, bool):
        return [not value]
    others: list[Any] = []
    for sides in ((c.mine, c.reference) for c in causes if is_number(value)):
        if all(map(is_number, sides)):
            new, old = sides if case.changes_reference else sides[::-1]
            others += [new if old == value else value]
            others += [float(f"{value * new / old:.12g}") if old and is_wide else value]
    if isinstance(value, int):
        others = [round(v) for v in others if v == round(v)]
        others += [value - 1, value + 1, 2 * value, value // 2, 0] if is_wide else []
    return [v for v in dict.fromkeys(others) if v != value]
