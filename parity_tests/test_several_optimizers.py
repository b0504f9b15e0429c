"""Lists of optimizers: converted, recorded, their states carried over, updates side by side."""

import re
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the reference is live torch")

from muon_adamw import (  # noqa: E402
    EPOCH,
    LABEL_OF,
    LABELS,
    RULES,
    SHAPES,
    TORCH,
    Model,
    recipe_by_hand,
    torch_optimizers,
)
from optimizer_settings import UPDATES  # noqa: E402

import jaxsched  # noqa: E402
from jaxsched import Recipe, Trace, cli, compare, lr_scheduler, optimizers  # noqa: E402
from jaxsched.cli._sources import load  # noqa: E402
from jaxsched.torch import (  # noqa: E402
    assert_optimizer_matches,
    export_state,
    from_torch,
    import_state,
    numbers,
    parameter_labels,
    record,
)
from jaxsched.torch._script import Writer  # noqa: E402

pytestmark = pytest.mark.torch

# --- from live objects ---


@pytest.fixture
def live():
    """Fresh parameters, optimizers and schedulers of torch."""
    parameters = {name: torch.nn.Parameter(torch.ones(shape)) for name, shape in SHAPES.items()}
    return parameters, *torch_optimizers(parameters)


def convert(live, **arguments):
    parameters, pair, schedulers = live
    return from_torch(
        pair,
        schedulers,
        model=Model(parameters),
        labels=LABELS,
        steps_per_epoch=EPOCH,
        **arguments,
    )


def test_from_torch_makes_the_recipe_by_hand(live):
    recipe = convert(live, iterations=UPDATES)
    assert recipe.update_rule == RULES
    assert recipe.length == UPDATES
    report = compare(recipe, recipe_by_hand())
    # The layout is that of the Flax parameters, which torch does not have.
    assert {q.name for q in report.quantities if q.first} <= set(TORCH), report
    arguments = recipe.origin.arguments
    assert arguments["labels"] == {**LABEL_OF, "unused": "frozen"}
    assert arguments["labels"] == parameter_labels(Model(live[0]), live[1], LABELS)
    assert list(arguments["optimizer"]) == ["Muon", "AdamW"]
    assert list(arguments["scheduler"]) == ["CosineAnnealingLR", "LinearLR"]
    assert list(from_torch(live[1]).groups) == ["0", "1", "2"]


def test_one_of_the_optimizers_has_no_scheduler(live):
    _, pair, (cosine, _) = live
    recipe = from_torch(pair, [cosine, None], labels=LABELS, steps_per_epoch=EPOCH, iterations=20)
    assert recipe.groups["bias"]["learning_rate"] == pair[1].param_groups[0]["lr"]
    assert recipe.start == 0
    for optimizer in pair:
        optimizer.step()
    cosine.step()
    later = {"steps_per_epoch": EPOCH, "iterations": 20}
    assert from_torch(pair, [cosine, None], **later).start == EPOCH
    assert from_torch(pair[:1], [cosine], **later).update_rule is optimizers.muon


def convert_shared(live):
    parameters, pair, _ = live
    return from_torch([pair[0], torch.optim.SGD([parameters["wide"]], 0.1)])


def convert_apart(live):
    live[1][0].step()
    live[2][0].step()
    return convert(live)


class Other(torch.optim.SGD):
    """An unknown optimizer."""


