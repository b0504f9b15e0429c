"""The terminal."""

from rich import console


class Console(console.Console):
    """rich's console, without its exit when the reader of stdout has closed it."""

    def on_broken_pipe(self) -> None:
        """Raise the BrokenPipeError that is being handled."""
        raise
