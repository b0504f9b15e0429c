"""Draws the pictures of README and docs from the code: ``python docs/pictures.py``."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from jaxsched import lr_scheduler, schedules
from jaxsched.parity import ulps
from jaxsched.recipes import recorded, yolov5_resnet18

HERE = Path(__file__).parent
# Okabe and Ito's colours; the shapes differ too.
STYLES = {"bias": ("#D55E00", "^"), "weight": ("#0072B2", "o"), "norm": ("#009E73", "s")}


def straightforward_port() -> np.ndarray:
    """The rate of the weights with the cosine of the current epoch: no lag."""
    cosine = lr_scheduler.lambda_lr(0.01, schedules.cosine(100, lrf=0.2))
    rate = schedules.warmup(schedules.per_epoch(cosine, 30), 1000, start=0.0)
    return np.asarray(rate(np.arange(3000)))


def article(path: Path) -> int:
    """The run of torch and ours, and how far they and a straightforward port are apart.

    Returns:
      At how many of the 3,000 iterations that port is wrong.
    """
    torchs, ours = recorded("yolov5_resnet18"), yolov5_resnet18().trace(3000)
    iterations = np.arange(3000)
    figure = Figure((9, 6.4), dpi=150, layout="constrained", facecolor="white")
    rates, distances = figure.subplots(2, height_ratios=(3, 2), sharex=True)
    for k, (label, (color, marker)) in enumerate(STYLES.items()):
        every = slice(20 * k, None, 60)
        rates.plot(
            iterations, ours.groups[label]["learning_rate"], color=color, linewidth=1.4,
            label=f"{label}, jaxsched",
        )  # fmt: skip
        rates.plot(
            iterations[every], torchs.groups[label]["learning_rate"][every], marker, color=color,
            markersize=4.5, markerfacecolor="white", label=f"{label}, torch",
        )  # fmt: skip
    rates.set_yscale("symlog", linthresh=0.01, linscale=2)
    rates.set_yticks(
        [0, 0.002, 0.005, 0.01, 0.03, 0.1], ["0", "0.002", "0.005", "0.01", "0.03", "0.1"]
    )
    rates.set_ylabel("learning rate")
    rates.set_title(
        "The article's run: torch's LambdaLR loop and the jaxsched recipe, 3,000 iterations"
    )
    rates.axvline(1000, color="#555555", linewidth=1, linestyle="--")
    rates.annotate(
        "warm-up ends", (1000, 0.06), (6, 0), textcoords="offset points", color="#333333"
    )
    rates.legend(ncols=3, loc="upper right", fontsize=8)
    reference = torchs.groups["weight"]["learning_rate"]
    port = straightforward_port()
    wrong = ulps(port, reference) > 0
    off = 100 * (port - reference) / reference.max()
    distances.plot(
        iterations, off, color="#CC79A7", linewidth=1.6,
        label=f"straightforward port:\nwrong at {wrong.sum():,} iterations",
    )  # fmt: skip
    worst = max(
        int(ulps(ours.groups[label][name], values).max())
        for label, group in torchs.groups.items()
        for name, values in group.items()
    )
    distance = 100 * (ours.groups["weight"]["learning_rate"] - reference) / reference.max()
    distances.plot(
        iterations, distance, color="black", linewidth=1.6,
        label=f"jaxsched: {worst} ULP at all",
    )  # fmt: skip
    distances.set_ylabel("distance from torch\n(% of the peak rate)")
    distances.set_xlabel("iteration")
    distances.legend(loc="lower left", fontsize=8)
    for axes in (rates, distances):
        axes.grid(color="#E4E4E4", linewidth=0.6)
        axes.margins(x=0.01)
    figure.savefig(path)
    return int(wrong.sum())


if __name__ == "__main__":
    print(f"a straightforward port is wrong at {article(HERE / 'article.png')} iterations")
