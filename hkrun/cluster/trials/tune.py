"""Ray Tune: one trial per task, in actors that go on from one task to the next."""

import functools
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ray import tune
from ray.exceptions import RayError, RpcError

from hkrun.cluster import ray_private
from hkrun.cluster.driver.calls import Function, Observer
from hkrun.cluster.driver.runtime import Running
from hkrun.cluster.nodes.resources import Process
from hkrun.cluster.ray_private import head_answers
from hkrun.cluster.redirect import output_to
from hkrun.cluster.trials.axes import EarlyStopping, Search
from hkrun.cluster.trials.callback import TrialCallback, log_file_of
from hkrun.cluster.trials.placement_groups import ALONE_BYTES, WAITING_BYTES
from hkrun.cluster.trials.schedule import COMMON_ERRORS, NoRoomError, Schedule, TaskResult, WorkerDiedError
from hkrun.cluster.trials.search import AxesSearch, Halving
from hkrun.cluster.trials.searcher import Allocation, SweepDone, TaskSearcher
from hkrun.cluster.trials.slots import Slots
from hkrun.cluster.trials.watchdog import Watchdog, pulse
from hkrun.errors import ClusterLostError, HkrunError
from hkrun.plan import Span
from hkrun.trial import Task

if TYPE_CHECKING:
    from hkrun.data.streams import BlockIds, BlockViews, ReadBlock

logger = logging.getLogger(__name__)


def tune_tasks(
    tasks: Sequence[Task],
    *,
    spans: Sequence[Span],
    process: Process,
    running: Running,
    observer: Observer,
    fail_fast: bool,
    log_folder: Path,
    needs: Mapping[int, int] | None,
    search: Search | None,
    early_stopping: EarlyStopping | None,
    function: Function,
) -> list[TaskResult]:
    """Runs tasks while Ray runs; see `hkrun.cluster.run_tasks`."""
    with Watchdog() as watchdog, suppress(SweepDone):
        room = Slots(running.nodes, threads=process.threads, device=process.device, per_gpu=process.per_gpu)
        places = Allocation(spans, room, shared=running.joined)
        schedule = Schedule(len(tasks), slots=len(tasks), fail_fast=fail_fast, needs=needs, fit=places.fit)
        watch = TrialCallback(
            schedule,
            places,
            observer,
            watchdog,
            log_folder=log_folder,
            tasks=tasks,
            marks_stopped=early_stopping is not None,
            in_groups=any(not span.alone for span in spans),
        )
        feed = TaskSearcher(
            schedule,
            places,
            room if running.joined else None,
            AxesSearch(search, schedule) if search else None,
            on_take=watch.on_take,
            on_hopeless=watch.on_hopeless,
        )
        watch.on_death = feed.doubt_nodes
        trainable = tune.with_parameters(
            _run_trial,
            tasks=tasks,
            function=function,
            log_folder=log_folder,
            storage=running.folder,
        )
        tuner = tune.Tuner(
            tune.with_resources(trainable, functools.partial(_ask_for, process)),
            tune_config=tune.TuneConfig(
                search_alg=feed,
                scheduler=Halving(early_stopping) if early_stopping is not None else None,
                num_samples=-1,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(
                name="tasks",
                storage_path=str(running.folder / "tune"),
                callbacks=[watch],
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
    """What has become of a sweep during which Ray broke down: a cluster that is lost may come back."""
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    lost = any(isinstance(cause, RpcError) for cause in causes)
    if running.joined and (lost or not head_answers()):
        return ClusterLostError(f"{running.place} was lost: {error}".splitlines()[0])
    return HkrunError(f"Ray broke down: {error}")


def _ask_for(process: Process, config: Mapping[str, int]) -> tune.PlacementGroupFactory:
    """What a trial asks of Tune: its process, or next to nothing where it waits for those of a group."""
    if config["workers"] > 1:
        return tune.PlacementGroupFactory([{"memory": WAITING_BYTES}])
    gpus = 1 / process.per_gpu if process.device == "cuda" else 0
    return tune.PlacementGroupFactory([{"CPU": process.threads, "GPU": gpus, "memory": ALONE_BYTES}])


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


def _run_trial(
    config: Mapping[str, int],
    *,
    tasks: Sequence[Task],
    function: Function,
    log_folder: Path,
    storage: Path,
) -> dict[str, object]:
    """What a trial does. What it raises is taken for the death of a process, so it returns its mistakes."""
    task = tasks[config["index"]]
    log_file = log_file_of(log_folder, task)
    context = TuneContext()
    with output_to(log_file), pulse(config.get("mark"), "trial"):
        try:
            if config["workers"] == 1:
                outcomes = function(task, context)
            else:
                from hkrun.cluster.trials.train import (
                    train_task,  # a second of imports that one process can do without
                )

                outcomes = train_task(
                    task,
                    workers=config["workers"],
                    mark=config["mark"],
                    function=function,
                    log_file=log_file,
                    storage=storage,
                    report=context.report,
                )
        except (WorkerDiedError, NoRoomError):
            raise
        except (Exception, SystemExit) as error:
            if _has_lost_device(error):  # whatever it asks of it from now on fails too, also for other tasks
                raise WorkerDiedError(f"the device failed: {error}".splitlines()[0]) from error
            logger.exception("%s", task.name)
            if isinstance(error, COMMON_ERRORS):
                return {"error": error.message, "exit_code": error.exit_code}
            return {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
    return {"outcomes": outcomes}


def _has_lost_device(error: BaseException) -> bool:
    """Whether a process can no longer use its GPU. Who has not imported torch has none."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(error, torch.AcceleratorError)
