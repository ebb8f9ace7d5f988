"""What cells are called beside their figures: a name, and the values of the axes that vary them.

The name of a cell holds all of that in one line, as it is typed. Tables have the values in columns of short
keys, sentences a label.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from hkrun.config import nearest
from hkrun.counting import list_names
from hkrun.spaces.short_names import display_width, short_keys, shorten_names
from hkrun.spaces.sweep import NamedCell

LEAST_WIDTH = 8  # columns; of less, nothing tells names apart
GAP = 2  # columns between two columns of a table
_MOST_NAMES = 6  # of the cells there are, where one is named that is none


@dataclass(frozen=True, kw_only=True)
class CellColumns:
    """The columns of a table that say which cell a row is about.

    Attributes:
        short: The short key of each axis, in the order of the file.
        headings: One a column. The first is "cell" unless axes alone tell the cells apart; then come the
            short keys.
        fields: By the cell's name: one a column, empty for an axis that does not vary the cell.
        labels: By the cell's name: all of it in one line, as in a sentence.
        points: By the cell's name: the values of its axes by short key.
    """

    short: Mapping[str, str]
    headings: tuple[str, ...]
    fields: Mapping[str, tuple[str, ...]]
    labels: Mapping[str, str]
    points: Mapping[str, Mapping[str, str]]

    @property
    def explanation(self) -> str:
        """What the short keys stand for, where that is not what they say; else empty."""
        told = [f"{short} is {key}" for key, short in self.short.items() if short != key]
        return f"{', '.join(told)}." if told else ""

    def at_least(self, width: int) -> int:
        """The terminal columns in which names have so many, and the keys of axes are whole beside them."""
        if len(self.headings) == len(self.short):
            return width
        return width + sum(GAP + display_width(key) for key in self.short.values())

    def in_one(self) -> "CellColumns":
        """All in one column, the labels; for where columns of axes have no place."""
        fields = {name: (label,) for name, label in self.labels.items()}
        return replace(self, headings=("cell",), fields=fields, short={})


@dataclass(frozen=True, kw_only=True)
class FittedColumns:
    """The same in a width that they may not all fit.

    Attributes:
        headings: One a column.
        fields: By the cell's name.
        spelled_out: What was shortened, and what it stands for.
        width: The terminal columns that they take.
    """

    headings: tuple[str, ...]
    fields: Mapping[str, tuple[str, ...]]
    spelled_out: tuple[tuple[str, str], ...]
    width: int

    @property
    def notes(self) -> tuple[str, ...]:
        """A line for each name that was shortened."""
        return tuple(f"{short}: {full}" for short, full in self.spelled_out)


def name_cells(cells: Iterable[NamedCell]) -> CellColumns:
    """The columns and the labels of a sweep's cells."""
    cells = tuple(cells)
    short = short_keys(key for named in cells for key in named.point)
    grouped = any(named.group or not named.point for named in cells)
    fields, points = {}, {}
    for named in cells:
        values = {short[key]: write_value(value) for key, value in named.point.items()}
        points[named.name] = values
        start = [named.group if named.point else named.name] if grouped else []
        fields[named.name] = (*start, *(values.get(key, "") for key in short.values()))
    labels = label_points((named.name, named.group, named.point) for named in cells)
    headings = (*(["cell"] if grouped else []), *short.values())
    return CellColumns(short=short, headings=headings, fields=fields, labels=labels, points=points)


def label_points(points: Iterable[tuple[str, str, Mapping[str, object]]]) -> Mapping[str, str]:
    """The label of every cell of a sweep by its name; given of each: name, group, values of its axes."""
    points = tuple(points)
    short = short_keys(key for _, _, point in points for key in point)
    labels = {}
    for name, group, point in points:
        values = ", ".join(f"{short[key]} = {write_value(value)}" for key, value in point.items())
        # A group that is called as its axis says nothing more.
        told = group == "" or group in {short[key] for key in point}
        labels[name] = (values if told else f"{group} [{values}]") if point else name
    return labels


def find_cell(called: str, labels: Mapping[str, str]) -> str | None:
    """The name of the cell that a user calls so, by its name or its label; None where none or several are.

    Args:
        called: What the user wrote.
        labels: The labels of all cells by name.
    """
    if called in labels:
        return called
    names = [name for name, label in labels.items() if label == called]
    return names[0] if len(names) == 1 else None


def tell_cells(called: str, labels: Mapping[str, str]) -> str:
    """The cells there are, and the nearest, for a message about a name that `find_cell` does not find."""
    near = nearest(called, (*labels.values(), *labels))
    return f"{list_names(tuple(labels.values()), _MOST_NAMES)}{near}"


def write_value(value: object) -> str:
    """A value of a key as tables have it: 0.316, 1 for 1.0, true."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    return ", ".join(map(write_value, value)) if isinstance(value, tuple) else str(value)


def fit_columns(columns: CellColumns, width: int) -> FittedColumns:
    """The columns shortened until they take at most so many terminal columns, the widest first.

    None becomes narrower than `LEAST_WIDTH`, so that many axes may take more than the width.
    """
    texts = [
        (heading, *dict.fromkeys(found[place] for found in columns.fields.values()))
        for place, heading in enumerate(columns.headings)
    ]
    widths = [max(map(display_width, column)) for column in texts]
    while _take(widths) > width and max(widths) > LEAST_WIDTH:
        widths[widths.index(max(widths))] -= 1
    short = [_shorten_column(column, limit) for column, limit in zip(texts, widths, strict=True)]
    return FittedColumns(
        headings=tuple(names[heading] for names, heading in zip(short, columns.headings, strict=True)),
        fields={
            name: tuple(names[text] for names, text in zip(short, found, strict=True))
            for name, found in columns.fields.items()
        },
        spelled_out=tuple((shown, text) for names in short for text, shown in names.items() if shown != text),
        width=_take([max(map(display_width, names.values())) for names in short]),
    )


def _take(widths: Sequence[int]) -> int:
    return sum(widths) + GAP * (len(widths) - 1)


def _shorten_column(texts: Sequence[str], width: int) -> Mapping[str, str]:
    """A column's heading and fields, each by itself where all fit."""
    return shorten_names(texts, width) if width >= LEAST_WIDTH else {text: text for text in texts}
