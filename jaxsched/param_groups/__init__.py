"""Labels of parameters: the name of each parameter's group.

Recipes here use ``"weight"``, ``"bias"`` and ``"norm"``, and ``"frozen"`` for parameters that are not
trained. ``recipe.optimizer`` and ``optax.multi_transform`` take a tree of labels, or a function of
``params`` that returns one.
"""

from jaxsched.param_groups._labels import (
    FROZEN,
    LabelFunction,
    Labels,
    LabelTree,
    by_pattern,
    by_rule,
    fit,
    freeze,
)
from jaxsched.param_groups._layers import LayerLabels, by_layer
from jaxsched.param_groups._muon import by_muon
from jaxsched.param_groups._paths import Path, leaf_path, leaf_paths, torch_name, torch_names
from jaxsched.param_groups._rules import by_decay, by_dimension, by_dotted_name, by_leaf_name

__all__ = [
    "FROZEN",
    "LabelFunction",
    "LabelTree",
    "Labels",
    "LayerLabels",
    "Path",
    "by_decay",
    "by_dimension",
    "by_dotted_name",
    "by_layer",
    "by_leaf_name",
    "by_muon",
    "by_pattern",
    "by_rule",
    "fit",
    "freeze",
    "leaf_path",
    "leaf_paths",
    "torch_name",
    "torch_names",
]
