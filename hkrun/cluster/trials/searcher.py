"""Gives Tune the next task that has room, with the number of its processes.

A trial's parameters are the task, the number of its workers, which is chosen when it begins (elastic groups),
and the mark by which the watchdog and `placement_groups` know the try.
"""

# ruff: noqa: ARG002 (Tune names the arguments of what it calls)

import time
from typing import Any

from ray.tune.search import Searcher

from hkrun.cluster.nodes.discovery import find_answering, read_nodes
from hkrun.cluster.trials.callback import TrialCallback
from hkrun.cluster.trials.placement_groups import draw_marks
from hkrun.cluster.trials.schedule import Schedule
from hkrun.cluster.trials.search import AxesSearch
from hkrun.cluster.trials.slots import Allocation

LOOK_EVERY_S = 2.0
# After a death nodes are called, for so long: Ray itself takes half a minute to believe that one is lost.
DOUBT_S = 60.0


class SweepDone(BaseException):
    """Nothing is left to do. No Exception, which Tune would catch."""


class TaskSearcher(Searcher):
    """Gives Tune the tasks of a schedule as trials, and leaves Tune by an exception when all is over.

    Tune's own end waits up to 15 s for actors that are busy or starting; Ray's shutdown ends them in a
    second.

    Args:
        schedule: Which task is next.
        allocation: How many processes it gets.
        callback: Told of each task that is taken, or that will find no room.
        search: Which task Optuna would take next, if it is asked.
    """

    def __init__(
        self,
        schedule: Schedule,
        allocation: Allocation,
        callback: TrialCallback,
        search: AxesSearch | None,
    ) -> None:
        super().__init__()
        self._schedule, self._allocation, self._search = schedule, allocation, search
        self._callback = callback
        self._marks = draw_marks()
        self._next_look_s = self._doubt_until_s = 0.0
        callback.on_death = self.doubt_nodes

    def suggest(self, trial_id: str) -> dict[str, int] | None:
        """The next task, or nothing for now. Tune asks at every step."""
        if self._search is not None and self._search.spent:
            self._schedule.leave_out(self._search.tasks - self._search.chosen)
        self._look_at_nodes()
        if self._schedule.finished:
            raise SweepDone
        index = self._schedule.take(self._search.choose) if self._search else self._schedule.take()
        if index is None:
            return None
        number = self._allocation.take(index)
        self._callback.on_take(index)
        return {"index": index, "mark": next(self._marks), "workers": number}

    def doubt_nodes(self) -> None:
        """Notes that a process has died: its node may be lost, whatever Ray still says."""
        self._doubt_until_s, self._next_look_s = time.monotonic() + DOUBT_S, 0.0

    def _look_at_nodes(self) -> None:
        """Follows the nodes of a joined cluster, and gives up what waits for room in vain."""
        now = time.monotonic()
        if not self._allocation.shared or now < self._next_look_s:
            return
        self._next_look_s = now + LOOK_EVERY_S
        self._allocation.resize(find_answering() if now < self._doubt_until_s else read_nodes())
        for index in self._allocation.find_hopeless(self._schedule.find_misfits()):
            self._callback.on_hopeless(index)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """`Watch` sees to it."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing is ever restored."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing is ever restored."""
