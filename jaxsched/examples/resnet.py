"""torchvision's ResNet-18 in Flax NNX, with its names, padding and initialisation.

With torch's weights (``from_torch_names``) it computes what torch computes, also in training.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from jaxsched.examples import patches
from jaxsched.param_groups import leaf_path, torch_names

__all__ = [
    "BATCH_NORM",
    "STAGES",
    "ResNet18",
    "TorchBatchNorm",
    "block_forward",
    "conv",
    "conv_init",
    "dense_bias_init",
    "dense_init",
    "forward",
    "from_torch_names",
    "torch_batch_norm",
    "unbiased_variance",
]

STAGES = ((64, 1), (128, 2), (256, 2), (512, 2))
"""Features and first stride of ``layer1`` to ``layer4``, each of two blocks."""

BATCH_NORM: dict[str, Any] = {"momentum": 0.9, "epsilon": 1e-5, "use_fast_variance": False}
"""torch's settings; its ``momentum=0.1`` weights the batch, Flax's the running statistics."""

conv_init: jax.nn.initializers.Initializer = jax.nn.initializers.variance_scaling(
    2.0, "fan_out", "normal"
)
dense_init: jax.nn.initializers.Initializer = jax.nn.initializers.variance_scaling(
    1 / 3, "fan_in", "uniform"
)


def dense_bias_init(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """Uniform within 1/√fan_in, as in ``torch.nn.Linear``; the head sees 512 features."""
    return jax.random.uniform(key, shape, dtype, -(512**-0.5), 512**-0.5)


def unbiased_variance(new: jax.Array, old: jax.Array, x: jax.Array) -> jax.Array:
    r"""Return torch's running variance from the ``new`` one that Flax computed from ``old``.

    .. math:: v_t = m v_{t-1} + (1 - m) \frac{n}{n - 1} \operatorname{var}(x)

    with n the batch size times the positions of ``x``. Flax omits n/(n - 1), so its networks evaluate
    differently from torch's, most for small n.
    """
    n = x.size // x.shape[-1]
    return new + (new - BATCH_NORM["momentum"] * old) / (n - 1)


class TorchBatchNorm(nnx.BatchNorm):
    """``torch.nn.BatchNorm2d``: Flax's BatchNorm with an unbiased running variance."""

    def __call__(self, x: jax.Array) -> jax.Array:  # pyright: ignore
        """Normalise ``x``, and outside of ``eval()`` update the running statistics."""
        old = self.var[...]
        y = super().__call__(x)
        if not self.use_running_average:
            self.var[...] = unbiased_variance(self.var[...], old, x)
        return y


def torch_batch_norm(features: int, *, rngs: nnx.Rngs) -> TorchBatchNorm:
    """``torch.nn.BatchNorm2d(features)``."""
    return TorchBatchNorm(features, **BATCH_NORM, rngs=rngs)


def conv(inputs: int, outputs: int, size: int, stride: int, *, rngs: nnx.Rngs) -> nnx.Conv:
    """``torch.nn.Conv2d(inputs, outputs, size, stride, padding=size // 2, bias=False)``."""
    # Padding is explicit: "SAME" pads an even image differently where the stride is 2.
    return nnx.Conv(
        inputs,
        outputs,
        (size, size),
        stride,
        padding=size // 2,
        use_bias=False,
        kernel_init=conv_init,
        conv_general_dilated=patches.conv_general_dilated,
        rngs=rngs,
    )


def block_forward(self: Any, x: jax.Array) -> jax.Array:
    """``forward`` of torchvision's ``BasicBlock``, for the NNX block and the Linen one."""
    shortcut = x
    for layer in self.downsample:
        shortcut = layer(shortcut)
    x = nnx.relu(self.bn1(self.conv1(x)))
    return nnx.relu(self.bn2(self.conv2(x)) + shortcut)


def forward(self: Any, x: jax.Array) -> jax.Array:
    """``forward`` of torchvision's ``ResNet``: images (n, height, width, 3) to logits (n, classes)."""
    x = nnx.relu(self.bn1(self.conv1(x)))
    x = nnx.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))  # pyright: ignore
    for block in (*self.layer1, *self.layer2, *self.layer3, *self.layer4):
        x = block(x)
    return self.fc(x.mean((1, 2)))


class _BasicBlock(nnx.Module):
    """Two convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int, *, rngs: nnx.Rngs):
        self.conv1: nnx.Conv = conv(inputs, outputs, 3, stride, rngs=rngs)
        self.bn1: TorchBatchNorm = torch_batch_norm(outputs, rngs=rngs)
        self.conv2: nnx.Conv = conv(outputs, outputs, 3, 1, rngs=rngs)
        self.bn2: TorchBatchNorm = torch_batch_norm(outputs, rngs=rngs)
        self.downsample: nnx.List[Any] = nnx.List([])
        if stride != 1:
            self.downsample.append(conv(inputs, outputs, 1, stride, rngs=rngs))
            self.downsample.append(torch_batch_norm(outputs, rngs=rngs))

    __call__ = block_forward


class ResNet18(nnx.Module):
    """torchvision's ``resnet18(num_classes=classes)`` for images (n, height, width, 3)."""

    def __init__(self, classes: int, *, rngs: nnx.Rngs):
        self.conv1: nnx.Conv = conv(3, 64, 7, 2, rngs=rngs)
        self.bn1: TorchBatchNorm = torch_batch_norm(64, rngs=rngs)
        inputs = 64
        for number, (outputs, stride) in enumerate(STAGES, start=1):
            first = _BasicBlock(inputs, outputs, stride, rngs=rngs)
            second = _BasicBlock(outputs, outputs, 1, rngs=rngs)
            setattr(self, f"layer{number}", nnx.List([first, second]))
            inputs = outputs
        self.fc: nnx.Linear = nnx.Linear(
            512, classes, kernel_init=dense_init, bias_init=dense_bias_init, rngs=rngs
        )

    __call__ = forward


def from_torch_names(variables: Any, arrays: Mapping[str, np.ndarray]) -> Any:
    """Return ``variables`` with torch's values of the same names.

    Args:
      variables: parameters or batch statistics of the network in NNX
        (``nnx.state(model)``) or Linen (one collection).
      arrays: ``{name: array}``, a ``state_dict`` as NumPy arrays.

    Raises:
      ValueError: an array is missing or of another shape.
    """

    def value(keys: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
        name = re.sub(r"\.(mean|var)$", r".running_\1", torch_names(leaf_path(keys))[-1])
        array = np.asarray(arrays.get(name, np.nan))
        # OIHW to HWIO, and a matrix transposed.
        array = array.transpose(2, 3, 1, 0) if array.ndim == 4 else array.T
        if array.shape != leaf.shape:
            raise ValueError(f"{name} must have shape {leaf.shape} here, got {array.shape}.")
        return jnp.asarray(array)

    return jax.tree_util.tree_map_with_path(value, variables)
