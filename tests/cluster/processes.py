"""The processes of a cluster under test, whoever their parents are by now."""

from pathlib import Path


def find_processes(mark: str, folder: Path) -> list[Path]:
    """The folders in /proc of the processes that have a mark in their environment or write into a folder.

    Ray's agents write their title over the beginning of their environment, with the mark if it stands there.
    """
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            is_marked = mark.encode() in (process / "environ").read_bytes()
            if is_marked or (process / "fd" / "1").readlink().is_relative_to(folder):
                found.append(process)
        except OSError:
            continue  # it has ended
    return found
