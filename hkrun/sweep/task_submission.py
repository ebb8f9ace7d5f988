"""The tasks of a study for the cluster, and what observer, MLflow and time accounting are told of them."""

import dataclasses
import functools
import importlib
import logging
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from hkrun.config import Cell
from hkrun.plans import Look, Pack, Plan, PlannedTable, PlannedTeacher
from hkrun.plans.teacher_tables import find_too_large
from hkrun.store import Store
from hkrun.sweep.machine import THREADS, log_folder_of
from hkrun.sweep.progress import Phase
from hkrun.sweep.rounds import first_look, keep_look, make_look
from hkrun.sweep.study import Study
from hkrun.sweep.time_accounting import TimeAccounting

if TYPE_CHECKING:
    from hkrun.cluster import TaskList
    from hkrun.tracking import Mirror
    from hkrun.trial import Task

logger = logging.getLogger("hkrun")

# What a report imports by itself where it is needed, which takes it a second.
REPORT_MODULES = (
    *("hkrun.report.documents", "hkrun.report.drawing", "hkrun.report.page"),
    *("scipy.stats", "hkrun.figures.errors", "PIL.PngImagePlugin"),
)


class Observer(Protocol):
    """Watches a sweep; called in the driver, one call at a time."""

    def plan_made(self, plan: Plan, *, slots: int) -> None:
        """What will run, and how many tasks at a time."""

    def entered(self, phase: Phase) -> None:
        """What happens from now on."""

    def started(self, task: "Task") -> None:
        """A task has got its process."""

    def progressed(self, task: "Task", progress: Mapping[str, object]) -> None:
        """A task is this far: what `hkrun.trial.progress` tells of it."""

    def ended(self, task: "Task", outcomes: Sequence[Mapping[str, object]]) -> None:
        """A task is over; its outcomes are those of `hkrun.trial.run.run_task`."""

    def failed(self, task: "Task", message: str) -> None:
        """A task has no outcome, and why."""

    def looked(self, look: Look) -> None:
        """Where seeds come in rounds: what is known of the study's questions by now."""


def list_tasks(study: Study) -> "TaskList":
    """The tasks of a study's plan: teachers first, then runs, each of which waits for its teacher."""
    from hkrun.cluster import EarlyStopping, Rounds, TaskList, do_task, make_search

    plan, options = study.plan, study.options
    tables = {(name, table.teacher_id): table for table in plan.tables for name in table.names}
    for table in find_too_large(plan.tables, study.opened):
        logger.warning("%s: does not fit on the disk, the teacher runs live", table.describe())
    teachers = [_make_teacher_task(study, pack) for pack in plan.teacher_packs]
    runs = [
        _make_run_task(study, pack, [tables[pack.name, identity] for identity in pack.teacher_ids])
        for pack in plan.packs
    ]
    places = {identity: index for index, task in enumerate(teachers) for identity in task.teachers}
    needs = {
        index: needed
        for index, pack in enumerate(plan.packs, start=len(teachers))
        if (needed := {places[identity] for identity in pack.teacher_ids if identity in places})
    }
    search = early_stopping = None
    if options.shortcuts.search:
        search = make_search(plan, first_run=len(teachers))
    if options.shortcuts.stop_early:
        compared = frozenset(range(len(teachers), len(teachers) + len(runs)))
        early_stopping = EarlyStopping(compared, epochs=max(sum(task.cell.stage_epochs) for task in runs))
    rounds = None
    if options.shortcuts.until_decided:
        tasks = {
            index: (pack.cell_id, pack.round) for index, pack in enumerate(plan.packs, start=len(teachers))
        }
        rounds = Rounds(tasks=tasks, first=first_look(study), look=make_look(study))
    workers = options.workers
    return TaskList(
        tasks=[*teachers, *runs],
        log_folder=log_folder_of(study.store),
        workers=[
            *(workers.of_teacher(task.cell) for task in teachers),
            *(workers.of_runs(task.cell) for task in runs),
        ],
        per_gpu=workers.per_gpu,
        needs=needs,
        fail_fast=options.fail_fast,
        search=search,
        rounds=rounds,
        early_stopping=early_stopping,
        function=do_task,
    )


def make_task(
    study: Study, cell: Cell, identity: str, *, seeds: tuple[int, ...] = (), **fields: Any
) -> "Task":
    """A task of a study; `fields` are others of `hkrun.trial.Task`."""
    from hkrun.trial import Task

    return Task(
        cell=cell,
        cell_id=identity,
        seeds=seeds,
        store=study.opened.uri,
        data_dir=study.options.data_place,
        threads=THREADS,
        device=study.on.device,
        world_size=study.options.workers.world_size,
        other_code=study.options.other_code,
        **fields,
    )


def _make_run_task(study: Study, pack: Pack, tables: Sequence[PlannedTable]) -> "Task":
    return make_task(
        study,
        pack.cell,
        pack.cell_id,
        seeds=pack.seeds,
        table="ahead" if any(table.mode == "ahead" for table in tables) else "first_use",
        table_parts=tuple(sorted({part for table in tables for part in table.parts})),
    )


