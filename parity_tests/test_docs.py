"""Documentation checks: blocks run and print as shown, and pictures are drawn from the code.

A page's blocks run in order, in one namespace and one folder:

- ``python`` is run.
- A block whose first line is ``# name.py`` is that file, and is not run by itself.
- ``console`` holds commands, ``$ …``, and what they print, where ``...`` stands for anything.
- ``text`` is what the block above it prints.
- A block marked ``torch``, ``python torch``, runs where there is PyTorch.
- ``{include}`` and other directives are Sphinx's.

README imports the script of ``docs/porting.md``.
"""

import contextlib
import doctest
import importlib.util
import io
import itertools
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from conftest import long_after

from jaxsched.cli import _parser
from jaxsched.recipes import recorded

ROOT = Path(__file__).parents[1]
README = ROOT / "README.md"
PAGES = [README, *sorted((ROOT / "docs").rglob("*.md")), ROOT / "benchmarks/README.md"]
JAXSCHED = f'jaxsched() {{ {shlex.quote(sys.executable)} -m jaxsched "$@"; }}\n'


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT).with_suffix(""))


class Block(NamedTuple):
    """A fenced block: its kind, whether it needs PyTorch, its text, and its line in the page."""

    kind: str
    torch: bool
    text: str
    line: int


def blocks(page: Path) -> Iterator[Block]:
    text = page.read_text()
    for match in re.finditer(r"^```([^\n]*)\n(.*?)^```$", text, re.S | re.M):
        kind, *rest = match[1].split() or [""]
        if kind.startswith("{"):
            continue
        assert kind in ("python", "console", "text"), f"{page.name} has a block of {match[1]!r}"
        yield Block(kind, rest == ["torch"], match[2], text[: match.start()].count("\n") + 1)


def same(want: str, got: str) -> bool:
    flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
    return doctest.OutputChecker().check_output(want.strip() + "\n", got.strip() + "\n", flags)


def python(block: Block, page: Path, names: dict) -> str:
    """Run a block of Python, or write its file, and return its output."""
    if file := re.match(r"# (\S+\.py)$", block.text.split("\n", 1)[0]):
        Path(file[1]).write_text(block.text)
        return ""
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile("\n" * block.line + block.text, str(page), "exec"), names)
    return printed.getvalue()


