"""The base of torch's update rules: scalars once an update, then each leaf, rounded once.

It counts updates; torch's ``step`` is 1 at the first.
"""

import functools
import inspect
from collections.abc import Callable, Hashable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax
from jax.core import Tracer

from jaxsched._float64 import in_float64, plain_float64
from jaxsched._schedule import as_float64
from jaxsched._validate import is_number, is_zero, require_rule_arguments
from jaxsched.param_groups import Path, leaf_path, leaf_paths

Scalars = Mapping[str, Any]
"""``{name: number}``, in the dtype of a leaf's arithmetic."""

Leaves = Mapping[str, jax.Array]
"""``{tree: leaf}``, what the state holds of one parameter."""

UNCOUNTED = {"momentum_buffer", "momentum_buffer_SGD"}
"""Trees of rules whose updates torch does not count."""

K = TypeVar("K")


class RuleState(NamedTuple):
    """State of an update rule, under the names of torch's ``state_dict``.

    Attributes:
      step: updates made, int32.
      scalars: ``{name: number}``, numbers that torch keeps for each parameter, but that are the same
        for all: float32, or float64 with x64, as torch's in its default dtype.
      trees: ``{name: tree}``, a moment or buffer of each parameter, in the parameter's dtype.
    """

    step: jax.Array
    scalars: dict[str, jax.Array]
    trees: dict[str, optax.Updates]


class Rule(optax.GradientTransformationExtraArgs):
    """An update rule of this package, which takes its hyperparameters in float64.

    A ``Recipe`` checks the type that its ``update_rule`` returns, so that ``functools.partial`` and
    other functions around a rule of the package get float64 too.
    """


def update_rule(
    leaf: Callable[..., tuple[jax.Array, Mapping[str, Any]]],
    scalars: Callable[..., dict[str, Any]],
    arguments: Mapping[str, Any],
    *,
    trees: Sequence[str] | Mapping[str, Callable[[jax.Array], Any]],
    numbers: Sequence[str] = (),
    initial_scalars: Mapping[str, float] = MappingProxyType({}),
    decoupled_weight_decay: bool = False,
    decays_itself: bool = False,
    switches: Mapping[str, Hashable] = MappingProxyType({}),
    switches_of_leaf: Callable[[Path], Mapping[str, Hashable]] | None = None,
    reads_params: str = "",
    duplicate_grad: bool = False,
    exact_scalars: bool = False,
) -> Rule:
    """Build a transformation from a function of the scalars and a function of one leaf.

    Args:
      leaf: ``leaf(c, g, p, old, **switches)``, from the scalars c, the gradient, the parameter and
        the state's leaves to the update of the parameter and the new leaves, all in the dtype of the
        arithmetic: the parameter's, or float32 for half precision. A function of a module, so that
        groups with the same switches are traced once.
      scalars: ``scalars(step, **arguments, **initial_scalars)``, called in float64 once an update,
        returns c, of which each value is rounded once. Values named in ``initial_scalars`` are not
        passed to ``leaf`` but to ``scalars`` at the next update.
      arguments: the rule's arguments by name: those of ``scalars``; ``weight_decay``, coupled (added
        to the leaf's gradient) or decoupled (the parameter shrinks by ``learning_rate`` times it);
        ``decoupled_weight_decay``, which selects one of these; ``maximize``.
      trees: ``{name: function from a parameter to its initial leaf}``, or names, for zeros.
      numbers: the arguments that ``scalars`` takes without naming them.
      initial_scalars: ``{name: number or bool before the first update}``.
      decoupled_weight_decay: for a rule without such an argument.
      decays_itself: whether ``leaf`` applies the weight decay, ``c["decay"]``.
      switches: keyword arguments of ``leaf``, the same for all leaves.
      switches_of_leaf: the switches that depend on the leaf's path.
      reads_params: the reason why ``update`` needs the parameters, for its error.
      duplicate_grad: whether ``old`` has a second copy of the gradient, ``again``, behind a barrier.
        Without it, XLA on a CPU stores the decayed gradient, an array as large as the model, if
        both a buffer and the step read it.
      exact_scalars: whether ``scalars`` rounds nothing (signs and selects only). No device loses
        precision then, and each leaf's kernel can compute them; otherwise, such as for a power or a
        root, they have a kernel of their own.

    Raises:
      ValueError: an argument out of its range.
    """
    names = [*inspect.signature(scalars).parameters, *numbers]
    scalar_arguments = {name: arguments[name] for name in names if name in arguments}
    weight_decay = arguments.get("weight_decay", 0.0)
    require_rule_arguments(**scalar_arguments, weight_decay=weight_decay)
    fresh_leaves = trees if isinstance(trees, Mapping) else dict.fromkeys(trees, jnp.zeros_like)
    decays = not is_zero(weight_decay)
    is_decoupled = arguments.get("decoupled_weight_decay", decoupled_weight_decay)
    coupled = decays and not is_decoupled and not decays_itself
    reads_params = "weight_decay" if decays else reads_params
    kind = _Kind(
        leaf,
        tuple(switches.items()),
        tuple(trees),
        coupled=coupled,
        decoupled=decays and is_decoupled,
        maximize=bool(arguments.get("maximize")),
        duplicate_grad=duplicate_grad,
    )

    def kinds(updates: optax.Updates) -> list[_Kind]:
        paths = leaf_paths(updates)
        if switches_of_leaf is None:
            return [kind] * len(paths)
        of_leaves = (kind.switches + tuple(switches_of_leaf(path).items()) for path in paths)
        return [kind._replace(switches=switches) for switches in of_leaves]

    def init(params: optax.Params) -> Any:
        return RuleState(
            jnp.zeros([], jnp.int32),
            {
                k: jnp.asarray(value, jnp.result_type(type(value)))
                for k, value in initial_scalars.items()
            },
            {
                name: jax.tree.map(lambda p, fresh=fresh: fresh(as_leaf(p)), params)
                for name, fresh in fresh_leaves.items()
            },
        )

    def update(
        updates: optax.Updates, state: Any, params: optax.Params | None = None, **extra_args: Any
    ) -> tuple[Any, Any]:
        del extra_args
        if params is None:
            if reads_params:
                raise ValueError(
                    f"{reads_params} needs the parameters, got None. Pass params to update."
                )
            params = updates
        require_shapes(updates, params)

        def derive() -> dict[str, Any]:
            values = {name: as_float64(value) for name, value in scalar_arguments.items()}
            derived = scalars(state.step.astype(jnp.float64) + 1, **values, **state.scalars)
            decay = as_float64(weight_decay)
            if kind.decoupled:
                derived["shrink"] = 1 - values["learning_rate"] * decay
            return {**derived, "decay": decay}

        if exact_scalars:
            with plain_float64():
                derived = derive()
        else:
            derived = in_float64(derive)
        with jax.enable_x64(True):
            next_scalars = {
                name: jnp.asarray(derived.pop(name)).astype(old.dtype)
                for name, old in state.scalars.items()
            }
        by_dtype = scalars_by_dtype(None if exact_scalars else state.step, **derived)

        # Under jit, trace and lower leaves of one shape once; eagerly each would be compiled.
        traced = any(isinstance(g, Tracer) for g in jax.tree.leaves(updates))
        of_leaf = _traced_row if traced else _row
        leaves, structure = jax.tree.flatten(updates)
        if any(jax.tree.structure(tree) != structure for tree in state.trees.values()):
            raise ValueError(
                "the state must be of the parameters that are trained, got one of others. Where a group "
                "was frozen or thawed, pass optimizers.carry_state(opt_state, tx, params)."
            )
        # By name: jit returns a dictionary with sorted keys.
        others = (params, *(state.trees[name] for name in trees))
        columns = [structure.flatten_up_to(tree) for tree in others]
        # Not `kind`: CPython 3.12 and 3.13 leave a variable that `derive` reads from outside unbound
        # if a comprehension has one of the same name.
        rows = [
            of_leaf(leaf_kind, by_dtype(as_leaf(p).dtype), g, p, old)
            for leaf_kind, g, p, *old in zip(kinds(updates), leaves, *columns, strict=True)
        ]
        if rows:
            updates, *after = map(structure.unflatten, zip(*rows, strict=True))
            state = state._replace(trees=dict(zip(trees, after, strict=True)))
        step: Any = optax.safe_increment(state.step)
        return updates, RuleState(step, next_scalars, state.trees)

    return Rule(init, update)


