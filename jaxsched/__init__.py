"""PyTorch training recipes in Optax, equal at every step, and proved.

Recipes and schedules count iterations, one a batch; 0 is the first.
"""

from jaxsched import lr_scheduler, optimizers, param_groups, parity, recipes, schedules
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
]
