"""What a machine or a Ray cluster has, and how many tasks fit on it at once.

Ray lets a request that does not fit wait without a word, so hkrun decides before anything starts.
"""

import ctypes
import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from hkrun.errors import ResourceError

# One process of a task: Python, torch and Ray take 0.4 GiB (docs/ray.md), data and activations the rest.
BYTES_PER_PROCESS = 1 << 30

CGROUPS = Path("/sys/fs/cgroup")
# What GPU drivers bring to Linux (NVIDIA's, AMD's, WSL's, Jetson's); torch brings the rest.
CUDA_DRIVER = "libcuda.so.1"
GPU_PLACES = tuple(
    map(Path, ("/dev/nvidiactl", "/proc/driver/nvidia", "/dev/kfd", "/dev/dxg", "/dev/nvhost-ctrl"))
)


@dataclass(frozen=True, kw_only=True)
class Node:
    """What processes may use of one machine.

    Attributes:
        gpu_memory_bytes: Memory of its smallest GPU; 0 where that is not known.
        name: Ray's; empty for this machine.
    """

    cpus: int
    gpus: int
    memory_bytes: int
    gpu_memory_bytes: int = 0
    name: str = ""


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a task asks for, at least.

    Attributes:
        workers: Processes that train the task together.
        threads: CPUs of each process.
        device: "cpu", or "cuda" for one GPU per process.
        per_gpu: How many processes share a GPU where each is a task alone.
        in_groups: Whether more processes than one may train the task.
    """

    workers: int
    threads: int
    device: str
    per_gpu: int = 1
    in_groups: bool = False
    num_tasks: int = 1


def count_processes(request: Request, nodes: Iterable[Node]) -> int:
    """How many processes of such tasks fit where nothing else runs, counted node by node."""
    return sum(_room(request, node) for node in nodes)


def check_fit(requests: Sequence[Request], nodes: Sequence[Node], *, place: str) -> None:
    """Checks that each of several kinds of tasks fits where nothing else runs.

    The processes of a task may lie on several nodes; `place` is what messages call all of them.

    Raises:
        ResourceError: A line for each kind that does not fit, with what would.
    """
    rooms = [(request, count_processes(request, nodes)) for request in requests]
    problems = [
        f"{_describe_request(request)}, but {place} has {_describe_nodes(nodes)}; "
        f"{_suggest(request, nodes, room)}"
        for request, room in rooms
        if room < request.workers
    ]
    if problems:
        raise ResourceError("\n".join(problems))


def largest_pack(share_bytes: int, *, process_bytes: int, seed_bytes: int) -> int:
    """How many runs fit into one process; a run alone always may try.

    Of the memory that it may take, `process_bytes` are for what is not a run.
    """
    return max(1, (share_bytes - process_bytes) // seed_bytes)


class Share(NamedTuple):
    """What each process may take of a node's memory, or of a GPU's.

    Attributes:
        processes: How many processes share the whole.
        place: Where it is, such as " on one of the nodes"; empty for this machine.
    """

    memory_bytes: int
    processes: int
    place: str = ""


def check_pack(size: int, name: str, share: Share, *, process_bytes: int, seed_bytes: int) -> None:
    """Decides whether so many runs of a cell fit into one process; see `largest_pack`.

    Raises:
        ResourceError: They do not fit. Says what they would take, what there is, and what would fit.
    """
    fitting = largest_pack(share.memory_bytes, process_bytes=process_bytes, seed_bytes=seed_bytes)
    if size <= fitting:
        return
    needed = _gib(process_bytes + size * seed_bytes)
    raise ResourceError(
        f"--pack {size}: {size} runs of {name} take about {needed} together, but "
        f"{_count(share.processes, 'process', 'processes')} at a time{share.place} may have "
        f"{_gib(share.memory_bytes)} each; "
        f"--pack {fitting} would fit"
    )


def _room(request: Request, node: Node) -> int:
    """How many processes fit on a node."""
    limits = [node.cpus // request.threads, node.memory_bytes // BYTES_PER_PROCESS]
    if request.device == "cuda":
        limits.append(node.gpus * (request.per_gpu if request.workers == 1 else 1))
    return min(limits)


def _describe_request(request: Request) -> str:
    parts = [_count(request.threads, "CPU")]
    if request.device == "cuda":
        shared = request.workers == 1 and request.per_gpu > 1
        parts.append(f"1/{request.per_gpu} of a GPU" if shared else "1 GPU")
    each = f"{', '.join(parts)} and {_gib(BYTES_PER_PROCESS)} of memory each"
    return f"--workers {request.workers} asks for {_count(request.workers, 'process', 'processes')} of {each}"


def _describe_nodes(nodes: Sequence[Node]) -> str:
    cpus = _count(sum(node.cpus for node in nodes), "CPU")
    gpus = _count(sum(node.gpus for node in nodes), "GPU") if any(node.gpus for node in nodes) else "no GPU"
    memory = _gib(sum(node.memory_bytes for node in nodes))
    return f"{cpus}, {gpus} and {memory} of memory{_describe_spread(nodes)}"


def _describe_spread(nodes: Sequence[Node]) -> str:
    """On how many nodes it is, and on which how much, where that differs."""
    if len(nodes) < 2:
        return ""
    kinds = Counter(
        _count(node.cpus, "CPU") + (f" and {_count(node.gpus, 'GPU')}" if node.gpus else "") for node in nodes
    )
    if len(kinds) == 1:
        return f" on {len(nodes)} nodes"
    each = ", ".join(f"{number} x {kind}" if number > 1 else kind for kind, number in kinds.most_common())
    return f" on {len(nodes)} nodes ({each})"


def _suggest(request: Request, nodes: Sequence[Node], room: int) -> str:
    if room:
        return f"--workers {room} would fit"
    if request.device == "cuda" and not any(node.gpus for node in nodes):
        on_cpu = Request(workers=request.workers, threads=request.threads, device="cpu")
        fits = count_processes(on_cpu, nodes) >= request.workers
        return "device cpu would fit" if fits else "no device fits"
    threads = max((node.cpus for node in nodes if node.memory_bytes >= BYTES_PER_PROCESS), default=0)
    if 0 < threads < request.threads:
        return f"{_count(threads, 'thread')} per process would fit"
    return "not even one process fits"


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number} {one if number == 1 else many or one + 's'}"


def _gib(num_bytes: int) -> str:
    return f"{num_bytes / (1 << 30):.3g} GiB"


def local_node(*, gpus: bool) -> Node:
    """What this process may use of its machine: its CPU affinity and its control groups count.

    Looking for GPUs takes the import of torch where there may be some.
    """
    memory: float = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    quota = math.inf
    for folder in _control_groups():
        quota = min(quota, parse_cpu_max(_read(folder / "cpu.max")))
        memory = min(memory, parse_memory_max(_read(folder / "memory.max")))
    num_gpus, gpu_memory_bytes = look_at_gpus() if gpus else (0, 0)
    return Node(
        cpus=max(1, int(min(len(os.sched_getaffinity(0)), quota))),
        gpus=num_gpus,
        memory_bytes=int(memory),
        gpu_memory_bytes=gpu_memory_bytes,
    )


def parse_cpu_max(text: str) -> float:
    """CPUs that a control group's `cpu.max` grants, such as "150000 100000"; infinity without a limit."""
    quota, _, period = text.strip().partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else math.inf


def parse_memory_max(text: str) -> float:
    """Bytes that a control group's `memory.max` grants; infinity without a limit."""
    return int(text) if text.strip().isdigit() else math.inf


def _control_groups() -> list[Path]:
    """The folders of this process's control group and of all above it (version 2)."""
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        if line.startswith("0::"):
            own = CGROUPS / line[3:].strip("/")
            return [own, *(parent for parent in own.parents if parent.is_relative_to(CGROUPS))]
    return [CGROUPS]


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""


def look_at_gpus() -> tuple[int, int]:
    """How many GPUs torch can use in this process, and the memory of the smallest in bytes."""
    if not has_gpu_driver():
        return 0, 0
    import torch

    number = torch.cuda.device_count() if torch.cuda.is_available() else 0
    sizes = [torch.cuda.get_device_properties(index).total_memory for index in range(number)]
    return number, min(sizes, default=0)


def has_gpu_driver() -> bool:
    """Whether there may be a GPU for torch; costs nothing, where importing torch takes seconds."""
    if any(place.exists() for place in GPU_PLACES):
        return True
    try:
        ctypes.CDLL(CUDA_DRIVER)
    except OSError:
        return False
    return True
