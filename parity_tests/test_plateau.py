"""ReduceLROnPlateau against live torch, and the Optax transformation on top of it."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

torch = pytest.importorskip("torch", reason="the reference is live torch")

from plateau_settings import (  # noqa: E402
    PlateauSetting,
    run_plateau,
    run_torch_plateau,
    sample_plateau,
    scan_plateau,
)

from jaxsched import lr_scheduler  # noqa: E402

pytestmark = pytest.mark.torch


def draws(n: int) -> list[PlateauSetting]:
    rng = np.random.default_rng(11)
    return [sample_plateau(rng) for _ in range(n)]


def test_rates_equal_torch_in_float64_after_each_metric() -> None:
    settings = draws(200)
    reductions = 0
    for setting, ours in zip(settings, run_plateau(settings), strict=True):
        theirs = run_torch_plateau(setting)
        np.testing.assert_array_equal(ours, theirs, str(setting.arguments))
        if (theirs != theirs[0]).any():
            reductions += 1
            assert (ours[1:] != theirs[:-1]).any(), "a wrong run passes too"
    assert reductions > 150


def test_rates_equal_torch_in_float32_scanned_and_eager() -> None:
    for setting in draws(8):
        plateau = lr_scheduler.reduce_lr_on_plateau(list(setting.base_lrs), **setting.arguments)
        theirs = run_torch_plateau(setting).astype(np.float32)
        theirs[theirs < np.finfo(np.float32).tiny] = 0  # as XLA rounds
        scanned = jax.jit(lambda metrics, p=plateau: scan_plateau(p, metrics))(setting.metrics)
        np.testing.assert_array_equal(scanned, theirs, str(setting.arguments))
        state = plateau.init()
        for metric, rates in zip(setting.metrics[:12], theirs[:12], strict=True):
            state = plateau.step(state, metric)
            np.testing.assert_array_equal(state.learning_rate, rates)


def test_strict_promotion() -> None:
    with jax.numpy_dtype_promotion("strict"):
        plateau = lr_scheduler.reduce_lr_on_plateau(0.1, patience=0)
        jax.jit(plateau.step)(plateau.init(), jnp.float32(1.0))


def test_one_compilation_and_float32_state() -> None:
    plateau = lr_scheduler.reduce_lr_on_plateau(0.1, patience=0)
    step, state = jax.jit(plateau.step, donate_argnums=0), plateau.init()
    for metric in [3.0, np.float32(2.0), jnp.ones(()), 5.0]:
        state = step(state, metric)
    assert {leaf.dtype.name for leaf in state} == {"float32", "int32"}
    traced: list[object] = []

    @jax.jit
    def count_traces(state, metric):
        traced.append(metric)
        return plateau.step(state, metric)

    for _ in range(3):
        state = count_traces(state, jnp.float32(2.0))
    assert len(traced) == 1


STEPS = {
    "in the update": lambda tx, plateau, grads, state, metric: tx.update(
        grads, state, metric=metric
    ),
    "on the state": lambda tx, plateau, grads, state, metric: (
        tx.update(grads, state)[0],
        plateau.step(tx.update(grads, state)[1], metric),
    ),
}


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_updates_are_scaled_and_never_counted(step: Any) -> None:
    """Three updates an epoch, a metric after the last; parameters equal torch's at each update."""
    losses = [1.0, 2.0, 2.0, 0.5, 0.6, 0.7, 0.8]
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.3, patience=1)

    plateau = lr_scheduler.reduce_lr_on_plateau(0.1, factor=0.3, patience=1)
    tx = optax.chain(optax.sgd(1.0), lr_scheduler.scale_on_plateau(plateau))
    params = jnp.ones(3)
    state = tx.init(params)
    grads = jnp.asarray([0.5, -1.0, 2.0])
    rates = set()
    for loss in losses:
        for batch in range(3):
            parameter.grad = torch.tensor([0.5, -1.0, 2.0])
            optimizer.step()
            if batch == 2:
                updates, state = step(tx, plateau, grads, state, loss)
            else:
                updates, state = tx.update(grads, state, params)
            params = optax.apply_updates(params, updates)
            np.testing.assert_array_equal(params, parameter.detach().numpy())
        scheduler.step(loss)
        rates.add(optimizer.param_groups[0]["lr"])
    assert len(rates) > 2


