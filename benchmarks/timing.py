"""Helpers of the scripts: interleaved runs in one process, one table, the raw figures in a file."""

import datetime
import json
import os
import platform
import re
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

RESULTS = Path(__file__).parent / "results"
OTHERS = {"torch": "torch", "libtpu": "libtpu", "jax_cuda12_plugin": "jax-cuda12-plugin"}
"""Modules whose packages' versions are reported if they are loaded."""

COPIED = 2**26
"""Numbers in the array whose copy measures the memory bandwidth: 256 MiB, larger than any cache."""

C = TypeVar("C")


class Elapsed(float):
    """Seconds that a call measures itself, for example by CUDA's events; ``interleave`` records them."""


def times_in_a_call() -> int:
    """Return how often a call repeats a step, because a launch on a GPU takes as long as an update."""
    return 100 if jax.default_backend() == "gpu" else 1


def repeat(step: Callable[[C], C], times: int) -> Callable[[C], C]:
    """Return a function that makes ``times`` steps in one program, each from the last one's carry."""
    if times == 1:
        return step
    return lambda carry: jax.lax.fori_loop(0, times, lambda _, carry: step(carry), carry)


def make_copy(times: int) -> tuple[Callable[[], Any], int]:
    """Return a call that reads and writes a large array ``times`` times, and the bytes that it moves."""
    carry = [jnp.zeros(COPIED, jnp.float32)]
    add = jax.jit(repeat(lambda x: x + 1, times), donate_argnums=0)

    def call() -> Any:
        carry[0] = add(carry[0])
        return carry[0]

    return call, 2 * carry[0].nbytes * times


def interleave(calls: Mapping[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Return the seconds of each call in each round, after one uncounted round.

    The calls take turns, so that a slower machine slows all of them. In its turn
    each is made twice and the second is timed: the first runs with caches full of
    another's data, and after torch on a core on which torch's threads still spin.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        jax.block_until_ready(call())
    for _ in range(rounds):
        for name, call in calls.items():
            jax.block_until_ready(call())
            begin = time.perf_counter()
            result = jax.block_until_ready(call())
            elapsed = time.perf_counter() - begin
            seconds[name].append(float(result) if isinstance(result, Elapsed) else elapsed)
    return seconds


def ratio(seconds: Mapping[str, list[float]], mine: str, other: str) -> float:
    """Return the median over rounds of mine / other."""
    return statistics.median(a / b for a, b in zip(seconds[mine], seconds[other], strict=True))


def best(seconds: Mapping[str, list[float]], mine: str, other: str) -> float:
    """Return the shortest of mine / the shortest of the other."""
    return min(seconds[mine]) / min(seconds[other])


def processor() -> str:
    """Return the processor's name, from ``/proc/cpuinfo`` if it is there."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def environment(*more: str) -> dict[str, Any]:
    """Return the date, the versions of the packages, ``more`` among them, and the machine."""
    packages = ["jax", "jaxlib", "optax", "numpy", *more]
    packages += [package for module, package in OTHERS.items() if module in sys.modules]
    return {
        "date": datetime.date.today().isoformat(),
        "versions": {
            "python": platform.python_version(),
            **{package: metadata.version(package) for package in packages},
        },
        "machine": {
            "processor": processor(),
            "cores": os.cpu_count(),
            "device": jax.devices()[0].device_kind,
            "load": round(os.getloadavg()[0], 1),
        },
    }


def write(name: str, figures: Mapping[str, Any]) -> None:
    """Write figures to ``benchmarks/results/NAME.json``, each innermost list or object on one line."""
    text = json.dumps(figures, indent=1)
    text = re.sub(r"[\[{][^\[\]{}]*[\]}]", lambda inner: " ".join(inner[0].split()), text)
    (RESULTS / f"{name}.json").write_text(text + "\n")


def report(
    name: str,
    seconds: Mapping[str, list[float]],
    claims: Mapping[str, tuple[float, float | None]],
) -> None:
    """Print minimum, median and maximum, then each claim; exit with 1 if one fails.

    Writes the raw figures to ``benchmarks/results/NAME.json``, with versions and machine.

    Args:
      name: that of the script.
      seconds: raw times by name.
      claims: from a sentence to (the measured value, its upper bound); None if it is
        reported for information.
    """
    where = environment()
    print(", ".join(f"{k} {v}" for k, v in {**where["versions"], **where["machine"]}.items()))
    if seconds:
        print("| what | min ms | median ms | max ms | runs |\n| --- | --- | --- | --- | --- |")
    for what, times in seconds.items():
        low, middle, high = min(times), statistics.median(times), max(times)
        print(
            f"| {what} | {low * 1e3:.3f} | {middle * 1e3:.3f} | {high * 1e3:.3f} | {len(times)} |"
        )
    results = {
        sentence: {
            "measured": float(f"{measured:.4g}"),
            "at most": bound,
            "holds": None if bound is None else bool(measured <= bound),
        }
        for sentence, (measured, bound) in claims.items()
    }
    for sentence, result in results.items():
        print(f"{verdict(result)}: {sentence}: {result['measured']:g}{limit(result)}")
    rounded = {k: [float(f"{t:.4g}") for t in times] for k, times in seconds.items()}
    write(name, {**where, "claims": results, "seconds": rounded})
    sys.exit(any(result["holds"] is False for result in results.values()))


def verdict(result: Mapping[str, Any]) -> str:
    """Return "holds" or "FAILS", or "measured" for a figure without a bound."""
    return {True: "holds", False: "FAILS", None: "measured"}[result["holds"]]


def limit(result: Mapping[str, Any]) -> str:
    """Format the bound of a claim that has one."""
    return "" if result["at most"] is None else f", at most {result['at most']:g}"
