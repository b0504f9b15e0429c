"""Random arguments of timm's train.py, and the runs of both sides.

timm's objects are made by its own factories from the same arguments, in a loop that
calls them where ``train.py`` does: ``step_update`` after each update, ``step`` after each epoch.
"""

import functools
import types
import warnings
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from torchvision_import import import_models

from jaxsched import Recipe, optimizers, param_groups
from jaxsched.recipes import timm as our_timm

import_models()
import timm  # noqa: E402
from timm.models import group_parameters  # noqa: E402
from timm.optim import create_optimizer_v2, optimizer_kwargs  # noqa: E402
from timm.scheduler import create_scheduler_v2, scheduler_kwargs  # noqa: E402
from timm.utils import ModelEmaV3, dispatch_clip_grad  # noqa: E402

# The defaults of train.py's parser for the arguments that timm's helpers need.
PARSED = {"opt": "sgd", "weight_decay": 2e-5, "momentum": 0.9, "sched": "cosine"}
NAMES = {  # torch's names of hyperparameters that have other names here
    "lr": ("learning_rate",),
    "betas": ("b1", "b2"),
    **{
        name: (name,)
        for name in (
            *("weight_decay", "momentum", "eps", "alpha", "rho", "momentum_decay", "lr_decay"),
            *("dampening", "initial_accumulator_value"),
        )
    },
}
SWITCHES = ("nesterov", "amsgrad", "centered", "maximize", "decoupled_weight_decay")
SETTINGS, UPDATED = 200, 20  # settings, and those of them that make updates
UPDATES = 50
COUNTS = 1024
"""Rows at which curves are evaluated: always as many, so that each operation compiles once."""


class Tiny(torch.nn.Module):
    """A few parameters of each kind that timm distinguishes, in three layers."""

    def __init__(self) -> None:
        super().__init__()
        self.pos_embed = torch.nn.Parameter(torch.zeros(1, 3, 2))
        self.stem = torch.nn.Conv2d(2, 3, 3)
        self.norm = torch.nn.BatchNorm2d(3)
        self.head = torch.nn.Linear(3, 2)
        self.temperature = torch.nn.Parameter(torch.ones(()))

    def no_weight_decay(self) -> set[str]:
        return {"pos_embed"}

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        return {
            "stem": r"^pos_embed|^stem",
            "blocks": [(r"^norm", None), (r"^head|^temperature", (9,))],
        }


@functools.cache
def model(name: str) -> torch.nn.Module:
    """Return one of timm's models, or ``Tiny``."""
    return Tiny() if name == "tiny" else timm.create_model(name)


class Setting(NamedTuple):
    """Random arguments, and the run that they are for."""

    model: str
    args: dict[str, Any]
    steps_per_epoch: int

    @property
    def layers(self) -> dict[str, int]:
        """Return timm's layer of each parameter."""
        net = model(self.model)
        return group_parameters(net, net.group_matcher(coarse=False), reverse=True)

    def labels(self) -> param_groups.LabelFunction:
        rule = param_groups.by_dimension(getattr(model(self.model), "no_weight_decay", set)())
        decay = self.args.get("layer_decay")
        if decay is None:
            return rule
        layers = self.layers
        return param_groups.by_layer(
            lambda path: layers[param_groups.torch_name(path)], decay, labels=rule
        )

    def recipe(self) -> Recipe:
        labels, count = self.labels(), None
        if isinstance(labels, param_groups.LayerLabels):
            count = labels.count(shapes(self.model))
        return our_timm(self.args, steps_per_epoch=self.steps_per_epoch, layers=count)


def shapes(name: str) -> dict[str, Any]:
    """Return a leaf of each parameter's shape, by torch's names."""
    return {
        name: jax.ShapeDtypeStruct(tuple(p.shape), jnp.float32)
        for name, p in model(name).named_parameters()
    }


MODELS = ("test_vit", "test_convnext", "test_resnet", "test_efficientnet", "tiny")
OPTS = (
    *("sgd", "nesterov", "momentum", "adam", "adamw", "nadam", "radam", "radamw", "adamax"),
    *("adadelta", "adagrad", "rmsprop", "AdamW"),
)
SCHEDS = ("cosine", "tanh", "poly", "step", "multistep", "constant", "wsd", "rsqrt", "none")


def draw_settings(n: int = SETTINGS) -> list[Setting]:
    """Return the first ``n`` settings, always the same ones; the first ``UPDATED`` are of ``Tiny``."""
    rng = np.random.default_rng(2026)
    return [draw(rng, "tiny" if k < UPDATED else None) for k in range(n)]


