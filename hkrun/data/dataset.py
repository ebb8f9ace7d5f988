"""What a data set is to the rest of hkrun: labelled uint8 images in two splits, and their statistics."""

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

import torch
from torch import Tensor

PIXEL_VALUES = 256  # of a uint8


@dataclass(frozen=True)
class Split:
    """Labelled images.

    Attributes:
        images: uint8, shape [N, C, H, W].
        labels: int64, shape [N], in [0, number of classes).

    Raises:
        ValueError: They are of other types or shapes.
    """

    images: Tensor
    labels: Tensor

    def __post_init__(self) -> None:
        if self.images.dtype != torch.uint8 or self.images.dim() != 4:
            found = f"{self.images.dtype} of shape {tuple(self.images.shape)}"
            raise ValueError(f"images must be torch.uint8 of shape (N, C, H, W); they are {found}")
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            found = f"{self.labels.dtype} of shape {tuple(self.labels.shape)}"
            raise ValueError(f"labels must be torch.int64 of shape ({len(self.images)},); they are {found}")

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Dataset:
    """A data set as it is trained and tested on.

    Attributes:
        test: The test images, of the same size.
        classes: The classes' names, by label.
        notes: What a user should know of it, a line each, such as which files were passed over.
    """

    name: str
    train: Split
    test: Split
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return len(self.classes)

    @property
    def num_channels(self) -> int:
        """Channels of an image."""
        return self.train.images.shape[1]

    def image_shape(self, _size: int) -> tuple[int, int, int]:
        """Channels, height and width of the images that a network gets; they are of one size."""
        channels, height, width = self.train.images.shape[1:]
        return channels, height, width

    @cached_property
    def _statistics(self) -> tuple[Tensor, Tensor]:
        return channel_statistics(self.train.images)

    @property
    def mean(self) -> Tensor:
        """Mean of the training images' pixels, as `channel_statistics` defines it."""
        return self._statistics[0]

    @property
    def std(self) -> Tensor:
        """Standard deviation of the training images' pixels, as `channel_statistics` defines it."""
        return self._statistics[1]

    def find_constant_channels(self) -> list[str]:
        """What keeps the images from being normalised: a line that names channels without deviation."""
        constant = [str(channel) for channel, std in enumerate(self.std.tolist(), start=1) if std == 0]
        if not constant:
            return []
        which = f"channel(s) {', '.join(constant)} of {self.num_channels}"
        return [f"{which}: one value in every pixel of every training image; it cannot be normalised"]


def find_shared_images(train: Split, test: Split) -> list[tuple[int, int]]:
    """Test images that are training images too, by their numbers: each with the first such training image."""
    known: dict[bytes, int] = {}
    for number, image in enumerate(train.images):
        known.setdefault(digest_image(image), number)
    digests = enumerate(digest_image(image) for image in test.images)
    return [(number, known[digest]) for number, digest in digests if digest in known]


def digest_image(image: Tensor) -> bytes:
    """The SHA-256 of the shape and the pixels of an image, uint8 [C, H, W]."""
    shape = ",".join(map(str, image.shape))
    return hashlib.sha256(shape.encode() + b"\0" + image.contiguous().numpy().tobytes()).digest()


def channel_statistics(images: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and population standard deviation of each channel over all its pixels, with 255 counted as 1.

    The spread is over the pixels of all images together. (CIFAR-10's often copied .2023 .1994 .2010 are
    averages of the images' own deviations; over all pixels they are .2470 .2435 .2616.)

    Args:
        images: uint8, shape [N, C, H, W], at least one pixel.

    Returns:
        Mean and standard deviation, float64, shape [C]. Both come from exact counts of the 256 values, so
        that they need no float64 copy of the images and do not depend on the order of a summation.
    """
    values = torch.arange(PIXEL_VALUES, dtype=torch.float64) / (PIXEL_VALUES - 1)
    counts = torch.stack(
        [torch.bincount(channel.flatten(), minlength=PIXEL_VALUES) for channel in images.unbind(dim=1)]
    ).double()
    num_pixels = counts.sum(dim=1)
    mean = counts @ values / num_pixels
    variance = (counts * (values - mean[:, None]).square()).sum(dim=1) / num_pixels
    return mean, variance.sqrt()


def stratified_order(labels: Sequence[int], *, name: str) -> list[int]:
    """The indices of images in a fixed order, any stretch of which holds each class in its proportion.

    Within a class the images are ranked by the SHA-256 of `hkrun:<name>:<index>`, which no version of a
    random number generator can change. Rank r of a class of n images then stands at (r + 1/2) / n of the
    whole order.
    """
    digests = [hashlib.sha256(f"hkrun:{name}:{index}".encode()).digest() for index in range(len(labels))]
    sizes, ranks = Counter(labels), Counter[int]()
    positions: dict[int, Fraction] = {}
    for index in sorted(range(len(labels)), key=digests.__getitem__):
        label = labels[index]
        positions[index] = Fraction(2 * ranks[label] + 1, 2 * sizes[label])
        ranks[label] += 1
    return sorted(positions, key=lambda index: (positions[index], digests[index]))
