"""The recipe of timm's ``train.py``, from its ``args.yaml``."""

import inspect
import math
import os
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxsched import optimizers, schedules
from jaxsched._recipe import Recipe
from jaxsched._schedule import Schedule
from jaxsched._validate import (
    describe,
    is_number,
    is_zero,
    require,
    require_bool,
    require_choice,
    require_count,
    require_nonnegative,
    require_positive,
    require_run,
)
from jaxsched.recipes import _settings as settings
from jaxsched.schedules._timm_decays import require_milestones

DEFAULTS: Mapping[str, Any] = {
    "opt": "sgd",
    "lr": None,
    "weight_decay": 2e-5,
    "momentum": 0.9,
    "opt_eps": None,
    "opt_betas": None,
    "opt_kwargs": {},
    "layer_decay": None,
    "layer_decay_min_scale": 0.0,
    "clip_grad": None,
    "clip_mode": "norm",
    "grad_accum_steps": 1,
    "sched": "cosine",
    "sched_on_updates": False,
    "epochs": 100,
    "start_epoch": None,
    "stop_epoch": None,
    "decay_epochs": 30,
    "decay_milestones": (30, 60),
    "decay_rate": 0.1,
    "warmup_epochs": 5,
    "warmup_lr": 1e-5,
    "warmup_prefix": False,
    "cooldown_epochs": 0,
    "min_lr": 0.0,
    "lr_cycle_mul": 1.0,
    "lr_cycle_decay": 0.1,
    "lr_cycle_limit": 1,
    "lr_k_decay": 1.0,
    "lr_decay_fn": None,
    "lr_stable_timescale": None,
    "model_ema": False,
    "model_ema_decay": 0.9998,
    "model_ema_warmup": False,
}
"""The keys that the recipe reads. Defaults are those of timm's ``scheduler_kwargs`` and
``optimizer_kwargs``; for keys without one there, and of the loop, those of the parser of ``train.py``."""

IGNORED = (
    "lr_base",
    "lr_base_size",
    "lr_base_scale",
    "lr_noise_pct",
    "lr_noise_std",
    "opt_foreach",
)
"""Keys similar to others that do not affect the recipe."""

UNSUPPORTED = {
    "lr_noise": "noise on the rate",
    "layer_decay_no_opt_scale": "a scale below which layers are frozen",
    "opt_args": "an older form of opt_kwargs",
}
"""Keys that would change the recipe and are refused, each with the feature it turns on."""

ALIASES = {
    "learning_rate": "lr",
    "lr0": "lr",
    "wd": "weight_decay",
    "optimizer": "opt",
    "scheduler": "sched",
    "accum_steps": "grad_accum_steps",
    "gradient_accumulation_steps": "grad_accum_steps",
    "clip_norm": "clip_grad",
    "grad_clip": "clip_grad",
    "ema_decay": "model_ema_decay",
    "betas": "opt_betas",
    "eps": "opt_eps",
    "nesterov": "opt_kwargs",
    "amsgrad": "opt_kwargs",
    "num_epochs": "epochs",
    "noise": "lr_noise",
}
"""``{another name: timm's key}``."""


class Optimizer(NamedTuple):
    """An optimizer that timm's factory builds from a class of torch."""

    rule: Callable[..., Any]
    defaults: Mapping[str, Any] = {}
    has_momentum: bool = False
    has_eps: bool = True
    has_betas: bool = False


SGD = Optimizer(optimizers.sgd, {"nesterov": True}, has_momentum=True, has_eps=False)
RADAM = Optimizer(optimizers.radam, has_betas=True)
OPTIMIZERS: Mapping[str, Optimizer] = {
    "sgd": SGD,
    "nesterov": SGD,
    "momentum": SGD._replace(defaults={"nesterov": False}),
    "adam": Optimizer(optimizers.adam, has_betas=True),
    "adamw": Optimizer(optimizers.adamw, has_betas=True),
    "nadam": Optimizer(optimizers.nadam, has_betas=True),
    "radam": RADAM,
    "radamw": RADAM._replace(defaults={"decoupled_weight_decay": True}),
    "adamax": Optimizer(optimizers.adamax, has_betas=True),
    "adadelta": Optimizer(optimizers.adadelta),
    "adagrad": Optimizer(optimizers.adagrad, {"eps": 1e-8}),
    "rmsprop": Optimizer(optimizers.rmsprop, {"alpha": 0.9}, has_momentum=True),
}
"""The names of timm's registry whose class is torch's, with timm's arguments."""

NO_EFFECT = ("foreach", "fused", "capturable", "differentiable")  # do not change what is computed
CYCLIC = ("cosine", "tanh", "poly")
WSD = {"wsd": ("constant", "1-sqrt"), "rsqrt": ("rsqrt", "linear")}  # stable_fn, decay_fn
SCHEDULES = (*CYCLIC, "step", "multistep", "constant", *WSD, "none")


