"""A source of curves from a path."""

from pathlib import Path

from hkrun.curve_files.event_files import holds_events, read_event_files
from hkrun.curve_files.layouts import read_table
from hkrun.curve_files.sources import Columns, Source

_USUAL = Columns()


def read_source(path: Path, columns: Columns = _USUAL) -> Source:
    """Reads the runs of a table, or of TensorBoard's event files.

    Raises:
        InputError: No such file, or it cannot be told where its runs, epochs and values are.
    """
    return read_event_files(path, columns) if holds_events(path) else read_table(path, columns)
