"""Where a sweep's time went: by fake clocks to the second, through interruptions, and in its report."""

import csv
import dataclasses
import io
import json
import random
import shutil
from types import SimpleNamespace

import pytest
import study_example
from stopped_clock import StoppedClock
from sweep_example import fill_store, make_sweep, put_run
from two_slots import TWO_SLOTS

import hkrun.cluster
import hkrun.sweep.planning
from hkrun.cli.program import call
from hkrun.cluster import TaskResult
from hkrun.errors import Interrupted, StoreError
from hkrun.plans import OVERHEADS, Execution, load_executions, save_executions, save_plan
from hkrun.report import render_report, summarise
from hkrun.report.documents import renew_report
from hkrun.report.run_tables import PART_NAMES
from hkrun.stopwatch import Stopwatch
from hkrun.store import open_store
from hkrun.sweep import time_accounting
from hkrun.sweep.time_accounting import TimeAccounting

pytestmark = pytest.mark.usefixtures("undrawn_figures")

EXECUTION = Execution(
    started_at=1_760_000_000.0,
    slots=2,
    phases={"planning": 3.0, "ray": 7.0, "training": 80.0, "report": 6.0, "mlflow": 4.0},
    teachers={"launch": 2.0, "inputs": 1.0, "epochs": 20.0, "checkpoints": 0.5, "records": 0.5},
    runs={"launch": 4.0, "inputs": 3.0, "table": 10.0, "epochs": 90.0, "checkpoints": 1.5, "progress": 0.5},
)
PARTS = {
    "epochs": 90.0,
    "teacher": 20.0,
    "table": 10.0,
    "start": 2 * 7.0 + 2.0 + 4.0,
    "planning": 6.0,
    "inputs": 4.0,
    "checkpoints": 2.0,
    "progress": 0.5,
    "records": 0.5,
    "report": 12.0,
    "mlflow": 8.0,
    "idle": 2 * 80.0 - 24.0 - 109.0,
}


@pytest.fixture
def clock():
    return StoppedClock()


