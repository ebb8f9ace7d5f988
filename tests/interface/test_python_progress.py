"""What a function of the user's is told of a study, and what becomes of its own mistakes."""

import logging
import re
import sys
from types import ModuleType, SimpleNamespace

import pytest
from study_example import plan_on
from sweep_example import make_sweep

import hkrun
from hkrun.config import cell_id
from hkrun.errors import ClusterLostError, Interrupted
from hkrun.interface import calling
from hkrun.interface.progress import CallbackObserver, watch
from hkrun.sweep import Phase

PLAN = plan_on(make_sweep(), None, slots=2, sizes={cell_id(named.cell): 3 for named in make_sweep().cells})


def outcome(seed, status, message=""):
    return {"seed": seed, "status": status, "epochs": 12, "message": message}


@pytest.fixture
def task():
    named = make_sweep().cells[1]
    return SimpleNamespace(
        cell_id=cell_id(named.cell),
        cell=named.cell,
        seeds=(0, 1, 2),
        name="task",
        teacher_seeds=(),
        teachers=("t",),
    )


def test_events_tell_what_happens_to_which_runs_and_count_them(task):
    events = []
    observer = CallbackObserver(events.append)
    observer.note("a sentence")
    observer.plan_made(PLAN, slots=2)
    observer.entered(Phase.TRAINING)
    observer.started(task)
    observer.progressed(task, {"epoch": 3, "epochs": 12, "error_pct": 4.5})
    observer.progressed(task, {"filled": 0.5})
    statuses = (("finished", ""), ("diverged", "not finite"), ("failed", "x"))
    observer.ended(task, [outcome(seed, *status) for seed, status in enumerate(statuses)])
    observer.failed(task, "its process died")
    assert [event.kind for event in events] == [
        "note",
        "plan",
        "phase",
        "start",
        "progress",
        "progress",
        "end",
        "end",
    ]
    assert events[0].message == "a sentence"
    assert (events[1].total, events[1].done, events[1].phase) == (12, 0, "planning")
    assert (events[3].cell, events[3].seeds, events[3].phase) == ("L_b + L_is", (0, 1, 2), "training")
    assert (events[4].epoch, events[4].epochs, events[4].error_pct) == (3, 12, 4.5)
    assert (events[1].epochs_done, events[4].epochs_done, events[4].epochs_total) == (0, 9, 144)
    assert (events[6].done, events[6].failed, events[6].diverged) == (2, 1, 1)
    assert events[6].message == "seed 1: diverged: not finite\nseed 2: failed: x"
    assert (events[7].done, events[7].failed, events[7].message) == (2, 4, "its process died")


def test_a_teacher_is_no_run(task):
    events = []
    observer = CallbackObserver(events.append)
    task.seeds = ()
    observer.started(task)
    observer.ended(task, [outcome(None, "finished")])
    assert (events[-1].cell, events[-1].seeds, events[-1].done) == ("", (), 0)


def test_a_function_that_fails_is_named_once_and_stops_nothing(task, caplog):
    def fail(event):
        raise RuntimeError("no such widget")

    observer = CallbackObserver(fail)
    with caplog.at_level(logging.WARNING, logger="hkrun"):
        observer.entered(Phase.TRAINING)
        observer.started(task)
    (record,) = caplog.records
    assert "RuntimeError('no such widget')" in record.getMessage()


def test_a_function_stops_the_study_by_a_keyboard_interrupt(task):
    def stop(event):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        CallbackObserver(stop).started(task)


def test_without_progress_nothing_is_printed(task, capsys):
    with watch(False, title="x", notes=["a sentence"]) as observer:
        observer.plan_made(PLAN, slots=2)
        observer.entered(Phase.TRAINING)
    assert capsys.readouterr() == ("", "")


def test_elsewhere_than_in_a_notebook_the_progress_is_that_of_the_command(task, capsys):
    with watch(True, title="Stability", notes=["a sentence"]) as observer:
        observer.plan_made(PLAN, slots=2)
    told = capsys.readouterr().err
    assert told.startswith("a sentence\n")
    assert "Stability: 12 of 12 runs to train" in told


class Output:
    """What `IPython.display.display` returns, and what it was given to show."""

    def __init__(self):
        self.shown = []

    def update(self, html):
        self.shown.append(html._repr_html_())


@pytest.fixture
def output(monkeypatch):
    """A kernel's output, in place of a terminal."""
    found = Output()

    def display(html, *, display_id):
        found.update(html)
        return found

    shell = SimpleNamespace(kernel=object())
    modules = {"IPython": {"get_ipython": lambda: shell}, "IPython.display": {"display": display}}
    for name, members in modules.items():
        module = ModuleType(name)
        vars(module).update(members)
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("hkrun.interface.notebook.REFRESH_S", 0.01)
    return found


def test_a_notebook_shows_one_output_that_is_renewed_and_ends_with_the_lines(task, output, capsys):
    with watch(True, title="<b>Mine</b>", notes=["<script>"]) as observer:
        first = output.shown[0]
        observer.plan_made(PLAN, slots=2)
        observer.entered(Phase.TRAINING)
        observer.started(task)
        observer.progressed(task, {"epoch": 3, "epochs": 12, "error_pct": 4.5})
        while "epoch 3 of 12" not in output.shown[-1]:
            pass
        live = output.shown[-1]
        observer.failed(task, "its process died")
    assert "Planning  0 s" in re.sub(r"<[^>]+>", "", first), "the clock of a phase begins with the display"
    assert "L_b + L_is, seeds 0-2" in live
    assert "4.50 % error" in live
    assert not any("<script" in html or "<b>" in html for html in output.shown)
    last = re.sub(r"<[^>]+>", "\n", output.shown[-1])
    assert "&lt;script&gt;" in last
    assert "L_b + L_is, 3 seeds from 0 to 2: failed: its process died" in last
    assert "after 0 s" in last
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (Interrupted("stopped by SIGINT; what is finished is kept"), KeyboardInterrupt),
        (KeyboardInterrupt("SIGINT"), KeyboardInterrupt),
        (ClusterLostError("Ray's raylet has ended"), hkrun.ClusterLostError),
    ],
)
def test_an_interrupt_is_pythons_and_a_lost_cluster_is_not(files, monkeypatch, raised, expected):
    def run_study(*_):
        raise raised

    monkeypatch.setattr(calling, "run_study", run_study)
    with pytest.raises(expected, match=str(raised).partition(";")[0]):
        hkrun.run("stability", seeds=1, store="hkrun-store", progress=False)
