"""YOLOv5's and Ultralytics' own runs, recorded, and their rules in plain Python."""

import csv
import dataclasses
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import original_rules
import pytest
from conftest import DATA, numbers
from hypothesis import given
from hypothesis import strategies as st

import jaxsched
from jaxsched import Recipe, Trace, lr_scheduler, optimizers, schedules
from jaxsched.recipes import _policy as policy
from jaxsched.recipes import ultralytics, yolov5

YOLOV5_ORDER, NEW_ORDER = ("bias", "weight", "norm"), ("weight", "norm", "bias")
RECORDED = {
    "y5_01_default": (yolov5, {}, YOLOV5_ORDER),
    "y5_02_coslr": (yolov5, {"cos_lr": True}, YOLOV5_ORDER),
    "y5_03_bs2": (yolov5, {"batch_size": 2}, YOLOV5_ORDER),
    "y5_07_adamw": (yolov5, {"optimizer": "AdamW"}, YOLOV5_ORDER),
    "ul_01_8.4.190_sgd": (ultralytics, {}, NEW_ORDER),
    "ul_11_8.3.250_sgd": (ultralytics, {"batch_size": 10, "version": "8.3.250"}, YOLOV5_ORDER),
}


def load_recording(name):
    """Return a recorded run of an original, from its csv and the sidecar."""
    rows = list(csv.DictReader((DATA / f"{name}.csv").open()))
    sidecar = json.loads((DATA / f"{name}.json").read_text())
    column = {
        key: np.array([float(row[key]) for row in rows]) for key in rows[0] if rows[0][key] != ""
    }
    moment = "b1" if "beta1" in column else "momentum"
    decays = sidecar["group_weight_decay"]
    trace = Trace(
        {
            label: {
                "learning_rate": column[f"lr_g{k}"],
                moment: column.get("beta1", column.get("momentum")),
                "weight_decay": np.full(len(rows), float(decays[k])),
            }
            for k, label in enumerate(RECORDED[name][2])
        },
        {
            "accumulate": column["acc"],
            "stepped": column["stepped"],
            "micro_batches": column["n_micro"],
            "ema_updates": column["ema_updates"],
            "ema_decay": column["ema_decay"],
        },
        start=int(column["ni"][0]),
    )
    return trace, {"epochs": sidecar["epochs"], "steps_per_epoch": sidecar["nb"]}


def assert_equal(trace, reference):
    report = jaxsched.compare(trace, reference)
    assert report, str(report)
    for name in ("accumulate", "stepped", "micro_batches", "ema_updates"):
        np.testing.assert_array_equal(trace.run[name], reference.run[name], err_msg=name)
    assert np.abs(trace.run["ema_decay"] - reference.run["ema_decay"]).max() <= 1e-15


@pytest.mark.parametrize("name", RECORDED)
def test_equal_to_the_recorded_run(name):
    factory, arguments, _ = RECORDED[name]
    reference, size = load_recording(name)
    recipe = factory(**size, **arguments)
    assert_equal(recipe.trace(len(reference)), reference)
    late = recipe.trace(len(reference), 1)
    assert not jaxsched.compare(Trace(late.groups, late.run), reference)


@pytest.mark.parametrize("name", RECORDED)
def test_float64_with_x64_on(name, x64):
    factory, arguments, _ = RECORDED[name]
    reference, size = load_recording(name)
    trace = factory(**size, **arguments).trace(len(reference))
    for label, group in reference.groups.items():
        for quantity, values in group.items():
            gap = np.abs(trace.groups[label][quantity] - values).max()
            assert gap <= 1e-14 * max(np.abs(values).max(), 1e-300), (label, quantity)


@pytest.mark.parametrize("name", RECORDED)
def test_the_plain_rules_equal_the_recorded_run(name):
    """The reference of the tests below equals the originals to the bit."""
    factory, arguments, _ = RECORDED[name]
    reference, size = load_recording(name)
    arguments = dict(arguments)
    version = arguments.pop("version", "7.0" if factory is yolov5 else "8.4.190")
    mine = original_rules.run(factory.__name__, version, **size, **arguments)
    for label, group in reference.groups.items():
        for quantity, values in group.items():
            np.testing.assert_array_equal(mine.groups[label][quantity], values)
    for quantity, values in reference.run.items():
        np.testing.assert_array_equal(mine.run[quantity], values)


