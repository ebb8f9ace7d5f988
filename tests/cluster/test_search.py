"""Shortcuts through the axes: what Optuna proposes, and what ASHA ends early."""

import itertools
import math
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import MagicMock

import pytest
from fake_tasks import FakeTask, run
from ray.tune.experiment import Trial
from ray.tune.schedulers import TrialScheduler
from test_schedule import limited

from hkrun.cluster import EarlyStopping, Point, Search, TaskList, make_search, run_tasks
from hkrun.cluster.nodes.resources import Node
from hkrun.cluster.trials.callback import TrialCallback
from hkrun.cluster.trials.schedule import Schedule
from hkrun.cluster.trials.searcher import Allocation, AxesSearch, Halving
from hkrun.cluster.trials.slots import Slots
from hkrun.config import cell_id
from hkrun.plans import ALONE, Shortcuts, make_plan
from hkrun.spaces import load_sweep
from hkrun.store import Record, open_store

# Two axes of five values, two seeds each; the error is least at (3, 1).
GRID = {
    Point("grid", place): (2 * number, 2 * number + 1)
    for number, place in enumerate(itertools.product(range(5), repeat=2))
}


def error_at(point):
    return 1.0 + sum((here - best) ** 2 for here, best in zip(point.values, (3, 1), strict=True))


def play(search, *, num_tasks, errors):
    """Does one task after the other as `run_tasks` would; returns which."""
    return play_all(search, num_tasks=num_tasks, errors=errors)[0]


def play_all(search, *, num_tasks, errors, failures=()):
    """As `play`; returns Optuna's trials too. `failures` are tasks without an outcome."""
    pytest.importorskip("optuna")
    schedule = limited(num_tasks, 1)
    chooser = AxesSearch(search, schedule)
    done = []
    while True:
        if chooser.spent:
            schedule.leave_out(chooser.tasks - chooser.chosen)
        if (index := schedule.take(chooser.choose)) is None:
            break
        done.append(index)
        error = errors.get(index)
        status = "diverged" if error is None else "stopped" if math.isnan(error) else "finished"
        if index in failures:
            schedule.raised(index, "RuntimeError: it broke", exit_code=5)
        else:
            schedule.returned(index, [{"seed": 0, "status": status, "error_last_pct": error}])
        schedule.release(index)
    assert schedule.finished
    return done, chooser._optuna._ot_study.trials


def test_the_search_spends_its_budget_near_the_best_point_and_repeats_nothing():
    errors = {index: error_at(point) for point, tasks in GRID.items() for index in tasks}
    done = play(Search(runs=GRID, known={}, budget=30), num_tasks=50, errors=errors)
    assert len(done) == len(set(done)) == 30
    at_random, proposed = done[:10], done[10:]
    assert min(errors[index] for index in done) == 1.0
    mean = {
        name: sum(errors[index] for index in part) / len(part)
        for name, part in (("random", at_random), ("proposed", proposed))
    }
    assert mean["proposed"] < mean["random"]


@pytest.mark.parametrize(
    ("errors", "failures", "told"),
    [
        ({0: 3.0}, (), ("COMPLETE", 3.0)),
        ({}, (), ("PRUNED", None)),  # diverged
        ({0: math.nan}, (), ("PRUNED", None)),  # ended by ASHA with an error that is no number
        ({0: math.inf}, (), ("PRUNED", None)),
        ({}, (0,), ("FAIL", None)),
    ],
)
def test_optuna_hears_of_every_run_what_became_of_it(errors, failures, told):
    runs = {Point("a", (0,)): (0, 1)}
    done, trials = play_all(
        Search(runs=runs, known={}, budget=2), num_tasks=2, errors={1: 4.0, **errors}, failures=failures
    )
    assert done == [0, 1]
    assert (trials[0].state.name, trials[0].value) == told
    assert "RUNNING" not in [trial.state.name for trial in trials[:-1]]


def test_runs_that_diverged_before_are_pruned_where_they_are_proposed_again():
    made = {Point("a", (place,)): () for place in range(20)}
    search = Search(runs=made | {Point("a", (20,)): (0,), Point("a", (21,)): (1,)}, known={}, budget=2)
    _, trials = play_all(search, num_tasks=2, errors={0: 1.0, 1: 2.0})
    again = [trial.state.name for trial in trials if trial.params["0:0"] < 20]
    assert again
    assert set(again) == {"PRUNED"}


def test_the_same_seed_proposes_the_same():
    errors = {index: error_at(point) for point, tasks in GRID.items() for index in tasks}
    search = Search(runs=GRID, known={}, budget=15)
    assert play(search, num_tasks=50, errors=errors) == play(search, num_tasks=50, errors=errors)


