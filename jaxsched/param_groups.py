"""Labels of parameters: the name of each parameter's group.

Recipes here use ``"weight"``, ``"bias"`` and ``"norm"``, and ``"frozen"`` for parameters that are not
trained. ``recipe.optimizer`` and ``optax.multi_transform`` take a tree of labels, or a function of
``params`` that returns one.
"""

import dataclasses
import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, ClassVar, Protocol, TypeAlias, Union, cast

import jax
import numpy as np

from jaxsched._validate import describe, require, require_count

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

FROZEN = "frozen"  # the label of parameters that get no update and no decay

NO_DECAY = re.compile(r"bias|layernorm|rmsnorm|(^|[./])norm($|[./])|_norm($|[./])")
"""Names, in lower case, of parameters that transformers does not decay."""

Path = tuple[str, ...]


class _Dataclass(Protocol):
    """A dataclass of labels: an Equinox module, a ``flax.struct``."""

    __dataclass_fields__: ClassVar[dict[str, Any]]


class LabelFunction(Protocol):
    """A function of the parameters, or their gradients, that returns a tree of labels."""

    def __call__(self, params: Any, /) -> Any:
        """Return the label of each leaf of ``params``."""


LabelTree: TypeAlias = Union[  # noqa: UP007, for the alias names itself
    str, Mapping[Any, "LabelTree | None"], Sequence["LabelTree | None"], _Dataclass
]
"""A label, or a mapping, sequence or dataclass of trees of labels."""

Labels = LabelTree | LabelFunction
"""A tree of labels, or a function of the parameters that returns one."""


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


def by_rule(rule: Callable[[Path], str | None], *, default: str | None = None) -> LabelFunction:
    """Return labels from a function of each leaf's path.

    Args:
      rule: a function from a path, ``("head", "kernel")``, to a label or None.
      default: the label of leaves for which ``rule`` returns None; without it they are refused.

    Raises:
      ValueError: when called, if leaves have no label.

    >>> by_rule(lambda path: "bias" if path[-1] == "bias" else None)({"w": 1.0, "bias": 0.0})
    Traceback (most recent call last):
    ...
    ValueError: 1 of 2 parameters has no group: w. Add a rule, or pass default="weight".
    """

    def labels(params: Any) -> Any:
        return _tree(params, [rule(path) or default or None for path in leaf_paths(params)])

    return labels


def by_pattern(patterns: Mapping[str, str], *, default: str | None = None) -> LabelFunction:
    """Return labels from regular expressions on each leaf's path, ``"head/kernel"``.

    Args:
      patterns: ``{pattern: label}``; patterns match anywhere in the path, and the first match counts.
      default: as in ``by_rule``.

    >>> by_pattern({"bias$": "bias"}, default="weight")({"w": 1.0, "bias": 0.0})
    {'bias': 'bias', 'w': 'weight'}
    """
    compiled = [(re.compile(pattern), label) for pattern, label in patterns.items()]

    def rule(path: Path) -> str | None:
        name = "/".join(path)
        return next((label for pattern, label in compiled if pattern.search(name)), None)

    return by_rule(rule, default=default)


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


def by_muon(
    *,
    head: str | Callable[[Path], bool] | None = None,
    dimensions: Collection[int] = (2, 4),
    others: Mapping[str, str] | None = None,
) -> LabelFunction:
    r"""Return Ultralytics' groups for MuSGD, from each leaf's path and number of dimensions.

    Leaves of 2 or 4 dimensions are ``"muon"``; of the others, those with ``bias`` in their path are
    ``"bias"``, ``scale`` and ``logit_scale`` are ``"norm"``, all others ``"weight"``. Labels of the
    head, which trains at three times the rate, end in ``_head``: ``"muon_head"``.

    The number of dimensions must be that of torch's parameter. Flax's attention and ``DenseGeneral``
    have kernels of 3 and biases of 2 dimensions where torch has 2 and 1, so that Muon's matrix would
    differ: a ``kernel`` of 3 or a ``bias`` of 2 and more dimensions is refused, unless ``others``
    labels it. So is a kernel below a ``ConvTranspose…``, whose first dimension is the input in torch:
    build it with ``transpose_kernel=True``, and label it ``"muon"`` in ``others``. In a tree with
    other names this cannot be detected; ``jaxsched.flax.by_muon`` sees the module.

    Args:
      head: a regular expression, searched for in ``"head/kernel"`` and in the names of
        ``torch_names``, or a function of the path. Where module 23 is the last, Ultralytics 8.4.190
        has ``r"(^|\.)23\.(one2one_)?cv3\.|proto\.semseg|SemanticSegment"``, 8.4.0
        ``r"23.*cv3|cv3.*23|proto\.semseg|flow_model"``; what changed between is in docs/recipes/ultralytics.md.
      dimensions: the numbers of dimensions of ``"muon"``; ``range(2, 9)`` before 8.4.108; ``()`` for
        the groups of the other optimizers, for which no dimensions are refused.
      others: ``{regular expression: label}`` for leaves whose dimensions are not torch's; the first
        match counts. A 1-D convolution's kernel is ``"weight"``.

    Raises:
      ValueError: a pattern is not a regular expression; when called, if a leaf's dimensions are not
        torch's.
      TypeError: ``head``, ``dimensions`` or ``others`` is of another type.

    Source: ``BaseTrainer.build_optimizer`` of Ultralytics 8.4.190.

    >>> params = {"cv3": {"kernel": jax.numpy.ones((1, 1, 2, 2)), "bias": jax.numpy.ones(2)}}
    >>> by_muon(head="^cv3/")(params)
    {'cv3': {'bias': 'bias_head', 'kernel': 'muon_head'}}
    """
    return muon_labels(head, dimensions, others, lambda path: path[-1:] == ("scale",), mismatch)


