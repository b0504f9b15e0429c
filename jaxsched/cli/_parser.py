"""The command line, parsed by cyclopts: commands are functions, options their arguments."""

import difflib
import functools
import inspect
import types
import typing
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CoercionError, CycloptsError, Parameter, Token

import jaxsched
from jaxsched import recipes
from jaxsched._recipe import Recipe
from jaxsched._recipe._file import SUFFIXES
from jaxsched.cli._console import Console
from jaxsched.cli._files import NO_SCRIPT, export, plot, record
from jaxsched.cli._train import train
from jaxsched.cli._verify import verify

COMMANDS = (train, plot, export, record, verify)
PLAIN = (bool, int, float, str, Path, type(None))
NESTED = (list, tuple, Sequence, Literal)


def parse(app: App, words: Sequence[str]) -> Callable[[], int | None]:
    """Return the call that ``words`` name; raise a ValueError if they name none."""
    if not words:
        names = ", ".join(command.__name__ for command in COMMANDS)
        raise ValueError(f"command must be one of {names}, got none. See jaxsched --help.")
    if words[0] == record.__name__ and not {"--", "--help", "-h"} & {*words}:
        raise ValueError(NO_SCRIPT)
    quiet = {"print_error": False, "exit_on_error": False, "console": Console()}
    try:
        command, bound, _ = app.parse_args(words, **quiet)
    except CycloptsError as error:
        error.command_chain = None  # the message would repeat the command's name
        raise ValueError(str(error)) from error
    return functools.partial(command, *bound.args, **bound.kwargs)


def factories() -> dict[str, Callable[..., Recipe]]:
    """Return the functions in ``recipes.__all__`` that return a recipe."""
    functions = [f for name in recipes.__all__ if inspect.isfunction(f := getattr(recipes, name))]
    return {f.__name__: f for f in functions if typing.get_type_hints(f)["return"] is Recipe}


def application() -> App:
    """Build the command; commands that take a recipe have a subcommand for each factory."""
    app = App(
        "jaxsched",
        help="Reproduce PyTorch training recipes in JAX.",
        version=f"jaxsched {jaxsched.__version__}",
        default_parameter=Parameter(negative_iterable=()),
    )
    for command in COMMANDS:
        if typing.get_type_hints(command).get("recipe") is not Recipe:
            app.command(_with_options(command), name=command.__name__)
            continue
        app.command(group := App(command.__name__))
        group.default(_with_options(command, recipe_of_file))
        for name, factory in factories().items():
            for word in {name.replace("_", "-"), name}:
                group.command(_with_options(command, factory), name=word, show=word == name)
    app.register_install_completion_command()
    return app


def recipe_of_file(file: Path | None = None, /) -> Recipe:
    """Load a recipe from a file.

    Args:
      file: a file that Recipe.save or a person wrote, .yaml or .json.
    """
    if file is None or file.suffix not in SUFFIXES:
        names = [*factories()]
        close = difflib.get_close_matches(str(file).replace("-", "_"), names, 1)
        hint = f"Did you mean {close[0]}?" if close else "A recipe's file ends in .yaml or .json."
        raise ValueError(
            f"recipe must be one of {', '.join(names)} or a file, got {file or 'none'}. {hint}"
        )
    if not file.is_file():
        raise ValueError(f"{file} must be a recipe's file, got no such file.")
    return Recipe.load(file)


def _with_options(
    command: Callable[..., int | None], factory: Callable[..., Recipe] | None = None
) -> Callable[..., int | None]:
    """Return ``command`` for cyclopts, with a recipe built from the options of ``factory``."""

    def run(*words: Any, **options: Any) -> int | None:
        if factory is None:
            return command(*words, **options)
        # Only options on the command line: args.yaml has precedence over a default.
        typed = {name: options.pop(name) for name in of_recipe if name in options}
        return command(factory(*words, **typed), **options)

    of_recipe = _options(factory) if factory else {}
    options = [*of_recipe.values(), *_options(command).values()]
    run.__signature__ = inspect.Signature(options)  # pyright: ignore
    run.__doc__ = _documentation(command, factory) if factory else inspect.getdoc(command)
    return run


def _documentation(command: Callable, factory: Callable) -> str:
    """Return a docstring with the description of ``command`` and the arguments of both."""
    description, _, own = (inspect.getdoc(command) or "").partition("Args:\n")
    of_factory = inspect.getdoc(factory) or ""
    title = "" if factory is recipe_of_file else of_factory.split("\n")[0]
    arguments = of_factory.partition("Args:\n")[2].partition("\n\n")[0]
    return f"{title}\n\n{description}Args:\n{arguments}\n{own}"


def _options(function: Callable) -> dict[str, inspect.Parameter]:
    """Return a function's parameters by name, with the types that a command line can express."""
    hints, options = typing.get_type_hints(function), {}
    for p in inspect.signature(function).parameters.values():
        if (hint := _writable(hints[p.name], p.default)) is None:
            continue
        if p.name == "out":
            hint = Annotated[hint, Parameter(alias="-o")]
        is_word = p.kind in (p.POSITIONAL_ONLY, p.VAR_POSITIONAL)
        options[p.name] = p.replace(annotation=hint, kind=p.kind if is_word else p.KEYWORD_ONLY)
    return options


def _writable(hint: Any, default: Any) -> Any:
    """Return the types in ``hint`` that a command line can express, or None."""
    is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    plain = [
        each
        for each in (typing.get_args(hint) if is_union else [hint])
        if each in PLAIN or typing.get_origin(each) in NESTED
    ]
    if {bool, int, float} <= {*plain}:  # ArrayLike, a hyperparameter
        plain = [int if type(default) is int else float]
    if int in plain and {*plain} <= {int, type(None)}:
        return Annotated[int, Parameter(converter=_integer)]
    return typing.Union[tuple(plain)] if {*plain} - {type(None)} else None  # noqa: UP007


def _integer(_: Any, tokens: Sequence[Token]) -> int:
    """Convert a word to an integer; cyclopts would round 1.5 to 2."""
    try:
        return int(tokens[0].value)
    except ValueError:
        raise CoercionError(target_type=int, token=tokens[0]) from None
