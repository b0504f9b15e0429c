"""Recipe: the hub between where a recipe comes from and what is done with it.

A recipe counts iterations, one a batch; 0 is the first batch of epoch 0.
"""

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxsched import optimizers, param_groups
from jaxsched.optimizers.scheduled import evaluate, numbers_only, rounded, scheduled
from jaxsched.schedules import (
    constant,
    is_number,
    require,
    require_count,
    require_nonnegative,
    table,
)
from jaxsched.trace import Trace

UpdateRule = Callable[..., optax.GradientTransformation]


@dataclasses.dataclass(frozen=True, eq=False)
class Recipe:
    """What every group of parameters is trained with, at every iteration.

    Attributes:
      groups: ``{label: {argument: value}}``; a value is a number, a schedule of
        the iteration, or a switch such as ``nesterov``. An argument that a group
        lacks has the update rule's default.
      update_rule: a function of those arguments that returns an Optax
        transformation.
      clip_norm: the most that the norm of all groups' gradients together may
        be, as ``optimizers.clip_grad_norm`` has it; not clipped if None.
      accumulation: when an update is due, and from which gradients; every
        iteration if None.
      ema: the average to keep of parameters and batch statistics, which a loop
        updates beside the optimizer: ``recipe.ema.update(state, tree, stepped)``.
      start: the iteration at which a fresh state begins.
      origin: ``(factory, arguments)`` where a factory made the recipe.

    Raises:
      ValueError: an argument that ``update_rule`` does not have, one that it
        needs and a group lacks, one that is to be a number and is none, a group
        called ``"frozen"``.

    >>> recipe = Recipe({"all": {"learning_rate": lambda i: 0.5 / (1 + i), "momentum": 0.9}})
    >>> float(recipe.at(1)["all"]["learning_rate"])
    0.25
    """

    groups: Mapping[str, Mapping[str, Any]]
    update_rule: UpdateRule = optimizers.sgd
    _: dataclasses.KW_ONLY
    clip_norm: float | None = None
    accumulation: optimizers.Accumulation | None = None
    ema: optimizers.EMA | None = None
    start: int = 0
    origin: tuple[Callable[..., "Recipe"], Mapping[str, Any]] | None = None

    def __post_init__(self) -> None:
        require_count("start", self.start)
        if self.clip_norm is not None:
            require_nonnegative(clip_norm=self.clip_norm)
        for name, kind in (("accumulation", optimizers.Accumulation), ("ema", optimizers.EMA)):
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                raise ValueError(
                    f"{name} must be an optimizers.{kind.__name__} or None, got {value!r}."
                )
        if not callable(self.update_rule):
            raise ValueError(
                f"update_rule must be a function such as optimizers.sgd, got {self.update_rule!r}."
            )
        if not isinstance(self.groups, Mapping) or not all(
            isinstance(group, Mapping) for group in self.groups.values()
        ):
            raise ValueError("groups must be a mapping of label to {argument: value}.")
        if not self.groups:
            raise ValueError("groups must hold at least 1 group, got none.")
        parameters = inspect.signature(self.update_rule).parameters
        rule = getattr(self.update_rule, "__name__", repr(self.update_rule))
        for label, group in self.groups.items():
            if label == param_groups.FROZEN or not isinstance(label, str):
                raise ValueError(
                    f'labels of groups must be strings other than "{param_groups.FROZEN}", '
                    f"got {label!r}. What is frozen needs no group."
                )
            unknown = sorted(set(group) - set(parameters))
            if unknown:
                raise ValueError(
                    f"arguments of {rule} must be among {', '.join(parameters)}, "
                    f"got {', '.join(unknown)} in group {label}."
                )
            missing = [
                name
                for name, parameter in parameters.items()
                if parameter.default is inspect.Parameter.empty and name not in group
            ]
            if missing:
                raise ValueError(
                    f"group {label} must have {', '.join(missing)}, which {rule} needs."
                )
            for name, value in group.items():
                default = parameters[name].default
                numeric = default is inspect.Parameter.empty or is_number(default)
                if numeric and not (callable(value) or is_number(value) or _is_real_array(value)):
                    raise ValueError(
                        f"{name} of group {label} must be a number or a schedule, got {value!r}"
                    )
                if isinstance(default, bool) and not isinstance(value, bool | np.bool_ | int):
                    raise ValueError(
                        f"{name} of group {label} must be True or False, got {value!r}"
                    )
        # Built once with the first values, so that the rule refuses bad ones now.
        self._rules(self._values(self.start))

    def _complete(self) -> dict[str, dict[str, Any]]:
        """The groups, with the update rule's defaults where they are silent."""
        parameters = inspect.signature(self.update_rule).parameters
        return {
            label: {
                name: group.get(name, parameter.default)
                for name, parameter in parameters.items()
                if name in group or parameter.default is not inspect.Parameter.empty
            }
            for label, group in self.groups.items()
        }

    def _values(self, iteration: jax.typing.ArrayLike) -> dict[str, dict[str, Any]]:
        return evaluate(self._complete(), iteration)

    def _rules(self, values: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        if not getattr(self.update_rule, "takes_float64", False):
            values = {
                label: {
                    name: rounded(value) if isinstance(value, jax.Array) else value
                    for name, value in group.items()
                }
                for label, group in values.items()
            }
        return {label: self.update_rule(**group) for label, group in values.items()}

    def at(self, iteration: jax.typing.ArrayLike) -> dict[str, dict[str, jax.Array]]:
        """The hyperparameters of an iteration.

        Args:
          iteration: an integer; may be traced.

        Returns:
          ``{label: {name: value}}``, numbers only: float32, or float64 with x64.
        """
        return numbers_only(self._values(iteration))

    @property
    def clock(self) -> str:
        """What the recipe counts: iterations, or what the trace that it replays did."""
        return self.origin[1].get("clock", "iteration") if self.origin else "iteration"

    @property
    def iterations(self) -> int | None:
        """Iterations from ``start`` to the end of the last epoch, where ``origin`` tells it."""
        arguments = self.origin[1] if self.origin else {}
        if not {"epochs", "steps_per_epoch"} <= set(arguments):
            return None
        return arguments["epochs"] * arguments["steps_per_epoch"] - self.start

    @functools.cached_property
    def _curves(self) -> Callable[[jax.Array], dict[int, jax.Array]]:
        """Every schedule, once, at an array of iterations, by its ``id``; compiled once."""
        schedules = {
            str(id(v)): v
            for group in self._complete().values()
            for v in group.values()
            if callable(v)
        }

        def at(iteration: jax.Array) -> dict[str, jax.Array]:
            return numbers_only(evaluate({"all": schedules}, iteration))["all"]

        # Not vmap: the search of jnp.interp, batched, takes longer to compile and to run.
        compiled = jax.jit(lambda iterations: jax.lax.map(at, iterations))
        return lambda iterations: {int(k): v for k, v in compiled(iterations).items()}

    def trace(self, n: int, start: int | None = None) -> Trace:
        """The hyperparameters of ``n`` iterations, evaluated jitted.

        Args:
          n: how many iterations, at least 1.
          start: the first of them; ``self.start`` if not given.

        Raises:
          ValueError: a number out of its range; a schedule that ends before.
        """
        require_count("n", n, at_least=1)
        start = self.start if start is None else start
        require_count("start", start)
        require("start + n", start + n, "below 2**31, where int32 counts end", lambda v: v < 2**31)
        switches = {
            label: {
                name: v for name, v in group.items() if isinstance(v, bool | str | tuple | list)
            }
            for label, group in self._complete().items()
        }
        complete = self._complete()
        self._values(start + n - 1)  # a table that ends before refuses; jitted it would hold
        curves = self._curves(start + jnp.arange(n, dtype=jnp.int32))
        constants = numbers_only(
            evaluate(
                {
                    label: {name: v for name, v in group.items() if not callable(v)}
                    for label, group in complete.items()
                },
                start,
            )
        )
        groups = {
            label: {
                name: np.asarray(curves[id(v)])
                if callable(v)
                else np.broadcast_to(np.asarray(constants[label][name]), n)
                for name, v in group.items()
                if callable(v) or name in constants[label]
            }
            for label, group in complete.items()
        }
        meta = {
            "clock": self.clock,
            "update_rule": getattr(self.update_rule, "__name__", ""),
            "switches": switches,
            "constants": {
                label: {name: float(v) for name, v in group.items() if is_number(v)}
                for label, group in self._complete().items()
            },
            **({} if self.clip_norm is None else {"clip_norm": float(self.clip_norm)}),
        }
        if self.accumulation is not None:
            meta["accumulation"] = {"steps_per_epoch": self.accumulation.steps_per_epoch}
        if self.ema is not None:
            meta["ema"] = dataclasses.asdict(self.ema)
        return Trace(groups, self.run(n, start), start, meta)

    def run(self, n: int, start: int | None = None) -> dict[str, np.ndarray]:
        """What belongs to no group, over the iterations of ``trace``: its ``run``.

        It is simulated from ``self.start``; empty without accumulation and average.
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
        """The recipe as an Optax transformation.

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
        known = {*self.groups, param_groups.FROZEN}

        def fitted(params: optax.Params) -> Any:
            for leaf in jax.tree.leaves(params):
                if not hasattr(leaf, "dtype") and not isinstance(leaf, int | float | complex):
                    raise TypeError(
                        f"parameters must be arrays or numbers, got {type(leaf).__name__} among them. "
                        "Pass what is trained alone."
                    )
            return param_groups.fit(labels, params, known=known)

        def trained(params: optax.Params) -> Any:
            return jax.tree.map(lambda label: label != param_groups.FROZEN, fitted(params))

        def build(
            iteration: Any, values: Mapping[str, Mapping[str, Any]]
        ) -> optax.GradientTransformation:
            rules = optax.multi_transform(
                {**self._rules(values), param_groups.FROZEN: optax.set_to_zero()}, fitted
            )
            if self.clip_norm is not None:
                # Before the rules, which see a group each. torch skips what has no gradient.
                clip = optax.masked(optimizers.clip_grad_norm(self.clip_norm), trained)
                rules = optax.chain(clip, rules)
            if self.accumulation is not None:
                rules = optimizers.accumulated(rules, self.accumulation, iteration)
            return rules

        return scheduled(self._complete(), build, start=self.start)

    @classmethod
    def from_trace(cls, trace: Trace, update_rule: UpdateRule | None = None) -> "Recipe":
        """The recipe that replays a trace, to the bit.

        Args:
          trace: a recorded or saved one. What is constant in it becomes a number,
            the rest a table that refuses iterations outside the trace. Where its
            rows are updates, so are what the recipe calls iterations, and
            ``recipe.trace`` says so: inside ``optax.MultiSteps``, say.
          update_rule: the rule; if not given, that which the trace names, SGD
            where it names none.

        Raises:
          ValueError: the trace is empty, has rows without a number, counts neither
            iterations nor updates, or names no rule of ``jaxsched.optimizers``.
        """
        if not len(trace):
            raise ValueError("trace must have at least 1 row, got 0.")
        for label, group in trace.groups.items():
            for name, values in group.items():
                if np.isnan(values).any():
                    raise ValueError(
                        f"trace must have a number in each row, got nan of {label}/{name} in row "
                        f"{np.isnan(values).argmax()}. Replay a stretch in which all groups are there."
                    )
        clock = trace.meta.get("clock", "iteration")
        if clock not in ("iteration", "update"):
            raise ValueError(
                f"trace must count iterations or updates, got one that counts {clock}s. "
                "Record it with its batches."
            )
        if update_rule is None:
            name = trace.meta.get("update_rule") or "sgd"
            update_rule = getattr(optimizers, name, None)
            if not callable(update_rule) or (
                "learning_rate" not in inspect.signature(update_rule).parameters
            ):
                raise ValueError(
                    f"trace must name a rule of jaxsched.optimizers, got {name!r}. "
                    "Pass update_rule."
                )
        switches = trace.meta.get("switches") or {}
        constants = trace.meta.get("constants") or {}
        arguments = inspect.signature(update_rule).parameters

        def entry(label: str, name: str, values: np.ndarray) -> Any:
            first = values.flat[0]
            if (values != first).any():
                return table(values, start=trace.start)
            # In float64 where the trace knows it: 1 - b2 of a float32 0.999 is 1.3e-5 off.
            value = constants.get(label, {}).get(name, float(first))
            whole = name in arguments and type(arguments[name].default) is int  # Muon's ns_steps
            return int(value) if whole else value

        groups = {
            label: {
                **{name: entry(label, name, values) for name, values in group.items()},
                **switches.get(label, {}),
            }
            for label, group in trace.groups.items()
        }
        accumulation = ema = None
        if "accumulation" in trace.meta:
            batches = table(trace.run["accumulate"], start=trace.start)
            accumulation = optimizers.Accumulation(batches, **trace.meta["accumulation"])
            same = accumulation.simulate(trace.start, len(trace))["stepped"] == trace.run["stepped"]
            # A stretch from the middle of a run has pending batches that a fresh state has not.
            accumulation = accumulation if same.all() else None
        if accumulation is None and "stepped" in trace.run:
            # An update was due where the run made one: at once, or never.
            wait = np.where(trace.run["stepped"] > 0, 0, np.iinfo(np.int32).max)
            accumulation = optimizers.Accumulation(table(wait, start=trace.start))
        if "ema" in trace.meta:
            before = trace.run["ema_updates"][0] - trace.run["stepped"][0]
            ema = optimizers.EMA(**{**trace.meta["ema"], "updates": int(before)})
        return cls(
            groups,
            update_rule,
            clip_norm=trace.meta.get("clip_norm"),
            accumulation=accumulation,
            ema=ema,
            start=trace.start,
            origin=(cls.from_trace, {"clock": clock}),
        )


def _is_real_array(value: Any) -> bool:
    """Whether it is an array, or a tracer, of real numbers; a list is none."""
    kinds = (jnp.floating, jnp.integer)
    return hasattr(value, "dtype") and any(jnp.issubdtype(value.dtype, kind) for kind in kinds)
