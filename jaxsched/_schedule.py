"""Schedule: a float64 formula of a count, and the expression that builds it."""

import contextlib
import copy
import dataclasses
import functools
import inspect
import math
import types
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from jaxsched._float64 import in_float64
from jaxsched._validate import is_number, is_real_array

Formula = Callable[[Any], Any]
"""A function from a count, int64 or float64, to a float64; called with x64 enabled."""

ScheduleLike = Callable[[Any], ArrayLike]
"""A ``Schedule``, an Optax schedule, or any function of the count in operators and ``jnp``."""

Hyperparameter = ArrayLike
"""A number, or a scalar array, which may be traced by JAX."""

MAX_SHOWN = 100  # values of a sequence that repr writes out
# Packages whose functions repr writes without the module.
UNQUALIFIED = ("jaxsched", "__main__", "builtins")


class FrozenDict(Mapping[str, Any]):
    """An immutable mapping; a deep copy of it is a plain dictionary, which can be edited."""

    def __init__(self, entries: Mapping[str, Any]) -> None:
        self._entries = dict(entries)

    def __getitem__(self, key: str) -> Any:
        return self._entries[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __repr__(self) -> str:
        return repr(self._entries)

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return self._entries | dict(other)

    def __deepcopy__(self, memo: Any) -> dict[str, Any]:
        return copy.deepcopy(self._entries, memo)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Schedule:
    r"""A pure function of a count, evaluated in float64 and rounded once.

    .. math:: s(c) = \operatorname{round}(\mathrm{formula}(c))

    A schedule consists of its factory, a function of ``jaxsched.schedules`` or
    ``jaxsched.lr_scheduler``, and the factory's arguments: ``repr`` is the expression that builds
    it, two schedules are equal if factory and arguments are, ``pickle`` stores these, and
    ``replace`` calls the factory again.

    Attributes:
      factory: the function that built the schedule.
      arguments: the factory's arguments, defaults included. A factory passes its ``locals()``;
        other names are dropped.
      formula: the curve in float64, before rounding; None if there is no closed form.
      recursion: torch's recursion on a parameter group, for schedules of ``lr_scheduler``.
      base_lr: the rate of the group before any schedule, if the recursion starts from it.
      momentum_formula: the formula of ``momentum``.

    >>> from jaxsched.schedules import cosine
    >>> cosine(100, lrf=0.2)
    cosine(100, lrf=0.2)
    >>> cosine(100, lrf=0.2).replace(lrf=0.1) == cosine(100, lrf=0.1)
    True
    """

    factory: Callable[..., Any]
    arguments: Mapping[str, Any]
    formula: Formula | None
    _: dataclasses.KW_ONLY
    recursion: Callable[[dict[str, Any]], Any] | None = None
    base_lr: Any = None
    momentum_formula: Formula | None = None

    def __post_init__(self) -> None:
        frozen = {name: freeze(self.arguments[name]) for name in _parameters(self.factory)}
        object.__setattr__(self, "arguments", FrozenDict(frozen))
        _require_types(self.factory, self.arguments)

    def __call__(self, count: ArrayLike) -> jax.Array:
        """Evaluate the schedule.

        Args:
          count: any real count: a Python or NumPy number, an array or a tracer of any integer or
            float dtype; arrays are mapped elementwise.

        Returns:
          An array of the count's shape: float32, or float64 if x64 is enabled.

        Raises:
          ValueError: a concrete count outside the schedule's range; a schedule without a closed
            form.
        """
        formula, dtype = float64_formula(self), jnp.result_type(float)

        def value() -> jax.Array:
            rounded = jnp.asarray(formula(widen(count))).astype(dtype)
            return rounded if rounded.ndim else jnp.broadcast_to(rounded, jnp.shape(count))

        return in_float64(value)

    @functools.cached_property
    def momentum(self) -> "Schedule | None":
        """The schedule of the momentum (b1 in Adam) that is cycled with the rate, or None."""
        if self.momentum_formula is None:
            return None
        return Schedule(momentum_of, {"cycle": self}, self.momentum_formula)

    def replace(self, **arguments: Any) -> "Schedule":
        """Return the schedule that the factory builds with some arguments changed.

        Raises:
          TypeError: the factory has no argument of that name.
        """
        unknown = sorted(set(arguments) - set(self.arguments))
        if unknown:
            raise TypeError(
                f"arguments of {self.factory.__name__} must be among {', '.join(self.arguments)}, "
                f"got {', '.join(unknown)}."
            )
        return self.factory(**{**self.arguments, **arguments})

    def __repr__(self) -> str:
        if self.factory is momentum_of:
            return f"{self.arguments['cycle']!r}.momentum"
        parts, by_position = [], True
        for name, parameter in _parameters(self.factory).items():
            value = self.arguments[name]
            if content_key(value) == content_key(parameter.default):
                by_position = False
                continue
            by_position &= parameter.kind is not parameter.KEYWORD_ONLY
            parts.append(show(value) if by_position else f"{name}={show(value)}")
        return f"{self.factory.__name__}({', '.join(parts)})"

    @functools.cached_property
    def _key(self) -> Hashable:
        """A hashable value that equal schedules share."""
        # An int and its float differ in torch's recursion above 2**53.
        values = self.arguments.values()
        return self.factory, *((type(value) is int, content_key(value)) for value in values)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Schedule):
            return NotImplemented
        try:
            return self is other or (hash(self) == hash(other) and self._key == other._key)
        except TypeError:  # an argument is traced by JAX
            return False

    @functools.cached_property
    def _hash(self) -> int:
        return hash(self._key)

    def __hash__(self) -> int:
        return self._hash

    def __reduce__(self) -> tuple[Any, ...]:
        return functools.partial(self.factory, **self.arguments), ()

    def __deepcopy__(self, memo: Any) -> "Schedule":
        return self  # immutable


