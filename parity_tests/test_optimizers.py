"""Update rules against torch.optim: parameters and state after each of 200 updates."""

import functools
import io
import itertools
import math
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import long_after

torch = pytest.importorskip("torch", reason="the reference is live torch")

from bounds import BOUND, FLOAT32_BOUND, MUON_BOUND, SCALAR_BOUND  # noqa: E402
from optimizer_settings import (  # noqa: E402
    ANY,
    RATES,
    RULES,
    UPDATES,
    max_distances,
    our_arguments,
    our_run,
    problem,
    relative_distances,
    torch_arguments,
    torch_run,
)

import jaxsched  # noqa: E402
from jaxsched import Recipe, optimizers  # noqa: E402
from jaxsched.optimizers._muon import adjustment  # noqa: E402
from jaxsched.schedules import table  # noqa: E402

pytestmark = pytest.mark.torch

EXACT = [rule for rule in RULES.values() if rule.name != "muon"]
by_rule = pytest.mark.parametrize("rule", RULES.values(), ids=lambda rule: rule.name)
# For what the rules share: by default one of each kind of state.
KINDS = ("sgd", "adamw", "muon")
by_kind = pytest.mark.parametrize(
    "rule",
    long_after(len(KINDS), sorted(RULES.values(), key=lambda rule: rule.name not in KINDS)),
    ids=lambda rule: rule.name,
)
by_exact_rule = pytest.mark.parametrize("rule", EXACT, ids=lambda rule: rule.name)


@pytest.fixture
def float64():
    """Both libraries in float64."""
    torch.set_default_dtype(torch.float64)
    with jax.enable_x64(True):
        yield
    torch.set_default_dtype(torch.float32)


def exact_pattern(sentence):
    return f"^{re.escape(sentence)}$"


def label(arguments):
    parts = (
        f"{name}~" if isinstance(value, np.ndarray) else f"{name}={value}"
        for name, value in arguments.items()
        if name != "learning_rate"
    )
    return f"{arguments['learning_rate'][0]:g}," + ",".join(parts)


def cases(rules):
    """Return all settings; by default those run that have a value which no earlier one has."""
    params = []
    for rule in rules:
        seen = set()
        for arguments in reversed(rule.settings()):  # the last have the most arguments
            values = set(label(arguments).split(","))
            marks = [pytest.mark.long] if values <= seen else []
            params.append(
                pytest.param(rule, arguments, id=f"{rule.name}-{label(arguments)}", marks=marks)
            )
            seen |= values
    return params


def run_both(rule, arguments, dtype):
    start, gradients = problem(rule.shapes, dtype)
    ours = our_run(rule.ours(**our_arguments(arguments)), start, gradients)
    return ours, torch_run(rule, arguments, start, gradients)


@pytest.mark.parametrize(("rule", "arguments"), cases(EXACT))
def test_200_updates_in_float64(rule, arguments, float64):
    distances = max_distances(*run_both(rule, arguments, np.float64))
    assert {name: far for name, far in distances.items() if not far <= BOUND} == {}


@pytest.mark.parametrize("leaf", ANY)
def test_nan_in_any_leaf_is_detected(leaf):
    start, gradients = problem(ANY, np.float32)
    run = our_run(optimizers.sgd(0.1, 0.9), start, gradients)
    broken = jax.tree.map(np.copy, run)
    broken.params[leaf][-1, 0] = np.nan
    broken.state["momentum_buffer"][leaf][-1, 0] = np.nan
    assert max_distances(run, run) == dict.fromkeys(max_distances(run, run), 0.0)
    seen = max_distances(broken, run)
    assert not seen["params"] <= BOUND
    assert not seen["momentum_buffer"] <= BOUND


@by_exact_rule
def test_one_update_late_fails(rule, float64):
    ours, theirs = run_both(rule, rule.settings()[0], np.float64)
    late = [
        relative_distances(ours.params[leaf][1:], p[:-1]).max() for leaf, p in theirs.params.items()
    ]
    assert np.min(late) > BOUND


@pytest.mark.parametrize(("rule", "arguments"), cases([RULES["muon"]]))
def test_muon_within_its_bound(rule, arguments, float64):
    ours, theirs = run_both(rule, arguments, np.float64)
    assert max_distances(ours, theirs)["momentum_buffer"] <= BOUND
    rate = np.cumsum(arguments["learning_rate"])
    for leaf, p in theirs.params.items():
        path = rate * adjustment(rule.shapes[leaf], arguments.get("adjust_lr_fn"))
        far = np.abs(ours.params[leaf] - p).max((1, 2)) / path
        assert far.max() <= MUON_BOUND, f"{leaf} at update {far.argmax()}: {far.max():.3f}"
    late = [np.abs(ours.params[leaf][1] - p[0]).max() for leaf, p in theirs.params.items()]
    assert min(late) > MUON_BOUND * arguments["learning_rate"][0]


@pytest.mark.parametrize("setting", long_after(1, [-1, 0]))
@by_exact_rule
def test_200_updates_in_float32(rule, setting):
    ours, theirs = run_both(rule, rule.settings()[setting], np.float32)
    assert max_distances(ours, theirs._replace(state={}))["params"] <= FLOAT32_BOUND * 2**-23


