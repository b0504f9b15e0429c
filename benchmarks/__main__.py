"""The claims on speed: ``python -m benchmarks`` runs each script by itself and prints one table.

``conformance`` has a page of its own, docs/conformance.md. ``elsewhere`` needs XLA's compilers for other
devices. The scripts of "Long-running checks" in README.md, and ``device_parity`` and ``wrong_ports``, take
minutes and are run by name.
"""

import json
import subprocess
import sys

from benchmarks.timing import RESULTS, limit, verdict

SCRIPTS = [
    "sgd_update",
    "adam_update",
    "compiled_update",
    "schedule_cost",
    "training_step",
    "trace_compile",
    "curves",
    "sweep",
    "import_time",
    "recording_cost",
]


def main() -> int:
    failed = 0
    for name in SCRIPTS:
        print(f"== {name}", flush=True)
        (RESULTS / f"{name}.json").unlink(missing_ok=True)
        failed |= subprocess.run(
            [sys.executable, "-m", f"benchmarks.{name}"], check=False
        ).returncode
    print("\n| script | what | measured | |\n| --- | --- | --- | --- |")
    for name in SCRIPTS:
        path = RESULTS / f"{name}.json"
        claims = json.loads(path.read_text())["claims"] if path.exists() else {}
        for what, result in claims.items():
            print(
                f"| {name} | {what} | {result['measured']:.4g} | {verdict(result)}{limit(result)} |"
            )
        if not claims:
            print(f"| {name} | | | did not run |")
    return bool(failed)


if __name__ == "__main__":
    sys.exit(main())
