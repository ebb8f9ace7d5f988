"""What a listing says of folders, and whether any file in them is another one than at the last look."""

import hashlib
import os
import stat
import time
from collections.abc import Iterable
from typing import NamedTuple

# A file that was written no longer ago may change once more within the same tick of its clock.
SETTLED_S = 2.0
_LONG_AGO_S = 3600.0  # more than clocks of two machines differ


class FolderState(NamedTuple):
    """What a listing says of a folder.

    Attributes:
        sizes: Bytes of every file in it and below it, by its path within the folder.
        fingerprint: Digest of these and of all that the place knows of when they were written: any change of
            a file changes it. None where a file was written so lately that its next change could look the
            same, and where one is a link.
    """

    sizes: dict[str, int]
    fingerprint: str | None


def states_on_disk(place: str, names: Iterable[str]) -> dict[str, FolderState]:
    """The states of folders of these names in a folder: by size, inode, and both times of every file."""
    settled_ns = time.time_ns() - round(SETTLED_S * 1e9)
    found: dict[str, FolderState] = {}
    for name in names:
        sizes: dict[str, int] = {}
        lines: list[str] = []
        settled = _describe(f"{place}/{name}", "", sizes, lines, settled_ns)
        found[name] = FolderState(sizes, _digest(lines) if settled else None)
    return found


def _describe(place: str, prefix: str, sizes: dict[str, int], lines: list[str], settled_ns: int) -> bool:
    """Adds every file below a place; returns whether all are settled, and none is a link."""
    settled = True
    try:
        names = sorted(os.listdir(place))  # noqa: PTH208 - of ten thousand folders, in a third of the time
    except FileNotFoundError:  # a writer removed it meanwhile
        return False
    for name in names:
        path = f"{place}/{name}"
        try:
            status = os.lstat(path)
            if stat.S_ISDIR(status.st_mode):
                settled &= _describe(path, f"{prefix}{name}/", sizes, lines, settled_ns)
                continue
            if stat.S_ISLNK(status.st_mode):
                settled, status = False, os.stat(path)  # noqa: PTH116
        except FileNotFoundError:
            settled = False
            continue
        sizes[prefix + name] = status.st_size
        modified_ns, changed_ns = status.st_mtime_ns, status.st_ctime_ns
        settled &= modified_ns < settled_ns and changed_ns < settled_ns
        lines.append(f"{prefix}{name} {status.st_size} {status.st_ino} {modified_ns} {changed_ns}")
    return settled


def states_elsewhere(files: Iterable[tuple[str, int, int]]) -> dict[str, FolderState]:
    """The states of the folders that files are in, given as path, bytes, and time in nanoseconds.

    The times may be of whole seconds and of another clock than ours: what was written shortly before the
    newest of the files is not settled, unless that was long ago.
    """
    listed: dict[str, list[tuple[str, int, int]]] = {}
    newest_ns = 0
    for path, size, written_ns in files:
        newest_ns = max(newest_ns, written_ns)
        name, _, rest = path.partition("/")
        if rest:
            listed.setdefault(name, []).append((rest, size, written_ns))
    long_ago = time.time_ns() - newest_ns > _LONG_AGO_S * 1e9
    settled_ns = newest_ns + 1 if long_ago else newest_ns - round(SETTLED_S * 1e9)
    return {
        name: FolderState(
            {path: size for path, size, _ in inside},
            _digest(f"{path} {size} {written_ns}" for path, size, written_ns in sorted(inside))
            if all(written_ns < settled_ns for _, _, written_ns in inside)
            else None,
        )
        for name, inside in listed.items()
    }


def _digest(lines: Iterable[str]) -> str:
    return hashlib.blake2b("\n".join(lines).encode(), digest_size=8).hexdigest()