def console(block: Block, page: Path) -> None:
    """Run the commands of a block, and compare what they print with the lines after each."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "PYTHONPATH": str(ROOT), "COLUMNS": "120"}
    for match in re.finditer(r"^\$ (.*)\n((?:(?!\$ ).*\n)*)", block.text, re.M):
        done = subprocess.run(
            ["bash", "-c", JAXSCHED + match[1]], capture_output=True, text=True, env=environment
        )
        printed = done.stdout + done.stderr
        assert same(match[2], printed), f"{page.name}: {match[1]} prints\n{printed}"


def run(page: Path, *, torch: bool) -> None:
    names, printed = {"__name__": "page"}, None
    if torch and page == README:
        python(next(blocks(ROOT / "docs/porting.md")), page, names)  # its train.py
    for block in blocks(page):
        if block.torch and not torch:
            printed = None
        elif block.kind == "python":
            printed = python(block, page, names)
        elif block.kind == "console":
            console(block, page)
            printed = None
        elif printed is not None:
            assert same(block.text, printed), f"{page.name}:{block.line} prints\n{printed}"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Change to a folder of the page's own, whose files can be imported."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


QUICK = [
    page if page.stem != "cookbook" else pytest.param(page, marks=pytest.mark.long)
    for page in PAGES
]
WITH_TORCH = [page for page in PAGES if any(block.torch for block in blocks(page))]


@pytest.mark.parametrize("page", QUICK, ids=page_id)
def test_every_block_runs(page, folder, request):
    whole = importlib.util.find_spec("torch") and request.config.getoption("-m") != "not torch"
    if page in WITH_TORCH and whole:
        pytest.skip(reason="the test below runs all its blocks, those that need PyTorch too")
    run(page, torch=False)


@pytest.mark.torch
@pytest.mark.parametrize(
    "page",
    [p if p.stem == "README" else pytest.param(p, marks=pytest.mark.long) for p in WITH_TORCH],
    ids=page_id,
)
def test_every_block_with_torch_runs(page, folder):
    pytest.importorskip("torch", reason="blocks marked torch run live torch")
    run(page, torch=True)


@pytest.mark.parametrize(
    "text",
    [
        "```python\n1 / 0\n```\n",
        "```python\nprint(1)\n```\n```text\n2\n```\n",
        "```console\n$ echo 1\n2\n```\n",
        "```sh\necho 1\n```\n",
    ],
    ids=["raises", "prints", "command", "kind"],
)
def test_a_wrong_page_fails(text, folder):
    (folder / "page.md").write_text(text)
    with pytest.raises((AssertionError, ZeroDivisionError)):
        run(folder / "page.md", torch=False)


def test_the_first_block_prints_what_readme_says():
    first, output = itertools.islice(blocks(README), 2)
    assert same(output.text, python(first, README, {}))


def test_readme_has_the_two_commands():
    lines = README.read_text().splitlines()
    assert "    pip install -e '.[train]' && jaxsched train" in lines
    assert "    pip install -e '.[test]' && pytest" in lines


def test_readme_is_one_page():
    assert len(README.read_text()) <= 5000


COMMANDS = [
    pytest.param(shlex.split(line.partition("  #")[0]), id=f"{page_id(page)}-{line}")
    for page in PAGES
    for line in re.findall(r"^    (?:srun )?jaxsched (.*)$", page.read_text(), re.M)
]


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_is_taken(words):
    """Commands outside of blocks: their options are parsed, and nothing is run."""
    assert _parser.parse(_parser.application(), words)


SPEC: Any = importlib.util.spec_from_file_location("pictures", ROOT / "docs" / "pictures.py")
PICTURES = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(PICTURES)
# Of torch's run: the rates at the end of each epoch.
ENDS = [
    recorded("yolov5_resnet18").groups[g]["learning_rate"][29::30]
    for g in ("weight", "bias", "norm")
]
DRAWN = {
    "article.png": 1980,
    "cosine.png": pytest.approx(0, abs=2**-24),  # a rounding to float32, of a factor up to 1
    "annealing.png": tuple(float(np.float32(rate)) for rate in (0.01, 0.006, 0.002)),
    "interpolation.png": 1.0,
    "groups.png": tuple(float(np.float32(rates.max())) for rates in ENDS),
    "borders.png": 24,
    "recipes/yolov5.png": float(np.float32(0.1)),  # of the biases, as the warm-up begins
    "recipes/ultralytics.png": float(np.float32(0.1)),
    "recipes/transformers.png": float(np.float32(2e-4)),
    "recipes/timm.png": float(np.float32(1e-5 + 499 * (1e-3 - 1e-5) / 500)),  # its last warm-up
    "difference.png": 1020,  # the search of its cause takes long
}
"""The figure that each picture shows, by its file."""


@pytest.mark.parametrize("name", long_after(3, DRAWN))
def test_pictures_are_drawn_from_the_code(name, tmp_path):
    (tmp_path / name).parent.mkdir(exist_ok=True)
    assert PICTURES.PICTURES[name](tmp_path / name) == DRAWN[name]
    assert (tmp_path / name).stat().st_size > 20_000


def test_every_picture_is_drawn_and_shown():
    shown = {
        (page.parent / target).resolve().relative_to(ROOT / "docs").as_posix()
        for page in PAGES
        for target in re.findall(r"!\[[^\]]+\]\(([^)]+)\)", page.read_text())
    }
    assert shown == set(DRAWN) == set(PICTURES.PICTURES)
