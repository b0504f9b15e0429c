"""Update rules as they are often written where torch's was meant.

Each counts its own updates; 0 is the first. One parameter is all that a rule sees, and
its numbers may move from one update to the next.
"""

import functools
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import jax
import numpy as np
import optax

from jaxsched import optimizers

Values = Mapping[str, Any]
"""``{argument: value}`` of a rule of ``jaxsched.optimizers``, at one update."""

Build = Callable[[Values], optax.GradientTransformation]
"""From them to what makes that update."""


@functools.cache
def right(rule: Callable[..., optax.GradientTransformation]) -> Build:
    """The rule itself."""

    def build(values: Values) -> optax.GradientTransformation:
        if values.get("nesterov"):  # sgd refuses a dampening that it cannot see to be 0
            values = {name: value for name, value in values.items() if name != "dampening"}
        return rule(**values)

    return build


class Form(NamedTuple):
    """A rule written out in NumPy, where there is nothing to compile.

    Attributes:
      step: from ``(a, t, g, *kept)`` to what is added and what is kept. a has the
        arguments, t is 1 at the first update, g is the gradient, with its decay in it
        where that is coupled; what is kept starts from zeros.
      keeps: how many arrays.
      coupled: the decay goes into g; if not, the parameter shrinks by it.
    """

    step: Callable[..., tuple[Any, ...]]
    keeps: int
    coupled: bool = True

    def path(self, start: np.ndarray, numbers: Values, gradients: np.ndarray) -> np.ndarray:
        """Where ``start`` (n,) goes.

        Args:
          start: the parameter.
          numbers: its arguments, (updates, n) each, and switches.
          gradients: (updates, n).
        """
        params, kept, path = start, [np.zeros_like(start)] * self.keeps, []
        moving = {name: v for name, v in numbers.items() if isinstance(v, np.ndarray)}
        with np.errstate(all="ignore"):  # where it diverges it is no cause
            for t, gradient in enumerate(gradients):
                a = SimpleNamespace(**{**numbers, **{name: v[t] for name, v in moving.items()}})
                g = -gradient if a.maximize else gradient
                decay = a.weight_decay * params
                added, *kept = self.step(a, t + 1, g + decay if self.coupled else g, *kept)
                params = params + added - (0 if self.coupled else a.learning_rate * decay)
                path.append(params)
        return np.stack(path)


def form(keeps: int) -> Callable[[Callable[..., tuple[Any, ...]]], Form]:
    """A ``Form`` of a step."""
    return lambda step: Form(step, keeps)


def without_decay(build: Build) -> Build:
    """The same of a rule's gradient part alone."""

    def built(values: Values) -> optax.GradientTransformation:
        still = {"weight_decay": 0.0, "decoupled_weight_decay": False}
        return build({**values, **{name: v for name, v in still.items() if name in values}})

    return built


@functools.cache
def decoupled(build: Build, by_rate: bool = True) -> Build:
    """The decay taken off the parameter, not put into the gradient."""

    def built(values: Values) -> optax.GradientTransformation:
        share = values["weight_decay"] * (values["learning_rate"] if by_rate else 1.0)
        return optax.chain(without_decay(build)(values), optax.add_decayed_weights(-share))

    return built


@functools.cache
def coupled(build: Build) -> Build:
    """The decay put into the gradient, not taken off the parameter."""

    def built(values: Values) -> optax.GradientTransformation:
        sign = -1.0 if values.get("maximize") else 1.0
        decay = optax.add_decayed_weights(sign * values["weight_decay"])
        return optax.chain(decay, without_decay(build)(values))

    return built


# Of SGD.


def _stepped(a: Any, g: Any, b: Any) -> Any:
    return -a.learning_rate * (g + a.momentum * b if a.nesterov else b)


@form(1)
def from_zeros(a: Any, t: Any, g: Any, b: Any) -> Any:
    """A buffer that is there from the first update on, as in ``optax.trace``."""
    b = a.momentum * b + (1 - a.dampening) * g
    return _stepped(a, g, b), b


