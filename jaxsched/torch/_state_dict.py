"""Read, join and split torch's ``state_dict`` of optimizers."""

import os
import pickle
from collections.abc import Mapping, Sequence
from typing import Any

import torch

StateDict = Mapping[str, Any] | str | os.PathLike[str]


def load(path: str | os.PathLike[str]) -> Any:
    """Load a file of ``torch.save`` on the CPU, without running code in it.

    Raises:
      ValueError: the file is not torch's, or needs more than tensors and plain containers.
      FileNotFoundError: there is no such file.

    >>> import tempfile
    >>> with tempfile.NamedTemporaryFile() as file:
    ...     torch.save({"step": torch.tensor(3.0)}, file.name)
    ...     load(file.name)
    {'step': tensor(3.)}
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except (FileNotFoundError, IsADirectoryError, PermissionError):
        raise
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{os.fspath(path)} must hold tensors and plain containers only, got a file that does "
            "not read with weights_only=True. Save optimizer.state_dict() alone."
        ) from error
    except Exception as error:  # a damaged file may raise any error
        raise ValueError(
            f"{os.fspath(path)} must be a whole file of torch.save, got one that does not read as "
            f"such ({type(error).__name__}). Save it again."
        ) from error


def _count(state_dict: Mapping[str, Any]) -> int:
    return sum(len(group["params"]) for group in state_dict["param_groups"])


def _shift_number(key: Any, by: int) -> Any:
    """Add ``by`` to a parameter's number; torch.distributed has names instead, which stay."""
    return key + by if isinstance(key, int) else key


def join(state_dicts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Join several ``state_dict``, with numbers that continue from one to the next."""
    state: dict[Any, Any] = {}
    groups: list[dict[str, Any]] = []
    first = 0
    for each in state_dicts:
        state |= {_shift_number(key, first): entry for key, entry in each["state"].items()}
        for group in each["param_groups"]:
            groups.append(
                {**group, "params": [_shift_number(key, first) for key in group["params"]]}
            )
        first += _count(each)
    return {"state": state, "param_groups": groups}


def split(state: Mapping[Any, Any], like: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Invert ``join``: return each ``state_dict`` of ``like`` with its entries of the state."""
    parts, first = [], 0
    for each in like:
        keys = [key for group in each["param_groups"] for key in group["params"]]
        own = {
            key: state[_shift_number(key, first)]
            for key in keys
            if _shift_number(key, first) in state
        }
        parts.append({**each, "state": own})
        first += _count(each)
    return parts


def as_state_dict(value: Any) -> Mapping[str, Any]:
    """Return a ``state_dict``, of a file or of several joined, or raise ValueError."""
    if isinstance(value, list | tuple):
        return join([as_state_dict(each) for each in value])
    loaded = load(value) if isinstance(value, str | os.PathLike) else value
    keys = list(loaded) if isinstance(loaded, Mapping) else [type(loaded).__name__]
    fields = {"state", "param_groups"}
    if not fields <= set(keys):
        entries = loaded.items() if isinstance(loaded, Mapping) else ()
        parts = [key for key, part in entries if isinstance(part, Mapping) and fields <= set(part)]
        raise ValueError(
            "state_dict must hold state and param_groups, as an optimizer's does, got "
            f"{', '.join(map(str, keys[:5]))}. Pass that part of the checkpoint, "
            f"jaxsched.torch.load(path)[{(parts or ['optimizer'])[0]!r}]."
        )
    state, groups = loaded["state"], loaded["param_groups"]
    if (
        not isinstance(state, Mapping)
        or not all(isinstance(entry, Mapping) for entry in state.values())
        or not isinstance(groups, list | tuple)
        or not all(isinstance(group, Mapping) and "params" in group for group in groups)
    ):
        raise ValueError(
            "state_dict must hold a mapping for each parameter and groups that have params, got "
            "others in state and param_groups. Pass optimizer.state_dict()."
        )
    return loaded
