"""The update inside transformations of JAX and Optax, at large counts, and with NaN gradients."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from bounds import MUON_BOUND
from conftest import long_after

import jaxsched
from jaxsched import Recipe, lr_scheduler, optimizers, param_groups, recipes, schedules

RUN = {"epochs": 4, "steps_per_epoch": 10, "warmup_iterations": 15}
STEPS = 25


def params_of(dtype=jnp.float32):
    rng = np.random.default_rng(0)
    return {
        "conv": {"kernel": jnp.asarray(rng.normal(size=(3, 4)), dtype), "bias": jnp.ones(4, dtype)},
        "bn": {"scale": jnp.ones(4, dtype)},
    }


def gradients_of(params, iteration):
    """Return gradients that depend on parameters and iteration."""
    return jax.tree.map(lambda p: (p * 0.1 + jnp.cos(iteration + p)).astype(p.dtype), params)


def step(tx, carry, iteration):
    params, state = carry
    updates, state = tx.update(gradients_of(params, iteration), state, params)
    return (optax.apply_updates(params, updates), state), jaxsched.hyperparameters(state)


def one_by_one(tx, params, steps=STEPS):
    carry, rows = (params, tx.init(params)), []
    jitted = jax.jit(functools.partial(step, tx))
    for k in range(steps):
        carry, row = jitted(carry, k)
        rows.append(row)
    return carry, jax.tree.map(lambda *column: np.array(column), *rows)


def optimizer(recipe=None, labels=param_groups.by_leaf_name):
    return (recipe or recipes.yolov5_resnet18(**RUN)).optimizer(labels)


def rates_of(rows):
    return {f"{g}/{k}": np.asarray(v) for g, group in rows.items() for k, v in group.items()}


def assert_same(mine, theirs):
    for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
        assert a.dtype == b.dtype
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def assert_is_recipe(rows, recipe, steps=STEPS):
    assert_same(rates_of(rows), rates_of(recipe.trace(steps).groups))


# Inside a scan or a checkpoint XLA fuses other products into sums: this is relative to a leaf's
# largest entry, after 25 updates.
FUSED = 2e-5


def assert_near(mine, theirs):
    for a, b in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
        assert abs(a - b).max() <= FUSED * abs(b).max()


def test_scan_over_an_epoch():
    recipe, tx = recipes.yolov5_resnet18(**RUN), optimizer()
    carry, _ = one_by_one(tx, params_of())
    run = jax.jit(functools.partial(jax.lax.scan, functools.partial(step, tx)))
    scanned, rows = run((params_of(), tx.init(params_of())), jnp.arange(STEPS))
    assert_is_recipe(rows, recipe)
    assert_near(scanned[0], carry[0])
    later, _ = run((params_of(), tx.init(params_of())), jnp.arange(1, STEPS + 1))
    assert (
        max(
            abs(a - b).max()
            for a, b in zip(*map(jax.tree.leaves, (later[0], carry[0])), strict=True)
        )
        > 0.01
    )


def test_vmap_over_recipes():
    def last(lr0, lrf):
        groups = recipes.yolov5_resnet18(**RUN, lr0=lr0, lrf=lrf)
        tx = optimizer(groups)
        carry, rows = jax.lax.scan(
            functools.partial(step, tx), (params_of(), tx.init(params_of())), jnp.arange(STEPS)
        )
        return carry[0], rows

    pairs = [(0.01, 0.2), (0.001, 0.1), (0.05, 0.5)]
    many, rows = jax.jit(jax.vmap(last))(*jnp.asarray(pairs).T)
    for k, (lr0, lrf) in enumerate(pairs):
        alone, row = jax.jit(last)(jnp.float32(lr0), jnp.float32(lrf))
        assert_same(jax.tree.map(lambda a, k=k: a[k], rows), row)
        assert_near(jax.tree.map(lambda a, k=k: a[k], many), alone)


def test_donated_buffers():
    tx = optimizer()
    carry, _ = one_by_one(tx, params_of())
    donating = jax.jit(functools.partial(step, tx), donate_argnums=0)
    mine = params_of(), tx.init(params_of())
    for k in range(STEPS):
        first, (mine, _) = mine, donating(mine, k)
        assert first[0]["conv"]["kernel"].is_deleted()
    assert_same(mine, carry)


def test_a_donated_loop():
    tx = optimizer()
    loop = jax.jit(
        lambda carry: jax.lax.scan(functools.partial(step, tx), carry, jnp.arange(STEPS))[0],
        donate_argnums=0,
    )
    first = params_of(), tx.init(params_of())
    buffers = [leaf.unsafe_buffer_pointer() for leaf in jax.tree.leaves(first)]
    assert len(set(buffers)) == len(buffers)
    mine = loop(first)
    assert first[0]["conv"]["kernel"].is_deleted()
    assert_near(mine[0], one_by_one(tx, params_of())[0][0])


def test_checkpointed_loss_and_update():
    tx = optimizer()

    def params_after(params, checkpointed):
        one = functools.partial(step, tx)
        one = jax.checkpoint(one) if checkpointed else one
        carry = params, tx.init(params)
        for k in range(3):
            carry, _ = one(carry, k)
        return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(carry[0]))

    plain, again = (
        jax.jit(jax.grad(functools.partial(params_after, checkpointed=c)))(params_of())
        for c in (False, True)
    )
    assert_near(again, plain)


@pytest.mark.parametrize("rule", [optimizers.sgd, optimizers.adamw, optimizers.rmsprop])
def test_bfloat16_parameters(rule):
    recipe = Recipe(
        {
            label: {
                "learning_rate": schedules.table(np.linspace(0.1, 0.01, STEPS)),
                "weight_decay": 0.1,
            }
            for label in ("weight", "bias", "norm")
        },
        rule,
    )
    (params, _), rows = one_by_one(optimizer(recipe), params_of(jnp.bfloat16))
    assert_is_recipe(rows, recipe)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.bfloat16)}
    wide, _ = one_by_one(optimizer(recipe), params_of())
    # 25 roundings to 8 bits, each of half a unit in 256.
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(wide[0]), strict=True):
        assert abs(a.astype(jnp.float32) - b).max() <= STEPS / 256 * max(1, abs(b).max())


def test_gradient_through_updates():
    """Meta-learning: the loss after three updates, by the parameters before and by the rate."""
    with jax.enable_x64(True):
        target = jnp.arange(3.0)

        def loss_after(start, rate):
            recipe = Recipe({"all": {"learning_rate": rate, "momentum": 0.9}})
            tx = recipe.optimizer(lambda params: jax.tree.map(lambda _: "all", params))
            params, state = start, tx.init(start)
            for _ in range(3):
                gradients = jax.grad(lambda p: jnp.sum((p - target) ** 2))(params)
                updates, state = tx.update(gradients, state, params)
                params = optax.apply_updates(params, updates)
            return jnp.sum((params - target) ** 2)

        start, rate, h = jnp.ones(3), jnp.asarray(0.03), 1e-6
        by_start, by_rate = jax.jit(jax.grad(loss_after, (0, 1)))(start, rate)
        differences = [
            (loss_after(start + h * d, rate) - loss_after(start - h * d, rate)) / (2 * h)
            for d in jnp.eye(3)
        ]
        difference = (loss_after(start, rate + h) - loss_after(start, rate - h)) / (2 * h)
        # A central difference of a polynomial: h² of it, and rounding over h.
        assert abs(by_start - jnp.array(differences)).max() <= 1e-8
        assert abs(by_rate - difference) <= 1e-8 * abs(difference)
        assert by_rate < 0


@pytest.mark.parametrize("recipe", ["yolov5_resnet18", "yolov5"])
def test_export_for_machines_that_are_not_here(recipe):
    programs = {
        "yolov5_resnet18": lambda: recipes.yolov5_resnet18(**RUN),
        "yolov5": lambda: recipes.yolov5(epochs=10, steps_per_epoch=40),
    }[recipe]()
    tx = optimizer(programs)
    like = jax.eval_shape(lambda: (params_of(), tx.init(params_of()), params_of()))
    exported = jax.export.export(jax.jit(tx.update), platforms=("cpu", "cuda", "tpu"))(*like)
    assert exported.platforms == ("cpu", "cuda", "tpu")
    for platform in ("cuda", "tpu"):
        alone = jax.export.export(jax.jit(tx.update), platforms=(platform,))(*like)
        assert alone.platforms == (platform,)
    values = params_of(), tx.init(params_of()), params_of()
    assert_same(exported.call(*values), jax.jit(tx.update)(*values))


@pytest.mark.parametrize("first", [2**24 - 3, 2**31 - 12])
def test_rates_where_counts_grow_large(first):
    """Past 2**24 a float32 count stops; int32 ends at 2**31."""
    steps = 8
    recipe = Recipe(
        {
            "all": {
                "learning_rate": lambda i: (i % 7 + 1) * 1e-3,
                "momentum": lr_scheduler.linear_lr(0.9, 1.0, 0.1, total_iters=2**31),
            }
        },
        start=first,
    )
    tx = recipe.optimizer(lambda params: jax.tree.map(lambda _: "all", params))
    _, rows = one_by_one(tx, params_of(), steps)
    iterations = np.arange(first, first + steps)
    rates = ((iterations % 7 + 1) * 1e-3).astype(np.float32)
    assert rows["all"]["learning_rate"].tolist() == rates.tolist()
    assert (
        rows["all"]["learning_rate"].tolist()
        == recipe.trace(steps).groups["all"]["learning_rate"].tolist()
    )
    momentum = 0.9 * (1.0 + (0.1 - 1.0) * (iterations / 2**31))
    assert rows["all"]["momentum"].tolist() == momentum.astype(np.float32).tolist()
    stands_still = np.float32(first) + np.arange(steps, dtype=np.float32)
    assert ((stands_still % 7 + 1) * 1e-3).astype(np.float32).tolist() != rates.tolist()


@pytest.mark.parametrize("last", [-1, None])
@pytest.mark.parametrize("first", [2**24 - 3, 2**31 - 12])
def test_accumulation_where_counts_grow_large(first, last):
    accumulation = optimizers.Accumulation(schedules.constant(3), 5, last_update=last)
    recipe = Recipe({"all": {"learning_rate": 0.1}}, accumulation=accumulation, start=first)
    tx = recipe.optimizer(lambda params: jax.tree.map(lambda _: "all", params))
    params, stepped = params_of(), []
    state = tx.init(params)
    for _ in range(9):
        _, state = jax.jit(tx.update)(params, state, params)
        stepped.append(bool(optimizers.stepped(state)))
    last, due = first - 1 if last is None else last, []
    for i in range(first, first + 9):
        due.append(i - last >= 3)
        last = i if due[-1] else last
    assert stepped == due


def test_the_count_ends_where_int32_does():
    recipe = Recipe({"all": {"learning_rate": lambda i: i * 1e-9}}, start=2**31 - 2)
    tx = recipe.optimizer(lambda params: jax.tree.map(lambda _: "all", params))
    _, rows = one_by_one(tx, params_of(), 4)
    # It stays at the last, as Optax's counts do, and never turns negative.
    last = np.float32((2**31 - 1) * 1e-9)
    assert rows["all"]["learning_rate"].tolist()[1:] == [last] * 3
    with pytest.raises(ValueError, match=r"start \+ n must be below 2\*\*31"):
        recipe.trace(4)


def skip_nonfinite(tx, most=100):
    return optax.apply_if_finite(tx, max_consecutive_errors=most)


def test_gradients_that_are_no_numbers_are_left_out_by_apply_if_finite():
    """The count does not advance: the next good batch has the rates of the bad one."""
    recipe = recipes.yolov5_resnet18(**RUN)
    tx = skip_nonfinite(optimizer(recipe))
    params = params_of()
    state, good = tx.init(params), 0
    update, rows = jax.jit(tx.update), recipe.trace(STEPS).groups
    for k in range(10):
        bad = k in (2, 3, 7)
        gradients = jax.tree.map(lambda g, bad=bad: jnp.full_like(g, jnp.nan) if bad else g, params)
        updates, state = update(gradients, state, params)
        params = optax.apply_updates(params, updates)
        assert bool(optimizers.stepped(state)) is not bad
        good += not bad
        in_force = jaxsched.hyperparameters(state)["bias"]["learning_rate"]
        assert in_force == rows["bias"]["learning_rate"][good - 1]
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params))
    clean = optimizer(recipe)
    other, plain = params_of(), clean.init(params_of())
    for _ in range(good):
        updates, plain = jax.jit(clean.update)(other, plain, other)
        other = optax.apply_updates(other, updates)
    assert_same((params, state.inner_state), (other, plain))


@pytest.mark.torch
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_gradients_that_are_no_numbers_do_what_they_do_in_torch(momentum):
    """They reach parameter and buffer, and the count advances."""
    torch = pytest.importorskip("torch", reason="the reference is live torch")
    p = torch.ones(3, requires_grad=True)
    theirs = torch.optim.SGD([p], lr=0.1, momentum=momentum)
    recipe = Recipe({"all": {"learning_rate": 0.1, "momentum": momentum}})
    tx = recipe.optimizer(lambda params: jax.tree.map(lambda _: "all", params))
    params = {"p": jnp.ones(3)}
    state = tx.init(params)
    for bad in ([1.0, 1.0, 1.0], [np.nan, 1.0, np.inf], [1.0, 1.0, -np.inf]):
        p.grad = torch.tensor(bad)
        theirs.step()
        updates, state = tx.update({"p": jnp.asarray(bad)}, state, params)
        params = optax.apply_updates(params, updates)
        np.testing.assert_array_equal(params["p"], p.detach().numpy())
    assert int(state.iteration) == 3


RULES = {
    name: getattr(optimizers, name)
    for name in (
        *("adadelta", "adafactor", "adagrad", "adam", "adamax", "adamw", "asgd", "muon", "musgd"),
        *("nadam", "radam", "rmsprop", "rprop", "sgd"),
    )
}
EXTRA = {
    "sgd": {"momentum": 0.9, "nesterov": True},
    "sgd without momentum": {},
    "musgd": {"momentum": 0.9, "nesterov": True, "use_muon": True, "iteration_dtype": "float64"},
    "rmsprop": {"momentum": 0.9},
    "rmsprop without momentum": {},
}
INJECTED = [*RULES, "sgd without momentum", "rmsprop without momentum"]


@pytest.mark.parametrize("name", long_after(5, INJECTED))
def test_inject_hyperparams_around_every_rule(name):
    """Its arrays may or may not be 0; the results equal those of numbers."""
    with jax.enable_x64(True):
        rule = functools.partial(RULES[name.split()[0]], **EXTRA.get(name, {}))
        params = {"kernel": jnp.asarray(np.random.default_rng(0).normal(size=(4, 3)))}
        injected, plain = optax.inject_hyperparams(rule)(learning_rate=0.1), rule(0.1)
        mine, theirs = ((params, tx.init(params)) for tx in (injected, plain))
        for k in range(3):
            mine, theirs = (
                step_without_rates(tx, carry, k)
                for tx, carry in ((injected, mine), (plain, theirs))
            )
        # Relative to the sum of the rates. Muon's products are rounded to bfloat16, and its loop is
        # compiled by itself: the bound is that of its conformance to torch.
        bound = MUON_BOUND if name == "muon" else 1e-13
        assert abs(mine[0]["kernel"] - theirs[0]["kernel"]).max() <= bound * 0.3
        assert abs(theirs[0]["kernel"] - params["kernel"]).max() > 1e-3
        if "without" in name:  # an array is not known to be 0
            assert "momentum_buffer" in mine[1].inner_state.trees
            assert "momentum_buffer" not in theirs[1].trees


def step_without_rates(tx, carry, iteration):
    params, state = carry
    updates, state = jax.jit(tx.update)(gradients_of(params, iteration), state, params)
    return optax.apply_updates(params, updates), state


@pytest.mark.parametrize("dampening", [0.5, 1e-3])
def test_nesterov_with_dampening_is_refused_still(dampening):
    with pytest.raises(ValueError, match="nesterov must go with a momentum above 0 and no damp"):
        optimizers.sgd(0.1, 0.9, nesterov=True, dampening=dampening)


KERNEL = {"kernel": jnp.ones((8, 4))}
EVERYTHING = {
    "clip_norm": 1.0,
    "accumulation": optimizers.Accumulation(schedules.constant(2)),
    "ema": optimizers.EMA(),
}


def optimizer_of(name, labels=param_groups.by_leaf_name):
    group = {"learning_rate": lambda i: 0.1 / (1 + i)}
    return Recipe({"weight": group}, RULES[name], **EVERYTHING).optimizer(labels)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("kind", ["number", "schedule", "recipe", "recipe with a tree of labels"])
def test_tree_map_params(name, kind):
    tx = {
        "number": lambda: RULES[name](0.1),
        "schedule": lambda: RULES[name](lambda i: 0.1 / (1 + i)),
        "recipe": lambda: optimizer_of(name),
        "recipe with a tree of labels": lambda: optimizer_of(name, {"kernel": "weight"}),
    }[kind]()
    state = tx.init(KERNEL)
    marked = optax.tree_utils.tree_map_params(
        tx, lambda leaf, spec: spec, state, {"kernel": "spec"}, transform_non_params=lambda _: 0
    )
    leaves = jax.tree.leaves(marked)
    assert set(leaves) <= {0, "spec"}
    # At least a buffer, and the pending gradients; SGD without momentum has no buffer.
    assert leaves.count("spec") >= (name != "sgd") + kind.startswith("recipe")
    assert jax.tree.structure(marked) == jax.tree.structure(state)


GUARDED = {
    **{name: functools.partial(optimizer_of, name) for name in RULES},
    "yolov5": lambda: optimizer(recipes.yolov5(epochs=10, steps_per_epoch=40)),
    "ultralytics": lambda: optimizer(recipes.ultralytics(epochs=10, steps_per_epoch=40)),
    "yolov5_resnet18": optimizer,
}


@pytest.mark.parametrize("name", long_after(8, reversed(GUARDED)))
def test_nothing_is_transferred_implicitly(name):
    tx, ema = GUARDED[name](), optimizers.EMA()
    with jax.transfer_guard("disallow"):
        state, average = jax.jit(tx.init)(KERNEL), ema.init(KERNEL)
        for _ in range(2):
            _, state = jax.jit(tx.update)(KERNEL, state, KERNEL)
            average = jax.jit(ema.update)(average, KERNEL, optimizers.stepped(state))
        jaxsched.hyperparameters(state)
        with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
            jnp.asarray(True)  # the guard works


BEFORE_THE_RUN = {
    "yolov5": lambda: recipes.yolov5(epochs=10, steps_per_epoch=40),
    "ultralytics": lambda: recipes.ultralytics(epochs=10, steps_per_epoch=40),
    "yolov5_resnet18": lambda: recipes.yolov5_resnet18(**RUN),
    "constants": lambda: Recipe({"all": {"learning_rate": 0.1}}),
    "a function": lambda: Recipe({"all": {"learning_rate": lambda i: 0.1 * i}}),
}


@pytest.mark.parametrize("name", BEFORE_THE_RUN)
def test_an_iteration_below_0_has_no_value(name):
    recipe = BEFORE_THE_RUN[name]()
    for iteration in (-1, np.int32(-1), jnp.asarray(-1)):
        with pytest.raises(ValueError, match=r"^iteration must be at least 0, got -1\.$"):
            recipe.at(iteration)
    assert all(np.isnan(value) for value in jax.tree.leaves(jax.jit(recipe.at)(-1)))
    first = jax.jit(recipe.at)(0)
    assert_same(first, recipe.at(0))
    assert jax.tree.leaves(first)
    columns = jax.vmap(recipe.at)(jnp.arange(-2, 3))
    for column in jax.tree.leaves(columns):
        assert np.isnan(column).tolist() == [True, True, False, False, False]
