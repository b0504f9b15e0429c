"""``jaxsched verify`` and the assertions for pytest: equal, different with a cause, or refused."""

import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxsched
from jaxsched import Trace, cli, testing
from jaxsched.recipes import recorded, yolov5, yolov5_resnet18

MINE = """
import math

import numpy as np
import optax
import jaxsched
from jaxsched import Recipe, lr_scheduler, optimizers, param_groups, recipes, schedules

recipe = recipes.yolov5_resnet18()
transformation = recipe.optimizer(param_groups.by_leaf_name)
pair = (recipe.optimizer(param_groups.by_dotted_name), {"bn.bn.weight": 1.0, "a.weight": 1.0, "a.bias": 1.0})


def function():
    return recipes.yolov5_resnet18()


def short():
    return recipes.yolov5_resnet18(warmup_iterations=999)


def injected():
    rules = {
        label: optax.inject_hyperparams(optax.sgd)(group["learning_rate"], group["momentum"])
        for label, group in recipe.groups.items()
    }
    return optax.multi_transform(rules, param_groups.by_leaf_name)


def state():
    class State:  # like nnx.Optimizer and TrainState
        tx = transformation

    return State()


def port():
    rate = schedules.per_epoch(lr_scheduler.cosine_annealing_lr(0.1, 9), 5)
    return Recipe({"0": {"learning_rate": rate, "momentum": 0.9}})


def by_hand(count):  # as a loop that writes group["lr"] has it
    if count < 10:
        return 0.1 * count / 10
    return 0.1 * (1 + math.cos(math.pi * count / 3000))


def of_rate(rate):
    return Recipe({label: {"learning_rate": rate} for label in recipe.groups})


from_60 = Recipe(recipe.groups, start=60).optimizer(param_groups.by_leaf_name)
every_4 = Recipe(
    recipe.groups, accumulation=optimizers.Accumulation(schedules.constant(4))
).optimizer(param_groups.by_leaf_name)
get_lr = of_rate(by_hand)
cosine = of_rate(schedules.per_epoch(math.cos, 30))
interp = of_rate(lambda count: np.interp(count, [0, 1], [0, 1]))
by_rule = optimizers.sgd(by_hand)
by_optax = optax.inject_hyperparams(optax.sgd)(by_hand)
plain = optax.sgd(0.1)
number = 3


def needs(x):
    return x


def fails():
    return 1 / 0


def two_lines():
    raise RuntimeError("first\\nsecond")
"""

LIVE = """
import torch

parameter = torch.nn.Parameter(torch.ones(2))
optimizer = torch.optim.SGD([parameter], lr=0.1, momentum=0.9)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)
live = (optimizer, scheduler)
"""


