"""The simulation of torch's optimizers in NumPy: against live torch, and options against equations."""

import math

import numpy as np
import optax
import pytest

torch = pytest.importorskip("torch", reason="the reference is live torch")

from update_cases import case  # noqa: E402

from jaxsched import optimizers  # noqa: E402
from jaxsched.torch._groups import reader, rule_of  # noqa: E402
from jaxsched.torch._update_runs import (  # noqa: E402
    OPTIONS,
    SHAPED,
    simulate,
)

pytestmark = pytest.mark.torch

UPDATES = 6
BOUND = 1e-14  # of the largest entry: rounding, as in assert_optimizer_matches
INF, NAN = np.inf, np.nan
RNG = np.random.default_rng(0)
SHAPE = (3, 2)
START, GRADIENTS = RNG.normal(size=SHAPE), RNG.normal(size=(UPDATES, 2, *SHAPE))


def assert_close(path, reference):
    np.testing.assert_allclose(path, reference, rtol=0, atol=BOUND * np.abs(reference).max())


@pytest.fixture(autouse=True)
def default_dtype():
    """Set float64 as the default, which NAdam's product of momenta uses too."""
    default = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(default)


def run_torch(cls, options, gradients=GRADIENTS, clip_norm=None, momenta=()):
    """Run torch's optimizer in float64; return its path, and the recipe's rows."""
    parameter = torch.nn.Parameter(torch.tensor(START))
    optimizer = cls([parameter], **options)
    path, rows = [], []
    for k, batches in enumerate(gradients):
        if momenta:
            optimizer.param_groups[0]["momentum"] = momenta[k]
        rows.append(reader(optimizer, ["0"])(optimizer.param_groups))
        parameter.grad = torch.tensor(batches.sum(0))
        if clip_norm is not None:
            torch.nn.utils.clip_grad_norm_([parameter], clip_norm)
        optimizer.step()
        path.append(parameter.detach().numpy().copy())
    return np.stack(path).reshape(len(path), -1), rows, rule_of(optimizer)


def simulate_rows(rule, rows, gradients=GRADIENTS, clip_norm=None, accumulation=2):
    """Return the path of the recipe with these rows, without a change."""
    flat = gradients.reshape(len(gradients), gradients.shape[1], -1)
    start = START if rule in SHAPED else START.ravel()
    # The rows of one scheduler step for each update, or only the first if nothing varies.
    rows = rows if any(row != rows[0] for row in rows) else rows[:1]
    c = case(
        {"w": flat},
        rule=rule,
        rows=rows,
        steps_per_epoch=accumulation,
        clip_norm=clip_norm,
        start={"w": start},
    )
    recipe = c.recipe("0")
    return simulate(rule, start, c.gradients("w", recipe), recipe)[:, 0]


