"""Updates of several batches: schedules by update, and the batches of each iteration's update."""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from jaxsched._arithmetic import integer
from jaxsched._schedule import Schedule, ScheduleLike, as_float64, float64_formula, freeze
from jaxsched._validate import require, require_count
from jaxsched.schedules._table import entry


def per_update(schedule: ScheduleLike, batches: ArrayLike, steps_per_epoch: ArrayLike) -> Schedule:
    r"""``schedule`` of the updates made so far, one every ``batches`` iterations.

    .. math:: s(i) = \mathrm{schedule}(\lfloor i / n \rfloor \lceil n / k \rceil
              + \lfloor (i \bmod n) / k \rfloor)

    Args:
      schedule: a schedule that counts updates.
      batches: iterations of an update, k; an epoch's last update has the remaining ones.
      steps_per_epoch: iterations in an epoch, n.

    Returns:
      A schedule that counts iterations.

    Source: the training loop of transformers' ``Trainer``.

    >>> [int(per_update(lambda update: update, 2, 5)(i)) for i in range(8)]
    [0, 0, 1, 1, 2, 3, 3, 4]
    """
    require_count("batches", batches, at_least=1)
    require_count("steps_per_epoch", steps_per_epoch, at_least=1)
    inner = float64_formula(schedule)
    batches, steps_per_epoch = freeze(batches), freeze(steps_per_epoch)

    def formula(count: Any) -> Any:
        count, k, n = integer(count), integer(batches), integer(steps_per_epoch)
        return inner(count // n * -(-n // k) + count % n // k)

    return Schedule(per_update, locals(), formula)


def update_batches(batches: ArrayLike, steps_per_epoch: ArrayLike) -> Schedule:
    r"""Batches of the update that an iteration belongs to, for ``optimizers.Accumulation``.

    .. math:: s(i) = n \bmod k \text{ if } i \bmod n \ge n - n \bmod k, \text{ else } k

    Args:
      batches: iterations of an update, k; an epoch's last update has the remaining ones.
      steps_per_epoch: iterations in an epoch, n.

    Source: the training loop of transformers' ``Trainer``.

    >>> [int(update_batches(2, 5)(i)) for i in range(6)]
    [2, 2, 2, 2, 1, 2]
    """
    require_count("batches", batches, at_least=1)
    require_count("steps_per_epoch", steps_per_epoch, at_least=1)
    batches, steps_per_epoch = freeze(batches), freeze(steps_per_epoch)

    def formula(count: Any) -> Any:
        count, k, n = integer(count), integer(batches), integer(steps_per_epoch)
        return as_float64(jnp.where(count % n >= n - n % k, n % k, k))

    return Schedule(update_batches, locals(), formula)


def batch_ramp(iterations: int, *, end: float, then: float) -> Schedule:
    r"""Batches an update: a ramp from 1 over the warm-up, rounded half to even.

    .. math:: s(i) = \max(1, \operatorname{round}(\operatorname{interp}(i, [0, n], [1, \mathrm{end}])))
              \text{ if } i < n, \text{ else } \mathrm{then}

    Args:
      iterations: length n of the ramp, at most 1e8; 0 for no ramp.
      end: where the ramp ends, before rounding.
      then: batches from ``iterations`` on.

    Source: ``accumulate`` in ``train.py`` of YOLOv5 7.0 and ``BaseTrainer`` of Ultralytics.

    >>> [int(batch_ramp(4, end=4.0, then=4)(i)) for i in range(5)]
    [1, 2, 2, 3, 4]
    """
    require_count("iterations", iterations)
    require("iterations", iterations, "at most 1e8, the longest warm-up", lambda v: v <= 1e8)
    # On the host: a device that rounds a half differently would move updates.
    ramp = np.interp(np.arange(iterations), [0, max(iterations, 1)], [1, end])
    counts = np.append(np.maximum(1, ramp.round()), then)

    def formula(count: Any) -> Any:
        return entry(counts, integer(count))

    return Schedule(batch_ramp, locals(), formula)
