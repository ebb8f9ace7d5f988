"""Where a loop runs, and how workers act as one."""

import io
import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch
import torch.distributed
from torch import Tensor, nn

from hkrun.data.streams import BlockIds, BlockViews, ReadBlock, carry_in_threads
from hkrun.errors import InputError
from hkrun.models.batchnorm import all_reduce_sum
from hkrun.models.collective import PeerLostError, all_reduce, with_peers
from hkrun.records import DivergedTeacher, Record, TeacherRecord

__all__ = [
    "Context",
    "GradientSum",
    "PeerLostError",
    "SingleProcess",
    "gather",
    "gather_rows",
    "own_part",
    "share_from_first",
    "sum_over_workers",
]

T = TypeVar("T")

# What workers send each other besides tensors and JSON's types. A message makes nothing else, so a process
# that reaches a worker's port cannot have it run code.
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
        """Reports how far the loop is; may be called after every epoch."""

    def carry(self, function: ReadBlock, requests: Sequence[BlockIds]) -> Iterator[BlockViews]:
        """Reads what lies in shards: a `hkrun.data.streams.Carrier`."""


@dataclass(frozen=True)
class SingleProcess:
    """The context of a loop in this process alone, without reports."""

    rank: int = 0
    world_size: int = 1

    def report(self, progress: Mapping[str, object]) -> None:
        """Does nothing."""

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


def own_part(size: int, context: Context) -> tuple[int, int]:
    """The first of a worker's own part of `size` things, and the one after its last."""
    return size * context.rank // context.world_size, size * (context.rank + 1) // context.world_size


def gather_rows(rows: Tensor, size: int, context: Context) -> Tensor:
    """The rows [size, ...] of a whole batch, from the rows of each worker's own part.

    A row's gradient is that of the sum of all workers' losses.
    """
    first, last = own_part(size, context)
    before, after = rows.new_zeros(first, *rows.shape[1:]), rows.new_zeros(size - last, *rows.shape[1:])
    return all_reduce_sum(torch.cat([before, rows, after]))


def share_from_first(read: Callable[[], T], context: Context) -> T:
    """What the first worker reads, for all: files come and go, so what each reads itself may differ."""
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


class GradientSum:
    """Sums gradients over the workers, so that all take the same step.

    A backend adds up what lies at the same place in memory. Workers whose networks differ, or of which one
    lacks a gradient in a batch, would silently get sums of other parameters' gradients.

    Args:
        parameters: Those of one optimiser, the same from batch to batch.
        context: Where the loop runs.

    Raises:
        InputError: The workers' parameters differ in shape, layout in memory or type.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], context: Context) -> None:
        self._parameters, self._context = parameters, context
        self._present: list[bool] | None = None
        if context.world_size > 1:
            formats = [(tuple(own.shape), own.stride(), str(own.dtype)) for own in parameters]
            if difference := _find_difference(formats, context):
                raise InputError(
                    f"the workers built different networks: of the trained parameters, {difference}"
                )

    def __call__(self) -> None:
        """Sums them, after each batch's backward pass.

        Raises:
            InputError: A parameter has a gradient on some workers only, or in some batches only.
        """
        if self._context.world_size == 1:
            return
        present = [own.grad is not None for own in self._parameters]
        if self._present is None:
            if difference := _find_difference(present, self._context):
                raise InputError(f"{_PARTLY_USED}: whether each parameter has a gradient: {difference}")
            self._present = present
        if present != self._present:
            number = next(
                i for i, pair in enumerate(zip(present, self._present, strict=True)) if len({*pair}) > 1
            )
            raise InputError(f"{_PARTLY_USED}: parameter {number} has a gradient in some batches only")
        sum_over_workers([own.grad for own in self._parameters if own.grad is not None], self._context)


_PARTLY_USED = (
    "a network that several workers train must use the same parameters in every batch (multiply what it "
    "skips by 0, or train it with --workers 1)"
)


def _find_difference(own: Sequence[object], context: Context) -> str:
    """Where the workers' lists differ, in words; nothing where they do not."""
    first, *others = gather([str(item) for item in own], context)
    for rank, other in enumerate(others, start=1):
        for number, (here, there) in enumerate(itertools.zip_longest(first, other, fillvalue="missing")):
            if here != there:
                return f"number {number} is {here} on worker 0 and {there} on worker {rank}"
    return ""