class _Kind(NamedTuple):
    """The static arguments of a leaf's update."""

    leaf: Callable[..., Any]
    switches: tuple[tuple[str, Hashable], ...]
    trees: tuple[str, ...]
    coupled: bool
    decoupled: bool
    maximize: bool
    duplicate_grad: bool


def _row(kind: _Kind, c: Scalars, g: Any, p: Any, old: Sequence[Any]) -> tuple[Any, ...]:
    """Return a leaf's update and its new leaves of the state, each rounded to its dtype."""
    g, p = as_leaf(g), as_leaf(p)
    if p.size == 0:
        return jnp.zeros_like(p), *old
    wide = c["decay"].dtype
    before = {name: value.astype(wide) for name, value in zip(kind.trees, old, strict=True)}
    if kind.duplicate_grad:
        before["again"] = _add_decay(kind, c, *(_read_again(g, p) if kind.coupled else (g, p)))
    x = p.astype(wide)
    added, after = kind.leaf(c, _add_decay(kind, c, g, p), x, before, **dict(kind.switches))
    if kind.decoupled:
        added = scaling_update(x, c["shrink"]) + added
    news = added, *(after[name] for name in kind.trees)
    for name, new, like in zip(("update", *kind.trees), news, (p, *old), strict=True):
        if new.shape != like.shape:
            raise ValueError(
                f"the state must be of the parameters, one of which has shape {p.shape}, got "
                f"{name} of shapes {like.shape} and {new.shape}. Pass what init returns for them."
            )
    return tuple(new.astype(like.dtype) for new, like in zip(news, (p, *old), strict=True))


_traced_row = jax.jit(_row, static_argnums=0)


