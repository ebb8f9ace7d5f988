"""A figure as the files of a report, also taken in another process than the one that asks for it."""

import contextlib
import gc
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection

from hkrun.figures.style import Drawing, encode, narrow_page


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A figure as files, and what a page says of it.

    Attributes:
        svg: The figure as SVG.
        png: The same as PNG; empty for a narrow page, which has none.
        notes: What its marks say, see `Drawing`.
        width: In inches.
    """

    svg: bytes
    png: bytes
    notes: Mapping[str, Sequence[str]]
    width: float

    def share_pct(self, page: float) -> int:
        """Its share of the width of a page of so many inches."""
        return min(100, round(100 * self.width / page))


@dataclass(frozen=True, kw_only=True)
class Order:
    """A picture that is wanted.

    Attributes:
        draw: Draws the figure; to go to another process, a `functools.partial` of what modules hold.
        narrow: Whether for a narrow page.
    """

    draw: Callable[[], Drawing]
    narrow: bool

    def take(self) -> Picture:
        """Draws the figure and encodes it."""
        with narrow_page() if self.narrow else contextlib.nullcontext():
            drawn = self.draw()
        return Picture(
            svg=encode(drawn, "svg"),
            png=b"" if self.narrow else encode(drawn, "png"),
            notes=drawn.notes,
            width=drawn.get_figwidth(),
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
