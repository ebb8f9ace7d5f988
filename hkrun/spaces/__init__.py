"""Search spaces and recipes: TOML files and overrides in, a `Sweep` of cells out.

A cell is: recipe of its data set <- `[base]` <- the cell <- its axes <- overrides of the command line. Every
mistake in all of them is reported at once, each with its line or argument.
"""

from hkrun.spaces.cell_names import (
    CellColumns,
    FittedColumns,
    find_cell,
    fit_columns,
    name_cells,
    tell_cells,
    write_value,
)
from hkrun.spaces.headers import read_header, shorten_cost, start_from
from hkrun.spaces.loading import load_cell, load_sweep
from hkrun.spaces.naming import is_study_name, natural_name, seeds_name, space_name
from hkrun.spaces.places import find_sweep, is_shipped, sweep_names
from hkrun.spaces.short_names import display_width, short_keys, shorten, shorten_names, wrap_words
from hkrun.spaces.sweep import (
    STUDY_FAMILY,
    NamedCell,
    Recipe,
    Sweep,
    restore_sweep,
    sweep_document,
    with_content,
)
