"""Live PyTorch objects: convert and record them, carry their state over, and compare updates.

Only this package imports torch. Its recipes count iterations from the start of the run; a recording's
``clock`` is what it counts.
"""

from jaxsched._extras import missing

try:
    import torch  # noqa: F401
except ModuleNotFoundError as _error:
    raise missing("jaxsched.torch", "torch") from _error

from jaxsched.torch._convert import from_torch, parameter_labels
from jaxsched.torch._recording import Recording, record
from jaxsched.torch._side_by_side import assert_optimizer_matches
from jaxsched.torch._state import export_state, import_state, match_names, numbers
from jaxsched.torch._state_dict import load

__all__ = [
    "Recording",
    "assert_optimizer_matches",
    "export_state",
    "from_torch",
    "import_state",
    "load",
    "match_names",
    "numbers",
    "parameter_labels",
    "record",
]
