"""Search for the causes of a difference between an Optax transformation and a torch optimizer.

A cause is one or two changes of torch's recipe that reproduce the transformation's parameters after
every update. Numbers are solved for.
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import combinations, product
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
from scipy.optimize import least_squares

from jaxsched.parity._explain._cause import Cause, choose, format_value, list_quantities
from jaxsched.parity._explain._solve import CANDIDATES, DIGITS, float_grid, solve
from jaxsched.torch._update_runs import FORMS, OPTIONS, SHAPED, Case, largest_entry, simulate

MAX_SHIFT = 250  # batches by which a schedule may be early or late
DISTINCT = 20  # smallest difference, in bounds, that distinguishes causes
SOLVED = 3  # entries of a leaf to solve for
FEW = 8  # candidates at a time for a rule that acts on whole parameters
ENCLOSED = 0.6  # share of the rows that neighbours of a grid must enclose to search between them
MIN_KNOWN = 0.5  # the changed run must be known at a larger share of the updates
MIN_SCALE = 1e-3  # unit of a number that is 0 in torch, in a fit of two
MAX_EVALUATIONS = 25  # evaluations of the run in a fit of two numbers
MAX_UNFITTED = 1e-6  # largest share of the difference that such a fit may leave
MAX_ROUNDING = 1e-4  # largest relative rounding of its first number
FAR = 1e15  # error of a run that diverges
# Options with which two numbers are tried, as in optax.adagrad and optax.rmsprop.
PLACES = (["epsilon"], ["inside", "epsilon"])

Edit = Callable[[dict[str, Any], Any], dict[str, Any]]
"""A function from a recipe and numbers (1, c, 1) to the recipe's changed entries."""


class Change(NamedTuple):
    """A change of torch's recipe: of an argument, the clock, a value, the groups, the rule."""

    kind: str  # the cause's kind, and its name
    name: str
    sentence: str  # with {x} for the number and {y} for torch's
    edit: Edit
    grid: np.ndarray = np.array([])  # the first candidates
    words: Callable[[float], str] = format_value  # formats the number for {x}


Steps = Sequence[tuple[Change, Any]]
"""Changes, each with its number, or a group's label, or 0 if it has none."""


def explain(case: Case) -> list[Cause]:
    """Return causes that together explain every differing leaf; an empty list if there are none."""
    leaves, causes = case.differing_leaves(), []

    def is_explained(leaf: str) -> bool:
        return any((leaf, "parameter") in cause.quantities for cause in causes)

    with np.errstate(all="ignore"):  # a candidate may diverge
        for leaf in leaves:
            off = largest_entry(_path(case, (), leaf)[:, 0] - case.reference[leaf])
            if not (off <= case.tolerance[leaf]).all():
                return []  # torch's path is not reproduced, such as Muon's in bfloat16
        for attempts, leaf in product((_choices, _numbers, _pairs), leaves):
            for steps in () if is_explained(leaf) else attempts(case, leaf):
                causes += _causes(case, steps, leaf, leaves)
            if attempts is _pairs and not is_explained(leaf):
                return []
    causes = choose(causes, [(leaf, "parameter") for leaf in leaves])
    if len(causes) == 1 and causes[0].curves:  # a change of all leaves would make others differ
        sentence = f"{causes[0].sentence}, in {list_quantities(causes[0].quantities)}"
        causes = [dataclasses.replace(causes[0], sentence=sentence)]
    return causes


def _causes(case: Case, steps: Steps, leaf: str, leaves: list[str]) -> Iterator[Cause]:
    """Yield the steps as the cause of all leaves that they explain, if ``leaf`` is among them."""
    if case.known_share(leaf, _path(case, steps, leaf)[:, 0]) <= MIN_KNOWN:
        return
    shares = {k: case.known_share(k, _path(case, steps, k)[:, 0]) for k in leaves}
    shares = {k: share for k, share in shares.items() if share > MIN_KNOWN}
    if len(shares) != len(leaves):
        shares = {k: shares[k] for k in case.differing_leaves(DISTINCT) if k in shares}
    (change, x), sentence = steps[-1], _sentence(case, steps, leaf)
    alike = [k for k in case.mine if k not in leaves and _sentence(case, steps, k) == sentence]
    moved = {k: path for k in alike if case.differs(k, path := _path(case, steps, k)[:, 0])}
    # Groups are exchanged only if no leaf of theirs moves as in torch.
    if shares and not (moved and change.name == "exchanged"):
        yield Cause(
            change.kind,
            change.name,
            sentence,
            x,
            case.value(leaf, change.name),
            tuple((k, "parameter") for k in shares),
            numbers=len(steps) - 1 + (x != 0),
            known_share=min(shares.values()),
            curves={(k, "parameter"): path for k, path in moved.items()},
        )


