"""What a sweep makes of shortcuts: what it asks of the cluster, marks, and says is left out."""

import dataclasses
from types import SimpleNamespace
from unittest.mock import MagicMock

import pytest
import study_example
from sweep_example import make_sweep, put_run
from teacher_example import put_diverged_teacher, put_teacher
from two_slots import TWO_SLOTS

import hkrun.cluster
import hkrun.sweep.planning
import hkrun.tracking
from hkrun.cluster import EarlyStopping, Search, TaskResult
from hkrun.config import cell_id, teacher_id
from hkrun.errors import TrainingError
from hkrun.plans import Shortcuts, load_stopped, make_plan
from hkrun.store import open_store

pytestmark = pytest.mark.usefixtures("undrawn_figures")


class Watcher:
    """An observer that keeps the plan."""

    plan = None

    def plan_made(self, plan, *, slots):
        self.plan = plan

    def __getattr__(self, name):
        return lambda *_, **__: None


@pytest.fixture
def sweep():
    """Two seeds of three points on an axis, and of a cell off it."""
    whole = make_sweep(num_seeds=2)
    cells = tuple(
        dataclasses.replace(
            cell,
            group="grid",
            point={"loss.lambda_3": cell.cell.loss.lambda_3, "loss.lambda_2": cell.cell.loss.lambda_2},
        )
        if index
        else cell
        for index, cell in enumerate(whole.cells)
    )
    return dataclasses.replace(whole, cells=cells)


@pytest.fixture
def store(tmp_path, monkeypatch, sweep):
    """A store that has the teacher; there is no MLflow."""
    monkeypatch.chdir(tmp_path)
    mirror = MagicMock()
    mirror.return_value.__exit__.return_value = False
    monkeypatch.setattr(hkrun.tracking, "Mirror", mirror)
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(hkrun.sweep.planning, "find_machine", lambda *_, **__: TWO_SLOTS)
    monkeypatch.setattr(hkrun.sweep.planning, "check_data", lambda _: None)
    store = open_store(tmp_path / "store")
    put_teacher(store, sweep.cells[0].cell)
    return store


@pytest.fixture
def cluster(monkeypatch, store, sweep):
    """Replaces Ray: a task ends as `ends` says of its number, or is not begun; notes the calls."""
    cluster = SimpleNamespace(ends={}, calls=[])

    def run_tasks(work, observer):
        cluster.calls.append(work)
        results = []
        for index, task in enumerate(work.tasks):
            status = cluster.ends.get(index)
            if status is None:
                results.append(TaskResult())
                continue
            observer.started(index)
            if status == "died":
                results.append(TaskResult(error="its process died"))
                observer.failed(index, "its process died")
                continue
            if status != "stopped":
                named = next(named for named in sweep.cells if cell_id(named.cell) == task.cell_id)
                put_run(store, named, task.seeds[0], status=status, teacher_id="t", teacher_hash="ab" * 32)
            outcome = {
                "seed": task.seeds[0],
                "status": status,
                "error_last_pct": 7.0,
                "epochs": 4,
                "message": "it says why",
            }
            results.append(TaskResult(outcomes=[outcome]))
            observer.done(index, [outcome])
        return results

    monkeypatch.setattr(hkrun.cluster, "run_tasks", run_tasks)
    return cluster


def run(sweep, store, **shortcuts):
    watcher = Watcher()
    outcome = study_example.run(sweep, store, watcher, shortcuts=Shortcuts(**shortcuts))
    return outcome, watcher.plan


def test_without_shortcuts_nothing_is_searched_stopped_or_left_out(sweep, store, cluster):
    cluster.ends.update(dict.fromkeys(range(8), "finished"))
    outcome, plan = run(sweep, store)
    (work,) = cluster.calls
    assert (len(work.tasks), plan.num_to_run) == (8, 8)
    assert (work.search, work.early_stopping) == (None, None)
    assert (outcome.left_out, outcome.exit_code) == ("", 0)


