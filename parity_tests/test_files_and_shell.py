"""Odd files and odd shells: refusals, files that are left alone, and how the command ends."""

import io
import os
import signal
import stat
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import numpy as np
import pytest

import jaxsched
from jaxsched import Recipe, Trace, cli, recipes
from jaxsched.examples import train_nnx
from jaxsched.examples.checkpoints import Checkpoints

TRACE = Trace({"all": {"learning_rate": np.array([0.1, 0.2])}})
ROOT = str(Path(jaxsched.__file__).parents[1])


def command(*words):
    return [sys.executable, "-m", "jaxsched", *map(str, words)]


# Files that are written


@pytest.mark.parametrize("target", ["there.npz", "new.npz", "folder/there.npz"])
def test_the_target_of_a_link_is_written(target, tmp_path):
    (tmp_path / "folder").mkdir()
    link = tmp_path / "link.npz"
    link.symlink_to(target)
    if target != "new.npz":
        (tmp_path / target).write_text("before")
    TRACE.save(link)
    assert os.readlink(link) == target
    assert Trace.load(tmp_path / target) == TRACE


def odd_files(folder):
    os.mkfifo(folder / "pipe.npz")
    (folder / "device.npz").symlink_to("/dev/full")
    (folder / "loop.npz").symlink_to("loop.npz")
    (folder / "folder.npz").mkdir()
    return {path.name: path.lstat().st_ino for path in folder.iterdir()}


def test_files_that_are_not_regular_are_left_alone(tmp_path, capsys):
    before = odd_files(tmp_path)
    for name in before:
        sentence = (
            f"the output must be a regular file, got {tmp_path / name}, which is none. "
            "Write to another path."
        )
        with pytest.raises(ValueError, match=rf"^{sentence}$"):
            TRACE.save(tmp_path / name)
        words = ["export", "yolov5_resnet18", "--out", str(tmp_path / name)]
        assert cli.main(words) == 2
        assert capsys.readouterr().err == f"jaxsched export yolov5_resnet18: {sentence}\n"
    assert {path.name: path.lstat().st_ino for path in tmp_path.iterdir()} == before
    assert stat.S_ISCHR(Path("/dev/full").stat().st_mode)


# Files that are read


def bomb(key):
    """Return YAML of a few hundred bytes whose aliases expand to 9**9 words."""
    lines = [f"a0: &a0 [{', '.join(['word'] * 9)}]"]
    lines += [f"a{k}: &a{k} [{', '.join([f'*a{k - 1}'] * 9)}]" for k in range(1, 9)]
    return "\n".join([*lines, f"{key}: *a8\n"])


@pytest.mark.parametrize("key", ["lr0", "box", "learning_rate"])
@pytest.mark.parametrize(
    ("factory", "name"), [(recipes.yolov5, "hyp"), (recipes.ultralytics, "args")]
)
def test_aliases_are_not_written_out(factory, name, key, tmp_path):
    file = tmp_path / "hyp.yaml"
    file.write_text(bomb(key))
    tracemalloc.start()
    try:
        with pytest.raises(
            ValueError, match=f"^{name} must be a YAML file, .*must have no aliases"
        ):
            factory(epochs=2, steps_per_epoch=2, **{name: file})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20e6


LONG = "x" * 10**6


