"""The two runs of a search: their schedules, and how far a changed run reproduces the other."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsched import schedules
from jaxsched._recipe import Recipe
from jaxsched._schedule import Schedule, as_float64
from jaxsched._trace import UNSTATED, Trace
from jaxsched._validate import is_number
from jaxsched.optimizers import EMA, Accumulation
from jaxsched.parity._distance import FLOAT64_BOUND, equal
from jaxsched.parity._explain._cause import Cause, Key

BLOCK = 8192  # values computed at a time: JAX compiles each operation for each length
ZERO_TOLERANCE = 1e-15  # values below this share of the peak count as zero
SAMPLED = 5  # rows around changes, and rows evenly spread, at which a change is tried first
LEAST_KNOWN, MANY = 0.5, 8  # share of the differing rows to reproduce, or distinct values in them
MARGIN = 2  # values to reproduce in a range, for each free number and each end
ROUNDED = ("float32", "bfloat16", "decimals")

Path = tuple[str | int, ...]
"""Names of arguments and positions in sequences, from a schedule down to one inside it."""


def expression(node: Any) -> tuple[Callable[..., Any] | None, Mapping[Any, Any]]:
    """Return a schedule's factory and arguments; for a table, those of its ``then``.

    The arguments of a sequence are its entries, by position.
    """
    if isinstance(node, tuple):
        return None, dict(enumerate(node))
    if not isinstance(node, Schedule):
        return None, {}
    then = node.arguments.get("then")
    if node.factory is schedules.table and isinstance(then, Schedule):
        return expression(then)
    return node.factory, node.arguments


def nodes(entry: Any, path: Path = ()) -> Iterator[tuple[Path, Any]]:
    """Yield the path of each schedule and function in an entry, from the outermost on."""
    if callable(entry):
        yield path, entry
    for name, subtree in expression(entry)[1].items():
        if callable(subtree) or isinstance(subtree, tuple):
            yield from nodes(subtree, (*path, name))


def rebuild(node: Any, paths: Sequence[Path], change: Callable[[Any, Any], Any], value: Any) -> Any:
    """Return a copy of ``node`` with ``change(old, value)`` in place of each ``old`` at ``paths``."""
    if () in paths:
        return change(node, value)
    rest: dict[str | int, list[Path]] = {}
    for first, *others in paths:
        rest.setdefault(first, []).append(tuple(others))
    factory, arguments = expression(node)
    new = {k: rebuild(arguments[k], inner, change, value) for k, inner in rest.items()}
    is_traced = isinstance(value, jax.Array)
    if factory is not None:  # a traced value cannot be replayed: use the closed form
        steps = {"steps": None} if is_traced and "steps" in arguments else {}
        return factory(**{**arguments, **steps, **new})
    entries = tuple({**arguments, **new}.values())
    if all(map(is_number, node)):
        if is_traced:
            return jnp.stack(entries)
        if sorted(node) == [*node] and sorted(entries) != [*entries]:
            raise ValueError(f"entries must ascend as {node} do, got {entries}.")
    return entries


class Column(functools.partial[np.ndarray]):
    """A function of NumPy counts, not traced by JAX: a run's numbers, NaN where unknown."""


def evaluate(entry: Any, counts: np.ndarray) -> np.ndarray:
    """Return the float64 values of a schedule, or of a number, at counts, (n,)."""
    if isinstance(entry, Column):
        return entry(counts)
    if not callable(entry):
        return np.full(len(counts), entry, np.float64)
    return evaluate_each(lambda _: entry, np.zeros(1), counts)[0]


def evaluate_each(
    build: Callable[[Any], Any], numbers: np.ndarray, counts: np.ndarray
) -> np.ndarray:
    """Return the values of ``build(number)`` for numbers (c,) at counts (n,): (c, n)."""
    each, rows = np.broadcast_arrays(numbers[:, None], counts)
    pairs = [
        np.pad(x.ravel(), (0, -x.size % BLOCK), "edge").reshape(-1, BLOCK) for x in (each, rows)
    ]

    def value(number: Any, count: Any) -> Any:
        return as_float64(jnp.asarray(build(number)(count)))

    with jax.enable_x64(True):
        values = [*map(jax.vmap(value), *pairs)]
    return np.concatenate(values)[: rows.size].reshape(rows.shape)


