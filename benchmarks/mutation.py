"""Claim: of 100 random one-token faults in the search of causes, its tests detect at least 90.

A fault replaces an operator, a comparison, a number or a truth value in a copy of the package, but
not in type annotations and docstrings. A fault in the search of curves is planted for the
tests of curves, one in the search of updates for those of updates. A copy without a fault must pass,
and one that cannot be imported must fail. ``python -m benchmarks.mutation 10`` plants ten and writes
nothing. It takes most of an hour and is not among ``python -m benchmarks``.
"""

import ast
import os
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from benchmarks.timing import report

ROOT = Path(__file__).resolve().parents[1]
FILES = [
    *sorted((ROOT / "jaxsched/parity/_explain").glob("*.py")),
    *sorted((ROOT / "jaxsched/torch").glob("_update_*.py")),
]
# By the folder of the fault; quick ones first, since the first failure ends the run.
TESTS = {
    "_explain": ("solve", "explain_parts", "explain_changes", "causes"),
    "torch": (
        "update_changes",
        "update_solve",
        "update_explain",
        "update_runs",
        "update_rules",
        "update_causes",
    ),
}
FAULTS, SHARE, SECONDS = 100, 0.9, 600

OTHER = {
    **{ast.Add: "-", ast.Sub: "+", ast.Mult: "+", ast.Div: "*", ast.FloorDiv: "*", ast.Mod: "*"},
    **{ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "=="},
    **{ast.And: "or", ast.Or: "and", ast.BitAnd: "|", ast.BitOr: "&", ast.In: "not in"},
    **{ast.Is: "is not", ast.IsNot: "is", ast.NotIn: "in"},
}
"""The replacements of each operator."""

Fault = tuple[Path, int, int, str]
"""File, begin and end of the token, and its replacement."""


def faults(path: Path) -> Iterator[Fault]:
    """Yield each fault that one token of a file can have."""
    source = path.read_text()
    starts = [0]
    for line in source.encode().splitlines(keepends=True):
        starts.append(starts[-1] + len(line))

    def place(line: int, column: int) -> int:
        return len(source.encode()[: starts[line - 1] + column].decode())

    tree = ast.parse(source)
    annotations = {
        id(inner)
        for node in ast.walk(tree)
        for part in (getattr(node, "annotation", None), getattr(node, "returns", None))
        for inner in (ast.walk(part) if part else ())
    }
    for node in ast.walk(tree):
        if id(node) in annotations:
            continue
        pairs: list[tuple[ast.expr, ast.AST, ast.expr]] = []
        if isinstance(node, ast.BinOp):
            pairs = [(node.left, node.op, node.right)]
        elif isinstance(node, ast.BoolOp):
            pairs = [(a, node.op, b) for a, b in zip(node.values, node.values[1:], strict=False)]
        elif isinstance(node, ast.Compare):
            operands = [node.left, *node.comparators]
            pairs = list(zip(operands, node.ops, operands[1:], strict=False))
        for left, operator, right in pairs:
            if type(operator) in OTHER:
                begin = place(left.end_lineno or 0, left.end_col_offset or 0)
                end = place(right.lineno, right.col_offset)
                between = source[begin:end]
                token = between.strip(" \n()")
                at = begin + between.index(token)
                yield path, at, at + len(token), OTHER[type(operator)]
        is_number = isinstance(node, ast.Constant) and isinstance(node.value, bool | int | float)
        if is_number:
            begin = place(node.lineno, node.col_offset)
            end = place(node.end_lineno or 0, node.end_col_offset or 0)
            other = not node.value if isinstance(node.value, bool) else node.value + 1
            yield path, begin, end, repr(other)


def is_noticed(fault: Fault, folder: Path) -> bool:
    """Return true if the tests fail on a copy of the package with the fault."""
    path, begin, end, other = fault
    copy = folder / f"{path.stem}_{begin}_{end}"
    shutil.copytree(
        ROOT / "jaxsched", copy / "jaxsched", ignore=shutil.ignore_patterns("__pycache__")
    )
    changed = copy / path.relative_to(ROOT)
    source = path.read_text()
    changed.write_text(source[:begin] + other + source[end:])
    # Neither pytest's path nor the current folder: they hold the package without the fault.
    places = f"pythonpath={copy} {ROOT / 'parity_tests'} {ROOT}"
    options = ["-qx", "-n", "0", "-p", "no:cacheprovider", "-p", "no:randomly", "-o", places]
    tests = [f"parity_tests/test_{name}.py" for name in TESTS[path.parent.name]]
    command = [sys.executable, "-m", "pytest", *options, *tests]
    switches = dict.fromkeys(("PYTHONSAFEPATH", "PYTHONDONTWRITEBYTECODE"), "1")
    cache = {
        "JAX_COMPILATION_CACHE_DIR": str(folder / f"xla-{threading.get_ident()}"),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "0",
    }
    environment = {**os.environ, "PYTHONPATH": str(copy), **switches, **cache}
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, timeout=SECONDS, check=False
        )
    except subprocess.TimeoutExpired:  # a search without an end
        return True
    finally:
        shutil.rmtree(copy)
    return done.returncode != 0


def show(fault: Fault) -> str:
    """Return a fault as ``file:line: token -> other``."""
    path, begin, end, other = fault
    source = path.read_text()
    line = source.count("\n", 0, begin) + 1
    return f"{path.name}:{line}: {source[begin:end]} -> {other}"


if __name__ == "__main__":
    count = int(sys.argv[1]) if sys.argv[1:] else FAULTS
    drawn = random.Random(0).sample([fault for path in FILES for fault in faults(path)], count)
    begin = time.perf_counter()
    missed = 0
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(os.cpu_count()) as pool:
        for path in (FILES[0], FILES[-1]):
            none, broken = ((path, 0, end, other) for end, other in ((0, ""), (1, "1 +")))
            if is_noticed(none, Path(name)) or not is_noticed(broken, Path(name)):
                sys.exit(
                    "the tests must pass without a fault, and fail where the package is broken"
                )
        results = pool.map(lambda fault: is_noticed(fault, Path(name)), drawn)
        for fault, noticed in zip(drawn, results, strict=True):
            missed += not noticed
            print(f"{'noticed' if noticed else 'MISSED '} {show(fault)}", flush=True)
    claims = {f"faults of {count} that no test notices": (missed, (1 - SHARE) * count)}
    if count == FAULTS:
        report("mutation", {"all": [time.perf_counter() - begin]}, claims)
    sys.exit(missed > (1 - SHARE) * count)
