"""The causes of a difference between two runs: those that are named, and those that are not.

Mistakes are planted in NumPy (``planted.py``), in the originals' rules with one change, and written
by hand in ``wrong_ports``; never by the code that looks for them.
"""

import dataclasses
import os
import re

import jax.numpy as jnp
import numpy as np
import planted
import pytest
from conftest import long_after
from wrong_ports import seen
from wrong_ports.judge import judge

import jaxsched
from jaxsched import Recipe, Trace, lr_scheduler, optimizers, schedules
from jaxsched.parity._explain._runs import Run, implied_quantities
from jaxsched.recipes import recorded, ultralytics, yolov5, yolov5_resnet18

DRAWS = int(os.environ.get("JAXSCHED_DRAWS", "0"))  # 20 for benchmarks, many minutes
EVERY = 1 if DRAWS else 10  # all mistakes and ports are for the benchmarks, which take many minutes

NOT_NAMED = {"warmed_up_again"}
"""Ports of ``seen`` whose slip has no cause: only the warm-up starts again, inside a function."""


@pytest.mark.parametrize("name", planted.CAUSES)
def test_a_planted_mistake_is_detected(name):
    ((right, wrong),) = planted.cases(name, 1)
    assert not jaxsched.compare(planted.record_run(right, wrong), right.recipe())


@pytest.mark.long
@pytest.mark.parametrize("name", [*planted.CAUSES][::EVERY])
def test_a_planted_mistake_is_the_first_cause(name):
    for number, (right, wrong) in enumerate(planted.cases(name, DRAWS or 1)):
        mine = planted.record_run(right, wrong, [np.float32, np.float64][number % 2])
        report = jaxsched.compare(mine, right.recipe())
        assert not report
        assert planted.is_named(name, report), f"{right.family} {right.arguments}\n{report}"


@pytest.mark.parametrize("family", planted.FAMILIES)
@pytest.mark.parametrize(
    "given", long_after(1, [{"start_epoch": 9, "resumed": True}, {}, {"start_epoch": 11}])
)
def test_the_rendering_itself_is_right(family, given):
    right = planted.draw_run(np.random.default_rng(0), family, **given)
    for dtype in (np.float32, np.float64):
        report = jaxsched.compare(planted.record_run(right, right.groups(), dtype), right.recipe())
        assert report, str(report)
        assert report.causes == ()


def test_a_mistake_is_not_named_for_another_run():
    """The check of the table can fail."""
    (right, wrong), *_ = planted.cases("warm-up 10 % long", 1)
    report = jaxsched.compare(planted.record_run(right, wrong), right.recipe())
    named = [name for name in planted.CAUSES if planted.is_named(name, report)]
    assert "warm-up 10 % long" in named
    assert all("warm" in name for name in named)


@pytest.mark.long
@pytest.mark.parametrize("case", seen.CASES[::EVERY], ids=lambda case: case.name)
def test_a_wrong_port_has_its_cause(case):
    report = jaxsched.compare(case.mine(), case.reference())
    if case.name in NOT_NAMED:
        assert judge(case, report) == "none"
    elif case.determined:
        assert judge(case, report) == "right", str(report)
    else:
        assert judge(case, report) in ("right", "none"), str(report)


@pytest.mark.parametrize("seed", range(DRAWS or 1))
def test_mistakes_of_accumulation(seed):
    rng = np.random.default_rng(seed)
    reference = yolov5(
        epochs=int(rng.integers(20, 40)),
        steps_per_epoch=int(rng.integers(5, 10)),
        batch_size=int(rng.choice([3, 5, 10, 12])),
        optimizer=["SGD", "AdamW"][seed % 2],
    )
    trace = reference.trace(reference.iterations)

    before = np.concatenate([[0], np.cumsum(trace.run["stepped"])[:-1]]).astype(int)
    by_update = {k: {n: v[before] for n, v in g.items()} for k, g in trace.groups.items()}
    causes = jaxsched.compare(Trace(by_update, trace.run), reference).causes
    assert causes == ("counts updates for iterations",)

    per_batch = {**trace.run, "ema_updates": np.arange(len(trace)) + 1.0}
    per_batch["ema_decay"] = 0.9999 * (1 - np.exp(-per_batch["ema_updates"] / 2000))
    causes = jaxsched.compare(Trace(trace.groups, per_batch), reference).causes
    assert causes == ("counts iterations for updates",)


