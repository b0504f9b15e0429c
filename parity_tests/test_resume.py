"""A run that was stopped and resumed ends with the same bits as an uninterrupted one."""

import dataclasses
import errno
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import nnx
from small_train import SmallDetector, SmallNet, arrays_of

from jaxsched import Recipe, Trace, cli
from jaxsched.examples import digits, runs, shapes, train_nnx, train_yolov5
from jaxsched.examples.checkpoints import Checkpoints

pytestmark = pytest.mark.long

STEPS = {"yolov5_resnet18": digits.STEPS_PER_EPOCH, "yolov5": shapes.STEPS_PER_EPOCH}
EPOCHS = 2

RECIPES = ["yolov5_resnet18", "yolov5"]


@pytest.fixture(scope="module", autouse=True)
def small():
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(train_nnx, "ResNet18", SmallNet)
        patched.setattr(train_yolov5, "Detector", SmallDetector)
        yield


def train(folder, *words, recipe="yolov5_resnet18", epochs=EPOCHS):
    command = ["train", "--recipe", recipe, "--out", str(folder)]
    length = [] if "--epochs" in words else ["--epochs", str(epochs)]
    return cli.main([*command, *length, *words])


def is_same(a, b):
    return len(a) == len(b) and all(
        x.dtype == y.dtype and x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True)
    )


def content(folder):
    """Return the bytes of every file below a folder."""
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def uninterrupted_runs(small, tmp_path_factory):
    """The folder of each recipe's uninterrupted run, made before any test replaces the batches."""
    folders = {recipe: tmp_path_factory.mktemp(recipe) for recipe in RECIPES}
    for recipe, folder in folders.items():
        assert train(folder, recipe=recipe) == 0
    return folders


@pytest.fixture
def interrupt(monkeypatch):
    """Return a function that presses Ctrl-C during the given iteration."""

    def interrupt_at(iteration):
        for module in (digits, shapes):
            usual = getattr(module.batches, "usual", module.batches)

            def batches(data, epochs, *, seed=0, start=0, usual=usual):
                for k, batch in enumerate(usual(data, epochs, seed=seed, start=start), start):
                    if k == iteration:
                        os.kill(os.getpid(), signal.SIGINT)
                    yield batch

            batches.usual = usual
            monkeypatch.setattr(module, "batches", batches)

    return interrupt_at


@pytest.mark.parametrize("recipe", RECIPES)
def test_stopped_and_resumed_at_any_iteration(recipe, uninterrupted_runs, interrupt, tmp_path):
    total = EPOCHS * STEPS[recipe]
    # Within an epoch, at its last batch, at the last but one; where
    # batches are accumulated, after one that made no update, too.
    stops = (7, STEPS[recipe] - 1, total - 2)
    for k, stop in enumerate(stops if recipe == "yolov5_resnet18" else (50,)):
        interrupt(stop)
        assert train(tmp_path, *["--resume"] * (k > 0), recipe=recipe) == 130
        assert len(Trace.load(tmp_path / "trace.npz")) == stop + 1
    interrupt(None)
    assert train(tmp_path, "--resume", recipe=recipe) == 0
    whole = uninterrupted_runs[recipe]
    assert is_same(arrays_of(tmp_path, total), arrays_of(whole, total))
    for name in ("trace.npz", "metrics.csv"):
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes()


def test_an_extra_batch_is_detected(uninterrupted_runs, monkeypatch, tmp_path):
    assert train(tmp_path, epochs=1) == 0
    usual = digits.batches
    monkeypatch.setattr(digits, "batches", lambda *a, start, **k: usual(*a, start=start - 1, **k))
    train(tmp_path, "--resume")
    assert not is_same(
        arrays_of(tmp_path, 60), arrays_of(uninterrupted_runs["yolov5_resnet18"], 60)
    )


REFUSED = [
    (("--resume", "--seed", "1"), "must be of this run, got one whose seed is 0, here 1. Resume it as it was started."),
    ((), "--out must be a folder without another run's checkpoints, got {folder}, which has one of iteration 60. Pass --resume to go on from it, or another --out."),
    (("--resume", "--epochs", "1"), "--epochs must be at least 2, for the checkpoint is of iteration 60, got 1"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "sentence"), REFUSED, ids=["seed", "not resumed", "epochs"])
