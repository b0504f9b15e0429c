r"""Float64 that keeps its precision on a TPU.

A TPU has no float64: XLA computes with pairs of float32 there, the sum of two numbers and its error,

.. math:: s = a + b, \quad e = (a - (s - b')) + (b - b'), \quad b' = s - a,

and then simplifies what it wrote: where a or b is a constant it reassociates, and loses part of e.
What ``bind_float64`` traces is one primitive to JAX, lowered as it stands for other devices. For a
TPU its constants are hidden from XLA, and functions that XLA writes with constants of its own are
those below: some 46 bits of float64's 53 are kept. All other functions stay XLA's (``tanh``, ``tan``,
``exp2``, ``expm1``, ``log1p``, the logistic) and can be an ULP of float32 or more off. So do every
``while`` and each ``scan`` of more than ``MAX_UNROLLED`` steps, with all that is in their bodies; a
shorter ``scan`` is unrolled, the search of ``jnp.interp`` among them.
"""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal, Primitive, jaxpr_as_fun
from jax.interpreters import ad, batching, mlir


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

    found = iter(_bound(arrays))
    leaves, structure = tree
    return structure.unflatten(next(found) if leaf is None else leaf for leaf in leaves)


MAX_UNROLLED = 64  # the longest loop that hidden unrolls, in steps: each is compiled by itself

# As "How JAX primitives work" in JAX's documentation has it.
_float64 = Primitive("float64")
_float64.multiple_results = True


def _bound(function: Callable[[], Sequence[Any]], *, low: bool = False) -> list[Any]:
    """What ``function`` computes, all that it closes over handed to the primitive.

    What has effects, or names an axis of ``vmap``, stays as it stands: a primitive would hide it.
    """
    program: Any = jax.make_jaxpr(function)()
    if low:
        from jax._src.interpreters import partial_eval

        program = partial_eval.lower_jaxpr2(program)  # pyright: ignore[reportAttributeAccessIssue]
    if program.effects:
        return jaxpr_as_fun(program)()
    return _float64.bind(*program.consts, jaxpr=program.jaxpr)


def _plain(*args: Any, jaxpr: Jaxpr, on_tpu: bool = False) -> list[Any]:
    with jax.enable_x64(True):
        program = ClosedJaxpr(jaxpr, args)
        return hidden(program) if on_tpu else jaxpr_as_fun(program)()


def _batched(args: Sequence[Any], axes: Sequence[Any], *, jaxpr: Jaxpr) -> Any:
    several = {v for v, axis in zip(jaxpr.constvars, axes, strict=True) if axis is not None}
    for equation in jaxpr.eqns:
        if not several.isdisjoint(v for v in equation.invars if not isinstance(v, Literal)):
            several |= set(equation.outvars)
    # What depends on nothing that is batched stays one, as it does without the primitive.
    out = [0 if not isinstance(v, Literal) and v in several else None for v in jaxpr.outvars]
    with jax.enable_x64(True):
        plain = functools.partial(_plain, jaxpr=jaxpr)
        many = jax.vmap(plain, in_axes=tuple(axes), out_axes=out)
        return _bound(lambda: many(*args)), out


def _differentiated(primals: Sequence[Any], tangents: Sequence[Any], *, jaxpr: Jaxpr) -> Any:
    """Tangents are as XLA has them: equality is claimed of values."""
    moving = [k for k, tangent in enumerate(tangents) if not isinstance(tangent, ad.Zero)]

    def of(*moved: Any) -> list[Any]:
        args = dict(enumerate(primals)) | dict(zip(moving, moved, strict=True))
        return _plain(*args.values(), jaxpr=jaxpr)

    _, found = jax.jvp(of, [primals[k] for k in moving], [tangents[k] for k in moving])
    return _float64.bind(*primals, jaxpr=jaxpr), found


