"""Wrong ports written after the causes, and after ``seen.py`` and ``aside.py``.

They were written from the README, the pages in ``docs`` and docstrings alone, as the others.
"""

import math

import jax.numpy as jnp
import numpy as np
import optax

from jaxsched import Recipe, lr_scheduler, optimizers, schedules
from wrong_ports import (
    LOSSES,
    Case,
    argument,
    case,
    clock,
    groups,
    log_rows,
    log_updates,
    rule,
    value,
)

# ---------------------------------------------------------------- step_sgd


@case("step_sgd", (argument("base_lr", 0.8, 0.1), value("factor", 8.0)))
def rate_times_eight_processes():
    world_size = 8
    rate = schedules.per_epoch(lr_scheduler.step_lr(0.1 * world_size, step_size=3), 40)
    return Recipe({"0": {"learning_rate": rate, "momentum": 0.9, "weight_decay": 5e-4}})


@case(
    "step_sgd",
    (
        clock("stopped", since=360),
        value("floor", 0.001, since=360),
        argument("boundaries_and_scales"),
    ),
    note="float32 in Optax, at most; the last of three drops is left out",
)
def optax_boundaries_without_the_last():
    drops = {120: 0.1, 240: 0.1}
    rate = optax.piecewise_constant_schedule(0.1, drops)
    return Recipe({"0": {"learning_rate": rate, "momentum": 0.9, "weight_decay": 5e-4}})


# ---------------------------------------------------------------- imagenet


@case(
    "imagenet",
    (
        argument("milestones", (300, 600, 800), (30, 60, 80), since=300),
        argument("steps_per_epoch", 10, 1, since=300),
        clock("stretch", 0.1, since=300),
        clock("stopped", since=300),
        groups("unscheduled"),
        value("floor", 0.1, since=300),
        clock("per epoch"),  # added: the milestones are counted in epochs, for iterations
    ),
    note="no drop takes place",
)
def milestones_in_iterations_by_epoch():
    steps_per_epoch = 10
    drops = lr_scheduler.multi_step_lr(0.1, [e * steps_per_epoch for e in (30, 60, 80)])
    group = {
        "learning_rate": schedules.per_epoch(drops, steps_per_epoch),
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "nesterov": True,
    }
    return Recipe({"0": group}, length=900)


@case(
    "imagenet",
    argument("nesterov", False, True),
    (argument("weight_decay", 0.0, 1e-4), value("factor", 0.0), value("addend", -1e-4)),
)
def optax_users_sgd():
    drops = schedules.per_epoch(lr_scheduler.multi_step_lr(0.1, [30, 60, 80]), 10)
    group = {"learning_rate": drops, "momentum": 0.9}
    return Recipe({"0": group}, optimizers.sgd)


# ---------------------------------------------------------------- exponential_adam


