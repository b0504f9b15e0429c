"""torchvision's ResNet-18 in Flax Linen, as in NNX in ``resnet``."""

import functools

import jax
from flax import linen as nn

from jaxsched.examples import patches, resnet

__all__ = ["ResNet18", "TorchBatchNorm", "conv"]


class TorchBatchNorm(nn.BatchNorm):
    """``torch.nn.BatchNorm2d``: Flax's BatchNorm with an unbiased running variance."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:  # pyright: ignore
        """Normalise ``x``, and in training update the running statistics."""
        old = self.get_variable("batch_stats", "var")
        y = super().__call__(x)
        if not self.use_running_average and not self.is_initializing():
            new = self.get_variable("batch_stats", "var")
            self.put_variable("batch_stats", "var", resnet.unbiased_variance(new, old, x))
        return y


def conv(outputs: int, size: int, stride: int) -> nn.Conv:
    """``torch.nn.Conv2d(…, outputs, size, stride, padding=size // 2, bias=False)``."""
    return nn.Conv(
        outputs,
        (size, size),
        stride,
        padding=size // 2,
        use_bias=False,
        kernel_init=resnet.conv_init,
        conv_general_dilated=patches.conv_general_dilated,
    )


class _BasicBlock(nn.Module):
    """Two convolutions and a shortcut."""

    outputs: int
    stride: int
    train: bool

    def setup(self) -> None:
        """Build the layers, with torchvision's names."""
        batch_norm = functools.partial(TorchBatchNorm, not self.train, **resnet.BATCH_NORM)
        self.conv1: nn.Conv = conv(self.outputs, 3, self.stride)
        self.bn1: TorchBatchNorm = batch_norm()
        self.conv2: nn.Conv = conv(self.outputs, 3, 1)
        self.bn2: TorchBatchNorm = batch_norm()
        self.downsample: list[nn.Module] = (
            [conv(self.outputs, 1, self.stride), batch_norm()] if self.stride != 1 else []
        )

    __call__ = resnet.block_forward


class ResNet18(nn.Module):
    """torchvision's ``resnet18(num_classes=classes)`` for images (n, height, width, 3).

    Attributes:
      classes: number of logits.
      train: whether batches are normalised by their own statistics.
    """

    classes: int
    train: bool = True

    def setup(self) -> None:
        """Build the layers, with torchvision's names, ``layer1_0`` for ``layer1.0``."""
        self.conv1: nn.Conv = conv(64, 7, 2)
        self.bn1: TorchBatchNorm = TorchBatchNorm(not self.train, **resnet.BATCH_NORM)
        for number, (outputs, stride) in enumerate(resnet.STAGES, start=1):
            blocks = [_BasicBlock(outputs, s, self.train) for s in (stride, 1)]
            setattr(self, f"layer{number}", blocks)
        self.fc: nn.Dense = nn.Dense(
            self.classes, kernel_init=resnet.dense_init, bias_init=resnet.dense_bias_init
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the logits of images."""
        return resnet.forward(self, x)
