"""The figures in README and docs are those that scripts wrote to ``benchmarks/results``, or are
counted here.

``QUOTES`` holds the sentence of each, with ``{}`` in place of a number, which must be the figure
rounded to the digits that the page shows.
"""

import collections
import functools
import importlib
import json
import re
from collections.abc import Callable, Iterable
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import bounds
import jax
import numpy as np
import pytest
from flax import nnx

from jaxsched import lr_scheduler, optimizers, param_groups, recipes, schedules
from jaxsched.examples.resnet import ResNet18
from jaxsched.flax import by_module
from jaxsched.parity import ulps

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"


def load(script: str) -> dict[str, Any]:
    """Return what a script of ``benchmarks`` wrote."""
    return json.loads((RESULTS / f"{script}.json").read_text())


def claims(script: str, *names: str) -> list[float]:
    """Return figures that a script of ``benchmarks`` measured."""
    measured = load(script)["claims"]
    return [measured[name]["measured"] for name in names]


def find_claims(script: str, pattern: str) -> list[tuple[str, float]]:
    """Return the claims of a script whose names match: the first group of the pattern, and the figure."""
    measured = load(script)["claims"]
    matches = [(re.fullmatch(pattern, name), row["measured"]) for name, row in measured.items()]
    return [(match[1], value) for match, value in matches if match]


def sum_claims(script: str, pattern: str) -> list[float]:
    """Return the sum of the figures of such claims, and of the numbers that the pattern's group matches."""
    rows = find_claims(script, pattern)
    return [sum(value for _, value in rows), sum(int(n.replace(",", "")) for n, _ in rows)]


def times_faster(script: str, *names: str) -> list[float]:
    return [1 / ratio for ratio in claims(script, *names)]


@functools.cache
def article_rates() -> dict[str, np.ndarray]:
    """Return torch's rates in the article's run, by group."""
    groups = recipes.recorded("yolov5_resnet18").groups
    return {label: group["learning_rate"] for label, group in groups.items()}


@functools.cache
def port_distances() -> tuple[np.ndarray, np.ndarray]:
    """Return the ULP of a port with the cosine of the current epoch, and its error in % of the peak."""
    torchs = article_rates()["weight"]
    cosine = lr_scheduler.lambda_lr(0.01, schedules.cosine(100, lrf=0.2))
    port = schedules.warmup(schedules.per_epoch(cosine, 30), 1000, start=0.0)
    values = np.asarray(port(np.arange(len(torchs))))
    return ulps(values, torchs), 100 * np.abs(values - torchs) / torchs.max()


def article() -> list[float]:
    """Return the wrong iterations of that port, all iterations, and its largest error."""
    ulp, error = port_distances()
    return [np.count_nonzero(ulp), len(ulp), error.max()]


def first_wrong() -> list[float]:
    return [np.flatnonzero(port_distances()[0])[0], *article()]


def borders() -> list[float]:
    """Return the borders of epochs in the warm-up at which the rate drops, and all of them."""
    rate, starts = article_rates()["weight"], np.arange(30, 1000, 30)
    return [np.count_nonzero(rate[starts] < rate[starts - 1]), len(starts)]


def epoch_ends() -> list[float]:
    """Return rates at ends of epochs: the weights' first, highest and last, the biases' first."""
    weight, bias = (article_rates()[label][29::30] for label in ("weight", "bias"))
    return [weight[0], weight.max(), weight.argmax(), weight[-1], bias[0]]


def float32_rate() -> list[float]:
    """Return the distance of a schedule from one that is rounded at each of 40 steps, and the steps."""
    rates = [np.float32(0.1)]
    for _ in range(40):
        rates.append(rates[-1] * np.float32(0.9))
    ours = np.asarray(lr_scheduler.exponential_lr(0.1, 0.9)(np.arange(41)))
    return [ulps(ours, np.array(rates)).max(), 40]


@functools.cache
def labels() -> dict[str, list[int]]:
    """Return the parameters of ResNet-18 that each rule labels norm, weight and bias."""
    model = nnx.eval_shape(lambda: ResNet18(10, rngs=nnx.Rngs(0)))
    params = nnx.state(model, nnx.Param)
    rules = {
        "by_leaf_name": param_groups.by_leaf_name,
        "by_module": by_module(model),
        "by_dotted_name": param_groups.by_dotted_name,
    }
    counts = {}
    for name, rule in rules.items():
        tree = rule(params) if callable(rule) else rule
        counts[name] = collections.Counter(jax.tree.leaves(tree))
    return {k: [count[g] for g in ("norm", "weight", "bias")] for k, count in counts.items()}


