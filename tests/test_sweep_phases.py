"""What a driver tells of its phases: to the one who watches, and to all who can read the store."""

from types import SimpleNamespace

import pytest
from study_example import make_study, plan_on
from sweep_example import make_sweep
from task_example import make_task

from hkrun.plans import Look, SequentialPlan, load_looks
from hkrun.store import open_store
from hkrun.sweep import Phase, task_submission
from hkrun.sweep.announcing import AnnouncingObserver
from hkrun.sweep.rehearsing import _RehearsalObserver
from hkrun.sweep.task_submission import TaskObserver


class Recorder:
    """An observer that keeps what it is told, by method and first argument."""

    def __init__(self):
        self.told = []

    def __getattr__(self, method):
        return lambda *arguments, **_: self.told.append((method, arguments[0]))

    @property
    def phases(self):
        return [what for method, what in self.told if method == "entered"]


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "store")


@pytest.fixture
def study(store):
    return make_study(make_sweep(num_seeds=8), store)


def outcome(seed, *, epochs=12):
    return {"seed": seed, "status": "finished", "error_last_pct": 3.0, "epochs": epochs, "message": ""}


@pytest.fixture
def tasks(store):
    cell = make_sweep().cells[0].cell
    return [make_task(store, cell), make_task(store, cell, 0), make_task(store, cell, 1)]


def play(watcher):
    """A teacher, then two runs beside each other."""
    watcher.taken(0)
    watcher.taken(1)
    watcher.started(0)
    watcher.done(0, [outcome(None, epochs=600)])
    watcher.taken(1)
    watcher.started(1)
    watcher.started(2)
    watcher.done(1, [outcome(0)])
    watcher.failed(2, "its process died")


def test_the_phases_of_tasks_come_in_order_and_each_once(study, tasks):
    recorder = Recorder()
    play(TaskObserver(tasks, study, recorder))
    assert recorder.phases == [Phase.RAY, Phase.PROCESSES, Phase.TEACHER, Phase.LOADING, Phase.ENDING]
    assert [method for method, _ in recorder.told].index("started") == 3  # in its phase


def test_a_teacher_that_trains_beside_runs_is_no_phase_of_its_own(study, tasks):
    recorder = Recorder()
    watcher = TaskObserver(tasks, study, recorder)
    for index in (1, 0, 2):
        watcher.taken(index)
        watcher.started(index)
    assert recorder.phases == [Phase.RAY, Phase.PROCESSES, Phase.LOADING]


def test_the_report_is_imported_once_something_trains_and_not_beside_what_it_would_delay(
    study, tasks, monkeypatch
):
    imported = []
    monkeypatch.setattr(task_submission, "preload_report", lambda: imported.append("report"))
    watcher = TaskObserver(tasks, study, Recorder())
    watcher.taken(0)
    watcher.started(0)
    assert imported == []
    watcher.progress(0, {"epoch": 1})
    assert imported == ["report"]


def test_a_rehearsal_is_called_one(study, tasks):
    recorder = Recorder()
    play(_RehearsalObserver(tasks, study, recorder))
    assert recorder.phases[-2:] == [Phase.REHEARSAL, Phase.ENDING]


def test_a_look_keeps_what_has_ended_and_one_without_open_questions_is_the_end(store, study, tasks):
    recorder = Recorder()
    watcher = TaskObserver(tasks, study, recorder)
    play(watcher)
    first = Look(needs=(frozenset(("ref", "b")),), seeds={"ref": 6, "a": 6, "b": 6})
    watcher.looked(first)
    assert recorder.told[-1] == ("looked", first)
    assert load_looks(store, study.sweep).plan == SequentialPlan(most=8, decided={"a": 6})
    last = Look(needs=(), seeds={"ref": 8, "a": 6, "b": 8})
    watcher.looked(last)
    assert load_looks(store, study.sweep).plan == SequentialPlan(most=8, decided=last.seeds)
    assert recorder.phases[-1] == Phase.ENDING


def test_what_is_passed_on_is_told_with_the_hold_at_once_or_now_and_then(store, tasks):
    recorder, clock, told = Recorder(), SimpleNamespace(now=0.0), []
    holding = SimpleNamespace(tell=lambda folder, document: told.append((clock.now, folder, document)))
    observer = AnnouncingObserver(recorder, holding, "sweeps/s-digits", clock=lambda: clock.now)
    plan = plan_on(make_sweep(num_cells=1, num_seeds=1), store)
    task = tasks[1]
    observer.plan_made(plan, slots=1)
    observer.entered(Phase.RAY)
    clock.now = 1.5
    observer.entered(Phase.LOADING)
    observer.started(task)
    for epoch in range(1, 13):
        clock.now += 0.25
        observer.progressed(
            task, {"epoch": epoch, "epochs": 12, "epochs_done": epoch, "epochs_total": 12, "error_pct": 5.0}
        )
    observer.ended(task, [outcome(0)])
    assert [method for method, _ in recorder.told] == [
        "plan_made", "entered", "entered", "started", *["progressed"] * 12, "ended"
    ]  # fmt: skip
    assert {folder for _, folder, _ in told} == {"sweeps/s-digits"}
    assert [(now, document["phase"], document["epochs_done"]) for now, _, document in told] == [
        (0.0, "starting Ray", 0),
        (1.5, "loading data", 0),
        (2.5, "training", 4),
        (3.5, "training", 8),
        (4.5, "training", 12),
        (4.5, "training", 12),
    ]
