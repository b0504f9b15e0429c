"""torch.optim's update rules as Optax transformations.

Each counts updates, one a call, from 0 on; inside a ``Recipe`` the schedules count iterations
instead, with one counter for all groups. Every number may be a schedule;
``jaxsched.hyperparameters`` reads the values in force from the state. A number that is an array, as
inside ``optax.inject_hyperparams``, may be other than 0: SGD and RMSprop then keep a buffer, and
weight decay needs the parameters.

Two switches mean the same in all rules that have them: ``maximize`` ascends, with -g for g; with
``decoupled_weight_decay`` the parameters are first multiplied by 1 - γλ, instead of adding λp to the
gradient. All raise ``ValueError`` for a number out of its range and, on ``update``, for weight decay
without ``params``; ASGD, NAdam and Adafactor always need ``params``.

All rules of torch 2.13 are here except two: ``LBFGS``, whose step calls the loss several times, which
a transformation of gradients cannot; and ``SparseAdam``, since JAX has no sparse gradients.
``musgd`` is Ultralytics'.

``muon`` and ``musgd`` treat a parameter as torch's matrix of outputs by inputs. With
``layout="flax"`` the last dimension is the outputs, with ``"torch"`` the first; leaves called
``embedding`` have torch's layout in both. No transposed copy is made.

Complex parameters are refused. Wrap the rule in ``optax.contrib.split_real_and_imaginary``, which
splits them into two real ones as torch does; JAX's gradient is the conjugate of torch's.
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
