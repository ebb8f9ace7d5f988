"""What all figures share: palettes, style, the strokes of the cells, the names of losses, and the files."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

import matplotlib as mpl
from matplotlib import text, textpath
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from numpy.typing import NDArray

from hkrun.figures.palette import COLORS, GRID, INK, MUTED, PAGE, page_width

DASHES: tuple[Any, ...] = ("-", (0, (5, 1.6)), (0, (6, 1.6, 1.2, 1.6)), (0, (1.4, 1.2)))
MARKERS = ("", "o", "s", "^")

_SVG_DPI = 72  # which Matplotlib gives every figure that it saves as SVG


# Where an SVG file has places: paths, and the symbols on them; and what it holds beside what is drawn.
_SVG_PLACE = re.compile(rb'(<path [^>]*?\bd="|<use [^>]*?\bx="|\by="|\btranslate\()([^")]*)')
_DECIMALS = re.compile(rb"-?\d+\.\d{2,}")
_SVG_IDLE = re.compile(rb'<metadata>.*?</metadata>|<!--.*?-->|(?<=<g) id="(?!mark-)[^"]*"', re.DOTALL)
_INDENT = re.compile(rb"\n\s+")

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
    "axes.titley": 1.0,  # where it lies anyway; to look for a free place takes time
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


@contextmanager
def _reading_symbols_once() -> Iterator[None]:
    """Has all pictures within share Matplotlib's own reader of mathematics, which keeps what it has read.

    Else every picture, and every layout of one, reads the names of cells anew: a quarter of the time.
    """
    each_their_own = text.TextToPath
    text.TextToPath = lambda: textpath.text_to_path  # type: ignore[assignment, misc]
    try:
        yield
    finally:
        text.TextToPath = each_their_own  # type: ignore[misc]


class Drawing(Figure):
    """A figure whose marks can be explained.

    Attributes:
        notes: The texts of its marks, by the artist's gid; see `explain`.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.notes: dict[str, tuple[str, ...]] = {}


def explain(artist: Artist, *notes: str) -> None:
    """Says what a mark on a `Drawing` shows: in the HTML report it has this text as its tooltip.

    Args:
        artist: A line, marker, patch, collection or text that lies in its axes already.
        notes: One for the whole artist, or one for each of its markers or patches, in their order.
    """
    drawing = artist.get_figure(root=True)
    assert isinstance(drawing, Drawing)
    gid = f"mark-{len(drawing.notes)}"
    artist.set_gid(gid)
    drawing.notes[gid] = notes


def new_figure(
    width: float, height: float, *, layout: Literal["constrained"] | None = "constrained"
) -> Drawing:
    """An empty figure of this size in inches, but no wider than the page, to be drawn within `styled`."""
    figure = Drawing(figsize=(min(width, page_width()), height), layout=layout)
    FigureCanvasAgg(figure)
    return figure


def new_panels(number: int, *, least_width: float, row_height: float) -> tuple[Drawing, NDArray[Any]]:
    """A figure with at least so many panels on one scale, and its axes, [rows, columns].

    Four panels in a row, two on a narrow page.
    """
    page = page_width()
    columns = min(4 if page == PAGE else 2, number)
    rows = -(-number // columns)
    figure = new_figure(max(least_width, page * columns / (4 if page == PAGE else 2)), row_height * rows)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes in grid.flat[number:]:
        axes.set_visible(False)
    return figure, grid


def encode(figure: Figure, kind: Literal["png", "svg"]) -> bytes:
    """The figure as a file's content, without dates or versions in it."""
    buffer = io.BytesIO()
    metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    with styled(), _reading_symbols_once():
        _lay_out(figure)
        figure.savefig(buffer, format=kind, metadata=metadata)
    return _shorten(buffer.getvalue()) if kind == "svg" else buffer.getvalue()


def _lay_out(figure: Figure) -> None:
    """Gives axes and texts their places, once for all pictures of a figure: as in the SVG file.

    Left to do it, `savefig` draws every picture twice, the first time for nothing.
    """
    engine = figure.get_layout_engine()
    if engine is None:
        return
    canvas, dpi = figure.canvas, figure.dpi
    FigureCanvasSVG(figure)
    figure.dpi = _SVG_DPI
    engine.execute(figure)
    figure.dpi = dpi
    figure.set_canvas(canvas)
    figure.set_layout_engine(None)


def _shorten(svg: bytes) -> bytes:
    """The same picture in half of the bytes: `results/` holds many."""
    return _INDENT.sub(b"\n", _SVG_IDLE.sub(b"", _SVG_PLACE.sub(_round_places, svg)))


def _round_places(match: re.Match[bytes]) -> bytes:
    """Places in tenths of a point, those within a marker in hundredths.

    That is shorter, and the same wherever arithmetic differs in the last bit. A
    command of a path that is that of before, or a line after the start, needs no letter.
    """
    start, places = match.groups()
    digits = 1 if start.endswith(b'd="') and b' id="' not in start else 2
    steps, before = [], b""
    for step in _DECIMALS.sub(lambda number: _round(number[0], digits), places).split(b"\n"):
        command, _, rest = step.strip().partition(b" ")
        again = command in (b"L", b"Q", b"C") and (command == before or (command, before) == (b"L", b"M"))
        steps.append(b" " + rest if again else step.strip())
        before = command
    return start + b"".join(steps)


def _round(number: bytes, digits: int) -> bytes:
    return (b"%.*f" % (digits, float(number))).rstrip(b"0").rstrip(b".")


def stroke_of(index: int) -> dict[str, Any]:
    """Colour, dashes and marker of the cell at this place; the first twelve differ in every medium."""
    return {
        "color": COLORS[index % len(COLORS)],
        "linestyle": DASHES[index % len(DASHES)],
        "marker": MARKERS[index // len(DASHES) % len(MARKERS)],
        "markersize": 3.5,
    }
