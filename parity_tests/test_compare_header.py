"""``compare`` reports each difference that acts on parameters, in recipes and traces, in both directions.

The sides of a pair differ in one respect; the report must name that and no other. The counterpart is
a pair written in two ways that do the same, and must be equal. Traces are loaded from files, so that
a field that a file loses is missing here too.
"""

import dataclasses
import functools
import inspect
import itertools
import math

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import long_after

from jaxsched import Recipe, Trace, compare, lr_scheduler, optimizers, recipes, schedules
from jaxsched._recipe._file import RULES
from jaxsched._trace import UNSTATED
from jaxsched.optimizers import EMA, Accumulation
from jaxsched.schedules import constant

pytestmark = pytest.mark.filterwarnings("error")

N = 12
"""Rows: three updates of four batches."""

KINDS = list(itertools.product(("recipe", "trace"), repeat=2))


def recipe_of(rule=optimizers.sgd, group=None, /, **fields):
    """A recipe of one group."""
    return Recipe({"all": {"learning_rate": 0.1, **(group or {})}}, rule, length=N, **fields)


def sides(recipe, folder):
    """The recipe, and its trace read from a file."""
    recipe.trace(N).save(folder / "run.npz")
    return {"recipe": recipe, "trace": Trace.load(folder / "run.npz")}


def reports(one, other, folder):
    """Yield reports of a pair of recipes and of traces, in both directions."""
    one, other = sides(one, folder), sides(other, folder)
    for first, second in ((one, other), (other, one)):
        for mine, reference in KINDS:
            report = compare(first[mine], second[reference])
            assert str(report)
            assert report.evidence()["parity"] == bool(report)
            yield f"{mine} against {reference}", report


def assert_differ(one, other, names, folder):
    """Fail unless in every report the differing quantities are one of the sets in ``names``."""
    for how, report in reports(one, other, folder):
        assert not report, how
        differing = {q.name for q in report.quantities if q.first is not None}
        assert differing in names, f"{how}: {differing}\n{report}"
        for name in differing:
            assert name in str(report), f"{how}: {report}"
        # Without accumulation a side has no pending gradients to state.
        unstated = {"pending_gradients"} if "stepped" in differing else set()
        if "use_muon" in differing:  # without MuSGD a group has no ratios
            unstated = {"muon", "sgd"} - differing
        assert set(report.not_compared) <= unstated, f"{how}: {report.not_compared}"


def assert_same(one, other, folder):
    for how, report in reports(one, other, folder):
        assert report, f"{how}: {report}"
        assert report.not_compared == (), f"{how}: {report.not_compared}"
        assert report.causes == (), how


# --- each argument of each rule ---

REQUIRED = {
    "sgd": {"momentum": 0.9},  # nesterov and dampening act on a momentum
    "adam": {"weight_decay": 0.01},  # which may be decoupled
    "nadam": {"weight_decay": 0.01},
    "radam": {"weight_decay": 0.01},
    "adafactor": {"eps1": 1e-10},
    "musgd": {"use_muon": True},  # without it no ratios act
}
"""Arguments besides the rate without which another has no effect."""

ANOTHER = {
    ("adam", "decoupled_weight_decay"): {"update_rule"},  # AdamW's name for it
    ("musgd", "use_muon"): {"use_muon", "muon", "sgd"},
    ("rprop", "eta_plus"): 1.5,
    ("adafactor", "beta2_decay"): -0.5,
    ("adafactor", "eps1"): 1e-8,
    ("adafactor", "d"): 2.0,
    ("muon", "adjust_lr_fn"): "match_rms_adamw",
    ("muon", "ns_coefficients"): (3.0, -4.0, 2.0),
    **{(rule, "layout"): "torch" for rule in ("muon", "musgd")},
    **{(rule, "iteration_dtype"): jnp.float32 for rule in ("muon", "musgd")},
}
"""Another value if half the default is invalid, or another name under which it differs."""


def arguments():
    for rule, function in RULES.items():
        for name in inspect.signature(function).parameters:
            yield rule, name


def pair_of(rule, name):
    """Return groups that differ in one argument, and the names under which they do."""
    group = {"learning_rate": 0.1, **REQUIRED.get(rule, {})}
    default = group.get(name, inspect.signature(RULES[rule]).parameters[name].default)
    other = ANOTHER.get((rule, name))
    if not other or isinstance(other, set):
        other = not default if isinstance(default, bool) else default / 2 or 0.25
        if isinstance(default, int) and not isinstance(default, bool):
            other = default + 1
    names = ANOTHER.get((rule, name))
    return group, {**group, name: other}, names if isinstance(names, set) else {name}


