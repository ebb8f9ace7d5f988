"""A list of tasks, from Ray's start to its end."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hkrun.cluster.driver.calls import Function, Observer
from hkrun.cluster.driver.runtime import Running
from hkrun.cluster.driver.supervisor import call_driver
from hkrun.cluster.nodes.resources import Process
from hkrun.cluster.trials.axes import EarlyStopping, Search
from hkrun.cluster.trials.schedule import TaskResult
from hkrun.errors import Interrupted
from hkrun.plan import Span
from hkrun.trial import Task, run_task


def run_tasks(
    tasks: Sequence[Task],
    *,
    workers: int | Sequence[Span],
    observer: Observer,
    fail_fast: bool,
    log_folder: Path,
    needs: Mapping[int, int] | None = None,
    search: Search | None = None,
    early_stopping: EarlyStopping | None = None,
    per_gpu: int = 1,
    function: Function = run_task,
) -> list[TaskResult]:
    """Runs every task once, as many at a time as fit, all under one start of Ray.

    A function that raises is at fault itself, and is not called again; a DataError or a StoreError, which no
    other task would fare better with, stops everything and is in the task's result. A process that dies is
    replaced twice, and the function called again with the same task: it finds its own checkpoints.

    Args:
        tasks: What to do, all with the same threads and device.
        workers: How many processes train one task together: a number for all, or a span for each, of which a
            task gets what has room when it begins, and anew when it is tried again. One: the function is
            called in a Tune actor that goes on to the next task. More: in the workers of a Ray Train group,
            with torch.distributed.
        observer: Who is told. What it raises is logged and forgotten.
        fail_fast: Whether the first failed result stops everything.
        log_folder: Where Ray and the tasks write what they have to say.
        needs: For a task that builds on another one's result, that one's index: it waits for it, and is left
            out unless all of the other one's outcomes are "finished".
        search: Which tasks a searcher chooses from, instead of all in order.
        early_stopping: What ends tasks early. Their outcome has the status "stopped", and the last figures
            that they reported.
        per_gpu: How many tasks of one process share a GPU.
        function: What is called with each task; must be importable by other processes.

    Returns:
        A result per task, in order; an empty one for a task that was stopped or left out.

    Raises:
        ResourceError: Not one task fits on the machine or cluster. Nothing was started.
        Interrupted: SIGINT or SIGTERM, and no process is left. ClusterLostError: the cluster is gone.
        HkrunError: Ray itself broke down.
    """
    if not tasks:
        return []
    spans = [Span(workers, workers)] * len(tasks) if isinstance(workers, int) else list(workers)
    process = Process(threads=tasks[0].threads, device=tasks[0].device, per_gpu=per_gpu)
    log_folder = log_folder.absolute()
    try:
        results: list[TaskResult] = call_driver(
            _tune,
            {
                "tasks": list(tasks),
                "spans": spans,
                "process": process,
                "fail_fast": fail_fast,
                "log_folder": log_folder,
                "needs": needs,
                "search": search,
                "early_stopping": early_stopping,
                "function": function,
            },
            log_folder=log_folder,
            requests=process.requests(spans),
            num_tasks=len(tasks),
            observer=observer,
        )
    except KeyboardInterrupt as interrupt:
        raise Interrupted(
            f"stopped by {interrupt}; what is finished is kept, and the same command goes on from there"
        ) from interrupt
    return results


def _tune(running: Running, observer: Observer, **arguments: Any) -> list[TaskResult]:
    """What the driver does."""
    # Only now: it takes a second, while Ray's processes import what tasks take.
    from hkrun.cluster.trials.tune import tune_tasks

    return tune_tasks(running=running, observer=observer, **arguments)
