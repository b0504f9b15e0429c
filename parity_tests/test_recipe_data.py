"""A recipe is data: schedules, recipes and traces are printed, compared, pickled and saved.

Schedules are written as the expressions that ``repr`` must return. A schedule that differs in one
argument must not be equal.
"""

import copy
import dataclasses
import functools
import inspect
import json
import math
import os
import pickle
import re
import subprocess
import sys
import typing

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import long_after
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxsched
from jaxsched import Recipe, Trace, lr_scheduler, optimizers, param_groups, recipes, schedules
from jaxsched._recipe._file import RULES
from jaxsched._trace import UNSTATED
from jaxsched.schedules import Schedule

NAMESPACE = {**vars(schedules), **vars(lr_scheduler)}


def returns_schedule(function):
    variants = [function, *typing.get_overloads(function)]
    return any(inspect.signature(f).return_annotation is Schedule for f in variants)


FACTORIES = {
    name: function
    for module in (schedules, lr_scheduler)
    for name in module.__all__
    if inspect.isfunction(function := getattr(module, name)) and returns_schedule(function)
}

# Schedules with arguments that are numbers, strings, lists of them and schedules.
EXPRESSIONS = [
    "batch_ramp(4, end=4.0, then=4)",
    "batch_ramp(0, end=1.5, then=2)",
    "constant(0.1)",
    "constant(0)",
    "constant(-0.0)",
    "constant(float('inf'))",
    "constant(float('-inf'))",
    "constant(float('nan'))",
    "cosine(100, lrf=0.2)",
    "cosine(12.5, lrf=0)",
    "constant_with_warmup(2)",
    "linear_with_warmup(2, 6)",
    "cosine_with_warmup(2, 6, 1.5)",
    "cosine_with_warmup(2, 6, min_lr_rate=0.1)",
    "cosine_with_restarts(2, 6, 2)",
    "cosine_warmup_with_min_lr(2, 6, min_lr_rate=0.1, warmup_lr_rate=0.3)",
    "polynomial_with_warmup(2, 6, 0.01, 2.0, lr_init=0.1)",
    "inverse_sqrt(2, 9)",
    "warmup_stable_decay(2, 3, 8, decay_type='1-sqrt', min_lr_ratio=0.1)",
    "warmup_stable_decay(2, 3, num_stable_steps=1, warmup_type='cosine')",
    "per_update(lambda_lr(0.1, inverse_sqrt(2)), 2, 5)",
    "update_batches(2, 5)",
    "linear(100, lrf=0.01)",
    "one_cycle(30, lrf=1e-08)",
    "lagged(linear(9, lrf=0.5), after=3)",
    "override(cosine(9, lrf=0.1), constant(0.3), at=4)",
    "override(cosine(9, lrf=0.1), constant(0.3), at=4, when=False)",
    "hold(linear(9, lrf=0.5), at=3)",
    "hold(linear(9, lrf=0.5), at=3, until=6)",
    "per_epoch(cosine(9, lrf=0.1), 3)",
    "table([0.5, 0.25, 0.125], start=4)",
    "shift(per_epoch(table([0.5, 0.25], then=exponential_lr(0.1, 0.9)), 2), -1)",
    "per_update(linear(9, lrf=0.5), 2, 5)",
    "scaled(linear(9, lrf=0.5), 0.75)",
    "timm_cosine(0.1, 4)",
    "timm_cosine(0.1, 4, 0.001, cycle_mul=2, cycle_decay=0.5, cycle_limit=3, warmup_t=2, "
    "warmup_lr_init=1e-06, warmup_prefix=True, k_decay=1.5)",
    "timm_tanh(0.1, 9, -6.0, 2.5, cycle_limit=2, warmup_t=2)",
    "timm_poly(0.1, 9, 0.9, 0.01, k_decay=0.5)",
    "timm_step(0.1, 2.5, 0.5, warmup_t=1, warmup_prefix=False)",
    "timm_multistep(0.1, [2, 5], 0.5)",
    "timm_wsd(0.1, 9, 3, 0.001, stable_fn='rsqrt', stable_timescale=4, decay_fn='cosine')",
    "timm_wsd(0.1, 9, 3, warmup_t=1)",
    "update_batches(2, 5)",
    "shift(constant(0.3), 2)",
    "shift(linear(7, lrf=0.1), -2)",
    "table([0.5, 0.25, 0.125, 0.0625, 0.5, 0.25, 0.125])",
    "table([0.1, -0.0, 1e-300, float('nan'), float('inf'), 0.3, 0.7])",
    "table([0.5, 0.25, 0.125, 0.0625, 0.5, 0.25, 0.125, 0.5], start=1)",
    "warmup(constant(0.1), 3, start=0.01)",
    "warmup(per_epoch(lambda_lr(0.01, cosine(100, lrf=0.2)), 30), 1000, start=0.1)",
    "chained_scheduler([constant_lr(1.0, 0.5, 2), exponential_lr(1.0, 0.5)], steps=10)",
    "constant_lr(0.1)",
    "constant_lr(0.1, 0.5, 3, steps=9)",
    "cosine_annealing_lr(0.1, 9)",
    "cosine_annealing_lr(0.1, 9, 0.01, steps=20)",
    "cosine_annealing_warm_restarts(0.1, 3)",
    "cosine_annealing_warm_restarts(0.1, 3, 2, 0.001, steps=12)",
    "cyclic_lr(0.1, 1.0)",
    "cyclic_lr(0.1, 1.0, 3, 2, 'exp_range', 0.9)",
    "cyclic_lr(0.1, 1.0, 3, mode='triangular2', cycle_momentum=False, steps=9)",
    "cyclic_lr(0.1, 1.0, 3).momentum",
    "cyclic_lr(0.1, 1.0, 3, scale_fn=exponential_lr(1.0, 0.5), scale_mode='iterations')",
    "exponential_lr(0.1, 0.9)",
    "exponential_lr(0.1, 0.9, steps=8)",
    "lambda_lr(0.1, cosine(9, lrf=0.1))",
    "lambda_lr(0.1, cosine(9, lrf=0.1), steps=9)",
    "linear_lr(0.1)",
    "linear_lr(0.1, 0.25, 0.75, 4, steps=8)",
    "multi_step_lr(0.1, [3, 5])",
    "multi_step_lr(0.1, [3, 5], 0.5, steps=8)",
    "multiplicative_lr(0.1, constant(0.5), steps=8)",
    "one_cycle_lr(1.0, 10)",
    "one_cycle_lr(1.0, epochs=5, steps_per_epoch=4, anneal_strategy='linear', three_phase=True)",
    "one_cycle_lr(1.0, 10, steps=9)",
    "one_cycle_lr(1.0, 10, div_factor=10.0).momentum",
    "one_cycle_lr(1.0, 10, steps=9).momentum",
    "polynomial_lr(0.1)",
    "polynomial_lr(0.1, 9, 2.0, steps=12)",
    "sequential_lr([linear_lr(0.1), multi_step_lr(0.1, [2])], [4], steps=12)",
    "step_lr(0.1, 3)",
    "step_lr(0.1, 3, 0.5, steps=8)",
    "swa_lr(0.1, 0.05)",
    "swa_lr(0.1, 0.05, 4, 'linear', steps=8)",
]
COUNTS = (0, 1, 3, 6)
BOUND = ("mode", "steps", "epochs", "steps_per_epoch", "num_training_steps", "num_stable_steps")
"""Arguments that cannot change if the others stay."""

# The factory of each expression; that of a momentum belongs to no module.
FACTORY_OF = {text: eval(text, NAMESPACE).factory for text in EXPRESSIONS}


def bits(schedule, counts=COUNTS):
    """Return the bytes of a schedule's values, or its error for a count."""

    def one(count):
        try:
            return np.asarray(schedule(count)).tobytes()
        except (TypeError, ValueError) as error:
            return str(error)

    return [one(count) for count in counts]


def copies(value, *, pickles=True):
    """Return every copy of a value that Python can make, by the method."""
    by_method = {"deepcopy": copy.deepcopy(value), "copy": copy.copy(value)}
    if pickles:
        by_method["pickle"] = pickle.loads(pickle.dumps(value))
    return by_method


def assert_copies_equal(value, bits_of, *, pickles=True):
    """Fail unless copies made before and after use equal ``value``, with its hash and its bits."""
    before = copies(value, pickles=pickles)
    expected = bits_of(value)
    after = copies(value, pickles=pickles)
    for when, copies_by_method in (("before", before), ("after", after)):
        for how, other in copies_by_method.items():
            assert other == value, f"{how} {when} use: {other!r} for {value!r}"
            assert hash(other) == hash(value), f"{how} {when} use"
            assert repr(other) == repr(value), f"{how} {when} use"
            assert bits_of(other) == expected, f"{how} {when} use of {value!r}"


@pytest.mark.parametrize("name", FACTORIES)
def test_every_factory_has_a_case(name):
    assert FACTORIES[name] in FACTORY_OF.values() or name == "tabulate"


def test_all_functions_that_return_schedules_are_found():
    """The other functions return a plateau's recursion and transformations."""
    functions = {
        name
        for module in (schedules, lr_scheduler)
        for name in module.__all__
        if inspect.isfunction(getattr(module, name))
    }
    assert functions - set(FACTORIES) == {"reduce_lr_on_plateau", "scale_on_plateau"}
    assert repr(schedules.tabulate(lambda count: 0.5**count, 3)) == "table([1.0, 0.5, 0.25])"


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_repr_is_the_expression_that_makes_the_schedule(text):
    schedule = eval(text, NAMESPACE)
    assert repr(schedule) == text
    again = eval(repr(schedule), NAMESPACE)
    assert again == schedule
    assert hash(again) == hash(schedule)
    assert bits(again) == bits(schedule)
    with jax.enable_x64(True):
        assert bits(again) == bits(schedule)


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_copies_of_a_schedule_are_equal(text):
    assert_copies_equal(eval(text, NAMESPACE), lambda made: bits(made, [1, 6]))


OTHER = {
    "triangular": ["triangular2"],
    "triangular2": ["triangular"],
    "exp_range": ["triangular"],
    "cycle": ["iterations"],
    "iterations": ["cycle"],
    "cos": ["linear"],
    "linear": ["cos", "1-sqrt"],
    "1-sqrt": ["cosine"],
    "cosine": ["1-sqrt"],
    "constant": ["rsqrt"],
    "rsqrt": ["constant"],
}
"""Other strings that an argument may have."""


