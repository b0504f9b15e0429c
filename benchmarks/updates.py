"""What the scripts on updates share: ResNet-18's leaves, and the article's recipe in three libraries.

All hyperparameters are scheduled, the decay too. torch's are constants: what sets them there is
Python beside the step, and is not timed.
"""

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxsched import Recipe, optimizers, param_groups, schedules
from jaxsched.recipes import yolov5_resnet18

RULES = ("sgd", "adam", "adamw")
DECAY = 5e-4
EPOCHS, STEPS, WARMUP, LR0, LRF = 100, 30, 1000, 0.01, 0.2


def resnet18() -> dict[str, dict[str, tuple[int, ...]]]:
    """Shapes of the 62 leaves, in Flax's layout."""
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}

    def block(name: str, side: int, inputs: int, outputs: int) -> None:
        shapes[name] = {"kernel": (side, side, inputs, outputs)}
        shapes[f"{name}_norm"] = {"scale": (outputs,), "bias": (outputs,)}

    block("stem", 7, 3, 64)
    before = 64
    for stage, width in enumerate((64, 128, 256, 512)):
        for k in range(2):
            block(f"stage{stage}_{k}_a", 3, before, width)
            block(f"stage{stage}_{k}_b", 3, width, width)
            if before != width:
                block(f"stage{stage}_{k}_short", 1, before, width)
            before = width
    shapes["head"] = {"kernel": (512, 10), "bias": (10,)}
    return shapes


def leaves(seed: int) -> Any:
    """Random leaves of those shapes, as NumPy arrays."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: rng.normal(size=shape).astype(np.float32),
        resnet18(),
        is_leaf=lambda node: isinstance(node, tuple),
    )


def ours(rule: str) -> optax.GradientTransformation:
    """The recipe of jaxsched; Adam's b1 moves as SGD's momentum does."""
    groups = {
        label: {
            "learning_rate": group["learning_rate"],
            **(
                {"momentum": group["momentum"], "nesterov": True}
                if rule == "sgd"
                else {"b1": group["momentum"], "b2": 0.999}
            ),
            "weight_decay": schedules.constant(DECAY) if group["weight_decay"] else 0.0,
        }
        for label, group in yolov5_resnet18().groups.items()
    }
    recipe = Recipe(groups, getattr(optimizers, rule))
    return recipe.optimizer(param_groups.by_leaf_name)


def plain_optax(rule: str) -> optax.GradientTransformation:
    """The same as it is written without jaxsched, in float32."""

    def rate(start: float) -> Callable[[Any], Any]:
        def schedule(count: Any) -> Any:
            factor = (1 + jnp.cos(count // STEPS * math.pi / EPOCHS)) / 2 * (1 - LRF) + LRF
            rising = start + (LR0 * factor - start) * count / WARMUP
            return jnp.where(count <= WARMUP, rising, LR0 * factor)

        return schedule

    def momentum(count: Any) -> Any:
        return jnp.where(count <= WARMUP, 0.8 + (0.937 - 0.8) * count / WARMUP, 0.937)

    def decay(count: Any) -> Any:
        return jnp.full_like(count, DECAY, jnp.float32)

    def group(start: float, decays: bool) -> optax.GradientTransformation:
        rates = {"learning_rate": rate(start)}
        if rule == "adamw":
            wd = decay if decays else 0.0
            return optax.inject_hyperparams(optax.adamw)(
                **rates, b1=momentum, b2=0.999, weight_decay=wd
            )
        if rule == "adam":
            step = optax.inject_hyperparams(optax.adam)(**rates, b1=momentum, b2=0.999)
        else:
            step = optax.inject_hyperparams(optax.sgd, static_args="nesterov")(
                **rates, momentum=momentum, nesterov=True
            )
        if not decays:
            return step
        return optax.chain(
            optax.inject_hyperparams(optax.add_decayed_weights)(weight_decay=decay), step
        )

    return optax.multi_transform(
        {"weight": group(0.0, True), "bias": group(0.1, False), "norm": group(0.0, False)},
        param_groups.by_leaf_name,
    )


def compiled(tx: optax.GradientTransformation) -> tuple[jax.stages.Compiled, tuple[Any, ...]]:
    """The jitted update, which overwrites parameters and state as torch does; and its arguments."""
    gradients, params = (jax.tree.map(jnp.asarray, leaves(seed)) for seed in (1, 0))
    state = tx.init(params)

    def step(gradients: Any, params: Any, state: Any) -> Any:
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    arguments = (gradients, params, state)
    return jax.jit(step, donate_argnums=(1, 2)).lower(*arguments).compile(), arguments


def stepping(tx: optax.GradientTransformation) -> Callable[[], Any]:
    """A call that makes one update and keeps the state."""
    step, (gradients, *carry) = compiled(tx)

    def call() -> Any:
        carry[:] = step(gradients, *carry)
        return carry

    return call


def torch_stepping(rule: str, **kind: bool) -> Callable[[], Any]:
    """A call of torch's ``optimizer.step()`` over the same shapes, on JAX's kind of device."""
    import torch

    device = "cuda" if jax.default_backend() == "gpu" else "cpu"
    groups: dict[str, list[Any]] = {"kernel": [], "bias": [], "scale": []}
    gradients = jax.tree.leaves(leaves(1))
    for (path, leaf), gradient in zip(
        jax.tree_util.tree_leaves_with_path(leaves(0)), gradients, strict=True
    ):
        parameter = torch.tensor(leaf, device=device, requires_grad=True)
        parameter.grad = torch.tensor(gradient, device=device)
        groups[path[-1].key].append(parameter)
    optimizer_class = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}
    moment = {"momentum": 0.937, "nesterov": True} if rule == "sgd" else {"betas": (0.937, 0.999)}
    optimizer = optimizer_class[rule](
        [
            {"params": parameters, "weight_decay": DECAY if name == "kernel" else 0.0}
            for name, parameters in groups.items()
        ],
        lr=1e-4,
        **moment,
        **kind,
    )

    def call() -> None:
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()

    return call
