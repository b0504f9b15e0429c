"""A recipe as text and as HTML: a table of its groups by hyperparameters."""

import dataclasses
import html as escaping
import io
from string import ascii_uppercase
from typing import Any

from jaxsched._schedule import show

MAX_ROWS = 12
"""Groups, and schedules, that are written out."""

MAX_WIDTH = 24
"""Characters of a value in the table; what is longer is written below it, under a letter."""

HTML_ROWS = 2000
"""Iterations of the picture where the recipe has no length."""


def table(recipe: Any) -> tuple[list[list[str]], dict[str, str]]:
    """Return the rows of the table, the header first, and long values by the letter in it."""
    names = list(dict.fromkeys(name for group in recipe.groups.values() for name in group))
    letters: dict[str, str] = {}

    def cell(value: Any) -> str:
        text = " ".join(show(value).split())
        if len(text) <= MAX_WIDTH:
            return text
        if text not in letters:
            number = len(letters)
            letters[text] = ascii_uppercase[number % 26] + (
                str(number // 26) if number > 25 else ""
            )
        return letters[text]

    rows = [["", *names]]
    for label, group in recipe.groups.items():
        rows.append(
            [
                label if label.isprintable() else repr(label),
                *(cell(group[name]) if name in group else "" for name in names),
            ]
        )
    return rows, {letter: text for text, letter in letters.items()}


def settings(recipe: Any) -> list[str]:
    """Return a line for each field that is not at its default."""
    lines = [
        f"{name} {show(value)}"
        for name in ("clip_norm", "clip_value")
        if (value := getattr(recipe, name)) is not None
    ]
    if recipe.accumulation is not None:
        every = recipe.accumulation.steps_per_epoch
        fate = "kept" if every is None else f"dropped every {every} iterations"
        lines.append(f"batches an update {show(recipe.accumulation.batches)}, pending ones {fate}")
    if recipe.ema is not None:
        lines.append(f"{recipe.ema!r}, which only a loop that calls recipe.ema.update keeps")
    if recipe.origin is not None:
        given = ", ".join(f"{k}={show(v)}" for k, v in recipe.origin.arguments.items())
        lines.append(f"made by {recipe.origin.factory.__qualname__}({given})")
    return lines


def title(recipe: Any) -> str:
    """Return the first line: the rule and the counts."""
    end = "" if recipe.length is None else f" to {recipe.length}"
    groups = f"{len(recipe.groups)} group{'s'[: len(recipe.groups) != 1]}"
    rule = _shortened(" ".join(show(recipe.update_rule).split()), 99)
    return f"Recipe: {rule}, {groups}, {recipe.clock} {show(recipe.start)}{end}"


def text(recipe: Any) -> str:
    """Return the recipe in at most a screenful of lines."""
    rows, letters = table(recipe)
    dropped = len(rows) - 1 - MAX_ROWS
    rows = rows[: MAX_ROWS + 1]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(entry.ljust(width) for entry, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    if dropped > 0:
        lines.append(f"… and {dropped} more groups")
    legend = [f"{letter} = {_shortened(value)}" for letter, value in letters.items()]
    if len(legend) > MAX_ROWS:
        legend = [*legend[:MAX_ROWS], f"… and {len(legend) - MAX_ROWS} more schedules"]
    return "\n".join([title(recipe), *lines, *legend, *map(_shortened, settings(recipe))])


def html(recipe: Any) -> str:
    """Return the same table in HTML, and a picture of the curves where matplotlib is installed."""
    rows, letters = table(recipe)

    def row(tag: str, entries: list[str]) -> str:
        cells = "".join(f"<{tag}>{escaping.escape(entry)}</{tag}>" for entry in entries)
        return f"<tr>{cells}</tr>"

    body = "".join(row("td", entries) for entries in rows[1 : MAX_ROWS + 1])
    if len(rows) > MAX_ROWS + 1:
        body += row("td", [f"… and {len(rows) - 1 - MAX_ROWS} more groups"])
    lines = [f"{letter} = {value}" for letter, value in letters.items()][:MAX_ROWS]
    notes = "".join(
        f"<div><code>{escaping.escape(_shortened(line))}</code></div>"
        for line in [*lines, *settings(recipe)]
    )
    head = f"<p><b>{escaping.escape(title(recipe))}</b></p>"
    return f"{head}<table>{row('th', rows[0])}{body}</table>{notes}{_picture(recipe)}"


def _picture(recipe: Any) -> str:
    """Return the curves as SVG; nothing where there is no matplotlib or no curve to draw."""
    try:
        from jaxsched._figure import figure_of

        groups = dict([*recipe.groups.items()][:MAX_ROWS])
        shown = dataclasses.replace(recipe, groups=groups, accumulation=None, ema=None)
        trace = shown.trace(recipe.iterations or HTML_ROWS)
    except (ModuleNotFoundError, TypeError, ValueError):  # a table ends before, a function branches
        return ""
    file = io.StringIO()
    figure_of(trace, size=(6, 3)).savefig(file, format="svg")
    content = file.getvalue()
    return content[content.index("<svg") :]


def _shortened(line: str, width: int = 160) -> str:
    half = width // 2 - 2
    return line if len(line) <= width else f"{line[:half]} … {line[-half:]}"