@pytest.mark.parametrize(("rule", "name"), [*arguments()])
def test_each_argument_of_each_rule_is_compared(rule, name, tmp_path):
    one, other, names = pair_of(rule, name)
    # MuSGD's ratios are missing if the reference has them, and not compared if it has none.
    either = [names, {name}] if name == "use_muon" else [names]
    assert_differ(recipe_of(RULES[rule], one), recipe_of(RULES[rule], other), either, tmp_path)
    assert_same(recipe_of(RULES[rule], other), recipe_of(RULES[rule], dict(other)), tmp_path)


@pytest.mark.parametrize("rule", RULES)
def test_a_default_that_is_written_out_is_the_default(rule, tmp_path):
    parameters = inspect.signature(RULES[rule]).parameters.values()
    written = {p.name: p.default for p in parameters if p.default is not p.empty}
    assert_same(recipe_of(RULES[rule]), recipe_of(RULES[rule], written), tmp_path)
    partial = functools.partial(RULES[rule], **written)
    assert_same(recipe_of(RULES[rule]), recipe_of(partial), tmp_path)
    assert_same(
        recipe_of(RULES[rule]), Recipe.from_trace(recipe_of(RULES[rule]).trace(N)), tmp_path
    )


@pytest.mark.parametrize("pair", [*itertools.pairwise([*RULES, "adadelta"])], ids=" and ".join)
def test_rules_are_compared(pair, tmp_path):
    one, other = (recipe_of(RULES[rule]) for rule in pair)
    for how, report in reports(one, other, tmp_path):
        assert not report, how
        (rule,) = (q for q in report.quantities if q.name == "update_rule")
        assert rule.first is not None, how
        assert "update_rule" in str(report)
        assert any("update rule" in cause for cause in report.causes), how


# --- bookkeeping around the rules ---

MOVING = {"learning_rate": schedules.cosine(9, lrf=0.1)}
FOUR = Accumulation(constant(4))
RUN = {"accumulate", "stepped", "micro_batches"}
AVERAGE = {"ema", "ema_updates", "ema_decay"}

