"""Changes of torch's recipe, each by itself: its path, its sentence, the numbers tried first."""

import ml_dtypes
import numpy as np
import pytest

pytest.importorskip("torch", reason="jaxsched.torch imports it")

from update_cases import RATE, G, case, change_to, descent, sgd, slow_case, text

from jaxsched import optimizers
from jaxsched.torch import _update_causes as search
from jaxsched.torch._update_causes import Change
from jaxsched.torch._update_runs import OPTIONS

pytestmark = pytest.mark.torch

NAN = np.nan


# Paths and sentences.


def test_a_path_has_the_changes_for_all_candidates():
    path = search._path(slow_case(), [(RATE, np.array([0.25, 1.0]))], "w")
    np.testing.assert_array_equal(path[:, 0], descent(G, 0.25))
    np.testing.assert_array_equal(path[:, 1], descent(G, 1.0))
    np.testing.assert_array_equal(search._path(slow_case(), (), "w")[:, 0], descent(G))
    one = search._path(slow_case(), [(RATE, 0.25)], "w", [1])
    np.testing.assert_array_equal(one[:, 0], descent(G, 0.25)[:, 1:])
    both = search._path(slow_case(), [(RATE, 0.25), (change_to("momentum"), 0.5)], "w")
    np.testing.assert_array_equal(both[:, 0], descent(G, 0.25, 0.5))


def test_a_frozen_leaf_moves_only_under_a_change_that_trains_it():
    trained = change_to(
        "trained", edit=lambda recipe, x: {"learning_rate": np.full((4, 1, 1), 0.5)}
    )
    for change, moves in ((trained, True), (RATE, False)):
        path = search._path(slow_case(), [(change, 1.0)], "frozen")[:, 0]
        np.testing.assert_array_equal(path, descent(G) if moves else 0 * G)
    np.testing.assert_array_equal(
        search._path(slow_case(), [(trained, 1.0)], "w")[:, 0], descent(G)
    )
    wrong = trained._replace(edit=lambda recipe, x: {"learning_rate": np.full((4, 1, 1), 9.0)})
    np.testing.assert_array_equal(search._path(slow_case(), [(wrong, 1.0)], "w")[:, 0], descent(G))


def test_entries_are_chosen_after_the_update_of_a_whole_parameter(x64):
    row = {"learning_rate": 0.5, "beta2_decay": -0.8, "eps1": None, "eps2": 1e-3, "d": 1.0}
    row |= {"weight_decay": 0.0, "maximize": False}
    fields = {"rule": optimizers.adafactor, "rows": [{"0": row}], "start": {"w": np.zeros((1, 2))}}
    c = case({"w": G}, **fields)
    whole = search._path(c, (), "w")
    assert whole.shape == (4, 1, 2)
    np.testing.assert_array_equal(search._path(c, (), "w", [1]), whole[..., 1:])


def test_a_sentence_has_both_numbers_and_joins_the_changes():
    rule = Change("rule", "inside", "S", lambda recipe, x: {})
    momentum = change_to("momentum")
    assert search._sentence(slow_case(), [(momentum, 0.9)], "w") == "momentum 0.9 for 0.0"
    steps = [(rule, 0.0), (rule, 0.0), (momentum, 0.9), (RATE, 2.0)]
    assert search._sentence(slow_case(), steps, "w") == (
        "S and S, and momentum 0.9 for 0.0, and learning_rate 2.0 for 0.5"
    )
    late = Change("clock", "shift", "schedule {x}", lambda recipe, x: {}, words=lambda x: f"by {x}")
    assert search._sentence(slow_case(), [(late, 3)], "w") == "schedule by 3"


def test_edits():
    assert search._put({"a": 1})({"a": 0, "b": 2}, 3) == {"a": 1}
    assert search._map(["a", "c"], np.multiply)({"a": 2, "b": 3, "c": 5}, 10) == {"a": 20, "c": 50}


# Changes without a number.

ALONE = [
    sentence for choices in OPTIONS.values() for sentence in choices.values() if sentence
]  # all except decay, whose choices all have one


def test_options_are_switches_and_other_choices_and_two_of_them():
    c = slow_case(rows=[{"0": sgd(nesterov=True)}])
    steps = search._options(c)
    single = [text(s)[0][0] for s in steps if len(s) == 1]
    assert single == ["nesterov False for True", "maximize True for False"] + [
        sentence for sentence in ALONE if sentence != "coupled for decoupled weight decay"
    ]
    assert {x for s in steps for _, x in s} == {0.0}
    two = [tuple(change.name for change, _ in s) for s in steps if len(s) == 2]
    assert len(single) + len(two) == len(steps)
    # The choices of nine options besides torch's: 1, 1, 1, 3, 4, 2, 2, 3 and 6 in their order.
    sizes = [1, 1, 1, 3, 4, 2, 2, 3, 6]
    assert len(two) == (sum(sizes) ** 2 - sum(n * n for n in sizes)) // 2
    assert two[0] == ("zeros", "average")
    assert all(a != b and {a, b} <= {*OPTIONS} for a, b in two)
    change = steps[0][0][0]
    assert (change.kind, change.name) == ("argument", "nesterov")
    assert change.edit({}, 0.0) == {"nesterov": False}
    change = steps[2][0][0]
    assert (change.kind, change.name) == ("rule", "zeros")
    assert change.edit({}, 0.0) == {"zeros": True}


