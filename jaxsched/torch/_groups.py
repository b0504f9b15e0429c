"""Read torch's parameter groups under the names of ``jaxsched.optimizers``."""

import inspect
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch

from jaxsched import optimizers
from jaxsched._recipe._file import RULES as RULES_BY_NAME
from jaxsched._validate import describe
from jaxsched.optimizers._musgd import RATIOS

RULES: dict[type, Callable[..., Any]] = {
    kind: RULES_BY_NAME[name.lower()]
    for name in dir(torch.optim)
    if isinstance(kind := getattr(torch.optim, name), type) and name.lower() in RULES_BY_NAME
}

MUSGD = "MuSGD"  # the optimizer itself holds RATIOS, for the groups with use_muon
# Arguments to read from the groups of an unknown optimizer.
USUAL = ("learning_rate", "momentum", "b1", "b2", "weight_decay")
NAMES = {  # torch's names that differ here; two names for a pair
    "lr": ("learning_rate",),
    "betas": ("b1", "b2"),
    "etas": ("eta_minus", "eta_plus"),
    "step_sizes": ("step_size_min", "step_size_max"),
    "eps": ("eps1", "eps2"),
}
# Options that do not change what is computed; AdamW's decay is always decoupled.
HOW = {"foreach", "fused", "capturable", "differentiable", "decoupled_weight_decay"}
Optimizers = torch.optim.Optimizer | Sequence[torch.optim.Optimizer]
Place = tuple[str, int | None]  # a key of a parameter group, and an index if its value is a pair


def unwrap(wrapper: Any, name: str) -> Any:
    """Return the ``optimizer`` or ``scheduler`` inside accelerate's wrapper."""
    if type(wrapper).__module__.partition(".")[0] != "accelerate":
        return wrapper
    if name == "scheduler" and wrapper.step_with_optimizer and not wrapper.split_batches:
        processes = wrapper.optimizers[0].accelerator_state.num_processes
        if processes > 1:
            raise ValueError(
                f"scheduler must step once an update, got {type(wrapper).__name__} in {processes} "
                f"processes, which steps {processes} times. Record its run with "
                "jaxsched.torch.record."
            )
    return unwrap(getattr(wrapper, name), name)


