"""The two runs in the search of an update's causes: gradients, recipes, and their distance."""

import dataclasses
import math

import numpy as np
import pytest

pytest.importorskip("torch", reason="jaxsched.torch imports it")

from update_cases import case, sgd

from jaxsched import optimizers
from jaxsched.torch._update_runs import OPTIONS, entries, largest_entry, row_of

pytestmark = pytest.mark.torch

NAN = np.nan


# The gradients that the rule gets.


def gradients_of(c, leaf="w", **changes):
    return c.gradients(leaf, {**c.recipe(c.labels.get(leaf)), **changes})[:, 0].tolist()


def test_gradients_of_batches_are_summed_or_averaged():
    third = 1 / 3
    c = case({"w": [[[third], [2.0], [6.5]]]})
    single = float(np.float32(third))
    assert gradients_of(c) == [[third + 2 + 6.5]]
    assert gradients_of(c, accumulation="mean") == [[pytest.approx((third + 8.5) / 3, rel=1e-15)]]
    rounded = float(np.float32(single + 2))
    assert gradients_of(c, accumulation="float32 sum") == [[rounded + 6.5]]
    # The running average of optax.MultiSteps: a + (g - a) / 2, then / 3.
    average = float(np.float32(single + (2 - single) / 2))
    assert gradients_of(c, accumulation="float32 mean") == [[average + (6.5 - average) / 3]]
    assert rounded != third + 2
    assert gradients_of(c, gradients=np.full((1, 1, 1), 3.0)) == [[3 * (third + 2 + 6.5)]]
    assert gradients_of(c, maximize=True) == [[-(third + 2 + 6.5)]]
    recipe = c.recipe("0")
    del recipe["maximize"]  # Muon has none
    assert c.gradients("w", recipe)[0, 0].tolist() == [third + 2 + 6.5]


def test_gradients_of_some_entries():
    c = case({"w": [[[1.0, 2.0, 4.0]], [[8.0, 16.0, 32.0]]]}, clip_norm=21.0)
    recipe = c.recipe("0")
    assert c.gradients("w", recipe, [2, 0]).shape == (2, 1, 2)
    assert c.gradients("w", c.recipe("0"), [2, 0])[0, 0].tolist() == [4, 1]
    assert not {"label", "accumulation", "clip", "clip_norm", "gradients"} & {*recipe}


def clip_case():
    """Return a case with gradients of w (3, then 0), another group (0, 4) and a frozen leaf (12)."""
    batches = {
        "w": [[[9.0, 12.0], [-6.0, -12.0]]],  # norms 15 and more; their sum is (3, 0)
        "x": [[[0.0], [4.0]]],
        "y": [[[0.0], [12.0]]],
    }
    groups = {"0": sgd(), "1": sgd()}
    return case(batches, labels={"w": "0", "x": "1"}, rows=[groups], clip_norm=2.0)


TINY = 1e-6  # torch adds it to the norm
CLIPS = {
    "all": 3 * (2 / (5 + TINY)),
    "none": 3.0,
    "group": 3 * (2 / (3 + TINY)),
    "entry": 2.0,
    "frozen": 3 * (2 / (13 + TINY)),
    "batch": 9 * (2 / (15 + TINY)) - 6 * (2 / (math.sqrt(36 + 144 + 16) + TINY)),
    "optax": 3 * (2 / 5),
}


@pytest.mark.parametrize("clip", CLIPS)
def test_clips(clip):
    assert [*CLIPS] == [*OPTIONS["clip"]]
    c = clip_case()
    ((first, second),) = gradients_of(c, clip=clip)
    assert first == pytest.approx(CLIPS[clip], rel=1e-15)
    if clip == "batch":
        second -= 12 * (2 / (15 + TINY)) - 12 * (2 / (14 + TINY))
    assert second == pytest.approx(0, abs=1e-15)
    assert gradients_of(c, clip=clip, clip_norm=np.full((1, 1, 1), 100.0)) == [[3, 0]]


def test_a_clip_of_each_entry_has_two_sides():
    c = case({"w": [[3.0, -3.0, 1.0]]}, clip_norm=2.0)
    assert gradients_of(c, clip="entry") == [[2, -2, 1]]


def test_an_average_is_clipped_by_its_own_norm():
    ((first, _),) = gradients_of(clip_case(), accumulation="mean")
    assert first == pytest.approx(1.5 * (2 / (2.5 + TINY)), rel=1e-15)
    ((first, _),) = gradients_of(clip_case(), accumulation="float32 mean")
    assert first == pytest.approx(1.5 * (2 / (2.5 + TINY)), rel=1e-15)


# The recipe by update.


