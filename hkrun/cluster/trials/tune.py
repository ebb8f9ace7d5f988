"""Ray Tune: one Tuner for all tasks, one trial per task, in actors that go on to the next task.

Public Tune does: trials as tasks, `reuse_actors`, resources by configuration, ASHA, Optuna's searcher. hkrun
adds, each in a module of its own, what Tune 2.60 lacks: tasks that wait for another one without a barrier and
retries with growing waits (`schedule`), worker groups of as many processes as have room (`slots`), an end
without Tune's wait for busy actors (`searcher`), and the end of processes that hang (`watchdog`).
"""

import dataclasses
import functools
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ray import tune
from ray.exceptions import RayError, RpcError

from hkrun.cluster import ray_private
from hkrun.cluster.driver.calls import Observer
from hkrun.cluster.driver.runtime import Running
from hkrun.cluster.ray_private import head_answers
from hkrun.cluster.redirect import output_to
from hkrun.cluster.trials.callback import TrialCallback
from hkrun.cluster.trials.placement_groups import ALONE_BYTES, WAITING_BYTES
from hkrun.cluster.trials.rounds import RoundGate
from hkrun.cluster.trials.schedule import COMMON_ERRORS, NoRoomError, Schedule, TaskResult, WorkerDiedError
from hkrun.cluster.trials.searcher import AxesSearch, Halving, SweepDone, TaskSearcher
from hkrun.cluster.trials.slots import Allocation, Slots
from hkrun.cluster.trials.task_list import TaskList
from hkrun.cluster.trials.watchdog import Watchdog, pulse
from hkrun.errors import ClusterLostError, HkrunError

if TYPE_CHECKING:
    from hkrun.data.streams import BlockIds, BlockViews, ReadBlock

logger = logging.getLogger(__name__)


def tune_tasks(work: TaskList, running: Running, observer: Observer) -> list[TaskResult]:
    """Runs tasks while Ray runs; see `hkrun.cluster.run_tasks`."""
    with ExitStack() as stack:
        watchdog = stack.enter_context(Watchdog())
        stack.enter_context(suppress(SweepDone))
        slots = Slots(running.nodes, threads=work.threads, device=work.device, per_gpu=work.per_gpu)
        allocation = Allocation(work.spans, slots, shared=running.joined)
        schedule = Schedule(len(work.tasks), fail_fast=work.fail_fast, needs=work.needs, fit=allocation.fit)
        callback = TrialCallback(schedule, allocation, watchdog, observer, work)
        search: AxesSearch | RoundGate | None = AxesSearch(work.search, schedule) if work.search else None
        if work.rounds is not None:
            search = stack.enter_context(RoundGate(work.rounds, work.needs, schedule.has_result))
            schedule.admits = search.may_begin
        searcher = TaskSearcher(schedule, allocation, callback, search)
        # What looks at results is for this process alone, and would be imported in every other.
        alone = dataclasses.replace(work, rounds=None)
        trainable = tune.with_parameters(_run_trial, work=alone, storage=running.folder)
        tuner = tune.Tuner(
            tune.with_resources(trainable, functools.partial(_ask_for, work)),
            tune_config=tune.TuneConfig(
                search_alg=searcher,
                scheduler=Halving(work.early_stopping) if work.early_stopping is not None else None,
                num_samples=-1,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="tasks",
                storage_path=str(running.folder / "tune"),
                callbacks=[callback],
                failure_config=tune.FailureConfig(max_failures=0),
                verbose=0,
            ),
        )
        ray_private.skip_callback_counts()
        if not running.joined:
            ray_private.keep_processes_for_trials()
        try:
            tuner.fit()
        except (RayError, tune.TuneError) as error:
            raise explain(error, running) from error
    return schedule.results()


def explain(error: Exception, running: Running) -> HkrunError:
    """The error of a sweep during which Ray broke down: a lost cluster may come back."""
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    lost = any(isinstance(cause, RpcError) for cause in causes)
    if running.joined and (lost or not head_answers()):
        return ClusterLostError(f"{running.place} was lost: {error}".splitlines()[0])
    return HkrunError(f"Ray broke down: {error}")


def _ask_for(work: TaskList, config: Mapping[str, int]) -> tune.PlacementGroupFactory:
    """What a trial asks of Tune: its process, or next to nothing where it waits for those of a group."""
    if config["workers"] > 1:
        return tune.PlacementGroupFactory([{"memory": WAITING_BYTES}])
    gpus = 1 / work.per_gpu if work.device == "cuda" else 0
    return tune.PlacementGroupFactory([{"CPU": work.threads, "GPU": gpus, "memory": ALONE_BYTES}])


@dataclass(frozen=True)
class TuneContext:
    """A Tune actor that does a task alone."""

    rank: int = 0
    world_size: int = 1

    def report(self, progress: Mapping[str, object]) -> None:
        """Hands the progress to Tune's driver, and waits until it has it."""
        tune.report({"progress": dict(progress)})

    def carry(self, function: "ReadBlock", requests: "Sequence[BlockIds]") -> "Iterator[BlockViews]":
        """Reads in threads of this process."""
        from hkrun.data.streams import carry_in_threads

        return carry_in_threads(function, requests)


def _run_trial(config: Mapping[str, int], *, work: TaskList, storage: Path) -> dict[str, object]:
    """What a trial does. Tune takes an exception for a death, so the mistakes of the task are returned."""
    task, log_file = work.tasks[config["index"]], work.log_file(config["index"])
    context = TuneContext()
    with output_to(log_file), pulse(config.get("mark"), "trial"):
        try:
            if config["workers"] == 1:
                outcomes = work.function(task, context)
            else:
                # A second of imports that one process can do without.
                from hkrun.cluster.trials.train import Group, train_task

                group = Group(
                    workers=config["workers"],
                    mark=config["mark"],
                    function=work.function,
                    log_file=log_file,
                    storage=storage,
                )
                outcomes = train_task(task, group, context.report)
        except (WorkerDiedError, NoRoomError):
            raise
        except (Exception, SystemExit) as error:
            if _has_lost_device(error):  # all that this process asks of it from now on fails too
                raise WorkerDiedError(f"the device failed: {error}".splitlines()[0]) from error
            logger.exception("%s", task.name)
            if isinstance(error, COMMON_ERRORS):
                return {"error": error.message, "exit_code": error.exit_code}
            return {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
    return {"outcomes": outcomes}


def _has_lost_device(error: BaseException) -> bool:
    """Whether this process can no longer use its GPU; without torch it has none."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.AcceleratorError)
