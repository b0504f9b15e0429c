"""MuSGD against recordings of Ultralytics' own class; its products, layouts and refusals."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from musgd_recordings import RECORDINGS, distances, find_failures, max_difference, optimizer_of

from jaxsched import Recipe, optimizers
from jaxsched.optimizers import _musgd

LAYOUTS = ("flax", "torch")


def exact_pattern(sentence):
    return f"^{re.escape(sentence)}$"


RUNS = [*((*recorded, "flax") for recorded in RECORDINGS), ("8.4.190", "float32", "torch")]


@pytest.mark.parametrize(("version", "dtype", "layout"), RUNS)
def test_updates_match_the_recordings(version, dtype, layout):
    tx = optimizer_of(version, dtype, layout)
    assert find_failures(distances(tx, version, dtype, layout), dtype) == {}


def test_the_float64_mode_keeps_float32_parameters():
    with jax.enable_x64(True):
        tx = optimizer_of("8.4.190", "float32")
        assert find_failures(distances(tx, "8.4.190", "float32"), "float32") == {}


# --- planted mistakes, each detected by a recording ---


def sgd_first(c, g, p, old, *, nesterov, layout, dtype, decays):
    """SGD first: it decays a parameter that Muon has not moved yet."""
    m = c["momentum"] * old["momentum_buffer"] + c["weight"] * g
    u = c["momentum"] * m + c["weight"] * g if nesterov else m
    x = _musgd.orthogonalize(u, c["eps"], layout=layout, dtype=dtype, adds_eps=True)
    shape = _musgd.torch_shape(g.shape) if layout == "flax" else g.shape
    d = g + c["decay"] * p
    v = c["momentum"] * old["momentum_buffer_SGD"] + d
    added = c["sgd"] * (d + c["momentum"] * v if nesterov else v)
    added += c["muon"] * _musgd.scale(shape) * x
    return added, {"momentum_buffer": m, "momentum_buffer_SGD": v}


def columns_for_rows(u, *scalars, layout, **options):
    other = {"flax": "torch", "torch": "flax"}[layout]
    return _musgd_orthogonalize(u, *scalars, layout=other, **options)


def whole_gradient(step, learning_rate, momentum, muon, sgd):
    return {**_musgd_scalars(step, learning_rate, momentum, muon, sgd), "weight": 1.0}


def iterate(x):
    a, b, c = 3.4445, -4.7750, 2.0315
    for _ in range(5):
        gram = x @ x.T
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x


def change_torch_matrix(change):
    """An iteration that works on a copy in torch's order."""

    def orthogonalize(u, eps, *, layout, **options):
        matrix = u.reshape(-1, u.shape[-1]).T if layout == "flax" else u.reshape(len(u), -1)
        x = change(matrix / (jnp.sqrt(jnp.sum(jnp.square(matrix))) + eps))
        return (x.T if layout == "flax" else x).reshape(u.shape)

    return orthogonalize


@change_torch_matrix
def skip_last_transpose(x):
    return iterate(x.T if x.shape[0] > x.shape[1] else x).reshape(x.shape)


never_transposed = change_torch_matrix(iterate)

_musgd_orthogonalize, _musgd_scalars = _musgd.orthogonalize, _musgd._muon_scalars

PLANTED = {
    "nothing": (None, None),
    "no transpose where rows exceed columns": ("orthogonalize", never_transposed),
    "no scale": ("scale", lambda shape: 1.0),
    "the scale of Flax's shape": ("torch_shape", lambda shape: shape),
    "SGD before Muon": ("_muon_leaf", sgd_first),
    "no decay": (None, {"weight_decay": 0.0}),
    "a buffer without 1 - beta": ("_muon_scalars", whole_gradient),
    "columns for rows": ("orthogonalize", columns_for_rows),
    "transposed, but not back": ("orthogonalize", skip_last_transpose),
    "rates of the other move": (None, {"muon": 1.0, "sgd": 0.2}),
    "no Nesterov": (None, {"nesterov": False}),
}


