"""Two runs side by side, and the report of it. Rows are those of the reference's clock."""

import dataclasses
import hashlib
import itertools
import platform
from collections.abc import Iterator, Mapping
from importlib import metadata
from typing import Any

import numpy as np

from jaxsched.parity import arguments, curves, structure
from jaxsched.parity.causes import Case, causes, kind
from jaxsched.parity.rows import equal, ulps
from jaxsched.recipe import Recipe
from jaxsched.trace import Trace

MOST = 6
"""Groups of which every renaming is tried."""


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
        if not self.equal and np.isnan(mine):
            return f"{where}: mine has none, where the reference has {reference!r}"
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
        other curve, the simplest first; none where none does.
      mine: the trace that was held against the other.
      reference: the other.
    """

    quantities: tuple[Quantity, ...]
    not_compared: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()
    mine: Trace = dataclasses.field(default_factory=lambda: Trace({}), repr=False)
    reference: Trace = dataclasses.field(default_factory=lambda: Trace({}), repr=False)

    def __bool__(self) -> bool:
        return all(quantity.first is None for quantity in self.quantities)

    def evidence(self) -> dict[str, Any]:
        """Every figure, the versions, and a hash of each side, as JSON has it.

        What is no finite number, of a quantity that mine lacks, is its text: JSON has none.
        """
        names = ("jaxsched", "jax", "jaxlib", "optax", "numpy")
        return {
            "parity": bool(self),
            "quantities": [_finite(dataclasses.asdict(quantity)) for quantity in self.quantities],
            "not_compared": list(self.not_compared),
            "causes": list(self.causes),
            "mine": _side(self.mine),
            "reference": _side(self.reference),
            "versions": {
                "python": platform.python_version(),
                **{name: metadata.version(name) for name in names},
            },
        }

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
            clock = self.reference.meta.get("clock", "iteration")
            many = [
                f"{k} {noun}{'s'[: k != 1]}" for k, noun in ((n, clock), (len(labels), "group"))
            ]
            return f"parity: {' × '.join([*many, ', '.join(names)])}: {worst} ULP"
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


def compare(
    mine: Recipe | Trace, reference: Recipe | Trace, *, iterations: int | None = None
) -> Report:
    """Holds two runs against each other, iteration by iteration.

    Values are equal where the nearest float32 are the same, for those are what
    acts on float32 parameters; where both sides are float64 they must also lie
    within ``FLOAT64_BOUND`` of the reference's peak.

    Where they part, the usual mistakes are tried, on the reference where it is a recipe
    or a trace of any origin, the other way round where only ``mine`` is a recipe;
    those that reproduce the other curve are the report's causes. What only an
    update shows is for ``jaxsched.torch.assert_optimizer_matches``.

    Args:
      mine: a recipe or a trace.
      reference: a recipe or a trace. A recipe is evaluated over the other
        side's trace, and where that counts updates at the iterations at which it makes one;
        of two recipes, over the run that an ``origin`` describes, the reference's first.
      iterations: of two recipes, how many; if not given, to that run's end.

    Raises:
      ValueError: neither recipes nor traces; traces of other lengths, starts, clocks
        or groups, or with nothing to compare.

    >>> from jaxsched.recipes import yolov5_resnet18
    >>> recipe = yolov5_resnet18(epochs=2, steps_per_epoch=3, warmup_iterations=2)
    >>> print(compare(recipe, recipe.trace(6)))
    parity: 6 iterations × 3 groups × learning rate, momentum, dampening, weight decay: 0 ULP
    >>> other = yolov5_resnet18(epochs=2, steps_per_epoch=3, warmup_iterations=3)
    >>> compare(other, recipe).causes[0]
    'warm-up too long: warmup_iterations 3 for 2'
    """
    a, b = _traces(mine, reference, iterations)
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
    report = Report(quantities, tuple(extra), (), a, b)
    if report or any(name not in a.groups[label] for label, name, *_ in columns if label):
        return report
    found = [*_causes(a, b, reference, mine)]
    return dataclasses.replace(report, causes=tuple(dict.fromkeys(found)))


def _causes(a: Trace, b: Trace, reference: Recipe | Trace, mine: Recipe | Trace) -> Iterator[str]:
    sources = (curves, arguments, structure)
    recipe = _of_iterations(reference, b)
    case = Case(a, b, recipe)
    told = list(causes(case, (m for source in sources for m in source.mistakes(case))))
    yield from told
    made = _of_iterations(mine, a)
    if made is not None and (recipe is None or not told):
        case = Case(b, a, made, flipped=True)
        kinds = {kind(cause) for cause in told}
        tried = (m for source in sources[1:] for m in source.mistakes(case))
        yield from causes(case, (m for m in tried if kind(m.sentence) not in kinds))


def _of_iterations(run: Recipe | Trace, trace: Trace) -> Recipe | None:
    """A recipe whose rows are iterations, for its schedules to be asked of other ones.

    Where every iteration makes an update, so are the rows of a trace that counts updates.
    """
    if not isinstance(run, Recipe):
        return None
    by_update = trace.meta.get("clock", "iteration") != "iteration"
    each = run.accumulation is None and run.start == trace.start
    return run if each or not by_update else None


def _traces(
    mine: Recipe | Trace, reference: Recipe | Trace, iterations: int | None
) -> tuple[Trace, Trace]:
    for run in (mine, reference):
        if not isinstance(run, Recipe | Trace):
            raise ValueError(
                f"compare takes recipes and traces, got {type(run).__name__}. "
                "Read a trace's file with Trace.load."
            )
    if isinstance(reference, Recipe):
        if isinstance(mine, Trace):
            reference = _told(reference, _beside(reference, mine), mine)
        else:
            n = iterations or reference.iterations or mine.iterations
            if n is None:
                raise ValueError(
                    "one of two recipes must tell how long its run is, got a reference without "
                    "epochs in its origin. Compare with recipe.trace(n)."
                )
            reference = reference.trace(n)
    if isinstance(mine, Recipe):
        mine = _beside(mine, reference)
    clocks = [trace.meta.get("clock", "iteration") for trace in (mine, reference)]
    for what, x, y in (
        ("clock", *clocks),
        ("start", mine.start, reference.start),
        ("length", len(mine), len(reference)),
        ("groups", ", ".join(sorted(mine.groups)), ", ".join(sorted(reference.groups))),
    ):
        if x != y:
            remedy = _renaming(mine, reference) if what == "groups" else "Compare the same stretch."
            raise ValueError(f"traces must have the same {what}, got {x} against {y}. {remedy}")
    if not len(reference):
        raise ValueError("traces must have at least 1 row, got 0.")
    return mine, reference


def _renaming(mine: Trace, reference: Trace) -> str:
    """How groups of other names are to be renamed: as makes all equal, where one way does."""
    labels = list(mine.groups)
    ways = [
        dict(zip(labels, names, strict=True))
        for names in itertools.permutations(reference.groups)
        if len(labels) == len(names) <= MOST
    ]
    equal_ways = [
        way
        for way in ways
        if all(equal(x, y).all() for _, _, x, y in _columns(mine.relabel(way), reference))
    ]
    if len(equal_ways) != 1:
        return "Rename groups with relabel."
    told = ",".join(f"{old}={new}" for old, new in equal_ways[0].items())
    return f"Rename groups with relabel: {told} makes all equal."


def _told(recipe: Recipe, trace: Trace, other: Trace) -> Trace:
    """The recipe's trace without defaults of its rule that ``other`` does not tell."""
    groups = {
        label: {
            name: values
            for name, values in group.items()
            if name in recipe.groups[label] or name in other.groups.get(label, group)
        }
        for label, group in trace.groups.items()
    }
    return dataclasses.replace(trace, groups=groups)


