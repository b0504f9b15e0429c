"""Ultralytics' rule for MuSGD, by path and number of dimensions."""

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from jaxsched._validate import describe
from jaxsched.param_groups._labels import FROZEN, LabelFunction, compile_pattern, label_leaves
from jaxsched.param_groups._paths import Path, torch_names


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

    >>> params = {"cv3": {"kernel": np.ones((1, 1, 2, 2)), "bias": np.ones(2)}}
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
    compiled = [(compile_pattern("others", pattern), label) for pattern, label in others.items()]
    head_pattern = compile_pattern("head", head) if isinstance(head, str) else None

    def in_head(path: Path) -> bool:
        if head_pattern is None:
            return callable(head) and head(path)
        return any(map(head_pattern.search, ("/".join(path), *torch_names(path))))

    def label(path: Path, leaf: Any) -> str:
        path, ndim = _last_named(path), np.ndim(leaf)
        name = "/".join(path)
        other = next((label for pattern, label in compiled if pattern.search(name)), None)
        if other is None and len(dimensions) and (reason := mismatch_of(path, ndim)):
            raise ValueError(
                f"parameters of by_muon must have torch's dimensions, got {name}, {reason}"
            )
        kind = other or (
            "muon"
            if ndim in dimensions
            else "bias"
            if "bias" in name
            else "norm"
            if "logit_scale" in name or is_norm(path)
            else "weight"
        )
        return f"{kind}_head" if kind != FROZEN and in_head(path) else kind

    return lambda params: label_leaves(label, params)


def _last_named(path: Path) -> Path:
    """Return a path up to the last name that is not a number."""
    while path and path[-1].isdigit():
        path = path[:-1]
    return path


def mismatch(path: Path, ndim: int) -> str | None:
    """Return why a leaf's dimensions may differ from torch's, with a remedy; None if they do not."""
    leaf = path[-1] if path else ""
    if leaf == "kernel" and any(name.startswith("ConvTranspose") for name in path):
        label = "muon" if ndim == 4 else "weight"
        return (
            "a transposed convolution's, whose first dimension is the input in torch. Build it with "
            f"transpose_kernel=True, and then label it {others_hint(path, label)}."
        )
    if leaf == "kernel" and ndim == 3:
        return (
            "a kernel of 3 dimensions, as attention has where torch has 2. "
            f"Label it {others_hint(path, 'weight')}, as the original does with a 1-D convolution's, "
            "but not with attention's."
        )
    if leaf == "bias" and ndim > 1:
        return (
            f"a bias of {ndim} dimensions, where torch has 1. Label it {others_hint(path, 'bias')}."
        )
    return None


def others_hint(path: Path, label: str) -> str:
    """Return text that shows how to label a leaf in ``by_muon``'s ``others``."""
    return f"in others: {{{'/'.join(path)!r}: {label!r}}}"
