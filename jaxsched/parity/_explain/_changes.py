"""What can be changed: the clock, the value, the groups, and the arguments of a schedule."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import ml_dtypes
import numpy as np

from jaxsched import schedules
from jaxsched._schedule import Schedule, as_float64
from jaxsched._validate import is_number
from jaxsched.parity._explain._cause import Cause, Key, format_value
from jaxsched.parity._explain._runs import Case, Path, expression, nodes, rebuild

MAX_FITTED = 40  # numbers that are compared at all rows, of those that do at the sampled ones
ROUNDINGS = 8  # bound on arithmetic in another dtype, in roundings of the peak
NEVER = 2**31  # a count that no run reaches
DTYPES = (np.float32, ml_dtypes.bfloat16)
FIXED = ("steps", "then", "values")  # how a curve is computed, not which one it is
CHOICES = (("cos", "linear"), ("triangular", "triangular2", "exp_range"), ("cycle", "iterations"))
ALIKE = (schedules.cosine, schedules.linear, schedules.one_cycle)  # the same arguments

Causes = Iterator[Cause | None]
"""Of each change that is tried the cause, None where it does not reproduce the other run."""


class Change(NamedTuple):
    """A change of the clock or of the value, with one number ``k``."""

    name: str  # of the cause
    change: Callable[[Any, Any, Any], Any]  # of NumPy or jnp, counts or values, and k
    phrase: str
    neutral: float  # the number that changes nothing, an integer or a float as those to try
    is_slower: bool = False  # whether a larger number holds the clock back
    kind: str = "clock"

    def wrap(self, schedule: Callable[[Any], Any], k: Any) -> Callable[[Any], Any]:
        """Return the schedule with its clock or value changed; its count stays at least 0."""
        if self.kind == "value":
            return lambda count: self.change(jnp, as_float64(schedule(count)), as_float64(k))

        def changed(count: Any) -> Any:
            whole, number = (jnp.asarray(v).astype(jnp.int64) for v in (count, k))
            return as_float64(schedule(jnp.maximum(self.change(jnp, whole, number), 0)))

        return changed

    def shown(self, k: Any) -> Any:
        """Return the number, None for the one that changes nothing."""
        return None if k == self.neutral else k

    def words(
        self, *_: str, k: Any, unit: str, epoch: Any = None, part: str = "", name: str = ""
    ) -> str:
        """Return what the number ``k`` does to a part of a schedule, in words."""
        forms = {"early": early(k, unit, epoch), "times": _plural(k, unit), "k": format_value(k)}
        return part + self.phrase.format(unit=unit, **forms)


CLOCKS = (
    Change("shift", lambda xp, i, k: i + k, "{early}", 0),
    Change("shift", lambda xp, i, k: xp.maximum(i - k, 0), "begins {times} late", 0, True),
    Change("stretch", lambda xp, i, k: i * k, "stepped {k} times for once", 1),
    Change("stretch", lambda xp, i, k: (i + 1) * k - 1, "stepped {k} times for once", 1),
    Change("stretch", lambda xp, i, k: i // k, "stepped once in {times}", 1, True),
    Change("per epoch", lambda xp, i, k: i // k * k, "constant for {times} each", 1),
    Change("stopped", lambda xp, i, k: xp.minimum(i, k), "stopped at {unit} {k}", NEVER),
    Change(
        "reset", lambda xp, i, k: xp.where(i < k, i, i - k), "started again at {unit} {k}", NEVER
    ),
    Change("reset", lambda xp, i, k: i % k, "started again every {times}", NEVER),
)
VALUES = (
    Change("factor", lambda xp, y, k: y * k, "times {k}", 1.0, kind="value"),
    Change("addend", lambda xp, y, k: y + k, "plus {k}", 0.0, kind="value"),
    Change("floor", lambda xp, y, k: xp.maximum(y, k), "at least {k}", -np.inf, kind="value"),
    Change("cap", lambda xp, y, k: xp.minimum(y, k), "at most {k}", np.inf, kind="value"),
)


def early(k: int, unit: str, epoch: int | None) -> str:
    """Return iterations ahead in words, as epochs where they are whole ones."""
    if epoch and k % epoch == 0:
        k, unit = k // epoch, "epoch"
    return f"{_plural(abs(k), unit)} {'early' if k > 0 else 'late'}"


def _plural(n: Any, unit: str) -> str:
    return f"{format_value(n)} {unit}{'s' * (n != 1)}"


def _at(table: np.ndarray, counts: np.ndarray) -> np.ndarray:
    return table[np.where((counts >= 0) & (counts < len(table)), counts, -1)]


def column_changes(case: Case, key: Key) -> Causes:
    """Yield the changes of a column that reproduce the other's."""
    table, x = case.base.table(key), case.target.column(key)
    yield from _updates(case, key, table)
    if np.nanmin(table) < np.nanmax(table) and (x != x[0]).any():
        yield from _clocks(case, key, table)
    yield from _values(case, key, table[case.base.counts].astype(np.float64))
    if case.changes_reference and key[0]:
        yield from _groups(case, *key)


