"""Claim: of wrong ports made without looking at the search, 85 % have their cause named first.

``parity_tests/wrong_ports`` holds the ports, recordings of torch, and the acceptable answers. The share
is that of the ports in which one side states the argument or the data determine the change; in the
"opaque" ones a number inside a function differs. ``seen`` was used during development, ``aside`` was not
looked at before the search was finished, and ``fresh`` was made after the search had been rewritten.
``python -m benchmarks.wrong_ports seen`` runs one of them. It takes minutes and is not among
``python -m benchmarks``.
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
    seconds: dict[str, list[float]] = {half: [] for half in halves}
    for half in halves:
        names: dict[tuple[str, str], list[str]] = {
            (kind, verdict): []
            for kind in ("determined", "opaque", "correct")
            for verdict in ("right", "none", "wrong")
        }
        for case in importlib.import_module(f"wrong_ports.{half}").CASES:
            begin = time.perf_counter()
            verdict = judge(case, compare(case.mine(), case.reference()))
            seconds[half].append(time.perf_counter() - begin)
            kind = "determined" if case.determined else "opaque"
            names[kind if case.expected else "correct", verdict].append(case.name)
        determined = sum(
            len(names["determined", verdict]) for verdict in ("right", "none", "wrong")
        )
        for (kind, verdict), ports in names.items():
            bound = {"right": None, "none": None, "wrong": 0.0}[verdict]
            if (kind, verdict) == ("determined", "none"):
                bound = (1 - SHARE) * determined
            claims[f"{half}, {kind}: {verdict}"] = len(ports), bound
            if verdict != "right" and ports:
                print(f"{half}, {kind}, {verdict}:", *ports, sep="\n  ")
    if not sys.argv[1:]:
        report("wrong_ports", seconds, claims)
    sys.exit(any(bound is not None and value > bound for value, bound in claims.values()))
