"""Labels by module, for Flax NNX and Linen.

``param_groups.by_leaf_name`` finds the same without Flax, but for a ``scale`` of no norm.
"""

from collections.abc import Callable, Iterable
from typing import Any

import jax

from jaxsched.param_groups import Path, by_rule

try:
    from flax import linen as nn
    from flax import nnx
except ModuleNotFoundError as _error:
    raise ModuleNotFoundError(
        "jaxsched.flax needs Flax: pip install 'jaxsched[train]'", name="flax"
    ) from _error

__all__ = ["NORMS", "by_module"]

NORMS = (  # normalisation layers; a subclass counts as one
    *(nnx.BatchNorm, nnx.GroupNorm, nnx.InstanceNorm, nnx.LayerNorm, nnx.RMSNorm),
    *(nn.BatchNorm, nn.GroupNorm, nn.InstanceNorm, nn.LayerNorm, nn.RMSNorm),
)


def by_module(module: nnx.Module | nn.Module, *args: Any, **kwargs: Any) -> Any:
    """YOLOv5's rule: ``bias`` to ``"bias"``, a norm's ``scale`` to ``"norm"``, else ``"weight"``.

    Args:
      module: an ``nnx.Module``, or a Linen module.
      *args: sample inputs of a Linen module, arrays or their shapes; it is only traced, not run.
      **kwargs: what else a Linen module's call needs, ``train=False``, say.

    Returns:
      A tree of labels for ``recipe.optimizer``, like ``nnx.state(module, nnx.Param)`` or ``"params"``.

    Raises:
      ValueError: ``module`` is neither; ``args`` are given with an ``nnx.Module``.

    Source: ``smart_optimizer`` of YOLOv5 7.0, which goes by module and by the name ``bias``.

    >>> from collections import Counter
    >>> block = nnx.Sequential(nnx.Conv(1, 1, (1, 1), rngs=nnx.Rngs(0)), nnx.BatchNorm(1, rngs=nnx.Rngs(0)))
    >>> Counter(jax.tree.leaves(by_module(block)))
    Counter({'bias': 2, 'weight': 1, 'norm': 1})
    >>> by_module(nn.Sequential([nn.Dense(1), nn.LayerNorm()]), jax.numpy.ones((1, 1)))
    {'layers_0': {'bias': 'bias', 'kernel': 'weight'}, 'layers_1': {'bias': 'bias', 'scale': 'norm'}}
    """
    if isinstance(module, nnx.Module):
        if args or kwargs:
            raise ValueError(
                "sample inputs must go with a Linen module, got them with an nnx.Module. "
                "Pass the module alone."
            )
        return _labels(nnx.iter_graph(module), nnx.state(module, nnx.Param))
    if not isinstance(module, nn.Module):
        raise ValueError(
            f"module must be an nnx.Module or a Linen module, got {type(module).__name__}."
        )
    seen: list[tuple[Path, Any]] = []

    def note(call: Callable, call_args: Any, call_kwargs: Any, context: Any) -> Any:
        seen.append((context.module.path, context.module))
        return call(*call_args, **call_kwargs)

    with nn.intercept_methods(note):
        shapes = jax.eval_shape(lambda *xs: module.init(jax.random.key(0), *xs, **kwargs), *args)
    return _labels(seen, shapes["params"])


def _labels(modules: Iterable[tuple[Any, Any]], params: Any) -> Any:
    """Return the labels of ``params``, of the modules ``(path, module)``."""
    norms = {tuple(map(str, path)) for path, module in modules if isinstance(module, NORMS)}

    def label(path: Path) -> str:
        if path[-1] == "bias":
            return "bias"
        return "norm" if path[-1] == "scale" and path[:-1] in norms else "weight"

    return by_rule(label)(params)
