"""How far two columns of numbers are apart. Row k of one stands against row k of the other."""

import numpy as np

FLOAT64_BOUND = 1e-11
"""Distance that two float64 curves may have, relative to the peak.

A closed form and torch's recursion are as far apart as that; a curve that was
rounded to float32 on its way is 6e-8 away.
"""


def ulps(mine: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Distance in float32 steps, elementwise: 0 where the nearest float32 are the same.

    >>> ulps(np.array([1.0, 1.0]), np.array([1.0, 1.0 + 2**-23]))
    array([0, 1])
    """

    def ordered(values: np.ndarray) -> np.ndarray:
        bits = np.asarray(values, np.float32).view(np.int32).astype(np.int64)
        return np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)

    distance = np.abs(ordered(mine) - ordered(reference))
    nan_mine, nan_reference = np.isnan(mine), np.isnan(reference)
    distance[nan_mine & nan_reference] = 0
    distance[nan_mine ^ nan_reference] = np.iinfo(np.int32).max
    return distance


def equal(mine: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Where the nearest float32 are the same; of two float64, also within ``FLOAT64_BOUND``."""
    same = ulps(mine, reference) == 0
    if mine.dtype == reference.dtype == np.float64:
        same &= ~(np.abs(mine - reference) > FLOAT64_BOUND * np.nanmax(np.abs(reference)))
    return same