def conformance(first: str) -> list[list[str]]:
    """Return the rows of a table of docs/conformance.md, by the first cell of its head."""
    _, _, table = (ROOT / "docs/conformance.md").read_text().partition(f"\n| {first} |")
    lines = table.partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def scheduler_settings() -> list[float]:
    """Return torch's classes, the settings of each, and those of compositions, if all are equal."""
    rows = [row for row in conformance("class") if "Optax" not in row[1]]
    equal = [tuple(map(int, row[2].split(" of "))) for row in rows]
    assert all(count == of for count, of in equal)
    classes = {name for row in rows for name in row[0].split(", ")} - {"nested"}
    settings = {of for _, of in equal}
    return [len(classes), max(settings), min(settings)] if len(settings) == 2 else []


def rules() -> list[float]:
    """Return torch's rules, and the largest distance of a rule other than Muon."""
    far = {row[0]: max(float(row[2]), float(row[3])) for row in conformance("rule")}
    assert set(far) <= set(optimizers.__all__)
    return [len(far.keys() - {"musgd"}), max(far[name] for name in far.keys() - {"muon"})]


def other_recipes() -> list[float]:
    """Return the settings of transformers and timm that are equal, and those of updates in the bound."""
    rows = conformance("recipe")
    (equal,), (updates,) = ({row[k] for row in rows} for k in (2, 6))
    counts = [*map(int, equal.split(" of ")), *map(int, updates.split(" of "))]
    assert counts[::2] == counts[1::2]
    return counts[::2]


def releases() -> list[float]:
    """Return the releases of Ultralytics whose recorded runs are all equal."""
    rows = conformance("release")
    assert all(runs == equal for _, runs, equal, _ in rows)
    return [len(rows)]


def updates(leaves: int, what: str) -> list[float]:
    """Return a figure of the updates of SGD, Adam and AdamW."""
    sgd = claims("sgd_update", f"sgd, {leaves:,} leaves{what}")
    names = (f"{rule}, {leaves:,} leaves{what}" for rule in ("adam", "adamw"))
    return sgd + claims("adam_update", *names)


def compiled_update(what: str, *rules: str) -> list[float]:
    return claims("compiled_update", *(f"{rule}: {what}" for rule in rules))


def trace_and_compile(
    case: str, groups: Iterable[int], against: str = "plain Optax"
) -> list[float]:
    leaves = case.partition(", ")[2].partition(" ")[0].replace(",", "")
    script = "trace_compile" if leaves == "62" else f"trace_compile_{leaves}"
    names = (f"trace and compile / {against}, {case}, {n} groups" for n in groups)
    return claims(script, *names)


def by_rule(pattern: str) -> list[float]:
    """Return a figure of ``elsewhere`` for SGD, Adam and AdamW."""
    return claims("elsewhere", *(pattern.format(rule) for rule in ("sgd", "adam", "adamw")))


def collectives() -> list[float]:
    ways = ("data parallel", "fully sharded")
    return claims("elsewhere", *(f"4 TPU v5e, {way}: what gathers in the update" for way in ways))


def patches() -> list[float]:
    """Return the least and largest share of XLA's time at up to 4 positions, and that at 4 × 4."""
    times = dict(find_claims("training_step", r"(.*): patches / XLA"))
    few = [t for name, t in times.items() if re.search(r"on 1 × 1|on 2 × 2|4 × 4, stride 2", name)]
    return [min(few), max(few), times["64 to 64, 3 × 3 on 4 × 4"]]


def kills() -> list[float]:
    figures = load("kills")
    assert figures["trace equal to the byte"]
    names = ("kills", "iterations", "kills inside a save", "arrays equal to the bit", "arrays")
    return [figures[name] for name in names]


def fuzz() -> list[float]:
    figures = load("fuzz")
    return [figures["cases"], len(figures["neither right nor refused"])]


def soak() -> list[float]:
    notes = load("soak")["notes"]
    resident = [note["resident MiB"] for note in notes]
    last = notes[-1]
    return [last["iteration"], last["compilations"], max(resident) - resident[0]]


