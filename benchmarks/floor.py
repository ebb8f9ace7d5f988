"""The floor of a step: what it computes and moves, against what this machine reaches.

The machine is asked with one large matrix product and one large copy. A step is asked with a look at every
operation that it runs: its floating-point operations, and the bytes of the tensors that it reads and writes.
An operation takes at least as long as the slower of the two; the floor is the sum over the operations. Better
than this floor is only to fuse operations, so that less is read and written.
"""

import math
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

SIDE = {"cpu": 2_048, "cuda": 8_192}  # of the matrices
COPIED_BYTES = {"cpu": 2**28, "cuda": 2**31}  # far more than any cache


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What one process reaches: FLOP/s in float32, and bytes read and written per second."""

    flops_per_s: float
    bytes_per_s: float


@dataclass(frozen=True, kw_only=True)
class Work:
    """What a step does: operations, FLOPs, bytes read and written; and its floor in seconds."""

    operations: int
    flops: int
    bytes: int
    floor_s: float


Clock = Callable[[], float]  # seconds


def measure_machine(device: torch.device, *, repeats: int = 7, clock: Clock = time.perf_counter) -> Machine:
    """Times a matrix product and a copy; the medians."""
    side, size = SIDE[device.type], COPIED_BYTES[device.type]
    one, other = (torch.randn(side, side, device=device) for _ in range(2))
    source = torch.ones(size // 4, device=device)
    target = torch.empty_like(source)
    product_s = time_median(lambda: one @ other, device, repeats, clock)
    copy_s = time_median(lambda: target.copy_(source), device, repeats, clock)
    return Machine(flops_per_s=2 * side**3 / product_s, bytes_per_s=2 * size / copy_s)


def time_median(function: Callable[[], object], device: torch.device, repeats: int, clock: Clock) -> float:
    """Median seconds of a call, after one that is not counted."""
    seconds = []
    for _ in range(repeats + 1):
        synchronise(device)
        started = clock()
        function()
        synchronise(device)
        seconds.append(clock() - started)
    return statistics.median(seconds[1:])


def synchronise(device: torch.device) -> None:
    """Waits until the device has done everything."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def measure_work(step: Callable[[], object], machine: Machine) -> Work:
    """Runs a step once and counts."""
    with _Counter(machine) as counter:
        step()
    return Work(
        operations=counter.operations, flops=counter.flops, bytes=counter.bytes, floor_s=counter.floor_s
    )


class _Counter(TorchDispatchMode):
    """Adds up every operation that reaches the device, of the backward pass too; views are none."""

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self.machine = machine
        self.operations = self.flops = self.bytes = 0
        self.floor_s = 0.0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        if func.is_view:
            return result
        flops = _count_flops(func, args, kwargs, result)
        moved = _count_bytes(tree_leaves((args, kwargs))) + _count_bytes(tree_leaves(result))
        self.operations += 1
        self.flops += flops
        self.bytes += moved
        self.floor_s += max(flops / self.machine.flops_per_s, moved / self.machine.bytes_per_s)
        return result


def _count_flops(func: Any, args: Any, kwargs: dict[str, Any], result: Any) -> int:
    """FLOPs of an operation; torch's own count of a convolution's backward pass forgets its groups."""
    if func is torch.ops.aten.convolution_backward.default:
        gradient, _, weights, *_, needed = args
        return int(2 * gradient.numel() * math.prod(weights.shape[1:]) * (needed[0] + needed[1]))
    count = flop_registry.get(func._overloadpacket)
    return 0 if count is None else int(count(*args, **kwargs, out_val=result))


def _count_bytes(values: Iterable[object]) -> int:
    return sum(value.numel() * value.element_size() for value in values if isinstance(value, Tensor))
