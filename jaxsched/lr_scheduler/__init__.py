"""torch.optim.lr_scheduler, one function a class.

Each returns a schedule of how often ``scheduler.step()`` has been called: 0 is the value that the
constructor leaves. In most scripts that counts epochs; ``schedules.per_epoch`` brings it to the
iteration. Arguments keep torch's names, order and defaults, with ``base_lr``, the group's rate
before any schedule, where torch has the optimizer.

There are two forms of each:

- **closed**, the formula: for any count and for traced arguments. In float64 it lies within 1e-11
  of the curve's peak of torch's value up to 500 counts; from there on torch's recursion drifts, in
  ``CosineAnnealingLR`` by as much as 5e-10 by 10,000 counts and 2e-8 by 100,000, in the others by
  less than 1e-11 still. In float32 it is equal to it up to 300 counts, and beyond in all but a few
  values.
- **replayed**, with ``steps=n``: torch's own recursion, run once on the host for n calls of
  ``scheduler.step()`` and tabulated for counts 0 to n, equal to the bit, in float64 too. Concrete
  counts past n are refused, traced ones give NaN.

What torch refuses is refused, and more: hyperparameters are one number each, where torch takes a
list with one a group; counts are at least 0; lengths that count (``total_iters``, ``step_size``,
``milestones``) are whole. A schedule is not resumed, but called from the count reached, so torch's
``last_epoch`` is no argument. Where x64 is off both forms are rounded to float32 once, by XLA,
which makes 0 of what is below its smallest normal number, 1.2e-38.

``multiplicative_lr``, ``sequential_lr`` and ``chained_scheduler`` have no closed
form and need ``steps``. ``reduce_lr_on_plateau`` follows a metric, not a count.
"""

from jaxsched.lr_scheduler._compositions import chained_scheduler, sequential_lr
from jaxsched.lr_scheduler._cycles import cosine_annealing_warm_restarts, cyclic_lr, one_cycle_lr
from jaxsched.lr_scheduler._decays import (
    constant_lr,
    cosine_annealing_lr,
    exponential_lr,
    linear_lr,
    multi_step_lr,
    polynomial_lr,
    step_lr,
    swa_lr,
)
from jaxsched.lr_scheduler._factors import lambda_lr, multiplicative_lr
from jaxsched.lr_scheduler._plateau import (
    Plateau,
    PlateauState,
    reduce_lr_on_plateau,
    scale_on_plateau,
)

__all__ = [
    "Plateau",
    "PlateauState",
    "chained_scheduler",
    "constant_lr",
    "cosine_annealing_lr",
    "cosine_annealing_warm_restarts",
    "cyclic_lr",
    "exponential_lr",
    "lambda_lr",
    "linear_lr",
    "multi_step_lr",
    "multiplicative_lr",
    "one_cycle_lr",
    "polynomial_lr",
    "reduce_lr_on_plateau",
    "scale_on_plateau",
    "sequential_lr",
    "step_lr",
    "swa_lr",
]
