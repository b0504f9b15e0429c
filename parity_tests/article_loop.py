"""The article's loop around a live torch optimizer and a live LambdaLR: the reference of the tests.

It trains nothing, and records the hyperparameters that each step would have used. A row is
an iteration; 0 is the first of epoch 0.
"""

import math

import numpy as np
import torch
from torch.optim.lr_scheduler import LambdaLR

from jaxsched import Trace

ORDER = ("norm", "weight", "bias")  # the article's own order of groups


def groups_by_name(named_parameters):
    """Return the article's three lists of parameters, in its order."""
    groups = {label: [] for label in ORDER}
    for name, parameter in named_parameters:
        if ".bias" in name:
            groups["bias"].append(parameter)
        elif ".weight" in name and ".bn" not in name:
            groups["weight"].append(parameter)
        else:
            groups["norm"].append(parameter)
    return groups


def sgd(groups, *, lr0=0.01, momentum=0.937, weight_decay=5e-4):
    """Return the article's optimizer over those lists."""
    optimizer = torch.optim.SGD(groups["norm"], lr=lr0, momentum=momentum, nesterov=True)
    optimizer.add_param_group({"params": groups["weight"], "weight_decay": weight_decay})
    optimizer.add_param_group({"params": groups["bias"]})
    return optimizer


def iterations(
    optimizer,
    *,
    epochs=100,
    steps_per_epoch=30,
    warmup_iterations=1000,
    lr0=0.01,
    lrf=0.2,
    momentum=0.937,
    weight_decay=5e-4,
    warmup_bias_lr=0.1,
    warmup_momentum=0.8,
    start_epoch=0,
    resumed=False,
    until_epoch=None,
):
    """Yield each iteration, with its hyperparameters set in ``optimizer.param_groups``."""
    del weight_decay  # already in the groups

    def lf(x):
        return ((1 + math.cos(x * math.pi / epochs)) / 2) * (1 - lrf) + lrf

    scheduler = LambdaLR(optimizer, lr_lambda=lf)
    if resumed and start_epoch:
        # A predecessor's optimizer state restores the rate that its last step() left.
        for group in optimizer.param_groups:
            group["lr"] = group["initial_lr"] * lf(start_epoch - 1)
    scheduler.last_epoch = start_epoch - 1
    for epoch in range(start_epoch, until_epoch or epochs):
        for i in range(steps_per_epoch):
            ni = i + steps_per_epoch * epoch
            if ni <= warmup_iterations:
                xi = [0, warmup_iterations]
                for j, group in enumerate(optimizer.param_groups):
                    start = warmup_bias_lr if j == 2 else 0.0
                    group["lr"] = np.interp(ni, xi, [start, lr0 * lf(epoch)])
                    group["momentum"] = np.interp(ni, xi, [warmup_momentum, momentum])
            yield ni
            optimizer.step()
        scheduler.step()


def article_trace(parameters=None, **arguments):
    """Return the trace of that loop in float64, on ``{label: parameters}`` or on one parameter each."""
    parameters = parameters or {label: [torch.zeros(1, requires_grad=True)] for label in ORDER}
    own = {k: arguments[k] for k in ("lr0", "momentum", "weight_decay") if k in arguments}
    optimizer = sgd(parameters, **own)
    rows = []
    for _ in iterations(optimizer, **arguments):
        rows.append(
            {
                label: {
                    "learning_rate": float(group["lr"]),
                    "momentum": float(group["momentum"]),
                    "weight_decay": float(group["weight_decay"]),
                }
                for label, group in zip(ORDER, optimizer.param_groups, strict=True)
            }
        )
    start = arguments.get("start_epoch", 0) * arguments.get("steps_per_epoch", 30)
    return Trace.stack(rows, start=start)
