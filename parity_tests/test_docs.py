"""What is written in README runs, and its picture is drawn from the code."""

import contextlib
import importlib.util
import io
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
BLOCKS = [
    pytest.param(block, id=f"{page.name}-{k}")
    for page in PAGES
    for k, block in enumerate(re.findall(r"^```python\n(.*?)^```", page.read_text(), re.S | re.M))
]


@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_runs(block):
    exec(compile(block, "block", "exec"), {})


def test_the_first_block_prints_what_readme_says():
    readme = (ROOT / "README.md").read_text()
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(re.search(r"^```python\n(.*?)^```", readme, re.S | re.M)[1], {})
    last = printed.getvalue().splitlines()[-1]
    assert f"The last line prints `{last}`" in readme


def test_readme_has_the_two_commands():
    lines = (ROOT / "README.md").read_text().splitlines()
    assert "    pip install -e '.[train]' && jaxsched train" in lines
    assert "    pip install -e '.[test]' && pytest" in lines


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", page.read_text()):
        assert "://" in target or (page.parent / target).exists(), target


def test_the_picture_is_drawn_from_the_code(tmp_path):
    spec = importlib.util.spec_from_file_location("pictures", ROOT / "docs" / "pictures.py")
    pictures = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pictures)
    assert pictures.article(tmp_path / "article.png") == 1980
    assert (tmp_path / "article.png").stat().st_size > 20_000
