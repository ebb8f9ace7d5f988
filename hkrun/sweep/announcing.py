"""What a driver does, told to all who can read the store."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from hkrun.plans import Look, Plan
from hkrun.store import Store
from hkrun.sweep.progress import Phase, Progress
from hkrun.sweep.task_submission import Observer

if TYPE_CHECKING:
    from hkrun.trial import Task

_TELL_EVERY_S = 1.0  # the store writes it more rarely


class AnnouncingObserver:
    """Passes on what it is told to another observer, and tells how far the study is with the folder's hold.

    Args:
        observer: The other one.
        store: Which holds the folder.
        folder: The study's.
        clock: Seconds.
    """

    def __init__(
        self, observer: Observer, store: Store, folder: str, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._observer, self._store, self._folder, self._clock = observer, store, folder, clock
        self._progress = Progress()
        self._told_at: float | None = None

    def plan_made(self, plan: Plan, *, slots: int) -> None:
        """See `Observer`, as of the others."""
        self._progress.plan_made(plan, slots=slots)
        self._observer.plan_made(plan, slots=slots)

    def entered(self, phase: Phase) -> None:
        """Is told at once."""
        self._progress.enter(phase, now=self._clock())
        self._tell()
        self._observer.entered(phase)

    def started(self, task: "Task") -> None:
        """Is told with what follows."""
        self._progress.start(task, now=self._clock())
        self._observer.started(task)

    def progressed(self, task: "Task", progress: Mapping[str, object]) -> None:
        """Is told now and then."""
        self._progress.advance(task, progress, now=self._clock())
        if self._told_at is None or self._clock() - self._told_at >= _TELL_EVERY_S:
            self._tell()
        self._observer.progressed(task, progress)

    def ended(self, task: "Task", outcomes: Sequence[Mapping[str, object]]) -> None:
        """Is told at once."""
        self._progress.end(task, outcomes)
        self._tell()
        self._observer.ended(task, outcomes)

    def failed(self, task: "Task", message: str) -> None:
        """Is told at once."""
        self._progress.fail(task)
        self._tell()
        self._observer.failed(task, message)

    def looked(self, look: Look) -> None:
        """Is told at once."""
        self._progress.look(look)
        self._tell()
        self._observer.looked(look)

    def _tell(self) -> None:
        self._told_at = self._clock()
        self._store.tell(self._folder, self._progress.document(self._told_at))
