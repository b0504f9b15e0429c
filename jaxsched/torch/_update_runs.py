"""Simulate a torch optimizer in NumPy for many candidates at once; and the two runs that differ.

A recipe holds the arguments of a leaf's group, each an array (updates, candidates or 1, 1) or a
switch, and a choice of each option. Updates count from 0, t in an equation from 1.
"""

import dataclasses
import functools
import inspect
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import jax
import numpy as np

from jaxsched import optimizers
from jaxsched._validate import is_number

Arrays = dict[str, np.ndarray]  # by leaf
# The share of the largest difference so far that a cause may leave, if larger than the bound.
MAX_UNEXPLAINED = 1e-10  # schedules in closed form are 1e-11 from torch's recursion
SAMPLED = 64  # entries of a parameter to compare if the rule acts on each separately
# Rules that act on whole parameters; the others act on each entry separately.
SHAPED = (optimizers.muon, optimizers.musgd, optimizers.adafactor)
DECOUPLED = (
    optimizers.adamw,
    optimizers.muon,
    optimizers.adafactor,
)  # their weight decay is never added to the gradient


def _sgd(a: Any, t: int, g: Any, state: Any) -> Any:
    """SGD; as in torch the buffer starts from the first gradient, and is unused at momentum 0."""
    g = a.learning_rate * g if a.inside else g
    moves, dampening = a.momentum != 0, a.momentum if a.average else a.dampening
    b = a.momentum * state["b"] + (1 - dampening) * g
    if not a.zeros:
        b = np.where(moves, np.where(state["started"], b, g), state["b"])
    state["b"], state["started"] = b, np.maximum(state["started"], moves)
    added = g + a.momentum * b if a.nesterov else np.where(moves, b, g)
    return -added if a.inside else -a.learning_rate * added


def _adam(a: Any, t: int, g: Any, state: Any) -> Any:
    m = state["m"] = a.b1 * state["m"] + (1 - a.b1) * g
    v = state["v"] = a.b2 * state["v"] + (1 - a.b2) * g * g
    one = 1 - a.b1**t if "first" in a.correction else 1.0
    two = 1 - a.b2**t if "second" in a.correction else 1.0
    if getattr(a, "amsgrad", False):
        v = state["largest"] = np.maximum(state["largest"], v)
    ahead = m / one
    if a.ahead == "torch" and hasattr(a, "momentum_decay"):  # NAdam
        mu, after = (a.b1 * (1 - 0.5 * 0.96 ** (k * a.momentum_decay)) for k in (t, t + 1))
        product = state["product"] = mu * state.get("product", 1.0)
        ahead = (1 - mu) / (1 - product) * g + after / (1 - product * after) * m
    elif a.ahead == "optax" and hasattr(a, "momentum_decay"):
        ahead = a.b1 * m / (1 - a.b1 ** (t + 1)) + (1 - a.b1) * g / one
    return -a.learning_rate * ahead / _root(a, v, two)


def _rmsprop(a: Any, t: int, g: Any, state: Any) -> Any:
    v = state["v"] = a.alpha * state["v"] + (1 - a.alpha) * g * g
    mean = state["mean"] = a.alpha * state["mean"] + (1 - a.alpha) * g
    move = g / _root(a, v - mean * mean if a.centered else v)
    b = state["b"] = a.momentum * state["b"] + (a.learning_rate * move if a.inside else move)
    return -b if a.inside else -a.learning_rate * b


def _adagrad(a: Any, t: int, g: Any, state: Any) -> Any:
    s = state["s"] = state["s"] + g * g
    rate = a.learning_rate / (1 + (t - 1) * a.lr_decay)
    return -rate * g / _root(a, a.initial_accumulator_value + s)


def _root(a: Any, v: Any, correction: Any = 1.0) -> Any:
    """Return √v of a corrected v, with ε at the place that ``a.epsilon`` names."""
    scale = correction if "early" in a.epsilon else 1.0
    under = a.eps / scale * ("under" in a.epsilon)
    return np.sqrt(v / correction + under) + a.eps / np.sqrt(scale) * ("outside" in a.epsilon)


