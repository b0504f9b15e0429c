"""MuSGD beside a torch class of the same name, and Muon beside torch's, without rounding to bfloat16."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

torch = pytest.importorskip("torch", reason="the reference is live torch")

from bounds import FLOAT32_BOUND, MUSGD_FLOAT32_BOUND  # noqa: E402
from conftest import long_after  # noqa: E402
from musgd_recordings import VERSIONS, leaves, max_difference, recording  # noqa: E402
from musgd_torch import MuSGD  # noqa: E402
from optimizer_settings import DECAY, MOMENTUM, our_run, problem, relative_distances  # noqa: E402

from jaxsched import Recipe, compare, optimizers, recipes  # noqa: E402
from jaxsched.schedules import table  # noqa: E402
from jaxsched.torch import (  # noqa: E402
    assert_optimizer_matches,
    export_state,
    from_torch,
    import_state,
    record,
)

pytestmark = pytest.mark.torch

UPDATES = 50
# The iteration multiplies a small singular value by up to 3.4445^5, 485, and its rounding with it.
FLOAT64_BOUND = 1e-13
RATES = np.linspace(0.03, 0.003, 200)
FLAX = {"conv": (3, 3, 4, 8), "tall": (1, 1, 4, 24), "high": (5, 1, 2, 6), "dense": (6, 15)}
MATRICES = {"tall": (4, 24), "wide": (15, 6), "square": (5, 5), "embedding": (9, 4)}


@pytest.mark.parametrize("version", VERSIONS)
def test_the_class_that_is_written_anew_follows_the_recordings(version):
    arrays, meta = recording(version, "float32")
    names = leaves(arrays, "p0/", "torch")
    params = {name: torch.tensor(p) for name, p in names.items()}
    muon = [params[name] for name in meta["muon_parameters"]]
    rest = [p for name, p in params.items() if name not in meta["muon_parameters"]]
    optimizer = MuSGD(
        [
            {"params": muon, "use_muon": True, "weight_decay": meta["weight_decay"]},
            {"params": rest, "use_muon": False},
        ],
        nesterov=meta["nesterov"],
        muon=meta["muon"],
        sgd=meta["sgd"],
        iteration_dtype=torch.float32,
    )
    for i, (rates, momentum) in enumerate(zip(arrays["rates"], arrays["momenta"], strict=True)):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group |= {"lr": float(rate), "momentum": float(momentum)}
        for name, p in params.items():
            p.grad = torch.tensor(arrays[f"g/{i}/{name}"])
        optimizer.step()
        for name, p in params.items():
            assert max_difference(p, arrays[f"p/{i}/{name}"]) <= 1e-6


def to_torch(array):
    return array.transpose(*range(array.ndim - 1, array.ndim - 3, -1), *range(array.ndim - 2))


def torchs_path(factory, start, gradients, arguments):
    """Return the parameters after each update, in Flax's layout; leaves called embedding have torch's."""

    def turn(leaf, array):
        return array if leaf == "embedding" else to_torch(array)

    def turn_back(leaf, array):
        return array if leaf == "embedding" else array.transpose(*range(2, array.ndim), 1, 0)

    params = {leaf: torch.tensor(turn(leaf, value).copy()) for leaf, value in start.items()}
    optimizer, rows = factory(params.values()), []
    for i in range(UPDATES):
        optimizer.param_groups[0] |= {
            name: float(value[i]) if isinstance(value, np.ndarray) else value
            for name, value in arguments.items()
        }
        for leaf, p in params.items():
            p.grad = torch.tensor(turn(leaf, gradients[leaf][i]).copy())
        optimizer.step()
        rows.append({leaf: turn_back(leaf, p.numpy().copy()) for leaf, p in params.items()})
    return jax.tree.map(lambda *row: np.stack(row), *rows)


def ours_path(rule, start, gradients, **arguments):
    numbers = {k: table(v) if isinstance(v, np.ndarray) else v for k, v in arguments.items()}
    run = our_run(rule(**numbers), start, gradients)
    return {leaf: values[:UPDATES] for leaf, values in run.params.items()}


def max_distance(mine, theirs):
    return max(relative_distances(mine[leaf], theirs[leaf]).max() for leaf in theirs)


MUSGD = {
    "nesterov": {"momentum": MOMENTUM, "weight_decay": DECAY, "nesterov": True},
    "plain": {"momentum": 0.9, "weight_decay": 0.0, "nesterov": False},
}


@pytest.mark.parametrize("setting", MUSGD)
def test_musgd_in_float64(setting):
    start, gradients = problem(FLAX, np.float64)
    arguments = {"use_muon": True, **MUSGD[setting]}
    theirs = torchs_path(
        lambda params: MuSGD(params, muon=0.2, sgd=1.0, iteration_dtype=torch.float64),
        start,
        gradients,
        {"lr": RATES, **arguments},
    )
    shares = {"learning_rate": RATES, "muon": 0.2, "sgd": 1.0, "iteration_dtype": jnp.float64}
    with jax.enable_x64(True):
        mine = ours_path(optimizers.musgd, start, gradients, **shares, **arguments)
    assert max_distance(mine, theirs) <= FLOAT64_BOUND


MUON = {
    "defaults": {"weight_decay": 0.1},
    "other": {"momentum": MOMENTUM, "nesterov": False, "adjust_lr_fn": "match_rms_adamw"},
}
WRONG_MUON = {
    "not transposed": ({"layout": "torch"}, ("tall", "wide")),
    "no decay": ({"weight_decay": 0.0}, ("tall", "wide", "square", "embedding")),
    "another factor": ({"adjust_lr_fn": "match_rms_adamw"}, ("tall", "square", "embedding")),
    "four steps": ({"ns_steps": 4}, ("tall", "wide", "square", "embedding")),
}


@pytest.fixture
def unrounded_muon(monkeypatch):
    """Remove the cast to bfloat16 from torch.optim.Muon, which divides the copy in place."""
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)


@pytest.mark.parametrize("setting", long_after(1, MUON))
def test_muon_with_the_iteration_in_float32(setting, unrounded_muon):
    start, gradients = problem(MATRICES, np.float32)
    arguments = MUON[setting]
    theirs = torchs_path(torch.optim.Muon, start, gradients, {"lr": RATES, **arguments})
    how = {"learning_rate": RATES, "iteration_dtype": jnp.float32}
    mine = ours_path(optimizers.muon, start, gradients, **how, **arguments)
    assert max(max_difference(mine[leaf], theirs[leaf]) for leaf in theirs) <= MUSGD_FLOAT32_BOUND


def test_muon_in_float64_and_its_mistakes(unrounded_muon):
    start, gradients = problem(MATRICES, np.float64)
    theirs = torchs_path(torch.optim.Muon, start, gradients, {"lr": RATES})
    how = {"learning_rate": RATES, "iteration_dtype": jnp.float64}
    with jax.enable_x64(True):
        mine = ours_path(optimizers.muon, start, gradients, **how)
        assert max_distance(mine, theirs) <= FLOAT64_BOUND
        for mistake, (changed, seen_in) in WRONG_MUON.items():
            wrong = ours_path(optimizers.muon, start, gradients, **how, **changed)
            for leaf in seen_in:
                assert max_difference(wrong[leaf], theirs[leaf]) > 100 * MUSGD_FLOAT32_BOUND, (
                    f"{mistake}, {leaf}"
                )


# --- a live MuSGD ---

KEYS = ("weight", "norm", "bias", "muon")


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 8, 3)
        self.norm = torch.nn.BatchNorm2d(8)
        self.head = torch.nn.Linear(8, 5)
        self.scales = torch.nn.Parameter(torch.ones(2, 3, 4))


GROUPS = {
    "weight": ["scales"],
    "norm": ["norm.weight"],
    "bias": ["conv.bias", "norm.bias", "head.bias"],
    "muon": ["conv.weight", "head.weight"],
}


def live():
    """A model and its optimizer, with the groups' keys as Ultralytics writes them."""
    torch.manual_seed(0)
    model = Net()
    named = dict(model.named_parameters())
    more = {"weight": {"weight_decay": 5e-4}, "muon": {"weight_decay": 5e-4, "use_muon": True}}
    groups = [
        {
            "params": [(name, named[name]) for name in names],
            "lr": 0.03 if label == "muon" else 0.01,
            "momentum": 0.9,
            "nesterov": True,
            "param_group": label,
            **more.get(label, {}),
        }
        for label, names in GROUPS.items()
    ]
    return model, MuSGD(groups, muon=0.2, sgd=1.0, iteration_dtype=torch.float32)


