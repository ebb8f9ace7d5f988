"""A receipt in the store for what MLflow holds of a sweep: where nothing is new, MLflow need not be asked.

It is good for a SQLite file only, and only while that is the file that was looked through, by its size and
the time of its last change. What a server holds only the server can say. `sync` asks MLflow in any case, but
does not read a whole file again that it has found sound since its last change.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from hkrun.errors import StoreError
from hkrun.redaction import redact
from hkrun.spaces import Sweep, sweep_document
from hkrun.store import Store
from hkrun.tracking.content import FORMAT, cells_of, digest, run_digest
from hkrun.tracking.database import database_path
from hkrun.tracking.view import VIEW_FORMAT, Links

RECEIPT_FILE = "mirror.json"

Summaries = Mapping[str, Mapping[str, float | None]]


def run_digests(sweep: Sweep, store: Store, *, world_size: int) -> list[str]:
    """Digests of the runs that a sweep has in the store, by cell and seed."""
    seeds = frozenset(sweep.seeds)
    return [
        run_digest(cell, record)
        for cell in cells_of(sweep, world_size=world_size)
        for record in store.records(cell.cell_id)
        if record.seed in seeds
    ]


def describe_content(
    sweep: Sweep, runs: Sequence[str], *, summaries: Summaries, files: Mapping[str, bytes]
) -> str:
    """A digest of all that a sweep puts into MLflow: its `run_digests`, and what `sync` gets besides."""
    return digest(
        [
            [FORMAT, VIEW_FORMAT],
            sweep_document(sweep),
            list(runs),
            {
                identity: {name: str(value) for name, value in found.items()}
                for identity, found in summaries.items()
            },
            {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        ]
    )


def keep_receipt(sweep: Sweep, store: Store, links: Links, *, uri: str, content: str, checked: bool) -> None:
    """Notes that MLflow holds this content, where that can be trusted later.

    `checked`: whether all of its file has been read and found sound.
    """
    database = _describe_database(uri)
    if database is not None:
        note = {"content": content, "database": database, "checked": checked}
        note["links"] = dataclasses.asdict(links)
        folder = store.sweep_folder(sweep.name, sweep.dataset)
        store.commit(folder, {RECEIPT_FILE: json.dumps(note, indent=1).encode()}, keep=None)


def find_receipt(sweep: Sweep, store: Store, *, uri: str, content: str) -> Links | None:
    """The links of a receipt for this content in MLflow at this place; None where there is no good one."""
    note = _read_receipt(sweep, store, uri=uri)
    try:
        return Links(**note["links"]) if note.get("content") == content else None
    except (KeyError, TypeError):
        return None


def is_checked(sweep: Sweep, store: Store, *, uri: str) -> bool:
    """Whether MLflow's file has been read as a whole and found sound since its last change."""
    return _read_receipt(sweep, store, uri=uri).get("checked") is True


def _read_receipt(sweep: Sweep, store: Store, *, uri: str) -> dict[str, Any]:
    """A receipt for the database as it is now; empty where there is none."""
    try:
        note = json.loads(store.read(store.sweep_folder(sweep.name, sweep.dataset), RECEIPT_FILE))
        found = (note["database"], note["links"]["uri"]) == (_describe_database(uri), redact(uri))
    except (StoreError, ValueError, KeyError, TypeError):
        return {}
    return note if found and note["database"] is not None else {}


def _describe_database(uri: str) -> list[int] | None:
    """Size in bytes and last change in nanoseconds of a SQLite file; None where it is none or in use."""
    path = database_path(uri)
    if path is None:
        return None
    try:
        found = path.stat()
    except OSError:
        return None
    in_use = any(path.with_name(f"{path.name}-{part}").exists() for part in ("wal", "journal"))
    return None if in_use else [found.st_size, found.st_mtime_ns]
