"""The likely causes of a wrong update: each usual mistake, planted in random settings, is named.

The mistakes are in ``planted_updates.py``. Counts are updates; 0 is the first.
"""

import os
import types

import jax
import jax.numpy as jnp
import optax
import pytest

torch = pytest.importorskip("torch", reason="the reference is live torch")

import planted_updates  # noqa: E402
from conftest import long_after  # noqa: E402
from planted_updates import PLANTED, RIGHT  # noqa: E402
from update_ports import (  # noqa: E402
    LEAVES,
    adam,
    clip_by,
    draw,
    error_lines,
    port,
    port_by_iterations,
    rmsprop,
    sgd,
)

import jaxsched  # noqa: E402
from jaxsched import optimizers  # noqa: E402
from jaxsched.torch import assert_optimizer_matches  # noqa: E402

pytestmark = pytest.mark.torch

DRAWS = int(os.environ.get("JAXSCHED_DRAWS", "1"))  # 20 for benchmarks, many minutes
EVERY = 1 if DRAWS > 1 else 10
NONE = "no usual mistake explains it"


@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.parametrize("seed", range(DRAWS))
def test_the_rendering_itself_is_right(name, seed):
    assert planted_updates.run_right(name, seed) == []


@pytest.mark.parametrize("seed", range(DRAWS))
def test_the_rendering_is_right_under_a_clip_and_accumulation(seed):
    d = draw(seed)
    clip = {"clip_norm": d.clip}
    assert (
        error_lines(port(d, *sgd(), clip=clip_by(d, "torch")), torch.optim.SGD, d, lambda d: clip)
        == []
    )
    summed = {"accumulation": d.accumulation}
    assert (
        error_lines(port_by_iterations(d, *sgd(), mean=False), torch.optim.SGD, d, lambda d: summed)
        == []
    )
    every = {"steps_per_epoch": d.every}
    assert error_lines(port(d, *sgd(), every=d.every), torch.optim.SGD, d, lambda d: every) == []
    low = {"low": 0.0, "nesterov": False}
    assert (
        error_lines(port(d, *sgd(nesterov=False), low=0.0), torch.optim.SGD, d, lambda d: low) == []
    )


@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.parametrize("seed", range(DRAWS))
def test_a_planted_mistake_is_named_and_no_other(name, seed):
    lines = planted_updates.run_planted(name, seed)
    assert planted_updates.is_named(name, lines), lines


# Each searches to the end, which takes a second or two.
@pytest.mark.parametrize("name", long_after(2, [*PLANTED][::EVERY]))
def test_a_run_that_no_mistake_reproduces_has_no_cause(name):
    """The mistakes have rates that are a hundred-thousandth off from update 4 on."""
    cls, tx, _, *more = PLANTED[name]
    d = draw([7, *name.encode()])
    inner = tx(d)

    def update(gradients, state, params):
        count, state = state
        added, state = inner.update(gradients, state, params)
        off = jnp.where(count >= 4, 1 + 1e-5, 1.0)
        return jax.tree.map(lambda x: off * x, added), (count + 1, state)

    off = optax.GradientTransformation(lambda p: (jnp.zeros([], jnp.int32), inner.init(p)), update)
    assert error_lines(off, cls, d, *more)[1:] == [NONE]


def test_each_leaf_may_have_a_cause_of_its_own():
    d = draw(1)
    step, keeps = sgd()

    def mix(a, t, g, p, b):
        """Step without Nesterov in the vector that does not decay and ascends."""
        if p.shape == (5,):
            return step(a, t, -g, p, b)
        return sgd(nesterov=False)[0](a, t, g, p, b)

    assert error_lines(port(d, mix, keeps), torch.optim.SGD, d)[1:] == [
        "likely cause: maximize True for False, in parameter of bias and norm",
        "likely cause: nesterov False for True, in parameter of weight",
    ]


def weight_off_later(step, keeps):
    """Return ``step`` with the matrix a hundred-thousandth off from update 4 on."""

    def change(a, t, g, p, *kept):
        added, *after = step(a, t, g, p, *kept)
        here = (t > 4) & (p.ndim == 2)
        return jnp.where(here, 1 + 1e-5, 1.0) * added, *after

    return change, keeps


