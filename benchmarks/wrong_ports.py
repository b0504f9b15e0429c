"""Claim: of wrong ports made without looking at the search, 85 % have their cause named first.

``parity_tests/wrong_ports`` holds the ports, recordings of torch, and the acceptable answers.
The share counts the ports in which one side states the argument or the data determine the change;
the others, in which a number inside a function differs, are counted separately. ``seen`` was used
during development, ``aside`` was not looked at before the search was finished, and ``fresh`` was
made after the search had been rewritten. ``python -m benchmarks.wrong_ports seen`` runs one of them.
It takes minutes and is not among ``python -m benchmarks``.
"""

import importlib
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "parity_tests"))

from wrong_ports.judge import judge

from benchmarks.timing import report
from jaxsched.parity import compare

SHARE = 0.85

if __name__ == "__main__":
    halves = sys.argv[1:] or ["seen", "aside", "fresh"]
    claims: dict[str, tuple[float, float | None]] = {}
    seconds: dict[str, list[float]] = {}
    for half in halves:
        verdicts: dict[tuple[str, str], list[str]] = {}
        seconds[half] = []
        for case in importlib.import_module(f"wrong_ports.{half}").CASES:
            begin = time.perf_counter()
            verdict = judge(case, compare(case.mine(), case.reference()))
            seconds[half].append(time.perf_counter() - begin)
            kind = (
                "is right" if not case.expected else ("determined", "opaque")[not case.determined]
            )
            verdicts.setdefault((kind, verdict), []).append(case.name)
        for (kind, verdict), names in sorted(verdicts.items()):
            print(f"{half}, {kind}, {verdict}: {len(names)}")
            if verdict != "right":
                print("  " + "\n  ".join(names))
        counts = {key: len(names) for key, names in verdicts.items()}
        wrong = sum(count for (_, verdict), count in counts.items() if verdict == "wrong")
        right = counts.get(("determined", "right"), 0)
        determined = sum(count for (kind, _), count in counts.items() if kind == "determined")
        claims[f"{half}: {right} of {determined} named first; missed, share"] = (
            1 - right / determined,
            1 - SHARE,
        )
        claims[f"{half}: a wrong cause first"] = (wrong, 0)
    if not sys.argv[1:]:
        report("wrong_ports", seconds, claims)
    sys.exit(any(bound is not None and value > bound for value, bound in claims.values()))