def accumulating_recipe(batches, steps_per_epoch=None, **ema):
    """Return a recipe with an average that makes an update every ``batches``, or None for each."""
    rule = optimizers.Accumulation(schedules.constant(batches or 1), steps_per_epoch)
    rule = rule if batches else None
    ema = optimizers.EMA(**ema)
    return Recipe({"all": {"learning_rate": 0.1}}, accumulation=rule, ema=ema, length=60)


ACCUMULATED = {
    "accumulate 2.0 for 3.0": (accumulating_recipe(2), accumulating_recipe(3)),
    "gradients not accumulated: an update at every iteration": (
        accumulating_recipe(None),
        accumulating_recipe(3),
    ),
    "gradients accumulated, where the reference makes an update at every iteration": (
        accumulating_recipe(3).trace(60),
        accumulating_recipe(None).trace(60),
    ),
    "another pending gradients: dropped every 5 iterations for kept": (
        accumulating_recipe(2, 5),
        accumulating_recipe(2),
    ),
    "another ema: decay 0.99, tau 2000.0 for decay 0.9999, tau 2000.0": (
        accumulating_recipe(2, decay=0.99),
        accumulating_recipe(2),
    ),
    "batch_size 16 for 32": (
        yolov5(epochs=6, steps_per_epoch=20, batch_size=16).trace(120),
        yolov5(epochs=6, steps_per_epoch=20, batch_size=32),
    ),
}


@pytest.mark.parametrize("cause", ACCUMULATED)
def test_what_follows_from_the_accumulation_has_no_cause_of_its_own(cause):
    mine, reference = ACCUMULATED[cause]
    assert jaxsched.compare(mine, reference).conclusions == [f"likely cause: {cause}"]


def test_the_early_update_of_a_resumed_process_does_not_follow_from_the_accumulation():
    resumed, usual = (
        dataclasses.replace(
            accumulating_recipe(4),
            accumulation=optimizers.Accumulation(schedules.constant(4), None, last_update),
            start=10,
        ).trace(50)
        for last_update in (-1, None)
    )
    names = ("ema_decay", "ema_updates", "micro_batches", "stepped")
    usual, resumed = Run(usual, None), Run(resumed, None)
    assert implied_quantities(usual, usual) == [("", name) for name in names]
    assert implied_quantities(resumed, usual) == implied_quantities(usual, resumed) == []


def test_an_update_that_does_not_follow_from_the_accumulation_has_no_cause():
    mine, reference = (accumulating_recipe(n).trace(60) for n in (2, 3))
    stepped = mine.run["stepped"].copy()
    stepped[7] = 0
    report = jaxsched.compare(
        dataclasses.replace(mine, run={**mine.run, "stepped": stepped}), reference
    )
    first, second = report.conclusions
    assert first.startswith("likely cause: accumulate 2.0 for 3.0, in accumulate")
    assert second == "no cause found for stepped, which differs from iteration 1 on"


def recipe_of(rate, **group):
    return Recipe({"all": {"learning_rate": rate, **group}})


def per_epoch(schedule):
    return recipe_of(schedules.per_epoch(schedule, 5))


def first_of(mine, reference, iterations=100):
    report = jaxsched.compare(mine, reference, iterations=iterations)
    assert not report
    return report.causes[0] if report.causes else None


ARGUMENTS = {
    "gamma 0.95 for 0.9 in exponential_lr": lambda v: lr_scheduler.exponential_lr(
        0.1, v[0.95, 0.9]
    ),
    "step_size 4 for 3 in step_lr": lambda v: lr_scheduler.step_lr(0.1, v[4, 3]),
    "milestones [6, 13] for [6, 12] in multi_step_lr": lambda v: lr_scheduler.multi_step_lr(
        0.1, [6, v[13, 12]]
    ),
    "milestones [5, 13] for [6, 12] in multi_step_lr": lambda v: lr_scheduler.multi_step_lr(
        0.1, [v[5, 6], v[13, 12]]
    ),
    "T_max 19 for 20 in cosine_annealing_lr": lambda v: lr_scheduler.cosine_annealing_lr(
        0.1, v[19, 20]
    ),
    "eta_min 0.001 for 0.0 in cosine_annealing_lr": lambda v: lr_scheduler.cosine_annealing_lr(
        0.1, 20, v[0.001, 0.0]
    ),
    "anneal_strategy linear for cos in one_cycle_lr": lambda v: lr_scheduler.one_cycle_lr(
        0.1, 20, anneal_strategy=v["linear", "cos"]
    ),
    "three_phase True for False in one_cycle_lr": lambda v: lr_scheduler.one_cycle_lr(
        0.1, 20, three_phase=v[True, False]
    ),
    "base_lr 0.2 for 0.1 in exponential_lr, and gamma 0.95 for 0.9 in exponential_lr": lambda v: (
        lr_scheduler.exponential_lr(v[0.2, 0.1], v[0.95, 0.9])
    ),
    "lrf 0.3 for 0.2 in cosine": lambda v: lr_scheduler.lambda_lr(
        0.1, schedules.cosine(20, lrf=v[0.3, 0.2])
    ),
    "cosine for linear": lambda v: lr_scheduler.lambda_lr(
        0.1, v[schedules.cosine, schedules.linear](20, lrf=0.2)
    ),
}


