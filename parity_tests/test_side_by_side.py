"""The assertion that runs both sides: frozen and large parameters, and its refusals."""

import jax
import numpy as np
import optax
import pytest

torch = pytest.importorskip("torch", reason="the reference is live torch")

from conftest import long_after  # noqa: E402

from jaxsched import Recipe, Trace, compare, lr_scheduler, optimizers, schedules  # noqa: E402
from jaxsched.torch import assert_optimizer_matches  # noqa: E402

pytestmark = pytest.mark.torch

NONE = "no usual mistake explains it"
SGD = {"momentum": 0.9, "nesterov": True}


def freeze_norm(parameters):
    """Return an optimizer of weight and norm, of which norm needs no gradient."""
    parameters["norm"].requires_grad_(False)
    return torch.optim.SGD([parameters["weight"], parameters["norm"]], 0.1, **SGD)


def part(labels, **rules):
    return optax.multi_transform({**rules, "frozen": optax.set_to_zero()}, labels)


def test_parameters_frozen_in_torch_must_be_frozen_in_the_port():
    labels = {"weight": "all", "bias": "frozen", "norm": "frozen"}
    rule = optimizers.sgd(0.1, 0.9, nesterov=True)
    assert_optimizer_matches(part(labels, all=rule), freeze_norm, updates=5)
    with pytest.raises(
        AssertionError, match=r"what torch's optimizer does not train is trained, as group 0$"
    ):
        assert_optimizer_matches(rule, freeze_norm, updates=5)


def test_a_clip_that_counts_frozen_parameters():
    labels = {"weight": "all", "bias": "frozen", "norm": "frozen"}
    rule = part(labels, all=optimizers.sgd(0.1, 0.9, nesterov=True))
    clip = optimizers.clip_grad_norm(1.0)
    trained = optax.masked(clip, {"weight": True, "bias": False, "norm": False})
    assert_optimizer_matches(optax.chain(trained, rule), freeze_norm, updates=5, clip_norm=1.0)
    with pytest.raises(AssertionError, match=r"cause: clip by a norm that counts what is frozen$"):
        assert_optimizer_matches(optax.chain(clip, rule), freeze_norm, updates=5, clip_norm=1.0)


MATRICES = {"params": {"a": np.ones((4, 3)), "b": np.eye(3)}, "updates": 5}


def test_a_rule_that_looks_at_a_parameter_as_a_whole():
    def factory(parameters):
        return torch.optim.Adafactor(parameters.values(), lr=0.02, weight_decay=0.1)

    assert_optimizer_matches(optimizers.adafactor(0.02, weight_decay=0.1), factory, **MATRICES)
    with pytest.raises(AssertionError, match=r"\nlikely cause: weight_decay 0\.0 for 0\.1$"):
        assert_optimizer_matches(optimizers.adafactor(0.02), factory, **MATRICES)


def test_no_cause_is_named_if_the_recipe_does_not_reproduce_torch():
    """Muon's matrices are rounded to bfloat16, in which two correct ones differ."""

    def factory(parameters):
        return torch.optim.Muon(parameters.values(), lr=0.02, weight_decay=0.1)

    with pytest.raises(AssertionError, match=rf"\n{NONE}$"):
        assert_optimizer_matches(
            optimizers.muon(0.02, weight_decay=0.1, layout="torch"), factory, **MATRICES
        )


def test_only_some_entries_of_a_large_parameter_are_searched():
    params = {"a": np.ones((300, 200)), "none": np.zeros((0, 3)), "one": np.float64(1.0)}

    def factory(parameters):
        return torch.optim.SGD(parameters.values(), 0.1, momentum=0.9)

    ahead, right = optimizers.sgd(0.1, 0.9, nesterov=True), optimizers.sgd(0.1, 0.9)
    arguments = {"params": params, "updates": 4}
    with pytest.raises(AssertionError, match=r"\nlikely cause: nesterov True for False$"):
        assert_optimizer_matches(ahead, factory, **arguments)
    with pytest.raises(AssertionError, match=r"\nlikely cause: clip missing$"):
        assert_optimizer_matches(right, factory, **arguments, clip_norm=1.0)


class Own(torch.optim.SGD):
    """An unknown optimizer."""