KINDS = ("curve", "update")


def planted_mistakes() -> list[float]:
    """Return the planted mistakes of curves and updates, of each those missed, and wrong correct runs."""
    missed = [
        [v for _, v in find_claims("diagnosis", rf"({kind}), .*: missed of 1")] for kind in KINDS
    ]
    pairs = [figure for values in missed for figure in (sum(values), len(values))]
    return [*map(len, missed), *pairs, *(v for _, v in find_claims("diagnosis", r"(correct .*)"))]


HALVES = ("seen", "aside", "fresh")


def verdicts(half: str, kinds: Iterable[str] = ("determined", "opaque")) -> list[float]:
    """Return the ports of each kind, and how many have the right cause first, none, or another."""
    figures = []
    for kind in kinds:
        counts = claims(
            "wrong_ports", *(f"{half}, {kind}: {v}" for v in ("right", "none", "wrong"))
        )
        figures += [sum(counts), *counts]
    return figures


def ports() -> list[float]:
    """Return all ports, those with a slip, and the correct ones."""
    cases = [
        case for half in HALVES for case in importlib.import_module(f"wrong_ports.{half}").CASES
    ]
    wrong = sum(bool(case.expected) for case in cases)
    return [len(cases), wrong, len(cases) - wrong]


def correct_ports() -> list[float]:
    rows = [verdicts(half, ["correct"]) for half in HALVES]
    return [figure for total, right, _, _ in rows for figure in (right, total)]


