"""Schedules that know the recursion of their torch scheduler.

torch's schedulers have no value at a count: each step makes the next rate from
the last, in a group that they share. What is here does the same on the host, in
Python floats, for one group. It counts calls of ``scheduler.step()``; 0 is the
constructor's.
"""

import dataclasses
import math
import numbers
import types
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike

from jaxsched.schedules import (
    Hyperparameter,
    Schedule,
    as_float64,
    exact,
    require,
    require_count,
    table,
)

Group = dict[str, Any]
"""What torch keeps in ``optimizer.param_groups[i]``: ``lr``, ``initial_lr``, …"""

HOST = types.SimpleNamespace(
    cos=math.cos, where=lambda condition, yes, no: yes if condition else no
)
"""The part of ``jnp`` that formulas shared by host and graph are made of."""


class Recursion(Protocol):
    """A scheduler at work on a group."""

    def enter(self) -> None:
        """The step of the constructor, which a sequence repeats on its first member."""
        ...

    def step(self) -> None:
        """One call of ``scheduler.step()``."""
        ...

    def restart(self) -> None:
        """The step to epoch 0, which a sequence makes at a milestone."""
        ...

    def undo(self) -> None:
        """Takes the constructor's count back; the group keeps its rate."""
        ...


class _Leaf:
    """A scheduler that holds no others.

    Attributes:
      group: what it shares with the others.
      base_lr: the group's ``initial_lr``, as its constructor found it.
      epoch: torch's ``last_epoch``.
      calls: how often it has stepped, the constructor's step included.
      initial: whether it is in the constructor's step.
    """

    def __init__(
        self,
        group: Group,
        rule: Callable[["_Leaf"], float],
        *,
        restart: Callable[[float], float] | None,
        prepare: Callable[[Group], None] | None,
        own_base_lr: float | None,
    ) -> None:
        if prepare is not None:
            prepare(group)
        self.group = group
        self.base_lr = group.setdefault("initial_lr", group["lr"])
        self.epoch = -1
        self._rule = rule
        self._restart = restart
        self.enter()
        if own_base_lr is not None:  # CyclicLR's, which torch sets after the constructor's step
            self.base_lr = own_base_lr

    @property
    def lr(self) -> float:
        return self.group["lr"]

    def enter(self) -> None:
        self.calls = 0
        self.initial = True
        self.step()
        self.initial = False

    def step(self) -> None:
        self.calls += 1
        self.epoch += 1
        self.group["lr"] = self._rule(self)

    def restart(self) -> None:
        self.epoch = 0
        self.group["lr"] = self._restart(self.base_lr) if self._restart else self._rule(self)

    def undo(self) -> None:
        self.epoch -= 1


@dataclasses.dataclass(frozen=True, eq=False)
class TorchSchedule:
    """A schedule that can be replayed, and be a member of others.

    Attributes:
      name: the function that made it.
      curve: what a call evaluates: the closed form or, with ``steps``, a table;
        None where there is neither.
      recursion: starts torch's recursion on a group, as a constructor does.
      base_lr: the group's rate before any schedule; None where the scheduler
        sets it itself.
      momentum: the schedule of the momentum (of b1 under Adam), in ``cyclic_lr``
        and ``one_cycle_lr`` unless ``cycle_momentum=False``.
    """

    name: str
    curve: Schedule | None
    recursion: Callable[[Group], Recursion]
    base_lr: Hyperparameter | None
    momentum: Schedule | None = None

    def __post_init__(self) -> None:
        if self.momentum is not None:
            self.momentum.__dict__["origin"] = (momentum_of, {"cycle": self})

    def __call__(self, count: ArrayLike) -> jax.Array:
        """The rate after ``count`` calls of ``scheduler.step()``."""
        if self.curve is None:
            raise ValueError(f"{self.name} has no closed form to call. Pass steps=n to replay it.")
        _refuse_negative(count)
        return self.curve(count)

    def rates(self, steps: int) -> list[float]:
        """Torch's rates for counts 0 to ``steps``, computed on the host."""
        require_count("steps", steps)
        group: Group = {"lr": on_host(self.base_lr)}
        recursion = self.recursion(group)
        rates = [group["lr"]]
        for _ in range(steps):
            recursion.step()
            rates.append(group["lr"])
        return rates

    def replayed(self, steps: int | None) -> "TorchSchedule":
        """The same with a table for counts 0 to ``steps``; itself where that is None."""
        if steps is None:
            return self
        return dataclasses.replace(self, curve=table_of(self.name, self.rates(steps)))


def momentum_of(cycle: TorchSchedule) -> Schedule | None:
    """The schedule of a cycle's momentum, which is made anew with its cycle."""
    return cycle.momentum


def table_of(name: str, values: Sequence[float]) -> Schedule:
    """``schedules.table``, of finite values."""
    array = np.asarray(values, np.float64)
    if not np.isfinite(array).all():
        first = int(np.argmin(np.isfinite(array)))
        raise ValueError(
            f"values of {name} must be finite numbers, got {array[first]} at {first}. "
            "Tabulate fewer steps."
        )
    return table(array)


