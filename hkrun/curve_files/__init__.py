"""Error curves from anywhere: files, W&B exports, TensorBoard's event files, and what else gives a `Source`.

reading.py      a source from a path
sources.py      runs as a source holds them, and what the options say of its columns
rows.py         the rows of CSV, Parquet and JSON lines, as data frames and spreadsheets write them
layouts.py      the runs of such a table: long, wide, or as W&B exports them
event_files.py  the runs of TensorBoard's event files
run_names.py    which cell and seed the name of a run stands for
quantities.py   error or accuracy, fraction or percent
matrices.py     a complete matrix per cell, in percent, or every reason why not
comparing.py    S, S2 and the spread of the last errors, of each cell and of any two
numbering.py    lines, seeds, epochs and names in words
"""

from hkrun.curve_files.comparing import (
    CellAnalysis,
    CellPair,
    Ratio,
    analyse_cells,
    compare_cells,
    doubt_verdicts,
)
from hkrun.curve_files.matrices import Curves, CurveSet, ReadAs, assemble
from hkrun.curve_files.quantities import Kind, Told, Unit
from hkrun.curve_files.reading import read_source
from hkrun.curve_files.run_names import NamedRun, find_twice, read_run_names
from hkrun.curve_files.sources import Columns, Run, Source
