"""Compare: where two runs part, by how much, and why.

Rows are iterations; the first is that of the reference's ``start``.
"""

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np

from jaxsched.recipe import Recipe
from jaxsched.trace import Trace

FLOAT64_BOUND = 1e-11
"""Distance that two float64 curves may have, relative to the peak.

A closed form and torch's recursion are as far apart as that; a curve that was
rounded to float32 on its way is 6e-8 away.
"""


def ulps(mine: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Distance in float32 steps, elementwise: 0 where the nearest float32 are the same.

    >>> ulps(np.array([1.0, 1.0]), np.array([1.0, 1.0 + 2**-23]))
    array([0, 1])
    """

    def ordered(values: np.ndarray) -> np.ndarray:
        bits = np.asarray(values, np.float32).view(np.int32).astype(np.int64)
        return np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)

    distance = np.abs(ordered(mine) - ordered(reference))
    nan_mine, nan_reference = np.isnan(mine), np.isnan(reference)
    distance[nan_mine & nan_reference] = 0
    distance[nan_mine ^ nan_reference] = np.iinfo(np.int32).max
    return distance


@dataclasses.dataclass(frozen=True)
class Quantity:
    """One hyperparameter of one group, over a run.

    Attributes:
      label: the group, ``""`` for what belongs to none.
      name: the hyperparameter.
      n: iterations compared.
      equal: how many of them are equal.
      max_ulp: the largest distance in float32 steps.
      max_relative: the largest distance relative to the reference's peak.
      first: ``(iteration, mine, reference)`` of the first that differs.
    """

    label: str
    name: str
    n: int
    equal: int
    max_ulp: int
    max_relative: float
    first: tuple[int, float, float] | None

    def __str__(self) -> str:
        where = f"{self.label}/{self.name}" if self.label else self.name
        if self.first is None:
            return f"{where}: {self.n} of {self.n} equal"
        iteration, mine, reference = self.first
        return (
            f"{where}: {self.equal} of {self.n} equal, up to {self.max_ulp} ULP "
            f"({self.max_relative:.2g} of the peak), first at iteration {iteration}: "
            f"{mine!r} for {reference!r}"
        )


@dataclasses.dataclass(frozen=True)
class Report:
    """What ``compare`` found; truthy where the two are equal.

    Attributes:
      quantities: one for each that the reference has.
      not_compared: names that only the other side has.
      causes: sentences, each a usual mistake that turns the reference into the
        other curve exactly; none where none does.
    """

    quantities: tuple[Quantity, ...]
    not_compared: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return all(quantity.first is None for quantity in self.quantities)

    @property
    def first(self) -> Quantity | None:
        """The quantity that differs at the earliest iteration."""
        differing = [q for q in self.quantities if q.first is not None]
        return min(differing, key=lambda q: q.first[0] if q.first else 0, default=None)

    def __str__(self) -> str:
        """The one line where all is equal; else what differs, and the causes."""
        if self:
            n = self.quantities[0].n
            labels = {q.label for q in self.quantities if q.label}
            names = dict.fromkeys(q.name.replace("_", " ") for q in self.quantities)
            worst = max(q.max_ulp for q in self.quantities)
            line = (
                f"parity: {n} iterations × {len(labels)} groups × {', '.join(names)}: {worst} ULP"
            )
            return line
        lines = [str(q) for q in self.quantities if q.first is not None]
        equal = sum(q.first is None for q in self.quantities)
        causes = [f"likely cause: {cause}" for cause in self.causes] or [
            "no usual mistake explains it"
        ]
        return "\n".join(
            [f"no parity: {len(lines)} of {len(self.quantities)} quantities differ", *lines]
            + ([f"{equal} equal"] if equal else [])
            + causes
        )


def compare(mine: Recipe | Trace, reference: Recipe | Trace) -> Report:
    """Holds two runs against each other, iteration by iteration.

    Values are equal where the nearest float32 are the same, for those are what
    acts on float32 parameters; where both sides are float64 they must also lie
    within ``FLOAT64_BOUND`` of the reference's peak.

    Args:
      mine: a recipe or a trace.
      reference: a recipe or a trace. A recipe is evaluated over the other
        side's trace; of two recipes, over the run that the reference's
        ``origin`` describes.

    Raises:
      ValueError: neither recipes nor traces; traces of other lengths, starts, clocks
        or groups, or with nothing to compare.

    >>> from jaxsched.recipes import yolov5_resnet18
    >>> recipe = yolov5_resnet18(epochs=2, steps_per_epoch=3, warmup_iterations=2)
    >>> print(compare(recipe, recipe.trace(6)))
    parity: 6 iterations × 3 groups × learning rate, momentum, dampening, weight decay: 0 ULP
    """
    a, b = _traces(mine, reference)
    columns = list(_columns(a, b))
    if not columns:
        raise ValueError(
            "traces must have at least 1 quantity to compare, got none in the reference's groups. "
            "Pass one that tells its hyperparameters."
        )
    quantities = tuple(_quantity(label, name, b.start, x, y) for label, name, x, y in columns)
    shared = {(label, name) for label, name, _, _ in columns}
    extra = dict.fromkeys(
        name for label, group in a.groups.items() for name in group if (label, name) not in shared
    )
    report = Report(quantities, tuple(extra))
    return report if report else dataclasses.replace(report, causes=tuple(_causes(a, b)))


def _traces(mine: Recipe | Trace, reference: Recipe | Trace) -> tuple[Trace, Trace]:
    for run in (mine, reference):
        if not isinstance(run, Recipe | Trace):
            raise ValueError(
                f"compare takes recipes and traces, got {type(run).__name__}. "
                "Read a trace's file with Trace.load."
            )
    if isinstance(reference, Recipe):
        if isinstance(mine, Trace):
            reference = reference.trace(len(mine), mine.start)
        elif reference.iterations is None:
            raise ValueError(
                "one of two recipes must tell how long its run is, got a reference without epochs "
                "in its origin. Compare with recipe.trace(n)."
            )
        else:
            reference = reference.trace(reference.iterations)
    if isinstance(mine, Recipe):
        mine = mine.trace(len(reference), reference.start)
    clocks = [trace.meta.get("clock", "iteration") for trace in (mine, reference)]
    for what, x, y in (
        ("clock", *clocks),
        ("start", mine.start, reference.start),
        ("length", len(mine), len(reference)),
        ("groups", ", ".join(sorted(mine.groups)), ", ".join(sorted(reference.groups))),
    ):
        if x != y:
            raise ValueError(
                f"traces must have the same {what}, got {x} against {y}. "
                + (
                    "Rename groups with relabel."
                    if what == "groups"
                    else "Compare the same stretch."
                )
            )
    if not len(reference):
        raise ValueError("traces must have at least 1 row, got 0.")
    return mine, reference


def _columns(mine: Trace, reference: Trace) -> Iterator[tuple[str, str, np.ndarray, np.ndarray]]:
    missing = np.full(len(reference), np.nan)
    for label, group in reference.groups.items():
        for name, values in group.items():
            yield label, name, mine.groups[label].get(name, missing), values
    # Who names a rule and no run, as a recipe's own trace does, updates at every batch and keeps
    # no average; what was read out of a state may not tell.
    if reference.run and (mine.run or mine.meta.get("update_rule")):
        ones = np.ones(len(reference))
        every: dict[str, np.ndarray] = {"accumulate": ones, "stepped": ones, "micro_batches": ones}
        for name, values in reference.run.items():
            yield "", name, mine.run.get(name, every.get(name, missing)), values


def _equal(mine: np.ndarray, reference: np.ndarray) -> np.ndarray:
    same = ulps(mine, reference) == 0
    if mine.dtype == reference.dtype == np.float64:
        same &= ~(np.abs(mine - reference) > FLOAT64_BOUND * np.abs(reference).max())
    return same


def _quantity(
    label: str, name: str, start: int, mine: np.ndarray, reference: np.ndarray
) -> Quantity:
    same = _equal(mine, reference)
    # Rounded to the coarser of the two: a float64 next to a float32 is no distance.
    dtype = np.result_type(np.float32, min(mine.dtype, reference.dtype, key=lambda d: d.itemsize))
    x, y = mine.astype(dtype).astype(np.float64), reference.astype(dtype).astype(np.float64)
    peak = np.abs(y).max()
    distance = np.abs(x - y).max()
    at = None if same.all() else int(np.argmin(same))
    return Quantity(
        label,
        name,
        len(same),
        int(same.sum()),
        int(ulps(mine, reference).max()),
        float(distance / peak) if peak else float(distance and np.inf),
        None if at is None else (start + at, mine[at].item(), reference[at].item()),
    )


def _causes(mine: Trace, reference: Trace) -> Iterator[str]:
    """Mistakes that show in the curves alone and reproduce them exactly."""
    labels = list(reference.groups)
    for permuted in itertools.permutations(labels) if len(labels) <= 4 else ():
        names = {old: new for old, new in zip(labels, permuted, strict=True) if old != new}
        if names and _same(mine, reference.relabel(names)):
            yield "groups are swapped: " + ", ".join(
                f"{o} has the values of {n}" for n, o in names.items()
            )
    for when, mine_rows, reference_rows in (
        ("late", (1, None), (0, -1)),
        ("early", (0, -1), (1, None)),
    ):
        if len(mine) > 2 and _same(_rows(mine, *mine_rows), _rows(reference, *reference_rows)):
            yield f"the run is one iteration {when}"


def _rows(trace: Trace, first: int, last: int | None) -> Trace:
    return Trace(
        {
            label: {name: values[first:last] for name, values in group.items()}
            for label, group in trace.groups.items()
        }
    )


def _same(mine: Trace, reference: Trace) -> bool:
    return all(_equal(x, y).all() for _, _, x, y in _columns(mine, reference))
