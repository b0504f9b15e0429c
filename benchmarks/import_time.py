"""Claim: all names of jaxsched are imported in at most 1.1 times the time of ``import optax``.

Both are imported from compiled bytecode, which a first import writes, as pip does.
"""

import os
import subprocess
import sys

from benchmarks.timing import interleave, ratio, report

MINE = "from jaxsched import *"
"""All names, because a name's module is imported at its first use."""


def make_call(code: str):
    keeping = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    command = [sys.executable, "-c", code]
    return lambda: subprocess.run(command, check=True, env=keeping).returncode


if __name__ == "__main__":
    seconds = interleave({c: make_call(c) for c in (MINE, "import optax")}, rounds=15)
    measured = ratio(seconds, MINE, "import optax")
    report("import_time", seconds, {f"{MINE} / import optax": (measured, 1.1)})
