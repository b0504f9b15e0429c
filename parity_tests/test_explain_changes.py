"""The changes that the search of a cause tries, and the numbers it solves for, one by one.

Expected results are written out by hand.
"""

import functools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from jaxsched import Recipe, Trace, lr_scheduler, schedules
from jaxsched.parity import _explain as search
from jaxsched.parity._explain import _changes as changes
from jaxsched.parity._explain._cause import Cause
from jaxsched.parity._explain._changes import CLOCKS, VALUES, Edit
from jaxsched.parity._explain._runs import Case, Column, Run

RATE = ("all", "learning_rate")
I = np.arange(12)  # noqa: E741
Y = np.array([0.1, 0.3, 0.2, 0.7, 0.5, 0.9, 0.4, 0.6, 1.0, 0.8, 1.3, 1.1])


def run(groups, start=0, recipe=None, clock="iteration", **columns):
    """Return a run of one rate, or of groups of columns."""
    groups = groups if isinstance(groups, dict) else {"all": {"learning_rate": groups}}
    arrays = {k: {n: np.asarray(v) for n, v in group.items()} for k, group in groups.items()}
    columns = {name: np.asarray(column) for name, column in columns.items()}
    return Run(Trace(arrays, columns, start, clock=clock), recipe)


def recipe_run(rate, n=40):
    """Return a run of the recipe of one rate."""
    recipe = Recipe({"all": {"learning_rate": rate}})
    return Run(recipe.trace(n), recipe)


def case_of(mine, reference, forward=True):
    """Return the case in which the reference is changed to give mine, or else the reverse."""
    mine, reference = (s if isinstance(s, Run) else run(s) for s in (mine, reference))
    return Case(reference, mine, True) if forward else Case(mine, reference, False)


FORWARD, REVERSE = case_of(Y + 1, Y), case_of(Y + 1, Y, False)

EARLY, LATE, TIMES, LAST_OF, SLOWED, STAIRS, STOPPED, AGAIN, CYCLED = CLOCKS
FACTOR, ADDEND, FLOOR, CAP = VALUES

COUNTS = {
    "k counts early": (EARLY, 3, [3, 4, 5, 6, 7, 8, 9]),
    "k counts late, and not before the first count": (LATE, 3, [0, 0, 0, 0, 1, 2, 3]),
    "k counts for one": (TIMES, 3, [0, 3, 6, 9, 12, 15, 18]),
    "the last of k counts for one": (LAST_OF, 3, [2, 5, 8, 11, 14, 17, 20]),
    "one count for k": (SLOWED, 3, [0, 0, 0, 1, 1, 1, 2]),
    "stairs of k counts": (STAIRS, 3, [0, 0, 0, 3, 3, 3, 6]),
    "stopped at count k": (STOPPED, 3, [0, 1, 2, 3, 3, 3, 3]),
    "started again at count k": (AGAIN, 2, [0, 1, 0, 1, 2, 3, 4]),
    "started again every k counts": (CYCLED, 2, [0, 1, 0, 1, 0, 1, 0]),
}


@pytest.mark.parametrize("name", COUNTS)
@pytest.mark.parametrize("xp", [np, jnp])
def test_a_change_of_the_clock_gives_these_counts(name, xp):
    change, k, counts = COUNTS[name]
    assert change.kind == "clock"
    with jax.enable_x64(True):
        assert change.change(xp, xp.arange(7), k).tolist() == counts
        assert change.change(xp, xp.arange(7), change.neutral).tolist() == [*range(7)]
    assert isinstance(change.neutral, int)  # an integer is searched for, not a float


def test_every_change_of_the_clock_is_in_the_table():
    assert [change for change, *_ in COUNTS.values()] == [*CLOCKS]


BY_VALUE = {
    "times k": (FACTOR, 0.5, [0.25, -0.5, 0.0], 2.0),
    "plus k": (ADDEND, 0.5, [1.0, -0.5, 0.5], -0.5),
    "at least k": (FLOOR, 0.25, [0.5, 0.25, 0.25], None),
    "at most k": (CAP, 0.25, [0.25, -1.0, 0.0], None),
}


@pytest.mark.parametrize("name", BY_VALUE)
@pytest.mark.parametrize("xp", [np, jnp])
def test_a_change_of_the_value_gives_these_values(name, xp):
    change, k, values, inverse = BY_VALUE[name]
    y = [0.5, -1.0, 0.0]
    assert change.kind == "value"
    assert change.change(xp, xp.asarray(y), k).tolist() == values
    assert change.change(xp, xp.asarray(y), change.neutral).tolist() == y
    assert (change.inverse and change.inverse(k)) == inverse
    assert isinstance(change.neutral, float)  # a float is solved for, not an integer


def test_the_inverse_of_a_clock_has_the_number_of_the_reverse():
    assert [c.inverse and c.inverse(4) for c in CLOCKS] == [-4, -4, 0.25, 0.25, 0.25] + 4 * [None]
    assert TIMES.inverse(0) == np.inf


def test_a_clock_stretched_by_epochs_keeps_the_position_within_an_epoch():
    counts = np.array([0, 4, 5, 7, 11])
    assert TIMES.by_epoch(5).change(np, counts, 2).tolist() == [0, 4, 10, 12, 21]
    assert LAST_OF.by_epoch(5).change(np, counts, 2).tolist() == [5, 9, 15, 17, 26]
    assert TIMES.by_epoch(5).cause(2, FORWARD, "iteration", 5) == TIMES.cause(
        2, FORWARD, "iteration", 5
    )


def test_a_column_is_asked_for_counts_below_zero_and_for_many_numbers_at_once():
    column = Column(lambda i: i * 10)
    assert isinstance(EARLY.wrap(column, 2), Column)
    assert EARLY.wrap(column, -2)(np.arange(3)).tolist() == [-20, -10, 0]
    both = EARLY.wrap(column, np.array([[1.0], [2.0]]))(np.array([[0, 1], [0, 1]]))
    assert both.tolist() == [[10, 20], [20, 30]]


def test_a_schedule_is_asked_for_no_count_below_zero():
    def schedule(i):
        return i * 10

    assert not isinstance(EARLY.wrap(schedule, 2), Column)
    with jax.enable_x64(True):
        counts = jnp.arange(4)
        assert EARLY.wrap(schedule, -2)(counts).tolist() == [0, 0, 0, 10]
        assert EARLY.wrap(schedule, -2)(counts).dtype == jnp.int64
        assert EARLY.wrap(schedule, 1.0)(counts.astype(float)).tolist() == [10, 20, 30, 40]