def _in_words(case: Case, phrase: str) -> str:
    return phrase if case.changes_reference else f"the reference is {phrase}, mine is not"


def _updates(case: Case, key: Key, table: np.ndarray) -> Causes:
    """The column counted by updates, where a run says which iterations make one."""
    runs = [run.trace.run for run in (case.base, case.target) if "stepped" in run.trace.run]
    units = ("update", "iteration") if case.changes_reference else ("iteration", "update")
    change = Cause("clock", f"per {units[0]}", "counts {}s for {}s".format(*units), numbers=0)
    steps = [run["stepped"].astype(int) for run in runs[:1]]
    for made in [made for made in steps if not made.all()]:
        for rows in (np.cumsum(made) - made, np.cumsum(made), np.cumsum(made) - 1):
            curve = _at(table, case.base.trace.start + rows)
            cause = case.fit(key, curve, change) if len(np.unique(curve)) > 2 else None
            yield cause if cause and cause.start is None else None


def _clocks(case: Case, key: Key, table: np.ndarray) -> Causes:
    """The column at other counts, for each number that reproduces the sampled rows."""
    counts, x, wrong = case.base.counts, case.target.column(key), case.differing[key]
    steps, others = (np.count_nonzero(np.diff(c)) for c in (case.base.column(key), x))
    n_values = len(np.unique(x))
    # More than one number speaks for the change; and steps are no staircase made of a curve.
    is_determined = {"stopped": wrong.sum() > 1, "per epoch": steps > 2 * others}
    for clock in CLOCKS:
        k = np.arange(1, counts[-1] + 1)
        if clock.phrase == "{early}":
            k = np.stack([k, -k], 1).ravel()
        for row in dict.fromkeys(case.sample(key)[0].tolist()):
            values = _at(table, clock.change(np, counts[row], k))
            k = k[case.is_same(key, values, slice(row, row + 1)) | np.isnan(values)]
        for number in k[:MAX_FITTED].tolist():
            curve = _at(table, clock.change(np, counts, number))
            cause = case.fit(key, curve, _clock_cause(case, clock, number))
            is_seen = n_values > 2 and cause is not None and cause.start is None
            if is_determined.get(clock.name, is_seen or len(np.unique(x[wrong])) > 1):
                yield cause


def _clock_cause(case: Case, clock: Change, k: int) -> Cause:
    """The cause of another clock: its number is mine's, iterations ahead or times as fast."""
    unit, forward, name = case.base.trace.clock, case.changes_reference, clock.name
    inverse = {"shift": -k, "stretch": 1 / k}.get(name, k)
    number = k if forward != clock.is_slower else inverse
    sentence = _in_words(case, clock.words(k=k, unit=unit))
    if name == "shift":
        sentence = early(number, unit, case.epoch)
    elif name == "stretch" and case.stated_epoch == k:
        units = (unit, "epoch") if number > 1 else ("epoch", unit)
        sentence = "stepped per {} for per {}".format(*units)
    elif name == "per epoch" and not forward:
        name = "per iteration"
    return Cause("clock", name, sentence, number)


