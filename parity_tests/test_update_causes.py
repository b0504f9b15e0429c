"""The likely causes of an update: each usual mistake planted in random settings is told.

What is planted is written out here, formula by formula, with one thing done wrong, and
never by the code that looks for it. Everything counts updates; 0 is the first.
"""

import os
import types

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest

torch = pytest.importorskip("torch", reason="the reference is live torch")

from jaxsched import optimizers  # noqa: E402
from jaxsched.torch import assert_optimizer_matches  # noqa: E402

pytestmark = pytest.mark.torch

DRAWS = int(os.environ.get("JAXSCHED_DRAWS", "3"))  # 20 for the whole proof
UPDATES = 30
LEAVES = ("weight", "bias", "norm")
NONE = "no usual mistake explains it"


def drawn(seed):
    """The numbers of a recipe, each a Python float."""
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


def of_torch(cls, d, low=None, fall=True, **options):
    """A factory: torch's optimizer in three groups, and its scheduler."""

    def factory(parameters):
        groups = [
            {"params": [parameters[k]], "lr": d.lr[k], "weight_decay": d.wd[k]} for k in LEAVES
        ]
        optimizer = cls(groups, lr=1.0, **options)
        return (optimizer, Warmup(optimizer, d.fall, d.momentum, low)) if fall else optimizer

    return factory