@pytest.mark.parametrize("name", ["nadam", "asgd"])
def test_float64_parameters_beside_float32_scalars(name):
    rule = RULES[name]
    for arguments in (rule.settings()[0], rule.settings()[-1]):
        with jax.enable_x64(True):
            distance = max_distances(*run_both(rule, arguments, np.float64))["params"]
        assert BOUND < distance <= SCALAR_BOUND


@by_kind
def test_the_first_updates_eagerly(rule, float64):
    arguments = rule.settings()[-1]
    start, gradients = problem(rule.shapes, np.float64)
    jitted = our_run(rule.ours(**our_arguments(arguments)), start, gradients)
    tx = rule.ours(**our_arguments(arguments))
    params = jax.tree.map(jnp.asarray, start)
    state = tx.init(params)
    for i in range(3):
        updates, state = tx.update({k: g[i] for k, g in gradients.items()}, state, params)
        params = optax.apply_updates(params, updates)
        # Muon's bfloat16 may be rounded in the other direction.
        bound = MUON_BOUND if rule.name == "muon" else BOUND
        for leaf, p in params.items():
            assert relative_distances(np.asarray(p)[None], jitted.params[leaf][i][None]) <= bound


def save_and_load(tree):
    """Write a tree to a file and read it back."""
    leaves, structure = jax.tree.flatten(tree)
    file = io.BytesIO()
    np.savez(file, **{str(k): np.asarray(leaf) for k, leaf in enumerate(leaves)})
    file.seek(0)
    with np.load(file, allow_pickle=False) as archive:
        loaded = [jnp.asarray(archive[str(k)]) for k in range(len(leaves))]
    return jax.tree.unflatten(structure, loaded)


@by_kind
def test_saved_and_loaded_half_way(rule):
    arguments = rule.settings()[-1]
    start, gradients = problem(rule.shapes, np.float32)
    tx = rule.ours(**our_arguments(arguments))
    through = our_run(tx, start, gradients)
    again = our_run(tx, start, gradients, interrupted=save_and_load)
    jax.tree.map(np.testing.assert_array_equal, through, again)


def widen(x):
    return x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x


@by_kind
def test_half_precision_keeps_float32_hyperparameters(rule):
    arguments = rule.settings()[-1]
    start, gradients = problem(rule.shapes, np.float32)
    half = jax.tree.map(lambda p: jnp.asarray(p, jnp.bfloat16), start)
    gradient = {leaf: jnp.asarray(g[0], jnp.bfloat16) for leaf, g in gradients.items()}
    tx = rule.ours(**our_arguments(arguments))
    update = jax.jit(tx.update)
    updates, state = update(gradient, tx.init(half), half)
    values = jaxsched.hyperparameters(state)["all"]
    assert {value.dtype for value in values.values()} == {jnp.dtype("float32")}
    assert values["learning_rate"] == np.float32(arguments["learning_rate"][0])
    wide = jax.tree.map(widen, (gradient, half))
    exact, _ = update(wide[0], jax.tree.map(widen, tx.init(half)), wide[1])
    for leaf, update in updates.items():
        assert update.dtype == jnp.bfloat16
        np.testing.assert_array_equal(update, exact[leaf].astype(jnp.bfloat16))


@by_rule
def test_three_groups_in_a_recipe(rule, float64):
    settings = rule.settings()
    groups = dict(zip(rule.shapes, (settings[0], settings[-2], settings[-1]), strict=True))
    for group in groups.values():
        # torch's Adagrad uses the one of its constructor for all groups.
        group.pop("initial_accumulator_value", None)
    recipe = Recipe({k: our_arguments(group) for k, group in groups.items()}, rule.ours)
    tx = recipe.optimizer({leaf: leaf for leaf in rule.shapes})
    start, gradients = problem(rule.shapes, np.float64)
    parameters = {leaf: torch.tensor(value) for leaf, value in start.items()}
    theirs = rule.theirs(
        [{"params": [p], **torch_arguments(rule, groups[k], 0)} for k, p in parameters.items()]
    )
    params = jax.tree.map(jnp.asarray, start)
    state = tx.init(params)
    traced = []

    @jax.jit
    def step(params, state, gradient):
        traced.append(1)
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    for i in range(20):
        gradient = {leaf: g[i] for leaf, g in gradients.items()}
        params, state = step(params, state, gradient)
        for (leaf, group), torch_group in zip(groups.items(), theirs.param_groups, strict=True):
            torch_group.update(torch_arguments(rule, group, i))
            parameters[leaf].grad = torch.tensor(gradient[leaf])
        theirs.step()
        # Muon's steps are compared relative to the sum of the rates.
        bound = MUON_BOUND * (i + 1) if rule.name == "muon" else BOUND
        for leaf, p in parameters.items():
            assert relative_distances(np.asarray(params[leaf])[None], p.numpy()[None]) <= bound
    assert len(traced) == 1


