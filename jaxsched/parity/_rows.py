"""How far two columns of numbers are apart. Row k of one stands against row k of the other."""

import numpy as np

FLOAT64_BOUND = 1e-11
"""Distance that two float64 curves may have, relative to the peak.

A closed form and torch's recursion are as far apart as that; a curve that was
rounded to float32 on its way is 6e-8 away.
"""


def ulps(mine: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return the distance in float32 steps, elementwise: 0 where the nearest float32 are the same.

    NaN is as far as can be from everything, NaN included.

    >>> ulps(np.array([1.0, 1.0]), np.array([1.0, 1.0 + 2**-23]))
    array([0, 1])
    """

    def ordered(values: np.ndarray) -> np.ndarray:
        bits = np.asarray(values, np.float32).view(np.int32).astype(np.int64)
        return np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)

    distance = np.abs(ordered(mine) - ordered(reference))
    distance[np.isnan(mine) | np.isnan(reference)] = np.iinfo(np.int32).max
    return distance


def equal(mine: np.ndarray, reference: np.ndarray) -> np.ndarray:
    """Return where the nearest float32 are the same; of two float64, also within ``FLOAT64_BOUND``."""
    same = ulps(mine, reference) == 0
    if mine.dtype == reference.dtype == np.float64:
        peak = np.nanmax(np.abs(reference), initial=0)
        with np.errstate(invalid="ignore"):  # infinity less infinity
            distance = np.abs(mine - reference)
        same &= ~(distance > FLOAT64_BOUND * peak)
    return same
