"""Reproduce PyTorch training recipes in JAX: schedules, parameter groups and update rules.

Recipes and schedules count iterations, one a batch; 0 is the first. Each name is imported on first
use: ``jaxsched.flax``, ``jaxsched.plot`` and ``jaxsched.torch`` need packages that the others do not
need, and the command can be interrupted while JAX is imported.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jaxsched import flax as flax
    from jaxsched import lr_scheduler, optimizers, param_groups, parity, recipes, schedules, testing
    from jaxsched import plot as plot
    from jaxsched import torch as torch
    from jaxsched._recipe import Recipe
    from jaxsched._trace import Trace
    from jaxsched.optimizers import hyperparameters
    from jaxsched.parity import compare

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

_HOMES = {
    "Recipe": "_recipe",
    "Trace": "_trace",
    "compare": "parity",
    "hyperparameters": "optimizers",
}

if not TYPE_CHECKING:  # a type checker then knows which names there are

    def __getattr__(name: str) -> Any:
        """Import a name on first use."""
        if name not in (*__all__, *_ON_DEMAND):
            raise AttributeError(f"module 'jaxsched' has no attribute {name!r}")
        module = importlib.import_module(f"jaxsched.{_HOMES.get(name, name)}")
        globals()[name] = getattr(module, name) if name in _HOMES else module
        return globals()[name]

    def __dir__() -> list[str]:
        return sorted([*__all__, *_ON_DEMAND, "__version__"])
