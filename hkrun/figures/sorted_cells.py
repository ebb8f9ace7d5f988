"""Cells over many axes: sorted by error, with the values of each below, as a specification curve.

Simonsohn, Simmons and Nelson, "Specification curve analysis", Nature Human Behaviour 4 (2020).
"""

from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator

from hkrun.figures.contents import ACCENT, Factor, PlacedPoint
from hkrun.figures.names import wrap
from hkrun.figures.palette import GRID, INK, MUTED, PAGE, page_width
from hkrun.figures.points import TITLES, mark_point, scale_measure
from hkrun.figures.style import Drawing, explain, new_figure, styled


def draw_sorted(factors: Sequence[Factor], placed: Sequence[PlacedPoint]) -> Drawing:
    """Mean errors in their 95 % intervals from the lowest on, and below each which values it has.

    Cells of which no run finished stand at the right, as crosses.
    """
    ranked = sorted(placed, key=lambda item: (np.isnan(item.point.error), item.point.error))
    levels = sum(len(factor.values) for factor in factors)
    number = len(ranked)
    with styled():
        figure = new_figure(PAGE, 2.6 + 0.17 * levels + 0.12 * len(factors))
        ratios = [2.4, *(len(factor.values) * 0.17 + 0.08 for factor in factors)]
        grid = figure.subplots(len(factors) + 1, 1, sharex=True, height_ratios=ratios, squeeze=False)[:, 0]
        top, below = grid[0], grid[1:]
        points = [item.point for item in ranked]
        lost = any(not point.finished for point in points)
        scale_measure([top], points, "error", headroom=0.12 if lost else 0.0)
        size = min(5.0, 0.55 * page_width() * 72 / max(number, 1))
        for rank, point in enumerate(points, start=1):
            if not point.finished:
                across = top.get_xaxis_transform()
                (cross,) = top.plot(rank, 0.94, "x", color=ACCENT, markersize=size, transform=across)
                explain(cross, point.note)
                continue
            if point.ci95 is not None:
                top.plot((rank, rank), point.ci95, color=ACCENT, linewidth=min(1.8, size / 2), zorder=3)
            mark_point(top, (rank, point.error), point, color=ACCENT, markersize=size)
        top.set_ylabel(TITLES["error"])
        top.set_xlim(0.2, number + 0.8)
        top.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
        top.tick_params(axis="x", length=0)
        for index, (axes, factor) in enumerate(zip(below, factors, strict=True)):
            places = [item.at[index] for item in ranked]
            axes.plot(range(1, number + 1), places, "s", color=INK, markersize=min(4.0, size))
            ends = -0.5, len(factor.values) - 0.5
            axes.set_ylim(*(ends if factor.numeric else reversed(ends)))
            axes.set_yticks(range(len(factor.values)), [wrap(label, 24) for label in factor.labels])
            axes.tick_params(length=0, labelsize=7.5)
            axes.set_ylabel(factor.name, rotation=0, ha="right", va="center", fontsize=8.5)
            axes.grid(axis="x", visible=False)
            axes.spines["bottom"].set_color(GRID)
            axes.yaxis.label.set_color(MUTED)
        grid[-1].set_xlabel("Configurations, from the lowest error to the highest")
        return figure
