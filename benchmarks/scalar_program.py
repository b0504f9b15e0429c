"""A compiled program of scalars, read from XLA's text and run in NumPy, for many inputs at once.

So it can be told what a device that is not at hand would compute: instruction by instruction, each
of them rounded as IEEE 754 has it. What a TPU rounds otherwise, division and the functions, can be
moved by an ULP at random: what then comes out the same does not depend on it.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

DTYPES = {"f32": np.float32, "s32": np.int32, "u32": np.uint32, "pred": np.bool_}
TINY = np.finfo(np.float32).tiny


class Instruction(NamedTuple):
    """One line of the entry computation."""

    dtype: str
    opcode: str
    operands: str
    attributes: str


def parsed(text: str) -> tuple[dict[str, Instruction], list[str]]:
    """The instructions of the entry computation, and the names of what it returns."""
    entry = text[text.index("\nENTRY") :].splitlines()[2:]
    line = re.compile(r"\s*(ROOT )?(%\S+) = (\(.*?\)|\S+) ([\w-]+)\((.*?)\)(?:, (.*))?$")
    program: dict[str, Instruction] = {}
    returned = ""
    for match in filter(None, map(line.match, entry)):
        root, name, shape, opcode, operands, attributes = match.groups()
        program[name] = Instruction(shape, opcode, operands, attributes or "")
        returned = name if root else returned
    last = program[returned]
    return program, names(last.operands) if last.opcode == "tuple" else [returned]


def names(operands: str) -> list[str]:
    """The instructions that another reads."""
    return re.findall(r"%[\w.\-]+", operands)


def run(
    program: Mapping[str, Instruction],
    wanted: str,
    parameters: Mapping[int, np.ndarray],
    known: dict[str, np.ndarray],
    rng: np.random.Generator | None = None,
) -> np.ndarray:
    """What instruction ``wanted`` computes.

    Args:
      program: as ``parsed`` has it.
      wanted: the name of a scalar.
      parameters: ``{number: values}``, one value for each run of the program.
      known: what was computed before; is added to.
      rng: moves what is not rounded as IEEE 754 has it by an ULP either way, or not.

    Raises:
      NotImplementedError: an instruction is not among those known here, or no scalar.
    """
    left = [wanted]
    while left:
        name = left[-1]
        if name in known:
            left.pop()
            continue
        shape, opcode, operands, attributes = program[name]
        scalar = re.match(r"(\w+)\[\]", shape)
        if not scalar or scalar[1] not in DTYPES:
            raise NotImplementedError(f"{opcode} to {shape}")
        dtype = DTYPES[scalar[1]]
        if opcode == "parameter":
            known[name] = parameters[int(operands)]
        elif opcode == "constant":
            value = {"true": True, "false": False}.get(operands, operands)
            known[name] = np.array(value if isinstance(value, bool) else float(value)).astype(dtype)
        elif unknown := [operand for operand in names(operands) if operand not in known]:
            left += unknown
        else:
            values = [known[operand] for operand in names(operands)]
            known[name] = flushed(result(opcode, values, attributes, dtype), opcode, rng)
    return known[wanted]


def result(opcode: str, values: list[np.ndarray], attributes: str, dtype: Any) -> np.ndarray:
    """One instruction's result, before what a TPU does to it."""
    with np.errstate(all="ignore"):
        if opcode == "compare":
            if "TOTALORDER" in attributes:
                raise NotImplementedError("a comparison of a total order")
            direction = re.search(r"direction=(\w+)", attributes)
            return COMPARISONS[direction[1] if direction else ""](*values)
        if opcode == "convert" and values[0].dtype == np.float32 and dtype in (np.int32, np.uint32):
            limits = np.iinfo(dtype)
            whole = np.nan_to_num(np.trunc(values[0].astype(np.float64)))
            return np.clip(whole, limits.min, limits.max).astype(dtype)
        if opcode in ("bitcast", "bitcast-convert"):
            return np.ascontiguousarray(values[0]).view(dtype)
        if opcode not in OPERATIONS:
            raise NotImplementedError(opcode)
        return np.asarray(OPERATIONS[opcode](*values)).astype(dtype)


def flushed(value: np.ndarray, opcode: str, rng: np.random.Generator | None) -> np.ndarray:
    """A TPU has no subnormal numbers."""
    if value.dtype != np.float32:
        return value
    if rng is not None and opcode in INEXACT:
        toward = rng.choice(np.array([-np.inf, 0, np.inf], np.float32), value.shape)
        value = np.where(toward == 0, value, np.nextafter(value, toward))
    return np.where(np.abs(value) < TINY, np.copysign(np.float32(0), value), value)


def shift(direction: Callable[..., Any]) -> Callable[..., Any]:
    """Past the width there is nothing left."""

    def shifted(x: np.ndarray, by: np.ndarray) -> np.ndarray:
        bits = x.view(np.uint32)
        return np.where(by.view(np.uint32) < 32, direction(bits, by.view(np.uint32) % 32), 0).view(
            x.dtype
        )

    return shifted


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
