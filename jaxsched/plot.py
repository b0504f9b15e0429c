"""The picture of a run: learning rates and momentum by iteration; 0 is the first."""

import itertools
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from jaxsched.parity import Quantity, Report
from jaxsched.recipe import Recipe
from jaxsched.schedules import require_count
from jaxsched.trace import Trace, replacing, warmup_end

try:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "jaxsched.plot needs matplotlib: pip install 'jaxsched[train]'", name="matplotlib"
    ) from error

SUFFIXES = (".png", ".svg")

# Okabe and Ito's colours, told apart by the colour-blind too. Groups often coincide, so later
# lines are thinner and dashed: what lies beneath shows.
STYLES = (
    {"color": "#0072B2", "linewidth": 4.5, "linestyle": "-"},
    {"color": "#E69F00", "linewidth": 2.5, "linestyle": "-"},
    {"color": "#000000", "linewidth": 1.2, "linestyle": (0, (6, 4))},
    {"color": "#CC79A7", "linewidth": 1.2, "linestyle": ":"},
)


def require_suffix(path: str | os.PathLike[str], suffixes: Iterable[str]) -> None:
    """Refuses a file whose name ends in none of ``suffixes``."""
    if Path(path).suffix not in suffixes:
        raise ValueError(f"the file must end in {' or '.join(suffixes)}, got {os.fspath(path)}")


def rows_of(run: Recipe | Trace, iterations: int | None = None) -> Trace:
    """The trace to show of a run.

    Args:
      run: a trace, or a recipe.
      iterations: how many; if not given all there are, a recipe's from its start
        to the end of its last epoch.

    Raises:
      ValueError: a recipe whose factory knows no epochs, without ``iterations``.
    """
    if isinstance(run, Trace):
        return run if iterations is None else run.head(iterations)
    if iterations is not None:
        require_count("iterations", iterations, at_least=1)
        return run.trace(iterations)
    if run.iterations is None:
        raise ValueError(
            "iterations must be given for a recipe without epochs, got None. Pass a number."
        )
    return run.trace(run.iterations)


def plot(
    run: Recipe | Trace, path: str | os.PathLike[str], *, iterations: int | None = None
) -> None:
    """Draws the learning rate and the momentum of each group, by iteration.

    Args:
      run: a trace, or a recipe.
      path: the picture, ``.png`` or ``.svg``.
      iterations: how many, as ``rows_of`` has it.

    Raises:
      ValueError: another suffix; a recipe that tells no length, without ``iterations``.
    """
    require_suffix(path, SUFFIXES)
    trace = rows_of(run, iterations)
    names = [
        name
        for name in ("learning_rate", "momentum", "b1")
        if any(name in group for group in trace.groups.values())
    ]
    figure = Figure((8, 1 + 3 * len(names)), dpi=150, layout="constrained", facecolor="white")
    end = warmup_end(trace)
    axes = figure.subplots(len(names), sharex=True, squeeze=False)[:, 0]
    for ax, name in zip(axes, names, strict=True):
        _curves(ax, trace, name)
        if end is not None:
            ax.axvline(end, color="#555555", linewidth=1, linestyle="--")
    if end is not None:
        axes[0].annotate(
            f"warm-up ends at iteration {end}",
            (end, 1),
            (4, -4),
            xycoords=("data", "axes fraction"),
            textcoords="offset points",
            verticalalignment="top",
            color="#333333",
        )
    axes[-1].set_xlabel("iteration")
    handles, labels = axes[0].get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside upper center",
        ncols=len(labels),
        frameon=False,
        handlelength=4,
    )
    _save(figure, path)


def parting(report: Report, path: str | os.PathLike[str]) -> None:
    """Draws both curves of what differs, from some rows before they part.

    Args:
      report: of two runs that differ.
      path: the picture, ``.png`` or ``.svg``.
    """
    require_suffix(path, SUFFIXES)
    # Groups often part alike: of each name the group that is off most.
    worst: dict[str, Quantity] = {}
    for quantity in report.quantities:
        known = worst.get(quantity.name)
        if quantity.first and (known is None or quantity.max_relative > known.max_relative):
            worst[quantity.name] = quantity
    figure = Figure((8, 1 + 3.4 * len(worst)), dpi=150, layout="constrained", facecolor="white")
    axes = figure.subplots(2 * len(worst), height_ratios=[2, 1] * len(worst), squeeze=False)[:, 0]
    for pair, quantity in zip(axes.reshape(-1, 2), worst.values(), strict=True):
        _parting(pair, report, quantity)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper right", ncols=2, frameon=False)
    _save(figure, path)


def _save(figure: Figure, path: str | os.PathLike[str]) -> None:
    with replacing(path) as file:
        figure.savefig(file, format=Path(path).suffix[1:])


def _parting(axes: np.ndarray, report: Report, quantity: Quantity) -> None:
    """Both curves of a quantity, and under them how far they are apart."""
    clock = report.reference.meta.get("clock", "iteration")
    columns = (
        (side.groups[quantity.label] if quantity.label else side.run).get(quantity.name)
        for side in (report.mine, report.reference)
    )
    mine, reference = (np.full(quantity.n, np.nan) if c is None else c for c in columns)
    at = (quantity.first or (0,))[0]
    counts = report.reference.start + np.arange(quantity.n)
    seen = counts >= at - max(10, quantity.n // 50)
    peak = np.abs(reference).max() or 1.0
    axes[0].plot(counts[seen], reference[seen], color="#E69F00", linewidth=4, label="reference")
    axes[0].plot(counts[seen], mine[seen], color="#0072B2", linewidth=1.4, label="mine")
    away = 100 * (mine.astype(np.float64) - reference) / peak
    axes[1].plot(counts[seen], away[seen], color="#0072B2", linewidth=1.4)
    name = quantity.name.replace("_", " ")
    where = f"{quantity.label}: " if quantity.label else ""
    axes[0].set_title(f"{where}{name}, parting at {clock} {at}", loc="left", fontweight="bold")
    axes[0].set_ylabel(name)
    axes[1].set_ylabel("distance\n(% of peak)")
    axes[1].set_xlabel(clock)
    for ax in axes:
        ax.axvline(at, color="#555555", linewidth=1, linestyle="--")
        ax.grid(color="#DDDDDD", linewidth=0.6)
        ax.margins(x=0.01)


def _curves(axes: Axes, trace: Trace, name: str) -> None:
    iterations = trace.start + np.arange(len(trace))
    for (label, group), style in zip(sorted(trace.groups.items()), itertools.cycle(STYLES)):
        if name in group:
            axes.plot(iterations, group[name], label=label, **style)
    axes.set_title(name.replace("_", " ").capitalize(), loc="left", fontweight="bold")
    axes.set_ylabel(name.replace("_", " "))
    axes.grid(color="#DDDDDD", linewidth=0.6)
    axes.margins(x=0.01)