def test_another_run_is_refused(words, sentence, uninterrupted_runs, capsys):
    folder = uninterrupted_runs["yolov5_resnet18"]
    before = content(folder)
    assert train(folder, *words) == 2
    assert sentence.format(folder=folder) in capsys.readouterr().err
    assert content(folder) == before


def test_another_recipe_is_refused(uninterrupted_runs, capsys):
    folder = uninterrupted_runs["yolov5_resnet18"]
    assert train(folder, "--resume", recipe="yolov5") == 2
    error = capsys.readouterr().err
    assert "of this run, got one whose recipe.groups.weight.learning_rate.warmup." in error
    assert "lagged.after is 33, here 3 and " in error
    assert "more differ. Resume it as it was started.\n" in error


def own_recipe(**changes):
    """Return a recipe that no factory made, with a Python function inside."""
    group = {"learning_rate": lambda i: 0.1 / (1 + i), "momentum": 0.9, **changes}
    return Recipe({"all": group}, clip_norm=10.0)


OWN = [
    ({"momentum": 0.8}, "recipe.groups.all.momentum is 0.9, here 0.8."),
    ({"nesterov": True}, "recipe.groups.all.nesterov is not there, here True."),
    ({"learning_rate": lambda i: 0.1 / (1 + i + (i == 2))}, "recipe.groups.all.learning_rate.table.values.2 is 0.03333333333333333, here 0.025."),
    ({"learning_rate": 0.1}, "recipe.groups.all.learning_rate is not there, here 0.1, "),
]  # fmt: skip


def run_of(recipe, folder, *, resume):
    """Run a training without a network, stopped after an epoch of 4 iterations."""
    run = runs.Run(
        create=lambda: (nnx.Param(jnp.zeros(2)), nnx.Param(jnp.zeros(2))),
        train=lambda model, optimizer, batches: iter(batches),
        batches=lambda start: [Row(float(k)) for k in range(start, 4)],
        row=Row,
        batch_size=1,
        steps_per_epoch=4,
    )

    def show(iterations, shown, total):
        for iteration in iterations:
            shown.append(iteration)
            yield False

    return runs.train(run, recipe, folder, show, epochs=1, seed=0, resume=resume)


class Row(NamedTuple):
    loss: float


def test_a_recipe_of_ones_own_is_known_by_its_content(tmp_path):
    assert own_recipe().origin is None
    run_of(own_recipe(), tmp_path, resume=False)
    rows, _ = run_of(own_recipe(), tmp_path, resume=True)  # another lambda with the same values
    assert [row.loss for row in rows.records] == [0.0, 1.0, 2.0, 3.0]


@pytest.mark.parametrize(("change", "sentence"), OWN, ids=["number", "switch", "curve", "constant"])
def test_a_checkpoint_of_another_recipe_of_ones_own_is_refused(change, sentence, tmp_path):
    run_of(own_recipe(), tmp_path, resume=False)
    before = content(tmp_path)
    with pytest.raises(
        ValueError, match=re.escape(f"must be of this run, got one whose {sentence}")
    ):
        run_of(own_recipe(**change), tmp_path, resume=True)
    with pytest.raises(ValueError, match=r"recipe\.clip_norm is 10\.0, here 5\.0\."):
        run_of(dataclasses.replace(own_recipe(), clip_norm=5.0), tmp_path, resume=True)
    assert content(tmp_path) == before


def test_a_run_that_is_done_goes_on_with_more_epochs(uninterrupted_runs, tmp_path):
    assert train(tmp_path, epochs=1) == 0
    assert train(tmp_path, "--resume", epochs=1) == 0
    assert train(tmp_path, "--resume") == 0
    whole = uninterrupted_runs["yolov5_resnet18"]
    assert is_same(arrays_of(tmp_path, 60), arrays_of(whole, 60))


