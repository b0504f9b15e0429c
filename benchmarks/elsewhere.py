"""Claim: compiled for an H100 and a TPU without either, an update moves no more memory than necessary.

It reads gradients, parameters and state, and writes the last two: five arrays of the model's size
for SGD, seven for Adam, counted as the bytes that the kernels read and write. The hyperparameters
that the TPU's program computes equal torch's at every iteration: its scalars are run in NumPy,
instruction by instruction. On four TPUs an update gathers nothing.

XLA compiles for both devices without them, given

    pip install -e '.[test]' 'jax[tpu]' jax-cuda12-plugin jax-cuda12-pjrt nvidia-cuda-nvcc-cu12
"""

import math
import re
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec, SingleDeviceSharding
from jaxlib._hlo import HloPrintOptions

from benchmarks import conformance, scalar_program, updates
from benchmarks.compiled_update import figures
from benchmarks.timing import report
from jaxsched import Trace, recipes
from jaxsched._float64 import plain_float64
from jaxsched.examples import train_linen
from jaxsched.examples.digits import Digits
from jaxsched.parity import ulps

# XLA's description of an H100 (SXM): the figures of its data sheet, and the CUDA to compile for.
H100 = """
gpu_device_info {
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: 3352320000000
  l2_cache_size: 52428800
  clock_rate_ghz: 1.98
  device_memory_size: 84929347584
  shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 }
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 7 }
runtime_version { major: 12 minor: 8 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
DEVICES: dict[str, dict[str, Any]] = {
    "H100": {"platform": "cuda", "target_config": H100, "topology": "1x1x1"},
    "TPU v5e": {"platform": "tpu", "topology_name": "v5e:2x2"},
}


def sharding(device: str) -> SingleDeviceSharding:
    """Return the sharding on one device of a kind."""
    try:
        return SingleDeviceSharding(topologies.get_topology_desc(**DEVICES[device]).devices[0])
    except Exception as error:
        sys.exit(f"XLA must compile for {device}: {error}. Install what {__file__} names.")


def compile_for(function: Callable[..., Any], place: Any, *arguments: Any, **kwargs: Any) -> Any:
    """Compile ``function`` for arguments of these shapes with the sharding ``place``."""
    shapes = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(np.shape(x), jnp.result_type(x), sharding=place), arguments
    )
    return jax.jit(function, keep_unused=True, **kwargs).lower(*shapes).compile()


def update(tx: optax.GradientTransformation, place: Any, times: int = 1) -> Any:
    """Compile the update of ``sgd_update``, with leaves ``times`` as wide."""
    params = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct((*x.shape[:-1], x.shape[-1] * times), x.dtype),
        updates.leaves(0),
    )

    def step(gradients: Any, params: Any, state: Any) -> Any:
        updates, state = tx.update(gradients, state, params)
        return optax.apply_updates(params, updates), state

    state = jax.eval_shape(tx.init, params)
    return compile_for(step, place, params, params, state, donate_argnums=(1, 2))


def text(executable: Any) -> str:
    """Return the text of a compiled program, with its large constants."""
    options = HloPrintOptions()
    options.print_large_constants = True
    (module,) = executable.runtime_executable().hlo_modules()
    return module.to_string(options)


def bytes_moved(text: str) -> int:
    """Return the bytes of float32 that the kernels of a program read and write."""
    entry = text[text.index("\nENTRY") :]
    line = re.compile(r"\s*(?:ROOT )?(%\S+) = (\(.*?\)|\S+) ([\w-]+)\((.*?)\)(?:, |$)")
    instructions = [match.groups() for match in map(line.match, entry.splitlines()) if match]
    shapes = {name: shape for name, shape, _, _ in instructions}

    def size(shape: str) -> int:
        arrays = re.findall(r"f32\[([\d,]*)\]", shape)
        return 4 * sum(math.prod(map(int, dims.split(","))) for dims in arrays if dims)

    return sum(
        size(shape) + sum(size(shapes[name]) for name in scalar_program.names(operands))
        for _, shape, opcode, operands in instructions
        if opcode == "fusion"
    )


def evaluate_on_tpu(
    function: Callable[[Any], Any], place: Any, counts: np.ndarray, seed: int | None = None
) -> list[np.ndarray]:
    """Return the scalars that ``function`` of a count computes on a TPU, leaf by leaf."""
    program, returned = scalar_program.parse(text(compile_for(function, place, np.int32(0))))
    rng = None if seed is None else np.random.default_rng(seed)
    values: dict[str, np.ndarray] = {}
    return [
        np.broadcast_to(
            scalar_program.run(program, name, {0: counts.astype(np.int32)}, values, rng),
            counts.shape,
        )
        for name in returned
    ]


def count_differences(found: np.ndarray, torchs: np.ndarray) -> int:
    """Count the values that differ from torch's in float32."""
    return int((ulps(found, torchs) != 0).sum())