def test_a_search_gets_the_runs_and_its_budget_and_the_rest_is_left_out(sweep, store, cluster):
    cluster.ends.update({3: "finished", 7: "finished", 2: "finished"})
    outcome, plan = run(sweep, store, search=True, budget=1)
    (work,) = cluster.calls
    assert (len(work.tasks), plan.num_to_run) == (8, 3)
    search = work.search
    assert isinstance(search, Search)
    assert (search.budget, search.first) == (1, {3, 7})  # the reference has the fewest terms
    assert outcome.left_out == ("Runs left out: 5, of which 0 were stopped early; they are in no statistics.")
    assert outcome.exit_code == 0
    outcome, _ = run(sweep, store, search=True, budget=1)
    assert len(cluster.calls) == 1, "the budget is spent: nothing starts"
    assert outcome.left_out.startswith("Runs left out: 5,")


def test_runs_that_failed_died_or_diverged_are_not_left_out(sweep, store, cluster):
    cluster.ends.update({0: "finished", 4: "failed", 1: "failed", 2: "died", 3: "diverged"})
    outcome, _ = run(sweep, store, search=True, budget=3)
    assert outcome.left_out.startswith("Runs left out: 3,")  # of eight tasks, five were begun
    assert outcome.exit_code == 5
    assert [line.partition(": ")[2] for line in outcome.problems] == ["its process died"]


def test_runs_that_were_stopped_are_marked_and_not_begun_again(sweep, store, cluster):
    cluster.ends.update(dict.fromkeys(range(8), "finished") | {1: "stopped", 6: "stopped"})
    outcome, _ = run(sweep, store, stop_early=True)
    (work,) = cluster.calls
    assert isinstance(work.early_stopping, EarlyStopping)
    marked = {(run.cell_id, run.seed, run.epoch, run.error_pct) for run in load_stopped(store, sweep)}
    assert marked == {(work.tasks[index].cell_id, work.tasks[index].seeds[0], 4, 7.0) for index in (1, 6)}
    assert outcome.left_out.startswith("Runs left out: 2, of which 2 were stopped early")
    outcome, _ = run(sweep, store, stop_early=True)
    assert len(cluster.calls) == 1
    assert outcome.left_out.startswith("Runs left out: 2, of which 2 were stopped early")
    assert make_plan(sweep, store).num_to_run == 2, "without the scheduler they are made"


def test_runs_whose_teacher_diverged_are_not_left_out(sweep, store, cluster):
    cell = sweep.cells[0].cell
    other = dataclasses.replace(cell, teacher=dataclasses.replace(cell.teacher, seed=99))
    point = {"teacher.seed": 99}
    named = dataclasses.replace(sweep.cells[1], name="untaught", cell=other, point=point, group="seeds")
    sweep = dataclasses.replace(sweep, cells=(*sweep.cells, named))
    put_diverged_teacher(store, other)
    cluster.ends.update(dict.fromkeys(range(8), "finished") | {2: "stopped"})
    outcome, _ = run(sweep, store, stop_early=True)
    (work,) = cluster.calls
    assert len(work.tasks) == 8
    assert outcome.left_out.startswith("Runs left out: 1, of which 1 were stopped early")
    assert outcome.exit_code == 5
    assert "diverged (loss_backbone is nan in epoch 2)" in outcome.problems[0]


def test_a_sweep_none_of_whose_runs_can_begin_is_an_error(sweep, store, cluster):
    (store.local_path / store.teacher_folder(teacher_id(sweep.cells[0].cell)) / "manifest.json").unlink()
    cluster.ends[0] = "died"
    with pytest.raises(TrainingError, match="its process died"):
        run(sweep, store, stop_early=True)
    (work,) = cluster.calls
    assert [len(task.seeds) for task in work.tasks] == [0] + [1] * 8
    assert work.needs == {index: {0} for index in range(1, 9)}
