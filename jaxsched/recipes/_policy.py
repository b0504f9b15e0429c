"""The policy that YOLOv5, Ultralytics and the article's simulation share."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxsched import optimizers, schedules
from jaxsched._groups import Groups
from jaxsched._recipe import Recipe
from jaxsched._schedule import Hyperparameter, Schedule
from jaxsched._validate import is_zero, require_bool, require_count, require_run
from jaxsched.lr_scheduler import lambda_lr

UPDATE_RULES: Mapping[str, Callable[..., Any]] = {
    "SGD": optimizers.sgd,
    "Adam": optimizers.adam,
    "AdamW": optimizers.adamw,
    "Adamax": optimizers.adamax,
    "NAdam": optimizers.nadam,
    "RAdam": optimizers.radam,
    "RMSProp": optimizers.rmsprop,
    "MuSGD": optimizers.musgd,
}
WITH_MOMENTUM = ("SGD", "RMSProp", "MuSGD")  # their groups have a momentum, which is warmed up

LABELS = ("weight", "bias", "norm")
MUON_LABELS = ("muon", "weight", "norm", "bias")
HEAD_FACTOR = 3  # the rate of MuSGD's groups of the head, relative to the base rate

DEFAULTS = {
    "lr0": 0.01,
    "lrf": 0.01,
    "momentum": 0.937,
    "weight_decay": 0.0005,
    "warmup_epochs": 3.0,
    "warmup_momentum": 0.8,
    "warmup_bias_lr": 0.1,
}
"""The optimizer's settings in ``hyp.scratch-low.yaml`` and in Ultralytics' defaults."""


@dataclasses.dataclass(frozen=True)
class Version:
    """The differences between releases of the originals.

    Attributes:
      lags: the scheduler steps at an epoch's end, so that rates lag by an epoch.
      saves_first: with a lag, a checkpoint is saved before the scheduler steps, so that a resumed
        process repeats the rate of its predecessor's last epoch.
      drops: pending gradients are dropped at an epoch's start.
      warmup_floor: smallest number of iterations of a warm-up.
      short_warmup: the warm-up is at most as long as the run without its last epoch.
      open_warmup: the warm-up writes its last values an iteration before its end, and these stay:
        the momentum, the batches of an update, and the rate to the end of the epoch.
      caps_batches: after the ramp an update has at most as many batches as the run.
      whole_ramp: the ramp of the batches of an update ends at an integer.
      clip_norm: limit of the norm of all gradients together.
      bias_first: the warm-up treats the first group, which holds the weights, as the biases.
      auto: the optimizers that "auto" selects for up to 10,000 iterations, and for more.
      musgd: the ratios ``muon`` and ``sgd`` of MuSGD for up to 10,000 iterations, and for more;
        None if there is no MuSGD.
      has_rmsprop: "RMSProp" is torch's; otherwise it is SGD without Nesterov momentum.
    """

    lags: bool = True
    saves_first: bool = False
    drops: bool = True
    warmup_floor: int = 100
    short_warmup: bool = False
    open_warmup: bool = False
    caps_batches: bool = False
    whole_ramp: bool = False
    clip_norm: float | None = 10.0
    bias_first: bool = False
    auto: tuple[str, str] = ("AdamW", "SGD")
    musgd: tuple[tuple[float, float], tuple[float, float]] | None = None
    has_rmsprop: bool = True


def require_arguments(arguments: Mapping[str, Any]) -> None:
    """Refuse arguments that are invalid for both policies."""
    require_run(**{name: arguments[name] for name in ("epochs", "steps_per_epoch", "start_epoch")})
    require_count("batch_size", arguments["batch_size"], at_least=1)
    require_bool(**{name: arguments[name] for name in ("cos_lr", "resumed")})


def build(
    origin: tuple[Callable[..., Recipe], Mapping[str, Any]],
    release: Version,
    hyp: Mapping[str, Any],
    *,
    optimizer: str,
    warmup: int,
    nbs: float,
    batches: int,
    ratios: tuple[float, float] = (0.5, 0.5),
) -> Recipe:
    """Build the recipe of an original.

    Args:
      origin: the policy and its arguments.
      release: the differences of the release.
      hyp: the hyperparameters, with the scaled decay.
      optimizer: the optimizer's name.
      warmup: iterations of the warm-up.
      nbs: the nominal batch size, to which the policy accumulates.
      batches: batches of an update after the ramp.
      ratios: ``muon`` and ``sgd`` of MuSGD.
    """
    run = origin[1]
    epochs, steps_per_epoch = run["epochs"], run["steps_per_epoch"]
    start = run["start_epoch"] * steps_per_epoch
    factor = (schedules.one_cycle if run["cos_lr"] else schedules.linear)(epochs, lrf=hyp["lrf"])

    def rate(lr0: Any) -> Schedule:
        if release.lags:
            return lagging_rate(lr0, factor, warmup, run, saves_first=release.saves_first)
        return schedules.per_epoch(lambda_lr(lr0, factor), steps_per_epoch)

    rule, nesterov = optimizer, True
    if optimizer == "RMSProp" and not release.has_rmsprop:
        rule, nesterov = "SGD", False
    is_muon = rule == "MuSGD"
    build_groups = functools.partial(
        groups,
        hyp=hyp,
        warmup=warmup,
        optimizer=rule,
        labels=MUON_LABELS if is_muon else LABELS,
        nesterov=nesterov,
        ratios=ratios,
    )
    bias_label = "weight" if release.bias_first else "bias"
    if is_muon:
        heads = build_groups(rate(hyp["lr0"] * HEAD_FACTOR), bias_label=bias_label)
        # The original's first group is one of the head's.
        others = build_groups(rate(hyp["lr0"]), bias_label="" if release.bias_first else "bias")
        by_label = {**others, **{f"{label}_head": group for label, group in heads.items()}}
    else:
        by_label = build_groups(rate(hyp["lr0"]), bias_label=bias_label)

    if release.caps_batches:
        batches = min(batches, steps_per_epoch * epochs)
    ramp_end = batches if release.whole_ramp else nbs / run["batch_size"]
    last = warmup - 1
    ramp = schedules.batch_ramp(warmup, end=ramp_end, then=batches)
    if release.open_warmup and warmup:
        if run["resumed"] or start <= last:
            until = (last // steps_per_epoch + 1) * steps_per_epoch
            by_label = hold_last(by_label, last, until=until)
        # The process of the warm-up continues with this; a later one has the nominal number.
        stays = max(1.0, float(np.interp(last, [0, warmup], [1, ramp_end]).round()))
        before = schedules.batch_ramp(warmup, end=ramp_end, then=stays)
    else:
        before = ramp
    drop = steps_per_epoch if release.drops else None
    accumulation = optimizers.Accumulation(before, drop, last_update=-1)
    updates = 0
    if run["resumed"] and start:
        updates = int(accumulation.simulate(0, start)["stepped"].sum())
    if start > last:
        accumulation = optimizers.Accumulation(ramp, drop, last_update=-1)
    return Recipe(
        by_label,
        UPDATE_RULES[rule],
        clip_norm=release.clip_norm,
        accumulation=accumulation,
        ema=optimizers.EMA(updates=updates),
        start=start,
        length=epochs * steps_per_epoch,
        origin=origin,
    )


def hold_last(groups: Groups, last: int, *, until: int) -> dict[str, dict[str, Any]]:
    """Hold rate and momentum at the warm-up's ``last`` iteration; the rate until ``until``."""
    ends = {"learning_rate": until, "momentum": None}
    return {
        label: {
            name: schedules.hold(value, at=last, until=ends[name]) if name in ends else value
            for name, value in group.items()
        }
        for label, group in groups.items()
    }