def count_recipe_differences(
    at: Callable[[Any], Any], reference: Trace, place: Any, seed: int | None = None
) -> tuple[int, int]:
    """Count the hyperparameters of a recorded run that differ, and all of them."""
    counts = reference.start + np.arange(len(reference))
    structure = jax.tree.structure(jax.eval_shape(at, 0))
    rates = jax.tree.unflatten(structure, evaluate_on_tpu(at, place, counts, seed))
    pairs = [
        (rates[label][name], values)
        for label, group in reference.groups.items()
        for name, values in group.items()
    ]
    return sum(count_differences(*pair) for pair in pairs), sum(values.size for _, values in pairs)


def collectives(mesh: Mesh, sharded: bool) -> tuple[list[str], list[str]]:
    """List the collectives of ResNet-18's training step on a mesh, and of its update alone."""

    def abstract_tree(tree: Any, split: bool) -> Any:
        def leaf(x: Any) -> jax.ShapeDtypeStruct:
            long = [axis for axis, size in enumerate(x.shape) if size and size % mesh.size == 0]
            spec = [None] * x.ndim
            if split and long:
                spec[max(long, key=lambda axis: x.shape[axis])] = mesh.axis_names[0]
            place = NamedSharding(mesh, PartitionSpec(*spec))
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place)

        return jax.tree.map(leaf, tree)

    images = jax.ShapeDtypeStruct((40, 32, 32, 3), jnp.float32)
    recipe = recipes.yolov5_resnet18()
    state = abstract_tree(
        jax.eval_shape(lambda: train_linen.create(recipe, jnp.zeros(images.shape))), sharded
    )
    labels = jax.ShapeDtypeStruct(images.shape[:1], jnp.int32)
    step = train_linen.step.lower(state, abstract_tree(Digits(images, labels), True))
    update = jax.jit(state.tx.update).lower(state.params, state.opt_state, state.params)
    names = [
        re.findall(r" (all-\w+|reduce-scatter|collective-permute)(?:-start)?\(", text)
        for text in (lowered.compile().as_text() for lowered in (step, update))
    ]
    return names[0], names[1]


def schedulers(place: Any, settings: int) -> dict[str, list[dict[str, Any]]]:
    """Return tallies of torch's classes in closed form against live torch."""
    tallies_by_name = {}
    for name, case in conformance.schedulers.CASES.items():
        if not case.closed:
            continue
        tallies = []
        for setting in conformance.sample_settings(name, settings):
            torchs, _ = conformance.schedulers.run_torch(
                lambda o, s=setting, c=case: c.torch(o, s),
                setting.arguments["base_lr"],
                setting.steps,
            )
            try:
                (rates,) = evaluate_on_tpu(
                    case.closed_form(setting), place, np.arange(setting.steps + 1)
                )
            except NotImplementedError as error:
                print(f"{name} is left out: its program has {error}")
                break
            tallies.append(conformance.tally(rates, torchs))
        else:
            tallies_by_name[name] = tallies
    return tallies_by_name


