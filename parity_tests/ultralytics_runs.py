"""Runs of Ultralytics' own trainer, recorded in ``data/ultralytics_runs.npz``, and their recipes."""

import functools
import json

import numpy as np
from conftest import DATA

from jaxsched import optimizers
from jaxsched.recipes import _ultralytics as policy
from jaxsched.recipes import ultralytics

FILE = np.load(DATA / "ultralytics_runs.npz", allow_pickle=False)
RUNS = dict(
    sorted(json.loads(str(FILE["index"])).items(), key=lambda x: tuple(map(int, x[0].split("."))))
)
VALUES, OFFSETS = FILE["values"], FILE["offsets"]
MAX_ROWS = max(run["rows"] for runs in RUNS.values() for run in runs.values())

BASE = {"epochs": 18, "steps_per_epoch": 7, "batch_size": 16}
TINY = {**BASE, "epochs": 1, "steps_per_epoch": 3}
SHORT, LONG = 10_000 * 64, 10_001 * 64
ARGUMENTS = {
    "sgd": BASE,
    "ramp": {"epochs": 5, "steps_per_epoch": 12, "batch_size": 2, "args": {"warmup_epochs": 2.0}},
    "cos": {**TINY, "epochs": 4, "cos_lr": True, "args": {"warmup_epochs": 0.0}},
    "auto_short": {**TINY, "optimizer": "auto", "images": SHORT, "classes": 3},
    "auto_long": {
        **{**TINY, "optimizer": "auto", "images": LONG, "classes": 3},
        "args": {"warmup_epochs": 0.0},
    },
    "adam": {**TINY, "optimizer": "Adam"},
    "adamw": {**TINY, "optimizer": "AdamW"},
    "adamax": {**TINY, "optimizer": "Adamax"},
    "nadam": {**TINY, "optimizer": "NAdam"},
    "radam": {**TINY, "optimizer": "RAdam"},
    "RMSProp": {**TINY, "steps_per_epoch": 6, "optimizer": "RMSProp"},
    "RMSprop": {**TINY, "optimizer": "RMSprop"},
    "lower": {**TINY, "optimizer": "adamw"},
    "short": {"epochs": 2, "steps_per_epoch": 5, "batch_size": 1},
    "big": {"epochs": 2, "steps_per_epoch": 6, "batch_size": 100},
    "resume": {**BASE, "start_epoch": 16, "resumed": True},
    "musgd": {**BASE, "epochs": 3, "steps_per_epoch": 5, "optimizer": "MuSGD", "images": 100},
    "musgd_long": {
        **{**TINY, "batch_size": 2, "optimizer": "MuSGD", "images": LONG},
        "args": {"warmup_epochs": 0.0},
    },
}
RULES = {
    **{"SGD": "sgd", "MuSGD": "musgd", "Adam": "adam", "AdamW": "adamw", "Adamax": "adamax"},
    **{"NAdam": "nadam", "RAdam": "radam", "RMSprop": "rmsprop"},
}


def column(entry, rows):
    """Return a recorded quantity: a number, or the column of an index."""
    if isinstance(entry, list):
        return VALUES[OFFSETS[entry[0]] : OFFSETS[entry[0] + 1]]
    return np.full(rows, entry)


@functools.cache
def evaluate(schedule, start, rows):
    """Return the values of a schedule, or of a number; cached, since many recipes share a schedule."""
    if not callable(schedule):
        return np.full(rows, schedule, np.float32)
    # Always the same length, so that each schedule is compiled once.
    return np.asarray(schedule(start + np.arange(MAX_ROWS)))[:rows]


def differences(run, recipe):
    """Return the names of the quantities in which the recipe differs from the recorded run."""
    rows, names = run["rows"], []
    groups = recipe.complete_groups()
    if set(groups) != set(run["groups"]):
        return ["groups"]
    # Without Muon, MuSGD is SGD: 8.4.0 to 8.4.104 use it for RMSProp.
    rule = RULES[run["optimizer"] if len(groups) != 3 else run["optimizer"].replace("MuS", "S")]
    if recipe.update_rule is not getattr(optimizers, rule):
        names.append("update_rule")
    for label, group in run["groups"].items():
        # The optimizer holds the ratios; only groups with use_muon use them.
        ratios = ("muon", "sgd") if group.get("use_muon") else ()
        for name, entry in {**group, **{k: run[k] for k in ratios}}.items():
            mine = groups[label].get(name)
            if isinstance(entry, bool):
                equal = mine in (entry, None)  # sgd has no use_muon
            else:
                expected = column(entry, rows).astype(np.float32)
                equal = np.array_equal(evaluate(mine, recipe.start, rows), expected)
            if not equal:
                names.append(f"{label} {name}")
    if run["clip"] and [recipe.clip_norm] != run["clip"]:  # empty where no update was made
        names.append("clip_norm")
    mine = recipe.bookkeeping(rows)
    for name, entry in run["run"].items():
        tolerance = 1e-15 if name == "ema_decay" else 0.0  # math.exp against numpy's
        if np.abs(mine[name] - column(entry, rows)).max() > tolerance:
            names.append(name)
    return names


@functools.cache
def _recipe_of(fields, name, version):
    return ultralytics(**ARGUMENTS[name], version=version)


def recipe_of(version, name):
    """Return the recipe of a release; releases of one range share it, to save time."""
    fields = policy._version(version)
    first = next(other for other in RUNS if policy._version(other) == fields)
    return _recipe_of(fields, name, first)
