"""The figures in README and docs are those that scripts wrote to ``benchmarks/results``, or are
counted here.

``QUOTES`` holds the sentence of each, with ``{}`` in place of a number, which must be the figure
rounded to the digits that the page shows.
"""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from jaxsched import lr_scheduler, schedules
from jaxsched.parity import ulps
from jaxsched.recipes import recorded

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks/results"


def claims(script: str, *names: str) -> list[float]:
    """Return figures that a script of ``benchmarks`` measured."""
    measured = json.loads((RESULTS / f"{script}.json").read_text())["claims"]
    return [measured[name]["measured"] for name in names]


def article() -> list[float]:
    """Return the wrong iterations of a port with the cosine of the current epoch, all iterations, and
    the largest error in percent of the peak rate."""
    torchs = recorded("yolov5_resnet18").groups["weight"]["learning_rate"]
    cosine = lr_scheduler.lambda_lr(0.01, schedules.cosine(100, lrf=0.2))
    port = schedules.warmup(schedules.per_epoch(cosine, 30), 1000, start=0.0)
    values = np.asarray(port(np.arange(len(torchs))))
    off = np.abs(values - torchs).max() / torchs.max()
    return [np.count_nonzero(ulps(values, torchs)), len(torchs), 100 * off]


def compiled_update(what: str, *rules: str) -> list[float]:
    return claims("compiled_update", *(f"{rule}: {what}" for rule in rules))


def trace_and_compile(case: str, against: str = "plain Optax") -> list[float]:
    name = f"trace and compile / {against}, {case}, 62 leaves"
    return claims("trace_compile", f"{name}, 3 groups", f"{name}, 30 groups")


def times_faster(script: str, *names: str) -> list[float]:
    return [1 / ratio for ratio in claims(script, *names)]


def tpu_differences() -> list[float]:
    """Count the hyperparameters in the program for a TPU that differ from torch's, and all of them."""
    measured = json.loads((RESULTS / "elsewhere.json").read_text())["claims"]
    runs, schedulers = [0.0, 0], [0.0, 0]
    for name, claim in measured.items():
        if match := re.fullmatch(r"TPU, (\w+LR|\w+Restarts|(?:y5|ul)_.*): off, of ([\d,]+)", name):
            row = runs if match[1].startswith(("y5", "ul")) else schedulers
            row[0] += claim["measured"]
            row[1] += int(match[2].replace(",", ""))
    return [*runs, *schedulers]


def updates(leaves: int, what: str) -> list[float]:
    """Return a figure of the updates of SGD, Adam and AdamW."""
    sgd = claims("sgd_update", f"sgd, {leaves:,} leaves{what}")
    return sgd + claims(
        "adam_update", *(f"{r}, {leaves:,} leaves{what}" for r in ("adam", "adamw"))
    )


def device_parity(kind: str) -> list[float]:
    """Count the values of a kind that differ from torch's, and all of them."""
    measured = json.loads((RESULTS / "device_parity.json").read_text())["claims"]
    rows = [(name, claim["measured"]) for name, claim in measured.items() if f": {kind} " in name]
    counts = [int(name.rpartition(" of ")[2].replace(",", "")) for name, _ in rows]
    return [sum(value for _, value in rows), sum(counts)]


def wrong_ports() -> list[float]:
    measured = json.loads((RESULTS / "wrong_ports.json").read_text())["claims"]
    matches = [re.match(r"\w+: (\d+) of (\d+) named first", name) for name in measured]
    return [float(number) for match in matches if match for number in match.groups()[::-1]]


