"""Schedules by themselves: the article's figures, counts of all kinds, tables, errors."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import formula_schedule, long_after, recorded_article

import jaxsched
from jaxsched import lr_scheduler, schedules
from jaxsched._arithmetic import interp
from jaxsched.recipes import recorded, yolov5_resnet18


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("article_01_base", {}), ("article_03_start40_fresh", {"start_epoch": 40})],
)
def test_equal_to_the_recorded_runs(name, arguments):
    recipe, reference = yolov5_resnet18(**arguments), recorded_article(name)
    report = jaxsched.compare(recipe, reference)
    assert report, str(report)
    assert recipe.start == reference.start
    late = recipe.trace(len(reference), reference.start + 1)
    assert not jaxsched.compare(jaxsched.Trace(late.groups, start=reference.start), reference)


def test_the_packaged_trace_equals_the_recorded_run():
    packaged, reference = recorded("yolov5_resnet18"), recorded_article("article_01_base")
    for label, group in reference.groups.items():
        for name, values in group.items():
            np.testing.assert_array_equal(packaged.groups[label][name], values)


def test_interp_examples_of_the_article():
    x = jnp.interp(2.5, jnp.array([1.0, 2.0, 3.0]), jnp.array([3.0, 2.0, 0.0]))
    assert float(x) == 1.0
    points, dense = np.linspace(0, 2 * np.pi, 10), np.linspace(0, 2 * np.pi, 50)
    expected = np.interp(dense, points, np.sin(points))
    with jax.enable_x64(True):
        mine = np.asarray(jnp.interp(dense, points, jnp.sin(points)))
    # One sine and one product are rounded differently: two roundings of values up to 1.
    np.testing.assert_allclose(mine, expected, rtol=0, atol=2 * np.finfo(np.float64).eps)
    assert np.abs(np.roll(mine, 1) - expected).max() > 0.1


CURVES = [
    # The parts of the article's cosine, for T_max 200, initial_lr 1 and eta_min 0.2.
    ("cos", lambda c: jnp.cos(c / 200 * math.pi), lambda c: math.cos(c / 200 * math.pi)),
    (
        "1 + cos",
        lambda c: 1 + jnp.cos(c / 200 * math.pi),
        lambda c: 1 + math.cos(c / 200 * math.pi),
    ),
    (
        "halved",
        lambda c: (1 + jnp.cos(c / 200 * math.pi)) / 2,
        lambda c: (1 + math.cos(c / 200 * math.pi)) / 2,
    ),
    (
        "scaled",
        lambda c: (1 - 0.2) * ((1 + jnp.cos(c / 200 * math.pi)) / 2),
        lambda c: (1 - 0.2) * ((1 + math.cos(c / 200 * math.pi)) / 2),
    ),
    (
        "shifted",
        lambda c: 0.2 + (1 - 0.2) * ((1 + jnp.cos(c / 200 * math.pi)) / 2),
        lambda c: 0.2 + (1 - 0.2) * ((1 + math.cos(c / 200 * math.pi)) / 2),
    ),
]


@pytest.mark.parametrize(("formula", "python"), [c[1:] for c in CURVES], ids=[c[0] for c in CURVES])
def test_the_articles_five_curves(formula, python):
    expected = np.array([python(c) for c in range(201)], np.float32)
    mine = np.array(jax.jit(formula_schedule(formula))(jnp.arange(201)))
    if abs(expected[100]) < 1e-15:
        # Where the cosine crosses zero both have an error: one rounding of the argument, pi / 2.
        assert abs(mine[100]) < 2 * np.finfo(np.float64).eps
        mine[100] = expected[100]
    np.testing.assert_array_equal(mine, expected)
    assert (np.roll(mine, 1) != expected).any()


def test_annealing_figure_of_the_article():
    """For initial_lr 0.01, eta_min 0.002 and T_max 200, lrf is eta_min / initial_lr."""
    rate = lr_scheduler.lambda_lr(0.01, schedules.cosine(200, lrf=0.2))
    assert [float(rate(c)) for c in (0, 100, 200)] == [
        float(np.float32(v)) for v in (0.01, 0.006, 0.002)
    ]


COUNTS = [5, 5.0, np.int64(5), np.float32(5), np.uint8(5), jnp.int32(5), jnp.uint32(5)]


@pytest.mark.parametrize("count", COUNTS, ids=lambda c: type(c).__name__)
def test_any_count_gives_the_same_bits_and_dtype(count):
    schedule = lr_scheduler.lambda_lr(0.01, schedules.cosine(100, lrf=0.2))
    value = schedule(count)
    assert value.dtype == np.float32
    expected = 0.01 * (((1 + math.cos(5 * math.pi / 100)) / 2) * 0.8 + 0.2)
    assert float(value) == np.float32(expected)


def test_strict_promotion_does_not_change_the_bits():
    reference = recorded("yolov5_resnet18").groups["bias"]["learning_rate"].astype(np.float32)
    rate = yolov5_resnet18().groups["bias"]["learning_rate"]
    with jax.numpy_dtype_promotion("strict"):
        np.testing.assert_array_equal(jax.jit(rate)(jnp.arange(3000)), reference)


@pytest.mark.parametrize("map_counts", [lambda f: f, jax.jit, jax.vmap])
def test_an_override_asks_the_other_schedule_at_its_count_alone(map_counts):
    """torch's closed forms refuse counts below 0, which a shifted one would get."""
    decay = lr_scheduler.exponential_lr(1.0, 0.5)
    late = schedules.override(schedules.constant(3.0), schedules.shift(decay, 4), at=5)
    assert map_counts(late)(jnp.arange(7)).tolist() == [3.0] * 5 + [0.5, 3.0]


