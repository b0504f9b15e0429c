"""Update rules beside torch's: the arguments that are tried, and a run of both on the same gradients.

An argument is a constant, or an array: its value at each of ``UPDATES`` updates.
"""

import dataclasses
import functools
import inspect
import itertools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from musgd_torch import MuSGD

from jaxsched import optimizers
from jaxsched.schedules import table

UPDATES = 200

ANY = {"matrix": (7, 5), "vector": (5,), "tensor": (3, 3, 4)}
MATRICES = {"tall": (7, 5), "wide": (4, 6), "square": (5, 5)}

PAIRS = {
    "betas": ("b1", "b2"),
    "etas": ("eta_minus", "eta_plus"),
    "step_sizes": ("step_size_min", "step_size_max"),
    "eps": ("eps1", "eps2"),
}
"""torch's arguments that hold two numbers."""


def half_cosine(first: float, last: float, *zeros: int) -> np.ndarray:
    """Return half a cosine from the first value to the last, and 0 at the updates ``zeros``."""
    values = last + (first - last) * (1 + np.cos(np.pi * np.arange(UPDATES) / UPDATES)) / 2
    values[list(zeros)] = 0.0
    return values


RATES = {"small": half_cosine(1e-4, 1e-6), "large": half_cosine(1.0, 0.01)}
"""Four decades apart; each varies."""

MOMENTUM = half_cosine(0.95, 0.3, 40, 41, 120)
BETAS = {"b1": half_cosine(0.95, 0.3, 40, 120), "b2": half_cosine(0.9, 0.999)}
DECAY = half_cosine(0.1, 0.01, 50)


@dataclasses.dataclass(frozen=True)
class Rule:
    """An update rule, torch's class, and the arguments that are tried.

    Attributes:
      ours: the function of ``jaxsched.optimizers``.
      theirs: torch's class.
      options: sequences of arguments, of which every combination is tried.
      closest: Optax's nearest function, called with our arguments; or None.
      shapes: shapes of the parameters.
    """

    ours: Callable[..., Any]
    theirs: type[torch.optim.Optimizer]
    options: tuple[tuple[Mapping[str, Any], ...], ...]
    closest: Callable[..., optax.GradientTransformation] | None = None
    shapes: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=lambda: ANY)

    @property
    def name(self) -> str:
        return self.ours.__name__

    def settings(self) -> list[dict[str, Any]]:
        """Return every combination of the options, half of them ascending, half at each rate."""
        combinations = [
            {name: value for part in parts for name, value in part.items()}
            for parts in itertools.product(*self.options)
        ]
        rng = np.random.default_rng(1)
        half = np.arange(len(combinations)) % 2
        large, ascends = rng.permutation(half), rng.permutation(half)
        if "maximize" not in inspect.signature(self.ours).parameters:
            ascends[:] = 0
        return [
            {
                "learning_rate": RATES["large" if is_large else "small"],
                **combination,
                **({"maximize": True} if up else {}),
            }
            for combination, is_large, up in zip(combinations, large, ascends, strict=True)
        ]


def switch(name: str) -> tuple[dict[str, bool], ...]:
    return {}, {name: True}


def use_torch_layout(rule: Callable[..., Any]) -> Callable[..., Any]:
    """Return the rule for parameters that have torch's shapes here."""
    partial: Any = functools.partial(rule, layout="torch")
    partial.__name__ = rule.__name__
    return partial


COUPLED = ({}, {"weight_decay": 0.1})
EITHER_DECAY = ({}, {"weight_decay": DECAY}, {"weight_decay": 0.1, "decoupled_weight_decay": True})
ADAM_BETAS = ({}, BETAS)

