"""Tasks of several workers on three raylets: nodes that are lost, and both kinds of tasks at once."""

import itertools
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager

import patched_drivers
import pytest
from fake_tasks import FakeTask, python_path, run
from imagenet_example import make_tree
from ports import free_port
from real_tasks import run_slowly
from task_example import make_task

from hkrun.cli.program import call
from hkrun.cluster import TaskList, run_tasks
from hkrun.config import cell_from_values, cell_id
from hkrun.plans import ALONE, Span
from hkrun.store import open_store
from hkrun.training import SingleProcess
from hkrun.trial.run import run_task

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.timeout(900)]

EPOCHS = 12
CELL = cell_from_values(
    {
        "dataset": "digits",
        "precision": "float64",
        "teacher.network": "preact-8-w4",
        "teacher.epochs": 2,
        "student.network": "preact-8-w4",
        "student.epochs": EPOCHS,
        "augment.padding": 1,
        "augment.flip": False,
    }
)
# See tests/loop/test_workers.py: 48 steps, sums over batches of 64 and maps of 8 x 8, amplified by 20.
TOLERANCE = 48 * 20 * 64 * 64 * 2.2e-16


@contextmanager
def started_cluster(
    monkeypatch, *, head_cpus: int = 0, nodes: tuple[dict, ...] = ({"num_cpus": 1},) * 2
) -> Iterator:
    """A cluster of a head and more nodes, which this process will join."""
    from ray.cluster_utils import Cluster

    monkeypatch.setenv("PYTHONPATH", python_path())
    memory = {"object_store_memory": 100 << 20}
    head = {"num_cpus": head_cpus, "include_dashboard": True, "dashboard_port": free_port(), **memory}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    try:
        cluster.more = [cluster.add_node(**memory, **node) for node in nodes]
        cluster.wait_for_nodes()
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        yield cluster
    finally:
        cluster.shutdown()


def furthest_apart(found, expected) -> float:
    """The largest difference of two tables of curves, relative to 1 or the value, without the clock."""
    assert found.column_names == expected.column_names
    columns = [name for name in found.column_names if name != "seconds"]
    pairs = [
        pair
        for name in columns
        for pair in zip(found[name].to_pylist(), expected[name].to_pylist(), strict=True)
    ]
    return max(abs(one - other) / max(1.0, abs(other)) for one, other in pairs if other is not None)


def test_a_run_that_loses_a_node_goes_on_with_the_workers_that_are_left(monkeypatch, observer, tmp_path):
    lossy, undisturbed = open_store(tmp_path / "lossy"), open_store(tmp_path / "undisturbed")
    for store in (lossy, undisturbed):
        run_task(make_task(store, CELL), SingleProcess())
    run_task(make_task(undisturbed, CELL, 0), SingleProcess())
    with started_cluster(monkeypatch) as cluster:
        told: list[tuple[float, int]] = []

        def lose_a_node(index, progress):
            told.append((time.monotonic(), progress["epoch"]))
            if progress["epoch"] >= 4 and len(cluster.more) == 2:
                cluster.remove_node(cluster.more.pop(), allow_graceful=False)

        observer.progress = lose_a_node
        (result,) = run_tasks(
            TaskList(
                tasks=[make_task(lossy, CELL, 0)],
                workers=[Span(1, 2)],
                log_folder=tmp_path / "logs",
                function=run_slowly,
            ),
            observer,
        )
    assert result.outcomes[0]["status"] == "finished"
    assert result.retries >= 1
    record = lossy.record(cell_id(CELL), 0)
    assert (record.world_size, record.resumed) == (1, 1)
    assert list(record.world_sizes.values()) == [2, 1]
    (first, changed) = map(int, record.world_sizes)
    assert first == 1
    assert 4 <= changed <= EPOCHS
    assert "not bit-identical: another world_size" in record.alarms[0]
    found, expected = (store.curves(cell_id(CELL), 0) for store in (lossy, undisturbed))
    assert found["error_pct"].equals(expected["error_pct"])
    assert furthest_apart(found, expected) < TOLERANCE
    pause_s = max(later - earlier for (earlier, _), (later, _) in itertools.pairwise(told))
    print(f"goes on after {pause_s:.1f} s")  # noqa: T201


