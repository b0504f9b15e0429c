"""Unit tests of the parts of the search for causes: the runs, and the causes."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsched import Recipe, Trace, lr_scheduler, schedules
from jaxsched.parity._explain import _runs
from jaxsched.parity._explain._cause import Cause, choose, format_value, list_quantities, merge
from jaxsched.parity._explain._runs import (
    Case,
    Column,
    Run,
    evaluate,
    evaluate_each,
    expression,
    nodes,
    rebuild,
)

RATE = ("all", "learning_rate")
NAN = np.nan


def replace(part, value):
    """Return ``value``, the edit that replaces a part by it."""
    return value


def recorded_run(values, start=0, **groups):
    values = np.asarray(values, None if isinstance(values, np.ndarray) else np.float64)
    return Run(Trace({"all": {"learning_rate": values}, **groups}, start=start), None)


def recipe_run(entry, values, start=0, **group):
    trace = Trace({"all": {"learning_rate": np.asarray(values, np.float64)}}, start=start)
    return Run(trace, Recipe({"all": {"learning_rate": entry, **group}}))


def case(base, target, start=0, changes_reference=True):
    return Case(recorded_run(base, start), recorded_run(target, start), changes_reference)


# Schedules as expressions.


def test_an_expression_is_a_factory_and_its_arguments():
    factory, arguments = expression(schedules.cosine(20, lrf=0.2))
    assert factory is schedules.cosine
    assert dict(arguments) == {"epochs": 20, "lrf": 0.2}
    assert expression((3, 5)) == (None, {0: 3, 1: 5})
    assert expression(0.1) == expression(lambda count: count) == (None, {})


def test_a_table_is_the_schedule_that_it_goes_on_as():
    values, cosine = [0.5, 0.25], schedules.cosine(20, lrf=0.2)
    table = schedules.table(values, then=schedules.table(values, then=cosine))
    assert expression(table) == expression(cosine)
    assert expression(schedules.table(values))[0] is schedules.table
    assert expression(schedules.table(values, then=lambda count: 0.1))[0] is schedules.table


def test_a_schedule_with_an_argument_then_is_not_a_table():
    def step_schedule(then):
        return schedules.Schedule(step_schedule, {"then": then}, None)

    assert expression(step_schedule(schedules.constant(0.1)))[0] is step_schedule


def test_nodes_are_the_schedules_and_functions_with_their_paths():
    def function(count):
        return count

    first, second = schedules.shift(function, 2), lr_scheduler.exponential_lr(0.1, 0.9)
    joined = lr_scheduler.sequential_lr([second, second], [10], steps=20)
    outer = schedules.override(first, joined, at=3)
    assert list(nodes(outer)) == [
        ((), outer),
        (("schedule",), first),
        (("schedule", "schedule"), function),
        (("other",), joined),
        (("other", "schedulers", 0), second),
        (("other", "schedulers", 1), second),
    ]
    assert list(nodes(first, ("there",)))[1] == (("there", "schedule"), function)
    assert list(nodes(0.1)) == list(nodes(None)) == []


def test_a_schedule_is_rebuilt_with_its_parts_changed():
    inner = schedules.cosine(20, lrf=0.2)
    outer = schedules.per_epoch(inner, 5)
    assert rebuild(outer, [()], replace, inner) == inner
    assert rebuild(outer, [("steps_per_epoch",)], replace, 6) == schedules.per_epoch(inner, 6)
    assert rebuild(
        outer, [("schedule", "lrf"), ("schedule", "epochs")], lambda part, k: part * k, 2
    ) == schedules.per_epoch(schedules.cosine(40, lrf=0.4), 5)
    assert rebuild(outer, [("steps_per_epoch",), ()], replace, 0.1) == 0.1


def test_parts_within_sequences_are_changed():
    def join_schedules(*gammas):
        members = [lr_scheduler.exponential_lr(0.1, gamma) for gamma in gammas]
        return lr_scheduler.sequential_lr(members, [10], steps=20)

    paths = [("schedulers", k, "gamma") for k in (0, 1)]
    assert rebuild(join_schedules(0.9, 0.9), paths, replace, 0.8) == join_schedules(0.8, 0.8)
    assert rebuild(join_schedules(0.9, 0.7), paths[1:], replace, 0.8) == join_schedules(0.9, 0.8)


def test_a_traced_number_is_not_replayed():
    table = lr_scheduler.multi_step_lr(0.1, [2, 4], 0.5, steps=6)
    rates = jax.vmap(lambda k: rebuild(table, [("base_lr",)], replace, k)(5))
    assert rates(jnp.array([1.0, 2.0])).tolist() == [0.25, 0.5]
    assert rebuild(table, [("base_lr",)], replace, 0.2).arguments["steps"] == 6


def test_an_entry_of_a_list_is_solved_for_by_jax_too():
    edges = jax.vmap(lambda k: rebuild((1, 2, 3), [(1,)], replace, k))
    assert edges(jnp.array([7, 0])).tolist() == [[1, 7, 3], [1, 0, 3]]


def test_entries_that_ascend_go_on_ascending():
    assert rebuild((1, 2, 3), [(1,)], replace, 3) == (1, 3, 3)
    with pytest.raises(ValueError, match=r"entries must ascend as \(1, 2, 3\) do, got \(1, 4, 3\)"):
        rebuild((1, 2, 3), [(1,)], replace, 4)
    assert rebuild((3, 2, 1), [(1,)], replace, 4) == (3, 4, 1)
    first, second = schedules.constant(0.1), schedules.constant(0.2)
    assert rebuild((first, second), [(0,)], replace, second) == (second, second)


# Values at counts.


def test_a_column_gives_its_numbers_and_a_number_itself():
    counts = np.array([0, 2])
    assert evaluate(Column(lambda i: i * 3), counts).tolist() == [0, 6]
    values = evaluate(2, counts)
    assert values.tolist() == [2, 2]
    assert values.dtype == np.float64


@pytest.mark.parametrize("n", [3, _runs.BLOCK, _runs.BLOCK + 1])
def test_a_schedule_is_computed_in_float64_at_each_count(n):
    calls = []

    def function(count):
        calls.append(count)
        return 0.1 + count

    values = evaluate(function, np.arange(n))
    assert values.dtype == np.float64
    assert values.tolist() == [0.1 + i for i in range(n)]
    assert len(calls) == (2 if n > _runs.BLOCK else 1)


def test_each_number_is_computed_at_each_count():
    numbers, counts = np.array([3, 5, 7]), np.arange(3000)  # more pairs than one block holds
    values = evaluate_each(lambda k: lambda i: k * 10000 + i, numbers, counts)
    assert values.shape == (3, 3000)
    assert [row[:2].tolist() for row in values] == [[30000, 30001], [50000, 50001], [70000, 70001]]
    assert [row[-1] for row in values] == [32999, 52999, 72999]


# A run.


def test_a_column_of_float32_numbers_is_float32_whatever_its_type():
    run = Run(
        Trace(
            {"all": {"learning_rate": np.array([0.5, 0.1]), "momentum": np.array([0.5, 0.25])}},
            {"ema_decay": np.array([1e300, 0.0])},
        ),
        None,
    )
    assert run.column(RATE).dtype == np.float64
    assert run.column(RATE).tolist() == [0.5, 0.1]
    assert run.column(("all", "momentum")).dtype == np.float32
    assert run.column(("all", "momentum")).tolist() == [0.5, 0.25]
    assert run.column(("", "ema_decay")).tolist() == [1e300, 0]


def test_counts_go_on_from_the_first_row():
    assert recorded_run([0.1, 0.2, 0.3], start=5).counts.tolist() == [5, 6, 7]


def test_the_entry_of_a_recipe_is_its_schedule_or_its_number():
    cosine = schedules.cosine(20, lrf=0.2)
    assert recipe_run(cosine, [0.1, 0.2]).entry(RATE) is cosine
    assert recipe_run(0.1, [0.1, 0.1]).entry(RATE) == 0.1
    assert recipe_run(schedules.constant(0.25), [0.25, 0.25]).entry(RATE) == 0.25
    assert recipe_run(0.123456789, np.float32([0.123456789] * 2)).entry(RATE) == 0.123456789
    assert recipe_run(cosine, [0.5, 0.5]).entry(RATE) is cosine


def test_a_constant_column_is_the_number_that_one_writes():
    momentum, constant = ("all", "momentum"), np.full(3, 0.9, np.float32)
    trace = Trace({"all": {"learning_rate": constant, "momentum": constant}})
    assert Run(trace, None).entry(momentum) == 0.9
    assert Run(trace, Recipe({"all": {"learning_rate": 0.1}})).entry(momentum) == 0.9
    row = {"learning_rate": constant[:1], "momentum": constant[:1]}
    assert Run(Trace({"all": row}), None).entry(momentum) == 0.9
    assert Run(trace, Recipe({"weight": {"learning_rate": 0.1}})).entry(RATE) == 0.9


def test_a_recorded_rate_is_a_schedule_that_is_not_known():
    """A curve of one number may be the first part of a curve that changes."""
    assert recorded_run([0.1, 0.1, 0.1]).entry(RATE) is None
    assert recorded_run([0.1, 0.1, 0.2]).entry(RATE) is None


def test_a_recording_is_known_at_its_rows_alone():
    is_known = recorded_run([0.1, 0.2, 0.3], start=5).column_function(RATE)
    counts = np.array([-9, -1, 0, 4, 5, 6, 7, 8, 9, 99])
    expected = [NAN, NAN, NAN, NAN, 0.1, 0.2, 0.3, NAN, NAN, NAN]
    np.testing.assert_array_equal(is_known(counts), expected)
    first = recorded_run([0.1, 0.2]).column_function(RATE)
    np.testing.assert_array_equal(first(np.arange(-2, 4)), [NAN, NAN, 0.1, 0.2, NAN, NAN])


def test_a_schedule_is_known_before_the_rows_and_as_long_again_after_them():
    is_known = recipe_run(lambda i: 10.0 * i, [50, 60, 70], start=5).column_function(RATE)
    counts = np.array([-1, 0, 4, 5, 7, 8, 10, 11])
    np.testing.assert_array_equal(is_known(counts), [NAN, 0, 40, 50, 70, 80, 100, NAN])


def test_a_changed_run_has_another_schedule_and_curve_of_one_quantity():
    run, entry = recipe_run(0.1, [0.1, 0.1], momentum=0.9), schedules.constant(0.2)
    changed = run.replace_quantity(RATE, entry, np.array([0.2, 0.2]))
    assert changed.entry(RATE) == 0.2
    assert changed.trace.groups["all"]["learning_rate"].tolist() == [0.2, 0.2]
    assert changed.recipe.groups["all"]["momentum"] == 0.9
    assert run.entry(RATE) == 0.1


# Two runs.


def test_keys_are_what_both_have_without_a_missing_number():
    whole, missing = np.array([1.0, 2.0]), np.array([1.0, NAN])
    base = Trace(
        {"a": {"x": whole, "y": whole, "mine": whole, "z": whole}, "b": {"x": whole}},
        {"ema_decay": whole, "stepped": whole},
    )
    target = Trace(
        {"a": {"x": whole, "y": missing, "z": whole}, "c": {"x": whole}}, {"ema_decay": whole}
    )
    both = Case(Run(base, None), Run(target, None), True)
    assert both.keys == [("a", "x"), ("a", "z"), ("", "ema_decay")]
    assert Case(Run(target, None), Run(base, None), True).keys == both.keys


def test_quantities_differ_at_rows():
    def run(*momentum):
        return recorded_run([1.0, 2.0, 3.0], other={"momentum": np.array(momentum)})

    both = Case(run(0.1, 0.5, 0.7), run(0.1, 0.6, 0.7), True)
    assert {k: v.tolist() for k, v in both.differing_rows.items()} == {
        ("other", "momentum"): [False, True, False]
    }


STAIRS = np.arange(40) // 6 * 0.1 + 0.1


@pytest.mark.parametrize(
    ("base", "target", "epoch"),
    [
        (STAIRS, STAIRS, 6),
        (np.full(40, 0.1), STAIRS, 6),
        (STAIRS, np.arange(40) // 12 * 0.1 + 0.1, 12),  # the longer: 6 only are in the other
        (np.where(np.arange(40) < 5, np.arange(40), STAIRS), np.full(40, 0.1), 6),  # a warm-up
        (np.arange(40.0), np.arange(40.0), None),
        (np.arange(40) // 14, np.full(40, 0.1), None),  # two changes, one of which is isolated
        (np.arange(40) // 10, np.full(40, 0.1), 10),
        (np.arange(40) // 2, np.full(40, 0.1), 2),
        (np.isin(np.arange(40), [0, 8, 15]).cumsum(), np.full(40, 0.1), None),
        (np.isin(np.arange(40), [5, 9, 15]).cumsum(), np.full(40, 0.1), 3),
        (np.isin(np.arange(40), [5, 9, 16]).cumsum(), np.full(40, 0.1), None),
    ],
)
def test_an_epoch_is_read_off_the_rows_that_change(base, target, epoch):
    assert case(base, target).epoch == epoch


def test_rows_that_change_are_counted_from_the_first_iteration():
    assert case(STAIRS[4:], STAIRS[4:], start=4).epoch == 6
    assert case(STAIRS[4:], STAIRS[4:]).epoch == 2  # they change at 2, 8, 14


def test_an_epoch_is_what_a_recipe_states_first():
    def run(*lengths):
        entry = schedules.cosine(20, lrf=0.2)
        for length in lengths:
            entry = schedules.shift(schedules.per_epoch(entry, length), 1)
        return recipe_run(entry, STAIRS)

    bare, traced = recorded_run(STAIRS), run(np.array(7))
    assert Case(run(5, 9), run(4), True).epoch == 9
    assert Case(bare, run(4), True).epoch == 4
    assert Case(traced, run(4), True).epoch == 4
    assert Case(traced, bare, True).epoch == 6
    assert Case(run(1), bare, True).epoch is None
    assert type(Case(bare, bare, True).epoch) is int


def test_a_sample_has_the_first_rows_the_last_and_those_around_changes():
    target = np.where(np.arange(1000) < 500, 0.1, 0.2)
    rows = case(target + 1.0, target).sample(RATE).tolist()
    assert rows == [0, 1, 249, 499, 500, 749, 999]
    differs_later = case(np.where(np.arange(1000) < 499, target, 0.3), target)
    assert {499, 500, 999} <= set(differs_later.sample(RATE).tolist())
    assert 498 not in differs_later.sample(RATE)


def test_a_sample_of_a_curve_that_changes_always_is_small():
    target = np.arange(1000.0) ** 2
    rows = case(target + 1.0, target).sample(RATE)
    assert rows.tolist() == [0, 1, 249, 499, 749, 999]
    few = case(np.where(np.arange(1000) < 997, target, 0.1), target)
    assert few.sample(RATE).tolist() == [997, 998, 999]


def test_a_sample_of_many_changes_is_spread_over_them():
    target = np.where(np.arange(1000) < 800, 0.1, np.arange(1000) // 20)
    rows = case(target + 1.0, target).sample(RATE).tolist()
    assert rows == [0, 1, 249, 499, 749, 799, 839, 880, 939, 980, 999]


def is_same(values, target, dtype=np.float64):
    target = np.asarray(target, dtype)
    return case(target, target).is_same(RATE, np.asarray(values)).tolist()


def test_values_are_the_same_where_the_nearest_float32_are():
    target = np.float32([0.1, 0.2, 0.3])
    assert is_same([0.1, 0.2 + 1e-9, 0.3 + 1e-7], target, np.float32) == [True, True, False]
    assert is_same(np.float32([0.1, 0.2, 0.1]), [0.1, 0.2, 0.3]) == [True, True, False]


def test_two_float64_curves_are_as_close_as_a_closed_form_is_to_a_recursion():
    assert is_same([0.1, 4 + 3e-11, 4 + 5e-11], [0.1, 4.0, 4.0]) == [True, True, False]
    assert is_same([0.1 + 3e-11, 0.1 + 5e-11, 4], [0.1, 0.1, 4.0]) == [True, False, True]
    assert is_same([4e-11, 4.1e-11], [4e-11, 4e-11]) == [True, False]
    assert is_same([3e11 + 3, 3e11 + 3.1], [3e11, 3e11]) == [True, False]
    assert is_same([-4.1 - 3e-11, -4.1 - 5e-11], [-4.1, -4.1]) == [True, False]


def test_rounding_errors_at_a_zero_count_as_zero():
    target = np.array([0.0, 0.0, 0.0, 4.0])
    assert is_same([3.9e-15, -3.9e-15, 5e-15, 4.0], target) == [True, True, False, True]
    assert is_same([1.0, 1.1], [0.0, 1e15])[0]
    assert is_same([0.0, np.inf, NAN, 1e300], [0.0, 0.1, 0.1, 0.1]) == [True, False, False, False]


def test_values_are_compared_at_some_rows():
    both = case([0.1, 0.2, 4.0], [0.1, 0.2, 4.0])
    assert both.is_same(RATE, np.array([0.2]), slice(1, 2)).tolist() == [True]
    assert both.is_same(RATE, np.array([4.0, 0.2]), np.array([2, 0])).tolist() == [True, False]


# Which rows a curve reproduces.

I = np.arange(40)  # noqa: E741
Y = 0.1 + I**2 / 100
X = Y + 1
FACTOR = Cause("value", "factor", "times 2", numbers=1)


def test_a_curve_that_is_the_other_run_acts_throughout():
    cause = case(Y, X, start=7, changes_reference=False).fit(RATE, X.copy(), FACTOR)
    assert (cause.kind, cause.name, cause.sentence) == ("value", "factor", "times 2")
    assert (cause.start, cause.stop, cause.known_share) == (None, None, 1.0)
    assert cause.quantities == (RATE,)
    assert cause.curves[RATE].tolist() == X.tolist()
    assert cause.changes_reference is False
    assert case(Y, X).fit(RATE, X, FACTOR).changes_reference is True


@pytest.mark.parametrize(("first", "last"), [(0, 40), (10, 40), (0, 30), (10, 30), (1, 39)])
def test_a_change_acts_from_the_first_row_that_differs_to_the_last(first, last):
    inside = (first <= I) & (last > I)
    cause = case(Y, np.where(inside, X, Y), start=7).fit(RATE, X, FACTOR)
    assert cause.start == (7 + first if first else None)
    assert cause.stop == (7 + last if last < 40 else None)


def test_a_range_has_no_end_where_the_curve_is_right_beyond_it():
    inside = (I >= 10) & (I < 30)
    both = case(Y, np.where(inside, X, Y))
    assert both.fit(RATE, np.where(I < 30, np.where(inside, X, Y), X), FACTOR).start is None
    assert both.fit(RATE, np.where(I >= 10, np.where(inside, X, Y), X), FACTOR).stop is None
    assert both.fit(RATE, np.where(I == 9, X, np.where(inside, X, Y)), FACTOR).start == 10
    assert both.fit(RATE, np.where(I == 30, X, np.where(inside, X, Y)), FACTOR).stop == 30


@pytest.mark.parametrize("row", [10, 15, 29])
def test_a_curve_that_fails_at_one_row_that_differs_is_no_cause(row):
    inside = (I >= 10) & (I < 30)
    target = np.where(inside, X, Y)
    assert case(Y, target).fit(RATE, np.where(row == I, 9.0, target), FACTOR) is None
    hole = np.where(row == I, Y, target)  # a row in between that does not differ
    assert (case(Y, hole).fit(RATE, target, FACTOR) is None) == (row == 15)


def test_a_change_is_known_at_half_of_what_differs_or_at_many_values():
    def is_known(base, target, n):
        cause = case(base, target).fit(RATE, np.where(40 - n > I, NAN, target), FACTOR)
        return cause and cause.known_share

    two_values = np.where(I % 2, 0.5, 0.25)
    assert is_known(Y, two_values, 20) == 0.5
    assert is_known(Y, two_values, 19) is None
    assert is_known(Y, X, 8) == 0.2
    assert is_known(Y, X, 7) is None
    late = np.where(I < 30, two_values, Y)  # it differs at 10 rows, of which half are enough
    assert is_known(late, two_values, 5) == 0.125
    assert is_known(late, two_values, 4) is None


def test_equal_rows_do_not_determine_a_change():
    target = np.where(I < 30, Y, X)
    curve = np.where(I < 36, Y, X)
    assert case(Y, target).fit(RATE, np.where((I > 29) & (I < 36), NAN, curve), FACTOR) is None


def test_unknown_values_do_not_end_a_range():
    target = np.where(I >= 10, X, Y)
    cause = case(Y, target).fit(RATE, np.where(I < 10, NAN, X), FACTOR)
    assert (cause.start, cause.known_share) == (None, 0.75)


def is_determined(base, target, curve, **fields):
    cause = dataclasses.replace(FACTOR, **fields)
    return case(base, target).fit(RATE, np.asarray(curve, np.float64), cause) is not None


@pytest.mark.parametrize(("ends", "numbers", "least"), [(1, 1, 5), (2, 1, 7), (1, 0, 3), (2, 2, 9)])
def test_in_a_range_a_change_gives_more_than_two_values_for_each_number_and_end(
    ends, numbers, least
):
    for n in (least - 1, least):
        inside = (I >= 10) & (10 + n > I) if ends == 2 else 40 - n <= I
        assert is_determined(Y, np.where(inside, X, Y), X, numbers=numbers) == (n == least)


@pytest.mark.parametrize("name", ["float32", "bfloat16", "decimals"])
def test_a_rounding_does_not_begin_in_mid_run(name):
    target = np.where(I >= 10, X, Y)
    assert not is_determined(Y, target, X, name=name)
    assert is_determined(Y, X, X, name=name)
    assert is_determined(np.full(40, 0.3), np.full(40, 0.5), np.full(40, 0.5), name=name)


def test_a_value_changes_more_than_one_number_into_another():
    low, high, both = np.full(40, 0.5), np.full(40, 0.75), np.where(I < 20, 0.5, 0.75)
    assert not is_determined(low, high, high)
    assert is_determined(both + 1, high, high)
    assert is_determined(low + 1, both, both)
    assert is_determined(low, high, high, kind="argument")


def test_two_values_do_not_determine_a_change_of_clock():
    two = np.where(I < 20, 0.5, 0.75)
    moved = np.where(I < 15, 0.5, 0.75)
    assert not is_determined(two, moved, moved, kind="clock", name="shift")
    assert is_determined(two, moved, moved, kind="argument", name="step_size")
    three, moved = np.where(I < 30, two, 0.9), np.where(I < 30, moved, 0.9)
    assert is_determined(three, moved, moved, kind="clock", name="shift")
    switched = np.where(I < 20, 0.75, 0.5)  # two values, and both differ
    assert is_determined(two, switched, switched, kind="clock", name="shift")


@pytest.mark.parametrize("name", ["per epoch", "per iteration"])
def test_stairs_are_made_of_more_than_twice_as_many_steps(name):
    def is_determined_by(base, numbers):
        target = I // 8 * 0.1 + 0.15  # 4 steps
        return is_determined(base, target, target, kind="clock", name=name, numbers=numbers)

    eight = np.minimum(I, 32) // 4 * 0.1 + 0.1
    assert not is_determined_by(eight, 1)
    assert is_determined_by(eight, 0)
    assert is_determined_by(np.where(I == 39, 7.0, eight), 1)


def test_a_prefix_is_the_rows_that_a_curve_gives_before_it_fails():
    target = np.where((I >= 10) & (I < 30), X, Y)
    both = case(Y, target)
    for n in (0, 1, 5, 19):
        assert both.count_prefix(RATE, np.where(10 + n > I, target, 9.0)) == n
    assert both.count_prefix(RATE, np.where(I < 12, target, np.where(I < 14, NAN, 9.0))) == 4
    assert both.count_prefix(RATE, target) == 0
    apart = case(Y, np.where(I % 4 == 2, X, Y))  # rows 2, 6, 10 differ
    assert apart.count_prefix(RATE, np.where(I == 5, 9.0, apart.target.column(RATE))) == 3
    assert both.count_prefix(RATE, np.where(I < 30, target, 9.0)) == 0  # none that differs fails
    assert both.count_prefix(RATE, np.where(I == 29, 9.0, target)) == 19
    assert both.count_prefix(RATE, np.where(I == 9, 9.0, np.where(I < 15, target, 9.0))) == 0
    assert both.count_prefix(RATE, np.where(I == 0, 9.0, np.where(I < 15, target, 9.0))) == 0
    assert case(Y, X).count_prefix(RATE, np.where(I < 3, X, 9.0)) == 3


# A cause.


def cause(sentence, *names, kind="argument", groups=("all",), **fields):
    quantities = tuple((group, name) for name in names or ("x",) for group in groups)
    return Cause(kind, "name", sentence, quantities=quantities, **fields)


def test_a_cause_is_of_one_number_exact_and_known_at_all_rows_unless_it_says_otherwise():
    plain = Cause("value", "factor", "times 2")
    assert plain.is_throughout
    assert plain.cost == (False, 1, False, False)
    assert plain.known_share == 1
    assert plain.changes_reference
    assert "curves" not in repr(plain)
    curves = {RATE: np.arange(3)}
    assert plain == dataclasses.replace(plain, curves=curves)
    with pytest.raises(dataclasses.FrozenInstanceError):
        plain.start = 3


RANGES = {
    (None, None): "times 2",
    (4, None): "times 2, from iteration 4 on",
    (None, 9): "times 2, until iteration 8",
    (4, 9): "times 2, from iteration 4 to 8",
    (0, 0): "times 2, from iteration 0 to -1",
}


@pytest.mark.parametrize(("start", "stop"), RANGES)
def test_a_range_is_written_with_its_last_iteration(start, stop):
    ranged = Cause("value", "factor", "times 2", start=start, stop=stop)
    assert str(ranged) == RANGES[start, stop]
    ends = (start is not None) + (stop is not None)
    assert ranged.free_numbers == 1 + ends
    assert ranged.is_throughout == (ends == 0)
    assert ranged.cost == (False, 1 + ends, ends > 0, False)


def test_alternatives_that_the_data_cannot_distinguish_follow_the_cause():
    others = (cause("b", start=3), cause("c"))
    assert str(cause("a", stop=3, alternatives=others)) == (
        "a, until iteration 2, or b, from iteration 3 on, or c"
    )


def test_exact_goes_before_fewer_numbers_and_these_before_a_range_that_is_known():
    ordered = [
        cause("a", numbers=0, known_share=0.75),
        cause("a", numbers=0, known_share=0.74),
        cause("a", numbers=1, known_share=0.5),
        cause("a", numbers=0, start=5),
        cause("a", numbers=2, known_share=0.5),
        cause("a", numbers=1, start=5),
        cause("a", numbers=0, exact=False),
    ]
    assert sorted(reversed(ordered), key=lambda c: c.cost) == ordered


def test_at_equal_cost_arguments_go_first_then_one_before_two_and_the_shorter_sentence():
    two = (cause("a"), cause("b"))
    ordered = [
        cause("aa"),
        cause("aaa"),
        cause("a", parts=two),
        cause("a", kind="rule"),
        cause("a", kind="clock"),
        cause("a", kind="groups"),
        cause("a", kind="value"),
        cause("a", numbers=2),
    ]
    assert sorted(reversed(ordered), key=lambda c: c.rank) == ordered


def test_evidence_has_the_parts_and_the_alternatives_too():
    part = Cause("argument", "lrf", "lrf 0.1 for 0.2", 0.1, 0.2)
    both = Cause(
        "clock",
        "shift",
        "1 epoch late",
        1,
        None,
        (("", "ema_decay"), RATE),
        3,
        9,
        exact=False,
        parts=(part,),
        alternatives=(part,),
    )
    alone = {
        "sentence": "lrf 0.1 for 0.2",
        "kind": "argument",
        "name": "lrf",
        "mine": 0.1,
        "reference": 0.2,
        "exact": True,
        "quantities": [],
        "from": None,
        "until": None,
        "parts": [],
        "alternatives": [],
    }
    assert both.evidence() == {
        "sentence": "1 epoch late, from iteration 3 to 8, or lrf 0.1 for 0.2",
        "kind": "clock",
        "name": "shift",
        "mine": 1,
        "reference": None,
        "exact": False,
        "quantities": ["ema_decay", "all/learning_rate"],
        "from": 3,
        "until": 9,
        "parts": [alone],
        "alternatives": [alone],
    }


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.1, "0.1"),
        (np.float64(0.1), "0.1"),
        (np.float32(0.5), "0.5"),
        (3, "3"),
        (True, "True"),
        ("cos", "cos"),
        (None, "None"),
        ((), "[]"),
        ([1, (2.5, np.float64(3))], "[1, [2.5, 3.0]]"),
        (schedules.cosine, "cosine"),
    ],
)
def test_values_are_written_as_one_writes_them(value, text):
    assert format_value(value) == text


def test_quantities_are_listed_by_name():
    assert list_quantities([("", "ema_decay")]) == "ema_decay"
    keys = [("a", "x"), ("a", "y"), ("b", "x"), ("", "z")]
    assert list_quantities(keys) == "x of a and b, y of a, z"


def test_many_groups_are_counted():
    keys = [(label, "x") for label in "abcd"]
    assert list_quantities(keys) == "x of a and b and c and d"
    assert list_quantities([*keys, ("e", "x")]) == "x of a and b and c and d and 1 more"
    assert list_quantities([*keys, ("e", "x"), ("f", "x")]).endswith("d and 2 more")


# Several causes.


def test_one_change_in_several_quantities_is_one_cause():
    x, y = ("all", "x"), ("all", "y")
    causes = [
        cause("a", "x", known_share=0.5, curves={x: 1}),
        cause("a", "x", start=3),
        cause("a", "x", stop=3),
        cause("b", "x"),
        cause("a", "y", "x", known_share=0.9, curves={y: 2}),
        cause("b", "y", known_share=0.25),
    ]
    merged = merge(causes)
    assert [(c.sentence, c.start, c.stop) for c in merged] == [
        ("a", None, None),
        ("a", 3, None),
        ("a", None, 3),
        ("b", None, None),
    ]
    assert [c.quantities for c in merged] == [(x, y), (x,), (x,), (x, y)]
    assert [c.known_share for c in merged] == [0.5, 1, 1, 0.25]
    assert merged[0].curves == {x: 1, y: 2}


def test_merged_causes_keep_the_curves_of_the_side_that_the_first_changes():
    forward, reverse = (
        cause("times 2", changes_reference=side, curves={("all", "x"): side})
        for side in (True, False)
    )
    for first, second in ((forward, reverse), (reverse, forward)):
        (merged,) = merge([first, second])
        assert merged.curves == {("all", "x"): merged.changes_reference}
        assert merged.changes_reference is first.changes_reference


def choose_sentences(causes, *names):
    return [str(c) for c in choose(causes, [("all", name) for name in names])]


def test_nothing_is_chosen_where_nothing_differs_or_is_found():
    assert choose_sentences([], "x") == []
    assert choose_sentences([cause("a", "x")]) == []
    assert choose_sentences([cause("a", "y")], "x") == []


def test_the_fewest_numbers_are_chosen():
    assert choose_sentences([cause("a", "x", numbers=2), cause("b", "x", numbers=1)], "x") == ["b"]
    assert choose_sentences([cause("a", "x", start=4), cause("b", "x")], "x") == ["b"]
    assert choose_sentences([cause("a", "x", exact=False, numbers=0), cause("b", "x")], "x") == [
        "b"
    ]


def test_one_cause_for_all_goes_before_one_for_each():
    each = [cause("a", "x"), cause("b", "y")]
    assert choose_sentences([*each, cause("c", "x", "y", kind="value")], "x", "y") == ["c"]
    assert choose_sentences(
        [*each, cause("c", "x", "y", numbers=1, known_share=0.5)], "x", "y"
    ) == ["c"]


def test_several_that_are_simpler_each_go_before_one_with_more_numbers():
    each = [cause("a", "x"), cause("b", "y")]
    assert choose_sentences([*each, cause("c", "x", "y", numbers=2)], "x", "y") == [
        "a, in x of all",
        "b, in y of all",
    ]
    assert choose_sentences([*each, cause("c", "x", "y", exact=False, numbers=0)], "x", "y") == [
        "a, in x of all",
        "b, in y of all",
    ]
    # With and without a remaining difference.
    assert choose_sentences([*each, cause("c", "x", "y", numbers=2)], "x", "y", "z") == [
        "a, in x of all",
        "b, in y of all",
    ]
    # But not if the one explains more, nor if one of them is not simpler.
    three = cause("c", "x", "y", "z", numbers=2)
    assert choose_sentences([*each, three], "x", "y", "z") == ["c"]
    assert choose_sentences([*each[:1], cause("b", "y", numbers=2), three], "x", "y") == ["c"]


def test_a_range_of_all_goes_before_as_many_numbers_for_each():
    each = [cause("a", "x", numbers=2), cause("b", "y", numbers=2)]
    assert choose_sentences([*each, cause("c", "x", "y", start=4)], "x", "y") == [
        "c, from iteration 4 on"
    ]


def test_remaining_quantities_are_explained_by_other_causes_that_name_them():
    wide, narrow = cause("a", "x", "y"), cause("b", "y", "z")
    result = choose_sentences([wide, narrow], "x", "y", "z")
    assert result == ["a, in x of all, y of all", "b, in y of all, z of all"]
    result = choose_sentences([wide, cause("b", "z", "w")], "x", "y", "z")
    assert result == ["a, in x of all, y of all", "b, in z of all"]
    # A single cause that does not explain everything names its quantities as well.
    assert choose_sentences([wide], "x", "y", "z") == ["a, in x of all, y of all"]
    assert choose_sentences([wide], "x", "y") == ["a"]


def test_one_alternative_of_each_other_kind_is_given():
    causes = [
        cause("value 2", kind="value"),
        cause("clock 22", kind="clock"),
        cause("clock 2", kind="clock"),
        cause("argument"),
    ]
    assert choose_sentences(causes, "x") == ["argument, or clock 2, or value 2"]


def test_arguments_with_other_numbers_are_alternatives():
    causes = [
        cause("a 3 for 2", mine=3, reference=2),
        cause("aa 3 for 2", mine=3, reference=2),
        cause("bb 3 for 1", mine=3, reference=1),
        cause("ccc 2 for 1", mine=2, reference=1),
    ]
    assert choose_sentences(causes[::-1], "x") == ["a 3 for 2, or bb 3 for 1, or ccc 2 for 1"]
    more = [*causes, cause("dddd 4 for 1", mine=4, reference=1)]
    assert choose_sentences(more, "x") == ["a 3 for 2, or bb 3 for 1, or ccc 2 for 1"]
    clocks = [cause("k", kind="clock", mine=1), cause("kk", kind="clock", mine=2)]
    assert choose_sentences(clocks, "x") == ["k"]


def test_an_alternative_reproduces_all_that_the_cause_does_at_the_same_cost():
    best = cause("a", "x", "y")
    others = [
        cause("fewer", "x", kind="clock"),
        cause("costs more", "x", "y", kind="rule", numbers=2),
        cause("more of what is the same", "x", "y", "z", kind="value"),
    ]
    assert choose_sentences([best, *others], "x", "y") == ["a, or more of what is the same"]
