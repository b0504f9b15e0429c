"""The kernels of the compiled update, beside plain Optax's; and the counters simulated on the host."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsched import Recipe, optimizers, param_groups, schedules
from jaxsched.optimizers import Accumulation
from jaxsched.recipes import yolov5_resnet18
from jaxsched.schedules import table

SHAPES = {"kernel": (512, 256), "bias": (256,), "scale": (256,)}
MODEL = 4 * sum(map(np.prod, SHAPES.values()))


def compile_update(tx):
    params = {name: jnp.ones(shape) for name, shape in SHAPES.items()}
    state = tx.init(params)

    def step(gradients, params, state):
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    return jax.jit(step, donate_argnums=(1, 2)).lower(params, params, state).compile()


def temporaries(step):
    return step.memory_analysis().temp_size_in_bytes


def fusions(step):
    return len(re.findall(r" fusion\(", step.as_text().split("\nENTRY", 1)[1]))


def ours(rule):
    groups = {
        label: {
            "learning_rate": group["learning_rate"],
            **({"momentum": group["momentum"]} if rule is optimizers.sgd else {}),
            **({"nesterov": True} if rule is optimizers.sgd else {}),
            "weight_decay": schedules.constant(group["weight_decay"]),
        }
        for label, group in yolov5_resnet18().groups.items()
    }
    return Recipe(groups, rule).optimizer(param_groups.by_leaf_name)


def plain_optax():
    def group(start):
        return optax.chain(
            optax.inject_hyperparams(optax.add_decayed_weights)(weight_decay=lambda i: 1e-4 * i),
            optax.inject_hyperparams(optax.sgd, static_args="nesterov")(
                learning_rate=lambda i: start + 0.1 * i, momentum=lambda i: 0.1 * i, nesterov=True
            ),
        )

    return optax.multi_transform(
        {label: group(k) for k, label in enumerate(("weight", "bias", "norm"))},
        param_groups.by_leaf_name,
    )


@pytest.mark.parametrize("rule", [optimizers.sgd, optimizers.adam, optimizers.adamw])
def test_an_update_stores_nothing_of_the_models_size(rule):
    assert temporaries(compile_update(ours(rule))) < MODEL / 100


def test_plain_optax_stores_the_decayed_gradient():
    assert temporaries(compile_update(plain_optax())) > MODEL / 2


def test_each_leaf_of_sgd_takes_two_kernels():
    """The others belong to the scalars, and their number depends only on the groups."""

    def count_more(tx):
        extra = {f"kernel{k}": (512, 256) for k in range(4)}
        before = fusions(compile_update(tx()))
        SHAPES.update(extra)
        try:
            return fusions(compile_update(tx())) - before
        finally:
            for name in extra:
                del SHAPES[name]

    assert count_more(lambda: ours(optimizers.sgd)) == 2 * 4
    assert count_more(plain_optax) > 2 * 4


def test_a_sweep_of_recipes_compiles_once():
    traced = []

    def rates(lr0, weight_decay, warmup, lrf):
        traced.append(lr0)
        recipe = yolov5_resnet18(
            lr0=lr0, weight_decay=weight_decay, warmup_iterations=warmup, lrf=lrf
        )
        return recipe.at(40)["bias"]["learning_rate"]

    swept = jax.jit(jax.vmap(rates))
    for k in range(2):
        columns = (0.01 * (1 + k + np.arange(8)), 1e-4 * np.arange(8), 50 + np.arange(8))
        rates_by_recipe = swept(*map(jnp.asarray, columns), jnp.linspace(0.1, 1, 8))
    assert len(set(np.asarray(rates_by_recipe).tolist())) == 8
    assert len(traced) == 1


@pytest.mark.parametrize("steps_per_epoch", [None, 1, 7, 40])
@pytest.mark.parametrize("last", [-1, None])
@pytest.mark.parametrize("start", [0, 23])
def test_simulated_counters_equal_those_of_tick(start, last, steps_per_epoch):
    rng = np.random.default_rng(start)
    wait = np.repeat(rng.integers(0, 9, 40), rng.integers(1, 12, 40))[: start + 120]
    accumulation = Accumulation(table(wait), steps_per_epoch, last)
    last, pending, rows = accumulation.update_before(start), 0, []
    for i in range(start, len(wait)):
        _, due, pending = accumulation.tick(*map(jnp.asarray, (i, last, pending)))
        rows.append((wait[i], due, pending if due else 0))
        last, pending = (i, 0) if due else (last, pending)
    simulated = accumulation.simulate(start, len(wait) - start)
    np.testing.assert_array_equal(np.stack(list(simulated.values()), 1), np.array(rows, float))
    assert 0 < simulated["stepped"].sum() < len(rows)
