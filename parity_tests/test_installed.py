"""The commands that work with each extra alone, and the sentence if a package is missing.

One test hides packages in the current environment, from child processes too. The other builds
the wheel once and installs it, with each extra, in a new environment outside the checkout; the
variable JAXSCHED_WHEEL names a wheel to test instead.
"""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

import jaxsched
from jaxsched._extras import OPTIONAL, missing

ROOT = Path(jaxsched.__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]

SCRIPT = """
import torch

optimizer = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=0.1)
for _ in range(3):
    optimizer.step()
"""
SHORT = "yolov5_resnet18 --epochs 2 --steps-per-epoch 3"
PORT = "import jaxsched\nrecipe = jaxsched.recipes.yolov5_resnet18(epochs=2, steps_per_epoch=3)\n"
EQUAL = "verify port.py:recipe --against curves.npz"
DIFFERENT = "verify port.py:recipe --against other.npz"
RECORD = "record -o run.npz -- python train.py"

# For each command: its words, its exit status if nothing is missing, and, by extra, the package
# that it asks for; "no picture" marks a package without which it continues.
COMMANDS = {
    "--version": (0, {"": "cyclopts"}),
    "train --help": (0, {"": "cyclopts"}),
    f"export {SHORT} --out curves.csv": (0, {"": "cyclopts"}),
    f"export {SHORT} --out curves.npz": (0, {"": "cyclopts"}),
    f"export {SHORT} --lrf 0.1 --out other.npz": (0, {"": "cyclopts"}),
    "export run.yaml --iterations 2 --out run.json": (0, {"": "cyclopts"}),
    EQUAL: (0, {"": "cyclopts"}),
    DIFFERENT: (1, {"": "cyclopts", "cli": "no picture", "torch": "no picture"}),
    f"{DIFFERENT} --out x.png": (1, {"": "cyclopts", "cli": "matplotlib", "torch": "matplotlib"}),
    f"plot {SHORT}": (0, {"": "cyclopts", "cli": "matplotlib", "torch": "matplotlib"}),
    RECORD: (0, {"": "cyclopts", "cli": "torch", "train": "torch"}),
    "train --epochs 1": (0, {"": "cyclopts", "cli": "matplotlib", "torch": "matplotlib"}),
}
PROG = re.compile(r"(?:(?:plot|export) yolov5_resnet18|[a-z]+)?")


def sentence(command, package):
    """Return the sentence about a missing package that ``command`` prints on stderr."""
    if package == "cyclopts":
        return f"{missing('jaxsched', package)}\n"
    name = " ".join(["jaxsched", *PROG.match(command)[0].split()])
    return f"{missing(name, package)}\n"


def prepare(folder):
    """Write the files that the commands read."""
    (folder / "train.py").write_text(SCRIPT)
    (folder / "port.py").write_text(PORT)
    (folder / "run.yaml").write_text(
        "format: jaxsched.Recipe 1\ngroups: {all: {learning_rate: 0.1}}\n"
    )


def check(command, extra, folder, status, out, err):
    """Compare the end of a command, with only one extra installed, with the table."""
    expected, needs = COMMANDS[command]
    package = needs.get(extra)
    if package == "no picture":
        picture = missing("jaxsched.plot", "matplotlib")
        assert (status, err) == (expected, f"no picture of the curves: {picture}\n")
        assert "likely cause: lrf 0.2 for 0.1" in out
        assert not (folder / "parity.png").exists()
    elif package:
        assert (status, err) == (2, sentence(command, package))
    else:
        assert status == expected, err


# All in one process, which imports JAX once: the status of each command, and its output.
IN_ONE_PROCESS = """
import contextlib, io, json, sys
from jaxsched import cli

ends = {}
for command in json.loads(sys.argv[1]):
    with (
        contextlib.redirect_stdout(io.StringIO()) as out,
        contextlib.redirect_stderr(io.StringIO()) as err,
    ):
        status = cli.main(command.split())
    ends[command] = status, out.getvalue(), err.getvalue()
print(json.dumps(ends))
"""


def check_all(run, extra, folder):
    """Run the commands of the table except ``record``, which starts processes."""
    commands = [command for command in COMMANDS if command != RECORD]
    done = run("python", "-c", IN_ONE_PROCESS, json.dumps(commands))
    assert done.returncode == 0, done.stderr
    for command, end in json.loads(done.stdout).items():
        check(command, extra, folder, *end)
    assert (folder / "curves.csv").exists() is bool(extra)


def python_environment(folder, *path):
    """Return variables that select the ``python`` of ``folder``, and search ``path`` first."""
    environment = {**os.environ, "PATH": os.pathsep.join([str(folder), os.environ["PATH"]])}
    environment.pop("PYTHONPATH", None)
    return {**environment, "PYTHONPATH": os.pathsep.join(map(str, path))} if path else environment


# --- packages hidden ---

HIDDEN = ("flax", "orbax", "matplotlib", "sklearn")


@pytest.fixture(scope="module")
def hidden_packages(tmp_path_factory):
    """A folder, and a function that runs code in it with the packages ``HIDDEN`` hidden."""
    folder = tmp_path_factory.mktemp("hidden")
    prepare(folder)
    for name in HIDDEN:
        (folder / "path" / name).mkdir(parents=True)
        refusal = f"raise ModuleNotFoundError('No module named {name}', name={name!r})"
        (folder / "path" / name / "__init__.py").write_text(refusal)
    environment = python_environment(Path(sys.executable).parent, folder / "path", ROOT)

    def run(*words):
        return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)

    return folder, run


