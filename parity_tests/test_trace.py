"""Traces and their files; compare's own errors and arithmetic."""

import errno
import io
import os
import re
import warnings

import numpy as np
import pytest
from conftest import DATA
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxsched
from jaxsched import Recipe, Trace, cli, optimizers
from jaxsched._trace import UNSTATED
from jaxsched.parity import ulps
from jaxsched.recipes import recorded, yolov5, yolov5_resnet18

TRACE = Trace(
    {
        "a/b": {"learning_rate": np.array([0.1, 0.2, 0.3])},
        "c": {"momentum": np.ones(3, np.float32)},
    },
    {"stepped": np.array([1.0, 0.0, 1.0])},
    start=7,
    meta={"note": "×"},
    update_rule="sgd",
    switches={"c": {"nesterov": True}},
    constants={"c": {"momentum": 1.0}},
    clip_norm=10.0,
    clip_value=None,
    ema={"decay": 0.9999, "tau": 2000.0},
    versions={"torch": "2.13.0"},
)


def test_saved_and_loaded_is_the_same(tmp_path):
    TRACE.save(tmp_path / "run.npz")
    loaded = Trace.load(tmp_path / "run.npz")
    assert loaded.start == 7
    assert loaded.meta == TRACE.meta
    assert loaded == TRACE
    for name, value in TRACE.header().items():
        assert getattr(loaded, name) == value
    assert (loaded.clip_value, loaded.accumulation) == (None, UNSTATED)
    assert list(tmp_path.iterdir()) == [tmp_path / "run.npz"]
    for label, group in TRACE.groups.items():
        for name, values in group.items():
            np.testing.assert_array_equal(loaded.groups[label][name], values)
            assert loaded.groups[label][name].dtype == values.dtype
    np.testing.assert_array_equal(loaded.run["stepped"], TRACE.run["stepped"])


def test_a_file_of_version_0_1_0_has_its_header():
    """Written by 0.1.0 of ``yolov5(epochs=2, steps_per_epoch=6, batch_size=16)``, in ``meta``."""
    old = Trace.load(DATA / "trace_0.1.0_yolov5.npz")
    recipe = yolov5(epochs=2, steps_per_epoch=6, batch_size=16)
    assert old.meta == {}
    assert old == recipe.trace(12)
    assert Recipe.from_trace(old).trace(12) == old
    assert old != yolov5(epochs=2, steps_per_epoch=6, batch_size=16, hyp={"lrf": 0.3}).trace(12)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_file_cut_short_or_changed_is_refused_or_whole(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("damaged")
    TRACE.save(folder / "run.npz")
    content = bytearray((folder / "run.npz").read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content) - 1))]
    else:
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] ^= data.draw(st.integers(1, 255))
    (folder / "run.npz").write_bytes(content)
    try:
        loaded = Trace.load(folder / "run.npz")
    except ValueError as error:
        assert "must be" in str(error)  # noqa: PT017
    else:  # a byte that nobody reads
        for label, group in loaded.groups.items():
            for name, values in group.items():
                np.testing.assert_array_equal(values, TRACE.groups[label][name])


def test_a_pickle_is_never_loaded(tmp_path):
    np.savez(tmp_path / "evil.npz", format=np.array("jaxsched.Trace 1"), start=np.array([{}]))
    with pytest.raises(ValueError, match=r"must be a whole trace file"):
        Trace.load(tmp_path / "evil.npz")


@pytest.mark.parametrize("content", [b"", b"no trace", b"PK\x03\x04"])
def test_a_foreign_file_is_refused(tmp_path, content):
    path = tmp_path / "x.npz"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.npz must be a whole trace file, got one that does"):
        Trace.load(path)


def test_an_npz_of_something_else_is_refused(tmp_path):
    np.savez(tmp_path / "x.npz", weights=np.ones(3))
    with pytest.raises(ValueError, match=r"Record or export it again\."):
        Trace.load(tmp_path / "x.npz")


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        Trace.load(tmp_path / "none.npz")


def test_a_failed_save_leaves_the_old_file(tmp_path):
    TRACE.save(tmp_path / "run.npz")
    broken = Trace(TRACE.groups, TRACE.run, 7, {"note": object()})
    with pytest.raises(TypeError):
        broken.save(tmp_path / "run.npz")
    assert Trace.load(tmp_path / "run.npz").meta == TRACE.meta
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["lr.png", "run.npz", "lr.csv", "lr.json"])
def test_a_disk_that_fills_while_writing_leaves_the_old_file(name, tmp_path, monkeypatch, capsys):
    path = tmp_path / name
    path.write_text("before")

    class Full(io.BytesIO):
        def write(self, data):
            super().write(data[:1])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    opened = os.fdopen
    monkeypatch.setattr(
        os, "fdopen", lambda handle, mode: (opened(handle, mode).close(), Full())[1]
    )
    verb = "plot" if name == "lr.png" else "export"
    assert cli.main([verb, "yolov5_resnet18", "--out", str(path)]) == 2
    assert capsys.readouterr().err.endswith("No space left on device\n")
    assert path.read_text() == "before"
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_relabel_renames_and_swaps():
    swapped = TRACE.relabel({"a/b": "c", "c": "a/b"})
    assert list(swapped.groups["c"]) == ["learning_rate"]
    assert swapped.start == 7


