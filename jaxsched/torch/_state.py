"""Convert the optimizer's state from torch and back."""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, overload

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

from jaxsched._validate import is_number, require_below_int32, require_count
from jaxsched.optimizers import RuleState
from jaxsched.optimizers._newton_schulz import torch_shape
from jaxsched.optimizers._rule import UNCOUNTED
from jaxsched.optimizers._scheduled import ScheduledState, start_at
from jaxsched.param_groups import Path as LeafPath
from jaxsched.param_groups import leaf_paths, torch_names
from jaxsched.torch._groups import Optimizers, as_optimizers, parameters
from jaxsched.torch._state_dict import StateDict, as_state_dict, split

Transform = Callable[[np.ndarray], np.ndarray]
Parameter = str | int  # torch's: its name, or its number in the state_dict
Mapped = Parameter | tuple[Parameter, Transform]
# From a leaf's path, "head/kernel", to torch's parameter, or to that and a transform.
Names = Mapping[str, Mapped] | Mapping[LeafPath, Mapped]


class Matches(NamedTuple):
    """The result of ``match_names``."""

    mapping: dict[str, str]  # {path: name}, for import_state and export_state
    unplaced: list[str]  # the paths of leaves without a parameter


def match_names(params: Any, tensors: Mapping[str, Any]) -> Matches:
    """Return a mapping from leaves to torch's parameters, by names and shapes.

    A leaf is mapped to the parameter of its name (``param_groups.torch_names``) and shape; remaining
    ones are mapped by shape, if one leaf and one parameter have it. The shape of a ``kernel`` is
    torch's transposed.

    Args:
      params: the Flax parameters.
      tensors: torch's, by name: ``dict(model.named_parameters())`` or shapes.

    >>> match_names({"head": {"kernel": jnp.ones((3, 2)), "b": jnp.ones(5)}}, {"head.weight": (2, 3)})
    Matches(mapping={'head/kernel': 'head.weight'}, unplaced=['head/b'])
    """
    left = {name: tuple(getattr(value, "shape", value)) for name, value in tensors.items()}
    mapping: dict[str, str] = {}
    rest: dict[str, tuple[int, ...]] = {}
    for path, leaf in zip(leaf_paths(params), jax.tree.leaves(params), strict=True):
        shape = torch_shape(leaf.shape) if path[-1] == "kernel" else tuple(leaf.shape)
        names = [name for name in torch_names(path) if left.get(name) == shape]
        if names:
            mapping["/".join(path)] = names[0]
            del left[names[0]]
        else:
            rest["/".join(path)] = shape
    for path, shape in rest.items():
        names = [name for name, other in left.items() if other == shape]
        if len(names) == 1 and list(rest.values()).count(shape) == 1:
            mapping[path] = names[0]
    return Matches(mapping, [path for path in rest if path not in mapping])


def leaves_by_path(tree: Any) -> dict[str, Any]:
    """Return the leaves of a tree, in their order, by paths such as ``"head/kernel"``."""
    return dict(zip(map("/".join, leaf_paths(tree)), jax.tree.leaves(tree), strict=True))


def numbers(model: torch.nn.Module, optimizer: Optimizers) -> dict[str, int]:
    """Return the number of each parameter in the optimizer's ``state_dict``, by name.

    Needed if the optimizer was built from parameters without names: the mapping is then
    ``{path: numbers[name] for path, name in mapping.items()}``. For a list of optimizers, numbers
    continue from one to the next, as in ``import_state``.

    >>> model = torch.nn.Linear(2, 1)
    >>> numbers(model, torch.optim.SGD([model.bias, model.weight]))
    {'weight': 1, 'bias': 0}
    """
    number = {p: k for k, p in enumerate(parameters(*as_optimizers(optimizer)))}
    return {name: number[p] for name, p in model.named_parameters() if p in number}


