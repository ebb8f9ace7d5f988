"""What a task spends its time on, by a clock that only the parts of the task advance."""

import dataclasses
from pathlib import Path

import pytest
from stopped_clock import StoppedClock
from task_example import make_task

from hkrun.stopwatch import Stopwatch
from hkrun.store import Store, open_store
from hkrun.trial import inputs, progress, teacher_task
from hkrun.trial import run as running
from hkrun.trial.run import run_task
from loop.test_trial import make_cell

INPUTS, TABLE, EPOCH, CHECKPOINT, PROGRESS, RECORD, FAILURE = 1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0


class Listener:
    """A context that takes its time to listen, and remembers."""

    rank, world_size = 0, 1

    def __init__(self, clock):
        self.clock, self.heard = clock, []

    def report(self, progress):
        self.heard.append(dict(progress))
        self.clock.advance(PROGRESS)


@pytest.fixture
def clock(monkeypatch):
    """What takes how long; checkpoints and progress come after every epoch."""
    clock = StoppedClock()

    def slow(module, name, seconds):
        original = getattr(module, name)

        def take(*args, **kwargs):
            clock.advance(seconds)
            return original(*args, **kwargs)

        monkeypatch.setattr(module, name, take)

    monkeypatch.setattr(running, "Stopwatch", lambda part: Stopwatch(part, clock=clock))
    monkeypatch.setattr(progress, "CHECKPOINT_EVERY_S", 0.0)
    monkeypatch.setattr(progress, "REPORT_EVERY_S", 0.0)
    for module in (running, teacher_task):
        slow(module, "load_sets", INPUTS)
    slow(running, "load_teachers", TABLE)
    slow(progress.Watch, "epoch_done", EPOCH)
    slow(running, "save_checkpoint", CHECKPOINT)
    slow(teacher_task, "save_teacher_checkpoint", CHECKPOINT)
    slow(Store, "put_run", RECORD)
    slow(Store, "put_teacher", RECORD)
    return clock


@pytest.fixture
def listener(clock):
    return Listener(clock)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    inputs.load_teacher.cache_clear()
    return open_store(tmp_path / "store")


def test_each_part_of_a_task_has_its_own_seconds_and_each_run_an_equal_share(store, clock, listener):
    cell = make_cell()
    (teacher,) = run_task(make_task(store, cell), listener)
    epochs = cell.teacher.epochs
    assert teacher["seconds"] == {
        "inputs": INPUTS,
        "epochs": epochs * EPOCH,
        "checkpoints": (epochs - 1) * CHECKPOINT,
        "progress": epochs * PROGRESS,
        "records": RECORD,
    }
    before, epochs = clock.now, cell.student.epochs
    outcomes = run_task(make_task(store, cell, 0, 1), listener)
    whole = {
        "inputs": INPUTS + TABLE,  # no table is filled ahead
        "epochs": epochs * EPOCH,
        "checkpoints": (epochs - 1) * 2 * CHECKPOINT,
        "progress": epochs * PROGRESS,
        "records": 2 * RECORD,
    }
    assert clock.now - before == sum(whole.values())
    assert [outcome["seconds"] for outcome in outcomes] == [
        {part: seconds / 2 for part, seconds in whole.items()}
    ] * 2


def test_a_table_that_is_filled_ahead_has_seconds_of_its_own(store, clock, listener):
    cell = make_cell()
    run_task(make_task(store, cell), listener)
    inputs.load_teacher.cache_clear()
    (outcome,) = run_task(dataclasses.replace(make_task(store, cell, 0), table="ahead"), listener)
    assert outcome["seconds"]["table"] == TABLE
    assert outcome["seconds"]["inputs"] == INPUTS


def test_progress_tells_the_seconds_so_far(store, clock, listener):
    run_task(make_task(store, make_cell()), listener)
    first = listener.heard[0]["seconds"]
    assert first == {"inputs": INPUTS, "epochs": EPOCH, "checkpoints": CHECKPOINT, "progress": 0.0}
    assert listener.heard[1]["seconds"]["progress"] == PROGRESS


def test_a_failing_run_has_its_time_too(store, clock, listener, monkeypatch):
    cell = make_cell()
    run_task(make_task(store, cell), listener)

    def fail(*_args, **_kwargs):
        clock.advance(FAILURE)
        raise ValueError("wrong")

    monkeypatch.setattr(running, "distill", fail)
    (outcome,) = run_task(make_task(store, cell, 0), listener)
    assert outcome["status"] == "failed"
    assert outcome["seconds"] == {"inputs": INPUTS + TABLE, "epochs": FAILURE, "records": RECORD}
