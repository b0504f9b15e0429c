"""Solve for the number with which a changed run reproduces the other."""

from collections.abc import Callable

import numpy as np

CANDIDATES = 512  # numbers to try at a time: one shape, which JAX compiles once
DIGITS = range(1, 18)  # 17 digits determine a float64
MAX_CELLS = 2  # intervals to search, and numbers to return

Cells = list[tuple[float, float]]


def float_grid(value: float) -> np.ndarray:
    """Return numbers around ``value``, from 1e-4 to 1e4 times its size, and from 0 to 1.

    Many of them are just below 1, as the decays of averages are.
    """
    size = abs(value) or 1.0
    near = size * np.geomspace(1e-6, 1, 40)
    sizes = size * np.geomspace(1e-4, 1e4, 241)
    to_one = [*np.linspace(0, 1, 101), *(1 - np.geomspace(1e-7, 0.5, 60))]
    return np.unique([*sizes, *(value + near), *(value - near), *to_one])


def solve(
    evaluate: Callable[[np.ndarray], np.ndarray],  # from candidates (c,) to the changed run, (c, r)
    target: np.ndarray,  # the other run at the sampled rows, (r,), from the first differing one on
    grid: np.ndarray,  # the first candidates, ascending
    is_equal: Callable[[np.ndarray, np.ndarray], np.ndarray],  # from values (c, r) and the target
    size: int = CANDIDATES,  # candidates to evaluate at a time
) -> list[float]:
    """Find numbers that reproduce ``target``, those with the most rows and the shortest first.

    The grid's numbers are tried first. Between two of them whose values enclose the target at the
    first rows, the search continues down to neighbouring float64; results are shortened.
    """
    rows, numbers = len(target), dict[float, int]()

    def score(candidates: np.ndarray) -> tuple[Cells, np.ndarray]:
        """Return the intervals to search, and the first rows that each candidate reproduces."""
        blocks = np.pad(candidates, (0, -len(candidates) % size), "edge").reshape(-1, size)
        values = np.concatenate([evaluate(block) for block in blocks])[: len(candidates)]
        same = is_equal(values, target)
        count = np.cumprod(same, 1).sum(1)
        scores = {number: int(n) for number, n in zip(candidates.tolist(), count, strict=True) if n}
        numbers.update((number, scores[number]) for number in _best(scores))
        return _cells(candidates, values, target, same), count

    for cell in score(grid)[0]:
        cells, candidates, count = [cell], grid, np.zeros(1)
        while cells and count.max() < rows and len(candidates) > 2:
            candidates = np.unique(np.linspace(*cells[0], size))
            cells, count = score(candidates)
        if count.max():
            best = candidates[count.argmax()]
            score(np.array([float(f"{best:.{digits}g}") for digits in DIGITS]))
    return _best(numbers)


def _best(scores: dict[float, int]) -> list[float]:
    """Return the numbers with the most rows, the shortest first."""
    return sorted(scores, key=lambda number: (-scores[number], len(repr(number))))[:MAX_CELLS]


def _cells(grid: np.ndarray, values: np.ndarray, target: np.ndarray, same: np.ndarray) -> Cells:
    """Return the intervals of the grid that enclose the first rows' targets, most rows first."""
    with np.errstate(invalid="ignore"):
        above = values > target
    enclosed = (above[1:] != above[:-1]) | same[1:] | same[:-1]
    enclosed &= np.isfinite(values[1:]) & np.isfinite(values[:-1])
    rows = np.cumprod(enclosed, 1).sum(1)
    moves = (values[1:] != values[:-1]).any(1)  # two equal rows of values enclose nothing
    order = [at for at in np.argsort(-rows, kind="stable") if rows[at] and moves[at]]
    return [(grid[at].item(), grid[at + 1].item()) for at in order[:MAX_CELLS]]
