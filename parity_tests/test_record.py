"""A recording equals the hyperparameters that the loop set, to the bit."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import warnings
from pathlib import Path

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="what is recorded is live torch")

import article_loop  # noqa: E402

import jaxsched  # noqa: E402
from jaxsched import Recipe, Trace, cli  # noqa: E402
from jaxsched._trace import UNSTATED  # noqa: E402
from jaxsched.recipes import yolov5_resnet18  # noqa: E402
from jaxsched.torch import from_torch, record  # noqa: E402
from jaxsched.torch._recording import Recording  # noqa: E402
from jaxsched.torch._script import Writer  # noqa: E402

pytestmark = pytest.mark.torch

NAMES = ("learning_rate", "momentum", "weight_decay")
SHORT = {"epochs": 4, "steps_per_epoch": 30, "warmup_iterations": 70}


def article_optimizer():
    parameters = {label: [torch.zeros(1, requires_grad=True)] for label in article_loop.ORDER}
    for (parameter,) in parameters.values():
        parameter.grad = torch.ones(1)
    return article_loop.sgd(parameters)


def differences(trace, reference):
    return [
        f"{label}/{name}"
        for label, group in reference.groups.items()
        for name in NAMES
        if not np.array_equal(trace.groups[label][name], group[name])
    ]


@pytest.mark.parametrize("by_batch", [False, True])
def test_the_articles_loop_to_the_bit(by_batch, tmp_path):
    optimizer = article_optimizer()
    with record(optimizer, article_loop.ORDER) as recording:
        loop = article_loop.iterations(optimizer, **SHORT)
        next(loop)  # at the yield the step has not been made
        for _ in loop:
            if by_batch:
                recording.batch()
    if by_batch:
        recording.batch()
    trace = recording.trace
    reference = article_loop.article_trace(**SHORT)
    assert len(trace) == 120
    assert trace.clock == ("iteration" if by_batch else "update")
    assert not differences(trace, reference)
    if by_batch:
        assert (trace.run["stepped"] == 1).all()
        assert jaxsched.compare(yolov5_resnet18(**SHORT), trace)
    late = {k: {n: v[1:] for n, v in group.items()} for k, group in trace.groups.items()}
    assert differences(Trace(late), reference.head(119)), "a wrong run passes too"
    trace.save(tmp_path / "run.npz")
    recipe = Recipe.from_trace(Trace.load(tmp_path / "run.npz"))
    with jax.enable_x64(True):
        again = recipe.trace(120)
    assert again.clock == trace.clock
    assert not differences(again, reference)
    assert recipe.groups["bias"]["nesterov"] is True
    optimizer.step()
    assert len(recording) == len(recording.trace) == 120  # values after the block are not recorded


@pytest.mark.parametrize("fused", [False, True])
def test_accumulation_and_a_scaler_that_skips(fused):
    """Every 3rd batch steps; one of these has an infinite gradient."""
    model = torch.nn.Linear(4, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, fused=fused)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    rates, stepped = [], []
    with record(optimizer) as recording:
        for batch in range(18):
            x = torch.ones(3, 4) * (np.inf if batch == 7 else 1.0)
            with torch.autocast("cpu", torch.bfloat16):
                loss = model(x).float().square().mean()
            scaler.scale(loss).backward()
            rates.append(optimizer.param_groups[0]["lr"])
            steps = batch % 3 == 2
            if steps:
                before = [p.detach().clone() for p in model.parameters()]
                scaler.step(optimizer)
                scaler.update()
                optimizer.zero_grad()
                scheduler.step()
                moved = [(a != b).any() for a, b in zip(before, model.parameters(), strict=True)]
                stepped.append(any(moved))
            else:
                stepped.append(False)
            recording.batch()
    trace = recording.trace
    # A batch that makes no update has the rate at its end.
    assert trace.run["stepped"].tolist() == stepped
    assert sum(stepped) == 5
    expected = [
        rate if s else after
        for rate, s, after in zip(
            rates, stepped, [*rates[1:], scheduler.get_last_lr()[0]], strict=True
        )
    ]
    assert trace.groups["0"]["learning_rate"].tolist() == expected
    assert trace.groups["0"]["learning_rate"].tolist() != expected[1:] + expected[:1]


def test_groups_that_come_later_and_states_that_are_loaded():
    parameters = [torch.ones(1, requires_grad=True) for _ in range(2)]
    optimizer = torch.optim.Adam(parameters[:1], lr=0.1)
    with record(optimizer, ["old"]) as recording:
        optimizer.step()
        optimizer.load_state_dict(optimizer.state_dict())
        optimizer.param_groups[0]["lr"] = 0.5
        optimizer.step()
        optimizer.add_param_group({"params": parameters[1:], "lr": 0.25, "betas": (0.5, 0.6)})
        optimizer.step()
    trace = recording.trace
    assert trace.groups["old"]["learning_rate"].tolist() == [0.1, 0.5, 0.5]
    np.testing.assert_array_equal(trace.groups["1"]["b1"], [np.nan, np.nan, 0.5])
    sentence = (
        "trace must have a number in each row, got nan of 1/learning_rate in row 0. "
        "Replay rows in which all groups are present."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        Recipe.from_trace(trace)


@pytest.mark.parametrize("of_recipe", [False, True])
def test_arguments_that_are_not_scheduled_are_replayed(of_recipe, tmp_path):
    matrix = torch.nn.Parameter(torch.ones(2, 2))
    options = {"ns_coefficients": (3.0, -4.0, 2.0), "ns_steps": 4, "adjust_lr_fn": "original"}
    optimizer = torch.optim.Muon([matrix], lr=0.1, **options)
    with record(optimizer) as recording:
        optimizer.step()
    trace = from_torch(optimizer).trace(1) if of_recipe else recording.trace
    trace.save(tmp_path / "run.npz")
    group = Recipe.from_trace(Trace.load(tmp_path / "run.npz")).groups["0"]
    assert {**group, "ns_coefficients": tuple(group["ns_coefficients"])}.items() >= options.items()


def test_groups_that_are_taken_away():
    optimizer = torch.optim.SGD([{"params": [torch.ones(1)]} for _ in range(2)], lr=0.1)
    with record(optimizer) as recording:
        optimizer.step()
        optimizer.param_groups.pop()
        optimizer.param_groups[0]["lr"] = 0.5
        optimizer.step()
    trace = recording.trace
    assert trace.groups["0"]["learning_rate"].tolist() == [0.1, 0.5]
    np.testing.assert_array_equal(trace.groups["1"]["learning_rate"], [0.1, np.nan])
    assert list(trace.switches) == ["0", "1"]


class Lion(torch.optim.Optimizer):
    def __init__(self, params):
        super().__init__(params, {"lr": 0.1, "betas": (0.9, 0.99), "weight_decay": 0.5, "x": 1})

    def step(self, closure=None):
        pass


def test_an_unknown_optimizer_is_recorded():
    optimizer = Lion([torch.ones(1, requires_grad=True)])
    with record(optimizer) as recording:
        optimizer.step()
    trace = recording.trace
    assert {name: float(v[0]) for name, v in trace.groups["0"].items()} == {
        "learning_rate": 0.1,
        "b1": 0.9,
        "b2": 0.99,
        "weight_decay": 0.5,
    }
    with pytest.raises(ValueError, match=r"got Lion. Pass update_rule\.$"):
        Recipe.from_trace(trace)


def test_a_recording_holds_a_trace_and_is_not_one():
    optimizer = article_optimizer()
    with record(optimizer, article_loop.ORDER) as recording:
        optimizer.step()
        first = recording.trace
        optimizer.step()
    assert isinstance(recording, Recording)
    assert not issubclass(Recording, Trace)
    assert type(recording.trace) is Trace
    assert (len(first), len(recording.trace), len(recording)) == (1, 2, 2)
    assert recording.trace.update_rule == "sgd"
    assert recording.trace.switches["bias"]["nesterov"] is True
    assert recording.trace.versions == {"torch": torch.__version__}
    assert recording.trace.clip_norm is UNSTATED  # a recording cannot observe it
    for mine, reference in ((yolov5_resnet18(), recording), (recording, recording.trace)):
        sentence = (
            "compare takes recipes and traces, got Recording. "
            "Read a trace's file with Trace.load; of a recording pass its trace."
        )
        with pytest.raises(TypeError, match=f"^{re.escape(sentence)}$"):
            jaxsched.compare(mine, reference)


def test_two_updates_in_a_batch_are_refused():
    optimizer = article_optimizer()
    with record(optimizer) as recording:
        optimizer.step()
        optimizer.step()
        sentence = (
            "batch() must follow each batch, in which there is at most 1 update, got 2 updates "
            "since the last. Leave it out: rows are updates then."
        )
        with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
            recording.batch()
    assert len(recording) == 2


def test_the_recording_equals_the_trace_of_from_torch():
    optimizer = article_optimizer()
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 40)
    recipe = from_torch(
        optimizer, scheduler, labels=article_loop.ORDER, steps_per_epoch=1, iterations=50
    )
    with record(optimizer, article_loop.ORDER) as recording:
        for _ in range(50):
            optimizer.step()
            scheduler.step()
            recording.batch()
    assert jaxsched.compare(recipe, recording.trace)


SCRIPT = """
import sys, time
import torch

