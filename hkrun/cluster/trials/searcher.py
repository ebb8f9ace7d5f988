"""What Tune is given to do: the next task that has room, with the number of its processes."""

# ruff: noqa: ARG002 (Tune names the arguments of what it calls)

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from ray.tune.search import Searcher

from hkrun.cluster.nodes.discovery import find_answering, read_nodes
from hkrun.cluster.trials.placement_groups import draw_marks
from hkrun.cluster.trials.schedule import Schedule
from hkrun.cluster.trials.search import AxesSearch
from hkrun.cluster.trials.slots import Fit, Slots
from hkrun.plan import Span

logger = logging.getLogger("hkrun")

# A lost node may come back, or another one in its place; a sweep that can go on later need not wait longer.
WAIT_FOR_ROOM_S = 600.0
LOOK_EVERY_S = 2.0
# After a death nodes are called, for so long: Ray itself takes half a minute to believe that one is lost.
DOUBT_S = 60.0


class SweepDone(BaseException):
    """Nothing is left to do. Tune must not catch it, so it is no Exception."""


class Allocation:
    """Which task gets how many processes: the room that there is, and the tries that found it taken.

    Args:
        spans: How many processes each task may have.
        room: Where they find room.
        shared: Whether others, of whom the books know nothing, may use the nodes too.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        spans: Sequence[Span],
        room: Slots,
        *,
        shared: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._spans, self._room, self._shared, self._clock = spans, room, shared, clock
        self._bounds: dict[int, int] = {}  # of tasks for which Ray had less room than the books
        self._waits: dict[int, float] = {}  # since when there has been no room for a task
        self._told_of_others = False

    def fit(self, task: int) -> Fit:
        """Whether a task may begin."""
        return self._room.fit(self._spans[task])

    def take(self, task: int) -> int:
        """Gives a task, which fits, its processes; returns how many."""
        span = self._spans[task]
        number = max(span.least, min(self._room.find(span), self._bounds.get(task, self._room.size + 1)))
        self._room.take(task, number)
        return number

    def release(self, task: int) -> None:
        """Takes them back."""
        self._room.release(task)

    def had_no_room(self, task: int, number: int) -> bool:
        """Notes that Ray had no room for so many processes; the next try asks for half.

        Where nobody else is, Ray is only late, and the number of workers must not depend on that. What others
        hold of the nodes will be free some day.

        Returns:
            Whether there will be a next try: not if the nodes, or Ray, had no room for too long.
        """
        if self._shared:
            self._bounds[task] = max(1, number // 2)
        if not self._shared or self.fit(task) is Fit.NOT_HERE:
            return not self._waits_too_long(task)
        self._waits.pop(task, None)
        if not self._told_of_others:
            self._told_of_others = True
            logger.warning("others use the cluster too: tasks of several processes wait until they have room")
        return True

    def had_room(self, task: int) -> None:
        """Notes that a task has begun, or has died of something else."""
        self._bounds.pop(task, None)
        self._waits.pop(task, None)

    def find_hopeless(self, misfits: Sequence[int]) -> list[int]:
        """Those of the tasks that fit nowhere which have waited too long for that to change.

        Args:
            misfits: All tasks that fit nowhere just now.
        """
        if fresh := [task for task in misfits if task not in self._waits]:
            logger.warning(
                "%d of the tasks wait: %s; they are given up after %.0f minutes",
                len(fresh),
                self.describe_lack(fresh[0]),
                WAIT_FOR_ROOM_S / 60,
            )
        for task in [task for task in self._waits if self.fit(task) is not Fit.NOT_HERE]:
            del self._waits[task]
        return [task for task in misfits if self._waits_too_long(task)]

    def describe_lack(self, task: int) -> str:
        """What a task wants and what there is."""
        least = self._spans[task].least
        return (
            f"it needs room for {least} process{'es' * (least > 1)}, and there is room for {self._room.size}"
        )

    def _waits_too_long(self, task: int) -> bool:
        now = self._clock()
        return now - self._waits.setdefault(task, now) >= WAIT_FOR_ROOM_S


class TaskSearcher(Searcher):
    """Gives Tune the tasks of a schedule as trials, and leaves Tune when the schedule is finished.

    Tune's own way out waits up to 15 s for actors that are busy or still starting, and then reads files that
    were never written; the shutdown of Ray that follows ends them all in a second or two.

    Args:
        schedule: Which task is next.
        places: How many processes it gets.
        room: Of which the nodes are followed; None where they are always the same.
        search: Which task a searcher would take next, if one does.
        on_take: Called with each task that is taken.
        on_hopeless: Called with each task that will find no room.
    """

    def __init__(
        self,
        schedule: Schedule,
        places: Allocation,
        room: Slots | None,
        search: AxesSearch | None,
        *,
        on_take: Callable[[int], None],
        on_hopeless: Callable[[int], None],
    ) -> None:
        super().__init__()
        self._schedule, self._places, self._room, self._search = schedule, places, room, search
        self._on_take, self._on_hopeless = on_take, on_hopeless
        self._marks = draw_marks()
        self._next_look_s = self._doubt_until_s = 0.0

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
        number = self._places.take(index)
        self._on_take(index)
        return {"index": index, "mark": next(self._marks), "workers": number}

    def doubt_nodes(self) -> None:
        """Notes that a process has died: its node may be lost, whatever Ray still says."""
        self._doubt_until_s, self._next_look_s = time.monotonic() + DOUBT_S, 0.0

    def _look_at_nodes(self) -> None:
        """Keeps the books of what there is, and gives up what waits in vain."""
        now = time.monotonic()
        if self._room is None or now < self._next_look_s:
            return
        self._next_look_s = now + LOOK_EVERY_S
        self._room.resize(find_answering() if now < self._doubt_until_s else read_nodes())
        for index in self._places.find_hopeless(self._schedule.find_misfits()):
            self._on_hopeless(index)

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """`Watch` sees to it."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing is ever restored."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing is ever restored."""
