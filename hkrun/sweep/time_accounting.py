"""Where the time of a sweep goes, while it runs: by the driver's clock, and by what its tasks tell."""

import logging
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from hkrun.errors import StoreError
from hkrun.plans import Execution, load_executions, save_executions
from hkrun.spaces import Sweep
from hkrun.stopwatch import Stopwatch
from hkrun.store import Store

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hkrun.trial import Task

logger = logging.getLogger("hkrun")

# What a kill that nothing can catch costs of the account.
SAVE_EVERY_S = 60.0


@dataclass
class _Stay:
    """A task's time in a slot, so far."""

    sums: dict[str, float]  # where it is added in the end
    taken_s: float
    told: dict[str, float] = field(default_factory=dict)


class TimeAccounting:
    """Where an execution's time goes. Used as a context manager it is kept, however the block ends.

    Of an execution in which no task got as far as a slot nothing is kept. What the driver's stopwatch, of
    phases as in `Execution`, ran before counts too.
    """

    def __init__(self, sweep: Sweep, store: Store, *, slots: int, stopwatch: Stopwatch) -> None:
        self._sweep, self._store, self._slots, self._stopwatch = sweep, store, slots, stopwatch
        self._started_at = time.time() - stopwatch.elapsed_s
        self._earlier: tuple[Execution, ...] = ()
        self._saved_s = stopwatch.elapsed_s
        self._trained = False
        self._in_slots: dict[str, _Stay] = {}  # by the name of the task
        self._teachers: dict[str, float] = {}
        self._runs: dict[str, float] = {}

    def __enter__(self) -> Self:
        self._earlier = load_executions(self._store, self._sweep)
        return self

    def __exit__(self, *_: object) -> None:
        try:
            self.save()
        except StoreError as error:  # which must not take the place of what ended the block
            logger.warning("where the time went is not kept: %s", error.message)

    def enter(self, phase: str) -> None:
        """What the driver does from now on, with no task in a slot."""
        self._stopwatch.enter(phase)

    def taken(self, task: "Task") -> None:
        """A task has a slot from now on, for its first time or after its process died."""
        self._leave(task)
        self._stopwatch.enter("training")
        sums = self._runs if task.seeds else self._teachers
        self._in_slots[task.name] = _Stay(sums, self._stopwatch.elapsed_s)
        self._trained = True

    def told(self, task: "Task", seconds: "Mapping[str, float]") -> None:
        """A task has told what it spent its time on; what it did not was its launch, or messages."""
        if (stay := self._in_slots.get(task.name)) is not None and seconds:
            occupied_s = self._stopwatch.elapsed_s - stay.taken_s
            stay.told = {"launch": occupied_s - sum(seconds.values()), **seconds}

    def ended(self, task: "Task") -> None:
        """A task has given its slot back."""
        self._leave(task)
        if not self._in_slots:
            self._stopwatch.enter("ray")
        if self._stopwatch.elapsed_s - self._saved_s >= SAVE_EVERY_S:
            self.save()

    def save(self) -> None:
        """Keeps what is known by now beside all earlier executions.

        Raises:
            StoreError: The store cannot be written.
        """
        self._keep(self.read())

    def begin_report(self) -> None:
        """From now on the driver reports. What it reports of this execution is kept, and changes no more.

        Raises:
            StoreError: The store cannot be written.
        """
        self._stopwatch.enter("report")
        self._keep(self.read().before_report())

    def read(self) -> Execution:
        """What is known by now."""
        teachers, runs = dict(self._teachers), dict(self._runs)
        for stay in self._in_slots.values():
            _add(runs if stay.sums is self._runs else teachers, stay.told)
        return Execution(
            started_at=self._started_at,
            slots=self._slots,
            phases=self._stopwatch.read(),
            teachers=teachers,
            runs=runs,
        )

    def _keep(self, execution: Execution) -> None:
        if self._trained:
            self._saved_s = self._stopwatch.elapsed_s
            save_executions(self._store, self._sweep, [*self._earlier, execution])

    def _leave(self, task: "Task") -> None:
        if (stay := self._in_slots.pop(task.name, None)) is not None:
            _add(stay.sums, stay.told)


def _add(sums: dict[str, float], seconds: "Mapping[str, float]") -> None:
    for part, value in seconds.items():
        sums[part] = sums.get(part, 0.0) + value