RULES = {
    rule.name: rule
    for rule in [
        Rule(
            optimizers.sgd,
            torch.optim.SGD,
            (
                ({}, {"momentum": MOMENTUM, "nesterov": True}, {"momentum": 0.9, "dampening": 0.5}),
                COUPLED,
            ),
            lambda learning_rate, momentum=0.0, nesterov=False: optax.inject_hyperparams(optax.sgd)(
                learning_rate, momentum, nesterov=nesterov
            ),
        ),
        Rule(
            optimizers.adam,
            torch.optim.Adam,
            (switch("amsgrad"), EITHER_DECAY, ADAM_BETAS),
            lambda learning_rate, amsgrad=False, b1=0.9, b2=0.999: optax.inject_hyperparams(
                optax.amsgrad if amsgrad else optax.adam
            )(learning_rate, b1, b2),
        ),
        Rule(
            optimizers.adamw,
            torch.optim.AdamW,
            (switch("amsgrad"), ({}, {"weight_decay": DECAY}), ADAM_BETAS),
            lambda learning_rate, weight_decay=1e-2, b1=0.9, b2=0.999: optax.inject_hyperparams(
                optax.adamw
            )(learning_rate, b1, b2, weight_decay=weight_decay),
        ),
        Rule(
            optimizers.nadam,
            torch.optim.NAdam,
            (EITHER_DECAY, ADAM_BETAS, ({}, {"momentum_decay": 0.1})),
            lambda learning_rate, b1=0.9, b2=0.999: optax.inject_hyperparams(optax.nadam)(
                learning_rate, b1, b2
            ),
        ),
        Rule(
            optimizers.radam,
            torch.optim.RAdam,
            (EITHER_DECAY, ADAM_BETAS),
            lambda learning_rate, b1=0.9, b2=0.999: optax.inject_hyperparams(optax.radam)(
                learning_rate, b1, b2
            ),
        ),
        Rule(
            optimizers.adagrad,
            torch.optim.Adagrad,
            (({}, {"lr_decay": 0.01}), COUPLED, ({}, {"initial_accumulator_value": 0.1})),
            lambda learning_rate, initial_accumulator_value=0.0: optax.adagrad(
                learning_rate, initial_accumulator_value, 1e-10
            ),
        ),
        Rule(
            optimizers.adadelta,
            torch.optim.Adadelta,
            (({}, {"rho": half_cosine(0.99, 0.5, 70)}), COUPLED),
            lambda learning_rate, rho=0.9, weight_decay=0.0: optax.inject_hyperparams(
                optax.adadelta
            )(learning_rate, rho, 1e-6, weight_decay),
        ),
        Rule(
            optimizers.adamax,
            torch.optim.Adamax,
            (ADAM_BETAS, COUPLED),
            lambda learning_rate, b1=0.9, b2=0.999: optax.inject_hyperparams(optax.adamax)(
                learning_rate, b1, b2
            ),
        ),
        Rule(
            optimizers.rmsprop,
            torch.optim.RMSprop,
            (
                switch("centered"),
                ({}, {"momentum": MOMENTUM}),
                ({}, {"weight_decay": DECAY, "alpha": half_cosine(0.99, 0.9)}),
            ),
            lambda learning_rate, centered=False, momentum=None: optax.inject_hyperparams(
                optax.rmsprop
            )(
                learning_rate,
                0.99,
                centered=centered,
                momentum=momentum,
                eps_in_sqrt=False,
            ),
        ),
        Rule(
            optimizers.rprop,
            torch.optim.Rprop,
            (
                (
                    {},
                    {"eta_minus": half_cosine(0.5, 0.9), "eta_plus": 1.1},
                    {"step_size_min": 0.01, "step_size_max": half_cosine(2.0, 0.1)},
                ),
            ),
            lambda learning_rate: optax.rprop(float(learning_rate(0))),
        ),
        Rule(
            optimizers.asgd,
            torch.optim.ASGD,
            (({}, {"lambd": 0.01, "alpha": 0.5}), ({}, {"t0": 20.0}), COUPLED),
        ),
        Rule(
            use_torch_layout(optimizers.musgd),
            MuSGD,
            (
                ({}, {"momentum": MOMENTUM, "nesterov": True}, {"momentum": 0.9}),
                ({}, {"weight_decay": DECAY}),
            ),
        ),
        Rule(
            use_torch_layout(optimizers.muon),
            torch.optim.Muon,
            (
                ({}, {"nesterov": False}),
                (
                    {},
                    {
                        "momentum": MOMENTUM,
                        "weight_decay": DECAY,
                        "adjust_lr_fn": "match_rms_adamw",
                    },
                ),
            ),
            lambda learning_rate: optax.contrib.muon(learning_rate, weight_decay=0.1),
            MATRICES,
        ),
        Rule(
            optimizers.adafactor,
            torch.optim.Adafactor,
            (
                ({}, {"weight_decay": DECAY}),
                ({}, {"beta2_decay": -0.5, "d": 2.0}, {"eps1": 1e-3, "eps2": 0.1}),
            ),
            lambda learning_rate: optax.adafactor(learning_rate, min_dim_size_to_factor=2),
        ),
    ]
}


class Run(NamedTuple):
    """Parameters after each update, ``{leaf: array (UPDATES, …)}``, and likewise each entry of the state."""

    params: dict[str, np.ndarray]
    state: dict[str, dict[str, np.ndarray]]


def problem(shapes: Mapping[str, tuple[int, ...]], dtype: Any, seed: int = 0) -> tuple[Any, Any]:
    """Return parameters, and the gradients of all updates."""
    rng = np.random.default_rng(seed)
    start = {leaf: rng.normal(size=shape).astype(dtype) for leaf, shape in shapes.items()}
    gradients = {
        leaf: rng.normal(size=(UPDATES, *shape)).astype(dtype) for leaf, shape in shapes.items()
    }
    return start, gradients


