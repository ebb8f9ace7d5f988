"""Which teachers have a table, and when it is filled."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from hkrun.config import Cell, teacher_id
from hkrun.datasets import find_dataset
from hkrun.store import Store, TeacherTables

# An epoch asks for one view of each image. After twice as many epochs as there are views, 86 % of them were
# asked for, and nearly every batch on the way had one that was not there yet.
AHEAD_FROM = 2

_SUM_BYTES = 8  # of a row's checksum


@dataclass(frozen=True, kw_only=True)
class PlannedTable:
    """How a teacher answers those cells of a plan that ask the same of it.

    Attributes:
        teacher_id: The teacher.
        names: The cells.
        mode: "ahead": every view that is not there is computed before the first run begins; "first_use": each
            when a run asks for it; "live": on every batch, as there is no table.
        parts: What the cells compare, all together; empty where there is no table.
        num_views: Views of each image.
        num_epochs: Epochs of all runs that are to be made.
        row_type: Type of the table's numbers.
        num_bytes: Size of the table; None where it shows only with the data.
    """

    teacher_id: str
    names: tuple[str, ...]
    mode: Literal["ahead", "first_use", "live"]
    parts: tuple[str, ...]
    num_views: int
    num_epochs: int
    row_type: str
    num_bytes: int | None

    def describe(self, others: int = 0) -> str:
        """One line for people, true whether the table is there or not: its id shows only with the data.

        Args:
            others: How many other teachers answer the same cells in the same way.
        """
        teachers = f"each of {others + 1} teachers" if others else self.teacher_id
        if self.mode == "live":
            name = f"Each of {others + 1} teachers" if others else f"Teacher {self.teacher_id}"
            return f"{name} runs live for {', '.join(self.names)}"
        when = "before the runs" if self.mode == "ahead" else "as the runs ask"
        size = ""
        if self.num_bytes is not None:
            large = self.num_bytes >= 10**9
            size = f", {self.num_bytes / (1e9 if large else 1e6):.1f} {'GB' if large else 'MB'}"
        return (
            f"Teacher table of {teachers}: filled {when} where it is not there yet, "
            f"{self.num_views} views of each image{size}"
        )

    def document(self) -> dict[str, object]:
        """What `sweep --dry-run --json` prints of it."""
        return {
            "teacher_id": self.teacher_id,
            "cells": list(self.names),
            "mode": self.mode,
            "views": self.num_views,
            "bytes": self.num_bytes,
        }


def describe_tables(tables: Iterable[PlannedTable]) -> list[str]:
    """Lines for people: one for all teachers that answer the same cells in the same way."""
    alike: dict[tuple[object, ...], list[PlannedTable]] = {}
    for table in tables:
        key = (table.names, table.mode, table.num_views, table.num_bytes)
        alike.setdefault(key, []).append(table)
    return [found[0].describe(len(found) - 1) for found in alike.values()]


def plan_tables(runs: Iterable[tuple[str, Cell, int]], *, share: float = 1.0) -> tuple[PlannedTable, ...]:
    """Decides how each teacher answers.

    Args:
        runs: The name of a cell, the cell, and a number of its runs that remain; a cell may come again.
        share: How much of them a search makes, if it does.

    Returns:
        One entry for each group of cells that share a table, in their order; then one for each teacher that
        also runs live.
    """
    groups: dict[tuple[str, ...], list[tuple[str, Cell, int]]] = {}
    for name, cell, num_runs in runs:
        if cell.uses_teacher:
            groups.setdefault(table_group(cell), []).append((name, cell, num_runs))
    tables = [_plan_table(group, share) for group in groups.values()]
    return tuple(sorted(tables, key=lambda table: table.mode == "live"))


def find_too_large(tables: Iterable[PlannedTable], store: Store) -> list[PlannedTable]:
    """The tables that do not fit on the disk, in addition to those before them that do.

    What the disk has of a table already is no more to be found room for. A remote store's tables lie on
    machines of their own, of which nothing is known here.
    """
    if store.local_path is None:
        return []
    place = TeacherTables(store, cache=store.local_path)
    needed, too_large = 0, []
    for table in tables:
        if table.num_bytes is None:
            continue
        missing = max(0, table.num_bytes - _held_bytes(table, store, place))
        if place.has_space(needed + missing):
            needed += missing
        else:
            too_large.append(table)
    return too_large


def _held_bytes(table: PlannedTable, store: Store, place: TeacherTables) -> int:
    """What the disk has of a table, as far as that shows without the images and the device."""
    teacher = store.teacher(table.teacher_id)
    if teacher is None:  # what is there is of another that had its place
        return 0
    known = {
        "teacher_id": table.teacher_id,
        "teacher_hash": teacher.teacher_hash,
        "type": table.row_type,
    }
    return sum(place.held_bytes({**known, "part": part}) for part in table.parts)


def table_group(cell: Cell) -> tuple[str, ...]:
    """What the cells have in common that share a table, or a live teacher."""
    if not has_table(cell):
        return (teacher_id(cell), "live")
    tap = cell.knowledge.tap if "attention_maps" in cell.table_parts else ""
    return (teacher_id(cell), cell.teacher_table, tap)


def has_table(cell: Cell) -> bool:
    """Whether the cell's teacher answers from a table."""
    return cell.teacher_table != "off" and bool(cell.table_parts)


def _plan_table(group: list[tuple[str, Cell, int]], share: float) -> PlannedTable:
    _, cell, _ = group[0]
    num_views = (2 * cell.augment.padding + 1) ** 2 * (2 if cell.augment.flip else 1)
    num_epochs = round(share * sum(cell.student.epochs * num_runs for _, cell, num_runs in group))
    parts = tuple(sorted({part for _, cell, _ in group for part in cell.table_parts if has_table(cell)}))
    mode: Literal["ahead", "first_use", "live"] = "live"
    if has_table(cell):
        mode = "ahead" if num_epochs >= AHEAD_FROM * num_views else "first_use"
    return PlannedTable(
        teacher_id=teacher_id(cell),
        names=tuple(dict.fromkeys(name for name, _, _ in group)),
        mode=mode,
        parts=parts,
        num_views=num_views,
        num_epochs=num_epochs,
        row_type=_row_type(cell),
        num_bytes=_count_bytes(cell, parts, num_views),
    )


def _row_type(cell: Cell) -> str:
    """Type of the numbers of a cell's table."""
    if cell.teacher_table == "float16":
        return "float16"
    return "float64" if cell.precision == "float64" else "float32"


def _count_bytes(cell: Cell, parts: tuple[str, ...], num_views: int) -> int | None:
    """Size of a table: a row of each part, and its checksum, for each view of each image."""
    known = find_dataset(cell.dataset)
    if known.num_train is None or known.num_classes is None:
        return None
    widths: Mapping[str, int] = {
        "logits": known.num_classes,
        "knowledge": sum(cell.squeeze_widths),
        "descriptor": cell.teacher_descriptor_width,
    }
    if not parts or not set(parts) <= widths.keys():
        return None
    number_bytes = int(_row_type(cell).removeprefix("float")) // 8
    return known.num_train * num_views * sum(widths[part] * number_bytes + _SUM_BYTES for part in parts)
