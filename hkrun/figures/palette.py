"""What all figures and the page have in common: colours, and the widths of pages."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import MappingProxyType
from typing import NamedTuple


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

# Width in inches of a figure that fills the page, and of one that fills a phone's. A narrower one fills as
# much less of it.
PAGE, NARROW_PAGE = 9.6, 4.8
_page: ContextVar[float] = ContextVar("page", default=PAGE)


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