def muon_labels(
    head: str | Callable[[Path], bool] | None,
    dimensions: Collection[int],
    others: Mapping[str, str] | None,
    is_norm: Callable[[Path], bool],
    mismatch_of: Callable[[Path, int], str | None],
) -> LabelFunction:
    """Return ``by_muon``'s labels, with functions for leaves of norms and for mismatches with torch."""
    others = {} if others is None else others
    if not isinstance(others, Mapping):
        raise TypeError(
            f"others must map regular expressions to labels, got {describe(others)}. "
            "Pass a dictionary."
        )
    if isinstance(dimensions, str) or not isinstance(dimensions, Collection):
        raise TypeError(
            f"dimensions must be a collection of integers, got {describe(dimensions)}. "
            "Put it into a tuple."
        )
    if not (head is None or isinstance(head, str) or callable(head)):
        raise TypeError(
            f"head must be a regular expression or a function of the path, got {describe(head)}. "
            "Join several patterns by |."
        )
    compiled = [(_compile("others", pattern), label) for pattern, label in others.items()]
    in_head = _compile("head", head).search if isinstance(head, str) else None

    def label(path: Path, ndim: int) -> str:
        name = "/".join(path)
        given = next((label for pattern, label in compiled if pattern.search(name)), None)
        if given is None and len(dimensions) and (reason := mismatch_of(path, ndim)):
            raise ValueError(
                f"parameters of by_muon must have torch's dimensions, got {name}, {reason}"
            )
        kind = given or (
            "muon"
            if ndim in dimensions
            else "bias"
            if "bias" in name
            else "norm"
            if "logit_scale" in name or is_norm(path)
            else "weight"
        )
        if kind == FROZEN or head is None:
            return kind
        if in_head:
            is_head = any(map(in_head, (name, *torch_names(path))))
        else:
            is_head = cast(Callable[[Path], bool], head)(path)
        return f"{kind}_head" if is_head else kind

    def labels(params: Any) -> Any:
        flat = jax.tree_util.tree_flatten_with_path(params)[0]
        leaves = [label(_last_named(leaf_path(keys)), len(np.shape(leaf))) for keys, leaf in flat]
        return _tree(params, leaves)

    return labels


def _last_named(path: Path) -> Path:
    """Return a path up to the last name that is not a number."""
    while path and path[-1].isdigit():
        path = path[:-1]
    return path


def _compile(name: str, pattern: Any) -> re.Pattern[str]:
    """Compile a regular expression of the argument ``name``."""
    if not isinstance(pattern, str):
        raise TypeError(
            f"{name} must have regular expressions, got {describe(pattern)}. Pass strings."
        )
    try:
        return re.compile(pattern)
    except re.error as error:
        raise ValueError(
            f"{name} must be a regular expression, got {describe(pattern)} ({error}). "
            "Escape what is meant literally with re.escape."
        ) from error


def mismatch(path: Path, ndim: int) -> str | None:
    """Return why a leaf's dimensions may differ from torch's, with a remedy; None if they do not."""
    leaf = path[-1] if path else ""
    if leaf == "kernel" and any(name.startswith("ConvTranspose") for name in path):
        label = "muon" if ndim == 4 else "weight"
        return (
            "a transposed convolution's, whose first dimension is the input in torch. Build it with "
            f"transpose_kernel=True, and then label it {in_others(path, label)}."
        )
    if leaf == "kernel" and ndim == 3:
        return (
            "a kernel of 3 dimensions, as attention has where torch has 2. "
            f"Label it {in_others(path, 'weight')}, as the original does with a 1-D convolution's, "
            "but not with attention's."
        )
    if leaf == "bias" and ndim > 1:
        return (
            f"a bias of {ndim} dimensions, where torch has 1. Label it {in_others(path, 'bias')}."
        )
    return None


