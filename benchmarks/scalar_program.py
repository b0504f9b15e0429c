"""Run a compiled program of scalars and small arrays, read from XLA's text, in NumPy, for many inputs.

It computes the results of a device that is not available, instruction by instruction, each
rounded as in IEEE 754. Instructions that a TPU rounds otherwise, division and the functions, can
be moved by an ULP at random: results that stay the same do not depend on that rounding.

A value is a NumPy array of its HLO shape with one axis more, the last: the runs of the program.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

DTYPES = {"f32": np.float32, "s32": np.int32, "u32": np.uint32, "pred": np.bool_}
TINY = np.finfo(np.float32).tiny


class Instruction(NamedTuple):
    """One line of a computation."""

    shape: str
    opcode: str
    operands: str
    attributes: str


class Program(NamedTuple):
    """The instructions of all computations, by name, and the last one of each computation."""

    instructions: dict[str, Instruction]
    roots: dict[str, str]


def parse(text: str) -> tuple[Program, list[str]]:
    """Return the program, and the names of the results of its entry computation."""
    head = re.compile(r"(ENTRY )?(%\S+) \(.*\{$")
    line = re.compile(r"\s*(ROOT )?(%\S+) = (\(.*?\)|\S+) ([\w-]+)\((.*?)\)(?:, (.*))?$")
    program = Program({}, {})
    computation = entry = ""
    for row in text.splitlines():
        if match := head.match(row):
            computation = match[2]
            entry = computation if match[1] else entry
        elif match := line.match(row):
            root, name, shape, opcode, operands, attributes = match.groups()
            if name in program.instructions:
                raise ValueError(f"names must be unique in a program, got {name} twice")
            program.instructions[name] = Instruction(shape, opcode, operands, attributes or "")
            if root:
                program.roots[computation] = name
    returned = program.roots[entry]
    last = program.instructions[returned]
    return program, names(last.operands) if last.opcode == "tuple" else [returned]


def names(operands: str) -> list[str]:
    """Return the names of the instructions that another reads."""
    return re.findall(r"%[\w.\-]+", operands)


def run(
    program: Program,
    wanted: str,
    parameters: Mapping[int, Any],
    known: dict[str, Any],
    rng: np.random.Generator | None = None,
) -> Any:
    """Return the result of instruction ``wanted``: an array, or a list of them for a tuple.

    Args:
      program: from ``parse``.
      wanted: the name of an instruction.
      parameters: ``{number: values}``, one value for each run of the program.
      known: results computed before, by name; new ones are added.
      rng: moves results that may not be rounded as in IEEE 754 by an ULP either way, or not.

    Raises:
      NotImplementedError: an instruction or a type is not among those known here.
    """
    left = [wanted]
    while left:
        name = left[-1]
        if name in known:
            left.pop()
            continue
        shape, opcode, operands, attributes = program.instructions[name]
        if opcode == "parameter":
            known[name] = parameters[int(operands)]
        elif opcode == "constant":
            known[name] = constant(operands, *array_type(shape, opcode))
        elif unknown := [operand for operand in names(operands) if operand not in known]:
            left += unknown
        else:
            values = [known[operand] for operand in names(operands)]
            if opcode in TUPLES:
                known[name] = TUPLES[opcode](values, attributes)
            elif opcode == "fusion":
                root = program.roots[called_computation(attributes, "calls")]
                known[name] = run(program, root, dict(enumerate(values)), {}, rng)
            elif opcode == "reduce":
                known[name] = reduce_arrays(program, values, attributes, rng)
            elif opcode == "while":
                known[name] = run_loop(program, values[0], attributes, rng)
            else:
                known[name] = flush_subnormals(
                    result(opcode, values, attributes, *array_type(shape, opcode)), opcode, rng
                )
    return known[wanted]


def array_type(shape: str, opcode: str) -> tuple[Any, tuple[int, ...]]:
    """Return the dtype and the dimensions of an array, without the axis of runs."""
    match = re.match(r"(\w+)\[([\d,]*)\]", shape)
    if not match or match[1] not in DTYPES:
        raise NotImplementedError(f"{opcode} to {shape}")
    return DTYPES[match[1]], tuple(map(int, filter(None, match[2].split(","))))


def integers(attributes: str, name: str) -> list[int]:
    """Return the integers of an attribute: ``dimensions={0,1}``."""
    match = re.search(rf"\b{name}=\{{?([\d,]*)", attributes)
    return [int(number) for number in match[1].split(",") if number] if match else []


def called_computation(attributes: str, name: str) -> str:
    """Return the computation that an attribute names: ``calls=%fused_computation``."""
    match = re.search(rf"\b{name}=(%[\w.\-]+)", attributes)
    if not match:
        raise NotImplementedError(f"no {name} in {attributes}")
    return match[1]


def constant(text: str, dtype: Any, dims: tuple[int, ...]) -> np.ndarray:
    """Return the value of ``constant({1, 2})``, one for all runs."""
    words = re.findall(r"[^\s{},]+", text)
    if "..." in words:
        raise NotImplementedError("a constant that XLA did not print")
    numbers = [float({"true": 1, "false": 0}.get(word, word)) for word in words]
    return np.array(numbers).astype(dtype).reshape(*dims, 1)


def reduce_arrays(
    program: Program, values: list[Any], attributes: str, rng: np.random.Generator | None
) -> Any:
    """Reduce several arrays at once, in the order of their indices.

    HLO leaves the order open; with ``rng`` it is random.
    """
    arrays, total = values[: len(values) // 2], values[len(values) // 2 :]
    root = program.roots[called_computation(attributes, "to_apply")]
    axes = integers(attributes, "dimensions")
    rest = [axis for axis in range(arrays[0].ndim) if axis not in axes]
    rows = [
        x.transpose(*axes, *rest).reshape(-1, *(x.shape[axis] for axis in rest)) for x in arrays
    ]
    order = range(len(rows[0])) if rng is None else rng.permutation(len(rows[0]))
    for k in order:
        results = run(program, root, dict(enumerate([*total, *(row[k] for row in rows)])), {}, rng)
        total = results if isinstance(results, list) else [results]
    return total if len(total) > 1 else total[0]


def run_loop(program: Program, state: Any, attributes: str, rng: np.random.Generator | None) -> Any:
    """Run a loop that all runs leave after the same number of steps."""
    condition, body = (
        program.roots[called_computation(attributes, name)] for name in ("condition", "body")
    )
    while (goes_on := run(program, condition, {0: state}, {}, rng)).any():
        if not goes_on.all():
            raise NotImplementedError("a while that some runs leave before others")
        state = run(program, body, {0: state}, {}, rng)
    return state


def result(
    opcode: str,
    values: list[np.ndarray],
    attributes: str,
    dtype: Any,
    dims: tuple[int, ...] = (),
) -> np.ndarray:
    """Return the result of one instruction, without the rounding of a TPU."""
    with np.errstate(all="ignore"):
        if opcode == "compare":
            if "TOTALORDER" in attributes:
                raise NotImplementedError("a comparison of a total order")
            direction = re.search(r"direction=(\w+)", attributes)
            value = COMPARISONS[direction[1] if direction else ""](*values)
        elif opcode == "convert" and values[0].dtype == np.float32 and dtype in INTEGERS:
            limits = np.iinfo(dtype)
            whole = np.nan_to_num(np.trunc(values[0].astype(np.float64)))
            value = np.clip(whole, limits.min, limits.max).astype(dtype)
        elif opcode in ("bitcast", "bitcast-convert"):
            if max(len(dims), values[0].ndim - 1) > 1:
                raise NotImplementedError(f"{opcode} of an array whose layout counts")
            bits = np.ascontiguousarray(values[0]).view(dtype)
            value = bits.reshape(*dims, bits.shape[-1])
        elif opcode in ARRAYS:
            value = ARRAYS[opcode](*values, attributes=attributes, dims=dims)
        elif opcode in OPERATIONS:
            value = np.asarray(OPERATIONS[opcode](*values))
        else:
            raise NotImplementedError(opcode)
    if value.shape[:-1] != dims:
        raise NotImplementedError(f"{opcode} to {dims}, which gave {value.shape[:-1]}")
    return value.astype(dtype)


def broadcast(x: np.ndarray, *, attributes: str, dims: tuple[int, ...]) -> np.ndarray:
    """Copy x along the dimensions that it does not have."""
    sizes = [1] * len(dims)
    for size, dimension in zip(x.shape, integers(attributes, "dimensions"), strict=False):
        sizes[dimension] = size
    return np.broadcast_to(x.reshape(*sizes, x.shape[-1]), (*dims, x.shape[-1]))


def iota(*, attributes: str, dims: tuple[int, ...]) -> np.ndarray:
    """Return the index along one dimension."""
    (dimension,) = integers(attributes, "iota_dimension")
    return np.indices(dims)[dimension][..., None]


def pad(x: np.ndarray, value: np.ndarray, *, attributes: str, dims: tuple[int, ...]) -> np.ndarray:
    """Surround x by copies of a value: ``padding=LOW_HIGH`` for each dimension, joined by "x"."""
    match = re.search(r"padding=([\dx_\-]+)", attributes)
    widths = [tuple(map(int, ends.split("_"))) for ends in match[1].split("x")] if match else []
    if any(len(ends) != 2 or min(ends) < 0 for ends in widths):
        raise NotImplementedError(f"pad of {attributes}")
    runs = max(x.shape[-1], value.shape[-1])
    padded = np.broadcast_to(value, (*dims, runs)).astype(x.dtype)
    padded[tuple(slice(low, low + n) for (low, _), n in zip(widths, x.shape, strict=False))] = x
    return padded


def take_slice(x: np.ndarray, *, attributes: str, dims: tuple[int, ...]) -> np.ndarray:
    """Return ``slice={[START:END:STRIDE], ...}``; the stride may be left out."""
    text = re.search(r"\bslice=\{([^}]*)\}", attributes)
    ranges = re.findall(r"\[(\d+):(\d+)(?::(\d+))?\]", text[1] if text else "")
    return x[tuple(slice(int(a), int(b), int(step or 1)) for a, b, step in ranges)]


def dynamic_slice(
    x: np.ndarray, *starts: np.ndarray, attributes: str, dims: tuple[int, ...]
) -> np.ndarray:
    """Return a slice of x for each run; a start past the end is clamped, as in HLO."""
    for axis, (start, size) in enumerate(zip(starts, dims, strict=True)):
        first = np.clip(start.astype(np.int64), 0, x.shape[axis] - size)
        index = first + np.arange(size)[:, None]
        others = [1] * (x.ndim - 1)
        others[axis] = size
        x = np.take_along_axis(x, index.reshape(*others, -1), axis)
    return x


def flush_subnormals(value: np.ndarray, opcode: str, rng: np.random.Generator | None) -> np.ndarray:
    """Replace subnormal numbers, which a TPU lacks, by 0; with ``rng`` move inexact results by an ULP."""
    if value.dtype != np.float32:
        return value
    if rng is not None and opcode in INEXACT:
        toward = rng.choice(np.array([-np.inf, 0, np.inf], np.float32), value.shape)
        value = np.where(toward == 0, value, np.nextafter(value, toward))
    return np.where(np.abs(value) < TINY, np.copysign(np.float32(0), value), value)


def shift(direction: Callable[..., Any]) -> Callable[..., Any]:
    """Make a shift that returns 0 for counts of at least the width."""

    def shift_bits(x: np.ndarray, by: np.ndarray) -> np.ndarray:
        bits = x.view(np.uint32)
        return np.where(by.view(np.uint32) < 32, direction(bits, by.view(np.uint32) % 32), 0).view(
            x.dtype
        )

    return shift_bits


def leading_zeros(x: np.ndarray) -> np.ndarray:
    """Count the zeros above the highest bit of a number of 32 bits."""
    return 32 - np.frexp(x.view(np.uint32).astype(np.float64))[1]


def high_product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the upper 32 of the 64 bits of a product."""
    wide = np.int64 if a.dtype == np.int32 else np.uint64
    return (a.astype(wide) * b.astype(wide)) >> wide(32)


