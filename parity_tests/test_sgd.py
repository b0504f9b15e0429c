"""Updates against torch.optim.SGD: parameters and state after each of 200."""

import io

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

torch = pytest.importorskip("torch", reason="the reference is live torch")

from article_loop import ORDER, iterations, sgd  # noqa: E402

import jaxsched  # noqa: E402
from jaxsched import Recipe, optimizers  # noqa: E402
from jaxsched.recipes import yolov5_resnet18  # noqa: E402

pytestmark = pytest.mark.torch

UPDATES = 200
BOUND = 1e-14  # of the largest entry: some tens of float64 roundings over 200 updates
SHAPES = {"weight": (3, 3, 2, 4), "bias": (4,), "norm": (5, 7)}


def start_and_gradients(seed=0):
    rng = np.random.default_rng(seed)
    start = {label: rng.normal(size=shape) for label, shape in SHAPES.items()}
    gradients = [
        {label: rng.normal(size=shape) for label, shape in SHAPES.items()} for _ in range(UPDATES)
    ]
    return start, gradients


def torch_run(settings_at, start, gradients, **switches):
    """Return (parameters, momentum buffers) after each update; ``settings_at`` sets the groups."""
    parameters = {k: torch.tensor(v, requires_grad=True) for k, v in start.items()}
    groups = [{"params": [parameters[label]]} for label in SHAPES]
    # Constructed with a momentum that Nesterov accepts, then set before each step.
    optimizer = torch.optim.SGD(groups, lr=1.0, momentum=0.5, **switches)
    for i, gradient in enumerate(gradients):
        for label, group in zip(SHAPES, optimizer.param_groups, strict=True):
            group.update(settings_at(i)[label])
            parameters[label].grad = torch.tensor(gradient[label])
        optimizer.step()
        state = {k: optimizer.state[p].get("momentum_buffer") for k, p in parameters.items()}
        yield (
            {k: p.detach().numpy().copy() for k, p in parameters.items()},
            {k: None if b is None else b.numpy().copy() for k, b in state.items()},
        )


def buffers(state):
    trees = {
        k: state.inner.inner_states[k].inner_state.trees.get("momentum_buffer") for k in SHAPES
    }
    return {k: np.zeros(()) if tree is None else tree[k] for k, tree in trees.items()}


def save_and_load(state):
    """Write a state to a file and read it back."""
    leaves, structure = jax.tree.flatten(state)
    file = io.BytesIO()
    np.savez(file, **{str(k): np.asarray(leaf) for k, leaf in enumerate(leaves)})
    file.seek(0)
    with np.load(file, allow_pickle=False) as archive:
        loaded = [jnp.asarray(archive[str(k)]) for k in range(len(leaves))]
    return jax.tree.unflatten(structure, loaded)


def our_run(recipe, start, gradients):
    tx = recipe.optimizer({label: label for label in SHAPES})
    params = jax.tree.map(jnp.asarray, start)
    state, traced = tx.init(params), []

    @jax.jit
    def step(params, state, gradient):
        traced.append(gradient)
        updates, state = tx.update(gradient, state, params)
        return optax.apply_updates(params, updates), state

    for i, gradient in enumerate(gradients):
        if i == UPDATES // 2:
            state = save_and_load(state)
        params, state = step(params, state, jax.tree.map(jnp.asarray, gradient))
        yield params, buffers(state)
    assert len(traced) == 1


def max_distance(recipe, settings_at, **switches):
    """Return the largest distance of any leaf at any update, relative to its largest entry."""
    distance = 0.0
    start, gradients = start_and_gradients()
    reference = torch_run(settings_at, start, gradients, **switches)
    for ours, theirs in zip(our_run(recipe, start, gradients), reference, strict=True):
        for mine, torchs in zip(ours, theirs, strict=True):
            for label in SHAPES:
                if torchs[label] is None:
                    assert not np.asarray(mine[label]).any(), "a buffer that torch does not have"
                    continue
                gap = np.abs(np.asarray(mine[label]) - torchs[label]).max()
                distance = np.maximum(distance, gap / np.abs(torchs[label]).max())  # NaN stays
    return distance


def value_at(i, low, high):
    return low + (high - low) * ((i * 37) % 101) / 100


CASES = {
    "plain": {"momentum": 0.0},
    "momentum": {"momentum": 0.9},
    "dampening": {"momentum": 0.9, "dampening": 0.3},
    "nesterov": {"momentum": 0.9, "nesterov": True},
    "decay": {"momentum": 0.9, "weight_decay": 0.05, "nesterov": True},
    "decay-alone": {"momentum": 0.0, "weight_decay": 0.05},
    "maximize": {"momentum": 0.9, "weight_decay": 0.05, "maximize": True},
    "momentum-from-0": {"momentum": lambda i: jnp.clip(i / 100, 0, 0.9)},
    "momentum-0-for-a-while": {"momentum": lambda i: jnp.where(i < 40, 0.0, 0.9), "dampening": 0.5},
    "momentum-back-to-0": {"momentum": lambda i: jnp.where((i > 60) & (i < 90), 0.0, 0.9)},
    "nesterov-from-0": {"momentum": lambda i: jnp.clip(i / 100, 0, 0.9), "nesterov": True},
    "all-moving": {
        "momentum": lambda i: value_at(i, 0.5, 0.95),
        "dampening": lambda i: value_at(i, 0.0, 0.5),
        "weight_decay": lambda i: value_at(i + 3, 0.0, 0.1),
    },
}
SWITCHES = ("nesterov", "maximize")


