"""The article's run against live torch: every iteration, every group."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import long_after, numbers, recorded_article
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="the reference is live torch")

from article_loop import ORDER, article_trace, groups_by_name  # noqa: E402
from torchvision_import import resnet18  # noqa: E402

import jaxsched  # noqa: E402
from jaxsched.recipes import yolov5_resnet18  # noqa: E402

pytestmark = pytest.mark.torch

RUNS = [
    pytest.param({}, id="as-it-stands"),
    pytest.param({"warmup_iterations": 0}, id="no-warmup"),
    pytest.param({"warmup_iterations": 1}, id="warmup-1"),
    pytest.param({"warmup_iterations": 899}, id="warmup-899"),
    pytest.param({"warmup_iterations": 900}, id="warmup-900"),
    pytest.param({"warmup_iterations": 900.0}, id="warmup-900-as-a-float"),
    pytest.param({"warmup_iterations": 901}, id="warmup-901"),
    pytest.param({"warmup_iterations": 4000}, id="warmup-past-the-run"),
    pytest.param({"steps_per_epoch": 7}, id="7-iterations-an-epoch"),
    pytest.param({"steps_per_epoch": 1, "warmup_iterations": 3}, id="1-iteration-an-epoch"),
    pytest.param({"start_epoch": 10}, id="starts-in-the-warmup"),
    pytest.param({"start_epoch": 33}, id="starts-in-the-warmups-last-epoch"),
    pytest.param({"start_epoch": 34}, id="starts-after-the-warmup"),
    pytest.param({"start_epoch": 40, "resumed": True}, id="resumed"),
    pytest.param({"start_epoch": 10, "resumed": True}, id="resumed-in-the-warmup"),
    pytest.param({"start_epoch": 99}, id="last-epoch-only"),
    pytest.param({"until_epoch": 230}, id="past-the-last-epoch"),
    pytest.param({"lr0": 1e-6, "warmup_bias_lr": 1e-5}, id="rates-four-decades-lower"),
    pytest.param({"lrf": 1.0}, id="flat"),
    pytest.param({"epochs": 1, "warmup_iterations": 9}, id="one-epoch"),
]


def ours(arguments):
    return yolov5_resnet18(**{k: v for k, v in arguments.items() if k != "until_epoch"})


def check(arguments):
    report = jaxsched.compare(ours(arguments), article_trace(**arguments))
    assert report, f"{arguments}\n{report}"


@pytest.mark.parametrize("arguments", RUNS)
def test_equal_to_live_torch(arguments):
    check(arguments)


@pytest.mark.parametrize("arguments", RUNS)
def test_shifted_by_one_iteration_is_not_equal(arguments):
    reference = article_trace(**arguments)
    shifted = ours(arguments).trace(len(reference), reference.start + 1)
    shifted = jaxsched.Trace(shifted.groups, start=reference.start)
    assert not jaxsched.compare(shifted, reference)


def test_equal_on_torchvisions_resnet18():
    model = resnet18(num_classes=10)
    reference = article_trace(groups_by_name(model.named_parameters()))
    report = jaxsched.compare(yolov5_resnet18(), reference)
    assert str(report) == (
        "parity: 3000 iterations × 3 groups × learning rate, momentum, weight decay: 0 ULP\n"
        "not compared, only on one side: dampening, update_rule, nesterov, maximize, clip_norm, "
        "clip_value, ema, accumulation"
    )


def test_live_torch_equals_the_recorded_run():
    live, recorded = article_trace(), recorded_article("article_01_base")
    for label in ORDER:
        for name, values in recorded.groups[label].items():
            np.testing.assert_array_equal(live.groups[label][name], values)


def test_float64_with_x64_on(x64):
    recipe, reference = yolov5_resnet18(), article_trace()
    trace = recipe.trace(len(reference))
    for label in ORDER:
        for name, values in reference.groups[label].items():
            mine = trace.groups[label][name]
            assert mine.dtype == np.float64
            assert np.abs(mine - values).max() <= 1e-14 * np.abs(values).max(), (label, name)


def test_eager_jit_vmap_and_scan_give_the_same_bits():
    recipe, reference = yolov5_resnet18(), article_trace()
    rate = recipe.groups["bias"]["learning_rate"]
    expected = reference.groups["bias"]["learning_rate"].astype(np.float32)
    steps = jnp.arange(3000)
    _, scanned = jax.lax.scan(lambda i, _: (i + 1, rate(i)), 0, length=3000)
    for name, values in {
        "jit": jax.jit(rate)(steps),
        "vmap": jax.vmap(rate)(steps),
        "scan": scanned,
    }.items():
        np.testing.assert_array_equal(values, expected, err_msg=name)
    for i in [*range(0, 3000, 211), 999, 1000, 1001, 1019, 1020, 1049, 1050]:
        assert float(rate(i)) == expected[i], i
        assert float(recipe.at(i)["bias"]["learning_rate"]) == expected[i], i


def test_hyperparameters_may_be_traced():
    rates = [0.01, 0.02, 1e-4]
    warmups = [1000, 0, 350]

    def curve(lr0, lrf, warmup):
        recipe = yolov5_resnet18(lr0=lr0, lrf=lrf, warmup_iterations=warmup, weight_decay=lr0)
        return jax.vmap(recipe.at)(jnp.arange(3000))

    lrfs = [0.2, 0.01, 1.0]
    with jax.enable_x64(True):
        swept = jax.jit(jax.vmap(curve))(jnp.array(rates), jnp.array(lrfs), jnp.array(warmups))
    for k, (lr0, lrf, warmup) in enumerate(zip(rates, lrfs, warmups, strict=True)):
        reference = article_trace(lr0=lr0, lrf=lrf, warmup_iterations=warmup, weight_decay=lr0)
        mine = jax.tree.map(lambda v, k=k: np.asarray(v[k]), swept)
        assert jaxsched.compare(jaxsched.Trace(mine), reference)


@pytest.mark.parametrize(
    "swept",
    long_after(
        2,
        [
            {"epochs": [100, 40]},
            {"start_epoch": [0, 33, 34], "resumed": True},
            {"steps_per_epoch": [30, 7]},
            {"start_epoch": [0, 33, 34]},
            {"momentum": [0.9, 0.5], "warmup_momentum": [0.0, 0.8], "warmup_bias_lr": [0.1, 0.0]},
        ],
    ),
    ids=str,
)
def test_counts_of_epochs_may_be_traced_too(swept):
    traced = {k: v for k, v in swept.items() if isinstance(v, list)}
    fixed = {k: v for k, v in swept.items() if k not in traced}

    def curve(arguments):
        recipe = yolov5_resnet18(**arguments, **fixed)
        return jax.vmap(recipe.at)(recipe.start + jnp.arange(200))

    with jax.enable_x64(True):
        kinds = {int: jnp.int32, float: jnp.float64}
        rows = {name: jnp.array(v, kinds[type(v[0])]) for name, v in traced.items()}
    curves = jax.jit(jax.vmap(curve))(rows)
    for k, values in enumerate(zip(*traced.values(), strict=True)):
        reference = article_trace(**dict(zip(traced, values, strict=True)), **fixed).head(200)
        mine = jax.tree.map(lambda v, k=k: np.asarray(v[k]), curves)
        report = jaxsched.compare(jaxsched.Trace(mine, start=reference.start), reference)
        assert report, report
        late = {g: {n: np.roll(v, 1) for n, v in c.items()} for g, c in mine.items()}
        assert not jaxsched.compare(jaxsched.Trace(late, start=reference.start), reference)


def test_gradient_with_respect_to_a_hyperparameter():
    """The gradient passes through float64, also jitted and scanned."""

    def total(lr0):
        rate = yolov5_resnet18(lr0=lr0, epochs=4, steps_per_epoch=5, warmup_iterations=7)
        rate = rate.groups["weight"]["learning_rate"]
        return jax.lax.scan(lambda c, i: (c + rate(i), None), 0.0, jnp.arange(20))[0]

    # The group's rates are proportional to lr0.
    slope = float(total(jnp.float32(0.01))) / 0.01
    for gradient in (jax.grad(total), jax.jit(jax.grad(total)), jax.jacfwd(total)):
        assert float(gradient(jnp.float32(0.01))) == pytest.approx(slope, rel=1e-6)


RECIPES = st.fixed_dictionaries(
    {
        "epochs": st.integers(1, 60),
        "steps_per_epoch": st.integers(1, 12),
        "warmup_iterations": st.integers(0, 400),
        "lr0": numbers(1e-6, 10.0),
        "lrf": numbers(0.0, 1.5),
        "momentum": numbers(0.01, 0.999),
        "weight_decay": numbers(0.0, 0.1),
        "warmup_bias_lr": numbers(0.0, 1.0),
        "warmup_momentum": numbers(0.0, 0.999),
        "resumed": st.booleans(),
    },
    optional={"start_epoch": st.integers(0, 59)},
)


@given(RECIPES)
def test_random_recipes_equal_live_torch(arguments):
    arguments["start_epoch"] = arguments.get("start_epoch", 0) % arguments["epochs"]
    check({**arguments, "until_epoch": arguments["epochs"] + 2})


def straightforward_port(iteration):
    """Return the rate as the article appears to compute it: warm-up, then the current epoch's cosine."""
    rate = 0.01 * (((1 + math.cos(iteration // 30 * math.pi / 100)) / 2) * 0.8 + 0.2)
    return float(np.interp(iteration, [0, 1000], [0.0, rate])) if iteration <= 1000 else rate


def test_a_straightforward_port_is_wrong_at_1980_iterations():
    port = np.array([straightforward_port(i) for i in range(3000)], np.float32)
    reference = article_trace().groups["weight"]["learning_rate"].astype(np.float32)
    assert (port != reference).sum() == 1980
