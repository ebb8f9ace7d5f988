"""Ray Tune: one trial per task, in actors that go on from one task to the next."""

# ruff: noqa: ARG002 (Tune names the arguments of what it calls)

import functools
import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ParamSpec, Protocol

from ray import tune
from ray.exceptions import RayError
from ray.tune.error import TuneError
from ray.tune.experiment import Trial
from ray.tune.search import Searcher

from hkrun.cluster.axes import Search
from hkrun.cluster.groups import draw_marks, remove_leftovers
from hkrun.cluster.output import output_to
from hkrun.cluster.resources import Request
from hkrun.cluster.runtime import ray_running
from hkrun.cluster.schedule import COMMON_ERRORS, Schedule, TaskResult, WorkerDiedError
from hkrun.cluster.search import AxesSearch, EarlyStopping
from hkrun.cluster.watchdog import Watchdog, pulse
from hkrun.data.streams import BlockIds, BlockViews, ReadBlock, carry_in_threads
from hkrun.errors import HkrunError, Interrupted
from hkrun.training import Context
from hkrun.trial import Outcome, Task, run_task

logger = logging.getLogger(__name__)

Function = Callable[[Task, Context], list[Outcome]]
P = ParamSpec("P")

# The driver function of a task with several workers only waits. It asks for a sliver of memory, so that
# all CPUs are left to the workers: with 0.001 CPU of its own, two workers would not fit on two cores.
WAITING_BYTES = 128 << 20

RECLAIM_EVERY_S = 1.0

# What Tune says when it hands a trial the actor of one that was stopped, and whose function still runs.
ACTOR_STILL_BUSY = "Trainable runner reuse requires reset_config()"


class Observer(Protocol):
    """Who watches the tasks; called in the driver, one call at a time.

    Each task is started once (a task that is tried again is not started again), and is done or failed once
    unless everything was stopped. A task that is left out is neither.
    """

    def taken(self, index: int) -> None:
        """A slot is a task's from now on; its process may not be there yet. Called for each try."""

    def started(self, index: int) -> None:
        """A task has got its process."""

    def progress(self, index: int, progress: Mapping[str, object]) -> None:
        """A task's function has reported."""

    def done(self, index: int, outcomes: list[Outcome]) -> None:
        """A task's function has returned."""

    def failed(self, index: int, message: str) -> None:
        """A task has no outcome: why, and which file tells more."""


def run_tasks(
    tasks: Sequence[Task],
    *,
    workers: int,
    observer: Observer,
    fail_fast: bool,
    log_folder: Path,
    needs: Mapping[int, int] | None = None,
    search: Search | None = None,
    early_stopping: EarlyStopping | None = None,
    function: Function = run_task,
) -> list[TaskResult]:
    """Runs every task once, as many at a time as fit, all under one start of Ray.

    A function that raises is at fault itself, and is not called again; a DataError or a StoreError, which no
    other task would fare better with, stops everything and is in the task's result. A process that dies is
    replaced twice, and the function called again with the same task: it finds its own checkpoints.

    Args:
        tasks: What to do, all with the same threads and device.
        workers: How many processes train one task together. One: the function is called in a Tune actor that
            goes on to the next task. More: in the workers of a Ray Train group, with torch.distributed.
        observer: Who is told. What it raises is logged and forgotten.
        fail_fast: Whether the first failed result stops everything.
        log_folder: Where Ray and the tasks write what they have to say.
        needs: For a task that builds on another one's result, that one's index: it waits for it, and is left
            out unless all of the other one's outcomes are "finished".
        search: Which tasks a searcher chooses from, instead of all in order.
        early_stopping: What ends tasks early. Their outcome has the status "stopped", and the last figures
            that they reported.
        function: What is called with each task; must be importable by other processes.

    Returns:
        A result per task, in order; an empty one for a task that was stopped or left out.

    Raises:
        ResourceError: Not one task fits on the machine or cluster. Nothing was started.
        Interrupted: SIGINT or SIGTERM. No process is left.
        HkrunError: Ray itself broke down.
    """
    if not tasks:
        return []
    request = Request(workers=workers, threads=tasks[0].threads, device=tasks[0].device)
    log_folder = log_folder.absolute()
    try:
        with ray_running(request, log_folder=log_folder) as running, Watchdog() as watchdog:
            schedule = Schedule(len(tasks), slots=running.slots, fail_fast=fail_fast, needs=needs)
            watch = _Watch(
                schedule,
                observer,
                watchdog,
                log_folder=log_folder,
                tasks=tasks,
                marks_stopped=early_stopping is not None,
            )
            callbacks: list[tune.Callback] = [watch]
            if workers > 1:
                callbacks.append(_Reclaim())
            trainable = tune.with_parameters(
                _run_trial,
                tasks=tasks,
                function=function,
                workers=workers,
                log_folder=log_folder,
                storage=running.folder / "train",
            )
            tune.Tuner(
                tune.with_resources(trainable, _resources(request)),
                tune_config=tune.TuneConfig(
                    search_alg=_TaskSearch(
                        schedule, AxesSearch(search, schedule) if search else None, on_take=watch.on_take
                    ),
                    scheduler=early_stopping,
                    num_samples=-1,
                    reuse_actors=True,
                ),
                run_config=tune.RunConfig(
                    name="tasks",
                    storage_path=str(running.folder / "tune"),
                    callbacks=callbacks,
                    failure_config=tune.FailureConfig(max_failures=0),
                    verbose=0,
                ),
            ).fit()
    except _Over:
        pass
    except KeyboardInterrupt as interrupt:
        raise Interrupted(
            f"stopped by {interrupt}; what is finished is kept, and the same command goes on from there"
        ) from interrupt
    except (RayError, TuneError) as error:
        raise HkrunError(f"Ray broke down: {error}\nits logs are in {log_folder}") from error
    return schedule.results()


