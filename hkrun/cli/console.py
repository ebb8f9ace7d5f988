"""The console that hkrun prints to, and its tables."""

import os
from typing import Any

from rich import box
from rich.console import Console, JustifyMethod, OverflowMethod
from rich.table import Table
from rich.text import Text

from hkrun.cli.streams import printable

_NAMES = ("cell", "name", "data set", "job", "state", "exit", "begun", "command")
_LEAST_COLUMNS = 10  # a narrower console has no room for an indent and a word


def given_columns() -> int | None:
    """The width that COLUMNS asks for; None where it has none, or one too narrow for a word, such as 0."""
    columns = os.environ.get("COLUMNS", "")
    return int(columns) if columns.isdecimal() and int(columns) >= _LEAST_COLUMNS else None


class PlainConsole(Console):
    """Rich's console without its guesses: text stays as it is, and a closed pipe is an exception."""

    def __init__(self, *, width: int | None = None, **kwargs: Any) -> None:
        # Rich would take every COLUMNS, also 0, at which it fails, as it does at digits that are no number.
        others = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
        columns = given_columns() if width is None else width
        # In the kernel of a notebook Rich would show each line as an output, wherever the file leads.
        super().__init__(
            markup=False,
            highlight=False,
            emoji=False,
            force_jupyter=False,
            width=columns,
            _environ=others,
            **kwargs,
        )

    def render_str(self, text: str, **kwargs: Any) -> Text:
        """The text as its stream will show it: a table must know how wide that is."""
        return super().render_str(printable(text, self.encoding), **kwargs)

    def on_broken_pipe(self) -> None:
        """Lets the BrokenPipeError through that Rich handles here by exiting with 1, a bug's code."""
        raise


def make_table(title: str | None, *headings: str, overflow: OverflowMethod = "ellipsis") -> Table:
    """A table with a line under its head; the columns of names are on the left, those of figures right.

    Where it is too wide, names are folded and figures are not.
    """
    table = Table(box=box.SIMPLE, title_justify="left", title=title)
    for heading in headings:
        is_name = heading in _NAMES
        justify: JustifyMethod = "left" if is_name else "right"
        table.add_column(heading, justify=justify, overflow=overflow, no_wrap=not is_name)
    return table
