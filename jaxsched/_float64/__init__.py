"""Float64 inside a graph: with x64 enabled, and without loss of precision on a TPU."""

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import TypeVar

import jax
import jax.numpy as jnp
from jax.core import Tracer

T = TypeVar("T")

_inside: ContextVar[bool] = ContextVar("inside", default=False)


def in_float64(fn: Callable[[], T]) -> T:
    """Call ``fn`` with 64-bit types enabled; it may return arrays and other objects.

    When traced by JAX, or on a TPU, the computation becomes one primitive, so that the lowering for
    a TPU can preserve its precision. Nested calls are inlined into the outermost one. On a TPU,
    loops of unknown length, or of more than ``_tpu.MAX_UNROLLED`` steps, are left to XLA.
    """
    if _inside.get():
        return fn()
    with plain_float64():
        # Within jit, vmap, scan or grad an operation on a constant returns a tracer.
        if jax.default_backend() != "tpu" and not isinstance(jnp.zeros(()) + 0.0, Tracer):
            return fn()
        from jaxsched._float64._primitive import bind_float64  # jax.extend takes long to import

        return bind_float64(fn)


@contextlib.contextmanager
def plain_float64() -> Iterator[None]:
    """Enable 64-bit types; within this context ``in_float64`` calls run inline, as plain operations."""
    token = _inside.set(True)
    try:
        with jax.enable_x64(True):
            yield
    finally:
        _inside.reset(token)
