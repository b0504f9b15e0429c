"""An Optax transformation and a torch optimizer on the same gradients.

Both count updates; 0 is the first.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

from jaxsched.optimizers import RuleState, hyperparameters
from jaxsched.param_groups import leaf_paths
from jaxsched.torch.groups import RULES, labelled, places, read
from jaxsched.torch.state import export_state

SHAPES = {"weight": (7, 5), "bias": (5,), "norm": (5,)}
"""Of the parameters, unless given: one for each label of the usual recipes."""

RATE_BOUND = 1e-11
"""Of the value: what a closed form may be from torch's recursion in float64."""


def assert_optimizer_matches(
    tx: optax.GradientTransformation,
    torch_optimizer_factory: Callable[[dict[str, torch.nn.Parameter]], Any],
    *,
    params: Mapping[str, Any] | None = None,
    updates: int = 100,
    steps_per_epoch: int = 1,
    labels: Sequence[str] | None = None,
    bound: float = 1e-14,
    seed: int = 0,
) -> None:
    """Fails where the two part, at the first update and leaf.

    Both start from the same parameters and get the same random gradients, in
    float64. After every update are compared: the rates, where ``tx``'s state tells
    them; the parameters, and with them what they moved by; the state, where
    it is that of a rule of ``jaxsched.optimizers``.

    Args:
      tx: ``recipe.optimizer(labels)`` or any other transformation.
      torch_optimizer_factory: from ``{path: parameter}``, the paths being those of
        ``params``, ``"head/kernel"``, to an optimizer, or to it and its scheduler.
      params: a tree of arrays; if not given, one each of ``weight``, ``bias`` and
        ``norm``.
      updates: how many.
      steps_per_epoch: updates from one step of the scheduler to the next.
      labels: that of each of torch's groups, if they are not ``"0"``, ``"1"``, ….
      bound: what a leaf may be off, in parts of its largest entry.
      seed: of the parameters and gradients.

    Raises:
      AssertionError: they part; it says where, with both values.
      ValueError: the labels do not fit.
    """
    rng = np.random.default_rng(seed)
    default = torch.get_default_dtype()
    if params is None:
        params = {name: rng.normal(size=shape) for name, shape in SHAPES.items()}
    with jax.enable_x64(True):
        try:
            torch.set_default_dtype(torch.float64)
            _run(
                tx,
                torch_optimizer_factory,
                jax.tree.map(lambda p: jnp.asarray(p, jnp.float64), params),
                updates,
                steps_per_epoch,
                labels,
                bound,
                rng,
            )
        finally:
            torch.set_default_dtype(default)


def _run(
    tx: optax.GradientTransformation,
    factory: Callable[..., Any],
    params: Any,
    updates: int,
    steps_per_epoch: int,
    labels: Sequence[str] | None,
    bound: float,
    rng: np.random.Generator,
) -> None:
    leaves, structure = jax.tree.flatten(params)
    paths = ["/".join(path) for path in leaf_paths(params)]
    theirs = {
        path: torch.nn.Parameter(torch.tensor(np.asarray(leaf)))
        for path, leaf in zip(paths, leaves, strict=True)
    }
    made = factory(theirs)
    optimizer, scheduler = made if isinstance(made, tuple) else (made, None)
    order = [id(p) for group in optimizer.param_groups for p in group["params"]]
    # Both have torch's layout here, kernels too.
    mapping = {
        path: (order.index(id(p)), np.asarray) for path, p in theirs.items() if id(p) in order
    }
    state, update = tx.init(params), jax.jit(tx.update)
    for count in range(updates):
        gradients = [rng.normal(size=leaf.shape) for leaf in leaves]
        for p, gradient in zip(theirs.values(), gradients, strict=True):
            p.grad = torch.tensor(gradient)
        rates = _rates_of_torch(optimizer, labels)
        optimizer.step()
        changes, state = update(structure.unflatten(gradients), state, params)
        params = optax.apply_updates(params, changes)
        _compare_rates(count, _rates_of(state), rates)
        for path, mine, p in zip(paths, jax.tree.leaves(params), theirs.values(), strict=True):
            _compare(count, path, "parameter", mine, p.detach().numpy(), bound)
        _compare_state(count, state, params, mapping, optimizer, bound)
        if scheduler is not None and (count + 1) % steps_per_epoch == 0:
            scheduler.step()


def _rates_of_torch(
    optimizer: torch.optim.Optimizer, labels: Sequence[str] | None
) -> dict[str, dict[str, Any]]:
    rule = RULES.get(type(optimizer))
    return {
        label: {name: read(group, place) for name, place in places(group, rule).items()}
        for label, group in labelled(optimizer, labels).items()
    }


def _rates_of(state: Any) -> dict[str, dict[str, Any]]:
    """What the state tells: ours, that of ``optax.inject_hyperparams``, or nothing."""
    try:
        return hyperparameters(state)
    except ValueError:
        told = [node for node in jax.tree.leaves(state, is_leaf=_injected) if _injected(node)]
        return {"all": dict(told[0].hyperparams)} if told else {}


def _injected(node: Any) -> bool:
    return hasattr(node, "hyperparams")


def _compare_rates(
    count: int, told: Mapping[str, Mapping[str, Any]], theirs: Mapping[str, Mapping[str, Any]]
) -> None:
    if not told:
        return
    mine = {label: told["all"] for label in theirs} if set(told) == {"all"} else told
    if set(mine) != set(theirs):
        raise ValueError(
            f"labels of torch's groups must be those of tx, got {', '.join(theirs)} for "
            f"{', '.join(mine)}. Pass labels, in the order of param_groups."
        )
    for label, group in theirs.items():
        for name in group.keys() & mine[label].keys():
            if group[name] is not None:
                value = np.asarray(mine[label][name])
                _compare(count, label, name, value, np.asarray(group[name]), RATE_BOUND)


def _compare_state(
    count: int,
    state: Any,
    params: Any,
    mapping: Mapping[str, Any],
    optimizer: torch.optim.Optimizer,
    bound: float,
) -> None:
    if not any(
        isinstance(node, RuleState)
        for node in jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, RuleState))
    ):
        return
    theirs = optimizer.state_dict()
    mine = export_state(state, params, mapping, like=theirs)["state"]
    for path, (number, _) in mapping.items():
        for name, value in theirs["state"].get(number, {}).items():
            if value is None and mine.get(number, {}).get(name) is None:
                continue
            here = mine.get(number, {}).get(name, np.nan)
            _compare(count, path, name, np.asarray(here), np.asarray(value), bound)


def _compare(
    count: int, where: str, name: str, mine: Any, theirs: np.ndarray, bound: float
) -> None:
    """Fails where any entry is farther off than ``bound`` of the largest."""
    mine, theirs = np.asarray(mine, np.float64), np.asarray(theirs, np.float64)
    off = np.abs(mine - theirs)
    allowed = bound * np.abs(theirs).max(initial=0.0)
    if (off <= allowed).all():
        return
    at = np.unravel_index(int(np.nanargmax(np.where(np.isnan(off), np.inf, off))), off.shape)
    index = f"[{', '.join(map(str, at))}]" if at else ""
    raise AssertionError(
        f"the two part at update {count}: {name} of {where}{index} is "
        f"{np.broadcast_to(mine, off.shape)[at]} for torch's {theirs[at]}, "
        f"{off[at]:.3g} off where {allowed:.3g} is allowed."
    )
