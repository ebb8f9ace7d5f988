"""Which task runs next, which is tried again, and when all is over. Pure decisions; Ray carries them out.

Tune's own (2.60) does not do: a task that waits for another one, where a second Tuner would be a barrier;
retries after growing waits, whose count begins again with progress (FailureConfig retries at once, a fixed
number of times); an end of all after the first failed *run*, of a task whose function returned (`fail_fast`).

How a task may end, and what follows; docs/faults.md says it for users:

    infrastructure   `died`       a process was killed, ran out of memory, lost its node or its device, or was
                                  ended by the watchdog: tried again with growing waits, MAX_RETRIES times
                                  from where it got furthest
    code             `raised`     the function raised: failed, and not tried again
    divergence       `returned`   a result, on record with its epoch; not repeated, as it would come again
    data, store      `raised`     one of COMMON_ERRORS, which every task would meet: all is over
    on purpose       `stopped`    by a scheduler, `--fail-fast` or the user: no result
"""

import itertools
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from hkrun.cluster.trials.slots import Fit
from hkrun.errors import DataError, HkrunError, StoreError

# A task whose process died is tried again twice, after 2 and 8 seconds, in which Ray notices a lost node. One
# that then gets further than ever before may die as often again: a task of days on machines that are taken
# away each night ends too.
MAX_RETRIES = 2
FIRST_WAIT_S = 2.0
WAIT_FACTOR = 4.0

DEATH_ADVICE = "the system's log (dmesg) tells if memory ran out; the same command tries again"

# All tasks read the same data and write to the same store: the next one would meet such an error too.
COMMON_ERRORS = (DataError, StoreError)


class WorkerDiedError(Exception):
    """A process of a task died, or could not be started; the task is not at fault."""


class NoRoomError(Exception):
    """The processes of a task found no room in time; it has not begun."""


@dataclass(frozen=True, kw_only=True)
class TaskResult:
    """How a task ended.

    Attributes:
        outcomes: What its function returned; None if it did not return.
        error: Why it did not return, in one line unless it has an exit code; None if it did, or if it was
            stopped.
        exit_code: Of the DataError or StoreError whose message `error` is; None for every other end.
        retries: How often it was started again after its process had died.
    """

    outcomes: list[dict[str, object]] | None = None
    error: str | None = None
    exit_code: int | None = None
    retries: int = 0

    @property
    def failed(self) -> bool:
        """Whether it could not return, or one of its runs failed. Divergence is a result."""
        return self.error is not None or any(run["status"] == "failed" for run in self.outcomes or ())

    @property
    def begun(self) -> bool:
        """Whether it has a result; not if it was stopped or left out."""
        return self.outcomes is not None or self.error is not None

    @property
    def common_error(self) -> HkrunError | None:
        """The error that every other task would meet too, to be raised again; None for others."""
        for kind in COMMON_ERRORS:
            if self.error is not None and self.exit_code == kind.exit_code:
                return kind(self.error)
        return None

    @property
    def complete(self) -> bool:
        """Whether all its runs are finished."""
        return self.outcomes is not None and all(run["status"] == "finished" for run in self.outcomes)

    @property
    def usable(self) -> bool:
        """Whether some of its runs are finished: other tasks may build on those."""
        return any(run["status"] == "finished" for run in self.outcomes or ())