def in_others(path: Path, label: str) -> str:
    """Return text that shows how to label a leaf in ``by_muon``'s ``others``."""
    return f"in others: {{{'/'.join(path)!r}: {label!r}}}"


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

    pairs = zip(leaf_paths(params), jax.tree.leaves(params), strict=True)
    return _tree(params, [label(path, leaf) for path, leaf in pairs])


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

    def labels(params: Any) -> Any:
        pairs = zip(leaf_paths(params), jax.tree.leaves(params), strict=True)
        return _tree(params, [label(path, leaf) for path, leaf in pairs])

    return labels


@dataclasses.dataclass(frozen=True)
class LayerLabels:
    r"""A function that labels parameters by layer, with each layer's share of the rate.

    Attributes:
      layer_of: a function from a leaf's path to its layer; 0 is the one nearest to the input.
      decay: the ratio of a layer's rate to the next one's.
      labels: labels within a layer, or None.
    """

    layer_of: Callable[[Path], int]
    decay: float
    labels: Labels | None = None

    def __call__(self, params: Any, /) -> Any:
        """Return ``layer_3``, or ``layer_3_decay`` with labels ``decay``, for each leaf of layer 3."""
        layers = self._layers(params)
        if self.labels is None:
            return _tree(params, [f"layer_{layer}" for layer in layers])
        inner = jax.tree.leaves(fit(self.labels, params))
        pairs = zip(layers, inner, strict=True)
        return _tree(params, [x if x == FROZEN else f"layer_{k}_{x}" for k, x in pairs])

    def count(self, params: Any) -> int:
        """Return the number of layers."""
        return max(self._layers(params), default=0) + 1

    def scales(self, params: Any) -> dict[str, float]:
        """Return each label's share of the rate, ``decay ** (count - 1 - layer)``.

        >>> rule = by_layer(lambda path: {"stem": 0, "head": 1}[path[0]], 0.5)
        >>> rule.scales({"stem": {"kernel": 1.0}, "head": {"kernel": 1.0}})
        {'layer_0': 0.5, 'layer_1': 1.0}
        """
        layers, labels = self._layers(params), jax.tree.leaves(self(params))
        last = max(layers, default=0)
        pairs = sorted(zip(layers, labels, strict=True))
        return {label: self.decay ** (last - k) for k, label in pairs if label != FROZEN}

    def _layers(self, params: Any) -> list[int]:
        layers = [(path, self.layer_of(path)) for path in leaf_paths(params)]
        for path, layer in layers:
            require_count(f"layer_of({'/'.join(path)})", layer)
        return [layer for _, layer in layers]


def by_layer(
    layer_of: Callable[[Path], int], decay: float, *, labels: Labels | None = None
) -> LayerLabels:
    r"""Layer-wise decay: return a function that labels parameters by layer, with shares of the rate.

    .. math:: \gamma_l = \gamma \cdot \mathrm{decay}^{L - 1 - l}

    for layer l of L. The result is a function from the parameters to their labels, for
    ``recipe.optimizer``; its ``scales(params)`` returns ``{label: share}``, for the groups of a recipe
    (``schedules.scaled(rate, share)``), and its ``count(params)`` returns L, for ``recipes.timm``.

    Args:
      layer_of: a function from a leaf's path, ``("blocks", "3", "mlp", "kernel")``, to its layer, an
        integer; 0 is the one nearest to the input, and has the lowest rate.
      decay: above 0, usually below 1.
      labels: labels within each layer, such as ``by_dimension()``; with them a label is
        ``layer_3_decay``, without them ``layer_3``. ``"frozen"`` stays as it is.

    Raises:
      ValueError: a decay that is not above 0; when called, a layer that is not an integer of at least
        0.

    Source: ``param_groups_layer_decay`` of timm 1.0.31, after BEiT.

    >>> params = {"stem": {"kernel": np.ones((2, 2))}, "head": {"kernel": np.ones((2, 2)), "bias": np.ones(2)}}
    >>> rule = by_layer(lambda path: ["stem", "head"].index(path[0]), 0.75, labels=by_dimension())
    >>> rule(params)["head"]
    {'bias': 'layer_1_no_decay', 'kernel': 'layer_1_decay'}
    >>> rule.scales(params)
    {'layer_0_decay': 0.75, 'layer_1_decay': 1.0, 'layer_1_no_decay': 1.0}
    """
    require("decay", decay, "a finite number above 0", lambda v: v > 0 and math.isfinite(v))
    return LayerLabels(layer_of, decay, labels)


