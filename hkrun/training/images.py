"""What training and evaluation read: the batches of an epoch, and the errors of a network."""

import itertools
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence, Set
from typing import NamedTuple

import torch
from torch import Tensor, nn

from hkrun import seeding
from hkrun.data.cropping import TestView, TrainingView
from hkrun.data.dataset import Dataset
from hkrun.data.encoded import EncodedSplit, StreamedDataset, epoch_order
from hkrun.data.streams import Carrier, ImageStream, carry_in_threads, split_windows
from hkrun.data.views import ViewReader, Views, normalise
from hkrun.errors import DataError
from hkrun.networks import EVALUATION_BATCH
from hkrun.training.context import Context, own_part, sum_over_workers
from hkrun.training.precision import autocast
from hkrun.training.transfers import move

# Streamed images are large, and their activations are too.
STREAMED_EVALUATION_BATCH = 128


class NotFiniteError(ArithmeticError):
    """A network's logits are no longer numbers."""


class Batch(NamedTuple):
    """One worker's part of a batch of each of k seeds.

    Attributes:
        images: Normalised views, [k, B, C, H, W].
        labels: Class of each image, [k, B].
        share: B over the size of the whole batch: weights this worker's mean loss, so that the sum over the
            workers is the mean over the whole batch.
        image_ids: Which images they are, int64, [k, B], on the CPU; None where they are streamed.
        view_ids: Which of their views, see `hkrun.data.views.Views`; likewise.
    """

    images: Tensor
    labels: Tensor
    share: float
    image_ids: Tensor | None = None
    view_ids: Tensor | None = None

    def of_runs(self, part: slice) -> "Batch":
        """What some of the k have of it."""
        ids = [None if each is None else each[part] for each in (self.image_ids, self.view_ids)]
        return Batch(self.images[part], self.labels[part], self.share, *ids)


class Draws(NamedTuple):
    """What the order of an epoch and the views of its images are drawn for."""

    order: seeding.Purpose
    augmentation: seeding.Purpose


TEACHER_DRAWS = Draws(seeding.Purpose.TEACHER_ORDER, seeding.Purpose.TEACHER_AUGMENTATION)
STUDENT_DRAWS = Draws(seeding.Purpose.ORDER, seeding.Purpose.AUGMENTATION)


class TrainingSet(ABC):
    """Training images, and what each epoch shows of them, in which order.

    Order and views come from generators of (seed, purpose, epoch) on the CPU: they are the same on every
    device, whatever the number of workers, and need no state in a checkpoint.
    """

    unusable: Set[str] = frozenset()  # names of the images that were found unusable so far

    @abstractmethod
    def batches(
        self,
        seeds: Sequence[int],
        epoch: int,
        *,
        batch_size: int,
        draws: Draws,
        context: Context,
    ) -> Iterator[Batch]:
        """The batches of one epoch, from 0, of each seed its own; the last short batch is dropped.

        Each worker gets its contiguous part of every batch, so each image is seen by exactly one of them.
        """


class ResidentTrainingSet(TrainingSet):
    """Training images that all lie on the device."""

    def __init__(self, dataset: Dataset, views: Views, *, dtype: torch.dtype, device: torch.device) -> None:
        self._views = views
        self._labels = dataset.train.labels.to(device)
        self._reader = ViewReader(
            dataset.train.images, views=views, mean=dataset.mean, std=dataset.std, dtype=dtype, device=device
        )
        self._device = device

    def batches(
        self,
        seeds: Sequence[int],
        epoch: int,
        *,
        batch_size: int,
        draws: Draws,
        context: Context,
    ) -> Iterator[Batch]:
        """See `TrainingSet`."""
        num_images = len(self._labels)
        generator = torch.Generator()
        orders, views = [], []
        for seed in seeds:
            generator.manual_seed(seeding.derive(seed, draws.order, epoch))
            orders.append(torch.randperm(num_images, generator=generator))
            generator.manual_seed(seeding.derive(seed, draws.augmentation, epoch))
            views.append(self._views.draw(generator, num_images))
        image_ids, view_ids = torch.stack(orders), torch.stack(views)
        here = move(image_ids, self._device), move(view_ids, self._device)
        first, last = own_part(batch_size, context)
        for start in range(0, num_images - batch_size + 1, batch_size):
            part = slice(start + first, start + last)
            ids, shown = (values[:, part] for values in here)
            images = self._reader(ids.flatten(), shown.flatten())
            images = images.view(*ids.shape, *images.shape[1:])
            share = (last - first) / batch_size
            yield Batch(images, self._labels[ids], share, image_ids[:, part], view_ids[:, part])


