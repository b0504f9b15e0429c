"""jaxsched.torch.from_torch against the live objects that it converted, run afterwards."""

import math
import os
import re
import types
import weakref

import jax
import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the reference is live torch")

from conftest import long_after  # noqa: E402
from flax import nnx  # noqa: E402
from scheduler_settings import CASES, compose  # noqa: E402
from torch.optim import lr_scheduler as reference  # noqa: E402
from torchvision_import import import_models, resnet18  # noqa: E402

from jaxsched import lr_scheduler, param_groups, schedules  # noqa: E402
from jaxsched.examples.resnet import ResNet18  # noqa: E402
from jaxsched.torch import from_torch, match_names, parameter_labels, record  # noqa: E402

pytestmark = [
    pytest.mark.torch,
    pytest.mark.filterwarnings("ignore:.*lr_scheduler.step:UserWarning"),
]

DRAWS = [1, 0, *range(2, 8)]  # at 0 the scheduler is at its start


def parameters(n=1):
    return [torch.nn.Parameter(torch.ones(2, 3)) for _ in range(n)]


def sgd(lr=0.1, n=1):
    return torch.optim.SGD([{"params": [p]} for p in parameters(n)], lr=lr, momentum=0.9)


def live_values(optimizer, advance, iterations, steps_per_epoch=1, done=0):
    """Return the hyperparameters that the live objects set: {(group, key): array}, in float64."""
    rows = []
    for iteration in range(iterations):
        if iteration and (iteration + done) % steps_per_epoch == 0:
            advance()
        rows.append(
            [
                (float(group["lr"]), *map(float, group.get("betas", (group.get("momentum"),))))
                for group in optimizer.param_groups
            ]
        )
    return np.array(rows)


def recipe_values(recipe, iterations):
    with jax.enable_x64(True):
        trace = recipe.trace(iterations)
    names = [
        name for name in ("learning_rate", "momentum", "b1", "b2") if name in trace.groups["0"]
    ]
    columns = [[group[name] for name in names] for group in trace.groups.values()]
    return np.array(columns).transpose(2, 0, 1)


def first_difference(ours, theirs):
    """Describe the first difference of two runs; empty if they are equal to the bit."""
    assert ours.shape == theirs.shape
    wrong = np.argwhere(ours != theirs)
    return f"(iteration, group, quantity) {wrong[0]}: {ours[*wrong[0]]!r}" if wrong.size else ""


def check(optimizer, scheduler, iterations, *, steps_per_epoch=1, done=0, advance=None):
    recipe = from_torch(
        optimizer,
        scheduler,
        steps_per_epoch=steps_per_epoch,
        batches_done=done,
        iterations=iterations,
    )
    ours = recipe_values(recipe, iterations)
    # The same objects are run only now: the conversion did not change them.
    theirs = live_values(optimizer, advance or scheduler.step, iterations, steps_per_epoch, done)
    difference = first_difference(ours, theirs)
    assert not difference, f"{type(scheduler).__name__}: {difference}"
    moving = (theirs[1:] != theirs[:-1]).any()
    assert not moving or first_difference(ours[1:], theirs[:-1]), "a wrong run passes too"
    return recipe


@pytest.mark.parametrize("draws", long_after(1, [DRAWS[:1], DRAWS[1:]]))
@pytest.mark.parametrize("name", CASES)
def test_every_scheduler_is_converted_at_any_step(name, draws):
    case = CASES[name]
    for draw in draws:
        rng = np.random.default_rng([*name.encode(), 1, draw])
        setting = case.sample(rng)
        optimizer = sgd(setting.arguments["base_lr"])
        scheduler = case.torch(optimizer, setting)
        position = int(rng.integers(0, setting.steps)) if draw else 0
        for _ in range(position):
            scheduler.step()
        k = int(rng.integers(1, 4))
        done = int(rng.integers(0, k))
        steps = setting.steps - position
        check(optimizer, scheduler, min(60, (steps + 1) * k - done), steps_per_epoch=k, done=done)


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.closed])
def test_known_schedulers_continue_past_the_table(name):
    case = CASES[name]
    setting = case.sample(np.random.default_rng(3))
    optimizer = sgd(setting.arguments["base_lr"])
    scheduler = case.torch(optimizer, setting)
    recipe = from_torch(optimizer, scheduler, steps_per_epoch=1, iterations=2)
    n = setting.steps
    ours, theirs = recipe_values(recipe, n), live_values(optimizer, scheduler.step, n)
    peak = np.abs(theirs).max(0)
    assert (np.abs(ours - theirs) <= 1e-11 * peak).all()