def _make_teacher_task(study: Study, pack: Sequence[PlannedTeacher]) -> "Task":
    seeds = tuple(teacher.seed for teacher in pack) if len(pack) > 1 else ()
    return make_task(study, pack[0].cell, pack[0].teacher_id, teacher_seeds=seeds)


class TaskObserver:
    """Tells observer, MLflow and time accounting what becomes of the tasks, which the cluster numbers.

    Attributes:
        phase_of_runs: What begins with the first task that is not a teacher's.
    """

    phase_of_runs = Phase.LOADING  # from there on its progress says what it is at

    def __init__(
        self,
        tasks: "Sequence[Task]",
        study: Study,
        observer: Observer,
        mirror: "Mirror | None" = None,
        accounting: TimeAccounting | None = None,
    ) -> None:
        self._tasks, self._observer, self._mirror, self._study = tasks, observer, mirror, study
        self._accounting = accounting
        self._num_left = len(tasks)
        self._phase = Phase.RAY
        self.problems: list[str] = []
        self._observer.entered(Phase.RAY)

    def taken(self, index: int) -> None:
        """See `hkrun.cluster.driver.calls.Observer`, as of the others."""
        if self._accounting is not None:
            self._accounting.taken(self._tasks[index])
        if self._phase == Phase.RAY:
            self._enter(Phase.PROCESSES)

    def started(self, index: int) -> None:
        """See `taken`."""
        task = self._tasks[index]
        if task.seeds:
            self._enter(self.phase_of_runs)
        elif self._phase != self.phase_of_runs:
            self._enter(Phase.TEACHER)
        self._observer.started(task)

    def progress(self, index: int, progress: Mapping[str, object]) -> None:
        """It tells of its time too. Now that something trains, report and MLflow can be made ready."""
        preload_report()
        if self._mirror is not None:
            self._mirror.prepare()
        if self._accounting is not None:
            self._accounting.told(self._tasks[index], _read_seconds([progress]))
        self._observer.progressed(self._tasks[index], progress)

    def done(self, index: int, outcomes: Sequence[Mapping[str, object]]) -> None:
        """Its runs go to MLflow."""
        task = self._tasks[index]
        if self._accounting is not None:
            self._accounting.told(task, _read_seconds(outcomes))
            self._accounting.ended(task)
        if not task.seeds:
            divergences = [describe_divergence(self._study.opened, identity) for identity in task.teachers]
            self.problems += filter(None, divergences)
        elif self._mirror is not None:
            for outcome in outcomes:
                if outcome["status"] not in ("stopped", "untaught"):  # which have no record
                    self._mirror.run_done(task.cell_id, int(str(outcome["seed"])))
        self._observer.ended(task, outcomes)
        self._count_down()

    def failed(self, index: int, message: str) -> None:
        """It is one of the problems."""
        task = self._tasks[index]
        if self._accounting is not None:
            self._accounting.ended(task)
        self.problems.append(f"{task.name}: {message}")
        self._observer.failed(task, message)
        self._count_down()

    def looked(self, look: Look) -> None:
        """What has ended is kept at once: who interrupts the study finds it so."""
        keep_look(self._study, look)
        self._observer.looked(look)
        if not look.needs:
            self._enter(Phase.ENDING)

    def _count_down(self) -> None:
        self._num_left -= 1
        if not self._num_left:
            self._enter(Phase.ENDING)

    def _enter(self, phase: Phase) -> None:
        if phase != self._phase:
            self._phase = phase
            self._observer.entered(phase)


@functools.cache
def preload_report() -> None:
    """Imports what the report takes while tasks train and the driver waits: seconds less at the end."""

    def preload() -> None:
        for name in REPORT_MODULES:
            importlib.import_module(name)

    threading.Thread(target=preload).start()


def _read_seconds(told: Sequence[Mapping[str, object]]) -> dict[str, float]:
    """What a task has told of its time, by part: the sum over its progress or outcomes."""
    sums: dict[str, float] = {}
    for each in told:
        seconds = each.get("seconds")
        if isinstance(seconds, Mapping):
            for part, value in seconds.items():
                sums[part] = sums.get(part, 0.0) + value
    return sums


def leave_out_diverged(study: Study) -> tuple[Study, list[str]]:
    """The study without teachers that are known to diverge and what needs them; a line for each of those."""
    plan, again = study.plan, study.options.other_code == "again"
    told = {
        teacher.teacher_id: line
        for teacher in plan.teachers
        if not (again and teacher.teacher_id in plan.other_teachers)
        if (line := describe_divergence(study.opened, teacher.teacher_id))
    }
    teachers = [teacher for teacher in plan.teachers if teacher.teacher_id not in told]
    packs = [taught for pack in plan.packs if (taught := pack.without_teachers(told)).seeds]
    plan = dataclasses.replace(plan, teachers=tuple(teachers), packs=tuple(packs))
    return dataclasses.replace(study, plan=plan), list(told.values())


def describe_divergence(store: Store, identity: str) -> str:
    """What is known of a teacher that diverged, and what to do about it; empty where none did."""
    teacher = store.diverged_teacher(identity)
    if teacher is None:
        return ""
    return (
        f"teacher {identity} diverged ({teacher.message}), so no run can learn from it; "
        "try a lower teacher.learning_rate or more teacher.warmup_epochs"
    )
