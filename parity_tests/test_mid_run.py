"""A run in torch that is taken over in its middle, and the values outside of a recording.

Iterations count from the start of the run. The reference is the live objects, which run on.
"""

import dataclasses
import math
import re
import types
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

torch = pytest.importorskip("torch", reason="the reference is live torch")

from conftest import long_after  # noqa: E402
from torch.optim import lr_scheduler as reference  # noqa: E402
from torch.optim.swa_utils import SWALR  # noqa: E402

from jaxsched import Recipe, hyperparameters, optimizers, recipes, schedules  # noqa: E402
from jaxsched.optimizers import Accumulation  # noqa: E402
from jaxsched.torch import from_torch, import_state, record  # noqa: E402

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:.*lr_scheduler.step:UserWarning"),
    pytest.mark.filterwarnings("ignore:.*epoch parameter:UserWarning"),
]

BOUND = 1e-14
"""Relative to a leaf's largest entry: the bound of the update rules."""


def sgd(lr=0.1):
    parameter = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    return torch.optim.SGD([("w", parameter)], lr=lr, momentum=0.9)


def adam(lr=0.1):
    parameter = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
    return torch.optim.Adam([("w", parameter)], lr=lr)


def all_one(params):
    return jax.tree.map(lambda _: "0", params)


def scheduler_at_step(make, steps, optimizer=None):
    """Return a scheduler that has made steps."""
    scheduler = make(optimizer or sgd())
    for _ in range(steps):
        scheduler.step()
    return scheduler


def convert(scheduler, **arguments):
    return from_torch(scheduler.optimizer, scheduler, **{"steps_per_epoch": 1, **arguments})


def live_rates(scheduler, n):
    """Return the rates of the next ``n`` steps, the one in force first; this steps the scheduler."""
    rates = []
    for _ in range(n):
        rates.append(float(scheduler.optimizer.param_groups[0]["lr"]))
        scheduler.step()
    return rates


def rates_of(recipe, n, start=None):
    with jax.enable_x64(True):
        return recipe.trace(n, start).groups["0"]["learning_rate"].tolist()


def branching_factor(epoch):
    return 1 / (1 + epoch) if epoch < 1000 else 0.5


# Taking over under accumulation.


