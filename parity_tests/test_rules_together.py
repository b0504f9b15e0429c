"""Muon beside AdamW against torch's two optimizers, with their schedulers: 200 updates, and wrong ports."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

torch = pytest.importorskip("torch", reason="the reference is live torch")

from bounds import BOUND, MUON_BOUND  # noqa: E402
from muon_adamw import EPOCH, LABEL_OF, LABELS, RULES, SHAPES, recipe_by_hand, torch_optimizers  # noqa: E402
from optimizer_settings import UPDATES, problem, relative_distances  # noqa: E402

import jaxsched  # noqa: E402
from jaxsched import Recipe, Trace, compare, optimizers, schedules  # noqa: E402
from jaxsched.optimizers._muon import adjustment  # noqa: E402
from jaxsched.torch import record  # noqa: E402

pytestmark = pytest.mark.torch

RUNS = {
    "plain": {},
    "clip, accumulation and average": {
        "clip_norm": 3.0,
        "batches": 2,
        "ema": optimizers.EMA(decay=0.99, tau=30.0),
    },
}


def torch_run(start, gradients, clip_norm=None, batches=1, ema=None):
    """Return torch's parameters after each update, by name, its average, buffer and recording."""
    parameters = {name: torch.nn.Parameter(torch.tensor(p)) for name, p in start.items()}
    pair, schedulers = torch_optimizers(parameters)
    average, rows = {name: p.copy() for name, p in start.items()}, []
    with record(pair, LABELS) as recording:
        for i in range(UPDATES):
            for name, p in parameters.items():
                p.grad = sum(torch.tensor(g) for g in gradients[name][i * batches :][:batches])
            if clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(parameters.values(), clip_norm)
            for optimizer in pair:
                optimizer.step()
            if (i + 1) % EPOCH == 0:
                for scheduler in schedulers:
                    scheduler.step()
            rows.append({name: p.detach().numpy().copy() for name, p in parameters.items()})
            if ema is not None:
                decay = ema.decay * (1 - np.exp(-(i + 1) / ema.tau))
                average = {k: decay * a + (1 - decay) * rows[-1][k] for k, a in average.items()}
    path = {name: np.stack([row[name] for row in rows]) for name in parameters}
    buffer = {k: pair[0].state[parameters[k]]["momentum_buffer"].numpy() for k in ("tall", "wide")}
    return path, average, buffer, recording.trace


def our_run(recipe, start, gradients):
    """Return parameters, average and hyperparameters after each iteration, and the last state."""
    tx = recipe.optimizer(LABEL_OF)

    def step(carry, gradient):
        params, state, average = carry
        updates, state = tx.update(gradient, state, params)
        params = optax.apply_updates(params, updates)
        stepped = optimizers.stepped(state)
        if recipe.ema is not None:
            average = recipe.ema.update(average, params, stepped)
        return (params, state, average), (params, jaxsched.hyperparameters(state))

    average = None if recipe.ema is None else recipe.ema.init(start)
    carry = jax.tree.map(jnp.asarray, start), tx.init(start), average
    (_, state, average), (path, rows) = jax.jit(lambda c, g: jax.lax.scan(step, c, g))(
        carry, gradients
    )
    return jax.tree.map(np.asarray, (path, average, rows, state))


@pytest.fixture(scope="module")
def runs():
    """Both sides of each of ``RUNS``, in float64, run once."""
    results = {}
    torch.set_default_dtype(torch.float64)
    try:
        with jax.enable_x64(True):
            for name, settings in RUNS.items():
                batches = settings.get("batches", 1)
                start, _ = problem(SHAPES, np.float64)
                rng = np.random.default_rng(1)
                gradients = {k: rng.normal(size=(UPDATES * batches, *s)) for k, s in SHAPES.items()}
                fields = dict(settings)
                if batches > 1:
                    constant = schedules.constant(fields.pop("batches"))
                    fields["accumulation"] = optimizers.Accumulation(constant)
                recipe = recipe_by_hand(batches, **fields)
                results[name] = (
                    recipe,
                    our_run(recipe, start, gradients),
                    torch_run(start, gradients, **settings),
                )
    finally:
        torch.set_default_dtype(torch.float32)
    return results


@pytest.mark.parametrize("name", RUNS)
def test_200_updates_beside_torchs_two(name, runs):
    recipe, (path, average, rows, _), (theirs, their_average, _, trace) = runs[name]
    batches = len(path["bias"]) // UPDATES
    path = {k: p[batches - 1 :: batches] for k, p in path.items()}
    for leaf in ("bias", "scale"):
        assert relative_distances(path[leaf], theirs[leaf]).max() <= BOUND
        assert relative_distances(path[leaf][1:], theirs[leaf][:-1]).min() > BOUND  # an update late
    rate = np.cumsum(trace.groups["matrix"]["learning_rate"])
    for leaf in ("tall", "wide"):
        far = np.abs(path[leaf] - theirs[leaf]).max((1, 2))
        assert (far <= MUON_BOUND * rate * adjustment(SHAPES[leaf], None)).all()
    if recipe.ema is not None:
        for leaf in ("bias", "scale"):
            assert (
                relative_distances(average.average[leaf][None], their_average[leaf][None]) <= BOUND
            )
        assert average.updates == UPDATES
    # The hyperparameters in force at each update.
    ours = Trace({k: {n: v[batches - 1 :: batches] for n, v in g.items()} for k, g in rows.items()})
    ours = dataclasses.replace(ours, clock="update")
    report = compare(ours, trace)
    assert report, report
    assert not compare(dataclasses.replace(ours.take(slice(1, None)), start=0), trace)


