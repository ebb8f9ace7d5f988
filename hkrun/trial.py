"""One task from its start, or its newest checkpoint, to its records in the store."""

import functools
import importlib.metadata
import logging
import os
import platform
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from hkrun.checkpoints import (
    load_checkpoint,
    load_teacher_checkpoint,
    save_checkpoint,
    save_teacher_checkpoint,
)
from hkrun.config import Cell, canonical_json, teacher_canonical, teacher_id
from hkrun.data import Dataset, load_dataset
from hkrun.data.views import Views
from hkrun.distill import Run, distill, start_run
from hkrun.errors import DataError, StoreError
from hkrun.models import DistilledNetwork
from hkrun.store import Record, TeacherRecord, open_store
from hkrun.teacher import (
    build_teacher,
    dump_weights,
    freeze,
    hash_weights,
    num_epochs,
    start_teacher,
    train_teacher,
)
from hkrun.training import Context, Diverged, EvaluationSet, TrainingSet, resolve_dtype

logger = logging.getLogger("hkrun")

# What a kill can cost, and how rarely the loop is disturbed. Neither changes a number.
CHECKPOINT_EVERY_S = 5.0
REPORT_EVERY_S = 1.0

# A discriminator that is like this over the last tenth of the epochs gives the student nothing to learn from:
# it says the same whatever it sees (standard deviation of its probabilities), or it is never wrong.
CONSTANT_SPREAD = 1e-3
WINNING_ACCURACY = 0.99

Outcome = dict[str, object]


@dataclass(frozen=True, kw_only=True)
class Task:
    """What one trial does; plain data that crosses process borders.

    Attributes:
        cell: The configuration; for a teacher, any of those that use it.
        cell_id: The cell's id, or the teacher's.
        seeds: The runs to train; empty where the task is to train the teacher.
        store: URI of the store.
        data_dir: Where data sets lie that are not embedded.
        threads: Threads of each process.
        device: "cpu" or "cuda".
        world_size: How many workers train the task together.
    """

    cell: Cell
    cell_id: str
    seeds: tuple[int, ...]
    store: str
    data_dir: str | None
    threads: int
    device: str
    world_size: int = 1

    @property
    def name(self) -> str:
        """A name that stays the same when the task is started again."""
        seeds = "-".join(map(str, self.seeds))
        return f"{self.cell_id}-{seeds}" if seeds else f"teacher-{self.cell_id}"


def run_task(task: Task, context: Context) -> list[Outcome]:
    """Does a task, and leaves its records in the store.

    Returns:
        One outcome per seed, or one for the teacher: "seed" (None for a teacher), "status" ("finished",
        "diverged" or "failed"), "error_last_pct", "epochs", and a "message" where it did not finish.

    Raises:
        DataError: The data set is missing or damaged: no run of the sweep can go on.
        StoreError: The store cannot be read or written.
    """
    with _reproducible(task.threads):
        if not task.seeds:
            return [_train_teacher(task, context)]
        return [_Trial(task, seed, context).run() for seed in task.seeds]


# --- the teacher ------------------------------------------------------------------------------------------


def _train_teacher(task: Task, context: Context) -> Outcome:
    store, cell = open_store(task.store), task.cell
    record = store.teacher(task.cell_id)
    if record is not None:
        return _outcome(None, "finished", record.error_pct, record.epochs)
    started_at = time.time()
    dataset, training_set, test_set = _load_sets(cell, task)
    run = start_teacher(cell, dataset, context=context, device=torch.device(task.device))
    found = load_teacher_checkpoint(store, task.cell_id)
    seconds = 0.0
    if found is not None:
        state = found[1]
        run.load_state_dict(state["run"], cell)
        started_at, seconds = state["started_at"], state["seconds"]
        torch.set_num_threads(state["threads"])
    clock = _Clock(spent=seconds)

    def save() -> None:
        state = {
            "run": run.state_dict(),
            "started_at": started_at,
            "seconds": clock.total(),
            "threads": torch.get_num_threads(),
        }
        save_teacher_checkpoint(store, task.cell_id, epoch=run.epoch, state=state)

    watch = _Watch(context, epochs=num_epochs(cell), seed=None, save=save)
    try:
        train_teacher(
            run,
            cell,
            training_set=training_set,
            test_set=test_set,
            context=context,
            on_epoch=lambda run: watch.epoch_done(run.history),
        )
    except Diverged as error:
        message = f"the teacher diverged: {error.args[0]}"
        return _outcome(None, "diverged", None, run.epoch, message)
    on_training = EvaluationSet(
        dataset.train.images,
        dataset.train.labels,
        dataset,
        dtype=resolve_dtype(cell.precision),
        device=torch.device(task.device),
    )
    train_errors = on_training.evaluate(run.network.backbone, precision=cell.precision, context=context)
    error_pct = float(str(run.history[-1]["error_pct"]))
    if context.rank == 0:
        surroundings = _surroundings(task)
        surroundings.pop("world_size")
        record = TeacherRecord(
            teacher_id=task.cell_id,
            teacher_hash=hash_weights(run.network),
            error_pct=error_pct,
            train_error_pct=train_errors.top1_pct,
            config=teacher_canonical(cell),
            epochs=run.epoch,
            started_at=started_at,
            timings={"total": clock.total()},
            **surroundings,
        )
        store.put_teacher(record, weights=dump_weights(run.network), curves=_table(run.history))
    return _outcome(None, "finished", error_pct, run.epoch)


