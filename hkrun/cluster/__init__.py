"""Tasks on Ray: Tune schedules them, Train runs those that span several processes."""

from hkrun.cluster.resources import Request
from hkrun.cluster.runtime import find_slots
from hkrun.cluster.schedule import TaskResult
from hkrun.cluster.tune import Observer, run_tasks

__all__ = ["Observer", "Request", "TaskResult", "find_slots", "run_tasks"]