class StreamedTrainingSet(TrainingSet):
    """Training images that are decoded ahead of the loop.

    One that cannot be used is replaced by the next in the fixed order that can, so that every batch is full.
    """

    def __init__(
        self, dataset: StreamedDataset, *, size: int, flip: bool, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._dataset = dataset
        self._size, self._flip = size, flip
        self._device, self._to_input = device, _Normaliser(dataset, dtype=dtype, device=device)
        self._stream = ImageStream(dataset.train)
        self.unusable = self._stream.unusable

    def batches(
        self,
        seeds: Sequence[int],
        epoch: int,
        *,
        batch_size: int,
        draws: Draws,
        context: Context,
    ) -> Iterator[Batch]:
        """See `TrainingSet`. The images of one seed: no two decode the same."""
        (seed,) = seeds
        labels = self._dataset.train.labels
        generator = torch.Generator().manual_seed(seeding.derive(seed, draws.order, epoch))
        image_ids = epoch_order(len(labels), generator)
        first, last = own_part(batch_size, context)
        starts = torch.arange(0, len(labels) - batch_size + 1, batch_size)
        places = (starts[:, None] + torch.arange(first, last)).flatten()
        view = TrainingView(
            seeding.derive(seed, draws.augmentation, epoch),
            draws.augmentation,
            size=self._size,
            flip=self._flip,
        )
        images = self._stream.read(
            split_windows(image_ids[places], places), view, carry=_choose_carrier(self._dataset, context)
        )
        whole = (
            (image_id, image) if image is not None else self._stream.replace(image_id, view)
            for image_id, image in images
        )
        while own := list(itertools.islice(whole, last - first)):
            ids, pixels = zip(*own, strict=True)
            yield Batch(
                self._to_input(torch.stack(pixels))[None],
                move(labels[list(ids)], self._device)[None],
                (last - first) / batch_size,
            )


class Errors(NamedTuple):
    """Shares of images, in percent.

    Attributes:
        top1_pct: Wrongly classified.
        top5_pct: Whose class is not among the five first; None where there are no more than ten classes.
        undefined_pct: Whose logits are NaN: there is no class to take for the answer.
    """

    top1_pct: float
    top5_pct: float | None
    undefined_pct: float = 0.0


def describe_undefined(errors: Errors) -> str:
    """What is wrong with a network some of whose logits are NaN."""
    return f"the logits of {errors.undefined_pct:.2f} % of the images are not numbers"


class EvaluationSet(ABC):
    """Images to evaluate on, without augmentation."""

    unusable: Set[str] = frozenset()  # names of the images that were found unusable so far; they do not count

    def __init__(self, *, num_images: int, num_classes: int, device: torch.device) -> None:
        self._num_images = num_images
        self._top5 = num_classes > 10
        self._device = device

    @abstractmethod
    def _batches(self, first: int, last: int, context: Context) -> Iterator[tuple[Tensor, Tensor]]:
        """Normalised images and labels, on the device, of the images from `first` to before `last`."""

    def evaluate(self, network: nn.Module, *, precision: str, context: Context) -> Errors:
        """Errors of a network in eval mode; its mode is restored. Each worker takes a part of the images.

        Raises:
            NotFiniteError: A logit is NaN: there is no class to take for the answer.
            DataError: No image can be used.
        """
        was_training = network.training
        network.eval()
        (errors,) = self.evaluate_each(
            lambda images: network(images).logits[None], 1, precision=precision, context=context
        )
        network.train(was_training)
        if errors.undefined_pct:
            raise NotFiniteError(describe_undefined(errors))
        return errors

    @torch.no_grad()
    def evaluate_each(
        self, classify: Callable[[Tensor], Tensor], number: int, *, precision: str, context: Context
    ) -> list[Errors]:
        """Errors of several networks at once.

        Args:
            classify: From images [B, C, H, W] to each network's logits [number, B, classes].
            number: How many networks there are.
            precision: The arithmetic.
            context: Each worker takes a part of the images.

        Raises:
            DataError: No image can be used.
        """
        seen = torch.zeros(1, dtype=torch.int64, device=self._device)
        wrong = torch.zeros(3, number, dtype=torch.int64, device=self._device)  # top-1, top-5, not a number
        first, last = own_part(self._num_images, context)
        for images, labels in self._batches(first, last, context):
            with autocast(precision, self._device):
                logits = classify(images)
            seen += len(labels)
            largest, answers = logits.max(2)  # NaN where one of them is
            wrong[0] += (answers != labels).sum(1)
            wrong[2] += largest.isnan().sum(1)
            if self._top5:
                wrong[1] += (logits.topk(5, dim=2).indices != labels[:, None]).all(2).sum(1)
        sum_over_workers([seen, wrong], context)
        num_seen = int(seen)
        if not num_seen:
            raise DataError(
                "no image to evaluate on can be used; `hkrun data verify` says what is wrong with each"
            )
        return [
            Errors(
                100.0 * top1 / num_seen,
                100.0 * top5 / num_seen if self._top5 else None,
                100.0 * undefined / num_seen,
            )
            for top1, top5, undefined in wrong.T.tolist()
        ]


class Images(NamedTuple):
    """The two parts of a data set as a loop uses them."""

    training: TrainingSet
    test: EvaluationSet


class ResidentEvaluationSet(EvaluationSet):
    """Images that all lie on the device, normalised once."""

    def __init__(
        self, images: Tensor, labels: Tensor, dataset: Dataset, *, dtype: torch.dtype, device: torch.device
    ) -> None:
        super().__init__(num_images=len(labels), num_classes=dataset.num_classes, device=device)
        self._images = normalise(images.to(device), mean=dataset.mean, std=dataset.std, dtype=dtype)
        self._labels = labels.to(device)

    def _batches(self, first: int, last: int, context: Context) -> Iterator[tuple[Tensor, Tensor]]:  # noqa: ARG002
        size = EVALUATION_BATCH[self._device.type]
        for start in range(first, last, size):
            part = slice(start, min(start + size, last))
            yield self._images[part], self._labels[part]


class StreamedEvaluationSet(EvaluationSet):
    """Images that are decoded ahead of the network: the centre of each."""

    def __init__(
        self,
        split: EncodedSplit,
        dataset: StreamedDataset,
        *,
        size: int,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        super().__init__(num_images=len(split), num_classes=dataset.num_classes, device=device)
        self._labels, self._dataset = split.labels, dataset
        self._view, self._to_input = TestView(size), _Normaliser(dataset, dtype=dtype, device=device)
        self._stream = ImageStream(split)
        self.unusable = self._stream.unusable

    def _batches(self, first: int, last: int, context: Context) -> Iterator[tuple[Tensor, Tensor]]:
        places = torch.arange(first, last)
        images = self._stream.read(
            split_windows(places, places), self._view, carry=_choose_carrier(self._dataset, context)
        )
        whole = ((image_id, image) for image_id, image in images if image is not None)
        while batch := list(itertools.islice(whole, STREAMED_EVALUATION_BATCH)):
            ids, pixels = zip(*batch, strict=True)
            yield self._to_input(torch.stack(pixels)), move(self._labels[list(ids)], self._device)


def _choose_carrier(dataset: StreamedDataset, context: Context) -> Carrier:
    """The reader: the context's for shards, threads of this process for files of this machine."""
    return context.carry if dataset.packed else carry_in_threads


class _Normaliser:
    """Brings images to the device as bytes, and normalises them there."""

    def __init__(self, dataset: StreamedDataset, *, dtype: torch.dtype, device: torch.device) -> None:
        self._mean, self._std = dataset.mean.to(device), dataset.std.to(device)
        self._dtype, self._device = dtype, device

    def __call__(self, images: Tensor) -> Tensor:
        return normalise(move(images, self._device), mean=self._mean, std=self._std, dtype=self._dtype)