def test_groups_and_single_processes_share_three_nodes_and_all_end(monkeypatch, observer, tmp_path):
    """A teacher of two workers, then groups and single processes in turns; see `test_placement` for why."""
    spans = [Span(2, 2), ALONE, Span(2, 2), ALONE, Span(1, 2), ALONE]
    does = ["all_reduce" if span.least > 1 else "finish" for span in spans]
    tasks = [FakeTask(name=f"t{index}", does=what) for index, what in enumerate(does)]
    with started_cluster(monkeypatch):
        results = run_tasks(
            TaskList(
                tasks=tasks,
                workers=spans,
                needs={index: [0] for index in range(1, 5)},
                log_folder=tmp_path / "logs",
                function=run,
            ),
            observer,
        )
    assert [result.error for result in results] == [None] * len(tasks)
    assert [results[index].outcomes[0]["world_size"] for index in (0, 2)] == [2, 2]
    ended = [event[1] for event in observer.events if event[0] == "done"]
    started = [event[1] for event in observer.events if event[0] == "started"]
    assert sorted(ended) == list(range(len(tasks)))
    assert started[0] == 0  # the last one needs nothing, but there is no room beside the first


def test_a_task_that_lost_its_room_waits_for_it_and_says_so_when_it_gives_up(
    monkeypatch, observer, tmp_path, caplog
):
    monkeypatch.setattr("hkrun.cluster.tasks._tune", patched_drivers.wait_20_s_for_room)
    tasks = [FakeTask(name="pair", does="sleep", folder=str(tmp_path)), FakeTask(name="single")]
    with started_cluster(monkeypatch) as cluster:
        lost_at: list[float] = []

        def lose_a_node(index, progress):
            if not lost_at:
                lost_at.append(time.monotonic())
                cluster.remove_node(cluster.more.pop(), allow_graceful=False)

        observer.progress = lose_a_node
        pair, single = run_tasks(
            TaskList(tasks=tasks, workers=[Span(2, 2), ALONE], log_folder=tmp_path / "logs", function=run),
            observer,
        )
        waited_s = time.monotonic() - lost_at[0]
    assert pair.outcomes is None
    assert "without room: it needs room for 2 processes, and there is room for 1" in pair.error
    assert single.outcomes is not None  # it had room, and did not wait for the other
    assert "1 of the tasks wait: it needs room for 2 processes" in caplog.text
    assert waited_s < 120


def test_processes_share_gpus_that_a_node_declares(monkeypatch, observer, tmp_path):
    """Placement alone: the tasks touch no GPU, because there is none."""
    nodes = ({"num_cpus": 4, "num_gpus": 2}, {"num_cpus": 2})
    tasks = [
        FakeTask(name=f"t{index}", does="meet_others", folder=str(tmp_path), device="cuda")
        for index in range(4)
    ]
    with started_cluster(monkeypatch, nodes=nodes):
        results = run_tasks(
            TaskList(tasks=tasks, per_gpu=2, log_folder=tmp_path / "logs", function=run), observer
        )
    found = [result.outcomes[0] for result in results]
    assert [outcome["met"] for outcome in found] == [4] * 4  # all at once
    assert sorted(outcome["gpus"] for outcome in found) == ["0", "0", "1", "1"]


MIXED = """
title = "Both kinds"
question = "Do they end?"
dataset = "imagenet"
seeds = 2

[base]
precision = "float64"
teacher.network = "preact-8-w4"
teacher.file = ""
teacher.epochs = 1
teacher.batch_size = 30
student.network = "preact-8-w4"
student.epochs = 2
student.batch_size = 30
student.learning_rate = 1e-3
augment.size = 16
loss.lambda_2 = 0.0

[[cells]]
name = "together"

[[cells]]
name = "alone"
sync_batchnorm = false
"""


def test_one_sweep_trains_its_teacher_and_some_cells_together_and_others_alone(monkeypatch, tmp_path, capsys):
    make_tree(tmp_path)
    (tmp_path / "mixed.toml").write_text(MIXED)
    monkeypatch.chdir(tmp_path)
    command = ["sweep", "mixed.toml", "--data", str(tmp_path), "--json"]
    with started_cluster(monkeypatch):
        assert call([*command, "--dry-run"]) == 0
        plan = json.loads(capsys.readouterr().out)
        assert [cell["workers"]["most"] for cell in plan["cells"]] == [2, 1]
        assert [teacher["workers"]["most"] for teacher in plan["teachers_to_train"]] == [2]
        assert call([*command, "--yes"]) == 0
    store = open_store(tmp_path / "hkrun-store")
    sizes = {
        cell["name"]: {record.world_size for record in store.records(cell["cell_id"])}
        for cell in plan["cells"]
    }
    assert sizes["alone"] == {1}
    assert 2 in sizes["together"] <= {1, 2}  # as many as there was room for when each began
    (teacher,) = plan["teachers_to_train"]
    assert store.teacher(teacher["teacher_id"]).world_size == 2
