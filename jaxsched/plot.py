"""Pictures of a run's learning rates and momentum, and of the difference of two runs."""

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from jaxsched._figure import Figure, figure_of
from jaxsched._io import PICTURES, atomic_write, require_suffix
from jaxsched._recipe import Recipe
from jaxsched._rows import rows_of
from jaxsched._trace import Trace
from jaxsched.parity._report import Quantity, Report, column_of

__all__ = ["plot", "plot_difference", "rows_of"]


def plot(
    run: Recipe | Trace,
    path: str | os.PathLike[str],
    *,
    iterations: int | None = None,
    metrics: Mapping[str, ArrayLike] | None = None,
) -> None:
    """Draw the learning rate and the momentum of each group, by iteration.

    Args:
      run: a trace, or a recipe.
      path: the picture, ``.png`` or ``.svg``.
      iterations: number of rows, as in ``rows_of``.
      metrics: metrics by name, such as the loss, with a value for each iteration; each is drawn
        below the hyperparameters.

    Raises:
      ValueError: another suffix; a recipe without a length, and no ``iterations``; a metric without
        a value for each iteration.

    >>> import tempfile
    >>> from jaxsched.recipes import yolov5_resnet18
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     plot(yolov5_resnet18(epochs=2), f"{folder}/lr.png")
    ...     (Path(folder) / "lr.png").stat().st_size > 10_000
    True
    """
    require_suffix(path, PICTURES)
    trace = rows_of(run, iterations)
    values = {name: np.asarray(column) for name, column in (metrics or {}).items()}
    for name, column in values.items():
        if column.shape != (len(trace),):
            raise ValueError(
                f"metrics must have a value an iteration, shape ({len(trace)},), "
                f"got {name} of shape {column.shape}."
            )
    _save(figure_of(trace, metrics=values), path)


def plot_difference(report: Report, path: str | os.PathLike[str]) -> None:
    """Draw the curves that differ, from some rows before the first difference, and the cause's curve.

    Args:
      report: the report of two runs that differ.
      path: the picture, ``.png`` or ``.svg``.

    >>> import tempfile
    >>> from jaxsched import Recipe, compare
    >>> mine, reference = (Recipe({"all": {"learning_rate": lr}}) for lr in (0.2, 0.1))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     plot_difference(compare(mine, reference, iterations=50), f"{folder}/parity.svg")
    ...     (Path(folder) / "parity.svg").stat().st_size > 10_000
    True
    """
    require_suffix(path, PICTURES)
    # Groups often differ in the same way: draw the group with the largest difference of each name.
    worst: dict[str, Quantity] = {}
    for q in (q for q in report.quantities if q.first and not q.is_setting):
        if q.name not in worst or q.max_relative > worst[q.name].max_relative:
            worst[q.name] = q
    figure = Figure((8, 1 + 3.4 * len(worst)), dpi=150, layout="constrained", facecolor="white")
    axes = figure.subplots(2 * len(worst), height_ratios=[2, 1] * len(worst), squeeze=False)[:, 0]
    for pair, quantity in zip(axes.reshape(-1, 2), worst.values(), strict=True):
        _draw_difference(pair, report, quantity)
    handles, names = axes[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside upper right", ncols=3, frameon=False)
    _save(figure, path)


def _save(figure: Figure, path: str | os.PathLike[str]) -> None:
    with atomic_write(path) as file:
        figure.savefig(file, format=Path(path).suffix[1:])


def _draw_difference(axes: np.ndarray, report: Report, quantity: Quantity) -> None:
    """Draw both curves of a quantity, and their distance below."""
    clock = report.reference.clock
    columns = (column_of(quantity, run) for run in (report.mine, report.reference))
    mine, reference = (np.full(quantity.n, np.nan) if c is None else c for c in columns)
    at = quantity.first.iteration if quantity.first else 0
    counts = report.reference.start + np.arange(quantity.n)
    rows = counts >= at - max(10, quantity.n // 50)
    peak = np.abs(reference).max() or 1.0
    axes[0].plot(counts[rows], reference[rows], color="#E69F00", linewidth=4, label="reference")
    axes[0].plot(counts[rows], mine[rows], color="#0072B2", linewidth=1.4, label="mine")
    for cause in report.explanations:
        if (changed := cause.curves.get(quantity.key)) is not None:
            side = "the reference" if cause.changes_reference else "mine"
            style = {"color": "black", "linewidth": 1.2, "linestyle": (0, (1, 3))}
            style["label"] = f"{side}, changed by the cause"
            axes[0].plot(counts[rows], changed[rows], **style)
            break
    away = 100 * (mine.astype(np.float64) - reference) / peak
    axes[1].plot(counts[rows], away[rows], color="#0072B2", linewidth=1.4)
    name = quantity.name.replace("_", " ")
    where = f"{quantity.label}: " if quantity.label else ""
    axes[0].set_title(
        f"{where}{name}, first difference at {clock} {at}", loc="left", fontweight="bold"
    )
    axes[0].set_ylabel(name)
    axes[1].set_ylabel("distance\n(% of peak)")
    axes[1].set_xlabel(clock)
    for ax in axes:
        ax.axvline(at, color="#555555", linewidth=1, linestyle="--")
        ax.grid(color="#DDDDDD", linewidth=0.6)
        ax.margins(x=0.01)
