"""Claim: ``import jaxsched`` takes at most 1.1 times as long as ``import optax``."""

import subprocess
import sys

from benchmarks.timing import interleaved, ratio, report


def importing(name: str):
    return lambda: subprocess.run([sys.executable, "-c", f"import {name}"], check=True).returncode


if __name__ == "__main__":
    seconds = interleaved({f"import {n}": importing(n) for n in ("jaxsched", "optax")}, rounds=15)
    measured = ratio(seconds, "import jaxsched", "import optax")
    report("import_time", seconds, {"import jaxsched / import optax": (measured, 1.1)})