def _read_again(*arrays: jax.Array) -> Sequence[jax.Array]:
    """Return the arrays, on a CPU behind an optimization barrier.

    On other devices XLA computes both results of a leaf in one kernel, which stores no intermediate
    array; a barrier would prevent that.
    """
    if not any(isinstance(array, Tracer) for array in arrays):
        return arrays
    return jax.lax.platform_dependent(
        arrays, cpu=jax.lax.optimization_barrier, default=lambda same: same
    )


def _add_decay(kind: _Kind, c: Scalars, g: jax.Array, p: jax.Array) -> jax.Array:
    """Return the rule's gradient: with coupled weight decay, and negated if ``maximize``."""
    wide = c["decay"].dtype
    g = (-g if kind.maximize else g).astype(wide)
    return g + c["decay"] * p.astype(wide) if kind.coupled else g


def scaling_update(x: jax.Array, factor: jax.Array) -> jax.Array:
    """Return ``x * factor - x``, rounded as torch's in-place ``mul_``.

    torch multiplies in place by the rounded factor: in float32 1 - 1e-8 is 1, so there is no decay.
    For factors near 1 the difference is exact.
    """
    # The select prevents a fused multiply-add, which would not round the product as torch does:
    # AdamW in float32 would drift by 19 ULP in 200 updates.
    product = jnp.where(x != 0, x * factor, x)
    # Infinity stays infinity, as in place; the difference would be NaN.
    return jnp.where(product == x, 0, product - x)


def lerp(start: jax.Array, end: jax.Array, weight: jax.Array) -> jax.Array:
    """``torch.lerp``: interpolate from the nearer end, so that a weight of 1 gives ``end``."""
    near = jnp.abs(weight) < 0.5
    return jnp.where(near, start, end) + jnp.where(near, weight, weight - 1) * (end - start)


def mean_of_squares(v: jax.Array, g: jax.Array, keep: jax.Array, add: jax.Array) -> jax.Array:
    """Return ``keep`` times v plus ``add`` times the square of g."""
    return v * keep + add * g * g


def scalars_by_dtype(
    count: jax.Array | None, /, **scalars: Any
) -> Callable[[Any], dict[str, jax.Array]]:
    """Cast float64 scalars, once for each dtype of parameters.

    Args:
      count: the argument of ``own_kernel``; None if no scalar needs its own kernel.
      **scalars: numbers and float64 arrays.

    Returns:
      A function from a parameter's dtype to the scalars in the dtype of its arithmetic, as in
      ``compute_dtype``.
    """

    @functools.cache
    def in_dtype(dtype: Any) -> dict[str, jax.Array]:
        with jax.enable_x64(True):
            wide = compute_dtype(dtype)
            # Plain numbers stay constants, which each kernel contains.
            constants = {k: jnp.asarray(v, wide) for k, v in scalars.items() if is_number(v)}
            others = {k: v for k, v in scalars.items() if k not in constants}
            moving = {k: jnp.asarray(v).astype(wide) for k, v in others.items()}
            return constants | (moving if count is None else own_kernel(moving, count))

    return in_dtype


def own_kernel(values: dict[K, jax.Array], count: jax.Array) -> dict[K, jax.Array]:
    """Return scalars of one dtype, each computed in its own kernel; call with x64 enabled.

    On a CPU XLA repeats a formula in every kernel that reads it, thus for each leaf, unless it ends
    in a division: here by 1, which depends on ``count`` for XLA.
    """
    if not values:
        return {}
    one = 1 + 0.0 * count.astype(next(iter(values.values())).dtype)
    return {name: value / one for name, value in values.items()}


def compute_dtype(dtype: Any) -> Any:
    """Return the dtype of the arithmetic: float32 for half precision and integers, else the dtype.

    ``jnp.promote_types`` raises under strict dtype promotion. Complex is refused: torch's rules
    square and compare the real and the imaginary part separately.
    """
    if jnp.issubdtype(dtype, jnp.complexfloating):
        raise ValueError(
            f"parameters and gradients must be real, got {jnp.dtype(dtype)}. Wrap the "
            "transformation in optax.contrib.split_real_and_imaginary."
        )
    is_wide = jnp.issubdtype(dtype, jnp.inexact) and jnp.finfo(dtype).bits >= 32
    return jnp.dtype(dtype if is_wide else jnp.float32)


def as_leaf(x: Any) -> Any:
    """Return an array unchanged, and a Python number as an array."""
    return x if hasattr(x, "dtype") else jnp.asarray(x, jnp.result_type(float))


def require_shapes(gradients: optax.Updates, params: optax.Params) -> None:
    """Refuse a gradient whose shape differs from its parameter's: it would broadcast."""

    def check(keys: tuple[Any, ...], g: Any, p: Any) -> None:
        if jnp.shape(g) != jnp.shape(p):
            raise ValueError(
                f"the gradient of {'/'.join(leaf_path(keys)) or 'the parameter'} must have the "
                f"parameter's shape {jnp.shape(p)}, got {jnp.shape(g)}. Pass the gradients of params."
            )

    jax.tree_util.tree_map_with_path(check, gradients, params)
