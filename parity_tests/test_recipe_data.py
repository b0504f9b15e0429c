"""A recipe is data: schedules, recipes and traces are printed, compared, pickled and saved.

Schedules are written as the expressions that ``repr`` must return. A twin differs in one argument,
and must not be equal.
"""

import copy
import dataclasses
import functools
import inspect
import json
import math
import operator
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
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxsched
from jaxsched import Recipe, Trace, lr_scheduler, optimizers, param_groups, recipes, schedules
from jaxsched._recipe_file import RULES
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
    "constant(True)",
    "cosine(100, lrf=0.2)",
    "cosine(12.5, lrf=0)",
    "linear(100, lrf=0.01)",
    "one_cycle(30, lrf=1e-08)",
    "lagged(linear(9, lrf=0.5), after=3)",
    "override(cosine(9, lrf=0.1), constant(0.3), at=4)",
    "override(cosine(9, lrf=0.1), constant(0.3), at=4, when=False)",
    "per_epoch(cosine(9, lrf=0.1), 3)",
    "recorded_steps([0.5, 0.25, 0.125], 4)",
    "recorded_steps([0.5, 0.25], 2, batches_done=1, then=exponential_lr(0.1, 0.9))",
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

# The factory behind each expression; that of a momentum belongs to no module.
FACTORY_OF = {text: eval(text, NAMESPACE).factory for text in EXPRESSIONS}


def bits(schedule, counts=COUNTS):
    """The bytes of a schedule's values, or what it refuses a count with."""

    def one(count):
        try:
            return np.asarray(schedule(count)).tobytes()
        except (TypeError, ValueError) as error:
            return str(error)

    return [one(count) for count in counts]


def copies(value, *, pickles=True):
    """Every copy of a value that Python knows, by the way in which it was made."""
    made = {"deepcopy": copy.deepcopy(value), "copy": copy.copy(value)}
    for protocol in (2, pickle.HIGHEST_PROTOCOL) if pickles else ():
        made[f"pickle {protocol}"] = pickle.loads(pickle.dumps(value, protocol))
    return made


def assert_copies_equal(value, bits_of, *, pickles=True):
    """Copies made before and after use are equal to ``value``, hash alike and have its bits."""
    before = copies(value, pickles=pickles)
    expected = bits_of(value)
    after = copies(value, pickles=pickles)
    for when, made in (("before", before), ("after", after)):
        for how, other in made.items():
            assert other == value, f"{how} {when} use: {other!r} for {value!r}"
            assert hash(other) == hash(value), f"{how} {when} use"
            assert repr(other) == repr(value), f"{how} {when} use"
            assert bits_of(other) == expected, f"{how} {when} use of {value!r}"


@pytest.mark.parametrize("name", FACTORIES)
def test_every_factory_has_a_case(name):
    assert FACTORIES[name] in FACTORY_OF.values() or name == "tabulate"


def test_all_functions_that_return_schedules_are_found():
    """The others return a plateau's recursion and transformations."""
    found = {
        name
        for module in (schedules, lr_scheduler)
        for name in module.__all__
        if inspect.isfunction(getattr(module, name))
    }
    assert found - set(FACTORIES) == {"reduce_lr_on_plateau", "scale_on_plateau"}
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
    assert_copies_equal(eval(text, NAMESPACE), bits)
    with jax.enable_x64(True):
        assert_copies_equal(eval(text, NAMESPACE), bits)


OTHER = {
    "triangular": ["triangular2"],
    "triangular2": ["triangular"],
    "exp_range": ["triangular"],
    "cycle": ["iterations"],
    "iterations": ["cycle"],
    "cos": ["linear"],
    "linear": ["cos"],
}
"""Strings that stand for one another."""


def others(value):
    """Values that an argument may have in place of ``value``."""
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
    return [(*value[:-1], other) for other in others(value[-1])]