def freeze(labels: Labels, pattern: str) -> LabelFunction:
    """Return ``labels`` with ``"frozen"`` for the leaves whose path matches ``pattern``.

    Args:
      labels: a tree of labels, or a function of the parameters.
      pattern: a regular expression that matches anywhere in ``"head/kernel"``.

    >>> freeze(by_leaf_name, "^stem/")({"stem": {"kernel": 1.0}, "head": {"kernel": 1.0}})
    {'head': {'kernel': 'weight'}, 'stem': {'kernel': 'frozen'}}
    """
    compiled = re.compile(pattern)

    def freeze_matches(params: Any) -> Any:
        paths, tree = map("/".join, leaf_paths(params)), fit(labels, params)
        pairs = zip(paths, jax.tree.leaves(tree), strict=True)
        return _tree(params, [FROZEN if compiled.search(path) else x for path, x in pairs])

    return freeze_matches


def fit(labels: Labels, params: Any, *, groups: Any = None) -> Any:
    """Return the label of each leaf of ``params``, as a tree of the same structure.

    Args:
      labels: a tree of labels, or a function of the parameters that returns one. A tree may be a
        prefix, one label for a whole branch, and is matched by path, so that the labels of an
        ``nnx.State`` fit its plain arrays. It may be flat: by ``"head/kernel"``, or by torch's
        ``"head.weight"``.
      params: the parameters, or their gradients.
      groups: the labels that may occur; any if None.

    Raises:
      ValueError: a leaf of ``params`` has no label, a label has no leaf, or a label is not allowed.
      TypeError: ``labels`` is a rule that must be called first, such as ``by_dimension``.

    >>> fit({"head.weight": "decay", "head.bias": "no_decay"}, {"head": {"kernel": 0.0, "bias": 0.0}})
    {'head': {'bias': 'no_decay', 'kernel': 'decay'}}
    """
    # An Equinox module of labels is a tree, though it can be called.
    is_tree = any(isinstance(leaf, str) for leaf in jax.tree.leaves(labels))
    tree = labels if is_tree or not callable(labels) else _call(labels, params)
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    by_path = {leaf_path(keys): label for keys, label in flat}

    def match(path: Path) -> Path | None:
        prefixes = (path[:length] for length in range(len(path), -1, -1))
        names = ((name,) for name in ("/".join(path), *torch_names(path)))
        return next((key for key in (*prefixes, *names) if key in by_path), None)

    matches = [match(path) for path in leaf_paths(params)]
    used = set(matches)
    matched = [None if key is None else by_path[key] for key in matches]
    fitted = _tree(params, matched)
    unused = ["/".join(path) for path in by_path if path not in used]
    if unused and matches:  # optax.tree_utils.tree_map_params calls init with a tree of no leaves
        raise ValueError(
            f"labels must fit the parameters, got {len(unused)} that none has: "
            f"{', '.join(unused[:5])}. Label the tree that the optimizer is given."
        )
    unknown = sorted({" ".join(str(label).split()) for label in matched} - set(groups or matched))
    if unknown:
        raise ValueError(
            f"labels must be among {', '.join(sorted(groups))}, got {', '.join(unknown)}. "
            f'Give the recipe such a group, or use "{FROZEN}".'
        )
    return fitted


_CALLS: Mapping[str, Any] = {
    "by_rule(rule)": by_rule,
    "by_pattern(patterns)": by_pattern,
    "by_muon()": by_muon,
    "by_dimension()": by_dimension,
    "by_layer(layer_of, decay)": by_layer,
    "freeze(labels, pattern)": freeze,
}
"""How to call what is not a rule itself but returns one."""


def _call(labels: LabelFunction, params: Any) -> Any:
    """Return ``labels(params)``; refuse what has to be called before it is passed."""
    for call, function in _CALLS.items():
        if labels is function:
            raise TypeError(
                "labels must be a tree of labels or a function of the parameters that returns one, "
                f"got the function {function.__name__}. Call it first: {call}."
            )
    return labels(params)


def _tree(params: Any, labels: Sequence[str | None]) -> Any:
    """Return a list of labels as a tree with the structure of ``params``; refuse None."""
    named = zip(map("/".join, leaf_paths(params)), labels, strict=True)
    missing = [path or "(the tree itself)" for path, label in named if label is None]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise ValueError(
            f"{len(missing)} of {len(labels)} parameters {'has' if len(missing) == 1 else 'have'} "
            f'no group: {", ".join(missing[:5])}{more}. Add a rule, or pass default="weight".'
        )
    return jax.tree.unflatten(jax.tree.structure(params), labels)
