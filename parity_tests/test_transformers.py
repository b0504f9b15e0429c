"""recipes.transformers against transformers' own factories, and a run of its Trainer."""

import json
import re
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

torch = pytest.importorskip("torch", reason="the reference is live torch")
pytest.importorskip("transformers", reason="transformers is of the extra peers")

import transformers_settings as live  # noqa: E402
from conftest import long_after  # noqa: E402
from transformers import Trainer, TrainerCallback, TrainingArguments  # noqa: E402
from transformers.training_args import OptimizerNames  # noqa: E402

from jaxsched import compare, param_groups, recipes  # noqa: E402
from jaxsched.torch import record  # noqa: E402

pytestmark = [pytest.mark.torch, pytest.mark.filterwarnings("ignore")]


def test_every_step_of_200_settings_is_equal():
    model, moving, warmups = live.Net(), 0, 0
    for k, setting in enumerate(live.settings(200)):
        optimizer, scheduler = live.create(setting.full(), setting.num_training_steps, model)
        recipe = live.recipe_of(setting)
        theirs, ours = (
            live.rates(optimizer, scheduler, setting).astype(np.float32),
            live.our_rates(recipe),
        )
        wrong = np.argwhere(ours != theirs)
        assert not wrong.size, f"setting {k}, {setting}: at {wrong[0]} {ours[tuple(wrong[0])]!r}"
        for label, group in zip(live.LABELS, optimizer.param_groups, strict=True):
            constants = live.constants(group)
            complete = recipe.complete_groups()[label]
            assert constants == {name: complete.get(name) for name in constants}, (
                f"setting {k}: {label}"
            )
        name = type(optimizer).__name__.lower()
        assert recipe.update_rule.__name__ == name
        assert recipe.clip_norm == (setting.arguments["max_grad_norm"] or None)
        moving += (ours[1:] != ours[:-1]).any()
        warmups += live.recipe_of(setting, warmup_steps=0) != recipe
    assert moving > 150  # neighbours differ, and so does a recipe without the warm-up
    assert warmups > 60


@pytest.mark.parametrize("kind", live.KINDS)
def test_the_compiled_rates_equal_those_of_the_host(kind):
    setting = next(s for s in live.settings(50) if s.arguments["lr_scheduler_type"] == kind)
    recipe = live.recipe_of(setting)
    compiled = recipe.trace(live.N).groups
    ours = np.stack([compiled[label]["learning_rate"] for label in live.LABELS], 1)
    np.testing.assert_array_equal(ours, live.our_rates(recipe))


@pytest.mark.parametrize("k", long_after(10, live.UPDATED))
def test_fifty_updates(k):
    live.assert_updates_match(k)


# --- a run of Trainer ---

RUN = {
    "learning_rate": 0.05,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 2,
    "weight_decay": 0.1,
    "adam_beta2": 0.95,
    "max_grad_norm": 0.5,
    "gradient_accumulation_steps": 3,
}
BATCHES, EPOCHS = 7, 5  # 3 updates an epoch, the last of one batch
UPDATES = 3 * EPOCHS


class Recorder(TrainerCallback):
    """Callback that ends a row of the recording after each batch."""

    def on_train_begin(self, args, state, control, optimizer, **_):
        self.recording = record(optimizer, live.LABELS).__enter__()

    def on_substep_end(self, *_, **__):
        self.recording.batch()

    def on_step_end(self, *_, **__):
        self.recording.batch()

    def on_train_end(self, *_, **__):
        self.recording.__exit__()


