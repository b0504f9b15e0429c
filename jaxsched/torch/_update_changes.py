"""Changes of torch's recipe: of an argument, the clock, a value, the groups, the update rule.

Everything counts updates, and 0 is the first, but for the schedules' clock, which counts batches.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations, product
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

from jaxsched.parity._explain._cause import format_value
from jaxsched.parity._explain._solve import float_grid
from jaxsched.torch._update_case import Case
from jaxsched.torch._update_rules import DECAYS, FORMS, SHAPED, Recipe, is_array, simulate

MAX_SHIFT = 250  # batches by which a schedule may be early or late
# From a leaf, its recipe and candidates (1, c, 1) to the changed recipe.
Apply = Callable[[str, dict[str, Any], Any], dict[str, Any]]


class Change(NamedTuple):
    """A change of torch's recipe."""

    kind: str  # of the cause, as its name
    name: str
    sentence: str  # with {x} for the number and {y} for torch's
    apply: Apply = lambda leaf, given, x: given
    grid: np.ndarray | None = None  # numbers to begin with; None if there is no number
    mine: Any = None  # the number or choice, if it is not solved for
    value: Callable[[str], Any] = lambda leaf: None  # from a leaf to torch's
    words: Callable[[Any], str] = format_value  # what is written for {x}
    parts: tuple["Change", ...] = ()  # the changes that make this one, if there are several

    def path(self, case: Case, leaf: str, x: Any = 0.0, at: Any = slice(None)) -> np.ndarray:
        """Return where entries of a leaf go for each candidate, (updates, c, entries)."""
        x, label = np.reshape(x, (1, -1, 1)), case.labels.get(leaf)
        given = {"gradients": case.gradients[leaf], **(case.recipe(label) if label else {})}
        if (label is None) == (self.name == "trained"):
            given = self.apply(leaf, given, x)
        if "learning_rate" not in given:
            return np.repeat(case.reference[leaf][:, None, at], x.size, 1)
        if case.rule in SHAPED:
            return simulate(case.rule, case.start[leaf], given)[..., at]
        sampled = given | {"gradients": given["gradients"][..., at]}
        return simulate(case.rule, case.start[leaf][at], sampled)

    def describe(self, leaf: str, x: float) -> str:
        """Return it in words, with its number."""
        text = ""
        for part in self.parts or (self,):
            number = part.words(part.mine if part.grid is None else x)
            text += " and " if text and part.kind == "rule" else ", and " if text else ""
            text += part.sentence.format(x=number, y=format_value(part.value(leaf)))
        return text


def fixed(change: Change, x: Any) -> Change:
    """Return a change with its number given."""
    at = np.full((1, 1, 1), x)
    return change._replace(apply=lambda k, given, _: change.apply(k, given, at), grid=None, mine=x)


def both(first: Change, second: Change) -> Change:
    """Return two changes as one, with the number of the second."""
    return second._replace(
        apply=lambda leaf, given, x: second.apply(leaf, first.apply(leaf, given, x), x),
        parts=(*(first.parts or (first,)), second),
    )


def _map(names: Sequence[str], value: Callable[[Any, Any], Any]) -> Apply:
    """Return a function that changes entries of a recipe to ``value(torch's, x)``."""
    return lambda leaf, given, x: given | {name: value(given[name], x) for name in names}


def _put(values: Recipe) -> Apply:
    return lambda leaf, given, x: {**given, **values}


def _by_group(case: Case, recipes: Mapping[str, Recipe]) -> Apply:
    return lambda leaf, given, x: {**given, **recipes.get(case.labels[leaf], {})}


def _gradients(of: Callable[..., Any], **options: Any) -> Apply:
    """Return a function that changes the gradients to ``of(leaf, x, **options)``."""
    return lambda leaf, given, x: given | {"gradients": of(leaf, x, **options)}


def grid_around(value: float) -> np.ndarray:
    """Return ``float_grid`` with numbers just below 1, where averages have theirs."""
    return np.union1d(float_grid(value), 1 - np.geomspace(1e-7, 0.5, 60))


