"""The report of a comparison: what was compared, what differs, and why."""

import dataclasses
import functools
import hashlib
import platform
from collections.abc import Callable, Iterable
from importlib import metadata
from typing import Any, NamedTuple

import numpy as np

from jaxsched._trace import Trace
from jaxsched.parity._distance import equal
from jaxsched.parity._explain._cause import Cause, list_quantities

MAX_SPREAD = 1e-6  # relative spread of a constant ratio or offset: float32's rounding


class Difference(NamedTuple):
    """The first place where two runs differ."""

    iteration: int
    mine: Any
    reference: Any


@dataclasses.dataclass(frozen=True)
class Quantity:
    """One hyperparameter of one group over a run, or one setting of it.

    Attributes:
      label: the group, ``""`` for a quantity of no group.
      name: the hyperparameter, or a setting such as ``update_rule``, which has one row.
      n: number of rows compared.
      equal: number of equal rows.
      max_ulp: the largest distance in float32 steps.
      max_relative: the largest distance relative to the reference's peak.
      first: the first row that differs, or None.
      is_setting: whether it is a setting of the whole run.
    """

    label: str
    name: str
    n: int
    equal: int
    max_ulp: int
    max_relative: float
    first: Difference | None
    is_setting: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """Label and name."""
        return self.label, self.name

    @property
    def is_one_sided(self) -> bool:
        """True if one side has no number in any row."""
        numbers = self.first[1:] if self.first and not self.is_setting else ()
        return not self.equal and any(map(np.isnan, numbers))

    def __str__(self) -> str:
        where = f"{self.label}/{self.name}" if self.label else self.name
        if self.first is None:
            return f"{where}: {self.n} of {self.n} equal"
        iteration, mine, reference = self.first
        if self.is_setting:
            return f"{where}: {mine} for {reference}"
        if self.is_one_sided and np.isnan(mine):
            return f"{where}: mine has none, where the reference has {reference!r}"
        if self.is_one_sided:
            return f"{where}: mine has {mine!r}, where the reference has none"
        return (
            f"{where}: {self.equal} of {self.n} equal, up to {self.max_ulp} ULP "
            f"({self.max_relative:.2g} of the peak), first at iteration {iteration}: "
            f"{mine!r} for {reference!r}"
        )


def column_of(quantity: Quantity, run: Trace) -> np.ndarray | None:
    """Return a quantity's column in a run, or None."""
    return (run.groups[quantity.label] if quantity.label else run.run).get(quantity.name)


