"""The bounds of update rules against torch, in one place: docstrings, README and docs quote them."""

BOUND = 1e-14
"""Relative to the largest entry: some tens of float64's roundings, over 200 updates."""

FLOAT32_BOUND = 8
"""Spacings of float32 at the largest entry, of the parameters: XLA fuses products and sums
that torch rounds one by one, and the other way round."""

SCALAR_BOUND = 1e-6
"""Relative to the largest entry, where torch keeps scalars in float32 for float64 parameters: NAdam's
``mu_product`` and ASGD's ``eta`` and ``mu`` are 6e-8 off."""

MUON_BOUND = 0.15
"""Relative to the sum of the rates up to an update, each times its adjustment: after five iterations
in bfloat16 an entry of torch's orthogonal matrix is some hundredths from that of float64, and so
is ours, which rounds some values in the other direction."""

MUSGD_FLOAT32_BOUND = 1e-5
"""The bound of MuSGD's parameters over 12 updates with the iteration in float32: sums in two orders."""

CLOSED_BOUND = 1e-11
"""The distance of a closed form from torch's recursion in float64, relative to the curve's peak."""
