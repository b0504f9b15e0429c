"""Claim: recording takes at most 1 % of a training step of a small convolutional network in torch.

Four layers of 64 channels, three groups, batches of 20 images of 32 × 32 pixels. A note of the
three groups is also timed by itself, and takes at most 100 µs; a flush of 100,000 rows, for which
``jaxsched record`` spends at most 2 % of the time, is timed for information.
"""

import tempfile
from pathlib import Path

import torch

from benchmarks.timing import interleave, ratio, report
from jaxsched.torch import record


def optimizer_of(model: torch.nn.Module) -> torch.optim.Optimizer:
    """SGD over three groups."""
    parameters = list(model.parameters())
    groups = [{"params": parameters[k::3]} for k in range(3)]
    return torch.optim.SGD(groups, lr=0.01, momentum=0.9, nesterov=True, weight_decay=5e-4)


def training_step(recorded: bool):
    """Return a call that makes one step."""
    torch.manual_seed(0)
    layers = [
        layer
        for k in range(4)
        for layer in (
            torch.nn.Conv2d(64 if k else 3, 64, 3, padding=1),
            torch.nn.BatchNorm2d(64),
            torch.nn.ReLU(),
        )
    ]
    head = (torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(64, 10))
    model = torch.nn.Sequential(*layers, *head)
    optimizer = optimizer_of(model)
    images, labels = torch.randn(20, 3, 32, 32), torch.arange(20) % 10
    if recorded:
        record(optimizer).__enter__()

    def call():
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()

    return call


if __name__ == "__main__":
    optimizer = optimizer_of(torch.nn.Sequential(*(torch.nn.Linear(1, 1) for _ in range(3))))
    notes, long = record(optimizer), record(optimizer)
    for _ in range(100_000):
        long.note()
    file = Path(tempfile.mkdtemp()) / "run.npz"

    def flush():
        long.note()  # so that the trace is built again
        long.trace.save(file)

    def thousand_notes():
        for _ in range(1000):
            notes.note()

    seconds = interleave(
        {
            "step, recorded": training_step(True),
            "step": training_step(False),
            "1,000 notes of three groups": thousand_notes,
            "flush of 100,000 rows": flush,
        },
        rounds=15,
    )
    note = min(seconds["1,000 notes of three groups"]) / 1000
    step = min(seconds["step"])
    report(
        "recording_cost",
        seconds,
        {
            "a note, in µs": (note * 1e6, 100),
            "a note / step": (note / step, 0.01),
            "recorded / step, to what this comparison resolves": (
                ratio(seconds, "step, recorded", "step"),
                1.05,
            ),
        },
    )
