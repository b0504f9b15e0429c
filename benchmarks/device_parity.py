"""Claim: on the present device hyperparameters, schedulers and update rules equal torch's.

The article's 27,000 hyperparameters in float32 are compared with its recorded run, and 200 random
settings of each scheduler with a closed form, also in float32; each setting of the update rules makes
200 updates in float64 and in float32, within the bounds of ``conformance``. torch computes on the CPU
on any device of JAX. A replay, ``steps=n``, also computes on the CPU and is left out.
"""

import argparse
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from benchmarks import conformance
from benchmarks.timing import report
from jaxsched import Trace, recipes
from jaxsched.parity import ulps


def recipe_differences(at: Callable[[Any], Any], reference: Trace) -> tuple[int, int]:
    """Count the hyperparameters that differ in float32 from a recorded run, and all of them."""
    values = jax.jit(jax.vmap(at))(reference.start + np.arange(len(reference), dtype=np.int32))
    pairs = [
        (np.asarray(values[label][name]), column)
        for label, group in reference.groups.items()
        for name, column in group.items()
    ]
    different = sum(int((ulps(mine, theirs) != 0).sum()) for mine, theirs in pairs)
    return different, sum(theirs.size for _, theirs in pairs)


def scheduler_differences(name: str, settings: int) -> tuple[int, int]:
    """Count the values of a scheduler's closed form that differ in float32, and all of them."""
    rows = (
        conformance.plateau(settings)
        if name == conformance.PLATEAU
        else conformance.scheduler(name, settings, with_optax=False)
    )["closed"]
    return sum(row["steps"] - row["equal"] for row in rows), sum(row["steps"] for row in rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--settings", type=int, default=200, help="settings a scheduler")
    options = parser.parse_args()
    different, total = recipe_differences(
        recipes.yolov5_resnet18().at, recipes.recorded("yolov5_resnet18")
    )
    claims: dict[str, tuple[float, float | None]] = {
        f"the article's run: hyperparameters that differ, of {total:,}": (different, 0)
    }
    closed = [name for name, case in conformance.schedulers.CASES.items() if case.closed]
    for name in [*closed, conformance.PLATEAU]:
        different, total = scheduler_differences(name, options.settings)
        claims[f"{name}: values that differ, of {total:,}"] = different, 0
    for name in conformance.rules.RULES:
        rows = conformance.rule(name, with_optax=False)["ours"]
        beyond = conformance.list_exceeded(name, rows)
        claims[f"{name}: settings beyond the bound, of {len(rows)}"] = len(beyond), 0
    report("device_parity", {}, claims)
