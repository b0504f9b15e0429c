"""The optimizer's state carried over in both directions, and the assertion that runs both sides."""

import pickle
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

torch = pytest.importorskip("torch", reason="the reference is live torch")

from conftest import long_after  # noqa: E402
from flax import nnx  # noqa: E402
from torchvision_import import resnet18  # noqa: E402

from jaxsched import optimizers, param_groups  # noqa: E402
from jaxsched.examples import resnet  # noqa: E402
from jaxsched.param_groups import leaf_paths, torch_names  # noqa: E402
from jaxsched.torch import (  # noqa: E402
    assert_optimizer_matches,
    export_state,
    from_torch,
    import_state,
    load,
    match_names,
    numbers,
)

pytestmark = pytest.mark.torch

BOUND = 1e-14
"""Relative to a leaf's largest entry: the bound of the update rules."""

BEFORE, AFTER = 40, 100
WARMUP = 60
"""Updates of the warm-up, within which the state is carried over."""


@pytest.fixture
def float64():
    torch.set_default_dtype(torch.float64)
    with jax.enable_x64(True):
        yield
    torch.set_default_dtype(torch.float32)


class Net(torch.nn.Module):
    """One layer of each layout; it is never called, because gradients are drawn."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(3, 4, (3, 2))
        self.bn = torch.nn.BatchNorm2d(4)
        self.fc = torch.nn.Linear(4, 5)


def flax_layout(model):
    """Return the model's parameters in Flax's layout."""
    named = {name: p.detach().numpy() for name, p in model.named_parameters()}
    return jax.tree.map(
        jnp.asarray,
        {
            "conv": {
                "kernel": named["conv.weight"].transpose(2, 3, 1, 0),
                "bias": named["conv.bias"],
            },
            "bn": {"scale": named["bn.weight"], "bias": named["bn.bias"]},
            "fc": {"kernel": named["fc.weight"].T, "bias": named["fc.bias"]},
        },
    )


OPTIMIZERS = {
    "SGD": lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True),
    "SGD dampened": lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9, dampening=0.3),
    "Adam": lambda groups: torch.optim.Adam(groups, lr=0.01, amsgrad=True),
    "AdamW": lambda groups: torch.optim.AdamW(groups, lr=0.01),
    "RMSprop": lambda groups: torch.optim.RMSprop(groups, lr=0.01, momentum=0.5, centered=True),
    "NAdam": lambda groups: torch.optim.NAdam(groups, lr=0.01),
    "ASGD": lambda groups: torch.optim.ASGD(groups, lr=0.01, t0=20),
    "Adagrad": lambda groups: torch.optim.Adagrad(groups, lr=0.1, lr_decay=0.01),
    "Adadelta": lambda groups: torch.optim.Adadelta(groups, lr=0.5),
    "Rprop": lambda groups: torch.optim.Rprop(groups, lr=0.01),
    "RAdam": lambda groups: torch.optim.RAdam(groups, lr=0.01),
    "Adamax": lambda groups: torch.optim.Adamax(groups, lr=0.01),
}
LABELS = ("weight", "rest")


class Side:
    """A torch model with its optimizer and a warm-up, on gradients of a generator."""

    def __init__(self, kind):
        torch.manual_seed(0)
        self.model, self.rng = Net(), np.random.default_rng(1)
        named = list(self.model.named_parameters())
        self.optimizer = OPTIMIZERS[kind](
            [
                {"params": [(n, p) for n, p in named if p.ndim > 1], "weight_decay": 0.01}
                if kind != "Rprop"
                else {"params": [(n, p) for n, p in named if p.ndim > 1]},
                {"params": [(n, p) for n, p in named if p.ndim == 1]},
            ]
        )
        self.scheduler = torch.optim.lr_scheduler.LinearLR(self.optimizer, 0.1, 1.0, WARMUP)

    def gradients(self):
        """Return the next gradients, in torch's layout, by name."""
        return {
            name: torch.tensor(self.rng.normal(size=p.shape))
            for name, p in self.model.named_parameters()
        }

    def train(self, updates):
        for _ in range(updates):
            for (_, p), g in zip(
                self.model.named_parameters(), self.gradients().values(), strict=True
            ):
                p.grad = g
            self.optimizer.step()
            self.scheduler.step()
            yield flax_layout(self.model)

    def recipe(self, iterations):
        return from_torch(
            self.optimizer, self.scheduler, labels=LABELS, steps_per_epoch=1, iterations=iterations
        )

    def labels(self, params):
        return jax.tree.map(lambda p: "weight" if p.ndim > 1 else "rest", params)