VERSIONS = [
    *(("yolov5", version) for version in original_rules.YOLOV5),
    *(("ultralytics", version) for version in original_rules.ULTRALYTICS),
]


@st.composite
def runs(draw):
    epochs = draw(st.integers(1, 12))
    warmups = st.sampled_from([0, 0.0, 0.01, 0.5, 1.0, 2.5, 3.0, 7.5, 50])
    return draw(st.sampled_from(VERSIONS)), {
        "epochs": epochs,
        "steps_per_epoch": draw(st.integers(1, 45)),
        "batch_size": draw(
            st.sampled_from([1, 2, 3, 5, 7, 10, 12, 16, 24, 25, 43, 48, 64, 128, 200])
        ),
        "hyp": {
            "lr0": draw(numbers(1e-5, 1.0)),
            "lrf": draw(numbers(0.0, 1.0)),
            "momentum": draw(numbers(0.5, 0.99)),
            "weight_decay": draw(numbers(0.0, 0.01)),
            "warmup_epochs": draw(warmups),
            "warmup_momentum": draw(numbers(0.0, 0.95)),
            "warmup_bias_lr": draw(numbers(0.0, 0.2)),
        },
        "optimizer": draw(st.sampled_from(["SGD", "Adam", "AdamW"])),
        "cos_lr": draw(st.booleans()),
        "start_epoch": draw(st.integers(0, epochs - 1)),
        "resumed": draw(st.booleans()),
    }


def build(family, version, arguments):
    arguments = dict(arguments)
    if family == "yolov5":
        return yolov5(**arguments, version=version)
    arguments["args"] = arguments.pop("hyp")
    return ultralytics(**arguments, version=version)


@given(runs())
def test_random_runs_follow_the_rules(run):
    (family, version), arguments = run
    reference = original_rules.run(family, version, **arguments)
    assert_equal(build(family, version, arguments).trace(len(reference)), reference)


@pytest.mark.parametrize(("family", "version"), VERSIONS)
def test_replayed_from_its_trace(family, version):
    recipe = build(
        family, version, {"epochs": 4, "steps_per_epoch": 20, "batch_size": 10, "hyp": {}}
    )
    trace = recipe.trace(80)
    again = Recipe.from_trace(trace)
    assert_equal(again.trace(80), trace)
    assert again.clip_norm == recipe.clip_norm
    stepped_only = Trace(trace.groups, {"stepped": trace.run["stepped"]}, update_rule="sgd")
    run = Recipe.from_trace(stepped_only).trace(80).run
    # If each batch made an update, as in the long warm-up of 6.1, nothing accumulates.
    np.testing.assert_array_equal(run.get("stepped", np.ones(80)), trace.run["stepped"])


# Rates of epochs 3 and 4 in runs of the originals stopped at epoch 3 of 5, at lr0 0.01 and
# lrf 0.01 without a warm-up. 8.1.24 saves before its scheduler steps.
RESUMED = {"8.0.227": (0.00604, 0.00406), "8.1.24": (0.008020000000000001, 0.00406)}


@pytest.mark.parametrize("version", RESUMED)
def test_a_resumed_run_starts_at_the_rate_that_was_saved(version, x64):
    recipe = ultralytics(
        **{"epochs": 5, "steps_per_epoch": 2, "batch_size": 2, "version": version},
        **{"start_epoch": 3, "resumed": True, "args": {"warmup_epochs": 0, "nbs": 2}},
    )
    rates = recipe.trace(4).groups["norm"]["learning_rate"]
    np.testing.assert_allclose(rates[::2], RESUMED[version], rtol=1e-14)


AUTO = [
    # version, images, classes -> optimizer, rate and moment after the warm-up
    ("8.3.250", 1000, 80, "adamw", round(0.01 / 84, 6), 0.9),
    ("8.4.190", 1000, 1, "adamw", 0.002, 0.9),
    ("8.0.227", 10**6, 80, "sgd", 0.01, 0.937),
    ("8.4.0", 10**6, 80, "sgd", 0.01, 0.937),
]


