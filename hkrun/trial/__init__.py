"""One task from its start, or its newest checkpoint, to its records in the store.

    task.py             what a task is, and how its end is told
    run.py              the runs of students
    teacher_task.py     the training of a teacher
    inputs.py           images and teachers, kept between the trials of a process
    teacher_answers.py  a teacher as the loop asks it: live, or with a table
    curves.py           a history as a table
    provenance.py       when it began, how long it took, what looked wrong; over all resumptions
    pack_speed.py       how fast runs train together
    progress.py         when checkpoints are saved and progress is told
    environment.py      torch's settings, and what else decides the bits of a result
    run_warnings.py     what looked wrong in a run that went through

What a task is can be known, and sent to where it is done, without torch: its doing alone imports that.

A run that fails or diverges is a record, not an exception: only missing data and a broken store end a task.
"""

from typing import TYPE_CHECKING

from hkrun.stopwatch import Stopwatch
from hkrun.trial.task import Outcome, Task
from hkrun.user_parts import check_source

if TYPE_CHECKING:
    from hkrun.training import Context

__all__ = ["Outcome", "Task", "run_task"]


def run_task(task: Task, context: "Context") -> list[Outcome]:
    """Does a task, and leaves its records in the store.

    Returns:
        One outcome per seed, or one for the teacher: "seed" (None for a teacher), "status" ("finished",
        "diverged" or "failed"), "error_last_pct", "epochs", a "message" where it did not finish, and its
        equal share of the task's "seconds" by part: inputs, table, epochs, checkpoints, progress, records.

    Raises:
        DataError: The data set is missing or damaged: no run of the sweep can go on.
        StoreError: The store cannot be read or written.
        InputError: A network or data set of the user's own is not here, or has another source.
    """
    # Before the clock starts: imports are no part of the task's work.
    from hkrun.trial.environment import reproducible
    from hkrun.trial.run import Trial
    from hkrun.trial.teacher_task import teach

    stopwatch = Stopwatch("inputs")
    for name, sha256 in task.cell.own_parts.items():
        check_source(name, sha256)
    with reproducible(task.threads):
        outcomes = Trial(task, context, stopwatch).run() if task.seeds else [teach(task, context, stopwatch)]
    shares = {part: seconds / len(outcomes) for part, seconds in stopwatch.read().items()}
    return [{**outcome, "seconds": shares} for outcome in outcomes]
