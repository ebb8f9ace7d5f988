"""Tasks on Ray: Tune schedules them, Train runs those that span several processes.

What takes Ray is imported when it is asked for, as a plan is made without.
"""

import importlib
from typing import TYPE_CHECKING, Any

from hkrun.cluster.axes import EarlyStopping, Point, Search, make_search
from hkrun.cluster.joining import check_joined, find_nodes
from hkrun.cluster.reach import Needs
from hkrun.cluster.resources import Node, Request, check_fit
from hkrun.cluster.schedule import TaskResult
from hkrun.cluster.tasks import run_tasks

if TYPE_CHECKING:
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


def __getattr__(name: str) -> Any:
    if name != "Observer":  # it takes Ray
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module("hkrun.cluster.watch"), name)
