"""The rows of a run to draw or export."""

from jaxsched._recipe import Recipe
from jaxsched._trace import Trace
from jaxsched._validate import require_count


def rows_of(run: Recipe | Trace, iterations: int | None = None) -> Trace:
    """Return the trace of a run, or its first ``iterations`` rows.

    Args:
      run: a trace, or a recipe.
      iterations: number of rows; if not given, all of a trace, or those from a recipe's start to
        the end of its last epoch.

    Raises:
      ValueError: a recipe without a length, and no ``iterations``.

    >>> from jaxsched.recipes import yolov5_resnet18
    >>> len(rows_of(yolov5_resnet18(epochs=2))), len(rows_of(yolov5_resnet18(), 5))
    (60, 5)
    """
    if isinstance(run, Trace):
        return run if iterations is None else run.head(iterations)
    if iterations is not None:
        require_count("iterations", iterations, at_least=1)
    elif (iterations := run.iterations) is None:
        raise ValueError(
            "iterations must be given for a recipe without a length, got None. Pass a number."
        )
    return run.trace(iterations)
