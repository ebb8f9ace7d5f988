"""Tasks on Ray: Tune schedules them, Train runs those that span several processes.

    tasks.py                     `run_tasks`: a list of tasks, from Ray's start to its end
    redirect.py                  stdout and stderr of a process go to a file
    token.py                     the token of Ray's clusters, readable by its user alone
    ray_private/                 every private name of Ray
        finding.py               finds them, and says once of each that is not there what follows
        settings.py              variables and loggers of Ray's, each with its reason
        starting.py              how Ray starts on this machine: sooner, and with fewer processes
        worker.py                how a process for tasks begins; a program of its own
        agent.py                 stands in for an agent of Ray's; a program of its own
        trials.py                how Tune's trials use processes, and what their failures say
        values.py                bytes by key for all processes of a job
    driver/                      the process that joins Ray
        supervisor.py            starts it, passes on what it says, tells how it ended
        calls.py                 what supervisor and driver tell each other
        start_driver.py          the program of the driver's process
        process.py               does one call in a cluster and sends its result
        runtime.py               starts a cluster of this machine, or joins one
        preload.py               what a process for tasks imports before its first
        core_processes.py        sees when the raylet or the GCS has ended
        cleanup.py               kills what a dead driver leaves; a program of its own
    nodes/                       the machines
        address.py               which cluster the tasks go to
        resources.py             what they have, and whether a request fits
        discovery.py             which nodes a cluster has, and which answer
        checks.py                a small task on every node of a joined cluster: versions, store, data
        reports.py               what follows from what the nodes say
    trials/                      tasks as trials of Tune
        task_list.py             the tasks, and what each asks for
        tune.py                  one Tuner for all tasks, and what a trial does
        schedule.py              which task is next, which is tried again, when all is over
        slots.py                 how many processes have room, node by node
        searcher.py              gives Tune the next task that has room; Optuna's choice, ASHA's early ends
        rounds.py                which tasks an open question needs next
        callback.py              tells schedule, watchdog and observer what happens to trials
        watchdog.py              kills processes that hang
        axes.py                  the points of a search space, for Optuna
        train.py                 the worker group of one task
        placement_groups.py      removes the placement groups that Ray Train forgets
        streaming.py             images of a worker group, through Ray Data
    jobs/                        commands as jobs of a cluster
        submitting.py            checks the cluster, sends the code and the command
        check.py                 the program that asks the cluster's nodes
        server.py                the job server: send, follow, list, stop
        access.py                its address, and whom the token is shown to
        shipping.py              the files that a job takes along, and the versions in requirements.lock

What decides (`axes`, `reports`, `resources`, `rounds`, `schedule`, `slots`) imports no Ray, and neither does
the supervisor: a plan is made without it.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hkrun.cluster.nodes.address import find_address
    from hkrun.cluster.nodes.checks import check_joined, find_nodes
    from hkrun.cluster.nodes.reports import Needs
    from hkrun.cluster.nodes.resources import Node, Request
    from hkrun.cluster.tasks import do_task, run_tasks
    from hkrun.cluster.trials.axes import EarlyStopping, Point, Search, make_search
    from hkrun.cluster.trials.rounds import Rounds
    from hkrun.cluster.trials.schedule import TaskResult
    from hkrun.cluster.trials.task_list import TaskList

_PLACES = {
    "nodes.address": ["find_address"],
    "nodes.checks": ["check_joined", "find_nodes"],
    "nodes.reports": ["Needs"],
    "nodes.resources": ["Node", "Request"],
    "tasks": ["do_task", "run_tasks"],
    "trials.axes": ["EarlyStopping", "Point", "Search", "make_search"],
    "trials.rounds": ["Rounds"],
    "trials.schedule": ["TaskResult"],
    "trials.task_list": ["TaskList"],
}


def __getattr__(name: str) -> object:
    """Loads a part when it is first used: a sweep waits for its driver, which starts Ray with few of them."""
    for place, names in _PLACES.items():
        if name in names:
            return getattr(importlib.import_module(f"{__name__}.{place}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
