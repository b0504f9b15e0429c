"""Labels: the article's and Flax's rules, patterns, frozen leaves, errors that name leaves."""

import inspect
import json
import re

import jax
import jax.numpy as jnp
import optax
import pytest
from conftest import DATA

import jaxsched
from jaxsched import param_groups
from jaxsched.param_groups import LabelFunction, LayerLabels
from jaxsched.param_groups._labels import CALLS
from jaxsched.recipes import yolov5_resnet18

PARTITION = json.loads((DATA / "partition.json").read_text())
MODELS = [name for name, model in PARTITION.items() if "article_pg0" in model]


@pytest.mark.parametrize("model", MODELS)
def test_by_dotted_name_equals_the_articles_rule(model):
    groups = {
        "norm": PARTITION[model]["article_pg0"],
        "weight": PARTITION[model]["article_pg1"],
        "bias": PARTITION[model]["article_pg2"],
    }
    expected = {name: label for label, names in groups.items() for name in names}
    assert param_groups.by_dotted_name(dict.fromkeys(expected, 0.0)) == expected


def test_resnet18_by_name_is_16_25_21():
    names = [
        n
        for g in ("article_pg0", "article_pg1", "article_pg2")
        for n in PARTITION["resnet18_nc10"][g]
    ]
    labels = list(param_groups.by_dotted_name(dict.fromkeys(names, 0.0)).values())
    assert [labels.count(label) for label in ("norm", "weight", "bias")] == [16, 25, 21]


def nest(names):
    """Torch's dotted names as the nested tree of a Flax model."""
    tree = {}
    for name in names:
        *path, leaf = name.split(".")
        node = tree
        for key in path:
            node = node.setdefault(key, {})
        norm = any(key.startswith("bn") for key in path) or (
            path[-2:-1] == ["downsample"] and path[-1] == "1"
        )
        node[{"weight": "scale" if norm else "kernel"}.get(leaf, leaf)] = 0.0
    return tree


def test_the_rules_differ_in_four_batchnorm_weights():
    resnet = PARTITION["resnet18_nc10"]
    tree = nest(resnet["smart_bias"] + resnet["smart_decay"] + resnet["smart_norm"])
    by_name = jax.tree.leaves(param_groups.by_dotted_name(tree))
    by_leaf = jax.tree.leaves(param_groups.by_leaf_name(tree))
    assert [by_leaf.count(label) for label in ("norm", "weight", "bias")] == [20, 21, 21]
    differing = [
        param_groups.torch_name(path)
        for path, a, b in zip(param_groups.leaf_paths(tree), by_name, by_leaf, strict=True)
        if a != b
    ]
    assert sorted(differing) == sorted(resnet["module_type_vs_article_name_rule"])


def depth(path):
    return int(path[1]) + 1 if path[0] == "block" else {"stem": 0, "head": 3}[path[0]]


DEEP = {
    "stem": {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)},
    "block": {
        "0": {"kernel": jnp.ones((3, 3)), "bias": jnp.ones((1, 3))},
        "1": {"scale": jnp.ones(3), "table": jnp.ones((2, 2))},
    },
    "head": {"kernel": jnp.ones((3, 2))},
}


def test_by_dimension_goes_by_dimension_and_name():
    labels = param_groups.by_dimension({"block.1.table", "st*.kernel"})(DEEP)
    assert labels == {
        "stem": {"kernel": "no_decay", "bias": "no_decay"},
        "block": {
            "0": {"kernel": "decay", "bias": "no_decay"},
            "1": {"scale": "no_decay", "table": "no_decay"},
        },
        "head": {"kernel": "decay"},
    }
    # Patterns are of torch's names or of the path's own.
    assert param_groups.by_dimension(["stem.weight"])(DEEP)["stem"]["kernel"] == "no_decay"
    assert param_groups.by_dimension()(DEEP)["stem"]["kernel"] == "decay"
    with pytest.raises(TypeError, match=r"^no_weight_decay must be a collection of names, got 'x'"):
        param_groups.by_dimension("x")


