"""The text of docs/conformance.md, made of the raw figures of ``conformance``."""

import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "parity_tests"))

import bounds
import optimizer_settings as rules
import scheduler_settings as schedulers

from benchmarks import conformance_recipes as recipes

OPTAX = {
    "StepLR": "exponential_decay, staircase",
    "MultiStepLR": "piecewise_constant_schedule",
    "ConstantLR": "piecewise_constant_schedule",
    "LinearLR": "linear_schedule",
    "ExponentialLR": "exponential_decay",
    "PolynomialLR": "polynomial_schedule",
    "CosineAnnealingLR": "cosine_decay_schedule",
    "CosineAnnealingWarmRestarts": "sgdr_schedule",
    "OneCycleLR": "cosine_onecycle_schedule, linear_onecycle_schedule",
    "SWALR": "cosine_decay_schedule, linear_schedule",
    "ReduceLROnPlateau": "contrib.reduce_on_plateau",
}
"""The closest functions of plain Optax, which ``scheduler_settings`` calls."""


def summarize(rows: list[dict[str, Any]]) -> str:
    """Format the settings equal at every step, the share of steps, ULP and float64 distance."""
    if not rows:
        return "none | | | |"
    whole = sum(row["equal"] == row["steps"] for row in rows)
    share = sum(row["equal"] for row in rows) / sum(row["steps"] for row in rows)
    gap = max(row["gap"] for row in rows)
    return f"{whole} of {len(rows)} | {percent(share)} | {ulp(max(r['ulp'] for r in rows))} | {gap:.1g}"


def percent(share: float) -> str:
    """Format a share; 100 % only if it is 1."""
    return "100 %" if share == 1 else f"{np.floor(share * 1e4) / 1e2:.2f} %"


def ulp(distance: float) -> str:
    """Format a distance in float32 steps, rounded if it is large."""
    return f"{distance:.0f}" if distance < 1000 else f"{distance:.0e}"


def float32_figures(rows: list[dict[str, Any]]) -> list[str]:
    """Format a rule's float32 figures: share of equal entries, median and worst ULP."""
    return [
        percent(statistics.fmean(row["equal"] for row in rows)),
        f"{statistics.median(row['median'] for row in rows):.3g}",
        ulp(max(row["worst"] for row in rows)),
    ]


