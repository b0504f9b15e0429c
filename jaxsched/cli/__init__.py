"""The command ``jaxsched``. Packages are imported in ``main``, so that Ctrl-C works meanwhile."""

import io
import os
import shutil
import signal
import sys
from collections.abc import Sequence
from typing import Any

__all__ = ["main"]

MIN_COLUMNS = 40  # of a terminal: rich never finishes a table in a narrower one


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that ``arguments`` name; if not given, those of this process, which then ends.

    Returns:
      The exit status: 2 for an error, with a sentence on stderr; 130 after Ctrl-C; 141 if the
      reader of stdout has closed it.

    >>> main(["--version"])
    jaxsched ...
    0
    """
    usual = signal.getsignal(signal.SIGINT)
    # A shell that starts a process in the background ignores SIGINT for it: leave that so.
    is_process = arguments is None and usual is signal.default_int_handler
    if is_process:
        signal.signal(signal.SIGINT, _end)  # an import can swallow a KeyboardInterrupt
        sys.unraisablehook = _end_if_interrupted  # and so can a callback
    try:
        if arguments is None:
            if isinstance(sys.stdout, io.TextIOWrapper):
                sys.stdout.reconfigure(errors="replace")  # not every encoding has all characters
            if shutil.get_terminal_size().columns < MIN_COLUMNS:
                os.environ["COLUMNS"] = str(MIN_COLUMNS)
        from jaxsched.cli import _commands

        if is_process:
            signal.signal(signal.SIGINT, usual)
        try:
            return _commands.run(list(sys.argv[1:] if arguments is None else arguments))
        finally:
            print(end="", flush=True)
    except KeyboardInterrupt:
        if is_process:
            _end()
        print("jaxsched: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes it at exit
        return 141
    finally:
        if is_process:
            signal.signal(signal.SIGINT, _end)


def _end(*_: Any) -> None:
    os.write(2, b"jaxsched: interrupted\n")
    os._exit(130)


def _end_if_interrupted(unraisable: Any) -> None:
    if unraisable.exc_type is KeyboardInterrupt:
        _end()
    sys.__unraisablehook__(unraisable)