def port(d, step, keeps, *, clip=None, low=None, every=1, shift=0, cast=float, wrong=None):
    """A transformation of ``{weight, bias, norm}``, from what one update of a leaf is.

    Args:
      d: the draw.
      step: from (a, t, g, p, kept) to (what is added, what is kept); a has lr, wd and momentum.
      keeps: how many arrays it keeps.
      clip: what becomes of all gradients first.
      low: momentum at the start, if it moves.
      every: updates between two steps of the scheduler.
      shift: of the count that the schedules see.
      cast: what the numbers are rounded by.
      wrong: changes of ``{"lr": …, "wd": …}`` of the draw.
    """
    lr, wd = (wrong or {}).get("lr", d.lr), (wrong or {}).get("wd", d.wd)

    def rounded(value):
        if cast is float:
            return value
        return jnp.asarray(value).astype(cast).astype(jnp.float64)

    def init(params):
        zeros = jax.tree.map(jnp.zeros_like, params)
        # torch's buffer is not there before the first update with a momentum.
        return jnp.zeros([], jnp.int32), (zeros,) * keeps, jnp.asarray(False)

    def update(gradients, state, params):
        count, kept, started = state
        steps = (jnp.maximum(count + shift, 0) // every).astype(jnp.float64)
        momentum = d.momentum
        if low is not None:
            momentum = momentum + jnp.maximum(1 - steps / 8, 0) * (low - momentum)
        if clip is not None:
            gradients = clip(gradients)
        added, after = {}, [{} for _ in range(keeps)]
        for leaf in params:
            a = types.SimpleNamespace(
                lr=rounded(lr[leaf] / (1 + d.fall * steps)),
                wd=rounded(wd[leaf]),
                momentum=rounded(momentum),
                b1=rounded(d.b1),
                b2=rounded(d.b2),
                alpha=rounded(d.alpha),
                eps=rounded(d.eps),
                dampening=rounded(d.dampening),
                started=started,
            )
            own = [tree[leaf] for tree in kept]
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


def spread(d):
    return {"wd": dict.fromkeys(LEAVES, d.wd["weight"])}


def options(cls, d, **more):
    """Torch's own, of the draw."""
    return {
        torch.optim.SGD: {"momentum": d.momentum, "nesterov": True},
        torch.optim.Adam: {"betas": (d.b1, d.b2), "eps": d.eps},
        torch.optim.AdamW: {"betas": (d.b1, d.b2), "eps": d.eps},
        torch.optim.NAdam: {"betas": (d.b1, d.b2), "eps": d.eps},
        torch.optim.RMSprop: {"alpha": d.alpha, "eps": d.eps, "momentum": d.momentum},
        torch.optim.Adagrad: {"eps": d.eps},
    }[cls] | more


T = torch.optim
PLAIN = {"nesterov": False}
RIGHT = {
    "sgd": (T.SGD, lambda d: port(d, *sgd())),
    "sgd-dampened": (
        T.SGD,
        lambda d: port(d, *sgd(nesterov=False, damped=True)),
        lambda d: {**PLAIN, "dampening": d.dampening},
    ),
    "adam": (T.Adam, lambda d: port(d, *adam())),
    "adamw": (T.AdamW, lambda d: port(d, *adam(decay="decoupled"))),
    "rmsprop": (T.RMSprop, lambda d: port(d, *rmsprop())),
    "adagrad": (T.Adagrad, lambda d: port(d, *adagrad())),
}
EPSILON = "epsilon in another place: "
INSIDE = "the learning rate kept inside the momentum buffer"
MEAN = "momentum as an average, dampened by 1 - momentum"
PLANTED = {
    # What is planted against which optimizer, the cause, and torch's further options.
    "sgd-decoupled": (
        T.SGD,
        lambda d: port(d, *sgd(decay="after")),
        "decoupled for coupled weight decay, which comes after the momentum",
    ),
    "sgd-unscaled-decay": (
        T.SGD,
        lambda d: port(d, *sgd(decay="unscaled")),
        "decoupled weight decay that the learning rate does not scale",
    ),
    "sgd-no-decay": (T.SGD, lambda d: port(d, *sgd(decay="none")), "weight decay missing"),
    "sgd-decay-on-all": (
        T.SGD,
        lambda d: port(d, *sgd(), wrong=spread(d)),
        "weight decay applied to other groups",
    ),
    "sgd-decay-on-norm": (
        T.SGD,
        lambda d: port(d, *sgd(), wrong={"wd": {**d.wd, "norm": d.wd["weight"]}}),
        "weight decay applied to other groups",
    ),
    "sgd-no-nesterov": (T.SGD, lambda d: port(d, *sgd(nesterov=False)), "no Nesterov"),
    "sgd-nesterov": (
        T.SGD,
        lambda d: port(d, *sgd()),
        "Nesterov where torch has none",
        lambda d: PLAIN,
    ),
    "sgd-no-dampening": (
        T.SGD,
        lambda d: port(d, *sgd(nesterov=False)),
        "dampening missing",
        lambda d: {**PLAIN, "dampening": d.dampening},
    ),
    "sgd-dampening-at-the-first": (
        T.SGD,
        lambda d: port(d, *sgd(nesterov=False, damped=True, zeros=True)),
        "momentum buffer started from zeros",
        lambda d: {**PLAIN, "dampening": d.dampening},
    ),
    "sgd-warmup-from-zeros": (
        T.SGD,
        lambda d: port(d, *sgd(nesterov=False, zeros=True), low=0.0),
        "momentum buffer started from zeros",
        lambda d: {**PLAIN, "low": 0.0},
    ),
    "sgd-momentum-held": (
        T.SGD,
        lambda d: port(d, *sgd()),
        "momentum not warmed up",
        lambda d: {"low": 0.5},
    ),
    "sgd-mean": (
        T.SGD,
        lambda d: port(d, *sgd(nesterov=False, mean=True, zeros=True)),
        MEAN,
        lambda d: PLAIN,
    ),
    "sgd-mean-from-the-first": (
        T.SGD,
        lambda d: port(d, *sgd(nesterov=False, mean=True)),
        MEAN,
        lambda d: PLAIN,
    ),
    "sgd-rate-inside": (T.SGD, lambda d: port(d, *sgd(inside=True)), INSIDE),
    "sgd-maximize": (T.SGD, lambda d: port(d, *negative(*sgd())), "maximize: it ascends"),
    "sgd-float32": (
        T.SGD,
        lambda d: port(d, *sgd(), cast=jnp.float32),
        "float32 hyperparameters",
    ),
    "sgd-bfloat16": (
        T.SGD,
        lambda d: port(d, *sgd(), cast=ml_dtypes.bfloat16),
        "bfloat16 hyperparameters",
    ),
    "sgd-late": (T.SGD, lambda d: port(d, *sgd(), shift=-1), "schedule off by one update"),
    "adam-early": (T.Adam, lambda d: port(d, *adam(), shift=1), "schedule off by one update"),
    "sgd-groups": (
        T.SGD,
        lambda d: port(d, *sgd(), wrong={"lr": dict.fromkeys(LEAVES, d.lr["weight"])}),
        "a parameter in another group",
    ),
    "adam-decoupled": (
        T.Adam,
        lambda d: port(d, *adam(decay="decoupled")),
        "decoupled for coupled weight decay",
    ),
    "adamw-coupled": (
        T.AdamW,
        lambda d: port(d, *adam()),
        "coupled for decoupled weight decay",
    ),
    "adamw-no-decay": (T.AdamW, lambda d: port(d, *adam(decay="no")), "weight decay missing"),
    "adamw-of-optax": (
        T.AdamW,
        lambda d: port(
            d, *adam(decay="decoupled"), wrong={"wd": {**d.wd, "weight": 1e-4, "bias": 0.0}}
        ),
        "another weight decay: 0.0001 for",
    ),
    "adam-root": (T.Adam, lambda d: port(d, *adam(form="root")), EPSILON + "under the root"),
    "adam-both": (T.Adam, lambda d: port(d, *adam(form="both")), EPSILON + "under the root and"),
    "adam-early-eps": (
        T.Adam,
        lambda d: port(d, *adam(form="early")),
        EPSILON + "before the bias correction",
    ),
    "adamw-early-root": (
        T.AdamW,
        lambda d: port(d, *adam(form="early root", decay="decoupled")),
        EPSILON + "under the root, before the bias correction",
    ),
    "adam-uncorrected": (
        T.Adam,
        lambda d: port(d, *adam(corrected=(False, False))),
        "bias correction missing",
    ),
    "adam-first-uncorrected": (
        T.Adam,
        lambda d: port(d, *adam(corrected=(False, True))),
        "bias correction missing: of the first moment",
    ),
    "adam-swapped": (
        T.Adam,
        lambda d: port(d, *adam(swapped=True)),
        "beta1 and beta2 swapped",
    ),
    "adam-another-beta": (
        T.Adam,
        lambda d: port(types.SimpleNamespace(**{**vars(d), "b2": 0.999}), *adam()),
        "another beta2: 0.999 for",
    ),
    "adam-maximize": (T.Adam, lambda d: port(d, *negative(*adam())), "maximize: it ascends"),
    "adamw-float32": (
        T.AdamW,
        lambda d: port(d, *adam(decay="decoupled"), cast=jnp.float32),
        "float32 hyperparameters",
    ),
    "rmsprop-root": (
        T.RMSprop,
        lambda d: port(d, *rmsprop(root=True)),
        EPSILON + "under the root",
    ),
    "rmsprop-inside": (T.RMSprop, lambda d: port(d, *rmsprop(inside=True)), INSIDE),
    "rmsprop-of-optax": (
        T.RMSprop,
        lambda d: port(d, *rmsprop(inside=True, root=True)),
        INSIDE + ": and epsilon under the root",
    ),
    "rmsprop-decoupled": (
        T.RMSprop,
        lambda d: port(d, *rmsprop(decay="decoupled")),
        "decoupled for coupled weight decay",
    ),
    "adagrad-root": (
        T.Adagrad,
        lambda d: port(d, *adagrad(root=True)),
        EPSILON + "under the root",
    ),
    "nadam-no-nesterov": (T.NAdam, lambda d: port(d, *adam()), "no Nesterov"),
    "clip-partition": (
        T.SGD,
        lambda d: port(d, *sgd(), clip=clip_by(d, "partition")),
        "clip inside the partition",
        lambda d: {"clip_norm": d.clip},
    ),
    "clip-missing": (
        T.SGD,
        lambda d: port(d, *sgd()),
        "clip missing",
        lambda d: {"clip_norm": d.clip},
    ),
    "clip-of-optax": (
        T.SGD,
        lambda d: port(d, *sgd(), clip=clip_by(d, "optax")),
        "clip by optax.clip_by_global_norm",
        lambda d: {"clip_norm": d.clip},
    ),
    "averaged": (
        T.SGD,
        lambda d: counted(d, *sgd()),
        "gradients averaged, not summed",
        lambda d: {"accumulation": d.accumulation},
    ),
    "averaged-by-default": (
        T.AdamW,
        lambda d: counted(d, *adam(decay="decoupled"), dtype=jnp.float32),
        "gradients averaged, not summed, under accumulation: and in float32",
        lambda d: {"accumulation": d.accumulation},
    ),
    "accumulated-in-float32": (
        T.SGD,
        lambda d: counted(d, *sgd(), mean=False, dtype=jnp.float32),
        "gradients accumulated in float32",
        lambda d: {"accumulation": d.accumulation},
    ),
    "updates-for-iterations": (
        T.SGD,
        lambda d: accumulating(port(d, *sgd()), d, mean=False),
        "updates counted for iterations",
        lambda d: {"accumulation": d.accumulation},
    ),
    "scheduler-before-optimizer": (
        T.SGD,
        lambda d: port(d, *sgd(), every=d.every, shift=d.every),
        "schedule off by one epoch: one step of the scheduler early",
        lambda d: {"steps_per_epoch": d.every},
    ),
    "per-iteration": (
        T.SGD,
        lambda d: port(d, *sgd()),
        "per-iteration for per-epoch schedule",
        lambda d: {"steps_per_epoch": d.every},
    ),
}


def counted(d, step, keeps, mean=True, dtype=jnp.float64):
    """Under accumulation, its schedules counting iterations: update k is made after (k + 1) n."""
    n = d.accumulation
    of_updates = {**vars(d), "fall": d.fall * n, "lr": {}}
    # 1 + f (n k + n - 1) is (1 + f (n - 1)) (1 + f n / (1 + f (n - 1)) k).
    first = 1 + d.fall * (n - 1)
    of_updates["fall"] /= first
    of_updates["lr"] = {leaf: lr / first for leaf, lr in d.lr.items()}
    tx = port(types.SimpleNamespace(**of_updates), step, keeps)
    return accumulating(tx, d, mean, dtype)


def accumulating(tx, d, mean, dtype=jnp.float64):
    with jax.enable_x64(True):  # without, MultiSteps takes float64 for float32 when it is made
        steps = optax.MultiSteps(tx, d.accumulation, use_grad_mean=mean, accumulator_dtype=dtype)
    return steps.gradient_transformation()


ARGUMENTS = ("clip_norm", "accumulation", "steps_per_epoch")


def said(tx, cls, d, more=None, **arguments):
    """The lines of the assertion's error; none where it passes."""
    given = dict(more(d)) if more else {}
    arguments |= {name: given.pop(name) for name in ARGUMENTS if name in given}
    factory = of_torch(cls, d, **options(cls, d, **given))
    try:
        assert_optimizer_matches(tx, factory, **{"updates": UPDATES} | arguments)
    except AssertionError as error:
        return str(error).splitlines()
    return []


@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.parametrize("seed", range(DRAWS))
def test_the_rendering_itself_is_right(name, seed):
    cls, tx, *more = RIGHT[name]
    d = drawn([seed, *name.encode()])
    assert said(tx(d), cls, d, *more) == []


@pytest.mark.parametrize("seed", range(DRAWS))
def test_the_rendering_is_right_under_a_clip_and_accumulation(seed):
    d = drawn(seed)
    clip = {"clip_norm": d.clip}
    assert said(port(d, *sgd(), clip=clip_by(d, "torch")), T.SGD, d, lambda d: clip) == []
    summed = {"accumulation": d.accumulation}
    assert said(counted(d, *sgd(), mean=False), T.SGD, d, lambda d: summed) == []
    every = {"steps_per_epoch": d.every}
    assert said(port(d, *sgd(), every=d.every), T.SGD, d, lambda d: every) == []
    low = {"low": 0.0, "nesterov": False}
    assert said(port(d, *sgd(nesterov=False), low=0.0), T.SGD, d, lambda d: low) == []


@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.parametrize("seed", range(DRAWS))
def test_a_planted_mistake_is_told_and_no_other(name, seed):
    cls, tx, cause, *more = PLANTED[name]
    d = drawn([seed, *name.encode()])
    first, *lines = said(tx(d), cls, d, *more)
    assert first.startswith("the two part at update "), first
    assert [line for line in lines if line.startswith(f"likely cause: {cause}")], (vars(d), lines)
    assert len(lines) == 1, (vars(d), lines)


@pytest.mark.parametrize("name", PLANTED)
def test_what_goes_elsewhere_than_the_mistake_leads_has_no_cause(name):
    """The same mistakes, at rates that are a hundred-thousandth off from update 4 on."""
    cls, tx, _, *more = PLANTED[name]
    d = drawn([7, *name.encode()])
    inner = tx(d)

    def update(gradients, state, params):
        count, state = state
        added, state = inner.update(gradients, state, params)
        off = jnp.where(count >= 4, 1 + 1e-5, 1.0)
        return jax.tree.map(lambda x: off * x, added), (count + 1, state)

    off = optax.GradientTransformation(lambda p: (jnp.zeros([], jnp.int32), inner.init(p)), update)
    assert said(off, cls, d, *more)[1:] == [NONE]


SGD = {"momentum": 0.9, "nesterov": True}


def test_each_leaf_may_have_a_cause_of_its_own():
    d = drawn(1)
    step, keeps = sgd()

    def mixed(a, t, g, p, b):
        """Without Nesterov in the vector that does not decay and climbs."""
        if p.shape == (5,):
            return step(a, t, -g, p, b)
        return sgd(nesterov=False)[0](a, t, g, p, b)

    assert said(port(d, mixed, keeps), T.SGD, d)[1:] == [
        "likely cause: maximize: it ascends where torch does not, in bias, norm; the rest has "
        "another cause",
        "likely cause: no Nesterov, in weight; the rest has another cause",
    ]


def test_where_one_leaf_is_unexplained_there_is_no_cause():
    d = drawn(2)
    wrong = {"lr": {**d.lr, "norm": d.lr["norm"] * 1.01}, "wd": dict.fromkeys(LEAVES, 0.0)}
    assert said(port(d, *sgd(), wrong=wrong), T.SGD, d)[1:] == [NONE]


def test_two_mistakes_in_one_leaf_have_no_cause():
    d = drawn(3)
    no_decay = {"wd": dict.fromkeys(LEAVES, 0.0)}
    assert said(port(d, *sgd(nesterov=False), wrong=no_decay), T.SGD, d)[1:] == [NONE]


def frozen(parameters):
    """What the optimizer does not hold, and what needs no gradient."""
    parameters["norm"].requires_grad_(False)
    return torch.optim.SGD([parameters["weight"], parameters["norm"]], 0.1, **SGD)


def part(labels, **rules):
    return optax.multi_transform({**rules, "frozen": optax.set_to_zero()}, labels)


def test_what_is_frozen_in_torch():
    labels = {"weight": "all", "bias": "frozen", "norm": "frozen"}
    rule = optimizers.sgd(0.1, 0.9, nesterov=True)
    assert_optimizer_matches(part(labels, all=rule), frozen, updates=5)
    with pytest.raises(AssertionError, match=r"what torch's optimizer does not train is trained: "):
        assert_optimizer_matches(rule, frozen, updates=5)


def test_a_clip_that_counts_what_is_frozen():
    labels = {"weight": "all", "bias": "frozen", "norm": "frozen"}
    rule = part(labels, all=optimizers.sgd(0.1, 0.9, nesterov=True))
    clip = optimizers.clip_grad_norm(1.0)
    trained = optax.masked(clip, {"weight": True, "bias": False, "norm": False})
    assert_optimizer_matches(optax.chain(trained, rule), frozen, updates=5, clip_norm=1.0)
    with pytest.raises(AssertionError, match=r"cause: clip by a norm that counts what is frozen$"):
        assert_optimizer_matches(optax.chain(clip, rule), frozen, updates=5, clip_norm=1.0)


MATRICES = {"params": {"a": np.ones((4, 3)), "b": np.eye(3)}, "updates": 5}


def test_a_rule_that_looks_at_a_parameter_as_a_whole():
    def factory(parameters):
        return torch.optim.Adafactor(parameters.values(), lr=0.02, weight_decay=0.1)

    assert_optimizer_matches(optimizers.adafactor(0.02, weight_decay=0.1), factory, **MATRICES)
    with pytest.raises(AssertionError, match=r"\nlikely cause: weight decay missing$"):
        assert_optimizer_matches(optimizers.adafactor(0.02), factory, **MATRICES)


def test_no_cause_follows_from_a_recipe_that_does_not_go_where_torch_goes():
    """Muon's matrices are rounded to bfloat16, in which two right ones part."""

    def factory(parameters):
        return torch.optim.Muon(parameters.values(), lr=0.02, weight_decay=0.1)

    with pytest.raises(AssertionError, match=rf"\n{NONE}$"):
        assert_optimizer_matches(optimizers.muon(0.02, weight_decay=0.1), factory, **MATRICES)


def test_of_a_large_parameter_some_entries_are_looked_at():
    params = {"a": np.ones((300, 200)), "none": np.zeros((0, 3)), "one": np.float64(1.0)}

    def factory(parameters):
        return torch.optim.SGD(parameters.values(), 0.1, momentum=0.9)

    ahead, right = optimizers.sgd(0.1, 0.9, nesterov=True), optimizers.sgd(0.1, 0.9)
    arguments = {"params": params, "updates": 4}
    with pytest.raises(AssertionError, match=r"\nlikely cause: Nesterov where torch has none$"):
        assert_optimizer_matches(ahead, factory, **arguments)
    with pytest.raises(AssertionError, match=r"\nlikely cause: clip missing$"):
        assert_optimizer_matches(right, factory, **arguments, clip_norm=1.0)


class Own(torch.optim.SGD):
    """An optimizer that is not known."""


def test_an_optimizer_of_the_users_own_has_no_cause_but_is_compared():
    rule = optimizers.sgd(0.1, 0.9)
    assert_optimizer_matches(rule, lambda p: Own(p.values(), 0.1, momentum=0.9), updates=5)
    with pytest.raises(
        AssertionError, match=r"\nno usual mistake was tried: optimizer must be one"
    ):
        assert_optimizer_matches(rule, lambda p: Own(p.values(), 0.1, momentum=0.8), updates=5)


def test_a_difference_that_is_too_small_tells_no_cause():
    with pytest.raises(AssertionError, match=r"\nthe parameters are not so far apart that "):
        assert_optimizer_matches(
            optimizers.sgd(0.1 * (1 + 2e-13)), lambda p: torch.optim.SGD(p.values(), 0.1), updates=2
        )


def test_rates_told_by_each_part_of_a_partition_are_compared():
    def of(norm):
        injected = optax.inject_hyperparams(optax.sgd)
        rules = {"a": injected(0.1), "b": injected(norm)}
        return optax.multi_transform(rules, {"weight": "a", "bias": "a", "norm": "b"})

    def factory(parameters):
        groups = [[parameters["weight"], parameters["bias"]], [parameters["norm"]]]
        return torch.optim.SGD(
            [{"params": g, "lr": lr} for g, lr in zip(groups, (0.1, 0.2), strict=True)]
        )

    assert_optimizer_matches(of(0.2), factory, labels=["a", "b"], updates=3)
    with pytest.raises(AssertionError, match=r"update 0: learning_rate of b is 0\.3 for torch's"):
        assert_optimizer_matches(of(0.3), factory, labels=["a", "b"], updates=3)


@pytest.mark.parametrize("name", ["updates", "steps_per_epoch", "accumulation"])
def test_a_count_of_none_is_refused(name):
    with pytest.raises(ValueError, match=f"^{name} must be .*at least 1"):
        assert_optimizer_matches(optimizers.sgd(0.1), lambda p: None, **{name: 0})


def test_a_scheduler_of_a_metric_is_refused():
    def factory(parameters):
        optimizer = torch.optim.SGD(parameters.values(), 0.1)
        return optimizer, torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)

    with pytest.raises(ValueError, match=r"^scheduler must not depend on a metric, got Reduce"):
        assert_optimizer_matches(optimizers.sgd(0.1), factory)
