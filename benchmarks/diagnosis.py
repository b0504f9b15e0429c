"""Claim: each usual mistake is named in at least 95 % of 20 random runs, of a curve or of an update.

``parity_tests/planted.py`` computes the curves in NumPy, for ``compare``; ``planted_updates.py`` writes
the updates out formula by formula, for ``assert_optimizer_matches`` beside live torch. Neither uses the
code that looks for the mistake. A mistake of an update counts as named if it is the only cause; that
entry may list others that the data cannot distinguish. Correct runs must have no cause.
``python -m benchmarks.diagnosis 1`` plants each once. It takes many minutes and is not among
``python -m benchmarks``.
"""

import functools
import multiprocessing
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "parity_tests"))

import planted
import planted_updates

from benchmarks.timing import report
from jaxsched.parity import compare

DRAWS, SHARE = 20, 0.95
PLANTED = {
    **{f"curve, {name}": name for name in planted.CAUSES},
    **{f"update, {name}": name for name in planted_updates.PLANTED},
}
"""The mistakes, by their names in the results."""


def count_misses(what: str, draws: int) -> tuple[int, float]:
    """Count the runs, of ``draws``, in which the mistake is not named; and the seconds per run."""
    begin, name = time.perf_counter(), PLANTED[what]
    if what.startswith("curve"):
        missed = sum(
            not planted.is_named(name, compare(planted.record_run(right, wrong), right.recipe()))
            for right, wrong in planted.cases(name, draws)
        )
    else:
        missed = sum(
            not planted_updates.is_named(name, planted_updates.run_planted(name, seed))
            for seed in range(draws)
        )
    return missed, (time.perf_counter() - begin) / draws


def count_false_causes(draws: int) -> tuple[int, int]:
    """Count the correct runs of curves and of updates, of ``draws`` each, that differ or have a cause."""
    rng = np.random.default_rng(0)
    rights = [planted.draw_run(rng, family) for family in planted.FAMILIES for _ in range(draws)]
    reports = [compare(planted.record_run(r, r.groups()), r.recipe()) for r in rights]
    curves = sum(not report or bool(report.causes) for report in reports)
    updates = sum(
        bool(planted_updates.run_right(name, seed))
        for name in planted_updates.RIGHT
        for seed in range(draws)
    )
    return curves, updates


if __name__ == "__main__":
    draws = int(sys.argv[1]) if sys.argv[1:] else DRAWS
    curves, updates = count_false_causes(draws)
    claims: dict[str, tuple[float, float | None]] = {
        f"correct runs of {len(planted.FAMILIES)} originals with a cause": (curves, 0),
        f"correct updates of {len(planted_updates.RIGHT)} rules with a difference": (updates, 0),
    }
    seconds: dict[str, list[float]] = {}
    # Each process takes one core; a fork of a process that has run JAX would hang.
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        results = pool.map(functools.partial(count_misses, draws=draws), PLANTED)
        for what, (misses, took) in zip(PLANTED, results, strict=True):
            claims[f"{what}: missed of {draws}"] = (misses, (1 - SHARE) * draws)
            seconds[what] = [took]
            print(f"{what}: {misses} of {draws} missed", flush=True)
    report("diagnosis", seconds, claims)