@pytest.fixture
def sweep():
    return make_sweep(num_cells=1, num_seeds=2)


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("HKRUN_STORE", "MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    return open_store(tmp_path / "hkrun-store")


def make_task(*seeds):
    return SimpleNamespace(name=f"task-{seeds}", seeds=seeds)


TEACHER, FIRST, SECOND = make_task(), make_task(0), make_task(1)


# --- the sums -----------------------------------------------------------------------------------------------


def test_the_parts_of_an_execution_are_the_wall_clock_times_the_slots():
    assert EXECUTION.wall_s == 100.0
    assert EXECUTION.parts == PARTS
    assert sum(EXECUTION.parts.values()) == 200.0
    assert PARTS.keys() == PART_NAMES.keys()
    assert set(OVERHEADS) < PART_NAMES.keys()


def test_every_second_of_an_account_is_in_one_part(sweep, store, clock):
    stopwatch = Stopwatch("planning", clock=clock)
    clock.advance(1)
    with TimeAccounting(sweep, store, slots=2, stopwatch=stopwatch) as kept:
        kept.enter("ray")
        clock.advance(5)
        kept.taken(TEACHER)
        clock.advance(10)
        kept.told(TEACHER, {"inputs": 2.0, "epochs": 5.0})  # its process took 3
        clock.advance(10)
        kept.told(TEACHER, {"inputs": 2.0, "epochs": 14.0, "records": 0.5})  # and a message 0.5
        kept.ended(TEACHER)
        clock.advance(0.25)
        kept.taken(FIRST)
        kept.taken(SECOND)
        clock.advance(20)
        kept.told(FIRST, {"table": 8.0, "epochs": 11.0})
        kept.ended(FIRST)
        clock.advance(4)
        kept.told(SECOND, {"epochs": 24.0})
        kept.ended(SECOND)
        clock.advance(2)
        kept.enter("report")
        clock.advance(3)
        kept.enter("mlflow")
        clock.advance(4)
    (found,) = load_executions(store, sweep)
    assert found.phases == {"planning": 1.0, "ray": 7.25, "training": 44.0, "report": 3.0, "mlflow": 4.0}
    assert found.teachers == {"launch": 3.5, "inputs": 2.0, "epochs": 14.0, "records": 0.5}
    assert found.runs == {"launch": 1.0, "table": 8.0, "epochs": 35.0}
    assert found.parts["idle"] == 20 + 4  # beside the teacher, and beside the second run
    assert sum(found.parts.values()) == 2 * clock.now - 2 * 1000.0


def test_whatever_happens_the_parts_sum_to_the_slots_and_none_is_negative(sweep, store, clock):
    choose = random.Random(5)
    kept = TimeAccounting(sweep, store, slots=3, stopwatch=Stopwatch("planning", clock=clock))
    running = []
    for number in range(300):
        clock.advance(choose.random())
        if len(running) < 3 and choose.random() < 0.5:
            running.append((make_task(number) if choose.random() < 0.9 else TEACHER, clock.now))
            kept.taken(running[-1][0])
        elif running:
            task, since = running.pop(choose.randrange(len(running)))
            kept.told(task, {"epochs": 0.9 * (clock.now - since)})
            if choose.random() < 0.7:
                kept.ended(task)
            else:
                running.append((task, since))
    found = kept.read()
    assert sum(found.parts.values()) == pytest.approx(3 * (clock.now - 1000.0))
    assert all(value >= 0 for value in found.parts.values())


def test_a_task_whose_process_died_keeps_what_it_had_told_and_its_next_try_counts_too(sweep, store, clock):
    kept = TimeAccounting(sweep, store, slots=1, stopwatch=Stopwatch("planning", clock=clock))
    kept.taken(FIRST)
    clock.advance(5)
    kept.told(FIRST, {"epochs": 4.0})
    clock.advance(3)  # the process dies, and the task waits
    kept.taken(FIRST)
    clock.advance(2)
    kept.told(FIRST, {"epochs": 2.0})
    kept.ended(FIRST)
    found = kept.read()
    assert found.runs == {"launch": 1.0, "epochs": 6.0}
    assert found.parts["idle"] == 3.0


def test_a_task_that_never_tells_anything_is_idle_time(sweep, store, clock):
    kept = TimeAccounting(sweep, store, slots=1, stopwatch=Stopwatch("planning", clock=clock))
    kept.taken(FIRST)
    clock.advance(5)
    kept.told(FIRST, {})
    kept.ended(FIRST)
    assert (kept.read().runs, kept.read().parts["idle"]) == ({}, 5.0)


# --- what is kept -------------------------------------------------------------------------------------------


def test_all_executions_are_kept_in_their_order(sweep, store, clock):
    for wall in (3.0, 4.0):
        with TimeAccounting(sweep, store, slots=1, stopwatch=Stopwatch("planning", clock=clock)) as kept:
            kept.taken(FIRST)
            clock.advance(wall)
    assert [found.phases["training"] for found in load_executions(store, sweep)] == [3.0, 4.0]


def test_an_execution_in_which_no_task_had_a_slot_leaves_nothing(sweep, store, clock):
    with TimeAccounting(sweep, store, slots=1, stopwatch=Stopwatch("planning", clock=clock)) as kept:
        clock.advance(5)
        kept.save()
    assert load_executions(store, sweep) == ()
    assert not (store.local_path / "sweeps").exists()


def test_an_account_is_saved_now_and_then_for_a_kill_that_nothing_can_catch(sweep, store, clock):
    kept = TimeAccounting(sweep, store, slots=1, stopwatch=Stopwatch("planning", clock=clock))
    kept.taken(FIRST)
    clock.advance(time_accounting.SAVE_EVERY_S / 2)
    kept.ended(FIRST)
    assert load_executions(store, sweep) == ()
    kept.taken(SECOND)
    clock.advance(time_accounting.SAVE_EVERY_S / 2)
    kept.ended(SECOND)
    assert [found.wall_s for found in load_executions(store, sweep)] == [time_accounting.SAVE_EVERY_S]


def test_a_store_that_is_full_does_not_hide_what_ended_the_sweep(sweep, store, clock, monkeypatch, caplog):
    def refuse(*_):
        raise StoreError("no space left")

    def interrupt():
        with TimeAccounting(sweep, store, slots=1, stopwatch=Stopwatch("planning", clock=clock)) as kept:
            kept.taken(FIRST)
            raise Interrupted("stopped by SIGINT")

    monkeypatch.setattr(time_accounting, "save_executions", refuse)
    with pytest.raises(Interrupted):
        interrupt()
    assert caplog.messages == ["where the time went is not kept: no space left"]


@pytest.mark.parametrize("content", [b"[", b'[{"slots": 2}]', b"3", b'[{"what": 1}]'])
def test_a_file_that_cannot_be_understood_is_warned_of_and_hides_no_results(sweep, store, caplog, content):
    fill_store(store, sweep)
    store.commit(store.sweep_folder(sweep.name, sweep.dataset), {"executions.json": content})
    assert summarise(sweep, store).executions == ()
    (line,) = caplog.messages
    assert line.startswith("where the time went is not known: ")
    assert "executions.json" in line


# --- a sweep ------------------------------------------------------------------------------------------------


@pytest.fixture
def ray(monkeypatch, sweep, store, clock, empty_database):
    """Replaces Ray by one that takes 6 s, and trains each run for 10 s in one of two slots."""
    shutil.copy(empty_database, store.local_path / "mlflow.db")
    ray = SimpleNamespace(ends_after=None)

    def run_tasks(work, observer):
        clock.advance(4)
        for index, task in enumerate(work.tasks):
            observer.taken(index)
            observer.started(index)
            clock.advance(10)
            seconds = {"inputs": 1.0, "epochs": 7.5}
            observer.progress(
                index, {"seed": None, "epoch": 1, "epochs": 1, "error_pct": 3.0, "seconds": seconds}
            )
            if ray.ends_after == index:
                raise Interrupted("stopped by SIGINT")
            if task.seeds:
                put_run(store, sweep.cells[0], task.seeds[0])
            share = {part: value / max(1, len(task.seeds)) for part, value in seconds.items()}
            outcome = {
                "seed": None,
                "status": "finished",
                "error_last_pct": 3.0,
                "epochs": 1,
                "seconds": share,
            }
            observer.done(index, [{**outcome, "seed": seed} for seed in task.seeds or (None,)])
        clock.advance(2)
        return [TaskResult(outcomes=[]) for _ in work.tasks]

    monkeypatch.setattr(hkrun.cluster, "run_tasks", run_tasks)
    monkeypatch.setattr(hkrun.sweep.planning, "find_machine", lambda *_, **__: TWO_SLOTS)
    monkeypatch.setattr(hkrun.sweep.planning, "check_data", lambda _: None)
    monkeypatch.setattr(hkrun.sweep.task_submission, "describe_divergence", lambda *_: "")
    return ray


class Watcher:
    def __getattr__(self, name):
        return lambda *_, **__: None


def run(sweep, store, clock):
    return study_example.run(sweep, store, Watcher(), pack=1, stopwatch=Stopwatch("planning", clock=clock))


def test_a_sweep_accounts_for_its_driver_and_its_tasks(sweep, store, ray, clock):
    outcome = run(sweep, store, clock)
    (found,) = load_executions(store, sweep)
    assert outcome.summary.executions == (found,)
    assert found.slots == 2
    assert found.phases == {"planning": 0.0, "ray": 6.0, "training": 30.0, "report": 0.0, "mlflow": 0.0}
    assert found.teachers == {"launch": 1.5, "inputs": 1.0, "epochs": 7.5}
    assert found.runs == {"launch": 3.0, "inputs": 2.0, "epochs": 15.0}
    assert sum(found.parts.values()) == 2 * 36.0


def test_an_interrupted_sweep_keeps_what_it_had_told(sweep, store, ray, clock):
    ray.ends_after = 1
    with pytest.raises(Interrupted):
        run(sweep, store, clock)
    (found,) = load_executions(store, sweep)
    assert found.phases == {"planning": 0.0, "ray": 4.0, "training": 20.0}
    assert (found.teachers["epochs"], found.runs["epochs"]) == (7.5, 7.5)
    ray.ends_after = None
    run(sweep, store, clock)
    first, second = load_executions(store, sweep)
    assert first == found
    assert second.phases["ray"] == 6.0


def read_files(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "driver.lock"}


def read_times(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.name != "driver.lock"}


def test_a_sweep_that_trained_and_is_asked_for_again_writes_nothing(sweep, store, ray, clock, monkeypatch):
    def save_slowly(*arguments):
        save_executions(*arguments)
        clock.advance(0.02)

    monkeypatch.setattr(time_accounting, "save_executions", save_slowly)
    run(sweep, store, clock)
    folder = store.local_path / "sweeps" / "stability-digits"
    before = read_times(folder)
    run(sweep, store, clock)
    assert read_times(folder) == before


def test_the_account_of_a_study_holds_what_it_trained_alone_though_others_share_its_runs(
    sweep, store, ray, clock
):
    def run_as(name, wanted):
        stopwatch = Stopwatch("planning", clock=clock)
        study_example.run(wanted, store, Watcher(), pack=1, stopwatch=stopwatch, name=name)
        return load_executions(store, dataclasses.replace(wanted, name=name))

    run(sweep, store, clock)
    first = load_executions(store, sweep)
    more = dataclasses.replace(sweep, seeds=(*sweep.seeds, 7))
    (own,) = run_as("more", more)
    assert own.runs["epochs"] == 7.5, "that of seed 7; the others were there"
    assert own.started_at >= first[0].started_at
    assert run_as("same", sweep) == (), "it trained nothing, so no time is its own"
    assert load_executions(store, sweep) == first
    assert summarise(dataclasses.replace(more, name="more"), store).executions == (own,)


# --- the report ---------------------------------------------------------------------------------------------


def read_table(summary):
    rows = csv.DictReader(io.StringIO(render_report(summary)["report.csv"].decode()))
    return {row["row"]: row for row in rows if row["table"] == "executions" and row["column"] != "Share"}


def test_the_report_shows_each_part_and_the_share_of_overheads(sweep, store):
    fill_store(store, sweep)
    save_executions(store, sweep, [EXECUTION, EXECUTION])
    summary = summarise(sweep, store)
    rows = read_table(summary)
    assert {name: float(rows[PART_NAMES[name]]["value"]) for name in PARTS} == {
        name: 2 * value for name, value in PARTS.items()
    }
    assert float(rows["All: 2 executions"]["value"]) == 400.0
    text = render_report(summary)["report.md"].decode()
    # 20 + 6 + 4 + 2 + 0.5 + 0.5 + 12 + 8 of 200
    assert "Time: 3.3 min in 2 executions; overhead 26.5 % of the wall clock, idle slots 13.5 %." in text
    assert "| Epochs of runs | 180.0 | 45.0 % |" in text
    for name in ("report.html", "report.tex"):
        assert "Where the time went" in render_report(summary)[name].decode()


def test_what_came_after_the_report_is_shown_by_the_next_one(sweep, store, capsys):
    fill_store(store, sweep)
    save_plan(store, sweep)
    save_executions(store, sweep, [EXECUTION.before_report()])
    renew_report(summarise(sweep, store), store)
    folder = store.local_path / "sweeps" / "stability-digits"
    text = (folder / "report.md").read_text()
    assert "| Report | \N{EN DASH} | \N{EN DASH} |" in text
    save_executions(store, sweep, [EXECUTION])
    before = read_files(folder)
    renew_report(summarise(sweep, store), store)
    assert read_files(folder) == before
    assert call(["report", "stability"]) == 0
    assert "Time: 100 s in 1 execution; overhead 26.5 %" in capsys.readouterr().out
    assert "| Report | 12.0 | 6.0 % |" in (folder / "report.md").read_text()
    before = read_files(folder)
    assert call(["report", "stability"]) == 0
    assert read_files(folder) == before


def test_another_execution_is_news(sweep, store):
    fill_store(store, sweep)
    save_plan(store, sweep)
    folder = store.local_path / "sweeps" / "stability-digits"
    save_executions(store, sweep, [EXECUTION])
    renew_report(summarise(sweep, store), store)
    before = read_files(folder)
    later = dataclasses.replace(EXECUTION, started_at=EXECUTION.started_at + 3600)
    save_executions(store, sweep, [EXECUTION, later])
    renew_report(summarise(sweep, store), store)
    assert read_files(folder)["report.md"] != before["report.md"]


def test_a_store_that_kept_no_executions_has_a_report_without_them(sweep, store):
    fill_store(store, sweep)
    files = render_report(summarise(sweep, store))
    for name in ("report.html", "report.md", "report.tex", "report.csv"):
        assert "Where the time went" not in files[name].decode()
        assert "executions" not in files[name].decode()


def test_what_is_kept_is_plain_json(sweep, store):
    save_executions(store, sweep, [EXECUTION])
    document = json.loads(store.read(store.sweep_folder(sweep.name, sweep.dataset), "executions.json"))
    assert document == [dataclasses.asdict(EXECUTION)]
    assert load_executions(store, sweep) == (EXECUTION,)
