"""Claim: a jitted SGD update of ResNet-18 takes at most 0.45 of plain Optax's time, 0.75 of torch's.

62 leaves, three groups, all hyperparameters scheduled. Against torch the shortest runs are
compared: its threads wait for one another, so that its median tells how busy a machine is.
"""

from benchmarks import updates
from benchmarks.timing import best, interleaved, ratio, report

if __name__ == "__main__":
    seconds = interleaved(
        {
            "jaxsched": updates.stepping(updates.ours("sgd")),
            "plain Optax": updates.stepping(updates.plain_optax("sgd")),
            "torch, foreach": updates.torch_stepping("sgd", foreach=True),
            "torch, fused": updates.torch_stepping("sgd", fused=True),
        },
        rounds=60,
    )
    report(
        "sgd_update",
        seconds,
        {
            "SGD update / plain Optax": (ratio(seconds, "jaxsched", "plain Optax"), 0.45),
            "the same, shortest runs": (best(seconds, "jaxsched", "plain Optax"), None),
            "SGD update / torch foreach": (best(seconds, "jaxsched", "torch, foreach"), 0.75),
            "SGD update / torch fused": (best(seconds, "jaxsched", "torch, fused"), None),
        },
    )