@pytest.mark.parametrize("text", EXPRESSIONS)
def test_a_schedule_with_one_argument_changed_is_another(text):
    schedule = eval(text, NAMESPACE)
    assert schedule.replace() == schedule
    for name, value in schedule.arguments.items():
        tried = []
        for other in others(value):
            try:
                changed = schedule.replace(**{name: other})
            except (TypeError, ValueError):  # an argument that does not go with the others
                continue
            tried.append(changed)
            assert changed != schedule, f"{name} {other!r} for {value!r}"
            assert repr(changed) != repr(schedule), f"{name} {other!r} for {value!r}"
            assert changed.replace(**{name: value}) == schedule
            assert all(copied == changed for copied in copies(changed).values())
        assert tried or name in ("mode", "steps", "epochs", "steps_per_epoch"), name


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
"""What may stand for a Python number; a NumPy scalar's float64 value may differ."""


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
            assert_copies_equal(changed, lambda made: bits(made, [2]))
            assert changed == schedule.replace(**{name: WRAPPED[wrapper](value)})


def halved(count):
    """A factor of the user's own."""
    return 1 / (1 + count)


def tenth(count):
    """Another, which is never equal to it."""
    return 0.1 / (1 + count)


def scaled(count, factor):
    """One of two arguments, for functools.partial."""
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