README, BENCHMARKS = "README.md", "benchmarks/README.md"
LEAVES = "trace and compile, 62 leaves, 3 and 30 groups, constant rates"
QUOTES = {
    "README, the port": (README, "wrong at {} of {} iterations, by at most {} %", article),
    "policy, the port": ("docs/policy.md", "wrong from iteration 1020 on, at {} of {} iterations. At most the error is {} %", article),
    "README, the picture": (README, "up to 1.6 % of the peak for a straightforward port, which is wrong at {} iterations", lambda: article()[:1]),
    "sgd": (BENCHMARKS, "all scheduled | plain Optax | {} (shortest runs {})", lambda: claims("quiet/sgd_update", "SGD update / plain Optax", "the same, shortest runs")),
    "sgd, temporaries": (BENCHMARKS, "its temporaries, in models | plain Optax {} | {}", lambda: compiled_update("temporaries / model, plain Optax", "sgd") + compiled_update("temporaries / model", "sgd")),
    "sgd, torch": (BENCHMARKS, "the same update | torch foreach | {} |", lambda: claims("quiet/sgd_update", "SGD update / torch foreach")),
    "sgd, fused": (BENCHMARKS, "| torch fused | {} |", lambda: claims("quiet/sgd_update", "SGD update / torch fused")),
    "adam": (BENCHMARKS, "Adam update | plain Optax | {} (shortest runs {})", lambda: claims("quiet/adam_update", "adam / plain Optax", "adam / plain Optax, shortest runs")),
    "adamw": (BENCHMARKS, "AdamW update | plain Optax | {} (shortest runs {})", lambda: claims("quiet/adam_update", "adamw / plain Optax", "adamw / plain Optax, shortest runs")),
    "adam, torch": (BENCHMARKS, "torch foreach; fused | {}, {}; {}, {}", lambda: claims("quiet/adam_update", *(f"{rule} / torch {kind}" for kind in ("foreach", "fused") for rule in ("adam", "adamw")))),
    "kernels": (BENCHMARKS, "including those of loops | plain Optax | {}, {}, {}", lambda: compiled_update("kernels / plain Optax", "sgd", "adam", "adamw")),
    "bandwidth, 62 leaves": (BENCHMARKS, "share of the memory bandwidth | not measured | 0.8 | {}, {}, {} |", lambda: updates(62, ": share of the memory bandwidth")),
    "1,000 leaves, fused": (BENCHMARKS, "SGD, Adam, AdamW, 1,000 leaves | torch fused | not measured | 1.0 | {}, {}, {} |", lambda: updates(1000, " / torch fused")),
    "1,000 leaves, foreach": (BENCHMARKS, "torch foreach | not measured | | {}, {}, {} |", lambda: updates(1000, " / torch foreach")),
    "1,000 leaves, Optax": (BENCHMARKS, "plain Optax | not measured | 1.0 | {}, {}, {} |", lambda: updates(1000, " / plain Optax")),
    "device, article": (BENCHMARKS, "its recorded run | not measured | 0 | {} of {} |", lambda: device_parity("hyperparameters")),
    "device, rates": (BENCHMARKS, "200 settings a scheduler | torch | not measured | 0 | {} of {} |", lambda: device_parity("values")),
    "device, rules": (BENCHMARKS, "above their bound | torch | not measured | 0 | {} of {} |", lambda: device_parity("settings")),
    "compile, constant": (BENCHMARKS, LEAVES + " | plain Optax, constant schedules | {}, {}", lambda: trace_and_compile("constant")),
    "compile, cosine": (BENCHMARKS, "62 leaves, a cosine by epoch | plain Optax | {}, {}", lambda: trace_and_compile("cosine")),
    "compile, warm-up": (BENCHMARKS, "likewise a warm-up | plain Optax with `jnp.where` | {}, {}", lambda: trace_and_compile("warm-up")),
    "compile, interp": (BENCHMARKS, "| plain Optax with `jnp.interp` | {}, {}", lambda: trace_and_compile("warm-up", "plain Optax with jnp.interp")),
    "curves": (BENCHMARKS, "loop over `LambdaLR` | {} times faster", lambda: times_faster("curves", "trace / loop over LambdaLR")),
    "curves, one cycle": (BENCHMARKS, "`OneCycleLR` per batch | {} times faster", lambda: times_faster("curves", "trace / OneCycleLR per batch")),
    "sweep": (BENCHMARKS, "one compilation; {} times faster", lambda: claims("sweep", "one recipe at a time / sweep")),
    "import": (BENCHMARKS, "`import optax` | {} |", lambda: claims("import_time", "import jaxsched / import optax")),
    "schedules": (BENCHMARKS, "the step | {}; whole steps {}", lambda: claims("schedule_cost", "schedules alone / step", "scheduled / constant")),
    "iteration": (BENCHMARKS, "an iteration of `jaxsched train`, ResNet-18 | torch | {}", lambda: claims("training_step", "iteration / torch")),
    "iteration, XLA": (BENCHMARKS, "with XLA's convolutions | {}", lambda: claims("training_step", "iteration / with XLA's convolutions")),
    "record": (BENCHMARKS, "a note of `record` | a training step | {}", lambda: claims("recording_cost", "a note / step")),
    "TPU, memory": (BENCHMARKS, "their temporaries, MiB: SGD; Adam and AdamW | {}; {} (", lambda: claims("elsewhere", "TPU v5e, sgd: temporaries, MiB", "TPU v5e, adam: temporaries, MiB")),
    "TPU, runs": (BENCHMARKS, "six recorded runs of YOLOv5 and Ultralytics | {} of {} |", lambda: tpu_differences()[:2]),
    "TPU, schedulers": (BENCHMARKS, "twelve of torch's schedulers, six settings each | {} of {} |", lambda: tpu_differences()[2:]),
    "compare": (BENCHMARKS, "causes included | at most {} s", lambda: claims("compare_cost", "seconds of the slowest")),
    "mutation": (BENCHMARKS, "in the search of causes | {} detected", lambda: [100 - claims("mutation", "faults of 100 that no test notices")[0]]),
    "wrong ports": (BENCHMARKS, "| seen | {} | {} | 1 | 0 | 9 of 9 | | aside | {} | {} | 3 | 0 | 10 of 10 | | fresh | {} | {} |", wrong_ports),
}  # fmt: skip


def list_mistakes(text: str, sentence: str, figures: list[float]) -> list[str]:
    """Describe the numbers of a sentence that differ from the figures."""
    text = " ".join(text.split())
    number = r"(\d[\d,]*(?:\.\d+)?)"
    pattern = number.join(map(re.escape, sentence.split("{}")))
    match = re.search(pattern, text)
    if match is None:
        return [f"no sentence {sentence!r}"]
    assert len(match.groups()) == len(figures)
    mistakes = []
    for quoted, figure in zip(match.groups(), figures, strict=True):
        decimals = len(quoted.partition(".")[2])
        if abs(float(quoted.replace(",", "")) - figure) > 0.5 * 10**-decimals + 1e-9:
            mistakes.append(f"{quoted} for {figure:.4g} in {sentence!r}")
    return mistakes


@pytest.mark.parametrize("what", QUOTES)
def test_pages_quote_what_was_measured(what):
    page, sentence, figures = QUOTES[what]
    assert list_mistakes((ROOT / page).read_text(), sentence, figures()) == []


def test_a_wrong_figure_is_detected():
    text = "| wrong at 1,980 of\n3,000 | 0.42 |"
    assert list_mistakes(text, "at {} of {} | {}", [1980, 3000, 0.4199]) == []
    assert list_mistakes(text, "at {} of {} | {}", [1981, 3000, 0.43]) == [
        "1,980 for 1981 in 'at {} of {} | {}'",
        "0.42 for 0.43 in 'at {} of {} | {}'",
    ]
    assert list_mistakes(text, "wrong at {} places", [1]) == ["no sentence 'wrong at {} places'"]
