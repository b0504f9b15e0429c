"""The settings of two runs, compared once: update rules, switches, clip, accumulation, average."""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jaxsched._recipe import Recipe
from jaxsched._recipe._checks import is_own
from jaxsched._schedule import content_key, show
from jaxsched._trace import UNSTATED, Trace
from jaxsched.parity._explain import Cause
from jaxsched.parity._report import Difference, Quantity, Report

ADAMS = ("adam", "adamw")  # one rule with a switch, indexed by its value


def compare_settings(
    a: Trace, b: Trace, mine: Recipe | Trace, reference: Recipe | Trace
) -> tuple[list[Quantity], list[tuple[str, str]]]:
    """Return the settings that both sides state, as quantities of one row; and keys of the others."""
    rules = _rules(a, b, mine, reference)
    ours, theirs = (
        {**rule, **_stated_values(run)} for rule, run in zip(rules, (a, b), strict=True)
    )
    quantities = []
    for key, value in theirs.items():
        if key in ours:
            far = int(np.iinfo(np.int32).max), np.inf, Difference(b.start, ours[key], value)
            same = ours[key] == value
            distance = (0, 0.0, None) if same else far
            quantities.append(Quantity(*key, 1, int(same), *distance, is_setting=True))
    both = ours.keys() & theirs.keys()
    names = {(k, name or "") for side in (a, b) for k, name in side.rule_by_label.items()}
    nameless = [k for k, name in names if "<" in name]  # such as <lambda>, which names no rule
    if any(not both & {("", "update_rule"), (label, "update_rule")} for label in nameless):
        ours.setdefault(("", "update_rule"), None)
    if UNSTATED in (a.accumulation, b.accumulation) and a.accumulation is not b.accumulation:
        ours["", "accumulation"] = None
    return quantities, [key for key in {**ours, **theirs} if key not in both]


def setting_causes(a: Trace, b: Trace, report: Report) -> Iterator[Cause]:
    """Yield a cause for each setting that differs, with the groups in which it differs."""
    differing = [q for q in report.quantities if q.first]
    if any(q.name == "stepped" for q in differing) and None in (a.accumulation, b.accumulation):
        sentence = (
            "gradients not accumulated: an update at every iteration"
            if a.accumulation is None
            else "gradients accumulated, where the reference makes an update at every iteration"
        )
        yield Cause("argument", "accumulation", sentence, quantities=(("", "stepped"),))
    labels: dict[Any, list[str]] = {}
    for q in differing:
        if q.is_setting and q.first:
            labels.setdefault((q.name, *q.first[1:]), []).extend([q.label] if q.label else [])
    for (name, ours, theirs), named in labels.items():
        reverse = labels.get((name, theirs, ours))
        if name == "update_rule" and reverse and named:
            if ours < theirs:  # both directions are one cause
                where = " and ".join(sorted([*named, *reverse]))
                sentence = f"update rules {ours} and {theirs} exchanged in {where}"
                keys = tuple((label, name) for label in [*named, *reverse])
                yield Cause("groups", "exchanged", sentence, quantities=keys)
            continue
        kind = ("rule", ours) if name == "update_rule" else ("argument", name)
        sentence = f"another {name.replace('_', ' ')}: {ours} for {theirs}"
        sentence += f" in {' and '.join(named)}" if named else ""
        keys = tuple((label, name) for label in named) or (("", name),)
        yield Cause(*kind, sentence, ours, theirs, keys)


def _rules(
    a: Trace, b: Trace, mine: Recipe | Trace, reference: Recipe | Trace
) -> Iterator[dict[tuple[str, str], Any]]:
    """Yield the update rules of each side: one for all groups if each side has one, else by label."""
    ours, theirs = _rule_names(a), _rule_names(b)
    if isinstance(mine, Recipe) and isinstance(reference, Recipe):
        x_by_label, y_by_label = mine.rule_by_label, reference.rule_by_label
        for label in y_by_label:
            rules = x_by_label[label], y_by_label[label]
            if not all(map(is_own, rules)):  # two functions may have the same name
                x, y = map(show, rules)
                same = content_key(rules[0]) == content_key(rules[1])
                ours[label] = y if same else x + " (another function)" * (x == y)
                theirs[label] = y
    sides = ours, theirs
    is_one = all(len(set(side.values())) == 1 for side in sides)
    for side in sides:
        pairs = [("", next(iter(side.values())))] if is_one else side.items()
        yield {(label, "update_rule"): name for label, name in pairs if name is not None}


def _rule_names(trace: Trace) -> dict[str, str | None]:
    """Return the name of each group's rule; None if it is not stated, or names no rule."""
    names = {k: None if name and "<" in name else name for k, name in trace.rule_by_label.items()}
    for label, name in names.items():
        if name in ADAMS:
            switches = trace.switches.get(label, {})
            is_decoupled = switches.get("decoupled_weight_decay", name == "adamw")
            names[label] = ADAMS[bool(is_decoupled)]
    return names


def _stated_values(trace: Trace) -> dict[tuple[str, str], Any]:
    """Return the settings that a trace states in its header, by label and name, as shown."""
    stated: dict[tuple[str, str], Any] = {}
    switches = {label: dict(group) for label, group in trace.switches.items()}
    for label, rule in trace.rule_by_label.items():
        if rule in ADAMS:  # the name implies the switch
            switches.get(label, {}).pop("decoupled_weight_decay", None)
    for label, group in switches.items():
        stated |= {(label, name): value for name, value in group.items()}
    for name in ("clip_norm", "clip_value"):
        value = getattr(trace, name)
        if value is not UNSTATED:
            # None is no clip. Of a limit, show the shortest number with the same float32, which is
            # what acts on float32 parameters.
            with np.errstate(over="ignore"):
                limit = None if value is None else float(str(np.float32(value)))
            stated["", name] = "none" if limit is None else f"{limit:.9g}"
    if isinstance(trace.accumulation, Mapping) and not trace.run.get("stepped", np.ones(1)).all():
        every = trace.accumulation.get("steps_per_epoch")
        dropped = f"dropped every {every} iterations"
        stated["", "pending_gradients"] = "kept" if every is None else dropped
    if trace.ema is None:
        stated["", "ema"] = "none"
    elif isinstance(trace.ema, Mapping):
        ramp = "tau" if trace.ema.get("power") is None else "power"
        stated["", "ema"] = f"decay {trace.ema['decay']!r}, {ramp} {trace.ema[ramp]!r}"
    return stated