class GradientTrainer(Trainer):
    """Trainer that keeps the gradient of each batch's mean loss, and the parameters before it."""

    def training_step(self, model, inputs, num_items_in_batch=None):
        named = dict(model.named_parameters())
        loss = model(**inputs)["loss"]
        gradients = torch.autograd.grad(loss, named.values())
        self.batches.append({n: g.numpy() for n, g in zip(named, gradients, strict=True)})
        self.parameters.append({n: p.detach().numpy().copy() for n, p in named.items()})
        return super().training_step(model, inputs, num_items_in_batch)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A whole run of Trainer in float64: its recording, gradients and parameters."""
    torch.manual_seed(0)  # also before the model: with other parameters every update is clipped
    rng, model = np.random.default_rng(0), live.Net().double()
    data = [{"x": rng.normal(size=4), "y": rng.normal(size=2)} for _ in range(2 * BATCHES)]
    arguments = TrainingArguments(
        str(tmp_path_factory.mktemp("run")),
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=2,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
        logging_strategy="no",
        **RUN,
    )
    recorder = Recorder()
    trainer = GradientTrainer(model, arguments, train_dataset=data, callbacks=[recorder])
    trainer.batches, trainer.parameters = [], []
    trainer.train()
    last = {name: p.detach().numpy().copy() for name, p in model.named_parameters()}
    trainer.parameters.append(last)
    return trainer, recorder.recording.trace, arguments


def recipe_of_run(**changes):
    counts_of_run = {"num_training_steps": UPDATES, "steps_per_epoch": BATCHES}
    counts = {name: changes.pop(name) for name in list(changes) if name in counts_of_run}
    return recipes.transformers({**RUN, **changes}, **{**counts_of_run, **counts})


def test_a_run_of_trainer_is_equal(run):
    trainer, trace, arguments = run
    recipe = recipes.transformers(
        arguments.to_json_string(), num_training_steps=UPDATES, steps_per_epoch=BATCHES
    )
    assert recipe == recipe_of_run()
    assert recipe.length == len(trace) == len(trainer.batches) == BATCHES * EPOCHS
    report = compare(recipe, trace)
    assert report, str(report)
    assert trace.run["stepped"].sum() == UPDATES == trainer.state.global_step
    assert not compare(recipe_of_run(steps_per_epoch=BATCHES + 1), trace)


def test_the_updates_of_that_run(run):
    """Each batch's gradient of the mean loss is divided as the docstring says."""
    trainer, _, _ = run
    recipe = recipe_of_run()

    tx = recipe.optimizer(live.names_by_label(trainer.optimizer, trainer.model))
    update = jax.jit(tx.update)

    def distance(divide):
        """Return the largest distance from Trainer's parameters, before and after every batch."""
        with jax.enable_x64(True):
            params = {name: jnp.asarray(p) for name, p in trainer.parameters[0].items()}
            state, far = tx.init(params), 0.0
            for i, gradients in enumerate(trainer.batches):
                share = {n: g / divide(i) for n, g in gradients.items()}
                updates, state = update(share, state, params)
                params = optax.apply_updates(params, updates)
                theirs = trainer.parameters[i + 1]
                far = max(far, *(np.abs(params[n] - p).max() for n, p in theirs.items()))
            return far

    batches = [int(recipe.accumulation.batches(i)) for i in range(BATCHES * EPOCHS)]
    assert batches[:8] == [3, 3, 3, 3, 3, 3, 1, 3]
    assert distance(lambda i: batches[i]) < 1e-14
    ends = np.flatnonzero(recipe.trace(len(batches)).run["stepped"]) + 1
    updates = [trainer.batches[a:b] for a, b in zip([0, *ends], ends, strict=False)]
    means = [{n: sum(g[n] for g in group) / len(group) for n in group[0]} for group in updates]
    clipped = [optax.tree.norm(mean) > RUN["max_grad_norm"] for mean in means]
    assert 0 < sum(clipped) < UPDATES
    assert distance(lambda i: 3) > 1e-3  # as if there were no short update


# --- membership ---


def flax_tree(model):
    """Return the parameters under a Flax port's names, and torch's name of each path."""
    norms = tuple(
        type(module) for module in model.modules() if type(module).__name__.endswith("Norm")
    )
    norms += (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d)
    tree, names = {}, {}
    for prefix, module in model.named_modules():
        for leaf, _ in module.named_parameters(recurse=False):
            renamed = leaf
            if leaf == "weight":
                kinds = (torch.nn.Embedding, "embedding"), (norms, "scale")
                renamed = next((n for kind, n in kinds if isinstance(module, kind)), "kernel")
            path = (*filter(None, prefix.split(".")), renamed)
            node = tree
            for name in path[:-1]:
                node = node.setdefault(name, {})
            node[path[-1]] = 0.0
            names[path] = f"{prefix}.{leaf}".lstrip(".")
    return tree, names