LINE = schedules.linear(100, lrf=0.0)
COMBINED = {
    "per_epoch": schedules.per_epoch(LINE, 3),
    "lagged": schedules.lagged(LINE, after=4),
    "per_update": schedules.per_update(LINE, 2, 5),
    "update_batches": schedules.update_batches(2, 5),
    "scaled": schedules.scaled(LINE, 0.3),
    "timm_cosine": schedules.timm_cosine(1.0, 4, cycle_limit=2, warmup_t=2),
    "timm_wsd": schedules.timm_wsd(1.0, 9, 8, warmup_t=2),
    "shift": schedules.shift(LINE, -2),
    "override": schedules.override(LINE, schedules.constant(2.0), at=5),
    "hold": schedules.hold(LINE, at=2, until=6),
    "hold to the end": schedules.hold(LINE, at=6),
    "warmup": schedules.warmup(LINE, 7, start=0.5),
    "table that goes on": schedules.table([0.5, 0.25], then=LINE),
    "batch_ramp": schedules.batch_ramp(7, end=4.0, then=4),
}


@pytest.mark.parametrize("name", COMBINED)
def test_strict_promotion_and_counts_of_any_kind_do_not_change_the_bits_of_a_combinator(name):
    schedule = COMBINED[name]
    expected = [float(schedule(c)) for c in range(10)]
    assert expected != [float(schedule(c + 1)) for c in range(10)]
    with jax.numpy_dtype_promotion("strict"):
        for dtype in (jnp.int32, jnp.uint8, jnp.float32):
            assert jax.jit(schedule)(jnp.arange(10, dtype=dtype)).tolist() == expected


def test_the_formula_in_float32_misses_values():
    """This is the reason for float64: the same formula in float32 misses many values."""
    counts = jnp.arange(100, dtype=jnp.float32)
    plain = 0.01 * (((1 + jnp.cos(counts * math.pi / 100)) / 2) * 0.8 + 0.2)
    exact = lr_scheduler.lambda_lr(0.01, schedules.cosine(100, lrf=0.2))(jnp.arange(100))
    assert 5 < int((plain != exact).sum()) < 100