def test_a_search_prints_nothing():
    pytest.importorskip("optuna")
    code = """
from hkrun.cluster import Point, Search
from hkrun.cluster.trials.schedule import Schedule
from hkrun.cluster.trials.searcher import Halving, AxesSearch
schedule = Schedule(1)
search = AxesSearch(Search(runs={Point("grid", (0,)): (0,)}, known={}, budget=1), schedule)
assert schedule.take(search.choose) == 0
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout + done.stderr == ""


def test_tasks_off_the_axes_come_first_and_cost_no_budget():
    runs = {Point("a", (0,)): (1,), Point("a", (1,)): (2,), Point("b", ()): (4,)}
    done = play(Search(runs=runs, known={}, budget=1), num_tasks=5, errors=dict.fromkeys(range(5), 2.0))
    assert done[:2] == [0, 3]
    assert len(done) == 3


def test_runs_that_are_wanted_in_any_case_come_first_and_cost_no_budget():
    runs = {Point("a", (place,)): (place,) for place in range(4)}
    search = Search(runs=runs, known={}, budget=0, first=frozenset({2}))
    assert play(search, num_tasks=4, errors={}) == [2]


def test_a_budget_beyond_the_runs_makes_them_all_whatever_diverges():
    runs = {Point("a", (place,)): (place,) for place in range(4)}
    done = play(Search(runs=runs, known={}, budget=99), num_tasks=4, errors={})
    assert sorted(done) == [0, 1, 2, 3]


def test_runs_that_were_made_before_guide_the_search():
    runs = {Point("a", (place,)): (place - 1,) if place else () for place in range(4)}
    known = {Point("a", (0,)): (1.0,)}
    assert len(play(Search(runs=runs, known=known, budget=2), num_tasks=3, errors={})) == 2


def test_two_points_may_be_one_configuration():
    runs = {Point("a", (0,)): (0,), Point("b", (0,)): (0,), Point("b", (1,)): (1,)}
    assert sorted(play(Search(runs=runs, known={}, budget=9), num_tasks=2, errors={})) == [0, 1]


@dataclass(eq=False)
class FakeTrial:
    """What ASHA and the watch know of one of Tune's trials, which is that of the task of the same number."""

    index: int
    last_result: dict | None = None
    status: str = Trial.RUNNING

    @property
    def trial_id(self):
        return str(self.index)

    @property
    def config(self):
        return {"index": self.index, "mark": self.index, "workers": 1}


def test_asha_compares_runs_of_the_same_epoch_and_spares_teachers_and_what_is_done():
    halving = Halving(EarlyStopping(frozenset({1, 2, 3, 4}), epochs=9))
    trials = [FakeTrial(index) for index in range(5)]
    for trial in trials:
        halving.on_trial_add(None, trial)

    def is_stopped(index, epoch, error_pct, *, epochs=9):
        report = {"progress/epoch": epoch, "progress/epochs": epochs, "progress/error_pct": error_pct}
        return halving.on_trial_result(None, trials[index], report) == TrialScheduler.STOP

    assert not is_stopped(0, 1, 1.0)  # a teacher, better than all students
    assert not is_stopped(1, 1, 20.0)
    assert is_stopped(2, 1, 30.0)
    assert not is_stopped(0, 3, 99.0)
    assert not is_stopped(1, 2, 99.0)  # runs are compared after one and three epochs only
    assert not is_stopped(1, 3, 10.0)
    assert not is_stopped(3, 1, 10.0)  # a late one is compared with those before it
    assert is_stopped(3, 3, 15.0)
    assert not is_stopped(4, 3, 99.0, epochs=3)  # it is about to be recorded