@pytest.fixture
def checkpoints(tmp_path):
    """Checkpoints of two iterations, in a user's own loop."""
    mine = Checkpoints(tmp_path / "kept", {"seed": 0, "arguments": {"lr0": 0.1}}, keep=2)
    for iteration in (1, 2, 3):
        mine.save(iteration, state(iteration), [{"loss": np.float32(0.1)}] * iteration)
    mine.close()
    return mine


def state(value=0):
    return {
        "kernel": jnp.full((3, 4), value, jnp.float32),
        "half": jnp.full(5, value, jnp.bfloat16),
        "count": jnp.asarray(value, jnp.int32),
        "started": jnp.asarray(value > 0),
        "key": jax.random.key(value),
        "complex": jnp.full(2, value * 1j),
    }


def test_a_checkpoint_is_restored_as_it_was_saved(checkpoints):
    assert_as_saved(checkpoints.restore(state()))
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["2", "3"]


def assert_as_saved(saved):
    iteration, tree, rows = saved
    assert iteration == 3
    assert (jax.random.key_data(tree.pop("key")) == jax.random.key_data(jax.random.key(3))).all()
    for name, value in tree.items():
        assert value.dtype == state()[name].dtype
        assert (value == state(3)[name]).all(), name
    assert rows == [{"loss": np.float32(0.1)}] * 3
    assert rows[0]["loss"].dtype == np.float32


OTHERS = [
    ({"kernel": jnp.zeros((3, 5))}, "got one of a model whose kernel is float32[3, 4], here float32[3, 5]. Resume"),
    ({"kernel": jnp.zeros((3, 4), jnp.int32)}, "a model whose kernel is float32[3, 4], here int32[3, 4]. Resume"),
    ({"bias": jnp.zeros(3)}, "a model whose bias is not there, here float32[3]. Resume"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "sentence"), OTHERS, ids=["shape", "dtype", "leaf"])
def test_another_model_is_refused(change, sentence, checkpoints):
    before = content(checkpoints.folder)
    with pytest.raises(ValueError, match=re.escape(sentence)):
        checkpoints.restore({**state(), **change})
    assert content(checkpoints.folder) == before


def test_other_arguments_are_refused(checkpoints):
    other = Checkpoints(checkpoints.folder, {"seed": 0, "arguments": {"lr0": 0.2}})
    with pytest.raises(ValueError, match=r"got one whose arguments.lr0 is 0.1, here 0.2. Resume"):
        other.restore(state())
    with pytest.raises(ValueError, match=r"none must hold a checkpoint, got none\.$"):
        Checkpoints(checkpoints.folder / "none", {}).restore(state())


def damages(folder):
    """Yield each damage of a file of the last checkpoint: cut, one byte changed, or deleted."""
    for name in sorted(p.relative_to(folder) for p in (folder / "3").rglob("*") if p.is_file()):
        data = (folder / name).read_bytes()
        middle = len(data) // 2
        yield name, data[:middle]
        yield name, data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]
        yield name, None


# Orbax leaves unfinished coroutines.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_damaged_checkpoint_is_refused_and_left(checkpoints):
    """If Orbax does not need a file, the arrays come back as they were saved."""
    sentence = re.compile(
        r"\S*/3 must be (a whole checkpoint, got one whose|of this run, got) [^\n]+"
    )
    refused = 0
    for name, data in list(damages(checkpoints.folder)):
        whole = (checkpoints.folder / name).read_bytes()
        (checkpoints.folder / name).unlink() if data is None else (
            checkpoints.folder / name
        ).write_bytes(data)
        before = content(checkpoints.folder)
        if error := refusal(checkpoints):
            assert sentence.fullmatch(error), name
            refused += 1
        assert content(checkpoints.folder) == before
        (checkpoints.folder / name).write_bytes(whole)
    assert refused > 12
    assert refusal(checkpoints) is None


def refusal(kept):
    """Return the error of a restore; None if the last checkpoint comes back as it was saved."""
    try:
        saved = kept.restore(state())
    except ValueError as error:
        return str(error)
    assert_as_saved(saved)
    return None


