"""Reproduce PyTorch training recipes in JAX: schedules, parameter groups and update rules.

Recipes and schedules count iterations, one a batch; 0 is the first. ``jaxsched.flax``,
``jaxsched.plot`` and ``jaxsched.torch`` are imported when they are first asked for, since each needs
a package that ``import jaxsched`` does not import.
"""

import importlib
from typing import TYPE_CHECKING, Any

from jaxsched import lr_scheduler, optimizers, param_groups, parity, recipes, schedules, testing
from jaxsched._recipe import Recipe
from jaxsched._trace import Trace
from jaxsched.optimizers import hyperparameters
from jaxsched.parity import compare

if TYPE_CHECKING:
    from jaxsched import flax as flax
    from jaxsched import plot as plot
    from jaxsched import torch as torch

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
"""Not in ``__all__``: ``from jaxsched import *`` would hide a script's own torch."""

if not TYPE_CHECKING:  # a type checker then knows which names there are

    def __getattr__(name: str) -> Any:
        """Import ``jaxsched.torch`` and the like."""
        if name not in _ON_DEMAND:
            raise AttributeError(f"module 'jaxsched' has no attribute {name!r}")
        return importlib.import_module(f"jaxsched.{name}")

    def __dir__() -> list[str]:
        return sorted([*__all__, *_ON_DEMAND, "__version__"])
