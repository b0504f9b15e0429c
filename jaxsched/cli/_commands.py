"""Run a command, and print its errors as a sentence on stderr."""

import inspect
import sys
from collections.abc import Sequence

import jax

from jaxsched._extras import OPTIONAL, missing
from jaxsched._validate import shorten


def run(words: list[str]) -> int:
    """Run the command that ``words`` name, as in ``cli.main``."""
    prog, options = "jaxsched", []
    try:
        from jaxsched.cli import _parser as parser

        app = parser.application()
        prog = " ".join([prog, *app.parse_commands(words)[0]])
        command = parser.parse(app, words)
        parameters = inspect.signature(command).parameters.values()
        options = [p.name for p in parameters if p.kind is p.KEYWORD_ONLY]
        return command() or 0
    except (MemoryError, OverflowError, jax.errors.JaxRuntimeError):
        print(f"{prog}: the run is too long for this machine's memory", file=sys.stderr)
    except BrokenPipeError:
        raise
    except (ImportError, OSError, TypeError, ValueError) as error:
        package = (error.name or "").partition(".")[0] if isinstance(error, ImportError) else ""
        sentence = f"{prog}: {_name_options(str(error), options)}"
        sentence = str(missing(prog, package)) if package in OPTIONAL else sentence
        print(shorten(sentence), file=sys.stderr)
    return 2


def _name_options(sentence: str, names: Sequence[str]) -> str:
    """Return an error's sentence with its subject, if an argument, as the option of the command line.

    >>> _name_options("start_epoch must be below epochs", ["start_epoch"])
    '--start-epoch must be below epochs'
    """
    name = sentence.partition(" must ")[0]
    return f"--{name.replace('_', '-')}{sentence[len(name) :]}" if name in names else sentence
