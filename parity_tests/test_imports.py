"""Imports point down only, and `import jaxsched` brings neither torch nor flax nor matplotlib."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import jaxsched

PACKAGE = Path(jaxsched.__file__).parent
HEAVY = ("torch", "flax", "matplotlib", "sklearn", "rich", "tyro")
# A module may import those in lines above its own.
LAYERS = [
    ["tpu"],
    ["float64"],
    ["schedules"],
    ["param_groups", "trace"],
    ["lr_scheduler", "optimizers"],
    ["recipe"],
    ["recipes", "parity"],
    ["testing", "torch", "flax", "plot"],
    ["examples"],
    ["cli"],
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def loaded_after(code):
    script = f"import sys\n{code}\nprint(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_import_brings_nothing_heavy():
    assert loaded_after("import jaxsched") == []


def test_and_the_check_can_fail():
    assert "flax" in loaded_after("import jaxsched, flax")


@pytest.mark.parametrize(
    ("package", "extra", "name"), [("torch", "torch", "PyTorch"), ("flax", "train", "Flax")]
)
def test_what_is_missing_is_told(package, extra, name):
    code = f"import sys; sys.modules[{package!r}] = None; import jaxsched.{package}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    sentence = f"jaxsched.{package} needs {name}: pip install 'jaxsched[{extra}]'"
    assert done.stderr.splitlines()[-1] == f"ModuleNotFoundError: {sentence}"


def imported(source):
    """The modules of the package that a file imports, by their first name."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.ImportFrom) and node.module == "jaxsched":
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("jaxsched."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (
                alias.name.split(".")[1]
                for alias in node.names
                if alias.name.startswith("jaxsched.")
            )


def upward(source, own):
    names = {
        "Recipe": "recipe",
        "Trace": "trace",
        "compare": "parity",
        "hyperparameters": "optimizers",
    }
    found = {names.get(name, name) for name in imported(source)}
    return {name for name in found if name != own and LEVEL.get(name, -1) >= LEVEL[own]}


FILES = [
    path for path in sorted(PACKAGE.rglob("*.py")) if path.parent != PACKAGE or path.stem in LEVEL
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert not upward(path.read_text(), own)


def test_every_file_has_a_level():
    first = {
        path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.py")
    }
    assert first - {"__init__"} <= set(LEVEL)


def test_an_upward_import_is_seen():
    assert upward("from jaxsched import Recipe", "schedules") == {"recipe"}
    assert upward("from jaxsched.torch import record", "parity") == {"torch"}


@pytest.mark.parametrize("name", ["torch", "flax"])
def test_one_home_for_each_framework(name):
    for path in PACKAGE.rglob("*.py"):
        roots = {
            (alias.name if isinstance(node, ast.Import) else node.module or "").split(".")[0]
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Import | ast.ImportFrom)
            for alias in node.names
        }
        home = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        assert name not in roots or home in (name, "examples"), path


def test_the_package_has_one_version():
    import tomllib

    pyproject = Path(__file__).parents[1] / "pyproject.toml"
    assert tomllib.loads(pyproject.read_text())["project"]["version"] == jaxsched.__version__
