"""A table of a report, as rows of text with the numbers behind it: one source for all forms of a report."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Interval = tuple[float, float]

NONE = "–"  # noqa: RUF001  an en dash: no figure
MINUS = "−"  # noqa: RUF001  a real minus sign


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
    """

    id: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]
    words: int = 1


def make_table(
    identity: str, columns: Sequence[str], rows: Iterable[Sequence[Field]], *, words: int = 1
) -> Table:
    """A table from fields that may be plain text or whole numbers."""
    entries = tuple(tuple(map(_make_entry, row)) for row in rows)
    return Table(id=identity, columns=tuple(columns), rows=entries, words=words)


def _make_entry(field: Field) -> Entry:
    if isinstance(field, int):
        return Entry(text=str(field), value=field)
    return Entry(text=field) if isinstance(field, str) else field
