"""A run over many devices: batches are sharded and, if asked for, parameters and states too.

The training loops need no changes: they get arrays on a mesh, and XLA does the rest.
"""

import os
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxsched._validate import require_count

__all__ = ["Layout", "join", "layout", "place", "shares", "spread", "whole"]


class Layout(NamedTuple):
    """The sharding of a run's arrays.

    Attributes:
      mesh: all devices of the run.
      batch: the axes that a batch is split over.
      model: the axes that parameters, statistics and the optimizer's state are split over.
    """

    mesh: Mesh
    batch: tuple[str, ...]
    model: tuple[str, ...]


def join() -> None:
    """Make this process one of several of one run; call it before anything else of JAX.

    The other processes are found by ``JAX_COORDINATOR_ADDRESS``, ``JAX_NUM_PROCESSES`` and
    ``JAX_PROCESS_ID``, or from the cluster: Slurm, MPI, Kubernetes, a TPU pod.

    Raises:
      ValueError: neither names the other processes.
    """
    names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
    address, *numbers = (os.environ.get(name) for name in names)
    try:
        processes, process = (None if text is None else int(text) for text in numbers)
        jax.distributed.initialize(address, processes, process)
    except (ValueError, TypeError, RuntimeError) as error:
        reason = str(error).partition("\n")[0].rstrip(".") + "."
        raise ValueError(
            f"distributed must know the other processes: {reason} "
            f"Start it with srun or mpirun, or set {', '.join(names)}."
        ) from error


def layout(text: str, *, batch_size: int) -> Layout:
    """Return the layout that ``data=8``, ``fsdp=8`` or ``data=2,fsdp=4`` names.

    Args:
      text: the number of devices over which the batch is split (``data``), and the number over
        which batch, parameters and states are split (``fsdp``).
      batch_size: images in a batch, on all devices together. If the devices do not divide it, the
        batch has fewer shares, each computed by several devices; padding it with zeros would change
        BatchNorm's statistics.

    Raises:
      ValueError: another text; more devices than there are or, with several processes, fewer.

    >>> layout("data=1", batch_size=20).batch
    ('outer', 'middle')
    """
    sizes: dict[str, int] = {}
    for part in text.split(","):
        name, _, size = part.partition("=")
        if name not in ("data", "fsdp") or name in sizes or not size.isdecimal() or not int(size):
            raise ValueError(
                f"mesh must be data=N, fsdp=N or data=N,fsdp=N with N at least 1, got {text}"
            )
        sizes[name] = int(size)
    require_count("batch_size", batch_size, at_least=1)
    split = sizes.get("fsdp", 1)
    n, there = sizes.get("data", 1) * split, jax.device_count()
    if n > there or (n < there and jax.process_count() > 1):
        rule = "at most the" if n > there else "all"
        remedy = (
            " On a CPU, XLA_FLAGS=--xla_force_host_platform_device_count=N makes N of it."
            if jax.default_backend() == "cpu"
            else ""
        )
        raise ValueError(f"mesh must take {rule} {there} devices that there are, got {n}.{remedy}")
    copies = next(
        c
        for c in range(1, n + 1)
        if n % c == 0 and batch_size % (n // c) == 0 and (split % c == 0 or c % split == 0)
    )
    low, high = sorted((split, copies))
    grid = np.array(jax.devices()[:n]).reshape(n // high, high // low, low)
    axes = ("outer", "middle", "inner")
    batch, model = axes[: 2 if copies == low else 1], axes[1 if split == high else 2 :]
    return Layout(Mesh(grid, axes), batch, model if split > 1 else ())


def shares(where: Layout) -> int:
    """Return the number of shares of a batch."""
    return int(np.prod([where.mesh.shape[axis] for axis in where.batch]))


def place(state: Any, where: Layout) -> Any:
    """Shard a tree of arrays, the same in all processes, over the mesh.

    An array is split along the longest axis that the devices divide; without one, it is replicated.
    Gradients, moments and buffers follow their parameters.
    """
    n = int(np.prod([where.mesh.shape[axis] for axis in where.model]))

    def spec(shape: tuple[int, ...]) -> PartitionSpec:
        long = [axis for axis, size in enumerate(shape) if size and size % n == 0]
        if n == 1 or not long:
            return PartitionSpec()
        longest = max(long, key=lambda axis: shape[axis])
        return PartitionSpec(*[None] * longest, where.model)

    return jax.tree.map(lambda x: _put(x, NamedSharding(where.mesh, spec(np.shape(x)))), state)


def whole(state: Any, where: Layout) -> Any:
    """Replicate each array of a tree on every device, for evaluation and saving."""
    everywhere = NamedSharding(where.mesh, PartitionSpec())
    return jax.jit(lambda tree: tree, out_shardings=everywhere)(state)


def spread(batches: Iterable[Any], where: Layout) -> Iterator[Any]:
    """Yield batches sharded over the mesh; every process has them and transfers its own share."""
    sharding = NamedSharding(where.mesh, PartitionSpec(where.batch))
    for batch in batches:
        yield jax.tree.map(lambda x: _put(x, sharding), batch)


def _put(x: Any, sharding: NamedSharding) -> jax.Array:
    x = np.asarray(x)
    return jax.make_array_from_callback(x.shape, sharding, lambda share: x[share])
