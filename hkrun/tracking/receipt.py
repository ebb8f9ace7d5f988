"""A receipt in the store for what MLflow holds of a sweep: where nothing is new, MLflow need not be asked.

It is good for a SQLite file only, and only while that is the file that was looked through, by its size and
the time of its last change. What a server holds only the server can say. `sync` asks MLflow in any case.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping

from hkrun.config import cell_id
from hkrun.errors import StoreError
from hkrun.redaction import redact
from hkrun.spaces import Sweep, sweep_document
from hkrun.store import Store
from hkrun.tracking.database import database_path
from hkrun.tracking.runs import FORMAT, digest
from hkrun.tracking.view import VIEW_FORMAT, Links

RECEIPT_FILE = "mirror.json"

Summaries = Mapping[str, Mapping[str, float | None]]


def describe_content(
    sweep: Sweep, store: Store, *, summaries: Summaries, files: Mapping[str, bytes], world_size: int
) -> str:
    """A digest of all that a sweep puts into MLflow; the arguments are those of `sync`."""
    identities = dict.fromkeys(cell_id(named.cell, world_size=world_size) for named in sweep.cells)
    seeds = frozenset(sweep.seeds)
    records = (record for identity in identities for record in store.records(identity))
    return digest(
        [
            [FORMAT, VIEW_FORMAT],
            sweep_document(sweep),
            [digest(dataclasses.asdict(record)) for record in records if record.seed in seeds],
            {
                identity: {name: str(value) for name, value in found.items()}
                for identity, found in summaries.items()
            },
            {name: hashlib.sha256(data).hexdigest() for name, data in files.items()},
        ]
    )


def keep_receipt(sweep: Sweep, store: Store, links: Links, *, uri: str, content: str) -> None:
    """Notes that MLflow holds this content, where that can be trusted later."""
    database = _describe_database(uri)
    if database is not None:
        note = {"content": content, "database": database, "links": dataclasses.asdict(links)}
        folder = store.sweep_folder(sweep.name, sweep.dataset)
        store.commit(folder, {RECEIPT_FILE: json.dumps(note, indent=1).encode()}, keep=None)


def find_receipt(sweep: Sweep, store: Store, *, uri: str, content: str) -> Links | None:
    """The links of a receipt for this content in MLflow at this place; None where there is no good one."""
    try:
        note = json.loads(store.read(store.sweep_folder(sweep.name, sweep.dataset), RECEIPT_FILE))
        links = Links(**note["links"])
        database = _describe_database(uri)
        good = (note["content"], note["database"], links.uri) == (content, database, redact(uri))
    except (StoreError, ValueError, KeyError, TypeError):
        return None
    return links if good and database is not None else None


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
