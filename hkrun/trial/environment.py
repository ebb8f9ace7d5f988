"""What the bits of a result depend on besides cell, seed and pack: torch's settings and where it runs."""

import functools
import importlib.metadata
import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

import hkrun
from hkrun.code_identity import find_code
from hkrun.git_state import read_state
from hkrun.processor import processor_name
from hkrun.trial.task import Task

# In a job on a cluster: the commit of the code that was sent, and whether it was changed since.
CODE_VARIABLE = "HKRUN_CODE"


@contextmanager
def reproducible(threads: int) -> Iterator[None]:
    """Settings of torch under which the same task gives the same bits; undone afterwards."""
    cudnn, filling = torch.backends.cudnn, torch.utils.deterministic
    before = (
        torch.get_num_threads(),
        torch.get_deterministic_debug_mode(),
        (cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32),
        filling.fill_uninitialized_memory,  # type: ignore[attr-defined]
    )
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # else CUDA refuses to be deterministic
    torch.set_num_threads(threads)
    # As use_deterministic_algorithms(True), which also imports the compiler: half of a start.
    torch.set_deterministic_debug_mode("error")
    cudnn.deterministic, cudnn.benchmark = True, False
    cudnn.allow_tf32 = False  # float32 means float32
    # Nothing here reads what it has not written, and filling costs 5 % of a step.
    filling.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.set_deterministic_debug_mode(before[1])
        cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = before[2]
        filling.fill_uninitialized_memory = before[3]  # type: ignore[attr-defined]


def describe_environment(task: Task, *, world_size: int) -> dict[str, Any]:
    """Versions, code, device, processor, threads and number of workers, by their names in the records."""
    versions = {"python": platform.python_version(), **describe_code()}
    for name in ("torch", "torchvision", "numpy", "numba", "ray"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    on_gpu = task.device == "cuda"
    return {
        "versions": versions,
        "device": torch.cuda.get_device_name() if on_gpu else f"cpu {platform.machine()}",
        "processor": "" if on_gpu else processor_name(),
        "threads": task.threads,
        "world_size": world_size,
    }


def describe_code() -> dict[str, str]:
    """The versions of hkrun: its own, those of numbers and source, and the commit in a repository."""
    commit = os.environ.get(CODE_VARIABLE) or _find_commit()
    return {"hkrun": hkrun.__version__, **find_code().entries(), **({"code": commit} if commit else {})}


@functools.cache
def _find_commit() -> str:
    """The commit that hkrun runs from, and whether it was changed since; empty outside a repository."""
    state = read_state(Path(hkrun.__file__).parent)
    return "" if state is None else state.label
