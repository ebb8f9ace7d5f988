import dataclasses
import os
import tomllib
from pathlib import Path

import pytest
from sweep_example import STARTED_AT, make_sweep, put_run

from hkrun.cli.console import PlainConsole
from hkrun.cli.invocation import Invocation
from hkrun.cli.program import call
from hkrun.plans import save_plan
from hkrun.spaces import find_sweep, load_sweep, sweep_names
from hkrun.store import open_store


def test_every_search_space_is_listed_with_question_size_and_cost(folder, document, capsys):
    code, told = document("spaces")
    assert code == 0
    spaces = {space["name"]: space for space in told["spaces"]}
    assert sorted(spaces) == sweep_names()
    found = spaces["tables"]
    assert found["question"] == load_sweep("tables").question
    assert (found["dataset"], found["seeds"]) == ("digits", list(range(20)))
    assert (len(found["cells"]), found["configurations"], found["runs"]) == (15, 12, 240)
    assert found["command"].startswith("hkrun sweep tables")
    assert found["cost"].startswith(
        "240 runs and two teachers on digits: 3:36 minutes on 2 CPU cores, estimated ("
    )
    assert found["cost"].endswith("not run here")
    assert not any(space["problems"] or space["own"] or not space["cost"] for space in spaces.values())
    assert call(["spaces"]) == 0
    lines = capsys.readouterr().out.splitlines()
    start = lines.index(next(line for line in lines if line.startswith("stability ")))
    assert " ".join(" ".join(lines[start : start + 4]).split()) == (
        "stability Does intermediate supervision make training steadier? "
        "4 configurations, 20 seeds on digits: 80 runs "
        "80 runs and one teacher on digits: 55 to 75 s after set-up, "
        "measured (2026-11-30, 2 cores of an AMD EPYC)"
    )
    assert "1 seed on digits" in "".join(lines)
    assert max(map(len, lines)) <= 100


def test_search_spaces_beside_are_listed_too_and_a_broken_one_says_what_is_wrong(folder, document, capsys):
    (folder / "search_spaces").mkdir()
    good, broken = (folder / "search_spaces" / f"{name}.toml" for name in ("good", "broken"))
    good.write_text('dataset = "digits"\nseeds = [3]\n[[cells]]\nname = "one"\n', encoding="utf-8")
    broken.write_text('dataset = "digit"\nseeds = 2\n[[cells]]\nname = "one"\n', encoding="utf-8")
    code, told = document("spaces")
    spaces = {space["name"]: space for space in told["spaces"]}
    assert (code, spaces["good"]["own"], spaces["good"]["cost"]) == (0, True, None)
    assert spaces["good"]["file"] == str(good)
    assert "did you mean 'digits'" in spaces["broken"]["problems"][0]
    assert call(["spaces"]) == 0
    text = capsys.readouterr().out
    assert "1 configuration, 1 seed on digits: 1 run\n" in text
    assert "did you mean 'digits'" in " ".join(text.split())


@pytest.mark.parametrize("origin", sweep_names())
def test_a_new_search_space_is_what_it_was_made_of(folder, origin):
    assert call(["new", "mine.toml", "--from", origin]) == 0
    text = Path("mine.toml").read_text(encoding="utf-8")
    assert tomllib.loads(text) == tomllib.loads(find_sweep(origin).read_text(encoding="utf-8"))
    assert load_sweep("mine.toml").cells == load_sweep(origin).cells
    header = text.partition("\n\n")[0]
    assert "hkrun sweep mine.toml" in header
    assert not any(word in header for word in ("measured", "published", "estimated"))