@pytest.mark.parametrize("seed", long_after(2, DRAWS))
def test_nested(seed):
    rng = np.random.default_rng(seed)
    composition = compose(rng, 0.1)
    optimizer = sgd(0.1)
    scheduler = composition.torch(optimizer)
    for _ in range(int(rng.integers(0, 30))):
        scheduler.step()
    check(optimizer, scheduler, 60)


def lambdas(optimizer):
    return reference.LambdaLR(
        optimizer, [lambda e: 0.9**e, lambda e: 1 / (1 + e), lambda e: math.cos(e) + 1.5]
    )


GROUPS = {
    "a list of lambdas": lambdas,
    "a list of cycles": lambda o: reference.OneCycleLR(o, [0.1, 0.2, 0.3], total_steps=70),
    "a list of triangles": lambda o: reference.CyclicLR(o, [0.01, 0.02, 0.03], 0.1, 7),
    "branches": lambda o: reference.LambdaLR(o, lambda e: e / 9 if e < 9 else 0.5 ** (e // 20)),
    "one for all": lambda o: reference.CosineAnnealingLR(o, 50),
}
OPTIMIZERS = {
    "SGD": lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9, nesterov=True),
    "Adam": lambda groups: torch.optim.Adam(groups, lr=0.1, betas=(0.8, 0.99), amsgrad=True),
}


@pytest.mark.parametrize("kind", OPTIMIZERS)
@pytest.mark.parametrize("case", long_after(2, GROUPS))
def test_three_groups(case, kind):
    rates = (0.1, 0.02, 3.0)
    groups = [{"params": [p], "lr": lr} for p, lr in zip(parameters(3), rates, strict=True)]
    groups[1]["weight_decay"] = 0.25
    optimizer = OPTIMIZERS[kind](groups)
    scheduler = GROUPS[case](optimizer)
    for _ in range(5):
        scheduler.step()
    recipe = check(optimizer, scheduler, 60)
    assert [group["weight_decay"] for group in recipe.groups.values()] == [0, 0.25, 0]


def test_rate_as_a_tensor():
    optimizer = torch.optim.Adam(parameters(), lr=torch.tensor(0.1))
    check(optimizer, reference.ExponentialLR(optimizer, 0.9), 40)
    before = optimizer.param_groups[0]["lr"].item()
    from_torch(optimizer, reference.ExponentialLR(optimizer, 0.9), steps_per_epoch=1, iterations=9)
    assert optimizer.param_groups[0]["lr"].item() == before


def closure_count(optimizer):
    """A closure that keeps its own count and reaches the optimizer through a cell."""
    calls = 0

    def step():
        nonlocal calls
        calls += 1
        for group in optimizer.param_groups:
            group["lr"] = 0.1 * 0.5 ** (calls // 3)
            group["weight_decay"] = 0.01 * calls

    return types.SimpleNamespace(step=step)


def test_a_closure_of_the_users_own():
    optimizer = sgd()
    scheduler = closure_count(optimizer)
    scheduler.step()
    recipe = check(optimizer, scheduler, 40)
    with jax.enable_x64(True):
        assert float(recipe.at(5)["0"]["weight_decay"]) == 0.01 * 6


def default_count(optimizer):
    def factor(epoch, calls=[0]):  # noqa: B006
        calls[0] += 1
        return 0.9 ** calls[0]

    return reference.LambdaLR(optimizer, factor)


def keyword_count(optimizer):
    def factor(epoch, *, calls=[0]):  # noqa: B006
        calls[0] += 1
        return 0.9 ** calls[0]

    return reference.LambdaLR(optimizer, factor)


def attribute_count(optimizer):
    def factor(epoch):
        factor.calls += 1
        return 0.9**factor.calls

    factor.calls = 0
    return reference.LambdaLR(optimizer, factor)


def own_method(optimizer):
    scheduler = reference.StepLR(optimizer, 3)

    def get_lr(self):
        return [0.1 / (1 + self.last_epoch) for _ in self.base_lrs]

    scheduler.get_lr = types.MethodType(get_lr, scheduler)
    return scheduler


def test_an_overridden_method_is_not_continued_past_the_table():
    scheduler = reference.StepLR(sgd(), 3)
    usual = scheduler.get_lr
    scheduler.get_lr = lambda: usual() if scheduler.last_epoch < 20 else [0.7]
    recipe = from_torch(scheduler.optimizer, scheduler, steps_per_epoch=1, iterations=5)
    with pytest.raises(ValueError, match=r"^the table holds counts 0 to 4, got 5\."):
        recipe.at(5)


@pytest.mark.parametrize(
    "make",
    [
        default_count,
        keyword_count,
        attribute_count,
        own_method,
    ],
)
def test_the_state_that_a_function_keeps_is_copied(make):
    theirs, ours = (make(optimizer) for optimizer in (sgd(), sgd()))
    for scheduler in (theirs, ours):
        for _ in range(4):
            scheduler.step()
    check(ours.optimizer, ours, 40)
    # The live one continues from its step, as one that was never converted.
    rows = live_values(theirs.optimizer, theirs.step, 40)
    assert rows[-1, 0, 0] == ours.optimizer.param_groups[0]["lr"]


class Listed:
    """Rates by number, which step() takes."""

    def __init__(self, optimizer):
        self.optimizer, self.rates = optimizer, [1 / (1 + k) for k in range(30)]

    def step(self, epoch):
        self.optimizer.param_groups[0]["lr"] = self.rates[epoch]


def test_a_scheduler_that_takes_its_count_and_ends():
    optimizer = sgd()
    scheduler, counts = Listed(optimizer), iter(range(100))
    for _ in range(5):
        scheduler.step(next(counts))
    check(optimizer, scheduler, 25, advance=lambda: scheduler.step(next(counts)))


@pytest.mark.parametrize("by_update", [False, True])
@pytest.mark.parametrize("position", [0, 3, 20, 55])
def test_timm_cosine_with_warmup(position, by_update):
    import_models()
    scheduler = pytest.importorskip("timm.scheduler", reason="timm is of the extra peers")
    optimizer = sgd(0.5, n=2)
    cosine = scheduler.CosineLRScheduler(
        optimizer, 40, lr_min=1e-5, warmup_t=5, warmup_lr_init=1e-6, t_in_epochs=not by_update
    )
    step = cosine.step_update if by_update else cosine.step
    counts = iter(range(1, 1000))
    for _ in range(position):
        step(next(counts))
    k = 1 if by_update else 3
    check(optimizer, cosine, 90, steps_per_epoch=k, advance=lambda: step(next(counts)))


@pytest.mark.parametrize("position", [0, 7, 30])
def test_transformers_cosine_with_warmup(position):
    transformers = pytest.importorskip("transformers.optimization", reason="of the extra peers")
    optimizer = torch.optim.AdamW(parameters(), lr=5e-5)
    scheduler = transformers.get_cosine_schedule_with_warmup(optimizer, 10, 100)
    for _ in range(position):
        scheduler.step()
    check(optimizer, scheduler, 100 - position)


@pytest.fixture
def accelerator(monkeypatch):
    accelerate = pytest.importorskip("accelerate", reason="accelerate is of the extra peers")
    monkeypatch.setattr(os, "environ", {**os.environ})
    yield accelerate.Accelerator(cpu=True)
    accelerate.state.AcceleratorState._reset_state(reset_partial_state=True)
    accelerate.state.GradientState._reset_state()


def test_objects_wrapped_by_accelerate_are_unwrapped(accelerator, monkeypatch):
    plain, wrapped = [
        (optimizer, reference.StepLR(optimizer, 3))
        for optimizer in (torch.optim.AdamW(parameters(), lr=0.1) for _ in range(2))
    ]
    optimizer, scheduler = accelerator.prepare(*wrapped)
    recipe = from_torch(optimizer, scheduler, steps_per_epoch=1, iterations=20)
    assert recipe == from_torch(*plain, steps_per_epoch=1, iterations=20)
    assert recipe.origin.arguments["scheduler"] == "StepLR"
    with record(optimizer, ["all"]) as recording:
        for batch in range(20):
            accelerator.gradient_state._set_sync_gradients(batch % 2 == 1)
            wrapped[0].param_groups[0]["params"][0].grad = torch.ones(2, 3)
            optimizer.step()
            scheduler.step()
    rates = recording.trace.groups["all"]["learning_rate"]
    np.testing.assert_array_equal(np.float32(rates), recipe.trace(10).groups["0"]["learning_rate"])
    monkeypatch.setitem(type(accelerator.state)._shared_state, "num_processes", 2)
    sentence = (
        "scheduler must step once an update, got AcceleratedScheduler in 2 processes, which steps "
        "2 times. Record its run with jaxsched.torch.record."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        from_torch(optimizer, scheduler, steps_per_epoch=1)


class Weak:
    """Scheduler that holds its optimizer by a weak reference."""

    def __init__(self, optimizer, refer):
        self.optimizer_of, self.count = refer(optimizer), 0

    def step(self):
        self.count += 1
        for group in self.optimizer_of().param_groups:
            group["lr"] = 0.1 / (1 + self.count)


def test_a_weak_reference_to_the_optimizer_is_copied():
    optimizer = sgd(n=2)
    check(optimizer, Weak(optimizer, weakref.ref), 20)


def test_other_weak_references_are_refused():
    optimizer, model = sgd(), torch.nn.Linear(1, 1)
    for refer in (
        lambda _: weakref.ref(model),
        lambda optimizer: weakref.WeakMethod(optimizer.step),
        lambda optimizer: weakref.WeakSet([optimizer]),
    ):
        scheduler = Weak(optimizer, refer)
        with pytest.raises(ValueError, match=r"can be copied, .* Record its run with jaxsched"):
            from_torch(optimizer, scheduler, steps_per_epoch=1)


def test_without_a_scheduler_the_rates_are_constant():
    recipe = from_torch(torch.optim.RMSprop(parameters(), lr=0.3, centered=True, alpha=0.9))
    assert recipe.update_rule.__name__ == "rmsprop"
    assert recipe.groups["0"]["learning_rate"] == 0.3
    assert recipe.groups["0"]["centered"] is True
    assert recipe.origin.arguments["torch"] == torch.__version__


OPTIONS = {
    "ASGD": {"lambd": 0.1, "t0": 3.0},
    "Adadelta": {"rho": 0.5},
    "Adafactor": {"eps": (None, 0.1), "d": 2.0},
    "Adagrad": {"lr_decay": 0.1, "initial_accumulator_value": 0.5},
    "Adam": {"betas": (0.5, 0.6), "amsgrad": True, "maximize": True},
    "AdamW": {"betas": (0.5, 0.6), "weight_decay": 0.3},
    "Adamax": {"betas": (0.5, 0.6), "eps": 1e-3},
    "Muon": {"momentum": 0.5, "ns_steps": 3, "adjust_lr_fn": "match_rms_adamw"},
    "NAdam": {"momentum_decay": 0.1, "decoupled_weight_decay": True},
    "RAdam": {"betas": (0.5, 0.6)},
    "RMSprop": {"momentum": 0.5, "centered": True},
    "Rprop": {"etas": (0.4, 1.3), "step_sizes": (1e-3, 2.0)},
    "SGD": {"momentum": 0.5, "nesterov": True},
}


@pytest.mark.parametrize("name", OPTIONS)
def test_every_optimizer_with_its_options(name):
    optimizer = getattr(torch.optim, name)(parameters(), lr=0.25, **OPTIONS[name])
    group = from_torch(optimizer, labels=["all"]).groups["all"]
    names = {"betas": ("b1", "b2"), "etas": ("eta_minus", "eta_plus")}
    names |= {"step_sizes": ("step_size_min", "step_size_max"), "eps": ("eps1", "eps2")}
    for option, value in {"lr": 0.25, **OPTIONS[name]}.items():
        ours = {"lr": ("learning_rate",)}.get(option, names.get(option, (option,)))
        if not isinstance(value, tuple):
            ours, value = (ours[0] if len(ours) == 1 else option,), (value,)
        assert tuple(group[one] for one in ours) == value


def frozen_resnet():
    model = resnet18(num_classes=10)
    for parameter in model.layer1.parameters():
        parameter.requires_grad_(False)
    trained = [p for name, p in model.named_parameters() if name != "fc.bias"]
    groups = [{"params": [p for p in trained if p.ndim > 1]}]
    groups.append({"params": [p for p in trained if p.ndim == 1], "lr": 0.5})
    return model, torch.optim.SGD(groups, lr=0.1)


def test_labels_of_a_model_fit_the_flax_tree():
    model, optimizer = frozen_resnet()
    recipe = from_torch(optimizer, model=model, labels=["weight", "rest"])
    by_name = recipe.origin.arguments["labels"]
    assert by_name == parameter_labels(model, optimizer, ["weight", "rest"])
    flax_model = nnx.eval_shape(lambda: ResNet18(10, rngs=nnx.Rngs(0)))
    params = nnx.as_pure(nnx.state(flax_model, nnx.Param))
    ours = {
        param_groups.torch_name(param_groups.leaf_path(keys)): label
        for keys, label in jax.tree_util.tree_leaves_with_path(param_groups.fit(by_name, params))
    }
    assert ours == by_name
    assert ours["layer1.0.conv1.weight"] == ours["fc.bias"] == "frozen"
    assert (ours["conv1.weight"], ours["bn1.weight"]) == ("weight", "rest")
    mapping, unplaced = match_names(params, dict(model.named_parameters()))
    assert not unplaced
    by_path = {path: by_name[name] for path, name in mapping.items()}
    assert param_groups.fit(by_path, params) == param_groups.fit(by_name, params)
    jax.eval_shape(recipe.optimizer(by_name).init, params)


class Lookahead(torch.optim.SGD):
    pass


LIVE = sgd()


def moving_a_global():
    return types.SimpleNamespace(step=lambda: LIVE.param_groups[0].update(lr=7.0))


ERRORS = {
    "optimizer": (
        lambda: from_torch(Lookahead(parameters(), lr=0.1)),
        "Adam, AdamW, Adamax, Muon, NAdam, RAdam, RMSprop, Rprop, SGD, or Ultralytics' MuSGD, got "
        f"{Lookahead.__module__}.Lookahead. "
        "Record its run with jaxsched.torch.record.",
    ),
    "plateau": (
        lambda: from_torch(LIVE, reference.ReduceLROnPlateau(LIVE), steps_per_epoch=1),
        "scheduler must not depend on a metric, got ReduceLROnPlateau. "
        "Use jaxsched.lr_scheduler.reduce_lr_on_plateau.",
    ),
    "no-steps": (
        lambda: from_torch(LIVE, reference.StepLR(LIVE, 3)),
        "steps_per_epoch must be given with a scheduler, got None. "
        "Pass the batches between two of its steps: 1 if it steps after every batch, k if after every "
        "update of k batches.",
    ),
    "no-scheduler": (
        lambda: from_torch(LIVE, math.cos, steps_per_epoch=1),
        "scheduler must have a step(), got builtin_function_or_method.",
    ),
    "class": (
        lambda: from_torch(LIVE, reference.StepLR, steps_per_epoch=1),
        "scheduler must have rates that determine its count, got type, with the rates of 0 of its "
        "first 0 counts. Pass an object whose step() takes no count.",
    ),
    "another-optimizer": (
        lambda: from_torch(LIVE, reference.StepLR(sgd(), 3), steps_per_epoch=1),
        "scheduler must be of the optimizer that is given, got StepLR of another. "
        "Pass scheduler.optimizer.",
    ),
    "batches": (
        lambda: from_torch(LIVE, closure_count(LIVE), steps_per_epoch=3, batches_done=3),
        "batches_done must be below steps_per_epoch, got 3 of 3.",
    ),
    "labels": (
        lambda: from_torch(sgd(n=2), labels=["a"]),
        "labels must name each of 2 groups once, got ['a']. "
        "Pass a list, in the order of optimizer.param_groups.",
    ),
    "past-the-end": (
        lambda: from_torch(LIVE, closure_count(LIVE), steps_per_epoch=3, iterations=9).at(9),
        "the table holds counts 0 to 2, got 3. Give more steps, of from_torch more iterations.",
    ),
    "traced-past-the-end": (
        lambda: from_torch(LIVE, closure_count(LIVE), steps_per_epoch=3, iterations=9).trace(10),
        "the table holds counts 0 to 2, got 3. Give more steps, of from_torch more iterations.",
    ),
    "too-far": (
        lambda: from_torch(
            LIVE, reference.OneCycleLR(LIVE, 0.1, 10), steps_per_epoch=1, iterations=20
        ),
        "scheduler must make 19 steps for these iterations, got one that ends at step 11 (ValueError: "
        "Tried to step 11 times. The specified number of total steps is 10). Pass fewer iterations.",
    ),
    "global": (
        lambda: from_torch(LIVE, moving_a_global(), steps_per_epoch=1),
        "scheduler must reach its optimizer by its own attributes, got SimpleNamespace, whose copy "
        "moved the live one. Record its run with jaxsched.torch.record.",
    ),
    "generator": (
        lambda: from_torch(
            LIVE, types.SimpleNamespace(step=(x for x in ()).__next__), steps_per_epoch=1
        ),
        "scheduler must be one that can be copied, to be run apart, got SimpleNamespace "
        "(cannot pickle 'generator' object). Record its run with jaxsched.torch.record.",
    ),
}


@pytest.mark.parametrize("name", ERRORS)
def test_bad_input_gets_one_sentence(name, monkeypatch):
    call, message = ERRORS[name]
    monkeypatch.setitem(globals(), "LIVE", sgd())  # a scheduler changes its optimizer's groups
    with pytest.raises(ValueError, match=re.escape(message) + "$"):
        call()
    assert LIVE.param_groups[0]["lr"] <= 0.1


def test_without_iterations_the_table_ends_where_the_scheduler_does():
    optimizer = sgd()
    values = [1.0, 0.5, 0.25]
    recipe = from_torch(
        optimizer, reference.LambdaLR(optimizer, lambda e: values[e]), steps_per_epoch=2
    )
    assert float(recipe.at(5)["0"]["learning_rate"]) == np.float32(0.025)
    with pytest.raises(ValueError, match=r"^the table holds counts 0 to 2, got 3\."):
        recipe.at(6)


def test_a_rate_that_is_a_float32_tensor_is_rounded_at_each_step():
    """The recording is equal, and the schedule of that class is not, as docs/checking.md says."""

    def live():
        optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=torch.tensor(0.1))
        return optimizer, torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)

    recipe = from_torch(*live(), steps_per_epoch=1, iterations=41)
    optimizer, scheduler = live()
    theirs = []
    for _ in range(41):
        theirs.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    theirs = np.array(theirs, np.float32)
    np.testing.assert_array_equal(recipe.trace(41).groups["0"]["learning_rate"], theirs)
    ours = np.asarray(lr_scheduler.exponential_lr(0.1, 0.9)(np.arange(41)))
    off = abs(ours.view(np.int32) - theirs.view(np.int32))
    assert off[0] == 0
    assert off.max() == 16


@pytest.mark.parametrize(("rate", "acts"), [(1.1e-38, False), (1.2e-38, True)])
def test_a_rate_below_the_normal_numbers_is_flushed_to_zero(rate, acts):
    assert (float(schedules.constant(rate)(0)) > 0) is acts
    assert float(torch.tensor(rate)) > 0
