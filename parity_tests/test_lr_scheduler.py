"""jaxsched.lr_scheduler against live torch: every class, closed and replayed."""

import functools
import inspect
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch", reason="the reference is live torch")

from conftest import long_after  # noqa: E402
from scheduler_settings import CASES, LONG, Setting, compose, run_closed, run_torch  # noqa: E402
from torch.optim import lr_scheduler as reference  # noqa: E402
from torch.optim.swa_utils import SWALR  # noqa: E402

from jaxsched import lr_scheduler, schedules  # noqa: E402
from jaxsched.lr_scheduler._recursion import torch_rates  # noqa: E402

pytestmark = pytest.mark.torch

DRAWS = 40
CLOSED = [name for name, case in CASES.items() if case.closed]
WITH_MOMENTUM = ["CyclicLR", "OneCycleLR"]

PEAK_BOUND = 1e-11  # in float64: torch recurses, the closed form does not
DUST, DUST_BOUND = (
    1e-12,
    1e-15,
)  # of the peak: where the exact value is 0, torch's recursion leaves rounding errors


@functools.cache
def draws(name: str) -> list[Setting]:
    rng = np.random.default_rng([*name.encode()])
    return [CASES[name].sample(rng) for _ in range(DRAWS)]


def torch_values(name: str, setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    case = CASES[name]
    return run_torch(
        lambda optimizer: case.torch(optimizer, setting),
        setting.arguments["base_lr"],
        setting.steps,
    )


def rates(name: str, setting: Setting) -> list[float]:
    return torch_rates(CASES[name].closed_form(setting), setting.steps)


def rate_and_momentum(schedule: schedules.Schedule) -> list[Any]:
    """The schedules of the rate and, where there is one, of the momentum."""
    return [one for one in (schedule, schedule.momentum) if one is not None]


def evaluate_float64(schedule: Any, counts: Any) -> np.ndarray:
    with jax.enable_x64(True):
        return np.asarray(jax.jit(jax.vmap(schedule))(jnp.asarray(counts)))


def first_difference(ours: np.ndarray, theirs: np.ndarray) -> str:
    """Describe the first difference of two runs; empty if they are equal."""
    assert ours.shape == theirs.shape
    different = np.flatnonzero(ours != theirs)
    if not different.size:
        return ""
    i = different[0]
    return f"count {i}: {ours[i]!r} is not {theirs[i]!r}, {ours[i] - theirs[i]} off"


def closed_difference(ours: np.ndarray, theirs: np.ndarray) -> str:
    """Describe the first value of a closed form outside its bounds; empty if there is none."""
    peak = np.abs(theirs).max()
    off = np.abs(ours - theirs)
    dust = (np.abs(theirs) < DUST * peak) & (off <= DUST_BOUND * peak)
    equal = (ours.astype(np.float32) == theirs.astype(np.float32)) | dust
    wrong = np.flatnonzero(~equal | ~(off <= PEAK_BOUND * peak))
    return f"count {wrong[0]}: {ours[wrong[0]]!r} for {theirs[wrong[0]]!r}" if wrong.size else ""


def has_changes(run: np.ndarray) -> bool:
    return bool((run != run[0]).any())


def to_float32(run: np.ndarray) -> np.ndarray:
    """Round as XLA does: numbers below the smallest normal one become 0."""
    rounded = run.astype(np.float32)
    return np.where(np.abs(rounded) < np.finfo(np.float32).tiny, np.float32(0), rounded)


@pytest.mark.parametrize("name", CASES)
def test_replay_equals_torch_to_the_bit(name: str) -> None:
    for setting in draws(name):
        ours, (theirs, _) = np.asarray(rates(name, setting)), torch_values(name, setting)
        assert not first_difference(ours, theirs), setting
        assert not has_changes(theirs) or first_difference(ours[1:], theirs[:-1]), (
            "a wrong run passes too"
        )


def evaluate_together(curves: Any) -> list[np.ndarray]:
    """Evaluate ``[(schedule, counts), ...]`` in one program."""
    functions, counts = zip(*curves, strict=True)
    return jax.tree.map(
        np.asarray, jax.jit(lambda *c: [s(x) for s, x in zip(functions, c, strict=True)])(*counts)
    )


@pytest.mark.parametrize("name", CASES)
def test_replayed_table_equals_torch_to_the_bit(name: str) -> None:
    """Also the momenta, as a step gets them; there are fewer settings, since each is compiled."""
    settings = draws(name)[:6]
    replays = [CASES[name].replay(setting) for setting in settings]
    assert {replay.momentum is not None for replay in replays} == {name in WITH_MOMENTUM}
    curves = [
        (ours, np.arange(setting.steps + 1))
        for replay, setting in zip(replays, settings, strict=True)
        for ours in rate_and_momentum(replay)
    ]
    references = [
        values
        for setting in settings
        for values in torch_values(name, setting)[: 1 + (name in WITH_MOMENTUM)]
    ]
    narrow = evaluate_together(curves)
    with jax.enable_x64(True):
        wide = evaluate_together(curves)
    for rounded, run, theirs in zip(narrow, wide, references, strict=True):
        assert not first_difference(rounded, to_float32(theirs))
        assert not first_difference(run, theirs)
        assert not has_changes(theirs) or first_difference(run[1:], theirs[:-1]), (
            "a wrong run passes too"
        )


@pytest.mark.parametrize("name", CLOSED)
def test_closed_form_is_within_its_bounds(name: str) -> None:
    runs = run_closed(CASES[name], draws(name))
    for setting, run in zip(draws(name), runs, strict=True):
        theirs, _ = torch_values(name, setting)
        assert not closed_difference(run, theirs), setting
        assert not has_changes(theirs) or closed_difference(run[1:], theirs[:-1]), (
            "a wrong run passes too"
        )


@pytest.mark.parametrize("name", CLOSED)
def test_closed_form_of_plain_numbers(name: str) -> None:
    """XLA folds constants and divides by their reciprocals, which may change bits."""
    cases = [
        (ours, theirs, setting)
        for setting in draws(name)[:5]
        for ours, theirs in zip(
            rate_and_momentum(CASES[name].closed_form(setting)),
            torch_values(name, setting),
            strict=False,
        )
    ]
    curves = [(jax.vmap(ours), np.arange(setting.steps + 1)) for ours, _, setting in cases]
    narrow = evaluate_together(curves)
    with jax.enable_x64(True):
        wide = evaluate_together(curves)
    for (ours, theirs, setting), compiled, run in zip(cases, narrow, wide, strict=True):
        assert not closed_difference(run, theirs), setting
        rounded = to_float32(run)
        np.testing.assert_array_equal(compiled, rounded)
        dust = DUST_BOUND * np.abs(theirs).max()
        for count in range(0, len(run), max(1, len(run) // 4)):
            eager = np.asarray(ours(count), np.float64)
            assert abs(eager - rounded[count]) <= dust or eager == rounded[count], (setting, count)


@pytest.mark.parametrize("name", long_after(4, CASES))
def test_replay_of_100_000_steps(name: str) -> None:
    theirs, _ = torch_values(name, LONG[name])
    ours = np.asarray(rates(name, LONG[name]))
    assert not first_difference(ours, theirs)
    assert first_difference(ours[1:], theirs[:-1]), "a wrong run passes too"


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.optax])
def test_optax_has_these_schedules(name: str) -> None:
    """Each schedule that the conformance table compares with ours runs."""
    case = CASES[name]
    assert case.optax is not None
    curves = [case.optax(setting.arguments) for setting in draws(name)]
    schedules_ = [schedule for schedule in curves if schedule is not None]  # of two phases
    assert schedules_
    for schedule in schedules_:
        assert np.isfinite(schedule(0))


def test_random_nestings_are_replayed_to_the_bit() -> None:
    rng = np.random.default_rng(3)
    moved = 0
    for _ in range(60):
        base_lr = 10 ** rng.uniform(-5, 1)
        nesting = compose(rng, base_lr)
        theirs, _ = run_torch(nesting.torch, base_lr, 200)
        ours = np.asarray(torch_rates(nesting.ours(), 200))
        assert not first_difference(ours, theirs), nesting.text
        moved += has_changes(theirs)
        assert not has_changes(theirs) or first_difference(ours[1:], theirs[:-1]), (
            "a wrong run passes too"
        )
    assert moved > 50
    with jax.enable_x64(True):
        assert not first_difference(np.asarray(nesting.ours(steps=200)(np.arange(201))), theirs), (
            nesting.text
        )


def test_nested_sequence_is_one_step_early_as_in_torch() -> None:
    def build_torch(optimizer: Any) -> Any:
        inner = reference.SequentialLR(
            optimizer,
            [reference.ConstantLR(optimizer, 0.5, 9), reference.ExponentialLR(optimizer, 0.5)],
            [2],
        )
        return reference.SequentialLR(optimizer, [inner, reference.StepLR(optimizer, 3)], [6])

    inner = lr_scheduler.sequential_lr(
        [lr_scheduler.constant_lr(1.0, 0.5, 9), lr_scheduler.exponential_lr(1.0, 0.5)], [2]
    )
    outer = lr_scheduler.sequential_lr([inner, lr_scheduler.step_lr(1.0, 3)], [6], steps=20)
    theirs, _ = run_torch(build_torch, 1.0, 20)
    assert theirs[1] == 1.0  # the milestone is at 2
    np.testing.assert_array_equal(evaluate_float64(outer, np.arange(21)), theirs)


@pytest.mark.parametrize(
    ("T_0", "T_mult", "epochs", "misses"),
    [
        (10, 1, 35, False),
        (7, 2, 110, False),
        (4, 3, 500, True),  # the 5th restart, at 4 * 121
        (2, 10, 240, True),  # the 3rd, at 2 * 111
    ],
)
def test_warm_restarts_of_fractional_epochs(
    T_0: int, T_mult: int, epochs: int, misses: bool
) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.3)
    scheduler = reference.CosineAnnealingWarmRestarts(optimizer, T_0, T_mult, eta_min=0.01)
    given_epochs = [epoch + i / 4 for epoch in range(epochs) for i in range(4)]
    theirs = []
    for epoch in given_epochs:
        scheduler.step(epoch)
        theirs.append(optimizer.param_groups[0]["lr"])
    schedule = lr_scheduler.cosine_annealing_warm_restarts(0.3, T_0, T_mult, 0.01)
    given_epochs = np.asarray(given_epochs)  # quarters, which are exact in float32 too
    assert not closed_difference(evaluate_float64(schedule, given_epochs), np.asarray(theirs))
    np.testing.assert_array_equal(
        jax.jit(schedule)(given_epochs.astype(np.float32)), np.asarray(theirs, np.float32)
    )
    called, _ = run_torch(
        lambda o: reference.CosineAnnealingWarmRestarts(o, T_0, T_mult, eta_min=0.01),
        0.3,
        epochs - 1,
    )
    assert not closed_difference(evaluate_float64(schedule, np.arange(epochs)), called)
    assert misses == bool(closed_difference(np.asarray(theirs)[::4], called))


