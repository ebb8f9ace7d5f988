"""Test error over epochs where one panel would be too crowded: two small ones for each cell."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from hkrun.figures.contents import CellCurves
from hkrun.figures.errors import count_epochs, looks_of, plot_diverged, scale_to_errors
from hkrun.figures.names import wrap
from hkrun.figures.palette import BAND, MUTED, PAGE, page_width
from hkrun.figures.style import Drawing, explain, new_figure, stroke_of, styled


def draw_error_panels(cells: Sequence[CellCurves], *, window: int, reference: str | None) -> Drawing:
    """Test error over all epochs, and the last `window` of them enlarged, each cell in panels of its own.

    Lines are means over the finished runs, bands one standard deviation to either side; dashed in every panel
    is the mean of the `reference`, by its name. A diverged run is a thin line ending in a cross. All panels
    over the same epochs have one scale.
    """
    epochs = count_epochs(cells)
    zoomed = 2 <= window < epochs
    wide = page_width() == PAGE
    parts = 2 if zoomed else 1
    across = (4 if wide else 2) // parts
    rows = -(-len(cells) // across)
    base = next(
        (cell.mean for cell in cells if cell.name == reference and cell.runs),
        None,
    )
    with styled():
        figure = new_figure(PAGE, 0.5 + 1.55 * rows)
        grid = figure.subplots(rows, across * parts, squeeze=False)
        for place, axes in enumerate(grid.reshape(-1, parts)):
            if place >= len(cells):
                for panel in axes:
                    panel.set_visible(False)
        for place, (look, cell) in enumerate(looks_of(cells).items()):
            axes = grid.reshape(-1, parts)[place]
            _plot_cell(axes[0], cell, look, first=1, base=None if cell.name == reference else base)
            plot_diverged(axes[0], {look: cell})
            axes[0].set_xlim(*((1, epochs) if epochs > 1 else (0.5, 1.5)))
            if zoomed:
                first = epochs - window + 1
                axes[0].axvspan(first, epochs, color=BAND, zorder=0, linewidth=0)
                _plot_cell(axes[1], cell, look, first=first, base=None if cell.name == reference else base)
                axes[1].set_xlim(first, epochs)
                if place < across:
                    axes[1].set_title(f"last {window} epochs", loc="right", color=MUTED, fontsize=8)
            axes[0].set_title(wrap(cell.name, 44 if zoomed else 30))
            if not cell.runs:
                axes[-1].text(
                    0.5, 0.5, "no run finished", transform=axes[-1].transAxes, ha="center", color=MUTED
                )
            for panel in axes:
                panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=4, min_n_ticks=1))
                if place + across >= len(cells):
                    panel.set_xlabel("Epoch")
                else:
                    panel.tick_params(labelbottom=False)
        for part in range(parts):
            panels = list(grid.reshape(-1, parts)[: len(cells), part])
            lowest = min(panel.get_ylim()[0] for panel in panels)
            highest = max(panel.get_ylim()[1] for panel in panels)
            start = 0 if part == 0 else epochs - window
            for panel in panels:
                panel.set_ylim(lowest, highest)
                scale_to_errors(panel, [cell.mean[start:] for cell in cells], room=0.6 if part == 0 else 0.8)
        figure.supylabel("Test error (%)", fontsize=9)
        return figure


def _plot_cell(axes: Axes, cell: CellCurves, look: int, *, first: int, base: np.ndarray | None) -> None:
    if base is not None:
        axes.plot(
            np.arange(first, len(base) + 1),
            base[first - 1 :],
            color=MUTED,
            linewidth=0.9,
            linestyle=(0, (4, 2)),
        )
    mean = cell.mean[first - 1 :]
    if not len(mean):
        return
    color = stroke_of(look)["color"]
    epoch = np.arange(first, first + len(mean))
    if cell.runs > 1:
        sd = cell.sd[first - 1 :]
        axes.fill_between(epoch, mean - sd, mean + sd, color=color, alpha=0.22, linewidth=0)
    (line,) = axes.plot(epoch, mean, color=color, linewidth=1.4, zorder=3)
    explain(line, cell.note or cell.name)