def test_an_array_that_orbax_reads_as_other_numbers_is_refused(checkpoints, monkeypatch):
    usual = ocp.CheckpointManager.restore

    def restore(*args, **kwargs):
        arrays = usual(*args, **kwargs)
        arrays["rows"]["loss"][1] += 1
        return arrays

    monkeypatch.setattr(ocp.CheckpointManager, "restore", restore)
    with pytest.raises(ValueError, match=r"got one whose rows/loss is not as it was written\. "):
        checkpoints.restore(state())


def test_orbax_alone_restores_it_by_name(checkpoints):
    with ocp.CheckpointManager(checkpoints.folder) as manager:
        assert manager.all_steps() == [2, 3]
        saved = manager.restore(manager.latest_step())
    assert saved["state"].keys() == state().keys()
    assert (saved["state"]["kernel"] == 3).all()
    assert saved["rows"]["loss"].tolist() == [np.float32(0.1)] * 3


def test_another_machine_is_reported(checkpoints, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")
    with pytest.warns(UserWarning, match="written on XLA_FLAGS none, here --xla_cpu_enable_fast"):
        checkpoints.restore(state())


def full(*_, **__):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


FULL = [
    ("shutil.disk_usage", "seen before"),
    ("ocp.CheckpointManager.save", "arrays, at once"),
    ("ocp.CheckpointManager.wait_until_finished", "arrays, later"),
]


@pytest.mark.parametrize("where", [where for where, _ in FULL], ids=[name for _, name in FULL])
def test_a_disk_that_fills_while_saving_leaves_the_last_checkpoint(where, checkpoints, monkeypatch):
    before = content(checkpoints.folder)
    with monkeypatch.context() as patched:
        patched.setattr(f"jaxsched.examples.checkpoints.{where}", full)
        with pytest.raises(OSError, match=r"No space left on device\); the last whole one is 3$"):
            (checkpoints.save(4, state(4)), checkpoints.close())  # one of the two raises
    assert {
        name: data for name, data in content(checkpoints.folder).items() if name in before
    } == before
    assert checkpoints.restore(state()).iteration == 3
    checkpoints.save(4, state(4), [])
    checkpoints.close()
    assert sorted(path.name for path in checkpoints.folder.iterdir()) == ["3", "4"]


def test_a_disk_that_fills_while_plotting_leaves_the_last_checkpoint(
    uninterrupted_runs, monkeypatch, tmp_path, capsys
):
    with monkeypatch.context() as patched:
        patched.setattr(Trace, "save", full)
        assert train(tmp_path) == 2
    assert capsys.readouterr().err.endswith("No space left on device\n")
    whole = uninterrupted_runs["yolov5_resnet18"]
    assert is_same(arrays_of(tmp_path, 60), arrays_of(whole, 60))


def test_killed_at_any_moment(uninterrupted_runs, tmp_path):
    """The short form of ``benchmarks/kills.py``."""
    rng = random.Random(0)
    script = Path(__file__).parent / "small_train.py"
    words = ["train", "--epochs", str(EPOCHS), "--resume", "--out", str(tmp_path)]
    folder, inside = tmp_path / "checkpoints", 0
    for kill in ("inside the first save", "inside the last save", None):
        with subprocess.Popen([sys.executable, script, *words], stdout=subprocess.PIPE) as process:
            begun = 0
            while kill and process.poll() is None:
                time.sleep(0.001)
                partial = [p.name for p in folder.glob("*.orbax-checkpoint-tmp*")]
                begun = max([begun, *(int(name.split(".")[0]) for name in partial)])
                if partial and begun == {"inside the first save": 30}.get(kill, 60):
                    time.sleep(rng.random() * 0.005)
                    process.send_signal(signal.SIGKILL)
                    process.wait()
                    inside += any(folder.glob("*.orbax-checkpoint-tmp*"))
                    break
            process.communicate()
        assert process.returncode == (-signal.SIGKILL if kill else 0)
    assert inside
    whole = uninterrupted_runs["yolov5_resnet18"]
    assert is_same(arrays_of(tmp_path, 60), arrays_of(whole, 60))
    for name in ("trace.npz", "metrics.csv"):
        assert (tmp_path / name).read_bytes() == (whole / name).read_bytes()
