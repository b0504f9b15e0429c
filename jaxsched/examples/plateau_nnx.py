"""ReduceLROnPlateau in a Flax NNX loop, stepped outside the update in the optimizer's state.

Run it: ``python -m jaxsched.examples.plateau_nnx``. An epoch is 30 batches; 0 is the first.
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from jaxsched import lr_scheduler, optimizers
from jaxsched.examples import digits
from jaxsched.examples.digits import Digits

__all__ = ["PLATEAU", "create", "end_of_epoch", "loss_of", "main", "step"]

PLATEAU = lr_scheduler.reduce_lr_on_plateau(0.05, factor=0.5, patience=1, threshold=0.05)


def create(*, size: int, seed: int = 0) -> tuple[nnx.Sequential, nnx.Optimizer[nnx.Sequential]]:
    """Create a small dense network and SGD of rate 1, scaled by the plateau's."""
    rngs = nnx.Rngs(seed)
    layers = nnx.Linear(size * size * 3, 32, rngs=rngs), nnx.relu, nnx.Linear(32, 10, rngs=rngs)
    model = nnx.Sequential(lambda x: x.reshape(len(x), -1), *layers)
    tx = optax.chain(optimizers.sgd(1.0, 0.9), lr_scheduler.scale_on_plateau(PLATEAU))
    return model, nnx.Optimizer(model, tx, wrt=nnx.Param)


def loss_of(model: nnx.Sequential, batch: Digits) -> jax.Array:
    """Return the mean cross entropy of a batch."""
    logits = model(batch.images)
    return optax.softmax_cross_entropy_with_integer_labels(logits, batch.labels).mean()


@nnx.jit
def step(model: nnx.Sequential, optimizer: nnx.Optimizer[nnx.Sequential], batch: Digits) -> None:
    """Train on one batch."""
    optimizer.update(model, nnx.grad(loss_of)(model, batch))


@nnx.jit
def end_of_epoch(
    model: nnx.Sequential, optimizer: nnx.Optimizer[nnx.Sequential], test: Digits
) -> jax.Array:
    """Step the plateau with the test loss, as ``scheduler.step(loss)`` does, and return that loss."""
    loss = loss_of(model, test)
    optimizer.opt_state = PLATEAU.step(optimizer.opt_state, loss)
    return loss


def main() -> None:
    """Train for twelve epochs and compare the rates with those of the plateau by itself."""
    training, test = digits.load(size=8)
    model, optimizer = create(size=8)
    batches = digits.batches(training, epochs=12)
    alone, rates = PLATEAU.init(), []
    for epoch in range(12):
        for _ in range(digits.STEPS_PER_EPOCH):
            step(model, optimizer, next(batches))
        loss = end_of_epoch(model, optimizer, test)
        alone = PLATEAU.step(alone, loss)
        rates.append((float(optimizer.opt_state[1].learning_rate), float(alone.learning_rate)))
        print(f"epoch {epoch}: test loss {loss:.3f}, rate {jnp.float32(rates[-1][0]):.4f}")
    equality = "as" if all(mine == theirs for mine, theirs in rates) else "NOT as"
    print(f"reduced {len(set(rates)) - 1} times, {equality} the scheduler alone")


if __name__ == "__main__":
    main()
