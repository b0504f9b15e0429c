"""Runs of Ultralytics' own trainer, before and after each release that changed a recipe.

Each was recorded with a small model, for 1 to 18 epochs.
"""

import dataclasses
import re

import numpy as np
import pytest
from ultralytics_runs import ARGUMENTS, BASE, RUNS, column, differences, evaluate, recipe_of

import jaxsched
from jaxsched import Trace
from jaxsched.recipes import _ultralytics as policy
from jaxsched.recipes import ultralytics


@pytest.mark.parametrize("version", RUNS)
def test_every_run_equals_its_recipe(version):
    wrong = {
        name: differences(run, recipe_of(version, name)) for name, run in RUNS[version].items()
    }
    assert not {name: differences for name, differences in wrong.items() if differences}


# Each change, the runs before and after it, and a run in which it shows. There are releases between
# 8.3.250 and 8.4.0, and 8.0.227 and 8.1.0; the sources of both ends were read.
BORDERS = [
    ("8.0.227", "8.1.0", "resume", "saves_first"),
    ("8.1.41", "8.1.42", "sgd", "lags"),
    ("8.2.6", "8.2.8", "ramp", "drops"),
    ("8.3.250", "8.4.0", "sgd", "bias_first"),
    ("8.3.250", "8.4.0", "RMSProp", "has_rmsprop"),
    ("8.4.2", "8.4.3", "auto_long", "auto"),
    ("8.4.2", "8.4.3", "musgd", "musgd"),
    ("8.4.3", "8.4.4", "musgd", "musgd"),
    ("8.4.7", "8.4.8", "auto_short", "auto"),
    ("8.4.7", "8.4.8", "musgd_long", "musgd"),
    ("8.4.102", "8.4.103", "short", "warmup_floor"),
    ("8.4.102", "8.4.103", "short", "short_warmup"),
    ("8.4.102", "8.4.103", "sgd", "open_warmup"),
    ("8.4.103", "8.4.105", "RMSProp", "has_rmsprop"),
    ("8.4.176", "8.4.177", "adam", "caps_batches"),
    ("8.4.182", "8.4.183", "sgd", "open_warmup"),
    ("8.4.182", "8.4.183", "short", "whole_ramp"),
]


@pytest.mark.parametrize(("before", "since", "name", "field"), BORDERS)
def test_a_change_shows_on_both_sides_of_its_border(before, since, name, field):
    old, new = policy._version(before), policy._version(since)
    assert getattr(old, field) != getattr(new, field)
    # The recipe of the other side gives another run.
    assert differences(RUNS[since][name], recipe_of(before, name))
    assert differences(RUNS[before][name], recipe_of(since, name))


def test_every_change_has_a_border():
    seen = {(since, field) for _, since, _, field in BORDERS}
    before = policy._version("8.0.227")
    for release, fields in policy.CHANGES.items():
        since = {"8.0.228": "8.1.0"}.get(
            policy._format_release(release), policy._format_release(release)
        )
        now = policy._version(since)
        for field in fields:
            shown = any(first == since for first, name in seen if name == field)
            # MuSGD and "auto" of 8.4.0 have no earlier run; a removed lag is saved nowhere.
            others = {
                "8.4.0": ("auto", "musgd"),
                "8.4.3": ("bias_first",),
                "8.1.42": ("saves_first",),
            }
            assert shown or field in others.get(since, ()), (since, field)
        before = now
    assert before == policy._version("8.4.190")


# Releases of each range: first, last, and one between.
RANGES = [
    ("8.0.228", "8.1.0", "8.1.41"),
    ("8.1.42", "8.2.0", "8.2.6"),
    ("8.2.8", "8.3.143", "8.3.253"),
    ("8.4.0", "8.4.1", "8.4.2"),
    ("8.4.4", "8.4.6", "8.4.7"),
    ("8.4.8", "8.4.50", "8.4.102"),
    ("8.4.103", "8.4.103", "8.4.104"),
    ("8.4.105", "8.4.108", "8.4.176"),
    ("8.4.177", "8.4.180", "8.4.182"),
    ("8.4.183", "8.4.185", "8.4.190"),
]


def test_a_range_is_one_version_and_its_neighbour_another():
    for k, (first, middle, last) in enumerate(RANGES):
        assert policy._version(first) == policy._version(middle) == policy._version(last)
        if k:
            assert policy._version(first) != policy._version(RANGES[k - 1][2])


REFUSED = {
    "8.2.7": "version must be up to 8.2.6 or from 8.2.8 on, between which the rules changed",
    "8.0.226": "version must be a release from 8.0.227 on",
    "8.3.254": "version must be a release from 8.0.227 on, the last of each minor version being",
    "8.4.191": "got '8.4.191'",
    "8.5.0": "got '8.5.0'",
    "8.4": "got '8.4'",
    "8.4.044": "got '8.4.044'",
    "latest": "got 'latest'",
}


