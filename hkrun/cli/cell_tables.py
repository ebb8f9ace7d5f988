"""Tables with a row for each cell: names that fit their terminal, and what they stand for below."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import Console, JustifyMethod
from rich.measure import Measurement
from rich.padding import Padding
from rich.text import Text

from hkrun.cli.console import make_table

if TYPE_CHECKING:
    from rich.table import Table

    from hkrun.spaces import CellColumns, FittedColumns

_NAMES, _FEW_NAMES = 20, 14  # columns that names have beside the ids of cells, and without
_LEAST_NAMES = 8  # at the last


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

    fields = [found for _, found in rows.values()]

    def build(names: "FittedColumns", widths: Sequence[int], *, ids: bool) -> "Table":
        table = make_table(title, *(["id"] if ids else []))
        for place, heading in enumerate(names.headings):
            _add_names(table, heading, [found[place] for found in names.fields.values()])
        for heading, width in zip(headings, widths, strict=True):
            table.add_column(heading, justify="right", width=width)
        for name, (identity, found) in rows.items():
            table.add_row(*([identity] if ids else []), *names.fields[name], *found)
        return table

    ways = [
        (naming, True, _NAMES),
        (naming, False, _NAMES),
        (naming, False, _FEW_NAMES),
        (naming.in_one(), False, _FEW_NAMES),
        (naming.in_one(), False, _LEAST_NAMES),
    ]
    least = _find_longest_words(headings, fields)
    for columns, ids, width in ways:
        names = fit_columns(columns, columns.at_least(width))
        spare = console.width - _measure(console, build(names, least, ids=ids))
        if spare >= 0:
            break
    widths = _widen(least, _find_longest(fields), spare)
    spare -= sum(widths) - sum(least)
    names = fit_columns(columns, names.width + max(0, spare))
    widths = _widen(
        widths, _find_longest([headings]), console.width - _measure(console, build(names, widths, ids=ids))
    )
    console.print(build(names, widths, ids=ids))
    _print_notes(console, names.notes)


def print_named_table(
    console: Console,
    headings: Sequence[str],
    rows: Sequence[tuple[str, Sequence[str]]],
    *,
    dispensable: Sequence[str] = (),
) -> None:
    """Prints a table whose rows have names, such as studies; a long one loses its middle where it must.

    Args:
        console: Where to.
        headings: Of the columns after the first, "name".
        rows: The name of each, and the fields.
        dispensable: The headings of columns that a narrow terminal goes without, in this order; a line says
            so.
    """
    from hkrun.spaces import display_width, shorten_names

    names = list(dict.fromkeys(name for name, _ in rows))

    def build(short: Mapping[str, str], places: Sequence[int], widths: Sequence[int]) -> "Table":
        table = make_table(None)
        _add_names(table, "name", short.values())
        for place, width in zip(places, widths, strict=True):
            justify: JustifyMethod = "left" if headings[place] == "data set" else "right"
            table.add_column(headings[place], justify=justify, width=width)
        for name, fields in rows:
            table.add_row(short[name], *(fields[place] for place in places))
        return table

    for number in range(len(dispensable) + 1):
        places = [place for place, head in enumerate(headings) if head not in dispensable[:number]]
        shown = [headings[place] for place in places]
        fields = [[found[place] for place in places] for _, found in rows]
        least = _find_longest_words(shown, fields)
        short = shorten_names(names, _LEAST_NAMES)
        spare = console.width - _measure(console, build(short, places, least))
        if spare >= 0:
            break
    widths = _widen(least, _find_longest(fields), spare)
    spare -= sum(widths) - sum(least)
    width = max(map(display_width, short.values())) + max(0, spare)
    short = shorten_names(names, max(_LEAST_NAMES, width))
    spare = console.width - _measure(console, build(short, places, widths))
    console.print(build(short, places, _widen(widths, _find_longest([shown]), spare)))
    _print_notes(console, [f"{shown}: {name}" for name, shown in short.items() if shown != name])
    if number:
        gone = ", ".join(dispensable[:number])
        _print_notes(console, [f"Left out because the terminal is narrow: {gone}; --json has all"])


def _add_names(table: "Table", heading: str, names: Iterable[str]) -> None:
    """A column of names, each in one line: Rich would measure the longest word of them alone."""
    from hkrun.spaces import display_width

    table.add_column(heading, no_wrap=True, min_width=max(map(display_width, (heading, *names))))


def _find_longest(rows: Sequence[Sequence[str]]) -> list[int]:
    """The width of each column with all that is in it in one line."""
    return [max(map(len, column)) for column in zip(*rows, strict=True)]


def _find_longest_words(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[int]:
    """The width of each column in which no word is broken."""
    columns = zip(headings, *rows, strict=True)
    return [max(len(word) for text in column for word in text.split()) for column in columns]


def _widen(widths: Sequence[int], wanted: Sequence[int], spare: int) -> list[int]:
    """Columns as wide as is wanted, as far as what is spare allows, the first ones first.

    Rich would take what a table lacks from columns that have none to give, and then cut the last one.
    """
    found = []
    for width, want in zip(widths, wanted, strict=True):
        more = max(0, min(want - width, spare))
        spare -= more
        found.append(width + more)
    return found


def _measure(console: Console, table: "Table") -> int:
    """The columns that the table takes with every word whole."""
    return Measurement.get(console, console.options.update(max_width=100_000), table).minimum


def _print_notes(console: Console, notes: Sequence[str]) -> None:
    from hkrun.spaces import wrap_words

    for note in notes:
        console.print(Padding(Text(wrap_words(note, console.width - 1), style="dim"), (0, 0, 0, 1)))