@form(1)
def averaging(a: Any, t: Any, g: Any, b: Any) -> Any:
    """``optax.ema`` for ``optax.trace``."""
    b = a.momentum * b + (1 - a.momentum) * g
    return _stepped(a, g, b), b


@form(1)
def averaging_unbiased(a: Any, t: Any, g: Any, b: Any) -> Any:
    """The same, with the correction of its bias that ``optax.ema`` makes unless told not to."""
    b = a.momentum * b + (1 - a.momentum) * g
    return _stepped(a, g, b / (1 - a.momentum**t)), b


@form(1)
def rate_inside(a: Any, t: Any, g: Any, b: Any) -> Any:
    """A buffer of steps, in which a rate that moves acts late."""
    step = -a.learning_rate * g
    b = a.momentum * b + (1.0 if t == 1 else 1 - a.dampening) * step
    return step + a.momentum * b if a.nesterov else b, b


@form(1)
def rate_inside_from_zeros(a: Any, t: Any, g: Any, b: Any) -> Any:
    """The same, with the dampening at the first update too."""
    step = -a.learning_rate * g
    b = a.momentum * b + (1 - a.dampening) * step
    return step + a.momentum * b if a.nesterov else b, b


# Of Adam, whose decay is coupled in one half of these and decoupled in the other.


def _moments(a: Any, g: Any, m: Any, v: Any) -> Any:
    return a.b1 * m + (1 - a.b1) * g, a.b2 * v + (1 - a.b2) * g * g


def uncorrected(a: Any, t: Any, g: Any, m: Any, v: Any) -> Any:
    """No correction of the bias."""
    m, v = _moments(a, g, m, v)
    return -a.learning_rate * m / (np.sqrt(v) + a.eps), m, v


def first_uncorrected(a: Any, t: Any, g: Any, m: Any, v: Any) -> Any:
    """None of the first moment's."""
    m, v = _moments(a, g, m, v)
    return -a.learning_rate * m / (np.sqrt(v / (1 - a.b2**t)) + a.eps), m, v


def second_uncorrected(a: Any, t: Any, g: Any, m: Any, v: Any) -> Any:
    """None of the second moment's."""
    m, v = _moments(a, g, m, v)
    return -a.learning_rate * m / (1 - a.b1**t) / (np.sqrt(v) + a.eps), m, v


def eps_inside(a: Any, t: Any, g: Any, m: Any, v: Any) -> Any:
    """ε under the root."""
    m, v = _moments(a, g, m, v)
    root = np.sqrt(v / (1 - a.b2**t) + a.eps)
    return -a.learning_rate * m / (1 - a.b1**t) / root, m, v


def eps_twice(a: Any, t: Any, g: Any, m: Any, v: Any) -> Any:
    """ε under the root and outside it: ``eps_root`` beside ``eps`` in Optax."""
    m, v = _moments(a, g, m, v)
    root = np.sqrt(v / (1 - a.b2**t) + a.eps)
    return -a.learning_rate * m / (1 - a.b1**t) / (root + a.eps), m, v


def eps_early(a: Any, t: Any, g: Any, m: Any, v: Any) -> Any:
    """ε added before the bias is corrected: the ε̂ of the paper's section 2."""
    m, v = _moments(a, g, m, v)
    step = np.sqrt(1 - a.b2**t) / (1 - a.b1**t)
    return -a.learning_rate * step * m / (np.sqrt(v) + a.eps), m, v


def eps_early_inside(a: Any, t: Any, g: Any, m: Any, v: Any) -> Any:
    """ε under the root, before the bias is corrected."""
    m, v = _moments(a, g, m, v)
    step = np.sqrt(1 - a.b2**t) / (1 - a.b1**t)
    return -a.learning_rate * step * m / np.sqrt(v + a.eps), m, v


