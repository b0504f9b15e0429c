"""Read and check the settings of an original, from a mapping or its file."""

import difflib
import json
import os
from collections.abc import Mapping
from typing import Any

from jaxsched._io import read_text
from jaxsched._recipe._file import CONTENT_ERRORS, load_yaml
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
"""``{another name: the originals' key}``."""


def read(name: str, settings: Settings) -> dict[str, Any]:
    """Return a mapping as a dictionary, or the content of a YAML or (by suffix) JSON file."""
    if settings is None:
        return {}
    if isinstance(settings, Mapping):
        return dict(settings)
    if not isinstance(settings, str | os.PathLike) or not str(settings):
        raise ValueError(
            f"{name} must be a mapping or the path of a YAML file, got {describe(settings)}."
        )
    path = os.fspath(settings)
    is_json = path.endswith(".json")
    try:
        content = (json.loads if is_json else load_yaml)(read_text(path, MAX_BYTES))
    except OSError as error:
        reason = error.strerror
        raise type(error)(
            f"{name} must be a file that one can read, got {path} ({reason})"
        ) from error
    except CONTENT_ERRORS as error:
        reason = shorten(str(error).partition("\n")[0], 200)
        kind = "JSON" if is_json else "YAML"
        raise ValueError(f"{name} must be a {kind} file, got {path} ({reason}).") from error
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        kind = type(content).__name__
        raise ValueError(f"{name} must hold key: value lines, got a {kind} in {path}.")
    return dict(content)


def parse_json(name: str, text: str) -> Any:
    """Return the content of a JSON text, the argument ``name``."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise ValueError(f"{name} must be JSON, got {describe(text)} ({error}).") from error


def numbers(
    name: str, settings: Mapping[str, Any], defaults: Mapping[str, float]
) -> dict[str, float]:
    """Return the optimizer's numbers in the mapping of argument ``name``, or their defaults.

    Other keys are ignored, except those that may be typos of a missing key.
    """
    refuse_typos(name, settings, defaults)
    values = {key: settings.get(key, default) for key, default in defaults.items()}
    require_nonnegative(**{f"{name}[{key!r}]": value for key, value in values.items()})
    return values


def refuse_typos(
    name: str, settings: Mapping[str, Any], keys: Any, aliases: Mapping[str, str] = ALIASES
) -> None:
    """Refuse a key that is close to a missing one of ``keys``."""
    absent = [key for key in keys if key not in settings]
    for key in settings:
        alias = [aliases[key]] if aliases.get(key) in absent else []
        close = alias or difflib.get_close_matches(str(key).lower(), absent, 1, cutoff=0.8)
        if close and key not in keys:
            raise ValueError(
                f"{name} must use the original's keys, got {describe(key)}. Did you mean {close[0]!r}?"
            )