def _sentence(case: Case, steps: Steps, leaf: str) -> str:
    text = ""
    for change, x in steps:
        y = format_value(case.value(leaf, change.name))
        text += "" if not text else " and " if change.kind == "rule" else ", and "
        text += change.sentence.replace("{x}", change.words(x)).replace("{y}", y)
    return text


def _path(case: Case, steps: Steps, leaf: str, at: Any = slice(None)) -> np.ndarray:
    """Return the path of a leaf's entries for each candidate, (updates, c, entries)."""
    recipe, start = case.recipe(case.labels.get(leaf)), case.start[leaf]
    for change, x in steps:
        if (recipe["label"] is None) == (change.name == "trained"):
            recipe |= change.edit(recipe, np.ravel(x)[None, :, None])
    if case.rule in SHAPED:
        return simulate(case.rule, start, case.gradients(leaf, recipe), recipe)[..., at]
    return simulate(case.rule, start[at], case.gradients(leaf, recipe, at), recipe)


def _put(entries: dict[str, Any]) -> Edit:
    return lambda recipe, x: entries


def _map(names: Sequence[str], value: Callable[[Any, Any], Any]) -> Edit:
    return lambda recipe, x: {name: value(recipe[name], x) for name in names}


def _choices(case: Case, leaf: str) -> Iterator[Steps]:
    """Yield changes without a free number."""
    yield from _options(case)
    yield from ([(change, 0.0)] for change in _arguments(case)[:-1])
    yield from ([step] for step in _groups(case))
    used = [k for k in case.names if any(column[k].any() for column in case.columns.values())]
    for names in combinations(used, 2):
        edit = partial(lambda a, b, recipe, x: {a: recipe[b], b: recipe[a]}, *names)
        change = Change("argument", ", ".join(names), f"{' and '.join(names)} exchanged", edit)
        yield [(change, 0.0)]
    every = {"hyperparameters": case.names, **{name: [name] for name in case.names}}
    for dtype, what in product((np.float32, ml_dtypes.bfloat16), every):
        edit = _map(every[what], lambda v, x, dtype=dtype: v.astype(dtype).astype(np.float64))
        yield [(Change("value", dtype.__name__, f"{dtype.__name__} {what}", edit), 0.0)]


def _options(case: Case) -> Sequence[Steps]:
    """Return changes of a switch, and other choices of one option or two."""
    torchs = case.recipe(next(iter(case.columns)))
    changes = [
        Change("argument", name, f"{name} {not value} for {value}", _put({name: not value}))
        for name, value in torchs.items()
        if isinstance(value, bool) and name not in OPTIONS
    ]
    changes += [
        Change("rule", option, sentence, _put({option: choice}))
        for option, sentences in OPTIONS.items()
        for choice, sentence in sentences.items()
        if choice != torchs[option]
    ]
    rule = [change for change in changes if change.kind == "rule"]
    pairs = [[(a, 0.0), (b, 0.0)] for a, b in combinations(rule, 2) if a.name != b.name]
    return [*([(change, 0.0)] for change in changes), *pairs]


