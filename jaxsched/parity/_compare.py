"""Compare two runs row by row. Rows are iterations from the start of the run, or updates."""

import dataclasses
import functools
import itertools
from collections.abc import Iterator

import numpy as np

from jaxsched._recipe import Recipe
from jaxsched._trace import UNSTATED, Trace
from jaxsched._validate import require_count
from jaxsched.parity._distance import equal, ulps
from jaxsched.parity._explain import Cause, Run, explain
from jaxsched.parity._explain._runs import implied_quantities
from jaxsched.parity._report import Difference, Quantity, Report
from jaxsched.parity._settings import compare_settings, setting_causes

MAX_GROUPS = 6  # groups of which every renaming is tried
# The quantities and settings from which the other columns of ``run`` follow.
INPUTS = {("", name) for name in ("accumulate", "stepped", "pending_gradients", "ema")}


def compare(
    mine: Recipe | Trace, reference: Recipe | Trace, *, iterations: int | None = None
) -> Report:
    """Compare two runs, iteration by iteration, in everything that acts on parameters.

    Two numbers are equal if the nearest float32 are the same, since these act on float32 parameters;
    if both sides are float64, the numbers must also be within ``FLOAT64_BOUND``, relative to the
    reference's peak. NaN equals nothing. The update rule and its switches, the clip, the accumulation
    and the average are compared if both sides state them: a recipe and its trace state everything, a
    recording states what it observed.

    If the runs differ, the report's causes are the simplest changes of one side (of an argument, the
    clock, the value or the groups) that reproduce the other to the bit. The search takes some
    seconds, and runs when the causes are first read or printed. To compare updates, call
    ``jaxsched.torch.assert_optimizer_matches``.

    Iteration i of one run is compared with iteration i of the other, from the later ``start`` to the
    end of the shorter trace; for two recipes, to the end of the shorter ``length``. The report's
    ``left_out`` lists rows that only one side has.

    If every iteration makes an update, a trace that counts updates also counts iterations. A recipe
    with accumulation is compared with such a trace at the iterations that make an update.

    Args:
      mine: a recipe or a trace.
      reference: a recipe or a trace.
      iterations: number of iterations to compare; if not given, to the end described above.

    Raises:
      TypeError: not recipes or traces.
      ValueError: runs that do not overlap, with different clocks or groups, or with nothing to
        compare; an infinite float64, next to which every distance is small.

    >>> from jaxsched.recipes import yolov5_resnet18
    >>> recipe = yolov5_resnet18(epochs=2, steps_per_epoch=3, warmup_iterations=2)
    >>> print(compare(recipe, recipe.trace(6)))
    parity: 6 iterations × 3 groups × learning rate, momentum, dampening, weight decay: 0 ULP
    >>> other = yolov5_resnet18(epochs=2, steps_per_epoch=3, warmup_iterations=3)
    >>> compare(other, recipe).causes[0]
    'warmup_iterations 3 for 2'
    """
    a, b, left_out, unstated_rows = _traces(mine, reference, iterations)
    columns, only_one = _columns(a, b)
    if not columns:
        raise ValueError(
            "traces must have at least 1 quantity to compare, got none in the reference's groups. "
            "Pass one with its hyperparameters."
        )
    for label, name, *both in columns:
        for values in both:
            if values.dtype == np.float64 and np.isinf(values).any():
                raise ValueError(
                    f"traces must hold finite float64 numbers, got {values[np.isinf(values)][0]} of "
                    f"{'/'.join(filter(None, (label, name)))} at {b.clock} "
                    f"{b.start + np.isinf(values).argmax()}. Compare the {b.clock}s before it."
                )
    numbers = [_quantity(b.start, column) for column in columns]
    settings, unstated = compare_settings(a, b, mine, reference)
    compared = {(label, name) for label, name, *_ in columns}
    unstated = [name for label, name in unstated if (label, name) not in compared]
    not_compared = tuple(dict.fromkeys([*unstated_rows, *only_one, *unstated]))
    search = functools.partial(_causes, _side(mine, a), _side(reference, b))
    return Report((*numbers, *settings), not_compared, search, a, b, left_out)


def _causes(mine: Run, reference: Run, report: Report) -> Iterator[Cause]:
    """Yield the causes of the numbers that differ, then of the settings."""
    causes = [*setting_causes(mine.trace, reference.trace, report)]
    differing = [q for q in report.quantities if q.first]
    implied = implied_quantities(mine, reference) if any(not q.label for q in differing) else []
    if any(not q.is_setting for q in differing):
        causes = [*explain(mine, reference, implied), *causes]
    followers = [key for key in implied if key in {(q.label, q.name) for q in differing}]
    for cause in causes:
        inputs = [key for key in cause.quantities if key in INPUTS]
        if not inputs:
            yield cause
            continue
        name = inputs[0][1]
        is_named = cause.kind == "argument" or name in cause.sentence
        yield dataclasses.replace(
            cause,
            sentence=cause.sentence if is_named else f"{cause.sentence}, in {name}",
            quantities=tuple(dict.fromkeys((*cause.quantities, *followers))),
        )


