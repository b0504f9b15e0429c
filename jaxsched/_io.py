"""Read files of a limited size; write files whole or not at all."""

import contextlib
import functools
import itertools
import os
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

PICTURES = (".png", ".svg")
"""Suffixes of the pictures that are drawn."""


def read_text(path: str | os.PathLike[str], max_bytes: int) -> str:
    """Return a file's text; refuse a file of more than ``max_bytes``, or that is not UTF-8."""
    with open(path, "rb") as file:  # a device has no size and may be endless
        # By MiB, for a read takes as much memory as it asks for.
        chunks = iter(functools.partial(file.read, 2**20), b"")
        data = b"".join(itertools.islice(chunks, max_bytes // 2**20 + 1))
    if len(data) > max_bytes:
        raise ValueError(f"it must have at most {max_bytes:,} bytes, got more")
    return data.decode()


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Write to a temporary file and, on success, rename it to ``path`` or to the target of that link.

    On an error, an existing file stays as it was. A device, a pipe or a folder raises a ValueError,
    a missing folder of the file a FileNotFoundError.
    """
    target = _target(path)
    if not target.parent.is_dir():
        raise FileNotFoundError(
            f"the folder of a file must exist, got {os.fspath(path)}. Make the folder first."
        )
    handle, partial = tempfile.mkstemp(dir=target.parent, prefix=target.name, suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
        os.umask(mask := os.umask(0))  # the mask can only be read by setting it
        os.chmod(partial, 0o666 & ~mask)
        os.replace(partial, target)
    except BaseException:
        os.unlink(partial)
        raise


def require_suffix(path: str | os.PathLike[str], suffixes: Iterable[str]) -> None:
    """Refuse a file whose suffix is not among ``suffixes``."""
    if Path(path).suffix not in suffixes:
        raise ValueError(f"the file must end in {' or '.join(suffixes)}, got {os.fspath(path)}")


def make_writable(path: Path, suffixes: Iterable[str]) -> None:
    """Make the folder of an output; refuse another suffix and a folder that cannot be written."""
    require_suffix(path, suffixes)
    folder = _target(path).parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ValueError(
            f"out must be in a folder that can be written, got {folder} ({error.strerror})"
        ) from error


def _target(path: str | os.PathLike[str]) -> Path:
    """Return ``path`` with links resolved; refuse one that exists and is not a regular file."""
    target = Path(os.path.realpath(path))
    if os.path.lexists(target) and not target.is_file():
        raise ValueError(
            f"the output must be a regular file, got {os.fspath(path)}, which is none. "
            "Write to another path."
        )
    return target
