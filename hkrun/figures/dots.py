"""Error and paired differences of cells without an order: a row of dots each."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from hkrun.figures.contents import CellPoint, DotRow
from hkrun.figures.differences import name_side, plot_difference, plot_dots
from hkrun.figures.names import wrap
from hkrun.figures.palette import INK, MUTED, PAGE, page_width
from hkrun.figures.points import TITLES, mark_point
from hkrun.figures.style import Drawing, explain, new_figure, styled


def draw_dots(rows: Sequence[DotRow], *, title: str, reference: str) -> Drawing:
    """A row for each cell: the error of each seed as a circle, and the mean in its 95 % interval.

    Beside it, or on a narrow page below it, stand the paired differences from the reference, where any cell
    has them. The vertical line is the reference's mean, and no difference.
    """
    compared = any(row.differences is not None for row in rows)
    wide = page_width() == PAGE
    panels = 2 if compared else 1
    with styled():
        height = 0.75 + 0.42 * len(rows)
        width = page_width() if compared else 6.4
        figure = new_figure(width, height if wide else height * panels)
        shape = (1, panels) if wide else (panels, 1)
        grid = figure.subplots(*shape, squeeze=False).flat
        for index, axes in enumerate(grid):
            axes.set_ylim(len(rows) - 0.5, -0.5)
            names = [wrap(f"{row.label}{_count(row.point)}", 30) for row in rows]
            axes.set_yticks(range(len(rows)), names if index == 0 or not wide else [""] * len(rows))
            axes.grid(axis="y", visible=False)
            axes.tick_params(axis="y", length=0)
            axes.spines["left"].set_visible(False)
        for row, item in enumerate(rows):
            _plot_errors(grid[0], row, item.point)
        grid[0].set_xlabel(TITLES["error"])
        grid[0].set_ylabel(title)
        base = next((row.point for row in rows if row.point.reference), None)
        if base is not None and np.isfinite(base.error):
            grid[0].axvline(base.error, color=INK, linewidth=0.9, zorder=1)
        if compared:
            for row, item in enumerate(rows):
                if item.differences is not None:
                    plot_difference(grid[1], row, item.differences)
                else:
                    grid[1].text(0.01, row, item.reason, transform=grid[1].get_yaxis_transform(), **_WORDS)
            grid[1].axvline(0, color=INK, linewidth=0.9)
            grid[1].set_xlabel(f"Difference to {name_side(reference)} (pp); left is better")
        return figure


_WORDS: dict[str, Any] = {"fontsize": 8, "color": MUTED, "va": "center"}


def _count(point: CellPoint) -> str:
    """How many runs finished, where not all did."""
    return f" ({point.finished}/{point.planned})" if point.lost and point.finished else ""


def _plot_errors(axes: Axes, row: int, point: CellPoint) -> None:
    if not point.finished:
        (cross,) = axes.plot(
            0.02, row, "x", color=point.color, markersize=6, transform=axes.get_yaxis_transform()
        )
        explain(cross, point.note)
        axes.text(0.05, row, point.lost, transform=axes.get_yaxis_transform(), **_WORDS)
        return
    plot_dots(axes, row, point.by_seed)
    place = (point.error, row - 0.22)
    if point.ci95 is not None:
        axes.plot(point.ci95, (place[1],) * 2, color=point.color, linewidth=2.2, solid_capstyle="butt")
    mark_point(axes, place, point, color=point.color, marker="D", markersize=5.5)
