"""A task: the runs of students from their start, or their newest checkpoints, to their records."""

import logging
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from hkrun.checkpoints import count_checkpoints, is_part_of_first, load_checkpoints, save_checkpoint
from hkrun.config import canonical_json, teacher_id
from hkrun.distill import Run, distill, start_run
from hkrun.errors import DataError, StoreError
from hkrun.stopwatch import Stopwatch
from hkrun.store import Record, open_store
from hkrun.teacher import dump_weights
from hkrun.training import Context, PeerLostError, share_from_first
from hkrun.trial.curves import tabulate
from hkrun.trial.environment import reproducible
from hkrun.trial.inputs import load_sets
from hkrun.trial.progress import Watch, tell_filling
from hkrun.trial.provenance import Provenance, code_of
from hkrun.trial.run_warnings import find_damage_warnings, find_discriminator_warnings
from hkrun.trial.task import Outcome, Task, make_outcome
from hkrun.trial.teacher_answers import Teacher, load_teachers
from hkrun.trial.teacher_task import teach
from hkrun.user_parts import check_source

logger = logging.getLogger("hkrun")


def run_task(task: Task, context: Context) -> list[Outcome]:
    """Does a task, and leaves its records in the store.

    Returns:
        One outcome per seed, or per teacher: "seed" (None for a teacher), "status" ("finished",
        "diverged", "failed", or "untaught" of a run whose own teacher is not there), "error_last_pct",
        "epochs", a "message" where it did not finish, and its equal share of the task's "seconds" by part:
        inputs, table, epochs, checkpoints, progress, records.

    Raises:
        DataError: The data set is missing or damaged: no run of the sweep can go on.
        StoreError: The store cannot be read or written.
        InputError: A part of the user's own is not here, or has another source.
    """
    stopwatch = Stopwatch("inputs")
    for name, sha256 in task.cell.own_parts.items():
        check_source(name, sha256)
    with reproducible(task.threads):
        outcomes = Trial(task, context, stopwatch).run() if task.seeds else teach(task, context, stopwatch)
    shares = {part: seconds / len(outcomes) for part, seconds in stopwatch.read().items()}
    return [{**outcome, "seconds": shares} for outcome in outcomes]


History = list[dict[str, float | None]]


@dataclass
class TrackedRun:
    """A run that is being trained, with what its record will say of it."""

    run: Run
    provenance: Provenance