@pytest.mark.parametrize(("version", "images", "classes", "rule", "rate", "moment"), AUTO)
def test_auto_chooses_by_the_runs_iterations(version, images, classes, rule, rate, moment):
    recipe = ultralytics(
        epochs=100,
        steps_per_epoch=10,
        optimizer="auto",
        images=images,
        classes=classes,
        version=version,
        args={"lr0": 0.5, "warmup_epochs": 20, "lrf": 1.0},
    )
    assert recipe.update_rule.__name__ == rule
    later = recipe.at(600)["norm"]
    assert float(later["learning_rate"]) == np.float32(rate)
    assert float(later["b1" if rule == "adamw" else "momentum"]) == np.float32(moment)
    # Runs of 8.0.227, 8.1.24, 8.3.250 and 8.4.0 with 10,001 epochs: SGD starts all groups at 0 too.
    for label in ("weight", "bias", "norm"):
        assert float(recipe.at(0)[label]["learning_rate"]) == 0.0


def test_auto_without_a_warmup_keeps_the_momentum_it_was_built_with():
    recipe = ultralytics(
        epochs=100,
        steps_per_epoch=10,
        optimizer="auto",
        images=10**6,
        classes=80,
        version="8.3.250",
        args={"warmup_epochs": 0},
    )
    assert float(recipe.at(5)["weight"]["momentum"]) == np.float32(0.9)


FILE = """
lr0: 0.02  # initial learning rate
momentum: 0.9
warmup_epochs: 2.0
box: 0.05
hsv_h: 0.015
mosaic: 1.0
anchors: null
"""


def test_a_file_of_the_originals_form_is_read(tmp_path):
    path = tmp_path / "hyp.yaml"
    path.write_text(FILE)
    from_file = yolov5(epochs=5, steps_per_epoch=60, hyp=path)
    same = yolov5(
        epochs=5, steps_per_epoch=60, hyp={"lr0": 0.02, "momentum": 0.9, "warmup_epochs": 2}
    )
    assert jaxsched.compare(from_file, same)
    assert not jaxsched.compare(from_file, yolov5(epochs=5, steps_per_epoch=60))


def test_names_of_optimizers_agree_in_any_case():
    adam = ultralytics(**SIZE, optimizer="adam", args={"optimizer": "Adam", "time": None})
    assert adam == ultralytics(**SIZE, optimizer="Adam")
    with pytest.raises(ValueError, match="optimizer must agree with args, got 'adam' against"):
        ultralytics(**SIZE, optimizer="adam", args={"optimizer": "AdamW"})


def test_args_supply_the_arguments_that_are_not_given(tmp_path):
    path = tmp_path / "args.yaml"
    path.write_text("task: detect\nepochs: 5\nbatch: 32\noptimizer: AdamW\ncos_lr: true\nnbs: 32\n")
    from_file = ultralytics(epochs=5, steps_per_epoch=60, args=path)
    same = ultralytics(
        epochs=5,
        steps_per_epoch=60,
        batch_size=32,
        optimizer="AdamW",
        cos_lr=True,
        args={"nbs": 32},
    )
    assert jaxsched.compare(from_file, same)


