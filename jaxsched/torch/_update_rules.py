"""Update rules over many candidates at once: torch's, and the forms in which they are ported.

The recipe of a leaf is one dictionary: the rule's arguments, each an array (updates, candidates or
1, 1) or a switch; ``"gradients"``, (updates, candidates or 1, entries); ``"decay"``, one of
``DECAYS``; and the choices of the rule's ``Form``. 0 is the first update.
"""

import functools
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple, TypeGuard

import jax
import numpy as np

from jaxsched import optimizers

Recipe = Mapping[str, Any]

# Rules that look at a parameter's entries together; the others take each by itself.
SHAPED = (optimizers.muon, optimizers.adafactor)
DECOUPLED = (optimizers.adamw, *SHAPED)  # their weight decay is never put into the gradient
DECAYS = {
    "coupled": "coupled for decoupled weight decay",
    "decoupled": "decoupled for coupled weight decay",
    "unscaled": "decoupled weight decay that the learning rate does not scale",
}


class Form(NamedTuple):
    """A rule written out in NumPy."""

    # From (a, t, g, *kept) to what is added and what is kept; a is the recipe, t begins with 1.
    step: Callable[..., tuple[Any, ...]]
    keeps: int  # arrays that are kept; they start from zeros
    options: Mapping[str, Mapping[Any, str]]  # {option: {choice: sentence}}, torch's choice first


def _sgd(a: Any, t: int, g: Any, b: Any, started: Any) -> Any:
    """In torch the buffer begins with the first gradient, and rests while momentum is 0."""
    g = a.learning_rate * g if a.inside else g
    moves, add = a.momentum != 0, 1 - (a.momentum if a.average else a.dampening)
    running = a.momentum * b + add * g
    b = running if a.zeros else np.where(moves, np.where(started, running, g), b)
    unbiased = b / (1 - a.momentum**t) if a.average == "corrected" else b
    added = g + a.momentum * b if a.nesterov else np.where(moves, unbiased, g)
    return -added if a.inside else -a.learning_rate * added, b, np.maximum(started, moves)


def _adam(a: Any, t: int, g: Any, m: Any, v: Any, largest: Any, product: Any) -> Any:
    b1, b2 = a.b1, a.b2
    one, two = 1 - b1**t, 1 - b2**t
    m, v = b1 * m + (1 - b1) * g, b2 * v + (1 - b2) * g * g
    one = one if a.correction in ("both", "first") else np.ones_like(one)
    two = two if a.correction in ("both", "second") else np.ones_like(two)
    scale = two if a.maximum == "corrected" else 1.0
    largest = np.maximum(largest, v / scale)
    s = largest * scale if getattr(a, "amsgrad", False) else v
    below = {
        "outside": lambda: np.sqrt(s / two) + a.eps,
        "root": lambda: np.sqrt(s / two + a.eps),
        "both": lambda: np.sqrt(s / two + a.eps) + a.eps,
        "early": lambda: (np.sqrt(s) + a.eps) / np.sqrt(two),
        "early root": lambda: np.sqrt(s + a.eps) / np.sqrt(two),
    }[a.epsilon]()
    ahead = m / one
    if a.ahead == "nadam":  # product is 1 - Π, so that it starts from 0
        mu, after = (b1 * (1 - 0.5 * 0.96 ** (k * a.momentum_decay)) for k in (t, t + 1))
        product = 1 - (1 - product) * mu
        ahead = (1 - mu) / product * g + after / (1 - (1 - product) * after) * m
    elif a.ahead == "optax":
        ahead = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / one
    return -a.learning_rate * ahead / below, m, v, largest, product


def _rmsprop(a: Any, t: int, g: Any, v: Any, mean: Any, b: Any) -> Any:
    v, mean = a.alpha * v + (1 - a.alpha) * g * g, a.alpha * mean + (1 - a.alpha) * g
    square = v - mean * mean if a.centered else v
    move = g / (np.sqrt(square + a.eps) if a.epsilon == "root" else np.sqrt(square) + a.eps)
    b = a.momentum * b + (a.learning_rate * move if a.inside else move)
    return -b if a.inside else -a.learning_rate * b, v, mean, b


def _adagrad(a: Any, t: int, g: Any, s: Any) -> Any:
    s = s + g * g
    total, rate = a.initial_accumulator_value + s, a.learning_rate / (1 + (t - 1) * a.lr_decay)
    root = np.sqrt(total + a.eps) if a.epsilon == "root" else np.sqrt(total) + a.eps
    return -rate * g / root, s


