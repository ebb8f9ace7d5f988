"""Real runs until a study is decided: in rounds, interrupted, gone on with, extended; and once on Ray."""

import json
import signal

import in_process
import pytest

import hkrun
import hkrun.cluster
from hkrun.cli.program import call

# After eight epochs "still" has not learned anything, and "twin" is the same as "one" to a test image or so.
SPACE = {
    "title": "trial",
    "dataset": "digits",
    "seeds": 10,
    "base": {"student.epochs": 8, "method": "supervised"},
    "analysis": {"window": 2},
    "reference": "one",
    "cells": [
        {"name": "one"},
        {"name": "still", "student.learning_rate": 1e-6},
        {"name": "twin", "student.weight_decay": 2e-4},
    ],
}


def count_runs(study):
    table = study.runs().to_pylist()
    return {name: sum(run["cell"] == name for run in table) for name in ("one", "still", "twin")}


@pytest.fixture(autouse=True)
def store(quick_mirror, undrawn_figures):
    """A store in which MLflow finds its tables, and whose reports draw nothing: neither is looked at."""
    quick_mirror("s")


@pytest.mark.cluster
def test_rounds_come_under_one_start_of_ray(folder):
    handlers = [signal.getsignal(number) for number in (2, 15)]
    starts, rounds = [], []

    def watch(event):
        if event.kind == "phase" and event.phase == "starting Ray":
            starts.append(event)
        if event.kind == "end":
            rounds.append((event.cell, len(event.seeds)))

    study = hkrun.run(SPACE, store="s", until="decided", max_seeds=8, progress=watch)
    assert count_runs(study) == {"one": 8, "still": 6, "twin": 8}
    assert len(starts) == 1
    assert sorted(rounds) == [("one", 2), ("one", 6), ("still", 6), ("twin", 2), ("twin", 6)]
    assert [signal.getsignal(number) for number in (2, 15)] == handlers


def test_seeds_come_in_rounds_until_each_cell_is_decided(folder, capfd, monkeypatch):
    monkeypatch.setattr(hkrun.cluster, "run_tasks", in_process.run_tasks)
    rounds, looks = [], []

    def stop_after_the_first_pack(event):
        if event.kind == "end":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hkrun.run(SPACE, store="s", until="decided", max_seeds=8, progress=stop_after_the_first_pack)

    def watch(event):
        if event.kind == "end":
            rounds.append((event.cell, event.seeds))
        if event.kind == "look":
            looks.append(event)

    study = hkrun.run(SPACE, store="s", until="decided", max_seeds=8, progress=watch)
    assert count_runs(study) == {"one": 8, "still": 6, "twin": 8}
    assert study.progress == "22/22"
    first, later = range(6), (6, 7)
    assert {(cell, tuple(seeds)) for cell, seeds in rounds if set(seeds) & set(first)} < {
        (cell, tuple(first)) for cell in ("one", "still", "twin")
    }, "what was finished before the interruption is not made again"
    assert {(cell, tuple(seeds)) for cell, seeds in rounds if not set(seeds) & set(first)} == {
        ("one", later),
        ("twin", later),
    }
    assert looks[-1].message.startswith("1 of 2 questions decided; open: error of twin against one")
    kept = json.loads((folder / "s/sweeps/trial-digits/looks.json").read_text())["sequential"]
    assert kept["most"] == 8
    assert sorted(kept["decided"].values()) == [6]

    again = hkrun.plan(SPACE, store="s", until="decided", max_seeds=8)
    assert (again.done, again.to_run) == (22, 0)
    more = hkrun.run(SPACE, store="s", until="decided", progress=False)
    assert count_runs(more) == {"one": 10, "still": 6, "twin": 10}
    assert call(["status", "trial", "--store", "s", "--json"]) == 0
    status = json.loads(capfd.readouterr().out)["sweeps"][0]
    assert (status["runs"], status["done"], status["to_run"]) == (26, 26, 0)
    assert call(["resume", "trial", "--store", "s"]) == 0
    assert "Nothing to resume" in capfd.readouterr().out
    whole = hkrun.run(SPACE, store="s", progress=False)
    assert count_runs(whole) == {"one": 10, "still": 10, "twin": 10}
