"""Paths of leaves, and torch's names for them."""

import re
from typing import Any

import jax

Path = tuple[str, ...]
"""The names along the way to a leaf, outermost first: ``("head", "kernel")``."""


def leaf_path(keys: tuple[Any, ...]) -> Path:
    """Return the names along a key path of ``jax.tree_util``, outermost first.

    >>> tree = {"head": {"kernel": 0.0}}
    >>> jax.tree_util.tree_map_with_path(lambda keys, leaf: "/".join(leaf_path(keys)), tree)
    {'head': {'kernel': 'head/kernel'}}
    """
    # The leaf inside an nnx.Variable is its attribute `value`, which names nothing.
    if len(keys) > 1 and str(keys[-1]) in (".value", ".raw_value") and hasattr(keys[-2], "key"):
        keys = keys[:-1]
    return tuple(
        str(getattr(key, "name", getattr(key, "key", getattr(key, "idx", key)))) for key in keys
    )


def leaf_paths(tree: Any) -> list[Path]:
    """Return the path of each leaf, in the order of ``jax.tree.leaves``.

    >>> leaf_paths({"head": {"kernel": 0.0, "bias": 0.0}})
    [('head', 'bias'), ('head', 'kernel')]
    """
    return [leaf_path(keys) for keys, _ in jax.tree_util.tree_flatten_with_path(tree)[0]]


def torch_name(path: Path) -> str:
    """Return torch's dotted name for a Flax parameter; empty if the tree is one array.

    >>> torch_name(("layer1", "0", "bn1", "scale"))
    'layer1.0.bn1.weight'
    """
    torchs = {"kernel": "weight", "scale": "weight", "embedding": "weight"}
    return ".".join((*path[:-1], *(torchs.get(leaf, leaf) for leaf in path[-1:])))


def torch_names(path: Path) -> tuple[str, ...]:
    """Return torch's possible names: ``torch_name``, and that for Linen's numbered modules.

    >>> torch_names(("layer1_0", "kernel"))
    ('layer1_0.weight', 'layer1.0.weight')
    """
    name = torch_name(path)
    return tuple(dict.fromkeys((name, re.sub(r"_(\d+)\.", r".\1.", name))))
