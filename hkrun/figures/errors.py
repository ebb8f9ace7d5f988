"""Test error over epochs, with the late epochs enlarged, and its range over runs: what S measures."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from hkrun.figures.contents import MOST_BANDS, CellCurves, Curve
from hkrun.figures.names import split_lines, typeset, wrap
from hkrun.figures.palette import BAND, COLORS, MUTED, PAGE, page_width
from hkrun.figures.style import Drawing, explain, new_figure, new_panels, stroke_of, styled


def draw_errors(cells: Sequence[CellCurves], *, window: int) -> Drawing:
    """Test error over all epochs, and the last `window` of them enlarged.

    Lines are means over the finished runs. The enlarged part, or the only one, has thin lines one standard
    deviation to either side: filled bands would merge into one. Beyond `MOST_BANDS` cells there are none. A
    diverged run is a thin line ending in a cross. On a narrow page the parts stand below each other.
    """
    shown = {look: cell for look, cell in looks_of(cells).items() if cell.runs or cell.diverged}
    epochs = count_epochs(cells)
    zoomed = 2 <= window < epochs
    wide = page_width() == PAGE
    labels = {look: _wrapped(cell) for look, cell in shown.items()}
    longest = max((len(line) for lines in labels.values() for line in lines), default=0)
    lines = sum(map(len, labels.values()))
    width = PAGE if zoomed else 7.6
    height = max(4.0, 1.1 + 0.26 * lines) if wide else (5.6 if zoomed else 3.2) + 0.2 * lines
    with styled():
        figure = new_figure(width, height, layout=None if wide else "constrained")
        shape = (1, 2) if zoomed and wide else (2, 1) if zoomed else (1, 1)
        panels = figure.subplots(*shape, squeeze=False).flat
        right = 1 - (0.75 + 0.068 * longest) / width
        if wide:
            figure.subplots_adjust(
                left=0.6 / width, right=right, top=1 - 0.35 / height, bottom=0.5 / height, wspace=0.17
            )
        whole, late = panels[0], panels[-1]
        banded = len(shown) <= MOST_BANDS and any(cell.runs > 1 for cell in cells)
        _plot_means(whole, shown, first=1, banded=banded and not zoomed)
        plot_diverged(whole, shown)
        scale_to_errors(whole, [cell.mean for cell in cells])
        averaged = "mean over seeds" if any(cell.runs > 1 for cell in cells) else "one seed"
        spread = f"{averaged}; thin: ± 1 sd" if banded else averaged
        whole.set_title(f"Test error: {averaged if zoomed else spread}")
        whole.set_xlim(*((1, epochs) if epochs > 1 else (0.5, 1.5)))
        if zoomed:
            first = epochs - window + 1
            whole.axvspan(first, epochs, color=BAND, zorder=0, linewidth=0)
            _plot_means(late, shown, first=first, banded=banded)
            late.set_xlim(first, epochs)
            scale_to_errors(late, [cell.mean[first - 1 :] for cell in cells], room=0.8)
            linear = whole.get_yscale() == "log" and late.get_yscale() == "linear"
            scale = ", linear scale" if linear else ", enlarged"
            late.set_title(f"The last {window} epochs{scale}{'; thin: ± 1 sd' if banded else ''}")
        for panel in panels:
            if panel is whole or not wide:
                panel.set_ylabel(f"Test error (%{', log scale' if panel.get_yscale() == 'log' else ''})")
            panel.set_xlabel("Epoch")
            panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
        if not shown:
            late.text(0.5, 0.5, "no run finished", transform=late.transAxes, ha="center", color=MUTED)
        elif wide:
            _label_lines(
                late,
                shown,
                labels,
                panel_width=width * late.get_position().width,
                panel_height=height - 0.85,
            )
        else:
            names = ["\n".join(map(typeset, labels[look])) for look in shown]
            handles = [Line2D([], [], **stroke_of(look)) for look in shown]
            figure.legend(handles, names, loc="outside lower left", ncols=1, frameon=False, fontsize=8.5)
        return figure


def looks_of(cells: Sequence[CellCurves]) -> dict[int, CellCurves]:
    """The cells by the place of their colour."""
    return {index if cell.look is None else cell.look: cell for index, cell in enumerate(cells)}


def count_epochs(cells: Sequence[CellCurves]) -> int:
    """Of the longest curve of a finished run; 1 where none finished."""
    return max((len(cell.mean) for cell in cells if cell.runs), default=1)


def _plot_means(axes: Axes, cells: Mapping[int, CellCurves], *, first: int, banded: bool) -> None:
    for index, cell in cells.items():
        mean = cell.mean[first - 1 :]
        if not len(mean):
            continue
        stroke = stroke_of(index)
        epoch = np.arange(first, first + len(mean))
        # Markers of different cells stand at different epochs, else the later ones would hide the earlier.
        every = max(1, len(epoch) // 8)
        stroke["marker"] = stroke["marker"] or ("." if len(epoch) <= 8 else "")
        (line,) = axes.plot(epoch, mean, **stroke, markevery=(index * every // len(COLORS), every), zorder=3)
        explain(line, cell.note or cell.name)
        if banded and cell.runs > 1:
            sd = cell.sd[first - 1 :]
            for edge in (mean - sd, mean + sd):
                axes.plot(epoch, edge, color=stroke["color"], linestyle=stroke["linestyle"], linewidth=0.7)


def plot_diverged(axes: Axes, cells: Mapping[int, CellCurves]) -> None:
    """The diverged runs, each a thin line that ends in a cross."""
    for look, cell in cells.items():
        for curve in cell.diverged:
            seen = np.flatnonzero(np.isfinite(curve))
            if seen.size:
                color = stroke_of(look)["color"]
                axes.plot(seen + 1, curve[seen], color=color, linewidth=0.8, alpha=0.7)
                (cross,) = axes.plot(
                    seen[-1:] + 1, curve[seen[-1:]], "x", color=color, markersize=6, clip_on=False, zorder=4
                )
                explain(cross, f"{cell.name}: a run diverged after epoch {seen[-1] + 1}")


def scale_to_errors(axes: Axes, means: Sequence[Curve], *, room: float = 0.6) -> None:
    """A logarithmic axis where the mean errors span more than a factor of six and none is zero.

    Args:
        axes: To be scaled.
        means: Of the runs of each cell, [epochs].
        room: Where a logarithmic axis begins, as a part of the lowest mean.
    """
    means = [mean for mean in means if mean.size]
    lowest = min((float(mean.min()) for mean in means), default=0.0)
    if lowest <= 0 or max(mean.max() for mean in means) / lowest <= 6:
        axes.set_ylim(bottom=max(0.0, axes.get_ylim()[0]))
        return
    axes.set_yscale("log")
    axes.set_ylim(bottom=room * lowest)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _wrapped(cell: CellCurves) -> list[str]:
    name = cell.name if cell.runs else f"{cell.name} (no run finished)"
    return split_lines(name, 22) or [""]


def _label_lines(
    axes: Axes,
    cells: Mapping[int, CellCurves],
    labels: Mapping[int, Sequence[str]],
    *,
    panel_width: float,
    panel_height: float,
) -> None:
    """Writes each cell's name, with a sample of its line, beside the right edge at the height where it ends.

    A cell without a finished run has its label at the top. The panel's size is in inches.
    """
    to_fraction = (axes.transData + axes.transAxes.inverted()).transform
    ends = {
        index: float(to_fraction((len(cell.mean), cell.mean[-1]))[1])
        for index, cell in cells.items()
        if cell.runs
    }
    sizes = [(0.1 + 0.145 * len(labels[index])) / panel_height for index in cells]
    places = _spread([ends.get(index, 1.0) for index in cells], sizes)
    x = [1 + inches / panel_width for inches in (0.03, 0.17, 0.35, 0.53, 0.6)]
    for index, place in zip(cells, places, strict=True):
        stroke = stroke_of(index)
        if 0 <= ends.get(index, -1) <= 1:
            leader = (x[:2], (ends[index], place))
            axes.plot(*leader, color=stroke["color"], linewidth=0.6, transform=axes.transAxes, clip_on=False)
        axes.plot(x[1:4], (place,) * 3, **stroke, markevery=(1, 5), transform=axes.transAxes, clip_on=False)
        label = "\n".join(map(typeset, labels[index]))
        axes.text(x[4], place, label, transform=axes.transAxes, va="center", fontsize=8.5, linespacing=1.15)


def _spread(centres: Sequence[float], sizes: Sequence[float]) -> list[float]:
    """Moves labels apart as little as possible until none overlaps the next; within [0, 1] where they fit."""
    order = np.argsort(centres, kind="stable")
    size = np.array([sizes[i] for i in order])
    below = np.cumsum(size) - size
    # With the heights taken out, "no overlap" is "in order": isotonic regression by pooling neighbours.
    blocks: list[list[float]] = []
    for start in np.array([centres[i] for i in order]) - size / 2 - below:
        blocks.append([float(start)])
        while len(blocks) > 1 and np.mean(blocks[-2]) > np.mean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    level = np.array([np.mean(block) for block in blocks for _ in block])
    places = np.empty(len(order))
    places[order] = np.clip(level, 0.0, max(0.0, 1.0 - size.sum())) + below + size / 2
    return [float(place) for place in places]


def draw_ranges(cells: Sequence[CellCurves], *, window: int, ddof: int) -> Drawing:
    """The range of the test error over runs at each epoch of the window, one panel a cell, all on one scale.

    S of eq. (10) is the variance of that line: the band around its mean is sqrt(S) to either side.

    Raises:
        ValueError: A cell has fewer than two runs or fewer epochs than the window.
    """
    if any(cell.runs < 2 or len(cell.mean) < window for cell in cells):
        raise ValueError("the range needs two runs and the whole window in every cell")
    with styled():
        figure, grid = new_panels(len(cells), least_width=4.2, row_height=2.6)
        columns = grid.shape[1]
        for index, (axes, (look, cell)) in enumerate(zip(grid.flat, looks_of(cells).items(), strict=False)):
            figure_line = _plot_range(axes, cell, window=window, ddof=ddof, color=stroke_of(look)["color"])
            axes.set_title(f"{wrap(cell.name, 30 if columns > 2 else 50)}\n{figure_line}")
            if index + columns >= len(cells):
                axes.set_xlabel("Epoch")
        for axes in grid[:, 0]:
            axes.set_ylabel("Largest minus smallest error (pp)")
        grid[0, 0].set_ylim(0, 1.05 * grid[0, 0].get_ylim()[1])
        return figure


def _plot_range(axes: Axes, cell: CellCurves, *, window: int, ddof: int, color: str) -> str:
    """Draws the range of one cell; returns its S and mean in words."""
    spread = cell.spread[-window:]
    mean, deviation = float(spread.mean()), float(spread.std(ddof=ddof))
    epochs = len(cell.mean)
    axes.axhspan(mean - deviation, mean + deviation, color=color, alpha=0.13, linewidth=0)
    axes.axhline(mean, color=color, linewidth=0.8, linestyle=(0, (4, 2)))
    epoch = np.arange(epochs - window + 1, epochs + 1)
    (line,) = axes.plot(epoch, spread, color=color, linewidth=1.3)
    explain(line, cell.note or cell.name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=4, min_n_ticks=1))
    return f"S = {deviation**2:.2g} pp², mean {mean:.1f} pp"
