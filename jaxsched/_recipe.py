"""Recipe: the hub between where a recipe comes from and what is done with it.

A recipe counts iterations, one a batch; 0 is the first batch of epoch 0.
"""

import dataclasses
import functools
import inspect
import os
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.core import Tracer
from jax.typing import ArrayLike

from jaxsched import optimizers, param_groups
from jaxsched._recipe_parts import (
    Origin,
    UpdateRule,
    is_numeric,
    require_fields,
    require_group,
    rule_name,
    without_partial,
)
from jaxsched._schedule import FrozenDict, Schedule, content_key, freeze, show
from jaxsched._trace import Trace
from jaxsched._validate import (
    is_number,
    is_real_array,
    require_below_int32,
    require_count,
)
from jaxsched.optimizers._accumulation import accumulated
from jaxsched.optimizers._rule import Rule
from jaxsched.optimizers._scheduled import (
    Fixed,
    Scheduled,
    evaluate_groups,
    numeric_hyperparameters,
    to_default_float,
)
from jaxsched.schedules import constant


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Recipe:
    """The hyperparameters of each parameter group, constant or scheduled, and the update rule.

    Two recipes are equal where their contents are: all fields but ``origin``.

    Attributes:
      groups: ``{label: {argument: value}}``; a value is a number, a schedule of
        the iteration, or a switch such as ``nesterov``. An argument that a group
        lacks has the update rule's default.
      update_rule: a function of those arguments that returns an Optax
        transformation. Rules of ``jaxsched.optimizers``, inside ``functools.partial`` or a
        function of one's own too, get their numbers in float64; all others get float32, an
        ``optax.chain`` with one of ours inside too. Where an argument's default is no number (a
        mask, a dtype), a function is handed on as it is; only a ``Schedule`` is evaluated there.
      clip_norm: the most that the norm of all groups' gradients together may
        be, as in ``optimizers.clip_grad_norm``; not clipped if None.
      clip_value: the most that an entry of a gradient may be, either way, as
        ``optimizers.clip_grad_value`` does; not clipped if None.
      accumulation: when an update is due, and from which gradients; every
        iteration if None.
      ema: the average to keep of parameters and batch statistics. The optimizer does not keep
        it: a loop that does not call ``recipe.ema.update(state, tree, stepped)`` has none.
      start: the iteration at which a fresh state begins.
      clock: what the recipe counts, ``"iteration"``, or ``"update"`` where it replays a trace with
        one row an update.
      length: iterations from 0 to the end of the last epoch, where known.
      origin: ``(factory, arguments)`` of what made the recipe; provenance only.

    Raises:
      ValueError: an argument that ``update_rule`` does not have, one that it
        needs and a group lacks, a number out of its range, a group called ``"frozen"``.
      TypeError: a value of the wrong type.

    >>> recipe = Recipe({"all": {"learning_rate": lambda i: 0.5 / (1 + i), "momentum": 0.9}})
    >>> float(recipe.at(1)["all"]["learning_rate"])
    0.25
    """

    groups: Mapping[str, Mapping[str, Any]]
    update_rule: UpdateRule = optimizers.sgd
    _: dataclasses.KW_ONLY
    clip_norm: ArrayLike | None = None
    clip_value: ArrayLike | None = None
    accumulation: optimizers.Accumulation | None = None
    ema: optimizers.EMA | None = None
    start: int = 0
    clock: str = "iteration"
    length: int | None = None
    origin: Origin | tuple[Callable[..., Any], Mapping[str, Any]] | None = None

    def __post_init__(self) -> None:
        require_fields(self)
        rule, defaults = without_partial(self.update_rule)
        groups = {
            label: FrozenDict(
                {
                    # One kind of switch: a trace states those that are Python's own.
                    k: bool(v) if isinstance(v, np.bool_) else freeze(v)
                    for k, v in {**defaults, **group}.items()
                }
            )
            for label, group in self.groups.items()
        }
        object.__setattr__(self, "update_rule", rule)
        object.__setattr__(self, "groups", FrozenDict(groups))
        parameters = inspect.signature(self.update_rule).parameters
        for label, group in self.groups.items():
            require_group(label, group, parameters, show(self.update_rule))
        if isinstance(self.length, jax.Array):
            object.__setattr__(self, "length", None)  # traced by JAX
        origin = self.origin
        if isinstance(origin, tuple):
            factory, arguments = origin
            origin = Origin(factory, FrozenDict(arguments), content=self._key)
        elif origin is not None and origin.content != self._key:
            origin = None
        object.__setattr__(self, "origin", origin)
        _ = self._takes_float64  # builds the rules once, so that they refuse bad values now

    @functools.cached_property
    def _key(self) -> Hashable:
        """The content, as something that can be compared and hashed."""
        fields = (f.name for f in dataclasses.fields(self) if f.name not in ("groups", "origin"))
        return (
            content_key(self.complete_groups()),
            *(content_key(getattr(self, name)) for name in fields),
        )

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Recipe):
            return NotImplemented
        return self is other or self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    def __reduce__(self) -> tuple[Any, ...]:
        fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        fields["groups"] = {label: dict(group) for label, group in self.groups.items()}
        if isinstance(self.origin, Origin):
            fields["origin"] = (self.origin.factory, dict(self.origin.arguments))
        return _remake, (type(self), fields)

    def __deepcopy__(self, memo: Any) -> "Recipe":
        return self  # immutable

    def __repr__(self) -> str:
        from jaxsched._recipe_text import text

        return text(self)

    def _repr_html_(self) -> str:
        from jaxsched._recipe_text import html

        return html(self)

    def complete_groups(self) -> dict[str, dict[str, Any]]:
        """Return the groups, with missing arguments filled in from the update rule's defaults."""
        parameters = inspect.signature(self.update_rule).parameters
        return {
            label: {
                name: group.get(name, parameter.default)
                for name, parameter in parameters.items()
                if name in group or parameter.default is not inspect.Parameter.empty
            }
            for label, group in self.groups.items()
        }

    @functools.cached_property
    def _scheduled_groups(self) -> dict[str, dict[str, Any]]:
        """``complete_groups``, with what is handed to the update rule as it is marked.

        A function where the rule has no number, a mask say, is no schedule.
        """
        parameters = inspect.signature(self.update_rule).parameters

        def is_fixed(name: str, value: Any) -> bool:
            plain = isinstance(value, bool | int | float | str | tuple | np.generic)
            known = plain or value is None or is_real_array(value) or isinstance(value, Schedule)
            return not known and not is_numeric(parameters[name])

        return {
            label: {k: Fixed(v) if is_fixed(k, v) else v for k, v in group.items()}
            for label, group in self.complete_groups().items()
        }

    def _values(self, iteration: ArrayLike) -> dict[str, dict[str, Any]]:
        return evaluate_groups(self._scheduled_groups, iteration)

    @functools.cached_property
    def _takes_float64(self) -> bool:
        """Whether the update rule is one of this package, which takes its numbers in float64."""
        values = _rounded(self._values(self.start))
        return all(isinstance(self._rule(group), Rule) for group in values.values())

    def rules(self, values: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Return the update rule of each group, at an iteration's values."""
        values = values if self._takes_float64 else _rounded(values)
        return {label: self._rule(group) for label, group in values.items()}

    def _rule(self, group: Mapping[str, Any]) -> Any:
        given = {k: v.value if isinstance(v, Fixed) else v for k, v in group.items()}
        return self.update_rule(**given)

    def at(self, iteration: ArrayLike) -> dict[str, dict[str, jax.Array]]:
        """Evaluate the hyperparameters of an iteration.

        Args:
          iteration: an integer of at least 0; may be traced.

        Returns:
          ``{label: {name: value}}``, numbers only: float32, or float64 with x64. Each is NaN at a
          traced iteration below 0, which no run has.

        Raises:
          ValueError: an iteration below 0, or one at which a schedule has no value.
        """
        is_traced = isinstance(iteration, Tracer)
        if not is_traced and np.any(np.asarray(iteration) < 0):
            raise ValueError(f"iteration must be at least 0, got {iteration}.")
        values = numeric_hyperparameters(self._values(iteration))
        if not is_traced:
            return values
        return jax.tree.map(
            lambda value: jnp.where(jnp.asarray(iteration) >= 0, value, jnp.nan), values
        )

    @property
    def iterations(self) -> int | None:
        """Iterations from ``start`` to the end of the last epoch, where ``length`` is known."""
        return None if self.length is None else self.length - self.start

    @functools.cached_property
    def _at_each(self) -> Callable[[jax.Array], dict[str, dict[str, jax.Array]]]:
        """``at`` of an array of iterations, compiled once."""
        # Not vmap: the search of jnp.interp, batched, takes three times as long (benchmarks/curves).
        return jax.jit(lambda iterations: jax.lax.map(self.at, iterations))

    def trace(self, n: int, start: int | None = None) -> Trace:
        """Evaluate the hyperparameters of ``n`` iterations, jitted.

        Args:
          n: how many iterations, at least 1.
          start: the first of them; ``self.start`` if not given.

        Raises:
          ValueError: a number out of its range; a schedule that ends before.
        """
        require_count("n", n, at_least=1)
        start = self.start if start is None else start
        require_count("start", start)
        require_below_int32("start + n", start + n)
        complete = self.complete_groups()
        self.at(start + n - 1)  # a table that ends before refuses; jitted it would hold
        columns = self._at_each(start + jnp.arange(n, dtype=jnp.int32))
        ema = self.ema and {
            "decay": float(self.ema.decay),
            "tau": float(self.ema.tau),
            "updates": self.ema.updates,
        }
        accumulation = self.accumulation
        return Trace(
            {
                # Out of jit a dictionary comes with its keys sorted.
                label: {
                    name: np.asarray(columns[label][name])
                    for name in group
                    if name in columns[label]
                }
                for label, group in complete.items()
            },
            self.bookkeeping(n, start),
            start,
            clock=self.clock,
            update_rule=rule_name(self.update_rule),
            switches={
                label: {
                    name: v
                    for name, v in group.items()
                    if v is None or isinstance(v, bool | str | tuple)
                }
                for label, group in complete.items()
            },
            constants={
                label: {name: float(v) for name, v in group.items() if is_number(v)}
                for label, group in complete.items()
            },
            clip_norm=_as_float(self.clip_norm),
            clip_value=_as_float(self.clip_value),
            accumulation=accumulation and {"steps_per_epoch": accumulation.steps_per_epoch},
            ema=ema,
        )

    def bookkeeping(self, n: int, start: int | None = None) -> dict[str, np.ndarray]:
        """Count accumulation and average over ``n`` iterations, simulated from ``self.start``.

        Returns:
          ``Trace.run`` of these iterations: empty without accumulation and average.
        """
        start = self.start if start is None else start
        if self.accumulation is None and self.ema is None:
            return {}
        first = min(self.start, start)
        run = (self.accumulation or optimizers.Accumulation(constant(1))).simulate(
            first, start - first + n
        )
        if self.ema is not None:
            run |= self.ema.simulate(run["stepped"])
        return {name: values[start - first :] for name, values in run.items()}

    def optimizer(self, labels: param_groups.Labels) -> optax.GradientTransformationExtraArgs:
        """Return the recipe as an Optax transformation.

        One counter, of iterations, serves all groups; the update rule of each
        runs inside ``optax.multi_transform``. ``jaxsched.hyperparameters`` reads
        the values in force out of the state.

        Gradients that are no numbers do what they do in torch: they reach parameters
        and buffers, and the counter goes on. Inside ``optax.apply_if_finite`` such a
        call changes nothing, and the counter stands still too: the next good batch
        gets the values that the bad one had, and n bad ones shift the schedule by n
        batches. The counter is int32 and stays at 2**31 - 1.

        Args:
          labels: a tree of labels, or a function of the parameters that returns
            one, such as ``param_groups.by_leaf_name``. Parameters labelled
            ``"frozen"`` get no update and no decay.

        Raises:
          ValueError: on ``init``, where the labels do not fit the parameters or
            name a group that the recipe does not have.
          TypeError: a leaf of the parameters is no array.
        """
        rules = _LabelledRules(self, labels)
        return Scheduled(self._scheduled_groups, rules.build, self.start).transformation()

    @classmethod
    def from_trace(cls, trace: Trace, update_rule: UpdateRule | None = None) -> "Recipe":
        """Build the recipe that replays a trace, to the bit.

        Args:
          trace: a recorded or saved one. What is constant in it becomes a number,
            the rest a table that refuses iterations outside the trace. Where its
            rows are updates, so are what the recipe calls iterations, and
            ``recipe.clock`` says so: inside ``optax.MultiSteps``, say.
          update_rule: the rule; if not given, that which the trace names.

        Raises:
          ValueError: the trace is empty, has rows without a number, counts neither
            iterations nor updates, or names no rule of ``jaxsched.optimizers``.
        """
        from jaxsched._replay import replay_fields

        origin = (cls.from_trace, {"trace": repr(trace), "update_rule": update_rule})
        return cls(**replay_fields(trace, update_rule), origin=origin)

    def save(self, path: str | os.PathLike[str], iterations: int | None = None) -> None:
        """Write the recipe as YAML or JSON; a file already there is replaced whole.

        Args:
          path: the file, ``.yaml``, ``.yml`` or ``.json``.
          iterations: how many iterations are tabulated of a schedule with a Python function
            inside; if not given, those to the end of the last epoch.

        Raises:
          ValueError: another suffix; a Python function inside and no number of iterations; an
            update rule that is not of ``jaxsched.optimizers``.
          OSError: the file cannot be written; what was there stays.
        """
        from jaxsched._recipe_file import write

        write(self, path, iterations)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Recipe":
        """Read what ``save`` wrote, or what was written by hand; no code in it is run.

        Raises:
          ValueError: the file is not a recipe of a version that is known, or names a function
            that is not of this package.
          FileNotFoundError: there is no such file.
        """
        from jaxsched._recipe_file import read

        return read(path, cls)


@dataclasses.dataclass(frozen=True)
class _LabelledRules:
    """The update rules of a recipe on the groups that labels make."""

    recipe: Recipe
    labels: Any

    def fit(self, params: optax.Params) -> Any:
        for leaf in jax.tree.leaves(params):
            if not hasattr(leaf, "dtype") and not isinstance(leaf, int | float | complex):
                raise TypeError(
                    f"parameters must be arrays or numbers, got {type(leaf).__name__} among them. "
                    "Pass what is trained alone."
                )
        known = {*self.recipe.groups, param_groups.FROZEN}
        return param_groups.fit(self.labels, params, known=known)

    def is_trained(self, params: optax.Params) -> Any:
        return jax.tree.map(lambda label: label != param_groups.FROZEN, self.fit(params))

    def build(
        self, iteration: Any, values: Mapping[str, Mapping[str, Any]]
    ) -> optax.GradientTransformation:
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
            # Before the rules, which see a group each. torch skips what has no gradient.
            rules = optax.chain(optax.masked(clip, self.is_trained), rules)
        if recipe.accumulation is not None:
            rules = accumulated(rules, recipe.accumulation, iteration)
        return rules


def _rounded(values: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the arrays among ``values`` in the default float dtype, for rules of others."""
    return {
        label: {
            name: to_default_float(value) if isinstance(value, jax.Array) else value
            for name, value in group.items()
        }
        for label, group in values.items()
    }


def _as_float(value: Any) -> float | None:
    return None if value is None else float(value)


def _remake(kind: type[Recipe], fields: dict[str, Any]) -> Recipe:
    return kind(**fields)
