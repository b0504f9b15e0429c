"""Updates by iteration, with several batches an update, and fewer in an epoch's last update.

Source: the training loop of transformers' ``Trainer``.
"""

from typing import Any

import jax.numpy as jnp
from jax.typing import ArrayLike

from jaxsched._arithmetic import integer
from jaxsched._schedule import Schedule, ScheduleLike, as_float64, float64_formula, freeze
from jaxsched._validate import require_count


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
