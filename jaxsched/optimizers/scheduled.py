"""Hyperparameters that move: one counter, one place to read them.

``scheduled`` counts its own calls; 0 (or ``start``) is the first.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, ParamSpec

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxsched.float64 import computed
from jaxsched.optimizers.arithmetic import computed_once
from jaxsched.schedules import as_float64, is_number

P = ParamSpec("P")
Values = Mapping[str, Mapping[str, Any]]
"""``{label: {name: value}}``; a value is a Python constant or a float64 array."""


class ScheduledState(NamedTuple):
    """State of ``scheduled``.

    Attributes:
      iteration: the count of the next call, int32.
      hyperparameters: ``{label: {name: value}}`` in force at the last call;
        before the first, those of the first.
      inner: the state of the update rules.
    """

    iteration: jax.Array
    hyperparameters: dict[str, dict[str, jax.Array]]
    inner: optax.OptState


def rounded(value: Any) -> Any:
    """A number or array as float32 (float64 with x64); other values as they are."""
    dtype = jnp.result_type(float)
    if not is_number(value) and not isinstance(value, jax.Array):
        return value
    with jax.enable_x64(True):
        return jnp.asarray(value).astype(dtype)


def numbers_only(values: Values) -> dict[str, dict[str, jax.Array]]:
    """The numbers among ``values``, rounded; switches are left out."""
    return {
        label: {
            name: rounded(value)
            for name, value in group.items()
            if is_number(value) or isinstance(value, jax.Array)
        }
        for label, group in values.items()
    }


def evaluate(groups: Values, count: jax.typing.ArrayLike) -> dict[str, dict[str, Any]]:
    """``groups`` at ``count``: schedules as float64 arrays, the rest as it stands.

    A schedule that several groups share is evaluated once. It receives the count
    in int64, for a schedule of the user's own that divides an int32 gets float32.
    """

    def values() -> list[list[Any]]:
        counted = jnp.asarray(count)
        if jnp.issubdtype(counted.dtype, jnp.integer):
            counted = counted.astype(jnp.int64)
        known: dict[int, jax.Array] = {}

        def value(entry: Any) -> Any:
            if callable(entry):
                if id(entry) not in known:
                    known[id(entry)] = jnp.asarray(entry(counted)).astype(jnp.float64)
                return known[id(entry)]
            fixed = isinstance(entry, int | str | tuple) or entry is None
            return entry if fixed else as_float64(entry)

        # Lists, for a dictionary comes sorted out of what JAX has made of it.
        return [[value(entry) for entry in group.values()] for group in groups.values()]

    return {
        label: dict(zip(group, found, strict=True))
        for (label, group), found in zip(groups.items(), computed(values), strict=True)
    }


def scheduled(
    groups: Values,
    build: Callable[[Any, dict[str, dict[str, Any]]], optax.GradientTransformation],
    *,
    start: int = 0,
) -> optax.GradientTransformationExtraArgs:
    """A transformation whose hyperparameters are schedules of one counter.

    Args:
      groups: ``{label: {name: value}}``, each value a number, a schedule or a
        switch.
      build: from an iteration and its values to the transformation that makes
        its update. Schedules reach it as float64 scalars, numbers as Python
        floats. The state that it keeps must not depend on the values.
      start: the count of the first call.
    """

    def init(params: optax.Params) -> Any:
        values = evaluate(groups, start)
        iteration = jnp.asarray(start, jnp.int32)
        return ScheduledState(
            iteration, numbers_only(values), build(iteration, values).init(params)
        )

    def update(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        **extra_args: Any,
    ) -> tuple[Any, Any]:
        values = evaluate(groups, state.iteration)
        with jax.enable_x64(True):
            values = {
                label: group
                | computed_once(
                    {k: v for k, v in group.items() if isinstance(v, jax.Array)}, state.iteration
                )
                for label, group in values.items()
            }
        rules = optax.with_extra_args_support(build(state.iteration, values))
        updates, inner = rules.update(updates, state.inner, params, **extra_args)
        iteration: Any = optax.safe_increment(state.iteration)
        return updates, ScheduledState(iteration, numbers_only(values), inner)

    return optax.GradientTransformationExtraArgs(init, update)


def schedulable(
    rule: Callable[P, optax.GradientTransformationExtraArgs],
) -> Callable[P, optax.GradientTransformationExtraArgs]:
    """Lets every number of an update rule be a schedule of its updates.

    With none, ``rule`` itself is returned; with some, ``scheduled``, whose
    hyperparameters are labelled ``"all"``.
    """
    signature = inspect.signature(rule)

    @functools.wraps(rule)
    def factory(*args: P.args, **kwargs: P.kwargs) -> optax.GradientTransformationExtraArgs:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        if not any(callable(value) for value in bound.arguments.values()):
            return rule(*args, **kwargs)
        untyped: Callable[..., Any] = rule
        return scheduled({"all": bound.arguments}, lambda _, values: untyped(**values["all"]))

    # Recipe reads it: a rule of another library gets its values rounded.
    factory.__dict__["takes_float64"] = True
    return factory


def hyperparameters(opt_state: Any) -> dict[str, dict[str, jax.Array]]:
    """The hyperparameters in force at the last iteration.

    Args:
      opt_state: the state of ``recipe.optimizer(...)`` or of a rule with a
        schedule, however wrapped: inside ``optax.chain`` or
        ``optax.apply_if_finite``, as an ``nnx.Optimizer`` or a ``TrainState``. Or,
        where there is none of ours, that of ``optax.inject_hyperparams``.

    Returns:
      ``{label: {name: value}}``, float32 scalars (float64 with x64). Before the
      first update, the values of the first. What ``optax.inject_hyperparams``
      tells has the label of ``optax.multi_transform`` around it, else ``"all"``.

    Raises:
      ValueError: the state holds no such hyperparameters, or one of a label twice.

    >>> from jaxsched.optimizers import sgd
    >>> tx = sgd(lambda count: 0.5 / (1 + count))
    >>> state = tx.init({"kernel": jnp.ones(3)})
    >>> float(hyperparameters(state)["all"]["learning_rate"])
    0.5
    """
    opt_state = getattr(opt_state, "opt_state", opt_state)
    found = _ours(opt_state) or _injected(opt_state)
    if not found:
        raise ValueError(
            f"opt_state must hold the state of a jaxsched optimizer, got {type(opt_state).__name__} "
            "without one. Pass the state of recipe.optimizer(labels)."
        )
    values: dict[str, dict[str, jax.Array]] = {}
    for label, group in found:
        known = values.setdefault(label, {})
        if twice := sorted(set(known) & set(group)):
            raise ValueError(
                f"opt_state must tell each hyperparameter of a label once, got {twice[0]} of "
                f"{label} twice. Pass one optimizer's state at a time."
            )
        known |= {name: jnp.asarray(value) for name, value in group.items()}
    return values


def _ours(opt_state: Any) -> list[tuple[str, Mapping[str, Any]]]:
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda n: isinstance(n, ScheduledState))
    states = [leaf for leaf in leaves if isinstance(leaf, ScheduledState)]
    return [entry for state in states for entry in state.hyperparameters.items()]


def _injected(opt_state: Any) -> list[tuple[str, Mapping[str, Any]]]:
    """What ``optax.inject_hyperparams`` tells: its states are those with ``hyperparams``."""

    def tells(node: Any) -> bool:
        return isinstance(getattr(node, "hyperparams", None), Mapping)

    nodes = jax.tree_util.tree_flatten_with_path(opt_state, is_leaf=tells)[0]
    return [
        (
            next((str(key.key) for key in reversed(path) if hasattr(key, "key")), "all"),
            {
                name: value
                for name, value in node.hyperparams.items()
                if is_number(value) or isinstance(value, jax.Array | np.ndarray)
            },
        )
        for path, node in nodes
        if tells(node)
    ]
