"""The causes of a difference between an Optax transformation and a torch optimizer.

A cause is a change of torch's recipe with which its parameters go where the transformation's go,
after every update. Numbers are solved for. Everything counts updates; 0 is the first.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations, product
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from jaxsched.parity._explain._cause import Cause, choose, list_quantities
from jaxsched.parity._explain._solve import CANDIDATES, solve
from jaxsched.torch._update_case import Case, largest
from jaxsched.torch._update_changes import (
    Change,
    argument,
    both,
    fixed,
    forms,
    with_a_number,
    without_a_number,
    zeros_and_switches,
)
from jaxsched.torch._update_rules import FORMS, SHAPED

PARAMETER = "parameter"  # the quantity of a leaf that is compared
SOLVED = 3  # entries of a leaf for which numbers are solved
LATER = (0, 1, 2, 3, 5, 8, 13)  # updates for which they are, from the first that differs on
FEW = 8  # candidates at a time of a rule that looks at a parameter as a whole
ENCLOSED = 0.6  # share of the rows that two neighbours of a grid must enclose, to go on between
MIN_KNOWN = 0.5  # share of the updates at which the changed run must be known
# Options of forms beside which two numbers are tried, as in optax.adagrad and optax.rmsprop.
PLACES = ({"epsilon"}, {"epsilon", "inside"})


def explain(case: Case) -> list[Cause]:
    """Return the causes that together explain every leaf that differs; none if there are none."""
    with np.errstate(all="ignore"):  # a candidate may diverge
        for leaf in case.differing:
            off = largest(Change("", "", "").path(case, leaf)[:, 0] - case.reference[leaf])
            if not (off <= case.allowed[leaf]).all():
                return []  # from what is not torch's path, such as Muon's in bfloat16
        return _search(case)


def _search(case: Case) -> list[Cause]:
    """One change without a number, then one with a number, then several together."""
    found: list[Cause] = []

    def unexplained() -> list[str]:
        explained = {leaf for cause in found for leaf, _ in cause.quantities}
        return [leaf for leaf in case.differing if leaf not in explained]

    for changes in (without_a_number, with_a_number):
        for change in changes(case) if unexplained() else ():
            found += _causes(case, change, case.differing)
    while left := unexplained():
        for change in _together(case, left[0]):
            found += _causes(case, change, left)
        if left[0] in unexplained():
            return []
    causes = choose(found, [(leaf, PARAMETER) for leaf in case.differing])
    if len(causes) == 1 and causes[0].curves:  # made everywhere, other leaves would differ too
        sentence = f"{causes[0].sentence}, in {list_quantities(causes[0].quantities)}"
        causes = [dataclasses.replace(causes[0], sentence=sentence)]
    return causes


def _causes(case: Case, change: Change, leaves: Sequence[str]) -> Iterator[Cause]:
    """Yield the change, with the numbers it needs, for the leaves that it reproduces."""
    left, others = list(leaves), [k for k in case.differing if k not in leaves]
    while left:
        leaf = left.pop(0)
        for x in _solutions(case, change, leaf):
            if change.grid is not None and x == change.value(leaf):
                continue
            shares = {
                k: case.known(k, change.path(case, k, x)[:, 0]) for k in [leaf, *left, *others]
            }
            known = {k: share for k, share in shares.items() if share > MIN_KNOWN}
            if len(known) < len(case.differing):
                known = {k: share for k, share in known.items() if case.is_distinct(k)}
            if not known:
                continue
            left = [k for k in left if k not in known]
            yield _cause(case, change, x, known)
            break
        else:
            if change.parts and change.grid is not None:
                return  # several are for the first leaf


def _cause(case: Case, change: Change, x: float, known: Mapping[str, float]) -> Cause:
    """Return a change as a cause, with the paths of leaves that it would move and that are right."""
    leaf = next(iter(known))
    y, right = change.value(leaf), [k for k in case.mine if k not in case.differing]
    paths = {k: change.path(case, k, x)[:, 0] for k in right if change.value(k) == y}
    return Cause(
        change.kind,
        change.name,
        change.describe(leaf, x),
        change.mine if change.grid is None else x,
        y,
        tuple((k, PARAMETER) for k in known),
        numbers=(change.grid is not None) + max(len(change.parts) - 1, 0),
        known=min(known.values()),
        parts=tuple(Cause(part.kind, part.name, part.sentence) for part in change.parts),
        curves={(k, PARAMETER): path for k, path in paths.items() if case.differs(k, path)},
    )


def _sample(case: Case, leaf: str) -> tuple[Callable[[Change, Any], np.ndarray], np.ndarray]:
    """Return the entries that differ most at the first update that differs, there and later.

    In units of ``allowed``: a function from a change and candidates to the changed run, (c, rows),
    and the transformation's parameters, (rows,), those first that differ first.
    """
    mine, allowed = case.mine[leaf], case.allowed[leaf][:, None]
    off = np.abs(mine - case.reference[leaf]) / allowed
    first = int(np.argmax((off > 1).any(1)))
    entries = np.argsort(-off[first], kind="stable")[:SOLVED]
    updates = np.unique([min(first + k, len(mine) - 1) for k in (*LATER, len(mine))])

    def evaluate(change: Change, candidates: Any) -> np.ndarray:
        path = (change.path(case, leaf, candidates, entries) / allowed[:, None])[updates]
        return np.swapaxes(path, 0, 1).reshape(np.size(candidates), -1)

    return evaluate, (mine / allowed)[np.ix_(updates, entries)].ravel()


def _is_equal(values: np.ndarray, target: np.ndarray) -> np.ndarray:
    return np.abs(values - target) <= 1


def _solutions(case: Case, change: Change, leaf: str) -> Iterator[float]:
    """Yield the numbers that reproduce a sample of a leaf."""
    if change.grid is None:
        yield 0.0
        return
    sample, target = _sample(case, leaf)
    evaluate = functools.partial(sample, change)
    few = case.rule in SHAPED and change.kind != "clock"
    grid, size = (change.grid[::FEW], FEW) if few else (change.grid, CANDIDATES)

    grid = np.pad(grid, (0, -len(grid) % size), "edge")  # JAX compiles a rule once for one size
    values = np.concatenate([evaluate(grid[k : k + size]) for k in range(0, len(grid), size)])
    above, same, unknown = values > target, _is_equal(values, target), np.isnan(values)
    if change.kind == "clock":
        yield from grid[(same | unknown).all(1) & (unknown.mean(1) < 1 - MIN_KNOWN)][:2].tolist()
        return
    enclosed = (above[1:] != above[:-1]) | same[1:] | same[:-1]
    # Most rows lie between the values of two neighbours, or no number between them will do.
    if enclosed.mean(1).max() > ENCLOSED:
        yield from solve(evaluate, target, grid, _is_equal, size=size)


def _together(case: Case, leaf: str) -> Iterator[Change]:
    """Yield a number beside a change without one, or beside another that explains it with it."""
    if case.rule not in FORMS:
        return
    numbers, rules = [argument(case, name) for name in case.names], list(forms(case))
    for first, second in product((*zeros_and_switches(case), *rules), numbers):
        if first.name != second.name:
            yield both(first, second)
    constant = [change for change in numbers if isinstance(change.value(leaf), float)]
    places = [r for r in rules if {part.name for part in r.parts or (r,)} in PLACES]
    for a, b in combinations(constant, 2):
        if (x := _fit(case, leaf, a, b)) is not None:
            yield both(fixed(a, x), b)
        for form in places if "eps" in (a.name, b.name) else ():
            if (x := _fit(case, leaf, both(form, a), b)) is not None:
                yield both(both(form, fixed(a, x)), b)


def _fit(case: Case, leaf: str, a: Change, b: Change) -> float | None:
    """Fit two numbers at once and return the first, None where they do not reproduce the leaf."""
    evaluate, target = _sample(case, leaf)
    start = np.array([change.value(leaf) for change in (a, b)])
    scale = np.maximum(np.abs(start), 1e-3)

    def off(x: np.ndarray) -> np.ndarray:
        first, second = start + (x - 1) * scale
        path = evaluate(both(fixed(a, first), fixed(b, second)), 0.0)[0]
        return np.nan_to_num(path - target, nan=1e15, posinf=1e15)

    ones = np.ones(2)
    fit = least_squares(off, ones, xtol=1e-15, ftol=1e-15, gtol=1e-15, diff_step=1e-7, max_nfev=25)
    if np.abs(fit.fun).max() > 1e-6 * np.abs(off(ones)).max():
        return None
    x = float((start + (fit.x - 1) * scale)[0])
    short = (float(f"{x:.{digits}g}") for digits in range(1, 8))
    return next((s for s in short if abs(s - x) < 1e-4 * abs(x)), x)
