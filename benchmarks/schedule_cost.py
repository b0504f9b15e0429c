"""Claim: the schedules add at most 1 % to a jitted training step of ResNet-18.

The article's recipe against the same groups with constant hyperparameters, batches
of 20 images. The schedules are also timed by themselves, because the difference
of whole steps is mostly noise of the machine. On a GPU a call makes many steps
in one program, and evaluates the schedules as many times.
"""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

from benchmarks.timing import interleave, ratio, repeat, report, times_in_a_call
from jaxsched import Recipe, param_groups
from jaxsched.examples.resnet import ResNet18
from jaxsched.recipes import yolov5_resnet18


def training_step(recipe: Recipe):
    """Return a call that makes one step and keeps the state."""
    graph, params, rest = nnx.split(ResNet18(10, rngs=nnx.Rngs(0)), nnx.Param, ...)
    tx = recipe.optimizer(param_groups.by_leaf_name)
    images = jax.random.normal(jax.random.key(0), (20, 32, 32, 3))
    labels = jnp.arange(20) % 10

    def loss(params, rest):
        model = nnx.merge(graph, params, rest, copy=True)
        logits = model(images)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    def step(carry):
        params, state = carry
        updates, state = tx.update(jax.grad(loss)(params, rest), state, params)
        return optax.apply_updates(params, updates), state

    carry = [(nnx.as_pure(params), tx.init(nnx.as_pure(params)))]
    steps = jax.jit(repeat(step, times_in_a_call()))

    def call():
        carry[0] = steps(carry[0])
        return carry[0]

    return call


if __name__ == "__main__":
    recipe = yolov5_resnet18()
    constant = Recipe(
        {
            label: {name: float(value) for name, value in group.items()} | {"nesterov": True}
            for label, group in recipe.at(2000).items()
        }
    )
    at = jax.jit(repeat(lambda carry: (carry[0] + 1, recipe.at(carry[0])), times_in_a_call()))
    carry = jnp.int32(1500), recipe.at(jnp.int32(1500))
    seconds = interleave(
        {
            "step, scheduled": training_step(recipe),
            "step, constant": training_step(constant),
            "the schedules alone": lambda: at(carry),
        },
        rounds=20,
    )
    alone = ratio(seconds, "the schedules alone", "step, constant")
    report(
        "schedule_cost",
        seconds,
        {
            "scheduled / constant": (ratio(seconds, "step, scheduled", "step, constant"), 1.01),
            "schedules alone / step": (alone, 0.01),
        },
    )