@pytest.mark.parametrize("make", [sgd, adam])
@pytest.mark.parametrize("given", [True, False], ids=["iteration", "start of the recipe"])
def test_updates_fall_where_torchs_loop_makes_them(make, given):
    """Every 4th batch updates and steps the scheduler; taken over after 8 batches."""
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(24, 3))
    optimizer = make()
    scheduler = reference.ExponentialLR(optimizer, 0.9)
    (parameter,) = optimizer.param_groups[0]["params"]

    def train(batches):
        parameter.grad = None
        for k in batches:
            gradient = torch.tensor(gradients[k])
            parameter.grad = gradient if parameter.grad is None else parameter.grad + gradient
            if k % 4 == 3:
                optimizer.step()
                parameter.grad = None
                scheduler.step()
            yield parameter.detach().numpy().copy()

    list(train(range(8)))
    recipe = from_torch(optimizer, scheduler, steps_per_epoch=4, iterations=16)
    recipe = dataclasses.replace(recipe, accumulation=Accumulation(schedules.constant(4)))
    assert recipe.start == 8
    with jax.enable_x64(True):
        params = {"w": jnp.asarray(parameter.detach().numpy())}
        if given:  # a recipe of the user's own, which starts at 0
            rate = lambda i: 0.1 * jnp.asarray(0.9) ** (i // 4)  # noqa: E731
            groups = {"0": recipe.groups["0"] | {"learning_rate": rate}}
            recipe = dataclasses.replace(recipe, start=0, groups=groups)
        tx = recipe.optimizer(all_one)
        state = import_state(optimizer.state_dict(), tx, params, iteration=8 if given else None)
        update, update_iterations = jax.jit(tx.update), []
        for k, theirs in zip(range(8, 24), train(range(8, 24)), strict=True):
            changes, state = update({"w": jnp.asarray(gradients[k])}, state, params)
            params = jax.tree.map(jnp.add, params, changes)
            update_iterations.append(bool(optimizers.stepped(state)))
            off = np.abs(np.asarray(params["w"]) - theirs).max()
            assert off <= BOUND * np.abs(theirs).max(), f"iteration {k}: {off:.3g}"
    assert update_iterations == [k % 4 == 3 for k in range(8, 24)]
    stepped = recipe.bookkeeping(16, 8)["stepped"]
    assert stepped.astype(bool).tolist() == update_iterations


@pytest.mark.parametrize("iteration", [None, 40, 60])
def test_a_resumed_process_of_the_originals_updates_at_its_first_batch(iteration):
    recipe = recipes.yolov5(epochs=3, steps_per_epoch=40, start_epoch=1, resumed=True)
    tx, params = recipe.optimizer(lambda p: {"w": "weight"}), {"w": jnp.zeros(3)}
    state = import_state(sgd().state_dict(), tx, params, iteration=iteration)
    assert int(state.iteration) == (iteration or 40)
    _, state = jax.jit(tx.update)(params, state, params)
    assert bool(optimizers.stepped(state))
    assert recipe.bookkeeping(1)["stepped"] == 1


# One clock.


def resumed_cosine(optimizer):
    optimizer.param_groups[0]["initial_lr"] = 0.1
    return reference.CosineAnnealingLR(optimizer, 100, last_epoch=9)


def yolov5_scheduler(optimizer):
    scheduler = reference.LambdaLR(optimizer, lambda e: 1 / (1 + e))
    scheduler.last_epoch = 29
    return scheduler


def fractional_restarts(optimizer):
    scheduler = reference.CosineAnnealingWarmRestarts(optimizer, 10)
    for k in range(7):
        scheduler.step(k / 2)
    return scheduler


def loaded_scheduler(optimizer):
    before = scheduler_at_step(lambda o: reference.StepLR(o, 30), 20)
    scheduler = reference.StepLR(optimizer, 30)
    scheduler.load_state_dict(before.state_dict())
    return scheduler


def swa(optimizer):
    return SWALR(optimizer, 0.05)


def two_phases(optimizer):
    warmup = reference.LinearLR(optimizer, 0.1, 1, 5)
    rest = [reference.CosineAnnealingLR(optimizer, 50), swa(optimizer)]
    return reference.SequentialLR(optimizer, [warmup, *rest], [5, 55])


STARTS = {
    "LambdaLR": (lambda o: reference.LambdaLR(o, branching_factor), 60, 60),
    "OneCycleLR": (lambda o: reference.OneCycleLR(o, 0.1, 100), 60, 60),
    "StepLR, fresh": (lambda o: reference.StepLR(o, 3), 0, 0),
    "StepLR, loaded": (loaded_scheduler, 3, 23),
    "warm restarts": (lambda o: reference.CosineAnnealingWarmRestarts(o, 10, 2), 60, 60),
    "SequentialLR, first": (two_phases, 4, 4),
    "SequentialLR, second": (two_phases, 5, 5),
    "SequentialLR, third": (two_phases, 60, 60),
    "ChainedScheduler": (lambda o: reference.ChainedScheduler([reference.StepLR(o, 3)]), 6, None),
    "SWALR": (swa, 6, None),
    "an object": (lambda o: types.SimpleNamespace(optimizer=o, step=lambda: None), 6, None),
    "last_epoch that was set": (yolov5_scheduler, 0, None),
    "last_epoch that was given": (resumed_cosine, 6, None),
    "restarts by fractions": (fractional_restarts, 0, None),
    "restarts by fractions, then whole": (fractional_restarts, 3, None),
}
"""A scheduler, the steps it makes, and the step of the run; None if that is unknown."""


@pytest.mark.parametrize("case", long_after(8, STARTS))
def test_a_recipe_starts_at_the_step_of_its_scheduler(case):
    make, steps, expected = STARTS[case]
    scheduler = scheduler_at_step(make, steps)
    name = type(scheduler).__name__
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        recipe = convert(scheduler, steps_per_epoch=7, batches_done=2, iterations=50)
    note = (
        "start must be given where the steps of the run are not known, got "
        f"{name}: iterations count from 0."
    )
    messages = [str(w.message) for w in caught if "start must be given" in str(w.message)]
    if expected is None:
        assert messages == [f"{note} Pass start, that of the next batch."]
        assert recipe.origin.arguments["note"] == note
        assert recipe.start == 0
    else:
        assert not messages
        assert "note" not in recipe.origin.arguments
        assert recipe.start == expected * 7 + 2
    assert (recipe.iterations, recipe.length) == (50, recipe.start + 50)
    live = live_rates(scheduler, 8)
    assert rates_of(recipe, 50) == [live[(2 + k) // 7] for k in range(50)]


@pytest.mark.parametrize("start", [0, 1, 40, 59, 421])
@pytest.mark.parametrize("make", [swa, lambda o: reference.ExponentialLR(o, 0.9)])
def test_a_start_that_is_given_is_taken(make, start):
    scheduler = scheduler_at_step(make, 6)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recipe = convert(scheduler, start=start, steps_per_epoch=7, batches_done=2, iterations=50)
    assert recipe.start == start
    live = live_rates(scheduler, 20)
    assert rates_of(recipe, 100) == pytest.approx(
        [live[(2 + k) // 7] for k in range(100)], rel=1e-12
    )
    if start > 2:  # the row of the next batch is that of the two before it
        with pytest.raises(ValueError, match=r"^the table holds counts \d+ to \d+, got "):
            recipe.at(start - 3)


def test_the_rate_of_the_state_is_that_of_its_iteration():
    """Counting a run twice gave 9.5e-5 for 3.45e-4."""
    optimizer = sgd(1e-3)
    scheduler = scheduler_at_step(lambda o: reference.CosineAnnealingLR(o, 100), 60, optimizer)
    recipe = convert(scheduler, iterations=40)
    tx, params = recipe.optimizer(all_one), {"w": jnp.zeros(3)}
    state = import_state(optimizer.state_dict(), tx, params)
    rate = np.float32(optimizer.param_groups[0]["lr"])
    assert rate == np.float32(3.4549150281252634e-4)
    assert int(state.iteration) == recipe.start == 60
    assert hyperparameters(state)["0"]["learning_rate"] == rate
    again = import_state(optimizer.state_dict(), tx, params, iteration=60)
    jax.tree.map(np.testing.assert_array_equal, again, state)
    _, state = tx.update(params, state, params)
    assert hyperparameters(state)["0"]["learning_rate"] == rate
    wrapped = optax.apply_if_finite(optax.chain(optax.identity(), tx), 5)
    inside = import_state(optimizer.state_dict(), wrapped, params)
    assert hyperparameters(inside)["0"]["learning_rate"] == rate
    assert int(tx.init(params).iteration) == 60, "an import leaves no trace"
    scheduler.step()
    later = import_state(optimizer.state_dict(), tx, params, iteration=61)
    assert hyperparameters(later)["0"]["learning_rate"] == np.float32(
        optimizer.param_groups[0]["lr"]
    )


def test_earlier_iterations_are_refused_where_they_are_not_known():
    recipe = convert(
        scheduler_at_step(lambda o: reference.LambdaLR(o, branching_factor), 60), iterations=9
    )
    assert float(recipe.at(60)["0"]["learning_rate"]) == np.float32(0.1 / 61)
    for call in (lambda: recipe.at(59), lambda: recipe.trace(9, start=59)):
        with pytest.raises(ValueError, match=r"^the table holds counts 60 to 68, got 59\."):
            call()
    extended = convert(scheduler_at_step(lambda o: reference.StepLR(o, 7), 60), iterations=9)
    whole = live_rates(scheduler_at_step(lambda o: reference.StepLR(o, 7), 0), 300)
    ours = rates_of(extended, 300, start=0)
    np.testing.assert_allclose(ours, whole, rtol=0, atol=1e-12)
    assert ours[60:69] == whole[60:69]


# Where a recording ends.


def test_without_a_closed_form_the_iterations_must_be_given():
    scheduler = scheduler_at_step(lambda o: reference.LambdaLR(o, branching_factor), 0)
    sentence = (
        "iterations must be given where the scheduler has no closed form, got None for LambdaLR. "
        "Pass the batches from the next one to the end of the run."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        convert(scheduler)
    ending = [1.0, 0.5, 0.25]
    whole = convert(scheduler_at_step(lambda o: reference.LambdaLR(o, lambda e: ending[e]), 0))
    assert rates_of(whole, 3) == [0.1, 0.05, 0.025]


@pytest.mark.parametrize("T_max", [10, 1000])
def test_torchs_drift_over_many_periods_leaves_the_closed_form(T_max):
    recipe = convert(scheduler_at_step(lambda o: reference.CosineAnnealingLR(o, T_max), 0))
    assert recipe.at(10**6)["0"]["learning_rate"] == np.float32(0.1)


def resumed_swa(steps):
    """Return the rates of torch's SWALR in a new process that continues its count: it anneals again."""
    optimizer = sgd(0.25)
    scheduler_at_step(lambda o: SWALR(o, 0.05, 40), steps, optimizer)
    return SWALR(optimizer, 0.05, 40, last_epoch=steps - 1)


@pytest.mark.parametrize("iterations", [1, 2, 9])
def test_a_closed_form_that_matches_the_first_rows_is_not_used(iterations):
    scheduler = resumed_swa(4)
    recipe = convert(scheduler, start=4, iterations=iterations)
    first = scheduler.optimizer.param_groups[0]["lr"]
    assert rates_of(recipe, iterations)[0] == first
    with pytest.raises(ValueError, match=r"^the table holds counts 4 to "):
        recipe.at(4 + iterations)
    assert rates_of(recipe, iterations) == live_rates(scheduler, iterations)


def test_a_change_that_is_too_far_away_to_be_seen_is_not_extrapolated():
    scheduler = scheduler_at_step(lambda o: reference.ConstantLR(o, 0.5, 10**9), 0)
    with pytest.raises(ValueError, match=r"^the table holds counts 0 to 8, got 9\."):
        convert(scheduler, iterations=9).at(9)


def test_rates_and_cycled_momenta_end_with_the_recording_even_where_they_were_constant():
    def later(optimizer):
        members = [reference.ConstantLR(optimizer, 1.0), reference.OneCycleLR(optimizer, 0.5, 70)]
        return reference.SequentialLR(optimizer, members, [50])

    for optimizer, name in ((sgd(), "momentum"), (adam(), "b1")):
        recipe = convert(scheduler_at_step(later, 0, optimizer), iterations=20)
        group = recipe.groups["0"]
        for ends in ("learning_rate", name):
            assert len(set(np.asarray(jax.vmap(group[ends])(jnp.arange(20))).tolist())) == 1
            with pytest.raises(ValueError, match=r"^the table holds counts 0 to 19, got 20\."):
                group[ends](20)
            assert math.isnan(jax.jit(group[ends])(20))
        assert isinstance(group["weight_decay"], (int, float))
    plain = convert(
        scheduler_at_step(lambda o: reference.LambdaLR(o, branching_factor), 0), iterations=20
    )
    assert plain.groups["0"]["momentum"] == 0.9


@pytest.mark.parametrize("x64", [False, True])
def test_in_jit_a_rate_is_nan_outside_its_table(x64):
    with jax.enable_x64(x64):
        recipe = convert(
            scheduler_at_step(lambda o: reference.LambdaLR(o, branching_factor), 60), iterations=9
        )

        def rate(iteration):
            return recipe.at(iteration)["0"]["learning_rate"]

        counts = jnp.arange(57, 72)
        expected = [0.1 * branching_factor(c) if 60 <= c < 69 else math.nan for c in range(57, 72)]
        expected = np.asarray(expected, np.float64 if x64 else np.float32)
        for values in (
            [jax.jit(rate)(c) for c in counts],
            jax.jit(jax.vmap(rate))(counts),
            jax.lax.scan(lambda _, c: (_, rate(c)), None, counts)[1],
            jax.lax.map(rate, counts),
        ):
            np.testing.assert_array_equal(np.asarray(values), expected)
        for call in (lambda: recipe.trace(10), lambda: recipe.trace(9, start=57), lambda: rate(69)):
            with pytest.raises(ValueError, match=r"^the table holds counts 60 to 68, got"):
                call()


@pytest.mark.parametrize("start", [0, 5])
def test_in_jit_an_accumulation_makes_no_update_outside_its_table(start):
    wait = schedules.table([2] * 6, start=5)
    recipe = Recipe({"0": {"learning_rate": 0.1}}, accumulation=Accumulation(wait), start=5)
    tx, params = recipe.optimizer(all_one), {"w": jnp.ones(3)}
    state = tx.init(params)._replace(iteration=jnp.int32(start))

    def step(state, _):
        changes, state = tx.update(params, state, params)
        return state, (optimizers.stepped(state), changes["w"][0])

    _, (stepped, changes) = jax.jit(lambda s: jax.lax.scan(step, s, length=12))(state)
    within = [5 <= i < 11 and (i - 5) % 2 == 1 for i in range(start, start + 12)]
    assert stepped.tolist() == within
    assert np.isfinite(changes).all()
    for first, n in ((5, 7), (4, 3)):
        with pytest.raises(ValueError, match=r"^the table holds counts 5 to 10, got"):
            recipe.accumulation.simulate(first, n)


def test_a_run_of_the_recorded_length_never_meets_a_nan():
    optimizer = sgd()
    scheduler = scheduler_at_step(lambda o: reference.LambdaLR(o, branching_factor), 60, optimizer)
    recipe = convert(scheduler, iterations=9)
    tx, params = recipe.optimizer(all_one), {"w": jnp.ones(3)}
    state = import_state(optimizer.state_dict(), tx, params)

    def step(carry, _):
        params, state = carry
        changes, state = tx.update(params, state, params)
        params = jax.tree.map(jnp.add, params, changes)
        return (params, state), hyperparameters(state)["0"]["learning_rate"]

    run = jax.jit(lambda carry, n: jax.lax.scan(step, carry, length=n), static_argnums=1)
    leaves = jax.tree.leaves(run((params, state), 9))
    assert all(np.isfinite(leaf).all() for leaf in leaves)
    (params, _), rates = run((params, state), 10)
    assert np.isnan(rates).tolist() == [False] * 9 + [True]
    assert np.isnan(params["w"]).all(), "a wrong run passes too"


def test_gradients_through_a_branch_that_is_not_taken_are_numbers():
    def rate(factor, count):
        late = schedules.table([1.0, 2.0], start=2)
        return schedules.table([0.5, 0.25], then=lambda c: factor * late(c))(count)

    gradient = jax.jit(jax.grad(rate))
    assert [float(gradient(3.0, c)) for c in range(4)] == [0, 0, 1, 2]
    assert math.isnan(gradient(3.0, 4))
    warmed = jax.jit(
        jax.grad(lambda start, c: schedules.warmup(schedules.table([1.0] * 9), 4, start=start)(c))
    )
    assert [float(warmed(0.5, c)) for c in (0, 2, 4, 8)] == [1, 0.5, 0, 0]


@pytest.mark.parametrize("accumulates", [False, True])
def test_a_schedule_without_a_table_compiles_without_a_nan(accumulates):
    def program(rate):
        accumulation = Accumulation(schedules.constant(4)) if accumulates else None
        recipe = Recipe({"0": {"learning_rate": rate}}, accumulation=accumulation)
        tx, params = recipe.optimizer(all_one), {"w": jnp.ones(3)}
        return jax.jit(tx.update).lower(params, tx.init(params), params).compile().as_text()

    assert "constant(nan)" not in program(schedules.cosine(100, lrf=0.1))
    assert "constant(nan)" in program(schedules.table([0.5, 0.25]))


# Recordings.


def test_a_recording_counts_from_the_start_of_the_run():
    optimizer = sgd()
    scheduler = reference.ExponentialLR(optimizer, 0.9)

    def train(n):
        for _ in range(n):
            optimizer.param_groups[0]["params"][0].grad = torch.ones(3, dtype=torch.float64)
            optimizer.step()
            scheduler.step()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        record(optimizer)
        train(6)
        with record(optimizer, start=6) as recording:
            train(3)
    assert (recording.trace.start, len(recording.trace)) == (6, 3)
    assert recording.trace.meta == {"optimizer": "SGD"}
    replayed = Recipe.from_trace(recording.trace)
    assert rates_of(replayed, 3) == pytest.approx([0.1 * 0.9**k for k in (6, 7, 8)])
    note = "start must be given where the optimizer has made updates, got SGD with a state: "
    with pytest.warns(UserWarning, match=f"^{note}rows count from 0. Pass start, the count of"):
        recording = record(optimizer)
    assert recording.trace.start == 0
    assert recording.trace.meta["note"] == f"{note}rows count from 0."
    with pytest.raises(ValueError, match=r"^start must be an integer of at least 0, got -1$"):
        record(optimizer, start=-1)


def test_a_fresh_adagrad_has_a_state_and_made_no_update():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        record(torch.optim.Adagrad([torch.ones(2, requires_grad=True)]))


def test_a_rate_that_a_recording_never_changed_ends_with_it():
    optimizer = sgd()
    with record(optimizer) as recording:
        for _ in range(4):
            optimizer.param_groups[0]["params"][0].grad = torch.ones(3, dtype=torch.float64)
            optimizer.step()
    replayed = Recipe.from_trace(recording.trace)
    assert rates_of(replayed, 4) == [0.1] * 4
    with pytest.raises(ValueError, match=r"^the table holds counts 0 to 3, got 4"):
        replayed.at(4)
    assert math.isnan(jax.jit(replayed.at)(4)["0"]["learning_rate"])
    assert replayed.groups["0"]["momentum"] == 0.9
    stated = Recipe({"0": {"learning_rate": 0.1}})
    assert Recipe.from_trace(stated.trace(4)).groups["0"]["learning_rate"] == 0.1


def test_the_start_of_an_optimizer_with_updates_and_no_scheduler_is_unknown():
    parameter = torch.nn.Parameter(torch.ones(2))
    optimizer = torch.optim.Adam([parameter])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert from_torch(optimizer).start == 0
    parameter.grad = torch.ones(2)
    optimizer.step()
    with pytest.warns(UserWarning, match="steps of the run are not known, got Adam"):
        recipe = from_torch(optimizer)
    assert "note" in recipe.origin.arguments
    assert from_torch(optimizer, start=1).start == 1


@pytest.mark.parametrize(
    ("lr", "iteration", "warned"),
    [
        (0.05, None, True),
        (0.05, 7, False),
        (0.05, 0, False),
        (0.1, None, False),
        (torch.tensor(0.05), None, False),
    ],
)
def test_a_run_that_would_begin_again_warns(lr, iteration, warned):
    """The state of a run whose rate has fallen, with a recipe that starts at 0."""
    model = torch.nn.Linear(2, 1)
    groups = [{"params": [pair], "lr": 0.1} for pair in model.named_parameters()]
    optimizer = torch.optim.SGD(groups, momentum=0.9)
    model(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    optimizer.param_groups[1]["lr"] = lr
    recipe = Recipe({label: {"learning_rate": 0.1, "momentum": 0.9} for label in ("w", "b")})
    params = {"kernel": jnp.ones((2, 1)), "bias": jnp.ones(1)}
    tx = recipe.optimizer({"kernel": "w", "bias": "b"})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        import_state(optimizer.state_dict(), tx, params, iteration=iteration)
    sentences = [str(each.message) for each in caught]
    sentence = (
        "the learning rate of b at iteration 0 must be that of the state_dict, 0.05, got 0.1. "
        "Pass the next batch's iteration, 0 to begin again."
    )
    assert sentences == [sentence] * warned
