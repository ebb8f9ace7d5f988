"""The teacher's task: from its start, or its newest checkpoint, to its record."""

from typing import Any

import torch

from hkrun.checkpoints import load_teacher_checkpoint, save_teacher_checkpoint
from hkrun.config import teacher_canonical
from hkrun.stopwatch import Stopwatch
from hkrun.store import DivergedTeacher, Store, TeacherRecord, open_store
from hkrun.teacher import TeacherRun, dump_weights, hash_weights, num_epochs, start_teacher, train_teacher
from hkrun.training import Context, Diverged, share_from_first
from hkrun.trial.curves import tabulate
from hkrun.trial.inputs import load_sets, make_evaluation_set
from hkrun.trial.progress import Watch
from hkrun.trial.provenance import Provenance
from hkrun.trial.task import Outcome, Task, make_outcome


def teach(task: Task, context: Context, stopwatch: Stopwatch) -> Outcome:
    """Trains a teacher unless the store knows how it ends, and leaves its record there."""
    store, cell = open_store(task.store), task.cell
    record, diverged = share_from_first(
        lambda: (store.whole_teacher(task.cell_id), store.diverged_teacher(task.cell_id)), context
    )
    if record is not None:
        return make_outcome(None, "finished", record.error_pct, record.epochs)
    if diverged is not None:
        return make_outcome(None, "diverged", None, diverged.epochs, diverged.message)
    provenance = Provenance(task, world_size=context.world_size)
    dataset, images = load_sets(cell, task)
    run = start_teacher(cell, dataset, context=context, device=torch.device(task.device))
    found = share_from_first(lambda: load_teacher_checkpoint(store, task.cell_id), context)
    if found is not None:
        epoch, state = found
        run.load_state_dict(state["run"], cell)
        provenance.resume(state["ledger"], epoch=epoch)

    def save() -> None:
        state = {"run": run.state_dict(), "ledger": provenance.state()}
        save_teacher_checkpoint(store, task.cell_id, epoch=run.epoch, state=state)

    watch = Watch(context, epochs=num_epochs(cell), seed=None, save=save, stopwatch=stopwatch)
    stopwatch.enter("epochs")
    try:
        train_teacher(
            run,
            cell,
            images=images,
            context=context,
            on_epoch=lambda run: watch.epoch_done([run]),
        )
    except Diverged as error:
        stopwatch.enter("records")
        if context.rank == 0:
            _record_divergence(task, run, provenance, error, store)
        return make_outcome(None, "diverged", None, run.epoch, str(error.args[0]))
    train_errors = make_evaluation_set(
        dataset.train, dataset, cell, device=torch.device(task.device)
    ).evaluate(run.network.backbone, precision=cell.precision, context=context)
    stopwatch.enter("records")
    error_pct = float(str(run.history[-1]["error_pct"]))
    if context.rank == 0:
        record = TeacherRecord(
            teacher_hash=hash_weights(run.network),
            error_pct=error_pct,
            train_error_pct=train_errors.top1_pct,
            **_common_fields(task, run, provenance),
        )
        weights = dump_weights(run.network)
        store.put_teacher(record, weights=weights, curves=tabulate(run.history), keep_result=True)
    return make_outcome(None, "finished", error_pct, run.epoch)


def _record_divergence(
    task: Task, run: TeacherRun, provenance: Provenance, error: Diverged, store: Store
) -> None:
    record = DivergedTeacher(
        diverged_epoch=error.epoch, message=str(error.args[0]), **_common_fields(task, run, provenance)
    )
    store.put_diverged_teacher(record, curves=tabulate(run.history) if run.history else None)


def _common_fields(task: Task, run: TeacherRun, provenance: Provenance) -> dict[str, Any]:
    return {
        "teacher_id": task.cell_id,
        "config": teacher_canonical(task.cell),
        "epochs": run.epoch,
        "alarms": tuple(provenance.alarms),
        "timings": {"total": provenance.seconds},
        **provenance.fields(),
    }