def twenty_updates(update_rule, group, shapes):
    """Return the parameters after 20 jitted float32 updates of a recipe with one group."""
    start, gradients = problem(shapes, np.float32)
    tx = Recipe({"all": group}, update_rule).optimizer(dict.fromkeys(shapes, "all"))
    params = jax.tree.map(jnp.asarray, start)
    state, step = tx.init(params), jax.jit(tx.update)
    for i in range(20):
        updates, state = step({leaf: g[i] for leaf, g in gradients.items()}, state, params)
        params = optax.apply_updates(params, updates)
    return jax.tree.map(np.asarray, params)


@by_kind
def test_a_rule_inside_another_function_gives_its_bits(rule):
    """Rules take float64 scalars; with b2 rounded to float32, 1 - b2 would be 1.3e-5 off."""
    arguments = next((a for a in rule.settings() if "b2" in a), rule.settings()[-1])
    group = our_arguments(arguments)
    rate = {"learning_rate": group["learning_rate"]}
    others = {name: value for name, value in group.items() if name not in rate}

    @functools.wraps(rule.ours)
    def wrap(*args, **kwargs):
        return rule.ours(*args, **kwargs)

    expected = twenty_updates(rule.ours, group, rule.shapes)
    for update_rule, values in [
        (functools.partial(rule.ours, **others), rate),
        (functools.partial(functools.partial(rule.ours, *rate.values()), **others), {}),
        (functools.partial(wrap, **others), rate),
    ]:
        params = twenty_updates(update_rule, values, rule.shapes)
        for leaf, p in expected.items():
            np.testing.assert_array_equal(params[leaf], p)


def test_a_function_of_ones_own_around_adam_gives_its_bits():
    """With b2 rounded to float32 first, as a foreign rule gets it, bits differ."""
    b2 = np.linspace(0.99, 0.999, 20)

    def adam_with_b2(learning_rate, b2):
        return optimizers.adam(learning_rate, b2=b2)

    group = {"learning_rate": 0.01, "b2": table(b2)}
    mine = twenty_updates(adam_with_b2, group, ANY)
    expected = twenty_updates(optimizers.adam, group, ANY)
    rounded = twenty_updates(optimizers.adam, {**group, "b2": table(np.float32(b2))}, ANY)
    for leaf, p in expected.items():
        np.testing.assert_array_equal(mine[leaf], p)
        assert (rounded[leaf] != p).any()


@pytest.mark.parametrize(
    ("build", "dtype"), [(optimizers.sgd, jnp.float64), (optax.sgd, jnp.float32)]
)
def test_a_foreign_rule_gets_rounded_values(build, dtype):
    received = []

    def update_rule(learning_rate):
        received.append(learning_rate.dtype)
        return build(learning_rate)

    twenty_updates(update_rule, {"learning_rate": table(np.linspace(0.1, 0.2, 20))}, ANY)
    # The first call, by the recipe itself, inspects the kind of rule.
    assert received[0] == jnp.float32
    assert set(received[1:]) == {jnp.dtype(dtype)}


@by_rule
def test_vmap_over_the_rate(rule, float64):
    start, gradients = problem(rule.shapes, np.float64)
    gradient = {leaf: g[0] for leaf, g in gradients.items()}
    rates = jnp.array([1e-4, 1e-2, 1.0])

    def update(rate):
        tx = rule.ours(rate)
        updates, _ = tx.update(gradient, tx.init(start), start)
        return optax.apply_updates(start, updates)

    together = jax.jit(jax.vmap(update))(rates)
    one = jax.jit(update)
    alone = [one(rate) for rate in rates]
    for leaf, p in together.items():
        far = relative_distances(np.asarray(p), np.stack([params[leaf] for params in alone]))
        assert far.max() <= (MUON_BOUND if rule.name == "muon" else BOUND)


def test_rprop_reads_the_rate_once_and_asgd_late():
    start, gradients = problem(ANY, np.float32)
    once = our_run(optimizers.rprop(0.5), start, gradients)
    moved = our_run(optimizers.rprop(table([0.5, *range(1, UPDATES)])), start, gradients)
    jax.tree.map(np.testing.assert_array_equal, once.params, moved.params)
    rates = RATES["large"].copy()
    straight = our_run(optimizers.asgd(table(rates)), start, gradients)
    rates[100] = 7.0
    bent = our_run(optimizers.asgd(table(rates)), start, gradients)
    for leaf in start:
        parted = (straight.params[leaf] != bent.params[leaf]).reshape(UPDATES, -1).any(1)
        assert parted.argmax() == 101


def test_rmsprop_begins_its_buffer_where_torch_fails():
    rule, rates = RULES["rmsprop"], RATES["small"]
    momentum = np.where(np.arange(UPDATES) < 3, 0.0, 0.9)
    arguments = {"learning_rate": rates, "momentum": momentum}
    start, gradients = problem(ANY, np.float32)
    with pytest.raises(KeyError, match="momentum_buffer"):
        torch_run(rule, arguments, start, gradients)
    ours = our_run(rule.ours(**our_arguments(arguments)), start, gradients)
    assert all(np.isfinite(p).all() for p in ours.params.values())


