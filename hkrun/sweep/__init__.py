"""One sweep from plan to report: the one place that brings plan, cluster, tracking and report together.

study.py            a study: sweep, options, store, plan, machine
planning.py         how it is resolved, and checked again under the store's lock
naming.py           what it is called, so that nothing replaces a study
checks.py           data, own parts and files of weights, before anything starts
machine.py          nodes, device, slots, the place for logs
pack_sizes.py       how many runs train together: as asked, as begun, as measured
rounds.py           seeds in rounds: what a study needs, looks at it, what was spared
rehearsing.py       the first steps of cells, to see which will be lost
running.py          training, mirror and report
task_submission.py  the tasks for the cluster, and what is told of them
time_accounting.py  where the time goes
progress.py         how far a study is, and how long it still takes
task_progress.py    how far one of its tasks is
announcing.py       the same for all who can read the store
pace.py             by what was expected of its epochs and what is seen
removing.py         what a store holds for one study alone, or for none
"""

from hkrun.sweep.planning import bring_back, make_ready, plan_study, resolve, resolve_teacher
from hkrun.sweep.progress import Phase, Progress
from hkrun.sweep.rehearsing import rehearse_study
from hkrun.sweep.removing import Removal, find_garbage, find_removal, remove
from hkrun.sweep.rounds import take_look
from hkrun.sweep.running import Outcome, mirror_sweep, run_study, train_teacher
from hkrun.sweep.study import Options, Study
from hkrun.sweep.task_progress import TaskProgress, describe_waiting
