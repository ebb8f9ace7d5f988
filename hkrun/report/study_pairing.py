"""Which cells of two studies belong together, and in which keys they differ."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from hkrun import config
from hkrun.errors import InputError
from hkrun.report.summary import CellSummary, Summary
from hkrun.spaces import NamedCell, find_cell, tell_cells

# Keys of the canonical form that say which data a cell is trained on.
DATA_KEYS = ("dataset", "dataset.source", "dataset_sha256")


@dataclass(frozen=True, kw_only=True)
class ComparedStudy:
    """A study that is compared with another one.

    Attributes:
        label: What the user called it.
        world_size: How many processes trained one of its runs, where that is part of a cell.
    """

    label: str
    summary: Summary
    world_size: int = 1

    @property
    def cells(self) -> Mapping[str, CellSummary]:
        """Its cells by name."""
        return {cell.name: cell for cell in self.summary.cells}

    @property
    def labels(self) -> Mapping[str, str]:
        """The labels of its cells by name."""
        return {cell.name: cell.label for cell in self.summary.cells}

    def canonical(self, cell: CellSummary) -> Mapping[str, object]:
        """Every key that can change the result of a cell, with its value."""
        return config.canonical(cell.cell, world_size=self.world_size)


@dataclass(frozen=True, kw_only=True)
class Match:
    """A cell of each study.

    Attributes:
        by: What told that they belong together: "option", "name", "configuration", "axes" or "only cell".
        keys: In which keys they differ, with both values; None where a key does nothing in one of them.
    """

    first: CellSummary
    second: CellSummary
    by: str
    keys: Mapping[str, tuple[object, object]]

    @property
    def same(self) -> bool:
        """Whether both are one configuration."""
        return self.first.cell_id == self.second.cell_id

    @property
    def name(self) -> str:
        """What a reader calls them."""
        first, second = self.first.label, self.second.label
        return first if first == second else f"{first} → {second}"


def match_cells(first: ComparedStudy, second: ComparedStudy, wanted: Sequence[str] = ()) -> list[Match]:
    """The cells of two studies that belong together, in the order of the first.

    Those that `wanted` names, each as "NAME=NAME", by names or labels; then those of one name; of one
    configuration; of the same values of the same axes, in cells of one name and then in those of any, where
    that leaves no doubt; and the only ones, where each study has a single cell. A cell is matched once.

    Raises:
        InputError: A wish names no cell, or leaves open which two it means, or names a cell twice.
    """
    ours, theirs = dict(first.cells), dict(second.cells)
    found: list[tuple[str, str, str]] = []

    def take(name: str, other: str, by: str) -> None:
        found.append((name, other, by))
        del ours[name], theirs[other]

    for name, other in _read_wishes(wanted, first, second):
        take(name, other, "option")
    for name in [name for name in ours if name in theirs]:
        take(name, name, "name")
    points = [
        {named.name: named for named in study.summary.sweep.cells if named.point} for study in (first, second)
    ]

    def place(named: NamedCell | None, *, group: bool) -> object:
        if named is None:
            return None
        return (named.group if group else "", tuple(sorted(named.point.items())))

    marks: list[tuple[str, Callable[[int, CellSummary], object]]] = [
        ("configuration", lambda _, cell: cell.cell_id),
        ("axes", lambda side, cell: place(points[side].get(cell.name), group=True)),
        ("axes", lambda side, cell: place(points[side].get(cell.name), group=False)),
    ]
    for by, mark in marks:
        for name, other in _find_alike(ours, theirs, mark):
            take(name, other, by)
    if len(first.cells) == len(second.cells) == len(ours) == 1:
        take(next(iter(ours)), next(iter(theirs)), "only cell")
    order = list(first.cells)
    return [
        Match(
            first=first.cells[name],
            second=second.cells[other],
            by=by,
            keys=_find_differences(first.canonical(first.cells[name]), second.canonical(second.cells[other])),
        )
        for name, other, by in sorted(found, key=lambda match: order.index(match[0]))
    ]


def _find_alike(
    ours: Mapping[str, CellSummary],
    theirs: Mapping[str, CellSummary],
    mark: Callable[[int, CellSummary], object],
) -> list[tuple[str, str]]:
    """The names of cells whose marks are the same, and no other configuration's of either study."""
    by_mark: tuple[dict[object, dict[str, str]], dict[object, dict[str, str]]] = ({}, {})
    for side, cells in enumerate((ours, theirs)):
        for name, cell in cells.items():
            # Of several names of one configuration the first stands for all.
            by_mark[side].setdefault(mark(side, cell), {}).setdefault(cell.cell_id, name)
    return [
        (next(iter(names.values())), next(iter(by_mark[1][found].values())))
        for found, names in by_mark[0].items()
        if found is not None and len(names) == 1 and len(by_mark[1].get(found, ())) == 1
    ]


def _read_wishes(wanted: Sequence[str], first: ComparedStudy, second: ComparedStudy) -> list[tuple[str, str]]:
    """The pairs of names that the user has given. Names may hold `=` themselves."""
    ours, theirs = first.labels, second.labels
    found: list[tuple[str, str]] = []
    problems: list[str] = []
    for wish in wanted:
        marks = [place for place, character in enumerate(wish) if character == "="]
        splits = [(wish[:place].strip(), wish[place + 1 :].strip()) for place in marks]
        cells = [(find_cell(name, ours), find_cell(other, theirs)) for name, other in splits]
        fitting = [(name, other) for name, other in cells if name is not None and other is not None]
        if len(fitting) == 1:
            found += fitting
        elif not splits:
            problems.append(f"--cells {wish}: give a cell of each study, NAME=NAME")
        elif fitting:
            problems.append(f"--cells {wish}: can be read in {len(fitting)} ways, for names hold '='")
        else:
            problems += _explain_wish(wish, splits, first, second)
    for side in (0, 1):
        names = [pair[side] for pair in found]
        twice = dict.fromkeys(name for name in names if names.count(name) > 1)
        problems += [f"--cells: {name} is named twice" for name in twice]
    if problems:
        raise InputError("\n".join(problems))
    return found


def _explain_wish(
    wish: str, splits: Sequence[tuple[str, str]], first: ComparedStudy, second: ComparedStudy
) -> list[str]:
    """Which of the two names is no cell; of the ways to read a wish, that of which most is one."""
    sides = ((first, first.labels), (second, second.labels))

    def count_cells(split: tuple[str, str]) -> int:
        return sum(
            find_cell(text, labels) is not None for text, (_, labels) in zip(split, sides, strict=True)
        )

    closest: tuple[str, str] = max(splits, key=count_cells)
    return [
        f"--cells {wish}: {study.label} has no cell {text!r}; it has {tell_cells(text, labels)}"
        for text, (study, labels) in zip(closest, sides, strict=True)
        if find_cell(text, labels) is None
    ]


def _find_differences(
    ours: Mapping[str, object], theirs: Mapping[str, object]
) -> dict[str, tuple[object, object]]:
    return {
        key: (ours.get(key), theirs.get(key))
        for key in dict.fromkeys((*ours, *theirs))
        if ours.get(key) != theirs.get(key)
    }
