"""ReduceLROnPlateau in a Flax Linen loop, stepped outside ``TrainState``, which passes no metric.

Run it: ``python -m jaxsched.examples.plateau_linen``. An epoch is 30 batches; 0 is the first.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from flax.training.train_state import TrainState

from jaxsched import lr_scheduler, optimizers
from jaxsched.examples import digits
from jaxsched.examples.digits import Digits

__all__ = ["PLATEAU", "create", "end_of_epoch", "loss_of", "main", "step"]

PLATEAU = lr_scheduler.reduce_lr_on_plateau(0.05, factor=0.5, patience=1, threshold=0.05)


def create(images: Any, *, seed: int = 0) -> TrainState:
    """Create a small dense network and SGD of rate 1, scaled by the plateau's."""
    model = nn.Sequential([lambda x: x.reshape(len(x), -1), nn.Dense(32), nn.relu, nn.Dense(10)])
    tx = optax.chain(optimizers.sgd(1.0, 0.9), lr_scheduler.scale_on_plateau(PLATEAU))
    params = model.init(jax.random.key(seed), images)["params"]
    return TrainState.create(apply_fn=model.apply, params=params, tx=tx)


def loss_of(params: Any, state: TrainState, batch: Digits) -> jax.Array:
    """Return the mean cross entropy of a batch."""
    logits: Any = state.apply_fn({"params": params}, batch.images)
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels).mean()


@jax.jit
def step(state: TrainState, batch: Digits) -> TrainState:
    """Train on one batch."""
    return state.apply_gradients(grads=jax.grad(loss_of)(state.params, state, batch))


@jax.jit
def end_of_epoch(state: TrainState, test: Digits) -> tuple[TrainState, jax.Array]:
    """Step the plateau with the test loss, as ``scheduler.step(loss)`` does; return state and loss."""
    loss = loss_of(state.params, state, test)
    return state.replace(opt_state=PLATEAU.step(state.opt_state, loss)), loss


def main() -> None:
    """Train for twelve epochs and compare the rates with those of the plateau by itself."""
    training, test = digits.load(size=8)
    state = create(training.images[:1])
    batches = digits.batches(training, epochs=12)
    alone, rates = PLATEAU.init(), []
    for epoch in range(12):
        for _ in range(digits.STEPS_PER_EPOCH):
            state = step(state, next(batches))
        state, loss = end_of_epoch(state, test)
        alone = PLATEAU.step(alone, loss)
        rates.append((float(state.opt_state[1].learning_rate), float(alone.learning_rate)))
        print(f"epoch {epoch}: test loss {loss:.3f}, rate {jnp.float32(rates[-1][0]):.4f}")
    equality = "as" if all(mine == theirs for mine, theirs in rates) else "NOT as"
    print(f"reduced {len(set(rates)) - 1} times, {equality} the scheduler alone")


if __name__ == "__main__":
    main()
