"""Wrong ports to work on the causes with."""

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


@case("step_sgd", argument("gamma", 0.2, 0.1, since=120))
def step_gamma_02():
    rate = schedules.per_epoch(lr_scheduler.step_lr(0.1, step_size=3, gamma=0.2), 40)
    return Recipe({"0": {"learning_rate": rate, "momentum": 0.9, "weight_decay": 5e-4}})


@case(
    "step_sgd",
    (clock("stretch", 40), clock("per iteration"), argument("steps_per_epoch", 1, 40)),
)
def step_counts_iterations():
    rate = lr_scheduler.step_lr(0.1, step_size=3)
    return Recipe({"0": {"learning_rate": rate, "momentum": 0.9, "weight_decay": 5e-4}})


@case("step_sgd", (clock("per iteration"), argument("staircase", False, True)))
def optax_decay_without_staircase():
    rate = optax.exponential_decay(0.1, transition_steps=120, decay_rate=0.1)
    return Recipe({"0": {"learning_rate": rate, "momentum": 0.9, "weight_decay": 5e-4}})


@case("step_sgd")
def step_by_hand():
    def rate(iteration):
        epoch = iteration // 40
        return 0.1 * 0.1 ** (epoch // 3)

    return Recipe({"0": {"learning_rate": rate, "momentum": 0.9, "weight_decay": 5e-4}})


@case("imagenet", argument("milestones", (30, 60, 90), (30, 60, 80), since=800))
def last_milestone_at_the_end():
    drops = lr_scheduler.multi_step_lr(0.1, [30, 60, 90], gamma=0.1)
    group = {
        "learning_rate": schedules.per_epoch(drops, steps_per_epoch=10),
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "nesterov": True,
    }
    return Recipe({"0": group}, length=900)


@case("imagenet", argument("steps_per_epoch", 11, 10, since=300))
def last_batch_not_dropped():
    images, batch_size = 85, 8
    steps_per_epoch = -(-images // batch_size)
    drops = lr_scheduler.multi_step_lr(0.1, [30, 60, 80], gamma=0.1)
    group = {
        "learning_rate": schedules.per_epoch(drops, steps_per_epoch),
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "nesterov": True,
    }
    return Recipe({"0": group})


@case(
    "imagenet",
    (
        argument("warmup", 50, 0),
        argument("iterations", 50, 0),
        argument("warmup_iterations", 50, 0),
    ),
    note="the script has no warm-up",
)
def warmup_that_the_script_lacks():
    drops = schedules.per_epoch(lr_scheduler.multi_step_lr(0.1, [30, 60, 80]), 10)
    group = {
        "learning_rate": schedules.warmup(drops, 5 * 10, start=0.0),
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "nesterov": True,
    }
    return Recipe({"0": group})


@case(
    "imagenet",
    (argument("base_lr", 0.4, 0.1), value("factor", 4.0)),
    argument("gamma", 0.2, 0.1),
)
def rate_for_a_large_batch_and_gamma():
    drops = lr_scheduler.multi_step_lr(0.1 * 1024 / 256, [30, 60, 80], gamma=0.2)
    group = {
        "learning_rate": schedules.per_epoch(drops, 10),
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "nesterov": True,
    }
    return Recipe({"0": group})


@case("exponential_adam", argument("b2", 0.99, 0.999))
def second_beta_099():
    rate = schedules.per_epoch(lr_scheduler.exponential_lr(1e-3, 0.95, steps=20), 25)
    return Recipe({"0": {"learning_rate": rate, "b1": 0.9, "b2": 0.99}}, optimizers.adam)


@case(
    "exponential_adam",
    (argument("transition_steps", 24, 25), argument("steps_per_epoch", 24, 25)),
    determined=False,
)
def optax_staircase_a_batch_short():
    rate = optax.exponential_decay(1e-3, transition_steps=24, decay_rate=0.95, staircase=True)
    return Recipe({"0": {"learning_rate": rate}}, optimizers.adam)


@case("exponential_adam", value("bfloat16"))
def rate_in_bfloat16():
    def rate(i):
        exact = 1e-3 * 0.95 ** (i // 25)
        return jnp.asarray(exact, jnp.bfloat16).astype(jnp.float32)

    return Recipe({"0": {"learning_rate": rate}}, optimizers.adam)


@case("exponential_adam")
def exponential_by_hand():
    def rate(i):
        return 1e-3 * jnp.power(0.95, i // 25)

    group = {"learning_rate": rate, "b1": 0.9, "b2": 0.999, "eps": 1e-8}
    return Recipe({"0": group}, optimizers.adam)


@case("cosine_epoch", argument("eta_min", 0.0, 1e-6, since=30))
def cosine_to_zero():
    rate = schedules.per_epoch(lr_scheduler.cosine_annealing_lr(5e-4, T_max=20), 30)
    return Recipe(
        {
            "decay": {"learning_rate": rate, "weight_decay": 0.05},
            "no_decay": {"learning_rate": rate, "weight_decay": 0.0},
        },
        optimizers.adamw,
    )


@case("cosine_epoch", clock("shift", 30, since=0))
def cosine_an_epoch_early():
    def rate(i):
        epoch = i // 30 + 1
        return 1e-6 + (5e-4 - 1e-6) * 0.5 * (1 + jnp.cos(jnp.pi * epoch / 20))

    group = {"learning_rate": rate}
    return Recipe(
        {"decay": group | {"weight_decay": 0.05}, "no_decay": group | {"weight_decay": 0.0}},
        optimizers.adamw,
    )


@case("cosine_epoch", (groups("taken from"), argument("weight_decay", 0.05, 0.0), groups("merged")))
def decay_on_biases_and_norms():
    rate = schedules.per_epoch(lr_scheduler.cosine_annealing_lr(5e-4, 20, 1e-6), 30)
    group = {"learning_rate": rate, "weight_decay": 0.05}
    return Recipe({"decay": group, "no_decay": group}, optimizers.adamw)


@case("cosine_epoch", groups("exchanged"))
def decay_on_the_wrong_group():
    rate = schedules.per_epoch(lr_scheduler.cosine_annealing_lr(5e-4, 20, 1e-6), 30)
    return Recipe(
        {
            "no_decay": {"learning_rate": rate, "weight_decay": 0.05},
            "decay": {"learning_rate": rate, "weight_decay": 0.0},
        },
        optimizers.adamw,
    )


@case("cosine_epoch", rule("adam"))
def adam_for_adamw():
    rate = schedules.per_epoch(lr_scheduler.cosine_annealing_lr(5e-4, 20, 1e-6), 30)
    return Recipe(
        {
            "decay": {"learning_rate": rate, "weight_decay": 0.05},
            "no_decay": {"learning_rate": rate, "weight_decay": 0.0},
        },
        optimizers.adam,
    )


@case(
    "cosine_epoch",
    (argument("eta_min", 5e-10, 1e-6), argument("alpha", 1e-6, 2e-3)),
    determined=False,
    note="float32 too: Optax computes the schedule in it",
)
def optax_alpha_is_a_share():
    cosine = optax.cosine_decay_schedule(5e-4, 20, alpha=1e-6)
    adamw = optax.inject_hyperparams(optax.adamw)
    rules = {
        label: adamw(learning_rate=lambda count: cosine(count // 30), weight_decay=decay)
        for label, decay in {"decay": 0.05, "no_decay": 0.0}.items()
    }
    tx = optax.multi_transform(rules, {"kernel": "decay", "bias": "no_decay"})
    return log_updates(tx, 600, {"kernel": jnp.ones(2), "bias": jnp.ones(2)})


@case("cosine_epoch", clock("stopped", since=480))
def cosine_stopped_at_epoch_15():
    cosine = lr_scheduler.cosine_annealing_lr(5e-4, 20, 1e-6)

    def rate(i):
        return cosine(jnp.minimum(i // 30, 15))

    return Recipe(
        {
            "decay": {"learning_rate": rate, "weight_decay": 0.05},
            "no_decay": {"learning_rate": rate, "weight_decay": 0.0},
        },
        optimizers.adamw,
    )


@case(
    "cosine_iteration",
    clock("stopped", since=701),
    note="the reverse: the script stops at 700, the port goes on and rises",
)
def cosine_rises_after_its_end():
    rate = lr_scheduler.cosine_annealing_lr(0.05, T_max=700, eta_min=5e-4)
    return Recipe({"0": {"learning_rate": rate, "momentum": 0.9, "weight_decay": 1e-4}})


@case(
    "cosine_iteration",
    (argument("eta_min", 2.5e-5, 5e-4), argument("alpha", 5e-4, 0.01)),
    determined=False,
)
def optax_alpha_for_eta_min():
    rate = optax.cosine_decay_schedule(0.05, decay_steps=700, alpha=5e-4)
    return Recipe({"0": {"learning_rate": rate, "momentum": 0.9, "weight_decay": 1e-4}})


@case(
    "cosine_iteration",
    (argument("base_lr", 0.025, 0.05), argument("learning_rate", 0.025, 0.05)),
    determined=False,
)
def half_the_rate_to_the_same_end():
    def rate(i):
        progress = jnp.minimum(i, 700) / 700
        return 5e-4 + (0.025 - 5e-4) * 0.5 * (1 + jnp.cos(jnp.pi * progress))

    return Recipe({"0": {"learning_rate": rate, "momentum": 0.9, "weight_decay": 1e-4}})


@case("cosine_iteration", clock("stretch", 2, since=1))
def stepped_on_both_devices():
    rows, step = [], 0
    for _ in range(800):
        progress = min(step, 700) / 700
        lr = 5e-4 + (0.05 - 5e-4) * (1 + math.cos(math.pi * progress)) / 2
        row = {"learning_rate": lr, "momentum": 0.9, "dampening": 0.0, "weight_decay": 1e-4}
        rows.append({"0": row})
        for _device in range(2):
            step += 1
    return log_rows(rows)


@case("warm_restarts", argument("T_mult", 1, 2, since=72))
def restarts_of_equal_length():
    rate = lr_scheduler.cosine_annealing_warm_restarts(0.05, T_0=5, eta_min=1e-4)
    group = {"momentum": 0.9, "weight_decay": 5e-4}
    return Recipe({"0": group | {"learning_rate": schedules.per_epoch(rate, 12)}})


@case("warm_restarts", argument("T_0", 6, 5, since=12))
def first_period_of_six():
    rate = lr_scheduler.cosine_annealing_warm_restarts(0.05, T_0=6, T_mult=2, eta_min=1e-4)
    group = {"momentum": 0.9, "weight_decay": 5e-4}
    return Recipe({"0": group | {"learning_rate": schedules.per_epoch(rate, steps_per_epoch=12)}})


@case("warm_restarts", clock("per iteration", since=1))
def optax_sgdr_by_iteration():
    periods = [
        {"init_value": 0.05, "peak_value": 0.05, "warmup_steps": 0, "end_value": 1e-4}
        | {"decay_steps": 12 * epochs}
        for epochs in (5, 10, 20, 40)
    ]
    group = {"learning_rate": optax.sgdr_schedule(periods), "momentum": 0.9}
    return Recipe({"0": group | {"weight_decay": 5e-4}})


@case(
    "warm_restarts",
    argument("T_0", 10, 5, since=12),
    argument("weight_decay", 5e-5, 5e-4),
)
def restarts_of_ten_and_a_lost_digit():
    rate = lr_scheduler.cosine_annealing_warm_restarts(0.05, T_0=10, T_mult=2, eta_min=1e-4)
    group = {"momentum": 0.9, "weight_decay": 5e-5}
    return Recipe({"0": group | {"learning_rate": schedules.per_epoch(rate, 12)}})


@case("exponential_adam", value("addend", 1e-4), note="a least rate that is added, not a floor")
def least_rate_added():
    def rate(i):
        return 1e-4 + 1e-3 * 0.95 ** (i // 25)

    return Recipe({"0": {"learning_rate": rate}}, optimizers.adam)


@case(
    "one_cycle",
    (argument("total_steps"), argument("transition_steps"), argument("pct_start")),
    determined=False,
    note="Optax peaks at 180 and ends at 600, torch at 179 and 599",
)
def optax_one_cycle():
    rate = optax.cosine_onecycle_schedule(600, peak_value=0.4, pct_start=0.3, div_factor=25.0)
    torchs = lr_scheduler.one_cycle_lr(0.4, total_steps=600)
    group = {"learning_rate": rate, "momentum": torchs.momentum, "weight_decay": 5e-4}
    return Recipe({"0": group | {"nesterov": True}})


@case("one_cycle", argument("anneal_strategy", "linear", "cos", since=1))
def one_cycle_in_lines():
    cycle = lr_scheduler.one_cycle_lr(
        0.4, epochs=12, steps_per_epoch=50, anneal_strategy="linear", steps=600
    )
    group = {"learning_rate": cycle, "momentum": cycle.momentum, "weight_decay": 5e-4}
    return Recipe({"0": group | {"nesterov": True}})


@case("one_cycle", (value("factor", 2.0), argument("max_lr", 0.8, 0.4)))
def one_cycle_twice_as_high():
    rows = []
    for step in range(600):
        if step <= 179:
            low, high, share = 0.8 / 25, 0.8, step / 179
            start, end = 0.95, 0.85
        else:
            low, high, share = 0.8, 0.8 / 25 / 1e4, (step - 179) / 420
            start, end = 0.85, 0.95
        cosine = (1 + math.cos(math.pi * share)) / 2
        row = {
            "learning_rate": high + (low - high) * cosine,
            "momentum": end + (start - end) * cosine,
        }
        rows.append({"0": row | {"dampening": 0.0, "weight_decay": 5e-4}})
    return log_rows(rows)


@case(
    "one_cycle",
    (argument("steps_per_epoch", 51, 50), argument("total_steps", 612, 600)),
)
def one_cycle_with_the_last_batch():
    cycle = lr_scheduler.one_cycle_lr(max_lr=0.4, epochs=12, steps_per_epoch=51)
    group = {"learning_rate": cycle, "momentum": cycle.momentum, "weight_decay": 5e-4}
    return Recipe({"0": group | {"nesterov": True}})


@case(
    "one_cycle",
    argument("max_momentum", 0.9, 0.95),
    argument("final_div_factor", 1e3, 1e4, since=180),
)
def one_cycle_of_another_paper():
    cycle = lr_scheduler.one_cycle_lr(0.4, total_steps=600, max_momentum=0.9, final_div_factor=1e3)
    group = {"learning_rate": cycle, "momentum": cycle.momentum, "weight_decay": 5e-4}
    return Recipe({"0": group | {"nesterov": True}})


@case("cyclic", (argument("step_size_up", 200, 100), clock("stretch", 0.5)))
def triangles_twice_as_long():
    cycle = lr_scheduler.cyclic_lr(0.001, 0.006, step_size_up=200, mode="triangular2")
    return Recipe({"0": {"learning_rate": cycle, "momentum": cycle.momentum}})


@case("cyclic", argument("step_size_down", 150, 100, since=101))
def slower_fall():
    cycle = lr_scheduler.cyclic_lr(0.001, 0.006, 100, 150, mode="triangular2")
    return Recipe({"0": {"learning_rate": cycle, "momentum": cycle.momentum}})


@case("cyclic")
def triangles_by_hand():
    def height(i):
        cycle = 1 + i // 200
        x = jnp.abs(i / 100 - 2 * cycle + 1)
        return jnp.maximum(0, 1 - x) / 2.0 ** (cycle - 1)

    group = {
        "learning_rate": lambda i: 0.001 + (0.006 - 0.001) * height(i),
        "momentum": lambda i: 0.9 - (0.9 - 0.8) * height(i),
    }
    return Recipe({"0": group})


@case("warmup_cosine", argument("start_factor", 0.1, 0.01, since=0))
def warmup_from_a_tenth():
    joined = lr_scheduler.sequential_lr(
        [
            lr_scheduler.linear_lr(1e-3, start_factor=0.1, total_iters=5),
            lr_scheduler.cosine_annealing_lr(1e-3, T_max=25, eta_min=1e-5),
        ],
        milestones=[5],
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


@case("warmup_cosine", argument("T_max", 30, 25, since=120))
def cosine_over_all_epochs():
    epochs = 30
    joined = lr_scheduler.sequential_lr(
        [
            lr_scheduler.linear_lr(1e-3, 0.01, total_iters=5),
            lr_scheduler.cosine_annealing_lr(1e-3, T_max=epochs, eta_min=1e-5),
        ],
        milestones=[5],
        steps=epochs,
    )
    rate = schedules.per_epoch(joined, 20)
    return Recipe(
        {
            "0": {"learning_rate": rate, "weight_decay": 0.05},
            "1": {"learning_rate": rate, "weight_decay": 0.0},
        },
        optimizers.adamw,
        length=epochs * 20,
    )


@case(
    "warmup_cosine",
    (argument("start_factor", 0.2, 0.01), argument("start", 2e-4, 1e-5), argument("warmup")),
    determined=False,
)
def warmup_from_one_of_n():
    rows = []
    for epoch in range(30):
        if epoch < 5:
            lr = 1e-3 * (epoch + 1) / 5
        else:
            lr = 1e-5 + (1e-3 - 1e-5) * 0.5 * (1 + math.cos(math.pi * (epoch - 5) / 25))
        adamw = {"learning_rate": lr, "b1": 0.9, "b2": 0.999, "eps": 1e-8}
        row = {"0": adamw | {"weight_decay": 0.05}, "1": adamw | {"weight_decay": 0.0}}
        rows += [row] * 20
    return log_rows(rows)


@case("warmup_cosine", labels={"0": "weights", "1": "norms"})
def linear_then_cosine():
    joined = lr_scheduler.sequential_lr(
        [
            lr_scheduler.linear_lr(1e-3, 0.01, total_iters=5),
            lr_scheduler.cosine_annealing_lr(1e-3, T_max=25, eta_min=1e-5),
        ],
        milestones=[5],
        steps=30,
    )
    rate = schedules.per_epoch(joined, 20)
    return Recipe(
        {
            "norms": {"learning_rate": rate, "weight_decay": 0.0},
            "weights": {"learning_rate": rate, "weight_decay": 0.05},
        },
        optimizers.adamw,
    )


@case(
    "warmup_cosine",
    (groups("taken from"), argument("weight_decay", 0.05, 0.0), groups("merged")),
    (argument("base_lr", 5e-4, 1e-3), argument("learning_rate", 5e-4, 1e-3)),
)
def half_rate_and_decayed_norms():
    joined = lr_scheduler.sequential_lr(
        [
            lr_scheduler.linear_lr(5e-4, 0.01, total_iters=5),
            lr_scheduler.cosine_annealing_lr(5e-4, T_max=25, eta_min=1e-5),
        ],
        milestones=[5],
        steps=30,
    )
    rate = schedules.per_epoch(joined, 20)
    group = {"learning_rate": rate, "weight_decay": 0.05}
    return Recipe({"0": group, "1": group}, optimizers.adamw)


@case("segmentation", groups("exchanged"))
def head_and_backbone_exchanged():
    def rate(base):
        return lambda i: base * jnp.power(1 - i / 700, 0.9)

    common = {"momentum": 0.9, "weight_decay": 1e-4}
    return Recipe(
        {
            "backbone": common | {"learning_rate": rate(0.1)},
            "head": common | {"learning_rate": rate(0.01)},
        }
    )


@case("segmentation", clock("per epoch", since=1))
def polynomial_by_epoch():
    def rate(base):
        return schedules.per_epoch(lr_scheduler.polynomial_lr(base, 7, power=0.9), 100)

    common = {"momentum": 0.9, "weight_decay": 1e-4}
    return Recipe(
        {
            "backbone": common | {"learning_rate": rate(0.01)},
            "head": common | {"learning_rate": rate(0.1)},
        }
    )


@case("segmentation", groups("unscheduled"))
def head_not_scheduled():
    rate = optax.polynomial_schedule(0.01, 0.0, power=0.9, transition_steps=700)
    common = {"momentum": 0.9, "weight_decay": 1e-4}
    return Recipe(
        {
            "backbone": common | {"learning_rate": rate},
            "head": common | {"learning_rate": 0.1},
        }
    )


@case("segmentation")
def polynomial_of_optax():
    def rate(base):
        return optax.polynomial_schedule(base, 0.0, power=0.9, transition_steps=700)

    common = {"momentum": 0.9, "weight_decay": 1e-4}
    return Recipe(
        {
            "backbone": common | {"learning_rate": rate(0.01)},
            "head": common | {"learning_rate": rate(0.1)},
        }
    )


@case("constant_rmsprop", argument("factor", 1 / 3, 0.25, since=0))
def a_third_for_a_quarter():
    rate = schedules.per_epoch(lr_scheduler.constant_lr(0.002, total_iters=4), 20)
    group = {"learning_rate": rate, "alpha": 0.9, "momentum": 0.9}
    return Recipe({"0": group}, optimizers.rmsprop)


@case("constant_rmsprop", argument("alpha", 0.99, 0.9))
def alpha_of_the_default():
    rate = schedules.per_epoch(lr_scheduler.constant_lr(0.002, 0.25, total_iters=4), 20)
    return Recipe({"0": {"learning_rate": rate, "momentum": 0.9}}, optimizers.rmsprop)


@case(
    "constant_rmsprop",
    (
        groups("unscheduled"),
        argument("factor", 1.0, 0.25),
        argument("total_iters", 0, 4),
        argument("warmup", 0),
        clock("shift", 80),
    ),
)
def rate_without_its_start():
    group = {"learning_rate": 0.002, "alpha": 0.9, "momentum": 0.9}
    return Recipe({"0": group}, optimizers.rmsprop)


@case("nanogpt", argument("min_lr", 0.0, 6e-5), determined=False)
def gpt_down_to_zero():
    def rate(it):
        share = jnp.clip((it - 100) / 900, 0.0, 1.0)
        cosine = 6e-4 * 0.5 * (1 + jnp.cos(jnp.pi * share))
        return jnp.where(it < 100, 6e-4 * (it + 1) / 101, cosine)

    common = {"learning_rate": rate, "b2": 0.95}
    return Recipe(
        {"decay": common | {"weight_decay": 0.1}, "no_decay": common | {"weight_decay": 0.0}},
        optimizers.adamw,
    )


@case(
    "nanogpt",
    (argument("start", 0.0), argument("warmup_iters"), argument("warmup")),
    determined=False,
    note="it / 100 for (it + 1) / 101 in the warm-up",
)
def gpt_warmup_from_zero():
    def rate(it):
        share = jnp.clip((it - 100) / 900, 0.0, 1.0)
        cosine = 6e-5 + (6e-4 - 6e-5) * 0.5 * (1 + jnp.cos(jnp.pi * share))
        return jnp.where(it < 100, 6e-4 * it / 100, cosine)

    common = {"learning_rate": rate, "b2": 0.95}
    return Recipe(
        {"decay": common | {"weight_decay": 0.1}, "no_decay": common | {"weight_decay": 0.0}},
        optimizers.adamw,
    )


@case(
    "nanogpt",
    (
        argument("init_value", 0.0),
        argument("start", 0.0),
        argument("warmup_iters"),
        argument("warmup"),
    ),
    determined=False,
    iterations=600,
    note="float32 too: Optax computes the schedule in it",
)
def gpt_in_plain_optax():
    rate = optax.warmup_cosine_decay_schedule(0.0, 6e-4, 100, 1000, end_value=6e-5)
    adamw = optax.inject_hyperparams(optax.adamw)
    tx = optax.multi_transform(
        {
            "decay": adamw(learning_rate=rate, b2=0.95, weight_decay=0.1),
            "no_decay": adamw(learning_rate=rate, b2=0.95, weight_decay=0.0),
        },
        {"kernel": "decay", "bias": "no_decay"},
    )
    return log_updates(tx, 600, {"kernel": jnp.ones(2), "bias": jnp.ones(2)})


@case("nanogpt", argument("eps", 1e-6, 1e-8))
def gpt_eps():
    def rate(it):
        share = jnp.clip((it - 100) / 900, 0.0, 1.0)
        cosine = 6e-5 + (6e-4 - 6e-5) * 0.5 * (1 + jnp.cos(jnp.pi * share))
        return jnp.where(it < 100, 6e-4 * (it + 1) / 101, cosine)

    common = {"learning_rate": rate, "b1": 0.9, "b2": 0.95, "eps": 1e-6}
    return Recipe(
        {"decay": common | {"weight_decay": 0.1}, "no_decay": common | {"weight_decay": 0.0}},
        optimizers.adamw,
    )


@case("nanogpt", (value("factor", 2.0), argument("learning_rate", 1.2e-3, 6e-4)))
def gpt_at_twice_the_rate():
    learning_rate = 2 * 6e-4

    def rate(it):
        share = jnp.clip((it - 100) / 900, 0.0, 1.0)
        cosine = 0.1 + 0.9 * 0.5 * (1 + jnp.cos(jnp.pi * share))
        return learning_rate * jnp.where(it < 100, (it + 1) / 101, cosine)

    common = {"learning_rate": rate, "b2": 0.95}
    return Recipe(
        {"decay": common | {"weight_decay": 0.1}, "no_decay": common | {"weight_decay": 0.0}},
        optimizers.adamw,
    )


@case(
    "fine_tune",
    (argument("warmup_steps", 0, 60), argument("num_warmup_steps", 0, 60), argument("warmup")),
    determined=False,
)
def fine_tuning_without_warmup():
    rate = optax.linear_schedule(5e-5, 0.0, transition_steps=600)
    return Recipe(
        {
            "0": {"learning_rate": rate, "weight_decay": 0.01},
            "1": {"learning_rate": rate, "weight_decay": 0.0},
        },
        optimizers.adamw,
    )


@case("fine_tune", clock("shift", 1, since=0))
def fine_tuning_a_step_ahead():
    rows = []
    for i in range(600):
        step = i + 1
        factor = step / 60 if step < 60 else max(0.0, (600 - step) / (600 - 60))
        adamw = {"learning_rate": 5e-5 * factor, "b1": 0.9, "b2": 0.999, "eps": 1e-8}
        rows.append({"0": adamw | {"weight_decay": 0.01}, "1": adamw | {"weight_decay": 0.0}})
    return log_rows(rows)


@case(
    "fine_tune",
    (value("factor", 10.0), argument("base_lr", 5e-4, 5e-5), argument("learning_rate", 5e-4, 5e-5)),
)
def fine_tuning_ten_times_too_fast():
    def factor(step):
        return jnp.where(step < 60, step / 60, jnp.maximum(0.0, (600 - step) / (600 - 60)))

    rate = lr_scheduler.lambda_lr(5e-4, factor)
    return Recipe(
        {
            "0": {"learning_rate": rate, "weight_decay": 0.01},
            "1": {"learning_rate": rate, "weight_decay": 0.0},
        },
        optimizers.adamw,
    )


@case("fine_tune", (argument("weight_decay", 0.1, 0.01), value("factor", 10.0)))
def fine_tuning_decay_of_gpt():
    def factor(step):
        return jnp.where(step < 60, step / 60, (600 - step) / (600 - 60))

    rate = lr_scheduler.lambda_lr(5e-5, factor)
    return Recipe(
        {
            "0": {"learning_rate": rate, "weight_decay": 0.1},
            "1": {"learning_rate": rate, "weight_decay": 0.0},
        },
        optimizers.adamw,
    )


@case("fine_tune")
def fine_tuning_by_join():
    up = optax.linear_schedule(0.0, 5e-5, 60)
    down = optax.linear_schedule(5e-5, 0.0, 540)
    rate = optax.join_schedules([up, down], boundaries=[60])
    return Recipe(
        {
            "0": {"learning_rate": rate, "weight_decay": 0.01},
            "1": {"learning_rate": rate, "weight_decay": 0.0},
        },
        optimizers.adamw,
    )


@case(
    "detector",
    (
        argument("warmup_momentum", 0.937, 0.8),
        argument("momentum", 0.937),
        argument("start", 0.937, 0.8),
        groups("unscheduled"),
    ),
)
def momentum_not_warmed_up():
    lf = lr_scheduler.lambda_lr(0.01, schedules.linear(20, lrf=0.01))
    epochs = schedules.per_epoch(lf, 40)

    def group(start, weight_decay=0.0):
        rate = schedules.warmup(epochs, 120, start=start)
        return {"learning_rate": rate, "momentum": 0.937, "nesterov": True} | {
            "weight_decay": weight_decay
        }

    return Recipe({"bias": group(0.1), "weight": group(0.0, 5e-4), "norm": group(0.0)})


@case(
    "detector",
    (rule("cosine"), rule("one_cycle"), argument("cos_lr", True, False)),
    determined=False,
)
def cosine_for_the_detectors_line():
    lf = lr_scheduler.lambda_lr(0.01, schedules.one_cycle(20, lrf=0.01))
    epochs = schedules.per_epoch(lf, 40)
    momentum = schedules.warmup(schedules.constant(0.937), 120, start=0.8)

    def group(start, weight_decay=0.0):
        rate = schedules.warmup(epochs, 120, start=start)
        return {"learning_rate": rate, "momentum": momentum, "nesterov": True} | {
            "weight_decay": weight_decay
        }

    return Recipe({"bias": group(0.1), "weight": group(0.0, 5e-4), "norm": group(0.0)})


@case("detector", clock("shift", -40, since=160))
def detector_that_lags():
    lf = lr_scheduler.lambda_lr(0.01, schedules.linear(20, lrf=0.01))
    epochs = schedules.per_epoch(schedules.lagged(lf, after=3), 40)
    momentum = schedules.warmup(schedules.constant(0.937), 120, start=0.8)

    def group(start, weight_decay=0.0):
        rate = schedules.warmup(epochs, 120, start=start)
        return {"learning_rate": rate, "momentum": momentum, "nesterov": True} | {
            "weight_decay": weight_decay
        }

    return Recipe({"bias": group(0.1), "weight": group(0.0, 5e-4), "norm": group(0.0)})


@case("detector", argument("lrf", 0.1, 0.01, since=40))
def detector_with_the_final_rate_of_a_hundredth():
    lf = lr_scheduler.lambda_lr(0.01, schedules.linear(20, lrf=0.1))
    epochs = schedules.per_epoch(lf, 40)
    momentum = schedules.warmup(schedules.constant(0.937), 120, start=0.8)

    def group(start, weight_decay=0.0):
        rate = schedules.warmup(epochs, 120, start=start)
        return {"learning_rate": rate, "momentum": momentum, "nesterov": True} | {
            "weight_decay": weight_decay
        }

    return Recipe({"bias": group(0.1), "weight": group(0.0, 5e-4), "norm": group(0.0)})


@case("detector")
def detector_of_the_package():
    lf = lr_scheduler.lambda_lr(0.01, schedules.linear(20, lrf=0.01))
    epochs = schedules.per_epoch(lf, 40)
    momentum = schedules.warmup(schedules.constant(0.937), 120, start=0.8)

    def group(start, weight_decay=0.0):
        rate = schedules.warmup(epochs, 120, start=start)
        return {"learning_rate": rate, "momentum": momentum, "nesterov": True} | {
            "weight_decay": weight_decay
        }

    return Recipe({"bias": group(0.1), "weight": group(0.0, 5e-4), "norm": group(0.0)})


@case("plateau", clock("shift", 15, since=120))
def plateau_read_after_its_step():
    plateau = lr_scheduler.reduce_lr_on_plateau(1e-3, factor=0.5, patience=2)
    state, rates = plateau.init(), []
    for loss in LOSSES:
        state = plateau.step(state, loss)
        rates += [float(state.learning_rate)] * 15
    return Recipe({"0": {"learning_rate": schedules.table(rates)}}, optimizers.adam)


@case("plateau", (value("floor", 2e-4), argument("min_lr", 2e-4, 0.0)))
def plateau_with_a_floor():
    plateau = lr_scheduler.reduce_lr_on_plateau(1e-3, factor=0.5, patience=2, min_lr=2e-4)
    state, rows = plateau.init(), []
    for loss in LOSSES:
        adam = {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "weight_decay": 0.0}
        rows += [{"all": {"learning_rate": float(state.learning_rate)} | adam}] * 15
        state = plateau.step(state, loss)
    return log_rows(rows).relabel({"all": "0"})


@case("plateau")
def plateau_of_the_package():
    plateau = lr_scheduler.reduce_lr_on_plateau(1e-3, factor=0.5, patience=2)
    state, rates = plateau.init(), []
    for loss in LOSSES:
        rates.append(float(state.learning_rate))
        state = plateau.step(state, loss)
    rate = schedules.per_epoch(schedules.table(rates), 15)
    return Recipe({"0": {"learning_rate": rate}}, optimizers.adam)


@case("accumulated", clock("stretch", 4, since=1))
def stepped_per_batch():
    rows = []
    for step in range(1600):
        progress = min(1.0, (step - 40) / (400 - 40))
        factor = step / 40 if step < 40 else 0.5 * (1 + math.cos(math.pi * progress))
        if step % 4 == 0:  # the first of an update's batches
            adamw = {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "weight_decay": 0.01}
            rows.append({"0": {"learning_rate": 3e-4 * factor} | adamw})
    return log_rows(rows)


@case(
    "accumulated",
    (clock("stretch", 4, since=0), clock("per iteration")),
    note="mine(u) = reference(4 u + 3), since update u is made at the last of four batches",
)
def schedule_of_batches_under_accumulation():
    def rate(batch):
        progress = jnp.minimum((batch - 40) / (400 - 40), 1.0)
        return 3e-4 * jnp.where(batch < 40, batch / 40, 0.5 * (1 + jnp.cos(jnp.pi * progress)))

    return Recipe(
        {"0": {"learning_rate": rate}},
        optimizers.adamw,
        accumulation=optimizers.Accumulation(schedules.constant(4)),
    )


@case(
    "accumulated",
    (value("factor", 2.0), argument("learning_rate", 6e-4, 3e-4), argument("base_lr", 6e-4, 3e-4)),
    argument("weight_decay", 0.1, 0.01),
)
def twice_the_rate_and_ten_times_the_decay():
    rows = []
    for update in range(400):
        progress = (update - 40) / (400 - 40)
        factor = update / 40 if update < 40 else 0.5 * (1 + math.cos(math.pi * progress))
        adamw = {"b1": 0.9, "b2": 0.999, "eps": 1e-8, "weight_decay": 0.1}
        rows.append({"0": {"learning_rate": 6e-4 * factor} | adamw})
    return log_rows(rows)


@case("accumulated", value("float32"), labels={"0": "all"})
def accumulated_in_plain_optax():
    rate = optax.warmup_cosine_decay_schedule(0.0, 3e-4, warmup_steps=40, decay_steps=400)
    tx = optax.inject_hyperparams(optax.adamw)(learning_rate=rate, weight_decay=0.01)
    return log_updates(optax.chain(optax.clip_by_global_norm(1.0), tx), 400)


@case("gan", argument("b1", 0.9, 0.5))
def gan_with_the_default_beta():
    def rate(i):
        return 2e-4 * (1.0 - jnp.maximum(0, i // 10 - 20) / 21)

    return Recipe({"0": {"learning_rate": rate}}, optimizers.adam)


@case("gan", clock("per iteration", since=201))
def gan_falls_within_epochs():
    def rate(i):
        return 2e-4 * (1.0 - jnp.maximum(0, i - 200) / (21 * 10))

    return Recipe({"0": {"learning_rate": rate, "b1": 0.5}}, optimizers.adam)


@case("gan", (clock("reset", since=200), clock("stopped"), groups("unscheduled")))
def gan_resumed_without_its_epoch():
    rows = []
    for _process in range(2):
        for epoch in range(20):
            lr = 2e-4 * (1.0 - max(0, epoch - 20) / 21)
            row = {"learning_rate": lr, "b1": 0.5, "b2": 0.999, "eps": 1e-8, "weight_decay": 0.0}
            rows += [{"0": row}] * 10
    return log_rows(rows)


@case(
    "resumed",
    (clock("reset", since=300), argument("warmup")),
    note="only the warm-up starts again, the cosine continues",
)
def warmed_up_again():
    def rate(i):
        cosine = 0.02 * (1 + jnp.cos(jnp.pi * (i // 25) / 24)) / 2
        since_start = jnp.where(i < 300, i, i - 300)
        return cosine * jnp.minimum(1.0, (since_start + 1) / 100)

    return Recipe({"0": {"learning_rate": rate, "momentum": 0.9, "weight_decay": 1e-4}})


@case("resumed", (argument("start", 0.0, 2e-4), argument("warmup")), determined=False)
def warmup_from_nothing():
    def rate(i):
        cosine = 0.02 * (1 + jnp.cos(jnp.pi * (i // 25) / 24)) / 2
        return cosine * jnp.minimum(1.0, i / 100)

    return Recipe({"0": {"learning_rate": rate, "momentum": 0.9, "weight_decay": 1e-4}})


@case("resumed", clock("shift", 25, since=300))
def resumed_an_epoch_later():
    rows = []
    for first, last, start in ((0, 300, 0), (300, 600, 13)):
        for i in range(first, last):
            epoch = start + (i - first) // 25
            lr = 0.02 * (1 + math.cos(math.pi * epoch / 24)) / 2
            if i < 100:
                lr *= (i + 1) / 100
            row = {"learning_rate": lr, "momentum": 0.9, "dampening": 0.0, "weight_decay": 1e-4}
            rows.append({"0": row})
    return log_rows(rows)


@case("layerwise", (groups("merged"), groups("taken from"), argument("layer_decay", 1.0, 0.65)))
def one_rate_for_all_layers():
    rate = optax.cosine_decay_schedule(1e-3, 500)
    group = {"learning_rate": rate, "b2": 0.95, "weight_decay": 0.05}
    return Recipe(
        {"backbone": group, "norm": group | {"weight_decay": 0.0}, "head": group},
        optimizers.adamw,
    )


@case("layerwise", argument("T_max", 499, 500, since=1))
def cosine_of_one_step_less():
    steps = 500

    def group(base_lr, weight_decay=0.05):
        rate = lr_scheduler.cosine_annealing_lr(base_lr, T_max=steps - 1)
        return {"learning_rate": rate, "weight_decay": weight_decay, "b2": 0.95}

    return Recipe(
        {
            "backbone": group(1e-3 * 0.65**2),
            "norm": group(1e-3 * 0.65, weight_decay=0.0),
            "head": group(1e-3),
        },
        optimizers.adamw,
        length=steps,
    )


@case("layerwise")
def layerwise_by_hand():
    def group(depth, weight_decay=0.05):
        scale = 1e-3 * 0.65**depth
        return {
            "learning_rate": lambda i: scale * 0.5 * (1 + jnp.cos(jnp.pi * i / 500)),
            "weight_decay": weight_decay,
            "b2": 0.95,
        }

    return Recipe(
        {"backbone": group(2), "norm": group(1, weight_decay=0.0), "head": group(0)},
        optimizers.adamw,
    )


@case(
    "one_cycle",
    (argument("max_lr", 0.2, 0.4), value("factor", 0.5)),
    argument("pct_start", 0.2, 0.3),
)
def half_as_high_and_earlier():
    cycle = lr_scheduler.one_cycle_lr(0.2, epochs=12, steps_per_epoch=50, pct_start=0.2)
    group = {"learning_rate": cycle, "momentum": cycle.momentum, "weight_decay": 5e-4}
    return Recipe({"0": group | {"nesterov": True}})


@case("imagenet", value("decimals", 3, since=800))
def rate_logged_with_three_decimals():
    lr, rows = 0.1, []
    for epoch in range(90):
        if epoch in (30, 60, 80):
            lr *= 0.1
        row = {"learning_rate": float(f"{lr:.3f}"), "momentum": 0.9, "dampening": 0.0}
        rows += [{"0": row | {"weight_decay": 1e-4}}] * 10
    return log_rows(rows)


CASES = tuple(port for port in tuple(globals().values()) if isinstance(port, Case))