@dataclass(frozen=True)
class _TeacherPlace:
    """Which teacher, and what it takes to build it; equal wherever the teacher is the same."""

    store: str
    teacher_id: str
    device: str
    cell: Cell = field(compare=False)
    data_dir: str | None = field(compare=False)


@functools.lru_cache(maxsize=2)
def _load_teacher(place: _TeacherPlace) -> tuple[DistilledNetwork, str]:
    """The frozen teacher and the hash of its weights; kept between the trials of a process.

    Raises:
        StoreError: The teacher is not in the store, or is damaged.
    """
    store, cell = open_store(place.store), place.cell
    where = f"{store.place}: teachers/{place.teacher_id}"
    record = store.teacher(place.teacher_id)
    if record is None:
        raise StoreError(f"{where}: no such teacher; `hkrun teacher` trains it")
    network = build_teacher(cell, _load_dataset(cell.dataset, place.data_dir))
    network.to(resolve_dtype(cell.precision))
    weights = store.teacher_weights(place.teacher_id)
    network.load_state_dict(torch.load(BytesIO(weights), map_location="cpu", weights_only=True))
    if hash_weights(network) != record.teacher_hash:
        raise StoreError(f"{where}: the weights are not those of its record")
    return freeze(network.to(place.device)), record.teacher_hash


# --- a run ------------------------------------------------------------------------------------------------


