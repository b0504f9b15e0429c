"""The causes of an update, from changes that reproduce mine."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="jaxsched.torch imports it")

from update_cases import RANDOM, RATE, G, case, change_to, descent, sgd, slow_case

from jaxsched.torch import _update_causes as search

pytestmark = pytest.mark.torch

NAN = np.nan


# Causes.


def test_a_cause_names_the_last_change_and_all_leaves_that_it_explains():
    (cause,) = search._causes(slow_case(), [(RATE, 0.25)], "w", ["w"])
    assert (cause.kind, cause.name, cause.sentence) == (
        "argument",
        "learning_rate",
        "learning_rate 0.25 for 0.5",
    )
    assert (cause.mine, cause.reference) == (0.25, 0.5)
    assert cause.quantities == (("w", "parameter"),)
    assert (cause.numbers, cause.known_share) == (1, 1)
    # x does not differ, and would move.
    ((key, path),) = cause.curves.items()
    assert key == ("x", "parameter")
    np.testing.assert_array_equal(path, descent(2 * G, 0.25))
    both = slow_case(mine={"x": descent(2 * G, 0.25)})
    (cause,) = search._causes(both, [(RATE, 0.25)], "x", ["w", "x"])
    assert cause.quantities == (("w", "parameter"), ("x", "parameter"))
    assert not cause.curves
    assert [*search._causes(slow_case(), [(RATE, 0.125)], "w", ["w"])] == []


def test_a_leaf_that_the_sentence_is_not_of_would_not_move():
    groups = {"0": sgd(), "1": sgd(learning_rate=0.125)}
    leaves, paths = {"w": G, "x": G}, {"w": descent(G), "x": descent(G, 0.125)}
    mine = {**paths, "w": descent(G, 0.25)}
    labels = {"w": "0", "x": "1"}
    c = case(leaves, mine=mine, reference=paths, labels=labels, rows=[groups])
    (cause,) = search._causes(c, [(RATE, 0.25)], "w", ["w"])
    assert not cause.curves


def test_free_numbers_of_a_cause():
    nothing = (change_to("nothing", edit=lambda recipe, x: {}), 0.0)
    half = {"learning_rate": np.full((4, 1, 1), 0.25)}
    for steps, numbers in (
        ([(RATE, 0.25)], 1),
        ([nothing, (RATE, 0.25)], 2),
        ([(RATE, 0.25), (change_to("momentum"), 0.0)], 1),
        ([(change_to("learning_rate", edit=lambda recipe, x: half), 0.0)], 0),
    ):
        (cause,) = search._causes(slow_case(), steps, "w", ["w"])
        assert cause.numbers == numbers


def test_a_cause_is_known_at_more_than_half_of_the_updates():
    mine = descent(G, 0.25)
    for n in range(5):
        path = np.where(np.arange(4)[:, None] < n, NAN, mine)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(search, "_path", lambda *arguments, path=path: path[:, None])
            causes = [*search._causes(slow_case(), [(RATE, 0.25)], "w", ["w"])]
        assert [cause.known_share for cause in causes] == ([1 - n / 4] if n < 2 else [])
    # One of two leaves is known at half, whichever is explained.
    both = slow_case(mine={"x": descent(2 * G, 0.25)})
    paths = {"w": mine, "x": np.where(np.arange(4)[:, None] < 2, NAN, 2 * mine)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(search, "_path", lambda case, steps, leaf: paths[leaf][:, None])
        (cause,) = search._causes(both, [(RATE, 0.25)], "w", ["w", "x"])
        assert [*search._causes(both, [(RATE, 0.25)], "x", ["w", "x"])] == []
    assert cause.quantities == (("w", "parameter"),)


def test_a_cause_of_some_leaves_explains_those_that_differ_clearly():
    """If one leaf is not explained, the others must be off by 20 times the bound."""
    start = {"w": [1.0, 1.0], "x": [1.0, 1.0], "z": [1.0, 1.0]}
    reference = {k: np.ones((4, 2)) for k in start}
    bound = 2**-10
    near = np.ones((4, 2)) + bound * 19
    mine = {"w": np.ones((4, 2)) + bound * 21, "x": near, "z": np.ones((4, 2)) + bound * 50}
    c = case({k: 0 * G for k in start}, start=start, mine=mine, reference=reference, bound=bound)
    keys = [(k, "parameter") for k in start]

    def causes(explained, leaf="w"):
        def path(case, steps, leaf):
            return (mine[leaf] if leaf in explained else reference[leaf])[:, None]

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(search, "_path", path)
            return [cause.quantities for cause in search._causes(c, [(RATE, 1.0)], leaf, [*mine])]

    assert causes("wxz") == [tuple(keys)]
    assert causes("wx") == [(keys[0],)]
    assert causes("wz") == [(keys[0], keys[2])]
    assert causes("x", "x") == []
    assert causes("z") == []  # w itself is not explained


# The whole search.


def explain(c):
    return [str(cause) for cause in search.explain(c)]


def test_one_cause_of_all_leaves_is_by_itself():
    both = slow_case(mine={"x": descent(2 * G, -0.5), "w": descent(G, -0.5)})
    assert explain(both) == ["maximize True for False"]
    none = slow_case(mine={"w": descent(G)})
    assert explain(none) == []


def test_one_cause_names_its_leaves_where_others_would_move():
    assert explain(slow_case(mine={"w": descent(G, -0.5)})) == [
        "maximize True for False, in parameter of w"
    ]


def test_leaves_may_have_causes_of_their_own():
    c = slow_case(mine={"w": descent(G, -0.5), "x": descent(2 * G, 0.25)})
    assert explain(c) == [
        "maximize True for False, in parameter of w",
        "learning_rate 0.25 for 0.5, in parameter of x, or gradients times 0.5",
    ]


def test_a_choice_is_looked_for_before_a_number_and_one_change_before_two(monkeypatch):
    monkeypatch.setattr(search, "_pairs", None)
    assert explain(slow_case()) == [
        "learning_rate 0.25 for 0.5, in parameter of w, or gradients times 0.5"
    ]
    monkeypatch.setattr(search, "_numbers", None)
    assert explain(slow_case(mine={"w": 0 * G}))[0].startswith("learning_rate 0.0 for 0.5")


def test_two_changes_explain_what_one_does_not():
    reference, mine = {"w": descent(RANDOM, 0.5, 0.5)}, {"w": descent(RANDOM, 0.3, 0.2)}
    c = case({"w": RANDOM}, mine=mine, reference=reference, rows=[{"0": sgd(momentum=0.5)}])
    assert explain(c) == ["learning_rate 0.3 for 0.5, and momentum 0.2 for 0.5"]


def test_one_leaf_without_a_cause_leaves_none():
    wild = descent(2 * G) * [[1.0], [1.25], [0.75], [1.5]]
    assert explain(slow_case(mine={"w": descent(G, -0.5), "x": wild})) == []


def test_there_is_no_cause_where_the_recipe_does_not_reproduce_torch():
    c = slow_case(mine={"w": descent(G, -0.5), "x": descent(2 * G, -0.5)})
    off = c.reference["x"].copy()
    off[2, 1] += 1e-9
    c.reference["x"][:] = off
    assert explain(c) == ["maximize True for False"]  # relative to the difference, 1e-10
    c = slow_case(mine={"w": descent(G, -0.5), "x": descent(2 * G, -0.5)})
    c.reference["x"][2, 1] += 1e-6
    assert explain(c) == []
