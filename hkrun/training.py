"""What both stages of training share: the schedule, the batches of an epoch, evaluation, and work in step."""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
import torch.distributed
from torch import Tensor, nn

from hkrun import seeding
from hkrun.data import Dataset
from hkrun.data.views import ViewReader, Views, normalise

# Images per forward pass of an evaluation. On a CPU the activations should stay in the cache (on digits, 256
# images at a time take half as long as all 1,107 at once); a GPU wants many.
EVALUATION_BATCH = {"cpu": 256, "cuda": 2048}


class Context(Protocol):
    """Where a loop runs: alone, in a Tune actor, or as one of several Ray Train workers."""

    @property
    def rank(self) -> int:
        """This worker's number, from 0."""

    @property
    def world_size(self) -> int:
        """How many workers train this run together."""

    def report(self, progress: Mapping[str, object]) -> None:
        """Tells whoever watches how far the loop is; may be called after every epoch."""


@dataclass(frozen=True)
class Alone:
    """The context of a loop in this process, watched by nobody."""

    rank: int = 0
    world_size: int = 1

    def report(self, progress: Mapping[str, object]) -> None:
        """Tells nobody."""


class NotFiniteError(ArithmeticError):
    """A network's logits are no longer numbers."""


class Diverged(Exception):  # noqa: N818 - a state of the run, not an error of the program
    """The loss of a run is no longer finite.

    Args:
        message: Which loss.
        epoch: The epoch, from 1, in which it happened.
    """

    def __init__(self, message: str, epoch: int) -> None:
        super().__init__(message, epoch)
        self.epoch = epoch


def learning_rate(
    epoch: int, *, first: float, epochs: int, drops: Sequence[float], factor: float, warmup_epochs: int
) -> float:
    """The learning rate of one epoch.

    Args:
        epoch: The epoch, from 0.
        first: The rate before any drop.
        epochs: How many epochs there are.
        drops: Fractions of the epochs at which the rate is multiplied with `factor`.
        factor: See `drops`.
        warmup_epochs: Over this many epochs the rate rises linearly, from first / (warmup_epochs + 1).
    """
    # 0.7 * 10 is a little more than 7 in binary: the tolerance lets the drop be at epoch 7 all the same.
    passed = sum(epoch >= fraction * epochs - 1e-9 for fraction in drops)
    warmth = min(1.0, (epoch + 1) / (warmup_epochs + 1))
    return first * factor**passed * warmth


def resolve_dtype(precision: str) -> torch.dtype:
    """The type of parameters and images; bfloat16 keeps both in float32."""
    return torch.float64 if precision == "float64" else torch.float32


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """The context of a forward pass at this precision."""
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=precision == "bfloat16")


class Batch(NamedTuple):
    """One worker's part of a batch.

    Attributes:
        images: Normalised views, [B, C, H, W].
        labels: Class of each image, [B].
        share: B over the size of the whole batch: weights this worker's mean loss, so that the sum over the
            workers is the mean over the whole batch.
    """

    images: Tensor
    labels: Tensor
    share: float


class TrainingSet:
    """The training images on their device, with the order and the views of each epoch.

    Order and views come from generators of (seed, purpose, epoch) on the CPU: they are the same on every
    device, whatever the number of workers, and need no state in a checkpoint.
    """

    def __init__(self, dataset: Dataset, views: Views, *, dtype: torch.dtype, device: torch.device) -> None:
        self._views = views
        self._labels = dataset.train.labels.to(device)
        self._reader = ViewReader(
            dataset.train.images, views=views, mean=dataset.mean, std=dataset.std, dtype=dtype, device=device
        )
        self._device = device

    def batches(
        self,
        seed: int,
        epoch: int,
        *,
        batch_size: int,
        order: seeding.Purpose,
        augmentation: seeding.Purpose,
        context: Context,
    ) -> Iterator[Batch]:
        """The batches of one epoch, from 0; the last short batch is dropped.

        Each worker gets its contiguous part of every batch, so each image is seen by exactly one of them.
        """
        num_images = len(self._labels)
        generator = torch.Generator().manual_seed(seeding.derive(seed, order, epoch))
        image_ids = torch.randperm(num_images, generator=generator).to(self._device)
        generator.manual_seed(seeding.derive(seed, augmentation, epoch))
        view_ids = self._views.draw(generator, num_images).to(self._device)
        first = batch_size * context.rank // context.world_size
        last = batch_size * (context.rank + 1) // context.world_size
        for start in range(0, num_images - batch_size + 1, batch_size):
            part = slice(start + first, start + last)
            ids = image_ids[part]
            yield Batch(self._reader(ids, view_ids[part]), self._labels[ids], (last - first) / batch_size)


