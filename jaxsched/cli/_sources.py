"""The two sides of ``jaxsched verify``: a trace's or a recipe's file, or ``file.py:name``."""

import difflib
import importlib.util
import inspect
import sys
import warnings
import zlib
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import jaxsched
from jaxsched import optimizers
from jaxsched._recipe import Recipe
from jaxsched._recipe._file import SUFFIXES
from jaxsched._schedule import require_traceable
from jaxsched._trace import Trace
from jaxsched.optimizers._scheduled import ScheduledState

# Parameters for a transformation that comes without any: a leaf of each usual label.
PARAMS = {"kernel": (2, 2), "bias": (2,), "scale": (2,)}


def load(text: str, steps_per_epoch: int | None, iterations: int | None) -> Any:
    """Return the recipe or trace that ``text`` names, or a transformation, for ``evaluate``.

    ``file.py:name`` may name a ``Recipe``, a ``Trace``, a function without arguments that returns
    one, an Optax transformation (or a pair of it and its parameters, or an object with it as
    ``tx``), or torch's optimizer and scheduler, or a list of optimizers and a list of schedulers.
    """
    path, colon, name = text.rpartition(":")
    if not colon or not path.endswith(".py"):
        if text.endswith(".py"):
            raise ValueError(f"{text} must be followed by a name, as in {text}:recipe.")
        if not Path(text).is_file():
            raise ValueError(
                f"{text} must be a trace's or a recipe's file or file.py:name, got no such file."
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the report says whether a recording was closed
            return Recipe.load(text) if Path(text).suffix in SUFFIXES else Trace.load(text)
    if not Path(path).is_file():
        raise ValueError(f"{path} must be a Python file, got no such file.")
    value = _value(path, name)
    if isinstance(value, Recipe | Trace) or _is_transformation(value):
        return value
    if _is_transformation(inner := getattr(value, "tx", None)):
        # An nnx.Optimizer, without parameters, or a TrainState, with them.
        params = getattr(value, "params", None)
        return inner if params is None else (inner, params)
    parts: list[Any] = list(value) if isinstance(value, tuple | list) else [value]
    if len(parts) == 2 and _is_transformation(parts[0]):
        return tuple(parts)
    torch: Any = sys.modules.get("torch")  # a file with torch objects has imported it

    def is_torch(entry: Any) -> bool:
        entries = entry if isinstance(entry, tuple | list) and entry else [entry]
        return bool(torch) and all(isinstance(x, torch.optim.Optimizer) for x in entries)

    if is_torch(value) and parts[1:]:  # several without schedulers
        parts = [parts]
    if len(parts) not in (1, 2) or not is_torch(parts[0]):
        raise ValueError(
            f"{text} must be a Recipe, a Trace, an Optax transformation, or torch's (optimizer, "
            f"scheduler), got {type(value).__name__}."
        )
    from jaxsched.torch import from_torch

    if len(parts) == 2 and parts[1] is not None and steps_per_epoch is None:
        raise ValueError(
            f"steps_per_epoch must be given with the scheduler of {text}, got none. "
            "Pass the batches between two of its steps."
        )
    return from_torch(*parts, steps_per_epoch=steps_per_epoch, iterations=iterations)


def _value(path: str, name: str) -> Any:
    """Return a name's value in the user's file; raise any error of the file as one sentence."""
    folder = Path(path).parent.absolute()
    before = set(sys.modules)
    sys.path.insert(0, str(folder))
    try:
        return _run(path, name)
    except (Exception, SystemExit) as error:
        if isinstance(error, ValueError) and str(error).startswith(f"{path} must "):
            raise
        sentence = " ".join(str(error).split())
        raise ValueError(f"{path} must run, got {type(error).__name__}: {sentence}") from error
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))
        # Both files may import a module of the same name beside them; keep installed packages.
        for name in set(sys.modules) - before:
            file = Path(getattr(sys.modules[name], "__file__", None) or "/").absolute()
            if folder in file.parents and "site-packages" not in file.parts:
                del sys.modules[name]


def _run(path: str, name: str) -> Any:
    """Return a name's value in a file, or the result of calling it if it is a function."""
    # A unique module name, so that two files of the same name can be compared.
    module = f"jaxsched_user_{zlib.crc32(str(Path(path).absolute()).encode()):08x}"
    spec: Any = importlib.util.spec_from_file_location(module, path)
    sys.modules[module] = loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    if not hasattr(loaded, name):
        names = [each for each in vars(loaded) if not each.startswith("_")]
        close = difflib.get_close_matches(name, names, 1) or names[-3:]
        raise ValueError(
            f"{path} must define {name or 'a name'}, got none. It has {', '.join(close)}."
        )
    value = getattr(loaded, name)
    if _is_transformation(value) or not callable(value) or isinstance(value, type):
        return value
    needed = [
        p.name
        for p in inspect.signature(value).parameters.values()
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if needed:
        raise ValueError(
            f"{path} must have a {name}() without arguments, got one that needs "
            f"{', '.join(needed)}."
        )
    return value()


def _is_transformation(value: Any) -> bool:
    return callable(getattr(value, "init", None)) and callable(getattr(value, "update", None))


def evaluate(text: str, value: Any, end: int, at_least: int) -> Recipe | Trace:
    """Return a recipe or trace unchanged, and a transformation as the trace of its state."""
    if isinstance(value, Recipe | Trace):
        return value
    tx, params = value if not _is_transformation(value) else (value, None)
    if params is None:
        params = {name: jnp.ones(shape) for name, shape in PARAMS.items()}
    still = jax.tree.map(jnp.zeros_like, params)
    try:
        state = tx.init(params)
    except Exception as error:
        raise ValueError(
            f"{text} must take parameters {', '.join(PARAMS)}, got {type(error).__name__}: {error} "
            "Name a pair of it and its own parameters."
        ) from error
    try:
        jaxsched.hyperparameters(state)
    except ValueError as error:
        raise ValueError(
            f"{text} must hold its hyperparameters in its state, as ours and "
            "optax.inject_hyperparams do, got one that does not. Compare its updates with "
            "jaxsched.torch.assert_optimizer_matches."
        ) from error

    def step(state: Any, _: Any) -> tuple[Any, Any]:
        _, state = tx.update(still, state, params)
        return state, (jaxsched.hyperparameters(state), optimizers.stepped(state))

    ours = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, ScheduledState))
    start = next((int(s.iteration) for s in ours if isinstance(s, ScheduledState)), 0)
    scan = jax.jit(lambda state: jax.lax.scan(step, state, length=max(end - start, at_least)))
    with require_traceable(f"each schedule of {text}"):
        rows, stepped = jax.tree.map(np.asarray, scan(state)[1])
    return Trace(rows, {} if stepped.all() else {"stepped": stepped}, start)