def _side(run: Recipe | Trace, trace: Trace) -> Run:
    """Return a side for the search, with its recipe if the trace's rows are the recipe's iterations."""
    if isinstance(run, Recipe) and (run.accumulation is None or trace.clock == "iteration"):
        return Run(trace, run)
    return Run(trace, None)


def _traces(
    mine: Recipe | Trace, reference: Recipe | Trace, iterations: int | None
) -> tuple[Trace, Trace, tuple[str, ...], list[str]]:
    """Return both runs as traces of the same rows, the rows left out, and names not compared."""
    for run in (mine, reference):
        if not isinstance(run, Recipe | Trace):
            raise TypeError(
                f"compare takes recipes and traces, got {type(run).__name__}. "
                "Read a trace's file with Trace.load; of a recording pass its trace."
            )
        if isinstance(run, Trace) and not len(run):
            raise ValueError("traces must have at least 1 row, got 0.")
    if iterations is not None:
        require_count("iterations", iterations, at_least=1)
    x, y = _in_clock(mine, reference, iterations), _in_clock(reference, mine, iterations)
    clock, unstated = _common_clock(x, y)
    first, end = _overlap(x, y, clock, iterations)
    left_out = tuple(
        f"{_stretch(clock, *rows)} of {name}"
        for name, whole, run in (("mine", mine, x), ("the reference", reference, y))
        for rows in ((run.start, first), (end, end if iterations else _last(whole, run) or end))
        if rows[0] < rows[1]
    )
    traces = (
        run.between(first, end) if isinstance(run, Trace) else _evaluate(name, run, first, end)
        for name, run in (("mine", x), ("the reference", y))
    )
    a, b = (dataclasses.replace(trace, clock=clock) for trace in traces)
    if isinstance(reference, Recipe) and isinstance(mine, Trace):
        b, dropped = _drop_defaults(reference, b, a)
        unstated += dropped
    if sorted(a.groups) != sorted(b.groups):
        raise ValueError(
            f"traces must have the same groups, got {', '.join(sorted(a.groups))} against "
            f"{', '.join(sorted(b.groups))}. {_suggest_renaming(a, b)}"
        )
    return a, b, left_out, unstated


def _evaluate(side: str, recipe: Recipe, first: int, end: int) -> Trace:
    """Return the rows of a recipe; name the quantity whose schedule ends earlier."""
    try:
        return recipe.trace(end - first, first)
    except ValueError:
        for label, group in recipe.groups.items():
            for name, schedule in group.items():
                try:
                    _ = [schedule(count) for count in (first, end - 1) if callable(schedule)]
                except ValueError as error:
                    raise ValueError(f"{name} of {label} of {side}: {error}") from error
        raise


def _end(run: Recipe | Trace) -> int | None:
    """Return the row after a run's last, or None if unknown."""
    return run.start + len(run) if isinstance(run, Trace) else run.length


def _last(whole: Recipe | Trace, run: Recipe | Trace) -> int | None:
    """Return the row after the last of ``whole``; ``run`` may hold fewer of its updates."""
    if whole is run or not isinstance(whole, Recipe) or whole.length is None:
        return _end(run)
    return run.start + int(whole.bookkeeping(whole.length - whole.start)["stepped"].sum())


def _in_clock(run: Recipe | Trace, other: Recipe | Trace, iterations: int | None) -> Recipe | Trace:
    """Return a recipe with accumulation as a trace of its updates if ``other`` counts updates."""
    if not isinstance(run, Recipe) or run.accumulation is None or run.clock == other.clock:
        return run
    end = other.start + iterations if iterations else _end(other)
    if end is None:
        return run
    # The number of updates before a start in mid-run is unknown.
    start = other.start if run.start else 0
    n = batches = max(end - start, 1)
    try:
        while (stepped := run.bookkeeping(batches)["stepped"]).sum() < n:
            batches *= 2
    except ValueError:  # a table of batches ends earlier
        if run.iterations is None:
            raise
        stepped = run.bookkeeping(run.iterations)["stepped"]
        if stepped.sum() < n:
            raise
    rows = np.flatnonzero(stepped)[:n]
    return run.trace(int(rows[-1]) + 1).take(rows, run={}, start=start, clock="update")


def _common_clock(mine: Recipe | Trace, reference: Recipe | Trace) -> tuple[str, list[str]]:
    """Return the clock of both runs, and the names of settings that this assumes."""
    if mine.clock == reference.clock:
        return mine.clock, []
    # If every iteration makes an update, the two clocks are one.
    run = mine if mine.clock == "iteration" else reference
    rows = run.run.get("stepped") if isinstance(run, Trace) else None
    is_one = bool(rows.all()) if rows is not None else run.accumulation in (None, UNSTATED)
    if {mine.clock, reference.clock} != {"iteration", "update"} or not is_one:
        raise ValueError(
            "traces must have the same clock where not every iteration makes an update, got "
            f"{mine.clock} against {reference.clock}. Record it with recording.batch()."
        )
    is_stated = rows is not None or run.accumulation is None
    return "update", [] if is_stated else ["accumulation"]