# name: (one, other, the sets of names that may differ)
PAIRS = {
    "Adam and AdamW": (
        lambda: recipe_of(optimizers.adam, {"weight_decay": 0.01}),
        lambda: recipe_of(optimizers.adamw, {"weight_decay": 0.01}),
        [{"update_rule"}],
    ),
    "decoupled in one group": (
        lambda: Recipe(
            {
                "a": {"learning_rate": 0.1, "decoupled_weight_decay": True, "weight_decay": 0.1},
                "b": {"learning_rate": 0.1, "weight_decay": 0.1},
            },
            optimizers.adam,
            length=N,
        ),
        lambda: Recipe(
            {
                "a": {"learning_rate": 0.1, "weight_decay": 0.1},
                "b": {"learning_rate": 0.1, "weight_decay": 0.1},
            },
            optimizers.adam,
            length=N,
        ),
        [{"update_rule"}],
    ),
    "decoupled in one group and AdamW": (
        lambda: Recipe(
            {
                "a": {"learning_rate": 0.1, "decoupled_weight_decay": True, "weight_decay": 0.1},
                "b": {"learning_rate": 0.1, "weight_decay": 0.1},
            },
            optimizers.adam,
            length=N,
        ),
        lambda: Recipe(
            {label: {"learning_rate": 0.1, "weight_decay": 0.1} for label in "ab"},
            optimizers.adamw,
            length=N,
        ),
        [{"update_rule"}],
    ),
    "nesterov": (
        lambda: recipe_of(optimizers.sgd, {"momentum": 0.9, "nesterov": np.True_}),
        lambda: recipe_of(optimizers.sgd, {"momentum": 0.9}),
        [{"nesterov"}],
    ),
    "a scheduled momentum": (
        lambda: recipe_of(optimizers.sgd, {"momentum": schedules.linear(9, lrf=0.5)}),
        lambda: recipe_of(optimizers.sgd, {"momentum": 0.9}),
        [{"momentum"}],
    ),
    "a schedule": (
        lambda: recipe_of(optimizers.sgd, MOVING),
        lambda: recipe_of(optimizers.sgd, {"learning_rate": schedules.cosine(9, lrf=0.2)}),
        [{"learning_rate"}],
    ),
    "a number or None": (
        lambda: recipe_of(optimizers.adafactor, {"eps1": 1e-10}),
        lambda: recipe_of(optimizers.adafactor),
        [{"eps1"}],
    ),
    "clip_norm and none": (lambda: recipe_of(clip_norm=10.0), recipe_of, [{"clip_norm"}]),
    "clip_norm 0 and none": (lambda: recipe_of(clip_norm=0.0), recipe_of, [{"clip_norm"}]),
    "clip_norm and another": (
        lambda: recipe_of(clip_norm=10.0),
        lambda: recipe_of(clip_norm=10.1),
        [{"clip_norm"}],
    ),
    "clip_norm and the next float32": (
        lambda: recipe_of(clip_norm=10.0),
        lambda: recipe_of(clip_norm=np.nextafter(np.float32(10), np.float32(11))),
        [{"clip_norm"}],
    ),
    "clip_value and none": (lambda: recipe_of(clip_value=0.5), recipe_of, [{"clip_value"}]),
    "clip_value and another": (
        lambda: recipe_of(clip_value=0.5),
        lambda: recipe_of(clip_value=0.25),
        [{"clip_value"}],
    ),
    "clip_norm and clip_value": (
        lambda: recipe_of(clip_norm=0.5),
        lambda: recipe_of(clip_value=0.5),
        [{"clip_norm", "clip_value"}],
    ),
    "accumulation and none": (
        lambda: recipe_of(accumulation=FOUR),
        recipe_of,
        [RUN],
    ),
    "accumulation and none, moving": (
        lambda: recipe_of(optimizers.sgd, MOVING, accumulation=FOUR),
        lambda: recipe_of(optimizers.sgd, MOVING),
        [RUN],
    ),
    "accumulation and another": (
        lambda: recipe_of(accumulation=FOUR),
        lambda: recipe_of(accumulation=Accumulation(constant(2))),
        [RUN],
    ),
    "accumulation and a ramp": (
        lambda: recipe_of(accumulation=FOUR),
        lambda: recipe_of(accumulation=Accumulation(schedules.batch_ramp(9, end=4.0, then=4))),
        [RUN],
    ),
    "pending gradients": (
        lambda: recipe_of(accumulation=FOUR),
        lambda: recipe_of(accumulation=Accumulation(constant(4), 3)),
        [{"pending_gradients"}, {"pending_gradients", "micro_batches"}],
    ),
    "pending gradients of another epoch": (
        lambda: recipe_of(accumulation=Accumulation(constant(4), 6)),
        lambda: recipe_of(accumulation=Accumulation(constant(4), 5)),
        [{"pending_gradients", "micro_batches"}],
    ),
    "pending gradients where no border shows": (
        lambda: recipe_of(accumulation=Accumulation(constant(4), 1000)),
        lambda: recipe_of(accumulation=FOUR),
        [{"pending_gradients"}],
    ),
    "average and none": (
        lambda: recipe_of(ema=EMA()),
        recipe_of,
        [AVERAGE],
    ),
    "average over accumulation and none": (
        lambda: recipe_of(ema=EMA(), accumulation=FOUR),
        lambda: recipe_of(accumulation=FOUR),
        [AVERAGE],
    ),
    "decay": (
        lambda: recipe_of(ema=EMA(0.99)),
        lambda: recipe_of(ema=EMA(0.98)),
        [{"ema", "ema_decay"}],
    ),
    "decay in the last bits": (
        lambda: recipe_of(ema=EMA(0.9999)),
        lambda: recipe_of(ema=EMA(float(np.float32(0.9999)))),
        [{"ema"}, {"ema", "ema_decay"}],
    ),
    "power": (
        lambda: recipe_of(ema=EMA(power=0.75)),
        lambda: recipe_of(ema=EMA(power=0.5)),
        [{"ema", "ema_decay"}],
    ),
    "another ramp": (
        lambda: recipe_of(ema=EMA(power=0.75)),
        lambda: recipe_of(ema=EMA()),
        [{"ema", "ema_decay"}],
    ),
    "tau": (
        lambda: recipe_of(ema=EMA(tau=9.0)),
        lambda: recipe_of(ema=EMA(tau=8.0)),
        [{"ema", "ema_decay"}],
    ),
    "updates": (
        lambda: recipe_of(ema=EMA(updates=3)),
        lambda: recipe_of(ema=EMA(updates=4)),
        [{"ema_updates", "ema_decay"}],
    ),
}


