"""Claim: a jitted update by Adam or AdamW of ResNet-18 takes no longer than plain Optax's.

62 leaves, three groups, all hyperparameters scheduled. Against torch the shortest runs are
compared, as in ``sgd_update``.
"""

from benchmarks import updates
from benchmarks.timing import best, interleaved, ratio, report

if __name__ == "__main__":
    seconds, claims = {}, {}
    for rule in ("adam", "adamw"):
        names = {
            who: f"{rule}, {who}"
            for who in ("jaxsched", "plain Optax", "torch foreach", "torch fused")
        }
        mine, optaxs, foreach, fused = names.values()
        seconds |= interleaved(
            {
                mine: updates.stepping(updates.ours(rule)),
                optaxs: updates.stepping(updates.plain_optax(rule)),
                foreach: updates.torch_stepping(rule, foreach=True),
                fused: updates.torch_stepping(rule, fused=True),
            },
            rounds=100,
        )
        claims |= {
            f"{rule} / plain Optax": (ratio(seconds, mine, optaxs), 1.0),
            f"{rule} / plain Optax, shortest runs": (best(seconds, mine, optaxs), None),
            f"{rule} / torch foreach": (best(seconds, mine, foreach), None),
            f"{rule} / torch fused": (best(seconds, mine, fused), None),
        }
    report("adam_update", seconds, claims)