_EPSILON = "epsilon in another place: "
_MISSING = "bias correction missing"
_AVERAGED = "gradients averaged, not summed, under accumulation"
# {choice: sentence} of each option, torch's choice first; an option of other rules has no effect.
OPTIONS: Mapping[str, Mapping[Any, str]] = {
    "zeros": {False: "", True: "momentum buffer started from zeros"},
    "average": {False: "", True: "momentum as an average, dampened by 1 - momentum"},
    "inside": {False: "", True: "the learning rate kept inside the momentum buffer"},
    "correction": {
        "first and second": "",
        "none": _MISSING,
        "second": f"{_MISSING}: of the first moment",
        "first": f"{_MISSING}: of the second moment",
    },
    "epsilon": {
        "outside": "",
        "under": f"{_EPSILON}under the root",
        "under and outside": f"{_EPSILON}under the root and outside it, eps_root and eps",
        "outside early": f"{_EPSILON}before the bias correction",
        "under early": f"{_EPSILON}under the root, before the bias correction",
    },
    "ahead": {"torch": "", "": "no Nesterov", "optax": "no momentum_decay, as optax.nadam"},
    "decay": {
        "coupled": "coupled for decoupled weight decay",
        "decoupled": "decoupled for coupled weight decay",
        "unscaled": "decoupled weight decay that the learning rate does not scale",
    },
    "accumulation": {
        "sum": "",
        "mean": _AVERAGED,
        "float32 mean": f"{_AVERAGED}: and in float32",
        "float32 sum": "gradients accumulated in float32, optax.MultiSteps' accumulator_dtype",
    },
    "clip": {
        "all": "",
        "none": "clip missing",
        "group": "clip of each group by itself",
        "entry": "clip of each entry by itself, as in optax.clip",
        "frozen": "clip by a norm that counts what is frozen",
        "batch": "clip of each batch's gradients, not of their sum",
        "optax": "clip by optax.clip_by_global_norm, which lacks torch's 1e-6",
    },
}
# Rules in NumPy: functions from the recipe of one update, t, g and the state to the update. They
# change the state, a dictionary whose arrays start from 0.
FORMS: dict[Callable[..., Any], Callable[..., Any]] = {
    optimizers.sgd: _sgd,
    optimizers.adam: _adam,
    optimizers.adamw: _adam,
    optimizers.nadam: _adam,
    optimizers.rmsprop: _rmsprop,
    optimizers.adagrad: _adagrad,
}


