"""Run a command, and print its errors as a sentence on stderr."""

import sys

import jax

from jaxsched._extras import OPTIONAL, missing
from jaxsched._validate import shorten


def run(words: list[str]) -> int:
    """Run the command that ``words`` name, as in ``cli.main``."""
    prog = "jaxsched"
    try:
        from jaxsched.cli import _parser as parser

        app = parser.application()
        prog = " ".join([prog, *app.parse_commands(words)[0]])
        return parser.parse(app, words)() or 0
    except (MemoryError, OverflowError, jax.errors.JaxRuntimeError):
        print(f"{prog}: the run is too long for this machine's memory", file=sys.stderr)
    except BrokenPipeError:
        raise
    except (ImportError, OSError, TypeError, ValueError) as error:
        package = (error.name or "").partition(".")[0] if isinstance(error, ImportError) else ""
        sentence = str(missing(prog, package)) if package in OPTIONAL else f"{prog}: {error}"
        print(shorten(sentence), file=sys.stderr)
    return 2
