"""``jaxsched record``: a script that cannot be touched, recorded from outside.

``run`` starts it, with ``site/sitecustomize.py`` on its path, which calls ``note``
at each ``optimizer.step()`` of any optimizer. Rows are updates; 0 is the first.
"""

import atexit
import itertools
import os
import shutil
import subprocess
import sys
import time
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch

from jaxsched.torch._recording import Recording

VARIABLE = "JAXSCHED_RECORD"
"""In the script's environment: the file to write."""

EVERY, SHARE = 1.0, 0.02
"""Seconds between two flushes, at least; and the share of the time that they may take."""


def paths(out: Path) -> Iterator[Path]:
    """Where the first, second, … optimizer goes: ``run.npz``, ``run-1.npz`` and so on."""
    return (
        out if k == 0 else out.with_name(f"{out.stem}-{k}{out.suffix}") for k in itertools.count()
    )


def run(command: Sequence[str], out: Path) -> int:
    """Runs a command and records its optimizers.

    Returns:
      Its exit status; as shells have it, 128 and the signal's number, where one
      ended it.

    Raises:
      ValueError: there is no such command or script, or nothing was recorded.
    """
    out = out.absolute()
    script = next((word for word in command[1:] if not word.startswith("-")), "")
    if shutil.which(command[0]) is None:
        raise ValueError(f"the command must be a program, got {command[0]}, which is not found.")
    # Another program's words, such as a shell's -c, may end so and be no path from here.
    python = Path(command[0]).name.startswith("python")
    if python and script.endswith(".py") and not Path(script).exists():
        raise ValueError(f"the script must exist, got {script}, which is not found.")
    site = str(Path(__file__).parent / "site")
    path = os.pathsep.join(filter(None, (site, os.environ.get("PYTHONPATH"))))
    before = {path: _identity(path) for path in itertools.islice(paths(out), 1000)}
    child = subprocess.Popen(command, env={**os.environ, "PYTHONPATH": path, VARIABLE: str(out)})
    while True:
        try:
            status = child.wait()
            break
        except KeyboardInterrupt:  # the script has it too, and ends as it will
            continue
    status = status if status >= 0 else 128 - status
    written = [path for path, known in before.items() if _identity(path) != known]
    if not written:
        raise ValueError(
            f"the script must make an update to be recorded, got none before {' '.join(command)} "
            f"ended with status {status}."
        )
    print(f"wrote {', '.join(map(str, written))}", file=sys.stderr)
    return status


def _identity(path: Path) -> Any:
    try:
        return path.stat().st_ino, path.stat().st_mtime_ns
    except OSError:
        return None


class Writer:
    """The recordings of a process and their files."""

    def __init__(self, out: Path) -> None:
        self.process = os.getpid()
        self.paths = paths(out)
        self.kept: list[tuple[Recording, Path]] = []
        self.by_optimizer: weakref.WeakKeyDictionary[Any, Recording] = weakref.WeakKeyDictionary()
        self.saved: dict[Path, int] = {}
        self.due = 0.0

    def note(self, optimizer: torch.optim.Optimizer) -> None:
        """Notes an update that is about to be made, in this process."""
        if self.process != os.getpid():  # a fork would write to the files of its parent
            return
        recording = self.by_optimizer.get(optimizer)
        if recording is None:
            recording = self.by_optimizer[optimizer] = Recording(optimizer)
            self.kept.append((recording, next(self.paths)))
            self.due = 0.0
        recording.note()
        if time.monotonic() >= self.due:
            self.flush()

    def flush(self) -> None:
        """Writes every file anew, each whole at any time."""
        if self.process != os.getpid():  # as one does that ends by sys.exit
            return
        begin = time.monotonic()
        for recording, path in self.kept:
            try:
                if self.saved.get(path) != len(recording):
                    recording.trace.save(path)
                    self.saved[path] = len(recording)
            except (OSError, ValueError) as error:  # the script goes on
                print(f"jaxsched record: cannot write {path} ({error})", file=sys.stderr)
        end = time.monotonic()
        self.due = end + max(EVERY, (end - begin) / SHARE)


_writer: Writer | None = None


def note(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """The hook of every optimizer of a recorded process."""
    global _writer
    if _writer is None:
        # Taken out of the environment, so that what this process starts is not recorded.
        out = os.environ.pop(VARIABLE, None)
        if out is None or os.environ.get("RANK", "0") != "0":
            return
        _writer = Writer(Path(out))
        atexit.register(_writer.flush)
    _writer.note(optimizer)
