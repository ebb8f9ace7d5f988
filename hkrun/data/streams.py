"""Images of a streamed data set in the order in which a loop wants them, decoded ahead of it.

The work is cut into requests: the images of one block that one window of the order wants from it. Whoever
carries requests out (threads of this process, or Ray Data) gives the results in the order of the requests, so
the images do not depend on who did, nor on how many.
"""

import collections
import itertools
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from hkrun.data.decoding import decode
from hkrun.data.encoded import BLOCK, WINDOW, EncodedSplit, Reader
from hkrun.errors import DataError

logger = logging.getLogger("hkrun")

# A data set of which this many images in a row are damaged is not what it should be.
MOST_DAMAGED_IN_A_ROW = 100

# Threads that decode. They never change a result; beyond some, one process cannot feed them.
MAX_DECODERS = 16

BlockIds = tuple[int, ...]  # a request: numbers of images of one block
BlockViews = list[Tensor | None]  # of each image of a request; None for a damaged one
ReadBlock = Callable[[BlockIds], BlockViews]


class View(Protocol):
    """Makes of a decoded image what the network sees; plain data that crosses process borders."""

    def __call__(self, image: Tensor, image_id: int) -> Tensor:
        """From uint8, shape [3, H, W], to uint8, shape [3, size, size]."""


@dataclass(frozen=True)
class BlockReader:
    """Carries a request out; plain data that crosses process borders."""

    reader: Reader
    view: View

    def __call__(self, request: BlockIds) -> BlockViews:
        """Reads, decodes and crops the images of a request."""
        images = [decode(content) for content in self.reader.read(request)]
        return [
            None if image is None else self.view(image, image_id)
            for image, image_id in zip(images, request, strict=True)
        ]


# Applies a function to requests, some of them at once and ahead of whoever takes the results, in their order.
Carrier = Callable[[ReadBlock, Sequence[BlockIds]], Iterator[BlockViews]]


def carry_in_threads(function: ReadBlock, requests: Sequence[BlockIds]) -> Iterator[BlockViews]:
    """A `Carrier`: threads of this process, which decode outside of Python's lock."""
    decoders = min(MAX_DECODERS, len(os.sched_getaffinity(0)))
    ahead: collections.deque[Future[BlockViews]] = collections.deque()
    # Two windows: the one that is put in order and the one after it.
    most_ahead = 2 * WINDOW // BLOCK
    waiting = iter(requests)
    with ThreadPoolExecutor(decoders, thread_name_prefix="decode") as pool:
        try:
            for request in itertools.islice(waiting, most_ahead):
                ahead.append(pool.submit(function, request))
            while ahead:
                done = ahead.popleft().result()
                ahead.extend(pool.submit(function, request) for request in itertools.islice(waiting, 1))
                yield done
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


class ImageStream:
    """The images of one part of a data set, as views of them.

    Attributes:
        damaged: Names of the images that could not be decoded so far.
    """

    def __init__(self, split: EncodedSplit) -> None:
        self._split = split
        self.damaged: set[str] = set()

    def read(
        self, windows: Sequence[Tensor], view: View, *, carry: Carrier = carry_in_threads
    ) -> Iterator[tuple[int, Tensor | None]]:
        """Reads images in order.

        Args:
            windows: The images' numbers, int64, a tensor for each window of the order.
            view: What to make of each.
            carry: Who does it.

        Yields:
            The number of each image, and the view of it; None for a damaged one.
        """
        plans = [plan_window(window) for window in windows]
        views = carry(
            BlockReader(self._split.reader, view), [request for plan in plans for request, _ in plan]
        )
        for window, plan in zip(windows, plans, strict=True):
            ordered: BlockViews = [None] * len(window)
            for (_, places), found in zip(plan, views, strict=False):
                for place, image in zip(places, found, strict=True):
                    ordered[place] = image
            for image_id, image in zip(window.tolist(), ordered, strict=True):
                if image is None:
                    self._note_damage(image_id)
                yield image_id, image

    def replace(self, image_id: int, view: View) -> tuple[int, Tensor]:
        """The image that stands in for a damaged one: the next in the fixed order that is whole.

        Raises:
            DataError: Too many in a row are damaged.
        """
        read = BlockReader(self._split.reader, view)
        for step in range(1, min(MOST_DAMAGED_IN_A_ROW, len(self._split))):
            candidate = (image_id + step) % len(self._split)
            (image,) = read((candidate,))
            if image is not None:
                return candidate, image
            self._note_damage(candidate)
        raise DataError(
            f"imagenet: {self._split.names[image_id]} and the {step} images after it are damaged; "
            "`hkrun data verify` names all"
        )

    def _note_damage(self, image_id: int) -> None:
        name = self._split.names[image_id]
        if name not in self.damaged:
            self.damaged.add(name)
            logger.warning("imagenet: %s is damaged and is passed over", name)


def find_damaged_images(split: EncodedSplit) -> Iterator[str]:
    """Decodes every image of a part.

    Yields:
        The names of those that cannot be.
    """
    starts = range(0, len(split), BLOCK)
    requests: list[BlockIds] = [tuple(range(start, min(start + BLOCK, len(split)))) for start in starts]
    found = carry_in_threads(BlockReader(split.reader, _see_nothing), requests)
    for request, views in zip(requests, found, strict=True):
        yield from (
            split.names[image_id] for image_id, view in zip(request, views, strict=True) if view is None
        )


def _see_nothing(image: Tensor, image_id: int) -> Tensor:  # noqa: ARG001 - that it could be decoded is enough
    return torch.empty(0)


def plan_window(image_ids: Tensor) -> list[tuple[BlockIds, list[int]]]:
    """The requests that fill a window: for each block its images, and their places in the window."""
    by_block: dict[int, list[int]] = {}
    for place, block in enumerate((image_ids // BLOCK).tolist()):
        by_block.setdefault(block, []).append(place)
    numbers = image_ids.tolist()
    return [(tuple(numbers[place] for place in places), places) for places in by_block.values()]


def split_windows(image_ids: Tensor, places: Tensor) -> list[Tensor]:
    """Cuts a worker's images where the windows of the epoch's order end.

    Args:
        image_ids: The worker's images in order, int64, shape [K].
        places: Where each stands in the order of the epoch, ascending, int64, shape [K].
    """
    _, counts = torch.unique_consecutive(places // WINDOW, return_counts=True)
    return list(torch.split(image_ids, counts.tolist()))
