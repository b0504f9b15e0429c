"""torch's recursions on the host, in Python floats, for one group.

torch's schedulers are not functions of a count: each step computes the next rate from the last one,
which is stored in the group.
"""

import dataclasses
import functools
import math
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer

from jaxsched._schedule import Formula, Schedule, as_float64, float64_formula, formula_of, freeze
from jaxsched._validate import require_base_lr, require_count, require_one_group
from jaxsched.schedules._table import table_formula

Group = dict[str, Any]
"""The entries of ``optimizer.param_groups[i]``: ``lr``, ``initial_lr``, …"""

HOST = types.SimpleNamespace(cos=math.cos, where=lambda holds, yes, no: yes if holds else no)
"""The functions of ``jnp`` in formulas that run on the host too."""


class Recursion:
    """A scheduler of one group.

    Attributes:
      base_lr: the group's ``initial_lr`` on construction.
      epoch: torch's ``last_epoch``.
      calls: number of steps, including the constructor's.
      initial: whether the constructor's step is running.
    """

    def __init__(
        self,
        group: Group,
        rule: Callable[..., float],
        restart: Callable[..., float] | None,
        hyperparameters: Sequence[Any],
    ) -> None:
        self.group = group
        self.base_lr = group.setdefault("initial_lr", group["lr"])
        self.epoch = -1
        self._rule, self._restart, self._hyperparameters = rule, restart, hyperparameters
        self.enter()

    @property
    def lr(self) -> float:
        return self.group["lr"]

    def enter(self) -> None:
        """Make the constructor's step; a sequence repeats it on its first member."""
        self.calls = 0
        self.initial = True
        self.step()
        self.initial = False

    def step(self) -> None:
        """Make one step, as ``scheduler.step()``."""
        self.calls += 1
        self.epoch += 1
        self.group["lr"] = self._rule(self, *self._hyperparameters)

    def restart(self) -> None:
        """Step to epoch 0, as a sequence does at a milestone."""
        self.epoch = 0
        rule, first = (self._restart, self.base_lr) if self._restart else (self._rule, self)
        self.group["lr"] = rule(first, *self._hyperparameters)

    def undo(self) -> None:
        """Revert ``last_epoch`` after construction; the group keeps its rate."""
        self.epoch -= 1


def refuse_negative(counts: np.ndarray) -> None:
    if not (counts >= 0).all():
        raise ValueError(
            f"count must be at least 0, the constructor's, got {counts[~(counts >= 0)].flat[0]}"
        )


def torch_schedule(
    factory: Callable[..., Schedule],
    arguments: Mapping[str, Any],
    hyperparameters: Sequence[Any],
    closed_form: Callable[..., Any] | None,
    rule: Callable[..., float],
    *,
    restart: Callable[..., float] | None = None,
    prepare: Callable[..., None] | None = None,
    sets_base_lr: bool = False,
    momentum: tuple[Callable[..., Any], Sequence[Any]] | None = None,
    check: Callable[[np.ndarray], None] = refuse_negative,
) -> Schedule:
    """Build the schedule of a torch class from its closed form and its recursion.

    Args:
      factory: the function of this package.
      arguments: the factory's ``locals()``, with ``steps``: number of calls to replay, or None.
      hyperparameters: the last arguments of the four functions that follow.
      closed_form: a function of ``(count, base_lr, *hyperparameters)``, without ``base_lr`` if the
        factory has none; None if there is no closed form.
      rule: the next rate from ``(recursion, *hyperparameters)``, as in ``get_lr``.
      restart: the rate at a milestone of ``sequential_lr`` from ``(base_lr, *hyperparameters)``:
        torch's ``_get_closed_form_lr`` at 0, for the classes that have one.
      prepare: makes the constructor's changes to the group, ``(group, *hyperparameters)``.
      sets_base_lr: whether ``base_lr`` is a hyperparameter that replaces the group's rate after the
        constructor's step, as in CyclicLR.
      momentum: a function of ``(xp, count, *values)``, with ``jnp`` or ``HOST`` for xp; and values.
      check: refuses concrete counts.
    """
    require_one_group(factory.__name__, [arguments.get("base_lr"), *hyperparameters])
    hyperparameters = freeze(tuple(hyperparameters))
    base_lr = None if sets_base_lr else freeze(arguments.get("base_lr"))
    if base_lr is not None:
        require_base_lr(base_lr)

    def recursion(group: Group) -> Recursion:
        host = [to_host(value) for value in hyperparameters]
        if prepare is not None:
            prepare(group, *host)
        leaf = Recursion(group, rule, restart, host)
        if sets_base_lr:  # CyclicLR's, which torch sets after the constructor's step
            leaf.base_lr = host[0]
        return leaf

    formula = momentum_formula = None
    if closed_form is not None:
        leading = [] if base_lr is None else [base_lr]
        formula = formula_of(closed_form, *leading, *hyperparameters, check=check)
    if momentum is not None:
        name = f"momentum of {factory.__name__}"
        function, values = momentum
        require_one_group(name, values)
        if arguments["steps"] is None:
            momentum_formula = formula_of(functools.partial(function, jnp), *values, check=check)
        else:
            host = [to_host(value) for value in values]
            counts = range(arguments["steps"] + 1)
            momentum_formula = replay_formula(
                name, [function(HOST, count, *host) for count in counts]
            )
    schedule = Schedule(
        factory,
        arguments,
        formula,
        recursion=recursion,
        base_lr=base_lr,
        momentum_formula=momentum_formula,
    )
    return with_replay(schedule)


