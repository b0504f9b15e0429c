"""The detector trains by YOLOv5's recipe, and on eight devices as on one.

Run as a script, on eight devices, this file prints their distance from one device.
"""

import contextlib
import itertools
import json
import os
import subprocess
import sys
import unittest.mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import jaxsched
from jaxsched import recipes
from jaxsched.examples import boxes, shapes, train_yolov5
from jaxsched.examples.detector import Detector
from jaxsched.examples.shapes import Shapes
from jaxsched.flax import by_module
from jaxsched.param_groups import leaf_path

pytestmark = [
    pytest.mark.long,
    pytest.mark.filterwarnings("error:'.value' access is now deprecated:DeprecationWarning"),
]

ITERATIONS = 50  # of a warm-up of 120: an update at every batch first, then at every second one
DEVICES = 8
# Relative to a leaf's largest entry, in float64: errors of sums in another order, which grow to 1e-9
# in five updates at the full rate through BatchNorms. In float32 they would hide any difference.
BOUND = 1e-8


@pytest.fixture(scope="module", autouse=True)
def eight_devices():
    """``report`` in a process with eight CPU devices; it runs beside the other tests."""
    flags = {
        "XLA_FLAGS": f"--xla_force_host_platform_device_count={DEVICES}",
        "JAX_PLATFORMS": "cpu",
    }
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, __file__], env=os.environ | flags, **pipes) as process:
        yield process
        process.kill()


@pytest.fixture(scope="module")
def recipe():
    return recipes.yolov5(epochs=30, steps_per_epoch=shapes.STEPS_PER_EPOCH, batch_size=16)


@contextlib.contextmanager
def count_traces():
    """Yield a list that gets an entry whenever JAX traces the step."""
    traces, loss = [], boxes.loss

    def count(*given):
        traces.append("step")
        return loss(*given)

    with unittest.mock.patch.object(boxes, "loss", count):
        yield traces


@pytest.fixture(scope="module")
def data():
    return shapes.load()


@pytest.fixture(scope="module")
def training(recipe, data):
    model, optimizer = train_yolov5.create(recipe)
    batches = itertools.islice(shapes.batches(data[0], 2), ITERATIONS)
    with count_traces() as traces:
        run = list(train_yolov5.train(model, optimizer, batches))
    assert len(traces) <= 1  # other tests may have compiled the step
    return model, optimizer, run


def test_the_loss_falls(training):
    losses = [row.loss for row in training[2]]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


def test_it_prints_the_picture_and_the_parity(training, monkeypatch, capsys, tmp_path):
    model, optimizer, run = training
    monkeypatch.setattr(train_yolov5, "create", lambda recipe: (model, optimizer))
    monkeypatch.setattr(train_yolov5, "train", lambda *given: run)
    train_yolov5.main(str(tmp_path))
    *_, wrote, parity, omission = capsys.readouterr().out.splitlines()
    assert wrote == f"wrote {tmp_path / 'boxes.png'}"
    assert parity.startswith(f"parity: {ITERATIONS} iterations × 3 groups × ")
    assert parity.endswith(": 0 ULP")
    assert omission.startswith("not compared, only on one side: ")


def test_the_hyperparameters_in_the_state_equal_the_recipe(training, recipe):
    run = training[2]
    report = train_yolov5.check_state(run, recipe)
    assert report, str(report)
    assert {q.name for q in report.quantities} >= {"learning_rate", "stepped", "ema_updates"}
    stepped = [row.run["stepped"] for row in run]
    assert 0 < sum(stepped) < ITERATIONS
    assert run[-1].run["ema_updates"] == recipe.trace(ITERATIONS).run["ema_updates"][-1]


@pytest.mark.parametrize("batch_size", [10, 64])
def test_another_recipe_is_detected(training, batch_size):
    other = recipes.yolov5(epochs=30, steps_per_epoch=shapes.STEPS_PER_EPOCH, batch_size=batch_size)
    assert not train_yolov5.check_state(training[2], other)