SIZE = {"epochs": 5, "steps_per_epoch": 10}
ERRORS = {
    "version": (
        lambda: yolov5(**SIZE, version="5.0"),
        "version must be one of 6.1, 7.0, got '5.0'",
    ),
    "version of a number": (
        lambda: yolov5(**SIZE, version=7.0),
        "version must be one of the strings '6.1', '7.0', got 7.0",
    ),
    "version-ultralytics": (
        lambda: ultralytics(**SIZE, version="9"),
        "version must be a release from 8.0.227 on, the last of each minor version being 8.0.239, "
        "8.1.47, 8.2.103, 8.3.253, 8.4.190, got '9'. Take the nearest of them.",
    ),
    "optimizer": (
        lambda: yolov5(**SIZE, optimizer="Lion"),
        "optimizer must be one of SGD, Adam, AdamW, RMSProp, got 'Lion'",
    ),
    "optimizer of 7.0": (
        lambda: yolov5(**SIZE, optimizer="RMSProp", version="6.1"),
        "RMSProp must go with version 7.0, got '6.1'. Pass version=\"7.0\".",
    ),
    "version of 5000 digits": (
        lambda: ultralytics(**SIZE, version="8.4." + "9" * 5000),
        "version must be a release from 8.0.227 on, the last of each minor version being 8.0.239, "
        f"8.1.47, 8.2.103, 8.3.253, 8.4.190, got '8.4.{'9' * 38}...{'9' * 43}'. Take the nearest of them.",
    ),
    "time": (
        lambda: ultralytics(**SIZE, args={"time": 2.0}),
        "args['time'] must be null, for with it the original sets the epochs by the clock as it "
        "runs, got 2.0. Pass the epochs that the run came to, and time: null.",
    ),
    "typo": (
        lambda: yolov5(**SIZE, hyp={"warmup_epoch": 3}),
        "hyp must use the original's keys, got 'warmup_epoch'. Did you mean 'warmup_epochs'?",
    ),
    "typo-args": (
        lambda: ultralytics(**SIZE, args={"cos-lr": True}),
        "args must use the original's keys, got 'cos-lr'. Did you mean 'cos_lr'?",
    ),
    "kind": (
        lambda: yolov5(**SIZE, hyp={"lr0": None}),
        "hyp['lr0'] must be a finite number of at least 0, got None",
    ),
    "kind-bool": (
        lambda: yolov5(**SIZE, hyp={"momentum": True}),
        "hyp['momentum'] must be a finite number of at least 0, got True",
    ),
    "text": (
        lambda: yolov5(**SIZE, hyp={"lr0": "1e-3"}),
        "hyp['lr0'] must be a finite number of at least 0, got '1e-3'",
    ),
    "contradiction": (
        lambda: ultralytics(**SIZE, args={"epochs": 7}),
        "epochs must agree with args, got 5 against epochs: 7. Leave one of the two out.",
    ),
    "batch": (
        lambda: yolov5(**SIZE, batch_size=0),
        "batch_size must be an integer of at least 1, got 0",
    ),
    "batch-bool": (
        lambda: yolov5(**SIZE, batch_size=True),
        "batch_size must be an integer of at least 1, got True",
    ),
    "epochs": (
        lambda: yolov5(epochs=0, steps_per_epoch=1),
        "epochs must be an integer of at least 1, got 0",
    ),
    "start": (
        lambda: ultralytics(**SIZE, start_epoch=5),
        "start_epoch must be below epochs, 5, got 5",
    ),
    "auto": (
        lambda: ultralytics(**SIZE, optimizer="auto"),
        'optimizer="auto" must go with classes and images, got classes=None, images=None. '
        "Pass both, or name the optimizer.",
    ),
    "alias": (
        lambda: ultralytics(**SIZE, args={"batch_size": 32}),
        "args must use the original's keys, got 'batch_size'. Did you mean 'batch'?",
    ),
    "switch": (
        lambda: ultralytics(**SIZE, args={"cos_lr": "false"}),
        "cos_lr must be True or False, got 'false'",
    ),
    "float-count": (
        lambda: yolov5(epochs=3, steps_per_epoch=50.0),
        "steps_per_epoch must be an integer of at least 1, got 50.0",
    ),
    "too-long": (
        lambda: yolov5(epochs=10**6, steps_per_epoch=10**4),
        "epochs * steps_per_epoch must be below 2**31, the int32 limit, got 10000000000",
    ),
    "no-mapping": (
        lambda: yolov5(**SIZE, hyp=[1]),
        "hyp must be a mapping or the path of a YAML file, got [1].",
    ),
    "musgd": (
        lambda: ultralytics(**SIZE, optimizer="MuSGD", version="8.3.250"),
        "MuSGD must go with a version from 8.4.0 on, got '8.3.250'.",
    ),
    "musgd-ratios": (
        lambda: ultralytics(**SIZE, optimizer="MuSGD", version="8.4.5"),
        "MuSGD of 8.4.5 must go with images, for its ratios follow the run's iterations, got "
        "images=None. Pass the number of training images.",
    ),
    "optimizer-ultralytics": (
        lambda: ultralytics(**SIZE, optimizer="Lion"),
        "optimizer must be one of SGD, MuSGD, Adam, AdamW, Adamax, NAdam, RAdam, RMSProp, auto, "
        "got 'Lion'",
    ),
    "version-type": (
        lambda: ultralytics(**SIZE, version=8.4),
        "version must be a release such as '8.4.190', got 8.4.",
    ),
}


