"""Random settings and metrics of ReduceLROnPlateau, and the runs of both sides.

A step passes one metric.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from torch.optim import lr_scheduler as reference

from jaxsched import lr_scheduler

Arguments = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class PlateauSetting:
    """A setting of ReduceLROnPlateau: rates of two groups, arguments, and metrics."""

    base_lrs: tuple[float, float]
    arguments: Arguments
    metrics: np.ndarray


def sample_plateau(rng: np.random.Generator, n: int = 120) -> PlateauSetting:
    """Draw a series of float32 metrics, with NaN, infinity and improvements of exactly the threshold."""
    mode, threshold_mode = (str(rng.choice(pair)) for pair in (["min", "max"], ["rel", "abs"]))
    threshold = float(rng.choice([1e-4, 0.125, 0.0, 0.5]))
    arguments = {
        "mode": mode,
        "factor": float(rng.choice([0.1, 0.5, rng.uniform(0.05, 0.99), 0.0])),
        "patience": int(rng.integers(0, 6)),
        "threshold": threshold,
        "threshold_mode": threshold_mode,
        "cooldown": int(rng.integers(0, 4)),
        "min_lr": [float(rng.choice([0.0, 10 ** rng.uniform(-6, -1)])) for _ in range(2)],
        "eps": float(rng.choice([1e-8, 1e-8, 0.0, 1e-3])),
    }
    sign = 1.0 if mode == "min" else -1.0
    best = 64.0 * (1 if threshold_mode == "abs" else sign)
    metrics = [best]
    for kind in rng.choice(["noise", "exact", "same", "nan", "inf", "-inf"], n - 1,
                           p=[0.5, 0.2, 0.2, 0.06, 0.03, 0.01]):  # fmt: skip
        step = threshold if threshold_mode == "abs" else abs(best) * threshold
        metrics.append(
            {
                "noise": best + abs(best) * rng.normal(0, 0.02),
                "exact": best - sign * step,
                "same": best,
                "nan": np.nan,
                "inf": np.inf,
                "-inf": -np.inf,
            }[str(kind)]
        )
        latest = float(np.float32(metrics[-1]))
        if math.isfinite(latest) and latest * sign < best * sign:
            best = latest
    base_lrs = tuple(10 ** rng.uniform(-5, 1, 2))
    return PlateauSetting(base_lrs, arguments, np.asarray(metrics, np.float32))


def optax_plateau(setting: PlateauSetting) -> optax.GradientTransformationExtraArgs:
    """Return the closest transformation of plain Optax, which has neither ``"max"`` nor ``eps``.

    Its state counts the metrics that it gets, and its ``scale`` is a share of the rate.
    """
    arguments = setting.arguments
    relative = arguments["threshold_mode"] == "rel"
    return optax.contrib.reduce_on_plateau(
        factor=arguments["factor"],
        patience=arguments["patience"],
        rtol=arguments["threshold"] if relative else 0.0,
        atol=0.0 if relative else arguments["threshold"],
        cooldown=arguments["cooldown"],
        min_scale=arguments["min_lr"][0] / setting.base_lrs[0],
    )


def run_torch_plateau(setting: PlateauSetting) -> np.ndarray:
    """Return the groups' rates after each metric, float64, shape (n, 2)."""
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in setting.base_lrs]
    optimizer = torch.optim.SGD(groups)
    scheduler = reference.ReduceLROnPlateau(optimizer, **setting.arguments)
    rates = []
    for metric in setting.metrics:
        scheduler.step(metric)
        rates.append([group["lr"] for group in optimizer.param_groups])
    return np.asarray(rates)


def run_plateau(settings: Sequence[PlateauSetting]) -> list[np.ndarray]:
    """Run ours in float64 by a scan; settings of the same mode share a compilation."""
    results: list[Any] = [None] * len(settings)
    modes = ("mode", "threshold_mode")

    def static(index: int) -> tuple[str, ...]:
        return tuple(settings[index].arguments[name] for name in modes)

    with jax.enable_x64(True):
        for names, group in itertools.groupby(sorted(range(len(settings)), key=static), static):
            members = list(group)
            arrays = {
                name: jnp.asarray([settings[i].arguments[name] for i in members])
                for name in settings[0].arguments
                if name not in modes
            }
            arrays["base_lr"] = jnp.asarray([settings[i].base_lrs for i in members])
            metrics = jnp.asarray(np.stack([settings[i].metrics for i in members]), jnp.float64)
            fixed = dict(zip(modes, names, strict=True))

            def run(
                numbers: Arguments, metrics: jax.Array, fixed: dict[str, str] = fixed
            ) -> jax.Array:
                return scan_plateau(lr_scheduler.reduce_lr_on_plateau(**fixed, **numbers), metrics)

            for i, rates in zip(members, jax.jit(jax.vmap(run))(arrays, metrics), strict=True):
                results[i] = np.asarray(rates)
    return results


def scan_plateau(plateau: lr_scheduler.Plateau, metrics: jax.Array) -> jax.Array:
    """Return the rates after each metric, in one scan."""

    def step(state: Any, metric: jax.Array) -> tuple[Any, jax.Array]:
        state = plateau.step(state, metric)
        return state, state.learning_rate

    return jax.lax.scan(step, plateau.init(), metrics)[1]
