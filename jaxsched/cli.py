"""The command ``jaxsched``: train, plot, export, record. Its counts are iterations; 0 is the first.

A command is a function and its options are that function's arguments; ``plot`` and
``export`` take those of the recipe too. A new factory in ``recipes.__all__`` needs
no line here.
"""

import contextlib
import csv
import difflib
import functools
import inspect
import io
import json
import re
import sys
import tempfile
import types
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import jax
import numpy as np

import jaxsched
from jaxsched import recipes
from jaxsched.recipe import Recipe
from jaxsched.trace import Trace

EPOCHS = 100
"""Of the article's run, as the package carries its trace."""


RUN = {"epochs": 100, "steps_per_epoch": 30}
"""The article's run, as the package carries its trace."""


def train(
    *,
    recipe: Literal["yolov5_resnet18", "yolov5"] = "yolov5_resnet18",
    epochs: int | None = None,
    out: Path | None = None,
    seed: int = 0,
) -> int:
    """Trains a network with a recipe on the spot, and proves the recipe.

    The run's own hyperparameters, read out of the optimizer's state at each iteration,
    are held against torch's run of the article, or against YOLOv5's recipe; exit status 1
    where they differ.

    Args:
      recipe: yolov5_resnet18 is the article's, a ResNet-18 on handwritten digits; yolov5 is
        YOLOv5's own with accumulation and average, a small detector on drawn shapes.
      epochs: stop after this many of the curve's epochs, 100 and 30.
      out: folder for lr.png, trace.npz and, of the detector, boxes.png; if not given,
        runs/ and the recipe's name.
      seed: of the data, its order, and the network.
    """
    whole = {"yolov5_resnet18": RUN["epochs"], "yolov5": 30}[recipe]
    epochs = whole if epochs is None else epochs
    if not 1 <= epochs <= whole:
        raise ValueError(f"epochs must be from 1 to {whole}, got {epochs}")
    out = Path("runs") / recipe if out is None else out
    writable(out)
    run = _classifier if recipe == "yolov5_resnet18" else _detector
    return run(epochs, out, seed)


def _classifier(epochs: int, out: Path, seed: int) -> int:
    """The article's run."""
    from jaxsched.examples import digits, train_nnx

    recipe = recipes.yolov5_resnet18(epochs=RUN["epochs"], steps_per_epoch=RUN["steps_per_epoch"])
    training, test = digits.load(seed=seed)
    model, optimizer = train_nnx.create(recipe, seed=seed)
    batches = digits.batches(training, epochs, seed=seed)
    rows = _shown(train_nnx.train(model, optimizer, batches), epochs * RUN["steps_per_epoch"])
    trace = _written(rows, recipe, out)
    if trace is None:
        return 130
    print(f"test accuracy: {train_nnx.accuracy(model, test):.2%} of {len(test.labels)} images")
    report = jaxsched.compare(trace, recipes.recorded("yolov5_resnet18").head(len(trace)))
    print(report)
    return 0 if report else 1


def _detector(epochs: int, out: Path, seed: int) -> int:
    """YOLOv5's recipe whole, on a detector of drawn shapes."""
    from jaxsched.examples import shapes, train_yolov5

    recipe = recipes.yolov5(
        epochs=train_yolov5.EPOCHS, steps_per_epoch=shapes.STEPS_PER_EPOCH, batch_size=shapes.BATCH
    )
    training, test = shapes.load(seed=seed)
    model, optimizer = train_yolov5.create(recipe, seed=seed)
    batches = shapes.batches(training, epochs, seed=seed)
    rows = _shown(train_yolov5.train(model, optimizer, batches), epochs * shapes.STEPS_PER_EPOCH)
    if _written(rows, recipe, out) is None:
        return 130
    model = train_yolov5.averaged(model, optimizer)
    train_yolov5.picture(model, test, out / "boxes.png")
    fit = train_yolov5.fit(model, test)
    print(f"shapes found: {fit.found:.1%}, mean IoU {fit.iou:.2f}; see {out / 'boxes.png'}")
    report = train_yolov5.proof(rows.told, recipe)
    print(report)
    return 0 if report else 1


class _Rows(NamedTuple):
    """What each iteration told, and whether the run was stopped by the user."""

    told: list[Any]
    stopped: bool


