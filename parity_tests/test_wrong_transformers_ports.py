"""Ports of a Trainer's recipe with usual mistakes, each of which ``compare`` reports."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the reference is live torch")
pytest.importorskip("transformers", reason="transformers is of the extra peers")

import transformers_settings as live  # noqa: E402

from jaxsched import compare, optimizers, recipes, schedules  # noqa: E402
from jaxsched.torch import record  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]

LABELS = ["decay", "no_decay"]
ARGUMENTS = {
    "learning_rate": 3e-4,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.15,
    "weight_decay": 0.1,
    "adam_beta2": 0.95,
    "gradient_accumulation_steps": 3,
}
WARMUP, UPDATES, BATCHES, EPOCHS = 5, 30, 7, 10  # 3 updates an epoch, the last of one batch
ITERATIONS = BATCHES * EPOCHS


def make_port(num_training_steps=UPDATES, **changes):
    return recipes.transformers(
        {**ARGUMENTS, **changes}, num_training_steps=num_training_steps, steps_per_epoch=BATCHES
    )


RIGHT = make_port()
RATE = RIGHT.groups["decay"]["learning_rate"].arguments["schedule"]  # by update


@pytest.fixture(scope="module")
def reference():
    """The recording of transformers' own optimizer and scheduler, stepped as Trainer does."""
    arguments = live.Setting(ARGUMENTS, UPDATES, BATCHES).full()
    optimizer, scheduler = live.create(arguments, UPDATES, live.Net())
    with record(optimizer, LABELS) as recording:
        for batch in range(ITERATIONS):
            step = batch % BATCHES
            if (step + 1) % 3 == 0 or step + 1 == BATCHES:
                optimizer.step()
                scheduler.step()
            recording.batch()
    return recording.trace


def change_rate(rate):
    groups = {label: {**group, "learning_rate": rate} for label, group in RIGHT.groups.items()}
    return dataclasses.replace(RIGHT, groups=groups)


def take_groups(**origins):
    groups = {label: RIGHT.groups[origin] for label, origin in origins.items()}
    return dataclasses.replace(RIGHT, groups=groups)


def rate_by_update(rate):
    return change_rate(schedules.per_update(rate, 3, BATCHES))


def float32_rate(update):
    update = jnp.asarray(update).astype(jnp.float32)
    progress = (update - WARMUP) / (UPDATES - WARMUP)
    wave = 0.5 * (1 + jnp.cos(jnp.float32(np.pi) * progress))
    return jnp.float32(3e-4) * jnp.where(update < WARMUP, update / WARMUP, wave)


WRONG = {  # with the cause that is named, if any
    "counts batches for updates": (lambda: change_rate(RATE), "counts iterations for updates"),
    "no short update": (lambda: change_rate(schedules.per_epoch(RATE, 3)), ""),
    "drops the short update": (
        lambda: change_rate(schedules.per_update(RATE, 3, BATCHES - BATCHES % 3)),
        "steps_per_epoch 6 for 7 in per_update",
    ),
    "laid out by batches": (lambda: make_port(ITERATIONS), "num_training_steps 70 for 30"),
    "an update late": (
        lambda: rate_by_update(schedules.lagged(RATE, after=0)),
        "a lag of one epoch",
    ),
    "warm-up rounded down": (lambda: make_port(warmup_steps=4), "warmup_steps 4 for 5"),
    "a whole wave": (lambda: make_port(lr_scheduler_kwargs={"num_cycles": 1}), ""),
    "a lowest rate": (
        lambda: make_port(
            lr_scheduler_type="cosine_with_min_lr", lr_scheduler_kwargs={"min_lr": 3e-5}
        ),
        "min_lr_rate 0.1 for 0.0 in cosine_with_warmup",
    ),
    "in float32": (lambda: rate_by_update(float32_rate), "computed in float32"),
    "decays all": (lambda: take_groups(decay="decay", no_decay="decay"), "weight_decay 0.1 for 0"),
    "groups swapped": (lambda: take_groups(decay="no_decay", no_decay="decay"), ""),
    "b2 of the default": (lambda: make_port(adam_beta2=0.999), "b2 0.999 for 0.95"),
    "coupled decay": (lambda: dataclasses.replace(RIGHT, update_rule=optimizers.adam), ""),
    "updates at every batch": (lambda: dataclasses.replace(RIGHT, accumulation=None), ""),
    "updates at every third batch": (
        lambda: dataclasses.replace(
            RIGHT, accumulation=optimizers.Accumulation(schedules.constant(3))
        ),
        "",
    ),
}


def test_the_right_port_is_equal(reference):
    report = compare(RIGHT, reference)
    assert report, str(report)


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_port_is_refused(name, reference):
    port, cause = WRONG[name]
    report = compare(port(), reference, iterations=ITERATIONS)
    assert not report
    assert any(cause in sentence for sentence in report.causes) or not cause, report.causes