def test_the_momentum_of_the_matrices_equals_torch(runs):
    _, (*_, state), (_, _, buffer, _) = runs["plain"]
    inner = state.inner.inner_states["matrix"].inner_state.trees["momentum_buffer"]
    for leaf in buffer:
        assert relative_distances(inner[leaf][None], buffer[leaf][None]) <= BOUND


# --- wrong ports ---


def change_recipe(rules=RULES, drop=(), **changes):
    groups = {
        label: {**group, **changes.get(label, {})}
        for label, group in recipe_by_hand().groups.items()
    }
    for label, name in drop:
        groups[label].pop(name)
    return Recipe(groups, rules, length=UPDATES)


def common_arguments(group):
    return {name: group[name] for name in ("learning_rate", "weight_decay")}


def exchange_rules():
    rules = {"matrix": optimizers.adamw, "bias": optimizers.muon, "scale": optimizers.adamw}
    groups = {label: common_arguments(group) for label, group in recipe_by_hand().groups.items()}
    return Recipe(groups, rules, length=UPDATES)


def one_rule(rule):
    groups = {label: common_arguments(group) for label, group in recipe_by_hand().groups.items()}
    return Recipe(groups, rule, length=UPDATES)


def move_to_muon():
    groups = {label: dict(group) for label, group in recipe_by_hand().groups.items()}
    groups["scale"] = common_arguments(groups["scale"])
    return Recipe(groups, {**RULES, "scale": optimizers.muon}, length=UPDATES)


COSINE = recipe_by_hand().groups["matrix"]["learning_rate"]
LINEAR = recipe_by_hand().groups["bias"]["learning_rate"]

# name: (the port, quantities that differ, a cause)
WRONG = {
    "rules exchanged": (
        exchange_rules,
        {"matrix/update_rule", "bias/update_rule"},
        "update rules adamw and muon exchanged in bias and matrix",
    ),
    "AdamW for all": (
        lambda: one_rule(optimizers.adamw),
        {"matrix/update_rule"},
        "another update rule: adamw for muon in matrix",
    ),
    "Muon for all": (
        lambda: one_rule(optimizers.muon),
        {"bias/update_rule", "scale/update_rule"},
        "another update rule: muon for adamw in bias and scale",
    ),
    "a group under the other's rule": (
        move_to_muon,
        {"scale/update_rule"},
        "another update rule: muon for adamw in scale",
    ),
    "Adam for AdamW": (
        lambda: change_recipe({**RULES, "bias": optimizers.adam, "scale": optimizers.adam}),
        {"bias/update_rule", "scale/update_rule"},
        "another update rule: adam for adamw in bias and scale",
    ),
    "Muon's default momentum": (
        lambda: change_recipe(drop=[("matrix", "momentum")]),
        {"matrix/momentum"},
        "momentum 0.95 for 0.9",
    ),
    "AdamW's decay for the matrices": (
        lambda: change_recipe(matrix={"weight_decay": 0.05}),
        {"matrix/weight_decay"},
        "weight_decay 0.05 for 0.1",
    ),
    "decay of what has none": (
        lambda: change_recipe(drop=[("scale", "weight_decay")]),
        {"scale/weight_decay"},
        "weight_decay 0.01 for 0.0",
    ),
    "no Nesterov": (
        lambda: change_recipe(matrix={"nesterov": False}),
        {"matrix/nesterov"},
        "another nesterov: False for True in matrix",
    ),
    "no schedule for the matrices": (
        lambda: change_recipe(matrix={"learning_rate": 0.02}),
        {"matrix/learning_rate"},
        "constant, 0.02, where the reference is scheduled",
    ),
    "no schedule beside it": (
        lambda: change_recipe(bias={"learning_rate": 3e-3}, scale={"learning_rate": 3e-3}),
        {"bias/learning_rate", "scale/learning_rate"},
        "constant, 0.003, where the reference is scheduled",
    ),
    "one schedule for both": (
        lambda: change_recipe(bias={"learning_rate": COSINE}, scale={"learning_rate": COSINE}),
        {"bias/learning_rate", "scale/learning_rate"},
        "learning_rate taken from group matrix",
    ),
    "the rates exchanged": (
        lambda: change_recipe(
            matrix={"learning_rate": LINEAR},
            bias={"learning_rate": COSINE},
            scale={"learning_rate": COSINE},
        ),
        {"matrix/learning_rate", "bias/learning_rate", "scale/learning_rate"},
        "exchanged",
    ),
    "torch's default betas": (
        lambda: change_recipe(drop=[("bias", "b2"), ("scale", "b2")]),
        {"bias/b2", "scale/b2"},
        "b2 0.999 for 0.95",
    ),
    "the rates by iteration": (
        lambda: change_recipe(matrix={"learning_rate": COSINE.arguments["schedule"]}),
        {"matrix/learning_rate"},
        "stepped 4 times for once",
    ),
    "another adjustment": (
        lambda: change_recipe(matrix={"adjust_lr_fn": "match_rms_adamw"}),
        {"matrix/adjust_lr_fn"},
        "another adjust lr fn: match_rms_adamw for None in matrix",
    ),
}


def test_wrong_ports_are_refused(runs):
    """They differ from torch's recording; the correct port is equal."""
    trace = runs["plain"][2][3]
    assert compare(recipe_by_hand(), trace)
    for name, (port, names, cause) in WRONG.items():
        report = compare(port(), trace)
        differing = {"/".join(q.key) for q in report.quantities if q.first}
        assert names <= differing, f"{name}: {report}"
        if "rule" not in name and "all" not in name:
            assert names == differing, f"{name}: {report}"
        assert any(cause in line for line in report.causes), f"{name}: {report}"
