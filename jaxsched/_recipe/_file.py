"""Recipes as YAML or JSON files: plain data that names functions of this package."""

import inspect
import json
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsched import lr_scheduler, optimizers, schedules
from jaxsched._extras import missing
from jaxsched._groups import common_value, map_groups
from jaxsched._io import atomic_write, read_text, require_suffix
from jaxsched._schedule import Schedule, has_function, momentum_of, require_traceable, show
from jaxsched._validate import require_count, shorten

FORMAT, VERSION = "jaxsched.Recipe", 1
SUFFIXES = (".yaml", ".yml", ".json")
MAX_BYTES = 2**26  # of a file; fits the table of one hyperparameter at 3 million iterations
DTYPES = (
    *("bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"),
    *("float16", "bfloat16", "float32", "float64"),
)

# YAML 1.1 reads an exponent only after a decimal point and with a sign.
FLOAT = r"[-+]?((\d+\.\d*|\.\d+)([eE][-+]?\d+)?|\d+[eE][-+]?\d+|\.(inf|Inf|INF))|\.(nan|NaN|NAN)"
NUMBERS = {"float": re.compile(f"^({FLOAT})$"), "int": re.compile(r"^[-+]?(0|[1-9]\d*)$")}

FACTORIES: Mapping[str, Callable[..., Any]] = {
    name: function
    for module in (schedules, lr_scheduler)
    for name in module.__all__
    if inspect.isfunction(function := getattr(module, name))
    and name not in ("reduce_lr_on_plateau", "scale_on_plateau", "tabulate")
} | {"momentum": momentum_of}
"""The functions that a file may name as a schedule."""

RULES: Mapping[str, Callable[..., Any]] = {
    name: function
    for name in optimizers.__all__
    if inspect.isfunction(function := getattr(optimizers, name))
    and "learning_rate" in inspect.signature(function).parameters
}
"""The update rules that a file may name."""

# Fields of a recipe that are dataclasses, and those that are numbers or strings.
PARTS = {"accumulation": optimizers.Accumulation, "ema": optimizers.EMA}
PLAIN = ("clip_norm", "clip_value", "start", "clock", "length")


def encode(recipe: Any, iterations: int | None = None) -> dict[str, Any]:
    """Return a recipe's content in JSON's types, as in ``Recipe.save``."""
    rule = common_value({label: _rule_name(rule) for label, rule in recipe.rule_by_label.items()})
    if iterations is not None:
        require_count("iterations", iterations, at_least=1)
    n = recipe.iterations if iterations is None else iterations

    def entry(name: str, value: Any) -> Any:
        if not callable(value) or not has_function(value, lambda f: f in FACTORIES.values()):
            return _encode(value)
        if n is None:
            raise ValueError(
                f"iterations must be given to save {name}, which has a Python function inside, got "
                f"None for {show(value)}. Pass how many to tabulate."
            )
        with require_traceable(name), jax.enable_x64(True):
            counts = np.arange(recipe.start, recipe.start + n, dtype=np.int32)
            for end in (counts[0], counts[-1]):
                value(end)  # refuses a count outside a table, which is NaN under jit
            values = np.asarray(jax.jit(jax.vmap(lambda c: jnp.asarray(value(c), float)))(counts))
        return _encode(schedules.table(values, start=recipe.start))

    groups = map_groups(lambda label, k, v: entry(f"{k} of group {label}", v), recipe.groups)
    rule = dict(rule) if isinstance(rule, Mapping) else rule
    content = {"format": f"{FORMAT} {VERSION}", "update_rule": rule, "groups": groups}
    content |= {name: _encode(v) for name in PLAIN if (v := getattr(recipe, name)) is not None}
    parts = {part: vars(value) for part in PARTS if (value := getattr(recipe, part)) is not None}
    return content | map_groups(lambda part, k, v: entry(f"{part}.{k}", v), parts)


