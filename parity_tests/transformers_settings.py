"""Random training arguments of transformers, and the objects that its own factories make from them."""

import dataclasses
from typing import Any

import numpy as np
import torch
from torchvision_import import import_models

import_models()  # which transformers' Trainer imports, too

from transformers import Trainer, TrainingArguments  # noqa: E402

from jaxsched import Recipe, recipes, schedules  # noqa: E402
from jaxsched.torch import assert_optimizer_matches  # noqa: E402

LABELS = ("decay", "no_decay")
"""The recipe's groups, in the order of ``Trainer``'s."""

N = 150
"""Iterations that are compared, past the end of every run without accumulation."""

NAMES = {  # of a parameter group's entries, in jaxsched.optimizers
    "weight_decay": ("weight_decay",),
    "betas": ("b1", "b2"),
    "eps": ("eps",),
    **{
        name: (name,)
        for name in ("momentum", "dampening", "nesterov", "alpha", "centered", "lr_decay")
    },
}


class RMSNorm(torch.nn.Module):
    """A normalisation that transformers recognises only by its name."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(size))


class Net(torch.nn.Module):
    """A parameter of each kind by which the two groups are distinguished."""

    def __init__(self) -> None:
        super().__init__()
        self.wte = torch.nn.Embedding(5, 3)
        self.ln = torch.nn.LayerNorm(3)  # by its kind
        self.q_norm = RMSNorm(3)  # by its name
        self.rms = RMSNorm(3)  # by neither, and so decayed
        self.bn = torch.nn.BatchNorm1d(3)
        self.fc = torch.nn.Linear(3, 2)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> dict[str, torch.Tensor]:
        hidden = self.ln(x @ self.wte.weight[:4]) * self.q_norm.weight * self.rms.weight
        return {
            "loss": torch.nn.functional.mse_loss(self.fc(self.bn.weight * hidden + self.bn.bias), y)
        }


@dataclasses.dataclass
class Setting:
    """Training arguments that differ from the defaults, and the run that they are for."""

    arguments: dict[str, Any]
    num_training_steps: int
    steps_per_epoch: int | None

    def full(self, **changes: Any) -> TrainingArguments:
        common = {"output_dir": "unused", "use_cpu": True, "report_to": [], "disable_tqdm": True}
        return TrainingArguments(**common, **{**self.arguments, **changes})


def sample(rng: np.random.Generator, kind: str, optim: str) -> Setting:
    """Draw a setting of a schedule and an optimizer."""

    def choice(*values: Any) -> Any:
        return values[rng.integers(len(values))]

    steps, lr = int(rng.integers(2, 120)), float(10 ** rng.uniform(-5, 1))
    count = int(rng.integers(0, steps))
    warmup = choice(0, count, float(count) + 1.0, float(rng.uniform(0, 1)), 0.1)
    cycles = choice(0.5, 1, 2, float(rng.uniform(0, 3)))
    lowest = choice({"min_lr": lr * float(rng.uniform())}, {"min_lr_rate": float(rng.uniform())})
    shapes = "linear", "cosine", "1-sqrt"
    stable = {"num_stable_steps": int(rng.integers(0, steps))}
    kwargs = {
        "cosine": {"num_cycles": cycles},
        "cosine_with_restarts": {"num_cycles": choice(1, 2, 3, float(rng.uniform(0.5, 4)))},
        "polynomial": {
            "lr_end": lr * choice(0.0, float(rng.uniform(0, 0.9))),
            "power": choice(1.0, 2, 0.5, float(rng.uniform(0, 4))),
        },
        "inverse_sqrt": {"timescale": choice(None, int(rng.integers(1, 200)))},
        "cosine_with_min_lr": {"num_cycles": cycles, **lowest},
        "cosine_warmup_with_min_lr": {
            "num_cycles": cycles,
            **lowest,
            "warmup_lr_rate": choice(None, float(rng.uniform())),
        },
        "warmup_stable_decay": {
            "num_decay_steps": int(rng.integers(0, steps)),
            **choice({}, stable),
            "warmup_type": choice(*shapes),
            "decay_type": choice(*shapes),
            "min_lr_ratio": choice(0, float(rng.uniform())),
            "num_cycles": cycles,
        },
    }.get(kind)
    if kwargs and kind in ("cosine", "cosine_with_restarts", "polynomial") and choice(True, False):
        kwargs = None
        lr = max(lr, 1e-4)  # above the polynomial's default end
    momentum = choice(
        "", "momentum=0.9", "momentum = 0.8, dampening=0.1", "momentum=.9,nesterov=True"
    )
    options = {
        "sgd": choice(None, momentum, "weight_decay=0.3"),
        "adagrad": choice(None, "lr_decay=0.01,eps=1e-6"),
        "rmsprop": choice(None, "momentum=0.9,alpha=0.95", "eps=1e-5,centered=yes"),
    }.get(optim, choice(None, "momentum=0.9"))
    batches = choice(1, 1, int(rng.integers(2, 6)))
    return Setting(
        {
            "learning_rate": lr,
            "lr_scheduler_type": kind,
            "lr_scheduler_kwargs": kwargs,
            "warmup_steps": warmup if kind != "polynomial" or warmup < 1 else steps // 2,
            "optim": optim,
            "optim_args": options,
            "weight_decay": choice(0.0, 0.01, float(rng.uniform())),
            "adam_beta1": choice(0.9, float(rng.uniform(0.5, 0.99))),
            "adam_beta2": choice(0.999, float(rng.uniform(0.9, 0.9999))),
            "adam_epsilon": choice(1e-8, 1e-6),
            "max_grad_norm": choice(1.0, 0.0, float(rng.uniform(0.1, 5))),
            "gradient_accumulation_steps": batches,
        },
        steps,
        int(rng.integers(1, 25)) if batches > 1 else None,
    )


KINDS = (
    *("linear", "cosine", "cosine_with_restarts", "polynomial", "constant"),
    *("constant_with_warmup", "inverse_sqrt", "cosine_with_min_lr"),
    *("cosine_warmup_with_min_lr", "warmup_stable_decay"),
)
OPTIMS = ("adamw_torch_fused", "adamw_torch", "sgd", "adagrad", "rmsprop")


def settings(n: int) -> list[Setting]:
    """Return the first ``n`` settings, always the same ones, of each schedule with each optimizer in turn."""
    rng = np.random.default_rng(14)
    pairs = [(kind, optim) for optim in OPTIMS for kind in KINDS]
    return [sample(rng, *pairs[k % len(pairs)]) for k in range(n)]


def recipe_of(setting: Setting, **changes: Any) -> Recipe:
    """Return our recipe of a setting."""
    arguments = setting.full().to_dict()
    return recipes.transformers(
        {**arguments, **changes},
        num_training_steps=setting.num_training_steps,
        steps_per_epoch=setting.steps_per_epoch,
    )


def our_rates(recipe: Recipe, n: int = N) -> np.ndarray:
    """Return the rate of each group at ``n`` iterations: float32, or float64 with x64."""
    values = {}
    for label in LABELS:
        rate = recipe.groups[label]["learning_rate"]
        if rate not in values:
            schedule = rate if callable(rate) else schedules.constant(rate)
            values[rate] = np.asarray(schedule(np.arange(n)))
    return np.stack([values[recipe.groups[label]["learning_rate"]] for label in LABELS], 1)


def create(arguments: TrainingArguments, steps: int, model: torch.nn.Module) -> tuple[Any, Any]:
    """Return the optimizer and the scheduler that ``Trainer`` makes."""
    trainer = Trainer(model, arguments)
    trainer.create_optimizer_and_scheduler(num_training_steps=steps)
    return trainer.optimizer, trainer.lr_scheduler


def names_by_label(optimizer: Any, model: torch.nn.Module) -> dict[str, str]:
    """Return the group of each parameter; the first of ``Trainer``'s two groups decays."""
    names = {id(p): name for name, p in model.named_parameters()}
    return {
        names[id(p)]: label
        for label, group in zip(LABELS, optimizer.param_groups, strict=True)
        for p in group["params"]
    }


