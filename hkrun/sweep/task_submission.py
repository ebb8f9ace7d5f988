"""Who sends a sweep's tasks to the cluster, and tells the observer and MLflow what becomes of them."""

import dataclasses
import functools
import importlib
import logging
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from hkrun.config import Cell, teacher_id
from hkrun.errors import TrainingError
from hkrun.plan import AUTO, Plan, PlannedTable, Shortcuts, Span, StoppedRun, Workers, save_stopped
from hkrun.plan.teacher_tables import find_too_large
from hkrun.store import Store
from hkrun.sweep.machine import THREADS, Machine, find_machine, log_folder_of
from hkrun.sweep.time_accounting import TimeAccounting

if TYPE_CHECKING:
    from hkrun.cluster import TaskResult
    from hkrun.tracking import Mirror
    from hkrun.trial import Task

logger = logging.getLogger("hkrun")


class Observer(Protocol):
    """Who watches a sweep; called in the driver, one call at a time."""

    def plan_made(self, plan: Plan, *, slots: int) -> None:
        """What will run, and how many tasks at a time."""

    def entered(self, stage: str) -> None:
        """What happens from now on, in words."""

    def started(self, task: "Task") -> None:
        """A task has got its process."""

    def progressed(self, task: "Task", progress: Mapping[str, object]) -> None:
        """A task is this far: seed, epoch, epochs, error_pct; or filled, the share of its teacher table."""

    def ended(self, task: "Task", outcomes: Sequence[Mapping[str, object]]) -> None:
        """A task is over; its outcomes are those of `hkrun.trial.run_task`."""

    def failed(self, task: "Task", message: str) -> None:
        """A task has no outcome, and why."""


