"""Draw the pictures of README and docs from the code: ``python docs/pictures.py``."""

import functools
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from jaxsched import Recipe, compare, lr_scheduler, recipes, schedules
from jaxsched import plot as own
from jaxsched.parity import ulps
from jaxsched.recipes import recorded, yolov5_resnet18

HERE = Path(__file__).parent
# Okabe and Ito's colours; the shapes differ too.
STYLES = {"bias": ("#D55E00", "^"), "weight": ("#0072B2", "o"), "norm": ("#009E73", "s")}
MINE, OTHER, MARK, NOTE = "#0072B2", "#CC79A7", "#D55E00", "#333333"
WARMUP, EPOCH = 1000, 30


def new_figure(size: tuple[float, float]) -> Figure:
    """Return an empty picture, white on dark pages too."""
    return Figure(size, dpi=150, layout="constrained", facecolor="white")


def finish(axes: Axes, title: str, x: str, y: str) -> None:
    """Add titles, units and a grid."""
    axes.set_title(title, loc="left", fontsize=10)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(color="#E4E4E4", linewidth=0.6)


def straightforward_port() -> Recipe:
    """Return the article's recipe with the cosine of the current epoch: no lag."""
    cosine = lr_scheduler.lambda_lr(0.01, schedules.cosine(100, lrf=0.2))
    epochs = schedules.per_epoch(cosine, EPOCH)
    right = yolov5_resnet18()
    return Recipe(
        {
            label: {
                **group,
                "learning_rate": schedules.warmup(
                    epochs, WARMUP, start=0.1 if label == "bias" else 0.0
                ),
            }
            for label, group in right.groups.items()
        },
        right.update_rule,
    )


def article(path: Path) -> int:
    """Draw torch's run and ours, and the distance of a straightforward port.

    Returns:
      The number of iterations, of 3,000, at which that port is wrong.
    """
    torchs, ours = recorded("yolov5_resnet18"), yolov5_resnet18().trace(3000)
    iterations = np.arange(3000)
    figure = new_figure((9, 6.4))
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
    rates.axvline(WARMUP, color="#555555", linewidth=1, linestyle="--")
    rates.annotate("warm-up ends", (WARMUP, 0.03), (6, 0), textcoords="offset points", color=NOTE)
    rates.legend(ncols=3, loc="upper right", fontsize=8)
    reference = torchs.groups["weight"]["learning_rate"]
    port = straightforward_port().trace(3000).groups["weight"]["learning_rate"]
    wrong = ulps(port, reference) > 0
    off = 100 * (port - reference) / reference.max()
    distances.plot(
        iterations, off, color=OTHER, linewidth=1.6,
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
        label=f"jaxsched: {worst} ULP at all iterations",
    )  # fmt: skip
    distances.set_ylabel("distance from torch\n(% of the peak rate)")
    distances.set_xlabel("iteration")
    distances.legend(loc="lower left", fontsize=8)
    for axes in (rates, distances):
        axes.grid(color="#E4E4E4", linewidth=0.6)
        axes.margins(x=0.01)
    figure.savefig(path)
    return int(wrong.sum())


def cosine(path: Path) -> float:
    """Draw the cosine's steps: five curves from cos to the factor that ends at 0.2.

    Returns:
      The largest distance of the fifth from ``schedules.cosine``.
    """
    epochs = np.arange(101)
    first = np.cos(epochs * math.pi / 100)
    steps = {
        "1. cosine\nc = cos(πe/E)": first,
        "2. one added\n1 + c": 1 + first,
        "3. halved\n(1 + c)/2": (1 + first) / 2,
        "4. scaled\n(1 − 0.2)(1 + c)/2": (1 + first) / 2 * 0.8,
        "5. shifted\n0.2 + (1 − 0.2)(1 + c)/2": (1 + first) / 2 * 0.8 + 0.2,
    }
    figure = new_figure((12, 3))
    panels = figure.subplots(1, 5, sharey=True)
    for axes, (title, values) in zip(panels, steps.items(), strict=True):
        finish(axes, title, "epoch e of E = 100", "factor" if axes is panels[0] else "")
        axes.plot(epochs, values, color=MINE, linewidth=2)
        axes.axhline(0, color="#555555", linewidth=0.8)
        for at in (0, 100):
            axes.plot(at, values[at], "o", color=MARK, markersize=5)
            axes.annotate(
                f"{values[at]:.4g}".replace("-", "−"), (at, values[at]), (6 if not at else -6, 7),
                textcoords="offset points", ha="left" if not at else "right", fontsize=8, color=NOTE,
            )  # fmt: skip
        axes.set_ylim(-1.2, 2.5)
    figure.savefig(path)
    ours = np.asarray(schedules.cosine(100, lrf=0.2)(epochs), np.float64)
    return float(np.abs(ours - list(steps.values())[-1]).max())


