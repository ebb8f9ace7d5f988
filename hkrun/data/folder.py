"""`folder`: any directory of class folders.

    DIR/train/<class>/*.png|jpg|jpeg        the classes of both parts must be the same
    DIR/test/<class>/*.png|jpg|jpeg

All images have one size and are all grey or all colour. Labels follow the sorted names of the classes.
Other files, nested folders, and names that begin with a dot, are passed over; the data set's notes say so.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from hkrun.data.dataset import Dataset, Split, find_shared_images
from hkrun.data.decoding import decode, is_turned
from hkrun.data.image_files import ImageError
from hkrun.data.listing import (
    PassedOver,
    check_classes,
    describe_shared,
    describe_turned,
    list_classes,
    list_entries,
)
from hkrun.errors import DataError

PARTS = ("train", "test")
MOST_TOLD = 20  # images that cannot be used, when a sweep begins
_LAYOUT = "wanted are train/<class>/ and test/<class>/ with .png or .jpg files in it"


def load_folder(*, data_dir: Path | None) -> Dataset:
    """Loads the images of a directory.

    Raises:
        DataError: The layout is not as above, or images cannot be used; the message names such files.
    """
    dataset, problems, _ = read_folder(data_dir=data_dir)
    if dataset is not None:
        return dataset
    if len(problems) > MOST_TOLD:
        rest = len(problems) - MOST_TOLD
        problems = [*problems[:MOST_TOLD], f"and {rest} more: `hkrun data verify folder` names all"]
    raise DataError("\n".join(problems))


def read_folder(*, data_dir: Path | None) -> tuple[Dataset | None, list[str], tuple[str, ...]]:
    """Reads the images of a directory.

    Returns:
        The data set; where it is None, what keeps the images from being one, a line each; and the notes.

    Raises:
        DataError: A folder cannot be listed.
    """
    tree = _list_images(data_dir)
    images: dict[Path, Tensor] = {}
    problems = list(tree.problems)
    turned: list[str] = []
    for path in tree.paths():
        try:
            content = _read(path)
            images[path] = decode(content)
            if is_turned(content):
                turned.append(path.relative_to(tree.root).as_posix())
        except ImageError as error:
            problems.append(f"{path}: {error}")
        except DataError as error:
            problems.append(error.message)
    notes = (*tree.passed.describe(), *describe_turned(turned))
    problems += _find_odd_shapes(images)
    if problems:
        return None, problems, notes
    splits = {
        part: Split(
            torch.stack([images[path] for found in by_class for path in found]),
            torch.tensor([label for label, found in enumerate(by_class) for _ in found]),
        )
        for part, by_class in tree.parts.items()
    }
    names = {
        part: [path.relative_to(tree.root).as_posix() for found in by_class for path in found]
        for part, by_class in tree.parts.items()
    }
    shared = find_shared_images(splits["train"], splits["test"])
    notes += describe_shared([f"{names['test'][there]} = {names['train'][here]}" for there, here in shared])
    dataset = Dataset(
        name="folder", train=splits["train"], test=splits["test"], classes=tree.classes, notes=notes
    )
    problems = [f"{tree.root / 'train'}: {problem}" for problem in dataset.find_constant_channels()]
    return (None if problems else dataset), problems, notes


def _find_odd_shapes(images: Mapping[Path, Tensor]) -> list[str]:
    """A line for each image of another shape than most."""
    if not images:
        return []
    ((shape, _),) = Counter(image.shape for image in images.values()).most_common(1)
    model = next(path for path, image in images.items() if image.shape == shape)
    return [
        f"{path}: {_describe(image.shape)}, but {model} is {_describe(shape)}"
        for path, image in images.items()
        if image.shape != shape
    ]


def fingerprint_folder(*, data_dir: Path | None) -> str:
    """The content of a directory's images as one SHA-256 in hex.

    It runs over the images in the order of loading: for each its path below the directory, a zero byte, the
    SHA-256 of its bytes and, of one that is turned by its orientation tag, another zero byte: before hkrun
    turned images, the same bytes were other pixels.

    Raises:
        DataError: The layout is not as above, or a file cannot be read.
    """
    digest = hashlib.sha256()
    tree = _list_images(data_dir)
    if tree.problems:
        raise DataError("\n".join(tree.problems))
    for path in tree.paths():
        content = _read(path)
        name = os.fsencode(path.relative_to(tree.root).as_posix())
        digest.update(name + b"\0" + hashlib.sha256(content).digest())
        if is_turned(content):
            digest.update(b"\0")
    return digest.hexdigest()


@dataclass(frozen=True)
class _Tree:
    """The files of a directory: for each part the paths of each class's images, all sorted by name.

    Attributes:
        problems: What is not as the layout wants it, a line each.
    """

    root: Path
    classes: tuple[str, ...]
    parts: dict[str, list[list[Path]]]
    passed: PassedOver
    problems: tuple[str, ...]

    def paths(self) -> Iterator[Path]:
        """Every image, in the order of loading."""
        return (path for by_class in self.parts.values() for found in by_class for path in found)


def _list_images(root: Path | None) -> _Tree:
    if root is None:
        raise DataError(f"folder: name the directory of the images with --data DIR; {_LAYOUT}")
    passed = PassedOver(root)
    names: dict[str, list[str]] = {}
    for part in PARTS:
        names[part], beside = list_entries(root / part, passed, layout=_LAYOUT)
        for name, _ in beside:
            passed.add("image(s) outside class folders", root / part / name)
    problems = check_classes(root, names, layout=_LAYOUT)
    parts: dict[str, list[list[Path]]] = {}
    for part in PARTS:
        by_class, empty = list_classes(root / part, names[part], passed)
        parts[part] = [[root / part / name / file for file, _ in files] for name, files in by_class.items()]
        problems += empty
    return _Tree(root, tuple(names["train"]), parts, passed, tuple(problems))


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error


def _describe(shape: Sequence[int]) -> str:
    channels, height, width = shape
    return f"{width}x{height} {'grey' if channels == 1 else 'RGB'}"
