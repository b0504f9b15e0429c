"""The rules of Flax, the article, transformers and timm, by name and number of dimensions."""

import re
from collections.abc import Collection
from fnmatch import fnmatchcase
from typing import Any

import numpy as np

from jaxsched._validate import describe
from jaxsched.param_groups._labels import LabelFunction, by_rule, label_leaves
from jaxsched.param_groups._paths import Path, torch_name, torch_names

NO_DECAY = re.compile(r"bias|layernorm|rmsnorm|(^|[./])norm($|[./])|_norm($|[./])")
"""Names, in lower case, of parameters that transformers does not decay."""


def by_leaf_name(params: Any) -> Any:
    """Flax's rule: ``bias`` to ``"bias"``, ``scale`` to ``"norm"``, the rest to ``"weight"``.

    The name is the last one in the path that is not a number.

    Raises:
      ValueError: a leaf has no name (a bare array, a list of arrays).

    >>> by_leaf_name({"bn": {"scale": 1.0, "bias": 0.0}, "conv": {"kernel": 1.0}})
    {'bn': {'bias': 'bias', 'scale': 'norm'}, 'conv': {'kernel': 'weight'}}
    """

    def rule(path: Path) -> str | None:
        name = next((name for name in reversed(path) if not name.isdigit()), None)
        return None if name is None else {"bias": "bias", "scale": "norm"}.get(name, "weight")

    return by_rule(rule)(params)


def by_dotted_name(params: Any) -> Any:
    """The article's rule, on torch's dotted names.

    A name with ``.bias`` is ``"bias"``; else one with ``.weight`` and without ``.bn`` is ``"weight"``,
    which is decayed; all others are ``"norm"``. A BatchNorm not called ``.bn…`` is therefore decayed:
    in ResNet-18 the stem's ``bn1.weight`` and the three ``downsample.1.weight``; 16 / 25 / 21
    parameters are in ``norm``, ``weight`` and ``bias``. A Flax path is converted to torch's name.

    Raises:
      ValueError: the tree is one array, which has no name.

    Source: the parameter groups of the article.

    >>> by_dotted_name({"bn1.weight": 1.0, "layer1.0.bn1.weight": 1.0})
    {'bn1.weight': 'weight', 'layer1.0.bn1.weight': 'norm'}
    """

    def rule(path: Path) -> str | None:
        name = torch_name(path)
        if not name:
            return None
        if ".bias" in name:
            return "bias"
        return "weight" if ".weight" in name and ".bn" not in name else "norm"

    return by_rule(rule)(params)


def by_decay(params: Any) -> Any:
    """The rule of transformers: biases and normalisation to ``"no_decay"``, the rest to ``"decay"``.

    A path that has ``bias``, ``layernorm`` or ``rmsnorm`` in it, or a module called ``norm`` or
    ``…_norm``, is not decayed; letters may be capital. Nor is a ``scale``, nor a ``weight`` of at
    most one dimension: in Flax, and in torch and Equinox, these belong to normalisation.
    transformers decides by module instead: it decays a BatchNorm or GroupNorm whose name has none of
    these. So does ``jaxsched.flax.by_decay``, which sees the module.

    Raises:
      ValueError: the tree is one array, which has no name.

    Source: ``Trainer.get_decay_parameter_names`` of transformers 5.24.

    >>> by_decay({"ln_1": {"scale": 1.0}, "q_norm": {"weight": 1.0}, "fc": {"kernel": 1.0, "bias": 1.0}})
    {'fc': {'bias': 'no_decay', 'kernel': 'decay'}, 'ln_1': {'scale': 'no_decay'}, 'q_norm': {'weight': 'no_decay'}}
    >>> by_decay({"ln_1.weight": np.ones(2), "fc.weight": np.ones((2, 2))})
    {'fc.weight': 'decay', 'ln_1.weight': 'no_decay'}
    """

    def label(path: Path, leaf: Any) -> str | None:
        if not path:
            return None
        name = re.split("[./]", path[-1])[-1]
        is_norm = name == "scale" or (name == "weight" and np.ndim(leaf) <= 1)
        return "no_decay" if is_norm or is_undecayed_name(path) else "decay"

    return label_leaves(label, params)


def is_undecayed_name(path: Path) -> bool:
    """Return whether transformers excludes a parameter from decay because of its name."""
    return any(NO_DECAY.search(name.lower()) for name in torch_names(path))


def by_dimension(no_weight_decay: Collection[str] = ()) -> LabelFunction:
    """Timm's rule: no decay for biases, for what has at most one dimension, and for some names.

    The label is ``"no_decay"`` for a leaf of at most one dimension (normalisation, biases, scales of
    a layer), for one called ``bias``, and for one whose name is in ``no_weight_decay``; ``"decay"``
    for all others. A tree in which layers are stacked, as by ``nn.scan``, has one dimension more, and
    needs ``by_rule``.

    Args:
      no_weight_decay: torch's dotted names, or patterns such as ``"*.pos_embed"``, as a timm model's
        ``no_weight_decay()`` returns them. A Flax path matches by its own name, ``head.kernel``, and
        by those of ``torch_names``.

    Source: ``param_groups_weight_decay`` of timm 1.0.31. Whether timm decays a bias of more than one
    dimension, which none of its models has, depends on layer-wise decay.

    >>> params = {"cls_token": np.ones((1, 1, 4)), "fc": {"kernel": np.ones((4, 2)), "bias": np.ones(2)}}
    >>> by_dimension({"cls_token"})(params)
    {'cls_token': 'no_decay', 'fc': {'bias': 'no_decay', 'kernel': 'decay'}}
    """
    if isinstance(no_weight_decay, str):
        raise TypeError(
            f"no_weight_decay must be a collection of names, got {describe(no_weight_decay)}. "
            "Put it into a list."
        )
    patterns = tuple(no_weight_decay)

    def label(path: Path, leaf: Any) -> str:
        names = (".".join(path), *torch_names(path))
        is_named = any(fnmatchcase(name, pattern) for name in names for pattern in patterns)
        is_bias = names[0].rpartition(".")[2] == "bias"
        return "no_decay" if np.ndim(leaf) <= 1 or is_bias or is_named else "decay"

    return lambda params: label_leaves(label, params)
