"""Claim: 1,024 recipes swept with ``vmap`` compile once.

Rate, decay, warm-up and lrf all vary, in 20 updates of a small layer that each recipe trains by
itself. The sweep is compared with the same function, also compiled once, called for one recipe
after the other. A recipe whose numbers are constants, which must be compiled for each, is timed
for information.
"""

import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.timing import interleave, ratio, report
from jaxsched.recipes import yolov5_resnet18

RECIPES, UPDATES = 1024, 20


def train(lr0: Any, weight_decay: Any, warmup: Any, lrf: Any) -> Any:
    """Return the layer after its updates."""
    recipe = yolov5_resnet18(
        lr0=lr0, weight_decay=weight_decay, warmup_iterations=warmup, lrf=lrf, steps_per_epoch=2
    )
    params = {"kernel": jnp.ones((8, 8)), "bias": jnp.zeros(8)}
    tx = recipe.optimizer({"kernel": "weight", "bias": "bias"})

    def update(carry: Any, _: None) -> Any:
        params, state = carry
        gradients = jax.tree.map(lambda p: 0.1 * p + 0.01, params)
        updates, state = tx.update(gradients, state, params)
        return (optax.apply_updates(params, updates), state), None

    return jax.lax.scan(update, (params, tx.init(params)), None, length=UPDATES)[0][0]


def draw_settings() -> tuple[jax.Array, ...]:
    """Return rates, decays, warm-ups and final factors."""
    rng = np.random.default_rng(0)
    columns = (
        10 ** rng.uniform(-3, -1, RECIPES),
        10 ** rng.uniform(-5, -3, RECIPES),
        rng.integers(1, UPDATES, RECIPES),
        rng.uniform(0.01, 1, RECIPES),
    )
    return tuple(map(jnp.asarray, columns))


if __name__ == "__main__":
    settings = draw_settings()
    rows = [tuple(column[k] for column in settings) for k in range(RECIPES)]
    traces = []

    def count_traces(*row: Any) -> Any:
        traces.append(row)
        return train(*row)

    swept, single = jax.jit(jax.vmap(count_traces)), jax.jit(train)
    seconds = interleave(
        {
            "1,024 recipes, vmap": lambda: swept(*settings),
            "1,024 recipes, one at a time": lambda: [single(*row) for row in rows],
        },
        rounds=7,
    )
    anew = []
    for row in rows[:3]:
        values = [float(v) for v in row[:2]], int(row[2]), float(row[3])
        begin = time.perf_counter()
        jax.block_until_ready(jax.jit(lambda v=values: train(*v[0], *v[1:]))())
        anew.append(time.perf_counter() - begin)
    seconds["one recipe, compiled anew"] = anew
    together = ratio(seconds, "1,024 recipes, vmap", "1,024 recipes, one at a time")
    report(
        "sweep",
        seconds,
        {
            "compilations of the sweep": (len(traces), 1.0),
            "one recipe at a time / sweep": (1 / together, None),
        },
    )
