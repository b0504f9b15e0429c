"""The recipe of transformers' ``Trainer``, from its ``TrainingArguments``."""

import math
import os
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from jax.core import Tracer

from jaxsched import optimizers, schedules
from jaxsched._recipe import Recipe
from jaxsched._schedule import Schedule
from jaxsched._validate import (
    describe,
    is_number,
    is_real_array,
    require_below_int32,
    require_choice,
    require_count,
    require_nonnegative,
)
from jaxsched.recipes import _settings as settings
from jaxsched.recipes._transformers_rate import update_rate

DEFAULTS: Mapping[str, Any] = {
    "learning_rate": 5e-5,
    "lr_scheduler_type": "linear",
    "lr_scheduler_kwargs": None,
    "warmup_steps": 0,
    "warmup_ratio": None,
    "optim": "adamw_torch_fused",
    "optim_args": None,
    "weight_decay": 0.0,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "adam_epsilon": 1e-8,
    "max_grad_norm": 1.0,
    "gradient_accumulation_steps": 1,
    "max_steps": -1,
}
"""The keys that the recipe reads, with the defaults of transformers 5."""

OPTIONAL = ("warmup_steps", "warmup_ratio", "max_grad_norm", "max_steps")
"""Keys of numbers that may be None."""

UNSUPPORTED = {
    "adafactor": "an optimizer of transformers' own",
    "deepspeed": "an optimizer or a scheduler that its file may hold",
    "learning_rate_mapping": "a rate for each module",
    "optim_target_modules": "a rule for some modules",
}
"""Keys that would change the recipe and are refused, each with the feature it turns on."""

ALIASES = {
    "lr": "learning_rate",
    "wd": "weight_decay",
    "scheduler": "lr_scheduler_type",
    "lr_scheduler": "lr_scheduler_type",
    "warmup": "warmup_steps",
    "num_warmup_steps": "warmup_steps",
    "optimizer": "optim",
    "beta1": "adam_beta1",
    "beta2": "adam_beta2",
    "eps": "adam_epsilon",
    "epsilon": "adam_epsilon",
    "betas": "adam_beta1",
    "num_cycles": "lr_scheduler_kwargs",
    "min_lr": "lr_scheduler_kwargs",
    "clip_norm": "max_grad_norm",
    "clip_grad": "max_grad_norm",
    "gradient_clipping": "max_grad_norm",
    "max_norm": "max_grad_norm",
    "accumulation_steps": "gradient_accumulation_steps",
    "grad_accum_steps": "gradient_accumulation_steps",
}
"""``{another name: transformers' key}``."""

# The optimizers of torch, with the entries of optim_args that each reads. Both groups set their
# weight_decay, so that of optim_args has no effect; AdamW reads none of its entries.
OPTIMIZERS: Mapping[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "adamw_torch": (optimizers.adamw, ()),
    "adamw_torch_fused": (optimizers.adamw, ()),
    "sgd": (optimizers.sgd, ("momentum", "dampening", "nesterov")),
    "adagrad": (optimizers.adagrad, ("lr_decay", "eps")),
    "rmsprop": (optimizers.rmsprop, ("momentum", "alpha", "eps", "centered")),
}
SWITCHES = ("nesterov", "centered")
SUFFIXES = (".json", ".yaml", ".yml")


