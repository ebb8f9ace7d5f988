"""`hkrun status --watch`: looks again and again, and ends when no driver works any more."""

import io
import json
import os
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from sweep_example import make_sweep, put_run

from hkrun.cli import watching
from hkrun.cli.console import PlainConsole
from hkrun.cli.program import call
from hkrun.config import cell_id
from hkrun.plans import Looks, SequentialPlan, save_looks, save_plan
from hkrun.store import PATIENCE_S, open_store

FOLDER = "sweeps/stability-digits"


def driver(beat=1, *, alive=True):
    return {"pid": 7, "host": "gpu-3", "since": "2026-11-29T12:00:00+00:00", "beat": beat, "alive": alive}


def found(**changes):
    cell = {
        "cell_id": "c",
        "name": "L_b",
        "runs": 4,
        "done": 0,
        "failed": [],
        "diverged": [],
        "unfinished": [],
    }
    study = {
        "sweep": "stability",
        "dataset": "digits",
        "runs": 4,
        "done": 0,
        "to_run": 4,
        "cells": [cell],
        "phase": "training",
        "phase_seconds": 31.0,
        "phase_detail": "",
        "phase_share": None,
        "epochs_done": 18,
        "epochs_total": 48,
        "eta_seconds": 65.0,
        "driver": driver(),
    }
    return study | changes


class Told(SimpleNamespace):
    """An invocation whose lines are kept."""

    def __init__(self, *, terminal=False, width=80):
        self.written = io.StringIO()
        super().__init__(
            results=PlainConsole(file=self.written, force_terminal=terminal, width=width, color_system=None),
            lines=[],
        )

    def say(self, line):
        self.lines.append(line)


def play(told, *looks, every_s=2.0):
    """Watches a study that is found to be like this at each look; returns the pauses."""
    pauses, left = [], list(looks)
    code = watching.watch(told, lambda: [left.pop(0)], every_s=every_s, pause=pauses.append)
    assert (code, left) == (0, [])
    return pauses


DONE = found(phase="done", done=4, to_run=0, epochs_done=48, eta_seconds=None, driver=None)


def test_without_a_terminal_there_is_a_line_for_each_change_and_it_ends_with_the_study():
    told = Told()
    starting = found(phase="starting Ray", phase_seconds=1.0, epochs_done=0, eta_seconds=70.0)
    teacher = found(phase="training the teacher", phase_detail="epoch 6", phase_share=0.1, epochs_done=0)
    further = teacher | {"phase_detail": "epoch 12", "phase_share": 0.2, "eta_seconds": 66.0}
    same = found(eta_seconds=63.0)
    pauses = play(told, starting, starting, teacher, further, found(), same, found(epochs_done=24), DONE)
    assert pauses == [2.0] * 7
    lines = [line.partition(" ")[2].removeprefix("stability on digits: ") for line in told.lines[:-1]]
    assert lines == [
        "starting Ray, 0/4 runs done, 0/48 epochs, 0 %, about 1:10 min left",
        "training the teacher (epoch 6), 0/4 runs done, 0/48 epochs, 0 %, about 1:05 min left",
        "training the teacher (epoch 12), 0/4 runs done, 0/48 epochs, 0 %, about 1:05 min left",
        "training, 0/4 runs done, 18/48 epochs, 37 %, about 1:05 min left",
        "training, 0/4 runs done, 24/48 epochs, 50 %, about 1:05 min left",
        "done, 4/4 runs done, 48/48 epochs, 100 %",
    ]
    assert told.lines[-1] == "stability on digits: done, 4 runs"


def test_it_ends_where_the_driver_has_gone_and_says_how_to_go_on():
    told = Told()
    play(told, found(), found(phase="not running", driver=None, eta_seconds=None))
    assert told.lines[-1] == (
        "stability on digits: no driver works on it, 4 of 4 runs are missing; hkrun resume stability goes on"
    )


def test_a_driver_elsewhere_counts_as_gone_when_its_beat_stands_still_as_for_another_driver():
    clock = SimpleNamespace(now=1000.0)
    watch = watching.Watch(lambda: clock.now)
    elsewhere = {"driver": driver(1, alive=None)}
    assert watch.look(found(**elsewhere))["driver"] is not None
    clock.now += PATIENCE_S
    assert watch.look(found(**elsewhere))["driver"] is not None
    clock.now += 1.0
    gone = watch.look(found(**elsewhere))
    assert (gone["driver"], gone["phase"], gone["eta_seconds"]) == (None, "not running", None)
    assert watch.look(found(driver=driver(2, alive=None)))["driver"] is not None  # it works again
    clock.now += 500.0
    assert watch.look(found(driver=driver(2, alive=True)))["driver"] is not None  # here it would be seen