def models():
    import transformers

    small = {"num_hidden_layers": 1, "hidden_size": 8, "num_attention_heads": 2}
    small |= {"intermediate_size": 8, "vocab_size": 11}
    t5 = {"d_model": 8, "d_kv": 4, "d_ff": 8, "num_layers": 1, "num_heads": 2, "vocab_size": 11}
    clip = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
    clip |= {"intermediate_size": 8}
    vit = {k: v for k, v in small.items() if k != "vocab_size"}
    return {
        "bert": transformers.BertModel(transformers.BertConfig(**small)),
        "clip": transformers.CLIPModel(
            transformers.CLIPConfig(
                text_config={**clip, "vocab_size": 11, "max_position_embeddings": 8},
                vision_config={**clip, "image_size": 8, "patch_size": 4},
                projection_dim=8,
            )
        ),
        "gpt2": transformers.GPT2Model(
            transformers.GPT2Config(n_layer=1, n_embd=8, n_head=2, vocab_size=11, n_positions=8)
        ),
        "llama": transformers.LlamaModel(transformers.LlamaConfig(**small, num_key_value_heads=2)),
        "t5": transformers.T5Model(transformers.T5Config(**t5)),
        "vit": transformers.ViTModel(transformers.ViTConfig(**vit, image_size=8, patch_size=4)),
    }


def test_membership_is_equal_in_real_models():
    setting, seen = live.settings(1)[0], set()
    for kind, model in models().items():
        optimizer, _ = live.create(setting.full(), setting.num_training_steps, model)
        theirs = live.names_by_label(optimizer, model)
        tree, names = flax_tree(model)
        labels = jax.tree.leaves(param_groups.by_decay(tree))
        paths = param_groups.leaf_paths(tree)
        ours = {names[path]: label for path, label in zip(paths, labels, strict=True)}
        ours = {name: label for name, label in ours.items() if name in theirs}  # tied once
        assert ours == theirs, kind
        shapes = {name: jnp.zeros(p.shape) for name, p in model.named_parameters()}
        assert param_groups.by_decay(shapes) == theirs, f"{kind}, by torch's names"
        seen |= {name.rpartition(".")[2] for name, label in ours.items() if label == "no_decay"}
        # By the number of dimensions, as other packages do, groups differ.
        by_ndim = {n: "decay" if p.ndim > 1 else "no_decay" for n, p in model.named_parameters()}
        assert kind not in ("t5",) or by_ndim != theirs
    assert seen == {"weight", "bias"}


def test_membership_by_module():
    """A BatchNorm called ``bn`` decays in transformers; a path alone does not show its kind."""
    from flax import nnx

    import jaxsched.flax

    class Twin(nnx.Module):
        def __init__(self, rngs):
            self.wte = nnx.Embed(5, 3, rngs=rngs)
            self.ln = nnx.LayerNorm(3, rngs=rngs)
            self.q_norm = nnx.RMSNorm(3, rngs=rngs)
            self.rms = nnx.RMSNorm(3, rngs=rngs)
            self.bn = nnx.BatchNorm(3, rngs=rngs)
            self.fc = nnx.Linear(3, 2, rngs=rngs)

    model, twin = live.Net(), Twin(nnx.Rngs(0))
    setting = live.settings(1)[0]
    optimizer, _ = live.create(setting.full(), setting.num_training_steps, model)
    theirs = live.names_by_label(optimizer, model)

    def groups_by_name(labels):
        flat = jax.tree_util.tree_flatten_with_path(labels)[0]
        paths = [param_groups.leaf_path(keys) for keys, _ in flat]
        return {
            param_groups.torch_name(path): label
            for path, (_, label) in zip(paths, flat, strict=True)
        }

    assert groups_by_name(jaxsched.flax.by_decay(twin)) == theirs
    by_path = groups_by_name(param_groups.by_decay(nnx.state(twin, nnx.Param)))
    apart = {name for name, label in by_path.items() if label != theirs[name]}
    assert apart == {"bn.weight", "rms.weight"}


