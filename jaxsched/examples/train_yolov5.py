"""YOLOv5's recipe, with accumulation and average, on a detector of drawn shapes.

Run it: ``python -m jaxsched.examples.train_yolov5 [FOLDER]``; with a folder it also
draws ``boxes.png`` there. A row of the trace is an iteration; 0 is the first batch.
"""

import dataclasses
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import jaxsched
from jaxsched import optimizers, param_groups, recipes
from jaxsched._io import atomic_write
from jaxsched.examples import boxes, shapes
from jaxsched.examples.boxes import Detections
from jaxsched.examples.detector import Detector
from jaxsched.examples.shapes import Shapes

__all__ = [
    "EPOCHS",
    "VARIABLES",
    "Fit",
    "Iteration",
    "Optimizer",
    "average_model",
    "check_state",
    "count_labels",
    "create",
    "detect",
    "fit",
    "main",
    "model_arrays",
    "picture",
    "step",
    "train",
]

EPOCHS = 30
VARIABLES = (nnx.Param, nnx.BatchStat)


def model_arrays(model: nnx.Module) -> dict[str, Any]:
    """Return parameters and batch statistics as plain arrays."""
    return nnx.to_pure_dict(nnx.state(model, VARIABLES))


def _is_variable(node: Any) -> bool:
    return isinstance(node, nnx.Variable)


class Optimizer(nnx.Optimizer[Detector]):
    """``nnx.Optimizer`` with the recipe's average of parameters and batch statistics."""

    def __init__(self, model: Detector, recipe: jaxsched.Recipe):
        if recipe.ema is None:
            raise ValueError("recipe must keep an average, got ema=None. Take recipes.yolov5.")
        super().__init__(model, recipe.optimizer(param_groups.by_leaf_name), wrt=nnx.Param)
        self.ema: optimizers.EMA = recipe.ema
        # A Variable for each leaf, as NNX stores the state of the transformation.
        self._average = nnx.data(jax.tree.map(nnx.Variable, self.ema.init(model_arrays(model))))

    @property
    def average(self) -> optimizers.EMAState:
        """The state of the average, as plain arrays."""
        return jax.tree.map(lambda variable: variable[...], self._average, is_leaf=_is_variable)

    def update(self, model: Detector, gradients: Any, /) -> None:  # pyright: ignore
        """Update the model, and the average if the optimizer made an update."""
        super().update(model, gradients)
        new = self.ema.update(self.average, model_arrays(model), optimizers.stepped(self))
        variables = jax.tree.leaves(self._average, is_leaf=_is_variable)
        for variable, value in zip(variables, jax.tree.leaves(new), strict=True):
            variable[...] = value


class Iteration(NamedTuple):
    """The row of an iteration: metrics, and values of the optimizer's state after it.

    Attributes:
      loss: before the update.
      accuracy: the share of shapes that a matched predictor fits, as in ``boxes.loss``.
      hyperparameters: the hyperparameters in force.
      run: ``stepped`` and ``ema_updates``, as in ``Trace.run``.
    """

    loss: float
    accuracy: float
    hyperparameters: dict[str, dict[str, Any]]
    run: dict[str, float]


def create(recipe: jaxsched.Recipe, *, seed: int = 0) -> tuple[Detector, Optimizer]:
    """Create a network and its optimizer, for a recipe with an average such as ``recipes.yolov5``."""
    model = Detector(rngs=nnx.Rngs(seed))
    return model, Optimizer(model, recipe)


@nnx.jit
def step(model: Detector, optimizer: Optimizer, batch: Shapes) -> tuple[jax.Array, jax.Array]:
    """Train on one batch; return its loss and accuracy before the update."""

    def loss_of(model: Detector) -> tuple[jax.Array, jax.Array]:
        return boxes.loss(model(jnp.asarray(batch.images)), batch)

    (loss, accuracy), gradients = nnx.value_and_grad(loss_of, has_aux=True)(model)
    optimizer.update(model, gradients)
    return loss, accuracy


def train(model: Detector, optimizer: Optimizer, batches: Iterable[Shapes]) -> Iterator[Iteration]:
    """Train on each batch and yield its row."""
    model.train()
    for batch in batches:
        loss, accuracy = step(model, optimizer, batch)
        run = {"stepped": optimizers.stepped(optimizer), "ema_updates": optimizer.average.updates}
        read = jax.device_get((loss, accuracy, jaxsched.hyperparameters(optimizer), run))
        run = {name: float(value) for name, value in read[3].items()}
        yield Iteration(float(read[0]), float(read[1]), read[2], run)


def average_model(model: Detector, optimizer: Optimizer) -> Detector:
    """Return the network with averaged parameters, which is the one to evaluate and save."""
    graph, state, rest = nnx.split(model, VARIABLES, ...)
    nnx.replace_by_pure_dict(state, optimizer.average.average)
    return nnx.merge(graph, state, rest)


