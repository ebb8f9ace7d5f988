"""Which figures show the cells that axes of a search space vary, and what is in them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from hkrun import figures
from hkrun.config import Value
from hkrun.figures import (
    AxisLine,
    DotRow,
    Factor,
    HeatMap,
    LinePanel,
    PairedDifferences,
    PlacedPoint,
)
from hkrun.report.figure_cells import NAME_WIDTH, Points, describe_dots, name_shortly
from hkrun.report.summary import CellSummary, Summary
from hkrun.spaces import NamedCell, shorten_names, write_value

if TYPE_CHECKING:
    from hkrun.figures.style import Drawing

CELL = "cell"  # what the names of crossed cells are values of
MOST_PANELS = 8
MOST_ROWS = 40  # of dots
MOST_SORTED = 120


@dataclass(frozen=True, kw_only=True)
class Crossing:
    """Cells that axes vary, and what varies them: keys, and the name of the cell where it is crossed too.

    Attributes:
        factors: Those with at least two values.
        cells: Each with the values of the factors, in their order.
    """

    factors: tuple[Factor, ...]
    cells: tuple[tuple[tuple[Value, ...], CellSummary], ...]

    @property
    def numbers(self) -> list[int]:
        """The places of the factors that are numbers."""
        return [place for place, factor in enumerate(self.factors) if factor.numeric]

    @property
    def words(self) -> list[int]:
        """The places of the others."""
        return [place for place, factor in enumerate(self.factors) if not factor.numeric]


def find_crossings(summary: Summary) -> list[Crossing]:
    """The cells on axes, by the keys that vary them, each with two cells at least."""
    by_name = {cell.name: cell for cell in summary.cells}
    families: dict[tuple[str, ...], list[NamedCell]] = {}
    for named in summary.sweep.cells:
        if named.point:
            families.setdefault(tuple(named.point), []).append(named)
    short = summary.columns.short
    found = []
    for keys, cells in families.items():
        values: list[tuple[str, list[Value]]] = [
            (short[key], [named.point[key] for named in cells]) for key in keys
        ]
        values.append((CELL, [named.group for named in cells]))
        varied = [(name, column) for name, column in values if len(set(column)) > 1]
        if varied:
            factors = tuple(_factor(name, column) for name, column in varied)
            points = zip(*(column for _, column in varied), strict=True)
            summaries = [by_name[named.name] for named in cells]
            found.append(Crossing(factors=factors, cells=tuple(zip(points, summaries, strict=True))))
    return found


def _factor(name: str, column: Iterable[Value]) -> Factor:
    values = list(dict.fromkeys(column))
    numeric = all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)
    if numeric:
        values.sort(key=lambda value: float(value))  # type: ignore[arg-type]
    labels = [write_value(value) for value in values]
    if not numeric:
        short = shorten_names(list(dict.fromkeys(labels)), NAME_WIDTH)
        labels = [short[label] for label in labels]
    return Factor(name=name, values=tuple(values), labels=tuple(labels), numeric=numeric)


@dataclass(frozen=True, kw_only=True)
class AxisFigure:
    """A figure over axes: its kind, which names its file, what it shows, what draws it, and whose cells."""

    kind: str
    caption: str
    draw: "Callable[[], Drawing]"
    crossings: tuple[Crossing, ...]


def draw_axes(summary: Summary) -> list[AxisFigure]:
    """A figure for every crossing; those over one key of numbers alone share one."""
    points = Points(summary)
    crossings = find_crossings(summary)
    single = [crossing for crossing in crossings if len(crossing.factors) == len(crossing.numbers) == 1]
    drawn = []
    for start in range(0, len(single), MOST_PANELS):
        chunk = single[start : start + MOST_PANELS]
        panels = [_panel(crossing, points, title=_title(crossing, summary)) for crossing in chunk]
        drawn.append(_lines(points, summary, panels, chunk, legend=""))
    others = (crossing for crossing in crossings if crossing not in single)
    return [*drawn, *(_draw_crossing(crossing, points, summary) for crossing in others)]


def _draw_crossing(crossing: Crossing, points: Points, summary: Summary) -> AxisFigure:
    """Lines over one key of numbers, maps over two, dots over none; all else sorted by error."""
    numbers, words = crossing.numbers, crossing.words
    sizes = [len(crossing.factors[place].values) for place in words]
    if (
        len(numbers) == 1
        and len(words) <= 2
        and sizes[0] <= figures.MOST_LINES
        and max(sizes[1:], default=1) <= MOST_PANELS
    ):
        panels = [
            _panel(crossing, points, title=title, kept=kept) for title, kept in _split(crossing, words[1:])
        ]
        return _lines(points, summary, panels, [crossing], legend=crossing.factors[words[0]].name)
    if len(numbers) == 2 and len(words) <= 1 and max(sizes, default=1) <= MOST_PANELS:
        return _maps(crossing, points, summary)
    if not numbers and len(words) <= 2 and len(crossing.cells) <= MOST_ROWS:
        return _dots(crossing, points, summary)
    return _sorted(crossing, points)


def _split(crossing: Crossing, places: Sequence[int]) -> list[tuple[str, dict[int, Any]]]:
    """The values of at most one factor, each with its title; one that says nothing where there is none."""
    if not places:
        return [("", {})]
    factor = crossing.factors[places[0]]
    return [
        (label if factor.name == CELL else f"{factor.name} = {label}", {places[0]: value})
        for value, label in zip(factor.values, factor.labels, strict=True)
    ]


def _find(crossing: Crossing, kept: dict[int, Any]) -> CellSummary | None:
    """The cell with these values, by the factors' places."""
    for values, cell in crossing.cells:
        if all(values[place] == value for place, value in kept.items()):
            return cell
    return None