@pytest.mark.long
def test_the_command_without_flax_orbax_matplotlib_and_sklearn(hidden_packages):
    folder, run = hidden_packages
    check_all(run, "cli", folder)
    assert len(list(csv.reader((folder / "curves.csv").open()))) == 1 + 6


@pytest.mark.long
@pytest.mark.torch
def test_record_without_flax_orbax_matplotlib_and_sklearn(hidden_packages):
    pytest.importorskip("torch", reason="what is recorded is live torch")
    folder, run = hidden_packages
    done = run("python", "-m", "jaxsched", *RECORD.split())
    assert (done.returncode, done.stderr) == (0, f"wrote {folder / 'run.npz'}\n")
    assert len(jaxsched.Trace.load(folder / "run.npz")) == 3


@pytest.mark.long
@pytest.mark.parametrize("name", HIDDEN)
def test_hidden_packages_cannot_be_imported(name, hidden_packages):
    assert f"No module named {name}" in hidden_packages[1]("python", "-c", f"import {name}").stderr


# --- packages installed ---


def closure(extra):
    """The requirements of an extra, with those of the extras that it includes."""
    for need in EXTRAS[extra]:
        if inner := re.fullmatch(r"jaxsched\[(.*)\]", need):
            for each in inner[1].split(","):
                yield from closure(each)
        else:
            yield re.match(r"[\w-]+", need)[0]


@pytest.mark.parametrize("package", OPTIONAL)
def test_the_extra_of_a_message_installs_its_package(package):
    names = {"yaml": "pyyaml", "orbax": "orbax-checkpoint", "sklearn": "scikit-learn"}
    assert names.get(package, package) in closure(OPTIONAL[package][1])


def test_train_and_torch_include_cli_and_torch_nothing_of_flax():
    assert {*closure("cli")} <= {*closure("train")} & {*closure("torch")}
    assert {*closure("torch")} == {*closure("cli"), "torch"}


def install(venv, *words):
    """Make a virtual environment, install packages with pip, and return its Python."""
    python = venv / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--no-compile", "--quiet"]
    subprocess.run([*pip, "--disable-pip-version-check", *words], check=True)
    return python


@pytest.fixture(scope="module")
def dist(tmp_path_factory):
    """A folder with the wheel and, unless a wheel is given, its source distribution."""
    if wheel := os.environ.get("JAXSCHED_WHEEL"):
        return Path(wheel).absolute().parent
    folder = tmp_path_factory.mktemp("dist")
    python = install(folder / "tools", "build", "twine")
    subprocess.run([python, "-m", "build", "--outdir", folder / "dist", ROOT], check=True)
    files = sorted((folder / "dist").iterdir())
    subprocess.run([python, "-m", "twine", "check", "--strict", *files], check=True)
    return folder / "dist"


@pytest.mark.long
def test_the_source_distribution_has_no_raw_figures(dist):
    (sdist,) = dist.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        sizes = {m.name.partition("/")[2]: m.size for m in archive.getmembers()}
    assert "jaxsched/cli/_parser.py" in sizes
    assert "benchmarks/results/conformance.json" not in sizes
    assert max(sizes.values()) < 500_000


# Packages that must be missing, and are not installed with another package either.
ABSENT = {
    "": {*OPTIONAL},
    "cli": {"torch", "flax", "orbax", "matplotlib", "sklearn", "tensorboardX"},
    "train": {"torch"},
    "torch": {"flax", "orbax", "matplotlib", "sklearn", "tensorboardX"},
}


@pytest.mark.long
@pytest.mark.skipif(os.name == "nt", reason="paths are those of Unix")
@pytest.mark.parametrize("extra", ABSENT)
def test_what_works_with_each_extra_alone(extra, dist, tmp_path):
    (wheel,) = dist.glob("*.whl")
    venv, folder = tmp_path / "venv", tmp_path / "folder"
    folder.mkdir()
    prepare(folder)
    environment = python_environment(venv / "bin")
    (torch,) = (need for need in EXTRAS["test"] if need.startswith("torch=="))
    (tmp_path / "constraints.txt").write_text(torch)  # the build that the tests use
    wanted = f"{wheel}[{extra}]" if extra else wheel
    install(venv, wanted, "-c", tmp_path / "constraints.txt")

    def run(*words):
        return subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True)

    try:
        code = (
            "import importlib.util as u, sys; print(*[n for n in sys.argv[1:] if u.find_spec(n)])"
        )
        assert {*run("python", "-c", code, *OPTIONAL).stdout.split()} == {*OPTIONAL} - ABSENT[extra]
        check_all(run, extra, folder)
        for command in ("--version", RECORD):
            words = ["jaxsched", *command.split()]
            done = run(*words)
            check(command, extra, folder, done.returncode, done.stdout, done.stderr)
        assert (folder / "run.npz").exists() is (extra == "torch")
    finally:
        shutil.rmtree(venv)  # up to a gigabyte, which pytest would keep