def annealing(path: Path) -> tuple[float, float, float]:
    """Draw the annealing curve for initial_lr 0.01, eta_min 0.002 and T_max 200.

    Returns:
      Its values at epochs 0, 100 and 200.
    """
    epochs = np.arange(201)
    rate = lr_scheduler.cosine_annealing_lr(0.01, T_max=200, eta_min=0.002)
    values = np.asarray(rate(epochs), np.float64)
    figure = new_figure((7, 3.6))
    axes = figure.subplots()
    axes.plot(epochs, values, color=MINE, linewidth=2)
    for at, where in ((0, (6, 6)), (100, (8, 3)), (200, (4, -16))):
        axes.plot(at, values[at], "o", color=MARK, markersize=5)
        axes.annotate(
            f"epoch {at}: {values[at]:.3f}", (at, values[at]), where, color=NOTE,
            textcoords="offset points", ha="right" if at == 200 else "left",
        )  # fmt: skip
    axes.axhline(0.002, color="#555555", linewidth=1, linestyle="--")
    axes.annotate("eta_min", (0, 0.002), (0, 4), textcoords="offset points", color=NOTE)
    finish(axes, "CosineAnnealingLR: 0.01 to 0.002 in 200 epochs", "epoch", "learning rate")
    axes.set_ylim(0, 0.0112)
    figure.savefig(path)
    return float(values[0]), float(values[100]), float(values[200])


def interpolation(path: Path) -> float:
    """Draw linear interpolation: one value among three points, fifty among ten of a sine.

    Returns:
      The value at 2.5 among (1, 3), (2, 2) and (3, 0).
    """
    figure = new_figure((9, 3.4))
    one, many = figure.subplots(1, 2)
    x, y = [1, 2, 3], [3, 2, 0]
    value = float(np.interp(2.5, x, y))
    ends = np.linspace(0, 2 * np.pi, 10)
    between = np.linspace(0, 2 * np.pi, 50)
    for axes, points, at in ((one, (x, y), [2.5]), (many, (ends, np.sin(ends)), between)):
        axes.plot(*points, color="#999999", linewidth=1)
        axes.plot(*points, "o", color=MARK, markersize=7, label="known")
        axes.plot(
            at, np.interp(at, *points), "x", color=MINE, markersize=6, markeredgewidth=1.6,
            label="interpolated",
        )  # fmt: skip
        axes.legend(fontsize=8)
    one.annotate(f"x = 2.5: {value}", (2.5, value), (8, 4), textcoords="offset points", color=NOTE)
    finish(one, "One value among three points", "x", "y")
    finish(many, "Fifty values among ten points of a sine", "x", "y")
    figure.savefig(path)
    return value


def groups(path: Path) -> tuple[float, float, float]:
    """Draw the three groups' rates at the end of each of 100 epochs, as the article does.

    Returns:
      The highest rate of each group: weight, bias, norm.
    """
    trace = yolov5_resnet18().trace(3000)
    ends = {
        label: trace.groups[label]["learning_rate"][EPOCH - 1 :: EPOCH]
        for label in ("weight", "bias", "norm")
    }
    figure = new_figure((11, 3.4))
    for axes, (label, values) in zip(figure.subplots(1, 3), ends.items(), strict=True):
        color, _ = STYLES[label]
        axes.plot(np.arange(100), values, color=color, linewidth=2)
        axes.axvline(WARMUP / EPOCH, color="#555555", linewidth=1, linestyle="--")
        axes.annotate(
            "warm-up ends", (WARMUP / EPOCH, 0.14), (5, 0), xycoords=("data", "axes fraction"),
            textcoords="offset points", fontsize=8, color=NOTE,
        )  # fmt: skip
        finish(axes, f"Group {label}", "epoch", "learning rate at its end")
        axes.set_ylim(0)
    figure.savefig(path)
    return tuple(float(values.max()) for values in ends.values())  # pyright: ignore


