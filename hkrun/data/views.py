"""Views: the finite set of augmentations of a training image, by number.

A view of an image is a crop of its own size out of the zero-padded image, mirrored or not. The zeros are raw
pixels, padded before normalisation as torchvision's RandomCrop does on images, so that they become -mean/std.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hkrun.data.dataset import PIXEL_VALUES


@dataclass(frozen=True)
class Views:
    """All views of an image, numbered from 0.

    View `mirrored * num_crops + top * (2 * padding + 1) + left` has the corner of its crop at row `top` and
    column `left` of the padded image, both from 0 to 2 * padding.

    Attributes:
        padding: Width of the zero padding on each side, in pixels.
        flip: Whether every crop exists mirrored too.
    """

    padding: int
    flip: bool

    @property
    def num_crops(self) -> int:
        """Number of places of the crop."""
        return (2 * self.padding + 1) ** 2

    @property
    def count(self) -> int:
        """Number of views: 162 for padding 4 with flips, 9 for padding 1 without."""
        return self.num_crops * (2 if self.flip else 1)

    @property
    def centre(self) -> int:
        """The view that is the image itself."""
        return self.view_id(top=self.padding, left=self.padding, mirrored=False)

    def view_id(self, *, top: int, left: int, mirrored: bool) -> int:
        """The number of a view; the inverse of `place`."""
        return int(mirrored) * self.num_crops + top * (2 * self.padding + 1) + left

    def place(self, view_ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Where views are: top and left (int64) and mirrored (bool), each of the shape of `view_ids`."""
        crops = view_ids % self.num_crops
        places = 2 * self.padding + 1
        return crops // places, crops % places, view_ids >= self.num_crops

    def draw(self, generator: torch.Generator, num_images: int) -> Tensor:
        """Draws one view for each of a number of images, all views equally likely.

        Args:
            generator: A CPU generator, so that a run on a GPU sees the same views as one on the CPU.
            num_images: How many to draw.

        Returns:
            View numbers in [0, count), int64, shape [num_images], on the CPU.
        """
        return torch.randint(self.count, (num_images,), generator=generator)


class ViewReader:
    """Reads views of a set of images, a batch at a time.

    The padded images stay on the device as uint8. A batch is one indexing operation on a strided view in
    which every crop of every image has its place without being stored.

    Args:
        images: uint8, shape [N, C, H, W].
        views: The views to read.
        mean: Channel means as of `Dataset.mean`, shape [C].
        std: Channel deviations as of `Dataset.std`, shape [C].
        dtype: Floating type of the batches.
        device: Where the images are kept and the batches come out.
    """

    def __init__(
        self,
        images: Tensor,
        *,
        views: Views,
        mean: Tensor,
        std: Tensor,
        dtype: torch.dtype,
        device: torch.device | str,
    ) -> None:
        self._views = views
        self._mean, self._std = _pixel_scale(mean, std, dtype=dtype, device=device)
        height, width = images.shape[-2:]
        padded = F.pad(images.to(device), (views.padding,) * 4)
        self._crops = padded.unfold(2, height, 1).unfold(3, width, 1)  # [N, C, top, left, H, W]

    def __call__(self, image_ids: Tensor, view_ids: Tensor) -> Tensor:
        """Reads one view of each of B images.

        Args:
            image_ids: int64, shape [B], on the reader's device.
            view_ids: int64, shape [B], on the reader's device.

        Returns:
            Normalised images, shape [B, C, H, W].
        """
        top, left, mirrored = self._views.place(view_ids)
        images = self._crops[image_ids, :, top, left]
        if self._views.flip:
            images = torch.where(mirrored[:, None, None, None], images.flip(-1), images)
        return torch.sub(images, self._mean).div_(self._std)


def normalise(images: Tensor, *, mean: Tensor, std: Tensor, dtype: torch.dtype) -> Tensor:
    """Brings images to mean 0 and deviation 1 per channel: the input for test images.

    Equal to the bit to what a ViewReader gives for the centre view.

    Args:
        images: uint8, shape [N, C, H, W].
        mean: Channel means as of `Dataset.mean`, shape [C].
        std: Channel deviations as of `Dataset.std`, shape [C].
        dtype: Floating type of the result.

    Returns:
        Shape [N, C, H, W], on the images' device.
    """
    pixel_mean, pixel_std = _pixel_scale(mean, std, dtype=dtype, device=images.device)
    return torch.sub(images, pixel_mean).div_(pixel_std)


def _pixel_scale(
    mean: Tensor, std: Tensor, *, dtype: torch.dtype, device: torch.device | str
) -> tuple[Tensor, Tensor]:
    """Mean and deviation in units of a uint8 pixel, shape [C, 1, 1]."""

    def scale(statistic: Tensor) -> Tensor:
        return ((PIXEL_VALUES - 1) * statistic[:, None, None]).to(device=device, dtype=dtype)

    return scale(mean), scale(std)