# name: (schedule, whether its functions can be pickled and are then the same ones, part of repr)
ANY = {
    "function": (lambda: lr_scheduler.lambda_lr(0.1, halved), True, "halved"),
    "replayed function": (lambda: lr_scheduler.lambda_lr(0.1, halved, steps=7), True, "halved"),
    "nested function": (
        lambda: schedules.warmup(
            schedules.per_epoch(lr_scheduler.lambda_lr(np.float32(0.1), halved), 2), 3, start=0.0
        ),
        True,
        "halved",
    ),
    "bare function": (lambda: schedules.per_epoch(halved, 2), True, "halved"),
    "partial": (
        lambda: lr_scheduler.lambda_lr(0.1, functools.partial(scaled, factor=0.5)),
        True,
        "factor=0.5",
    ),
    "scale": (lambda: lr_scheduler.cyclic_lr(0.1, 1.0, 3, scale_fn=halved), True, "halved"),
    "momentum of a scale": (
        lambda: lr_scheduler.cyclic_lr(0.1, 1.0, 3, scale_fn=halved).momentum,
        True,
        "halved",
    ),
    "method": (lambda: schedules.shift(OBJECT.method, -1), False, "Halving.method"),
    "object": (lambda: schedules.shift(OBJECT, -1), False, "Halving"),
    "lambda": (lambda: schedules.shift(LAMBDA, -1), False, "<lambda>"),
    "optax": (lambda: schedules.per_epoch(OPTAX, 2), False, "optax."),
    "jitted": (lambda: schedules.per_epoch(jax.jit(halved), 2), False, "halved"),
    "jnp": (lambda: schedules.per_epoch(jnp.exp2, 2), False, "exp2"),
    "milestones": (lambda: lr_scheduler.multi_step_lr(0.1, jnp.array([3, 5])), True, "[3, 5]"),
    "numpy milestones": (lambda: lr_scheduler.multi_step_lr(0.1, np.array([3, 5])), True, "[3, 5]"),
    "iterator": (lambda: lr_scheduler.multi_step_lr(0.1, iter([3, 5])), True, "[3, 5]"),
    "switch": (
        lambda: schedules.override(halved, tenth, at=np.int64(3), when=np.True_),
        True,
        "when=",
    ),
    "float32 table": (lambda: schedules.table(np.float32([0.1] * 7)), True, "table([0.1000000014"),
    "sequence of functions": (
        lambda: lr_scheduler.sequential_lr(
            [lr_scheduler.lambda_lr(0.1, halved), lr_scheduler.multiplicative_lr(0.1, tenth)],
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
    assert lr_scheduler.lambda_lr(0.1, halved) != lr_scheduler.lambda_lr(0.1, tenth)
    assert schedules.shift(lambda c: c, 1) != schedules.shift(lambda c: c, 1)
    assert schedules.shift(OBJECT, 1) != schedules.shift(Halving(), 1)

    def partial(factor):
        return schedules.shift(functools.partial(scaled, factor=factor), 1)

    assert partial(0.5) == partial(0.5)
    assert partial(0.5) != partial(np.float64(0.5))
    assert partial(0.5) != partial(0.25)


# Pairs that are one number to Python's ==, but not to a schedule, and the other way round.
DIFFERENT = {
    "float32": (0.5, np.float32(0.5)),
    "float64": (0.1, np.float64(0.1)),
    "rounded": (0.1, np.float32(0.1)),
    "scalar and array": (np.float32(0.1), np.array(0.1, np.float32)),
    "array dtypes": (np.array(0.5, np.float32), np.array(0.5, np.float64)),
    "signed zeros": (0.0, -0.0),
    "signed zeros of arrays": (np.float32(0.0), np.float32(-0.0)),
    "switch": (1, True),
    "nan and number": (math.nan, 0.0),
}
SAME = {
    "nan": (math.nan, -math.nan),
    "integer": (1, 1.0),
    "array kinds": (np.array(0.1, np.float32), jnp.float32(0.1)),
    "nan arrays": (np.float32(math.nan), np.float32(math.nan)),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_numbers_that_python_calls_equal_may_differ(name):
    one, other = map(schedules.constant, DIFFERENT[name])
    assert one != other
    assert repr(one) != repr(other)
    recipe, twin = (Recipe({"a": {"learning_rate": s}}) for s in (one, other))
    assert recipe != twin


@pytest.mark.parametrize("name", SAME)
def test_numbers_that_mean_the_same_are_equal(name):
    one, other = map(schedules.constant, SAME[name])
    assert one == other
    assert hash(one) == hash(other)


def test_a_schedule_is_no_other_thing():
    schedule = schedules.constant(0.1)
    assert schedule != 0.1
    assert schedule != "constant(0.1)"
    assert schedules.linear(9, lrf=0.1) != schedules.one_cycle(9, lrf=0.1)
    assert len({schedule, schedules.constant(0.1), schedules.constant(0.2)}) == 2


def test_what_jax_traces_equals_itself_only_and_has_no_hash():
    texts = []

    @jax.jit
    def traced(x):
        one, other = (schedules.cosine(9, lrf=x) for _ in range(2))
        assert one == one  # noqa: PLR0124
        assert copy.deepcopy(one) == one
        assert one != other
        assert one != schedules.cosine(9, lrf=0.1)
        with pytest.raises(TypeError, match=r"has a hash where the values of its arguments") as e:
            hash(one)
        texts.extend([str(e.value), repr(one)])
        with pytest.raises(TypeError, match=r"has a hash where"):
            hash(schedules.per_epoch(one, 3))
        with pytest.raises(TypeError, match=r"has a hash where"):
            hash(Recipe({"a": {"learning_rate": one}}))
        return one(3)

    assert float(traced(0.1)) == float(schedules.cosine(9, lrf=np.float32(0.1))(3))
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


# What a schedule was made of, and how its owner changes that afterwards.
MUTABLE = {
    "table": (np.array([0.5, 0.25]), schedules.table),
    "recorded_steps": (np.array([0.5, 0.25]), lambda v: schedules.recorded_steps(v, 2)),
    "milestones": ([2, 5], lambda v: lr_scheduler.multi_step_lr(0.1, v)),
    "milestones array": (np.array([2, 5]), lambda v: lr_scheduler.multi_step_lr(0.1, v)),
    "constant": (np.array(0.5), schedules.constant),
    "cosine": (np.array(0.5), lambda v: schedules.cosine(9, lrf=v)),
    "warmup": (np.array(0.5), lambda v: schedules.warmup(halved, 5, start=v)),
    "override": (np.array(1), lambda v: schedules.override(halved, tenth, at=v)),
    "shift": (np.array(-1), lambda v: schedules.shift(halved, v)),
    "per_epoch": (np.array(2), lambda v: schedules.per_epoch(halved, v)),
    "lagged": (np.array(1), lambda v: schedules.lagged(halved, after=v)),
    "exponential_lr": (np.array(0.5), lambda v: lr_scheduler.exponential_lr(0.1, v)),
    "base_lr": (np.array(0.5), lambda v: lr_scheduler.exponential_lr(v, 0.5)),
}


@pytest.mark.parametrize("name", MUTABLE)
def test_nobody_changes_a_schedule_from_outside(name):
    given, make = MUTABLE[name]
    given = copy.deepcopy(given)
    schedule, twin = make(given), make(copy.deepcopy(given))
    if np.ndim(given):
        given[0] = 1
    else:
        given[()] = 7
    assert schedule == twin
    assert make(given) != twin
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
    assert repr(schedules.warmup(momentum, 3, start=0.5)) == f"warmup({text}.momentum, 3, start=0.5)"
    slower = cycle.replace(max_momentum=0.99)
    assert momentum.replace(cycle=slower) == slower.momentum != momentum
    assert cycle.replace(cycle_momentum=False).momentum is None
