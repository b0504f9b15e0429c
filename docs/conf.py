"""The documentation site: ``sphinx-build -W -b html docs site``."""

import ast
import importlib
import inspect
import io
import re
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from rich.console import Console
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer
from sphinx.transforms import SphinxTransform
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util import logging
from sphinx.util.docutils import SphinxDirective
from sphinx.util.nodes import make_refnode

import jaxsched
from jaxsched.cli import _parser

sys.path.insert(0, str(Path(__file__).parent))
import originals

ROOT = Path(__file__).parents[1]

project = "jaxsched"
author = "The jaxsched authors"
copyright = author
release = version = jaxsched.__version__

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx-mathjax-offline",  # the pages load nothing from elsewhere
]
myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
suppress_warnings = ["ref.python"]  # an annotation names a class that two examples have

autosummary_generate = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
napoleon_use_ivar = True
napoleon_attr_annotations = False
napoleon_use_rtype = False
python_maximum_signature_line_length = 80
toc_object_entries_show_parents = "hide"

html_theme = "furo"
html_title = "jaxsched"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
pygments_style = "friendly"
pygments_dark_style = "github-dark"

OF_SITE = {"../benchmarks/README.md": "benchmarks.md", "../CHANGELOG.md": "changelog.md"}
"""Files outside ``docs``, and the pages that include them."""

PREFIXES = ("", "jaxsched.", "jaxsched.torch.")
"""The prefixes that a name between backticks may lack."""

NO_ENTRIES = ("load", "numbers", "param_groups", "plot", "testing", "torch")
"""Words between backticks that usually mean something else, such as torch's ``param_groups``."""

logger = logging.getLogger(__name__)


def source_of_page(app: Sphinx, page: str, source: list[str]) -> None:
    """Make README the first page, and links to included files links to their pages."""
    if page == "index":
        readme = (ROOT / "README.md").read_text().replace("](docs/", "](")
        source[0] = re.sub(r"\]\((benchmarks/|CHANGELOG)", r"](../\1", readme) + source[0]
    for file, name in OF_SITE.items():
        source[0] = source[0].replace(file, name)


class LinksToSource(SphinxTransform):
    """Turn links to files of the package into links to the site's own pages of source."""

    default_priority = 210

    def apply(self, **kwargs: Any) -> None:
        for node in list(self.document.findall(addnodes.download_reference)):
            path = (Path(self.env.doc2path(self.env.docname)).parent / node["reftarget"]).resolve()
            if path.suffix == ".py" and path.is_relative_to(ROOT / "jaxsched"):
                module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
                reference = addnodes.pending_xref(
                    "", *node.children, refdomain="", reftype="source", reftarget=module
                )
                reference["refdoc"] = self.env.docname
                node.replace_self(reference)


def resolve_source(app: Sphinx, env: Any, node: Any, content: Any) -> Any:
    """Resolve a link to the page of a module's source, which viewcode writes."""
    if node["reftype"] != "source":
        return None
    if node["reftarget"] not in getattr(env, "_viewcode_modules", {}):
        logger.warning("%s has no page of source: no entry is in it", node["reftarget"])
    page = "_modules/" + node["reftarget"].replace(".", "/")
    uri = app.builder.get_relative_uri(node["refdoc"], page)
    return nodes.reference("", "", *node.children, internal=True, refuri=uri)


def module_of_alias(app: Sphinx, module: str, name: str) -> str | None:
    """Return the module of an alias: that of ``Path = tuple[str, ...]``, not that of ``tuple``."""
    value = getattr(importlib.import_module(module), name.partition(".")[0], None)
    return module if getattr(value, "__module__", None) == "builtins" else None


class LinksToEntries(SphinxPostTransform):
    """Turn a public name between backticks into a link to its entry."""

    default_priority = 20

    def run(self, **kwargs: Any) -> None:
        objects = self.env.domains.python_domain.objects
        for node in list(self.document.findall(nodes.literal)):
            is_link = isinstance(node.parent, nodes.reference | addnodes.pending_xref)
            if is_link or node.astext() in NO_ENTRIES:
                continue
            for prefix in PREFIXES:
                entry = objects.get(prefix + node.astext())
                if entry and entry.docname:
                    reference = make_refnode(
                        self.app.builder,
                        self.env.docname,
                        entry.docname,
                        entry.node_id,
                        node.deepcopy(),
                        prefix + node.astext(),
                    )
                    node.replace_self(reference)
                    break


class LinksToOriginals(SphinxPostTransform):
    """Turn what a ``Source:`` line names into a link to the file of the original."""

    default_priority = 10

    def run(self, **kwargs: Any) -> None:
        for paragraph in self.document.findall(nodes.paragraph):
            if not paragraph.astext().startswith("Source:"):
                continue
            for node in list(paragraph.findall(nodes.literal)):
                if link := originals.link_of(node.astext()):
                    node.replace_self(nodes.reference("", "", node.deepcopy(), refuri=link))
            for node in list(paragraph.findall(nodes.Text)):
                before, name, after = node.partition("the article")
                if name and isinstance(node.parent, nodes.paragraph):
                    link = nodes.reference("", name, refuri=originals.ARTICLE)
                    node.parent.replace(node, [nodes.Text(before), link, nodes.Text(after)])