INTEGERS = (np.int32, np.uint32)
INEXACT = ("divide", "sqrt", "rsqrt", "log", "exponential", "power")
COMPARISONS = {
    "EQ": np.equal,
    "NE": np.not_equal,
    "LT": np.less,
    "LE": np.less_equal,
    "GT": np.greater,
    "GE": np.greater_equal,
}
OPERATIONS: dict[str, Callable[..., Any]] = {
    "add": np.add,
    "subtract": np.subtract,
    "multiply": np.multiply,
    "mulhi": high_product,
    "divide": lambda a, b: a / b if a.dtype == np.float32 else np.trunc(a / np.where(b, b, 1.0)),
    "remainder": np.fmod,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "not": np.invert,
    "negate": np.negative,
    "abs": np.abs,
    "sign": np.sign,
    "floor": np.floor,
    "ceil": np.ceil,
    "count-leading-zeros": leading_zeros,
    "round-nearest-afz": lambda x: np.trunc(x) + np.sign(x) * (np.abs(x - np.trunc(x)) >= 0.5),
    "round-nearest-even": np.rint,
    "maximum": np.maximum,
    "minimum": np.minimum,
    "clamp": lambda low, x, high: np.clip(x, low, high),
    "is-finite": np.isfinite,
    "select": np.where,
    "copy": lambda x: x,
    "convert": lambda x: x,
    "shift-left": shift(np.left_shift),
    "shift-right-logical": shift(np.right_shift),
    "shift-right-arithmetic": lambda x, by: (
        x.view(np.int32) >> np.minimum(by.view(np.uint32), 31).astype(np.int32)
    ),
    "sqrt": np.sqrt,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "log": np.log,
    "exponential": np.exp,
    "power": np.power,
}
ARRAYS: dict[str, Callable[..., np.ndarray]] = {
    "broadcast": broadcast,
    "iota": iota,
    "pad": pad,
    "slice": take_slice,
    "dynamic-slice": dynamic_slice,
}
TUPLES: dict[str, Callable[[list[Any], str], Any]] = {
    "tuple": lambda values, _: values,
    "get-tuple-element": lambda values, attributes: values[0][integers(attributes, "index")[0]],
    "copy-start": lambda values, _: values,
    "copy-done": lambda values, _: values[0][0],
}