def test_a_run_that_is_ended_early_is_done_as_far_as_it_reported(observer, tmp_path):
    schedule = Schedule(2, fail_fast=True, needs={1: [0]})
    tasks = [FakeTask(name="run"), FakeTask(name="next")]
    room = Slots([Node(cpus=2, gpus=0, memory_bytes=8 << 30)], threads=1, device="cpu")
    watchdog = MagicMock()
    watchdog.ended.return_value = ""
    watch = TrialCallback(
        schedule,
        Allocation([ALONE] * 2, room),
        watchdog,
        observer,
        TaskList(
            tasks=tasks,
            log_folder=tmp_path,
            early_stopping=EarlyStopping(frozenset({0}), epochs=9),
            function=run,
        ),
    )
    schedule.take()
    trial = FakeTrial(0, {"progress": {"seed": 7, "epoch": 3, "epochs": 9, "error_pct": 66.0}})
    watch.on_step_end(0, [trial])
    assert not schedule.has_result(0)
    trial.status = Trial.TERMINATED
    watch.on_step_end(1, [trial])
    (outcome,) = schedule.result(0).outcomes
    assert (outcome["seed"], outcome["status"]) == (7, "stopped")
    assert (outcome["epochs"], outcome["error_last_pct"]) == (3, 66.0)
    assert observer.of(0) == ["done"]


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.timeout(300)
def test_asha_ends_runs_that_fall_behind_but_no_teacher(joined, observer, tmp_path):
    names = ["teacher-90", "good-1", "bad-50", "bad-60"]
    tasks = [FakeTask(name=name, does="train", folder=str(tmp_path)) for name in names]
    results = run_tasks(
        TaskList(
            tasks=tasks,
            log_folder=tmp_path / "logs",
            early_stopping=EarlyStopping(frozenset({1, 2, 3}), epochs=9),
            function=run,
        ),
        observer,
    )
    outcomes = [result.outcomes[0] for result in results]
    assert [outcomes[index]["status"] for index in (0, 1, 3)] == ["finished", "finished", "stopped"]
    assert outcomes[3]["epochs"] < 9
    assert outcomes[3]["error_last_pct"] == 60.0 + 9 - outcomes[3]["epochs"]
    assert outcomes[3]["seed"] == 0
    assert [observer.of(index)[-1] for index in range(4)] == ["done"] * 4


@pytest.mark.cluster
@pytest.mark.timeout(300)
@pytest.mark.slow
def test_a_search_on_a_cluster_leaves_out_what_it_does_not_choose(joined, observer, tmp_path):
    pytest.importorskip("optuna")
    tasks = [FakeTask(name=f"run-{number}", does="train", folder=str(tmp_path)) for number in range(12)]
    runs = {Point("a", (number,)): (number,) for number in range(12)}
    results = run_tasks(
        TaskList(
            tasks=tasks,
            log_folder=tmp_path / "logs",
            search=Search(runs=runs, known={}, budget=5),
            function=run,
        ),
        observer,
    )
    assert sum(result.outcomes is not None for result in results) == 5
    assert sum(event[0] == "done" for event in observer.events) == 5
    assert len(list(Path(tmp_path).glob("run-*.0"))) == 5


# --- what a plan gives to choose from -----------------------------------------------------------------------


@pytest.fixture
def plan(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return make_plan(load_sweep("sensitivity", seeds="2"), None, shortcuts=Shortcuts(search=True))


def test_a_plans_runs_are_found_by_their_place_on_the_axes(plan):
    search = make_search(plan, first_run=1)
    assert len(search.runs) == 45
    assert search.budget == 33, "one run per configuration"
    corner = search.runs[Point("lambda_2 x lambda_3", (0, 4))]
    packs = [plan.packs[index - 1] for index in corner]
    assert {(pack.cell.loss.lambda_2, pack.cell.loss.lambda_3) for pack in packs} == {(0.1, 10.0)}
    assert [pack.seeds for pack in packs] == [(0,), (1,)]
    center = search.runs[Point("mu", (2,))]
    assert set(center) == set(search.runs[Point("lambda_2 x lambda_3", (2, 2))]) == search.first
    assert len(search.first) == 2, "the cell that no axis varies is run in any case"


def test_values_are_numbered_by_size_and_words_in_the_files_order(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("space.toml").write_text(
        'dataset = "digits"\nseeds = 1\n'
        '[[axes]]\nkey = "loss.mu"\nvalues = [10, 1, 5]\n'
        '[[axes]]\nkey = "loss.gan"\nvalues = ["saturating", "non_saturating"]\n'
    )
    plan = make_plan(load_sweep("space.toml"), None, shortcuts=Shortcuts(search=True, budget=4))
    search = make_search(plan, first_run=0)
    places = {
        point.values: (plan.packs[index].cell.loss.mu, plan.packs[index].cell.loss.gan)
        for point, (index,) in search.runs.items()
    }
    assert places[0, 0] == (1.0, "saturating")
    assert places[2, 1] == (10.0, "non_saturating")
    assert search.budget == 4


def test_runs_that_the_store_has_count_towards_the_budget(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sweep = load_sweep("sensitivity", seeds="2")
    named = next(named for named in sweep.cells if named.group == "lambda_1")
    store = open_store(tmp_path / "store")
    fields = {"status": "finished", "epochs": 1, "device": "cpu", "threads": 1, "started_at": 0.0}
    record = Record(cell_id=cell_id(named.cell), seed=1, error_last_pct=7.5, **fields)
    store.put_run(record, curves=None, student=None)

    def search_with(budget):
        plan = make_plan(sweep, store, shortcuts=Shortcuts(search=True, budget=budget))
        return make_search(plan, first_run=0)

    search = search_with(10)
    point = Point("lambda_1", (0,))
    assert (search.budget, search.known[point], len(search.runs[point])) == (9, [7.5], 1)
    assert search_with(1).budget == 0
