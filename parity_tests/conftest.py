"""Fixtures and helpers: recorded runs of the originals, and a check that no test changes the process."""

import contextlib
import csv
import json
import os
import signal
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from _pytest.doctest import DoctestModule
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from jaxsched import Trace
from jaxsched._schedule import Schedule, formula_of

# Examples compile, which may be slow on a busy machine.
for profile, examples in {"parity": 10, "long": 100}.items():
    settings.register_profile(
        profile,
        max_examples=examples,
        deadline=None,
        derandomize=True,
        suppress_health_check=[HealthCheck.too_slow],
    )

# Helpers of the tests hold no doctests, and some import torch.
collect_ignore = [
    path.name for path in Path(__file__).parent.glob("*.py") if not path.name.startswith("test_")
]

DATA = Path(__file__).parent / "data"

IMPORT_VARIABLES = ("PYTEST_", "CRC32C_", "KMP_", "TORCH", "TRITON_", "CUDA_")
"""Prefixes of variables that pytest sets for each test, and libraries when first imported."""


def long_after(number, values):
    """Return the values of a test's arguments, those after the first ``number`` behind ``--long``.

    Values of several arguments are tuples.
    """
    return [
        value
        if k < number
        else pytest.param(*(value if isinstance(value, tuple) else [value]), marks=pytest.mark.long)
        for k, value in enumerate(values)
    ]


def numbers(low, high):
    """Draw hyperparameters: 0, or such that no product of them is below float32's smallest normal
    number, which XLA flushes to 0 and torch does not."""
    return st.floats(low, high).filter(lambda value: value == 0 or value > 1e-30)


def recorded_article(name):
    """Return a recorded run of the article's script, from its csv and the sidecar."""
    rows = list(csv.DictReader((DATA / f"{name}.csv").open()))
    sidecar = json.loads((DATA / f"{name}.json").read_text())
    # The sidecar states that group 1 ran at group 0's rate at every step.
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


def pytest_addoption(parser):
    parser.addoption("--long", action="store_true", help="run the tests marked long too")


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config):
    """Run one process a core, where xdist is installed, unless ``-n`` or ``--pdb`` is given."""
    is_worker = hasattr(config, "workerinput")
    if getattr(config.option, "numprocesses", 0) is None and not is_worker:
        config.option.numprocesses = "auto"  # which is 0 with --pdb
        if config.option.dist == "no":  # a file's tests share what its fixtures and caches hold
            config.option.dist = "loadfile"


def pytest_configure(config):
    """Set Hypothesis and JAX up.

    Compiled programs are kept for the next run, in one folder for each worker, since JAX locks no file.
    """
    settings.load_profile("long" if config.option.long else "parity")
    if hasattr(config, "cache"):
        folder = config.cache.mkdir(f"xla-{os.environ.get('PYTEST_XDIST_WORKER', 'main')}")
        jax.config.update("jax_compilation_cache_dir", str(folder))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
        jax.config.update("jax_persistent_cache_min_entry_size_bytes", 0)


def pytest_collection_modifyitems(config, items):
    if not config.option.long:
        for item in items:
            if item.get_closest_marker("long"):
                item.add_marker(pytest.mark.skip(reason="takes long: pytest --long runs it"))


@pytest.hookimpl(wrapper=True)
def pytest_collect_file():
    """Collect no doctests here: tests hold none.

    A file that cannot be imported would be skipped, and half of it taken for the test module.
    """
    collectors = yield
    return [collector for collector in collectors if not isinstance(collector, DoctestModule)]


@pytest.fixture
def x64():
    """Enable x64 for this test only."""
    with jax.enable_x64(True):
        yield


def formula_schedule(f):
    """Return the schedule of a ``jnp`` formula of the float64 count, rounded once."""
    return Schedule(formula_schedule, {"f": f}, formula_of(f))


def process_state():
    """Return the settings of the process that a test could leave changed, by name.

    Filters of warnings are not among them: pytest restores those after each test.
    """
    state = {
        "jax_enable_x64": jax.config.jax_enable_x64,
        "working directory": os.getcwd(),
        # Packages such as setuptools add folders of their own when they are imported.
        "sys.path": [path for path in sys.path if "site-packages" not in path],
        "SIGINT handler": signal.getsignal(signal.SIGINT),
    }
    if torch := sys.modules.get("torch"):
        state["torch default dtype"] = torch.get_default_dtype()
        state["torch threads"] = torch.get_num_threads()
    variables = os.environ.items()
    return state | {f"${k}": v for k, v in variables if not k.startswith(IMPORT_VARIABLES)}


@contextlib.contextmanager
def assert_process_unchanged():
    """Raise AssertionError if the block leaves ``process_state`` changed."""
    before = process_state()
    yield
    after = process_state()
    # A test may be the first to import torch.
    names = before.keys() | {name for name in after if not name.startswith("torch ")}
    changes = [
        f"{name} from {before.get(name)!r} to {after.get(name)!r}"
        for name in sorted(names)
        if before.get(name) != after.get(name)
    ]
    assert not changes, f"the test changes {', '.join(changes)}"


@pytest.fixture(autouse=True)
def isolation():
    """Seed torch, and fail a test that leaves the process changed.

    It is the first fixture of each test, so that the others have restored their changes before it ends.
    """
    if torch := sys.modules.get("torch"):
        torch.manual_seed(0)
    with assert_process_unchanged():
        yield
