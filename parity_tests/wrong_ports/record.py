"""Small training scripts in torch, and their recordings, with which the ports are compared.

Each function of ``SCRIPTS`` is a script as users write them: it trains a small network on random
data and returns the trace of the hyperparameters at each ``optimizer.step()``.

    cd parity_tests && python -m wrong_ports.record

writes ``recordings/<name>.npz``. Recorded with torch 2.13.0 on a CPU.
"""

import dataclasses
import math

import numpy as np
import torch
from torch import nn
from torch.optim import lr_scheduler

from jaxsched import Trace
from jaxsched.torch import record
from wrong_ports import LOSSES, RECORDINGS


class Net(nn.Module):
    """Two layers and a norm: weights, biases and a scale."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Linear(4, 6)
        self.norm = nn.LayerNorm(6)
        self.head = nn.Linear(6, 3)

    def forward(self, x):
        return self.head(torch.relu(self.norm(self.backbone(x))))


def network():
    """Return a network, a batch of inputs and their labels, the same every time."""
    torch.manual_seed(0)
    return Net(), torch.randn(8, 4), torch.randint(0, 3, (8,))


def backward(net, x, y, scale=1.0):
    (nn.functional.cross_entropy(net(x), y) * scale).backward()


def train_batch(net, x, y, optimizer):
    optimizer.zero_grad()
    backward(net, x, y)
    optimizer.step()


def decay_groups(net, weight_decay):
    """Return matrices with weight decay, and biases and norms without."""
    return [
        {"params": [p for p in net.parameters() if p.ndim > 1], "weight_decay": weight_decay},
        {"params": [p for p in net.parameters() if p.ndim == 1], "weight_decay": 0.0},
    ]


def step_sgd():
    """A CIFAR script: SGD with momentum, ten times less every third epoch."""
    net, x, y = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    scheduler = lr_scheduler.StepLR(optimizer, step_size=3, gamma=0.1)
    with record(optimizer) as recording:
        for _ in range(10):
            for _ in range(40):
                train_batch(net, x, y, optimizer)
            scheduler.step()
    return recording.trace


def imagenet():
    """An ImageNet script: Nesterov momentum, drops at epochs 30, 60 and 80 of 90."""
    net, x, y = network()
    optimizer = torch.optim.SGD(
        net.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4, nesterov=True
    )
    scheduler = lr_scheduler.MultiStepLR(optimizer, milestones=[30, 60, 80], gamma=0.1)
    with record(optimizer) as recording:
        for _ in range(90):
            for _ in range(10):
                train_batch(net, x, y, optimizer)
            scheduler.step()
    return recording.trace


def exponential_adam():
    """Adam under an exponential decay by epoch."""
    net, x, y = network()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3, betas=(0.9, 0.999))
    scheduler = lr_scheduler.ExponentialLR(optimizer, gamma=0.95)
    with record(optimizer) as recording:
        for _ in range(20):
            for _ in range(25):
                train_batch(net, x, y, optimizer)
            scheduler.step()
    return recording.trace


def cosine_epoch():
    """AdamW in two groups under a cosine by epoch."""
    net, x, y = network()
    optimizer = torch.optim.AdamW(decay_groups(net, 0.05), lr=5e-4)
    scheduler = lr_scheduler.CosineAnnealingLR(optimizer, T_max=20, eta_min=1e-6)
    with record(optimizer, labels=["decay", "no_decay"]) as recording:
        for _ in range(20):
            for _ in range(30):
                train_batch(net, x, y, optimizer)
            scheduler.step()
    return recording.trace


def cosine_iteration():
    """SGD under a cosine by iteration, which ends 100 iterations before the run does."""
    net, x, y = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    scheduler = lr_scheduler.CosineAnnealingLR(optimizer, T_max=700, eta_min=5e-4)
    with record(optimizer) as recording:
        for iteration in range(800):
            train_batch(net, x, y, optimizer)
            if iteration < 700:
                scheduler.step()
    return recording.trace


def warm_restarts():
    """SGD with warm restarts after 5, 15 and 35 epochs."""
    net, x, y = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
    scheduler = lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=5, T_mult=2, eta_min=1e-4)
    with record(optimizer) as recording:
        for _ in range(40):
            for _ in range(12):
                train_batch(net, x, y, optimizer)
            scheduler.step()
    return recording.trace


def one_cycle():
    """One cycle over 12 epochs, the momentum cycled against the rate."""
    net, x, y = network()
    optimizer = torch.optim.SGD(
        net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    scheduler = lr_scheduler.OneCycleLR(optimizer, max_lr=0.4, epochs=12, steps_per_epoch=50)
    with record(optimizer) as recording:
        for _ in range(12):
            for _ in range(50):
                train_batch(net, x, y, optimizer)
                scheduler.step()
    return recording.trace


def cyclic():
    """Triangles whose height is halved, the momentum cycled against them."""
    net, x, y = network()
    optimizer = torch.optim.SGD(net.parameters(), lr=0.001, momentum=0.9)
    scheduler = lr_scheduler.CyclicLR(
        optimizer, base_lr=0.001, max_lr=0.006, step_size_up=100, mode="triangular2"
    )
    with record(optimizer) as recording:
        for _ in range(800):
            train_batch(net, x, y, optimizer)
            scheduler.step()
    return recording.trace


def warmup_cosine():
    """The warm-up and cosine by epoch of torchvision's references, AdamW with a group of norms."""
    net, x, y = network()
    norms = list(net.norm.parameters())
    others = [*net.backbone.parameters(), *net.head.parameters()]
    optimizer = torch.optim.AdamW(
        [{"params": others, "weight_decay": 0.05}, {"params": norms, "weight_decay": 0.0}], lr=1e-3
    )
    scheduler = lr_scheduler.SequentialLR(
        optimizer,
        [
            lr_scheduler.LinearLR(optimizer, start_factor=0.01, total_iters=5),
            lr_scheduler.CosineAnnealingLR(optimizer, T_max=25, eta_min=1e-5),
        ],
        milestones=[5],
    )
    with record(optimizer) as recording:
        for _ in range(30):
            for _ in range(20):
                train_batch(net, x, y, optimizer)
            scheduler.step()
    return recording.trace


