"""Checks of arguments. Each raises one sentence: what, the rule, the value, the remedy.

Tracers pass every check, and so do JAX arrays, since reading one would wait for its device.
"""

import math
import numbers
import operator
import reprlib
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

INT32_LIMIT = 2**31
MAX_MESSAGE = 500  # characters of an error message


def shorten(text: str, limit: int = MAX_MESSAGE) -> str:
    r"""Return a text on one line; cut out its middle if it has more than ``limit`` characters.

    >>> shorten("what, the rule, a long value,\n the remedy", 20)
    'what, the … e remedy'
    """
    text = " ".join(text.split())
    end = limit // 2 - 2
    return text if len(text) <= limit else f"{text[: limit - end - 3]} … {text[-end:]}"


_REPR = reprlib.Repr()
_REPR.maxlevel, _REPR.maxstring, _REPR.maxlong, _REPR.maxother = 2, 90, 90, 120


def describe(value: Any) -> str:
    """Return ``repr(value)`` in at most 120 characters; large trees are cut while writing."""
    return shorten(_REPR.repr(value), 120)


def is_number(value: Any) -> bool:
    """Return whether ``value`` is a plain real number, not an array, a tracer or a bool."""
    # Tracers first: the abstract class numbers.Real takes long to reject one.
    return not isinstance(value, Tracer | bool | np.bool_) and isinstance(value, numbers.Real)


def is_zero(value: Any) -> bool:
    """Return whether ``value`` is the plain number 0."""
    return is_number(value) and value == 0


def is_real_array(value: Any) -> bool:
    """Return whether ``value`` is an array or a tracer of real numbers."""
    kinds = (jnp.floating, jnp.integer)
    is_array = hasattr(value, "dtype") and not isinstance(value, type)  # jnp.bfloat16 has one
    return is_array and any(jnp.issubdtype(value.dtype, kind) for kind in kinds)


def dtype_name(value: Any) -> Any:
    """Return the name of a dtype, such as ``jnp.bfloat16``, and any other value as it is."""
    dtype = getattr(value, "dtype", None) if isinstance(value, type) else value
    is_scalar = isinstance(value, type) and issubclass(value, np.generic)
    return jnp.dtype(value).name if isinstance(dtype, np.dtype) or is_scalar else value


def require(name: str, value: Any, rule: str, holds: Callable[[Any], Any]) -> None:
    """Refuse a concrete ``value`` for which ``holds`` is false or raises; ``rule`` states it.

    >>> require("lrf", -1.0, "a finite number of at least 0", lambda v: v >= 0)
    Traceback (most recent call last):
    ...
    ValueError: lrf must be a finite number of at least 0, got -1.0
    """
    if isinstance(value, jax.Array):
        return
    error = ValueError
    try:
        if holds(value):
            return
    except TypeError:
        error = TypeError
    except (ValueError, OverflowError):
        pass
    raise error(f"{name} must be {rule}, got {describe(value)}")


def require_count(name: str, value: Any, *, at_least: int = 0) -> None:
    """Refuse a concrete ``value`` that is not an integer of at least ``at_least``."""
    rule = f"an integer of at least {at_least}"
    if isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be {rule}, got {describe(value)}")
    require(name, value, rule, lambda v: operator.index(v) >= at_least)


def require_nonnegative(**values: Any) -> None:
    """Refuse concrete values that are negative, infinite or NaN."""
    for name, value in values.items():
        if isinstance(value, bool | np.bool_):
            raise TypeError(f"{name} must be a finite number of at least 0, got {describe(value)}")
        require(name, value, "a finite number of at least 0", lambda v: math.isfinite(v) and v >= 0)


def require_positive(name: str, value: Any) -> None:
    """Refuse a concrete value that is 0, negative, infinite or NaN."""
    require(name, value, "a finite number above 0", lambda v: v > 0 and math.isfinite(v))


def require_base_lr(base_lr: Any) -> None:
    """Refuse negative rates and NaN, as torch's optimizers do."""
    require("base_lr", base_lr, "at least 0", lambda v: np.all(v >= 0))


def require_below_int32(name: str, value: Any) -> None:
    """Refuse a count that int32 cannot hold."""
    require(name, value, "below 2**31, the int32 limit", lambda v: v < INT32_LIMIT)


BETA = ("at least 0 and below 1", lambda v: 0 <= v < 1)
# Ranges of the update rules' arguments; all others are finite and at least 0.
RANGES: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "b1": BETA,
    "b2": BETA,
    "rho": ("from 0 to 1", lambda v: 0 <= v <= 1),
    "beta2_decay": ("at most 0", lambda v: v <= 0),
    "d": ("at least 1", lambda v: v >= 1),
    "eta_minus": ("above 0 and below 1", lambda v: 0 < v < 1),
    "eta_plus": ("a finite number above 1", lambda v: 1 < v < float("inf")),
}
SMALLEST = {  # below it XLA would divide by 0 where torch does not
    "eps": (1.1754943508222875e-38, "1.1754944e-38, below which XLA takes float32 for 0"),
    "eps1": (1.084203e-19, "1.084203e-19, below whose square XLA takes float32 for 0"),
}


def require_rule_arguments(*, learning_rate: Any, **others: Any) -> None:
    """Refuse a learning rate that is not a scalar, and numbers out of their range."""
    shape = getattr(learning_rate, "shape", ())
    if shape:
        raise ValueError(f"learning_rate must be a scalar, got shape {tuple(shape)}.")
    for name, value in {"learning_rate": learning_rate, **others}.items():
        if name in RANGES:
            require(name, value, *RANGES[name])
        else:
            require_nonnegative(**{name: value})
        if name in SMALLEST:
            least, rule = SMALLEST[name]
            require(name, value, f"0 or at least {rule}", lambda v, at=least: v == 0 or v >= at)


def require_bool(**values: Any) -> None:
    """Refuse values that are not bool."""
    for name, value in values.items():
        if not isinstance(value, bool | np.bool_):
            raise TypeError(f"{name} must be True or False, got {describe(value)}")


def require_choice(name: str, value: Any, choices: Iterable[str]) -> None:
    """Refuse a string that is not among ``choices``."""
    choices = list(choices)
    if not isinstance(value, str):
        strings = ", ".join(map(repr, choices))
        raise TypeError(f"{name} must be one of the strings {strings}, got {describe(value)}")
    require(name, value, f"one of {', '.join(choices)}", lambda v: v in choices)


def require_one_group(name: str, hyperparameters: Iterable[Any]) -> None:
    """Refuse torch's list with a value for each group, which would broadcast against the counts."""
    for value in hyperparameters:
        if isinstance(value, list | tuple) or getattr(value, "ndim", 0):
            raise ValueError(
                f"each hyperparameter of {name} must be one number, got {describe(value)}: "
                "call it once a group."
            )


def require_run(*, epochs: Any, steps_per_epoch: Any, start_epoch: Any) -> None:
    """Refuse a run without an epoch or an iteration, and a start at or past its end."""
    require_count("epochs", epochs, at_least=1)
    require_count("steps_per_epoch", steps_per_epoch, at_least=1)
    require_count("start_epoch", start_epoch)
    if not isinstance(epochs, jax.Array):
        require("start_epoch", start_epoch, f"below epochs, {epochs}", lambda v: v < epochs)
    require_below_int32("epochs * steps_per_epoch", epochs * steps_per_epoch)