def test_the_network_of_the_average_is_another(training):
    model, optimizer, _ = training
    average = train_yolov5.average_model(model, optimizer)
    for kind in train_yolov5.VARIABLES:
        new, old = (jax.tree.leaves(nnx.state(m, kind)) for m in (average, model))
        assert len(new) == len(old)
        assert any((a != b).any() for a, b in zip(new, old, strict=True))


def test_a_recipe_without_an_average_is_refused():
    with pytest.raises(ValueError, match="recipe must keep an average, got ema=None"):
        train_yolov5.create(jaxsched.Recipe({"weight": {"learning_rate": 0.1}}))


def test_groups_are_those_of_the_modules():
    model = Detector(rngs=nnx.Rngs(0))
    labels = jaxsched.param_groups.by_leaf_name(nnx.state(model, nnx.Param))
    assert jax.tree.leaves(labels) == jax.tree.leaves(by_module(model))


def test_eight_devices_agree_with_one(eight_devices):
    out, error = eight_devices.communicate()
    assert eight_devices.returncode == 0, error
    results = json.loads(out.splitlines()[-1])
    assert results["stepped"] == [1.0, 0.0, 0.0, 0.0] * 5
    assert results["traces"] <= 2  # for one device, for eight
    assert results["far"] <= BOUND
    assert results["far_where_a_device_repeats_another"] > 1e6 * BOUND


def run_batches(batches, state, devices):
    """Return the iterations of updates, and all arrays of the run after ``batches``."""
    mesh = Mesh(np.array(jax.devices()[:devices]), ("data",))
    whole, split = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in ((), ("data",)))
    state = nnx.clone(state)
    nnx.update(state, jax.device_put(nnx.state(state), whole))
    run = train_yolov5.train(*state, (jax.device_put(batch, split) for batch in batches))
    stepped = [row.run["stepped"] for row in run]
    leaves = jax.device_get(jax.tree.leaves(nnx.state(state)))
    return stepped, [leaf.astype(np.float64) for leaf in leaves]


def float64_detector():
    """Return a network initialised by NumPy, because compiling Flax's initialisation takes ten seconds."""
    rng = np.random.default_rng(0)
    graph, empty = nnx.split(nnx.eval_shape(lambda: Detector(rngs=nnx.Rngs(0))))

    def fill(keys, leaf):
        value = {"scale": 1.0, "var": 1.0, "bias": 0.0, "mean": 0.0}.get(leaf_path(keys)[-1])
        if value is None:
            value = rng.normal(0, (3 * np.prod(leaf.shape[:-1])) ** -0.5, leaf.shape)
        return jnp.asarray(np.broadcast_to(value, leaf.shape))

    return nnx.merge(graph, jax.tree_util.tree_map_with_path(fill, empty))


def report():
    jax.config.update("jax_enable_x64", True)
    drawn = shapes.draw(20 * DEVICES)  # one image for each device, which is faster
    drawn = [a.astype(np.float64) if a.dtype == np.float32 else a for a in drawn]
    batches = [Shapes(*rows) for rows in zip(*(np.split(a, 20) for a in drawn), strict=True)]
    repeated = [Shapes(*(np.concatenate([a[:-1], a[:1]]) for a in batch)) for batch in batches]

    model = float64_detector()
    recipe = recipes.yolov5(
        epochs=10, steps_per_epoch=40, start_epoch=4, hyp={"warmup_epochs": 0.0}
    )
    state = model, train_yolov5.Optimizer(model, recipe)
    with count_traces() as traces:
        stepped, one = run_batches(batches, state, 1)
        _, eight = run_batches(batches, state, DEVICES)
    _, wrong = run_batches(repeated, state, 1)

    def max_distance(a, b):
        pairs = zip(a, b, strict=True)
        return max(float(abs(x - y).max() / max(abs(y).max(), 1e-300)) for x, y in pairs)

    results = {
        "stepped": stepped,
        "traces": len(traces),
        "far": max_distance(eight, one),
        "far_where_a_device_repeats_another": max_distance(wrong, one),
    }
    print(json.dumps(results))


if __name__ == "__main__":
    report()
