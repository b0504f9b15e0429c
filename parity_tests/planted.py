"""The originals' runs with one usual mistake in them, drawn at random, in NumPy.

Runs are computed here by the rules observed in the originals, never by the code that
looks for the mistake. Counts are iterations; 0 is the first.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
from original_rules import run

from jaxsched import Recipe, Trace
from jaxsched.recipes import ultralytics, yolov5, yolov5_resnet18

LABELS = ("weight", "bias", "norm")
LAGGING = ("article", "yolov5 7.0", "yolov5 6.1", "ultralytics 8.0.227")
FAMILIES = (*LAGGING, "ultralytics 8.3.250", "ultralytics 8.4.190")


@dataclasses.dataclass(frozen=True)
class Run:
    """The settings of a run's hyperparameters; each mistake changes them, or the resulting curves.

    Attributes:
      family: the original.
      epochs: of the decay.
      steps: iterations in an epoch.
      warmup: its length in iterations.
      curve: "cosine", "one_cycle" or "line".
      lags: whether the scheduler steps at an epoch's end.
      lr0, lrf, moment, decay: base rate, last factor, momentum or b1, decay of the weights.
      moved: whether the momentum is warmed up.
      starts: the rate that each group's warm-up starts from.
      moment_start: the momentum that it starts from.
      begin, end: the epochs of this process.
      arguments: the factory's.
      target, after: from an iteration to the epoch that the warm-up leads to, and that is in
        force after it; None as in the original.
      ends: the epoch from which the curve is constant; None as in the original.
      dtype: of the arithmetic.
    """

    family: str
    epochs: int
    steps: int
    warmup: int
    curve: str
    lags: bool
    lr0: float
    lrf: float
    moment: float
    decay: float
    moved: bool
    starts: dict[str, float]
    moment_start: float
    begin: int
    end: int
    resumed: bool
    arguments: dict[str, Any]
    target: Callable[[np.ndarray], np.ndarray] | None = None
    after: Callable[[np.ndarray], np.ndarray] | None = None
    ends: int | None = None
    late: int = 0
    dtype: Any = np.float64

    def replace(self, **values: Any) -> "Run":
        """Return the run with some of its settings changed."""
        return dataclasses.replace(self, **values)

    @property
    def last_warm(self) -> int:
        """Epoch in which the warm-up ends."""
        return self.warmup // self.steps

    @property
    def name(self) -> str:
        return "momentum" if self.moved else "b1"

    def recipe(self) -> Recipe:
        """Return the correct recipe."""
        name = self.family.split()[0]
        return {"article": yolov5_resnet18, "yolov5": yolov5, "ultralytics": ultralytics}[name](
            **self.arguments
        )

    def factor(self, x: np.ndarray) -> np.ndarray:
        """Return the factor of the decay at an epoch."""
        f, one, two = self.dtype, self.dtype(1), self.dtype(2)
        x = np.asarray(x if self.ends is None else np.minimum(x, self.ends), f)
        epochs, lrf = f(self.epochs), f(self.lrf)
        if self.curve == "line":
            return (one - x / epochs) * (one - lrf) + lrf
        if self.curve == "one_cycle":
            return ((one - np.cos(x * f(np.pi) / epochs)) / two) * (lrf - one) + one
        return ((one + np.cos(x * f(np.pi) / epochs)) / two) * (one - lrf) + lrf

    def groups(self) -> dict[str, dict[str, np.ndarray]]:
        """Return the run's hyperparameters, a row an iteration."""
        f = self.dtype
        ni = np.arange(self.begin * self.steps, self.end * self.steps) - self.late
        ni = np.maximum(ni, 0)
        epoch = ni // self.steps
        lagging = np.where(epoch > self.last_warm, epoch - 1, epoch) if self.lags else epoch
        target = f(self.lr0) * self.factor(epoch if self.target is None else self.target(ni))
        after = f(self.lr0) * self.factor(lagging if self.after is None else self.after(ni))
        if self.lags and self.begin and not self.resumed and self.begin * self.steps > self.warmup:
            after = np.where(epoch == self.begin, f(self.lr0) * self.factor(np.array(0)), after)

        def warm_up(start: float, end: np.ndarray, then: np.ndarray) -> np.ndarray:
            rising = (end - f(start)) / f(max(self.warmup, 1)) * ni.astype(f) + f(start)
            return np.where(ni < self.warmup, rising, np.where(ni <= self.warmup, end, then))

        constant = np.full(len(ni), self.moment, f)
        moment = warm_up(self.moment_start, constant, constant) if self.moved else constant
        return {
            label: {
                "learning_rate": warm_up(self.starts[label], target, after),
                self.name: moment,
                "weight_decay": np.full(len(ni), self.decay if label == "weight" else 0.0),
                **({} if self.moved else {"b2": np.full(len(ni), 0.999)}),
            }
            for label in LABELS
        }


