"""One study in a few small files, to be kept in a repository; read again, they are a store.

    study.json       its plan, configurations, teachers and executions, and the SHA-256 of the files below
    runs.parquet     one row per run: its record
    curves.parquet   one row per run and epoch

The same study gives the same bytes, and no figure is rounded. Weights are left out.
"""

import dataclasses
import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from pyarrow import parquet as pq

from hkrun.errors import StoreError
from hkrun.records import DivergedTeacher, Record, TeacherRecord, from_json, teacher_from_json, to_json
from hkrun.store.columns import RUNS_SCHEMA, from_parquet
from hkrun.store.files import LocalFiles
from hkrun.store.memory import MemoryFiles
from hkrun.store.store import RECORD_FILE, Store

STUDY_FORMAT = 1
STUDY_FILE, RUNS_TABLE, CURVES_TABLE = "study.json", "runs.parquet", "curves.parquet"

_RUNS = pa.schema(
    [
        ("cell", pa.string()),
        *map(RUNS_SCHEMA.field, ("cell_id", "seed", "status", "epochs", "device", "threads", "started_at")),
        ("processor", pa.string()),
        *map(RUNS_SCHEMA.field, ("error_last_pct", "error_best_pct", "error_top5_last_pct")),
        *map(RUNS_SCHEMA.field, ("teacher_id", "teacher_hash", "diverged_epoch", "traceback")),
        ("alarms", pa.list_(pa.string())),
        RUNS_SCHEMA.field("world_size"),
        ("world_sizes", pa.map_(pa.string(), pa.int64())),
        ("pack", pa.list_(pa.int64())),
        ("versions", pa.map_(pa.string(), pa.string())),
        RUNS_SCHEMA.field("resumed"),
        ("timings", pa.map_(pa.string(), pa.float64())),
    ]
)
_LABELS = pa.schema([_RUNS.field(name) for name in ("cell", "cell_id", "seed")])
_MAPS = [field.name for field in _RUNS if pa.types.is_map(field.type)]
# What a file that is not one of ours raises where it is read.
_NOT_UNDERSTOOD = (
    *(pa.ArrowException, StoreError, OSError, RecursionError),
    *(AttributeError, KeyError, TypeError, ValueError),
)


def is_study_folder(folder: Path) -> bool:
    """Whether a folder holds a published study; one that is closed to us does not."""
    try:
        return (folder / STUDY_FILE).is_file()
    except OSError:
        return False


# --- writing ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class StudyContent:
    """All that a published study is made of.

    Attributes:
        folder: The sweep's folder in a store.
        documents: The JSON documents of that folder, by file name.
        names: What the study calls its cells, by cell_id and in its order.
        cells: The canonical configurations by cell_id: those of the study first, then those of runs that it
            only refers to.
        records: The runs of all these cells.
        curves: One row per epoch each, by cell_id and seed.
        teachers: By teacher_id.
    """

    folder: str
    documents: Mapping[str, Any]
    names: Mapping[str, str]
    cells: Mapping[str, Mapping[str, Any]]
    records: Sequence[Record]
    curves: Mapping[tuple[str, int], pa.Table]
    teachers: Mapping[str, TeacherRecord | DivergedTeacher]


def write_study(study: StudyContent) -> dict[str, bytes]:
    """The files of a study by name; `restore_study` is the inverse."""
    tables = {RUNS_TABLE: _write_runs(study), CURVES_TABLE: _write_curves(study)}
    document = {
        "format": STUDY_FORMAT,
        "files": {name: hashlib.sha256(content).hexdigest() for name, content in tables.items()},
        "folder": study.folder,
        "documents": study.documents,
        "cells": study.cells,
        "teachers": {
            name: dict(sorted(dataclasses.asdict(record).items())) for name, record in study.teachers.items()
        },
    }
    text = json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False)
    return {**tables, STUDY_FILE: f"{text}\n".encode()}


def _write_runs(study: StudyContent) -> bytes:
    rows = [
        {**row, "cell": study.names.get(record.cell_id), **{name: list(row[name].items()) for name in _MAPS}}
        for record in study.records
        for row in [dataclasses.asdict(record)]
    ]
    return _encode(pa.Table.from_pylist(rows, schema=_RUNS), dictionary=_RUNS.names)


def _write_curves(study: StudyContent) -> bytes:
    tables = [_LABELS.empty_table()]
    for (cell_id, seed), curves in study.curves.items():
        labels = zip(_LABELS, (study.names.get(cell_id), cell_id, seed), strict=True)
        columns = {
            field.name: pa.repeat(pa.scalar(value, field.type), len(curves)) for field, value in labels
        }
        tables.append(pa.table(columns | {name: curves[name] for name in curves.column_names}))
    # These have few different values; the other figures never repeat.
    dictionary = [*_LABELS.names, "epoch", "error_pct"]
    return _encode(pa.concat_tables(tables, promote_options="default"), dictionary=dictionary)


