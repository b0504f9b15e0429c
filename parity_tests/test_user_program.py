"""A user's programs run, and a type checker in strict mode finds no error of this package in them.

The programs are in ``user_program``: loops in Flax NNX, Linen and Equinox, a recipe of the user's own,
a verification in pytest, and a torch script that is taken over.
"""

import importlib.util
import inspect
import json
import os
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import long_after

import jaxsched
from jaxsched import recipes

PROGRAMS = Path(__file__).parent / "user_program"
SCRIPTS = {
    "nnx_loop": "6 iterations from 0.1",
    "linen_loop": "weight 6.000e-04, bias 9.760e-02",
    "equinox_loop": "4 updates in 4 iterations",
    "own_recipe": "cosine(100, lrf=0.2), 8 rules, 5 recipes in one program",
}

needs_pyright = pytest.mark.skipif(
    importlib.util.find_spec("pyright") is None, reason="pyright is of the extra test"
)

MAX_SYMBOLS, MIN_KNOWN = 450, 0.99
"""Symbols that the package may export, and the share of them whose type must be known."""

# Untyped parts of other packages that strict mode reports: functions of their modules, and methods of
# their objects. Only "partially unknown" is due to them, a wrong argument is not.
UNTYPED_MODULES = ("jax.", "jnp.", "eqx.", "nnx.")
UNTYPED_METHODS = {
    "TrainState.create": "flax",
    "loss.backward": "torch",
    "model.apply": "flax",
    "model.init": "flax",
    "optimizer.step": "torch",
    "optimizer.update": "flax",
    "state.apply_fn": "flax",
    "state.apply_gradients": "flax",
}


def is_foreign(rule, expression, message):
    """Return true if an error is due to another package, which is not fully typed."""
    if "jaxsched" in message:
        return False
    if rule == "reportMissingTypeStubs":
        return expression == "optax"
    untyped = expression.startswith(UNTYPED_MODULES) or expression in UNTYPED_METHODS
    return rule == "reportUnknownMemberType" and untyped


def pyright(*arguments, folder):
    """Return pyright's report, as JSON."""
    path = os.pathsep.join([str(folder), str(Path(jaxsched.__file__).parents[1])])
    # --verifytypes looks for packages of the first python of PATH, not of --pythonpath.
    programs = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {
        **os.environ,
        "PYTHONPATH": path,
        "PATH": programs,
        "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1",
    }
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pyright",
            "--outputjson",
            "--pythonpath",
            sys.executable,
            *arguments,
        ],
        capture_output=True,
        text=True,
        cwd=folder,
        env=environment,
    )
    assert done.stdout.startswith("{"), done.stdout + done.stderr
    return json.loads(done.stdout)


def symbols(package, folder):
    """Return how many symbols a package exports, and the share of them whose type is known."""
    report = pyright("--verifytypes", package, "--ignoreexternal", folder=folder)
    counts = report["typeCompleteness"]["exportedSymbolCounts"]
    unknown = [
        symbol["name"]
        for symbol in report["typeCompleteness"]["symbols"]
        if symbol["isExported"] and not symbol["isTypeKnown"]
    ]
    return sum(counts.values()), counts["withKnownType"] / sum(counts.values()), unknown


# A line of a program, and the rule that it violates.
MISTAKES = [
    ("jaxsched.compair", "reportAttributeAccessIssue"),
    ('optimizers.sgd("0.1")', "reportArgumentType"),
    ("optimizers.sgd(0.1, nesterof=True)", "reportCallIssue"),
    ('recipes.yolov5_resnet18(epochs="100")', "reportArgumentType"),
    ("recipes.ultralytics(epochs=3, steps_per_epoch=4, batchsize=16)", "reportCallIssue"),
    ("recipes.ultralytics(epochs=3)", "reportCallIssue"),
    ("schedules.warmup(0.1, 5, start=0.0)", "reportArgumentType"),
    ("schedules.cosine(100, lrf=0.2).lrf", "reportAttributeAccessIssue"),
    ("recipes.yolov5_resnet18().optimizer(3)", "reportArgumentType"),
    ('recipes.yolov5_resnet18().optimizer({"head": {"kernel": 0.1}})', "reportArgumentType"),
    ("untyped.double(1.0)", "reportUnknownMemberType"),
]

# An expression, and the type that a type checker shows for it.
SHOWN = {
    "recipes.ultralytics": "(*, epochs: int, steps_per_epoch: int, batch_size: int = 16",
    "optimizers.sgd": "-> GradientTransformationExtraArgs",
    "recipes.yolov5_resnet18().optimizer(by_leaf_name)": '"GradientTransformationExtraArgs"',
    "jaxsched.hyperparameters(())": '"dict[str, dict[str, Array]]"',
    "schedules.cosine(100, lrf=0.2)": '"Schedule"',
    "schedules.cosine(100, lrf=0.2)(3)": '"Array"',
    "jaxsched.compare(recipes.yolov5_resnet18(), recipes.yolov5_resnet18()).causes": "str",
}

IMPORTS = """# pyright: reportUnusedExpression=false
import jaxsched
from jaxsched import optimizers, recipes, schedules
from jaxsched.param_groups import by_leaf_name
import untyped
"""