def _overlap(
    mine: Recipe | Trace, reference: Recipe | Trace, clock: str, iterations: int | None
) -> tuple[int, int]:
    """Return the first row to compare, and the row after the last."""
    first = max(mine.start, reference.start)
    ends = [run.start + len(run) for run in (mine, reference) if isinstance(run, Trace)]
    if not ends:  # recipes can be evaluated past their lengths
        lengths = [first + iterations] if iterations else [_end(mine), _end(reference)]
        ends = [end for end in lengths if end is not None]
    if not ends:
        raise ValueError(
            "one of two recipes must have a length, got None of both. Pass iterations, or compare "
            "with recipe.trace(n). Recipe(length=n) states a recipe's own."
        )
    n = min(ends) - first
    if n <= 0:
        both = (_stretch(clock, run.start, _end(run)) for run in (mine, reference))
        raise ValueError(
            f"runs must overlap, got {' against '.join(both)}. Rows count from the start of the "
            "run: dataclasses.replace(trace, start=n) moves a trace."
        )
    if iterations is not None and iterations > n:
        raise ValueError(f"iterations must be at most the rows of the trace, {n}, got {iterations}")
    return first, first + (iterations or n)


def _stretch(clock: str, start: int, end: int | None) -> str:
    if end is None:
        return f"{clock}s from {start} on"
    return f"{clock} {start}" if end == start + 1 else f"{clock}s {start} to {end - 1}"


def _suggest_renaming(mine: Trace, reference: Trace) -> str:
    """Return advice on renaming groups: the renaming that makes all equal, if there is one."""
    equal_ways = []
    if len(mine.groups) == len(reference.groups) <= MAX_GROUPS:
        for names in itertools.permutations(reference.groups):
            way = dict(zip(mine.groups, names, strict=True))
            columns, _ = _columns(mine.relabel(way), reference)
            if all(equal(x, y).all() for *_, x, y in columns):
                equal_ways.append(way)
    if len(equal_ways) != 1:
        return "Rename groups with relabel."
    names = ",".join(f"{old}={new}" for old, new in equal_ways[0].items() if old != new)
    return f"Rename groups with relabel: {names} (then all are equal)."


def _drop_defaults(recipe: Recipe, trace: Trace, other: Trace) -> tuple[Trace, list[str]]:
    """Drop default hyperparameters that ``other`` did not record; return the trace and their names."""
    groups: dict[str, dict[str, np.ndarray]] = {}
    dropped: list[str] = []
    for label, group in trace.groups.items():
        names = {*recipe.groups[label], *other.groups.get(label, group)}
        groups[label] = {name: values for name, values in group.items() if name in names}
        dropped += [name for name in group if name not in names]
    return dataclasses.replace(trace, groups=groups), dropped


Column = tuple[str, str, np.ndarray, np.ndarray]


def _columns(mine: Trace, reference: Trace) -> tuple[list[Column], list[str]]:
    """Return label, name and both columns of each quantity, and names that only one side has."""
    missing = np.full(len(reference), np.nan)
    columns: list[Column] = [
        (label, name, mine.groups[label].get(name, missing), values)
        for label, group in reference.groups.items()
        for name, values in group.items()
    ]
    only_one: list[str] = []
    for label, group in mine.groups.items():
        for name in (name for name in group if name not in reference.groups[label]):
            if name in reference.switches.get(label, {}):  # Adafactor's eps1, a number or None
                columns.append((label, name, group[name], missing))
            else:
                only_one.append(name)
    for name in dict.fromkeys([*reference.run, *mine.run]):
        x, y = _run_column(mine, name), _run_column(reference, name)
        if x is None or y is None:
            only_one.append(name)
        else:
            columns.append(("", name, x, y))
    return columns, only_one


def _run_column(trace: Trace, name: str) -> np.ndarray | None:
    """Return a column of ``run``; if the trace states that it has none, the values that imply it."""
    if name in trace.run:
        return trace.run[name]
    if name.startswith("ema_"):
        return np.full(len(trace), np.nan) if trace.ema is None else None
    # A run that states that it does not accumulate updates at every batch.
    return np.ones(len(trace)) if trace.accumulation is None else None


def _quantity(start: int, column: Column) -> Quantity:
    label, name, mine, reference = column
    same = equal(mine, reference)
    # Round both to the coarser dtype: a float64 and its float32 have no distance.
    dtype = np.result_type(np.float32, min(mine.dtype, reference.dtype, key=lambda d: d.itemsize))
    x, y = mine.astype(dtype).astype(np.float64), reference.astype(dtype).astype(np.float64)
    peak = np.abs(y).max()
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        distance = np.abs(x - y).max()
    at = None if same.all() else int(np.argmin(same))
    # Relative to an infinite peak every distance is 0 or NaN.
    relative = float(distance / peak) if peak and not np.isinf(peak) else float(distance and np.inf)
    first = None if at is None else Difference(start + at, mine[at].item(), reference[at].item())
    counts = len(same), int(same.sum()), int(ulps(mine, reference).max())
    return Quantity(label, name, *counts, relative, first)
