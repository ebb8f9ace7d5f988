"""The figures of a report: test error over epochs, the range that S measures, paired differences.

Readable in grey: each cell has a line style, a lightness and, beyond four cells, a marker of its own, and its
name stands beside its line. Drawing the same data twice gives the same bytes.
"""

import io
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator
from numpy.typing import NDArray

Curve = NDArray[np.float64]

INK, MUTED, GRID = "#222222", "#666666", "#e4e4e4"
# Four by four, of rising lightness (L* about 14, 38, 54, 65 in the first group): grey prints tell them apart.
COLORS = (
    *("#222222", "#005a9c", "#d55e00", "#c99700"),
    *("#4b2e83", "#00796b", "#cc6699", "#56b4e9"),
    *("#5c2e0d", "#6b6b00", "#8c8c8c", "#9cbf3b"),
)
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.6)), (0, (6, 1.6, 1.2, 1.6)), (0, (1.4, 1.2)))
MARKERS = ("", "o", "s", "^")
MOST_BANDS = 6
# One seed: open, so that equal values show, and dark enough to print.
DOT: dict[str, Any] = {
    "linestyle": "none",
    "marker": "o",
    "markersize": 3.8,
    "markerfacecolor": "none",
    "markeredgecolor": "#444444",
    "markeredgewidth": 0.9,
}

# The losses' names in a cell's name: L_is, L_adv^C.
SYMBOL = re.compile(r"\b([A-Z])_([A-Za-z]+)(?:\^([A-Za-z]))?(?![\w^])")

# The style is complete: a user's matplotlibrc changes nothing.
STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 9,
    "mathtext.fontset": "dejavusans",
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "lines.linewidth": 1.6,
    "savefig.dpi": 200,
    "svg.fonttype": "path",
    "svg.hashsalt": "hkrun",
}


@dataclass(frozen=True, kw_only=True)
class CellCurves:
    """The test error of one cell's runs.

    Attributes:
        name: The cell's name.
        error_pct: Test error in percent of the finished runs, shape [runs, epochs]; runs may be 0.
        diverged: The curves of the diverged runs, each up to where it ended. Drawn, never averaged.
    """

    name: str
    error_pct: Curve
    diverged: tuple[Curve, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PairedDifferences:
    """The error of one cell minus the reference's in percentage points, by seed."""

    name: str
    by_seed: Sequence[float]
    mean: float
    ci95: tuple[float, float] | None


@contextmanager
def _style() -> Iterator[None]:
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def encode(figure: Figure, kind: Literal["png", "svg"]) -> bytes:
    """The figure as a file's content, without dates or versions in it."""
    buffer = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    with _style():
        figure.savefig(buffer, format=kind, metadata=metadata)
    return buffer.getvalue()


def typeset(name: str) -> str:
    """A cell's name for Matplotlib: L_is and L_adv^C with real sub- and superscripts, all else literal."""
    escaped = name.replace("\\", "/").replace("$", r"\$")
    return SYMBOL.sub(_symbol, escaped)


def _symbol(match: re.Match[str]) -> str:
    letter, below, above = match.groups()
    return f"${letter}_{{\\mathrm{{{below}}}}}" + (f"^{{{above}}}$" if above else "$")


# --- test error over epochs ---------------------------------------------------------------------------------


def draw_errors(cells: Sequence[CellCurves], *, window: int) -> Figure:
    """Test error over all epochs, and the last `window` of them enlarged.

    Lines are means over the finished runs. The enlarged part, or the only one, has thin lines one standard
    deviation to either side: filled bands would merge into one. Beyond `MOST_BANDS` cells there are none. A
    diverged run is a thin line ending in a cross.
    """
    shown = {index: cell for index, cell in enumerate(cells) if cell.error_pct.size or cell.diverged}
    epochs = max((cell.error_pct.shape[1] for cell in shown.values() if cell.error_pct.size), default=1)
    zoomed = 2 <= window < epochs
    labels = {index: _wrapped(cell) for index, cell in shown.items()}
    longest = max((len(line) for lines in labels.values() for line in lines), default=0)
    width, height = (9.6 if zoomed else 7.6), max(4.0, 1.1 + 0.26 * sum(map(len, labels.values())))
    with _style():
        figure = Figure(figsize=(width, height))
        FigureCanvasAgg(figure)
        panels = figure.subplots(1, 2 if zoomed else 1, squeeze=False)[0]
        right = 1 - (0.75 + 0.068 * longest) / width
        figure.subplots_adjust(
            left=0.6 / width, right=right, top=1 - 0.35 / height, bottom=0.5 / height, wspace=0.17
        )
        whole, late = panels[0], panels[-1]
        banded = len(shown) <= MOST_BANDS and any(len(cell.error_pct) > 1 for cell in cells)
        _plot_means(whole, shown, first=1, banded=banded and not zoomed)
        _plot_diverged(whole, shown)
        _scale_to_errors(whole, cells)
        averaged = "mean over seeds" if any(len(cell.error_pct) > 1 for cell in cells) else "one seed"
        spread = f"{averaged}; thin: ± 1 sd" if banded else averaged
        whole.set_title(f"Test error: {averaged if zoomed else spread}")
        whole.set_xlim(*((1, epochs) if epochs > 1 else (0.5, 1.5)))
        if zoomed:
            first = epochs - window + 1
            whole.axvspan(first, epochs, color="#f1f1ee", zorder=0, linewidth=0)
            _plot_means(late, shown, first=first, banded=banded)
            late.set_xlim(first, epochs)
            scale = ", linear scale" if whole.get_yscale() == "log" else ", enlarged"
            late.set_title(f"The last {window} epochs{scale}{'; thin: ± 1 sd' if banded else ''}")
        whole.set_ylabel(f"Test error (%{', log scale' if whole.get_yscale() == 'log' else ''})")
        for panel in panels:
            panel.set_xlabel("Epoch")
            panel.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6, min_n_ticks=1))
        _label_lines(
            late, shown, labels, panel_width=width * late.get_position().width, panel_height=height - 0.85
        )
        return figure


