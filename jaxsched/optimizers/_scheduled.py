"""Scheduled hyperparameters: one counter, and one place to read the values in force.

``Scheduled`` counts its calls; 0 (or ``start``) is the first.
"""

import contextlib
import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextvars import ContextVar
from typing import Any, NamedTuple, ParamSpec

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxsched._float64 import in_float64
from jaxsched._groups import map_groups
from jaxsched._schedule import (
    Formula,
    as_float64,
    float64_formula,
    require_traceable,
    sharing_key,
    widen,
)
from jaxsched._validate import dtype_name, is_number, require_bool
from jaxsched.optimizers._rule import own_kernel

P = ParamSpec("P")
Values = Mapping[str, Mapping[str, Any]]
"""``{label: {name: value}}``; a value is a Python constant or a float64 array."""


class Fixed(NamedTuple):
    """An argument of an update rule that is passed on unchanged, even if it is a function."""

    value: Any


class ScheduledState(NamedTuple):
    """State of ``Scheduled``.

    Attributes:
      iteration: the count of the next call, int32.
      hyperparameters: ``{label: {name: value}}`` in force at the last call; before the first call,
        those of the first.
      inner: the state of the update rules.
    """

    iteration: jax.Array
    hyperparameters: dict[str, dict[str, jax.Array]]
    inner: optax.OptState


def to_default_float(value: Any) -> Any:
    """Return a number or array as float32, or float64 with x64."""
    dtype = jnp.result_type(float)
    with jax.enable_x64(True):
        return jnp.asarray(value).astype(dtype)


def numeric_hyperparameters(values: Values) -> dict[str, dict[str, jax.Array]]:
    """Return the numbers among ``values``, rounded; switches are left out."""
    return {
        label: {
            name: to_default_float(value)
            for name, value in group.items()
            if is_number(value) or isinstance(value, jax.Array)
        }
        for label, group in values.items()
    }


def evaluate_groups(
    groups: Values, count: jax.typing.ArrayLike, *, own_kernels: bool = False
) -> dict[str, dict[str, Any]]:
    """Return ``groups`` at ``count``: schedules as float64 arrays, other values unchanged.

    Equal schedules of several groups are evaluated once. A user's function receives the count in
    int64, since dividing an int32 gives float32.

    Args:
      groups: ``{label: {name: value}}``, each value a number, a schedule or a switch.
      count: the count; may be traced.
      own_kernels: whether each array is computed in its own kernel, as in ``own_kernel``.
    """
    formulas: dict[Any, tuple[str, Formula]] = {}

    def place(label: str, name: str, entry: Any) -> Any:
        # NumPy integers stay: Muon's number of steps is one.
        if entry is None or isinstance(entry, int | np.integer | str | tuple | Fixed):
            return None
        key = sharing_key(entry) if callable(entry) else (label, name)
        formula = float64_formula(entry) if callable(entry) else lambda count: as_float64(entry)
        formulas.setdefault(key, (f"{name} of group {label}", formula))
        return key

    places = map_groups(place, groups)

    def values() -> list[Any]:
        counted, arrays = widen(count), []
        for owner, formula in formulas.values():
            with require_traceable(owner):
                value = formula(counted)
            arrays.append(value if is_number(value) else jnp.asarray(value).astype(jnp.float64))
        return arrays

    arrays = dict(zip(formulas, in_float64(values), strict=True))
    if own_kernels:
        moving = {key: value for key, value in arrays.items() if isinstance(value, jax.Array)}
        with jax.enable_x64(True):
            arrays |= own_kernel(moving, jnp.asarray(count))
    return map_groups(
        lambda label, name, key: groups[label][name] if key is None else arrays[key], places
    )


_start: ContextVar[int | None] = ContextVar("start", default=None)


@contextlib.contextmanager
def start_at(iteration: int | None) -> Iterator[None]:
    """Make ``tx.init`` return the state of ``iteration``, however wrapped; None for the usual one."""
    token = _start.set(iteration)
    try:
        yield
    finally:
        _start.reset(token)


