"""Boxes as in YOLOv5: decoding a detector's outputs, their loss, and non-maximum suppression.

Written for this package. An output is an array (n, rows, columns, anchors, 5 + classes) for each
scale: box, objectness, classes.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

from jaxsched.examples.shapes import CLASSES, Shapes

__all__ = ["ANCHORS", "Array", "Detections", "cells", "iou", "loss", "select"]

_STRIDES = (8, 16)
"""Width of a cell of each scale, in pixels."""

ANCHORS = (((12.0, 18.0), (18.0, 12.0)), ((18.0, 26.0), (26.0, 18.0)))
"""Widths and heights of the anchor boxes of each scale.

A box can be four times as large as its anchor, so every anchor is matched to every shape.
"""

_GAINS = {"box": 0.2, "objectness": 1.0, "class": 0.5}
"""Weights of the losses, for images of this size."""

Array = jax.Array | np.ndarray


def _decode(output: jax.Array, stride: int, anchors: Any) -> jax.Array:
    r"""Return the boxes of one scale: centre, width and height in pixels.

    .. math::
        c &= (2 \sigma(t_c) - 1/2 + \mathrm{cell}) \, \mathrm{stride} \\
        s &= (2 \sigma(t_s))^2 \, \mathrm{anchor}

    so that a centre may lie in the next half of a neighbouring cell.
    """
    rows, columns = output.shape[1:3]
    cell = jnp.stack(jnp.meshgrid(jnp.arange(columns), jnp.arange(rows)), -1)[:, :, None]
    t = 2 * nnx.sigmoid(output[..., :4])
    centre = (t[..., :2] - 0.5 + cell) * stride
    return jnp.concatenate([centre, t[..., 2:] ** 2 * jnp.asarray(anchors)], -1)


def iou(a: Array, b: Array) -> jax.Array:
    """Intersection over union of boxes; leading dimensions are broadcast."""
    low = jnp.maximum(a[..., :2] - a[..., 2:] / 2, b[..., :2] - b[..., 2:] / 2)
    high = jnp.minimum(a[..., :2] + a[..., 2:] / 2, b[..., :2] + b[..., 2:] / 2)
    common = jnp.maximum(high - low, 0).prod(-1)
    return common / (a[..., 2:].prod(-1) + b[..., 2:].prod(-1) - common)


def _complete_iou(a: Array, b: Array) -> jax.Array:
    r"""Complete IoU: IoU less penalties for the distance of centres and for the aspect.

    .. math::
        \mathrm{IoU} - \frac{d^2}{c^2} - \alpha v, \quad
        v = \frac{4}{\pi^2} \Big(\arctan\frac{w_a}{h_a} - \arctan\frac{w_b}{h_b}\Big)^2, \quad
        \alpha = \frac{v}{1 - \mathrm{IoU} + v}

    with d between the centres and c the diagonal around both; α is held constant.

    Source: Zheng et al., "Distance-IoU Loss", https://arxiv.org/abs/1911.08287.
    """
    overlap, apart = iou(a, b), a[..., :2] - b[..., :2]
    half = (a[..., 2:] + b[..., 2:]) / 2
    # Along each axis the hull is the larger box, or spans both boxes.
    hull = jnp.maximum(jnp.maximum(a[..., 2:], b[..., 2:]), abs(apart) + half)
    aspects = jnp.arctan2(a[..., 2], a[..., 3]) - jnp.arctan2(b[..., 2], b[..., 3])
    v = (2 / jnp.pi * aspects) ** 2
    alpha = jax.lax.stop_gradient(v / (1 - overlap + v + 1e-7))
    return overlap - (apart**2).sum(-1) / (hull**2).sum(-1) - alpha * v


def cells(boxes: Array, stride: int) -> jax.Array:
    """Return the cell of each box's centre and its two nearest neighbours, (…, 3, 2): column, row."""
    place = boxes[..., None, :2] / stride
    own = jnp.floor(place)
    side = jnp.where(place - own < 0.5, -1, 1)
    return (own + side * jnp.array([[0, 0], [1, 0], [0, 1]])).astype(jnp.int32)