def decode(content: Any) -> dict[str, Any]:
    """Return the arguments of ``Recipe`` from the content of a file."""
    if not isinstance(content, Mapping):
        raise ValueError(f"a recipe must be a mapping, got {type(content).__name__}.")
    fields = dict(content)
    kind, _, version = str(fields.pop("format", "none")).rpartition(" ")
    if kind != FORMAT or version != str(VERSION):
        raise ValueError(
            f"format must be {FORMAT} {VERSION}, got {content.get('format', 'none')}. "
            "Save the recipe again with this version of jaxsched."
        )
    allowed = ("update_rule", "groups", *PARTS, *PLAIN)
    if unknown := sorted(set(map(str, fields)) - set(allowed)):
        raise ValueError(f"fields must be among {', '.join(allowed)}, got {', '.join(unknown)}.")
    rule = fields.pop("update_rule", "sgd")
    rules = (
        {k: _rule(name) for k, name in rule.items()} if isinstance(rule, Mapping) else _rule(rule)
    )
    groups = _require_mapping("groups", fields.pop("groups", {}))
    arguments: dict[str, Any] = {
        "update_rule": rules,
        "groups": {label: _decode_arguments(label, group) for label, group in groups.items()},
    }
    for name, kind in PARTS.items():
        if (part := fields.pop(name, None)) is not None:
            arguments[name] = _call(name, kind, part)
    for name, value in fields.items():
        arguments[name] = _decode(value)
        if isinstance(arguments[name], Schedule):
            raise ValueError(f"{name} must be a number, got a schedule.")
    return arguments


def write(recipe: Any, path: str | os.PathLike[str], iterations: int | None) -> None:
    """Write a recipe's file, as in ``Recipe.save``."""
    require_suffix(path, SUFFIXES)
    content = encode(recipe, iterations)
    if Path(path).suffix == ".json":
        text = json.dumps(content, indent=1) + "\n"
    else:
        yaml, _, dumper = _yaml()
        text = yaml.dump(content, Dumper=dumper, sort_keys=False, default_flow_style=None, width=99)
    if len(text) > MAX_BYTES:
        raise ValueError(
            f"the file of a recipe must have at most {MAX_BYTES:,} bytes, got {len(text):,}. "
            "Save recipe.trace(n), and read it with Recipe.from_trace."
        )
    with atomic_write(path) as file:
        file.write(text.encode())


def read(path: str | os.PathLike[str], make: Callable[..., Any]) -> Any:
    """Read a recipe's file and build the recipe, as in ``Recipe.load``."""
    require_suffix(path, SUFFIXES)
    try:
        text = read_text(path, MAX_BYTES)
        is_json = Path(path).suffix == ".json"
        content = (
            json.loads(text, object_pairs_hook=_unique_entries) if is_json else load_yaml(text)
        )
        return make(**decode(content))
    except CONTENT_ERRORS as error:
        reason = f"must be the file of a recipe: {str(error) or type(error).__name__}"
        raise ValueError(shorten(f"{os.fspath(path)} {reason}")) from error


def _rule_name(rule: Any) -> str:
    name = next((name for name, function in RULES.items() if function is rule), None)
    if name is None:
        raise ValueError(
            f"update_rule must be one of jaxsched.optimizers to be saved, got {show(rule)}. "
            "Save recipe.trace(n) and give from_trace the rule."
        )
    return name


def _rule(name: Any) -> Callable[..., Any]:
    if not isinstance(name, str) or name not in RULES:
        raise ValueError(f"update_rule must be one of {', '.join(RULES)}, got {name!r}.")
    return RULES[name]


# Errors that invalid content of a file may raise.
CONTENT_ERRORS = TypeError, ValueError, LookupError, ArithmeticError, AttributeError, RecursionError


def _encode(value: Any) -> Any:
    """Return a number, array or schedule in JSON's types."""
    if isinstance(value, Schedule):
        name = next(name for name, factory in FACTORIES.items() if factory is value.factory)
        parameters = inspect.signature(value.factory).parameters
        return {
            name: {
                # A table converts its values to float64, whatever their type.
                key: entry.tolist() if key == "values" else _encode(entry)
                for key, entry in value.arguments.items()
                if parameters[key].default is not entry
            }
        }
    if isinstance(value, np.generic | np.ndarray | jax.Array):
        array = np.asarray(value)
        if str(array.dtype) not in DTYPES:
            raise ValueError(
                f"numbers must be of {', '.join(DTYPES)} to be saved, got {array.dtype}. Convert it."
            )
        kind = "number" if isinstance(value, np.generic) else "array"
        exact = array.astype(np.float64) if array.dtype.kind not in "biu" else array
        return {kind: {"dtype": str(array.dtype), "value": exact.tolist()}}
    if isinstance(value, tuple | list):
        return [_encode(entry) for entry in value]
    return value