def _values(case: Case, key: Key, y: np.ndarray) -> Causes:
    """The column ``y`` with its values changed, by the shortest number that reproduces the other."""
    x, forward, rows = case.target.column(key), case.changes_reference, case.differing[key]
    is_constant = [len(np.unique(column)) == 1 for column in (x, y)]
    if forward and is_constant in ([True, False], [False, True]):
        constant = x[0] if is_constant[0] else case.base.column(key)[0]
        where = "constant, {}, where the reference is scheduled"
        where = where if is_constant[0] else "scheduled where the reference is constant, {}"
        sentence = where.format(format_value(float(str(constant))))
        yield case.fit(key, x.astype(np.float64), Cause("groups", "unscheduled", sentence))
    at = np.flatnonzero(rows)[np.abs(y[rows]).argmax()]
    top = float(x[at])
    numbers = {"floor": top, "cap": top}
    if forward:
        numbers |= {"factor": top / y[at] if y[at] else np.nan, "addend": top - y[at]}
    for value in (change for change in VALUES if change.name in numbers):
        if any(is_constant) or len(np.unique(y[rows])) == 1:
            break
        for digits in range(1, 18):
            k = float(f"{numbers[value.name]:.{digits}g}")
            change = Cause("value", value.name, _in_words(case, value.words(k=k, unit="")), k)
            if cause := case.fit(key, value.change(np, y, k), change):
                yield cause
                break
    roundings = [(np.dtype(d).name, np.dtype(d).name, y.astype(d), None) for d in DTYPES]
    if not any(is_constant):
        roundings += [("decimals", f"{n} decimals", np.round(y, n), n) for n in range(8, 0, -1)]
    for name, grid, curve, number in roundings:
        sentence = f"{'mine' if forward else 'the reference'} rounded to {grid}"
        yield case.fit(key, curve.astype(np.float64), Cause("value", name, sentence, number))


def arithmetic(case: Case, key: Key) -> Causes:
    """Yield arithmetic in another dtype, where the two are within its roundings throughout."""
    y = case.base.table(key)[case.base.counts].astype(np.float64)
    x = case.target.column(key).astype(np.float64)
    for dtype in DTYPES if case.changes_reference else ():
        bound = ROUNDINGS * float(ml_dtypes.finfo(dtype).eps) * np.abs(y).max()
        if np.array_equal(x.astype(dtype).astype(np.float64), x) and np.abs(x - y).max() <= bound:
            name = np.dtype(dtype).name
            sentence = f"computed in {name}: at most {ROUNDINGS} of its roundings off, not equal"
            yield case.fit(key, x, Cause("value", name, sentence, numbers=0, exact=False))
            return


def _groups(case: Case, label: str, name: str) -> Causes:
    """Other quantities in the place of this one, and products of two."""
    columns = {k: case.base.column(k).astype(np.float64) for k in case.keys if k[0]}
    y, taken = columns[label, name], functools.partial(Cause, "groups", "taken from")
    for (other, quantity), values in columns.items():
        if quantity == name and other != label:
            cause, twin = taken(f"{label} has {other}'s"), (other, name)
            if twin in case.differing and case.fit(twin, y, cause):
                sentence = "groups {} and {} exchanged".format(*sorted((label, other)))
                cause = Cause("groups", "exchanged", sentence)
            yield case.fit((label, name), values, cause)
        if other == label and quantity != name and (values != values[0]).any():
            changed = {f"{name} is {quantity}": (values, 1)}
            if quantity == "learning_rate":
                with np.errstate(divide="ignore", invalid="ignore"):
                    changed[f"{name} multiplied by the learning rate"] = y * values, 0
                    changed[f"{name} divided by the learning rate"] = y / values, 0
            for sentence, (curve, numbers) in changed.items():
                yield case.fit((label, name), curve, taken(sentence, numbers=numbers))


@dataclasses.dataclass(frozen=True)
class Edit:
    """One thing that can be changed in a schedule."""

    name: str  # of the cause: the argument, or what is done to the clock or the value
    value: Any  # the present number or choice
    entry: Any  # the schedule
    paths: Sequence[Path] = ((),)  # the parts that are changed, all at once
    choices: tuple[Any, ...] | None = None  # the values to try; None where a number is solved for
    kind: str = "argument"
    change: Callable[[Any, Any], Any] = lambda part, value: value  # what replaces the part
    words: Callable[..., str] = "{name} {} for {}".format  # mine, reference, name, k
    shown: Callable[[Any], Any] = lambda value: value  # what the cause has of a value
    numbers: int = 1  # free ones of the change

    def build(self, value: Any) -> Any:
        """Return the schedule with another value, which JAX may be tracing."""
        return rebuild(self.entry, self.paths, self.change, value)


def arguments_of(entry: Any) -> Iterator[Edit]:
    """Yield an edit for each number, switch and choice within an entry."""
    paths_by_number: dict[tuple[str, Any], list[Path]] = {}
    for path, node in nodes(entry):
        factory, arguments = expression(node)
        for name, value in arguments.items():
            if name in FIXED or (name == "start" and factory is schedules.table):
                continue
            yield from _edits_at(entry, (*path, name), value, getattr(factory, "__name__", ""))
            if is_number(value):
                paths_by_number.setdefault((name, value), []).append((*path, name))
        if factory in ALIKE:
            others = tuple(other for other in ALIKE if other is not factory)
            change, words = lambda node, new: new(**expression(node)[1]), "{} for {}"
            yield Edit("", factory, entry, [path], others, "rule", change, words.format)
    for (name, value), paths in paths_by_number.items():
        if len(paths) > 1:  # as each member of a composition has a base_lr
            yield Edit(name, value, entry, paths)


