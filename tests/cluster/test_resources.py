import math
import os
import sys
from types import SimpleNamespace

import pytest

from hkrun.cluster.nodes import resources
from hkrun.cluster.nodes.resources import (
    Node,
    Request,
    check_fit,
    count_processes,
    local_node,
    parse_cpu_max,
    parse_memory_max,
)
from hkrun.errors import ResourceError

GIB = 1 << 30


def node(cpus: int, *, gpus: int = 0, memory_gib: int = 64) -> Node:
    return Node(cpus=cpus, gpus=gpus, memory_bytes=memory_gib * GIB)


def request(workers: int = 1, *, threads: int = 1, device: str = "cpu") -> Request:
    return Request(workers=workers, threads=threads, device=device)


@pytest.mark.parametrize(
    ("asked", "nodes", "slots"),
    [
        (request(), [node(2)], 2),
        (request(2), [node(2)], 1),
        (request(2), [node(7)], 3),
        (request(threads=4), [node(7)], 1),
        (request(3, threads=2), [node(5), node(3)], 1),  # 2 + 1 processes, on two nodes
        (request(device="cuda"), [node(16, gpus=4)], 4),
        (request(2, threads=2, device="cuda"), [node(16, gpus=4), node(2, gpus=4)], 2),  # 4 + 1 processes
        (request(), [node(8, memory_gib=3)], 3),
    ],
)
def test_as_many_tasks_run_at_once_as_cpus_gpus_and_memory_of_each_node_allow(asked, nodes, slots):
    check_fit([asked], nodes, place="here")
    assert count_processes(asked, nodes) // asked.workers == slots


@pytest.mark.parametrize(
    ("asked", "nodes", "says"),
    [
        (
            request(8),
            [node(2)],
            (
                "--workers 8 asks for 8 processes of 1 CPU and 1 GiB of memory each, but here has "
                "2 CPUs, no GPU and 64 GiB of memory; --workers 2 would fit"
            ),
        ),
        (
            request(4, device="cuda"),
            [node(16, gpus=2)],
            (
                "--workers 4 asks for 4 processes of 1 CPU, 1 GPU and 1 GiB of memory each, but here has "
                "16 CPUs, 2 GPUs and 64 GiB of memory; --workers 2 would fit"
            ),
        ),
        (
            request(device="cuda"),
            [node(2)],
            (
                "--workers 1 asks for 1 process of 1 CPU, 1 GPU and 1 GiB of memory each, but here has "
                "2 CPUs, no GPU and 64 GiB of memory; device cpu would fit"
            ),
        ),
        (request(threads=4), [node(2), node(3)], "3 threads per process would fit"),
        (request(2), [node(8, memory_gib=1)], "--workers 1 would fit"),
        (request(), [node(8, memory_gib=0)], "not even one process fits"),
        (request(), [], "not even one process fits"),
    ],
)
def test_a_request_that_does_not_fit_is_refused_with_what_would(asked, nodes, says):
    with pytest.raises(ResourceError) as refusal:
        check_fit([asked], nodes, place="here")
    assert refusal.value.message.endswith(says)
    assert len(refusal.value.problems) == 1


def test_a_suggested_number_of_workers_fits():
    nodes = [node(5), node(3, memory_gib=2)]
    with pytest.raises(ResourceError, match="--workers 3 would fit"):
        check_fit([request(4, threads=2)], nodes, place="here")
    check_fit([request(3, threads=2)], nodes, place="here")


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("max 100000\n", math.inf), ("150000 100000\n", 1.5), ("", math.inf), ("junk", math.inf)],
)
def test_cpu_quota_of_a_control_group(text, cpus):
    assert parse_cpu_max(text) == cpus


@pytest.mark.parametrize(("text", "num_bytes"), [("max\n", math.inf), ("1073741824\n", GIB), ("", math.inf)])
def test_memory_limit_of_a_control_group(text, num_bytes):
    assert parse_memory_max(text) == num_bytes


def test_the_tightest_control_group_counts(tmp_path, monkeypatch):
    inner = tmp_path / "user" / "job"
    inner.mkdir(parents=True)
    (inner / "cpu.max").write_text("max 100000\n")
    (inner / "memory.max").write_text(f"{3 * GIB}\n")
    (inner.parent / "cpu.max").write_text("100000 100000\n")
    (inner.parent / "memory.max").write_text("max\n")
    monkeypatch.setattr(resources, "_control_groups", lambda: [inner, inner.parent])
    assert local_node(gpus=False) == Node(cpus=1, gpus=0, memory_bytes=3 * GIB)


def test_a_quota_below_one_cpu_still_leaves_one(tmp_path, monkeypatch):
    (tmp_path / "cpu.max").write_text("50000 100000\n")
    monkeypatch.setattr(resources, "_control_groups", lambda: [tmp_path])
    assert local_node(gpus=False).cpus == 1


def test_cpu_affinity_counts(monkeypatch):
    monkeypatch.setattr(resources, "_control_groups", list)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3, 5})
    assert local_node(gpus=False).cpus == 3


def fake_torch(*sizes_gib: int) -> SimpleNamespace:
    """Of torch, what tells GPUs of these sizes."""
    return SimpleNamespace(
        cuda=SimpleNamespace(
            is_available=lambda: bool(sizes_gib),
            device_count=lambda: len(sizes_gib),
            get_device_properties=lambda index: SimpleNamespace(total_memory=sizes_gib[index] * GIB),
        )
    )


def test_without_a_driver_there_is_no_gpu_and_torch_need_not_say_so(tmp_path, monkeypatch):
    monkeypatch.setattr(resources, "CUDA_DRIVER", "libcuda-that-is-not-there.so.1")
    monkeypatch.setattr(resources, "GPU_PLACES", (tmp_path / "kfd",))
    monkeypatch.setitem(sys.modules, "torch", None)  # its import raises
    assert local_node(gpus=True).gpus == 0


@pytest.mark.parametrize("maker", ["NVIDIA", "AMD"])
@pytest.mark.parametrize("sizes_gib", [(), (80, 40)])
def test_with_a_driver_torch_says_how_many_gpus_it_can_use(tmp_path, monkeypatch, maker, sizes_gib):
    library = "libc.so.6" if maker == "NVIDIA" else "libcuda-that-is-not-there.so.1"
    monkeypatch.setattr(resources, "CUDA_DRIVER", library)
    places = (tmp_path / "nvidiactl", tmp_path if maker == "AMD" else tmp_path / "kfd")
    monkeypatch.setattr(resources, "GPU_PLACES", places)
    monkeypatch.setitem(sys.modules, "torch", fake_torch(*sizes_gib))
    found = local_node(gpus=True)
    assert (found.gpus, found.gpu_memory_bytes) == ((2, 40 * GIB) if sizes_gib else (0, 0))