@pytest.mark.parametrize("version", REFUSED)
def test_an_unresolved_release_is_refused(version):
    with pytest.raises(ValueError, match=re.escape(REFUSED[version])):
        ultralytics(epochs=3, steps_per_epoch=4, version=version)


def test_a_fresh_process_after_an_open_warmup_has_the_nominal_numbers():
    """In 8.4.103 only the warm-up writes momentum and batches, and it never ran here."""
    arguments = {**BASE, "args": {"warmup_epochs": 1.0}, "start_epoch": 3, "version": "8.4.103"}
    fresh, resumed = ultralytics(**arguments), ultralytics(**arguments, resumed=True)
    nominal = np.float32(0.937)
    assert evaluate(fresh.groups["weight"]["momentum"], fresh.start, 3).tolist() == [nominal] * 3
    stays = np.float32(np.interp(6, [0, 7], [0.8, 0.937]))
    assert evaluate(resumed.groups["weight"]["momentum"], 21, 3).tolist() == [stays] * 3


# Wrong ports of MuSGD, each compared with the recorded run of 8.4.190.
def change_groups(change):
    def port(recipe):
        groups = {label: change(label, dict(group)) for label, group in recipe.groups.items()}
        return dataclasses.replace(recipe, groups=groups)

    return port


def exchange(one, other):
    def port(recipe):
        groups = dict(recipe.groups)
        groups[one], groups[other] = groups[other], groups[one]
        return dataclasses.replace(recipe, groups=groups)

    return port


def change_args(**args):
    return lambda _: ultralytics(**ARGUMENTS["musgd"], args=args)


WRONG_PORTS = {
    "heads-at-the-rate-of-the-rest": change_groups(
        lambda label, group: {
            **group,
            "learning_rate": recipe_of("8.4.190", "musgd").groups[label.removesuffix("_head")][
                "learning_rate"
            ],
        }
    ),
    "heads-three-times-the-warmed-rate": change_groups(
        lambda label, group: {
            **group,
            "learning_rate": (lambda i, rate=group["learning_rate"]: 3 * rate(i))
            if label == "bias"
            else group["learning_rate"],
        }
    ),
    "no-decay-in-muon": change_groups(
        lambda label, group: {**group, "weight_decay": 0.0} if "muon" in label else group
    ),
    "decay-in-norm": change_groups(lambda label, group: {**group, "weight_decay": 0.0005}),
    "decay-not-scaled": change_args(weight_decay=0.001),
    "ratios-of-8.4.0": change_groups(lambda label, group: {**group, "muon": 0.5, "sgd": 0.5}),
    "ratios-exchanged": change_groups(lambda label, group: {**group, "muon": 1.0, "sgd": 0.2}),
    "no-muon": change_groups(lambda label, group: {**group, "use_muon": False}),
    "no-nesterov": change_groups(lambda label, group: {**group, "nesterov": False}),
    "muon-and-weight-exchanged": exchange("muon", "weight"),
    "bias-and-its-head-exchanged": exchange("bias", "bias_head"),
    "bias-rate-missing": change_args(warmup_bias_lr=0.0),
    "momentum-of-auto": change_args(momentum=0.9),
    "momentum-not-warmed-up": change_args(warmup_momentum=0.937),
    "warmup-of-8.4.8": lambda _: recipe_of("8.4.8", "musgd"),
    "warmup-of-8.4.103": lambda _: recipe_of("8.4.103", "musgd"),
    "biases-of-8.4.0": lambda _: recipe_of("8.4.0", "musgd"),
    "cosine-for-line": lambda _: ultralytics(**ARGUMENTS["musgd"], cos_lr=True),
    "no-clip": lambda recipe: dataclasses.replace(recipe, clip_norm=None),
}


@pytest.fixture(scope="module")
def musgd_run():
    """The recorded run of 8.4.190, as a trace."""
    run = RUNS["8.4.190"]["musgd"]
    rows, columns, switches = run["rows"], {}, {}
    for label, group in run["groups"].items():
        numbers = {name: v for name, v in group.items() if not isinstance(v, bool)}
        numbers |= {"muon": run["muon"], "sgd": run["sgd"]} if group["use_muon"] else {}
        columns[label] = {name: column(v, rows) for name, v in numbers.items()}
        switches[label] = {name: v for name, v in group.items() if isinstance(v, bool)}
    return Trace(
        columns,
        {name: column(v, rows) for name, v in run["run"].items()},
        update_rule="musgd",
        switches=switches,
        clip_norm=run["clip"][0],
    )


@pytest.mark.parametrize("name", [None, *WRONG_PORTS])
def test_a_wrong_port_of_musgd_is_caught(name, musgd_run):
    port = WRONG_PORTS.get(name, lambda recipe: recipe)(recipe_of("8.4.190", "musgd"))
    report = jaxsched.compare(port.trace(len(musgd_run)), musgd_run)
    assert bool(report) == (name is None), str(report)
