"""Claim: over 20,000 updates memory does not grow and nothing is compiled again.

YOLOv5's recipe with accumulation, clip and average on three small leaves, as a jitted
step that is called from Python and read after each call. After every tenth of the run the live
arrays, the process's memory and the compilations are noted. ``python -m benchmarks.soak [UPDATES]``.
"""

import gc
import sys
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import optax

import jaxsched
from benchmarks.timing import environment, write
from jaxsched import optimizers, param_groups, recipes

MOST_MIB = 16
"""Allowed growth of resident memory after the first tenth; a leaked leaf per update would be 20 MiB."""


def resident() -> float:
    """Return the MiB of memory that the process holds, on systems with ``/proc``."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except OSError:
        return 0.0
    return pages * 4096 / 2**20


def soak(iterations: int) -> list[dict[str, float]]:
    """Run so many iterations; return the notes of each tenth."""
    recipe = recipes.yolov5(epochs=100, steps_per_epoch=max(iterations // 100, 1), batch_size=16)
    tx = recipe.optimizer(param_groups.by_leaf_name)
    params = {"kernel": jnp.ones((16, 16)), "bias": jnp.zeros(16), "scale": jnp.ones(16)}

    traced = []

    @jax.jit
    def step(params, state, average):
        traced.append(params)
        gradients = jax.tree.map(lambda p: 0.1 * p, params)
        updates, state = tx.update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        return params, state, recipe.ema.update(average, params, optimizers.stepped(state))

    carry, notes = (params, tx.init(params), recipe.ema.init(params)), []
    for k in range(1, iterations + 1):
        carry = step(*carry)
        rates = jax.device_get(jaxsched.hyperparameters(carry[1]))
        if k % (iterations // 10) == 0:
            gc.collect()
            notes.append(
                {
                    "iteration": k,
                    "live arrays": len(jax.live_arrays()),
                    "resident MiB": round(resident(), 2),
                    "compilations": len(traced),
                    "rate": float(rates["weight"]["learning_rate"]),
                }
            )
    return notes


def is_confirmed(notes: list[dict[str, float]]) -> bool:
    """Return true if the notes confirm the claim."""
    arrays, compilations = ({note[k] for note in notes} for k in ("live arrays", "compilations"))
    grown = max(note["resident MiB"] for note in notes) - notes[0]["resident MiB"]
    return len(arrays) == 1 and compilations == {1} and grown <= MOST_MIB


def main(iterations: str = "20000") -> int:
    begin = time.monotonic()
    notes = soak(int(iterations))
    seconds = round(time.monotonic() - begin, 1)
    if int(iterations) >= 20_000:
        write("soak", {**environment(), "seconds": seconds, "notes": notes})
    for note in notes:
        print(note)
    print("holds" if is_confirmed(notes) else "FAILS")
    return not is_confirmed(notes)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
