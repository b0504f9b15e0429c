"""Solve for the number with which a changed run gives the other."""

from collections.abc import Callable, Iterable

import numpy as np

CANDIDATES = 512  # numbers tried at a time: one shape, which JAX compiles once
DIGITS = 17  # decimals that determine a float64
MAX_CELLS = 2  # intervals that are searched, and numbers that are returned

Cells = list[tuple[float, float]]


def float_grid(value: float) -> np.ndarray:
    """Return numbers around ``value``, of every size up to 1e4 times it, and shares of 1."""
    size = abs(value) or 1.0
    near = size * np.geomspace(1e-6, 1, 40)
    sizes = size * np.geomspace(1e-4, 1e4, 241)
    return np.unique([*sizes, *(value + near), *(value - near), *np.linspace(0, 1, 101)])


def int_grid(value: int, unit: int, most: int) -> np.ndarray:
    """Return integers around ``value``, multiples of it and ``unit``, and of sizes to ``most``."""
    near, k = np.arange(-70, 71), np.arange(2, 33)
    sizes = np.geomspace(1, max(most, 4 * abs(value), 2), 60).round()
    parts = [value + near, value * k, value // k, near, unit * k, value + unit * near[54:87], sizes]
    return np.unique([value * unit, value // unit, *np.concatenate(parts)]).astype(np.int64)


def solve(
    evaluate: Callable[[np.ndarray], np.ndarray],  # from candidates (c,) to the changed run, (c, r)
    target: np.ndarray,  # the other run at the sampled rows, (r,), the first that differs first
    grid: np.ndarray,  # numbers to begin with, ascending
    is_equal: Callable[[np.ndarray, np.ndarray], np.ndarray],  # from values (c, r) and the target
    hints: Iterable[float] = (),  # numbers to try first
    guards: int = 0,  # how many of the last rows only decide between numbers that do equally well
    size: int = CANDIDATES,  # how many to evaluate at a time
) -> list[float]:
    """Find numbers that reproduce ``target``, those with the most rows first.

    The grid's numbers are tried as they are. Between two of them whose values enclose those of the
    first rows the search goes on, down to neighbouring float64 or integers; of the numbers that
    reproduce the same rows the shortest is returned.
    """
    is_integer, rows = grid.dtype.kind == "i", len(target) - guards
    found: dict[float, float] = {}

    def score(candidates: np.ndarray, is_kept: bool = is_integer) -> tuple[Cells, np.ndarray]:
        """The intervals to search, and how many of the first rows each candidate reproduces."""
        blocks = np.pad(candidates, (0, -len(candidates) % size), "edge").reshape(-1, size)
        values = np.concatenate([evaluate(block) for block in blocks])[: len(candidates)]
        same = is_equal(values, target)
        count = np.cumprod(same[:, :rows], 1).sum(1)
        count = count + np.where(count > 0, same[:, rows:].sum(1) / (guards + 1), 0)
        for at in np.argsort(-count, kind="stable")[: MAX_CELLS if is_kept else 0]:
            if count[at]:
                found.setdefault(candidates[at].item(), float(count[at]))
        return _cells(candidates, values[:, :rows], target[:rows], same[:, :rows]), count

    written = [h for h in dict.fromkeys(hints) if np.isfinite(h) and (not is_integer or h % 1 == 0)]
    if written:
        score(np.array(written).astype(grid.dtype), True)
    if max(found.values(), default=0) < rows:
        widest, count = score(grid)
        for cell in widest:
            cells, candidates = [cell], grid
            for _ in range(DIGITS * 4):
                candidates = np.linspace(*cells[0], size)
                candidates = np.unique(candidates.round().astype(int) if is_integer else candidates)
                cells, count = score(candidates)
                if count.max() >= rows or len(candidates) < 3 or not cells:
                    break
            if not is_integer and count.max():
                best = candidates[count.argmax()]
                short = np.array([float(f"{best:.{digits}g}") for digits in range(1, DIGITS + 1)])
                _, counts = score(short)
                at = int(np.argmax(counts >= min(count.max(), counts.max())))
                found[short[at].item()] = float(counts[at])
    return sorted(found, key=lambda number: (-found[number], len(repr(number))))[:MAX_CELLS]


def _cells(grid: np.ndarray, values: np.ndarray, target: np.ndarray, same: np.ndarray) -> Cells:
    """Intervals of the grid that enclose the first rows' targets, most rows first."""
    with np.errstate(invalid="ignore"):
        above = values > target
    enclosed = (above[1:] != above[:-1]) | same[1:] | same[:-1]
    enclosed &= np.isfinite(values[1:]) & np.isfinite(values[:-1])
    rows = np.cumprod(enclosed, 1).sum(1)
    moves = (values[1:] != values[:-1]).any(1)  # what no candidate moves encloses nothing
    order = [at for at in np.argsort(-rows, kind="stable") if rows[at] and moves[at]]
    return [(grid[at].item(), grid[at + 1].item()) for at in order[:MAX_CELLS]]
