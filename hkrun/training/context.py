"""Where a loop runs, and how workers act as one."""

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed
from torch import Tensor, nn

from hkrun.data.streams import BlockIds, BlockViews, ReadBlock, carry_in_threads
from hkrun.models.collective import PeerLostError, all_reduce, with_peers
from hkrun.store import DivergedTeacher, Record, TeacherRecord

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

# What workers tell each other besides tensors and what JSON knows. Nothing else is made of a message, so that
# whoever reaches a worker's port cannot have it run code.
TOLD: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [Record, TeacherRecord, DivergedTeacher]


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
    first = context.rank == 0
    value = read() if first else None
    own = _pack(value)
    size = torch.tensor([len(own)], device=own.device)
    with with_peers():
        torch.distributed.broadcast(size, 0)
        message = own if first else own.new_empty(int(size))
        torch.distributed.broadcast(message, 0)
    return value if first else _unpack(message)  # type: ignore[return-value]


def gather(own: T, context: Context) -> list[T]:
    """What every worker has, by rank."""
    if context.world_size == 1:
        return [own]
    packed = _pack(own)
    size = torch.tensor([len(packed)], device=packed.device)
    sizes = [torch.empty_like(size) for _ in range(context.world_size)]
    with with_peers():
        torch.distributed.all_gather(sizes, size)
        longest = int(torch.cat(sizes).max())
        padded = nn.functional.pad(packed, (0, longest - len(packed)))
        told = [torch.empty_like(padded) for _ in sizes]
        torch.distributed.all_gather(told, padded)
    return [_unpack(message[: int(size)]) for message, size in zip(told, sizes, strict=True)]


def _pack(value: object) -> Tensor:
    """A value as bytes, uint8 [length], where the group's backend takes them: NCCL on this worker's GPU."""
    buffer = io.BytesIO()
    torch.save(value, buffer)
    on_gpu = torch.distributed.get_backend() == "nccl"
    message = torch.frombuffer(buffer.getbuffer(), dtype=torch.uint8)
    return message.cuda() if on_gpu else message


def _unpack(message: Tensor) -> Any:
    """The value again; raises pickle.UnpicklingError for what is none of TOLD, tensors and JSON's types."""
    with torch.serialization.safe_globals(TOLD):
        return torch.load(io.BytesIO(message.cpu().numpy().tobytes()), weights_only=True)


def sum_gradients(parameters: Sequence[nn.Parameter], context: Context) -> None:
    """Sums the gradients over the workers, so that every worker takes the same step."""
    sum_over_workers([parameter.grad for parameter in parameters if parameter.grad is not None], context)
