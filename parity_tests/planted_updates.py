"""Mistakes of an update, each planted against one of torch's optimizers, and correct updates.

The mistakes are written out in ``update_ports.py``, formula by formula, and never by the code
that looks for them. Counts are updates; 0 is the first.
"""

import re
import types

import jax.numpy as jnp
import ml_dtypes
import torch
from update_ports import (
    LEAVES,
    accumulate,
    adagrad,
    adam,
    clip_by,
    draw,
    error_lines,
    negative,
    port,
    port_by_iterations,
    rmsprop,
    sgd,
    spread_decay,
)

T = torch.optim
PLAIN = {"nesterov": False}
RIGHT = {
    "sgd": (T.SGD, lambda d: port(d, *sgd())),
    "sgd-dampened": (
        T.SGD,
        lambda d: port(d, *sgd(nesterov=False, damped=True)),
        lambda d: {**PLAIN, "dampening": d.dampening},
    ),
    "adam": (T.Adam, lambda d: port(d, *adam())),
    "adamw": (T.AdamW, lambda d: port(d, *adam(decay="decoupled"))),
    "rmsprop": (T.RMSprop, lambda d: port(d, *rmsprop())),
    "adagrad": (T.Adagrad, lambda d: port(d, *adagrad())),
}
EPSILON = "epsilon in another place: "
INSIDE = "the learning rate kept inside the momentum buffer"
N = r"[\d.e-]+"
DECOUPLED = "decoupled for coupled weight decay"
NO_DECAY = f"weight_decay 0.0 for {N}"
MEAN = "momentum as an average, dampened by 1 - momentum"
PLANTED = {
    # The planted update, torch's optimizer, a pattern of the cause, and further options of torch.
    "sgd-decoupled": (
        T.SGD,
        lambda d: port(d, *sgd(decay="after")),
        DECOUPLED,
    ),
    "sgd-unscaled-decay": (
        T.SGD,
        lambda d: port(d, *sgd(decay="unscaled")),
        "decoupled weight decay that the learning rate does not scale",
    ),
    "sgd-no-decay": (T.SGD, lambda d: port(d, *sgd(decay="none")), NO_DECAY),
    "sgd-decay-on-all": (
        T.SGD,
        lambda d: port(d, *sgd(), wrong=spread_decay(d)),
        f"weight_decay {N} for 0.0, or weight_decay taken from group 0",
    ),
    "sgd-decay-on-norm": (
        T.SGD,
        lambda d: port(d, *sgd(), wrong={"wd": {**d.wd, "norm": d.wd["weight"]}}),
        f"weight_decay {N} for 0.0, in parameter of norm, or weight_decay taken from group 0",
    ),
    "sgd-no-nesterov": (
        T.SGD,
        lambda d: port(d, *sgd(nesterov=False)),
        "nesterov False for True",
    ),
    "sgd-nesterov": (
        T.SGD,
        lambda d: port(d, *sgd()),
        "nesterov True for False",
        lambda d: PLAIN,
    ),
    "sgd-no-dampening": (
        T.SGD,
        lambda d: port(d, *sgd(nesterov=False)),
        f"dampening 0.0 for {N}",
        lambda d: {**PLAIN, "dampening": d.dampening},
    ),
    "sgd-dampening-at-the-first": (
        T.SGD,
        lambda d: port(d, *sgd(nesterov=False, damped=True, zeros=True)),
        "momentum buffer started from zeros",
        lambda d: {**PLAIN, "dampening": d.dampening},
    ),
    "sgd-warmup-from-zeros": (
        T.SGD,
        lambda d: port(d, *sgd(nesterov=False, zeros=True), low=0.0),
        "momentum buffer started from zeros",
        lambda d: {**PLAIN, "low": 0.0},
    ),
    "sgd-momentum-held": (
        T.SGD,
        lambda d: port(d, *sgd()),
        f"momentum {N} for a schedule",
        lambda d: {"low": 0.5},
    ),
    "sgd-mean": (
        T.SGD,
        lambda d: port(d, *sgd(nesterov=False, mean=True, zeros=True)),
        f"momentum buffer started from zeros and {MEAN}",
        lambda d: PLAIN,
    ),
    "sgd-mean-from-the-first": (
        T.SGD,
        lambda d: port(d, *sgd(nesterov=False, mean=True)),
        MEAN,
        lambda d: PLAIN,
    ),
    "sgd-rate-inside": (T.SGD, lambda d: port(d, *sgd(inside=True)), INSIDE),
    "sgd-maximize": (T.SGD, lambda d: port(d, *negative(*sgd())), "maximize True for False"),
    "sgd-float32": (
        T.SGD,
        lambda d: port(d, *sgd(), cast=jnp.float32),
        "float32 hyperparameters",
    ),
    "sgd-bfloat16": (
        T.SGD,
        lambda d: port(d, *sgd(), cast=ml_dtypes.bfloat16),
        "bfloat16 hyperparameters",
    ),
    "sgd-late": (T.SGD, lambda d: port(d, *sgd(), shift=-1), "schedule 1 update late"),
    "adam-early": (T.Adam, lambda d: port(d, *adam(), shift=1), "schedule 1 update early"),
    "sgd-groups": (
        T.SGD,
        lambda d: port(d, *sgd(), wrong={"lr": dict.fromkeys(LEAVES, d.lr["weight"])}),
        "learning_rate taken from group 2",
    ),
    "adam-decoupled": (
        T.Adam,
        lambda d: port(d, *adam(decay="decoupled")),
        DECOUPLED,
    ),
    "adamw-coupled": (
        T.AdamW,
        lambda d: port(d, *adam()),
        "coupled for decoupled weight decay",
    ),
    "adamw-no-decay": (T.AdamW, lambda d: port(d, *adam(decay="no")), NO_DECAY),
    "adamw-of-optax": (
        T.AdamW,
        lambda d: port(
            d, *adam(decay="decoupled"), wrong={"wd": {**d.wd, "weight": 1e-4, "bias": 0.0}}
        ),
        f"weight_decay 0.0001 for {N}",
    ),
    "adam-root": (T.Adam, lambda d: port(d, *adam(form="root")), EPSILON + "under the root"),
    "adam-both": (
        T.Adam,
        lambda d: port(d, *adam(form="both")),
        EPSILON + "under the root and outside it, eps_root and eps",
    ),
    "adam-early-eps": (
        T.Adam,
        lambda d: port(d, *adam(form="early")),
        EPSILON + "before the bias correction",
    ),
    "adamw-early-root": (
        T.AdamW,
        lambda d: port(d, *adam(form="early root", decay="decoupled")),
        EPSILON + "under the root, before the bias correction",
    ),
    "adam-uncorrected": (
        T.Adam,
        lambda d: port(d, *adam(corrected=(False, False))),
        "bias correction missing",
    ),
    "adam-first-uncorrected": (
        T.Adam,
        lambda d: port(d, *adam(corrected=(False, True))),
        "bias correction missing: of the first moment",
    ),
    "adam-swapped": (
        T.Adam,
        lambda d: port(d, *adam(swapped=True)),
        "b1 and b2 exchanged",
    ),
    "adam-another-beta": (
        T.Adam,
        lambda d: port(types.SimpleNamespace(**{**vars(d), "b2": 0.999}), *adam()),
        f"b2 0.999 for {N}",
    ),
    "adam-maximize": (T.Adam, lambda d: port(d, *negative(*adam())), "maximize True for False"),
    "adamw-float32": (
        T.AdamW,
        lambda d: port(d, *adam(decay="decoupled"), cast=jnp.float32),
        "float32 hyperparameters",
    ),
    "rmsprop-root": (
        T.RMSprop,
        lambda d: port(d, *rmsprop(root=True)),
        EPSILON + "under the root",
    ),
    "rmsprop-inside": (T.RMSprop, lambda d: port(d, *rmsprop(inside=True)), INSIDE),
    "rmsprop-of-optax": (
        T.RMSprop,
        lambda d: port(d, *rmsprop(inside=True, root=True)),
        f"{INSIDE} and {EPSILON}under the root",
    ),
    "rmsprop-decoupled": (
        T.RMSprop,
        lambda d: port(d, *rmsprop(decay="decoupled")),
        DECOUPLED,
    ),
    "adagrad-root": (
        T.Adagrad,
        lambda d: port(d, *adagrad(root=True)),
        EPSILON + "under the root",
    ),
    "nadam-no-nesterov": (T.NAdam, lambda d: port(d, *adam()), "no Nesterov"),
    "clip-partition": (
        T.SGD,
        lambda d: port(d, *sgd(), clip=clip_by(d, "partition")),
        "clip of each group by itself",
        lambda d: {"clip_norm": d.clip},
    ),
    "clip-missing": (
        T.SGD,
        lambda d: port(d, *sgd()),
        "clip missing",
        lambda d: {"clip_norm": d.clip},
    ),
    "clip-of-optax": (
        T.SGD,
        lambda d: port(d, *sgd(), clip=clip_by(d, "optax")),
        "clip by optax.clip_by_global_norm, which lacks torch's 1e-6",
        lambda d: {"clip_norm": d.clip},
    ),
    "averaged": (
        T.SGD,
        lambda d: port_by_iterations(d, *sgd()),
        "gradients averaged, not summed, under accumulation",
        lambda d: {"accumulation": d.accumulation},
    ),
    "averaged-by-default": (
        T.AdamW,
        lambda d: port_by_iterations(d, *adam(decay="decoupled"), dtype=jnp.float32),
        "gradients averaged, not summed, under accumulation: and in float32",
        lambda d: {"accumulation": d.accumulation},
    ),
    "accumulated-in-float32": (
        T.SGD,
        lambda d: port_by_iterations(d, *sgd(), mean=False, dtype=jnp.float32),
        "gradients accumulated in float32, optax.MultiSteps' accumulator_dtype",
        lambda d: {"accumulation": d.accumulation},
    ),
    "updates-for-iterations": (
        T.SGD,
        lambda d: accumulate(port(d, *sgd()), d, mean=False),
        "schedule stepped once in each update, not at each batch",
        lambda d: {"accumulation": d.accumulation},
    ),
    "scheduler-before-optimizer": (
        T.SGD,
        lambda d: port(d, *sgd(), every=d.every, shift=d.every),
        "schedule 1 epoch early",
        lambda d: {"steps_per_epoch": d.every},
    ),
    "per-iteration": (
        T.SGD,
        lambda d: port(d, *sgd()),
        "schedule stepped per iteration for per epoch",
        lambda d: {"steps_per_epoch": d.every},
    ),
}


def run_right(name, seed):
    """Return the lines of the assertion's error for a correct update: none."""
    cls, tx, *more = RIGHT[name]
    d = draw([seed, *name.encode()])
    return error_lines(tx(d), cls, d, *more)


def run_planted(name, seed):
    """Return the lines of the assertion's error for a mistake: the first difference, then the causes."""
    cls, tx, _, *more = PLANTED[name]
    d = draw([seed, *name.encode()])
    return error_lines(tx(d), cls, d, *more)


def is_named(name, lines):
    """Return true if ``lines`` name the mistake as the only cause."""
    first, *causes = lines
    cause = rf"likely cause: {PLANTED[name][2]}(, in parameter of [a-z]+)?(, or .*)?"
    parts = first.startswith("the two differ at update ")
    return parts and len(causes) == 1 and re.fullmatch(cause, causes[0]) is not None
