"""Error and S over a key of numbers, a line for each of what it is crossed with."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.transforms import ScaledTranslation

from hkrun.figures.contents import LinePanel, Measure
from hkrun.figures.names import wrap
from hkrun.figures.palette import BAND, MUTED, PAGE, PAPER, page_width
from hkrun.figures.points import (
    TITLES,
    flatten,
    is_readable,
    mark_point,
    root_of,
    scale_measure,
    scale_values,
)
from hkrun.figures.style import Drawing, explain, new_figure, stroke_of, styled

_DODGE_PT = 3.0  # between the intervals of lines at one value
_SHAPES = ("o", "s", "^", "D", "v", "P", "p", "h", "<", ">", "*", "d")  # of points, for their lines cross


def draw_lines(panels: Sequence[LinePanel], *, legend: str, margin: float) -> Drawing:
    """Means in their 95 % intervals over the values of a key, and S with its own, where any cell has one.

    All panels share one scale of the error, and one of S. A panel of one line has a band: the `margin` in
    percentage points around the reference. What has no figure is named where it would stand.

    Args:
        panels: At least one.
        legend: What the lines are values of; without meaning where each panel has one line.
        margin: In percentage points.
    """
    points = [point for panel in panels for point in flatten(line.points for line in panel.lines)]
    measures: list[Measure] = ["error", "s"] if is_readable(points, "s") else ["error"]
    wide = page_width() == PAGE
    columns = min(len(panels), 4 if wide else 1 if len(panels) == 1 else 2)
    beside = wide and len(panels) == 1
    blocks = -(-len(panels) // columns)
    shape = (1, len(measures)) if beside else (blocks * len(measures), columns)
    with styled():
        width = page_width() if beside or columns > 1 else 5.2
        lines = max(panels, key=lambda panel: len(panel.lines)).lines
        several = len(lines) > 1
        figure = new_figure(width, (3.3 if len(panels) == 1 else 2.5) * shape[0] + 0.3 * several)
        grid = figure.subplots(*shape, squeeze=False)
        for place in range(blocks * columns):
            block, column = divmod(place, columns)
            cells = [
                grid[0, number] if beside else grid[block * len(measures) + number, column]
                for number in range(len(measures))
            ]
            for axes, measure in zip(cells, measures, strict=True):
                if place < len(panels):
                    _plot_panel(axes, panels[place], measure, width=width / shape[1] - 0.75, margin=margin)
                    named = beside or measure == "error"
                    axes.set_title(wrap(panels[place].title, 34 if columns > 2 else 60) if named else "")
                else:
                    axes.set_visible(False)
                if column == 0 or beside:
                    axes.set_ylabel(TITLES[measure])
                else:
                    axes.tick_params(labelleft=False)
        for number, measure in enumerate(measures):
            row = grid[:, number] if beside else grid[number :: len(measures)].flat
            headroom = 0.3 if any(point.lost and not point.finished for point in points) else 0.0
            scale_measure(row, points, measure, headroom=headroom)
        if several:
            handles = [Line2D([], [], **_stroke(index)) for index in range(len(lines))]
            names = [wrap(line.name, 40) for line in lines]
            figure.legend(
                handles,
                names,
                title=legend,
                loc="outside upper left",
                ncols=min(len(lines), 4 if wide else 2),
                frameon=False,
                fontsize=8.5,
                handlelength=2.8,
                alignment="left",
                title_fontsize=8.5,
            )
        return figure


def _plot_panel(axes: Axes, panel: LinePanel, measure: Measure, *, width: float, margin: float) -> None:
    scale_values(axes, panel.axis, width=width)
    axes.set_xlabel(panel.axis.name)
    for index in range(len(panel.lines)):
        _plot_line(axes, panel, index, measure)
    _mark_absent(axes, panel, measure)
    if len(panel.lines) == 1 and measure == "error":
        for point in panel.lines[0].points:
            if point is not None and point.reference and np.isfinite(point.error):
                axes.axhspan(point.error - margin, point.error + margin, color=BAND, zorder=0, linewidth=0)


def _stroke(index: int) -> dict[str, Any]:
    """Of one of several lines."""
    shape = _SHAPES[index % len(_SHAPES)]
    return {**stroke_of(index), "marker": shape, "markersize": 5.0, "linewidth": 1.2}


def _plot_line(axes: Axes, panel: LinePanel, index: int, measure: Measure) -> None:
    """One line; of several a little beside the others, so that their intervals do not overlap."""
    count, line = len(panel.lines), panel.lines[index]
    stroke = _stroke(index) if count > 1 else {"color": MUTED, "linewidth": 1.0}
    dodge = (index - (count - 1) / 2) * _DODGE_PT
    beside = axes.transData + ScaledTranslation(dodge / 72, 0, root_of(axes).dpi_scale_trans)
    points = [
        (float(value), point)
        for value, point in zip(panel.axis.values, line.points, strict=True)
        if point is not None
    ]
    means = [point.value(measure) for _, point in points]
    axes.plot([value for value, _ in points], means, **{**stroke, "marker": ""}, transform=beside, zorder=2)
    for place, (value, point) in enumerate(points):
        mean, ends = point.value(measure), point.interval(measure)
        if not np.isfinite(mean):
            continue
        look: dict[str, Any] = {"color": stroke["color"] if count > 1 else point.color, "transform": beside}
        if ends is not None:
            axes.plot((value, value), ends, linewidth=1.8, solid_capstyle="butt", zorder=3, **look)
        mark_point(axes, (value, mean), point, marker=stroke.get("marker", "o"), **look)
        if point.lost:
            side = 1 if place == 0 else -1
            axes.annotate(
                f"{point.finished}/{point.planned}",
                (value, mean),
                xytext=(dodge + side * 6, 0),
                textcoords="offset points",
                ha="left" if side > 0 else "right",
                va="center",
                fontsize=7,
                color=MUTED,
                bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 0.8},
                zorder=2.5,
            )


def _mark_absent(axes: Axes, panel: LinePanel, measure: Measure) -> None:
    """Says at each value why a cell has no figure: no run finished, or S is undefined of those that did.

    The crosses of several lines stand below each other, each in its line's colour.
    """
    count = len(panel.lines)
    for place, value in enumerate(panel.axis.values):
        there = [(index, line.points[place]) for index, line in enumerate(panel.lines)]
        lost = [(index, point) for index, point in there if point is not None and not point.finished]
        for level, (index, absent) in enumerate(lost):
            at = float(value), 0.96 - 0.055 * level
            color = _stroke(index)["color"] if count > 1 else absent.color
            (cross,) = axes.plot(*at, "x", color=color, markersize=6, transform=axes.get_xaxis_transform())
            explain(cross, absent.note)
            if count > 1:
                _write(axes, at, absent.lost, shift=(-6 if place else 6, 0), ha="right" if place else "left")
            else:
                _write(axes, at, absent.lost, shift=(0, -6), rotation=90, ha="center", va="top")
        finished = [point for _, point in there if point is not None and point.finished]
        for point in finished:
            if measure == "s" and not np.isfinite(point.s):
                _write(axes, (float(value), 0.03), "undefined", rotation=90, ha="center", va="bottom")


def _write(axes: Axes, at: tuple[float, float], text: str, **look: Any) -> None:
    """Words at a value and a part of the panel's height."""
    shift, across = look.pop("shift", (0, 0)), axes.get_xaxis_transform()
    style = {"fontsize": 7, "color": MUTED, "va": "center", **look}
    axes.annotate(text, at, xycoords=across, xytext=shift, textcoords="offset points", **style)
