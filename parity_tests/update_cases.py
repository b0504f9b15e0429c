"""Pairs of runs that differ, as input of the search of an update's causes, and changes to explain them."""

import numpy as np

from jaxsched import optimizers
from jaxsched.torch._update_causes import Change
from jaxsched.torch._update_runs import Case

G = np.array([[4.0, -8.0], [2.0, 4.0], [-8.0, 2.0], [1.0, 16.0]])  # gradients, (updates, entries)
RANDOM = np.random.default_rng(3).normal(size=(20, 4))

SGD = {"learning_rate": 0.5, "momentum": 0.0, "dampening": 0.0, "weight_decay": 0.0}
SGD |= {"nesterov": False, "maximize": False}


def sgd(**arguments):
    """Return the arguments of one group of SGD, a rate of 0.5 and nothing else unless given."""
    return {**SGD, **arguments}


def case(
    batches,
    *,
    start=None,
    mine=None,
    reference=None,
    labels=None,
    rule=optimizers.sgd,
    rows=None,
    steps_per_epoch=1,
    clip_norm=None,
    bound=1e-14,
):
    """Return a case whose leaves start from 0 and move nowhere unless given.

    ``batches`` are the gradients by leaf, (updates, accumulation, entries), or (updates, entries)
    of one batch each. Every leaf is in group ``"0"`` unless ``labels`` are given.
    """
    arrays = {k: np.asarray(b, float) for k, b in batches.items()}
    arrays = {k: b if b.ndim == 3 else b[:, None] for k, b in arrays.items()}
    still = {k: np.zeros((len(b), b.shape[2])) for k, b in arrays.items()}

    def floats(paths):
        return {k: np.asarray(path, float) for k, path in paths.items()}

    return Case(
        start=floats({k: path[0] for k, path in still.items()} | (start or {})),
        batches=arrays,
        squares={
            k: np.concatenate([(b**2).sum(2), (b.sum(1) ** 2).sum(1, keepdims=True)], 1)
            for k, b in arrays.items()
        },
        mine=floats(still | (mine or {})),
        reference=floats(still | (reference or {})),
        labels=dict.fromkeys(arrays, "0") if labels is None else labels,
        rows=[{"0": sgd()}] if rows is None else rows,
        rule=rule,
        steps_per_epoch=steps_per_epoch,
        clip_norm=clip_norm,
        bound=bound,
    )


def change_to(name, kind="argument", sentence=None, grid=(), edit=None):
    """Return a change of one argument to a number."""
    edit = edit or (lambda recipe, x: {name: x + 0 * recipe[name]})
    return Change(kind, name, sentence or f"{name} {{x}} for {{y}}", edit, np.array(grid))


RATE = change_to("learning_rate")


def descent(gradients, rate=0.5, momentum=0.0, decay=0.0):
    """Return the path of SGD from 0, written out."""
    path, p, b = [], np.zeros(np.shape(gradients)[1:]), 0.0
    for g in np.asarray(gradients):
        b = momentum * b + g + decay * p
        p = p - rate * b
        path.append(p)
    return np.stack(path)


def slow_case(**fields):
    """Return a case in which w moves half as fast as in torch and x as in torch; ``frozen`` is not trained."""
    leaves = {"w": G, "x": 2 * G, "frozen": G}
    paths = {"w": descent(G), "x": descent(2 * G)}
    mine = {**paths, "w": descent(G, 0.25)} | fields.pop("mine", {})
    return case(leaves, mine=mine, reference=paths, labels={"w": "0", "x": "0"}, **fields)


def text(steps):
    """Return the sentences and numbers of steps."""
    return [(change.sentence, x) for change, x in steps]


def numbers_of(steps):
    return [[(change.name, x) for change, x in each] for each in steps]
