"""Rows of a table: computed in passes of one shape, so that a row's bits depend on its view alone."""

import functools
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from hkrun.knowledge.parts import Layout
from hkrun.knowledge.teaching import infer
from hkrun.models import DistilledNetwork

# Images per pass. On a CPU the activations should stay in the cache; a GPU wants many.
_SMALL_IMAGE = 16 * 16
_PASS_SIZE = {"cpu": 32, "cuda": 512}
_SMALL_IMAGES_PASS_SIZE = 64


class RowComputer:
    """Computes the rows of a table: a teacher's outputs for views, part by part.

    Args:
        network: Frozen and in eval mode, on `device`.
        parts: Names of the parts that are wanted; see `Layout`.
        tap: As `knowledge.tap`.
        image_shape: Channels, height and width of the images.
        precision: As of the cell.
        image_dtype: Type of the images.
        row_dtype: What the rows are rounded to.
        device: Where the network is.

    Attributes:
        layout: How the parts lie in the rows.
        pass_size: Images in each pass; a smaller number is filled up.
    """

    def __init__(
        self,
        network: DistilledNetwork,
        parts: tuple[str, ...],
        *,
        tap: str,
        image_shape: tuple[int, int, int],
        precision: str,
        image_dtype: torch.dtype,
        row_dtype: np.dtype[Any],
        device: torch.device,
    ) -> None:
        self._network, self._precision = network, precision
        self._row_dtype = row_dtype
        self.pass_size = pass_size(image_shape, device)
        generator = torch.Generator().manual_seed(0)
        noise = torch.randn(2 * self.pass_size, *image_shape, generator=generator, dtype=image_dtype)
        self._probe = noise.to(device)
        self.layout = Layout.of(
            infer(network, self._probe[: self.pass_size], precision=precision), parts, tap=tap
        )

    @functools.cached_property
    def is_steady(self) -> bool:
        """Whether a row's bits are the same wherever in a pass, and with whatever others, it is computed."""
        before = self(self._probe)
        order = torch.randperm(len(self._probe), generator=torch.Generator().manual_seed(1))
        after = self(self._probe[order.to(self._probe.device)])
        return all(np.array_equal(before[part][order.numpy()], after[part]) for part in self.layout.parts)

    def __call__(self, images: Tensor) -> dict[str, NDArray[Any]]:
        """The rows of R normalised views, shape [R, C, H, W]: by part, shape [R, width]."""
        passes = [self._compute(some) for some in torch.split(images, self.pass_size)]
        return {part: np.concatenate([rows[part] for rows in passes]) for part in self.layout.parts}

    def _compute(self, images: Tensor) -> dict[str, NDArray[Any]]:
        """The rows of at most as many images as a pass has."""
        num_images = len(images)
        if num_images < self.pass_size:
            filling = images.new_zeros(self.pass_size - num_images, *images.shape[1:])
            images = torch.cat([images, filling])
        output = infer(self._network, images, precision=self._precision)
        return {
            part: self._round(rows[:num_images].cpu().numpy())
            for part, rows in self.layout.take_apart(output).items()
        }

    def _round(self, rows: NDArray[Any]) -> NDArray[Any]:
        if self._row_dtype != np.float16:
            return rows.astype(self._row_dtype, copy=False)
        largest = np.finfo(np.float16).max
        rounded: NDArray[Any] = np.clip(rows, -largest, largest).astype(np.float16)
        return rounded


def pass_size(image_shape: tuple[int, int, int], device: torch.device) -> int:
    """Images per pass of the teacher."""
    _, height, width = image_shape
    if device.type == "cpu" and height * width <= _SMALL_IMAGE:
        return _SMALL_IMAGES_PASS_SIZE
    return _PASS_SIZE[device.type]