BETAS = ["adam", "adamw", "nadam", "radam", "adamax"]
EPS = [*BETAS, "adagrad", "adadelta", "rmsprop"]
REFUSED = [
    # The ValueErrors of torch itself. Those on tensors of betas, foreach and capturable have no
    # counterpart: betas are two numbers here, and there is one implementation.
    (
        [*(rule.ours for rule in RULES.values())],
        {"learning_rate": -1.0},
        "learning_rate must be a finite number of at least 0, got -1.0",
    ),
    (
        [*(rule.ours for rule in RULES.values())],
        {"learning_rate": jnp.ones(2)},
        "learning_rate must be a scalar, got shape (2,).",
    ),
    (
        [rule.ours for rule in RULES.values() if rule.name != "rprop"],
        {"weight_decay": -0.1},
        "weight_decay must be a finite number of at least 0, got -0.1",
    ),
    (
        [RULES[name].ours for name in EPS],
        {"eps": -1e-8},
        "eps must be a finite number of at least 0, got -1e-08",
    ),
    (
        [RULES[name].ours for name in BETAS],
        {"b1": 1.0},
        "b1 must be at least 0 and below 1, got 1.0",
    ),
    (
        [RULES[name].ours for name in BETAS],
        {"b2": -0.5},
        "b2 must be at least 0 and below 1, got -0.5",
    ),
    (
        [RULES[name].ours for name in ["sgd", "rmsprop", "muon", "musgd"]],
        {"momentum": -0.9},
        "momentum must be a finite number of at least 0, got -0.9",
    ),
    (
        [optimizers.sgd],
        {"nesterov": True},
        "nesterov must go with a momentum above 0 and no dampening, "
        "got momentum=0.0, dampening=0.0. Pass nesterov=False.",
    ),
    (
        [optimizers.nadam],
        {"momentum_decay": -1.0},
        "momentum_decay must be a finite number of at least 0, got -1.0",
    ),
    (
        [optimizers.adagrad],
        {"lr_decay": -1.0},
        "lr_decay must be a finite number of at least 0, got -1.0",
    ),
    (
        [optimizers.adagrad],
        {"initial_accumulator_value": -1.0},
        "initial_accumulator_value must be a finite number of at least 0, got -1.0",
    ),
    ([optimizers.adadelta], {"rho": 1.5}, "rho must be from 0 to 1, got 1.5"),
    (
        [optimizers.rmsprop],
        {"alpha": -0.5},
        "alpha must be a finite number of at least 0, got -0.5",
    ),
    ([optimizers.rprop], {"eta_minus": 1.0}, "eta_minus must be above 0 and below 1, got 1.0"),
    ([optimizers.rprop], {"eta_plus": 0.9}, "eta_plus must be a finite number above 1, got 0.9"),
    (
        [optimizers.muon],
        {"adjust_lr_fn": "other"},
        'adjust_lr_fn must be None, "original" or "match_rms_adamw", got \'other\'',
    ),
    ([optimizers.muon], {"ns_steps": 100}, "ns_steps must be below 100, got 100"),
    (
        [optimizers.muon],
        {"ns_coefficients": (1.0, 2.0)},
        "ns_coefficients must be 3 numbers, got (1.0, 2.0)",
    ),
    ([optimizers.adafactor], {"beta2_decay": 0.5}, "beta2_decay must be at most 0, got 0.5"),
    (
        [optimizers.adafactor],
        {"eps1": -1.0},
        "eps1 must be a finite number of at least 0, got -1.0",
    ),
    (
        [optimizers.adafactor],
        {"eps2": -1.0},
        "eps2 must be a finite number of at least 0, got -1.0",
    ),
    ([optimizers.adafactor], {"d": 0.5}, "d must be at least 1, got 0.5"),
    # Our own errors.
    ([optimizers.muon], {"eps": -1.0}, "eps must be a finite number of at least 0, got -1.0"),
    (
        [optimizers.sgd],
        {"dampening": -1.0},
        "dampening must be a finite number of at least 0, got -1.0",
    ),
    ([optimizers.asgd], {"lambd": -1.0}, "lambd must be a finite number of at least 0, got -1.0"),
    (
        [optimizers.asgd],
        {"alpha": math.inf},
        "alpha must be a finite number of at least 0, got inf",
    ),
    ([optimizers.asgd], {"t0": -1.0}, "t0 must be a finite number of at least 0, got -1.0"),
    (
        [optimizers.rprop],
        {"step_size_min": -1.0},
        "step_size_min must be a finite number of at least 0, got -1.0",
    ),
    (
        [optimizers.rprop],
        {"step_size_max": math.nan},
        "step_size_max must be a finite number of at least 0, got nan",
    ),
    ([optimizers.muon], {"ns_steps": -1}, "ns_steps must be an integer of at least 0, got -1"),
    (
        [optimizers.muon, *(RULES[name].ours for name in EPS)],
        {"eps": 1e-40},
        "eps must be 0 or at least 1.1754944e-38, below which XLA takes float32 for 0, got 1e-40",
    ),
    (
        [optimizers.adafactor],
        {"eps1": 1e-20},
        "eps1 must be 0 or at least 1.084203e-19, below whose square XLA takes float32 for 0, "
        "got 1e-20",
    ),
]


