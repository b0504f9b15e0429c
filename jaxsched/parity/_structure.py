"""Mistakes in how a recipe is put together: each makes its schedules anew with one piece changed.

Counts are iterations.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxsched import lr_scheduler, schedules
from jaxsched._schedule import Schedule, ScheduleLike, as_float64
from jaxsched._trace import warmup_end
from jaxsched._validate import is_number
from jaxsched.parity._causes import Case, Key, Mistake, evaluated, expression, nodes, shown

Arguments = Mapping[str, Any]
Edit = Callable[[Callable[..., Any], Arguments], ScheduleLike | None]
"""From a factory and its arguments to the schedule in its place; ``None`` leaves it."""

Count = Callable[[Any], Any]
"""From an iteration to what the epoch's schedule is asked at, both float64."""

FACTORS = (schedules.cosine, schedules.linear, schedules.one_cycle)


def mistakes(case: Case) -> Iterator[Mistake]:
    """All of this file's, on every schedule of a quantity that differs."""
    seen: set[tuple[Any, ...]] = set()
    lengths = [
        arguments["iterations"]
        for key in case.differing
        for factory, arguments in nodes(case.schedule(key))
        if factory is schedules.warmup and is_number(arguments["iterations"])
    ]
    for key in case.differing:
        for factory, arguments in nodes(case.schedule(key)):
            plain = {k: v for k, v in arguments.items() if not callable(v)}
            known = (factory, key[1], *map(str, plain.items()))
            if known in seen:
                continue
            seen.add(known)
            for sentence, edit in _edits(case, key, factory, arguments, lengths):
                yield Mistake(sentence, _edited(case, edit))


def _edited(case: Case, edit: Edit) -> Callable[[Key, np.ndarray], np.ndarray | None]:
    @functools.cache
    def made(old: Any) -> Any:
        new = _made_anew(old, edit)
        return None if new is old else new

    def curve(key: Key, counts: np.ndarray) -> np.ndarray | None:
        schedule = made(case.schedule(key))
        return None if schedule is None else evaluated(schedule, counts)

    return curve


def _made_anew(schedule: Any, edit: Edit) -> Any:
    """The schedule with ``edit`` made wherever it applies."""
    if isinstance(schedule, list | tuple):
        members = [_made_anew(member, edit) for member in schedule]
        same = all(new is old for new, old in zip(members, schedule, strict=True))
        return schedule if same else members
    if not isinstance(schedule, Schedule):
        return schedule
    factory, arguments = expression(schedule)
    parts = {name: _made_anew(part, edit) for name, part in arguments.items()}
    replaced = edit(factory, parts)
    if replaced is not None:
        return replaced
    same = all(parts[name] is part for name, part in arguments.items())
    return schedule if same else factory(**parts)


def _of_float64(function: Callable[[Any], Any]) -> ScheduleLike:
    """``function``, which gets its count as float64."""
    return lambda count: function(as_float64(count))


def _at(factory: Any, arguments: Arguments, change: Callable[[Arguments], Any]) -> Edit:
    """An edit of the nodes of a factory that have these numbers."""
    numbers = {name: value for name, value in arguments.items() if is_number(value)}

    def edit(other: Any, parts: Arguments) -> ScheduleLike | None:
        here = other is factory and all(parts[name] == value for name, value in numbers.items())
        return change(parts) if here else None

    return edit


def _with(factory: Any, arguments: Arguments, **changed: Any) -> Edit:
    return _at(factory, arguments, lambda parts: factory(**{**parts, **changed}))


def _edits(
    case: Case, key: Key, factory: Any, arguments: Arguments, lengths: list[Any]
) -> Iterator[tuple[str, Edit]]:
    """The mistakes that can be made at one node."""
    if factory is schedules.warmup:
        yield from _warmup(case, key, arguments)
    elif factory is schedules.lagged:
        yield from _lag(case, arguments)
    elif factory is schedules.per_epoch:
        yield from _epochs(case, arguments, lengths)
    elif factory in FACTORS:
        yield from _factor(case, key, factory, arguments)
    elif factory.__name__ in lr_scheduler.__all__:
        yield from _scheduler(case, factory, arguments)


