"""Claim: the compiled update has fewer kernels than plain Optax's, and SGD's stores no model's copy.

What XLA says of the same updates as in ``sgd_update`` and ``adam_update``: bytes of temporaries,
in units of the model, and fusions, each of which is a kernel.
"""

import re

import jax
import numpy as np

from benchmarks import updates
from benchmarks.timing import report


def figures(step: jax.stages.Compiled) -> tuple[int, int]:
    """Bytes of temporaries, and fusions in the entry computation."""
    temporaries = step.memory_analysis().temp_size_in_bytes
    entry = step.as_text().split("\nENTRY", 1)[1]
    return temporaries, len(re.findall(r" fusion\(", entry))


if __name__ == "__main__":
    model = sum(leaf.nbytes for leaf in jax.tree.leaves(updates.leaves(0)))
    largest = max(np.prod(leaf.shape) * 4 for leaf in jax.tree.leaves(updates.leaves(0)))
    claims: dict[str, tuple[float, float | None]] = {}
    for rule in updates.RULES:
        mine, my_fusions = figures(updates.compiled(updates.ours(rule))[0])
        optaxs, their_fusions = figures(updates.compiled(updates.plain_optax(rule))[0])
        claims |= {
            f"{rule}: temporaries / model": (mine / model, float(largest / model) / 100),
            f"{rule}: temporaries / model, plain Optax": (optaxs / model, None),
            f"{rule}: fusions / plain Optax": (my_fusions / their_fusions, 1.0),
            f"{rule}: fusions": (my_fusions, None),
        }
    report("compiled_update", {}, claims)