def test_far_counts_keep_their_bits():
    """At and past 2**24, the limit of exact float32 counts, and near 2**31."""
    schedule = schedules.per_epoch(formula_schedule(lambda e: e % 1000), 3)
    for count in (2**24 - 1, 2**24, 2**24 + 1, 2**24 + 3, 2**31 - 2, 2**31 - 1):
        assert float(jax.jit(schedule)(jnp.int32(count))) == (count // 3) % 1000


def test_tabulate_runs_a_function_that_cannot_be_traced():
    def factor(epoch):
        return 0.5 if epoch < 3 else math.cos(epoch) ** 2

    schedule = schedules.tabulate(factor, 10)
    expected = np.array([factor(c) for c in range(10)], np.float32)
    np.testing.assert_array_equal(jax.jit(schedule)(jnp.arange(10)), expected)
    assert math.isnan(jax.jit(schedule)(25))
    with pytest.raises(
        ValueError, match=r"the table holds counts 0 to 9, got 10\. Give more steps"
    ):
        schedule(10)
    with pytest.raises(TypeError):
        jax.jit(lambda c: factor(c))(3)


def test_tables_start_at_the_given_count():
    schedule = schedules.table([0.5, 0.25], start=7)
    assert [float(schedule(c)) for c in (7, 8)] == [0.5, 0.25]
    outside = jax.jit(schedule)(jnp.asarray([-1, 0, 6, 7, 8, 9, 100]))
    np.testing.assert_array_equal(outside, [math.nan] * 3 + [0.5, 0.25] + [math.nan] * 2)
    with pytest.raises(ValueError, match="the table holds counts 7 to 8, got 6"):
        schedule(6)


@pytest.mark.parametrize("count", [1.5, np.asarray([1.0, 2.5], np.float32), math.nan])
def test_a_table_has_nothing_between_its_counts(count) -> None:
    curve = schedules.table([0.1, 0.2, 0.3, 0.4])
    assert float(curve(2.0)) == np.float32(0.3)
    with pytest.raises(
        ValueError, match=r"the table holds whole counts, got (1\.5|2\.5|nan)\. Only"
    ):
        curve(count)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: schedules.per_epoch(schedules.constant(1.0), 0),
            "steps_per_epoch must be an integer of at least 1, got 0",
        ),
        (
            lambda: schedules.warmup(schedules.constant(1.0), -3, start=0.0),
            "iterations must be a finite number of at least 0, got -3",
        ),
        (
            lambda: schedules.tabulate(lambda c: 1.0, 0),
            "steps must be an integer of at least 1, got 0",
        ),
        (
            lambda: schedules.tabulate(lambda c: math.nan, 2),
            r"function\(0\) must be a finite number, got nan",
        ),
        (
            lambda: schedules.table([]),
            r"values must be a sequence of at least 1 number, got shape \(0,\)",
        ),
        (
            lambda: schedules.cosine(0, lrf=0.1),
            "epochs must be a finite number above 0, got 0",
        ),
    ],
)
def test_bad_arguments_get_a_sentence(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    "mapped", long_after(2, [lambda f: f, jax.jit, jax.vmap, lambda f: jax.jit(jax.vmap(f))])
)
def test_the_warmup_is_np_interp_to_the_bit(mapped):
    """In float64, because a value one rounding off may round to another float32 than torch's."""
    rng = np.random.default_rng(0)
    with jax.enable_x64(True):
        for n in (1, 49, 107, 900, 1000, 1234, 2999):
            start, end = (float(np.float32(rng.uniform(0, 0.2))) for _ in range(2))
            counts = np.arange(3002)
            mine = mapped(schedules.warmup(schedules.constant(end), n, start=start))(counts)
            np.testing.assert_array_equal(mine, np.interp(counts, [0, n], [start, end]))
            shifted = np.interp(counts + 1, [0, n], [start, end])
            assert (np.asarray(mine) != shifted).any()


def random_lines(size):
    """Return counts, lengths, starts and ends, with some starts of 0 as in the original."""
    rng = np.random.default_rng(0)
    n = rng.integers(1, 5000, size)
    start = rng.uniform(0, 1, size) * rng.choice([0, 0.1, 1], size)
    end = rng.uniform(0, 1, size) * rng.choice([0.01, 1], size)
    return [x.astype(float) for x in (np.floor(rng.random(size) * n), n, start, end)]


def direct(x, n, start, end):
    """``jnp.interp`` over [0, n], which divides before it multiplies."""
    return jnp.interp(x, jnp.stack([0.0 * n, n]), jnp.stack([start, end]))


MAPPED = {
    "arrays": lambda f: f,
    "vmap": jax.vmap,
    "jit of arrays": jax.jit,
    "jit of vmap": lambda f: jax.jit(jax.vmap(f)),
    "scan": lambda f: lambda *rows: jax.lax.scan(lambda c, row: (c, f(*row)), 0, rows)[1],
}


@pytest.mark.parametrize("name", MAPPED)
def test_jnp_interp_on_the_unit_interval_is_np_interp_to_the_bit(name):
    lines = random_lines(100_000)
    expected = np.array([np.interp(x, [0, n], ends) for x, n, *ends in zip(*lines, strict=True)])
    with jax.enable_x64(True):
        lines = list(map(jnp.asarray, lines))
        np.testing.assert_array_equal(MAPPED[name](interp)(*lines), expected)
        others = np.asarray(jax.jit(jax.vmap(direct))(*lines))
    assert 0.2 < (others != expected).mean() < 0.5
    np.testing.assert_array_equal(others.astype(np.float32), expected.astype(np.float32))


