"""A cluster of this process: does the tasks of a list one after the other, by the rules of the real one."""

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from hkrun.cluster import TaskList, TaskResult
from hkrun.cluster.trials.rounds import RoundGate
from hkrun.cluster.trials.schedule import Schedule


class Here:
    """The context of a task that is done by this process."""

    rank, world_size = 0, 1

    def __init__(self, index: int, observer: Any) -> None:
        self._index, self._observer = index, observer

    def report(self, progress: Mapping[str, object]) -> None:
        self._observer.progress(self._index, progress)

    def carry(self, function: Any, requests: Sequence[Any]) -> Iterator[Any]:
        from hkrun.data.streams import carry_in_threads

        return carry_in_threads(function, requests)


def run_tasks(work: TaskList, observer: Any) -> list[TaskResult]:
    """What `hkrun.cluster.run_tasks` does, without Ray."""
    schedule = Schedule(len(work.tasks), fail_fast=work.fail_fast, needs=work.needs)
    with ExitStack() as stack:
        gate = None
        if work.rounds is not None:
            gate = stack.enter_context(RoundGate(work.rounds, work.needs, schedule.has_result))
            schedule.admits = gate.may_begin
        while not schedule.finished:
            if gate is not None:
                if (look := gate.step()) is not None:
                    observer.looked(look)
                if gate.over:
                    schedule.leave_out()
            index = schedule.take()
            if index is None:  # it waits for a look
                time.sleep(0.001)
                continue
            observer.taken(index)
            observer.started(index)
            outcomes = work.function(work.tasks[index], Here(index, observer))
            schedule.returned(index, outcomes)
            schedule.release(index)
            observer.done(index, outcomes)
    return schedule.results()
