"""Gathers the files of a job: hkrun as it runs here, the user's own, and the versions in requirements.lock.

    hkrun/               this very package, with the search spaces that it knows by name
    search_spaces/       those of the working directory
    mine.toml            a search space given by its path, with the `recipes` beside it
    mynets.py, mypkg/    the modules of own parts, and what they import from the same place

The folder becomes the working directory of the job and of its workers.
"""

import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from hkrun.errors import InputError
from hkrun.user_parts import load_attribute

PACKAGE = Path(__file__).resolve().parents[2]
# Ray's limit for a job's folder, packed.
LARGEST_BYTES = 100 << 20
_LARGEST_NAMED = 3
_NOT_CODE = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
LOCK_FILE = "requirements.lock"
_ENTRY = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(\[[^\]]*\])?==(?P<version>[^\s;\\]+)")
_ROOT = "hkrun (pyproject.toml)"


def ship_hkrun(folder: Path) -> None:
    """Puts this package into a folder, and the search spaces that it knows by name."""
    shutil.copytree(PACKAGE, folder / "hkrun", ignore=_NOT_CODE, dirs_exist_ok=True)
    beside = PACKAGE.parent / "search_spaces"
    if (PACKAGE.parent / "pyproject.toml").is_file() and beside.is_dir():
        shutil.copytree(beside, folder / "hkrun" / "search_spaces", ignore=_NOT_CODE, dirs_exist_ok=True)
    own = Path.cwd() / "search_spaces"
    if own.is_dir():
        _copy_spaces(own, folder / "search_spaces")


def ship_space(name_or_file: str, folder: Path) -> str:
    """Puts a search space given by its path into a folder, with recipes beside it; returns its name there."""
    path = Path(name_or_file)
    if path.suffix != ".toml" and path.name == name_or_file:
        return name_or_file
    here = Path.cwd().resolve()
    place = path.resolve()
    inside = place.relative_to(here) if place.is_relative_to(here) else Path("submitted", path.name)
    target = folder / inside
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(place, target)
    if (place.parent / "recipes").is_dir():
        _copy_spaces(place.parent / "recipes", target.parent / "recipes")
    return str(inside)


def ship_parts(names: Iterable[str], folder: Path) -> list[str]:
    """Puts the modules of own parts into a folder, with the loaded modules beside them; not installed ones.

    Returns the names of the shipped files and folders, sorted.

    Raises:
        InputError: One cannot be imported.
    """
    places = set()
    for name in names:
        part = load_attribute(name)
        for module in (name.partition(":")[0], *getattr(part, "source_modules", ())):
            top = _top_of(module.partition(".")[0])
            if top is not None:
                places.add(top.parent)
    shipped = set()
    for module in list(sys.modules):
        top = _top_of(module) if "." not in module else None
        if top is not None and top.parent in places:
            _copy(top, folder / top.name)
            shipped.add(top.name)
    return sorted(shipped)


def check_size(folder: Path, *, user_files: Sequence[str]) -> int:
    """The bytes in a folder.

    Raises:
        InputError: They are more than a job may take along.
    """
    sizes = {path: path.stat().st_size for path in folder.rglob("*") if path.is_file()}
    total = sum(sizes.values())
    if total > LARGEST_BYTES:
        largest = sorted(sizes, key=sizes.__getitem__, reverse=True)[:_LARGEST_NAMED]
        named = ", ".join(f"{path.relative_to(folder)} ({sizes[path] / 1e6:.0f} MB)" for path in largest)
        raise InputError(
            f"the code to be sent is {total / 1e6:.0f} MB and may be {LARGEST_BYTES / 1e6:.0f} MB: {named}; "
            f"keep data out of {' and '.join(user_files) or 'it'} and name its place with --data"
        )
    return total


def _top_of(module_name: str) -> Path | None:
    """The file of a module or the folder of a package; None where it is installed or built in."""
    module = sys.modules.get(module_name)
    origin = getattr(module, "__file__", None)
    if origin is None or module_name in ("hkrun", "__main__"):
        return None
    path = Path(origin).resolve()
    installed = any(part in ("site-packages", "dist-packages") for part in path.parts)
    standard = path.is_relative_to(Path(shutil.__file__).resolve().parent)
    if installed or standard or path.suffix != ".py":
        return None
    return path.parent if path.name == "__init__.py" else path


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target, ignore=_NOT_CODE, dirs_exist_ok=True)
    else:
        shutil.copyfile(source, target)


def _copy_spaces(source: Path, target: Path) -> None:
    """Copies the TOML files of a folder and of the folders below it."""
    for path in source.rglob("*.toml"):
        place = target / path.relative_to(source)
        place.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, place)


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

    The lock is as uv writes it: a comment at each entry says what needs it. Without Ray, as a job runs in its
    cluster's.
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