def test_the_choice_that_torch_has_is_no_option():
    row = {"learning_rate": 0.5, "weight_decay": 0.0}
    c = case({"w": G}, rule=optimizers.adamw, rows=[{"0": row}])
    single = [text(s)[0][0] for s in search._options(c) if len(s) == 1]
    assert single == [s for s in ALONE if s != "decoupled for coupled weight decay"]


def test_choices_are_options_arguments_at_0_groups_exchanges_and_dtypes():
    groups = {"0": sgd(), "1": sgd(momentum=0.9)}
    c = case({"w": G, "x": G}, labels={"w": "0", "x": "1"}, rows=[groups], clip_norm=1.0)
    steps = [*search._choices(c, "w")]
    options, of_groups = search._options(c), [*search._groups(c)]
    assert [text(s) for s in steps[: len(options)]] == [text(s) for s in options]
    rest = steps[len(options) :]
    names = ["learning_rate", "momentum", "dampening", "weight_decay"]
    dtypes = [f"{d} {n}" for d in ("float32", "bfloat16") for n in ("hyperparameters", *names)]
    assert [change.sentence for ((change, _),) in rest] == [
        *(f"{name} {{x}} for {{y}}" for name in names),
        *(change.sentence for change, _ in of_groups),
        "learning_rate and momentum exchanged",  # the others are 0 in both groups
        *dtypes,
    ]
    recipe = {name: np.array([k + 1 / 3]) for k, name in enumerate(names)}
    by_sentence = {change.sentence: change for ((change, _),) in rest}
    exchanged = by_sentence["learning_rate and momentum exchanged"]
    assert exchanged.edit(recipe, 0.0) == {"learning_rate": 4 / 3, "momentum": 1 / 3}
    for dtype in (np.float32, ml_dtypes.bfloat16):
        changed = by_sentence[f"{dtype.__name__} momentum"].edit(recipe, 0.0)
        assert changed == {"momentum": float(dtype(4 / 3))}
        assert changed["momentum"].dtype == np.float64
        whole = by_sentence[f"{dtype.__name__} hyperparameters"].edit(recipe, 0.0)
        assert whole == {name: float(dtype(v[0])) for name, v in recipe.items()}


def test_changes_of_groups():
    groups = {"0": sgd(), "1": sgd(learning_rate=0.25), "2": sgd()}
    labels = {"w": "0", "x": "1", "elsewhere": "2"}
    c = case({"w": G, "x": G, "frozen": G}, labels=labels, rows=[groups])
    steps = [*search._groups(c)]
    assert [(change.kind, change.name, change.sentence, x) for change, x in steps] == [
        ("groups", "group", "frozen where torch trains it", 0),
        ("groups", "trained", "what torch's optimizer does not train is trained, as group 0", 0),
        ("groups", "group", "learning_rate taken from group 0", 0.5),
        ("argument", "learning_rate", "learning_rate {x} for {y}", 0.5),
        ("groups", "group", "every argument taken from group 0", "0"),
        ("groups", "trained", "what torch's optimizer does not train is trained, as group 1", 0),
        ("groups", "group", "learning_rate taken from group 1", 0.25),
        ("argument", "learning_rate", "learning_rate {x} for {y}", 0.25),
        ("groups", "group", "every argument taken from group 1", "1"),
        ("groups", "exchanged", "groups 0 and 1 exchanged", 0),
    ]
    changes = {change.sentence: change for change, _ in steps}

    def rate_of(sentence, label):
        edited = changes[sentence].edit({"label": label}, 0.0)
        return edited["learning_rate"].ravel().tolist() if edited else edited

    assert (
        rate_of("what torch's optimizer does not train is trained, as group 1", None) == [0.25] * 4
    )
    assert rate_of("frozen where torch trains it", "1") == [0] * 4
    assert rate_of("learning_rate taken from group 0", "1") == [0.5] * 4
    assert rate_of("every argument taken from group 1", "0") == [0.25] * 4
    assert rate_of("groups 0 and 1 exchanged", "0") == [0.25] * 4
    assert rate_of("groups 0 and 1 exchanged", "1") == [0.5] * 4
    assert rate_of("groups 0 and 1 exchanged", "2") == {}
    assert [*changes["learning_rate taken from group 0"].edit({}, 0.0)] == ["learning_rate"]


# Changes with a number.


