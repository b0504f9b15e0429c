"""Recipe: the hyperparameters of each parameter group by iteration, and its update rule."""

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

from jaxsched import _validate, optimizers, param_groups
from jaxsched._groups import Groups, common_value, map_groups
from jaxsched._recipe import _file, _text
from jaxsched._recipe._checks import (
    EMPTY,
    Origin,
    UpdateRule,
    is_numeric,
    is_own,
    require_fields,
    require_group,
    rule_name,
    unwrap_partial,
)
from jaxsched._recipe._replay import replay_fields
from jaxsched._recipe._rules import LabelledRules
from jaxsched._schedule import FrozenDict, Schedule, content_key, freeze, show
from jaxsched._trace import Trace
from jaxsched._validate import describe, dtype_name, is_number, is_real_array, require_count
from jaxsched.optimizers import _scheduled
from jaxsched.optimizers._musgd import RATIOS
from jaxsched.optimizers._rule import Rule
from jaxsched.optimizers._scheduled import Fixed
from jaxsched.schedules import constant


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Recipe:
    """The hyperparameters of each parameter group, constant or scheduled, and its update rule.

    Two recipes are equal if all their fields but ``origin`` are.

    Attributes:
      groups: ``{label: {argument: value}}``; a value is a number, a schedule of the iteration, or a
        switch such as ``nesterov``. Missing arguments have the update rule's defaults.
      update_rule: a function of those arguments that returns an Optax transformation, or a mapping
        of each label to one; if all are the same, the recipe holds the function. Rules of
        ``jaxsched.optimizers``, also within ``functools.partial`` or your own function, get their
        numbers in float64; all other rules get float32, also an ``optax.chain`` that contains one
        of ours. If an argument's default is not a number (a mask, a dtype), a function is passed
        on unchanged; only a ``Schedule`` is evaluated there.
      clip_norm: the limit of ``optimizers.clip_grad_norm``, on all groups together; none if None.
      clip_value: the limit of ``optimizers.clip_grad_value``; none if None.
      accumulation: when an update is due, and from which gradients; every iteration if None.
      ema: the average of parameters and batch statistics. The optimizer does not compute it: call
        ``recipe.ema.update(state, tree, stepped)`` in the loop.
      start: the iteration at which a fresh state begins.
      clock: ``"iteration"``, or ``"update"`` if the recipe replays a trace with one row an update.
      length: iterations from 0 to the end of the last epoch, or None if unknown.
      origin: ``(factory, arguments)`` that built the recipe; provenance only.

    Raises:
      ValueError: an argument that the group's rule does not have, a missing argument that it needs,
        a number out of its range, a group called ``"frozen"``, labels of ``update_rule`` that are
        not those of the groups.
      TypeError: a value of the wrong type.

    >>> recipe = Recipe({"all": {"learning_rate": lambda i: 0.5 / (1 + i), "momentum": 0.9}})
    >>> float(recipe.at(1)["all"]["learning_rate"])
    0.25
    >>> groups = {"matrix": {"learning_rate": 0.02}, "other": {"learning_rate": 3e-4}}
    >>> print(Recipe(groups, {"matrix": optimizers.muon, "other": optimizers.adamw}))
    Recipe: muon and adamw, 2 groups, iteration 0
            update_rule  learning_rate
    matrix  muon         0.02
    other   adamw        0.0003
    """

    groups: Mapping[str, Mapping[str, Any]]
    update_rule: UpdateRule | Mapping[str, UpdateRule] = optimizers.sgd
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
        rules = {label: unwrap_partial(rule) for label, rule in self.rule_by_label.items()}

        def entry(label: str, name: str, value: Any) -> Any:
            # Convert switches to Python's own types, which a trace holds.
            value = dtype_name(value) if is_own(rules[label][0]) else value
            return bool(value) if isinstance(value, np.bool_) else freeze(value)

        groups = {label: {**rules[label][1], **group} for label, group in self.groups.items()}
        groups = {label: FrozenDict(group) for label, group in map_groups(entry, groups).items()}
        object.__setattr__(self, "update_rule", common_value({k: r for k, (r, _) in rules.items()}))
        object.__setattr__(self, "groups", FrozenDict(groups))
        for label, rule in self.rule_by_label.items():
            require_group(label, self.groups[label], self._parameters[label], show(rule))
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

    @property
    def rule_by_label(self) -> dict[str, UpdateRule]:
        """The update rule of each group."""
        rule = self.update_rule
        return {k: rule[k] if isinstance(rule, Mapping) else rule for k in self.groups}

    @functools.cached_property
    def _parameters(self) -> dict[str, Mapping[str, inspect.Parameter]]:
        return {k: inspect.signature(rule).parameters for k, rule in self.rule_by_label.items()}

    @functools.cached_property
    def _key(self) -> Hashable:
        """A hashable value that equal recipes share."""
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
        if isinstance(self.update_rule, Mapping):
            fields["update_rule"] = dict(self.update_rule)
        if isinstance(self.origin, Origin):
            fields["origin"] = (self.origin.factory, dict(self.origin.arguments))
        return functools.partial(type(self), **fields), ()

    def __deepcopy__(self, memo: Any) -> "Recipe":
        return self  # immutable

    def __repr__(self) -> str:
        return _text.text(self)

    def _repr_html_(self) -> str:
        return _text.html(self)

    def complete_groups(self) -> dict[str, dict[str, Any]]:
        """Return the groups, with missing arguments filled in from the update rules' defaults.

        MuSGD's ratios are left out of groups without ``use_muon``, in which they have no effect.
        """
        rules = self.rule_by_label

        def defaults(label: str) -> dict[str, Any]:
            plain = dtype_name if is_own(rules[label]) else lambda value: value
            return {name: plain(p.default) for name, p in self._parameters[label].items()}

        def has_effect(label: str, name: str, group: Mapping[str, Any]) -> bool:
            return rules[label] is not optimizers.musgd or name not in RATIOS or group["use_muon"]

        groups = {label: defaults(label) | dict(group) for label, group in self.groups.items()}
        return {
            label: {k: v for k, v in g.items() if v is not EMPTY and has_effect(label, k, g)}
            for label, g in groups.items()
        }

    @functools.cached_property
    def _scheduled_groups(self) -> dict[str, dict[str, Any]]:
        """``complete_groups``, with arguments that are passed on unchanged wrapped in ``Fixed``.

        A function for an argument that is not a number, such as a mask, is not a schedule.
        """

        def entry(label: str, name: str, value: Any) -> Any:
            if isinstance(value, Schedule) and value.factory is constant:
                value = value.arguments["value"]  # a constant of the graph
            kinds = bool | int | float | str | tuple | np.generic | Schedule | None
            is_value = isinstance(value, kinds) or is_real_array(value)
            return value if is_value or is_numeric(self._parameters[label][name]) else Fixed(value)

        return map_groups(entry, self.complete_groups())

    def _values(self, iteration: ArrayLike) -> dict[str, dict[str, Any]]:
        return _scheduled.evaluate_groups(self._scheduled_groups, iteration)

    @functools.cached_property
    def _takes_float64(self) -> dict[str, bool]:
        """``{label: True}`` if the group's rule is this package's, which takes float64 numbers."""
        values = {k: _round_arrays(group) for k, group in self._values(self.start).items()}
        return {label: isinstance(rule, Rule) for label, rule in self._call_rules(values).items()}

    def rules(self, values: Groups) -> dict[str, Any]:
        """Return the transformation of each group, at an iteration's values."""
        is_wide = self._takes_float64
        return self._call_rules(
            {k: group if is_wide[k] else _round_arrays(group) for k, group in values.items()}
        )

    def _call_rules(self, values: Groups) -> dict[str, Any]:
        values = map_groups(lambda _, k, v: v.value if isinstance(v, Fixed) else v, values)
        return {label: rule(**values[label]) for label, rule in self.rule_by_label.items()}

    def at(self, iteration: ArrayLike) -> dict[str, dict[str, jax.Array]]:
        """Evaluate the hyperparameters of an iteration.

        Args:
          iteration: an integer of at least 0; may be traced.

        Returns:
          ``{label: {name: value}}``, numbers only: float32, or float64 with x64. Each is NaN at a
          traced iteration below 0.

        Raises:
          ValueError: an iteration below 0, or outside a schedule's table.
        """
        is_traced = isinstance(iteration, Tracer)
        if not is_traced:
            counts = np.asarray(iteration)
            if counts.dtype.kind not in "biu":
                raise TypeError(f"iteration must be an integer, got {describe(iteration)}.")
            if (counts < 0).any():
                raise ValueError(f"iteration must be at least 0, got {iteration}.")
        values = _scheduled.numeric_hyperparameters(self._values(iteration))
        if not is_traced:
            return values
        # Not jax.tree.map, which sorts the keys.
        in_run = jnp.asarray(iteration) >= 0
        return map_groups(lambda _, k, value: jnp.where(in_run, value, jnp.nan), values)

    @property
    def iterations(self) -> int | None:
        """Iterations from ``start`` to the end of the last epoch; None if ``length`` is None."""
        return None if self.length is None else self.length - self.start

    @functools.cached_property
    def _at_each(self) -> Callable[[np.ndarray], dict[str, dict[str, Any]]]:
        """``at`` for an array of iterations, compiled once, unless all numbers are constant."""
        if not any(
            callable(v) for group in self._scheduled_groups.values() for v in group.values()
        ):
            return lambda iterations: map_groups(
                lambda _, k, value: np.full(len(iterations), value), self.at(iterations[0])
            )
        # Not vmap, which takes three times as long to compile, and twice as long to run, for YOLOv5.
        return jax.jit(lambda iterations: jax.lax.map(self.at, iterations))

    def trace(self, n: int, start: int | None = None) -> Trace:
        """Evaluate the hyperparameters of ``n`` iterations, jitted.

        Args:
          n: number of iterations, at least 1.
          start: the first iteration; ``self.start`` if not given.

        Raises:
          ValueError: a number out of its range; a schedule's table that ends earlier.
        """
        require_count("n", n, at_least=1)
        start = self.start if start is None else start
        require_count("start", start)
        _validate.require_below_int32("start + n", start + n)
        complete = self.complete_groups()
        for end in {start, start + n - 1}:
            self.at(end)  # refuses an iteration outside a table, which is NaN under jit
        columns = self._at_each(np.arange(start, start + n, dtype=np.int32))

        def select(holds: Callable[[Any], bool], convert: Any = lambda v: v) -> dict[str, Any]:
            return {
                label: {name: convert(v) for name, v in group.items() if holds(v)}
                for label, group in complete.items()
            }

        def as_float(value: Any) -> float | None:
            return None if value is None else float(value)

        accumulation, ema = self.accumulation, self.ema
        return Trace(
            {
                # jit returns a dictionary with its keys sorted.
                label: {name: np.asarray(at[name]) for name in group if name in at}
                for label, group in complete.items()
                for at in [columns[label]]
            },
            self.bookkeeping(n, start),
            start,
            clock=self.clock,
            update_rule=common_value({k: rule_name(r) for k, r in self.rule_by_label.items()}),
            switches=select(lambda v: v is None or isinstance(v, bool | str | tuple)),
            constants=select(is_number, float),
            clip_norm=as_float(self.clip_norm),
            clip_value=as_float(self.clip_value),
            accumulation=accumulation and {"steps_per_epoch": accumulation.steps_per_epoch},
            ema=ema and ema.header(),
        )

    def bookkeeping(self, n: int, start: int | None = None) -> dict[str, np.ndarray]:
        """Return ``Trace.run`` of ``n`` iterations, simulated from ``self.start``.

        It holds the columns of accumulation and average; without these it is empty.
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

        All groups share one counter, of iterations; the update rule of each runs inside
        ``optax.multi_transform``. ``jaxsched.hyperparameters`` reads the values in force.

        As in torch, NaN and infinite gradients reach parameters and buffers, and the counter goes on.
        Inside ``optax.apply_if_finite`` such a call changes nothing, the counter included: n bad
        batches shift the schedule by n. The counter is int32 and stays at 2**31 - 1.

        Args:
          labels: a tree of labels, or a function of the parameters that returns one, such as
            ``param_groups.by_leaf_name``. ``"frozen"`` parameters get no update and no decay.

        Raises:
          ValueError: on ``init``, if the labels do not fit the parameters or name a group that the
            recipe does not have.
          TypeError: a leaf of the parameters is neither an array nor a number.
        """
        rules = LabelledRules(self, labels)
        return _scheduled.Scheduled(
            self._scheduled_groups, rules.build, self.start
        ).transformation()

    @classmethod
    def from_trace(
        cls, trace: Trace, update_rule: UpdateRule | Mapping[str, UpdateRule] | None = None
    ) -> "Recipe":
        """Build the recipe that replays a trace, to the bit.

        Args:
          trace: a recorded or saved trace. Learning rates and columns that vary become tables,
            which end with the trace; constant columns, and a rate among ``trace.constants``, become
            numbers. If its rows are updates, the recipe counts updates too, as ``recipe.clock``
            says: use it inside ``optax.MultiSteps``, for example.
          update_rule: the rule, or that of each label; if not given, the rule that the trace names.

        Raises:
          ValueError: the trace is empty, has rows without a number, counts neither iterations nor
            updates, or names no rule of ``jaxsched.optimizers``.
        """
        origin = (cls.from_trace, {"trace": repr(trace), "update_rule": update_rule})
        return cls(**replay_fields(trace, update_rule), origin=origin)

    def save(self, path: str | os.PathLike[str], iterations: int | None = None) -> None:
        """Write the recipe as YAML or JSON; an existing file is replaced atomically.

        Args:
          path: the file, ``.yaml``, ``.yml`` or ``.json``.
          iterations: number of iterations to tabulate for a schedule that contains a Python
            function; if not given, those to the end of the last epoch.

        Raises:
          ValueError: another suffix; a Python function and no number of iterations; an update
            rule that is not in ``jaxsched.optimizers``.
          OSError: the file cannot be written; an existing file stays as it was.
        """
        _file.write(self, path, iterations)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Recipe":
        """Read a file that ``save`` or a person wrote; no code in it is run.

        Raises:
          ValueError: the file is not a recipe of a supported version, or names a function that
            is not in this package.
          FileNotFoundError: there is no such file.
        """
        return _file.read(path, cls)


def _round_arrays(group: Mapping[str, Any]) -> dict[str, Any]:
    """Round the arrays of a group to the default float dtype, for rules of other packages."""
    return {
        name: _scheduled.to_default_float(value) if isinstance(value, jax.Array) else value
        for name, value in group.items()
    }
