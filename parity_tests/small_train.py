"""``jaxsched train`` with networks that compile quickly; the arguments are the command's."""

import sys

import jax
import numpy as np
import orbax.checkpoint as ocp
from flax import nnx

from jaxsched import cli
from jaxsched.examples import train_nnx, train_yolov5
from jaxsched.examples.boxes import ANCHORS
from jaxsched.examples.detector import Conv
from jaxsched.examples.resnet import torch_batch_norm
from jaxsched.examples.shapes import CLASSES


class SmallNet(nnx.Module):
    """Replacement of the ResNet: a convolution, a BatchNorm, a head."""

    def __init__(self, classes, *, rngs):
        self.conv = nnx.Conv(3, 8, (3, 3), 2, rngs=rngs)
        self.bn = torch_batch_norm(8, rngs=rngs)
        self.fc = nnx.Linear(8, classes, rngs=rngs)

    def __call__(self, x):
        return self.fc(nnx.relu(self.bn(self.conv(x))).mean((1, 2)))


class SmallDetector(nnx.Module):
    """Replacement of the detector: each of its two scales from one convolution."""

    def __init__(self, *, rngs):
        self.fine = Conv(3, 8, 8, 8, rngs=rngs)
        self.coarse = Conv(8, 8, 3, 2, rngs=rngs)
        self.heads = nnx.List(
            nnx.Linear(8, len(a) * (5 + len(CLASSES)), rngs=rngs) for a in ANCHORS
        )

    def __call__(self, images):
        fine = self.fine(images)
        return [
            head(x).reshape(*x.shape[:3], len(anchors), -1)
            for head, x, anchors in zip(self.heads, (fine, self.coarse(fine)), ANCHORS, strict=True)
        ]


def put_in_place():
    train_nnx.ResNet18 = SmallNet
    train_yolov5.Detector = SmallDetector


def arrays_of(folder, iteration):
    """Return all arrays of an iteration's checkpoint, including the rows of the trace."""
    with ocp.CheckpointManager(folder / "checkpoints") as reader:
        tree = reader.restore(iteration)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


if __name__ == "__main__":
    put_in_place()
    sys.exit(cli.main(sys.argv[1:]))
