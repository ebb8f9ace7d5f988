"""The real loop with a death planted in it, in a module that Ray's processes can import."""

import os
import signal
import time
from pathlib import Path

from hkrun.plans import checkpoint_epoch
from hkrun.store import open_store
from hkrun.trial import progress
from hkrun.trial.run import run_task

DEATH = "kill-rank-1"


def run_and_die_once(task, context):
    """Trains with a checkpoint after every epoch; where the store has a file DEATH, rank 1 then dies once."""
    store, death = open_store(task.store), Path(task.store, DEATH)
    progress.CHECKPOINT_EVERY_S = 0.0
    original = progress.Watch.epoch_done

    def epoch_done(watch, learners):
        original(watch, learners)
        if context.rank == 1 and death.exists() and checkpoint_epoch(store, task.cell_id, task.seeds[0]):
            death.unlink()
            os.kill(os.getpid(), signal.SIGKILL)

    progress.Watch.epoch_done = epoch_done
    return run_task(task, context)


def run_slowly(task, context):
    """Trains with half a second, a checkpoint and a report after every epoch."""
    progress.CHECKPOINT_EVERY_S = progress.REPORT_EVERY_S = 0.0
    original = progress.Watch.epoch_done

    def epoch_done(watch, learners):
        original(watch, learners)
        time.sleep(0.5)

    progress.Watch.epoch_done = epoch_done
    try:
        return run_task(task, context)
    finally:
        progress.Watch.epoch_done = original  # the process may go on with another task
