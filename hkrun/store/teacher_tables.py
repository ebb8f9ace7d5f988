"""Where teacher tables lie: in a local store itself, beside a remote one in a cache of this machine.

A table is filled in the folder `<table_id>.partial`, by any number of processes, and gets its own name and
its manifest when it is whole. A remote store takes whole tables, in pieces, for other machines to fetch.
What is read of a table is checked row by row, so the manifest of a local one is only compared for its sizes.
"""

import contextlib
import errno
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hkrun.errors import StoreError
from hkrun.store.files import LocalFiles, explained
from hkrun.store.store import Store
from hkrun.store.transactions import (
    MANIFEST,
    CommittedFolders,
    DamagedError,
    Manifest,
    NotCommittedError,
    Sum,
    check_name,
    to_json,
)

DESCRIPTION = "table.json"
PIECE_BYTES = 2**26
SPARE_BYTES = 2**28  # left on the disk for the records and checkpoints of the runs

log = logging.getLogger("hkrun")


class NoSpaceError(StoreError):
    """A table does not fit on the disk."""


class TeacherTables:
    """The teacher tables of a store, as this machine has them: in `cache`, where the store is elsewhere."""

    def __init__(self, store: Store, *, cache: Path) -> None:
        self._remote = store if store.local_path is None else None
        self._root = store.local_path / "tables" if store.local_path is not None else cache
        self._files = LocalFiles(self._root)
        self._folders = CommittedFolders(self._files, place=str(self._root))

    def open(self, table_id: str, sizes: Mapping[str, int], description: Mapping[str, object]) -> Path:
        """The folder of a table, whole or not, with its files in full size; what is not there yet is zeros.

        Of a table that a remote store has, the content is fetched. `sizes` are the bytes of each of its
        files; `description` is for people.

        Raises:
            NoSpaceError: It does not fit on the disk.
            StoreError: The disk cannot be written, or the store not be reached.
        """
        whole, partial = self._paths(table_id)
        with self._files.exclusive(""):
            if whole.is_dir():
                if self._has_sizes(whole, sizes):
                    return whole
                with explained("repair", whole):  # something cut its files: it is filled up again
                    shutil.rmtree(partial, ignore_errors=True)
                    (whole / MANIFEST).unlink(missing_ok=True)
                    whole.rename(partial)
            self._allocate(partial, sizes)
            if not (partial / DESCRIPTION).exists():
                self._files.put(partial.name, {DESCRIPTION: json.dumps(description, indent=1).encode()})
            if self._remote is None or not self._fetch(table_id, self._remote, partial):
                return partial
            self._name(partial, whole, _sums(partial))
            return whole

    def finish(self, table_id: str) -> None:
        """Gives a table whose rows are all there its name and its manifest, and to a remote store a copy.

        Another process may do the same at the same time, or may have done it.

        Raises:
            StoreError: The disk cannot be written, or the store not be reached.
        """
        whole, partial = self._paths(table_id)
        with self._files.exclusive(""):  # nothing renames the folder while its files are read
            if partial.is_dir() and not whole.exists():
                self._name(partial, whole, _sums(partial))
        if self._remote is not None:
            self._upload(table_id, self._remote, whole)

    def has_space(self, num_bytes: int) -> bool:
        """Whether so much more fits on the disk, beside what is left for records."""
        place = next(path for path in (self._root, *self._root.parents) if path.exists())
        return num_bytes <= shutil.disk_usage(place).free - SPARE_BYTES

    def held_bytes(self, known: Mapping[str, object]) -> int:
        """Bytes on the disk of the largest table, whole or not, of whose description this is a part."""
        held = 0
        for path in self._root.glob(f"*/{DESCRIPTION}"):
            with contextlib.suppress(OSError, ValueError):  # deleted meanwhile, or damaged
                if known.items() <= json.loads(path.read_bytes()).items():
                    held = max(held, sum(file.stat().st_size for file in _content(path.parent)))
        return held

    def _paths(self, table_id: str) -> tuple[Path, Path]:
        """The folders of a table: when it is whole, and while it is filled."""
        return self._root / check_name(table_id), self._root / f"{table_id}.partial"

    def _name(self, partial: Path, whole: Path, sums: Manifest) -> None:
        self._files.put(partial.name, {MANIFEST: to_json(sums)})
        with explained("finish", partial):
            partial.rename(whole)

    def _has_sizes(self, folder: Path, sizes: Mapping[str, int]) -> bool:
        try:
            manifest = self._folders.manifest(folder.name) or {}
        except DamagedError:
            return False
        there = self._files.sizes(folder.name)
        return all(there.get(name) == size and name in manifest for name, size in sizes.items())

    def _allocate(self, folder: Path, sizes: Mapping[str, int]) -> None:
        """Makes files of full size, all of it reserved on the disk; content that is there stays."""
        there = self._files.sizes(folder.name)
        needed = sum(sizes.values()) - sum(there.get(name, 0) for name in sizes)
        free = shutil.disk_usage(self._root).free - SPARE_BYTES
        if needed > max(0, free):
            raise NoSpaceError(
                f"{self._root}: a teacher table of {needed / 1e6:.0f} MB does not fit: "
                f"{max(0, free) / 1e6:.0f} MB are free beside {SPARE_BYTES / 1e6:.0f} MB for records"
            )
        with explained("write", folder):
            folder.mkdir(parents=True, exist_ok=True)
            try:
                for name, size in sizes.items():
                    if there.get(name) != size:
                        _reserve(folder / name, size)
            except OSError as error:
                if error.errno not in (errno.ENOSPC, errno.EDQUOT):
                    raise
                shutil.rmtree(folder)
                raise NoSpaceError(
                    f"{self._root}: a teacher table of {needed / 1e6:.0f} MB does not fit: {error.strerror}"
                ) from error

    def _fetch(self, table_id: str, store: Store, folder: Path) -> bool:
        """Copies a table that a remote store has whole; returns whether it is there now."""
        remote = f"tables/{table_id}"
        names = store.names(remote)
        if DESCRIPTION not in names:
            return False
        try:
            for name in names:
                file, _, number = name.rpartition(".")
                if number.isdecimal():
                    piece = store.read(remote, name)
                    with explained("write", folder / file), (folder / file).open("r+b") as sink:
                        sink.seek(int(number) * PIECE_BYTES)
                        sink.write(piece)
        except (DamagedError, NotCommittedError) as error:
            log.warning("not fetched whole, what is missing is computed: %s", error.message)
            return False
        return True

    def _upload(self, table_id: str, store: Store, folder: Path) -> None:
        """Copies a whole table to a remote store in pieces; the description, last, says that all is there."""
        remote = f"tables/{table_id}"
        there = store.names(remote)
        if DESCRIPTION in there:
            return
        with explained("read", folder):
            for path in _content(folder):
                for number, piece in enumerate(_pieces(path)):
                    name = f"{path.name}.{number:05}"
                    if name not in there:
                        store.commit(remote, {name: piece}, keep=None)
            description = (folder / DESCRIPTION).read_bytes()
        store.commit(remote, {DESCRIPTION: description}, keep=None)


