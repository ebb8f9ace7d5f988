"""The figures of a report. Drawing the same data twice gives the same bytes.

style.py          what all share: palettes, dashes, names of losses, files, what a mark says
inline.py         figures as elements of a page
errors.py         test error over epochs, and its range over runs, which S measures
differences.py    paired differences
scans.py          error over the values of one key, or of two
discriminator.py  what the discriminator did

Readable in grey: each cell has a line style, a lightness and, beyond four cells, a marker of its own.
"""

from hkrun.figures.differences import PairedDifferences, draw_differences
from hkrun.figures.discriminator import draw_health
from hkrun.figures.errors import CellCurves, draw_errors, draw_ranges
from hkrun.figures.inline import InlineFigures
from hkrun.figures.scans import ScanCurve, ScanGrid, draw_curves, draw_grid
from hkrun.figures.style import (
    NARROW_PAGE,
    PAGE,
    PALETTE,
    SYMBOL,
    Drawing,
    encode,
    narrow_page,
    typeset,
)
