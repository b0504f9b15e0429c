"""Pure curves of a count, and the combinators that join them.

A schedule is a pure function of a count; 0 is the first. Curves passed to ``per_epoch`` count epochs,
all others count iterations.

torch computes a learning rate as a Python float and passes it to a float32 kernel, so the value that
acts is the float32 nearest to a float64. Every schedule here returns that value, also under ``jit``,
``vmap`` and ``lax.scan``: its formula is evaluated in float64 inside the graph and rounded once. With
``jax_enable_x64`` the float64 itself is returned. XLA flushes a float32 below 1.2e-38 to 0. If
torch's learning rate is a float32 tensor, torch rounds it at each step of the scheduler, and a
schedule once.
"""

from jaxsched._schedule import Hyperparameter, Schedule, ScheduleLike
from jaxsched.schedules._combinators import hold, lagged, override, per_epoch, scaled, shift, warmup
from jaxsched.schedules._curves import constant, cosine, linear, one_cycle
from jaxsched.schedules._table import table, tabulate
from jaxsched.schedules._timm_cycles import timm_cosine, timm_poly, timm_tanh
from jaxsched.schedules._timm_decays import timm_multistep, timm_step, timm_wsd
from jaxsched.schedules._transformers import (
    constant_with_warmup,
    cosine_warmup_with_min_lr,
    cosine_with_restarts,
    cosine_with_warmup,
    inverse_sqrt,
    linear_with_warmup,
    polynomial_with_warmup,
    warmup_stable_decay,
)
from jaxsched.schedules._updates import batch_ramp, per_update, update_batches

__all__ = [
    "Hyperparameter",
    "Schedule",
    "ScheduleLike",
    "batch_ramp",
    "constant",
    "constant_with_warmup",
    "cosine",
    "cosine_warmup_with_min_lr",
    "cosine_with_restarts",
    "cosine_with_warmup",
    "hold",
    "inverse_sqrt",
    "lagged",
    "linear",
    "linear_with_warmup",
    "one_cycle",
    "override",
    "per_epoch",
    "per_update",
    "polynomial_with_warmup",
    "scaled",
    "shift",
    "table",
    "tabulate",
    "timm_cosine",
    "timm_multistep",
    "timm_poly",
    "timm_step",
    "timm_tanh",
    "timm_wsd",
    "update_batches",
    "warmup",
    "warmup_stable_decay",
]
