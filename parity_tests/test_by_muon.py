"""The labels of MuSGD's groups, against those of Ultralytics' own function."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsched import param_groups, recipes

flax = pytest.importorskip("flax", reason="flax is of the extra train")
from flax import linen as nn  # noqa: E402
from flax import nnx  # noqa: E402
from flax.traverse_util import unflatten_dict  # noqa: E402

from jaxsched.flax import by_muon  # noqa: E402

# The groups that build_optimizer of 8.4.190 made from torch's modules with these names: convolution,
# its normalisation, dense layer, transposed and 1-D convolution, embedding, and one below cv3.
EXPECTED = {
    "conv/kernel": "muon",
    "conv/bias": "bias",
    "norm/scale": "norm",
    "norm/bias": "bias",
    "dense/kernel": "muon",
    "dense/bias": "bias",
    "up/kernel": "muon",
    "up/bias": "bias",
    "line/kernel": "weight",
    "line/bias": "bias",
    "names/embedding": "muon",
    "cv3/kernel": "muon_head",
    "cv3/bias": "bias_head",
    "cv3_norm/scale": "norm_head",
    "cv3_norm/bias": "bias_head",
    "logit_scale": "norm",
    "position": "weight",
}
HEAD = r"^cv3"


class Net(nnx.Module):
    def __init__(self, *, transpose_kernel=True):
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dense = nnx.Linear(4, 2, rngs=rngs)
        self.up = nnx.ConvTranspose(4, 5, (2, 2), transpose_kernel=transpose_kernel, rngs=rngs)
        self.line = nnx.Conv(3, 4, (3,), rngs=rngs)
        self.names = nnx.Embed(7, 4, rngs=rngs)
        self.cv3 = nnx.Conv(4, 4, (1, 1), rngs=rngs)
        self.cv3_norm = nnx.GroupNorm(4, num_groups=2, rngs=rngs)
        self.logit_scale = nnx.Param(jnp.ones(()))
        self.position = nnx.Param(jnp.ones(3))


class Linen(nn.Module):
    transpose_kernel: bool = True
    heads: int = 0

    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(use_running_average=False, name="norm")(nn.Conv(4, (3, 3), name="conv")(x))
        nn.Dense(2, name="dense")(x)
        nn.ConvTranspose(5, (2, 2), transpose_kernel=self.transpose_kernel, name="up")(x)
        nn.Conv(4, (3,), name="line")(x[0])
        nn.Embed(7, 4, name="names")(jnp.zeros(1, int))
        nn.GroupNorm(2, name="cv3_norm")(nn.Conv(4, (1, 1), name="cv3")(x))
        self.param("logit_scale", nn.initializers.ones, ())
        self.param("position", nn.initializers.ones, (3,))
        if self.heads:
            nn.MultiHeadDotProductAttention(self.heads, name="attention")(x)


IMAGE = jnp.ones((1, 8, 8, 3))


def plain_parameters():
    """The same parameters as dictionaries of arrays."""
    tree = {}
    state = nnx.state(nnx.eval_shape(Net), nnx.Param)
    for path, leaf in zip(param_groups.leaf_paths(state), jax.tree.leaves(state), strict=True):
        branch = tree
        for name in path[:-1]:
            branch = branch.setdefault(name, {})
        branch[path[-1]] = np.zeros(leaf.shape, np.float32)
    return tree


def labels_by_path(labels):
    paths = ("/".join(path) for path in param_groups.leaf_paths(labels))
    return dict(zip(paths, jax.tree.leaves(labels), strict=True))


def test_nnx_linen_and_plain_trees_have_the_originals_groups():
    others = {"^line/kernel": "weight"}  # in a plain tree it could belong to attention
    assert labels_by_path(by_muon(Net(), head=HEAD)) == EXPECTED
    assert labels_by_path(by_muon(Linen(), IMAGE, head=HEAD)) == EXPECTED
    assert (
        labels_by_path(param_groups.by_muon(head=HEAD, others=others)(plain_parameters()))
        == EXPECTED
    )
    assert labels_by_path(by_muon(Net())) != EXPECTED


def test_the_head_may_be_a_predicate():
    def is_head(path):
        return path[0].startswith("cv3")

    assert labels_by_path(by_muon(Net(), head=is_head)) == EXPECTED


def test_before_8_4_108_muon_takes_all_parameters_of_two_or_more_dimensions():
    labels = labels_by_path(by_muon(Net(), dimensions=range(2, 9)))
    assert labels["line/kernel"] == "muon"
    assert labels["conv/kernel"] == "muon"


@pytest.mark.parametrize(
    ("pattern", "heads"),
    [
        # Those of the docstring, on names of 8.4.190's and 8.4.0's trees.
        (r"(^|\.)23\.(one2one_)?cv3\.|proto\.semseg|SemanticSegment", "abcd"),
        (r"23.*cv3|cv3.*23|proto\.semseg|flow_model", "abcef"),
        ("^model/23/cv3/", "a"),
    ],
)
def test_the_head_is_searched_for_in_torchs_names_too(pattern, heads):
    names = {
        "a": "model/23/cv3/0/conv/kernel",
        "b": "model_23/one2one_cv3/0/kernel",
        "c": "model/23/proto/semseg/kernel",
        "d": "model/9/SemanticSegment/kernel",
        "e": "model/2/flow_model/kernel",
        "f": "model/cv3/23/kernel",
        "g": "model/2/cv3/kernel",
        "h": "model/23/cv2/kernel",
    }
    params = unflatten_dict({tuple(name.split("/")): np.ones((1, 1)) for name in names.values()})
    labels = labels_by_path(param_groups.by_muon(head=pattern)(params))
    assert "".join(k for k, name in names.items() if labels[name] == "muon_head") == heads


def test_without_dimensions_the_groups_are_those_of_the_other_optimizers():
    plain = {name: label.replace("muon", "weight") for name, label in EXPECTED.items()}
    assert labels_by_path(by_muon(Net(transpose_kernel=False), head=HEAD, dimensions=())) == plain
    labels = labels_by_path(by_muon(Linen(heads=2), IMAGE, dimensions=()))
    assert labels["attention/key/bias"] == "bias"
    assert labels["attention/key/kernel"] == "weight"


class Attention(nnx.Module):
    """Written by hand, with dimensions as Flax's own."""

    def __init__(self):
        self.kernel = nnx.Param(jnp.ones((4, 2, 3)))
        self.q_bias = nnx.Param(jnp.ones((2, 3)))