def test_a_value_is_changed_in_float64():
    tenth = np.float32(0.1)
    wrapped = FACTOR.wrap(Column(lambda i: np.full(len(i), tenth)), 3.0)
    assert wrapped(np.arange(2)).tolist() == [float(tenth) * 3.0] * 2
    with jax.enable_x64(True):
        wrapped = ADDEND.wrap(lambda i: jnp.full(i.shape, tenth), 1e-12)
        assert wrapped(jnp.arange(-1, 1)).tolist() == [float(tenth) + 1e-12] * 2


SENTENCES = [
    # change, number, true if the reference is changed, (unit, epoch, part), sentence, number of mine
    (EARLY, 3, True, ("iteration", None), "3 iterations early", 3),
    (EARLY, 1, True, ("iteration", None), "1 iteration early", 1),
    (EARLY, -1, True, ("iteration", None), "1 iteration late", -1),
    (EARLY, 3, False, ("iteration", None), "3 iterations late", -3),
    (LATE, 3, True, ("update", None), "3 updates late", -3),
    (LATE, 3, False, ("update", None), "3 updates early", 3),
    (EARLY, 12, True, ("iteration", 6), "2 epochs early", 12),
    (EARLY, -6, True, ("iteration", 6), "1 epoch late", -6),
    (LATE, 7, True, ("iteration", 6), "7 iterations late", -7),
    (EARLY, 3, True, ("epoch", None, "cosine"), "cosine 3 epochs early", 3),
    (TIMES, 2, True, ("iteration", None), "stepped 2 times for once", 2),
    (TIMES, 2, False, ("iteration", None), "stepped once in 2 iterations", 0.5),
    (LAST_OF, 3, True, ("iteration", None), "stepped 3 times for once", 3),
    (SLOWED, 4, True, ("update", None), "stepped once in 4 updates", 0.25),
    (SLOWED, 4, False, ("update", None), "stepped 4 times for once", 4),
    (STAIRS, 6, True, ("iteration", None), "constant for 6 iterations each", 6),
    (STOPPED, 81, True, ("iteration", None), "stopped at iteration 81", 81),
    (STOPPED, 4, True, ("epoch", None, "linear"), "linear stopped at epoch 4", 4),
    (STOPPED, 8, False, ("epoch", None), "the reference is stopped at epoch 8, mine is not", 8),
    (
        STOPPED,
        8,
        False,
        ("epoch", None, "linear"),
        "linear of the reference is stopped at epoch 8, mine is not",
        8,
    ),
    (AGAIN, 70, True, ("iteration", None), "started again at iteration 70", 70),
    (CYCLED, 40, True, ("iteration", None), "started again every 40 iterations", 40),
    (CYCLED, 1, True, ("update", None), "started again every 1 update", 1),
    (FACTOR, 0.5, True, ("iteration", None), "times 0.5", 0.5),
    (FACTOR, 0.5, False, ("iteration", None), "times 2.0", 2.0),
    (FACTOR, 0.5, True, ("epoch", None, "cosine"), "cosine times 0.5", 0.5),
    (ADDEND, 0.25, True, ("iteration", None), "plus 0.25", 0.25),
    (ADDEND, 0.25, False, ("iteration", None), "plus -0.25", -0.25),
    (FLOOR, 0.3, True, ("iteration", None), "at least 0.3", 0.3),
    (CAP, 0.3, False, ("update", None), "the reference is at most 0.3, mine is not", 0.3),
]


@pytest.mark.parametrize("row", SENTENCES, ids=lambda row: row[4])
def test_a_change_in_words_and_its_number_are_those_of_mine(row):
    change, k, forward, (unit, epoch, *part), sentence, number = row
    cause = change.cause(k, FORWARD if forward else REVERSE, unit, epoch, *part)
    assert cause == Cause(change.kind, change.name, sentence, number)


def test_stairs_of_the_reference_are_per_iteration_on_this_side():
    sentence = "the reference is constant for 6 iterations each, mine is not"
    assert STAIRS.cause(6, REVERSE, "iteration", None) == Cause(
        "clock", "per iteration", sentence, 6
    )
    assert STAIRS.cause(6, FORWARD, "iteration", None).name == "per epoch"


def test_an_argument_names_the_number_of_mine_first():
    assert changes.argument(FORWARD, "gamma", 0.95, 0.9, " in step_lr") == Cause(
        "argument", "gamma", "gamma 0.95 for 0.9 in step_lr", 0.95, 0.9
    )
    assert changes.argument(REVERSE, "gamma", 0.95, 0.9) == Cause(
        "argument", "gamma", "gamma 0.9 for 0.95", 0.9, 0.95
    )
    cosine, linear = schedules.cosine, schedules.linear
    for case in (FORWARD, REVERSE):
        mine, reference = (cosine, linear) if case is FORWARD else (linear, cosine)
        assert changes.argument(case, "", cosine, linear, kind="rule") == Cause(
            "rule", mine.__name__, f"{mine.__name__} for {reference.__name__}", mine, reference
        )


def edits(entry):
    """Return the possible edits of a schedule: paths, the present and the other values."""
    return [
        (e.paths, e.present, e.choices and [*e.choices])
        for e in changes.arguments_of(FORWARD, entry)
    ]


def test_numbers_at_any_depth_can_be_changed():
    cosine = schedules.cosine(20, lrf=0.2)
    decay = lr_scheduler.lambda_lr(0.1, cosine, steps=50)
    entry = schedules.warmup(schedules.per_epoch(decay, 5), 30, start=0.0)
    inner = ("schedule", "schedule")
    changed = edits(entry)
    assert changed == [
        ([("iterations",)], 30, None),
        ([("start",)], 0.0, None),
        ([("schedule", "steps_per_epoch")], 5, None),
        ([(*inner, "base_lr")], 0.1, None),
        ([(*inner, "lr_lambda", "epochs")], 20, None),
        ([(*inner, "lr_lambda", "lrf")], 0.2, None),
        ([(*inner, "lr_lambda")], schedules.cosine, [schedules.linear, schedules.one_cycle]),
    ]


def test_a_formula_is_exchanged_for_one_with_the_same_arguments():
    (*_, edit) = changes.arguments_of(FORWARD, schedules.one_cycle(20, lrf=0.2))
    assert edit.choices == [schedules.cosine, schedules.linear]
    assert edit.build(schedules.linear) == schedules.linear(20, lrf=0.2)
    sentence = "linear for one_cycle"
    assert edit.cause(schedules.linear) == Cause(
        "rule", "linear", sentence, schedules.linear, schedules.one_cycle
    )


