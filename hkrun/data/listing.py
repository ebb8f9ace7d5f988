"""What lies in the folders of a data set: class folders, images, and what is passed over."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hkrun.errors import DataError

SUFFIXES = (".jpeg", ".jpg", ".png")  # in either case
MOST_NAMED = 3  # files of each kind

File = tuple[str, int]  # name and size in bytes


@dataclass
class PassedOver:
    """What a listing passes over, by kind: how many, and the first of them.

    Attributes:
        root: What names are shown below.
    """

    root: Path
    _counts: dict[str, int] = field(default_factory=dict)
    _first: dict[str, list[str]] = field(default_factory=dict)

    def add(self, kind: str, path: Path) -> None:
        """Counts a file or folder."""
        self._counts[kind] = self._counts.get(kind, 0) + 1
        named = self._first.setdefault(kind, [])
        if len(named) < MOST_NAMED:
            named.append(path.relative_to(self.root).as_posix())

    def describe(self) -> tuple[str, ...]:
        """One line that names each kind; none where nothing is passed over."""
        if not self._counts:
            return ()
        kinds = [
            f"{number} {kind} ({name_first(self._first[kind], number)})"
            for kind, number in sorted(self._counts.items())
        ]
        return (f"passed over: {'; '.join(kinds)}",)


def name_first(names: Sequence[str], number: int) -> str:
    """The first names of so many."""
    return ", ".join(names[:MOST_NAMED]) + (", ..." if number > MOST_NAMED else "")


def describe_turned(names: Sequence[str]) -> tuple[str, ...]:
    """A line that names images that are turned; none where there are none."""
    if not names:
        return ()
    return (f"{len(names)} image(s) turned as their orientation tag says: {name_first(names, len(names))}",)


def describe_shared(pairs: Sequence[str]) -> tuple[str, ...]:
    """A line that names test images that are training images too; none where there are none."""
    if not pairs:
        return ()
    return (f"{len(pairs)} test image(s) are training images too: {name_first(pairs, len(pairs))}",)


def list_classes(
    folder: Path, names: Sequence[str], passed: PassedOver
) -> tuple[dict[str, list[File]], list[str]]:
    """The images of each class, sorted, and a line for each class that has none.

    Raises:
        DataError: A class cannot be listed.
    """
    found: dict[str, list[File]] = {}
    problems: list[str] = []
    for name in names:
        folders, found[name] = list_entries(folder / name, passed)
        for nested in folders:
            passed.add("nested folder(s)", folder / name / nested)
        if not found[name]:
            problems.append(f"{folder / name}: no .png or .jpg file")
    return found, problems


def list_entries(folder: Path, passed: PassedOver, *, layout: str = "") -> tuple[list[str], list[File]]:
    """The folders and the images in a folder, both sorted.

    `passed` gets what else there is, and what is hidden; `layout` is what is wanted, for the message.

    Raises:
        DataError: It cannot be listed, or an image is a link to nothing.
    """
    folders: list[str] = []
    images: list[File] = []
    try:
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                path = folder / entry.name
                if entry.name.startswith("."):
                    passed.add("hidden", path)
                elif entry.is_dir():
                    folders.append(entry.name)
                elif entry.name.lower().endswith(SUFFIXES):
                    images.append((entry.name, _size(entry)))
                else:
                    passed.add(path.suffix.lower() or "file(s) without extension", path)
    except OSError as error:
        advice = f"; {layout}" if layout else ""
        raise DataError(f"{folder}: cannot be listed: {error.strerror}{advice}") from error
    return folders, images


def check_classes(root: Path, names: Mapping[str, Sequence[str]], *, layout: str) -> list[str]:
    """A line for each class that one part of a data set lacks, or one that says that there are too few.

    `names` has the class folders of each part, the training images' first; `layout` is what is wanted, for
    the message.
    """
    train, test = names
    problems = [
        f"{root / part / name}: there is no class {name!r} in {root / other}"
        for part, other in ((train, test), (test, train))
        for name in names[part]
        if name not in set(names[other])
    ]
    if not problems and len(names[train]) < 2:
        problems = [f"{root / train}: at least 2 class folders are needed; {layout}"]
    return problems


def _size(entry: "os.DirEntry[str]") -> int:
    try:
        return entry.stat().st_size
    except OSError as error:  # such as a link to nothing
        raise DataError(f"{entry.path}: cannot be read: {error.strerror}") from error