def _panel(
    crossing: Crossing, points: Points, *, title: str, kept: dict[int, Any] | None = None
) -> LinePanel:
    """Lines over the one factor of numbers, for each value of the first of words."""
    (number,), words = crossing.numbers, crossing.words[:1]
    axis = crossing.factors[number]
    lines = []
    for name, own in _split(crossing, words):
        found = (_find(crossing, {**(kept or {}), **own, number: value}) for value in axis.values)
        label = name.removeprefix(f"{crossing.factors[words[0]].name} = ") if words else ""
        lines.append(AxisLine(name=label, points=[points.make(cell) if cell else None for cell in found]))
    return LinePanel(title=title, axis=axis, lines=lines)


def _title(crossing: Crossing, summary: Summary) -> str:
    """The name of the cell that is varied, where it tells more than the key."""
    groups = {named.name: named.group for named in summary.sweep.cells}
    group = groups[crossing.cells[0][1].name]
    return "" if group == crossing.factors[0].name else group


_MARKED = "A hollow point lacks runs: n/N finished. A cross at the upper edge has no finished run."


def _lines(
    points: Points,
    summary: Summary,
    panels: Sequence[LinePanel],
    crossings: Sequence[Crossing],
    *,
    legend: str,
) -> AxisFigure:
    names = list(dict.fromkeys(panel.axis.name for panel in panels))
    keys = ", ".join([*names[:-2], " and ".join(names[-2:])])
    made = [point for panel in panels for line in panel.lines for point in line.points if point is not None]
    with_s = any(np.isfinite(point.s) for point in made)
    parts = [
        f"Test error of the last epoch{' and S' if with_s else ''} over {keys}: mean over seeds in its 95 % "
        + ("interval, S in its approximate one." if with_s else "interval.")
    ]
    if bases := points.name_bases(cell for crossing in crossings for _, cell in crossing.cells):
        parts.append(
            f"The ring is {bases}"
            + (
                f", the grey band the margin of {summary.sweep.margin:g} pp around it."
                if any(len(panel.lines) == 1 for panel in panels)
                else "."
            )
        )
    if any(point.lost for point in made):
        parts.append(_MARKED)
    return AxisFigure(
        kind="sensitivity",
        caption=" ".join(parts),
        draw=partial(figures.draw_lines, panels, legend=legend, margin=summary.sweep.margin),
        crossings=tuple(crossings),
    )


