"""How many processes of tasks have room now, node by node. Ray places them; this counts.

Ray (2.60) queues what has no room. But trials that wait for their workers in Ray hold what they have, and may
wait for one another for ever; so a task begins only when all its processes have room. And a group of MIN:MAX
workers takes what is free when it begins. Ray Train's own elastic groups do so too, but each for itself and
slowly after the loss of a node (docs/data-parallel.md).
"""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum

from hkrun.cluster.nodes.resources import BYTES_PER_PROCESS, Node
from hkrun.plans import Span

logger = logging.getLogger("hkrun")

# A lost node may come back, or another one in its place; a sweep that can go on later need not wait longer.
WAIT_FOR_ROOM_S = 600.0


class Fit(Enum):
    """Whether a task may begin."""

    NOW = "there is room"
    LATER = "there will be when others have ended"
    NOT_HERE = "not even with nothing else running"


@dataclass(frozen=True)
class _Slot:
    """What one process holds: a node, and shares of one of its GPUs."""

    node: str
    gpu: int | None = None
    shares: int = 0


@dataclass
class _Free:
    """What a node has left: processes by CPUs and memory, and shares of each GPU (None on CPUs)."""

    processes: int
    shares: list[int] | None


class Slots:
    """What the nodes have, and which task holds how much of it.

    A task of one process may share its GPU; a worker of a group has one to itself, as NCCL demands.
    """

    def __init__(self, nodes: Sequence[Node], *, threads: int, device: str, per_gpu: int = 1) -> None:
        self._threads, self._on_gpu, self._per_gpu = threads, device == "cuda", per_gpu
        self._seats: dict[int, list[_Slot]] = {}  # by task
        self.resize(nodes)

    def resize(self, nodes: Sequence[Node]) -> None:
        """From now on there are these nodes; what ran on others is gone."""
        self._nodes = {node.name or str(number): node for number, node in enumerate(nodes)}
        self._empty, self._free = self._measure({}), self._measure(self._seats)

    def fit(self, span: Span) -> Fit:
        """Whether a task of so many processes may begin."""
        if self.find(span):
            return Fit.NOW
        return Fit.LATER if _find(self._empty, span, self._per_gpu) else Fit.NOT_HERE

    def find(self, span: Span) -> int:
        """How many processes a task gets if it begins now; 0 if it must wait."""
        return _find(self._free, span, self._per_gpu)

    @property
    def size(self) -> int:
        """How many processes fit with nothing else running, each with a GPU to itself."""
        return _count_whole(self._empty, self._per_gpu)

    def take(self, task: int, number: int) -> None:
        """Notes that a task begins with so many processes."""
        seats: list[_Slot] = []
        for _ in range(number):
            seat = self._choose_seat(1 if number == 1 else self._per_gpu)
            if seat is None:  # it waits in Ray
                break
            seats.append(seat)
            self._occupy(self._free, seat)
        self._seats[task] = seats

    def release(self, task: int) -> None:
        """Notes that a task holds nothing more."""
        if self._seats.pop(task, None):
            self._free = self._measure(self._seats)

    def _measure(self, seats: Mapping[int, Sequence[_Slot]]) -> dict[str, _Free]:
        """What each node has left beside the seats that are held."""
        free = {
            name: _Free(
                min(node.cpus // self._threads, node.memory_bytes // BYTES_PER_PROCESS),
                [self._per_gpu] * node.gpus if self._on_gpu else None,
            )
            for name, node in self._nodes.items()
        }
        for held in seats.values():
            for seat in held:
                self._occupy(free, seat)
        return free

    def _occupy(self, free: Mapping[str, _Free], seat: _Slot) -> None:
        node = free.get(seat.node)
        if node is None:
            return
        node.processes -= 1
        if node.shares is not None and seat.gpu is not None and seat.gpu < len(node.shares):
            node.shares[seat.gpu] -= seat.shares

    def _choose_seat(self, shares: int) -> _Slot | None:
        """A place for one process, on the fullest GPU that has so many shares left, as Ray chooses."""
        best: tuple[int, _Slot] | None = None
        for name, node in self._free.items():
            if node.processes < 1:
                continue
            if node.shares is None:
                return _Slot(name)
            for gpu, left in enumerate(node.shares):
                if left >= shares and (best is None or left < best[0]):
                    best = left, _Slot(name, gpu, shares)
        return best[1] if best else None


class Allocation:
    """Which task gets how many processes: the free slots, and the tries that found them taken.

    `shared`: nodes come and go, and other users have processes there that `slots` does not know.
    """

    def __init__(
        self,
        spans: Sequence[Span],
        slots: Slots,
        *,
        shared: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spans, self._slots, self._clock = spans, slots, clock
        self.shared = shared
        self._bounds: dict[int, int] = {}  # of tasks for which Ray had less room than `slots` counts
        self._waits: dict[int, float] = {}  # since when there has been no room for a task
        self._told_of_others = False

    def fit(self, task: int) -> Fit:
        """Whether a task may begin."""
        return self._slots.fit(self._spans[task])

    def take(self, task: int) -> int:
        """Gives a task, which fits, its processes; returns how many."""
        span = self._spans[task]
        number = max(span.least, min(self._slots.find(span), self._bounds.get(task, self._slots.size + 1)))
        self._slots.take(task, number)
        return number

    def release(self, task: int) -> None:
        """Takes them back."""
        self._slots.release(task)

    def resize(self, nodes: Sequence[Node]) -> None:
        """From now on there are these nodes."""
        self._slots.resize(nodes)

    def had_no_room(self, task: int, number: int) -> bool:
        """Notes that Ray had no room for so many processes; on a shared cluster the next try asks for half.

        On this machine alone Ray is only late, on which the number of workers must not depend. Returns
        whether there will be a next try: not after WAIT_FOR_ROOM_S without room.
        """
        if self.shared:
            self._bounds[task] = max(1, number // 2)
        if not self.shared or self.fit(task) is Fit.NOT_HERE:
            return not self._waits_too_long(task)
        self._waits.pop(task, None)
        if not self._told_of_others:
            self._told_of_others = True
            logger.warning("others use the cluster too: tasks of several processes wait until they have room")
        return True

    def had_room(self, task: int) -> None:
        """Notes that a task has begun, or has died of something else."""
        self._bounds.pop(task, None)
        self._waits.pop(task, None)

    def find_hopeless(self, misfits: Sequence[int]) -> list[int]:
        """Those of the tasks that fit nowhere now which have waited for too long."""
        if fresh := [task for task in misfits if task not in self._waits]:
            logger.warning(
                "%d of the tasks wait: %s; they are given up after %.0f minutes",
                len(fresh),
                self.describe_lack(fresh[0]),
                WAIT_FOR_ROOM_S / 60,
            )
        for task in [task for task in self._waits if self.fit(task) is not Fit.NOT_HERE]:
            del self._waits[task]
        return [task for task in misfits if self._waits_too_long(task)]

    def describe_lack(self, task: int) -> str:
        """What a task wants and what there is."""
        least = self._spans[task].least
        return (
            f"it needs room for {least} process{'es' * (least > 1)}, and there is room for {self._slots.size}"
        )

    def _waits_too_long(self, task: int) -> bool:
        now = self._clock()
        return now - self._waits.setdefault(task, now) >= WAIT_FOR_ROOM_S


def _find(free: Mapping[str, _Free], span: Span, per_gpu: int) -> int:
    number = 0 if span.alone else span.within(_count_whole(free, per_gpu))
    if number > 1:
        return number
    any_share = any(
        node.processes > 0 and (node.shares is None or max(node.shares, default=0) > 0)
        for node in free.values()
    )
    return 1 if span.least == 1 and any_share else 0


def _count_whole(free: Mapping[str, _Free], per_gpu: int) -> int:
    """How many processes fit, each with a GPU to itself."""
    return sum(
        max(0, node.processes if node.shares is None else min(node.processes, node.shares.count(per_gpu)))
        for node in free.values()
    )
