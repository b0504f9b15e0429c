"""Why two runs part: the usual mistakes, each tried on the reference.

A mistake is a sentence and a curve, what the reference would be with it made. It
is told where that is the other run's curve; what does not reproduce it is not a cause.
Counts are those of the traces' clock.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsched._recipe import Recipe
from jaxsched._schedule import Schedule, ScheduleLike
from jaxsched._trace import Trace
from jaxsched.parity._rows import equal
from jaxsched.schedules import per_epoch, table

Key = tuple[str, str]
"""A group's label, ``""`` for what belongs to none, and a name."""

THROUGHOUT = "throughout"

DUST = 1e-15
"""Of the peak: what is left of a zero."""

SAMPLED = 12
"""Rows at which a mistake is tried before it is on all of them."""

BLOCK = 4096
"""Counts at which a schedule is evaluated at a time: JAX compiles for each length."""


class Mistake(NamedTuple):
    """A usual mistake.

    Attributes:
      sentence: what it is, as one says it of the run that is not the reference.
        What stands before its colon is its kind: of a kind one is told.
      curve: from a quantity and counts (n,) to what it would be with the mistake
        made, NaN where that is not known; ``None`` where it says nothing.
      everywhere: whether it is made in all quantities at once, so that those that
        do not differ must be the same with it; else it may be made in some.
    """

    sentence: str
    curve: Callable[[Key, np.ndarray], np.ndarray | None]
    everywhere: bool = False


def kind(sentence: str) -> str:
    """What a mistake is, without the values."""
    return sentence.partition(":")[0]


@dataclasses.dataclass(frozen=True)
class Case:
    """Two runs that part, and what is known of the reference.

    Attributes:
      mine: the one.
      reference: the other.
      recipe: that which ``reference`` is the trace of; None where it was recorded.
      flipped: the roles are exchanged: mistakes are looked for that lead from what
        the caller calls mine to the caller's reference, and are told the other way round.
    """

    mine: Trace
    reference: Trace
    recipe: Recipe | None
    flipped: bool = False

    @functools.cached_property
    def counts(self) -> np.ndarray:
        """Of the rows."""
        return self.reference.start + np.arange(len(self.reference))

    @functools.cached_property
    def columns(self) -> dict[Key, tuple[np.ndarray, np.ndarray]]:
        """Each quantity that both have, of mine and of the reference."""
        both = {
            (label, name): (self.mine.groups[label][name], values)
            for label, group in self.reference.groups.items()
            for name, values in group.items()
            if name in self.mine.groups.get(label, {})
        }
        run = {
            ("", name): (self.mine.run[name], values)
            for name, values in self.reference.run.items()
            if name in self.mine.run
        }
        return {**both, **run}

    @functools.cached_property
    def differing(self) -> dict[Key, np.ndarray]:
        """Where each quantity that differs does, (n,)."""
        wrong = {key: ~equal(x, y) for key, (x, y) in self.columns.items()}
        return {key: rows for key, rows in wrong.items() if rows.any()}

    @functools.cached_property
    def first(self) -> int:
        """The first row that differs."""
        return min(int(np.argmax(rows)) for rows in self.differing.values())

    @functools.cached_property
    def names(self) -> list[str]:
        """Of the quantities that differ."""
        return list(dict.fromkeys(name for _, name in self.differing))

    @functools.cached_property
    def arguments(self) -> dict[str, Any]:
        """Those of the factory that made the recipe; none where none did."""
        _, arguments = (self.recipe and self.recipe.origin) or (None, {})
        return dict(arguments)

    @functools.cached_property
    def steps_per_epoch(self) -> int | None:
        """Counts in an epoch, where the reference tells: its parts, or where its rate moves."""
        parts = (node for key in self.columns for node in nodes(self.schedule(key)))
        told = [self.arguments.get("steps_per_epoch")]
        told += [p["steps_per_epoch"] for factory, p in parts if factory is per_epoch]
        if known := [n for n in told if isinstance(n, int)]:
            return known[0]
        starts = set()
        for _, group in self.reference.groups.items():
            rate = group.get("learning_rate", np.zeros(0))
            starts |= set((np.flatnonzero(np.diff(rate)) + 1 + self.reference.start).tolist())
        # In a warm-up each row moves; what is after it tells.
        late = sorted(count for count in starts if not {count - 1, count + 1} & starts)
        step = int(np.gcd.reduce(late)) if len(late) > 1 else 0
        return step if step > 1 else None

    def schedule(self, key: Key) -> Any:
        """The recipe's schedule of a quantity; None where it is a number or not known."""
        entry = self.recipe.groups.get(key[0], {}).get(key[1]) if self.recipe else None
        return entry if callable(entry) else None

    def at(self, key: Key, counts: np.ndarray) -> np.ndarray:
        """The reference's value at counts, which may lie outside its rows; NaN where not known."""
        if (schedule := self.schedule(key)) is not None:
            return np.where(counts >= 0, evaluated(schedule, np.maximum(counts, 0)), np.nan)
        values = self.columns[key][1]
        row = counts - self.reference.start
        known = (row >= 0) & (row < len(values))
        if self.recipe is not None and key[0] and (values == values[0]).all():
            return np.full(len(counts), values[0], values.dtype)  # a number in the recipe
        return np.where(known, values[np.clip(row, 0, len(values) - 1)], np.nan)

    def say(self, text: str, ours: Any, theirs: Any) -> str:
        """``text`` with the value of the run that is at fault, and the right one."""
        ours, theirs = (theirs, ours) if self.flipped else (ours, theirs)
        return text.format(ours=shown(ours), theirs=shown(theirs))


