"""Mistakes that show in the curves themselves, recorded ones too.

Counts are those of the traces' clock.
"""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from jaxsched.parity._causes import Case, Key, Mistake

DTYPES = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16, "float32": np.float32}
"""The coarsest first: of those that hold all values a run was computed in the first."""

COMPUTED = 8
"""Roundings, in parts of the peak, that a formula evaluated in a dtype may be off."""


def mistakes(case: Case) -> Iterator[Mistake]:
    """All of this file's."""
    yield from _swaps(case)
    yield from _borrowed(case)
    yield from _flat(case)
    yield from _shifts(case)
    yield from _counts(case)
    yield from _averages(case)
    yield from _precision(case)


def _swaps(case: Case) -> Iterator[Mistake]:
    """Groups that have each other's values."""
    labels = list(case.reference.groups)
    for permuted in itertools.permutations(labels) if len(labels) <= 5 else ():
        of = {mine: theirs for mine, theirs in zip(labels, permuted, strict=True) if mine != theirs}
        if len(of) < 2:
            continue
        told = ", ".join(f"{mine} has the values of {theirs}" for mine, theirs in of.items())

        def curve(key: Key, counts: np.ndarray, of: Any = of) -> np.ndarray | None:
            other = (of.get(key[0], key[0]), key[1])
            return case.at(other, counts) if other in case.columns else None

        yield Mistake(f"groups swapped: {told}", curve, everywhere=True)


def _borrowed(case: Case) -> Iterator[Mistake]:
    """Some groups have one quantity of another: a bias rate that is missing, decay everywhere."""
    for name, label in itertools.product(case.names, case.reference.groups):
        of = [key[0] for key in case.differing if key[1] == name and key[0] not in ("", label)]
        if not of or (label, name) not in case.columns:
            continue
        groups, what = " and ".join(of), name.replace("_", " ")
        has = "have" if len(of) > 1 else "has"
        sentence = f"{groups} {has} the {what} of {label}"
        if name == "learning_rate":
            sentence = f"missing {' and '.join(of)} rate: {sentence}"
        if name == "weight_decay":
            sentence = f"weight decay applied to other groups: {sentence}"

        def curve(key: Key, counts: np.ndarray, name: str = name, of: str = label) -> Any:
            return case.at((of, name), counts) if key[1] == name else None

        yield Mistake(sentence, curve)


def _flat(case: Case) -> Iterator[Mistake]:
    """What should move is held, all along or from where the two part."""
    for keys in _together([key for key in case.differing if np.ptp(case.columns[key][1])]):
        yield from _held(case, keys)


def _together(keys: list[Key]) -> list[list[Key]]:
    """Those of each name, then all: a sentence names no more than it explains."""
    names = dict.fromkeys(name for _, name in keys)
    apart = [[key for key in keys if key[1] == name] for name in names]
    return [*(apart if len(apart) > 1 else []), *([keys] if keys else [])]


def _named(keys: list[Key]) -> str:
    return " and ".join(dict.fromkeys(name.replace("_", " ") for _, name in keys))


def _held(case: Case, moving: list[Key]) -> Iterator[Mistake]:
    names = _named(moving)

    def last(key: Key, counts: np.ndarray) -> np.ndarray | None:
        return np.full(len(counts), case.columns[key][1][-1]) if key in moving else None

    at = case.counts[max(case.first - 1, 0)]

    def held(key: Key, counts: np.ndarray) -> np.ndarray | None:
        return case.at(key, np.minimum(counts, at)) if key in moving else None

    yield Mistake(f"{names} not warmed up: constant", last)
    if case.first:
        yield Mistake(
            f"{names} clamped: held at its value of {at}, where the reference goes on (a cosine "
            "climbs again past its end)",
            held,
        )


def _shifts(case: Case) -> Iterator[Mistake]:
    """The run, or what follows the first difference, is early or late."""
    epoch = case.steps_per_epoch
    usual = [1, -1, *([] if epoch is None else [epoch, -epoch])]
    found = matching(case)
    if epoch is not None:  # within an epoch many shifts are the same
        found = sorted(found, key=lambda k: (k % epoch != 0, abs(k)))
    for k in dict.fromkeys([*usual, *found[:8]]):
        sentence = _shifted(case, k, epoch)

        def curve(key: Key, counts: np.ndarray, k: int = k) -> np.ndarray | None:
            return case.at(key, counts - k) if key[0] else None

        yield Mistake(sentence, curve)


def _shifted(case: Case, k: int, epoch: int | None) -> str:
    n, unit = abs(k), case.reference.clock
    if epoch is not None and epoch > 1 and n % epoch == 0:
        n, unit = n // epoch, "epoch"
    why = ""
    if k < 0 and n == 1:
        why = " (as where the scheduler steps before the optimizer"
        why += ", or does not lag)" if unit == "epoch" else ")"
    far = f"one {unit}" if n == 1 else f"{n} {unit}s"
    return f"off by {far}: the schedule is {far} {'late' if k > 0 else 'early'}{why}"