@pytest.mark.parametrize(
    ("rule", "arguments", "sentence"),
    [
        pytest.param(rule, arguments, sentence, id=f"{rule.__name__}-{next(iter(arguments))}")
        for rules, arguments, sentence in REFUSED
        for rule in rules
    ],
)
def test_refusals(rule, arguments, sentence):
    with pytest.raises(ValueError, match=exact_pattern(sentence)):
        rule(**{"learning_rate": 0.1, **arguments})


@pytest.mark.parametrize("arguments", [a for _, a, _ in REFUSED[:22]], ids=lambda a: next(iter(a)))
def test_torch_refuses_them_too(arguments):
    rules = next(rules for rules, other, _ in REFUSED if other is arguments)
    for ours in rules:
        rule = RULES[ours.__name__]
        if rule.name == "musgd":  # Ultralytics' class refuses nothing
            continue
        values = {"learning_rate": 0.1, **arguments}
        if isinstance(values["learning_rate"], jax.Array):
            values["learning_rate"] = torch.ones(2)
        with pytest.raises(ValueError, match=r"."):
            update_in_torch(rule, torch_arguments(rule, values, 0))


def update_in_torch(rule, arguments):
    """Make one update, because Muon's iteration checks its arguments only there."""
    parameter = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = rule.theirs([parameter], **arguments)
    parameter.grad = torch.ones(2, 2)
    optimizer.step()


@pytest.mark.parametrize(
    ("tx", "name"),
    [
        *(
            (rule.ours(0.1, weight_decay=0.1), "weight_decay")
            for rule in EXACT
            if rule.name != "rprop"
        ),
        (optimizers.nadam(0.1), "nadam"),
        (optimizers.asgd(0.1), "asgd"),
        (optimizers.adafactor(0.1), "adafactor"),
    ],
)
def test_params_are_asked_for(tx, name):
    gradient = jnp.ones((2, 2))
    sentence = f"{name} needs the parameters, got None. Pass params to update."
    with pytest.raises(ValueError, match=exact_pattern(sentence)):
        tx.update(gradient, tx.init(gradient))


def test_muon_refuses_what_is_not_a_matrix():
    sentence = (
        "parameters of muon must be 2-D, got head/bias of shape (3,). Give them another rule."
    )
    with pytest.raises(ValueError, match=exact_pattern(sentence)):
        optimizers.muon(0.1).init({"head": {"bias": jnp.ones(3), "kernel": jnp.ones((2, 3))}})


# Clipping. The two libraries sum the norm in different orders.
CLIP_BOUND = {np.float64: 1e-15, np.float32: 4 * 2**-23}


@pytest.mark.parametrize("dtype", long_after(1, [np.float64, np.float32]))
@pytest.mark.parametrize("norm_type", [2.0, 1.0, 3.0, math.inf, "inf", -math.inf, 0, -1.0])
@pytest.mark.parametrize("max_norm", [1e-3, 1.0, 1e3, math.inf])
def test_clip_by_norm(max_norm, norm_type, dtype):
    _, gradients = problem(ANY, dtype)
    parameters = {
        leaf: torch.nn.Parameter(
            torch.zeros(shape, dtype=torch.float64 if dtype == np.float64 else torch.float32)
        )
        for leaf, shape in ANY.items()
    }
    with jax.enable_x64(dtype == np.float64):
        tx = optimizers.clip_grad_norm(max_norm, norm_type=norm_type)
        for i in range(10):
            gradient = {leaf: g[i] for leaf, g in gradients.items()}
            for leaf, p in parameters.items():
                p.grad = torch.tensor(gradient[leaf])
            torch.nn.utils.clip_grad_norm_(parameters.values(), max_norm, norm_type)
            clipped, _ = jax.jit(tx.update)(gradient, optax.EmptyState())
            for leaf, p in parameters.items():
                assert clipped[leaf].dtype == dtype
                far = relative_distances(np.asarray(clipped[leaf])[None], p.grad.numpy()[None])
                assert far <= CLIP_BOUND[dtype]


def test_clip_of_a_norm_of_just_max_norm():
    gradient = np.array([1.0], np.float32)
    p = torch.nn.Parameter(torch.zeros(1))
    p.grad = torch.tensor(gradient)
    torch.nn.utils.clip_grad_norm_([p], 1.0)
    ours, _ = optimizers.clip_grad_norm(1.0).update(gradient, optax.EmptyState())
    assert float(ours[0]) == float(p.grad[0]) < 1.0
    theirs, _ = optax.clip_by_global_norm(1.0).update(gradient, optax.EmptyState())
    assert theirs[0] == 1.0