def test_by_layer_labels_each_layer_and_scales_its_rate():
    rule = param_groups.by_layer(depth, 0.5, labels=param_groups.by_dimension())
    labels = rule(DEEP)
    assert labels["block"]["1"] == {"scale": "layer_2_no_decay", "table": "layer_2_decay"}
    assert rule.count(DEEP) == 4
    assert rule.scales(DEEP) == {
        **{"layer_0_decay": 0.125, "layer_0_no_decay": 0.125},
        **{"layer_1_decay": 0.25, "layer_1_no_decay": 0.25},
        **{"layer_2_decay": 0.5, "layer_2_no_decay": 0.5},
        "layer_3_decay": 1.0,
    }
    assert param_groups.by_layer(depth, 0.5)(DEEP)["head"] == {"kernel": "layer_3"}
    frozen = param_groups.by_layer(
        depth, 0.5, labels=param_groups.freeze(param_groups.by_dimension(), "^stem/")
    )
    assert frozen(DEEP)["stem"] == {"kernel": "frozen", "bias": "frozen"}
    assert next(iter(frozen.scales(DEEP))).startswith("layer_1_")


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (
            lambda: param_groups.by_layer(depth, 0.0),
            "decay must be a finite number above 0, got 0.0",
        ),
        (
            lambda: param_groups.by_layer(lambda path: None, 0.5)(DEEP),
            "layer_of(block/0/bias) must be an integer of at least 0, got None",
        ),
        (
            lambda: param_groups.by_layer(lambda path: -1, 0.5).count(DEEP),
            "layer_of(block/0/bias) must be an integer of at least 0, got -1",
        ),
    ],
)
def test_arguments_that_by_layer_refuses(make, sentence):
    with pytest.raises((TypeError, ValueError), match=f"^{re.escape(sentence)}$"):
        make()


def test_the_rates_of_layers_are_those_that_act():
    rule = param_groups.by_layer(depth, 0.5)
    rate = jaxsched.schedules.constant(0.5)
    recipe = jaxsched.Recipe(
        {
            label: {"learning_rate": jaxsched.schedules.scaled(rate, scale)}
            for label, scale in rule.scales(DEEP).items()
        }
    )
    tx = recipe.optimizer(rule)
    updates, _ = tx.update(DEEP, tx.init(DEEP), DEEP)
    moved = {name: float(jax.tree.leaves(updates[name])[0].ravel()[0]) for name in DEEP}
    assert moved == {"stem": -0.0625, "block": -0.125, "head": -0.5}


def test_other_trees_with_named_leaves():
    class Layer:
        def __init__(self, weight, bias):
            self.weight, self.bias = weight, bias

    jax.tree_util.register_pytree_with_keys(
        Layer,
        lambda n: (
            [(jax.tree_util.GetAttrKey(k), getattr(n, k)) for k in ("weight", "bias")],
            None,
        ),
        lambda _, children: Layer(*children),
    )
    labels = param_groups.by_leaf_name([Layer(1.0, 0.0), {"scale": 1.0}])
    assert jax.tree.leaves(labels) == ["weight", "bias", "norm"]


def test_equinox_modules():
    eqx = pytest.importorskip("equinox", reason="another tree with named leaves, in the test extra")
    model = eqx.filter(eqx.nn.MLP(2, 2, 4, 1, key=jax.random.key(0)), eqx.is_inexact_array)
    tx = yolov5_resnet18().optimizer(param_groups.by_leaf_name)
    updates, _ = tx.update(model, tx.init(model), model)
    assert float(jnp.abs(updates.layers[0].bias).max()) > 0
    labels = param_groups.by_leaf_name(model)
    assert jax.tree.leaves(labels) == ["weight", "bias"] * 2
    yolov5_resnet18().optimizer(labels).init(model)  # a tree, though an MLP can be called


def test_frozen_leaves_get_no_update_and_no_decay():
    params = {"stem": {"kernel": jnp.ones(3)}, "head": {"kernel": jnp.ones(3)}}
    labels = param_groups.freeze(param_groups.by_leaf_name, "^stem/")
    tx = yolov5_resnet18(warmup_iterations=0).optimizer(labels)
    gradients = {"stem": {"kernel": jnp.full(3, jnp.nan)}, "head": {"kernel": jnp.ones(3)}}
    updates, _ = tx.update(gradients, tx.init(params), params)
    assert (updates["stem"]["kernel"] == 0).all()
    assert (updates["head"]["kernel"] < 0).all()


def test_labels_may_be_a_prefix_of_the_tree():
    params = {"stem": {"a": 1.0, "b": 2.0}, "head": {"a": 1.0}}
    labels = param_groups.fit({"stem": "frozen", "head": {"a": "weight"}}, params)
    assert labels == {"stem": {"a": "frozen", "b": "frozen"}, "head": {"a": "weight"}}
    assert param_groups.fit("weight", params)["head"]["a"] == "weight"


@pytest.mark.parametrize(
    "labels",
    ["bias", lambda _: "bias", param_groups.by_pattern({}, default="bias")],
    ids=["label", "function", "default"],
)
def test_the_parameters_may_be_one_array(labels):
    params = jnp.ones(3)
    tx = yolov5_resnet18().optimizer(labels)
    updates, _ = jax.jit(tx.update)(params, tx.init(params), params)
    assert (updates < 0).all()
    frozen = yolov5_resnet18().optimizer(param_groups.freeze(labels, ""))
    assert not frozen.update(params, frozen.init(params), params)[0].any()


