"""The rate of stochastic weight averaging. It counts calls of ``scheduler.step()``; 0 is the constructor's."""

import math

import jax
import jax.numpy as jnp

from jaxsched._schedule import Hyperparameter, Schedule
from jaxsched._validate import require_anneal_strategy, require_count
from jaxsched.lr_scheduler._decays import progress
from jaxsched.lr_scheduler._recursion import HOST, torch_schedule


def swa_lr(
    base_lr: Hyperparameter,
    swa_lr: Hyperparameter,
    anneal_epochs: int | jax.Array = 10,
    anneal_strategy: str = "cos",
    *,
    steps: int | None = None,
) -> Schedule:
    r"""From the group's rate to the constant one of stochastic weight averaging.

    .. math:: s(c) = \mathrm{swa\_lr} \cdot \alpha + \mathrm{base\_lr} (1 - \alpha),\quad
              t = \frac{\min(c, E)}{E},\quad
              \alpha = \frac{1 - \cos(\pi t)}{2} \text{ or } t

    Args:
      base_lr: the group's rate when the averaging begins.
      swa_lr: the rate from ``anneal_epochs`` on.
      anneal_epochs: the length E, at least 0; with 0 the rate is ``swa_lr``
        from the start.
      anneal_strategy: ``"cos"`` or ``"linear"``, α as above.
      steps: replays torch for counts 0 to ``steps``.

    Source: ``torch.optim.swa_utils.SWALR``, torch 2.13.

    >>> [float(swa_lr(1.0, 0.5, 2, "linear")(c)) for c in range(4)]
    [1.0, 0.75, 0.5, 0.5]
    """
    arguments = dict(locals())
    require_anneal_strategy(anneal_strategy)
    require_count("anneal_epochs", anneal_epochs, at_least=0)

    def alpha(xp, t):
        return t if anneal_strategy == "linear" else (1 - xp.cos(math.pi * t)) / 2

    def closed(count, base_lr, swa_lr, epochs):
        started = jnp.where(epochs == 0, count + 1, count)
        weight = alpha(jnp, progress(started, jnp.maximum(epochs, 1)))
        return swa_lr * weight + base_lr * (1 - weight)

    def rule(now, _, epochs):
        swa_lr = now.group["swa_lr"]  # another SWALR on the group may have written it
        step = now.calls - 1 if epochs else max(1, now.calls - 1)
        before, after = (alpha(HOST, max(0, min(1, k / max(1, epochs)))) for k in (step - 1, step))
        start = swa_lr if before == 1 else (now.lr - before * swa_lr) / (1 - before)
        return swa_lr * after + start * (1 - after)

    return torch_schedule(
        _FACTORY,
        arguments,
        (swa_lr, anneal_epochs),
        closed,
        rule,
        prepare=lambda group, swa_lr, epochs: group.update(swa_lr=swa_lr),
    )


_FACTORY = swa_lr  # within the function its name is that of an argument
