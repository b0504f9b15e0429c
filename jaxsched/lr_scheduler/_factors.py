"""Rates from the user's factors: LambdaLR and MultiplicativeLR."""

import functools
from collections.abc import Callable, Sequence
from typing import Any, Protocol, overload

from jaxsched._schedule import Hyperparameter, Schedule
from jaxsched.lr_scheduler._recursion import factor_formula, factor_on_host, torch_schedule

Factor = Callable[[Any], Any]
"""A function of the count that returns a factor: an ``lr_lambda``."""


class _EachGroup(Protocol):
    """A function from a rate and a factor to a schedule, or from lists of them to a list."""

    @overload
    def __call__(
        self, base_lr: Hyperparameter, lr_lambda: Factor, *, steps: int | None = None
    ) -> Schedule: ...
    @overload
    def __call__(
        self,
        base_lr: Hyperparameter | Sequence[Hyperparameter],
        lr_lambda: Sequence[Factor],
        *,
        steps: int | None = None,
    ) -> list[Schedule]: ...


def _for_each_group(factory: Callable[..., Schedule]) -> _EachGroup:
    """Call ``factory`` for each group if the rate or the factor is a list."""

    @functools.wraps(factory)
    def call_each(base_lr: Any, lr_lambda: Any, *, steps: int | None = None) -> Any:
        rates, factors = (v if isinstance(v, list | tuple) else None for v in (base_lr, lr_lambda))
        for factor in [lr_lambda] if factors is None else factors:
            if not callable(factor):
                raise TypeError(
                    f"lr_lambda must be a function, got {factor!r}. Pass lambda epoch: {factor!r}."
                )
        if rates is None and factors is None:
            return factory(base_lr, lr_lambda, steps=steps)
        rates = [base_lr] * len(factors or ()) if rates is None else rates
        factors = [lr_lambda] * len(rates) if factors is None else factors
        if len(rates) != len(factors):
            raise ValueError(
                f"lr_lambda must have one function a group, got {len(factors)} for {len(rates)} groups."
            )
        return [factory(*group, steps=steps) for group in zip(rates, factors, strict=True)]

    return call_each


@_for_each_group
def lambda_lr(base_lr: Hyperparameter, lr_lambda: Factor, *, steps: int | None = None) -> Schedule:
    r"""The base rate times a function of the count.

    .. math:: s(c) = \mathrm{base\_lr} \cdot \mathrm{lr\_lambda}(c)

    Args:
      base_lr: the group's rate before any schedule, ``initial_lr``; a list if ``lr_lambda`` is a list
        and the groups' rates differ.
      lr_lambda: the factor: a schedule, or any function in operators and ``jnp``; with ``steps``, any
        Python function of an int. For a list, the result is a list of schedules, one a group.

    Source: ``torch.optim.lr_scheduler.LambdaLR``, torch 2.13.

    >>> from jaxsched.schedules import cosine
    >>> float(lambda_lr(0.5, cosine(100, lrf=0.5))(100))
    0.25
    >>> [float(schedule(2)) for schedule in lambda_lr(1.0, [lambda e: 0.5**e, lambda e: e // 2])]
    [0.25, 1.0]
    """
    factor = factor_formula(lr_lambda, "lr_lambda")
    return torch_schedule(
        lambda_lr,
        locals(),
        (),
        lambda count, base_lr: base_lr * factor(count),
        lambda now: now.base_lr * factor_on_host(lr_lambda, now.epoch),
    )


@_for_each_group
def multiplicative_lr(
    base_lr: Hyperparameter, lr_lambda: Factor, *, steps: int | None = None
) -> Schedule:
    r"""The previous rate times a function of the count.

    .. math:: s(c) = \mathrm{base\_lr} \prod_{i=1}^{c} \mathrm{lr\_lambda}(i)

    ``lr_lambda(0)`` is used only by ``sequential_lr`` at a milestone.

    Args:
      base_lr: the group's rate before any schedule, or a list of them.
      lr_lambda: the factor, any Python function of an int. For a list, the result is a list of
        schedules, one a group.
      steps: replays torch for counts 0 to ``steps``. Required, unless this schedule is passed to a
        composition.

    Source: ``torch.optim.lr_scheduler.MultiplicativeLR``, torch 2.13.

    >>> schedule = multiplicative_lr(1.0, lambda epoch: 0.5, steps=10)
    >>> [float(schedule(c)) for c in range(3)]
    [1.0, 0.5, 0.25]
    """

    def rule(now: Any) -> Any:
        return now.lr if now.initial else now.lr * factor_on_host(lr_lambda, now.epoch)

    return torch_schedule(multiplicative_lr, locals(), (), None, rule)
