"""The metrics of a run, one row an iteration: ``metrics.csv``, and event files for TensorBoard.

Row 0 is the first iteration.
"""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any, TextIO

import jax

from jaxsched.param_groups import leaf_path

__all__ = ["Metrics", "columns"]


def columns(row: Any) -> dict[str, Any]:
    """Return the numbers of a row by name: those of an inner dictionary as ``label/name``.

    Args:
      row: a NamedTuple of numbers and of nested dictionaries of numbers.

    >>> from typing import NamedTuple
    >>> class Row(NamedTuple):
    ...     loss: float
    ...     hyperparameters: dict
    >>> columns(Row(0.5, {"bias": {"learning_rate": 0.1}}))
    {'loss': 0.5, 'bias/learning_rate': 0.1}
    """
    paths = [(leaf_path(keys), value) for keys, value in jax.tree_util.tree_leaves_with_path(row)]
    return {"/".join(path[1:] or path): value for path, value in paths}


class Metrics:
    """Write ``metrics.csv``, each row as soon as its iteration is done.

    Args:
      folder: an existing folder.
      rows: the rows of the checkpoint that the run continues from, with which the file begins; rows
        that a stopped run wrote after its last checkpoint are replaced.
      tensorboard: also write event files to ``tensorboard`` in the folder, by ``tensorboardX``.
        TensorBoard hides values of earlier files from the first new iteration on.

    Raises:
      ModuleNotFoundError: ``tensorboard`` without tensorboardX.
    """

    def __init__(
        self, folder: Path, rows: Iterable[Any] = (), *, tensorboard: bool = False
    ) -> None:
        self._path = folder / "metrics.csv"
        self._file: TextIO | None = None
        self._iteration = 0
        self._events: Any = None
        for row in rows:
            self.write(row)
        if tensorboard:
            from tensorboardX import SummaryWriter

            start = self._iteration
            self._events = SummaryWriter(
                str(folder / "tensorboard"), purge_step=start, filename_suffix=f".{start}"
            )

    def write(self, row: Any) -> None:
        """Write the next iteration's row."""
        values = {name: float(value) for name, value in columns(row).items()}
        if self._file is None:
            self._file = self._path.open("w", buffering=1, encoding="utf-8", newline="")
            csv.writer(self._file).writerow(["iteration", *values])
        csv.writer(self._file).writerow([self._iteration, *values.values()])
        if self._events is not None:
            for name, value in values.items():
                self._events.add_scalar(name, value, self._iteration)
        self._iteration += 1

    def flush(self) -> None:
        """Flush TensorBoard's writer; call it before a checkpoint."""
        if self._events is not None:
            self._events.flush()

    def close(self) -> None:
        """Close the files."""
        for file in (self._file, self._events):
            if file is not None:
                file.close()