def _beside(recipe: Recipe, trace: Trace) -> Trace:
    """The recipe's trace over the rows of another; of its updates, where that counts those."""
    n = len(trace)
    if not n:
        raise ValueError("traces must have at least 1 row, got 0.")
    own = recipe.clock
    if trace.meta.get("clock", "iteration") != "update" or own == "update":
        return recipe.trace(n, trace.start)
    if recipe.accumulation is None:
        whole = recipe.trace(n, recipe.start)
    else:
        iterations = n
        while (made := recipe.run(iterations)["stepped"]).sum() < n:
            iterations *= 2
        whole = recipe.trace(int(np.searchsorted(np.cumsum(made), n)) + 1)
    rows = np.flatnonzero(whole.run["stepped"]) if "stepped" in whole.run else np.arange(n)
    groups = {
        label: {name: values[rows] for name, values in group.items()}
        for label, group in whole.groups.items()
    }
    return Trace(groups, start=trace.start, meta={**whole.meta, "clock": "update"})


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


def _quantity(
    label: str, name: str, start: int, mine: np.ndarray, reference: np.ndarray
) -> Quantity:
    same = equal(mine, reference)
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


def _finite(value: Any) -> Any:
    """What JSON can hold: a number that is not finite as its text."""
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return str(value) if isinstance(value, float) and not np.isfinite(value) else value


def _side(trace: Trace) -> dict[str, Any]:
    """A trace by its hash, with what it says of itself."""
    digest = hashlib.sha256()
    columns: Mapping[str, Mapping[str, np.ndarray]] = {**trace.groups, "": trace.run}
    for label, group in sorted(columns.items()):
        for name, values in sorted(group.items()):
            digest.update(f"{label}/{name} {values.dtype} {len(values)}\n".encode())
            digest.update(np.ascontiguousarray(values).tobytes())
    return {
        "sha256": digest.hexdigest(),
        "rows": len(trace),
        "start": trace.start,
        "meta": _finite(dict(trace.meta)),
    }
