"""torch.optim's update rules as Optax transformations.

Each counts updates, one a call, and 0 is the first; inside a ``Recipe`` the
schedules count iterations instead, with one counter for all groups. Every
number may be a schedule; the values in force are read out of the state by
``jaxsched.hyperparameters``.

All of torch 2.13's but two: ``LBFGS``, whose step calls the loss again and
again, which no transformation of gradients can; and ``SparseAdam``, for JAX
has no sparse gradients.

Complex parameters are refused. Inside ``optax.contrib.split_real_and_imaginary`` they
are what torch makes of them, two real ones; JAX's gradient of one is the conjugate of
torch's.
"""

from jaxsched.optimizers.accumulation import Accumulation, accumulated, restarted, stepped
from jaxsched.optimizers.adadelta import adadelta
from jaxsched.optimizers.adafactor import adafactor
from jaxsched.optimizers.adagrad import adagrad
from jaxsched.optimizers.adam import adam, adamw
from jaxsched.optimizers.adamax import adamax
from jaxsched.optimizers.asgd import asgd
from jaxsched.optimizers.average import EMA, EMAState
from jaxsched.optimizers.clip import clip_grad_norm, clip_grad_value
from jaxsched.optimizers.muon import muon
from jaxsched.optimizers.nadam import nadam
from jaxsched.optimizers.radam import radam
from jaxsched.optimizers.rmsprop import rmsprop
from jaxsched.optimizers.rprop import rprop
from jaxsched.optimizers.rule import RuleState
from jaxsched.optimizers.scheduled import ScheduledState, hyperparameters, scheduled
from jaxsched.optimizers.sgd import sgd

__all__ = [
    "EMA",
    "Accumulation",
    "EMAState",
    "RuleState",
    "ScheduledState",
    "accumulated",
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "asgd",
    "clip_grad_norm",
    "clip_grad_value",
    "hyperparameters",
    "muon",
    "nadam",
    "radam",
    "restarted",
    "rmsprop",
    "rprop",
    "scheduled",
    "sgd",
    "stepped",
]
