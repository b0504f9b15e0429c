"""The numbers of changes of torch's recipe: the rows used to solve for them; one, and two at once."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="jaxsched.torch imports it")

from update_cases import RANDOM, RATE, G, case, change_to, descent, numbers_of, sgd, slow_case, text

from jaxsched import optimizers
from jaxsched.torch import _update_causes as search
from jaxsched.torch._update_runs import OPTIONS

pytestmark = pytest.mark.torch

NAN = np.nan


def test_one_number_is_solved_for_in_each_change():
    assert numbers_of(search._numbers(slow_case(), "w")) == [
        [("learning_rate", 0.25)],
        [("gradients", 0.5)],
    ]
    rows = [{"0": sgd(learning_rate=x)} for x in (0.5, 0.25, 0.125, 1.0, 2.0)]
    late = -np.cumsum(G * [[0.5], [0.5], [0.25], [0.125]], 0)
    right = -np.cumsum(G * [[0.5], [0.25], [0.125], [1.0]], 0)
    c = case({"w": G}, mine={"w": late}, reference={"w": right}, rows=rows)
    assert numbers_of(search._numbers(c, "w")) == [[("shift", -1.0)]]


# The sample and the solver.


def test_a_sample_begins_where_runs_differ_with_the_entries_that_differ_most():
    reference = np.ones((4, 5))
    mine = reference.copy()
    mine[0, 1] += 0.25  # as much as is allowed
    mine[1] += [0.3125, 0.0, -0.4375, 0.375, 0.0]  # 1.25, 1.75 and 1.5 times that
    mine[2:, 1] += 8.0
    c = case({"w": np.ones((4, 5))}, mine={"w": mine}, reference={"w": reference}, bound=0.25)
    evaluate, target = search._sample(c, "w", [], [RATE])
    assert target.tolist() == (mine[1:, [2, 3, 0]] / 0.25).ravel().tolist()
    # All entries descend by the rate.
    values = evaluate(np.array([0.5, 0.25]))
    rows = np.repeat([2.0, 3.0, 4.0], 3)
    assert values.tolist() == [(-0.5 * rows / 0.25).tolist(), (-0.25 * rows / 0.25).tolist()]
    # A change without effect has the same rows for each number.
    nothing = change_to("nothing", edit=lambda recipe, x: {})
    evaluate, _ = search._sample(c, "w", [(RATE, 0.25)], [nothing])
    assert evaluate(np.array([1.0, 2.0, 3.0])).tolist() == [(-rows).tolist()] * 3
    evaluate, _ = search._sample(c, "w", [], [RATE, change_to("momentum")])
    both = evaluate(np.array([0.5]), np.array([0.5]))[0]
    slower = -descent(np.ones((4, 1)), 0.5, 0.5)[1:, 0]
    assert both.tolist() == np.repeat(-slower / 0.25, 3).tolist()


def test_a_sample_has_the_bound_of_each_update():
    reference = np.array([[1.0], [-4.0], [2.0], [16.0]])
    c = case({"w": np.ones((4, 1))}, mine={"w": reference + np.array([[0.5], [0], [0], [0]])},
             reference={"w": reference}, bound=0.25)  # fmt: skip
    evaluate, target = search._sample(c, "w", [], [RATE])
    assert target.tolist() == [1.5 / 0.25, -4.0, 2.0, 16 / 4]
    assert evaluate(np.array([1.0])).tolist() == [[-1 / 0.25, -2.0, -3.0, -4 / 4]]


def test_rows_are_equal_within_what_is_allowed():
    values = np.array([[2.0, 2.0], [3.0, 1.0], [3.5, 0.5], [NAN, 2.0]])
    assert search._is_equal(values, np.array([2.0, 2.0])).tolist() == [
        [True, True],
        [True, True],
        [False, False],
        [False, True],
    ]


@pytest.fixture
def solve_rows(monkeypatch):
    """Return a solver of a number in a function of it, without a case."""

    def solve(function, target, rule=optimizers.sgd, **change):
        sizes = []

        def evaluate(numbers):
            sizes.append(len(numbers))
            return function(numbers[:, None])

        monkeypatch.setattr(search, "_sample", lambda *arguments: (evaluate, np.array(target)))
        changes = change_to("b1", **{"grid": np.linspace(0, 1, 11), **change})
        steps = search._solve(case({"w": G}, rule=rule), "w", [(RATE, 0.0)], changes)
        return numbers_of(steps), sizes

    return solve


BIG = 1e6  # rows are equal within 1


def test_a_number_is_solved_for_beside_steps(solve_rows):
    ((first, second),), _ = solve_rows(
        lambda x: BIG * x ** np.arange(1, 5), BIG * 0.43 ** np.arange(1, 5)
    )
    assert (first, second) == (("learning_rate", 0.0), ("b1", 0.43))
    # One of several solutions.
    steps, _ = solve_rows(lambda x: BIG * np.where(x > 0.5, 1.0, 2.0) * np.ones(4), np.full(4, BIG))
    assert len(steps) == 1


def test_candidates_of_a_rule_of_whole_parameters_are_few(solve_rows):
    rows = np.arange(1, 5)
    for rule, size in ((optimizers.sgd, search.CANDIDATES), (optimizers.adafactor, search.FEW)):
        steps, sizes = solve_rows(lambda x: BIG * x * rows, BIG * 0.43 * rows, rule=rule)
        assert steps == [[("learning_rate", 0.0), ("b1", 0.43)]]
        assert {*sizes} == {size}


def test_a_number_of_the_grid_is_found_where_some_rows_rise_and_some_fall(solve_rows):
    for number in (0.0, 0.5, 1.0):
        signs = np.array([1.0, -1.0])
        steps, _ = solve_rows(lambda x, signs=signs: BIG * x * signs, BIG * number * signs)
        assert steps == [[("learning_rate", 0.0), ("b1", number)]]


def test_a_number_is_searched_only_between_neighbours_that_enclose_most_rows(solve_rows):
    def some(n):  # of 4 rows move
        return lambda x: BIG * np.where(np.arange(4) < n, x, 2.0)

    target = np.full(4, BIG * 0.43)
    steps, sizes = solve_rows(some(3), target)
    assert steps == [[("learning_rate", 0.0), ("b1", 0.43)]]
    assert len(sizes) > 1
    assert solve_rows(some(2), target) == ([], [search.CANDIDATES])
    # Functions on one side of all rows for any number, and NaN.
    for function in (
        lambda x: 0 * x - target,
        lambda x: 0 * x + 2 * target,
        lambda x: NAN * target * x,
    ):
        assert solve_rows(function, target) == ([], [search.CANDIDATES])


def test_a_clock_is_the_first_that_is_right_where_it_is_known(solve_rows):
    right = BIG * np.arange(1.0, 5.0)
    rows = {
        1.0: [BIG, 2 * BIG, 3 * BIG, 4 * BIG + 2],
        2.0: [NAN] * 4,
        3.0: [BIG, 2 * BIG, NAN, NAN],  # at half of the updates
        4.0: [BIG, 2 * BIG, 0.0, NAN],
        5.0: [BIG, 2 * BIG, 3 * BIG + 1, NAN],
        6.0: right,
    }

    def function(x):
        return np.array([rows[k] for k in x[:, 0]])

    change = {"kind": "clock", "grid": [*rows]}
    assert solve_rows(function, right, **change)[0] == [[("learning_rate", 0.0), ("b1", 5.0)]]
    change = {"kind": "clock", "grid": [1.0, 2.0, 3.0, 4.0]}
    assert solve_rows(function, right, **change)[0] == []


# Two changes.

CHANGES = {
    name: change_to(name, grid=np.linspace(0, 1, 101)) for name in sgd() if name != "nesterov"
}


def fit(torchs, mine, a, b, steps=()):
    """Return the two numbers found for a path of mine against torch's with other numbers."""
    c = case(
        {"w": RANDOM},
        mine={"w": mine if isinstance(mine, np.ndarray) else descent(RANDOM, *mine)},
        reference={"w": descent(RANDOM, *torchs)},
        rows=[{"0": sgd(**dict(zip(("learning_rate", "momentum", "weight_decay"), torchs, strict=True)))}],
    )  # fmt: skip
    return numbers_of(search._fit(c, "w", list(steps), CHANGES[a], CHANGES[b]))