def lagging_rate(
    lr0: Hyperparameter,
    factor: Schedule,
    warmup: Any,
    run: Mapping[str, Any],
    *,
    saves_first: bool = False,
) -> Schedule:
    """Return the rate of a policy whose scheduler steps at each epoch's end, and so lags.

    Until iteration ``warmup`` the warm-up writes the rate, toward the current epoch's; the rate lags
    from the next epoch on. ``run`` holds the policy's arguments: a process that starts in
    ``start_epoch`` is ``resumed`` if it has its predecessor's optimizer state, ``saves_first`` if that
    was saved before the scheduler's step.
    """
    steps_per_epoch, start_epoch = run["steps_per_epoch"], run["start_epoch"]
    rate = lambda_lr(lr0, factor)
    lagging = schedules.lagged(rate, after=warmup // steps_per_epoch)
    if not is_zero(start_epoch):
        # After the warm-up nothing overwrites the optimizer's first rate.
        late = start_epoch * steps_per_epoch > warmup
        if not run["resumed"]:  # LambdaLR sets the rate of epoch 0 in a new optimizer
            first = schedules.shift(rate, start_epoch)
            lagging = schedules.override(lagging, first, at=start_epoch, when=late)
        elif saves_first:
            before = schedules.shift(lagging, 1)
            lagging = schedules.override(lagging, before, at=start_epoch, when=late)
    return schedules.per_epoch(lagging, steps_per_epoch)


def groups(
    rate: Schedule,
    hyp: Mapping[str, Any],
    warmup: Any,
    *,
    optimizer: str = "SGD",
    bias_label: str = "bias",
    labels: Sequence[str] = LABELS,
    nesterov: bool = True,
    ratios: tuple[float, float] = (0.5, 0.5),
) -> dict[str, dict[str, Any]]:
    """Return the groups of an original, with a warm-up of ``warmup`` iterations toward ``rate``.

    The rate's warm-up starts from ``warmup_bias_lr`` in the group ``bias_label`` and from 0 in the
    others. ``momentum`` is the momentum after the warm-up or, for Adam, a constant b1. Only "weight"
    and "muon" decay.
    """
    moment: dict[str, Any] = {"b1": hyp["momentum"], "b2": 0.999}
    if optimizer in WITH_MOMENTUM:
        after = schedules.constant(hyp["momentum"])
        momentum = schedules.warmup(after, warmup, start=hyp["warmup_momentum"])
        moment = {"momentum": momentum}
    if optimizer in ("SGD", "MuSGD"):
        moment["nesterov"] = nesterov
    rising = schedules.warmup(rate, warmup, start=0.0)
    falling = schedules.warmup(rate, warmup, start=hyp["warmup_bias_lr"])

    def muon_arguments(label: str) -> dict[str, Any]:
        if label == "muon":
            return {"use_muon": True, "muon": ratios[0], "sgd": ratios[1]}
        return {"use_muon": False} if optimizer == "MuSGD" else {}

    return {
        label: {
            "learning_rate": falling if label == bias_label else rising,
            "weight_decay": hyp["weight_decay"] if label in ("weight", "muon") else 0.0,
            **moment,
            **muon_arguments(label),
        }
        for label in labels
    }