def _stroke(index: int) -> dict[str, Any]:
    """Colour, dashes and marker of the cell at this place; the first twelve differ in every medium."""
    return {
        "color": COLORS[index % len(COLORS)],
        "linestyle": DASHES[index % len(DASHES)],
        "marker": MARKERS[index // len(DASHES) % len(MARKERS)],
        "markersize": 3.5,
    }


def _plot_means(axes: Axes, cells: Mapping[int, CellCurves], *, first: int, banded: bool) -> None:
    for index, cell in cells.items():
        runs = cell.error_pct[:, first - 1 :]
        if runs.size == 0:
            continue
        stroke = _stroke(index)
        epoch = np.arange(first, first + runs.shape[1])
        mean = runs.mean(axis=0)
        # Markers of different cells stand at different epochs, else the later ones would hide the earlier.
        every = max(1, len(epoch) // 8)
        stroke["marker"] = stroke["marker"] or ("." if len(epoch) <= 8 else "")
        axes.plot(epoch, mean, **stroke, markevery=(index * every // len(COLORS), every), zorder=3)
        if banded and len(runs) > 1:
            sd = runs.std(axis=0, ddof=1)
            for edge in (mean - sd, mean + sd):
                axes.plot(epoch, edge, color=stroke["color"], linestyle=stroke["linestyle"], linewidth=0.7)


def _plot_diverged(axes: Axes, cells: Mapping[int, CellCurves]) -> None:
    for index, cell in cells.items():
        for curve in cell.diverged:
            seen = np.flatnonzero(np.isfinite(curve))
            if seen.size:
                color = _stroke(index)["color"]
                axes.plot(seen + 1, curve[seen], color=color, linewidth=0.8, alpha=0.7)
                axes.plot(
                    seen[-1:] + 1, curve[seen[-1:]], "x", color=color, markersize=6, clip_on=False, zorder=4
                )


def _scale_to_errors(axes: Axes, cells: Sequence[CellCurves]) -> None:
    """A logarithmic axis where the mean errors span more than a factor of six and none is zero."""
    means = [cell.error_pct.mean(axis=0) for cell in cells if cell.error_pct.size]
    lowest = min((float(mean.min()) for mean in means), default=0.0)
    if lowest <= 0 or max(mean.max() for mean in means) / lowest <= 6:
        axes.set_ylim(bottom=max(0.0, axes.get_ylim()[0]))
        return
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.6 * lowest)
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _wrapped(cell: CellCurves) -> list[str]:
    return textwrap.wrap(cell.name if cell.error_pct.size else f"{cell.name} (no run finished)", 22) or [""]


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
    if not cells:
        axes.text(0.5, 0.5, "no run finished", transform=axes.transAxes, ha="center", color=MUTED)
    to_fraction = (axes.transData + axes.transAxes.inverted()).transform
    ends = {
        index: float(to_fraction((cell.error_pct.shape[1], cell.error_pct[:, -1].mean()))[1])
        for index, cell in cells.items()
        if cell.error_pct.size
    }
    sizes = [(0.1 + 0.145 * len(labels[index])) / panel_height for index in cells]
    places = _spread([ends.get(index, 1.0) for index in cells], sizes)
    x = [1 + inches / panel_width for inches in (0.03, 0.17, 0.35, 0.53, 0.6)]
    for index, place in zip(cells, places, strict=True):
        stroke = _stroke(index)
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


# --- the range over runs: what S measures -------------------------------------------------------------------


def draw_ranges(cells: Sequence[CellCurves], *, window: int, ddof: int) -> Figure:
    """The range of the test error over runs at each epoch of the window, one panel a cell, all on one scale.

    S of eq. (10) is the variance of that line: the band around its mean is sqrt(S) to either side.

    Raises:
        ValueError: A cell has fewer than two runs or fewer epochs than the window.
    """
    if any(len(cell.error_pct) < 2 or cell.error_pct.shape[1] < window for cell in cells):
        raise ValueError("the range needs two runs and the whole window in every cell")
    columns = min(4, len(cells))
    rows = -(-len(cells) // columns)
    with _style():
        figure = Figure(figsize=(max(4.2, 2.4 * columns), 2.6 * rows), layout="constrained")
        FigureCanvasAgg(figure)
        grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
        for axes in grid.flat[len(cells) :]:
            axes.set_visible(False)
        for index, (axes, cell) in enumerate(zip(grid.flat, cells, strict=False)):
            figure_line = _plot_range(axes, cell, window=window, ddof=ddof, color=_stroke(index)["color"])
            name = textwrap.wrap(cell.name, 30 if columns > 2 else 50)
            axes.set_title("\n".join([*map(typeset, name), figure_line]))
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


# --- paired differences -------------------------------------------------------------------------------------


def draw_differences(differences: Sequence[PairedDifferences], *, reference: str) -> Figure:
    """Last epoch's error minus the reference's: each seed a dot, the mean a diamond in its 95 % interval."""
    with _style():
        figure = Figure(figsize=(7.6, 0.95 + 0.46 * len(differences)), layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        axes.axvline(0, color=INK, linewidth=0.9)
        for row, item in enumerate(differences):
            # Dots side by side in seed order: no random jitter, and equal values stay visible.
            offsets = np.linspace(-0.16, 0.16, len(item.by_seed)) if len(item.by_seed) > 1 else np.zeros(1)
            axes.plot(item.by_seed, row + 0.12 + offsets, **DOT)
            if item.ci95 is not None:
                axes.plot(item.ci95, (row - 0.22,) * 2, color="#005a9c", linewidth=2.2, solid_capstyle="butt")
            axes.plot(item.mean, row - 0.22, "D", color="#005a9c", markersize=5.5)
        axes.set_yticks(
            range(len(differences)),
            ["\n".join(map(typeset, textwrap.wrap(item.name, 30))) for item in differences],
        )
        axes.set_ylim(len(differences) - 0.5, -0.5)
        axes.grid(axis="y", visible=False)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(f"Difference in test error to {typeset(reference)}, last epoch (pp); left is better")
        return figure
