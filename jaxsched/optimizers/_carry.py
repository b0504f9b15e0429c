"""Carry the state of an optimizer over to one that trains other parameters."""

from typing import Any

import jax
import optax

from jaxsched.optimizers._rule import UNCOUNTED, RuleState
from jaxsched.param_groups import leaf_path


def carry_state(
    opt_state: Any, tx: optax.GradientTransformation, params: optax.Params
) -> optax.OptState:
    """Return the state with which ``tx`` continues another state, after a group was thawed or frozen.

    Counts, moments, buffers and pending gradients of the parameters that both train are those of
    ``opt_state``. Parameters that only ``tx`` trains start afresh; the state of others is dropped.
    A group of thawed parameters counts its updates from 0, as in torch. Thawed parameters can join a
    group that has made updates only if its rule counts none: SGD, Muon, MuSGD. With dampening a
    thawed buffer starts from the dampened gradient, torch's from the undampened one.

    Args:
      opt_state: the previous optimizer's state, or an ``nnx.Optimizer`` or ``TrainState`` with it.
      tx: the new optimizer, with the same update rules: the recipe's with other labels.
      params: the parameters, as passed to ``tx``.

    Raises:
      ValueError: a state of another rule, or of parameters of other shapes; thawed parameters in a
        group whose rule counts updates.

    >>> import jax.numpy as jnp
    >>> from jaxsched import optimizers
    >>> tx = optimizers.sgd(0.5, 0.9)
    >>> params = {"stem": jnp.ones(2), "head": jnp.ones(2)}
    >>> frozen = optax.masked(tx, {"stem": False, "head": True})
    >>> _, state = frozen.update(params, frozen.init(params), params)
    >>> thawed = optax.masked(tx, {"stem": True, "head": True})
    >>> buffers = carry_state(state, thawed, params).inner_state.trees["momentum_buffer"]
    >>> {name: float(buffer[0]) for name, buffer in buffers.items()}
    {'head': 1.0, 'stem': 0.0}
    """
    opt_state = getattr(opt_state, "opt_state", opt_state)
    old_leaves = {leaf_path(keys): x for keys, x in jax.tree_util.tree_leaves_with_path(opt_state)}

    def carry(path: tuple[str, ...], fresh: Any) -> Any:
        leaf = old_leaves.get(path, fresh)
        if leaf.shape != fresh.shape:
            raise ValueError(
                f"opt_state must be of parameters of the same shapes, got {leaf.shape} for "
                f"{fresh.shape} at {'/'.join(path)}."
            )
        return leaf

    def carry_rule(keys: tuple[Any, ...], node: Any) -> Any:
        prefix = leaf_path(keys)
        if not isinstance(node, RuleState):
            return carry(prefix, node)
        flat, structure = jax.tree_util.tree_flatten_with_path(node)
        leaves = {(*prefix, *leaf_path(inner)): leaf for inner, leaf in flat}
        place = (*prefix, "trees")
        before = {path for path in old_leaves if path[: len(place)] == place}
        names = {path[len(place)] for path in before}
        if names - set(node.trees):
            raise ValueError(
                f"opt_state must be of the same update rules as tx, got one that holds "
                f"{', '.join(sorted(names))} where tx holds {', '.join(node.trees) or 'nothing'}."
            )
        trained = [path for path in leaves if path[: len(place)] == place]
        thawed = [path for path in trained if path not in before]
        if thawed and len(thawed) == len(trained):
            return node  # a group without trained parameters counts its updates from 0
        if thawed and not set(node.trees) <= UNCOUNTED:
            raise ValueError(
                "parameters of one group must have made equally many updates, got a thawed "
                f"{'/'.join(thawed[0][len(place) + 1 :])} among others. Give those thawed a label "
                "and a group of their own."
            )
        return structure.unflatten(carry(path, leaf) for path, leaf in leaves.items())

    return jax.tree_util.tree_map_with_path(
        carry_rule, tx.init(params), is_leaf=lambda node: isinstance(node, RuleState)
    )
