"""A small detector after YOLOv5's design, in Flax NNX: CSP blocks, pooling, two scales with anchors.

Written for this package, for images of 64 x 64; ``boxes`` decodes its outputs.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from jaxsched.examples.boxes import ANCHORS
from jaxsched.examples.resnet import TorchBatchNorm, dense_init, torch_batch_norm
from jaxsched.examples.shapes import CLASSES

__all__ = ["Conv", "Detector"]


class Conv(nnx.Module):
    """Convolution, BatchNorm and SiLU; stride 2 halves the image."""

    def __init__(self, inputs: int, outputs: int, size: int, stride: int = 1, *, rngs: nnx.Rngs):
        self.conv: nnx.Conv = nnx.Conv(
            inputs,
            outputs,
            (size, size),
            stride,
            padding=(size - 1) // 2,
            use_bias=False,
            kernel_init=dense_init,
            rngs=rngs,
        )
        self.bn: TorchBatchNorm = torch_batch_norm(outputs, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """``x`` with ``outputs`` features."""
        return nnx.silu(self.bn(self.conv(x)))


class _CSP(nnx.Module):
    """Cross-stage partial block: half of the features passes a bottleneck, half skips it.

    Source: Wang et al., "CSPNet", https://arxiv.org/abs/1911.11929.
    """

    def __init__(self, inputs: int, outputs: int, *, shortcut: bool = True, rngs: nnx.Rngs):
        half = outputs // 2
        self.through: Conv = Conv(inputs, half, 1, rngs=rngs)
        self.by: Conv = Conv(inputs, half, 1, rngs=rngs)
        self.reduce: Conv = Conv(half, half, 1, rngs=rngs)
        self.expand: Conv = Conv(half, half, 3, rngs=rngs)
        self.merge: Conv = Conv(2 * half, outputs, 1, rngs=rngs)
        self.shortcut = shortcut

    def __call__(self, x: jax.Array) -> jax.Array:
        """``x`` with ``outputs`` features."""
        y = self.through(x)
        bottleneck = self.expand(self.reduce(y))
        y = y + bottleneck if self.shortcut else bottleneck
        return self.merge(jnp.concatenate([y, self.by(x)], -1))


class _Pool(nnx.Module):
    """Pyramid pooling: maxima over 3, 5 and 7 cells, each computed from the one before."""

    def __init__(self, features: int, *, rngs: nnx.Rngs):
        self.reduce: Conv = Conv(features, features // 2, 1, rngs=rngs)
        self.merge: Conv = Conv(2 * features, features, 1, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return ``x`` joined with the maxima around each cell."""
        maxima = [self.reduce(x)]
        for _ in range(3):
            maxima.append(nnx.max_pool(maxima[-1], (3, 3), padding="SAME"))
        return self.merge(jnp.concatenate(maxima, -1))


class Detector(nnx.Module):
    """A network from images (n, 64, 64, 3) to the outputs of two scales."""

    def __init__(self, *, rngs: nnx.Rngs):
        self.stem: nnx.Sequential = nnx.Sequential(
            Conv(3, 16, 6, 2, rngs=rngs), Conv(16, 32, 3, 2, rngs=rngs), _CSP(32, 32, rngs=rngs)
        )
        self.fine: nnx.Sequential = nnx.Sequential(
            Conv(32, 64, 3, 2, rngs=rngs), _CSP(64, 64, rngs=rngs)
        )
        self.coarse: nnx.Sequential = nnx.Sequential(
            Conv(64, 128, 3, 2, rngs=rngs), _CSP(128, 128, rngs=rngs), _Pool(128, rngs=rngs)
        )
        self.lateral: Conv = Conv(128, 64, 1, rngs=rngs)
        self.up: _CSP = _CSP(128, 64, shortcut=False, rngs=rngs)
        self.down: Conv = Conv(64, 64, 3, 2, rngs=rngs)
        self.out: _CSP = _CSP(128, 128, shortcut=False, rngs=rngs)
        width = 5 + len(CLASSES)
        self.heads: nnx.List[nnx.Linear] = nnx.List(
            nnx.Linear(features, len(anchors) * width, kernel_init=dense_init, rngs=rngs)
            for features, anchors in zip((64, 128), ANCHORS, strict=True)
        )

    def __call__(self, images: jax.Array) -> list[jax.Array]:
        """Return the outputs for ``images``: of the fine scale, then of the coarse one."""
        fine = self.fine(self.stem(images))
        lateral = self.lateral(self.coarse(fine))
        upsampled = lateral.repeat(2, 1).repeat(2, 2)
        fine = self.up(jnp.concatenate([upsampled, fine], -1))
        coarse = self.out(jnp.concatenate([self.down(fine), lateral], -1))
        return [
            head(x).reshape(*x.shape[:3], len(anchors), -1)
            for head, x, anchors in zip(self.heads, (fine, coarse), ANCHORS, strict=True)
        ]
