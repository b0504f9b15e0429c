"""One script for each claim: ``python -m benchmarks`` runs all, ``python -m benchmarks.NAME`` one."""
