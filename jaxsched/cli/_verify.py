"""``jaxsched verify``: compare two runs and report the likely causes of a difference."""

import dataclasses
import importlib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from jaxsched._groups import rename
from jaxsched._io import PICTURES, atomic_write, make_writable
from jaxsched._recipe import Recipe
from jaxsched._trace import NOT_CLOSED, Trace
from jaxsched._validate import require_count
from jaxsched.cli import _sources as sources
from jaxsched.cli._console import Console
from jaxsched.parity import Report, compare


def verify(
    mine: str,
    /,
    *,
    against: str,
    labels: str | None = None,
    iterations: int | None = None,
    steps_per_epoch: int | None = None,
    out: Path | None = None,
    report: Path | None = None,
) -> int:
    """Compare a run with a reference, quantity by quantity, and report the likely causes.

    For instance: jaxsched verify port.py:recipe --against run.npz --labels 0=weight,1=bias

    Each side is a trace's file, a recipe's file (.yaml, .json), or file.py:name. The name may be a
    Recipe, a function that returns one, an Optax transformation whose state holds its
    hyperparameters (ours, or optax.inject_hyperparams; or a pair of it and its parameters), torch's
    (optimizer, scheduler), or ([optimizer, …], [scheduler, …]). Exit status 0 if the runs are
    equal, 1 if they differ, 2 if they cannot be compared.

    Args:
      mine: the run to check.
      against: the reference.
      labels: new labels of groups on either side, 0=norm,1=weight,2=bias; a swap, a=b,b=a, applies
        to mine only.
      iterations: number of iterations to compare; if not given, all that both have, or those to the
        end of a recipe's last epoch.
      steps_per_epoch: batches between two steps of a torch scheduler.
      out: the picture of the curves that differ, .png or .svg; if not given, parity.png, or no
        picture if matplotlib is not installed.
      report: a file for the evidence, .json: versions, hashes of both sides, every figure.
    """
    picture = Path("parity.png") if out is None else out
    make_writable(picture, PICTURES)
    if out is not None:
        importlib.import_module("jaxsched.plot")  # report a missing package before the comparison
    if report is not None:
        make_writable(report, (".json",))
    if iterations is not None:
        require_count("iterations", iterations, at_least=1)
    texts = mine, against
    runs = [sources.load(text, steps_per_epoch, iterations) for text in texts]
    end, least = _end(runs, iterations), iterations or 1
    a, b = (sources.evaluate(*each, end, least) for each in zip(texts, runs, strict=True))
    sides = _relabel(a, b, labels)
    try:
        result = compare(*sides, iterations=iterations)
    except ValueError as error:
        option = f"--labels {labels}," if labels else "--labels "
        advice = str(error).replace("with relabel: ", f"with {option}")
        raise ValueError(advice.replace("with relabel.", "with --labels.")) from error
    _print(result)
    if report is not None:
        evidence = {"compared": {"mine": mine, "against": against}, **result.evidence()}
        with atomic_write(report) as file:
            file.write(f"{json.dumps(evidence, indent=1, allow_nan=False)}\n".encode())
        print(f"wrote {report}")
    if result:
        return 0
    if any(q.first and not q.is_setting for q in result.quantities):
        try:
            importlib.import_module("jaxsched.plot").plot_difference(result, picture)
            print(f"wrote {picture}")
        except ModuleNotFoundError as error:
            print(f"no picture of the curves: {error}", file=sys.stderr)
    return 1


def _end(runs: list, iterations: int | None) -> int:
    """Return the iteration at which the comparison ends: as requested, or the end of a run."""
    runs = [run for run in runs if isinstance(run, Recipe | Trace)]
    if iterations is not None:
        return max((run.start for run in runs), default=0) + iterations
    ends = [run.start + len(run) if isinstance(run, Trace) else run.length for run in runs]
    if not any(ends):
        raise ValueError("iterations must be given if neither run has a known length, got none.")
    return max(filter(None, ends))


def _relabel(
    mine: Recipe | Trace, reference: Recipe | Trace, labels: str | None
) -> Iterator[Recipe | Trace]:
    """Yield both runs with their groups renamed.

    If both have the same labels, a swap is applied to ``mine`` only: in both it would cancel out.
    """
    pairs = [pair.split("=") for pair in labels.split(",")] if labels is not None else []
    if not all(len(pair) == 2 and all(pair) for pair in pairs):
        raise ValueError(f"labels must be old=new,old=new, got {labels}")
    names = {old.strip(): new.strip() for old, new in pairs}
    if len(names) < len(pairs):
        raise ValueError(f"labels must rename each group once, got {labels}")
    missing = sorted(set(names) - set(mine.groups) - set(reference.groups))
    if missing:
        groups = dict.fromkeys([*mine.groups, *reference.groups])
        raise ValueError(
            f"labels must rename groups among {', '.join(groups)}, got {', '.join(missing)}."
        )
    swap = set(names) == set(names.values()) and set(names) <= set(mine.groups)
    for run in (mine, reference):
        here = {} if swap and run is reference else names
        here = {old: new for old, new in here.items() if old in run.groups}
        if isinstance(run, Trace):
            yield run.relabel(here)
        elif here:
            fields = {"groups": rename(run.groups, here)}
            if isinstance(run.update_rule, Mapping):
                fields["update_rule"] = rename(run.update_rule, here)
            yield dataclasses.replace(run, **fields)
        else:
            yield run


def _print(report: Report) -> None:
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    columns = ("group", "quantity", "compared", "equal", "ULP", "of the peak")
    for column in (*columns, "first difference"):
        table.add_column(column, justify="left" if column in ("group", "quantity") else "right")
    for q in report.quantities:
        share, first, far = "all", "", ""
        ulp = "" if q.is_setting else f"{q.max_ulp:,}"
        if q.first is not None:
            at, ours, theirs = q.first
            share = f"{100 * q.equal / q.n:.2f} %"
            first = f"{ours} for {theirs}" if q.is_setting else f"{at}: {ours:.9g} for {theirs:.9g}"
            far = "" if q.is_setting else f"{q.max_relative:.2g}"
        table.add_row(q.label, q.name.replace("_", " "), f"{q.n:,}", share, ulp, far, first)
    console = Console(width=None if Console().is_terminal else 120, highlight=False)
    console.print(table)
    for line in report.omissions:
        print(line)
    for side, trace in (("mine", report.mine), ("the reference", report.reference)):
        if trace.closed is False:
            print(f"{side} {NOT_CLOSED}")
    print(str(report).partition("\n")[0])
    if not report:
        print("\n".join(report.conclusions))