@dataclasses.dataclass(frozen=True)
class Scheduled:
    """A transformation whose hyperparameters are schedules of one counter; it can be pickled.

    Attributes:
      groups: ``{label: {name: value}}``, each value a number, a schedule or a
        switch.
      build: a function from an iteration and its values to the transformation of that update.
        Schedules are passed as float64 scalars, numbers as Python floats. The structure of the
        transformation's state must not depend on the values.
      start: the count of the first call.
    """

    groups: Values
    build: Callable[[Any, dict[str, dict[str, Any]]], optax.GradientTransformation]
    start: Any = 0

    def transformation(self) -> optax.GradientTransformationExtraArgs:
        """Return ``init`` and ``update`` as an Optax transformation."""
        return optax.GradientTransformationExtraArgs(self.init, self.update)

    def init(self, params: Any) -> ScheduledState:
        """Return the state before the first update."""
        start = _start.get()
        start = self.start if start is None else start
        values = evaluate_groups(self.groups, start)
        iteration = jnp.asarray(start, jnp.int32)
        inner = self.build(iteration, values).init(params)
        # Copies: groups share an array, and a loop that donates its state must not donate one twice.
        hyperparameters = jax.tree.map(jnp.array, numeric_hyperparameters(values))
        return ScheduledState(iteration, hyperparameters, inner)

    def update(
        self, updates: Any, state: Any, params: Any = None, **extra_args: Any
    ) -> tuple[Any, ScheduledState]:
        """Make the update of the state's iteration."""
        values = evaluate_groups(self.groups, state.iteration, own_kernels=True)
        rules = optax.with_extra_args_support(self.build(state.iteration, values))
        updates, inner = rules.update(updates, state.inner, params, **extra_args)
        iteration: Any = optax.safe_increment(state.iteration)
        return updates, ScheduledState(iteration, numeric_hyperparameters(values), inner)


def schedulable(
    rule: Callable[P, optax.GradientTransformationExtraArgs],
) -> Callable[P, optax.GradientTransformationExtraArgs]:
    """Decorate an update rule so that every number may be a schedule of its updates.

    Without a schedule, ``rule``'s transformation is returned; with one, a ``Scheduled`` one, whose
    hyperparameters have the label ``"all"``.
    """
    signature = inspect.signature(rule)

    @functools.wraps(rule)
    def factory(*args: P.args, **kwargs: P.kwargs) -> optax.GradientTransformationExtraArgs:
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        # A dtype is a type, and so callable.
        arguments = {name: dtype_name(value) for name, value in bound.arguments.items()}
        for name, value in arguments.items():
            if isinstance(signature.parameters[name].default, bool):
                require_bool(**{name: value})
        if not any(map(callable, arguments.values())):
            return rule(*args, **kwargs)
        untyped: Callable[..., Any] = rule
        build = lambda _, values: untyped(**values["all"])  # noqa: E731
        return Scheduled({"all": arguments}, build).transformation()

    return factory


def hyperparameters(opt_state: Any) -> dict[str, dict[str, jax.Array]]:
    """Return the hyperparameters in force at the last iteration.

    Args:
      opt_state: the state of ``recipe.optimizer(...)`` or of a rule with a schedule, however
        wrapped: inside ``optax.chain`` or ``optax.apply_if_finite``, as an ``nnx.Optimizer`` or a
        ``TrainState``. If there is none of ours, the state of ``optax.inject_hyperparams``.

    Returns:
      ``{label: {name: value}}``, float32 scalars (float64 with x64). Before the first update, the
      values of the first. Values of ``optax.inject_hyperparams`` have the label of the enclosing
      ``optax.multi_transform``, else ``"all"``.

    Raises:
      ValueError: the state holds no such hyperparameters, or one of a label twice.

    >>> from jaxsched.optimizers import sgd
    >>> tx = sgd(lambda count: 0.5 / (1 + count))
    >>> state = tx.init({"kernel": jnp.ones(3)})
    >>> float(hyperparameters(state)["all"]["learning_rate"])
    0.5
    """
    opt_state = getattr(opt_state, "opt_state", opt_state)
    groups = _scheduled_values(opt_state) or _injected_values(opt_state)
    if not groups:
        raise ValueError(
            f"opt_state must hold the state of a jaxsched optimizer, got {type(opt_state).__name__} "
            "without one. Pass the state of recipe.optimizer(labels)."
        )
    values: dict[str, dict[str, jax.Array]] = {}
    for label, group in groups:
        merged = values.setdefault(label, {})
        if twice := sorted(set(merged) & set(group)):
            raise ValueError(
                f"opt_state must hold each hyperparameter of a label once, got {twice[0]} of "
                f"{label} twice. Pass one optimizer's state at a time."
            )
        merged |= {name: jnp.asarray(value) for name, value in group.items()}
    return values


def _scheduled_values(opt_state: Any) -> list[tuple[str, Mapping[str, Any]]]:
    leaves = jax.tree.leaves(opt_state, is_leaf=lambda n: isinstance(n, ScheduledState))
    states = [leaf for leaf in leaves if isinstance(leaf, ScheduledState)]
    return [entry for state in states for entry in state.hyperparameters.items()]


def _injected_values(opt_state: Any) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the values in states of ``optax.inject_hyperparams``, which have ``hyperparams``."""

    def is_injected(node: Any) -> bool:
        return isinstance(getattr(node, "hyperparams", None), Mapping)

    nodes = jax.tree_util.tree_flatten_with_path(opt_state, is_leaf=is_injected)[0]
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
        if is_injected(node)
    ]