def draw(rng: np.random.Generator, net: str | None = None) -> Setting:
    """Draw a setting of a run of up to ``COUNTS`` iterations, of the model ``net`` or of any."""

    def one(*values: Any) -> Any:
        return values[rng.integers(len(values))]

    def maybe(share: float, value: Any) -> Any:
        return value if rng.uniform() < share else None

    sched = one(*SCHEDS[:3], *SCHEDS)
    epochs, steps = int(rng.integers(2, 13)), int(rng.integers(1, 13))
    warmup = int(rng.integers(0, min(epochs, 4)))
    args: dict[str, Any] = {
        "lr": float(10 ** rng.uniform(-4, 0)),
        "opt": one(*OPTS),
        "sched": sched,
        "epochs": epochs,
        "warmup_epochs": warmup,
        "warmup_lr": one(0.0, 1e-6, 1e-5, 0.01),
        "warmup_prefix": one(False, True),
        "min_lr": one(0.0, 0.0, 1e-6, 1e-4),
        "sched_on_updates": one(False, True),
        "grad_accum_steps": one(1, 1, 2, 3, 4, 16),
        "weight_decay": one(0.0, 1e-4, 0.05),
        "momentum": one(0.9, 0.85),
        "opt_eps": maybe(0.3, 1e-6),
        "opt_betas": maybe(0.3, [0.85, 0.98]),
        "cooldown_epochs": int(rng.integers(0, 3)),
        "clip_grad": maybe(0.5, one(0.1, 1.0)),
        "clip_mode": one("norm", "value"),
        "layer_decay": maybe(0.4, one(0.5, 0.65, 0.75)),
        "decay_rate": one(0.1, 0.5, 0.97),
        # timm refuses a share of the epochs after the warm-up that rounds to 0.
        "decay_epochs": one(2, 1, 2.4) if sched == "step" else one(1, 0.5 if epochs > 5 else 1),
        "decay_milestones": sorted(rng.integers(1, epochs + 1, 3).tolist()),
        "lr_k_decay": one(1.0, 1.0, 0.5, 2.0, 1.3),
        "lr_decay_fn": maybe(0.5, one("linear", "1-sqrt", "cosine", "power", "exp")),
        "lr_stable_timescale": one(2, 7.5),
        "model_ema": one(False, True),
        "model_ema_decay": one(0.9998, 0.9),
        "model_ema_warmup": one(False, True),
    }
    if sched in ("cosine", "tanh", "poly") and rng.uniform() < 0.6:
        limit, mul = int(rng.integers(1, 5)), one(1.0, 1, 1.5, 2, 3.0)
        args |= {"lr_cycle_limit": limit, "lr_cycle_mul": mul, "lr_cycle_decay": one(0.1, 0.5, 1.0)}
        args["epochs"] = int(rng.integers(1, 5))
        args["warmup_epochs"] = min(warmup, args["epochs"] - 1)
    if args["layer_decay"] is not None and rng.uniform() < 0.3:
        args["layer_decay_min_scale"] = 0.1
    if "sgd" in args["opt"] and rng.uniform() < 0.2:
        args["opt_kwargs"] = {"dampening": 0.1, "nesterov": False}
    if args["opt"] == "adam" and rng.uniform() < 0.3:
        args["opt_kwargs"] = {"amsgrad": True}
    # Some arguments are left out: both sides then use timm's defaults.
    required = (*NEEDED, *(["opt"] if "opt_kwargs" in args else []))
    args = {key: value for key, value in args.items() if key in required or rng.uniform() > 0.15}
    return Setting(net or one(*MODELS), args, steps)


NEEDED = ("lr", "epochs", "warmup_epochs", "decay_epochs", "lr_stable_timescale", "lr_cycle_mul")


class Live(NamedTuple):
    """Live objects of timm."""

    net: torch.nn.Module
    optimizer: torch.optim.Optimizer
    scheduler: Any
    epochs: int
    updates_per_epoch: int


def live(setting: Setting, net: torch.nn.Module | None = None) -> Live:
    """Build timm's objects as ``train.py`` does."""
    args, n = setting.args, setting.steps_per_epoch
    net = model(setting.model) if net is None else net
    config = types.SimpleNamespace(**{**PARSED, **args})
    optimizer = create_optimizer_v2(net, **optimizer_kwargs(config), **args.get("opt_kwargs", {}))
    k = max(1, args.get("grad_accum_steps", 1))
    updates = (n + k - 1) // k
    scheduler, epochs = create_scheduler_v2(
        optimizer, **scheduler_kwargs(config), updates_per_epoch=updates
    )
    return Live(net, optimizer, scheduler, epochs, updates)


