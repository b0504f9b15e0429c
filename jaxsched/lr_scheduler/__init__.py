"""torch.optim.lr_scheduler as schedules, one function for each class.

Each returns a schedule of the number of calls of ``scheduler.step()``: at 0 it has the value that the
constructor sets. Most scripts call it once an epoch; ``schedules.per_epoch`` converts to iterations.
Arguments keep torch's names, order and defaults, with ``base_lr``, the group's rate before any
schedule, in place of the optimizer.

There are two forms of each:

- **closed form**: a formula for any count and traced arguments. In float64 it is within 1e-11 of
  torch's value, relative to the curve's peak, up to 500 counts. Beyond, torch's recursion drifts: in
  ``CosineAnnealingLR`` by up to 5e-10 at 10,000 counts and 2e-8 at 100,000, in the others by less
  than 1e-11. In float32 it equals torch's value up to 300 counts, and beyond at all but a few counts.
- **replay**, with ``steps=n``: torch's recursion, run once on the host for n calls of
  ``scheduler.step()`` and tabulated for counts 0 to n, equal to the bit, also in float64. Concrete
  counts past n are refused, traced ones give NaN.

Arguments that torch refuses are refused, and some others: each hyperparameter is one number, where
torch also takes a list with one for each group; counts are at least 0; lengths (``total_iters``,
``step_size``, ``milestones``) are integers. To resume, call the schedule at the count reached; torch's
``last_epoch`` is not an argument. Without x64 both forms are rounded to float32 once, by XLA, which
flushes values below 1.2e-38, the smallest normal number, to 0.

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