def is_about(grid, value):
    """Return true if a grid has numbers within a millionth of a value on both sides."""
    return all(np.isclose(grid, value * k, rtol=1e-12, atol=0).any() for k in (1 - 1e-6, 1 + 1e-6))


def test_arguments_are_changed_to_a_number_everywhere():
    rows = [{"0": sgd(), "1": sgd(learning_rate=x)} for x in (-0.03, 0.02)]
    c = case({"w": G[:2]}, labels={"w": "0"}, rows=rows, clip_norm=7.0)
    changes = {change.name: change for change in search._arguments(c)}
    about = {"learning_rate": 0.5, "momentum": 1, "dampening": 1, "weight_decay": 1, "clip_norm": 7}
    assert [*changes] == [*about]
    for name, change in changes.items():
        assert (change.kind, change.sentence) == ("argument", f"{name} {{x}} for {{y}}")
        assert is_about(change.grid, about[name])
    x = np.reshape([3.0, 5.0], (1, 2, 1))
    edited = changes["momentum"].edit({"momentum": np.zeros((4, 1, 1)), "a": 1}, x)
    assert {name: v.tolist() for name, v in edited.items()} == {"momentum": [[[3.0], [5.0]]] * 4}


def test_factors_are_of_what_varies_and_of_gradients():
    rows = [{"0": sgd(weight_decay=x), "1": sgd(learning_rate=x)} for x in (0.0, 0.1)]
    changes = [*search._factors(case({"w": G[:2]}, rows=rows))]
    assert [(c.kind, c.name, c.sentence) for c in changes] == [
        ("argument", "learning_rate", "learning_rate times {x}"),
        ("value", "gradients", "gradients times {x}"),
    ]
    edited = changes[0].edit({"learning_rate": np.array([2.0, 3.0]), "a": 1}, 10.0)
    assert {name: v.tolist() for name, v in edited.items()} == {"learning_rate": [20, 30]}
    for change in changes:
        assert is_about(change.grid, 1.0)


def clocks(steps_per_epoch=5, accumulation=2, rows=4):
    numbers = [{"0": sgd(learning_rate=float(k))} for k in range(rows)]
    batches = {"w": np.zeros((3, accumulation, 1))}
    c = case(batches, rows=numbers, steps_per_epoch=steps_per_epoch)
    return {change.name: change for change in search._clocks(c)}


SHIFTS = {
    # (steps_per_epoch, accumulation): {batches: words}
    (5, 2): {1: "1 iteration early", -3: "3 iterations late", 4: "2 updates early"}
    | {-2: "1 update late", 5: "1 epoch early", -15: "3 epochs late", 10: "2 epochs early"},
    (1, 1): {1: "1 update early", -3: "3 updates late"},
    (2, 1): {1: "1 update early", 4: "2 epochs early"},
    (1, 3): {3: "1 update early", 2: "2 iterations early"},
}


@pytest.mark.parametrize("every", SHIFTS)
def test_a_shift_is_written_in_the_largest_unit(every):
    shift = clocks(*every)["shift"]
    assert (shift.kind, shift.sentence) == ("clock", "schedule {x}")
    assert {k: shift.words(k) for k in SHIFTS[every]} == SHIFTS[every]


STRETCHES = {
    (5, 2): {0.5: "once in each update, not at each batch", 5.0: "per iteration for per epoch"}
    | {2.5: "2.5 times for once", 2.0: "2 times for once", 0.25: "once in 4 times"},
    (4, 1): {4.0: "per iteration for per epoch", 0.5: "once in 2 times"},
}


@pytest.mark.parametrize("every", STRETCHES)
def test_a_stretch_is_written_by_how_often_the_scheduler_steps(every):
    times = clocks(*every)["times"]
    assert (times.kind, times.sentence) == ("clock", "schedule {x}")
    assert {k: times.words(k) for k in STRETCHES[every]} == {
        k: f"stepped {words}" for k, words in STRETCHES[every].items()
    }


def test_the_numbers_of_clocks_are_tried_from_the_usual_ones_on():
    most = search.MAX_SHIFT
    changes = clocks()
    whole = np.arange(1, most + 1)
    assert changes["shift"].grid.tolist() == [*whole, *-whole]
    assert changes["times"].grid.tolist() == [0.5, 2.5, *whole[1:], *(1 / whole[1:])]
    assert [*clocks(rows=2)] == ["shift", "times"]
    assert clocks(rows=1) == {}


def test_a_clock_gives_the_rows_of_other_batches():
    recipe = {"label": "0"}
    for name, x, rates in (("shift", 1.0, [1, 2, 3]), ("times", 0.5, [0, 0, 1])):
        change = clocks(1, 1)[name]
        edited = change.edit(recipe, np.full((1, 1, 1), x))
        assert edited["learning_rate"].ravel().tolist() == rates
        assert edited["label"] == "0"
