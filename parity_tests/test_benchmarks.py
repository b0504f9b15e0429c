"""The short forms of the long checks in ``benchmarks``, and that these can fail."""

import numpy as np
import pytest

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


F32, S32, U32, PRED = np.float32, np.int32, np.uint32, np.bool_
LEAST = -(2**31)
BY_HLO = {  # operands, and their results as HLO defines them
    "divide": (S32, [S32([-7, 7, 7]), S32([2, -2, 3])], [-3, -3, 2]),
    "remainder": (S32, [S32([-7, 7]), S32([3, -3])], [-1, 1]),
    "shift-left": (S32, [S32([1, 1, 1, 1]), S32([31, 32, 33, -1])], [LEAST, 0, 0, 0]),
    "shift-right-logical": (S32, [S32([-1, -1, -1]), S32([1, 32, -1])], [2**31 - 1, 0, 0]),
    "shift-right-arithmetic": (S32, [S32([-8, -8, 8]), S32([1, 40, -1])], [-4, -1, 0]),
    "bitcast": (F32, [S32([1065353216])], [1.0]),
    "bitcast-convert": (S32, [F32([-0.0])], [LEAST]),
    "clamp": (
        F32,
        [F32([0, 0, 0, 3]), F32([5, -5, np.nan, 1]), F32([1, 1, 1, 4])],
        [1, 0, np.nan, 3],
    ),
    "select": (F32, [PRED([True, False]), F32([1, 1]), F32([2, 2])], [1, 2]),
    "maximum": (F32, [F32([np.nan, 1]), F32([1, np.nan])], [np.nan, np.nan]),
    "round-nearest-afz": (F32, [F32([-0.5, 2.5, 0.49999997])], [-1, 3, 0]),
}
CONVERSIONS = [
    (S32, F32([np.nan, 1e10, -1e10, -1.9]), [0, 2**31 - 1, LEAST, -1]),
    (U32, F32([-1, 5e9, 3.7]), [0, 2**32 - 1, 3]),
    (PRED, F32([0, 0.5, np.nan]), [False, True, True]),
    (U32, S32([-5]), [2**32 - 5]),
    (F32, S32([2**24 + 1]), [2.0**24]),
]


@pytest.mark.parametrize("opcode", BY_HLO)
def test_an_instruction_is_hlos(opcode):
    dtype, operands, expected = BY_HLO[opcode]
    found = scalar_program.result(opcode, operands, "", dtype)
    np.testing.assert_array_equal(found, dtype(expected))
    assert found.dtype == dtype


@pytest.mark.parametrize("case", range(len(CONVERSIONS)))
def test_a_conversion_is_hlos(case):
    dtype, operand, expected = CONVERSIONS[case]
    found = scalar_program.result("convert", [operand], "", dtype)
    np.testing.assert_array_equal(found, dtype(expected))
    assert found.dtype == dtype


def test_a_comparison_of_a_total_order_is_refused():
    attributes = "direction=LT, type=TOTALORDER"
    with pytest.raises(NotImplementedError, match="total order"):
        scalar_program.result("compare", [F32([0]), F32([1])], attributes, PRED)
