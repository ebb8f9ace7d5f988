"""The figures of an epoch."""

import math
from collections.abc import Mapping, Sequence
from typing import Protocol, TypeVar

import torch
from torch import Tensor

from hkrun.training.context import Context, sum_over_workers
from hkrun.training.images import Errors, describe_undefined


class Diverged(Exception):  # noqa: N818 - a state of the run, not an error of the program
    """The loss of a run is no longer finite.

    Its arguments say which loss, and in which epoch, from 1.
    """

    def __init__(self, message: str, epoch: int) -> None:
        super().__init__(message, epoch)
        self.epoch = epoch


def find_divergence(figures: Mapping[str, float], errors: Errors, *, epoch: int) -> Diverged | None:
    """Whether a network's epoch, counted from 1, went beyond what is finite.

    Args:
        figures: Means over the epoch's batches.
        errors: After it. Where the network answers with NaN, its last step made it so.
        epoch: Which epoch.
    """
    for name, mean in figures.items():
        if not math.isfinite(mean):
            return Diverged(f"{name} is {mean} in epoch {epoch}", epoch)
    if errors.undefined_pct:
        return Diverged(f"{describe_undefined(errors)} after epoch {epoch}", epoch)
    return None


class InTraining(Protocol):
    """A network in training."""

    diverged: Diverged | None

    @property
    def epoch(self) -> int:
        """How many epochs are finished."""


N = TypeVar("N", bound=InTraining)


def find_behind(runs: Sequence[N], *, epochs: int) -> tuple[N, ...]:
    """Of the runs that are not over, those with the fewest epochs: they train together next."""
    unfinished = [run for run in runs if run.diverged is None and run.epoch < epochs]
    epoch = min((run.epoch for run in unfinished), default=0)
    return tuple(run for run in unfinished if run.epoch == epoch)


class Averages:
    """Means over the batches of an epoch, kept on the device: reading them is the epoch's only wait."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._names: tuple[str, ...] = ()
        self._sums: Tensor | None = None
        self._count = 0

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Adds the figures of one batch, [k] each, weighted with the share of it; the same ones each time."""
        stacked = torch.stack([value.detach() for value in values.values()]).double()
        self._names = tuple(values)
        self._sums = stacked if self._sums is None else self._sums + stacked
        self._count += 1

    def read(self) -> list[dict[str, float]]:
        """The means over batches and workers, of each of the k."""
        assert self._sums is not None, "an epoch has at least one batch"
        sum_over_workers([self._sums], self._context)
        return [dict(zip(self._names, own, strict=True)) for own in (self._sums / self._count).T.tolist()]
