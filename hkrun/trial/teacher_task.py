"""The task of teachers: from their start, or their newest checkpoints, to their records."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hkrun.checkpoints import (
    count_teacher_checkpoints,
    is_part_of_first,
    load_teacher_checkpoints,
    save_teacher_checkpoint,
)
from hkrun.config import Cell, teacher_canonical
from hkrun.data.dataset import Dataset
from hkrun.data.encoded import StreamedDataset
from hkrun.stopwatch import Stopwatch
from hkrun.store import DivergedTeacher, Store, TeacherRecord, open_store
from hkrun.teacher import TeacherRun, dump_weights, hash_weights, num_epochs, start_teacher, train_teachers
from hkrun.training import Context, Diverged, share_from_first
from hkrun.trial.curves import tabulate
from hkrun.trial.inputs import load_sets, make_evaluation_set
from hkrun.trial.progress import Watch
from hkrun.trial.provenance import Provenance, code_of
from hkrun.trial.task import Outcome, Task, make_outcome

logger = logging.getLogger("hkrun")


@dataclass
class TrackedTeacher:
    """A teacher that is being trained, with what its record will say of it."""

    identity: str
    run: TeacherRun
    provenance: Provenance


def teach(task: Task, context: Context, stopwatch: Stopwatch) -> list[Outcome]:
    """Trains teachers unless the store knows how they end, and leaves their records there."""
    store = open_store(task.store)
    outcomes = share_from_first(lambda: _read_known(task, store), context)
    cells = {identity: cell for identity, cell in task.teachers.items() if identity not in outcomes}
    if cells:
        outcomes |= _Teaching(task, context, stopwatch, store).train(cells)
    return [outcomes[identity] for identity in task.teachers]


def _read_known(task: Task, store: Store) -> dict[str, Outcome]:
    known = {}
    for identity in task.teachers:
        if (record := store.whole_teacher(identity)) is not None and task.takes(record.code):
            known[identity] = make_outcome(None, "finished", record.error_pct, record.epochs)
        elif (lost := store.diverged_teacher(identity)) is not None and task.takes(lost.code):
            known[identity] = make_outcome(None, "diverged", None, lost.epochs, lost.message)
    return known


class _Teaching:
    """The teachers of a task that the store lacks, which train together."""

    def __init__(self, task: Task, context: Context, stopwatch: Stopwatch, store: Store) -> None:
        self._task, self._context, self._stopwatch, self._store = task, context, stopwatch, store
        self._tracked: list[TrackedTeacher] = []
        self._outcomes: dict[str, Outcome] = {}

    def train(self, cells: Mapping[str, Cell]) -> dict[str, Outcome]:
        """Trains these teachers; returns how each ended, by its id."""
        task, context = self._task, self._context
        device = torch.device(task.device)
        dataset, images = load_sets(task.cell, task)
        together = tuple(cell.teacher.seed for cell in cells.values())
        pack = together if len(task.teachers) > 1 else ()
        self._tracked = [
            TrackedTeacher(
                identity,
                start_teacher(cell, dataset, context=context, device=device),
                Provenance(task, world_size=context.world_size, pack=pack),
            )
            for identity, cell in cells.items()
        ]
        self._resume(pack)
        watch = Watch(
            context,
            [tracked.run for tracked in self._tracked],
            epochs=num_epochs(task.cell),
            save=self._save,
            stopwatch=self._stopwatch,
        )

        def epoch_done(those: Sequence[TeacherRun]) -> None:
            trained = [tracked for tracked in self._tracked if tracked.run in those]
            if any(tracked.run.diverged is None and tracked.run not in those for tracked in self._tracked):
                for tracked in trained:
                    tracked.provenance.note_apart()
            diverged = [tracked for tracked in trained if tracked.run.diverged is not None]
            if diverged and pack and context.rank == 0:
                # Who goes on together from here is on record before the pack becomes smaller by one.
                self._save()
            for tracked in diverged:
                self._end_diverged(tracked)
            watch.epoch_done([run for run in those if run.diverged is None])

        with self._stopwatch.within("epochs"):
            train_teachers(
                [tracked.run for tracked in self._tracked],
                images=images,
                context=context,
                on_epoch=epoch_done,
            )
        for tracked in self._tracked:
            if tracked.run.diverged is None:
                self._end_finished(tracked, dataset, device)
        return self._outcomes

    def _save(self) -> None:
        learning = [tracked for tracked in self._tracked if tracked.run.diverged is None]
        several = len(self._task.teachers) > 1
        left = tuple(tracked.run.seed for tracked in learning) if several else ()
        for tracked in learning:
            state = {"run": tracked.run.state_dict(), "ledger": tracked.provenance.state(pack=left)}
            save_teacher_checkpoint(self._store, tracked.identity, epoch=tracked.run.epoch, state=state)

    def _resume(self, pack: tuple[int, ...]) -> None:
        """Goes on from the newest checkpoints."""
        identities = [tracked.identity for tracked in self._tracked]

        def read() -> tuple[Any, dict[str, int]]:
            saved = {identity: count_teacher_checkpoints(self._store, identity) for identity in identities}
            return load_teacher_checkpoints(self._store, identities), saved

        found, saved = share_from_first(read, self._context)
        if is_part_of_first(found, saved, pack):
            return
        for tracked in self._tracked:
            if tracked.identity in found:
                epoch, state = found[tracked.identity]
                if not self._task.goes_on_from(code_of(state["ledger"])):
                    logger.warning(
                        "teacher %s begins anew: its checkpoint is of other code", tracked.identity
                    )
                    continue
                tracked.run.load_state_dict(state["run"])
                tracked.provenance.resume(state["ledger"], epoch=epoch)

    def _end_diverged(self, tracked: TrackedTeacher) -> None:
        run = tracked.run
        assert run.diverged is not None
        message = str(run.diverged.args[0])
        if self._context.rank == 0:
            with self._stopwatch.within("records"):
                self._record_divergence(tracked, run.diverged, message)
        self._outcomes[tracked.identity] = make_outcome(None, "diverged", None, run.epoch, message)

    def _record_divergence(self, tracked: TrackedTeacher, diverged: Diverged, message: str) -> None:
        record = DivergedTeacher(diverged_epoch=diverged.epoch, message=message, **_common_fields(tracked))
        history = tracked.run.history
        self._store.put_diverged_teacher(record, curves=tabulate(history) if history else None)

    def _end_finished(
        self, tracked: TrackedTeacher, dataset: Dataset | StreamedDataset, device: torch.device
    ) -> None:
        run = tracked.run
        with self._stopwatch.within("epochs"):
            train_errors = make_evaluation_set(dataset.train, dataset, run.cell, device=device).evaluate(
                run.network.backbone, precision=run.cell.precision, context=self._context
            )
        error_pct = float(str(run.history[-1]["error_pct"]))
        if self._context.rank == 0:
            with self._stopwatch.within("records"):
                record = TeacherRecord(
                    teacher_hash=hash_weights(run.network),
                    error_pct=error_pct,
                    train_error_pct=train_errors.top1_pct,
                    **_common_fields(tracked),
                )
                weights = dump_weights(run.network)
                curves = tabulate(run.history)
                self._store.put_teacher(record, weights=weights, curves=curves, keep_result=True)
        self._outcomes[tracked.identity] = make_outcome(None, "finished", error_pct, run.epoch)


def _common_fields(tracked: TrackedTeacher) -> dict[str, Any]:
    provenance = tracked.provenance
    return {
        "teacher_id": tracked.identity,
        "config": teacher_canonical(tracked.run.cell),
        "epochs": tracked.run.epoch,
        "alarms": tuple(provenance.alarms),
        "timings": {"total": provenance.seconds},
        **provenance.fields(),
    }
