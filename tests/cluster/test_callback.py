"""What is made of the reports of trials."""

from pathlib import Path
from types import SimpleNamespace
from unittest.mock import MagicMock, call

from hkrun.cluster import TaskList, do_task
from hkrun.cluster.trials.callback import TrialCallback


def test_only_epochs_set_the_pace_that_the_watchdog_holds_a_task_to():
    """The first epoch of a pack may take far longer than the blocks of the teacher table before it."""
    schedule, watchdog, observer = MagicMock(), MagicMock(), MagicMock()
    work = TaskList(tasks=[MagicMock()], log_folder=Path(), function=do_task)
    watch = TrialCallback(schedule, MagicMock(), watchdog, observer, work)
    trial = SimpleNamespace(config={"index": 0, "mark": 7})
    reports = [{"filled": 0.5}, {"epoch": 1, "epochs": 3}]
    for report in reports:
        watch.on_trial_result(0, [trial], trial, {"progress": report})
    assert watchdog.mock_calls == [call.progressed(7)]
    assert [told.args for told in observer.progress.mock_calls] == [(0, report) for report in reports]
    assert [told.args for told in schedule.progressed.mock_calls] == [(0, 0), (0, 1)]
