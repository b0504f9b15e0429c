"""Mistakes in what a factory was given: the recipe made anew with one argument changed.

Counts are iterations; a recipe that starts elsewhere is laid beside the other from
its own start.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from jaxsched._recipe import Recipe
from jaxsched._validate import is_number
from jaxsched.parity._causes import Case, Key, Mistake, evaluated
from jaxsched.parity._curves import matching
from jaxsched.parity._structure import ends_of

KINDS = {
    "start_epoch": "resumed at the wrong epoch",
    "resumed": "resumed with the wrong state",
    "epochs": "cosine with another denominator",
    "steps_per_epoch": "epoch of another length",
    "warmup_bias_lr": "warm-up start",
    "warmup_momentum": "warm-up start",
    "batch_size": "weight decay and accumulation of another batch",
    "optimizer": "another update rule",
}
"""What a wrong argument leads to, where its name alone does not tell."""

SETTINGS = ("hyp", "args")
"""Arguments that are mappings of further ones."""

BATCHES = tuple(2**k for k in range(11))


def mistakes(case: Case) -> Iterator[Mistake]:
    """All of this file's; none where no factory made the recipe."""
    if case.recipe is None or case.recipe.origin is None:
        return
    factory, given = case.recipe.origin
    if not given or "epochs" not in given:
        return
    yield from _undone(case)
    for place, value in _places(given):
        for other in dict.fromkeys(_others(case, factory, given, place, value)):
            if other == value:
                continue
            made = _Made(factory, _changed(given, place, other))
            yield Mistake(
                case.say(_text(case, place[-1], other, value), other, value),
                made.beside(case),
                everywhere=True,
            )


def _text(case: Case, name: str, other: Any, value: Any) -> str:
    kind = KINDS.get(name, f"another {name}")
    if name == "epochs" and case.arguments.get("cos_lr") is False:
        kind = kind.replace("cosine", "line")
    if name in ("warmup_iterations", "warmup_epochs"):
        kind = f"warm-up too {'long' if (other > value) != case.flipped else 'short'}"
    return f"{kind}: {name} {{ours}} for {{theirs}}"


def _places(given: Mapping[str, Any]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, value in given.items():
        if isinstance(value, Mapping) and name in SETTINGS:
            yield from (((name, key), entry) for key, entry in value.items())
        else:
            yield (name,), value


def _changed(given: Mapping[str, Any], place: tuple[str, ...], value: Any) -> dict[str, Any]:
    if len(place) == 1:
        return {**given, place[0]: value}
    return {**given, place[0]: {**given[place[0]], place[1]: value}}


class _Made:
    """A recipe that is made when it is first asked for, with what its factory refuses left out."""

    def __init__(self, factory: Callable[..., Recipe], arguments: Mapping[str, Any]) -> None:
        self.factory, self.arguments = factory, arguments
        self.recipe: Recipe | None = None
        self.refused = False
        self.run: dict[str, np.ndarray] = {}

    def make(self) -> Recipe | None:
        if self.recipe is None and not self.refused:
            try:
                self.recipe = self.factory(**self.arguments)
            except (ValueError, TypeError, OSError):
                self.refused = True
        return self.recipe

    def beside(self, case: Case) -> Callable[[Key, np.ndarray], np.ndarray | None]:
        """Its values at the counts of ``case``, from its own start."""

        def curve(key: Key, counts: np.ndarray) -> np.ndarray | None:
            recipe = self.make()
            if recipe is None:
                return None
            rows = counts - case.reference.start
            begin = case.reference.start
            if case.recipe is not None and begin == case.recipe.start:
                begin = recipe.start
            if not key[0]:
                return self.told(recipe, key[1], begin, rows)
            entry: Any = recipe.groups.get(key[0], {}).get(key[1])
            if callable(entry):
                return evaluated(entry, begin + rows)
            return np.full(len(rows), entry, np.float64) if is_number(entry) else None

        return curve

    def told(self, recipe: Recipe, name: str, begin: int, rows: np.ndarray) -> np.ndarray | None:
        """Of what belongs to no group."""
        n = int(rows.max()) + 1
        if not self.run or len(next(iter(self.run.values()))) < n:
            self.run = recipe.bookkeeping(n, begin)
        return self.run[name][rows] if name in self.run else None


def _others(
    case: Case, factory: Any, given: Mapping[str, Any], place: tuple[str, ...], value: Any
) -> Iterator[Any]:
    """What the argument may have been."""
    name = place[-1]
    if isinstance(value, bool):
        yield not value
    elif name in ("epochs", "steps_per_epoch"):
        yield from (value - 1, value + 1)
    elif name == "start_epoch":
        epoch = given["steps_per_epoch"]
        found = [-k // epoch for k in matching(case) if k % epoch == 0]
        yield from (value - 1, value + 1, *(value + k for k in found[:6]), 0)
    elif name == "batch_size":
        if "weight_decay" in case.names or any(not label for label, _ in case.differing):
            yield from BATCHES
    elif name in ("warmup_iterations", "warmup_epochs"):
        epoch = given["steps_per_epoch"]
        unit, one = (1, epoch) if name == "warmup_iterations" else (epoch, 1)
        yield from (end if unit == 1 else end / unit for end in ends_of(case))
        yield from (v for v in (value - 1, value + 1, value - one, value + one, 0) if v >= 0)
    elif is_number(value):
        yield from _numbers(case, factory, given, place, value)


def _numbers(
    case: Case, factory: Any, given: Mapping[str, Any], place: tuple[str, ...], value: Any
) -> Iterator[Any]:
    """Those that lead to mine's value where it differs most: curves are lines in most arguments."""
    key = next((key for key in case.differing if key[0]), None)
    if key is None:
        return
    ours, theirs = case.columns[key]
    at = case.counts[[int(np.argmax(np.abs(ours - theirs)))]]
    step = value or 0.5
    second = _Made(factory, _changed(given, place, value + step)).beside(case)(key, at)
    first, mine = case.at(key, at)[0], float(case.columns[key][0][at[0] - case.reference.start])
    if second is None or not np.isfinite(second[0] - first) or second[0] == first:
        return
    solved = value + step * (mine - float(first)) / float(second[0] - first)
    for digits in range(1, 7):
        short = float(f"{solved:.{digits}g}")
        if abs(short - solved) <= 1e-4 * abs(solved) and short >= 0:
            yield short
    if abs(solved) < 1e-6:
        yield 0.0


def _undone(case: Case) -> Iterator[Mistake]:
    """What the factory computes from an argument, left out."""
    given = dict(entry for place, entry in ((p, (p[-1], v)) for p, v in _places(case.arguments)))
    raw: Any = given.get("weight_decay")
    if is_number(raw) and not case.flipped:
        yield Mistake(
            f"weight decay not scaled by accumulation: {raw:g} as it stands",
            lambda key, counts: (
                np.full(len(counts), float(raw) if case.at(key, counts[:1])[0] else 0.0)
                if key[1] == "weight_decay"
                else None
            ),
        )
    if "b1" in case.names and "optimizer" in given and case.recipe and case.recipe.origin:
        factory, arguments = case.recipe.origin
        sgd = _Made(factory, {**arguments, "optimizer": "SGD"}).beside(case)
        yield Mistake(
            "beta1 warmed up, as SGD's momentum is",
            lambda key, counts: sgd((key[0], "momentum"), counts) if key[1] == "b1" else None,
        )
