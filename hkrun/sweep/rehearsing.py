"""The rehearsal of a study's cells, on its machine: their first steps on students that are thrown away."""

import logging
from typing import TYPE_CHECKING

from hkrun.config import Cell, teacher_id
from hkrun.plans import ALONE, REHEARSAL_SEEDS, load_rehearsal
from hkrun.sweep.machine import log_folder_of
from hkrun.sweep.planning import bring_back
from hkrun.sweep.progress import Phase
from hkrun.sweep.study import Study
from hkrun.sweep.task_submission import Observer, TaskObserver, leave_out_diverged, make_task

if TYPE_CHECKING:
    from hkrun.training import Context
    from hkrun.trial import Outcome, Task

logger = logging.getLogger("hkrun")


def do_rehearsal(task: "Task", context: "Context") -> "list[Outcome]":
    """Trains a teacher, or rehearses a cell; see `hkrun.trial.rehearsal.rehearse_task`."""
    from hkrun.trial.rehearsal import rehearse_task

    return rehearse_task(task, context)


class _RehearsalObserver(TaskObserver):
    """Tells of rehearsals, which have no epochs."""

    phase_of_runs = Phase.REHEARSAL


def rehearse_study(study: Study, observer: Observer) -> None:
    """Rehearses each cell that has runs to make and was not rehearsed before; missing teachers are trained.

    The store keeps what came out, for every plan from then on. A cell that cannot be rehearsed is a warning
    in the log.

    Args:
        study: What `resolve` has returned, its store made and its inputs checked.
        observer: Told how it goes.

    Raises:
        DataError: The data set is missing or damaged.
        StoreError: The store cannot be used.
    """
    from hkrun.cluster import TaskList, run_tasks

    bring_back(study)
    study, known = leave_out_diverged(study)
    for line in known:
        logger.warning("%s", line)
    # Where seeds have teachers of their own, its students learn from that of the first run.
    planned: dict[str, Cell] = {}
    for pack in study.plan.packs:
        planned.setdefault(pack.cell_id, pack.cell.with_teacher_of(pack.seeds[0]))
    cells = {
        identity: cell for identity, cell in planned.items() if load_rehearsal(study.opened, identity) is None
    }
    needed = {teacher_id(cell) for cell in cells.values() if cell.uses_teacher}
    taught = [teacher for teacher in study.plan.teachers if teacher.teacher_id in needed]
    teachers = [make_task(study, teacher.cell, teacher.teacher_id) for teacher in taught]
    rehearsals = [make_task(study, cell, identity, seeds=REHEARSAL_SEEDS) for identity, cell in cells.items()]
    if not rehearsals:
        return
    places = {task.cell_id: index for index, task in enumerate(teachers)}
    workers = study.options.workers
    work = TaskList(
        tasks=[*teachers, *rehearsals],
        log_folder=log_folder_of(study.store),
        workers=[*(workers.of_teacher(task.cell) for task in teachers), *[ALONE] * len(rehearsals)],
        per_gpu=workers.per_gpu,
        needs={
            index: [places[teacher_id(task.cell)]]
            for index, task in enumerate(rehearsals, start=len(teachers))
            if task.cell.uses_teacher and teacher_id(task.cell) in places
        },
        function=do_rehearsal,
    )
    watcher = _RehearsalObserver(work.tasks, study, observer)
    for result in run_tasks(work, watcher):
        if error := result.common_error:
            raise error
    for problem in watcher.problems:
        logger.warning("not rehearsed: %s", problem)