class Errors(NamedTuple):
    """Shares of wrongly classified images, in percent; top-5 only where there are more than ten classes."""

    top1_pct: float
    top5_pct: float | None


class EvaluationSet:
    """Images to evaluate on, without augmentation, normalised once."""

    def __init__(
        self, images: Tensor, labels: Tensor, dataset: Dataset, *, dtype: torch.dtype, device: torch.device
    ) -> None:
        self._images = normalise(images.to(device), mean=dataset.mean, std=dataset.std, dtype=dtype)
        self._labels = labels.to(device)
        self._top5 = dataset.num_classes > 10

    @torch.no_grad()
    def evaluate(self, network: nn.Module, *, precision: str, context: Context) -> Errors:
        """Errors of a network in eval mode; its mode is restored. Each worker takes a part of the images.

        Raises:
            NotFiniteError: A logit is NaN: there is no class to take for the answer.
        """
        was_training = network.training
        network.eval()
        wrong = torch.zeros(3, dtype=torch.int64, device=self._labels.device)  # top-1, top-5, not a number
        first = len(self._labels) * context.rank // context.world_size
        last = len(self._labels) * (context.rank + 1) // context.world_size
        size = EVALUATION_BATCH[self._images.device.type]
        for start in range(first, last, size):
            part = slice(start, min(start + size, last))
            with autocast(precision, self._images.device):
                logits = network(self._images[part]).logits
            labels = self._labels[part]
            wrong[0] += (logits.argmax(1) != labels).sum()
            wrong[2] += logits.isnan().any(1).sum()
            if self._top5:
                wrong[1] += (logits.topk(5, dim=1).indices != labels[:, None]).all(1).sum()
        if context.world_size > 1:
            torch.distributed.all_reduce(wrong)
        network.train(was_training)
        top1, top5, undefined = (100.0 * count / len(self._labels) for count in wrong.tolist())
        if undefined:
            raise NotFiniteError(f"the logits of {undefined:.2f} % of the images are not numbers")
        return Errors(top1, top5 if self._top5 else None)


def evaluate_epoch(
    images: EvaluationSet, network: nn.Module, *, epoch: int, precision: str, context: Context
) -> Errors:
    """The errors after an epoch, counted from 1.

    Raises:
        Diverged: The network answers with NaN. Its last step made it so: the losses were taken before that.
    """
    try:
        return images.evaluate(network, precision=precision, context=context)
    except NotFiniteError as error:
        raise Diverged(f"{error} after epoch {epoch}", epoch) from error


def sum_over_workers(tensors: Sequence[Tensor], context: Context) -> None:
    """Replaces each tensor by its sum over the workers, in place, in one message."""
    if context.world_size == 1:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    torch.distributed.all_reduce(flat)
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))


def sum_gradients(parameters: Sequence[nn.Parameter], context: Context) -> None:
    """Sums the gradients over the workers, so that every worker takes the same step."""
    sum_over_workers([parameter.grad for parameter in parameters if parameter.grad is not None], context)


class Averages:
    """Means over the batches of an epoch, kept on the device: reading them is the epoch's only wait."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._names: tuple[str, ...] = ()
        self._sums: Tensor | None = None
        self._count = 0

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Adds the scalars of one batch, weighted with the share of it; the same ones each time."""
        stacked = torch.stack([value.detach() for value in values.values()]).double()
        self._names = tuple(values)
        self._sums = stacked if self._sums is None else self._sums + stacked
        self._count += 1

    def read(self, *, epoch: int) -> dict[str, float]:
        """The means over batches and workers.

        Raises:
            Diverged: A mean is not finite.
        """
        if self._sums is None:
            return {}
        sum_over_workers([self._sums], self._context)
        means = dict(zip(self._names, (self._sums / self._count).tolist(), strict=True))
        for name, mean in means.items():
            if not math.isfinite(mean):
                raise Diverged(f"{name} is {mean} in epoch {epoch}", epoch)
        return means