def max_distance(ours, theirs):
    """Return the largest distance of a leaf, relative to its largest entry."""
    off = jax.tree.map(lambda a, b: jnp.abs(a - b).max() / jnp.abs(b).max(), ours, theirs)
    return max(map(float, jax.tree.leaves(off)))


def run(tx, params, state, side, updates):
    """Make the same updates in JAX with the side's gradients; yield the same as ``train``."""
    update = jax.jit(tx.update)
    shadow = Net()
    for _ in range(updates):
        for (_, p), g in zip(shadow.named_parameters(), side.gradients().values(), strict=True):
            p.data = g
        changes, state = update(flax_layout(shadow), state, params)
        params = optax.apply_updates(params, changes)
        yield params, state


def trained_side(kind):
    """Return a side that has made ``BEFORE`` updates."""
    side = Side(kind)
    for _ in side.train(BEFORE):
        pass
    return side


@pytest.mark.parametrize("kind", long_after(3, OPTIMIZERS))
def test_from_torch_and_back_in_the_middle_of_a_warmup(kind, float64):
    side = trained_side(kind)
    params = flax_layout(side.model)
    recipe = side.recipe(AFTER)
    tx = recipe.optimizer(side.labels(params))
    state = import_state(side.optimizer.state_dict(), tx, params)
    ours = trained_side(kind)  # its generator has the state of the first one's
    ran = list(run(tx, params, state, ours, AFTER))
    off = [
        max_distance(mine, theirs) for (mine, _), theirs in zip(ran, side.train(AFTER), strict=True)
    ]
    assert max(off) <= BOUND, f"at update {int(np.argmax(off))}: {max(off):.3g}"

    # And back: torch continues from there, at the present rates of its scheduler.
    back, state = ran[-1]
    fresh = Side(kind)
    returned = export_state(state, back, like=fresh.optimizer.state_dict())
    write(fresh.model, back)
    fresh.optimizer.load_state_dict(returned)
    fresh.scheduler.load_state_dict(side.scheduler.state_dict())
    for group, live in zip(fresh.optimizer.param_groups, side.optimizer.param_groups, strict=True):
        group["lr"] = live["lr"]
    fresh.rng = np.random.default_rng(2)
    side.rng = np.random.default_rng(2)
    off = [
        max_distance(mine, theirs)
        for mine, theirs in zip(fresh.train(AFTER), side.train(AFTER), strict=True)
    ]
    assert max(off) <= BOUND, f"back, at update {int(np.argmax(off))}: {max(off):.3g}"


def write(model, params):
    """Write Flax's parameters into torch's model."""
    for name, p in model.named_parameters():
        module, leaf = name.split(".")
        kind = {"weight": "scale" if module == "bn" else "kernel"}.get(leaf, leaf)
        array = np.asarray(params[module][kind])
        back = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
        p.data = torch.tensor(np.ascontiguousarray(back))


@pytest.mark.parametrize("kind", ["SGD", "Adam", "AdamW", "RMSprop"])
def test_a_fresh_state_in_its_place_fails(kind, float64):
    side = trained_side(kind)
    params = flax_layout(side.model)
    tx = side.recipe(AFTER).optimizer(side.labels(params))
    ours = trained_side(kind)
    steps = zip(run(tx, params, tx.init(params), ours, 2), side.train(2), strict=True)
    assert max(max_distance(mine, theirs) for (mine, _), theirs in steps) > 1e6 * BOUND