def test_a_new_search_space_says_how_to_go_on_and_overwrites_nothing(folder, document, capsys):
    assert document("new", "mine.toml") == (
        0,
        {"file": "mine.toml", "from": "stability", "command": "hkrun sweep mine.toml"},
    )
    Path("mine.toml").write_text("mine", encoding="utf-8")
    for arguments, problem in (
        (["mine.toml"], "mine.toml: is there already, and is not overwritten"),
        (["mine"], "mine: a search space is a .toml file"),
        (["a b.toml"], "a b.toml: a search space is a .toml file"),
        (["no/mine.toml"], "no/mine.toml: there is no folder no; make it first"),
        (["x.toml", "--from", "stabilty"], "did you mean 'stability'?"),
        (["x.toml", "--from", "mine.toml"], "mine.toml:1: not valid TOML"),
    ):
        assert call(["new", *arguments]) == 2
        assert problem in capsys.readouterr().err
    assert Path("mine.toml").read_text(encoding="utf-8") == "mine"
    assert not Path("x.toml").exists()
    assert call(["new", "a.toml", "--from", "imagenet"]) == 0
    assert "hkrun sweep a.toml --dry-run" in capsys.readouterr().out


def test_the_studies_of_a_store_are_listed(store, document, capsys, monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    longer = make_sweep(name="stability-epochs-20", num_cells=2, num_seeds=4, epochs=20)
    save_plan(store, longer)
    put_run(store, longer.cells[0], 3)
    put_run(store, longer.cells[1], 0, status="failed", error_last_pct=None, traceback="Boom")
    save_plan(store, dataclasses.replace(make_sweep(), name="empty", dataset="mnist5k", seeds=(70, 71)))
    code, told = document("ls")
    assert (code, told["store"]) == (0, store.place)
    studies = {study["name"]: study for study in told["studies"]}
    assert {name: (study["done"], study["runs"]) for name, study in studies.items()} == {
        "stability": (12, 12),
        "stability-epochs-20": (1, 8),
        "empty": (0, 8),
    }
    assert studies["stability-epochs-20"] | {"last_activity": ""} == {
        "name": "stability-epochs-20",
        "dataset": "digits",
        "title": "Convergence stability",
        "cells": 2,
        "seeds": 4,
        "runs": 8,
        "done": 1,
        "state": "stopped",
        "kept": "1 of 8 runs, 1 failed; no checkpoint yet",
        "last_activity": "",
    }
    assert {name: study["state"] for name, study in studies.items()} == {
        "stability": "done",
        "stability-epochs-20": "stopped",
        "empty": "stopped",
    }
    assert studies["empty"]["last_activity"] is None
    assert STARTED_AT + 300 + 1.5 * 20 + 0.5 == 1_760_000_330.5
    assert studies["stability-epochs-20"]["last_activity"] == "2025-10-09T08:58:50+00:00"
    assert call(["ls", "--dataset", "mnist5k"]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.strip()]
    assert lines[2].split() == ["empty", "mnist5k", "4", "2", "0/8", "-"]
    assert lines[3:] == [
        "empty on mnist5k: stopped before its end; kept: 0 of 8 runs; no checkpoint yet",
        "Go on    hkrun resume empty --dataset mnist5k",
    ]


def test_dates_have_no_time_on_a_narrow_terminal(store, capsys, monkeypatch):
    monkeypatch.setenv("TZ", "UTC")
    monkeypatch.setattr(Invocation, "results", PlainConsole(width=60))
    assert call(["ls"]) == 0
    lines = capsys.readouterr().out.splitlines()
    (row,) = [line for line in lines if "stability" in line]
    assert max(map(len, lines)) <= 60
    assert row.split() == ["stability", "digits", "4", "3", "12/12", "2025-10-09"]


def test_a_list_of_an_empty_store_says_so(folder, capsys):
    open_store(folder / "hkrun-store")
    assert call(["ls"]) == 0
    assert "holds no study yet" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["ls"], ["status"], ["report", "x"], ["resume"], ["sync"]])
def test_reading_makes_no_store(folder, arguments, capsys):
    assert call([*arguments, "--store", "typo"]) == 2
    assert "there is no store" in capsys.readouterr().err
    assert os.listdir() == []  # noqa: PTH208 - the working directory
