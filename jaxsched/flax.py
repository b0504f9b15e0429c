"""Labels by module, for Flax NNX and Linen.

``param_groups.by_leaf_name`` finds the same without Flax, but for a ``scale`` of no norm.
"""

from collections.abc import Callable, Container, Iterable, Mapping
from typing import Any

import jax

from jaxsched._extras import missing
from jaxsched.param_groups import Path, by_rule, is_undecayed_name, muon_labels

try:
    from flax import linen as nn
    from flax import nnx
except ModuleNotFoundError as _error:
    raise missing("jaxsched.flax", "flax") from _error

__all__ = ["NORMS", "by_decay", "by_module", "by_muon"]

NORMS = (  # normalisation layers; a subclass counts as one
    *(nnx.BatchNorm, nnx.GroupNorm, nnx.InstanceNorm, nnx.LayerNorm, nnx.RMSNorm),
    *(nn.BatchNorm, nn.GroupNorm, nn.InstanceNorm, nn.LayerNorm, nn.RMSNorm),
)

TRANSPOSED = (nnx.ConvTranspose, nn.ConvTranspose)
GENERAL = (nnx.LinearGeneral, nn.DenseGeneral)  # attention is built of them


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
    modules, params = _modules_and_params(module, args, kwargs)
    norms = _paths(modules, NORMS)

    def label(path: Path) -> str:
        if path[-1] == "bias":
            return "bias"
        return "norm" if path[-1] == "scale" and path[:-1] in norms else "weight"

    return by_rule(label)(params)


def by_decay(module: nnx.Module | nn.Module, *args: Any, **kwargs: Any) -> Any:
    """The rule of transformers: biases and normalisation to ``"no_decay"``, the rest to ``"decay"``.

    Normalisation is a ``LayerNorm`` by its kind, and by its name what ``param_groups.by_decay``
    finds there. So a BatchNorm or GroupNorm decays, unless it is called ``norm`` or ``…_norm``.

    Args:
      module: an ``nnx.Module``, or a Linen module.
      *args: sample inputs of a Linen module, as of ``by_module``.
      **kwargs: what else a Linen module's call needs.

    Returns:
      A tree of labels, as ``by_module`` does.

    Raises:
      ValueError: ``module`` is neither; ``args`` are given with an ``nnx.Module``.

    Source: ``Trainer.get_decay_parameter_names`` of transformers 5.24.

    >>> block = nn.Sequential([nn.Dense(1), nn.LayerNorm()])
    >>> by_decay(block, jax.numpy.ones((1, 1)))["layers_0"]
    {'bias': 'no_decay', 'kernel': 'decay'}
    >>> by_decay(block, jax.numpy.ones((1, 1)))["layers_1"]
    {'bias': 'no_decay', 'scale': 'no_decay'}
    """
    modules, params = _modules_and_params(module, args, kwargs)
    layer_norms = _paths(modules, (nnx.LayerNorm, nn.LayerNorm))

    def label(path: Path) -> str:
        is_undecayed = path[:-1] in layer_norms or is_undecayed_name(path)
        return "no_decay" if is_undecayed else "decay"

    return by_rule(label)(params)


def by_muon(
    module: nnx.Module | nn.Module,
    *args: Any,
    head: str | Callable[[Path], bool] | None = None,
    dimensions: Container[int] = (2, 4),
    others: Mapping[str, str] | None = None,
    **kwargs: Any,
) -> Any:
    """Ultralytics' groups for MuSGD: ``param_groups.by_muon``, by module.

    It knows what that rule can only guess at: a norm's ``scale``; a transposed convolution, which
    is ``"muon"`` with ``transpose_kernel=True``, for then its last dimension is torch's first, and
    refused without; a kernel of ``DenseGeneral``, ``LinearGeneral`` and so of attention, which is
    refused unless it has 2 dimensions; and a convolution of 1 or 3 dimensions, which is
    ``"weight"``, as in torch.

    Args:
      module: an ``nnx.Module``, or a Linen module.
      *args: sample inputs of a Linen module, as in ``by_module``.
      head: which parameters train at three times the rate, as in ``param_groups.by_muon``.
      dimensions: as there.
      others: as there.
      **kwargs: what else a Linen module's call needs.

    Returns:
      A tree of labels for ``recipe.optimizer``.

    Raises:
      ValueError: ``module`` is neither; ``args`` are given with an ``nnx.Module``; a parameter's
        dimensions are not torch's.

    Source: ``BaseTrainer.build_optimizer`` of Ultralytics 8.4.190.

    >>> block = nn.Sequential([nn.Dense(1), nn.LayerNorm()])
    >>> by_muon(block, jax.numpy.ones((1, 1)), head="^layers_1/")
    {'layers_0': {'bias': 'bias', 'kernel': 'muon'}, 'layers_1': {'bias': 'bias_head', 'scale': 'norm_head'}}
    """
    modules, params = _modules_and_params(module, args, kwargs)
    owners = {tuple(map(str, path)): part for path, part in modules}

    def is_norm(path: Path) -> bool:
        return path[-1] == "scale" and isinstance(owners.get(path[:-1]), NORMS)

    def unlike_torch(path: Path, ndim: int) -> str | None:
        owner = owners.get(path[:-1])
        if isinstance(owner, TRANSPOSED) and path[-1] == "kernel":
            if getattr(owner, "transpose_kernel", False):
                return None
            return (
                "of a transposed convolution, whose first dimension is the input in torch. Build it "
                "with transpose_kernel=True."
            )
        if isinstance(owner, GENERAL) and ndim > (2 if path[-1] == "kernel" else 1):
            return f"of {ndim} dimensions, where attention's in torch has fewer."
        return None

    return muon_labels(head, dimensions, others, is_norm, unlike_torch)(params)


def _modules_and_params(
    module: Any, args: Any, kwargs: Any
) -> tuple[Iterable[tuple[Any, Any]], Any]:
    """Return the modules within ``module``, ``(path, module)``, and its parameters or their shapes."""
    if isinstance(module, nnx.Module):
        if args or kwargs:
            raise ValueError(
                "sample inputs must go with a Linen module, got them with an nnx.Module. "
                "Pass the module alone."
            )
        return nnx.iter_graph(module), nnx.state(module, nnx.Param)
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
    return seen, shapes["params"]


def _paths(modules: Iterable[tuple[Any, Any]], kinds: tuple[type, ...]) -> set[Path]:
    """Return the paths of the modules that are of one of ``kinds``."""
    return {tuple(map(str, path)) for path, module in modules if isinstance(module, kinds)}