def looking_ahead(a: Any, t: Any, g: Any, m: Any, v: Any) -> Any:
    """Nesterov's momentum, as in ``optax.nadam``."""
    m, v = _moments(a, g, m, v)
    ahead = a.b1 * m / (1 - a.b1 ** (t + 1)) + (1 - a.b1) * g / (1 - a.b1**t)
    return -a.learning_rate * ahead / (np.sqrt(v / (1 - a.b2**t)) + a.eps), m, v


@jax.jit
def _correction(beta: jax.Array, count: jax.Array) -> jax.Array:
    """In the dtype of the beta; XLA's power, which rounds otherwise than NumPy's."""
    return 1 - beta**count


def corrected_in_float32(a: Any, t: Any, g: Any, m: Any, v: Any) -> Any:
    """The powers of float32 betas in float32."""
    b1, b2 = np.asarray(a.b1, np.float32), np.asarray(a.b2, np.float32)
    count = np.int32(t)
    first, second = np.asarray(_correction(b1, count)), np.asarray(_correction(b2, count))
    b1, b2 = b1.astype(np.float64), b2.astype(np.float64)
    m = b1 * m + (1 - b1) * g
    v = b2 * v + (1 - b2) * g * g
    return -a.learning_rate * m / first / (np.sqrt(v / second) + a.eps), m, v


def largest_corrected(a: Any, t: Any, g: Any, m: Any, v: Any, most: Any) -> Any:
    """AMSGrad that takes the maximum after the correction, as ``optax.amsgrad`` does."""
    m, v = _moments(a, g, m, v)
    most = np.maximum(most, v / (1 - a.b2**t))
    return -a.learning_rate * m / (1 - a.b1**t) / (np.sqrt(most) + a.eps), m, v, most


def of_adam(step: Callable[..., Any], decoupled: bool) -> Form:
    """One of the above as a rule."""
    return Form(step, 3 if step is largest_corrected else 2, coupled=not decoupled)


@functools.cache
def without_nesterov(decoupled: bool) -> Build:
    """Adam in NAdam's place."""

    def build(values: Values) -> optax.GradientTransformation:
        kept = {name: value for name, value in values.items() if name != "momentum_decay"}
        return optimizers.adam(**{**kept, "decoupled_weight_decay": decoupled})

    return build


# Of RMSprop and Adagrad.


def _rms(a: Any, g: Any, v: Any, mean: Any) -> Any:
    v = a.alpha * v + (1 - a.alpha) * g * g
    mean = a.alpha * mean + (1 - a.alpha) * g
    return v, mean, v - mean * mean if a.centered else v


@form(3)
def rmsprop_eps_inside(a: Any, t: Any, g: Any, v: Any, mean: Any, b: Any) -> Any:
    """ε under the root, as in ``optax.rmsprop`` unless told otherwise."""
    v, mean, square = _rms(a, g, v, mean)
    b = a.momentum * b + g / np.sqrt(square + a.eps)
    return -a.learning_rate * b, v, mean, b


@form(3)
def rmsprop_rate_inside(a: Any, t: Any, g: Any, v: Any, mean: Any, b: Any) -> Any:
    """A buffer of steps, as in ``optax.rmsprop``."""
    v, mean, square = _rms(a, g, v, mean)
    b = a.momentum * b - a.learning_rate * g / (np.sqrt(square) + a.eps)
    return b, v, mean, b


@form(3)
def rmsprop_of_optax(a: Any, t: Any, g: Any, v: Any, mean: Any, b: Any) -> Any:
    """Both."""
    v, mean, square = _rms(a, g, v, mean)
    b = a.momentum * b - a.learning_rate * g / np.sqrt(square + a.eps)
    return b, v, mean, b


@form(1)
def adagrad_eps_inside(a: Any, t: Any, g: Any, s: Any) -> Any:
    """ε under the root, as in ``optax.adagrad``."""
    s = s + g * g
    rate = a.learning_rate / (1 + (t - 1) * a.lr_decay)
    return -rate * g / np.sqrt(a.initial_accumulator_value + s + a.eps), s
