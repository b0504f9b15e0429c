"""Hyperparameters in the originals' own files."""

import difflib
import json
import os
from collections.abc import Mapping
from typing import Any

from jaxsched._io import read_text
from jaxsched._recipe_file import REFUSED, load_yaml
from jaxsched._validate import describe, require_nonnegative, shorten

Settings = Mapping[str, Any] | str | os.PathLike[str] | None
"""A mapping, the path of a YAML or JSON file, or ``None`` for the original's defaults."""

MAX_BYTES = 2**20  # of a file

ALIASES = {
    "batch_size": "batch",
    "lr": "lr0",
    "learning_rate": "lr0",
    "final_lr": "lrf",
    "wd": "weight_decay",
    "decay": "weight_decay",
    "beta1": "momentum",
    "warmup": "warmup_epochs",
    "warmup_iterations": "warmup_epochs",
    "bias_lr": "warmup_bias_lr",
}
"""What others call the originals' keys."""


def read(name: str, given: Settings) -> dict[str, Any]:
    """Return a mapping as it is, or the content of a YAML or, by its suffix, JSON file."""
    if given is None:
        return {}
    if isinstance(given, Mapping):
        return dict(given)
    if not isinstance(given, str | os.PathLike) or not str(given):
        raise ValueError(
            f"{name} must be a mapping or the path of a YAML file, got {describe(given)}."
        )
    path = os.fspath(given)
    is_json = path.endswith(".json")
    try:
        content = (json.loads if is_json else load_yaml)(read_text(path, MAX_BYTES))
    except OSError as error:
        reason = error.strerror
        raise type(error)(
            f"{name} must be a file that one can read, got {path} ({reason})"
        ) from error
    except REFUSED as error:
        reason = shorten(str(error).partition("\n")[0], 200)
        kind = "JSON" if is_json else "YAML"
        raise ValueError(f"{name} must be a {kind} file, got {path} ({reason}).") from error
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        kind = type(content).__name__
        raise ValueError(f"{name} must hold key: value lines, got a {kind} in {path}.")
    return dict(content)


def numbers(name: str, given: Mapping[str, Any], defaults: Mapping[str, float]) -> dict[str, float]:
    """Return the optimizer's numbers among ``given``, the argument ``name``, or their defaults.

    Other keys are passed over, but for those a typo away from one that is used and missing.
    """
    refuse_typos(name, given, defaults)
    values = {key: given.get(key, default) for key, default in defaults.items()}
    require_nonnegative(**{f"{name}[{key!r}]": value for key, value in values.items()})
    return values


def refuse_typos(
    name: str, given: Mapping[str, Any], known: Any, aliases: Mapping[str, str] = ALIASES
) -> None:
    """Refuse a key that is close to one of ``known`` which is not itself given."""
    absent = [key for key in known if key not in given]
    for key in given:
        alias = [aliases[key]] if aliases.get(key) in absent else []
        close = alias or difflib.get_close_matches(str(key).lower(), absent, 1, cutoff=0.8)
        if close and key not in known:
            raise ValueError(
                f"{name} must use the original's keys, got {describe(key)}. Did you mean {close[0]!r}?"
            )
