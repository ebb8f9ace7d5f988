"""Curves as Parquet, with the types that every run shares, and the columns of the table of all runs."""

from collections.abc import Collection, Iterable

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet as pq

from hkrun.records import Record

RUNS_SCHEMA = pa.schema(
    [
        ("cell_id", pa.string()),
        ("seed", pa.int64()),
        ("status", pa.string()),
        ("epochs", pa.int64()),
        ("error_last_pct", pa.float64()),
        ("error_best_pct", pa.float64()),
        ("error_top5_last_pct", pa.float64()),
        ("teacher_id", pa.string()),
        ("teacher_hash", pa.string()),
        ("diverged_epoch", pa.int64()),
        ("traceback", pa.string()),
        ("device", pa.string()),
        ("threads", pa.int64()),
        ("world_size", pa.int64()),
        ("started_at", pa.float64()),
        ("resumed", pa.int64()),
        ("seconds", pa.float64()),
    ]
)


def tabulate(records: Iterable[Record]) -> pa.Table:
    """One row per record; `seconds` is the total of its timings."""
    rows = [
        {name: getattr(record, name) for name in RUNS_SCHEMA.names if name != "seconds"}
        | {"seconds": record.timings.get("total")}
        for record in records
    ]
    return pa.Table.from_pylist(rows, schema=RUNS_SCHEMA)


def to_parquet(curves: pa.Table) -> bytes:
    """Curves as Parquet with the types that every run shares.

    Raises:
        ValueError: The table has no column `epoch`.
    """
    if "epoch" not in curves.column_names:
        raise ValueError("curves need a column 'epoch'")
    schema = pa.schema(
        [(name, pa.int32() if name == "epoch" else pa.float64()) for name in curves.column_names]
    )
    sink = pa.BufferOutputStream()
    # Statistics know nothing of NaN: readers that filter by them would pass over the epochs that diverged.
    pq.write_table(
        curves.cast(schema), sink, compression="snappy", use_dictionary=False, write_statistics=False
    )
    content: bytes = sink.getvalue().to_pybytes()
    return content


def to_floats(column: pa.ChunkedArray) -> NDArray[np.float64]:
    """A column of float64 as an array, NaN where it is null.

    Without a null this is not Arrow's own way, which loads pandas where that is installed: a quarter of a
    second and 45 MB.
    """
    plain = column.null_count == 0 and column.type == pa.float64()
    values = np.from_dlpack(column.combine_chunks()) if plain else column.to_numpy(zero_copy_only=False)
    return values.astype(np.float64, copy=False)


def of_floats(values: NDArray[np.float64]) -> pa.Array:
    """The inverse of `to_floats`, likewise."""
    return pa.Array.from_buffers(
        pa.float64(), len(values), [None, pa.py_buffer(np.ascontiguousarray(values))]
    )


def from_parquet(content: bytes, columns: Collection[str] | None = None) -> pa.Table:
    """The table of a Parquet file, or those of these columns that there are."""
    file = pq.ParquetFile(pa.BufferReader(content))
    chosen = None if columns is None else [name for name in file.schema_arrow.names if name in columns]
    # Curves are small: starting threads, or a decompressor such as zstd's, takes longer than reading them.
    return file.read(columns=chosen, use_threads=False)
