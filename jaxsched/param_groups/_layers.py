"""Layer-wise decay: labels by layer, and each layer's share of the rate."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax

from jaxsched._validate import require_count, require_positive
from jaxsched.param_groups._labels import FROZEN, Labels, fit, label_leaves
from jaxsched.param_groups._paths import Path, leaf_paths


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
        inner = params if self.labels is None else fit(self.labels, params)

        def label(path: Path, inner: Any) -> str:
            layer = f"layer_{self._layer(path)}"
            if self.labels is None:
                return layer
            return inner if inner == FROZEN else f"{layer}_{inner}"

        return label_leaves(label, inner)

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
        return [self._layer(path) for path in leaf_paths(params)]

    def _layer(self, path: Path) -> int:
        layer = self.layer_of(path)
        require_count(f"layer_of({'/'.join(path)})", layer)
        return layer


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

    >>> import numpy as np
    >>> from jaxsched.param_groups import by_dimension
    >>> params = {"stem": {"kernel": np.ones((2, 2))}, "head": {"kernel": np.ones((2, 2)), "bias": np.ones(2)}}
    >>> rule = by_layer(lambda path: ["stem", "head"].index(path[0]), 0.75, labels=by_dimension())
    >>> rule(params)["head"]
    {'bias': 'layer_1_no_decay', 'kernel': 'layer_1_decay'}
    >>> rule.scales(params)
    {'layer_0_decay': 0.75, 'layer_1_decay': 1.0, 'layer_1_no_decay': 1.0}
    """
    require_positive("decay", decay)
    return LayerLabels(layer_of, decay, labels)
