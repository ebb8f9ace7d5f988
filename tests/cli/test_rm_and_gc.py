import dataclasses
import shutil

import click
import pytest
from sweep_example import make_summaries, make_sweep, put_run

from hkrun.cli.program import call
from hkrun.plans import make_plan, save_plan, stored_plans
from hkrun.store import open_store
from hkrun.tracking import sync
from hkrun.tracking.connection import connect, resolve_uri

NOTHING = {"number": 0, "bytes": 0}
EMPTY = ("checkpoints", "rehearsals", "tables", "teachers", "configurations", "leftovers", "abandoned")


class Terminal:
    """A terminal in place of stdin."""

    @staticmethod
    def isatty():
        return True


@pytest.fixture
def answers(monkeypatch):
    """Answers questions, and remembers them."""
    asked, given = [], []

    def confirm(text, *, default, err):
        asked.append((text, default, err))
        return given.pop(0)

    monkeypatch.setattr("sys.stdin", Terminal)
    monkeypatch.setattr(click, "confirm", confirm)
    return asked, given


@pytest.fixture
def second(store):
    """Another study of the store, with half of the first one's runs and two of its own."""
    sweep = make_sweep(name="second", num_cells=2)
    sweep = dataclasses.replace(sweep, seeds=(0, 1, 2, 3))
    save_plan(store, sweep)
    for named in sweep.cells:
        put_run(store, named, 3)
    return sweep


def test_a_study_is_removed_after_a_question_that_shows_what_goes(store, second, answers, capsys):
    asked, given = answers
    given += [False, True]
    assert call(["rm", "second"]) == 75
    assert "Nothing is removed." in capsys.readouterr().out
    assert make_plan(second, store).num_to_run == 0
    assert call(["rm", "second"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["2", "runs"],
        ["1", "plan,"],
        ["6", "runs"],
        ["Removed,", lines[-1].split()[1]],
    ]
    assert "6 runs that stability-digits uses stay." in lines
    assert asked == [("Remove this?", False, True)] * 2
    assert [plan.sweep.name for plan in stored_plans(store)[0]] == ["stability"]
    assert make_plan(make_sweep(), store).num_to_run == 0
    assert call(["report", "second"]) == 2


def test_without_a_terminal_only_yes_removes(store, second, document, capsys):
    for arguments in (["rm", "second"], ["rm", "second", "--json"]):
        assert call(arguments) == 2
        told = capsys.readouterr()
        assert "nothing is removed: no terminal can answer here; --yes says yes" in told.out + told.err
    code, shown = document("rm", "second", "--dry-run")
    assert (code, shown["removed"]) == (0, False)
    assert make_plan(second, store).num_to_run == 0
    code, told = document("rm", "second", "--yes")
    assert code == 0
    assert told | {"bytes": 0, "study": {}} == {
        "store": store.place,
        "removed": True,
        "runs": {"number": 2, "bytes": shown["runs"]["bytes"]},
        **dict.fromkeys(EMPTY, NOTHING),
        "study": {},
        "bytes": 0,
        "shared": {"stability-digits": 6},
        "mlflow": {"experiments": []},
    }
    assert told["bytes"] == told["runs"]["bytes"] + told["study"]["bytes"] > 0


def test_a_study_that_is_not_there_or_is_held_is_refused(store, second, capsys):
    assert call(["rm", "secnd", "--yes"]) == 2
    assert "no such study in" in (told := capsys.readouterr().err)
    assert "did you mean 'second'?" in told
    with open_store(store.uri).hold("sweeps/second-digits"):
        assert call(["rm", "second", "--yes"]) == 6
    assert "is held by process" in capsys.readouterr().err
    save_plan(store, dataclasses.replace(second, dataset="mnist5k"))
    assert call(["rm", "second", "--yes"]) == 2
    assert "choose one with --dataset" in capsys.readouterr().err
    assert call(["rm", "second", "--yes", "--dataset", "mnist5k"]) == 0
    assert make_plan(second, store).num_to_run == 0


def test_garbage_is_shown_and_removed_after_a_question(store, answers, document, capsys):
    assert call(["gc"]) == 0
    assert capsys.readouterr().out == "Every run, teacher and table of the store is of a study.\n"
    put_run(store, make_sweep().cells[0], 7)
    capsys.readouterr()
    code, told = document("gc", "--dry-run")
    assert (code, told["removed"], told["runs"]["number"]) == (0, False, 1)
    asked, given = answers
    given += [False, True]
    assert call(["gc"]) == 75
    assert store.runs().num_rows == 13
    assert call(["gc"]) == 0
    assert store.runs().num_rows == 12
    assert len(asked) == 2
    capsys.readouterr()
    assert document("gc", "--yes")[1]["removed"] is False
    assert make_plan(make_sweep(), store).num_to_run == 0


@pytest.mark.parametrize("arguments", [["rm", "stability", "--yes"], ["gc", "--yes"]])
def test_neither_makes_a_store(folder, arguments, capsys):
    assert call([*arguments, "--store", "typo"]) == 2
    assert list(folder.iterdir()) == []


@pytest.fixture
def mirrored(store, second, empty_database):
    """Both studies in MLflow, in the store's own database."""
    shutil.copy(empty_database, store.local_path / "mlflow.db")
    for sweep in (make_sweep(), second):
        sync(sweep, store, summaries=make_summaries(store, sweep), files={})
    return second


def names_in_mlflow(store):
    """The experiments that are not in the trash."""
    found = connect(resolve_uri(store)).search_experiments()
    return sorted(experiment.name for experiment in found if experiment.name != "Default")


def test_its_experiment_in_mlflow_goes_with_a_study_after_the_question_and_comes_back(
    store, mirrored, answers, document, capsys
):
    _, given = answers
    given += [False, True]
    assert call(["rm", "second"]) == 75
    assert (
        "MLflow's experiment 'second on digits' goes into the trash of sqlite:///" in capsys.readouterr().out
    )
    assert names_in_mlflow(store) == ["second on digits", "stability on digits"]
    assert document("rm", "second", "--dry-run")[1]["mlflow"]["experiments"][0]["name"] == "second on digits"
    assert names_in_mlflow(store) == ["second on digits", "stability on digits"]
    assert call(["rm", "second"]) == 0
    assert names_in_mlflow(store) == ["stability on digits"]
    save_plan(store, mirrored)
    sync(mirrored, store, summaries=make_summaries(store, mirrored), files={})
    assert names_in_mlflow(store) == ["second on digits", "stability on digits"]


def test_a_dead_server_holds_no_removal_up_and_gc_does_the_rest_later(
    store, mirrored, document, capsys, monkeypatch
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:1")
    assert call(["rm", "second", "--yes"]) == 0
    printed = capsys.readouterr()
    (warning,) = printed.err.splitlines()
    assert "MLflow at http://127.0.0.1:1 cannot be reached: Connection refused." in warning
    assert "`hkrun gc` removes it once MLflow answers" in warning
    assert "Removed, " in printed.out
    assert [plan.sweep.name for plan in stored_plans(store)[0]] == ["stability"]
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert names_in_mlflow(store) == ["second on digits", "stability on digits"]
    code, told = document("gc", "--dry-run")
    assert (code, [each["name"] for each in told["mlflow"]["experiments"]]) == (0, ["second on digits"])
    assert call(["gc", "--yes"]) == 0
    assert names_in_mlflow(store) == ["stability on digits"]
    capsys.readouterr()
    assert document("gc")[1]["mlflow"] == {"experiments": []}