@pytest.mark.parametrize("special", [math.nan, math.inf, 0.0])
def test_clip_of_special_gradients(special):
    gradient = {"a": np.full(3, special, np.float32), "b": np.ones(2, np.float32)}
    parameters = {leaf: torch.nn.Parameter(torch.zeros(g.shape)) for leaf, g in gradient.items()}
    for leaf, p in parameters.items():
        p.grad = torch.tensor(gradient[leaf])
    torch.nn.utils.clip_grad_norm_(parameters.values(), 0.5)
    ours, _ = optimizers.clip_grad_norm(0.5).update(gradient, optax.EmptyState())
    for leaf, p in parameters.items():
        np.testing.assert_allclose(ours[leaf], p.grad.numpy(), rtol=CLIP_BOUND[np.float32])


def test_clip_by_value():
    _, gradients = problem(ANY, np.float32)
    for leaf, g in gradients.items():
        p = torch.nn.Parameter(torch.zeros(ANY[leaf]))
        p.grad = torch.tensor(g[0])
        for most in (math.inf, 0.7):
            torch.nn.utils.clip_grad_value_([p], most)
            ours, _ = optimizers.clip_grad_value(most).update(g[0], optax.EmptyState())
            np.testing.assert_array_equal(ours, p.grad.numpy())


@pytest.mark.parametrize(
    ("build", "sentence"),
    [
        (
            lambda: optimizers.clip_grad_norm(-1.0),
            "max_norm must be at least 0, got -1.0",
        ),
        (lambda: optimizers.clip_grad_norm(math.nan), "max_norm must be at least 0, got nan"),
        (
            lambda: optimizers.clip_grad_norm(1.0, norm_type="two"),
            'norm_type must be a number, "inf" or "-inf", got \'two\'',
        ),
        (
            lambda: optimizers.clip_grad_norm(1.0, norm_type=math.nan),
            'norm_type must be a number, "inf" or "-inf", got nan',
        ),
        (
            lambda: optimizers.clip_grad_value(-1.0),
            "clip_value must be at least 0, got -1.0",
        ),
        (
            lambda: Recipe({"all": {"learning_rate": 0.1}}, clip_norm=-1.0),
            "clip_norm must be a finite number of at least 0, got -1.0",
        ),
    ],
)
def test_clipping_refuses(build, sentence):
    with pytest.raises(ValueError, match=exact_pattern(sentence)):
        build()


def clipped_recipe(clip_norm):
    groups = {"matrix": {"learning_rate": table(RATES["large"])}, "vector": {"learning_rate": 0.5}}
    return Recipe(groups, optimizers.adamw, clip_norm=clip_norm)


def test_a_recipe_clips_all_trained_groups_together(float64):
    labels = {"matrix": "matrix", "vector": "vector", "tensor": "frozen"}
    start, gradients = problem(ANY, np.float64)
    runs = [our_run(clipped_recipe(c).optimizer(labels), start, gradients) for c in (0.5, None)]
    parameters = {leaf: torch.nn.Parameter(torch.tensor(start[leaf])) for leaf in labels}
    theirs = torch.optim.AdamW(
        [{"params": [parameters["matrix"]]}, {"params": [parameters["vector"]], "lr": 0.5}]
    )
    for i in range(UPDATES):
        theirs.param_groups[0]["lr"] = float(RATES["large"][i])
        for leaf in ("matrix", "vector"):
            parameters[leaf].grad = torch.tensor(gradients[leaf][i])
        torch.nn.utils.clip_grad_norm_(parameters.values(), 0.5)
        theirs.step()
        far = [
            np.max(
                [
                    relative_distances(run.params[leaf][i][None], p.detach().numpy()[None])[0]
                    for leaf, p in parameters.items()
                ]
            )
            for run in runs
        ]
        assert far[0] <= BOUND
    assert far[1] > BOUND


def test_a_trace_keeps_the_clip():
    trace = clipped_recipe(0.5).trace(3)
    assert Recipe.from_trace(trace).clip_norm == 0.5
    assert clipped_recipe(None).trace(3).clip_norm is None


def test_a_clipped_recipe_under_nnx():
    nnx = pytest.importorskip("flax.nnx", reason="flax is of the extra train")
    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    recipe = Recipe(
        {"weight": {"learning_rate": 0.1}, "bias": {"learning_rate": 0.2}}, clip_norm=1.0
    )
    before = jax.tree.map(np.asarray, nnx.state(model, nnx.Param))
    optimizer = nnx.Optimizer(
        model, recipe.optimizer(jaxsched.param_groups.by_leaf_name), wrt=nnx.Param
    )
    gradient = jax.tree.map(jnp.ones_like, nnx.state(model, nnx.Param))
    optimizer.update(model, gradient)
    after = nnx.state(model, nnx.Param)
    entry = 1 / math.sqrt(8)
    np.testing.assert_allclose(before["bias"][...] - after["bias"][...], 0.2 * entry, rtol=1e-5)
    np.testing.assert_allclose(before["kernel"][...] - after["kernel"][...], 0.1 * entry, rtol=1e-5)


def test_no_leaf_is_no_update():
    for rule, x64 in itertools.product(RULES.values(), (False, True)):
        with jax.enable_x64(x64), warnings.catch_warnings():
            warnings.simplefilter("error")
            tx = rule.ours(0.1)
            updates, state = tx.update({}, tx.init({}), {})
            assert updates == {}
            assert state.step == 1


