"""Two runs of an optimizer that differ, and what is known of torch's.

Everything counts updates, and 0 is the first, but for ``Case.iterations``.
"""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from jaxsched._validate import is_number
from jaxsched.torch._update_rules import DECOUPLED, FORMS, Recipe, is_array

Arrays = dict[str, np.ndarray]  # by leaf
# Of the largest difference so far: what a cause may leave of it, where that is more than the bound.
MAX_UNEXPLAINED = 1e-10  # schedules in closed form are 1e-11 from torch's recursion
DISTINCT = 20  # bounds: how large a difference must be to distinguish one cause from another
SAMPLED = 64  # entries of a parameter that are compared, where the rule takes each by itself


@dataclasses.dataclass(frozen=True, eq=False)
class Case:
    """Two runs that differ, and what is known of torch's."""

    start: Arrays  # the parameters before the first update, as ``entries`` returns them
    batches: Arrays  # the gradients, (updates, accumulation, entries)
    squares: Arrays  # the sums of their squares, all entries; last their sum's: accumulation + 1
    mine: Arrays  # the transformation's parameters after each update, (updates, entries)
    reference: Arrays  # torch's
    labels: Mapping[str, str]  # of each leaf that torch's optimizer trains
    rule: Callable[..., Any]  # torch's
    # The arguments of torch's groups after 0, 1, 2, … steps of the scheduler, by label and name.
    rows: Sequence[Mapping[str, Mapping[str, Any]]]
    steps_per_epoch: int  # batches between two of those
    clip_norm: float | None  # the most that the norm of all gradients may be
    bound: float  # how far an entry may be off, relative to the largest of its leaf so far

    @property
    def accumulation(self) -> int:
        """Batches in an update."""
        return next(iter(self.batches.values())).shape[1]

    @cached_property
    def iterations(self) -> np.ndarray:
        """The batch after which each update is made, (updates, 1)."""
        updates = len(next(iter(self.batches.values())))
        return (np.arange(updates)[:, None] + 1) * self.accumulation - 1

    @cached_property
    def columns(self) -> dict[str, Recipe]:
        """The arguments of each group after each step of the scheduler; switches as they are."""
        parameters = inspect.signature(self.rule).parameters

        def column(label: str, name: str, value: Any) -> Any:
            if not is_number(value) or parameters[name].annotation is int:
                return value
            return np.array([row[label][name] for row in self.rows], np.float64)

        groups = self.rows[0].items()
        return {label: {k: column(label, k, v) for k, v in g.items()} for label, g in groups}

    @cached_property
    def names(self) -> list[str]:
        """The arguments that are numbers."""
        return [name for name, v in next(iter(self.columns.values())).items() if is_array(v)]

    def recipe(self, label: str, steps: np.ndarray | None = None) -> dict[str, Any]:
        """Return a group's recipe, without gradients, at ``steps`` of the scheduler (updates, c).

        Where steps are given and the scheduler's run is over, numbers are NaN.
        """
        at = self.iterations // self.steps_per_epoch if steps is None else steps
        last = len(self.rows) - 1
        over = (at > last) & (steps is not None)
        given = {
            name: np.where(over, np.nan, v[np.minimum(at, last)])[..., None] if is_array(v) else v
            for name, v in self.columns[label].items()
        }
        apart = given.pop("decoupled_weight_decay", False) or self.rule in DECOUPLED
        options = FORMS[self.rule].options if self.rule in FORMS else {}
        torchs = {name: next(iter(choices)) for name, choices in options.items()}
        return {**given, **torchs, "decay": "decoupled" if apart else "coupled"}

    def clip(
        self,
        leaf: str,
        most: Any = None,
        gradients: Any = None,
        size: float = 1.0,
        together: Callable[[str], Any] = lambda leaf: None,
        frozen: bool = False,
        addend: float = 1e-6,
    ) -> np.ndarray:
        """Return gradients clipped as by torch's ``clip_grad_norm_``, (updates, c, entries).

        The gradients are torch's sum or, one or several an update, others whose norm is ``size``
        times torch's. The norm, at ``most`` torch's unless given as (1, c, 1), is of all trained,
        or ``frozen`` too, leaves for which ``together`` returns the same.
        """
        gradients = self.batches[leaf].sum(1, keepdims=True) if gradients is None else gradients
        most = self.clip_norm if most is None else most
        if most is None:
            return gradients
        beside = [k for k in self.mine if frozen or k in self.labels]
        squares = np.zeros_like(self.squares[leaf])
        squares += sum(self.squares[k] for k in beside if together(k) == together(leaf))
        own = squares[:, -1:] if gradients.shape[1] == 1 else squares[:, :-1]
        return gradients * np.minimum(1 / (size * np.sqrt(own)[..., None] + addend) * most, 1)

    @cached_property
    def gradients(self) -> Arrays:
        """The gradients that reach torch's rule, (updates, 1, entries)."""
        return {leaf: self.clip(leaf) for leaf in self.mine}

    @cached_property
    def differing(self) -> list[str]:
        """The leaves that differ."""
        return [leaf for leaf in self.mine if self.differs(leaf, self.mine[leaf])]

    @cached_property
    def allowed(self) -> Arrays:
        """How far a changed run may be from mine after each update, (updates,)."""
        allowed = {}
        for leaf, mine in self.mine.items():
            left = MAX_UNEXPLAINED * largest(mine - self.reference[leaf])
            least = np.maximum(np.finfo(np.float64).tiny, self.bound * largest(mine))
            allowed[leaf] = np.maximum.accumulate(np.maximum(left, least))
        return allowed

    def differs(self, leaf: str, path: np.ndarray, bounds: float = 1.0) -> bool:
        """Return whether a path of a leaf is not the reference's."""
        start, reference = self.start[leaf].reshape(1, -1), self.reference[leaf]
        sizes = np.maximum.accumulate(largest(np.concatenate([start, reference])))[1:]
        return not (largest(path - reference) <= bounds * self.bound * sizes).all()

    def is_distinct(self, leaf: str) -> bool:
        """Return whether a leaf is so far off that causes can be distinguished by it."""
        return self.differs(leaf, self.mine[leaf], DISTINCT)

    def known(self, leaf: str, path: np.ndarray) -> float:
        """Return the share of updates at which a path is known, if it is mine's there; 0 if not."""
        off = largest(path - self.mine[leaf])
        is_known = ~np.isnan(off)
        return float(is_known.mean()) if (off <= self.allowed[leaf])[is_known].all() else 0.0


