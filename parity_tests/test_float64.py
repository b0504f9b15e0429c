"""The float64 programs for a TPU, with hidden constants and functions of this package.

They run on a CPU here, whose float64 shows the errors of the series, and that no operation is
missing. benchmarks/elsewhere.py examines the programs that XLA compiles for a TPU.
"""

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import formula_schedule, long_after

from jaxsched import lr_scheduler, recipes, schedules
from jaxsched._float64 import _tpu as tpu
from jaxsched._float64 import in_float64, plain_float64
from jaxsched.optimizers import EMA, adam

RANGES = {
    "cos": (-50.0, 50.0),
    "sin": (-50.0, 50.0),
    "exp": (-80.0, 80.0),
    "log": (1e-30, 1e30),
    "sqrt": (1e-30, 1e30),
}
SCHEDULES = {
    "cosine": schedules.cosine(100, lrf=0.1),
    "warmed": schedules.warmup(schedules.cosine(100, lrf=0.1), 37, start=0.1),
    "exponential": lr_scheduler.exponential_lr(0.1, 0.97),
    "cosine_annealing": lr_scheduler.cosine_annealing_lr(0.1, 50, eta_min=1e-4),
    "one_cycle": lr_scheduler.one_cycle_lr(0.1, 200),
    "polynomial": lr_scheduler.polynomial_lr(0.1, 200, power=0.9),
    "inverse_sqrt": schedules.inverse_sqrt(20, 30.5),
    "restarts": schedules.cosine_with_restarts(20, 150, 3),
    "timm_cosine": schedules.timm_cosine(0.1, 90, 1e-4, cycle_limit=2, warmup_t=9, k_decay=1.5),
    "timm_tanh": schedules.timm_tanh(0.1, 200, warmup_t=9),
    "average": EMA().decay_at,
    "timm's average": EMA(power=2 / 3).decay_at,
}


def run_as_tpu(function):
    """Run ``function`` under ``jit`` as it is lowered for a TPU."""

    @jax.jit
    def lower(*args):
        with jax.enable_x64(True):
            program = jax.make_jaxpr(function)(*args)
            return tpu.eval_hidden(program, *args)[0]

    return lower


@pytest.mark.parametrize("name", RANGES)
def test_each_function_has_the_accuracy_of_float64(name, x64):
    low, high = RANGES[name]
    rng = np.random.default_rng(0)
    x = rng.uniform(low, high, 10_000)
    if low > 0:
        x = np.exp(rng.uniform(np.log(low), np.log(high), 10_000))
    values = np.asarray(run_as_tpu(tpu.FUNCTIONS[name])(jnp.asarray(x)))
    expected = getattr(np, name)(x)
    # A function that crosses 0 has the error of its terms there.
    scale = np.abs(expected) if name in ("exp", "sqrt") else np.maximum(1, np.abs(expected))
    assert (np.abs(values - expected) <= 1e-14 * scale).all()


def test_the_power_has_the_accuracy_of_float64(x64):
    rng = np.random.default_rng(0)
    x, y = rng.uniform(0.5, 1.5, 10_000), rng.uniform(-90, 90, 10_000)
    values = np.asarray(run_as_tpu(tpu.power)(jnp.asarray(x), jnp.asarray(y)))
    np.testing.assert_allclose(values, x**y, rtol=2e-14)
    at = [(0.0, 2.0), (0.0, 0.0), (-2.0, 3.0), (-2.0, 0.5), (np.inf, 2.0), (np.nan, 1.0), (1.0, 0)]
    x, y = np.array(at).T
    with np.errstate(invalid="ignore"):
        expected = x**y
    np.testing.assert_array_equal(run_as_tpu(tpu.power)(jnp.asarray(x), jnp.asarray(y)), expected)


@pytest.mark.parametrize("name", ["cos", "exp", "log", "sqrt"])
def test_values_that_are_not_finite_equal_those_of_numpy(name, x64):
    x = np.array([np.inf, -np.inf, np.nan, 0.0, -1.0, 800.0, -800.0])
    with np.errstate(all="ignore"):
        expected = getattr(np, name)(x)
    if name == "exp":  # float32's range
        expected = np.where(x == 800, np.inf, np.where(x == -800, 0, expected))
    values = run_as_tpu(tpu.FUNCTIONS[name])(jnp.asarray(x))
    np.testing.assert_allclose(values, expected, rtol=1e-14, atol=1e-13)


