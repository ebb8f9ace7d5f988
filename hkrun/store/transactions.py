"""Folders with a manifest: files become visible together, and every read is checked against its SHA-256.

The manifest names each file with its SHA-256 and size and is written last, so a folder without one does not
exist for readers. Before the content of a committed name changes, the manifest is cut back to the files that
stay: a reader sees the folder as it was, then without what changes, then as it is, and never a mix. Without
locks, as on S3, commits are made in another way: see `conditional_commits.py`.
"""

from collections.abc import Callable, Collection, Mapping

from hkrun.store.conditional_commits import ConditionalCommit
from hkrun.store.files import ConditionalFiles, Files
from hkrun.store.manifests import (
    MANIFEST,
    DamagedError,
    Manifest,
    NotCommittedError,
    check_folder,
    check_name,
    describe,
    from_json,
    kept_of,
    stored_names,
    sum_of,
    to_json,
)

# Folders of which a driver keeps the others out, and whose files people open by name: there, files keep their
# names even where commits could not tell two writers apart.
IN_PLACE = "sweeps/"


class CommittedFolders:
    """Committed folders in one place."""

    def __init__(self, files: Files, *, place: str) -> None:
        self._files = files
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
        if isinstance(self._files, ConditionalFiles):
            commit = ConditionalCommit(self._files, folder, files, sums, keep=keep)
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
                self._cut_back(folder, kept)
            self._files.put(folder, {**files, MANIFEST: to_json(kept | sums)})
            self._files.remove(folder, stored_names(before) - stored_names(kept | sums))
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
            return from_json(text)
        except ValueError as error:
            expected = "JSON with a SHA-256 and a size per file"
            raise self._damaged(folder, MANIFEST, expected, "something else") from error

    def is_committed(self, folder: str) -> bool:
        """Whether the folder exists for readers."""
        return bool(self.manifest(folder))

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

    def delete(self, folder: str) -> None:
        """Removes a folder with all it holds; the manifest first, so that no reader sees a part of it."""
        self._files.remove(check_folder(folder), [MANIFEST])
        self._files.remove_folder(folder)

    def _damaged(self, folder: str, name: str, expected: str, found: str) -> DamagedError:
        return DamagedError(
            f"{self.place}/{folder}/{name} is damaged: expected {expected}, found {found}; "
            f"remove the folder {self.place}/{folder} and run the same command again"
        )
