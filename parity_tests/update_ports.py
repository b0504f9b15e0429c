"""Updates written out formula by formula, and torch's own, with the same random numbers.

Counts are updates; 0 is the first.
"""

import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch

from jaxsched.torch import assert_optimizer_matches

UPDATES = 30
LEAVES = ("weight", "bias", "norm")


def draw(seed):
    """Draw the numbers of a recipe, each a Python float."""
    rng = np.random.default_rng(seed)
    lr = 10 ** rng.uniform(-3, -1)
    return types.SimpleNamespace(
        lr=dict(zip(LEAVES, (lr, float(f"{lr * rng.uniform(1.5, 4):.3g}"), lr), strict=True)),
        wd={"weight": float(f"{10 ** rng.uniform(-3, -1):.2g}"), "bias": 0.0, "norm": 0.0},
        momentum=float(f"{rng.uniform(0.6, 0.97):.3g}"),
        dampening=float(f"{rng.uniform(0.1, 0.5):.2g}"),
        b1=float(f"{rng.uniform(0.7, 0.96):.3g}"),
        b2=float(f"{rng.uniform(0.97, 0.998):.4g}"),
        alpha=float(f"{rng.uniform(0.91, 0.985):.3g}"),
        eps=float(f"{10 ** rng.uniform(-6, -3):.2g}"),
        fall=float(rng.uniform(0.02, 0.2)),
        clip=float(f"{rng.uniform(1, 4):.2g}"),
        accumulation=int(rng.integers(2, 5)),
        every=int(rng.integers(5, 9)),
    )


class Warmup:
    """A scheduler of the user's own: the rate falls, the momentum rises from ``low``."""

    def __init__(self, optimizer, fall, momentum, low):
        self.optimizer, self.fall, self.low, self.momentum = optimizer, fall, low, momentum
        self.base, self.steps = [g["lr"] for g in optimizer.param_groups], -1
        self.step()

    def step(self):
        self.steps += 1
        for group, lr in zip(self.optimizer.param_groups, self.base, strict=True):
            group["lr"] = lr / (1 + self.fall * self.steps)
            if self.low is not None:
                group["momentum"] = self.momentum + max(1 - self.steps / 8, 0) * (
                    self.low - self.momentum
                )


def torch_factory(cls, d, low=None, fall=True, **options):
    """Return a factory of torch's optimizer in three groups, and its scheduler."""

    def factory(parameters):
        groups = [
            {"params": [parameters[k]], "lr": d.lr[k], "weight_decay": d.wd[k]} for k in LEAVES
        ]
        optimizer = cls(groups, lr=1.0, **options)
        return (optimizer, Warmup(optimizer, d.fall, d.momentum, low)) if fall else optimizer

    return factory


