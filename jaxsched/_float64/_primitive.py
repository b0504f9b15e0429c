"""The primitive ``float64``: a function, traced with x64 enabled, that is one operation to JAX.

It is lowered unchanged, but for a TPU as ``_tpu`` evaluates it.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir

from jaxsched._float64._tpu import CALLS, eval_hidden

MAX_INLINE = 8  # steps of the longest scan that is no loop; jnp.interp on 100 points searches in 7

# Defined as in "How JAX primitives work" of JAX's documentation.
_float64 = Primitive("float64")
_float64.multiple_results = True


def bind_float64(function: Callable[[], Any]) -> Any:
    """Trace ``function``, with x64 enabled, and bind it as a single ``float64`` primitive.

    Leaves of the result that are not arrays are returned as they are.
    """
    tree: Any = None

    def arrays() -> list[jax.Array]:
        nonlocal tree
        leaves, structure = jax.tree.flatten(function())
        tree = [None if isinstance(leaf, jax.Array) else leaf for leaf in leaves], structure
        return [leaf for leaf in leaves if isinstance(leaf, jax.Array)]

    results = iter(_bind(arrays))
    leaves, structure = tree
    return structure.unflatten(next(results) if leaf is None else leaf for leaf in leaves)


def _bind(function: Callable[[], Sequence[Any]], *, low: bool = False) -> list[Any]:
    """Trace ``function`` and bind it to the primitive, with the arrays it closes over as operands.

    A program with effects, or that names an axis of ``vmap``, is evaluated directly: the primitive
    would hide them.
    """
    program: Any = jax.make_jaxpr(function)()
    if low:
        from jax._src.interpreters import partial_eval

        program = partial_eval.lower_jaxpr2(program)  # pyright: ignore[reportAttributeAccessIssue]
    if program.effects:
        return jaxpr_as_fun(program)()
    return _float64.bind(*program.consts, jaxpr=_unroll_scans(program.jaxpr))


def _unroll_scans(jaxpr: Jaxpr) -> Jaxpr:
    """Return a program whose short scans, such as the search of ``jnp.interp``, are no loops.

    A loop is a kernel for each of its steps, and prevents the fusion of what is around it.
    """

    def unroll(equation: Any) -> Any:
        name, parameters = equation.primitive.name, dict(equation.params)
        if name in CALLS:
            inner = parameters[CALLS[name]]
            parameters[CALLS[name]] = inner.replace(jaxpr=_unroll_scans(inner.jaxpr))
        elif name == "scan" and 0 < parameters["length"] <= MAX_INLINE:
            parameters["unroll"] = parameters["length"]
        return equation.replace(params=parameters)

    return jaxpr.replace(eqns=[unroll(equation) for equation in jaxpr.eqns])


def _evaluate(*args: Any, jaxpr: Jaxpr, on_tpu: bool = False) -> list[Any]:
    with jax.enable_x64(True):
        program = ClosedJaxpr(jaxpr, args)
        return eval_hidden(program) if on_tpu else jaxpr_as_fun(program)()


def _batch(args: Sequence[Any], axes: Sequence[Any], *, jaxpr: Jaxpr) -> Any:
    several = {v for v, axis in zip(jaxpr.constvars, axes, strict=True) if axis is not None}
    for equation in jaxpr.eqns:
        if not several.isdisjoint(v for v in equation.invars if not isinstance(v, Literal)):
            several |= set(equation.outvars)
    # Results that depend on no batched operand stay unbatched, as without the primitive.
    out = [0 if not isinstance(v, Literal) and v in several else None for v in jaxpr.outvars]
    with jax.enable_x64(True):
        plain = functools.partial(_evaluate, jaxpr=jaxpr)
        many = jax.vmap(plain, in_axes=tuple(axes), out_axes=out)
        return _bind(lambda: many(*args)), out


def _jvp(primals: Sequence[Any], tangents: Sequence[Any], *, jaxpr: Jaxpr) -> Any:
    """Differentiate; only the values keep their precision, tangents use XLA's float64."""
    moving = [k for k, tangent in enumerate(tangents) if not isinstance(tangent, ad.Zero)]

    def evaluate(*values: Any) -> list[Any]:
        args = dict(enumerate(primals)) | dict(zip(moving, values, strict=True))
        return _evaluate(*args.values(), jaxpr=jaxpr)

    _, results = jax.jvp(evaluate, [primals[k] for k in moving], [tangents[k] for k in moving])
    return _float64.bind(*primals, jaxpr=jaxpr), results


# JAX 0.12 requests the program without high-level primitives before it compiles. searchsorted,
# which jnp.interp calls, is one of them.
vars(_float64)["to_lojax"] = lambda *args, jaxpr: _bind(
    lambda: _evaluate(*args, jaxpr=jaxpr), low=True
)
# Evaluated operation by operation: with jit it would be compiled at each call.
_float64.def_impl(
    lambda *args, jaxpr: _evaluate(*args, jaxpr=jaxpr, on_tpu=jax.default_backend() == "tpu")
)
_float64.def_abstract_eval(lambda *_, jaxpr: [atom.aval for atom in jaxpr.outvars])
mlir.register_lowering(_float64, mlir.lower_fun(_evaluate, multiple_results=True))
_on_tpu = functools.partial(_evaluate, on_tpu=True)
mlir.register_lowering(_float64, mlir.lower_fun(_on_tpu, multiple_results=True), platform="tpu")
batching.primitive_batchers[_float64] = _batch
ad.primitive_jvps[_float64] = _jvp
