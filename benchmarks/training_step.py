"""Claim: on a CPU an iteration of ``jaxsched train`` takes at most 1.2 times torch's.

The article's run: ResNet-18, batches of 20 digits of 16 × 16. Ours is an iteration of
``train_nnx.train``, which reads loss, accuracy and hyperparameters. It is compared with the same with
XLA's convolutions only, and with torchvision's network with foreach SGD on three groups, of which the
loss is read. Then value and both gradients of each convolution are timed by themselves.
"""

import functools
import itertools
import os
from collections.abc import Callable
from typing import Any
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

from benchmarks.timing import best, interleave, ratio, report
from jaxsched import recipes
from jaxsched.examples import digits, patches, train_nnx
from parity_tests.torchvision_import import resnet18

CONVOLUTIONS = {
    "512 to 512, 3 × 3 on 1 × 1": (512, 512, 1, 3, 1),
    "256 to 512, 3 × 3 on 2 × 2, stride 2": (256, 512, 2, 3, 2),
    "128 to 128, 3 × 3 on 2 × 2": (128, 128, 2, 3, 1),
    "64 to 128, 3 × 3 on 4 × 4, stride 2": (64, 128, 4, 3, 2),
    "64 to 64, 3 × 3 on 4 × 4": (64, 64, 4, 3, 1),
    "3 to 64, 7 × 7 on 16 × 16, stride 2": (3, 64, 16, 7, 2),
}
"""Inputs, outputs, pixels a side, the kernel's side, the stride."""


def make_iteration(batches: list[digits.Digits], conv: Callable[..., Any]) -> Callable[[], Any]:
    """Return a call that makes an iteration of the article's run."""
    model, optimizer = train_nnx.create(recipes.yolov5_resnet18())
    for _, module in nnx.iter_modules(model):
        if isinstance(module, nnx.Conv):
            module.conv_general_dilated = conv
    iterations = train_nnx.train(model, optimizer, itertools.cycle(batches))
    return lambda: next(iterations).loss


def make_torch_iteration(batches: list[digits.Digits]) -> Callable[[], float]:
    """Return the same in torch; the Python that sets the hyperparameters there is not timed."""
    model = resnet18(num_classes=10).train()
    groups: dict[bool, list[Any]] = {True: [], False: []}
    for parameter in model.parameters():
        groups[parameter.ndim > 1].append(parameter)
    optimizer = torch.optim.SGD(
        groups[True], lr=0.01, momentum=0.937, nesterov=True, weight_decay=5e-4
    )
    optimizer.add_param_group({"params": groups[False][::2], "weight_decay": 0.0})
    optimizer.add_param_group({"params": groups[False][1::2], "weight_decay": 0.0})
    tensors = [
        (torch.from_numpy(np.moveaxis(images, -1, 1).copy()), torch.from_numpy(labels).long())
        for images, labels in batches
    ]
    endless = itertools.cycle(tensors)

    def call() -> float:
        images, labels = next(endless)
        loss = torch.nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.item()

    return call


def make_convolutions(
    inputs: int, outputs: int, size: int, width: int, stride: int
) -> dict[str, Any]:
    """Return one call for each implementation, for a batch of 20 images."""
    rng = np.random.default_rng(0)
    pad, side = width // 2, (size - 1) // stride + 1
    x, kernel, seen = (
        rng.standard_normal(shape, np.float32)
        for shape in (
            (20, size, size, inputs),
            (width, width, inputs, outputs),
            (20, side, side, outputs),
        )
    )

    def gradients(up_to: int) -> Callable[[], Any]:
        conv = functools.partial(
            patches.conv_general_dilated,
            strides=(stride, stride),
            padding=[(pad, pad)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )
        arrays = tuple(map(jnp.asarray, (x, kernel, seen)))
        call = jax.jit(jax.value_and_grad(lambda x, k, s: (conv(x, k) * s).sum(), (0, 1)))
        with mock.patch.object(patches, "MAX_POSITIONS", up_to):
            return functools.partial(call.lower(*arrays).compile(), *arrays)

    tensors = [torch.tensor(np.moveaxis(x, -1, 1)), torch.tensor(kernel.transpose(3, 2, 0, 1))]
    theirs = torch.tensor(np.moveaxis(seen, -1, 1))
    for tensor in tensors:
        tensor.requires_grad_()

    def torch_gradients() -> None:
        y = torch.nn.functional.conv2d(*tensors, stride=stride, padding=pad)
        torch.autograd.grad(y, tensors, theirs)

    return {"XLA": gradients(0), "patches": gradients(10**9), "torch": torch_gradients}


if __name__ == "__main__":
    torch.set_num_threads(len(os.sched_getaffinity(0)))  # as many as XLA uses
    batches = list(digits.batches(digits.load()[0], 1))
    calls = {
        "iteration, XLA": make_iteration(batches, jax.lax.conv_general_dilated),
        "iteration, patches": make_iteration(batches, patches.conv_general_dilated),
        "iteration, torch": make_torch_iteration(batches),
    }
    mine, xlas, torchs = "iteration, patches", "iteration, XLA", "iteration, torch"
    seconds = interleave(calls, rounds=30)
    claims = {
        "iteration / torch": (best(seconds, mine, torchs), 1.2),
        "iteration, XLA's convolutions / torch": (best(seconds, xlas, torchs), None),
        "iteration / with XLA's convolutions": (ratio(seconds, mine, xlas), 1.0),
    }
    for name, shape in CONVOLUTIONS.items():
        ways = {f"{name}: {way}": call for way, call in make_convolutions(*shape).items()}
        seconds |= interleave(ways, rounds=20)
        xla, patched, torchs = ways
        claims[f"{name}: patches / XLA"] = (best(seconds, patched, xla), None)
        claims[f"{name}: patches / torch"] = (best(seconds, patched, torchs), None)
    report("training_step", seconds, claims)