# {choice: sentence} of each option, torch's choice first.
_INSIDE = {False: "", True: "the learning rate kept inside the momentum buffer"}
_AVERAGE = "momentum as an average, dampened by 1 - momentum"
_EPSILON = "epsilon in another place: "
_ROOT = {"outside": "", "root": f"{_EPSILON}under the root"}
_MISSING = "bias correction missing"
_SGD = {
    "zeros": {False: "", True: "momentum buffer started from zeros"},
    "average": {False: "", True: _AVERAGE, "corrected": f"{_AVERAGE}, its bias corrected"},
    "inside": _INSIDE,
}
_ADAM = {
    "correction": {
        "both": "",
        "none": _MISSING,
        "second": f"{_MISSING}: of the first moment",
        "first": f"{_MISSING}: of the second moment",
    },
    "epsilon": {
        **_ROOT,
        "both": f"{_EPSILON}under the root and outside it, eps_root and eps",
        "early": f"{_EPSILON}before the bias correction",
        "early root": f"{_EPSILON}under the root, before the bias correction",
    },
    "maximum": {"before": "", "corrected": "AMSGrad's maximum taken after the bias correction"},
    "ahead": {"": "", "optax": "Nesterov where torch has none"},
}
_OF_NADAM = {"nadam": "", "": "no Nesterov", "optax": "no momentum_decay, as optax.nadam"}
FORMS = {
    optimizers.sgd: Form(_sgd, 2, _SGD),
    optimizers.adam: Form(_adam, 4, _ADAM),
    optimizers.adamw: Form(_adam, 4, _ADAM),
    optimizers.nadam: Form(_adam, 4, {**_ADAM, "ahead": _OF_NADAM}),
    optimizers.rmsprop: Form(_rmsprop, 3, {"inside": _INSIDE, "epsilon": _ROOT}),
    optimizers.adagrad: Form(_adagrad, 1, {"epsilon": _ROOT}),
}


def is_array(value: Any) -> TypeGuard[np.ndarray]:
    """Return whether an argument is a number for each update, not a switch."""
    return isinstance(value, np.ndarray)


def simulate(rule: Callable[..., Any], start: np.ndarray, recipe: Recipe) -> np.ndarray:
    """Return a leaf after each update of a rule, (updates, candidates, entries).

    Where the rule is of ``SHAPED`` the leaf starts in its shape.
    """
    a = dict(recipe)
    g, decay = a.pop("gradients"), a.pop("decay")
    g = -g if a.pop("maximize", False) else g
    size = a.get("weight_decay", 0 * a["learning_rate"])
    taken = a["learning_rate"] * size if decay == "decoupled" else size
    # The shares of the parameter that go into the gradient, and that are taken off.
    shares = (size, 0 * size) if decay == "coupled" else (0 * size, taken)
    candidates = max(v.shape[1] for v in (g, *a.values()) if is_array(v))
    run = _run_form if rule in FORMS else _run_rule
    return run(rule, np.broadcast_to(start, (candidates, *start.shape)), g, shares, a)


def _run_form(rule: Any, params: Any, gradients: Any, shares: Any, recipe: Recipe) -> np.ndarray:
    kept, path = [np.zeros_like(params)] * FORMS[rule].keeps, []
    for t, (g, coupled, taken) in enumerate(zip(gradients, *shares, strict=True)):
        a = SimpleNamespace(**{k: v[t] if is_array(v) else v for k, v in recipe.items()})
        added, *kept = FORMS[rule].step(a, t + 1, g + coupled * params, *kept)
        params = params + added - taken * params
        path.append(params)
    return np.stack(path)


def _run_rule(rule: Any, params: Any, gradients: Any, shares: Any, recipe: Recipe) -> np.ndarray:
    n, candidates = len(gradients), len(params)
    g = np.broadcast_to(gradients, (n, candidates, gradients.shape[2]))

    def columns(v: Any) -> np.ndarray:
        return np.broadcast_to(v[..., 0], (n, candidates))

    numbers = {name: columns(v) for name, v in recipe.items() if is_array(v)}
    run = _compiled(rule, tuple((name, v) for name, v in recipe.items() if not is_array(v)))
    rows = (numbers, *map(columns, shares), g.reshape(n, *params.shape))
    return np.reshape(run(params, rows), g.shape)


@functools.lru_cache(maxsize=64)
def _compiled(rule: Any, switches: tuple[tuple[str, Any], ...]) -> Any:
    """All updates of all candidates (c, …), in one scan over rows (updates, c, …)."""

    def transformation(numbers: Any) -> Any:
        zero = {"weight_decay": 0.0} if "weight_decay" in numbers else {}
        return rule(**{**numbers, **dict(switches), **zero})

    def update(carry: Any, row: Any) -> Any:
        params, state, (numbers, coupled, taken, g) = *carry, row
        added, state = transformation(numbers).update(g + coupled * params, state, params)
        params = params + added - taken * params
        return (params, state), params

    def run(start: Any, rows: Any) -> Any:
        first = transformation({name: column[0] for name, column in rows[0].items()}).init(start)
        return jax.lax.scan(update, (start, first), rows)[1]

    return jax.jit(jax.vmap(run, (0, 1), 1))