def other_values(value):
    """Return values that an argument may have in place of ``value``."""
    if isinstance(value, bool):
        return [not value]
    if isinstance(value, int | float):
        near = [value + 1, value * 0.5, value + 0.125]
        return [*(v for v in near if v and math.isfinite(v)), 7]
    if isinstance(value, str):
        return OTHER[value]
    if value is None:
        return [11, schedules.constant(0.125)]
    if isinstance(value, Schedule):
        if value.momentum is not None:
            return [value.replace(max_momentum=0.99)]
        if value.base_lr is not None:
            return [lr_scheduler.exponential_lr(value.base_lr, 0.0625)]
        return [schedules.constant(0.0625), lr_scheduler.exponential_lr(1.0, 0.0625)]
    if isinstance(value, np.ndarray):
        return [value * 2, value[:-1]]
    return [(*value[:-1], other) for other in other_values(value[-1])]


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_a_schedule_with_one_argument_changed_is_another(text):
    schedule = eval(text, NAMESPACE)
    assert schedule.replace() == schedule
    for name, value in schedule.arguments.items():
        tried = []
        for other in other_values(value):
            try:
                changed = schedule.replace(**{name: other})
            except (TypeError, ValueError):  # an argument that does not fit the others
                continue
            tried.append(changed)
            assert changed != schedule, f"{name} {other!r} for {value!r}"
            assert repr(changed) != repr(schedule), f"{name} {other!r} for {value!r}"
            assert changed.replace(**{name: value}) == schedule
            assert all(copied == changed for copied in copies(changed).values())
        assert tried or name in BOUND, name


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_replace_refuses_an_argument_that_the_factory_does_not_have(text):
    schedule = eval(text, NAMESPACE)
    with pytest.raises(TypeError, match=r"^arguments of \w+ must be among .*, got learning_rat\.$"):
        schedule.replace(learning_rat=1)


WRAPPED = {
    "float32": np.float32,
    "float64": np.float64,
    "int32": lambda value: np.int32(value) if float(value).is_integer() else None,
    "array": lambda value: np.array(value, np.float32),
    "jax": jnp.float32,
    "bfloat16": jnp.bfloat16,
}
"""Conversions of a Python number; the float64 value of a NumPy scalar may differ."""


@pytest.mark.parametrize("wrapper", WRAPPED)
@pytest.mark.parametrize("text", EXPRESSIONS)
def test_a_number_of_another_kind_makes_another_schedule(text, wrapper):
    schedule = eval(text, NAMESPACE)
    for name, value in schedule.arguments.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        try:
            number = WRAPPED[wrapper](value)
            changed = number is not None and schedule.replace(**{name: number})
        except (TypeError, ValueError, OverflowError):  # a length that must be known
            continue
        if changed:
            assert changed != schedule, name
            # Only for one kind, because evaluation is slow.
            assert_copies_equal(changed, lambda made: bits(made, [2] * (wrapper == "float32")))
            assert changed == schedule.replace(**{name: WRAPPED[wrapper](value)})


def inverse(count):
    """A factor of the user's own."""
    return 1 / (1 + count)


def tenth(count):
    """Another factor, which never equals it."""
    return 0.1 / (1 + count)


def scaled_inverse(count, factor):
    """A factor with two arguments, for functools.partial."""
    return factor / (1 + count)


class Halving:
    """A callable object, equal to itself only."""

    def __call__(self, count):
        return 1 / (1 + count)

    def method(self, count):
        return 1 / (1 + count)


OBJECT = Halving()
OPTAX = optax.cosine_decay_schedule(0.1, 9)
LAMBDA = lambda count: 0.5 / (1 + count)  # noqa: E731

# name: (schedule, true if its functions can be pickled and are the same ones then, part of repr)
ANY = {
    "function": (lambda: lr_scheduler.lambda_lr(0.1, inverse), True, "inverse"),
    "replayed function": (lambda: lr_scheduler.lambda_lr(0.1, inverse, steps=7), True, "inverse"),
    "nested function": (
        lambda: schedules.warmup(
            schedules.per_epoch(lr_scheduler.lambda_lr(np.float32(0.1), inverse), 2), 3, start=0.0
        ),
        True,
        "inverse",
    ),
    "bare function": (lambda: schedules.per_epoch(inverse, 2), True, "inverse"),
    "partial": (
        lambda: lr_scheduler.lambda_lr(0.1, functools.partial(scaled_inverse, factor=0.5)),
        True,
        "factor=0.5",
    ),
    "scale": (lambda: lr_scheduler.cyclic_lr(0.1, 1.0, 3, scale_fn=inverse), True, "inverse"),
    "momentum of a scale": (
        lambda: lr_scheduler.cyclic_lr(0.1, 1.0, 3, scale_fn=inverse).momentum,
        True,
        "inverse",
    ),
    "method": (lambda: schedules.shift(OBJECT.method, -1), False, "Halving.method"),
    "object": (lambda: schedules.shift(OBJECT, -1), False, "Halving"),
    "lambda": (lambda: schedules.shift(LAMBDA, -1), False, "<lambda>"),
    "optax": (lambda: schedules.per_epoch(OPTAX, 2), False, "optax."),
    "jitted": (lambda: schedules.per_epoch(jax.jit(inverse), 2), False, "inverse"),
    "jnp": (lambda: schedules.per_epoch(jnp.exp2, 2), False, "exp2"),
    "milestones": (lambda: lr_scheduler.multi_step_lr(0.1, jnp.array([3, 5])), True, "[3, 5]"),
    "numpy milestones": (lambda: lr_scheduler.multi_step_lr(0.1, np.array([3, 5])), True, "[3, 5]"),
    "iterator": (lambda: lr_scheduler.multi_step_lr(0.1, iter([3, 5])), True, "[3, 5]"),
    "switch": (
        lambda: schedules.override(inverse, tenth, at=np.int64(3), when=np.True_),
        True,
        "when=",
    ),
    "float32 table": (lambda: schedules.table(np.float32([0.1] * 7)), True, "table([0.1000000014"),
    "sequence of functions": (
        lambda: lr_scheduler.sequential_lr(
            [lr_scheduler.lambda_lr(0.1, inverse), lr_scheduler.multiplicative_lr(0.1, tenth)],
            [3],
            steps=9,
        ),
        True,
        "tenth",
    ),
}


@pytest.mark.parametrize("name", ANY)
def test_copies_with_any_arguments_are_equal(name):
    make, pickles, part = ANY[name]
    schedule = make()
    assert part in repr(schedule)
    assert " at 0x" not in repr(schedule)
    assert_copies_equal(schedule, bits, pickles=pickles)
    with jax.enable_x64(True):
        assert_copies_equal(make(), bits, pickles=pickles)
    if name != "jitted":  # each call of jax.jit returns another function
        assert make() == schedule


def test_functions_go_by_identity_and_partials_by_content():
    assert lr_scheduler.lambda_lr(0.1, inverse) != lr_scheduler.lambda_lr(0.1, tenth)
    assert schedules.shift(lambda c: c, 1) != schedules.shift(lambda c: c, 1)
    assert schedules.shift(OBJECT, 1) != schedules.shift(Halving(), 1)

    def partial(factor):
        return schedules.shift(functools.partial(scaled_inverse, factor=factor), 1)

    assert partial(0.5) == partial(0.5)
    assert partial(0.5) != partial(np.float64(0.5))
    assert partial(0.5) != partial(0.25)