def timm(
    args: Mapping[str, Any] | str | os.PathLike[str],
    *,
    steps_per_epoch: int,
    layers: int | None = None,
) -> Recipe:
    r"""Timm's run: two groups or two a layer, a schedule by epoch or update, clip and average.

    With n ``steps_per_epoch``, k ``grad_accum_steps`` and u the updates before iteration i:

    .. math::
        \gamma_i &= \rho_l\, s(i // n) \text{ or, with } \mathrm{sched\_on\_updates}, \rho_l\, s(u) \\
        u &= \lfloor i / n \rfloor \lceil n / k \rceil + \lfloor (i \bmod n) / k \rfloor

    s is the schedule that ``sched`` names, one of ``schedules.timm_…``; as in timm it starts from
    ``warmup_lr`` or, without a warm-up, ``lr``. ρ is 1 or, in layer l of L with ``layer_decay``,
    max(layer_decay^(L - 1 - l), layer_decay_min_scale). The groups ``no_decay`` do not decay.
    Gradients are clipped by ``clip_grad``: their norm together, or each entry. The average of
    ``model_ema`` is ``optimizers.EMA(power=2 / 3)`` with ``model_ema_warmup``, else
    ``EMA(power=math.inf)``.

    **The loss that it expects** for each batch is the batch's mean divided by
    ``recipe.accumulation.batches(iteration)``: with accumulation, gradients are summed, and an
    epoch's last update may have fewer batches.

    Args:
      args: timm's arguments, ``args.yaml`` or a mapping. Missing keys have the defaults of timm's
        ``scheduler_kwargs`` and ``optimizer_kwargs``, which sometimes differ from the command line's
        (``epochs`` is 100, not 300); keys of model, data and augmentation are ignored. ``lr`` is
        required: the file has null if ``train.py`` computes it from the global batch.
      steps_per_epoch: batches in an epoch, ``len(loader_train)``.
      layers: the number of layers, with ``layer_decay`` only;
        ``param_groups.by_layer(…).count(params)`` returns it.

    Returns:
      A recipe of the groups ``"decay"`` and ``"no_decay"``; label the parameters with
      ``param_groups.by_dimension(no_weight_decay=names)``, with the names that
      ``model.no_weight_decay()`` returns. With ``layer_decay``, a recipe of ``"layer_0_decay"``,
      ``"layer_0_no_decay"`` and so on; label the parameters with ``param_groups.by_layer``.

    Raises:
      ValueError: a number out of range, a key close to one that is read, an optimizer whose class is
        not torch's, a schedule that follows a metric, noise, adaptive clipping, a missing ``lr``.

    Source: ``create_optimizer_v2`` and ``create_scheduler_v2`` of timm 1.0.31, and its loop,
    https://github.com/huggingface/pytorch-image-models/blob/v1.0.31/train.py

    >>> recipe = timm({"lr": 0.5, "epochs": 10, "opt": "adamw"}, steps_per_epoch=100)
    >>> [round(float(recipe.at(i)["decay"]["learning_rate"]), 6) for i in (0, 100, 500, 999)]
    [1e-05, 0.100008, 0.25, 0.012236]
    """
    args = _read(args)
    require_count("steps_per_epoch", steps_per_epoch, at_least=1)
    k = max(args["grad_accum_steps"], 1)
    updates = -(-steps_per_epoch // k)  # of an epoch
    schedule, epochs = _schedule(args, updates)
    start = args["start_epoch"] or 0
    if args["stop_epoch"] is not None:
        rule = f"from 1 to the {epochs} epochs of the schedule"
        require("args['stop_epoch']", args["stop_epoch"], rule, lambda v: 1 <= v <= epochs)
        epochs = args["stop_epoch"]
    require_run(epochs=epochs, steps_per_epoch=steps_per_epoch, start_epoch=start)
    rate = schedule
    if isinstance(schedule, Schedule):
        if not args["sched_on_updates"]:
            rate = schedules.per_epoch(schedule, steps_per_epoch)
        elif k > 1:
            rate = schedules.per_update(schedule, k, steps_per_epoch)
    accumulation = ema = None
    if k > 1:
        accumulation = optimizers.Accumulation(schedules.update_batches(k, steps_per_epoch))
    if args["model_ema"]:
        power = 2 / 3 if args["model_ema_warmup"] else math.inf
        ema = optimizers.EMA(args["model_ema_decay"], updates=start * updates, power=power)
    rule, group = _optimizer(args)
    return Recipe(
        {
            f"{prefix}{label}": {
                "learning_rate": (
                    rate if is_number(scale) and scale == 1 else schedules.scaled(rate, scale)
                ),
                "weight_decay": decay,
                **group,
            }
            for prefix, scale in _scales(args, layers).items()
            for label, decay in (("decay", args["weight_decay"]), ("no_decay", 0.0))
        },
        rule,
        **{f"clip_{args['clip_mode']}": args["clip_grad"]},
        accumulation=accumulation,
        ema=ema,
        start=start * steps_per_epoch,
        length=epochs * steps_per_epoch,
        origin=(timm, {"args": args, "steps_per_epoch": steps_per_epoch, "layers": layers}),
    )


def _read(args: Any) -> dict[str, Any]:
    """Return the arguments that the recipe reads, and refuse those that are not supported."""
    if args is None:
        raise TypeError("args must be a mapping or the path of a YAML file, got None.")
    values = settings.read("args", args)
    for key, what in UNSUPPORTED.items():
        # Noise of 0 is noise from the first step on.
        if values.get(key) or (key == "lr_noise" and values.get(key) is not None):
            raise ValueError(
                f"args[{key!r}] must be null, got {describe(values[key])}: {what} is not supported. "
                "Record the run with jaxsched.torch.record."
            )
    settings.refuse_typos("args", values, (*DEFAULTS, *UNSUPPORTED, *IGNORED), ALIASES)
    args = {key: values.get(key, default) for key, default in DEFAULTS.items()}
    if args["lr"] is None or is_zero(args["lr"]):
        raise ValueError(
            f"args['lr'] must be a number above 0, got {describe(args['lr'])}: train.py computes it then, "
            "as lr_base times the ratio of the global batch to lr_base_size, or its root. Set it."
        )
    numbers = ("lr", "weight_decay", "momentum", "warmup_lr", "min_lr", "model_ema_decay")
    require_nonnegative(**{f"args[{key!r}]": args[key] for key in numbers})
    switches = ("sched_on_updates", "warmup_prefix", "model_ema", "model_ema_warmup")
    require_bool(**{f"args[{key!r}]": args[key] for key in switches})
    for key in ("epochs", "warmup_epochs", "cooldown_epochs", "grad_accum_steps"):
        require_count(f"args[{key!r}]", args[key], at_least=int(key == "epochs"))
    if args["start_epoch"] is not None:
        require_count("args['start_epoch']", args["start_epoch"])
    if args["clip_grad"] is None:
        args["clip_mode"] = "norm"
    elif args["clip_mode"] == "agc":
        raise ValueError(
            "args['clip_mode'] must be norm or value, got 'agc': adaptive clipping is not supported. "
            "Set clip_grad to null, and put a transformation of your own before the optimizer."
        )
    require_choice("args['clip_mode']", args["clip_mode"], ("norm", "value"))
    return args


def _optimizer(args: Mapping[str, Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Return the update rule that ``opt`` names, and its arguments in every group."""
    name = args["opt"].lower() if isinstance(args["opt"], str) else args["opt"]
    require_choice("args['opt']", name, OPTIMIZERS)
    optimizer, options = OPTIMIZERS[name], args["opt_kwargs"] or {}
    if not isinstance(options, Mapping):
        raise TypeError(f"args['opt_kwargs'] must be a mapping, got {describe(options)}.")
    group = dict(optimizer.defaults)
    if optimizer.has_momentum:
        group["momentum"] = args["momentum"]
    if optimizer.has_eps and args["opt_eps"] is not None:
        group["eps"] = args["opt_eps"]
    betas = args["opt_betas"]
    allowed = set(inspect.signature(optimizer.rule).parameters) - {"learning_rate", "weight_decay"}
    allowed -= {"momentum", "b1", "b2"} | ({"eps"} if args["opt_eps"] is not None else set())
    if betas is None and optimizer.has_betas:
        betas, allowed = options.get("betas"), {*allowed, "betas"}
    if unknown := sorted(set(map(str, options)) - allowed - {*NO_EFFECT}):
        raise ValueError(
            f"args['opt_kwargs'] of {name} must be among {', '.join(sorted(allowed))}, got "
            f"{', '.join(unknown)}."
        )
    if betas is not None and optimizer.has_betas:
        pair = list(betas) if isinstance(betas, list | tuple) else [betas]
        require("args['opt_betas']", pair, "two numbers", lambda values: len(values) == 2)
        group["b1"], group["b2"] = pair
    group |= {key: value for key, value in options.items() if key in allowed - {"betas"}}
    return optimizer.rule, group


def _scales(args: Mapping[str, Any], layers: int | None) -> dict[str, Any]:
    """Return the factor of the rate in each layer, by the beginning of its label."""
    decay = args["layer_decay"]
    if decay is None:
        if layers is not None:
            raise ValueError(
                f"layers must be None without layer_decay, got {describe(layers)}. Set "
                "args['layer_decay']."
            )
        return {"": 1.0}
    require_positive("args['layer_decay']", decay)
    least = 0.0 if args["layer_decay_min_scale"] is None else args["layer_decay_min_scale"]
    require_nonnegative(**{"args['layer_decay_min_scale']": least})
    if layers is None:
        raise ValueError(
            f"layers must be given with layer_decay, got None with {decay}. Pass "
            "param_groups.by_layer(layer_of, decay).count(params)."
        )
    require_count("layers", layers, at_least=1)
    is_array = isinstance(decay, jax.Array) or isinstance(least, jax.Array)
    larger: Callable[..., Any] = jnp.maximum if is_array else max
    scales = {f"layer_{k}_": larger(least, decay ** (layers - 1 - k)) for k in range(layers)}
    # Without a scheduler timm does not apply the factors.
    return dict.fromkeys(scales, 1.0) if args["sched"] == "none" else scales


def _schedule(args: Mapping[str, Any], updates: int) -> tuple[Any, int]:
    """Return the rate by epoch, or by update (``updates`` an epoch), and the number of epochs."""
    sched, lr = args["sched"], args["lr"]
    if sched == "plateau":
        raise ValueError(
            "args['sched'] must name a function of the step, got 'plateau', which follows a metric. "
            "See lr_scheduler.reduce_lr_on_plateau."
        )
    require_choice("args['sched']", sched, SCHEDULES)
    unit = updates if args["sched_on_updates"] else 1
    length, cooldown = args["epochs"] * unit, args["cooldown_epochs"] * unit
    warmup: dict[str, Any] = {
        "warmup_t": args["warmup_epochs"] * unit,
        "warmup_lr_init": args["warmup_lr"],
        "warmup_prefix": args["warmup_prefix"],
    }
    prefix = warmup["warmup_t"] if args["warmup_prefix"] else 0
    if sched in CYCLIC:
        cycles = {name: args[f"lr_{name}"] for name in ("cycle_mul", "cycle_decay", "cycle_limit")}
        options = {"lr_min": args["min_lr"], **cycles, **warmup}
        if sched != "tanh":
            options["k_decay"] = args["lr_k_decay"]
        if sched == "poly":
            options["power"] = args["decay_rate"]
        schedule = getattr(schedules, f"timm_{sched}")(lr, length, **options)
        limit, mul = max(cycles["cycle_limit"], 1), cycles["cycle_mul"]
        whole = length * limit if mul == 1 else math.floor(-length * (mul**limit - 1) / (1 - mul))
        return schedule, (whole + prefix + cooldown) // unit
    if sched in WSD:
        stable_fn, decay_fn = WSD[sched]
        timescale = args["lr_stable_timescale"]
        stable = length if args["warmup_prefix"] else length - warmup["warmup_t"]
        decay_t = _decay_epochs(args, 0.2)
        decay_t = round(decay_t * (stable if decay_t < 1 else unit))
        if not 0 < decay_t <= stable:
            counts = "updates" if args["sched_on_updates"] else "epochs"
            raise ValueError(
                f"args['decay_epochs'] must give a decay of 1 to {stable} {counts}, which the warm-up "
                f"leaves, got {describe(args['decay_epochs'])}, which gives {decay_t}. Change it or "
                "warmup_epochs."
            )
        schedule = schedules.timm_wsd(
            lr,
            stable,
            decay_t,
            args["min_lr"],
            stable_fn=stable_fn,
            stable_timescale=None if timescale is None else timescale * unit,
            decay_fn=args["lr_decay_fn"] or decay_fn,
            warmup_t=warmup["warmup_t"],
            warmup_lr_init=args["warmup_lr"],
        )
        return schedule, (warmup["warmup_t"] + stable + cooldown) // unit
    epochs = args["epochs"] + prefix // unit
    if sched == "step":
        return schedules.timm_step(
            lr, _decay_epochs(args, 90) * unit, args["decay_rate"], **warmup
        ), epochs
    if sched == "multistep":
        milestones = args["decay_milestones"]
        if not isinstance(milestones, list | tuple):
            raise TypeError(
                f"args['decay_milestones'] must be a list of epochs, got {describe(milestones)}."
            )
        require_milestones("args['decay_milestones']", milestones)
        drops = [epoch * unit for epoch in milestones]
        return schedules.timm_multistep(lr, drops, args["decay_rate"], **warmup), epochs
    return (lr if sched == "none" else schedules.timm_step(lr, 1, 1.0, **warmup)), epochs


def _decay_epochs(args: Mapping[str, Any], default: float) -> Any:
    """Return ``decay_epochs``, or timm's default for null."""
    value = default if args["decay_epochs"] is None else args["decay_epochs"]
    require_positive("args['decay_epochs']", value)
    return value
