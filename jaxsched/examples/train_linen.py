"""The article's recipe in a Flax Linen loop with ``TrainState``, on handwritten digits.

Run it: ``python -m jaxsched.examples.train_linen``. A row of the trace is an
iteration; 0 is the first batch.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax.training import train_state

import jaxsched
from jaxsched import param_groups, recipes
from jaxsched.examples import digits
from jaxsched.examples.digits import Digits
from jaxsched.examples.resnet_linen import ResNet18

__all__ = ["TrainState", "accuracy", "create", "main", "step"]


class TrainState(train_state.TrainState):
    """Flax's ``TrainState`` with the running statistics of BatchNorm."""

    batch_stats: Any


def create(recipe: jaxsched.Recipe, images: Any, *, seed: int = 0) -> TrainState:
    """Create a network and its optimizer for images of this shape."""
    model = ResNet18(10)
    variables = jax.jit(model.init)(jax.random.key(seed), images)
    tx = recipe.optimizer(param_groups.by_dotted_name)
    state = TrainState.create(apply_fn=model.apply, tx=tx, **variables)
    # Flax starts from a Python int, for which jit would compile the step a second time.
    return state.replace(step=jnp.zeros([], jnp.int32))


@functools.partial(jax.jit, donate_argnums=0)
def step(state: TrainState, batch: Digits) -> tuple[TrainState, jax.Array]:
    """Train on one batch; return the state after the update and the loss before it."""

    def loss_of(params: Any) -> tuple[jax.Array, Any]:
        variables = {"params": params, "batch_stats": state.batch_stats}
        logits, new = state.apply_fn(variables, batch.images, mutable=["batch_stats"])
        losses = optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels)
        return losses.mean(), new["batch_stats"]

    (loss, stats), gradients = jax.value_and_grad(loss_of, has_aux=True)(state.params)
    return state.apply_gradients(grads=gradients, batch_stats=stats), loss


@jax.jit
def accuracy(state: TrainState, data: Digits) -> jax.Array:
    """Return the share of images classified correctly, with the running statistics."""
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    logits: Any = ResNet18(10, train=False).apply(variables, data.images)
    return (logits.argmax(-1) == data.labels).mean()


def main() -> None:
    """Train for two of the article's hundred epochs."""
    recipe = recipes.yolov5_resnet18(epochs=100, steps_per_epoch=digits.STEPS_PER_EPOCH)
    training, test = digits.load()
    state = create(recipe, training.images[:1])
    losses, rows = [], []
    for batch in digits.batches(training, epochs=2):
        state, loss = step(state, batch)
        losses.append(float(loss))
        rows.append(jax.device_get(jaxsched.hyperparameters(state)))
    print(f"loss {losses[0]:.2f} at first, {losses[-1]:.2f} after {len(losses)} iterations")
    print(f"test accuracy {accuracy(state, test):.1%}")
    trace = jaxsched.Trace.stack(rows)
    print(jaxsched.compare(trace, recipes.recorded("yolov5_resnet18").head(len(trace))))


if __name__ == "__main__":
    main()