TREE = {"head": {"kernel": 1.0, "scale": 1.0}, "stem": {"bias": 0.0}}
ERRORS = {
    "uncovered": (
        lambda: param_groups.by_pattern({"bias": "bias"})(TREE),
        "2 of 3 parameters have no group: head/kernel, head/scale. "
        'Add a rule, or pass default="weight".',
    ),
    "unnamed": (
        lambda: param_groups.by_leaf_name(1.0),
        '1 of 1 parameters has no group: (the tree itself). Add a rule, or pass default="weight".',
    ),
    "unnamed-by-dotted-name": (
        lambda: param_groups.by_dotted_name(1.0),
        '1 of 1 parameters has no group: (the tree itself). Add a rule, or pass default="weight".',
    ),
    "labels-for-another-tree": (
        lambda: param_groups.fit({"head": "weight"}, 1.0),
        '1 of 1 parameters has no group: (the tree itself). Add a rule, or pass default="weight".',
    ),
    "labels-lack-a-leaf": (
        lambda: param_groups.fit({"head": "weight"}, TREE),
        '1 of 3 parameters has no group: stem/bias. Add a rule, or pass default="weight".',
    ),
    "labels-have-another-leaf": (
        lambda: param_groups.fit({**TREE, "neck": "weight"}, TREE),
        "labels must fit the parameters, got 1 that none has: neck. "
        "Label the tree that the optimizer is given.",
    ),
    "no-pattern": (
        lambda: param_groups.by_pattern({"(": "bias"}),
        "patterns must be a regular expression, got '(' (missing ), unterminated subpattern at "
        "position 0). Escape what is meant literally with re.escape.",
    ),
    "no-pattern-to-freeze": (
        lambda: param_groups.freeze("weight", "["),
        "pattern must be a regular expression, got '[' (unterminated character set at position 0).",
    ),
    "unknown-label": (
        lambda: yolov5_resnet18().optimizer(lambda p: {"w": "wieght"}).init({"w": jnp.ones(2)}),
        "labels must be among bias, frozen, norm, weight, got wieght. "
        'Give the recipe such a group, or use "frozen".',
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_errors_name_what_is_wrong(name):
    call, message = ERRORS[name]
    with pytest.raises(ValueError, match=re.escape(message)):
        call()


def test_a_pattern_that_is_no_string_is_refused():
    for call in (
        lambda: param_groups.by_pattern({3: "bias"}),  # pyright: ignore
        lambda: param_groups.freeze("weight", 3),  # pyright: ignore
    ):
        with pytest.raises(
            TypeError, match=r"^patterns? must have regular .*, got 3. Pass strings.$"
        ):
            call()


def test_many_uncovered_leaves_are_cut_short():
    with pytest.raises(
        ValueError, match=r"7 of 7 parameters have no group: a0, a1, a2, a3, a4 and 2 more\."
    ):
        param_groups.by_pattern({})({f"a{k}": 0.0 for k in range(7)})


def test_labels_are_ordinary_optax_labels():
    tx = optax.multi_transform(
        {label: optax.sgd(1.0) for label in ("weight", "bias", "norm")}, param_groups.by_leaf_name
    )
    params = {"kernel": jnp.ones(2)}
    tx.update(params, tx.init(params), params)
    assert jaxsched.param_groups.FROZEN == "frozen"


@pytest.mark.parametrize("name", CALLS)
def test_a_function_that_returns_a_rule_is_refused_uncalled(name):
    function = getattr(param_groups, name)
    with pytest.raises(TypeError, match=re.escape(f"Call it first: {name}({CALLS[name]}).")):
        yolov5_resnet18().optimizer(function).init(TREE)


def test_every_function_that_returns_a_rule_is_in_the_table_with_its_arguments():
    functions = {
        name: inspect.signature(function).parameters.values()
        for name in param_groups.__all__
        if inspect.isfunction(function := getattr(param_groups, name))
        and function.__annotations__["return"] in (LabelFunction, LayerLabels)
    }
    needed = {
        name: ", ".join(p.name for p in parameters if p.default is p.empty)
        for name, parameters in functions.items()
    }
    assert needed == CALLS


def test_a_users_function_may_have_the_name_of_one_of_them():
    def by_muon(params):
        return "weight"

    assert param_groups.fit(by_muon, {"w": 1.0}) == {"w": "weight"}


def test_without_groups_any_label_is_taken():
    assert param_groups.fit({"w": "two\nlines", "b": 1}, {"w": 0.0, "b": 0.0})["b"] == 1
