"""A group that is thawed in mid-run, beside torch's parameters that have a gradient again."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

torch = pytest.importorskip("torch", reason="the reference is live torch")

from bounds import BOUND, MUON_BOUND  # noqa: E402
from conftest import long_after  # noqa: E402
from optimizer_settings import RULES, problem, relative_distances, torch_arguments  # noqa: E402

from jaxsched import Recipe, optimizers, param_groups, schedules  # noqa: E402

pytestmark = pytest.mark.torch


def exact_pattern(sentence):
    """Return a pattern of the whole message; under tracing JAX adds a note below."""
    return rf"^{re.escape(sentence)}(\n-+\n|$)"


UPDATES, THAWED_AT = 30, 12
SHAPES = {"stem": (4, 3), "head": (5, 5)}
OPTIONS = {"sgd": {"momentum": 0.9, "nesterov": True}, "rmsprop": {"momentum": 0.9}}


@pytest.fixture(autouse=True)
def float64():
    torch.set_default_dtype(torch.float64)  # for the scalars of ASGD and NAdam
    with jax.enable_x64(True):
        yield
    torch.set_default_dtype(torch.float32)


def thaw_in_torch(rule, arguments):
    start, gradients = problem(SHAPES, np.float64)
    parameters = {leaf: torch.tensor(value) for leaf, value in start.items()}
    optimizer = rule.theirs(parameters.values(), **torch_arguments(rule, arguments, 0))
    rows = []
    for update in range(UPDATES):
        for leaf, p in parameters.items():
            is_frozen = leaf == "stem" and update < THAWED_AT
            p.grad = None if is_frozen else torch.tensor(gradients[leaf][update])
        optimizer.step()
        rows.append({leaf: p.numpy().copy() for leaf, p in parameters.items()})
    return jax.tree.map(lambda *row: np.stack(row), *rows)


def thaw_in_jax(rule, arguments, *, labels, carry=optimizers.carry_state):
    start, gradients = problem(SHAPES, np.float64)
    recipe = Recipe(dict.fromkeys(set(labels.values()), arguments), rule.ours)
    thawed, params = recipe.optimizer(labels), jax.tree.map(jnp.asarray, start)
    tx = recipe.optimizer(param_groups.freeze(labels, "^stem"))
    state, rows = tx.init(params), []
    for update in range(UPDATES):
        if update == THAWED_AT:
            tx, state = thawed, carry(state, thawed, params)
        if update in (0, THAWED_AT):
            step = jax.jit(tx.update)
        gradient = {leaf: jnp.asarray(value[update]) for leaf, value in gradients.items()}
        updates, state = step(gradient, state, params)
        params = optax.apply_updates(params, updates)
        rows.append(params)
    assert int(state.iteration) == UPDATES
    return jax.tree.map(lambda *row: np.stack(row), *rows)


def distance(ours, theirs):
    return max(relative_distances(ours[leaf], theirs[leaf]).max() for leaf in SHAPES)


OWN = {"stem": "stem", "head": "head"}
SHARED = {"stem": "all", "head": "all"}


TOGETHER = ("sgd", "muon", "musgd")


@pytest.mark.parametrize(
    ("name", "labels"),
    long_after(5, [*((name, OWN) for name in RULES), *((name, SHARED) for name in TOGETHER)]),
    ids=[*RULES, *(f"{name} in one group" for name in TOGETHER)],
)
def test_a_thawed_group_continues_as_in_torch(name, labels):
    rule, arguments = RULES[name], {"learning_rate": 0.05, **OPTIONS.get(name, {})}
    theirs = thaw_in_torch(rule, arguments)
    ours = thaw_in_jax(rule, arguments, labels=labels)
    bound = 0.05 * UPDATES * MUON_BOUND if name == "muon" else BOUND
    assert distance(ours, theirs) <= bound


def restart(state, tx, params):
    return tx.init(params)._replace(iteration=state.iteration)


@pytest.mark.parametrize("name", ["sgd", "adam", "adagrad", "rprop", "asgd", "adafactor"])
def test_a_fresh_state_does_not_reproduce_torch(name):
    rule, arguments = (
        RULES[name],
        {"learning_rate": 0.05, **OPTIONS.get(name, {}), **EXTRA.get(name, {})},
    )
    theirs = thaw_in_torch(rule, arguments)
    assert distance(thaw_in_jax(rule, arguments, labels=OWN, carry=restart), theirs) > 1e-4


EXTRA = {"asgd": {"lambd": 0.1}}
PARAMS = {leaf: jnp.ones(shape) for leaf, shape in SHAPES.items()}


def optimizer_of(rule=optimizers.adam, labels=SHARED, frozen="^none$", **arguments):
    group = {"learning_rate": 0.1, **arguments}
    recipe = Recipe(dict.fromkeys(set(labels.values()), group), rule)
    return recipe.optimizer(param_groups.freeze(labels, frozen))


REFUSED = {
    "another rule": (
        optimizer_of(),
        optimizer_of(optimizers.sgd, momentum=0.9),
        PARAMS,
        "opt_state must be of the same update rules as tx, got one that holds exp_avg, exp_avg_sq "
        "where tx holds momentum_buffer.",
    ),
    "a rule that holds nothing": (
        optimizer_of(),
        optimizer_of(optimizers.sgd),
        PARAMS,
        "opt_state must be of the same update rules as tx, got one that holds exp_avg, exp_avg_sq "
        "where tx holds nothing.",
    ),
    "a group that has counted": (
        optimizer_of(frozen="^stem"),
        optimizer_of(),
        PARAMS,
        "parameters of one group must have made equally many updates, got a thawed stem among "
        "others. Give those thawed a label and a group of their own.",
    ),
    "other shapes": (
        optimizer_of(),
        optimizer_of(),
        {**PARAMS, "head": jnp.ones((1, 5))},
        "opt_state must be of parameters of the same shapes, got (5, 5) for (1, 5) at "
        "inner/inner_states/all/inner_state/trees/exp_avg/head.",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_state_that_cannot_be_carried_over_is_refused(case):
    before, tx, params, sentence = REFUSED[case]
    with pytest.raises(ValueError, match=exact_pattern(sentence)):
        optimizers.carry_state(before.init(PARAMS), tx, params)


UNFIT = (
    "the state must be of the parameters that are trained, got one of others. Where a group was "
    "frozen or thawed, pass optimizers.carry_state(opt_state, tx, params)."
)


@pytest.mark.parametrize(("before", "after"), [("^stem", "^none$"), ("^none$", "^stem")])
def test_an_optimizer_names_the_function_that_a_frozen_state_needs(before, after):
    state = optimizer_of(frozen=before).init(PARAMS)
    with pytest.raises(ValueError, match=exact_pattern(UNFIT)):
        optimizer_of(frozen=after).update(PARAMS, state, PARAMS)


def test_a_group_that_is_frozen_drops_its_state_and_pending_gradients_stay():
    groups = {"all": {"learning_rate": 0.1}}
    recipe = Recipe(
        groups, optimizers.adam, accumulation=optimizers.Accumulation(schedules.constant(3))
    )
    tx, frozen = recipe.optimizer(SHARED), recipe.optimizer({"stem": "frozen", "head": "all"})
    _, state = tx.update(PARAMS, tx.init(PARAMS), PARAMS)
    _, state = tx.update(PARAMS, state, PARAMS)
    carried = optimizers.carry_state(state, frozen, PARAMS)
    assert jax.tree.structure(carried) == jax.tree.structure(frozen.init(PARAMS))
    assert int(carried.iteration) == 2
    assert carried.inner.micro_batches == state.inner.micro_batches
    np.testing.assert_array_equal(carried.inner.gradients["head"], state.inner.gradients["head"])
    frozen.update(PARAMS, carried, PARAMS)


BROADCASTS = {
    "a gradient": (
        {**PARAMS, "head": jnp.ones((1, 5))},
        None,
        "the gradient of head must have the parameter's shape (5, 5), got (1, 5). Pass the "
        "gradients of params.",
    ),
    "a state with fewer rows": (
        PARAMS,
        {**PARAMS, "head": jnp.ones((1, 5))},
        "the state must be of the parameters, one of which has shape (5, 5), got exp_avg of shapes "
        "(1, 5) and (5, 5). Pass what init returns for them.",
    ),
    "a state with more axes": (
        PARAMS,
        {**PARAMS, "head": jnp.ones((2, 5, 5))},
        "the state must be of the parameters, one of which has shape (5, 5), got update of shapes "
        "(5, 5) and (2, 5, 5). Pass what init returns for them.",
    ),
}


@pytest.mark.parametrize("accumulates", [False, True])
@pytest.mark.parametrize("jitted", [False, True])
@pytest.mark.parametrize("case", BROADCASTS)
def test_another_shape_that_broadcasts_is_refused(case, jitted, accumulates):
    gradients, other, sentence = BROADCASTS[case]
    rule = Recipe(
        {"all": {"learning_rate": 0.1}},
        optimizers.adam,
        accumulation=optimizers.Accumulation(schedules.constant(1)) if accumulates else None,
    )
    tx = rule.optimizer(SHARED)
    state = tx.init(PARAMS)
    if other is not None and accumulates:
        state = state._replace(inner=state.inner._replace(inner=tx.init(other).inner.inner))
    elif other is not None:
        state = tx.init(other)
    update = jax.jit(tx.update) if jitted else tx.update
    with pytest.raises(ValueError, match=exact_pattern(sentence)):
        update(gradients, state, PARAMS)
    tx.update(PARAMS, tx.init(PARAMS), PARAMS)