def step(model, optimizer, seed):
    generator = torch.Generator().manual_seed(seed)
    gradients = {}
    for name, p in model.named_parameters():
        p.grad = torch.randn(p.shape, generator=generator)
        gradients[name] = p.grad.numpy().copy()
    optimizer.step()
    return gradients


def test_from_torch_knows_the_class_by_its_name():
    _, optimizer = live()
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda epoch: 0.5**epoch)
    recipe = from_torch(optimizer, scheduler, steps_per_epoch=2, labels=KEYS, iterations=6)
    assert recipe.update_rule is optimizers.musgd
    shared = {"momentum": 0.9, "nesterov": True}
    expected = {
        "weight": {**shared, "weight_decay": 5e-4, "use_muon": False},
        "norm": {**shared, "weight_decay": 0, "use_muon": False},
        "bias": {**shared, "weight_decay": 0, "use_muon": False},
        "muon": {**shared, "weight_decay": 5e-4, "use_muon": True, "muon": 0.2, "sgd": 1.0},
    }
    groups = {label: dict(group) for label, group in recipe.groups.items()}
    rates = {label: group.pop("learning_rate") for label, group in groups.items()}
    assert groups == expected
    assert [float(rates["muon"](i)) for i in range(5)] == pytest.approx(
        [0.03, 0.03, 0.015, 0.015, 0.0075]
    )


