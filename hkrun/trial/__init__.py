"""One task from its start, or its newest checkpoint, to its records in the store.

    task.py             what a task is, and how its end is told
    run.py              `run_task`, and the runs of students
    teacher_task.py     the training of a teacher
    inputs.py           images and teachers, kept between the trials of a process
    teacher_answers.py  a teacher as the loop asks it: live, or with a table
    curves.py           a history as a table
    provenance.py       when it began, how long it took, what looked wrong; over all resumptions
    rehearsal.py        some steps of a cell on students that are thrown away
    pack_speed.py       how fast runs train together
    progress.py         when checkpoints are saved and progress is told
    environment.py      torch's settings, and what else decides the bits of a result
    run_warnings.py     what looked wrong in a run that went through

What a task is can be known, and sent to where it is done, without torch: its doing alone imports that.

A run that fails or diverges is a record, not an exception: only missing data and a broken store end a task.
"""

from hkrun.trial.task import Outcome, Task