def clock(setting: Setting, epochs: int) -> list[tuple[int, bool, int]]:
    """Return each iteration's epoch, whether it makes an update, and the batches of its update."""
    n, k = setting.steps_per_epoch, max(1, setting.args.get("grad_accum_steps", 1))
    rows = []
    for epoch in range(epochs):
        for first in range(0, n, k):
            size = min(k, n - first)
            rows += [(epoch, b == size - 1, size) for b in range(size)]
    return rows


def advance(run: Live, row: int, rows: list[tuple[int, bool, int]], updates: int) -> int:
    """Call the scheduler after an iteration, and return how many updates there have been."""
    epoch, is_update, _ = rows[row]
    if is_update:
        updates += 1
        if run.scheduler is not None:
            run.scheduler.step_update(num_updates=updates)
    if run.scheduler is not None and (row + 1 == len(rows) or rows[row + 1][0] > epoch):
        run.scheduler.step(epoch + 1)
    return updates


def live_rates(setting: Setting) -> tuple[Live, np.ndarray]:
    """Return timm's objects, and its rates: float64, a row an iteration, a column a group."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run = live(setting)
    rows, updates = clock(setting, run.epochs)[: COUNTS - 1], 0
    rates = np.empty((len(rows), len(run.optimizer.param_groups)))
    for row in range(len(rows)):
        rates[row] = [group["lr"] for group in run.optimizer.param_groups]
        updates = advance(run, row, rows, updates)
    return run, rates


def members(run: Live) -> list[set[str]]:
    """Return the names in each of timm's groups."""
    names = {id(p): name for name, p in run.net.named_parameters()}
    return [{names[id(p)] for p in group["params"]} for group in run.optimizer.param_groups]


def our_curve(value: Any) -> np.ndarray:
    """Evaluate a rate at iterations 0 to ``COUNTS - 1``, in float64, operation by operation."""
    if not callable(value):
        return np.full(COUNTS, float(value))
    with jax.enable_x64(True):
        return np.asarray(value(np.arange(COUNTS)))


def torch_value(group: dict[str, Any], name: str) -> Any:
    """Return the value in torch's group of the hyperparameter ``name``; None if there is none."""
    for key, names in NAMES.items():
        if name in names and key in group:
            value = group[key]
            return value[names.index(name)] if len(names) > 1 else value
    return group.get(name)


def differences(setting: Setting) -> list[str]:
    """List the differences in groups, membership, rates, constants and length; empty if equal."""
    run, rates = live_rates(setting)
    recipe = setting.recipe()
    labels = setting.labels()(shapes(setting.model))
    theirs = members(run)
    mine = [{name for name in labels if labels[name] == label} for label in set(labels.values())]
    if not setting.args.get("weight_decay", 1) and setting.args.get("layer_decay") is None:
        mine = [set(labels)]  # timm then has one group; ours has two with the same numbers
    if set(map(frozenset, mine)) != set(map(frozenset, theirs)):
        return [f"groups: {sorted(set(labels.values()))} against {len(theirs)}"]
    different = []
    if recipe.length != run.epochs * setting.steps_per_epoch:
        different.append(f"length: {recipe.length} against {run.epochs} epochs")
    if type(run.optimizer).__name__.lower() != recipe.update_rule.__name__:
        different.append(
            f"rule: {recipe.update_rule.__name__} against {type(run.optimizer).__name__}"
        )
    curves: dict[Any, np.ndarray] = {}
    for label, k in {(labels[name], k) for k, names in enumerate(theirs) for name in names}:
        group = recipe.complete_groups()[label]
        rate = group["learning_rate"]
        if rate not in curves:
            curves[rate] = our_curve(rate)
        mine, column = curves[rate][: len(rates)], rates[:, k]
        wrong = np.flatnonzero(np.float32(mine) != np.float32(column))
        if wrong.size:
            at = wrong[0]
            different.append(f"{label}, {wrong.size} rates, {at}: {mine[at]!r} for {column[at]!r}")
        far = np.abs(mine - column).max() / max(np.abs(column).max(), 1e-300)
        if not far <= 1e-14:
            different.append(f"{label}, float64: {far}")
        for name, value in group.items():
            if name == "learning_rate":
                continue
            other = torch_value(run.optimizer.param_groups[k], name)
            if value != other:
                different.append(f"{label}, {name}: {value!r} for {other!r}")
    return different


def both_rates(setting: Setting) -> tuple[np.ndarray, np.ndarray]:
    """Return timm's rates and ours: float64, a row an iteration, a column for each of timm's groups."""
    run, theirs = live_rates(setting)
    groups, labels = setting.recipe().groups, setting.labels()(shapes(setting.model))
    columns = [groups[labels[min(names)]]["learning_rate"] for names in members(run)]
    return theirs, np.stack([our_curve(rate)[: len(theirs)] for rate in columns], 1)


