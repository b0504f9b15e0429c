"""Search for the cause of a difference: the simplest change of one run that reproduces the other.

A change is of one of four kinds: an argument, the clock, the value, the groups. Its number is solved
for. Only a change that reproduces every differing row is a cause.
"""

import contextlib
import dataclasses
import functools
import itertools
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from jaxsched._schedule import sharing_key
from jaxsched._validate import is_number
from jaxsched.parity._distance import equal
from jaxsched.parity._explain import _changes as changes
from jaxsched.parity._explain._cause import Cause, Key, choose, format_value, merge
from jaxsched.parity._explain._runs import (
    Case,
    Column,
    Path,
    Run,
    evaluate,
    evaluate_each,
    expression,
    nodes,
)
from jaxsched.parity._explain._solve import CANDIDATES, DIGITS, float_grid, solve

MAX_FITTED = 40  # numbers that fit the sampled rows and are then compared at all rows
MAX_REACH = 10**6  # largest distance of an integer to try from the present one
EAGER, AT_ONCE = 24, 6  # numbers of a grid, and of an interval, if JAX cannot trace them
MAX_PREFIXES = 5  # changes that explain the first rows, to each of which a second one is added
# Errors of a factory that refuses a value, or divides by it.
REFUSED = ValueError, TypeError, LookupError, ArithmeticError


def explain(mine: Run, reference: Run, implied: Sequence[Key] = ()) -> tuple[Cause, ...]:
    """Return the fewest and simplest causes of the differences between runs with the same rows.

    Quantities that are ``implied`` by others need no cause.
    """
    forward, reverse = Case(reference, mine, True, implied), Case(mine, reference, False, implied)
    differing, roundings = list(forward.differing_rows), list(_roundings(forward))
    causes = list(roundings)
    with np.errstate(over="ignore", invalid="ignore"):
        for search in (_single_changes, None, _inner_changes, _double_changes) if differing else ():
            whole = [c for c in merge(causes) if c.exact and c.is_throughout]
            left = [key for key in differing if not any(key in c.quantities for c in whole)]
            is_one = any(set(differing) <= set(c.quantities) for c in whole)
            for case in (forward, reverse):
                if search is not None:
                    causes += _search_each(case, left, search)
                else:  # one argument for all goes before one for each
                    causes += _factory_changes(case, causes, not is_one)
    return tuple(choose(causes, [*differing, *(key for c in roundings for key in c.quantities)]))


def _roundings(case: Case) -> Iterator[Cause]:
    """Yield float64 quantities that differ by one side's rounding to float32 alone."""
    for key in case.keys:
        traces = (case.base.trace, case.target.trace)
        columns = [(run.groups[key[0]] if key[0] else run.run)[key[1]] for run in traces]
        if key not in case.differing_rows and not equal(*columns).all():
            side = "mine" if case.target.column(key).dtype == np.float32 else "the reference"
            sentence = f"{side} rounded to float32"
            yield Cause("value", "float32", sentence, quantities=(key,), numbers=0)


def _search_each(
    case: Case, keys: list[Key], search: Callable[[Case, Key], Iterator[Cause]]
) -> Iterator[Cause]:
    """Call ``search`` for each quantity, once for quantities with the same curves."""
    causes: dict[Hashable, list[Cause]] = {}
    for key in keys:
        entry, x, y = case.base.entry(key), case.target.column(key), case.base.column(key)
        shared = (y.tobytes() if entry is None else sharing_key(entry)), x.tobytes()
        if shared not in causes:
            causes[shared] = list(search(case, key))
        for cause in causes[shared]:
            (curve,) = cause.curves.values()
            yield dataclasses.replace(cause, quantities=(key,), curves={key: curve})


def _single_changes(case: Case, key: Key) -> Iterator[Cause]:
    """Yield causes with one change: of an argument, the clock, the value or the groups."""
    curves = changes.curves_of(case, key)
    yield from filter(None, (case.fit(key, curve, cause) for curve, cause in curves))
    entry, other = case.base.entry(key), case.target.entry(key)
    x, y = case.target.column(key), case.base.column(key)
    if np.diff(x).any() and np.diff(y).any():
        yield from _solve_edits(
            case, key, changes.clocks_and_values(case, case.base.column_function(key))
        )
    if callable(entry):
        yield from _solve_edits(case, key, changes.arguments_of(case, entry))
        yield from _solve_edits(case, key, changes.combinators_of(case, entry))
    elif entry is not None and other is not None and not callable(other):
        cause = functools.partial(changes.argument, case, key[1], old=entry)
        yield from _solve_edits(case, key, [changes.Edit(entry, [()], entry, cause, [other])])