def evaluate_plainly(schedule, count):
    """Evaluate ``schedule`` without the primitive, as inside ``in_float64``."""
    with plain_float64():
        return schedule(count)


@pytest.mark.parametrize("name", long_after(6, SCHEDULES))
def test_a_schedule_is_the_same_with_its_constants_hidden(name, x64):
    counts = jnp.arange(200)
    schedule = SCHEDULES[name]
    inside = run_as_tpu(lambda count: evaluate_plainly(schedule, count))
    values = np.asarray(jax.vmap(inside)(counts))
    expected = np.asarray(jax.vmap(schedule)(counts))
    assert np.abs(values - expected).max() <= 1e-14 * np.abs(expected).max()


def lowered_text(function, platform):
    exported = jax.export.export(jax.jit(function), platforms=[platform])(
        jax.ShapeDtypeStruct((), jnp.int32)
    )
    return exported.mlir_module()


COSINE = schedules.cosine(100, lrf=0.1)
UNDER = {
    "a recipe": recipes.yolov5_resnet18().at,
    "jit": jax.jit(COSINE),
    "vmap": lambda i: jax.vmap(lambda lrf: schedules.cosine(100, lrf=lrf)(i))(jnp.arange(3.0)),
    "grad": lambda i: jax.value_and_grad(lambda lrf: schedules.cosine(100, lrf=lrf)(i))(0.1)[0],
    "scan": lambda i: jax.lax.scan(lambda s, _: (s + COSINE(i), None), 0.0, length=3)[0],
    "checkpoint": jax.checkpoint(COSINE),
    "an update": lambda i: jax.tree.leaves(
        adam(COSINE).update(jnp.ones(3), adam(COSINE).init(jnp.ones(3)))
    ),
}


@pytest.mark.parametrize("name", UNDER)
def test_every_transformation_lowers_it_to_each_device_as_it_needs(name):
    for_tpu, for_cpu = (lowered_text(UNDER[name], platform) for platform in ("tpu", "cpu"))
    assert "stablehlo.cosine" not in for_tpu
    assert "optimization_barrier" in for_tpu
    assert "stablehlo.cosine" in for_cpu
    assert "optimization_barrier" not in for_cpu


def cosine_loop(length):
    """Return a loop that evaluates the cosine ``length`` times and adds the values."""

    def formula(count):
        def step(x, weight):
            x = jnp.cos(x / 3)
            return x, x * weight

        last, rows = jax.lax.scan(step, count, jnp.arange(float(length)), reverse=True)
        return last + rows @ jnp.arange(float(length))

    return formula_schedule(formula)


LOOPS = {  # a schedule, and true if it is unrolled
    "the search of jnp.interp": (schedules.warmup(COSINE, 37, start=0.1), True),
    "a scan": (cosine_loop(4), True),
    "the longest scan": (cosine_loop(tpu.MAX_UNROLLED), True),
    "a longer scan": (cosine_loop(tpu.MAX_UNROLLED + 1), False),
    "a scan in a scan": (
        formula_schedule(
            lambda c: jax.lax.fori_loop(
                0,
                3,
                lambda i, x: jax.lax.fori_loop(0, 2, lambda j, y: jnp.cos(y / (1 + i + j)), x),
                c,
            )
        ),
        True,
    ),
    "a length that is traced": (
        formula_schedule(
            lambda c: jax.lax.fori_loop(0, c.astype(int), lambda _, x: jnp.cos(x / 3), c)
        ),
        False,
    ),
}


# Elsewhere the outermost short loops are unrolled, and nothing is replaced.
UNROLLED_EVERYWHERE = ("the search of jnp.interp", "a scan")


@pytest.mark.parametrize("name", LOOPS)
def test_a_loop_of_fixed_length_is_unrolled_for_a_tpu(name):
    schedule, is_unrolled = LOOPS[name]
    for_tpu, for_cpu = (lowered_text(schedule, platform) for platform in ("tpu", "cpu"))
    assert ("stablehlo.while" not in for_cpu) == (name in UNROLLED_EVERYWHERE)
    assert "stablehlo.cosine" in for_cpu
    assert ("stablehlo.while" not in for_tpu) == is_unrolled
    assert ("stablehlo.cosine" not in for_tpu) == is_unrolled


