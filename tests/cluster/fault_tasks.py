"""Tasks that fail in ways that nobody reports, in a module that Ray's processes can import."""

import os
import signal
import time

from fake_tasks import attempt


def run(task, context):
    """Reports two epochs, lets what the task does happen at its first attempt, and ends well."""
    first = attempt(task, context) == 1
    for epoch in (1, 2):
        context.report({"epoch": epoch, "epochs": 3, "error_pct": 1.0})
        time.sleep(0.3)
    if first or task.does.endswith("_always"):
        globals()[task.does](context)
    context.report({"epoch": 3, "epochs": 3, "error_pct": 1.0})
    return [{"seed": 0, "status": "finished", "error_last_pct": 1.0, "epochs": 3}]


def nothing(context):
    """No fault."""


def stop(context):
    """The process is stopped, as by SIGSTOP from outside; of a group, its second worker."""
    if context.rank == context.world_size - 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    wait(context)


def hang(context):
    """It waits for ever, as in a collective that a peer never enters."""
    if context.rank == context.world_size - 1:
        time.sleep(3600)
    wait(context)


hang_always = hang


def lose_device(context):
    """Its GPU is of no use any more, as after an error that CUDA never forgets in a process."""
    import torch

    raise torch.AcceleratorError("CUDA error: an illegal memory access was encountered\nand more")


def wait(context):
    """The others of a group wait for it."""
    if context.world_size > 1:
        import torch

        torch.distributed.barrier()
