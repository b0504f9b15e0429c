"""The committed conformance table compared with a new run of a part of it."""

import copy
import functools
import json
import math

import numpy as np
import pytest

pytest.importorskip("torch", reason="the reference is live torch")

from bounds import CLOSED_BOUND
from torchvision_import import import_models

from benchmarks import conformance, device_parity
from jaxsched import Trace, recipes

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]
if not conformance.RESULTS.exists():
    pytest.skip(reason="the source distribution has no raw figures", allow_module_level=True)
COMMITTED = json.loads(conformance.RESULTS.read_text())
FIRST = 8  # settings of each class that are run again


def test_the_table_is_written_from_the_raw_figures():
    assert conformance.TABLE.read_text() == conformance.markdown(COMMITTED)


def test_the_table_is_complete():
    assert list(COMMITTED["schedulers"]) == [
        *conformance.schedulers.CASES,
        conformance.NESTED,
        conformance.PLATEAU,
    ]
    assert list(COMMITTED["drift"]) == list(conformance.schedulers.LONG)
    assert list(COMMITTED["optimizers"]) == list(conformance.rules.RULES)
    assert list(COMMITTED["recipes"]) == list(conformance.recipes.RECIPES)
    assert conformance.find_failures(COMMITTED) == []


def test_a_missing_recipe_is_reported():
    for name, key in [(name, key) for name in COMMITTED["recipes"] for key in ("rates", "updates")]:
        results = copy.deepcopy(COMMITTED)
        del results["recipes"][name][key]
        assert len(conformance.find_failures(results)) == 1


def find_lists(results):
    """Yield the lists within the results, each of which may be cut; and the entries of drift."""
    for part, kinds in (("schedulers", ("replayed", "closed")), ("optimizers", ("ours",))):
        for name, rows in results[part].items():
            yield from ((name, rows, kind) for kind in kinds if rows[kind])
    for part in ("drift", "musgd"):
        yield from ((name, results[part], name) for name, row in results[part].items() if row)


def test_a_missing_row_is_reported():
    results = copy.deepcopy(COMMITTED)
    for name, rows, kind in list(find_lists(results)):
        whole = rows[kind]
        for cut in [None] if isinstance(whole, dict) else [[], whole[:1], whole[:-1]]:
            rows[kind] = cut
            failures = conformance.find_failures(results)
            assert len(failures) == 1, f"{name}, {kind}"
            assert name in failures[0]
        rows[kind] = whole


BREAKING = {
    # The location of a figure in the results, and a value that is too large.
    "replayed": (("schedulers", "StepLR", "replayed", 0, "gap"), 1e-16),
    "closed": (("schedulers", "StepLR", "closed", 3, "gap"), 1.1 * CLOSED_BOUND),
    "plateau": (("schedulers", conformance.PLATEAU, "closed", -1, "equal"), 1),
    "drift": (("drift", "LinearLR", "gap"), 1.1 * conformance.DRIFT_BOUND),
    "drift in float32": (("drift", "LinearLR", "ulp"), 2),
    "float64": (("optimizers", "adam", "ours", -1, "params"), 2e-14),
    "state": (("optimizers", "adam", "ours", -1, "state"), 2e-14),
    "float32": (("optimizers", "adam", "ours", 0, "worst"), 9.0),
    "median": (("optimizers", "adam", "ours", 0, "median"), 9.0),
    "recipe": (("recipes", "transformers", "rates", 3, "gap"), 2e-14),
    "muon, small": (("optimizers", "muon", "ours", 0, "params"), 0.1),
    "muon, large": (("optimizers", "muon", "ours", 1, "params"), 0.2),
    "muon, state": (("optimizers", "muon", "ours", 1, "state"), 2e-14),
    "muon, float32": (("optimizers", "muon", "ours", 1, "worst"), 2e6),
    "musgd": (("musgd", "8.4.190, float32", "parameters"), 1.1e-5),
    "musgd, bfloat16": (("musgd", "8.4.0, bfloat16", "share"), 0.16),
    "musgd, buffer": (("musgd", "8.4.0, bfloat16", "buffer"), 1e-6),
}


@pytest.mark.parametrize("value", ["large", "nan"])
@pytest.mark.parametrize("what", BREAKING)
def test_a_figure_above_its_bound_is_reported(what, value):
    results = copy.deepcopy(COMMITTED)
    (*path, last), large = BREAKING[what]
    row = functools.reduce(lambda node, key: node[key], path, results)
    row[last] = large if value == "large" else math.nan
    assert len(conformance.find_failures(results)) == 1