def _resources(request: Request) -> tune.PlacementGroupFactory:
    if request.workers > 1:
        return tune.PlacementGroupFactory([{"memory": WAITING_BYTES}])
    gpus = 1 if request.device == "cuda" else 0
    return tune.PlacementGroupFactory([{"CPU": request.threads, "GPU": gpus}])


def _log_file(log_folder: Path, task: Task) -> Path:
    return log_folder / f"{task.name}.log"


@dataclass(frozen=True)
class TuneContext:
    """A Tune actor that does a task alone."""

    rank: int = 0
    world_size: int = 1

    def report(self, progress: Mapping[str, object]) -> None:
        """Hands the progress to Tune's driver, and waits until it has it."""
        tune.report({"progress": dict(progress)})

    def carry(self, function: ReadBlock, requests: Sequence[BlockIds]) -> Iterator[BlockViews]:
        """Reads in threads of this process."""
        return carry_in_threads(function, requests)


def _run_trial(
    config: Mapping[str, int],
    *,
    tasks: Sequence[Task],
    function: Function,
    workers: int,
    log_folder: Path,
    storage: Path,
) -> dict[str, object]:
    """What a trial does. What it raises is taken for the death of a process, so it returns its mistakes."""
    task = tasks[config["index"]]
    log_file = _log_file(log_folder, task)
    context = TuneContext()
    with output_to(log_file), pulse(config.get("mark"), "trial"):
        try:
            if workers == 1:
                outcomes = function(task, context)
            else:
                from hkrun.cluster.train import (
                    train_task,  # a second of imports that one process can do without
                )

                outcomes = train_task(
                    task,
                    workers=workers,
                    mark=config["mark"],
                    function=function,
                    log_file=log_file,
                    storage=storage,
                    report=context.report,
                )
        except WorkerDiedError:
            raise
        except (Exception, SystemExit) as error:
            logger.exception("%s", task.name)
            if isinstance(error, COMMON_ERRORS):
                return {"error": error.message, "exit_code": error.exit_code}
            return {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
    return {"outcomes": outcomes}


class _Over(BaseException):
    """Nothing is left to do. Tune must not catch it, so it is no Exception."""


class _TaskSearch(Searcher):
    """Gives Tune the tasks of a schedule as trials, and leaves Tune when the schedule is finished.

    Tune's own way out waits up to 15 s for actors that are busy or still starting, and then reads files that
    were never written; the shutdown of Ray that follows ends them all in a second or two.
    """

    def __init__(
        self, schedule: Schedule, search: AxesSearch | None, *, on_take: Callable[[int], None]
    ) -> None:
        super().__init__()
        self._on_take = on_take
        self._schedule = schedule
        self._search = search
        self._marks = draw_marks()

    def suggest(self, trial_id: str) -> dict[str, int] | None:
        """The next task, or nothing for now. Tune asks at every step."""
        if self._search is not None and self._search.spent:
            self._schedule.leave_out(self._search.tasks - self._search.chosen)
        if self._schedule.finished:
            raise _Over
        index = self._schedule.take(self._search.choose) if self._search else self._schedule.take()
        if index is None:
            return None
        self._on_take(index)
        return {"index": index, "mark": next(self._marks)}

    def on_trial_complete(
        self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False
    ) -> None:
        """`_Watch` sees to it."""

    def save(self, checkpoint_path: str) -> None:
        """Nothing is ever restored."""

    def restore(self, checkpoint_path: str) -> None:
        """Nothing is ever restored."""


def _guarded(body: Callable[P, None]) -> Callable[P, None]:
    """Logs what a callback raises: Tune would abort every trial for it."""

    @functools.wraps(body)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            body(*args, **kwargs)
        except Exception:
            logger.exception("%s", body.__name__)

    return guarded


class _Watch(tune.Callback):
    """Tells the schedule and the observer what happens to the trials."""

    def __init__(
        self,
        schedule: Schedule,
        observer: Observer,
        watchdog: Watchdog,
        *,
        log_folder: Path,
        tasks: Sequence[Task],
        marks_stopped: bool,
    ) -> None:
        self._schedule = schedule
        self._observer = observer
        self._watchdog = watchdog
        self._log_folder = log_folder
        self._tasks = tasks
        self._marks_stopped = marks_stopped
        self._num_seen = 0
        self._live: set[Trial] = set()

    def __getstate__(self) -> dict[str, object]:
        """Nothing: Tune pickles its callbacks for a restore that never comes; observers hold terminals."""
        return {}

    @_guarded
    def on_take(self, index: int) -> None:
        """A task has been taken from the schedule; Tune does not call this."""
        self._observer.taken(index)

    @_guarded
    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: object) -> None:
        """An actor is ready for the trial."""
        index = trial.config["index"]
        if not self._schedule.retries(index):
            self._observer.started(index)

    @_guarded
    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: object
    ) -> None:
        """The trial has reported; its last report is what `_run_trial` returned."""
        index = trial.config["index"]
        if "progress" in result:
            self._watchdog.progressed(trial.config["mark"])
            self._observer.progress(index, result["progress"])
        elif "outcomes" in result:
            self._tell(index, self._schedule.returned(index, result["outcomes"]))
        else:
            self._tell(
                index, self._schedule.raised(index, result["error"], exit_code=result.get("exit_code"))
            )

    @_guarded
    def on_step_end(self, iteration: int, trials: list[Trial], **info: object) -> None:
        """Looks which trials have ended: Tune has ways to end one that call nothing else, see docs/ray.md."""
        self._live.update(trials[self._num_seen :])
        self._num_seen = len(trials)
        for trial in [trial for trial in self._live if _has_ended(trial)]:
            self._live.remove(trial)
            index = trial.config["index"]
            self._schedule.release(index)
            killed_why = self._watchdog.ended(trial.config["mark"])
            if self._schedule.has_result(index):
                continue
            if trial.status == Trial.TERMINATED and self._marks_stopped:
                self._tell(index, self._schedule.returned(index, [_stopped_outcome(trial)]))
            elif trial.status == Trial.TERMINATED:
                self._schedule.stopped(index)
            elif ACTOR_STILL_BUSY in (told := _read_error(trial)):
                self._schedule.put_back(index)
            else:
                self._tell(index, self._schedule.died(index, killed_why or _reason(told)))
        running = [trial for trial in self._live if trial.status == Trial.RUNNING]
        self._watchdog.look(
            {trial.config["mark"]: self._tasks[trial.config["index"]].name for trial in running}
        )

    def _tell(self, index: int, result: TaskResult | None) -> None:
        """Passes on how a task has ended, unless it will be tried again."""
        if result is None:
            return
        if result.outcomes is not None:
            self._observer.done(index, result.outcomes)
        else:
            log_file = _log_file(self._log_folder, self._tasks[index])
            self._observer.failed(index, f"{result.error}; see {log_file}")