def with_a_number(case: Case) -> Iterator[Change]:
    """Yield the changes that have one."""
    if len(case.rows) > 1:
        yield from _clocks(case)
    yield from (argument(case, name) for name in case.names)
    columns, times = case.columns.values(), lambda v, x: v * x

    def varies(name: str) -> bool:
        sizes = {np.abs(column[name]).max() for column in columns} - {0}
        return len(sizes) > 1 or any((c[name] != c[name][0]).any() for c in columns)

    for name in (*filter(varies, case.names), "gradients"):
        kind = "argument" if name in case.names else "value"
        yield Change(kind, name, f"{name} times {{x}}", _map([name], times), grid_around(1.0))
    most, clip = case.clip_norm, _gradients(case.clip)
    sentence = "clip_norm {x} " + ("where torch has none" if most is None else "for {y}")
    grid = grid_around(most or 1.0)
    yield Change("argument", "clip_norm", sentence, clip, grid, value=lambda leaf: most)


def without_a_number(case: Case) -> Iterator[Change]:
    """Yield the changes that have no free number."""
    yield from zeros_and_switches(case)
    yield from _groups(case)
    yield from forms(case)
    yield from _sums_and_clips(case)
    every = {"hyperparameters": case.names, **{name: [name] for name in case.names}}
    for dtype, (what, names) in product((np.float32, ml_dtypes.bfloat16), every.items()):
        cast = _map(names, lambda v, x, dtype=dtype: v.astype(dtype).astype(np.float64))
        yield Change("value", dtype.__name__, f"{dtype.__name__} {what}", cast)


def argument(case: Case, name: str) -> Change:
    """Return the change of an argument to a number that is solved for, or of a switch."""

    def value(leaf: str) -> Any:
        column = case.columns[case.labels[leaf]][name] if leaf in case.labels else None
        if is_array(column):
            return float(column[0]) if (column == column[0]).all() else "a schedule"
        return column

    size = max(float(np.abs(column[name]).max()) for column in case.columns.values())
    change = _map([name], lambda v, x: 0 * v + x if is_array(v) else not v)
    grid = grid_around(size)
    return Change("argument", name, f"{name} {{x}} for {{y}}", change, grid, value=value)


def zeros_and_switches(case: Case) -> Iterator[Change]:
    """Yield arguments that are 0, switches that are off for on, and arguments exchanged."""
    for name, value in next(iter(case.columns.values())).items():
        is_switch = isinstance(value, bool) and name != "decoupled_weight_decay"
        if is_switch or is_array(value):
            yield fixed(argument(case, name), not value if is_switch else 0.0)
    for a, b in combinations(case.names, 2):

        def swap(leaf: str, given: Any, x: Any, a: str = a, b: str = b) -> Any:
            is_used = given[a].any() and given[b].any()
            return given | {a: given[b], b: given[a]} if is_used else given

        yield Change("argument", f"{a}, {b}", f"{a} and {b} exchanged", swap)


def _groups(case: Case) -> Iterator[Change]:
    """Yield arguments of another group, or of a group for a leaf that torch does not train."""
    recipes = {label: case.recipe(label) for label in dict.fromkeys(case.labels.values())}
    frozen = _map(["learning_rate"], lambda v, x: 0 * v)
    yield Change("groups", "frozen", "frozen where torch trains it", frozen)
    for label, recipe in recipes.items():
        if set(case.mine) - set(case.labels):
            sentence = f"what torch's optimizer does not train is trained, as group {label}"
            yield Change("groups", "trained", sentence, _put(recipe))
        for name in case.names:
            if any((recipe[name] != other[name]).any() for other in recipes.values()):
                put = _put({name: recipe[name]})
                yield Change("groups", name, f"{name} of group {label}", put)
        if len(recipes) > 1:
            yield Change("groups", "group", f"a parameter in another group: {label}", _put(recipe))
    for a, b in combinations(recipes, 2):
        swap = _by_group(case, {a: recipes[b], b: recipes[a]})
        yield Change("groups", "exchanged", f"groups {a} and {b} exchanged", swap)


