"""Where a loop runs, and how workers act as one."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
import torch.distributed
from torch import Tensor, nn

from hkrun.data.streams import BlockIds, BlockViews, ReadBlock, carry_in_threads
from hkrun.models.collective import PeerLostError, all_reduce, with_peers

__all__ = [
    "Alone",
    "Context",
    "PeerLostError",
    "gather",
    "share_from_first",
    "sum_gradients",
    "sum_over_workers",
]

T = TypeVar("T")


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

    def carry(self, function: ReadBlock, requests: Sequence[BlockIds]) -> Iterator[BlockViews]:
        """Reads what lies in shards: a `hkrun.data.streams.Carrier`."""


@dataclass(frozen=True)
class Alone:
    """The context of a loop in this process, watched by nobody."""

    rank: int = 0
    world_size: int = 1

    def report(self, progress: Mapping[str, object]) -> None:
        """Tells nobody."""

    def carry(self, function: ReadBlock, requests: Sequence[BlockIds]) -> Iterator[BlockViews]:
        """Reads in threads of this process."""
        return carry_in_threads(function, requests)


def sum_over_workers(tensors: Sequence[Tensor], context: Context) -> None:
    """Replaces each tensor by its sum over the workers, in place, in one message."""
    if context.world_size == 1:
        return
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    all_reduce(flat)
    parts = torch.split(flat, [tensor.numel() for tensor in tensors])
    for tensor, part in zip(tensors, parts, strict=True):
        tensor.copy_(part.view_as(tensor))


def share_from_first(read: Callable[[], T], context: Context) -> T:
    """What the first worker reads, for all: what each reads for itself may differ, as files come and go."""
    if context.world_size == 1:
        return read()
    told: list[T | None] = [read() if context.rank == 0 else None]
    with with_peers():
        torch.distributed.broadcast_object_list(told)
    return told[0]  # type: ignore[return-value]


def gather(own: T, context: Context) -> list[T]:
    """What every worker has, by rank."""
    if context.world_size == 1:
        return [own]
    told: list[T | None] = [None] * context.world_size
    with with_peers():
        torch.distributed.all_gather_object(told, own)
    return told  # type: ignore[return-value]


def sum_gradients(parameters: Sequence[nn.Parameter], context: Context) -> None:
    """Sums the gradients over the workers, so that every worker takes the same step."""
    sum_over_workers([parameter.grad for parameter in parameters if parameter.grad is not None], context)
