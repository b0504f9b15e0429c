"""torch.optim's update rules as Optax transformations.

Each counts updates, one a call, and 0 is the first; inside a ``Recipe`` the
schedules count iterations instead, with one counter for all groups. Every
number may be a schedule; the values in force are read out of the state by
``jaxsched.hyperparameters``. What is an array, as inside ``optax.inject_hyperparams``, is
not known to be 0: SGD and RMSprop then keep a buffer, and decay asks for the parameters.

Two switches mean the same in all that have them: ``maximize`` ascends, with -g for g; and with
``decoupled_weight_decay``, instead of λ in the gradient, the parameters are first multiplied by
1 - γλ. All raise ``ValueError`` for a number out of its range, and, on ``update``, for weight decay
without ``params``; ASGD, NAdam and Adafactor need ``params`` always.

All of torch 2.13's but two: ``LBFGS``, whose step calls the loss again and again, which no
transformation of gradients can; and ``SparseAdam``, for JAX has no sparse gradients. And one of
Ultralytics', ``musgd``.

``muon`` and ``musgd`` read a parameter as torch's matrix, of outputs by inputs. ``layout="flax"`` takes
the last dimension for the outputs, ``"torch"`` the first; leaves called ``embedding`` have torch's
layout in both. No transposed copy is made.

Complex parameters are refused. Inside ``optax.contrib.split_real_and_imaginary`` they are what
torch makes of them, two real ones; JAX's gradient of one is the conjugate of torch's.
"""

from jaxsched.optimizers._accumulation import Accumulation, restarted, stepped
from jaxsched.optimizers._adagrad import adadelta, adafactor, adagrad, rmsprop
from jaxsched.optimizers._adam import adam, adamax, adamw, nadam, radam
from jaxsched.optimizers._average import EMA, EMAState
from jaxsched.optimizers._carry import carry_state
from jaxsched.optimizers._clip import clip_grad_norm, clip_grad_value
from jaxsched.optimizers._muon import muon
from jaxsched.optimizers._musgd import musgd
from jaxsched.optimizers._rule import RuleState
from jaxsched.optimizers._scheduled import ScheduledState, hyperparameters
from jaxsched.optimizers._sgd import asgd, rprop, sgd

__all__ = [
    "EMA",
    "Accumulation",
    "EMAState",
    "RuleState",
    "ScheduledState",
    "adadelta",
    "adafactor",
    "adagrad",
    "adam",
    "adamax",
    "adamw",
    "asgd",
    "carry_state",
    "clip_grad_norm",
    "clip_grad_value",
    "hyperparameters",
    "muon",
    "musgd",
    "nadam",
    "radam",
    "restarted",
    "rmsprop",
    "rprop",
    "sgd",
    "stepped",
]
