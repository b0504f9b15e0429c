"""The picture of a trace: learning rates and momentum by iteration, as a matplotlib figure."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxsched._extras import missing
from jaxsched._trace import Trace

try:
    from matplotlib.figure import Figure
except ModuleNotFoundError as error:
    raise missing("jaxsched.plot", "matplotlib") from error

# Okabe and Ito's colours, which the colour-blind can distinguish. Curves of groups often coincide,
# so later lines are thinner and dashed and do not cover the earlier ones.
STYLES = (
    {"color": "#0072B2", "linewidth": 4.5, "linestyle": "-"},
    {"color": "#E69F00", "linewidth": 2.5, "linestyle": "-"},
    {"color": "#000000", "linewidth": 1.2, "linestyle": (0, (6, 4))},
    {"color": "#CC79A7", "linewidth": 1.2, "linestyle": ":"},
)
COLORS = ("#0072B2", "#E69F00", "#000000", "#CC79A7", "#009E73", "#D55E00", "#56B4E9", "#999999")


def styles_of(n: int) -> Sequence[Mapping[str, Any]]:
    """Return the styles of ``n`` lines; with more than four, later lines are thinner."""
    if n <= len(STYLES):
        return STYLES[:n]
    widths = np.linspace(6, 1, n)
    return [
        {"color": COLORS[k % len(COLORS)], "linewidth": width, "solid_capstyle": "butt"}
        for k, width in enumerate(widths)
    ]


def figure_of(
    trace: Trace,
    size: tuple[float, float] | None = None,
    metrics: Mapping[str, np.ndarray] | None = None,
) -> Figure:
    """Draw each group's learning rate and momentum, and below them each of ``metrics``.

    ``size`` is width and height in inches.
    """
    used = {name for group in trace.groups.values() for name in group}
    names = [name for name in ("learning_rate", "momentum", "b1") if name in used]
    panels = [(name, None) for name in names] + list((metrics or {}).items())
    size = size or (8, 1 + 3 * len(panels))
    figure = Figure(size, dpi=150, layout="constrained", facecolor="white")
    end, iterations = warmup_end(trace), trace.start + np.arange(len(trace))
    axes = figure.subplots(len(panels), sharex=True, squeeze=False)[:, 0]
    for ax, (name, metric) in zip(axes, panels, strict=True):
        if metric is not None:
            ax.plot(iterations, metric, color="#555555", linewidth=0.8)
        styles = styles_of(len(trace.groups))
        for (label, group), style in zip(sorted(trace.groups.items()), styles, strict=True):
            if metric is None and name in group:
                ax.plot(iterations, group[name], label=label, **style)
        ax.set_title(name.replace("_", " ").capitalize(), loc="left", fontweight="bold")
        ax.set_ylabel(name.replace("_", " "))
        ax.grid(color="#DDDDDD", linewidth=0.6)
        ax.margins(x=0.01)
        if end is not None:
            ax.axvline(end, color="#555555", linewidth=1, linestyle="--")
    if end is not None:
        place = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "va": "top"}
        text = f"warm-up ends at iteration {end}"
        axes[0].annotate(text, (end, 1), (4, -4), color="#333333", **place)
    axes[-1].set_xlabel("iteration")
    handles, labels = axes[0].get_legend_handles_labels()
    # A column of the legend takes an inch for its line, and a twelfth of an inch a character.
    columns = int(size[0] / (1 + max(map(len, labels), default=0) / 12))
    ncols = max(1, min(columns, len(labels)))
    legend = {"loc": "outside upper center", "ncols": ncols, "handlelength": 4}
    figure.legend(handles, labels, frameon=False, **legend)
    return figure


def warmup_end(trace: Trace) -> int | None:
    """Return the first iteration of the rest of the run with one rate and with full momentum.

    Groups whose last rate differs from the first group's, such as MuSGD's heads at three times the
    rate, are ignored. None if nothing warms up, or if the warm-up lasts to the trace's end.

    >>> rates = {"weight": [0.0, 0.5, 1.0, 1.0], "bias": [2.0, 1.5, 1.0, 1.0]}
    >>> warmup_end(Trace({label: {"learning_rate": rate} for label, rate in rates.items()}))
    2
    """
    rates = [g["learning_rate"] for g in trace.groups.values() if "learning_rate" in g]
    warming = np.zeros(len(trace), bool)
    ends_apart = False
    for rate in rates[1:]:
        if rate[-1] == rates[0][-1]:
            warming |= rate != rates[0]
        else:
            ends_apart = True
    for momentum in (g["momentum"] for g in trace.groups.values() if "momentum" in g):
        # A momentum that also falls is cycled, not warmed up.
        if (np.diff(momentum) >= 0).all():
            warming |= momentum != momentum[-1]
    rows = np.flatnonzero(warming)
    # Rates also differ at the end if the trace ends within the warm-up; momentum then still rises.
    last = len(trace) - 1 - ends_apart
    return None if not rows.size or rows[-1] >= last else trace.start + int(rows[-1]) + 1