if __name__ == "__main__":
    jax.config.update("jax_platforms", "cpu")
    model = sum(leaf.nbytes for leaf in jax.tree.leaves(updates.leaves(0)))
    claims: dict[str, tuple[float, float | None]] = {}
    for device in DEVICES:
        place = sharding(device)
        for rule in updates.RULES:
            mine, optaxs = (update(f(rule), place) for f in (updates.ours, updates.plain_optax))
            arrays, least = bytes_moved(mine.as_text()) / model, updates.ARRAYS_MOVED[rule]
            temporaries, wider = (
                step.memory_analysis().temp_size_in_bytes
                for step in (mine, update(updates.ours(rule), place, 2))
            )
            claims |= {
                f"{device}, {rule}: arrays of the model's size moved": (arrays, least + 0.01),
                f"{device}, {rule}: likewise, plain Optax": (
                    bytes_moved(optaxs.as_text()) / model,
                    None,
                ),
                f"{device}, {rule}: temporaries, MiB": (temporaries / 2**20, None),
                f"{device}, {rule}: their growth / the model's": (
                    (wider - temporaries) / model,
                    0.01,
                ),
            }
            if device == "H100":  # a TPU's loops and copies run beside its kernels
                kernels, others = (figures(step)[1] for step in (mine, optaxs))
                claims[f"{device}, {rule}: kernels / plain Optax"] = kernels / others, 1.0

    place = sharding("TPU v5e")
    recipe, reference = recipes.yolov5_resnet18(), recipes.recorded("yolov5_resnet18")

    def evaluate_in_xla_float64(count: Any) -> Any:
        with plain_float64():  # where a recipe returns float64
            return jax.tree.map(lambda x: x.astype(jnp.float32), recipe.at(count))

    wrong, values = count_recipe_differences(recipe.at, reference, place)
    moved_wrong, _ = count_recipe_differences(recipe.at, reference, place, seed=0)
    plain, _ = count_recipe_differences(evaluate_in_xla_float64, reference, place)
    claims |= {
        f"TPU, the article's run: off, of {values:,}": (wrong, 0),
        "TPU, likewise, each division and root an ULP off or not": (moved_wrong, 0),
        "TPU, likewise, in XLA's own float64": (plain, None),
    }
    for name, at in (("here", recipe.at), ("by XLA", evaluate_in_xla_float64)):
        program, _ = scalar_program.parse(text(compile_for(at, place, np.int32(0))))
        claims[f"TPU, its instructions, float64 lowered {name}"] = len(program.instructions), None
    import test_originals as originals  # conformance puts its folder on the path

    for name, (factory, arguments, _) in originals.RECORDED.items():
        reference, size = originals.load_recording(name)
        wrong, values = count_recipe_differences(factory(**size, **arguments).at, reference, place)
        claims[f"TPU, {name}: off, of {values:,}"] = wrong, 0
    mesh = Mesh(np.array(topologies.get_topology_desc(**DEVICES["TPU v5e"]).devices), ("devices",))
    for way, sharded in (("data parallel", False), ("fully sharded", True)):
        step, alone = collectives(mesh, sharded)
        claims |= {
            f"4 TPU v5e, {way}: what gathers in the update": (len(alone), 0),
            f"4 TPU v5e, {way}: all-reduces in a training step": (step.count("all-reduce"), None),
            f"4 TPU v5e, {way}: all-gathers in a training step": (
                step.count("all-gather"),
                None if sharded else 0,
            ),
        }
    for name, tallies in schedulers(place, 6).items():
        total = sum(tally["steps"] for tally in tallies)
        wrong = total - sum(tally["equal"] for tally in tallies)
        claims[f"TPU, {name}: off, of {total:,}"] = wrong, None
        claims[f"TPU, {name}: most ULP"] = max(tally["ulp"] for tally in tallies), 1
    report("elsewhere", {}, claims)
