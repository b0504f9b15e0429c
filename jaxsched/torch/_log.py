"""Log the rows of one optimizer, and join the traces of several."""

import array
import dataclasses
import math
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from jaxsched._groups import common_value
from jaxsched._trace import Trace
from jaxsched._validate import is_number
from jaxsched.torch._groups import complete, find_rule, has_made_updates, places, read

Column = tuple[str, str]  # a label and a name


class Log:
    """The hyperparameters of one optimizer, a row an update or, once ``batch`` is called, a batch.

    Args:
      optimizer: any of torch's, without accelerate's wrapper.
      labels: a name for each of its groups.
      taken: the names of the groups of all optimizers recorded together; names of groups that are
        added later are appended.
      start: the count of the first row; 0 if None.

    Attributes:
      kind: the name of the optimizer's class.
      rows: number of rows.
      updates: number of updates.
      meta: the notes of the trace.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        labels: Sequence[str],
        taken: list[str],
        start: int | None = None,
    ) -> None:
        self._start = 0 if start is None else start
        self._labels, self._taken = list(labels), taken
        # Weak, so that a script's optimizers can be freed while their traces stay.
        self._optimizer = weakref.ref(optimizer)
        self.kind = type(optimizer).__name__
        self.meta: dict[str, Any] = {"optimizer": self.kind}
        if start is None and has_made_updates(optimizer):
            self.meta["note"] = (
                "start must be given where the optimizer has made updates, got "
                f"{self.kind} with a state: rows count from 0."
            )
        self._rule = find_rule(optimizer)
        self._groups: tuple[int, int] | None = None
        self._columns: dict[Column, array.array] = {}
        self._switches: dict[str, dict[str, Any]] = {}
        self._stepped: array.array | None = None
        self.rows = self.updates = self._steps = 0
        self._last = self._in_force()
        self._trace: Trace | None = None

    def alive(self) -> torch.optim.Optimizer:
        """Return the optimizer; refuse one that is deleted."""
        optimizer = self._optimizer()
        if optimizer is None:
            raise ValueError("optimizer must be alive to be recorded, got one that is deleted.")
        return optimizer

    def note(self) -> None:
        """Record an update that is about to be made."""
        # GradScaler steps a fused optimizer even for a skipped step, with found_inf set.
        if float(getattr(self.alive(), "found_inf", None) or 0.0):
            return
        self.updates += 1
        self._steps += 1
        self._last = self._in_force()
        if self._stepped is None:
            self._append(self._last)

    def batch(self) -> None:
        """End a batch; refuse one with more than one update."""
        if self._steps > 1:
            raise ValueError(
                f"batch() must follow each batch, in which there is at most 1 update, got "
                f"{self._steps} updates since the last. Leave it out: rows are updates then."
            )
        if self._stepped is None:  # drop the row of this batch's update
            self._stepped, self._columns, self.rows = array.array("d"), {}, 0
        self._append(self._last if self._steps else self._in_force())
        self._stepped.append(self._steps)
        self._steps = 0

    def _in_force(self) -> dict[Column, float]:
        optimizer = self.alive()
        groups = optimizer.param_groups
        # load_state_dict makes a new list, add_param_group a longer one.
        if self._groups != (id(groups), len(groups)):
            self._groups = id(groups), len(groups)
            while len(self._labels) < len(groups):
                self._labels.append(str(len(self._taken)))
                self._taken.append(self._labels[-1])
            sources = []
            # Groups may have been removed.
            for k, (label, group) in enumerate(zip(self._labels, groups, strict=False)):
                switches: dict[str, Any] = {}
                group = complete(group, optimizer)
                for name, place in places(group, self._rule).items():
                    value = read(group, place)
                    if is_number(value):
                        sources.append(((label, name), k, place))
                    elif value is None or isinstance(value, bool | str | tuple | list):
                        switches[name] = value
                self._switches[label] = switches
            self._places = sources
        groups = [complete(group, optimizer) for group in groups]
        return {column: float(read(groups[k], place)) for column, k, place in self._places}

    def _append(self, row: dict[Column, float]) -> None:
        if row.keys() != self._columns.keys():
            for column in row:
                self._columns.setdefault(column, array.array("d", [math.nan] * self.rows))
        for column, values in self._columns.items():
            values.append(row.get(column, math.nan))
        self.rows += 1

    def trace(self, closed: bool = False) -> Trace:
        """Return the rows recorded so far as a trace, which does not grow."""
        if self._trace is None or (len(self._trace), self._trace.closed) != (self.rows, closed):
            groups: dict[str, dict[str, np.ndarray]] = {}
            for label, name in dict.fromkeys([*self._columns, *(c for c, *_ in self._places)]):
                values = self._columns.get((label, name), ())
                # A signal handler may call this while a row is being appended.
                groups.setdefault(label, {})[name] = np.array(values[: self.rows], np.float64)
            run = {} if self._stepped is None else {"stepped": np.array(self._stepped)}
            self._trace = Trace(
                groups,
                run,
                self._start,
                meta=self.meta,
                clock="update" if self._stepped is None else "iteration",
                update_rule=self.kind if self._rule is None else self._rule.__name__,
                switches=self._switches,
                versions={"torch": torch.__version__},
                closed=closed,
            )
        return self._trace


def join_meta(metas: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Merge the notes of several logs: a list of the optimizers, and the first note."""
    if len(metas) == 1:
        return dict(metas[0])
    merged: dict[str, Any] = {"optimizer": [meta["optimizer"] for meta in metas]}
    for meta in metas:
        if "note" in meta:
            merged.setdefault("note", meta["note"])
    return merged


def join(traces: Sequence[Trace]) -> Trace:
    """Join the groups of several traces in one, with as many rows as the shortest.

    The traces must have different labels and the same clock.
    """
    rows = min(map(len, traces))
    cut = [trace.head(rows) for trace in traces]
    rules = {label: name for trace in cut for label, name in trace.rule_by_label.items()}
    return dataclasses.replace(
        cut[0],
        groups={label: group for trace in cut for label, group in trace.groups.items()},
        switches={label: group for trace in cut for label, group in trace.switches.items()},
        meta=join_meta([trace.meta for trace in cut]),
        update_rule=common_value(rules),
        closed=all(trace.closed is True for trace in cut),
    )
