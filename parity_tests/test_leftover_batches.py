"""Accumulation where the batches of an update don't divide an epoch, as docs/porting.md writes it.

The reference is a live torch loop with each row's ``if``. Every batch has a gradient of its own, a
unit vector, and every rate is a power of 2: what each update moves is equal to the bit.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsched import Recipe, optimizers, schedules

torch = pytest.importorskip("torch", reason="the reference is a live torch loop")
pytestmark = pytest.mark.torch

EPOCHS = 3


def halves(update):
    return 0.5**update


def by_position(k, n):
    return lambda i: jnp.where((i % n < k) & (i >= n), k + n % k, k)


def whole_updates(k, n):
    return lambda i: halves(i // n * (n // k) + i % n // k)


# From the row of the page to the rate and the accumulation, given k and n.
PORTS = {
    "counted on": lambda k, n: (
        schedules.per_epoch(halves, k),
        optimizers.Accumulation(schedules.constant(k)),
    ),
    "kept": lambda k, n: (whole_updates(k, n), optimizers.Accumulation(by_position(k, n))),
    "an update": lambda k, n: (
        schedules.per_update(halves, k, n),
        optimizers.Accumulation(schedules.update_batches(k, n)),
    ),
    "dropped": lambda k, n: (
        whole_updates(k, n),
        optimizers.Accumulation(by_position(k, n), steps_per_epoch=n),
    ),
}
RUNS = [(3, 7), (3, 8), (4, 6)]


def torch_moves(row, k, n):
    """Return what each batch of the loop moves the parameter by, a row a batch."""
    gradients = torch.eye(EPOCHS * n, dtype=torch.float32)
    weight = torch.nn.Parameter(torch.zeros(EPOCHS * n))
    optimizer = torch.optim.SGD([weight], lr=1.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, halves)
    moves = []
    for epoch in range(EPOCHS):
        if row == "dropped":
            optimizer.zero_grad()
        for b in range(n):
            before = weight.detach().clone()
            i = epoch * n + b
            (weight @ gradients[i]).backward()
            number = i if row == "counted on" else b
            if (number + 1) % k == 0 or (row == "an update" and b + 1 == n):
                optimizer.step()
                optimizer.zero_grad()
                scheduler.step()
            moves.append((weight.detach() - before).numpy())
    return np.stack(moves)


def port_moves(port, k, n):
    rate, accumulation = PORTS[port](k, n)
    recipe = Recipe({"all": {"learning_rate": rate}}, accumulation=accumulation)
    params = jnp.zeros(EPOCHS * n)
    tx = recipe.optimizer("all")

    def update(state, gradient):
        moves, state = tx.update(gradient, state, params)
        return state, moves

    return np.asarray(jax.lax.scan(update, tx.init(params), jnp.eye(EPOCHS * n))[1])


@pytest.mark.parametrize(("k", "n"), RUNS)
def test_leftover_batches_go_where_torchs_loop_has_them(k, n):
    torchs = {row: torch_moves(row, k, n) for row in PORTS}
    for port in PORTS:
        moves = port_moves(port, k, n)
        equal = [row for row in PORTS if np.array_equal(moves, torchs[row])]
        assert equal == [port]