class _Reclaim(tune.Callback):
    """Takes back the CPUs that Ray Train's worker groups leave reserved; see `groups`."""

    def __init__(self) -> None:
        self._next_look_s = 0.0

    @_guarded
    def on_step_end(self, iteration: int, trials: list[Trial], **info: object) -> None:
        """Looks once a second: a group may still be coming when its trial ends."""
        if time.monotonic() >= self._next_look_s:
            self._next_look_s = time.monotonic() + RECLAIM_EVERY_S
            remove_leftovers({trial.config["mark"] for trial in trials if _has_ended(trial)})


def _stopped_outcome(trial: Trial) -> Outcome:
    """The outcome of a task that was ended early: as far as it had reported."""
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
    """What Tune knows of a trial's death: its heading, then the text of an exception."""
    told = Path(trial.error_file).read_text() if trial.error_file else ""
    logger.warning("%s died: %s", trial, told)
    return told


def _reason(told: str) -> str:
    """The one line that matters of it: the last of a traceback, else the first of the exception."""
    lines = [line.strip() for line in told.splitlines()[1:] if line.strip()] or ["unknown"]
    reason = lines[-1] if lines[0].startswith("ray::") else lines[0]
    return reason.removeprefix(f"{WorkerDiedError.__module__}.{WorkerDiedError.__qualname__}: ")
