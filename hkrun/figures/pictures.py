"""A figure as the files of a report, also taken in another process than the one that asks for it."""

import contextlib
import gc
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import TYPE_CHECKING

from hkrun.figures.drawing import encode
from hkrun.figures.inline import InlineFigures
from hkrun.figures.palette import NARROW_PAGE, PAGE, narrow_page

if TYPE_CHECKING:
    from hkrun.figures.style import Drawing


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure as it stands in a report.

    Attributes:
        files: As "svg" and as "png"; none for a narrow page, which is of HTML alone.
        element: As an element of the HTML page.
        letters: The elements of the letters that this one refers to, see `InlineFigures`.
        width_pct: Its share of the page's width.
    """

    files: Mapping[str, bytes]
    element: str
    letters: Mapping[str, str]
    width_pct: int


@dataclass(frozen=True, kw_only=True)
class Order:
    """A picture that is wanted.

    Attributes:
        name: Of the figure.
        draw: Draws it; to go to another process, a `functools.partial` of what modules hold.
        narrow: Whether for a narrow page.
    """

    name: str
    draw: "Callable[[], Drawing]"
    narrow: bool

    def take(self) -> Picture:
        """Draws the figure and encodes it."""
        kind, page = ("narrow", NARROW_PAGE) if self.narrow else ("wide", PAGE)
        with narrow_page() if self.narrow else contextlib.nullcontext():
            drawn = self.draw()
        svg = encode(drawn, "svg")
        width_pct = min(100, round(100 * drawn.get_figwidth() / page))
        attributes = {
            "class": f"figure {kind}",
            "width": f"{width_pct}%",
            "role": "img",
            "aria-labelledby": f"caption-{self.name}",
        }
        if drawn.notes:
            attributes["tabindex"] = "0"
        inline = InlineFigures()
        element = inline.add(f"{kind}-{self.name}", svg, notes=drawn.notes, attributes=attributes)
        return Picture(
            files={} if self.narrow else {"svg": svg, "png": encode(drawn, "png")},
            element=element,
            letters=inline.letters,
            width_pct=width_pct,
        )


def serve(connection: Connection) -> None:
    """Answers each order that comes with its picture, or None where it fails or brings a warning.

    Returns when nobody is there any more.
    """
    gc.disable()  # it would go through all of Matplotlib again and again: a twelfth of the time
    gc.freeze()
    with contextlib.suppress(EOFError, OSError):
        while True:
            order: Order = connection.recv()
            connection.send(_take_without_warning(order))
            gc.collect()


def _take_without_warning(order: Order) -> Picture | None:
    try:
        with warnings.catch_warnings(record=True) as told:
            picture = order.take()
    except Exception:
        return None
    return None if told else picture
