"""Where the variance of errors comes from, of cells whose seeds have several teachers."""

from collections.abc import Iterable, Sequence

import numpy as np

from hkrun import stats
from hkrun.config import teachers_id
from hkrun.report.summary import CellSummary, Summary, VarianceSplit
from hkrun.report.table import MINUS, NONE, Entry, Field, Table, make_cell_table, make_table
from hkrun.report.wording import count, digits, interval
from hkrun.spaces import Sweep

# What the components of a table are called: of one cell over its epochs, of one epoch over the cells.
_BETWEEN_RUNS = {"teacher": "Teacher", "student": "Student", "together": "Teacher and student"}
_NAMES = {
    "epochs": {**_BETWEEN_RUNS, "column": "Epoch, all runs", "residual": "Epoch, each run"},
    "cells": {**_BETWEEN_RUNS, "residual": "Cell and run"},  # cells are chosen, not drawn: no component
}
_PARTS = ("teacher", "student", "together", "column", "residual")


def split_variance(cells: Iterable[CellSummary], sweep: Sweep) -> tuple[VarianceSplit, ...]:
    """Splits the variance of each cell within the window, then of the last epoch across cells.

    Left out are cells with one teacher, with fewer than two finished runs or too few epochs, and those whose
    runs were selected on the test error; across cells, teachers of fewer than two cells.
    """
    distinct = {cell.cell_id: cell for cell in cells if cell.cell.has_teachers and not cell.selection}
    splits = [
        VarianceSplit(
            over="epochs",
            cells=(cell.name,),
            components=stats.decompose(cell.error_pct[:, -sweep.window :], _teachers(cell, cell.seeds)),
        )
        for cell in distinct.values()
        if len(cell.seeds) > 1 and cell.error_pct.shape[1] >= sweep.window
    ]
    sharing: dict[str, list[CellSummary]] = {}
    for cell in distinct.values():
        sharing.setdefault(teachers_id(cell.cell), []).append(cell)
    for found in sharing.values():
        common = [seed for seed in sweep.seeds if all(seed in cell.seeds for cell in found)]
        if len(found) > 1 and len(common) > 1:
            errors = [[cell.error_pct[cell.seeds.index(seed), -1] for cell in found] for seed in common]
            components = stats.decompose(np.array(errors), _teachers(found[0], common))
            names = tuple(cell.name for cell in found)
            splits.append(VarianceSplit(over="cells", cells=names, components=components))
    return tuple(splits)


def _teachers(cell: CellSummary, seeds: Sequence[int]) -> list[int]:
    return [cell.cell.with_teacher_of(seed).teacher.seed for seed in seeds]


def tabulate_variance(summary: Summary, over: str) -> Table | None:
    """The components over "epochs" or "cells": a row per cell, or per teacher configuration."""
    splits = [split for split in summary.variance if split.over == over]
    if not splits:
        return None
    shown = [
        part
        for part in _PARTS
        if part in _NAMES[over] and any(getattr(split.components, part) for split in splits)
    ]
    rows: list[tuple[str, list[Field]]] = []
    for split in splits:
        found = split.components
        total = sum(part.variance for name in shown if (part := getattr(found, name)) is not None)
        name = split.cells[0] if over == "epochs" else count(len(split.cells), "cell")
        rows.append(
            (name, [found.runs, found.teachers, *(_entry(getattr(found, part), total) for part in shown)])
        )
    columns = ["Runs", "Teachers", *(_NAMES[over][part] for part in shown)]
    if over == "epochs":
        return make_cell_table("variance-epochs", columns, rows, naming=summary.columns)
    return make_table("variance-cells", ["Across", *columns], [[name, *fields] for name, fields in rows])


def _entry(part: stats.Component | None, total: float) -> Entry:
    """A variance with its interval and its share of all."""
    if part is None:
        return Entry(text=NONE)
    negative = f" (from {MINUS}{digits(-part.estimate)})" if part.estimate < 0 else ""
    share = f", {100 * part.variance / total:.0f} %" if total > 0 else ""
    text = f"{digits(part.variance)}{negative} {interval(part.ci95)}{share}"
    return Entry(text=text, value=part.estimate, ends=part.ci95)


def describe_variance(summary: Summary) -> str:
    """What the components cannot tell; empty without any."""
    splits = summary.variance
    if not splits:
        return ""
    sentences = []
    if any(split.components.together is not None for split in splits):
        sentences.append(
            "With one student per teacher the two cannot be told apart: what stands is their sum. "
            "teacher.students = 2 or more tells them."
        )
    lags = [split.components.lag1 for split in splits if split.over == "epochs"]
    if lags:
        independent = -1 / summary.sweep.window
        sentences.append(
            f"The model takes epochs for independent. Neighbouring ones correlate by {_range(lags)} "
            f"(independent ones by about {independent:+.2f}); where that is higher, the share of epochs is "
            "too low, and that of teachers and students too high.".replace("-", MINUS)
        )
    return " ".join(sentences)


def _range(values: Sequence[float]) -> str:
    low, high = f"{min(values):+.2f}", f"{max(values):+.2f}"
    return low if low == high else f"{low} to {high}"
