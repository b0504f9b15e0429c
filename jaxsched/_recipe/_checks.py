"""The types of a recipe's fields, and their checks."""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

import optax

from jaxsched import _validate, optimizers, param_groups
from jaxsched._schedule import show
from jaxsched._validate import describe, is_number, is_real_array, require_count

UpdateRule = Callable[..., optax.GradientTransformation]

TORCH_NAMES = {"lr": "Write lr as learning_rate", "betas": "Write betas as b1 and b2"}

EMPTY = inspect.Parameter.empty


@dataclasses.dataclass(frozen=True, eq=False)
class Origin:
    """Provenance of a recipe, for people and reports; no behaviour depends on it.

    Attributes:
      factory: the function that built the recipe.
      arguments: the arguments it was called with; live objects by their description.
      content: the recipe's content at that time. ``dataclasses.replace`` changes the content, and
        the changed recipe has no origin.
    """

    factory: Callable[..., Any]
    arguments: Mapping[str, Any]
    content: Hashable = dataclasses.field(default=None, repr=False)

    def __iter__(self) -> Iterator[Any]:
        return iter((self.factory, self.arguments))


def require_fields(recipe: Any) -> None:
    """Refuse invalid fields of a recipe."""
    require_count("start", recipe.start)
    _validate.require_choice("clock", recipe.clock, ("iteration", "update"))
    if recipe.length is not None:
        require_count("length", recipe.length)
        if is_number(recipe.start):
            rule = f"at least start, {recipe.start}"
            _validate.require("length", recipe.length, rule, lambda v: v >= recipe.start)
    for name in ("clip_norm", "clip_value"):
        if getattr(recipe, name) is not None:
            _validate.require_nonnegative(**{name: getattr(recipe, name)})
    if recipe.clip_norm is not None and recipe.clip_value is not None:
        raise ValueError(
            f"clip_norm must be None if clip_value is given, got {describe(recipe.clip_norm)} and "
            f"{describe(recipe.clip_value)}. Pass one."
        )
    for name, kind, rule in (
        ("accumulation", optimizers.Accumulation, "an optimizers.Accumulation or None"),
        ("ema", optimizers.EMA, "an optimizers.EMA or None"),
        ("origin", Origin | tuple, "(factory, arguments) or None"),
    ):
        if not isinstance(value := getattr(recipe, name), kind | None):
            raise TypeError(f"{name} must be {rule}, got {describe(value)}.")
    if not isinstance(recipe.groups, Mapping) or not all(
        isinstance(group, Mapping) for group in recipe.groups.values()
    ):
        raise TypeError("groups must be a mapping of label to {argument: value}.")
    if not recipe.groups:
        raise ValueError("groups must hold at least 1 group, got none.")
    require_rules(recipe.update_rule, recipe.groups)


def require_rules(rule: Any, groups: Mapping[str, Any]) -> None:
    """Refuse anything but an update rule or a mapping with one for each group."""
    if not isinstance(rule, Mapping):
        _require_rule("update_rule", rule)
        return
    if missing := [label for label in groups if label not in rule]:
        raise ValueError(
            f"update_rule must have a rule for each group, got none for {', '.join(missing)}. "
            "Add one."
        )
    if unknown := [str(label) for label in rule if label not in groups]:
        raise ValueError(
            f"labels of update_rule must be among those of groups, {', '.join(groups)}, got "
            f"{', '.join(unknown)}. Leave what is frozen out."
        )
    for label, function in rule.items():
        _require_rule(f"update_rule of group {label}", function)


def _require_rule(name: str, rule: Any) -> None:
    """Refuse what is no function, and a class of torch.optim."""
    is_torch = isinstance(rule, type) and rule.__module__.startswith("torch.optim.")
    if callable(rule) and not is_torch:
        return
    ours = rule.__name__.lower() if is_torch else rule if isinstance(rule, str) else ""
    raise TypeError(
        f"{name} must be a function such as optimizers.sgd, got {describe(rule)}."
        + (f" Pass optimizers.{ours}." if ours in optimizers.__all__ else "")
    )


def rule_name(rule: UpdateRule) -> str:
    """Return a name for the update rule: that in ``jaxsched.optimizers``, or one with its module.

    A name that contains ``<``, such as ``<lambda>``, identifies no particular function.
    """
    if is_own(rule):
        return getattr(rule, "__name__", "")
    # A script may define its own ``sgd``.
    name = show(rule)
    return f"{rule.__module__}.{name}" if hasattr(optimizers, name) else name


def unwrap_partial(rule: UpdateRule) -> tuple[UpdateRule, dict[str, Any]]:
    """Unwrap ``functools.partial`` from a rule of this package; return the rule and the arguments."""
    arguments: dict[str, Any] = {}
    inner: Any = rule
    while isinstance(inner, functools.partial):
        bound = inspect.signature(inner.func).bind_partial(*inner.args, **inner.keywords)
        arguments = {**bound.arguments, **arguments}
        inner = inner.func
    return (inner, arguments) if is_own(inner) else (rule, {})


def is_own(rule: Any) -> bool:
    """Return whether an update rule is a function of ``jaxsched.optimizers``."""
    return getattr(optimizers, getattr(rule, "__name__", ""), None) is rule


def is_numeric(parameter: inspect.Parameter) -> bool:
    """Return whether an argument of an update rule is a number: required, or a number by default."""
    return parameter.default is EMPTY or is_number(parameter.default)


def require_group(
    label: Any, group: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter], rule: str
) -> None:
    """Refuse a group that the update rule cannot be called with."""
    if label == param_groups.FROZEN or not isinstance(label, str):
        raise ValueError(
            f'labels of groups must be strings other than "{param_groups.FROZEN}", '
            f"got {describe(label)}. What is frozen needs no group."
        )
    if unknown := sorted(set(group) - set(parameters)):
        raise ValueError(
            f"arguments of {rule} must be among {', '.join(parameters)}, "
            f"got {', '.join(unknown)} in group {label}."
            + "".join(f" {TORCH_NAMES[n]}." for n in unknown if n in TORCH_NAMES)
        )
    missing = [n for n, p in parameters.items() if p.default is EMPTY and n not in group]
    if missing:
        raise ValueError(f"group {label} must have {', '.join(missing)}, which {rule} needs.")
    for name, value in group.items():
        default = parameters[name].default
        number = callable(value) or is_number(value) or is_real_array(value)
        for applies, holds, kind in (
            (is_numeric(parameters[name]), number, "a number or a schedule"),
            (isinstance(default, tuple), isinstance(value, tuple), "a tuple or a list"),
            (isinstance(default, bool), isinstance(value, bool), "True or False"),
        ):
            if applies and not holds:
                raise TypeError(f"{name} of group {label} must be {kind}, got {describe(value)}")
