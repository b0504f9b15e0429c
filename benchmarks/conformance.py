"""Claim: every scheduler and update rule of torch's equals torch, as docs/conformance.md says.

Runs torch, jaxsched and the closest function of plain Optax side by side on seeded random
settings. ``python -m benchmarks.conformance --write`` rewrites the table, with the raw
figures in benchmarks/results/conformance.json; without ``--write`` it prints them and exits 1
if a figure of ours exceeds its bound. ``--recipes`` runs only the recipes again.
"""

import argparse
import json
import sys
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "parity_tests"))

import bounds  # noqa: E402
import musgd_recordings as recordings  # noqa: E402
import optimizer_settings as rules  # noqa: E402
import plateau_settings as plateaus  # noqa: E402
import scheduler_settings as schedulers  # noqa: E402
import ultralytics_runs as originals  # noqa: E402

from benchmarks import conformance_recipes as recipes  # noqa: E402
from benchmarks.conformance_table import markdown  # noqa: E402
from benchmarks.timing import environment  # noqa: E402
from jaxsched.lr_scheduler._recursion import torch_rates  # noqa: E402
from jaxsched.optimizers._muon import adjustment  # noqa: E402
from jaxsched.parity import ulps  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "conformance.json"
TABLE = ROOT / "docs" / "conformance.md"
SETTINGS, NESTINGS, NESTED_STEPS = 500, 200, 200
DUST = 1e-12, 1e-15  # of the peak: values below the one count as equal within the other
DRIFT_BOUND, DRIFT_ULP = 1e-10, 1  # over 100,000 steps
NESTED, PLATEAU = "SequentialLR, ChainedScheduler, nested", "ReduceLROnPlateau"


def tally(mine: np.ndarray, torchs: np.ndarray) -> dict[str, Any]:
    """Compare a curve with torch's: the number of values, of those equal in float32, and distances."""
    peak = np.maximum(np.abs(torchs).max(), 1e-300)  # NaN stays, as Python's max would not have it
    distance = ulps(mine, torchs)
    dust = (np.abs(torchs) < DUST[0] * peak) & (np.abs(mine - torchs) < DUST[1] * peak)
    distance[dust] = 0
    with np.errstate(invalid="ignore"):
        gap = np.abs(np.asarray(mine, np.float64) - torchs).max() / peak
    return {
        "steps": torchs.size,
        "equal": int((distance == 0).sum()),
        "ulp": int(distance.max()),
        "gap": float(gap),
    }


def optax_curve(schedule: Callable[[Any], Any] | None, steps: int) -> np.ndarray | None:
    """Evaluate a schedule of plain Optax in its own float32."""
    if schedule is None:
        return None
    counts = jnp.arange(steps + 1)
    return np.broadcast_to(np.asarray(jax.vmap(schedule)(counts), np.float32), steps + 1)


def sample_settings(name: str, n: int) -> list[schedulers.Setting]:
    """Return the first ``n`` settings of a class, always the same ones."""
    rng = np.random.default_rng([2026, list(schedulers.CASES).index(name)])
    return [schedulers.CASES[name].sample(rng) for _ in range(n)]


def scheduler(name: str, n: int, with_optax: bool = True) -> dict[str, list[dict[str, Any]]]:
    """Return tallies of a class's first ``n`` settings: replayed, in closed form, and by Optax."""
    case, settings = schedulers.CASES[name], sample_settings(name, n)
    torchs = [
        schedulers.run_torch(
            lambda o, s=setting: case.torch(o, s), setting.arguments["base_lr"], setting.steps
        )[0]
        for setting in settings
    ]
    rows: dict[str, list[dict[str, Any]]] = {"replayed": [], "closed": [], "optax": []}
    for setting, reference in zip(settings, torchs, strict=True):
        replayed = np.array(torch_rates(case.replay(setting), setting.steps))
        rows["replayed"].append(tally(replayed, reference))
        schedule = with_optax and case.optax and case.optax(setting.arguments)
        curve = optax_curve(schedule or None, setting.steps)
        if curve is not None:
            rows["optax"].append(tally(curve, reference))
    if case.closed:
        curves = schedulers.run_closed(case, settings)
        rows["closed"] = [tally(mine, ref) for mine, ref in zip(curves, torchs, strict=True)]
    return rows


