"""Error curves from a CSV or Parquet file.

rows.py       the rows of the file, as data frames and spreadsheets write them
matrices.py   a complete matrix per cell, in percent, or every reason why not
numbering.py  lines, seeds and epochs in words
"""

from hkrun.curve_files.matrices import Curves, read_curves
