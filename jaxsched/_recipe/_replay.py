"""The fields of the recipe that replays a trace."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxsched import optimizers
from jaxsched._groups import by_column, map_groups
from jaxsched._trace import Trace, Unstated
from jaxsched.schedules import table


def replay_fields(
    trace: Trace, update_rule: Callable[..., Any] | Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return the arguments of ``Recipe`` that replay a trace, as in ``Recipe.from_trace``."""
    _require_replayable(trace)
    if update_rule is None:
        update_rule = {label: _named_rule(name) for label, name in trace.rule_by_label.items()}

    def is_count(label: str, name: str) -> bool:
        """Return whether an argument of the group's rule is an integer, such as Muon's steps."""
        rule = update_rule.get(label) if isinstance(update_rule, Mapping) else update_rule
        parameters = inspect.signature(rule).parameters if callable(rule) else {}
        return name in parameters and type(parameters[name].default) is int

    def entry(label: str, name: str, values: np.ndarray) -> Any:
        first, constants = values.flat[0], trace.constants.get(label, {})
        # A rate that is constant in the trace may have changed later in the run.
        if (values != first).any() or (name == "learning_rate" and name not in constants):
            return table(values, start=trace.start)
        # The trace's float64 constant if there is one: 1 - b2 of a float32 0.999 is 1.3e-5 off.
        value = constants.get(name, float(first))
        return int(value) if is_count(label, name) else value

    groups = map_groups(entry, trace.groups)
    groups = {label: {**group, **trace.switches.get(label, {})} for label, group in groups.items()}
    settings: dict[str, Any] = {
        name: None if isinstance(value := getattr(trace, name), Unstated) else value
        for name in ("clip_norm", "clip_value", "ema")
    }
    if settings["ema"]:
        before = trace.run["ema_updates"][0] - trace.run["stepped"][0]
        settings["ema"] = optimizers.EMA(**{**settings["ema"], "updates": int(before)})
    return {
        "groups": groups,
        "update_rule": update_rule,
        "accumulation": _accumulation(trace),
        "start": trace.start,
        "clock": trace.clock,
        "length": trace.start + len(trace),
        **settings,
    }


def _named_rule(name: str | None) -> Callable[..., Any]:
    rule = getattr(optimizers, name or "", None)
    if not callable(rule) or "learning_rate" not in inspect.signature(rule).parameters:
        raise ValueError(
            f"trace must name a rule of jaxsched.optimizers, got {name or 'none'}. Pass update_rule."
        )
    return rule


def _require_replayable(trace: Trace) -> None:
    if not len(trace):
        raise ValueError("trace must have at least 1 row, got 0.")
    for name, values in by_column(trace.groups).items():
        if np.isnan(values).any():
            raise ValueError(
                f"trace must have a number in each row, got nan of {name} in row "
                f"{np.isnan(values).argmax()}. Replay rows in which all groups are present."
            )
    if trace.clock not in ("iteration", "update"):
        raise ValueError(
            f"trace must count iterations or updates, got one that counts {trace.clock}s. "
            "Record it with its batches."
        )
    for name, arguments in {"accumulate": trace.accumulation, "ema_updates": trace.ema}.items():
        if isinstance(arguments, Mapping) and not {name, "stepped"} <= set(trace.run):
            raise ValueError(
                f"trace.run must hold {name} and stepped if the trace states "
                f"{'an average' if name == 'ema_updates' else 'accumulation'}, got "
                f"{', '.join(trace.run) or 'none'}. Add recipe.bookkeeping(n) to it."
            )


def _accumulation(trace: Trace) -> optimizers.Accumulation | None:
    """Return the accumulation that makes the trace's updates; None if each row is an update."""
    if trace.accumulation and not isinstance(trace.accumulation, Unstated):
        batches = table(trace.run["accumulate"], start=trace.start)
        for last_update in (None, -1):
            accumulation = optimizers.Accumulation(
                batches, **trace.accumulation, last_update=last_update
            )
            run = accumulation.simulate(trace.start, len(trace))
            if (run["stepped"] == trace.run["stepped"]).all():
                return accumulation
        # A trace from the middle of a run may begin with pending batches, a fresh state has none.
    if trace.accumulation is None or trace.run.get("stepped", np.ones(1)).all():
        return None
    # Wait 0 batches in rows with an update, and forever in the others.
    wait = np.where(trace.run["stepped"] > 0, 0, np.iinfo(np.int32).max)
    return optimizers.Accumulation(table(wait, start=trace.start))