def torch_arguments(rule: Rule, arguments: Mapping[str, Any], update: int) -> dict[str, Any]:
    """Return our arguments at an update, under torch's names."""
    values = {
        name: float(value[update]) if isinstance(value, np.ndarray) else value
        for name, value in arguments.items()
    }
    parameters = inspect.signature(rule.ours).parameters
    for pair, names in PAIRS.items():
        if names[0] in parameters:
            values[pair] = tuple(values.pop(name, parameters[name].default) for name in names)
    values["lr"] = values.pop("learning_rate")
    return values


def torch_run(rule: Rule, arguments: Mapping[str, Any], start: Any, gradients: Any) -> Run:
    parameters = {leaf: torch.tensor(value) for leaf, value in start.items()}
    optimizer = rule.theirs(parameters.values(), **torch_arguments(rule, arguments, 0))
    rows = []
    for update in range(UPDATES):
        optimizer.param_groups[0].update(torch_arguments(rule, arguments, update))
        for leaf, p in parameters.items():
            p.grad = torch.tensor(gradients[leaf][update])
        optimizer.step()
        state = {
            name: {
                leaf: optimizer.state[p][name].numpy().copy()
                for leaf, p in parameters.items()
                if optimizer.state[p].get(name) is not None
            }
            for name in {name for entries in optimizer.state.values() for name in entries}
        }
        rows.append(Run({leaf: p.numpy().copy() for leaf, p in parameters.items()}, state))
    return jax.tree.map(lambda *row: np.stack(row), *rows)


def our_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Return our arguments, with arrays as schedules."""
    return {
        name: table(value) if isinstance(value, np.ndarray) else value
        for name, value in arguments.items()
    }


def closest_run(rule: Rule, arguments: Mapping[str, Any], start: Any, gradients: Any) -> Run | None:
    """Run the nearest Optax function on the same gradients; None if it lacks an argument."""
    if rule.closest is None:
        return None
    try:
        inspect.signature(rule.closest).bind(**arguments)
    except TypeError:
        return None
    return our_run(rule.closest(**our_arguments(arguments)), start, gradients)


def our_state(state: Any, leaves: Any) -> dict[str, dict[str, Any]]:
    """Return a state by torch's names of its entries, each as ``{leaf: array}``."""
    rule = getattr(state, "inner", state)
    shared = {**rule.scalars, "step": rule.step}
    return {
        **{name: dict.fromkeys(leaves, value) for name, value in shared.items()},
        **{
            name: {leaf: value for leaf, value in tree.items() if value is not None}
            for name, tree in rule.trees.items()
        },
    }


def our_run(
    tx: optax.GradientTransformation,
    start: Any,
    gradients: Any,
    *,
    interrupted: Callable[[Any], Any] | None = None,
) -> Run:
    """Run all updates in one compilation; ``interrupted`` is applied to the state half-way."""

    @jax.jit
    def run(carry: Any, gradients: Any) -> Any:
        def step(carry: Any, gradient: Any) -> Any:
            params, state = carry
            updates, state = tx.update(gradient, state, params)
            params = optax.apply_updates(params, updates)
            return (params, state), (params, state)

        return jax.lax.scan(step, carry, gradients)

    params = jax.tree.map(jnp.asarray, start)
    carry, parts = (params, tx.init(params)), []
    for half in np.split(np.arange(UPDATES), 2):
        carry, part = run(carry, {leaf: g[half] for leaf, g in gradients.items()})
        if interrupted is not None:
            carry = interrupted(carry)
        parts.append(part)
    params, state = jax.tree.map(lambda *part: np.concatenate(part), *parts)
    state = our_state(state, start) if hasattr(getattr(state, "inner", state), "trees") else {}
    return Run(params, state)


def relative_distances(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Return, after each update, the largest difference relative to torch's largest entry."""
    axes = tuple(range(1, theirs.ndim))
    difference = np.abs(ours.astype(np.float64) - theirs).max(axes)
    with np.errstate(divide="ignore"):
        return difference / np.where(difference == 0, 1.0, np.abs(theirs).max(axes))


def max_distances(ours: Run, theirs: Run) -> dict[str, float]:
    """Return the largest distance of the parameters and of each entry of torch's state; NaN if any is."""
    pairs = {"params": (ours.params, theirs.params)} | {
        entry: (ours.state[entry], tree) for entry, tree in theirs.state.items() if tree
    }
    return {
        # Python's max would drop a NaN that is not the first.
        name: float(np.max([relative_distances(mine[leaf], tree[leaf]).max() for leaf in tree]))
        for name, (mine, tree) in pairs.items()
    }


def ulps(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Return each entry's distance in spacings of float32 at the larger of the two."""
    size = np.maximum(np.abs(ours), np.abs(theirs))
    return np.abs(ours.astype(np.float64) - theirs) / np.spacing(size).astype(np.float64)
