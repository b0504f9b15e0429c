"""Example training loops, one file each: ``python -m jaxsched.examples.train_nnx``."""

__all__: list[str] = []