class _Trial:
    """One run of a task, with what its record says of it."""

    def __init__(self, task: Task, seed: int, context: Context) -> None:
        self.task, self.seed, self.context = task, seed, context
        self.store = open_store(task.store)
        self.started_at = time.time()
        self.resumed = 0
        self.clock = _Clock(spent=0.0)
        self.history: list[dict[str, float | None]] = []
        self.teacher_hash: str | None = None
        self.surroundings = _surroundings(task)
        self.alarms: list[str] = []

    def run(self) -> Outcome:
        """Trains the run unless the store has it, and records how it ended."""
        record = self.store.record(self.task.cell_id, self.seed)
        if record is not None and record.status != "failed":
            return _outcome(self.seed, record.status, record.error_last_pct, record.epochs)
        student = None
        torch.set_num_threads(self.task.threads)  # the pack's run before may have gone on with others
        try:
            student = self._train()
            status, message, trace = "finished", "", None
        except Diverged as error:
            status, message, trace = "diverged", str(error.args[0]), None
        except (DataError, StoreError):
            raise  # nothing of this run is wrong, and no other run would fare better
        except Exception as error:  # the trial's border: one failing run must not take the sweep down
            status, trace = "failed", traceback.format_exc()
            message = f"{type(error).__name__}: {error}".strip()
            if self.context.world_size > 1:
                # The other workers would wait for this one for half an hour; raising ends the group. Theirs
                # then only echo the first, whose record stands. After a death the run is tried again.
                if self.store.record(self.task.cell_id, self.seed) == record:
                    self._record(status, student, trace)
                raise
        if self.context.rank == 0:
            self._record(status, student, trace)
        errors = self._errors()
        return _outcome(self.seed, status, errors[-1] if errors else None, len(self.history), message)

    def _train(self) -> bytes:
        task, cell = self.task, self.task.cell
        device = torch.device(task.device)
        dataset, training_set, test_set = _load_sets(cell, task)
        teacher = None
        if cell.uses_teacher:
            place = _TeacherPlace(task.store, teacher_id(cell), task.device, cell, task.data_dir)
            teacher, self.teacher_hash = _load_teacher(place)
        run = start_run(cell, dataset, self.seed, context=self.context, device=device)
        self._resume(run)
        self.history = run.history
        watch = _Watch(self.context, epochs=cell.student.epochs, seed=self.seed, save=lambda: self._save(run))
        distill(
            run,
            cell,
            seed=self.seed,
            teacher=teacher,
            training_set=training_set,
            test_set=test_set,
            context=self.context,
            on_epoch=lambda run: watch.epoch_done(run.history),
        )
        return dump_weights(run.student.backbone)

    def _save(self, run: Run) -> None:
        state = {
            "run": run.state_dict(),
            "started_at": self.started_at,
            "resumed": self.resumed,
            "seconds": self.clock.total(),
            "teacher_hash": self.teacher_hash,
            "surroundings": self.surroundings,
            "alarms": self.alarms,
        }
        save_checkpoint(self.store, self.task.cell_id, self.seed, epoch=run.epoch, state=state)

    def _resume(self, run: Run) -> None:
        """Goes on from the newest checkpoint, under the conditions that the run began with where it can."""
        found = load_checkpoint(self.store, self.task.cell_id, self.seed)
        if found is None:
            return
        epoch, state = found
        if state["teacher_hash"] != self.teacher_hash:
            logger.warning("seed %d begins anew: its checkpoint is of another teacher", self.seed)
            return
        run.load_state_dict(state["run"])
        self.started_at, self.resumed = state["started_at"], state["resumed"] + 1
        self.alarms = state["alarms"]
        self.clock = _Clock(spent=state["seconds"])
        began = state["surroundings"]
        torch.set_num_threads(began["threads"])
        self.surroundings["threads"] = began["threads"]
        changed = [name for name in began if began[name] != self.surroundings[name]]
        if changed:
            self.alarms.append(
                f"resumed after epoch {epoch}, not bit-identical: another {', '.join(changed)}"
            )

    def _errors(self) -> list[float]:
        return [float(str(row["error_pct"])) for row in self.history]

    def _record(self, status: Any, student: bytes | None, trace: str | None) -> None:
        errors = self._errors()
        complete = status == "finished"
        top5 = self.history[-1]["error_top5_pct"] if complete else None
        train_s = sum(float(str(row["seconds"])) for row in self.history)
        record = Record(
            cell_id=self.task.cell_id,
            seed=self.seed,
            status=status,
            epochs=len(self.history),
            error_last_pct=errors[-1] if complete else None,
            error_best_pct=min(errors) if complete else None,
            error_top5_last_pct=top5,
            teacher_id=teacher_id(self.task.cell) if self.task.cell.uses_teacher else None,
            teacher_hash=self.teacher_hash,
            diverged_epoch=len(self.history) + 1 if status == "diverged" else None,
            traceback=trace,
            alarms=(*self.alarms, *_discriminator_alarms(self.history)),
            pack=self.task.seeds,
            started_at=self.started_at,
            resumed=self.resumed,
            timings={"total": self.clock.total(), "epochs": train_s},
            **self.surroundings,
        )
        self.store.put_cell(
            self.task.cell_id, canonical_json(self.task.cell, world_size=self.task.world_size)
        )
        curves = _table(self.history) if self.history else None
        self.store.put_run(record, curves=curves, student=student)


