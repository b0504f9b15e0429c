"""``jaxsched train``: train an example. It counts iterations; 0 is the first."""

import contextlib
import functools
import importlib
import os
import signal
import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import jax

import jaxsched
from jaxsched import recipes
from jaxsched._io import make_writable
from jaxsched._recipe import Recipe
from jaxsched._trace import Trace
from jaxsched._validate import require

EPOCHS = {"yolov5_resnet18": 100, "yolov5": 30}
"""Epochs of each recipe's curve."""


def train(
    *,
    recipe: Literal["yolov5_resnet18", "yolov5"] = "yolov5_resnet18",
    epochs: int | None = None,
    out: Path | None = None,
    seed: int = 0,
    resume: bool = False,
    mesh: str | None = None,
    distributed: bool = False,
    log: Literal["csv", "tensorboard"] = "csv",
) -> int:
    """Train a network with a recipe, and check the hyperparameters of the run.

    The hyperparameters are read from the optimizer's state at each iteration and compared with
    torch's run of the article, or with YOLOv5's recipe; exit status 1 if they differ.

    For instance: jaxsched train --recipe yolov5 --epochs 3 --out runs/short

    Args:
      recipe: yolov5_resnet18 is the article's, a ResNet-18 on handwritten digits; yolov5 is
        YOLOv5's own with accumulation and average, a small detector on drawn shapes.
      epochs: stop after this many of the curve's 100 epochs, or 30 of yolov5.
      out: folder for metrics.csv, which gets a row an iteration during the run, lr.png, trace.npz,
        checkpoints and, for the detector, boxes.png; if not given, runs/ and the recipe's name.
      seed: seed of the data, its order, and the network.
      resume: continue from the last checkpoint in the folder, to the same bits as a run that was
        never stopped; from the start if there is no checkpoint. With more epochs a finished run
        continues too.
      mesh: train on several devices: data=8 splits the batch, fsdp=8 the batch and the parameters
        and states, data=2,fsdp=4 both. If the devices do not divide the batch, several compute the
        same share.
      distributed: this process is one of several of one run, each started with the same arguments
        by a cluster's launcher, or with JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and
        JAX_PROCESS_ID set; all of them must see the folder.
      log: tensorboard also writes the metrics for TensorBoard, to the folder tensorboard in out.
    """
    whole = EPOCHS[recipe]
    epochs = whole if epochs is None else epochs
    require("epochs", epochs, f"from 1 to {whole}", lambda v: 1 <= v <= whole)
    require("seed", seed, "from 0 to 2**63 - 1", lambda v: 0 <= v < 2**63)
    out = Path("runs") / recipe if out is None else out
    make_writable(out / "trace.npz", (".npz",))
    importlib.import_module("jaxsched.plot")  # report a missing package before the training
    if log == "tensorboard":
        importlib.import_module("tensorboardX")
    if distributed:
        from jaxsched.examples import meshes

        meshes.join()
        mesh = f"data={jax.device_count()}" if mesh is None else mesh
    run = _classifier if recipe == "yolov5_resnet18" else _detector
    with contextlib.ExitStack() as stack:
        if jax.process_index():  # only the first process prints
            silence = stack.enter_context(open(os.devnull, "w"))
            stack.enter_context(contextlib.redirect_stdout(silence))
        else:
            stack.enter_context(_lock(out))
        options = {"resume": resume, "mesh": mesh, "tensorboard": log == "tensorboard"}
        return run(out, epochs=epochs, seed=seed, **options)


@contextlib.contextmanager
def _lock(folder: Path) -> Iterator[None]:
    """Hold a folder's lock, which the kernel releases when the process ends."""
    with (folder / ".lock").open("a") as file:
        try:
            fcntl = importlib.import_module("fcntl")
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"out must be a folder in which no other run trains, got {folder}, in which one "
                "does. Wait for its end, or pass another --out."
            ) from None
        except (ImportError, OSError) as error:  # Windows, and file systems that have no locks
            print(f"{folder} cannot be locked ({error}): start no other run in it", file=sys.stderr)
        yield


def _classifier(out: Path, **options: Any) -> int:
    """Train the article's run; return the exit status."""
    from jaxsched.examples import digits, train_nnx

    recipe = recipes.yolov5_resnet18()
    training, test = digits.load(seed=options["seed"])
    rows, (model, _) = _run_example(train_nnx, digits, training, recipe, out, **options)
    trace = _write_run(rows, recipe, out)
    if trace is None:
        return 130
    print(f"test accuracy: {train_nnx.accuracy(model, test):.2%} of {len(test.labels)} images")
    report = jaxsched.compare(trace, recipes.recorded("yolov5_resnet18").head(len(trace)))
    print(report)
    return 0 if report else 1


