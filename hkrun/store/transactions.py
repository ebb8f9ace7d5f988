"""Folders with a manifest: files become visible together, and every read is checked against its SHA-256.

The manifest names each file with its SHA-256 and size and is written last, so a folder without one does not
exist for readers. Before the content of a committed name changes, the manifest is cut back to the files that
stay: a reader sees the folder as it was, then without what changes, then as it is, and never a mix. Without
locks, as on S3, commits are made in another way: see `ConditionalCommit`.
"""

import hashlib
import json
import re
import secrets
from collections.abc import Callable, Collection, Mapping
from pathlib import PurePosixPath
from typing import NamedTuple

from hkrun.errors import StoreError
from hkrun.store.files import Changed, ConditionalFiles, Files, Seen

MANIFEST = "manifest.json"
LEFTOVER_S = 3600.0  # an upload takes less: a file that no manifest names by then was left behind
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{8}\.tmp")  # how files on a disk are called while they are written
# Folders of which a driver keeps the others out, and whose files people open by name: there, files keep their
# names even where commits could not tell two writers apart.
IN_PLACE = "sweeps/"


class DamagedError(StoreError):
    """A committed file is missing, or its content is not what its manifest says."""


class NotCommittedError(StoreError):
    """No such file is committed, and perhaps none is anywhere in its folder."""


class Sum(NamedTuple):
    """SHA-256 and bytes of a file's content, and the name that it lies under where that is not its own."""

    sha256: str
    size: int
    stored_as: str = ""


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


def sum_of(content: bytes) -> Sum:
    """What a manifest says of a content that lies under its own name."""
    return Sum(hashlib.sha256(content).hexdigest(), len(content))


def describe(known: Sum) -> str:
    """A content in words."""
    return f"SHA-256 {known.sha256[:12]} and {known.size} bytes"


def stored_names(manifest: Manifest) -> set[str]:
    """The names under which the files of a manifest lie."""
    return {known.stored_as or name for name, known in manifest.items()}


def kept_of(before: Manifest, keep: Collection[str] | None, replaced: Collection[str]) -> Manifest:
    """What stays of a manifest: the names to keep, None for all, that get no new content."""
    return {
        name: known
        for name, known in before.items()
        if (keep is None or name in keep) and name not in replaced
    }


def to_json(manifest: Manifest, **notes: str) -> bytes:
    """A manifest as its file; notes tell two manifests apart."""
    listed: Mapping[str, Mapping[str, object]] = {
        name: {key: value for key, value in known._asdict().items() if value or key != "stored_as"}
        for name, known in sorted(manifest.items())
    }
    return json.dumps({"files": listed, **notes}, indent=1).encode()


def from_json(text: bytes) -> Manifest:
    """The inverse of `to_json`.

    Raises:
        ValueError: It is no manifest, or a name in it leads elsewhere.
    """
    try:
        return {
            check_name(name): Sum(
                str(known["sha256"]),
                int(known["size"]),
                check_name(known["stored_as"]) if "stored_as" in known else "",
            )
            for name, known in json.loads(text)["files"].items()
        }
    except (KeyError, TypeError, AttributeError, StoreError) as error:
        raise ValueError(str(error)) from error


