"""PyTorch training recipes in Optax, equal at every step, and proved.

Recipes and schedules count iterations, one a batch; 0 is the first.
"""

import importlib
from typing import Any

from jaxsched import lr_scheduler, optimizers, param_groups, parity, recipes, schedules, testing
from jaxsched.optimizers import hyperparameters
from jaxsched.parity import compare
from jaxsched.recipe import Recipe
from jaxsched.trace import Trace

__version__ = "0.1.0"

__all__ = [
    "Recipe",
    "Trace",
    "compare",
    "hyperparameters",
    "lr_scheduler",
    "optimizers",
    "param_groups",
    "parity",
    "recipes",
    "schedules",
    "testing",
]

_ON_DEMAND = ("flax", "plot", "torch")
"""Modules of their own that need a package which ``import jaxsched`` does not import."""


def __getattr__(name: str) -> Any:
    """``jaxsched.torch`` and the like, imported when they are first asked for."""
    if name not in _ON_DEMAND:
        raise AttributeError(f"module 'jaxsched' has no attribute {name!r}")
    return importlib.import_module(f"jaxsched.{name}")