class Run(NamedTuple):
    """One side: its trace, and the recipe of the trace, or None for a recording."""

    trace: Trace
    recipe: Recipe | None

    @property
    def counts(self) -> np.ndarray:
        """The count of each row, (n,)."""
        return self.trace.start + np.arange(len(self.trace))

    def column(self, key: Key) -> np.ndarray:
        """Return the numbers of a quantity, (n,), in float32 if that is exact."""
        column = (self.trace.groups[key[0]] if key[0] else self.trace.run)[key[1]]
        with np.errstate(over="ignore"):
            rounded = column.astype(np.float32)
        return rounded if (rounded == column).all() else column

    def entry(self, key: Key) -> Any:
        """Return the recipe's schedule of a quantity, or the number of a constant one, or None."""
        groups = self.recipe.groups if self.recipe else {}
        entry: Any = groups.get(key[0], {}).get(key[1])
        factory, arguments = expression(entry)
        entry = arguments["value"] if factory is schedules.constant else entry
        if callable(entry):
            return entry
        column = self.column(key)
        if (column == column[0]).all() and (key[1] != "learning_rate" or self.recipe is not None):
            return float(entry) if is_number(entry) else float(str(column[0]))
        return None

    def column_function(self, key: Key) -> Column:
        """Return a quantity as a function of the count; a recipe's continues after the last row."""
        start, numbers = self.trace.start, self.column(key)
        if callable(entry := self.entry(key)):
            start, numbers = 0, evaluate(entry, np.arange(start + 2 * len(self.trace)))
        values = np.pad(numbers, 1, constant_values=np.nan)
        return Column(lambda i: values.take(i + 1 - start, mode="clip"))

    def replay(self) -> dict[str, np.ndarray]:
        """Return the columns of ``run`` that follow from ``accumulate`` and the header.

        Those of a resumed process do not: its first update comes early.
        """
        columns, header, average = self.trace.run, self.trace.accumulation, self.trace.ema
        start, n = self.trace.start, len(self.trace)
        if header is None:
            replayed = dict.fromkeys(("accumulate", "stepped", "micro_batches"), np.ones(n))
        elif header is UNSTATED or "accumulate" not in columns:
            return {}
        else:
            batches = schedules.table(columns["accumulate"], start=start)
            replayed = Accumulation(batches, header["steps_per_epoch"]).simulate(start, n)
        if isinstance(average, Mapping):
            names = (field.name for field in dataclasses.fields(EMA))
            ema = EMA(**{name: average[name] for name in names if name in average})
            replayed |= ema.simulate(replayed["stepped"])
        return {k: v for k, v in replayed.items() if equal(columns.get(k, v), v).all()}

    def replace_quantity(self, key: Key, entry: Any, curve: np.ndarray) -> "Run":
        """Return the run with another schedule of a quantity, and the schedule's curve."""

        def replace(run: Any, value: Any) -> Any:
            group = {**run.groups[key[0]], key[1]: value}
            return dataclasses.replace(run, groups={**run.groups, key[0]: group})

        return Run(replace(self.trace, curve), replace(self.recipe, entry))


def implied_quantities(mine: Run, reference: Run) -> list[Key]:
    """Return the quantities that follow, on both sides, from ``accumulate`` and the header.

    If one side does not accumulate, ``accumulate`` follows from the header too.
    """
    sides = (mine, reference)
    names = set(mine.replay()) & set(reference.replay())
    averages = [side.trace.ema for side in sides if isinstance(side.trace.ema, Mapping)]
    if len({average.get("updates") for average in averages}) > 1:  # no setting states it
        names -= {"ema_updates", "ema_decay"}
    inputs = () if any(side.trace.accumulation is None for side in sides) else ("accumulate",)
    return [("", name) for name in sorted(names.difference(inputs))]