class ConditionalCommit:
    """One commit where there are no locks but writes on a condition: the manifest's write decides.

    A writer uploads its files under names of its own, then writes the manifest on the condition that it is as
    it was read. Of two writers one comes first; the other starts over from what the first one left, and
    removes what the old manifest named.
    """

    def __init__(
        self,
        files: ConditionalFiles,
        folder: str,
        content: Mapping[str, bytes],
        sums: Manifest,
        *,
        keep: Collection[str] | None,
    ) -> None:
        self._files = files
        self._folder = folder
        self._content = content
        self._sums = sums
        self._keep = keep
        self._own: Manifest = {}  # what was uploaded, under which names

    def make(self, *, unless: Callable[[], bool]) -> bool:
        """Commits under names that are free; a name that is taken stays as it is.

        Returns whether the files are now there; not if `unless` said so, asked before each try.
        """
        beaten = False
        while True:
            seen = self._look()
            before = _understood(seen)
            # Our manifest may have been written without an answer, and its successor may keep our files.
            unused = stored_names(self._own) - stored_names(before)
            if unless():
                self._remove(unused)
                return False
            kept = kept_of(before, self._keep, self._sums)
            if beaten and {name: known[:2] for name, known in before.items()} == {
                name: known[:2] for name, known in (kept | self._sums).items()
            }:
                self._remove(unused)  # the other writer committed just the same
                return True
            self._upload(stored_names(before))
            try:
                self._write(kept | self._own, seen)
            except Changed:
                beaten = True
                continue
            self._remove(stored_names(before) - stored_names(kept | self._own))
            return True

    def make_in_place(self, *, unless: Callable[[], bool]) -> bool:
        """Commits under the files' own names; what changes is not there meanwhile.

        Two at the same time may leave a folder that counts as damaged, until the later one has noticed and
        written again.
        """
        while True:
            seen = self._look()
            if unless():
                return False
            before = _understood(seen)
            kept = kept_of(before, self._keep, self._sums)
            try:
                if any(before.get(name, known) != known for name, known in self._sums.items()):
                    seen = self._write(kept, seen, writer=secrets.token_hex(4))
                self._files.put(self._folder, self._content)
                self._write(kept | self._sums, seen)
            except Changed:
                continue
            self._remove(stored_names(before) - stored_names(kept | self._sums))
            return True

    def tidy(self) -> None:
        """Removes what killed writers left: old files that the manifest does not name."""
        written = self._files.written(self._folder)
        named = {*stored_names(_understood(self._look())), MANIFEST}
        newest = max(written.values(), default=0.0)
        self._remove(
            {
                name
                for name, when in written.items()
                if "/" not in name and name not in named and newest - when > LEFTOVER_S
            }
        )

    def _look(self) -> Seen:
        return self._files.look(f"{self._folder}/{MANIFEST}")

    def _write(self, manifest: Manifest, seen: Seen, **notes: str) -> Seen:
        return self._files.replace(f"{self._folder}/{MANIFEST}", to_json(manifest, **notes), seen=seen)

    def _upload(self, taken: Collection[str]) -> None:
        for name, content in self._content.items():
            if name in self._own:
                continue
            stored = name
            if name in taken or not self._files.create(f"{self._folder}/{name}", content):
                path = PurePosixPath(name)
                stored = f"{path.stem}.{secrets.token_hex(4)}{path.suffix}"
                self._files.put(self._folder, {stored: content})
            known = self._sums[name]
            self._own[name] = known if stored == name else known._replace(stored_as=stored)

    def _remove(self, names: Collection[str]) -> None:
        self._files.remove(self._folder, sorted(names))


def _understood(seen: Seen) -> Manifest:
    """What a manifest says; nothing where there is none or it is damaged."""
    try:
        return {} if seen.content is None else from_json(seen.content)
    except ValueError:
        return {}


