"""One script a claim: ``python -m benchmarks`` runs all, ``python -m benchmarks.NAME`` one."""