def _shown(iterations: Iterable[Any], total: int) -> _Rows:
    """Runs a training behind a progress bar; Ctrl-C ends it, with what there is."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeRemainingColumn

    told = []
    columns = (MofNCompleteColumn(), BarColumn(20), TimeRemainingColumn(), "{task.description}")
    try:
        with Progress(*columns) as progress:
            bar = progress.add_task("compiling", total=total)
            for iteration in iterations:
                told.append(iteration)
                progress.update(bar, advance=1, description=_told(iteration))
    except KeyboardInterrupt:
        return _Rows(told, stopped=True)
    return _Rows(told, stopped=False)


def _written(rows: _Rows, recipe: Recipe, out: Path) -> Trace | None:
    """The run's trace, written with its picture; ``None`` where the run was stopped."""
    from jaxsched.plot import plot

    trace = Trace.stack([row.hyperparameters for row in rows.told], meta=recipe.trace(1).meta)
    if rows.told:
        trace.save(out / "trace.npz")
        plot(trace, out / "lr.png")
        print(f"wrote {out / 'lr.png'} and {out / 'trace.npz'}")
    if rows.stopped:
        print(f"stopped after {len(rows.told)} iterations", file=sys.stderr)
        return None
    return trace


def _told(iteration: Any) -> str:
    rates = "  ".join(
        f"{label} {group['learning_rate']:.5f}"
        for label, group in iteration.hyperparameters.items()
    )
    return f"loss {iteration.loss:.4f}  accuracy {iteration.accuracy:.0%}  rates: {rates}"


def plot(recipe: Recipe, *, out: Path = Path("lr.png"), iterations: int | None = None) -> None:
    """Draws a recipe's learning rates and momentum, by iteration.

    Args:
      recipe: the arguments of the recipe.
      out: the picture, .png or .svg.
      iterations: how many; if not given, to the end of the last epoch.
    """
    from jaxsched import plot as pictures

    pictures.require_suffix(out, pictures.SUFFIXES)
    writable(out.parent)
    pictures.plot(recipe, out, iterations=iterations)
    print(f"wrote {out}")


def export(
    recipe: Recipe, *, out: Path = Path("curves.csv"), iterations: int | None = None
) -> None:
    """Writes a recipe's hyperparameters, a row an iteration.

    Args:
      recipe: the arguments of the recipe.
      out: the file, .csv, .json, or .npz, which jaxsched.Trace.load reads.
      iterations: how many; if not given, to the end of the last epoch.
    """
    from jaxsched.plot import require_suffix, rows_of

    writers = {".csv": write_csv, ".json": write_json, ".npz": Trace.save}
    require_suffix(out, writers)
    writable(out.parent)
    writers[out.suffix](rows_of(recipe, iterations), out)
    print(f"wrote {out}")


def record(script: Sequence[str], *, out: Path = Path("run.npz")) -> int:
    """Runs a PyTorch script as it stands and records its optimizers: record -o run.npz -- python train.py.

    The script runs in the Python that the command names, which must have jaxsched. A
    row is an update; a second optimizer goes to run-1.npz, and so on. The exit status
    is the script's.

    Args:
      script: the command and its arguments.
      out: the file, .npz, written anew about each second.
    """
    from jaxsched.plot import require_suffix

    require_suffix(out, (".npz",))
    writable(out.parent)
    if not script:
        raise ValueError(
            "the script must follow --, got none: record -o run.npz -- python train.py"
        )
    from jaxsched.torch import script as scripts

    return scripts.run(script, out)


