"""The teacher's task: from its start, or its newest checkpoint, to its record."""

import time

import torch

from hkrun.checkpoints import load_teacher_checkpoint, save_teacher_checkpoint
from hkrun.config import teacher_canonical
from hkrun.store import TeacherRecord, open_store
from hkrun.teacher import dump_weights, hash_weights, num_epochs, start_teacher, train_teacher
from hkrun.training import Context, Diverged
from hkrun.trial.curves import tabulate
from hkrun.trial.inputs import load_sets, make_evaluation_set
from hkrun.trial.progress import Clock, Watch
from hkrun.trial.surroundings import describe_surroundings
from hkrun.trial.task import Outcome, Task, make_outcome


def teach(task: Task, context: Context) -> Outcome:
    """Trains a teacher unless the store has it, and leaves its record there."""
    store, cell = open_store(task.store), task.cell
    record = store.teacher(task.cell_id)
    if record is not None:
        return make_outcome(None, "finished", record.error_pct, record.epochs)
    started_at = time.time()
    dataset, training_set, test_set = load_sets(cell, task)
    run = start_teacher(cell, dataset, context=context, device=torch.device(task.device))
    found = load_teacher_checkpoint(store, task.cell_id)
    seconds = 0.0
    if found is not None:
        state = found[1]
        run.load_state_dict(state["run"], cell)
        started_at, seconds = state["started_at"], state["seconds"]
        torch.set_num_threads(state["threads"])
    clock = Clock(spent=seconds)

    def save() -> None:
        state = {
            "run": run.state_dict(),
            "started_at": started_at,
            "seconds": clock.total(),
            "threads": torch.get_num_threads(),
        }
        save_teacher_checkpoint(store, task.cell_id, epoch=run.epoch, state=state)

    watch = Watch(context, epochs=num_epochs(cell), seed=None, save=save)
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
        return make_outcome(None, "diverged", None, run.epoch, message)
    train_errors = make_evaluation_set(
        dataset.train, dataset, cell, device=torch.device(task.device)
    ).evaluate(run.network.backbone, precision=cell.precision, context=context)
    error_pct = float(str(run.history[-1]["error_pct"]))
    if context.rank == 0:
        surroundings = describe_surroundings(task)
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
        store.put_teacher(record, weights=dump_weights(run.network), curves=tabulate(run.history))
    return make_outcome(None, "finished", error_pct, run.epoch)
