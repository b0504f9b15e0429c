"""Imports point down only, and `jaxsched` imports neither torch nor flax nor matplotlib."""

import ast
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import jaxsched

PACKAGE = Path(jaxsched.__file__).parent
HEAVY = ("torch", "flax", "matplotlib", "sklearn", "rich", "cyclopts")
# A module may import those in lines above its own.
LAYERS = [
    ["_validate", "_io", "_arithmetic", "_extras"],
    ["_float64"],
    ["_schedule"],
    ["schedules"],
    ["param_groups", "_groups"],
    ["_trace"],
    ["_figure"],
    ["lr_scheduler", "optimizers"],
    ["_recipe"],
    ["recipes", "parity", "_rows"],
    ["testing", "torch", "flax", "plot"],
    ["examples"],
    ["cli"],
    ["__main__"],
]
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}


def modules_loaded_by(code):
    script = f"import sys\n{code}\nprint(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    return done.stdout.split()


def test_import_brings_nothing_heavy():
    assert modules_loaded_by("from jaxsched import *") == []


def test_an_import_of_flax_is_detected():
    assert "flax" in modules_loaded_by("import jaxsched, flax")


@pytest.mark.parametrize(
    ("module", "package", "extra", "name"),
    [
        ("torch", "torch", "torch", "PyTorch"),
        ("flax", "flax", "train", "Flax"),
        ("plot", "matplotlib", "train", "matplotlib"),
    ],
)
def test_a_missing_package_is_named(module, package, extra, name):
    code = f"import sys; sys.modules[{package!r}] = None; import jaxsched.{module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    sentence = f"jaxsched.{module} needs {name}: pip install 'jaxsched[{extra}]', "
    sentence += f"or in a checkout pip install -e '.[{extra}]'"
    assert done.stderr.splitlines()[-1] == f"ModuleNotFoundError: {sentence}"


def imported_modules(source):
    """Yield the modules of the package that a file imports, by their first name."""
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


def upward_imports(source, own):
    names = {
        "Recipe": "_recipe",
        "Trace": "_trace",
        "compare": "parity",
        "hyperparameters": "optimizers",
    }
    imports = {names.get(name, name) for name in imported_modules(source)}
    return {name for name in imports if name != own and LEVEL.get(name, -1) >= LEVEL[own]}


FILES = [
    path for path in sorted(PACKAGE.rglob("*.py")) if path.parent != PACKAGE or path.stem in LEVEL
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_imports_point_down(path):
    own = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
    assert not upward_imports(path.read_text(), own)


def test_every_file_has_a_level():
    first = {
        path.relative_to(PACKAGE).parts[0].removesuffix(".py") for path in PACKAGE.rglob("*.py")
    }
    assert first - {"__init__"} <= set(LEVEL)


def test_the_documentation_lists_the_modules_in_this_order():
    page = (PACKAGE.parent / "docs" / "developing.md").read_text()
    rows = re.findall(r"^\| (`.+?) \|", page, re.M)
    names = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(names) == sorted(set(LEVEL) - {"__main__"})
    assert names == sorted(names, key=LEVEL.get)


def test_an_upward_import_is_detected():
    assert upward_imports("from jaxsched import Recipe", "schedules") == {"_recipe"}
    assert upward_imports("from jaxsched.torch import record", "parity") == {"torch"}
    assert upward_imports("from jaxsched._trace import Trace", "_groups") == {"_trace"}


def public_modules():
    """Return the names of all public modules, including packages."""
    modules = pkgutil.walk_packages(jaxsched.__path__, "jaxsched.")
    names = ["jaxsched", *(module.name for module in modules)]
    return [name for name in names if not any(part.startswith("_") for part in name.split("."))]


def mark_torch(names):
    marks = {"jaxsched.torch": pytest.mark.torch}
    return [pytest.param(name, marks=marks.get(name, ())) for name in names]


@pytest.mark.parametrize("name", mark_torch(public_modules()))
def test_every_public_module_says_what_is_public(name):
    module = importlib.import_module(name)
    assert set(module.__all__) <= {*vars(module), *dir(module)}
    assert not [entry for entry in module.__all__ if entry.startswith("_")]


@pytest.mark.parametrize("name", mark_torch(n for n in public_modules() if n.count(".") < 2))
def test_no_name_shadows_a_module(name):
    """A function with the name of its module would make the module unreachable."""
    package = importlib.import_module(name)
    inside = {module.name for module in pkgutil.iter_modules(getattr(package, "__path__", ()))}
    for entry in inside & set(package.__all__):
        assert getattr(package, entry) is importlib.import_module(f"{name}.{entry}")


def test_dir_is_complete():
    assert set(jaxsched.__all__) <= set(dir(jaxsched))
    assert {"torch", "flax", "plot"} <= set(dir(jaxsched))
    assert not hasattr(jaxsched, "compair")


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
