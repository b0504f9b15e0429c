"""Train any example with checkpoints and metrics, on one device or many; run by ``jaxsched train``.

It counts iterations; 0 is the first.
"""

import sys
import warnings
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
from flax import nnx

from jaxsched._recipe import Recipe
from jaxsched._recipe._file import encode
from jaxsched.examples import meshes
from jaxsched.examples.checkpoints import Checkpoints
from jaxsched.examples.metrics import Metrics

__all__ = ["ProgressCallback", "Rows", "Run", "train"]


class Run(NamedTuple):
    """The functions and sizes of an example.

    Attributes:
      create: returns a new model and its optimizer.
      train: yields a row for each iteration, from model, optimizer and batches.
      batches: yields the batches from iteration ``start`` on.
      row: the class of a row.
      batch_size: images in a batch.
      steps_per_epoch: batches in an epoch; a checkpoint is written after each epoch.
    """

    create: Callable[[], tuple[Any, Any]]
    train: Callable[..., Iterator[Any]]
    batches: Callable[..., Iterable[Any]]
    row: Callable[..., Any]
    batch_size: int
    steps_per_epoch: int


class Rows(NamedTuple):
    """The row of each iteration, and whether the user stopped the run."""

    records: list[Any]
    stopped: bool


ProgressCallback = Callable[[Iterable[Any], list[Any], int], Iterator[bool]]
"""A function of iterations, a list of rows and the total number of rows at the end. It appends each
iteration to the list, and then yields whether to stop."""


def train(
    run: Run,
    recipe: Recipe,
    folder: Path,
    progress: ProgressCallback,
    *,
    epochs: int,
    seed: int,
    resume: bool = False,
    mesh: str | None = None,
    tensorboard: bool = False,
) -> tuple[Rows, tuple[Any, Any]]:
    """Train an example, optionally from the last checkpoint on, and write a checkpoint each epoch.

    Args:
      run: the example.
      recipe: its recipe; a checkpoint of another recipe is refused.
      folder: the folder of ``checkpoints``.
      progress: called with the iterations; shows them and may stop the run.
      epochs: number of epochs.
      seed: seed of the data, its order and the network.
      resume: whether to continue from the last checkpoint.
      mesh: the devices, as in ``meshes.layout``; one device if None.
      tensorboard: as in ``metrics.Metrics``.

    Returns:
      The rows, with those before a resumption, and the trained model and optimizer.

    Raises:
      ValueError: a folder with another run's checkpoints; a checkpoint or a mesh that does not fit.
    """
    # The recipe's identity is its content; schedules with Python functions are tabulated.
    content = encode(recipe, recipe.iterations or epochs * run.steps_per_epoch)
    checkpoints = Checkpoints(folder / "checkpoints", {"recipe": content, "seed": seed})
    if checkpoints.last is not None and not resume:
        raise ValueError(
            f"out must be a folder without another run's checkpoints, got {folder}, which has "
            f"one of iteration {checkpoints.last}. Pass --resume to go on from it, or another --out."
        )
    where = None
    if mesh is not None:
        where = meshes.layout(mesh, batch_size=run.batch_size)
        n = meshes.shares(where)
        print(f"{where.mesh.size} devices, {n} shares of {run.batch_size // n} images")
    parts = dict(zip(("model", "optimizer"), run.create(), strict=True))
    if where is not None:
        nnx.update(parts, meshes.place(nnx.state(parts), where))
    done, total = 0, epochs * run.steps_per_epoch
    records = []
    if resume and checkpoints.last is None:
        print(f"no checkpoint in {checkpoints.folder} yet: the run starts at iteration 0")
    elif resume:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            done, state, before = checkpoints.restore(nnx.state(parts))
        for warning in caught:
            print(f"jaxsched train: {warning.message}", file=sys.stderr)
        if done > total:
            raise ValueError(
                f"epochs must be at least {-(-done // run.steps_per_epoch)}, for the checkpoint is of "
                f"iteration {done}, got {epochs}"
            )
        nnx.update(parts, state)
        records = [run.row(**row) for row in before]
        print(f"resumed at iteration {done}")

    # The first process writes for all.
    metrics = None if jax.process_index() else Metrics(folder, records, tensorboard=tensorboard)

    def save() -> None:
        if metrics is not None:
            metrics.flush()
        checkpoints.save(len(records), nnx.state(parts), [row._asdict() for row in records])

    batches = run.batches(start=done)
    if where is not None:
        batches = meshes.spread(batches, where)
    try:
        stopped = False
        for stopping in progress(run.train(*parts.values(), batches), records, total):
            if metrics is not None:
                metrics.write(records[-1])
            if stopping or len(records) == total or len(records) % run.steps_per_epoch == 0:
                save()
            if stopping:
                stopped = True
                break
    except KeyboardInterrupt:  # a second Ctrl-C, perhaps in mid-step: save nothing
        stopped = True
    finally:
        if metrics is not None:
            metrics.close()
    checkpoints.close()
    if where is not None:
        nnx.update(parts, meshes.whole(nnx.state(parts), where))
    return Rows(records, stopped), (parts["model"], parts["optimizer"])
