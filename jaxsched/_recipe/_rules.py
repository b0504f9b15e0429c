"""The update rules of a recipe as one transformation of labelled parameters."""

import dataclasses
import warnings
from typing import Any

import jax
import optax

from jaxsched import optimizers, param_groups
from jaxsched._groups import Groups
from jaxsched.optimizers._accumulation import accumulate


@dataclasses.dataclass(frozen=True)
class LabelledRules:
    """The update rules of a recipe, with the labels of the parameters."""

    recipe: Any  # a Recipe, whose module imports this one
    labels: Any

    def fit(self, params: optax.Params) -> Any:
        """Return the labels as a tree like ``params``; warn of groups that no parameter is in."""
        for leaf in jax.tree.leaves(params):
            if not hasattr(leaf, "dtype") and not isinstance(leaf, int | float | complex):
                raise TypeError(
                    f"parameters must be arrays or numbers, got {type(leaf).__name__} among them. "
                    "Pass what is trained alone."
                )
        groups = {*self.recipe.groups, param_groups.FROZEN}
        fitted = param_groups.fit(self.labels, params, groups=groups)
        used = set(jax.tree.leaves(fitted))
        self._warn_of_unused_rules(used)
        if used and isinstance(self.labels, param_groups.LayerLabels):
            self._warn_of_unused_layers(self.labels.count(params))
        return fitted

    def _warn_of_unused_rules(self, used: set[str]) -> None:
        """Warn if no parameter uses one of several rules, or of several settings of switches."""
        groups_by_rule: dict[Any, list[str]] = {}
        for label, group in self.recipe.complete_groups().items():
            switches = frozenset((k, v) for k, v in group.items() if isinstance(v, bool | str))
            rule = self.recipe.rule_by_label[label], switches
            groups_by_rule.setdefault(rule, []).append(label)
        for labels in groups_by_rule.values() if len(groups_by_rule) > 1 and used else ():
            if not used & set(labels):
                warnings.warn(
                    f"no parameter gets the update rule of group {' or '.join(labels)}. Check the labels.",
                    stacklevel=2,
                )

    def _warn_of_unused_layers(self, count: int) -> None:
        """Warn if the recipe has more layers than the parameters, whose rates are then too low."""
        labels = [
            label for label in self.recipe.groups if f"{label}_".startswith(f"layer_{count}_")
        ]
        if labels:
            warnings.warn(
                f"no parameter is in group {' or '.join(labels)}: the parameters have {count} "
                f"layers. Pass layers={count} to the recipe, or check the labels.",
                stacklevel=2,
            )

    def is_trained(self, params: optax.Params) -> Any:
        """Return a tree of bool, False for frozen parameters."""
        return jax.tree.map(lambda label: label != param_groups.FROZEN, self.fit(params))

    def build(self, iteration: Any, values: Groups) -> optax.GradientTransformation:
        """Return the transformation of an iteration: clip, update rules, accumulation."""
        recipe = self.recipe
        rules = optax.multi_transform(
            {**recipe.rules(values), param_groups.FROZEN: optax.set_to_zero()}, self.fit
        )
        clip = None
        if recipe.clip_norm is not None:
            clip = optimizers.clip_grad_norm(recipe.clip_norm)
        elif recipe.clip_value is not None:
            clip = optimizers.clip_grad_value(recipe.clip_value)
        if clip is not None:
            # Before the rules, each of which sees only its group. torch skips frozen parameters.
            rules = optax.chain(optax.masked(clip, self.is_trained), rules)
        if recipe.accumulation is not None:
            rules = accumulate(rules, recipe.accumulation, iteration)
        return rules
