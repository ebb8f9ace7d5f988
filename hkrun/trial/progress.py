"""What happens after an epoch: checkpoints and progress, each as rarely as it may be."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from hkrun.stopwatch import Stopwatch
from hkrun.training import Context

# What a kill can cost, and how rarely the loop is disturbed. Neither changes a number.
CHECKPOINT_EVERY_S = 5.0
# What takes longer to save, as many runs together do, is saved as much more rarely: 1 % of the time, after
# the first.
QUICKLY_SAVED_S = 0.05
REPORT_EVERY_S = 1.0


class Learner(Protocol):
    """What is in training: a run, or a teacher."""

    @property
    def seed(self) -> int:
        """What it is trained with."""

    @property
    def history(self) -> Sequence["Figures"]:
        """One row of figures per finished epoch."""

    @property
    def diverged(self) -> object | None:
        """Why it cannot go on; None while it can."""


Figures = dict[str, float | None]


def tell_filling(context: Context, stopwatch: Stopwatch) -> Callable[[float], None]:
    """A function that takes the share of a teacher table that is filled, and reports it now and then."""
    reported_at = time.monotonic()

    def tell(share: float) -> None:
        nonlocal reported_at
        if time.monotonic() - reported_at >= REPORT_EVERY_S:
            reported_at = time.monotonic()
            with stopwatch.within("progress"):
                context.report({"filled": share})

    return tell


class Watch:
    """Looks after a loop: it is told of each epoch, and saves and reports when it is time.

    Args:
        context: Where the loop runs.
        learners: All of the task, wherever they stand.
        epochs: How many there are.
        save: Saves the state of all that is in training.
        stopwatch: The task's. What it reads is told too, so that it is known of a task that is cut off.
    """

    def __init__(
        self,
        context: Context,
        learners: Sequence[Learner],
        *,
        epochs: int,
        save: Callable[[], None],
        stopwatch: Stopwatch,
    ) -> None:
        self._context, self._learners, self._epochs = context, learners, epochs
        self._save, self._stopwatch = save, stopwatch
        self._save_at = time.monotonic() + CHECKPOINT_EVERY_S
        self._reported_at = -math.inf  # that the first epoch was done shows that a task gets on after a death

    def epoch_done(self, learners: Sequence[Learner]) -> None:
        """Called when the state is whole; the last epoch needs no checkpoint, the record follows.

        The mean error of those that trained is told; and the epochs of all learners, done and in all, where
        one that diverged has no more.
        """
        if not learners:
            return
        now, epoch = time.monotonic(), len(learners[0].history)
        last = epoch == self._epochs
        if self._context.rank == 0 and now >= self._save_at and not last:
            with self._stopwatch.within("checkpoints"):
                self._save()
            after = time.monotonic()
            rarer = max(1.0, (after - now) / QUICKLY_SAVED_S)
            # A group is lost more easily: it saves after every epoch that takes longer than the interval.
            self._save_at = after + CHECKPOINT_EVERY_S * (1.0 if self._context.world_size > 1 else rarer)
        if now - self._reported_at >= REPORT_EVERY_S or last:
            self._reported_at = now
            errors = [float(str(learner.history[-1]["error_pct"])) for learner in learners]
            with self._stopwatch.within("progress"):
                self._context.report(
                    {
                        "seed": self._learners[0].seed if len(self._learners) == 1 else None,
                        "epoch": epoch,
                        "epochs": self._epochs,
                        "epochs_done": sum(len(learner.history) for learner in self._learners),
                        "epochs_total": sum(
                            self._epochs if learner.diverged is None else len(learner.history)
                            for learner in self._learners
                        ),
                        "error_pct": sum(errors) / len(errors),
                        "seconds": self._stopwatch.read(),
                    }
                )