def drift(name: str) -> dict[str, Any] | None:
    """Return the tally of a class's closed form over 100,000 steps."""
    case, setting = schedulers.CASES[name], schedulers.LONG[name]
    if not case.closed:
        return None
    reference, _ = schedulers.run_torch(
        lambda o: case.torch(o, setting), setting.arguments["base_lr"], setting.steps
    )
    (mine,) = schedulers.run_closed(case, [setting])
    return tally(mine, reference)


def nestings(n: int) -> dict[str, list[dict[str, Any]]]:
    """Return tallies of random compositions, replayed."""
    rng, rows = np.random.default_rng(2026), []
    for _ in range(n):
        base_lr = 10 ** rng.uniform(-5, 1)
        nesting = schedulers.compose(rng, base_lr)
        reference, _ = schedulers.run_torch(nesting.torch, base_lr, NESTED_STEPS)
        replayed = np.array(torch_rates(nesting.ours(steps=NESTED_STEPS), NESTED_STEPS))
        rows.append(tally(replayed, reference))
    return {"replayed": rows, "closed": [], "optax": []}


def plateau(n: int) -> dict[str, list[dict[str, Any]]]:
    """Return tallies of ReduceLROnPlateau over series of metrics."""
    rng = np.random.default_rng(2026)
    settings = [plateaus.sample_plateau(rng) for _ in range(n)]
    rows: dict[str, list[dict[str, Any]]] = {"replayed": [], "closed": [], "optax": []}
    for setting, mine in zip(settings, plateaus.run_plateau(settings), strict=True):
        reference = plateaus.run_torch_plateau(setting)
        rows["closed"].append(tally(mine.ravel(), reference.ravel()))
        # Optax has no other mode, and refuses a threshold of 0 and a factor of 0.
        if setting.arguments["mode"] == "min" and all(
            setting.arguments[name] for name in ("threshold", "factor")
        ):
            rows["optax"].append(tally(optax_plateau_curve(setting), reference[:, 0]))
    return rows


def optax_plateau_curve(setting: plateaus.PlateauSetting) -> np.ndarray:
    """Return the first group's rate after each metric, by ``optax.contrib.reduce_on_plateau``."""
    tx = plateaus.optax_plateau(setting)
    params = {"w": jnp.zeros(1)}

    def step(state: Any, metric: jax.Array) -> tuple[Any, jax.Array]:
        _, state = tx.update(params, state, value=metric)
        return state, state.scale

    _, scales = jax.jit(lambda s, m: jax.lax.scan(step, s, m))(
        tx.init(params), jnp.asarray(setting.metrics)
    )
    return np.asarray(scales) * np.float32(setting.base_lrs[0])


def rule(name: str, first: int = 0, with_optax: bool = True) -> dict[str, list[dict[str, Any]]]:
    """Return distances after 200 updates, ours and Optax's, in both precisions, from setting ``first``."""
    case, rows = rules.RULES[name], {"ours": [], "optax": []}
    for setting in case.settings()[first:]:
        # No function of Optax ascends; it is tried where the rest of the arguments fit.
        descending = {k: v for k, v in setting.items() if k != "maximize"}
        row: dict[str, dict[str, Any]] = {"ours": {}, "optax": {}}
        for dtype in (np.float64, np.float32):
            with jax.enable_x64(dtype == np.float64), torch_default(dtype):
                problem = rules.problem(case.shapes, dtype)
                theirs = rules.torch_run(case, setting, *problem)
                ours = rules.our_run(case.ours(**rules.our_arguments(setting)), *problem)
                row["ours"] |= distances(ours, theirs, dtype, state=True)
                closest = with_optax and rules.closest_run(case, descending, *problem)
                if closest:
                    if descending != setting:
                        theirs = rules.torch_run(case, descending, *problem)
                    row["optax"] |= distances(closest, theirs, dtype, state=False)
        for who, path in row.items():
            if path:
                rows[who].append(path)
    return rows