class Entries(SphinxDirective):
    """Table of a module's names, and the entry of each; all public names if none is listed."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        name = self.arguments[0]
        module = importlib.import_module(name)
        names = " ".join(self.content).split() or module.__all__
        entries = {each: entry_of(module, each) for each in names}
        lines = [f".. currentmodule:: {name}", "", ".. autosummary::", "   :nosignatures:", ""]
        lines += [f"   {each}" for each, entry in entries.items() if "data" not in entry[0]]
        lines += [line for entry in entries.values() for line in ("", *entry)]
        source = f"{self.env.doc2path(self.env.docname)}:{self.lineno}"
        node = nodes.Element()
        self.state.nested_parse(StringList(lines, source), self.content_offset, node)
        return node.children


class Help(SphinxDirective):
    """The help of a command, as ``jaxsched COMMAND --help`` prints it."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[nodes.Node]:
        printed = io.StringIO()
        console = Console(file=printed, width=88)
        _parser.application().help_print(self.arguments[0].split(), console=console)
        return [nodes.literal_block(text=printed.getvalue(), language="none")]


def entry_of(module: Any, name: str) -> list[str]:
    """Return the directive of a name's entry."""
    value = getattr(module, name)
    if inspect.isclass(value):
        # "Attributes:" describes fields, and a field's default is no method.
        fields = getattr(value, "__dataclass_fields__", getattr(value, "_fields", ()))
        exclude = [f"   :exclude-members: {', '.join(fields)}"] if fields else []
        return [f".. autoclass:: {name}", "   :members:", *exclude]
    if inspect.isroutine(inspect.unwrap(value)):
        return [f".. autofunction:: {name}"]
    comment, value = assignment_of(module, name)
    shown = [] if any(comment) else [f"   :value: {value}"]
    return [f".. py:data:: {name}", *shown, "", *(f"   {line}" for line in comment)]


def assignment_of(module: Any, name: str) -> tuple[list[str], str]:
    """Return the docstring below an assignment and its value as written, where the name is defined."""
    for node in ast.parse(inspect.getsource(module)).body:
        if isinstance(node, ast.ImportFrom) and name in {alias.name for alias in node.names}:
            return assignment_of(importlib.import_module(str(node.module)), name)
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if name in {target.id for target in targets if isinstance(target, ast.Name)}:
            comments = ModuleAnalyzer.for_module(module.__name__).find_attr_docs()
            return comments.get(("", name), []), ast.unparse(node.value)
    raise ValueError(f"{module.__name__} must assign {name}, or import it")


def signature_of_source(
    app: Sphinx, what: str, name: str, value: Any, options: Any, signature: Any, returned: Any
) -> tuple[str | None, str | None] | None:
    """Show annotations as they are written: ``ScheduleLike``, and not the union that it is."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(inspect.unwrap(value)))).body[0]
    except (TypeError, OSError):
        return None
    if isinstance(tree, ast.ClassDef):
        return (f"({unquote(', '.join(fields_of(tree)))})", None) if signature else None
    if not isinstance(tree, ast.FunctionDef):
        return None
    if what == "method":
        del (tree.args.posonlyargs or tree.args.args)[0]  # self
    quoted = isinstance(tree.returns, ast.Constant) and isinstance(tree.returns.value, str)
    result = tree.returns and (tree.returns.value if quoted else ast.unparse(tree.returns))
    return f"({unquote(ast.unparse(tree.args))})", result


def unquote(annotated: str) -> str:
    """Remove the quotes of annotations."""
    return re.sub(r": '([^']+)'", r": \1", annotated)


def fields_of(tree: ast.ClassDef) -> Iterator[str]:
    """Yield the arguments of a class: those of ``__init__``, or its fields."""
    for node in tree.body:
        if isinstance(node, ast.FunctionDef) and node.name == "__init__":
            node.args.args = node.args.args[1:]
            yield ast.unparse(node.args)
            return
    for node in tree.body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            if "KW_ONLY" in ast.unparse(node.annotation):
                yield "*"
            elif not node.target.id.startswith("_"):
                if isinstance(node.value, ast.Call):  # dataclasses.field
                    node.value = ast.Constant(...)
                yield ast.unparse(node)


def setup(app: Sphinx) -> None:
    """Register the events, transforms and directives above."""
    app.connect("source-read", source_of_page)
    app.connect("missing-reference", resolve_source)
    app.connect("viewcode-follow-imported", module_of_alias)
    app.connect("autodoc-process-signature", signature_of_source)
    app.add_transform(LinksToSource)
    app.add_post_transform(LinksToOriginals)
    app.add_post_transform(LinksToEntries)
    app.add_directive("entries", Entries)
    app.add_directive("help", Help)
