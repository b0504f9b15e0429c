"""Mappings of each group's label to its values by name, and functions of them."""

from collections.abc import Callable, Mapping
from typing import Any

from jaxsched._schedule import FrozenDict, content_key
from jaxsched._validate import shorten

Groups = Mapping[str, Mapping[str, Any]]
"""``{label: {name: value}}``."""


def map_groups(function: Callable[[str, str, Any], Any], groups: Groups) -> dict[str, dict]:
    """Return ``{label: {name: function(label, name, value)}}`` in the order of ``groups``."""
    return {
        label: {name: function(label, name, value) for name, value in group.items()}
        for label, group in groups.items()
    }


def by_column(groups: Groups) -> dict[str, Any]:
    """Return the values of ``groups`` by ``label/name``."""
    return {f"{label}/{name}": v for label, group in groups.items() for name, v in group.items()}


def common_value(by_label: Mapping[str, Any]) -> Any:
    """Return the value that all labels share, compared by ``content_key``; else ``by_label``.

    >>> common_value({"a": "sgd", "b": "sgd"}), common_value({"a": "sgd", "b": "adam"})
    ('sgd', {'a': 'sgd', 'b': 'adam'})
    """
    first, *others = by_label.values()
    is_one = all(content_key(other) == content_key(first) for other in others)
    return first if is_one else FrozenDict(by_label)


def rename(by_label: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """Return a mapping with labels renamed, ``{old: new}``; refuse duplicate new labels."""
    renamed = [names.get(label, label) for label in by_label]
    if len(set(renamed)) < len(renamed):
        raise ValueError(f"labels must stay unique, got {shorten(', '.join(renamed), 200)}.")
    return dict(zip(renamed, by_label.values(), strict=True))
