"""Rates that depend on a metric, in most scripts once an epoch: ReduceLROnPlateau."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.typing import ArrayLike

from jaxsched._schedule import Hyperparameter, as_float64
from jaxsched._validate import describe, require, require_base_lr


class PlateauState(NamedTuple):
    """State of ``reduce_lr_on_plateau``.

    Without x64 a state cannot hold float64, so the rate is computed from the number of reductions.

    Attributes:
      best: the best metric, float32, or float64 with x64.
      num_bad_epochs: metrics since then, int32.
      cooldown_counter: remaining metrics of the cooldown, int32.
      reductions: number of reductions that changed a rate, int32.
      learning_rate: the rate in force, float32 or float64; shape (groups,) if they differ.
    """

    best: jax.Array
    num_bad_epochs: jax.Array
    cooldown_counter: jax.Array
    reductions: jax.Array
    learning_rate: jax.Array


class Plateau(NamedTuple):
    """The two functions of ``reduce_lr_on_plateau``, pure and jittable.

    Attributes:
      init: returns the state before the first metric.
      step: returns the state after a metric, from the state and the metric. The state may be any
        tree that contains such states, such as an ``opt_state``: each of them is stepped.
    """

    init: Callable[[], PlateauState]
    step: Callable[[Any, ArrayLike], Any]


def reduce_lr_on_plateau(
    base_lr: Hyperparameter | Sequence[float],
    mode: str = "min",
    factor: Hyperparameter = 0.1,
    patience: int | jax.Array = 10,
    threshold: Hyperparameter = 1e-4,
    threshold_mode: str = "rel",
    cooldown: int | jax.Array = 0,
    min_lr: Hyperparameter | Sequence[float] = 0.0,
    eps: Hyperparameter = 1e-8,
) -> Plateau:
    r"""Multiply the rate by ``factor`` after more than ``patience`` bad metrics.

    .. math:: \mathrm{lr} \leftarrow \max(\mathrm{lr} \cdot \mathrm{factor}, \mathrm{min\_lr})
              \text{ if that lowers it by more than } \mathrm{eps}

    Metrics are rounded to float32 and compared, or compared in float64 with x64. NaN is bad.

    Args:
      base_lr: the group's rate before the first reduction; a list if groups differ.
      mode: ``"min"`` if less is better, ``"max"`` if more is.
      factor: the factor of a reduction, below 1.
      patience: number of consecutive bad metrics without a reduction.
      threshold: the smallest change that is an improvement.
      threshold_mode: ``"rel"``, a share of the best metric, or ``"abs"``.
      cooldown: number of metrics after a reduction during which bad ones are not counted.
      min_lr: the lowest rate; a list if groups differ.
      eps: a reduction by no more than this is skipped.

    Returns:
      ``init()`` and ``step(state, metric)``; ``state.learning_rate`` is the rate in force. To
      compare it with torch's, read it after ``step``.

    Source: ``torch.optim.lr_scheduler.ReduceLROnPlateau``, torch 2.13.

    >>> plateau = reduce_lr_on_plateau(1.0, factor=0.5, patience=1)
    >>> state, rates = plateau.init(), []
    >>> for loss in [3.0, 2.0, 2.0, 2.0, 1.0]:
    ...     state = jax.jit(plateau.step)(state, loss)
    ...     rates.append(float(state.learning_rate))
    >>> rates
    [1.0, 1.0, 1.0, 0.5, 0.5]
    """
    require("mode", mode, "'min' or 'max'", lambda v: v in ("min", "max"))
    require("threshold_mode", threshold_mode, "'rel' or 'abs'", lambda v: v in ("rel", "abs"))
    require("factor", factor, "below 1", lambda v: v < 1)
    for rate_ in base_lr if isinstance(base_lr, list | tuple) else [base_lr]:
        require_base_lr(rate_)
    if _shape(min_lr) not in ((), _shape(base_lr)):
        groups = f"each of {_shape(base_lr)[0]} groups" if _shape(base_lr) else "one group"
        raise ValueError(
            f"min_lr must be one rate for {groups}, got {describe(min_lr)}. Pass one number, or a list as "
            "long as base_lr."
        )

    def reduce(rate: jax.Array) -> jax.Array:
        lower = jnp.maximum(rate * as_float64(factor), as_float64(min_lr))
        return jnp.where(rate - lower > as_float64(eps), lower, rate)

    def rate(reductions: ArrayLike) -> jax.Array:
        first, _ = jnp.broadcast_arrays(as_float64(base_lr), as_float64(min_lr))
        return jax.lax.fori_loop(0, reductions, lambda _, rate: reduce(rate), first)

    def is_better(metric: jax.Array, best: jax.Array) -> jax.Array:
        margin = as_float64(threshold)
        if mode == "min":
            return metric < (best * (1.0 - margin) if threshold_mode == "rel" else best - margin)
        return metric > (best * (margin + 1.0) if threshold_mode == "rel" else best + margin)

    def init() -> PlateauState:
        dtype = jnp.result_type(float)
        with jax.enable_x64(True):
            # Three arrays, not one: a step that donates its state may donate each only once.
            bad, cooling, reductions = (jnp.zeros((), jnp.int32) for _ in range(3))
            worst = jnp.asarray(math.inf if mode == "min" else -math.inf, dtype)
            return PlateauState(worst, bad, cooling, reductions, rate(0).astype(dtype))

    def step(state: PlateauState, metric: ArrayLike) -> PlateauState:
        dtype = state.best.dtype
        metric = jnp.asarray(metric, dtype)
        with jax.enable_x64(True):
            improved = is_better(as_float64(metric), as_float64(state.best))
            cooling = state.cooldown_counter > 0
            bad = jnp.where(improved | cooling, 0, state.num_bad_epochs + 1)
            due = bad > patience
            now = rate(state.reductions)
            lower = jnp.where(due, reduce(now), now)
            left = jnp.where(due, cooldown, state.cooldown_counter - cooling.astype(jnp.int32))
            return PlateauState(
                jnp.where(improved, metric, state.best),
                jnp.where(due, 0, bad).astype(jnp.int32),
                left.astype(jnp.int32),
                state.reductions + (lower != now).any().astype(jnp.int32),
                lower.astype(dtype),
            )

    def step_each(state: Any, metric: ArrayLike) -> Any:
        plateaus = []

        def visit(node: Any) -> Any:
            if not isinstance(node, PlateauState):
                return node
            plateaus.append(node)
            # nnx.Optimizer wraps each array; flattening keeps its wrapper.
            leaves, structure = jax.tree.flatten(node)
            return structure.unflatten(step(PlateauState(*leaves), metric))

        stepped = jax.tree.map(visit, state, is_leaf=lambda node: isinstance(node, PlateauState))
        if not plateaus:
            raise ValueError(
                f"state must hold a PlateauState, got {type(state).__name__} without one. Chain "
                "scale_on_plateau(plateau) into the optimizer, or begin with plateau.init()."
            )
        return stepped

    return Plateau(init, step_each)


def _shape(rates: Any) -> tuple[int, ...]:
    """Return the shape of a rate, or of a list of rates."""
    return (len(rates),) if isinstance(rates, list | tuple) else np.shape(rates)


def scale_on_plateau(plateau: Plateau) -> optax.GradientTransformationExtraArgs:
    """Scale updates by the rate of a plateau; chain it after an update rule of rate 1.

    Pass it a metric, for example once an epoch, in either of two ways:

    - ``tx.update(grads, opt_state, params, metric=loss)``: this update uses the current rate, the next
      one the new rate, as when ``scheduler.step(loss)`` follows ``optimizer.step()``. Without
      ``metric`` the rate stays.
    - ``opt_state = plateau.step(opt_state, loss)``, outside the update, as with Linen's
      ``TrainState``: ``state.replace(opt_state=plateau.step(state.opt_state, loss))``.

    Args:
      plateau: the result of ``reduce_lr_on_plateau``, for one group.

    >>> plateau = reduce_lr_on_plateau(0.5, factor=0.5, patience=0)
    >>> tx = optax.chain(optax.sgd(1.0), scale_on_plateau(plateau))
    >>> state = tx.init(jnp.ones(()))
    >>> for loss in [1.0, 2.0]:
    ...     state = plateau.step(state, loss)
    >>> float(tx.update(jnp.ones(()), state)[0])
    -0.25
    """
    groups = jax.eval_shape(plateau.init).learning_rate.shape
    if groups:
        raise ValueError(
            f"plateau must have one rate, got one for each of {groups[0]} groups. Pass "
            "scale_on_plateau a plateau for each, of one base_lr."
        )

    def init(params: optax.Params) -> Any:
        del params
        return plateau.init()

    def update(
        updates: optax.Updates,
        state: Any,
        params: optax.Params | None = None,
        *,
        metric: ArrayLike | None = None,
        **extra_args: Any,
    ) -> tuple[Any, Any]:
        del params, extra_args
        rate = state.learning_rate
        scaled = jax.tree.map(lambda u: (u * rate).astype(u.dtype), updates)
        return scaled, state if metric is None else plateau.step(state, metric)

    return optax.GradientTransformationExtraArgs(init, update)