def momentum_of(cycle: Schedule) -> Schedule | None:
    """Return ``cycle.momentum``; the factory of that schedule."""
    return cycle.momentum


_parameters = functools.cache(lambda factory: inspect.signature(factory).parameters)


def _require_types(factory: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
    """Refuse arguments whose types differ from the factory's annotations."""
    for name, value in arguments.items():
        annotation = _parameters(factory)[name].annotation
        number = is_number(value) or is_real_array(value)
        for kind, rule, holds in (
            (ScheduleLike, "a schedule or another function of the count", callable(value)),
            (Hyperparameter, "a number", number),
            (Hyperparameter | None, "a number or None", number or value is None),
            (bool, "True or False", isinstance(value, bool | np.bool_)),
            (str, "a string", isinstance(value, str)),
        ):
            if annotation == kind and not holds:
                raise TypeError(f"{name} of {factory.__name__} must be {rule}, got {show(value)}.")


def float64_formula(schedule: Callable[..., Any]) -> Formula:
    """Return a schedule's formula, or any function of the count as a formula.

    Raises:
      ValueError: the schedule has no closed form.
    """
    if isinstance(schedule, Schedule):
        if schedule.formula is None:
            raise ValueError(
                f"{schedule.factory.__name__} has no closed form to call. Pass steps=n to replay it."
            )
        return schedule.formula
    return lambda count: as_float64(schedule(jnp.asarray(count)))


@contextlib.contextmanager
def require_traceable(what: str) -> Iterator[None]:
    """Raise a TypeError about ``what`` if JAX cannot trace the function called inside."""
    try:
        yield
    except jax.errors.JAXTypeError as error:
        raise TypeError(
            f"{what} must be a function that JAX can trace, with jnp for math and jnp.where for if, "
            f"got {type(error).__name__}. Pass schedules.tabulate(function, steps=n), which calls "
            "it beforehand."
        ) from None


def formula_of(
    function: Callable[..., Any], *hyperparameters: Any, check: Callable[[Any], None] | None = None
) -> Formula:
    """Return the formula that calls ``function`` with the count and the hyperparameters in float64.

    Args:
      function: a function in operators and ``jnp``, which act in float64.
      *hyperparameters: numbers, passed as Python floats, or arrays, passed as float64.
      check: raises if it refuses a concrete count.
    """
    hyperparameters = freeze(hyperparameters)

    def formula(count: Any) -> Any:
        if check is not None and not isinstance(count, Tracer):
            check(np.asarray(count))
        # An array, since arithmetic on a NumPy count may return a NumPy scalar.
        return function(jnp.asarray(count).astype(jnp.float64), *map(as_float64, hyperparameters))

    return formula


def widen(count: Any) -> Any:
    """Return a count as int64 or float64; call with x64 enabled.

    A Python or NumPy count becomes a NumPy one, so that a table can refuse it inside ``jit`` too.
    """
    if not isinstance(count, jax.Array):
        count = np.asarray(count)
        if count.dtype.kind not in "biuf":
            raise TypeError(f"count must be a real number, got {count.dtype} {count.tolist()!r}.")
        return count.astype(np.int64 if count.dtype.kind in "biu" else np.float64)
    if jnp.issubdtype(count.dtype, jnp.complexfloating):
        raise TypeError(f"count must be a real number, got {count.dtype}.")
    return count.astype(jnp.int64 if jnp.issubdtype(count.dtype, jnp.integer) else jnp.float64)


def as_float64(value: Any) -> Any:
    """Return a plain number as a Python float, and anything else as a float64 array.

    Call with x64 enabled.
    """
    if is_number(value):
        return float(value)
    array = jnp.asarray(value)
    if jnp.iscomplexobj(array):
        raise TypeError(f"schedules must have real values, got {array.dtype}.")
    return array.astype(jnp.float64)


def freeze(value: Any) -> Any:
    """Return an immutable copy: lists as tuples, NumPy arrays read-only."""
    if isinstance(value, list | tuple):
        return tuple(map(freeze, value))
    if isinstance(value, np.ndarray):
        value = value.copy()
        value.flags.writeable = False
    return value


def content_key(value: Any) -> Hashable:
    """Return a key that is the same for two values with the same meaning.

    Arrays are compared by their bytes and functions by identity. A NumPy scalar differs from a
    Python number, whose float64 value may be another. A traced array equals only itself and has no
    hash.
    """
    if isinstance(value, Tracer) or (
        isinstance(value, jax.Array) and not value.is_fully_addressable
    ):
        return _ByIdentity(value)
    if isinstance(value, np.generic | np.ndarray | jax.Array):
        array = np.asarray(value)
        if array.dtype.kind == "f":  # all NaN are the same, whatever their sign
            array = np.where(np.isnan(array), array.dtype.type(math.nan), array)
        kind = "scalar" if isinstance(value, np.generic) else "array"
        return kind, str(array.dtype), array.shape, array.tobytes()
    if isinstance(value, bool):
        return "bool", value
    if isinstance(value, float) and (
        math.isnan(value) or (value == 0 and math.copysign(1, value) < 0)
    ):
        return "float", repr(value)  # NaN equals NaN here, and -0.0 differs from 0.0
    if isinstance(value, list | tuple):
        return "sequence", *map(content_key, value)
    if isinstance(value, Mapping):
        return "mapping", *((key, content_key(value[key])) for key in sorted(value))
    if isinstance(value, functools.partial):
        kinds = map(type, (*value.args, *value.keywords.values()))  # 2 and 2.0 have one hash
        return "partial", value.func, content_key(value.args), content_key(value.keywords), *kinds
    if dataclasses.is_dataclass(value) and not callable(value):
        fields = dataclasses.fields(value)  # an accumulation or an average
        return type(value), *(content_key(getattr(value, field.name)) for field in fields)
    if callable(value) and not isinstance(value, Schedule | types.MethodType):
        return _ByIdentity(value)
    return value


@dataclasses.dataclass(frozen=True, eq=False)
class _ByIdentity:
    """A value that equals only itself."""

    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _ByIdentity) and self.value is other.value

    def __hash__(self) -> int:
        if isinstance(self.value, jax.Array):
            raise TypeError(
                "a schedule or recipe must have concrete arguments to be hashed, got "
                f"{show(self.value)} among them. Compare it by identity."
            )
        return object.__hash__(self.value)


