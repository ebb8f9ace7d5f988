"""Stage 2: one student is distilled from the frozen teacher, against the discriminator.

In torch alone: it knows neither Ray nor MLflow nor the store. A method may itself have two stages, each with
a loss, a schedule and an optimiser of its own.

    loop.py   the loop of every method, epoch by epoch
    step.py   what happens with one batch: the discriminator's step, then the student's
    run.py    the state of one student in training, from its start to a checkpoint and back
"""

from hkrun.distill.loop import distill
from hkrun.distill.run import Run, enter_stage, find_stage, start_run

__all__ = ["Run", "distill", "enter_stage", "find_stage", "start_run"]