def _warmup(case: Case, key: Key, arguments: Arguments) -> Iterator[tuple[str, Edit]]:
    make, n, start = schedules.warmup, arguments["iterations"], arguments["start"]
    what = key[1].replace("_", " ")
    if not is_number(n) or not is_number(start):
        return
    steps = case.steps_per_epoch
    usual = [n - 1, n + 1, warmup_end(case.mine), *read_off(case, key, arguments)]
    usual += [n - steps, n + steps] if steps else []
    for length in dict.fromkeys(k for k in usual if k is not None and k >= 0 and k != n):
        too = "long" if (length > n) != case.flipped else "short"
        text = f"warm-up too {too}: {{ours}} iterations for {{theirs}}"
        for lag_moves in (True, False):
            yield case.say(text, length, n), _lasting(n, length, steps if lag_moves else None)
    if n:
        fate = "warmed up" if case.flipped else "not warmed up"
        yield (
            f"{what} {fate}: no warm-up against one",
            _at(make, arguments, lambda p: p["schedule"]),
        )
        yield f"{fate}: no warm-up of any quantity against one", _lasting(n, 0, steps)
    starts = [0.0]
    if case.reference.start == 0:
        starts.insert(0, float(case.columns[key][0][0]))
    text = f"warm-up start: the {what} starts from {{ours}} for {{theirs}}"
    peak = _short(evaluated(arguments["schedule"], np.zeros(1, int))[0])
    if key[0] == "bias" and what == "learning rate":
        text += " (bias rate)"
        starts.append(peak)
    for value in dict.fromkeys(_short(value) for value in starts if value >= 0 and value != start):
        edit = _with(make, arguments, start=value)
        yield case.say(text, value, start), edit
        if "bias rate" in text and value == peak and not case.flipped:
            yield f"missing bias rate: it starts from the base rate, {shown(value)}", edit
    for count, told in ((n, "its value at the end"), (0, "its value at 0")):

        def toward(parts: Arguments, count: Any = count) -> ScheduleLike:
            target = parts["schedule"]
            with_end = _of_float64(lambda i: 0 * i + as_float64(target(jnp.asarray(count))))
            rising = make(with_end, n, start=start)
            return _of_float64(lambda i: jnp.where(i < n, rising(i), as_float64(target(i))))

        yield f"warm-up target fixed: toward {told}", _at(make, arguments, toward)