def test_bfloat16_updates_stay_bfloat16() -> None:
    tx = lr_scheduler.scale_on_plateau(lr_scheduler.reduce_lr_on_plateau(0.1))
    updates, _ = tx.update(jnp.ones(2, jnp.bfloat16), tx.init(jnp.ones(2)))
    assert jax.tree.leaves(updates)[0].dtype == jnp.bfloat16


REFUSED = [
    ({"mode": "least"}, "mode must be 'min' or 'max', got 'least'"),
    ({"threshold_mode": "log"}, "threshold_mode must be 'rel' or 'abs', got 'log'"),
    ({"factor": 1.0}, "factor must be below 1, got 1.0"),
    ({"min_lr": [0.1, 0.2, 0.3]}, r"min_lr must be one rate for each of 2 groups, got \[0.1"),
]


@pytest.mark.parametrize(("arguments", "sentence"), REFUSED)
def test_bad_arguments_are_refused(arguments: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        lr_scheduler.reduce_lr_on_plateau([0.1, 0.1], **arguments)
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))]} for _ in range(2)]
    with pytest.raises(ValueError, match=r"."):
        torch.optim.lr_scheduler.ReduceLROnPlateau(torch.optim.SGD(groups, lr=0.1), **arguments)


def test_one_min_lr_for_one_group() -> None:
    sentence = r"min_lr must be one rate for one group, got \[0.1, 0.2\]. Pass one number"
    with pytest.raises(ValueError, match=sentence):
        lr_scheduler.reduce_lr_on_plateau(0.1, min_lr=[0.1, 0.2])
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    with pytest.raises(ValueError, match="expected 1 min_lrs, got 2"):
        torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, min_lr=[0.1, 0.2])


@pytest.mark.parametrize("base_lr", [[0.1, 0.2], np.asarray([0.1, 0.2])])
def test_updates_are_scaled_by_one_rate(base_lr: Any) -> None:
    plateau = lr_scheduler.reduce_lr_on_plateau(base_lr, min_lr=[0.0, 0.01])
    with pytest.raises(ValueError, match="plateau must have one rate, got one for each of 2 group"):
        lr_scheduler.scale_on_plateau(plateau)


def test_a_state_without_a_plateau() -> None:
    plateau = lr_scheduler.reduce_lr_on_plateau(0.1)
    with pytest.raises(ValueError, match="state must hold a PlateauState, got tuple without one"):
        plateau.step(optax.sgd(0.1).init(jnp.ones(2)), 1.0)


def test_metrics_pass_through_a_train_state_and_an_nnx_optimizer() -> None:
    linen = pytest.importorskip("flax.training.train_state", reason="flax is of the extra train")
    nnx = pytest.importorskip("flax.nnx", reason="flax is of the extra train")
    plateau = lr_scheduler.reduce_lr_on_plateau(0.5, factor=0.5, patience=0)
    tx = optax.chain(optax.sgd(1.0), lr_scheduler.scale_on_plateau(plateau))

    state = linen.TrainState.create(apply_fn=None, params={"w": jnp.ones(2)}, tx=tx)
    for loss in [1.0, 2.0]:
        state = state.apply_gradients(grads={"w": jnp.ones(2)})
        state = state.replace(opt_state=plateau.step(state.opt_state, loss))
    assert float(state.opt_state[1].learning_rate) == 0.25
    np.testing.assert_array_equal(state.params["w"], jnp.zeros(2))

    model = nnx.Linear(2, 2, rngs=nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, tx, wrt=nnx.Param)
    grads = nnx.grad(lambda model: model(jnp.ones((1, 2))).sum())(model)
    optimizer.update(model, grads, metric=1.0)
    optimizer.update(model, grads, metric=2.0)
    assert float(optimizer.opt_state[1].learning_rate[...]) == 0.25
    optimizer.opt_state = plateau.step(optimizer.opt_state, 3.0)
    assert float(optimizer.opt_state[1].learning_rate[...]) == 0.125
    optimizer.update(model, grads)
