"""A list of tasks, from Ray's start to its end."""

import dataclasses
from typing import TYPE_CHECKING

from hkrun.cluster.driver.calls import Observer
from hkrun.cluster.driver.runtime import Running
from hkrun.cluster.driver.supervisor import call_driver
from hkrun.cluster.trials.schedule import TaskResult
from hkrun.cluster.trials.task_list import TaskList
from hkrun.errors import Interrupted
from hkrun.trial import Outcome, Task

if TYPE_CHECKING:
    from hkrun.training import Context


def do_task(task: Task, context: "Context") -> list[Outcome]:
    """Trains what a task says, in the process that Ray has given it; see `hkrun.trial.run.run_task`."""
    from hkrun.trial.run import run_task  # PyTorch, which the process that sends the tasks does without

    return run_task(task, context)


def run_tasks(work: TaskList, observer: Observer) -> list[TaskResult]:
    """Runs every task once, as many at a time as fit, all under one start of Ray.

    A function that raises is at fault itself, and is not called again; a DataError or a StoreError, which
    every other task would meet too, stops everything and is in the task's result. A process that dies is
    replaced twice, and the function called again with the same task: it finds its own checkpoints. What the
    observer raises is logged and forgotten. The results are in the tasks' order, empty for a task that was
    stopped or left out.

    Raises:
        ResourceError: Not one task fits on the machine or cluster. Nothing was started.
        Interrupted: SIGINT or SIGTERM, and no process is left. ClusterLostError: the cluster is gone.
        HkrunError: Ray itself broke down.
    """
    if not work.tasks:
        return []
    work = dataclasses.replace(work, log_folder=work.log_folder.absolute())
    try:
        results: list[TaskResult] = call_driver(
            _tune, {"work": work}, log_folder=work.log_folder, requests=work.requests(), observer=observer
        )
    except KeyboardInterrupt as interrupt:
        raise Interrupted(
            f"stopped by {interrupt}; what is finished is kept, and the same command goes on from there"
        ) from interrupt
    return results


def _tune(running: Running, observer: Observer, *, work: TaskList) -> list[TaskResult]:
    """What the driver does."""
    # Only now: it takes a second, while Ray's processes import what tasks take.
    from hkrun.cluster.trials.tune import tune_tasks

    return tune_tasks(work, running, observer)