@pytest.mark.parametrize("traced", ["nothing", "iterations", "start", "both"])
def test_the_warmup_ends_as_np_interp_does(traced):
    """From n on it equals the target, and with a length of 0 at once."""
    counts = np.arange(-1, 13)

    def values(n, start):
        return jax.vmap(schedules.warmup(schedules.constant(0.3), n, start=start))(counts)

    with jax.enable_x64(True):
        for n in (0, 1, 7, 12):
            if traced == "nothing":
                mine = values(n, 0.1)
            elif traced == "iterations":
                mine = jax.jit(lambda n: values(n, 0.1))(n)
            elif traced == "start":
                mine = jax.jit(lambda start, n=n: values(n, start))(0.1)
            else:
                mine = jax.jit(values)(n, 0.1)
            expected = np.interp(counts, [0, n], [0.1, 0.3])
            at = counts >= 0  # a count below 0 has no meaning, and with n = 0 there is no line
            np.testing.assert_array_equal(np.asarray(mine)[at], expected[at])
            assert np.isfinite(mine).all()


def test_the_warmups_gradients_are_the_lines():
    def rate(start, end, count):
        return schedules.warmup(schedules.constant(end), 8, start=start)(count)

    gradients = jax.jit(jax.grad(rate, (0, 1, 2)))
    assert [float(g) for g in gradients(0.25, 0.75, 2.0)] == [0.75, 0.25, 0.0625]
    assert [float(g) for g in gradients(0.25, 0.75, -2.0)] == [1, 0, 0]
    assert [float(g) for g in gradients(0.25, 0.75, 9.0)] == [0, 1, 0]


TIE = {"lr0": 0.0010969899594783783, "warmup_bias_lr": float(np.float32(0.1))}


def test_a_value_near_a_tie_of_float32():
    recipe = yolov5_resnet18(**TIE, warmup_iterations=1000, steps_per_epoch=5000)
    expected = np.float32(np.interp(540, [0, 1000], [TIE["warmup_bias_lr"], TIE["lr0"]]))
    for at in (recipe.at, jax.jit(recipe.at)):
        assert float(at(540)["bias"]["learning_rate"]) == expected
    with jax.enable_x64(True):
        other = direct(540.0, 1000.0, TIE["warmup_bias_lr"], TIE["lr0"])
    assert np.float32(other) != expected


@pytest.mark.parametrize("epochs", [5, 7, 12, 98])
def test_a_line_to_zero_ends_in_zero(epochs):
    """It does not end in a rounding error of either sign: XLA must not divide by a reciprocal."""
    line = schedules.linear(epochs, lrf=0.0)
    for mapped in (line, jax.jit(line), jax.vmap(line), jax.jit(jax.vmap(line))):
        assert float(mapped(jnp.array([epochs]))[0]) == 0.0
    assert float(line(epochs)) == float(jax.jit(line)(epochs)) == 0.0


@pytest.mark.parametrize(
    "value", [None, "0.5", 1j, 10**400, object()], ids=lambda value: type(value).__name__
)
def test_a_table_of_values_that_are_not_numbers_is_refused(value):
    with pytest.raises(TypeError, match=r"^values must be real numbers, got .* among them$"):
        schedules.table([0.5, value])


WRONG_TYPES = {
    "a string": lambda: schedules.constant("x"),
    "None": lambda: schedules.cosine(100, lrf=None),
    "a list": lambda: schedules.constant([1.0, 2.0]),
    "a bool": lambda: schedules.cosine(True, lrf=0.1),
    "a number for a schedule": lambda: schedules.per_epoch(0.1, 30),
    "a schedule for a number": lambda: schedules.warmup(LINE, LINE, start=0.1),
    "a string for a switch": lambda: lr_scheduler.one_cycle_lr(0.1, 100, three_phase="no"),
    "a number for a string": lambda: lr_scheduler.cyclic_lr(0.1, 0.2, scale_mode=3),
    "a string for a rate": lambda: lr_scheduler.step_lr("0.1", 3),
    "a string as the count": lambda: LINE("3"),
    "None as the count": lambda: LINE(None),
    "a complex count": lambda: LINE(1j),
}


@pytest.mark.parametrize("name", WRONG_TYPES)
def test_a_wrong_type_is_refused_when_it_is_given(name):
    with pytest.raises(TypeError, match="must be"):
        WRONG_TYPES[name]()