@dataclasses.dataclass
class Case:
    """A run to change, the run to reproduce, and whether the first is the reference."""

    base: Run
    target: Run
    changes_reference: bool
    implied: Sequence[Key] = ()

    @functools.cached_property
    def keys(self) -> list[Key]:
        """The quantities that both runs have in all rows, without the implied ones."""
        sides = (self.base, self.target)
        first, second = ({**side.trace.groups, "": side.trace.run} for side in sides)
        both = [(k, n) for k, group in first.items() for n in group if n in second.get(k, {})]
        both = [key for key in both if key not in self.implied]
        return [k for k in both if not any(np.isnan(side.column(k)).any() for side in sides)]

    @functools.cached_property
    def differing_rows(self) -> dict[Key, np.ndarray]:
        """``{key: mask of the differing rows, (n,)}`` of the quantities that differ."""
        wrong = {key: ~self.is_same(key, self.base.column(key)) for key in self.keys}
        return {key: rows for key, rows in wrong.items() if rows.any()}

    @functools.cached_property
    def epoch(self) -> int | None:
        """Rows in an epoch, stated by a recipe or inferred from a curve that changes at multiples."""
        stated, gaps = [], []
        for run, key in itertools.product((self.base, self.target), self.keys):
            parts = (expression(node) for _, node in nodes(run.entry(key)))
            stated += [a["steps_per_epoch"] for f, a in parts if f is schedules.per_epoch]
            rows = np.flatnonzero(np.diff(run.column(key))) + 1 + run.trace.start
            alone = rows[1:][np.diff(rows) > 1]  # outside a warm-up, in which each row changes
            gaps += [np.gcd.reduce(alone)] if len(alone) > 1 else []
        length = [*filter(is_number, stated), max(gaps, default=1)][0]
        return int(length) if length > 1 else None

    def sample(self, key: Key) -> np.ndarray:
        """Return rows that differ, around changes and evenly spread, ascending."""
        rows = np.flatnonzero(self.differing_rows[key])
        before = np.flatnonzero(np.diff(self.target.column(key)))
        changes = np.intersect1d([before, before + 1], rows)
        return np.unique([*_spread(changes, SAMPLED), *_spread(rows, SAMPLED), *rows[:2]])

    def is_same(self, key: Key, values: np.ndarray, rows: Any = slice(None)) -> np.ndarray:
        """Return where values equal the other run's, as in ``equal``, or are both 0 after rounding."""
        x = self.target.column(key)
        peak, is_exact = np.abs(x).max(), x.dtype == values.dtype == np.float64
        with np.errstate(invalid="ignore", over="ignore"):
            distance = np.abs(values.astype(np.float64) - x[rows])
            same = values.astype(np.float32) == x[rows].astype(np.float32)
        if is_exact:
            same &= distance <= FLOAT64_BOUND * peak
        return same | (distance <= ZERO_TOLERANCE * peak)

    def fit(self, key: Key, curve: np.ndarray, cause: Cause) -> Cause | None:
        """Return the cause with its range of rows and curve; None if the curve does not fit."""
        x, wrong, is_known = self.target.column(key), self.differing_rows[key], ~np.isnan(curve)
        bad = is_known & ~self.is_same(key, curve)
        first, last = int(wrong.argmax()), len(wrong) - int(wrong[::-1].argmax())
        is_used = is_known & wrong
        is_enough = len(np.unique(x[is_used])) >= MANY or is_used.sum() >= LEAST_KNOWN * wrong.sum()
        if not is_enough or bad[first:last].any():
            return None
        start = self.base.trace.start + first if bad[:first].any() else None
        stop = self.base.trace.start + last if bad[last:].any() else None
        fitted = dataclasses.replace(
            cause,
            quantities=(key,),
            start=start,
            stop=stop,
            known_share=float(is_known.mean()),
            curves={key: curve},
            changes_reference=self.changes_reference,
        )
        return fitted if self._is_determined(key, fitted, is_used) else None

    def _is_determined(self, key: Key, cause: Cause, is_used: np.ndarray) -> bool:
        """Return whether a change reproduces more differing values than it has free numbers.

        The ends of a range are free numbers too. A rounding must act from the first row to the last.
        """
        x, y = self.target.column(key), self.base.column(key)
        values = len(np.unique(x[is_used]))
        if not cause.is_throughout:
            return cause.name not in ROUNDED and values > MARGIN * cause.free_numbers
        if cause.numbers and cause.name in ("per epoch", "per iteration"):  # y must not be in steps
            return bool(np.count_nonzero(np.diff(y)) > 2 * np.count_nonzero(np.diff(x)))
        if cause.kind == "value" and cause.name not in ROUNDED:
            return max(values, len(np.unique(y[is_used]))) > 1
        return cause.kind != "clock" or values > 1 or len(np.unique(x)) > 2

    def count_prefix(self, key: Key, curve: np.ndarray) -> int:
        """Return the number of rows that a curve reproduces from the first differing one on."""
        rows, same = np.flatnonzero(self.differing_rows[key]), self.is_same(key, curve)
        failed = int((same | np.isnan(curve)).argmin())
        return max(failed - int(rows[0]), 0) if failed <= rows[-1] else 0


def _spread(rows: np.ndarray, n: int) -> np.ndarray:
    """Return at most ``n`` of the rows, with the first and the last."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, n).astype(int))] if len(rows) else rows