# --- arguments, and refusals ---


def test_the_two_versions_of_the_warm_up():
    base = {"lr_scheduler_type": "constant_with_warmup", "learning_rate": 1.0}

    def warmup(**given):
        recipe = recipes.transformers({**base, **given}, num_training_steps=37)
        factor = recipe.groups["decay"]["learning_rate"].arguments["lr_lambda"]
        return factor.arguments["num_warmup_steps"]

    for settings, updates in [
        ({}, 0),
        ({"warmup_steps": 7}, 7),
        ({"warmup_steps": 7.9}, 7),
        ({"warmup_steps": 1.0}, 1),
        ({"warmup_steps": 0.1}, 4),
        ({"warmup_steps": 0, "warmup_ratio": 0.1}, 4),  # version 4
        ({"warmup_steps": 7, "warmup_ratio": 0.1}, 7),
        ({"warmup_ratio": None}, 0),
    ]:
        assert warmup(**settings) == updates, settings
        if "warmup_ratio" not in settings:
            assert live.Setting(settings, 37, None).full().get_warmup_steps(37) == updates


def test_the_defaults_are_those_of_transformers():
    setting = live.Setting({}, 30, None)
    recipe = recipes.transformers({}, num_training_steps=30)
    assert recipe == live.recipe_of(setting)
    optimizer, scheduler = live.create(setting.full(), 30, live.Net())
    setting.arguments["gradient_accumulation_steps"] = 1
    theirs = live.rates(optimizer, scheduler, setting).astype(np.float32)
    np.testing.assert_array_equal(live.our_rates(recipe), theirs)
    assert recipe.clip_norm == 1.0
    assert recipe.length == 30


def test_no_other_argument_is_taken_for_a_typo():
    """Each is passed alone, without the keys that the recipe reads."""
    for name, value in live.Setting({}, 30, None).full().to_dict().items():
        recipes.transformers({name: value}, num_training_steps=30)


def test_arguments_are_read_from_json(tmp_path):
    setting = live.settings(8)[7]
    path = tmp_path / "arguments.json"
    path.write_text(setting.full(max_steps=setting.num_training_steps).to_json_string())
    counts = {
        "num_training_steps": setting.num_training_steps,
        "steps_per_epoch": setting.steps_per_epoch,
    }
    assert recipes.transformers(path, **counts) == live.recipe_of(setting)
    assert recipes.transformers(str(path), **counts) == live.recipe_of(setting)
    path.write_text(json.dumps([1]))
    with pytest.raises(ValueError, match=r"^arguments must hold key: value lines, got a list in"):
        recipes.transformers(path, **counts)
    path.write_text("{")
    with pytest.raises(ValueError, match=r"^arguments must be a JSON file, got .*json"):
        recipes.transformers(path, **counts)
    sentence = "a JSON file, got 'training_args.bin'. Write training_args.to_json_string()"
    with pytest.raises(ValueError, match=re.escape(sentence)):
        recipes.transformers("training_args.bin", **counts)