def draw_run(rng: np.random.Generator, family: str | None = None, **given: Any) -> Run:
    """Draw a random run of one of the originals that lasts past its warm-up."""
    family = family or str(rng.choice(FAMILIES))
    name, _, version = family.partition(" ")
    steps = int(rng.integers(4, 12) if name == "article" else rng.integers(34, 60))
    epochs = int(rng.integers(12, 30))
    if version == "6.1":
        steps, epochs = int(rng.integers(60, 90)), int(rng.integers(22, 30))
    hyp = {
        "lr0": float(f"{10 ** rng.uniform(-4, 0):.3g}"),
        "lrf": float(f"{rng.uniform(0.05, 0.5):.2g}"),
        "momentum": float(f"{rng.uniform(0.85, 0.98):.3g}"),
        "weight_decay": float(f"{10 ** rng.uniform(-5, -2):.2g}"),
        "warmup_bias_lr": float(f"{10 ** rng.uniform(-3, 0):.2g}"),
        "warmup_momentum": float(f"{rng.uniform(0.5, 0.8):.2g}"),
    }
    start = {k: given[k] for k in ("start_epoch", "resumed") if k in given}
    optimizer = given.get("optimizer", str(rng.choice(["SGD", "SGD", "AdamW"])))
    cos = bool(given.get("cos_lr", rng.integers(2)))
    batch = int(given.get("batch_size", rng.choice([2, 6, 10, 12, 16, 24, 48, 64, 100])))
    if name == "article":
        warmup = int(rng.integers(2 * steps, 5 * steps))
        arguments = {"warmup_iterations": warmup, **hyp}
        decay, optimizer, curve = hyp["weight_decay"], "SGD", "cosine"
    else:
        warm_epochs = float(rng.choice([2.0, 3.0, 3.5, 4.0, 5.0]))
        warmup = round(warm_epochs * steps)
        if name == "yolov5" or version != "8.4.190":
            warmup = max(warmup, {"6.1": 1000}.get(version, 100))
        curve = "one_cycle" if cos else "line"
        decay = hyp["weight_decay"] * (batch * max(round(64 / batch), 1) / 64)
        settings = {"hyp" if name == "yolov5" else "args": {**hyp, "warmup_epochs": warm_epochs}}
        arguments = {"batch_size": batch, "optimizer": optimizer, "version": version, **settings}
        arguments["cos_lr"] = cos
    return Run(
        family,
        epochs,
        steps,
        warmup,
        curve,
        family in LAGGING,
        hyp["lr0"],
        hyp["lrf"],
        hyp["momentum"],
        decay,
        optimizer == "SGD",
        {"weight": 0.0, "bias": hyp["warmup_bias_lr"], "norm": 0.0},
        hyp["warmup_momentum"],
        given.get("start_epoch", 0),
        epochs,
        given.get("resumed", False),
        {"epochs": epochs, "steps_per_epoch": steps, **arguments, **start},
    )


def swap_groups(one: str, other: str) -> Callable[[Run], Any]:
    def plant(r: Run) -> Any:
        groups = r.groups()
        return {**groups, one: groups[other], other: groups[one]}

    return plant


def change_all(change: Callable[[np.ndarray], np.ndarray]) -> Callable[[Run], Any]:
    return lambda r: {
        label: {name: change(v) for name, v in group.items()} for label, group in r.groups().items()
    }


