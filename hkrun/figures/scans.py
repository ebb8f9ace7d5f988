"""Test error over the values of one key, and over those of two."""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.ticker import FixedLocator, NullLocator

from hkrun.figures.style import (
    BAND,
    COLORS,
    INK,
    MUTED,
    PAGE,
    Drawing,
    new_figure,
    new_panels,
    styled,
    typeset,
    wrap,
)

BLUE = COLORS[1]
# White to middle blue: black print stays readable on every cell, in grey too.
TONES = ListedColormap(mpl.colormaps["Blues"](np.linspace(0, 0.55, 256)))


@dataclass(frozen=True, kw_only=True)
class ScanCurve:
    """Test error over the values of one key.

    Attributes:
        title: What varies, and in what.
        labels: The values as text.
        positions: The values where all are numbers above 0, for a logarithmic axis; else empty.
        mean: Mean error in percent at each value; NaN where there is none.
        ci95: Its interval at each value; None where there is none.
        reference: Index of the value that the others are compared with; None where there is none.
    """

    title: str
    labels: Sequence[str]
    positions: Sequence[float]
    mean: Sequence[float]
    ci95: Sequence[tuple[float, float] | None]
    reference: int | None


@dataclass(frozen=True, kw_only=True)
class ScanGrid:
    """Test error over the values of two keys.

    Attributes:
        title: In what they vary; may be empty.
        keys: The first goes down, the second to the right.
        labels: The values of each key as text.
        mean: Mean error in percent, [first, second]; NaN where there is none.
        half: Half of its 95 % interval, likewise.
        reference: Place of the cell that the others are compared with.
        differs: Whether each cell is shown to lie outside the margin around it.
    """

    title: str
    keys: tuple[str, str]
    labels: tuple[Sequence[str], Sequence[str]]
    mean: Sequence[Sequence[float]]
    half: Sequence[Sequence[float]]
    reference: tuple[int, int] | None
    differs: Sequence[Sequence[bool]]


def draw_curves(curves: Sequence[ScanCurve], *, margin: float) -> Drawing:
    """One panel a key on one scale: means in their 95 % intervals, and the margin around the reference."""
    with styled():
        figure, grid = new_panels(len(curves), least_width=4.4, row_height=2.7)
        for axes, curve in zip(grid.flat, curves, strict=False):
            _plot_curve(axes, curve, margin=margin)
        for axes in grid[:, 0]:
            axes.set_ylabel("Test error, last epoch (%)")
        return figure


def _plot_curve(axes: Axes, curve: ScanCurve, *, margin: float) -> None:
    places = np.array(curve.positions or range(len(curve.labels)), dtype=np.float64)
    mean = np.array(curve.mean)
    if curve.positions:
        axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(places.tolist()))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks(places, curve.labels)
    if curve.reference is not None and np.isfinite(mean[curve.reference]):
        middle = mean[curve.reference]
        axes.axhspan(middle - margin, middle + margin, color=BAND, zorder=0, linewidth=0)
    order = np.argsort(places)
    if curve.positions:
        axes.plot(places[order], mean[order], color=BLUE, linewidth=1.0, zorder=2)
    for place, ends in zip(places, curve.ci95, strict=True):
        if ends is not None:
            axes.plot((place, place), ends, color=BLUE, linewidth=1.8, solid_capstyle="butt", zorder=3)
    for index, place in enumerate(places):
        face = INK if index == curve.reference else "white"
        axes.plot(place, mean[index], "o", markersize=5, markerfacecolor=face, markeredgecolor=BLUE, zorder=4)
    axes.set_title(wrap(curve.title, 34))


def draw_grid(grid: ScanGrid) -> Drawing:
    """A heat map with every mean and half of its interval printed; the reference is framed."""
    mean, half = np.array(grid.mean), np.array(grid.half)
    num_rows, num_columns = mean.shape
    with styled():
        figure = new_figure(min(PAGE, 2.2 + 1.25 * num_columns), 1.3 + 0.5 * num_rows)
        axes = figure.subplots()
        axes.grid(visible=False)
        image = axes.imshow(mean, cmap=TONES, aspect="auto")
        for (row, column), value in np.ndenumerate(mean):
            if np.isfinite(value):
                width = f" ± {half[row, column]:.2f}" if np.isfinite(half[row, column]) else ""
                mark = " *" if grid.differs[row][column] else ""
                axes.text(column, row, f"{value:.2f}{width}{mark}", ha="center", va="center", fontsize=8)
            else:
                axes.text(column, row, "no run", ha="center", va="center", fontsize=8, color=MUTED)
        if grid.reference is not None:
            row, column = grid.reference
            corners = column - 0.48, column + 0.48, row - 0.46, row + 0.46
            axes.plot(
                [corners[0], corners[1], corners[1], corners[0], corners[0]],
                [corners[2], corners[2], corners[3], corners[3], corners[2]],
                color=INK,
                linewidth=1.6,
            )
        axes.set_yticks(range(num_rows), grid.labels[0])
        axes.set_xticks(range(num_columns), grid.labels[1])
        axes.tick_params(length=0)
        axes.set_ylabel(grid.keys[0])
        axes.set_xlabel(grid.keys[1])
        if grid.title:
            axes.set_title(typeset(grid.title))
        figure.colorbar(image, ax=axes, label="Test error, last epoch (%)")
        return figure
