"""Compare: where two runs part, by how much, and why.

Rows are iterations, or what the reference's clock counts; the first is that of the
reference's ``start``.
"""

from jaxsched.parity.report import Quantity, Report, compare
from jaxsched.parity.rows import FLOAT64_BOUND, ulps

__all__ = ["FLOAT64_BOUND", "Quantity", "Report", "compare", "ulps"]
