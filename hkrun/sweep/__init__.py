"""One sweep from plan to report: the one place that brings plan, cluster, tracking and report together."""

from hkrun.plan import Shortcuts
from hkrun.sweep.checks import DataCheck, check_cluster, check_data
from hkrun.sweep.running import Outcome, mirror_sweep, plan_sweep, run_sweep, train_teacher
from hkrun.sweep.task_submission import Observer

__all__ = [
    "DataCheck",
    "Observer",
    "Outcome",
    "Shortcuts",
    "check_cluster",
    "check_data",
    "mirror_sweep",
    "plan_sweep",
    "run_sweep",
    "train_teacher",
]
