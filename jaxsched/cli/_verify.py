"""``jaxsched verify``: two runs side by side, with the likely cause where they part."""

import dataclasses
import importlib
import json
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

from jaxsched._io import PICTURES, atomic_write, make_writable
from jaxsched._recipe import Recipe
from jaxsched._trace import NOT_CLOSED, Trace, rename
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
    """Holds a run against a reference, quantity by quantity, and tells why they part.

    For instance: jaxsched verify port.py:recipe --against run.npz --labels 0=weight,1=bias

    Each is a trace's file, a recipe's (.yaml, .json), or file.py:name: a Recipe, a function that returns one, an
    Optax transformation whose state tells its hyperparameters (ours, or of
    optax.inject_hyperparams; or a pair of it and its parameters), or torch's
    (optimizer, scheduler), or of several ([optimizer, …], [scheduler, …]). Exit status 0 where they are equal, 1 where they differ, 2
    where they cannot be compared.

    Args:
      mine: the run that is to be right.
      against: the reference.
      labels: renames groups of either, 0=norm,1=weight,2=bias; a swap, a=b,b=a, is of mine.
      iterations: how many are compared; if not given, all that both have, or to the end of
        a recipe's last epoch.
      steps_per_epoch: batches between two steps of a torch scheduler.
      out: the picture of the curves where they part, .png or .svg; if not given, parity.png,
        and none where matplotlib is not installed.
      report: a file for the evidence, .json: versions, hashes of both sides, every figure.
    """
    picture = Path("parity.png") if out is None else out
    make_writable(picture, PICTURES)
    if out is not None:
        importlib.import_module("jaxsched.plot")  # what is missing is said before the comparison
    if report is not None:
        make_writable(report, (".json",))
    if iterations is not None:
        require_count("iterations", iterations, at_least=1)
    texts = mine, against
    runs = [sources.load(text, steps_per_epoch, iterations) for text in texts]
    end, least = _end(runs, iterations), iterations or 1
    a, b = (sources.evaluate(*each, end, least) for each in zip(texts, runs, strict=True))
    found = compare(*_relabelled(a, b, labels), iterations=iterations)
    _print(found)
    if report is not None:
        evidence = {"compared": {"mine": mine, "against": against}, **found.evidence()}
        with atomic_write(report) as file:
            file.write(f"{json.dumps(evidence, indent=1, allow_nan=False)}\n".encode())
        print(f"wrote {report}")
    if found:
        return 0
    if any(q.first and not q.is_setting for q in found.quantities):
        try:
            importlib.import_module("jaxsched.plot").plot_difference(found, picture)
            print(f"wrote {picture}")
        except ModuleNotFoundError as error:
            print(f"no picture of the curves: {error}", file=sys.stderr)
    return 1


def _end(runs: list, iterations: int | None) -> int:
    """The iteration at which the comparison ends, as asked for or as one of the two says."""
    known = [run for run in runs if isinstance(run, Recipe | Trace)]
    if iterations is not None:
        return max((run.start for run in known), default=0) + iterations
    ends = [run.start + len(run) if isinstance(run, Trace) else run.length for run in known]
    if not any(ends):
        raise ValueError(
            "--iterations must be given where neither side tells how long its run is, got none."
        )
    return max(filter(None, ends))


def _relabelled(
    mine: Recipe | Trace, reference: Recipe | Trace, labels: str | None
) -> Iterator[Recipe | Trace]:
    """Yield both, with groups renamed where they have them by the old name.

    Of two that have the same names a swap is made in mine alone: made in both it is none.
    """
    pairs = [pair.split("=") for pair in labels.split(",")] if labels is not None else []
    if not all(len(pair) == 2 and all(pair) for pair in pairs):
        raise ValueError(f"--labels must be old=new,old=new, got {labels}")
    names = {old.strip(): new.strip() for old, new in pairs}
    if len(names) < len(pairs):
        raise ValueError(f"--labels must rename each group once, got {labels}")
    missing = sorted(set(names) - set(mine.groups) - set(reference.groups))
    if missing:
        known = dict.fromkeys([*mine.groups, *reference.groups])
        raise ValueError(
            f"--labels must rename groups among {', '.join(known)}, got {', '.join(missing)}."
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
    for what, names in (("not compared", report.not_compared), ("left out", report.left_out)):
        if names:
            print(f"{what}, only on one side: {', '.join(names)}")
    for side, trace in (("mine", report.mine), ("the reference", report.reference)):
        if trace.closed is False:
            print(f"{side} {NOT_CLOSED}")
    print(str(report).partition("\n")[0])
    if not report:
        print("\n".join(report.conclusions))
