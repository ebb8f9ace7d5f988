"""Stage 2: one student is distilled from the frozen teacher, against the discriminator.

In torch alone: it knows neither Ray nor MLflow nor the store. A method may itself have two stages, each with
a loss, a schedule and an optimiser of its own.

    loop.py   the loop of every method, epoch by epoch
    graphs.py steps as CUDA graphs
    step.py   what happens with one batch: the discriminators' step, then the students'
    pack.py   runs that take their steps together
    run.py    the state of one student in training, from its start to a checkpoint and back
    sharpness.py  how curved the students' loss is where they are
"""

from hkrun.distill.graphs import Replays, choose_recorder
from hkrun.distill.loop import distill, set_rates
from hkrun.distill.pack import Pack
from hkrun.distill.run import Run, enter_stage, start_run
from hkrun.distill.sharpness import measure_sharpness
from hkrun.distill.step import Step