def test_saw_teeth_fall_where_they_should() -> None:
    """With a fall of length 0, count / total must not be off in its last bit."""
    cycle = lr_scheduler.cyclic_lr(0.1, 2.0, 49, 0)
    theirs, _ = run_torch(lambda o: reference.CyclicLR(o, 0.1, 2.0, 49, 0), 0.1, 299)
    assert not closed_difference(evaluate_float64(cycle, np.arange(300)), theirs)


def test_warm_restarts_count_calls_through_the_combinators() -> None:
    rates = lr_scheduler.cosine_annealing_warm_restarts(0.3, 2, 10)
    iterations = np.arange(440, 450, dtype=np.int32)
    for schedule in (
        schedules.per_epoch(rates, 2),
        schedules.warmup(schedules.per_epoch(rates, 2), 0, start=0.0),
        schedules.per_epoch(schedules.lagged(rates, after=300), 2),
    ):
        np.testing.assert_array_equal(jax.jit(schedule)(iterations), rates(iterations // 2))


@pytest.mark.parametrize("steps_per_epoch", [1, 30, 49, 98, 103, 107])
def test_per_epoch_is_integer_division(steps_per_epoch: int) -> None:
    """XLA turns a division by a constant into a product with its reciprocal: 49 / 49 < 1."""
    iterations = np.arange(3000)
    epochs = jax.jit(schedules.per_epoch(lambda epoch: epoch, steps_per_epoch))(iterations)
    np.testing.assert_array_equal(epochs, iterations // steps_per_epoch)


def test_lists_of_lambdas_give_one_schedule_a_group() -> None:
    factors = [lambda epoch: 0.9**epoch, lambda epoch: 1 / (1 + epoch)]
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": lr} for lr in (0.1, 2.0)]
    for ours, cls in (
        (lr_scheduler.lambda_lr, reference.LambdaLR),
        (lr_scheduler.multiplicative_lr, reference.MultiplicativeLR),
    ):
        optimizer = torch.optim.SGD([dict(group) for group in groups])
        scheduler = cls(optimizer, factors)
        optimizer.step()
        scheduler.step()
        with jax.enable_x64(True):
            rates = [float(s(1)) for s in ours([0.1, 2.0], factors, steps=3)]
        assert rates == [group["lr"] for group in optimizer.param_groups]


def test_lambda_of_a_schedule_is_replayed_in_float64() -> None:
    factor = schedules.cosine(100, lrf=0.2)
    with jax.enable_x64(True):
        exact = np.asarray([0.1 * float(factor(count)) for count in range(100)])
    replay = torch_rates(lr_scheduler.lambda_lr(0.1, factor, steps=99), 99)
    np.testing.assert_array_equal(replay, exact)


def test_lambdas_that_cannot_be_traced() -> None:
    def factor(epoch: int) -> float:
        return math.cos(epoch) if epoch > 3 else 1.0

    with pytest.raises(TypeError, match=r"lr_lambda must be made of .* got 'factor'. Pass steps=n"):
        jax.jit(lr_scheduler.lambda_lr(0.1, factor))(1)
    run = jax.jit(lr_scheduler.lambda_lr(0.1, factor, steps=9))(np.arange(10))
    theirs, _ = run_torch(lambda o: reference.LambdaLR(o, factor), 0.1, 9)
    np.testing.assert_array_equal(run, theirs.astype(np.float32))


def test_vmap_over_base_lr_scan_and_one_compilation() -> None:
    rates = jnp.asarray([1e-5, 0.1, 10.0])
    together = jax.vmap(lambda lr: lr_scheduler.one_cycle_lr(lr, total_steps=20)(7))(rates)
    alone = [lr_scheduler.one_cycle_lr(np.float64(lr), total_steps=20)(7) for lr in rates]
    np.testing.assert_array_equal(together, alone)

    chain = lr_scheduler.chained_scheduler(
        [lr_scheduler.linear_lr(0.1), lr_scheduler.exponential_lr(0.1, 0.9)], steps=30
    )
    traced = []

    @jax.jit
    def run(count: jax.Array) -> jax.Array:
        traced.append(count)
        return lr_scheduler.cosine_annealing_lr(0.1, 10)(count) + chain(count)

    one_by_one = [run(count) for count in range(25)]
    assert len(traced) == 1
    scanned = jax.lax.scan(lambda count, _: (count + 1, run(count)), 0, length=25)[1]
    np.testing.assert_array_equal(scanned, one_by_one)


@pytest.mark.parametrize("name", CLOSED)
def test_strict_promotion(name: str) -> None:
    with jax.numpy_dtype_promotion("strict"):
        for schedule in rate_and_momentum(CASES[name].closed_form(draws(name)[0])):
            jax.jit(schedule)(jnp.int32(1))


def test_past_the_end() -> None:
    replay = lr_scheduler.exponential_lr(1.0, 0.5, steps=3)
    assert math.isnan(jax.jit(replay)(9))
    with pytest.raises(ValueError, match="the table holds counts 0 to 3, got 4"):
        replay(4)
    for steps in (None, 10):
        cycle = lr_scheduler.one_cycle_lr(1.0, total_steps=10, steps=steps)
        for schedule in (cycle, cycle.momentum):
            past = float(jax.jit(schedule)(12))
            assert math.isnan(past) if steps else past == float(schedule(10))
            with pytest.raises(ValueError, match=r"count.*got 11"):
                schedule(11)
    with pytest.raises(ValueError, match="count must be at most 10, where the cycle of"):
        lr_scheduler.one_cycle_lr(1.0, total_steps=10, steps=11)


def test_without_cycled_momentum() -> None:
    assert lr_scheduler.cyclic_lr(0.1, 1.0, cycle_momentum=False).momentum is None
    cycle = lr_scheduler.one_cycle_lr(0.1, 10, cycle_momentum=False)
    assert cycle.momentum is None


def plain(count: Any) -> Any:
    return count


REFUSED = [
    (
        lambda m, o: m.step_lr(o, 0),
        ZeroDivisionError,
        "step_size must be an integer of at least 1, got 0",
    ),
    (
        lambda m, o: m.multi_step_lr(o, [1, -2]),
        None,
        r"milestones must be integers of at least 0, got \[1, -2\]",
    ),
    (
        lambda m, o: m.constant_lr(o, 1.5),
        ValueError,
        "factor must be a number above 0 and at most 1, .* 1.5",
    ),
    (
        lambda m, o: m.constant_lr(o, -0.1),
        ValueError,
        "factor must be a number above 0 .* got -0.1",
    ),
    (
        lambda m, o: m.constant_lr(o, 0.0),
        ZeroDivisionError,
        "factor must be a number above 0 and at most 1, to be divided by, got 0.0",
    ),
    (lambda m, o: m.constant_lr(o, 0.5, -1), None, "total_iters must be an integer of at least 0"),
    (
        lambda m, o: m.linear_lr(o, 0.0),
        ValueError,
        "start_factor must be above 0 and at most 1, got 0.0",
    ),
    (lambda m, o: m.linear_lr(o, 1.1), ValueError, "start_factor must be .* got 1.1"),
    (lambda m, o: m.linear_lr(o, 0.5, -1), ValueError, "end_factor must be within 0 and 1, got -1"),
    (lambda m, o: m.linear_lr(o, 0.5, 2), ValueError, "end_factor must be within 0 and 1, got 2"),
    (
        lambda m, o: m.polynomial_lr(o, 5, -1.0),
        ZeroDivisionError,
        "power must be at least 0, as 0 is raised to it, got -1.0",
    ),
    (
        lambda m, o: m.cosine_annealing_lr(o, 0),
        ZeroDivisionError,
        "T_max must be a number above 0, to be divided by, got 0",
    ),
    (
        lambda m, o: m.cosine_annealing_lr(o, 5 / 3),
        ZeroDivisionError,
        "T_max must be an integer, or such .*, got 1.66.*: torch divides by zero after count 5. Or",
    ),
    (
        lambda m, o: m.cosine_annealing_warm_restarts(o, 0),
        ValueError,
        "T_0 must be an integer of at least 1, got 0",
    ),
    (
        lambda m, o: m.cosine_annealing_warm_restarts(o, 1.5),
        ValueError,
        "T_0 must be an .* got 1.5",
    ),
    (lambda m, o: m.cosine_annealing_warm_restarts(o, 2, 0), ValueError, "T_mult must be .* got 0"),
    (
        lambda m, o: m.cosine_annealing_warm_restarts(o, 2, 1, "0"),
        ValueError,
        "eta_min must be a number, got '0'",
    ),
    (
        lambda m, o: m.cyclic_lr(o, 0.1, 1.0, mode="square"),
        ValueError,
        "mode must be among triangular, triangular2, exp_range, got 'square'. Or pass scale_fn.",
    ),
    (
        lambda m, o: m.cyclic_lr(o, 0.1, 1.0, 0),
        ZeroDivisionError,
        "step_size_up must be a number above 0, to be divided by, got 0",
    ),
    (lambda m, o: m.cyclic_lr(o, 0.1, 1.0, 1, -1), None, "step_size_down must be at least 0"),
    (
        lambda m, o: m.one_cycle_lr(o, 1.0),
        ValueError,
        "total_steps must be given, or epochs and steps_per_epoch, got epochs=None and",
    ),
    (
        lambda m, o: m.one_cycle_lr(o, 1.0, 0),
        ValueError,
        "total_steps must be an integer of at least 1, got 0",
    ),
    (lambda m, o: m.one_cycle_lr(o, 1.0, None, 0, 3), ValueError, "epochs must be .* got 0"),
    (lambda m, o: m.one_cycle_lr(o, 1.0, None, 3, 0), ValueError, "steps_per_epoch must be .* 0"),
    (
        lambda m, o: m.one_cycle_lr(o, 1.0, 10, pct_start=1.5),
        ValueError,
        "pct_start must be a float within 0 and 1, got 1.5",
    ),
    (
        lambda m, o: m.one_cycle_lr(o, 1.0, 10, pct_start=1),
        ValueError,
        "pct_start must be a float within 0 and 1, got 1",
    ),
    (
        lambda m, o: m.one_cycle_lr(o, [0.1, 0.2], 10),
        ValueError,
        r"each hyperparameter of one_cycle_lr must be one number, got \[0.1, 0.2\]: call it once",
    ),
    (
        lambda m, o: m.cyclic_lr(o, [0.1, 0.2], [1.0, 2.0], 5),
        ValueError,
        "each hyperparameter of cyclic_lr must be one number",
    ),
    (
        lambda m, o: m.swa_lr(o, [0.1, 0.2]),
        ValueError,
        "each hyperparameter of swa_lr must be one number",
    ),
    (
        lambda m, o: m.one_cycle_lr(o, 1.0, 10, anneal_strategy="step"),
        ValueError,
        "anneal_strategy must be one of cos, linear, got 'step'",
    ),
    (
        lambda m, o: m.one_cycle_lr(o, 1.0, 10, pct_start=0.1),
        ZeroDivisionError,
        r"pct_start \* total_steps must not be 1, got 0.1 \* 10: the first phase would have no",
    ),
    (
        lambda m, o: m.one_cycle_lr(o, 1.0, 10, div_factor=0),
        ZeroDivisionError,
        "div_factor must be a number other than 0, to be divided by, got 0",
    ),
    (
        lambda m, o: m.one_cycle_lr(o, 1.0, 10, final_div_factor=0),
        ZeroDivisionError,
        "final_div_factor must be a number other than 0",
    ),
    (
        lambda m, o: m.swa_lr(o, 0.1, anneal_strategy="step"),
        ValueError,
        "anneal_strategy must be one of cos, linear, got 'step'",
    ),
    (
        lambda m, o: m.swa_lr(o, 0.1, anneal_epochs=-1),
        ValueError,
        "anneal_epochs must be an integer of at least 0, got -1",
    ),
    (
        lambda m, o: m.lambda_lr(o, [plain, plain]),
        ValueError,
        "lr_lambda must have one function a group, got 2 for 1 groups",
    ),
    (
        lambda m, o: m.multiplicative_lr(o, [plain, plain]),
        ValueError,
        "lr_lambda must have one function a group, got 2 for 1 groups",
    ),
    (
        lambda m, o: m.sequential_lr(o, [], []),
        ValueError,
        "schedulers must hold at least 1, got none",
    ),
    (
        lambda m, o: m.sequential_lr(o, [m.exponential_lr(o, 0.5)], [2]),
        ValueError,
        "milestones must be one fewer than schedulers, got 1 for 1",
    ),
    (
        lambda m, o: m.sequential_lr(o, [m.step_lr(o, 1)] * 3, [5, 2]),
        None,
        r"milestones must be integers in ascending order, got \[5, 2\]",
    ),
    (
        lambda m, o: m.sequential_lr(
            o, [m.step_lr(o, 1), m.chained_scheduler(o, [m.step_lr(o, 1)])], [2]
        ),
        NotImplementedError,
        "schedulers entered at a milestone must not be compositions, got one: torch 2.13 cannot",
    ),
    (
        lambda m, o: m.sequential_lr(o, [m.step_lr(o, 1), m.linear_lr(o, total_iters=0)], [2]),
        ZeroDivisionError,
        "total_iters must be at least 1 after a milestone, where torch divides by it, got 0",
    ),
    (
        lambda m, o: m.chained_scheduler(o, []),
        ValueError,
        "schedulers must hold at least 1, got none",
    ),
]

WRONG_TYPES: list[Any] = [
    (lambda m, o: m.one_cycle_lr(o, 1.0, 2.5), ValueError, "total_steps must be .* got 2.5"),
    (
        lambda m, o: m.one_cycle_lr(o, 1.0, 10.0),
        ValueError,
        "total_steps must be an integer of at least 1, got 10.0",
    ),
    (lambda m, o: m.one_cycle_lr(o, 1.0, None, 2.0, 3), ValueError, "epochs must be .* got 2.0"),
    (
        lambda m, o: m.one_cycle_lr(o, 1.0, None, 2, 3.0),
        ValueError,
        "steps_per_epoch must be an integer of at least 1, got 3.0",
    ),
    (
        lambda m, o: m.swa_lr(o, 0.1, anneal_epochs=10.0),
        ValueError,
        "anneal_epochs must be an integer of at least 0, got 10.0",
    ),
    (
        lambda m, o: m.sequential_lr(o, [m.reduce_lr_on_plateau(o)], []),
        ValueError,
        "schedulers must be functions of a count made by .*, got Plateau at index 0",
    ),
    (
        lambda m, o: m.chained_scheduler(o, [m.reduce_lr_on_plateau(o)]),
        ValueError,
        "schedulers must be functions of a count made by .*, got Plateau at index 0",
    ),
    (
        lambda m, o: m.multiplicative_lr(o, [0.5]),
        TypeError,
        "lr_lambda must be a function, got 0.5",
    ),
    (
        lambda m, o: m.sequential_lr(o, [m.step_lr(o, 1), plain], [2]),
        TypeError,
        "schedulers must be functions of a count made by .*, got .*plain at index 1",
    ),
    (
        lambda m, o: m.sequential_lr(o, [m.step_lr(o, 1), m.step_lr(o, 1)], 5),
        TypeError,
        "milestones must be a list of integers, got 5",
    ),
]


class Torch:
    """torch's classes under our names, stepped until they raise an error."""

    def __getattr__(self, name: str) -> Any:
        classes = {cls.lower(): getattr(reference, cls) for cls in reference.__all__}
        classes["swalr"] = torch.optim.swa_utils.SWALR
        cls = classes[name.replace("_", "")]
        if name == "chained_scheduler":
            return lambda optimizer, members: cls(members, optimizer)
        return cls


class Ours:
    """Our functions, without the optimizer's argument if ours have none."""

    def __getattr__(self, name: str) -> Any:
        function = getattr(lr_scheduler, name)
        composed = name in ("sequential_lr", "chained_scheduler")
        if composed or name in ("cyclic_lr", "one_cycle_lr"):
            return lambda optimizer, *a, **k: function(*a, **k)
        if "lambda" in name or name == "multiplicative_lr":
            return lambda optimizer, factors: function(
                [0.1] if isinstance(factors, list) else 0.1, factors
            )
        return lambda optimizer, *a, **k: function(0.1, *a, **k)


@pytest.mark.parametrize(
    ("refusal", "call", "torch_error", "sentence"),
    [(ValueError, *case) for case in REFUSED] + [(TypeError, *case) for case in WRONG_TYPES],
)
def test_bad_arguments_are_refused(
    refusal: Any, call: Any, torch_error: Any, sentence: str
) -> None:
    with pytest.raises(refusal, match=sentence):
        torch_rates(call(Ours(), None), 20)
    if torch_error is not None:
        with pytest.raises(torch_error):
            run_torch(lambda optimizer: call(Torch(), optimizer), 0.1, 20)


def test_schedules_without_a_closed_form_ask_for_steps() -> None:
    for schedule in (
        lr_scheduler.multiplicative_lr(0.1, plain),
        lr_scheduler.chained_scheduler([lr_scheduler.step_lr(0.1, 2)]),
        lr_scheduler.sequential_lr([lr_scheduler.step_lr(0.1, 2)], []),
    ):
        with pytest.raises(ValueError, match=r"has no closed form to call. Pass steps=n"):
            schedule(0)


def test_members_share_one_base_lr() -> None:
    with pytest.raises(
        ValueError, match=r"must have one base_lr, that of the group, got 0.1 and 0.2"
    ):
        lr_scheduler.chained_scheduler(
            [lr_scheduler.step_lr(0.1, 2), lr_scheduler.exponential_lr(0.2, 0.9)]
        )


def test_rates_that_are_not_finite() -> None:
    with pytest.raises(
        ValueError, match="values of lambda_lr must be finite numbers, got nan at 0"
    ):
        lr_scheduler.lambda_lr(0.1, lambda epoch: math.nan, steps=3)


def test_traced_numbers_are_not_replayed() -> None:
    with pytest.raises(ValueError, match="must be known numbers to be replayed, got a traced one"):
        jax.jit(lambda lr: lr_scheduler.step_lr(lr, 2, steps=3)(0))(0.1)
    with pytest.raises(ValueError, match="T_0 must be a known integer"):
        jax.jit(lambda T_0: lr_scheduler.cosine_annealing_warm_restarts(0.1, T_0)(0))(2)


@pytest.mark.parametrize("steps", [None, 10])
def test_one_number_for_all_groups(steps: int | None) -> None:
    """One a group would broadcast against the counts; a vmapped one is one number."""
    for call in (
        lambda: lr_scheduler.cosine_annealing_lr([0.1, 0.2], 10, steps=steps),
        lambda: lr_scheduler.cosine_annealing_lr(np.asarray([0.1, 0.2]), 10, steps=steps),
        lambda: lr_scheduler.cosine_annealing_lr(jnp.asarray([0.1, 0.2]), 10, steps=steps),
        lambda: lr_scheduler.exponential_lr(0.1, (0.9, 0.8), steps=steps),
        lambda: lr_scheduler.multi_step_lr([0.1, 0.2], [2], steps=steps),
        lambda: lr_scheduler.cyclic_lr(0.1, 1.0, base_momentum=[0.8, 0.7], steps=steps),
        lambda: lr_scheduler.one_cycle_lr([0.1, 0.2], 20, steps=steps),
        lambda: lr_scheduler.lambda_lr(np.asarray([0.1, 0.2]), plain, steps=steps),
    ):
        with pytest.raises(ValueError, match=r"must be one number, got .*: call it once a group"):
            call()


def test_milestones_are_read_once() -> None:
    of_iterator = lr_scheduler.multi_step_lr(0.1, map(int, ["2", "4"]))
    listed = lr_scheduler.multi_step_lr(0.1, [2, 4])
    counts = np.arange(8)
    np.testing.assert_array_equal(of_iterator(counts), listed(counts))
    assert torch_rates(of_iterator, 7) == torch_rates(listed, 7)
    members = [listed, lr_scheduler.step_lr(0.1, 2)]
    of_iterators = lr_scheduler.sequential_lr(iter(members), iter([3]))  # pyright: ignore[reportArgumentType]
    assert torch_rates(of_iterators, 7) == torch_rates(lr_scheduler.sequential_lr(members, [3]), 7)
    with pytest.raises(TypeError, match="milestones must be integers of at least 0, got 3"):
        lr_scheduler.multi_step_lr(0.1, 3)  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    "call",
    [
        lambda m, o: m.lambda_lr(o, lambda epoch: np.float32(0.9) ** epoch),
        lambda m, o: m.multiplicative_lr(o, lambda epoch: np.float32(0.9)),
        lambda m, o: m.exponential_lr(o, np.float32(0.9)),
    ],
)
def test_numpys_float32_is_replayed_as_torch_multiplies_it(call: Any) -> None:
    theirs, _ = run_torch(lambda optimizer: call(Torch(), optimizer), 0.1, 50)
    assert not first_difference(np.asarray(torch_rates(call(Ours(), None), 50)), theirs)


def test_saw_teeth_of_fractional_sizes_are_replayed() -> None:
    for call in (
        lambda: lr_scheduler.cyclic_lr(0.1, 1.0, 1.1, 0),
        lambda: lr_scheduler.cyclic_lr(0.1, 1.0, 1.1, 0.0, mode="exp_range"),
    ):
        with pytest.raises(
            ValueError, match=r"step_size_up must be an integer if step_size_down is 0, .* 1.1"
        ):
            call()
    theirs, momenta = run_torch(lambda o: reference.CyclicLR(o, 0.1, 1.0, 1.1, 0), 0.1, 50)
    cycle = lr_scheduler.cyclic_lr(0.1, 1.0, 1.1, 0, steps=50)
    for ours, run in ((cycle, theirs), (cycle.momentum, momenta)):
        assert not first_difference(evaluate_float64(ours, np.arange(51)), run)


@pytest.mark.parametrize("name", CASES)
def test_counts_begin_at_0(name: str) -> None:
    setting = draws(name)[0]
    case = CASES[name]
    forms = [case.replay(setting), *([case.closed_form(setting)] if case.closed else [])]
    for schedule in [one for form in forms for one in rate_and_momentum(form)]:
        for count in (-1, np.asarray([3, -1]), -1.0):
            with pytest.raises(ValueError, match="count must be at least 0, the constructor's, go"):
                schedule(count)


@pytest.mark.parametrize("rate", [-0.1, math.nan])
def test_rates_that_torchs_optimizers_refuse(rate: float) -> None:
    with pytest.raises(ValueError, match=f"base_lr must be at least 0, got {rate}"):
        lr_scheduler.step_lr(rate, 2)
    with pytest.raises(ValueError, match=f"base_lr must be at least 0, got {rate}"):
        lr_scheduler.reduce_lr_on_plateau([0.1, rate])
    with pytest.raises(ValueError, match="Invalid learning rate"):
        torch.optim.Adam([torch.nn.Parameter(torch.zeros(1))], lr=rate)


def test_arguments_are_torchs_in_its_order() -> None:
    for name in [*CASES, "SequentialLR"]:
        cls = SWALR if name == "SWALR" else getattr(reference, name)
        # torch's last_epoch resumes a scheduler; a schedule is called from the count reached.
        _, *theirs = (p for p in inspect.signature(cls).parameters if p != "last_epoch")
        function = re.sub(r"(?<=[a-z])(?=[A-Z])|(?=LR$)", "_", name).lower().replace("__", "_")
        *ours, steps = inspect.signature(getattr(lr_scheduler, function)).parameters
        assert steps == "steps"
        owns_the_rate = name in (*WITH_MOMENTUM, "SequentialLR")
        assert (ours if owns_the_rate else ours[1:]) == theirs


def test_a_constant_factor_has_the_counts_shape() -> None:
    for schedule in (
        lr_scheduler.lambda_lr(0.1, lambda epoch: 0.5),
        lr_scheduler.lambda_lr(jnp.asarray(0.1), lambda epoch: 0.5),
    ):
        rates = schedule(jnp.arange(5))
        assert (rates.shape, schedule(3).shape) == ((5,), ())
        np.testing.assert_array_equal(rates, np.full(5, 0.05, np.float32))


@pytest.mark.parametrize(
    "fails",
    [
        lambda epoch: 1 / epoch.bit_length(),
        lambda epoch: [1.0, 0.5, 0.25][epoch],
        lambda epoch: {0: 1.0}[epoch],
        lambda epoch: 0.5 if epoch > 2 else 1.0,
        lambda epoch: float("x") if epoch is not None else 1.0,
    ],
)
def test_every_error_of_a_traced_lambda_becomes_one_sentence(fails: Any) -> None:
    with pytest.raises(TypeError, match=r"must be made of operators and jnp .* Pass steps=n"):
        jax.jit(lr_scheduler.lambda_lr(0.1, fails))(1)


def test_a_factors_own_refusal_of_a_count() -> None:
    schedule = lr_scheduler.lambda_lr(0.1, schedules.tabulate(lambda epoch: 0.9**epoch, 4))
    with pytest.raises(ValueError, match="the table holds counts 0 to 3, got 4"):
        schedule(np.arange(5))
    with pytest.raises(TypeError, match="Pass steps=n to tabulate it"):
        lr_scheduler.lambda_lr(0.1, lambda epoch: 0.5 if epoch > 2 else 1.0)(np.arange(5))


rate_of_any_size = st.floats(1e-5, 10.0)


@given(
    rate=rate_of_any_size,
    T_max=st.integers(1, 400),
    eta_min=st.floats(0.0, 10.0),
    gamma=st.floats(0.1, 1.1),
    milestone=st.integers(1, 300),
)
def test_any_cosine_then_decay(
    rate: float, T_max: int, eta_min: float, gamma: float, milestone: int
) -> None:
    theirs, _ = run_torch(
        lambda o: reference.SequentialLR(
            o,
            [reference.CosineAnnealingLR(o, T_max, eta_min), reference.ExponentialLR(o, gamma)],
            [milestone],
        ),
        rate,
        400,
    )
    members = [
        lr_scheduler.cosine_annealing_lr(rate, T_max, eta_min),
        lr_scheduler.exponential_lr(rate, gamma),
    ]
    assert not first_difference(
        np.asarray(torch_rates(lr_scheduler.sequential_lr(members, [milestone]), 400)), theirs
    )


@given(
    rate=rate_of_any_size,
    total=st.integers(2, 300),
    pct_start=st.floats(0.0, 1.0),
    three_phase=st.booleans(),
    anneal_strategy=st.sampled_from(["cos", "linear"]),
)
def test_any_cycle(rate: float, total: int, **shape: Any) -> None:
    if shape["pct_start"] * total == 1:
        with pytest.raises(ValueError, match="must not be 1"):
            lr_scheduler.one_cycle_lr(rate, total, **shape)
        return
    theirs, momenta = run_torch(
        lambda o: reference.OneCycleLR(o, rate, total, **shape), rate, total - 1
    )
    cycle = lr_scheduler.one_cycle_lr(rate, total, **shape, steps=total - 1)
    with jax.enable_x64(True):
        assert not first_difference(np.asarray(cycle(np.arange(total))), theirs)
        assert not first_difference(np.asarray(cycle.momentum(np.arange(total))), momenta)


def test_one_cycle_ends_in_the_same_number_eager_and_jitted():
    """A fused multiply-add left 5.6e-17 or -3.6e-18 in place of 0."""
    for total, pct, three, final in (
        (30, 0.2, False, 1.0),
        (20, 0.3, True, 1e4),
        (11, 0.4, True, 1.0),
    ):
        schedule = lr_scheduler.one_cycle_lr(
            0.1,
            total_steps=total,
            pct_start=pct,
            three_phase=three,
            anneal_strategy="linear",
            final_div_factor=final,
        )
        for rate in (schedule, schedule.momentum):
            for count in (total - 1, total):
                assert float(jax.jit(rate)(count)) == float(rate(count))
