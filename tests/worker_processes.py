"""Processes of a group of workers, forked from one that has imported what they need: that takes seconds."""

import time
from collections.abc import Callable

import torch.multiprocessing as mp

mp.get_context("forkserver").set_forkserver_preload(["pytest", "torch.distributed", "hkrun.distill"])

_PATIENCE = 200.0  # seconds, on a machine that does much else


def start_workers(function: Callable[..., object], *given: object, number: int) -> None:
    """Calls a function with its rank and what is given in each of some processes, until all have ended.

    Raises:
        TimeoutError: They wait for each other; they are killed.
        mp.ProcessRaisedException: One of them failed.
        mp.ProcessExitedException: One of them ended in its middle.
    """
    workers = mp.start_processes(function, given, nprocs=number, join=False, start_method="forkserver")
    deadline = time.monotonic() + _PATIENCE
    while not workers.join(timeout=1.0):
        if time.monotonic() > deadline:
            for process in workers.processes:
                process.kill()
            raise TimeoutError(f"{number} workers did not end within {_PATIENCE} seconds")