class Trial:
    """The runs of a task, which train together."""

    def __init__(self, task: Task, context: Context, stopwatch: Stopwatch) -> None:
        self.task, self.context, self._stopwatch = task, context, stopwatch
        self.store = open_store(task.store)
        self._records = share_from_first(self._read_records, context)
        self._teachers: dict[int, Teacher] = {}  # by seed
        self._tracked: list[TrackedRun] = []
        self._outcomes: dict[int, Outcome] = {
            seed: make_outcome(seed, record.status, record.error_last_pct, record.epochs)
            for seed, record in self._records.items()
            if record.status != "failed" and task.takes(record.code)
        }

    def _read_records(self) -> dict[int, Record]:
        found = ((seed, self.store.record(self.task.cell_id, seed)) for seed in self.task.seeds)
        return {seed: record for seed, record in found if record is not None}

    def run(self) -> list[Outcome]:
        """Trains the runs that the store does not have, and records how they ended."""
        self._leave_out_untaught()
        seeds = tuple(seed for seed in self.task.seeds if seed not in self._outcomes)
        if not seeds:
            return self._in_order()
        torch.set_num_threads(self.task.threads)
        try:
            self._train(seeds)
        except (DataError, StoreError):
            raise  # nothing of these runs is wrong, and no others would fare better
        except (PeerLostError, torch.AcceleratorError):
            raise  # nor is it here: others, or another process, go on from the checkpoints
        except Exception as error:  # the trial's border: failing runs must not take the sweep down
            self._fail(seeds, error)
        return self._in_order()

    def _leave_out_untaught(self) -> None:
        """Leaves out the runs whose own teacher diverged or failed; those of other teachers go on."""
        cell = self.task.cell
        if not cell.has_teachers:
            return

        def find() -> list[int]:
            found = {identity: self.store.teacher(identity) for identity in set(ids.values())}
            there = {
                identity
                for identity, record in found.items()
                if record is not None and self.task.takes(record.code)
            }
            return [seed for seed, identity in ids.items() if identity not in there]

        ids = {
            seed: teacher_id(cell.with_teacher_of(seed))
            for seed in self.task.seeds
            if seed not in self._outcomes
        }
        for seed in share_from_first(find, self.context):
            message = f"its teacher {ids[seed]} was not trained"
            self._outcomes[seed] = make_outcome(seed, "untaught", None, 0, message)

    def _in_order(self) -> list[Outcome]:
        return [self._outcomes[seed] for seed in self.task.seeds]

    def _train(self, seeds: Sequence[int]) -> None:
        task, cell = self.task, self.task.cell
        dataset, images = load_sets(cell, task)
        if cell.uses_teacher:
            with self._stopwatch.within("table" if task.table == "ahead" else "inputs"):
                on_fill = tell_filling(self.context, self._stopwatch)
                self._teachers = load_teachers(cell, task, seeds, on_fill=on_fill)
        self._tracked = [
            TrackedRun(
                start_run(cell, dataset, seed, context=self.context, device=torch.device(task.device)),
                Provenance(task, world_size=self.context.world_size, pack=tuple(seeds)),
            )
            for seed in seeds
        ]
        self._resume()
        watch = Watch(
            self.context,
            [tracked.run for tracked in self._tracked],
            epochs=sum(cell.stage_epochs),
            save=self._save,
            stopwatch=self._stopwatch,
        )

        def epoch_done(together: Sequence[Run]) -> None:
            trained = [tracked for tracked in self._tracked if tracked.run in together]
            if any(tracked.run.diverged is None and tracked.run not in together for tracked in self._tracked):
                for tracked in trained:
                    tracked.provenance.note_apart()
            diverged = [tracked for tracked in trained if tracked.run.diverged is not None]
            if diverged and self.context.rank == 0:
                # Who goes on together from here is on record before the pack becomes smaller by one.
                self._save()
            for tracked in diverged:
                self._end(tracked)
            watch.epoch_done([run for run in together if run.diverged is None])

        with self._stopwatch.within("epochs"):
            distill(
                [tracked.run for tracked in self._tracked],
                images=images,
                teach={seed: teacher.teaching for seed, teacher in self._teachers.items()},
                context=self.context,
                on_epoch=epoch_done,
            )
        damage = find_damage_warnings({"train": images.training, "val": images.test}, self.context)
        alarms = {each: each.take_alarms() for each in {own.teaching for own in self._teachers.values()}}
        for tracked in self._tracked:
            if tracked.run.diverged is None:
                own = self._teachers.get(tracked.run.seed)
                tracked.provenance.alarms += [*damage, *(alarms[own.teaching] if own else [])]
                self._end(tracked)

    def _save(self) -> None:
        learning = [tracked for tracked in self._tracked if tracked.run.diverged is None]
        for tracked in learning:
            state = {
                "run": tracked.run.state_dict(),
                "teacher_hash": self._teacher_hash(tracked.run.seed),
                "ledger": tracked.provenance.state(pack=tuple(other.run.seed for other in learning)),
            }
            save_checkpoint(
                self.store, self.task.cell_id, tracked.run.seed, epoch=tracked.run.epoch, state=state
            )

    def _resume(self) -> None:
        """Goes on from the newest checkpoints, unless the teacher is another one by now."""
        seeds = tuple(tracked.run.seed for tracked in self._tracked)

        def read() -> tuple[Any, dict[int, int]]:
            saved = {seed: count_checkpoints(self.store, self.task.cell_id, seed) for seed in seeds}
            return load_checkpoints(self.store, self.task.cell_id, seeds), saved

        found, saved = share_from_first(read, self.context)
        if is_part_of_first(found, saved, seeds):
            logger.info("seeds %s begin anew: not all of them have a first checkpoint", seeds)
            return
        for tracked in self._tracked:
            if tracked.run.seed not in found:
                continue
            epoch, state = found[tracked.run.seed]
            if state["teacher_hash"] != self._teacher_hash(tracked.run.seed):
                logger.warning("seed %d begins anew: its checkpoint is of another teacher", tracked.run.seed)
                continue
            if not self.task.goes_on_from(code_of(state["ledger"])):
                logger.warning("seed %d begins anew: its checkpoint is of other code", tracked.run.seed)
                continue
            tracked.run.load_state_dict(state["run"])
            tracked.provenance.resume(state["ledger"], epoch=epoch)

    def _teacher_hash(self, seed: int) -> str | None:
        return self._teachers[seed].hash if seed in self._teachers else None

    def _end(self, tracked: TrackedRun) -> None:
        """Records that a run finished or diverged."""
        run = tracked.run
        status, message = "finished", ""
        if run.diverged is not None:
            status, message = "diverged", str(run.diverged.args[0])
        if self.context.rank == 0:
            with self._stopwatch.within("records"):
                student = dump_weights(run.student.backbone) if status == "finished" else None
                record = self._make_record(run.seed, status, run.history, tracked.provenance)
                self._put(record, run.history, student)
        self._set_outcome(run.seed, status, run.history, message)

    def _fail(self, seeds: Sequence[int], error: Exception) -> None:
        """Records that the runs failed which had not ended before."""
        trace = traceback.format_exc()
        message = f"{type(error).__name__}: {error}".strip()
        begun = {tracked.run.seed: tracked for tracked in self._tracked}
        for seed in seeds:
            if seed in self._outcomes:
                continue
            tracked = begun.get(seed)
            history = tracked.run.history if tracked else []
            provenance = (
                tracked.provenance
                if tracked
                else Provenance(self.task, world_size=self.context.world_size, pack=tuple(seeds))
            )
            # In a group of workers the others only echo the first, whose record stands.
            alone = self.context.world_size == 1
            if alone or self.store.record(self.task.cell_id, seed) == self._records.get(seed):
                with self._stopwatch.within("records"):
                    self._put(self._make_record(seed, "failed", history, provenance, trace), history)
            self._set_outcome(seed, "failed", history, message)
        if self.context.world_size > 1:
            raise error  # the others would wait for this one for half an hour; raising ends the group

    def _set_outcome(self, seed: int, status: str, history: Sequence[Any], message: str) -> None:
        error_pct = float(str(history[-1]["error_pct"])) if history else None
        self._outcomes[seed] = make_outcome(seed, status, error_pct, len(history), message)

    def _make_record(
        self, seed: int, status: Any, history: History, provenance: Provenance, trace: str | None = None
    ) -> Record:
        errors = [float(str(row["error_pct"])) for row in history]
        complete = status == "finished"
        cell = self.task.cell
        return Record(
            cell_id=self.task.cell_id,
            seed=seed,
            status=status,
            epochs=len(history),
            error_last_pct=errors[-1] if complete else None,
            error_best_pct=min(errors) if complete else None,
            error_top5_last_pct=history[-1]["error_top5_pct"] if complete else None,
            teacher_id=teacher_id(cell.with_teacher_of(seed)) if cell.uses_teacher else None,
            teacher_hash=self._teacher_hash(seed),
            diverged_epoch=len(history) + 1 if status == "diverged" else None,
            traceback=trace,
            alarms=(*provenance.alarms, *find_discriminator_warnings(history)),
            timings={
                "total": provenance.seconds,
                "epochs": sum(float(str(row["seconds"])) for row in history),
            },
            **provenance.fields(),
        )

    def _put(self, record: Record, history: History, student: bytes | None = None) -> None:
        self.store.put_cell(
            self.task.cell_id, canonical_json(self.task.cell, world_size=self.task.world_size)
        )
        curves = tabulate(history) if history else None
        self.store.put_run(record, curves=curves, student=student, keep_result=True)