T = torch.optim
ADAM = {"lr": 0.1, "betas": (0.6, 0.7), "eps": 0.05, "weight_decay": 0.2}
RULES = {
    "sgd": (T.SGD, {"lr": 0.1}),
    "sgd-decay": (T.SGD, {"lr": 0.1, "weight_decay": 0.2}),
    "sgd-dampened": (T.SGD, {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "maximize": True}),
    "sgd-nesterov": (T.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    "adam": (T.Adam, ADAM),
    "amsgrad": (T.Adam, {**ADAM, "amsgrad": True}),
    "adam-decoupled": (T.Adam, {**ADAM, "decoupled_weight_decay": True}),
    "adamw": (T.AdamW, {**ADAM, "maximize": True}),
    "nadam": (T.NAdam, {**ADAM, "momentum_decay": 0.3}),
    "rmsprop": (T.RMSprop, {"lr": 0.1, "alpha": 0.6, "eps": 0.05, "momentum": 0.8}),
    "rmsprop-centered": (T.RMSprop, {"lr": 0.1, "alpha": 0.6, "eps": 0.05, "centered": True}),
    "adagrad": (
        T.Adagrad,
        {"lr": 0.1, "lr_decay": 0.3, "initial_accumulator_value": 0.2, "eps": 0.05},
    ),
    # Those that JAX runs, one without a decay, and one of a parameter as a whole.
    "rprop": (T.Rprop, {"lr": 0.1}),
    "radam": (T.RAdam, ADAM),
    "adafactor": (T.Adafactor, {"lr": 0.1, "weight_decay": 0.2}),
}


@pytest.mark.parametrize("name", RULES)
def test_a_run_without_a_change_equals_torch(name, x64):
    cls, options = RULES[name]
    path, rows, rule = run_torch(cls, options)
    assert_close(simulate_rows(rule, rows), path)


@pytest.mark.parametrize("nesterov", [False, True])
def test_the_buffer_of_sgd_rests_while_its_momentum_is_0(nesterov):
    momenta = (0.0, 0.0, 0.5, 0.75, 0.0, 0.5)
    options = {"lr": 0.1, "momentum": 0.5, "nesterov": nesterov}
    path, rows, rule = run_torch(T.SGD, options, momenta=momenta)
    assert_close(simulate_rows(rule, rows), path)


@pytest.mark.parametrize("clip_norm", [0.5, 3.0])
def test_the_norm_of_the_sum_of_the_batches_is_clipped(clip_norm):
    options = {"lr": 0.1, "momentum": 0.9}
    path, rows, rule = run_torch(T.SGD, options, clip_norm=clip_norm)
    assert_close(simulate_rows(rule, rows, clip_norm=clip_norm), path)


# Options, by hand.


def moves(rule, gradients, start=(0.0,), **recipe):
    """Return the path of entries with a recipe of numbers and switches, one candidate."""
    torchs = {option: next(iter(choices)) for option, choices in OPTIONS.items()}
    recipe = {
        name: np.full((len(gradients), 1, 1), value) if type(value) is float else value
        for name, value in {**torchs, **recipe}.items()
    }
    gradients = np.reshape(gradients, (len(gradients), 1, -1))
    return simulate(rule, np.array(start), gradients, recipe)[:, 0].ravel().tolist()


MOMENTUM = {"learning_rate": 0.5, "momentum": 0.5, "dampening": 0.25, "nesterov": False}
SGD_OPTIONS = {
    # The changed options, and the path from gradients of 8 and 16.
    (): (-4, -4 - 8),  # b is 8, then 4 + 12
    ("zeros",): (-3, -3 - 7.5),  # 6, then 3 + 12
    ("average",): (-4, -4 - 6),  # 8, then 4 + 8
    ("inside",): (-4, -4 - 8),  # 4, then 2 + 0.75 · 8
    ("zeros", "average"): (-2, -2 - 5),  # 4, then 2 + 8
    ("nesterov",): (-6, -6 - 12),  # 8 + 4, then 16 + 8
    ("nesterov", "inside"): (-6, -6 - 12),  # 4 + 2, then 8 + 4
}


@pytest.mark.parametrize("switches", SGD_OPTIONS)
def test_options_of_sgd(switches):
    recipe = MOMENTUM | dict.fromkeys(switches, True)
    assert moves(optimizers.sgd, [8, 16], **recipe) == list(SGD_OPTIONS[switches])


def test_a_rate_inside_the_buffer_is_that_of_its_own_update():
    rate = np.reshape([0.5, 0.25], (2, 1, 1))
    numbers = {"momentum": 0.5, "dampening": 0.0, "nesterov": False, "decay": "decoupled"}
    # 4, then 2 + 0.25 · 16; outside it 0.5 · 8, then 0.25 · (4 + 16).
    inside = moves(optimizers.sgd, [8, 16], learning_rate=rate, inside=True, **numbers)
    assert inside == [-4, -4 - 6]
    assert moves(optimizers.sgd, [8, 16], learning_rate=rate, **numbers) == [-4, -4 - 5]
    # 8 / √(0.75 · 64 / 0.75); what is kept is 0.5 · 1, then half of it and 0.25 · 16 / √(12 + 48).
    numbers = {"alpha": 0.25, "eps": 0.0, "momentum": 0.5, "centered": False}
    second = 16 / math.sqrt(0.25 * 48 + 192)
    assert moves(optimizers.rmsprop, [8, 16], learning_rate=rate, inside=True, **numbers) == [
        -0.5 * 8 / math.sqrt(48),
        pytest.approx(-0.5 * 8 / math.sqrt(48) * 1.5 - 0.25 * second, rel=1e-15),
    ]


DECAYS = {"coupled": -0.5 * (4 + 0.25 * 8), "decoupled": -0.5 * 4 - 0.5 * 0.25 * 8}
DECAYS |= {"unscaled": -0.5 * 4 - 0.25 * 8}


@pytest.mark.parametrize("decay", DECAYS)
def test_weight_decay(decay):
    numbers = {"learning_rate": 0.5, "momentum": 0.5, "dampening": 0.0, "nesterov": False}
    recipe = {**numbers, "weight_decay": 0.25, "decay": decay}
    p, q = moves(optimizers.sgd, [4, 0], start=(8.0,), **recipe)
    assert p == 8 + DECAYS[decay]
    if decay == "coupled":  # b is 6, then 3 + p / 4
        assert q == p - 0.5 * (3 + 0.25 * p)
    else:  # 4, then 2
        assert q == p - 0.5 * 2 - (0.125 if decay == "decoupled" else 0.25) * p


ONE = {"learning_rate": 1.0, "b1": 0.5, "b2": 0.75, "eps": 0.0, "amsgrad": False}
# From a gradient of 2: m is 1 and v is 1, to be divided by 1/2 and 1/4.
CORRECTIONS = {"first and second": 2 / 2, "none": 1.0, "second": 1 / 2, "first": 2.0}


@pytest.mark.parametrize("correction", CORRECTIONS)
def test_bias_correction(correction):
    (move,) = moves(optimizers.adam, [2], correction=correction, **ONE)
    assert move == -CORRECTIONS[correction]


# v is 4 and its correction 1/4, √(4 / ¼) is 4 and epsilon 9.
EPSILONS = {
    "outside": 4 + 9,
    "under": 5,
    "under and outside": 5 + 9,
    "outside early": (2 + 9) * 2,
    "under early": math.sqrt(52),
}


@pytest.mark.parametrize("epsilon", EPSILONS)
def test_places_of_epsilon(epsilon):
    (move,) = moves(optimizers.adam, [4], epsilon=epsilon, **{**ONE, "eps": 9.0})
    assert move == -4 / EPSILONS[epsilon]


def test_epsilon_without_a_correction():
    recipe = {"learning_rate": 1.0, "alpha": 0.75, "momentum": 0.0, "centered": False, "eps": 5.0}
    for epsilon, root in {"outside": 7, "under": 3, "outside early": 7, "under early": 3}.items():
        assert moves(optimizers.rmsprop, [4], epsilon=epsilon, **recipe) == [-4 / root]
    recipe = {"learning_rate": 1.0, "lr_decay": 0.0, "initial_accumulator_value": 0.0, "eps": 9.0}
    assert moves(optimizers.adagrad, [4], epsilon="under", **recipe) == [-4 / 5]


def test_nesterov_of_optax_and_none(x64):
    gradients = GRADIENTS[:, 0].reshape(UPDATES, -1)
    nadam = {"learning_rate": 0.1, "b1": 0.6, "b2": 0.7, "eps": 0.05, "momentum_decay": 0.3}

    def path(ahead):
        start, g = tuple(START.ravel()), gradients
        return np.reshape(moves(optimizers.nadam, g, start, ahead=ahead, **nadam), (UPDATES, -1))

    tx = optax.nadam(0.1, 0.6, 0.7, 0.05)
    params, reference = START.ravel(), []
    state = tx.init(params)
    for g in gradients:
        added, state = tx.update(g, state, params)
        params = params + np.asarray(added)
        reference.append(params)
    assert_close(path("optax"), np.stack(reference))
    options = {**ADAM, "weight_decay": 0.0}
    assert_close(path(""), run_torch(T.Adam, options, GRADIENTS[:, :1])[0])


def test_the_first_choice_of_an_option_is_that_of_torch():
    c = case({"w": [[1.0]]}, clip_norm=3.0)
    recipe = c.recipe("0")
    assert {name: recipe[name] for name in OPTIONS} == {
        "zeros": False,
        "average": False,
        "inside": False,
        "correction": "first and second",
        "epsilon": "outside",
        "ahead": "torch",
        "decay": "coupled",
        "accumulation": "sum",
        "clip": "all",
    }
    assert [*OPTIONS["zeros"]] == [*OPTIONS["average"]] == [*OPTIONS["inside"]] == [False, True]
    assert recipe["clip_norm"].tolist() == [[[3.0]]]
    assert recipe["gradients"].tolist() == [[[1.0]]]
    assert case({"w": [[1.0]]}).recipe("0")["clip_norm"].tolist() == [[[INF]]]


@pytest.mark.parametrize("rule", [optimizers.adamw, optimizers.muon, optimizers.adafactor])
def test_these_rules_decouple_the_decay(rule):
    row = {"learning_rate": 0.5, "weight_decay": 0.25}
    assert case({"w": [[1.0]]}, rule=rule, rows=[{"0": row}]).recipe("0")["decay"] == "decoupled"


def test_candidates_are_simulated_at_once(x64):
    """Each candidate has the same path as alone, whatever it changes."""
    rates = np.reshape([0.5, 0.25, 0.125], (1, 3, 1))
    gradients = np.reshape([8.0, 16.0], (2, 1, 1))
    torchs = {option: next(iter(choices)) for option, choices in OPTIONS.items()}
    recipe = {k: np.full((2, 1, 1), v) for k, v in MOMENTUM.items() if k != "nesterov"}
    recipe |= torchs | {"nesterov": False, "learning_rate": np.tile(rates, (2, 1, 1))}
    path = simulate(optimizers.sgd, np.zeros(1), gradients, recipe)
    assert path[..., 0].tolist() == [[-4, -2, -1], [-12, -6, -3]]
    by_gradient = {**recipe, "learning_rate": np.full((2, 1, 1), 0.5)}
    path = simulate(optimizers.sgd, np.zeros(1), gradients * [[[1.0], [2.0]]], by_gradient)
    assert path[..., 0].tolist() == [[-4, -8], [-12, -24]]
    # A rule that JAX runs: Rprop's first step is the rate, its second 1.2 times that.
    numbers = {"eta_minus": 0.5, "eta_plus": 1.2, "step_size_min": 1e-6, "step_size_max": 50.0}
    recipe = {k: np.full((2, 1, 1), v) for k, v in numbers.items()} | torchs
    recipe["learning_rate"] = np.tile(rates, (2, 1, 1))
    path = simulate(optimizers.rprop, np.zeros(1), gradients, recipe)
    assert_close(path[..., 0], [[-0.5, -0.25, -0.125], [-1.1, -0.55, -0.275]])
    assert path.shape == (2, 3, 1)
