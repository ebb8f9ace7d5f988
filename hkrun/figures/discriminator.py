"""What the discriminator did over the epochs, in every cell that has one."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from hkrun.figures.contents import CellHealth
from hkrun.figures.names import wrap
from hkrun.figures.palette import MUTED, PAGE, page_width
from hkrun.figures.style import DASHES, Drawing, explain, new_figure, stroke_of, styled
from hkrun.records import ACCURACY, GRADIENT_RATIO, SPREAD, STUDENT_MEAN, TEACHER_MEAN

_PANELS = (
    ("Share that D\ntells apart", (ACCURACY,)),
    ("What D says to teacher\n(full) and student (dashed)", (TEACHER_MEAN, STUDENT_MEAN)),
    ("Spread of\nwhat D says", (SPREAD,)),
    ("Gradient of adversarial\nover other terms", (GRADIENT_RATIO,)),
)


def draw_health(cells: Sequence[CellHealth]) -> Drawing:
    """A row a cell: accuracy, mean output on teacher and student, their spread, and the gradient ratio.

    Lines are means over seeds, bands the smallest to the largest of any seed. What the curves of all cells
    lack is left out. A narrow page has two rows for each cell.
    """
    shown = [panel for panel in _PANELS if any(name in cell.curves for cell in cells for name in panel[1])]
    wide = page_width() == PAGE
    columns = len(shown) if wide else min(2, len(shown))
    rows = -(-len(shown) // columns)
    with styled():
        figure = new_figure(PAGE, 0.7 + (1.75 if wide else 1.9) * rows * len(cells))
        grid = figure.subplots(rows * len(cells), columns, squeeze=False, sharex=True)
        blocks = [grid[place * rows : (place + 1) * rows].ravel() for place in range(len(cells))]
        for block, cell in zip(blocks, cells, strict=True):
            for axes, (title, names) in zip(block, shown, strict=False):
                _plot_health(axes, cell, names, title=title)
                axes.set_title(title if not wide or block is blocks[0] else "", fontsize=9 if wide else 8)
            for axes in block[len(shown) :]:
                axes.set_visible(False)
            block[0].set_ylabel(wrap(cell.name, 20))
        for place, (_, names) in enumerate(shown):
            alike = [block[place] for block in blocks]
            top = max(axes.get_ylim()[1] for axes in alike)
            for axes in alike:
                axes.set_ylim((-0.03, 1.03) if names[0] in (ACCURACY, TEACHER_MEAN) else (0, top))
        for axes in grid[-1]:
            axes.set_xlabel("Epoch")
        return figure


def _plot_health(axes: Axes, cell: CellHealth, names: Sequence[str], *, title: str) -> None:
    color = stroke_of(cell.look)["color"]
    if names[0] == ACCURACY:
        axes.axhline(0.5, color=MUTED, linewidth=0.7, linestyle=(0, (1, 2)))
    for name, dashes in zip(names, DASHES, strict=False):
        runs = cell.curves.get(name)
        if runs is None or not np.isfinite(runs.mean).any():
            continue
        epoch = np.flatnonzero(np.isfinite(runs.mean))
        low, high, mean = runs.low[epoch], runs.high[epoch], runs.mean[epoch]
        axes.fill_between(epoch + 1, low, high, color=color, alpha=0.15, linewidth=0)
        (line,) = axes.plot(epoch + 1, mean, color=color, linestyle=dashes)
        what = title.replace("\n", " ").partition(" (")[0]
        explain(line, f"{cell.name}. {what}: {mean[-1]:.3g} [{low[-1]:.3g}, {high[-1]:.3g}] at the end")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=4, min_n_ticks=1))