# Pairs of numbers that are equal for Python's ==, but not in a schedule, and the reverse.
DIFFERENT = {
    "float32": (0.5, np.float32(0.5)),
    "float64": (0.1, np.float64(0.1)),
    "rounded": (0.1, np.float32(0.1)),
    "scalar and array": (np.float32(0.1), np.array(0.1, np.float32)),
    "array dtypes": (np.array(0.5, np.float32), np.array(0.5, np.float64)),
    "signed zeros": (0.0, -0.0),
    "signed zeros of arrays": (np.float32(0.0), np.float32(-0.0)),
    "integer": (1, 1.0),
    "nan and number": (math.nan, 0.0),
}
SAME = {
    "nan": (math.nan, -math.nan),
    "array kinds": (np.array(0.1, np.float32), jnp.float32(0.1)),
    "nan arrays": (np.float32(math.nan), -np.float32(math.nan)),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_numbers_that_python_calls_equal_may_differ(name):
    one, other = map(schedules.constant, DIFFERENT[name])
    assert one != other
    assert repr(one) != repr(other)
    # Inside another schedule, because a constant of NaN is refused.
    recipe, twin = (Recipe({"a": {"learning_rate": schedules.shift(s, 1)}}) for s in (one, other))
    assert recipe != twin


def test_a_constant_schedule_is_its_number():
    scheduled, plain = (
        Recipe({"a": {"learning_rate": rate, "momentum": 0.9}})
        for rate in (schedules.constant(0.1), 0.1)
    )
    params = {"w": jnp.ones(3)}
    one, other = (
        str(jax.make_jaxpr(tx.update)(params, tx.init(params), params))
        for tx in (recipe.optimizer({"w": "a"}) for recipe in (scheduled, plain))
    )
    assert one == other
    with pytest.raises(ValueError, match="learning_rate must be a finite number"):
        Recipe({"a": {"learning_rate": schedules.constant(math.nan)}})


@pytest.mark.parametrize("name", SAME)
def test_numbers_that_mean_the_same_are_equal(name):
    one, other = map(schedules.constant, SAME[name])
    assert one == other
    assert hash(one) == hash(other)


def test_a_schedule_equals_no_other_object():
    schedule = schedules.constant(0.1)
    assert schedule != 0.1
    assert schedule != "constant(0.1)"
    assert schedules.linear(9, lrf=0.1) != schedules.one_cycle(9, lrf=0.1)
    assert len({schedule, schedules.constant(0.1), schedules.constant(0.2)}) == 2


def test_a_traced_schedule_equals_itself_only_and_has_no_hash():
    texts = []

    @jax.jit
    def check_traced(x):
        one, other = (schedules.cosine(9, lrf=x) for _ in range(2))
        assert one == one
        assert copy.deepcopy(one) == one
        assert one != other
        assert one != schedules.cosine(9, lrf=0.1)
        with pytest.raises(TypeError, match=r"must have concrete arguments to be hashed") as e:
            hash(one)
        texts.extend([str(e.value), repr(one)])
        with pytest.raises(TypeError, match=r"must have concrete arguments"):
            hash(schedules.per_epoch(one, 3))
        with pytest.raises(TypeError, match=r"must have concrete arguments"):
            hash(Recipe({"a": {"learning_rate": one}}))
        return one(3)

    assert float(check_traced(0.1)) == float(schedules.cosine(9, lrf=np.float32(0.1))(3))
    assert "traced" in texts[0]
    assert texts[1] == "cosine(9, lrf=<traced float32[]>)"


def test_a_long_table_is_shortened():
    schedule = schedules.table(np.arange(100000.0))
    assert repr(schedule) == "table(<100000 values>)"
    assert schedule == schedules.table(range(100000))
    changed = np.arange(100000.0)
    changed[50000] += 1
    assert schedule != schedules.table(changed)
    assert_copies_equal(schedule, lambda s: bits(s, [0, 99999]))
    assert repr(schedules.table(range(100))).endswith("98.0, 99.0])")
    assert repr(schedules.table(range(101))) == "table(<101 values>)"


# Objects from which a schedule was made, and how the user changes them afterwards.
MUTABLE = {
    "table": (np.array([0.5, 0.25]), schedules.table),
    "milestones": ([2, 5], lambda v: lr_scheduler.multi_step_lr(0.1, v)),
    "milestones array": (np.array([2, 5]), lambda v: lr_scheduler.multi_step_lr(0.1, v)),
    "constant": (np.array(0.5), schedules.constant),
    "cosine": (np.array(0.5), lambda v: schedules.cosine(9, lrf=v)),
    "warmup": (np.array(0.5), lambda v: schedules.warmup(inverse, 5, start=v)),
    "override": (np.array(1), lambda v: schedules.override(inverse, tenth, at=v)),
    "hold": (np.array(1), lambda v: schedules.hold(inverse, at=v)),
    "shift": (np.array(-1), lambda v: schedules.shift(inverse, v)),
    "per_epoch": (np.array(2), lambda v: schedules.per_epoch(inverse, v)),
    "lagged": (np.array(1), lambda v: schedules.lagged(inverse, after=v)),
    "exponential_lr": (np.array(0.5), lambda v: lr_scheduler.exponential_lr(0.1, v)),
    "base_lr": (np.array(0.5), lambda v: lr_scheduler.exponential_lr(v, 0.5)),
}


@pytest.mark.parametrize("name", MUTABLE)
def test_nobody_changes_a_schedule_from_outside(name):
    argument, make = MUTABLE[name]
    argument = copy.deepcopy(argument)
    schedule, twin = make(argument), make(copy.deepcopy(argument))
    if np.ndim(argument):
        argument[0] = 1
    else:
        argument[()] = 7
    assert schedule == twin
    assert make(argument) != twin
    assert bits(schedule, [0, 1, 2, 3]) == bits(twin, [0, 1, 2, 3])
    with pytest.raises(TypeError):
        schedule.arguments["lrf"] = 3
    with pytest.raises(dataclasses.FrozenInstanceError):
        schedule.factory = schedules.linear
    for value in schedule.arguments.values():
        if isinstance(value, np.ndarray):
            with pytest.raises(ValueError, match="read-only"):
                value[...] = 0


@pytest.mark.parametrize("text", ["cyclic_lr(0.1, 1.0, 3)", "one_cycle_lr(1.0, 10)"])
def test_a_momentum_is_a_schedule_of_its_own(text):
    cycle = eval(text, NAMESPACE)
    momentum = cycle.momentum
    assert momentum is cycle.momentum
    assert momentum == eval(text, NAMESPACE).momentum
    assert momentum != cycle
    assert bits(momentum) != bits(cycle)
    assert momentum.momentum is None
    assert (
        repr(schedules.warmup(momentum, 3, start=0.5)) == f"warmup({text}.momentum, 3, start=0.5)"
    )
    slower = cycle.replace(max_momentum=0.99)
    assert momentum.replace(cycle=slower) == slower.momentum != momentum
    assert cycle.replace(cycle_momentum=False).momentum is None


# --- recipes ---

SUFFIXES = (".yaml", ".json")

N = 3
"""Rows of a trace that is compared; each trace is compiled."""


def numbers_of(rule):
    """Return the arguments of an update rule that are numbers, with their defaults."""
    parameters = inspect.signature(RULES[rule]).parameters.values()
    return {p.name: p.default for p in parameters if type(p.default) is float}


def switches_of(rule):
    parameters = inspect.signature(RULES[rule]).parameters.values()
    return [p.name for p in parameters if isinstance(p.default, bool)]


FIXED = ("eta_minus", "eta_plus", "step_size_min", "step_size_max", "eps", "eps2", "b1", "b2")
"""Arguments whose range does not reach from half their default to it, or that bound each other."""

factors = st.floats(0.01, 0.99)


def one_in(*strategies):
    return st.one_of(*strategies)


constants = one_in(
    factors,
    factors.map(np.float32),
    factors.map(np.float64),
    st.sampled_from([0, 1, 0.0, 1e-8, 5e-4]),
    factors.map(lambda v: np.array(v, np.float32)),
    factors.map(lambda v: jnp.asarray(np.float32(v))),
)
small = st.integers(1, 9)


def nest_schedules(inner):
    """Return schedules around others; each takes counts from 0 to 40."""
    return one_in(
        st.builds(schedules.per_epoch, inner, small),
        st.builds(schedules.shift, inner, st.integers(-5, 0)),
        st.builds(lambda s, k: schedules.lagged(s, after=k), inner, small),
        st.builds(lambda s, n, b: schedules.warmup(s, n, start=b), inner, small, factors),
        st.builds(
            lambda s, other, at, when: schedules.override(s, other, at=at, when=when),
            inner,
            inner,
            small,
            one_in(st.booleans(), st.booleans().map(np.bool_)),
        ),
        st.builds(lr_scheduler.lambda_lr, constants, inner),
        st.builds(lambda b, s: lr_scheduler.lambda_lr(b, s, steps=40), factors, inner),
    )


curves = one_in(
    st.builds(schedules.constant, constants),
    st.builds(lambda n, lrf: schedules.cosine(n, lrf=lrf), small, factors),
    st.builds(lambda n, lrf: schedules.linear(40 + n, lrf=lrf), small, factors),
    st.builds(lr_scheduler.exponential_lr, constants, factors),
    st.builds(lr_scheduler.step_lr, factors, small, factors),
    st.builds(lr_scheduler.cosine_annealing_lr, factors, small),
    st.lists(factors, min_size=41, max_size=41).map(schedules.table),
    st.lists(factors, min_size=41, max_size=41).map(lambda v: schedules.table(np.float32(v))),
    st.builds(
        lambda b, g, m: lr_scheduler.sequential_lr(
            [lr_scheduler.exponential_lr(b, g), lr_scheduler.linear_lr(b)], [m], steps=40
        ),
        factors,
        factors,
        small,
    ),
    st.builds(lambda b, n: lr_scheduler.cyclic_lr(b / 2, b, n).momentum, factors, small),
    st.builds(lambda b, m: lr_scheduler.multi_step_lr(b, sorted(m)), factors, st.lists(small)),
)
schedule_strategy = st.recursive(curves, nest_schedules, max_leaves=3)
labels = one_in(
    st.sampled_from(["weight", "bias", "a/b", "1e5", "yes", "null", "~", "1", "a: b", " x ", ""]),
    st.text(max_size=6).filter(lambda text: text != "frozen"),
)


@st.composite
def random_recipes(draw):
    rule = draw(st.sampled_from(sorted(RULES)))
    numbers = [name for name in numbers_of(rule) if name not in FIXED]

    def group():
        entries = {"learning_rate": draw(one_in(constants, schedule_strategy))}
        for name in draw(
            st.lists(st.sampled_from([*numbers, *switches_of(rule), "-"]), max_size=3)
        ):
            if name in numbers and name not in ("beta2_decay", "d"):  # within their own bounds
                entries[name] = draw(one_in(constants, curves))
            elif name in switches_of(rule) and name != "nesterov":
                entries[name] = draw(one_in(st.booleans(), st.booleans().map(np.bool_)))
        if rule == "muon":
            entries["ns_steps"] = draw(small)
            entries["ns_coefficients"] = draw(st.sampled_from([(3.0, -4.0, 2.0), (2.0, -1.5, 0.5)]))
            entries["adjust_lr_fn"] = draw(st.sampled_from([None, "original", "match_rms_adamw"]))
        if rule == "adafactor":
            entries["eps1"] = draw(st.sampled_from([None, 1e-10]))
        if rule == "adagrad" and callable(entries.get("initial_accumulator_value")):
            del entries["initial_accumulator_value"]
        return entries

    every = draw(one_in(st.none(), small))
    return Recipe(
        {label: group() for label in draw(st.lists(labels, min_size=1, max_size=3, unique=True))},
        RULES[rule],
        **draw(
            st.sampled_from(
                [{}, {"clip_norm": 10.0}, {"clip_norm": np.float32(0.1)}, {"clip_value": 1e-8}]
            )
        ),
        accumulation=draw(
            one_in(
                st.none(),
                st.builds(
                    lambda n: optimizers.Accumulation(schedules.constant(n), every), st.just(4)
                ),
                st.just(optimizers.Accumulation(schedules.batch_ramp(5, end=4.0, then=4), every)),
            )
        ),
        ema=draw(
            one_in(
                st.none(),
                st.builds(
                    optimizers.EMA,
                    one_in(factors, factors.map(np.float32)),
                    st.floats(1.0, 3000.0),
                    small,
                ),
            )
        ),
        start=draw(st.integers(0, 9)),
        clock=draw(st.sampled_from(["iteration", "update"])),
        length=draw(one_in(st.none(), st.integers(12, 40))),
    )


def values(recipe):
    """Return the bits of the hyperparameters at the start and three iterations later."""
    return [
        (label, name, np.asarray(value).tobytes(), value.dtype)
        for iteration in (recipe.start, recipe.start + 3)
        for label, group in recipe.at(iteration).items()
        for name, value in group.items()
    ]


def save_and_load(recipe, folder, suffix, **options):
    path = folder / f"recipe{suffix}"
    recipe.save(path, **options)
    return Recipe.load(path)


def all_copies(recipe, folder):
    return copies(recipe) | {suffix: save_and_load(recipe, folder, suffix) for suffix in SUFFIXES}


def assert_recipe_copies_equal(recipe, folder, *, traces):
    """Fail unless every copy, made before and after use, equals the recipe and has its values."""
    before = all_copies(recipe, folder)
    expected = values(recipe)
    trace = recipe.trace(N) if traces else None
    after = {
        "pickle": pickle.loads(pickle.dumps(recipe)),
        ".json": save_and_load(recipe, folder, ".json"),
    }
    for when, copies_by_method in (("before", before), ("after", after)):
        for how, other in copies_by_method.items():
            assert other == recipe, f"{how}, {when} use:\n{other!r}\nfor\n{recipe!r}"
            assert hash(other) == hash(recipe), f"{how}, {when} use"
            if when == "before" and "copy" not in how:
                assert values(other) == expected, f"{how}\n{recipe!r}"
    if traces:
        for how in ("pickle", *SUFFIXES):
            other = before[how].trace(N)
            assert other == trace, f"{how}\n{recipe!r}"
            assert jaxsched.compare(other, trace), how


@given(random_recipes(), st.integers(0, 15))
def test_copies_of_a_random_recipe_are_equal(tmp_path_factory, recipe, chance):
    folder = tmp_path_factory.getbasetemp()
    assert_recipe_copies_equal(recipe, folder, traces=chance == 0)
    assert len(repr(recipe).splitlines()) <= 40
    changed = dataclasses.replace(recipe, start=recipe.start + 1)
    assert changed != recipe
    assert save_and_load(changed, folder, ".json") == changed


TIMM = {
    **{"lr": 0.1, "opt": "adamw", "epochs": 4, "warmup_epochs": 1, "sched_on_updates": True},
    **{"grad_accum_steps": 2, "clip_grad": 1.0, "clip_mode": "value", "model_ema": True},
}
OFFERED = {
    "article": lambda: recipes.yolov5_resnet18(),
    "article resumed": lambda: recipes.yolov5_resnet18(start_epoch=50, resumed=True),
    "article not resumed": lambda: recipes.yolov5_resnet18(start_epoch=50),
    "yolov5": lambda: recipes.yolov5(epochs=3, steps_per_epoch=9, batch_size=4),
    "yolov5 Adam": lambda: recipes.yolov5(epochs=3, steps_per_epoch=9, optimizer="Adam"),
    "yolov5 6.1": lambda: recipes.yolov5(epochs=3, steps_per_epoch=9, version="6.1", cos_lr=True),
    "ultralytics": lambda: recipes.ultralytics(epochs=3, steps_per_epoch=9),
    "ultralytics AdamW": lambda: recipes.ultralytics(
        epochs=3, steps_per_epoch=9, optimizer="AdamW"
    ),
    "ultralytics auto": lambda: recipes.ultralytics(
        epochs=3, steps_per_epoch=9, optimizer="auto", classes=3, images=99
    ),
    "ultralytics resumed": lambda: recipes.ultralytics(
        epochs=9, steps_per_epoch=9, start_epoch=4, resumed=True, version="8.1.24"
    ),
    "timm": lambda: recipes.timm(TIMM, steps_per_epoch=5),
    "timm's layers": lambda: recipes.timm(
        {**TIMM, "layer_decay": 0.5, "sched": "wsd", "decay_epochs": 1}, steps_per_epoch=5, layers=3
    ),
    "replayed timm": lambda: Recipe.from_trace(recipes.timm(TIMM, steps_per_epoch=5).trace(20)),
    "replayed article": lambda: Recipe.from_trace(recipes.recorded("yolov5_resnet18").head(40)),
    "replayed yolov5": lambda: Recipe.from_trace(
        recipes.yolov5(epochs=3, steps_per_epoch=9, batch_size=4).trace(20)
    ),
    "replayed updates": lambda: Recipe.from_trace(
        Trace({"a": {"learning_rate": np.linspace(0, 1, 9)}}, clock="update", update_rule="adam")
    ),
    **{
        f"rule {rule}": lambda rule=rule: Recipe(
            {"all": {"learning_rate": 1e-8}}, getattr(optimizers, rule), length=5
        )
        for rule in RULES
    },
}


@pytest.mark.parametrize("name", long_after(12, OFFERED))
def test_copies_of_the_recipes_of_the_package_are_equal(name, tmp_path):
    recipe = OFFERED[name]()
    assert_recipe_copies_equal(recipe, tmp_path, traces=True)
    assert OFFERED[name]() == recipe
    if recipe.origin is not None:
        copied = pickle.loads(pickle.dumps(recipe))
        assert copied.origin.factory == recipe.origin.factory
        assert dict(copied.origin.arguments) == dict(recipe.origin.arguments)


def test_every_update_rule_can_be_named_in_a_file():
    rules = {
        name
        for name in optimizers.__all__
        if "learning_rate"
        in getattr(inspect.signature(getattr(optimizers, name)), "parameters", {})
        and inspect.isfunction(getattr(optimizers, name))
    }
    assert set(RULES) == rules
    assert all(RULES[name] is getattr(optimizers, name) for name in rules)


# A recipe with all fields, one of which is changed.
FULL = {
    "groups": {
        "weight": {"learning_rate": schedules.cosine(9, lrf=0.1), "momentum": 0.9},
        "bias": {"learning_rate": 0.1, "nesterov": True, "momentum": 0.5},
    },
    "update_rule": optimizers.sgd,
    "clip_norm": 10.0,
    "accumulation": optimizers.Accumulation(schedules.constant(4), 9),
    "ema": optimizers.EMA(0.99, 100.0, 3),
    "start": 2,
    "clock": "iteration",
    "length": 30,
}
CHANGES = {
    "rule": {"update_rule": lambda learning_rate, momentum=0.0, nesterov=False: optax.sgd(1.0)},
    "label": {"groups": {"weight": FULL["groups"]["weight"], "norm": FULL["groups"]["bias"]}},
    "one group less": {"groups": {"weight": FULL["groups"]["weight"]}},
    "schedule": {
        "groups": {
            **FULL["groups"],
            "weight": {"learning_rate": schedules.cosine(9, lrf=0.2), "momentum": 0.9},
        }
    },
    "number": {"groups": {**FULL["groups"], "bias": {"learning_rate": 0.2}}},
    "kind of number": {"clip_norm": np.float64(10.0)},
    "clip": {"clip_norm": 11.0},
    "no clip": {"clip_norm": None},
    "batches": {"accumulation": optimizers.Accumulation(schedules.constant(3), 9)},
    "pending": {"accumulation": optimizers.Accumulation(schedules.constant(4))},
    "no accumulation": {"accumulation": None},
    "decay": {"ema": optimizers.EMA(0.98, 100.0, 3)},
    "kind of decay": {"ema": optimizers.EMA(np.float64(0.99), 100.0, 3)},
    "tau": {"ema": optimizers.EMA(0.99, 101.0, 3)},
    "updates": {"ema": optimizers.EMA(0.99, 100.0, 4)},
    "power": {"ema": optimizers.EMA(0.99, 100.0, 3, power=math.inf)},
    "another power": {"ema": optimizers.EMA(0.99, 100.0, 3, power=2 / 3)},
    "no average": {"ema": None},
    "start": {"start": 3},
    "clock": {"clock": "update"},
    "length": {"length": 31},
    "no length": {"length": None},
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_recipe_with_one_field_changed_is_another(name, tmp_path):
    recipe = Recipe(**FULL, origin=(recipes.yolov5_resnet18, {"epochs": 3}))
    assert dataclasses.replace(recipe) == recipe
    changed = dataclasses.replace(recipe, **CHANGES[name])
    assert changed != recipe
    assert changed.origin is None
    if name != "rule":
        assert save_and_load(changed, tmp_path, ".json") == changed
        assert pickle.loads(pickle.dumps(changed)) == changed
        assert repr(changed) != repr(recipe) or "kind of" in name


def test_a_recipe_is_the_same_written_another_way():
    recipe = Recipe(**FULL)
    written = {
        "order": dict(reversed(FULL["groups"].items())),
        "default": {
            "weight": {**FULL["groups"]["weight"], "nesterov": False, "weight_decay": 0.0},
            "bias": FULL["groups"]["bias"],
        },
    }
    for groups in written.values():
        other = dataclasses.replace(recipe, groups=groups)
        assert other == recipe
        assert hash(other) == hash(recipe)
    partial = functools.partial(optimizers.sgd, momentum=0.5)
    assert Recipe({"a": {"learning_rate": 0.1}}, partial) == Recipe(
        {"a": {"learning_rate": 0.1, "momentum": 0.5}}
    )
    assert Recipe({"a": {"learning_rate": 0.1, "nesterov": np.True_, "momentum": 0.5}}) == Recipe(
        {"a": {"learning_rate": 0.1, "nesterov": True, "momentum": 0.5}}
    )


def test_origin_is_kept_where_the_content_is_the_same_and_changes_nothing():
    recipe = recipes.yolov5_resnet18(epochs=3)
    assert dataclasses.replace(recipe).origin is recipe.origin
    same = dataclasses.replace(recipe, groups={k: dict(v) for k, v in recipe.groups.items()})
    assert same.origin is recipe.origin
    assert dataclasses.replace(recipe, clip_norm=1.0).origin is None
    back = dataclasses.replace(dataclasses.replace(recipe, clip_norm=1.0), clip_norm=None)
    assert back == recipe
    assert back.origin is None
    assert dataclasses.replace(recipe, origin=None) == recipe
    longer = recipes.yolov5_resnet18(epochs=4)
    assert dataclasses.replace(recipe, origin=longer.origin).origin is None
    factory, arguments = copy.copy(recipe).origin
    assert factory(**arguments) == recipe


def test_a_traced_recipe_keeps_its_origin():
    @jax.vmap
    def rate(lr0):
        recipe = recipes.yolov5_resnet18(lr0=lr0, weight_decay=lr0)
        assert recipe == recipe
        assert dataclasses.replace(recipe).origin is recipe.origin
        assert dataclasses.replace(recipe, start=3).origin is None
        assert "traced" in repr(recipe)
        return recipe.at(2000)["weight"]["learning_rate"]

    assert rate(jnp.float32([0.1, 0.2])).shape == (2,)


def test_groups_are_copied_and_cannot_be_changed():
    rates, rate = np.float32([0.5, 0.25, 0.125, 0.1]), np.array(0.5, np.float32)
    group = {"learning_rate": schedules.table(rates), "momentum": rate}
    groups = {"a": group}
    recipe = Recipe(groups)
    twin, before = Recipe(copy.deepcopy(groups)), values(recipe)[:3]
    group["weight_decay"], groups["b"], rates[0] = 0.5, group, 3.0
    rate[()] = 0.25
    assert recipe == twin
    assert values(recipe)[:3] == before
    assert Recipe({"a": group}) != twin
    with pytest.raises(TypeError):
        recipe.groups["b"] = group
    with pytest.raises(TypeError):
        recipe.groups["a"]["momentum"] = 0.1
    with pytest.raises(ValueError, match="read-only"):
        recipe.groups["a"]["momentum"][()] = 0.1
    with pytest.raises(dataclasses.FrozenInstanceError):
        recipe.clip_norm = 3.0
    recipe.complete_groups()["a"]["momentum"] = 0.1
    assert recipe == twin


# --- files ---


def ramp(count):
    """Batches per update, by a function of the user's own; truncated to an integer."""
    return 1 + count * 0.29


# Recipes with Python functions inside, by the field that holds them.
WITH_FUNCTIONS = {
    "rate": lambda: Recipe({"a": {"learning_rate": lambda i: 0.5 / (1 + i)}}),
    "started": lambda: Recipe({"a": {"learning_rate": LAMBDA}}, start=7),
    "lambda_lr": lambda: Recipe(
        {"a": {"learning_rate": lr_scheduler.lambda_lr(np.float32(0.1), lambda e: 0.9**e)}}
    ),
    "nested": lambda: Recipe(
        {
            "a": {
                "learning_rate": schedules.warmup(
                    schedules.per_epoch(lr_scheduler.lambda_lr(0.1, inverse, steps=50), 5),
                    9,
                    start=0.0,
                )
            },
            "b": {"learning_rate": schedules.cosine(9, lrf=0.1)},
        }
    ),
    "optax": lambda: Recipe({"a": {"learning_rate": OPTAX}}, optimizers.adam),
    "partial": lambda: Recipe(
        {"a": {"learning_rate": functools.partial(scaled_inverse, factor=0.5), "b2": tenth}},
        optimizers.adam,
    ),
    "batches": lambda: Recipe(
        {"a": {"learning_rate": 0.1}}, accumulation=optimizers.Accumulation(ramp, 20)
    ),
    "momentum": lambda: Recipe(
        {
            "a": {
                "learning_rate": 0.1,
                "momentum": lr_scheduler.cyclic_lr(0.1, 1.0, 4, scale_fn=LAMBDA).momentum,
            }
        }
    ),
    "factory of one's own": lambda: Recipe({"a": {"learning_rate": double(inverse)}}),
    "factory of one's own without a function": lambda: Recipe(
        {"a": {"learning_rate": schedules.warmup(double(schedules.constant(0.1)), 3, start=0.0)}}
    ),
    "batches of a number": lambda: Recipe(
        {"a": {"learning_rate": 0.1}}, accumulation=optimizers.Accumulation(lambda i: 4)
    ),
}


def double(schedule):
    """A factory of the user's own."""
    return Schedule(double, {"schedule": schedule}, lambda count: 2 * schedule(count))


def test_batches_are_truncated_as_python_does():
    """In float32 100 * 0.29 is 29."""
    columns = Recipe(
        {"a": {"learning_rate": 0.1}},
        accumulation=optimizers.Accumulation(lambda count: count * 0.29),
    ).bookkeeping(101)
    assert columns["accumulate"].tolist() == [count * 0.29 for count in range(101)]
    assert int(columns["accumulate"][100]) == int(100 * 0.29) == 28
    with pytest.raises(TypeError, match=r"^batches must be a schedule, got 4\. Pass"):
        optimizers.Accumulation(4)
    optimizers.Accumulation(schedules.constant(1.5))
    for value in (0, -1, 0.5):
        match = (
            rf"^batches must be at least 1, got constant\({value}\)\. Pass the number of batches"
        )
        with pytest.raises(ValueError, match=match):
            optimizers.Accumulation(schedules.constant(value))


@pytest.mark.parametrize("suffix", long_after(1, SUFFIXES))
@pytest.mark.parametrize("name", WITH_FUNCTIONS)
def test_a_function_is_saved_as_a_table(name, suffix, tmp_path):
    recipe = WITH_FUNCTIONS[name]()
    with pytest.raises(
        ValueError, match=r"^iterations must be given to save .*, which has a Python function"
    ):
        recipe.save(tmp_path / f"recipe{suffix}")
    assert not list(tmp_path.iterdir())
    loaded = save_and_load(recipe, tmp_path, suffix, iterations=120)
    assert loaded.trace(120) == recipe.trace(120)
    with jax.enable_x64(True):
        assert loaded.trace(120) == recipe.trace(120)
    with pytest.raises(ValueError, match=r"^the table holds counts"):
        loaded.trace(121)
    assert loaded != recipe
    assert save_and_load(loaded, tmp_path, suffix) == loaded
    with_length = dataclasses.replace(recipe, length=recipe.start + 30)
    loaded = save_and_load(with_length, tmp_path, suffix)
    assert loaded.trace(30) == with_length.trace(30)


def test_a_recipe_without_functions_is_saved_unchanged(tmp_path):
    recipe = Recipe(FULL["groups"])
    assert save_and_load(recipe, tmp_path, ".yaml", iterations=7) == recipe
    text = (tmp_path / "recipe.yaml").read_text()
    assert "cosine" in text
    assert "table" not in text


@pytest.mark.parametrize("steps", [5, 30])
def test_a_table_is_not_saved_past_its_end(steps, tmp_path):
    """Under jit the last value would be used: a plausible rate that is wrong."""
    recipe = Recipe({"a": {"learning_rate": lr_scheduler.lambda_lr(0.1, inverse, steps=steps)}})
    assert save_and_load(recipe, tmp_path, ".json", iterations=steps + 1).trace(3) == recipe.trace(
        3
    )
    with pytest.raises(ValueError, match=rf"the table holds counts 0 to {steps}, got "):
        recipe.save(tmp_path / "recipe.json", iterations=steps + 2)


# Numbers that must come back from a file to the bit, and of the same kind.
NUMBERS = [
    1e-8,
    5e-324,
    0.1 + 0.2,
    1e16,
    0.0,
    7,
    2**40,
    np.float32(0.1),
    np.float64(0.1),
    np.float16(0.1),
    np.int8(3),
    np.int16(3),
    np.int32(3),
    np.int64(3),
    np.uint8(3),
    np.uint16(3),
    np.uint32(3),
    np.uint64(3),
    jnp.bfloat16(0.1),
    np.array(0.1, np.float32),
    np.array(3, np.int16),
    jnp.float16(0.1),
    jnp.int32(3),
]


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("value", NUMBERS, ids=lambda v: f"{getattr(v, 'dtype', '')} {v!r}")
def test_a_number_comes_back_from_a_file_as_it_was(value, suffix, tmp_path):
    recipe = Recipe(
        {"a": {"learning_rate": value, "weight_decay": schedules.constant(value)}},
        clip_norm=value,
    )
    loaded = save_and_load(recipe, tmp_path, suffix)
    assert loaded == recipe
    assert values(loaded) == values(recipe)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_number_that_no_file_can_hold_is_refused_when_it_is_saved(suffix, tmp_path):
    recipe = Recipe({"a": {"learning_rate": np.longdouble(0.1)}})
    with pytest.raises(ValueError, match=r"longdouble|float128"):
        recipe.save(tmp_path / f"recipe{suffix}")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_values_that_are_not_finite_come_back_from_a_file(suffix, tmp_path):
    rates = schedules.table([0.1, -0.0, math.nan, math.inf, -math.inf])
    recipe = Recipe({"a": {"learning_rate": rates}}, clip_norm=5.0, length=2)
    assert save_and_load(recipe, tmp_path, suffix) == recipe
    long = Recipe({"a": {"learning_rate": schedules.table(np.arange(1000.0))}})
    assert save_and_load(long, tmp_path, suffix) == long


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize(
    "milestones", [[3, 5], np.array([3.0, 5.0]), np.array([3, 5]), jnp.array([3, 5])], ids=repr
)
def test_a_list_comes_back_from_a_file_as_it_was(milestones, suffix, tmp_path):
    recipe = Recipe({"a": {"learning_rate": lr_scheduler.multi_step_lr(0.1, milestones)}})
    assert save_and_load(recipe, tmp_path, suffix) == recipe


@pytest.mark.parametrize(
    "label", ["1e5", "1e-8", "12E+3", "yes", "null", "0x1", "a\nb", "é🙂", "-"]
)
def test_a_label_that_looks_like_something_else_comes_back(label, tmp_path):
    recipe = Recipe({label: {"learning_rate": 0.1}})
    for suffix in SUFFIXES:
        assert save_and_load(recipe, tmp_path, suffix) == recipe


BY_HAND = """
format: jaxsched.Recipe 1
update_rule: adam
groups:
  weight:
    learning_rate: {cosine: {epochs: 1e1, lrf: 1e-2}}
    eps: 1e-8   # YAML 1.1 reads this as text
    b1: .9e0
    weight_decay: 5E-4
  bias:
    learning_rate: {table: {values: [1e-3, 2.e-3, +3e-3, 4], start: 0}}
clip_norm: 1e+1
ema: {decay: 9.9e-1}
"""


def test_numbers_written_by_hand_are_read_as_numbers(tmp_path):
    (tmp_path / "hand.yaml").write_text(BY_HAND)
    assert Recipe.load(tmp_path / "hand.yaml") == Recipe(
        {
            "weight": {
                "learning_rate": schedules.cosine(10.0, lrf=0.01),
                "eps": 1e-8,
                "b1": 0.9,
                "weight_decay": 5e-4,
            },
            "bias": {"learning_rate": schedules.table([1e-3, 2e-3, 3e-3, 4])},
        },
        optimizers.adam,
        clip_norm=10.0,
        ema=optimizers.EMA(0.99),
    )


def own_rule(learning_rate):
    """An update rule of the user's own."""
    return optax.sgd(learning_rate)


OWN_RULES = {
    "optax": (optax.adam, "adam"),
    "lambda": (lambda learning_rate: optax.sgd(learning_rate), "<lambda>"),
    "function": (own_rule, "own_rule"),
    "partial": (functools.partial(optax.sgd, momentum=0.5), "sgd, momentum=0.5"),
}


@pytest.mark.parametrize("name", OWN_RULES)
def test_a_rule_of_others_is_refused_by_name(name, tmp_path):
    rule, shown = OWN_RULES[name]
    recipe = Recipe({"a": {"learning_rate": 0.1}}, rule)
    with pytest.raises(
        ValueError, match=r"^update_rule must be one of jaxsched\.optimizers to be saved, got"
    ) as error:
        recipe.save(tmp_path / "recipe.yaml")
    assert shown in str(error.value)
    assert not list(tmp_path.iterdir())
    inside = functools.partial(optimizers.adam, b1=0.5)
    assert save_and_load(
        Recipe({"a": {"learning_rate": 0.1}}, inside), tmp_path, ".yaml"
    ) == Recipe({"a": {"learning_rate": 0.1, "b1": 0.5}}, optimizers.adam)


def test_a_file_states_its_version(tmp_path):
    recipe = Recipe({"a": {"learning_rate": 0.1}})
    recipe.save(tmp_path / "recipe.json")
    assert json.loads((tmp_path / "recipe.json").read_text())["format"] == "jaxsched.Recipe 1"
    recipe.save(tmp_path / "recipe.yaml")
    assert (tmp_path / "recipe.yaml").read_text().startswith("format: jaxsched.Recipe 1\n")


GOOD = "format: jaxsched.Recipe 1\ngroups: {a: {learning_rate: 0.1}}\n"
BOMB = "format: jaxsched.Recipe 1\na: &a [x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)

# name: (YAML, a part of the error)
REFUSED = {
    "empty": ("", "must be a mapping, got NoneType"),
    "text": ("hello", "must be a mapping, got str"),
    "list": ("[1, 2]", "must be a mapping, got list"),
    "no format": ("groups: {}", "format must be jaxsched.Recipe 1, got none"),
    "other format": (
        "format: jaxsched.Trace 1",
        "format must be jaxsched.Recipe 1, got jaxsched.Tr",
    ),
    "other version": (GOOD.replace("Recipe 1", "Recipe 2"), "got jaxsched.Recipe 2"),
    "version of text": (GOOD.replace("Recipe 1", "Recipe 1.0"), "got jaxsched.Recipe 1.0"),
    "format of a list": (GOOD.replace("jaxsched.Recipe 1", "[1]"), "format must be"),
    "unknown field": (GOOD + "clip: 1", "fields must be among update_rule, groups, "),
    "field of a number": (GOOD + "3: 1", "got 3"),
    "origin": (GOOD + "origin: [os.system, {}]", "got origin"),
    "unknown factory": (
        GOOD.replace("0.1", "{os.system: {command: ls}}"),
        "a schedule must be one of batch_ramp, ",
    ),
    "dunder": (GOOD.replace("0.1", "{__import__: {name: os}}"), "got '__import__'"),
    "tabulate": (GOOD.replace("0.1", "{tabulate: {function: print, steps: 3}}"), "got 'tabulate'"),
    "plateau": (GOOD.replace("0.1", "{reduce_lr_on_plateau: {base_lr: 0.1}}"), "plateau"),
    "scale_on_plateau": (GOOD.replace("0.1", "{scale_on_plateau: {plateau: 0.1}}"), "plateau"),
    "unknown argument": (
        GOOD.replace("0.1", "{cosine: {epochs: 3, lr: 1}}"),
        "arguments of cosine must be among epochs, lrf, got lr",
    ),
    "missing argument": (GOOD.replace("0.1", "{cosine: {epochs: 3}}"), "lrf"),
    "two schedules": (
        GOOD.replace("0.1", "{constant: {value: 1}, table: {values: [1]}}"),
        "a schedule must be one name with its arguments, got constant, table",
    ),
    "no schedule": (GOOD.replace("0.1", "{}"), "a schedule must be one name"),
    "arguments of a list": (GOOD.replace("0.1", "{constant: [1]}"), "constant must be a mapping"),
    "bad value": (GOOD.replace("0.1", "{cosine: {epochs: -3, lrf: 0.1}}"), "epochs must be"),
    "word": (GOOD.replace("0.1", "fast"), "learning_rate of group a must be a number"),
    "negative": (GOOD.replace("0.1", "-1"), "learning_rate must be"),
    "text for a number": (
        GOOD.replace("0.1", "{cosine_annealing_lr: {base_lr: 0.1, T_max: thirty}}"),
        "T_max must be a number above 0, to be divided by, got 'thirty'",
    ),
    "text for a schedule": (
        GOOD.replace("0.1", "{per_epoch: {schedule: x, steps_per_epoch: 1}}"),
        "",
    ),
    "dtype": (GOOD.replace("0.1", "{number: {dtype: object, value: 1}}"), "must have a dtype of"),
    "dtype of a list": (GOOD.replace("0.1", "{number: {dtype: [f], value: 1}}"), "dtype"),
    "array of a mapping": (GOOD.replace("0.1", "{array: {dtype: float32, value: {a: 1}}}"), ""),
    "rule": (GOOD + "update_rule: lion", "update_rule must be one of adadelta, "),
    "rule of a list": (GOOD + "update_rule: [sgd]", "update_rule must be one of adadelta, "),
    "rule of a module": (GOOD + "update_rule: os.system", "got 'os.system'"),
    "no groups": ("format: jaxsched.Recipe 1", "groups must hold at least 1 group"),
    "null groups": ("format: jaxsched.Recipe 1\ngroups:", "groups must be a mapping, got None"),
    "list of groups": ("format: jaxsched.Recipe 1\ngroups: [a]", "groups must be a mapping"),
    "number for a group": ("format: jaxsched.Recipe 1\ngroups: {a: 1}", "a must be a mapping"),
    "frozen": (GOOD.replace("a:", "frozen:"), "labels of groups must be strings"),
    "number as a label": (GOOD.replace("a:", "1:"), "labels of groups must be strings"),
    "other hyperparameter": (GOOD.replace("learning_rate", "lr"), "arguments of sgd must be among"),
    "start": (GOOD + "start: x", "start must be an integer of at least 0, got 'x'"),
    "fraction": (GOOD + "start: 1.5", "start must be an integer of at least 0, got 1.5"),
    "length": (GOOD + "length: -1", "length must be an integer of at least 0, got -1"),
    "clip": (GOOD + "clip_norm: [1]", "clip_norm must be a finite number of at least 0"),
    "two clips": (GOOD + "clip_norm: 1\nclip_value: 1", "clip_norm must be None if clip_value"),
    "clock": (GOOD + "clock: epoch", "clock must be one of iteration, update, got 'epoch'"),
    "accumulation": (GOOD + "accumulation: 4", "accumulation must be a mapping, got 4"),
    "empty accumulation": (GOOD + "accumulation: {}", "batches"),
    "accumulation of text": (GOOD + "accumulation: {batches: four}", "batches"),
    "accumulation of another": (GOOD + "accumulation: {every: 4}", "arguments of accumulation"),
    "ema": (GOOD + "ema: {decay: 2}", "decay must be from 0 to 1, got 2"),
    "ema of text": (GOOD + "ema: {tau: x}", "tau must be above 0, got 'x'"),
    "tag": (GOOD + "x: !!python/object/apply:os.system [touch EVIL]", "could not determine"),
    "name tag": (GOOD + "x: !!python/name:os.system", "could not determine"),
    "module tag": (GOOD + "x: !!python/module:antigravity", "could not determine"),
    "new tag": (GOOD + "x: !!python/object/new:os.system [touch EVIL]", "could not determine"),
    "alias": (GOOD + "x: &x 1\ny: *x", "it must have no aliases, got one"),
    "alias bomb": (BOMB, "it must have no aliases, got one"),
    "recursive alias": ("&x {format: *x}", "it must have no aliases, got one"),
    "deep": ("{a: " * 5000 + "}" * 5000, ""),
    "deep list": ("[" * 100000, ""),
    "half a line": (GOOD[:-3], ""),
    "control character": (GOOD + "\0", ""),
    "two documents": (GOOD + "---\n" + GOOD, ""),
    "bad bool": (GOOD + "start: !!bool maybe", ""),
    "bad int": (GOOD + "start: !!int x", ""),
    "empty int": (GOOD + 'start: !!int ""', ""),
    "empty float": (GOOD + 'clip_norm: !!float ""', ""),
    "bad date": (GOOD + "start: 2001-13-13", ""),
    "date": (GOOD + "start: 2001-12-13", "start must be"),
    "binary": (GOOD + "clip_norm: !!binary aGVsbG8=", "clip_norm must be"),
    "list as a key": (GOOD + "? [a]\n: 1", ""),
    "huge": (GOOD + "start: 1" + "0" * 5000, ""),
}


def assert_one_sentence(path, error):
    text = str(error)
    assert text.startswith(f"{path} must be the file of a recipe: "), text
    assert "\n" not in text
    assert len(text) < 600, text


@pytest.mark.parametrize("name", REFUSED)
def test_a_file_that_is_no_recipe_gets_one_sentence(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "system", lambda *_: pytest.fail("code was run"))
    content, part = REFUSED[name]
    path = tmp_path / "recipe.yaml"
    path.write_text(content)
    with pytest.raises(ValueError) as error:  # noqa: PT011
        Recipe.load(path)
    assert_one_sentence(path, error.value)
    assert part in str(error.value)
    assert list(tmp_path.iterdir()) == [path]
    assert "antigravity" not in sys.modules
    path.write_text(GOOD)
    assert Recipe.load(path) == Recipe({"a": {"learning_rate": 0.1}})


JSON = json.dumps({"format": "jaxsched.Recipe 1", "groups": {"a": {"learning_rate": 0.1}}})


@pytest.mark.parametrize(
    "content",
    [
        "",
        "{",
        "nul",
        JSON[:-1],
        JSON + "x",
        "[" * 100000,
        '{"a":' * 100000,
        "\ufeff" + JSON,
        "1" * 5000,
    ],
    ids=lambda text: text[:20],
)
def test_damaged_json_gets_one_sentence(content, tmp_path):
    path = tmp_path / "recipe.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ValueError) as error:  # noqa: PT011
        Recipe.load(path)
    assert_one_sentence(path, error.value)
    path.write_text(JSON)
    assert Recipe.load(path) == Recipe({"a": {"learning_rate": 0.1}})


@settings(max_examples=300)
@given(st.data())
def test_a_damaged_file_is_refused_or_read_whole(tmp_path_factory, data):
    folder = tmp_path_factory.getbasetemp()
    suffix = data.draw(st.sampled_from(SUFFIXES))
    path = folder / f"damaged{suffix}"
    DAMAGED.save(path)
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] ^= data.draw(st.integers(1, 255))
    path.write_bytes(content)
    try:
        loaded = Recipe.load(path)
    except ValueError as error:
        assert_one_sentence(path, error)
    else:
        assert isinstance(loaded, Recipe)


DAMAGED = Recipe(
    {
        "weight": {
            "learning_rate": schedules.warmup(
                schedules.per_epoch(schedules.cosine(9, lrf=0.1), 3), 5, start=np.float32(0.1)
            ),
            "momentum": schedules.table([0.5, 0.25, 0.125]),
        },
        "bias": {"learning_rate": lr_scheduler.multi_step_lr(0.1, [3, 5]), "maximize": True},
    },
    clip_norm=10.0,
    accumulation=optimizers.Accumulation(schedules.batch_ramp(5, end=4.0, then=4), 9),
    ema=optimizers.EMA(),
    length=27,
)

scalars = one_in(
    st.none(),
    st.booleans(),
    st.integers(-3, 30),
    st.floats(),
    st.sampled_from(["", "cos", "sgd", "x", "float32", "1e5"]),
)


@settings(max_examples=200)
@given(st.data())
def test_a_value_replaced_in_a_file_is_refused_or_read(tmp_path_factory, data):
    """Any replacement of a value is read or raises ValueError."""
    path = tmp_path_factory.getbasetemp() / "replaced.json"
    DAMAGED.save(path)
    content = json.loads(path.read_text())
    node, key = {"": content}, ""
    while isinstance(node[key], dict | list) and node[key] and data.draw(st.integers(0, 4)):
        node = node[key]
        keys = list(node) if isinstance(node, dict) else range(len(node))
        key = data.draw(st.sampled_from(keys))
    node[key] = data.draw(
        st.recursive(
            scalars,
            lambda inner: (
                st.lists(inner, max_size=2)
                | st.dictionaries(st.sampled_from([*FACTORIES, "number", "array", "value"]), inner)
            ),
            max_leaves=3,
        )
    )
    path.write_text(json.dumps(content))
    try:
        Recipe.load(path)
    except ValueError as error:
        assert_one_sentence(path, error)


@pytest.mark.parametrize("name", ["recipe", "recipe.txt", "recipe.YAML", "recipe.npz", "yaml"])
def test_another_suffix_is_refused(name, tmp_path):
    recipe = Recipe({"a": {"learning_rate": 0.1}})
    for call in (recipe.save, Recipe.load):
        with pytest.raises(
            ValueError, match=r"^the file must end in \.yaml or \.yml or \.json, got"
        ):
            call(tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_a_missing_file_raises_filenotfounderror(tmp_path):
    with pytest.raises(FileNotFoundError):
        Recipe.load(tmp_path / "recipe.yaml")
    path = tmp_path / "no/recipe.yaml"
    sentence = f"the folder of a file must exist, got {path}. Make the folder first."
    with pytest.raises(FileNotFoundError, match=f"^{re.escape(sentence)}$"):
        Recipe({"a": {"learning_rate": 0.1}}).save(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_the_old_file_stays_where_a_save_fails(suffix, tmp_path, monkeypatch):
    path = tmp_path / f"recipe{suffix}"
    recipe = Recipe({"a": {"learning_rate": 0.1}})
    recipe.save(path)
    with pytest.raises(ValueError, match="iterations must be given"):
        Recipe({"a": {"learning_rate": inverse}}).save(path)
    with pytest.raises(ValueError, match="update_rule must be"):
        Recipe({"a": {"learning_rate": 0.1}}, optax.adam).save(path)
    with pytest.raises(ValueError, match="iterations must be"):
        recipe.save(path, iterations=0)

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", full)
        with pytest.raises(OSError, match="No space"):
            Recipe({"a": {"learning_rate": 0.2}}).save(path)
    assert list(tmp_path.iterdir()) == [path]
    assert Recipe.load(path) == recipe


# --- repr and HTML ---

MANY = {
    f"group {k}": {
        "learning_rate": schedules.warmup(
            schedules.per_epoch(schedules.cosine(100 + k, lrf=0.2), 30), 1000, start=0.1
        ),
        "weight_decay": 0.1,
    }
    for k in range(300)
}


class Wide:
    """A schedule whose repr has many lines, as that of an Equinox module."""

    def __call__(self, count):
        return 0.1

    def __repr__(self):
        return "Wide(\n  a=1,\n" * 30


SHOWN = {
    **{name: OFFERED[name] for name in ("article", "yolov5", "ultralytics", "rule muon")},
    "many groups": lambda: Recipe(MANY, optimizers.adam, clip_norm=1.0, ema=optimizers.EMA()),
    "long table": lambda: Recipe({"a": {"learning_rate": schedules.table(range(100000))}}),
    "short table": lambda: Recipe({"a": {"learning_rate": schedules.table(range(100))}}),
    "labels": lambda: Recipe({"line\n" * k: {"learning_rate": 0.1} for k in range(1, 12)}),
    "wide": lambda: Recipe({"a": {"learning_rate": Wide()}}),
    "matrix": lambda: Recipe(
        {"a": {"learning_rate": 0.1}},
        functools.partial(optax.sgd, accumulator_dtype=np.ones((300, 3))),
    ),
    "functions": lambda: Recipe({"a": {"learning_rate": LAMBDA, "momentum": OBJECT}}),
    "branch": lambda: Recipe({"a": {"learning_rate": lambda i: 0.1 if i < 5 else 0.01}}),
    "ends": lambda: Recipe({"a": {"learning_rate": schedules.table([0.5, 0.25])}}),
    "no length": lambda: Recipe({"a": {"learning_rate": 0.1}}, start=3, length=None),
}


@pytest.mark.parametrize("name", SHOWN)
def test_repr_is_a_screenful(name):
    recipe = SHOWN[name]()
    text = repr(recipe)
    lines = text.splitlines()
    assert len(lines) <= 40, text
    assert max(map(len, lines)) <= 200, text
    assert " at 0x" not in text
    assert lines[0].startswith("Recipe: ")
    if all(label.isprintable() for label in recipe.groups):
        assert all(label in text for label in [*recipe.groups][:9])
    html = recipe._repr_html_()
    assert html.count("<table>") == html.count("</table>") == 1
    assert " at 0x" not in html


def test_repr_shows_what_counts():
    text = repr(Recipe(**FULL))
    for part in (
        "Recipe: sgd, 2 groups, iteration 2 to 30",
        "learning_rate",
        "cosine(9, lrf=0.1)",
        "nesterov",
        "True",
        "clip_norm 10.0",
        "batches an update constant(4), pending ones dropped every 9 iterations",
        "EMA(decay=0.99, tau=100.0, updates=3, power=None)",
    ):
        assert part in text, part
    assert "300 groups" in repr(SHOWN["many groups"]())
    assert "… and 288 more groups" in repr(SHOWN["many groups"]())
    assert "made by yolov5_resnet18(epochs=100," in repr(recipes.yolov5_resnet18())


def test_repr_names_an_average_that_is_never_updated():
    without = Recipe({"a": {"learning_rate": 0.1}})
    recipe = dataclasses.replace(without, ema=optimizers.EMA())
    sentence = "which only a loop that calls recipe.ema.update keeps"
    assert sentence in repr(recipe)
    assert sentence in recipe._repr_html_()
    assert sentence not in repr(without)
    assert "recipe.ema.update" in Recipe.__doc__


@pytest.mark.parametrize("name", ["article", "yolov5", "ultralytics", "many groups"])
def test_html_has_the_table_and_a_picture(name):
    recipe = SHOWN[name]()
    html = recipe._repr_html_()
    assert html.count("<svg") == 1
    assert len(html) < 2e6
    for label, group in [*recipe.groups.items()][:9]:
        assert f"<td>{label}</td>" in html
        assert all(f"<th>{argument}</th>" in html for argument in group)
    assert html.count("<tr>") <= 15


def test_html_escapes_what_it_shows():
    recipe = Recipe({"<script>": {"learning_rate": LAMBDA}}, length=3)
    html = recipe._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html
    assert "&lt;lambda&gt;" in html
    assert "<lambda>" not in html


def test_html_of_a_long_recipe_is_small():
    html = recipes.yolov5(epochs=300, steps_per_epoch=1000)._repr_html_()
    assert "<svg" in html
    assert len(html) < 1e6


def test_html_without_matplotlib_is_the_table():
    program = """
import sys
sys.modules["matplotlib"] = None
from jaxsched.recipes import yolov5_resnet18
html = yolov5_resnet18(epochs=2, steps_per_epoch=3)._repr_html_()
assert "<svg" not in html
assert html.count("<td>weight</td>") == 1
print("shown")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False
    )
    assert done.stdout == "shown\n", done.stderr


# --- the transformation ---

PARAMS = {"conv": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}, "bn": {"scale": jnp.ones(3)}}
GRADIENTS = jax.tree.map(lambda p: 0.5 * p, PARAMS)
TRANSFORMED = {
    "article": OFFERED["article"],
    "yolov5": OFFERED["yolov5"],
    "function": lambda: Recipe(
        {label: {"learning_rate": inverse} for label in ("weight", "bias", "norm")},
        optimizers.adam,
        clip_norm=0.5,
    ),
    "optax": lambda: Recipe(
        {label: {"learning_rate": tenth} for label in ("weight", "bias", "norm")}, optax.adam
    ),
}


@pytest.mark.parametrize("name", TRANSFORMED)
def test_a_transformation_can_be_pickled(name):
    recipe = TRANSFORMED[name]()
    tx = recipe.optimizer(param_groups.by_leaf_name)
    before = pickle.dumps(tx)

    def updates(tx):
        state, rows = tx.init(PARAMS), []
        for _ in range(2):
            update, state = jax.jit(tx.update)(GRADIENTS, state, PARAMS)
            rows.append(update)
        return jax.tree.map(lambda leaf: np.asarray(leaf).tobytes(), (rows, state))

    expected = updates(tx)
    assert updates(pickle.loads(before)) == expected
    assert updates(pickle.loads(pickle.dumps(tx))) == expected
    copied = pickle.loads(pickle.dumps(recipe))
    assert copied == recipe
    assert updates(copied.optimizer(param_groups.by_leaf_name)) == expected


def test_a_copy_of_a_used_recipe_can_be_pickled_by_cloudpickle():
    cloudpickle = pytest.importorskip("cloudpickle", reason="pickles functions of __main__")
    recipe = Recipe({"a": {"learning_rate": lambda i: 0.5 / (1 + i)}})
    recipe.trace(3)
    copied = cloudpickle.loads(cloudpickle.dumps(recipe))
    assert copied.trace(3) == recipe.trace(3)


# --- traces ---


def full_trace():
    return Trace(
        {"a/b": {"learning_rate": np.array([0.1, 0.2])}, "c": {"momentum": np.ones(2, np.float32)}},
        {"stepped": np.array([1.0, 0.0])},
        7,
        {"note": "×", "list": [1, 2]},
        clock="update",
        update_rule="muon",
        switches={"c": {"nesterov": True, "ns_coefficients": (1.0, 2.0, 3.0)}},
        constants={"c": {"momentum": 0.999}},
        clip_norm=None,
        clip_value=0.5,
        accumulation={"steps_per_epoch": 3},
        ema={"decay": 0.99, "tau": 10.0, "updates": 0},
        versions={"torch": "2.13.0"},
    )


TRACE_CHANGES = {
    "value": {"groups": {**full_trace().groups, "c": {"momentum": np.array([1, 2], np.float32)}}},
    "nan": {"groups": {**full_trace().groups, "c": {"momentum": np.float32([1, np.nan])}}},
    "dtype": {"groups": {**full_trace().groups, "c": {"momentum": np.ones(2)}}},
    "label": {"groups": {"a/b": full_trace().groups["a/b"], "d": full_trace().groups["c"]}},
    "name": {"groups": {**full_trace().groups, "c": {"b1": np.ones(2, np.float32)}}},
    "one column less": {"groups": {"a/b": full_trace().groups["a/b"]}},
    "run": {"run": {"stepped": np.ones(2)}},
    "no run": {"run": {}},
    "start": {"start": 8},
    "meta": {"meta": {}},
    "clock": {"clock": "iteration"},
    "rule": {"update_rule": "sgd"},
    "no rule": {"update_rule": None},
    "switch": {"switches": {"c": {"nesterov": False, "ns_coefficients": (1.0, 2.0, 3.0)}}},
    "tuple": {"switches": {"c": {"nesterov": True, "ns_coefficients": (1.0, 2.0, 4.0)}}},
    "constant": {"constants": {"c": {"momentum": float(np.float32(0.999))}}},
    "clip": {"clip_norm": 0.5},
    "unstated clip": {"clip_norm": UNSTATED},
    "no clip": {"clip_value": None},
    "accumulation": {"accumulation": {"steps_per_epoch": None}},
    "no accumulation": {"accumulation": None},
    "unstated accumulation": {"accumulation": UNSTATED},
    "ema": {"ema": {"decay": 0.98, "tau": 10.0, "updates": 0}},
    "no ema": {"ema": None},
    "unstated ema": {"ema": UNSTATED},
    "versions": {"versions": {}},
}


@pytest.mark.parametrize("name", TRACE_CHANGES)
def test_a_trace_with_one_thing_changed_is_another(name, tmp_path):
    trace, changed = full_trace(), dataclasses.replace(full_trace(), **TRACE_CHANGES[name])
    assert changed != trace
    assert trace == full_trace()
    for side in (trace, changed):
        side.save(tmp_path / "run.npz")
        loaded = Trace.load(tmp_path / "run.npz")
        assert loaded == side
        assert copy.deepcopy(side) == side
        assert pickle.loads(pickle.dumps(side)) == side
        for field in ("clip_norm", "clip_value", "accumulation", "ema"):
            assert (getattr(loaded, field) is UNSTATED) == (getattr(side, field) is UNSTATED)
    assert trace != Trace(trace.groups)
    assert trace != "trace"
    with pytest.raises(TypeError):
        hash(trace)


def test_an_unstated_field_differs_from_a_stated_absence(tmp_path):
    silent = Trace({"a": {"learning_rate": np.ones(2)}})
    none = dataclasses.replace(silent, clip_norm=None, clip_value=None, accumulation=None, ema=None)
    assert silent != none
    for trace in (silent, none):
        trace.save(tmp_path / "run.npz")
        loaded = Trace.load(tmp_path / "run.npz")
        assert loaded == trace
        assert loaded.ema is trace.ema
    assert none.header()["ema"] is None
    assert "ema" not in silent.header()


def test_nan_in_a_header_or_a_note_comes_back(tmp_path):
    trace = Trace(
        {"a": {"x": np.array([np.nan])}}, meta={"x": math.nan}, constants={"a": {"x": math.nan}}
    )
    trace.save(tmp_path / "run.npz")
    assert Trace.load(tmp_path / "run.npz") == trace


def test_relabel_renames_what_the_header_states():
    trace = full_trace().relabel({"a/b": "c", "c": "a/b"})
    assert list(trace.groups) == ["c", "a/b"]
    assert trace.switches == {"a/b": full_trace().switches["c"]}
    assert trace.constants == {"a/b": full_trace().constants["c"]}
    assert trace.relabel({"a/b": "c", "c": "a/b"}) == full_trace()
    recipe = Recipe(FULL["groups"], optimizers.sgd, length=5)
    renamed = Recipe({{"weight": "w"}.get(k, k): v for k, v in FULL["groups"].items()}, length=5)
    assert recipe.trace(5).relabel({"weight": "w"}) == renamed.trace(5)
    assert Recipe.from_trace(renamed.trace(5)).groups["w"]["nesterov"] is False


@pytest.mark.parametrize("rule", RULES)
def test_a_trace_states_every_argument_of_its_rule(rule, tmp_path):
    """They are numbers in columns or switches: the recipe of the trace has the same content."""
    group = {"learning_rate": 0.1, **({"use_muon": True} if rule == "musgd" else {})}
    recipe = Recipe({"a": group}, RULES[rule], length=3)
    trace = recipe.trace(3)
    stated = {*trace.groups["a"], *trace.switches["a"]}
    assert stated == set(inspect.signature(RULES[rule]).parameters)
    trace.save(tmp_path / "run.npz")
    loaded = Trace.load(tmp_path / "run.npz")
    assert loaded == trace
    assert Recipe.from_trace(loaded) == recipe


REFUSED_BY_HAND = {
    "a group twice": "{w: {learning_rate: 0.1}, w: {learning_rate: 0.2}}",
    "a name twice": "{w: {learning_rate: 0.1, learning_rate: 0.2}}",
    "an octal number": "{w: {learning_rate: 010}}",
    "a sexagesimal number": "{w: {learning_rate: 1:30.5}}",
}


@pytest.mark.parametrize("name", REFUSED_BY_HAND)
def test_yaml_that_readers_disagree_on_is_refused(name, tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(f"format: jaxsched.Recipe 1\ngroups: {REFUSED_BY_HAND[name]}\n")
    with pytest.raises(ValueError, match="must be the file of a recipe"):
        Recipe.load(path)
    path.write_text(
        "format: jaxsched.Recipe 1\ngroups: {w: {learning_rate: 1e-2, momentum: +.5}}\n"
    )
    assert Recipe.load(path) == Recipe({"w": {"learning_rate": 0.01, "momentum": 0.5}})


@pytest.mark.parametrize(("name", "remedy"), [("lr", "learning_rate"), ("betas", "b1 and b2")])
def test_a_torch_name_in_a_group_is_answered_with_ours(name, remedy):
    with pytest.raises((TypeError, ValueError), match=f"Write {name} as {remedy}\\.$"):
        Recipe({"all": {name: 0.1}})


def test_assert_matches_reads_a_recipes_file(tmp_path):
    from jaxsched import testing

    recipe = Recipe({"all": {"learning_rate": 0.1}}, length=5)
    recipe.save(tmp_path / "recipe.json")
    testing.assert_matches(tmp_path / "recipe.json", recipe)


class Batches:
    """Batches whose number its owner may change."""

    def __init__(self, number):
        self.number = number

    def at(self, count):
        return self.number + 0 * count


@pytest.mark.parametrize("function", [lambda b: b.at, lambda b: lambda count: b.at(count)])
def test_a_function_that_has_changed_is_evaluated_again(function):
    batches = Batches(2)
    recipe = Recipe(
        {"a": {"learning_rate": 0.1}}, accumulation=optimizers.Accumulation(function(batches))
    )
    assert recipe.bookkeeping(6)["stepped"].tolist() == [0, 1, 0, 1, 0, 1]
    batches.number = 3
    assert recipe.bookkeeping(6)["stepped"].tolist() == [0, 0, 1, 0, 0, 1]


@dataclasses.dataclass(frozen=True)
class Shifted:
    """A schedule of the user's own, with a part that is no field."""

    number: int
    shift: dataclasses.InitVar[int] = 0

    def __post_init__(self, shift):
        object.__setattr__(self, "sum", self.number + shift)

    def __call__(self, count):
        return self.sum + 0 * count


def test_a_schedule_of_ones_own_equals_only_itself():
    """Its fields may not be all that it depends on."""
    rates = {"a": {"learning_rate": Shifted(1)}, "b": {"learning_rate": Shifted(1, 3)}}
    values = Recipe(rates).at(0)
    assert [float(values[label]["learning_rate"]) for label in "ab"] == [1, 4]
    for shift, accumulate in ((0, 1), (3, 4)):
        columns = optimizers.Accumulation(Shifted(1, shift)).simulate(0, 6)
        assert columns["accumulate"].tolist() == [accumulate] * 6


def test_a_number_of_another_kind_makes_another_partial():
    def rate(number, count):
        return 1 / number if isinstance(number, float) else jnp.float32(7 // number)

    partials = {str(n): {"learning_rate": functools.partial(rate, n)} for n in (2, 2.0)}
    values = Recipe(partials).at(0)
    assert [float(group["learning_rate"]) for group in values.values()] == [3, 0.5]
