"""A loop in Equinox, with Ultralytics' recipe and a tree of labels."""

from typing import cast

import equinox as eqx
import jax
import jax.numpy as jnp
import optax

import jaxsched
from jaxsched import optimizers, recipes


class Model(eqx.Module):
    """Two layers with a norm between."""

    hidden: eqx.nn.Linear
    norm: eqx.nn.LayerNorm
    head: eqx.nn.Linear

    def __init__(self, key: jax.Array) -> None:
        keys = jax.random.split(key)
        self.hidden = eqx.nn.Linear(4, 8, key=keys[0])
        self.norm = eqx.nn.LayerNorm(8)
        self.head = eqx.nn.Linear(8, 3, key=keys[1])

    def __call__(self, x: jax.Array) -> jax.Array:
        return self.head(jax.nn.relu(self.norm(self.hidden(x))))


def main() -> None:
    recipe = recipes.ultralytics(
        epochs=3, steps_per_epoch=4, batch_size=32, args={"lr0": 0.05}, cos_lr=True
    )
    model = Model(jax.random.key(0))
    # Equinox and JAX do not type these results, and for Optax a module is not a tree of parameters.
    params = cast(optax.Params, eqx.filter(model, eqx.is_array))
    static = cast(optax.Params, eqx.filter(model, eqx.is_array, inverse=True))
    tx = recipe.optimizer(
        {
            "hidden/weight": "weight",
            "hidden/bias": "bias",
            "norm/weight": "norm",
            "norm/bias": "bias",
            "head": "frozen",
        }
    )

    @eqx.filter_jit
    def step(
        params: optax.Params, state: optax.OptState, x: jax.Array, y: jax.Array
    ) -> tuple[optax.Params, optax.OptState]:
        def loss_of(params: optax.Params) -> jax.Array:
            model = cast(Model, eqx.combine(params, static))
            logits = jax.vmap(model)(x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        gradients = cast(optax.Updates, jax.grad(loss_of)(params))
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    state = tx.init(params)
    x, y = jax.random.normal(jax.random.key(1), (8, 4)), jnp.arange(8) % 3
    updates_made = 0
    for _ in range(4):
        params, state = step(params, state, x, y)
        updates_made += int(optimizers.stepped(state))
    assert isinstance(state, optimizers.ScheduledState)
    assert int(state.iteration) == 4
    momentum: jax.Array = jaxsched.hyperparameters(state)["weight"]["momentum"]
    print(f"{updates_made} updates in 4 iterations, momentum {float(momentum):.3f}")


if __name__ == "__main__":
    main()
