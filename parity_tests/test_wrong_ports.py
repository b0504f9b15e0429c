"""Ports with usual mistakes, each of which must be detected.

Wrong rates are detected by ``compare``, against the recorded run of the article, and
wrong updates by their parameters.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import long_after

import jaxsched
from jaxsched import Recipe, lr_scheduler, schedules
from jaxsched.recipes import recorded, yolov5_resnet18

EPOCHS, STEPS, WARMUP = 100, 30, 1000
RATE = lr_scheduler.lambda_lr(0.01, schedules.cosine(EPOCHS, lrf=0.2))
RIGHT = yolov5_resnet18()


def make_port(*, rate=None, groups=None, warmup=WARMUP, bias_start=0.1, momentum=None):
    """Return the article's recipe with one part replaced."""
    rate = rate or schedules.per_epoch(schedules.lagged(RATE, after=warmup // STEPS), STEPS)
    momentum = momentum or schedules.warmup(schedules.constant(0.937), warmup, start=0.8)

    def group(start, decay):
        return {
            "learning_rate": schedules.warmup(rate, warmup, start=start),
            "momentum": momentum,
            "weight_decay": decay,
            "nesterov": True,
        }

    right = {"weight": group(0.0, 5e-4), "bias": group(bias_start, 0.0), "norm": group(0.0, 0.0)}
    return Recipe({**right, **(groups(right) if groups else {})})


def float32_rate(count):
    """Return the rate by the same formula in jnp float32, as users write it."""
    epoch = jnp.floor_divide(jnp.asarray(count).astype(jnp.int32), STEPS)
    epoch = (epoch - (epoch > WARMUP // STEPS)).astype(jnp.float32)
    factor = ((1 + jnp.cos(epoch * jnp.float32(np.pi) / 100)) / 2) * jnp.float32(0.8)
    return (jnp.float32(0.01) * (factor + jnp.float32(0.2))).astype(jnp.float32)


WRONG_RATES = {
    "no-lag": lambda: make_port(rate=schedules.per_epoch(RATE, STEPS)),
    "lag-in-the-warmup-too": lambda: make_port(
        rate=schedules.per_epoch(schedules.lagged(RATE, after=0), STEPS)
    ),
    "lag-of-two-epochs": lambda: make_port(
        rate=schedules.per_epoch(
            schedules.lagged(schedules.lagged(RATE, after=33), after=34), STEPS
        )
    ),
    "warmup-one-iteration-short": lambda: make_port(warmup=WARMUP - 1),
    "warmup-one-iteration-long": lambda: make_port(warmup=WARMUP + 1),
    "warmup-a-tenth-short": lambda: make_port(warmup=900),
    "warmup-to-a-fixed-target": lambda: make_port(
        rate=lambda i: jnp.where(i <= WARMUP, RATE(33), RIGHT.at(i)["norm"]["learning_rate"])
    ),
    "bias-start-missing": lambda: make_port(bias_start=0.0),
    "bias-and-norm-swapped": lambda: make_port(
        groups=lambda g: {"bias": g["norm"], "norm": g["bias"]}
    ),
    "momentum-fixed": lambda: make_port(momentum=schedules.constant(0.937)),
    "decay-on-all-groups": lambda: make_port(
        groups=lambda g: {k: {**v, "weight_decay": 5e-4} for k, v in g.items()}
    ),
    "per-iteration-cosine": lambda: make_port(
        rate=lambda i: RATE((i - STEPS * (i > WARMUP)) / STEPS)
    ),
    "clamp-past-the-end": lambda: make_port(
        rate=schedules.per_epoch(
            lambda e: schedules.lagged(RATE, after=33)(jnp.minimum(e, EPOCHS)), STEPS
        )
    ),
    "float32-formula": lambda: make_port(rate=float32_rate),
    "bfloat16-momentum": lambda: make_port(
        momentum=lambda i: schedules.warmup(schedules.constant(0.937), WARMUP, start=0.8)(i).astype(
            jnp.bfloat16
        )
    ),
    "fresh-for-resumed": lambda: yolov5_resnet18(start_epoch=40),
    "starts-an-iteration-late": lambda: Recipe.from_trace(
        dataclasses.replace(RIGHT.trace(4000, 1), start=0)
    ),
}


def reference_of(name):
    if name == "clamp-past-the-end":  # differs only there
        return RIGHT.trace(3900)
    if name == "fresh-for-resumed":
        return yolov5_resnet18(start_epoch=40, resumed=True).trace(1800)
    return recorded("yolov5_resnet18")


def test_the_pieces_put_together_rightly_are_equal():
    report = jaxsched.compare(make_port(), recorded("yolov5_resnet18"))
    assert report, str(report)


def test_less_than_in_place_of_at_most_is_equal():
    """The value after the warm-up is its end value, so ``ni < nw`` gives the same."""
    rate = schedules.per_epoch(schedules.lagged(RATE, after=WARMUP // STEPS), STEPS)
    port = make_port(
        groups=lambda g: {
            "weight": {
                **g["weight"],
                "learning_rate": lambda i: jnp.where(
                    i < WARMUP, schedules.warmup(rate, WARMUP, start=0.0)(i), rate(i)
                ),
            }
        }
    )
    assert jaxsched.compare(port, recorded("yolov5_resnet18"))


CAUSES = {
    "no-lag": "1 epoch early, from iteration 1020 on",
    "lag-in-the-warmup-too": "after 0 for 33 in lagged",
    "lag-of-two-epochs": "a lag of one epoch where the reference has none",
    "warmup-one-iteration-short": "iterations 999 for 1000 in warmup",
    "warmup-one-iteration-long": "iterations 1001 for 1000 in warmup",
    "warmup-a-tenth-short": "iterations 900 for 1000 in warmup",
    "warmup-to-a-fixed-target": None,
    "bias-start-missing": "start 0.0 for 0.1 in warmup",
    "bias-and-norm-swapped": "groups bias and norm exchanged",
    "momentum-fixed": "constant, 0.937, where the reference is scheduled",
    "decay-on-all-groups": "weight_decay 0.0005 for 0.0",
    "per-iteration-cosine": "constant for 30 iterations each",
    "clamp-past-the-end": "stopped at iteration 3000",
    "float32-formula": "computed in float32",
    "bfloat16-momentum": "mine rounded to bfloat16",
    "fresh-for-resumed": "resumed False for True",
    "starts-an-iteration-late": "1 iteration early",
}


@pytest.mark.parametrize("name", WRONG_RATES)
def test_a_wrong_port_is_caught(name):
    report = jaxsched.compare(WRONG_RATES[name](), reference_of(name))
    assert not report
    _, mine, reference = report.first.first
    assert mine != reference


@pytest.mark.parametrize("name", long_after(1, WRONG_RATES))
def test_the_mistake_of_a_wrong_port_is_named(name):
    """The reference is a recording: a mistake that no change of a curve gives has no cause."""
    report = jaxsched.compare(WRONG_RATES[name](), reference_of(name))
    assert f"first at iteration {report.first.first[0]}" in str(report)
    causes = report.causes
    assert bool(causes) == (CAUSES[name] is not None), causes
    if causes:
        assert CAUSES[name] in causes[0]


def plain_optax(*, nesterov=True, decay_after=False, decay=True, dampening=0.0):
    """Return the article's update in plain Optax transformations, with constant hyperparameters."""
    steps = [
        optax.add_decayed_weights(0.05) if decay else optax.identity(),
        optax.trace(0.9, nesterov=nesterov),
        optax.scale(1 - dampening),
        optax.scale(-0.1),
    ]
    return optax.chain(*([steps[1], steps[0], *steps[2:]] if decay_after else steps))


WRONG_UPDATES = {
    "decay-after-momentum": plain_optax(decay_after=True),
    "no-nesterov": plain_optax(nesterov=False),
    "no-decay": plain_optax(decay=False),
    "dampening-missed": plain_optax(dampening=0.1),
    "decoupled-decay": optax.chain(
        optax.trace(0.9, nesterov=True), optax.scale(-0.1), optax.add_decayed_weights(-0.005)
    ),
}


def torchs_path(gradients, start):
    torch = pytest.importorskip("torch", reason="the reference is live torch")
    parameter = torch.tensor(start, requires_grad=True)
    optimizer = torch.optim.SGD([parameter], 0.1, momentum=0.9, weight_decay=0.05, nesterov=True)
    for gradient in gradients:
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
    return parameter.detach().numpy()


def path(tx, gradients, start):
    params = jnp.asarray(start)
    state = tx.init(params)
    for gradient in gradients:
        updates, state = tx.update(jnp.asarray(gradient), state, params)
        params = optax.apply_updates(params, updates)
    return np.asarray(params)


@pytest.mark.torch
@pytest.mark.parametrize("name", [*WRONG_UPDATES, None])
def test_a_wrong_update_differs(name, x64):
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=5), rng.normal(size=(20, 5))
    right = jaxsched.optimizers.sgd(0.1, 0.9, weight_decay=0.05, nesterov=True)
    reference = torchs_path(gradients, start)
    gap = np.abs(path(WRONG_UPDATES.get(name, right), gradients, start) - reference).max()
    gap /= np.abs(reference).max()
    assert (gap <= 1e-14) if name is None else (gap > 1e-3)
