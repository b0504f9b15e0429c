"""A recipe of one's own: its schedules, its update rule, and a sweep over traced arguments."""

import functools
import tempfile
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

import jaxsched
from jaxsched import lr_scheduler, optimizers, param_groups, recipes, schedules
from jaxsched.schedules import Hyperparameter, Schedule, ScheduleLike


def inverse(count: ArrayLike) -> ArrayLike:
    """A schedule of one's own."""
    return 0.5 / (1 + jnp.asarray(count))


def lion(
    learning_rate: float | jax.Array, b1: float = 0.9, weight_decay: float | jax.Array = 0.0
) -> optax.GradientTransformation:
    """An update rule of one's own, Optax's under these names."""
    return optax.chain(
        optax.scale_by_lion(b1),
        optax.add_decayed_weights(weight_decay),
        optax.scale_by_learning_rate(learning_rate),
    )


def warm_up(target: ScheduleLike) -> Schedule:
    return schedules.warmup(schedules.per_epoch(target, 5), 10, start=0.0)


def rules() -> list[optax.GradientTransformationExtraArgs]:
    """Return every kind of value that a hyperparameter may have."""
    return [
        optimizers.adamw(optax.cosine_decay_schedule(0.1, 10)),
        optimizers.adamw(lambda count: 0.5 / (1 + count)),
        optimizers.adamw(inverse),
        optimizers.adamw(np.float32(0.1)),
        optimizers.adamw(np.asarray(0.1)),
        optimizers.adamw(jnp.asarray(0.1), b1=schedules.constant(0.9)),
        optimizers.sgd(schedules.cosine(10, lrf=0.1), 0.9, nesterov=True),
        optimizers.sgd(lr_scheduler.step_lr(0.1, 3), momentum=np.float64(0.9)),
    ]


def rate(lr0: Hyperparameter) -> jax.Array:
    """Return the rate of iteration 40 for a base rate that JAX traces."""
    return recipes.yolov5_resnet18(lr0=lr0, epochs=4).at(40)["weight"]["learning_rate"]


def main() -> None:
    params = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}
    for tx in rules():
        updates, _ = tx.update(params, tx.init(params), params)
        assert jax.tree.structure(updates) == jax.tree.structure(params)

    recipe = jaxsched.Recipe(
        {
            "weight": {"learning_rate": warm_up(inverse), "weight_decay": np.float32(0.01)},
            "bias": {"learning_rate": optax.linear_schedule(0.1, 0.0, 20), "b1": 0.95},
        },
        update_rule=functools.partial(lion, weight_decay=0.0),
        clip_norm=10.0,
        length=20,
    )
    tx = recipe.optimizer(
        param_groups.by_rule(lambda path: "bias" if path[-1] == "bias" else "weight")
    )
    state = tx.init(params)
    for _ in range(3):
        updates, state = tx.update(params, state, params)
        params = optax.apply_updates(params, updates)
    assert isinstance(state, optimizers.ScheduledState)
    assert int(state.iteration) == 3

    assert jax.jit(rate)(jnp.asarray(0.01)) == rate(jnp.asarray(0.01))
    rates = jax.vmap(rate)(jnp.linspace(0.01, 0.1, 5))
    assert rates.shape == (5,)

    cosine: Schedule = schedules.cosine(100, lrf=0.2)
    faster: Schedule = cosine.replace(lrf=0.1)
    value: jax.Array = faster(np.int64(3))
    assert cosine != faster
    assert value.shape == ()

    article = recipes.yolov5_resnet18(warmup_iterations=0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "recipe.json"
        article.save(path)
        assert jaxsched.Recipe.load(path) == article
    print(f"{cosine!r}, {len(rules())} rules, {rates.size} recipes in one program")


if __name__ == "__main__":
    main()
