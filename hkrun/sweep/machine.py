"""What a sweep runs on: nodes, threads, a device, slots, a place for logs."""

import os
import stat
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hkrun.errors import ResourceError
from hkrun.plans import Span
from hkrun.store import Store

if TYPE_CHECKING:
    from hkrun.cluster import Node, Request
    from hkrun.cluster.nodes.resources import Share

# One thread per process, whatever the machine: as many runs as cores use them better than threads would, and
# the number of threads decides the last bits of a result.
THREADS = 1

THIS_MACHINE = "this machine"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """This machine, or the cluster that the process joins; see `hkrun.cluster.find_address`.

    Attributes:
        nodes: What it has.
        place: What to call it in a message.
        device: "cuda" where torch can use a GPU, else "cpu".
        per_gpu: How many processes share a GPU where each is a task alone.
    """

    nodes: tuple["Node", ...]
    place: str = THIS_MACHINE
    device: str = "cpu"
    per_gpu: int = 1

    @property
    def is_this_one(self) -> bool:
        """Whether it is no cluster that is joined, whose processors are others."""
        return self.place == THIS_MACHINE

    @property
    def slots(self) -> int:
        """How many processes fit at a time, each a task alone; at least 1."""
        return max(1, self._count(self._request(1)))

    @property
    def group_slots(self) -> int:
        """How many processes fit at a time of tasks that several do together; at least 1."""
        return max(1, self._count(self._request(2)))

    def check(self, spans: Iterable[Span]) -> None:
        """Checks that tasks of so many processes fit where nothing else runs.

        Raises:
            ResourceError: One does not. Says what was asked for, what there is, and what would fit.
        """
        from hkrun.cluster.nodes.resources import check_fit

        least = sorted({span.least for span in spans})
        check_fit([self._request(number) for number in least], self.nodes, place=self.place)

    def tasks_at_once(self, spans: Iterable[Span]) -> int:
        """How many tasks of that kind run at a time of which most do."""
        return max(
            [
                self.slots if span.alone else self.group_slots // max(1, span.within(self.group_slots))
                for span in spans
            ],
            default=self.slots,
        )

    def find_share(self) -> "Share | None":
        """The memory that each process may take on any node; None where that is not known."""
        from hkrun.cluster.nodes.resources import Share

        place = " on one of the nodes" if len(self.nodes) > 1 else ""
        shares: list[Share] = []
        for node in self.nodes:
            on_gpu = self.device == "cuda"
            number = self.per_gpu if on_gpu else self._count(self._request(1), [node])
            memory_bytes = node.gpu_memory_bytes if on_gpu else node.memory_bytes
            if number and memory_bytes:
                shares.append(Share(memory_bytes // number, number, place))
        return min(shares) if shares else None

    def _count(self, request: "Request", nodes: "Iterable[Node] | None" = None) -> int:
        from hkrun.cluster.nodes.resources import count_processes

        return count_processes(request, self.nodes if nodes is None else nodes)

    def _request(self, workers: int) -> "Request":
        from hkrun.cluster import Request

        return Request(workers=workers, threads=THREADS, device=self.device, per_gpu=self.per_gpu)


def find_machine(store: Store | None, *, per_gpu: int = 1) -> Machine:
    """Looks at this machine, or at the cluster of `hkrun.cluster.find_address`.

    Args:
        store: Where what Ray says of a cluster goes; see `log_folder_of`. Of this machine nothing is written.
        per_gpu: How many processes share a GPU where each is a task alone.

    Raises:
        ResourceError: The cluster cannot be reached.
    """
    from hkrun.cluster import find_address, find_nodes

    if find_address() is not None:
        nodes, place = find_nodes(log_folder=log_folder_of(store))
    else:
        from hkrun.cluster.nodes.resources import local_node

        nodes, place = [local_node(gpus=True)], THIS_MACHINE
    device = "cuda" if any(node.gpus for node in nodes) else "cpu"
    return Machine(nodes=tuple(nodes), place=place, device=device, per_gpu=per_gpu)


def log_folder_of(store: Store | None) -> Path:
    """Logs are files of this machine: beside the records where those are too, else in a folder of the user's.

    Raises:
        ResourceError: Another account has made that folder, or it cannot be made.
    """
    if store is not None and store.local_path is not None:
        return store.local_path / "logs"
    folder = Path(tempfile.gettempdir()) / f"hkrun-logs-{os.getuid()}"
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        found = folder.lstat()  # all accounts share the parent: a link may have been planted
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
            raise ResourceError(
                f"{folder}: is a link or another account's, and logs are not written there; "
                "remove it, or name another folder for temporary files with TMPDIR"
            )
        folder.chmod(0o700)
    except OSError as error:
        raise ResourceError(f"{folder}: no place for logs ({error.strerror}); TMPDIR may name one") from error
    return folder
