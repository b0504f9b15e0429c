"""``jaxsched record``: what is done with PyTorch scripts. A row is an update; 0 is the first."""

from collections.abc import Sequence
from pathlib import Path

from jaxsched._io import make_writable
from jaxsched._validate import require_suffix


def record(script: Sequence[str], *, out: Path = Path("run.npz")) -> int:
    """Runs a PyTorch script as it stands and records what its optimizers are set to.

    For instance: jaxsched record -o run.npz -- python train.py

    What follows -- is run as it stands, in the Python that it names, which must have jaxsched. A
    row is an update; a second optimizer goes to run-1.npz, a process of rank 1 to
    run-rank1.npz, a second process without a rank to run-process1.npz, and so on. The
    exit status is the script's. A file says whether its process came to its end.

    Args:
      script: the command and its arguments.
      out: the file, .npz, written anew about each second.
    """
    require_suffix(out, (".npz",))
    make_writable(out)
    if not script:
        raise ValueError(
            "the script must follow --, got none: record -o run.npz -- python train.py"
        )
    from jaxsched.torch import _script as scripts

    return scripts.run(script, out)