def _maps(crossing: Crossing, points: Points, summary: Summary) -> AxisFigure:
    up, across = crossing.numbers
    rows, columns = crossing.factors[up], crossing.factors[across]
    maps = []
    for title, kept in _split(crossing, crossing.words):
        found = [
            [_find(crossing, {**kept, up: row, across: column}) for column in columns.values]
            for row in rows.values
        ]
        made = [[points.make(cell) if cell else None for cell in line] for line in found]
        maps.append(HeatMap(title=title, rows=rows, columns=columns, points=made))
    cells = [cell for _, cell in crossing.cells]
    first = f"Test error of the last epoch over {rows.name} and {columns.name}"
    parts = [f"{first}: mean over seeds ± half of its 95 % interval; the lowest is bold."]
    if any(cell.stability for cell in cells):
        parts.append("S has a map of its own.")
    if bases := points.name_bases(cells):
        parts.append(
            f"The frame is {bases}; a star marks what is shown to differ from it by more than "
            f"{summary.sweep.margin:g} pp."
        )
    if any(points.make(cell).lost for cell in cells):
        parts.append(
            "Hatched cells lack runs, n/N finished, and are left out of the colours: what finished there was "
            "selected by its outcome."
        )
    return AxisFigure(
        kind="grid", caption=" ".join(parts), draw=partial(figures.draw_maps, maps), crossings=(crossing,)
    )


def _dots(crossing: Crossing, points: Points, summary: Summary) -> AxisFigure:
    rows, factors = [], crossing.factors
    for values, cell in crossing.cells:
        point = points.make(cell)
        comparison = summary.find_comparison(cell.name)
        differences = None
        if comparison is not None:
            differences = PairedDifferences(
                name=point.name,
                by_seed=comparison.by_seed,
                mean=comparison.difference,
                ci95=comparison.ci95,
                look=point.look if point.look is not None else 1,
            )
        labels = [
            factor.labels[factor.values.index(value)] for factor, value in zip(factors, values, strict=True)
        ]
        reason = summary.describe_uncompared(cell)
        rows.append(DotRow(label=", ".join(labels), point=point, differences=differences, reason=reason))
    names = name_shortly(summary)
    reference = names.get(summary.sweep.reference or "", "")
    keys = " and ".join(factor.name for factor in factors)
    beside = (
        f" With it the differences from {reference}, paired by seed."
        if any(row.differences for row in rows)
        else ""
    )
    lost = (
        " A cross has no finished run; n/N says how many finished where not all did."
        if any(row.point.lost for row in rows)
        else ""
    )
    few = describe_dots(len(row.point.by_seed) for row in rows)
    return AxisFigure(
        kind="categories",
        caption=f"Test error of the last epoch by {keys}: each seed a circle, the mean a diamond in its 95 % "
        f"interval.{few}{beside}{lost}",
        draw=partial(
            figures.draw_dots, rows, title=", ".join(factor.name for factor in factors), reference=reference
        ),
        crossings=(crossing,),
    )


def _sorted(crossing: Crossing, points: Points) -> AxisFigure:
    made = [
        PlacedPoint(
            point=points.make(cell),
            at=[factor.values.index(value) for factor, value in zip(crossing.factors, values, strict=True)],
        )
        for values, cell in crossing.cells
    ]
    made.sort(key=lambda item: (np.isnan(item.point.error), item.point.error))
    left_out = ""
    if len(made) > MOST_SORTED:
        half = MOST_SORTED // 2
        left_out = (
            f" Of {len(made)} the {half} at either end are drawn; the other {len(made) - MOST_SORTED} are in "
            "the table of errors."
        )
        made = [*made[:half], *made[-half:]]
    keys = ", ".join(factor.name for factor in crossing.factors)
    lost = (
        " A cross has no finished run; a hollow point lacks runs."
        if any(item.point.lost for item in made)
        else ""
    )
    return AxisFigure(
        kind="sorted",
        caption=f"Test error of the last epoch over {keys}: configurations sorted by their mean over seeds, "
        f"in its 95 % interval, and below each the values that it has.{lost}{left_out}",
        draw=partial(figures.draw_sorted, crossing.factors, made),
        crossings=(crossing,),
    )
