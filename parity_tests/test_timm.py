"""recipes.timm and its schedules against the objects of timm's own factories."""

import dataclasses
import math
import re
import types
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the reference is live torch")

from torchvision_import import import_models  # noqa: E402

import_models()
pytest.importorskip("timm", reason="timm is of the extra peers")

import timm_settings as live  # noqa: E402
from conftest import long_after  # noqa: E402
from timm import scheduler as reference  # noqa: E402
from timm.optim import _optim_factory as factory  # noqa: E402

from jaxsched import Trace, compare, optimizers, param_groups, recipes, schedules  # noqa: E402
from jaxsched.recipes import _timm  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]

SETTINGS = live.draw_settings()
CHUNK = 25


@pytest.mark.parametrize("first", range(0, live.SETTINGS, CHUNK))
def test_200_settings_are_equal_at_every_step_and_in_every_group(first):
    for k, setting in enumerate(SETTINGS[first : first + CHUNK], first):
        differences = live.differences(setting)
        assert not differences, f"setting {k}, {setting}: {differences}"


CHANGED = {  # settings in which our side has another value for one argument
    "lr": lambda a: {"lr": a["lr"] * (1 + 2**-22)},
    "epochs": lambda a: {"epochs": a["epochs"] + 1},
    "opt": lambda a: {"opt": "adadelta" if a.get("opt") != "adadelta" else "adagrad"},
    "weight_decay": lambda a: {"weight_decay": a.get("weight_decay", 2e-5) + 1e-9},
}


@pytest.mark.parametrize("name", CHANGED)
def test_a_changed_argument_is_detected(name, monkeypatch):
    for setting in SETTINGS[:4]:
        changed = setting._replace(args={**setting.args, **CHANGED[name](setting.args)}).recipe()
        with monkeypatch.context() as patch:
            patch.setattr(live.Setting, "recipe", lambda _, recipe=changed: recipe)
            assert live.differences(setting), setting


@pytest.mark.parametrize("sched", live.SCHEDS)
def test_the_compiled_rates_equal_those_of_timm(sched):
    setting = next(s for s in SETTINGS if s.args.get("sched", "cosine") == sched)
    run, rates = live.live_rates(setting)
    trace = setting.recipe().trace(len(rates))
    labels = setting.labels()(live.shapes(setting.model))
    for names, column in zip(live.members(run), rates.T, strict=True):
        for label in {labels[name] for name in names}:
            mine = trace.groups[label]["learning_rate"]
            np.testing.assert_array_equal(mine, np.float32(column))
        assert (np.diff(np.float32(column)) != 0).any() or sched in ("constant", "none")


@pytest.mark.parametrize("k", long_after(4, range(0, live.UPDATED, 3)))
def test_fifty_updates(k):
    """The other settings are run for docs/conformance.md."""
    assert live.update_distance(SETTINGS[k]) <= 1e-14


def test_updates_of_another_optimizer_are_detected(monkeypatch):
    setting = SETTINGS[0]._replace(args={**SETTINGS[0].args, "opt": "adam", "weight_decay": 0.05})
    wrong = setting._replace(args={**setting.args, "opt": "adamw"}).recipe()
    monkeypatch.setattr(live.Setting, "recipe", lambda _: wrong)
    assert live.update_distance(setting) > 1e-6


# --- groups ---


def flax_tree(names):
    """Return torch's names as a Flax model's nested tree, with shapes."""
    tree = {}
    for name, leaf in names.items():
        *path, last = name.split(".")
        node = tree
        for key in path:
            node = node.setdefault(key, {})
        node[{"weight": "kernel" if len(leaf.shape) > 1 else "scale"}.get(last, last)] = leaf
    return tree