def test_where_one_leaf_is_unexplained_there_is_no_cause():
    d = draw(2)
    wrong = {"lr": {**d.lr, "norm": d.lr["norm"] * 1.01}}
    assert error_lines(port(d, *sgd(), wrong=wrong), torch.optim.SGD, d)[1:] == [
        "likely cause: learning_rate times 1.01, in parameter of norm, or gradients times 1.01"
    ]
    unexplained = port(d, *weight_off_later(*sgd()), wrong=wrong)
    assert error_lines(unexplained, torch.optim.SGD, d)[1:] == [NONE]


NO_DECAY = {"wd": dict.fromkeys(LEAVES, 0.0)}
TWO = {
    # The planted update, torch's optimizer, and the two changes.
    "switch and number": (
        torch.optim.SGD,
        lambda d: port(d, *sgd(nesterov=False), wrong=NO_DECAY),
        lambda d: f"nesterov False for True, and weight_decay 0.0 for {d.wd['weight']}",
    ),
    "rule and number": (
        torch.optim.Adam,
        lambda d: port(change_draw(d, b2=0.95), *adam(decay="decoupled")),
        lambda d: f"decoupled for coupled weight decay, and b2 0.95 for {d.b2}",
    ),
    "two numbers": (
        torch.optim.Adam,
        lambda d: port(change_draw(d, b1=0.6, b2=0.999), *adam()),
        lambda d: f"b1 0.6 for {d.b1}, and b2 0.999 for {d.b2}",
    ),
    "optax.rmsprop's defaults": (
        torch.optim.RMSprop,
        lambda d: port(change_draw(d, alpha=0.9, eps=1e-8), *rmsprop(root=True, inside=True)),
        lambda d: (
            f"{planted_updates.INSIDE} and {planted_updates.EPSILON}under the root, "
            f"and alpha 0.9 for {d.alpha}, and eps 1e-08 for {d.eps}"
        ),
    ),
}


def change_draw(d, **numbers):
    return types.SimpleNamespace(**{**vars(d), **numbers})


@pytest.mark.parametrize("name", long_after(2, TWO))
@pytest.mark.parametrize("seed", range(3, 3 + DRAWS))
def test_two_changes_are_named_where_one_does_not_suffice(name, seed):
    cls, tx, sentence = TWO[name]
    d = draw(seed)
    assert error_lines(tx(d), cls, d)[1:] == [f"likely cause: {sentence(d)}"]


SOLVED = {
    "momentum": (torch.optim.SGD, sgd, {"momentum": 0.913}),
    "clip_norm": (torch.optim.SGD, sgd, {"clip": 1.35}),
    "b1": (torch.optim.Adam, adam, {"b1": 0.55}),
    "b2": (torch.optim.AdamW, lambda: adam(decay="decoupled"), {"b2": 0.9999}),
    "eps": (torch.optim.Adam, adam, {"eps": 1e-10}),
    "alpha": (torch.optim.RMSprop, rmsprop, {"alpha": 0.5}),
}


@pytest.mark.parametrize("name", long_after(3, SOLVED))
def test_the_number_is_solved_for(name):
    cls, rule, numbers = SOLVED[name]
    d = draw(5)
    clip = {"clip_norm": d.clip} if name == "clip_norm" else {}
    wrong = change_draw(d, **numbers)
    tx = port(wrong, *rule(), clip=clip_by(wrong, "torch") if clip else None)
    theirs = d.clip if clip else getattr(d, name)
    (cause,) = error_lines(tx, cls, d, lambda d: clip)[1:]
    assert cause.startswith(f"likely cause: {name} {next(iter(numbers.values()))} for {theirs}")


@pytest.mark.parametrize("shift", [-4, -2, 3, 9])
def test_how_far_the_clock_is_off_is_found(shift):
    d = draw(6)
    when = f"{abs(shift)} updates {'early' if shift > 0 else 'late'}"
    assert error_lines(port(d, *sgd(), shift=shift), torch.optim.SGD, d)[1:] == [
        f"likely cause: schedule {when}"
    ]


def test_an_average_under_a_clip_is_clipped_by_its_own_norm():
    d = draw(7)
    both = {"clip_norm": d.clip, "accumulation": d.accumulation}
    averaged = port_by_iterations(d, *sgd(), clip=clip_by(d, "torch"))
    assert error_lines(averaged, torch.optim.SGD, d, lambda d: both)[1:] == [
        "likely cause: gradients averaged, not summed, under accumulation"
    ]


def exponential(parameters):
    optimizer = torch.optim.SGD(parameters.values(), lr=0.1, momentum=0.9)
    return optimizer, torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)