OF_ANOTHER_TYPE = (
    "version of a number",
    "version-type",
    "text",
    "kind",
    "kind-bool",
    "batch-bool",
    "switch",
    "float-count",
)


@pytest.mark.parametrize("name", ERRORS)
def test_bad_input_gets_one_sentence(name):
    call, message = ERRORS[name]
    error = TypeError if name in OF_ANOTHER_TYPE else ValueError
    with pytest.raises(error, match=re.escape(message)):
        call()


@pytest.mark.parametrize("content", ["- 1\n", "just words", "a: [1\n", "!!python/object:os.x {}"])
def test_a_file_that_holds_no_settings_is_refused(tmp_path, content):
    path = tmp_path / "hyp.yaml"
    path.write_text(content)
    with pytest.raises(ValueError, match=r"hyp must (be a YAML file|hold key: value lines)"):
        yolov5(**SIZE, hyp=path)


def test_an_exponent_without_a_decimal_point_is_a_number(tmp_path):
    (tmp_path / "hyp.yaml").write_text("lr0: 1e-3\n")
    assert yolov5(**SIZE, hyp=tmp_path / "hyp.yaml") == yolov5(**SIZE, hyp={"lr0": 0.001})


def test_a_missing_file_is_missing(tmp_path):
    with pytest.raises(FileNotFoundError):
        yolov5(**SIZE, hyp=tmp_path / "none.yaml")


# Wrong ports that confuse the originals with each other, each compared with the plain rules
# of the right one.
PORT = {"epochs": 12, "steps_per_epoch": 40, "batch_size": 10}


def warm_up(recipe, warmup, **changes):
    """Return the SGD recipe's groups with another warm-up or target."""
    hyp = {
        "warmup_bias_lr": 0.1,
        "momentum": 0.937,
        "warmup_momentum": 0.8,
        "weight_decay": 0.0005 * 10 * 6 / 64,
    }
    rate = changes.pop("rate", None) or policy.lagging_rate(
        0.01,
        schedules.linear(12, lrf=0.01),
        120,
        {"steps_per_epoch": 40, "start_epoch": 0, "resumed": False},
    )
    label = changes.pop("bias_label", "bias")
    groups = policy.groups(rate, {**hyp, **changes}, warmup, bias_label=label)
    return dataclasses.replace(recipe, groups=groups)


def ramp(iterations=120, end=6.4, drop_every=40):
    return optimizers.Accumulation(schedules.batch_ramp(iterations, end=end, then=6), drop_every)


def ramp_accumulation(rounding, ramp_to=6.4):
    counts = rounding(np.interp(np.arange(481), [0, 120], [1, ramp_to]))
    return optimizers.Accumulation(schedules.table(np.maximum(1, counts)), 40)