# The second gives the same values with larger products; the test of the products detects it.
UNSEEN = ("nothing", "no transpose where rows exceed columns")


@pytest.mark.parametrize("mistake", PLANTED)
def test_a_planted_mistake_is_caught(mistake, monkeypatch):
    name, change = PLANTED[mistake]
    if name is not None:
        monkeypatch.setattr(_musgd, name, change)
    changed = change if isinstance(change, dict) else {}
    tx = optimizer_of("8.4.190", "float32", **changed)
    far = distances(tx, "8.4.190", "float32", eagerly=True)  # a jitted leaf is cached
    assert (find_failures(far, "float32") == {}) == (mistake in UNSEEN), far


# --- the products ---

# Flax's shapes, and the sides of the matrix: outputs and all inputs.
SHAPES = {
    "convolution": ((3, 3, 4, 16), (16, 36)),
    "tall": ((1, 1, 4, 32), (32, 4)),
    "dense": ((10, 24), (24, 10)),
    "wide": ((40, 7), (7, 40)),
}


def lowered_update(rule, layout):
    shapes = {name: shape for name, (shape, _) in SHAPES.items()}
    if rule == "muon":
        shapes = {name: shape for name, shape in shapes.items() if len(shape) == 2}
    if layout == "torch":
        shapes = {name: (*shape[:-3:-1], *shape[:-2]) for name, shape in shapes.items()}
    arguments = {"use_muon": True, "momentum": 0.9} if rule == "musgd" else {}
    tx = getattr(optimizers, rule)(0.1, weight_decay=0.1, layout=layout, **arguments)
    params = {name: jnp.ones(shape) for name, shape in shapes.items()}
    return params, jax.jit(tx.update).lower(params, tx.init(params), params)


def products(lowered):
    shapes = re.findall(r"stablehlo\.dot_general.*-> tensor<(\d+)x(\d+)xf32>", lowered.as_text())
    return {tuple(sorted(map(int, product))) for product in shapes}


def smallest_products(params):
    sides = (SHAPES[name][1] for name in params)
    return {product for side in sides for product in ((min(side), min(side)), tuple(sorted(side)))}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("rule", ["musgd", "muon"])
def test_products_are_of_the_smaller_side_and_nothing_is_transposed(rule, layout):
    params, lowered = lowered_update(rule, layout)
    assert products(lowered) == smallest_products(params)
    assert "stablehlo.transpose" not in lowered.as_text()
    if layout == "flax":
        assert not re.search(r" (transpose|copy)\(", lowered.compile().as_text())


def test_no_transpose_where_rows_exceed_columns_is_caught(monkeypatch):
    """It is detected by its products only: its values differ by roundings."""
    monkeypatch.setattr(_musgd, "orthogonalize", never_transposed)
    true_leaf = _musgd._muon_leaf
    # A new function, so that no leaf traced before is reused.
    monkeypatch.setattr(_musgd, "_muon_leaf", lambda *leaves, **how: true_leaf(*leaves, **how))
    params, lowered = lowered_update("musgd", "flax")
    assert {(4, 4), (10, 10)} <= smallest_products(params) - products(lowered)
    assert "stablehlo.transpose" in lowered.as_text()


# --- layouts ---


def moves(params, **arguments):
    tx = optimizers.musgd(0.1, 0.9, use_muon=True, iteration_dtype=jnp.float32, **arguments)
    return tx.update(params, tx.init(params), params)[0]


def test_an_embedding_has_torchs_layout_in_both():
    weight = jnp.asarray(np.random.default_rng(0).normal(size=(9, 4)), jnp.float32)
    flax, torchs = (
        moves({"embedding": weight, "kernel": weight}, layout=layout) for layout in LAYOUTS
    )
    np.testing.assert_array_equal(flax["embedding"], torchs["embedding"])
    np.testing.assert_array_equal(torchs["embedding"], torchs["kernel"])
    assert max_difference(flax["kernel"], torchs["kernel"]) > 1e-2


