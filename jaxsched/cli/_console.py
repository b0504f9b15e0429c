"""The terminal."""

from rich import console


class Console(console.Console):
    """rich's console, which would end the process where nobody reads what it prints."""

    def on_broken_pipe(self) -> None:
        """Raise the BrokenPipeError that is being handled."""
        raise