def with_replay(schedule: Schedule) -> Schedule:
    """Return the schedule, with a table of torch's rates for its formula if ``steps`` is given."""
    steps = schedule.arguments["steps"]
    if steps is None:
        return schedule
    formula = replay_formula(schedule.factory.__name__, torch_rates(schedule, steps))
    return dataclasses.replace(schedule, formula=formula)


def torch_rates(schedule: Schedule, steps: int) -> list[float]:
    """Return torch's rates for counts 0 to ``steps``, computed on the host."""
    require_count("steps", steps)
    if schedule.recursion is None:
        raise TypeError(f"schedule must be one of jaxsched.lr_scheduler, got {schedule!r}.")
    group: Group = {"lr": to_host(schedule.base_lr)}
    running = schedule.recursion(group)
    values = [group["lr"]]
    for _ in range(steps):
        running.step()
        values.append(group["lr"])
    return values


def replay_formula(name: str, values: Sequence[float]) -> Formula:
    """Return the formula of a table of finite values from count 0 on."""
    array = np.asarray(values, np.float64)
    if not np.isfinite(array).all():
        first = int(np.argmin(np.isfinite(array)))
        raise ValueError(
            f"values of {name} must be finite numbers, got {array[first]} at {first}. "
            "Tabulate fewer steps."
        )
    lookup = table_formula(array)

    def formula(count: Any) -> Any:
        if not isinstance(count, Tracer):
            refuse_negative(np.asarray(count))
        return lookup(count)

    return formula


def to_host(value: Any) -> Any:
    """Return arrays as Python numbers, and other values unchanged.

    A NumPy scalar stays one: in torch's step a product with an ``np.float32`` is a float32, too.
    """
    if isinstance(value, Tracer):
        raise ValueError(
            "hyperparameters must be known numbers to be replayed, got a traced one. "
            "Leave steps out: the closed form takes traced ones."
        )
    return value.tolist() if isinstance(value, jax.Array | np.ndarray) else value


def factor_on_host(function: Callable[[Any], Any], count: int) -> float:
    """Call ``function`` as torch does: with an int, for a Python float."""
    with jax.enable_x64(True):  # without x64 a schedule would round to float32
        return to_host(function(count))


def factor_formula(function: Callable[[Any], Any], name: str) -> Formula:
    """Return ``function`` as a formula that refuses functions not made of operators and ``jnp``."""
    if isinstance(function, Schedule):
        return float64_formula(function)

    def factor(count: Any) -> Any:
        try:
            return as_float64(function(jnp.asarray(count)))
        except Exception as error:
            concrete = not isinstance(count, Tracer)
            if concrete and isinstance(error, ValueError) and "truth value" not in str(error):
                raise  # a schedule's own refusal of a count
            raise TypeError(
                f"{name} must be made of operators and jnp to act on arrays and under jit, got "
                f"{getattr(function, '__name__', function)!r}. Pass steps=n to tabulate it."
            ) from error

    return factor
