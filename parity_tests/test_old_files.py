"""Files that version 0.1.0 wrote still load, with the header in its present fields."""

import importlib.resources
import json

import numpy as np
import pytest

from jaxsched import Recipe, Trace, compare, optimizers, recipes
from jaxsched._trace import UNSTATED

SWITCHES = {label: {"nesterov": True} for label in ("weight", "bias", "norm")}


def test_the_articles_run_of_format_1():
    path = importlib.resources.files("jaxsched.recipes") / "traces" / "yolov5_resnet18.npz"
    with np.load(str(path)) as archive:
        assert str(archive["format"]) == "jaxsched.Trace 1"
        rates = archive["groups/bias/learning_rate"]
    trace = Trace.load(str(path))
    np.testing.assert_array_equal(trace.groups["bias"]["learning_rate"], rates)
    assert (trace.clock, trace.update_rule, trace.start) == ("iteration", "sgd", 0)
    assert trace.switches == SWITCHES
    assert trace.versions == {
        "torch": "2.13.0+cpu",
        "torchvision": "0.28.0+cu130",
        "numpy": "2.4.6",
        "python": "3.11.7",
    }
    assert trace.meta == {"note": "learning rates of the article's script, run with torch"}
    # Fields that a recording cannot observe are not stated.
    for name in ("clip_norm", "clip_value", "accumulation", "ema"):
        assert getattr(trace, name) is UNSTATED
    assert trace.constants == {}
    assert Recipe.from_trace(trace).update_rule is optimizers.sgd
    assert compare(recipes.yolov5_resnet18(), trace)


def old_file(path, meta, groups, run=(), start=0):
    """Write a trace as ``Trace.save`` of version 0.1.0 did, format 2."""
    arrays = {
        "format": np.array("jaxsched.Trace 2"),
        "start": np.array(start, np.int64),
        "meta": np.array(json.dumps(meta, default=float)),
        **{f"run/{name}": np.asarray(values, np.float64) for name, values in dict(run).items()},
        **{
            f"groups/{label}/{name}": np.asarray(values)
            for label, group in groups.items()
            for name, values in group.items()
        },
    }
    arrays["columns"] = np.array(json.dumps(sorted(arrays)))
    with path.open("wb") as file:
        np.savez_compressed(file, **arrays)
    return path


def write_old_trace(path, recipe, **changes):
    """Write a recipe's trace as version 0.1.0 did, without the fields that it lacked."""
    trace = recipe.trace(40)
    meta = {
        "clock": "iteration",
        "update_rule": "sgd",
        "switches": {k: {"nesterov": True, "maximize": False} for k in trace.groups},
        "constants": {"norm": {"dampening": 0.0, "weight_decay": 0.0}},
        "clip_norm": 10.0,
        "accumulation": {"steps_per_epoch": 20},
        "ema": {"decay": 0.9999, "tau": 2000.0, "updates": 0},
        "mine": "a note",
    }
    meta = {name: value for name, value in (meta | changes).items() if value is not None}
    return old_file(path, meta, trace.groups, trace.run)


def test_a_recipes_trace_of_format_2(tmp_path):
    recipe = recipes.yolov5(epochs=2, steps_per_epoch=20, batch_size=10)
    trace = Trace.load(write_old_trace(tmp_path / "old.npz", recipe))
    assert (trace.clock, trace.update_rule) == ("iteration", "sgd")
    assert trace.switches["norm"] == {"nesterov": True, "maximize": False}
    assert trace.constants == {"norm": {"dampening": 0.0, "weight_decay": 0.0}}
    assert trace.clip_norm == 10.0
    assert trace.clip_value is None  # fields that 0.1.0 did not have, and that a recipe states
    assert trace.accumulation == {"steps_per_epoch": 20}
    assert trace.ema == {"decay": 0.9999, "tau": 2000.0, "updates": 0}
    assert trace.meta == {"mine": "a note"}
    assert trace.versions == {}
    assert compare(recipe, trace).not_compared == ()
    assert compare(trace, recipe)
    again = Recipe.from_trace(trace)
    assert (again.clip_norm, again.ema) == (10.0, recipe.ema)
    for name, values in again.bookkeeping(40).items():
        np.testing.assert_array_equal(values, trace.run[name], err_msg=name)
    trace.save(tmp_path / "new.npz")
    assert Trace.load(tmp_path / "new.npz") == trace


@pytest.mark.parametrize(
    ("change", "name"),
    [({"clip_norm": 1.0}, "clip_norm"), ({"clip_norm": None}, "clip_norm"), ({"ema": None}, "ema")],
    ids=["another-clip", "no-clip", "no-average"],
)
def test_what_an_old_file_states_is_compared(change, name, tmp_path):
    recipe = recipes.yolov5(epochs=2, steps_per_epoch=20, batch_size=10)
    trace = Trace.load(write_old_trace(tmp_path / "old.npz", recipe, **change))
    report = compare(recipe, trace)
    assert name in {q.name for q in report.quantities if q.first is not None}


def test_a_recording_of_format_2(tmp_path):
    meta = {
        "clock": "update",
        "optimizer": "Adam",
        "update_rule": "adam",
        "switches": {"0": {"amsgrad": True}},
        "torch": "2.13.0",
    }
    groups = {"0": {"learning_rate": [0.1, 0.05], "b1": [0.9, 0.9]}}
    trace = Trace.load(old_file(tmp_path / "old.npz", meta, groups, start=3))
    assert (trace.clock, trace.update_rule, trace.start) == ("update", "adam", 3)
    assert (trace.versions, trace.meta) == ({"torch": "2.13.0"}, {"optimizer": "Adam"})
    assert trace.clip_norm is trace.clip_value is trace.accumulation is trace.ema is UNSTATED
    recipe = Recipe.from_trace(trace)
    assert (recipe.update_rule, recipe.clock) == (optimizers.adam, "update")
    assert recipe.groups["0"]["amsgrad"] is True


def test_a_rule_that_had_no_name_is_asked_for(tmp_path):
    """Version 0.1.0 wrote an empty name, and read it as SGD."""
    meta = {"clock": "iteration", "update_rule": "", "switches": {}}
    path = old_file(tmp_path / "old.npz", meta, {"all": {"learning_rate": [0.1, 0.05]}})
    trace = Trace.load(path)
    assert trace.update_rule is None
    with pytest.raises(ValueError, match=r"got none\. Pass update_rule\.$"):
        Recipe.from_trace(trace)
    assert Recipe.from_trace(trace, optimizers.sgd).update_rule is optimizers.sgd


def test_a_cut_list_of_columns_is_refused(tmp_path):
    path = tmp_path / "old.npz"
    old_file(path, {}, {"all": {"learning_rate": [0.1], "momentum": [0.9]}})
    with np.load(path) as archive:
        arrays = {name: archive[name] for name in archive.files if "momentum" not in name}
    np.savez_compressed(path, **arrays)
    with pytest.raises(ValueError, match="must be a whole trace file"):
        Trace.load(path)
