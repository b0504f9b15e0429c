"""Several devices and processes: equal hyperparameters, no gathers, the state sharded as its parameters.

Run as a script, this file prints its results: on eight devices, or as one of two processes.
"""

import json
import os
import re
import socket
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

import jaxsched
from jaxsched import Recipe, cli, optimizers, param_groups, recipes
from jaxsched.examples import digits, meshes, train_nnx

pytestmark = pytest.mark.long

ITERATIONS = 12
BATCH = digits.BATCH
RUN = {
    "epochs": 4,
    "steps_per_epoch": 10,
    "warmup_iterations": 6,
    "lr0": 1e-3,
    "warmup_bias_lr": 1e-2,
}


AXES = ["explicit", "automatic"]


def start(argument, devices, **flags):
    flags |= {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
        "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_X64": "1",
    }
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, __file__, argument], env=os.environ | flags, **pipes)


def result_of(process):
    out, error = process.communicate()
    assert process.returncode == 0, error
    return json.loads(out.splitlines()[-1])


@pytest.fixture(scope="module", autouse=True)
def processes():
    """Start one process with eight devices, and two with two each; they run beside the other tests."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    both = {"JAX_COORDINATOR_ADDRESS": address, "JAX_NUM_PROCESSES": "2"}
    started = [
        start("devices", 8),
        *(start("processes", 2, **both, JAX_PROCESS_ID=str(k)) for k in range(2)),
    ]
    yield started
    for process in started:
        process.kill()


@pytest.fixture(scope="module")
def eight_devices(processes):
    return result_of(processes[0])


@pytest.fixture(scope="module")
def two_processes(processes):
    return [result_of(process) for process in processes[1:]]


@pytest.fixture(scope="module")
def one_device():
    with jax.enable_x64(True):
        return train(None)


# Relative to a leaf's largest entry, in float64: sums over the batch have another order.
BOUND = 1e-12


def max_distance(mine, theirs):
    pairs = zip(mine, theirs, strict=True)
    return max(np.abs(np.subtract(a, b)).max() / np.abs(b).max() for a, b in pairs)


@pytest.mark.parametrize("mesh", ["data=8", "fsdp=8", "data=2,fsdp=4"])
def test_training_on_eight_devices_equals_training_on_one(mesh, eight_devices, one_device):
    result = eight_devices[mesh]
    assert result["rates"] == one_device["rates"]
    assert max_distance(result["learnt"], one_device["learnt"]) <= BOUND


def test_a_share_computed_twice_is_detected(eight_devices, one_device):
    assert (
        max_distance(eight_devices["data=8, a share twice"]["learnt"], one_device["learnt"])
        > 1e6 * BOUND
    )


def test_training_in_two_processes_equals_training_in_one(two_processes, one_device):
    for result in two_processes:
        assert result["devices"] == [4, 2]  # all devices, and those of this process
        for mesh in ("data=4", "fsdp=4"):
            assert result[mesh]["rates"] == one_device["rates"]
            assert max_distance(result[mesh]["learnt"], one_device["learnt"]) <= BOUND


@pytest.mark.parametrize("mesh", ["data=8", "fsdp=8"])
def test_every_device_holds_the_same_hyperparameters(mesh, eight_devices):
    assert eight_devices["update"][mesh]["copies"] == 8
    assert eight_devices["update"][mesh]["different"] == 0


@pytest.mark.parametrize("mesh", ["data=8", "fsdp=8"])
def test_the_state_has_the_sharding_of_its_parameters(mesh, eight_devices):
    assert eight_devices["update"][mesh]["strays"] == []


def test_the_update_gathers_nothing(eight_devices):
    update = eight_devices["update"]["fsdp=8"]
    assert update["gathers"] == []
    assert update["largest array"] == 64 * 32 // 8
    assert update["largest array without a mesh"] == 64 * 32
    assert eight_devices["update"]["gathers where they are"]


@pytest.mark.parametrize("axes", AXES)
def test_every_rule_and_recipe_runs_on_either_kind_of_axes(axes, eight_devices):
    for name, result in eight_devices["axes"].items():
        # Products of Muon's are rounded to bfloat16, after sums in another order.
        bound = 0.1 if name in MATRICES else BOUND
        assert max_distance(result[axes]["values"], result["None"]["values"]) <= bound, name
        assert result[axes]["strays"] == [], name


REFUSED = [
    ("model=2", "mesh must be data=N, fsdp=N or data=N,fsdp=N with N at least 1, got model=2"),
    ("data=0", "mesh must be data=N, fsdp=N or data=N,fsdp=N with N at least 1, got data=0"),
    ("data", "mesh must be data=N, fsdp=N or data=N,fsdp=N with N at least 1, got data"),
    ("data=2,data=2", "mesh must be data=N, fsdp=N or data=N,fsdp=N with N at least 1, got data=2,data=2"),
    ("data=4096", "mesh must take at most the {n} devices that there are, got 4096."),
]  # fmt: skip


@pytest.mark.parametrize(("text", "sentence"), REFUSED, ids=[text for text, _ in REFUSED])
def test_an_impossible_mesh_is_refused(text, sentence, tmp_path, capsys):
    assert cli.main(["train", "--mesh", text, "--out", str(tmp_path)]) == 2
    assert sentence.format(n=jax.device_count()) in capsys.readouterr().err


def test_distributed_without_other_processes_is_refused(tmp_path, capsys):
    assert cli.main(["train", "--distributed", "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert "distributed must know the other processes: " in error
    assert error.count("\n") == 1


LAYOUTS = [
    ("data=8", 20, 4, 1),
    ("data=8", 16, 8, 1),
    ("data=8", 7, 1, 1),
    ("fsdp=8", 20, 4, 8),
    ("data=2,fsdp=4", 20, 4, 4),
    ("data=2,fsdp=3", 10, 2, 3),
    ("data=3,fsdp=2", 15, 3, 2),
]


@pytest.mark.parametrize(("text", "batch", "shares", "split"), LAYOUTS)
def test_the_batch_is_divided_by_a_factor_of_the_devices(text, batch, shares, split, monkeypatch):
    devices = np.array([jax.devices()[0]] * 8, object)
    monkeypatch.setattr(jax, "device_count", lambda: 8)
    monkeypatch.setattr(jax, "devices", lambda: list(devices))
    monkeypatch.setattr(
        meshes, "Mesh", lambda grid, axes: Grid(dict(zip(axes, grid.shape, strict=True)))
    )
    where = meshes.layout(text, batch_size=batch)
    assert meshes.shares(where) == shares
    assert np.prod([where.mesh.shape[axis] for axis in where.model]) == split


class Grid:
    def __init__(self, shape):
        self.shape = shape


class Net(nnx.Module):
    """Replacement of the ResNet: a convolution, a BatchNorm, a head."""

    def __init__(self, *, rngs):
        self.conv = nnx.Conv(
            3, 8, (3, 3), 2, use_bias=False, rngs=rngs, param_dtype=jnp.float64
        )  # the gradient of a bias before a BatchNorm consists of rounding errors
        self.bn = nnx.BatchNorm(8, rngs=rngs, param_dtype=jnp.float64)
        self.fc = nnx.Linear(8, 10, rngs=rngs, param_dtype=jnp.float64)

    def __call__(self, x):
        return self.fc(nnx.relu(self.bn(self.conv(x))).mean((1, 2)))


def train(mesh, twice=False):
    """Train by the loop of ``train_nnx``, on a mesh or without one."""
    recipe = recipes.yolov5_resnet18(**RUN)
    model = Net(rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, recipe.optimizer(param_groups.by_dotted_name), wrt=nnx.Param)
    rng = np.random.default_rng(0)
    batches = [
        digits.Digits(rng.standard_normal((BATCH, 8, 8, 3)), rng.integers(0, 10, BATCH))
        for _ in range(ITERATIONS)
    ]
    if twice:
        half = BATCH // 2
        batches = [digits.Digits(*(np.concatenate([a[:half]] * 2) for a in b)) for b in batches]
    where = None if mesh is None else meshes.layout(mesh, batch_size=BATCH)
    if where is not None:
        nnx.update((model, optimizer), meshes.place(nnx.state((model, optimizer)), where))
        batches = meshes.spread(batches, where)
    rows = list(train_nnx.train(model, optimizer, batches))
    learnt = nnx.state(model, (nnx.Param, nnx.BatchStat))
    if where is not None:
        learnt = meshes.whole(learnt, where)
    rates = [[float(v) for v in jax.tree.leaves(row.hyperparameters)] for row in rows]
    assert rates == [
        [float(v[k]) for v in jax.tree.leaves(recipe.trace(ITERATIONS).groups)]
        for k in range(ITERATIONS)
    ]
    return {
        "losses": [row.loss for row in rows],
        "rates": rates,
        "learnt": [np.asarray(leaf).tolist() for leaf in jax.tree.leaves(learnt)],
    }


def update_on_mesh(mesh):
    """Return the shardings of one jitted update on a mesh, and its collectives."""
    where = meshes.layout(mesh, batch_size=8)
    params = meshes.place({"kernel": np.ones((64, 32)), "bias": np.ones(32)}, where)
    recipe = Recipe(
        {label: {"learning_rate": lambda i: 0.1 / (1 + i)} for label in ("weight", "bias")},
        optimizers.adamw,
        clip_norm=1.0,
        accumulation=optimizers.Accumulation(lambda i: 2 + 0 * i),
    )
    tx = recipe.optimizer(param_groups.by_leaf_name)
    state = meshes.place(tx.init(params), where)
    update = jax.jit(tx.update)
    compiled = update.lower(params, state, params).compile().as_text()
    for _ in range(3):
        moves, state = update(params, state, params)
        params = optax.apply_updates(params, moves)
    leaves = [*jax.tree.leaves(state), *jax.tree.leaves(moves)]
    place = {p.shape: p.sharding for p in jax.tree.leaves(params)}
    hyperparameters = jax.tree.leaves(jaxsched.hyperparameters(state))
    copies = [
        [float(shard.data) for shard in value.addressable_shards] for value in hyperparameters
    ]
    return compiled, {
        "strays": [
            f"{leaf.shape} {leaf.sharding}"
            for leaf in leaves
            if leaf.shape in place
            and not leaf.sharding.is_equivalent_to(place[leaf.shape], leaf.ndim)
        ],
        "gathers": gathers(compiled),
        "largest array": largest(compiled),
        "copies": min(map(len, copies)),
        "different": sum(len(set(values)) - 1 for values in copies),
    }


RULES = [
    *("adadelta", "adafactor", "adagrad", "adam", "adamax", "adamw", "asgd", "muon", "musgd"),
    *("nadam", "radam", "rmsprop", "rprop", "sgd"),
]
# Rules that take matrices alone, with their arguments.
MATRICES = {"muon": {}, "musgd": {"use_muon": True, "momentum": 0.9, "weight_decay": 0.1}}
RECIPES = {
    "yolov5": lambda: recipes.yolov5(epochs=3, steps_per_epoch=10),
    "ultralytics": lambda: recipes.ultralytics(epochs=3, steps_per_epoch=10),
    "yolov5_resnet18": lambda: recipes.yolov5_resnet18(**RUN),
}


def recipe_of(name):
    if name in RECIPES:
        return RECIPES[name]()
    group = {"learning_rate": lambda i: 0.1 / (1 + i), **MATRICES.get(name, {})}
    return Recipe(
        {"weight": group},
        getattr(optimizers, name),
        clip_norm=1.0,
        accumulation=optimizers.Accumulation(lambda i: 2 + 0 * i),
        ema=optimizers.EMA(),
    )


def update_on_axes(name, axes):
    if axes is None:
        return update_with(name, None)
    kind = jax.sharding.AxisType.Explicit if axes == "explicit" else jax.sharding.AxisType.Auto
    mesh = jax.make_mesh((8,), ("x",), axis_types=(kind,))
    with jax.set_mesh(mesh):
        return update_with(name, jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("x")))


def update_with(name, sharding):
    """Run four batches of a recipe; return also the state that is not sharded as its parameter."""
    rng = np.random.default_rng(0)
    shapes = {"kernel": (16, 8), "bias" if name in RECIPES else "vector": (16,)}
    shapes |= {"window": (8, 1, 4, 6)} if name == "musgd" else {}
    params = {
        leaf: jax.device_put(rng.normal(size=shape), sharding)
        for leaf, shape in shapes.items()
        if name not in MATRICES or leaf != "vector"
    }
    recipe = recipe_of(name)
    tx, ema = recipe.optimizer(param_groups.by_leaf_name), recipe.ema or optimizers.EMA()

    def step(carry, _):
        params, state, average = carry
        gradients = jax.grad(lambda p: sum(jnp.sum(jnp.sin(v)) for v in p.values()))(params)
        moves, state = tx.update(gradients, state, params)
        params = optax.apply_updates(params, moves)
        return (params, state, ema.update(average, params, optimizers.stepped(state))), None

    @jax.jit
    def run(params):
        return jax.lax.scan(step, (params, tx.init(params), ema.init(params)), length=4)[0]

    carry = run(params)
    place = {p.shape: p.sharding for p in params.values()}
    return {
        "values": [np.asarray(leaf).tolist() for leaf in jax.tree.leaves((carry[0], carry[2]))],
        "strays": [
            f"{leaf.shape} {leaf.sharding}"
            for leaf in jax.tree.leaves(carry)
            if leaf.shape in place
            and not leaf.sharding.is_equivalent_to(place[leaf.shape], leaf.ndim)
        ],
    }


def gathers(compiled):
    return [
        line for line in compiled.splitlines() if " all-gather" in line or " all-to-all" in line
    ]


def largest(compiled):
    shapes = re.findall(r"f(?:32|64)\[([\d,]*)\]", compiled)
    return max(int(np.prod([int(n) for n in shape.split(",") if n])) for shape in shapes)


def run_devices():
    results = {mesh: train(mesh) for mesh in ("data=8", "fsdp=8", "data=2,fsdp=4")}
    results["data=8, a share twice"] = train("data=8", twice=True)
    results["update"] = {mesh: update_on_mesh(mesh)[1] for mesh in ("data=8", "fsdp=8")}
    results["update"]["fsdp=8"]["largest array without a mesh"] = largest(
        update_on_mesh("data=1")[0]
    )
    where = meshes.layout("fsdp=8", batch_size=8)
    x = meshes.place(np.ones((64, 32)), where)
    gathering = jax.jit(lambda x: x @ x.T).lower(x).compile().as_text()
    results["update"]["gathers where they are"] = gathers(gathering)
    results["axes"] = {
        name: {str(axes): update_on_axes(name, axes) for axes in (None, *AXES)}
        for name in (*RULES, *RECIPES)
    }
    return results


def run_processes():
    meshes.join()
    results = {mesh: train(mesh) for mesh in ("data=4", "fsdp=4")}
    return {**results, "devices": [jax.device_count(), jax.local_device_count()]}


if __name__ == "__main__":
    print(json.dumps({"devices": run_devices, "processes": run_processes}[sys.argv[1]]()))
