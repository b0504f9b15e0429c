"""The frames of this package between an update and the formula of its rate."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest

import jaxsched
from jaxsched import param_groups, recipes

PACKAGE = Path(jaxsched.__file__).parent
MAX_FRAMES = 17
"""The version with a wrapper of float64 around each schedule had 33."""


def frames_to_the_cosine(schedule_around, monkeypatch):
    """Return the functions of the most frames of the package between the update and ``jnp.cos``."""
    stacks = []
    cos = jnp.cos

    def count_frames(x):
        frame, names = sys._getframe(1), []
        while frame is not None:
            if PACKAGE in Path(frame.f_code.co_filename).parents:
                names.append(frame.f_code.co_name)
            frame = frame.f_back
        stacks.append(names)
        return cos(x)

    monkeypatch.setattr(jnp, "cos", count_frames)
    recipe = schedule_around(recipes.yolov5_resnet18())
    params = {"kernel": jnp.ones(3), "bias": jnp.ones(3), "scale": jnp.ones(3)}
    tx = recipe.optimizer(param_groups.by_leaf_name)
    state = tx.init(params)
    stacks.clear()
    jax.jit(tx.update)(params, state, params)
    return max(stacks, key=len)


def test_few_frames_lie_between_an_update_and_the_articles_cosine(monkeypatch):
    frames = frames_to_the_cosine(lambda recipe: recipe, monkeypatch)
    assert frames[-1] == "update"
    assert len(frames) <= MAX_FRAMES, frames


def test_frames_of_added_combinators_are_counted(monkeypatch):
    def wrap(recipe):
        group = dict(recipe.groups["weight"])
        for _ in range(MAX_FRAMES):
            group["learning_rate"] = jaxsched.schedules.shift(group["learning_rate"], 0)
        return jaxsched.Recipe({label: group for label in recipe.groups})

    with pytest.raises(AssertionError):
        assert len(frames_to_the_cosine(wrap, monkeypatch)) <= MAX_FRAMES
