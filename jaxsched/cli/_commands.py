"""The commands and their options, which are a function's arguments, and for some a recipe's too."""

import contextlib
import difflib
import functools
import inspect
import io
import re
import sys
import types
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import jax

from jaxsched import recipes
from jaxsched._recipe import Recipe
from jaxsched._recipe_file import SUFFIXES
from jaxsched._validate import shorten
from jaxsched.cli._files import export, plot, record
from jaxsched.cli._verify import verify
from jaxsched.examples._train import train

COMMANDS: dict[str, Callable] = {f.__name__: f for f in (train, plot, export, record, verify)}
PLAIN = (bool, int, float, str, Path, type(None))  # types of options that a command line can hold


def run(words: list[str]) -> int:
    """Run the command that ``words`` name, as in ``cli.main``."""
    prog = "jaxsched"
    try:
        name, command = _chosen("command", COMMANDS, words, prog)
        prog, factory = f"{prog} {name}", None
        if typing.get_type_hints(command).get("recipe") is Recipe:
            if words and Path(words[0]).suffix in SUFFIXES:
                file = words.pop(0)
                if not Path(file).is_file():
                    raise ValueError(f"{file} must be a recipe's file, got no such file.")
                loaded = Recipe.load(file)
                factory = lambda: loaded  # noqa: E731
            else:
                name, factory = _chosen("recipe", factories(), words, prog)
                prog = f"{prog} {name}"
        return _bound(command, factory, words, prog)() or 0
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        extra = "torch" if package == "torch" else "train"
        print(f"{prog} needs {package}: pip install 'jaxsched[{extra}]'", file=sys.stderr)
    except (MemoryError, OverflowError, jax.errors.JaxRuntimeError):
        print(f"{prog}: the run is too long for this machine's memory", file=sys.stderr)
    except BrokenPipeError:
        raise
    except (ImportError, OSError, TypeError, ValueError) as error:
        print(shorten(f"{prog}: {error}"), file=sys.stderr)
    return 2


def factories() -> dict[str, Callable[..., Recipe]]:
    """The functions in ``recipes.__all__`` that return a recipe."""
    functions = [f for name in recipes.__all__ if inspect.isfunction(f := getattr(recipes, name))]
    return {f.__name__: f for f in functions if typing.get_type_hints(f)["return"] is Recipe}


def _chosen(
    what: str, choices: Mapping[str, Callable], words: list[str], prog: str
) -> tuple[str, Callable]:
    """Return the choice that the first of ``words`` names, and take the word off."""
    word = words.pop(0) if words else "none"
    if word in ("-h", "--help"):
        print(f"usage: {prog} {what.upper()} …\n")
        for name, choice in choices.items():
            print(f"  {name:18}{(inspect.getdoc(choice) or '').splitlines()[0]}")
        if what == "recipe":
            print(f"  {'FILE':18}A recipe that Recipe.save wrote, or of one's own: .yaml or .json.")
        print(f"\n{prog} {what.upper()} --help lists its arguments.")
        sys.exit(0)
    name = word.replace("-", "_")
    if name not in choices:
        close = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
        hint = f"Did you mean {close[0]}?" if close else f"See {prog} --help."
        raise ValueError(f"{what} must be one of {', '.join(choices)}, got {word}. {hint}")
    return name, choices[name]


def _bound(
    command: Callable, factory: Callable[..., Recipe] | None, words: list[str], prog: str
) -> Callable[[], int | None]:
    """``command`` with the options in ``words``, its recipe made of those of ``factory``."""
    import tyro

    hints, parameters = {}, inspect.signature(command).parameters
    takes_script = "script" in parameters
    end = words.index("--") if takes_script and "--" in words else len(words)
    words, script = words[:end], words[end + 1 :]
    if "out" in parameters:
        out = typing.get_type_hints(command)["out"]
        hints["out"] = Annotated[out, tyro.conf.arg(aliases=["-o"])]
    if factory:
        hints["recipe"] = Annotated[Any, tyro.conf.arg(constructor=_binder(factory))]
    refusal = io.StringIO()
    try:
        with contextlib.redirect_stderr(refusal):
            binder, config = _binder(command, **hints), (tyro.conf.OmitArgPrefixes,)
            bound = tyro.cli(binder, prog=prog, args=words, config=config)
    except SystemExit as stop:
        if not stop.code:
            raise
        # tyro draws a box with rules in it; what is wrong stands between the first two.
        sections = [*re.split(r".*(?:─{3}|-{3}).*", refusal.getvalue()), ""]
        sentence = " ".join(sections[1].replace("│", " ").split()).rstrip(".")
        if takes_script and not script:
            sentence += ". The script follows --, as in -o run.npz -- python train.py"
        raise ValueError(f"{sentence}. See {prog} --help.") from None
    if factory:
        # Only what was typed: what args.yaml holds stands for the rest.
        typed = {word.partition("=")[0].lstrip("-").replace("-", "_") for word in words}
        options = bound.keywords["recipe"].keywords
        chosen = {k: v for k, v in options.items() if {k, f"no_{k}"} & typed}
        bound.keywords["recipe"] = factory(**chosen)
    if takes_script:
        bound.keywords["script"] = script
    return bound


def _binder(function: Callable, **hints: Any) -> Callable[..., functools.partial]:
    """Return ``function`` as tyro reads it, with other type hints; called, it is bound, not run."""
    import tyro

    hints = {**typing.get_type_hints(function), **hints}

    # Not functools.wraps: tyro would follow it to the function's own type hints.
    def binder(*given: Any, **options: Any) -> functools.partial:
        return functools.partial(function, *given, **options)

    def parameter(p: inspect.Parameter) -> inspect.Parameter:
        if p.kind is p.POSITIONAL_ONLY:
            metavar = tyro.conf.arg(metavar=p.name.upper())
            return p.replace(annotation=Annotated[hints[p.name], metavar])
        return p.replace(annotation=_option(hints[p.name], p.default), kind=p.KEYWORD_ONLY)

    signature = inspect.signature(function)
    # What follows -- is the script.
    parameters = [parameter(p) for p in signature.parameters.values() if p.name != "script"]
    binder.__doc__ = inspect.getdoc(function)
    binder.__signature__ = signature.replace(parameters=parameters)  # pyright: ignore
    binder.__annotations__ = {p.name: p.annotation for p in parameters}
    return binder


def _option(hint: Any, default: Any) -> Any:
    """Of a union, what can be written on a command line: no mapping, no array."""
    if not isinstance(hint, types.UnionType) and typing.get_origin(hint) is not typing.Union:
        return hint
    plain = [h for h in typing.get_args(hint) if h in PLAIN]
    if {bool, int, float} <= {*plain}:  # a hyperparameter, whatever array it may be
        return type(default)
    return typing.Union[tuple(plain)]  # noqa: UP007
