"""Tasks that need no training, in a module that Ray's processes can import."""

import fcntl
import json
import os
import signal
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import hkrun
from hkrun.cluster.ray_private import agent
from hkrun.errors import DataError

if TYPE_CHECKING:
    import pytest


def python_path() -> str:
    """PYTHONPATH of processes that find this folder's modules, beside what it was."""
    return os.pathsep.join(filter(None, [str(Path(__file__).parent), os.environ.get("PYTHONPATH")]))


def join(address: str, environment: "pytest.MonkeyPatch") -> None:
    """From now on tasks go to the cluster at an address."""
    environment.setenv("RAY_ADDRESS", address)
    if "PYTHONPATH" in os.environ:  # which the tasks' processes then have instead of the cluster's
        environment.setenv("PYTHONPATH", python_path())


@dataclass(frozen=True, kw_only=True)
class FakeTask:
    """What `run_tasks` knows of a task, and where this one leaves its traces.

    Attributes:
        does: The name of a function of the module whose `run` does the task.
        folder: Where its attempts are counted.
    """

    name: str
    does: str = "finish"
    folder: str = ""
    threads: int = 1
    device: str = "cpu"


def run(task, context):
    return globals()[task.does](task, context)


def outcome(**values):
    return [{"seed": 0, "status": "finished", "pid": os.getpid(), **values}]


def attempt(task, context) -> int:
    """How often this worker of the task has been started, this time included."""
    marks = Path(task.folder) / f"{task.name}.{context.rank}"
    with marks.open("a") as file:
        file.write(f"{os.getpid()}\n")
    return len(marks.read_text().split())


def finish(task, context):
    return outcome(name=task.name)


def litter(task, context):
    """Leaves a temporary file, as a process does that is killed."""
    tempfile.mkstemp()
    return finish(task, context)


def tell(task, context):
    print(f"{task.name} prints", flush=True)  # noqa: T201
    os.system(f"echo {task.name} has children")
    for epoch in (1, 2, 3):
        context.report({"epoch": epoch})
    return outcome(threads=os.environ["OMP_NUM_THREADS"], cwd=str(Path.cwd()))


def look_around(task, context):
    """Writes down whether its process has imported ahead, how nice it is, and which others there are."""
    processes = map(read_process, Path("/proc").glob("[0-9]*"))
    titles = [title for parent, title in processes if parent == os.getppid()]
    own = [title.startswith((b"ray::ImplicitFunc", b"ray::IDLE")) for title in titles]
    found = {
        "ready": "hkrun.trial.run" in sys.modules,
        "code": str(Path(hkrun.__file__).parent),
        "niceness": os.getpriority(os.PRIO_PROCESS, 0),
        "processes": sum(own),
        "agents of ray": len(titles) - sum(own) - sum(agent.__file__.encode() in title for title in titles),
    }
    Path(task.folder, f"{task.name}.json").write_text(json.dumps(found))
    return finish(task, context)


def look_around_and_sleep(task, context):
    look_around(task, context)
    sleep(task, context)


def note_times(task, context):
    """Tells when its process was started, and when it was itself, in seconds since the machine was."""
    began_s = time.clock_gettime(time.CLOCK_BOOTTIME)
    lock = Path(tempfile.gettempdir(), "preload.lock")
    if lock.exists():
        with lock.open("w") as file:  # until no process of the cluster imports
            fcntl.flock(file, fcntl.LOCK_EX)
    time.sleep(1)
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    process_began_s = ticks / os.sysconf("SC_CLK_TCK")
    return outcome(began_s=began_s, process_began_s=process_began_s)


def read_process(folder: Path) -> tuple[int, bytes]:
    """The parent and the title of a process; 0 and nothing of one that has ended."""
    try:
        title = (folder / "cmdline").read_bytes()
        return int((folder / "stat").read_text().rpartition(")")[2].split()[1]), title
    except OSError:
        return 0, b""


def fail(task, context):
    raise ValueError(f"{task.name} is wrong\nand says so at length")


