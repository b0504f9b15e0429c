"""Claim: each of 10,000 random cases is answered correctly or refused in one sentence.

Files of traces, checkpoints and settings are cut and changed, or claim more than memory
holds. Valid and invalid trees, labels, dtypes, arguments of recipes and words of the command
are drawn, and paths that lead to links, pipes and devices. An answer is compared with a formula
written for the test, or with the former content of the file. A refusal is a ``ValueError``,
``TypeError`` or ``OSError`` of one line that this package itself raises; a traceback from
inside a library is not one. ``python -m benchmarks.fuzz [CASES]``;
``[CASES] KIND SEED`` repeats one case.
"""

import collections
import contextlib
import functools
import io
import json
import math
import os
import random
import sys
import tempfile
import time
import traceback
import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import yaml

import jaxsched
from benchmarks.fuzz_values import ODD, draw_tree, is_json, mutate, nest, replace_value
from benchmarks.timing import environment, write
from jaxsched import Recipe, Trace, cli, optimizers, param_groups, recipes, schedules
from jaxsched.examples.checkpoints import Checkpoints

PACKAGE = Path(jaxsched.__file__).parent
LONGEST, LARGEST = 500, 32e6
"""Most characters of an error's sentence, and most bytes of memory that a refusal may take."""


def trace(rng: random.Random, folder: Path) -> None:
    file = folder / "trace.npz"
    original = _trace_of(rng.choice((recipes.yolov5, recipes.yolov5_resnet18)))
    original.save(file)
    whole = file.read_bytes()
    file.write_bytes(mutate(whole, rng))
    read = Trace.load(file)
    assert read == original, "another trace was read without an error"


@functools.cache
def _trace_of(factory: Callable[..., Recipe]) -> Trace:
    return factory(epochs=2, steps_per_epoch=5).trace(10)


def recipe_file(rng: random.Random, folder: Path) -> None:
    """Read a recipe's file: the values written there act, or it is refused."""
    group: dict[str, Any] = {"learning_rate": rng.uniform(0, 1), "momentum": 0.9, "nesterov": True}
    if rng.random() < 0.5:
        group["learning_rate"] = schedules.cosine(rng.randrange(1, 9), lrf=rng.uniform(0, 1))
    original = Recipe({"all": group}, clip_norm=rng.choice((None, 10.0)))
    file = folder / rng.choice(("recipe.yaml", "recipe.json"))
    original.save(file)
    if rng.random() < 0.5:
        file.write_bytes(mutate(file.read_bytes(), rng))
    else:
        file.write_text(replace_value(yaml.safe_load(file.read_bytes()), rng, file.suffix))
    text = file.read_bytes()
    read = Recipe.load(file)
    content = json.loads(text) if file.suffix == ".json" else yaml.safe_load(text)
    for label, written in content["groups"].items():
        for name, value in written.items():
            if isinstance(value, dict):
                assert repr(read.groups[label][name]).startswith(next(iter(value)))
            elif not isinstance(value, bool):
                assert_near(read.at(0)[label][name], value)
            else:
                assert read.groups[label][name] is value, "a switch differs"
    assert read.clip_norm == content.get("clip_norm"), "another clip was read"


def checkpoint(rng: random.Random, folder: Path) -> None:
    checkpoints = Checkpoints(folder / "kept", {"seed": 0, "lr0": 0.1})
    state = {"kernel": jnp.arange(6.0).reshape(2, 3), "count": jnp.asarray(3, jnp.int32)}
    rows = [{"loss": np.float32(k / 3)} for k in range(4)]
    if checkpoints.last is None:
        checkpoints.save(4, state, rows)
        checkpoints.close()
    files = sorted(path for path in checkpoints.folder.rglob("*") if path.is_file())
    file = rng.choice(files)
    whole = file.read_bytes()
    try:
        file.write_bytes(mutate(whole, rng))
        if rng.random() < 0.1:
            file.unlink()
        restored = checkpoints.restore(jax.tree.map(jnp.zeros_like, state))
        assert (restored.state["kernel"] == state["kernel"]).all(), "another state was read"
        assert restored.rows == rows
        assert restored.iteration == 4
    finally:
        file.write_bytes(whole)


