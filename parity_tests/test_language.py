"""Names, docstrings and comments keep to the house style where a count can see it.

The count guards against a relapse; what it cannot see is for a reader.
"""

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("jaxsched", "parity_tests", "benchmarks")

WORDS = re.compile(r"\b(told|tells|has it|nothing here counts)\b", re.IGNORECASE)
FIRST = re.compile(r"(What|Where|Of|Those|Whether)\b")

# Past participles that do not end in -ed, and words in -ed that are none.
IRREGULAR = {
    *("begun", "bound", "broken", "built", "chosen", "done", "drawn", "driven", "found", "frozen"),
    *(
        "given",
        "gone",
        "held",
        "hidden",
        "kept",
        "known",
        "learnt",
        "left",
        "lost",
        "made",
        "meant",
    ),
    *(
        "met",
        "seen",
        "sent",
        "shown",
        "sought",
        "spent",
        "spun",
        "stood",
        "taken",
        "told",
        "thrown",
    ),
    *("unbroken", "undone", "unknown", "unseen", "unwritten", "withheld", "won", "written"),
}
NO_PARTICIPLE = {"bed", "bleed", "breed", "embed", "exceed", "feed", "need", "proceed", "red"} | {
    *("seed", "shed", "speed", "succeed", "weed")
}
PARTICLES = {"apart", "away", "back", "down", "off", "on", "out", "over", "up"}

EXCEPTIONS = {
    ("jaxsched/optimizers/_accumulation.py", "stepped"): "public, and the name of a trace's column",
    ("jaxsched/optimizers/_accumulation.py", "restarted"): "public",
    ("jaxsched/recipes/_article.py", "recorded"): "public",
    ("jaxsched/schedules/_combinators.py", "lagged"): "public, and saved in a recipe's file",
    ("jaxsched/schedules/_combinators.py", "scaled"): "public, and saved in a recipe's file",
    ("parity_tests/wrong_ports/record.py", "accumulated"): "the name of a recording",
    ("parity_tests/wrong_ports/record.py", "resumed"): "the name of a recording",
}
"""Functions named by a participle, by file and name, each with the reason."""

Finding = tuple[int, str, str]
"""A line, the rule that it breaks, and the name or the words."""


def is_participle(name: str) -> bool:
    """Return whether a function's name is a past participle alone, or one with a particle."""
    word, *others = name.strip("_").lower().split("_")
    is_one = word in IRREGULAR or (word.endswith("ed") and word not in NO_PARTICIPLE)
    return is_one and set(others) <= PARTICLES


def list_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the name of each function, class, argument and variable."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
                yield node.lineno, node.name
            case ast.arg():
                yield node.lineno, node.arg
            case ast.Name(ctx=ast.Store()):
                yield node.lineno, node.id
            case ast.Attribute(ctx=ast.Store()):
                yield node.lineno, node.attr
            case ast.alias(asname=str()):
                yield 0, node.asname


def list_prose(source: str, tree: ast.AST) -> Iterator[tuple[int, str, bool]]:
    """Yield the line and the text of each docstring and comment, and whether it is a docstring."""
    for node in ast.walk(tree):
        match node:
            case ast.Expr(value=ast.Constant(value=str(text))):
                yield node.lineno, text.strip(), True
    if not WORDS.search(source):
        return  # to read the tokens takes the longest
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string, False


def find_breaches(source: str) -> list[Finding]:
    """Return where a source breaks one of the rules."""
    tree = ast.parse(source)
    found = [
        (line, "word in a name", name)
        for line, name in list_names(tree)
        if WORDS.search(name.replace("_", " "))
    ]
    for line, text, is_docstring in list_prose(source, tree):
        found += [(line, "word", match.group()) for match in WORDS.finditer(" ".join(text.split()))]
        if is_docstring and FIRST.match(text):
            found.append((line, "first line", text.splitlines()[0]))
    return found + [
        (node.lineno, "participle", node.name)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and is_participle(node.name)
    ]


@pytest.mark.parametrize("folder", FOLDERS)
def test_the_language_of_a_folder(folder: str) -> None:
    breaches, unused = [], {key for key in EXCEPTIONS if key[0].startswith(f"{folder}/")}
    for path in sorted((ROOT / folder).rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        for line, rule, text in find_breaches(path.read_text(encoding="utf-8")):
            if rule == "participle" and (name, text) in EXCEPTIONS:
                unused.discard((name, text))
            else:
                breaches.append(f"{name}:{line}: {rule}: {text}")
    assert not breaches, "\n".join(["", *breaches])
    assert not unused, f"exceptions without a function: {sorted(unused)}"


@pytest.mark.parametrize(
    ("source", "breach"),
    [
        ("def rates_told(): ...", (1, "word in a name", "rates_told")),
        ("def f(tells): ...", (1, "word in a name", "tells")),
        ("told = 1", (1, "word in a name", "told")),
        ("x.is_told = 1", (1, "word in a name", "is_told")),
        ("class Told: ...", (1, "word in a name", "Told")),
        ("import x as told", (0, "word in a name", "told")),
        ("x = 1  # as torch\n# is told", (2, "word", "told")),
        ("x = 1  # as torch has it", (1, "word", "has it")),
        ('def f():\n    """Return the rate, as torch has\n    it."""', (2, "word", "has it")),
        ('"""A module. Nothing here counts."""', (1, "word", "Nothing here counts")),
        ('x = 1\n"""A number that tells."""', (2, "word", "tells")),
        ('"""\nWhat it does."""', (1, "first line", "What it does.")),
        ('class A:\n    """Where it is.\n\n    So."""', (2, "first line", "Where it is.")),
        ('def f():\n    """Of the rows."""', (2, "first line", "Of the rows.")),
        ('def f():\n    """Those that differ."""', (2, "first line", "Those that differ.")),
        ('def f():\n    """Whether it is."""', (2, "first line", "Whether it is.")),
        ("def f():\n    def changed(): ...", (2, "participle", "changed")),
        ("async def _made(): ...", (1, "participle", "_made")),
        ("def warmed_up(): ...", (1, "participle", "warmed_up")),
    ],
)
def test_a_planted_breach_is_found(source: str, breach: Finding) -> None:
    assert breach in find_breaches(source)


@pytest.mark.parametrize(
    "source",
    [
        'def seed():\n    """Return the seed. What it is for follows."""',
        'def is_closed():\n    """Return whether it is closed."""  # foretold',
        'def recorded_rows(speed):\n    "Whatever was recorded."',
        "def equal_to(): ...\ndef steps_made(): ...\ndef feed_forward(): ...",
    ],
)
def test_plain_words_are_no_breach(source: str) -> None:
    assert find_breaches(source) == []