def entries(array: np.ndarray, shaped: bool) -> np.ndarray:
    """Return the entries of a parameter that are compared; all in its shape if ``shaped``."""
    if shaped:
        return array.copy()
    at = np.unique(np.linspace(0, max(array.size - 1, 0), SAMPLED).astype(int))
    return array.ravel()[at if array.size else []]


def seen_of(pending: Sequence[Arrays], mine: Arrays, reference: Arrays, shaped: bool) -> Any:
    """Return the row of ``Case`` for one update, from its batches' gradients and what follows."""
    batches = {leaf: [gradients[leaf] for gradients in pending] for leaf in mine}
    squares = {k: [(g * g).sum() for g in (*gs, np.sum(gs, 0))] for k, gs in batches.items()}

    def compared(array: np.ndarray) -> np.ndarray:
        return entries(array, shaped).ravel()

    return {
        "batches": {k: np.stack([compared(g) for g in gs]) for k, gs in batches.items()},
        "squares": {k: np.array(sums) for k, sums in squares.items()},
        "mine": {leaf: compared(p) for leaf, p in mine.items()},
        "reference": {leaf: compared(p) for leaf, p in reference.items()},
    }


def largest(path: np.ndarray) -> np.ndarray:
    """Return the largest entry after each update; NaN where there is one."""
    return np.abs(path).max(1, initial=0.0)
