"""The schedule, and the figures of an epoch."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from hkrun.training.context import Context, sum_over_workers
from hkrun.training.images import Errors, EvaluationSet, NotFiniteError


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