def has_function(
    value: Any,
    is_own: Callable[[Any], bool] = lambda factory: factory.__module__[:9] == "jaxsched.",
) -> bool:
    """Return whether a schedule contains a function that is not a factory of this package."""
    if isinstance(value, Schedule):
        arguments = value.arguments.values()
        return not is_own(value.factory) or any(has_function(v, is_own) for v in arguments)
    if isinstance(value, tuple):
        return any(has_function(v, is_own) for v in value)
    return callable(value)


def sharing_key(entry: Any) -> Hashable:
    """Return a hashable key, by which equal schedules are evaluated once."""
    key = content_key(entry)
    try:
        hash(key)
    except TypeError:
        return _ByIdentity(entry)
    return key


def show(value: Any) -> str:
    """Return a value as Python source, with long sequences shortened."""
    if isinstance(value, Tracer):
        return f"<traced {value.aval.str_short()}>"
    if isinstance(value, np.ndarray | jax.Array) and value.ndim == 1:
        value = value.tolist() if value.size <= MAX_SHOWN else range(value.size)
    if isinstance(value, list | tuple | range):
        if len(value) > MAX_SHOWN:
            return f"<{len(value)} values>"
        return f"[{', '.join(map(show, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key!r}: {show(entry)}' for key, entry in value.items())}}}"
    if isinstance(value, functools.partial):
        arguments = [*map(show, value.args), *(f"{k}={show(v)}" for k, v in value.keywords.items())]
        return f"functools.partial({', '.join([show(value.func), *arguments])})"
    if type(value) is float and not math.isfinite(value):
        return f"float('{value}')"
    name = getattr(value, "__qualname__", None)
    if callable(value) and isinstance(name, str):
        module = getattr(value, "__module__", None) or "builtins"
        return name if module.split(".")[0] in UNQUALIFIED else f"{module}.{name}"
    if callable(value) and type(value).__repr__ is object.__repr__:
        return f"<{show(type(value))} object>"
    return repr(value)
