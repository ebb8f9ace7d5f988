"""What all figures share: palettes, style, the strokes of the cells, the names of losses, and the files."""

import io
import re
import textwrap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import matplotlib as mpl
import numpy as np
from matplotlib import text, textpath
from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from numpy.typing import NDArray

Curve = NDArray[np.float64]


class Paint(NamedTuple):
    """A colour of the palette, as on white paper and as on dark."""

    light: str
    dark: str


# Every colour of the figures and of the HTML report. Figures are drawn in the light ones; in the report each
# is a variable, --NAME, so that it follows the reader's preference. No two light ones are equal: the colour
# in a drawing tells its name.
PALETTE: Mapping[str, Paint] = MappingProxyType(
    {
        "paper": Paint("#ffffff", "#1a1a1a"),
        "ink": Paint("#222222", "#e4e4e4"),
        "muted": Paint("#666666", "#a8a8a8"),
        "grid": Paint("#e4e4e4", "#383838"),
        "band": Paint("#ececea", "#2b2b2b"),  # what lies behind marks: a margin, a window of epochs
        "seed": Paint("#444444", "#c4c4c4"),  # the mark of one seed
        # Of the page alone.
        "line": Paint("#d9d9d9", "#3a3a3a"),
        "soft": Paint("#f6f6f4", "#242424"),
        "link": Paint("#00599b", "#7cbcf2"),
        "alarm": Paint("#a65200", "#f0a050"),
        "good": Paint("#1d6b34", "#74c98c"),
        "bad": Paint("#a3262a", "#f28b82"),
        # The cells, four by four. On white of rising lightness (L* about 13, 34, 48, 59 in the first group):
        # grey prints tell them apart. The first is ink.
        "cell-1": Paint("#00528f", "#5aa7e8"),
        "cell-2": Paint("#c24a00", "#f0803c"),
        "cell-3": Paint("#b38600", "#e0b040"),
        "cell-4": Paint("#4b2e83", "#a98be0"),
        "cell-5": Paint("#00796b", "#3db8a4"),
        "cell-6": Paint("#c45a8d", "#ea86b6"),
        "cell-7": Paint("#2e90cc", "#9ad6f8"),
        "cell-8": Paint("#5c2e0d", "#bf8a62"),
        "cell-9": Paint("#6b6b00", "#b3b34a"),
        "cell-10": Paint("#8c8c8c", "#9b9b9b"),
        "cell-11": Paint("#789a1a", "#c2e36a"),
        # Of a heat map, from its lowest value to its highest: ink is readable on all.
        "tone-0": Paint("#f7fbff", "#222d38"),
        "tone-1": Paint("#eaf2fb", "#233545"),
        "tone-2": Paint("#dce9f6", "#243c53"),
        "tone-3": Paint("#cfe1f2", "#264460"),
        "tone-4": Paint("#bed8ec", "#274c6e"),
        "tone-5": Paint("#a8cee4", "#28537b"),
        "tone-6": Paint("#8fc2de", "#2a5b88"),
        "tone-7": Paint("#72b2d8", "#2a6094"),
        "tone-8": Paint("#5ba3d0", "#2b669c"),
    }
)
PAPER, INK, MUTED, GRID, BAND, SEED = (
    PALETTE[name].light for name in ("paper", "ink", "muted", "grid", "band", "seed")
)
COLORS = (INK, *(PALETTE[f"cell-{index}"].light for index in range(1, 12)))
TONES = tuple(PALETTE[f"tone-{index}"].light for index in range(9))
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.6)), (0, (6, 1.6, 1.2, 1.6)), (0, (1.4, 1.2)))
MARKERS = ("", "o", "s", "^")

# Width in inches of a figure that fills the page, and of one that fills a phone's. A narrower one fills as
# much less of it.
PAGE, NARROW_PAGE = 9.6, 4.8
_page: ContextVar[float] = ContextVar("page", default=PAGE)

_SVG_DPI = 72  # which Matplotlib gives every figure that it saves as SVG
_LONGEST_WORD = 36  # characters of a word that is not broken
_PAIR = re.compile(r"\S+ = \S+")  # a key and its value
_NO_BREAK = "\u00a0"

# The losses' names in a cell's name: L_is, L_adv^C.
SYMBOL = re.compile(r"\b([A-Z])_([A-Za-z]+)(?:\^([A-Za-z]))?(?![\w^])")

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


@contextmanager
def narrow_page() -> Iterator[None]:
    """What is drawn within is for a page of `NARROW_PAGE`: a phone's."""
    token = _page.set(NARROW_PAGE)
    try:
        yield
    finally:
        _page.reset(token)


def page_width() -> float:
    """Width in inches of the page that is drawn for: `PAGE`, or `NARROW_PAGE` within `narrow_page`."""
    return _page.get()


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


def typeset(name: str) -> str:
    """A cell's name for Matplotlib: L_is and L_adv^C with real sub- and superscripts, all else literal."""
    escaped = name.replace("\\", "/").replace("$", r"\$")
    return SYMBOL.sub(_symbol, escaped)


def wrap(name: str, width: int) -> str:
    """A cell's name as `typeset` gives it, in the lines of `split_lines`."""
    return "\n".join(map(typeset, split_lines(name, width)))


def split_lines(name: str, width: int) -> list[str]:
    """A name in lines of at most so many characters, or as many as its longest word has.

    A key and its value stay together where a line holds both.
    """
    longest = max(map(len, name.replace("-", "- ").split()), default=0)  # lines may end in a hyphen
    width = max(width, min(longest, _LONGEST_WORD))

    def join(pair: re.Match[str]) -> str:
        return pair[0].replace(" ", _NO_BREAK) if len(pair[0]) <= width else pair[0]

    return [line.replace(_NO_BREAK, " ") for line in textwrap.wrap(_PAIR.sub(join, name), width)]


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
