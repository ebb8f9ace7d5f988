"""From an image's pixels to the square that a network sees, with torchvision's v2 transforms.

A training image is cropped at random, resized and perhaps mirrored; what happens to it derives from the run's
seed, the epoch and the image's number alone. So it does not depend on where and when it is
decoded.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from hkrun.seeding import Purpose, derive

# Inception-style cropping, as ImageNet is usually trained on (Szegedy et al. 2015): shares of the area, and
# ratios of width to height.
SCALE = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)
TRIES = 10

# The shorter side of a test image before its centre is cut out: 256 for 224.
TEST_RESIZE = 256 / 224


@dataclass(frozen=True)
class TrainingView:
    """What training sees of an image in one epoch.

    Attributes:
        seed: From the run's seed, the purpose and the epoch.
        size: Side of the result, in pixels.
        flip: Whether half of the images are mirrored.
    """

    seed: int
    purpose: Purpose
    size: int
    flip: bool

    def __call__(self, image: Tensor, image_id: int) -> Tensor:
        """A random part of an image: uint8, [3, H, W] to [3, size, size]."""
        from torchvision.transforms.v2 import functional as F

        generator = torch.Generator().manual_seed(derive(self.seed, self.purpose, image_id))
        top, left, height, width = draw_crop(image.shape[1], image.shape[2], generator)
        view: Tensor = F.resized_crop(image, top, left, height, width, [self.size] * 2, antialias=True)
        if self.flip and float(torch.rand(1, generator=generator)) < 0.5:
            view = F.horizontal_flip(view)
        return view


@dataclass(frozen=True)
class TestView:
    """What errors are measured on: the centre of the resized image.

    Attributes:
        size: Side of the result, in pixels.
    """

    __test__ = False  # no test of pytest's

    size: int

    def __call__(self, image: Tensor, image_id: int) -> Tensor:  # noqa: ARG002 - no two images are treated unlike
        """The centre of an image: uint8, [3, H, W] to [3, size, size]."""
        from torchvision.transforms.v2 import functional as F

        shorter = round(self.size * TEST_RESIZE)
        view: Tensor = F.center_crop(F.resize(image, [shorter], antialias=True), [self.size] * 2)
        return view


def draw_crop(height: int, width: int, generator: torch.Generator) -> tuple[int, int, int, int]:
    """Draws the part of an image that a view shows, with the numbers that torchvision's transform would draw.

    Returns:
        Top, left, height and width, in pixels. Where no try fits into the image, the largest part of an
        allowed ratio around its centre.
    """
    # One number each time, in float32: as torchvision's RandomResizedCrop draws them.
    low, high = torch.log(torch.tensor(RATIO)).tolist()
    for _ in range(TRIES):
        area = height * width * float(torch.empty(1).uniform_(*SCALE, generator=generator))
        ratio = float(torch.exp(torch.empty(1).uniform_(low, high, generator=generator)))
        w, h = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < w <= width and 0 < h <= height:
            top = int(torch.randint(0, height - h + 1, (1,), generator=generator))
            left = int(torch.randint(0, width - w + 1, (1,), generator=generator))
            return top, left, h, w
    w, h = width, height
    if width / height < RATIO[0]:
        h = round(width / RATIO[0])
    elif width / height > RATIO[1]:
        w = round(height * RATIO[1])
    return (height - h) // 2, (width - w) // 2, h, w
