"""Lists of tasks on a cluster, one process per task."""

import os
from pathlib import Path
from typing import NamedTuple

import patched_drivers
import pytest
from fake_tasks import FakeTask, join, run
from recorder import Recorder

from hkrun.cluster import TaskList, TaskResult, run_tasks
from hkrun.errors import DataError, ResourceError

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(300)]


def run_fakes(tasks, observer, folder, *, workers=1, fail_fast=False, needs=None):
    return run_tasks(
        TaskList(
            tasks=tasks,
            workers=workers,
            fail_fast=fail_fast,
            needs=needs or {},
            log_folder=folder / "logs",
            function=run,
        ),
        observer,
    )


def test_no_tasks_start_no_ray(observer, tmp_path):
    assert run_fakes([], observer, tmp_path) == []
    assert not (tmp_path / "logs").exists()


KILLED = 12


class Done(NamedTuple):
    """A list of tasks that was done.

    Attributes:
        results: In the tasks' order.
        before, after: The environment variables.
    """

    results: list[TaskResult]
    observer: Recorder
    logs: Path
    before: dict[str, str]
    after: dict[str, str]


@pytest.fixture(scope="module")
def done(cluster, tmp_path_factory) -> Done:
    """Thirteen tasks on two CPUs: some go wrong, two need another, and the last is killed once."""
    does = {1: "fail", 2: "tell", 3: "leave", KILLED: "die_once"}
    observer, folder = Recorder(), tmp_path_factory.mktemp("done")
    tasks = [
        FakeTask(name=f"t{index}", does=does.get(index, "finish"), folder=str(folder))
        for index in range(KILLED + 1)
    ]
    with pytest.MonkeyPatch.context() as environment:
        join(cluster, environment)
        before = dict(os.environ)
        results = run_fakes(tasks, observer, folder, needs={5: [0], 6: [1]})
        return Done(results, observer, folder / "logs", before, dict(os.environ))


def test_a_raising_task_disturbs_no_other_and_results_keep_their_order(done):
    results, observer = done.results, done.observer
    assert [result.outcomes is not None for result in results[:6]] == [True, False, True, False, True, True]
    assert all(result.outcomes is not None for result in results[7:])
    assert [results[index].outcomes[0]["name"] for index in (0, 4, 11)] == ["t0", "t4", "t11"]
    assert results[1].error == "ValueError: t1 is wrong"
    assert [result.retries for result in results[:KILLED]] == [0] * 12  # wrong code is not tried again
    assert observer.of(0) == ["started", "done"]
    assert observer.of(2) == ["started", "progress", "progress", "progress", "done"]
    assert [event[2]["epoch"] for event in observer.events if event[:2] == ("progress", 2)] == [1, 2, 3]

    assert results[2].outcomes[0]["threads"] == "1"
    assert results[2].outcomes[0]["cwd"] == str(Path.cwd())  # relative paths mean what they meant
    assert (done.logs / "t2.log").read_text() == "t2 prints\nt2 has children\n"
    log_file = done.logs / "t1.log"
    assert observer.message(1) == f"ValueError: t1 is wrong; see {log_file}"
    assert "Traceback" in log_file.read_text()
    assert done.after == done.before


def test_fewer_processes_than_tasks_do_them_all(done):
    outcomes = [result.outcomes[0] for result in done.results[:KILLED] if result.outcomes is not None]
    assert len(outcomes) == 9
    assert len({outcome["pid"] for outcome in outcomes}) <= 2


def test_what_needs_a_task_follows_it_in_a_process_that_is_there(done):
    assert [result.begun for result in done.results] == [True] * 6 + [False] + [True] * 6
    assert done.observer.of(6) == []
    assert done.observer.events.index(("done", 0)) < done.observer.events.index(("started", 5))


def test_a_killed_process_is_replaced_and_its_task_goes_on(done):
    killed, observer = done.results[KILLED], done.observer
    assert killed.retries == 1
    assert killed.outcomes[0]["attempts"] == 2
    assert sorted(observer.tries) == [*range(6), *range(7, KILLED), KILLED, KILLED]  # a slot for each try
    assert observer.of(KILLED) == ["started", "progress", "progress", "done"]  # started once for the observer