EPOCHS, STATUS, PAUSE = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])
parameter, other = torch.ones(2, requires_grad=True), torch.ones(2, requires_grad=True)
first = torch.optim.Adam([parameter], lr=0.1)
second = torch.optim.SGD([other], lr=0.3)
scheduler = torch.optim.lr_scheduler.ExponentialLR(first, 0.9)
for epoch in range(EPOCHS):
    parameter.grad = other.grad = torch.ones(2)
    first.step()
    scheduler.step()
    if epoch % 2:
        second.step()
    time.sleep(PAUSE)
    print(epoch, flush=True)
sys.exit(STATUS)
"""


@pytest.fixture
def script(tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(Path(jaxsched.__file__).parents[1]))
    (tmp_path / "train.py").write_text(SCRIPT)

    def words(epochs, status, pause):
        command = [sys.executable, str(tmp_path / "train.py"), epochs, status, pause]
        return ["record", "-o", str(tmp_path / "run.npz"), "--", *map(str, command)]

    return words


def rates_of_the_script(n):
    """Return the rates by the script's arithmetic: a rate times 0.9 at each step."""
    rates = [0.1]
    for _ in range(n - 1):
        rates.append(rates[-1] * 0.9)
    return rates


@pytest.mark.long
def test_a_script_with_two_optimizers_that_fails_late(script, tmp_path, capfd):
    assert cli.main(script(30, 3, 0)) == 3
    first, second = (Trace.load(tmp_path / name) for name in ("run.npz", "run-1.npz"))
    assert first.groups["0"]["learning_rate"].tolist() == rates_of_the_script(30)
    assert second.groups["0"]["learning_rate"].tolist() == [0.3] * 15
    assert (first.update_rule, second.update_rule) == ("adam", "sgd")
    assert Recipe.from_trace(first).update_rule is jaxsched.optimizers.adam
    err = capfd.readouterr().err
    assert err == (
        "jaxsched record: optimizers of one file must make equally many updates, each one before the "
        "next of another, got updates: 2 of Adam and 0 of SGD. Each has a file of its own.\n"
        f"wrote {tmp_path / 'run.npz'}, {tmp_path / 'run-1.npz'}\n"
    )