def test_entries_of_a_list_can_be_changed_and_left_out():
    edits_of_list = [
        *changes.arguments_of(FORWARD, lr_scheduler.multi_step_lr(0.1, [6, 12, 20], 0.5))
    ]
    assert [(e.paths, e.present, e.choices) for e in edits_of_list] == [
        ([("base_lr",)], 0.1, None),
        ([("milestones",)], (6, 12, 20), [(12, 20), (6, 20), (6, 12)]),
        ([("milestones", 0)], 6, None),
        ([("milestones", 1)], 12, None),
        ([("milestones", 2)], 20, None),
        ([("gamma",)], 0.5, None),
    ]
    assert [e.cause(7).sentence for e in edits_of_list[2:5]] == [
        "milestones [7, 12, 20] for [6, 12, 20] in multi_step_lr",
        "milestones [6, 7, 20] for [6, 12, 20] in multi_step_lr",
        "milestones [6, 12, 7] for [6, 12, 20] in multi_step_lr",
    ]
    assert edits_of_list[1].build((6, 20)) == lr_scheduler.multi_step_lr(0.1, [6, 20], 0.5)
    assert edits(lr_scheduler.multi_step_lr(0.1, [6], 0.5))[1:2] == [([("milestones", 0)], 6, None)]


def test_switches_and_choices_have_their_others():
    by_name = {
        paths[0][0]: (present, choices)
        for paths, present, choices in edits(lr_scheduler.one_cycle_lr(0.1, 20))
    }
    assert by_name["anneal_strategy"] == ("cos", ["linear"])
    assert by_name["three_phase"] == (False, [True])
    assert by_name["total_steps"] == (20, None)
    assert "epochs" not in by_name  # None is not a number


def test_the_values_tried_in_place_of_another():
    assert changes._choices(True) == [False]
    assert changes._choices(np.False_) == [True]
    assert changes._choices("triangular2") == ["triangular", "exp_range"]
    assert changes._choices("cycle") == ["iterations"]
    assert changes._choices("another") == []
    assert changes._choices((3, 5)) == [(5,), (3,)]
    for other in (3, 0.5, None, (3,), (), (3, "x"), [3, 5]):
        assert changes._choices(other) is None


def test_numbers_of_a_table_are_no_arguments_but_those_that_it_goes_on_as_are():
    assert edits(schedules.table([1.0, 2.0], start=3)) == []
    then = lr_scheduler.exponential_lr(0.1, 0.9)
    assert edits(schedules.table([1.0, 2.0], then=then)) == [
        ([("base_lr",)], 0.1, None),
        ([("gamma",)], 0.9, None),
    ]


def test_one_number_at_several_places_is_changed_at_all_of_them_too():
    members = [lr_scheduler.exponential_lr(0.1, 0.9), lr_scheduler.exponential_lr(0.1, 0.8)]
    edits_of_number = [
        *changes.arguments_of(FORWARD, lr_scheduler.sequential_lr(members, [10], steps=30)),
    ]
    both = [("schedulers", 0, "base_lr"), ("schedulers", 1, "base_lr")]
    assert [e.paths for e in edits_of_number if len(e.paths) > 1] == [both]
    assert edits_of_number[-1].present == 0.1
    assert edits_of_number[-1].cause(0.2) == Cause(
        "argument", "base_lr", "base_lr 0.2 for 0.1", 0.2, 0.1
    )
    changed = [lr_scheduler.exponential_lr(0.2, 0.9), lr_scheduler.exponential_lr(0.2, 0.8)]
    assert edits_of_number[-1].build(0.2) == lr_scheduler.sequential_lr(changed, [10], steps=30)


def test_a_warmup_can_be_left_out():
    inner = lr_scheduler.exponential_lr(0.1, 0.9)
    for case, sentence in (
        (FORWARD, "warm-up missing"),
        (REVERSE, "a warm-up where the reference has none"),
    ):
        (edit,) = changes.combinators_of(case, schedules.warmup(inner, 20, start=0.0))
        assert edit.cause(inner) == Cause("argument", "warmup", sentence, numbers=0)
        assert [edit.build(choice) for choice in edit.choices] == [inner]