def betas(parameters):
    return torch.optim.Adam(parameters.values(), lr=1e-3, betas=(0.9, 0.98), eps=1e-9)


def two_groups(parameters):
    groups = [[parameters["weight"], parameters["bias"]], [parameters["norm"]]]
    rates = (0.3, 0.1)
    return torch.optim.SGD([{"params": p, "lr": lr} for p, lr in zip(groups, rates, strict=True)])


def partition(first, second):
    labels = {"weight": "a", "bias": "a", "norm": "b"}
    return optax.multi_transform({"a": first, "b": second}, labels)


def plain(name, **options):
    return lambda parameters: getattr(torch.optim, name)(parameters.values(), **options)


AS_WRITTEN = {
    # A port in Optax, torch's optimizer, and the cause.
    "optax.adamw": (optax.adamw(1e-3), plain("AdamW", lr=1e-3), "weight_decay 0.0001 for 0.01"),
    "optax.rmsprop": (
        optax.rmsprop(1e-3),
        plain("RMSprop", lr=1e-3),
        "epsilon in another place: under the root, and alpha 0.9 for 0.99",
    ),
    "optax.nadam": (
        optax.nadam(1e-3),
        plain("NAdam", lr=1e-3),
        "no momentum_decay, as optax.nadam",
    ),
    "other betas and epsilon": (
        optax.adam(1e-3, eps=1e-6),
        betas,
        "b2 0.999 for 0.98, and eps 1e-06 for 1e-09",
    ),
    "stepped once in four": (
        optax.sgd(lambda count: 0.1 * 0.9 ** (count // 4), momentum=0.9),
        exponential,
        "schedule stepped once in 4 times",
    ),
    "stepped twice": (
        optax.sgd(lambda count: 0.1 * 0.9 ** (count * 2), momentum=0.9),
        exponential,
        "schedule stepped 2 times for once",
    ),
    "stepped three times": (
        optax.sgd(lambda count: 0.1 * 0.9 ** (count * 3), momentum=0.9),
        exponential,
        "schedule stepped 3 times for once",
    ),
    "frozen": (
        partition(optax.sgd(0.3), optax.set_to_zero()),
        two_groups,
        "learning_rate 0.0 for 0.1, or frozen where torch trains it",
    ),
    "exchanged": (
        partition(optax.sgd(0.1), optax.sgd(0.3)),
        two_groups,
        "groups 0 and 1 exchanged",
    ),
    "a rule that JAX runs": (
        optimizers.radam(0.02, b2=0.95),
        plain("RAdam", lr=0.02),
        "b2 0.95 for 0.999",
    ),
    "a rule that looks at a parameter as a whole": (
        optimizers.adafactor(0.02, weight_decay=0.05),
        plain("Adafactor", lr=0.02, weight_decay=0.1),
        "weight_decay 0.05 for 0.1",
    ),
}


@pytest.mark.parametrize("name", long_after(len(AS_WRITTEN) - 2, AS_WRITTEN))
def test_a_port_as_one_writes_it(name):
    tx, factory, cause = AS_WRITTEN[name]
    with pytest.raises(AssertionError) as failure:
        assert_optimizer_matches(tx, factory, updates=20)
    assert str(failure.value).splitlines()[1:] == [f"likely cause: {cause}"]


def test_a_weight_decay_on_the_wrong_group_has_the_words_of_compare():
    groups = {
        "weight": {"learning_rate": 0.1, "weight_decay": 0.05},
        "bias": {"learning_rate": 0.1},
    }
    wrong = {**groups, "bias": groups["weight"]}
    cause = "weight_decay 0.05 for 0.0, or weight_decay taken from group weight"
    report = jaxsched.compare(jaxsched.Recipe(wrong), jaxsched.Recipe(groups).trace(20))
    assert report.causes == (cause,)

    def factory(parameters):
        decays = {"weight": 0.05, "bias": 0.0}
        return torch.optim.SGD(
            [{"params": [parameters[k]], "weight_decay": decay} for k, decay in decays.items()], 0.1
        )

    params = {"weight": jnp.ones((3, 2)), "bias": jnp.ones(2)}
    tx = jaxsched.Recipe(wrong).optimizer({"weight": "weight", "bias": "bias"})
    with pytest.raises(AssertionError) as failure:
        assert_optimizer_matches(tx, factory, params=params, updates=20, labels=["weight", "bias"])
    (*_, line) = str(failure.value).splitlines()
    assert line == f"likely cause: {cause}"