def borders(path: Path) -> int:
    """Draw the drops and the lag, which the article's own picture, a point an epoch, cannot show.

    Returns:
      The number of iterations of the warm-up at which the rate of the weights falls.
    """
    rate = yolov5_resnet18().trace(3000).groups["weight"]["learning_rate"]
    port = straightforward_port().trace(3000).groups["weight"]["learning_rate"]
    falls = np.flatnonzero(np.diff(rate[: WARMUP + 1]) < 0) + 1
    figure = new_figure((11, 3.8))
    drops, lag = figure.subplots(1, 2)
    shown = np.arange(840, 1081)
    drops.plot(shown, rate[shown], color=MINE, linewidth=1.6)
    seen = falls[falls >= shown[0]]
    drops.plot(seen, rate[seen], "o", color=MARK, markersize=5, label="an epoch begins: it drops")
    drops.axvline(WARMUP, color="#555555", linewidth=1, linestyle="--")
    drops.annotate(
        "warm-up ends", (WARMUP, 0.03), (5, 0), xycoords=("data", "axes fraction"),
        textcoords="offset points", fontsize=8, color=NOTE,
    )  # fmt: skip
    drops.legend(fontsize=8, loc="upper left")
    finish(drops, "The weights' rate around the end of the warm-up", "iteration", "learning rate")
    shown = np.arange(900, 1240)
    lag.plot(
        shown / EPOCH, port[shown], color=OTHER, linewidth=1.6, linestyle="--",
        label="without the lag: lf(e)",
    )  # fmt: skip
    lag.plot(shown / EPOCH, rate[shown], color=MINE, linewidth=1.6, label="torch: lf(e − 1)")
    lag.annotate(
        "epochs 33 and 34\nshare one rate", (34.2, rate[1025]), (36.2, rate[1025]),
        arrowprops={"arrowstyle": "->", "color": NOTE}, va="center", fontsize=8, color=NOTE,
    )  # fmt: skip
    lag.legend(fontsize=8, loc="lower left")
    finish(lag, "The lag of an epoch after it", "epoch", "learning rate")
    figure.savefig(path)
    return len(falls)


def difference(path: Path) -> int:
    """Draw the straightforward port as ``jaxsched verify`` does.

    Returns:
      The first iteration at which it is wrong.
    """
    report = compare(straightforward_port(), recorded("yolov5_resnet18"))
    own.plot_difference(report, path)
    return report.first.first.iteration  # pyright: ignore


def run(recipe: Recipe, path: Path) -> float:
    """Draw a recipe as ``jaxsched plot`` does.

    Returns:
      The highest learning rate of all groups.
    """
    own.plot(recipe, path)
    groups = own.rows_of(recipe).groups.values()
    return float(max(group["learning_rate"].max() for group in groups))


RECIPES = {
    "recipes/yolov5.png": recipes.yolov5(epochs=30, steps_per_epoch=100),
    "recipes/ultralytics.png": recipes.ultralytics(
        epochs=30, steps_per_epoch=100, optimizer="MuSGD"
    ),
    "recipes/transformers.png": recipes.transformers(
        {"learning_rate": 2e-4, "lr_scheduler_type": "cosine", "warmup_steps": 0.1}
        | {"weight_decay": 0.1, "gradient_accumulation_steps": 4},
        num_training_steps=300,
        steps_per_epoch=10,
    ),
    "recipes/timm.png": recipes.timm(
        {"opt": "adamw", "lr": 1e-3, "weight_decay": 0.05, "epochs": 30, "sched_on_updates": True},
        steps_per_epoch=100,
    ),
}
"""The run that the page of each recipe shows."""

PICTURES: dict[str, Callable[[Path], object]] = {
    f"{function.__name__}.png": function
    for function in (article, cosine, annealing, interpolation, groups, borders, difference)
} | {name: functools.partial(run, recipe) for name, recipe in RECIPES.items()}

if __name__ == "__main__":
    for name, draw in PICTURES.items():
        print(f"{name}: {draw(HERE / name)}")
