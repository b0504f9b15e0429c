"""The files of a training: ``metrics.csv`` during it, event files, pictures of loss and accuracy."""

import csv
import struct
import sys

import numpy as np
import pytest

from jaxsched import cli, recipes
from jaxsched._figure import figure_of
from jaxsched.examples import runs, train_nnx
from jaxsched.examples.metrics import Metrics
from jaxsched.plot import plot

TRACE = recipes.yolov5_resnet18().trace(30)
COLUMNS = ["iteration", "loss", "accuracy", *sorted(TRACE.columns())]


def row_of(k):
    values = {label: {n: c[k] for n, c in g.items()} for label, g in TRACE.groups.items()}
    return train_nnx.Iteration(1 / (1 + k), k / 30, values)


def table(folder):
    with (folder / "metrics.csv").open(newline="") as file:
        header, *lines = csv.reader(file)
    return header, [list(map(float, line)) for line in lines]


def expected_rows(n):
    columns = {**TRACE.columns(), "iteration": range(30)}
    columns["loss"] = [1 / (1 + k) for k in range(30)]
    columns["accuracy"] = [k / 30 for k in range(30)]
    return [[float(columns[name][k]) for name in COLUMNS] for k in range(n)]


def test_a_row_is_written_as_soon_as_its_iteration_is_done(tmp_path, monkeypatch):
    def train(*_):
        for k in range(30):
            if k:
                assert table(tmp_path) == (COLUMNS, expected_rows(k))
            yield row_of(k)

    monkeypatch.setattr(train_nnx, "create", lambda *_, **__: (None, None))
    monkeypatch.setattr(train_nnx, "accuracy", lambda *_: 0.5)
    monkeypatch.setattr(train_nnx, "train", train)
    assert cli.main(["train", "--epochs", "1", "--out", str(tmp_path)]) == 0
    assert table(tmp_path) == (COLUMNS, expected_rows(30))


def test_rows_after_the_checkpoint_are_replaced(tmp_path):
    for start, end in ((0, 12), (5, 9), (9, 30)):  # killed at 12, and again at 9
        metrics = Metrics(tmp_path, map(row_of, range(start)))
        for k in range(start, end):
            metrics.write(row_of(k))
        if end < 30:
            assert table(tmp_path) == (COLUMNS, expected_rows(end))
    metrics.close()
    assert table(tmp_path) == (COLUMNS, expected_rows(30))


def events(folder):
    """Return the values that TensorBoard shows: a new start hides values from its step on."""
    event_pb2 = pytest.importorskip("tensorboardX.proto.event_pb2", reason="of the extra train")
    shown = {}
    for path in sorted(folder.iterdir(), key=lambda path: path.stat().st_mtime_ns):
        data = path.read_bytes()
        while data:
            size = 12 + struct.unpack("<Q", data[:8])[0]
            event, data = event_pb2.Event.FromString(data[12:size]), data[size + 4 :]
            if event.HasField("session_log"):
                shown = {key: value for key, value in shown.items() if key[1] < event.step}
            for value in event.summary.value:
                assert (value.tag, event.step) not in shown
                shown[value.tag, event.step] = value.simple_value
    return shown


def test_tensorboard_shows_what_the_table_has(tmp_path):
    pytest.importorskip("tensorboardX", reason="a part of the extra train")
    for start, end in ((0, 12), (5, 30)):
        metrics = Metrics(tmp_path, map(row_of, range(start)), tensorboard=True)
        for k in range(start, end):
            metrics.write(row_of(k))
        metrics.close()
    wanted = {
        (name, k): np.float32(value)
        for k, row in enumerate(expected_rows(30))
        for name, value in zip(COLUMNS[1:], row[1:], strict=True)
    }
    assert events(tmp_path / "tensorboard") == wanted


@pytest.mark.parametrize(("words", "asked"), [([], False), (["--log", "tensorboard"], True)])
def test_the_command_asks_for_it(words, asked, tmp_path, monkeypatch):
    pytest.importorskip("tensorboardX", reason="a part of the extra train")
    options = {}

    def fake_train(*args, **kwargs):
        options.update(kwargs)
        raise ValueError("enough")

    monkeypatch.setattr(runs, "train", fake_train)
    assert cli.main(["train", *words, "--out", str(tmp_path)]) == 2
    assert options["tensorboard"] is asked


def test_a_missing_writer_is_named_before_the_training(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(train_nnx, "create", None)
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    assert cli.main(["train", "--log", "tensorboard", "--out", str(tmp_path)]) == 2
    sentence = "jaxsched train needs tensorboardX: pip install 'jaxsched[train]', or in a checkout"
    assert capsys.readouterr().err.startswith(sentence)


def test_loss_and_accuracy_are_drawn_below_the_rates():
    metrics = {"loss": np.linspace(3, 1, 30), "accuracy": np.linspace(0, 1, 30)}
    axes = figure_of(TRACE, metrics=metrics).axes
    titles = [ax.get_title(loc="left") for ax in axes]
    assert titles == ["Learning rate", "Momentum", "Loss", "Accuracy"]
    for ax, values in zip(axes[2:], metrics.values(), strict=True):
        (line,) = ax.lines[:1]
        assert (line.get_ydata() == values).all()
        assert (line.get_xdata() == np.arange(30)).all()


def test_a_metric_of_another_length_is_refused(tmp_path):
    sentence = r"metrics must have a value an iteration, shape \(30,\), got loss of shape \(29,\)\."
    with pytest.raises(ValueError, match=sentence):
        plot(TRACE, tmp_path / "lr.png", metrics={"loss": np.zeros(29)})
    assert not list(tmp_path.iterdir())