def leave(task, context):
    raise SystemExit(3)


def miss_data(task, context):
    raise DataError("train.parquet: not there\nval.parquet: not there")


def sleep(task, context):
    attempt(task, context)
    for epoch in range(3000):
        context.report({"epoch": epoch})
        time.sleep(0.1)


def die_once(task, context):
    """Dies at its second epoch, and goes on from there."""
    if attempt(task, context) == 1:
        context.report({"epoch": 1})
        os.kill(os.getpid(), signal.SIGKILL)
    context.report({"epoch": 2})
    return outcome(attempts=attempt(task, context) - 1)


def die(task, context):
    attempt(task, context)
    os.kill(os.getpid(), signal.SIGKILL)


def all_reduce(task, context):
    import torch

    total = torch.tensor([float(context.rank + 1)])
    torch.distributed.all_reduce(total)
    context.report({"epoch": 1, "rank": context.rank})
    return outcome(total=float(total), world_size=context.world_size, backend=torch.distributed.get_backend())


def fail_on_rank_1(task, context):
    if context.rank == 1:
        raise ValueError("rank 1 is wrong")
    return all_reduce(task, context)  # waits for rank 1 for ever


def miss_data_on_rank_1(task, context):
    if context.rank == 1:
        miss_data(task, context)
    return all_reduce(task, context)  # waits for rank 1 for ever


def die_at_once_on_rank_1(task, context):
    if context.rank == 1 and attempt(task, context) == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return all_reduce(task, context)


def die_later_on_rank_1(task, context):
    time.sleep(2)
    return die_at_once_on_rank_1(task, context)


def kill_driver_once(task, context):
    """Kills the process in which the task's Ray Train trainer waits, and waits for its own end."""
    if attempt(task, context) == 1:
        if context.rank == 0:
            os.kill(trial_actor(), signal.SIGKILL)
        time.sleep(600)
    return all_reduce(task, context)


def trial_actor() -> int:
    """The id of the process of the one trial that runs beside this one under the same raylet."""
    for process in Path("/proc").glob("[0-9]*"):
        parent, title = read_process(process)
        if title.startswith(b"ray::ImplicitFunc") and parent == os.getppid():
            return int(process.name)
    raise LookupError("no trial's actor")


def train(task, context):
    """Nine epochs of a run whose name says its error, such as `good-3` or `teacher-9`."""
    kind, _, error = task.name.partition("-")
    attempt(task, context)
    for epoch in range(1, 10):
        report = {"epoch": epoch, "epochs": 9, "error_pct": float(error) + 9 - epoch, "seed": 0}
        context.report(report)
    return outcome(error_last_pct=float(error), seed=None if kind == "teacher" else 0)


def stream(task, context):
    import torch.distributed as dist

    digests = [None] * context.world_size
    dist.all_gather_object(digests, digest_epoch(Path(task.folder), context))
    return outcome(digests=digests)


def digest_epoch(data_dir, context):
    """The sum of what a worker sees in an epoch of a run on a tiny data set."""
    import hashlib

    import torch

    from hkrun.data import load_dataset
    from hkrun.training import STUDENT_DRAWS, StreamedTrainingSet

    dataset = load_dataset("imagenet", data_dir=data_dir)
    images = StreamedTrainingSet(dataset, size=16, flip=True, dtype=torch.float32, device=torch.device("cpu"))
    digest = hashlib.sha256()
    for batch in images.batches([3], 1, batch_size=20, draws=STUDENT_DRAWS, context=context):
        digest.update(batch.images.numpy().tobytes() + batch.labels.numpy().tobytes())
    return digest.hexdigest()


def meet_others(task, context):
    """Waits until four tasks are there, and tells which GPU this one has."""
    import ray

    attempt(task, context)
    until = time.monotonic() + 120
    while (met := len(list(Path(task.folder).glob("t*.0")))) < 4 and time.monotonic() < until:
        time.sleep(0.1)
    return outcome(met=met, gpus=",".join(map(str, ray.get_gpu_ids())))
