"""The order in which a training sees its data. Iteration 0 is the first batch of epoch 0."""

from collections.abc import Iterator

import numpy as np

__all__ = ["rows"]


def rows(n: int, batch: int, epochs: int, *, seed: int = 0, start: int = 0) -> Iterator[np.ndarray]:
    """The rows of each batch, shuffled anew in each epoch.

    Args:
      n: rows that there are; ``batch`` divides it.
      batch: rows in a batch.
      epochs: up to which.
      seed: with the epoch's number it alone makes the epoch's order, so that a run
        can go on anywhere.
      start: the iteration to begin with.

    >>> [sorted(batch.tolist()) for batch in rows(2, 2, 3, start=1)]
    [[0, 1], [0, 1]]
    """
    steps = n // batch
    for epoch in range(start // steps, epochs):
        order = np.random.default_rng((seed, epoch)).permutation(n)
        yield from order.reshape(-1, batch)[max(start - epoch * steps, 0) :]
