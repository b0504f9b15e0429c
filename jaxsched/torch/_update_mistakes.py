"""The usual mistakes of an update, the simplest first.

Those of the schedules count batches; 0 is the first. The rest counts updates.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxsched import optimizers
from jaxsched.torch import _wrong_rules as wrong_rules
from jaxsched.torch._update_causes import Arrays, Case, Mistake, Numbers, clipped, scaled, shown
from jaxsched.torch._wrong_rules import coupled, decoupled, of_adam, right

USUAL = {
    "weight_decay": (1e-2, 5e-4, 1e-4, 1e-3, 5e-5, 1e-5, 0.05, 0.1, 0.3),
    "momentum": (0.9, 0.99, 0.95, 0.937, 0.8, 0.5, 0.0),
    "b1": (0.9, 0.95, 0.937, 0.8, 0.5, 0.0),
    "b2": (0.999, 0.99, 0.95, 0.98, 0.9, 0.9999),
    "alpha": (0.99, 0.9, 0.999, 0.95),
    "eps": (1e-8, 1e-7, 1e-10, 1e-6, 1e-5, 1e-3, 1e-12, 0.0),
    "initial_accumulator_value": (0.0, 0.1),
    "lr_decay": (0.0,),
    "momentum_decay": (0.0,),
}
"""What others take where torch takes its own: the defaults of frameworks and of papers."""

CLIPS = (1.0, 10.0, 5.0, 0.5, 0.1)
"""Norms that a clip may have where torch has none."""

CALLED = {
    "weight_decay": "weight decay",
    "momentum": "momentum",
    "b1": "beta1",
    "b2": "beta2",
    "alpha": "alpha",
    "eps": "epsilon",
    "initial_accumulator_value": "initial accumulator",
    "lr_decay": "lr_decay",
    "momentum_decay": "momentum_decay",
}


def mistakes(case: Case) -> Iterator[Mistake]:
    """All of this file's that the reference's rule has a place for."""
    yield from _decay(case)
    yield from _gradients(case)
    if case.rule is optimizers.sgd:
        yield from _sgd(case)
    if case.rule in (optimizers.adam, optimizers.adamw, optimizers.nadam):
        yield from _adam(case)
    if case.rule in (optimizers.rmsprop, optimizers.adagrad):
        yield from _of_rms(case)
    yield from _schedules(case)
    yield from _others(case)
    yield from _precision(case)
    yield from _groups(case)


def _set(name: str, value: Any) -> Callable[[str, Numbers], Numbers]:
    """One argument everywhere another number, or switch."""

    def changed(leaf: str, numbers: Numbers) -> Numbers:
        old = numbers[name]
        new = np.full_like(old, value) if isinstance(old, np.ndarray) else value
        return {**numbers, name: new}

    return changed


def _all(numbers: Numbers, **values: float) -> Numbers:
    """Some arguments, throughout."""
    return {**numbers, **{k: np.full_like(numbers[k], v) for k, v in values.items()}}


def _columns(case: Case, name: str) -> dict[str, np.ndarray]:
    """An argument of each group that has it as a number."""
    groups = {label: case.numbers(label) for label in dict.fromkeys(case.labels.values())}
    return {
        label: group[name]
        for label, group in groups.items()
        if isinstance(group.get(name), np.ndarray)
    }


def _switch(case: Case, name: str) -> bool:
    """Whether any group has a switch on."""
    return any(group.get(name) is True for group in case.rows[0].values())


def _decay(case: Case) -> Iterator[Mistake]:
    columns = _columns(case, "weight_decay")
    if not columns:
        return
    build = right(case.rule)
    always = (optimizers.adamw, optimizers.muon, optimizers.adafactor)
    apart = case.rule in always or _switch(case, "decoupled_weight_decay")
    decays = [column for column in columns.values() if column.any()]
    if decays:
        yield Mistake("weight decay missing", numbers=_set("weight_decay", 0.0))

    def spread(decay: np.ndarray) -> Callable[[str, Numbers], Numbers | None]:
        def changed(leaf: str, numbers: Numbers) -> Numbers | None:
            none = not numbers["weight_decay"].any()
            return {**numbers, "weight_decay": decay} if none else None

        return changed

    for decay in {column.tobytes(): column for column in decays}.values():
        # What moves has no one value to show.
        value = f": {shown(decay[0])} for 0" if (decay == decay[0]).all() else ""
        yield Mistake(f"weight decay applied to other groups{value}", numbers=spread(decay))
    if decays and apart:
        yield Mistake("coupled for decoupled weight decay", coupled(build))
    elif decays:
        yield Mistake(
            "decoupled for coupled weight decay, which comes after the momentum", decoupled(build)
        )
    if decays:
        yield Mistake(
            "decoupled weight decay that the learning rate does not scale", decoupled(build, False)
        )
    if len(decays) < len(columns):
        for value in USUAL["weight_decay"]:
            numbers = spread(np.full(case.updates, value))
            told = f"weight decay where torch has none: {shown(value)}"
            yield Mistake(told, numbers=numbers)
            if not apart:
                decoupled_too = f"decoupled weight decay where torch has none: {shown(value)}"
                yield Mistake(decoupled_too, decoupled(build), numbers)


def _gradients(case: Case) -> Iterator[Mistake]:
    def together(mean: bool, dtype: Any) -> Callable[[], Arrays]:
        def made() -> Arrays:
            sums = {leaf: _accumulated(case.batches[leaf], mean, dtype) for leaf in case.labels}
            share = 1 / case.accumulation if mean else 1.0
            return clipped(case, sums, {k: share**2 * case.squares[k][:, -1] for k in sums})

        return made

    climbs = "descends" if _switch(case, "maximize") else "ascends"
    yield Mistake(
        f"maximize: it {climbs} where torch does not",
        gradients=lambda: {leaf: -g for leaf, g in clipped(case, case.summed).items()},
    )
    if case.accumulation > 1:
        told = "gradients averaged, not summed, under accumulation"
        yield Mistake(told, gradients=together(True, np.float64))
        # What optax.MultiSteps does unless it is given an accumulator_dtype.
        yield Mistake(f"{told}: and in float32", gradients=together(True, np.float32))
        yield Mistake(
            "gradients accumulated in float32, optax.MultiSteps' accumulator_dtype",
            gradients=together(False, np.float32),
        )
    if case.clip_norm is not None:
        yield from _clips(case, case.clip_norm)
        return
    for most in CLIPS:
        yield Mistake(
            f"clip where torch has none: norm {shown(most)}",
            gradients=lambda most=most: clipped(case, case.summed, most=most),
        )


def _accumulated(batches: np.ndarray, mean: bool, dtype: Any) -> np.ndarray:
    """The gradients (updates, accumulation, …) of each update, kept in a dtype until the last."""
    total = batches[:, 0]
    for k in range(1, batches.shape[1]):
        gradient, kept = batches[:, k], total.astype(dtype).astype(np.float64)
        total = kept + ((gradient - kept) / (k + 1) if mean else gradient)
    return total


def _clips(case: Case, most: float) -> Iterator[Mistake]:
    def each_batch() -> Arrays:
        """All batches in a row, and put together again."""
        shapes = {leaf: case.batches[leaf].shape for leaf in case.labels}
        flat = {k: case.batches[k].reshape(-1, *shape[2:]) for k, shape in shapes.items()}
        squares = {leaf: case.squares[leaf][:, :-1].ravel() for leaf in shapes}
        held = clipped(case, flat, squares)
        return {leaf: held[leaf].reshape(shape).sum(1) for leaf, shape in shapes.items()}

    def of_optax() -> Arrays:
        norm = np.sqrt(np.sum([case.squares[leaf][:, -1] for leaf in case.labels], 0))
        return {k: scaled(g, np.minimum(most / norm, 1)) for k, g in case.summed.items()}

    yield Mistake("clip missing", gradients=lambda: case.summed)
    if len(set(case.labels.values())) > 1:
        yield Mistake(
            "clip inside the partition, each group by itself",
            gradients=lambda: clipped(case, case.summed, together=case.labels.__getitem__),
        )
    yield Mistake(
        "clip of each parameter by itself",
        gradients=lambda: clipped(case, case.summed, together=lambda leaf: leaf),
    )
    yield Mistake(
        "clip of each entry by itself, as optax.clip has it",
        gradients=lambda: {k: np.clip(g, -most, most) for k, g in case.summed.items()},
    )
    if len(case.batches) > len(case.labels):
        every = {leaf: square[:, -1] for leaf, square in case.squares.items()}
        yield Mistake(
            "clip by a norm that counts what is frozen",
            gradients=lambda: clipped(case, case.summed, every),
        )
    if case.accumulation > 1:
        yield Mistake("clip of each batch's gradients, not of their sum", gradients=each_batch)
    yield Mistake(
        "clip by optax.clip_by_global_norm, which has not torch's 1e-6", gradients=of_optax
    )


def _sgd(case: Case) -> Iterator[Mistake]:
    momenta = _columns(case, "momentum").values()
    if _switch(case, "nesterov"):
        yield Mistake("no Nesterov", numbers=_set("nesterov", False))
    if not any(column.any() for column in momenta):
        return

    def ahead(leaf: str, numbers: Numbers) -> Numbers:
        moves = numbers["momentum"].any() and not numbers["dampening"].any()
        return {**numbers, "nesterov": True} if moves else numbers

    if not all(group["nesterov"] for group in case.rows[0].values()):
        yield Mistake("Nesterov where torch has none", numbers=ahead)
    if any(column.any() for column in _columns(case, "dampening").values()):
        yield Mistake("dampening missing", numbers=_set("dampening", 0.0))
    yield Mistake("momentum buffer started from zeros", wrong_rules.from_zeros)
    yield Mistake("momentum missing", numbers=_set("momentum", 0.0))
    if any((column != column[0]).any() for column in momenta):

        def held(leaf: str, numbers: Numbers) -> Numbers:
            return _all(numbers, momentum=numbers["momentum"][-1])

        yield Mistake("momentum not warmed up", numbers=held)
    told = "momentum as an average, dampened by 1 - momentum"
    yield Mistake(f"{told}: from zeros, as optax.ema has it", wrong_rules.averaging)
    yield Mistake(f"{told}: with its bias corrected", wrong_rules.averaging_unbiased)
    if not _switch(case, "nesterov"):
        yield Mistake(
            f"{told}: from the first gradient on",
            numbers=lambda _, numbers: {**numbers, "dampening": numbers["momentum"]},
        )
    told = "the learning rate kept inside the momentum buffer"
    yield Mistake(f"{told}: one moves late", wrong_rules.rate_inside)
    yield Mistake(f"{told}: and started from zeros", wrong_rules.rate_inside_from_zeros)


def _adam(case: Case) -> Iterator[Mistake]:
    apart = case.rule is optimizers.adamw or _switch(case, "decoupled_weight_decay")
    yield Mistake(
        "beta1 and beta2 swapped",
        numbers=lambda _, numbers: {**numbers, "b1": numbers["b2"], "b2": numbers["b1"]},
    )
    if case.rule is optimizers.nadam:
        yield Mistake("no Nesterov", wrong_rules.without_nesterov(apart))
        return
    told = "bias correction missing"
    places = "epsilon in another place"
    for sentence, step in {
        told: wrong_rules.uncorrected,
        f"{told}: of the first moment": wrong_rules.first_uncorrected,
        f"{told}: of the second moment": wrong_rules.second_uncorrected,
        f"{places}: under the root": wrong_rules.eps_inside,
        f"{places}: before the bias correction": wrong_rules.eps_early,
        f"{places}: under the root, before the bias correction": wrong_rules.eps_early_inside,
        f"{places}: under the root and outside it, eps_root and eps": wrong_rules.eps_twice,
        "Nesterov where torch has none": wrong_rules.looking_ahead,
        "float32 bias correction": wrong_rules.corrected_in_float32,
    }.items():
        if not _switch(case, "amsgrad"):
            yield Mistake(sentence, of_adam(step, apart))
    if _switch(case, "amsgrad"):
        yield Mistake("AMSGrad missing", numbers=_set("amsgrad", False))
        yield Mistake(
            "AMSGrad's maximum taken after the bias correction",
            of_adam(wrong_rules.largest_corrected, apart),
        )
    else:
        yield Mistake("AMSGrad where torch has none", numbers=_set("amsgrad", True))


def _of_rms(case: Case) -> Iterator[Mistake]:
    place = "epsilon in another place: under the root"
    if case.rule is optimizers.adagrad:
        yield Mistake(place, wrong_rules.adagrad_eps_inside)
        yield Mistake(
            "optax.adagrad's defaults: accumulator 0.1, epsilon 1e-07 under the root",
            wrong_rules.adagrad_eps_inside,
            lambda _, numbers: _all(numbers, initial_accumulator_value=0.1, eps=1e-7),
        )
        return
    yield Mistake(place, wrong_rules.rmsprop_eps_inside)
    yield Mistake(
        "optax.rmsprop's defaults: decay 0.9, epsilon 1e-08 under the root",
        wrong_rules.rmsprop_of_optax,
        lambda _, numbers: _all(numbers, alpha=0.9, eps=1e-8),
    )
    moves = any(column.any() for column in _columns(case, "momentum").values())
    if moves:
        told = "the learning rate kept inside the momentum buffer"
        yield Mistake(told, wrong_rules.rmsprop_rate_inside)
        yield Mistake(f"{told}: and epsilon under the root", wrong_rules.rmsprop_of_optax)
        yield Mistake("momentum missing", numbers=_set("momentum", 0.0))
    centered = _switch(case, "centered")
    sentence = "not centered" if centered else "centered where torch's is not"
    yield Mistake(sentence, numbers=_set("centered", not centered))


def _schedules(case: Case) -> Iterator[Mistake]:
    if len(case.rows) < 2:
        return
    iterations, every = case.iterations, case.steps_per_epoch

    def at(steps: np.ndarray) -> Callable[[str, Numbers], Numbers]:
        return lambda leaf, _: case.numbers(case.labels[leaf], steps)

    for side, name in ((-1, "late"), (1, "early")):
        shifts = {"update": side * case.accumulation, "iteration": side}
        for clock, shift in shifts.items():
            if clock == "update" or case.accumulation > 1:
                yield Mistake(
                    f"schedule off by one {clock}: one {clock} {name}",
                    numbers=at(np.maximum(iterations + shift, 0) // every),
                )
    for side, name in ((-1, "late"), (1, "early, before the optimizer")):
        if every > 1:
            yield Mistake(
                f"schedule off by one epoch: one step of the scheduler {name}",
                numbers=at(np.maximum(iterations // every + side, 0)),
            )
    if case.accumulation > 1:
        yield Mistake(
            "updates counted for iterations", numbers=at(np.arange(case.updates) // every)
        )
    if every > 1:
        # Past the scheduler's end nothing is known.
        if iterations[-1] < len(case.rows):
            yield Mistake("per-iteration for per-epoch schedule", numbers=at(iterations))
        if case.accumulation > 1 and case.updates <= len(case.rows):
            updates = np.arange(case.updates)
            yield Mistake("per-update for per-epoch schedule", numbers=at(updates))


def _others(case: Case) -> Iterator[Mistake]:
    """Another number, throughout."""
    for name, values in USUAL.items():
        columns = [column for column in _columns(case, name).values() if column.any()]
        if name == "initial_accumulator_value":
            columns = list(_columns(case, name).values())
        if not columns:
            continue
        first = shown(columns[0][0])
        for value in values:
            told = f"another {CALLED[name]}: {shown(value)} for {first}"

            def numbers(leaf: str, given: Numbers, name: str = name, value: float = value) -> Any:
                none = name == "weight_decay" and not given[name].any()
                return given if none else _set(name, value)(leaf, given)

            if not all((column == value).all() for column in columns):
                yield Mistake(told, numbers=numbers)


def _precision(case: Case) -> Iterator[Mistake]:
    def cast(dtype: Any, only: str | None) -> Callable[[str, Numbers], Numbers]:
        def changed(leaf: str, numbers: Numbers) -> Numbers:
            return {
                name: v.astype(dtype).astype(np.float64)
                if isinstance(v, np.ndarray) and only in (None, name)
                else v
                for name, v in numbers.items()
            }

        return changed

    names = [name for group in case.rows[0].values() for name in group]
    for dtype, name in ((np.float32, "float32"), (jnp.bfloat16, "bfloat16")):
        yield Mistake(f"{name} hyperparameters", numbers=cast(dtype, None))
        for only in dict.fromkeys(names):
            yield Mistake(f"{name} hyperparameters: {only}", numbers=cast(dtype, only))


def _groups(case: Case) -> Iterator[Mistake]:
    """What is in one group taken for what is in another, or for what is trained at all."""
    labels = list(dict.fromkeys(case.labels.values()))
    frozen = [leaf for leaf in case.batches if leaf not in case.labels]
    if frozen:
        every = {leaf: g.sum(1) for leaf, g in case.batches.items()}
        for label in labels:
            yield Mistake(
                f"what torch's optimizer does not train is trained: with group {label}",
                numbers=lambda leaf, given, label=label: given or case.numbers(label),
                gradients=lambda: clipped(case, every),
            )
    if len(labels) > 1:
        for label in labels:
            yield Mistake(
                f"a parameter in another group: {label}",
                numbers=lambda leaf, _, label=label: case.numbers(label),
            )
