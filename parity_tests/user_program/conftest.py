"""A user's programs hold no doctests, and some import torch; test_user_program.py runs them."""

collect_ignore_glob = ["*.py"]
