"""What is to be done on Ray: tasks, with what each asks for."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hkrun.cluster.driver.calls import Function
from hkrun.cluster.nodes.resources import Request
from hkrun.cluster.trials.axes import EarlyStopping, Search
from hkrun.cluster.trials.rounds import Rounds
from hkrun.plans import Span
from hkrun.trial import Task


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
        needs: For a task that builds on the results of others, their indices: it waits for all of them, and
            is left out where no outcome of theirs is "finished".
        fail_fast: Whether the first failed result stops everything.
        search: Which tasks a searcher chooses from, instead of all in order.
        rounds: Which tasks are begun only as far as they are needed.
        early_stopping: What ends tasks early. Their outcome has the status "stopped", and the last figures
            that they reported.
        function: What is called with each task, `do_task`; must be importable by other processes.
    """

    tasks: Sequence[Task]
    log_folder: Path
    workers: int | Sequence[Span] = 1
    per_gpu: int = 1
    needs: Mapping[int, Collection[int]] = field(default_factory=dict)
    fail_fast: bool = False
    search: Search | None = None
    rounds: Rounds | None = None
    early_stopping: EarlyStopping | None = None
    function: Function

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
