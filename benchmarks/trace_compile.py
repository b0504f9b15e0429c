"""Claim: tracing and compiling the update takes no longer than plain Optax's, however many leaves.

SGD with Nesterov momentum and decay over small square leaves, each group with a rate of its own;
62, 1,000 and 10,000 leaves in 3, 30 and 300 groups. Compiling 10,000 leaves takes minutes, on
either side, and is left to ``--all``; tracing includes lowering. What ``optax.multi_transform``
takes of it is told by an update that only multiplies, in as many groups.
"""

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.timing import report
from jaxsched import Recipe, schedules

SIZES = [
    *((62, groups) for groups in (3, 30)),
    *((1000, groups) for groups in (3, 30, 300)),
    *((10_000, groups) for groups in (3, 30, 300)),
]


def rates(groups: int) -> dict[str, float]:
    """Labels and their rates."""
    return {f"g{k}": 0.1 + k / 1000 for k in range(groups)}


def ours(labels: Any, groups: int) -> optax.GradientTransformation:
    """The recipe of jaxsched."""
    momentum = schedules.warmup(schedules.constant(0.937), 1000, start=0.8)
    return Recipe(
        {
            label: {
                "learning_rate": schedules.warmup(schedules.constant(rate), 1000, start=0.0),
                "momentum": momentum,
                "nesterov": True,
                "weight_decay": 5e-4,
            }
            for label, rate in rates(groups).items()
        }
    ).optimizer(labels)


def plain_optax(labels: Any, groups: int) -> optax.GradientTransformation:
    """The same in plain Optax."""

    def group(rate: float) -> optax.GradientTransformation:
        return optax.chain(
            optax.add_decayed_weights(5e-4),
            optax.inject_hyperparams(optax.sgd, static_args="nesterov")(
                learning_rate=lambda i: jnp.where(i <= 1000, rate * i / 1000, rate),
                momentum=lambda i: jnp.where(i <= 1000, 0.8 + 0.137 * i / 1000, 0.937),
                nesterov=True,
            ),
        )

    return optax.multi_transform(
        {label: group(rate) for label, rate in rates(groups).items()}, labels
    )


def nothing(labels: Any, groups: int) -> optax.GradientTransformation:
    """``multi_transform`` alone."""
    return optax.multi_transform({label: optax.scale(0.1) for label in rates(groups)}, labels)


def seconds_of(
    make: Callable[[Any, int], optax.GradientTransformation],
    leaves: int,
    groups: int,
    compiles: bool,
) -> tuple[float, float]:
    """Seconds to trace and lower, and to compile, a step never seen before."""
    params = {f"leaf{k}": jnp.ones((4, 4)) for k in range(leaves)}
    tx = make({name: f"g{k % groups}" for k, name in enumerate(params)}, groups)
    state = tx.init(params)

    def step(gradients: Any, params: Any, state: Any) -> Any:
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    begin = time.perf_counter()
    lowered = jax.jit(step).lower(params, params, state)
    traced = time.perf_counter()
    if compiles:
        lowered.compile()
    return traced - begin, time.perf_counter() - traced


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--all", action="store_true", help="compile 10,000 leaves too")
    every = parser.parse_args().all
    makes = {"jaxsched": ours, "plain Optax": plain_optax, "multi_transform": nothing}
    seconds: dict[str, list[float]] = {}
    claims: dict[str, tuple[float, float | None]] = {}
    for make in makes.values():
        seconds_of(make, 4, 2, True)
    for leaves, groups in SIZES:
        size = f"{leaves:,} leaves, {groups} groups"
        compiles = every or leaves <= 1000
        rounds = {62: 5, 1000: 3, 10_000: 1}[leaves]
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in makes}
        for _ in range(rounds):
            for name, make in makes.items():
                found[name].append(
                    seconds_of(make, leaves, groups, compiles and name != "multi_transform")
                )
        for name, times in found.items():
            seconds[f"trace, {size}, {name}"] = [trace for trace, _ in times]
            if compiles and name != "multi_transform":
                seconds[f"compile, {size}, {name}"] = [compiled for _, compiled in times]

        def of(name: str, part: Callable[[tuple[float, float]], float], found: Any = found) -> Any:
            return statistics.median(map(part, found[name]))

        trace, both = (lambda pair: pair[0]), sum
        claims[f"trace / plain Optax, {size}"] = (
            of("jaxsched", trace) / of("plain Optax", trace),
            1.0,
        )
        if compiles:
            whole = of("jaxsched", both) / of("plain Optax", both)
            claims[f"trace and compile / plain Optax, {size}"] = whole, 1.0
        share = of("multi_transform", trace) / of("jaxsched", trace)
        claims[f"multi_transform alone / trace, {size}"] = share, None
    report("trace_compile", seconds, claims)
