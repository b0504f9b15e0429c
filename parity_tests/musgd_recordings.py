"""Recordings of Ultralytics' MuSGD, and our distances from them.

``data/musgd_{version}.npz`` were made with the class of that release of ultralytics: 12 updates on
seeded gradients. They hold the gradients, rates, momenta, the parameters after each update and the
last buffers. For the ``_float32`` files the class's cast to bfloat16 was switched off. ``meta`` holds
arguments and versions.
"""

import functools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from bounds import FLOAT32_BOUND, MUON_BOUND, MUSGD_FLOAT32_BOUND

from jaxsched import Recipe, optimizers
from jaxsched.schedules import table

DATA = Path(__file__).parent / "data"
VERSIONS = ("8.4.190", "8.4.0")
RECORDINGS = [(version, dtype) for version in VERSIONS for dtype in ("bfloat16", "float32")]

_EXACT = dict.fromkeys(("others", "buffer"), FLOAT32_BOUND * 2**-23)
BOUNDS = {
    # λ times a parameter's distance goes into SGD's buffer.
    "bfloat16": {**_EXACT, "share": MUON_BOUND, "sgd share": MUON_BOUND},
    "float32": {**_EXACT, **dict.fromkeys(("parameters", "sgd buffer"), MUSGD_FLOAT32_BOUND)},
}
"""Bounds of ``distances``, by the dtype of the iteration."""


@functools.cache
def recording(version: str, dtype: str) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """Return the arrays of a recording, and its ``meta``."""
    suffix = {"bfloat16": "", "float32": "_float32"}[dtype]
    with np.load(DATA / f"musgd_{version}{suffix}.npz", allow_pickle=False) as archive:
        arrays = {name: archive[name] for name in archive.files}
    return arrays, json.loads(str(arrays.pop("meta")))


def leaves(arrays: dict[str, np.ndarray], prefix: str, layout: str) -> dict[str, np.ndarray]:
    """Return the arrays of a prefix, by leaf: in Flax's layout OIHW as HWIO, a matrix transposed."""

    def to_layout(array: np.ndarray) -> np.ndarray:
        last = (*range(2, array.ndim), 1, 0)
        return array.transpose(last) if layout == "flax" and array.ndim > 1 else array

    return {
        name.removeprefix(prefix): to_layout(array)
        for name, array in arrays.items()
        if name.startswith(prefix)
    }


def optimizer_of(
    version: str, dtype: str, layout: str = "flax", **changed: Any
) -> optax.GradientTransformation:
    """Return a recording's optimizer, with other arguments for its group with Muon."""
    arrays, meta = recording(version, dtype)
    shared = {"nesterov": meta["nesterov"], "layout": layout, "iteration_dtype": dtype}
    shared |= {"momentum": table(arrays["momenta"])}
    muon = {"use_muon": True, "muon": meta["muon"], "sgd": meta["sgd"]}
    muon |= {"weight_decay": meta["weight_decay"], **changed}
    rates = map(table, arrays["rates"].T)
    groups = {
        label: {"learning_rate": rate, **shared, **more}
        for label, rate, more in zip(("muon", "rest"), rates, (muon, {}), strict=True)
    }
    names = leaves(arrays, "p0/", layout)
    labels = {name: "muon" if name in meta["muon_parameters"] else "rest" for name in names}
    return Recipe(groups, optimizers.musgd).optimizer(labels)


def run_updates(
    tx: optax.GradientTransformation, version: str, dtype: str, layout: str, *, eagerly: bool
) -> Iterator[tuple[Any, Any]]:
    """Yield the parameters and the state after each update on the recording's gradients."""
    arrays, _ = recording(version, dtype)
    params: Any = jax.tree.map(jnp.asarray, leaves(arrays, "p0/", layout))
    state, step = tx.init(params), tx.update if eagerly else jax.jit(tx.update)
    for i in range(len(arrays["rates"])):
        updates, state = step(leaves(arrays, f"g/{i}/", layout), state, params)
        params = optax.apply_updates(params, updates)
        yield params, state


def max_difference(mine: Any, theirs: Any) -> float:
    """Return the largest difference of an entry."""
    return float(np.abs(np.asarray(mine, np.float64) - np.asarray(theirs)).max())


def distances(
    tx: optax.GradientTransformation,
    version: str,
    dtype: str,
    layout: str = "flax",
    *,
    eagerly: bool = False,
) -> dict[str, float]:
    """Return the distances of a run on a recording's gradients from the recording.

    ``others`` (parameters without Muon) and ``buffer`` (Muon's) are relative to the largest entry;
    ``parameters`` (those with Muon) and their ``sgd buffer`` are absolute; ``share`` and ``sgd share``
    are relative to the sum of Muon's rates up to the update.
    """
    arrays, meta = recording(version, dtype)
    path = np.cumsum(arrays["rates"][:, 0] * meta["muon"])
    rows: dict[str, list[float]] = {name: [] for name in ("others", "parameters", "share")}
    state: Any = None
    for i, (params, state) in enumerate(run_updates(tx, version, dtype, layout, eagerly=eagerly)):  # noqa: B007
        for name, p in leaves(arrays, f"p/{i}/", layout).items():
            distance = max_difference(params[name], p)
            if name in meta["muon_parameters"]:
                rows["parameters"].append(distance)
                rows["share"].append(distance / path[i])
            else:
                rows["others"].append(distance / np.abs(p).max())
    trees = state.inner.inner_states["muon"].inner_state.trees
    buffers = leaves(arrays, "buffer/", layout), leaves(arrays, "buffer_sgd/", layout)
    mine = trees["momentum_buffer"], trees["momentum_buffer_SGD"]
    rows["buffer"] = [
        max_difference(mine[0][k], b) / np.abs(b).max() for k, b in buffers[0].items()
    ]
    rows["sgd buffer"] = [max_difference(mine[1][k], b) for k, b in buffers[1].items()]
    rows["sgd share"] = [distance / path[-1] for distance in rows["sgd buffer"]]
    return {name: float(np.max(row)) for name, row in rows.items()}  # NaN stays


def find_failures(found: dict[str, float], dtype: str) -> dict[str, float]:
    """Return the distances that are above their bounds."""
    return {name: found[name] for name, most in BOUNDS[dtype].items() if not found[name] <= most}
