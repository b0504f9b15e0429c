"""A loop in Flax NNX, with the article's recipe and labels by module."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

import jaxsched
from jaxsched import recipes
from jaxsched.flax import by_module


class Model(nnx.Module):
    """Two layers with a norm between."""

    def __init__(self, *, rngs: nnx.Rngs) -> None:
        self.hidden = nnx.Linear(4, 8, rngs=rngs)
        self.norm = nnx.LayerNorm(8, rngs=rngs)
        self.head = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(nnx.relu(self.norm(self.hidden(x))))


@nnx.jit
def step(model: Model, optimizer: nnx.Optimizer[Model], x: jax.Array, y: jax.Array) -> jax.Array:
    def loss_of(model: Model) -> jax.Array:
        return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()

    loss, gradients = nnx.value_and_grad(loss_of)(model)
    optimizer.update(model, gradients)
    return loss


def main() -> None:
    recipe: jaxsched.Recipe = recipes.yolov5_resnet18(epochs=2, steps_per_epoch=3)
    model = Model(rngs=nnx.Rngs(0))
    tx = recipe.optimizer(by_module(model))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    x, y = jax.random.normal(jax.random.key(0), (8, 4)), jnp.arange(8) % 3
    rows: list[dict[str, dict[str, jax.Array]]] = []
    for _ in range(6):
        loss = step(model, optimizer, x, y)
        rows.append(jaxsched.hyperparameters(optimizer))
        assert jnp.isfinite(loss)
    run = jaxsched.Trace.stack(rows, header_of=recipe.trace(1))
    report = jaxsched.compare(run, recipe)
    assert report, str(report)
    rate: float = float(run.groups["bias"]["learning_rate"][0])
    print(f"{len(run)} iterations from {rate:.1f}, {len(report.quantities)} quantities equal")


if __name__ == "__main__":
    main()
