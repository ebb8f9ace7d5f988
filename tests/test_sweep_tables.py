"""What the tasks of a sweep are told of the teacher's table, and what the user is when it does not fit."""

import shutil
from collections import namedtuple
from pathlib import Path

import pytest
from study_example import make_study
from two_slots import TWO_SLOTS

import hkrun.cluster
from hkrun.cli.program import call
from hkrun.cluster import TaskList
from hkrun.plans import Plan
from hkrun.spaces import load_sweep
from hkrun.store import Store, open_store
from hkrun.sweep import Phase, running
from hkrun.trial import Task


class SentError(Exception):
    """The tasks are on their way."""


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Task]:
    """Catches the tasks where they would be sent to the cluster."""
    caught: list[Task] = []

    def catch(work: TaskList, _: object) -> None:
        caught.extend(work.tasks)
        raise SentError

    monkeypatch.setattr(hkrun.cluster, "run_tasks", catch)
    return caught


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(tmp_path / "store")


class Silent:
    """An observer that says nothing."""

    def plan_made(self, plan: Plan, *, slots: int) -> None:
        """Says nothing."""

    def entered(self, phase: Phase) -> None:
        """Says nothing."""


def send(store: Store, *overrides: str, seeds: str = "20") -> None:
    sweep = load_sweep("stability", seeds=seeds, overrides=overrides)
    with pytest.raises(SentError):
        running._train(make_study(sweep, store, machine=TWO_SLOTS), Silent())  # type: ignore[arg-type]


def test_runs_are_told_to_fill_ahead_what_all_of_them_will_ask(store: Store, sent: list[Task]) -> None:
    send(store)
    runs = [task for task in sent if task.seeds]
    assert {task.table for task in runs} == {"ahead"}
    assert {task.table_parts for task in runs} == {("knowledge", "logits")}


def test_a_short_sweep_fills_its_table_as_it_goes(store: Store, sent: list[Task]) -> None:
    send(store, "student.epochs=1", "student.warmup_epochs=0", seeds="2")
    assert {task.table for task in sent} == {"first_use"}


def test_a_sweep_with_live_teachers_fills_nothing(store: Store, sent: list[Task]) -> None:
    send(store, "teacher_table=off")
    assert {(task.table, task.table_parts) for task in sent} == {("first_use", ())}


def test_a_table_that_does_not_fit_is_said_before_the_runs(
    store: Store, sent: list[Task], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    send(store)
    assert caplog.text == ""
    usage = namedtuple("usage", ["total", "used", "free"])(0, 0, 10**6)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    send(store)
    (line,) = caplog.messages
    assert line.startswith("Teacher table of ")
    assert line.endswith("does not fit on the disk, the teacher runs live")


def test_a_dry_run_says_when_the_table_is_filled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(["sweep", "stability", "--dry-run"]) == 0
    assert (
        "filled before the runs where it is not there yet, 9 views of each image, 0.5 MB"
        in capsys.readouterr().out
    )
    assert call(["sweep", "stability", "--dry-run", "teacher_table=off"]) == 0
    assert "runs live for L_b" in capsys.readouterr().out