def few_updates(name, gradients, arguments):
    """Return our parameters and torch's after each of a few float32 updates of one vector."""
    rule, start = RULES[name], np.array([1.0, -2.0, 3.0], np.float32)
    theirs = torch.tensor(start)
    optimizer = rule.theirs([theirs], **arguments)
    tx = rule.ours(arguments["lr"], **{k: v for k, v in arguments.items() if k != "lr"})
    params = jnp.asarray(start)
    state = tx.init(params)
    rows = []
    for gradient in np.asarray(gradients, np.float32):
        theirs.grad = torch.tensor(gradient)
        optimizer.step()
        updates, state = jax.jit(tx.update)(gradient, state, params)
        params = optax.apply_updates(params, updates)
        rows.append((np.asarray(params), theirs.numpy().copy()))
    return rows


SPECIAL = [
    # A vector's gradients, one of which is not finite, and the entries that torch leaves finite.
    ("rprop", {"lr": 0.1}, math.nan, [True, True, True]),
    ("adafactor", {"lr": 0.1}, math.nan, [True, False, True]),
    ("asgd", {"lr": 0.1, "lambd": 0.01}, -math.inf, [True, False, True]),
    ("sgd", {"lr": 0.1}, math.inf, [True, False, True]),
]


@pytest.mark.parametrize(("name", "arguments", "special", "finite"), SPECIAL)
def test_one_entry_that_is_not_finite(name, arguments, special, finite):
    gradients = np.array([[1.0, 0.5, -1.0]] * 4)
    gradients[1, 1] = special
    for ours, theirs in few_updates(name, gradients, arguments):
        np.testing.assert_allclose(ours, theirs, rtol=FLOAT32_BOUND * 2**-23)
    np.testing.assert_array_equal(np.isfinite(ours), finite)


@by_kind
def test_strict_dtype_promotion(rule):
    with jax.numpy_dtype_promotion("standard"):
        start, gradients = problem(rule.shapes, np.float32)
        half = jax.tree.map(lambda p: jnp.asarray(p, jnp.bfloat16), start)
        gradient = {leaf: jnp.asarray(g[0], jnp.bfloat16) for leaf, g in gradients.items()}
    tx = rule.ours(0.1)
    expected, _ = tx.update(gradient, tx.init(half), half)
    with jax.numpy_dtype_promotion("strict"):
        strict, _ = tx.update(gradient, tx.init(half), half)
    jax.tree.map(np.testing.assert_array_equal, strict, expected)


@pytest.mark.parametrize("norm_type", [2.0, 3.0, math.inf, 0])
def test_clipping_under_strict_dtype_promotion(norm_type):
    gradient = {"half": jnp.ones(3, jnp.bfloat16), "single": jnp.ones(2, jnp.float32)}
    tx = optimizers.clip_grad_norm(0.5, norm_type=norm_type)
    expected, _ = tx.update(gradient, optax.EmptyState())
    with jax.numpy_dtype_promotion("strict"):
        strict, _ = tx.update(gradient, optax.EmptyState())
    jax.tree.map(np.testing.assert_array_equal, strict, expected)


@by_rule
def test_an_empty_leaf_stays(rule):
    tx = rule.ours(0.1)
    params = {"empty": jnp.zeros((3, 0)), "full": jnp.ones((3, 2))}
    updates, state = tx.update(params, tx.init(params), params)
    assert updates["empty"].shape == (3, 0)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((updates, state)))


REAL_ONLY = (
    "parameters and gradients must be real, got complex64. Wrap the transformation in "
    "optax.contrib.split_real_and_imaginary."
)


def complex_problem():
    start, gradients = problem({"z": (3, 4, 2)}, np.float32)
    return tuple(z["z"].view(np.complex64)[..., 0] for z in (start, gradients))


@by_rule
def test_complex_parameters_are_refused_or_split(rule):
    start, gradients = complex_problem()
    tx = rule.ours(0.01)
    with pytest.raises(ValueError, match=exact_pattern(REAL_ONLY)):
        tx.update(gradients[0], tx.init(start), start)
    if rule.name in ("muon", "adafactor"):  # which torch refuses, too
        return
    theirs = torch.tensor(start)
    optimizer = rule.theirs([theirs], lr=0.01)
    tx, params = optax.contrib.split_real_and_imaginary(tx), jnp.asarray(start)
    state = tx.init(params)
    for gradient in gradients[:5]:
        theirs.grad = torch.tensor(gradient)
        optimizer.step()
        updates, state = tx.update(jnp.asarray(gradient), state, params)
        params = optax.apply_updates(params, updates)
    far = relative_distances(
        np.asarray(params).view(np.float32)[None], theirs.numpy().view("f")[None]
    )
    assert far <= FLOAT32_BOUND * 2**-23


