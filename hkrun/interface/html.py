"""Tables as HTML in which no name can do harm."""

import html
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hkrun.report.table import Table


def escape(text: object) -> str:
    """Text as HTML shows it, whatever it holds."""
    return html.escape(" ".join(str(text).split()))


def table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, words: int = 1) -> str:
    """A table; the first columns, of words, stand to the left."""

    def line(tag: str, fields: Sequence[str]) -> str:
        sides = ["left" if number < words else "right" for number in range(len(fields))]
        return "".join(
            f'<{tag} style="text-align:{side}">{escape(field)}</{tag}>'
            for side, field in zip(sides, fields, strict=True)
        )

    head, body = line("th", headings), "".join(f"<tr>{line('td', row)}</tr>" for row in rows)
    return f'<table class="dataframe"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


def report_table(found: "Table") -> str:
    """A table of the report."""
    rows = [[entry.text for entry in row] for row in found.rows]
    return table(found.columns, rows, words=found.words)