# JAX 0.12 asks for the program without its high-level primitives before it compiles. Its
# searchsorted is one, and so in the search of jnp.interp.
vars(_float64)["to_lojax"] = lambda *args, jaxpr: _bound(
    lambda: _plain(*args, jaxpr=jaxpr), low=True
)
# Step by step: under jit it would be compiled anew at each call.
_float64.def_impl(
    lambda *args, jaxpr: _plain(*args, jaxpr=jaxpr, on_tpu=jax.default_backend() == "tpu")
)
_float64.def_abstract_eval(lambda *_, jaxpr: [atom.aval for atom in jaxpr.outvars])
mlir.register_lowering(_float64, mlir.lower_fun(_plain, multiple_results=True))
_on_tpu = functools.partial(_plain, on_tpu=True)
mlir.register_lowering(_float64, mlir.lower_fun(_on_tpu, multiple_results=True), platform="tpu")
batching.primitive_batchers[_float64] = _batched
ad.primitive_jvps[_float64] = _differentiated


def hidden(program: ClosedJaxpr, *args: Any) -> list[Any]:
    """What a program computes, its float64 constants hidden, by the functions below."""
    jaxpr = program.jaxpr
    atoms = [*(atom for equation in jaxpr.eqns for atom in equation.invars), *jaxpr.outvars]
    literals: list[Any] = [atom for atom in atoms if isinstance(atom, Literal)]
    values = [jnp.asarray(atom.val, atom.aval.dtype) for atom in literals]
    constants = _unseen(*program.consts, *values)
    # A literal is known by what it is, not by its value: 1 may be of several dtypes.
    names = [*jaxpr.constvars, *map(id, literals), *jaxpr.invars]
    known: dict[Any, Any] = dict(zip(names, [*constants, *args], strict=True))

    def read(atoms: Sequence[Any]) -> list[Any]:
        return [known[id(atom) if isinstance(atom, Literal) else atom] for atom in atoms]

    for equation in jaxpr.eqns:
        known |= zip(equation.outvars, _results(equation, read(equation.invars)), strict=True)
    return read(jaxpr.outvars)


def _unseen(*values: Any) -> list[Any]:
    """The same values, those of float64 as if they were known only when the program runs."""
    arrays = [jnp.asarray(value) for value in values]
    wide = [k for k, array in enumerate(arrays) if array.dtype == jnp.float64]
    for k, array in zip(wide, jax.lax.optimization_barrier([arrays[k] for k in wide]), strict=True):
        arrays[k] = array
    return arrays


def _results(equation: Any, inputs: Sequence[Any]) -> Sequence[Any]:
    name, parameters = equation.primitive.name, equation.params
    if name in ("jit", "pjit", "custom_jvp_call", "custom_vjp_call", "eval_jaxpr"):
        return hidden(parameters["jaxpr" if "jaxpr" in parameters else "call_jaxpr"], *inputs)
    if name in ("checkpoint", "remat2"):
        return hidden(ClosedJaxpr(parameters["jaxpr"], ()), *inputs)
    if name == "cond":
        index, *operands = inputs
        branches = [functools.partial(hidden, branch) for branch in parameters["branches"]]
        return jax.lax.switch(index, branches, *operands)
    if name == "scan" and 0 < parameters["length"] <= MAX_UNROLLED:
        return _unrolled(inputs, **parameters)
    if name in FUNCTIONS and equation.outvars[0].aval.dtype == jnp.float64:
        return [FUNCTIONS[name](*inputs)]
    found = equation.primitive.bind(*inputs, **parameters)
    return found if equation.primitive.multiple_results else [found]


