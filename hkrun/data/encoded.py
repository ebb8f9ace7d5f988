"""Data sets that are larger than memory: images stay encoded where they lie, and are read block by block.

The images of a part have one fixed order that depends on their names alone, so an image's number, its
position there, is the same in a folder and in shards. A block of that order is what is read at once: a row
group of a shard. As the order is a random one, a block is a random sample of the part.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

BLOCK = 64  # images; about 7 MB of ImageNet
WINDOW = 32 * BLOCK  # the images of an epoch are mixed over this many

# What networks for ImageNet take away from their input and divide it by: torchvision's weights need these.
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class Reader(Protocol):
    """Reads encoded images; plain data that crosses process borders."""

    def read(self, image_ids: Sequence[int]) -> list[bytes]:
        """The bytes of some images of one block; none for an image whose file is gone.

        Raises:
            DataError: The place itself cannot be read.
        """


@dataclass(frozen=True)
class EncodedSplit:
    """Labelled images in their fixed order, as the bytes of their files.

    Attributes:
        names: `<class>/<file>` of each image.
        labels: int64, shape [N], in [0, number of classes).
        sizes: Bytes of each file, int64, shape [N].
        reader: Reads them by their position.
    """

    names: Sequence[str]
    labels: Tensor
    sizes: Tensor
    reader: Reader

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class StreamedDataset:
    """A data set that is decoded while it is trained on; to the networks, what `Dataset` is.

    Attributes:
        test: The images that errors are measured on.
        packed: Whether it lies in shards.
    """

    name: str
    train: EncodedSplit
    test: EncodedSplit
    classes: tuple[str, ...]
    packed: bool
    notes: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def num_channels(self) -> int:
        """Channels of an image: all are decoded as RGB."""
        return 3

    def image_shape(self, size: int) -> tuple[int, int, int]:
        """Channels, height and width of the images that a network gets, decoded to this size."""
        return self.num_channels, size, size

    @property
    def mean(self) -> Tensor:
        """Mean of each channel with 255 counted as 1, float64, shape [3]."""
        return torch.tensor(IMAGENET_MEAN, dtype=torch.float64)

    @property
    def std(self) -> Tensor:
        """Standard deviation of each channel with 255 counted as 1, float64, shape [3]."""
        return torch.tensor(IMAGENET_STD, dtype=torch.float64)


def fixed_order(names: Sequence[str], *, part: str) -> list[int]:
    """The positions of names in the fixed order: by the SHA-256 of `hkrun:<part>:<name>`."""
    return sorted(
        range(len(names)), key=lambda index: hashlib.sha256(f"hkrun:{part}:{names[index]}".encode()).digest()
    )


def epoch_order(num_images: int, generator: torch.Generator) -> Tensor:
    """The order of one epoch: blocks in random order, the images mixed within windows of 32 blocks.

    With fewer images than a window holds, it is a random permutation of all of them. Beyond, a reader needs
    no more than a window at a time, and each of its blocks once. Returns image numbers, int64, shape
    [num_images].
    """
    blocks = torch.split(torch.arange(num_images), BLOCK)
    drawn = torch.randperm(len(blocks), generator=generator)
    by_block = torch.cat([blocks[block] for block in drawn.tolist()])
    windows = torch.split(by_block, WINDOW)
    return torch.cat([window[torch.randperm(len(window), generator=generator)] for window in windows])


def content_sha256(classes: Sequence[str], parts: Sequence[tuple[str, EncodedSplit]]) -> str:
    """What identifies a data set: a SHA-256 in hex over its classes and each image's name, label and size.

    The bytes themselves are not read, which would take hours: `hkrun data verify` does.
    """
    digest = hashlib.sha256("\n".join(classes).encode())
    for part, split in parts:
        rows = zip(split.names, split.labels.tolist(), split.sizes.tolist(), strict=True)
        for name, label, size in rows:
            digest.update(f"\n{part}/{name} {label} {size}".encode())
    return digest.hexdigest()
