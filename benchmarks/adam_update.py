"""Claim: a jitted update by Adam or AdamW of ResNet-18 takes no longer than plain Optax's.

62 leaves, three groups, all hyperparameters scheduled; 1,000 leaves, a GPU and torch as in
``sgd_update``.
"""

from benchmarks.timing import report
from benchmarks.updates import side_by_side

if __name__ == "__main__":
    seconds, claims = {}, {}
    for rule in ("adam", "adamw"):
        for model, rounds, bounds in (
            ("62 leaves", 100, {"plain Optax": 1.0}),
            ("1,000 leaves", 20, {}),
        ):
            times, ratios = side_by_side(rule, model, rounds, bounds)
            seconds |= times
            claims |= ratios
    report("adam_update", seconds, claims)
