"""Wrong ports to look at once, when the work on the causes is finished."""

import math

import jax.numpy as jnp
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


@case("step_sgd", argument("step_size", 4, 3, since=120))
def step_size_of_four_epochs():
    rate = schedules.per_epoch(lr_scheduler.step_lr(0.1, step_size=4, gamma=0.1), 40)
    return Recipe({"0": {"learning_rate": rate, "momentum": 0.9, "weight_decay": 5e-4}})


@case(
    "step_sgd",
    (value("factor", 2.0), argument("base_lr", 0.2, 0.1), argument("learning_rate", 0.2, 0.1)),
    labels={"0": "all"},
)
def rate_scaled_by_two_devices():
    devices = 2
    batch_size = 64

    def rate(i):
        return 0.1 * (batch_size * devices / 64) * 0.1 ** (i // 40 // 3)

    return Recipe({"all": {"learning_rate": rate, "momentum": 0.9, "weight_decay": 5e-4}})


@case("step_sgd", argument("nesterov", True, False))
def nesterov_added():
    rate = schedules.per_epoch(lr_scheduler.step_lr(0.1, 3), 40)
    group = {"learning_rate": rate, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": True}
    return Recipe({"0": group})


@case(
    "step_sgd",
    argument("momentum", 0.95, 0.9),
    clock("shift", 1, since=119),
)
def stepped_before_the_optimizer_and_momentum():
    lr, rows = 0.1, []
    for iteration in range(400):
        if (iteration + 1) % 120 == 0:  # the scheduler first, then the update
            lr *= 0.1
        rows.append(
            {
                "0": {
                    "learning_rate": lr,
                    "momentum": 0.95,
                    "dampening": 0.0,
                    "weight_decay": 5e-4,
                }
            }
        )
    return log_rows(rows)


@case("imagenet", argument("nesterov", False, True))
def nesterov_missing():
    rate = optax.piecewise_constant_schedule(0.1, {300: 0.1, 600: 0.1, 800: 0.1})
    return Recipe({"0": {"learning_rate": rate, "momentum": 0.9, "weight_decay": 1e-4}})


@case(
    "imagenet",
    (
        clock("shift", 1, since=299),
        argument("milestones", (299, 599, 799), (300, 600, 800)),
        argument("boundaries", (299, 599, 799), (300, 600, 800)),
    ),
)
def optax_boundaries_one_early():
    spe = 10
    boundaries = {spe * epoch - 1: 0.1 for epoch in (30, 60, 80)}
    rate = optax.piecewise_constant_schedule(0.1, boundaries)
    group = {"learning_rate": rate, "momentum": 0.9, "weight_decay": 1e-4, "nesterov": True}
    return Recipe({"0": group})


@case(
    "imagenet",
    (clock("shift", -10, since=300), argument("milestones", (31, 61, 81), (30, 60, 80))),
    labels={"0": "model"},
)
def epochs_counted_from_one():
    rows = []
    for epoch in range(90):
        lr = 0.1
        for milestone in (30, 60, 80):
            if epoch > milestone:
                lr *= 0.1
        row = {"learning_rate": lr, "momentum": 0.9, "dampening": 0.0, "weight_decay": 1e-4}
        rows += [{"model": row}] * 10
    return log_rows(rows)


@case(
    "imagenet",
    (argument("weight_decay"), value("factor"), groups("taken from")),  # the last added
    note="the port's decay is the script's times the rate",
)
def decay_multiplied_by_the_rate():
    rate = schedules.per_epoch(lr_scheduler.multi_step_lr(0.1, [30, 60, 80]), 10)
    group = {
        "learning_rate": rate,
        "momentum": 0.9,
        "weight_decay": lambda i: 1e-4 * rate(i),
        "nesterov": True,
    }
    return Recipe({"0": group})


@case("imagenet")
def imagenet_as_in_torch():
    group = {
        "learning_rate": schedules.per_epoch(lr_scheduler.multi_step_lr(0.1, [80, 30, 60]), 10),
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "nesterov": True,
    }
    return Recipe({"0": group}, clip_norm=None)


@case("exponential_adam", argument("gamma", 0.9, 0.95, since=25))
def exponential_gamma_09():
    rate = schedules.per_epoch(lr_scheduler.exponential_lr(1e-3, gamma=0.9), 25)
    return Recipe({"0": {"learning_rate": rate}}, optimizers.adam)


@case(
    "exponential_adam",
    (clock("per iteration"), argument("staircase", False, True)),
)
def exponential_decay_within_the_epoch():
    def rate(i):
        return 1e-3 * jnp.power(0.95, i / 25)

    return Recipe({"0": {"learning_rate": rate}}, optimizers.adam)


@case("exponential_adam", argument("eps", 1e-6, 1e-8), labels={"0": "params"})
def eps_1e_6():
    tx = optax.inject_hyperparams(
        lambda learning_rate, b1, b2, eps, weight_decay: optax.chain(
            optax.add_decayed_weights(weight_decay), optax.adam(learning_rate, b1, b2, eps)
        )
    )(
        learning_rate=lambda count: 1e-3 * 0.95 ** (count // 25),
        b1=0.9,
        b2=0.999,
        eps=1e-6,
        weight_decay=0.0,
    )
    return log_updates(tx, 500).relabel({"all": "params"})


@case("exponential_adam", value("decimals", 5))
def rate_rounded_in_the_log():
    rows = []
    for epoch in range(20):
        lr = round(1e-3 * 0.95**epoch, 5)
        row = {"learning_rate": lr, "b1": 0.9, "b2": 0.999, "eps": 1e-8, "weight_decay": 0.0}
        rows += [{"0": row}] * 25
    return log_rows(rows)


@case("exponential_adam", rule("adamw"), argument("weight_decay", 0.01, 0.0))
def adamw_with_its_default_decay():
    rate = schedules.per_epoch(lr_scheduler.exponential_lr(1e-3, 0.95), 25)
    return Recipe({"0": {"learning_rate": rate}}, optimizers.adamw)


@case("cosine_epoch", argument("T_max", 19, 20, since=30))
def cosine_over_one_epoch_less():
    epochs = 20
    cosine = lr_scheduler.cosine_annealing_lr(5e-4, T_max=epochs - 1, eta_min=1e-6)
    rate = schedules.per_epoch(cosine, 30)
    return Recipe(
        {
            "decay": {"learning_rate": rate, "weight_decay": 0.05},
            "no_decay": {"learning_rate": rate, "weight_decay": 0.0},
        },
        optimizers.adamw,
        length=epochs * 30,
    )


@case("cosine_epoch", clock("per iteration", since=1))
def cosine_by_iteration():
    rate = lr_scheduler.cosine_annealing_lr(5e-4, T_max=20 * 30, eta_min=1e-6)
    return Recipe(
        {
            "decay": {"learning_rate": rate, "weight_decay": 0.05},
            "no_decay": {"learning_rate": rate, "weight_decay": 0.0},
        },
        optimizers.adamw,
    )


@case("cosine_epoch", labels={"decay": "kernel", "no_decay": "rest"})
def two_groups_under_a_cosine():
    rate = schedules.per_epoch(lr_scheduler.cosine_annealing_lr(5e-4, 20, eta_min=1e-6), 30)
    return Recipe(
        {
            "kernel": {"learning_rate": rate, "weight_decay": 0.05},
            "rest": {"learning_rate": rate, "weight_decay": 0.0},
        },
        optimizers.adamw,
    )


@case("cosine_epoch", groups("unscheduled"))
def second_group_not_scheduled():
    rate = schedules.per_epoch(lr_scheduler.cosine_annealing_lr(5e-4, 20, 1e-6), 30)
    return Recipe(
        {
            "decay": {"learning_rate": rate, "weight_decay": 0.05},
            "no_decay": {"learning_rate": 5e-4, "weight_decay": 0.0},
        },
        optimizers.adamw,
    )


@case("cosine_epoch", rule("linear"), determined=False)
def line_for_a_cosine():
    line = optax.linear_schedule(5e-4, 1e-6, 20)

    def rate(i):
        return line(i // 30)

    return Recipe(
        {
            "decay": {"learning_rate": rate, "weight_decay": 0.05},
            "no_decay": {"learning_rate": rate, "weight_decay": 0.0},
        },
        optimizers.adamw,
    )


@case("cosine_iteration", value("float32"))
def cosine_in_float32():
    def rate(i):
        progress = jnp.minimum(i, 700).astype(jnp.float32) / jnp.float32(700)
        factor = jnp.float32(0.5) * (1 + jnp.cos(jnp.float32(jnp.pi) * progress))
        return jnp.float32(5e-4) + jnp.float32(0.0495) * factor

    return Recipe({"0": {"learning_rate": rate, "momentum": 0.9, "weight_decay": 1e-4}})


@case("cosine_iteration", value("cap", 0.04, since=0))
def rate_capped():
    def rate(i):
        cosine = 5e-4 + 0.0495 * (1 + jnp.cos(jnp.pi * jnp.minimum(i, 700) / 700)) / 2
        return jnp.minimum(cosine, 0.04)

    return Recipe({"0": {"learning_rate": rate, "momentum": 0.9, "weight_decay": 1e-4}})


@case("cosine_iteration", clock("shift", 1, since=0))
def scheduler_before_the_update():
    def rate(i):
        step = jnp.minimum(i + 1, 700)
        return 5e-4 + (0.05 - 5e-4) * (1 + jnp.cos(jnp.pi * step / 700)) / 2

    return Recipe({"0": {"learning_rate": rate, "momentum": 0.9, "weight_decay": 1e-4}})


@case("cosine_iteration")
def optax_cosine_with_alpha():
    rate = optax.cosine_decay_schedule(0.05, decay_steps=700, alpha=0.01)
    return Recipe({"0": {"learning_rate": rate, "momentum": 0.9, "weight_decay": 1e-4}})


@case(
    "warm_restarts",
    (rule("cosine_annealing_lr"), argument("restarts")),
    determined=False,
    note="the port is right up to 60; there the script restarts, and the port climbs again",
)
def cosine_without_restarts():
    rate = lr_scheduler.cosine_annealing_lr(0.05, T_max=5, eta_min=1e-4)
    group = {"momentum": 0.9, "weight_decay": 5e-4}
    return Recipe({"0": group | {"learning_rate": schedules.per_epoch(rate, 12)}})


@case("warm_restarts", argument("eta_min", 0.0, 1e-4), determined=False)
def restarts_down_to_zero():
    def rate(i):
        epoch = i // 12
        period = jnp.where(epoch < 5, 5, jnp.where(epoch < 15, 10, 20))
        start = jnp.where(epoch < 5, 0, jnp.where(epoch < 15, 5, 15))
        start, period = jnp.where(epoch < 35, start, 35), jnp.where(epoch < 35, period, 40)
        return 0.05 * (1 + jnp.cos(jnp.pi * (epoch - start) / period)) / 2

    return Recipe({"0": {"learning_rate": rate, "momentum": 0.9, "weight_decay": 5e-4}})


@case("warm_restarts")
def warm_restarts_of_the_package():
    rate = lr_scheduler.cosine_annealing_warm_restarts(0.05, 5, 2, 1e-4, steps=40)
    group = {"momentum": 0.9, "weight_decay": 5e-4}
    return Recipe({"0": group | {"learning_rate": schedules.per_epoch(rate, 12)}})


@case("one_cycle", argument("pct_start", 0.25, 0.3, since=1))
def peak_after_a_quarter():
    cycle = lr_scheduler.one_cycle_lr(0.4, epochs=12, steps_per_epoch=50, pct_start=0.25)
    group = {"learning_rate": cycle, "momentum": cycle.momentum, "weight_decay": 5e-4}
    return Recipe({"0": group | {"nesterov": True}})


@case(
    "one_cycle",
    (argument("cycle_momentum", False, True), argument("momentum", 0.9), groups("unscheduled")),
)
def momentum_not_cycled():
    cycle = lr_scheduler.one_cycle_lr(0.4, total_steps=600, cycle_momentum=False)
    group = {"learning_rate": cycle, "momentum": 0.9, "weight_decay": 5e-4, "nesterov": True}
    return Recipe({"0": group})


@case("one_cycle", argument("div_factor", 10.0, 25.0), labels={"0": "model"})
def one_cycle_from_a_tenth():
    cycle = lr_scheduler.one_cycle_lr(0.4, total_steps=600, div_factor=10.0)
    group = {"learning_rate": cycle, "momentum": cycle.momentum, "weight_decay": 5e-4}
    return Recipe({"model": group | {"nesterov": True}})


@case("one_cycle", argument("three_phase", True, False))
def one_cycle_in_three_phases():
    cycle = lr_scheduler.one_cycle_lr(0.4, total_steps=600, three_phase=True)
    group = {"learning_rate": cycle, "momentum": cycle.momentum, "weight_decay": 5e-4}
    return Recipe({"0": group | {"nesterov": True}})


@case("one_cycle")
def one_cycle_by_epochs():
    cycle = lr_scheduler.one_cycle_lr(0.4, epochs=12, steps_per_epoch=50)
    group = {"learning_rate": cycle, "momentum": cycle.momentum, "weight_decay": 5e-4}
    return Recipe({"0": group | {"nesterov": True}}, optimizers.sgd, length=600)


@case("cyclic", argument("mode", "triangular", "triangular2", since=201))
def triangles_of_equal_height():
    cycle = lr_scheduler.cyclic_lr(0.001, 0.006, step_size_up=100)
    return Recipe({"0": {"learning_rate": cycle, "momentum": cycle.momentum}})


@case("cyclic", argument("max_lr", 0.005, 0.006, since=1))
def triangles_up_to_another_rate():
    cycle = lr_scheduler.cyclic_lr(
        0.001, 0.005, step_size_up=100, step_size_down=100, mode="triangular2"
    )
    return Recipe({"0": {"learning_rate": cycle, "momentum": cycle.momentum}})


@case(
    "cyclic",
    (argument("cycle_momentum", False, True), argument("momentum", 0.9), groups("unscheduled")),
)
def constant_momentum_under_triangles():
    def rate(i):
        cycle = 1 + i // 200
        x = jnp.abs(i / 100 - 2 * cycle + 1)
        return 0.001 + 0.005 * jnp.maximum(0, 1 - x) / 2.0 ** (cycle - 1)

    return Recipe({"0": {"learning_rate": rate, "momentum": 0.9}})


@case(
    "warmup_cosine",
    (clock("shift", 100), argument("total_iters", 0, 5), argument("warmup", 0, 5)),
    labels={"0": "weights", "1": "norms"},
)
def warmup_missing():
    cosine = lr_scheduler.cosine_annealing_lr(1e-3, T_max=25, eta_min=1e-5)
    rate = schedules.per_epoch(cosine, 20)
    return Recipe(
        {
            "weights": {"learning_rate": rate, "weight_decay": 0.05},
            "norms": {"learning_rate": rate, "weight_decay": 0.0},
        },
        optimizers.adamw,
    )


@case("warmup_cosine", (argument("total_iters", 6, 5), argument("milestones", (6,), (5,))))
def warmup_an_epoch_longer():
    warmup_epochs = 6
    joined = lr_scheduler.sequential_lr(
        [
            lr_scheduler.linear_lr(1e-3, 0.01, total_iters=warmup_epochs),
            lr_scheduler.cosine_annealing_lr(1e-3, T_max=25, eta_min=1e-5),
        ],
        [warmup_epochs],
        steps=30,
    )
    rate = schedules.per_epoch(joined, 20)
    return Recipe(
        {
            "0": {"learning_rate": rate, "weight_decay": 0.05},
            "1": {"learning_rate": rate, "weight_decay": 0.0},
        },
        optimizers.adamw,
    )


@case("warmup_cosine", clock("per iteration", since=1), note="only in the warm-up")
def warmup_by_iteration():
    def rate(i):
        ramp = 0.01 + 0.99 * jnp.minimum(i, 100) / 100
        epoch = jnp.maximum(i // 20 - 5, 0)
        cosine = 1e-5 + (1e-3 - 1e-5) * (1 + jnp.cos(jnp.pi * epoch / 25)) / 2
        return jnp.where(i < 100, 1e-3 * ramp, cosine)

    return Recipe(
        {
            "0": {"learning_rate": rate, "weight_decay": 0.05},
            "1": {"learning_rate": rate, "weight_decay": 0.0},
        },
        optimizers.adamw,
    )


@case(
    "warmup_cosine",
    (
        argument("init_value", 0.0, 1e-5),
        argument("start_factor", 0.0, 0.01),
        argument("start", 0.0),
    ),
    determined=False,
)
def optax_warmup_from_zero():
    by_epoch = optax.warmup_cosine_decay_schedule(0.0, 1e-3, 5, decay_steps=30, end_value=1e-5)

    def rate(i):
        return by_epoch(i // 20)

    return Recipe(
        {
            "0": {"learning_rate": rate, "weight_decay": 0.05},
            "1": {"learning_rate": rate, "weight_decay": 0.0},
        },
        optimizers.adamw,
    )


@case(
    "warmup_cosine",
    (
        argument("total_iters", 5, 100),
        argument("warmup", 5, 100),
        clock("per iteration"),
        clock("stretch"),  # added: 20 times for once, until the warm-up's end
    ),
    determined=False,
    note="a warm-up of 5 iterations for one of 5 epochs",
)
def warmup_of_five_iterations():
    def rate(i):
        epoch = jnp.maximum(i // 20 - 5, 0)
        cosine = 1e-5 + (1e-3 - 1e-5) * (1 + jnp.cos(jnp.pi * epoch / 25)) / 2
        return jnp.where(i < 5, 1e-3 * (0.01 + 0.99 * i / 5), cosine)

    return Recipe(
        {
            "0": {"learning_rate": rate, "weight_decay": 0.05},
            "1": {"learning_rate": rate, "weight_decay": 0.0},
        },
        optimizers.adamw,
    )


@case("segmentation", argument("power", 1.0, 0.9, since=1))
def power_forgotten():
    common = {"momentum": 0.9, "weight_decay": 1e-4}
    return Recipe(
        {
            "backbone": common | {"learning_rate": lr_scheduler.polynomial_lr(0.01, 700)},
            "head": common | {"learning_rate": lr_scheduler.polynomial_lr(0.1, 700)},
        }
    )


@case(
    "segmentation",
    (
        groups("merged"),
        groups("taken from"),
        value("factor", 0.1),
        argument("base_lr", 0.01, 0.1),
        argument("learning_rate", 0.01, 0.1),
    ),
    note="only in the head",
)
def head_without_its_factor():
    rate = lr_scheduler.polynomial_lr(0.01, total_iters=700, power=0.9)
    group = {"learning_rate": rate, "momentum": 0.9, "weight_decay": 1e-4}
    return Recipe({"backbone": group, "head": group})


@case("segmentation", argument("total_iters", 693, 700, since=1))
def iterations_of_dropped_batches():
    total = 7 * 99
    common = {"momentum": 0.9, "weight_decay": 1e-4}
    return Recipe(
        {
            "backbone": common | {"learning_rate": lr_scheduler.polynomial_lr(0.01, total, 0.9)},
            "head": common | {"learning_rate": lr_scheduler.polynomial_lr(0.1, total, 0.9)},
        },
        optimizers.sgd,
    )


@case("segmentation", (value("floor", 1e-3), argument("min_lr", 1e-3, 0.0)))
def floor_that_the_script_lacks():
    def rate(base):
        return lambda i: jnp.maximum(base * jnp.power(1 - i / 700, 0.9), 1e-3)

    common = {"momentum": 0.9, "weight_decay": 1e-4}
    return Recipe(
        {
            "backbone": common | {"learning_rate": rate(0.01)},
            "head": common | {"learning_rate": rate(0.1)},
        }
    )


@case("constant_rmsprop", argument("total_iters", 5, 4, since=80))
def default_of_five_epochs():
    rate = schedules.per_epoch(lr_scheduler.constant_lr(0.002, factor=0.25), 20)
    group = {"learning_rate": rate, "alpha": 0.9, "momentum": 0.9}
    return Recipe({"0": group}, optimizers.rmsprop)


@case(
    "constant_rmsprop",
    (clock("stretch", 20), clock("per iteration"), argument("total_iters", 4, 80)),
)
def quarter_for_four_iterations():
    rows = []
    for i in range(240):
        lr = 0.002 * (0.25 if i < 4 else 1.0)
        rmsprop = {"alpha": 0.9, "eps": 1e-8, "weight_decay": 0.0, "momentum": 0.9}
        rows.append({"0": {"learning_rate": lr} | rmsprop})
    return log_rows(rows)


@case("constant_rmsprop")
def quarter_by_hand():
    def rate(i):
        return jnp.where(i < 80, 0.0005, 0.002)

    group = {"learning_rate": rate, "alpha": 0.9, "momentum": 0.9, "eps": 1e-8}
    return Recipe({"0": group}, optimizers.rmsprop)


@case("nanogpt", argument("b2", 0.999, 0.95))
def gpt_with_the_default_betas():
    def rate(it):
        share = jnp.clip((it - 100) / (1000 - 100), 0.0, 1.0)
        cosine = 6e-5 + 0.5 * (1 + jnp.cos(jnp.pi * share)) * (6e-4 - 6e-5)
        return jnp.where(it < 100, 6e-4 * (it + 1) / (100 + 1), cosine)

    return Recipe(
        {
            "decay": {"learning_rate": rate, "weight_decay": 0.1},
            "no_decay": {"learning_rate": rate, "weight_decay": 0.0},
        },
        optimizers.adamw,
    )


@case("nanogpt", argument("lr_decay_iters", 1100, 1000), determined=False)
def gpt_decays_over_all_iterations():
    rows = []
    for it in range(1100):
        if it < 100:
            lr = 6e-4 * (it + 1) / 101
        else:
            coeff = 0.5 * (1.0 + math.cos(math.pi * (it - 100) / (1100 - 100)))
            lr = 6e-5 + coeff * (6e-4 - 6e-5)
        adamw = {"learning_rate": lr, "b1": 0.9, "b2": 0.95, "eps": 1e-8}
        decayed, others = adamw | {"weight_decay": 0.1}, adamw | {"weight_decay": 0.0}
        rows.append({"decay": decayed, "no_decay": others})
    return log_rows(rows)


@case(
    "nanogpt",
    clock("stopped", since=1001),
    note="the reverse: the script stops at 1000, the port goes on and rises",
)
def gpt_without_a_clamp():
    def rate(it):
        coeff = 0.5 * (1.0 + jnp.cos(jnp.pi * (it - 100) / (1000 - 100)))
        return jnp.where(it < 100, 6e-4 * (it + 1) / 101, 6e-5 + coeff * (6e-4 - 6e-5))

    common = {"learning_rate": rate, "b2": 0.95}
    return Recipe(
        {"decay": common | {"weight_decay": 0.1}, "no_decay": common | {"weight_decay": 0.0}},
        optimizers.adamw,
    )


@case("nanogpt", clock("reset", since=500))
def gpt_resumed_from_zero():
    def get_lr(it):
        if it < 100:
            return 6e-4 * (it + 1) / 101
        ratio = min((it - 100) / 900, 1.0)
        return 6e-5 + 0.5 * (1.0 + math.cos(math.pi * ratio)) * (6e-4 - 6e-5)

    rows = []
    for first, last in ((0, 500), (500, 1100)):
        for it in range(last - first):  # the checkpoint had no count
            adamw = {"learning_rate": get_lr(it), "b1": 0.9, "b2": 0.95, "eps": 1e-8}
            decayed, others = adamw | {"weight_decay": 0.1}, adamw | {"weight_decay": 0.0}
            rows.append({"decay": decayed, "no_decay": others})
    return log_rows(rows)


@case("nanogpt")
def gpt_tabulated():
    def get_lr(it):
        if it < 100:
            return 6e-4 * (it + 1) / (100 + 1)
        if it > 1000:
            return 6e-5
        coeff = 0.5 * (1.0 + math.cos(math.pi * (it - 100) / (1000 - 100)))
        return 6e-5 + coeff * (6e-4 - 6e-5)

    common = {"learning_rate": schedules.tabulate(get_lr, 1100), "b2": 0.95}
    return Recipe(
        {"decay": common | {"weight_decay": 0.1}, "no_decay": common | {"weight_decay": 0.0}},
        optimizers.adamw,
        clip_norm=1.0,
    )


@case("fine_tune", clock("stopped", since=61), labels={"0": "decay", "1": "no_decay"})
def constant_after_the_warmup():
    rate = optax.warmup_constant_schedule(0.0, 5e-5, warmup_steps=60)
    return Recipe(
        {
            "decay": {"learning_rate": rate, "weight_decay": 0.01},
            "no_decay": {"learning_rate": rate, "weight_decay": 0.0},
        },
        optimizers.adamw,
    )


@case("fine_tune", value("bfloat16"))
def fine_tuning_rate_kept_in_bfloat16():
    rows = []
    for step in range(600):
        factor = step / 60 if step < 60 else (600 - step) / 540
        lr = float(jnp.asarray(5e-5 * factor, jnp.bfloat16))
        adamw = {"learning_rate": lr, "b1": 0.9, "b2": 0.999, "eps": 1e-8}
        rows.append({"0": adamw | {"weight_decay": 0.01}, "1": adamw | {"weight_decay": 0.0}})
    return log_rows(rows)


@case("fine_tune", clock("stretch", 0.5, since=1))
def stepped_every_second_update():
    def rate(i):
        step = i // 2
        return 5e-5 * jnp.where(step < 60, step / 60, (600 - step) / 540)

    return Recipe(
        {
            "0": {"learning_rate": rate, "weight_decay": 0.01},
            "1": {"learning_rate": rate, "weight_decay": 0.0},
        },
        optimizers.adamw,
    )


@case("fine_tune", clock("stretch", 4, since=1))
def stepped_by_four_processes():
    def factor(step):
        return jnp.where(step < 60, step / 60, jnp.maximum(0.0, (600 - step) / 540))

    rate = lr_scheduler.lambda_lr(5e-5, lambda iteration: factor(4 * iteration))
    return Recipe(
        {
            "0": {"learning_rate": rate, "weight_decay": 0.01},
            "1": {"learning_rate": rate, "weight_decay": 0.0},
        },
        optimizers.adamw,
    )


@case("detector", (argument("start", 0.0, 0.1), argument("warmup_bias_lr", 0.0, 0.1)))
def biases_warmed_up_from_zero():
    lf = lr_scheduler.lambda_lr(0.01, schedules.linear(20, lrf=0.01))
    rate = schedules.warmup(schedules.per_epoch(lf, 40), 120, start=0.0)
    momentum = schedules.warmup(schedules.constant(0.937), 120, start=0.8)
    group = {"learning_rate": rate, "momentum": momentum, "nesterov": True}
    return Recipe({"bias": group, "weight": group | {"weight_decay": 5e-4}, "norm": group})


@case(
    "detector",
    (
        argument("iterations", 100, 120),
        argument("warmup", 100, 120),
        argument("warmup_iterations", 100, 120),
    ),
)
def warmup_of_a_hundred():
    n = 100
    lf = lr_scheduler.lambda_lr(0.01, schedules.linear(20, lrf=0.01))
    epochs = schedules.per_epoch(lf, 40)
    momentum = schedules.warmup(schedules.constant(0.937), n, start=0.8)

    def group(start, weight_decay=0.0):
        rate = schedules.warmup(epochs, n, start=start)
        return {"learning_rate": rate, "momentum": momentum, "nesterov": True} | {
            "weight_decay": weight_decay
        }

    return Recipe({"bias": group(0.1), "weight": group(0.0, 5e-4), "norm": group(0.0)})


@case("detector", groups("exchanged"), labels={"bias": "g0", "weight": "g1", "norm": "g2"})
def groups_in_another_order():
    lf = lr_scheduler.lambda_lr(0.01, schedules.linear(20, lrf=0.01))
    epochs = schedules.per_epoch(lf, 40)
    momentum = schedules.warmup(schedules.constant(0.937), 120, start=0.8)

    def group(start, weight_decay=0.0):
        rate = schedules.warmup(epochs, 120, start=start)
        return {"learning_rate": rate, "momentum": momentum, "nesterov": True} | {
            "weight_decay": weight_decay
        }

    # Weights first, as in version 6; the script has the biases first.
    return Recipe({"g0": group(0.0, 5e-4), "g1": group(0.1), "g2": group(0.0)})


@case("detector", (groups("taken from"), argument("weight_decay", 5e-4, 0.0)))
def norms_decay_too():
    def rate(start):
        def at(i):
            target = 0.01 * ((1 - (i // 40) / 20) * 0.99 + 0.01)
            return jnp.where(i < 120, start + (target - start) * i / 120, target)

        return at

    def momentum(i):
        return 0.8 + (0.937 - 0.8) * jnp.minimum(i, 120) / 120

    common = {"momentum": momentum, "nesterov": True}
    return Recipe(
        {
            "bias": common | {"learning_rate": rate(0.1)},
            "weight": common | {"learning_rate": rate(0.0), "weight_decay": 5e-4},
            "norm": common | {"learning_rate": rate(0.0), "weight_decay": 5e-4},
        }
    )


@case(
    "detector",
    (
        argument("iterations", 3, 120),
        argument("warmup", 3, 120),
        argument("warmup_iterations", 3, 120),
        argument("warmup_epochs", 3),
    ),
)
def warmup_epochs_as_iterations():
    warmup_epochs = 3
    lf = lr_scheduler.lambda_lr(0.01, schedules.linear(20, lrf=0.01))
    epochs = schedules.per_epoch(lf, 40)
    momentum = schedules.warmup(schedules.constant(0.937), warmup_epochs, start=0.8)

    def group(start, weight_decay=0.0):
        rate = schedules.warmup(epochs, warmup_epochs, start=start)
        return {"learning_rate": rate, "momentum": momentum, "nesterov": True} | {
            "weight_decay": weight_decay
        }

    return Recipe({"bias": group(0.1), "weight": group(0.0, 5e-4), "norm": group(0.0)})


@case("plateau", argument("patience", 3, 2), determined=False)
def plateau_with_more_patience():
    plateau = lr_scheduler.reduce_lr_on_plateau(1e-3, factor=0.5, patience=3)
    state, rows = plateau.init(), []
    for loss in LOSSES:
        adam = {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "weight_decay": 0.0}
        rows += [{"0": {"learning_rate": float(state.learning_rate)} | adam}] * 15
        state = plateau.step(state, loss)
    return log_rows(rows)


@case("plateau", argument("factor", 0.1, 0.5), determined=False)
def plateau_with_the_default_factor():
    plateau = lr_scheduler.reduce_lr_on_plateau(1e-3, patience=2)
    state, rates = plateau.init(), []
    for loss in LOSSES:
        rates += [float(state.learning_rate)] * 15
        state = plateau.step(state, loss)
    return Recipe({"0": {"learning_rate": schedules.table(rates)}}, optimizers.adam)


@case("plateau", (groups("unscheduled"), clock("stopped", since=135)))
def plateau_never_stepped():
    tx = optax.inject_hyperparams(
        lambda learning_rate, b1, b2, eps, weight_decay: optax.chain(
            optax.add_decayed_weights(weight_decay), optax.adam(learning_rate, b1, b2, eps)
        )
    )(learning_rate=1e-3, b1=0.9, b2=0.999, eps=1e-8, weight_decay=0.0)
    return log_updates(tx, 450).relabel({"all": "0"})


@case("accumulated")
def schedule_of_updates_under_accumulation():
    def rate(update):
        progress = (update - 40) / (400 - 40)
        return 3e-4 * jnp.where(update < 40, update / 40, 0.5 * (1 + jnp.cos(jnp.pi * progress)))

    return Recipe(
        {"0": {"learning_rate": schedules.per_epoch(rate, 4), "weight_decay": 0.01}},
        optimizers.adamw,
        accumulation=optimizers.Accumulation(schedules.constant(4)),
    )


@case(
    "accumulated",
    (argument("warmup", 41, 40), argument("warmup_steps", 41, 40)),
    determined=False,
)
def warmup_an_update_longer():
    def rate(update):
        up, progress = update / 41, (update - 41) / (400 - 41)
        return 3e-4 * jnp.where(update < 41, up, 0.5 * (1 + jnp.cos(jnp.pi * progress)))

    return Recipe({"0": {"learning_rate": rate}}, optimizers.adamw)


@case(
    "accumulated",
    argument("weight_decay", 1e-4, 0.01),
    labels={"0": "all"},
    note="float32 too: Optax computes the schedule in it",
)
def adamw_of_optax_with_its_decay():
    rate = optax.warmup_cosine_decay_schedule(0.0, 3e-4, 40, 400)
    return log_updates(optax.inject_hyperparams(optax.adamw)(learning_rate=rate), 400)


@case(
    "accumulated",
    (argument("warmup", 10, 40), argument("warmup_steps", 10, 40)),
    determined=False,
)
def warmup_counted_in_batches():
    rate = optax.warmup_cosine_decay_schedule(0.0, 3e-4, warmup_steps=40 // 4, decay_steps=400)
    return Recipe({"0": {"learning_rate": rate, "weight_decay": 0.01}}, optimizers.adamw)


@case(
    "gan",
    (argument("n_epochs_decay", 19, 20), argument("total_iters", 20, 21)),
    determined=False,
    note="a divisor of 20 for 21",
)
def gan_divisor():
    line = optax.linear_schedule(2e-4, 0.0, transition_steps=20, transition_begin=20)

    def rate(i):
        return line(i // 10)

    return Recipe({"0": {"learning_rate": rate, "b1": 0.5}}, optimizers.adam)


@case("gan", clock("shift", 10, since=200))
def gan_epochs_from_one():
    rows = []
    for epoch in range(1, 41):
        lr = 2e-4 * (1.0 - max(0, epoch - 20) / 21)
        row = {"learning_rate": lr, "b1": 0.5, "b2": 0.999, "eps": 1e-8, "weight_decay": 0.0}
        rows += [{"0": row}] * 10
    return log_rows(rows)


@case(
    "gan",
    (value("factor", 0.5), argument("lr", 1e-4, 2e-4), argument("learning_rate", 1e-4, 2e-4)),
)
def gan_of_the_critics_rate():
    line = optax.join_schedules(
        [optax.constant_schedule(1e-4), optax.linear_schedule(1e-4, 0.0, 21)], [20]
    )
    return Recipe({"0": {"learning_rate": lambda i: line(i // 10), "b1": 0.5}}, optimizers.adam)


@case("gan", labels={"0": "generator"})
def gan_by_lambda():
    rate = lr_scheduler.lambda_lr(2e-4, lambda epoch: 1.0 - jnp.maximum(0, epoch - 20) / 21)
    group = {"learning_rate": schedules.per_epoch(rate, 10), "b1": 0.5, "b2": 0.999}
    return Recipe({"generator": group}, optimizers.adam)


@case("resumed", clock("reset", since=300))
def resumed_from_the_start():
    rows = []
    for _process in range(2):
        for i in range(300):
            lr = 0.02 * (1 + math.cos(math.pi * (i // 25) / 24)) / 2
            lr *= min(1.0, (i + 1) / 100)
            row = {"learning_rate": lr, "momentum": 0.9, "dampening": 0.0, "weight_decay": 1e-4}
            rows.append({"0": row})
    return log_rows(rows)


@case(
    "resumed",
    (clock("reset", since=300), clock("shift", -300, since=400)),
    note="only the cosine starts again, there is no second warm-up",
)
def resumed_without_the_scheduler():
    rows = []
    for i in range(600):
        epoch = (i if i < 300 else i - 300) // 25
        lr = 0.02 * (1 + math.cos(math.pi * epoch / 24)) / 2
        if i < 100:
            lr *= (i + 1) / 100
        row = {"learning_rate": lr, "momentum": 0.9, "dampening": 0.0, "weight_decay": 1e-4}
        rows.append({"0": row})
    return log_rows(rows)


@case("resumed")
def resumed_as_if_never_stopped():
    cosine = schedules.per_epoch(lr_scheduler.cosine_annealing_lr(0.02, T_max=24), 25)

    def rate(i):
        return cosine(i) * jnp.minimum(1.0, (i + 1) / 100)

    return Recipe({"0": {"learning_rate": rate, "momentum": 0.9, "weight_decay": 1e-4}})


@case("layerwise", groups("exchanged"))
def layers_counted_from_the_other_end():
    rates = {
        name: lr_scheduler.cosine_annealing_lr(1e-3 * 0.65**depth, T_max=500)
        for depth, name in enumerate(["backbone", "norm", "head"])
    }
    return Recipe(
        {
            name: {
                "learning_rate": rate,
                "b2": 0.95,
                "weight_decay": 0.0 if name == "norm" else 0.05,
            }
            for name, rate in rates.items()
        },
        optimizers.adamw,
    )


@case(
    "layerwise",
    (argument("layer_decay", 0.75, 0.65), argument("base_lr"), value("factor")),
    note="the backbone's rate is (0.75 / 0.65) ** 2 times the script's, the norm's 0.75 / 0.65 times",
)
def layer_decay_of_another_model():
    rates = {
        name: lr_scheduler.cosine_annealing_lr(1e-3 * 0.75 ** (2 - depth), T_max=500)
        for depth, name in enumerate(["backbone", "norm", "head"])
    }
    return Recipe(
        {
            name: {
                "learning_rate": rate,
                "b2": 0.95,
                "weight_decay": 0.0 if name == "norm" else 0.05,
            }
            for name, rate in rates.items()
        },
        optimizers.adamw,
    )


@case(
    "layerwise",
    (groups("taken from"), groups("merged"), argument("weight_decay", 0.05, 0.0)),
    argument("b2", 0.999, 0.95),
)
def decay_and_betas_for_all():
    def group(base_lr):
        rate = lr_scheduler.cosine_annealing_lr(base_lr, T_max=500)
        return {"learning_rate": rate, "weight_decay": 0.05}

    return Recipe(
        {
            "backbone": group(1e-3 * 0.65**2),
            "norm": group(1e-3 * 0.65),
            "head": group(1e-3),
        },
        optimizers.adamw,
    )


@case(
    "cosine_epoch",
    (argument("base_lr", 1e-3, 5e-4), argument("learning_rate", 1e-3, 5e-4)),
    argument("eta_min", 0.0, 1e-6),
)
def another_rate_and_no_least_rate():
    rate = schedules.per_epoch(lr_scheduler.cosine_annealing_lr(1e-3, T_max=20), 30)
    return Recipe(
        {
            "decay": {"learning_rate": rate, "weight_decay": 0.05},
            "no_decay": {"learning_rate": rate, "weight_decay": 0.0},
        },
        optimizers.adamw,
    )


@case(
    "segmentation",
    (value("factor", 0.5), argument("base_lr"), argument("learning_rate")),
    clock("shift", 1),
    note="the rates of both groups are half of the script's",
)
def half_the_rate_a_step_ahead():
    devices = 2

    def rate(base):
        def at(i):
            return base / devices * jnp.power(1 - (i + 1) / 700, 0.9)

        return at

    common = {"momentum": 0.9, "weight_decay": 1e-4}
    return Recipe(
        {
            "backbone": common | {"learning_rate": rate(0.01)},
            "head": common | {"learning_rate": rate(0.1)},
        }
    )


@case(
    "step_sgd",
    (argument("base_lr", 0.05, 0.1), argument("learning_rate", 0.05, 0.1), value("factor", 0.5)),
    argument("step_size", 2, 3),
)
def half_the_rate_in_shorter_steps():
    rate = schedules.per_epoch(lr_scheduler.step_lr(0.05, step_size=2), 40)
    return Recipe({"0": {"learning_rate": rate, "momentum": 0.9, "weight_decay": 5e-4}})


@case("cosine_iteration", clock("per epoch", since=1))
def cosine_in_stairs():
    cosine = optax.cosine_decay_schedule(0.05, decay_steps=14, alpha=0.01)

    def rate(i):
        return cosine(i // 50)

    return Recipe({"0": {"learning_rate": rate, "momentum": 0.9, "weight_decay": 1e-4}})


CASES = tuple(port for port in tuple(globals().values()) if isinstance(port, Case))