def test_batches_are_not_taken_for_updates():
    """Trainer counts 12 updates for 3 epochs of 7 batches, with 2 batches per update."""
    arguments = {"num_train_epochs": 3.0, "gradient_accumulation_steps": 2}

    def recipe_of(steps, epoch=7, **changes):
        return recipes.transformers(
            {**arguments, **changes}, num_training_steps=steps, steps_per_epoch=epoch
        )

    theirs = TrainingArguments("unused", use_cpu=True, report_to=[], **arguments)
    trainer = Trainer(live.Net(), theirs, train_dataset=list(range(7 * 8)))
    *_, updates = trainer.set_initial_training_values(theirs, trainer.get_train_dataloader())
    assert recipe_of(updates) == recipes.transformers(
        {"gradient_accumulation_steps": 2}, num_training_steps=12, steps_per_epoch=7
    )
    sentence = (
        "num_training_steps must count updates, 12 in 3.0 epochs of 7 batches, 2 an update, got 21, "
        "the number of batches. Set max_steps of arguments if these are updates."
    )
    with pytest.warns(UserWarning, match=f"^{re.escape(sentence)}$"):
        recipe_of(21)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        recipe_of(20), recipe_of(21, max_steps=21), recipe_of(21, gradient_accumulation_steps=1)


def test_numbers_may_be_traced():
    def clip(value):
        return recipes.transformers({"max_grad_norm": value}, num_training_steps=9).clip_norm

    limits = jax.vmap(clip)(jnp.array([0.5, 0.0]))
    np.testing.assert_array_equal(limits, [0.5, jnp.inf])
    for key in ("warmup_ratio", "warmup_steps"):

        def rate(value, key=key):
            recipe = recipes.transformers({key: value}, num_training_steps=9)
            return recipe.at(3)["decay"]["learning_rate"]

        with pytest.raises(TypeError, match=rf"'{key}'\] must be a number, for it sets a count"):
            jax.vmap(rate)(jnp.array([0.1, 0.2]))


def test_counts_may_be_whole_floats():
    def setting_of(steps):
        kwargs = {"num_decay_steps": steps, "num_stable_steps": steps}
        arguments = {"lr_scheduler_type": "warmup_stable_decay", "lr_scheduler_kwargs": kwargs}
        return live.Setting({"gradient_accumulation_steps": 1, **arguments}, 30, None)

    optimizer, scheduler = live.create(setting_of(10.0).full(), 30, live.Net())
    theirs = live.rates(optimizer, scheduler, setting_of(10.0)).astype(np.float32)
    np.testing.assert_array_equal(live.our_rates(live.recipe_of(setting_of(10.0))), theirs)
    assert live.recipe_of(setting_of(10.0)) == live.recipe_of(setting_of(10))


def test_every_other_optimizer_is_refused_by_name():
    for name in {entry.value for entry in OptimizerNames} - set(live.OPTIMS) | {"adamw_hf"}:
        with pytest.raises(ValueError, match=rf"optim'\] must be one of adamw_torch, .* '{name}'$"):
            recipes.transformers({"optim": name}, num_training_steps=9)


