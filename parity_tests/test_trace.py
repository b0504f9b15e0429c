"""Traces and their files; the errors and the arithmetic of compare."""

import dataclasses
import errno
import io
import json
import os
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import DATA
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxsched
from jaxsched import Recipe, Trace, cli, lr_scheduler, optimizers, schedules
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
    """It was written of ``yolov5(epochs=2, steps_per_epoch=6, batch_size=16)``, header in ``meta``."""
    old = Trace.load(DATA / "trace_0.1.0_yolov5.npz")
    recipe = yolov5(epochs=2, steps_per_epoch=6, batch_size=16)
    assert old.meta == {}
    assert old == recipe.trace(12)
    assert Recipe.from_trace(old).trace(12) == old
    assert old != yolov5(epochs=2, steps_per_epoch=6, batch_size=16, hyp={"lrf": 0.3}).trace(12)


@settings(max_examples=60)
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
    else:  # an unused byte
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


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_a_file_of_another_format_is_refused_with_the_format_to_export(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    path.write_text("iteration,a/learning_rate")
    sentence = f"{path} must be a trace's .npz file, got {suffix}, which is not read. Export the trace as .npz."
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        Trace.load(path)


def test_an_npz_of_something_else_is_refused(tmp_path):
    np.savez(tmp_path / "x.npz", weights=np.ones(3))
    with pytest.raises(ValueError, match=r"Record or export it again\."):
        Trace.load(tmp_path / "x.npz")


def test_a_file_whose_notes_are_a_list_is_refused(tmp_path):
    """Python accepts a list of pairs as a mapping."""
    path = tmp_path / "x.npz"
    for version, meta in [(2, []), (2, [["update_rule", "sgd"]]), (3, []), (3, [["note", 1]])]:
        arrays = {
            "format": f"jaxsched.Trace {version}",
            "start": np.array(0),
            "meta": json.dumps(meta),
            "groups/a/learning_rate": np.ones(2),
            **({"header": "{}"} if version == 3 else {}),
        }
        np.savez(path, **arrays, columns=json.dumps(sorted(arrays)))
        with pytest.raises(ValueError, match=r"must be a whole trace file, .* \(TypeError\)"):
            Trace.load(path)


def test_a_complex_count_is_refused():
    for count in (1j, np.complex64(1), jnp.asarray(1j), jnp.ones(2, jnp.complex64)):
        for call in (schedules.cosine(100, lrf=0.2), jax.jit(WHOLE.at)):
            with pytest.raises(TypeError, match=r"^count must be a real number, got complex"):
                call(count)
        with pytest.raises(TypeError, match=r"^iteration must be an integer, got "):
            WHOLE.at(count)


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
def test_switches_of_a_group_are_relabelled_with_it(names):
    """Without its switch a group would replay plain momentum for Nesterov's."""
    recipe = Recipe(
        {
            label: {"learning_rate": 0.1, "momentum": 0.9, "nesterov": nesterov}
            for label, nesterov in {"a": True, "b": False}.items()
        }
    )
    again = Recipe.from_trace(recipe.trace(3).relabel(names))
    for label, group in recipe.groups.items():
        assert again.groups[names.get(label, label)].items() >= group.items()


def traces(n=3, label="a", start=0, **fields):
    return Trace({label: {"learning_rate": np.linspace(0, 1, n)}}, start=start, **fields)


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
    "overlap": (
        lambda: jaxsched.compare(traces(start=3), traces()),
        "runs must overlap, got iterations 3 to 5 against iterations 0 to 2. Rows count from the "
        "start of the run: dataclasses.replace(trace, start=n) moves a trace.",
    ),
    "overlap-recipe": (
        lambda: jaxsched.compare(Recipe({"a": {"learning_rate": 0.1}}, start=60), traces(1)),
        "runs must overlap, got iterations from 60 on against iteration 0.",
    ),
    "groups": (
        lambda: jaxsched.compare(traces(label="0"), traces()),
        "traces must have the same groups, got 0 against a. Rename groups with relabel: 0=a (then "
        "all are equal).",
    ),
    "groups-of-which-one-is-named": (
        lambda: jaxsched.compare(
            Trace({"a": {"x": np.zeros(3)}, "0": {"x": np.ones(3)}}),
            Trace({"a": {"x": np.zeros(3)}, "b": {"x": np.ones(3)}}),
        ),
        "Rename groups with relabel: 0=b (then all are equal).",
    ),
    "clocks": (
        lambda: jaxsched.compare(traces(clock="update"), traces(run={"stepped": [1, 0, 1]})),
        "traces must have the same clock where not every iteration makes an update, got update "
        "against iteration. Record it with recording.batch().",
    ),
    "clocks-accumulation": (
        lambda: jaxsched.compare(
            traces(accumulation={"steps_per_epoch": None}), traces(clock="update")
        ),
        "traces must have the same clock where not every iteration makes an update, got iteration",
    ),
    "clocks-epoch": (
        lambda: jaxsched.compare(traces(clock="epoch"), traces(clock="update")),
        "traces must have the same clock where",
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
    "no-iterations": (
        lambda: jaxsched.compare(*[Recipe({"a": {"learning_rate": 0.1}})] * 2, iterations=0),
        "iterations must be an integer of at least 1, got 0",
    ),
    "no-iterations-of-a-trace": (
        lambda: jaxsched.compare(traces(), traces(), iterations=0),
        "iterations must be an integer of at least 1, got 0",
    ),
    "more-iterations": (
        lambda: jaxsched.compare(traces(), traces(), iterations=4),
        "iterations must be at most the rows of the trace, 3, got 4",
    ),
    "infinity": (
        # 1e-10 apart, and equal where the bound is relative to infinity.
        lambda: jaxsched.compare(
            Trace({"a": {"learning_rate": [0.1, np.inf]}}),
            Trace({"a": {"learning_rate": [0.1 + 1e-10, np.inf]}}),
        ),
        "traces must hold finite float64 numbers, got inf of a/learning_rate at iteration 1. Compare "
        "the iterations before it.",
    ),
    "horizon": (
        lambda: jaxsched.compare(*[Recipe({"a": {"learning_rate": 0.1}})] * 2),
        "one of two recipes must have a length, got None of both. Pass iterations, or compare with "
        "recipe.trace(n). Recipe(length=n) states a recipe's own.",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_bad_input_gets_one_sentence(name):
    call, message = ERRORS[name]
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


@pytest.mark.parametrize("names", [{0: "a"}, {"a": 0}])
def test_labels_that_are_not_strings_are_refused(names):
    sentence = "labels must be strings, got 0. Write '0'."
    with pytest.raises(TypeError, match=f"^{re.escape(sentence)}$"):
        traces().relabel(names)


@pytest.mark.parametrize(
    ("other", "kind"), [("run.npz", "str"), (None, "NoneType"), ({"a": 0.1}, "dict")]
)
def test_arguments_that_are_neither_recipe_nor_trace_are_refused(other, kind):
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
    def trace_of(value):
        return Trace({"a": {"learning_rate": np.array([0.1, value])}})

    assert not jaxsched.compare(trace_of(np.nan), trace_of(np.nan))
    nothing = Trace({"a": {"learning_rate": np.full(2, np.nan)}})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not jaxsched.compare(nothing, nothing)
    assert not jaxsched.compare(trace_of(np.nan), trace_of(0.2))
    assert not jaxsched.compare(trace_of(0.2), trace_of(np.nan))
    assert jaxsched.compare(trace_of(0.2), trace_of(0.2))


def test_float64_on_both_sides_is_compared_in_float64():
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


COSINE = {"a": {"learning_rate": schedules.cosine(100, lrf=0.2)}}
FROM_60 = Recipe(COSINE, start=60, length=100)
WHOLE = Recipe(COSINE, length=100)
OVERLAPS = {
    # mine, reference, rows, left out, true if they are equal
    "trace of 60": (WHOLE, FROM_60.trace(10), 10, ["0 to 59 of mine", "70 to 99 of mine"], True),
    "recipe of 60": (WHOLE.trace(70), FROM_60, 10, ["0 to 59 of mine", "70 to 99 of the reference"], True),
    "starts of recipes": (WHOLE, Recipe(COSINE, start=1, length=50), 49, ["0 of mine", "50 to 99 of mine"], True),
    "shorter reference": (WHOLE, Recipe(COSINE, length=60), 60, ["60 to 99 of mine"], True),
    "shorter mine": (Recipe(COSINE, length=60), WHOLE, 60, ["60 to 99 of the reference"], True),
    "one length": (WHOLE, Recipe(COSINE), 100, [], True),
    "two traces": (WHOLE.trace(70), FROM_60.trace(20), 10, ["0 to 59 of mine", "70 to 79 of the reference"], True),
    "two lengths": (WHOLE.trace(7), WHOLE.trace(9), 7, ["7 to 8 of the reference"], True),
    "all": (WHOLE, WHOLE.trace(100), 100, [], True),
    "moved": (dataclasses.replace(WHOLE.trace(70), start=1), WHOLE.trace(70), 69, ["70 of mine", "0 of the reference"], False),
}  # fmt: skip


@pytest.mark.parametrize("name", OVERLAPS)
def test_runs_are_compared_where_they_overlap_and_the_rest_is_named(name):
    mine, reference, rows, left_out, equal = OVERLAPS[name]
    report = jaxsched.compare(mine, reference)
    assert bool(report) is equal, str(report)
    assert report.quantities[0].n == rows
    assert [text.split(maxsplit=1)[1] for text in report.left_out] == left_out
    assert ("left out: " in str(report)) is bool(left_out)
    assert report.evidence()["left_out"] == list(report.left_out)


@pytest.mark.parametrize(
    ("batches", "length", "left_out"),
    [(2, 24, ("updates 8 to 11 of mine",)), (3, 24, ()), (3, 90, ("updates 8 to 29 of mine",))],
)
def test_updates_that_only_a_recipe_makes_are_named(batches, length, left_out):
    """A recording of an update every 3 of 24 batches, of which another number makes more."""
    recorded_updates = Trace({"a": {"learning_rate": np.full(8, 0.1)}}, clock="update")
    accumulation = optimizers.Accumulation(schedules.constant(batches))
    mine = Recipe({"a": {"learning_rate": 0.1}}, accumulation=accumulation, length=length)
    report = jaxsched.compare(mine, recorded_updates)
    assert report.quantities[0].n == 8
    assert report.left_out == left_out


def test_a_table_that_ends_earlier_is_named():
    rates = {"a": schedules.constant(0.1), "b": schedules.table(np.ones(41))}
    short = Recipe({label: {"learning_rate": rate} for label, rate in rates.items()})
    whole = Recipe({"a": {"learning_rate": 0.1}, "b": {"learning_rate": 1.0}}, length=80)
    for pair, side in (((short, whole), "mine"), ((whole.trace(80), short), "the reference")):
        sentence = f"learning_rate of b of {side}: the table holds counts 0 to 40, got 79. "
        with pytest.raises(ValueError, match=f"^{re.escape(sentence)}"):
            jaxsched.compare(*pair)


def test_iterations_count_from_where_both_are():
    report = jaxsched.compare(WHOLE, FROM_60.trace(30), iterations=5)
    assert (report.quantities[0].n, report.reference.start) == (5, 60)
    assert report.left_out == ("iterations 0 to 59 of mine",)


def test_a_cause_is_looked_for_where_the_runs_overlap():
    def recipe_of(T_max, **fields):
        rate = schedules.per_epoch(lr_scheduler.cosine_annealing_lr(0.1, T_max), 5)
        return Recipe({"a": {"learning_rate": rate}}, **fields)

    report = jaxsched.compare(recipe_of(19).trace(120), recipe_of(20, start=60, length=120))
    assert report.first.first.iteration == 60
    assert report.causes == ("T_max 19 for 20 in cosine_annealing_lr",)


# --- clocks that are the same ---

BY_UPDATE = dataclasses.replace(WHOLE.trace(100), clock="update")
ROWS = [WHOLE.at(count) for count in range(100)]
CLOCKS = {
    "recipe": WHOLE,
    "trace": WHOLE.trace(100),
    "stepped": dataclasses.replace(WHOLE.trace(100), run={"stepped": np.ones(100)}),
    "rows": Trace.stack(ROWS),
    "replay": dataclasses.replace(Recipe.from_trace(WHOLE.trace(100)), clock="update"),
    "from 60": FROM_60,
}


@pytest.mark.parametrize("name", CLOCKS)
@pytest.mark.parametrize("swap", [False, True])
def test_where_every_iteration_makes_an_update_the_clocks_are_one(name, swap):
    run, wrong = CLOCKS[name], Recipe({"a": {"learning_rate": 0.5}}, length=100).trace(100)
    for by_update, equal in (
        (BY_UPDATE, True),
        (dataclasses.replace(wrong, clock="update"), False),
    ):
        pair = (by_update, run) if swap else (run, by_update)
        report = jaxsched.compare(*pair)
        assert bool(report) is equal, str(report)
        assert report.quantities[0].n == (40 if name == "from 60" else 100)
        assert report.reference.clock == "update"
        # Rows alone do not determine whether each made an update.
        assert ("accumulation" in report.not_compared) is (name == "rows")


def test_rows_have_the_header_of_an_empty_trace():
    """An empty trace is false, and was taken for a missing one."""
    header = Trace({}, clock="update", update_rule="sgd")
    assert Trace.stack(ROWS, header_of=header).header() == header.header()


def test_one_iteration_and_one_group_are_written_in_the_singular():
    report = str(jaxsched.compare(traces(1), traces(1)))
    assert report == "parity: 1 iteration × 1 group × learning rate: 0 ULP"


def test_quantities_that_only_mine_has_are_named():
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
    """A cut directory of the archive has that effect: NumPy reads the remaining arrays."""
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
    """Adafactor's ``eps1`` is None by default: both sides state it, one as a switch."""

    def recipe_of(**given):
        return Recipe({"a": {"learning_rate": 0.1, **given}}, optimizers.adafactor, length=3)

    default, number = recipe_of(), recipe_of(eps1=1e-10)
    for mine, reference, sentence in [
        (number, default, "a/eps1: mine has 1.000000013351432e-10, where the reference has none"),
        (default, number, "a/eps1: mine has none, where the reference has 1.000000013351432e-10"),
    ]:
        for pair in ((mine, reference), (mine.trace(3), reference.trace(3))):
            report = jaxsched.compare(*pair)
            assert not report
            assert sentence in str(report)
            assert "eps1" not in report.not_compared
    assert jaxsched.compare(recipe_of(eps1=1e-10), number)


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


@pytest.mark.parametrize(
    ("header", "sentence"),
    [
        ({"ema": {"zz": 1}}, "ema of a trace must have decay, tau, got {'zz': 1}."),
        (
            {"accumulation": {"zz": 1}},
            "accumulation of a trace must have steps_per_epoch, got {'zz': 1}.",
        ),
        ({"constants": {"a": 3}}, "constants of group a must be numbers by name, got 3."),
        ({"start": -5}, "start of a trace must be an integer of at least 0, got -5"),
        ({"start": 1.5}, "start of a trace must be an integer of at least 0, got 1.5"),
    ],
    ids=str,
)
def test_an_impossible_header_is_refused(header, sentence):
    groups = {"a": {"learning_rate": np.ones(3)}}
    right = {"ema": {"decay": 0.9, "tau": 10.0, "updates": 0}, "constants": {"a": {"b1": 0.9}}}
    assert len(Trace(groups, **right)) == 3
    with pytest.raises((TypeError, ValueError), match=re.escape(sentence)):
        Trace(groups, **header)


def test_many_groups_of_other_names_are_refused_at_once():
    """Trying every renaming of 12 groups took minutes."""
    one, other = (
        Trace({f"{letter}{k}": {"learning_rate": np.full(2, k)} for k in range(12)})
        for letter in "ab"
    )
    with pytest.raises(ValueError, match="traces must have the same groups"):
        jaxsched.compare(one, other)