def has_made_updates(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether the optimizer's state shows an update; plain SGD has no state."""
    # Adagrad has a state before its first update.
    return any(entry.get("step", 1) > 0 for entry in optimizer.state.values() if entry)


def is_musgd(optimizer: torch.optim.Optimizer) -> bool:
    """Return whether an optimizer is Ultralytics' MuSGD, by its name and attributes."""
    has = type(optimizer).__name__ == MUSGD and all(hasattr(optimizer, k) for k in RATIOS)
    return has and all("use_muon" in group for group in optimizer.param_groups)


def find_rule(optimizer: torch.optim.Optimizer) -> Callable[..., Any] | None:
    """Return the update rule of an optimizer, or None if unknown."""
    return optimizers.musgd if is_musgd(optimizer) else RULES.get(type(optimizer))


def complete(group: Mapping[str, Any], optimizer: torch.optim.Optimizer) -> Mapping[str, Any]:
    """Return a group with the arguments that are stored in the optimizer itself."""
    if not group.get("use_muon") or not is_musgd(optimizer):
        return group
    return {**group, **{name: getattr(optimizer, name) for name in RATIOS}}


def rule_of(optimizer: torch.optim.Optimizer) -> Callable[..., Any]:
    """Return the update rule of an optimizer; refuse options that the rule does not have."""
    rule = find_rule(optimizer)
    if rule is None:
        raise ValueError(
            f"optimizer must be one of torch.optim's {', '.join(cls.__name__ for cls in RULES)}, "
            f"or Ultralytics' {MUSGD}, got {type(optimizer).__module__}.{type(optimizer).__qualname__}. "
            "Record its run with jaxsched.torch.record."
        )
    for group in optimizer.param_groups:
        keys = {key for key, _ in places(group, rule).values()}
        unknown = set(optimizer.defaults) - keys - HOW
        if unknown:
            raise ValueError(
                f"options of {type(optimizer).__name__} must be known to "
                f"jaxsched.optimizers.{rule.__name__}, got {', '.join(sorted(unknown))}."
            )
    return rule


def places(group: Mapping[str, Any], rule: Callable[..., Any] | None) -> dict[str, Place]:
    """Return the place of each argument of the rule in a group, ``{name: (key, index)}``."""
    wanted = USUAL if rule is None else inspect.signature(rule).parameters
    by_name: dict[str, Place] = {}
    for key, value in group.items():
        names = NAMES.get(key, (key,))
        if len(names) == 2 and isinstance(value, tuple | list):
            by_name |= {name: (key, index) for index, name in enumerate(names)}
        else:  # such as eps of all rules but Adafactor
            by_name[names[0] if len(names) == 1 else key] = key, None
    return {name: by_name[name] for name in wanted if name in by_name}


def read(group: Mapping[str, Any], place: Place) -> Any:
    """Return the value at a place, a tensor as a Python number."""
    key, index = place
    value = group[key] if index is None else group[key][index]
    return value.item() if isinstance(value, torch.Tensor) else value


def parameters(*optimizers: torch.optim.Optimizer) -> list[torch.Tensor]:
    """Return the parameters of all groups, in the order of torch's numbers."""
    groups = itertools.chain(*(optimizer.param_groups for optimizer in optimizers))
    return [parameter for group in groups for parameter in group["params"]]


def as_optimizers(optimizer: Optimizers) -> list[torch.optim.Optimizer]:
    """Return one optimizer or several as a list, without accelerate's wrappers.

    A parameter in two of them is refused.
    """
    entries = list(optimizer) if isinstance(optimizer, list | tuple) else [optimizer]
    optimizers = [unwrap(entry, "optimizer") for entry in entries]
    for each in optimizers:
        if not hasattr(each, "param_groups"):
            raise TypeError(
                f"optimizer must be one of torch's or a list of them, got {describe(each)}."
            )
    if not optimizers:
        raise ValueError("optimizer must be one of torch's or a list of them, got an empty list.")
    owners: dict[torch.Tensor, str] = {}
    for each in optimizers:
        name, own = type(each).__name__, parameters(each)
        if twice := [p for p in own if p in owners]:
            raise ValueError(
                "each parameter must be in one optimizer, got one of shape "
                f"{tuple(twice[0].shape)} in {owners[twice[0]]} and in {name}. "
                "Leave it out of one."
            )
        owners |= dict.fromkeys(own, name)
    return optimizers


def split_labels(
    optimizers: Sequence[torch.optim.Optimizer], labels: Sequence[str] | None
) -> list[list[str]]:
    """Return the labels of each optimizer's groups; by default ``"0"``, ``"1"``, … through all."""
    counts = [len(optimizer.param_groups) for optimizer in optimizers]
    names = [str(k) for k in range(sum(counts))] if labels is None else list(labels)
    if len(names) != sum(counts) or len(set(names)) < len(names) or isinstance(labels, str):
        order = "" if len(counts) == 1 else ", one optimizer after another"
        raise ValueError(
            f"labels must name each of {sum(counts)} groups once, got {describe(labels)}. "
            f"Pass a list, in the order of optimizer.param_groups{order}."
        )
    rest = iter(names)
    return [list(itertools.islice(rest, count)) for count in counts]


def labels_by_parameter(
    optimizers: Sequence[torch.optim.Optimizer], labels: Sequence[str] | None
) -> dict[torch.Tensor, str]:
    """Return the label of each parameter of the optimizers that needs a gradient."""
    names = itertools.chain(*split_labels(optimizers, labels))
    groups = itertools.chain(*(optimizer.param_groups for optimizer in optimizers))
    pairs = zip(names, groups, strict=True)
    return {p: name for name, group in pairs for p in group["params"] if p.requires_grad}


def reader(
    optimizer: torch.optim.Optimizer, labels: Sequence[str]
) -> Callable[[Any], dict[str, dict[str, Any]]]:
    """Return a function from the optimizer's groups to the arguments of its update rule."""
    rule = find_rule(optimizer)
    by_label = {
        label: places(complete(group, optimizer), rule)
        for label, group in zip(labels, optimizer.param_groups, strict=True)
    }

    def now(groups: Any) -> dict[str, dict[str, Any]]:
        whole = [complete(group, optimizer) for group in groups]
        return {
            label: {name: read(group, place) for name, place in named.items()}
            for (label, named), group in zip(by_label.items(), whole, strict=True)
        }

    return now