@pytest.mark.parametrize("name", long_after(15, PAIRS))
def test_a_difference_that_acts_on_parameters_is_reported(name, tmp_path):
    one, other, names = PAIRS[name]
    assert_differ(one(), other(), names, tmp_path)
    assert_same(one(), one(), tmp_path)


TWINS = {
    "decoupled decay and AdamW": (
        lambda: recipe_of(optimizers.adam, {"decoupled_weight_decay": True, "weight_decay": 0.01}),
        lambda: recipe_of(optimizers.adamw),
    ),
    "partial of AdamW": (
        lambda: recipe_of(functools.partial(optimizers.adam, decoupled_weight_decay=True, b1=0.5)),
        lambda: recipe_of(optimizers.adamw, {"b1": 0.5, "weight_decay": 0.0}),
    ),
    "partial of a partial": (
        lambda: recipe_of(
            functools.partial(functools.partial(optimizers.sgd, momentum=0.5), momentum=0.9)
        ),
        lambda: recipe_of(optimizers.sgd, {"momentum": 0.9}),
    ),
    "partial that a group overrides": (
        lambda: recipe_of(functools.partial(optimizers.sgd, momentum=0.5), {"momentum": 0.9}),
        lambda: recipe_of(optimizers.sgd, {"momentum": 0.9}),
    ),
    "coupled decay written out": (
        lambda: recipe_of(optimizers.adam, {"decoupled_weight_decay": False}),
        lambda: recipe_of(optimizers.adam),
    ),
    "NumPy's switch": (
        lambda: recipe_of(optimizers.sgd, {"momentum": 0.9, "nesterov": np.True_}),
        lambda: recipe_of(optimizers.sgd, {"momentum": 0.9, "nesterov": True}),
    ),
    "list for a tuple": (
        lambda: recipe_of(optimizers.muon, {"ns_coefficients": [3.0, -4.0, 2.0]}),
        lambda: recipe_of(optimizers.muon, {"ns_coefficients": (3.0, -4.0, 2.0)}),
    ),
    "constant schedule": (
        lambda: recipe_of(optimizers.sgd, {"momentum": constant(0.9)}),
        lambda: recipe_of(optimizers.sgd, {"momentum": 0.9}),
    ),
    "function and schedule": (
        lambda: recipe_of(optimizers.sgd, {"learning_rate": lambda i: 0.1 * 0.5**i}),
        lambda: recipe_of(optimizers.sgd, {"learning_rate": lr_scheduler.exponential_lr(0.1, 0.5)}),
    ),
    "float32 for a number": (
        lambda: recipe_of(optimizers.sgd, {"momentum": np.float32(0.9)}),
        lambda: recipe_of(optimizers.sgd, {"momentum": 0.9}),
    ),
    "accumulation of 1 and none": (
        lambda: recipe_of(accumulation=Accumulation(constant(1))),
        recipe_of,
    ),
    "accumulation of 1 that drops and none": (
        lambda: recipe_of(accumulation=Accumulation(constant(1), 3)),
        recipe_of,
    ),
    "average over accumulation of 1": (
        lambda: recipe_of(ema=EMA(), accumulation=Accumulation(constant(1))),
        lambda: recipe_of(ema=EMA()),
    ),
    "batches of a function": (
        lambda: recipe_of(accumulation=Accumulation(lambda i: 4)),
        lambda: recipe_of(accumulation=FOUR),
    ),
    "NumPy's clip": (
        lambda: recipe_of(clip_norm=np.float32(0.1)),
        lambda: recipe_of(clip_norm=0.1),
    ),
    "integer clip": (lambda: recipe_of(clip_norm=10), lambda: recipe_of(clip_norm=10.0)),
    "NumPy's decay": (
        lambda: recipe_of(ema=EMA(np.float64(0.9999))),
        lambda: recipe_of(ema=EMA(0.9999)),
    ),
    "integer tau": (lambda: recipe_of(ema=EMA(tau=2000)), lambda: recipe_of(ema=EMA(tau=2000.0))),
    "replay": (
        lambda: Recipe.from_trace(
            recipe_of(optimizers.sgd, MOVING, accumulation=FOUR, ema=EMA()).trace(N)
        ),
        lambda: recipe_of(optimizers.sgd, MOVING, accumulation=FOUR, ema=EMA()),
    ),
    "replay of updates without a border": (
        lambda: Recipe.from_trace(recipe_of(optimizers.adam, clip_value=0.5).trace(N)),
        lambda: recipe_of(optimizers.adam, clip_value=0.5),
    ),
    "order of groups": (
        lambda: Recipe({"a": {"learning_rate": 0.1}, "b": {"learning_rate": 0.2}}, length=N),
        lambda: Recipe({"b": {"learning_rate": 0.2}, "a": {"learning_rate": 0.1}}, length=N),
    ),
}