def loss(outputs: list[jax.Array], batch: Shapes) -> tuple[jax.Array, jax.Array]:
    """Sum of box, objectness and class losses: the batch's mean times its number of images.

    ``recipes.yolov5`` expects this loss, since it sums gradients over the batches of an update.

    Returns:
      The loss, and the share of shapes for which a matched predictor's box overlaps by more than
      half and its class is right.
    """
    total, fits = jnp.zeros([]), jnp.zeros(batch.labels.shape, bool)
    labels, n = jnp.asarray(batch.labels), len(batch.labels)
    image = jnp.arange(n)[:, None, None]
    for output, stride, anchors in zip(outputs, _STRIDES, ANCHORS, strict=True):
        column, row = jnp.moveaxis(cells(batch.boxes, stride), -1, 0)
        inside = (column >= 0) & (column < output.shape[2]) & (row >= 0) & (row < output.shape[1])
        matched = ((labels >= 0)[..., None] & inside)[..., None]  # (n, shapes, cells, 1)
        place = image, row.clip(0, output.shape[1] - 1), column.clip(0, output.shape[2] - 1)

        overlap = _complete_iou(
            _decode(output, stride, anchors)[place], batch.boxes[:, :, None, None]
        )
        logits = output[place][..., 5:]
        wanted = jnp.broadcast_to(nnx.one_hot(labels, len(CLASSES))[:, :, None, None], logits.shape)
        by_class = optax.sigmoid_binary_cross_entropy(logits, wanted).mean(-1)
        # The target of objectness is the overlap with the shape, the best one of several.
        sure = jnp.zeros(output.shape[:-1]).at[place].max(jnp.where(matched, overlap, 0))
        sure = jax.lax.stop_gradient(sure)
        count = jnp.maximum(matched.sum() * len(anchors), 1)
        total += _GAINS["box"] * jnp.where(matched, 1 - overlap, 0).sum() / count
        total += _GAINS["class"] * jnp.where(matched, by_class, 0).sum() / count
        total += (
            _GAINS["objectness"] * optax.sigmoid_binary_cross_entropy(output[..., 4], sure).mean()
        )
        right = logits.argmax(-1) == labels[..., None, None]
        fits |= (matched & right & (overlap > 0.5)).any((2, 3))
    return total * n, fits.sum() / jnp.maximum((labels >= 0).sum(), 1)


class Detections(NamedTuple):
    """Boxes (n, 20, 4), labels and scores (n, 20), the highest score first; score 0 is no box."""

    boxes: jax.Array
    labels: jax.Array
    scores: jax.Array


def select(outputs: list[jax.Array]) -> Detections:
    """Select boxes with a score above 0.25 that no box of a higher score overlaps by 0.45."""
    n, width = len(outputs[0]), outputs[0].shape[-1]
    boxes = [_decode(*scale) for scale in zip(outputs, _STRIDES, ANCHORS, strict=True)]
    boxes = jnp.concatenate([b.reshape(n, -1, 4) for b in boxes], 1)
    chances = nnx.sigmoid(jnp.concatenate([o.reshape(n, -1, width) for o in outputs], 1)[..., 4:])

    def suppress(boxes: jax.Array, chances: jax.Array) -> Detections:
        scores, rows = jax.lax.top_k(chances[:, 0] * chances[:, 1:].max(-1), 20)
        boxes, labels = boxes[rows], chances[rows, 1:].argmax(-1)
        near = jnp.tril(iou(boxes[:, None], boxes) > 0.45, -1)
        keep = jax.lax.fori_loop(
            1, 20, lambda i, keep: keep.at[i].set(keep[i] & ~(near[i] & keep).any()), scores > 0.25
        )
        return Detections(boxes, labels, jnp.where(keep, scores, 0))

    return jax.vmap(suppress)(boxes, chances)