def test_a_recipe_has_each_updates_numbers_and_the_switches():
    rows = [{"0": sgd(learning_rate=x), "1": sgd(nesterov=True)} for x in (1.0, 2.0, 4.0)]
    c = case({"w": np.zeros((3, 1))}, rows=rows)
    assert c.recipe("0")["learning_rate"].tolist() == [[[1.0]], [[2.0]], [[4.0]]]
    assert c.recipe("0")["label"] == "0"
    assert c.recipe("1")["learning_rate"].tolist() == [[[0.5]]] * 3
    assert (c.recipe("0")["nesterov"], c.recipe("1")["nesterov"]) == (False, True)
    # Without a label nothing is trained; the rest is the first group's.
    assert c.recipe(None)["learning_rate"].tolist() == [[[0.0]]] * 3
    assert c.recipe(None)["label"] is None
    assert c.recipe(None)["nesterov"] is False


def rates(c, **clock):
    return c.recipe("0", **{k: np.array([v]) for k, v in clock.items()})["learning_rate"][..., 0].T


def test_the_clock_of_the_scheduler():
    """Update u is made at batch n (u + 1) - 1, after as many steps as there were whole epochs."""

    def clock_rates(updates, rows=4, accumulation=1, steps_per_epoch=1):
        numbers = [{"0": sgd(learning_rate=float(k))} for k in range(rows)]
        batches = {"w": np.zeros((updates, accumulation, 1))}
        return case(batches, rows=numbers, steps_per_epoch=steps_per_epoch)

    plain = clock_rates(6)
    assert plain.accumulation == 1
    np.testing.assert_array_equal(rates(plain), [[0, 1, 2, 3, NAN, NAN]])
    np.testing.assert_array_equal(
        rates(plain, shift=[1.0, -2.0]), [[1, 2, 3, NAN, NAN, NAN], [0, 0, 0, 1, 2, 3]]
    )
    np.testing.assert_array_equal(
        rates(plain, times=[0.5, 2.0]), [[0, 0, 1, 1, 2, 2], [0, 2, NAN, NAN, NAN, NAN]]
    )
    summed = clock_rates(3, accumulation=2)
    assert summed.accumulation == 2
    np.testing.assert_array_equal(rates(summed), [[1, 3, NAN]])
    np.testing.assert_array_equal(rates(summed, times=[0.5]), [[0, 1, 2]])
    np.testing.assert_array_equal(
        rates(clock_rates(7, accumulation=2, steps_per_epoch=3)), [[0, 1, 1, 2, 3, 3, NAN]]
    )
    np.testing.assert_array_equal(rates(clock_rates(3, rows=1)), [[0, 0, 0]])
    np.testing.assert_array_equal(rates(clock_rates(3, rows=2)), [[0, 1, NAN]])
    # 49 · (1 / 49) is below 1.
    many = clock_rates(50, rows=60, steps_per_epoch=1)
    assert rates(many, times=[1 / 49])[0, 48:].tolist() == [0, 1]


def test_numbers_are_columns_and_switches_are_not():
    row = {"learning_rate": 0, "ns_steps": 5, "adjust_lr_fn": None, "nesterov": True}
    c = case({"w": [[0.0]]}, rule=optimizers.muon, rows=[{"0": row}, {"0": row}])
    assert c.columns["0"]["learning_rate"].tolist() == [0.0, 0.0]
    assert c.columns["0"]["learning_rate"].dtype == np.float64
    assert {k: v for k, v in c.columns["0"].items() if k != "learning_rate"} == {
        "ns_steps": 5,
        "adjust_lr_fn": None,
        "nesterov": True,
    }
    assert c.names == ["learning_rate"]
    # Adafactor's eps1 may be None in a group.
    groups = {"0": {"learning_rate": 0.5, "eps1": 1e-3}, "1": {"learning_rate": 0.5, "eps1": None}}
    for rows in (groups, dict(reversed(groups.items()))):
        c = case({"w": [[0.0]]}, rule=optimizers.adafactor, rows=[rows])
        assert c.names == ["learning_rate"]


def test_the_value_of_an_argument():
    rows = [{"0": sgd(learning_rate=x), "1": sgd(momentum=0.75)} for x in (1.0, 2.0)]
    labels = {"w": "0", "x": "1"}
    leaves = {"w": [[0.0]], "x": [[0.0]], "frozen": [[0.0]]}
    c = case(leaves, rows=rows, labels=labels, clip_norm=3.0)
    assert c.value("w", "learning_rate") == "a schedule"
    assert c.value("x", "learning_rate") == 0.5
    assert c.value("x", "momentum") == 0.75
    assert c.value("x", "nesterov") is False
    assert c.value("frozen", "momentum") is None
    assert c.value("frozen", "clip_norm") == c.value("w", "clip_norm") == 3
    assert c.value("w", "shift") is None


def test_a_case_is_not_changed():
    with pytest.raises(dataclasses.FrozenInstanceError):
        case({"w": [[0.0]]}).bound = 1.0


# The distance of two runs.


def two_runs(mine, reference, start=0.0, **fields):
    reference = np.array(reference, float)
    return case(
        {"w": np.zeros((len(reference), reference.shape[1]))},
        start={"w": np.full(reference.shape[1], start)},
        mine={"w": mine},
        reference={"w": reference},
        **fields,
    )