def port(d, step, keeps, *, clip=None, low=None, every=1, shift=0, cast=float, wrong=None):
    """Return a transformation of ``{weight, bias, norm}``, from the update of one leaf.

    Args:
      d: the draw.
      step: from (a, t, g, p, *state) to (added value, *state); a has lr, wd and momentum.
      keeps: the number of arrays in the state.
      clip: applied to all gradients first.
      low: momentum at the start, if it varies.
      every: updates between two steps of the scheduler.
      shift: added to the count of the schedules.
      cast: rounds the numbers.
      wrong: changes of ``{"lr": …, "wd": …}`` of the draw.
    """
    lr, wd = (wrong or {}).get("lr", d.lr), (wrong or {}).get("wd", d.wd)

    def round_number(value):
        if cast is float:
            return value
        return jnp.asarray(value).astype(cast).astype(jnp.float64)

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        # torch has no buffer before the first update with a momentum.
        return jnp.zeros([], jnp.int32), (zeros,) * keeps, jnp.asarray(False)

    def update(gradients, state, params):
        count, arrays, started = state
        steps = (jnp.maximum(count + shift, 0) // every).astype(jnp.float64)
        momentum = d.momentum
        if low is not None:
            momentum = momentum + jnp.maximum(1 - steps / 8, 0) * (low - momentum)
        if clip is not None:
            gradients = clip(gradients)
        added, after = {}, [{} for _ in range(keeps)]
        for leaf in params:
            a = types.SimpleNamespace(
                lr=round_number(lr[leaf] / (1 + d.fall * steps)),
                wd=round_number(wd[leaf]),
                momentum=round_number(momentum),
                b1=round_number(d.b1),
                b2=round_number(d.b2),
                alpha=round_number(d.alpha),
                eps=round_number(d.eps),
                dampening=round_number(d.dampening),
                started=started,
            )
            own = [tree[leaf] for tree in arrays]
            added[leaf], *new = step(a, count + 1, gradients[leaf], params[leaf], *own)
            for tree, value in zip(after, new, strict=True):
                tree[leaf] = value
        return added, (count + 1, tuple(after), started | jnp.asarray(momentum != 0))

    return optax.GradientTransformation(init, update)


def sgd(*, nesterov=True, decay="coupled", damped=False, zeros=False, inside=False, mean=False):
    def step(a, t, g, p, b):
        dampening = a.momentum if mean else a.dampening if damped else 0.0
        g = g + a.wd * p if decay == "coupled" else g
        g = a.lr * g if inside else g
        running = a.momentum * b + (1 - dampening) * g
        first = jnp.logical_and(~a.started, jnp.asarray(a.momentum != 0))
        b = running if zeros else jnp.where(first, g, running)
        move = g + a.momentum * b if nesterov else jnp.where(a.momentum != 0, b, g)
        if decay == "after":
            move = move + a.wd * p
        if decay == "unscaled":
            return -a.lr * move - a.wd * p, b
        return -move if inside else -a.lr * move, b

    return step, 1


def adam(*, decay="coupled", form="torch", corrected=(True, True), swapped=False):
    def step(a, t, g, p, m, v):
        b1, b2 = (a.b2, a.b1) if swapped else (a.b1, a.b2)
        g = g + a.wd * p if decay == "coupled" else g
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g**2
        one = 1 - b1**t if corrected[0] else 1.0
        two = 1 - b2**t if corrected[1] else 1.0
        below = {
            "torch": lambda: jnp.sqrt(v / two) + a.eps,
            "root": lambda: jnp.sqrt(v / two + a.eps),
            "both": lambda: jnp.sqrt(v / two + a.eps) + a.eps,
            "early": lambda: (jnp.sqrt(v) + a.eps) / jnp.sqrt(two),
            "early root": lambda: jnp.sqrt(v + a.eps) / jnp.sqrt(two),
        }[form]()
        move = m / one / below
        move = move + a.wd * p if decay == "decoupled" else move
        return -a.lr * move, m, v

    return step, 2


def rmsprop(*, root=False, inside=False, decay="coupled"):
    def step(a, t, g, p, v, b):
        g = g + a.wd * p if decay == "coupled" else g
        v = a.alpha * v + (1 - a.alpha) * g**2
        move = g / (jnp.sqrt(v + a.eps) if root else jnp.sqrt(v) + a.eps)
        b = a.momentum * b + (a.lr * move if inside else move)
        move = b if inside else a.lr * b
        return -(move + a.lr * a.wd * p if decay == "decoupled" else move), v, b

    return step, 2


def adagrad(*, root=False):
    def step(a, t, g, p, s):
        g = g + a.wd * p
        s = s + g**2
        return -a.lr * g / (jnp.sqrt(s + a.eps) if root else jnp.sqrt(s) + a.eps), s

    return step, 1


def negative(step, keeps):
    return lambda a, t, g, p, *kept: step(a, t, -g, p, *kept), keeps


def clip_by(d, kind):
    def factor(leaves):
        norm = jnp.sqrt(sum(jnp.sum(g**2) for g in leaves))
        return jnp.minimum(d.clip / (norm + (0 if kind == "optax" else 1e-6)), 1)

    def clip(gradients):
        if kind == "partition":
            return {leaf: g * factor([g]) for leaf, g in gradients.items()}
        return jax.tree.map(lambda g: g * factor(gradients.values()), gradients)

    return clip


def spread_decay(d):
    return {"wd": dict.fromkeys(LEAVES, d.wd["weight"])}


def options(cls, d, **more):
    """Return torch's own options, from the draw."""
    return {
        torch.optim.SGD: {"momentum": d.momentum, "nesterov": True},
        torch.optim.Adam: {"betas": (d.b1, d.b2), "eps": d.eps},
        torch.optim.AdamW: {"betas": (d.b1, d.b2), "eps": d.eps},
        torch.optim.NAdam: {"betas": (d.b1, d.b2), "eps": d.eps},
        torch.optim.RMSprop: {"alpha": d.alpha, "eps": d.eps, "momentum": d.momentum},
        torch.optim.Adagrad: {"eps": d.eps},
    }[cls] | more


def port_by_iterations(d, step, keeps, mean=True, dtype=jnp.float64, clip=None):
    """Return a port under accumulation whose schedules count iterations: update k is made after (k + 1) n."""
    n = d.accumulation
    of_updates = {**vars(d), "fall": d.fall * n, "lr": {}}
    # 1 + f (n k + n - 1) is (1 + f (n - 1)) (1 + f n / (1 + f (n - 1)) k).
    first = 1 + d.fall * (n - 1)
    of_updates["fall"] /= first
    of_updates["lr"] = {leaf: lr / first for leaf, lr in d.lr.items()}
    tx = port(types.SimpleNamespace(**of_updates), step, keeps, clip=clip)
    return accumulate(tx, d, mean, dtype)


def accumulate(tx, d, mean, dtype=jnp.float64):
    with jax.enable_x64(True):  # without, MultiSteps takes float64 for float32 when it is made
        steps = optax.MultiSteps(tx, d.accumulation, use_grad_mean=mean, accumulator_dtype=dtype)
    return steps.gradient_transformation()


ARGUMENTS = ("clip_norm", "accumulation", "steps_per_epoch")


def error_lines(tx, cls, d, more=None, **arguments):
    """Return the lines of the assertion's error; none if it passes."""
    options_given = dict(more(d)) if more else {}
    arguments |= {name: options_given.pop(name) for name in ARGUMENTS if name in options_given}
    factory = torch_factory(cls, d, **options(cls, d, **options_given))
    try:
        assert_optimizer_matches(tx, factory, **{"updates": UPDATES} | arguments)
    except AssertionError as error:
        return str(error).splitlines()
    return []