README, BENCHMARKS, CHECKING = "README.md", "benchmarks/README.md", "docs/checking.md"
POLICY, QUICKSTART, INDEX = "docs/policy.md", "docs/quickstart.md", "docs/recipes/index.md"
RULES = ("sgd", "adam", "adamw")
LEAVES = "trace and compile, {} leaves, 3{} groups, constant rates | plain Optax"
OLD_LIBTPU = "libtpu-0.0.42.1/elsewhere"
QUOTES: list[tuple[str, str, Callable[[], Iterable[float]]]] = [
    (README, "wrong at {} of {} iterations, by at most {} %", article),
    (README, "up to {} % of the peak for a straightforward port, which is wrong at {} iterations", lambda: article()[::-2]),
    (README, "{} random settings each of transformers and timm", lambda: other_recipes()[:1]),
    (README, "torch's schedulers, {} classes | {} random settings a class, {} of compositions: all equal", scheduler_settings),
    (README, "{} rules of torch.optim, and Ultralytics' MuSGD; clip, accumulation, average | within {}", rules),
    (README, "Muon, which iterates in bfloat16, within {} times the sum of its rates", lambda: [bounds.MUON_BOUND]),
    ("jaxsched/optimizers/_muon.py", "a parameter is within {} times the sum of γr so far", lambda: [bounds.MUON_BOUND]),
    ("jaxsched/optimizers/_musgd.py", "a parameter is within {} times the sum of γρ so far", lambda: [bounds.MUON_BOUND]),
    ("jaxsched/optimizers/_musgd.py", "With float32 on both sides it is within {} over", lambda: [bounds.MUSGD_FLOAT32_BOUND]),
    (POLICY, "at {} of the {} borders", borders),
    (POLICY, "wrong from iteration {} on, at {} of {} iterations. The error is at most {} %", first_wrong),
    (POLICY, "weight and norm rise from {} to {} at epoch {} and fall along a cosine to {}; bias falls in a line from {}", epoch_ends),
    (QUICKSTART, "`param_groups.by_leaf_name` | {} / {} / {} |", lambda: labels()["by_leaf_name"]),
    (QUICKSTART, "`jaxsched.flax.by_module(model)` | {} / {} / {} |", lambda: labels()["by_module"]),
    (QUICKSTART, "`param_groups.by_dotted_name` | {} / {} / {} |", lambda: labels()["by_dotted_name"]),
    (CHECKING, "within {} of the largest entry that the leaf has had so far, in float64, and within {} ULP", lambda: [bounds.BOUND, bounds.FLOAT32_BOUND]),
    (CHECKING, "a matter of rounding; {} is not", lambda: [port_distances()[0].max()]),
    (CHECKING, "the reference's largest value: {} % for the weights", lambda: article()[2:]),
    (CHECKING, "{} where torch recurses", lambda: [bounds.CLOSED_BOUND]),
    (CHECKING, "it is up to {} ULP off in {} steps of `ExponentialLR`", float32_rate),
    (CHECKING, "with libtpu 0.0.42.1, {} of the article's", partial(claims, OLD_LIBTPU, "TPU, likewise, in XLA's own float64")),
    (CHECKING, "of the article's {} hyperparameters would be an ULP off, with 0.0.52 {}", lambda: [27_000, *claims("elsewhere", "TPU, likewise, in XLA's own float64")]),
    (INDEX, "the script's own run: {} of {} iterations equal", lambda: [3000, len(article_rates()["weight"])]),
    (INDEX, "recorded runs of {} releases, all equal", releases),
    (INDEX, "`TrainingArguments` | {} of 200 random settings equal", lambda: other_recipes()[:1]),
    (INDEX, "1.0.31 | `args.yaml` | {} of 200 random settings equal", lambda: other_recipes()[:1]),
    ("docs/recipes/timm.md", "{} random settings, from which timm's own factories", lambda: other_recipes()[:1]),
    ("docs/recipes/timm.md", "50 updates of {} of them", lambda: other_recipes()[1:]),
    ("docs/recipes/transformers.md", "{} random settings, from which the library's own factories", lambda: other_recipes()[:1]),
    ("docs/recipes/transformers.md", "50 updates of {} of them", lambda: other_recipes()[1:]),
    ("docs/recipes/ultralytics.md", "trainers of {} releases were run", releases),
    (BENCHMARKS, "all scheduled | plain Optax | {} (shortest runs {})", partial(claims, "quiet/sgd_update", "SGD update / plain Optax", "the same, shortest runs")),
    (BENCHMARKS, "its temporaries, in models | plain Optax {} | {}", lambda: compiled_update("temporaries / model, plain Optax", "sgd") + compiled_update("temporaries / model", "sgd")),
    (BENCHMARKS, "the same update | torch foreach | {} |", partial(claims, "quiet/sgd_update", "SGD update / torch foreach")),
    (BENCHMARKS, "| torch fused | {} |", partial(claims, "quiet/sgd_update", "SGD update / torch fused")),
    (BENCHMARKS, "Adam update | plain Optax | {} (shortest runs {})", partial(claims, "quiet/adam_update", "adam / plain Optax", "adam / plain Optax, shortest runs")),
    (BENCHMARKS, "AdamW update | plain Optax | {} (shortest runs {})", partial(claims, "quiet/adam_update", "adamw / plain Optax", "adamw / plain Optax, shortest runs")),
    (BENCHMARKS, "torch foreach; fused | {}, {}; {}, {}", lambda: claims("quiet/adam_update", *(f"{rule} / torch {kind}" for kind in ("foreach", "fused") for rule in RULES[1:]))),
    (BENCHMARKS, "including those of loops | plain Optax | {}, {}, {}", partial(compiled_update, "kernels / plain Optax", *RULES)),
    (BENCHMARKS, LEAVES.format(62, " and 30") + ", constant schedules | {}, {}", partial(trace_and_compile, "constant, 62 leaves", (3, 30))),
    (BENCHMARKS, "likewise, a cosine by epoch | plain Optax | {}, {}", partial(trace_and_compile, "cosine, 62 leaves", (3, 30))),
    (BENCHMARKS, "likewise a warm-up | plain Optax with `jnp.where` | {}, {}", partial(trace_and_compile, "warm-up, 62 leaves", (3, 30))),
    (BENCHMARKS, "| plain Optax with `jnp.interp` | {}, {}", partial(trace_and_compile, "warm-up, 62 leaves", (3, 30), "plain Optax with jnp.interp")),
    (BENCHMARKS, LEAVES.format("1,000", ", 30, 300") + " | {}, {}, {}", partial(trace_and_compile, "constant, 1,000 leaves", (3, 30, 300))),
    (BENCHMARKS, LEAVES.format("10,000", "") + " | {}, one run", partial(trace_and_compile, "constant, 10,000 leaves", (3,))),
    (BENCHMARKS, "At 10,000 leaves {} % of the time is XLA's", lambda: [100 * claims("trace_compile_10000", "XLA's share of trace and compile, constant, 10,000 leaves, 3 groups")[0]]),
    (BENCHMARKS, "loop over `LambdaLR` | {} times faster", partial(times_faster, "curves", "trace / loop over LambdaLR")),
    (BENCHMARKS, "`OneCycleLR` per batch | {} times faster", partial(times_faster, "curves", "trace / OneCycleLR per batch")),
    (BENCHMARKS, "{} compilation; {} times faster", partial(claims, "sweep", "compilations of the sweep", "one recipe at a time / sweep")),
    (BENCHMARKS, "`import optax` | {} |", partial(claims, "import_time", "from jaxsched import * / import optax")),
    (BENCHMARKS, "the step | {}; whole steps {}", partial(claims, "schedule_cost", "schedules alone / step", "scheduled / constant")),
    (BENCHMARKS, "an iteration of `jaxsched train`, ResNet-18 | torch | {}", partial(claims, "training_step", "iteration / torch")),
    (BENCHMARKS, "with XLA's convolutions | {}", partial(claims, "training_step", "iteration / with XLA's convolutions")),
    (BENCHMARKS, "take {} to {} of the time of XLA's convolutions if the result has at most 2 × 2 positions, and {} if", patches),
    ("jaxsched/examples/patches.py", "take {} to {} times as long at 2 × 2 and 1 × 1", lambda: [1 / t for t in patches()[1::-1]]),
    (BENCHMARKS, "a note of `record` | a training step | {}", partial(claims, "recording_cost", "a note / step")),
    (BENCHMARKS, "share of the memory bandwidth | not measured | 0.8 | {}, {}, {} |", partial(updates, 62, ": share of the memory bandwidth")),
    (BENCHMARKS, "share of the memory bandwidth | not measured | 0.8 | {} each |", lambda: updates(1000, ": share of the memory bandwidth")[:1]),
    (BENCHMARKS, "SGD, Adam, AdamW, 1,000 leaves | torch fused | not measured | 1.0 | {}, {}, {} |", partial(updates, 1000, " / torch fused")),
    (BENCHMARKS, "torch foreach | not measured | | {}, {}, {} |", partial(updates, 1000, " / torch foreach")),
    (BENCHMARKS, "plain Optax | not measured | 1.0 | {}, {}, {} |", partial(updates, 1000, " / plain Optax")),
    (BENCHMARKS, "its recorded run | not measured | 0 | {} of {} |", partial(sum_claims, "device_parity", r".*hyperparameters that differ, of ([\d,]+)")),
    (BENCHMARKS, "200 settings a scheduler | torch | not measured | 0 | {} of {} |", partial(sum_claims, "device_parity", r".*values that differ, of ([\d,]+)")),
    (BENCHMARKS, "beyond their bound | torch | not measured | 0 | {} of {} |", partial(sum_claims, "device_parity", r".*settings beyond the bound, of ([\d,]+)")),
    (BENCHMARKS, "SGD's kernels read and write | {}, as plain Optax", partial(claims, "elsewhere", "TPU v5e, sgd: arrays of the model's size moved")),
    (BENCHMARKS, "likewise Adam and AdamW | {}, as plain Optax", partial(claims, "elsewhere", "TPU v5e, adam: arrays of the model's size moved")),
    (BENCHMARKS, "H100 | kernels / plain Optax, SGD, Adam, AdamW | {}, {}, {}", partial(by_rule, "H100, {}: kernels / plain Optax")),
    (BENCHMARKS, "H100 | temporaries, MiB: SGD, Adam, AdamW | {}, {}, {}", partial(by_rule, "H100, {}: temporaries, MiB")),
    (BENCHMARKS, "TPU v5e | temporaries, MiB: SGD, Adam, AdamW | {}, {}, {}", partial(by_rule, "TPU v5e, {}: temporaries, MiB")),
    (BENCHMARKS, "of the article's run that are not torch's | {} of {} |", partial(sum_claims, "elsewhere", r"TPU, the article's run: off, of ([\d,]+)")),
    (BENCHMARKS, "six recorded runs of YOLOv5 and Ultralytics | {} of {} |", partial(sum_claims, "elsewhere", r"TPU, (?:y5|ul)_.*: off, of ([\d,]+)")),
    (BENCHMARKS, "twelve of torch's schedulers, six settings each | {} of {} |", partial(sum_claims, "elsewhere", r"TPU, \w+(?:LR|Restarts): off, of ([\d,]+)")),
    (BENCHMARKS, "the article's run, in XLA's own float64 | {} of 27,000; {} with libtpu 0.0.42.1", lambda: claims("elsewhere", "TPU, likewise, in XLA's own float64") + claims(OLD_LIBTPU, "TPU, likewise, in XLA's own float64")),
    (BENCHMARKS, "data parallel and fully sharded | {}, {} |", collectives),
    (BENCHMARKS, "all-gathers in a training step, data parallel | {} |", partial(claims, "elsewhere", "4 TPU v5e, data parallel: all-gathers in a training step")),
    (BENCHMARKS, "too, and {} values are an ULP off", partial(claims, OLD_LIBTPU, "TPU, likewise, in XLA's own float64")),
    (BENCHMARKS, "in {} instructions for XLA's {}", partial(claims, "elsewhere", "TPU, its instructions, float64 lowered here", "TPU, its instructions, float64 lowered by XLA")),
    (BENCHMARKS, "moved by an ULP at random, {} of the article's values change", partial(claims, "elsewhere", "TPU, likewise, each division and root an ULP off or not")),
    (BENCHMARKS, "SIGKILL at {} random moments of one run of {} iterations, resumed each time | {} were inside a save; {} of {} arrays", kills),
    (BENCHMARKS, "`benchmarks.fuzz` | {} random trees, labels, recipes and damaged files | {} neither", fuzz),
    (BENCHMARKS, "{} updates | {} compilation; resident memory grows by {} MiB", soak),
    (BENCHMARKS, "{} mistakes of curves and {} of updates, each planted in a random run | {} of {} and {} of {} missed; {} correct runs and {} correct updates", planted_mistakes),
    (BENCHMARKS, "causes included | at most {} s", partial(claims, "compare_cost", "seconds of the slowest")),
    (BENCHMARKS, "in the search of causes | {} detected", lambda: [100 - claims("mutation", "faults of 100 that no test notices")[0]]),
    (BENCHMARKS, "holds {} ports that were written from README, docs and docstrings alone, without a look at the search of causes. {} have one slip or two, {} are correct.", ports),
    (BENCHMARKS, "`benchmarks.wrong_ports` | {} ports", lambda: ports()[:1]),
    *((BENCHMARKS, f"| {half} | determined | {{}} | {{}} | {{}} | {{}} | | | opaque | {{}} | {{}} | {{}} | {{}} |", partial(verdicts, half)) for half in HALVES),
    (BENCHMARKS, "No correct port has a cause: {} of {}, {} of {} and {} of {}.", correct_ports),
]  # fmt: skip


