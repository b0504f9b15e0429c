r"""Float64 that keeps its precision on a TPU.

A TPU has no float64: XLA computes with pairs of float32 there, the sum of two numbers and its error,

.. math:: s = a + b, \quad e = (a - (s - b')) + (b - b'), \quad b' = s - a,

and then simplifies the result: if a or b is a constant it reassociates, and loses part of e. So a
program's constants are hidden from XLA, and the functions that XLA would expand with constants are
replaced by those below: some 46 of float64's 53 bits remain. All other functions are XLA's
(``tanh``, ``tan``, ``exp2``, ``expm1``, ``log1p``, the logistic) and can be off by an ULP of float32
or more. So can the bodies of every ``while`` and of each ``scan`` of more than ``MAX_UNROLLED``
steps; a shorter ``scan``, such as the search of ``jnp.interp``, is unrolled.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Literal

MAX_UNROLLED = 64  # steps of the longest scan that is unrolled; each step is compiled by itself
CALLS = {
    **dict.fromkeys(("jit", "pjit"), "jaxpr"),
    **dict.fromkeys(("custom_jvp_call", "custom_vjp_call", "eval_jaxpr"), "call_jaxpr"),
}
"""Primitives that call a program, with the name of that parameter."""


def eval_hidden(program: ClosedJaxpr, *args: Any) -> list[Any]:
    """Evaluate a program with its float64 constants hidden and with ``FUNCTIONS`` for XLA's."""
    jaxpr = program.jaxpr
    atoms = [*(atom for equation in jaxpr.eqns for atom in equation.invars), *jaxpr.outvars]
    literals: list[Any] = [atom for atom in atoms if isinstance(atom, Literal)]
    values = [jnp.asarray(atom.val, atom.aval.dtype) for atom in literals]
    constants = _hide(*program.consts, *values)
    # Literals are looked up by identity, not by value: 1 may have several dtypes.
    names = [*jaxpr.constvars, *map(id, literals), *jaxpr.invars]
    values_by_name: dict[Any, Any] = dict(zip(names, [*constants, *args], strict=True))

    def read(atoms: Sequence[Any]) -> list[Any]:
        return [values_by_name[id(atom) if isinstance(atom, Literal) else atom] for atom in atoms]

    for equation in jaxpr.eqns:
        values_by_name |= zip(
            equation.outvars, _results(equation, read(equation.invars)), strict=True
        )
    return read(jaxpr.outvars)


def _hide(*values: Any) -> list[Any]:
    """Return the values as arrays, those of float64 behind an optimization barrier."""
    arrays = [jnp.asarray(value) for value in values]
    wide = [k for k, array in enumerate(arrays) if array.dtype == jnp.float64]
    for k, array in zip(wide, jax.lax.optimization_barrier([arrays[k] for k in wide]), strict=True):
        arrays[k] = array
    return arrays


def _results(equation: Any, inputs: Sequence[Any]) -> Sequence[Any]:
    name, parameters = equation.primitive.name, equation.params
    if name in CALLS:
        return eval_hidden(parameters[CALLS[name]], *inputs)
    if name in ("checkpoint", "remat2"):
        return eval_hidden(ClosedJaxpr(parameters["jaxpr"], ()), *inputs)
    if name == "cond":
        index, *operands = inputs
        branches = [functools.partial(eval_hidden, branch) for branch in parameters["branches"]]
        return jax.lax.switch(index, branches, *operands)
    if name == "scan" and 0 < parameters["length"] <= MAX_UNROLLED:
        return _unroll(inputs, **parameters)
    if name in FUNCTIONS and equation.outvars[0].aval.dtype == jnp.float64:
        return [FUNCTIONS[name](*inputs)]
    results = equation.primitive.bind(*inputs, **parameters)
    return results if equation.primitive.multiple_results else [results]