@nnx.jit
def _detect(model: Detector, images: jax.typing.ArrayLike) -> Detections:
    return boxes.select(model(jnp.asarray(images)))


def detect(model: Detector, images: np.ndarray) -> Detections:
    """Detect shapes in images, with the network's running statistics."""
    model.eval()
    return jax.device_get(_detect(model, images))


class Fit(NamedTuple):
    """Measures of how well boxes fit.

    Attributes:
      iou: IoU of each shape's best box, 0 without one, mean over all shapes.
      recall: share of shapes that a box of their class overlaps by more than half.
      right: share of boxes that overlap a shape of their class by more than half.
    """

    iou: float
    recall: float
    right: float


def fit(model: Detector, data: Shapes) -> Fit:
    """Measure the fit of the network's detections."""
    detections = detect(model, data.images)
    drawn, is_box = data.labels >= 0, detections.scores > 0
    overlap = np.asarray(boxes.iou(data.boxes[:, :, None], detections.boxes[:, None]))
    overlap = np.where(drawn[:, :, None] & is_box[:, None], overlap, 0)
    fits = (overlap > 0.5) & (data.labels[:, :, None] == detections.labels[:, None])
    return Fit(
        float(overlap.max(2)[drawn].mean()),
        float(fits.any(2)[drawn].mean()),
        float(fits.any(1).sum() / max(is_box.sum(), 1)),
    )


def check_state(run: Sequence[Iteration], recipe: jaxsched.Recipe) -> jaxsched.parity.Report:
    """Compare the optimizer's state after each iteration with the recipe."""
    names = run[0].run
    mine = jaxsched.Trace.stack([row.hyperparameters for row in run], start=recipe.start)
    mine = dataclasses.replace(mine, run={k: np.array([row.run[k] for row in run]) for k in names})
    theirs = recipe.trace(len(run))
    theirs = dataclasses.replace(theirs, run={k: theirs.run[k] for k in names})
    return jaxsched.compare(mine, theirs)


def count_labels(labels: np.ndarray) -> str:
    """Return the number of shapes of each class, for a title.

    >>> count_labels(np.array([0, 1, 0])) == ", ".join(f"{n} {c}" for n, c in zip((2, 1), shapes.CLASSES))
    True
    """
    counts = np.bincount(labels, minlength=len(shapes.CLASSES))
    return ", ".join(f"{n} {name}" for n, name in zip(counts, shapes.CLASSES, strict=True) if n)


def picture(model: Detector, data: Shapes, path: Path) -> None:
    """Draw the first 12 images with the boxes of the shapes in white and detections in red."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Rectangle

    detections = detect(model, data.images[:12])
    figure = Figure((12, 4.5), dpi=120, layout="constrained", facecolor="white")
    for k, ax in enumerate(figure.subplots(2, 6).flat):
        ax.imshow(data.images[k], extent=(0, shapes.SIZE, shapes.SIZE, 0))
        ax.set_axis_off()
        labels = detections.labels[k][detections.scores[k] > 0]
        ax.set_title(count_labels(np.asarray(labels)), fontsize=8)
        for rows, colour, width in (
            (data.boxes[k][data.labels[k] >= 0], "white", 2.5),
            (detections.boxes[k][detections.scores[k] > 0], "red", 1.2),
        ):
            for x, y, w, h in rows:
                corner = (x - w / 2, y - h / 2)
                ax.add_patch(Rectangle(corner, w, h, fill=False, color=colour, linewidth=width))
    with atomic_write(path) as file:
        figure.savefig(file, format="png")


def main(folder: str | None = None) -> None:
    """Train for thirty epochs, which takes a few minutes on two cores."""
    recipe = recipes.yolov5(
        epochs=EPOCHS, steps_per_epoch=shapes.STEPS_PER_EPOCH, batch_size=shapes.BATCH
    )
    training, test = shapes.load()
    model, optimizer = create(recipe)
    run = list(train(model, optimizer, shapes.batches(training, EPOCHS)))
    print(f"loss {run[0].loss:.1f} at first, {run[-1].loss:.1f} after {len(run)} iterations")
    model = average_model(model, optimizer)
    iou, recall, right = fit(model, test)
    print(f"found {recall:.1%} of {(test.labels >= 0).sum()} shapes, mean IoU {iou:.2f}")
    print(f"of the boxes {right:.1%} are right")
    if folder is not None:
        Path(folder).mkdir(parents=True, exist_ok=True)
        picture(model, test, Path(folder) / "boxes.png")
        print(f"wrote {Path(folder) / 'boxes.png'}")
    print(check_state(run, recipe))


if __name__ == "__main__":
    main(*sys.argv[1:])
