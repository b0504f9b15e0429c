"""``jaxsched record``: run a script, in which ``site/sitecustomize.py`` calls ``note`` at each step."""

import contextlib
import itertools
import multiprocessing.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import distributed

from jaxsched._trace import Trace
from jaxsched.torch._groups import parameters, split_labels
from jaxsched.torch._log import Log, join

# Variables of the script's environment: the file to write, and a folder for claims of names.
VARIABLE, CLAIMS = "JAXSCHED_RECORD", "JAXSCHED_RECORD_CLAIMS"
EVERY, SHARE = 1.0, 0.02  # smallest interval of flushes, in seconds; their largest share of time


def paths(out: Path, claims: Path) -> Iterator[Path]:
    """Yield the file of the first, second, … optimizer of this process, by its rank or its order.

    ``run.npz``, ``run-1.npz`` and so on, ``run-rank3.npz`` of rank 3, and ``run-process1.npz`` of
    a second process of one rank. Processes claim a name by making a file of it in ``claims``.
    """
    ranked = distributed.is_available() and distributed.is_initialized()
    rank = str(distributed.get_rank()) if ranked else os.environ.get("RANK", "0")
    base = f"{out.stem}-rank{rank}" if rank.isdecimal() and rank != "0" else out.stem
    names = itertools.chain([base], (f"{base}-process{k}" for k in itertools.count(1)))
    own = next(name for name in names if _take(claims / name))
    ends = itertools.chain([""], (f"-{k}" for k in itertools.count(1)))
    return (out.with_name(f"{own}{end}{out.suffix}") for end in ends)


def _take(claim: Path) -> bool:
    try:
        claim.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def run(command: Sequence[str], out: Path) -> int:
    """Run a command, record its optimizers, and return its exit status as a shell does."""
    out = out.absolute()
    script = next((word for word in command[1:] if not word.startswith("-")), "")
    if shutil.which(command[0]) is None:
        raise ValueError(f"the command must be a program, got {command[0]}, which is not found.")
    # Arguments of other programs, such as a shell's -c, may end in .py without being a path.
    python = Path(command[0]).name.startswith("python")
    if python and script.endswith(".py") and not Path(script).exists():
        raise ValueError(f"the script must exist, got {script}, which is not found.")
    site = str(Path(__file__).parent / "site")
    path = os.pathsep.join(filter(None, (site, os.environ.get("PYTHONPATH"))))
    with tempfile.TemporaryDirectory() as claims:
        variables = {"PYTHONPATH": path, VARIABLE: str(out), CLAIMS: claims}
        child = subprocess.Popen(command, env={**os.environ, **variables})
        while (status := child.returncode) is None:
            with contextlib.suppress(
                KeyboardInterrupt
            ):  # the script gets the signal too: wait for it
                child.wait()
        names = [file.name for file in Path(claims).iterdir() if file.stat().st_size]
    status = status if status >= 0 else 128 - status
    if not names:
        raise ValueError(
            f"the script must make an update to be recorded, got none before {' '.join(command)} "
            f"ended with status {status}."
        )
    written = [str(out.with_name(name)) for name in sorted(names, key=lambda n: (len(n), n))]
    print(f"wrote {', '.join(written)}", file=sys.stderr)
    return status


def number_groups(traces: Sequence[Trace]) -> list[Trace]:
    """Renumber the groups ``"0"``, ``"1"``, … of traces, from 0 through all of them."""
    renamed, count = [], 0
    for trace in traces:
        renamed.append(trace.relabel({label: str(count + int(label)) for label in trace.groups}))
        count += len(trace.groups)
    return renamed


UNEQUAL = (
    "optimizers of one file must make equally many updates, each one before the next of another"
)


