"""Tells the schedule, the watchdog and the observer what becomes of Tune's trials.

The one callback of the Tuner. It looks at the trials after every step too: Tune (2.60) ends some without a
callback, such as one that got the actor of a stopped trial.
"""

# ruff: noqa: ARG002 (Tune names the arguments of what it calls)

import functools
import logging
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, ParamSpec

from ray import tune
from ray.tune.experiment import Trial

from hkrun.cluster.driver.calls import Observer
from hkrun.cluster.ray_private import is_busy_actor
from hkrun.cluster.trials.placement_groups import remove_leftovers
from hkrun.cluster.trials.schedule import NoRoomError, Schedule, TaskResult, WorkerDiedError
from hkrun.cluster.trials.slots import WAIT_FOR_ROOM_S, Allocation
from hkrun.cluster.trials.task_list import TaskList
from hkrun.cluster.trials.watchdog import Watchdog
from hkrun.plans import Look
from hkrun.trial import Outcome

logger = logging.getLogger(__name__)

P = ParamSpec("P")

RECLAIM_EVERY_S = 1.0

_COLOUR = re.compile(r"\x1b\[[0-9;]*m")  # Ray paints the heading of a traceback


def _guarded(body: Callable[P, None]) -> Callable[P, None]:
    """Logs what a callback raises: Tune would abort every trial for it."""

    @functools.wraps(body)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            body(*args, **kwargs)
        except Exception:
            logger.exception("%s", body.__name__)

    return guarded