BAD_FILES = {
    "words.yaml": "just words\n",
    "version.yaml": "format: jaxsched.Recipe 9\n",
    "cut.json": '{"format": "jaxsched.Recipe 1", "groups":',
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.py").write_text(MINE)
    (tmp_path / "live.py").write_text(LIVE)
    (tmp_path / "broken.py").write_text("import does_not_exist")
    (tmp_path / "stops.py").write_text("import sys; sys.exit('no')")
    trace = recorded("yolov5_resnet18")
    trace.save("run.npz")
    trace.relabel({"norm": "0", "weight": "1", "bias": "2"}).save("numbered.npz")
    dataclasses.replace(trace.head(10), start=3000).save("late.npz")
    trace.between(60, 3000).save("from_60.npz")
    dataclasses.replace(trace, clock="update").save("updates.npz")
    rates = {k: {n: g[n] for n in ("learning_rate", "momentum")} for k, g in trace.groups.items()}
    Trace(rates).save("rates.npz")
    (tmp_path / "run.csv").write_text("iteration,weight/learning_rate\n0,0.1\n")
    (tmp_path / "damaged.npz").write_bytes((tmp_path / "run.npz").read_bytes()[:5000])
    (tmp_path / "empty.npz").write_bytes(b"")
    yolov5_resnet18().save("recipe.yaml")
    yolov5_resnet18().save("recipe.json")
    for name, text in BAD_FILES.items():
        (tmp_path / name).write_text(text)
    return tmp_path


EQUAL = [
    "mine.py:recipe --against run.npz",
    "mine.py:function --against run.npz",
    "mine.py:transformation --against run.npz",
    "mine.py:pair --against run.npz",
    "run.npz --against run.npz",
    "run.npz --against mine.py:recipe",
    "mine.py:recipe --against mine.py:function",
    "mine.py:recipe --against run.npz --iterations 100",
    "mine.py:recipe --against numbered.npz --labels 0=norm,1=weight,2=bias",
    "numbered.npz --against mine.py:recipe --labels 0=norm,1=weight,2=bias",
    "recipe.yaml --against run.npz",
    "mine.py:transformation --against recipe.json",
    "mine.py:recipe --against recipe.yaml",
    "recipe.yaml --against recipe.json --iterations 100",
    "recipe.yaml --against numbered.npz --labels 0=norm,1=weight,2=bias",
]


@pytest.mark.parametrize("words", EQUAL)
def test_equal_runs_exit_with_0(words, folder, capsys):
    assert cli.main(["verify", *words.split()]) == 0
    *_, last = capsys.readouterr().out.splitlines()
    n = 100 if "100" in words else 3000
    assert last.startswith(f"parity: {n} iterations × 3 groups × learning rate, momentum")
    assert last.endswith(": 0 ULP")
    assert not (folder / "parity.png").exists()


OVERLAPPING = {
    "mine.py:recipe --against from_60.npz": (2940, "iterations 0 to 59 of mine"),
    "from_60.npz --against mine.py:recipe": (2940, "iterations 0 to 59 of the reference"),
    "mine.py:transformation --against from_60.npz": (2940, "iterations 0 to 59 of mine"),
    "mine.py:from_60 --against run.npz": (2940, "iterations 0 to 59 of the reference"),
    "mine.py:from_60 --against from_60.npz": (2940, ""),
    "mine.py:from_60 --against mine.py:from_60 --iterations 100": (100, ""),
    "mine.py:from_60 --against from_60.npz --iterations 100": (100, ""),
    "from_60.npz --against run.npz --iterations 100": (100, "iterations 0 to 59 of the reference"),
}


@pytest.mark.parametrize("words", OVERLAPPING)
def test_runs_with_other_starts_are_compared_where_they_overlap(words, folder, capsys):
    rows, left_out = OVERLAPPING[words]
    assert cli.main(["verify", *words.split()]) == 0
    *_, before, last = capsys.readouterr().out.splitlines()
    assert last.startswith(f"parity: {rows} iterations × 3 groups")
    assert before.startswith("left out: ") is bool(left_out)
    assert before.endswith(left_out)


@pytest.mark.parametrize("mine", ["recipe", "transformation", "from_60"])
def test_a_run_recorded_by_updates_is_compared_by_iterations(mine, folder, capsys):
    assert cli.main(["verify", f"mine.py:{mine}", "--against", "updates.npz"]) == 0
    rows = 2940 if mine == "from_60" else 3000
    assert f"parity: {rows} updates × 3 groups" in capsys.readouterr().out


def test_updates_of_an_accumulating_optimizer_are_not_its_iterations(folder, capsys):
    assert cli.main(["verify", "mine.py:every_4", "--against", "updates.npz"]) == 2
    assert "the same clock where not every iteration makes an update" in capsys.readouterr().err


def test_a_difference_is_reported_with_its_cause_and_a_picture(folder, capsys):
    words = ["verify", "mine.py:short", "--against", "run.npz", "--report", "out/report.json"]
    assert cli.main(words) == 1
    out = capsys.readouterr().out
    row = next(line for line in out.splitlines() if line.startswith("bias    learning rate"))
    assert re.search(r"3,000 +66\.70 % +98,746 +0\.00092 +1: 0\.0999099091 for 0\.09991$", row)
    assert "likely cause: warmup_iterations 999 for 1000" in out
    assert (folder / "parity.png").read_bytes().startswith(b"\x89PNG")
    report = json.loads((folder / "out" / "report.json").read_text())
    assert report["parity"] is False
    assert report["compared"] == {"mine": "mine.py:short", "against": "run.npz"}
    (cause,) = report["causes"]
    assert (cause["kind"], cause["name"]) == ("argument", "warmup_iterations")
    assert (cause["mine"], cause["reference"]) == (999, 1000)
    assert len(cause["quantities"]) == 6
    assert report["versions"]["jax"] == jax.__version__
    assert report["reference"]["sha256"] != report["mine"]["sha256"]
    numbers = [q for q in report["quantities"] if not q["is_setting"]]
    settings = [q["name"] for q in report["quantities"] if q["is_setting"]]
    assert len(numbers) == 9
    assert sorted(settings) == ["nesterov", "nesterov", "nesterov", "update_rule"]


def test_the_file_of_another_recipe_differs(folder, capsys):
    yolov5_resnet18(lrf=0.2).save("other.yaml")
    yolov5_resnet18(lrf=0.25).save("mine.yaml")
    assert cli.main(["verify", "mine.yaml", "--against", "other.yaml"]) == 1
    assert "no parity: 3 of 22 quantities differ" in capsys.readouterr().out


def test_equal_sides_have_equal_hashes_and_others_do_not():
    recipe = yolov5_resnet18(epochs=2)
    same, other = recipe.trace(60), yolov5_resnet18(epochs=2, lr0=0.02).trace(60)
    one, two = (jaxsched.compare(t, recipe).evidence()["mine"]["sha256"] for t in (same, other))
    assert one == jaxsched.compare(same, same).evidence()["reference"]["sha256"] != two


def test_injected_hyperparameters_are_read(folder, capsys):
    words = ["verify", "mine.py:injected", "--against", "rates.npz", "--iterations", "50"]
    status = cli.main(words)
    out = capsys.readouterr().out
    assert re.search(r"weight +learning rate +50", out)
    assert status == 0, out


def test_objects_that_hold_the_transformation_are_read(folder, capsys):
    words = ["verify", "mine.py:state", "--against", "rates.npz", "--iterations", "50"]
    status = cli.main(words)
    assert status == 0, capsys.readouterr().out


def test_each_file_has_the_modules_that_lie_beside_it(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = "import jaxsched, beside\nrecipe = jaxsched.Recipe({'all': {'learning_rate': beside.LR}})"
    for folder, rate in (("a", 0.1), ("b", 0.2)):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "beside.py").write_text(f"LR = {rate}")
        (tmp_path / folder / "run.py").write_text(run)
    words = ["verify", "a/run.py:recipe", "--iterations", "3", "--against"]
    assert cli.main([*words, "b/run.py:recipe"]) == 1
    assert re.search(r"0: 0.1\S* for 0.2", capsys.readouterr().out)
    assert cli.main([*words, "a/run.py:recipe"]) == 0


def test_a_swap_is_made_in_mine_alone(folder):
    recorded("yolov5_resnet18").relabel({"bias": "norm", "norm": "bias"}).save("swapped.npz")
    for mine in ("swapped.npz", "run.npz"):
        words = f"verify {mine} --against run.npz --labels bias=norm,norm=bias"
        assert cli.main(words.split()) == (mine == "run.npz")


def test_a_recipe_that_is_renamed_keeps_its_accumulation(folder, capsys):
    text = "import jaxsched\nrecipe = jaxsched.recipes.yolov5(epochs=2, steps_per_epoch=9)"
    (folder / "long.py").write_text(text)
    yolov5(epochs=2, steps_per_epoch=9).trace(18).relabel({"bias": "b"}).save("b.npz")
    assert cli.main(["verify", "long.py:recipe", "--against", "b.npz", "--labels", "bias=b"]) == 0
    assert "micro batches" in capsys.readouterr().out


def test_evidence_is_json_where_a_quantity_lacks(tmp_path):
    recipe = yolov5_resnet18(epochs=2)
    trace = recipe.trace(60)
    rates = {k: {"learning_rate": g["learning_rate"]} for k, g in trace.groups.items()}
    evidence = jaxsched.compare(Trace(rates), trace).evidence()
    quantities = json.loads(json.dumps(evidence, allow_nan=False))["quantities"]
    assert {q["first"][1] for q in quantities if q["name"] == "momentum"} == {"nan"}


@pytest.mark.torch
def test_live_torch_is_a_reference(folder, capsys):
    pytest.importorskip("torch", reason="what is compared is live torch")
    words = "verify mine.py:port --against live.py:live --steps-per-epoch 5 --iterations 100"
    assert cli.main(words.split()) == 1
    out = capsys.readouterr().out
    assert "T_max 9 for 10 in cosine_annealing_lr" in out
    words = "verify live.py:live --against live.py:live --steps-per-epoch 5 --iterations 100"
    assert cli.main(words.split()) == 0


SENTENCE = (
    "{} must be a function that JAX can trace, with jnp for math and jnp.where for if, got {}. Pass "
    "schedules.tabulate(function, steps=n), which calls it beforehand."
)
REFUSED = [
    ("nothing.npz --against run.npz", "nothing.npz must be a trace's or a recipe's file or file.py:name, got no such file."),
    ("nothing.py:x --against run.npz", "nothing.py must be a Python file, got no such file."),
    ("nothing.yaml --against run.npz", "nothing.yaml must be a trace's or a recipe's file or file.py:name, got no such file."),
    ("words.yaml --against run.npz", "words.yaml must be the file of a recipe: a recipe must be a mapping, got str."),
    ("run.npz --against version.yaml", "version.yaml must be the file of a recipe: format must be jaxsched.Recipe 1, got jaxsched.Recipe 9. Save the recipe again with this version of jaxsched."),
    ("cut.json --against run.npz", "cut.json must be the file of a recipe: Expecting value: line 1 column 42 (char 41)"),
    ("mine.py --against run.npz", "mine.py must be followed by a name, as in mine.py:recipe."),
    ("mine.py:recipes --against run.npz", "mine.py:recipes must be a Recipe, a Trace, an Optax transformation, or torch's (optimizer, scheduler), got module."),
    ("mine.py:recip --against run.npz", "mine.py must define recip, got none. It has recipe."),
    ("mine.py:needs --against run.npz", "mine.py must have a needs() without arguments, got one that needs x."),
    ("mine.py:fails --against run.npz", "mine.py must run, got ZeroDivisionError: division by zero"),
    ("mine.py:number --against run.npz", "mine.py:number must be a Recipe, a Trace, an Optax transformation, or torch's (optimizer, scheduler), got int."),
    ("mine.py:plain --against run.npz", "mine.py:plain must hold its hyperparameters in its state, as ours and optax.inject_hyperparams do, got one that does not. Compare its updates with jaxsched.torch.assert_optimizer_matches."),
    ("broken.py:x --against run.npz", "broken.py must run, got ModuleNotFoundError: No module named 'does_not_exist'"),
    ("stops.py:x --against run.npz", "stops.py must run, got SystemExit: no"),
    ("run.csv --against run.npz", "run.csv must be a trace's .npz file, got .csv, which is not read. Export the trace as .npz."),
    ("damaged.npz --against run.npz", "damaged.npz must be a whole trace file, got one that does not read as such (BadZipFile). Record or export it again."),
    ("empty.npz --against run.npz", "empty.npz must be a whole trace file, got one that does not read as such (BadZipFile). Record or export it again."),
    ("mine.py:recipe --against numbered.npz", "traces must have the same groups, got bias, norm, weight against 0, 1, 2. Rename groups with --labels weight=1,bias=2,norm=0 (then all are equal)."),
    ("mine.py:recipe --against numbered.npz --labels 1=weight", "traces must have the same groups, got bias, norm, weight against 0, 2, weight. Rename groups with --labels 1=weight,bias=2,norm=0 (then all are equal)."),
    ("mine.py:port --against run.npz", "traces must have the same groups, got 0 against bias, norm, weight. Rename groups with --labels."),
    ("mine.py:port --against mine.py:port", "--iterations must be given if neither run has a known length, got none."),
    ("run.npz --against run.npz --labels norm", "--labels must be old=new,old=new, got norm"),
    ("run.npz --against run.npz --labels weight=x,weight=y", "--labels must rename each group once, got weight=x,weight=y"),
    ("mine.py:get_lr --against mine.py:recipe", SENTENCE.format("learning_rate of group weight", "TracerBoolConversionError")),
    ("mine.py:recipe --against mine.py:get_lr", SENTENCE.format("learning_rate of group weight", "TracerBoolConversionError")),
    ("mine.py:cosine --against run.npz", SENTENCE.format("learning_rate of group weight", "ConcretizationTypeError")),
    ("mine.py:interp --against run.npz", SENTENCE.format("learning_rate of group weight", "TracerArrayConversionError")),
    ("mine.py:by_rule --against run.npz", SENTENCE.format("learning_rate of group all", "TracerBoolConversionError")),
    ("mine.py:by_optax --against run.npz", SENTENCE.format("each schedule of mine.py:by_optax", "TracerBoolConversionError")),
    ("late.npz --against run.npz", "runs must overlap, got iterations 3000 to 3009 against iterations 0 to 2999. Rows count from the start of the run: dataclasses.replace(trace, start=n) moves a trace."),
    ("run.npz --against run.npz --out parity.gif", "the file must end in .png or .svg, got parity.gif"),
    ("run.npz --against run.npz --labels nosuch=x", "--labels must rename groups among weight, bias, norm, got nosuch."),
    ("mine.py:recipe --against mine.py:recipe --labels norm=bias", "--labels must stay unique, got weight, bias, bias."),
    ("run.npz --against run.npz --iterations 3001", "--iterations must be at most the rows of the trace, 3000, got 3001"),
    ("mine.py:two_lines --against run.npz", "mine.py must run, got RuntimeError: first second"),
    ("run.npz --against run.npz --iterations 0", "--iterations must be an integer of at least 1, got 0"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "sentence"), REFUSED)
def test_sides_that_cannot_be_compared_are_refused_in_a_sentence(words, sentence, folder, capsys):
    assert cli.main(["verify", *words.split()]) == 2
    output = capsys.readouterr()
    assert output.err == f"jaxsched verify: {sentence}\n"
    assert output.out == ""


def test_assert_matches_takes_files_and_fails_with_the_report(tmp_path):
    trace = recorded("yolov5_resnet18")
    trace.save(tmp_path / "run.npz")
    testing.assert_matches(yolov5_resnet18(), tmp_path / "run.npz")
    with pytest.raises(AssertionError) as failure:
        testing.assert_matches(yolov5_resnet18(momentum=0.9), trace)
    assert str(failure.value).endswith("likely cause: momentum 0.9 for 0.937")


def test_a_recording_of_updates_is_compared_with_the_updates_of_the_recipe():
    """A recording of an unchanged script has only updates."""
    recipe = yolov5(epochs=10, steps_per_epoch=20, batch_size=16)
    whole = recipe.trace(200)
    stepped = np.flatnonzero(whole.run["stepped"])
    groups = {k: {n: v[stepped] for n, v in g.items()} for k, g in whole.groups.items()}
    updates = Trace(groups, clock="update")
    assert len(stepped) < 200
    report = jaxsched.compare(recipe, updates)
    assert report, str(report)
    assert str(report).startswith(f"parity: {len(stepped)} updates × 3 groups")
    late = Trace({k: {n: v[1:] for n, v in g.items()} for k, g in groups.items()}, clock="update")
    assert not jaxsched.compare(recipe, late)
    alone = yolov5_resnet18(epochs=2)
    assert jaxsched.compare(alone, Trace(alone.trace(60).groups, clock="update"))


def test_a_default_that_only_the_recipe_states_is_not_a_difference():
    assert jaxsched.compare(recorded("yolov5_resnet18"), yolov5_resnet18())
    reference = Trace(yolov5_resnet18(epochs=1).trace(30).groups)
    assert not jaxsched.compare(recorded("yolov5_resnet18").head(30), reference)


def test_modules_that_need_a_package_come_when_asked_for():
    assert jaxsched.flax.by_module
    with pytest.raises(AttributeError, match="has no attribute 'tensorflow'"):
        jaxsched.tensorflow  # noqa: B018


def test_the_hyperparameters_of_a_nested_transformation_are_read():
    tx = optax.chain(optax.inject_hyperparams(optax.adam)(lambda count: 0.1 / (1 + count)))
    state = tx.init({"w": jnp.ones(2)})
    found = jaxsched.hyperparameters(state)
    assert float(found["all"]["learning_rate"]) == np.float32(0.1)