@pytest.mark.parametrize("layer_decay", [None, 0.75])
@pytest.mark.parametrize("name", live.MODELS)
def test_a_flax_tree_falls_into_timms_groups(name, layer_decay):
    setting = live.Setting(name, {"lr": 0.1, "layer_decay": layer_decay}, 1)
    tree = flax_tree(live.shapes(name))
    labels = setting.labels()(tree)
    by_label = {}
    for path, label in zip(param_groups.leaf_paths(tree), jax.tree.leaves(labels), strict=True):
        by_label.setdefault(label, set()).add(param_groups.torch_name(path))
    assert set(map(frozenset, by_label.values())) == set(
        map(frozenset, live.members(live.live(setting)))
    )
    if layer_decay is None:  # without the model's names there are other groups
        plain = jax.tree.leaves(param_groups.by_dimension()(tree))
        assert (plain == jax.tree.leaves(labels)) == (name not in ("test_vit", "tiny"))


def test_scales_equal_those_of_timm():
    setting = live.Setting("test_vit", {"lr": 0.1, "layer_decay": 0.65}, 1)
    run, labels = live.live(setting), setting.labels()
    scales = labels.scales(live.shapes("test_vit"))
    by_name = labels(live.shapes("test_vit"))
    for names, group in zip(live.members(run), run.optimizer.param_groups, strict=True):
        assert {scales[by_name[name]] for name in names} == {group["lr_scale"]}
    assert len(set(scales.values())) == len(scales) / 2 > 4


def test_every_optimizer_of_torchs_in_timms_registry_is_there_and_no_other():
    registry = factory.default_registry
    torchs = {
        name
        for name in registry.list_optimizers()
        if not isinstance(kind := registry.get_optimizer_info(name).opt_class, str)
        and kind.__module__.startswith("torch.optim")
    }
    assert set(_timm.OPTIMIZERS) == torchs
    for name in torchs:
        info = registry.get_optimizer_info(name)
        ours = _timm.OPTIMIZERS[name]
        assert ours.rule.__name__ == info.opt_class.__name__.lower()
        assert dict(ours.defaults) == (info.defaults or {})
        flags = (info.has_momentum, info.has_eps, info.has_betas)
        assert (ours.has_momentum, ours.has_eps, ours.has_betas) == flags


# --- clocks ---


@pytest.mark.parametrize(("n", "k"), [(7, 3), (10, 4), (4, 4), (3, 5), (1, 2), (12, 5)])
def test_updates_come_where_timms_loop_makes_them(n, k):
    recipe = recipes.timm({"lr": 0.1, "epochs": 3, "grad_accum_steps": k}, steps_per_epoch=n)
    run = recipe.bookkeeping(3 * n)
    setting = live.Setting("tiny", {"grad_accum_steps": k}, n)
    _, is_update, size = np.array(live.clock(setting, 3)).T
    np.testing.assert_array_equal(run["stepped"], is_update)
    np.testing.assert_array_equal(run["accumulate"], size)
    np.testing.assert_array_equal(run["micro_batches"], np.where(is_update, size, 0))


@pytest.mark.parametrize("warmup", [False, True])
def test_the_average_decays_as_timms(warmup):
    args = {
        "model_ema": True,
        "model_ema_decay": 0.99,
        "model_ema_warmup": warmup,
        "start_epoch": 2,
    }
    recipe = recipes.timm({"lr": 0.1, **args}, steps_per_epoch=50)
    theirs = live.ModelEmaV3(live.Tiny(), decay=0.99, use_warmup=warmup)
    decays = np.array([theirs.get_decay(k) for k in range(101, 2001)])
    run = recipe.bookkeeping(1900)
    np.testing.assert_array_equal(run["ema_updates"], np.arange(101, 2001))
    assert np.abs(run["ema_decay"] - decays).max() <= 1e-15
    fresh = optimizers.EMA(0.99, power=recipe.ema.power)
    first = np.array([theirs.get_decay(k) for k in range(1, 400)])
    with jax.enable_x64(True):
        graph = np.asarray(jax.jit(fresh.decay_at)(np.arange(1, 400)))
    for mine in (graph, fresh.simulate(np.ones(399))["ema_decay"]):
        assert np.abs(mine - first).max() <= 1e-15
    assert np.abs(optimizers.EMA(0.99).simulate(np.ones(399))["ema_decay"] - first).max() > 0.1


