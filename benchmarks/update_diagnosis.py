"""Claim: each usual mistake of an update is named in at least 95 % of 20 random settings.

The mistakes in ``parity_tests/planted_updates.py`` are written out formula by formula and compared
with live torch by ``assert_optimizer_matches``. A mistake counts as named if it is the only cause;
that entry may list others that the data cannot distinguish. Correct updates must pass.
``python -m benchmarks.update_diagnosis 3`` plants each three times and writes nothing. It takes
many minutes and is not among ``python -m benchmarks``.
"""

import itertools
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "parity_tests"))

import planted_updates

from benchmarks.diagnosis import DRAWS, SHARE, map_in_processes
from benchmarks.timing import report


def count_misses(name: str, draws: int) -> tuple[int, float]:
    """Count the settings, of ``draws``, in which the mistake is not named; and the seconds per setting."""
    begin = time.perf_counter()
    misses = sum(
        not planted_updates.is_named(name, planted_updates.run_planted(name, seed))
        for seed in range(draws)
    )
    return misses, (time.perf_counter() - begin) / draws


if __name__ == "__main__":
    draws = int(sys.argv[1]) if sys.argv[1:] else DRAWS
    wrong = sum(
        bool(planted_updates.run_right(name, seed))
        for name, seed in itertools.product(planted_updates.RIGHT, range(draws))
    )
    claims: dict[str, tuple[float, float | None]] = {
        f"right updates, {draws} of each rule, that are reported to differ": (wrong, 0)
    }
    seconds: dict[str, list[float]] = {}
    for name, (misses, took) in map_in_processes(count_misses, planted_updates.PLANTED, draws):
        claims[f"{name}: missed of {draws}"] = (misses, (1 - SHARE) * draws)
        seconds[name] = [took]
        print(f"{name}: {misses} of {draws} missed", flush=True)
    if draws == DRAWS:
        report("update_diagnosis", seconds, claims)
    sys.exit(any(bound is not None and value > bound for value, bound in claims.values()))