def formula_schedule(
    name: str, formula: Callable[..., Any], hyperparameters: Sequence[Any], steps: int | None
) -> Schedule:
    """The schedule of ``formula(xp, count, *hyperparameters)``, tabulated with ``steps``."""
    _require_one_group(name, hyperparameters)
    if steps is None:
        curve = exact(lambda count, *values: formula(jnp, count, *values), *hyperparameters)
    else:
        host = [on_host(value) for value in hyperparameters]
        curve = table_of(name, [formula(HOST, count, *host) for count in range(steps + 1)])

    def schedule(count: ArrayLike) -> jax.Array:
        _refuse_negative(count)
        return curve(count)

    return schedule


def torch_schedule(
    name: str,
    base_lr: Hyperparameter | None,
    hyperparameters: Sequence[Any],
    closed: Callable[..., ArrayLike] | None,
    rule: Callable[..., float],
    *,
    steps: int | None,
    restart: Callable[..., float] | None = None,
    prepare: Callable[..., None] | None = None,
    own_base_lr: Hyperparameter | None = None,
) -> TorchSchedule:
    """One class of torch's, from its formula and its recursion.

    Args:
      name: the function's.
      base_lr: the group's rate; None where the scheduler sets it itself.
      hyperparameters: what ``closed``, ``rule``, ``restart`` and ``prepare``
        take last; ``closed`` as ``exact`` hands them on, the others on the host.
      closed: the formula of ``(count, base_lr, *hyperparameters)``, without
        ``base_lr`` where that is None; None where there is no such formula.
      rule: the next rate, of ``(leaf, *hyperparameters)``, as ``get_lr`` has it.
      steps: how many calls to replay, or None.
      restart: the rate at a milestone of ``sequential_lr``, of ``(base_lr,
        *hyperparameters)``: torch's ``_get_closed_form_lr`` at 0, for the
        classes that have one; the others go by ``rule``.
      prepare: what the constructor writes to the group, of ``(group,
        *hyperparameters)``.
      own_base_lr: CyclicLR's.
    """
    _require_one_group(name, (base_lr, *hyperparameters))
    if base_lr is not None:
        require_rate(base_lr)

    def recursion(group: Group) -> _Leaf:
        host = [on_host(value) for value in hyperparameters]

        def bound(function: Callable[..., Any] | None) -> Callable[[Any], Any] | None:
            return None if function is None else lambda first: function(first, *host)

        return _Leaf(
            group,
            lambda leaf: rule(leaf, *host),
            restart=bound(restart),
            prepare=bound(prepare),
            own_base_lr=on_host(own_base_lr),
        )

    leading = () if base_lr is None else (base_lr,)
    curve = None if closed is None else exact(closed, *leading, *hyperparameters)
    return TorchSchedule(name, curve, recursion, base_lr).replayed(steps)


def on_host(value: Any) -> Any:
    """``value`` off the device: arrays as Python numbers, the rest as it stands.

    A NumPy scalar is kept: a product with an ``np.float32`` is one in torch's step, too.
    """
    if isinstance(value, Tracer):
        raise ValueError(
            "hyperparameters must be known numbers to be replayed, got a traced one. "
            "Leave steps out: the closed form takes traced ones."
        )
    return value.tolist() if isinstance(value, jax.Array | np.ndarray) else value


def require_rate(base_lr: Any) -> None:
    """Refuses the rates that torch's optimizers refuse: negative ones and NaN."""
    require("base_lr", base_lr, "at least 0", lambda v: np.all(v >= 0))


def require_integer(name: str, value: Any, *, at_least: int) -> None:
    """``require_count`` where torch refuses floats, whole ones included."""
    require(
        name,
        value,
        f"an integer of at least {at_least}",
        lambda v: (
            isinstance(v, numbers.Integral) and not isinstance(v, bool) and int(v) >= at_least
        ),
    )


def require_start(last_epoch: Any) -> None:
    """Refuses a ``last_epoch`` other than torch's default, which begins anew."""
    if last_epoch != -1:
        raise ValueError(
            f"last_epoch must be -1, got {last_epoch!r}: a schedule is not resumed, it is a "
            "function of the count. Call it from the count reached."
        )


def _require_one_group(name: str, hyperparameters: Sequence[Any]) -> None:
    """Refuses torch's one value a group, which would broadcast against the counts."""
    for value in hyperparameters:
        if isinstance(value, list | tuple) or getattr(value, "ndim", 0):
            raise ValueError(
                f"each hyperparameter of {name} must be one number, got {value!r}: "
                "call it once a group."
            )


def _refuse_negative(count: ArrayLike) -> None:
    if not isinstance(count, Tracer):
        counts = np.asarray(count)
        if not (counts >= 0).all():
            raise ValueError(
                f"count must be at least 0, the constructor's, got {counts[~(counts >= 0)].flat[0]}"
            )


def factor_on_host(function: Callable[[Any], Any], count: int) -> float:
    """``function(count)`` as torch calls it: with an int, for a float."""
    with jax.enable_x64(True):  # where it is a schedule, it would round to float32
        return on_host(function(count))


def factor_in_graph(function: Callable[[Any], Any], name: str, count: jax.Array) -> Any:
    """``function(count)`` in float64, of a count that may be traced."""
    try:
        return as_float64(function(count))
    except Exception as error:
        concrete = not isinstance(count, Tracer)
        if concrete and isinstance(error, ValueError) and "truth value" not in str(error):
            raise  # a schedule's own refusal of a count
        raise TypeError(
            f"{name} must be made of operators and jnp to act on arrays and under jit, got "
            f"{getattr(function, '__name__', function)!r}. Pass steps=n to tabulate it."
        ) from error