def causes(case: Case, mistakes: Iterable[Mistake]) -> Iterator[str]:
    """The sentences of those that reproduce every quantity that differs.

    Where none does, but each quantity has one of its own, those, with its name.
    """
    whole: dict[str, str] = {}
    partial: list[tuple[Mistake, Key]] = []
    for mistake in mistakes:
        if kind(mistake.sentence) in whole:
            continue
        told = ""
        for key in case.differing:
            how = explained(case, mistake, key)
            if not how:
                partial.append((mistake, key))  # up to here it does
                break
            told = told or how
        else:
            if not mistake.everywhere or _spares(case, mistake):
                whole[kind(mistake.sentence)] = mistake.sentence + (
                    "" if told == THROUGHOUT else since(case)
                )
    yield from whole.values() if whole else _several(case, partial)


def _several(case: Case, partial: list[tuple[Mistake, Key]]) -> Iterator[str]:
    """A cause for each quantity, where one for all was not found; none where one lacks."""
    found: dict[str, list[str]] = {}
    for key in case.differing if len(case.differing) > 1 else ():
        for mistake, failed in partial:
            if key == failed or mistake.everywhere:
                continue
            if how := explained(case, mistake, key):
                sentence = mistake.sentence + ("" if how == THROUGHOUT else since(case))
                found.setdefault(sentence, []).append("/".join(filter(None, key)))
                break
        else:
            return
    for sentence, keys in found.items():
        yield f"{sentence}; it explains {', '.join(keys)}, the rest has another cause"


def _spares(case: Case, mistake: Mistake) -> bool:
    """Whether what does not differ is left as it is."""
    for key, (mine, _) in case.columns.items():
        if key not in case.differing:
            curve = mistake.curve(key, case.counts)
            if curve is not None and not (equal(mine, curve) | np.isnan(curve)).all():
                return False
    return True


def since(case: Case) -> str:
    """Where a mistake that was not made from the start begins."""
    return f", from {case.reference.clock} {case.counts[case.first]} on"


def explained(case: Case, mistake: Mistake, key: Key) -> str:
    """``THROUGHOUT`` or ``"since"`` where the mistake makes the reference's quantity mine.

    Before the first row that differs the two are equal, so what comes after it
    is what a mistake must reproduce: it may have been made there, or throughout.
    """
    mine = case.columns[key][0]
    wrong = case.differing[key]
    rows = np.flatnonzero(wrong)
    spread = np.linspace(case.first, len(mine) - 1, SAMPLED - 3).astype(int)
    few = np.array([rows[0], rows[-1], rows[len(rows) // 2], *spread])
    for sample in (few, np.arange(len(mine))):
        curve = mistake.curve(key, case.counts[sample])
        if curve is None or np.isnan(curve).all():
            return ""
        known = ~np.isnan(curve) | np.isnan(mine[sample])
        # A zero of the curve is dust where it was computed in another order.
        peak = np.abs(mine[np.isfinite(mine)]).max(initial=0)
        dust = np.abs(mine[sample].astype(np.float64) - curve) <= DUST * peak
        same = equal(mine[sample], curve) | dust | ~known
        if not same[sample >= case.first].all():
            return ""
    # What is outside a recorded trace is not known: most of the difference must be.
    if known[wrong].mean() < 0.5:
        return ""
    return THROUGHOUT if same.all() else "since"


def nodes(schedule: Any) -> Iterator[tuple[Callable[..., Any], Mapping[str, Any]]]:
    """The factories within a schedule and their arguments, its own first."""
    if isinstance(schedule, list | tuple):  # the members of a composition
        for member in schedule:
            yield from nodes(member)
    elif isinstance(schedule, Schedule):
        yield expression(schedule)
        for part in expression(schedule)[1].values():
            yield from nodes(part)


def expression(schedule: Schedule) -> tuple[Callable[..., Any], Mapping[str, Any]]:
    """The factory and the arguments; of a table that goes on as a schedule those of that one."""
    then = schedule.arguments.get("then")
    if schedule.factory is table and isinstance(then, Schedule):
        return expression(then)
    return schedule.factory, schedule.arguments


def evaluated(schedule: Callable[..., Any], counts: np.ndarray) -> np.ndarray:
    """A schedule at counts (n,), in float64."""
    if not len(counts):
        return np.zeros(0)
    padded = np.resize(counts, -(-len(counts) // BLOCK) * BLOCK)
    padded[len(counts) :] = counts[-1]
    with jax.enable_x64(True):
        blocks = [
            _at_once(schedule, jnp.asarray(block, jnp.int64)) for block in padded.reshape(-1, BLOCK)
        ]
        return np.concatenate(blocks)[: len(counts)]


def _at_once(schedule: ScheduleLike, counts: jax.Array) -> np.ndarray:
    try:  # an array at once, which is quicker
        values = jnp.broadcast_to(jnp.asarray(schedule(counts)), counts.shape)
    except Exception:  # a table's end, a function of the user's own that takes one count
        values = jax.vmap(lambda count: jnp.asarray(schedule(count)))(counts)
    return np.asarray(values, np.float64)


def shown(value: Any) -> str:
    """A number as one writes it."""
    if isinstance(value, bool) or not isinstance(value, float | np.floating):
        return str(value)
    return f"{float(value):.7g}"