def _lasting(n: Any, length: Any, steps: int | None) -> Edit:
    """Every warm-up of ``n`` iterations made one of ``length``, and the lag after it moved."""

    def edit(factory: Any, parts: Arguments) -> ScheduleLike | None:
        if factory is schedules.warmup and is_number(parts["iterations"]):
            return factory(**{**parts, "iterations": length}) if parts["iterations"] == n else None
        lags = steps and factory is schedules.lagged and is_number(parts["after"])
        if lags and parts["after"] == n // steps:
            return factory(**{**parts, "after": length // steps})
        return None

    return edit


def ends_of(case: Case) -> list[int]:
    """Where mine's warm-ups may end."""
    found = [
        end
        for key in case.differing
        for factory, arguments in nodes(case.schedule(key))
        if factory is schedules.warmup and is_number(arguments["iterations"])
        for end in read_off(case, key, arguments)
    ]
    end = warmup_end(case.mine)
    return list(dict.fromkeys(found if end is None else [end, *found]))


def read_off(case: Case, key: Key, arguments: Arguments) -> Iterator[int]:
    """Where mine's warm-up ends: from there on it is the target itself.

    Where that is past the run, it is where the line leads to.
    """
    target, mine = evaluated(arguments["schedule"], case.counts), case.columns[key][0]
    apart = np.flatnonzero(target.astype(np.float32) != mine.astype(np.float32))
    if apart.size and apart[-1] + 1 < len(case.counts):
        yield int(case.counts[apart[-1]]) + 1
    row = min(arguments["iterations"], len(mine)) // 2
    risen = float(mine[row]) - arguments["start"]
    if risen:
        length = (target[row] - arguments["start"]) * case.counts[row] / risen
        yield from (round(length),) if 0 < length < 2**31 else ()


def _lag(case: Case, arguments: Arguments) -> Iterator[tuple[str, Edit]]:
    make, after = schedules.lagged, arguments["after"]
    does = ("lags", "does not lag") if case.flipped else ("does not lag", "lags")
    yield (
        f"off by one epoch: the schedule {does[0]} after the warm-up where the reference {does[1]}",
        _at(make, arguments, lambda p: p["schedule"]),
    )
    if not is_number(after):
        return
    if after:
        yield "off by one epoch: lag in the warm-up too", _with(make, arguments, after=0)
    for other in (after - 1, after + 1):
        text = "off by one epoch: the lag begins after epoch {ours} for {theirs}"
        yield case.say(text, other, after), _with(make, arguments, after=other)
    yield (
        "off by one epoch: a lag of two epochs",
        _at(make, arguments, lambda p: make(make(p["schedule"], after=after), after=after + 1)),
    )


def _epochs(case: Case, arguments: Arguments, lengths: list[Any]) -> Iterator[tuple[str, Edit]]:
    make, n = schedules.per_epoch, arguments["steps_per_epoch"]
    if not is_number(n):
        return
    for other in (n - 1, n + 1):
        if other >= 1:
            text = "epoch of another length: {ours} iterations for {theirs}"
            yield case.say(text, other, n), _with(make, arguments, steps_per_epoch=other)
    if n == 1:
        return
    after = next(_afters(arguments), np.inf)

    def epoch(i: Any) -> Any:
        return jnp.where(i // n > after, i // n - 1, i // n)

    def of(count: Callable[[Any], Any]) -> Edit:
        """The epoch's schedule, without its lag, at another count than that of epochs."""

        def made(parts: Arguments) -> ScheduleLike:
            inner = _unlagged(parts["schedule"])
            return _of_float64(lambda i: as_float64(inner(jnp.maximum(count(i), 0))))

        return _at(make, arguments, made)

    warm = [length // n for length in lengths]
    borders = [(e + 1) * n - 1 for e in (*_afters(arguments), *warm)]
    since = list(dict.fromkeys([*lengths, *borders]))
    yield from ((sentence, of(count)) for sentence, count in _moving(case, n, since))
    yield from ((sentence, of(count)) for sentence, count in _early(case, n, epoch, since))


def _moving(case: Case, n: Any, since: list[Any]) -> Iterator[tuple[str, Count]]:
    """Counts that move at every iteration: all along, or after the warm-up, late as it lags."""
    way = "per-epoch for per-iteration" if case.flipped else "per-iteration for per-epoch"
    kinds: list[tuple[str, Count, Any]] = [
        (f"{way}: the curve moves at every iteration", lambda i: i / n, n),
        (f"{way}: the scheduler steps at every iteration", _whole, 1),
    ]
    for text, each, lag in kinds:
        yield text, each
        for border, late in itertools.product(since, (0, lag)):

            def then(i: Any, each: Count = each, late: Any = late) -> Any:
                return each(i - late)

            if late:
                yield text, _switched(border, each, then)
            yield f"{text} after the warm-up", _switched(border, lambda i: _whole(i // n), then)


def _early(case: Case, n: Any, epoch: Count, since: list[Any]) -> Iterator[tuple[str, Count]]:
    """The count of epochs is one ahead or behind, or moves an iteration early or late."""
    for border, k in itertools.product((-1, *since), (1, -1)):
        late = "early" if (k > 0) != case.flipped else "late"
        where = "" if border < 0 else " after the warm-up"
        for unit, moved in (
            ("epoch", lambda i, k=k: epoch(i) + k),
            ("iteration", lambda i, k=k: epoch(i + k)),
        ):
            count = _switched(border, epoch, moved)
            sentence = f"off by one {unit}: the scheduler steps one {unit} {late}{where}"
            yield sentence, lambda i, count=count: _whole(count(i))


def _switched(border: Any, before: Count, after: Count) -> Count:
    """One count up to an iteration, another past it."""
    return lambda i: jnp.where(i > border, after(i), before(i))


def _whole(count: Any) -> Any:
    return count.astype(jnp.int64)


def _afters(arguments: Arguments) -> Iterator[Any]:
    for factory, inner in nodes(arguments["schedule"]):
        if factory is schedules.lagged and is_number(inner["after"]):
            yield inner["after"]


def _unlagged(schedule: Any) -> Any:
    factory, arguments = expression(schedule) if isinstance(schedule, Schedule) else (None, {})
    return arguments["schedule"] if factory is schedules.lagged else schedule


def _factor(case: Case, key: Key, factory: Any, arguments: Arguments) -> Iterator[tuple[str, Edit]]:
    epochs, name = arguments["epochs"], "cosine" if factory is not schedules.linear else "line"
    if not is_number(epochs):
        return
    ends = [epochs - 1, epochs + 1]
    if case.steps_per_epoch:
        warm = [
            inner["iterations"] // case.steps_per_epoch
            for node, inner in nodes(case.schedule(key))
            if node is schedules.warmup and is_number(inner["iterations"])
        ]
        left_out = [k if case.flipped else -k for w in warm for k in (w, w + 1)]
        ends += [epochs + k for k in left_out]
        ends += [epochs * case.steps_per_epoch]
    ends += _denominators(case, key, factory, arguments)
    for other in dict.fromkeys(end for end in ends if end > 0 and end != epochs):
        text = f"{name} with another denominator: {{ours}} epochs for {{theirs}}"
        yield case.say(text, other, epochs), _with(factory, arguments, epochs=other)
    if not case.flipped:

        def clamped(parts: Arguments) -> ScheduleLike:
            whole = factory(**parts)
            return _of_float64(lambda e: as_float64(whole(jnp.minimum(e, epochs))))

        yield f"{name} clamped at its end, {epochs} epochs", _at(factory, arguments, clamped)
    for other in FACTORS:
        if (other is schedules.linear) != (factory is schedules.linear):
            kind = "line" if other is schedules.linear else "cosine"
            pair = (name, kind) if case.flipped else (kind, name)
            yield (
                f"a {pair[0]} for a {pair[1]}",
                _at(factory, arguments, lambda p, other=other: other(**p)),
            )


def _denominators(case: Case, key: Key, factory: Any, arguments: Arguments) -> list[Any]:
    """Whole numbers of epochs that lead to mine's last value."""
    schedule = case.schedule(key)
    epochs = arguments["epochs"]
    tried = np.arange(1, min(4 * int(epochs) + 2, 2000))
    last = np.array([case.counts[-1]])
    few = np.unique(np.linspace(0, len(tried) - 1, 24).astype(int))
    # The curve's last value is monotonic enough in the number of epochs to be bracketed.
    values = np.array(
        [
            evaluated(_made_anew(schedule, _with(factory, arguments, epochs=int(n))), last)[0]
            for n in tried[few]
        ]
    )
    mine = float(case.columns[key][0][-1])
    found: list[Any] = []
    for low, high, a, b in zip(few[:-1], few[1:], values[:-1], values[1:], strict=True):
        if (a - mine) * (b - mine) <= 0:
            lo, hi, up = int(tried[low]), int(tried[high]), b > a
            while hi - lo > 1:
                middle = (lo + hi) // 2
                edit = _with(factory, arguments, epochs=middle)
                value = evaluated(_made_anew(schedule, edit), last)[0]
                lo, hi = (lo, middle) if (value > mine) == up else (middle, hi)
            found += [lo, hi]
    return found[:6]


def _scheduler(case: Case, factory: Any, arguments: Arguments) -> Iterator[tuple[str, Edit]]:
    """Arguments of torch's schedulers that are off by one, switched, or left at their default."""
    title = factory.__name__
    for name, value in arguments.items():
        if name == "steps":
            continue
        others: list[Any] = []
        if isinstance(value, bool):
            others = [not value]
        elif isinstance(value, int):
            others = [v for v in (value - 1, value + 1) if v > 0]
        elif name == "milestones":
            others = [
                [*value[:k], milestone + step, *value[k + 1 :]]
                for k, milestone in enumerate(value)
                for step in (-1, 1)
                if milestone + step >= 0
            ]
        for other in others:
            text = f"{title} with another {name}: {{ours}} for {{theirs}}"
            if name in ("T_max", "total_iters", "total_steps"):
                text = f"{title} with another denominator, {name}: {{ours}} for {{theirs}}"
            value = list(value) if isinstance(value, tuple) else value
            yield case.say(text, other, value), _with(factory, arguments, **{name: other})


def _short(value: float) -> float:
    """The number that one would have written: a float32 read off a curve, shortened."""
    return float(str(np.float32(value)))
