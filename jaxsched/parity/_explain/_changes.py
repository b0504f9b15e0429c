"""The changes to try: of the clock, the value, the groups, and the arguments of a schedule."""

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
from jaxsched.parity._explain._runs import Case, Column, Path, expression, nodes, rebuild

ROUNDINGS = 8  # bound on the error of arithmetic in another dtype, in roundings of the peak
NEVER = np.iinfo(np.int32).max  # a count that no run reaches
DTYPES = (np.float32, ml_dtypes.bfloat16)
FIXED = ("steps", "then", "values")  # arguments that do not change the curve
CHOICES = (
    ("cos", "linear"),
    ("linear", "cosine", "1-sqrt"),
    ("triangular", "triangular2", "exp_range"),
    ("cycle", "iterations"),
)
ALIKE = (schedules.cosine, schedules.linear, schedules.one_cycle)  # with the same arguments

Curves = Iterator[tuple[np.ndarray, Cause]]
"""The changed run, NaN where unknown, and the cause of each change to try."""


class Edit(NamedTuple):
    """A change of a schedule or a column, with a free number or choice."""

    entry: Any  # the schedule
    paths: Sequence[Path]  # the places to change, all at once
    present: Any  # the present number or choice
    cause: Callable[[Any], Cause]  # from another number or choice to the cause
    choices: Sequence[Any] | None = None  # the choices to try; None to solve for a number
    change: Callable[[Any, Any], Any] = lambda old, value: value  # what replaces ``old``

    def build(self, value: Any) -> Any:
        """Return the schedule with another value, which may be traced by JAX."""
        return rebuild(self.entry, self.paths, self.change, value)


def argument(case: Case, name: str, new: Any, old: Any, where: str = "", kind: str = "") -> Cause:
    """Return the cause that an argument is ``new`` in place of ``old`` in the changed run."""
    mine, reference = (new, old) if case.changes_reference else (old, new)
    sentence = f"{name} {format_value(mine)} for {format_value(reference)}{where}".lstrip()
    return Cause(kind or "argument", name or mine.__name__, sentence, mine, reference)


def arguments_of(case: Case, entry: Any) -> Iterator[Edit]:
    """Yield an edit for each number, entry of a list, switch and choice within a schedule."""
    paths_by_number: dict[tuple[str, Any], list[Path]] = {}
    for path, node in nodes(entry):
        factory, arguments = expression(node)
        where = f" in {factory.__name__}" if factory else ""
        for name, value in arguments.items():
            if name in FIXED or (name == "start" and factory is schedules.table):
                continue
            cause = functools.partial(argument, case, str(name), old=value, where=where)
            if is_number(value):
                paths_by_number.setdefault((str(name), value), []).append((*path, name))
            if is_number(value) or _choices(value):
                yield Edit(entry, [(*path, name)], value, cause, _choices(value))
            for k, number in enumerate(value if _is_list(value) else ()):

                def in_list(new: Any, value: Any = value, k: int = k, cause: Any = cause) -> Cause:
                    return cause((*value[:k], new, *value[k + 1 :]))

                yield Edit(entry, [(*path, name, k)], number, in_list)
        if factory in ALIKE:
            cause = functools.partial(argument, case, "", old=factory, kind="rule")
            others = [other for other in ALIKE if other is not factory]
            change = lambda part, other: other(**expression(part)[1])  # noqa: E731
            yield Edit(entry, [path], factory, cause, others, change)
    for (name, value), paths in paths_by_number.items():
        if len(paths) > 1:  # such as the base_lr of each member of a composition
            yield Edit(entry, paths, value, functools.partial(argument, case, name, old=value))


def _is_list(value: Any) -> bool:
    return isinstance(value, tuple) and all(map(is_number, value))


def _choices(value: Any) -> list[Any] | None:
    """Return the alternatives to a switch, a choice or a list (without one of its entries)."""
    if isinstance(value, bool | np.bool_):
        return [not value]
    if isinstance(value, str):
        return [v for group in CHOICES if value in group for v in group if v != value]
    if _is_list(value) and len(value) > 1:
        return [(*value[:k], *value[k + 1 :]) for k in range(len(value))]
    return None


