"""Claim: tracing and compiling the update takes no longer than plain Optax's, however many leaves.

SGD with Nesterov momentum and decay over small square leaves, each group with a rate of its own;
62, 1,000 and 10,000 leaves in 3, 30 and 300 groups. The rate is constant, follows a cosine by epoch,
or warms up; plain Optax warms up by ``jnp.where``, and in another row by ``jnp.interp`` as jaxsched
does. 10,000 leaves, whose compilation takes more than a minute on either side, are compiled only with
``--all``, at constant rates; the cosine is run only at 62 leaves. In the claims tracing includes
lowering; the seconds of tracing, lowering and compiling, and the share of XLA, are recorded separately.
The share of ``optax.multi_transform`` is measured by an update that only multiplies, in as many groups.
"""

import argparse
import functools
import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax

from benchmarks.timing import report
from jaxsched import Recipe, lr_scheduler, schedules
from jaxsched.schedules import constant

SIZES = [
    *((62, groups) for groups in (3, 30)),
    *((1000, groups) for groups in (3, 30, 300)),
    *((10_000, groups) for groups in (3, 30, 300)),
]
KINDS = ("constant", "cosine", "warm-up")
PARTS = ("trace", "lower", "compile")


def rates(groups: int) -> dict[str, float]:
    """Return labels and their rates."""
    return {f"g{k}": 0.1 + k / 1000 for k in range(groups)}


def ours(labels: Any, groups: int, kind: str) -> optax.GradientTransformation:
    """Return the optimizer of jaxsched."""
    momentum = 0.937 if kind != "warm-up" else schedules.warmup(constant(0.937), 1000, start=0.8)

    def schedule(rate: float) -> schedules.Schedule:
        if kind == "constant":
            return constant(rate)
        if kind == "cosine":
            return schedules.per_epoch(lr_scheduler.cosine_annealing_lr(rate, 100), 30)
        return schedules.warmup(constant(rate), 1000, start=0.0)

    return Recipe(
        {
            label: {
                "learning_rate": schedule(rate),
                "momentum": momentum,
                "nesterov": True,
                "weight_decay": 5e-4,
            }
            for label, rate in rates(groups).items()
        }
    ).optimizer(labels)


def plain_optax(
    labels: Any, groups: int, kind: str, interp: bool = False
) -> optax.GradientTransformation:
    """Return the same in plain Optax; a warm-up by ``jnp.where`` or, with ``interp``, ``jnp.interp``."""

    def rise(start: float, end: float) -> Any:
        if interp:
            return lambda i: jnp.interp(i, jnp.array([0.0, 1000.0]), jnp.array([start, end]))
        return lambda i: jnp.where(i <= 1000, start + (end - start) * i / 1000, end)

    def schedule(rate: float) -> Any:
        if kind == "constant":
            return optax.constant_schedule(rate)
        if kind == "cosine":
            return lambda i: 0.5 * rate * (1 + jnp.cos(jnp.pi * (i // 30) / 100))
        return rise(0.0, rate)

    def group(rate: float) -> optax.GradientTransformation:
        return optax.chain(
            optax.add_decayed_weights(5e-4),
            optax.inject_hyperparams(optax.sgd, static_args="nesterov")(
                learning_rate=schedule(rate),
                momentum=rise(0.8, 0.937) if kind == "warm-up" else 0.937,
                nesterov=True,
            ),
        )

    return optax.multi_transform(
        {label: group(rate) for label, rate in rates(groups).items()}, labels
    )


def multi_transform_alone(labels: Any, groups: int, kind: str) -> optax.GradientTransformation:
    """Return ``multi_transform`` around a multiplication."""
    del kind
    return optax.multi_transform({label: optax.scale(0.1) for label in rates(groups)}, labels)


def seconds_of(
    make: Callable[[Any, int, str], optax.GradientTransformation],
    leaves: int,
    groups: int,
    kind: str,
    compiles: bool,
) -> tuple[float, ...]:
    """Return the seconds to trace, to lower and, if ``compiles``, to compile a new step."""
    params = {f"leaf{k}": jnp.ones((4, 4)) for k in range(leaves)}
    tx = make({name: f"g{k % groups}" for k, name in enumerate(params)}, groups, kind)
    state = tx.init(params)

    def step(gradients: Any, params: Any, state: Any) -> Any:
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    times = [time.perf_counter()]
    traced = jax.jit(step).trace(params, params, state)
    times.append(time.perf_counter())
    lowered = traced.lower()
    times.append(time.perf_counter())
    if compiles:
        lowered.compile()
        times.append(time.perf_counter())
    return tuple(end - begin for begin, end in itertools.pairwise(times))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--all", action="store_true", help="compile 10,000 leaves too, a quarter of an hour"
    )
    parser.add_argument("--leaves", type=int, help="only so many leaves, in a file of its own")
    parser.add_argument("--groups", type=int, help="only so many groups")
    options = parser.parse_args()
    makes = {
        "jaxsched": ours,
        "plain Optax": plain_optax,
        "plain Optax with jnp.interp": functools.partial(plain_optax, interp=True),
        "multi_transform": multi_transform_alone,
    }
    seconds: dict[str, list[float]] = {}
    claims: dict[str, tuple[float, float | None]] = {}
    for make in makes.values():
        seconds_of(make, 4, 2, "warm-up", True)
    for (leaves, groups), kind in itertools.product(SIZES, KINDS):
        if options.leaves not in (None, leaves) or options.groups not in (None, groups):
            continue
        if kind == "cosine" and leaves > 62:
            continue
        size = f"{kind}, {leaves:,} leaves, {groups} groups"
        compiles = leaves <= 1000 or (options.all and kind == "constant")
        rounds = {62: 7, 1000: 3, 10_000: 1}[leaves]
        names = [n for n in makes if kind == "warm-up" or "interp" not in n]
        times_by_name: dict[str, list[tuple[float, ...]]] = {name: [] for name in names}
        for _ in range(rounds):
            for name in names:
                compiled = compiles and name != "multi_transform"
                times_by_name[name].append(seconds_of(makes[name], leaves, groups, kind, compiled))
        for name, times in times_by_name.items():
            for part, column in zip(PARTS, zip(*times, strict=True), strict=False):
                seconds[f"{part}, {size}, {name}"] = list(column)

        def median_of(name: str, first: int, last: int, found: Any = times_by_name) -> float:
            return statistics.median(sum(times[first:last]) for times in found[name])

        claims[f"trace / plain Optax, {size}"] = (
            median_of("jaxsched", 0, 2) / median_of("plain Optax", 0, 2),
            None,
        )
        if compiles:
            for other in names[1:-1]:
                aim = 1.0 if kind == "constant" else None
                ratio = median_of("jaxsched", 0, 3) / median_of(other, 0, 3)
                claims[f"trace and compile / {other}, {size}"] = ratio, aim
            share = median_of("jaxsched", 2, 3) / median_of("jaxsched", 0, 3)
            claims[f"XLA's share of trace and compile, {size}"] = share, None
        share = median_of("multi_transform", 0, 2) / median_of("jaxsched", 0, 2)
        claims[f"multi_transform alone / trace, {size}"] = share, None
    report("_".join(map(str, filter(None, ["trace_compile", options.leaves]))), seconds, claims)
