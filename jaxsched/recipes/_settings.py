"""Hyperparameters in the originals' own files. Nothing here counts."""

import difflib
import os
from collections.abc import Mapping
from typing import Any

import jax

from jaxsched._io import read_text
from jaxsched._validate import describe, is_number, require_nonnegative, shorten

Settings = Mapping[str, Any] | str | os.PathLike[str] | None
"""A mapping, the path of a YAML file, or ``None`` for the original's defaults."""

MAX_BYTES = 2**20
"""Of a YAML file."""

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
    """A mapping as it stands, or what a YAML file holds.

    Raises:
      ValueError: the file is no YAML, or holds no mapping.
      FileNotFoundError: there is no such file.
    """
    if given is None:
        return {}
    if isinstance(given, Mapping):
        return dict(given)
    if not isinstance(given, str | os.PathLike) or not str(given):
        raise ValueError(
            f"{name} must be a mapping or the path of a YAML file, got {describe(given)}."
        )
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise ImportError(
            f"{name} from a YAML file needs PyYAML: pip install 'jaxsched[train]'"
        ) from error
    try:
        content = yaml.safe_load(read_text(given, MAX_BYTES))
    except OSError as error:
        raise type(error)(
            f"{name} must be a file that can be read, got {given} ({error.strerror})"
        ) from error
    except (yaml.YAMLError, ValueError, AttributeError, RecursionError) as error:
        reason = shorten(str(error).partition("\n")[0], 200)
        raise ValueError(
            f"{name} must be a YAML file, got {os.fspath(given)} ({reason})."
        ) from error
    if content is None:
        return {}
    if not isinstance(content, Mapping):
        raise ValueError(
            f"{name} must hold key: value lines, got a {type(content).__name__} "
            f"in {os.fspath(given)}."
        )
    return dict(content)


def numbers(name: str, given: Mapping[str, Any], defaults: Mapping[str, float]) -> dict[str, float]:
    """The numbers among ``given`` that belong to the optimizer, the rest at their defaults.

    Args:
      name: the argument, for the errors.
      given: the original's settings; those of augmentation and loss are passed over.
      defaults: every key that is used.

    Raises:
      ValueError: a key a typo away from one that is used and missing, or a value that
        is no finite number of at least 0.
    """
    refuse_typos(name, given, defaults)
    values = {key: given.get(key, default) for key, default in defaults.items()}
    for key, value in values.items():
        if isinstance(value, str) and _is_float(value):
            raise ValueError(
                f"{name}[{key!r}] must be a number, got the text {describe(value)}. Write {float(value)!r}: "
                "YAML reads an exponent only after a decimal point."
            )
        if not is_number(value) and not isinstance(value, jax.Array):
            raise TypeError(
                f"{name}[{key!r}] must be a finite number of at least 0, got {describe(value)}"
            )
        require_nonnegative(**{f"{name}[{key!r}]": value})
    return values


def refuse_typos(name: str, given: Mapping[str, Any], known: Any) -> None:
    """Refuses a key that is close to one of ``known`` which is not itself given."""
    absent = [key for key in known if key not in given]
    for key in given:
        if key in known:
            continue
        if key in ALIASES and ALIASES[key] in absent:
            raise ValueError(
                f"{name} must use the original's keys, got {describe(key)}. Did you mean {ALIASES[key]!r}?"
            )
        close = difflib.get_close_matches(str(key).lower(), absent, 1, cutoff=0.8)
        if close:
            raise ValueError(
                f"{name} must use the original's keys, got {describe(key)}. Did you mean {close[0]!r}?"
            )


def _is_float(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
