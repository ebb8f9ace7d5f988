"""Axes of a search space: keys that are varied over listed values, and the points of their product."""

import itertools
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from hkrun.config import Setting, cell_id, nearest
from hkrun.spaces.arguments import Arguments
from hkrun.spaces.sweep import NamedCell
from hkrun.spaces.toml_tables import Table

_MAX_POINTS = 10_000  # of one cell; a product grows faster than its author thinks


@dataclass(frozen=True, kw_only=True)
class Axis:
    """One axis.

    Attributes:
        key: The key of a cell that it varies.
        values: Its values, each with its place in the file.
        cells: Names of the cells that it varies; None: all.
        table: Where it stands in the file.
    """

    key: str
    values: list[Setting]
    cells: tuple[str, ...] | None
    table: Table

    def varies(self, cell: str) -> bool:
        """Whether it varies the cell of this name."""
        return self.cells is None or cell in self.cells


@dataclass(frozen=True, kw_only=True)
class WrittenCell:
    """A cell as the file has it, before the axes.

    Attributes:
        name: Its name; empty where the file has axes alone.
        settings: What its own table sets.
    """

    name: str
    settings: list[Setting]


@dataclass(frozen=True, kw_only=True)
class Variant:
    """A cell at one point of its axes.

    Attributes:
        name: What the sweep calls it.
        group: The name of the cell without the point.
        point: The values of the axes that vary the cell, in the file's order.
    """

    name: str
    group: str
    point: tuple[Setting, ...]


def read_axes(table: Table, cells: Sequence[WrittenCell], arguments: Arguments) -> list[Axis]:
    """Reads `[[axes]]`; what is wrong with them goes to the table's problems."""
    axes: list[Axis] = []
    for axis in (_read_axis(found, cells) for found in table.tables("axes")):
        if axis is None:
            continue
        if any(
            set(_varied(axis, cells)) & set(_varied(other, cells)) for other in axes if other.key == axis.key
        ):
            axis.table.refuse("key", f"{axis.key} is an axis of the same cells already")
        axes.append(axis)
    for cell in cells:
        _refuse_conflicts(cell, [axis for axis in axes if axis.varies(cell.name)], table)
    for setting in arguments.overrides:
        if any(axis.key == setting.key for axis in axes):
            table.problems.found.append(
                f"{setting.where}: {setting.key}: is an axis of this search space, so it cannot be set"
            )
    return axes


def expand(cell: WrittenCell, axes: Sequence[Axis]) -> Iterator[Variant]:
    """The cell at each point of the product of the axes that vary it."""
    for point in itertools.product(*(axis.values for axis in axes if axis.varies(cell.name))):
        values = ", ".join(f"{setting.key}={show(setting.value)}" for setting in point)
        name = f"{cell.name} [{values}]" if cell.name and values else cell.name or values
        yield Variant(name=name, group=cell.name, point=point)


def refuse_idle_axes(axes: Sequence[Axis], cells: Sequence[NamedCell]) -> None:
    """Refuses an axis whose values make no difference in any cell: it varies what no cell uses."""
    for axis in axes:
        varied = [named for named in cells if axis.key in named.point and axis.varies(named.group)]
        identities: dict[object, set[str]] = {}
        for named in varied:
            rest = tuple((key, value) for key, value in named.point.items() if key != axis.key)
            identities.setdefault((named.group, rest), set()).add(cell_id(named.cell))
        if len(axis.values) > 1 and all(len(same) == 1 for same in identities.values()):
            axis.table.refuse("key", f"{axis.key} changes nothing in these cells: no term of theirs uses it")


def show(value: object) -> str:
    """A value as it is written on the command line."""
    return value if isinstance(value, str) else json.dumps(value)


def _varied(axis: Axis, cells: Sequence[WrittenCell]) -> list[str]:
    return [cell.name for cell in cells if axis.varies(cell.name)] if cells else [""]


def _read_axis(table: Table, cells: Sequence[WrittenCell]) -> Axis | None:
    table.allow_only("key", "values", "cells")
    key, values = table.text("key"), table.data.get("values")
    if "key" not in table.data:
        table.refuse("key", "missing; the key of a cell that the axis varies")
    if not isinstance(values, list) or not values:
        table.refuse("values", "must be a list of at least one value")
        values = []
    names = _read_cell_names(table, cells)
    if key is None:
        return None
    if key not in table.problems.keys:
        table.problems.check([Setting(key=key, value=None, where=table.where("key"))])
        return None
    if key == "dataset":
        table.refuse("key", "a data set is no axis: its recipe changes with it; use --dataset")
        return None
    settings = [
        Setting(key=key, value=value, where=table.where("values", index))
        for index, value in enumerate(values)
    ]
    checked = table.problems.check(settings)
    for index, value in enumerate(checked):
        if value is not None and value in checked[:index]:
            table.problems.found.append(f"{settings[index].where}: {key}: {value!r} is repeated")
    return Axis(key=key, values=settings, cells=names, table=table)


def _read_cell_names(table: Table, cells: Sequence[WrittenCell]) -> tuple[str, ...] | None:
    """The cells that an axis varies; None where it does not say, and so varies all."""
    names = table.texts("cells")
    if names is None:
        return None
    known = [cell.name for cell in cells]
    for name in names:
        if name not in known:
            shown = ", ".join(known) or "none"
            table.refuse("cells", f"{name!r} is no cell; cells: {shown}{nearest(name, known)}")
    return names


def _refuse_conflicts(cell: WrittenCell, axes: Sequence[Axis], table: Table) -> None:
    varied = {axis.key for axis in axes}
    for setting in cell.settings:
        if setting.key in varied:
            table.problems.found.append(
                f"{setting.where}: {setting.key}: an axis varies it in this cell, so the cell cannot set it; "
                "`cells = [...]` in the axis names those that it varies"
            )
    points = math.prod(len(axis.values) for axis in axes)
    if points > _MAX_POINTS:
        lengths = " x ".join(str(len(axis.values)) for axis in axes)
        table.refuse(
            "axes", f"{lengths} = {points} points of {cell.name or 'the axes'!r}; at most {_MAX_POINTS}"
        )