def test_the_time_left_goes_on_between_two_words_of_the_driver_and_is_never_negative():
    clock = SimpleNamespace(now=0.0)
    watch = watching.Watch(lambda: clock.now)
    left = []
    for now, beat, told in (
        (0.0, 1, 20.0),
        (4.0, 1, 20.0),
        (10.0, 2, 13.0),
        (12.0, 2, 13.0),
        (40.0, 2, 13.0),
    ):
        clock.now = now
        left.append(watch.look(found(driver=driver(beat), eta_seconds=told))["eta_seconds"])
    assert left == [20.0, 16.0, 13.0, 11.0, 0.0]


def test_looks_that_take_long_are_as_far_apart():
    told = Told()
    looks = [found(), DONE]

    def look():
        time.sleep(0.2)
        return [looks.pop(0)]

    pauses = []
    watching.watch(told, look, every_s=0.01, pause=pauses.append)
    assert 0.2 <= pauses[0] < 5.0


@pytest.mark.parametrize("width", [60, 80, 120])
def test_on_a_terminal_it_shows_phase_bar_and_cells_within_its_width(width):
    long = "a configuration of many words that differs only at its end, with weight"
    cells = [
        {
            "cell_id": str(number),
            "name": f"{long} {number}",
            "runs": 20,
            "done": 2,
            "failed": [3],
            "diverged": [4, 5],
            "unfinished": [{"seed": seed, "epoch": 80 + seed % 2, "epochs": 120} for seed in range(15)],
        }
        for number in (1, 10)
    ]
    told = Told(terminal=True, width=width)
    told.results.print(watching.render(found(cells=cells, runs=40, done=4), width))
    lines = [line.rstrip() for line in told.written.getvalue().splitlines()]
    assert max(map(len, lines)) <= width
    assert lines[0].startswith("stability on digits")
    assert lines[1].split() == ["Training", "31", "s", "about", "1:05", "min", "left"]
    assert set(lines[2]) <= set("━╸╺ ")
    assert lines[3] == "4/40 runs done, 2 failed, 4 diverged, 18/48 epochs"
    for line in lines[4:6]:
        assert "…" in line
        assert line.endswith("2/20  1 failed, 2 diverged, 15 at 80-81/120")


def test_on_a_terminal_the_last_look_stays_on_the_screen():
    told = Told(terminal=True, width=80)
    play(told, found(), DONE)
    assert "4/4 runs done" in told.written.getvalue()
    assert told.lines == ["stability on digits: done, 4 runs"]


def test_what_cannot_be_watched_is_refused(store, capsys):
    for arguments, problem in (
        (["--watch", "--json"], "--watch: not with --json"),
        (["--watch", "--address", "http://localhost:1"], "--watch: not with --address"),
        (["--watch", "0"], "0 is not in the range 1<=x<=3600"),
        (["--watch", "5000"], "5000 is not in the range"),
        (["--watch=soon"], "'soon' is not a valid"),
        (["nothing", "--watch"], "nothing: no such study"),
    ):
        assert call(["status", *arguments]) == 2
        assert problem in "".join(capsys.readouterr())