@pytest.mark.parametrize(("steps", "rise"), long_after(1, [(100, 50), (500, 50), (1000, 100)]))
def test_a_length_taken_for_a_part_of_it_is_found(steps, rise):
    """Torch's recursion is not traced by JAX, so that few integers can be tried."""

    def rate(T_max):
        members = [
            lr_scheduler.linear_lr(0.1, start_factor=0.1, total_iters=rise),
            lr_scheduler.cosine_annealing_lr(0.1, T_max=T_max),
        ]
        return recipe_of(lr_scheduler.sequential_lr(members, [rise], steps=steps))

    cause = f"T_max {steps} for {steps - rise} in cosine_annealing_lr"
    assert first_of(rate(steps), rate(steps - rise).trace(steps), None) == cause


class Side:
    """An index that selects one of two values."""

    def __init__(self, side):
        self.side = side

    def __getitem__(self, values):
        return values[self.side]


@pytest.mark.parametrize("opaque", long_after(1, ["reference", "mine", "neither"]))
@pytest.mark.parametrize("cause", long_after(6, ARGUMENTS))
def test_an_argument_is_solved_for(cause, opaque):
    """Also if either side is a recording, whose curve gives the number."""
    mine, reference = (per_epoch(ARGUMENTS[cause](Side(side))) for side in (0, 1))
    mine = mine.trace(100) if opaque == "mine" else mine
    reference = reference.trace(100) if opaque == "reference" else reference
    n = 100 if opaque == "neither" else None
    assert first_of(mine, reference, n).split(", or ")[0] == cause


def test_runs_with_the_same_argument_are_equal():
    for make in ARGUMENTS.values():
        assert jaxsched.compare(per_epoch(make(Side(1))).trace(100), per_epoch(make(Side(1))))


def curve(n=120):
    """A recorded curve without a formula: every row has another number."""
    return 0.1 + np.cumsum(np.random.default_rng(3).uniform(0.1, 1, n)) / 100


def run(values, **groups):
    columns = {"all": {"learning_rate": values}, **groups}
    return Trace(
        {k: {n: np.asarray(v, np.float64) for n, v in g.items()} for k, g in columns.items()}
    )