def combinators_of(case: Case, entry: Any) -> Iterator[Edit]:
    """Yield edits that remove a warm-up or a lag, or make an epoch's schedule continuous."""
    forward, unit = case.changes_reference, case.base.trace.clock
    left_out = "{} missing" if forward else "a {} where the reference has none"
    for path, node in nodes(entry):
        factory, arguments = expression(node)
        choices = [arguments.get("schedule")]
        if factory is schedules.warmup:
            cause = Cause("argument", "warmup", left_out.format("warm-up"), numbers=0)
        elif factory is schedules.lagged:  # mine is early without a lag
            k = (case.epoch or 1) * (1 if forward else -1)
            cause = Cause("clock", "shift", left_out.format("lag of one epoch"), k, numbers=0)
        elif factory is schedules.per_epoch:
            words = (f"at each {unit}", "per epoch")[:: 1 if forward else -1]
            name = "per iteration" if forward else "per epoch"
            cause = Cause("clock", name, "changes {} for {}".format(*words), numbers=0)
            warm = [expression(part)[1].get("iterations") for _, part in nodes(entry)]
            ends = [np.inf, *(end for end in warm if end is not None)]
            sizes = (arguments["steps_per_epoch"], 1)
            choices = [_continuous(choices[0], size, end) for size in sizes for end in ends]
        else:
            continue
        yield Edit(entry, [path], None, lambda _, cause=cause: cause, choices)


def _continuous(schedule: Any, size: int, end: float) -> Callable[[Any], Any]:
    """Return a schedule of epochs at fractions of epochs, one epoch late after iteration ``end``."""
    factory, arguments = expression(schedule)
    inner = arguments["schedule"] if factory is schedules.lagged else schedule
    return lambda i: inner(jnp.maximum(as_float64(i) / size - jnp.where(i > end, 1, 0), 0))