@pytest.mark.parametrize(
    "arguments", [["stability", "--watch"], ["--watch", "stability"], ["--watch", "1"], ["--watch"]]
)
def test_a_study_that_nobody_works_on_is_shown_once(store, capsys, arguments):
    assert call(["status", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("stability on digits: done, 12/12 runs done, 144/144 epochs, 100 %")
    assert lines[1:] == ["stability on digits: done, 12 runs"]


def test_ctrl_c_ends_it_in_a_line(store, capsys, monkeypatch):
    def interrupt(_seconds):
        raise KeyboardInterrupt

    monkeypatch.setattr(watching.time, "sleep", interrupt)
    monkeypatch.setattr(watching.watch, "__kwdefaults__", {"pause": interrupt})
    with store.hold(FOLDER):
        assert call(["status", "--watch"]) == 75
    output = capsys.readouterr()
    assert output.err.splitlines() == ["hkrun: interrupted; what is finished is kept"]


DRIVER = """
import sys, time
from hkrun.store import lock, open_store
lock.TELL_EVERY_S = 0.1
lock.HEARTBEAT_S = float(sys.argv[2])
lock.ObjectSlot.tell_every_s = 0.1
store = open_store(sys.argv[1])
with store.hold("sweeps/stability-digits"):
    print("held", flush=True)
    for epoch in range(3):
        store.tell("sweeps/stability-digits", {
            "phase": "training", "phase_seconds": 1.0 * epoch, "detail": "", "epochs_done": 12 * epoch,
            "epochs_total": 48, "runs_training": 4, "eta_seconds": 9.0 - epoch})
        sys.stdin.readline()
"""


def test_status_tells_the_questions_of_a_study_in_rounds_while_no_driver_works_on_it(store, document, capsys):
    sweep = make_sweep(num_cells=2, num_seeds=8)
    save_plan(store, sweep)
    for named in sweep.cells:
        for seed in range(6):
            put_run(store, named, seed)
    assert document("status")[1]["sweeps"][0]["questions"] is None  # it came at once
    save_plan(store, sweep, until_decided=True)
    save_looks(store, sweep, Looks(plan=SequentialPlan(most=8)))
    questions = document("status")[1]["sweeps"][0]["questions"]
    assert questions["answers"][0] == {"question": "error of L_b + L_is against L_b", "answer": None}
    assert call(["status"]) == 0
    assert questions["about"] in " ".join(capsys.readouterr().out.split())


def test_status_tells_what_the_driver_of_a_study_does_and_changes_nothing(store, document, capsys):
    sweep = make_sweep(num_cells=1, num_seeds=5)
    save_plan(store, sweep)
    identity = cell_id(sweep.cells[0].cell)
    store.commit(f"{store.run_folder(identity, 3)}/checkpoints", {"epoch-000004.pt": b""})
    _, told = document("status")
    study = told["sweeps"][0]
    assert {
        name: study[name] for name in ("phase", "epochs_done", "epochs_total", "eta_seconds", "driver")
    } == {
        "phase": "not running",
        "epochs_done": 3 * 12 + 4,
        "epochs_total": 5 * 12,
        "eta_seconds": None,
        "driver": None,
    }
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, store.uri, "10"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
    )
    with process:
        assert process.stdout.readline() == "held\n"
        deadline = time.monotonic() + 30.0
        while study["phase"] != "training" and time.monotonic() < deadline:
            time.sleep(0.05)  # the driver needs a processor too
            _, told = document("status")
            study = told["sweeps"][0]
        assert (study["phase"], study["epochs_done"], study["epochs_total"]) == ("training", 40, 48)
        assert study["eta_seconds"] == 9.0
        assert study["driver"]["pid"] == process.pid
        assert study["driver"]["alive"] is True
        lock = store.local_path / FOLDER / "driver.lock"
        before = json.loads(lock.read_text())
        assert call(["status"]) == 0
        assert f"training, 3/5 runs done, 40/48 epochs, 83 %, about 9 s left (process {process.pid} on" in (
            " ".join(capsys.readouterr().out.split())
        )
        assert json.loads(lock.read_text()) == before
        process.kill()
    _, told = document("status")
    assert (told["sweeps"][0]["phase"], told["sweeps"][0]["driver"]) == ("not running", None)


@pytest.mark.slow
def test_a_study_on_s3_is_followed_to_its_end_without_a_write(folder, s3_server, capsys):
    store = open_store(s3_server.place().full_uri)
    save_plan(store, make_sweep(num_cells=1, num_seeds=1))
    command = [sys.executable, "-c", DRIVER, store.uri, "0.5"]
    environment = {**os.environ, "PYTHONPATH": ":".join(sys.path)}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout.readline() == "held\n"
        before = len(s3_server.requests())
        threading.Timer(4.0, lambda: process.communicate("\n\n\n")).start()
        assert call(["status", "--watch", "1", "--store", store.uri]) == 0
    changes = [line for line in s3_server.requests()[before:] if not line.startswith(("GET ", "HEAD "))]
    assert {line.partition("?")[0].rpartition("/")[2] for line in changes} <= {"driver.lock"}  # the driver's
    lines = capsys.readouterr().out.splitlines()
    assert any("stability on digits: training, 0/1 runs done, " in line and "left" in line for line in lines)
    assert lines[-1].endswith(
        "no driver works on it, 1 of 1 runs are missing; hkrun resume stability goes on"
    )