def test_a_buffer_that_torch_has_not_made_is_not_started(float64):
    """With momentum warmed up from 0, torch's buffer begins at the first update with a momentum."""
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([("w", parameter)], lr=0.1)
    parameter.grad = torch.ones(3)
    optimizer.step()
    assert optimizer.state_dict()["state"] == {}
    params = {"w": jnp.asarray(parameter.detach().numpy())}
    tx = optimizers.sgd(0.1, lambda count: 0.9, dampening=0.5)
    state = import_state(optimizer.state_dict(), tx, params, iteration=1)
    assert int(state.iteration) == 1
    assert not bool(state.inner.scalars["started"])
    back = export_state(state, params, like=optimizer.state_dict())
    assert back["state"][0]["momentum_buffer"] is None
    _, state = tx.update({"w": jnp.full(3, 2.0)}, state, params)
    optimizer.param_groups[0].update(momentum=0.9, dampening=0.5)
    parameter.grad = torch.full((3,), 2.0)
    optimizer.step()
    started = import_state(optimizer.state_dict(), tx, params, iteration=2)
    jax.tree.map(
        np.testing.assert_array_equal, started.inner, state.inner._replace(step=started.inner.step)
    )


@pytest.mark.long
def test_resnet_from_torchvision_by_number(tmp_path):
    """The article's groups, made without names, pass through a file and back to the bit."""
    torch.manual_seed(0)
    model = resnet18(num_classes=10)
    groups = [[p for p in model.parameters() if (p.ndim > 1) == wide] for wide in (True, False)]
    optimizer = torch.optim.SGD([{"params": g} for g in groups], lr=0.1, momentum=0.9)
    for p in model.parameters():
        p.grad = torch.randn_like(p)
    optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")
    flax_model = nnx.eval_shape(lambda: resnet.ResNet18(10, rngs=nnx.Rngs(0)))
    shapes = nnx.as_pure(nnx.state(flax_model, nnx.Param))
    params = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes)
    mapping = {"/".join(path): torch_names(path)[-1] for path in leaf_paths(params)}
    assert mapping == match_names(params, dict(model.named_parameters())).mapping
    number = numbers(model, optimizer)
    by_number = {path: number[name] for path, name in mapping.items()}
    tx = optimizers.sgd(0.1, 0.9)
    state = import_state(tmp_path / "optimizer.pt", tx, params, by_number)
    buffers = state.trees["momentum_buffer"]
    np.testing.assert_array_equal(
        buffers["conv1"]["kernel"], model.conv1.weight.grad.permute(2, 3, 1, 0)
    )
    np.testing.assert_array_equal(buffers["fc"]["kernel"], model.fc.weight.grad.T)
    fresh = torch.optim.SGD([{"params": g} for g in groups], lr=0.1, momentum=0.9)
    fresh.load_state_dict(export_state(state, params, by_number, like=fresh.state_dict()))
    for p in model.parameters():
        assert torch.equal(fresh.state[p]["momentum_buffer"], p.grad)