@pytest.mark.slow
def test_fail_fast_stops_what_runs_and_starts_nothing_more(joined, observer, tmp_path):
    tasks = [FakeTask(name="long", does="sleep", folder=str(tmp_path)), FakeTask(name="bad", does="fail")]
    tasks += [FakeTask(name=f"late{index}") for index in range(3)]
    results = run_fakes(tasks, observer, tmp_path, fail_fast=True)
    assert [result.error for result in results] == [None, "ValueError: bad is wrong", None, None, None]
    assert all(result.outcomes is None for result in results)
    assert {event[1] for event in observer.events} <= {0, 1}
    # The cluster has its CPUs back.
    again = run_fakes([FakeTask(name="after")], observer, tmp_path)
    assert again[0].outcomes is not None


def test_data_that_one_task_misses_stops_all_and_keeps_its_class(joined, observer, tmp_path):
    tasks = [
        FakeTask(name="first"),
        FakeTask(name="bad", does="miss_data"),
        FakeTask(name="long", does="sleep", folder=str(tmp_path)),
    ]
    results = run_fakes(tasks, observer, tmp_path, needs={1: [0], 2: [0]})
    assert results[0].outcomes is not None  # what is finished is kept
    message = "train.parquet: not there\nval.parquet: not there"
    assert type(results[1].common_error) is DataError
    assert results[1].common_error.message == message
    assert not results[2].begun
    assert observer.message(1) == f"{message}; see {tmp_path / 'logs' / 'bad.log'}"


@pytest.mark.slow
def test_a_task_that_kills_every_process_fails_at_last(joined, observer, tmp_path):
    tasks = [FakeTask(name="t0", does="die", folder=str(tmp_path)), FakeTask(name="t1")]
    results = run_fakes(tasks, observer, tmp_path)
    assert len((tmp_path / "t0.0").read_text().split()) == 3
    assert "(tried 3 times)" in results[0].error
    assert "\n" not in results[0].error
    assert observer.of(0) == ["started", "failed"]
    assert results[1].outcomes is not None


def test_a_stopped_trial_never_starves_the_next(joined, observer, tmp_path, monkeypatch):
    monkeypatch.setattr("hkrun.cluster.tasks._tune", patched_drivers.stop_trials_that_report)
    stopped = [FakeTask(name=f"long{index}", does="sleep", folder=str(tmp_path)) for index in range(2)]
    tasks = [*stopped, *(FakeTask(name=f"t{index}") for index in range(2))]  # on two CPUs
    results = run_fakes(tasks, observer, tmp_path)
    assert [result.outcomes is not None for result in results] == [False] * 2 + [True] * 2
    assert all((result.error, result.retries) == (None, 0) for result in results)


@pytest.mark.slow
def test_an_observer_that_raises_stops_nothing(joined, tmp_path, caplog):
    class Broken:
        def __getattr__(self, name):
            raise RuntimeError(f"{name} is broken")

    results = run_fakes([FakeTask(name="t0"), FakeTask(name="t1", does="fail")], Broken(), tmp_path)
    assert results[0].outcomes is not None
    assert results[1].error == "ValueError: t1 is wrong"
    assert "the observer of the tasks failed in done: RuntimeError('done is broken')" in caplog.messages


def test_what_does_not_fit_the_cluster_is_refused(joined, observer, tmp_path):
    with pytest.raises(
        ResourceError, match=rf"the Ray cluster at {joined} has 2 CPUs.*--workers 2 would fit"
    ):
        run_fakes([FakeTask(name="t0")], observer, tmp_path, workers=3)
    assert observer.events == []


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("127.0.0.1:1", "Connection refused"),
        ("ray://127.0.0.1:1", "expected host:port of its head"),
        ("somewhere", "expected host:port of its head"),
    ],
)
def test_a_cluster_that_is_not_there_is_refused_at_once(observer, tmp_path, monkeypatch, address, why):
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ResourceError, match=f"RAY_ADDRESS={address}: cannot join this Ray cluster: .*{why}"):
        run_fakes([FakeTask(name="t0")], observer, tmp_path)