def test_the_bound_is_relative_to_the_largest_entry_so_far():
    reference = [[1.0, -2.0], [0.5, 0.0], [-8.0, 4.0]]
    assert two_runs(reference, reference, bound=0.25).rounding["w"].tolist() == [0.5, 0.5, 2.0]
    started = two_runs(reference, reference, start=-4.0, bound=0.25)
    assert started.rounding["w"].tolist() == [1.0, 1.0, 2.0]


def test_runs_differ_where_one_update_is_beyond_the_bound():
    reference = [[1.0, -2.0], [0.5, 0.0], [-8.0, 4.0]]
    for row, off in ((0, 0.5), (1, 0.5), (2, 2.0)):
        mine = np.array(reference)
        mine[row, 1] -= off
        assert two_runs(mine, reference, bound=0.25).differing_leaves() == []
        assert two_runs(mine, reference, bound=0.25).differing_leaves(0.5) == ["w"]
        mine[row, 1] -= 0.125
        c = two_runs(mine, reference, bound=0.25)
        assert c.differs("w", mine) is True
        assert c.differing_leaves() == ["w"]
        assert c.differing_leaves(2) == []
        assert c.differs("w", np.array(reference)) is False
        mine[row, 1] = NAN
        assert two_runs(mine, reference, bound=0.25).differing_leaves(1000) == ["w"]


def test_a_cause_may_leave_the_bound_or_a_share_of_the_largest_difference_so_far():
    reference = np.ones((3, 2))
    mine = reference + np.array([[0.0, 0.5], [2.0, 0.0], [0.0, -1.0]])
    allowed = two_runs(mine, reference, bound=1e-10).tolerance["w"]
    assert allowed.tolist() == [1e-10, 2e-10, 2e-10]
    assert two_runs(mine, reference, bound=1e-3).tolerance["w"].tolist() == [1e-3] * 3
    # A path of zeros has a bound to divide by.
    zeros = two_runs(np.zeros((2, 1)), np.zeros((2, 1)))
    assert (zeros.tolerance["w"] > 0).all()
    assert zeros.known_share("w", np.zeros((2, 1))) == 1


def test_a_path_is_known_where_it_is_a_number_and_mines_there():
    mine = np.array([[1.0], [2.0], [4.0], [8.0]])
    c = two_runs(mine, np.ones((4, 1)), bound=0.25)  # as many may be off at each update
    assert c.known_share("w", mine) == 1
    assert c.known_share("w", mine + 0.25) == 1
    assert c.known_share("w", mine + np.array([[0.0], [0.0], [0.0], [0.5]])) == 0
    assert c.known_share("w", np.array([[NAN], [2.0], [4.0], [8.0]])) == 0.75
    assert c.known_share("w", np.array([[1.0], [NAN], [NAN], [NAN]])) == 0.25
    assert c.known_share("w", np.array([[1.0], [5.0], [NAN], [NAN]])) == 0


# The entries of an update that are compared.


def test_the_largest_entry_of_each_update():
    path = np.array([[1.0, -3.0], [0.5, 0.25], [NAN, 1.0]])
    np.testing.assert_array_equal(largest_entry(path), [3.0, 0.5, NAN])
    assert largest_entry(np.zeros((2, 0))).tolist() == [0, 0]


def test_some_of_many_entries_are_compared_from_the_first_to_the_last():
    many = np.arange(1000.0).reshape(10, 100)
    some = entries(many, shaped=False)
    assert (some[0], some[-1]) == (0, 999)
    assert len(some) == 64
    assert set(np.diff(some)) == {15, 16}
    assert entries(many, shaped=True).tolist() == many.ravel().tolist()
    few = np.arange(6.0).reshape(2, 3)
    assert entries(few, shaped=False).tolist() == few.ravel().tolist()
    assert entries(np.zeros((0, 3)), shaped=False).tolist() == []
    assert entries(np.float64(3.0), shaped=False).tolist() == [3]


def test_an_update_is_seen_by_its_batches_their_squares_and_both_parameters():
    pending = [{"w": np.array([[3.0, 4.0]])}, {"w": np.array([[-3.0, 8.0]])}]
    mine, reference = {"w": np.array([[1.0, 2.0]])}, {"w": np.array([[5.0, 6.0]])}
    seen = row_of(pending, mine, reference, shaped=False)
    assert {name: values["w"].tolist() for name, values in seen.items()} == {
        "batches": [[3.0, 4.0], [-3.0, 8.0]],
        "squares": [25.0, 73.0, 144.0],
        "mine": [1.0, 2.0],
        "reference": [5.0, 6.0],
    }
    large = {"w": np.full((100,), 2.0)}
    seen = row_of([large], large, large, shaped=False)
    assert seen["squares"]["w"].tolist() == [400, 400]  # of all entries
    assert seen["batches"]["w"].shape == (1, 64)
    assert seen["mine"]["w"].shape == seen["reference"]["w"].shape == (64,)
    assert row_of([large], large, large, shaped=True)["batches"]["w"].shape == (1, 100)
