"""Compositions of schedules, which replay torch's recursive steps.

The members act on one group in turn: each starts from the rate that the previous one set.
"""

from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from jaxsched._schedule import Schedule, show
from jaxsched._validate import describe, is_number, require
from jaxsched.lr_scheduler._recursion import Group, Recursion, with_replay


class _Chain(Recursion):
    """Members that act on one group; each call steps all of them."""

    def __init__(self, group: Group, members: Sequence[Recursion]) -> None:
        self.members = members  # the constructors have made their steps

    def enter(self) -> None:
        self.step()  # a nested composition is one step early

    def step(self) -> None:
        for member in self.members:
            member.step()

    def restart(self) -> None:
        raise ValueError(
            "schedulers entered at a milestone must not be compositions, got one: torch 2.13 "
            "cannot restart it. Put it first, or write its members into the outer sequential_lr."
        )

    def undo(self) -> None:
        for member in self.members:
            member.undo()


class _Sequence(_Chain):
    """Members that step one after the other, each from its milestone on."""

    def __init__(
        self, group: Group, members: Sequence[Recursion], milestones: Sequence[int]
    ) -> None:
        super().__init__(group, members)
        self.milestones = milestones
        self.epoch = 0
        group["lr"] = group["initial_lr"]
        self.undo()
        self.members[bisect_right(milestones, 0)].enter()

    def step(self) -> None:
        self.epoch += 1
        index = bisect_right(self.milestones, self.epoch)
        if index > 0 and self.milestones[index - 1] == self.epoch:
            self.members[index].restart()
        else:
            self.members[index].step()


def sequential_lr(
    schedulers: Sequence[Schedule], milestones: Sequence[int], *, steps: int | None = None
) -> Schedule:
    r"""Schedules one after the other, each from its start.

    .. math:: s(c) = s_k(c - m_k),\quad m_0 = 0,\ m_k \le c < m_{k+1}

    This is torch's recursion: at its milestone a member steps to 0, where it restarts from
    ``base_lr``; only ``multiplicative_lr`` (which uses its factor of 0 there) and ``swa_lr`` continue
    from the current rate. The last member continues forever.

    Torch 2.13 steps a ``sequential_lr`` or ``chained_scheduler`` that is the first member of another
    one count early (pytorch #196243), and so does this function. Torch cannot restart one at a later
    milestone: that is refused. There is no ``.momentum``, even if a member cycles it.

    Args:
      schedulers: schedules of this module with the same ``base_lr``, in the order in which a script
        constructs them; their ``steps`` are ignored.
      milestones: the counts at which the next begins, one fewer than schedulers.
      steps: replays torch for counts 0 to ``steps``. Required, unless this schedule is itself passed
        to another composition.

    Source: ``torch.optim.lr_scheduler.SequentialLR``, torch 2.13.

    >>> from jaxsched.lr_scheduler import constant_lr, exponential_lr
    >>> schedule = sequential_lr(
    ...     [constant_lr(1.0, 0.25, 5), exponential_lr(1.0, 0.5)], [2], steps=10
    ... )
    >>> [float(schedule(c)) for c in range(5)]
    [0.25, 0.25, 1.0, 0.5, 0.25]
    """
    if not isinstance(milestones, Iterable):
        raise TypeError(f"milestones must be a list of integers, got {describe(milestones)}.")
    schedulers, milestones = _members(schedulers), list(milestones)
    if len(milestones) != len(schedulers) - 1:
        raise ValueError(
            f"milestones must be one fewer than schedulers, got {len(milestones)} for "
            f"{len(schedulers)}."
        )
    require(
        "milestones",
        milestones,
        "integers in ascending order",
        lambda values: [int(m) for m in values] == sorted(values),
    )
    milestones = [int(milestone) for milestone in milestones]
    return _compose(sequential_lr, locals(), _Sequence, milestones)


def chained_scheduler(schedulers: Sequence[Schedule], *, steps: int | None = None) -> Schedule:
    r"""Schedules at the same time, each stepping from the rate that the previous one set.

    This is the chain of the recursive steps, not the product of closed forms: a member that computes
    its rate from ``initial_lr`` (``lambda_lr``, ``one_cycle_lr``, …) discards the previous members'
    changes. There is no ``.momentum``, even if a member cycles it.

    Args:
      schedulers: schedules of this module with the same ``base_lr``, in the order in which they
        step; their ``steps`` are ignored.
      steps: replays torch for counts 0 to ``steps``. Required, unless this schedule is itself passed
        to another composition.

    Source: ``torch.optim.lr_scheduler.ChainedScheduler``, torch 2.13.

    >>> from jaxsched.lr_scheduler import constant_lr, exponential_lr
    >>> schedule = chained_scheduler(
    ...     [constant_lr(1.0, 0.5, 2), exponential_lr(1.0, 0.5)], steps=10
    ... )
    >>> [float(schedule(c)) for c in range(4)]
    [0.5, 0.25, 0.25, 0.125]
    """
    schedulers = _members(schedulers)
    return _compose(chained_scheduler, locals(), _Chain)


def _members(schedulers: Sequence[Schedule]) -> tuple[Schedule, ...]:
    """Return the schedulers as a tuple; refuse objects that cannot be members."""
    schedulers = tuple(schedulers)
    if not schedulers:
        raise ValueError("schedulers must hold at least 1, got none.")
    for index, member in enumerate(schedulers):
        if not isinstance(member, Schedule) or member.recursion is None:
            raise TypeError(
                "schedulers must be functions of a count made by jaxsched.lr_scheduler, got "
                f"{show(member) if callable(member) else type(member).__name__} at index {index}."
            )
    return schedulers


def _compose(
    factory: Callable[..., Schedule],
    arguments: Mapping[str, Any],
    kind: Callable[..., Recursion],
    *marks: Sequence[int],
) -> Schedule:
    """Build the composition of ``arguments["schedulers"]``."""
    members: Sequence[Schedule] = arguments["schedulers"]
    # The rate of the group, on which the members must agree.
    rates = [member.base_lr for member in members if member.base_lr is not None]
    rates_once = dict.fromkeys(rate for rate in rates if is_number(rate))
    if len(rates_once) > 1:
        raise ValueError(
            "schedulers must have one base_lr, that of the group, got "
            f"{' and '.join(map(repr, rates_once))}."
        )

    def recursion(group: Group) -> Recursion:
        running = [member.recursion(group) for member in members if member.recursion]
        return kind(group, running, *marks)

    base_lr = rates[0] if rates else None
    return with_replay(Schedule(factory, arguments, None, recursion=recursion, base_lr=base_lr))
