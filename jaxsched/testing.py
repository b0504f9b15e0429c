"""Assertions for a user's tests, without torch.

``jaxsched.torch.assert_optimizer_matches`` compares the updates themselves.
"""

import os
from pathlib import Path

from jaxsched._recipe import Recipe
from jaxsched._recipe._file import SUFFIXES
from jaxsched._trace import Trace
from jaxsched.parity import compare

__all__ = ["Run", "assert_matches"]

Run = Recipe | Trace | str | os.PathLike[str]
"""A recipe, a trace, or the file of either."""


def _load(run: Run) -> Recipe | Trace:
    """Return a run, read from its file if it is a path."""
    if isinstance(run, Recipe | Trace):
        return run
    return Recipe.load(run) if Path(run).suffix in SUFFIXES else Trace.load(run)


def assert_matches(mine: Run, reference: Run, *, iterations: int | None = None) -> None:
    """Fail if two runs differ; the message is the report, with the likely causes.

    Args:
      mine: a recipe, a trace, or the path of a trace's file or a recipe's (``.yaml``, ``.json``).
      reference: likewise; ``compare`` describes which iterations are compared.
      iterations: number of iterations to compare, as in ``compare``.

    Raises:
      AssertionError: the runs differ.
      ValueError: the runs cannot be compared, or a file is neither.

    >>> from jaxsched.recipes import recorded, yolov5_resnet18
    >>> assert_matches(yolov5_resnet18(), recorded("yolov5_resnet18"))
    >>> assert_matches(yolov5_resnet18(momentum=0.9), recorded("yolov5_resnet18"))
    Traceback (most recent call last):
    ...
    AssertionError: no parity: 3 of 13 quantities differ
    ...
    likely cause: momentum 0.9 for 0.937
    """
    mine, reference = (_load(run) for run in (mine, reference))
    report = compare(mine, reference, iterations=iterations)
    if not report:
        raise AssertionError(str(report))