def test_a_kernel_of_conv_transpose_has_torchs_rows_last():
    """torch's is (inputs, outputs, h, w), and Flax's (h, w, outputs, inputs) with transpose_kernel."""
    weight = jnp.asarray(np.random.default_rng(0).normal(size=(6, 3, 2, 4)), jnp.float32)
    theirs = moves({"weight": weight}, layout="torch")["weight"]
    kernel = weight.transpose(2, 3, 1, 0)[::-1, ::-1]
    mine = moves({"kernel": kernel})["kernel"]
    np.testing.assert_allclose(mine, theirs.transpose(2, 3, 1, 0)[::-1, ::-1], atol=1e-6)


REFUSED = {
    "an attention's kernel": (
        lambda: moves({"query": {"kernel": jnp.ones((8, 2, 4))}}),
        "parameters of musgd with use_muon must have 2 or 4 dimensions, in torch's layout at least 2, "
        "got query/kernel of shape (8, 2, 4). Give them a group without use_muon.",
    ),
    "a bias": (
        lambda: moves({"a": jnp.ones((8, 2)), "bias": jnp.ones(2)}, layout="torch"),
        "parameters of musgd with use_muon must have 2 or 4 dimensions, in torch's layout at least 2, "
        "got bias of shape (2,). Give them a group without use_muon.",
    ),
    "another layout": (
        lambda: optimizers.musgd(0.1, layout="HWIO"),
        "layout must be one of flax, torch, got 'HWIO'",
    ),
    "another dtype": (
        lambda: optimizers.muon(0.1, iteration_dtype=jnp.float16),
        "iteration_dtype must be one of bfloat16, float32, float64, got 'float16'",
    ),
    "a dtype that is not there": (
        lambda: optimizers.muon(0.1, iteration_dtype=np.float64).init({"kernel": jnp.ones((2, 2))}),
        "iteration_dtype must be bfloat16 or float32 without x64, got float64. Set jax_enable_x64.",
    ),
    "a share of Muon": (
        lambda: optimizers.musgd(0.1, muon=-0.5),
        "muon must be a finite number of at least 0, got -0.5",
    ),
    "a share of SGD": (
        lambda: optimizers.musgd(0.1, use_muon=True, sgd=-0.5),
        "sgd must be a finite number of at least 0, got -0.5",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refusals(name):
    call, sentence = REFUSED[name]
    with pytest.raises(ValueError, match=exact_pattern(sentence)):
        call()


def test_no_dtype_is_a_type_error():
    with pytest.raises(
        TypeError, match=r"^iteration_dtype must be one of the strings 'bfloat16', 'float32', "
    ):
        optimizers.musgd(0.1, iteration_dtype=3)


@pytest.mark.parametrize(
    "dtype", ["float32", jnp.float32, np.float32, np.dtype("float32")], ids=str
)
def test_a_dtype_by_any_of_its_names(dtype):
    """Also beside a schedule, because a dtype is callable too."""
    params = {"kernel": jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)), jnp.float32)}
    groups = {"all": {"learning_rate": 0.1, "use_muon": True, "iteration_dtype": dtype}}
    recipe = Recipe(groups, optimizers.musgd)
    assert recipe.groups["all"]["iteration_dtype"] == "float32"
    assert recipe.trace(1).switches["all"]["iteration_dtype"] == "float32"
    scheduled = optimizers.musgd(lambda count: 0.1, use_muon=True, iteration_dtype=dtype)
    plain = optimizers.musgd(0.1, use_muon=True, iteration_dtype="float32")
    expected = plain.update(params, plain.init(params), params)[0]["kernel"]
    for tx in (scheduled, recipe.optimizer({"kernel": "all"})):
        mine = tx.update(params, tx.init(params), params)[0]["kernel"]
        np.testing.assert_allclose(mine, expected, rtol=1e-6)