def test_a_run_that_starts_or_stops_within():
    args = {"lr": 0.1, "epochs": 10, "cooldown_epochs": 2, "start_epoch": 3, "stop_epoch": 8}
    recipe = recipes.timm(args, steps_per_epoch=5)
    assert (recipe.start, recipe.length) == (15, 40)
    whole = recipes.timm({**args, "start_epoch": None, "stop_epoch": None}, steps_per_epoch=5)
    assert (whole.start, whole.length) == (0, 60)
    assert recipe.groups == whole.groups


# --- schedules ---

LIVE = {
    "cosine": (schedules.timm_cosine, reference.CosineLRScheduler),
    "tanh": (schedules.timm_tanh, reference.TanhLRScheduler),
    "poly": (schedules.timm_poly, reference.PolyLRScheduler),
    "step": (schedules.timm_step, reference.StepLRScheduler),
    "multistep": (schedules.timm_multistep, reference.MultiStepLRScheduler),
    "wsd": (schedules.timm_wsd, reference.WSDLRScheduler),
}
CASES = {
    # timm finds the fifth border of cycles that triple one count late, because log(243, 3) is below 5.
    "a border that timm rounds": ("cosine", {"t_initial": 1, "cycle_mul": 3, "cycle_limit": 7}),
    "cycles that grow": ("tanh", {"t_initial": 5, "cycle_mul": 1.3, "cycle_limit": 9}),
    "cycles that shrink": ("poly", {"t_initial": 99, "cycle_mul": 0.5, "cycle_limit": 3}),
    "many cycles": ("poly", {"t_initial": 3, "cycle_limit": 500, "cycle_decay": 0.97}),
    "no cycle": ("cosine", {"t_initial": 7, "cycle_limit": 0, "lr_min": 0.01}),
    "bounds of tanh": ("tanh", {"t_initial": 90, "lb": -2.0, "ub": 1.5, "warmup_t": 20}),
    "a lowest rate above the base": ("wsd", {"t_initial": 9, "decay_t": 4, "lr_min": 2.0}),
    "a long warm-up": ("cosine", {"t_initial": 5, "warmup_t": 9, "warmup_lr_init": 0.9}),
    "drops at fractions": ("step", {"decay_t": 0.1, "decay_rate": 0.999}),
    "a milestone at 1": ("multistep", {"decay_t": [1, 1, 4], "decay_rate": 0.5}),
    "k-decay": (
        "poly",
        {"t_initial": 300, "power": 0.9, "k_decay": 1.7, "warmup_prefix": True},
    ),
}


def live_curve(name, arguments, n):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.3)
    scheduler = LIVE[name][1](optimizer, **arguments)
    rates = [optimizer.param_groups[0]["lr"]]
    for count in range(1, n):
        scheduler.step(count)
        rates.append(optimizer.param_groups[0]["lr"])
    return np.array(rates)


@pytest.mark.parametrize("name", CASES)
def test_each_schedule_equals_the_scheduler_of_timm(name):
    kind, arguments = CASES[name]
    # Past the last of cycles that shrink timm ends with a math domain error.
    n = 190 if "shrink" in name else live.COUNTS
    theirs, ours = live_curve(kind, arguments, n), LIVE[kind][0](0.3, **arguments)
    mine = live.our_curve(ours)[:n]
    np.testing.assert_array_equal(np.float32(mine), np.float32(theirs))
    assert np.abs(mine - theirs).max() <= 1e-14 * theirs.max()
    compiled = np.asarray(jax.jit(ours)(np.arange(n)))
    np.testing.assert_array_equal(compiled, np.float32(theirs))


