"""Cells as points of figures over axes: their values, and the marks that all these figures share."""

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullLocator

from hkrun.figures.contents import CellPoint, Factor, Measure
from hkrun.figures.palette import INK, PAPER
from hkrun.figures.style import Drawing, explain

MOST_RATIO = 6  # of the largest to the smallest figure, beyond which an axis of them is logarithmic

TITLES: dict[Measure, str] = {"error": "Test error, last epoch (%)", "s": "S (pp²)"}


def mark_point(axes: Axes, place: tuple[float, float], point: CellPoint, **look: Any) -> None:
    """Draws a point: hollow where runs are lost, in a ring where others are compared with it."""
    face = PAPER if point.lost else look["color"]
    style = {"marker": "o", "markersize": 5.0, "zorder": 4, **look}
    (mark,) = axes.plot(
        *place, linestyle="none", markerfacecolor=face, markeredgecolor=look["color"], **style
    )
    explain(mark, point.note)
    if point.reference:
        ring = {**style, "marker": "o", "markersize": 10.5, "zorder": 3}
        axes.plot(*place, linestyle="none", markerfacecolor="none", markeredgecolor=INK, **ring)


def choose_scale(values: Sequence[float]) -> Literal["linear", "log", "symlog"]:
    """The scale on which values lie more evenly; "symlog" is the logarithmic one for 0 and below as well."""
    rising = sorted(set(values))
    above = [value for value in rising if value > 0]
    if len(rising) == 2:  # which lie evenly on any scale
        return "log" if len(above) == 2 and above[1] >= 10 * above[0] else "linear"
    if len(above) < 2:
        return "linear"
    linear, logarithmic = np.diff(rising), np.diff(np.log(above))
    if np.std(linear) / np.mean(linear) <= np.std(logarithmic) / np.mean(logarithmic) + 1e-9:
        return "linear"
    return "log" if len(above) == len(rising) else "symlog"


def scale_values(axes: Axes, factor: Factor, *, width: float) -> None:
    """Sets the horizontal axis to the values of a factor of numbers; `width` is the panel's, in inches.

    Every value has a tick, and a label where there is room for it.
    """
    values = [float(value) for value in factor.values]
    scale = choose_scale(values)
    if scale == "symlog":
        smallest = min(abs(value) for value in values if value)
        axes.set_xscale("symlog", linthresh=smallest, linscale=0.6)
    else:
        axes.set_xscale(scale)
    transform = axes.xaxis.get_transform()
    places = np.asarray(transform.transform(np.array(values)), dtype=np.float64)
    span = float(np.ptp(places)) or 1.0
    ends = transform.inverted().transform(np.array([places.min() - 0.07 * span, places.max() + 0.07 * span]))
    axes.set_xlim(*map(float, ends))
    inches = (places - places.min()) / span * width * 0.88
    shown, free = [], -np.inf
    for place, label in zip(inches, factor.labels, strict=True):
        half = 0.04 * len(label) + 0.015
        fits = place - half >= free
        shown.append(label if fits else "")
        free = place + half if fits else free
    axes.xaxis.set_major_locator(FixedLocator(values))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(values, shown)


def scale_measure(
    panels: Iterable[Axes], points: Sequence[CellPoint], measure: Measure, *, headroom: float
) -> None:
    """One vertical axis for panels: logarithmic where figures span much and none is zero, so that all show.

    `headroom` is the part of the panel that stays free above, for what has no figure.
    """
    values = [point.value(measure) for point in points if np.isfinite(point.value(measure))]
    ends = [
        end for point in points for end in point.interval(measure) or () if np.isfinite(point.value(measure))
    ]
    logarithmic = bool(values) and min(values) > 0 and max(values) > MOST_RATIO * min(values)
    if not values:
        low, high = 0.0, 1.0
    elif logarithmic:
        low = max(min([*values, *ends]), 0.3 * min(values)) / 1.15
        high = max([*values, *ends]) * 1.15
        high = low * (high / low) ** (1 / (1 - headroom))
    else:
        low, high = min([*values, *ends]), max([*values, *ends])
        pad = 0.08 * (high - low) or 0.1 * high or 1.0
        low, high = max(0.0, low - pad), high + pad
        high = low + (high - low) / (1 - headroom)
    for axes in panels:
        if logarithmic:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 200 * low else (1,)))
            axes.yaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.set_ylim(low, high)


def is_readable(points: Iterable[CellPoint], measure: Measure) -> bool:
    """Whether any of the points has this figure."""
    return any(np.isfinite(point.value(measure)) for point in points)


def find_lowest(points: Iterable[CellPoint], measure: Measure) -> CellPoint | None:
    """The point with the lowest figure of those of which no run is lost."""
    whole = [point for point in points if not point.lost and np.isfinite(point.value(measure))]
    return min(whole, key=lambda point: point.value(measure), default=None)


def flatten(rows: Iterable[Iterable[CellPoint | None]]) -> list[CellPoint]:
    """The points of a table, row by row."""
    return [point for point in itertools.chain.from_iterable(rows) if point is not None]


def root_of(axes: Axes) -> Drawing:
    """The figure that axes stand in."""
    figure = axes.get_figure(root=True)
    assert isinstance(figure, Drawing)
    return figure