def limit(rng: random.Random, folder: Path) -> None:
    """Read a file that claims or holds too much: it is refused before it takes the memory."""
    bomb = nest("word", 9)
    large = rng.choice((bomb, {"x" * 10**5: 1}, "x" * 2 * 10**6, [[0.5] * 10**4]))
    key = rng.choice(("lr0", "learning_rate", "format", 3))
    file = folder / rng.choice(("hyp.yaml", "recipe.yaml", "recipe.json", "trace.npz"))
    if file.suffix == ".npz":
        _trace_of(recipes.yolov5).save(file)
        with zipfile.ZipFile(file, "a") as archive:
            archive.writestr("groups/all/x.npy", b"")
            archive.filelist[-1].file_size = rng.randrange(2**29, 2**31)
    elif file.suffix == ".yaml":
        file.write_text(yaml.dump({key: large}, Dumper=yaml.CSafeDumper))
    else:
        file.write_text(json.dumps({key: [] if large is bomb else large}))
    if file.name == "hyp.yaml" and rng.random() < 0.2:
        file = Path("/dev/zero")
    tracemalloc.start()
    try:
        if file.name in ("hyp.yaml", "zero"):
            recipes.yolov5(epochs=1, steps_per_epoch=1, hyp=file)
        else:
            (Recipe if file.name.startswith("recipe") else Trace).load(file)
    finally:
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < LARGEST, f"{peak:,} bytes were taken"
    whole = file.name == "hyp.yaml" and key in ("format", 3)  # unused keys
    assert whole, "too much was read without an error"


DEVICE = Path("/dev/full")


def output(rng: random.Random, folder: Path) -> None:
    """Save to a path: the file that it leads to is written, and other kinds of files are left alone."""
    folder = Path(tempfile.mkdtemp(dir=folder))
    ends = [folder / "new.npz", folder / "there.npz", folder / "folder.npz", folder / "pipe.npz"]
    ends[1].write_text("before")
    ends[2].mkdir()
    os.mkfifo(ends[3])
    path = end = rng.choice([*ends, DEVICE])
    for k in range(rng.randrange(3)):
        path = folder / f"link{k}.npz"
        path.symlink_to(end if k == 0 else f"link{k - 1}.npz")
    written = _trace_of(recipes.yolov5)
    try:
        written.save(path)
    finally:
        assert path == end or path.is_symlink(), "a link was replaced"
        assert end.exists() == (end != ends[0]) or Trace.load(end) == written
        assert end.is_file() == (end in ends[:2]) or not end.exists(), (
            "something other than a file was replaced"
        )
    assert Trace.load(path) == Trace.load(end) == written


HYP = {"lr0": 0.01, "lrf": 0.1, "momentum": 0.9, "weight_decay": 5e-4, "warmup_epochs": 3.0}
HYP |= {"warmup_momentum": 0.8, "warmup_bias_lr": 0.1, "box": 0.05}


def settings(rng: random.Random, folder: Path) -> None:
    values = {**HYP}
    if rng.random() < 0.7:
        values[rng.choice([*HYP, "lr", "", 3])] = rng.choice([v for v in ODD if is_json(v)])
    text = yaml.safe_dump(values).encode()
    file = folder / "hyp.yaml"
    file.write_bytes(text if rng.random() < 0.5 else mutate(text, rng))
    factory = rng.choice((recipes.yolov5, recipes.ultralytics))
    name = "hyp" if factory is recipes.yolov5 else "args"
    recipe = factory(epochs=3, steps_per_epoch=10, **{name: file})
    written = yaml.safe_load(file.read_bytes()) or {}
    first = recipe.at(0)
    defaults = {"warmup_bias_lr": 0.1, "warmup_momentum": 0.8, "warmup_epochs": 3.0, "lr0": 0.01}
    written = {**defaults, **written}
    # Ultralytics turns off a warm-up that rounds to 0 iterations.
    if name == "hyp" or round(min(float(written["warmup_epochs"]), 2) * 10) > 0:
        assert_near(first["bias"]["learning_rate"], written["warmup_bias_lr"])
        assert_near(first["bias"]["momentum"], written["warmup_momentum"])
    else:
        assert_near(first["bias"]["learning_rate"], written["lr0"])


def assert_near(found: Any, value: Any) -> None:
    """Fail unless both are the same float32."""
    expected = np.float32(float(value))
    assert np.array_equal(np.float32(found), expected, equal_nan=True), (
        f"{found!r} in force, expected {expected!r}"
    )


