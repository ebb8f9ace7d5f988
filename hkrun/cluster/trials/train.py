"""Ray Train: the worker group of one task.

Train starts the group and says how it ended. It does not retry, as one place must decide that (`schedule`),
and progress does not go through `train.report`, which is a barrier of all workers.
"""

import logging
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from ray import train
from ray.exceptions import RayError
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.queue import Queue
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from hkrun.cluster.driver.calls import Function
from hkrun.cluster.ray_private import found_no_room
from hkrun.cluster.redirect import output_to
from hkrun.cluster.trials.placement_groups import worker_bytes
from hkrun.cluster.trials.schedule import COMMON_ERRORS, NoRoomError, WorkerDiedError
from hkrun.cluster.trials.watchdog import pulse
from hkrun.data.streams import BlockIds, BlockViews, ReadBlock
from hkrun.training import PeerLostError
from hkrun.trial import Outcome, Task

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainContext:
    """A worker of Ray Train's group, in which torch.distributed is initialised.

    Progress goes straight from rank 0 to the driver function. `ray.train.report` is a barrier of all workers
    that waits for the controller's next poll: it would slow short epochs, and hang if one worker skips it.
    """

    rank: int
    world_size: int
    queue: Queue

    def report(self, progress: Mapping[str, object]) -> None:
        """Passes rank 0's progress on, without waiting."""
        if self.rank == 0:
            put: Any = self.queue.actor.put_nowait
            put.remote(dict(progress))

    def carry(self, function: ReadBlock, requests: Sequence[BlockIds]) -> Iterator[BlockViews]:
        """Reads through Ray Data."""
        # It takes seconds to import, and images that are in memory do without.
        from hkrun.cluster.trials.streaming import carry_with_ray_data

        return carry_with_ray_data(function, requests)


@dataclass(frozen=True, kw_only=True)
class Group:
    """The workers of one task.

    Attributes:
        workers: Their number; each has the task's threads as CPUs, and a GPU where its device is "cuda".
        mark: Sets the memory that each asks for, by which the placement group is known.
        log_file: Each writes beside it.
        storage: Where Ray Train's own state may lie, if that is on this node. It does not outlive the task.
    """

    workers: int
    mark: int
    function: Function
    log_file: Path
    storage: Path


def train_task(task: Task, group: Group, report: Callable[[Mapping[str, object]], None]) -> list[Outcome]:
    """Runs a task's function on every worker of a new group, and waits for it.

    `report` is called with rank 0's progress. Returns what the function returned on rank 0.

    Raises:
        WorkerDiedError: A worker died; another try may succeed.
        NoRoomError: There was no room for the workers in time.
        Exception: What the function raised on a worker.
    """
    # Beside this process, with which it would be lost.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    queue = Queue(actor_options={"num_cpus": 0, "scheduling_strategy": here})
    place = group.storage if group.storage.is_dir() else None  # the driver's machine has it, no other
    with (
        tempfile.TemporaryDirectory(prefix="hkrun-", dir=place, ignore_cleanup_errors=True) as state,
        _forwarding(queue, report),
    ):
        loop = {"task": task, "group": group, "queue": queue}
        try:
            result: Any = _make_trainer(loop, task, group, state=state).fit()
        except train.TrainingFailedError as error:
            raise classify(error) from error
        return list(result.return_value)


def worker_resources(task: Task, mark: int) -> dict[str, int]:
    """What each worker of a group asks of Ray; `slots` counts 1 GiB of memory for it."""
    gpu = {"GPU": 1} if task.device == "cuda" else {}
    return {"CPU": task.threads, "memory": worker_bytes(mark)} | gpu


def _make_trainer(loop: dict[str, Any], task: Task, group: Group, *, state: str) -> TorchTrainer:
    on_gpu = task.device == "cuda"
    return TorchTrainer(
        _work,
        train_loop_config=loop,
        torch_config=TorchConfig(backend="nccl" if on_gpu else "gloo"),
        scaling_config=train.ScalingConfig(
            num_workers=group.workers,
            use_gpu=on_gpu,
            resources_per_worker=worker_resources(task, group.mark),
        ),
        run_config=train.RunConfig(
            name=task.name,
            storage_path=state,
            # The schedule alone decides about further tries. Ray itself would wait for room for ever.
            failure_config=train.FailureConfig(max_failures=0, controller_failure_limit=0),  # type: ignore[call-arg]
        ),
    )


def _work(config: dict[str, Any]) -> Any:
    """What runs on each worker."""
    here, group = train.get_context(), config["group"]
    context = TrainContext(here.get_world_rank(), here.get_world_size(), config["queue"])
    with (
        output_to(group.log_file.with_suffix(f".{context.rank}.log")),
        pulse(group.mark, f"rank-{context.rank}"),
    ):
        try:
            return group.function(config["task"], context)
        except Exception:
            logger.exception("rank %d", context.rank)
            raise


def classify(error: train.TrainingFailedError) -> Exception:
    """Tells a death from the function's own exception, which is returned as it was raised.

    A worker that loses its peer raises too: a death comes first, then an error of data or store.
    """
    if isinstance(error, train.ControllerError) and found_no_room(error.controller_failure):
        return NoRoomError(str(error.controller_failure).partition(". ")[0])
    if not isinstance(error, train.WorkerGroupError):
        return WorkerDiedError(f"Ray Train: {error}")
    failures = error.worker_failures
    for rank, failure in sorted(failures.items()):
        if type(failure).__module__.startswith(("ray.exceptions", "ray.train")):
            return WorkerDiedError(f"worker {rank} of the group died")
        if isinstance(failure, torch.AcceleratorError):
            return WorkerDiedError(f"the device of worker {rank} failed: {failure}".splitlines()[0])
    by_rank = [failures[rank] for rank in sorted(failures)]
    for failure in by_rank:
        if isinstance(failure, COMMON_ERRORS):
            return failure
    # A worker that lost its peers does not know why, and on a lost node none is left to say it.
    own = [failure for failure in by_rank if not isinstance(failure, PeerLostError)]
    return own[0] if own else WorkerDiedError(str(by_rank[0]))


@contextmanager
def _forwarding(queue: Queue, report: Callable[[Mapping[str, object]], None]) -> Iterator[None]:
    """Calls `report` with what comes through the queue for as long as the block runs."""

    def forward() -> None:
        with suppress(RayError):  # the queue may be lost, and the workers with it
            while (progress := queue.get()) is not None:
                report(progress)

    thread = threading.Thread(target=forward, daemon=True)
    thread.start()
    try:
        yield
    finally:
        with suppress(RayError):
            queue.put(None)
        thread.join()
        queue.shutdown()