def constants(group: dict[str, Any]) -> dict[str, Any]:
    """Return a parameter group's entries by the names of ``jaxsched.optimizers``, without the rate."""
    numbers = {}
    for key, names in NAMES.items():
        if key in group:
            values = group[key] if isinstance(group[key], tuple) else (group[key],)
            numbers |= dict(zip(names, values, strict=True))
    return numbers


def rates(optimizer: Any, scheduler: Any, setting: Setting, n: int = N) -> np.ndarray:
    """Return the rate of each group in force at each of ``n`` batches of ``Trainer``'s loop."""
    rows, batches = [], setting.arguments["gradient_accumulation_steps"]
    epoch = setting.steps_per_epoch or n
    for batch in range(n):
        rows.append([group["lr"] for group in optimizer.param_groups])
        step = batch % epoch
        if (step + 1) % batches == 0 or step + 1 == epoch:
            optimizer.step()  # which has no gradient
            scheduler.step()
    return np.array(rows)


def assert_updates_match(k: int) -> None:
    """Fail if 50 updates of setting k differ from those of ``Trainer``'s optimizer, in float64."""
    setting = settings(k + 1)[k]
    batches = setting.arguments["gradient_accumulation_steps"]
    setting.steps_per_epoch = 50 * batches  # assert_optimizer_matches has no short group
    labels = {"wte/weight": "decay", "fc/weight": "decay", "fc/bias": "no_decay"}

    def factory(parameters: dict[str, torch.nn.Parameter]) -> tuple[Any, Any]:
        model = Net().requires_grad_(False)
        for path, parameter in parameters.items():
            module, name = path.split("/")
            setattr(getattr(model, module), name, parameter)
        created = create(setting.full(), setting.num_training_steps, model)
        theirs = names_by_label(created[0], model)
        assert theirs == {path.replace("/", "."): label for path, label in labels.items()}
        return created

    initial = dict(Net().named_parameters())
    assert_optimizer_matches(
        recipe_of(setting).optimizer(labels),
        factory,
        params={path: initial[path.replace("/", ".")].detach().numpy() for path in labels},
        updates=50,
        accumulation=batches,
        steps_per_epoch=batches,
        clip_norm=setting.arguments["max_grad_norm"] or None,
        labels=LABELS,
    )


# At larger rates a coupled decay amplifies rounding errors.
_CALM = [(k, s) for k, s in enumerate(settings(200)) if s.arguments["learning_rate"] <= 0.1]
UPDATED = [
    k for optim in OPTIMS for k in [k for k, s in _CALM if s.arguments["optim"] == optim][:8:2]
]
"""The settings of ``assert_updates_match``: four of each optimizer, of different schedules."""