def case(name):
    arguments = {"learning_rate": lambda i: value_at(i, 1e-3, 0.1), **CASES[name]}
    switches = {k: v for k, v in arguments.items() if k in SWITCHES}
    torchs = {"learning_rate": "lr"}

    def settings_at(i):
        with jax.enable_x64(True):
            values = {
                torchs.get(k, k): float(v(np.float64(i))) if callable(v) else v
                for k, v in arguments.items()
                if k not in SWITCHES
            }
        return dict.fromkeys(SHAPES, values)

    return Recipe(dict.fromkeys(SHAPES, arguments)), settings_at, switches


@pytest.mark.parametrize("name", CASES)
def test_200_updates_in_float64(name, x64):
    recipe, settings_at, switches = case(name)
    assert max_distance(recipe, settings_at, **switches) <= BOUND


@pytest.mark.parametrize("name", CASES)
def test_one_update_late_is_far_away(name, x64):
    recipe, settings_at, switches = case(name)
    assert max_distance(recipe, lambda i: settings_at(i + 1), **switches) > 1e-6


@pytest.mark.parametrize(
    "arguments", [{}, {"warmup_momentum": 0.0}, {"warmup_iterations": 0}], ids=str
)
def test_the_articles_recipe_in_float64(arguments, x64):
    arguments = {"epochs": 30, "steps_per_epoch": 7, "warmup_iterations": 90, **arguments}
    start, gradients = start_and_gradients(1)
    parameters = {k: torch.tensor(v, requires_grad=True) for k, v in start.items()}
    optimizer = sgd({label: [parameters[label]] for label in ORDER})
    clock = iterations(optimizer, **arguments)
    ours = our_run(yolov5_resnet18(**arguments), start, gradients)
    next(clock)
    for gradient, (params, _) in zip(gradients, ours, strict=True):
        for label in SHAPES:
            parameters[label].grad = torch.tensor(gradient[label])
        next(clock)  # makes the step
        for label in SHAPES:
            theirs = parameters[label].detach().numpy()
            gap = np.abs(np.asarray(params[label]) - theirs).max()
            assert gap <= BOUND * np.abs(theirs).max(), label


def test_float32_is_within_a_few_ulp():
    recipe, settings_at, switches = case("decay")
    start, gradients = start_and_gradients()
    single = lambda tree: {k: v.astype(np.float32) for k, v in tree.items()}  # noqa: E731
    start, gradients = single(start), [single(g) for g in gradients]
    reference = torch_run(settings_at, start, gradients, **switches)
    for (mine, _), (theirs, _) in zip(our_run(recipe, start, gradients), reference, strict=True):
        for label in SHAPES:
            gap = np.abs(np.asarray(mine[label]) - theirs[label]).max()
            # Fused multiply-adds: one side rounds a few times less in each update.
            assert gap <= 16 * np.finfo(np.float32).eps * np.abs(theirs[label]).max()


def test_a_rule_of_its_own_counts_its_updates(x64):
    tx = optimizers.sgd(lambda count: 0.1 / (1 + count), 0.9)
    params = {"w": jnp.ones(3)}
    state = tx.init(params)
    assert float(jaxsched.hyperparameters(state)["all"]["learning_rate"]) == 0.1
    for count in range(4):
        _, state = tx.update(params, state, params)
        assert float(jaxsched.hyperparameters(state)["all"]["learning_rate"]) == 0.1 / (1 + count)
        assert int(state.iteration) == count + 1


BAD = [
    ({"learning_rate": -0.1}, "learning_rate must be a finite number of at least 0, got -0.1"),
    ({"learning_rate": float("nan")}, "learning_rate must be a finite number of at least 0"),
    ({"momentum": -0.1}, "momentum must be a finite number of at least 0, got -0.1"),
    ({"weight_decay": -1}, "weight_decay must be a finite number of at least 0, got -1"),
    ({"nesterov": True}, "nesterov must go with a momentum above 0 and no dampening"),
    (
        {"nesterov": True, "momentum": 0.9, "dampening": 0.1},
        "nesterov must go with a momentum above 0 and no dampening",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), BAD)
def test_arguments_that_torch_refuses_are_refused(arguments, message):
    arguments = {"learning_rate": 0.1, **arguments}
    with pytest.raises(ValueError, match=message):
        optimizers.sgd(**arguments)
    theirs = {"lr" if k == "learning_rate" else k: v for k, v in arguments.items()}
    if np.isfinite(theirs["lr"]):  # torch accepts a NaN
        with pytest.raises(ValueError):  # noqa: PT011
            torch.optim.SGD([torch.zeros(1)], **theirs)


def test_bfloat16_parameters_keep_their_hyperparameters():
    recipe = yolov5_resnet18()
    params = {label: jnp.ones(4, jnp.bfloat16) for label in SHAPES}
    tx = recipe.optimizer({label: label for label in SHAPES})
    updates, state = jax.jit(tx.update)(params, tx.init(params), params)
    assert updates["bias"].dtype == jnp.bfloat16
    momentum = jaxsched.hyperparameters(state)["bias"]["momentum"]
    assert momentum.dtype == jnp.float32
    assert float(momentum) == np.float32(0.8)
