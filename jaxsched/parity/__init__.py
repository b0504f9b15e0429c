"""Compare two runs: the quantities that differ, by how much, and the likely causes.

Rows are iterations, counted from the start of the run, or updates.
"""

from jaxsched.parity._compare import compare
from jaxsched.parity._distance import FLOAT64_BOUND, ulps
from jaxsched.parity._report import Difference, Quantity, Report

__all__ = ["FLOAT64_BOUND", "Difference", "Quantity", "Report", "compare", "ulps"]