def add_decay(*labels: str) -> Callable[[Run], Any]:
    def plant(r: Run) -> Any:
        groups = r.groups()
        for label in labels:
            groups[label]["weight_decay"] = groups["weight"]["weight_decay"]
        return groups

    return plant


def unscale_decay(r: Run) -> Any:
    settings = r.arguments.get("hyp", r.arguments.get("args"))
    return r.replace(decay=settings["weight_decay"]).groups()


def count_by_updates(before: int) -> Callable[[Run], Any]:
    """Evaluate the schedule at the number of updates so far."""

    def plant(r: Run) -> Any:
        name, _, version = r.family.partition(" ")
        arguments = {k: v for k, v in r.arguments.items() if k not in ("version", "args", "hyp")}
        hyp = r.arguments.get("hyp", r.arguments.get("args"))
        stepped = run(name, version, hyp=hyp, **arguments).run["stepped"].astype(int)
        count = np.cumsum(stepped) - stepped * before
        return {
            label: {k: v[np.minimum(count, len(v) - 1)] for k, v in group.items()}
            for label, group in r.groups().items()
        }

    return plant


def toggle_resumed(r: Run) -> Any:
    return r.replace(resumed=not r.resumed).groups()


def resume_at(epoch: int | str) -> Callable[[Run], Any]:
    """Let the process count from another epoch, for as many iterations."""

    def plant(r: Run) -> Any:
        begin = epoch if isinstance(epoch, int) and epoch == 0 else r.begin + int(epoch)
        return r.replace(begin=begin, end=begin + r.end - r.begin).groups()

    return plant


def lag(r: Run, epoch: Any) -> Any:
    """Return the epoch of a scheduler that lags if the original does."""
    return np.where(np.asarray(epoch) > r.last_warm, epoch - 1, epoch) if r.lags else epoch


def lengthen_warmup(by: Callable[[Run], int]) -> Callable[[Run], Any]:
    return lambda r: r.replace(warmup=max(r.warmup + by(r), 0)).groups()


def change_run(**change: Callable[[Run], Any]) -> Callable[[Run], Any]:
    """Return a mistake that changes some settings of the run."""
    return lambda r: r.replace(**{name: value(r) for name, value in change.items()}).groups()