LF = schedules.linear(12, lrf=0.01)
SHOWN_BY = {
    "average-restarts-on-resume": {"start_epoch": 5, "resumed": True},
    "ramp-rounds-half-up": {"batch_size": 16},  # whose ramp, 1 to 4, contains halves
}
WRONG_PORTS = {
    "no-lag": lambda r: warm_up(
        r, 120, rate=schedules.per_epoch(lr_scheduler.lambda_lr(0.01, LF), 40)
    ),
    "warmup-floor-of-6.1": lambda r: yolov5(**PORT, version="6.1"),
    "warmup-without-floor-one-short": lambda r: warm_up(r, 119),
    "warmup-target-fixed": lambda r: warm_up(
        r,
        120,
        rate=lambda i: jnp.where(i <= 120, 0.01, yolov5(**PORT).groups["norm"]["learning_rate"](i)),
    ),
    "bias-rate-of-the-weights": lambda r: warm_up(r, 120, bias_label="weight"),
    "bias-rate-missing": lambda r: warm_up(r, 120, warmup_bias_lr=0.0),
    "decay-not-scaled": lambda r: warm_up(r, 120, weight_decay=0.0005),
    "decay-scaled-by-the-ramped-accumulation": lambda r: warm_up(
        r, 120, weight_decay=lambda i: 0.0005 * 10 * r.accumulation.batches(i) / 64
    ),
    "cosine-for-line": lambda r: yolov5(**PORT, cos_lr=True),
    "momentum-not-warmed-up": lambda r: warm_up(r, 120, warmup_momentum=0.937),
    "ramp-rounds-down": lambda r: dataclasses.replace(r, accumulation=ramp_accumulation(np.floor)),
    "ramp-rounds-half-up": lambda r: dataclasses.replace(
        r, accumulation=ramp_accumulation(lambda v: np.floor(v + 0.5), 4.0)
    ),
    "ramp-to-an-integer": lambda r: dataclasses.replace(r, accumulation=ramp(end=6)),
    "no-ramp": lambda r: dataclasses.replace(r, accumulation=ramp(iterations=0)),
    "pending-kept": lambda r: dataclasses.replace(r, accumulation=ramp(drop_every=None)),
    "updates-on-multiples": lambda r: dataclasses.replace(
        r,
        accumulation=optimizers.Accumulation(lambda i: jnp.where(i % 6 == 0, 0, 10**6), 40),
    ),
    "average-per-batch": lambda r: dataclasses.replace(r, ema=EMAPerBatch()),
    "average-restarts-on-resume": lambda r: yolov5(**PORT, start_epoch=5),
    "average-without-ramp": lambda r: dataclasses.replace(r, ema=optimizers.EMA(tau=1.0)),
}


class EMAPerBatch(optimizers.EMA):
    """An average that counts batches as updates."""

    def simulate(self, stepped):
        return super().simulate(np.ones_like(stepped))


@pytest.mark.parametrize("name", [*WRONG_PORTS, None])
def test_a_wrong_port_is_caught(name):
    right = {**PORT, **SHOWN_BY.get(name, {})}
    reference = original_rules.run("yolov5", "7.0", **right)
    recipe = yolov5(**right)
    port = WRONG_PORTS.get(name, lambda r: r)(recipe).trace(len(reference))
    assert bool(jaxsched.compare(port, reference)) == (name is None)


def test_rmsprop_of_yolov5_warms_up_its_momentum():
    """torch's group has a ``momentum``, the only condition of the original."""
    # The reference is of SGD, whose group also has a momentum.
    reference = original_rules.run("yolov5", "7.0", **PORT)
    recipe = yolov5(**PORT, optimizer="RMSProp")
    trace = recipe.trace(len(reference))
    assert recipe.update_rule is optimizers.rmsprop
    for label, group in reference.groups.items():
        for name, values in group.items():
            np.testing.assert_array_equal(trace.groups[label][name], values.astype(np.float32))
        assert trace.constants[label]["alpha"] == 0.99
    adam = yolov5(**PORT, optimizer="Adam").trace(len(reference))
    assert not np.array_equal(adam.groups["norm"]["b1"], trace.groups["norm"]["momentum"])


def test_beta1_warmed_up_is_caught():
    reference = original_rules.run("yolov5", "7.0", **PORT, optimizer="AdamW")
    recipe = yolov5(**PORT, optimizer="AdamW")
    momentum = yolov5(**PORT).groups["weight"]["momentum"]
    port = dataclasses.replace(
        recipe, groups={k: {**v, "b1": momentum} for k, v in recipe.groups.items()}
    )
    assert jaxsched.compare(recipe, reference)
    assert not jaxsched.compare(port, reference)