def import_state(
    state_dict: StateDict | Sequence[StateDict],
    tx: optax.GradientTransformation,
    params: optax.Params,
    mapping: Names | None = None,
    *,
    iteration: int | None = None,
) -> optax.OptState:
    """Return the state with which ``tx`` continues torch's optimizer.

    Step counts, moments and buffers are those of torch; a momentum buffer that torch does not have
    yet is not started here either. Torch saves no pending gradients: with accumulation the last
    update counts as made right before, except for ``recipes.yolov5`` and ``ultralytics``, whose
    resumed process updates at its first batch.

    Args:
      state_dict: the optimizer's, or the path of a file with it; or a list of those of several
        optimizers, whose numbers of parameters continue from one to the next.
      tx: ``recipe.optimizer(labels)``, or a rule of ``jaxsched.optimizers``.
      params: the parameters, as passed to ``tx``.
      mapping: from the path of a leaf, ``"head/kernel"``, to torch's parameter: its name, where the
        optimizer was made of ``model.named_parameters()``, or its number; or a pair of that and a
        function of torch's array that gives it the leaf's layout. Without one a leaf called
        ``kernel`` is transposed from torch's; that of Flax's ConvTranspose needs one, unless
        ``transpose_kernel``: ``lambda w: w.transpose(2, 3, 0, 1)[::-1, ::-1]``. If not given,
        leaves go by ``param_groups.torch_names``.
      iteration: the iteration of the next batch, counted from the start of the run; the recipe's
        ``start`` if not given, which warns if that is 0 and the state has another learning rate.

    Raises:
      ValueError: an iteration below 0, a leaf that has no parameter, a state of another optimizer or
        of other shapes, parameters of one group with different step counts.

    >>> from jaxsched import optimizers
    >>> weight = torch.ones(2, requires_grad=True)
    >>> optimizer = torch.optim.SGD([("weight", weight)], lr=0.1, momentum=0.9)
    >>> weight.sum().backward()
    >>> optimizer.step()
    >>> params = {"weight": jnp.asarray(weight.detach().numpy())}
    >>> tx = optimizers.sgd(0.1, 0.9)
    >>> state = import_state(optimizer.state_dict(), tx, params)
    >>> tx.update({"weight": jnp.ones(2)}, state, params)[0]["weight"].round(6)  # 0.1 * (0.9 + 1)
    Array([-0.19, -0.19], dtype=float32)
    """
    if iteration is not None:
        require_count("iteration", iteration)
        require_below_int32("iteration", iteration)
    state_dict = as_state_dict(state_dict)
    places, leaves = _place(params, mapping, state_dict), leaves_by_path(params)

    def rule(state: RuleState) -> RuleState:
        paths = _paths(state)
        if not paths:
            entries = [x for key, x in state_dict["state"].items() if key not in claimed]
            names = {name for entry in entries for name, x in entry.items() if x is not None}
            if not state.trees and names - {"step", BUFFER}:  # sgd without momentum would drop it
                raise ValueError(
                    "the state of sgd without momentum must hold nothing, got "
                    f"{', '.join(sorted(names))}. Build the optimizer that it is the state of."
                )
            return state
        entries = {path: state_dict["state"].get(places[path][0], {}) for path in paths}
        steps = {path: int(entry.get("step", 0)) for path, entry in entries.items()}
        if len(set(steps.values())) > 1:
            low, high = min(steps, key=steps.__getitem__), max(steps, key=steps.__getitem__)
            raise ValueError(
                "parameters of one group must have made equally many updates, got "
                f"{steps[low]} of {low} and {steps[high]} of {high}. Give them groups of their own."
            )
        names = {"step", *state.scalars, *state.trees}

        def carry(name: str, path: str, leaf: Any) -> Any:
            entry = entries[path]
            extra = {key for key, value in entry.items() if value is not None} - names
            is_missing = entry and name not in {*entry, BUFFER}
            if extra or (is_missing and _is_in_use(name, leaves[path])):
                raise ValueError(
                    f"the state of {path} must hold {', '.join(state.trees)}, got "
                    f"{', '.join(entry)}. Build the optimizer that it is the state of."
                )
            if entry.get(name) is None:
                return leaf
            array = places[path][1](entry[name].detach().cpu().double().numpy())
            if array.shape != leaf.shape:
                raise ValueError(
                    f"{name} of {path} must have shape {leaf.shape}, got {array.shape}. "
                    "Give its mapping a transform."
                )
            return jnp.asarray(array.astype(leaf.dtype))

        some = next(iter(entries.values()))
        started = any(entry.get(BUFFER) is not None for entry in entries.values())
        missing = [name for name in state.scalars if name != STARTED and some and name not in some]
        if missing:
            raise ValueError(
                f"the state of {next(iter(entries))} must hold {', '.join(missing)}, got "
                f"{', '.join(some)}. Build the optimizer that it is the state of."
            )
        scalars = {
            name: jnp.asarray(started if name == STARTED else float(some.get(name, old)), old.dtype)
            for name, old in state.scalars.items()
        }
        trees = {}
        for name, tree in state.trees.items():
            arrays = [carry(name, path, leaf) for path, leaf in leaves_by_path(tree).items()]
            trees[name] = jax.tree.unflatten(jax.tree.structure(tree), arrays)
        return RuleState(jnp.asarray(max(steps.values()), jnp.int32), scalars, trees)

    with start_at(iteration):
        fresh = tx.init(params)
    # The states of the recipe's other rules.
    claimed = {places[path][0] for state in _rules(fresh) for path in _paths(state)}
    nodes, structure = jax.tree.flatten(fresh, is_leaf=is_rule_state)
    state = structure.unflatten(rule(node) if is_rule_state(node) else node for node in nodes)
    if iteration is None:
        _warn_of_rates(state, places, state_dict)
    return state


