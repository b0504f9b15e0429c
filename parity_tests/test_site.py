"""The documentation is complete: public names have entries, links have targets, sources have links.

The site itself is built by ``sphinx-build -W`` in ``.ci/run``; no test here needs Sphinx.
"""

import ast
import importlib.metadata
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import jaxsched

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md")), ROOT / "benchmarks/README.md"]
REFERENCE = "\n".join(path.read_text() for path in sorted((DOCS / "api").glob("*.rst")))
ALIASES = {f"jaxsched.{home}.{name}" for name, home in jaxsched._HOMES.items()}

SPEC: Any = importlib.util.spec_from_file_location("originals", DOCS / "originals.py")
ORIGINALS = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(ORIGINALS)


def public_modules() -> dict[str, ast.Module]:
    """Return the modules without an underscore, without an import, since some need PyTorch."""
    modules = {}
    for path in sorted((ROOT / "jaxsched").rglob("*.py")):
        parts = path.relative_to(ROOT).with_suffix("").parts
        parts = parts[:-1] if parts[-1] == "__init__" else parts
        is_package = (path.parent / "__init__.py").exists()
        if is_package and not any(part.startswith("_") for part in parts):
            modules[".".join(parts)] = ast.parse(path.read_text())
    return modules


MODULES = public_modules()


def public_names() -> set[str]:
    """Return all names in ``__all__`` of the public modules, by full name."""
    names = set()
    for module, tree in MODULES.items():
        for node in tree.body:
            match node:
                case (
                    ast.Assign(targets=[ast.Name("__all__")])
                    | ast.AnnAssign(target=ast.Name("__all__"))
                ):
                    names |= {f"{module}.{name}" for name in ast.literal_eval(node.value)}
    return names - ALIASES


def entries(reference: str, public: set[str]) -> set[str]:
    """Return the names that have an entry in the pages of the reference, and the modules."""
    entry_names = set(re.findall(r"^\.\. automodule:: (\S+)$", reference, re.M))
    for module, names in re.findall(
        r"^\.\. entries:: (\S+)\n((?:\n|   .*\n)*)", reference + "\n", re.M
    ):
        listed = names.split()
        entry_names |= {f"{module}.{name}" for name in listed}
        if not listed:
            entry_names |= {name for name in public if name.rpartition(".")[0] == module}
    return entry_names


def test_every_public_name_has_an_entry_and_no_other():
    public = public_names()
    assert public | set(MODULES) == entries(REFERENCE, public) | {"jaxsched.cli"}


@pytest.mark.parametrize("name", ["adamw", "from_torch", "compare", "Recipe", "by_muon"])
def test_a_name_without_an_entry_is_detected(name):
    public = public_names()
    without = re.sub(rf"\b{name}\b", "another", REFERENCE)
    missing = public - entries(without, public)
    assert {full.rpartition(".")[2] for full in missing} == {name}


def test_a_new_name_is_detected():
    public = public_names() | {"jaxsched.optimizers.lion"}
    assert public - entries(REFERENCE, public) == {"jaxsched.optimizers.lion"}


def without_code(text: str) -> str:
    return re.sub(r"^```.*?^```$", "", text, flags=re.S | re.M)


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page: its headings, as GitHub and MyST name them."""
    text = without_code(page.read_text())
    for included in re.findall(r"^```\{include\} (\S+)$", page.read_text(), re.M):
        text += without_code((page.parent / included).read_text())
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dead_links(page: Path) -> list[str]:
    """Return the links of a page without a target: a file, a heading, or the source of an entry."""
    dead = []
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text())):
        if "://" in link:
            continue
        file, _, anchor = link.partition("#")
        target = (page.parent / file).resolve() if file else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            dead.append(link)
        elif target.suffix == ".py":
            module = ".".join(target.relative_to(ROOT).with_suffix("").parts)
            if module not in entries(REFERENCE, set()):
                dead.append(link)
    return dead


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    assert dead_links(page) == []


def test_a_dead_link_is_detected(tmp_path):
    (tmp_path / "other.md").write_text("# Other\n\n## The *second*, a heading\n")
    dead = ["none.md", "other.md#none", "#none", f"{ROOT}/jaxsched/_trace.py"]
    alive = ["other.md", "other.md#the-second-a-heading", "#page", "https://numpy.org"]
    alive.append(f"{ROOT}/jaxsched/flax.py")
    page = tmp_path / "page.md"
    page.write_text("# Page\n\n" + "\n".join(f"[x]({link})" for link in [*dead, *alive]))
    assert dead_links(page) == dead


def test_pages_that_docstrings_and_the_reference_name_exist():
    for path in sorted((ROOT / "jaxsched").rglob("*.py")):
        for page in re.findall(r"\bdocs/[\w/]+\.md\b", path.read_text()):
            assert (ROOT / page).exists(), f"{path.name} names {page}"
    for page in re.findall(r":doc:`([^`]+)`", REFERENCE):
        stem = DOCS / "api" / page
        assert stem.with_suffix(".md").exists() or stem.with_suffix(".rst").exists(), page


def test_every_page_is_in_the_contents():
    contents = re.findall(r"^(?:\w+ <)?([\w/]+)>?$", (DOCS / "index.md").read_text(), re.M)
    files = [path for path in DOCS.rglob("*") if path.suffix in (".md", ".rst")]
    pages = {path.relative_to(DOCS).with_suffix("").as_posix() for path in files}
    assert set(contents) == pages - {"index"}


def sources() -> Iterator[tuple[str, str]]:
    """Return the ``Source:`` paragraphs of docstrings, each with its file."""
    for path in sorted((ROOT / "jaxsched").rglob("*.py")):
        for paragraph in re.findall(r"\bSource: .*?(?=\n\s*\n|\"\"\")", path.read_text(), re.S):
            yield path.name, " ".join(paragraph.split())


def has_link(paragraph: str) -> bool:
    return "https://" in paragraph or any(ORIGINALS.list_links(paragraph))


def test_every_source_has_a_link():
    paragraphs = list(sources())
    assert len(paragraphs) > 60
    assert [where for where in paragraphs if not has_link(where[1])] == []


def test_a_source_without_a_link_is_detected():
    assert has_link("Source: ``torch.optim.SGD``, torch 2.13.")
    assert has_link("Source: the warm-up of the article.")
    assert not has_link("Source: ``tensorflow.SGD``, and other articles.")


PREFIXES = {
    "torch": ORIGINALS.TORCH + "/",
    "timm": ORIGINALS.TIMM + "/timm/",
    "transformers": ORIGINALS.TRANSFORMERS + "/",
}


@pytest.mark.torch
@pytest.mark.parametrize("package", PREFIXES)
def test_files_of_sources_exist_in_the_release(package):
    spec = importlib.util.find_spec(package)
    if spec is None:
        pytest.skip(reason=f"{package} is not installed")
    version = importlib.metadata.version(package).partition("+")[0]
    if f"/v{version}" not in PREFIXES[package]:
        pytest.skip(reason=f"links lead to another release than {version}")
    links = {link for _, text in sources() for _, link in ORIGINALS.list_links(text)}
    files = [link.removeprefix(PREFIXES[package]) for link in links]
    files = [file for file in files if "://" not in file]
    assert files
    assert [f for f in files if not (Path(str(spec.origin)).parent / f).exists()] == []