def _unroll(
    inputs: Sequence[Any], *, jaxpr: ClosedJaxpr, length: int, reverse: bool, **others: Any
) -> list[Any]:
    """Return the results of a ``scan``, each step evaluated by ``eval_hidden``."""
    if "ft_in" in others:  # JAX 0.12
        num_consts, num_carry, _ = map(len, others["ft_in"].unpack())
    else:
        num_consts, num_carry = others["num_consts"], others["num_carry"]
    constants, inputs = inputs[:num_consts], inputs[num_consts:]
    carry, columns = inputs[:num_carry], inputs[num_carry:]
    rows: list[Sequence[Any]] = []
    order = slice(None, None, -1 if reverse else 1)
    for at in range(length)[order]:
        results = eval_hidden(jaxpr, *constants, *carry, *(column[at] for column in columns))
        carry = results[:num_carry]
        rows.append(results[num_carry:])
    return [*carry, *map(jnp.stack, zip(*rows[order], strict=True))]


def _series(x: jax.Array, coefficients: Sequence[float]) -> Any:
    """Evaluate the polynomial with these coefficients, the constant first."""
    return functools.reduce(lambda total, c: total * x + c, reversed(_hide(*coefficients)))


def _reduce_argument(x: jax.Array, high: float, low: float) -> tuple[jax.Array, jax.Array]:
    """Return the nearest number of periods ``high + low`` in x, and the remainder.

    ``high`` has so few bits that its products with integers are exact.
    """
    high_, low_, half = _hide(high, low, 0.5)
    whole = jnp.floor(x / high_ + half)
    return whole, (x - whole * high_) - whole * low_


def cos(x: jax.Array, *, quadrants: int = 0) -> jax.Array:
    r"""Return :math:`\cos(x + q \pi / 2)`, q being ``quadrants``."""
    whole, rest = _reduce_argument(x, 1.5707963267341256, 6.077100506506192e-11)
    signs = [(-1) ** k for k in range(10)]
    even = _series(rest * rest, [s / math.factorial(2 * k) for k, s in enumerate(signs)])
    odd = rest * _series(rest * rest, [s / math.factorial(2 * k + 1) for k, s in enumerate(signs)])
    quadrant = jnp.mod(whole.astype(jnp.int32) + quadrants, 4)
    value = jnp.where(quadrant % 2 == 0, even, odd)
    return jnp.where((quadrant == 1) | (quadrant == 2), -value, value)


def exp(x: jax.Array) -> jax.Array:
    r"""Return :math:`2^k e^r` with :math:`x = k \ln 2 + r`; 0 below float32's normal numbers."""
    whole, rest = _reduce_argument(x, 0.6931471803691238, 1.9082149292705877e-10)
    bits = (jnp.clip(whole, -127, 128).astype(jnp.int32) + 127) << 23
    scale = jax.lax.bitcast_convert_type(bits, jnp.float32).astype(jnp.float64)
    value = scale * _series(rest, [1 / math.factorial(k) for k in range(16)])
    return jnp.where(jnp.isfinite(rest), value, jnp.exp(x.astype(jnp.float32)))


def log(x: jax.Array) -> jax.Array:
    """Return float32's logarithm refined by one step of Halley's method."""
    near = jnp.log(x.astype(jnp.float32)).astype(jnp.float64)
    back = exp(near)
    (two,) = _hide(2.0)
    return jnp.where(jnp.isfinite(near), near + two * ((x - back) / (x + back)), near)


def power(x: jax.Array, y: jax.Array) -> jax.Array:
    """Return x to the power y; in float32 where x is not above 0."""
    y = y.astype(jnp.float64)
    coarse = jnp.power(x.astype(jnp.float32), y.astype(jnp.float32)).astype(jnp.float64)
    regular = (x > 0) & jnp.isfinite(x)
    return jnp.where(regular, exp(y * log(jnp.where(regular, x, 1.0))), coarse)


def sqrt(x: jax.Array) -> jax.Array:
    """Return float32's root refined by two steps of Newton's method."""
    root = jnp.sqrt(x.astype(jnp.float32)).astype(jnp.float64)
    regular = (root > 0) & jnp.isfinite(root)
    (half,) = _hide(0.5)
    for _ in range(2):
        root = jnp.where(regular, half * (root + x / root), root)
    return root


sin = functools.partial(cos, quadrants=-1)
FUNCTIONS = {"cos": cos, "sin": sin, "exp": exp, "log": log, "pow": power, "sqrt": sqrt}
