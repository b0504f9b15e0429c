"""Recipes as text and HTML: a table of groups by hyperparameters."""

import dataclasses
import io
from collections.abc import Mapping
from html import escape
from string import ascii_uppercase
from typing import Any

from jaxsched._schedule import show
from jaxsched._validate import shorten

MAX_ROWS = 12  # groups, and schedules below the table
MAX_WIDTH = 24  # characters of a cell; longer values get a letter and a line below the table
MAX_LINE = 160  # characters of a line below the table
HTML_ROWS = 2000  # iterations of the picture if the recipe has no length


def _content(recipe: Any) -> tuple[str, list[list[str]], list[str], list[str]]:
    """Return the title, the rows of the table from its header on, the line after them, and notes."""
    names = list(dict.fromkeys(name for group in recipe.groups.values() for name in group))
    letters: dict[str, str] = {}

    def cell(value: Any) -> str:
        line = " ".join(show(value).split())
        if len(line) <= MAX_WIDTH:
            return line
        number = len(letters)
        return letters.setdefault(line, f"{ascii_uppercase[number % 26]}{number // 26 or ''}")

    rules = {label: shorten(show(rule), 99) for label, rule in recipe.rule_by_label.items()}
    rule = shorten(" and ".join(dict.fromkeys(rules.values())), 99)
    # A column for the rules if groups have different ones.
    columns = {"update_rule": rules} if isinstance(recipe.update_rule, Mapping) else {}
    rows = [["", *columns, *names]]
    for label, group in recipe.groups.items():
        cells = [cell(group[name]) if name in group else "" for name in names]
        own = [column[label] for column in columns.values()]
        rows.append([label if label.isprintable() else repr(label), *own, *cells])
    dropped = len(rows) - 1 - MAX_ROWS
    more = [f"… and {dropped} more groups"] if dropped > 0 else []
    legend = [f"{letter} = {shorten(line, MAX_LINE)}" for line, letter in letters.items()]
    if len(legend) > MAX_ROWS:
        legend[MAX_ROWS:] = [f"… and {len(legend) - MAX_ROWS} more schedules"]
    end = "" if recipe.length is None else f" to {recipe.length}"
    groups = f"{len(recipe.groups)} group{'s'[: len(recipe.groups) != 1]}"
    title = f"Recipe: {rule}, {groups}, {recipe.clock} {show(recipe.start)}{end}"
    settings = [shorten(line, MAX_LINE) for line in _settings(recipe)]
    return title, rows[: MAX_ROWS + 1], more, legend + settings


def _settings(recipe: Any) -> list[str]:
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
        arguments = ", ".join(f"{k}={show(v)}" for k, v in recipe.origin.arguments.items())
        lines.append(f"made by {recipe.origin.factory.__qualname__}({arguments})")
    return lines


def text(recipe: Any) -> str:
    """Return the recipe as text of at most a screenful."""
    title, rows, more, notes = _content(recipe)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]
    return "\n".join([title, *lines, *more, *notes])


def html(recipe: Any) -> str:
    """Return the recipe as HTML, with a picture of the curves if matplotlib is installed."""
    title, (header, *rows), more, notes = _content(recipe)

    def row(tag: str, entries: list[str]) -> str:
        return f"<tr>{''.join(f'<{tag}>{escape(entry)}</{tag}>' for entry in entries)}</tr>"

    table = row("th", header) + "".join(row("td", cells) for cells in [*rows, *([m] for m in more)])
    lines = "".join(f"<div><code>{escape(line)}</code></div>" for line in notes)
    return f"<p><b>{escape(title)}</b></p><table>{table}</table>{lines}{_picture(recipe)}"


def _picture(recipe: Any) -> str:
    """Return the curves as SVG, or an empty string if they cannot be drawn."""
    try:
        from jaxsched._figure import figure_of

        groups = dict([*recipe.groups.items()][:MAX_ROWS])
        fields = {"groups": groups, "update_rule": {k: recipe.rule_by_label[k] for k in groups}}
        part = dataclasses.replace(recipe, **fields, accumulation=None, ema=None)
        trace = part.trace(recipe.iterations or HTML_ROWS)
    except (ModuleNotFoundError, TypeError, ValueError):  # e.g. a table that ends earlier
        return ""
    file = io.StringIO()
    figure_of(trace, size=(6, 3)).savefig(file, format="svg")
    content = file.getvalue()
    return content[content.index("<svg") :]