I = np.arange(120)  # noqa: E741
Y = curve()
LONG = curve(300)
STAIRS = Y[I // 6 * 6]

RECORDED = {
    "3 iterations early": (Y[3:], Y[:-3]),
    "3 iterations late": (Y[:-3], Y[3:]),
    "1 epoch late": (STAIRS[:-6], STAIRS[6:]),
    "4 iterations early, from iteration 50 on": (np.where(I < 50, Y, np.roll(Y, -4))[:-4], Y[:-4]),
    "started again at iteration 70": (Y[np.where(I < 70, I, I - 70)], Y),
    "started again every 40 iterations": (Y[I % 40], Y),
    "stopped at iteration 81": (Y[np.minimum(I, 81)], Y),
    "the reference is stopped at iteration 81, mine is not": (Y, Y[np.minimum(I, 81)]),
    "stepped once in 3 iterations": (Y[I // 3], Y),
    "stepped 2 times for once": (Y[I[:60] * 2], Y[:60]),
    "stepped 4 times for once": (LONG[I[:60] * 4 + 3], LONG[:60]),
    "constant for 6 iterations each": (STAIRS, Y),
    "the reference is constant for 6 iterations each, mine is not": (Y, STAIRS),
    "times 0.5": (Y / 2, Y),
    "times 3.0, from iteration 40 on": (np.where(I < 40, Y, 3 * Y), Y),
    "times 3.0, until iteration 39": (np.where(I < 40, 3 * Y, Y), Y),
    "times 3.0, from iteration 40 to 79": (np.where((I < 40) | (I > 79), Y, 3 * Y), Y),
    "plus 0.25": (Y + 0.25, Y),
    "at least 0.3": (np.maximum(Y, 0.3), Y),
    "the reference is at most 0.3, mine is not": (Y, np.minimum(Y, 0.3)),
    "mine rounded to 3 decimals": (np.round(Y, 3), Y),
    "mine rounded to float32": (Y.astype(np.float32), Y),
    "constant, 0.125, where the reference is scheduled": (np.full(120, 0.125), Y),
    "scheduled where the reference is constant, 0.125": (Y, np.full(120, 0.125)),
}


@pytest.mark.parametrize("cause", RECORDED)
def test_a_change_of_clock_or_value_is_read_off_recordings(cause):
    mine, reference = RECORDED[cause]
    assert first_of(run(mine), run(reference), None).split(", or ")[0] == cause


def test_steps_at_the_ends_of_epochs_are_stretched_by_epochs():
    mine, reference = run(LONG[I // 6 * 12]), run(LONG[I // 6 * 6])
    assert first_of(mine, reference, None) == "stepped 2 times for once"


def test_a_quantity_missing_on_one_side_does_not_end_the_search():
    reference = Trace({"all": {"learning_rate": Y, "momentum": np.full(120, 0.9)}})
    report = jaxsched.compare(run(Y / 2), reference)
    assert report.conclusions == ["likely cause: times 0.5"]
    assert "all/momentum: mine has none, where the reference has 0.9" in str(report)


@pytest.mark.long
def test_noise_has_no_cause():
    """Only the known change is named."""
    rng = np.random.default_rng(0)
    reference = yolov5_resnet18(epochs=8, warmup_iterations=100)
    trace = reference.trace(240)
    noise = {
        k: {**g, "learning_rate": g["learning_rate"] * rng.uniform(0.5, 2, 240).astype(np.float32)}
        for k, g in trace.groups.items()
    }
    report = jaxsched.compare(Trace(noise), reference)
    assert report.causes == ()
    assert (
        "no cause found for learning_rate of weight and norm, which differ from iteration 1 on"
        in (str(report))
    )
    reference = run(Y)
    mine = run(Y * (1.5 + 1e-7 * np.random.default_rng(1).uniform(size=120)))
    assert jaxsched.compare(mine, reference).conclusions == [
        "no cause found for learning_rate of all, which differs from iteration 0 on: "
        "mine is 1.5 times the reference there"
    ]


@pytest.mark.parametrize("slips", [1, 2])
def test_random_differences_at_few_rows_have_no_cause(slips):
    """As many free numbers as rows reproduce any difference, so they explain nothing."""
    mine = Y.copy()
    mine[[30, 77][:slips]] *= [1.25, 0.8][:slips]
    assert jaxsched.compare(run(mine), run(Y)).causes == ()


FEW = {
    "rounded to 4 decimals until iteration 3": (
        np.where(I < 4, 0.1, Y),
        np.where(I < 4, 0.1 + 1e-5 * (-1) ** I, Y),
    ),
    "stopped at iteration 1 until iteration 4": (np.where(I < 5, Y[np.minimum(I, 1)], Y), Y),
    "a constant from iteration 40 to 43": (np.where((I > 39) & (I < 44), Y[39], Y), Y),
    "2 iterations early from iteration 50 to 53": (
        np.where((I > 49) & (I < 54), np.roll(Y, -2), Y),
        Y,
    ),
}


@pytest.mark.parametrize("change", FEW)
def test_a_range_with_few_values_has_no_cause(change):
    """Both ends of a range count as free numbers: two values are too few for three of them."""
    mine, reference = FEW[change]
    assert jaxsched.compare(run(mine), run(reference)).causes == ()


def test_groups():
    weight, bias, norm = (
        {"learning_rate": k * Y, "weight_decay": d + 0 * Y}
        for k, d in ((1, 5e-4), (2, 0.0), (3, 0.0))
    )
    right = {"weight": weight, "bias": bias, "norm": norm}

    def cause(**groups):
        traces = [Trace({**right, **g}) for g in (groups, {})]
        return tuple(c.split(", or ")[0] for c in jaxsched.compare(*traces).causes)

    swapped = {"bias": {**norm}, "norm": {**bias}}
    assert cause(**swapped) == ("groups bias and norm exchanged",)
    assert cause(norm={**bias}) == ("learning_rate taken from group bias",)
    assert cause(norm={**weight}, bias={**weight}) == (
        "learning_rate and weight_decay taken from group weight",
    )
    decayed = {**bias, "weight_decay": weight["weight_decay"]}
    assert cause(bias=decayed) == ("weight_decay 0.0005 for 0.0",)
    scaled = {**weight, "weight_decay": weight["weight_decay"] * weight["learning_rate"]}
    assert cause(weight=scaled) == ("weight_decay multiplied by the learning rate",)
    assert cause(norm={**norm, "learning_rate": 0 * Y + 0.1}) == (
        "constant, 0.1, where the reference is scheduled",
    )


def test_each_quantity_may_have_its_own_cause():
    mine = yolov5_resnet18(epochs=20, warmup_iterations=100).trace(600)
    groups = {k: dict(g) for k, g in mine.groups.items()}
    for group in groups.values():
        group["momentum"] = np.full(600, 0.937, np.float32)
    groups["norm"]["weight_decay"] = groups["weight"]["weight_decay"]
    report = jaxsched.compare(Trace(groups), yolov5_resnet18(epochs=20, warmup_iterations=100))
    assert [cause.split(", or ")[0] for cause in report.causes] == [
        "warm-up missing, in momentum of weight and bias and norm",
        "weight_decay 0.0005 for 0.0, in weight_decay of norm",
    ]
    assert [cause.kind for cause in report.explanations] == ["argument", "argument"]


@pytest.mark.parametrize(
    ("changed", "cause"),
    long_after(
        2,
        [
            ({"warmup_iterations": 999}, "warmup_iterations 999 for 1000"),
            ({"start_epoch": 40, "resumed": True}, None),
            ({"lrf": 0.3}, "lrf 0.3 for 0.2"),
            ({"epochs": 101}, "epochs 101 for 100"),
            ({"warmup_bias_lr": 0.05}, "warmup_bias_lr 0.05 for 0.1"),
        ],
    ),
)
def test_a_recorded_reference_is_explained_by_mine(changed, cause):
    if cause is not None:
        assert first_of(yolov5_resnet18(**changed), recorded("yolov5_resnet18"), None) == cause
    else:
        mine, reference = (
            yolov5_resnet18(**changed),
            yolov5_resnet18(**changed | {"resumed": False}),
        )
        assert first_of(mine, reference.trace(900), None) == "resumed True for False"


def test_a_recipe_without_provenance_is_searched_too():
    mine = yolov5_resnet18(warmup_iterations=990)
    bare = Recipe(mine.groups, accumulation=mine.accumulation, ema=mine.ema)
    assert bare.origin is None
    assert first_of(bare, recorded("yolov5_resnet18"), None) == "iterations 990 for 1000 in warmup"


def test_a_warmup_that_outlasts_the_run_is_solved_for():
    article = {"epochs": 12, "steps_per_epoch": 6, "warmup_iterations": 50}
    report = jaxsched.compare(
        yolov5_resnet18(**article | {"warmup_iterations": 100}).trace(72),
        yolov5_resnet18(**article),
    )
    assert report.causes[0].startswith(("iterations 100 for 50", "warmup_iterations 100 for 50"))


@pytest.mark.long
def test_members_of_a_composition_are_searched():
    def join_schedules(T_max, milestone, base_lr=0.1):
        members = [
            lr_scheduler.linear_lr(base_lr, total_iters=5),
            lr_scheduler.cosine_annealing_lr(base_lr, T_max),
        ]
        return recipe_of(lr_scheduler.sequential_lr(members, [milestone], steps=60))

    right = join_schedules(40, 10)
    assert (
        first_of(join_schedules(39, 10).trace(60), right, None)
        == "T_max 39 for 40 in cosine_annealing_lr"
    )
    assert first_of(join_schedules(40, 9).trace(60), right, None).startswith(
        "milestones [9] for [10]"
    )
    assert first_of(join_schedules(40, 10, 0.2).trace(60), right, None).startswith(
        "base_lr 0.2 for 0.1"
    )
    assert jaxsched.compare(join_schedules(40, 10).trace(60), right)


def test_a_cycle_and_its_momentum_have_one_cause():
    def cycle_recipe(n):
        schedule = lr_scheduler.one_cycle_lr(0.1, total_steps=n)
        return recipe_of(schedule, momentum=schedule.momentum)

    report = jaxsched.compare(cycle_recipe(81).trace(80), cycle_recipe(80))
    assert report.causes == ("total_steps 81 for 80 in one_cycle_lr",)
    assert len(report.explanations[0].quantities) == 2


INSIDE = {
    "cosine 1 epoch early": lambda f: lambda e: f(e + 1),
    "base_lr 0.3 for 0.1 in lambda_lr": lambda f: lambda e: 3 * f(e),
    "cosine plus 0.5": lambda f: lambda e: f(e) + 0.05,
    "at least 0.05": lambda f: lambda e: jnp.maximum(f(e), 0.05),
    "stopped at iteration 60": lambda f: lambda e: f(jnp.minimum(e, 12)),
}


@pytest.mark.parametrize("cause", long_after(2, INSIDE))
def test_a_change_below_the_combinators_is_found(cause):
    def warm_up(schedule):
        return recipe_of(schedules.warmup(schedules.per_epoch(schedule, 5), 20, start=0.5))

    right = lr_scheduler.lambda_lr(0.1, schedules.cosine(20, lrf=0.2))
    assert first_of(warm_up(INSIDE[cause](right)).trace(100), warm_up(right)).startswith(cause)


@pytest.mark.parametrize("factory", [yolov5, ultralytics])
def test_a_recipe_that_is_right_has_no_cause(factory):
    recipe = factory(epochs=20, steps_per_epoch=8, batch_size=10)
    report = jaxsched.compare(recipe, factory(epochs=20, steps_per_epoch=8, batch_size=10))
    assert report
    assert report.causes == ()
    assert re.match(r"parity: 160 iterations × 3 groups", str(report))


def test_evidence_names_kind_quantity_values_and_range():
    report = jaxsched.compare(run(np.where(I < 40, Y, 3 * Y)), run(Y))
    (cause,) = report.evidence()["causes"]
    assert cause == {
        "sentence": "times 3.0, from iteration 40 on",
        "kind": "value",
        "name": "factor",
        "mine": 3.0,
        "reference": None,
        "quantities": ["all/learning_rate"],
        "from": 40,
        "until": None,
        "exact": True,
        "parts": [],
        "alternatives": [],
    }


def test_an_average_that_has_made_other_updates_is_not_explained_by_the_accumulation():
    def run(batches, updates):
        accumulation = optimizers.Accumulation(schedules.constant(batches))
        return Recipe(
            {"all": {"learning_rate": 0.1}},
            accumulation=accumulation,
            ema=optimizers.EMA(updates=updates),
        )

    report = jaxsched.compare(run(3, 100), run(2, 0), iterations=60)
    assert report.causes[0].startswith("accumulate 3.0 for 2.0")
    assert "ema_updates" in str(report.conclusions[1:])


def test_a_factory_that_divides_by_its_argument_is_searched():
    def train(batch):
        return Recipe(
            {
                "all": {
                    "learning_rate": schedules.linear(20, lrf=0.1 * batch),
                    "weight_decay": batch,
                }
            },
            length=20,
            accumulation=optimizers.Accumulation(schedules.constant(64 // batch)),
            origin=(train, {"batch": batch}),
        )

    assert jaxsched.compare(train(8), train(16)).causes == ("batch 8 for 16",)


def test_a_change_of_the_accumulation_names_its_quantity_and_what_follows_from_it_once():
    size = {"epochs": 6, "steps_per_epoch": 40}
    report = jaxsched.compare(yolov5(**size, batch_size=64), yolov5(**size))
    (cause,) = [c for c in report.explanations if ("", "stepped") in c.quantities]
    assert cause.sentence.startswith(("batch_size", "constant")) or "accumulate" in cause.sentence
    if cause.kind != "argument":
        assert "in accumulate" in cause.sentence
    assert len(set(cause.quantities)) == len(cause.quantities)
    differing = {(q.label, q.name) for q in report.quantities if q.first}
    assert set(cause.quantities) <= differing
