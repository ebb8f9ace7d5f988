"""Folders with a manifest: files become visible together, and every read is checked against its SHA-256.

The manifest names each file with its SHA-256 and size and is written last, so a folder without one does not
exist for readers. Before the content of a committed name changes, the manifest is cut back to the files that
stay: a reader sees the folder as it was, then without what changes, then as it is, and never a mix.
"""

import hashlib
import json
from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

from hkrun.errors import StoreError
from hkrun.store.files import Files

MANIFEST = "manifest.json"


class DamagedError(StoreError):
    """A committed file is missing, or its content is not what its manifest says."""


class NotCommittedError(StoreError):
    """No such file is committed, and perhaps none is anywhere in its folder."""


class Sum(NamedTuple):
    """What a manifest knows of one file."""

    sha256: str
    size: int


Manifest = dict[str, Sum]


def check_name(name: str) -> str:
    """Returns a name that stands for one entry of one folder.

    Raises:
        StoreError: It could lead out of its folder, or hide in it.
    """
    if not name or name.startswith(".") or "/" in name or "\\" in name or not name.isprintable():
        raise StoreError(
            f"{name!r} is no name for the store: it is empty, starts with '.', or holds a separator"
        )
    return name


def check_folder(folder: str) -> str:
    """Returns a path of a folder within the store: names joined by '/'.

    Raises:
        StoreError: A part of it is no name.
    """
    for part in folder.split("/"):
        check_name(part)
    return folder


class Folders:
    """Committed folders in one place.

    Args:
        files: Where the files are.
        place: How messages name the place.
    """

    def __init__(self, files: Files, *, place: str) -> None:
        self._files = files
        self.place = place

    def commit(
        self,
        folder: str,
        files: Mapping[str, bytes],
        *,
        keep: Collection[str] = (),
        tidy: bool = False,
        unless: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Makes these files, and those kept of the ones it has, the whole committed content of a folder.

        Args:
            folder: Path within the store; created where it is missing. Folders within it are left alone.
            files: Content by name.
            keep: Names already committed that stay as they are; the others' files are removed.
            tidy: Whether to remove first what is there uncommitted, left by writers that were killed.
                Only for folders in which nobody else has files.
            unless: Asked once no other writer can be there: whether to leave the folder as it is.

        Returns:
            Whether the files are now there.

        Raises:
            StoreError: The place is full, unreachable or closed to us. What was committed is then as it
                was before, or, where its content was to change, not there.
        """
        check_folder(folder)
        if MANIFEST in files:
            raise ValueError(f"{MANIFEST} is the store's own name")
        sums = {check_name(name): _sum(content) for name, content in files.items()}
        with self._files.exclusive(folder):
            if unless():
                return False
            try:
                before = self.manifest(folder) or {}
            except DamagedError:
                before = {}
            if tidy:
                there = {name for name in self._files.sizes(folder) if "/" not in name}
                self._files.remove(folder, there - {*before, MANIFEST})
            kept = {name: before[name] for name in keep if name in before and name not in sums}
            if any(before.get(name, known) != known for name, known in sums.items()):
                self._cut_back(folder, kept)
            self._files.put(folder, {**files, MANIFEST: to_json(kept | sums)})
            self._files.remove(folder, before.keys() - kept.keys() - sums.keys())
        return True

    def _cut_back(self, folder: str, kept: Manifest) -> None:
        if kept:
            self._files.put(folder, {MANIFEST: to_json(kept)})
        else:
            self._files.remove(folder, [MANIFEST])

    def manifest(self, folder: str) -> Manifest | None:
        """What is committed in a folder, by name; None where nothing is.

        Raises:
            DamagedError: The manifest cannot be understood.
        """
        text = self._files.get(f"{check_folder(folder)}/{MANIFEST}")
        if text is None:
            return None
        try:
            listed = json.loads(text)["files"]
            return {
                check_name(name): Sum(str(known["sha256"]), int(known["size"]))
                for name, known in listed.items()
            }
        except (ValueError, KeyError, TypeError, AttributeError, StoreError) as error:
            raise self._damaged(
                folder, MANIFEST, "JSON with a SHA-256 and a size per file", "something else"
            ) from error

    def is_committed(self, folder: str) -> bool:
        """Whether the folder exists for readers."""
        return self.manifest(folder) is not None

    def names(self, folder: str) -> list[str]:
        """The names committed in a folder, sorted; none where the folder does not exist."""
        return sorted(self.manifest(folder) or {})

    def read(self, folder: str, name: str) -> bytes:
        """The content of a committed file, checked against its manifest.

        Raises:
            DamagedError: It is missing or not what was written.
            NotCommittedError: No such file is committed.
            StoreError: The place cannot be read.
        """
        return self._read(folder, name, self.manifest(folder))

    def _read(self, folder: str, name: str, manifest: Manifest | None) -> bytes:
        """`read`, where the folder's manifest was looked at a moment ago."""
        while manifest is not None and name in manifest:
            content = self._files.get(f"{folder}/{name}")
            if content is not None and _sum(content) == manifest[name]:
                return content
            latest = self.manifest(folder)
            if latest == manifest:
                found = "no file" if content is None else _describe(_sum(content))
                raise self._damaged(folder, name, _describe(manifest[name]), found)
            manifest = latest  # a writer was here between the two reads: look again
        raise NotCommittedError(f"{self.place}/{folder}: no {name} is committed there")

    def delete(self, folder: str) -> None:
        """Removes a folder with all it holds; the manifest first, so that no reader sees a part of it."""
        self._files.remove(check_folder(folder), [MANIFEST])
        self._files.remove_folder(folder)

    def _damaged(self, folder: str, name: str, expected: str, found: str) -> DamagedError:
        return DamagedError(
            f"{self.place}/{folder}/{name} is damaged: expected {expected}, found {found}; "
            f"remove the folder {self.place}/{folder} and run the same command again"
        )


def to_json(manifest: Manifest) -> bytes:
    """A manifest as its file."""
    listed = {name: known._asdict() for name, known in sorted(manifest.items())}
    return json.dumps({"files": listed}, indent=1).encode()


def _sum(content: bytes) -> Sum:
    return Sum(hashlib.sha256(content).hexdigest(), len(content))


def _describe(known: Sum) -> str:
    return f"SHA-256 {known.sha256[:12]} and {known.size} bytes"
