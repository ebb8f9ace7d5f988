"""Which tasks of a study whose seeds come in rounds may begin: those that an open question needs next."""

import logging
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from hkrun.plans import Look, find_allowed

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Rounds:
    """The rounds of a study.

    Attributes:
        tasks: For each task of runs, by index, its cell_id and the number of its round, from 0. Rounds
            without a task are complete; the others are begun only as far as they are needed.
        first: What is known before any of them.
        look: Reads what is known by now; must be importable by other processes.
    """

    tasks: Mapping[int, tuple[str, int]]
    first: Look
    look: Callable[[], Look]


class RoundGate:
    """Lets tasks begin by what the newest look says; a context, for it looks in a thread.

    Args:
        rounds: What there is.
        needs: For each task, the tasks that it builds on: teachers are trained for runs that may begin.
        has_result: Whether a task has ended for good, and its process is free.
    """

    def __init__(
        self, rounds: Rounds, needs: Mapping[int, Collection[int]], has_result: Callable[[int], bool]
    ) -> None:
        self._rounds, self._needs, self._has_result = rounds, needs, has_result
        self._tasks: dict[str, dict[int, list[int]]] = {}
        for index, (cell, number) in rounds.tasks.items():
            self._tasks.setdefault(cell, {}).setdefault(number, []).append(index)
        self._open = rounds.first.needs
        self._allowed: frozenset[int] = frozenset()
        self._completed = self._count_completed()
        self._looking: Future[Look] | None = None
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="hkrun-look")
        self._allow()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    def __getstate__(self) -> dict[str, object]:
        """Nothing: Tune pickles its searcher for a restore that never comes; threads cannot be."""
        return {}

    def may_begin(self, index: int) -> bool:
        """Whether a task may begin, as far as the rounds go."""
        return index in self._allowed

    def step(self) -> Look | None:
        """Begins a look where rounds have been completed since the last one; the new look, once it is there.

        One that fails leaves all questions open that were: the next round is made, and another look taken.
        """
        if self._looking is None:
            completed = self._count_completed()
            if completed != self._completed:
                self._completed = completed
                self._looking = self._pool.submit(self._rounds.look)
            return None
        if not self._looking.done():
            return None
        looking, self._looking = self._looking, None
        look = None
        try:
            look = looking.result()
        except Exception as error:
            logger.warning("what is decided cannot be read, and the study goes on: %s", error)
        else:
            self._open = look.needs
        self._allow()
        return look

    @property
    def over(self) -> bool:
        """Whether nothing more will begin: no look is due, and all that may begin has ended."""
        due = self._looking is not None or self._count_completed() != self._completed
        return not due and all(map(self._has_result, self._allowed))

    def _allow(self) -> None:
        allowed = find_allowed(self._open, self._completed)
        runs = {index for index, place in self._rounds.tasks.items() if place in allowed}
        teachers = {needed for index in runs for needed in self._needs.get(index, ())}
        self._allowed = frozenset(runs | teachers)

    def _count_completed(self) -> dict[str, int]:
        """By cell, how many rounds are complete, from the first on; not of cells that have completed all."""
        completed = {}
        for cell, tasks in self._tasks.items():
            left = (number for number in sorted(tasks) if not all(map(self._has_result, tasks[number])))
            if (first := next(left, None)) is not None:
                completed[cell] = first
        return completed
