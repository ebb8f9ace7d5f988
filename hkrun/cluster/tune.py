"""Ray Tune: one trial per task, in actors that go on from one task to the next."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ray import tune
from ray.air._internal import usage
from ray.exceptions import RayError, RpcError
from ray.tune.error import TuneError
from ray.tune.execution import class_cache

from hkrun.cluster.axes import Search
from hkrun.cluster.feed import Over, Places, TaskSearch
from hkrun.cluster.groups import ALONE_BYTES, WAITING_BYTES
from hkrun.cluster.output import output_to
from hkrun.cluster.placement import Room
from hkrun.cluster.resources import Request
from hkrun.cluster.roster import head_answers
from hkrun.cluster.runtime import Running, ray_running
from hkrun.cluster.schedule import COMMON_ERRORS, NoRoomError, Schedule, TaskResult, WorkerDiedError
from hkrun.cluster.search import AxesSearch, EarlyStopping
from hkrun.cluster.watch import Observer, Reclaim, Watch, log_file_of
from hkrun.cluster.watchdog import Watchdog, pulse
from hkrun.errors import HkrunError, Interrupted
from hkrun.plan import Span
from hkrun.trial import Outcome, Task, run_task

if TYPE_CHECKING:
    from hkrun.data.streams import BlockIds, BlockViews, ReadBlock
    from hkrun.training import Context

logger = logging.getLogger(__name__)

Function = Callable[[Task, "Context"], list[Outcome]]


def run_tasks(
    tasks: Sequence[Task],
    *,
    workers: int | Sequence[Span],
    observer: Observer,
    fail_fast: bool,
    log_folder: Path,
    needs: Mapping[int, int] | None = None,
    search: Search | None = None,
    early_stopping: EarlyStopping | None = None,
    per_gpu: int = 1,
    function: Function = run_task,
) -> list[TaskResult]:
    """Runs every task once, as many at a time as fit, all under one start of Ray.

    A function that raises is at fault itself, and is not called again; a DataError or a StoreError, which no
    other task would fare better with, stops everything and is in the task's result. A process that dies is
    replaced twice, and the function called again with the same task: it finds its own checkpoints.

    Args:
        tasks: What to do, all with the same threads and device.
        workers: How many processes train one task together: a number for all, or a span for each, of which a
            task gets what has room when it begins, and anew when it is tried again. One: the function is
            called in a Tune actor that goes on to the next task. More: in the workers of a Ray Train group,
            with torch.distributed.
        observer: Who is told. What it raises is logged and forgotten.
        fail_fast: Whether the first failed result stops everything.
        log_folder: Where Ray and the tasks write what they have to say.
        needs: For a task that builds on another one's result, that one's index: it waits for it, and is left
            out unless all of the other one's outcomes are "finished".
        search: Which tasks a searcher chooses from, instead of all in order.
        early_stopping: What ends tasks early. Their outcome has the status "stopped", and the last figures
            that they reported.
        per_gpu: How many tasks of one process share a GPU.
        function: What is called with each task; must be importable by other processes.

    Returns:
        A result per task, in order; an empty one for a task that was stopped or left out.

    Raises:
        ResourceError: Not one task fits on the machine or cluster. Nothing was started.
        Interrupted: SIGINT or SIGTERM, and no process is left; or a cluster that was joined is lost.
        HkrunError: Ray itself broke down.
    """
    if not tasks:
        return []
    spans = [Span(workers, workers)] * len(tasks) if isinstance(workers, int) else list(workers)
    process = _Process(threads=tasks[0].threads, device=tasks[0].device, per_gpu=per_gpu)
    requests = process.requests(spans)
    log_folder = log_folder.absolute()
    try:
        with (
            ray_running(requests, log_folder=log_folder, num_tasks=len(tasks)) as running,
            Watchdog() as watchdog,
        ):
            room = Room(running.nodes, threads=process.threads, device=process.device, per_gpu=per_gpu)
            places = Places(spans, room, shared=running.joined)
            schedule = Schedule(
                len(tasks), slots=len(tasks), fail_fast=fail_fast, needs=needs, fit=places.fit
            )
            watch = Watch(
                schedule,
                places,
                observer,
                watchdog,
                log_folder=log_folder,
                tasks=tasks,
                marks_stopped=early_stopping is not None,
            )
            feed = TaskSearch(
                schedule,
                places,
                room if running.joined else None,
                AxesSearch(search, schedule) if search else None,
                on_take=watch.on_take,
                on_hopeless=watch.on_hopeless,
            )
            watch.on_death = feed.doubt_nodes
            callbacks: list[tune.Callback] = [watch]
            if any(request.in_groups for request in requests):
                callbacks.append(Reclaim())
            trainable = tune.with_parameters(
                _run_trial,
                tasks=tasks,
                function=function,
                log_folder=log_folder,
                storage=running.folder,
            )
            tuner = tune.Tuner(
                tune.with_resources(trainable, process.resources),
                tune_config=tune.TuneConfig(
                    search_alg=feed,
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
            )
            try:
                with _callbacks_uncounted(), _common_processes(running):
                    tuner.fit()
            except (RayError, TuneError) as error:
                raise explain(error, running, log_folder=log_folder) from error
    except Over:
        pass
    except KeyboardInterrupt as interrupt:
        raise Interrupted(
            f"stopped by {interrupt}; what is finished is kept, and the same command goes on from there"
        ) from interrupt
    except RayError as error:
        raise HkrunError(_tell_of(error, log_folder)) from error
    return schedule.results()


@contextmanager
def _callbacks_uncounted() -> Iterator[None]:
    """Keeps Tune from importing MLflow, for two seconds, to count for its makers which callbacks are used."""
    count, usage.tag_callbacks = usage.tag_callbacks, lambda callbacks: False  # noqa: ARG005
    try:
        yield
    finally:
        usage.tag_callbacks = count


@contextmanager
def _common_processes(running: Running) -> Iterator[None]:
    """Makes actors of a cluster of our own take the processes that it has ready.

    Tune gives each actor an environment, for which Ray starts a process anew. Our cluster has it all already.
    """
    if running.joined:
        yield
        return
    before = class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE
    class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE = {}, set()
    try:
        yield
    finally:
        class_cache.DEFAULT_ENV_VARS, class_cache.ENV_VARS_TO_PROPAGATE = before


def explain(error: Exception, running: Running, *, log_folder: Path) -> HkrunError:
    """What has become of a sweep during which Ray broke down: a cluster that is lost may come back."""
    told = _tell_of(error, log_folder)
    causes: list[BaseException] = [error]
    while (cause := causes[-1].__cause__) is not None:
        causes.append(cause)
    lost = any(isinstance(cause, RpcError) for cause in causes)
    if running.joined and (lost or not head_answers()):
        return Interrupted(
            f"{running.place} was lost; what is finished is kept, "
            f"and the same command goes on from there\n{told}"
        )
    return HkrunError(told)


def _tell_of(error: Exception, log_folder: Path) -> str:
    return f"Ray broke down: {error}\nits logs are in {log_folder}"


@dataclass(frozen=True, kw_only=True)
class _Process:
    """What each process of a task asks for."""

    threads: int
    device: str
    per_gpu: int

    def requests(self, spans: Sequence[Span]) -> list[Request]:
        """What the tasks ask for at least, each kind once."""
        kinds = dict.fromkeys((span.least, not span.alone) for span in spans)
        return [
            Request(
                workers=least,
                threads=self.threads,
                device=self.device,
                per_gpu=self.per_gpu,
                in_groups=in_groups,
            )
            for least, in_groups in kinds
        ]

    def resources(self, config: Mapping[str, int]) -> tune.PlacementGroupFactory:
        """What a trial asks of Tune: its process, or next to nothing where it waits for those of a group."""
        if config["workers"] > 1:
            return tune.PlacementGroupFactory([{"memory": WAITING_BYTES}])
        gpus = 1 / self.per_gpu if self.device == "cuda" else 0
        return tune.PlacementGroupFactory([{"CPU": self.threads, "GPU": gpus, "memory": ALONE_BYTES}])


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
    import torch  # the driver can do without

    task = tasks[config["index"]]
    log_file = log_file_of(log_folder, task)
    context = TuneContext()
    with output_to(log_file), pulse(config.get("mark"), "trial"):
        try:
            if config["workers"] == 1:
                outcomes = function(task, context)
            else:
                from hkrun.cluster.train import (
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
        except torch.AcceleratorError as error:
            # Whatever this process asks of the device from now on fails too, also for other tasks.
            raise WorkerDiedError(f"the device failed: {error}".splitlines()[0]) from error
        except (Exception, SystemExit) as error:
            logger.exception("%s", task.name)
            if isinstance(error, COMMON_ERRORS):
                return {"error": error.message, "exit_code": error.exit_code}
            return {"error": f"{type(error).__name__}: {error}".splitlines()[0]}
    return {"outcomes": outcomes}
