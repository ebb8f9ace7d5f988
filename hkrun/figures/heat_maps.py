"""Error and S over two keys of numbers: heat maps with the figures written into them."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import ListedColormap, LogNorm, Normalize
from matplotlib.patches import Rectangle
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from hkrun.figures.contents import CellPoint, HeatMap, Measure
from hkrun.figures.names import wrap
from hkrun.figures.palette import BAND, INK, MUTED, TONES, page_width
from hkrun.figures.points import MOST_RATIO, TITLES, find_lowest, flatten, is_readable
from hkrun.figures.style import Drawing, explain, new_figure, styled

_SCALE = ListedColormap(TONES)
_CELL_IN, _SIDE_IN = 0.9, 1.0  # widths of a cell at most, and of what stands beside a map
_LEAST_IN = 0.28  # of a cell with text


def draw_maps(maps: Sequence[HeatMap]) -> Drawing:
    """Maps of the error on one scale of colours, and of S where any cell has one.

    Each cell holds its mean and half of its 95 % interval, or its S. Cells that lack runs are hatched, say
    how many finished, and are not on the scale: what finished there was selected by its outcome. The frame is
    what others are compared with, a star marks what is shown to differ from it; the lowest figure is bold.
    """
    points = [point for found in maps for point in flatten(found.points)]
    measures: list[Measure] = ["error", "s"] if is_readable(points, "s") else ["error"]
    across = max(len(found.columns.values) for found in maps)
    up = max(len(found.rows.values) for found in maps)
    page = page_width()
    panels = len(maps) if len(maps) > 1 else len(measures)
    columns = max(1, min(panels, int(page / (_SIDE_IN + 0.62 * across))))
    blocks = 1 if len(maps) == 1 and columns == len(measures) else len(measures)
    rows = -(-panels // columns) if len(maps) > 1 else 1
    width = min(page, columns * (_SIDE_IN + _CELL_IN * across) + 0.6)
    height = 1.05 + min(0.52, 6 / up) * up
    with styled():
        figure = new_figure(width, height * blocks * rows)
        grid = figure.subplots(blocks * rows, columns, squeeze=False)
        for axes in grid.flat:
            axes.set_visible(False)
        cell_in = (width - 0.6 - columns * _SIDE_IN) / columns / across
        for number, measure in enumerate(measures):
            block = (
                grid[:, number : number + 1] if blocks == 1 < len(measures) else grid[number * rows :][:rows]
            )
            norm = _norm(points, measure)
            shown = list(block.flat)[: len(maps)]
            lowest = find_lowest(points, measure)
            for axes, found in zip(shown, maps, strict=True):
                axes.set_visible(True)
                _plot_map(axes, found, measure, norm=norm, lowest=lowest, cell_in=cell_in)
                axes.set_title(wrap(" · ".join(filter(None, (TITLES[measure], found.title))), 46))
            if norm is not None:
                _add_scale(figure, shown, norm)
        return figure


def _norm(points: Sequence[CellPoint], measure: Measure) -> Normalize | None:
    """The scale of colours over all cells that are whole; None where none is."""
    values = [
        point.value(measure) for point in points if not point.lost and np.isfinite(point.value(measure))
    ]
    if not values:
        return None
    low, high = min(values), max(values)
    if low == high:
        low, high = low - 0.5, high + 0.5
    return LogNorm(low, high) if low > 0 and high > MOST_RATIO * low else Normalize(low, high)


def _plot_map(
    axes: Axes,
    found: HeatMap,
    measure: Measure,
    *,
    norm: Normalize | None,
    lowest: CellPoint | None,
    cell_in: float,
) -> None:
    axes.grid(visible=False)
    for row, line in enumerate(found.points):
        for column, point in enumerate(line):
            if point is None:
                continue
            value = point.value(measure)
            whole = norm is not None and not point.lost and np.isfinite(value)
            patch = Rectangle((column - 0.49, row - 0.49), 0.98, 0.98, linewidth=0)
            patch.set_facecolor(_SCALE(norm(value)) if whole and norm is not None else BAND)
            if not whole:
                patch.set(hatch="///", edgecolor=MUTED)
            axes.add_patch(patch)
            explain(patch, point.note)
            if point.reference:
                corner = column - 0.46, row - 0.44
                axes.add_patch(Rectangle(corner, 0.92, 0.88, fill=False, edgecolor=INK, linewidth=1.6))
            if cell_in >= _LEAST_IN:
                _write_cell(axes, (column, row), point, measure, bold=point is lowest, cell_in=cell_in)
    for artist in (*axes.patches, *axes.texts):  # all within the panel: measuring them takes most of the time
        artist.set_in_layout(False)
    axes.set_xlim(-0.5, len(found.columns.values) - 0.5)
    axes.set_ylim(-0.5, len(found.rows.values) - 0.5)
    upright = max(map(len, found.columns.labels)) * 0.08 > cell_in
    axes.set_xticks(range(len(found.columns.values)), found.columns.labels, rotation=90 if upright else 0)
    axes.set_yticks(range(len(found.rows.values)), found.rows.labels)
    axes.tick_params(length=0)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.set_xlabel(found.columns.name)
    axes.set_ylabel(found.rows.name)


def _write_cell(
    axes: Axes, place: tuple[float, float], point: CellPoint, measure: Measure, *, bold: bool, cell_in: float
) -> None:
    """The figure of a cell and, where there is room, half of its interval, or how many runs finished."""
    size = 8.5 if cell_in >= 0.6 else 6.5
    value, ends = point.value(measure), point.interval(measure)
    text, below = "", ""
    if np.isfinite(value):
        star = " *" if point.differs and measure == "error" else ""
        error = f"{value:.2f}" if cell_in >= 0.4 else f"{value:.1f}"
        text = (error if measure == "error" else _two_digits(value)) + star
    elif point.finished:
        text = "undefined" if cell_in >= 0.6 else "–"  # noqa: RUF001
    elif cell_in >= 0.6:
        text = point.lost.split(" ", 1)[1] if "," not in point.lost else "no result"
    if point.lost:
        below = f"{point.finished}/{point.planned}"
    elif measure == "error" and ends is not None and cell_in >= 0.4:
        cut = abs(sum(ends) / 2 - value) > 1e-4  # at 0 or 100 %
        below = f"{ends[0]:.1f} to {ends[1]:.1f}" if cut else f"± {(ends[1] - ends[0]) / 2:.2f}"
    if point.lost:
        box = {"facecolor": BAND, "edgecolor": "none", "pad": 1.5}
        lines = "\n".join(filter(None, (text, below)))
        axes.text(*place, lines, ha="center", va="center", fontsize=size - 0.7, bbox=box)
        return
    shifts = (0.55 * size, -0.75 * size) if below else (0.0, 0.0)
    for line, shift in ((text, shifts[0]), (below, shifts[1])):
        axes.annotate(
            line,
            place,
            xytext=(0, shift),
            textcoords="offset points",
            ha="center",
            va="center",
            fontsize=size if line is text else size - 1.2,
            fontweight="bold" if bold and line is text else "normal",
        )


def _two_digits(value: float) -> str:
    """S with two digits, without an exponent where it is large."""
    return f"{value:.0f}" if value >= 10 else f"{value:#.2g}"


def _add_scale(figure: Drawing, panels: Sequence[Axes], norm: Normalize) -> None:
    bar = figure.colorbar(ScalarMappable(norm, _SCALE), ax=panels, aspect=30, pad=0.02, fraction=0.06)
    bar.outline.set_visible(False)
    logarithmic = isinstance(norm, LogNorm)
    bar.ax.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)) if logarithmic else MaxNLocator(5))
    bar.ax.yaxis.set_minor_locator(NullLocator())
    bar.ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