def segmentation():
    """A polynomial decay by iteration, the head at ten times the rate of the backbone."""
    net, x, y = network()
    optimizer = torch.optim.SGD(
        [
            {"params": [*net.backbone.parameters(), *net.norm.parameters()], "lr": 0.01},
            {"params": net.head.parameters(), "lr": 0.1},
        ],
        lr=0.01,
        momentum=0.9,
        weight_decay=1e-4,
    )
    scheduler = lr_scheduler.PolynomialLR(optimizer, total_iters=700, power=0.9)
    with record(optimizer, labels=["backbone", "head"]) as recording:
        for _ in range(700):
            train_batch(net, x, y, optimizer)
            scheduler.step()
    return recording.trace


def constant_rmsprop():
    """RMSprop at a quarter of its rate for the first four epochs."""
    net, x, y = network()
    optimizer = torch.optim.RMSprop(net.parameters(), lr=0.002, alpha=0.9, momentum=0.9)
    scheduler = lr_scheduler.ConstantLR(optimizer, factor=0.25, total_iters=4)
    with record(optimizer) as recording:
        for _ in range(12):
            for _ in range(20):
                train_batch(net, x, y, optimizer)
            scheduler.step()
    return recording.trace


def nanogpt():
    """A language model in nanoGPT's style: the loop writes warm-up and cosine by hand."""
    learning_rate, min_lr, warmup_iters, lr_decay_iters = 6e-4, 6e-5, 100, 1000

    def get_lr(it):
        if it < warmup_iters:
            return learning_rate * (it + 1) / (warmup_iters + 1)
        if it > lr_decay_iters:
            return min_lr
        decay_ratio = (it - warmup_iters) / (lr_decay_iters - warmup_iters)
        coeff = 0.5 * (1.0 + math.cos(math.pi * decay_ratio))
        return min_lr + coeff * (learning_rate - min_lr)

    net, x, y = network()
    optimizer = torch.optim.AdamW(decay_groups(net, 0.1), lr=learning_rate, betas=(0.9, 0.95))
    with record(optimizer, labels=["decay", "no_decay"]) as recording:
        for it in range(1100):
            for group in optimizer.param_groups:
                group["lr"] = get_lr(it)
            train_batch(net, x, y, optimizer)
    return recording.trace


def fine_tune():
    """Fine-tuning in the style of transformers: LambdaLR up in a line, down in a line."""
    warmup_steps, training_steps = 60, 600

    def lr_lambda(step):
        if step < warmup_steps:
            return step / max(1, warmup_steps)
        return max(0.0, (training_steps - step) / max(1, training_steps - warmup_steps))

    net, x, y = network()
    optimizer = torch.optim.AdamW(decay_groups(net, 0.01), lr=5e-5, eps=1e-8)
    scheduler = lr_scheduler.LambdaLR(optimizer, lr_lambda)
    with record(optimizer) as recording:
        for _ in range(training_steps):
            train_batch(net, x, y, optimizer)
            scheduler.step()
    return recording.trace


def detector():
    """A detector in YOLO's style: three groups, a warm-up by np.interp of rate and momentum."""
    epochs, batches, lr0, lrf, warmup = 20, 40, 0.01, 0.01, 120

    def lf(epoch):
        return (1 - epoch / epochs) * (1.0 - lrf) + lrf

    net, x, y = network()
    optimizer = torch.optim.SGD(
        [net.backbone.bias, net.head.bias, net.norm.bias], lr=lr0, momentum=0.937, nesterov=True
    )
    optimizer.add_param_group(
        {"params": [net.backbone.weight, net.head.weight], "weight_decay": 5e-4}
    )
    optimizer.add_param_group({"params": [net.norm.weight], "weight_decay": 0.0})
    scheduler = lr_scheduler.LambdaLR(optimizer, lr_lambda=lf)
    with record(optimizer, labels=["bias", "weight", "norm"]) as recording:
        for epoch in range(epochs):
            for batch in range(batches):
                ni = batch + batches * epoch
                if ni <= warmup:
                    for j, group in enumerate(optimizer.param_groups):
                        start = 0.1 if j == 0 else 0.0
                        target = group["initial_lr"] * lf(epoch)
                        group["lr"] = float(np.interp(ni, [0, warmup], [start, target]))
                        group["momentum"] = float(np.interp(ni, [0, warmup], [0.8, 0.937]))
                train_batch(net, x, y, optimizer)
            scheduler.step()
    return recording.trace


