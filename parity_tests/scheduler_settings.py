"""Random settings of torch's schedulers, and the runs of both sides.

The tests draw a few, the script of the conformance table draws all. A count is the
number of calls of ``scheduler.step()``; the constructor's rate has count 0.
"""

import dataclasses
import itertools
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from torch.optim import lr_scheduler as reference
from torch.optim.swa_utils import SWALR

from jaxsched import lr_scheduler

LONGEST = 147
"""Greatest length of a curve; it is run to twice that and 5, below 300 counts."""

Arguments = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Setting:
    """The arguments of a scheduler, and how many steps to run."""

    arguments: Arguments
    steps: int


@dataclasses.dataclass(frozen=True)
class Case:
    """One of torch's classes.

    Attributes:
      scheduler: torch's class, called with the optimizer and the arguments.
      ours: our function, called with the arguments and ``steps``.
      draw: returns arguments, from a generator and a length T.
      traced: the arguments that a compiled function can take as arrays.
      optax: the closest schedule of plain Optax, from the arguments; or None.
      closed: true if there is a closed form.
      steps: the steps of a setting, from the arguments and T.
    """

    scheduler: Callable[..., Any]
    ours: Callable[..., Any]
    draw: Callable[[np.random.Generator, int], Arguments]
    traced: tuple[str, ...]
    optax: Callable[[Arguments], Any] | None = None
    closed: bool = True
    steps: Callable[[Arguments, int], int] = lambda arguments, length: 2 * length + 5

    def sample(self, rng: np.random.Generator, base_lr: float | None = None) -> Setting:
        """Draw a setting; its rate is between 1e-5 and 10 unless given."""
        length = round(LONGEST ** rng.uniform())  # short ones as often as long ones
        base_lr = 10 ** rng.uniform(-5, 1) if base_lr is None else base_lr
        arguments = {"base_lr": base_lr, **self.draw(rng, length)}
        return Setting(arguments, self.steps(arguments, length))

    def torch(self, optimizer: torch.optim.Optimizer, setting: Setting) -> Any:
        """Return a live scheduler."""
        return self.scheduler(optimizer, **setting.arguments)

    def closed_form(self, setting: Setting) -> Any:
        """Return our closed form."""
        return self.ours(**setting.arguments)

    def replay(self, setting: Setting) -> Any:
        """Return our replay."""
        return self.ours(**setting.arguments, steps=setting.steps)