@pytest.mark.parametrize(
    "text",
    [
        f"lr0: {LONG[:900_000]}",
        f"{LONG[:900_000]}1: 0\nlr0: -1",
        f"lr0: !{LONG[:9000]} 1",
        f"{LONG}: {LONG}",
        "lr0: " + "[" * 100_000,
    ],
    ids=["value", "key", "tag", "file", "depth"],
)
def test_long_settings_get_a_short_sentence(text, tmp_path):
    (tmp_path / "hyp.yaml").write_text(text)
    with pytest.raises((TypeError, ValueError)) as refusal:
        recipes.yolov5(epochs=1, steps_per_epoch=1, hyp=tmp_path / "hyp.yaml")
    assert len(str(refusal.value)) <= 500
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    "text",
    [
        f'{{"format": "{LONG}"}}',
        f'{{"format": "jaxsched.Recipe 1", "update_rule": "{LONG}"}}',
        f'{{"format": "jaxsched.Recipe 1", "{LONG}": 1}}',
        f'{{"format": "jaxsched.Recipe 1", "groups": {{"{LONG}": 1}}}}',
        f'{{"format": "jaxsched.Recipe 1", "groups": {{"a": {{"learning_rate": "{LONG}"}}}}}}',
        f'{{"format": "{" " * 2**26}"}}',
    ],
    ids=["format", "rule", "field", "label", "value", "file"],
)
def test_a_long_recipe_gets_a_short_sentence(text, tmp_path):
    (tmp_path / "recipe.json").write_text(text)
    with pytest.raises(ValueError, match=r"must be the file of a recipe: ") as refusal:
        Recipe.load(tmp_path / "recipe.json")
    assert len(str(refusal.value)) <= 500


def test_a_recipe_that_could_not_be_read_is_not_saved(tmp_path, monkeypatch):
    monkeypatch.setattr("jaxsched._recipe._file.MAX_BYTES", 1000)
    with pytest.raises(ValueError, match=r"at most 1,000 bytes, got .* Save recipe.trace\(n\)"):
        Recipe({"all": {"learning_rate": lambda i: 0.1 / (i + 1)}}).save(tmp_path / "a.yaml", 1000)
    assert not list(tmp_path.iterdir())


def test_an_endless_device_is_refused(capsys):
    words = ["export", "yolov5", "--epochs", "1", "--steps-per-epoch", "1", "--hyp", "/dev/zero"]
    assert cli.main(words) == 2
    assert capsys.readouterr().err == (
        "jaxsched export yolov5: --hyp must be a YAML file, got /dev/zero "
        "(it must have at most 1,048,576 bytes, got more).\n"
    )


def test_an_npz_that_claims_a_gibibyte_is_refused_before_it_is_expanded(tmp_path):
    file = tmp_path / "run.npz"
    TRACE.save(file)
    assert Trace.load(file, max_bytes=10_000) == TRACE
    with pytest.raises(
        ValueError, match=r"must be at most 1,000 bytes once expanded, got \d,\d\d\d"
    ):
        Trace.load(file, max_bytes=1000)
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f8", "fortran_order": False, "shape": (2**27,)}
    )
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("groups/all/learning_rate.npy", header.getvalue())
        archive.filelist[0].file_size = 2**30
    with pytest.raises(ValueError, match="got 1,073,741,824") as refusal:
        Trace.load(file)
    assert len(str(refusal.value)) < 300
    with file.open("wb") as plain:  # not an archive
        plain.write(header.getvalue())
        plain.truncate(2**30)
    tracemalloc.start()
    with pytest.raises(ValueError, match="must be a whole trace file"):
        Trace.load(file)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 20e6


@pytest.mark.parametrize(
    "words",
    [["plot", LONG], [LONG], ["plot", "yolov5_resnet18", "--lr0", LONG], ["verify", LONG]],
    ids=["recipe", "command", "option", "missing"],
)
def test_no_sentence_of_the_command_is_long(words, capsys):
    assert cli.main(words) == 2
    err = capsys.readouterr().err
    assert len(err) <= 501
    assert err.count("\n") == 1


# Folders

HOLDER = """
import sys, time
from jaxsched import cli
from jaxsched.examples import train_nnx

def train(*_):
    print("training", flush=True)
    time.sleep(60)
    yield

train_nnx.create = lambda *_, **__: (None, None)
train_nnx.train = train
cli.main(["train", "--out", sys.argv[1]])
"""


