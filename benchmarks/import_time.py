"""Claim: ``import jaxsched`` takes at most 1.1 times as long as ``import optax``.

Both from compiled bytecode, which a first import leaves behind, as pip does.
"""

import os
import subprocess
import sys

from benchmarks.timing import interleaved, ratio, report


def importing(name: str):
    keeping = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", f"import {name}"]
    return lambda: subprocess.run(command, check=True, env=keeping).returncode


if __name__ == "__main__":
    seconds = interleaved({f"import {n}": importing(n) for n in ("jaxsched", "optax")}, rounds=15)
    measured = ratio(seconds, "import jaxsched", "import optax")
    report("import_time", seconds, {"import jaxsched / import optax": (measured, 1.1)})