def simulate(
    rule: Callable[..., Any], start: np.ndarray, gradients: np.ndarray, recipe: Mapping[str, Any]
) -> np.ndarray:
    """Return a leaf after each update of a rule, (updates, candidates, entries).

    Gradients are (updates, candidates or 1, entries). For a rule of ``SHAPED``, ``start`` has the
    leaf's shape.
    """
    numbers = {name: v for name, v in recipe.items() if isinstance(v, np.ndarray)}
    switches = {name: v for name, v in recipe.items() if not isinstance(v, np.ndarray)}
    rate, decay = numbers["learning_rate"], switches.pop("decay")
    size = numbers.get("weight_decay", 0 * rate)
    coupled = size * (decay == "coupled")
    decoupled = size * {"coupled": 0.0, "decoupled": rate, "unscaled": 1.0}[decay]
    n = max(v.shape[1] for v in (gradients, *numbers.values()))
    if numbers.pop("weight_decay", None) is not None:
        switches["weight_decay"] = 0.0
    params, state, path = np.tile(start.ravel(), (n, 1)), defaultdict(float), []
    for t, g in enumerate(gradients):
        now, g = {name: v[t] for name, v in numbers.items()}, g + coupled[t] * params
        if rule in FORMS:
            added = FORMS[rule](SimpleNamespace(**now, **switches), t + 1, g, state)
        else:
            now = {name: np.tile(v[:, 0], n // len(v)) for name, v in now.items()}
            leaves = (np.reshape(x, (n, *start.shape)) for x in (g, params))
            options = tuple((k, v) for k, v in switches.items() if k not in OPTIONS)
            added, state["state"] = _update(rule, options, now, *leaves, state.get("state"))
        params = params + np.reshape(added, params.shape) - decoupled[t] * params
        path.append(params)
    return np.stack(path)


@functools.partial(jax.jit, static_argnums=(0, 1))
def _update(rule: Any, switches: Any, numbers: Any, g: Any, params: Any, state: Any) -> Any:
    """Return one update of a rule of ``jaxsched.optimizers``, and the state; None starts afresh."""

    def of_candidate(numbers: Any, g: Any, params: Any, state: Any) -> Any:
        layout = {"layout": "torch"} if "layout" in inspect.signature(rule).parameters else {}
        transformation = rule(**numbers, **dict(switches), **layout)
        state = transformation.init(params) if state is None else state
        return transformation.update(g, state, params)

    return jax.vmap(of_candidate)(numbers, g, params, state)


@dataclasses.dataclass(frozen=True)
class Case:
    """Two runs that differ, with torch's gradients and arguments. Updates count from 0."""

    start: Arrays  # the parameters before the first update: sampled entries, or the whole array
    batches: Arrays  # the gradients, (updates, accumulation, entries)
    # Sums of squares of all entries: of each batch's gradients, and last of their sum. They include
    # leaves of other optimizers, which the clip sees too.
    squares: Arrays
    mine: Arrays  # the transformation's parameters after each update, (updates, entries)
    reference: Arrays  # torch's
    labels: Mapping[str, str]  # the label of each leaf that torch's optimizer trains
    rule: Callable[..., Any]  # torch's update rule
    # The arguments of torch's groups after 0, 1, 2, … steps of the scheduler, by label and name.
    rows: Sequence[Mapping[str, Mapping[str, Any]]]
    steps_per_epoch: int  # batches between two steps of the scheduler
    clip_norm: float | None  # limit of the norm of all gradients
    bound: float  # largest difference of an entry, relative to the largest of its leaf so far

    @functools.cached_property
    def columns(self) -> dict[str, dict[str, Any]]:
        """The arguments of each group: numbers as an array by scheduler step, switches unchanged."""
        parameters = inspect.signature(self.rule).parameters

        def column(label: str, name: str, value: Any) -> Any:
            is_switch = parameters[name].annotation is int or not is_number(value)
            return value if is_switch else np.array([row[label][name] for row in self.rows], float)

        groups = self.rows[0].items()
        return {label: {k: column(label, k, v) for k, v in g.items()} for label, g in groups}

    @property
    def names(self) -> list[str]:
        """The arguments that are numbers in every group."""
        groups = self.columns.values()
        first = next(iter(groups))
        return [name for name in first if all(isinstance(c[name], np.ndarray) for c in groups)]

    def value(self, leaf: str, name: str) -> Any:
        """Return torch's value of an argument; None if a leaf has none."""
        group: dict[str, Any] = self.columns.get(self.labels.get(leaf, ""), {})
        column: Any = {"clip_norm": self.clip_norm, **group}.get(name)
        values = np.ravel(column).tolist()
        return values[0] if len(set(values)) == 1 else "a schedule"

    @property
    def accumulation(self) -> int:
        """Batches in an update."""
        return next(iter(self.batches.values())).shape[1]

    def recipe(self, label: str | None, times: Any = 1.0, shift: Any = 0.0) -> dict[str, Any]:
        """Return a group's recipe, with the scheduler's clock times ``times`` plus ``shift``, (1, c).

        Numbers are NaN after the end of the scheduler's run. Without a label the rate is 0.
        """
        updates, last = len(next(iter(self.batches.values()))), len(self.rows) - 1
        batches = (np.arange(updates)[:, None] + 1) * self.accumulation - 1
        steps = np.maximum((batches * times + shift + 1e-9) // self.steps_per_epoch, 0).astype(int)
        over, at = (steps > last) & (last > 0), np.minimum(steps, last)
        group = {
            name: np.where(over, np.nan, v[at])[..., None] if isinstance(v, np.ndarray) else v
            for name, v in self.columns[label or next(iter(self.columns))].items()
        }
        if group.pop("decoupled_weight_decay", False) or self.rule in DECOUPLED:
            group["decay"] = "decoupled"
        if label is None:
            group["learning_rate"] = 0 * group["learning_rate"]
        torchs = {name: next(iter(sentences)) for name, sentences in OPTIONS.items()}
        most = np.inf if self.clip_norm is None else self.clip_norm
        numbers = {"clip_norm": np.full((1, 1, 1), most), "gradients": np.ones((1, 1, 1))}
        return {**torchs, **numbers, "label": label, **group}

    def gradients(self, leaf: str, recipe: dict[str, Any], at: Any = slice(None)) -> np.ndarray:
        """Return the rule's gradients, (updates, c, entries), and remove their options from ``recipe``."""
        names = ("label", "accumulation", "clip", "clip_norm", "gradients")
        _, how, clip, most, scale = (recipe.pop(name) for name in names)
        beside = [k for k in self.squares if clip == "frozen" or k in self.labels]
        if clip == "group":
            beside = [k for k in beside if self.labels[k] == self.labels.get(leaf)]
        squares = [self.squares[k] for k in beside]
        norms = np.sqrt(sum(squares, np.zeros_like(self.squares[leaf])))[..., None, None]
        norms[:, -1] /= self.accumulation if "mean" in how else 1
        factors = np.minimum(most[:, None] / (norms + (0.0 if clip == "optax" else 1e-6)), 1)
        batches = self.batches[leaf][:, :, None, at]  # (updates, accumulation, 1, entries)
        batches = np.moveaxis(batches * (factors[:, :-1] if clip == "batch" else 1.0), 1, 0)
        total = batches[0]
        for k, g in enumerate(batches[1:]):
            total = total.astype(np.float32).astype(np.float64) if "float32" in how else total
            total = total + ((g - total) / (k + 2) if "mean" in how else g)
        if clip == "entry":
            total = np.clip(total, -most, most)
        elif clip not in ("none", "batch"):
            total = total * factors[:, -1]
        return (-scale if recipe.pop("maximize", False) else scale) * total

    @functools.cached_property
    def rounding(self) -> Arrays:
        """The bound times the largest entry of the reference so far, (updates,)."""
        paths = {k: np.vstack([self.start[k].reshape(1, -1), v]) for k, v in self.reference.items()}
        return {
            k: self.bound * np.maximum.accumulate(largest_entry(v))[1:] for k, v in paths.items()
        }

    def differs(self, leaf: str, path: np.ndarray, bounds: float = 1.0) -> bool:
        """Return whether a path of a leaf differs from the reference's."""
        return not (
            largest_entry(path - self.reference[leaf]) <= bounds * self.rounding[leaf]
        ).all()

    def differing_leaves(self, bounds: float = 1.0) -> list[str]:
        """Return the leaves that differ by more than ``bounds`` times the bound."""
        return [leaf for leaf in self.mine if self.differs(leaf, self.mine[leaf], bounds)]

    @functools.cached_property
    def tolerance(self) -> Arrays:
        """The largest distance of a changed run from mine after each update, (updates,)."""
        limits = {}
        for leaf, mine in self.mine.items():
            left = MAX_UNEXPLAINED * np.maximum.accumulate(
                largest_entry(mine - self.reference[leaf])
            )
            limits[leaf] = np.maximum(left, self.rounding[leaf]) + np.finfo(np.float64).tiny
        return limits

    def known_share(self, leaf: str, path: np.ndarray) -> float:
        """Return the share of updates at which a path is known; 0 if it is not mine's there."""
        off = largest_entry(path - self.mine[leaf])
        is_known = ~np.isnan(off)
        return float(is_known.mean()) if (off <= self.tolerance[leaf])[is_known].all() else 0.0


def entries(array: np.ndarray, shaped: bool) -> np.ndarray:
    """Return the entries of a parameter to compare, all of them if ``shaped``."""
    n = array.size if shaped else min(array.size, SAMPLED)
    return array.ravel()[np.linspace(0, array.size - 1, n).astype(int)]


def row_of(pending: Sequence[Arrays], mine: Arrays, reference: Arrays, shaped: bool) -> Any:
    """Return the row of ``Case`` for one update, from its batches' gradients and both results."""
    batches = {leaf: [gradients[leaf] for gradients in pending] for leaf in mine}
    squares = {k: [np.sum(g * g) for g in (*gs, np.sum(gs, 0))] for k, gs in batches.items()}
    return {
        "batches": {k: np.stack([entries(g, shaped) for g in gs]) for k, gs in batches.items()},
        "squares": {k: np.array(sums) for k, sums in squares.items()},
        "mine": {k: entries(p, shaped) for k, p in mine.items()},
        "reference": {k: entries(p, shaped) for k, p in reference.items()},
    }


def largest_entry(path: np.ndarray) -> np.ndarray:
    """Return the largest absolute entry after each update; NaN if there is one."""
    return np.abs(path).max(1, initial=0.0)