def _discriminator_alarms(history: Sequence[Mapping[str, float | None]]) -> list[str]:
    """Says when the discriminator ended in a state that gives the student no gradient."""
    tail = history[-max(1, len(history) // 10) :]
    if not tail or "discriminator_accuracy" not in tail[-1]:
        return []

    def mean(name: str) -> float:
        return sum(float(str(row[name])) for row in tail) / len(tail)

    belief, accuracy = mean("discriminator_student_mean"), mean("discriminator_accuracy")
    alarms = []
    if mean("discriminator_spread") < CONSTANT_SPREAD:
        alarms.append(f"the discriminator is constant: it says {belief:.3f} to whatever it sees")
    if accuracy > WINNING_ACCURACY:
        alarms.append(f"the discriminator wins outright: it tells {100 * accuracy:.1f} % apart")
    return alarms


# --- what both need ---------------------------------------------------------------------------------------


class _Watch:
    """What happens after an epoch: checkpoints and progress, each as rarely as it may be."""

    def __init__(self, context: Context, *, epochs: int, seed: int | None, save: Callable[[], None]) -> None:
        self._context, self._epochs, self._seed, self._save = context, epochs, seed, save
        self._saved_at = self._reported_at = time.monotonic()

    def epoch_done(self, history: Sequence[Mapping[str, float | None]]) -> None:
        """Called when the state is whole; the last epoch needs no checkpoint, the record follows."""
        now, last = time.monotonic(), len(history) == self._epochs
        if self._context.rank == 0 and now - self._saved_at >= CHECKPOINT_EVERY_S and not last:
            self._save()
            self._saved_at = time.monotonic()
        if now - self._reported_at >= REPORT_EVERY_S or last:
            self._reported_at = now
            self._context.report(
                {
                    "seed": self._seed,
                    "epoch": len(history),
                    "epochs": self._epochs,
                    "error_pct": history[-1]["error_pct"],
                }
            )


class _Clock:
    """Seconds spent on a run, over all its resumptions."""

    def __init__(self, *, spent: float) -> None:
        self._spent = spent
        self._began = time.perf_counter()

    def total(self) -> float:
        return self._spent + time.perf_counter() - self._began


@functools.lru_cache(maxsize=2)
def _load_dataset(name: str, data_dir: str | None) -> Dataset:
    return load_dataset(name, data_dir=None if data_dir is None else Path(data_dir))


@functools.lru_cache(maxsize=2)
def _sets(
    name: str, data_dir: str | None, views: Views, precision: str, device: str
) -> tuple[Dataset, TrainingSet, EvaluationSet]:
    dataset = _load_dataset(name, data_dir)
    dtype, place = resolve_dtype(precision), torch.device(device)
    test = dataset.test
    return (
        dataset,
        TrainingSet(dataset, views, dtype=dtype, device=place),
        EvaluationSet(test.images, test.labels, dataset, dtype=dtype, device=place),
    )


def _load_sets(cell: Cell, task: Task) -> tuple[Dataset, TrainingSet, EvaluationSet]:
    """The cell's images on their device; kept between the trials of a process."""
    views = Views(cell.augment.padding, cell.augment.flip)
    return _sets(cell.dataset, task.data_dir, views, cell.precision, task.device)


@contextmanager
def _reproducible(threads: int) -> Iterator[None]:
    """Settings of torch under which the same task gives the same bits; undone afterwards."""
    cudnn, filling = torch.backends.cudnn, torch.utils.deterministic
    before = (
        torch.get_num_threads(),
        torch.are_deterministic_algorithms_enabled(),
        (cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32),
        filling.fill_uninitialized_memory,  # type: ignore[attr-defined]
    )
    os.environ.setdefault(
        "CUBLAS_WORKSPACE_CONFIG", ":4096:8"
    )  # without it, CUDA refuses to be deterministic
    torch.set_num_threads(threads)
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    cudnn.allow_tf32 = False  # float32 means float32
    # Nothing here reads what it has not written, and filling costs 5 % of a step.
    filling.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.set_num_threads(before[0])
        torch.use_deterministic_algorithms(before[1])
        cudnn.deterministic, cudnn.benchmark, cudnn.allow_tf32 = before[2]
        filling.fill_uninitialized_memory = before[3]  # type: ignore[attr-defined]


def _surroundings(task: Task) -> dict[str, Any]:
    """What the bits of a result depend on besides cell, seed and pack, as the records have it."""
    versions = {"python": platform.python_version()}
    for name in ("hkrun", "torch", "torchvision", "numpy", "ray"):
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    device = torch.cuda.get_device_name() if task.device == "cuda" else f"cpu {platform.machine()}"
    return {
        "versions": versions,
        "device": device,
        "threads": task.threads,
        "world_size": task.world_size,
    }


def _table(history: Sequence[Mapping[str, float | None]]) -> pa.Table:
    """The curves: one row per epoch, one column per figure."""
    return pa.Table.from_pylist(list(history))


def _outcome(
    seed: int | None, status: str, error_last_pct: float | None, epochs: int, message: str = ""
) -> Outcome:
    return {
        "seed": seed,
        "status": status,
        "error_last_pct": error_last_pct,
        "epochs": epochs,
        "message": message,
    }
