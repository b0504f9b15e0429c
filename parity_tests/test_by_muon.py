"""The labels of MuSGD's groups, against those that Ultralytics' own function made."""

from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsched import param_groups, recipes

flax = pytest.importorskip("flax")
from flax import linen as nn  # noqa: E402
from flax import nnx  # noqa: E402

from jaxsched.flax import by_muon  # noqa: E402

# What build_optimizer of 8.4.190 made of torch's modules of these names: convolution, its
# normalisation, dense layer, transposed and 1-D convolution, embedding, and one below cv3.
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


def plain():
    """The same parameters as dictionaries of arrays."""
    tree = {}
    state = nnx.state(nnx.eval_shape(Net), nnx.Param)
    for path, leaf in zip(param_groups.leaf_paths(state), jax.tree.leaves(state), strict=True):
        branch = tree
        for name in path[:-1]:
            branch = branch.setdefault(name, {})
        branch[path[-1]] = np.zeros(leaf.shape, np.float32)
    return tree


def by_path(labels):
    paths = ("/".join(path) for path in param_groups.leaf_paths(labels))
    return dict(zip(paths, jax.tree.leaves(labels), strict=True))


def test_nnx_linen_and_plain_trees_have_the_originals_groups():
    others = {"^line/kernel": "weight"}  # of a plain tree it could be attention's
    assert by_path(by_muon(Net(), head=HEAD)) == EXPECTED
    assert by_path(by_muon(Linen(), IMAGE, head=HEAD)) == EXPECTED
    assert by_path(param_groups.by_muon(head=HEAD, others=others)(plain())) == EXPECTED
    assert by_path(by_muon(Net())) != EXPECTED


def test_the_head_may_be_a_predicate():
    def is_head(path):
        return path[0].startswith("cv3")

    assert by_path(by_muon(Net(), head=is_head)) == EXPECTED


def test_before_8_4_108_all_of_two_dimensions_or_more_are_muons():
    labels = by_path(by_muon(Net(), dimensions=range(2, 9)))
    assert labels["line/kernel"] == "muon"
    assert labels["conv/kernel"] == "muon"


ATTENTION = "attention/key/bias, of 2 dimensions, where attention's in torch has fewer"
REFUSED = {
    "nnx transposed": (
        lambda: by_muon(Net(transpose_kernel=False)),
        "up/kernel, of a transposed convolution.*Build it with transpose_kernel=True",
    ),
    "linen transposed": (
        lambda: by_muon(Linen(transpose_kernel=False), IMAGE),
        "up/kernel, of a transposed convolution",
    ),
    "linen attention": (lambda: by_muon(Linen(heads=2), IMAGE), ATTENTION),
    "plain transposed": (
        lambda: param_groups.by_muon()({"ConvTranspose_0": {"kernel": np.ones((2, 2, 1, 1))}}),
        "ConvTranspose_0/kernel, a transposed convolution's",
    ),
    "plain attention": (
        lambda: param_groups.by_muon()({"query": {"kernel": np.ones((4, 2, 2))}}),
        "query/kernel, a kernel of 3 dimensions, as attention has where torch has 2",
    ),
    "plain bias": (
        lambda: param_groups.by_muon()({"query": {"bias": np.ones((2, 2))}}),
        "query/bias, a bias of 2 dimensions, where torch has 1.*{'query/bias': 'bias'}",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_dimensions_that_are_not_torchs_are_refused(name):
    call, message = REFUSED[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_others_label_what_is_refused():
    labels = by_path(
        by_muon(Linen(heads=2), IMAGE, others={"attention/.*bias": "bias", "attention/": "weight"})
    )
    attention = {path: label for path, label in labels.items() if path.startswith("attention")}
    assert Counter(attention.values()) == {"weight": 4, "bias": 4}
    with_head = by_muon(Linen(heads=2), IMAGE, head="attention", others={"attention/": "frozen"})
    assert by_path(with_head)["attention/out/kernel"] == "frozen"


def test_the_labels_fit_the_recipe():
    recipe = recipes.ultralytics(epochs=3, steps_per_epoch=4, optimizer="MuSGD")
    model = Net()
    params = nnx.state(model, nnx.Param)
    tx = recipe.optimizer(by_muon(model, head=HEAD))
    updates, _ = tx.update(params, tx.init(params), params)
    assert jax.tree.structure(updates) == jax.tree.structure(params)