def _inner_changes(case: Case, key: Key) -> Iterator[Cause]:
    """Yield causes that change the clock or the value of a schedule inside another."""
    if callable(entry := case.base.entry(key)):
        yield from _solve_edits(case, key, changes.clocks_and_values(case, entry))


def _solve_edits(case: Case, key: Key, edits: Iterable[changes.Edit]) -> Iterator[Cause]:
    """Yield the causes of edits that fit; for each edit, up to the first that fits all rows."""
    for edit in edits:
        for _, curve, change in _attempts(case, key, edit):
            if cause := case.fit(key, curve, change):
                yield cause
                if cause.is_throughout:
                    break


def _attempts(case: Case, key: Key, edit: changes.Edit) -> Iterator[tuple[Any, np.ndarray, Cause]]:
    """Yield the schedules of an edit, with their curves and causes."""
    for value in _numbers(case, key, edit) if edit.choices is None else edit.choices:
        with contextlib.suppress(*REFUSED):
            entry = edit.build(value)
            yield entry, evaluate(entry, case.base.counts), edit.cause(value)


def _numbers(case: Case, key: Key, edit: changes.Edit) -> Iterator[Any]:
    """Yield the numbers of an edit that fit the most sampled rows, the best first."""

    def together(numbers: np.ndarray, counts: np.ndarray) -> np.ndarray:
        if isinstance(edit.entry, Column):
            return edit.build(numbers[:, None])(counts)
        return evaluate_each(edit.build, numbers, counts)

    def one_by_one(numbers: np.ndarray, counts: np.ndarray) -> np.ndarray:
        values = np.full((len(numbers), len(counts)), np.nan)
        for k, number in enumerate(numbers.tolist()):
            with contextlib.suppress(*REFUSED):
                values[k] = evaluate(edit.build(number), counts)
        return values

    try:
        yield from _solve_numbers(case, key, edit, together)
    except (jax.errors.JAXTypeError, TypeError, ValueError):  # JAX cannot trace the number
        yield from _solve_numbers(case, key, edit, one_by_one, EAGER)


