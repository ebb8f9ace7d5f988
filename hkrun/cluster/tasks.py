"""A list of tasks, from Ray's start to its end."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from hkrun.cluster.driver.calls import Function, Observer
from hkrun.cluster.driver.runtime import Running
from hkrun.cluster.driver.supervisor import call_driver
from hkrun.cluster.nodes.resources import Request
from hkrun.cluster.trials.axes import EarlyStopping, Search
from hkrun.cluster.trials.schedule import TaskResult
from hkrun.errors import Interrupted
from hkrun.plan import Span
from hkrun.trial import Outcome, Task

if TYPE_CHECKING:
    from hkrun.training import Context


def do_task(task: Task, context: "Context") -> list[Outcome]:
    """Trains what a task says, in the process that Ray has given it; see `hkrun.trial.run.run_task`."""
    from hkrun.trial.run import run_task  # PyTorch, which the process that sends the tasks does without

    return run_task(task, context)


@dataclass(frozen=True, kw_only=True)
class TaskList:
    """What to do, and how.

    Attributes:
        tasks: All with the same threads and device.
        log_folder: Where Ray and the tasks write their logs.
        workers: How many processes train one task together: a number for all, or a span for each, of which a
            task gets what has room when it begins, and anew when it is tried again. One: the function is
            called in a Tune actor that goes on to the next task. More: in the workers of a Ray Train group,
            with torch.distributed.
        per_gpu: How many tasks of one process share a GPU.
        needs: For a task that builds on another one's result, that one's index: it waits for it, and is left
            out unless all of the other one's outcomes are "finished".
        fail_fast: Whether the first failed result stops everything.
        search: Which tasks a searcher chooses from, instead of all in order.
        early_stopping: What ends tasks early. Their outcome has the status "stopped", and the last figures
            that they reported.
        function: What is called with each task; must be importable by other processes.
    """

    tasks: Sequence[Task]
    log_folder: Path
    workers: int | Sequence[Span] = 1
    per_gpu: int = 1
    needs: Mapping[int, int] = field(default_factory=dict)
    fail_fast: bool = False
    search: Search | None = None
    early_stopping: EarlyStopping | None = None
    function: Function = do_task

    @property
    def spans(self) -> list[Span]:
        """How many processes each task may have."""
        if isinstance(self.workers, int):
            return [Span(self.workers, self.workers)] * len(self.tasks)
        return list(self.workers)

    @property
    def in_groups(self) -> bool:
        """Whether more processes than one may train a task."""
        return any(not span.alone for span in self.spans)

    @property
    def threads(self) -> int:
        """CPUs of each process."""
        return self.tasks[0].threads

    @property
    def device(self) -> str:
        """The device of each process: "cpu" or "cuda"."""
        return self.tasks[0].device

    def requests(self) -> list[Request]:
        """What the tasks ask for at least, each kind once."""
        kinds = dict.fromkeys((span.least, not span.alone) for span in self.spans)
        return [
            Request(
                workers=least,
                threads=self.threads,
                device=self.device,
                per_gpu=self.per_gpu,
                in_groups=in_groups,
                num_tasks=len(self.tasks),
            )
            for least, in_groups in kinds
        ]

    def log_file(self, index: int) -> Path:
        """Where the process of a task writes; its workers write beside it."""
        return self.log_folder / f"{self.tasks[index].name}.log"


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