@pytest.fixture(scope="module")
def diagnostics_by_program(tmp_path_factory):
    """``{program: [(line, severity, rule, expression, message)]}``, in strict mode."""
    folder = tmp_path_factory.mktemp("programs")
    for path in PROGRAMS.glob("*.py"):
        shutil.copy(path, folder)
    (folder / "untyped.py").write_text("def double(x):\n    return 2 * x\n")
    lines = [line for line, _ in MISTAKES]
    (folder / "mistakes.py").write_text(IMPORTS + "\n".join(lines) + "\n")
    lines = [f"reveal_type({line})" for line in SHOWN]
    (folder / "shown.py").write_text(IMPORTS + "\n".join(lines) + "\n")
    settings = {"typeCheckingMode": "strict", "include": ["."]}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    programs = {path.stem: [] for path in folder.glob("*.py")}
    for entry in pyright("-p", str(folder), folder=folder)["generalDiagnostics"]:
        path, (start, end) = Path(entry["file"]), entry["range"].values()
        line = path.read_text().splitlines()[start["line"]]
        last = end["character"] if start["line"] == end["line"] else None
        programs[path.stem].append(
            (
                start["line"],
                entry["severity"],
                entry.get("rule", ""),
                line[start["character"] : last],
                entry["message"],
            )
        )
    return programs


def errors(diagnostics):
    """Return the errors that are not due to other packages."""
    return [
        f"line {line + 1}: {message} ({rule})"
        for line, severity, rule, expression, message in diagnostics
        if severity == "error" and not is_foreign(rule, expression, message)
    ]


@pytest.mark.parametrize("name", long_after(1, SCRIPTS))
def test_the_program_runs(name, capsys):
    runpy.run_path(str(PROGRAMS / f"{name}.py"), run_name="__main__")
    assert capsys.readouterr().out.startswith(SCRIPTS[name])


@pytest.mark.torch
def test_the_torch_program_runs(capsys):
    pytest.importorskip("torch", reason="the program takes over a torch script")
    runpy.run_path(str(PROGRAMS / "torch_bridge.py"), run_name="__main__")
    assert capsys.readouterr().out.startswith("6 updates, 4 buffers")


@pytest.mark.long
def test_the_verification_passes(tmp_path):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", "."]
    done = subprocess.run(
        [*command, str(PROGRAMS / "verification.py")], capture_output=True, text=True, cwd=tmp_path
    )
    assert "3 passed" in done.stdout, done.stdout + done.stderr


PROGRAMS_CHECKED = sorted(path.stem for path in PROGRAMS.glob("*.py"))


@pytest.mark.long
@needs_pyright
@pytest.mark.parametrize("name", PROGRAMS_CHECKED)
def test_a_program_has_no_type_error(name, diagnostics_by_program):
    if name == "torch_bridge":
        pytest.importorskip("torch", reason="without PyTorch its types are not known")
    assert errors(diagnostics_by_program[name]) == []


@pytest.mark.long
@needs_pyright
@pytest.mark.parametrize("line", range(len(MISTAKES)), ids=[line for line, _ in MISTAKES])
def test_a_mistake_is_a_type_error(line, diagnostics_by_program):
    at = len(IMPORTS.splitlines()) + line
    reported = [entry for entry in diagnostics_by_program["mistakes"] if entry[0] == at]
    assert any(MISTAKES[line][1] in error for error in errors(reported)), reported


@pytest.mark.long
@needs_pyright
@pytest.mark.parametrize("line", range(len(SHOWN)), ids=list(SHOWN))
def test_a_type_checker_shows(line, diagnostics_by_program):
    at = len(IMPORTS.splitlines()) + line
    messages = [
        entry[4]
        for entry in diagnostics_by_program["shown"]
        if (entry[0], entry[1]) == (at, "information")
    ]
    assert len(messages) == 1, diagnostics_by_program["shown"]
    assert list(SHOWN.values())[line] in messages[0]


def test_an_error_that_names_this_package_is_its_own():
    message = 'Type of "ones" is partially unknown'
    assert is_foreign("reportUnknownMemberType", "jnp.ones", message)
    assert not is_foreign("reportUnknownMemberType", "recipes.yolov5", message)
    assert not is_foreign("reportUnknownMemberType", "jnp.ones", f"{message}: jaxsched.Recipe")
    assert not is_foreign("reportArgumentType", "jnp.ones", message)


def test_ultralytics_shows_its_arguments():
    parameters = inspect.signature(recipes.ultralytics).parameters
    assert list(parameters)[:4] == ["epochs", "steps_per_epoch", "batch_size", "args"]
    assert all(p.kind is p.KEYWORD_ONLY for p in parameters.values())
    assert parameters["batch_size"].annotation is int


@pytest.mark.long
@needs_pyright
def test_the_types_of_what_is_exported_are_known(tmp_path):
    pytest.importorskip("torch", reason="without PyTorch the types of jaxsched.torch are not known")
    count, share, unknown = symbols("jaxsched", tmp_path)
    assert count < MAX_SYMBOLS
    assert share >= MIN_KNOWN, unknown


@pytest.mark.long
@needs_pyright
def test_a_function_without_types_is_counted(tmp_path):
    package = tmp_path / "half"
    package.mkdir()
    (package / "py.typed").touch()
    (package / "__init__.py").write_text(
        "def typed(x: int) -> int:\n    return x\n\n\ndef bare(x):\n    return x\n"
    )
    count, share, unknown = symbols("half", tmp_path)
    assert (count, share, unknown) == (2, 0.5, ["half.bare"])
    assert share < MIN_KNOWN