def plateau():
    """Adam, its rate halved when the validation loss has not fallen for three epochs."""
    net, x, y = network()
    optimizer = torch.optim.Adam(net.parameters(), lr=1e-3)
    scheduler = lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=2)
    with record(optimizer) as recording:
        for loss in LOSSES:
            for _ in range(15):
                train_batch(net, x, y, optimizer)
            scheduler.step(loss)
    return recording.trace


def accumulated():
    """Four batches an update, warm-up and half a cosine counted in updates: a row is an update."""
    accumulation, updates, warmup = 4, 400, 40

    def lr_lambda(step):
        if step < warmup:
            return step / max(1, warmup)
        progress = (step - warmup) / max(1, updates - warmup)
        return max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))

    net, x, y = network()
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-4, weight_decay=0.01)
    scheduler = lr_scheduler.LambdaLR(optimizer, lr_lambda)
    with record(optimizer) as recording:
        for batch in range(accumulation * updates):
            backward(net, x, y, 1 / accumulation)
            if (batch + 1) % accumulation == 0:
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
    return recording.trace


def gan():
    """The generator of a GAN: the loop writes a rate that is constant, then falls in a line."""
    lr, n_epochs, n_epochs_decay = 2e-4, 20, 20
    net, x, y = network()
    optimizer = torch.optim.Adam(net.parameters(), lr=lr, betas=(0.5, 0.999))
    with record(optimizer) as recording:
        for epoch in range(n_epochs + n_epochs_decay):
            factor = 1.0 - max(0, epoch - n_epochs) / float(n_epochs_decay + 1)
            for group in optimizer.param_groups:
                group["lr"] = lr * factor
            for _ in range(10):
                train_batch(net, x, y, optimizer)
    return recording.trace


def resumed():
    """A warm-up by iteration and a cosine by epoch, killed after 12 of 24 epochs and resumed."""
    epochs, batches, warmup, lr = 24, 25, 100, 0.02

    def start(state=None):
        net, x, y = network()
        optimizer = torch.optim.SGD(net.parameters(), lr=lr, momentum=0.9, weight_decay=1e-4)
        scheduler = lr_scheduler.CosineAnnealingLR(optimizer, T_max=epochs)
        if state:
            optimizer.load_state_dict(state["optimizer"])
            scheduler.load_state_dict(state["scheduler"])
        return net, x, y, optimizer, scheduler

    def run(first, last, state=None):
        net, x, y, optimizer, scheduler = start(state)
        with record(optimizer) as recording:
            for epoch in range(first, last):
                for batch in range(batches):
                    iteration = epoch * batches + batch
                    scheduled = optimizer.param_groups[0]["lr"]
                    if iteration < warmup:
                        optimizer.param_groups[0]["lr"] = scheduled * (iteration + 1) / warmup
                    train_batch(net, x, y, optimizer)
                    optimizer.param_groups[0]["lr"] = scheduled
                scheduler.step()
        state = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
        return recording.trace, state

    before, state = run(0, 12)
    after, _ = run(12, 24, state)
    group = {
        name: np.concatenate([column, after.groups["0"][name]])
        for name, column in before.groups["0"].items()
    }
    return dataclasses.replace(before, groups={"0": group})


def layerwise():
    """A vision transformer's layer-wise rates: each group's falls along a cosine by iteration."""
    net, x, y = network()
    rate, steps = 1e-3, 500
    optimizer = torch.optim.AdamW(
        [
            {"params": net.backbone.parameters(), "lr": rate * 0.65**2},
            {"params": net.norm.parameters(), "lr": rate * 0.65, "weight_decay": 0.0},
            {"params": net.head.parameters(), "lr": rate},
        ],
        weight_decay=0.05,
        betas=(0.9, 0.95),
    )
    scheduler = lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    with record(optimizer, labels=["backbone", "norm", "head"]) as recording:
        for _ in range(steps):
            train_batch(net, x, y, optimizer)
            scheduler.step()
    return recording.trace


SCRIPTS = {
    script.__name__: script
    for script in (
        step_sgd,
        imagenet,
        exponential_adam,
        cosine_epoch,
        cosine_iteration,
        warm_restarts,
        one_cycle,
        cyclic,
        warmup_cosine,
        segmentation,
        constant_rmsprop,
        nanogpt,
        fine_tune,
        detector,
        plateau,
        accumulated,
        gan,
        resumed,
        layerwise,
    )
}


def main():
    RECORDINGS.mkdir(exist_ok=True)
    for name, script in SCRIPTS.items():
        trace: Trace = script()
        trace.save(RECORDINGS / f"{name}.npz")
        print(name, trace)


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