def test_a_second_run_in_one_folder_is_refused_until_the_first_is_dead(
    tmp_path, monkeypatch, capsys
):
    def interrupt(*_, **__):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(train_nnx, "create", lambda *_, **__: (None, None))
    monkeypatch.setattr(train_nnx, "train", interrupt)
    words, code = ["train", "--out", str(tmp_path)], [sys.executable, "-c", HOLDER, tmp_path]
    environment = {**os.environ, "PYTHONPATH": ROOT}
    with subprocess.Popen(code, env=environment, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert any("training" in line for line in holder.stdout)
            assert cli.main(words) == 2
            assert capsys.readouterr().err == (
                f"jaxsched train: --out must be a folder in which no other run trains, got {tmp_path}, "
                "in which one does. Wait for its end, or pass another --out.\n"
            )
        finally:
            holder.kill()
    assert cli.main(words) == 130
    assert capsys.readouterr().err == "stopped after 0 iterations\n"


# Shells

SLOW_JAX = """
import time

while True:
    try:
        print("importing", flush=True)
        time.sleep(60)
    except BaseException:
        pass  # as where an exception ends in a callback
"""


def hear_ctrl_c():
    """Restore SIGINT in a child process: a shell that runs the tests in the background ignores it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_ctrl_c_while_packages_are_imported(tmp_path):
    (tmp_path / "jax.py").write_text(SLOW_JAX)
    with subprocess.Popen(
        command("plot", "yolov5_resnet18"),
        env={**os.environ, "PYTHONPATH": os.pathsep.join([str(tmp_path), ROOT])},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=hear_ctrl_c,
    ) as child:
        assert child.stdout.readline() == "importing\n"
        child.send_signal(signal.SIGINT)
        try:
            _, err = child.communicate(timeout=30)
        finally:
            child.kill()
    assert child.returncode == 130
    assert err == "jaxsched: interrupted\n"


CALLBACK = """
import sys, time, types

class Collected:
    def __del__(self):  # as JAX's callback of the garbage collector
        raise KeyboardInterrupt

commands = types.ModuleType("jaxsched.cli._commands")
commands.run = lambda words: (Collected() and None, time.sleep(60))
sys.modules["jaxsched.cli._commands"] = commands
from jaxsched import cli
cli.main()
"""


def test_ctrl_c_that_is_lost_in_a_callback():
    done = subprocess.run(
        [sys.executable, "-c", CALLBACK],
        env={**os.environ, "PYTHONPATH": ROOT},
        preexec_fn=hear_ctrl_c,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (130, "jaxsched: interrupted\n")


def test_a_third_ctrl_c_while_a_training_ends(tmp_path, monkeypatch, capsys):
    def interrupt(*_, **__):
        raise KeyboardInterrupt
        yield

    monkeypatch.setattr(train_nnx, "create", lambda *_, **__: (None, None))
    monkeypatch.setattr(train_nnx, "train", interrupt)
    monkeypatch.setattr(Checkpoints, "close", lambda self: next(interrupt()))
    assert cli.main(["train", "--out", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "jaxsched: interrupted\n"


@pytest.mark.parametrize("words", [["--help"], ["plot", "yolov5", "--help"]], ids=len)
def test_help_on_a_narrow_terminal_without_unicode(words):
    done = subprocess.run(
        command(*words),
        env={**os.environ, "COLUMNS": "1", "PYTHONIOENCODING": "ascii", "PYTHONPATH": ROOT},
        capture_output=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"Usage: jaxsched" in done.stdout
    assert done.stdout.isascii()


@pytest.mark.parametrize("words", [["--help"], ["verify", "a.npz", "--against", "b.npz"]], ids=len)
def test_a_closed_pipe_ends_the_command_with_status_141(words, tmp_path):
    TRACE.save(tmp_path / "a.npz")
    Trace({"all": {"learning_rate": np.array([0.1, 0.3])}}).save(tmp_path / "b.npz")
    read, write = os.pipe()
    os.close(read)  # as head does after its last line
    done = subprocess.run(
        command(*words),
        env={**os.environ, "PYTHONPATH": ROOT},
        cwd=tmp_path,
        stdout=write,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(write)
    assert (done.returncode, done.stderr) == (141, "")