def _detector(out: Path, **options: Any) -> int:
    """Train a detector of drawn shapes with YOLOv5's recipe; return the exit status."""
    from jaxsched.examples import shapes, train_yolov5

    recipe = recipes.yolov5(
        epochs=train_yolov5.EPOCHS, steps_per_epoch=shapes.STEPS_PER_EPOCH, batch_size=shapes.BATCH
    )
    training, test = shapes.load(seed=options["seed"])
    rows, (model, optimizer) = _run_example(train_yolov5, shapes, training, recipe, out, **options)
    if _write_run(rows, recipe, out) is None:
        return 130
    model = train_yolov5.average_model(model, optimizer)
    if not jax.process_index():
        train_yolov5.picture(model, test, out / "boxes.png")
    fit = train_yolov5.fit(model, test)
    print(f"shapes found: {fit.recall:.1%}, mean IoU {fit.iou:.2f}; see {out / 'boxes.png'}")
    report = train_yolov5.check_state(rows.records, recipe)
    print(report)
    return 0 if report else 1


def _run_example(
    example: Any, data: Any, images: Any, recipe: Recipe, out: Path, **options: Any
) -> tuple[Any, tuple[Any, Any]]:
    """Train an example; return the rows of the run, and the trained model and optimizer."""
    from jaxsched.examples import runs

    run = runs.Run(
        create=functools.partial(example.create, recipe, seed=options["seed"]),
        train=example.train,
        batches=functools.partial(data.batches, images, options["epochs"], seed=options["seed"]),
        row=example.Iteration,
        batch_size=data.BATCH,
        steps_per_epoch=data.STEPS_PER_EPOCH,
    )
    return runs.train(run, recipe, out, _show_progress, **options)


def _show_progress(iterations: Iterable[Any], records: list[Any], total: int) -> Iterator[bool]:
    """Run a training with a progress bar, and append its iterations to ``records``.

    Yields:
      After each iteration, whether Ctrl-C was pressed.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    class TwoLines(Progress):
        """80 columns hold the bar or the numbers, not both."""

        def get_renderables(self) -> Iterable[Any]:
            yield self.make_tasks_table(self.tasks)
            yield from (task.description for task in self.tasks)

    pressed = []

    def note(*_: Any) -> None:
        pressed.append(True)
        signal.signal(signal.SIGINT, usual)  # a second Ctrl-C stops at once

    columns = (MofNCompleteColumn(), BarColumn(), TimeRemainingColumn())
    # Several processes would see Ctrl-C at different iterations, and wait for each other.
    alone = jax.process_count() == 1 and threading.current_thread() is threading.main_thread()
    usual = signal.signal(signal.SIGINT, note) if alone else None
    try:
        with TwoLines(*columns) as progress:
            bar = progress.add_task("compiling", total=total, completed=len(records))
            for iteration in iterations:
                records.append(iteration)
                progress.update(bar, advance=1, description=_describe(iteration))
                yield bool(pressed)
    finally:
        if usual is not None:
            signal.signal(signal.SIGINT, usual)


def _write_run(rows: Any, recipe: Recipe, out: Path) -> Trace | None:
    """Write the run's trace and picture; return the trace, or None if the run was stopped."""
    from jaxsched.plot import plot

    trace = Trace.stack([row.hyperparameters for row in rows.records], header_of=recipe.trace(1))
    if rows.records and not jax.process_index():
        trace.save(out / "trace.npz")
        metrics = {
            name: [getattr(row, name) for row in rows.records] for name in ("loss", "accuracy")
        }
        plot(trace, out / "lr.png", metrics=metrics)
        print(f"wrote {out / 'lr.png'}, {out / 'metrics.csv'} and {out / 'trace.npz'}")
    if rows.stopped:
        print(f"stopped after {len(rows.records)} iterations", file=sys.stderr)
        return None
    return trace


def _describe(iteration: Any) -> str:
    rates = "  ".join(
        f"{label} {group['learning_rate']:.5f}"
        for label, group in iteration.hyperparameters.items()
    )
    return f"loss {iteration.loss:.4f}  accuracy {iteration.accuracy:.0%}  rates: {rates}"