def test_an_optimizer_of_the_users_own_has_no_cause_but_is_compared():
    rule = optimizers.sgd(0.1, 0.9)
    assert_optimizer_matches(rule, lambda p: Own(p.values(), 0.1, momentum=0.9), updates=5)
    with pytest.raises(
        AssertionError, match=r"\nno usual mistake was tried: optimizer must be one"
    ):
        assert_optimizer_matches(rule, lambda p: Own(p.values(), 0.1, momentum=0.8), updates=5)


def test_a_difference_that_is_too_small_has_no_cause():
    with pytest.raises(AssertionError, match=r"\nthe parameters are not so far apart that "):
        assert_optimizer_matches(
            optimizers.sgd(0.1 * (1 + 2e-13)), lambda p: torch.optim.SGD(p.values(), 0.1), updates=2
        )


def test_rates_of_each_part_of_a_partition_are_compared():
    def partition(norm):
        injected = optax.inject_hyperparams(optax.sgd)
        rules = {"a": injected(0.1), "b": injected(norm)}
        return optax.multi_transform(rules, {"weight": "a", "bias": "a", "norm": "b"})

    def factory(parameters):
        groups = [[parameters["weight"], parameters["bias"]], [parameters["norm"]]]
        return torch.optim.SGD(
            [{"params": g, "lr": lr} for g, lr in zip(groups, (0.1, 0.2), strict=True)]
        )

    assert_optimizer_matches(partition(0.2), factory, labels=["a", "b"], updates=3)
    with pytest.raises(AssertionError, match=r"update 0: learning_rate of b is 0\.3 for torch's"):
        assert_optimizer_matches(partition(0.3), factory, labels=["a", "b"], updates=3)


def momentum(parameters):
    return torch.optim.SGD(parameters.values(), 0.1, momentum=0.9)


@pytest.mark.parametrize("seed", long_after(2, range(6)))
def test_a_parameter_of_one_entry_passes_through_zero(seed):
    one = {"params": {"scale": np.ones(1)}, "updates": 200, "seed": seed}
    assert_optimizer_matches(optimizers.sgd(0.1, 0.9), momentum, **one)
    with pytest.raises(AssertionError, match=r"of scale\[0\] is .* where 1\.?\d*e-14 is allowed"):
        assert_optimizer_matches(optimizers.sgd(0.1 * (1 + 1e-12), 0.9), momentum, **one)


def test_a_cause_is_named_beside_a_parameter_of_one_entry():
    params = {"weight": np.ones((3, 4)), "scale": np.ones(1)}
    with pytest.raises(AssertionError, match=r"\nlikely cause: nesterov True for False$"):
        assert_optimizer_matches(
            optimizers.sgd(0.1, 0.9, nesterov=True), momentum, params=params, updates=200
        )


def anneal(parameters):
    optimizer = torch.optim.AdamW(parameters.values(), lr=1e-3, weight_decay=0.05)
    return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=100)


def optax_port(**arguments):
    """Return a port without this package, in float32."""
    rate = optax.cosine_decay_schedule(1e-3, 100)
    rule = optax.inject_hyperparams(optax.adamw, hyperparam_dtype=np.float32)
    return rule(**{"learning_rate": rate, "weight_decay": 0.05, **arguments})


@pytest.mark.long
def test_the_bound_is_for_rates_too():
    assert_optimizer_matches(optax_port(), anneal, bound=1e-5)
    for off, bound in (({}, 1e-14), ({"b1": 0.9001}, 1e-5)):
        with pytest.raises(AssertionError, match=r"^the two differ at update 0: "):
            assert_optimizer_matches(optax_port(**off), anneal, bound=bound)


def show_other_rates(shown, acts):
    """Return a transformation whose state shows other rates than it uses."""

    def update(updates, state, params):
        (_, first), (updates, second) = (
            rule.update(updates, inner, params)
            for rule, inner in zip((shown, acts), state, strict=True)
        )
        return updates, (first, second)

    return optax.GradientTransformation(lambda p: (shown.init(p), acts.init(p)), update)


RATES_ALONE = {
    "none": (lambda count: 0.1 / (1 + count), None),
    "late": (lambda count: 0.1 / (1 + np.maximum(count - 1, 0)), " late"),
    "another": (lambda count: 0.1 / (1 + count) ** 1.01, NONE),
}