def test_a_stretch_from_the_middle_is_replayed():
    trace = yolov5(epochs=4, steps_per_epoch=50, batch_size=10).trace(60, start=57)
    again = Recipe.from_trace(trace).trace(60)
    np.testing.assert_array_equal(again.run["stepped"], trace.run["stepped"])
    np.testing.assert_array_equal(again.run["ema_updates"], trace.run["ema_updates"])
    assert jaxsched.compare(Trace(again.groups, start=57), Trace(trace.groups, start=57))


@pytest.mark.parametrize("lacking", ["accumulate", "stepped", "ema_updates"])
def test_rows_that_were_stacked_lack_the_updates(lacking):
    trace = yolov5(epochs=2, steps_per_epoch=10, batch_size=10).trace(20)
    run = {name: values for name, values in trace.run.items() if name != lacking}
    with pytest.raises(ValueError, match=r"^trace\.run must hold \w+ and stepped if the trace"):
        Recipe.from_trace(dataclasses.replace(trace, run=run))


def test_hyperparameters_of_the_file_may_be_traced():
    def rate(lr0):
        return yolov5(**SIZE, hyp={"lr0": lr0}).at(140)["weight"]["learning_rate"]

    swept = jax.vmap(rate)(jnp.array([0.01, 0.02]))
    np.testing.assert_array_equal(swept, [rate(jnp.float32(0.01)), rate(jnp.float32(0.02))])


def test_the_number_of_epochs_may_be_traced():
    def rate(epochs):
        return yolov5(epochs=epochs, steps_per_epoch=40).at(205)["bias"]["learning_rate"]

    assert jax.jit(rate)(12) == rate(12)


def test_constants_are_replayed_in_float64():
    recipe = yolov5(**SIZE, optimizer="AdamW")
    assert Recipe.from_trace(recipe.trace(50)).groups["bias"]["b2"] == 0.999


def test_accumulation_of_gradients_in_another_precision():
    params = {"kernel": jnp.ones(3, jnp.bfloat16)}
    tx = yolov5(**SIZE, batch_size=10).optimizer(lambda p: dict.fromkeys(p, "weight"))
    state, updates = tx.init(params), None
    for _ in range(8):
        updates, state = jax.jit(tx.update)({"kernel": jnp.ones(3)}, state, params)
    assert updates["kernel"].dtype == jnp.bfloat16


def test_strict_promotion_does_not_change_the_runs():
    recipe = yolov5(**SIZE, batch_size=10)
    expected = recipe.trace(50).run["stepped"]
    with jax.numpy_dtype_promotion("strict"):
        np.testing.assert_array_equal(recipe.trace(50).run["stepped"], expected)


def test_a_rejected_batch_made_no_update():
    params = {"kernel": jnp.ones(3)}
    recipe = yolov5(**SIZE, batch_size=64)
    tx = optax.apply_if_finite(recipe.optimizer(lambda p: dict.fromkeys(p, "weight")), 5)
    state = tx.init(params)
    _, state = tx.update(params, state, params)
    assert optimizers.stepped(state)
    _, state = tx.update({"kernel": jnp.full(3, jnp.nan)}, state, params)
    assert not optimizers.stepped(state)
    assert int(state.inner_state.iteration) == 1


def test_a_resumed_process_updates_at_its_first_batch():
    """A predecessor's state is kept and its pending gradients are not, as in the originals."""
    arguments = {"epochs": 12, "steps_per_epoch": 40, "batch_size": 10}
    whole, late = yolov5(**arguments), yolov5(**arguments, start_epoch=5, resumed=True)
    params = {"kernel": jnp.ones(2)}
    tx = whole.optimizer(lambda params: {"kernel": "weight"})

    @jax.jit
    def epochs_of(state):
        def step(state, _):
            _, state = tx.update(params, state, params)
            return state, optimizers.stepped(state)

        return jax.lax.scan(step, state, length=200)

    state, _ = epochs_of(tx.init(params))
    _, carried = epochs_of(state)
    _, resumed = epochs_of(optimizers.restarted(state))
    expected = late.trace(200).run["stepped"].astype(bool)
    assert (np.asarray(resumed) == expected).all()
    assert (np.asarray(carried) != expected).any()
