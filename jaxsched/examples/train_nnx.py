"""The article's recipe in a Flax NNX loop, on handwritten digits.

Run it: ``python -m jaxsched.examples.train_nnx``. A row of the trace is an
iteration; 0 is the first batch.
"""

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import jax
import optax
from flax import nnx

import jaxsched
from jaxsched import param_groups, recipes
from jaxsched.examples import digits
from jaxsched.examples.digits import Digits
from jaxsched.examples.resnet import ResNet18

__all__ = ["Iteration", "accuracy", "create", "main", "step", "train"]


class Iteration(NamedTuple):
    """The row of an iteration: loss, accuracy, and the hyperparameters in force."""

    loss: float
    accuracy: float
    hyperparameters: dict[str, dict[str, Any]]


def create(recipe: jaxsched.Recipe, *, seed: int = 0) -> tuple[ResNet18, nnx.Optimizer[ResNet18]]:
    """Create a network and its optimizer."""
    model = ResNet18(10, rngs=nnx.Rngs(seed))
    tx = recipe.optimizer(param_groups.by_dotted_name)
    return model, nnx.Optimizer(model, tx, wrt=nnx.Param)


@nnx.jit(donate_argnums=(0, 1))
def step(
    model: ResNet18, optimizer: nnx.Optimizer[ResNet18], batch: Digits
) -> tuple[jax.Array, jax.Array]:
    """Train on one batch; return its loss and accuracy before the update."""

    def loss_of(model: ResNet18) -> tuple[jax.Array, jax.Array]:
        logits = model(batch.images)
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
        return losses.mean(), (logits.argmax(-1) == batch.labels).mean()

    (loss, accuracy), gradients = nnx.value_and_grad(loss_of, has_aux=True)(model)
    optimizer.update(model, gradients)
    return loss, accuracy


def train(
    model: ResNet18, optimizer: nnx.Optimizer[ResNet18], batches: Iterable[Digits]
) -> Iterator[Iteration]:
    """Train on each batch and yield its row."""
    model.train()
    cached = nnx.cached_partial(step, model, optimizer)  # flattens both once, not at each call
    for batch in batches:
        loss, accuracy = cached(batch)
        read = jax.device_get((loss, accuracy, jaxsched.hyperparameters(optimizer)))
        yield Iteration(float(read[0]), float(read[1]), read[2])


@nnx.jit
def _logits(model: ResNet18, images: jax.typing.ArrayLike) -> jax.Array:
    return model(jax.numpy.asarray(images))


def accuracy(model: ResNet18, data: Digits) -> float:
    """Return the share of images classified correctly, with the running statistics."""
    model.eval()
    return float((_logits(model, data.images).argmax(-1) == data.labels).mean())


def main() -> None:
    """Train for two of the article's hundred epochs."""
    recipe = recipes.yolov5_resnet18(epochs=100, steps_per_epoch=digits.STEPS_PER_EPOCH)
    training, test = digits.load()
    model, optimizer = create(recipe)
    run = list(train(model, optimizer, digits.batches(training, epochs=2)))
    print(f"loss {run[0].loss:.2f} at first, {run[-1].loss:.2f} after {len(run)} iterations")
    print(f"test accuracy {accuracy(model, test):.1%}")
    trace = jaxsched.Trace.stack(row.hyperparameters for row in run)
    print(jaxsched.compare(trace, recipes.recorded("yolov5_resnet18").head(len(run))))


if __name__ == "__main__":
    main()
