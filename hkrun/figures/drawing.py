"""Draws each figure. Matplotlib is loaded by the first that is drawn, and not by who only says what to draw.

Another process draws most of them: see `Order`.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from hkrun.figures.contents import (
    CellCurves,
    CellHealth,
    DotRow,
    Factor,
    HeatMap,
    LinePanel,
    PairedDifferences,
    PlacedPoint,
    SeedSequence,
)

if TYPE_CHECKING:
    from hkrun.figures.style import Drawing


def draw_errors(cells: Sequence[CellCurves], *, window: int) -> "Drawing":
    """See `hkrun.figures.errors`."""
    from hkrun.figures import errors

    return errors.draw_errors(cells, window=window)


def draw_error_panels(cells: Sequence[CellCurves], *, window: int, reference: str | None) -> "Drawing":
    """See `hkrun.figures.error_panels`."""
    from hkrun.figures import error_panels

    return error_panels.draw_error_panels(cells, window=window, reference=reference)


def draw_ranges(cells: Sequence[CellCurves], *, window: int, ddof: int) -> "Drawing":
    """See `hkrun.figures.errors`."""
    from hkrun.figures import errors

    return errors.draw_ranges(cells, window=window, ddof=ddof)


def draw_differences(differences: Sequence[PairedDifferences], *, reference: str) -> "Drawing":
    """See `hkrun.figures.differences`."""
    from hkrun.figures import differences as module

    return module.draw_differences(differences, reference=reference)


def draw_sequences(
    sequences: Sequence[SeedSequence], *, reference: str, most: int, margin: float | None
) -> "Drawing":
    """See `hkrun.figures.sequences`."""
    from hkrun.figures import sequences as module

    return module.draw_sequences(sequences, reference=reference, most=most, margin=margin)


def draw_health(cells: Sequence[CellHealth]) -> "Drawing":
    """See `hkrun.figures.discriminator`."""
    from hkrun.figures import discriminator

    return discriminator.draw_health(cells)


def draw_lines(panels: Sequence[LinePanel], *, legend: str, margin: float) -> "Drawing":
    """See `hkrun.figures.axis_lines`."""
    from hkrun.figures import axis_lines

    return axis_lines.draw_lines(panels, legend=legend, margin=margin)


def draw_maps(maps: Sequence[HeatMap]) -> "Drawing":
    """See `hkrun.figures.heat_maps`."""
    from hkrun.figures import heat_maps

    return heat_maps.draw_maps(maps)


def draw_dots(rows: Sequence[DotRow], *, title: str, reference: str) -> "Drawing":
    """See `hkrun.figures.dots`."""
    from hkrun.figures import dots

    return dots.draw_dots(rows, title=title, reference=reference)


def draw_sorted(factors: Sequence[Factor], placed: Sequence[PlacedPoint]) -> "Drawing":
    """See `hkrun.figures.sorted_cells`."""
    from hkrun.figures import sorted_cells

    return sorted_cells.draw_sorted(factors, placed)


def encode(drawing: "Drawing", kind: Literal["png", "svg"]) -> bytes:
    """See `hkrun.figures.style`."""
    from hkrun.figures import style

    return style.encode(drawing, kind)