def article(rng: random.Random, folder: Path) -> None:
    arguments = {
        "epochs": rng.choice((1, 2, 5, 100)),
        "steps_per_epoch": rng.choice((1, 3, 30)),
        "warmup_iterations": rng.choice((0, 1, 17, 1000)),
        "lr0": rng.uniform(0, 1),
        "lrf": rng.uniform(0, 1),
        "warmup_bias_lr": rng.uniform(0, 1),
    }
    if rng.random() < 0.6:
        arguments[rng.choice([*arguments, "momentum", "weight_decay"])] = rng.choice(ODD)
    recipe = recipes.yolov5_resnet18(**arguments)
    run = {name: float(value) for name, value in arguments.items()}
    run |= {name: int(arguments[name]) for name in ("epochs", "steps_per_epoch")}
    last = max(run["epochs"] * run["steps_per_epoch"] - 1, 0)
    iteration = rng.randint(0, min(last, 2**31 - 1))
    for label, first in (("bias", run["warmup_bias_lr"]), ("weight", 0.0)):
        assert_near(
            recipe.at(iteration)[label]["learning_rate"], article_rate(iteration, first, **run)
        )


def article_rate(i: int, first: float, **run: Any) -> float:
    """Return the rate that the article's loop leaves in the group, by its own formula."""
    n, warm = run["steps_per_epoch"], run["warmup_iterations"]

    def rate_at(epoch: int) -> float:
        factor = (1 + math.cos(epoch * math.pi / run["epochs"])) / 2
        return run["lr0"] * (factor * (1 - run["lrf"]) + run["lrf"])

    epoch = i // n
    if i >= warm:
        return rate_at(epoch if epoch == warm // n or i == warm else epoch - 1)
    return (rate_at(epoch) - first) / warm * i + first


def labels(rng: random.Random, folder: Path) -> None:
    tree = draw_tree(rng)
    odd = {"kernel": "weight", "bias": "bias"}
    rule = rng.choice(
        (
            param_groups.by_leaf_name,
            param_groups.by_dotted_name,
            param_groups.by_pattern({"bias$": "bias", "bn|scale": "norm"}, default="weight"),
            param_groups.by_pattern(
                {rng.choice(("bias", "x", ".")): rng.choice(("bias", "other"))}
            ),
            param_groups.freeze(param_groups.by_leaf_name, rng.choice(("conv", "bn", "0"))),
            "weight",
            odd,
            {},
            lambda params: rng.choice((params, odd, "bias", None, 3)),
        )
    )
    names = {"weight", "bias", "norm", "frozen"}
    fitted = param_groups.fit(rule, tree, groups=names)
    assert jax.tree.structure(fitted) == jax.tree.structure(tree), "labels form another tree"
    assert set(jax.tree.leaves(fitted)) <= names


RULES = [
    getattr(optimizers, name) for name in ("sgd", "adam", "adamw", "rmsprop", "adagrad", "nadam")
]


def update(rng: random.Random, folder: Path) -> None:
    """Check the rates in force, and the parameters if the rule is plain descent."""
    tree = draw_tree(rng)
    top, rule = rng.uniform(0, 1), rng.choice([*RULES, optimizers.sgd, optimizers.sgd])
    rate: Any = rng.choice((lambda i: top / (1 + i), top))
    if rng.random() < 0.2:
        rate = rng.choice(ODD)
    group: dict[str, Any] = {"learning_rate": rate}
    if rng.random() < 0.2:
        group[rng.choice(("momentum", "weight_decay", "b1", "eps", "nesterov", "x"))] = rng.choice(
            ODD
        )
    recipe = Recipe({"all": group}, rule, start=rng.choice((0, 0, 5, 2**24 + 1, 2**31 - 9)))
    tx = recipe.optimizer(lambda params: jax.tree.map(lambda _: "all", params))
    state, count = tx.init(tree), recipe.start
    gradients = jax.tree.map(jnp.ones_like, tree)
    for _ in range(2):
        moves, state = tx.update(gradients, state, tree)
        in_force = jaxsched.hyperparameters(state)["all"]["learning_rate"]
        value = rate(count) if callable(rate) else rate
        assert_near(in_force, float(value))
        if rule is optimizers.sgd and set(group) == {"learning_rate"}:
            for leaf in jax.tree.leaves(moves):
                expected = jnp.asarray(-np.float32(float(value))).astype(leaf.dtype)
                assert (leaf == expected).all(), f"a step of {leaf!r}, expected {expected!r}"
        tree = optax.apply_updates(tree, moves)
        count += 1


def schedule(rng: random.Random, folder: Path) -> None:
    """Evaluate a table within and past its end, where it is refused or, if traced, NaN."""
    values = [rng.uniform(0, 1) for _ in range(rng.randrange(0, 5))]
    if rng.random() < 0.3:
        values.append(rng.choice(ODD))
    start = rng.choice((0, 0, 3, -1, 2**24))
    rate = schedules.table(values, start=start)
    count = start + rng.randrange(-1, 6)
    within = 0 <= count - start < len(values)
    traced = jax.vmap(rate)(jnp.asarray([count]))[0]
    assert_near(traced, values[count - start] if within else math.nan)
    assert_near(rate(count), values[count - start] if count - start >= 0 else math.nan)


def command(rng: random.Random, folder: Path) -> None:
    options = (
        "--epochs",
        "--steps-per-epoch",
        "--lr0",
        "--lrf",
        "--hyp",
        "--batch-size",
        "--iterations",
    )
    values = ("1", "2", "-1", "0", "x", "nan", "inf", "1e9", "", "--", "hyp.yaml", "0.5")
    recipe = rng.choice(("yolov5", "yolov5-resnet18", "ultralytics", "yolo", ""))
    words = ["export", recipe, "--out", str(folder / rng.choice(("x.csv", "x.json", "x.npz", "x")))]
    words += ["--epochs", "2", "--steps-per-epoch", "3"] if rng.random() < 0.5 else []
    for _ in range(rng.randrange(4)):
        words += [rng.choice(options), rng.choice(values)]
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        status = cli.main(words)
    assert status in (0, 2), status
    assert errors.getvalue().count("\n") == (status == 2), errors.getvalue()


KINDS: dict[Callable[[random.Random, Path], None], float] = {
    trace: 0.2,
    recipe_file: 0.02,
    checkpoint: 0.2,
    settings: 0.17,
    labels: 0.15,
    schedule: 0.1,
    article: 0.066,
    update: 0.03,
    command: 0.004,
    limit: 0.005,
    output: 0.055,
}
"""The share of each kind among the cases; those that JAX computes are slow."""


def outcome(kind: Callable[[random.Random, Path], None], seed: int, folder: Path) -> str:
    """Run a case; return "right", "refused", or what went wrong."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            kind(random.Random(f"{kind.__name__} {seed}"), folder)
    except AssertionError as error:
        return f"wrong: {error}"
    except (ValueError, TypeError, OSError, NotImplementedError) as error:
        raiser = Path(traceback.extract_tb(error.__traceback__)[-1].filename)
        message = str(error)
        if not raiser.is_relative_to(PACKAGE):
            return f"from a library, {raiser.name}: {type(error).__name__}: {message[:300]}"
        if not message or "\n" in message or len(message) > LONGEST:
            return f"no sentence: {message[:300]!r}"
        return "refused"
    except Exception as error:
        return f"from a library: {type(error).__name__}: {str(error)[:300]}"
    return "right"


def run(cases: int) -> dict[str, Any]:
    """Return the outcomes of ``cases`` cases, in the shares of their kinds."""
    counts: dict[str, Any] = {}
    wrong, begin = [], time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        for kind, share in KINDS.items():
            folder = Path(name) / kind.__name__
            folder.mkdir()
            started, outcomes = time.monotonic(), collections.Counter()
            for seed in range(max(round(cases * share), 1)):
                what = outcome(kind, seed, folder)
                outcomes[what.partition(":")[0]] += 1
                if what not in ("right", "refused"):
                    wrong.append(f"{kind.__name__} {seed}: {what}")
            seconds = round(time.monotonic() - started, 1)
            counts[kind.__name__] = {**outcomes, "seconds": seconds}
    total = sum(sum(v for k, v in c.items() if k != "seconds") for c in counts.values())
    return {
        "cases": total,
        "seconds": round(time.monotonic() - begin, 1),
        "kinds": counts,
        "neither right nor refused": wrong,
    }


def main(cases: str = "10000", kind: str = "", seed: str = "") -> int:
    if kind:
        with tempfile.TemporaryDirectory() as name:
            globals()[kind](random.Random(f"{kind} {seed}"), Path(name))
        return 0
    result = run(int(cases))
    if int(cases) >= 10_000:
        write("fuzz", {**environment(), **result})
    print(json.dumps({**result, "neither right nor refused": None}, indent=1))
    print("\n".join(result["neither right nor refused"]))
    holds = not result["neither right nor refused"]
    print(f"{'holds' if holds else 'FAILS'}: {result['cases']} cases in {result['seconds']} s")
    return not holds


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