@pytest.mark.parametrize("epoch", [None, 3])
def test_a_lag_can_be_left_out(epoch):
    inner = lr_scheduler.exponential_lr(0.1, 0.9)
    # Without an epoch the lag is one count; stairs of three counts determine the epoch's length.
    columns = (Y + 1, Y) if epoch is None else (Y[I // 3] + 1, Y[I // 3])
    for forward, sentence, sign in (
        (True, "lag of one epoch missing", 1),
        (False, "a lag of one epoch where the reference has none", -1),
    ):
        case = case_of(*columns, forward)
        (edit,) = changes.combinators_of(case, schedules.lagged(inner, after=3))
        assert edit.cause(None) == Cause("clock", "shift", sentence, sign * (epoch or 1), numbers=0)
        assert edit.choices == [inner]


def test_epochs_can_be_counted_on_within():
    entry = schedules.warmup(
        schedules.per_epoch(schedules.lagged(lambda e: e * 1.0, after=2), 4), 8, start=0.0
    )
    case = case_of(run(Y + 1, clock="update"), run(Y, clock="update"))
    _, edit, lag = changes.combinators_of(case, entry)
    assert edit.cause(None) == Cause(
        "clock", "per iteration", "changes at each update for per epoch", numbers=0
    )
    assert (edit.paths, lag.paths) == ([("schedule",)], [("schedule", "schedule")])
    counts = jnp.array([0, 4, 7, 8, 10])
    with jax.enable_x64(True):
        values = [choice(counts).tolist() for choice in edit.choices]
    # In fractions of an epoch of 4, never one late or after the warm-up; then in iterations.
    assert values == [[0, 1, 1.75, 2, 2.5], [0, 1, 1.75, 2, 1.5], [0, 4, 7, 8, 10], [0, 4, 7, 8, 9]]
    reverse = [*changes.combinators_of(REVERSE, entry)][1]
    assert reverse.cause(None) == Cause(
        "clock", "per epoch", "changes per epoch for at each iteration", numbers=0
    )


def test_no_fraction_of_an_epoch_is_below_zero():
    entry = schedules.warmup(schedules.per_epoch(lambda e: e * 1.0, 4), 2, start=0.0)
    edit = [*changes.combinators_of(FORWARD, entry)][1]
    with jax.enable_x64(True):
        assert edit.choices[1](jnp.array([3, 4, 6])).tolist() == [0.0, 0.0, 0.5]


def test_other_schedules_have_nothing_to_leave_out():
    assert [*changes.combinators_of(FORWARD, lr_scheduler.exponential_lr(0.1, 0.9))] == []


def names(found):
    return [(e.paths[0], e.cause(2).name) for e in found]


CLOCK_NAMES = [change.name for change in CLOCKS]


def test_clock_and_value_of_a_column_are_changed():
    column = Column(lambda i: i)
    own = [*CLOCK_NAMES, "factor", "addend", "floor", "cap"]
    results = [*changes.clocks_and_values(FORWARD, column)]
    assert names(results) == [((), name) for name in own]
    assert [e.present for e in results] == [0, 0, 1, 1, 1, 1] + [changes.NEVER] * 3 + [
        1.0,
        0.0,
        -np.inf,
        np.inf,
    ]
    assert results[0].cause(2).sentence == "2 iterations early"
    assert results[0].build(2)(np.arange(3)).tolist() == [2, 3, 4]
    # In reverse a factor and an addend are those of the other side, and are not searched again.
    reverse = [e.cause(2) for e in changes.clocks_and_values(REVERSE, column)]
    assert [c.sentence for c in reverse if c.kind == "value"] == [
        "the reference is at least 2, mine is not",
        "the reference is at most 2, mine is not",
    ]


def test_a_column_with_epochs_is_stretched_by_them_too():
    case = case_of(Y[I // 3] + 1, Y[I // 3])
    assert case.epoch == 3
    results = [*changes.clocks_and_values(case, Column(lambda i: i))]
    assert [e.cause(2).name for e in results[13:]] == ["stretch", "stretch"]
    assert [e.build(2)(np.array([0, 2, 3, 4])).tolist() for e in results[13:]] == [
        [0, 2, 6, 7],
        [3, 5, 9, 10],
    ]
    assert results[0].cause(6).sentence == "2 epochs early"


def test_clock_and_value_of_each_part_are_changed_but_not_of_the_whole():
    entry = schedules.override(
        schedules.per_epoch(lr_scheduler.lambda_lr(0.1, lambda e: e), 3),
        lr_scheduler.exponential_lr(0.1, 0.9),
        at=3,
    )
    case = case_of(Y[I // 3] + 1, Y[I // 3], False)
    results = [*changes.clocks_and_values(case, entry)]
    decay = ("schedule", "schedule")
    paths = [("schedule",), decay, (*decay, "lr_lambda"), ("other",)]
    own = [*CLOCK_NAMES, "factor", "addend", "floor", "cap"]
    stairs = {"per epoch": "per iteration"}
    assert names(results) == [(path, stairs.get(name, name)) for path in paths for name in own]
    # Inside per_epoch counts are epochs, elsewhere they are not.
    assert [e.cause(6).sentence for e in results[::13]] == [
        "per_epoch 2 epochs late",
        "lambda_lr 6 epochs late",
        "the function 6 epochs late",
        "exponential_lr 2 epochs late",
    ]


def curves(case, key=RATE):
    return [(cause.sentence, curve) for curve, cause in changes.curves_of(case, key)]


def test_roundings_are_tried_in_both_directions():
    y = np.array([0.123456789123, 0.75, 1.0])
    roundings = ["float32", "bfloat16", *(f"{n} decimals" for n in (8, 7, 6, 5, 4, 3, 2, 1))]
    for forward, side in ((True, "mine"), (False, "the reference")):
        results = curves(case_of(y + 1, y, forward) if forward else case_of(y, y + 1, forward))
        assert [s for s, _ in results] == [f"{side} rounded to {name}" for name in roundings]
        by_name = dict(zip(roundings, (curve[0] for _, curve in results), strict=True))
        assert by_name["float32"] == float(np.float32(y[0]))
        assert by_name["bfloat16"] == float(ml_dtypes.bfloat16(y[0]))
        assert by_name["8 decimals"] == 0.12345679
        assert by_name["1 decimals"] == 0.1
    causes = [cause for _, cause in changes.curves_of(case_of(y + 1, y), RATE)]
    assert causes[0] == Cause("value", "float32", "mine rounded to float32", numbers=0)
    assert causes[2] == Cause("value", "decimals", "mine rounded to 8 decimals", 8)


@pytest.mark.parametrize(
    ("off", "is_computed"), [(1, True), (8, True), (-8, True), (9, False), (0.25, False)]
)
def test_arithmetic_in_another_dtype_is_at_most_eight_roundings_off(off, is_computed):
    """A rounding is 2**-23 of the peak; a value off by a quarter of it is not a float32 number."""
    y = np.array([1.0, 0.5, 0.75])
    x = y + np.array([0, off, 0]) * 2.0**-23 + (2.0**-40 if off == 0.25 else 0)
    sentence = "computed in float32: at most 8 of its roundings off, not equal"
    curves_by_sentence = {
        c.sentence: (c, curve) for curve, c in changes.curves_of(case_of(x, y), RATE)
    }
    assert (sentence in curves_by_sentence) == is_computed
    if is_computed:
        cause, curve = curves_by_sentence[sentence]
        assert cause == Cause("value", "float32", sentence, numbers=0, exact=False)
        assert (curve == x).all()
    assert sentence not in dict(curves(case_of(y, x, False)))


def test_a_constant_in_the_place_of_a_schedule_is_named():
    constant = np.full(12, 0.125)
    missing = "constant, 0.125, where the reference is scheduled"
    results = list(changes.curves_of(case_of(constant, Y), RATE))
    assert results[0][1] == Cause("groups", "unscheduled", missing)
    assert (results[0][0] == constant).all()
    added = "scheduled where the reference is constant, 0.125"
    results = list(changes.curves_of(case_of(Y, constant), RATE))
    assert results[0][1] == Cause("groups", "unscheduled", added)
    assert (results[0][0] == Y).all()
    # It is named once and not for two constants, and a constant has no decimals to round to.
    roundings = ["mine rounded to float32", "mine rounded to bfloat16"]
    assert [s for s, _ in curves(case_of(constant, Y))] == [missing, *roundings]
    assert [s for s, _ in curves(case_of(constant, constant + 1))] == roundings
    reverse = curves(case_of(constant, Y, False))
    assert [s for s, _ in reverse] == [s.replace("mine", "the reference") for s in roundings]


def test_a_column_counted_by_updates():
    """The rows of each update hold the number of updates before, after, or up to it."""
    stepped = np.array([0, 0, 1, 0, 0, 1])
    expected = [[0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 1, 2], [-1, -1, 0, 0, 0, 1]]
    y = np.arange(6) / 8
    for forward, sentence in (
        (True, "counts updates for iterations"),
        (False, "counts iterations for updates"),
    ):
        case = case_of(run(y + 1, stepped=stepped), run(y, stepped=stepped), forward)
        results = [*changes._updates(case, Column(lambda i: i))]
        assert [rows.tolist() for rows, _ in results] == expected
        name = "per update" if forward else "per iteration"
        assert {cause.sentence for _, cause in results} == {sentence}
        assert results[0][1] == Cause("clock", name, sentence, numbers=0)


def test_updates_are_counted_from_the_first_row_on_if_either_side_states_them():
    stepped = np.array([0, 1, 0, 1])
    y = np.arange(4) / 8
    each = run(y, 5, stepped=np.ones(4))
    for mine, reference in (
        (run(y, 5, stepped=stepped), each),
        (run(y, 5), run(y, 5, stepped=stepped)),
    ):
        results = [*changes._updates(case_of(mine, reference), Column(lambda i: i))]
        assert results[0][0].tolist() == [5, 5, 6, 6]
        assert len(results) == 3
    assert [*changes._updates(case_of(run(y, 5), each), Column(lambda i: i))] == []


def group(rate, decay):
    return {"learning_rate": np.asarray(rate), "weight_decay": np.asarray(decay)}


def test_a_quantity_can_be_that_of_another_group_or_a_product():
    right = {"a": group(Y, 0.5 + 0 * Y), "b": group(2 * Y, 0 * Y), "c": group(3 * Y, 0 * Y)}
    wrong = {**right, "a": group(2 * Y, Y / 2)}
    case = case_of(run(wrong, stepped=Y), run(right, stepped=Y))
    assert [(cause, [*curve]) for curve, cause in changes._groups(case, "a", "learning_rate")] == [
        (Cause("groups", "taken from", "{names} taken from group b"), [*2 * Y]),
        (Cause("groups", "taken from", "{names} taken from group c"), [*3 * Y]),
    ]
    product = "weight_decay multiplied by the learning rate"
    assert [(cause, [*curve]) for curve, cause in changes._groups(case, "a", "weight_decay")] == [
        (Cause("groups", "taken from", product, numbers=0), [*Y / 2]),
        (Cause("groups", "taken from", "{names} taken from group b"), [*0 * Y]),
        (Cause("groups", "taken from", "{names} taken from group c"), [*0 * Y]),
    ]
    # In curves_of they are the last, and only where the reference is changed.
    assert [s for s, _ in curves(case, ("a", "learning_rate"))][-2:] == [
        "{names} taken from group b",
        "{names} taken from group c",
    ]
    reverse = case_of(run(wrong, stepped=Y), run(right, stepped=Y), False)
    assert not any("taken" in s for s, _ in curves(reverse, ("a", "learning_rate")))
    of_run = case_of(run(right, ema=Y), run(right, ema=Y + 1))
    assert not any("taken" in s for s, _ in curves(of_run, ("", "ema")))


def test_groups_are_exchanged_if_each_has_the_curves_of_the_other():
    right = {"b": group(Y, 0 * Y), "a": group(2 * Y, 0 * Y), "c": group(3 * Y, 0 * Y)}
    swapped = {**right, "b": right["a"], "a": right["b"]}
    for label, other in (("a", "b"), ("b", "a")):
        causes = [c for _, c in changes._groups(case_of(run(swapped), run(right)), label, RATE[1])]
        assert causes[0] == Cause("groups", "exchanged", "groups a and b exchanged"), other
        assert causes[1].name == "taken from"
    copied = {**right, "b": right["a"]}
    causes = [c for _, c in changes._groups(case_of(run(copied), run(right)), "b", RATE[1])]
    assert {c.name for c in causes} == {"taken from"}


# The search.


def test_rounding_to_float32_is_named_by_the_side_that_was_rounded():
    groups = {"all": {"learning_rate": Y, "momentum": Y / 3, "weight_decay": Y / 7}}
    rounded = {"all": {k: v.astype(np.float32).astype(float) for k, v in groups["all"].items()}}
    rounded["all"] |= {"weight_decay": Y / 7, "learning_rate": Y + 1}
    for forward, side in ((True, "mine"), (False, "the reference")):
        first, second = (rounded, groups) if forward else (groups, rounded)
        case = case_of(run(first, ema=Y / 3), run(second, ema=np.float32(Y / 3)), True)
        ours, run_s = search._roundings(case)
        key = ("all", "momentum")
        assert ours == Cause(
            "value", "float32", f"{side} rounded to float32", quantities=(key,), numbers=0
        )
        assert run_s.quantities == (("", "ema"),)
        assert run_s.sentence == "the reference rounded to float32"


def test_quantities_with_the_same_curves_are_searched_once():
    calls = []

    def record_search(case, key):
        calls.append(key)
        yield Cause("value", "factor", "times 2.0", curves={key: Y})

    three = {label: {"learning_rate": Y} for label in "abc"}
    keys = [(label, "learning_rate") for label in "abc"]
    doubled = {label: {"learning_rate": 2 * Y} for label in "abc"}
    causes = [*search._search_each(case_of(run(doubled), run(three)), keys, record_search)]
    assert calls == keys[:1]
    assert [cause.quantities for cause in causes] == [(key,) for key in keys]
    assert [[*cause.curves] for cause in causes] == [[key] for key in keys]

    for mine, reference in (
        ({**doubled, "b": {"learning_rate": 3 * Y}}, three),
        (doubled, {**three, "b": {"learning_rate": 3 * Y}}),
    ):
        calls.clear()
        assert (
            len([*search._search_each(case_of(run(mine), run(reference)), keys, record_search)])
            == 3
        )
        assert calls == keys[:2]


def test_schedules_that_are_equal_at_all_rows_are_searched_each():
    """Schedules with equal values here may differ: their arguments have other names."""
    calls = []

    def record_search(case, key):
        calls.append(key)
        return iter(())

    entries = {
        "a": {"learning_rate": lr_scheduler.step_lr(0.1, 100)},
        "b": {"learning_rate": lr_scheduler.step_lr(0.1, 200)},
        "c": {"learning_rate": lr_scheduler.step_lr(0.1, 100)},
    }
    recipe = Recipe(entries)
    base = Run(recipe.trace(8), recipe)
    target = run({k: {"learning_rate": np.arange(8) / 8} for k in "abc"})
    keys = [(label, "learning_rate") for label in "abc"]
    assert [*search._search_each(Case(base, target, True), keys, record_search)] == []
    assert calls == keys[:2]


def numbers_tried(case, edit, few=0, right=None):
    """Return the numbers that are tried, a list for each call, if ``right`` gives the other run."""
    tried = []

    def values(numbers, counts):
        tried.append(numbers.tolist())
        is_right = np.isin(numbers, [] if right is None else [right])[:, None]
        target = case.target.column(RATE)[counts - case.base.trace.start]
        return np.where(is_right, target, -1.0)

    solutions = search._solve_numbers(case, RATE, edit, values, few)
    return tried, solutions


def edit_of(entry, present):
    return Edit(entry, [()], present, lambda value: Cause("argument", "n", str(value)))


def test_integers_up_to_twice_the_run_away_are_tried_the_nearest_first():
    tried, solutions = numbers_tried(FORWARD, edit_of(lambda i: i, 3), right=7)
    assert solutions == [7]
    assert tried[0] == [3, 2, 4, 1, 5, 0, *range(6, 27)]
    late = case_of(run(Y + 1, 30), run(Y, 30))
    assert sorted(numbers_tried(late, edit_of(lambda i: i, 3))[0][0]) == [*range(87)]
    # For a number beyond the run, up to twice that number; far beyond it, a million either way.
    assert sorted(numbers_tried(FORWARD, edit_of(lambda i: i, 40))[0][0]) == [*range(80)]
    far = numbers_tried(FORWARD, edit_of(lambda i: i, 10**9))[0][0]
    assert (min(far), max(far)) == (999_000_000, 1_000_999_999)


def test_shifts_are_tried_in_both_directions():
    both = [0, *(sign * k for k in range(1, 24) for sign in (-1, 1)), -24]
    for entry in (lambda i: i, Column(lambda i: i)):
        assert numbers_tried(FORWARD, edit_of(entry, 0))[0][0] == both
    below = numbers_tried(FORWARD, edit_of(lambda i: i, -2))[0][0]
    assert below[:3] == [-2, -3, -1]
    assert sorted(below) == [*range(-24, 22)]


def test_factors_of_counts_are_whole_numbers():
    assert numbers_tried(FORWARD, edit_of(Column(lambda i: i), 1))[0][0] == [*range(1, 25)]


def test_a_count_that_no_run_reaches_is_searched_from_the_first_count_on():
    tried, _ = numbers_tried(FORWARD, edit_of(Column(lambda i: i), changes.NEVER))
    assert tried[0] == [*range(1, 24)]


def test_only_the_nearest_numbers_and_the_length_are_tried_where_each_is_slow():
    (first, *_), solutions = numbers_tried(FORWARD, edit_of(lambda i: i, 3), few=4, right=2)
    assert solutions == [2]
    assert first == [3, 2, 4, 1, 5, 0, 6, 7, 12, 24]  # 12 rows, and twice as many


def test_integers_related_to_those_of_a_schedule_are_tried():
    schedule = schedules.per_epoch(schedules.linear(7, lrf=0.5), 30)
    numbers = search._related_integers(schedule, 100).tolist()
    assert {100, 30, 7, 107, 93, 37, 23, 14, 100 // 7, 100 // 30, 30 // 7} <= {*numbers}
    assert 40 not in numbers


def test_numbers_are_left_out_row_by_row():
    x = np.arange(1.0, 13.0)
    case = case_of(x, -x)

    def values(numbers, counts):
        """Values equal at all rows for 3, at the first two for 5, and unknown for 4."""
        y = np.where(numbers[:, None] == 3, counts + 1.0, -1.0)
        y = np.where((numbers[:, None] == 5) & (counts < 2), counts + 1.0, y)
        return np.where(numbers[:, None] == 4, np.nan, y)

    assert search._solve_numbers(case, RATE, edit_of(lambda i: i, 3), values) == [3, 4]

    def prefix(numbers, counts):
        return np.where((numbers[:, None] == 5) & (counts < 2), counts + 1.0, -1.0)

    assert search._solve_numbers(case, RATE, edit_of(lambda i: i, 3), prefix) == [5]
    assert (
        search._solve_numbers(
            case, RATE, edit_of(lambda i: i, 3), lambda k, i: -1.0 + 0 * k[:, None]
        )
        == []
    )


def test_at_most_forty_numbers_are_compared_at_all_rows():
    case = case_of(run(Y + 1, 50), run(Y, 50))

    def values(numbers, counts):
        return np.full((len(numbers), 1), np.nan)

    solutions = search._solve_numbers(case, RATE, edit_of(lambda i: i, 3), values)
    assert solutions == [3, 2, 4, 1, 5, 0, *range(6, 40)]


def test_a_number_of_a_column_is_read_off_where_the_column_is_largest():
    """The candidates are the value itself, the difference and the ratio, each with 1 to 17 digits."""
    x, y = np.array([0.5, 0.123456789012345, 0.25]), np.array([-0.125, 0.5, 0.25])
    (first, *_), solutions = numbers_tried(
        case_of(x, y), edit_of(Column(lambda i: i), 1.0), right=-0.38
    )
    assert solutions == [-0.38]
    assert {0.1, 0.12, 0.123456789012345, -0.4, -0.376543210987655, 0.2, 0.24691357802469} <= {
        *first
    }
    assert 0.5 not in first
    assert -0.125 not in first
    lengths = [len(repr(number)) for number in first]
    assert lengths[0] == 3
    assert lengths == sorted(lengths)
    assert len(first) == len({*first})


def test_a_column_of_zeros_has_no_ratio():
    (first, *_), _ = numbers_tried(
        case_of([0.25, 0.5], [0.0, 0.0]), edit_of(Column(lambda i: i), 1.0)
    )
    assert sorted({*first}) == [0.0, 0.2, 0.25]


def test_a_float_is_solved_for_in_blocks():
    tried, solutions = numbers_tried(FORWARD, edit_of(lambda i: i, 0.5), right=0.25)
    assert solutions == [0.25]
    assert {len(block) for block in tried} == {512}
    tried, solutions = numbers_tried(FORWARD, edit_of(lambda i: i, 0.5), few=24, right=0.5)
    assert solutions == [0.5]  # the present number is among the few
    assert {len(block) for block in tried} == {6}
    # Every 20th of 500, the present one, and the roundings of the number found.
    assert len({number for block in tried for number in block}) <= 26 + 17


def test_a_number_that_jax_cannot_trace_is_tried_one_by_one():
    def change(part, value):
        if float(value) > 1.5:
            raise ValueError("too large")
        return functools.partial(lambda scale, count: count * scale, float(value))

    y = np.arange(1.0, 9.0) / 8
    edit = Edit(lambda i: i, [()], 0.5, lambda v: Cause("argument", "s", str(v)), None, change)
    case = case_of(run(np.arange(8) * 0.75), run(y))
    assert [*search._numbers(case, RATE, edit)][:1] == [0.75]


@pytest.mark.parametrize(
    ("number", "is_near"), [(61, True), (36, True), (83, True), (35, False), (84, False)]
)
def test_the_nearest_48_integers_are_tried_where_jax_cannot_trace_them(number, is_near):
    edit = edit_of(lambda i: i, 60)
    edit = edit._replace(change=lambda part, value: functools.partial(jnp.multiply, int(value)))
    case = case_of(run(np.arange(4.0) * number), run(np.arange(4.0) * 60))
    assert [*search._numbers(case, RATE, edit)] == [number] * is_near


def test_a_number_that_jax_can_trace_is_tried_with_all_others_at_once():
    built = []

    def change(part, value):
        built.append(value)
        return lambda count: count * value

    edit = Edit(lambda i: i, [()], 3, lambda v: Cause("argument", "s", str(v)), None, change)
    case = case_of(run(np.arange(8) * 5.0), run(np.arange(8) * 3.0))
    assert [*search._numbers(case, RATE, edit)] == [5]
    assert all(isinstance(value, jax.core.Tracer) for value in built)
    column = edit._replace(entry=Column(lambda i: i), change=lambda part, k: EARLY.wrap(part, k))
    case = case_of(run(np.arange(8) + 3.0), run(np.arange(8) + 0.0))
    assert [*search._numbers(case, RATE, column._replace(present=0))] == [3]


def groups_of(label_to_rate):
    return {label: {"learning_rate": np.asarray(rate)} for label, rate in label_to_rate.items()}


def sentences(mine, reference):
    return [str(cause) for cause in search.explain(mine, reference)]


def test_rounded_quantities_are_among_the_causes_and_equal_ones_are_not():
    groups = groups_of({"a": Y / 3, "b": Y})
    rounded = groups_of({"a": np.float32(Y / 3).astype(float), "b": Y})
    assert sentences(run(rounded), run(groups)) == ["mine rounded to float32"]
    assert sentences(run(groups), run(groups)) == []
    both = groups_of({"a": np.float32(Y / 3).astype(float), "b": 2 * Y})
    assert sentences(run(both), run(groups)) == [
        "mine rounded to float32, in learning_rate of a",
        "times 2.0, in learning_rate of b",
    ]


def test_a_constant_for_another_is_an_argument_but_no_rate_of_a_recording_is():
    half = np.full(12, 0.5)
    recipe = Recipe({"all": {"learning_rate": 0.5}})
    recorded = {name: run({"all": {name: half / 2}}) for name in ("learning_rate", "momentum")}
    whole = {name: run({"all": {name: half}}) for name in recorded}
    assert sentences(recorded["momentum"], whole["momentum"]) == ["momentum 0.25 for 0.5"]
    assert sentences(whole["momentum"], recorded["momentum"]) == ["momentum 0.5 for 0.25"]
    assert sentences(recorded["learning_rate"], whole["learning_rate"]) == []
    assert sentences(recorded["learning_rate"], Run(recipe.trace(12), recipe)) == []
    assert sentences(recipe_run(0.25), recipe_run(0.5)) == ["learning_rate 0.25 for 0.5"]
    (cause,) = search._single_changes(case_of(run(Y), recipe_run(0.5, 12)), RATE)
    assert cause.kind == "groups"


def test_a_column_that_is_constant_is_not_searched_for_clocks_and_values():
    """A cap of 0.05 would turn any curve of at least 0.1 into this constant."""
    for mine, reference in ((np.full(12, 0.05), Y), (Y, np.full(12, 0.05))):
        causes = search._single_changes(case_of(mine, reference), RATE)
        assert {cause.kind for cause in causes} == {"groups"}


def test_two_arguments_are_found_where_one_explains_the_first_row():
    right, wrong, half = (
        recipe_run(lr_scheduler.exponential_lr(*v), 12)
        for v in ((0.5, 0.5), (0.25, 0.75), (0.5, 0.75))
    )
    (cause,) = search._double_changes(case_of(wrong, right), RATE)
    pair = "base_lr 0.25 for 0.5 in exponential_lr", "gamma 0.75 for 0.5 in exponential_lr"
    assert cause.sentence == ", and ".join(pair)
    assert [part.sentence for part in cause.parts] == [*pair]
    # A run that one argument explains has no pair, and a recording has no arguments.
    assert [*search._double_changes(case_of(half, right), RATE)] == []
    assert [*search._double_changes(case_of(wrong, run(right.column(RATE))), RATE)] == []


def assert_named(name, mine, reference, **fields):
    sentence = f"{name} {mine} for {reference} in f"
    mine, reference = (tuple(v) if isinstance(v, list) else v for v in (mine, reference))
    return Cause("argument", name, sentence, mine, reference, **fields)


def test_two_changes_are_one_cause_with_two_numbers():
    first, second = (
        assert_named("gamma", 0.5, 0.25),
        assert_named("step_size", 3, 4, start=None, known_share=0.9),
    )
    together = search._join(FORWARD, first, second)
    assert together.sentence == "gamma 0.5 for 0.25 in f, and step_size 3 for 4 in f"
    assert (together.numbers, together.parts, together.known_share) == (2, (first, second), 0.9)
    # Two arguments of the same name, but not of one list.
    second = assert_named("gamma", 0.75, 0.5)
    assert search._join(FORWARD, first, second).parts == (first, second)


def test_two_entries_of_a_list_are_one_list():
    first, second = (
        assert_named("milestones", [5, 12], [6, 12]),
        assert_named("milestones", [5, 13], [5, 12]),
    )
    together = search._join(FORWARD, first, second)
    assert together == assert_named("milestones", [5, 13], [6, 12], numbers=2)
    # In reverse mine is changed to the reference: 6 for 5 comes first, then 12 for 13.
    first, second = (
        assert_named("milestones", [5, 13], [6, 13]),
        assert_named("milestones", [6, 13], [6, 12]),
    )
    together = search._join(REVERSE, first, second)
    assert together == assert_named("milestones", [5, 13], [6, 12], numbers=2)
    lists = assert_named("other", [5, 12], [6, 12])
    assert search._join(FORWARD, lists, assert_named("milestones", [5, 13], [5, 12])).parts


def test_other_values_of_an_argument_are_those_solved_for_and_neighbours():
    solved = [Cause("argument", "base_lr", "", 0.5, 0.25), Cause("rule", "cosine", "", "a", "b")]
    # The number itself, and one in proportion, if all groups of a factory are explained together.
    assert search._other_values(FORWARD, 0.25, solved, True) == [0.5]
    assert search._other_values(FORWARD, 0.25, solved, False) == [0.5]
    assert search._other_values(FORWARD, 0.75, solved, True) == [1.5]
    assert search._other_values(FORWARD, 0.75, solved, False) == []
    assert search._other_values(REVERSE, 0.5, solved, True) == [0.25]
    assert search._other_values(FORWARD, 0.1, [Cause("value", "factor", "", 0.3, 0.1)], True) == [
        0.3
    ]
    zero = [Cause("argument", "lrf", "", 0.5, 0.0)]
    assert search._other_values(FORWARD, 0.0, zero, True) == [0.5]
    assert search._other_values(FORWARD, 0.25, zero, True) == []


def test_other_values_of_an_integer_are_integers_near_it():
    solved = [Cause("argument", "steps", "", 3, 2)]
    assert search._other_values(FORWARD, 10, solved, True) == [15, 9, 11, 20, 5, 0]
    assert search._other_values(FORWARD, 2, solved, False) == [3]
    assert search._other_values(FORWARD, 10, solved, False) == []
    assert search._other_values(FORWARD, 5, solved, True) == [4, 6, 10, 2, 0]  # not 7.5
    assert all(isinstance(v, int) for v in search._other_values(FORWARD, 10, solved, True))


def test_other_values_of_a_switch_and_of_a_name():
    solved = [Cause("argument", "steps", "", 3, 2)]
    assert search._other_values(FORWARD, True, solved, False) == [False]
    assert search._other_values(FORWARD, "SGD", solved, True) == []
    assert search._other_values(FORWARD, None, solved, True) == []


BUILT = []  # the epochs of each recipe that the factory makes


def two_groups(lr=0.5, epochs=20, hyp=None, decay=0.25, note="x"):
    """A factory of two rates, the bias's twice the other, with a table of numbers."""
    hyp = {"lrf": 0.5} if hyp is None else hyp
    if epochs < 1:
        raise ValueError("refused")
    BUILT.append(epochs)
    curve = schedules.cosine(epochs, lrf=hyp["lrf"])
    groups = {
        label: {
            "learning_rate": lr_scheduler.lambda_lr(scale * lr, curve),
            "weight_decay": decay,
            "momentum": 0.5,
        }
        for label, scale in (("weight", 1), ("bias", 2))
    }
    arguments = {"lr": lr, "epochs": epochs, "hyp": hyp, "decay": decay, "note": note}
    return Recipe(groups, origin=(two_groups, arguments))


def factory_run(**arguments):
    recipe = two_groups(**arguments)
    return Run(recipe.trace(20), recipe)


RATES = (("weight", "learning_rate"), ("bias", "learning_rate"))


@pytest.mark.parametrize(
    ("changed", "name", "sentence"),
    [
        ({"epochs": 21}, "epochs", "epochs 21 for 20"),
        ({"epochs": 10}, "epochs", "epochs 10 for 20"),
        ({"hyp": {"lrf": 0.25}}, "lrf", "lrf 0.25 for 0.5"),
        ({"lr": 0.75}, "lr", "lr 0.75 for 0.5"),
    ],
)
def test_an_argument_of_the_factory_explains_all_groups(changed, name, sentence):
    case = case_of(factory_run(**changed), factory_run())
    solved = [Cause("value", "factor", "", 1.5, 1.0)] if name == "lr" else []
    solved += [Cause("argument", "lrf", "", 0.25, 0.5)] if name == "lrf" else []
    causes = [*search._factory_changes(case, solved, True)]
    assert [(c.sentence, c.quantities) for c in causes] == [(sentence, (key,)) for key in RATES]
    assert {c.name for c in causes} == {name}
    # Neighbours are not tried if one cause explains all already.
    assert len([*search._factory_changes(case, solved, False)]) == (2 if name == "lrf" else 0)


def test_one_argument_of_the_factory_goes_before_one_for_each_group():
    (cause,) = search.explain(factory_run(epochs=21), factory_run())
    assert str(cause) == "epochs 21 for 20"
    assert set(cause.quantities) == {*RATES}


def test_neighbours_are_tried_where_no_argument_within_a_schedule_explains_all():
    mine, reference = factory_run(epochs=21), factory_run()
    BUILT.clear()
    search.explain(mine, reference)
    assert {*BUILT} == {20, 21}  # solved for in both schedules
    mine = factory_run(epochs=21, decay=0.5)
    BUILT.clear()
    search.explain(mine, reference)
    assert {*BUILT} >= {19, 21, 40}


def test_the_search_goes_on_after_a_change_of_some_rows():
    def rate(scale):
        factor = lambda i: scale / (i + 2)  # noqa: E731
        return recipe_run(schedules.override(factor, schedules.constant(1.0), at=0), 20)

    causes = [*search._single_changes(case_of(rate(0.25), rate(0.5)), RATE)]
    assert {str(cause) for cause in causes} == {"times 0.5, from iteration 1 on"}
    assert sentences(rate(0.25), rate(0.5)) == ["the function times 0.5"]


def test_a_run_without_a_factory_has_no_argument_of_one():
    bare = two_groups()
    bare = Recipe(bare.groups)
    for reference in (Run(bare.trace(20), bare), Run(bare.trace(20), None)):
        case = case_of(factory_run(epochs=21), reference)
        assert [*search._factory_changes(case, [], True)] == []


def test_groups_explain_a_run_if_they_give_all_of_it():
    case = case_of(factory_run(epochs=21), factory_run())
    change = assert_named("epochs", 21, 20)
    groups = two_groups(epochs=21).complete_groups()
    causes = search._fit_groups(case, change, groups)
    assert [cause.quantities for cause in causes] == [(key,) for key in RATES]
    assert {cause.sentence for cause in causes} == {change.sentence}
    # Not if one differing quantity has another value, nor if an equal one no longer is.
    wrong = {**groups, "bias": two_groups(epochs=22).complete_groups()["bias"]}
    assert search._fit_groups(case, change, wrong) == []
    wrong = {**groups, "weight": {**groups["weight"], "momentum": 0.75}}
    assert search._fit_groups(case, change, wrong) == []


def test_columns_of_no_group_do_not_stop_an_argument_of_the_factory():
    mine, reference = (
        s._replace(trace=Trace(s.trace.groups, {"ema": np.arange(20.0)}))
        for s in (factory_run(epochs=21), factory_run())
    )
    causes = search._factory_changes(case_of(mine, reference), [], True)
    assert [c.sentence for c in causes] == ["epochs 21 for 20"] * 2