def test_two_numbers_are_fitted_and_shortened():
    right, mine = (0.1, 0.9, 0.0), (0.07, 0.65, 0.0)
    both = [("learning_rate", 0.07), ("momentum", 0.65)]
    assert fit(right, mine, "learning_rate", "momentum") == [both]
    assert fit(right, mine, "momentum", "learning_rate") == [both[::-1]]
    assert fit((0.1, 0.0, 0.0), (0.1, 0.0123, 0.34), "momentum", "weight_decay") == [
        [("momentum", 0.0123), ("weight_decay", 0.34)]
    ]
    # Beside a step, and with one number unchanged.
    steps = [(CHANGES["weight_decay"], 0.25)]
    assert fit(right, (0.07, 0.65, 0.25), "learning_rate", "momentum", steps) == [
        [("weight_decay", 0.25), *both]
    ]
    assert fit(right, (0.1, 0.5, 0.0), "weight_decay", "momentum")[0][1] == ("momentum", 0.5)


@pytest.mark.parametrize("momentum", [0.99995, 0.9999512, 1.00003])
def test_the_first_number_is_rounded_no_more_than_the_path_allows(momentum):
    """A shorter number near it, 1.0, does not give the path."""
    both = [("momentum", momentum), ("learning_rate", 0.07)]
    mine = (0.07, momentum, 0.0)
    assert fit((0.1, 0.9, 0.0), mine, "momentum", "learning_rate") == [both]