class TaskSubmission:
    """Sends tasks to the cluster, and tells observer, mirror and account what becomes of them.

    Attributes:
        without_outcome: The runs, by cell_id and seed, that were begun and came to nothing.
    """

    def __init__(
        self,
        store: Store,
        *,
        data_dir: Path | str | None,
        workers: Workers = AUTO,
        machine: Machine | None = None,
        fail_fast: bool,
        observer: Observer,
        account: TimeAccounting | None = None,
    ) -> None:
        self._store, self._data_dir, self._workers = store, data_dir, workers
        self._machine = machine
        self._fail_fast, self._observer, self._account = fail_fast, observer, account
        self._log_folder = log_folder_of(store)
        self.without_outcome: set[tuple[str, int]] = set()

    def train(self, plan: Plan, mirror: "Mirror", shortcuts: Shortcuts) -> list[str]:
        """Trains a plan's runs, each once its teacher is trained; those that use none need not wait.

        Runs that a shortcut ends early are marked in the store.

        Returns:
            What has no outcome and why, a line each.

        Raises:
            TrainingError: Every run needs a teacher that could not be trained.
            DataError: A task found the data missing or damaged; all were stopped, what is finished is kept.
            StoreError: A task could not use the store; likewise.
        """
        plan, known = _leave_out_diverged(plan, self._store)
        if not plan.packs or (known and self._fail_fast):
            raise TrainingError("\n".join(known))
        teachers = [self._task(teacher.cell, teacher.teacher_id, ()) for teacher in plan.teachers]
        tables = {name: table for table in plan.tables for name in table.names}
        _warn_of_space(plan.tables, self._store)
        runs = [
            self._task(pack.cell, pack.cell_id, pack.seeds, table=tables.get(pack.name))
            for pack in plan.packs
        ]
        places = {task.cell_id: index for index, task in enumerate(teachers)}
        needs = {
            index: places[teacher_id(task.cell)]
            for index, task in enumerate(runs, start=len(teachers))
            if task.cell.uses_teacher and teacher_id(task.cell) in places
        }
        options: dict[str, Any] = {}
        if shortcuts.search:
            from hkrun.cluster import make_search

            options["search"] = make_search(plan, first_run=len(teachers))
        if shortcuts.stop_early:
            from hkrun.cluster import EarlyStopping

            compared = frozenset(range(len(teachers), len(teachers) + len(runs)))
            epochs = max(sum(task.cell.stage_epochs) for task in runs)
            options["early_stopping"] = EarlyStopping(compared, epochs=epochs)
        results, problems = self._run([*teachers, *runs], mirror=mirror, needs=needs, **options)
        self._mark_stopped(plan, runs, results[len(teachers) :])
        self.without_outcome = {
            (task.cell_id, seed)
            for task, result in zip(runs, results[len(teachers) :], strict=True)
            if result.error is not None
            for seed in task.seeds
        }
        _raise_common_error(results)
        if problems and not any(result.begun for result in results[len(teachers) :]):
            raise TrainingError("\n".join([*known, *problems]))
        return [*known, *problems]

    def _mark_stopped(self, plan: Plan, runs: "Sequence[Task]", results: "Sequence[TaskResult]") -> None:
        stopped = [
            StoppedRun(
                cell_id=task.cell_id,
                seed=task.seeds[0],
                epoch=int(str(outcome["epochs"])),
                error_pct=outcome["error_last_pct"],  # type: ignore[arg-type]
            )
            for task, result in zip(runs, results, strict=True)
            for outcome in result.outcomes or ()
            if outcome["status"] == "stopped"
        ]
        if stopped:
            save_stopped(self._store, plan.sweep, stopped)

    def train_teacher(self, identity: str, cell: Cell) -> None:
        """Trains one teacher.

        Raises:
            TrainingError: It failed or diverged.
            DataError: The data is missing or damaged.
            StoreError: The store cannot be used.
        """
        if known := describe_divergence(self._store, identity):
            raise TrainingError(known)
        results, problems = self._run([self._task(cell, identity, ())], mirror=None, needs={})
        _raise_common_error(results)
        if problems:
            raise TrainingError("\n".join(problems))

    def _task(
        self, cell: Cell, identity: str, seeds: tuple[int, ...], *, table: PlannedTable | None = None
    ) -> "Task":
        from hkrun.trial import Task

        if self._machine is None:
            self._machine = find_machine(self._store, per_gpu=self._workers.per_gpu)
        return Task(
            cell=cell,
            cell_id=identity,
            seeds=seeds,
            store=self._store.uri,
            data_dir=_absolute(self._data_dir),
            threads=THREADS,
            device=self._machine.device,
            world_size=self._workers.world_size,
            table="ahead" if table is not None and table.mode == "ahead" else "first_use",
            table_parts=() if table is None else table.parts,
        )

    def _span(self, task: "Task") -> Span:
        """How many processes may do a task together."""
        return self._workers.of_runs(task.cell) if task.seeds else self._workers.of_teacher(task.cell)

    def _run(
        self, tasks: "Sequence[Task]", *, mirror: "Mirror | None", needs: Mapping[int, int], **options: Any
    ) -> "tuple[list[TaskResult], list[str]]":
        from hkrun.cluster import TaskList, run_tasks

        watch = _Watch(tasks, self._observer, mirror, self._store, self._account)
        work = TaskList(
            tasks=tasks,
            log_folder=self._log_folder,
            workers=[self._span(task) for task in tasks],
            per_gpu=self._workers.per_gpu,
            needs=needs,
            fail_fast=self._fail_fast,
            **options,
        )
        return run_tasks(work, watch), watch.problems


