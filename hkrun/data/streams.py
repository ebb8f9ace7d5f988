"""Images of a streamed data set in the order in which a loop wants them, decoded ahead of it.

The work is cut into requests: the images of one block that one window of the order wants from it.
Threads of this process, or Ray Data, carry the requests out and give the results in their order. So the
images depend neither on which of them did it nor on their number.
"""

import collections
import itertools
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from hkrun.data.dataset import digest_image
from hkrun.data.decoding import decode_rgb, is_turned
from hkrun.data.encoded import BLOCK, WINDOW, EncodedSplit, Reader
from hkrun.data.image_files import ImageError
from hkrun.errors import DataError

logger = logging.getLogger("hkrun")

# A data set of which this many images in a row cannot be used is not what it should be.
MOST_UNUSABLE_IN_A_ROW = 100

# Threads that decode. They never change a result; beyond some, one process cannot feed them.
MAX_DECODERS = 16

BlockIds = tuple[int, ...]  # a request: numbers of images of one block
# Of each image of a request; of one that cannot be used, what is wrong with it.
BlockViews = list[Tensor | str]
ReadBlock = Callable[[BlockIds], BlockViews]
Result = TypeVar("Result")


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
        contents = self.reader.read(request)
        return [self._see(content, image_id) for content, image_id in zip(contents, request, strict=True)]

    def _see(self, content: bytes, image_id: int) -> Tensor | str:
        try:
            return self.view(decode_rgb(content), image_id)
        except ImageError as error:
            return str(error)


# Applies a function to requests, some of them at once and ahead of the reader of the results, in their order.
Carrier = Callable[[ReadBlock, Sequence[BlockIds]], Iterator[BlockViews]]


def carry_in_threads(
    function: Callable[[BlockIds], Result], requests: Sequence[BlockIds]
) -> Iterator[Result]:
    """A `Carrier`: threads of this process, which decode outside of Python's lock."""
    decoders = min(MAX_DECODERS, len(os.sched_getaffinity(0)))
    ahead: collections.deque[Future[Result]] = collections.deque()
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
        unusable: Names of the images that were found unusable so far.
    """

    def __init__(self, split: EncodedSplit) -> None:
        self._split = split
        self.unusable: set[str] = set()

    def read(
        self, windows: Sequence[Tensor], view: View, *, carry: Carrier = carry_in_threads
    ) -> Iterator[tuple[int, Tensor | None]]:
        """Reads images in order.

        `windows` are the images' numbers, int64, a tensor for each window of the order. Yields the number of
        each image, and the view of it; None for one that cannot be used.
        """
        plans = [plan_window(window) for window in windows]
        views = carry(
            BlockReader(self._split.reader, view), [request for plan in plans for request, _ in plan]
        )
        for window, plan in zip(windows, plans, strict=True):
            ordered: BlockViews = [""] * len(window)
            for (_, places), found in zip(plan, views, strict=False):
                for place, image in zip(places, found, strict=True):
                    ordered[place] = image
            for image_id, image in zip(window.tolist(), ordered, strict=True):
                yield image_id, self._note(image_id, image)

    def replace(self, image_id: int, view: View) -> tuple[int, Tensor]:
        """The image that stands in for one that cannot be used: the next in the fixed order that can.

        Raises:
            DataError: Too many in a row cannot be used.
        """
        read = BlockReader(self._split.reader, view)
        for step in range(1, min(MOST_UNUSABLE_IN_A_ROW, len(self._split))):
            candidate = (image_id + step) % len(self._split)
            (seen,) = read((candidate,))
            image = self._note(candidate, seen)
            if image is not None:
                return candidate, image
        raise DataError(
            f"imagenet: {self._split.names[image_id]} and the {step} images after it cannot be used; "
            f"the last one {seen}; `hkrun data verify imagenet` says what is wrong with each"
        )

    def _note(self, image_id: int, seen: Tensor | str) -> Tensor | None:
        """The view of an image; of one that cannot be used, a line in the log."""
        if not isinstance(seen, str):
            return seen
        name = self._split.names[image_id]
        if name not in self.unusable:
            self.unusable.add(name)
            logger.warning("imagenet: %s is passed over: it %s", name, seen)
        return None


@dataclass(frozen=True)
class Inspection:
    """What one image is found to be.

    Attributes:
        problem: What is wrong with it; "" where it can be used.
        digest: `digest_image` of its pixels.
        turned: Whether its orientation tag turned it.
    """

    problem: str = ""
    digest: bytes = b""
    turned: bool = False


def inspect_images(split: EncodedSplit) -> Iterator[tuple[str, Inspection]]:
    """Decodes every image of a part; yields the name of each, and what it is found to be."""

    def inspect(request: BlockIds) -> list[Inspection]:
        return [_inspect(content) for content in split.reader.read(request)]

    starts = range(0, len(split), BLOCK)
    requests: list[BlockIds] = [tuple(range(start, min(start + BLOCK, len(split)))) for start in starts]
    for request, found in zip(requests, carry_in_threads(inspect, requests), strict=True):
        yield from ((split.names[image_id], image) for image_id, image in zip(request, found, strict=True))


def _inspect(content: bytes) -> Inspection:
    try:
        return Inspection(digest=digest_image(decode_rgb(content)), turned=is_turned(content))
    except ImageError as error:
        return Inspection(problem=str(error))


def plan_window(image_ids: Tensor) -> list[tuple[BlockIds, list[int]]]:
    """The requests that fill a window: for each block its images, and their places in the window."""
    by_block: dict[int, list[int]] = {}
    for place, block in enumerate((image_ids // BLOCK).tolist()):
        by_block.setdefault(block, []).append(place)
    numbers = image_ids.tolist()
    return [(tuple(numbers[place] for place in places), places) for places in by_block.values()]


def split_windows(image_ids: Tensor, places: Tensor) -> list[Tensor]:
    """Cuts a worker's images, int64 [K], where the windows of the epoch's order end.

    `places`, ascending, are where each stands in the order of the epoch.
    """
    _, counts = torch.unique_consecutive(places // WINDOW, return_counts=True)
    return list(torch.split(image_ids, counts.tolist()))