def distances(run: rules.Run, theirs: rules.Run, dtype: Any, *, state: bool) -> dict[str, Any]:
    """Return a run's distances: the parameters after every update and, with ``state``, torch's state."""
    if dtype == np.float64:
        far = rules.max_distances(
            run if state else rules.Run(run.params, {}),
            theirs if state else rules.Run(theirs.params, {}),
        )
        return {"params": far.pop("params"), "state": float(np.max([0.0, *far.values()]))}
    apart = np.concatenate(
        [rules.ulps(run.params[leaf], theirs.params[leaf]).ravel() for leaf in theirs.params]
    )
    # An entry near zero is far in its own spacings: the worst is in spacings of its leaf's peak.
    spacing = np.spacing(np.float32(1))
    worst = rules.max_distances(rules.Run(run.params, {}), rules.Run(theirs.params, {}))["params"]
    return {
        "equal": float(np.mean(apart == 0)),
        "median": float(np.median(apart)),
        "worst": float(worst / spacing),
    }


class torch_default:
    """Context manager that sets torch's default dtype."""

    def __init__(self, dtype: Any):
        self.dtype = {np.float64: rules.torch.float64, np.float32: rules.torch.float32}[dtype]

    def __enter__(self) -> None:
        self.before = rules.torch.get_default_dtype()
        rules.torch.set_default_dtype(self.dtype)

    def __exit__(self, *exception: object) -> None:
        rules.torch.set_default_dtype(self.before)


def run(n: int, nested: int, show: Callable[[Iterable[str], str], Iterable[str]]) -> dict[str, Any]:
    """Return all raw figures, with versions."""
    return {
        **environment(),
        "schedulers": {
            **{name: scheduler(name, n) for name in show(schedulers.CASES, "schedulers")},
            NESTED: nestings(nested),
            PLATEAU: plateau(n),
        },
        "drift": {name: drift(name) for name in show(schedulers.LONG, "100,000 steps")},
        "optimizers": {name: rule(name) for name in show(rules.RULES, "optimizers")},
        "musgd": {
            f"{version}, {dtype}": recordings.distances(
                recordings.optimizer_of(version, dtype), version, dtype
            )
            for version, dtype in recordings.RECORDINGS
        },
        "ultralytics": ultralytics(),
        "recipes": recipes.run(min(n, recipes.SETTINGS), tally, show),
    }


def ultralytics() -> dict[str, dict[str, int]]:
    """Count each release's recorded runs, those that equal the recipe, and their iterations."""
    return {
        version: {
            "runs": len(runs),
            "equal": sum(
                not originals.differences(run, originals.recipe_of(version, name))
                for name, run in runs.items()
            ),
            "iterations": sum(run["rows"] for run in runs.values()),
        }
        for version, runs in originals.RUNS.items()
    }


def expected_rows(n: int, nested: int) -> dict[str, dict[str, int]]:
    """Return how many rows of ours each table must have: ``{part: {name: rows}}``."""
    return {
        "schedulers": {
            **{f"{name}, replayed": n for name in schedulers.CASES},
            **{f"{name}, closed": n for name, case in schedulers.CASES.items() if case.closed},
            f"{NESTED}, replayed": nested,
            f"{PLATEAU}, closed": n,
        },
        "drift": {name: 1 for name, case in schedulers.CASES.items() if case.closed},
        "optimizers": {name: len(case.settings()) for name, case in rules.RULES.items()},
        "musgd": {f"{version}, {dtype}": 1 for version, dtype in recordings.RECORDINGS},
    }


def count_rows(results: dict[str, Any]) -> dict[str, dict[str, int]]:
    """Count our rows in the results, named as in ``expected_rows``; without a row there is no entry."""
    return {
        "schedulers": {
            f"{name}, {kind}": len(rows[kind])
            for name, rows in results["schedulers"].items()
            for kind in ("replayed", "closed")
            if rows[kind]
        },
        "drift": {name: 1 for name, row in results["drift"].items() if row},
        "optimizers": {name: len(rows["ours"]) for name, rows in results["optimizers"].items()},
        "musgd": {name: 1 for name, row in results["musgd"].items() if row},
    }


