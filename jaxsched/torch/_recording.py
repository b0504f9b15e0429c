"""Record what a training loop sets its optimizer to, as it runs."""

import array
import math
import warnings
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from jaxsched._trace import Trace
from jaxsched._validate import is_number, require_count
from jaxsched.torch._groups import RULES, has_made_updates, labelled, places, read, unwrap

Column = tuple[str, str]  # a label and a name


def record(
    optimizer: torch.optim.Optimizer,
    labels: Sequence[str] | None = None,
    *,
    start: int | None = None,
) -> "Recording":
    """Record what is in force at each ``optimizer.step()``, as a context manager.

    ``with record(optimizer) as recording:`` around a training loop as it stands;
    ``recording.trace`` is the trace, in the block and after it. Recorded are the numbers of each
    group, in float64, as they are when the step begins: all that the rule of
    ``jaxsched.optimizers`` takes; of an optimizer that is not known there, rate, momentum or betas,
    and weight decay. A step that ``GradScaler`` skips is no update.

    A row is an update, and the trace's ``clock`` says so; or, where the loop calls
    ``recording.batch()`` at the end of each batch, a batch, with ``run["stepped"]``.

    Args:
      optimizer: any of torch's, in accelerate's wrapper too; it may accumulate, and have groups added or taken
        away, whose numbers are NaN while they are not there.
      labels: a name for each group; ``"0"``, ``"1"``, … if not given.
      start: the count of the first row, from the start of the run: of updates or, with
        ``recording.batch()``, of iterations. If not given 0, with a warning and a note in the
        trace's ``meta`` where the optimizer has made updates.

    Raises:
      ValueError: labels that do not fit, a start below 0.
    """
    recording = Recording(optimizer, labels, start)
    if note := recording.meta.get("note"):
        warnings.warn(f"{note} Pass start, the count of the first row.", stacklevel=2)
    return recording


class Recording:
    """What ``record`` yields, made of its arguments: it grows with each step, and has the trace.

    Attributes:
      meta: the trace's.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        labels: Sequence[str] | None = None,
        start: int | None = None,
    ) -> None:
        self._start = 0 if start is None else start
        require_count("start", self._start)
        optimizer = unwrap(optimizer, "optimizer")
        self._labels = list(labelled(optimizer, labels))
        # Weak, so that a script's optimizers and parameters can go while their traces stay.
        self._optimizer = weakref.ref(optimizer)
        self.meta = {"optimizer": type(optimizer).__name__}
        if start is None and has_made_updates(optimizer):
            self.meta["note"] = (
                "start must be given where the optimizer has made updates, got "
                f"{self.meta['optimizer']} with a state: rows count from 0."
            )
        self._rule = RULES.get(type(optimizer))
        self._groups: tuple[int, int] | None = None
        self._columns: dict[Column, array.array] = {}
        self._switches: dict[str, dict[str, Any]] = {}
        self._stepped: array.array | None = None
        self._rows = self._steps = 0
        self._last = self._in_force()
        self._trace: Trace | None = None
        self.closed = False

    def __enter__(self) -> "Recording":
        self._handle = self._alive().register_step_pre_hook(self.note)
        return self

    def __exit__(self, *_: Any) -> None:
        self._handle.remove()
        self.closed = True

    def _alive(self) -> torch.optim.Optimizer:
        optimizer = self._optimizer()
        if optimizer is None:
            raise ValueError("optimizer must be alive to be recorded, got one that is deleted.")
        return optimizer

    def note(self, *_: Any) -> None:
        """Record an update that is about to be made."""
        # A fused optimizer is stepped by GradScaler where it skips, too, and told so.
        if float(getattr(self._alive(), "found_inf", None) or 0.0):
            return
        self._steps += 1
        self._last = self._in_force()
        if self._stepped is None:
            self._append(self._last)

    def batch(self) -> None:
        """End a batch, in which there was an update or none.

        Raises:
          ValueError: there was more than one.
        """
        if self._steps > 1:
            raise ValueError(
                f"batch() must follow each batch, in which there is at most 1 update, got "
                f"{self._steps} updates since the last. Leave it out: rows are updates then."
            )
        if self._stepped is None:  # the row of this batch's update is made anew
            self._stepped, self._columns, self._rows = array.array("d"), {}, 0
        self._append(self._last if self._steps else self._in_force())
        self._stepped.append(self._steps)
        self._steps = 0

    def _in_force(self) -> dict[Column, float]:
        groups = self._alive().param_groups
        # load_state_dict makes another list, add_param_group a longer one.
        if self._groups != (id(groups), len(groups)):
            self._groups = id(groups), len(groups)
            self._labels += [str(k) for k in range(len(self._labels), len(groups))]
            found = []
            # Groups may have been taken away.
            for k, (label, group) in enumerate(zip(self._labels, groups, strict=False)):
                switches: dict[str, Any] = {}
                for name, place in places(group, self._rule).items():
                    value = read(group, place)
                    if is_number(value):
                        found.append(((label, name), k, place))
                    elif value is None or isinstance(value, bool | str | tuple | list):
                        switches[name] = value
                self._switches[label] = switches
            self._places = found
        return {column: float(read(groups[k], place)) for column, k, place in self._places}

    def _append(self, row: dict[Column, float]) -> None:
        if row.keys() != self._columns.keys():
            for column in row:
                self._columns.setdefault(column, array.array("d", [math.nan] * self._rows))
        for column, values in self._columns.items():
            values.append(row.get(column, math.nan))
        self._rows += 1

    @property
    def trace(self) -> Trace:
        """What has been recorded so far, as a trace that grows no more."""
        state = self._rows, self.closed
        if self._trace is None or (len(self._trace), self._trace.closed) != state:
            groups: dict[str, dict[str, np.ndarray]] = {}
            for label, name in dict.fromkeys([*self._columns, *(c for c, *_ in self._places)]):
                values = self._columns.get((label, name), ())
                # A signal may come while a row is appended.
                groups.setdefault(label, {})[name] = np.array(values[: self._rows], np.float64)
            run = {} if self._stepped is None else {"stepped": np.array(self._stepped)}
            self._trace = Trace(
                groups,
                run,
                self._start,
                meta=self.meta,
                clock="update" if self._stepped is None else "iteration",
                update_rule=self.meta["optimizer"] if self._rule is None else self._rule.__name__,
                switches=self._switches,
                versions={"torch": torch.__version__},
                closed=self.closed,
            )
        return self._trace

    def __len__(self) -> int:
        """The number of rows."""
        return self._rows

    def __repr__(self) -> str:
        return f"Recording({self.trace!r})"
