"""What the tests share: the recorded runs of the originals, schedules of a formula."""

import csv
import json
from pathlib import Path

import jax
import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from jaxsched import Trace
from jaxsched._schedule import Schedule, formula_of

# Examples compile: on a busy machine that is slow, and no defect.
settings.register_profile(
    "parity", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("parity")

# Helpers of the tests hold no doctests, and some import torch.
collect_ignore = [
    path.name for path in Path(__file__).parent.glob("*.py") if not path.name.startswith("test_")
]

DATA = Path(__file__).parent / "data"


def numbers(low, high):
    """Hyperparameters: 0, or such that no product of them is below float32's smallest normal
    number, of which XLA makes 0 where torch does not."""
    return st.floats(low, high).filter(lambda value: value == 0 or value > 1e-30)


def recorded_article(name):
    """A recorded run of the article's script, from its csv and the sidecar."""
    rows = list(csv.DictReader((DATA / f"{name}.csv").open()))
    sidecar = json.loads((DATA / f"{name}.json").read_text())
    # The sidecar notes that group 1 ran at group 0's rate at every step.
    rates = {"norm": "lr_g0", "weight": "lr_g0", "bias": "lr_g2"}
    decays = dict(zip(("norm", "weight", "bias"), sidecar["weight_decay_per_group"], strict=True))
    column = {key: np.array([float(row[key]) for row in rows]) for key in rows[0]}
    return Trace(
        {
            label: {
                "learning_rate": column[rate],
                "momentum": column["momentum"],
                "weight_decay": np.full(len(rows), float(decays[label])),
            }
            for label, rate in rates.items()
        },
        start=int(column["ni"][0]),
    )


@pytest.fixture
def x64():
    """x64 on, for this test alone."""
    with jax.enable_x64(True):
        yield


def of_formula(f):
    """A schedule of a ``jnp`` formula of the float64 count, rounded once."""
    return Schedule(of_formula, {"f": f}, formula_of(f))
