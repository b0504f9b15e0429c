"""The likely causes of an update: each usual mistake planted in random settings is told.

What is planted is in ``planted_updates.py``. Everything counts updates; 0 is the first.
"""

import os

import jax
import jax.numpy as jnp
import optax
import pytest

torch = pytest.importorskip("torch", reason="the reference is live torch")

import planted_updates  # noqa: E402
from planted_updates import PLANTED, RIGHT  # noqa: E402
from update_ports import LEAVES, clip_by, counted, drawn, port, said, sgd  # noqa: E402

pytestmark = pytest.mark.torch

DRAWS = int(os.environ.get("JAXSCHED_DRAWS", "1"))  # 20 for the whole proof
NONE = "no usual mistake explains it"


@pytest.mark.parametrize("name", RIGHT)
@pytest.mark.parametrize("seed", range(DRAWS))
def test_the_rendering_itself_is_right(name, seed):
    assert planted_updates.right(name, seed) == []


@pytest.mark.parametrize("seed", range(DRAWS))
def test_the_rendering_is_right_under_a_clip_and_accumulation(seed):
    d = drawn(seed)
    clip = {"clip_norm": d.clip}
    assert said(port(d, *sgd(), clip=clip_by(d, "torch")), torch.optim.SGD, d, lambda d: clip) == []
    summed = {"accumulation": d.accumulation}
    assert said(counted(d, *sgd(), mean=False), torch.optim.SGD, d, lambda d: summed) == []
    every = {"steps_per_epoch": d.every}
    assert said(port(d, *sgd(), every=d.every), torch.optim.SGD, d, lambda d: every) == []
    low = {"low": 0.0, "nesterov": False}
    assert said(port(d, *sgd(nesterov=False), low=0.0), torch.optim.SGD, d, lambda d: low) == []


@pytest.mark.parametrize("name", PLANTED)
@pytest.mark.parametrize("seed", range(DRAWS))
def test_a_planted_mistake_is_told_and_no_other(name, seed):
    lines = planted_updates.planted(name, seed)
    assert planted_updates.told(name, lines), lines


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


def test_each_leaf_may_have_a_cause_of_its_own():
    d = drawn(1)
    step, keeps = sgd()

    def mixed(a, t, g, p, b):
        """Without Nesterov in the vector that does not decay and climbs."""
        if p.shape == (5,):
            return step(a, t, -g, p, b)
        return sgd(nesterov=False)[0](a, t, g, p, b)

    assert said(port(d, mixed, keeps), torch.optim.SGD, d)[1:] == [
        "likely cause: maximize: it ascends where torch does not, in bias, norm; the rest has "
        "another cause",
        "likely cause: no Nesterov, in weight; the rest has another cause",
    ]


def test_where_one_leaf_is_unexplained_there_is_no_cause():
    d = drawn(2)
    wrong = {"lr": {**d.lr, "norm": d.lr["norm"] * 1.01}, "wd": dict.fromkeys(LEAVES, 0.0)}
    assert said(port(d, *sgd(), wrong=wrong), torch.optim.SGD, d)[1:] == [NONE]


def test_two_mistakes_in_one_leaf_have_no_cause():
    d = drawn(3)
    no_decay = {"wd": dict.fromkeys(LEAVES, 0.0)}
    assert said(port(d, *sgd(nesterov=False), wrong=no_decay), torch.optim.SGD, d)[1:] == [NONE]