WRAPPED = """
import torch

class Wrapper(torch.optim.Optimizer):
    def __init__(self, inner):
        self.inner = inner
        super().__init__(inner.param_groups, inner.defaults)

    def step(self):
        self.inner.step()

parameter = torch.ones(2, requires_grad=True)
optimizer = Wrapper(torch.optim.SGD([parameter], lr=0.3))
for _ in range(3):
    parameter.grad = torch.ones(2)
    optimizer.step()
"""


@pytest.mark.long
def test_an_optimizer_and_the_one_it_wraps_have_a_file_each(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("PYTHONPATH", str(Path(jaxsched.__file__).parents[1]))
    (tmp_path / "train.py").write_text(WRAPPED)
    command = [sys.executable, str(tmp_path / "train.py")]
    assert cli.main(["record", "-o", str(tmp_path / "run.npz"), "--", *command]) == 0
    rules = {}
    for name in ("run.npz", "run-1.npz"):
        trace = Trace.load(tmp_path / name)
        assert trace.groups["0"]["learning_rate"].tolist() == [0.3] * 3
        rules[name] = trace.update_rule
    assert set(rules.values()) == {"Wrapper", "sgd"}
    sentence = "jaxsched record: no parameter may be in two optimizers of one file, got updates: "
    assert capfd.readouterr().err.startswith(sentence)


@pytest.mark.long
def test_words_of_a_shell_are_not_taken_as_a_path(script, tmp_path):
    *words, python, train, epochs, status, pause = script(3, 0, 0)
    line = f"set -- {epochs} {status} {pause}; cd {tmp_path} && . ./run.py"
    (tmp_path / "run.py").write_text(f'{python} {train} "$@"\n')
    assert cli.main([*words, "sh", "-c", line]) == 0
    assert len(Trace.load(tmp_path / "run.npz")) == 3


PROCESSES = """
import os, sys
import torch

def train(lr, updates):
    optimizer = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=lr)
    for _ in range(updates):
        optimizer.step()

def ranked(rank):
    store = os.path.join(os.path.dirname(__file__), "store")
    torch.distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    train((0.2, 0.3)[rank], 6 + rank)

if __name__ == "__main__":
    how = sys.argv[1]
    if how == "shell":
        train(0.1, 5)
    elif how == "ranks":
        torch.multiprocessing.spawn(ranked, nprocs=2)
    elif how == "fork":
        train(0.1, 5)
        child = os.fork()
        if not child:
            train(0.5, 7)
            sys.exit()
        os.waitpid(child, 0)
        pool = torch.multiprocessing.get_context("fork").Process(target=train, args=(0.6, 8))
        pool.start()
        pool.join()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="only Unix forks")
@pytest.mark.long
@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("shell", {"run": (0.1, 5), "run-process1": (0.1, 5)}),
        ("ranks", {"run": (0.2, 6), "run-rank1": (0.3, 7)}),
        ("fork", {"run": (0.1, 5), "run-process1": (0.5, 7), "run-process2": (0.6, 8)}),
    ],
)
def test_each_process_writes_a_file_of_its_own(how, expected, script, tmp_path, capfd):
    words = script(0, 0, 0)[: -len(["python", "train.py", "0", "0", "0"])]
    (tmp_path / "train.py").write_text(PROCESSES)
    line = f"{sys.executable} {tmp_path / 'train.py'} {how}"
    assert cli.main([*words, "sh", "-c", f"{line}; {line}" if how == "shell" else line]) == 0
    traces = {path.stem: Trace.load(path) for path in tmp_path.glob("*.npz")}
    rates = {name: trace.groups["0"]["learning_rate"].tolist() for name, trace in traces.items()}
    assert rates == {name: [rate] * n for name, (rate, n) in expected.items()}
    assert {trace.closed for trace in traces.values()} == {True}
    written = ", ".join(str(tmp_path / f"{name}.npz") for name in expected)
    assert capfd.readouterr().err.splitlines()[-1] == f"wrote {written}"


ENDING = """
import os, signal, sys, time
import torch

how = sys.argv[1]
if how == "handler":
    def terminated(*_):
        print("the handler of the script", flush=True)
        os._exit(7)

    signal.signal(signal.SIGTERM, terminated)
optimizer = torch.optim.SGD([torch.ones(1, requires_grad=True)], lr=0.1)
for _ in range(300):
    optimizer.step()
if how == "os._exit":
    os._exit(5)
if how != "end":
    os.kill(os.getpid(), signal.SIGTERM)
"""


@pytest.mark.parametrize(
    ("how", "status", "rows"),
    [
        ("term", 128 + signal.SIGTERM, 300),
        pytest.param("end", 0, 300, marks=pytest.mark.long),
        pytest.param("handler", 7, 300, marks=pytest.mark.long),
        pytest.param("os._exit", 5, None, marks=pytest.mark.long),
    ],
)
def test_a_recording_says_whether_it_was_closed(how, status, rows, script, tmp_path, capfd):
    words = script(0, 0, 0)[: -len(["0", "0", "0"])]
    (tmp_path / "train.py").write_text(ENDING)
    assert cli.main([*words, how]) == status
    assert ("the handler of the script" in capfd.readouterr().out) == (how == "handler")
    sentence = (
        "is of a recording that was not closed: what the script did after its last row is not "
        "known."
    )
    file = tmp_path / "run.npz"
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        trace = Trace.load(file)
    assert [str(warning.message) for warning in caught] == [f"{file} {sentence}"] * (how != "end")
    assert trace.closed is (how == "end")
    assert len(trace) in ([rows] if rows else range(1, 301))
    Trace(trace.groups, clock=trace.clock).save(tmp_path / "mine.npz")
    words = ["verify", str(tmp_path / "mine.npz"), "--against", str(file)]
    evidence = tmp_path / "report.json"
    assert cli.main([*words, "--report", str(evidence)]) == 0
    out, err = capfd.readouterr()
    assert (f"the reference {sentence}\n" in out) == (how != "end")
    assert err == ""
    assert json.loads(evidence.read_text())["reference"]["header"]["closed"] is (how == "end")


def test_a_recording_is_closed_by_the_end_of_its_block():
    optimizer = article_optimizer()
    with record(optimizer, article_loop.ORDER) as recording:
        optimizer.step()
        assert recording.trace.closed is False
    assert recording.trace.closed is True
    assert yolov5_resnet18().trace(1).closed is UNSTATED


def test_a_killed_script_leaves_a_whole_trace(script, tmp_path):
    command = [sys.executable, "-m", "jaxsched", *script(10_000, 0, 0.01)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True) as child:
        for line in child.stdout:
            if int(line) == 150:
                os.killpg(child.pid, signal.SIGKILL)  # the recorder, too
                break
    with pytest.warns(UserWarning, match="not closed"):
        trace = Trace.load(tmp_path / "run.npz")
    assert 20 <= len(trace) <= 153
    assert trace.groups["0"]["learning_rate"].tolist() == rates_of_the_script(len(trace))


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (
            ["--", sys.executable, "-c", "raise SystemExit(7)"],
            "the script must make an update to be recorded, got none before "
            f"{sys.executable} -c raise SystemExit(7) ended with status 7.",
        ),
        (
            ["--", sys.executable, "no_such.py"],
            "the script must exist, got no_such.py, which is not found.",
        ),
        (
            ["--", "no-such-python", "train.py"],
            "the command must be a program, got no-such-python, which is not found.",
        ),
        ([], "the script must follow --, got none: record -o run.npz -- python train.py"),
    ],
    ids=["fails-early", "no-script", "no-program", "no-command"],
)
def test_a_script_that_cannot_be_recorded(words, sentence, tmp_path, capfd):
    assert cli.main(["record", "-o", str(tmp_path / "run.npz"), *words]) == 2
    assert capfd.readouterr().err == f"jaxsched record: {sentence}\n"
    assert not list(tmp_path.iterdir())


def test_a_folder_is_refused_before_the_script_runs(script, tmp_path, capfd):
    words = script(3, 0, 0)
    (tmp_path / "run.npz").mkdir()
    assert cli.main(words) == 2
    sentence = (
        f"the output must be a regular file, got {tmp_path / 'run.npz'}, which is none. "
        "Write to another path."
    )
    assert capfd.readouterr() == ("", f"jaxsched record: {sentence}\n")


def test_flushes_are_few_where_they_are_slow(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    saves = []
    monkeypatch.setattr(
        Trace, "save", lambda self, path: (saves.append(len(self)), now.__setitem__(0, now[0] + 1))
    )
    writer = Writer(tmp_path / "run.npz", tmp_path)
    optimizer = article_optimizer()
    for _ in range(200):
        now[0] += 1
        writer.note(optimizer)
    assert saves == [1, 51, 101, 151]
