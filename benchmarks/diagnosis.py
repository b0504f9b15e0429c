"""Claim: ``compare`` names each usual mistake in at least 95 % of 20 random recipes.

The runs are computed in NumPy by ``parity_tests/planted.py``, never by the code that looks for
the mistake; correct ones must have no cause. ``python -m benchmarks.diagnosis 3`` plants each three
times and writes nothing. It takes many minutes and is not among ``python -m benchmarks``.
"""

import itertools
import multiprocessing
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "parity_tests"))

import planted

from benchmarks.timing import report
from jaxsched.parity import compare

DRAWS, SHARE = 20, 0.95


def count_misses(name: str, draws: int) -> tuple[int, float]:
    """Count the runs, of ``draws``, in which the mistake is not named; and the seconds per run."""
    begin = time.perf_counter()
    misses = sum(
        not planted.is_named(name, compare(planted.record_run(right, wrong), right.recipe()))
        for right, wrong in planted.cases(name, draws)
    )
    return misses, (time.perf_counter() - begin) / draws


def count_false_causes(draws: int) -> int:
    """Count the correct runs, of ``draws`` of each original, that differ or have a cause."""
    rng = np.random.default_rng(0)
    rights = [planted.draw_run(rng, family) for family in planted.FAMILIES for _ in range(draws)]
    reports = [compare(planted.record_run(r, r.groups()), r.recipe()) for r in rights]
    return sum(not report or bool(report.causes) for report in reports)


def map_in_processes(
    function: Callable[[str, int], Any], names: Iterable[str], draws: int
) -> Iterator[tuple[str, Any]]:
    """Yield each name with ``function(name, draws)``, in the order of the names."""
    # Each process takes one core; a fork of a process that has run JAX would hang.
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        names = list(names)
        yield from zip(names, pool.map(function, names, itertools.repeat(draws)), strict=True)


if __name__ == "__main__":
    draws = int(sys.argv[1]) if sys.argv[1:] else DRAWS
    claims: dict[str, tuple[float, float | None]] = {
        f"right runs, {draws} of each original, that have a cause": (count_false_causes(draws), 0)
    }
    seconds: dict[str, list[float]] = {}
    for name, (misses, took) in map_in_processes(count_misses, planted.CAUSES, draws):
        claims[f"{name}: missed of {draws}"] = (misses, (1 - SHARE) * draws)
        seconds[name] = [took]
        print(f"{name}: {misses} of {draws} missed", flush=True)
    if draws == DRAWS:
        report("diagnosis", seconds, claims)
    sys.exit(any(bound is not None and value > bound for value, bound in claims.values()))