class CommittedFolders:
    """Committed folders in one place."""

    def __init__(self, files: Files, *, place: str) -> None:
        self._files = files
        self._conditional = files if isinstance(files, ConditionalFiles) else None
        self.place = place

    def commit(
        self,
        folder: str,
        files: Mapping[str, bytes],
        *,
        keep: Collection[str] | None = (),
        tidy: bool = False,
        unless: Callable[[], bool] = lambda: False,
    ) -> bool:
        """Makes these files, and those kept of the ones it has, the whole committed content of a folder.

        Args:
            folder: Path within the store; created where it is missing. Folders within it are left alone.
            files: Content by name.
            keep: Names already committed that stay as they are, None for all; the others' files are removed.
            tidy: Whether to remove what killed writers left; only for folders in which no other process has
                files.
            unless: Asked once no other writer can be there: whether to leave the folder as it is.

        Returns:
            Whether the files are now there.

        Raises:
            StoreError: The place is full, unreachable or closed to us. What was committed is then as it was
                before, or, where its content was to change, not there.
        """
        check_folder(folder)
        if MANIFEST in files:
            raise ValueError(f"{MANIFEST} is the store's own name")
        sums = {check_name(name): sum_of(content) for name, content in files.items()}
        if self._conditional is not None:
            commit = ConditionalCommit(self._conditional, folder, files, sums, keep=keep)
            make = commit.make_in_place if folder.startswith(IN_PLACE) else commit.make
            made = make(unless=unless)
            if tidy:
                commit.tidy()
            return made
        with self._files.exclusive(folder):
            if unless():
                return False
            try:
                before = self.manifest(folder) or {}
            except DamagedError:
                before = {}
            if tidy:
                there = {name for name in self._files.sizes(folder) if "/" not in name}
                self._files.remove(folder, there - {*stored_names(before), MANIFEST})
            kept = kept_of(before, keep, sums)
            if any(before.get(name, known) != known for name, known in sums.items()):
                if kept:
                    self._files.put(folder, {MANIFEST: to_json(kept)})
                else:
                    self._files.remove(folder, [MANIFEST])
            self._files.put(folder, {**files, MANIFEST: to_json(kept | sums)})
            self._files.remove(folder, stored_names(before) - stored_names(kept | sums))
        return True

    def manifest(self, folder: str) -> Manifest | None:
        """What is committed in a folder, by name; None where nothing is.

        Raises:
            DamagedError: The manifest cannot be understood.
        """
        text = self._files.get(f"{check_folder(folder)}/{MANIFEST}")
        if text is None:
            return None
        try:
            return from_json(text)
        except ValueError as error:
            expected = "JSON with a SHA-256 and a size per file"
            raise self._damaged(folder, MANIFEST, expected, "something else") from error

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

    def read_unchecked(self, folder: str, name: str) -> bytes | None:
        """The content of a committed file, damaged or not; None where there is none."""
        known = (self.manifest(folder) or {}).get(name)
        return None if known is None else self._files.get(f"{folder}/{known.stored_as or name}")

    def _read(self, folder: str, name: str, manifest: Manifest | None) -> bytes:
        while manifest is not None and name in manifest:
            known = manifest[name]
            content = self._files.get(f"{folder}/{known.stored_as or name}")
            if content is not None and sum_of(content)[:2] == known[:2]:
                return content
            latest = self.manifest(folder)
            if latest == manifest:
                found = "no file" if content is None else describe(sum_of(content))
                raise self._damaged(folder, name, describe(known), found)
            manifest = latest  # a writer was here between the two reads: look again
        raise NotCommittedError(f"{self.place}/{folder}: no {name} is committed there")

    def sizes(self, folder: str) -> dict[str, int]:
        """Bytes of every file in a folder and below it, committed or not, by its path within the folder."""
        return self._files.sizes(check_folder(folder))

    def folders(self, folder: str) -> list[str]:
        """The names of the folders in a folder, sorted."""
        return self._files.folders(check_folder(folder))

    def leftovers(self, folder: str) -> list[str]:
        """What killed writers left in a folder and below it, by its path there.

        On a disk such files have names of their own; where writes have conditions, no manifest names them.
        Only those that are an hour older than the newest file there: others may still be written.
        """
        written = self._files.written(check_folder(folder))
        newest = max(written.values(), default=0.0)
        old = [PurePosixPath(path) for path, when in written.items() if newest - when > LEFTOVER_S]
        if self._conditional is None:
            return sorted(str(path) for path in old if _TEMPORARY.fullmatch(path.name))
        named = {parent: self._named(f"{folder}/{parent}") for parent in {path.parent for path in old}}
        return sorted(str(path) for path in old if path.name not in named[path.parent])

    def _named(self, folder: str) -> set[str]:
        """The files of a folder that are no leftovers; all, where its manifest is damaged."""
        try:
            return {*stored_names(self.manifest(folder) or {}), MANIFEST}
        except DamagedError:
            return {path for path in self.sizes(folder) if "/" not in path}

    def discard(self, folder: str, paths: Collection[str]) -> None:
        """Removes files of a folder, such as leftovers, whatever its manifest says of them."""
        self._files.remove(check_folder(folder), paths)

    def delete(self, folder: str) -> None:
        """Removes a folder with all it holds; the manifest first, so that no reader sees a part of it."""
        self._files.remove(check_folder(folder), [MANIFEST])
        self._files.remove_folder(folder)

    def _damaged(self, folder: str, name: str, expected: str, found: str) -> DamagedError:
        return DamagedError(
            f"{self.place}/{folder}/{name} is damaged: expected {expected}, found {found}; "
            f"remove the folder {self.place}/{folder} and run the same command again"
        )