def matching(case: Case) -> list[int]:
    """Shifts at which the reference has mine's values where they part, nearest first."""
    moving = [
        key
        for key in case.differing
        if key[0] and (np.diff(case.columns[key][0][case.first :]) != 0).any()
    ]
    if not moving:
        return []
    key, mine = moving[0], case.columns[moving[0]][0]
    rows = np.unique(np.linspace(case.first, len(mine) - 1, 5).astype(int))
    n = len(mine)
    curve = case.at(key, case.reference.start + np.arange(-n, 2 * n)).astype(np.float32)
    shifts = np.arange(-n + 1, n)
    fits = np.ones(len(shifts), bool)
    for row in rows:
        there = curve[n + row - shifts]
        fits &= (there == mine[row].astype(np.float32)) | np.isnan(there)
    found = shifts[fits & (shifts != 0)]
    return sorted(found.tolist(), key=abs)


def _counts(case: Case) -> Iterator[Mistake]:
    """Another count is handed to the schedule."""
    epoch, begin = case.steps_per_epoch, case.reference.start
    if epoch is not None and epoch > 1:
        yield Mistake(
            "per-epoch for per-iteration: the schedule moves only where an epoch begins",
            lambda key, counts: case.at(key, counts // epoch * epoch) if key[0] else None,
        )
        for ahead in (0, 1):
            yield Mistake(
                "per-iteration for per-epoch: the scheduler steps at every iteration",
                lambda key, counts, ahead=ahead: (
                    case.at(key, (counts + ahead) * epoch) if key[0] else None
                ),
            )
    stepped = case.reference.run.get("stepped")
    if stepped is None or stepped.all():
        return
    for before in (0, 1):
        updates = begin + np.cumsum(stepped).astype(int) - (before * stepped).astype(int)

        def curve(key: Key, counts: np.ndarray, updates: Any = updates) -> np.ndarray | None:
            return case.at(key, updates[counts - begin]) if key[0] else None

        yield Mistake("updates counted for iterations: the schedule moves only with them", curve)

    accumulate = case.reference.run.get("accumulate")
    if accumulate is not None and (accumulate != accumulate[-1]).any():
        share = accumulate / accumulate[-1]
        yield Mistake(
            "weight decay scaled by the accumulation in force, not by that after the warm-up",
            lambda key, counts: (
                case.at(key, counts).astype(np.float64) * share[counts - begin]
                if key[1] == "weight_decay"
                else None
            ),
        )


def _averages(case: Case) -> Iterator[Mistake]:
    """The average moves at every batch."""
    if "ema_updates" not in case.reference.run:
        return
    before = case.reference.run["ema_updates"][0] - case.reference.run["stepped"][0]
    ema = case.reference.ema
    ema = ema if isinstance(ema, Mapping) else {}

    def curve(key: Key, counts: np.ndarray) -> np.ndarray | None:
        updates = before + counts - case.reference.start + 1.0
        if key == ("", "ema_decay") and ema:
            return ema["decay"] * (1 - np.exp(-updates / ema["tau"]))
        return updates if key == ("", "ema_updates") else None

    yield Mistake("EMA per batch: the average counts batches, not updates", curve)


def _precision(case: Case) -> Iterator[Mistake]:
    """The curve, rounded; or all along within what arithmetic in another dtype rounds away."""
    for keys in _together(list(case.differing)):
        yield from _rounded(case, keys)


def _rounded(case: Case, keys: list[Key]) -> Iterator[Mistake]:
    names, both = _named(keys), [case.columns[key] for key in keys]
    # Of a reference that is 0 throughout nothing is a rounding away.
    off = max(float(np.abs(x - y).max()) / (float(np.abs(y).max()) or 1e-300) for x, y in both)
    computed = False
    for name, dtype in DTYPES.items():

        def rounded(values: np.ndarray, dtype: Any = dtype) -> np.ndarray:
            return values.astype(np.float32).astype(dtype).astype(np.float64)

        yield Mistake(
            f"{name} hyperparameters: {names} rounded to {name}",
            lambda key, counts, rounded=rounded: (
                rounded(case.at(key, counts)) if key in keys else None
            ),
        )
        of_dtype = all((rounded(x) == x).all() for x, _ in both if x.dtype != np.float32)
        if dtype is not np.float32:
            of_dtype = all((rounded(x) == x).all() for x, _ in both)
        if computed:
            continue
        computed = of_dtype
        if of_dtype and off <= COMPUTED * float(ml_dtypes.finfo(dtype).eps):
            yield Mistake(
                f"{name} hyperparameters: {names} computed in {name}, at most {off:.2g} of the "
                "peak away",
                lambda key, counts: (
                    case.columns[key][0][counts - case.reference.start] if key in keys else None
                ),
            )