class TrialCallback(tune.Callback):
    """Tells the schedule, the watchdog and the observer what happens to the trials.

    Attributes:
        on_death: Called when a process of a task has died.
    """

    def __init__(
        self,
        schedule: Schedule,
        allocation: Allocation,
        watchdog: Watchdog,
        observer: Observer,
        work: TaskList,
    ) -> None:
        self._schedule, self._allocation, self._watchdog = schedule, allocation, watchdog
        self._observer, self._work, self._in_groups = observer, work, work.in_groups
        self._num_seen = 0
        self._live: set[Trial] = set()
        self._started: set[int] = set()  # tasks
        self._next_reclaim_s = 0.0
        self.on_death: Callable[[], None] = lambda: None

    def __getstate__(self) -> dict[str, object]:
        """Nothing: Tune pickles its callbacks for a restore that never comes; observers hold terminals."""
        return {}

    @_guarded
    def on_take(self, index: int) -> None:
        """A task has been taken from the schedule; Tune does not call this."""
        self._observer.taken(index)

    @_guarded
    def on_look(self, look: Look) -> None:
        """Results have been looked at; Tune does not call this."""
        self._observer.looked(look)

    @_guarded
    def on_hopeless(self, index: int) -> None:
        """A task has waited for room for too long; Tune does not call this."""
        self._tell(index, self._schedule.gave_up(index, self._describe_lack(index)))

    @_guarded
    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        """An actor is ready for the trial."""
        index = trial.config["index"]
        if index not in self._started:
            self._started.add(index)
            self._observer.started(index)

    @_guarded
    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: object
    ) -> None:
        """The trial has reported, at last what `_run_trial` returned."""
        index = trial.config["index"]
        self._allocation.had_room(index)
        if "progress" in result:
            if "epoch" in result["progress"]:  # what comes before the first epoch has no pace
                self._watchdog.progressed(trial.config["mark"])
            self._schedule.progressed(index, int(result["progress"].get("epoch", 0)))
            self._observer.progress(index, result["progress"])
        elif "outcomes" in result:
            self._tell(index, self._schedule.returned(index, result["outcomes"]))
        else:
            self._tell(
                index, self._schedule.raised(index, result["error"], exit_code=result.get("exit_code"))
            )

    def on_step_end(self, iteration: int, trials: list[Trial], **info: object) -> None:
        """Looks which trials have ended."""
        self._note_ends(trials)
        # Once a second: a group may still be coming when its trial ends.
        if self._in_groups and time.monotonic() >= self._next_reclaim_s:
            self._next_reclaim_s = time.monotonic() + RECLAIM_EVERY_S
            self._reclaim(trials)

    @_guarded
    def _note_ends(self, trials: Sequence[Trial]) -> None:
        self._live.update(trials[self._num_seen :])
        self._num_seen = len(trials)
        for trial in [trial for trial in self._live if _has_ended(trial)]:
            self._live.remove(trial)
            index = trial.config["index"]
            self._schedule.release(index)
            self._allocation.release(index)
            killed_why = self._watchdog.ended(trial.config["mark"])
            if self._schedule.has_result(index):
                continue
            if trial.status == Trial.TERMINATED and self._work.early_stopping is not None:
                self._tell(index, self._schedule.returned(index, [_stopped_outcome(trial)]))
            elif trial.status == Trial.TERMINATED:
                self._schedule.stopped(index)
            elif is_busy_actor(told := _read_error(trial)):
                self._schedule.put_back(index)
            elif f"{NoRoomError.__name__}: " in told and not killed_why:
                self._find_other_room(trial)
            else:
                self.on_death()
                self._allocation.had_room(index)
                self._tell(index, self._schedule.died(index, killed_why or _reason(told)))
        running = [trial for trial in self._live if trial.status == Trial.RUNNING]
        self._watchdog.look(
            {trial.config["mark"]: self._work.tasks[trial.config["index"]].name for trial in running}
        )

    @_guarded
    def _reclaim(self, trials: Sequence[Trial]) -> None:
        """Takes back the CPUs that Ray Train's worker groups leave reserved; see `placement_groups`."""
        remove_leftovers({trial.config["mark"] for trial in trials if _has_ended(trial)})

    def _find_other_room(self, trial: Trial) -> None:
        """Lets a task begin anew for which Ray had no room."""
        index = trial.config["index"]
        self.on_death()  # of a node, perhaps
        if self._allocation.had_no_room(index, trial.config["workers"]):
            self._schedule.put_back(index)
        else:
            self._tell(index, self._schedule.gave_up(index, self._describe_lack(index)))

    def _describe_lack(self, index: int) -> str:
        lack = self._allocation.describe_lack(index)
        return f"given up after {WAIT_FOR_ROOM_S / 60:.0f} minutes without room: {lack}"

    def _tell(self, index: int, result: TaskResult | None) -> None:
        """Passes on how a task has ended, unless it will be tried again."""
        if result is None:
            return
        if result.outcomes is not None:
            self._observer.done(index, result.outcomes)
        else:
            self._observer.failed(index, f"{result.error}; see {self._work.log_file(index)}")


def _stopped_outcome(trial: Trial) -> Outcome:
    """The outcome of a task that was ended early, by its last report."""
    progress = (trial.last_result or {}).get("progress", {})
    return {
        "seed": progress.get("seed"),
        "status": "stopped",
        "error_last_pct": progress.get("error_pct"),
        "epochs": progress.get("epoch"),
        "message": "stopped early",
    }


def _has_ended(trial: Trial) -> bool:
    return trial.status in (Trial.ERROR, Trial.TERMINATED)


def _read_error(trial: Trial) -> str:
    """What Tune says of a trial's death: a heading, then the text of an exception."""
    told = Path(trial.error_file).read_text() if trial.error_file else ""
    logger.warning("%s died: %s", trial, told)
    return told


def _reason(told: str) -> str:
    """The line that matters of it: the last of a traceback, else the first of the exception."""
    plain = _COLOUR.sub("", told)
    lines = [line.strip() for line in plain.splitlines()[1:] if line.strip()] or ["unknown"]
    reason = lines[-1] if lines[0].startswith("ray::") else lines[0]
    return reason.removeprefix(f"{WorkerDiedError.__module__}.{WorkerDiedError.__qualname__}: ")
