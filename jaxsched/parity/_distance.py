"""The distance of two columns of numbers, row by row."""

import numpy as np

FLOAT64_BOUND = 1e-11
"""Largest distance of equal float64 curves, relative to the peak.

A closed form is within this distance of torch's recursion; a curve rounded to float32 is 6e-8 off.
"""


def ulps(mine: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return the distance in float32 steps, elementwise: 0 where the nearest float32 are the same.

    NaN has the largest distance from everything, NaN included.

    >>> ulps(np.array([1.0, 1.0]), np.array([1.0, 1.0 + 2**-23]))
    array([0, 1])
    """

    def order(values: np.ndarray) -> np.ndarray:
        bits = np.asarray(values, np.float32).view(np.int32).astype(np.int64)
        return np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)

    distance = np.abs(order(mine) - order(reference))
    distance[np.isnan(mine) | np.isnan(reference)] = np.iinfo(np.int32).max
    return distance


def equal(mine: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return where the nearest float32 are equal and two float64 are within ``FLOAT64_BOUND``."""
    same = ulps(mine, reference) == 0
    if mine.dtype == reference.dtype == np.float64:
        peak = np.nanmax(np.abs(reference), initial=0)
        with np.errstate(invalid="ignore"):  # infinity minus infinity
            distance = np.abs(mine - reference)
        same &= ~(distance > FLOAT64_BOUND * peak)
    return same