def test_complex_gradients_are_clipped_by_their_parts():
    _, gradients = complex_problem()
    tx = optimizers.clip_grad_norm(0.5)
    with pytest.raises(ValueError, match=exact_pattern(REAL_ONLY)):
        tx.update(gradients[0], optax.EmptyState())
    split = optax.contrib.split_real_and_imaginary(tx)
    clipped, _ = split.update(jnp.asarray(gradients[0]), split.init(jnp.asarray(gradients[0])))
    theirs = torch.zeros(gradients[0].shape, dtype=torch.complex64)
    theirs.grad = torch.tensor(gradients[0])
    torch.nn.utils.clip_grad_norm_([theirs], 0.5)
    np.testing.assert_allclose(clipped, theirs.grad.numpy(), rtol=CLIP_BOUND[np.float32])


def test_a_moving_rho_is_what_optax_gets_wrong():
    """This is why Optax's Adadelta is not used."""
    _, gradients = problem({"v": (5,)}, np.float32)
    p = torch.zeros(5)
    theirs = torch.optim.Adadelta([p], lr=1.0, rho=0.999)

    def rho(count):
        return 0.999 + 0.0 * count

    ours = optimizers.adadelta(1.0, rho=rho)
    closest = optax.inject_hyperparams(optax.adadelta)(1.0, rho, 1e-6)
    rules = {
        "ours": (ours, lambda state: state.inner.trees["square_avg"]),
        "optax": (closest, lambda state: state.inner_state[1].e_g),
    }
    states = {who: tx.init(jnp.zeros(5)) for who, (tx, _) in rules.items()}
    far = {who: np.zeros(2) for who in rules}
    for gradient in gradients["v"][:20]:
        p.zero_()
        p.grad = torch.tensor(gradient)
        theirs.step()
        expected = p.numpy(), theirs.state[p]["square_avg"].numpy()
        for who, (tx, average) in rules.items():
            updates, states[who] = tx.update(gradient, states[who], jnp.zeros(5))
            path = updates, average(states[who])
            pairs = zip(path, expected, strict=True)
            now = [relative_distances(np.asarray(a)[None], b[None])[0] for a, b in pairs]
            far[who] = np.maximum(far[who], now)
    assert far["ours"].max() <= FLOAT32_BOUND * 2**-23
    assert (far["optax"] > [5e-6, 1e-5]).all()


def test_adamaxs_bias_correction_is_what_optax_gets_wrong():
    _, gradients = problem({"v": (5,)}, np.float32)
    p = torch.zeros(5)
    theirs = torch.optim.Adamax([p], lr=1.0, betas=(0.999, 0.999))
    rules = {"ours": optimizers.adamax(1.0, b1=0.999), "optax": optax.adamax(1.0, 0.999)}
    states = {who: tx.init(jnp.zeros(5)) for who, tx in rules.items()}
    far = dict.fromkeys(rules, 0.0)
    for gradient in gradients["v"][:20]:
        p.zero_()
        p.grad = torch.tensor(gradient)
        theirs.step()
        for who, tx in rules.items():
            updates, states[who] = tx.update(gradient, states[who], jnp.zeros(5))
            far[who] = max(
                far[who], relative_distances(np.asarray(updates)[None], p.numpy()[None])[0]
            )
    assert far["ours"] <= FLOAT32_BOUND * 2**-23
    assert far["optax"] > 1e-5

    half = jnp.ones(3, jnp.bfloat16)

    def near_one(count):
        return 0.9985 + 0.0 * count

    closest = optax.inject_hyperparams(optax.adamax)(1.0, near_one)
    for tx, finite in ((optimizers.adamax(1.0, b1=near_one), True), (closest, False)):
        updates, _ = tx.update(half, tx.init(half), half)
        assert np.isfinite(np.asarray(updates, np.float32)).all() == finite


def test_half_precision_is_clipped_by_a_float32_norm():
    gradient = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    half = jnp.asarray(gradient, jnp.bfloat16)
    wide = half.astype(jnp.float32)
    tx = optimizers.clip_grad_norm(1.0)
    clipped = tx.update(half, optax.EmptyState())[0]
    exact = tx.update(wide, optax.EmptyState())[0]
    np.testing.assert_array_equal(clipped, exact.astype(jnp.bfloat16))
    p = torch.zeros(1000, dtype=torch.bfloat16)
    p.grad = torch.tensor(gradient).to(torch.bfloat16)
    norm = float(torch.nn.utils.clip_grad_norm_([p], 1.0))
    true = float(np.linalg.norm(np.asarray(wide, np.float64)))
    assert 1e-4 < abs(norm - true) / true <= 2**-8


@by_exact_rule
def test_a_python_number_is_a_parameter(rule):
    tx = rule.ours(0.1)
    number, _ = tx.update(0.5, tx.init(2.0), 2.0)
    array = jnp.float32(0.5), jnp.float32(2.0)
    assert number == tx.update(array[0], tx.init(array[1]), array[1])[0]


def test_muon_refuses_a_python_number():
    sentence = "parameters of muon must be 2-D, got scale of shape (). Give them another rule."
    with pytest.raises(ValueError, match=exact_pattern(sentence)):
        optimizers.muon(0.1).init({"scale": 1.0})
