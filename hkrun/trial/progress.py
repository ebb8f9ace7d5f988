"""What happens after an epoch: checkpoints and progress, each as rarely as it may be."""

import time
from collections.abc import Callable, Mapping, Sequence

from hkrun.training import Context

# What a kill can cost, and how rarely the loop is disturbed. Neither changes a number.
CHECKPOINT_EVERY_S = 5.0
REPORT_EVERY_S = 1.0


class Watch:
    """Looks after a loop: it is told of each epoch, and saves and reports when it is time."""

    def __init__(self, context: Context, *, epochs: int, seed: int | None, save: Callable[[], None]) -> None:
        self._context, self._epochs, self._seed, self._save = context, epochs, seed, save
        self._saved_at = self._reported_at = time.monotonic()

    def epoch_done(self, history: Sequence[Mapping[str, float | None]]) -> None:
        """Called when the state is whole; the last epoch needs no checkpoint, the record follows."""
        now, last = time.monotonic(), len(history) == self._epochs
        if self._context.rank == 0 and now - self._saved_at >= CHECKPOINT_EVERY_S and not last:
            self._save()
            self._saved_at = time.monotonic()
        if now - self._reported_at >= REPORT_EVERY_S or last:
            self._reported_at = now
            self._context.report(
                {
                    "seed": self._seed,
                    "epoch": len(history),
                    "epochs": self._epochs,
                    "error_pct": history[-1]["error_pct"],
                }
            )
