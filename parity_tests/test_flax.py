"""Labels by module, and the recipe under nnx.Optimizer and TrainState."""

import json
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from conftest import DATA
from flax import linen as nn
from flax import nnx
from flax.training.train_state import TrainState

import jaxsched
from jaxsched import param_groups
from jaxsched.examples import resnet, resnet_linen
from jaxsched.flax import by_module
from jaxsched.param_groups import by_dotted_name, by_leaf_name, leaf_path, torch_name
from jaxsched.recipes import yolov5_resnet18

IMAGES = jax.ShapeDtypeStruct((1, 16, 16, 3), jnp.float32)
FEATURES = jnp.ones((2, 4))


@pytest.fixture(scope="module")
def nnx_net():
    return nnx.eval_shape(lambda: resnet.ResNet18(10, rngs=nnx.Rngs(0)))


@pytest.fixture(scope="module")
def nets(nnx_net):
    """Each network's parameters and its labels by module."""
    linen = resnet_linen.ResNet18(10)
    shapes = jax.eval_shape(linen.init, jax.random.key(0), IMAGES)
    return {
        "nnx": (nnx.state(nnx_net, nnx.Param), by_module(nnx_net)),
        "linen": (shapes["params"], by_module(linen, IMAGES)),
    }


def labels_by_torch_name(params, labels):
    leaves = jax.tree_util.tree_leaves_with_path(params)
    names = [
        torch_name(leaf_path(keys)).replace("_0", ".0").replace("_1", ".1") for keys, _ in leaves
    ]
    fitted = jax.tree.leaves(param_groups.fit(labels, params))
    return dict(zip(names, fitted, strict=True))


@pytest.mark.parametrize("api", ["nnx", "linen"])
def test_resnet18_by_each_rule(api, nets):
    params, by_modules = nets[api]
    counts = {
        rule: Counter(jax.tree.leaves(param_groups.fit(labels, params)))
        for rule, labels in {
            "module": by_modules,
            "leaf": by_leaf_name,
            "name": by_dotted_name,
        }.items()
    }
    assert counts["module"] == {"norm": 20, "weight": 21, "bias": 21}
    assert counts["leaf"] == counts["module"]
    assert counts["name"] == {"norm": 16, "weight": 25, "bias": 21}


@pytest.mark.parametrize("api", ["nnx", "linen"])
def test_four_norms_differ_between_the_rules(api, nets):
    params, by_modules = nets[api]
    module, name = (
        labels_by_torch_name(params, by_modules),
        labels_by_torch_name(params, by_dotted_name),
    )
    differ = {n: (module[n], name[n]) for n in module if module[n] != name[n]}
    assert differ == dict.fromkeys(
        ["bn1.weight", *(f"layer{n}.0.downsample.1.weight" for n in (2, 3, 4))],
        ("norm", "weight"),
    )


class Scaled(nnx.Module):
    def __init__(self, norm, *, rngs):
        self.scale = nnx.Param(jnp.ones(4))
        self.inner = nnx.List([nnx.Linear(4, 4, rngs=rngs), norm])


class LinenScaled(nn.Module):
    norm: nn.Module

    @nn.compact
    def __call__(self, x, *, train):
        x = x * self.param("scale", nn.initializers.ones, (4,))
        x = nn.Dropout(0.5, deterministic=not train)(nn.Dense(4)(x))
        return self.norm(x)


NNX_NORMS = [
    lambda r: nnx.BatchNorm(4, rngs=r),
    lambda r: nnx.LayerNorm(4, rngs=r),
    lambda r: nnx.GroupNorm(4, num_groups=2, rngs=r),
    lambda r: nnx.RMSNorm(4, rngs=r),
    lambda r: nnx.InstanceNorm(4, rngs=r),
]
LINEN_NORMS = [
    lambda: nn.BatchNorm(use_running_average=False),
    nn.LayerNorm,
    lambda: nn.GroupNorm(num_groups=2),
    nn.RMSNorm,
]


@pytest.mark.parametrize("norm", NNX_NORMS)
def test_nnx_norms_and_a_scale_that_is_none(norm):
    rngs = nnx.Rngs(0)
    module = Scaled(norm(rngs), rngs=rngs)
    labels = {leaf_path(k): v for k, v in jax.tree_util.tree_leaves_with_path(by_module(module))}
    assert labels.pop(("inner", "1", "bias"), "bias") == "bias"
    assert labels == {
        ("scale",): "weight",
        ("inner", "0", "kernel"): "weight",
        ("inner", "0", "bias"): "bias",
        ("inner", "1", "scale"): "norm",
    }


