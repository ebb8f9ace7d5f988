"""The figures of a report. Drawing the same data twice gives the same bytes.

contents.py       what figures show, as data
palette.py        colours, and the widths of pages
names.py          the names of cells and losses
drawing.py        draws each, with Matplotlib, which nothing before it loads
style.py          what all drawings share: style, dashes, files, what a mark says
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

from hkrun.figures.contents import (
    MOST_BANDS,
    MOST_DOTS,
    MOST_LINES,
    MOST_PANELS,
    AxisLine,
    CellCurves,
    CellHealth,
    CellPoint,
    DotRow,
    Factor,
    HeatMap,
    LinePanel,
    PairedDifferences,
    PlacedPoint,
    SeedSequence,
)
from hkrun.figures.drawing import (
    draw_differences,
    draw_dots,
    draw_error_panels,
    draw_errors,
    draw_health,
    draw_lines,
    draw_maps,
    draw_ranges,
    draw_sequences,
    draw_sorted,
    encode,
)
from hkrun.figures.inline import InlineFigures, write_letters
from hkrun.figures.names import SYMBOL, typeset
from hkrun.figures.palette import NARROW_PAGE, PAGE, PALETTE, narrow_page
from hkrun.figures.pictures import Order, Picture
