"""Processes of a group of workers, forked from one that has imported what they need: that takes seconds."""

from collections.abc import Callable

import torch.multiprocessing as mp

mp.get_context("forkserver").set_forkserver_preload(["pytest", "torch.distributed", "hkrun.distill"])


def start_workers(function: Callable[..., object], *given: object, number: int) -> None:
    """Calls a function with its rank and what is given in each of some processes, until all have ended.

    Raises:
        mp.ProcessRaisedException: One of them failed.
        mp.ProcessExitedException: One of them ended in its middle.
    """
    mp.start_processes(function, given, nprocs=number, start_method="forkserver")
