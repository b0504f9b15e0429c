"""Labels by module, for Flax NNX and Linen.

``param_groups.by_leaf_name`` returns the same labels without Flax, except for a ``scale`` outside a
norm.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import jax
import numpy as np

from jaxsched._extras import missing
from jaxsched.param_groups import Path, by_rule
from jaxsched.param_groups._muon import mismatch, muon_labels, others_hint
from jaxsched.param_groups._rules import is_undecayed_name

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
CONVOLUTIONS = (nnx.Conv, nn.Conv, *TRANSPOSED)
MATRICES = (  # whose torch counterparts have 2 dimensions; attention is built of the general ones
    *(nnx.Linear, nnx.LinearGeneral, nnx.Einsum, nnx.Embed),
    *(nn.Dense, nn.DenseGeneral, nn.Einsum, nn.Embed),
)


def by_module(module: nnx.Module | nn.Module, *args: Any, **kwargs: Any) -> Any:
    """YOLOv5's rule: ``bias`` to ``"bias"``, a norm's ``scale`` to ``"norm"``, else ``"weight"``.

    Args:
      module: an ``nnx.Module``, or a Linen module.
      *args: sample inputs of a Linen module, arrays or their shapes; the module is traced, not run.
      **kwargs: further arguments of a Linen module's call, such as ``train=False``.

    Returns:
      A tree of labels for ``recipe.optimizer``, like ``nnx.state(module, nnx.Param)`` or ``"params"``.

    Raises:
      ValueError: ``module`` is neither; ``args`` are given with an ``nnx.Module``.

    Source: ``smart_optimizer`` of YOLOv5 7.0, which decides by module and by the name ``bias``.

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

    Normalisation is any ``LayerNorm``, and parameters with a name as in ``param_groups.by_decay``. A
    BatchNorm or GroupNorm is therefore decayed, unless it is called ``norm`` or ``…_norm``.

    Args:
      module: an ``nnx.Module``, or a Linen module.
      *args: sample inputs of a Linen module, as in ``by_module``.
      **kwargs: further arguments of a Linen module's call.

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
    dimensions: Collection[int] = (2, 4),
    others: Mapping[str, str] | None = None,
    **kwargs: Any,
) -> Any:
    """Ultralytics' groups for MuSGD: ``param_groups.by_muon``, by module.

    It sees the modules, and so treats correctly: a norm's ``scale``; a transposed convolution, which
    is ``"muon"`` with ``transpose_kernel=True``, since its last dimension is then torch's first, and
    refused without; a convolution of 1 or 3 dimensions, which is ``"weight"``, as in torch; and
    parameters with more dimensions than in torch, which are refused: attention's kernels and biases,
    and all of stacked modules, as by ``nnx.vmap`` or ``nn.scan``. For your own modules it follows
    that rule.

    Args:
      module: an ``nnx.Module``, or a Linen module.
      *args: sample inputs of a Linen module, as in ``by_module``.
      head: which parameters train at three times the rate, as in ``param_groups.by_muon``.
      dimensions: as there.
      others: as there.
      **kwargs: further arguments of a Linen module's call.

    Returns:
      A tree of labels for ``recipe.optimizer``.

    Raises:
      ValueError: ``module`` is neither; ``args`` are given with an ``nnx.Module``; a pattern is not
        a regular expression; a parameter's dimensions are not torch's.
      TypeError: ``head``, ``dimensions`` or ``others`` is of another type.

    Source: ``BaseTrainer.build_optimizer`` of Ultralytics 8.4.190.

    >>> block = nn.Sequential([nn.Dense(1), nn.LayerNorm()])
    >>> by_muon(block, jax.numpy.ones((1, 1)), head="^layers_1/")
    {'layers_0': {'bias': 'bias', 'kernel': 'muon'}, 'layers_1': {'bias': 'bias_head', 'scale': 'norm_head'}}
    """
    modules, params = _modules_and_params(module, args, kwargs)
    owners = {tuple(map(str, path)): part for path, part in modules}

    def is_norm(path: Path) -> bool:
        return path[-1] == "scale" and isinstance(owners.get(path[:-1]), NORMS)

    def mismatch_of(path: Path, ndim: int) -> str | None:
        owner: Any = owners.get(path[:-1])
        is_kernel = path[-1] in ("kernel", "embedding")
        label = "weight"
        if is_norm(path):
            expected, label = 1, "norm"
        elif is_kernel and isinstance(owner, CONVOLUTIONS):
            expected = 2 + np.size(owner.kernel_size)
        elif is_kernel and isinstance(owner, MATRICES):
            expected = 2
        elif is_kernel and isinstance(owner, nn.ConvLocal):
            return f"of ConvLocal, which torch does not have. Label it {others_hint(path, label)}."
        else:
            return mismatch(path, ndim)
        if ndim > expected:
            without_muon = ", which trains it without Muon, unlike the original"
            return (
                f"of {ndim} dimensions, where torch's has {expected}. Label it "
                f"{others_hint(path, label)}{without_muon if expected in dimensions else ''}."
            )
        if isinstance(owner, TRANSPOSED) and not owner.transpose_kernel:
            return (
                "of a transposed convolution, whose first dimension is the input in torch. Build it "
                "with transpose_kernel=True."
            )
        return None

    return muon_labels(head, dimensions, others, is_norm, mismatch_of)(params)


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
    modules: list[tuple[Path, Any]] = []

    def note(call: Callable, call_args: Any, call_kwargs: Any, context: Any) -> Any:
        modules.append((context.module.path, context.module))
        return call(*call_args, **call_kwargs)

    with nn.intercept_methods(note):
        shapes = jax.eval_shape(lambda *xs: module.init(jax.random.key(0), *xs, **kwargs), *args)
    return modules, shapes["params"]


def _paths(modules: Iterable[tuple[Any, Any]], kinds: tuple[type, ...]) -> set[Path]:
    """Return the paths of the modules that are of one of ``kinds``."""
    return {tuple(map(str, path)) for path, module in modules if isinstance(module, kinds)}
