"""``jaxsched plot``, ``export`` and ``record``: the commands that write one file."""

import csv
import importlib
import io
import json
from pathlib import Path

import numpy as np

from jaxsched._io import PICTURES, atomic_write, make_writable
from jaxsched._recipe import Recipe
from jaxsched._rows import rows_of
from jaxsched._trace import Trace

NO_SCRIPT = "the script must follow --, got none: record -o run.npz -- python train.py"


def plot(recipe: Recipe, *, out: Path = Path("lr.png"), iterations: int | None = None) -> None:
    """Draw a recipe's learning rates and momentum by iteration.

    For instance: jaxsched plot yolov5 --epochs 300 --steps-per-epoch 500 --cos-lr --out lr.svg

    Args:
      recipe: the arguments of the recipe.
      out: the picture, .png or .svg.
      iterations: how many; if not given, to the end of the last epoch.
    """
    make_writable(out, PICTURES)
    importlib.import_module("jaxsched.plot").plot(recipe, out, iterations=iterations)
    print(f"wrote {out}")


def export(
    recipe: Recipe, *, out: Path = Path("curves.csv"), iterations: int | None = None
) -> None:
    """Write a recipe's hyperparameters, a row an iteration.

    For instance: jaxsched export yolov5-resnet18 --lrf 0.1 --out curves.csv

    Args:
      recipe: the arguments of the recipe.
      out: the file, .csv, .json, or .npz, which jaxsched.Trace.load reads.
      iterations: how many; if not given, to the end of the last epoch.
    """
    writers = {".csv": write_csv, ".json": write_json, ".npz": Trace.save}
    make_writable(out, writers)
    writers[out.suffix](rows_of(recipe, iterations), out)
    print(f"wrote {out}")


def write_csv(trace: Trace, path: Path) -> None:
    """Write a CSV file with the iteration and every column of the trace."""
    counts = np.arange(trace.start, trace.start + len(trace))
    columns = {"iteration": counts, **trace.columns()}
    with atomic_write(path) as file, io.TextIOWrapper(file, "utf-8", newline="") as text:
        writer = csv.writer(text)
        writer.writerow(columns)
        writer.writerows(zip(*(values.tolist() for values in columns.values()), strict=True))


def write_json(trace: Trace, path: Path) -> None:
    """Write ``start``, ``groups`` and ``run`` of a trace as JSON."""
    content = {"start": trace.start, "groups": trace.groups, "run": trace.run}
    with atomic_write(path) as file:
        file.write((json.dumps(content, default=np.ndarray.tolist) + "\n").encode())


def record(*script: str, out: Path = Path("run.npz")) -> int:
    """Run a PyTorch script unchanged and record the hyperparameters of its optimizers.

    For instance: jaxsched record -o run.npz -- python train.py

    The command after -- runs unchanged, with the Python that it names, in which jaxsched must be
    installed. A row is an update. Optimizers that step in turn, each once, are written to one file,
    with their groups numbered from 0 through all; otherwise the second optimizer's file is
    run-1.npz. A process of rank 1 writes run-rank1.npz, a second process without a rank
    run-process1.npz, and so on. The exit status is the script's. A file states whether its process
    reached its end.

    Args:
      script: the command and its arguments.
      out: the file, .npz, rewritten about every second.
    """
    make_writable(out, (".npz",))
    if not script:
        raise ValueError(NO_SCRIPT)
    from jaxsched.torch import _script as scripts

    return scripts.run(script, out)
