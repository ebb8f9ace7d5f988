"""What is kept of a study that has not come to its end: results, and the newest checkpoints of the rest."""

from collections.abc import Mapping
from dataclasses import dataclass

from hkrun.counting import count
from hkrun.plans.kept import reached_epochs, teacher_checkpoint_epoch
from hkrun.plans.plans import Plan
from hkrun.store import Store


@dataclass(frozen=True, kw_only=True)
class BegunTeacher:
    """A teacher without a result that has a checkpoint.

    Attributes:
        epoch: Of its newest checkpoint.
        epochs: How many it trains.
    """

    teacher_id: str
    network: str
    epoch: int
    epochs: int


@dataclass(frozen=True, kw_only=True)
class Begun:
    """What of a study is kept.

    Attributes:
        num_runs: Runs that the study wants.
        num_done: Those with a result.
        num_failed: Those that failed, which are made again.
        runs: Of runs without a result the epoch of the newest checkpoint, by cell_id and seed.
        epochs: The most epochs that one of those trains.
        teachers: Likewise the teachers.
    """

    num_runs: int
    num_done: int
    num_failed: int
    runs: Mapping[tuple[str, int], int]
    epochs: int
    teachers: tuple[BegunTeacher, ...]

    def __str__(self) -> str:
        """In words: 3 of 8 runs, 1 failed; checkpoints of 4 runs (up to epoch 2 of 3)."""
        failed = f", {self.num_failed} failed" if self.num_failed else ""
        return f"{self.num_done} of {count(self.num_runs, 'run')}{failed}; {self.checkpoints}"

    @property
    def checkpoints(self) -> str:
        """The checkpoints in words: checkpoints of 5 runs (up to epoch 2 of 3) and of the teacher ... ."""
        parts = []
        if self.runs:
            reached = f"up to epoch {max(self.runs.values())} of {self.epochs}"
            parts.append(f"of {count(len(self.runs), 'run')} ({reached})")
        if self.teachers:
            first, number = self.teachers[0], len(self.teachers)
            which = f"the teacher {first.network}" if number == 1 else f"{number} teachers"
            epoch = max(teacher.epoch for teacher in self.teachers)
            parts.append(f"of {which} (epoch {epoch} of {first.epochs})")
        return f"checkpoints {' and '.join(parts)}" if parts else "no checkpoint yet"


def find_begun(plan: Plan, store: Store) -> Begun:
    """What of a plan's study is kept; reads of what has no result alone.

    Raises:
        StoreError: The store cannot be read.
    """
    cells = [cell for cell in plan.distinct_cells if cell.to_run]
    runs: dict[tuple[str, int], int] = {}
    epochs = 0
    for cell in cells:
        reached = reached_epochs(store, cell.cell_id, cell.to_run)
        runs |= {(cell.cell_id, seed): epoch for seed, epoch in reached.items()}
        epochs = max(epochs, sum(cell.cell.stage_epochs)) if reached else epochs
    teachers = (
        BegunTeacher(
            teacher_id=teacher.teacher_id,
            network=teacher.cell.teacher.network,
            epoch=epoch,
            epochs=teacher.cell.teacher.epochs,
        )
        for teacher in plan.teachers
        if (epoch := teacher_checkpoint_epoch(store, teacher.teacher_id)) is not None
    )
    return Begun(
        num_runs=plan.num_runs,
        num_done=plan.num_done,
        num_failed=sum(len(cell.seeds("failed")) for cell in plan.distinct_cells),
        runs=runs,
        epochs=epochs,
        teachers=tuple(teachers),
    )
