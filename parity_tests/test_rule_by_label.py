"""A recipe with an update rule for each label: its content, its files, its trace, its refusals."""

import copy
import dataclasses
import functools
import math
import pickle
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxsched
from jaxsched import Recipe, Trace, cli, compare, optimizers, schedules

RULES = {"matrix": optimizers.adagrad, "other": optimizers.adamw}
GROUPS = {
    "matrix": {"learning_rate": schedules.cosine(20, lrf=0.1), "weight_decay": 0.1},
    "other": {"learning_rate": 3e-4, "b2": 0.95},
}
RECIPE = Recipe(GROUPS, RULES, clip_norm=1.0, length=30)
PARAMS = {"matrix": jnp.ones((3, 2)), "other": jnp.full(4, 2.0)}
LABELS = {"matrix": "matrix", "other": "other"}


def test_each_group_has_the_arguments_of_its_rule():
    at = RECIPE.at(3)
    assert set(at["matrix"]) == {
        *("learning_rate", "lr_decay", "weight_decay", "initial_accumulator_value", "eps")
    }
    assert set(at["other"]) == {"learning_rate", "b1", "b2", "eps", "weight_decay"}
    assert at["matrix"]["eps"] == np.float32(1e-10)  # each rule's own default
    assert at["other"]["eps"] == np.float32(1e-8)


def test_it_prints_the_rule_of_each_group():
    lines = str(RECIPE).splitlines()
    assert lines[0] == "Recipe: adagrad and adamw, 2 groups, iteration 0 to 30"
    assert [line.split()[:2] for line in lines[2:4]] == [["matrix", "adagrad"], ["other", "adamw"]]
    assert "adamw" in RECIPE._repr_html_()


def test_copies_and_files_are_equal(tmp_path):
    for other in (pickle.loads(pickle.dumps(RECIPE)), copy.deepcopy(RECIPE)):
        assert other == RECIPE
        assert hash(other) == hash(RECIPE)
    for name in ("recipe.yaml", "recipe.json"):
        RECIPE.save(tmp_path / name)
        assert Recipe.load(tmp_path / name) == RECIPE
        text = (tmp_path / name).read_text()
        assert Recipe.load(tmp_path / name).update_rule == RULES
        (tmp_path / name).write_text(text.replace("adagrad", "optimizers.adagrad"))
        with pytest.raises(ValueError, match=r"update_rule must be one of .*got 'optimizers\.adag"):
            Recipe.load(tmp_path / name)


