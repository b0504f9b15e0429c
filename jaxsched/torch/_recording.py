"""Record the hyperparameters that a running training loop sets."""

import dataclasses
import functools
import warnings
from collections.abc import Sequence
from typing import Any

from jaxsched._trace import Trace
from jaxsched._validate import require_count
from jaxsched.torch._groups import Optimizers, as_optimizers, split_labels
from jaxsched.torch._log import Log, join, join_meta


def record(
    optimizer: Optimizers, labels: Sequence[str] | None = None, *, start: int | None = None
) -> "Recording":
    """Record the hyperparameters in force at each ``optimizer.step()``, as a context manager.

    Put ``with record(optimizer) as recording:`` around an unchanged training loop; inside and after
    the block, ``recording.trace`` is the trace. It holds the numbers of each group in float64, as they
    are when a step begins: all arguments of the rule of ``jaxsched.optimizers``; for an optimizer
    without one, rate, momentum or betas, and weight decay. A step that ``GradScaler`` skips is not an
    update.

    A row is an update, and the trace's ``clock`` is ``"update"``. If the loop calls
    ``recording.batch()`` in each batch, after ``optimizer.step()`` and before ``scheduler.step()``, a
    row is a batch, with ``run["stepped"]``.

    For a list of optimizers, a row is an update of each. A second step of one before the others have
    made theirs is refused with a ValueError, and so is a block that ends between them.

    Args:
      optimizer: any of torch's, also in accelerate's wrapper, or a list of optimizers. It may
        accumulate, and groups may be added or removed: their numbers are NaN in rows without them.
      labels: a name for each group, those of one optimizer after those of another; ``"0"``,
        ``"1"``, … if not given.
      start: the count of the first row, from the start of the run: of updates or, with
        ``recording.batch()``, of iterations. If not given 0, with a warning and a note in the
        trace's ``meta`` if the optimizer has made updates.

    Raises:
      ValueError: labels that do not fit, a start below 0, a parameter in two optimizers.

    >>> import torch
    >>> optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    >>> with record(optimizer, labels=["all"]) as recording:
    ...     for lr in (0.1, 0.05):
    ...         optimizer.param_groups[0]["lr"] = lr
    ...         optimizer.step()
    >>> recording.trace.groups["all"]["learning_rate"].tolist()
    [0.1, 0.05]
    """
    recording = Recording(optimizer, labels, start)
    if note := recording.meta.get("note"):
        warnings.warn(f"{note} Pass start, the count of the first row.", stacklevel=2)
    return recording


class Recording:
    """The recording that ``record`` yields, which grows with each step.

    Attributes:
      meta: the notes of the trace.
    """

    def __init__(
        self, optimizer: Optimizers, labels: Sequence[str] | None = None, start: int | None = None
    ) -> None:
        require_count("start", 0 if start is None else start)
        optimizers = as_optimizers(optimizer)
        by_optimizer = split_labels(optimizers, labels)
        all_labels = [label for own in by_optimizer for label in own]
        pairs = zip(optimizers, by_optimizer, strict=True)
        self._logs = [Log(each, own, all_labels, start) for each, own in pairs]
        self.meta = join_meta([log.meta for log in self._logs])
        self._trace: Trace | None = None
        self.closed = False

    def __enter__(self) -> "Recording":
        hooks = [functools.partial(self._note, log) for log in self._logs]
        self._handles = [
            log.alive().register_step_pre_hook(hook)
            for log, hook in zip(self._logs, hooks, strict=True)
        ]
        return self

    def __exit__(self, error: Any = None, *_: Any) -> None:
        for handle in self._handles:
            handle.remove()
        self.closed = True
        if error is None:
            self._require_together()

    def _note(self, log: Log, *_: Any) -> None:
        log.note()
        self._require_together(at_most=1)

    def _require_together(self, at_most: int = 0) -> None:
        """Refuse optimizers whose counts of updates differ by more than ``at_most``."""
        updates = [log.updates for log in self._logs]
        if max(updates) - min(updates) > at_most:
            counts = " and ".join(f"{log.updates} of {log.kind}" for log in self._logs)
            raise ValueError(
                "optimizers that are recorded together must make equally many updates, each one "
                f"before the next of another, got {counts}. Record each by itself."
            )

    def batch(self) -> None:
        """End a batch, in which there was an update or none.

        Raises:
          ValueError: there was more than one, or one of some of the optimizers.
        """
        self._require_together()
        for log in self._logs:
            log.batch()

    @property
    def trace(self) -> Trace:
        """The rows recorded so far, as a trace, which does not grow."""
        state = len(self), self.closed
        if self._trace is None or (len(self._trace), self._trace.closed) != state:
            trace = join([log.trace() for log in self._logs])
            self._trace = dataclasses.replace(trace, meta=self.meta, closed=self.closed)
        return self._trace

    def __len__(self) -> int:
        """The number of rows."""
        return min(log.rows for log in self._logs)

    def __repr__(self) -> str:
        return f"Recording({self.trace!r})"
