"""The rows of a run that are drawn or exported."""

from jaxsched._recipe import Recipe
from jaxsched._trace import Trace
from jaxsched._validate import require_count


def rows_of(run: Recipe | Trace, iterations: int | None = None) -> Trace:
    """Return the trace to show of a run.

    Args:
      run: a trace, or a recipe.
      iterations: how many; if not given all, a recipe's from its start to the end of its last epoch.

    Raises:
      ValueError: a recipe without a length, without ``iterations``.

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
