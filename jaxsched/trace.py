"""What a run's hyperparameters were, as arrays; saved and loaded.

Row k of a trace is iteration ``start + k``, unless ``meta["clock"]`` names
another count.
"""

import contextlib
import dataclasses
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

FORMAT = "jaxsched.Trace 2"
BEFORE = "jaxsched.Trace 1"
"""Without the names of its columns; read, not written."""

BY_LABEL = ("switches", "constants")
"""What ``meta`` tells of each group."""


@dataclasses.dataclass(frozen=True, eq=False)
class Trace:
    """Hyperparameters that were in force, a row an iteration.

    Attributes:
      groups: ``{label: {name: array (n,)}}``, in any float dtype of NumPy's own.
      run: ``{name: array (n,)}``, what belongs to no group, in float64.
      start: the iteration of row 0.
      meta: what else is to be told, as JSON has it: ``clock``, versions,
        ``update_rule``, each group's ``switches``.

    Raises:
      ValueError: arrays of different lengths, of more than one dimension, or of
        no real numbers; a hyperparameter with / in its name.

    >>> trace = Trace({"weight": {"learning_rate": np.array([0.1, 0.2])}})
    >>> len(trace), trace.relabel({"weight": "w"}).groups["w"]["learning_rate"][1]
    (2, np.float64(0.2))
    """

    groups: Mapping[str, Mapping[str, np.ndarray]]
    run: Mapping[str, np.ndarray] = dataclasses.field(default_factory=dict)
    start: int = 0
    meta: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        groups = {
            label: {name: _column(f"{label}/{name}", values) for name, values in group.items()}
            for label, group in self.groups.items()
        }
        run = {
            name: _column(name, values).astype(np.float64, copy=False)
            for name, values in self.run.items()
        }
        object.__setattr__(self, "groups", groups)
        object.__setattr__(self, "run", run)
        object.__setattr__(self, "start", int(self.start))
        columns = {
            **{
                f"{label}/{name}": v for label, group in groups.items() for name, v in group.items()
            },
            **run,
        }
        for label, group in groups.items():
            for name in group:
                # In a file the last / ends the label.
                if "/" in name:
                    raise ValueError(
                        f"names of hyperparameters must have no /, got {name} in group {label}. "
                        "Put it into the label."
                    )
        first = next(iter(columns), None)
        for name, values in columns.items():
            if len(values) != len(self):
                raise ValueError(
                    "all columns of a trace must have one length, got "
                    f"{len(self)} rows of {first} and {len(values)} of {name}. Cut all to one."
                )

    def __len__(self) -> int:
        """The number of rows."""
        columns = [v for group in self.groups.values() for v in group.values()]
        return len([*columns, *self.run.values(), ()][0])

    @classmethod
    def stack(
        cls,
        rows: Iterable[Mapping[str, Mapping[str, Any]]],
        *,
        start: int = 0,
        meta: Mapping[str, Any] | None = None,
    ) -> "Trace":
        """From what ``jaxsched.hyperparameters`` told after each iteration.

        Raises:
          ValueError: a row tells other groups or names than the first.
        """
        rows = list(rows)
        labels = {label: tuple(group) for label, group in rows[0].items()} if rows else {}
        for k, row in enumerate(rows):
            if {label: set(group) for label, group in row.items()} != {
                label: set(names) for label, names in labels.items()
            }:
                told = ", ".join(
                    f"{label}/{name}" for label, group in row.items() for name in group
                )
                raise ValueError(
                    f"rows must tell what the first does, got {told or 'nothing'} in row {k}. "
                    "Stack one optimizer's."
                )
        return cls(
            {
                label: {name: np.array([row[label][name] for row in rows]) for name in names}
                for label, names in labels.items()
            },
            start=start,
            meta=meta or {},
        )

    def head(self, n: int) -> "Trace":
        """The first ``n`` rows."""
        return dataclasses.replace(
            self,
            groups={
                label: {name: values[:n] for name, values in group.items()}
                for label, group in self.groups.items()
            },
            run={name: values[:n] for name, values in self.run.items()},
        )

    def relabel(self, names: Mapping[str, str]) -> "Trace":
        """The same trace with groups renamed, ``{old: new}``; two may be swapped.

        Raises:
          ValueError: there is no group of an old name, or two get one name.
        """
        unknown = sorted(set(names) - set(self.groups))
        if unknown:
            raise ValueError(
                f"labels must be among {', '.join(self.groups)}, got {', '.join(unknown)}."
            )
        renamed = [names.get(label, label) for label in self.groups]
        if len(set(renamed)) < len(renamed):
            raise ValueError(f"labels must stay unique, got {', '.join(renamed)}.")
        groups = dict(zip(renamed, self.groups.values(), strict=True))
        by_label = {
            key: {names.get(label, label): told for label, told in self.meta[key].items()}
            for key in BY_LABEL
            if key in self.meta
        }
        return dataclasses.replace(self, groups=groups, meta={**self.meta, **by_label})

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes the trace as an npz archive; a file already there is replaced whole.

        Raises:
          OSError: the file cannot be written; what was there stays.
        """
        arrays: dict[str, Any] = {
            "format": np.array(FORMAT),
            "start": np.array(self.start, np.int64),
            "meta": np.array(json.dumps(dict(self.meta), default=float)),
            **{f"run/{name}": values for name, values in self.run.items()},
            **{
                f"groups/{label}/{name}": values
                for label, group in self.groups.items()
                for name, values in group.items()
            },
        }
        # An archive whose directory is cut reads as one with fewer columns.
        arrays["columns"] = np.array(json.dumps(sorted(arrays)))
        with replacing(path) as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Trace":
        """Reads what ``save`` wrote; nothing in it is unpickled.

        Raises:
          ValueError: the file is no trace, or is damaged.
          FileNotFoundError: there is no such file.
        """
        try:
            with np.load(path, allow_pickle=False) as archive:
                arrays = {key: archive[key] for key in archive.files}
            names, version = sorted(set(arrays) - {"columns"}), str(arrays.pop("format"))
            if version != BEFORE and json.loads(str(arrays.pop("columns"))) != names:
                raise KeyError("columns")
            if version not in (FORMAT, BEFORE):
                raise KeyError("format")
            start, meta = int(arrays.pop("start")), json.loads(str(arrays.pop("meta")))
            groups: dict[str, dict[str, np.ndarray]] = {}
            run = {}
            for key, values in arrays.items():
                kind, _, rest = key.partition("/")
                if kind == "groups":
                    label, _, name = rest.rpartition("/")
                    groups.setdefault(label, {})[name] = values
                elif kind == "run":
                    run[rest] = values
            return cls(groups, run, start, meta)
        except (FileNotFoundError, IsADirectoryError, PermissionError):
            raise
        except Exception as error:  # a damaged file raises whatever its bytes lead to
            raise ValueError(
                f"{os.fspath(path)} must be a whole trace file, got one that does not read as such "
                f"({type(error).__name__}). Record or export it again."
            ) from error


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A file to be written, which stands at ``path`` once it is whole.

    Until then, and where an error ends it, what was there stays: no half a file is
    ever seen.

    Raises:
      OSError: the folder cannot be written to.
    """
    path = Path(path)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        os.chmod(partial, 0o666 & ~_umask())
        os.replace(partial, path)
    except BaseException:
        os.unlink(partial)
        raise


def warmup_end(trace: Trace) -> int | None:
    """The first iteration at which the groups share one rate for good and momentum has risen.

    ``None`` where nothing warms up, or does so until the trace's end.

    >>> rates = {"weight": [0.0, 0.5, 1.0, 1.0], "bias": [2.0, 1.5, 1.0, 1.0]}
    >>> warmup_end(Trace({label: {"learning_rate": rate} for label, rate in rates.items()}))
    2
    """
    rates = [g["learning_rate"] for g in trace.groups.values() if "learning_rate" in g]
    warming = np.zeros(len(trace), bool)
    for rate in rates[1:]:
        warming |= rate != rates[0]
    for momentum in (g["momentum"] for g in trace.groups.values() if "momentum" in g):
        # A momentum that falls is cycled, not warmed up.
        if (np.diff(momentum) >= 0).all():
            warming |= momentum != momentum[-1]
    rows = np.flatnonzero(warming)
    return None if not rows.size or rows[-1] == len(trace) - 1 else trace.start + int(rows[-1]) + 1


def _column(name: str, values: Any) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "biuf":
        raise ValueError(
            f"{name} must be a row of real numbers, one an iteration, got shape {array.shape} "
            f"of {array.dtype}."
        )
    return array


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
