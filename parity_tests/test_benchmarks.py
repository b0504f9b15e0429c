"""The short forms of the long checks in ``benchmarks``, and that these can fail."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import fuzz, scalar_program, soak
from jaxsched import Trace


def test_fuzz():
    assert fuzz.run(150)["neither right nor refused"] == []


def silently_wrong(rng, folder):
    fuzz.near(np.float32(0.1), 0.2)


def from_the_depths(rng, folder):
    np.zeros(3).reshape(2)


def two_lines(rng, folder):
    Trace({"all": {"a\nb": np.zeros((2, 2))}})


WRONG = [
    (silently_wrong, "wrong: 0.1 acts where np.float32(0.2) is right"),
    (from_the_depths, "from the depths, test_benchmarks.py: ValueError: cannot reshape"),
    (two_lines, "no sentence: 'all/a\\nb must be"),
]


@pytest.mark.parametrize(("kind", "told"), WRONG, ids=[kind.__name__ for kind, _ in WRONG])
def test_what_is_neither_right_nor_refused_is_told(kind, told, tmp_path):
    assert fuzz.outcome(kind, 0, tmp_path).replace("np.float32(0.1)", "0.1").startswith(told)


def test_a_mutated_trace_can_be_told_from_a_whole_one(tmp_path, monkeypatch):
    monkeypatch.setattr(fuzz, "mutated", lambda data, rng: data)
    assert fuzz.outcome(fuzz.trace, 0, tmp_path) == "right"
    monkeypatch.setattr(Trace, "load", classmethod(lambda cls, path: Trace({})))
    assert fuzz.outcome(fuzz.trace, 0, tmp_path) == "wrong: another trace was read without a word"


def test_soak():
    notes = soak.soak(200)
    assert soak.holds(notes)
    assert not soak.holds([*notes, {**notes[-1], "live arrays": 1e6}])
    assert not soak.holds([*notes, {**notes[-1], "compilations": 2}])
    assert not soak.holds([*notes, {**notes[-1], "resident MiB": 1e6}])


PROGRAM = """HloModule two_sum

ENTRY %main.1 (i.1: s32[]) -> (f32[], s32[], pred[]) {
  %i.1 = s32[]{:T(128)} parameter(0), sharding={replicated}
  %tenth = f32[]{:T(128)} constant(0.1)
  %one = s32[]{:T(128)S(6)} constant(-1)
  %x = f32[]{:T(128)S(6)} convert(%i.1), metadata={op_name="jit(f)"}
  %s = f32[]{:T(128)S(6)} add(%x, %tenth)
  %b = f32[]{:T(128)S(6)} subtract(%s, %x)
  %e = f32[]{:T(128)S(6)} subtract(%tenth, %b)
  %bits = s32[]{:T(128)} bitcast-convert(%s)
  %high = s32[]{:T(128)} shift-right-logical(%bits, %one)
  %large = pred[]{:T(512)} compare(%i.1, %i.1), direction=GE
  %q = f32[]{:T(128)} divide(%e, %tenth)
  %v = f32[2]{:T(128)} broadcast(%q), dimensions={}
  ROOT %tuple = (f32[]{:T(128)}, s32[]{:T(128)}, pred[]{:T(512)}) tuple(%e, %high, %large)
}
"""


def test_a_compiled_program_is_run_instruction_by_instruction():
    program, returned = scalar_program.parsed(PROGRAM)
    counts, known = np.arange(100, dtype=np.int32), {}
    error, high, large = (
        scalar_program.run(program, name, {0: counts}, known) for name in returned
    )
    x, tenth = counts.astype(np.float32), np.float32(0.1)
    np.testing.assert_array_equal(error, tenth - ((x + tenth) - x))
    assert error[1:].all()
    assert not high.any()
    assert large.all()
    exact, inexact = (
        scalar_program.run(program, "%q", {0: counts}, {}, rng)
        for rng in (None, np.random.default_rng(0))
    )
    assert 0.2 < (exact != inexact).mean() < 0.9
    with pytest.raises(NotImplementedError, match="broadcast"):
        scalar_program.run(program, "%v", {0: counts}, known)