def _encode(table: pa.Table, *, dictionary: Sequence[str]) -> bytes:
    """A table as Parquet, without statistics, which know nothing of NaN.

    Columns without a dictionary are floats, stored byte by byte: a fifth smaller.
    """
    sink = io.BytesIO()
    pq.write_table(
        table.combine_chunks(),
        sink,
        compression="zstd",
        use_dictionary=[name for name in table.column_names if name in dictionary],
        use_byte_stream_split=[name for name in table.column_names if name not in dictionary],
        write_statistics=False,
    )
    return sink.getvalue()


# --- reading ------------------------------------------------------------------------------------------------


def read_study(folder: Path) -> Store:
    """The store that a folder's files hold; it can only be read.

    Raises:
        StoreError: A file is missing or damaged, is not the one that study.json names, or is of a later
            format.
    """
    files = LocalFiles(folder.absolute())
    return restore_study(
        {
            name: content
            for name in (STUDY_FILE, RUNS_TABLE, CURVES_TABLE)
            if (content := files.get(name)) is not None
        },
        place=str(folder),
    )


def restore_study(files: Mapping[str, bytes], *, place: str) -> Store:
    """The inverse of `write_study`, see `read_study`."""
    memory = MemoryFiles()
    store = Store(memory, uri=place, place=place, local_path=None)
    store.check_format(create=True)
    name = STUDY_FILE
    try:
        document = json.loads(files[name])
        if document["format"] != STUDY_FORMAT:
            raise ValueError(f"of format {document['format']}, and this hkrun knows {STUDY_FORMAT}")
        for name in (RUNS_TABLE, CURVES_TABLE):
            _check_sum(files[name], document["files"][name])
        name = STUDY_FILE
        for cell_id, form in document["cells"].items():
            text = json.dumps(form, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
            store.put_cell(cell_id, text)
        for teacher_id, fields in document["teachers"].items():
            teacher = to_json(teacher_from_json(json.dumps(fields).encode()))
            store.commit(store.teacher_folder(teacher_id), {RECORD_FILE: teacher})
        documents = {
            kept: json.dumps(content, indent=1, ensure_ascii=False).encode()
            for kept, content in document["documents"].items()
        }
        store.commit(str(document["folder"]), documents)
        name = RUNS_TABLE
        records = list(_read_runs(files[name]))
        name = CURVES_TABLE
        curves = _read_curves(files[name])
        for record in records:
            store.put_run(record, curves=curves.pop((record.cell_id, record.seed), None), student=None)
        if curves:
            raise ValueError(
                "it has curves of runs that runs.parquet does not have: {}/{}".format(*min(curves))
            )
    except _NOT_UNDERSTOOD as error:
        raise StoreError(
            f"{place}/{name} cannot be used: {_reason(error)}; take the folder back from where it was "
            "published, or publish the study again"
        ) from error
    memory.close(
        f"{place} is a published study, which can only be read; `hkrun report {place}` writes its report "
        "again"
    )
    return store


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"there is no {error.args[0]}"
    return " ".join(str(error).split()) or type(error).__name__


def _check_sum(content: bytes, expected: str) -> None:
    found = hashlib.sha256(content).hexdigest()
    if found != expected:
        raise ValueError(f"{STUDY_FILE} names one of SHA-256 {expected[:12]}, and this is {found[:12]}")


def _read_runs(content: bytes) -> Iterator[Record]:
    table = from_parquet(content)
    seen: set[tuple[str, int]] = set()
    for row in table.select(_RUNS.names).cast(_RUNS).to_pylist():
        del row["cell"]
        row |= {name: dict(row[name]) for name in _MAPS}
        record = from_json(Record, json.dumps(row, allow_nan=False).encode())
        if (record.cell_id, record.seed) in seen:
            raise ValueError(f"it has the run {record.cell_id}/{record.seed} twice")
        seen.add((record.cell_id, record.seed))
        yield record


def _read_curves(content: bytes) -> dict[tuple[str, int], pa.Table]:
    """The curves by cell and seed, each with the columns in which it has a figure."""
    table = from_parquet(content)
    if not len(table):
        return {}
    ids = table["cell_id"].to_numpy(zero_copy_only=False)
    seeds = table["seed"].to_numpy(zero_copy_only=False)
    starts = [0, *(np.flatnonzero((ids[1:] != ids[:-1]) | (seeds[1:] != seeds[:-1])) + 1).tolist()]
    figures = table.drop_columns(_LABELS.names)
    found: dict[tuple[str, int], pa.Table] = {}
    for first, end in zip(starts, [*starts[1:], len(table)], strict=True):
        run = (str(ids[first]), int(seeds[first]))
        if run in found:
            raise ValueError(f"the epochs of the run {run[0]}/{run[1]} do not stand together")
        curves = figures.slice(first, end - first)
        empty = [name for name in curves.column_names if curves[name].null_count == len(curves)]
        found[run] = curves.drop_columns(empty)
    return found