def forms(case: Case) -> Iterator[Change]:
    """Yield other places of the weight decay, and other forms of the rule, one or two choices."""
    torchs = case.recipe(next(iter(case.columns)))["decay"]
    for decay, sentence in DECAYS.items() if "weight_decay" in case.names else ():
        if decay != torchs:
            yield Change("rule", "weight_decay", sentence, _put({"decay": decay}))
    options = FORMS[case.rule].options if case.rule in FORMS else {}
    single = [
        Change("rule", option, sentence, _put({option: choice}))
        for option, choices in options.items()
        for choice, sentence in list(choices.items())[1:]
    ]
    yield from single
    yield from (both(a, b) for a, b in combinations(single, 2) if a.name != b.name)


def _clocks(case: Case) -> Iterator[Change]:
    """Yield the scheduler's rows at other counts."""
    every, n = case.steps_per_epoch, case.accumulation
    k = np.arange(1.0, MAX_SHIFT + 1)

    def shifted(k: float) -> str:
        units = {"epoch": every if every > 1 else np.inf, "update": n, "iteration": 1}
        unit = next(unit for unit, size in units.items() if k % size == 0)
        count = int(abs(k)) // units[unit]
        return f"schedule {count} {unit}{'s' if count > 1 else ''} {'early' if k > 0 else 'late'}"

    def stretched(k: float) -> str:
        times = f"{k:g} times for once" if k > 1 else f"once in {1 / k:g} times"
        known = {
            every / n: "per update for per epoch",
            1 / n: "once in each update, not at each batch",
            every: "per iteration for per epoch",
        }
        return f"schedule stepped {known.get(k, times)}"

    def clock(batches: Callable[[Any], Any]) -> Apply:
        def apply(leaf: str, given: Any, x: Any) -> Any:
            steps = np.maximum(batches(x[..., 0]) // every, 0).astype(int)
            return given | case.recipe(case.labels[leaf], steps)

        return apply

    shift, shifts = clock(lambda k: case.iterations + k), np.stack([k, -k], 1).ravel()
    yield Change("clock", "shift", "{x}", shift, shifts, words=shifted)
    factors = np.array([1 / n, every / n, *k[1:], *1 / k[1:]])
    stretch = clock(lambda k: case.iterations * k + 1e-9)
    yield Change("clock", "stretch", "{x}", stretch, factors, words=stretched)


def _sums_and_clips(case: Case) -> Iterator[Change]:
    """Yield other ways to accumulate and to clip gradients."""
    n, clip, most = case.accumulation, case.clip, case.clip_norm or 0.0

    def accumulated(leaf: str, x: Any, size: float, dtype: Any) -> np.ndarray:
        total, *others = np.moveaxis(case.batches[leaf], 1, 0)
        for k, g in enumerate(others):
            total = total.astype(dtype).astype(np.float64)
            total = total + (g if size == 1 else (g - total) / (k + 2))
        return clip(leaf, None, total[:, None], size)

    averaged = "gradients averaged, not summed, under accumulation"
    in_float32 = "gradients accumulated in float32, optax.MultiSteps' accumulator_dtype"
    for sentence, size, dtype in (
        (averaged, 1 / n, np.float64),
        (f"{averaged}: and in float32", 1 / n, np.float32),
        (in_float32, 1.0, np.float32),
    ):
        change = _gradients(accumulated, size=size, dtype=dtype)
        if n > 1:
            yield Change("rule", "accumulation", sentence, change)
    ways: dict[str, Callable[[str], Any]] = {
        "missing": lambda k: clip(k, np.inf),
        "of each group by itself": lambda k: clip(k, together=case.labels.get),
        "of each parameter by itself": lambda k: clip(k, together=str),
        "of each entry by itself, as in optax.clip": lambda k: clip(k, np.inf).clip(-most, most),
        "by a norm that counts what is frozen": lambda k: clip(k, frozen=True),
        "of each batch's gradients, not of their sum": lambda k: clip(
            k, gradients=case.batches[k]
        ).sum(1, keepdims=True),
        "by optax.clip_by_global_norm, which has not torch's 1e-6": lambda k: clip(k, addend=0.0),
    }
    for way, of in ways.items() if case.clip_norm is not None else ():
        yield Change("rule", "clip", f"clip {way}", _gradients(lambda k, x, of=of: of(k)))
