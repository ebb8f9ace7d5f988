"""The teacher as the training loop calls it, and the one that runs on every batch."""

from typing import Protocol

import torch
from torch import Tensor

from hkrun.models import DistilledNetwork, Output
from hkrun.training import autocast


class Views(Protocol):
    """Views of images, and which they are. A `Batch` of the loop is one."""

    @property
    def images(self) -> Tensor:
        """Normalised views, shape [..., C, H, W]."""

    @property
    def image_ids(self) -> Tensor | None:
        """Number of each view's image, int64 on the CPU, shape [...]; None where images are streamed."""

    @property
    def view_ids(self) -> Tensor | None:
        """Number of each view among those of its image, likewise."""


class Teaching(Protocol):
    """A frozen teacher, as the loop calls it."""

    def __call__(self, batch: Views) -> Output:
        """The teacher's outputs for a batch, without gradients.

        Leading dimensions are those of the batch; fields that the cell does not compare may be None.
        """

    def take_alarms(self) -> list[str]:
        """Ends a loop, once for all runs that trained in it.

        Returns:
            What looked wrong in it, one line each, for the records of its runs.
        """


class LiveTeacher:
    """A teacher that runs on every batch.

    Args:
        network: Frozen and in eval mode.
        precision: As of the cell.
        alarm: Why it runs live where it need not, for the record of each run; empty where that is as wanted.
    """

    def __init__(self, network: DistilledNetwork, *, precision: str, alarm: str = "") -> None:
        self._network, self._precision, self._alarm = network, precision, alarm

    def __call__(self, batch: Views) -> Output:
        """See `Teaching`."""
        batch_shape = batch.images.shape[:-3]
        output = infer(self._network, batch.images.flatten(0, -4), precision=self._precision)
        return Output(*(_unflatten(field, batch_shape) for field in output))  # type: ignore[arg-type]

    def take_alarms(self) -> list[str]:
        """See `Teaching`."""
        return [self._alarm] if self._alarm else []


def infer(network: DistilledNetwork, images: Tensor, *, precision: str) -> Output:
    """A network's outputs for images [B, C, H, W], without gradients.

    All but the maps has the type of the images, whatever the precision of the forward pass.
    """
    with torch.no_grad(), autocast(precision, images.device):
        output: Output = network(images)
    return output._replace(
        logits=output.logits.to(images.dtype),
        knowledge=None if output.knowledge is None else output.knowledge.to(images.dtype),
        descriptor=output.descriptor.to(images.dtype),
    )


def _unflatten(field: Tensor | tuple[Tensor, ...] | None, batch_shape: torch.Size) -> object:
    if field is None:
        return None
    if isinstance(field, tuple):
        return tuple(_unflatten(maps, batch_shape) for maps in field)
    return field.reshape(*batch_shape, *field.shape[1:])
