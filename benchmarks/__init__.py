"""One script a claim: ``python -m benchmarks.NAME`` prints a table and exits 1 if it fails."""