class _Watch:
    """Translates task numbers for the sweep's observer, and passes finished runs on to MLflow."""

    def __init__(
        self,
        tasks: "Sequence[Task]",
        observer: Observer,
        mirror: "Mirror | None",
        store: Store,
        account: TimeAccounting | None,
    ) -> None:
        self._tasks, self._observer, self._mirror, self._store = tasks, observer, mirror, store
        self._account = account
        self._teachers_left = sum(not task.seeds for task in tasks)
        self.problems: list[str] = []
        self._enter_stage()

    def taken(self, index: int) -> None:
        if self._account is not None:
            self._account.taken(self._tasks[index])

    def started(self, index: int) -> None:
        preload_report()
        self._observer.started(self._tasks[index])

    def progress(self, index: int, progress: Mapping[str, object]) -> None:
        if self._account is not None:
            self._account.told(self._tasks[index], _read_seconds([progress]))
        self._observer.progressed(self._tasks[index], progress)

    def done(self, index: int, outcomes: Sequence[Mapping[str, object]]) -> None:
        task = self._tasks[index]
        if self._account is not None:
            self._account.told(task, _read_seconds(outcomes))
            self._account.ended(task)
        if not task.seeds:
            if divergence := describe_divergence(self._store, task.cell_id):
                self.problems.append(divergence)
        elif self._mirror is not None:
            for outcome in outcomes:
                if outcome["status"] != "stopped":  # which has no record
                    self._mirror.run_done(task.cell_id, int(str(outcome["seed"])))
        self._observer.ended(task, outcomes)
        self._teacher_over(task)

    def failed(self, index: int, message: str) -> None:
        task = self._tasks[index]
        if self._account is not None:
            self._account.ended(task)
        self.problems.append(f"{task.name}: {message}")
        self._observer.failed(task, message)
        self._teacher_over(task)

    def _teacher_over(self, task: "Task") -> None:
        if not task.seeds:
            self._teachers_left -= 1
            if not self._teachers_left:
                self._enter_stage()

    def _enter_stage(self) -> None:
        what = {0: "Training", 1: "Training the teacher"}.get(self._teachers_left, "Training the teachers")
        self._observer.entered(what)


@functools.cache
def preload_report() -> None:
    """Imports what the report takes while tasks train and the driver waits: seconds less at the end."""
    threading.Thread(target=importlib.import_module, args=("hkrun.report.renewal",)).start()


def _read_seconds(told: Sequence[Mapping[str, object]]) -> dict[str, float]:
    """What a task has told of its time, by part: the sum over its progress or outcomes."""
    sums: dict[str, float] = {}
    for each in told:
        seconds = each.get("seconds")
        if isinstance(seconds, Mapping):
            for part, value in seconds.items():
                sums[part] = sums.get(part, 0.0) + value
    return sums


def _raise_common_error(results: "Sequence[TaskResult]") -> None:
    """Raises what stopped the tasks because all of them would have met it."""
    for result in results:
        if error := result.common_error:
            raise error


def _warn_of_space(tables: Sequence[PlannedTable], store: Store) -> None:
    """Says which tables do not fit beside a local store; a remote store's lie on machines of their own."""
    for table in find_too_large(tables, store):
        logger.warning("%s: does not fit on the disk, the teacher runs live", table.describe())


def _absolute(data_dir: Path | str | None) -> str | None:
    """The place of the data as every process names it: an absolute path, or a URI."""
    return str(data_dir.absolute()) if isinstance(data_dir, Path) else data_dir


def _leave_out_diverged(plan: Plan, store: Store) -> tuple[Plan, list[str]]:
    """The plan without teachers that are known to diverge and what needs them; a line for each of those."""
    told = {
        teacher.teacher_id: line
        for teacher in plan.teachers
        if (line := describe_divergence(store, teacher.teacher_id))
    }
    teachers = [teacher for teacher in plan.teachers if teacher.teacher_id not in told]
    packs = [pack for pack in plan.packs if not (pack.cell.uses_teacher and teacher_id(pack.cell) in told)]
    return dataclasses.replace(plan, teachers=tuple(teachers), packs=tuple(packs)), list(told.values())


def describe_divergence(store: Store, identity: str) -> str:
    """What is known of a teacher that diverged, and what to do about it; empty where none did."""
    teacher = store.diverged_teacher(identity)
    if teacher is None:
        return ""
    return (
        f"teacher {identity} diverged ({teacher.message}), so no run can learn from it; "
        "try a lower teacher.learning_rate or more teacher.warmup_epochs"
    )
