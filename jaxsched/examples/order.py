"""The order of the training data. Iteration 0 is the first batch of epoch 0."""

from collections.abc import Iterator

import numpy as np

__all__ = ["rows"]


def rows(n: int, batch: int, epochs: int, *, seed: int = 0, start: int = 0) -> Iterator[np.ndarray]:
    """Yield the rows of each batch, shuffled in each epoch.

    Args:
      n: number of rows, a multiple of ``batch``.
      batch: rows in a batch.
      epochs: number of epochs.
      seed: determines each epoch's order together with its number, so that a run can start at any
        iteration.
      start: the first iteration.

    >>> [sorted(batch.tolist()) for batch in rows(2, 2, 3, start=1)]
    [[0, 1], [0, 1]]
    """
    steps = n // batch
    for epoch in range(start // steps, epochs):
        order = np.random.default_rng((seed, epoch)).permutation(n)
        yield from order.reshape(-1, batch)[max(start - epoch * steps, 0) :]
