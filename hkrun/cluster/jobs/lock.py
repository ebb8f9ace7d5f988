"""Reads requirements.lock: the versions that results are promised for, and those that a job installs."""

import re
from pathlib import Path

from hkrun.cluster.jobs.shipping import PACKAGE

LOCK_FILE = "requirements.lock"
_ENTRY = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(\[[^\]]*\])?==(?P<version>[^\s;\\]+)")
_ROOT = "hkrun (pyproject.toml)"


def find_lock() -> Path | None:
    """The lock file: of the working directory, else of the repository that hkrun runs from."""
    for folder in (Path.cwd(), PACKAGE.parent):
        if (folder / LOCK_FILE).is_file() and (folder / "pyproject.toml").is_file():
            return folder / LOCK_FILE
    return None


def read_versions(lock: str) -> dict[str, str]:
    """The version of each package in a lock file; where one has several, by platform, none of them."""
    versions: dict[str, set[str]] = {}
    for entry in _entries(lock):
        versions.setdefault(_name(entry), set()).add(_ENTRY.match(entry)["version"])  # type: ignore[index]
    return {name: found.pop() for name, found in versions.items() if len(found) == 1}


def reduce_lock(lock: str, *, without: frozenset[str] = frozenset({"ray"})) -> str:
    """The entries of a lock file that hkrun itself needs, with those that they need in turn.

    Args:
        lock: The file's content as uv writes it: a comment at each entry says what needs it.
        without: Left out. A job runs in its cluster's Ray.
    """
    parents = {entry: _parents(entry) for entry in _entries(lock)}
    needed = {_ROOT}
    while True:
        found = {_name(entry) for entry, names in parents.items() if names & needed}
        if found <= needed:
            break
        needed |= found
    return "\n".join(entry for entry in parents if _name(entry) in needed - without) + "\n"


def _entries(lock: str) -> list[str]:
    """The entries, each with its hashes and its comment."""
    entries: list[list[str]] = []
    for line in lock.splitlines():
        if _ENTRY.match(line):
            entries.append([line])
        elif entries and line.startswith(" "):
            entries[-1].append(line)
    return ["\n".join(lines) for lines in entries]


def _name(entry: str) -> str:
    return _ENTRY.match(entry)["name"].lower().replace("_", "-")  # type: ignore[index]


def _parents(entry: str) -> set[str]:
    """The packages that need an entry, by its comment."""
    _, _, comment = entry.partition("# via")
    return {line.strip().removeprefix("#").strip() for line in comment.splitlines()} - {""}