def muon_bound(setting: dict[str, Any]) -> float:
    """``MUON_BOUND`` times the path, divided by the largest entry.

    The path is the rates summed up, times the adjustment. Until it is longer than the
    largest entry at the start, that entry is what the distance is divided by; from there
    on the entries grow with the path.
    """
    shapes = rules.RULES["muon"].shapes
    start, _ = rules.problem(shapes, np.float64)
    longest = max(
        np.sum(setting["learning_rate"])
        * adjustment(shape, setting.get("adjust_lr_fn"))
        / np.abs(start[leaf]).max()
        for leaf, shape in shapes.items()
    )
    return bounds.MUON_BOUND * min(1.0, float(longest))


def rule_bounds(name: str, setting: dict[str, Any]) -> dict[str, float]:
    """Return the bound of each figure of ours."""
    if name == "muon":
        # The same bound in float32 as in float64, in spacings of float32, the unit of its figures.
        bound = muon_bound(setting)
        return {
            "params": bound,
            "state": bounds.BOUND,
            "worst": bound / float(np.spacing(np.float32(1))),
        }
    exact = dict.fromkeys(("params", "state"), bounds.BOUND)
    return exact | dict.fromkeys(("median", "worst"), bounds.FLOAT32_BOUND)


def list_exceeded(name: str, rows: list[dict[str, Any]]) -> list[int]:
    """The settings of an update rule with a figure of ours beyond its bound; NaN keeps none."""
    return [
        k
        for k, (row, setting) in enumerate(zip(rows, rules.RULES[name].settings(), strict=False))
        if not all(row[figure] <= bound for figure, bound in rule_bounds(name, setting).items())
    ]


def find_failures(results: dict[str, Any], n: int = SETTINGS, nested: int = NESTINGS) -> list[str]:
    """Return the figures of ours that are missing or exceed their bounds, as NaN does."""
    failures = recipes.find_failures(results["recipes"], min(n, recipes.SETTINGS))
    there = count_rows(results)
    for part, rows in expected_rows(n, nested).items():
        for name in rows | there[part]:
            count, wanted = there[part].get(name, 0), rows.get(name, 0)
            if count != wanted:
                failures.append(f"{part}, {name}: {count} rows, not {wanted}")
    for name, rows in results["schedulers"].items():
        for kind in ("replayed", "closed"):
            bound = 0.0 if kind == "replayed" else bounds.CLOSED_BOUND
            for k, row in enumerate(rows[kind]):
                if not (row["equal"] == row["steps"] and row["gap"] <= bound):
                    failures.append(f"{name}, {kind}, setting {k}: {row}")
    for name, row in results["drift"].items():
        if row and not (
            row["steps"] == schedulers.LONG[name].steps + 1
            and row["ulp"] <= DRIFT_ULP
            and row["gap"] <= DRIFT_BOUND
        ):
            failures.append(f"{name}, drift: {row}")
    for name, rows in results["optimizers"].items():
        failures += [
            f"{name}, setting {k}: {rows['ours'][k]}" for k in list_exceeded(name, rows["ours"])
        ]
    for name, row in results["musgd"].items():
        if row and recordings.find_failures(row, name.rpartition(", ")[2]):
            failures.append(f"musgd, {name}: {row}")
    for version, runs in originals.RUNS.items():
        row = results["ultralytics"].get(version, {})
        if not row.get("runs") == row.get("equal") == len(runs):
            failures.append(f"ultralytics, {version}: {row}")
    return failures


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the table and its raw figures")
    parser.add_argument("--recipes", action="store_true", help="run the recipes alone anew")
    parser.add_argument("--settings", type=int, default=SETTINGS, help="settings a class")
    options = parser.parse_args()
    from rich.progress import track

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        show = lambda names, what: track(list(names), what)  # noqa: E731
        if options.recipes:
            results = json.loads(RESULTS.read_text())
            n = min(options.settings, recipes.SETTINGS)
            results["recipes"] = recipes.run(n, tally, show)
        else:
            results = run(options.settings, min(NESTINGS, options.settings), show)
    if options.write:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(results, separators=(",", ":")) + "\n")
        TABLE.write_text(markdown(results))
    print(markdown(results))
    failures = find_failures(results, options.settings, min(NESTINGS, options.settings))
    print("\n".join(failures) or "holds: all of ours is within its bound")
    sys.exit(bool(failures))


if __name__ == "__main__":
    main()
