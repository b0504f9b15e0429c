"""Rates that follow a metric, given once an epoch in most scripts: ReduceLROnPlateau."""

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

    float64 does not survive where x64 is off, so the rate is computed from the number of reductions.

    Attributes:
      best: the best metric, float32, or float64 with x64.
      num_bad_epochs: metrics since it, int32.
      cooldown_counter: metrics for which bad ones don't count yet, int32.
      reductions: reductions that changed a rate, int32.
      learning_rate: the rate in force, float32 or float64; shape (groups,) where they differ.
    """

    best: jax.Array
    num_bad_epochs: jax.Array
    cooldown_counter: jax.Array
    reductions: jax.Array
    learning_rate: jax.Array


class Plateau(NamedTuple):
    """The two functions of ``reduce_lr_on_plateau``, pure and jittable.

    Attributes:
      init: of nothing; the state before the first metric.
      step: of a state and a metric; the state after it. In place of the state it takes any tree
        that holds such states, an ``opt_state`` say, in which it steps each.
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
    r"""The rate times ``factor`` when the metric has been bad for more than ``patience``.

    .. math:: \mathrm{lr} \leftarrow \max(\mathrm{lr} \cdot \mathrm{factor}, \mathrm{min\_lr})
              \text{ where that takes off more than } \mathrm{eps}

    Metrics are compared as float32, to which they are rounded, or as float64 where x64 is on. NaN is
    bad.

    Args:
      base_lr: the group's rate before the first reduction; a list of them where groups differ.
      mode: ``"min"`` where less is better, ``"max"`` where more is.
      factor: of a reduction, below 1.
      patience: bad metrics in a row that are borne.
      threshold: what an improvement must exceed.
      threshold_mode: ``"rel"``, a share of the best metric, or ``"abs"``.
      cooldown: metrics after a reduction for which bad ones don't count.
      min_lr: the lowest rate; a list of them where groups differ.
      eps: a reduction by no more than this is left out.

    Returns:
      ``init()`` and ``step(state, metric)``; ``state.learning_rate`` is the rate
      in force. In a trace of a run it is read after ``step``, as torch's is.

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
    if _groups(min_lr) not in ((), _groups(base_lr)):
        groups = f"each of {_groups(base_lr)[0]} groups" if _groups(base_lr) else "one group"
        raise ValueError(
            f"min_lr must be one rate for {groups}, got {describe(min_lr)}. Pass one number, or a list as "
            "long as base_lr."
        )

    def reduced(rate: jax.Array) -> jax.Array:
        lower = jnp.maximum(rate * as_float64(factor), as_float64(min_lr))
        return jnp.where(rate - lower > as_float64(eps), lower, rate)

    def rate(reductions: ArrayLike) -> jax.Array:
        first, _ = jnp.broadcast_arrays(as_float64(base_lr), as_float64(min_lr))
        return jax.lax.fori_loop(0, reductions, lambda _, rate: reduced(rate), first)

    def better(metric: jax.Array, best: jax.Array) -> jax.Array:
        margin = as_float64(threshold)
        if mode == "min":
            return metric < (best * (1.0 - margin) if threshold_mode == "rel" else best - margin)
        return metric > (best * (margin + 1.0) if threshold_mode == "rel" else best + margin)

    def init() -> PlateauState:
        dtype = jnp.result_type(float)
        with jax.enable_x64(True):
            # Three arrays, not one: a step that donates its state must not donate one thrice.
            bad, cooling, reductions = (jnp.zeros((), jnp.int32) for _ in range(3))
            worst = jnp.asarray(math.inf if mode == "min" else -math.inf, dtype)
            return PlateauState(worst, bad, cooling, reductions, rate(0).astype(dtype))

    def step(state: PlateauState, metric: ArrayLike) -> PlateauState:
        dtype = state.best.dtype
        metric = jnp.asarray(metric, dtype)
        with jax.enable_x64(True):
            improved = better(as_float64(metric), as_float64(state.best))
            cooling = state.cooldown_counter > 0
            bad = jnp.where(improved | cooling, 0, state.num_bad_epochs + 1)
            due = bad > patience
            now = rate(state.reductions)
            lower = jnp.where(due, reduced(now), now)
            left = jnp.where(due, cooldown, state.cooldown_counter - cooling.astype(jnp.int32))
            return PlateauState(
                jnp.where(improved, metric, state.best),
                jnp.where(due, 0, bad).astype(jnp.int32),
                left.astype(jnp.int32),
                state.reductions + (lower != now).any().astype(jnp.int32),
                lower.astype(dtype),
            )

    def step_each(state: Any, metric: ArrayLike) -> Any:
        found = []

        def visit(node: Any) -> Any:
            if not isinstance(node, PlateauState):
                return node
            found.append(node)
            # nnx.Optimizer wraps each array; by way of its leaves the node keeps what it is.
            leaves, structure = jax.tree.flatten(node)
            return structure.unflatten(step(PlateauState(*leaves), metric))

        stepped = jax.tree.map(visit, state, is_leaf=lambda node: isinstance(node, PlateauState))
        if not found:
            raise ValueError(
                f"state must hold a PlateauState, got {type(state).__name__} without one. Chain "
                "scale_on_plateau(plateau) into the optimizer, or begin with plateau.init()."
            )
        return stepped

    return Plateau(init, step_each)


def _groups(rates: Any) -> tuple[int, ...]:
    """The shape of a rate, or of one a group."""
    return (len(rates),) if isinstance(rates, list | tuple) else np.shape(rates)


def scale_on_plateau(plateau: Plateau) -> optax.GradientTransformationExtraArgs:
    """Scale updates by the rate of a plateau, after an update rule whose own rate is 1.

    It takes a metric, once an epoch say, in either of two ways:

    - ``tx.update(grads, opt_state, params, metric=loss)``: this update still has the rate in force,
      the next the new one, as where ``scheduler.step(loss)`` follows ``optimizer.step()``. Without
      ``metric`` the rate stays.
    - ``opt_state = plateau.step(opt_state, loss)``, outside the update, as with Linen's
      ``TrainState``: ``state.replace(opt_state=plateau.step(state.opt_state, loss))``.

    Args:
      plateau: what ``reduce_lr_on_plateau`` returns, for one group.

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