class Writer:
    """The logs of a process and their files; ``claims`` lists the files written.

    Optimizers that step in turn, each once, share the file of the first; others have a file each.
    """

    def __init__(self, out: Path, claims: Path) -> None:
        self.process = os.getpid()
        self.claims, self.paths = claims, paths(out, claims)
        self.logs: list[tuple[Log, Path]] = []
        self.by_optimizer: weakref.WeakKeyDictionary[Any, Log] = weakref.WeakKeyDictionary()
        self.saved: dict[Path, tuple[int, bool, int]] = {}
        self.due = 0.0
        self.are_together, self.closed = True, False

    def note(self, optimizer: torch.optim.Optimizer) -> None:
        """Record an update that is about to be made."""
        log = self.by_optimizer.get(optimizer)
        if log is None:
            is_late = any(other.updates > 1 for other, _ in self.logs)
            shares = not set(parameters(optimizer)).isdisjoint(parameters(*self.by_optimizer))
            (labels,) = split_labels([optimizer], None)
            log = self.by_optimizer[optimizer] = Log(optimizer, labels, [*labels])
            self.logs.append((log, next(self.paths)))
            if note := log.meta.get("note"):
                print(f"jaxsched record: {note}", file=sys.stderr)
            self.due = 0.0
            if shares:  # such as an optimizer that wraps another
                self.split("no parameter may be in two optimizers of one file")
            elif is_late:
                self.split(UNEQUAL)
        log.note()
        updates = [log.updates for log, _ in self.logs]
        if max(updates) - min(updates) > 1:
            self.split(UNEQUAL)
        if time.monotonic() >= self.due:
            self.flush()

    def split(self, rule: str) -> None:
        """Write a file for each optimizer from now on, since they break a rule."""
        if self.are_together:
            self.are_together, self.due = False, 0.0
            counts = " and ".join(f"{log.updates} of {log.kind}" for log, _ in self.logs)
            print(
                f"jaxsched record: {rule}, got updates: {counts}. Each has a file of its own.",
                file=sys.stderr,
            )

    def files(self) -> list[tuple[Path, list[Log]]]:
        """Return each file with the logs that go into it."""
        if self.are_together:
            return [(self.logs[0][1], [log for log, _ in self.logs])]
        return [(path, [log]) for log, path in self.logs]

    def flush(self) -> None:
        """Rewrite every file atomically."""
        begin = time.monotonic()
        for path, logs in self.files():
            try:
                trace = join(number_groups([log.trace(self.closed) for log in logs]))
                state = len(trace), self.closed, len(trace.groups)
                if self.saved.get(path) != state:
                    trace.save(path)
                    self.saved[path] = state
                    (self.claims / path.name).write_text("written")
            except (OSError, ValueError) as error:  # the script goes on
                print(f"jaxsched record: cannot write {path} ({error})", file=sys.stderr)
        end = time.monotonic()
        self.due = end + max(EVERY, (end - begin) / SHARE)

    def close(self) -> None:
        """Write every file a last time."""
        self.closed = True
        if len({log.updates for log, _ in self.logs}) > 1:
            self.split(UNEQUAL)
        self.flush()

    def flush_at_sigterm(self) -> None:
        """Write every file at SIGTERM, before its usual action."""
        before = signal.getsignal(signal.SIGTERM)

        def terminate(number: int, frame: Any) -> None:
            if self.process == os.getpid():  # a fork inherits its parent's handlers
                self.flush()
            if callable(before):
                before(number, frame)
            else:
                signal.signal(number, signal.SIG_DFL)
                os.kill(os.getpid(), number)

        is_main = threading.current_thread() is threading.main_thread()
        if is_main and (callable(before) or before is signal.SIG_DFL):
            signal.signal(signal.SIGTERM, terminate)


_writer: Writer | None = None


def note(optimizer: torch.optim.Optimizer, *_: Any) -> None:
    """Record a step; the hook of every optimizer of a recorded process."""
    global _writer
    if _writer is None or _writer.process != os.getpid():  # a fork writes its own files
        out, claims = Path(os.environ[VARIABLE]), Path(os.environ[CLAIMS])
        if not claims.is_dir():  # the command has ended, but the script continues
            return
        _writer = Writer(out, claims)
        _writer.flush_at_sigterm()
        # Not atexit, which a fork by multiprocessing skips.
        multiprocessing.util.Finalize(None, _writer.close, exitpriority=0)
    _writer.note(optimizer)
