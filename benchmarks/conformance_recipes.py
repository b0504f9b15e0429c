"""Recipes of other libraries compared with the objects of their own factories, for ``conformance``."""

import sys
from collections.abc import Callable, Iterable
from importlib import metadata
from pathlib import Path
from typing import Any

import jax

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "parity_tests"))

SETTINGS, UPDATED = 200, 20
UPDATE_BOUND = 1e-14  # of the largest entry that a leaf has had so far
GAP_BOUND = 1e-14  # of a rate in float64, relative to the curve's peak

Tally = Callable[[Any, Any], dict[str, Any]]


def timm(n: int, tally: Tally) -> dict[str, Any]:
    """Tallies of the first ``n`` settings, and how many of 20 are within the bound of updates."""
    import timm_settings as live

    rows, updated = [], 0
    for k, setting in enumerate(live.draw_settings(n)):
        if differences := live.differences(setting):  # in groups and constants, too
            raise ValueError(f"timm, setting {k}: {differences}")
        theirs, ours = live.both_rates(setting)
        rows.append(tally(ours.ravel(), theirs.ravel()))
        if n == SETTINGS and k < live.UPDATED:
            updated += live.update_distance(setting) <= UPDATE_BOUND
    return {"rates": rows, "updates": updated}


def transformers(n: int, tally: Tally) -> dict[str, Any]:
    """Tallies of the first ``n`` settings, and how many of 20 are within the bound of updates."""
    import transformers_settings as live

    rows, model = [], live.Net()
    for setting in live.settings(n):
        optimizer, scheduler = live.create(setting.full(), setting.num_training_steps, model)
        theirs = live.rates(optimizer, scheduler, setting)
        with jax.enable_x64(True):
            ours = live.our_rates(live.recipe_of(setting))
        rows.append(tally(ours.ravel(), theirs.ravel()))
    updated = live.UPDATED if n == SETTINGS else []
    for k in updated:
        live.assert_updates_match(k)
    return {"rates": rows, "updates": len(updated)}


RECIPES: dict[str, Callable[[int, Tally], dict[str, Any]]] = {
    "timm": timm,
    "transformers": transformers,
}


def run(n: int, tally: Tally, show: Callable[[Iterable[str], str], Iterable[str]]) -> Any:
    """Return all raw figures, with the version of each library."""
    return {
        name: {"version": metadata.version(name), **RECIPES[name](n, tally)}
        for name in show(RECIPES, "recipes")
    }


def markdown(
    results: dict[str, Any], summarize: Callable[[list[dict[str, Any]]], str]
) -> list[str]:
    """Return the section of docs/conformance.md."""
    return [
        "## Recipes of other libraries",
        "",
        "The library's own factories make optimizer and scheduler from random settings, and these are stepped as",
        "its training loop does. The rate of each group at each batch is compared as above. The last column counts",
        "the settings in which 50 updates on the same gradients are within 1e-14 of the largest entry, in float64.",
        "",
        "| recipe | of | equal | values | ULP | float64 | updates within |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *(
            f"| recipes.{name} | {name} {result['version']} | {summarize(result['rates'])} "
            f"| {result['updates']} of {UPDATED} |"
            for name, result in results.items()
        ),
        "",
    ]


def find_failures(results: dict[str, Any], n: int) -> list[str]:
    """Return the figures that are missing or exceed their bounds, as NaN does."""
    failures = []
    for name in RECIPES | results:
        rows = results.get(name, {}).get("rates", [])
        if len(rows) != n:
            failures.append(f"recipes.{name}: {len(rows)} settings, not {n}")
        if n == SETTINGS and results.get(name, {}).get("updates") != UPDATED:
            failures.append(f"recipes.{name}: updates of {UPDATED} settings are missing")
        for k, row in enumerate(rows):
            if not (row["equal"] == row["steps"] and row["gap"] <= GAP_BOUND):
                failures.append(f"recipes.{name}, setting {k}: {row}")
    return failures