def _groups(case: Case) -> Iterator[tuple[Change, Any]]:
    """Yield changes that take the arguments of another group, or train a leaf torch does not.

    Each comes with a number or, as it counts as one, with the label of the group.
    """
    leaves = {case.labels[leaf]: leaf for leaf in case.mine if leaf in case.labels}
    recipes, arguments = {label: case.recipe(label) for label in leaves}, _arguments(case)
    rate = case.recipe(None)["learning_rate"]
    frozen = "frozen where torch trains it"
    yield Change("groups", "group", frozen, _put({"learning_rate": rate})), 0.0
    for label, recipe in recipes.items():
        trained = f"what torch's optimizer does not train is trained, as group {label}"
        yield Change("groups", "trained", trained, _put(recipe)), 0.0
        for change in arguments[:-1]:
            name, x = change.name, case.value(leaves[label], change.name)
            if any((recipe[name] != other[name]).any() for other in recipes.values()):
                sentence = f"{name} taken from group {label}"
                yield Change("groups", "group", sentence, _put({name: recipe[name]})), x
                if isinstance(x, float):
                    yield change, x
        another = f"every argument taken from group {label}"
        yield Change("groups", "group", another, _put(recipe)), label
    for a, b in combinations(recipes, 2):
        others = {a: recipes[b], b: recipes[a]}
        edit = partial(lambda others, recipe, x: others.get(recipe["label"], {}), others)
        yield Change("groups", "exchanged", f"groups {a} and {b} exchanged", edit), 0.0


def _arguments(case: Case) -> list[Change]:
    """Return changes of one argument, with a free number."""

    def change(name: str, value: float | None) -> Change:
        edit = _map([name], lambda v, x: np.broadcast_arrays(x, v)[0])
        return Change("argument", name, f"{name} {{x}} for {{y}}", edit, float_grid(value or 1.0))

    sizes = {k: max(np.abs(c[k]).max() for c in case.columns.values()) for k in case.names}
    return [change(name, size) for name, size in {**sizes, "clip_norm": case.clip_norm}.items()]


def _factors(case: Case) -> Iterator[Change]:
    """Yield changes that multiply the gradients, or an argument that varies."""
    sizes = {k: {abs(x) for c in case.columns.values() for x in c[k] if x} for k in case.names}
    kinds = {name: "argument" for name, values in sizes.items() if len(values) > 1}
    for name, kind in {**kinds, "gradients": "value"}.items():
        yield Change(kind, name, f"{name} times {{x}}", _map([name], np.multiply), float_grid(1.0))


def _clocks(case: Case) -> Iterator[Change]:
    """Yield changes of the scheduler's clock."""
    every, n, k = case.steps_per_epoch, case.accumulation, np.arange(1.0, MAX_SHIFT + 1)

    def shift(k: float) -> str:
        units = {"epoch": every if every > 1 else np.inf, "update": n, "iteration": 1}
        unit, count = next((unit, abs(k) / size) for unit, size in units.items() if k % size == 0)
        return f"{count:g} {unit}{'s' * (count > 1)} {'early' if k > 0 else 'late'}"

    def times(k: float) -> str:
        usual = {
            1 / n: "once in each update, not at each batch",
            every: "per iteration for per epoch",
        }
        other = f"{k:g} times for once" if k > 1 else f"once in {1 / k:g} times"
        return f"stepped {usual.get(k, other)}"

    grids = {shift: [*k, *-k], times: [1 / n, every / n, *k[1:], *1 / k[1:]]}
    for words, grid in grids.items() if len(case.rows) > 1 else ():

        def edit(recipe: dict[str, Any], k: Any, name: str = words.__name__) -> dict[str, Any]:
            return case.recipe(recipe["label"], **{name: k[..., 0]})

        yield Change("clock", words.__name__, "schedule {x}", edit, np.array(grid), words)


def _numbers(case: Case, leaf: str) -> Iterator[Steps]:
    """Yield single changes with the numbers that fit."""
    for change in (*_clocks(case), *_arguments(case), *_factors(case)):
        yield from _solve(case, leaf, [], change)


