"""Copy a scheduler and its optimizer, and run the copies without changing the live ones."""

import collections
import inspect
import io
import itertools
import pickle
import types
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch

Copies = tuple[Any, torch.optim.Optimizer]


def detach(scheduler: Any, optimizer: torch.optim.Optimizer) -> Copies:
    """Copy both, so that a step of the copies cannot change the live ones.

    The copied optimizer has the groups and no state; its parameters are on the meta device, which
    takes no memory. Functions keep their globals, and get copies of their closures, defaults and
    attributes. A scheduler that cannot be copied raises a ValueError.
    """
    stand_in = object.__new__(type(optimizer))
    replaced: dict[int, Any] = {id(optimizer): stand_in}

    def replace(live: Any, copy: Any) -> Any:
        replaced[id(live)] = copy
        return copy

    def entry(key: str, value: Any) -> Any:
        if key == "params":
            return replace(value, [replace(p, torch.empty_like(p, device="meta")) for p in value])
        return replace(value, value.clone()) if isinstance(value, torch.Tensor) else value

    groups = [
        replace(group, {key: entry(key, value) for key, value in group.items()})
        for group in optimizer.param_groups
    ]
    state = {"defaults": dict(optimizer.defaults), "state": collections.defaultdict(dict)}
    state["param_groups"] = replace(optimizer.param_groups, groups)
    torch.optim.Optimizer.__setstate__(stand_in, state)
    file = io.BytesIO()
    copier = _Copier(file, protocol=5)
    copier.shared = replaced

    class Loader(pickle.Unpickler):
        def persistent_load(self, pid: Any) -> Any:
            return copier.shared[pid]

    try:
        copier.dump(scheduler)
    except (TypeError, AttributeError, pickle.PicklingError) as error:
        raise ValueError(
            f"scheduler must be one that can be copied, to be run apart, got "
            f"{type(scheduler).__name__} ({error}). Record its run with jaxsched.torch.record."
        ) from error
    file.seek(0)
    return Loader(file).load(), stand_in


class _Copier(pickle.Pickler):
    """A pickler that writes replaced and shared objects by identity.

    ``copy.deepcopy`` does not copy functions, so that a closure would step the live optimizer.
    """

    shared: dict[int, Any]

    def persistent_id(self, obj: Any) -> int | None:
        plain = isinstance(obj, types.FunctionType) and not (
            obj.__closure__ or obj.__defaults__ or obj.__kwdefaults__ or obj.__dict__
        )
        if plain or isinstance(obj, type | types.ModuleType | types.CodeType):
            self.shared.setdefault(id(obj), obj)
        return id(obj) if id(obj) in self.shared else None

    def reducer_override(self, obj: Any) -> Any:
        if isinstance(obj, types.CellType):
            return types.CellType, (), (None, {"cell_contents": obj.cell_contents})
        if isinstance(obj, types.FunctionType):
            self.shared[id(obj.__globals__)] = obj.__globals__
            args = (obj.__code__, obj.__globals__, obj.__name__, obj.__defaults__, obj.__closure__)
            return types.FunctionType, args, (obj.__dict__, {"__kwdefaults__": obj.__kwdefaults__})
        if isinstance(obj, types.MethodType):
            # pickle would look it up by name, and may find the class's method instead.
            return types.MethodType, (obj.__func__, obj.__self__)
        if type(obj) is weakref.ref and id(obj()) in self.shared:  # copies of others would die
            return weakref.ref, (obj(),)
        return NotImplemented


class Ended(Exception):
    """Raised when a scheduler cannot step further; the scheduler's error is its cause."""


def rows(
    scheduler: Any, optimizer: torch.optim.Optimizer, read: Callable[[Any], Any]
) -> Iterator[Any]:
    """Yield ``read(groups)`` of the optimizer after 0, 1, 2, … further steps.

    If the scheduler raises an error, ``Ended`` is raised from it.
    """
    copy, stand_in = detach(scheduler, optimizer)
    live = read(optimizer.param_groups)
    step, takes_count = _stepper(copy)
    count = _find_count(detach(scheduler, optimizer), live, read) if takes_count else 0
    before = [dict(group) for group in optimizer.param_groups]
    while True:
        yield read(stand_in.param_groups)
        count += 1
        failure = None
        try:
            step(count)
        except Exception as error:  # a user's lr_lambda may raise anything past its end
            failure = error
        if read(optimizer.param_groups) != live:
            for group, values in zip(optimizer.param_groups, before, strict=True):
                group.update(values)
            raise ValueError(
                f"scheduler must reach its optimizer by its own attributes, got "
                f"{type(scheduler).__name__}, whose copy moved the live one. "
                "Record its run with jaxsched.torch.record."
            )
        if failure is not None:
            raise Ended(f"{type(failure).__name__}: {failure}") from failure


MAX_COUNT = 10_000  # the search for the count of a scheduler whose step takes one ends there


def _stepper(scheduler: Any) -> tuple[Callable[[int], Any], bool]:
    """Return a function of the count that steps a scheduler, and whether its ``step`` takes one."""
    # timm's scheduler counts updates unless t_in_epochs.
    by_update = getattr(scheduler, "t_in_epochs", True) is False
    step = scheduler.step_update if by_update else scheduler.step
    if any(
        p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)
        for p in inspect.signature(step).parameters.values()
    ):
        return step, True
    return lambda count: step(), False


def make_stepper(scheduler: Any) -> Callable[[], Any]:
    """Return a function that steps a fresh scheduler, with the count if its ``step`` takes one."""
    (step, _), counts = _stepper(scheduler), itertools.count(1)
    return lambda: step(next(counts))


def _find_count(copies: Copies, live: Any, read: Callable[[Any], Any]) -> int:
    """Infer the count of a scheduler that does not store it, from the groups' values."""
    copy, stand_in = copies
    (step, _), run = _stepper(copy), []
    for count in range(MAX_COUNT):
        try:
            step(count)
        except Exception:  # it may raise anything past its end
            break
        run.append(read(stand_in.param_groups))
    matches = [count for count, row in enumerate(run) if row == live]
    futures = {str(run[count + 1 : count + len(run) - matches[-1]]) for count in matches}
    if len(futures) != 1:
        raise ValueError(
            "scheduler must have rates that determine its count, got "
            f"{type(copy).__name__}, with the rates of {len(matches)} of its first {len(run)} counts. "
            "Pass an object whose step() takes no count."
        )
    return matches[0]