def test_a_recording_equals_the_recipe():
    model, optimizer = live()
    with record(optimizer, KEYS) as recording:
        for i in range(3):
            optimizer.param_groups[3]["lr"] = 0.03 / (1 + i)
            step(model, optimizer, i)
    trace = recording.trace
    assert trace.update_rule == "musgd"
    assert trace.groups["muon"]["muon"].tolist() == [0.2] * 3
    assert "muon" not in trace.groups["bias"]
    assert trace.switches["muon"] == {"nesterov": True, "use_muon": True}
    groups = {
        label: dict(group) for label, group in from_torch(live()[1], labels=KEYS).groups.items()
    }
    groups["muon"]["learning_rate"] = lambda i: 0.03 / (1 + i)
    assert compare(Recipe(groups, optimizers.musgd), trace)
    groups["muon"]["muon"] = 0.5
    assert not compare(Recipe(groups, optimizers.musgd), trace)
    assert Recipe.from_trace(trace).groups["muon"]["sgd"] == 1.0


def test_ratios_that_no_update_uses_are_neither_stated_nor_compared():
    same = from_torch(live()[1], labels=KEYS)
    groups = {label: {**group, "muon": 0.2, "sgd": 1.0} for label, group in same.groups.items()}
    stated = Recipe(groups, optimizers.musgd)
    assert compare(same, stated, iterations=2)
    assert compare(stated, same, iterations=2)
    assert [label for label, group in stated.at(0).items() if "sgd" in group] == ["muon"]
    groups["muon"]["sgd"] = 0.5
    assert not compare(same, Recipe(groups, optimizers.musgd), iterations=2)
    musgd = recipes.ultralytics(epochs=3, steps_per_epoch=4, optimizer="MuSGD")
    assert [k for k, group in musgd.groups.items() if "muon" in group] == ["muon", "muon_head"]


class Lookalike(torch.optim.SGD):
    pass


@pytest.mark.parametrize("name", ["MuSGD", "Other"])
def test_another_class_is_not_taken_for_it(name):
    other = type(name, (Lookalike if name == "MuSGD" else MuSGD,), {})
    with pytest.raises(ValueError, match=rf"or Ultralytics' MuSGD, got .*{name}\. Record its run"):
        from_torch(other([torch.ones(2, 2)], lr=0.1))


def flax_params(model):
    """Return the parameters in Flax's layout, by path."""
    named = {name: p.detach().numpy() for name, p in model.named_parameters()}
    kernels = {
        name: array.transpose(*range(2, array.ndim), 1, 0)
        for name, array in named.items()
        if array.ndim in (2, 4)
    }
    return {
        "conv": {"kernel": kernels["conv.weight"], "bias": named["conv.bias"]},
        "norm": {"scale": named["norm.weight"], "bias": named["norm.bias"]},
        "head": {"kernel": kernels["head.weight"], "bias": named["head.bias"]},
        "scales": named["scales"],
    }