@dataclass(frozen=True, kw_only=True)
class StoredTable:
    """A table in a store, whole or not.

    Attributes:
        teacher_id: The teacher; empty where that cannot be read, as while the table is begun.
        teacher_hash: SHA-256 of its weights.
        num_bytes: Of all its files.
    """

    teacher_id: str
    teacher_hash: str
    num_bytes: int


def find_tables(store: Store) -> dict[str, StoredTable]:
    """The tables of a store by the name of their folder; not those that machines have in a cache."""
    found = {}
    if (files := _files_of(store)) is not None:
        for name in files.folders(""):
            found[name] = _describe(files.get(f"{name}/{DESCRIPTION}"), files.sizes(name))
        return found
    for name in store.folders("tables"):
        description = None
        with contextlib.suppress(NotCommittedError, DamagedError):
            description = store.read(f"tables/{name}", DESCRIPTION)
        found[name] = _describe(description, store.sizes(f"tables/{name}"))
    return found


def remove_table(store: Store, name: str) -> None:
    """Removes a table of a store; its description, which says whose it is, at last."""
    files = _files_of(store)
    if files is None:
        folder = f"tables/{name}"
        store.discard(folder, [path for path in store.sizes(folder) if path not in (DESCRIPTION, MANIFEST)])
        store.delete(folder)
        return
    with files.exclusive(""):
        files.remove(name, [MANIFEST, *(path for path in files.sizes(name) if path != DESCRIPTION)])
        files.remove_folder(name)


def _files_of(store: Store) -> LocalFiles | None:
    """The tables of a local store, which may lie behind a link."""
    return LocalFiles(store.local_path / "tables") if store.local_path is not None else None


def _describe(description: bytes | None, sizes: Mapping[str, int]) -> StoredTable:
    try:
        known = json.loads(description or b"{}")
        teacher, digest = str(known["teacher_id"]), str(known["teacher_hash"])
    except (ValueError, KeyError, TypeError):
        teacher = digest = ""
    return StoredTable(teacher_id=teacher, teacher_hash=digest, num_bytes=sum(sizes.values()))


def _reserve(path: Path, size: int) -> None:
    """Makes a file this long, all of it reserved on the disk; what it has of that stays."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        os.ftruncate(descriptor, size)
        os.posix_fallocate(descriptor, 0, size)
    finally:
        os.close(descriptor)


def _content(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.name not in (DESCRIPTION, MANIFEST))


def _sums(folder: Path) -> Manifest:
    """What a manifest says of the files of a table; makes their content survive a loss of power."""
    sums = {}
    with explained("finish", folder):
        for path in _content(folder):
            with path.open("rb") as file:
                os.fsync(file.fileno())
                sums[path.name] = Sum(hashlib.file_digest(file, "sha256").hexdigest(), path.stat().st_size)
    return sums


def _pieces(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while piece := file.read(PIECE_BYTES):
            yield piece