@dataclasses.dataclass(frozen=True)
class Report:
    """The result of ``compare``; truthy if the runs are equal.

    Attributes:
      quantities: one for each hyperparameter and each setting that both have, and for each
        hyperparameter that only the reference has.
      not_compared: names that only one side states.
      search: a function from a report to its explanations.
      mine: the trace that was compared.
      reference: the trace that it was compared with.
      left_out: rows that only one side has, ``"iterations 0 to 59 of mine"``.

    >>> from jaxsched import Recipe, compare
    >>> mine, reference = (Recipe({"all": {"learning_rate": lr}}) for lr in (0.2, 0.1))
    >>> report = compare(mine, reference, iterations=3)
    >>> bool(report), report.causes
    (False, ('learning_rate 0.2 for 0.1',))
    >>> report.quantities[0].first
    Difference(iteration=0, mine=0.2..., reference=0.1...)
    """

    quantities: tuple[Quantity, ...]
    not_compared: tuple[str, ...] = ()
    search: Callable[["Report"], Iterable[Cause]] = dataclasses.field(
        default=lambda _: (), repr=False, compare=False
    )
    mine: Trace = dataclasses.field(default_factory=lambda: Trace({}), repr=False)
    reference: Trace = dataclasses.field(default_factory=lambda: Trace({}), repr=False)
    left_out: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return all(quantity.first is None for quantity in self.quantities)

    def evidence(self) -> dict[str, Any]:
        """Return every figure, the versions, and a hash of each side, in JSON's types.

        JSON has no NaN or infinity: such numbers are returned as text.
        """
        names = ("jaxsched", "jax", "jaxlib", "optax", "numpy")
        versions = {name: metadata.version(name) for name in names}
        return {
            "parity": bool(self),
            "quantities": [_as_json(dataclasses.asdict(quantity)) for quantity in self.quantities],
            "not_compared": list(self.not_compared),
            "left_out": list(self.left_out),
            "causes": [cause.evidence() for cause in self.explanations],
            "mine": _describe_side(self.mine),
            "reference": _describe_side(self.reference),
            "versions": {"python": platform.python_version(), **versions},
        }

    @functools.cached_property
    def explanations(self) -> tuple[Cause, ...]:
        """The changes of one side that reproduce the other, the simplest first.

        They are searched for when first read. Empty if the sides are equal or no cause is found.
        """
        return () if self else tuple(self.search(self))

    @property
    def causes(self) -> tuple[str, ...]:
        """The sentences of ``explanations``."""
        return tuple(map(str, self.explanations))

    @property
    def conclusions(self) -> list[str]:
        """Lines with the likely causes, and with facts about quantities that no cause explains."""
        explained = {key for cause in self.explanations for key in cause.quantities}
        facts: dict[tuple[Any, ...], list[tuple[str, str]]] = {}
        for q in self.quantities:
            if q.first and not (q.is_setting or q.is_one_sided or q.key in explained):
                fact = q.first.iteration, self._constant_distance(q)
                facts.setdefault(fact, []).append(q.key)
        return [f"likely cause: {cause}" for cause in self.causes] + [
            f"no cause found for {list_quantities(keys)}, which differ{'s' * (len(keys) == 1)} from "
            f"{self.reference.clock} {at} on{distance}"
            for (at, distance), keys in facts.items()
        ]

    def _constant_distance(self, quantity: Quantity) -> str:
        """Return the ratio or the offset of the differing rows as text, if it is constant."""
        mine, reference = (column_of(quantity, run) for run in (self.mine, self.reference))
        if mine is None or reference is None:
            return ""
        wrong = ~equal(mine, reference)
        x, y = (column.astype(np.float64)[wrong] for column in (mine, reference))
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio, offset = x / y, x - y
        for values, text in (
            (ratio, "mine is {0:.6g} times the reference"),
            (offset, "mine is the reference and {0:.6g}"),
        ):
            if np.isfinite(values).all() and np.ptp(values) <= MAX_SPREAD * np.abs(values).max():
                return f": {text.format(values[0])} there"
        return ""

    @property
    def first(self) -> Quantity | None:
        """The quantity that differs at the earliest iteration."""
        differing = [q for q in self.quantities if q.first is not None]
        return min(differing, key=lambda q: q.first.iteration if q.first else 0, default=None)

    @property
    def omissions(self) -> list[str]:
        """Lines with the names and the rows that were not compared."""
        lines = ("not compared, only on one side", self.not_compared), ("left out", self.left_out)
        return [f"{what}: {', '.join(names)}" for what, names in lines if names]

    def __str__(self) -> str:
        """Return one line if all is equal, else the differences and the causes; and omissions."""
        if self:
            rows = [q for q in self.quantities if not q.is_setting]
            labels = {q.label for q in rows if q.label}
            names = dict.fromkeys(q.name.replace("_", " ") for q in rows)
            worst = max(q.max_ulp for q in rows)
            counts = ((rows[0].n, self.reference.clock), (len(labels), "group"))
            many = [f"{k} {noun}{'s'[: k != 1]}" for k, noun in counts]
            first = f"parity: {' × '.join([*many, ', '.join(names)])}: {worst} ULP"
            return "\n".join([first, *self.omissions])
        lines = [str(q) for q in self.quantities if q.first is not None]
        equal = sum(q.first is None for q in self.quantities)
        first = f"no parity: {len(lines)} of {len(self.quantities)} quantities differ"
        lines += [f"{equal} equal"] if equal else []
        return "\n".join([first, *lines, *self.omissions, *self.conclusions])

    __repr__ = __str__


def _as_json(value: Any) -> Any:
    """Return a value in JSON's types, which have no NaN or infinity: these become text."""
    if isinstance(value, dict):
        return {key: _as_json(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_as_json(entry) for entry in value]
    return str(value) if isinstance(value, float) and not np.isfinite(value) else value


def _describe_side(trace: Trace) -> dict[str, Any]:
    """Return the hash, the header and the notes of a trace."""
    digest = hashlib.sha256()
    for name, values in sorted(trace.columns().items()):
        digest.update(f"{name} {values.dtype} {len(values)}\n".encode())
        digest.update(np.ascontiguousarray(values).tobytes())
    return {
        "sha256": digest.hexdigest(),
        "rows": len(trace),
        "start": trace.start,
        "header": _as_json(trace.header()),
        "meta": _as_json(dict(trace.meta)),
    }