def shift_epoch(k: int, where: str) -> Callable[[Run], Any]:
    """Shift the epoch of the scheduler by ``k``."""

    def after(r: Run) -> Any:
        def epoch(ni: np.ndarray) -> np.ndarray:
            right = lag(r, ni // r.steps)
            # The rest of the epoch in which the warm-up ends keeps the warm-up's last rate.
            moved = (ni // r.steps > r.last_warm) | (where == "all")
            return np.maximum(right + k * moved, 0)

        return epoch

    def target(r: Run) -> Any:
        return lambda ni: np.maximum(ni // r.steps + k, 0)

    return change_run(after=after) if where == "after" else change_run(after=after, target=target)


def shift_border(k: int) -> Callable[[Run], Any]:
    """Let the epochs after the warm-up begin ``k`` iterations early."""
    return change_run(after=lambda r: lambda ni: lag(r, (ni + k) // r.steps))


def change_each_iteration(count: str, lags: bool, target: str) -> Callable[[Run], Any]:
    """Change the schedule at every iteration in place of every epoch."""

    def plant(r: Run) -> Any:
        one = r.steps if count == "smooth" else 1

        def epoch_of(ni: np.ndarray, late: int = 0) -> np.ndarray:
            return np.maximum(ni - late, 0) / (r.steps if count == "smooth" else 1)

        def after(ni: np.ndarray) -> np.ndarray:
            return epoch_of(ni, one if lags else 0)

        moved = r.replace(after=after)
        return (moved.replace(target=epoch_of) if target == "iteration" else moved).groups()

    return plant


def has_lag(r: Run) -> bool:
    return r.lags


def is_sgd(r: Run) -> bool:
    return r.moved


def has_accumulation(r: Run) -> bool:
    return 64 // int(r.arguments.get("batch_size", 64)) > 1


@dataclasses.dataclass(frozen=True)
class Cause:
    """A mistake that is planted, and the causes of which one must come first.

    Attributes:
      plant: from a right run to the groups of one with the mistake made.
      answers: kind and name of the causes that each name it.
      fits: true for runs in which it can be made.
      given: settings of the run that is drawn.
      beyond: epochs compared past its end.
    """

    plant: Callable[[Run], Any]
    answers: tuple[str, ...]
    fits: Callable[[Run], bool] = lambda r: True
    given: dict[str, Any] = dataclasses.field(default_factory=dict)
    beyond: int = 0


SHIFT = ("clock shift",)
EACH = ("clock per iteration", "clock stretch")
WARMUP = tuple(
    f"argument {n}" for n in ("iterations", "warmup_iterations", "warmup_epochs", "warmup")
)
DENOMINATOR = ("argument epochs",)
RESUMED = ("argument start_epoch", "argument resumed", "clock reset", *SHIFT)
START = tuple(f"argument {name}" for name in ("start", "warmup_bias_lr", "warmup_momentum"))
DECAY = ("groups taken from", "argument weight_decay")

CAUSES = {
    "one iteration late": Cause(change_run(late=lambda r: 1), SHIFT),
    "one iteration early": Cause(change_run(late=lambda r: -1), SHIFT),
    "one epoch late": Cause(change_run(late=lambda r: r.steps), SHIFT),
    "one epoch early": Cause(change_run(late=lambda r: -r.steps), SHIFT),
    "scheduler an epoch early": Cause(shift_epoch(1, "all"), SHIFT),
    "scheduler an epoch late": Cause(shift_epoch(-1, "all"), SHIFT),
    "an epoch early after the warm-up": Cause(shift_epoch(1, "after"), SHIFT),
    "an epoch late after the warm-up": Cause(shift_epoch(-1, "after"), SHIFT),
    "an iteration early after the warm-up": Cause(shift_border(1), SHIFT),
    "an iteration late after the warm-up": Cause(shift_border(-1), SHIFT),
    "scheduler before optimizer": Cause(change_run(lags=lambda r: False), SHIFT, has_lag),
    **{
        f"per-iteration: {count}{', lag' if lags else ''}, targets per {target}": Cause(
            change_each_iteration(count, lags, target), EACH, has_lag if lags else lambda r: True
        )
        for count in ("smooth", "stepping")
        for lags in (False, True)
        for target in ("epoch", "iteration")
    },
    "warm-up an iteration short": Cause(lengthen_warmup(lambda r: -1), WARMUP),
    "warm-up an iteration long": Cause(lengthen_warmup(lambda r: 1), WARMUP),
    "warm-up an epoch short": Cause(lengthen_warmup(lambda r: -r.steps), WARMUP),
    "warm-up an epoch long": Cause(lengthen_warmup(lambda r: r.steps), WARMUP),
    "warm-up 10 % short": Cause(lengthen_warmup(lambda r: -round(0.1 * r.warmup)), WARMUP),
    "warm-up 10 % long": Cause(lengthen_warmup(lambda r: round(0.1 * r.warmup)), WARMUP),
    "warm-up of one epoch": Cause(lengthen_warmup(lambda r: r.steps - r.warmup), WARMUP),
    "warm-up twice as long": Cause(lengthen_warmup(lambda r: r.warmup), WARMUP),
    "no warm-up": Cause(lengthen_warmup(lambda r: -r.warmup), WARMUP),
    "warm-up start of the weights, a tenth": Cause(
        change_run(starts=lambda r: {**r.starts, "weight": 0.1 * r.lr0, "norm": 0.1 * r.lr0}), START
    ),
    "warm-up start of all, a hundredth": Cause(
        change_run(starts=lambda r: dict.fromkeys(LABELS, 0.01 * r.lr0)), START
    ),
    "warm-up start of the biases": Cause(
        change_run(starts=lambda r: {**r.starts, "bias": 2 * r.starts["bias"]}), START
    ),
    "warm-up start of the momentum": Cause(change_run(moment_start=lambda r: 0.4), START, is_sgd),
    "warm-up start of the momentum, 0": Cause(
        change_run(moment_start=lambda r: 0.0), START, is_sgd
    ),
    "missing bias rate": Cause(change_run(starts=lambda r: {**r.starts, "bias": 0.0}), START),
    "missing bias rate, lr0": Cause(
        change_run(starts=lambda r: {**r.starts, "bias": r.lr0}), START
    ),
    **{
        f"{one} and {other} swapped": Cause(swap_groups(one, other), ("groups exchanged",))
        for one, other in (("weight", "bias"), ("weight", "norm"), ("bias", "norm"))
    },
    "momentum not warmed up": Cause(
        change_run(moment_start=lambda r: r.moment), ("groups unscheduled", *START, *WARMUP), is_sgd
    ),
    "clamped": Cause(change_run(ends=lambda r: r.epochs), ("clock stopped",), beyond=4),
    "clamped an epoch before": Cause(
        change_run(ends=lambda r: r.epochs - 1), ("clock stopped",), beyond=4
    ),
    "denominator E - 1": Cause(change_run(epochs=lambda r: r.epochs - 1), DENOMINATOR),
    "denominator E + 1": Cause(change_run(epochs=lambda r: r.epochs + 1), DENOMINATOR),
    "denominator without warm-up": Cause(
        change_run(epochs=lambda r: r.epochs - r.last_warm), DENOMINATOR
    ),
    **{
        f"resumed at {text}": Cause(
            resume_at(epoch), RESUMED, given={"start_epoch": 9, "resumed": True}
        )
        for text, epoch in (("an epoch before", -1), ("an epoch after", 1), ("0", 0))
    },
    "fresh for resumed": Cause(
        toggle_resumed,
        RESUMED,
        lambda r: r.lags and r.begin * r.steps > r.warmup,
        given={"start_epoch": 11, "resumed": True},
    ),
    "resumed for fresh": Cause(
        toggle_resumed,
        RESUMED,
        lambda r: r.lags and r.begin * r.steps > r.warmup,
        given={"start_epoch": 11, "resumed": False},
    ),
    "decay not scaled": Cause(
        unscale_decay, (*DECAY, "value factor"), lambda r: r.family != "article"
    ),
    "decay on normalisation": Cause(add_decay("norm"), DECAY),
    "decay on all": Cause(add_decay("norm", "bias"), DECAY),
    "updates so far": Cause(count_by_updates(1), ("clock per update",), has_accumulation),
    "updates, this one too": Cause(count_by_updates(0), ("clock per update",), has_accumulation),
    "bfloat16 rounded": Cause(
        change_all(lambda v: v.astype(np.float32).astype(ml_dtypes.bfloat16).astype(np.float32)),
        ("value bfloat16",),
    ),
    "bfloat16 computed": Cause(
        lambda r: {
            label: {k: v.astype(np.float32) for k, v in group.items()}
            for label, group in r.replace(dtype=ml_dtypes.bfloat16).groups().items()
        },
        ("value bfloat16",),
    ),
    "float32 computed": Cause(change_run(dtype=lambda r: np.float32), ("value float32",)),
}


def cases(name: str, draws: int, seed: int = 0) -> Any:
    """Yield ``draws`` runs that the mistake changes: (correct run, wrong groups)."""
    cause = CAUSES[name]
    rng = np.random.default_rng([seed, *name.encode()])
    count = 0
    while count < draws:
        right = draw_run(rng, **cause.given)
        right = right.replace(end=right.epochs + cause.beyond)
        if not cause.fits(right):
            continue
        wrong = cause.plant(right)
        apart = any(
            (right.groups()[g][n].astype(np.float32) != v.astype(np.float32)).any()
            for g, group in wrong.items()
            for n, v in group.items()
        )
        if apart:
            count += 1
            yield right, wrong


def record_run(right: Run, groups: Any, dtype: Any = np.float32) -> Trace:
    """Return the trace of a run with these groups."""
    return Trace(
        {g: {n: v.astype(dtype) for n, v in group.items()} for g, group in groups.items()},
        start=right.begin * right.steps,
    )


def is_named(name: str, report: Any) -> bool:
    """Return true if a report's first cause, or one equal on these data, is the mistake."""
    first = report.explanations[:1]
    causes = [c for cause in first for c in (cause, *cause.alternatives, *cause.parts)]
    return any(f"{c.kind} {c.name}" in CAUSES[name].answers for c in causes)
