"""The interpreter of compiled programs in ``benchmarks.scalar_program``, against results that HLO defines."""

import numpy as np
import pytest

from benchmarks import scalar_program

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
  %v = f32[2]{:T(128)} sort(%q), dimensions={0}
  %w = bf16[] convert(%q)
  ROOT %tuple = (f32[]{:T(128)}, s32[]{:T(128)}, pred[]{:T(512)}) tuple(%e, %high, %large)
}
"""


def test_a_compiled_program_is_run_instruction_by_instruction():
    program, returned = scalar_program.parse(PROGRAM)
    counts, values = np.arange(100, dtype=np.int32), {}
    error, high, large = (
        scalar_program.run(program, name, {0: counts}, values) for name in returned
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
    for name, message in (("%v", "sort"), ("%w", "convert to bf16")):
        with pytest.raises(NotImplementedError, match=message):
            scalar_program.run(program, name, {0: counts}, values)


OF_ARRAYS = """HloModule arrays

%fused (p.0: f32[3], p.1: s32[]) -> (f32[1], f32[2]) {
  %p.0 = f32[3]{0} parameter(0)
  %p.1 = s32[] parameter(1)
  %at = f32[1]{0} dynamic-slice(%p.0, %p.1), dynamic_slice_sizes={1}
  %last = f32[2]{0:T(128)S(1)} slice(%p.0), slice={[1:3]}
  ROOT %both = (f32[1]{0}, f32[2]{0}) tuple(%at, %last)
}

%sum (a: s32[], b: s32[]) -> s32[] {
  %a = s32[] parameter(0)
  %b = s32[] parameter(1)
  ROOT %c = s32[] add(%a, %b)
}

%two_sums (a.1: s32[], a.2: f32[], b.1: s32[], b.2: f32[]) -> (s32[], f32[]) {
  %a.1 = s32[] parameter(0)
  %a.2 = f32[] parameter(1)
  %b.1 = s32[] parameter(2)
  %b.2 = f32[] parameter(3)
  %c.1 = s32[] add(%a.1, %b.1)
  %c.2 = f32[] add(%a.2, %b.2)
  ROOT %c.3 = (s32[], f32[]) tuple(%c.1, %c.2)
}

%goes_on (state: (s32[], f32[3])) -> pred[] {
  %state = (s32[], f32[3]{0}) parameter(0)
  %k = s32[] get-tuple-element(%state), index=0
  %four = s32[] constant(4)
  ROOT %less = pred[] compare(%k, %four), direction=LT
}

%step (state.1: (s32[], f32[3])) -> (s32[], f32[3]) {
  %state.1 = (s32[], f32[3]{0}) parameter(0)
  %k.1 = s32[] get-tuple-element(%state.1), index=0
  %one.1 = s32[] constant(1)
  %k.2 = s32[] add(%k.1, %one.1)
  %values = f32[3]{0} get-tuple-element(%state.1), index=1
  %doubled = f32[3]{0} add(%values, %values)
  ROOT %next = (s32[], f32[3]{0}) tuple(%k.2, %doubled)
}