def _unrolled(
    inputs: Sequence[Any], *, jaxpr: ClosedJaxpr, length: int, reverse: bool, **others: Any
) -> list[Any]:
    """Return the results of a ``scan``, its steps computed one after the other by ``hidden``."""
    if "ft_in" in others:  # JAX 0.12
        num_consts, num_carry, _ = map(len, others["ft_in"].unpack())
    else:
        num_consts, num_carry = others["num_consts"], others["num_carry"]
    constants, inputs = inputs[:num_consts], inputs[num_consts:]
    carry, columns = inputs[:num_carry], inputs[num_carry:]
    rows: list[Sequence[Any]] = []
    order = slice(None, None, -1 if reverse else 1)
    for at in range(length)[order]:
        results = hidden(jaxpr, *constants, *carry, *(column[at] for column in columns))
        carry = results[:num_carry]
        rows.append(results[num_carry:])
    return [*carry, *map(jnp.stack, zip(*rows[order], strict=True))]


def _series(x: jax.Array, coefficients: Sequence[float]) -> Any:
    """The polynomial with these coefficients, the constant first."""
    return functools.reduce(lambda total, c: total * x + c, reversed(_unseen(*coefficients)))


def _reduced(x: jax.Array, high: float, low: float) -> tuple[jax.Array, jax.Array]:
    """Whole periods of ``high + low`` in x, and what is left, at most half of one either way.

    ``high`` has so few bits that its products with whole numbers are exact.
    """
    high_, low_, half = _unseen(high, low, 0.5)
    whole = jnp.floor(x / high_ + half)
    return whole, (x - whole * high_) - whole * low_


def cos(x: jax.Array, *, quadrants: int = 0) -> jax.Array:
    r""":math:`\cos(x + q \pi / 2)`."""
    whole, rest = _reduced(x, 1.5707963267341256, 6.077100506506192e-11)
    signs = [(-1) ** k for k in range(10)]
    even = _series(rest * rest, [s / math.factorial(2 * k) for k, s in enumerate(signs)])
    odd = rest * _series(rest * rest, [s / math.factorial(2 * k + 1) for k, s in enumerate(signs)])
    quadrant = jnp.mod(whole.astype(jnp.int32) + quadrants, 4)
    value = jnp.where(quadrant % 2 == 0, even, odd)
    return jnp.where((quadrant == 1) | (quadrant == 2), -value, value)


def exp(x: jax.Array) -> jax.Array:
    r""":math:`2^k e^r`, where :math:`x = k \ln 2 + r`; 0 below float32's normal numbers."""
    whole, rest = _reduced(x, 0.6931471803691238, 1.9082149292705877e-10)
    bits = (jnp.clip(whole, -127, 128).astype(jnp.int32) + 127) << 23
    scale = jax.lax.bitcast_convert_type(bits, jnp.float32).astype(jnp.float64)
    value = scale * _series(rest, [1 / math.factorial(k) for k in range(16)])
    return jnp.where(jnp.isfinite(rest), value, jnp.exp(x.astype(jnp.float32)))


def log(x: jax.Array) -> jax.Array:
    """Halley's step from float32's logarithm."""
    near = jnp.log(x.astype(jnp.float32)).astype(jnp.float64)
    back = exp(near)
    (two,) = _unseen(2.0)
    return jnp.where(jnp.isfinite(near), near + two * ((x - back) / (x + back)), near)


def power(x: jax.Array, y: jax.Array) -> jax.Array:
    """The power x to the y; where x is not above 0, float32's."""
    y = y.astype(jnp.float64)
    coarse = jnp.power(x.astype(jnp.float32), y.astype(jnp.float32)).astype(jnp.float64)
    regular = (x > 0) & jnp.isfinite(x)
    return jnp.where(regular, exp(y * log(jnp.where(regular, x, 1.0))), coarse)


def sqrt(x: jax.Array) -> jax.Array:
    """Newton's steps from float32's root."""
    root = jnp.sqrt(x.astype(jnp.float32)).astype(jnp.float64)
    regular = (root > 0) & jnp.isfinite(root)
    (half,) = _unseen(0.5)
    for _ in range(2):
        root = jnp.where(regular, half * (root + x / root), root)
    return root


sin = functools.partial(cos, quadrants=-1)
FUNCTIONS = {"cos": cos, "sin": sin, "exp": exp, "log": log, "pow": power, "sqrt": sqrt}
