"""Whole files under one root, on a local disk or wherever pyarrow.fs reaches. A write is all or nothing.

Paths are relative to the root, with forward slashes. Every failure is one StoreError of one line.
"""

import contextlib
import errno
import fcntl
import functools
import logging
import os
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple, Protocol, runtime_checkable

import pyarrow as pa
from pyarrow import fs

from hkrun.errors import StoreError
from hkrun.store.folder_states import FolderState, states_elsewhere, states_on_disk

_REASONS = {
    errno.ENOSPC: "the disk is full; free some space and run again, what is finished is kept",
    errno.EDQUOT: "the disk quota is used up; free some space and run again, what is finished is kept",
    errno.EACCES: "permission denied; choose another store or change the permissions",
    errno.EPERM: "permission denied; choose another store or change the permissions",
    errno.EROFS: "the file system is read-only; choose another store",
    errno.ENOTDIR: "a file stands where a folder should be",
    errno.EEXIST: "a file stands where a folder should be",
    errno.EISDIR: "a folder stands where a file should be",
    errno.ELOOP: "it is a link, and the store keeps to its own folder",
}
# What a file system without locks answers; EBADF where a folder, which is open to read alone, can have none.
NO_LOCKS = frozenset({errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF})
_OBJECT_STORES = ("s3", "gcs", "abfs")

log = logging.getLogger("hkrun")


class Files(Protocol):
    """What a place that holds files must do."""

    parallel_reads: int

    def put(self, folder: str, files: Mapping[str, bytes]) -> None:
        """Writes files by name, in order: each is visible only when whole, and all are durable on return."""

    def get(self, path: str) -> bytes | None:
        """The content of a file, or None where there is none."""

    def sizes(self, folder: str) -> dict[str, int]:
        """The size of every file in a folder and below it, by its path within the folder, in one listing."""

    def written(self, folder: str) -> dict[str, float]:
        """When each file in a folder and below it was written, in seconds by the place's own clock."""

    def states(self, folder: str) -> dict[str, FolderState]:
        """The state of each folder in a folder, by name, in one listing."""

    def folders(self, folder: str) -> list[str]:
        """The names of the folders in a folder, sorted."""

    def remove(self, folder: str, names: Iterable[str]) -> None:
        """Removes files; one that is not there is no error."""

    def remove_folder(self, folder: str) -> None:
        """Removes a folder with all it holds; one that is not there is no error."""

    def exclusive(self, folder: str) -> AbstractContextManager[None]:
        """Keeps other writers out of a folder for a moment, where the place has locks."""


class Changed(Exception):  # noqa: N818 - what another writer did, not an error
    """The condition of a write does not hold: another writer has written the file meanwhile."""


class Seen(NamedTuple):
    """A file as it was read: its content and the version that a condition names; None where there is none."""

    content: bytes | None
    version: str | None


ABSENT = Seen(None, None)


@runtime_checkable
class ConditionalFiles(Files, Protocol):
    """A place without locks that writes on a condition; a StoreError where it knows no conditions."""

    def look(self, path: str) -> Seen:
        """Reads a file with its version."""

    def create(self, path: str, content: bytes) -> bool:
        """Writes a file if there is none.

        Returns:
            Whether the file is now this writer's alone. After an answer that was lost it may be false though
            there was none; the file is then of no use.
        """

    def replace(self, path: str, content: bytes, *, seen: Seen) -> Seen:
        """Writes a file unless another writer has since it was seen, or made it if it was not there.

        Content must differ from what the file ever had and from what others write: where just this content
        stands, it counts as written, as after an answer that was lost.

        Raises:
            Changed: Another writer has.
        """

    def heeds_conditions(self, path: str) -> bool:
        """Whether a write on a condition that does not hold is refused; tried on a file that is there."""


@contextlib.contextmanager
def explained(action: str, place: object) -> Iterator[None]:
    """Turns what the system or pyarrow raises into one StoreError that says what failed, where and why."""
    try:
        yield
    except (OSError, pa.ArrowException) as error:
        number = error.errno if isinstance(error, OSError) else None
        reason = _REASONS.get(number or 0) or " ".join(str(error).split())
        raise StoreError(f"cannot {action} {place}: {reason}") from error


