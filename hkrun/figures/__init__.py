"""The figures of a report. Drawing the same data twice gives the same bytes.

style.py          what all share: palettes, dashes, names of losses, files, what a mark says
pictures.py       one as the files of a report, in a process beside others: start_serving.py
inline.py         figures as elements of a page
errors.py         test error over epochs, and its range over runs, which S measures
error_panels.py   the same for many cells: small panels for each
differences.py    paired differences
sequences.py      how they close in while seeds come, in a sequential study
points.py         cells as points of the figures over axes
axis_lines.py     error and S over a key of numbers
heat_maps.py      over two
dots.py           over words
sorted_cells.py   over more: sorted by error
discriminator.py  what the discriminator did

Readable in grey: each cell has a line style, a lightness and, beyond four cells, a marker of its own.
"""

from hkrun.figures.axis_lines import MOST_LINES, AxisLine, LinePanel, draw_lines
from hkrun.figures.differences import MOST_DOTS, PairedDifferences, draw_differences
from hkrun.figures.discriminator import CellHealth, draw_health
from hkrun.figures.dots import DotRow, draw_dots
from hkrun.figures.error_panels import draw_error_panels
from hkrun.figures.errors import MOST_BANDS, CellCurves, draw_errors, draw_ranges
from hkrun.figures.heat_maps import HeatMap, draw_maps
from hkrun.figures.inline import InlineFigures, write_letters
from hkrun.figures.pictures import Order, Picture
from hkrun.figures.points import CellPoint, Factor
from hkrun.figures.sequences import MOST_PANELS, SeedSequence, draw_sequences
from hkrun.figures.sorted_cells import PlacedPoint, draw_sorted
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