def _pairs(case: Case, leaf: str) -> Iterator[Steps]:
    """Yield a change with a number together with options, or with another number."""
    if case.rule not in FORMS:
        return
    numbers = _arguments(case)
    options = [*_options(case), *([(change, 0.0)] for change in numbers), []]
    # Of steps with the same effect, keep the shortest; a number without options has been tried.
    effects = {
        _path(case, steps, leaf).tobytes(): steps for steps in sorted(options, key=len)[::-1]
    }
    options = [steps for steps in effects.values() if steps]
    for steps, change in product(options, numbers):
        if all(change.name != other.name for other, _ in steps):
            yield from _solve(case, leaf, steps, change)
    places = [steps for steps in options if [change.name for change, _ in steps] in PLACES]
    constant = [change for change in numbers if isinstance(case.value(leaf, change.name), float)]
    for a, b in combinations(constant, 2):
        for steps in [[], *(places if "eps" in (a.name, b.name) else ())]:
            yield from _fit(case, leaf, steps, a, b)


def _sample(case: Case, leaf: str, steps: Steps, changes: Sequence[Change]) -> Any:
    """Return a function from the changes' numbers to rows, (c, rows), and the rows of mine.

    Rows are the entries with the largest difference at the first differing update, from this update
    on, in units of ``tolerance``.
    """
    mine, tolerance = case.mine[leaf], case.tolerance[leaf][:, None]
    off = np.abs(mine - case.reference[leaf]) / tolerance
    first = int(np.argmax((off > 1).any(1)))
    at = np.argsort(-off[first], kind="stable")[:SOLVED]

    def evaluate(*numbers: Any) -> np.ndarray:
        path = _path(case, [*steps, *zip(changes, numbers, strict=True)], leaf, at)
        path = (path / tolerance[:, None])[first:]
        shape = len(path), np.size(numbers[0]), len(at)  # numbers without effect give one path
        return np.swapaxes(np.broadcast_to(path, shape), 0, 1).reshape(shape[1], -1)

    return evaluate, (mine / tolerance)[first:, at].ravel()


def _is_equal(values: np.ndarray, target: np.ndarray) -> np.ndarray:
    return np.abs(values - target) <= 1


def _solve(case: Case, leaf: str, steps: Steps, change: Change) -> Iterator[Steps]:
    """Yield the steps and this change with a number that reproduces a sample of a leaf."""
    evaluate, target = _sample(case, leaf, steps, [change])
    size = FEW if case.rule in SHAPED else CANDIDATES  # JAX compiles a rule once for one size
    grid = np.pad(change.grid, (0, -len(change.grid) % size), "edge")
    values = np.concatenate([evaluate(block) for block in grid.reshape(-1, size)])
    same, is_known, numbers = _is_equal(values, target), ~np.isnan(values), []
    side = np.where(same, 0, np.sign(values - target))
    if change.kind == "clock":
        numbers = grid[(same | ~is_known).all(1) & (is_known.mean(1) > MIN_KNOWN)].tolist()
    # Unless most rows lie between the values of two neighbours, no number between them fits.
    elif (side[1:] * side[:-1] <= 0).mean(1).max() > ENCLOSED:
        numbers = solve(evaluate, target, grid, _is_equal, size=size)
    yield from ([*steps, (change, x)] for x in numbers[:1])


def _fit(case: Case, leaf: str, steps: Steps, a: Change, b: Change) -> Iterator[Steps]:
    """Yield the steps and two changes with the numbers that reproduce a sample of a leaf."""
    evaluate, target = _sample(case, leaf, steps, [a, b])
    start = np.array([case.value(leaf, change.name) for change in (a, b)])
    scale = np.maximum(np.abs(start), MIN_SCALE)

    def off(x: np.ndarray) -> np.ndarray:
        rows = evaluate(*(start + x * scale))[0] - target
        return np.where(np.isfinite(rows), rows, FAR)

    unchanged = np.zeros_like(start)
    fit = least_squares(off, unchanged, max_nfev=MAX_EVALUATIONS)
    if np.abs(fit.fun).max() <= MAX_UNFITTED * np.abs(off(unchanged)).max():
        inexact = (start + fit.x * scale)[0]
        short = dict.fromkeys(float(f"{inexact:.{digits}g}") for digits in DIGITS)
        for x in short:  # the shortest first
            if abs(x - inexact) > MAX_ROUNDING * abs(inexact):
                continue
            for *before, (_, y) in _solve(case, leaf, [*steps, (a, x)], b):
                if _is_equal(evaluate(x, y)[0], target).all():
                    yield [*before, (b, y)]
                    return
