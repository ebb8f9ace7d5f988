"""The store: every record of every run, teacher and sweep, on a local path or anywhere pyarrow.fs reaches.

    opening.py         from a path or a URI to the store that is there
    files.py           whole files: atomic and durable writes, on a disk or an object store
    s3.py              the same on S3
    transactions.py    folders with a manifest: committed as a whole, checked when read; on S3 too
    lock.py            one driver per sweep
    holder.py          who it is and what it does, for readers
    columns.py         curves as Parquet, and the columns of all runs
    folder_states.py   what a listing says of folders, and whether files in them have changed
    collected.py       what a cell's runs hold, once more in a few files that are quickly read
    cell_runs.py       the runs of a cell, from these files or their own
    earlier.py         results of other code, beside those that took their place
    store.py           hkrun's layout of cells, seeds, checkpoints, teachers and sweeps
    memory.py          whole files in memory
    study_folders.py   one study in a few small files, for a repository
    teacher_tables.py  teacher tables, which are too large to be read as a whole

No run is ever lost or half there: a folder whose manifest is missing does not exist for readers.
"""

from hkrun.records import DivergedTeacher, Record, TeacherRecord
from hkrun.store.cell_runs import CellRuns
from hkrun.store.collected import RunCurves
from hkrun.store.columns import RUNS_SCHEMA, tabulate
from hkrun.store.files import LocalFiles
from hkrun.store.lock import PATIENCE_S
from hkrun.store.opening import open_store
from hkrun.store.store import NoStoreError, Store, checkpoint_name, read_epoch
from hkrun.store.study_folders import (
    STUDY_FILE,
    StudyContent,
    is_study_folder,
    restore_study,
    write_study,
)
from hkrun.store.teacher_tables import NoSpaceError, StoredTable, TeacherTables, find_tables, remove_table
from hkrun.store.transactions import DamagedError, NotCommittedError

__all__ = [
    "PATIENCE_S",
    "RUNS_SCHEMA",
    "STUDY_FILE",
    "CellRuns",
    "DamagedError",
    "DivergedTeacher",
    "LocalFiles",
    "NoSpaceError",
    "NoStoreError",
    "NotCommittedError",
    "Record",
    "RunCurves",
    "Store",
    "StoredTable",
    "StudyContent",
    "TeacherRecord",
    "TeacherTables",
    "checkpoint_name",
    "find_tables",
    "is_study_folder",
    "open_store",
    "read_epoch",
    "remove_table",
    "restore_study",
    "tabulate",
    "write_study",
]
