"""Compare: where two runs differ, by how much, and why.

Rows are iterations, or what the reference's clock counts; the first is that of the
reference's ``start``.
"""

from jaxsched.parity._compare import compare
from jaxsched.parity._report import Difference, Quantity, Report
from jaxsched.parity._rows import FLOAT64_BOUND, ulps

__all__ = ["FLOAT64_BOUND", "Difference", "Quantity", "Report", "compare", "ulps"]