def solve_as(number):
    """Return a stand-in of ``_solve`` that returns a number for the last change."""
    return lambda case, leaf, steps, change: [[*steps, (change, number)]]


def test_no_numbers_are_returned_if_no_two_give_the_path(monkeypatch):
    monkeypatch.setattr(search, "_solve", None)
    off = descent(RANDOM, 0.07, 0.65) + np.where(np.arange(20)[:, None] == 10, 1e-3, 0)
    assert fit((0.1, 0.9, 0.0), off, "learning_rate", "momentum") == []


def test_a_fit_goes_on_beside_numbers_that_give_none(monkeypatch):
    """Newton's first step is to a logarithm of a negative number."""
    rows = np.arange(1.0, 5.0)

    def evaluate(a, b):
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.atleast_2d(BIG * (np.log(a) * rows + b * rows**2))

    target = evaluate(0.05, 0.3)[0]
    monkeypatch.setattr(search, "_sample", lambda *arguments: (evaluate, target))
    monkeypatch.setattr(search, "_solve", solve_as(0.3))
    c = case({"w": G}, rows=[{"0": sgd(learning_rate=2.0, momentum=0.5)}])
    steps = search._fit(c, "w", [], CHANGES["learning_rate"], CHANGES["momentum"])
    assert numbers_of(steps) == [[("learning_rate", 0.05), ("momentum", 0.3)]]


def test_a_fit_may_leave_a_number_at_0(monkeypatch):
    def evaluate(a, b):
        return np.atleast_2d(BIG * b * np.arange(1.0, 5.0))

    monkeypatch.setattr(search, "_sample", lambda *arguments: (evaluate, evaluate(0.0, 0.3)[0]))
    monkeypatch.setattr(search, "_solve", solve_as(0.3))
    c = case({"w": G}, rows=[{"0": sgd(weight_decay=0.0, momentum=0.5)}])
    steps = search._fit(c, "w", [], CHANGES["weight_decay"], CHANGES["momentum"])
    assert numbers_of(steps) == [[("weight_decay", 0.0), ("momentum", 0.3)]]


