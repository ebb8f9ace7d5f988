"""Tasks that several processes do together: Ray Train inside Ray Tune."""

import patched_drivers
import pytest
import ray
from fake_tasks import FakeTask, run
from ray.exceptions import ActorDiedError
from ray.train.v2._internal.exceptions import WorkerHealthCheckFailedError
from ray.train.v2.api.exceptions import ControllerError, WorkerGroupError

from hkrun.cluster import TaskList, run_tasks
from hkrun.cluster.trials.placement_groups import remove_leftovers, worker_bytes
from hkrun.cluster.trials.schedule import WorkerDiedError
from hkrun.cluster.trials.train import classify
from hkrun.errors import DataError, StoreError

# Each worker group is nine new processes, up to a minute of processor time. The limit is there for what never
# ends, not for what takes its time on a machine that does other things too.
pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]

# The cluster takes back the CPUs of the test before when it sees that its driver is gone.
FREE_WITHIN_S = 300


def run_fakes(tasks, observer, folder):
    return run_tasks(TaskList(tasks=tasks, workers=2, log_folder=folder / "logs", function=run), observer)


def test_two_workers_reduce_over_gloo_and_rank_0_reports(joined, observer, tmp_path):
    results = run_fakes([FakeTask(name="t0", does="all_reduce")], observer, tmp_path)
    (outcome,) = results[0].outcomes
    assert (outcome["total"], outcome["world_size"], outcome["backend"]) == (3.0, 2, "gloo")
    assert [event for event in observer.events if event[0] == "progress"] == [
        ("progress", 0, {"epoch": 1, "rank": 0})
    ]
    assert observer.of(0) == ["started", "progress", "done"]
    assert sorted(path.name for path in tmp_path.glob("logs/t0*")) == ["t0.0.log", "t0.1.log", "t0.log"]


def test_a_group_that_ray_train_forgot_gives_its_cpus_back(joined):
    ray.init(log_to_driver=False, configure_logging=False)
    try:
        # What is left when a worker dies just before its function starts: a group that nobody removes.
        forgotten = ray.util.placement_group([{"CPU": 1, "memory": worker_bytes(12345)}] * 2)
        other = ray.util.placement_group([{"memory": 54321}])
        assert forgotten.wait(FREE_WITHIN_S)
        assert other.wait(FREE_WITHIN_S)
        remove_leftovers({12345})
        assert ray.util.placement_group_table(forgotten)["state"] == "REMOVED"
        assert ray.util.placement_group_table(other)["state"] == "CREATED"
    finally:
        ray.shutdown()


@pytest.mark.slow
def test_data_that_one_worker_misses_stops_all_tasks_and_keeps_its_class(joined, observer, tmp_path):
    tasks = [FakeTask(name="bad", does="miss_data_on_rank_1"), FakeTask(name="late", does="all_reduce")]
    missed, late = run_fakes(tasks, observer, tmp_path)
    assert type(missed.common_error) is DataError
    assert missed.common_error.message == "train.parquet: not there\nval.parquet: not there"
    assert not late.begun


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_no_kind_of_end_starves_the_next_task(joined, observer, tmp_path, monkeypatch):
    monkeypatch.setattr("hkrun.cluster.tasks._tune", patched_drivers.stop_trials_after_epoch_2)
    does = [
        "sleep",  # stopped in the middle
        "fail_on_rank_1",  # while rank 0 waits for it
        "die_at_once_on_rank_1",  # while the group still starts
        "die_later_on_rank_1",
        "kill_driver_once",
        "all_reduce",
    ]
    tasks = [FakeTask(name=what, does=what, folder=str(tmp_path)) for what in does]
    results = run_fakes(tasks, observer, tmp_path)

    stopped, failed, *killed, undisturbed = results
    assert stopped.outcomes is None
    assert stopped.error is None
    assert "ValueError: rank 1 is wrong" in failed.error
    assert failed.retries == 0
    assert "Traceback" in (tmp_path / "logs" / "fail_on_rank_1.1.log").read_text()
    for result in killed:
        assert result.retries >= 1
        assert result.outcomes[0]["total"] == 3.0
    assert undisturbed.outcomes[0]["total"] == 3.0


def test_one_death_explains_the_errors_of_the_others():
    lost = RuntimeError("connection closed by peer")
    for death in (ActorDiedError(), WorkerHealthCheckFailedError("unhealthy", failure=ActorDiedError())):
        assert isinstance(classify(WorkerGroupError("", {0: lost, 1: death})), WorkerDiedError)
    assert classify(WorkerGroupError("", {0: lost})) is lost
    full = StoreError("no space left")
    assert classify(WorkerGroupError("", {0: lost, 1: full})) is full
    assert isinstance(classify(ControllerError(TimeoutError("no start"))), WorkerDiedError)