class Change(NamedTuple):
    """A change of the clock or of the value, with one number ``k``."""

    name: str  # the cause's name
    change: Callable[[Any, Any, Any], Any]  # a function of NumPy or jnp, counts or values, and k
    phrase: str  # empty if it depends on the number
    neutral: float  # the number that changes nothing; its type is that of the numbers to try
    inverse: Callable[[Any], Any] | None = None  # the number of the reverse change
    is_slower: bool = False  # whether a larger number slows the clock down
    kind: str = "clock"

    def by_epoch(self, n: int) -> "Change":
        """Return the change of a clock with its number in epochs of ``n``."""
        return self._replace(change=lambda xp, i, k: self.change(xp, i // n, k) * n + i % n)

    def wrap(self, schedule: Any, k: Any) -> Any:
        """Return the schedule with its clock or value changed."""
        xp: Any = np if isinstance(schedule, Column) else jnp

        def apply(count: Any) -> Any:
            if self.kind == "value":
                return self.change(xp, xp.asarray(schedule(count), xp.float64), k)
            whole, number = (xp.asarray(v).astype(xp.int64) for v in (count, k))
            moved = self.change(xp, whole, number)
            return schedule(moved if xp is np else xp.maximum(moved, 0))

        return Column(apply) if xp is np else apply

    def cause(self, k: Any, case: Case, unit: str, epoch: int | None, part: str = "") -> Cause:
        """Return the change as a cause; the number is mine's: counts ahead, or times as fast."""
        number, name = k, self.name
        if self.inverse is not None and case.changes_reference == self.is_slower:
            number = self.inverse(k)
        if name == "shift":
            whole = bool(epoch) and k % epoch == 0
            counts = _plural(abs(k) // epoch, "epoch") if whole else _plural(abs(k), unit)
            phrase = f"{counts} {'early' if number > 0 else 'late'}"
        elif name == "stretch":
            often, seldom = f"{k} times for once", f"once in {_plural(k, unit)}"
            phrase = f"stepped {often if number == k else seldom}"
        else:
            phrase = self.phrase.format(k=format_value(number), unit=unit, times=_plural(k, unit))
        sentence = f"{part} {phrase}".lstrip()
        if self.inverse is None and not case.changes_reference:
            name = "per iteration" if name == "per epoch" else name
            sentence = f"{f'{part} of ' if part else ''}the reference is {phrase}, mine is not"
        return Cause(self.kind, name, sentence, number)


def _plural(n: Any, unit: str) -> str:
    return f"{format_value(n)} {unit}{'s' * (n != 1)}"


NEGATIVE, RECIPROCAL = (lambda k: -k), (lambda k: 1 / k if k else np.inf)
CLOCKS = (
    Change("shift", lambda xp, i, k: i + k, "", 0, NEGATIVE),
    Change("shift", lambda xp, i, k: xp.maximum(i - k, 0), "", 0, NEGATIVE, True),
    Change("stretch", lambda xp, i, k: i * k, "", 1, RECIPROCAL),
    Change("stretch", lambda xp, i, k: (i + 1) * k - 1, "", 1, RECIPROCAL),
    Change("stretch", lambda xp, i, k: i // k, "", 1, RECIPROCAL, True),
    Change("per epoch", lambda xp, i, k: i // k * k, "constant for {times} each", 1),
    Change("stopped", lambda xp, i, k: xp.minimum(i, k), "stopped at {unit} {k}", NEVER),
    Change("reset", lambda xp, i, k: i - k * (i >= k), "started again at {unit} {k}", NEVER),
    Change("reset", lambda xp, i, k: i % k, "started again every {times}", NEVER),
)
VALUES = (
    Change("factor", lambda xp, y, k: y * k, "times {k}", 1.0, RECIPROCAL, kind="value"),
    Change("addend", lambda xp, y, k: y + k, "plus {k}", 0.0, NEGATIVE, kind="value"),
    Change("floor", lambda xp, y, k: xp.maximum(y, k), "at least {k}", -np.inf, kind="value"),
    Change("cap", lambda xp, y, k: xp.minimum(y, k), "at most {k}", np.inf, kind="value"),
)


def clocks_and_values(case: Case, entry: Any) -> Iterator[Edit]:
    """Yield edits of the clock or the value of a column, or of each schedule in an entry."""
    epochs = [path for path, node in nodes(entry) if expression(node)[0] is schedules.per_epoch]
    for path, node in nodes(entry):
        is_within = any(path != outer == path[: len(outer)] for outer in epochs)
        unit, epoch = ("epoch", None) if is_within else (case.base.trace.clock, case.epoch)
        part = node.factory.__name__ if isinstance(node, Schedule) else "the function"
        part = "" if isinstance(node, Column) else part
        values = [c for c in VALUES if part or case.changes_reference or c.inverse is None]
        changes = [*CLOCKS, *values] if path or not part else []
        if epoch and not part:  # several steps at an epoch's end
            faster = [c for c in CLOCKS if c.name == "stretch" and not c.is_slower]
            changes += [change.by_epoch(epoch) for change in faster]
        for change in changes:
            cause = functools.partial(change.cause, case=case, unit=unit, epoch=epoch, part=part)
            yield Edit(entry, [path], change.neutral, cause, None, change.wrap)


def curves_of(case: Case, key: Key) -> Curves:
    """Yield the changes without a free number: of the updates, the values, the groups."""
    column_function, x = case.base.column_function(key), case.target.column(key)
    yield from _updates(case, column_function)
    y, forward = column_function(case.base.counts).astype(np.float64), case.changes_reference
    side = "mine" if forward else "the reference"
    is_constant = [not np.diff(column).any() for column in (x, y)]
    if forward and any(is_constant) and not all(is_constant):
        number = float(str((x if is_constant[0] else case.base.column(key)).max()))
        sentence = f"scheduled where the reference is constant, {number}"
        if is_constant[0]:
            sentence = f"constant, {number}, where the reference is scheduled"
        yield x, Cause("groups", "unscheduled", sentence)
    for dtype in DTYPES:
        name, rounded = np.dtype(dtype).name, [c.astype(dtype).astype(np.float64) for c in (x, y)]
        yield rounded[1], Cause("value", name, f"{side} rounded to {name}", numbers=0)
        bound = ROUNDINGS * float(ml_dtypes.finfo(dtype).eps) * np.abs(y).max()
        if forward and np.array_equal(rounded[0], x) and np.abs(x - y).max() <= bound:
            sentence = f"computed in {name}: at most {ROUNDINGS} of its roundings off, not equal"
            yield x, Cause("value", name, sentence, numbers=0, exact=False)
    for n in range(8, 0, -1) if not any(is_constant) else ():
        yield np.round(y, n), Cause("value", "decimals", f"{side} rounded to {n} decimals", n)
    if forward:
        yield from _groups(case, *key)


def _updates(case: Case, column_function: Column) -> Curves:
    """Yield the column counted by updates, if a run states which iterations make one."""
    units = ("update", "iteration") if case.changes_reference else ("iteration", "update")
    cause = Cause("clock", f"per {units[0]}", "counts {}s for {}s".format(*units), numbers=0)
    stepped = [run.trace.run.get("stepped", np.ones(1)) for run in (case.base, case.target)]
    if waits := [steps.astype(int) for steps in stepped if not steps.all()]:
        updates = np.cumsum(waits[0])
        for rows in (updates - waits[0], updates, updates - 1):
            yield column_function(case.base.trace.start + rows), cause


def _groups(case: Case, label: str, name: str) -> Curves:
    """Yield other quantities in place of this one, and its product with the learning rate."""
    columns = {k: case.base.column(k).astype(np.float64) for k in case.keys}
    y, cause_of = columns[label, name], functools.partial(Cause, "groups", "taken from")
    for (other, quantity), values in columns.items():
        if quantity == name and other != label:
            cause, twin = cause_of(f"{{names}} taken from group {other}"), (other, name)
            if twin in case.differing_rows and case.fit(twin, y, cause):
                sentence = "groups {} and {} exchanged".format(*sorted((label, other)))
                cause = Cause("groups", "exchanged", sentence)
            yield values, cause
        if other == label and quantity == "learning_rate" != name:
            yield y * values, cause_of(f"{name} multiplied by the learning rate", numbers=0)
