"""A table of a report, as rows of text with the numbers behind it: one source for all forms of a report."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from hkrun.spaces import CellColumns

Interval = tuple[float, float]

NONE = "–"  # noqa: RUF001  an en dash: no figure
MINUS = "−"  # noqa: RUF001  a real minus sign
CELL = "Cell"


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One field of a table: its text, the unrounded number behind it, its interval, whether it is bold."""

    text: str
    strong: bool = False
    value: float | None = None
    ends: Interval | None = None


Field = str | int | Entry


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of a report.

    Attributes:
        id: A name for scripts.
        words: How many of the first columns hold words; the others are figures and stand to the right.
        cells: The name of each row's cell; none where rows are not of cells.
        names: How many of the first columns say which cell, or what else, a row is about.
    """

    id: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]
    words: int = 1
    cells: tuple[str, ...] = ()
    names: int = 1


def make_table(
    identity: str, columns: Sequence[str], rows: Iterable[Sequence[Field]], *, words: int = 1
) -> Table:
    """A table from fields that may be plain text or whole numbers."""
    entries = tuple(tuple(map(_make_entry, row)) for row in rows)
    return Table(id=identity, columns=tuple(columns), rows=entries, words=words)


def make_cell_table(
    identity: str,
    columns: Sequence[str],
    rows: Iterable[tuple[str, Sequence[Field]]],
    *,
    naming: CellColumns,
    words: int = 0,
) -> Table:
    """A table with a row for each cell, which the first columns name: its name, and the values of its axes.

    Args:
        identity: As `make_table`.
        columns: The headings of the other columns.
        rows: The name of each row's cell, and the fields of the other columns.
        naming: The columns that name the cells.
        words: How many of the other columns hold words.
    """
    rows = list(rows)
    headings = [CELL if heading == "cell" else heading for heading in naming.headings]
    names = len(headings)
    table = make_table(
        identity,
        [*headings, *columns],
        [[*naming.fields[name], *fields] for name, fields in rows],
        words=names + words,
    )
    return replace(table, cells=tuple(name for name, _ in rows), names=names)


def _make_entry(field: Field) -> Entry:
    if isinstance(field, int):
        return Entry(text=str(field), value=field)
    return Entry(text=field) if isinstance(field, str) else field
