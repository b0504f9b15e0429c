"""A constant, and the factors of the rate by epoch of the article, YOLOv5 and Ultralytics."""

import math
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp

from jaxsched._arithmetic import quotient
from jaxsched._schedule import Hyperparameter, Schedule, as_float64, formula_of, freeze
from jaxsched._validate import require_positive


def constant(value: Hyperparameter) -> Schedule:
    """``s(count) = value``.

    >>> float(constant(0.5)(10))
    0.5
    """
    value = freeze(value)
    return Schedule(constant, locals(), lambda count: jnp.full(jnp.shape(count), as_float64(value)))


def cosine(epochs: Hyperparameter, *, lrf: Hyperparameter) -> Schedule:
    r"""Cosine factor from 1 to ``lrf``, in the article's order of operations.

    .. math:: f(e) = \frac{1 + \cos(e \pi / E)}{2} (1 - \mathrm{lrf}) + \mathrm{lrf}

    It is an ``lr_lambda``, for ``lr_scheduler.lambda_lr``. Past ``epochs`` it rises again.

    Args:
      epochs: half the cosine's period, E.
      lrf: the factor at ``epochs``.

    Source: ``lf`` of the article.

    >>> float(cosine(100, lrf=0.25)(100))
    0.25
    """

    def formula(count: Any, epochs: Any, lrf: Any) -> Any:
        return ((1 + jnp.cos(quotient(count * math.pi, epochs, count))) / 2) * (1 - lrf) + lrf

    return _factor(cosine, formula, epochs, lrf)


def linear(epochs: Hyperparameter, *, lrf: Hyperparameter) -> Schedule:
    r"""Linear factor from 1 to ``lrf``.

    .. math:: f(e) = (1 - e / E) (1 - \mathrm{lrf}) + \mathrm{lrf}

    It is an ``lr_lambda``, and continues to fall past ``epochs``.

    Args:
      epochs: where it reaches ``lrf``, E.
      lrf: the factor at ``epochs``.

    Source: ``lf`` in ``train.py`` of YOLOv5 7.0 and ``BaseTrainer`` of Ultralytics, without ``cos_lr``.

    >>> float(linear(100, lrf=0.5)(50))
    0.75
    """

    def formula(count: Any, epochs: Any, lrf: Any) -> Any:
        return (1 - quotient(count, epochs, count)) * (1 - lrf) + lrf

    return _factor(linear, formula, epochs, lrf)


def one_cycle(epochs: Hyperparameter, *, lrf: Hyperparameter) -> Schedule:
    r"""Cosine factor from 1 to ``lrf``, in YOLOv5's order of operations.

    .. math:: f(e) = \frac{1 - \cos(e \pi / E)}{2} (\mathrm{lrf} - 1) + 1

    The curve of ``cosine`` with other roundings. It is an ``lr_lambda``.

    Args:
      epochs: half the cosine's period, E.
      lrf: the factor at ``epochs``.

    Source: ``one_cycle`` of YOLOv5 and Ultralytics, with ``cos_lr``.

    >>> float(one_cycle(100, lrf=0.25)(100))
    0.25
    """

    def formula(count: Any, epochs: Any, lrf: Any) -> Any:
        return ((1 - jnp.cos(quotient(count * math.pi, epochs, count))) / 2) * (lrf - 1) + 1

    return _factor(one_cycle, formula, epochs, lrf)


def _factor(
    factory: Callable[..., Schedule], formula: Any, epochs: Hyperparameter, lrf: Hyperparameter
) -> Schedule:
    require_positive("epochs", epochs)
    return Schedule(factory, locals(), formula_of(formula, epochs, lrf))
