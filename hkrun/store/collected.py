"""What the runs of a cell hold, once more in a few common files, so that ten thousand runs are quickly read.

`cells/<cell_id>/collected/` has `records.json`, and `curves-<k>.parquet` for every 100 seeds with the columns
that reports are made from. Beside each run stands the fingerprint that its own folder had before it was read.
The run's own folder stays the truth: a run counts as collected only while a listing shows this fingerprint.
What is damaged, not understood or not there is read from the runs' folders, and collected anew.
"""

import json
import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet as pq

from hkrun.errors import StoreError
from hkrun.records import Record, from_rows, to_values
from hkrun.store.columns import of_floats, to_floats
from hkrun.store.transactions import CommittedFolders

COLLECTED = "collected"
LEAST_RUNS = 8  # fewer are read as quickly from their own folders
SEEDS_PER_FILE = 100  # of 600 epochs and six columns, 3 MB
RECORDS_FILE = "records.json"
_FORMAT = 1  # of curves
_RECORDS_FORMAT = 2
_NOTE = b"hkrun"
# What a file of another form raises where it is read.
_NOT_UNDERSTOOD = (
    *(StoreError, pa.ArrowException, AttributeError, IndexError, KeyError, TypeError, ValueError, OSError),
)

log = logging.getLogger("hkrun")
Fingerprints = Mapping[int, str]


class RunCurves(NamedTuple):
    """The curves of one run, by epoch.

    Attributes:
        figures: By column, shape [epochs], NaN where there is none; only the columns that the run has.
        epochs: How many it has.
    """

    figures: dict[str, NDArray[np.float64]]
    epochs: int


def collected_folder(cell_id: str) -> str:
    """Where those of a cell are kept."""
    return f"cells/{cell_id}/{COLLECTED}"


# --- records ------------------------------------------------------------------------------------------------


def read_records(folders: CommittedFolders, cell_id: str, fingerprints: Fingerprints) -> dict[int, Record]:
    """The collected records by seed, of the runs that still have these fingerprints."""
    if len(fingerprints) < LEAST_RUNS:
        return {}
    try:
        document = json.loads(folders.read(collected_folder(cell_id), RECORDS_FILE))
        if document["format"] != _RECORDS_FORMAT:
            return {}
        common, names = document["common"], document["names"]
        kept = {
            seed: values
            for seed, fingerprint, values in document["runs"]
            if fingerprints.get(seed) == fingerprint
        }
        before: dict[str, Any] = {}
        rows = (_share(dict(zip(names, values, strict=True)), before) for values in kept.values())
        return dict(zip(kept, from_rows(common, rows), strict=True))
    except _NOT_UNDERSTOOD as error:
        log.debug("%s: no collected records: %s", cell_id, error)
        return {}


def _share(values: dict[str, Any], before: dict[str, Any]) -> dict[str, Any]:
    """The values of a record, in place of each text that is that of the record before, the very same one."""
    for name, value in values.items():
        if isinstance(value, str) or name == "versions":
            if before.get(name) == value:
                values[name] = before[name]
            else:
                before[name] = value
    return values


def write_records(
    folders: CommittedFolders, cell_id: str, fingerprints: Fingerprints, records: Sequence[Record]
) -> None:
    """Collects the records of runs that have a fingerprint; where it cannot, all stays as it is.

    What is the same of all of them is written once: that halves the time of reading them.
    """
    known = {record.seed: to_values(record) for record in records if record.seed in fingerprints}
    if len(known) < LEAST_RUNS:
        return
    first = next(iter(known.values()))
    common = {
        name: value
        for name, value in first.items()
        if all(repr(values[name]) == repr(value) for values in known.values())  # 1 and True are equal, too
    }
    names = [name for name in first if name not in common]
    runs = [[seed, fingerprints[seed], [values[name] for name in names]] for seed, values in known.items()]
    document = {"format": _RECORDS_FORMAT, "common": common, "names": names, "runs": runs}
    _write(folders, cell_id, RECORDS_FILE, json.dumps(document).encode())


# --- curves -------------------------------------------------------------------------------------------------


def read_curves(
    folders: CommittedFolders,
    cell_id: str,
    name: str,
    fingerprints: Fingerprints,
    columns: Collection[str],
) -> dict[int, RunCurves]:
    """The curves that a file collects, by seed, of the runs that still have these fingerprints.

    The arrays are views of few large ones.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(folders.read(collected_folder(cell_id), name)))
        note = json.loads((file.schema_arrow.metadata or {})[_NOTE])
        if note["format"] != _FORMAT or not set(columns) <= set(note["columns"]):
            return {}
        there = [each for each in columns if each in file.schema_arrow.names]
        table = file.read(columns=there, use_threads=False)
        figures = {each: to_floats(table[each]) for each in there}
        found: dict[int, RunCurves] = {}
        first = 0
        for seed, fingerprint, epochs, own in note["runs"]:
            if fingerprints.get(seed) == fingerprint:
                found[seed] = RunCurves(
                    {
                        each: figures[each][first : first + epochs]
                        for each in (note["sets"][own] if own is not None else ())
                        if each in figures
                    },
                    epochs,
                )
            first += epochs
        if first != len(table):
            raise ValueError(f"{len(table)} epochs, not {first}")
    except _NOT_UNDERSTOOD as error:
        log.debug("%s: no collected curves: %s", cell_id, error)
        return {}
    return found


def write_curves(
    folders: CommittedFolders,
    cell_id: str,
    name: str,
    fingerprints: Fingerprints,
    runs: Mapping[int, RunCurves],
    columns: Collection[str],
) -> None:
    """Collects the curves of runs that have a fingerprint; where it cannot, all stays as it is."""
    kept = {seed: run for seed, run in sorted(runs.items()) if seed in fingerprints}
    if len(kept) < LEAST_RUNS:
        return
    sets: list[list[str]] = []
    rows = []
    for seed, run in kept.items():
        own = [each for each in columns if each in run.figures]
        if own not in sets:
            sets.append(own)
        rows.append([seed, fingerprints[seed], run.epochs, sets.index(own)])
    there = [each for each in columns if any(each in own for own in sets)]
    table = pa.table(
        {
            each: of_floats(
                np.concatenate([run.figures.get(each, np.full(run.epochs, np.nan)) for run in kept.values()])
            )
            for each in there
        }
    )
    note = {"format": _FORMAT, "columns": list(columns), "sets": sets, "runs": rows}
    sink = pa.BufferOutputStream()
    # Errors are few different numbers; the other figures never repeat, and hardly get smaller.
    pq.write_table(
        table.replace_schema_metadata({_NOTE: json.dumps(note)}),
        sink,
        compression="none",
        use_dictionary=["error_pct"],
        write_statistics=False,
    )
    _write(folders, cell_id, name, sink.getvalue().to_pybytes())


def _write(folders: CommittedFolders, cell_id: str, name: str, content: bytes) -> None:
    try:
        folders.commit(collected_folder(cell_id), {name: content}, keep=None)
    except StoreError as error:  # closed to us, or full: what is there is read as before
        log.debug("%s: not collected: %s", cell_id, error.message)


def group_by_file(seeds: Sequence[int]) -> dict[str, list[int]]:
    """These seeds in order, by the file that collects their curves."""
    listed: dict[str, list[int]] = {}
    for seed in sorted(seeds):
        listed.setdefault(f"curves-{seed // SEEDS_PER_FILE}.parquet", []).append(seed)
    return listed
