"""A loop in Flax Linen with ``TrainState``, with YOLOv5's recipe and labels by a pattern."""

from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from flax.training.train_state import TrainState

import jaxsched
from jaxsched import param_groups, recipes


class Model(nn.Module):
    """Two layers with a norm between."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = nn.LayerNorm()(nn.Dense(8)(x))
        return nn.Dense(3)(nn.relu(x))


def step(state: TrainState, x: jax.Array, y: jax.Array) -> tuple[TrainState, jax.Array]:
    def loss_of(params: Any) -> jax.Array:
        logits = cast(jax.Array, state.apply_fn({"params": params}, x))
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

    loss, gradients = jax.value_and_grad(loss_of)(state.params)
    return state.apply_gradients(grads=gradients), loss


def main() -> None:
    recipe = recipes.yolov5(
        epochs=3, steps_per_epoch=4, hyp={"lr0": 0.02, "lrf": 0.1}, optimizer="AdamW", cos_lr=True
    )
    labels = param_groups.by_pattern({"bias$": "bias", "scale$": "norm"}, default="weight")
    x, y = jax.random.normal(jax.random.key(0), (8, 4)), jnp.arange(8) % 3
    model = Model()
    params = cast(Any, model.init(jax.random.key(1), x))["params"]
    tx = recipe.optimizer(param_groups.freeze(labels, "^Dense_1/"))
    state = TrainState.create(apply_fn=model.apply, params=params, tx=tx)
    jitted = cast(Callable[..., tuple[TrainState, jax.Array]], jax.jit(step))
    for iteration in range(4):
        state, loss = jitted(state, x, y)
        in_force = jaxsched.hyperparameters(state)
        expected = recipe.at(iteration)
        assert in_force["weight"]["learning_rate"] == expected["weight"]["learning_rate"]
        assert jnp.isfinite(loss)
    by_label: dict[str, jax.Array] = {
        label: group["learning_rate"] for label, group in recipe.at(3).items()
    }
    assert recipe.accumulation is not None
    assert recipe.length == 12
    print(", ".join(f"{label} {float(rate):.3e}" for label, rate in by_label.items()))


if __name__ == "__main__":
    main()
