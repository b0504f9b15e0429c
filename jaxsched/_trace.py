"""Trace: the hyperparameters of a run as columns of numbers, with a header; saved and loaded."""

import dataclasses
import enum
import json
import operator
import os
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from jaxsched._groups import Groups, by_column, map_groups, rename
from jaxsched._io import atomic_write
from jaxsched._validate import describe, is_number, require_count, shorten

FORMAT = "jaxsched.Trace 3"
# Formats of version 0.1.0: the header is in meta; the first lacks the names of its columns.
OLD_FORMATS = ("jaxsched.Trace 1", "jaxsched.Trace 2")
MAX_BYTES = 2**29  # of a file's arrays once expanded, the default limit of load
NOT_CLOSED = (
    "is of a recording that was not closed: what the script did after its last row is not known."
)

VERSIONS = ("torch", "torchvision", "numpy", "python")  # keys of an old meta that are versions


class Unstated(enum.Enum):
    """The type of ``UNSTATED``."""

    UNSTATED = "unstated"

    def __repr__(self) -> str:
        return "UNSTATED"


UNSTATED = Unstated.UNSTATED
"""The value of a field that a trace does not state; None states that there is no clip, for example."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Trace:
    """The hyperparameters in force, a row an iteration.

    A recipe's own trace states every field of the header, None included; a recording states what it
    observed.

    Attributes:
      groups: ``{label: {name: array (n,)}}``, in any of NumPy's real dtypes.
      run: ``{name: array (n,)}``, columns that belong to no group, in float64.
      start: the iteration of row 0.
      meta: notes, in JSON's types.
      clock: what a row is: ``"iteration"``, a batch, or ``"update"``, an optimizer step.
      update_rule: the name of the rule, or ``{label: name}`` if groups have several; None if not
        stated.
      switches: ``{label: {name: value}}``, arguments of the rule that are not numbers.
      constants: ``{label: {name: number}}``, the float64 values of constant columns.
      clip_norm: the limit of the norm of all gradients together, or None.
      clip_value: the limit of each gradient's entries, or None.
      accumulation: arguments of ``optimizers.Accumulation`` other than the batches, or None.
      ema: arguments of ``optimizers.EMA``, or None.
      versions: ``{package: version}`` of the software that ran.
      closed: whether a recording reached the end of its block or script.

    Raises:
      ValueError: arrays of different lengths, of more than one dimension, or not of real numbers;
        a hyperparameter with / in its name.

    >>> trace = Trace({"weight": {"learning_rate": np.array([0.1, 0.2])}})
    >>> len(trace), trace.relabel({"weight": "w"}).groups["w"]["learning_rate"][1]
    (2, np.float64(0.2))
    >>> trace
    Trace(2 rows from iteration 0, weight: learning_rate)
    """

    groups: Groups
    run: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    start: int = 0
    meta: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    _: dataclasses.KW_ONLY
    clock: str = "iteration"
    update_rule: str | Mapping[str, str] | None = None
    switches: Groups = dataclasses.field(default_factory=dict)
    constants: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)
    clip_norm: float | Unstated | None = UNSTATED
    clip_value: float | Unstated | None = UNSTATED
    accumulation: Mapping[str, Any] | Unstated | None = UNSTATED
    ema: Mapping[str, Any] | Unstated | None = UNSTATED
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    closed: bool | Unstated = UNSTATED

    def __post_init__(self) -> None:
        for kinds, rule, names in TYPES:
            for name in names:
                if not isinstance(value := getattr(self, name), kinds):
                    raise TypeError(f"{name} of a trace must be {rule}, got {describe(value)}.")

        def column(label: str, name: str, values: Any) -> np.ndarray:
            if "/" in name:  # in a file the last / ends the label
                raise ValueError(
                    f"names of hyperparameters must have no /, got {name} in group {label}. "
                    "Put it into the label."
                )
            return _column(f"{label}/{name}", values)

        require_count("start of a trace", self.start)
        for name, keys in (("ema", {"decay", "tau"}), ("accumulation", {"steps_per_epoch"})):
            value = getattr(self, name)
            if isinstance(value, Mapping) and not keys <= set(value):
                raise ValueError(
                    f"{name} of a trace must have {', '.join(sorted(keys))}, got {describe(value)}."
                )
        rules = self.update_rule if isinstance(self.update_rule, Mapping) else {}
        for label, name in rules.items():
            if not isinstance(name, str):
                raise TypeError(
                    f"update_rule of group {label} in a trace must be a string, got {describe(name)}."
                )
        for label, group in self.constants.items():
            if not isinstance(group, Mapping) or not all(map(is_number, group.values())):
                raise TypeError(
                    f"constants of group {label} must be numbers by name, got {describe(group)}."
                )

        def switch(_: str, name: str, value: Any) -> Any:
            return tuple(value) if isinstance(value, list) else value  # JSON has no tuples

        vars(self).update(
            groups=map_groups(column, self.groups),
            run={k: _column(k, v).astype(np.float64, copy=False) for k, v in self.run.items()},
            start=operator.index(self.start),
            switches=map_groups(switch, self.switches),
        )
        columns = self.columns()
        for name, values in columns.items():
            if len(values) != len(self):
                raise ValueError(
                    "all columns of a trace must have one length, got "
                    f"{len(self)} rows of {next(iter(columns))} and {len(values)} of {name}. "
                    "Cut all to one."
                )

    @property
    def rule_by_label(self) -> dict[str, str | None]:
        """The name of each group's update rule; None if not stated."""
        rule = self.update_rule
        return {k: rule.get(k) if isinstance(rule, Mapping) else rule for k in self.groups}

    def columns(self) -> dict[str, np.ndarray]:
        """Return every column: those of groups by ``label/name``, then those of ``run``."""
        return {**by_column(self.groups), **self.run}

    def header(self) -> dict[str, Any]:
        """Return the fields that the trace states, other than columns and notes."""
        return {
            name: value
            for name in (field.name for field in dataclasses.fields(self))
            if name not in ("groups", "run", "start", "meta")
            and (value := getattr(self, name)) is not UNSTATED
            and value != {}
            and (name, value) != ("update_rule", None)
        }

    def __len__(self) -> int:
        """The number of rows."""
        return len(next(iter(self.columns().values()), ()))

    def __repr__(self) -> str:
        groups = "; ".join(f"{label}: {', '.join(g)}" for label, g in [*self.groups.items()][:4])
        more = "; …" if len(self.groups) > 4 else ""
        names = dict.fromkeys(name for name in self.rule_by_label.values() if name)
        rule = f" of {' and '.join(names)}" if names else ""
        return f"Trace({len(self)} rows{rule} from {self.clock} {self.start}, {groups}{more})"

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Trace):
            return NotImplemented
        mine, theirs = (
            (t.start, _as_text(t.header(), t.meta), *t.columns()) for t in (self, other)
        )
        pairs = zip(self.columns().values(), other.columns().values(), strict=False)
        return mine == theirs and all(
            x.dtype == y.dtype and np.array_equal(x, y, equal_nan=True) for x, y in pairs
        )

    __hash__: ClassVar[None] = None  # pyright: ignore[reportIncompatibleMethodOverride]

    @classmethod
    def stack(
        cls, rows: Iterable[Groups], *, start: int = 0, header_of: "Trace | None" = None
    ) -> "Trace":
        """Build a trace from what ``jaxsched.hyperparameters`` returned after each iteration.

        Args:
          rows: ``{label: {name: value}}`` of each iteration.
          start: the iteration of the first row.
          header_of: a trace to copy header and notes from, such as ``recipe.trace(1)``.

        Raises:
          ValueError: the groups or names of a row differ from those of the first.
        """
        rows = list(rows)
        first = rows[0] if rows else {}
        names = [map_groups(lambda *_: None, row) for row in rows]
        for k, row in enumerate(names):
            if row != names[0]:
                raise ValueError(
                    "rows must have the names of the first, got "
                    f"{shorten(', '.join(by_column(row)), 200) or 'nothing'} in row {k}. "
                    "Stack one optimizer's."
                )
        groups = map_groups(lambda label, name, _: np.array([r[label][name] for r in rows]), first)
        header_of = cls({}) if header_of is None else header_of
        return dataclasses.replace(header_of, groups=groups, run={}, start=start)

    def head(self, n: int) -> "Trace":
        """Return the first ``n`` rows."""
        return self.between(self.start, self.start + n)

    def between(self, first: int, end: int) -> "Trace":
        """Return the rows of iterations ``first`` to ``end - 1``."""
        return self.take(slice(first - self.start, end - self.start), start=first)

    def take(self, rows: Any, **fields: Any) -> "Trace":
        """Return the rows that a NumPy index selects, and replace other fields."""
        groups = map_groups(lambda _, name, values: values[rows], self.groups)
        run = {name: values[rows] for name, values in self.run.items()}
        return dataclasses.replace(self, **{"groups": groups, "run": run, **fields})

    def relabel(self, names: Mapping[str, str]) -> "Trace":
        """Return the trace with groups renamed, ``{old: new}``; two may be swapped.

        Raises:
          ValueError: an old label is not a group, or two groups get the same label.
          TypeError: a label is not a string.
        """
        for label in (*names, *names.values()):
            if not isinstance(label, str):
                raise TypeError(
                    f"labels must be strings, got {describe(label)}. Write {str(label)!r}."
                )
        unknown = sorted(set(names) - set(self.groups))
        if unknown:
            raise ValueError(
                f"labels must be among {shorten(', '.join(self.groups), 200)}, "
                f"got {shorten(', '.join(unknown), 200)}."
            )
        fields = {k: rename(getattr(self, k), names) for k in ("groups", "switches", "constants")}
        if isinstance(self.update_rule, Mapping):
            fields["update_rule"] = rename(self.update_rule, names)
        return dataclasses.replace(self, **fields)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the trace as an npz archive; an existing file is replaced atomically.

        Raises:
          OSError: the file cannot be written; an existing file stays as it was.
        """
        arrays: dict[str, Any] = {
            "format": np.array(FORMAT),
            "start": np.array(self.start, np.int64),
            "header": np.array(json.dumps(self.header(), default=_plain)),
            "meta": np.array(json.dumps(dict(self.meta), default=_plain)),
            **by_column({"run": self.run, "groups": by_column(self.groups)}),
        }
        # A truncated archive can read as one with fewer columns: list them.
        arrays["columns"] = np.array(json.dumps(sorted(arrays)))
        with atomic_write(path) as file:
            np.savez_compressed(file, **arrays)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, max_bytes: int = MAX_BYTES) -> "Trace":
        """Read a file that ``save`` wrote; nothing in it is unpickled.

        Args:
          path: the file.
          max_bytes: limit of the arrays' size in memory; a larger file is refused.

        Raises:
          ValueError: the file is not a trace, is damaged, or is too large.
          FileNotFoundError: there is no such file.
        """
        try:
            with zipfile.ZipFile(path) as archive:
                size = sum(entry.file_size for entry in archive.infolist())
            if size > max_bytes:
                raise _TooLarge(
                    f"{os.fspath(path)} must be at most {max_bytes:,} bytes once expanded, got "
                    f"{size:,}. Pass max_bytes to Trace.load to read it."
                )
            with np.load(path, allow_pickle=False) as archive:
                arrays = {key: archive[key] for key in archive.files}
            names, version = sorted(set(arrays) - {"columns"}), str(arrays.pop("format"))
            if version != OLD_FORMATS[0] and json.loads(str(arrays.pop("columns"))) != names:
                raise KeyError("columns")
            start, meta = int(arrays.pop("start")), json.loads(str(arrays.pop("meta")))
            if version == FORMAT:
                header = json.loads(str(arrays.pop("header")))
            elif version in OLD_FORMATS:
                header, meta = _old_header(meta)
            else:
                raise KeyError("format")
            groups: dict[str, dict[str, np.ndarray]] = {}
            run = {}
            for key, values in arrays.items():
                kind, _, rest = key.partition("/")
                if kind == "groups":
                    label, _, name = rest.rpartition("/")
                    groups.setdefault(label, {})[name] = values
                elif kind == "run":
                    run[rest] = values
            trace = cls(groups, run, start, meta, **header)
        except (FileNotFoundError, IsADirectoryError, PermissionError, _TooLarge):
            raise
        except Exception as error:  # a damaged file may raise any error
            if Path(path).suffix in (".csv", ".json"):
                raise ValueError(
                    f"{os.fspath(path)} must be a trace's .npz file, got {Path(path).suffix}, which is "
                    "not read. Export the trace as .npz."
                ) from error
            raise ValueError(
                f"{os.fspath(path)} must be a whole trace file, got one that does not read as such "
                f"({type(error).__name__}). Record or export it again."
            ) from error
        if trace.closed is False:
            warnings.warn(f"{os.fspath(path)} {NOT_CLOSED}", stacklevel=2)
        return trace


class _TooLarge(ValueError):
    """Raised for a file above the limit of size."""


TYPES: tuple[tuple[Any, str, tuple[str, ...]], ...] = (
    (Mapping, "a mapping", ("groups", "run", "meta", "switches", "constants", "versions")),
    (str, "a string", ("clock",)),
    (str | Mapping | None, "a string, a mapping or None", ("update_rule",)),
    (float | int | None | Unstated, "a number, None or UNSTATED", ("clip_norm", "clip_value")),
    (Mapping | None | Unstated, "a mapping, None or UNSTATED", ("accumulation", "ema")),
    (bool | Unstated, "True, False or UNSTATED", ("closed",)),
)
"""The types of the fields of a trace, their names in messages, and the fields."""


def _old_header(meta: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the header and the notes of an old file's ``meta``."""
    meta = {**meta}  # a list is refused
    names = ("clock", "switches", "constants", "clip_norm", "accumulation", "ema")
    header = {name: meta.pop(name) for name in names if name in meta}
    header["update_rule"] = meta.pop("update_rule", None) or None
    header["versions"] = {name: meta.pop(name) for name in VERSIONS if name in meta}
    if "constants" in header:  # a recipe's own trace, which left out fields that were None
        header = {"clip_norm": None, "clip_value": None, "accumulation": None, "ema": None} | header
    return header, meta


def _as_text(*contents: Any) -> str:
    """Return contents as JSON, as a file holds them: NaN equals NaN, and a tuple is a list."""
    return json.dumps(contents, default=lambda value: _plain(value, repr), sort_keys=True)


def _plain(value: Any, otherwise: Callable[[Any], str] | None = None) -> Any:
    """Convert a NumPy value or any mapping to a type that JSON can hold."""
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "dtype"):
        return np.asarray(value).tolist()
    if otherwise is not None:
        return otherwise(value)
    raise TypeError(f"notes must be of JSON's types, got {type(value).__name__} among them.")


def _column(name: str, values: Any) -> np.ndarray:
    array = np.asarray(values)
    if array.ndim != 1 or array.dtype.kind not in "biuf":
        raise ValueError(
            f"{name} must be a row of real numbers, one an iteration, got shape {array.shape} "
            f"of {array.dtype}."
        )
    if array.flags.writeable:
        array = array.copy()
        array.flags.writeable = False
    return array