@pytest.mark.parametrize("norm", LINEN_NORMS)
def test_linen_norms_and_a_scale_that_is_none(norm):
    labels = by_module(LinenScaled(norm()), FEATURES, train=True)
    norm_labels = labels.pop("norm")
    assert norm_labels.pop("bias", "bias") == "bias"
    assert norm_labels == {"scale": "norm"}
    assert labels == {"scale": "weight", "Dense_0": {"kernel": "weight", "bias": "bias"}}


def test_neither_api_is_refused():
    with pytest.raises(
        ValueError, match=r"^module must be an nnx.Module or a Linen module, got dict\.$"
    ):
        by_module({})
    with pytest.raises(ValueError, match=r"^sample inputs must go with a Linen module, got them"):
        by_module(nnx.Linear(1, 1, rngs=nnx.Rngs(0)), FEATURES)


class Net(nnx.Module):
    def __init__(self, rngs):
        self.fc, self.norm = nnx.Linear(4, 4, rngs=rngs), nnx.LayerNorm(4, rngs=rngs)

    def __call__(self, x):
        return self.norm(self.fc(x))


def run_nnx(recipe, n):
    """Return the hyperparameters after each of n steps, and how often the step was compiled."""
    model = Net(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, recipe.optimizer(by_module(model)), wrt=nnx.Param)
    compiled = []

    @nnx.jit
    def step(model, optimizer):
        compiled.append(1)
        optimizer.update(model, nnx.grad(lambda m: (m(FEATURES) ** 2).sum())(model))

    rows = []
    for _ in range(n):
        step(model, optimizer)
        rows.append(jax.device_get(jaxsched.hyperparameters(optimizer)))
    return rows, len(compiled)


def run_linen(recipe, n):
    model = nn.Sequential([nn.Dense(4), nn.LayerNorm()])
    params = model.init(jax.random.key(0), FEATURES)["params"]
    tx = optax.chain(optax.identity(), recipe.optimizer(by_module(model, FEATURES)))
    state = TrainState.create(apply_fn=model.apply, params=params, tx=tx)
    compiled = []

    @jax.jit
    def step(state):
        compiled.append(1)
        grads = jax.grad(lambda p: (state.apply_fn({"params": p}, FEATURES) ** 2).sum())
        return state.apply_gradients(grads=grads(state.params))

    rows = []
    for _ in range(n):
        state = step(state)
        rows.append(jax.device_get(jaxsched.hyperparameters(state)))
    return rows, len(compiled)


@pytest.mark.parametrize("run", [run_nnx, run_linen])
def test_a_thousand_iterations_one_compilation(run):
    rows, compilations = run(yolov5_resnet18(), 1000)
    trace, reference = jaxsched.Trace.stack(rows), jaxsched.recipes.recorded("yolov5_resnet18")
    report = jaxsched.compare(trace, reference.head(1000))
    assert report, report
    assert compilations == 1
    assert not jaxsched.compare(trace, shift_reference(reference))


def shift_reference(reference):
    """Return the reference one iteration late, which must differ."""
    groups = {
        label: {name: values[1:1001] for name, values in group.items()}
        for label, group in reference.groups.items()
    }
    return jaxsched.Trace(groups)


def test_names_of_the_network_equal_those_of_torch(nets):
    recorded = json.loads((DATA / "article_01_base.json").read_text())["groups"]
    names = {name for group in recorded for name in group["names"]}
    for params, labels in nets.values():
        assert set(labels_by_torch_name(params, labels)) == names


def test_weights_that_do_not_fit_are_refused(nnx_net):
    params = nnx.state(nnx_net, nnx.Param)
    with pytest.raises(ValueError, match=r"^bn1.bias must have shape \(64,\) here, got \(\)\.$"):
        resnet.from_torch_names(params, {})
    with pytest.raises(ValueError, match=r"^bn1.bias must have shape \(64,\) here, got \(3,\)\.$"):
        resnet.from_torch_names(params, {"bn1.bias": np.ones(3)})