def markdown(results: dict[str, Any]) -> str:
    """Return the text of docs/conformance.md."""
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    steps = sum(
        row["steps"]
        for rows in results["schedulers"].values()
        for kind in rows.values()
        for row in kind
    )
    lines = [
        "# Conformance",
        "",
        "Written by `python -m benchmarks.conformance --write`, which runs torch, jaxsched and the closest",
        "function of plain Optax side by side. The tests run a part of it again and compare.",
        "",
        f"{results['date']}; {versions}; on a CPU.",
        "",
        "## Torch's schedulers",
        "",
        "Each setting is drawn at random, with rates from 1e-5 to 10, and run past its end. *Equal* counts the",
        "settings in which every step gives the same float32 as torch, and *steps* is the share of equal steps.",
        "*ULP* is the largest distance in float32 steps, *float64* the largest in float64, relative to the",
        "curve's peak. Values below 1e-12 of the peak, where torch's recursion leaves a remainder of 0, count as",
        f"equal within 1e-15 of it. {steps:,} values in all.",
        "",
        "| class | form | equal | steps | ULP | float64 |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, rows in results["schedulers"].items():
        forms = [("closed form", rows["closed"]), ("replayed", rows["replayed"])]
        if name == "ReduceLROnPlateau":
            forms = [("`step(state, metric)`", rows["closed"])]
        forms = [(form, results_of_form) for form, results_of_form in forms if results_of_form]
        if name in schedulers.CASES or rows["optax"]:
            forms.append((f"Optax: {OPTAX.get(name, 'none')}", rows["optax"]))
        for form, results_of_form in forms:
            lines.append(
                f"| {name} | {form} | {summarize(results_of_form)} |".replace("| |  |", "| |")
            )
    lines += [
        "",
        "In longer runs a closed form can differ from torch's recursion at some steps. Over 100,000 steps of one",
        "setting each:",
        "",
        "| class | values that are not equal | ULP | float64 |",
        "| --- | --- | --- | --- |",
    ]
    for name, row in results["drift"].items():
        if row:
            apart = row["steps"] - row["equal"]
            lines.append(
                f"| {name} | {apart:,} of {row['steps']:,} | {ulp(row['ulp'])} | {row['gap']:.1g} |"
            )
    lines += [
        "",
        "`steps=n` replays torch's recursion and is equal to the bit there too.",
        "",
        "## Torch's update rules",
        "",
        f"Each combination of a rule's options makes {rules.UPDATES} updates on the same gradients, under a moving",
        "rate. *Parameters* and *state* are the largest distances after any update, relative to the largest",
        "entry, in float64, which is torch's default dtype there. In float32 the columns are the share of entries",
        "that are equal after an update, the median distance of an entry in ULP (the median over settings), and",
        "the worst in ULP of the largest entry. Optax's are taken over the settings whose arguments it has; there",
        "*parameters* and *at best* are the largest and the smallest distance.",
        "",
        "| rule | settings | parameters | state | float32 equal | median | worst "
        "| Optax settings | parameters | at best | float32 equal | median | worst |",
        "|" + " --- |" * 13,
    ]
    for name, rows in results["optimizers"].items():
        ours, optaxs = rows["ours"], rows["optax"]
        cells = [
            name,
            len(ours),
            f"{max(r['params'] for r in ours):.1g}",
            f"{max(r['state'] for r in ours):.1g}",
            *float32_figures(ours),
            *(
                [
                    len(optaxs),
                    f"{max(r['params'] for r in optaxs):.1g}",
                    f"{min(r['params'] for r in optaxs):.1g}",
                    *float32_figures(optaxs),
                ]
                if optaxs
                else ["none", *[""] * 5]
            ),
        ]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    lines += [
        "",
        "Muon iterates in bfloat16, where another rounding moves an entry: its parameters are not equal to",
        f"torch's but within {bounds.MUON_BOUND:g} times the sum of the rates so far, each times its adjustment.",
        "LBFGS and SparseAdam are left out: the first calls the loss again within a step, the second is for sparse",
        "gradients, which JAX does not have. musgd is Ultralytics'. Here it is without Muon, beside a class of the",
        "tests that equals recordings of Ultralytics' own.",
        "",
        *musgd_table(results["musgd"]),
        *ultralytics_table(results["ultralytics"]),
        *recipes.markdown(results["recipes"], summarize),
    ]
    return "\n".join(lines)


def musgd_table(rows: dict[str, dict[str, float]]) -> list[str]:
    """Return the lines on MuSGD: distances from its recordings."""
    lines = [
        "## MuSGD",
        "",
        "12 updates on the gradients of recordings of Ultralytics' class: once with the iteration in bfloat16, as",
        "it is there, and once in float32, with the class's cast to bfloat16 switched off. *Without Muon* and",
        "*buffer* are the distances of the other groups' parameters and of Muon's buffer, in ULP of the largest",
        "entry. *With Muon* is the distance of the parameters that Muon moves, and *share* is that distance",
        "relative to the sum of Muon's rates.",
        "",
        "| version, iteration | without Muon | buffer | with Muon | share |",
        "| --- | --- | --- | --- | --- |",
    ]
    spacing = np.spacing(np.float32(1))
    for name, row in rows.items():
        exact = " | ".join(f"{row[key] / spacing:.1f}" for key in ("others", "buffer"))
        lines.append(f"| {name} | {exact} | {row['parameters']:.1g} | {row['share']:.1g} |")
    return [*lines, ""]


def ultralytics_table(rows: dict[str, dict[str, int]]) -> list[str]:
    """Return the lines on ``recipes.ultralytics``."""
    return [
        "## Ultralytics",
        "",
        "Runs of the releases' own trainer on a small model: with each of their optimizers, short and long, at",
        'several batch sizes, resumed, and with "auto". *Equal* counts the runs in which all rates, momenta, decays,',
        "updates and averages are those of `recipes.ultralytics` in float32.",
        "",
        "| release | runs | equal | iterations |",
        "| --- | --- | --- | --- |",
        *(
            f"| {version} | {row['runs']} | {row['equal']} | {row['iterations']} |"
            for version, row in rows.items()
        ),
        "",
    ]
