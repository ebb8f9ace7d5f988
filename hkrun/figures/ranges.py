"""The range of the test error over runs at each epoch: what S measures."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from hkrun.figures.errors import CellCurves
from hkrun.figures.style import new_panels, stroke_of, styled, wrap


def draw_ranges(cells: Sequence[CellCurves], *, window: int, ddof: int) -> Figure:
    """The range of the test error over runs at each epoch of the window, one panel a cell, all on one scale.

    S of eq. (10) is the variance of that line: the band around its mean is sqrt(S) to either side.

    Raises:
        ValueError: A cell has fewer than two runs or fewer epochs than the window.
    """
    if any(len(cell.error_pct) < 2 or cell.error_pct.shape[1] < window for cell in cells):
        raise ValueError("the range needs two runs and the whole window in every cell")
    with styled():
        figure, grid = new_panels(len(cells), least_width=4.2, row_height=2.6)
        columns = grid.shape[1]
        for index, (axes, cell) in enumerate(zip(grid.flat, cells, strict=False)):
            figure_line = _plot_range(axes, cell, window=window, ddof=ddof, color=stroke_of(index)["color"])
            axes.set_title(f"{wrap(cell.name, 30 if columns > 2 else 50)}\n{figure_line}")
            if index + columns >= len(cells):
                axes.set_xlabel("Epoch")
        for axes in grid[:, 0]:
            axes.set_ylabel("Largest minus smallest error (pp)")
        grid[0, 0].set_ylim(0, 1.05 * grid[0, 0].get_ylim()[1])
        return figure


def _plot_range(axes: Axes, cell: CellCurves, *, window: int, ddof: int, color: str) -> str:
    """Draws the range of one cell; returns its S and mean in words."""
    late = cell.error_pct[:, -window:]
    spread = late.max(axis=0) - late.min(axis=0)
    mean, deviation = float(spread.mean()), float(spread.std(ddof=ddof))
    epochs = cell.error_pct.shape[1]
    axes.axhspan(mean - deviation, mean + deviation, color=color, alpha=0.13, linewidth=0)
    axes.axhline(mean, color=color, linewidth=0.8, linestyle=(0, (4, 2)))
    epoch = np.arange(epochs - window + 1, epochs + 1)
    axes.plot(epoch, spread, color=color, linewidth=1.3, marker="." if window <= 40 else "", markersize=4)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=4, min_n_ticks=1))
    return f"S = {deviation**2:.2g} pp², mean {mean:.1f} pp"
