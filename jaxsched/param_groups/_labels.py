"""Labels of a tree's leaves: by a function of the path or by patterns, frozen, fitted to a tree."""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, TypeAlias, Union

import jax

from jaxsched._validate import describe
from jaxsched.param_groups._paths import Path, leaf_path, torch_names

FROZEN = "frozen"
"""The label of parameters that get no update and no decay, ``"frozen"``."""


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
    return lambda params: label_leaves(lambda path, _: rule(path) or default or None, params)


def by_pattern(patterns: Mapping[str, str], *, default: str | None = None) -> LabelFunction:
    """Return labels from regular expressions on each leaf's path, ``"head/kernel"``.

    Args:
      patterns: ``{pattern: label}``; patterns match anywhere in the path, and the first match counts.
      default: as in ``by_rule``.

    Raises:
      ValueError: a pattern is not a regular expression; when called, if leaves have no label.
      TypeError: a pattern is not a string.

    >>> by_pattern({"bias$": "bias"}, default="weight")({"w": 1.0, "bias": 0.0})
    {'bias': 'bias', 'w': 'weight'}
    """
    compiled = [(compile_pattern("patterns", key), label) for key, label in patterns.items()]

    def rule(path: Path) -> str | None:
        name = "/".join(path)
        return next((label for pattern, label in compiled if pattern.search(name)), None)

    return by_rule(rule, default=default)


def freeze(labels: Labels, pattern: str) -> LabelFunction:
    """Return ``labels`` with ``"frozen"`` for the leaves whose path matches ``pattern``.

    Args:
      labels: a tree of labels, or a function of the parameters.
      pattern: a regular expression that matches anywhere in ``"head/kernel"``.

    Raises:
      ValueError: the pattern is not a regular expression.
      TypeError: the pattern is not a string.

    >>> from jaxsched.param_groups import by_leaf_name
    >>> freeze(by_leaf_name, "^stem/")({"stem": {"kernel": 1.0}, "head": {"kernel": 1.0}})
    {'head': {'kernel': 'weight'}, 'stem': {'kernel': 'frozen'}}
    """
    compiled = compile_pattern("pattern", pattern)

    def label(path: Path, label: str) -> str:
        return FROZEN if compiled.search("/".join(path)) else label

    return lambda params: label_leaves(label, fit(labels, params))


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
    used: set[Path] = set()

    def label(path: Path, _: Any) -> Any:
        prefixes = (path[:length] for length in range(len(path), -1, -1))
        names = ((name,) for name in ("/".join(path), *torch_names(path)))
        key = next((key for key in (*prefixes, *names) if key in by_path), None)
        if key is None:
            return None
        used.add(key)
        return by_path[key]

    fitted = label_leaves(label, params)
    unused = ["/".join(path) for path in by_path if path not in used]
    if unused and used:  # optax.tree_utils.tree_map_params calls init with a tree of no leaves
        raise ValueError(
            f"labels must fit the parameters, got {len(unused)} that none has: "
            f"{', '.join(unused[:5])}. Label the tree that the optimizer is given."
        )
    names = map(str, jax.tree.leaves(fitted))
    if groups is not None and (unknown := {name for name in names if name not in groups}):
        raise ValueError(
            f"labels must be among {', '.join(sorted(groups))}, got "
            f"{', '.join(' '.join(name.split()) for name in sorted(unknown))}. "
            f'Give the recipe such a group, or use "{FROZEN}".'
        )
    return fitted


def _call(labels: LabelFunction, params: Any) -> Any:
    """Return ``labels(params)``; refuse what has to be called before it is passed."""
    name = getattr(labels, "__name__", "")
    if name in CALLS and labels.__module__.startswith(f"{__package__}."):
        raise TypeError(
            "labels must be a tree of labels or a function of the parameters that returns one, "
            f"got the function {name}. Call it first: {name}({CALLS[name]})."
        )
    return labels(params)


CALLS = {
    "by_rule": "rule",
    "by_pattern": "patterns",
    "by_muon": "",
    "by_dimension": "",
    "by_layer": "layer_of, decay",
    "freeze": "labels, pattern",
}
"""The functions that return a rule and are none themselves, with the arguments that each needs."""


def compile_pattern(name: str, pattern: Any) -> re.Pattern[str]:
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


def label_leaves(label: Callable[[Path, Any], Any], tree: Any) -> Any:
    """Return the tree with ``label(path, leaf)`` for each leaf; refuse leaves without a label."""
    flat, structure = jax.tree_util.tree_flatten_with_path(tree)
    paths = [leaf_path(keys) for keys, _ in flat]
    labels = [label(path, leaf) for path, (_, leaf) in zip(paths, flat, strict=True)]
    pairs = zip(paths, labels, strict=True)
    missing = ["/".join(path) or "(the tree itself)" for path, each in pairs if each is None]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise ValueError(
            f"{len(missing)} of {len(labels)} parameters {'has' if len(missing) == 1 else 'have'} "
            f'no group: {", ".join(missing[:5])}{more}. Add a rule, or pass default="weight".'
        )
    return jax.tree.unflatten(structure, labels)
