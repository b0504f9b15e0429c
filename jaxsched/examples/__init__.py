"""Training loops of a user, one file each, run as they stand: ``python -m jaxsched.examples.train_nnx``."""

__all__: list[str] = []
