"""Where float64 is computed: with x64 on, and on a TPU so that it keeps its precision."""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax.core import Tracer

T = TypeVar("T")

_within: ContextVar[bool] = ContextVar("within", default=False)


def computed(function: Callable[[], T]) -> T:
    """``function()``, called with x64 on: a tree of arrays, and of whatever else it holds.

    What is computed within it is part of it. On a TPU a loop is left to XLA where its length is
    known only when it runs, or above ``tpu.MAX_UNROLLED``.
    """
    with jax.enable_x64(True):
        if _within.get():
            return function()
        with within():
            traced = isinstance(jnp.zeros(()) + 0.0, Tracer)
            if not traced and jax.default_backend() != "tpu":
                return function()
            from jaxsched.tpu import lowered  # jax.extend takes long to import

            return lowered(function)


@contextlib.contextmanager
def within() -> Iterator[None]:
    """Where ``computed`` only calls its function."""
    token = _within.set(True)
    try:
        yield
    finally:
        _within.reset(token)