def test_a_long_run_by_updates():
    """300 epochs of 1,251 updates, as on ImageNet, compared at some of them."""
    arguments = {"t_initial": 375_300, "warmup_t": 6255, "warmup_lr_init": 1e-6, "lr_min": 1e-5}
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.3)
    scheduler = reference.CosineLRScheduler(optimizer, t_in_epochs=False, **arguments)
    counts = np.unique(np.linspace(1, 375_310, 20_000).astype(int))
    theirs = []
    for count in counts:
        scheduler.step_update(int(count))
        theirs.append(optimizer.param_groups[0]["lr"])
    ours = jax.jit(schedules.timm_cosine(0.3, **arguments))(counts)
    np.testing.assert_array_equal(ours, np.float32(theirs))


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: schedules.timm_tanh(0.1, 5, lb=3.0), "lb must be below ub, 3.0, got 3.0"),
        (
            lambda: schedules.timm_cosine(0.1, 0),
            "t_initial must be an integer of at least 1, got 0",
        ),
        (
            lambda: schedules.timm_cosine(0.1, 5, cycle_mul=0.0),
            "cycle_mul must be a finite number above 0, got 0.0",
        ),
        (
            lambda: schedules.timm_cosine(0.1, 5, cycle_limit=10**5),
            "cycle_limit must be at most 10,000, got 100000",
        ),
        (
            lambda: schedules.timm_multistep(0.1, [5, 3]),
            "decay_t must be integers of at least 0 in ascending order, got [5, 3]",
        ),
        (lambda: schedules.timm_wsd(0.1, 5, 6), "decay_t must be at most t_initial, 5, got 6"),
        (
            lambda: schedules.timm_wsd(0.1, 5, 2, stable_fn="rsqrt"),
            "stable_timescale must be above 0 with rsqrt, or None for the length of the warm-up, got 0",
        ),
        (
            lambda: schedules.timm_wsd(0.1, 5, 2, decay_fn="sqrt"),
            "decay_fn must be one of 1-sqrt, linear, cosine, power, exp, got 'sqrt'",
        ),
        (
            lambda: schedules.timm_step(0.1, 0),
            "decay_t must be a finite number above 0, got 0",
        ),
    ],
)
def test_arguments_that_a_schedule_refuses(make, sentence):
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        make()


# --- args ---


def test_the_file_of_a_run_is_read(tmp_path):
    """It has all keys of train.py for the optimizer, and some others, as train.py writes them."""
    path = tmp_path / "args.yaml"
    path.write_text(ARGS_YAML)
    used = {
        **{"lr": 5e-4, "opt": "adamw", "weight_decay": 0.05, "epochs": 300, "warmup_epochs": 5},
        **{"warmup_lr": 1e-6, "min_lr": 1e-5, "decay_epochs": 90, "lr_cycle_decay": 0.5},
        **{"decay_milestones": [90, 180, 270], "sched_on_updates": True, "opt_eps": 1e-8},
        **{"clip_grad": 1.0, "model_ema": True, "model_ema_decay": 0.9999, "cooldown_epochs": 10},
    }
    from_file = recipes.timm(path, steps_per_epoch=40)
    assert from_file == recipes.timm(used, steps_per_epoch=40)
    assert from_file != recipes.timm({**used, "warmup_lr": 1e-5}, steps_per_epoch=40)


ARGS_YAML = """\
aa: rand-m9-mstd0.5-inc1
amp: true
batch_size: 128
clip_grad: 1.0
clip_mode: norm
cooldown_epochs: 10
cutmix: 1.0
data_dir: /data/imagenet
decay_epochs: 90
decay_milestones:
- 90
- 180
- 270
decay_rate: 0.1
drop_path: 0.1
epoch_repeats: 0.0
epochs: 300
eval_metric: top1
grad_accum_steps: 1
layer_decay: null
log_interval: 50
lr: 0.0005
lr_base: 0.1
lr_base_scale: ''
lr_base_size: 256
lr_cycle_decay: 0.5
lr_cycle_limit: 1
lr_cycle_mul: 1.0
lr_k_decay: 1.0
lr_noise: null
lr_noise_pct: 0.67
lr_noise_std: 1.0
min_lr: 1.0e-05
mixup: 0.8
model: deit_small_patch16_224
model_ema: true
model_ema_decay: 0.9999
model_ema_force_cpu: false
model_ema_warmup: false
momentum: 0.9
opt: adamw
opt_betas: null
opt_eps: 1.0e-08
opt_kwargs: {}
patience_epochs: 10
resume: ''
sched: cosine
sched_on_updates: true
seed: 42
smoothing: 0.1
start_epoch: null
warmup_epochs: 5
warmup_lr: 1.0e-06
warmup_prefix: false
weight_decay: 0.05
"""


