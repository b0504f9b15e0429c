"""Gradient accumulation by the originals' rule. Counts iterations, one a batch; 0 is the first.

An update is due when enough batches have come since the last one. The schedules count every batch.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxsched._float64 import in_float64
from jaxsched._schedule import (
    Schedule,
    ScheduleLike,
    as_float64,
    float64_formula,
    has_function,
    widen,
)
from jaxsched._validate import describe, is_number, require_count
from jaxsched.optimizers._rule import require_shapes
from jaxsched.schedules import constant


@dataclasses.dataclass(frozen=True)
class Accumulation:
    r"""The rule of gradient accumulation: when an update is due, and when gradients are dropped.

    With i the iteration and u that of the last update, an update is due when
    :math:`i - u \ge \mathrm{batches}(i)`, never if ``batches`` is NaN. Its gradient is the *sum* over
    the batches since the last update, so sum the loss over a batch's images too, or multiply it by
    their number.

    ``optax.MultiSteps`` averages, counts updates and updates every k batches exactly.

    Attributes:
      batches: number of batches of an update, a schedule of the iteration; a constant is at least 1.
      steps_per_epoch: if given, pending gradients are dropped at every epoch's start, while u stays;
        if None, they are kept.
      last_update: u in a fresh state; the iteration before its first if None. The originals have
        -1 in every process, so that a resumed one updates at its first batch.

    Source: ``train.py`` of YOLOv5 7.0 and ``BaseTrainer`` of Ultralytics.

    >>> from jaxsched import Recipe, schedules
    >>> every_third = Accumulation(schedules.constant(3))
    >>> Recipe({"all": {"learning_rate": 0.1}}, accumulation=every_third).bookkeeping(6)["stepped"]
    array([0., 0., 1., 0., 0., 1.])
    """

    batches: ScheduleLike
    steps_per_epoch: int | None = None
    last_update: int | None = None

    def __post_init__(self) -> None:
        if not callable(self.batches):
            raise TypeError(
                f"batches must be a schedule, got {describe(self.batches)}. Pass schedules.constant of it."
            )
        if isinstance(self.batches, Schedule) and self.batches.factory is constant:
            value = self.batches.arguments["value"]
            if is_number(value) and value < 1:
                raise ValueError(
                    f"batches must be at least 1, got {self.batches}. "
                    "Pass the number of batches of an update."
                )
        if self.steps_per_epoch is not None:
            require_count("steps_per_epoch", self.steps_per_epoch, at_least=1)
        if self.last_update is not None:
            require_count("last_update", self.last_update, at_least=-1)

    def update_before(self, start: Any) -> Any:
        """Return u in a fresh state that begins at ``start``."""
        return start - 1 if self.last_update is None else self.last_update

    def tick(
        self, iteration: jax.Array, last_update: jax.Array, pending: jax.Array
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        """Advance by one batch; ``pending`` is the number of batches accumulated before it.

        Returns:
          Whether the pending gradients are dropped, whether an update is due, and the number of
          batches in its gradient.
        """
        drop = jnp.asarray(False)
        if self.steps_per_epoch is not None:
            drop = iteration % self.steps_per_epoch == 0

        def is_due() -> jax.Array:
            # A fraction is rounded down. No comparison with NaN, the value outside a table, is true.
            return as_float64(iteration - last_update) > _wait(self.batches, iteration) - 1

        return drop, in_float64(is_due), jnp.where(drop, 0, pending) + 1

    def simulate(self, start: int, n: int) -> dict[str, np.ndarray]:
        """Return ``accumulate``, ``stepped`` and ``micro_batches`` of ``n`` iterations."""
        for end in {start, start + n - 1} if n else ():
            _wait(self.batches, end)  # refuses an iteration outside a table, which is NaN under jit
        iterations = np.arange(start, start + n, dtype=np.int32)
        if has_function(self.batches):  # which may have changed since it was last compiled
            waits = jax.jit(lambda iterations: _wait(self.batches, iterations))(iterations)
        else:  # equal schedules share a program
            waits = _compiled_wait(self.batches, iterations)
        due, batches = _ticks(self.steps_per_epoch, iterations, waits, self.update_before(start))
        columns = {"accumulate": waits, "stepped": due, "micro_batches": batches}
        return {name: np.asarray(column, float) for name, column in columns.items()}


def _wait(batches: ScheduleLike, iteration: Any) -> jax.Array:
    """Evaluate ``batches`` in float64, as Python: int(100 * 0.29) is 28, but 29 in float32."""

    def wait() -> jax.Array:
        values = jnp.asarray(float64_formula(batches)(widen(iteration)))
        return jnp.broadcast_to(values.astype(jnp.float64), jnp.shape(iteration))

    return in_float64(wait)


_compiled_wait = jax.jit(_wait, static_argnums=0)


@functools.partial(jax.jit, static_argnums=0)
def _ticks(
    steps_per_epoch: int | None, iterations: jax.Array, waits: jax.Array, last_update: Any
) -> tuple[jax.Array, jax.Array]:
    """Return whether each iteration has an update, and the number of batches in its gradient."""

    def step(carry: Any, row: Any) -> Any:
        iteration, wait = row
        due, batches = Accumulation(lambda _: wait, steps_per_epoch).tick(iteration, *carry)[1:]
        after = jnp.where(due, iteration, carry[0]), jnp.where(due, 0, batches)
        return after, (due, jnp.where(due, batches, 0))

    carry = jnp.asarray(last_update, jnp.int32), jnp.int32(0)
    return jax.lax.scan(step, carry, (iterations, waits))[1]


class AccumulationState(NamedTuple):
    """State of ``accumulate``.

    Attributes:
      gradients: the sum since the last update, a tree like the parameters.
      micro_batches: number of batches in the sum, int32.
      last_update: the iteration of the last update.
      stepped: whether the last call made an update.
      inner: the state of the update rules.
    """

    gradients: Any
    micro_batches: jax.Array
    last_update: jax.Array
    stepped: jax.Array
    inner: Any


def accumulate(
    rules: optax.GradientTransformationExtraArgs, accumulation: Accumulation, iteration: Any
) -> optax.GradientTransformationExtraArgs:
    """Wrap ``rules`` to update only when ``accumulation`` says that an update is due.

    Args:
      rules: the transformation of the summed gradient.
      accumulation: the rule of accumulation.
      iteration: the iteration of the call.
    """

    def init(params: optax.Params) -> Any:
        return AccumulationState(
            jax.tree.map(jnp.zeros_like, params),
            jnp.asarray(0, jnp.int32),
            jnp.asarray(accumulation.update_before(iteration), jnp.int32),
            jnp.asarray(False),
            rules.init(params),
        )

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[Any, Any]:
        require_shapes(updates, state.gradients)
        count = jnp.asarray(iteration, jnp.int32)
        drop, due, micro_batches = accumulation.tick(count, state.last_update, state.micro_batches)
        gradients = jax.tree.map(
            lambda total, new: jnp.where(
                drop, new.astype(total.dtype), total + new.astype(total.dtype)
            ),
            state.gradients,
            updates,
        )

        def step(gradients: Any) -> tuple[Any, Any, Any]:
            moves, inner = rules.update(gradients, state.inner, params, **extra_args)
            return moves, inner, jax.tree.map(jnp.zeros_like, gradients)

        def wait(gradients: Any) -> tuple[Any, Any, Any]:
            # Like the gradients, which are sharded as their parameters on explicit axes.
            still = jax.tree.map(
                lambda g, move: jnp.zeros_like(g, move.dtype),
                gradients,
                jax.eval_shape(step, gradients)[0],
            )
            return still, state.inner, gradients

        moves, inner, gradients = jax.lax.cond(due, step, wait, gradients)
        return moves, AccumulationState(
            gradients,
            jnp.where(due, 0, micro_batches),
            jnp.where(due, count, state.last_update),
            due,
            inner,
        )

    return optax.GradientTransformationExtraArgs(init, update)


def stepped(opt_state: Any) -> jax.Array:
    """Return whether the last call made an update; always true without accumulation.

    A call that ``optax.apply_if_finite`` rejected made no update.

    Args:
      opt_state: the state of ``recipe.optimizer(...)``, however wrapped.

    >>> from jaxsched import Recipe, schedules
    >>> recipe = Recipe(
    ...     {"all": {"learning_rate": 0.1}}, accumulation=Accumulation(schedules.constant(2))
    ... )
    >>> tx, params = recipe.optimizer("all"), jnp.ones(2)
    >>> state = tx.init(params)
    >>> for _ in range(2):
    ...     _, state = tx.update(params, state, params)
    ...     print(stepped(state))
    False
    True
    """
    opt_state = getattr(opt_state, "opt_state", opt_state)
    kinds = (optax.ApplyIfFiniteState, AccumulationState)
    # An explicit transfer, which jax.transfer_guard("disallow") allows.
    has_stepped, nodes = jax.device_put(np.True_), [opt_state]
    while nodes:
        node = nodes.pop()
        if isinstance(node, optax.ApplyIfFiniteState):
            has_stepped &= jnp.asarray(node.last_finite)
            nodes.append(node.inner_state)
        elif isinstance(node, AccumulationState):
            has_stepped &= jnp.asarray(node.stepped)
        else:
            leaves = jax.tree.leaves(node, is_leaf=lambda n: isinstance(n, kinds))
            nodes += [leaf for leaf in leaves if isinstance(leaf, kinds)]
    return has_stepped


def restarted(opt_state: Any) -> Any:
    """Drop pending batches from a state, as the originals do when they resume.

    They save neither the gradients of the batches since the last update nor its iteration, so a
    resumed process updates at its first batch, as in ``recipes.yolov5(start_epoch=…, resumed=True)``.
    Not needed for a state that continues as if never stopped.

    Args:
      opt_state: the state of ``recipe.optimizer(...)``, however wrapped.

    >>> from jaxsched import recipes
    >>> recipe, params = recipes.yolov5(epochs=2, steps_per_epoch=50), {"kernel": jnp.ones(2)}
    >>> tx = recipe.optimizer({"kernel": "weight"})
    >>> _, state = tx.update(params, tx.init(params), params)  # it saves this, and is stopped
    >>> _, state = tx.update(params, restarted(state), params)
    >>> stepped(state)
    Array(True, dtype=bool)
    """

    def renew(node: Any) -> Any:
        if not isinstance(node, AccumulationState):
            return node
        return node._replace(
            gradients=jax.tree.map(jnp.zeros_like, node.gradients),
            micro_batches=jnp.zeros_like(node.micro_batches),
            last_update=jnp.full_like(node.last_update, -1),
            stepped=jnp.zeros_like(node.stepped),
        )

    return jax.tree.map(renew, opt_state, is_leaf=lambda n: isinstance(n, AccumulationState))