@overload
def export_state(
    opt_state: optax.OptState,
    params: optax.Params,
    mapping: Names | None = None,
    *,
    like: StateDict,
) -> dict[str, Any]: ...
@overload
def export_state(
    opt_state: optax.OptState,
    params: optax.Params,
    mapping: Names | None = None,
    *,
    like: list[Any],
) -> list[dict[str, Any]]: ...
def export_state(
    opt_state: optax.OptState, params: optax.Params, mapping: Names | None = None, *, like: Any
) -> Any:
    """Return the ``state_dict`` with which torch's optimizer continues; a list if ``like`` is one.

    Args:
      opt_state: the state of a rule of ``jaxsched.optimizers``, in a recipe or not, or an
        ``nnx.Optimizer`` or ``TrainState`` with it.
      params: the parameters.
      mapping: as in ``import_state``. A transform may only rearrange.
      like: a ``state_dict`` of the optimizer, fresh or not, or a path: its groups, with their rates,
        and the state of unmapped parameters are copied. Or a list of those of several optimizers.

    Raises:
      ValueError: a leaf that has no parameter, a transform that cannot be undone.

    >>> from jaxsched import optimizers
    >>> params, tx = {"weight": jnp.ones(2)}, optimizers.sgd(0.1, 0.9)
    >>> _, state = tx.update(params, tx.init(params), params)
    >>> optimizer = torch.optim.SGD([("weight", torch.ones(2))], lr=0.1, momentum=0.9)
    >>> export_state(state, params, like=optimizer.state_dict())["state"]
    {0: {'momentum_buffer': tensor([1., 1.])}}
    """
    original, like = like, as_state_dict(like)
    places, leaves = _place(params, mapping, like), leaves_by_path(params)
    state = {key: dict(entry) for key, entry in like["state"].items()}
    for rule in _rules(opt_state):
        # SGD, Muon and MuSGD count nothing.
        counts = {} if set(rule.trees) <= UNCOUNTED else {"step": float(rule.step)}
        counts |= {name: float(x) for name, x in rule.scalars.items() if name != STARTED}
        if counts and not rule.step:
            continue
        unstarted = STARTED in rule.scalars and not rule.scalars[STARTED]
        for path in _paths(rule):
            number, _ = places[path]
            state[number] = {name: torch.tensor(value) for name, value in counts.items()}
        for name, tree in rule.trees.items():
            for path, leaf in leaves_by_path(tree).items():
                if not _is_in_use(name, leaves[path]):
                    continue
                number, transform = places[path]
                shape = getattr(like["state"].get(number, {}).get(name), "shape", None)
                tensor = None if unstarted else _undo(path, np.asarray(leaf), transform, shape)
                state[number][name] = tensor
    if not isinstance(original, list | tuple):
        return {**like, "state": state}
    return split(state, [as_state_dict(each) for each in original])


def _warn_of_rates(state: Any, places: "_Places", state_dict: Mapping[str, Any]) -> None:
    """Warn if a run in progress would begin again at iteration 0, with another learning rate."""
    groups = {key: group for group in state_dict["param_groups"] for key in group["params"]}
    nodes = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, ScheduledState))
    for node in (n for n in nodes if isinstance(n, ScheduledState) and n.iteration == 0):
        labels = set(node.hyperparameters)
        for keys, rule in jax.tree_util.tree_leaves_with_path(node.inner, is_leaf=is_rule_state):
            own = labels & {getattr(key, "key", None) for key in keys} or labels
            if len(own) > 1 or not is_rule_state(rule):
                continue
            mine = node.hyperparameters[label := min(own)].get("learning_rate", math.nan)
            keys_of_rule = {places[path][0] for path in _paths(rule)} & set(state_dict["state"])
            rates = [groups[key].get("lr") for key in keys_of_rule]
            # torch may have several groups where the recipe has one.
            for lr in set(rates) if all(map(is_number, rates)) else ():
                if abs(float(mine) - lr) > MAX_RATE_ERROR * abs(lr):
                    warnings.warn(
                        f"the learning rate of {label} at iteration 0 must be that of the "
                        f"state_dict, {lr:.6g}, got {float(mine):.6g}. Pass the next batch's "
                        "iteration, 0 to begin again.",
                        stacklevel=3,
                    )


MAX_RATE_ERROR = 1e-6  # relative; the rate in the state is float32
BUFFER, STARTED = "momentum_buffer", "started"  # torch's buffer, created late; a rule's flag of it


