"""scikit-learn's handwritten digits: 600 images for training, 1,197 for testing.

An epoch is 30 batches of 20; iteration 0 is the first batch of epoch 0.
"""

from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
from sklearn.datasets import load_digits

from jaxsched.examples.order import rows

__all__ = ["BATCH", "STEPS_PER_EPOCH", "Digits", "batches", "load"]

_TRAINING = 600
BATCH = 20
STEPS_PER_EPOCH = _TRAINING // BATCH


class Digits(NamedTuple):
    """Images (n, size, size, 3), normalised, and their labels (n,)."""

    images: np.ndarray
    labels: np.ndarray


def load(*, size: int = 16, seed: int = 0) -> tuple[Digits, Digits]:
    """Load the training and the test images.

    Args:
      size: pixels a side; the originals have 8.
      seed: seed of the split.
    """
    pixels, labels = load_digits(return_X_y=True)
    images = ((pixels - pixels.mean()) / pixels.std()).reshape(-1, 8, 8, 1)
    shape = (len(images), size, size, 3)
    images = np.asarray(jax.image.resize(images.astype(np.float32), (*shape[:3], 1), "linear"))
    order = np.random.default_rng(seed).permutation(len(images))
    train, test = order[:_TRAINING], order[_TRAINING:]
    images, labels = np.broadcast_to(images, shape), labels.astype(np.int32)
    return Digits(images[train], labels[train]), Digits(images[test], labels[test])


def batches(data: Digits, epochs: int, *, seed: int = 0, start: int = 0) -> Iterator[Digits]:
    """Yield ``epochs * 30`` batches of 20, shuffled in each epoch as in ``order.rows``."""
    for chosen in rows(len(data.labels), BATCH, epochs, seed=seed, start=start):
        yield Digits(data.images[chosen], data.labels[chosen])