class LocalFiles:
    """Files on a local disk: written under a temporary name, flushed to the disk, then renamed."""

    parallel_reads = 1

    def __init__(self, root: Path) -> None:
        self._root = root

    def _folder(self, folder: str) -> Path:
        """Where a folder is; refused where its name, or a link on the way to it, may lead elsewhere.

        The way begins in the store. To resolve all of it took a third of the time of reading a run.
        """
        path, names = str(self._root), folder.split("/") if folder else []
        if ".." in names:
            raise StoreError(
                f"{folder!r} may lead out of the store at {self._root}: a folder's name has no '..'"
            )
        for name in names:
            path = f"{path}/{name}"
            try:
                is_link = stat.S_ISLNK(os.lstat(path).st_mode)
            except FileNotFoundError:
                break
            if is_link:
                raise OSError(errno.ELOOP, "a link leads elsewhere", path)
        return self._root / folder

    def put(self, folder: str, files: Mapping[str, bytes]) -> None:
        """See `Files`. The folder is created where it is missing."""
        place = self._root / folder
        with explained("write", place):
            _make_folder(self._folder(folder))
            _write(place, files)
            _flush(place)

    def get(self, path: str) -> bytes | None:
        """See `Files`."""
        place = self._root / path
        folder, _, name = path.rpartition("/")
        with explained("read", place), contextlib.suppress(FileNotFoundError):
            descriptor = os.open(self._folder(folder) / name, os.O_RDONLY | os.O_NOFOLLOW)
            with os.fdopen(descriptor, "rb") as file:
                return file.read()
        return None

    def sizes(self, folder: str) -> dict[str, int]:
        """See `Files`."""
        return {path: status.st_size for path, status in self._statuses(folder).items()}

    def written(self, folder: str) -> dict[str, float]:
        """See `Files`."""
        return {path: status.st_mtime for path, status in self._statuses(folder).items()}

    def _statuses(self, folder: str) -> dict[str, os.stat_result]:
        found: dict[str, os.stat_result] = {}
        with explained("list", self._root / folder):
            _collect(str(self._folder(folder)), "", found)
        return found

    def states(self, folder: str) -> dict[str, FolderState]:
        """See `Files`. A fingerprint is of size, inode, and both times of every file."""
        names = self.folders(folder)
        with explained("list", self._root / folder):
            return states_on_disk(str(self._folder(folder)), names)

    def folders(self, folder: str) -> list[str]:
        """See `Files`."""
        place = self._root / folder
        with explained("list", place), contextlib.suppress(FileNotFoundError), os.scandir(place) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())
        return []

    def remove(self, folder: str, names: Iterable[str]) -> None:
        """See `Files`."""
        place = self._root / folder
        with explained("remove files in", place):
            self._folder(folder)
            for name in names:
                (place / name).unlink(missing_ok=True)

    def remove_folder(self, folder: str) -> None:
        """See `Files`. Waits for other writers there."""
        place = self._root / folder
        if place.is_dir() or place.is_symlink():
            with self.exclusive(folder), explained("remove", place):
                if place.is_dir():  # else the writer that was waited for has removed it
                    shutil.rmtree(place)

    @contextlib.contextmanager
    def exclusive(self, folder: str) -> Iterator[None]:
        """See `Files`. Locks the folder itself, and removes what killed writers left.

        Where the file system knows no locks, what looks left behind may be another writer's, and stays.
        """
        place = self._root / folder
        with explained("lock", place):
            _make_folder(self._folder(folder))
            descriptor = os.open(place, os.O_RDONLY | os.O_DIRECTORY)
        try:
            with explained("lock", place):
                if self._lock(descriptor):
                    for leftover in place.glob(".*.tmp"):
                        leftover.unlink(missing_ok=True)
            yield
        finally:
            os.close(descriptor)

    def _lock(self, descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in NO_LOCKS:
                raise
            _warn_of_no_locks(self._root, str(error.strerror))
            return False
        return True


class RemoteFiles:
    """Files wherever pyarrow.fs reaches. An object store shows an object only when its upload is complete."""

    parallel_reads = 16  # a read waits for the network, not for the processor

    def __init__(self, filesystem: fs.FileSystem, root: str, *, place: str) -> None:
        self._filesystem = filesystem
        self._root = root.rstrip("/")
        self._place = place

    def put(self, folder: str, files: Mapping[str, bytes]) -> None:
        """See `Files`."""
        with explained("write", f"{self._place}/{folder}".rstrip("/")):
            if self._filesystem.type_name in _OBJECT_STORES:
                for name, content in files.items():
                    self._upload(f"{self._path(folder)}/{name}", content)
                return
            self._filesystem.create_dir(self._path(folder), recursive=True)
            for name, content in files.items():
                temporary = f"{self._path(folder)}/.{name}.{secrets.token_hex(4)}.tmp"
                self._upload(temporary, content)
                self._filesystem.move(temporary, f"{self._path(folder)}/{name}")

    def _upload(self, path: str, content: bytes) -> None:
        with self._filesystem.open_output_stream(path) as stream:
            stream.write(content)

    def get(self, path: str) -> bytes | None:
        """See `Files`."""
        with explained("read", f"{self._place}/{path}"):
            try:
                stream = self._filesystem.open_input_stream(self._path(path))
            except FileNotFoundError:
                return None
            with stream:
                content: bytes = stream.read()
            return content

    def sizes(self, folder: str) -> dict[str, int]:
        """See `Files`."""
        path = self._path(folder)
        return {
            info.path[len(path) + 1 :]: info.size
            for info in self._list(folder, recursive=True)
            if info.type == fs.FileType.File
        }

    def written(self, folder: str) -> dict[str, float]:
        """See `Files`."""
        path = self._path(folder)
        return {
            info.path[len(path) + 1 :]: info.mtime_ns / 1e9
            for info in self._list(folder, recursive=True)
            if info.type == fs.FileType.File
        }

    def states(self, folder: str) -> dict[str, FolderState]:
        """See `Files`. A fingerprint is of size and time of every file."""
        start = len(self._path(folder)) + 1
        return states_elsewhere(
            (info.path[start:], info.size, info.mtime_ns)
            for info in self._list(folder, recursive=True)
            if info.type == fs.FileType.File
        )

    def folders(self, folder: str) -> list[str]:
        """See `Files`."""
        return sorted(
            info.base_name
            for info in self._list(folder, recursive=False)
            if info.type == fs.FileType.Directory
        )

    def _list(self, folder: str, *, recursive: bool) -> list[fs.FileInfo]:
        selector = fs.FileSelector(self._path(folder), recursive=recursive, allow_not_found=True)
        with self._explained("list", f"{self._place}/{folder}"):
            found: list[fs.FileInfo] = self._filesystem.get_file_info(selector)
        return found

    def remove(self, folder: str, names: Iterable[str]) -> None:
        """See `Files`."""
        for name in names:
            with (
                explained("remove", f"{self._place}/{folder}/{name}"),
                contextlib.suppress(FileNotFoundError),
            ):
                self._filesystem.delete_file(f"{self._path(folder)}/{name}")

    def remove_folder(self, folder: str) -> None:
        """See `Files`."""
        with explained("remove", f"{self._place}/{folder}"), contextlib.suppress(FileNotFoundError):
            self._filesystem.delete_dir(self._path(folder))

    def exclusive(self, folder: str) -> AbstractContextManager[None]:  # noqa: ARG002
        """See `Files`. An object store has no locks."""
        return contextlib.nullcontext()

    def _path(self, path: str) -> str:
        return f"{self._root}/{path}" if path else self._root

    def _explained(self, action: str, place: str) -> AbstractContextManager[None]:
        return explained(action, place)


@functools.cache
def _warn_of_no_locks(root: Path, reason: str) -> None:  # once in a process for each store
    log.warning(
        "%s knows no locks (%s): commits are made without; let no two drivers work on the same cells there",
        root,
        reason,
    )


def _make_folder(place: Path) -> None:
    """Creates a folder and its parents, each durable: its entry in its parent is flushed too."""
    if place.is_dir():
        return
    _make_folder(place.parent)
    place.mkdir(exist_ok=True)
    _flush(place.parent)


def _write(place: Path, files: Mapping[str, bytes]) -> None:
    """Writes files so that each name shows its whole content or none of it; the caller flushes the folder.

    All are written before the first is flushed, which halves the time.
    """
    temporary = {name: place / f".{name}.{secrets.token_hex(4)}.tmp" for name in files}
    try:
        for name, content in files.items():
            temporary[name].write_bytes(content)
        for path in temporary.values():
            _flush(path)
        for name, path in temporary.items():
            path.replace(place / name)
    except BaseException:
        for path in temporary.values():
            path.unlink(missing_ok=True)
        raise


def _flush(path: Path) -> None:
    """Makes a file's content, or a folder's entries, survive a loss of power."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _collect(place: str, prefix: str, found: dict[str, os.stat_result]) -> None:
    """Adds every file below a place; what a writer removes meanwhile is passed over."""
    try:
        entries = list(os.scandir(place))
    except FileNotFoundError:
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            _collect(entry.path, f"{prefix}{entry.name}/", found)
        else:
            with contextlib.suppress(FileNotFoundError):
                found[prefix + entry.name] = entry.stat()
