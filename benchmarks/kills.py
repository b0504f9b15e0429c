"""Claim: a run killed at 25 random moments ends with the same bits as an uninterrupted one.

``jaxsched train --recipe yolov5``, with accumulation, average and batch statistics, of a
detector of two convolutions, which keeps each run short, is killed by SIGKILL and resumed:
every second time at a random moment, possibly before its first iteration, the other times inside a
save, recognised by a folder that is not yet renamed. All arrays of the last checkpoint
(parameters, statistics, the optimizer's state and average) and the rows of the trace are then
compared with those of an uninterrupted run. Both take their compiled step from one
cache, which is faster.
"""

import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from benchmarks.timing import environment, write

KILLS, EPOCHS, STEPS_PER_EPOCH = 25, 30, 40
END = EPOCHS * STEPS_PER_EPOCH
SCRIPT = Path(__file__).parents[1] / "parity_tests" / "small_train.py"


def command(out: Path) -> list[str]:
    words = ["train", "--recipe", "yolov5", "--epochs", str(EPOCHS), "--resume", "--out", str(out)]
    return [sys.executable, str(SCRIPT), *words]


def last_checkpoint(out: Path) -> int:
    names = [path.name for path in (out / "checkpoints").glob("*")]
    return max((int(name) for name in names if name.isdecimal()), default=0)


def modified_time(path: Path) -> float:
    """Return a file's time of modification, or 0 if it no longer exists."""
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0


def run_and_kill(out: Path, variables: dict[str, str], inside: bool, rng: random.Random) -> dict:
    """Run until the process is killed; return how long it ran and its checkpoints."""
    before, begin, started = last_checkpoint(out), time.monotonic(), time.time()
    epochs = rng.randrange(2)
    late = rng.uniform(0, 1 if epochs else 8)
    with subprocess.Popen(command(out), env=variables, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            time.sleep(0.001)
            partial = (out / "checkpoints").glob("*.orbax-checkpoint-tmp*")
            saving = any(modified_time(path) > started for path in partial)
            done = last_checkpoint(out)
            if done < before + epochs * STEPS_PER_EPOCH or done + STEPS_PER_EPOCH >= END:
                begin = time.monotonic()
            elif inside and saving:
                time.sleep(rng.uniform(0, 0.05))
                break
            elif not inside and time.monotonic() - begin > late:
                break
        process.send_signal(signal.SIGKILL)
        status = process.wait()
    return {
        "seconds": round(time.time() - started, 2),
        "inside a save": any(
            modified_time(path) > started
            for path in (out / "checkpoints").glob("*.orbax-checkpoint-tmp*")
        ),
        "checkpoint before": before,
        "checkpoint after": last_checkpoint(out),
        "status": status,
    }


def arrays_of(out: Path) -> list[np.ndarray]:
    with ocp.CheckpointManager(out / "checkpoints") as reader:
        tree = reader.restore(reader.latest_step())
    return [np.asarray(leaf) for leaf in jax.tree.leaves(tree)]


def main() -> int:
    rng = random.Random(0)
    folder = Path(tempfile.mkdtemp())
    variables = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(folder / "cache"),
        "JAX_PERSISTENT_COMPILATION_CACHE_MIN_COMPILE_TIME_SECS": "0",
    }
    alone, often = folder / "alone", folder / "often"
    subprocess.run(command(alone), env=variables, check=True)
    lives = []
    while len(lives) < KILLS:
        lives.append(run_and_kill(often, variables, len(lives) % 2 == 1, rng))
        print(len(lives), lives[-1], flush=True)
        if lives[-1]["status"] == 0:
            sys.exit("the run ended before it was killed often enough; take more epochs")
    subprocess.run(command(often), env=variables, check=True)
    mine, theirs = arrays_of(often), arrays_of(alone)
    equal = sum(a.tobytes() == b.tobytes() for a, b in zip(mine, theirs, strict=True))
    traces = [(out / "trace.npz").read_bytes() for out in (often, alone)]
    result = {
        **environment("flax", "orbax-checkpoint"),
        "iterations": END,
        "kills": len(lives),
        "kills inside a save": sum(life["inside a save"] for life in lives),
        "arrays": len(theirs),
        "arrays equal to the bit": equal,
        "trace equal to the byte": traces[0] == traces[1],
        "lives": lives,
    }
    write("kills", result)
    holds = equal == len(theirs) and traces[0] == traces[1]
    print(f"{'holds' if holds else 'FAILS'}: {equal} of {len(theirs)} arrays equal to the bit")
    return not holds


if __name__ == "__main__":
    sys.exit(main())