KWARGS = "lr_scheduler_kwargs"
REFUSED = {
    "plateau": (
        {"lr_scheduler_type": "reduce_lr_on_plateau"},
        "got reduce_lr_on_plateau, which follows a metric",
    ),
    "greedy": ({"lr_scheduler_type": "greedy"}, "got greedy, which follows a metric"),
    "unknown schedule": (
        {"lr_scheduler_type": "cosin"},
        "must be one of constant, linear, .*cosin",
    ),
    "typo": ({"learning_rates": 0.1}, "got 'learning_rates'. Did you mean 'learning_rate'"),
    "another's key": ({"lr": 0.1}, "got 'lr'. Did you mean 'learning_rate'"),
    "unknown kwarg": ({KWARGS: {"num_cycles": 2}}, "of linear must be empty, got num_cycles"),
    "ratio above 1": ({"warmup_ratio": 2.0}, "warmup_ratio must be from 0 to 1, got 2.0"),
    **{
        f"{key} of others": ({key: 1}, f"got '{key}'. Did you mean '{name}'")
        for key, name in {
            "betas": "adam_beta1",
            "min_lr": KWARGS,
            "num_cycles": KWARGS,
            "clip_grad": "max_grad_norm",
            "gradient_clipping": "max_grad_norm",
            "grad_accum_steps": "gradient_accumulation_steps",
        }.items()
    },
    "last_epoch": (
        {"lr_scheduler_type": "cosine", KWARGS: {"last_epoch": 3}},
        "of cosine must be among num_cycles, got last_epoch",
    ),
    "no lowest": (
        {"lr_scheduler_type": "cosine_with_min_lr"},
        "one of min_lr and min_lr_rate must",
    ),
    "no decay steps": ({"lr_scheduler_type": "warmup_stable_decay"}, "num_decay_steps must be in"),
    "decay type": (
        {
            "lr_scheduler_type": "warmup_stable_decay",
            KWARGS: {"num_decay_steps": 3, "decay_type": "exp"},
        },
        "decay_type must be one of linear, 1-sqrt, cosine, got 'exp'",
    ),
    "end above": (
        {"lr_scheduler_type": "polynomial", KWARGS: {"lr_end": 1.0}},
        r"lr_init must be above lr_end, 1.0, got 5e-05",
    ),
    "no decay": (
        {"lr_scheduler_type": "polynomial", "warmup_steps": 9},
        "num_training_steps must be other than num_warmup_steps, 9",
    ),
    "adafactor of version 4": ({"adafactor": True}, r"arguments\['adafactor'\] must be absent"),
    "galore's": ({"optim_target_modules": ["a"]}, r"'optim_target_modules'\] must be absent"),
    "by module": (
        {"learning_rate_mapping": {"a": 1.0}},
        "got {'a': 1.0}: a rate for each module is",
    ),
    "deepspeed": ({"deepspeed": "ds.json"}, r"arguments\['deepspeed'\] must be absent"),
    "accelerate's": (
        {"accelerator_config": {"gradient_accumulation_kwargs": {"num_steps": 4}}},
        "Pass it as gradient_accumulation_steps",
    ),
    "no epoch": ({"gradient_accumulation_steps": 2}, "steps_per_epoch must be given with"),
    "half a batch": ({"gradient_accumulation_steps": 0}, "must be an integer of at least 1, got 0"),
    "batches for updates": ({"max_steps": 5}, "must agree with max_steps of arguments, got 9"),
    "negative rate": ({"learning_rate": -1.0}, "a finite number of at least 0, got -1.0"),
    "negative warm-up": (
        {"warmup_steps": -1},
        "warmup_steps must be a finite number of at least 0",
    ),
    "words": ({"optim": "sgd", "optim_args": "momentum"}, "must be key=value,key=value, got 'mom"),
    "no number": ({"optim": "sgd", "optim_args": "momentum=x"}, "momentum of optim_args must be a"),
    "kwargs text": ({KWARGS: "{a"}, r"lr_scheduler_kwargs'\] must be JSON, got '\{a'"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_unsupported_arguments_are_refused_in_a_sentence(what):
    settings, message = REFUSED[what]
    with pytest.raises(ValueError, match=message):
        recipes.transformers(settings, num_training_steps=9)


def test_arguments_of_wrong_types_are_refused():
    with pytest.raises(TypeError, match=r"got TrainingArguments. Pass arguments.to_dict\(\)"):
        recipes.transformers(live.Setting({}, 9, None).full(), num_training_steps=9)
    with pytest.raises(TypeError, match="num_training_steps must be an integer of at least 1"):
        recipes.transformers({}, num_training_steps=9.5)
    with pytest.raises(TypeError, match="lr_scheduler_kwargs'] must be a mapping or None"):
        recipes.transformers({"lr_scheduler_kwargs": 3}, num_training_steps=9)
    with pytest.raises(TypeError, match=r"'max_grad_norm'] must be a number or None, got '1.0'"):
        recipes.transformers({"max_grad_norm": "1.0"}, num_training_steps=9)
    with pytest.raises(TypeError, match=r"'learning_rate'] must be a number, got None"):
        recipes.transformers({"learning_rate": None}, num_training_steps=9)
    lowest = {"lr_scheduler_type": "cosine_with_min_lr", "lr_scheduler_kwargs": {"min_lr": "a"}}
    with pytest.raises(TypeError, match="min_lr must be a finite number of at least 0, got 'a'"):
        recipes.transformers(lowest, num_training_steps=9)
