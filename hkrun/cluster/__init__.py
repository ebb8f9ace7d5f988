"""Tasks on Ray: Tune schedules them, Train runs those that span several processes."""

from hkrun.cluster.axes import Point, Search, make_search
from hkrun.cluster.resources import Request
from hkrun.cluster.runtime import find_slots
from hkrun.cluster.schedule import TaskResult
from hkrun.cluster.search import EarlyStopping
from hkrun.cluster.tune import Observer, run_tasks

__all__ = [
    "EarlyStopping",
    "Observer",
    "Point",
    "Request",
    "Search",
    "TaskResult",
    "find_slots",
    "make_search",
    "run_tasks",
]