LABELS = {
    "conv": {"kernel": "muon", "bias": "bias"},
    "norm": {"scale": "norm", "bias": "bias"},
    "head": {"kernel": "muon", "bias": "bias"},
    "scales": "weight",
}


def test_the_state_is_carried_there_and_back():
    """3 updates in torch, 3 here and 3 in torch again equal 9 updates in torch."""
    model, optimizer = live()
    recipe = from_torch(optimizer, labels=KEYS)
    groups = {
        label: {**group, "iteration_dtype": jnp.float32} for label, group in recipe.groups.items()
    }
    tx = Recipe(groups, optimizers.musgd).optimizer(LABELS)
    for i in range(3):
        step(model, optimizer, i)
    params = jax.tree.map(jnp.asarray, flax_params(model))
    state = import_state(optimizer.state_dict(), tx, params, iteration=3)
    update = jax.jit(tx.update)
    for i in range(3, 6):
        gradients = step(model, optimizer, i)
        shadow = Net()
        for name, p in shadow.named_parameters():
            p.data = torch.tensor(gradients[name])
        updates, state = update(flax_params(shadow), state, params)
        params = optax.apply_updates(params, updates)
    theirs = flax_params(model)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), params, theirs)
    exported = export_state(state, params, like=live()[1].state_dict())
    expected = optimizer.state_dict()["state"]
    assert exported["state"].keys() == expected.keys()
    for number, entry in expected.items():
        assert exported["state"][number].keys() == entry.keys()
        for name, value in entry.items():
            bound = FLOAT32_BOUND * 2**-23 * value.abs().max().item()
            torch.testing.assert_close(exported["state"][number][name], value, atol=bound, rtol=0)
    again = MuSGD([{**group, "params": list(group["params"])} for group in optimizer.param_groups])
    again.load_state_dict(exported)


def test_a_state_without_its_second_buffer_is_refused():
    model, optimizer = live()
    step(model, optimizer, 0)
    state = optimizer.state_dict()
    for entry in state["state"].values():
        entry.pop("momentum_buffer_SGD", None)
    tx = from_torch(optimizer, labels=KEYS, start=1).optimizer(LABELS)
    sentence = "must hold momentum_buffer, momentum_buffer_SGD, got momentum_buffer."
    with pytest.raises(ValueError, match=re.escape(sentence)):
        import_state(state, tx, flax_params(model))


def test_a_thawed_matrix_joins_a_group_that_has_made_updates():
    params = {"stem": jnp.ones((3, 4)), "head": jnp.ones((4, 3))}
    tx = optimizers.musgd(0.1, 0.9, use_muon=True)
    frozen = optax.masked(tx, {"stem": False, "head": True})
    _, state = frozen.update(params, frozen.init(params), params)
    thawed = optax.masked(tx, {"stem": True, "head": True})
    trees = optimizers.carry_state(state, thawed, params).inner_state.trees
    for tree in trees.values():
        assert not np.any(tree["stem"])
        assert np.all(np.asarray(tree["head"]) > 0)


def test_side_by_side():
    params = {"a": np.ones((4, 3)), "b": np.eye(3)}

    def factory(parameters):
        how = {"muon": 0.2, "sgd": 1.0, "iteration_dtype": torch.float64}
        return MuSGD(parameters.values(), 0.02, 0.9, use_muon=True, **how)

    how = {
        "use_muon": True,
        "muon": 0.2,
        "sgd": 1.0,
        "layout": "torch",
        "iteration_dtype": "float64",
    }
    arguments = {"params": params, "updates": 5, "bound": 1e-12}
    with jax.enable_x64(True):
        tx = optimizers.musgd(0.02, 0.9, **how)
    assert_optimizer_matches(tx, factory, **arguments)
    with jax.enable_x64(True):
        wrong = optimizers.musgd(0.02, 0.9, **{**how, "layout": "flax"})
    with pytest.raises(AssertionError, match="the two differ at update 0: parameter of a"):
        assert_optimizer_matches(wrong, factory, **arguments)