def _solve_numbers(
    case: Case, key: Key, edit: changes.Edit, values: Callable[..., np.ndarray], few: int = 0
) -> list[Any]:
    """Return the numbers of an edit: integers and a column's by elimination, others by ``solve``."""
    rows, x, y = case.sample(key), case.target.column(key), case.base.column(key)
    is_column, n = isinstance(edit.entry, Column), int(case.base.counts[-1]) + 1
    if isinstance(edit.present, int | np.integer):
        present = 0 if edit.present == changes.NEVER else int(edit.present)
        reach = max(2 * n, min(abs(present), MAX_REACH))
        least = int(is_column) if edit.present > 0 else -reach  # a shift may be negative
        k = np.arange(max(least, present - reach), present + reach)
        k = k[np.abs(k - present).argsort(kind="stable")]  # the nearest first
        if few:
            near, others = k[: 2 * few], _related_integers(edit.entry, n)
            k = np.concatenate([near, np.setdiff1d(others[others >= least], near)])
    elif is_column:
        at = rows[np.abs(y[rows]).argmax()]
        new, old = float(x[at]), float(y[at])
        exact = new, new - old, new / (old or np.inf)
        shortened = {float(f"{v:.{digits}g}") for v in exact for digits in DIGITS}
        k = np.array(sorted(shortened, key=lambda number: len(repr(number))))
    else:
        grid = float_grid(float(edit.present))
        grid = np.union1d(grid[:: len(grid) // few], [edit.present]) if few else grid
        find = functools.partial(values, counts=case.base.counts[rows])
        size = AT_ONCE if few else CANDIDATES
        return solve(find, x[rows], grid, lambda v, _: case.is_same(key, v, rows), size)
    right = k[:0]
    for row in rows:
        values_there = values(k, case.base.counts[[row]])[:, 0]
        is_right = case.is_same(key, values_there, slice(row, row + 1)) | np.isnan(values_there)
        if not is_right.any():
            break
        right = k = k[is_right]
    return right[:MAX_FITTED].tolist()


def _related_integers(entry: Any, n: int) -> np.ndarray:
    """Return the run's length, a schedule's integers, and sums, differences and ratios of two."""
    values = [v for _, node in nodes(entry) for v in expression(node)[1].values()]
    flat = [v for value in values for v in (value if isinstance(value, tuple) else (value,))]
    whole = np.unique([0, n, *(int(v) for v in flat if isinstance(v, int | np.integer))])
    a, b = np.meshgrid(whole, whole)
    return np.unique([a + b, a - b, a // np.maximum(b, 1)])


def _double_changes(case: Case, key: Key) -> Iterator[Cause]:
    """Yield causes with two arguments, the first of which explains the first rows."""
    firsts: dict[Path, tuple[int, Any, np.ndarray, Cause]] = {}
    entry = case.base.entry(key)
    for edit in changes.arguments_of(case, entry) if callable(entry) else ():
        for attempt in _attempts(case, key, edit):
            rows = case.count_prefix(key, attempt[1])
            if rows > firsts.get(edit.paths[0], (0,))[0]:
                firsts[edit.paths[0]] = rows, *attempt
    by_rows = sorted(firsts.items(), key=lambda item: -item[1][0])
    for path, (_, changed, curve, first) in by_rows[:MAX_PREFIXES]:
        between = Case(
            case.base.replace_quantity(key, changed, curve), case.target, case.changes_reference
        )
        edits = (e for e in changes.arguments_of(between, changed) if e.paths[0] != path)
        for second in _solve_edits(between, key, edits) if key in between.differing_rows else ():
            if second.is_throughout:
                yield _join(case, first, second)


def _join(case: Case, first: Cause, second: Cause) -> Cause:
    """Return two changes as one cause; two entries of one list as a change of the list."""
    if first.name != second.name or not isinstance(second.mine, tuple):
        sentence, parts = f"{first.sentence}, and {second.sentence}", (first, second)
        return dataclasses.replace(second, sentence=sentence, numbers=2, parts=parts)
    side = "reference" if case.changes_reference else "mine"
    before, between = getattr(first, side), getattr(second, side)
    sentence = second.sentence.replace(format_value(between), format_value(before))
    return dataclasses.replace(second, sentence=sentence, numbers=2, **{side: before})


def _factory_changes(case: Case, causes: list[Cause], is_wide: bool) -> Iterator[Cause]:
    """Yield causes that change an argument of the recipe's factory, if they explain all groups."""
    if case.base.recipe is None or case.base.recipe.origin is None:
        return
    factory, arguments = case.base.recipe.origin
    for name, value in arguments.items():
        inner = dict(value) if hasattr(value, "items") else {None: value}  # such as ``hyp``
        for place, present in inner.items():
            for other in _other_values(case, present, causes, is_wide):
                change = changes.argument(case, place or name, other, present)
                new = other if place is None else {**inner, place: other}
                with contextlib.suppress(*REFUSED):
                    recipe = factory(**{**arguments, name: new})
                    groups: dict[str, Any] = recipe.complete_groups()
                    if recipe.accumulation is not None:
                        groups[""] = {"accumulate": recipe.accumulation.batches}
                    yield from _fit_groups(case, change, groups)


def _fit_groups(case: Case, change: Cause, groups: Any) -> list[Cause]:
    """Return a change's causes if its groups reproduce all quantities of the other run."""

    def curve(key: Key) -> np.ndarray:
        return evaluate(groups[key[0]][key[1]], case.base.counts)

    fits = (case.fit(key, curve(key), change) for key in case.differing_rows)
    causes = [cause for cause in itertools.takewhile(bool, fits) if cause]
    alike = [key for key in case.keys if key[0] and key not in case.differing_rows]
    is_whole = len(causes) == len(case.differing_rows)
    return causes if is_whole and all(case.is_same(k, curve(k)).all() for k in alike) else []


def _other_values(case: Case, value: Any, causes: list[Cause], is_wide: bool) -> list[Any]:
    """Return other values of a factory's argument: those solved for in schedules, and neighbours."""
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