class Block(nn.Module):
    layer: nn.Module

    @nn.compact
    def __call__(self, x, _=None):
        return self.layer(x), None


class Stack(nn.Module):
    """Three of a layer, by nn.scan or nn.vmap."""

    layer: nn.Module
    lift: str = "scan"

    @nn.compact
    def __call__(self, x):
        stacked = {"variable_axes": {"params": 0}, "split_rngs": {"params": True}}
        if self.lift == "scan":
            return nn.scan(Block, length=3, **stacked)(self.layer)(x, None)
        return nn.vmap(Block, **stacked)(self.layer)(jnp.stack([x] * 3))


def stack(layer):
    return by_muon(nnx.vmap(lambda _: layer(nnx.Rngs(0)), in_axes=0)(jnp.arange(3)))


def lift(layer, how="scan"):
    return by_muon(Stack(layer, how), jnp.ones((1, 8, 4)))


ATTENTION = "attention/key/bias, a bias of 2 dimensions, where torch has 1"
REFUSED = {
    "nnx transposed": (
        lambda: by_muon(Net(transpose_kernel=False)),
        "up/kernel, of a transposed convolution.*Build it with transpose_kernel=True\\.$",
    ),
    "linen transposed": (
        lambda: by_muon(Linen(transpose_kernel=False), IMAGE),
        "up/kernel, of a transposed convolution",
    ),
    "linen attention": (lambda: by_muon(Linen(heads=2), IMAGE), ATTENTION),
    "plain transposed": (
        lambda: param_groups.by_muon()({"ConvTranspose_0": {"kernel": np.ones((2, 2, 1, 1))}}),
        "ConvTranspose_0/kernel, a transposed convolution's.*transpose_kernel=True, and then "
        "label it in others: {'ConvTranspose_0/kernel': 'muon'}\\.$",
    ),
    "plain attention": (
        lambda: param_groups.by_muon()({"query": {"kernel": np.ones((4, 2, 2))}}),
        "query/kernel, a kernel of 3 dimensions, as attention has where torch has 2.*not with att",
    ),
    "plain bias": (
        lambda: param_groups.by_muon()({"query": {"bias": np.ones((2, 2))}}),
        "query/bias, a bias of 2 dimensions, where torch has 1.*{'query/bias': 'bias'}",
    ),
    "attention by hand": (lambda: by_muon(Attention()), "kernel, a kernel of 3 dimensions"),
    "nnx.vmap of a bias": (
        lambda: stack(lambda rngs: nnx.Linear(4, 4, rngs=rngs)),
        "bias, a bias of 2 dimensions",
    ),
    "nnx.vmap of a dense layer": (
        lambda: stack(lambda rngs: nnx.Linear(4, 4, use_bias=False, rngs=rngs)),
        "kernel, of 3 dimensions, where torch's has 2.*without Muon, unlike the original",
    ),
    "nnx.vmap of a convolution": (
        lambda: stack(lambda rngs: nnx.Conv(4, 4, (3,), use_bias=False, rngs=rngs)),
        "kernel, of 4 dimensions, where torch's has 3.*{'kernel': 'weight'}\\.$",
    ),
    "nnx.vmap of an embedding": (
        lambda: stack(lambda rngs: nnx.Embed(4, 4, rngs=rngs)),
        "embedding, of 3 dimensions, where torch's has 2",
    ),
    "nnx.vmap of a norm": (
        lambda: stack(lambda rngs: nnx.RMSNorm(4, rngs=rngs)),
        "scale, of 2 dimensions, where torch's has 1.*{'scale': 'norm'}",
    ),
    "nn.scan of a norm": (lambda: lift(nn.RMSNorm()), "scale, of 2 dimensions"),
    "nn.scan of a dense layer": (
        lambda: lift(nn.Dense(4, use_bias=False)),
        "kernel, of 3 dimensions",
    ),
    "nn.vmap of a dense layer": (lambda: lift(nn.Dense(4), "vmap"), "bias, a bias of 2"),
    "nn.ConvLocal": (
        lambda: by_muon(nn.ConvLocal(3, (3, 3), use_bias=False), IMAGE),
        "kernel, of ConvLocal, which torch does not have",
    ),
    "head not a pattern": (
        lambda: param_groups.by_muon(head="("),
        r"head must be a regular expression, got '\(' \(missing \)",
    ),
    "head not of a type": (
        lambda: param_groups.by_muon(head=["cv3"]),
        r"head must be a regular expression or a function of the path, got \['cv3'\]",
    ),
    "head a number": (lambda: by_muon(Net(), head=3), "head must be .* got 3"),
    "dimensions a number": (
        lambda: param_groups.by_muon(dimensions=2),
        "dimensions must be a collection of integers, got 2. Put it into a tuple",
    ),
    "others a list": (
        lambda: param_groups.by_muon(others=["x"]),
        r"others must map regular expressions to labels, got \['x'\]",
    ),
    "others not a pattern": (
        lambda: param_groups.by_muon(others={"[": "bias"}),
        "others must be a regular expression, got",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_parameters_that_cannot_be_labelled_are_refused(name):
    call, message = REFUSED[name]
    of_type = ("head not of a type", "head a number", "dimensions a number", "others a list")
    with pytest.raises(TypeError if name in of_type else ValueError, match=message):
        call()


def test_patterns_of_others_label_refused_parameters():
    labels = labels_by_path(
        by_muon(Linen(heads=2), IMAGE, others={"attention/.*bias": "bias", "attention/": "weight"})
    )
    attention = {path: label for path, label in labels.items() if path.startswith("attention")}
    assert Counter(attention.values()) == {"weight": 4, "bias": 4}
    with_head = by_muon(Linen(heads=2), IMAGE, head="attention", others={"attention/": "frozen"})
    assert labels_by_path(with_head)["attention/out/kernel"] == "frozen"


def test_the_labels_fit_the_recipe():
    recipe = recipes.ultralytics(epochs=3, steps_per_epoch=4, optimizer="MuSGD")
    model = Net()
    params = nnx.state(model, nnx.Param)
    tx = recipe.optimizer(by_muon(model, head=HEAD))
    updates, _ = tx.update(params, tx.init(params), params)
    assert jax.tree.structure(updates) == jax.tree.structure(params)