def assert_agree(fresh, committed, what):
    """Our rows must be equal; Optax's float32 may round differently on another processor."""
    for kind, rows in fresh.items():
        assert len(rows) <= len(committed[kind]), f"{what}, {kind}"
        for k, (row, old) in enumerate(zip(rows, committed[kind], strict=False)):
            where = f"{what}, {kind}, setting {k}: {row} against {old}"
            assert row["steps"] == old["steps"], where
            slack = 0.1 * row["steps"] + 2 if kind == "optax" else 0
            assert abs(row["equal"] - old["equal"]) <= slack, where
            if kind != "optax":
                assert row["gap"] <= max(10 * old["gap"], 1e-14), where


@pytest.mark.long
@pytest.mark.parametrize("name", conformance.schedulers.CASES)
def test_a_fresh_run_of_a_scheduler_agrees(name):
    fresh = conformance.scheduler(name, FIRST)
    assert_agree(fresh, COMMITTED["schedulers"][name], name)


def test_a_changed_figure_is_reported():
    rows = COMMITTED["schedulers"]["StepLR"]
    fresh = {"replayed": [{**rows["replayed"][0], "equal": rows["replayed"][0]["equal"] - 1}]}
    with pytest.raises(AssertionError, match="StepLR, replayed, setting 0"):
        assert_agree(fresh, rows, "StepLR")


def test_nan_has_an_unbounded_gap():
    torchs = np.ones(3)
    assert not conformance.tally(np.array([1.0, np.nan, 1.0]), torchs)["gap"] <= np.inf
    assert not conformance.tally(torchs, np.array([1.0, np.nan, 1.0]))["gap"] <= np.inf


def test_fresh_nestings_and_plateaus_agree():
    assert_agree(conformance.nestings(4), COMMITTED["schedulers"][conformance.NESTED], "nestings")
    fresh = conformance.plateau(FIRST)
    assert_agree(fresh, COMMITTED["schedulers"][conformance.PLATEAU], "plateau")


@pytest.mark.parametrize("name", conformance.recipes.RECIPES)
def test_a_fresh_run_of_a_recipe_agrees(name):
    import_models()
    pytest.importorskip(name, reason=f"{name} is of the extra peers")
    fresh = conformance.recipes.RECIPES[name](FIRST, conformance.tally)["rates"]
    assert_agree({"rates": fresh}, COMMITTED["recipes"][name], name)


@pytest.mark.long
@pytest.mark.parametrize("name", conformance.rules.RULES)
def test_a_fresh_run_of_a_rule_agrees(name):
    """Only the last setting, which has the most arguments."""
    fresh, committed = conformance.rule(name, -1)["ours"], COMMITTED["optimizers"][name]["ours"]
    assert len(fresh) == 1
    setting = conformance.rules.RULES[name].settings()[-1]
    bounds = conformance.rule_bounds(name, setting)
    assert all(fresh[0][figure] <= bound for figure, bound in bounds.items()), fresh
    if name == "muon":  # whose bfloat16 another processor may round differently
        return
    for quantity, value in fresh[0].items():
        # Another processor may fuse other products and sums.
        bound = {"equal": 0.2, "median": 1.0, "worst": 4.0}.get(quantity, 3e-15)
        far = abs(value - committed[-1][quantity])
        assert far <= bound, f"{name}: {fresh[0]} against {committed[-1]}"


def test_a_hyperparameter_that_differs_on_this_device_is_counted():
    at, reference = recipes.yolov5_resnet18().at, recipes.recorded("yolov5_resnet18")
    assert device_parity.recipe_differences(at, reference) == (0, 27_000)
    momentum = reference.groups["bias"]["momentum"].copy()
    momentum[1234] *= 1 + 2**-23
    wrong = Trace({**reference.groups, "bias": {**reference.groups["bias"], "momentum": momentum}})
    assert device_parity.recipe_differences(at, wrong) == (1, 27_000)


def test_a_scheduler_that_differs_on_this_device_is_counted(monkeypatch):
    different, total = device_parity.scheduler_differences("StepLR", 3)
    assert different == 0 < total
    run_closed = conformance.schedulers.run_closed
    late = lambda *arguments: [np.append(run[1:], 7.0) for run in run_closed(*arguments)]  # noqa: E731
    monkeypatch.setattr(conformance.schedulers, "run_closed", late)
    assert 0 < device_parity.scheduler_differences("StepLR", 3)[0] <= total


def test_a_rule_beyond_its_bound_on_this_device_is_counted():
    bounds = conformance.rule_bounds("sgd", conformance.rules.RULES["sgd"].settings()[0])
    rows = [dict.fromkeys(bounds, 0.0) for _ in range(3)]
    assert conformance.list_exceeded("sgd", rows) == []
    rows[1]["state"] = 2 * bounds["state"]
    rows[2]["worst"] = float("nan")
    assert conformance.list_exceeded("sgd", rows) == [1, 2]
