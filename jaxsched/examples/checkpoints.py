"""Checkpoints of a run by ``orbax.checkpoint.CheckpointManager``, with checks on restoring.

A step of the manager is the number of iterations done. Orbax writes in the background, keeps the
last few checkpoints and finds the newest. Its ``custom_metadata`` hold what Orbax does not check:
the run's identity, so that another recipe, seed or model is refused; a checksum of each array; and
the machine and libraries, on which the bits of a resumed run depend.
"""

import errno
import json
import os
import platform
import shutil
import warnings
import zlib
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from jaxsched._validate import shorten
from jaxsched.param_groups import leaf_path

__all__ = ["Checkpoints", "Saved"]

_FORMAT = "jaxsched.Checkpoint 2"


class Saved(NamedTuple):
    """The content of a checkpoint.

    Attributes:
      iteration: the next iteration.
      state: a tree like the one that was saved.
      rows: a nested dictionary of NumPy scalars for each iteration done.
    """

    iteration: int
    state: Any
    rows: list[dict[str, Any]]


class Checkpoints:
    """The last checkpoints of one run, in a folder.

    ``ocp.CheckpointManager(folder).restore(step)`` reads one without this class: nested
    dictionaries ``state``, by the names of the leaves, and ``rows``, an array a column.

    Args:
      folder: the folder, for this run only; created by the first save.
      run: the identity of the run, in JSON's types: the content of the recipe, the seed. A
        checkpoint of another run is refused.
      keep: number of checkpoints to keep; an older one is deleted once a newer one is complete.

    >>> import tempfile
    >>> checkpoints = Checkpoints(tempfile.mkdtemp() + "/checkpoints", {"seed": 0})
    >>> checkpoints.save(2, {"kernel": jnp.ones(3)}, [{"loss": 0.5}, {"loss": 0.25}])
    >>> checkpoints.close()
    >>> iteration, state, rows = checkpoints.restore({"kernel": jnp.zeros(3)})
    >>> iteration, float(state["kernel"][0]), float(rows[1]["loss"])
    (2, 1.0, 0.25)
    """

    def __init__(
        self, folder: str | os.PathLike[str], run: Mapping[str, Any], *, keep: int = 3
    ) -> None:
        self.folder: Path = Path(folder).absolute()
        self._run = json.loads(json.dumps(run))
        self._keep = keep
        self._writer: ocp.CheckpointManager | None = None

    @property
    def last(self) -> int | None:
        """The iteration of the newest complete checkpoint; None if there is none."""
        steps = ocp.utils.checkpoint_steps(self.folder) if self.folder.is_dir() else []
        return max(steps, default=None)

    def save(self, iteration: int, state: Any, rows: Iterable[Mapping[str, Any]] = ()) -> None:
        """Write a checkpoint in the background; an incomplete one is never read.

        Args:
          iteration: number of iterations done.
          state: a tree of arrays: parameters, statistics, the optimizer's state, averages.
          rows: the record of each iteration, nested dictionaries of scalars with the same keys.

        Raises:
          OSError: this checkpoint, or the one before, cannot be written; complete ones remain.
        """
        arrays = {"state": _by_name(state)}
        if rows := list(rows):
            arrays["rows"] = jax.tree.map(lambda *column: np.array(column), *rows)
        notes = {
            "format": _FORMAT,
            "run": self._run,
            "machine": _machine(jax.tree.leaves(arrays["state"])),
            "checksums": _checksums(arrays),
        }
        notes["checksum"] = _checksum(notes)
        try:
            if self._writer is None:
                self._writer = self._manager(write=True)
            self._writer.wait_until_finished()
            # Check before Orbax's threads do: each of them reports a full disk differently.
            if shutil.disk_usage(self.folder).free < sum(x.nbytes for x in jax.tree.leaves(arrays)):
                raise OSError(os.strerror(errno.ENOSPC))
            args = ocp.args.StandardSave(arrays)  # pyright: ignore[reportCallIssue]
            self._writer.save(iteration, args=args, custom_metadata=notes, force=True)
        except Exception as error:
            self._writer = None
            raise self._write_error(error) from error

    def close(self) -> None:
        """Wait until the last checkpoint is complete.

        Raises:
          OSError: it could not be written; complete ones remain.
        """
        writer, self._writer = self._writer, None
        try:
            if writer is not None:
                writer.wait_until_finished()
                writer.close()
        except Exception as error:
            raise self._write_error(error) from error

    def restore(self, like: Any) -> Saved:
        """Return the last checkpoint, with its arrays sharded like those of ``like``.

        If processors or libraries differ from those that wrote it, a warning lists the differences:
        the run may then not end in the same bits.

        Args:
          like: a fresh state of the same run.

        Raises:
          ValueError: there is no checkpoint, or it is damaged, of another run, or of another model;
            no file is written or deleted.
        """
        step = self.last
        if step is None:
            raise ValueError(f"{self.folder} must hold a checkpoint, got none.")
        fresh = _by_name(like)
        with self._read(step, "metadata", lambda: self._manager(write=False)) as reader:
            header = self._read(step, "metadata", lambda: reader.metadata(step))
            notes, tree = dict(header.custom_metadata or {}), header.item_metadata
            is_ours = notes.pop("checksum", None) == _checksum(notes)
            if not is_ours or notes["format"] != _FORMAT or tree is None or "state" not in tree:
                raise self._damage_error(step, f"metadata are not those of a {_FORMAT}")
            self._refuse_others(step, "", self._run, notes["run"])
            self._refuse_others(step, "of a model ", _describe(fresh), _describe(tree["state"]))
            columns = jax.tree.map(
                lambda column: np.empty(column.shape, column.dtype), tree.get("rows", {})
            )
            target = {"state": jax.tree.map(_target, fresh)} | (
                {"rows": columns} if columns else {}
            )
            args = ocp.args.StandardRestore(target)  # pyright: ignore[reportCallIssue]
            arrays = self._read(step, "arrays", lambda: reader.restore(step, args=args))
        for name, checksum in _checksums(arrays).items():
            if notes["checksums"].get(name) not in (checksum, None):
                raise self._damage_error(step, f"{name} is not as it was written")
        _warn_of_machine(notes["machine"], _machine(jax.tree.leaves(fresh)))
        columns = arrays.get("rows", {})
        n = len(jax.tree.leaves(columns)[0]) if columns else 0
        rows = [jax.tree.map(lambda column, k=k: column[k], columns) for k in range(n)]
        return Saved(step, _as_tree(arrays["state"], like), rows)

    def _manager(self, *, write: bool) -> ocp.CheckpointManager:
        options = ocp.CheckpointManagerOptions(
            preservation_policy=ocp.checkpoint_managers.LatestN(self._keep),
            create=write,
            cleanup_tmp_directories=write,  # those that a kill left
        )
        handler = ocp.StandardCheckpointHandler()
        return ocp.CheckpointManager(self.folder, options=options, item_handlers=handler)

    def _read(self, step: int, what: str, read: Callable[[], Any]) -> Any:
        try:
            return read()
        except Exception as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise self._damage_error(
                step, f"{what} cannot be read ({shorten(reason, 150)})"
            ) from error

    def _damage_error(self, step: int, what: str) -> ValueError:
        return ValueError(
            f"{self.folder / str(step)} must be a whole checkpoint, got one whose {what}. "
            "Move it away to go on from the one before."
        )

    def _refuse_others(
        self, step: int, of_what: str, mine: Mapping[str, Any], theirs: Mapping[str, Any]
    ) -> None:
        """Refuse a checkpoint of another run or model, listing the first differences."""
        mine, theirs = _flat(mine), _flat(theirs)
        differ = [name for name in {**mine, **theirs} if mine.get(name) != theirs.get(name)]
        if differ:
            first = ", ".join(
                f"{name} is {theirs.get(name, 'not there')}, here {mine.get(name, 'not there')}"
                for name in differ[:3]
            )
            more = f" and {len(differ) - 3} more differ" if len(differ) > 3 else ""
            raise ValueError(
                f"{self.folder / str(step)} must be of this run, got one {of_what}whose {first}{more}. "
                "Resume it as it was started."
            )

    def _write_error(self, error: Exception) -> OSError:
        full = os.strerror(errno.ENOSPC)
        first = (str(error).splitlines() or [type(error).__name__])[0]
        reason = full if full in str(error) else first.partition(" [")[0]
        last = "none is whole yet" if self.last is None else f"the last whole one is {self.last}"
        return OSError(f"a checkpoint in {self.folder} could not be written ({reason}); {last}")


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _leaves(state: Any) -> dict[str, Any]:
    """Return the leaves by path, joined by slashes."""
    leaves = jax.tree_util.tree_leaves_with_path(state)
    return {"/".join(leaf_path(keys)): leaf for keys, leaf in leaves}