def list_mistakes(text: str, sentence: str, figures: Iterable[float]) -> list[str]:
    """Describe the numbers of a sentence that differ from the figures."""
    text = " ".join(text.split())
    number = r"(\d[\d,]*(?:\.\d+)?(?:e-?\d+)?)"
    match = re.search(number.join(map(re.escape, sentence.split("{}"))), text)
    if match is None:
        return [f"no sentence {sentence!r}"]
    mistakes = []
    for quoted, figure in zip(match.groups(), figures, strict=True):
        exact = Decimal(quoted.replace(",", ""))
        half_a_digit = Decimal((0, (5,), int(exact.as_tuple().exponent) - 1))
        if abs(float(exact) - figure) > 1.0001 * float(half_a_digit):
            mistakes.append(f"{quoted} for {figure:.4g} in {sentence!r}")
    return mistakes


@pytest.mark.parametrize(("page", "sentence", "figures"), QUOTES)
def test_pages_quote_what_was_measured(page, sentence, figures):
    assert list_mistakes((ROOT / page).read_text(), sentence, figures()) == []


def test_a_wrong_figure_is_detected():
    text = "| wrong at 1,980 of\n3,000 | 0.42 | within 2e-15 |"
    assert list_mistakes(text, "at {} of {} | {}", [1980, 3000, 0.4199]) == []
    assert list_mistakes(text, "at {} of {} | {}", [1981, 3000, 0.43]) == [
        "1,980 for 1981 in 'at {} of {} | {}'",
        "0.42 for 0.43 in 'at {} of {} | {}'",
    ]
    assert list_mistakes(text, "within {}", [2.4e-15]) == []
    assert list_mistakes(text, "within {}", [2.6e-15]) == ["2e-15 for 2.6e-15 in 'within {}'"]
    assert list_mistakes(text, "wrong at {} places", [1]) == ["no sentence 'wrong at {} places'"]
