"""What all figures share: one style, the strokes of the cells, the names of losses, and the files."""

import io
import re
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
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

# Width of a figure that fills the page, in inches; a narrower one fills as much less of it.
PAGE = 9.6

# The losses' names in a cell's name: L_is, L_adv^C.
SYMBOL = re.compile(r"\b([A-Z])_([A-Za-z]+)(?:\^([A-Za-z]))?(?![\w^])")

# Where an SVG file has places: paths, and the symbols on them.
_SVG_PLACE = re.compile(rb'(<path [^>]*?\bd="|<use [^>]*?\bx="|\by=")([^"]*)(")')
_DECIMALS = re.compile(rb"-?\d+\.\d{3,}")

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


@contextmanager
def styled() -> Iterator[None]:
    """Draws in the style of the reports, whatever the user's own is."""
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(STYLE)
        yield


def new_figure(
    width: float, height: float, *, layout: Literal["constrained"] | None = "constrained"
) -> Figure:
    """An empty figure of this size in inches, to be drawn within `styled`."""
    figure = Figure(figsize=(width, height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def new_panels(number: int, *, least_width: float, row_height: float) -> tuple[Figure, NDArray[Any]]:
    """A figure with at least so many panels on one scale, four in a row, and its axes, [rows, columns]."""
    columns = min(4, number)
    rows = -(-number // columns)
    figure = new_figure(max(least_width, PAGE / 4 * columns), row_height * rows)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes in grid.flat[number:]:
        axes.set_visible(False)
    return figure, grid


def encode(figure: Figure, kind: Literal["png", "svg"]) -> bytes:
    """The figure as a file's content, without dates or versions in it."""
    buffer = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    with styled():
        figure.savefig(buffer, format=kind, metadata=metadata)
    return _SVG_PLACE.sub(_round_places, buffer.getvalue()) if kind == "svg" else buffer.getvalue()


def _round_places(match: re.Match[bytes]) -> bytes:
    """Places in hundredths of a point: smaller, and the same wherever arithmetic differs in the last bit."""
    start, places, end = match.groups()
    return start + _DECIMALS.sub(lambda number: b"%.2f" % float(number[0]), places) + end


def typeset(name: str) -> str:
    """A cell's name for Matplotlib: L_is and L_adv^C with real sub- and superscripts, all else literal."""
    escaped = name.replace("\\", "/").replace("$", r"\$")
    return SYMBOL.sub(_symbol, escaped)


def wrap(name: str, width: int) -> str:
    """A cell's name as `typeset` gives it, in lines of at most so many characters."""
    return "\n".join(map(typeset, textwrap.wrap(name, width)))


def _symbol(match: re.Match[str]) -> str:
    letter, below, above = match.groups()
    return f"${letter}_{{\\mathrm{{{below}}}}}" + (f"^{{{above}}}$" if above else "$")


def stroke_of(index: int) -> dict[str, Any]:
    """Colour, dashes and marker of the cell at this place; the first twelve differ in every medium."""
    return {
        "color": COLORS[index % len(COLORS)],
        "linestyle": DASHES[index % len(DASHES)],
        "marker": MARKERS[index // len(DASHES) % len(MARKERS)],
        "markersize": 3.5,
    }