def _by_name(state: Any) -> dict[str, Any]:
    """Return the state as nested dictionaries of arrays, with random keys as their data."""
    tree: dict[str, Any] = {}
    for path, leaf in _leaves(state).items():
        *above, name = path.split("/")
        inner = tree
        for key in above:
            inner = inner.setdefault(key, {})
        leaf = jnp.asarray(leaf)
        inner[name] = jax.random.key_data(leaf) if _is_key(leaf) else leaf
    return tree


def _as_tree(named: dict[str, Any], like: Any) -> Any:
    """Invert ``_by_name``; return a tree of the structure of ``like``."""
    leaves = _leaves(named)
    return jax.tree.unflatten(
        jax.tree.structure(like),
        [
            jax.random.wrap_key_data(leaves[path], impl=jax.random.key_impl(old))
            if _is_key(old)
            else leaves[path]
            for path, old in _leaves(like).items()
        ],
    )


def _target(leaf: jax.Array) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)


def _describe(tree: Any) -> dict[str, str]:
    """Return the dtype and shape of each leaf by path."""
    return {path: f"{leaf.dtype}{list(leaf.shape)}" for path, leaf in _leaves(tree).items()}


def _checksum(notes: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(notes, sort_keys=True).encode())


def _checksums(arrays: Mapping[str, Any]) -> dict[str, int | None]:
    """Return the checksum of each array's bytes; None if this process does not hold all of them."""
    return {
        path: zlib.crc32(np.ascontiguousarray(array).view(np.uint8).data)
        if not isinstance(array, jax.Array)
        or array.is_fully_addressable
        or array.is_fully_replicated
        else None
        for path, array in _leaves(arrays).items()
    }


def _flat(tree: Mapping[Any, Any]) -> dict[str, Any]:
    """Flatten a nested mapping to dotted names; entries of a list are named by their index."""
    flat = {}
    for name, value in tree.items():
        value = dict(enumerate(value)) if isinstance(value, list) else value
        inner = _flat(value) if isinstance(value, Mapping) else {}
        flat |= {f"{name}.{key}": v for key, v in inner.items()} or {name: value}
    return flat


def _machine(leaves: list[jax.Array]) -> dict[str, Any]:
    """Return the properties of machine and libraries on which the bits of a run depend."""
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


def _warn_of_machine(theirs: Mapping[str, Any], mine: Mapping[str, Any]) -> None:
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