def from_kernel(array: np.ndarray) -> np.ndarray:
    """Return torch's weight as Flax's kernel: OIHW to HWIO, a matrix transposed."""
    return array.transpose(*range(2, array.ndim), 1, 0) if array.ndim > 1 else array


def _undo(
    path: str, array: np.ndarray, transform: Transform, shape: tuple[int, ...] | None
) -> torch.Tensor:
    """Return the tensor of ``shape`` that ``transform`` maps to ``array``."""
    if shape is None and transform in (from_kernel, np.asarray):
        shape = torch_shape(array.shape) if transform is from_kernel else array.shape
    # The source of each element; it inverts a transform that only rearranges.
    order = None if shape is None else transform(np.arange(math.prod(shape)).reshape(shape))
    if order is None or order.shape != array.shape or set(order.flat) != set(range(array.size)):
        raise ValueError(
            f"the transform of {path} must rearrange a tensor of like into one of shape "
            f"{array.shape}, to be undone, got {'none' if order is None else order.shape}. "
            "Pass as like a state_dict that has made an update."
        )
    flat = np.empty(array.size)
    flat[order.ravel()] = array.astype(np.float64).ravel()
    return torch.tensor(flat.reshape(shape), dtype=getattr(torch, str(array.dtype)))


def _is_in_use(name: str, leaf: Any) -> bool:
    """Return whether a parameter has a state of this name; Adafactor's depends on its dimensions."""
    is_vector = jnp.ndim(leaf) < 2
    return not is_vector if name in ("row_var", "col_var") else is_vector or name != "variance"


class _Places(dict[str, tuple[Any, Transform]]):
    """The key in ``state_dict["state"]`` and the transform of each leaf that has one."""

    def __missing__(self, path: str) -> Any:
        raise ValueError(
            f"mapping must have each parameter that is trained, got none for {path}. "
            "Add it; match_names and numbers help."
        )


def _place(params: Any, mapping: Names | None, state_dict: Mapping[str, Any]) -> _Places:
    numbered: dict[Any, Any] = {}
    for group in state_dict["param_groups"]:  # torch.distributed has names in place of numbers
        names = group.get("param_names", group["params"])
        numbered |= zip(names, group["params"], strict=True)
    paths = {"/".join(path): path for path in leaf_paths(params)}
    mapped: dict[str, Any] = {}
    if mapping is None:
        mapped = {p: name for p in paths for name in torch_names(paths[p]) if name in numbered}
    elif not isinstance(mapping, Mapping):
        raise TypeError(
            f"mapping must be a dictionary by path, got {type(mapping).__name__}. "
            "Of what match_names returns pass .mapping."
        )
    for key, value in (mapping or {}).items():
        mapped[key if isinstance(key, str) else "/".join(key)] = value
    if unknown := sorted(set(mapped) - set(paths)):
        raise ValueError(
            f"paths of mapping must be of the parameters, got {', '.join(unknown[:5])}, which none has."
        )
    names, places = {*numbered, *numbered.values()}, _Places()
    for path in (path for path in paths if path in mapped):
        entry = mapped[path]
        name, transform = entry if isinstance(entry, tuple) else (entry, None)
        if name not in names:
            raise ValueError(
                f"mapping must lead to parameters of state_dict, got {name!r}, which it does not "
                "name. Make the optimizer of model.named_parameters(), or pass numbers, as "
                "jaxsched.torch.numbers returns them."
            )
        transform = transform or (from_kernel if paths[path][-1] == "kernel" else np.asarray)
        places[path] = numbered.get(name, name), transform
    return places


def _paths(state: RuleState) -> list[str]:
    """Return the paths of the parameters in a rule's state."""
    return list(dict.fromkeys(p for tree in state.trees.values() for p in leaves_by_path(tree)))


def is_rule_state(node: Any) -> bool:
    """Return whether a node of a state is that of an update rule."""
    return isinstance(node, RuleState)


def _rules(opt_state: Any) -> list[RuleState]:
    """Return the states of the rules in a state, however wrapped; refuse one without any."""
    opt_state = getattr(opt_state, "opt_state", opt_state)
    rules = filter(is_rule_state, jax.tree.leaves(opt_state, is_leaf=is_rule_state))
    # Numbers of an nnx.Optimizer are variables, which have no truth value.
    states = [
        RuleState(jnp.asarray(step), {k: jnp.asarray(v) for k, v in scalars.items()}, trees)
        for step, scalars, trees in rules
    ]
    if not states:
        raise ValueError(
            f"opt_state must hold that of a rule of jaxsched.optimizers, got "
            f"{type(opt_state).__name__} without one. Pass recipe.optimizer(labels)."
        )
    return states