def test_numbers_of_very_different_sizes_are_fitted():
    """Adagrad's rate and epsilon, with gradients nearly as small as epsilon."""
    g = 1e-6 * RANDOM

    def adagrad(rate, eps):
        return -np.cumsum(rate * g / (np.sqrt(np.cumsum(g * g, 0)) + eps), 0)

    row = {"learning_rate": 0.1, "lr_decay": 0.0, "weight_decay": 0.0, "eps": 1e-8}
    row |= {"initial_accumulator_value": 0.0, "maximize": False}
    c = case({"w": g}, mine={"w": adagrad(0.07, 3e-7)}, reference={"w": adagrad(0.1, 1e-8)},
             rule=optimizers.adagrad, rows=[{"0": row}])  # fmt: skip
    rate, eps = (x for x in search._arguments(c) if x.name in ("learning_rate", "eps"))
    both = [("learning_rate", 0.07), ("eps", 3e-7)]
    assert numbers_of(search._fit(c, "w", [], rate, eps)) == [both]
    assert numbers_of(search._fit(c, "w", [], eps, rate)) == [both[::-1]]


@pytest.fixture
def list_pairs(monkeypatch):
    """Return the tries of ``_pairs``: a number beside steps, and two numbers beside steps."""

    def pairs(c, leaf="w"):
        singles, fits = [], []
        monkeypatch.setattr(
            search,
            "_solve",
            lambda case, leaf, steps, x: singles.append((*text(steps), x.name)) or (),
        )
        monkeypatch.setattr(
            search,
            "_fit",
            lambda case, leaf, steps, a, b: (
                fits.append(([c.name for c, _ in steps], a.name, b.name)) or ()
            ),
        )
        assert [*search._pairs(c, leaf)] == []
        return singles, fits

    return pairs


def test_a_number_is_tried_beside_each_change_of_another_effect(list_pairs):
    c = case({"w": G}, rows=[{"0": sgd(momentum=0.5)}])
    singles, fits = list_pairs(c)
    zeros, average = OPTIONS["zeros"][True], OPTIONS["average"][True]
    names = ["learning_rate", "momentum", "dampening", "weight_decay", "clip_norm"]
    # The others have the path of torch, or of one of these; a rate of 0 is a clip of 0.
    effects = [
        [("nesterov True for False", 0.0)],
        [("maximize True for False", 0.0)],
        [(average, 0.0)],
        [(zeros, 0.0), (average, 0.0)],
        [("learning_rate {x} for {y}", 0.0)],
        [("momentum {x} for {y}", 0.0)],
    ]
    expected = {
        (*steps, name) for steps in effects for name in names if f"{name} {{x}}" not in steps[0][0]
    }
    assert len(singles) == len(expected) == 28
    assert {*singles} == expected
    # Two numbers, of arguments that are numbers.
    assert fits == [([], a, b) for k, a in enumerate(names[:4]) for b in names[k + 1 : 4]]


def test_two_numbers_are_tried_beside_the_places_of_epsilon(list_pairs):
    row = {"learning_rate": 0.5, "alpha": 0.75, "eps": 0.25, "momentum": 0.5, "centered": False}
    _, fits = list_pairs(case({"w": G}, rule=optimizers.rmsprop, rows=[{"0": row}]))
    by_names = {}
    for steps, a, b in fits:
        by_names.setdefault((a, b), []).append(steps)
    assert by_names["learning_rate", "alpha"] == by_names["alpha", "momentum"] == [[]]
    places = by_names["learning_rate", "eps"]
    assert places[0] == []
    assert {*map(tuple, places[1:])} <= {("epsilon",), ("inside", "epsilon")}
    assert ["epsilon"] in places
    assert by_names["eps", "momentum"] == places
    scheduled = [{"0": {**row, "alpha": x}} for x in (0.5, 0.75, 0.5, 0.75)]
    _, fits = list_pairs(case({"w": G}, rule=optimizers.rmsprop, rows=scheduled))
    assert {name for _, *two in fits for name in two} == {"learning_rate", "eps", "momentum"}


def test_pairs_are_not_tried_of_rules_that_jax_runs(list_pairs):
    assert list_pairs(case({"w": G}, rule=optimizers.radam)) == ([], [])