@pytest.mark.parametrize("name", [*LOOPS, "a scan of no step"])
def test_a_loop_unrolled_computes_the_same(name, x64):
    schedule = LOOPS[name][0] if name in LOOPS else cosine_loop(0)
    inside = run_as_tpu(lambda count: evaluate_plainly(schedule, count))
    for count in (0, 1, 17, 40):
        expected = float(schedule(count))
        # The series of the cosine lose some bits in each step of a loop.
        assert float(inside(jnp.int32(count))) == pytest.approx(expected, rel=1e-12)


def test_a_formula_outside_the_primitive_uses_the_functions_of_xla():
    def cosine(i):
        with jax.enable_x64(True):
            return jnp.cos(i.astype(jnp.float64) / 100).astype(jnp.float32)

    assert "stablehlo.cosine" in lowered_text(cosine, "tpu")
    assert "stablehlo.cosine" not in lowered_text(lambda i: in_float64(lambda: cosine(i)), "tpu")


def test_results_that_are_not_arrays_are_returned_unchanged():
    @jax.jit
    def step(i):
        tree = in_float64(lambda: {"a": i + 1, "name": "sgd", "rates": (0.1, i * 2), "none": None})
        assert tree["name"] == "sgd"
        assert tree["rates"][0] == 0.1
        assert tree["none"] is None
        return tree["a"], tree["rates"][1]

    assert [int(v) for v in step(3)] == [4, 6]


def test_gradients_and_batches_pass_through_it():
    def rate(lrf, i):
        return schedules.cosine(100, lrf=lrf)(i)

    slope = jax.jit(jax.grad(rate))(0.1, 50)
    assert float(slope) == pytest.approx(0.5, abs=1e-6)
    twice = jax.jit(jax.vmap(jax.vmap(rate, (0, None)), (None, 0)))(jnp.arange(3.0), jnp.arange(4))
    assert twice.shape == (4, 3)
    expected = [[float(rate(lrf, i)) for lrf in (0.0, 1.0, 2.0)] for i in range(4)]
    np.testing.assert_array_equal(twice, np.float32(expected))


def test_results_without_a_batched_argument_are_not_batched():
    def values(lrf, i):
        return in_float64(
            lambda: {"batched": lrf * i, "one": i + 1, "literal": 1.0 + jnp.zeros(())}
        )

    out = {"batched": 0, "one": None, "literal": None}
    tree = jax.jit(jax.vmap(values, in_axes=(0, None), out_axes=out))(jnp.arange(3.0), 2.0)
    assert tree["batched"].tolist() == [0, 2, 4]
    assert float(tree["one"]) == 3
    with pytest.raises(ValueError, match="batched on axis 0"):
        jax.jit(jax.vmap(values, in_axes=(0, None), out_axes=None))(jnp.arange(3.0), 2.0)


def test_a_formula_may_name_an_axis_and_read_what_is_mutable():
    rate = formula_schedule(lambda c: (1 + jax.lax.axis_index("member")) / (1 + c))
    values = jax.jit(jax.vmap(rate, axis_name="member"))(jnp.zeros(3, jnp.int32))
    assert values.tolist() == [1, 2, 3]
    ref = jax.new_ref(jnp.float32(0.5))
    assert float(jax.jit(formula_schedule(lambda c: ref[...] / (1 + c)))(1)) == 0.25


@pytest.mark.parametrize("backend", ["cpu", "tpu"])
def test_eager_calls_end_and_are_not_compiled_again(backend, monkeypatch, caplog):
    schedule, expected = jax.checkpoint(COSINE), float(COSINE(3))
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    with jax.disable_jit():
        assert float(schedule(3)) == expected
        assert float(COSINE(3)) == expected
    schedule(jnp.int32(1))
    with jax.log_compiles():
        schedule(jnp.int32(2))
    assert not [record for record in caplog.records if "Compiling" in record.message]


@pytest.mark.parametrize("wrap", ["jit", "checkpoint", "custom_jvp", "custom_vjp"])
def test_functions_inside_a_transformation_are_replaced(wrap):
    def plain(x):
        return jnp.cos(x / 100)

    inside = getattr(jax, wrap)(plain)
    if wrap == "custom_vjp":
        inside.defvjp(lambda x: (plain(x), x), lambda x, g: (-g * jnp.sin(x / 100) / 100,))
    if wrap == "custom_jvp":
        inside.defjvp(lambda x, t: (plain(*x), -t[0] * jnp.sin(x[0] / 100) / 100))
    text = lowered_text(formula_schedule(inside), "tpu")
    assert "stablehlo.cosine" not in text
    assert "optimization_barrier" in text
