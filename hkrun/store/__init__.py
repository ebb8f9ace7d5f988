"""The store: every record of every run, teacher and sweep, on a local path or anywhere pyarrow.fs reaches.

    opening.py   from a path or a URI to the store that is there
    files.py     whole files: atomic and durable writes, on a disk or an object store
    folders.py   folders with a manifest: what is committed, and checked against its SHA-256 when read
    records.py   what is kept of a run and of a teacher
    columns.py   curves as Parquet, and the columns of all runs
    checkpoint_names.py   how the files of checkpoints are named
    holding.py   one driver per sweep
    store.py     hkrun's layout of cells, seeds, teachers and sweeps
    tables.py    teacher tables, which are too large to be read as a whole

No run is ever lost or half there: a folder whose manifest is missing does not exist for readers.
"""

from hkrun.store.checkpoint_names import checkpoint_name, read_epoch
from hkrun.store.manifests import DamagedError, NotCommittedError
from hkrun.store.opening import open_store
from hkrun.store.records import DivergedTeacher, Record, TeacherRecord
from hkrun.store.store import NoStoreError, Store
from hkrun.store.tables import NoSpaceError, Tables

__all__ = [
    "DamagedError",
    "DivergedTeacher",
    "NoSpaceError",
    "NoStoreError",
    "NotCommittedError",
    "Record",
    "Store",
    "Tables",
    "TeacherRecord",
    "checkpoint_name",
    "open_store",
    "read_epoch",
]