def run_torch(
    scheduler: Callable[[torch.optim.Optimizer], Any], base_lr: float, steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return rates and momenta of counts 0 to ``steps``, each float64 of shape (steps + 1,)."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=base_lr, momentum=0.9)
    group = optimizer.param_groups[0]
    rates, momenta = np.empty(steps + 1), np.empty(steps + 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # no optimizer.step() between the scheduler's
        live = scheduler(optimizer)
        for count in range(steps + 1):
            rates[count], momenta[count] = group["lr"], group["momentum"]
            if count < steps:
                live.step()
    return rates, momenta


def run_closed(case: Case, settings: Sequence[Setting]) -> list[np.ndarray]:
    """Evaluate each closed form in float64, jitted; settings that can be traced share a compilation."""
    results: list[Any] = [None] * len(settings)
    counts = jnp.arange(max(setting.steps for setting in settings) + 1, dtype=jnp.int32)

    def static(index: int) -> str:
        arguments = settings[index].arguments
        return repr({k: v if k not in case.traced else None for k, v in arguments.items()})

    with jax.enable_x64(True):
        for _, group in itertools.groupby(sorted(range(len(settings)), key=static), static):
            members = list(group)
            fixed = {
                name: value
                for name, value in settings[members[0]].arguments.items()
                if name not in case.traced
            }
            arrays = {
                name: jnp.asarray([settings[i].arguments[name] for i in members], jnp.float64)
                for name in case.traced
                if name in settings[members[0]].arguments
            }

            def run(numbers: Arguments, fixed: Arguments = fixed) -> jax.Array:
                return jax.vmap(case.ours(**fixed, **numbers))(counts)

            values = np.asarray(jax.jit(jax.vmap(run))(arrays))
            for i, rates in zip(members, values, strict=True):
                results[i] = rates[: settings[i].steps + 1]
    return results


def factor(kind: str, a: Any) -> Callable[[Any], Any]:
    """Return an ``lr_lambda`` with a parameter ``a``, for both sides."""
    return {
        "power": lambda epoch: a**epoch,
        "inverse": lambda epoch: 1 / (1 + a * epoch),
        "stairs": lambda epoch: a ** (epoch // 7),
        "cosine": lambda epoch: (
            0.75 + 0.25 * (jnp.cos if isinstance(epoch, jax.Array) else math.cos)(a * epoch)
        ),
    }[kind]


def _of_lambdas(ours: Callable[..., Any]) -> Callable[..., Any]:
    return lambda base_lr, kind, a, steps=None: ours(base_lr, factor(kind, a), steps=steps)


def _torch(cls: Callable[..., Any]) -> Callable[..., Any]:
    """Construct ``cls`` with the optimizer, whose rate is already ``base_lr``."""
    return lambda optimizer, base_lr, **arguments: cls(optimizer, **arguments)


def _pick(rng: np.random.Generator, *values: float) -> float:
    """Pick a value, as a Python float: torch rounds differently with NumPy's."""
    return float(rng.choice(values))


def _draw_lambda(rng: np.random.Generator, length: int) -> Arguments:
    kind = str(rng.choice(["power", "inverse", "stairs", "cosine"]))
    return {"kind": kind, "a": rng.uniform(0.85, 1.0)}


def _draw_milestones(rng: np.random.Generator, length: int) -> Arguments:
    milestones = rng.integers(0, length + 1, 5).tolist()
    return {
        "milestones": [*milestones, milestones[0]],  # one counts twice
        "gamma": _pick(rng, 0.1, rng.uniform(0.2, 1.1)),
    }


def _draw_cyclic(rng: np.random.Generator, length: int) -> Arguments:
    custom = rng.uniform() < 0.2
    return {
        "max_lr": 10 ** rng.uniform(-5, 1),
        "step_size_up": length,
        "step_size_down": int(rng.integers(0, length + 1)),
        "mode": str(rng.choice(["triangular", "triangular2", "exp_range"])),
        "gamma": rng.uniform(0.9, 1.0),
        "scale_fn": _scale if custom else None,
        "scale_mode": str(rng.choice(["cycle", "iterations"])),
        "base_momentum": rng.uniform(0, 0.85),
        "max_momentum": rng.uniform(0.85, 1),
    }


def _scale(x: Any) -> Any:
    return 1 / (1 + 0.1 * x)


def _draw_one_cycle(rng: np.random.Generator, length: int) -> Arguments:
    length = max(2, length)
    pct_start = rng.choice([0.3, rng.uniform(), 0.0, 0.25, 0.5, 1.0], p=[0.2, 0.6, *[0.05] * 4])
    if pct_start * length == 1:
        pct_start = 0.3
    return {
        "total_steps": length,
        "pct_start": float(pct_start),
        "anneal_strategy": str(rng.choice(["cos", "linear"])),
        "base_momentum": rng.uniform(0, 0.85),
        "max_momentum": rng.uniform(0.85, 1),
        "div_factor": rng.uniform(1, 50),
        "final_div_factor": 10 ** rng.uniform(0, 5),
        "three_phase": bool(rng.integers(2)),
    }


def _one_cycle(base_lr: Any, **arguments: Any) -> Any:
    return lr_scheduler.one_cycle_lr(base_lr, **arguments)


def _one_cycle_steps(arguments: Arguments, length: int) -> int:
    """Return the last step that torch takes: at most ``total_steps``, less if the last phase is empty."""
    total, pct = arguments["total_steps"], arguments["pct_start"]
    end = 2 * pct * total - 2 if arguments["three_phase"] else pct * total - 1
    return total - (end == total - 1)


def _optax_steps(arguments: Arguments) -> Any:
    return optax.exponential_decay(
        arguments["base_lr"], arguments["step_size"], arguments["gamma"], staircase=True
    )


def _optax_milestones(arguments: Arguments) -> Any:
    scales: dict[int, float] = {}
    for milestone in arguments["milestones"]:
        scales[milestone] = scales.get(milestone, 1.0) * arguments["gamma"]
    return optax.piecewise_constant_schedule(arguments["base_lr"], scales)


def _optax_constant(arguments: Arguments) -> Any:
    low = arguments["base_lr"] * arguments["factor"]
    return optax.piecewise_constant_schedule(
        low, {arguments["total_iters"]: 1 / arguments["factor"]}
    )


def _optax_linear(arguments: Arguments) -> Any:
    rate = arguments["base_lr"]
    return optax.linear_schedule(
        rate * arguments["start_factor"],
        rate * arguments["end_factor"],
        arguments["total_iters"],
    )


def _optax_polynomial(arguments: Arguments) -> Any:
    return optax.polynomial_schedule(
        arguments["base_lr"], 0.0, arguments["power"], arguments["total_iters"]
    )


def _optax_cosine(arguments: Arguments) -> Any:
    rate = arguments["base_lr"]
    return optax.cosine_decay_schedule(rate, arguments["T_max"], arguments["eta_min"] / rate)


def _optax_restarts(arguments: Arguments) -> Any:
    rate, period, cycles = arguments["base_lr"], arguments["T_0"], []
    for _ in range(2 * LONGEST + 6 if arguments["T_mult"] == 1 else 9):
        cycles.append(
            {
                "init_value": rate,
                "peak_value": rate,
                "warmup_steps": 0,
                "decay_steps": period,
                "end_value": arguments["eta_min"],
            }
        )
        period *= arguments["T_mult"]
    needed = 1 + (2 * LONGEST + 5) // arguments["T_0"]
    return optax.sgdr_schedule(cycles[:needed])


def _optax_one_cycle(arguments: Arguments) -> Any:
    if arguments["three_phase"]:  # Optax has two
        return None
    cosine = arguments["anneal_strategy"] == "cos"
    schedule = optax.cosine_onecycle_schedule if cosine else optax.linear_onecycle_schedule
    return schedule(
        arguments["total_steps"] - 1,  # torch's last count; fewer steps are equal with total_steps
        arguments["base_lr"],
        arguments["pct_start"],
        div_factor=arguments["div_factor"],
        final_div_factor=arguments["final_div_factor"],
    )


def _optax_swa(arguments: Arguments) -> Any:
    if arguments["anneal_strategy"] == "linear":
        return optax.linear_schedule(
            arguments["base_lr"], arguments["swa_lr"], arguments["anneal_epochs"]
        )
    alpha = arguments["swa_lr"] / arguments["base_lr"]
    epochs = max(1, arguments["anneal_epochs"])
    return optax.cosine_decay_schedule(arguments["base_lr"], epochs, alpha)


CASES: dict[str, Case] = {
    "LambdaLR": Case(
        lambda optimizer, base_lr, kind, a: reference.LambdaLR(optimizer, factor(kind, a)),
        _of_lambdas(lr_scheduler.lambda_lr),
        _draw_lambda,
        ("base_lr", "a"),
    ),
    "MultiplicativeLR": Case(
        lambda optimizer, base_lr, kind, a: reference.MultiplicativeLR(optimizer, factor(kind, a)),
        _of_lambdas(lr_scheduler.multiplicative_lr),
        _draw_lambda,
        (),
        closed=False,
    ),
    "StepLR": Case(
        _torch(reference.StepLR),
        lr_scheduler.step_lr,
        lambda rng, length: {
            "step_size": max(1, length // int(rng.integers(1, 6))),
            "gamma": _pick(rng, 0.1, rng.uniform(0.2, 1.1)),
        },
        ("base_lr", "step_size", "gamma"),
        _optax_steps,
    ),
    "MultiStepLR": Case(
        _torch(reference.MultiStepLR),
        lr_scheduler.multi_step_lr,
        _draw_milestones,
        ("base_lr", "milestones", "gamma"),
        _optax_milestones,
    ),
    "ConstantLR": Case(
        _torch(reference.ConstantLR),
        lr_scheduler.constant_lr,
        lambda rng, length: {
            "factor": _pick(rng, 1 / 3, rng.uniform(0.01, 1), 1.0),
            "total_iters": length - int(rng.uniform() < 0.1),
        },
        ("base_lr", "factor", "total_iters"),
        _optax_constant,
    ),
    "LinearLR": Case(
        _torch(reference.LinearLR),
        lr_scheduler.linear_lr,
        lambda rng, length: {
            "start_factor": _pick(rng, 1 / 3, rng.uniform(0.01, 1), 1.0),
            "end_factor": _pick(rng, 1.0, rng.uniform(0, 1), 0.0),
            "total_iters": length - int(rng.uniform() < 0.1),
        },
        ("base_lr", "start_factor", "end_factor", "total_iters"),
        _optax_linear,
    ),
    "ExponentialLR": Case(
        _torch(reference.ExponentialLR),
        lr_scheduler.exponential_lr,
        lambda rng, length: {"gamma": _pick(rng, 0.9, rng.uniform(0.8, 1.01))},
        ("base_lr", "gamma"),
        lambda arguments: optax.exponential_decay(arguments["base_lr"], 1, arguments["gamma"]),
    ),
    "PolynomialLR": Case(
        _torch(reference.PolynomialLR),
        lr_scheduler.polynomial_lr,
        lambda rng, length: {
            "total_iters": length - int(rng.uniform() < 0.1),
            "power": _pick(rng, 1.0, 2.0, 0.9, rng.uniform(0, 4), 0.0),
        },
        ("base_lr", "total_iters", "power"),
        _optax_polynomial,
    ),
    "CosineAnnealingLR": Case(
        _torch(reference.CosineAnnealingLR),
        lr_scheduler.cosine_annealing_lr,
        lambda rng, length: {
            "T_max": length,
            "eta_min": _pick(rng, 0.0, 10 ** rng.uniform(-7, -1)),
        },
        ("base_lr", "T_max", "eta_min"),
        _optax_cosine,
    ),
    "CosineAnnealingWarmRestarts": Case(
        _torch(reference.CosineAnnealingWarmRestarts),
        lr_scheduler.cosine_annealing_warm_restarts,
        lambda rng, length: {
            # Few, since each pair of periods is a compilation.
            "T_0": int(2 ** rng.integers(0, 6)),
            "T_mult": int(rng.integers(1, 4)),
            "eta_min": _pick(rng, 0.0, 10 ** rng.uniform(-7, -1)),
        },
        ("base_lr", "eta_min"),
        _optax_restarts,
    ),
    "CyclicLR": Case(
        reference.CyclicLR,
        lr_scheduler.cyclic_lr,
        _draw_cyclic,
        (
            "base_lr",
            "max_lr",
            "step_size_up",
            "step_size_down",
            "gamma",
            "base_momentum",
            "max_momentum",
        ),
    ),
    "OneCycleLR": Case(
        lambda optimizer, base_lr, **arguments: reference.OneCycleLR(
            optimizer, base_lr, **arguments
        ),
        _one_cycle,
        _draw_one_cycle,
        (
            "base_lr",
            "total_steps",
            "pct_start",
            "base_momentum",
            "max_momentum",
            "div_factor",
            "final_div_factor",
        ),
        _optax_one_cycle,
        steps=_one_cycle_steps,
    ),
    "SWALR": Case(
        _torch(SWALR),
        lr_scheduler.swa_lr,
        lambda rng, length: {
            "swa_lr": 10 ** rng.uniform(-5, 1),
            "anneal_epochs": length - int(rng.uniform() < 0.1),
            "anneal_strategy": str(rng.choice(["cos", "linear"])),
        },
        ("base_lr", "swa_lr", "anneal_epochs"),
        _optax_swa,
    ),
}


LONG: dict[str, Setting] = {
    name: Setting({"base_lr": 0.1, **arguments}, 100_000)
    for name, arguments in {
        "LambdaLR": {"kind": "inverse", "a": 1e-3},
        "MultiplicativeLR": {"kind": "cosine", "a": 1e-6},
        "StepLR": {"step_size": 777, "gamma": 0.97},
        "MultiStepLR": {"milestones": [70_000, 10, 10, 99_999], "gamma": 0.3},
        "ConstantLR": {"factor": 0.3, "total_iters": 60_000},
        "LinearLR": {"start_factor": 0.001, "end_factor": 0.9, "total_iters": 90_000},
        "ExponentialLR": {"gamma": 0.9999},
        "PolynomialLR": {"total_iters": 90_000, "power": 0.9},
        "CosineAnnealingLR": {"T_max": 40_000, "eta_min": 1e-4},
        "CosineAnnealingWarmRestarts": {"T_0": 10, "T_mult": 3},
        "CyclicLR": {"max_lr": 3.0, "step_size_up": 77, "step_size_down": 1000},
        "OneCycleLR": {"total_steps": 100_000, "pct_start": 0.21, "three_phase": True},
        "SWALR": {"swa_lr": 0.005, "anneal_epochs": 90_000},
    }.items()
}
"""For each class a run of 100,000 steps."""


@dataclasses.dataclass(frozen=True)
class Composition:
    """A nesting: how both sides build it, and its text in a failure."""

    text: str
    torch: Callable[[torch.optim.Optimizer], Any]
    ours: Callable[..., Any]


def compose(rng: np.random.Generator, base_lr: float, depth: int = 3) -> Composition:
    """Draw a nesting of at most ``depth`` compositions, one inside the other.

    In a sequence only the first member may be one: torch cannot restart another.
    """
    members = []
    chained = bool(rng.integers(2))
    for index in range(int(rng.integers(1, 4))):
        if depth > 1 and (chained or index == 0) and rng.uniform() < 0.6:
            members.append(compose(rng, base_lr, depth - 1))
        else:
            members.append(_leaf(rng, base_lr))
    inside = ", ".join(member.text for member in members)
    if chained:
        return Composition(
            f"chained([{inside}])",
            lambda optimizer: reference.ChainedScheduler([m.torch(optimizer) for m in members]),
            lambda steps=None: lr_scheduler.chained_scheduler(
                [m.ours() for m in members], steps=steps
            ),
        )
    milestones = sorted(rng.integers(1, 60, len(members) - 1).tolist())
    return Composition(
        f"sequential([{inside}], {milestones})",
        lambda optimizer: reference.SequentialLR(
            optimizer, [m.torch(optimizer) for m in members], milestones
        ),
        lambda steps=None: lr_scheduler.sequential_lr(
            [m.ours() for m in members], milestones, steps=steps
        ),
    )


def _leaf(rng: np.random.Generator, base_lr: float) -> Composition:
    name = str(rng.choice(list(CASES)))
    case = CASES[name]
    setting = case.sample(rng, base_lr)
    for length in ("total_steps", "total_iters", "anneal_epochs"):
        if length in setting.arguments:  # no cycle that ends too soon, no division by 0
            setting.arguments[length] += 1000 if length == "total_steps" else 1
    return Composition(
        f"{name}({setting.arguments})",
        lambda optimizer: case.torch(optimizer, setting),
        lambda: case.closed_form(setting),
    )