@case(
    "exponential_adam",
    (clock("stretch", 2, since=25), argument("gamma", 0.95**2, 0.95, since=25)),
    note="each of two processes steps the one scheduler at the end of an epoch",
)
def stepped_by_each_of_two_processes():
    processes = 2

    def rate(i):
        scheduler_steps = processes * (i // 25)
        return 1e-3 * 0.95**scheduler_steps

    group = {"learning_rate": rate, "b1": 0.9, "b2": 0.999, "eps": 1e-8}
    return Recipe({"0": group}, optimizers.adam)


@case(
    "exponential_adam",
    rule("adamw"),
    (argument("weight_decay", 0.01, 0.0), value("addend", 0.01)),
    note="the decay is the default of adamw",
)
def adamw_for_adam():
    rate = schedules.per_epoch(lr_scheduler.exponential_lr(1e-3, gamma=0.95), 25)
    return Recipe({"0": {"learning_rate": rate}}, optimizers.adamw)


# ---------------------------------------------------------------- cosine_epoch


@case(
    "cosine_epoch",
    argument("eta_min", 0.0, 1e-6, since=30),
    (
        argument("weight_decay", 0.05, 0.0),
        groups("merged"),
        groups("taken from"),
        value("addend", 0.05),
    ),
)
def decay_on_norms_and_no_eta_min():
    cosine = lr_scheduler.cosine_annealing_lr(5e-4, T_max=20)
    rate = schedules.per_epoch(cosine, steps_per_epoch=30)
    decay, no_decay = 0.05, 0.05
    return Recipe(
        {
            "decay": {"learning_rate": rate, "weight_decay": decay},
            "no_decay": {"learning_rate": rate, "weight_decay": no_decay},
        },
        optimizers.adamw,
    )


@case("cosine_epoch", clock("per iteration", since=1))
def cosine_stepped_each_batch():
    epochs, steps_per_epoch = 20, 30

    def rate(i):
        progress = i / (epochs * steps_per_epoch)
        return 1e-6 + (5e-4 - 1e-6) * 0.5 * (1 + jnp.cos(jnp.pi * progress))

    return Recipe(
        {
            "decay": {"learning_rate": rate, "weight_decay": 0.05},
            "no_decay": {"learning_rate": rate, "weight_decay": 0.0},
        },
        optimizers.adamw,
    )


@case(
    "cosine_epoch",
    (groups("taken from"), argument("weight_decay")),
    note="weight_decay multiplied by the learning rate, in the group decay",
)
def decay_times_rate():
    cosine = lr_scheduler.cosine_annealing_lr(5e-4, T_max=20, eta_min=1e-6)
    rate = schedules.per_epoch(cosine, steps_per_epoch=30)
    return Recipe(
        {
            "decay": {"learning_rate": rate, "weight_decay": lambda i: 0.05 * rate(i)},
            "no_decay": {"learning_rate": rate, "weight_decay": 0.0},
        },
        optimizers.adamw,
    )


# ---------------------------------------------------------------- cosine_iteration


@case(
    "cosine_iteration",
    (argument("alpha", 5e-4, 0.01, since=1), argument("eta_min", 2.5e-5, 5e-4, since=1)),
    determined=False,
    note="alpha is a share of the rate in Optax, eta_min a rate",
)
def optax_alpha_is_eta_min():
    rate = optax.cosine_decay_schedule(0.05, decay_steps=700, alpha=5e-4)
    return Recipe({"0": {"learning_rate": rate, "momentum": 0.9, "weight_decay": 1e-4}})


@case(
    "cosine_iteration",
    clock("stopped", since=701),
    note="the reverse: the script's schedule is constant from 700 on, mine climbs again",
)
def cosine_climbs_again():
    rate = lr_scheduler.cosine_annealing_lr(0.05, T_max=700, eta_min=5e-4, steps=800)
    return Recipe({"0": {"learning_rate": rate, "momentum": 0.9, "weight_decay": 1e-4}})


@case(
    "cosine_iteration",
    value("bfloat16"),
    note="rate, momentum and weight decay are all held in bfloat16",
)
def hyperparameters_in_bfloat16():
    cosine = lr_scheduler.cosine_annealing_lr(0.05, T_max=700, eta_min=5e-4, steps=700)
    rows = []
    for i in range(800):
        values = {"learning_rate": cosine(min(i, 700)), "momentum": 0.9, "weight_decay": 1e-4}
        values = {k: np.float32(jnp.asarray(v, jnp.bfloat16)) for k, v in values.items()}
        rows.append({"0": values})
    return log_rows(rows)


# ---------------------------------------------------------------- warm_restarts


@case("warm_restarts", argument("T_mult", 1, 2, since=72))
def cycles_do_not_grow():
    cosine = lr_scheduler.cosine_annealing_warm_restarts(0.05, T_0=5, eta_min=1e-4)
    rate = schedules.per_epoch(cosine, steps_per_epoch=12)
    return Recipe({"0": {"learning_rate": rate, "momentum": 0.9, "weight_decay": 5e-4}})


@case(
    "warm_restarts",
    clock("reset", since=240),
    note="resumed after 20 epochs without the scheduler's state",
)
def resumed_from_the_first_cycle():
    def rate_of(epoch):
        cycle, length = epoch, 5
        while cycle >= length:
            cycle, length = cycle - length, length * 2
        return 1e-4 + (0.05 - 1e-4) * (1 + math.cos(math.pi * cycle / length)) / 2

    rows = []
    for first, last in ((0, 20), (20, 40)):
        for epoch in range(first, last):
            rate = rate_of(epoch - first)
            row = {"learning_rate": rate, "momentum": 0.9, "weight_decay": 5e-4}
            rows += [{"0": row}] * 12
    return log_rows(rows)


@case("warm_restarts")
def restarts_right():
    cosine = lr_scheduler.cosine_annealing_warm_restarts(0.05, T_0=5, T_mult=2, eta_min=1e-4)
    rate = schedules.per_epoch(cosine, steps_per_epoch=12)
    return Recipe({"0": {"learning_rate": rate, "momentum": 0.9, "weight_decay": 5e-4}}, length=480)


# ---------------------------------------------------------------- one_cycle


@case(
    "one_cycle",
    (groups("unscheduled"), argument("momentum", 0.9), argument("cycle_momentum", False, True)),
)
def momentum_not_cycled_too():
    cycle = lr_scheduler.one_cycle_lr(0.4, epochs=12, steps_per_epoch=50)
    group = {"learning_rate": cycle, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": True}
    return Recipe({"0": group})


@case(
    "one_cycle",
    (argument("steps_per_epoch", 51, 50, since=1), argument("total_steps", 612, 600, since=1)),
)
def cycle_with_a_last_partial_batch():
    batches = 51
    cycle = lr_scheduler.one_cycle_lr(0.4, epochs=12, steps_per_epoch=batches, steps=600)
    group = {
        "learning_rate": cycle,
        "momentum": cycle.momentum,
        "weight_decay": 5e-4,
        "nesterov": True,
    }
    return Recipe({"0": group}, length=600)


# ---------------------------------------------------------------- cyclic


@case(
    "cyclic",
    (argument("step_size_up", 50, 100, since=1), clock("stretch", 2, since=1)),
    note="the length of a whole triangle was taken for twice what it is; momentum too",
)
def half_of_each_side():
    triangles = lr_scheduler.cyclic_lr(0.001, 0.006, step_size_up=100 // 2, mode="triangular2")
    return Recipe({"0": {"learning_rate": triangles, "momentum": triangles.momentum}})


# ---------------------------------------------------------------- warmup_cosine


@case("warmup_cosine", argument("start_factor", 0.1, 0.01, since=0))
def warmup_from_a_tenth_too():
    both = lr_scheduler.sequential_lr(
        [
            lr_scheduler.linear_lr(1e-3, start_factor=0.1, total_iters=5),
            lr_scheduler.cosine_annealing_lr(1e-3, T_max=25, eta_min=1e-5),
        ],
        milestones=[5],
        steps=30,
    )
    rate = schedules.per_epoch(both, 20)
    return Recipe(
        {
            "0": {"learning_rate": rate, "weight_decay": 0.05},
            "1": {"learning_rate": rate, "weight_decay": 0.0},
        },
        optimizers.adamw,
    )


@case(
    "warmup_cosine",
    argument("T_max", 30, 25, since=120),
    (argument("weight_decay", 0.01, 0.0), value("addend", 0.01)),
    labels={"0": "others", "1": "norms"},
    note="weight_decay is not given for the norms, and is torch's default of 0.01",
)
def whole_run_as_t_max_and_default_decay():
    epochs, warmup_epochs = 30, 5
    warmup = lr_scheduler.linear_lr(1e-3, start_factor=0.01, total_iters=warmup_epochs)
    cosine = lr_scheduler.cosine_annealing_lr(1e-3, T_max=epochs, eta_min=1e-5)
    both = lr_scheduler.sequential_lr([warmup, cosine], [warmup_epochs], steps=epochs)
    rate = schedules.per_epoch(both, 20)
    return Recipe(
        {
            "others": {"learning_rate": rate, "weight_decay": 0.05},
            "norms": {"learning_rate": rate},
        },
        optimizers.adamw,
        length=600,
    )


# ---------------------------------------------------------------- segmentation


@case("segmentation", argument("power", 1.0, 0.9, since=1))
def power_not_given():
    def group(lr):
        poly = lr_scheduler.polynomial_lr(lr, total_iters=700, steps=700)
        return {"learning_rate": poly, "momentum": 0.9, "weight_decay": 1e-4}

    return Recipe({"backbone": group(0.01), "head": group(0.1)})


@case(
    "segmentation",
    (
        argument("base_lr", 0.01, 0.1),
        groups("merged"),
        groups("taken from"),
        value("factor", 0.1),
    ),
    note="in the head",
)
def head_at_the_rate_of_the_backbone():
    head_lr_mult = 1.0

    def group(lr):
        poly = lr_scheduler.polynomial_lr(lr, 700, power=0.9, steps=700)
        return {"learning_rate": poly, "momentum": 0.9, "weight_decay": 1e-4}

    return Recipe({"backbone": group(0.01), "head": group(0.01 * head_lr_mult)})


@case("segmentation", value("floor", 1e-3, since=646))
def poly_with_min_lr():
    min_lr = 1e-3

    def poly(lr):
        return lambda i: jnp.maximum(lr * (1 - i / 700) ** 0.9, min_lr)

    return Recipe(
        {
            "backbone": {"learning_rate": poly(0.01), "momentum": 0.9, "weight_decay": 1e-4},
            "head": {"learning_rate": poly(0.1), "momentum": 0.9, "weight_decay": 1e-4},
        }
    )


# ---------------------------------------------------------------- constant_rmsprop


@case(
    "constant_rmsprop",
    argument("alpha", 0.99, 0.9),
    (argument("total_iters", 5, 4, since=80), clock("shift", -20)),
    note="both are torch's defaults",
)
def defaults_of_alpha_and_total_iters():
    rate = schedules.per_epoch(lr_scheduler.constant_lr(0.002, factor=0.25), 20)
    return Recipe({"0": {"learning_rate": rate, "momentum": 0.9}}, optimizers.rmsprop)


# ---------------------------------------------------------------- nanogpt


@case(
    "nanogpt",
    clock("shift", 1),
    argument("b2", 0.999, 0.95),
    note="the count is read after it was incremented",
)
def count_raised_first_and_default_b2():
    def rate(i):
        it = i + 1
        rising = 6e-4 * (it + 1) / (100 + 1)
        ratio = (it - 100) / (1000 - 100)
        falling = 6e-5 + 0.5 * (1.0 + jnp.cos(jnp.pi * ratio)) * (6e-4 - 6e-5)
        return jnp.where(it < 100, rising, jnp.where(it > 1000, 6e-5, falling))

    betas = {"b1": 0.9}
    return Recipe(
        {
            "decay": {"learning_rate": rate, "weight_decay": 0.1, **betas},
            "no_decay": {"learning_rate": rate, "weight_decay": 0.0, **betas},
        },
        optimizers.adamw,
    )


def _get_lr(it, learning_rate=6e-4, min_lr=6e-5, warmup_iters=100, lr_decay_iters=1000):
    """The function of the script, copied."""
    if it < warmup_iters:
        return learning_rate * (it + 1) / (warmup_iters + 1)
    if it > lr_decay_iters:
        return min_lr
    decay_ratio = (it - warmup_iters) / (lr_decay_iters - warmup_iters)
    coeff = 0.5 * (1.0 + math.cos(math.pi * decay_ratio))
    return min_lr + coeff * (learning_rate - min_lr)


@case("nanogpt", value("cap", 5e-4, since=84))
def rate_capped_too():
    rate = schedules.tabulate(lambda it: min(_get_lr(it), 5e-4), steps=1100)
    betas = {"b1": 0.9, "b2": 0.95}
    return Recipe(
        {
            "decay": {"learning_rate": rate, "weight_decay": 0.1, **betas},
            "no_decay": {"learning_rate": rate, "weight_decay": 0.0, **betas},
        },
        optimizers.adamw,
    )


@case(
    "nanogpt",
    argument("lr_decay_iters", 1100, 1000, since=101),
    determined=False,
)
def decay_to_the_end_of_the_run():
    max_iters = 1100
    rate = schedules.tabulate(lambda it: _get_lr(it, lr_decay_iters=max_iters), steps=max_iters)
    betas = {"b1": 0.9, "b2": 0.95}
    return Recipe(
        {
            "decay": {"learning_rate": rate, "weight_decay": 0.1, **betas},
            "no_decay": {"learning_rate": rate, "weight_decay": 0.0, **betas},
        },
        optimizers.adamw,
        length=max_iters,
    )


@case("nanogpt")
def nanogpt_in_jnp():
    def rate(it):
        ratio = jnp.clip((it - 100) / 900, 0.0, 1.0)
        falling = 6e-5 + 0.5 * (1.0 + jnp.cos(jnp.pi * ratio)) * (6e-4 - 6e-5)
        return jnp.where(it < 100, 6e-4 * (it + 1) / 101, falling)

    betas = {"b1": 0.9, "b2": 0.95}
    return Recipe(
        {
            "decay": {"learning_rate": rate, "weight_decay": 0.1, **betas},
            "no_decay": {"learning_rate": rate, "weight_decay": 0.0, **betas},
        },
        optimizers.adamw,
    )


# ---------------------------------------------------------------- fine_tune


def _linear_with_warmup(step, warmup_steps=60, training_steps=600):
    rising = step / warmup_steps
    falling = jnp.maximum(0.0, (training_steps - step) / (training_steps - warmup_steps))
    return jnp.where(step < warmup_steps, rising, falling)


@case(
    "fine_tune",
    clock("shift", -1, since=300),
    note="resumed at 300 from a checkpoint that has the number of the last step made",
)
def resumed_a_step_behind():
    def lr_at(step):
        if step < 60:
            return 5e-5 * (step / 60)
        return 5e-5 * max(0.0, (600 - step) / 540)

    rows, saved_step = [], None
    for start, stop in ((0, 300), (300, 600)):
        step = start if saved_step is None else saved_step
        for _ in range(start, stop):
            lr = lr_at(step)
            rows.append(
                {
                    "0": {"learning_rate": lr, "weight_decay": 0.01},
                    "1": {"learning_rate": lr, "weight_decay": 0.0},
                }
            )
            saved_step = step
            step += 1
    return log_rows(rows)


@case("fine_tune", groups("exchanged"), note="only weight_decay differs between the two")
def mask_of_decay_inverted():
    rate = lr_scheduler.lambda_lr(5e-5, _linear_with_warmup)
    return Recipe(
        {
            "0": {"learning_rate": rate, "weight_decay": 0.0},
            "1": {"learning_rate": rate, "weight_decay": 0.01},
        },
        optimizers.adamw,
    )


@case("fine_tune", value("decimals", 8), note="rates read back from a log that has %.8f")
def rates_from_a_text_log():
    rate = lr_scheduler.lambda_lr(5e-5, _linear_with_warmup)
    curve = Recipe({"all": {"learning_rate": rate}}, optimizers.adamw).trace(600)
    lines = [f"step {i} lr {lr:.8f}" for i, lr in enumerate(curve.groups["all"]["learning_rate"])]
    rates = [float(line.split()[-1]) for line in lines]
    return log_rows([{"0": {"learning_rate": lr}, "1": {"learning_rate": lr}} for lr in rates])


# ---------------------------------------------------------------- detector


@case(
    "detector",
    (argument("start", 0.1, 0.0, since=0), groups("merged"), groups("taken from")),
    note="weights and norms start where only biases do",
)
def all_groups_warm_up_as_biases():
    lf = lr_scheduler.lambda_lr(0.01, schedules.linear(20, lrf=0.01))
    rate = schedules.warmup(schedules.per_epoch(lf, 40), 120, start=0.1)
    momentum = schedules.warmup(schedules.constant(0.937), 120, start=0.8)
    common = {"learning_rate": rate, "momentum": momentum, "nesterov": True}
    return Recipe(
        {
            "bias": {**common, "weight_decay": 0.0},
            "weight": {**common, "weight_decay": 5e-4},
            "norm": {**common, "weight_decay": 0.0},
        }
    )


@case(
    "detector",
    argument("lrf", 0.1, 0.01, since=40),
    (argument("value", 0.9, 0.937, since=1), argument("momentum", 0.9, 0.937, since=1)),
    note="value is that of constant()",
)
def lrf_and_momentum_of_another_script():
    lf = lr_scheduler.lambda_lr(0.01, schedules.linear(20, lrf=0.1))
    epochs = schedules.per_epoch(lf, 40)
    momentum = schedules.warmup(schedules.constant(0.9), 120, start=0.8)

    def group(start, weight_decay=0.0):
        return {
            "learning_rate": schedules.warmup(epochs, 120, start=start),
            "momentum": momentum,
            "weight_decay": weight_decay,
            "nesterov": True,
        }

    return Recipe({"bias": group(0.1), "weight": group(0.0, 5e-4), "norm": group(0.0)}, length=800)


@case(
    "detector",
    (argument("iterations", 100, 120, since=1), argument("warmup", 100, 120, since=1)),
    note="of the rates and of the momentum",
)
def warmup_of_100_iterations():
    warmup = 100  # YOLO's least
    lf = lr_scheduler.lambda_lr(0.01, schedules.linear(20, lrf=0.01))
    epochs = schedules.per_epoch(lf, 40)
    momentum = schedules.warmup(schedules.constant(0.937), warmup, start=0.8)

    def group(start, weight_decay=0.0):
        return {
            "learning_rate": schedules.warmup(epochs, warmup, start=start),
            "momentum": momentum,
            "weight_decay": weight_decay,
            "nesterov": True,
        }

    return Recipe({"bias": group(0.1), "weight": group(0.0, 5e-4), "norm": group(0.0)})


@case("detector")
def detector_in_jnp():
    def target(i):
        return 0.01 * ((1 - (i // 40) / 20) * (1.0 - 0.01) + 0.01)

    def rate(start):
        def interpolate(i):
            return jnp.where(i < 120, start + (target(i) - start) * (i / 120), target(i))

        return interpolate

    def momentum(i):
        return 0.8 + (0.937 - 0.8) / 120 * jnp.minimum(i, 120)

    rest = {"momentum": momentum, "nesterov": True}
    return Recipe(
        {
            "bias": {"learning_rate": rate(0.1), "weight_decay": 0.0, **rest},
            "weight": {"learning_rate": rate(0.0), "weight_decay": 5e-4, **rest},
            "norm": {"learning_rate": rate(0.0), "weight_decay": 0.0, **rest},
        }
    )


# ---------------------------------------------------------------- plateau


@case("plateau", clock("shift", -15), note="an epoch late: the rate is taken before the step")
def plateau_rate_taken_before_the_step():
    plateau = lr_scheduler.reduce_lr_on_plateau(1e-3, factor=0.5, patience=2)
    state, rows, rate = plateau.init(), [], 1e-3
    for loss in LOSSES:
        rows += [{"0": {"learning_rate": rate, "b1": 0.9, "b2": 0.999}}] * 15
        rate = float(state.learning_rate)
        state = plateau.step(state, loss)
    return log_rows(rows)


@case("plateau", argument("patience", 3, 2), determined=False)
def plateau_patience_3():
    plateau = lr_scheduler.reduce_lr_on_plateau(1e-3, factor=0.5, patience=3)
    state, rows = plateau.init(), []
    for loss in LOSSES:
        row = {"learning_rate": float(state.learning_rate), "b1": 0.9, "b2": 0.999}
        rows += [{"0": row}] * 15
        state = plateau.step(state, loss)
    return log_rows(rows)


# ---------------------------------------------------------------- accumulated


@case(
    "accumulated",
    clock("stretch", 4),
    note="the schedule counts batches, four an update; the last batch's rate acts",
)
def schedule_counts_batches():
    accumulation, updates, warmup = 4, 400, 40

    def rate(count):
        if count < warmup:
            return 3e-4 * count / warmup
        progress = min(1.0, (count - warmup) / (updates - warmup))
        return 3e-4 * 0.5 * (1.0 + math.cos(math.pi * progress))

    rows = []
    for batch in range(accumulation * updates):
        if (batch + 1) % accumulation == 0:
            rows.append({"0": {"learning_rate": rate(batch), "weight_decay": 0.01}})
    return log_rows(rows)


@case(
    "accumulated",
    value("float32"),
    labels={"0": "all"},
    note="float32: Optax computes its schedule in it",
)
def optax_warmup_cosine_in_float32():
    rate = optax.warmup_cosine_decay_schedule(0.0, 3e-4, warmup_steps=40, decay_steps=400)
    tx = optax.inject_hyperparams(optax.adamw)(learning_rate=rate, weight_decay=0.01)
    return log_updates(tx, 400)


# ---------------------------------------------------------------- gan


@case("gan", clock("per iteration", since=201), argument("b1", 0.9, 0.5))
def gan_falls_each_batch_with_default_b1():
    def rate(i):
        epoch = i / 10
        return 2e-4 * (1.0 - jnp.maximum(0, epoch - 20) / 21)

    return Recipe({"0": {"learning_rate": rate, "b2": 0.999}}, optimizers.adam)


# ---------------------------------------------------------------- resumed


@case(
    "resumed",
    (clock("stopped", since=300), value("floor", since=300)),
    note="the resumed process restores the rate with the optimizer and has no scheduler",
)
def resumed_without_a_scheduler():
    def rate(i):
        cosine = 0.02 * (1 + math.cos(math.pi * (i // 25) / 24)) / 2
        return cosine * min(1.0, (i + 1) / 100)

    rows, killed = [], 300
    for i in range(600):
        lr = rate(i) if i < killed else rate(killed - 1)
        rows.append({"0": {"learning_rate": lr, "momentum": 0.9, "weight_decay": 1e-4}})
    return log_rows(rows)


@case("resumed")
def never_killed():
    cosine = schedules.per_epoch(lr_scheduler.cosine_annealing_lr(0.02, T_max=24, steps=24), 25)

    def rate(i):
        return cosine(i) * jnp.minimum(1.0, (i + 1) / 100)

    return Recipe({"0": {"learning_rate": rate, "momentum": 0.9, "weight_decay": 1e-4}}, length=600)


# ---------------------------------------------------------------- layerwise


def vision_transformer(*, rate=1e-3, layer_decay=0.65, steps=500, weight_decay=0.05):
    """AdamW with layer-wise rates under a cosine by iteration."""
    arguments = dict(locals())

    def group(depth, weight_decay):
        cosine = lr_scheduler.cosine_annealing_lr(
            rate * layer_decay ** (2 - depth), T_max=steps, steps=steps
        )
        return {"learning_rate": cosine, "weight_decay": weight_decay, "b1": 0.9, "b2": 0.95}

    return Recipe(
        {
            "backbone": group(0, weight_decay),
            "norm": group(1, 0.0),
            "head": group(2, weight_decay),
        },
        optimizers.adamw,
        length=steps,
        origin=(vision_transformer, arguments),
    )


@case("layerwise", argument("layer_decay", 0.75, 0.65), note="backbone and norm, by origin")
def layer_decay_of_another_model_too():
    return vision_transformer(layer_decay=0.75)


@case("layerwise", groups("exchanged"), note="backbone and head; only learning_rate differs")
def depth_counted_from_the_wrong_end():
    def group(depth, weight_decay):
        cosine = lr_scheduler.cosine_annealing_lr(1e-3 * 0.65**depth, T_max=500, steps=500)
        return {"learning_rate": cosine, "weight_decay": weight_decay, "b1": 0.9, "b2": 0.95}

    depths = {"backbone": 0, "norm": 1, "head": 2}
    return Recipe(
        {k: group(depth, 0.0 if k == "norm" else 0.05) for k, depth in depths.items()},
        optimizers.adamw,
    )


CASES = tuple(c for c in list(globals().values()) if isinstance(c, Case))
