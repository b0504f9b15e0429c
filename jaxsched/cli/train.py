"""``jaxsched train``: a network trained on the spot. Its counts are iterations; 0 is the first."""

import importlib
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jaxsched
from jaxsched import recipes
from jaxsched.cli.curves import writable
from jaxsched.recipe import Recipe
from jaxsched.schedules import require
from jaxsched.trace import Trace

RUN = {"epochs": 100, "steps_per_epoch": 30}
"""The article's run, as the package carries its trace."""


def train(
    *,
    recipe: Literal["yolov5_resnet18", "yolov5"] = "yolov5_resnet18",
    epochs: int | None = None,
    out: Path | None = None,
    seed: int = 0,
) -> int:
    """Trains a network with a recipe on the spot, and proves the recipe.

    The run's own hyperparameters, read out of the optimizer's state at each iteration,
    are held against torch's run of the article, or against YOLOv5's recipe; exit status 1
    where they differ.

    Args:
      recipe: yolov5_resnet18 is the article's, a ResNet-18 on handwritten digits; yolov5 is
        YOLOv5's own with accumulation and average, a small detector on drawn shapes.
      epochs: stop after this many of the curve's 100 epochs, or 30 of yolov5.
      out: folder for lr.png, trace.npz and, of the detector, boxes.png; if not given,
        runs/ and the recipe's name.
      seed: of the data, its order, and the network.
    """
    whole = {"yolov5_resnet18": RUN["epochs"], "yolov5": 30}[recipe]
    epochs = whole if epochs is None else epochs
    if not 1 <= epochs <= whole:
        raise ValueError(f"epochs must be from 1 to {whole}, got {epochs}")
    require("seed", seed, "from 0 to 2**63 - 1", lambda v: 0 <= v < 2**63)
    out = Path("runs") / recipe if out is None else out
    writable(out)
    importlib.import_module("jaxsched.plot")  # what is missing is told before the training
    run = _classifier if recipe == "yolov5_resnet18" else _detector
    return run(epochs, out, seed)


def _classifier(epochs: int, out: Path, seed: int) -> int:
    """The article's run."""
    from jaxsched.examples import digits, train_nnx

    recipe = recipes.yolov5_resnet18(epochs=RUN["epochs"], steps_per_epoch=RUN["steps_per_epoch"])
    training, test = digits.load(seed=seed)
    model, optimizer = train_nnx.create(recipe, seed=seed)
    batches = digits.batches(training, epochs, seed=seed)
    rows = _shown(train_nnx.train(model, optimizer, batches), epochs * RUN["steps_per_epoch"])
    trace = _written(rows, recipe, out)
    if trace is None:
        return 130
    print(f"test accuracy: {train_nnx.accuracy(model, test):.2%} of {len(test.labels)} images")
    report = jaxsched.compare(trace, recipes.recorded("yolov5_resnet18").head(len(trace)))
    print(report)
    return 0 if report else 1


def _detector(epochs: int, out: Path, seed: int) -> int:
    """YOLOv5's recipe whole, on a detector of drawn shapes."""
    from jaxsched.examples import shapes, train_yolov5

    recipe = recipes.yolov5(
        epochs=train_yolov5.EPOCHS, steps_per_epoch=shapes.STEPS_PER_EPOCH, batch_size=shapes.BATCH
    )
    training, test = shapes.load(seed=seed)
    model, optimizer = train_yolov5.create(recipe, seed=seed)
    batches = shapes.batches(training, epochs, seed=seed)
    rows = _shown(train_yolov5.train(model, optimizer, batches), epochs * shapes.STEPS_PER_EPOCH)
    if _written(rows, recipe, out) is None:
        return 130
    model = train_yolov5.averaged(model, optimizer)
    train_yolov5.picture(model, test, out / "boxes.png")
    fit = train_yolov5.fit(model, test)
    print(f"shapes found: {fit.found:.1%}, mean IoU {fit.iou:.2f}; see {out / 'boxes.png'}")
    report = train_yolov5.proof(rows.told, recipe)
    print(report)
    return 0 if report else 1


class _Rows(NamedTuple):
    """What each iteration told, and whether the run was stopped by the user."""

    told: list[Any]
    stopped: bool


def _shown(iterations: Iterable[Any], total: int) -> _Rows:
    """Runs a training behind a progress bar; Ctrl-C ends it, with what there is."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    class TwoLines(Progress):
        """80 columns hold the bar or the numbers, not both."""

        def get_renderables(self) -> Iterable[Any]:
            yield self.make_tasks_table(self.tasks)
            yield from (task.description for task in self.tasks)

    told = []
    columns = (MofNCompleteColumn(), BarColumn(), TimeRemainingColumn())
    try:
        with TwoLines(*columns) as progress:
            bar = progress.add_task("compiling", total=total)
            for iteration in iterations:
                told.append(iteration)
                progress.update(bar, advance=1, description=_told(iteration))
    except KeyboardInterrupt:
        return _Rows(told, stopped=True)
    return _Rows(told, stopped=False)


def _written(rows: _Rows, recipe: Recipe, out: Path) -> Trace | None:
    """The run's trace, written with its picture; ``None`` where the run was stopped."""
    from jaxsched.plot import plot

    trace = Trace.stack([row.hyperparameters for row in rows.told], meta=recipe.trace(1).meta)
    if rows.told:
        trace.save(out / "trace.npz")
        plot(trace, out / "lr.png")
        print(f"wrote {out / 'lr.png'} and {out / 'trace.npz'}")
    if rows.stopped:
        print(f"stopped after {len(rows.told)} iterations", file=sys.stderr)
        return None
    return trace


def _told(iteration: Any) -> str:
    rates = "  ".join(
        f"{label} {group['learning_rate']:.5f}"
        for label, group in iteration.hyperparameters.items()
    )
    return f"loss {iteration.loss:.4f}  accuracy {iteration.accuracy:.0%}  rates: {rates}"