REFUSED = {
    "schedulers exchanged": (
        lambda live: from_torch(live[1], live[2][::-1], steps_per_epoch=1),
        "scheduler must be of the optimizer that is given, got LinearLR of another. "
        "Put each in the place of its own.",
    ),
    "one scheduler too few": (
        lambda live: from_torch(live[1], live[2][:1], steps_per_epoch=1),
        "scheduler must have one for each of 2 optimizers, got 1. "
        "Put None for an optimizer without.",
    ),
    "no list of schedulers": (
        lambda live: from_torch(live[1], live[2][0], steps_per_epoch=1),
        "scheduler must be a list where optimizer is one, and only there, got CosineAnnealingLR "
        "beside list. Pass [optimizer, …] and [scheduler, …], None for an optimizer without.",
    ),
    "no list of optimizers": (
        lambda live: from_torch(live[1][0], live[2], steps_per_epoch=1),
        "scheduler must be a list where optimizer is one, and only there, got list beside Muon. "
        "Pass [optimizer, …] and [scheduler, …], None for an optimizer without.",
    ),
    "an optimizer for a scheduler": (
        lambda live: from_torch(*live[1], steps_per_epoch=1),
        "scheduler must not be an optimizer, got AdamW. Pass several optimizers as a list.",
    ),
    "an optimizer of each group's labels": (
        lambda live: from_torch(live[1], labels=["a", "b"]),
        "labels must name each of 3 groups once, got ['a', 'b']. Pass a list, in the order of "
        "optimizer.param_groups, one optimizer after another.",
    ),
    "a label twice": (
        lambda live: record(live[1], labels=["a", "b", "a"]),
        "labels must name each of 3 groups once, got ['a', 'b', 'a']. Pass a list, in the order of "
        "optimizer.param_groups, one optimizer after another.",
    ),
    "a parameter in two": (
        convert_shared,
        "each parameter must be in one optimizer, got one of shape (4, 6) in Muon and in SGD. "
        "Leave it out of one.",
    ),
    "an optimizer twice": (
        lambda live: record([live[1][0]] * 2),
        "each parameter must be in one optimizer, got one of shape (7, 5) in Muon and in Muon. "
        "Leave it out of one.",
    ),
    "none": (
        lambda live: record([]),
        "optimizer must be one of torch's or a list of them, got an empty list.",
    ),
    "schedulers that have stepped apart": (
        convert_apart,
        "start must be given where schedulers have not made equally many steps, got 1 of "
        "CosineAnnealingLR and 0 of LinearLR. Pass start, that of the next batch.",
    ),
    "steps_per_epoch": (
        lambda live: from_torch(live[1], live[2]),
        "steps_per_epoch must be given with a scheduler, got None. "
        "Pass the batches between two of its steps: 1 if it steps after every batch, k if after "
        "every update of k batches.",
    ),
    "pairs": (
        lambda live: from_torch([(live[1][0], live[2][0])]),
        "optimizer must be one of torch's or a list of them, got (Muon (",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_lists_that_do_not_fit_are_refused(name, live):
    act, sentence = REFUSED[name]
    with pytest.raises((ValueError, TypeError)) as raised:
        act(live)
    assert str(raised.value).startswith(sentence)
    assert str(raised.value) == sentence or name == "pairs"


def test_an_optimizer_that_is_not_known_is_refused_beside_one_that_is(live):
    other = Other([torch.nn.Parameter(torch.ones(1))], 0.1)
    with pytest.raises(ValueError, match=r"^optimizer must be one of torch\.optim's .*\.Other\."):
        from_torch([live[1][0], other])
    with record([live[1][0], other]) as recording:
        live[1][0].step()
        other.step()
    assert recording.trace.update_rule == {"0": "muon", "1": "Other"}


# --- recordings ---


def test_a_recording_of_both(live, tmp_path):
    _, pair, _ = live
    with record(pair, LABELS, start=3) as recording:
        for _ in range(4):
            for optimizer in pair:
                optimizer.step()
            recording.batch()
            recording.batch()
    trace = recording.trace
    assert (len(trace), trace.start, trace.clock, trace.closed) == (8, 3, "iteration", True)
    assert trace.run["stepped"].tolist() == [1.0, 0.0] * 4
    assert trace.update_rule == {"matrix": "muon", "bias": "adamw", "scale": "adamw"}
    assert set(trace.switches["bias"]) == {"amsgrad", "maximize"}
    assert "nesterov" in trace.switches["matrix"]
    assert trace.meta == {"optimizer": ["Muon", "AdamW"]}
    trace.save(tmp_path / "run.npz")
    assert Trace.load(tmp_path / "run.npz") == trace
    assert Recipe.from_trace(trace).update_rule == RULES


def test_a_group_that_is_added_later_gets_a_label_of_its_own(live):
    _, pair, _ = live
    with record(pair) as recording:
        pair[0].add_param_group({"params": [torch.nn.Parameter(torch.ones(2, 2))]})
        for optimizer in pair:
            optimizer.step()
    assert set(recording.trace.groups) == {"0", "1", "2", "3"}
    assert recording.trace.rule_by_label["3"] == "muon"


def record_steps(pair, steps):
    """Step as ``steps`` lists: M for the first, A for the second, b for ``batch()``."""
    recording = record(pair)
    with recording:
        for letter in steps:
            if letter == "b":
                recording.batch()
            elif letter == "!":
                raise KeyError("the loop's own")
            else:
                pair["MA".index(letter)].step()
    return recording


APART = (
    r"^optimizers that are recorded together must make equally many updates, .* of Muon and \d of "
)


def test_optimizers_that_do_not_step_together_are_refused(live):
    _, pair, _ = live
    assert len(record_steps(pair, "MAAMMA").trace) == 3  # in any order within an update
    for steps in ("MM", "MAAA", "MAM", "MAbMb", "bMAMMA"):
        with pytest.raises(ValueError, match=APART):
            record_steps(pair, steps)
    with pytest.raises(KeyError):
        record_steps(pair, "MAM!")


SCRIPT = """
import torch
w, b = torch.nn.Parameter(torch.ones(3, 2)), torch.nn.Parameter(torch.ones(2))
muon, adamw = torch.optim.Muon([w], lr=0.02), torch.optim.AdamW([b], lr=3e-4)
schedulers = [torch.optim.lr_scheduler.StepLR(o, 2, 0.5) for o in (muon, adamw)]
w.grad, b.grad = torch.ones(3, 2), torch.ones(2)
for _ in range(6):
    muon.step()
    adamw.step()
    for scheduler in schedulers:
        scheduler.step()
"""


@pytest.mark.long
def test_a_script_with_two_optimizers_that_step_in_turn(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv("PYTHONPATH", str(Path(jaxsched.__file__).parents[1]))
    (tmp_path / "train.py").write_text(SCRIPT)
    out = tmp_path / "run.npz"
    words = [sys.executable, str(tmp_path / "train.py")]
    assert cli.main(["record", "-o", str(out), "--", *words]) == 0
    assert capfd.readouterr().err == f"wrote {out}\n"
    trace, halves = Trace.load(out), [0.5 ** (i // 2) for i in range(6)]
    assert trace.closed
    assert trace.update_rule == {"0": "muon", "1": "adamw"}
    assert trace.meta["optimizer"] == ["Muon", "AdamW"]
    for label, rate in (("0", 0.02), ("1", 3e-4)):
        assert trace.groups[label]["learning_rate"].tolist() == [rate * half for half in halves]


FILES = {  # steps of the script, and the rows of each file with the groups in it
    "in turn": ("MAMAMA", {"run": (3, "012")}),
    "the other way round": ("AMAMMA", {"run": (3, "012")}),
    "one for two": ("MMAMMAMMA", {"run": (6, "0"), "run-1": (3, "01")}),
    "one after the other": ("MMMAAA", {"run": (3, "0"), "run-1": (3, "01")}),
    "apart at the end": ("MAMAM", {"run": (3, "0"), "run-1": (2, "01")}),
    "alone": ("MMM", {"run": (3, "0")}),
}


@pytest.mark.parametrize("name", FILES)
def test_the_files_of_a_script(name, live, tmp_path, capsys):
    steps, files = FILES[name]
    (tmp_path / "claims").mkdir()
    writer = Writer(tmp_path / "run.npz", tmp_path / "claims")
    for letter in steps:
        optimizer = live[1]["MA".index(letter)]
        writer.note(optimizer)
        optimizer.step()
    writer.close()
    traces = {path.stem: Trace.load(path) for path in tmp_path.glob("*.npz")}
    assert {k: (len(t), "".join(t.groups)) for k, t in traces.items()} == files
    assert all(trace.closed for trace in traces.values())
    err = capsys.readouterr().err
    assert err.count("optimizers of one file must make equally many updates, ") == len(files) - 1, (
        err
    )


VERIFIED = """
import torch
from torch.optim.lr_scheduler import StepLR
w, b = torch.nn.Parameter(torch.ones(3, 2)), torch.nn.Parameter(torch.ones(2))
optimizers = [torch.optim.Muon([w], lr=0.02), torch.optim.AdamW([b], lr=3e-4)]
both = optimizers, [StepLR(optimizer, 2, 0.5) for optimizer in optimizers]
"""


def test_verify_takes_both(tmp_path, monkeypatch, capsys):
    (tmp_path / "live.py").write_text(VERIFIED)
    monkeypatch.chdir(tmp_path)
    words = ["--iterations", "6", "--steps-per-epoch", "1"]
    assert cli.main(["verify", "live.py:both", "--against", "live.py:both", *words]) == 0
    assert "parity: 6 iterations × 2 groups" in capsys.readouterr().out
    swap = ["--labels", "0=1,1=0"]  # of mine, with the rules
    assert cli.main(["verify", "live.py:both", "--against", "live.py:both", *words, *swap]) == 1
    assert "update rules adamw and muon exchanged in 0 and 1" in capsys.readouterr().out
    constant = load("live.py:optimizers", None, 6)
    assert constant.groups["1"]["learning_rate"] == 3e-4


# --- the state ---


def test_the_states_go_over_and_back(live):
    parameters, pair, _ = live
    recipe = convert(live, iterations=20)
    rng = np.random.default_rng(2)
    for optimizer in pair:
        for group in optimizer.param_groups:
            for p in group["params"]:
                p.grad = torch.tensor(rng.normal(size=p.shape), dtype=torch.float32)
        optimizer.step()
    mapping = numbers(Model(parameters), pair)
    assert mapping == {"tall": 0, "wide": 1, "bias": 2, "scale": 3}
    params = {name: jnp.asarray(p.detach().numpy()) for name, p in parameters.items()}
    tx = recipe.optimizer(LABEL_OF)
    states = [optimizer.state_dict() for optimizer in pair]
    state = import_state(states, tx, params, mapping, iteration=1)
    inner = state.inner.inner_states
    for leaf in ("tall", "wide"):
        buffer = inner["matrix"].inner_state.trees["momentum_buffer"][leaf]
        np.testing.assert_array_equal(buffer, pair[0].state[parameters[leaf]]["momentum_buffer"])
    for leaf in ("bias", "scale"):
        rule = inner[leaf].inner_state
        assert int(rule.step) == 1
        moment = rule.trees["exp_avg"][leaf]
        np.testing.assert_array_equal(moment, pair[1].state[parameters[leaf]]["exp_avg"])
    back = export_state(state, params, mapping, like=states)
    for one, other, optimizer in zip(back, states, pair, strict=True):
        assert one["param_groups"] == other["param_groups"]
        assert one["state"].keys() == other["state"].keys()
        for key, entry in other["state"].items():
            for name, value in entry.items():
                assert torch.equal(torch.as_tensor(one["state"][key][name]), torch.as_tensor(value))
        optimizer.load_state_dict(one)
    wrong = {"tall": 0, "wide": 1, "bias": 0, "scale": 1}
    with pytest.raises(
        ValueError, match=r"^the state of bias must hold exp_avg, exp_avg_sq, got mo"
    ):
        import_state(states, tx, params, wrong)


def test_sgd_without_a_buffer_beside_a_rule_that_keeps_moments():
    parameters = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    pair = [torch.optim.SGD(parameters[:1], 0.1), torch.optim.AdamW(parameters[1:], 0.1)]
    for optimizer in pair:
        optimizer.param_groups[0]["params"][0].grad = torch.ones(2)
        optimizer.step()
    recipe = from_torch(pair, labels=["a", "b"], start=1)
    states, params = [o.state_dict() for o in pair], {k: jnp.ones(2) for k in "ab"}
    labels, mapping = {k: k for k in "ab"}, {"a": 0, "b": 1}
    state = import_state(states, recipe.optimizer(labels), params, mapping)
    assert int(state.inner.inner_states["b"].inner_state.step) == 1
    wrong = [pair[1].state_dict(), pair[1].state_dict()]
    with pytest.raises(ValueError, match="the state of sgd without momentum must hold nothing"):
        import_state(wrong, recipe.optimizer(labels), params, mapping)


# --- updates side by side ---

TWO = {"weight": (7, 5), "bias": (5,), "norm": (5,)}


def sgd_and_adamw(parameters):
    sgd = torch.optim.SGD([parameters["weight"]], 0.1, momentum=0.9, weight_decay=0.01)
    adamw = torch.optim.AdamW([parameters["bias"], parameters["norm"]], 0.01, weight_decay=0.1)
    return [sgd, adamw], [torch.optim.lr_scheduler.StepLR(sgd, 4, 0.5), None]


def two_rules(**changes):
    groups = {
        "sgd": {"learning_rate": lr_scheduler.step_lr(0.1, 4, 0.5), "momentum": 0.9},
        "adamw": {"learning_rate": 0.01, "weight_decay": 0.1},
    }
    groups["sgd"]["weight_decay"] = 0.01
    for label, change in changes.items():
        groups[label] |= change
    rules = {"sgd": optimizers.sgd, "adamw": optimizers.adamw}
    labels = {"weight": "sgd", "bias": "adamw", "norm": "adamw"}
    return Recipe(groups, rules, clip_norm=1.0).optimizer(labels)


WRONG_UPDATES = {
    "of the first": (
        {"sgd": {"nesterov": True}},
        "likely cause: nesterov True for False (SGD)",
    ),
    "of the second": ({"adamw": {"b2": 0.9}}, "likely cause: b2 0.9 for 0.999 (AdamW)"),
    "of both": (
        {"sgd": {"weight_decay": 0.0}, "adamw": {"weight_decay": 0.0}},
        "likely cause: weight_decay 0.0 for 0.01 (SGD)\n"
        "likely cause: weight_decay 0.0 for 0.1 (AdamW)",
    ),
}


def test_updates_of_two_optimizers_side_by_side():
    options = {"labels": ["sgd", "adamw"], "updates": 8, "clip_norm": 1.0}
    assert_optimizer_matches(two_rules(), sgd_and_adamw, **options)
    for changes, sentence in WRONG_UPDATES.values():
        with pytest.raises(AssertionError, match=f"\n{re.escape(sentence)}$"):
            assert_optimizer_matches(two_rules(**changes), sgd_and_adamw, **options)
    with pytest.raises(AssertionError, match=r"update 0: learning_rate of adamw is 0\.02 for"):
        assert_optimizer_matches(two_rules(adamw={"learning_rate": 0.02}), sgd_and_adamw, **options)
    with pytest.raises(TypeError, match=r"^scheduler must not be an optimizer, got AdamW\."):
        assert_optimizer_matches(two_rules(), lambda p: tuple(sgd_and_adamw(p)[0]), **options)