@pytest.mark.parametrize("name", RATES_ALONE)
def test_where_only_rates_differ_the_cause_is_that_of_compare(name):
    rate, cause = RATES_ALONE[name]

    def factory(parameters):
        optimizer = torch.optim.SGD(parameters.values(), 0.1)
        return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda k: 1 / (1 + k))

    right = optax.sgd(lambda count: 0.1 / (1 + count))
    shown = optax.inject_hyperparams(optax.sgd)(schedules.tabulate(rate, 21))
    if cause is None:
        assert_optimizer_matches(show_other_rates(shown, right), factory, updates=20)
        return
    with pytest.raises(AssertionError) as failure:
        assert_optimizer_matches(show_other_rates(shown, right), factory, updates=20)
    first, *causes = str(failure.value).splitlines()
    assert first.startswith("the two differ at update ")
    assert ": learning_rate of 0 is " in first
    torchs, mine = (
        Trace({"0": {"learning_rate": np.array([f(k) for k in range(20)])}}, clock="update")
        for f in (lambda k: 0.1 / (1 + k), rate)
    )
    # The causes that compare names for two traces.
    expected = [f"likely cause: {sentence}" for sentence in compare(mine, torchs).causes]
    assert causes == (expected or [NONE])
    assert cause in causes[0]


@pytest.mark.parametrize("alone", [True, False], ids=["rates alone", "parameters too"])
@pytest.mark.parametrize("other", [{"T_max": 9}, {}], ids=str)
def test_where_rates_differ_arguments_of_the_scheduler_are_tried(other, alone):
    def rate(T_max=10):
        return schedules.per_epoch(lr_scheduler.cosine_annealing_lr(0.1, T_max), 5)

    def factory(parameters):
        optimizer = torch.optim.SGD(parameters.values(), 0.1, momentum=0.9)
        return optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 10)

    tx = optax.inject_hyperparams(optax.sgd)(rate(**other), momentum=0.9)
    if alone:
        tx = show_other_rates(tx, optax.sgd(rate(), 0.9))
    arguments = {"updates": 60, "steps_per_epoch": 5}
    if not other:
        assert_optimizer_matches(tx, factory, **arguments)
        return
    cause = r"\nlikely cause: T_max 9 for 10 in cosine_annealing_lr$"
    with pytest.raises(AssertionError, match=cause):
        assert_optimizer_matches(tx, factory, **arguments)


@pytest.mark.parametrize("name", ["updates", "steps_per_epoch", "accumulation"])
def test_a_count_of_none_is_refused(name):
    with pytest.raises(ValueError, match=f"^{name} must be .*at least 1"):
        assert_optimizer_matches(optimizers.sgd(0.1), lambda p: None, **{name: 0})


def test_updates_past_the_end_of_a_scheduler_are_refused():
    def factory(parameters):
        optimizer = torch.optim.SGD(parameters.values(), 0.1, momentum=0.9)
        return optimizer, torch.optim.lr_scheduler.OneCycleLR(
            optimizer, 0.1, total_steps=6, cycle_momentum=False
        )

    cycle = lr_scheduler.one_cycle_lr(0.1, total_steps=6)
    tx = optimizers.sgd(cycle, 0.9)
    with pytest.raises(ValueError, match=r"^updates must be at most 6, where .* got 100: Tried to"):
        assert_optimizer_matches(tx, factory)
    assert_optimizer_matches(tx, factory, updates=6)


def test_a_scheduler_of_a_metric_is_refused():
    def factory(parameters):
        optimizer = torch.optim.SGD(parameters.values(), 0.1)
        return optimizer, torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)

    with pytest.raises(ValueError, match=r"^scheduler must not depend on a metric, got Reduce"):
        assert_optimizer_matches(optimizers.sgd(0.1), factory)


def test_a_scheduler_that_takes_its_count():
    class TakesCount:  # as timm's schedulers
        def __init__(self, optimizer):
            self.optimizer = optimizer

        def step(self, epoch, metric=None):
            self.optimizer.param_groups[0]["lr"] = 0.1 / (1 + epoch)

    def factory(parameters):
        optimizer = torch.optim.SGD(parameters.values(), 0.1)
        return optimizer, TakesCount(optimizer)

    def optimizer_of(late):
        rate = schedules.tabulate(lambda count: 0.1 / (1 + max(count - late, 0)), 20)
        return Recipe({"0": {"learning_rate": rate}}).optimizer(
            lambda params: jax.tree.map(lambda _: "0", params)
        )

    assert_optimizer_matches(optimizer_of(0), factory, updates=20)
    with pytest.raises(AssertionError, match=r"cause: schedule 1 update late$"):
        assert_optimizer_matches(optimizer_of(1), factory, updates=20)
