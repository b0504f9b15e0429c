"""The moving average of a model, used for evaluation. Counts updates; 1 is the first."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxsched._float64 import in_float64
from jaxsched._schedule import as_float64
from jaxsched._validate import require, require_count
from jaxsched.optimizers._rule import scalars_by_dtype


class EMAState(NamedTuple):
    """State of ``EMA``.

    Attributes:
      updates: number of updates in the average, int32.
      average: a tree like the averaged one.
    """

    updates: jax.Array
    average: Any


@dataclasses.dataclass(frozen=True)
class EMA:
    r"""Exponential moving average of parameters and batch statistics, with a ramp.

    .. math::
        d_k &= \mathrm{decay} (1 - e^{-k / \tau}) \\
        a_k &= d_k a_{k-1} + (1 - d_k) p_k, \quad a_0 = p_0

    with k the number of updates: batches that only accumulate do not count. With the ramp the average
    follows the model closely at first. With ``power``, p, the decay is timm's:

    .. math:: d_k = \min(1 - k^{-p}, \mathrm{decay})

    Attributes:
      decay: the limit of the decay.
      tau: updates in which it reaches 63 % of the limit; ignored with ``power``.
      updates: k before the first update of this process, such as a checkpoint's.
      power: above 0, 2/3 in timm's warm-up; with ``math.inf``, as in timm without a warm-up, the
        first update copies the model and all others have ``decay``.

    Source: ``ModelEMA`` of YOLOv5 and Ultralytics; ``ModelEmaV3`` of timm 1.0.31.

    >>> ema = EMA(decay=0.5, tau=1e-9)
    >>> state = ema.update(ema.init(jnp.zeros(2)), jnp.ones(2))
    >>> [float(a) for a in state.average]
    [0.5, 0.5]
    """

    decay: float = 0.9999
    tau: float = 2000.0
    updates: int = 0
    power: float | None = None

    def __post_init__(self) -> None:
        require("decay", self.decay, "from 0 to 1", lambda v: 0 <= v <= 1)
        require("tau", self.tau, "above 0", lambda v: v > 0)
        require_count("updates", self.updates)
        require("power", self.power, "above 0, or None", lambda v: v is None or v > 0)

    def decay_at(self, updates: Any) -> jax.Array:
        """Return the decay of an update; 1 is the first."""
        dtype = jnp.result_type(float)
        return in_float64(lambda: jnp.asarray(self._decay(as_float64(updates), jnp)).astype(dtype))

    def _decay(self, k: Any, xp: Any) -> Any:
        """Return the decay of update k; call with x64 enabled. ``xp`` is jnp or np."""
        if self.power is None:
            return as_float64(self.decay) * (1 - xp.exp(-k / as_float64(self.tau)))
        # The first update is selected, not computed: infinity times log(1) is NaN.
        later = xp.minimum(
            1 - xp.maximum(k, 2.0) ** -as_float64(self.power), as_float64(self.decay)
        )
        return xp.where(k > 1, later, 0.0)

    def init(self, tree: Any) -> EMAState:
        """Return the state before any update; ``tree`` is parameters and batch statistics."""
        return EMAState(jax.device_put(np.int32(self.updates)), jax.tree.map(jnp.copy, tree))

    def update(self, state: EMAState, tree: Any, stepped: Any = True) -> EMAState:
        """Return the state after a batch.

        Args:
          state: the state before the batch.
          tree: the model's arrays after the batch. Integer leaves of the average do not change.
          stepped: whether the batch made an update, ``optimizers.stepped(opt_state)``; if not, the
            state does not change.
        """
        count = state.updates + 1

        def shares() -> dict[str, jax.Array]:
            decay = self.decay_at(count)
            return {"keep": decay, "take": 1 - decay}

        scalars = scalars_by_dtype(count, **in_float64(shares))

        def leaf(average: jax.Array, new: jax.Array) -> jax.Array:
            if not jnp.issubdtype(average.dtype, jnp.floating):
                return average
            c = scalars(average.dtype)
            wide = c["keep"].dtype
            moved = c["keep"] * average.astype(wide) + c["take"] * new.astype(wide)
            return moved.astype(average.dtype)

        return jax.lax.cond(
            jnp.asarray(stepped),
            lambda: EMAState(count, jax.tree.map(leaf, state.average, tree)),
            lambda: state,
        )

    def simulate(self, stepped: np.ndarray) -> dict[str, np.ndarray]:
        """Return ``ema_updates`` and ``ema_decay`` of iterations, from their ``stepped``."""
        updates = self.updates + np.cumsum(stepped)
        return {"ema_updates": updates, "ema_decay": self._decay(updates, np)}

    def header(self) -> dict[str, Any]:
        """Return the fields for a trace's header, with ``power`` if there is one."""
        header = {"decay": float(self.decay), "tau": float(self.tau), "updates": self.updates}
        return header if self.power is None else {**header, "power": float(self.power)}