def test_an_nnx_optimizer_is_exported_as_it_is():
    layer = nnx.Linear(2, 3, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(layer, optimizers.sgd(0.1, 0.9), wrt=nnx.Param)
    params = nnx.state(layer, nnx.Param)
    theirs = torch.optim.SGD(torch.nn.Linear(2, 3).parameters(), 0.1, 0.9)
    mapping = {"kernel": 0, "bias": 1}
    before = export_state(optimizer, params, mapping, like=theirs.state_dict())["state"]
    assert before == {0: {"momentum_buffer": None}, 1: {"momentum_buffer": None}}
    optimizer.update(layer, jax.tree.map(jnp.ones_like, params))
    for holder in (optimizer, optimizer.opt_state, nnx.as_pure(optimizer.opt_state)):
        state = export_state(holder, params, mapping, like=theirs.state_dict())["state"]
        assert state[0]["momentum_buffer"].tolist() == [[1.0, 1.0]] * 3
        assert state[1]["momentum_buffer"].tolist() == [1.0] * 3


def test_a_transform_of_the_users_own_goes_both_ways():
    """Attention's kernel has shape (in, heads, dim), and torch's (heads * dim, in)."""
    parameter = torch.nn.Parameter(torch.zeros(6, 5))
    optimizer = torch.optim.Adam([parameter])
    parameter.grad = torch.arange(30.0).reshape(6, 5)
    optimizer.step()
    params = {"query": {"kernel": jnp.zeros((5, 3, 2))}}
    mapping = {("query", "kernel"): (0, lambda w: w.T.reshape(5, 3, 2))}
    state = import_state(optimizer.state_dict(), optimizers.adam(1e-3), params, mapping)
    moment = optimizer.state[parameter]["exp_avg"]
    np.testing.assert_array_equal(
        state.trees["exp_avg"]["query"]["kernel"], moment.T.reshape(5, 3, 2)
    )
    back = export_state(state, params, mapping, like=optimizer.state_dict())["state"][0]
    assert torch.equal(back["exp_avg"], moment)
    assert back["step"] == 1


@pytest.mark.parametrize("transpose_kernel", [False, True])
def test_a_transposed_convolution_as_the_docstring_says(transpose_kernel):
    """With as many inputs as outputs, so that the shape does not determine the layout."""
    reference = torch.nn.ConvTranspose2d(3, 3, (3, 2), bias=False)
    layer = nnx.ConvTranspose(
        3,
        3,
        (3, 2),
        padding="VALID",
        use_bias=False,
        transpose_kernel=transpose_kernel,
        precision="highest",
        rngs=nnx.Rngs(0),
    )
    own = ("weight", lambda w: w.transpose(2, 3, 0, 1)[::-1, ::-1])
    mapping = {"kernel": "weight" if transpose_kernel else own}
    optimizer = torch.optim.SGD(reference.named_parameters(), lr=0.1, momentum=0.9)
    reference.weight.grad = reference.weight.detach().clone()
    optimizer.step()  # the first buffer is the gradient
    params = nnx.as_pure(nnx.state(layer, nnx.Param))
    tx = optimizers.sgd(0.1, momentum=0.9)
    state = import_state(optimizer.state_dict(), tx, params, mapping)
    buffer = optimizer.state_dict()["state"][0]["momentum_buffer"]
    layer.kernel[...] = state.trees["momentum_buffer"]["kernel"]
    x = np.random.default_rng(0).normal(size=(2, 3, 5, 5)).astype(np.float32)
    theirs = torch.nn.functional.conv_transpose2d(torch.tensor(x), buffer).numpy()
    ours = np.asarray(layer(x.transpose(0, 2, 3, 1))).transpose(0, 3, 1, 2)
    bound = 18 * 2**-24 * np.abs(theirs).max()  # one rounding for each product of a sum
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=bound)
    layer.kernel[...] = layer.kernel[...][::-1, ::-1]
    flipped = np.asarray(layer(x.transpose(0, 2, 3, 1))).transpose(0, 3, 1, 2)
    assert np.abs(flipped - theirs).max() > 0.1, "a wrong run passes too"
    back = export_state(state, params, mapping, like=optimizer.state_dict())["state"][0]
    assert torch.equal(back["momentum_buffer"], buffer)


def test_match_names_by_name_then_by_shape():
    params = {
        "layer_0": {"kernel": np.zeros((3, 2))},
        "head": {"kernel": np.zeros((7, 9)), "bias": np.zeros(4)},
        "twins": [np.zeros(11), np.zeros(11)],
    }
    shapes = {"layer.0.weight": (2, 3), "classifier.weight": (9, 7), "a": (11,), "b": (11,)}
    assert match_names(params, shapes) == (
        {"layer_0/kernel": "layer.0.weight", "head/kernel": "classifier.weight"},
        ["head/bias", "twins/0", "twins/1"],
    )


PARAMS = {"w": jnp.zeros(3), "v": jnp.zeros(2)}


