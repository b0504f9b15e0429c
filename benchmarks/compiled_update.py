"""Claim: the compiled update has no more kernels than plain Optax's, and SGD's stores no model copy.

XLA's figures for the updates of ``sgd_update`` and ``adam_update``: bytes of temporaries,
in units of the model, and kernels: each fusion, and every other operation that runs except copies.
"""

import re
from collections import Counter

import jax
import numpy as np

from benchmarks import updates
from benchmarks.timing import report

NOT_RUN = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast"}


def launches(program: str) -> Counter[str]:
    """Count the operations that a compiled program runs, by opcode, with the known steps of loops."""
    bodies: dict[str, str] = {}
    for header, body in re.findall(r"^((?:ENTRY )?%[^\n]*) \{\n(.*?)^\}", program, re.M | re.S):
        bodies["ENTRY" if header.startswith("ENTRY") else header.split()[0]] = body

    def count(name: str) -> Counter[str]:
        total: Counter[str] = Counter()
        for line in bodies[name].splitlines():
            match = re.match(r"\s*(?:ROOT )?%\S+ = (?:\(.*?\)|\S+) ([\w-]+)\(", line)
            if match is None or match[1] in NOT_RUN:
                continue
            if match[1] not in ("call", "while"):
                total[match[1]] += 1
                continue
            steps = re.search(r'"known_trip_count":\{"n":"(\d+)"', line)
            for inner in re.findall(r"(?:to_apply|condition|body)=(%[\w.-]+)", line):
                for opcode, times in count(inner).items():
                    total[opcode] += times * (int(steps[1]) if steps else 1)
        return total

    return count("ENTRY")


def figures(step: jax.stages.Compiled) -> tuple[int, int, int]:
    """Return the bytes of temporaries, the kernels, and the copies, which are of scalars."""
    started = launches(step.as_text())
    copies = started.pop("copy", 0)
    return step.memory_analysis().temp_size_in_bytes, started.total(), copies


if __name__ == "__main__":
    model = sum(leaf.nbytes for leaf in jax.tree.leaves(updates.leaves(0)))
    largest = max(np.prod(leaf.shape) * 4 for leaf in jax.tree.leaves(updates.leaves(0)))
    claims: dict[str, tuple[float, float | None]] = {}
    for rule in updates.RULES:
        mine, my_kernels, my_copies = figures(updates.compile_update(updates.ours(rule))[0])
        optaxs, their_kernels, their_copies = figures(
            updates.compile_update(updates.plain_optax(rule))[0]
        )
        claims |= {
            f"{rule}: temporaries / model": (mine / model, float(largest / model) / 100),
            f"{rule}: temporaries / model, plain Optax": (optaxs / model, None),
            f"{rule}: kernels / plain Optax": (my_kernels / their_kernels, 1.0),
            f"{rule}: kernels": (my_kernels, None),
            f"{rule}: copies of scalars": (my_copies, None),
            f"{rule}: copies of scalars, plain Optax": (their_copies, None),
        }
    report("compiled_update", {}, claims)
