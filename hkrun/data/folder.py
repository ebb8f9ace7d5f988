"""`folder`: any directory of class folders.

    DIR/train/<class>/*.png|jpg|jpeg        the classes of both parts must be the same
    DIR/test/<class>/*.png|jpg|jpeg

All images have one size and are all grey or all colour. Labels follow the sorted names of the classes.
Other files, and names that begin with a dot, are passed over.
"""

import hashlib
import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from hkrun.data.dataset import Dataset, Split
from hkrun.errors import DataError

SUFFIXES = (".png", ".jpg", ".jpeg")
# 16-bit and transparent images are refused: what they should become is the user's decision.
_MODES = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB"}  # mode of the file -> mode it is read in
_LAYOUT = "wanted are train/<class>/ and test/<class>/ with .png or .jpg files in it"


def load_folder(*, data_dir: Path | None) -> Dataset:
    """Loads the images of a directory.

    Raises:
        DataError: The layout is not as above, or an image cannot be used; the message names the first such
        file.
    """
    root = _root(data_dir)
    classes, parts = _list_images(root)
    splits = {}
    first: tuple[Path, torch.Size] | None = None
    for part, by_class in parts.items():
        paths = [path for paths in by_class for path in paths]
        images = []
        for path in paths:
            image = _read_image(path)
            first = first or (path, image.shape)
            if image.shape != first[1]:
                raise DataError(f"{path}: {_describe(image.shape)}, but {first[0]} is {_describe(first[1])}")
            images.append(image)
        labels = [label for label, paths in enumerate(by_class) for _ in paths]
        splits[part] = Split(torch.stack(images), torch.tensor(labels))
    dataset = Dataset(name="folder", train=splits["train"], test=splits["test"], classes=classes)
    if (dataset.std == 0).any():
        raise DataError(f"{root / 'train'}: a colour channel has one value in every pixel of every image")
    return dataset


def fingerprint_folder(*, data_dir: Path | None) -> str:
    """The content of a directory's images as one SHA-256 in hex.

    It runs over the images in the order of loading: for each its path below the directory, a zero byte, and
    the SHA-256 of its bytes.

    Raises:
        DataError: The layout is not as above, or a file cannot be read.
    """
    root = _root(data_dir)
    digest = hashlib.sha256()
    _, parts = _list_images(root)
    for path in (path for by_class in parts.values() for paths in by_class for path in paths):
        try:
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256")
        except OSError as error:
            raise DataError(f"{path}: cannot be read: {error.strerror}") from error
        digest.update(os.fsencode(path.relative_to(root).as_posix()) + b"\0" + content.digest())
    return digest.hexdigest()


def _root(data_dir: Path | None) -> Path:
    if data_dir is None:
        raise DataError(f"folder: name the directory of the images with --data DIR; {_LAYOUT}")
    return data_dir


def _list_images(root: Path) -> tuple[tuple[str, ...], dict[str, list[list[Path]]]]:
    """The classes, and for each part the images of each class; all sorted by name."""
    names = {part: [path.name for path in _list(root / part) if path.is_dir()] for part in ("train", "test")}
    for part, other in (("train", "test"), ("test", "train")):
        for name in names[part]:
            if name not in names[other]:
                raise DataError(f"{root / part / name}: there is no class {name!r} in {root / other}")
    if len(names["train"]) < 2:
        raise DataError(f"{root / 'train'}: at least 2 class folders are needed; {_LAYOUT}")
    parts: dict[str, list[list[Path]]] = {part: [] for part in names}
    for part, classes in names.items():
        for name in classes:
            files = [path for path in _list(root / part / name) if path.suffix.lower() in SUFFIXES]
            if not files:
                raise DataError(f"{root / part / name}: no .png or .jpg file")
            parts[part].append(files)
    return tuple(names["train"]), parts


def _list(directory: Path) -> Sequence[Path]:
    try:
        return sorted(path for path in directory.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise DataError(f"{directory}: cannot be listed: {error.strerror}; {_LAYOUT}") from error


def _read_image(path: Path) -> Tensor:
    """One image, uint8, shape [C, H, W]."""
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=("PNG", "JPEG")) as image:
                if image.mode not in _MODES:
                    raise DataError(
                        f"{path}: its mode is {image.mode}; allowed are 8-bit grey and opaque RGB"
                    )
                pixels = np.array(image.convert(_MODES[image.mode]))
    # What Pillow raises for damaged PNG and JPEG files, found by damaging some at random.
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: cannot be read as an image") from error
    return torch.from_numpy(pixels.reshape(*pixels.shape[:2], -1)).permute(2, 0, 1).contiguous()


def _describe(shape: Sequence[int]) -> str:
    channels, height, width = shape
    return f"{width}x{height} {'grey' if channels == 1 else 'RGB'}"
