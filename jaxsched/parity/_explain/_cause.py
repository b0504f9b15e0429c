"""Causes: changes of one run that reproduce the other, and the choice among several."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

KINDS = ("argument", "rule", "clock", "groups", "value")  # the order of equally simple causes

Key = tuple[str, str]
"""A group's label, ``""`` for a quantity of no group, and the name of a quantity."""

MAX_ALTERNATIVES = 3  # causes with the same rows, named in one sentence
MOSTLY_KNOWN = 0.75  # a change known at a smaller share of the rows comes after others
MAX_NAMED = 4  # groups named in a sentence


@dataclasses.dataclass(frozen=True)
class Cause:
    """A change of one run that reproduces the other."""

    kind: str  # "argument", "clock", "value", "groups" or "rule"
    name: str  # the argument, or the change, such as "shift"
    sentence: str  # the change in words, without its range; {names} for those of its quantities
    mine: Any = None  # the number or choice on this side
    reference: Any = None  # the number or choice of the reference
    quantities: tuple[Key, ...] = ()  # the quantities that it reproduces
    start: int | None = None  # the first iteration at which it acts; None: from the first row on
    stop: int | None = None  # the iteration from which it no longer acts; None: to the last row
    numbers: int = 1  # free numbers, without the ends of the range
    known_share: float = 1.0  # share of the rows at which the changed run is known
    exact: bool = True  # whether the rows are reproduced to the bit, not within a bound
    parts: tuple["Cause", ...] = ()  # two changes that reproduce it together
    alternatives: tuple["Cause", ...] = ()  # other changes that give the same rows
    curves: Mapping[Key, np.ndarray] = dataclasses.field(  # the changed run, NaN where not known
        default_factory=dict, repr=False, compare=False
    )
    changes_reference: bool = True  # whether the reference is changed to reproduce mine

    @property
    def is_throughout(self) -> bool:
        """True if it acts from the first row to the last."""
        return self.start is None and self.stop is None

    @property
    def free_numbers(self) -> int:
        """The number of free numbers: those of the change and the ends of its range."""
        return self.numbers + (self.start is not None) + (self.stop is not None)

    @property
    def cost(self) -> tuple[Any, ...]:
        """The key that orders causes; those of the same cost are equally likely."""
        is_rare = self.known_share < MOSTLY_KNOWN
        return not self.exact, self.free_numbers, not self.is_throughout, is_rare

    @property
    def rank(self) -> tuple[Any, ...]:
        """``cost``, then the order of ``KINDS``, the number of changes, and the sentence's length."""
        return *self.cost, KINDS.index(self.kind), len(self.parts), len(self.sentence)

    def __str__(self) -> str:
        """Return the sentence, the range, and the alternatives."""
        if self.start is not None and self.stop is not None:
            rows = f", from iteration {self.start} to {self.stop - 1}"
        elif self.stop is not None:
            rows = f", until iteration {self.stop - 1}"
        else:
            rows = "" if self.start is None else f", from iteration {self.start} on"
        return self.sentence + rows + "".join(f", or {cause}" for cause in self.alternatives)

    def evidence(self) -> dict[str, Any]:
        """Return the fields for a report's file."""
        names = ("kind", "name", "mine", "reference", "exact")
        return {
            "sentence": str(self),
            **{name: getattr(self, name) for name in names},
            "quantities": ["/".join(filter(None, key)) for key in self.quantities],
            "from": self.start,
            "until": self.stop,
            "parts": [cause.evidence() for cause in self.parts],
            "alternatives": [cause.evidence() for cause in self.alternatives],
        }


def format_value(value: Any) -> str:
    """Return a number, a sequence in brackets, or a function's name as text.

    >>> format_value((0.1, np.float64(2.0), 3))
    '[0.1, 2.0, 3]'
    """
    if isinstance(value, tuple | list):
        return f"[{', '.join(map(format_value, value))}]"
    if isinstance(value, float | np.floating):
        return repr(float(value))
    return getattr(value, "__name__", str(value))


def list_quantities(keys: Sequence[Key]) -> str:
    """Return quantities as text, by name.

    >>> list_quantities([("weight", "learning_rate"), ("bias", "learning_rate")])
    'learning_rate of weight and bias'
    """
    labels: dict[str, list[str]] = {}
    for label, name in keys:
        labels.setdefault(name, []).append(label)
    parts = []
    for name, group in labels.items():
        more = [f"{len(group) - MAX_NAMED} more"] if len(group) > MAX_NAMED else []
        parts.append(f"{name} of {' and '.join([*group[:MAX_NAMED], *more])}" if group[0] else name)
    return ", ".join(parts)


def merge(causes: Iterable[Cause]) -> list[Cause]:
    """Merge causes of the same change; the result has all their quantities."""
    merged: dict[Any, Cause] = {}
    for cause in causes:
        change = cause.sentence, cause.start, cause.stop
        first = merged.get(change, cause)
        merged[change] = dataclasses.replace(
            first,
            quantities=tuple(dict.fromkeys([*first.quantities, *cause.quantities])),
            curves=(
                {**cause.curves, **first.curves}
                if cause.changes_reference == first.changes_reference
                else first.curves
            ),
            known_share=min(first.known_share, cause.known_share),
        )
    return list(merged.values())


def choose(causes: Iterable[Cause], differing: Sequence[Key]) -> list[Cause]:
    """Choose the fewest and simplest causes that reproduce as many quantities as possible."""
    pool, left, chosen = [], set(differing), []
    for cause in merge(causes):
        names = " and ".join(dict.fromkeys(name for _, name in cause.quantities))
        sentence = cause.sentence.replace("{names}", names)
        pool.append(dataclasses.replace(cause, sentence=sentence))
    while useful := [cause for cause in pool if left & set(cause.quantities)]:
        useful.sort(key=lambda c: (-len(left & set(c.quantities)), *c.rank))
        best = useful[0]
        # Prefer several simpler causes to one with more numbers.
        simple = [c for c in useful if c.cost[:2] < best.cost[:2]]
        if left & set(best.quantities) <= set().union(*(c.quantities for c in simple)):
            best = simple[0]
        here = left & set(best.quantities)
        alike = [c for c in useful if c.cost == best.cost and here <= set(c.quantities)]
        others: dict[Any, Cause] = {}
        for cause in [best, *sorted(alike, key=lambda c: c.rank)]:
            # One of each kind; of arguments, one for each pair of numbers.
            numbers = cause.mine, cause.reference
            others.setdefault(numbers if cause.kind == "argument" else cause.kind, cause)
        alternatives = tuple(others.values())[1:MAX_ALTERNATIVES]
        chosen.append(dataclasses.replace(best, alternatives=alternatives))
        left -= here
    if len(chosen) == 1 and not left:
        return chosen
    for k, cause in enumerate(chosen):
        group = list_quantities([key for key in differing if key in cause.quantities])
        chosen[k] = dataclasses.replace(cause, sentence=f"{cause.sentence}, in {group}")
    return chosen
