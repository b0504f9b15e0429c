"""Muon beside AdamW: torch's two optimizers with their schedulers, and the recipe by hand."""

import inspect

import torch
from optimizer_settings import UPDATES

from jaxsched import Recipe, lr_scheduler, optimizers
from jaxsched.schedules import per_epoch

SHAPES = {"tall": (7, 5), "wide": (4, 6), "bias": (5,), "scale": (5,)}
LABEL_OF = {"tall": "matrix", "wide": "matrix", "bias": "bias", "scale": "scale"}
LABELS = ["matrix", "bias", "scale"]
EPOCH = 4  # updates between two steps of a scheduler
# Parameters here have torch's layout, (outputs, inputs).
HAS_LAYOUT = "layout" in inspect.signature(optimizers.muon).parameters
TORCH = {"layout": "torch"} if HAS_LAYOUT else {}
RULES = {"matrix": optimizers.muon, "bias": optimizers.adamw, "scale": optimizers.adamw}
MUON = {"weight_decay": 0.1, "momentum": 0.9}
ADAMW = {"b1": 0.9, "b2": 0.95}


def torch_optimizers(parameters):
    """Return torch's two optimizers and their schedulers, for parameters by name."""
    muon = torch.optim.Muon([parameters["tall"], parameters["wide"]], lr=0.02, **MUON)
    adamw = torch.optim.AdamW(
        [
            {"params": [parameters["bias"]], "weight_decay": 0.05},
            {"params": [parameters["scale"]], "weight_decay": 0.0},
        ],
        lr=3e-3,
        betas=(ADAMW["b1"], ADAMW["b2"]),
    )
    cosine = torch.optim.lr_scheduler.CosineAnnealingLR(muon, T_max=UPDATES // EPOCH, eta_min=1e-3)
    linear = torch.optim.lr_scheduler.LinearLR(adamw, 0.1, 1.0, 20)
    return [muon, adamw], [cosine, linear]


def recipe_by_hand(batches=1, **fields):
    """Return the same as a recipe of iterations, of which ``batches`` make an update."""
    every = EPOCH * batches
    cosine = per_epoch(lr_scheduler.cosine_annealing_lr(0.02, UPDATES // EPOCH, 1e-3), every)
    linear = per_epoch(lr_scheduler.linear_lr(3e-3, 0.1, 1.0, 20), every)
    groups = {
        "matrix": {"learning_rate": cosine, **MUON, **TORCH},
        "bias": {"learning_rate": linear, "weight_decay": 0.05, **ADAMW},
        "scale": {"learning_rate": linear, "weight_decay": 0.0, **ADAMW},
    }
    return Recipe(groups, RULES, length=UPDATES * batches, **fields)


class Model(torch.nn.Module):
    """The parameters by their names, and one that is in no optimizer."""

    def __init__(self, parameters):
        super().__init__()
        for name, parameter in parameters.items():
            self.register_parameter(name, parameter)
        self.unused = torch.nn.Parameter(torch.ones(2))
