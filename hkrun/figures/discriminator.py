"""What the discriminator did over the epochs, in every cell that has one."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from hkrun.figures.style import MUTED, PAGE, Drawing, new_figure, stroke_of, styled, wrap
from hkrun.records import ACCURACY, GRADIENT_RATIO, SPREAD, STUDENT_MEAN, TEACHER_MEAN
from hkrun.stats import Spread


def draw_health(cells: Mapping[str, Mapping[str, Spread]]) -> Drawing:
    """One row a cell: accuracy, mean output on teacher and student, their spread, and the gradient ratio.

    The curves are given by the cell's name, then by their column. Lines are means over seeds, bands the
    smallest to the largest of any seed. What the curves of a cell lack is left out.
    """
    panels = [
        ("Share that D\ntells apart", (ACCURACY,)),
        ("What D says to teacher\n(full) and student (dashed)", (TEACHER_MEAN, STUDENT_MEAN)),
        ("Spread of\nwhat D says", (SPREAD,)),
        ("Gradient of adversarial\nover other terms", (GRADIENT_RATIO,)),
    ]
    shown = [panel for panel in panels if any(name in cell for cell in cells.values() for name in panel[1])]
    with styled():
        figure = new_figure(PAGE, 0.7 + 1.75 * len(cells))
        grid = figure.subplots(len(cells), len(shown), squeeze=False, sharex=True, sharey="col")
        for axes, (title, _) in zip(grid[0], shown, strict=True):
            axes.set_title(title)
        for row, (cell, curves) in zip(grid, cells.items(), strict=True):
            for axes, (_, names) in zip(row, shown, strict=True):
                _plot_health(axes, curves, names)
            row[0].set_ylabel(wrap(cell, 20))
        for axes in grid[-1]:
            axes.set_xlabel("Epoch")
        return figure


def _plot_health(axes: Axes, curves: Mapping[str, Spread], names: Sequence[str]) -> None:
    if names[0] in (ACCURACY, TEACHER_MEAN):
        axes.set_ylim(-0.03, 1.03)
    if names[0] == ACCURACY:
        axes.axhline(0.5, color=MUTED, linewidth=0.7, linestyle=(0, (1, 2)))
    for index, name in enumerate(names):
        runs = curves.get(name)
        if runs is None or not np.isfinite(runs.mean).any():
            continue
        epoch = np.flatnonzero(np.isfinite(runs.mean))
        stroke = {**stroke_of(index), "marker": ""}
        axes.fill_between(
            epoch + 1, runs.low[epoch], runs.high[epoch], color=stroke["color"], alpha=0.15, linewidth=0
        )
        axes.plot(epoch + 1, runs.mean[epoch], **stroke)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=4, min_n_ticks=1))
    if names[0] in (SPREAD, GRADIENT_RATIO):
        axes.set_ylim(bottom=0)