def test_missing_arguments_have_the_defaults_of_timms_helpers():
    namespace = types.SimpleNamespace(sched="cosine", opt="sgd", lr=0.1, weight_decay=0, momentum=0)
    theirs = {**live.scheduler_kwargs(namespace), **live.optimizer_kwargs(namespace)}
    names = {  # the names in timm's factories of keys of its arguments
        **{"epochs": "num_epochs", "lr_decay_fn": "decay_fn", "warmup_lr": "warmup_lr"},
        **{"lr_cycle_mul": "cycle_mul", "lr_cycle_decay": "cycle_decay", "lr_k_decay": "k_decay"},
        **{"lr_cycle_limit": "cycle_limit", "lr_stable_timescale": "stable_timescale"},
    }
    keys = [
        *names,
        *("decay_epochs", "decay_milestones", "warmup_epochs", "cooldown_epochs", "decay_rate"),
        *("min_lr", "warmup_prefix"),
    ]
    for key in keys:
        default, value = _timm.DEFAULTS[key], theirs[names.get(key, key)]
        assert (list(default) if isinstance(default, tuple) else default) == value, key
    assert _timm.DEFAULTS["sched_on_updates"] != theirs["step_on_epochs"]


def recipe_of(layers=None, **args):
    return recipes.timm({"lr": 0.1, **args}, steps_per_epoch=5, layers=layers)


