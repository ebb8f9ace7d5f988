"""Every private or undocumented name of Ray that hkrun uses, each behind one function; tested with Ray 2.60.

Nothing outside this package has one (tests/cluster/test_ray_private.py). Each function says what its name is
good for. Where Ray has no such name, or one of another signature, the function logs one line and takes the
public way, which is slower or sees less: no name is required. Environment variables that Ray does not know
do nothing.

The functions import Ray themselves: the supervisor, which never imports it, needs the settings.

    settings.py  variables of the environment
    finding.py   finds a name, or says what follows where it is not there
    starting.py  Ray's start on this machine
    worker.py    how a process for tasks begins
    agent.py     what stands in for an agent of the raylet
    trials.py    Tune's use of processes, and what failures say
    values.py    what the processes of a job share
"""

from hkrun.cluster.ray_private.settings import (
    JOB_SETTINGS,
    OWN_SETTINGS,
    PRELOAD_FROM_VARIABLE,
    PRELOAD_SETTINGS,
    SETTINGS,
    STOP_WAIT_VARIABLE,
    UPLOAD_LOGGERS,
)
from hkrun.cluster.ray_private.starting import (
    give_agents_ports,
    job_config,
    see_raylet_at_once,
    skip_dashboard,
    skip_helper_processes,
    start_ray,
    start_workers_in_turn,
)
from hkrun.cluster.ray_private.trials import (
    found_no_room,
    is_busy_actor,
    keep_processes_for_trials,
    skip_callback_counts,
)
from hkrun.cluster.ray_private.values import head_answers, key_value_store
