"""Tables with a row for each cell: names that fit their terminal, and what they stand for below."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, JustifyMethod
from rich.measure import Measurement
from rich.padding import Padding
from rich.text import Text

from hkrun.cli.console import make_table

if TYPE_CHECKING:
    from rich.table import Table

    from hkrun.spaces import CellColumns, FittedColumns

_NAMES, _LEAST_NAMES = 20, 14  # columns that names have beside the ids of cells, and at the last


def print_cell_table(
    console: Console,
    title: str,
    naming: "CellColumns",
    headings: Sequence[str],
    rows: Mapping[str, tuple[str, Sequence[str]]],
) -> None:
    """Prints what there is of each cell. No word of any field is broken.

    Where the terminal is narrow, the ids give way first. Then names lose their middle and are spelled out
    below, and axes share one column where they have no place in columns of their own.

    Args:
        console: Where to.
        title: Above the table.
        naming: The columns that name the cells.
        headings: Of the other columns but for the id.
        rows: By the name of the cell: its id, and the fields.
    """
    from hkrun.spaces import fit_columns

    def build(names: "FittedColumns", *, ids: bool) -> "Table":
        table = make_table(title, *(["id"] if ids else []))
        for heading in names.headings:
            table.add_column(heading, no_wrap=True)
        for place, heading in enumerate(headings):
            texts = [heading, *(fields[place] for _, fields in rows.values())]
            longest = max(len(word) for text in texts for word in text.split())
            table.add_column(heading, justify="right", min_width=longest)
        for name, (identity, fields) in rows.items():
            table.add_row(*([identity] if ids else []), *names.fields[name], *fields)
        return table

    ways = [
        (naming, True, _NAMES),
        (naming, False, _NAMES),
        (naming, False, _LEAST_NAMES),
        (naming.in_one(), False, _LEAST_NAMES),
    ]
    for columns, ids, width in ways:
        names = fit_columns(columns, columns.at_least(width))
        spare = console.width - _measure(console, build(names, ids=ids))
        if spare >= 0:
            break
    names = fit_columns(columns, names.width + max(0, spare))
    console.print(build(names, ids=ids))
    _print_notes(console, names.notes)


def print_named_table(
    console: Console, headings: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]
) -> None:
    """Prints a table whose rows have names, such as studies; a long one loses its middle where it must.

    Args:
        console: Where to.
        headings: Of the columns after the first, "name".
        rows: The name of each, and the fields.
    """
    from hkrun.spaces import shorten_names

    def build(short: Mapping[str, str]) -> "Table":
        table = make_table(None)
        table.add_column("name", no_wrap=True)
        for place, heading in enumerate(headings):
            texts = [heading, *(fields[place] for _, fields in rows)]
            longest = max(len(word) for text in texts for word in text.split())
            justify: JustifyMethod = "left" if heading == "data set" else "right"
            table.add_column(heading, justify=justify, min_width=longest)
        for name, fields in rows:
            table.add_row(short[name], *fields)
        return table

    names = list(dict.fromkeys(name for name, _ in rows))
    short = shorten_names(names, _LEAST_NAMES)
    taken = _measure(console, build(short))
    short = shorten_names(names, max(_LEAST_NAMES, console.width - taken + max(map(len, short.values()))))
    console.print(build(short))
    _print_notes(console, [f"{shown}: {name}" for name, shown in short.items() if shown != name])


def _measure(console: Console, table: "Table") -> int:
    """The columns that the table takes with every word whole."""
    return Measurement.get(console, console.options.update(max_width=100_000), table).minimum


def _print_notes(console: Console, notes: Sequence[str]) -> None:
    from hkrun.spaces import wrap_words

    for note in notes:
        console.print(Padding(Text(wrap_words(note, console.width - 1), style="dim"), (0, 0, 0, 1)))
