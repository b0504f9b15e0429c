"""Ports that are wrong in a usual way, each of which must be caught.

Those of the rates by ``compare``, against the recorded run of the article; those
of the update by where the parameters go.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxsched
from jaxsched import Recipe, lr_scheduler, schedules
from jaxsched.recipes import recorded, yolov5_resnet18

EPOCHS, STEPS, WARMUP = 100, 30, 1000
RATE = lr_scheduler.lambda_lr(0.01, schedules.cosine(EPOCHS, lrf=0.2))
RIGHT = yolov5_resnet18()


def ported(*, rate=None, groups=None, warmup=WARMUP, bias_start=0.1, momentum=None):
    """The article's recipe with one piece of it exchanged."""
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


def in_float32(count):
    """The same formula in jnp float32, as one would write it."""
    epoch = jnp.floor_divide(jnp.asarray(count).astype(jnp.int32), STEPS)
    epoch = (epoch - (epoch > WARMUP // STEPS)).astype(jnp.float32)
    factor = ((1 + jnp.cos(epoch * jnp.float32(np.pi) / 100)) / 2) * jnp.float32(0.8)
    return (jnp.float32(0.01) * (factor + jnp.float32(0.2))).astype(jnp.float32)


WRONG_RATES = {
    "no-lag": lambda: ported(rate=schedules.per_epoch(RATE, STEPS)),
    "lag-in-the-warmup-too": lambda: ported(
        rate=schedules.per_epoch(schedules.lagged(RATE, after=0), STEPS)
    ),
    "lag-of-two-epochs": lambda: ported(
        rate=schedules.per_epoch(
            schedules.lagged(schedules.lagged(RATE, after=33), after=34), STEPS
        )
    ),
    "warmup-one-iteration-short": lambda: ported(warmup=WARMUP - 1),
    "warmup-one-iteration-long": lambda: ported(warmup=WARMUP + 1),
    "warmup-a-tenth-short": lambda: ported(warmup=900),
    "warmup-to-a-fixed-target": lambda: ported(
        rate=lambda i: jnp.where(i <= WARMUP, RATE(33), RIGHT.at(i)["norm"]["learning_rate"])
    ),
    "bias-start-missing": lambda: ported(bias_start=0.0),
    "bias-and-norm-swapped": lambda: ported(
        groups=lambda g: {"bias": g["norm"], "norm": g["bias"]}
    ),
    "momentum-fixed": lambda: ported(momentum=schedules.constant(0.937)),
    "decay-on-all-groups": lambda: ported(
        groups=lambda g: {k: {**v, "weight_decay": 5e-4} for k, v in g.items()}
    ),
    "per-iteration-cosine": lambda: ported(rate=lambda i: RATE((i - STEPS * (i > WARMUP)) / STEPS)),
    "clamp-past-the-end": lambda: ported(
        rate=schedules.per_epoch(
            lambda e: schedules.lagged(RATE, after=33)(jnp.minimum(e, EPOCHS)), STEPS
        )
    ),
    "float32-formula": lambda: ported(rate=in_float32),
    "bfloat16-momentum": lambda: ported(
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
    if name == "clamp-past-the-end":  # shows only there
        return RIGHT.trace(3900)
    if name == "fresh-for-resumed":
        return yolov5_resnet18(start_epoch=40, resumed=True).trace(1800)
    return recorded("yolov5_resnet18")


@pytest.mark.parametrize("name", WRONG_RATES)
def test_a_wrong_port_is_caught(name):
    report = jaxsched.compare(WRONG_RATES[name](), reference_of(name))
    assert not report
    iteration, mine, reference = report.first.first
    assert mine != reference
    assert f"first at iteration {iteration}" in str(report)


def test_the_pieces_put_together_rightly_are_equal():
    report = jaxsched.compare(ported(), recorded("yolov5_resnet18"))
    assert report, str(report)


def test_less_than_for_at_most_is_no_mistake():
    """The value held after the warm-up is its end value, so ``ni < nw`` is equal too."""
    rate = schedules.per_epoch(schedules.lagged(RATE, after=WARMUP // STEPS), STEPS)
    port = ported(
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
    "no-lag": "off by one epoch: ",
    "lag-in-the-warmup-too": None,
    "lag-of-two-epochs": "off by one epoch: ",
    "warmup-one-iteration-short": "warm-up too short: ",
    "warmup-one-iteration-long": "warm-up too long: ",
    "warmup-a-tenth-short": "warm-up too short: 900 iterations for 1000",
    "warmup-to-a-fixed-target": None,
    "bias-start-missing": "missing bias rate: ",
    "bias-and-norm-swapped": "groups swapped: ",
    "momentum-fixed": "momentum not warmed up: ",
    "decay-on-all-groups": "weight decay applied to other groups: ",
    "per-iteration-cosine": None,
    "clamp-past-the-end": "clamped",
    "float32-formula": "float32 hyperparameters: ",
    "bfloat16-momentum": "bfloat16 hyperparameters: ",
    "fresh-for-resumed": "resumed with the wrong state: ",
    "starts-an-iteration-late": "off by one iteration: ",
}


@pytest.mark.parametrize("name", WRONG_RATES)
def test_a_cause_is_told_only_where_it_reproduces_the_curve(name):
    """The reference was recorded: what no curve of it shows has no cause, and none is guessed."""
    causes = jaxsched.compare(WRONG_RATES[name](), reference_of(name)).causes
    assert bool(causes) == (CAUSES[name] is not None), causes
    if causes:
        assert any(CAUSES[name] in cause for cause in causes), causes


def plain_optax(*, nesterov=True, decay_after=False, decay=True, dampening=0.0):
    """The article's update in plain Optax transformations, at constant hyperparameters."""
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
def test_a_wrong_update_goes_elsewhere(name, x64):
    rng = np.random.default_rng(0)
    start, gradients = rng.normal(size=5), rng.normal(size=(20, 5))
    right = jaxsched.optimizers.sgd(0.1, 0.9, weight_decay=0.05, nesterov=True)
    reference = torchs_path(gradients, start)
    gap = np.abs(path(WRONG_UPDATES.get(name, right), gradients, start) - reference).max()
    gap /= np.abs(reference).max()
    assert (gap <= 1e-14) if name is None else (gap > 1e-3)