REFUSED = {
    "no lr": (
        lambda: recipes.timm({"opt": "sgd"}, steps_per_epoch=5),
        "args['lr'] must be a number above 0, got None: train.py computes it then, as lr_base times "
        "the ratio of the global batch to lr_base_size, or its root. Set it.",
    ),
    "an lr of 0": (lambda: recipe_of(lr=0.0), "args['lr'] must be a number above 0, got 0.0: "),
    "text": (
        lambda: recipe_of(lr="3e-4"),
        "args['lr'] must be a finite number of at least 0, got '3e-4'",
    ),
    "timm's own optimizer": (
        lambda: recipe_of(opt="adafactor"),
        "args['opt'] must be one of sgd, ",
    ),
    "timm's muon": (lambda: recipe_of(opt="muon"), "args['opt'] must be one of sgd, "),
    "lookahead": (lambda: recipe_of(opt="lookahead_sgd"), "args['opt'] must be one of sgd, "),
    "plateau": (
        lambda: recipe_of(sched="plateau"),
        "args['sched'] must name a function of the step, got 'plateau', which follows a metric. "
        "See lr_scheduler.reduce_lr_on_plateau.",
    ),
    "sched": (
        lambda: recipe_of(sched="onecycle"),
        "args['sched'] must be one of cosine, tanh, poly, step, multistep, constant, wsd, rsqrt, "
        "none, got 'onecycle'",
    ),
    "noise": (
        lambda: recipe_of(lr_noise=[0.4, 0.9]),
        "args['lr_noise'] must be null, got [0.4, 0.9]: noise on the rate is not supported. "
        "Record the run with jaxsched.torch.record.",
    ),
    "layers that stop": (
        lambda: recipe_of(layer_decay=0.5, layers=3, layer_decay_no_opt_scale=0.1),
        "args['layer_decay_no_opt_scale'] must be null, got 0.1: a scale below which layers are "
        "frozen is not supported.",
    ),
    "adaptive clipping": (
        lambda: recipe_of(clip_grad=0.01, clip_mode="agc"),
        "args['clip_mode'] must be norm or value, got 'agc': adaptive clipping is not supported.",
    ),
    "typo": (
        lambda: recipe_of(warmup_epoch=3),
        "args must use the original's keys, got 'warmup_epoch'. Did you mean 'warmup_epochs'?",
    ),
    "alias": (
        lambda: recipes.timm({"learning_rate": 0.1}, steps_per_epoch=5),
        "args must use the original's keys, got 'learning_rate'. Did you mean 'lr'?",
    ),
    "layers": (
        lambda: recipe_of(layer_decay=0.75),
        "layers must be given with layer_decay, got None with 0.75. Pass "
        "param_groups.by_layer(layer_of, decay).count(params).",
    ),
    "no layers": (
        lambda: recipe_of(layers=3),
        "layers must be None without layer_decay, got 3. Set args['layer_decay'].",
    ),
    "options": (
        lambda: recipe_of(opt="adamw", opt_kwargs={"momentum": 0.5}),
        "args['opt_kwargs'] of adamw must be among amsgrad, betas, eps, maximize, got momentum.",
    ),
    "twice": (
        lambda: recipe_of(opt="adamw", opt_eps=1e-6, opt_kwargs={"eps": 1e-8}),
        "args['opt_kwargs'] of adamw must be among amsgrad, betas, maximize, got eps.",
    ),
    "betas": (
        lambda: recipe_of(opt="adamw", opt_betas=[0.9]),
        "args['opt_betas'] must be two numbers, got [0.9]",
    ),
    "stop": (
        lambda: recipe_of(epochs=5, stop_epoch=6),
        "args['stop_epoch'] must be from 1 to the 5 epochs of the schedule, got 6",
    ),
    "start": (
        lambda: recipe_of(epochs=5, start_epoch=5),
        "start_epoch must be below epochs, 5, got 5",
    ),
    "epochs": (
        lambda: recipe_of(epochs=5.5),
        "args['epochs'] must be an integer of at least 1, got 5.5",
    ),
    "switch": (
        lambda: recipe_of(sched_on_updates="yes"),
        "args['sched_on_updates'] must be True or False, got 'yes'",
    ),
    "decay": (
        lambda: recipe_of(sched="wsd", epochs=10, decay_epochs=9),
        "args['decay_epochs'] must give a decay of 1 to 5 epochs, which the warm-up leaves, got 9, "
        "which gives 9. Change it or warmup_epochs.",
    ),
    "no decay left": (
        lambda: recipe_of(
            sched="wsd", epochs=7, decay_epochs=None, sched_on_updates=True, warmup_epochs=7
        ),
        "args['decay_epochs'] must give a decay of 1 to 0 updates, which the warm-up leaves, got None, "
        "which gives 0. Change it or warmup_epochs.",
    ),
    "milestones": (
        lambda: recipe_of(sched="multistep", decay_milestones=[60, 30]),
        "args['decay_milestones'] must be integers of at least 0 in ascending order, got [60, 30]",
    ),
    "cycles that rounding hides": (
        lambda: recipe_of(epochs=300, lr_cycle_mul=1 + 1e-14, lr_cycle_limit=3),
        "cycle_mul must be 1 or differ from 1 by more than rounding, got 1.00000000000001. ",
    ),
    **{
        f"noise of {value!r}": (
            lambda value=value: recipe_of(lr_noise=value),
            f"args['lr_noise'] must be null, got {value!r}: noise on the rate is not supported.",
        )
        for value in (0, 0.0, [])
    },
    **{
        f"{key} of others": (
            lambda key=key: recipe_of(**{key: 1}),
            f"args must use the original's keys, got {key!r}. Did you mean {name!r}?",
        )
        for key, name in {
            **{"betas": "opt_betas", "eps": "opt_eps", "num_epochs": "epochs", "noise": "lr_noise"},
            **{"grad_clip": "clip_grad", "nesterov": "opt_kwargs", "amsgrad": "opt_kwargs"},
            "gradient_accumulation_steps": "grad_accum_steps",
        }.items()
    },
    "no args": (
        lambda: recipes.timm(None, steps_per_epoch=5),
        "args must be a mapping or the path of a YAML file, got None.",
    ),
    "no steps": (
        lambda: recipes.timm({"lr": 0.1}, steps_per_epoch=0),
        "steps_per_epoch must be an integer of at least 1, got 0",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_unsupported_arguments_are_refused_by_name(name):
    make, sentence = REFUSED[name]
    with pytest.raises((TypeError, ValueError), match=f"^{re.escape(sentence)}") as error:
        make()
    assert "\n" not in str(error.value)


def test_optimizers_refused_with_a_clip_are_taken_without_one():
    assert recipe_of(clip_mode="agc").clip_norm is None


def test_numbers_may_be_traced():
    def rate(args, layers=None):
        recipe = recipe_of(epochs=100, layers=layers, **args)
        return recipe.at(250)["layer_0_decay" if layers else "decay"]["learning_rate"]

    for args, traced, layers in [
        ({}, {"lr": [0.1, 0.2]}, None),
        ({}, {"layer_decay": [0.5, 0.75]}, 3),
        ({"layer_decay": 0.5}, {"layer_decay_min_scale": [0.1, 0.75]}, 3),
    ]:
        ((key, values),) = traced.items()
        ours = jax.vmap(lambda v, a=args, k=key, n=layers: rate({**a, k: v}, n))(jnp.array(values))
        one_by_one = [rate({**args, key: value}, layers) for value in values]
        np.testing.assert_allclose(ours, one_by_one, rtol=2**-22)  # the input is in float32
        assert ours[0] != ours[1]


def test_layers_that_no_parameter_has_are_warned_of():
    params = {"stem": {"kernel": jnp.ones((2, 2))}, "head": {"kernel": jnp.ones((2, 2))}}
    rule = param_groups.by_layer(
        lambda path: ["stem", "head"].index(path[0]), 0.5, labels=param_groups.by_dimension()
    )
    sentence = (
        "no parameter is in group layer_2_decay or layer_2_no_decay: the parameters have 2 layers. "
        "Pass layers=2 to the recipe, or check the labels."
    )
    with pytest.warns(UserWarning, match=f"^{re.escape(sentence)}$"):
        recipe_of(layer_decay=0.5, layers=5).optimizer(rule).init(params)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recipe_of(layer_decay=0.5, layers=2).optimizer(rule).init(params)


# --- ports ---

VIT = {
    **{"lr": 1e-3, "opt": "adamw", "weight_decay": 0.05, "epochs": 8, "warmup_epochs": 2},
    **{"warmup_lr": 1e-6, "min_lr": 1e-5, "layer_decay": 0.75, "sched_on_updates": True},
    **{"grad_accum_steps": 2, "clip_grad": 1.0, "model_ema": True, "model_ema_warmup": True},
}
RUN = live.Setting("tiny", VIT, 5)


@pytest.fixture(scope="module")
def recording():
    """timm's run as a trace: values from its own objects, at the iterations of its loop."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run, rates = live.live_rates(RUN)
    labels = RUN.labels()(live.shapes("tiny"))
    n = len(rates)
    groups, switches = {}, {}
    for k, (names, group) in enumerate(
        zip(live.members(run), run.optimizer.param_groups, strict=True)
    ):
        (label,) = {labels[name] for name in names}
        b1, b2 = group["betas"]
        constants = {"b1": b1, "b2": b2, "eps": group["eps"], "weight_decay": group["weight_decay"]}
        columns = {name: np.full(n, value) for name, value in constants.items()}
        groups[label] = {"learning_rate": rates[:, k], **columns}
        switches[label] = {name: group[name] for name in ("amsgrad", "maximize")}
    _, is_update, size = np.array(live.clock(RUN, run.epochs)).T
    counts = np.cumsum(is_update)
    decay = live.ModelEmaV3(run.net, decay=0.9998, use_warmup=True).get_decay
    return Trace(
        groups,
        {
            "accumulate": size,
            "stepped": is_update,
            "micro_batches": np.where(is_update, size, 0),
            "ema_updates": counts,
            "ema_decay": np.array([decay(int(k)) for k in counts]),
        },
        update_rule="adamw",
        switches=switches,
        clip_norm=1.0,
        clip_value=None,
    )


def right_recipe(**changes):
    layers = changes.pop("layers", 3)
    return recipes.timm({**VIT, **changes}, steps_per_epoch=5, layers=layers)


def change_groups(change):
    recipe = right_recipe()
    return dataclasses.replace(recipe, groups=change(dict(recipe.groups)))


def change_rate(change):
    return change_groups(
        lambda groups: {
            label: {**group, "learning_rate": change(group["learning_rate"])}
            for label, group in groups.items()
        }
    )


def swap_groups(groups, a, b):
    return {**groups, a: groups[b], b: groups[a]}


def scale_of(rate):
    return rate.arguments["factor"] if rate.factory is schedules.scaled else 1.0


def float32_rate(i):
    """Return the schedule's rate, as users write it in jnp."""
    t = (i // 5 * 3 + i % 5 // 2).astype(jnp.float32)
    curve = 1e-5 + 0.5 * (1e-3 - 1e-5) * (1 + jnp.cos(jnp.float32(math.pi) * t / 24))
    return jnp.where(t < 6, 1e-6 + t * (1e-3 - 1e-6) / 6, curve).astype(jnp.float32)


def report_of(recipe, recorded):
    """Compare, without groups that timm lacks because a layer has no parameter of a kind."""
    groups = {label: recipe.groups[label] for label in recorded.groups}
    return compare(dataclasses.replace(recipe, groups=groups), recorded)


def test_the_right_port_is_equal(recording):
    assert recording.groups.keys() < right_recipe().groups.keys()
    report = report_of(right_recipe(), recording)
    assert report, str(report)


COSINE = schedules.timm_cosine(
    1e-3, 8 * 3, 1e-5, cycle_decay=0.1, warmup_t=2 * 3, warmup_lr_init=1e-6
)
WRONG = {
    "schedule by epoch": lambda: right_recipe(sched_on_updates=False),
    "schedule by iteration": lambda: change_rate(
        lambda rate: schedules.scaled(COSINE, scale_of(rate))
    ),
    "updates of an epoch rounded down": lambda: change_rate(
        lambda rate: schedules.scaled(lambda i: COSINE(i // 5 * 2 + i % 5 // 2), scale_of(rate))
    ),
    "warm-up before the schedule": lambda: right_recipe(warmup_prefix=True),
    "warm-up toward the curve": lambda: change_rate(
        lambda rate: schedules.warmup(rate, 10, start=1e-6 * scale_of(rate))
    ),
    "no warm-up": lambda: right_recipe(warmup_epochs=0),
    "warm-up from 0": lambda: right_recipe(warmup_lr=0.0),
    "one update late": lambda: change_rate(lambda rate: schedules.shift(rate, 1)),
    "no lowest rate": lambda: right_recipe(min_lr=0.0),
    "layers from the wrong end": lambda: change_groups(
        lambda groups: swap_groups(
            swap_groups(groups, "layer_0_decay", "layer_2_decay"),
            *("layer_0_no_decay", "layer_2_no_decay"),
        )
    ),
    "a layer too many": lambda: right_recipe(layers=4),
    "no layer decay": lambda: change_rate(
        lambda rate: rate.arguments["schedule"] if rate.factory is schedules.scaled else rate
    ),
    "decay in all groups": lambda: change_groups(
        lambda groups: {label: {**g, "weight_decay": 0.05} for label, g in groups.items()}
    ),
    "coupled decay": lambda: right_recipe(opt="adam"),
    "torch's decay for timm's": lambda: right_recipe(weight_decay=0.01),
    "clip by value": lambda: right_recipe(clip_mode="value"),
    "every batch an update": lambda: right_recipe(grad_accum_steps=1),
    "an epoch's rest kept": lambda: dataclasses.replace(
        right_recipe(), accumulation=optimizers.Accumulation(schedules.constant(2.0))
    ),
    "no average": lambda: right_recipe(model_ema=False),
    "an average without its warm-up": lambda: right_recipe(model_ema_warmup=False),
    "a cosine in float32": lambda: change_rate(
        lambda rate: lambda i: float32_rate(i) * jnp.float32(scale_of(rate))
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_port_is_refused(name, recording):
    report = report_of(WRONG[name](), recording)
    assert not report
    assert report.first.first is not None


CAUSES = {
    "a lowest rate": ({"min_lr": 0.0}, "min_lr 0.0 for 1e-05"),
    "a warm-up before": ({"warmup_prefix": True}, "warmup_prefix True for False"),
}


@pytest.mark.long
@pytest.mark.parametrize("name", CAUSES)
def test_the_mistake_is_named(name):
    changes, sentence = CAUSES[name]
    args = {**VIT, "layer_decay": None, "grad_accum_steps": 1, "model_ema": False}
    reference = recipes.timm(args, steps_per_epoch=5).trace(40)
    report = compare(recipes.timm({**args, **changes}, steps_per_epoch=5), reference)
    assert report.causes[0] == sentence