def writable(folder: Path) -> None:
    """Makes the folder; refuses one that cannot be made or written to."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise ValueError(
            f"out must be in a folder that can be written, got {folder} ({error.strerror})"
        ) from error


def write_csv(trace: Trace, path: Path) -> None:
    """A column for the iteration, one for each label/name, and those of no group."""
    columns = {
        "iteration": np.arange(trace.start, trace.start + len(trace)),
        **{
            f"{label}/{name}": v
            for label, group in trace.groups.items()
            for name, v in group.items()
        },
        **trace.run,
    }
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(zip(*(values.tolist() for values in columns.values()), strict=True))


def write_json(trace: Trace, path: Path) -> None:
    """``start``, ``groups`` and ``run`` as a Trace has them."""
    content = {"start": trace.start, "groups": trace.groups, "run": trace.run}
    path.write_text(json.dumps(content, default=np.ndarray.tolist) + "\n")


COMMANDS = {"train": train, "plot": plot, "export": export, "record": record}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command that ``arguments`` (the process's, if not given) name.

    Returns:
      The exit status: 2 where they cannot be followed, with a sentence on stderr.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    prog = "jaxsched"
    try:
        name = _chosen("command", COMMANDS, words, prog)
        prog, command, factory = f"{prog} {name}", COMMANDS[name], None
        if typing.get_type_hints(command).get("recipe") is Recipe:
            name = _chosen("recipe", factories(), words, prog)
            prog, factory = f"{prog} {name}", factories()[name]
        return _bound(command, factory, words, prog)() or 0
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        extra = "torch" if package == "torch" else "train"
        print(f"{prog} needs {package}: pip install 'jaxsched[{extra}]'", file=sys.stderr)
    except (MemoryError, OverflowError, jax.errors.JaxRuntimeError):
        print(f"{prog}: the run is too long for this machine's memory", file=sys.stderr)
    except (ImportError, OSError, ValueError) as error:
        print(f"{prog}: {error}", file=sys.stderr)
    return 2


def factories() -> dict[str, Callable[..., Recipe]]:
    """The functions in ``recipes.__all__`` that return a recipe."""
    public = {name: getattr(recipes, name) for name in recipes.__all__}
    return {
        name: function
        for name, function in public.items()
        if inspect.isfunction(function) and typing.get_type_hints(function)["return"] is Recipe
    }


def _chosen(what: str, choices: Mapping[str, Callable], words: list[str], prog: str) -> str:
    """The choice that the first of ``words`` names, which is taken off."""
    word = words.pop(0) if words else "none"
    if word in ("-h", "--help"):
        print(f"usage: {prog} {what.upper()} …\n")
        for name, choice in choices.items():
            print(f"  {name:18}{(inspect.getdoc(choice) or '').splitlines()[0]}")
        print(f"\n{prog} {what.upper()} --help tells the rest.")
        sys.exit(0)
    name = word.replace("-", "_")
    if name not in choices:
        close = difflib.get_close_matches(name, choices, n=1, cutoff=0.5)
        hint = f"Did you mean {close[0]}?" if close else f"See {prog} --help."
        raise ValueError(f"{what} must be one of {', '.join(choices)}, got {word}. {hint}")
    return name


def _bound(
    command: Callable, factory: Callable[..., Recipe] | None, words: list[str], prog: str
) -> Callable[[], int | None]:
    """``command`` with the options in ``words``, its recipe made of those of ``factory``."""
    import tyro

    hints = {}
    takes_script = "script" in inspect.signature(command).parameters
    end = words.index("--") if takes_script and "--" in words else len(words)
    words, script = words[:end], words[end + 1 :]
    if "out" in inspect.signature(command).parameters:
        hints["out"] = Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    if factory:
        hints["recipe"] = Annotated[Any, tyro.conf.arg(constructor=_binder(factory))]
    refusal = io.StringIO()
    try:
        with contextlib.redirect_stderr(refusal):
            bound = tyro.cli(
                _binder(command, **hints),
                prog=prog,
                args=words,
                config=(tyro.conf.OmitArgPrefixes,),
            )
    except SystemExit as stop:
        if not stop.code:
            raise
        # tyro draws a box with rules in it; what is wrong stands between the first two.
        sections = [*re.split(r".*(?:─{3}|-{3}).*", refusal.getvalue()), ""]
        sentence = " ".join(sections[1].replace("│", " ").split()).rstrip(".")
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
    """``function`` as tyro reads it, with other type hints; called, it is bound, not run."""
    hints = {**typing.get_type_hints(function), **hints}

    # Not functools.wraps: tyro would follow it to the function's own type hints.
    def binder(**options: Any) -> functools.partial:
        return functools.partial(function, **options)

    signature = inspect.signature(function)
    parameters = [
        p.replace(annotation=_option(hints[p.name]), kind=p.KEYWORD_ONLY)
        for p in signature.parameters.values()
        if p.name != "script"  # what follows --
    ]
    binder.__doc__ = inspect.getdoc(function)
    binder.__signature__ = signature.replace(parameters=parameters)  # pyright: ignore
    binder.__annotations__ = {p.name: p.annotation for p in parameters}
    return binder


def _option(hint: Any) -> Any:
    """Of a union, what can be written on a command line: no mapping, no array."""
    if not isinstance(hint, types.UnionType) and typing.get_origin(hint) is not typing.Union:
        return hint
    plain = (bool, int, float, str, Path, type(None))
    return typing.Union[tuple(h for h in typing.get_args(hint) if h in plain)]  # noqa: UP007


if __name__ == "__main__":
    sys.exit(main())