def adam_state(steps=(1, 1), names=("w", "v"), cls=torch.optim.Adam):
    parameters = [torch.nn.Parameter(torch.zeros(n)) for n in (3, 2)]
    optimizer = cls(zip(names, parameters, strict=True) if names else parameters, lr=0.1)
    for update in range(max(steps)):
        for p, n in zip(parameters, steps, strict=True):
            p.grad = torch.ones_like(p) if update < n else None
        optimizer.step()
    return optimizer.state_dict()


def write_file(path, content):
    path.write_bytes(content)
    return path


def save_file(path, content):
    torch.save(content, path)
    return path


ADAM = optimizers.adam(0.1)
ERRORS = {
    "a-pickle": (
        lambda tmp: load(write_file(tmp / "x.pt", pickle.dumps({"a": re.compile("a")}, 2))),
        "must hold tensors and plain containers only, got a file that does not read with "
        "weights_only=True. Save optimizer.state_dict() alone.",
    ),
    "no-checkpoint": (
        lambda tmp: import_state({"model": 1, "epoch": 2}, ADAM, PARAMS),
        "state_dict must hold state and param_groups, as an optimizer's does, got model, epoch. "
        "Pass that part of the checkpoint, jaxsched.torch.load(path)['optimizer'].",
    ),
    "a-checkpoint's-file": (
        lambda tmp: import_state(save_file(tmp / "x.pt", {"adam": adam_state()}), ADAM, PARAMS),
        "state_dict must hold state and param_groups, as an optimizer's does, got adam. "
        "Pass that part of the checkpoint, jaxsched.torch.load(path)['adam'].",
    ),
    "a-list-of-checkpoints": (
        lambda tmp: import_state([{"model": 1}], ADAM, PARAMS),
        "Pass that part of the checkpoint, jaxsched.torch.load(path)['optimizer'].",
    ),
    "no-state": (
        lambda tmp: import_state({"state": {0: 1.0}, "param_groups": [{}]}, ADAM, PARAMS),
        "state_dict must hold a mapping for each parameter and groups that have params, got others in "
        "state and param_groups. Pass optimizer.state_dict().",
    ),
    "iteration": (
        lambda tmp: import_state(adam_state(), ADAM, PARAMS, iteration=-1),
        "iteration must be an integer of at least 0, got -1",
    ),
    "iteration-past-int32": (
        lambda tmp: import_state(adam_state(), ADAM, PARAMS, iteration=2**31),
        "iteration must be below 2**31, the int32 limit, got 2147483648",
    ),
    "no-names": (
        lambda tmp: import_state(adam_state(names=()), ADAM, PARAMS),
        "mapping must have each parameter that is trained, got none for v. "
        "Add it; match_names and numbers help.",
    ),
    "another-name": (
        lambda tmp: import_state(adam_state(), ADAM, PARAMS, {"w": "x"}),
        "mapping must lead to parameters of state_dict, got 'x', which it does not name. Make the "
        "optimizer of model.named_parameters(), or pass numbers, as jaxsched.torch.numbers returns "
        "them.",
    ),
    "another-path": (
        lambda tmp: import_state(adam_state(), ADAM, PARAMS, {"u": "w"}),
        "paths of mapping must be of the parameters, got u, which none has.",
    ),
    "another-shape": (
        lambda tmp: import_state(adam_state(), ADAM, PARAMS, {"w": "v", "v": "w"}),
        "exp_avg of v must have shape (2,), got (3,). Give its mapping a transform.",
    ),
    "another-rule": (
        lambda tmp: import_state(adam_state(), optimizers.rmsprop(0.1), PARAMS),
        "the state of v must hold square_avg, got step, exp_avg, exp_avg_sq. "
        "Build the optimizer that it is the state of.",
    ),
    "another-rule-than-sgd": (
        lambda tmp: import_state(adam_state(), optimizers.sgd(0.1), PARAMS),
        "the state of sgd without momentum must hold nothing, got exp_avg, exp_avg_sq, step. "
        "Build the optimizer that it is the state of.",
    ),
    "amsgrad-left-out": (
        lambda tmp: import_state(
            adam_state(cls=lambda p, lr: torch.optim.Adam(p, lr, amsgrad=True)), ADAM, PARAMS
        ),
        "the state of v must hold exp_avg, exp_avg_sq, got step, exp_avg, exp_avg_sq, "
        "max_exp_avg_sq. Build the optimizer that it is the state of.",
    ),
    "unequal-steps": (
        lambda tmp: import_state(adam_state((3, 1)), ADAM, PARAMS),
        "parameters of one group must have made equally many updates, got 1 of v and 3 of w. "
        "Give them groups of their own.",
    ),
    "optax": (
        lambda tmp: import_state(adam_state(), optax.adam(0.1), PARAMS),
        "opt_state must hold that of a rule of jaxsched.optimizers, got tuple without one. "
        "Pass recipe.optimizer(labels).",
    ),
    "not-undone": (
        lambda tmp: export_state(
            import_state(adam_state(), ADAM, PARAMS),
            PARAMS,
            {"w": ("w", lambda x: x[:1]), "v": "v"},
            like=adam_state(),
        ),
        "the transform of w must rearrange a tensor of like into one of shape (3,), to be undone, "
        "got (1,). Pass as like a state_dict that has made an update.",
    ),
    "labels": (
        lambda tmp: assert_optimizer_matches(
            from_torch(torch.optim.SGD([torch.ones(1)], lr=0.1), labels=["a"]).optimizer(
                lambda params: jax.tree.map(lambda _: "a", params)
            ),
            lambda p: torch.optim.SGD(p.values(), lr=0.1),
        ),
        "labels of torch's groups must be those of tx, got 0 for a. "
        "Pass labels, in the order of param_groups.",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_bad_input_gets_one_sentence(name, tmp_path):
    call, message = ERRORS[name]
    with pytest.raises(ValueError, match=re.escape(message) + "$"):
        call(tmp_path)


def test_matches_are_refused_for_their_mapping():
    matches = match_names(PARAMS, PARAMS)
    sentence = "mapping must be a dictionary by path, got Matches. Of what match_names returns pass .mapping."
    with pytest.raises(TypeError, match=f"^{re.escape(sentence)}$"):
        import_state(adam_state(), ADAM, PARAMS, matches)
    import_state(adam_state(), ADAM, PARAMS, matches.mapping)


def test_half_an_iteration_is_refused_as_a_type():
    with pytest.raises(TypeError, match=r"^iteration must be an integer of at least 0, got 2\.5$"):
        import_state(adam_state(), ADAM, PARAMS, iteration=2.5)


@pytest.mark.parametrize("content", [b"", b"no file of torch's", b"PK\x03\x04 cut off"])
def test_a_damaged_file_gets_one_sentence(content, tmp_path):
    with pytest.raises(ValueError, match=r"x\.pt must (be a whole|hold tensors).*\.$"):
        load(write_file(tmp_path / "x.pt", content))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_file_cut_anywhere_or_with_another_byte_gets_one_sentence(zipped, tmp_path):
    rng = np.random.default_rng(0)
    torch.save(adam_state(), tmp_path / "x.pt", _use_new_zipfile_serialization=zipped)
    whole = (tmp_path / "x.pt").read_bytes()
    refused = 0
    for draw in range(300):
        content = bytearray(whole)
        at = int(rng.integers(len(content)))
        content[at:] = b"" if draw % 2 else bytes([rng.integers(256), *content[at + 1 :]])
        try:
            load(write_file(tmp_path / "x.pt", content))
        except ValueError:
            refused += 1
    assert refused >= 150  # a byte of a tensor may change


def factory_of(cls, scheduler=None, **options):
    """Return a factory, from parameters by path."""

    def factory(parameters):
        optimizer = cls(parameters.values(), **options)
        return (optimizer, scheduler(optimizer)) if scheduler else optimizer

    return factory


def halve_rate(optimizer):
    return torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)


HALVED = lambda count: 0.1 * 0.5 ** (count // 6)  # noqa: E731
SAME = {
    "adamw": (optimizers.adamw(1e-3), factory_of(torch.optim.AdamW)),
    "nadam": (optimizers.nadam(2e-3), factory_of(torch.optim.NAdam)),
    "sgd": (
        optimizers.sgd(HALVED, 0.9, nesterov=True, weight_decay=0.1),
        factory_of(
            torch.optim.SGD, halve_rate, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1
        ),
    ),
    "optax": (optax.inject_hyperparams(optax.sgd)(0.1), factory_of(torch.optim.SGD, lr=0.1)),
}
OTHERS = {
    "coupled for decoupled": (
        optimizers.adam(1e-3, weight_decay=0.1),
        factory_of(torch.optim.AdamW, weight_decay=0.1),
        r"^the two differ at update 0: parameter of \w+\[",
    ),
    "the rate": (
        optax.inject_hyperparams(optax.sgd)(0.2),
        factory_of(torch.optim.SGD, lr=0.1),
        "^the two differ at update 0: learning_rate of 0 is 0.2 for torch's 0.1, 0.1 off where "
        "1e-12 is allowed.\nlikely cause: learning_rate 0.2 for 0.1, or gradients times 2.0$",
    ),
    "epsilon's place": (
        optax.rmsprop(1e-3, decay=0.99, eps_in_sqrt=True),
        factory_of(torch.optim.RMSprop, lr=1e-3),
        "^the two differ at update 0: parameter of ",
    ),
    "one update late": (
        optimizers.sgd(lambda count: HALVED(count + 1)),
        factory_of(torch.optim.SGD, halve_rate, lr=0.1),
        "^the two differ at update 5: learning_rate of 0 is 0.05 for torch's 0.1, ",
    ),
    "a state that has not acted yet": (
        optimizers.adam(1e-3, b2=0.99),
        factory_of(torch.optim.Adam, lr=1e-3),
        "^the two differ at update 0: exp_avg_sq of ",
    ),
}


@pytest.mark.parametrize("name", SAME)
def test_equal_optimizers_match(name):
    tx, factory = SAME[name]
    assert_optimizer_matches(tx, factory, updates=20, steps_per_epoch=3)


@pytest.mark.parametrize("name", OTHERS)
def test_another_optimizer_is_reported_by_update_leaf_and_values(name):
    tx, factory, message = OTHERS[name]
    with pytest.raises(AssertionError, match=message):
        assert_optimizer_matches(tx, factory, updates=20, steps_per_epoch=3)
    assert torch.get_default_dtype() == torch.float32


def test_groups_and_a_tree_of_the_users_own():
    params = {"head": {"kernel": np.ones((3, 4)), "bias": np.ones(4)}}

    def factory(parameters):
        groups = [
            {"params": [parameters["head/bias"]], "lr": 0.5},
            {"params": [parameters["head/kernel"]], "weight_decay": 0.1},
        ]
        return torch.optim.SGD(groups, lr=0.1, momentum=0.9)

    live = factory({f"head/{k}": torch.nn.Parameter(torch.ones(1)) for k in ("bias", "kernel")})
    recipe = from_torch(live, labels=["bias", "weight"])
    tx = recipe.optimizer(param_groups.by_leaf_name)
    assert_optimizer_matches(tx, factory, params=params, labels=["bias", "weight"], updates=10)
    swapped = r"^the two differ at update 0: (learning_rate|weight_decay) of (bias|weight) is "
    with pytest.raises(AssertionError, match=swapped):
        assert_optimizer_matches(tx, factory, params=params, labels=["weight", "bias"], updates=10)


@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.RAdam])
def test_a_state_without_a_number_that_the_rule_keeps_is_refused(kind):
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = kind([parameter])
    parameter.grad = torch.ones(2)
    optimizer.step()
    tx, params = optimizers.nadam(0.1), {"w": jnp.ones(2)}
    with pytest.raises(ValueError, match="the state of w must hold mu_product, got step"):
        import_state(optimizer.state_dict(), tx, params, {"w": 0})
