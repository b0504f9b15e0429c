"""The originals' training loops in plain Python: the hyperparameters of each iteration.

They implement the rules observed in runs of the originals as loops with
state, where ours are closed forms. A row is an iteration; 0 is the first.
"""

import math

import numpy as np

from jaxsched import Trace

HYP = {
    "lr0": 0.01,
    "lrf": 0.01,
    "momentum": 0.937,
    "weight_decay": 0.0005,
    "warmup_epochs": 3.0,
    "warmup_momentum": 0.8,
    "warmup_bias_lr": 0.1,
}
YOLOV5 = {"6.1": {"floor": 1000}, "7.0": {"floor": 100}}
ULTRALYTICS = {
    "8.0.227": {"at_end": True, "clears": True},
    "8.1.24": {"at_end": True, "clears": True, "saves_first": True},
    "8.3.250": {"at_end": False, "clears": False},
    "8.4.0": {"at_end": False, "clears": False},
    "8.4.190": {"at_end": False, "clears": False},
}


def run(
    family,
    version,
    *,
    epochs,
    steps_per_epoch,
    batch_size=16,
    hyp=None,
    optimizer="SGD",
    cos_lr=False,
    start_epoch=0,
    resumed=False,
):
    """Return the trace of a process; if ``resumed``, its predecessor runs before it."""
    h = {**HYP, **(hyp or {})}
    nb, nbs = steps_per_epoch, 64
    yolov5 = family == "yolov5"
    at_end = yolov5 or ULTRALYTICS[version]["at_end"]
    saves_first = not yolov5 and ULTRALYTICS[version].get("saves_first", False)
    clears = yolov5 or ULTRALYTICS[version]["clears"]
    newest = version == "8.4.190"

    def lf(x):
        if cos_lr:
            return ((1 - math.cos(x * math.pi / epochs)) / 2) * (h["lrf"] - 1) + 1
        return (1 - x / epochs) * (1.0 - h["lrf"]) + h["lrf"]

    if yolov5:
        nw = max(round(h["warmup_epochs"] * nb), YOLOV5[version]["floor"])
    elif newest:
        nw = round(min(h["warmup_epochs"], max(epochs - 1, 0)) * nb) or -1
    else:
        nw = max(round(h["warmup_epochs"] * nb), 100) if h["warmup_epochs"] > 0 else -1
    whole = max(round(nbs / batch_size), 1)
    decay = (
        h["weight_decay"] * (batch_size * whole / nbs)
        if yolov5
        else h["weight_decay"] * batch_size * whole / nbs
    )
    first_group = {"8.4.0": "weight"}.get(version, "bias")
    groups = {
        label: {"lr": h["lr0"] * lf(0), "momentum": h["momentum"]}
        for label in ("weight", "bias", "norm")
    }
    rows, accumulates, steps, micros, emas = [], [], [], [], []
    updates = 0

    def process(begin, end, recorded):
        nonlocal updates
        saved = None
        accumulate = min(whole, nb * epochs) if newest else whole
        ramp_to = accumulate if newest else nbs / batch_size
        last_epoch, last_step, pending = begin - 1, -1, 0
        for epoch in range(begin, end):
            if not at_end:
                last_epoch += 1
                for group in groups.values():
                    group["lr"] = h["lr0"] * lf(last_epoch)
            if clears:
                pending = 0
            for i in range(nb):
                ni = i + nb * epoch
                if ni <= nw:
                    accumulate = max(1, int(np.interp(ni, [0, nw], [1, ramp_to]).round()))
                    for label, group in groups.items():
                        start = h["warmup_bias_lr"] if label == first_group else 0.0
                        target = h["lr0"] * lf(epoch)
                        group["lr"] = np.interp(ni, [0, nw], [start, target])
                        group["momentum"] = np.interp(
                            ni, [0, nw], [h["warmup_momentum"], h["momentum"]]
                        )
                pending += 1
                stepped = ni - last_step >= accumulate
                micro = pending if stepped else 0
                if stepped:
                    last_step, pending = ni, 0
                    updates += 1
                if recorded:
                    rows.append({label: dict(group) for label, group in groups.items()})
                    accumulates.append(accumulate)
                    steps.append(stepped)
                    micros.append(micro)
                    emas.append(updates)
            if at_end:
                saved = {label: dict(group) for label, group in groups.items()}
                last_epoch += 1
                for group in groups.values():
                    group["lr"] = h["lr0"] * lf(last_epoch)

        return saved if saves_first else groups

    if resumed and start_epoch:
        groups = process(0, start_epoch, False)
    process(start_epoch, epochs, True)
    moment = "momentum" if optimizer == "SGD" else "b1"
    emas = np.array(emas, float)
    return Trace(
        {
            label: {
                "learning_rate": np.array([row[label]["lr"] for row in rows], float),
                moment: np.array(
                    [
                        row[label]["momentum"] if optimizer == "SGD" else h["momentum"]
                        for row in rows
                    ],
                    float,
                ),
                "weight_decay": np.full(len(rows), decay if label == "weight" else 0.0),
            }
            for label in groups
        },
        {
            "accumulate": np.array(accumulates, float),
            "stepped": np.array(steps, float),
            "micro_batches": np.array(micros, float),
            "ema_updates": emas,
            "ema_decay": np.array([0.9999 * (1 - math.exp(-u / 2000)) for u in emas]),
        },
        start=start_epoch * nb,
    )
