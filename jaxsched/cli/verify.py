"""``jaxsched verify``: two runs side by side, with the likely cause where they part.

Rows are iterations, or what the reference's clock counts; 0 is the first.
"""

import json
from pathlib import Path

from jaxsched.cli import sources
from jaxsched.cli.curves import writable
from jaxsched.parity import Report, compare
from jaxsched.recipe import Recipe
from jaxsched.trace import Trace


def verify(
    mine: str,
    /,
    *,
    against: str,
    labels: str | None = None,
    iterations: int | None = None,
    steps_per_epoch: int | None = None,
    out: Path = Path("parity.png"),
    report: Path | None = None,
) -> int:
    """Holds a run against a reference, quantity by quantity, and tells why they part.

    Each is a trace's file, or file.py:name: a Recipe, a function that returns one, an
    Optax transformation whose state tells its hyperparameters (ours, or of
    optax.inject_hyperparams; or a pair of it and its parameters), or torch's
    (optimizer, scheduler). Exit status 0 where they are equal, 1 where they differ, 2
    where they cannot be compared.

    Args:
      mine: the run that is to be right.
      against: the reference.
      labels: renames groups of either, 0=norm,1=weight,2=bias.
      iterations: how many are compared; if not given, all of a trace, or to the end of
        a recipe's last epoch.
      steps_per_epoch: batches between two steps of a torch scheduler.
      out: the picture of the curves where they part, .png or .svg.
      report: a file for the evidence, .json: versions, hashes of both sides, every figure.
    """
    from jaxsched.plot import SUFFIXES, parting, require_suffix

    require_suffix(out, SUFFIXES)
    writable(out.parent)
    if report is not None:
        require_suffix(report, (".json",))
        writable(report.parent)
    if iterations is not None and iterations < 1:
        raise ValueError(f"iterations must be an integer of at least 1, got {iterations}")
    runs = [
        sources.load(text, steps_per_epoch=steps_per_epoch, iterations=iterations)
        for text in (mine, against)
    ]
    n = _rows(runs, iterations)
    names = _renamed(labels)
    a, b = (
        _cut(sources.told(text, run, n), iterations, names)
        for text, run in zip((mine, against), runs, strict=True)
    )
    found = compare(a, b, iterations=n)
    _print(found)
    if report is not None:
        evidence = {"mine": mine, "against": against}
        report.write_text(json.dumps({"compared": evidence, **found.evidence()}, indent=1) + "\n")
        print(f"wrote {report}")
    if found:
        return 0
    parting(found, out)
    print(f"wrote {out}")
    return 1


def _rows(runs: list, iterations: int | None) -> int:
    """How many rows are compared: as asked for, or as one of the two tells."""
    if iterations is not None:
        return iterations
    for run in runs:
        if isinstance(run, Trace):
            return len(run)
    for run in reversed(runs):
        if isinstance(run, Recipe) and run.iterations is not None:
            return run.iterations
    raise ValueError(
        "--iterations must be given where neither side tells how long its run is, got none."
    )


def _renamed(labels: str | None) -> dict[str, str]:
    if labels is None:
        return {}
    pairs = [pair.split("=") for pair in labels.split(",")]
    if not all(len(pair) == 2 and all(pair) for pair in pairs):
        raise ValueError(f"--labels must be old=new,old=new, got {labels}")
    return {old.strip(): new.strip() for old, new in pairs}


def _cut(run: Recipe | Trace, iterations: int | None, names: dict[str, str]) -> Recipe | Trace:
    """A trace's first iterations, its groups renamed where it has them by the old name."""
    if isinstance(run, Recipe):
        if not set(names) & set(run.groups):
            return run
        groups = {names.get(label, label): group for label, group in run.groups.items()}
        return Recipe(groups, run.update_rule, start=run.start)
    here = {old: new for old, new in names.items() if old in run.groups}
    run = run.relabel(here) if here else run
    return run if iterations is None else run.head(iterations)


def _print(report: Report) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False, header_style="bold")
    columns = ("group", "quantity", "compared", "equal", "ULP", "of the peak")
    for column in (*columns, "first difference"):
        table.add_column(column, justify="left" if column in ("group", "quantity") else "right")
    for q in report.quantities:
        share = "all" if q.first is None else f"{100 * q.equal / q.n:.2f} %"
        first = "" if q.first is None else f"{q.first[0]}: {q.first[1]:.9g} for {q.first[2]:.9g}"
        far = "" if q.first is None else f"{q.max_relative:.2g}"
        name = q.name.replace("_", " ")
        table.add_row(q.label, name, f"{q.n:,}", share, f"{q.max_ulp:,}", far, first)
    console = Console(width=None if Console().is_terminal else 120, highlight=False)
    console.print(table)
    if report.not_compared:
        print(f"not compared, for only one side has it: {', '.join(report.not_compared)}")
    summary = str(report).splitlines()
    print(summary[0])
    if not report:
        causes = [f"likely cause: {cause}" for cause in report.causes]
        print("\n".join(causes or ["no usual mistake explains it"]))
