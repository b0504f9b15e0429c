"""Runs of the originals that the package carries. A row is an iteration; 0 is the first."""

from importlib import resources

from jaxsched._trace import Trace
from jaxsched._validate import describe


def recorded(name: str) -> Trace:
    """The trace of an original's own run.

    Args:
      name: ``"yolov5_resnet18"``, the article's script run with torch 2.13.0 on
        torchvision's ``resnet18(num_classes=10)``: 3,000 iterations in float64.

    Raises:
      ValueError: there is no trace of that name.

    >>> len(recorded("yolov5_resnet18"))
    3000
    """
    folder = resources.files("jaxsched.recipes") / "traces"
    known = sorted(path.name.removesuffix(".npz") for path in folder.iterdir())
    if name not in known:
        raise ValueError(f"name must be one of {', '.join(known)}, got {describe(name)}.")
    with resources.as_file(folder / f"{name}.npz") as path:
        return Trace.load(path)
