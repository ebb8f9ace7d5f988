"""Tasks on Ray: Tune schedules them, Train runs those that span several processes."""

from hkrun.cluster.axes import Point, Search, make_search
from hkrun.cluster.joining import check_joined
from hkrun.cluster.reach import Needs
from hkrun.cluster.resources import Node, Request, check_fit
from hkrun.cluster.runtime import find_nodes
from hkrun.cluster.schedule import TaskResult
from hkrun.cluster.search import EarlyStopping
from hkrun.cluster.tune import run_tasks
from hkrun.cluster.watch import Observer

__all__ = [
    "EarlyStopping",
    "Needs",
    "Node",
    "Observer",
    "Point",
    "Request",
    "Search",
    "TaskResult",
    "check_fit",
    "check_joined",
    "find_nodes",
    "make_search",
    "run_tasks",
]