class Parts(NamedTuple):
    """Results of a run of updates: parameters and average, by name, a row an update."""

    params: dict[str, np.ndarray]
    average: dict[str, np.ndarray]


def gradients_of(setting: Setting, n: int) -> dict[str, np.ndarray]:
    """Return a gradient for each batch, the same for both sides."""
    rng = np.random.default_rng(len(setting.args))
    return {name: rng.normal(size=(n, *leaf.shape)) for name, leaf in shapes(setting.model).items()}


def rows_of_updates(setting: Setting, epochs: int) -> list[tuple[int, bool, int]]:
    """Return the iterations of the first ``UPDATES`` updates, past the last epoch if necessary."""
    rows = clock(setting, max(epochs, UPDATES))
    last = [row for row, (_, is_update, _) in enumerate(rows) if is_update][UPDATES - 1]
    return rows[: last + 1]


def live_updates(setting: Setting) -> tuple[dict[str, np.ndarray], Parts]:
    """Return the initial parameters, and timm's run on the same gradients, in float64."""
    torch.set_default_dtype(torch.float64)
    try:
        torch.manual_seed(0)
        net = Tiny()
        start = {name: p.detach().numpy().copy() for name, p in net.named_parameters()}
        run = live(setting, net)
        args = {"model_ema_decay": 0.9998, "model_ema_warmup": False, **setting.args}
        ema = ModelEmaV3(
            net, decay=args["model_ema_decay"], use_warmup=args["model_ema_warmup"], foreach=False
        )
        rows, updates = rows_of_updates(setting, run.epochs), 0
        gradients = gradients_of(setting, len(rows))
        parts: list[Parts] = []
        for row, (_, is_update, size) in enumerate(rows):
            for name, p in net.named_parameters():
                g = torch.tensor(gradients[name][row] / size)
                p.grad = g if p.grad is None else p.grad + g
            if is_update:
                if args.get("clip_grad") is not None:
                    mode = args.get("clip_mode", "norm")
                    dispatch_clip_grad(net.parameters(), args["clip_grad"], mode=mode)
                run.optimizer.step()
                run.optimizer.zero_grad()
                ema.update(net, step=updates + 1)
                parts.append(
                    Parts(
                        *(
                            {name: p.detach().numpy().copy() for name, p in m.named_parameters()}
                            for m in (net, ema.module)
                        )
                    )
                )
            updates = advance(run, row, rows, updates)
    finally:
        torch.set_default_dtype(torch.float32)
    return start, jax.tree.map(lambda *row: np.stack(row), *parts)


def our_updates(setting: Setting, start: dict[str, np.ndarray]) -> Parts:
    """Run the recipe on the same gradients, in float64, compiled once."""
    recipe = setting.recipe()
    tx = recipe.optimizer(setting.labels())
    ema = recipe.ema or optimizers.EMA(power=float("inf"), decay=0.9998)
    rows = rows_of_updates(setting, recipe.length // setting.steps_per_epoch)
    with jax.enable_x64(True):
        batches = recipe.accumulation.batches if recipe.accumulation else lambda i: 1.0

        @jax.jit
        def run(carry: Any, xs: Any) -> Any:
            def step(carry: Any, x: Any) -> Any:
                params, state, average = carry
                iteration, gradient = x
                # The loss of a batch is its mean by the batches of the update.
                gradient = jax.tree.map(lambda g: g / batches(iteration), gradient)
                updates, state = tx.update(gradient, state, params)
                params = optax.apply_updates(params, updates)
                average = ema.update(average, params, optimizers.stepped(state))
                return (params, state, average), Parts(params, average.average)

            return jax.lax.scan(step, carry, xs)[1]

        params = jax.tree.map(jnp.asarray, start)
        xs = (jnp.arange(len(rows)), gradients_of(setting, len(rows)))
        results = run((params, tx.init(params), ema.init(params)), xs)
    at = [row for row, (_, is_update, _) in enumerate(rows) if is_update]
    return jax.tree.map(lambda leaf: np.asarray(leaf)[at], results)


def update_distance(setting: Setting) -> float:
    """Return the largest distance after any update, relative to the leaf's largest entry so far."""
    start, theirs = live_updates(setting)
    mine = our_updates(setting, start)
    if not setting.args.get("model_ema", False):
        mine, theirs = mine._replace(average={}), theirs._replace(average={})
    far = 0.0
    for ours, reference in zip(jax.tree.leaves(mine), jax.tree.leaves(theirs), strict=True):
        axes = tuple(range(1, reference.ndim))
        peak = np.maximum.accumulate(np.abs(reference).max(axes))
        far = max(far, float((np.abs(ours - reference).max(axes) / np.maximum(peak, 1e-300)).max()))
    return far