def transformers(
    arguments: Mapping[str, Any] | str | os.PathLike[str],
    *,
    num_training_steps: int,
    steps_per_epoch: int | None = None,
) -> Recipe:
    r"""``Trainer``'s run: two groups, a warm-up and a decay by update, clip and accumulation.

    With u the updates before iteration i:

    .. math:: \gamma_i = \mathrm{learning\_rate} \cdot f(u), \quad
              u = \lfloor i / n \rfloor \lceil n / k \rceil + \lfloor (i \bmod n) / k \rfloor

    k is ``gradient_accumulation_steps``, n ``steps_per_epoch``, and f the factor that
    ``lr_scheduler_type`` names, one of those in ``schedules``. If k is 1, u is i. The warm-up has
    ``warmup_steps`` updates; a value below 1 is a share of ``num_training_steps``, rounded up, and so
    is ``warmup_ratio``, which is read if ``warmup_steps`` is 0. ``"decay"`` decays by
    ``weight_decay``, ``"no_decay"`` does not. The norm of all gradients together is clipped to
    ``max_grad_norm``, unless that is 0 or None.

    **The loss that it expects** for each batch is ``loss / recipe.accumulation.batches(iteration)``,
    with ``loss`` the mean over the batch: gradients are summed over the batches of an update, and an
    epoch's last update may have fewer. If the ``Trainer`` counts items, such as the tokens of a
    language model, it is the sum over the batch's items, divided by the items in all batches of the
    update.

    Args:
      arguments: the ``TrainingArguments``: a JSON file, or their ``to_dict()`` or
        ``to_json_string()``. Missing keys have the defaults of transformers 5, keys that do not
        concern the recipe are ignored. Arguments of version 4 are read, ``warmup_ratio`` too, but the
        run is version 5's: in version 4 SGD, Adagrad and RMSprop have no ``optim_args``, and before
        about 4.46 an epoch's last batches make no update if there are fewer than k.
      num_training_steps: updates of the run, for the schedule.
      steps_per_epoch: batches in an epoch, ``len(trainer.get_train_dataloader())``. Required with
        accumulation; for data without a length it is ``num_training_steps`` · k.

    Returns:
      A recipe of the groups ``"decay"`` and ``"no_decay"``, in the ``Trainer``'s order; label the
      parameters with ``jaxsched.flax.by_decay``, which decides by module as transformers does, or
      with ``param_groups.by_decay``, which decides by name and dimension.

    Raises:
      ValueError: a number out of range, a key close to one that is read, a schedule that follows a
        metric, an optimizer that is not torch's, a setting that changes the recipe and is not
        supported, accumulation without ``steps_per_epoch``, ``num_training_steps`` other than
        ``max_steps``. Where it is the number of batches in ``num_train_epochs``, not of updates, a
        warning says so.

    Source: ``Trainer.create_optimizer_and_scheduler`` of transformers 5.24,
    https://github.com/huggingface/transformers/blob/v5.24.0/src/transformers/trainer.py

    >>> arguments = {"lr_scheduler_type": "cosine", "warmup_steps": 0.1, "weight_decay": 0.01}
    >>> recipe = transformers(arguments, num_training_steps=100)
    >>> [round(float(recipe.at(i)["decay"]["learning_rate"]), 8) for i in (0, 5, 10, 55)]
    [0.0, 2.5e-05, 5e-05, 2.5e-05]
    """
    values = _read(arguments)
    require_count("num_training_steps", num_training_steps, at_least=1)
    if steps_per_epoch is not None:
        require_count("steps_per_epoch", steps_per_epoch, at_least=1)
    args = {key: values.get(key, default) for key, default in DEFAULTS.items()}
    args = {key: getattr(value, "value", value) for key, value in args.items()}  # of an Enum
    _require_numbers(args)
    if (limit := args["max_steps"]) and limit > 0 and limit != num_training_steps:
        raise ValueError(
            f"num_training_steps must agree with max_steps of arguments, got {num_training_steps} "
            f"against {limit}. Both count updates."
        )
    rate = update_rate(args, num_training_steps)
    batches, accumulation = args["gradient_accumulation_steps"], None
    require_count("arguments['gradient_accumulation_steps']", batches, at_least=1)
    epochs: Any = values.get("num_train_epochs")
    if batches > 1 and steps_per_epoch and is_number(epochs) and not (limit and limit > 0):
        updates = math.ceil(epochs * -(-steps_per_epoch // batches))
        if num_training_steps == math.ceil(epochs * steps_per_epoch) != updates:
            warnings.warn(
                f"num_training_steps must count updates, {updates} in {epochs} epochs of "
                f"{steps_per_epoch} batches, {batches} an update, got {num_training_steps}, the number "
                "of batches. Set max_steps of arguments if these are updates.",
                stacklevel=2,
            )
    length = num_training_steps
    if batches > 1:
        if steps_per_epoch is None:
            raise ValueError(
                "steps_per_epoch must be given with gradient_accumulation_steps, got None with "
                f"{batches}. Pass the batches in an epoch, the last update of which may have fewer."
            )
        if isinstance(rate, Schedule):
            rate = schedules.per_update(rate, batches, steps_per_epoch)
        accumulation = optimizers.Accumulation(schedules.update_batches(batches, steps_per_epoch))
        epochs, rest = divmod(num_training_steps, -(-steps_per_epoch // batches))
        length = epochs * steps_per_epoch + rest * batches
    require_below_int32("iterations of the run", length)
    clip_norm = args["max_grad_norm"]
    if isinstance(clip_norm, Tracer):
        clip_norm = jnp.where(clip_norm > 0, clip_norm, jnp.inf)
    elif clip_norm is not None and clip_norm <= 0:
        clip_norm = None
    update_rule, group = _group(args)
    require_nonnegative(weight_decay=args["weight_decay"])
    return Recipe(
        {
            label: {"learning_rate": rate, "weight_decay": decay, **group}
            for label, decay in (("decay", args["weight_decay"]), ("no_decay", 0.0))
        },
        update_rule,
        clip_norm=clip_norm,
        accumulation=accumulation,
        length=length,
        origin=(
            transformers,
            {
                "arguments": args,
                "num_training_steps": num_training_steps,
                "steps_per_epoch": steps_per_epoch,
            },
        ),
    )


def _read(arguments: Any) -> dict[str, Any]:
    """Return the training arguments as a dictionary, and refuse keys that are not supported."""
    if not isinstance(arguments, Mapping | str | os.PathLike):
        raise TypeError(
            "arguments must be a mapping, JSON or the path of a JSON file, got "
            f"{type(arguments).__name__}. Pass arguments.to_dict()."
        )
    if isinstance(arguments, str) and arguments.lstrip().startswith("{"):
        arguments = settings.parse_json("arguments", arguments)
    elif not isinstance(arguments, Mapping) and not str(arguments).endswith(SUFFIXES):
        raise ValueError(
            f"arguments must be a mapping, JSON or the path of a JSON file, got {describe(arguments)}. "
            "Write training_args.to_json_string() to a file that ends in .json."
        )
    values = settings.read("arguments", arguments)
    for key, what in UNSUPPORTED.items():
        if values.get(key):
            raise ValueError(
                f"arguments[{key!r}] must be absent, got {describe(values[key])}: {what} is not "
                "supported. Build that recipe by hand, or convert it with from_torch."
            )
    accelerator = values.get("accelerator_config")
    plugin = isinstance(accelerator, Mapping) and accelerator.get("gradient_accumulation_kwargs")
    if isinstance(plugin, Mapping) and plugin.get("num_steps"):
        raise ValueError(
            "num_steps of gradient_accumulation_kwargs must be absent, got "
            f"{describe(plugin['num_steps'])}. Pass it as gradient_accumulation_steps."
        )
    # "eval_accumulation_steps" is a setting of the evaluation, not a typo.
    keys = [*DEFAULTS, "num_train_epochs", "eval_accumulation_steps"]
    settings.refuse_typos("arguments", values, keys, ALIASES)
    return values


def _require_numbers(args: Mapping[str, Any]) -> None:
    """Refuse values of numeric keys that are not numbers."""
    for key, value in args.items():
        is_optional = key in OPTIONAL
        if not is_optional and not is_number(DEFAULTS[key]):
            continue
        if not (is_number(value) or is_real_array(value) or (value is None and is_optional)):
            rule = "a number or None" if is_optional else "a number"
            raise TypeError(f"arguments[{key!r}] must be {rule}, got {describe(value)}.")


def _group(args: Mapping[str, Any]) -> tuple[Callable[..., Any], dict[str, Any]]:
    """Return the update rule that ``optim`` names, and its arguments in both groups."""
    require_choice("arguments['optim']", args["optim"], OPTIMIZERS)
    update_rule, names = OPTIMIZERS[args["optim"]]
    options: dict[str, str] = {}
    for word in str(args["optim_args"] or "").replace(" ", "").split(","):
        key, equals, value = word.partition("=")
        if word and not (key and equals and "=" not in value):
            raise ValueError(
                f"arguments['optim_args'] must be key=value,key=value, got {describe(word)}."
            )
        options[key] = value
    if update_rule is optimizers.adamw:
        beta1, beta2, eps = (args[key] for key in ("adam_beta1", "adam_beta2", "adam_epsilon"))
        return update_rule, {"b1": beta1, "b2": beta2, "eps": eps}
    group: dict[str, Any] = {}
    for name in names:
        if name in SWITCHES and name in options:
            group[name] = options[name].lower() in ("true", "1", "yes")
        elif name in options:
            try:
                group[name] = float(options[name])
            except ValueError as error:
                value = describe(options[name])
                raise ValueError(f"{name} of optim_args must be a number, got {value}.") from error
    return update_rule, group
