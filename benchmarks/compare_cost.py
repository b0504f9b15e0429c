"""Claim: two traces of 100,000 rows that differ are compared, causes included, within 10 s."""

import numpy as np

from benchmarks.timing import report
from jaxsched import Trace, compare

ROWS, SECONDS = 100_000, 10


def traces() -> dict[str, tuple[Trace, Trace]]:
    """Return pairs of recorded runs of three groups, with a cause and without one."""
    rng = np.random.default_rng(0)
    rows = np.arange(ROWS)
    cosine = 0.1 * (1 + np.cos(np.pi * rows / ROWS)) / 2
    noise = cosine * rng.uniform(0.5, 1.5, ROWS)

    def trace(rate: np.ndarray) -> Trace:
        constants = {"momentum": np.full(ROWS, 0.9), "weight_decay": np.full(ROWS, 5e-4)}
        labels = ("weight", "bias", "norm")
        return Trace(
            {k: {"learning_rate": (1 + n) * rate, **constants} for n, k in enumerate(labels)}
        )

    late = np.roll(cosine, 1234)
    late[:1234] = cosine[0]
    return {
        "1,234 iterations late": (trace(late), trace(cosine)),
        "no cause": (trace(noise), trace(cosine)),
        "stepped per 100 iterations": (trace(cosine[rows // 100 * 100]), trace(cosine)),
    }


if __name__ == "__main__":
    import time

    seconds = {}
    for name, (mine, reference) in traces().items():
        begin = time.perf_counter()
        causes = compare(mine, reference).causes
        seconds[name] = [time.perf_counter() - begin]
        print(name, causes)
    worst = max(max(times) for times in seconds.values())
    report("compare_cost", seconds, {"seconds of the slowest": (worst, SECONDS)})