def test_the_shell_takes_its_files(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    RECIPE.save("recipe.yaml")
    RECIPE.save("recipe.json")
    assert cli.main(["verify", "recipe.yaml", "--against", "recipe.json"]) == 0
    assert cli.main(["export", "recipe.yaml", "--out", "curves.npz"]) == 0
    assert Trace.load("curves.npz").update_rule == {"matrix": "adagrad", "other": "adamw"}
    assert "parity: 30 iterations × 2 groups" in capsys.readouterr().out


def test_another_rule_of_a_group_is_another_recipe():
    for rules in (
        {**RULES, "matrix": optimizers.adamw},
        {"matrix": optimizers.adamw, "other": optimizers.adagrad},
    ):
        groups = {"matrix": {"learning_rate": 0.1}, "other": {"learning_rate": 0.1}}
        assert Recipe(groups, rules) != Recipe(groups, RULES)
        assert Recipe(groups, dict(reversed(rules.items()))) == Recipe(groups, rules)


def test_one_rule_for_all_labels_is_one_rule():
    """Also in ``functools.partial``, whose arguments become arguments of the groups."""
    groups = {"a": {"learning_rate": 0.1, "b2": 0.9}, "b": {"learning_rate": 0.1}}
    by_label = {"a": optimizers.adam, "b": functools.partial(optimizers.adam, b2=0.9)}
    recipe = Recipe(groups, by_label)
    assert recipe.update_rule is optimizers.adam
    assert recipe == Recipe({label: groups["a"] for label in "ab"}, optimizers.adam)
    assert recipe.trace(2).update_rule == "adam"


def test_a_trace_names_the_rules_and_replays(tmp_path):
    trace = RECIPE.trace(30)
    assert trace.update_rule == {"matrix": "adagrad", "other": "adamw"}
    assert trace.switches == {
        "matrix": {"maximize": False},
        "other": {"amsgrad": False, "maximize": False},
    }
    assert trace.constants["other"] == {
        **{"learning_rate": 3e-4, "b1": 0.9, "b2": 0.95, "eps": 1e-8, "weight_decay": 0.01}
    }
    assert "weight_decay" in trace.constants["matrix"]
    assert "learning_rate" not in trace.constants["matrix"]
    assert repr(trace).startswith("Trace(30 rows of adagrad and adamw from iteration 0, ")
    trace.save(tmp_path / "trace.npz")
    loaded = Trace.load(tmp_path / "trace.npz")
    assert loaded == trace
    assert loaded != dataclasses.replace(loaded, update_rule="adamw")
    replayed = Recipe.from_trace(loaded)
    assert replayed.update_rule == RULES
    assert compare(replayed, RECIPE)
    assert compare(loaded, RECIPE).not_compared == ()
    swapped = trace.relabel({"matrix": "other", "other": "matrix"})
    assert swapped.update_rule == {"other": "adagrad", "matrix": "adamw"}
    assert Recipe.from_trace(swapped).rule_by_label["matrix"] is optimizers.adamw


def test_rules_that_a_trace_does_not_name_are_given_by_label():
    own = {"matrix": optax.adagrad, "other": optimizers.adamw}
    recipe = Recipe({label: {"learning_rate": 0.1} for label in own}, own, length=3)
    trace = recipe.trace(3)
    assert trace.update_rule == {"matrix": "optax._src.alias.adagrad", "other": "adamw"} or (
        trace.update_rule["matrix"].endswith("adagrad")
    )
    with pytest.raises(ValueError, match=r"trace must name a rule .*adagrad\. Pass update_rule\.$"):
        Recipe.from_trace(trace)
    assert Recipe.from_trace(trace, own).rule_by_label["matrix"] is optax.adagrad
    assert compare(recipe, recipe)
    lost = dataclasses.replace(trace, update_rule={"other": "adamw"})
    report = compare(lost, trace)
    assert report
    assert report.not_compared == ("update_rule",)
    assert not compare(dataclasses.replace(trace, update_rule={"other": "adam"}), trace)


def test_a_lambda_for_one_label_is_listed_and_never_reported_as_equal():
    def recipe_of(factor):
        rule = lambda learning_rate: optax.sgd(factor * learning_rate)  # noqa: E731
        rules = {"matrix": rule, "other": optimizers.adamw}
        return Recipe({label: {"learning_rate": 0.1} for label in rules}, rules, length=3)

    one, other = recipe_of(1.0), recipe_of(2.0)
    assert not compare(one, other)
    assert "matrix/update_rule" in str(compare(one, other))
    assert compare(one, one)
    for report in (compare(one, other.trace(3)), compare(one.trace(3), other)):
        assert report
        assert report.not_compared == ("update_rule",)


def test_adam_and_adamw_by_label_are_compared_by_their_decay():
    def recipe_of(rules, **switch):
        groups = {"a": {"learning_rate": 0.1, **switch}, "b": {"learning_rate": 0.1}}
        groups = {k: {**g, "weight_decay": 0.1} for k, g in groups.items()}
        return Recipe(groups, rules, length=3)

    by_name = recipe_of({"a": optimizers.adamw, "b": optimizers.adam})
    assert compare(by_name, recipe_of(optimizers.adam, decoupled_weight_decay=True))
    report = compare(by_name, recipe_of(optimizers.adam))
    assert report.causes == ("another update rule: adamw for adam in a",)


def updates_of(recipe, n=3):
    tx, state, updates = recipe.optimizer(LABELS), None, []
    state, update = tx.init(PARAMS), jax.jit(tx.update)
    for _ in range(n):
        step, state = update(PARAMS, state, PARAMS)
        updates.append(step)
    return updates, state


def test_each_group_makes_the_update_of_its_rule():
    """The updates equal those of two recipes with one rule each."""
    plain = dataclasses.replace(RECIPE, clip_norm=None)
    updates, state = updates_of(plain)
    for label, rule in RULES.items():
        one = Recipe({label: GROUPS[label]}, rule).optimizer({label: label})
        params = {label: PARAMS[label]}
        own, update = one.init(params), jax.jit(one.update)
        for both in updates:
            step, own = update(params, own, params)
            np.testing.assert_array_equal(step[label], both[label])
    assert jax.tree.all(
        jax.tree.map(lambda x, y: x == y, jaxsched.hyperparameters(state), plain.at(2))
    )


def test_the_clip_takes_all_groups_together():
    """Adagrad's sum of squares, and AdamW's mean, show the same scale."""
    (_, state), norm = updates_of(RECIPE, 1), math.sqrt(6 * 1.0 + 4 * 4.0)
    scale = 1.0 / (norm + 1e-6)
    rules = [n for n in jax.tree.leaves(state, is_leaf=is_rule_state) if is_rule_state(n)]
    trees = {name: tree for rule in rules for name, tree in rule.trees.items()}
    decayed = scale + 0.1 * 1.0
    np.testing.assert_allclose(trees["sum"]["matrix"], decayed**2, rtol=1e-6)
    np.testing.assert_allclose(trees["exp_avg"]["other"], 0.1 * 2.0 * scale, rtol=1e-6)


def is_rule_state(node):
    return isinstance(node, optimizers.RuleState)


def test_only_the_rules_of_this_package_take_float64():
    seen = {}

    def own(learning_rate):
        seen["dtype"] = learning_rate.dtype
        return optax.sgd(learning_rate)

    rate = schedules.cosine(20, lrf=0.1)
    recipe = Recipe(
        {"matrix": {"learning_rate": rate}, "other": {"learning_rate": rate}},
        {"matrix": own, "other": optimizers.sgd},
    )
    values = recipe.rules({k: {"learning_rate": np.float64(0.1)} for k in LABELS})
    assert set(values) == set(LABELS)
    updates_of(recipe, 1)
    assert seen["dtype"] == jnp.float32


REFUSED = {
    "a label lacks a rule": (
        ValueError,
        {"matrix": optimizers.muon},
        "update_rule must have a rule for each group, got none for other. Add one.",
    ),
    "an unknown label": (
        ValueError,
        {**RULES, "frozen": optimizers.sgd},
        "labels of update_rule must be among those of groups, matrix, other, got frozen. "
        "Leave what is frozen out.",
    ),
    "a name for a function": (
        TypeError,
        {**RULES, "other": "adamw"},
        "update_rule of group other must be a function such as optimizers.sgd, got 'adamw'. "
        "Pass optimizers.adamw.",
    ),
    "a name of no rule": (
        TypeError,
        "lion",
        "update_rule must be a function such as optimizers.sgd, got 'lion'.",
    ),
    "no rules": (
        ValueError,
        {},
        "update_rule must have a rule for each group, got none for matrix, other. Add one.",
    ),
    "another rule's argument": (
        ValueError,
        {**RULES, "other": optimizers.sgd},
        "arguments of sgd must be among learning_rate, momentum, dampening, weight_decay, nesterov, "
        "maximize, got b2 in group other.",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_rules_that_do_not_fit_are_refused(name):
    error, rules, sentence = REFUSED[name]
    with pytest.raises(error, match=f"^{re.escape(sentence)}$"):
        Recipe(GROUPS, rules)


@pytest.mark.torch
def test_classes_of_torch_are_refused_with_the_rule_of_that_name():
    optim = pytest.importorskip("torch", reason="torch's classes are refused").optim
    for rule, remedy in ((optim.AdamW, " Pass optimizers.adamw."), (optim.LBFGS, "")):
        sentence = f"update_rule must be a function such as optimizers.sgd, got {rule!r}.{remedy}"
        with pytest.raises(TypeError, match=f"^{re.escape(sentence)}$"):
            Recipe(GROUPS, rule)


@pytest.mark.parametrize("rule", [{"a": 3}, {"a": None}, 3])
def test_a_trace_takes_names_of_rules(rule):
    with pytest.raises(TypeError, match=r"^update_rule of .* must be a string"):
        Trace({"a": {"learning_rate": np.ones(2)}}, update_rule=rule)


MUSGD = {
    "muon": {"learning_rate": 0.1, "use_muon": True},
    "weight": {"learning_rate": 0.1},
    "bias": {"learning_rate": 0.1},
}


@pytest.mark.parametrize(
    ("recipe", "labels", "unused"),
    [
        (RECIPE, dict.fromkeys(LABELS, "other"), "matrix"),
        (Recipe(MUSGD, optimizers.musgd), {"matrix": "weight", "other": "bias"}, "muon"),
    ],
    ids=["a rule of several", "a switch"],
)
def test_a_rule_without_a_parameter_is_warned_of(recipe, labels, unused):
    sentence = f"no parameter gets the update rule of group {unused}. Check the labels."
    with pytest.warns(UserWarning, match=sentence):
        recipe.optimizer(labels).init(PARAMS)


@pytest.mark.parametrize(
    ("recipe", "labels"),
    [
        (RECIPE, LABELS),
        (Recipe(MUSGD, optimizers.musgd), {"matrix": "muon", "other": "bias"}),  # no weight
        (Recipe(GROUPS | {"other": {"learning_rate": 0.1}}, optimizers.adagrad), "matrix"),
    ],
    ids=["both rules", "a group of a rule in use", "one rule"],
)
def test_a_group_without_a_parameter_is_not_warned_of(recipe, labels):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recipe.optimizer(labels).init(PARAMS)
