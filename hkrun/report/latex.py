"""The tables of a report for LaTeX: escaped text, and columns that fit the page."""

import re

from hkrun import figures
from hkrun.report.table import Table

_SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    '"': r"\textquotedbl{}",
    # Dashes, the real minus, and other marks that reports use.
    "\u2013": "--",
    "\u2212": "$-$",
    "\u00b1": r"$\pm$",
    "\u00b2": "$^2$",
    "\u00b7": r"$\cdot$",
    "\u00d7": r"$\times$",
    "\u2264": r"$\le$",
    "\u2265": r"$\ge$",
    "\u201c": "``",
    "\u201d": "''",
    "\u2019": "'",
    "\u2026": r"\ldots{}",
}
_WIDE = 90  # characters of a row: more is set smaller, to the width of the page
_LONG = 38  # characters of a field of words: more is broken into lines


def escape(text: str) -> str:
    """Text for LaTeX in one line, with sub- and superscripts in the names of losses."""
    line = " ".join(text.split())
    parts, place = [], 0
    for match in figures.SYMBOL.finditer(line):
        letter, below, above = match.groups()
        power = f"^{{{above}}}" if above else ""
        parts += [_plain(line[place : match.start()]), f"${letter}_{{\\mathrm{{{below}}}}}{power}$"]
        place = match.end()
    return "".join((*parts, _plain(line[place:])))


def _plain(text: str) -> str:
    # "[" after a line break in a table would be its optional argument.
    return re.sub(r"^\[", "{[}", "".join(_SPECIAL.get(character, character) for character in text))


def columns_of(table: Table) -> str:
    """The column types: words to the left, long ones in paragraphs, figures to the right."""
    longest = [
        max((len(row[place].text) for row in table.rows), default=0) for place in range(len(table.columns))
    ]
    return "".join(
        "r" if place >= table.words else f"p{{{min(6.5, 0.17 * size):.1f}cm}}" if size > _LONG else "l"
        for place, size in enumerate(longest)
    )


def is_wide(table: Table) -> bool:
    """Whether the table must be set smaller to fit the page."""
    widths = [
        max(len(column), *(min(_LONG, len(row[place].text)) for row in table.rows), 0)
        for place, column in enumerate(table.columns)
    ]
    return sum(widths) + 2 * len(widths) > _WIDE