def _edits_at(entry: Any, path: Path, value: Any, factory: str) -> Iterator[Edit]:
    """The edits of one argument; of a list one for each entry, and one for fewer entries."""
    name, choices = str(path[-1]), None
    words = f"{{name}} {{}} for {{}} in {factory}".format
    if isinstance(value, tuple) and value and all(map(is_number, value)):
        for k, number in enumerate(value):
            shown = functools.partial(rebuild, value, [(k,)], Edit.change)
            yield Edit(name, number, entry, [(*path, k)], words=words, shown=shown)
        size = len(value) if len(value) > 1 else 0
        choices = tuple((*value[:k], *value[k + 1 :]) for k in range(size))
    elif isinstance(value, bool | np.bool_):
        choices = (not value,)
    elif isinstance(value, str):
        choices = tuple(v for group in CHOICES if value in group for v in group if v != value)
    if choices or is_number(value):
        yield Edit(name, value, entry, [path], choices, words=words)


def combinators_of(entry: Any, case: Case) -> Iterator[Edit]:
    """Yield edits that leave out a warm-up or a lag, or count on within epochs."""
    forward, unit = case.changes_reference, case.base.trace.clock
    combinators = {
        schedules.warmup: ("argument", "warmup", "warm-up missing"),
        schedules.lagged: ("clock", "shift", "no lag of one epoch"),
        schedules.per_epoch: ("clock", "per iteration", f"changes at each {unit} for per epoch"),
    }
    if not forward:
        combinators = {
            schedules.warmup: ("argument", "warmup", "a warm-up where the reference has none"),
            schedules.lagged: ("clock", "shift", "a lag of one epoch where the reference has none"),
            schedules.per_epoch: ("clock", "per epoch", f"changes per epoch for at each {unit}"),
        }
    for path, node in nodes(entry):
        factory, arguments = expression(node)
        if factory not in combinators:
            continue
        kind, name, words = combinators[factory]
        inner, number, choices = arguments["schedule"], None, (True,)
        if factory is schedules.lagged:
            # Mine is an epoch early without the lag that the reference has, or late with one.
            number = (case.epoch or 1) * (1 if forward else -1)
        elif factory is schedules.per_epoch:
            n, ends = arguments["steps_per_epoch"], [np.inf]
            if expression(inner)[0] is schedules.lagged:
                lag = expression(inner)[1]
                warm = (expression(part)[1].get("iterations") for _, part in nodes(entry))
                ends += [-1, (lag["after"] + 1) * n - 1, *(end for end in warm if end is not None)]
                inner = lag["schedule"]
            choices = tuple((size, end) for size in (n, 1) for end in ends)
        how = kind, functools.partial(_unwrap, inner), words.format, {forward: number}.get
        yield Edit(name, False, entry, [path], choices, *how, numbers=0)


def _unwrap(inner: Any, node: Any, way: Any) -> Any:
    """Leave out a combinator; of epochs ``way`` has the size, and the last iteration not late."""
    if way is True:
        return inner
    size, end = way

    def schedule(count: Any) -> Any:
        late = jnp.where(count > end, 1, 0)
        return as_float64(inner(jnp.maximum(as_float64(count) / size - late, 0)))

    return schedule


def wrapped_parts(entry: Any, case: Case) -> Iterator[Edit]:
    """Yield edits of the clock or the value of a part of a schedule."""
    epochs = [path for path, node in nodes(entry) if expression(node)[0] is schedules.per_epoch]
    for path, node in nodes(entry):
        part = node.factory.__name__ if isinstance(node, Schedule) else "the function"
        part += " " if case.changes_reference else " of the reference "
        is_within = any(path != outer == path[: len(outer)] for outer in epochs)
        unit, epoch = ("epoch", None) if is_within else (case.base.trace.clock, case.epoch)
        for change in (*CLOCKS, *VALUES) if path else ():
            words = functools.partial(change.words, unit=unit, epoch=epoch, part=part)
            how = change.kind, change.wrap, words, change.shown
            yield Edit(change.name, change.neutral, entry, [path], None, *how)
