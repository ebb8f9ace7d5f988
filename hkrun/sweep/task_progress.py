"""How far one task of a study is."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hkrun.trial import Task


@dataclass
class TaskProgress:
    """How far a task is, or will be once it has begun.

    Attributes:
        key: Of its pace: the cell_id, or the first teacher's id.
        num_runs: How many train together; for a task of teachers, how many teachers.
        done: Their epochs that are trained, with those of checkpoints.
        total: Their epochs in all; one that diverged has no more than it trained.
        teachers: The ids of the teachers that its runs learn from, or that it trains.
        epoch: The last one; of runs that stand at different ones, that of those that train.
        epochs: How many each trains; None before the first.
        error_pct: Mean test error after the last one.
        filled: The share of the teacher table that it has filled, before the first epoch; None without.
        started_at: When it got its process.
        told_at: When it last told of an epoch.
        heard_at: When it last told of anything.
    """

    key: str
    is_teacher: bool
    num_runs: int
    done: int
    total: int
    teachers: tuple[str, ...] = ()
    task: "Task | None" = None
    epoch: int = 0
    epochs: int | None = None
    error_pct: float | None = None
    filled: float | None = None
    started_at: float = 0.0
    told_at: float | None = None
    heard_at: float = 0.0

    @property
    def state(self) -> str:
        """In words."""
        if self.epochs and self.epoch == self.epochs:
            return "writing its results"
        if self.epochs:
            return f"epoch {self.epoch} of {self.epochs}"
        return "loading" if self.filled is None else f"teacher table, {100 * self.filled:.0f} %"

    @property
    def error(self) -> str:
        """Its error in words; empty before the first epoch."""
        return "" if self.error_pct is None else f"{self.error_pct:.2f} % error"


def describe_waiting(number: int) -> str:
    """Runs that wait, in words: `1 run waits`, `8 runs wait`."""
    return f"{number} run waits" if number == 1 else f"{number} runs wait"