@pytest.mark.parametrize("name", TWINS)
def test_equivalent_recipes_are_equal(name, tmp_path):
    one, other = TWINS[name]
    assert_same(one(), other(), tmp_path)


OFFERED = {
    "yolov5": lambda **fields: recipes.yolov5(epochs=3, steps_per_epoch=9, batch_size=4, **fields),
    "ultralytics": lambda **fields: recipes.ultralytics(
        epochs=3, steps_per_epoch=9, batch_size=4, **fields
    ),
}


@pytest.mark.parametrize("name", OFFERED)
def test_versions_of_the_originals_are_compared(name, tmp_path):
    recipe = OFFERED[name]()
    assert_same(recipe, OFFERED[name](), tmp_path)
    trace = recipe.trace(N)
    for field, names in {
        "clip_norm": {"clip_norm"},
        "ema": AVERAGE,
        "accumulation": RUN | {"ema_updates", "ema_decay"},
    }.items():
        if getattr(recipe, field) is None:
            continue
        changed = dataclasses.replace(recipe, **{field: None}).trace(N)
        for mine, reference in ((trace, changed), (changed, trace)):
            report = compare(mine, reference)
            differing = {q.name for q in report.quantities if q.first is not None}
            assert not report
            assert differing <= names, differing
            assert names & {field, "stepped"} <= differing, differing


# --- quantities that only one side states ---

STATED = {
    "update_rule": {"update_rule": None},
    "nesterov": {"switches": {}},
    "clip_norm": {"clip_norm": UNSTATED},
    "clip_value": {"clip_value": UNSTATED},
    "pending_gradients": {"accumulation": UNSTATED},
    "ema": {"ema": UNSTATED},
    "stepped": {"run": {}, "accumulation": UNSTATED},
    "ema_decay": {"run": {}, "ema": UNSTATED},
}


@pytest.mark.parametrize("name", STATED)
def test_quantities_that_only_one_side_states_are_listed(name):
    recipe = recipe_of(accumulation=FOUR, ema=EMA(), clip_norm=1.0)
    trace = recipe.trace(N)
    silent = dataclasses.replace(trace, **STATED[name])
    for one in (recipe, trace):
        for mine, reference in ((one, silent), (silent, one)):
            report = compare(mine, reference)
            assert report, report
            assert name in report.not_compared
            assert name not in {q.name for q in report.quantities}
            assert name in report.evidence()["not_compared"]
            line = f"not compared, only on one side: {', '.join(report.not_compared)}"
            assert str(report).splitlines()[1:] == [line]
        assert compare(one, trace).not_compared == ()
    changed = dataclasses.replace(silent, groups={"all": {"learning_rate": np.full(N, 0.2)}})
    report = compare(changed, trace)
    assert not report
    assert str(report).count("not compared, only on one side: ") == 1
    assert compare(changed, changed)


def test_a_trace_without_a_header_is_compared_by_its_numbers():
    recipe = recipe_of(optimizers.adam)
    bare = Trace(recipe.trace(N).groups)
    for mine, reference in ((recipe, bare), (bare, recipe)):
        report = compare(mine, reference)
        assert report
        assert {"update_rule", "clip_norm", "clip_value", "ema", "amsgrad", "maximize"} <= set(
            report.not_compared
        )
    assert compare(bare, bare).not_compared == ()
    only = Trace({"all": {"learning_rate": np.full(N, np.float32(0.1))}})
    for mine, reference in ((recipe, only), (only, recipe)):
        report = compare(mine, reference)
        assert report
        assert {"b1", "b2", "eps", "weight_decay"} <= set(report.not_compared)


def test_an_absence_that_one_side_states_is_compared():
    recipe = recipe_of()
    none = recipe.trace(N)
    for name, value in (
        ("clip_norm", 1.0),
        ("clip_value", 1.0),
        ("ema", {"decay": 0.9, "tau": 1.0, "updates": 0}),
    ):
        stated = dataclasses.replace(none, **{name: value})
        for one in (recipe, none):
            assert f"{name}: " in str(compare(one, stated))
            assert not compare(stated, one)