ENTRY %main (i: s32[]) -> (f32[], f32[2], s32[], f32[], f32[3], f32[3]) {
  %i = s32[] parameter(0)
  %zero = s32[] constant(0)
  %table = f32[3]{0:T(128)} constant({1.5, -2, inf})
  %fusion = (f32[1]{0}, f32[2]{0}) fusion(%table, %i), kind=kLoop, calls=%fused, metadata={op_name="x"}
  %first = f32[1]{0} get-tuple-element(%fusion), index=0
  %scalar = f32[] bitcast(%first)
  %second = f32[2]{0} get-tuple-element(%fusion), index=1
  %row = s32[3]{0} iota(), iota_dimension=0
  %many = s32[3]{0} broadcast(%i), dimensions={}
  %rows = s32[3]{0} multiply(%row, %many)
  %total = s32[] reduce(%rows, %zero), dimensions={0}, to_apply=%sum
  %floats = f32[3]{0} convert(%rows)
  %tenth = f32[] constant(0.5)
  %pair = (s32[], f32[]) reduce(%rows, %floats, %zero, %tenth), dimensions={0}, to_apply=%two_sums
  %of_floats = f32[] get-tuple-element(%pair), index=1
  %begin = (s32[], f32[3]{0}) tuple(%zero, %floats)
  %loop = (s32[], f32[3]{0}) while(%begin), condition=%goes_on, body=%step
  %looped = f32[3]{0} get-tuple-element(%loop), index=1
  %copying = (f32[3]{0:S(1)}, f32[3]{0}, u32[]{:S(2)}) copy-start(%table)
  %copied = f32[3]{0:S(1)} copy-done(%copying)
  %hidden = f32[3]{0} constant({...})
  %uneven = (s32[], f32[3]{0}) tuple(%i, %floats)
  %leaves = (s32[], f32[3]{0}) while(%uneven), condition=%goes_on, body=%step
  ROOT %out = (f32[], f32[2]{0}, s32[], f32[], f32[3]{0}, f32[3]{0}) tuple(%scalar, %second, %total, %of_floats, %looped, %copied)
}
"""


@pytest.mark.parametrize("seed", [None, 0])
def test_fusions_loops_and_reductions_of_small_arrays_are_run(seed):
    program, returned = scalar_program.parse(OF_ARRAYS)
    i, known_values = np.arange(-1, 5, dtype=np.int32), {}
    rng = None if seed is None else np.random.default_rng(seed)
    results = [scalar_program.run(program, name, {0: i}, known_values, rng) for name in returned]
    table = np.float32([1.5, -2, np.inf])
    expected = [
        table[np.clip(i, 0, 2)],
        table[1:, None],
        3 * i,
        np.float32(0.5) + 3 * i,
        16 * np.arange(3)[:, None] * i,
        table[:, None],
    ]
    for mine, values in zip(results, expected, strict=True):
        np.testing.assert_array_equal(mine, values)
    for name, message in (("%hidden", "did not print"), ("%leaves", "some runs leave before")):
        with pytest.raises(NotImplementedError, match=message):
            scalar_program.run(program, name, {0: i}, known_values, rng)


def test_a_duplicate_name_is_refused():
    with pytest.raises(ValueError, match="names must be unique in a program, got %a twice"):
        scalar_program.parse(OF_ARRAYS.replace("%b.1", "%a"))


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
    "ceil": (F32, [F32([-1.5, -0.5, 0.2, 2])], [-1, -0.0, 1, 2]),
    "count-leading-zeros": (U32, [U32([0, 1, 2**31 - 1, 2**32 - 1])], [32, 31, 1, 0]),
    "mulhi": (U32, [U32([2**31, 2**32 - 1, 7]), U32([6, 2**32 - 1, 9])], [3, 2**32 - 2, 0]),
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
def test_an_instruction_has_the_result_that_hlo_defines(opcode):
    dtype, operands, expected = BY_HLO[opcode]
    result = scalar_program.result(opcode, operands, "", dtype)
    np.testing.assert_array_equal(result, dtype(expected))
    assert result.dtype == dtype


TWO_RUNS = F32([[0, 5], [1, 6], [2, 7]])  # three elements, in two runs
SQUARE = F32([[[1], [2]], [[3], [4]]])
OF_SHAPES = {  # operands, attributes, and their results as HLO defines them; the last axis is the runs
    "broadcast of a scalar": ("broadcast", [F32([3, 4])], "dimensions={}", [[3, 4], [3, 4]]),
    "broadcast to columns": (
        "broadcast",
        [F32([[1], [2]])],
        "dimensions={1}",
        [[[1], [2]], [[1], [2]], [[1], [2]]],
    ),
    "broadcast to rows": ("broadcast", [F32([[1], [2]])], "dimensions={0}", [[[1]] * 3, [[2]] * 3]),
    "iota": ("iota", [], "iota_dimension=1", [[[0], [1], [2]]] * 2),
    "pad": ("pad", [TWO_RUNS, F32([-1])], "padding=1_2", [[-1, -1], *TWO_RUNS, *[[-1, -1]] * 2]),
    "pad of two": (
        "pad",
        [SQUARE, F32([9])],
        "padding=0_0x1_0",
        [[[9], [1], [2]], [[9], [3], [4]]],
    ),
    "slice": ("slice", [TWO_RUNS], "slice={[1:3]}", [[1, 6], [2, 7]]),
    "slice with a stride": ("slice", [TWO_RUNS], "slice={[0:3:2]}", [[0, 5], [2, 7]]),
    "slice of two": ("slice", [SQUARE], "slice={[0:2], [1:2]}", [[[2]], [[4]]]),
    "dynamic-slice": (
        "dynamic-slice",
        [TWO_RUNS, S32([1, 9])],
        "dynamic_slice_sizes={2}",
        [[1, 6], [2, 7]],
    ),
    "dynamic-slice before the start": (
        "dynamic-slice",
        [F32([[8], [9]]), S32([-3, 1])],
        "dynamic_slice_sizes={1}",
        [[8, 9]],
    ),
    "dynamic-slice of two": (
        "dynamic-slice",
        [SQUARE, S32([1, 0]), S32([0, 1])],
        "dynamic_slice_sizes={1,1}",
        [[[3, 2]]],
    ),
}


@pytest.mark.parametrize("name", OF_SHAPES)
def test_an_instruction_on_small_arrays_has_the_result_that_hlo_defines(name):
    opcode, operands, attributes, expected = OF_SHAPES[name]
    expected = F32(expected)
    result = scalar_program.result(opcode, operands, attributes, F32, expected.shape[:-1])
    np.testing.assert_array_equal(result, expected)


def test_a_result_of_another_shape_is_refused():
    with pytest.raises(NotImplementedError, match=r"slice to \(3,\), which gave \(2,\)"):
        scalar_program.result("slice", [TWO_RUNS], "slice={[1:3]}", F32, (3,))


def test_a_bitcast_that_may_turn_an_array_is_refused():
    with pytest.raises(NotImplementedError, match="bitcast of an array whose layout counts"):
        scalar_program.result("bitcast", [SQUARE], "", F32, (4,))


@pytest.mark.parametrize("attributes", ["padding=0_1_1", "padding=-1_2"])
def test_interior_and_negative_padding_are_refused(attributes):
    with pytest.raises(NotImplementedError, match="pad of"):
        scalar_program.result("pad", [TWO_RUNS, F32([0])], attributes, F32, (5,))


@pytest.mark.parametrize("case", range(len(CONVERSIONS)))
def test_a_conversion_has_the_result_that_hlo_defines(case):
    dtype, operand, expected = CONVERSIONS[case]
    result = scalar_program.result("convert", [operand], "", dtype)
    np.testing.assert_array_equal(result, dtype(expected))
    assert result.dtype == dtype


def test_a_comparison_of_a_total_order_is_refused():
    attributes = "direction=LT, type=TOTALORDER"
    with pytest.raises(NotImplementedError, match="total order"):
        scalar_program.result("compare", [F32([0]), F32([1])], attributes, PRED)
