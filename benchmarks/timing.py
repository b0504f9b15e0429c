"""What the scripts share: runs interleaved in one process, one table, versions beside it."""

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

import jax


def interleaved(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each call in each round, after one uncounted round.

    The calls take turns, so that a machine that slows down slows all of them.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        jax.block_until_ready(call())
    for _ in range(rounds):
        for name, call in calls.items():
            begin = time.perf_counter()
            jax.block_until_ready(call())
            seconds[name].append(time.perf_counter() - begin)
    return seconds


def ratio(seconds: Mapping[str, list[float]], mine: str, other: str) -> float:
    """The median over rounds of mine / other."""
    return statistics.median(a / b for a, b in zip(seconds[mine], seconds[other], strict=True))


def report(seconds: Mapping[str, list[float]], claims: Mapping[str, tuple[float, float]]) -> None:
    """Prints minimum, median and maximum, then each claim; exits 1 where one fails.

    Args:
      seconds: raw times by name.
      claims: from a sentence to (what was measured, at most what).
    """
    versions = [f"{name} {metadata.version(name)}" for name in ("jax", "jaxlib", "optax", "numpy")]
    device = jax.devices()[0].device_kind
    print(
        f"Python {platform.python_version()}, {', '.join(versions)}; {os.cpu_count()} cores, {device}"
    )
    print("| what | min ms | median ms | max ms | runs |\n| --- | --- | --- | --- | --- |")
    for name, times in seconds.items():
        low, middle, high = min(times), statistics.median(times), max(times)
        print(
            f"| {name} | {low * 1e3:.3f} | {middle * 1e3:.3f} | {high * 1e3:.3f} | {len(times)} |"
        )
    failed = False
    for sentence, (measured, bound) in claims.items():
        holds = measured <= bound
        failed |= not holds
        print(f"{'holds' if holds else 'FAILS'}: {sentence}: {measured:.4g}, at most {bound:g}")
    sys.exit(failed)
