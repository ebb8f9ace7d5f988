"""The cells of a summary as figures have them: which are drawn, their colours, and what is said of them."""

from collections.abc import Iterable

import numpy as np

from hkrun.figures import MOST_DOTS, CellPoint
from hkrun.report.summary import CellSummary, Summary
from hkrun.report.wording import digits, interval, plus_minus
from hkrun.spaces import shorten_names

MOST_CELLS = 12  # with curves and colours of their own
NAME_WIDTH = 56
_FEW_LOOKS = (0, 2, 3)  # of three cells among many: the others have the accent, which is 1


def name_shortly(summary: Summary) -> dict[str, str]:
    """What figures call the cells, by their names: with short keys, and not longer than there is room for."""
    short = shorten_names(list(dict.fromkeys(map(summary.label, summary.axes))), NAME_WIDTH)
    return {name: short[summary.label(name)] for name in summary.axes}


def choose_looks(summary: Summary) -> dict[str, int]:
    """The place of the colour of each configuration, by its id, in all figures of a report.

    Beyond `MOST_CELLS`, only those have one that `choose_cells` draws.
    """
    chosen = choose_cells(summary)
    looks = range(len(chosen)) if len({cell.cell_id for cell in summary.cells}) <= MOST_CELLS else _FEW_LOOKS
    return {cell.cell_id: look for look, cell in zip(looks, chosen, strict=False)}


def choose_cells(summary: Summary) -> list[CellSummary]:
    """The cells that have curves: each configuration once; of many the reference, the best and the worst."""
    first: dict[str, CellSummary] = {}
    for cell in summary.cells:
        first.setdefault(cell.cell_id, cell)
    if len(first) <= MOST_CELLS:
        return list(first.values())
    reference = find_reference(summary)
    best, worst = find_ends(summary)
    chosen = [first[cell.cell_id] for cell in (reference, best, worst) if cell is not None]
    return list({cell.cell_id: cell for cell in chosen}.values())


def find_reference(summary: Summary) -> CellSummary | None:
    """The sweep's reference; where it names none, the default of its first curve or grid."""
    named = next((cell for cell in summary.cells if cell.name == summary.sweep.reference), None)
    return named or next((scan.reference for scan in summary.scans if scan.reference is not None), None)


def find_ends(summary: Summary) -> tuple[CellSummary | None, CellSummary | None]:
    """The cells with the lowest and with the highest mean error of the last epoch.

    The lowest is one of those that have all runs and as many as any, where there are such: what finished
    elsewhere was selected.
    """
    ranked = sorted(
        (cell for cell in summary.cells if cell.error_last is not None),
        key=lambda cell: cell.error_last.mean if cell.error_last else np.inf,
    )
    whole = [cell for cell in ranked if not cell.lost and not cell.selection]
    most = max((len(cell.seeds) for cell in whole), default=0)
    whole = [cell for cell in whole if len(cell.seeds) == most]
    return next(iter(whole or ranked), None), next(reversed(ranked), None)


def describe_cell(cell: CellSummary, name: str) -> str:
    """A cell's results in a line, for a tooltip."""
    planned = count_planned(cell)
    if cell.error_last is None:
        return f"{name}: {_describe_lost(cell) or 'no run finished'}"
    runs = str(planned) if len(cell.seeds) == planned else f"{len(cell.seeds)} of {planned}"
    noun = "run" if planned == 1 else "runs"
    parts = [f"{plus_minus(cell.error_last.mean, cell.error_last.ci95)} %, {runs} {noun}"]
    if cell.stability is not None:
        parts.append(f"S {digits(cell.stability.s)} {interval(cell.stability.ci95)}".strip() + " pp²")
    lost = _describe_lost(cell)
    return f"{name}: {'; '.join([*parts, lost] if lost else parts)}"


def count_planned(cell: CellSummary) -> int:
    """How many runs a cell is to have."""
    return len(cell.records) + len(cell.missing) + len(cell.untaught)


def _describe_lost(cell: CellSummary) -> str:
    numbers = {
        "diverged": len(cell.diverged),
        "failed": len(cell.failed),
        "without teacher": len(cell.untaught),
        "missing": len(cell.missing),
    }
    return ", ".join(f"{number} {what}" for what, number in numbers.items() if number)


class Points:
    """The cells of a summary as points of figures."""

    def __init__(self, summary: Summary) -> None:
        self._summary = summary
        self._names = name_shortly(summary)
        self._looks = choose_looks(summary)
        self._ids = {cell.name: cell.cell_id for cell in summary.cells}
        self._roles = {
            scan.reference.cell_id: scan.role for scan in summary.scans if scan.reference is not None
        }
        chosen = self._ids.get(summary.sweep.reference or "")
        if chosen is not None:
            self._roles[chosen] = "reference"
        self._differing = {
            point.cell.name
            for scan in summary.scans
            for point in scan.points
            if point.comparison is not None and point.comparison.opposes
        }

    def name_bases(self, cells: Iterable[CellSummary]) -> str:
        """What those of these cells are called that others are compared with; empty where none is one."""
        roles = {self._roles[cell.cell_id] for cell in cells if cell.cell_id in self._roles}
        return " or ".join(f"the {role}" for role in sorted(roles, reverse=True))

    def make(self, cell: CellSummary) -> CellPoint:
        """A cell as a point."""
        errors, stability = cell.error_last, cell.stability
        return CellPoint(
            name=self._names[cell.name],
            error=errors.mean if errors else np.nan,
            ci95=errors.ci95 if errors else None,
            by_seed=tuple(float(error) for error in cell.error_pct[:, -1]) if errors else (),
            s=stability.s if stability else np.nan,
            s_ci95=stability.ci95 if stability else None,
            finished=len(cell.seeds),
            planned=count_planned(cell),
            lost=_describe_lost(cell),
            reference=cell.cell_id in self._roles,
            differs=cell.name in self._differing,
            look=self._looks.get(cell.cell_id),
            note=describe_cell(cell, self._names[cell.name]),
        )


def describe_dots(numbers: Iterable[int]) -> str:
    """What a caption adds where a cell has more seeds than a figure draws; `numbers` are those of cells."""
    if max(numbers, default=0) <= MOST_DOTS:
        return ""
    drawn = f"{MOST_DOTS} are drawn, at even ranks from the smallest to the largest"
    return f" Of a cell with more than {MOST_DOTS} seeds, {drawn}."
