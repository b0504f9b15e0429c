"""Checkpoints of a run, by Orbax: stopped anywhere and resumed, it ends in the same bits.

A checkpoint is called by the iterations that are done; the next to come has that number.
"""

import errno
import json
import os
import platform
import shutil
import threading
import warnings
import zlib
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from jaxsched.param_groups import leaf_path

__all__ = ["Checkpoints", "Saved"]

_FORMAT, _NOTES = "jaxsched.Checkpoint 1", "notes.json"


class Saved(NamedTuple):
    """What a checkpoint holds.

    Attributes:
      iteration: the first that is still to be done.
      state: a tree like the one that was saved.
      rows: a nested dictionary of NumPy scalars for each iteration done.
    """

    iteration: int
    state: Any
    rows: list[dict[str, Any]]


class Checkpoints:
    """The last checkpoints of one run, in a folder of its own.

    Args:
      folder: where; made by the first save.
      run: what makes the run what it is, in JSON's types: the recipe's name and
        arguments, the seed. A checkpoint of another is refused.
      keep: how many to keep; older ones are deleted once a newer is whole.

    >>> import tempfile
    >>> kept = Checkpoints(tempfile.mkdtemp() + "/checkpoints", {"seed": 0})
    >>> kept.save(2, {"kernel": jnp.ones(3)}, [{"loss": 0.5}, {"loss": 0.25}])
    >>> kept.close()
    >>> iteration, state, rows = kept.restore({"kernel": jnp.zeros(3)})
    >>> iteration, float(state["kernel"][0]), float(rows[1]["loss"])
    (2, 1.0, 0.25)
    """

    def __init__(
        self, folder: str | os.PathLike[str], run: Mapping[str, Any], *, keep: int = 3
    ) -> None:
        self.folder: Path = Path(folder).absolute()
        self._run = json.loads(json.dumps(run))
        self._keep = keep
        self._writer: ocp.StandardCheckpointer | None = None
        self._rest: threading.Thread | None = None
        self._error: Exception | None = None

    @property
    def last(self) -> int | None:
        """The newest whole checkpoint; None where there is none."""
        return max(self._whole(), default=None)

    def _whole(self) -> list[int]:
        names = [path.name for path in self.folder.glob("*") if path.is_dir()]
        return sorted(int(name) for name in names if name.isdecimal())

    def save(self, iteration: int, state: Any, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        """Writes a checkpoint in the background; one that a kill cuts short is never seen.

        Args:
          iteration: how many are done.
          state: a tree of arrays: parameters, statistics, the optimizer's state, averages.
          rows: what each iteration told, nested dictionaries of scalars, all alike.

        Raises:
          OSError: this checkpoint, or the one before, cannot be written; those that
            are whole stay.
        """
        self._wait()
        columns = _columns(list(rows))
        leaves = [_plain(leaf) for leaf in jax.tree.leaves(state)]
        notes = {
            "format": _FORMAT,
            "run": self._run,
            "machine": _machine(leaves),
            "leaves": _described(state),
            "rows": len(columns[0][1]) if columns else 0,
            "columns": [[path, str(column.dtype)] for path, column in columns],
        }
        arrays = {"state": leaves, "rows": [column for _, column in columns]}
        partial = self.folder / f"{iteration}.partial"
        try:
            if self._writer is None:
                self._writer = ocp.StandardCheckpointer()
                if not jax.process_index():
                    self._prune()
            partial.mkdir(parents=True, exist_ok=True)
            # Told before Orbax's threads meet it, which say each in its own way that it is full.
            if shutil.disk_usage(partial).free < sum(x.nbytes for x in jax.tree.leaves(arrays)):
                raise OSError(os.strerror(errno.ENOSPC))
            self._writer.save(partial / "arrays", arrays, force=True)
        except Exception as error:
            raise self._unwritten(error) from error
        self._rest = threading.Thread(target=self._finish, args=(self._writer, partial, notes))
        self._rest.start()

    def _finish(self, writer: Any, partial: Path, notes: dict[str, Any]) -> None:
        try:
            writer.wait_until_finished()
            if jax.process_index():
                return
            notes["files"] = _files(partial)
            with (partial / _NOTES).open("w") as file:
                json.dump({**notes, "sum": _sum_of(notes)}, file)
                file.flush()
                os.fsync(file.fileno())
            whole = partial.with_suffix("")
            if whole.exists():  # the same iteration, saved again
                whole.rename(whole.with_suffix(".old.partial"))
            partial.rename(whole)
            self._prune()
        except Exception as error:  # told by the next call
            self._error = error

    def _prune(self) -> None:
        """Deletes what a kill left half done, and what is older than the last few."""
        for number in self._whole()[: -self._keep]:
            old = self.folder / str(number)
            old.rename(old.with_suffix(".old.partial"))
        for path in self.folder.glob("*.partial"):
            shutil.rmtree(path)

    def close(self) -> None:
        """Waits until the last checkpoint is whole.

        Raises:
          OSError: it could not be written; those that are whole stay.
        """
        self._wait()
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def _wait(self) -> None:
        if self._rest is not None:
            self._rest.join()
        error, self._rest, self._error = self._error, None, None
        if error is not None:
            raise self._unwritten(error) from error

    def restore(self, like: Any) -> Saved:
        """The last checkpoint, its arrays laid out over devices as those of ``like``.

        On other processors or libraries than those it was written on, a warning says
        what differs: the run then goes on, but not to the bit.

        Args:
          like: a fresh state of the same run.

        Raises:
          ValueError: there is none, or it is damaged, of another run, or of another
            model; nothing is written, and nothing deleted.
        """
        step = self.last
        if step is None:
            raise ValueError(f"{self.folder} must hold a checkpoint, got none.")
        folder = self.folder / str(step)
        notes = _read_notes(folder)
        self._refuse_others(step, notes, like)
        leaves = [_plain(leaf) for leaf in jax.tree.leaves(like)]
        target = {
            "state": [
                jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
                for leaf in leaves
            ],
            "rows": [np.empty(notes["rows"], dtype) for _, dtype in notes["columns"]],
        }
        with ocp.StandardCheckpointer() as reader:
            arrays: Any = reader.restore(folder / "arrays", target)
        _warn_elsewhere(notes["machine"], _machine(leaves))
        state = [
            jax.random.wrap_key_data(new, impl=jax.random.key_impl(old)) if _is_key(old) else new
            for new, old in zip(arrays["state"], jax.tree.leaves(like), strict=True)
        ]
        rows = [
            _nested([path for path, _ in notes["columns"]], values)
            for values in zip(*arrays["rows"], strict=True)
        ]
        return Saved(step, jax.tree.unflatten(jax.tree.structure(like), state), rows)

    def _refuse_others(self, step: int, notes: Mapping[str, Any], like: Any) -> None:
        """Refuses another run, then another model, by the first things that differ."""
        what = f"{self.folder / str(step)} must be of this run, got one"
        for kind, mine, theirs in (
            ("", self._run, notes["run"]),
            ("a model whose ", _described(like), notes["leaves"]),
        ):
            mine, theirs = _flat(mine), _flat(theirs)
            differ = [name for name in {**mine, **theirs} if mine.get(name) != theirs.get(name)]
            told = ", ".join(
                f"{name} is {theirs.get(name, 'not there')}, here {mine.get(name, 'not there')}"
                for name in differ[:3]
            )
            if differ:
                more = f" and {len(differ) - 3} more differ" if len(differ) > 3 else ""
                raise ValueError(f"{what} of {kind}{told}{more}. Resume it as it was started.")

    def _unwritten(self, error: Exception) -> OSError:
        full = os.strerror(errno.ENOSPC)
        told = (str(error).splitlines() or [type(error).__name__])[0]
        reason = full if full in str(error) else told.partition(" [")[0]
        last = "none is whole yet" if self.last is None else f"the last whole one is {self.last}"
        return OSError(f"a checkpoint in {self.folder} could not be written ({reason}); {last}")


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _plain(leaf: Any) -> jax.Array:
    """A leaf as an array of numbers, a random key as its data."""
    leaf = jnp.asarray(leaf)
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _described(state: Any) -> dict[str, str]:
    """What each leaf is, by its path."""
    return {
        "/".join(leaf_path(keys)): f"{leaf.dtype}{list(leaf.shape)}"
        for keys, leaf in jax.tree_util.tree_leaves_with_path(state)
    }


def _columns(rows: list[Mapping[str, Any]]) -> list[tuple[list[str], np.ndarray]]:
    """The path and the values of each number that the rows tell."""
    paths = [leaf_path(keys) for keys, _ in jax.tree_util.tree_leaves_with_path(rows[:1])]
    values = zip(*(jax.tree.leaves(row) for row in rows), strict=True)
    return [(list(path[1:]), np.array(column)) for path, column in zip(paths, values, strict=True)]


def _nested(paths: list[list[str]], values: Iterable[Any]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for path, value in zip(paths, values, strict=True):
        inner = row
        for key in path[:-1]:
            inner = inner.setdefault(key, {})
        inner[path[-1]] = value
    return row


def _flat(tree: Mapping[Any, Any]) -> dict[str, Any]:
    """A nested mapping as one of dotted names; of a list by the places in it."""
    flat = {}
    for name, value in tree.items():
        value = dict(enumerate(value)) if isinstance(value, list) else value
        inner = _flat(value) if isinstance(value, Mapping) else {}
        flat |= {f"{name}.{key}": v for key, v in inner.items()} or {name: value}
    return flat


def _files(folder: Path) -> dict[str, int]:
    """The checksum of every file in a folder but the notes.

    Orbax finds some damage by itself, but tells of it from threads of its own.
    """

    def checksum(path: Path) -> int:
        sum_so_far = 0
        with path.open("rb") as file:
            while piece := file.read(2**24):
                sum_so_far = zlib.crc32(piece, sum_so_far)
        return sum_so_far

    return {
        path.relative_to(folder).as_posix(): checksum(path)
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != _NOTES
    }


def _read_notes(folder: Path) -> dict[str, Any]:
    """The notes of a checkpoint, of which every file is as it was written."""
    whole = f"{folder} must be a whole checkpoint, got one whose"
    remedy = "Move it away to go on from the one before."
    try:
        notes = json.loads((folder / _NOTES).read_text())
        if notes.pop("sum") != _sum_of(notes) or notes["format"] != _FORMAT:
            raise ValueError("sum")
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{whole} {_NOTES} is damaged or gone. {remedy}") from error
    found = _files(folder)
    differ = [
        name for name in {**notes["files"], **found} if notes["files"].get(name) != found.get(name)
    ]
    if differ:
        raise ValueError(f"{whole} {differ[0]} is not as it was written. {remedy}")
    return notes


def _sum_of(notes: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(notes, sort_keys=True).encode())


def _machine(leaves: list[jax.Array]) -> dict[str, Any]:
    """What the bits of a run depend on, beside the run itself."""
    affinity = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
    devices = [device for leaf in leaves[:1] for device in leaf.sharding.device_set]
    kind = devices[0].device_kind if devices else "none"
    return {
        "jaxlib": metadata.version("jaxlib"),
        "jax": metadata.version("jax"),
        "processors": f"{len(affinity(0))} of {platform.machine()}",
        "devices": f"{len(devices)} of {kind}",
        "layout": zlib.crc32(
            repr([leaf.sharding.shard_shape(leaf.shape) for leaf in leaves]).encode()
        ),
        "processes": jax.process_count(),
        "XLA_FLAGS": " ".join(sorted(os.environ.get("XLA_FLAGS", "").split())),
    }


def _warn_elsewhere(theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
    differ = [
        f"{name} {theirs.get(name) or 'none'}, here {mine[name] or 'none'}"
        for name in mine
        if theirs.get(name) != mine[name]
    ]
    if differ:
        warnings.warn(
            f"the checkpoint was written on {'; '.join(differ)}: "
            "the run goes on, but may not end in the same bits",
            stacklevel=3,
        )