class Schedule:
    """The state of a list of tasks, each known by its index.

    An error that every other task would meet too ends everything. A task that `needs` the results of others,
    all by index, waits until these have ended, and is left out, with an empty result, where none is usable.
    """

    def __init__(
        self,
        num_tasks: int,
        *,
        fail_fast: bool = False,
        needs: Mapping[int, Collection[int]] | None = None,
        fit: Callable[[int], Fit] = lambda _: Fit.NOW,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._num_tasks = num_tasks
        self._fail_fast = fail_fast
        self._needs = dict(needs or {})
        self._fit = fit
        self._clock = clock
        self._fresh = deque(range(num_tasks))
        self._resting: dict[int, float] = {}  # tasks to be tried again, and when
        self._running: set[int] = set()
        self._retries: dict[int, int] = {}
        self._in_vain: dict[int, int] = {}  # deaths since it was last further than ever before
        self._furthest: dict[int, int] = {}  # epoch
        self._results: dict[int, TaskResult] = {}
        self._ended_early = False
        self.admits: Callable[[int], bool] = lambda _: True

    @property
    def finished(self) -> bool:
        """Whether nothing is left to start or to wait for."""
        return self._ended_early or len(self._results) == self._num_tasks

    def take(self, choose: Callable[[Sequence[int]], int] = lambda candidates: candidates[0]) -> int | None:
        """Takes the task that starts now, or None; first those that are tried again.

        A task that needs others waits for them; those behind it do not. A task that waits for room holds
        those behind it up, or small ones would keep a large one from ever beginning; but not if it would not
        fit with nothing else running. `choose` picks one of the tasks that may begin.
        """
        if self.finished:
            return None
        now = self._clock()
        rested = [index for index, start in self._resting.items() if start <= now]
        ready = itertools.chain(rested, (index for index in self._fresh if self._may_begin(index)))
        first, candidates = None, []
        for index in ready:
            fit = self._fit(index)
            if fit is Fit.LATER:
                break
            if fit is Fit.NOW and index in self._resting:
                first = index
                break
            if fit is Fit.NOW:
                candidates.append(index)
        if first is not None:
            del self._resting[first]
        elif candidates:
            first = choose(candidates)
            self._fresh.remove(first)
        else:
            return None
        self._running.add(first)
        return first

    def find_misfits(self) -> list[int]:
        """The tasks that could begin, but would not fit with nothing else running."""
        ready = [*self._resting, *(index for index in self._fresh if self._may_begin(index))]
        return [index for index in ready if self._fit(index) is Fit.NOT_HERE]

    def gave_up(self, index: int, reason: str) -> TaskResult:
        """Notes that a task that was not running never will."""
        self._resting.pop(index, None)
        if index in self._fresh:
            self._fresh.remove(index)
        return self._end(index, TaskResult(error=reason, retries=self.retries(index)))

    def _may_begin(self, index: int) -> bool:
        return self.admits(index) and all(map(self.has_result, self._needs.get(index, ())))

    def retries(self, index: int) -> int:
        """How often a task has been tried again so far."""
        return self._retries.get(index, 0)

    def has_result(self, index: int) -> bool:
        """Whether a task has ended for good, and its process is free.

        A result comes a moment before that. What begins within it would get a process that is free already,
        and then, from Tune, the freed one in its place: Tune kills the first, and the next task would wait
        until Python and torch are imported anew.
        """
        return index in self._results and index not in self._running

    def result(self, index: int) -> TaskResult | None:
        """How a task has ended; None if it has not."""
        return self._results.get(index)

    def returned(self, index: int, outcomes: Sequence[Mapping[str, object]]) -> TaskResult:
        """Notes that a task's function has returned."""
        return self._end(index, TaskResult(outcomes=list(map(dict, outcomes)), retries=self.retries(index)))

    def raised(self, index: int, error: str, *, exit_code: int | None = None) -> TaskResult:
        """Notes that a task's function has raised: it is not tried again.

        `exit_code` is that of one of COMMON_ERRORS.
        """
        result = TaskResult(error=error, exit_code=exit_code, retries=self.retries(index))
        self._ended_early |= result.common_error is not None
        return self._end(index, result)

    def stopped(self, index: int) -> TaskResult:
        """Notes that a task was stopped on purpose."""
        return self._end(index, TaskResult(retries=self.retries(index)))

    def progressed(self, index: int, epoch: int) -> None:
        """Notes that a task has finished an epoch; epochs repeated after a death do not count."""
        if epoch > self._furthest.get(index, 0):
            self._furthest[index] = epoch
            self._in_vain.pop(index, None)

    def died(self, index: int, reason: str) -> TaskResult | None:
        """Notes that a task's process has died; None if it will be tried again, else the task's result."""
        retries, in_vain = self.retries(index), self._in_vain.get(index, 0)
        if in_vain == MAX_RETRIES:
            error = f"{reason} (tried {retries + 1} times); {DEATH_ADVICE}"
            return self._end(index, TaskResult(error=error, retries=retries))
        self._retries[index], self._in_vain[index] = retries + 1, in_vain + 1
        self._resting[index] = self._clock() + FIRST_WAIT_S * WAIT_FACTOR**in_vain
        return None

    def leave_out(self, tasks: Iterable[int] | None = None) -> None:
        """Gives those of the tasks, or of all, that were not begun an empty result."""
        for index in set(self._fresh if tasks is None else tasks).intersection(self._fresh):
            self._fresh.remove(index)
            self._results[index] = TaskResult()

    def put_back(self, index: int) -> None:
        """Notes that a task has not begun: it is next again, and has lost no try."""
        self._fresh.appendleft(index)

    def release(self, index: int) -> None:
        """Notes that a task's slot is free, whether or not the task has ended for good."""
        self._running.discard(index)

    def results(self) -> list[TaskResult]:
        """The results in the order of the tasks; an empty one for a task without one."""
        empty = TaskResult()
        return [self._results.get(index, empty) for index in range(self._num_tasks)]

    def _end(self, index: int, result: TaskResult) -> TaskResult:
        self._results[index] = result
        needing = [task for task, needs in self._needs.items() if index in needs and task in self._fresh]
        self.leave_out(task for task in needing if not any(map(self._may_serve, self._needs[task])))
        lacking = bool(needing) and not result.complete
        self._ended_early |= self._fail_fast and (result.failed or lacking)
        return result

    def _may_serve(self, index: int) -> bool:
        """Whether others can still build on a task."""
        result = self._results.get(index)
        return result is None or result.usable
