"""One run of a task: from its start, or its newest checkpoint, to its record."""

import logging
import traceback
from typing import Any

import torch

from hkrun.checkpoints import load_checkpoint, save_checkpoint
from hkrun.config import canonical_json, teacher_id
from hkrun.distill import Run, distill, start_run
from hkrun.errors import DataError, StoreError
from hkrun.store import Record, open_store
from hkrun.teacher import dump_weights
from hkrun.training import Context, Diverged
from hkrun.trial.alarms import find_damage_alarms, find_discriminator_alarms
from hkrun.trial.curves import tabulate
from hkrun.trial.inputs import TeacherPlace, load_sets, load_teacher
from hkrun.trial.ledger import Ledger
from hkrun.trial.progress import Watch
from hkrun.trial.task import Outcome, Task, make_outcome

logger = logging.getLogger("hkrun")


class Trial:
    """One run of a task, with what its record says of it."""

    def __init__(self, task: Task, seed: int, context: Context) -> None:
        self.task, self.seed, self.context = task, seed, context
        self.store = open_store(task.store)
        self.ledger = Ledger(task)
        self.history: list[dict[str, float | None]] = []
        self.teacher_hash: str | None = None

    def run(self) -> Outcome:
        """Trains the run unless the store has it, and records how it ended."""
        record = self.store.record(self.task.cell_id, self.seed)
        if record is not None and record.status != "failed":
            return make_outcome(self.seed, record.status, record.error_last_pct, record.epochs)
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
        return make_outcome(self.seed, status, errors[-1] if errors else None, len(self.history), message)

    def _train(self) -> bytes:
        task, cell = self.task, self.task.cell
        device = torch.device(task.device)
        dataset, training_set, test_set = load_sets(cell, task)
        teacher = None
        if cell.uses_teacher:
            place = TeacherPlace(task.store, teacher_id(cell), task.device, cell, task.data_dir)
            teacher, self.teacher_hash = load_teacher(place)
        run = start_run(cell, dataset, self.seed, context=self.context, device=device)
        self._resume(run)
        self.history = run.history
        watch = Watch(
            self.context, epochs=sum(cell.stage_epochs), seed=self.seed, save=lambda: self._save(run)
        )
        distill(
            run,
            teacher=teacher,
            training_set=training_set,
            test_set=test_set,
            context=self.context,
            on_epoch=lambda run: watch.epoch_done(run.history),
        )
        self.ledger.alarms += find_damage_alarms({"train": training_set, "val": test_set}, self.context)
        return dump_weights(run.student.backbone)

    def _save(self, run: Run) -> None:
        state = {
            "run": run.state_dict(),
            "teacher_hash": self.teacher_hash,
            "ledger": self.ledger.state(),
        }
        save_checkpoint(self.store, self.task.cell_id, self.seed, epoch=run.epoch, state=state)

    def _resume(self, run: Run) -> None:
        """Goes on from the newest checkpoint, unless the teacher is another one by now."""
        found = load_checkpoint(self.store, self.task.cell_id, self.seed)
        if found is None:
            return
        epoch, state = found
        if state["teacher_hash"] != self.teacher_hash:
            logger.warning("seed %d begins anew: its checkpoint is of another teacher", self.seed)
            return
        run.load_state_dict(state["run"])
        self.ledger.resume(state["ledger"], epoch=epoch)

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
            alarms=(*self.ledger.alarms, *find_discriminator_alarms(self.history)),
            pack=self.task.seeds,
            timings={"total": self.ledger.seconds, "epochs": train_s},
            **self.ledger.fields(),
        )
        self.store.put_cell(
            self.task.cell_id, canonical_json(self.task.cell, world_size=self.task.world_size)
        )
        curves = tabulate(self.history) if self.history else None
        self.store.put_run(record, curves=curves, student=student, keep_result=True)
