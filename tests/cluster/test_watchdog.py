"""Processes that are there and do nothing: stopped, waiting for ever, or without a device that works."""

import json

import pytest
import ray
from fake_tasks import FakeTask
from fault_tasks import run

from hkrun.cluster import TaskList, run_tasks
from hkrun.cluster.trials import watchdog

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


def run_faults(does, observer, folder, *, workers=1):
    tasks = [
        FakeTask(name=f"{what}{index}", does=what, folder=str(folder)) for index, what in enumerate(does)
    ]
    return run_tasks(
        TaskList(tasks=tasks, workers=workers, log_folder=folder / "logs", function=run), observer
    )


def test_a_stopped_process_is_replaced_and_its_task_goes_on(joined, observer, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("HKRUN_SILENCE_S", "4")
    results = run_faults(["stop", "nothing"], observer, tmp_path)
    assert [result.retries for result in results] == [1, 0]
    assert all(result.outcomes for result in results)
    assert "stop0: a process of it was silent for 4 s; it is ended" in caplog.messages


@pytest.mark.slow
def test_a_task_whose_device_failed_goes_on_in_another_process(joined, observer, tmp_path):
    (result,) = run_faults(["lose_device"], observer, tmp_path)
    assert result.retries == 1
    assert result.outcomes
    first, second = (tmp_path / "lose_device0.0").read_text().split()
    assert first != second


@pytest.mark.slow
def test_a_hanging_task_is_tried_again_and_gives_up_in_the_end(joined, observer, tmp_path, monkeypatch):
    monkeypatch.setenv("HKRUN_HANG_S", "6")
    once, always = run_faults(["hang", "hang_always"], observer, tmp_path)
    assert (once.retries, once.error) == (1, None)
    assert always.retries == 2
    assert always.error.startswith("it made no progress for 6 s (tried 3 times); ")


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["stop", "hang"])
def test_a_group_with_a_worker_that_does_nothing_is_replaced(joined, observer, tmp_path, monkeypatch, fault):
    monkeypatch.setenv("HKRUN_SILENCE_S", "6")
    monkeypatch.setenv("HKRUN_HANG_S", "15")
    results = run_faults([fault, "nothing"], observer, tmp_path, workers=2)
    assert [result.retries for result in results] == [1, 0]
    assert all(result.outcomes for result in results)


@pytest.mark.slow
def test_a_process_is_killed_on_its_own_node(joined, monkeypatch):
    """What the driver does for a process of another machine: here the same one, as a task of Ray."""
    ray.init(log_to_driver=False, configure_logging=False)
    try:

        @ray.remote(num_cpus=0, max_restarts=0)
        class Victim:
            def describe(self):
                import os

                here = ray.get_runtime_context().get_node_id()
                return {"node": here, "pid": os.getpid(), "born": watchdog.find_birth(os.getpid())}

        victim = Victim.remote()
        place = ray.get(victim.describe.remote())
        monkeypatch.setattr(
            ray.runtime_context.RuntimeContext, "get_node_id", lambda _context: "another node"
        )
        watchdog._kill(json.loads(json.dumps(place)))
        answers = (ray.get(victim.describe.remote()) for _ in range(100_000))
        with pytest.raises(ray.exceptions.ActorDiedError):
            list(answers)
    finally:
        ray.shutdown()
