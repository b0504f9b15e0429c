"""Helpers of the scripts on updates: two models' leaves, and the article's recipe in three libraries.

All hyperparameters are scheduled, including the decay. torch's are constants: the Python that sets
them there runs outside the step, and is not timed. On a GPU a call makes many updates, in one program
by JAX and between two of CUDA's events by torch.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from benchmarks.timing import Elapsed, best, interleave, make_copy, ratio, repeat, times_in_a_call
from jaxsched import Recipe, optimizers, param_groups, schedules
from jaxsched.recipes import yolov5_resnet18

RULES = ("sgd", "adam", "adamw")
ARRAYS_MOVED = {"sgd": 5, "adam": 7, "adamw": 7}
"""Arrays of the model's size that an update reads (gradients, parameters, state) and writes."""
GPU_BOUNDS = {"plain Optax": 1.0, "torch fused": 1.0, "a copy of as many bytes": 1.25}
"""Most time of jaxsched on a GPU relative to each; the last is 80 % of the memory bandwidth."""
DECAY = 5e-4
EPOCHS, STEPS, WARMUP, LR0, LRF = 100, 30, 1000, 0.01, 0.2


def resnet18() -> dict[str, dict[str, tuple[int, ...]]]:
    """Return the shapes of the 62 leaves, in Flax's layout."""
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


def layers() -> dict[str, dict[str, tuple[int, ...]]]:
    """Return the shapes of 1,000 leaves: 333 dense layers with a norm, and a head; narrower on a CPU."""
    side = 512 if jax.default_backend() == "gpu" else 128
    layer = {"kernel": (side, side), "bias": (side,), "scale": (side,)}
    return {f"layer{k}": layer for k in range(333)} | {"head": {"kernel": (side, 10)}}


MODELS = {"62 leaves": resnet18, "1,000 leaves": layers}


def leaves(seed: int, shapes: Any = None) -> Any:
    """Return random leaves of these shapes, ResNet-18's unless given, as NumPy arrays."""
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda shape: rng.standard_normal(shape, np.float32),
        resnet18() if shapes is None else shapes,
        is_leaf=lambda node: isinstance(node, tuple),
    )


def ours(rule: str) -> optax.GradientTransformation:
    """Return the optimizer of jaxsched; Adam's b1 varies as SGD's momentum does."""
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
    """Return the same as written without jaxsched, in float32."""

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


def compile_update(
    tx: optax.GradientTransformation, shapes: Any = None, times: int = 1
) -> tuple[jax.stages.Compiled, tuple[Any, ...]]:
    """Compile the update, which overwrites parameters and state as torch does; return its arguments too.

    It makes ``times`` updates on the same gradients.
    """
    gradients, params = (jax.tree.map(jnp.asarray, leaves(seed, shapes)) for seed in (1, 0))
    state = tx.init(params)

    def step(gradients: Any, params: Any, state: Any) -> Any:
        def update(carry: Any) -> Any:
            params, state = carry
            g = gradients
            if times > 1:  # else XLA takes the gradients' squares out of the loop
                g, params = jax.lax.optimization_barrier((g, params))
            updates, state = tx.update(g, state, params)
            return optax.apply_updates(params, updates), state

        return repeat(update, times)((params, state))

    arguments = (gradients, params, state)
    return jax.jit(step, donate_argnums=(1, 2)).lower(*arguments).compile(), arguments


def make_step(
    tx: optax.GradientTransformation, shapes: Any = None, times: int = 1
) -> Callable[[], Any]:
    """Return a call that makes ``times`` updates and keeps the state."""
    step, (gradients, *carry) = compile_update(tx, shapes, times)

    def call() -> Any:
        carry[:] = step(gradients, *carry)
        return carry

    return call


def make_torch_step(
    rule: str, shapes: Any = None, times: int = 1, **kind: bool
) -> Callable[[], Any]:
    """Return a call of torch's ``optimizer.step()``, ``times`` times, on JAX's kind of device."""
    import torch

    on_gpu = jax.default_backend() == "gpu"
    device = "cuda" if on_gpu else "cpu"
    groups: dict[str, list[Any]] = {"kernel": [], "bias": [], "scale": []}
    gradients = jax.tree.leaves(leaves(1, shapes))
    for (path, leaf), gradient in zip(
        jax.tree_util.tree_leaves_with_path(leaves(0, shapes)), gradients, strict=True
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

    def steps() -> None:
        for _ in range(times):
            optimizer.step()

    def timed_steps() -> Elapsed:
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        steps()
        end.record()
        end.synchronize()
        return Elapsed(begin.elapsed_time(end) / 1e3)

    return timed_steps if on_gpu else steps


def side_by_side(
    rule: str, model: str, rounds: int, cpu_bounds: Mapping[str, float]
) -> tuple[dict[str, list[float]], dict[str, tuple[float, float | None]]]:
    """Return the seconds of a call of each library and of a copy, and the claims on them.

    Args:
      rule: one of ``RULES``.
      model: one of ``MODELS``.
      rounds: passed to ``interleave``.
      cpu_bounds: ``{another library: the largest share of its time that jaxsched may take on a CPU}``.
        On a GPU ``GPU_BOUNDS`` are claimed.
    """
    shapes, times = MODELS[model](), times_in_a_call()
    copy, copied = make_copy(times)
    what = f"{rule}, {model}"
    mine, optaxs, foreach, fused, copies = names = [
        f"{what}, {who}"
        for who in ("jaxsched", "plain Optax", "torch foreach", "torch fused", "a copy")
    ]
    calls = (
        make_step(ours(rule), shapes, times),
        make_step(plain_optax(rule), shapes, times),
        make_torch_step(rule, shapes, times, foreach=True),
        make_torch_step(rule, shapes, times, fused=True),
        copy,
    )
    seconds = interleave(dict(zip(names, calls, strict=True)), rounds)
    moved = ARRAYS_MOVED[rule] * sum(leaf.nbytes for leaf in jax.tree.leaves(leaves(0, shapes)))
    of_copy = ratio(seconds, mine, copies) * copied / (moved * times)
    figures = {
        "plain Optax": ratio(seconds, mine, optaxs),
        "plain Optax, shortest runs": best(seconds, mine, optaxs),
        "torch foreach": best(seconds, mine, foreach),
        "torch fused": best(seconds, mine, fused),
        "a copy of as many bytes": of_copy,
    }
    bounds = GPU_BOUNDS if jax.default_backend() == "gpu" else cpu_bounds
    claims = {f"{what} / {who}": (value, bounds.get(who)) for who, value in figures.items()}
    return seconds, {**claims, f"{what}: share of the memory bandwidth": (1 / of_copy, None)}