@pytest.mark.parametrize("names", [{"a": "w"}, {"a": "b", "b": "a"}, {"b": "w"}])
def test_what_is_told_of_a_group_goes_with_its_name(names):
    """A switch left behind would replay plain momentum for Nesterov's."""
    recipe = Recipe(
        {
            label: {"learning_rate": 0.1, "momentum": 0.9, "nesterov": nesterov}
            for label, nesterov in {"a": True, "b": False}.items()
        }
    )
    again = Recipe.from_trace(recipe.trace(3).relabel(names))
    for label, group in recipe.groups.items():
        assert again.groups[names.get(label, label)].items() >= group.items()


def traces(n=3, label="a", start=0, **header):
    return Trace({label: {"learning_rate": np.linspace(0, 1, n)}}, start=start, **header)


ERRORS = {
    "lengths-within": (
        lambda: Trace({"a": {"x": np.ones(3), "y": np.ones(2)}}),
        "all columns of a trace must have one length, got 3 rows of a/x and 2 of a/y. "
        "Cut all to one.",
    ),
    "words": (
        lambda: Trace({"a": {"x": np.array(["0.1"])}}),
        "a/x must be a row of real numbers, one an iteration, got shape (1,) of <U3.",
    ),
    "table": (
        lambda: Trace({"a": {"x": np.ones((2, 2))}}),
        "a/x must be a row of real numbers, one an iteration, got shape (2, 2) of float64.",
    ),
    "slash": (
        lambda: Trace({"a": {"x/y": np.ones(3)}}),
        "names of hyperparameters must have no /, got x/y in group a. Put it into the label.",
    ),
    "relabel-unknown": (
        lambda: TRACE.relabel({"d": "e"}),
        "labels must be among a/b, c, got d.",
    ),
    "relabel-collision": (
        lambda: TRACE.relabel({"c": "a/b"}),
        "labels must stay unique, got a/b, a/b.",
    ),
    "rows": (
        lambda: Trace.stack([{"a": {"x": 1.0, "y": 2.0}}, {"a": {"x": 1.0}}]),
        "rows must have the names of the first, got a/x in row 1. Stack one optimizer's.",
    ),
    "lengths": (
        lambda: jaxsched.compare(traces(3), traces(4)),
        "traces must have the same length, got 3 against 4. Compare the same stretch.",
    ),
    "starts": (
        lambda: jaxsched.compare(traces(start=1), traces()),
        "traces must have the same start, got 1 against 0. Compare the same stretch.",
    ),
    "groups": (
        lambda: jaxsched.compare(traces(label="0"), traces()),
        "traces must have the same groups, got 0 against a. Rename groups with relabel: 0=a makes all "
        "equal.",
    ),
    "clocks": (
        lambda: jaxsched.compare(traces(clock="update"), traces()),
        "traces must have the same clock, got update against iteration. Compare the same stretch.",
    ),
    "empty": (
        lambda: jaxsched.compare(Trace({}), Trace({})),
        "traces must have at least 1 row, got 0.",
    ),
    "nothing-to-compare": (
        lambda: jaxsched.compare(traces(), Trace({"a": {}}, {"stepped": np.ones(3)})),
        "traces must have at least 1 quantity to compare, got none in the reference's groups. "
        "Pass one with its hyperparameters.",
    ),
    "horizon": (
        lambda: jaxsched.compare(*[Recipe({"a": {"learning_rate": 0.1}})] * 2),
        "one of two recipes must have a length, got None of both. Pass iterations, or compare with "
        "recipe.trace(n).",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_bad_input_gets_one_sentence(name):
    call, message = ERRORS[name]
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


@pytest.mark.parametrize(
    ("other", "kind"), [("run.npz", "str"), (None, "NoneType"), ({"a": 0.1}, "dict")]
)
def test_what_is_neither_a_recipe_nor_a_trace_is_refused(other, kind):
    sentence = (
        f"compare takes recipes and traces, got {kind}. Read a trace's file with Trace.load; "
        "of a recording pass its trace."
    )
    for pair in ((other, traces()), (traces(), other), (yolov5_resnet18(), other)):
        with pytest.raises(TypeError, match=f"^{re.escape(sentence)}$"):
            jaxsched.compare(*pair)


def test_ulps_count_float32_steps():
    one = np.float32(1)
    assert ulps(np.array([1.0]), np.array([np.nextafter(one, 2)])) == [1]
    assert ulps(np.array([-0.0]), np.array([0.0])) == [0]
    assert ulps(np.array([-1e-45]), np.array([1e-45])) == [2]
    assert ulps(np.array([np.nan]), np.array([np.nan])) > 1e9
    assert ulps(np.array([np.nan]), np.array([1.0])) > 1e9


def test_nan_is_equal_to_nothing():
    def of(value):
        return Trace({"a": {"learning_rate": np.array([0.1, value])}})

    assert not jaxsched.compare(of(np.nan), of(np.nan))
    nothing = Trace({"a": {"learning_rate": np.full(2, np.nan)}})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not jaxsched.compare(nothing, nothing)
    assert not jaxsched.compare(of(np.nan), of(0.2))
    assert not jaxsched.compare(of(0.2), of(np.nan))
    assert jaxsched.compare(of(0.2), of(0.2))


def test_float64_on_both_sides_is_held_to_float64():
    exact = Trace({"a": {"learning_rate": np.array([0.1, 0.2])}})
    rounded = Trace({"a": {"learning_rate": np.array([0.1, 0.2], np.float32).astype(np.float64)}})
    single = Trace({"a": {"learning_rate": np.array([0.1, 0.2], np.float32)}})
    assert not jaxsched.compare(rounded, exact)
    assert jaxsched.compare(single, exact)


def test_a_quantity_that_is_missing_differs():
    reference = Trace({"a": {"learning_rate": np.ones(2), "momentum": np.ones(2)}})
    report = jaxsched.compare(Trace({"a": {"learning_rate": np.ones(2)}}), reference)
    assert not report
    assert report.first.name == "momentum"
    assert "a/momentum: mine has none, where the reference has 1.0" in str(report)


def test_one_of_each_is_told_as_one():
    told = str(jaxsched.compare(traces(1), traces(1)))
    assert told == "parity: 1 iteration × 1 group × learning rate: 0 ULP"


def test_what_only_mine_has_is_named():
    report = jaxsched.compare(yolov5_resnet18(), recorded("yolov5_resnet18"))
    assert report
    recorded_lacks = ("dampening", "maximize", "clip_norm", "clip_value", "ema", "accumulation")
    assert report.not_compared == recorded_lacks


def test_two_recipes_are_compared_over_the_run():
    report = jaxsched.compare(yolov5_resnet18(epochs=20), yolov5_resnet18(epochs=20, lrf=0.3))
    assert not report
    assert report.quantities[0].n == 600
    assert jaxsched.compare(yolov5_resnet18(epochs=20), yolov5_resnet18(epochs=20))


def test_a_file_that_lost_a_column_is_refused(tmp_path):
    """As one does whose archive's directory is cut: NumPy reads what is left."""
    file = tmp_path / "run.npz"
    Trace({"all": {"learning_rate": np.ones(2), "momentum": np.ones(2)}}).save(file)
    with np.load(file) as archive:
        arrays = dict(archive)
    np.savez(file, **{k: v for k, v in arrays.items() if not k.endswith("momentum")})
    with pytest.raises(ValueError, match="must be a whole trace file"):
        Trace.load(file)
    first = {k: v for k, v in arrays.items() if k != "columns"}
    np.savez(file, **{**first, "format": np.array("jaxsched.Trace 1")})
    assert len(Trace.load(file)) == 2
    np.savez(file, **first)
    with pytest.raises(ValueError, match="must be a whole trace file"):
        Trace.load(file)


def test_a_number_for_none_differs_either_way():
    """Adafactor's ``eps1`` is None unless it is given: both sides state it, one as a switch."""

    def of(**given):
        return Recipe({"a": {"learning_rate": 0.1, **given}}, optimizers.adafactor, length=3)

    default, given = of(), of(eps1=1e-10)
    for mine, reference, sentence in [
        (given, default, "a/eps1: mine has 1.000000013351432e-10, where the reference has none"),
        (default, given, "a/eps1: mine has none, where the reference has 1.000000013351432e-10"),
    ]:
        for pair in ((mine, reference), (mine.trace(3), reference.trace(3))):
            report = jaxsched.compare(*pair)
            assert not report
            assert sentence in str(report)
            assert "eps1" not in report.not_compared
    assert jaxsched.compare(of(eps1=1e-10), given)


def test_a_function_called_like_a_rule_is_another():
    def sgd(learning_rate):
        return optimizers.adam(learning_rate)

    sgd.__qualname__, sgd.__module__ = "sgd", "__main__"  # as in a script
    trace = Recipe({"a": {"learning_rate": 0.1}}, sgd).trace(3)
    assert trace.update_rule == "__main__.sgd"
    with pytest.raises(ValueError, match=r"got __main__\.sgd\. Pass update_rule\.$"):
        Recipe.from_trace(trace)


@pytest.mark.parametrize(
    "field",
    [{"clock": 3}, {"update_rule": 3}, {"clip_norm": "x"}, {"ema": 3}, {"meta": 3}, {"start": 1.5}],
    ids=str,
)
def test_a_header_of_a_wrong_type_is_refused(field):
    with pytest.raises(TypeError):
        Trace({"a": {"learning_rate": [0.1]}}, **field)


def test_a_trace_owns_its_columns():
    values = np.array([0.1, 0.2])
    trace = Trace({"a": {"learning_rate": values}})
    values[0] = 9.0
    assert trace.groups["a"]["learning_rate"][0] == 0.1
    with pytest.raises(ValueError, match="read-only"):
        trace.groups["a"]["learning_rate"][0] = 9.0
