"""The console that hkrun prints to."""

from typing import Any

from rich.console import Console
from rich.text import Text

from hkrun.cli.streams import printable


class PlainConsole(Console):
    """Rich's console without its guesses: text stays as it is, and a closed pipe is an exception."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(markup=False, highlight=False, emoji=False, **kwargs)

    def render_str(self, text: str, **kwargs: Any) -> Text:
        """The text as its stream will show it: a table must know how wide that is."""
        return super().render_str(printable(text, self.encoding), **kwargs)

    def on_broken_pipe(self) -> None:
        """Lets the BrokenPipeError through that Rich handles here by exiting with 1, a bug's code."""
        raise