# --- not a number ---


def nan_rule(learning_rate, extra=math.nan):
    """An update rule with an argument that may be NaN."""
    return optax.sgd(learning_rate)


@pytest.mark.parametrize(
    "values", [[np.nan] * N, [1.0, np.nan] * (N // 2), [-0.0, np.nan] * (N // 2)], ids=str
)
@pytest.mark.parametrize(
    "dtypes", [*itertools.product((np.float32, np.float64), repeat=2)], ids=str
)
def test_nan_is_never_equal_to_nan(values, dtypes):
    one, other = (Trace({"a": {"x": np.array(values, dtype)}}) for dtype in dtypes)
    report = compare(one, other)
    assert not report
    assert report.first.name == "x"
    assert "nan" in str(report)
    assert not compare(one, one)
    for missing in (one, other):
        number = Trace({"a": {"x": np.ones(N)}})
        assert not compare(missing, number)
        assert not compare(number, missing)


def test_nan_in_a_recipe_is_equal_to_nothing(tmp_path):
    for how, report in reports(recipe_of(nan_rule), recipe_of(nan_rule), tmp_path):
        assert not report, how
        assert {q.name for q in report.quantities if q.first is not None} == {"extra"}
    assert_same(recipe_of(nan_rule, {"extra": 1.0}), recipe_of(nan_rule, {"extra": 1.0}), tmp_path)
    assert recipe_of(nan_rule) == recipe_of(nan_rule)  # recipes compare by content


def test_infinity_is_equal_to_infinity():
    """It is equal in float32, and refused in float64, where a distance is relative to the peak."""
    trace = Trace({"a": {"x": np.array([1.0, np.inf, -np.inf], np.float32)}})
    assert compare(trace, trace)
    assert not compare(trace, Trace({"a": {"x": np.array([1.0, np.inf, np.inf], np.float32)}}))


# --- foreign rules ---


def make_rule(factor):
    """Return a rule; all rules made here have the same name."""

    def rule(learning_rate):
        return optax.sgd(factor * learning_rate)

    return rule


LAMBDAS = {
    "lambdas": (
        lambda learning_rate: optax.sgd(learning_rate),
        lambda learning_rate: optax.identity(),
    ),
    "closures": (make_rule(1.0), make_rule(2.0)),
    "partials": (functools.partial(optax.sgd, nesterov=True), functools.partial(optax.sgd)),
    "lambda and function": (lambda learning_rate: optax.sgd(learning_rate), optax.sgd),
    "lambda and rule": (lambda learning_rate: optax.sgd(learning_rate), optimizers.sgd),
    "functions": (nan_rule, optax.sgd),
}


@pytest.mark.parametrize("name", LAMBDAS)
def test_two_foreign_rules_are_not_reported_as_equal(name):
    one, other = (recipe_of(rule) for rule in LAMBDAS[name])
    for mine, reference in ((one, other), (other, one)):
        report = compare(mine, reference)
        assert not report
        assert "update_rule" in {q.name for q in report.quantities if q.first is not None}
        assert "update_rule" in str(report)
    for rule in LAMBDAS[name]:
        if rule is not nan_rule:
            assert compare(recipe_of(rule), recipe_of(rule)), name


def test_a_rule_without_a_name_is_listed_against_a_trace():
    recipe = recipe_of(lambda learning_rate: optax.sgd(learning_rate))
    assert recipe.trace(N).update_rule.endswith("<lambda>")
    named = recipe_of(optax.sgd).trace(N)
    assert "update_rule" in compare(recipe, named).not_compared
    assert "update_rule" in compare(named, recipe).not_compared
    same = functools.partial(optax.sgd, momentum=0.5)
    again = functools.partial(optax.sgd, momentum=0.5)
    assert compare(recipe_of(same), recipe_of(again))
    assert not compare(recipe_of(same), recipe_of(functools.partial(optax.sgd, momentum=0.6)))


# --- causes ---


def test_a_setting_that_differs_is_a_cause():
    report = compare(recipe_of(clip_norm=1.0), recipe_of())
    assert report.causes == ("another clip norm: 1 for none",)
    assert "clip_norm: 1 for none" in str(report)
    report = compare(
        recipe_of(optimizers.sgd, {"momentum": 0.9, "nesterov": True}), recipe_of(group_of_09())
    )
    assert report.causes == ("another nesterov: True for False in all",)


def group_of_09():
    return functools.partial(optimizers.sgd, momentum=0.9)