def _decode(value: Any) -> Any:
    """Return the number, array or schedule that ``_encode`` wrote."""
    if isinstance(value, list):
        return [_decode(entry) for entry in value]
    if not isinstance(value, Mapping):
        return value
    if len(value) != 1:
        raise ValueError(
            f"a schedule must be one name with its arguments, got {', '.join(map(str, value))}."
        )
    ((name, arguments),) = value.items()
    if name in ("number", "array"):
        arguments = _require_mapping(name, arguments)
        dtype = arguments.get("dtype")
        if dtype not in DTYPES or set(arguments) != {"dtype", "value"}:
            raise ValueError(f"a {name} must have a dtype of {', '.join(DTYPES)} and a value.")
        array = np.asarray(arguments["value"]).astype(jnp.dtype(dtype))
        if array.ndim == 0:
            return array[()] if name == "number" else array
        with jax.enable_x64(True):
            return jnp.asarray(array)  # the schedules take arrays of several values from JAX only
    if name not in FACTORIES:
        raise ValueError(
            f"a schedule must be one of {', '.join(FACTORIES)}, got {name!r}. No other code is run."
        )
    return _call(str(name), FACTORIES[name], arguments)


def _call(name: str, function: Callable[..., Any], arguments: Any) -> Any:
    values, parameters = _decode_arguments(name, arguments), inspect.signature(function).parameters
    if unknown := sorted(set(map(str, values)) - set(parameters)):
        raise ValueError(
            f"arguments of {name} must be among {', '.join(parameters)}, got {', '.join(unknown)}."
        )
    return function(**values)


def _decode_arguments(name: Any, value: Any) -> dict[str, Any]:
    return {key: _decode(entry) for key, entry in _require_mapping(name, value).items()}


def _require_mapping(name: Any, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} must be a mapping, got {value!r}.")
    return value


def _unique_entries(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    """Return the entries of a mapping; refuse a duplicate key."""
    entries: dict[Any, Any] = {}
    for key, value in pairs:
        if key in entries:
            raise ValueError(f"keys of a mapping must be unique, got {key!r} twice.")
        entries[key] = value
    return entries


def _yaml() -> tuple[Any, Any, Any]:
    """Return PyYAML, and its safe loader and dumper with JSON's numbers.

    YAML 1.1 reads 1e-8 as text, 010 as 8 and 1:30 as 90; here 1e-8 is a number and the others are
    text. A label such as 1e5 is quoted. Aliases are refused: nested ones can expand without bound.
    """
    try:
        import yaml
    except ModuleNotFoundError as error:
        raise missing("a YAML file", "yaml") from error

    class Dumper(yaml.SafeDumper):
        def ignore_aliases(self, data: Any) -> bool:
            return True

    class Loader(yaml.SafeLoader):
        def compose_node(self, parent: Any, index: Any) -> Any:
            if self.check_event(yaml.AliasEvent):
                raise ValueError("it must have no aliases, got one. Write the value out.")
            return super().compose_node(parent, index)

        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            construct = self.construct_object
            return _unique_entries(
                [(construct(k, deep=True), construct(v, deep=True)) for k, v in node.value]
            )

    for kind in (Loader, Dumper):
        kind.yaml_implicit_resolvers = {
            first: [(tag, rule) for tag, rule in rules if not tag.endswith((":int", ":float"))]
            for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
        }
        for name, rule in NUMBERS.items():
            kind.add_implicit_resolver(f"tag:yaml.org,2002:{name}", rule, list("-+0123456789."))
    return yaml, Loader, Dumper


def load_yaml(text: str) -> Any:
    """Return the content of a YAML text as plain data."""
    yaml, loader, _ = _yaml()
    try:
        return yaml.load(text, Loader=loader)  # a SafeLoader
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error
