#!/usr/bin/env bash
# Guess: TensorBoard's EventAccumulator reads every point of a curve that is in the event file.
# Truth: it keeps 10,000 scalars per tag, drawn at random, and says nothing; the last one is always kept. All
#        of them come only with size_guidance={"scalars": 0}.
# Hurts: who exports curves from event files to compute means, minima or variances over steps.
. "$(dirname "$0")/isolated.bash"
packages tensorboard==2.21.0 tensorboardX==2.6.5 numpy==2.4.6

python -W ignore - <<'PYTHON'
import tensorboard
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboardX import SummaryWriter

STEPS = 15_000
with SummaryWriter("log") as writer:
    for step in range(STEPS):
        writer.add_scalar("error", float(step), step)


def steps(**options):
    events = EventAccumulator("log", **options)
    events.Reload()
    return [event.step for event in events.Scalars("error")]


found = steps()
print(f"tensorboard {tensorboard.__version__}: of {STEPS} steps {len(found)} come back")
print(f"the first are {found[:4]}, the last is {found[-1]}")
assert len(found) == 10_000
assert found[-1] == STEPS - 1
assert found == sorted(found)
every = steps(size_guidance={"scalars": 0})
print(f"with size_guidance of 0: {len(every)}")
assert every == list(range(STEPS))
PYTHON
