"""Recipe: hyperparameters in the state, traces, and errors before the training begins."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxsched
from jaxsched import Recipe, Trace, optimizers, param_groups, schedules
from jaxsched.recipes import recorded, yolov5_resnet18

PARAMS = {"conv": {"kernel": jnp.ones((3, 4)), "bias": jnp.ones(4)}, "bn": {"scale": jnp.ones(4)}}
SHORT = {"epochs": 10, "steps_per_epoch": 5, "warmup_iterations": 12}


def train(tx, n, params=PARAMS):
    """The state after each of ``n`` jitted updates, in one compilation."""
    state = tx.init(params)
    traced = []

    @jax.jit
    def step(state):
        traced.append(state)
        return tx.update(params, state, params)[1]

    for _ in range(n):
        state = step(state)
        yield state
    assert len(traced) == 1


WRAPPED = {
    "bare": lambda tx: tx,
    "chain": lambda tx: optax.chain(optax.clip(1.0), tx),
    "apply_if_finite": lambda tx: optax.apply_if_finite(tx, 3),
    "masked": lambda tx: optax.masked(tx, True),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_the_state_holds_the_hyperparameters_in_force(name):
    recipe = yolov5_resnet18(**SHORT)
    states = train(WRAPPED[name](recipe.optimizer(param_groups.by_leaf_name)), 50)
    trace = Trace.stack(map(jaxsched.hyperparameters, states))
    report = jaxsched.compare(trace, recipe)
    assert report, str(report)
    late = Trace(recipe.trace(50, 1).groups)
    assert not jaxsched.compare(trace, late)


def test_1000_iterations_one_compilation():
    recipe = yolov5_resnet18()
    trace = Trace.stack(
        map(jaxsched.hyperparameters, train(recipe.optimizer(param_groups.by_leaf_name), 1000))
    )
    assert jaxsched.compare(trace, recorded("yolov5_resnet18").head(1000))


def test_before_the_first_update_the_state_holds_the_first_values():
    recipe = yolov5_resnet18(**SHORT, start_epoch=4)
    state = recipe.optimizer(param_groups.by_leaf_name).init(PARAMS)
    assert jax.tree.all(
        jax.tree.map(lambda a, b: a == b, jaxsched.hyperparameters(state), recipe.at(20))
    )
    assert int(state.iteration) == recipe.start == 20


def test_scan_over_an_epoch_equals_the_loop():
    recipe = yolov5_resnet18(**SHORT)
    tx = recipe.optimizer(param_groups.by_leaf_name)

    def step(carry, _):
        params, state = carry
        updates, state = tx.update(params, state, params)
        return (optax.apply_updates(params, updates), state), jaxsched.hyperparameters(state)

    (params, _), rows = jax.jit(lambda carry: jax.lax.scan(step, carry, length=50))(
        (PARAMS, tx.init(PARAMS))
    )
    assert jaxsched.compare(Trace(jax.tree.map(np.asarray, rows)), recipe)
    assert np.isfinite(params["conv"]["kernel"]).all()


def test_each_group_is_updated_by_its_own_values():
    recipe = Recipe(
        {
            "weight": {"learning_rate": 0.5, "weight_decay": 1.0},
            "bias": {"learning_rate": schedules.table([0.25, 0.125])},
            "norm": {"learning_rate": 0.0},
        }
    )
    tx = recipe.optimizer(param_groups.by_leaf_name)
    state = tx.init(PARAMS)
    gradients = jax.tree.map(lambda p: 2 * p, PARAMS)
    for rate in (0.25, 0.125):
        updates, state = jax.jit(tx.update)(gradients, state, PARAMS)
        assert (updates["conv"]["kernel"] == -1.5).all()
        assert (updates["conv"]["bias"] == -2 * rate).all()
        assert (updates["bn"]["scale"] == 0).all()


def test_replay_of_a_trace_equals_the_trace():
    recipe = yolov5_resnet18(**SHORT, start_epoch=1)
    trace = recipe.trace(45)
    replayed = Recipe.from_trace(trace)
    assert replayed.start == 5
    assert jaxsched.compare(replayed, trace)
    assert replayed.groups["weight"]["nesterov"] is True
    assert replayed.groups["weight"]["weight_decay"] == np.float32(5e-4)
    mine = jax.tree.leaves(list(train(replayed.optimizer(param_groups.by_leaf_name), 3))[-1].inner)
    theirs = jax.tree.leaves(list(train(recipe.optimizer(param_groups.by_leaf_name), 3))[-1].inner)
    for a, b in zip(mine, theirs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_hyperparameters_of_a_chain_are_merged():
    tx = optax.chain(
        optax.inject_hyperparams(optax.add_decayed_weights)(5e-4),
        optax.inject_hyperparams(optax.sgd)(0.1, 0.9),
    )
    merged = jaxsched.hyperparameters(tx.init(PARAMS))["all"]
    expected = {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 5e-4}
    assert {name: round(float(value), 6) for name, value in merged.items()} == expected


def test_any_optax_rule_may_be_the_update_rule():
    recipe = Recipe({"all": {"learning_rate": lambda i: 0.1 / (1 + i), "b1": 0.8}}, optax.adam)
    tx = recipe.optimizer(lambda params: jax.tree.map(lambda _: "all", params))
    *_, state = train(tx, 3)
    assert float(jaxsched.hyperparameters(state)["all"]["learning_rate"]) == np.float32(0.1 / 3)


def test_at_shows_numbers_only_and_the_rules_defaults():
    values = Recipe({"all": {"learning_rate": 0.1}}).at(jnp.int32(3))["all"]
    assert set(values) == {"learning_rate", "momentum", "dampening", "weight_decay"}
    assert all(value.dtype == np.float32 for value in values.values())


def test_origin_holds_the_factory_and_its_arguments():
    factory, arguments = yolov5_resnet18(epochs=7).origin
    assert factory is yolov5_resnet18
    assert factory(**arguments).trace(9).groups["bias"]["momentum"].shape == (9,)
    assert arguments["epochs"] == 7


TYPE_ERRORS = {
    "epochs-fraction": (
        lambda: yolov5_resnet18(epochs=1.5),
        "epochs must be an integer of at least 1, got 1.5",
    ),
    "rate-word": (
        lambda: yolov5_resnet18(lr0="0.01"),
        "lr0 must be a finite number of at least 0, got '0.01'",
    ),
    "rate-schedule": (
        lambda: yolov5_resnet18(lr0=lambda i: 0.1),
        "lr0 must be a number, got a function. Put a schedule in a Recipe.",
    ),
    "resumed": (
        lambda: yolov5_resnet18(resumed="no"),
        "resumed must be True or False, got 'no'",
    ),
    "accumulation": (
        lambda: Recipe({"all": {"learning_rate": 0.1}}, accumulation=4),
        "accumulation must be an optimizers.Accumulation or None, got 4.",
    ),
    "ema": (
        lambda: Recipe({"all": {"learning_rate": 0.1}}, ema=0.999),
        "ema must be an optimizers.EMA or None, got 0.999.",
    ),
    "rule": (
        lambda: Recipe({"all": {"learning_rate": 0.1}}, "sgd"),
        "update_rule must be a function such as optimizers.sgd, got 'sgd'.",
    ),
    "group-kind": (
        lambda: Recipe({"all": 0.1}),
        "groups must be a mapping of label to {argument: value}.",
    ),
    "groups-kind": (
        lambda: Recipe([{"learning_rate": 0.1}]),
        "groups must be a mapping of label to {argument: value}.",
    ),
    "length": (
        lambda: Recipe({"all": {"learning_rate": 0.1}}, length=10.0),
        "length must be an integer of at least 0, got 10.0",
    ),
    "clip-word": (
        lambda: Recipe({"all": {"learning_rate": 0.1}}, clip_norm="10"),
        "clip_norm must be a finite number of at least 0, got '10'",
    ),
    "switch": (
        lambda: Recipe({"all": {"learning_rate": 0.1, "nesterov": np.zeros(2)}}),
        "nesterov of group all must be True or False, got array([0., 0.])",
    ),
}

ERRORS = {
    "epochs": (
        lambda: yolov5_resnet18(epochs=0),
        "epochs must be an integer of at least 1, got 0",
    ),
    "steps": (
        lambda: yolov5_resnet18(steps_per_epoch=-1),
        "steps_per_epoch must be an integer of at least 1, got -1",
    ),
    "rate": (
        lambda: yolov5_resnet18(lr0=-0.01),
        "lr0 must be a finite number of at least 0, got -0.01",
    ),
    "rate-nan": (
        lambda: yolov5_resnet18(warmup_bias_lr=float("nan")),
        "warmup_bias_lr must be a finite number of at least 0, got nan",
    ),
    "warmup": (
        lambda: yolov5_resnet18(warmup_iterations=-3),
        "warmup_iterations must be a whole number of at least 0, got -3",
    ),
    "warmup-fraction": (
        lambda: yolov5_resnet18(warmup_iterations=1000.5),
        "warmup_iterations must be a whole number of at least 0, got 1000.5",
    ),
    "warmup-infinite": (
        lambda: yolov5_resnet18(warmup_iterations=float("inf")),
        "warmup_iterations must be a whole number of at least 0, got inf",
    ),
    "start": (
        lambda: yolov5_resnet18(epochs=5, start_epoch=5),
        "start_epoch must be below epochs, 5, got 5",
    ),
    "no-group": (lambda: Recipe({}), "groups must hold at least 1 group, got none."),
    "far": (
        lambda: yolov5_resnet18().trace(10, start=2**31 - 5),
        "start + n must be below 2**31, the int32 limit, got 2147483653",
    ),
    "frozen-group": (
        lambda: Recipe({"frozen": {"learning_rate": 0.1}}),
        "labels of groups must be strings other than \"frozen\", got 'frozen'. "
        "What is frozen needs no group.",
    ),
    "unknown-argument": (
        lambda: Recipe({"all": {"lr": 0.1}}),
        "arguments of sgd must be among learning_rate, momentum, dampening, weight_decay, "
        "nesterov, maximize, got lr in group all.",
    ),
    "missing-argument": (
        lambda: Recipe({"all": {"momentum": 0.1}}),
        "group all must have learning_rate, which sgd needs.",
    ),
    "bad-number": (
        lambda: Recipe({"all": {"learning_rate": -1.0}}),
        "learning_rate must be a finite number of at least 0, got -1.0",
    ),
    "no-rows": (
        lambda: yolov5_resnet18().trace(0),
        "n must be an integer of at least 1, got 0",
    ),
    "empty-trace": (
        lambda: Recipe.from_trace(Trace({})),
        "trace must have at least 1 row, got 0.",
    ),
    "trace-of-epochs": (
        lambda: Recipe.from_trace(Trace({"a": {"learning_rate": np.ones(2)}}, clock="epoch")),
        "trace must count iterations or updates, got one that counts epochs. "
        "Record it with its batches.",
    ),
    "trace-of-an-unknown-rule": (
        lambda: Recipe.from_trace(Trace({"a": {"learning_rate": np.ones(2)}}, update_rule="lion9")),
        "trace must name a rule of jaxsched.optimizers, got lion9. Pass update_rule.",
    ),
    "trace-without-a-rule": (
        lambda: Recipe.from_trace(Trace({"a": {"learning_rate": np.ones(2)}})),
        "trace must name a rule of jaxsched.optimizers, got none. Pass update_rule.",
    ),
    "trace-of-a-lambda": (
        lambda: Recipe.from_trace(
            Recipe(
                {"a": {"learning_rate": 0.1}}, lambda learning_rate: optax.sgd(learning_rate)
            ).trace(3)
        ),
        f"trace must name a rule of jaxsched.optimizers, got {__name__}.<lambda>.<locals>.<lambda>. "
        "Pass update_rule.",
    ),
    "trace-of-a-foreign-rule": (
        lambda: Recipe.from_trace(Recipe({"a": {"learning_rate": 0.1}}, optax.adam).trace(3)),
        "trace must name a rule of jaxsched.optimizers, got optax._src.alias.adam. "
        "Pass update_rule.",
    ),
    "two-clips": (
        lambda: Recipe({"all": {"learning_rate": 0.1}}, clip_norm=1.0, clip_value=2.0),
        "clip_norm must be None if clip_value is given, got 1.0 and 2.0. Pass one.",
    ),
    "clock": (
        lambda: Recipe({"all": {"learning_rate": 0.1}}, clock="epoch"),
        "clock must be one of iteration, update, got 'epoch'",
    ),
    "state-of-another": (
        lambda: jaxsched.hyperparameters(optax.sgd(0.1).init(PARAMS)),
        "opt_state must hold the state of a jaxsched optimizer, got tuple without one. "
        "Pass the state of recipe.optimizer(labels).",
    ),
    "two-states": (
        lambda: jaxsched.hyperparameters(
            [optimizers.sgd(schedules.constant(0.1)).init(PARAMS)] * 2
        ),
        "opt_state must hold each hyperparameter of a label once, got dampening of all twice. "
        "Pass one optimizer's state at a time.",
    ),
    "decay-without-parameters": (
        lambda: optimizers.sgd(0.1, weight_decay=0.1).update(
            PARAMS, optimizers.sgd(0.1).init(PARAMS)
        ),
        "weight_decay needs the parameters, got None. Pass params to update.",
    ),
    "unknown-recording": (
        lambda: recorded("yolov9"),
        "name must be one of yolov5_resnet18, got 'yolov9'.",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_bad_input_gets_one_sentence(name):
    call, message = ERRORS[name]
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


@pytest.mark.parametrize("name", TYPE_ERRORS)
def test_a_wrong_type_gets_one_sentence(name):
    call, message = TYPE_ERRORS[name]
    with pytest.raises(TypeError, match=re.escape(message)):
        call()


@pytest.mark.parametrize("value", [True, 1j, [], np.array(["a"]), None, "3"], ids=repr)
@pytest.mark.parametrize("name", ["learning_rate", "momentum"])
def test_values_that_are_not_numbers_are_refused(name, value):
    """1j acted as 0, and True as a switch that no trace states."""
    with pytest.raises(TypeError, match=f"^{name} of group all must be a number or a schedule"):
        Recipe({"all": {"learning_rate": 0.1, name: value}})


def test_leaves_that_are_not_parameters_are_refused():
    tx = Recipe({"weight": {"learning_rate": 0.1}}).optimizer(param_groups.by_leaf_name)
    with pytest.raises(
        TypeError, match=r"^parameters must be arrays or numbers, got str among them"
    ):
        tx.init({"kernel": jnp.ones(2), "name": "text"})


def test_groups_keep_their_order_under_jit():
    group = {"weight_decay": 0.1, "learning_rate": schedules.constant(0.5)}
    recipe = Recipe({"weight": group, "bias": group}, optimizers.adamw)
    orders = []
    jax.jit(lambda i: orders.append([[*g] for g in recipe.at(i).values()] + [[*recipe.at(i)]]))(3)
    assert orders[0] == [[*g] for g in recipe.at(3).values()] + [["weight", "bias"]]


def test_a_function_that_a_foreign_rule_takes_is_no_schedule():
    """A mask that was called with the count turned weight decay off silently."""
    rule = functools.partial(
        optax.adamw, weight_decay=0.5, mask=lambda p: jax.tree.map(lambda x: x.ndim > 1, p)
    )
    params = {"bias": jnp.ones(2), "kernel": jnp.ones((2, 2))}
    zeros = jax.tree.map(jnp.zeros_like, params)
    mine = Recipe({"all": {"learning_rate": 0.1}}, rule).optimizer({"bias": "all", "kernel": "all"})
    updates = [tx.update(zeros, tx.init(params), params)[0] for tx in (mine, rule(0.1))]
    jax.tree.map(np.testing.assert_array_equal, *updates)
    assert (updates[0]["kernel"] != 0).all()
    recipe = Recipe(
        {"all": {"learning_rate": 0.1}}, functools.partial(optax.adam, mu_dtype=jnp.bfloat16)
    )
    assert "mu_dtype" not in recipe.trace(2).groups["all"]


@pytest.mark.parametrize("first", ["bound method", "another body"])
def test_rules_with_the_same_name_are_not_reported_as_equal(first):
    class Scaled:
        def __init__(self, factor):
            self.factor = factor

        def rule(self, learning_rate):
            return optax.scale(self.factor * learning_rate)

    def body(factor):
        def rule(learning_rate):
            return optax.scale(factor * learning_rate)

        return rule

    make = {"bound method": lambda f: Scaled(f).rule, "another body": body}[first]
    rules = [make(1.0), make(-1.0)]
    mine, other = (Recipe({"all": {"learning_rate": 0.1}}, rule, length=3) for rule in rules)
    assert not jaxsched.compare(mine, other)
    assert not jaxsched.compare(other, mine)
    assert jaxsched.compare(mine, Recipe({"all": {"learning_rate": 0.1}}, rules[0], length=3))
    assert "update_rule" in jaxsched.compare(mine.trace(3), other.trace(3)).not_compared


def branching_rate(count):
    """Return a rate as loops compute it that set ``group["lr"]``."""
    return 0.1 * count if count < 10 else 0.1 * (1 + math.cos(math.pi * count / 100))


BY_HAND = Recipe({label: {"learning_rate": branching_rate} for label in ("weight", "bias", "norm")})
TABULATED = {
    label: {"learning_rate": schedules.tabulate(branching_rate, 20)} for label in BY_HAND.groups
}
USES = {
    "trace": lambda recipe, _: recipe.trace(9),
    "optimizer": lambda recipe, _: next(train(recipe.optimizer(param_groups.by_leaf_name), 1)),
    "compare": lambda recipe, _: jaxsched.compare(recipe, recipe, iterations=9),
    "save": lambda recipe, folder: recipe.save(folder / "x.yaml", iterations=9),
    "per_epoch": lambda recipe, _: Recipe(
        {k: {"learning_rate": schedules.per_epoch(g["learning_rate"], 3)} for k, g in recipe.groups.items()}
    ).trace(9),
}  # fmt: skip


@pytest.mark.parametrize("use", USES)
def test_a_function_that_jax_cannot_trace_is_refused_with_the_way_round(use, tmp_path):
    sentence = r"^learning_rate of group weight must be a function .*schedules\.tabulate\(function"
    with pytest.raises(TypeError, match=sentence) as failure:
        USES[use](BY_HAND, tmp_path)
    assert len(str(failure.value)) < 300
    USES[use](Recipe(TABULATED), tmp_path)


@pytest.mark.parametrize("iteration", ["a", None, float("nan")], ids=str)
def test_values_that_are_not_iterations_are_refused(iteration):
    with pytest.raises(TypeError, match="iteration must be an integer, got"):
        Recipe({"all": {"learning_rate": 0.1}}).at(iteration)


def test_complex_rates_are_refused():
    with pytest.raises(TypeError, match="schedules must have real values, got complex"):
        Recipe({"all": {"learning_rate": lambda i: 1j * i}}).at(0)
