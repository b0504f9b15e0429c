"""Synthetic images: one to three filled shapes on a noisy background.

An epoch is 40 batches of 16; iteration 0 is the first batch of epoch 0.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np

from jaxsched.examples.order import rows

__all__ = ["BATCH", "CLASSES", "SIZE", "STEPS_PER_EPOCH", "Shapes", "batches", "draw", "load"]

SIZE = 64
"""Pixels a side of an image."""

_MOST = 3
"""The most shapes in an image."""

_TRAINING, _TEST = 640, 200
BATCH = 16
STEPS_PER_EPOCH = _TRAINING // BATCH

# Whether a point is inside each shape, whose box spans -1 to 1 in u and v; v points down.
CLASSES: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "ellipse": lambda u, v: u**2 + v**2 <= 1,
    "rectangle": lambda u, v: np.maximum(abs(u), abs(v)) <= 1,
    "triangle": lambda u, v: (abs(v) <= 1) & (2 * abs(u) <= v + 1),
}


class Shapes(NamedTuple):
    """Images (n, 64, 64, 3) from 0 to 1, with the boxes and labels of their shapes.

    Attributes:
      images: float32.
      boxes: (n, 3, 4), centre, width and height in pixels; zeros for no shape.
      labels: (n, 3), indices into ``CLASSES``; -1 for no shape.
    """

    images: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray


def draw(n: int, *, seed: int = 0) -> Shapes:
    """Draw ``n`` images with shapes of random number, kind, colour, size and place."""
    rng = np.random.default_rng(seed)
    images = rng.uniform(0, 0.5, (n, 1, 1, 1)) + rng.normal(0, 0.08, (n, SIZE, SIZE, 3))
    boxes = np.zeros((n, _MOST, 4), np.float32)
    labels = np.full((n, _MOST), -1, np.int32)
    y, x = np.mgrid[:SIZE, :SIZE] + 0.5
    for image, box, label in zip(images, boxes, labels, strict=True):
        for k in range(rng.integers(1, _MOST + 1)):
            box[k], label[k] = _place(rng, box[:k]), rng.integers(len(CLASSES))
            inside = list(CLASSES.values())[label[k]]
            colour = rng.uniform(size=3)
            colour[rng.integers(3)] = 1.0  # to contrast with any background
            centre, half = box[k, :2], box[k, 2:] / 2
            image[inside((x - centre[0]) / half[0], (y - centre[1]) / half[1])] = colour
    return Shapes(images.clip(0, 1).astype(np.float32), boxes, labels)


def _place(rng: np.random.Generator, others: np.ndarray) -> np.ndarray:
    """Return a random box within the image that overlaps none of the others."""
    # The loop ends: two boxes of at most 26 pixels leave two corners of the image free.
    while True:
        size = rng.uniform(12, 26, 2)
        box = np.concatenate([rng.uniform(size / 2, SIZE - size / 2), size])
        apart = 2 * abs(others[:, :2] - box[:2]) >= others[:, 2:] + box[2:]
        if apart.any(1).all():
            return box


def load(*, seed: int = 0) -> tuple[Shapes, Shapes]:
    """Draw 640 images for training and 200 for testing."""
    drawn = draw(_TRAINING + _TEST, seed=seed)
    return Shapes(*(a[:_TRAINING] for a in drawn)), Shapes(*(a[_TRAINING:] for a in drawn))


def batches(data: Shapes, epochs: int, *, seed: int = 0, start: int = 0) -> Iterator[Shapes]:
    """Yield ``data`` in batches of 16, ``epochs`` times, shuffled as in ``order.rows``."""
    for chosen in rows(len(data.labels), BATCH, epochs, seed=seed, start=start):
        yield Shapes(*(a[chosen] for a in data))
