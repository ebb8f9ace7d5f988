import dataclasses
import importlib.util
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
from study_example import plan_on
from sweep_example import make_sweep
from teacher_example import put_teacher

import hkrun.sweep
from hkrun.cli.program import call
from hkrun.cluster.nodes.resources import has_gpu_driver
from hkrun.config import teacher_id
from hkrun.errors import DataError, HeldError, ResourceError
from hkrun.plans import (
    AUTO,
    NO_SHORTCUTS,
    Estimate,
    Shortcuts,
    Span,
    Workers,
    estimate_time,
    foresee_power,
    save_plan,
)
from hkrun.spaces import load_cell, load_sweep
from hkrun.store import open_store


def test_a_sweep_gets_what_the_command_line_says(folder, started):
    arguments = ["student.momentum=0.5", "--seeds", "1,5", "--epochs", "7", "--workers", "2", "--fail-fast"]
    assert (
        call(["sweep", "stability", *arguments, "--dataset", "mnist5k", "--data", "d", "--store", "s"]) == 0
    )
    (study,) = started
    sweep = study.sweep
    assert (sweep.name, sweep.dataset, sweep.seeds) == ("stability", "mnist5k", (1, 5))
    assert {named.cell.student.epochs for named in sweep.cells} == {7}
    assert {named.cell.student.momentum for named in sweep.cells} == {0.5}
    assert study.store.local_path == folder / "s"
    given = study.options
    assert (str(given.data_dir), given.workers, given.fail_fast) == ("d", Workers.exactly(2), True)


def test_a_study_can_be_given_a_name(folder, started):
    assert call(["sweep", "stability", "--epochs", "2", "--name", "trial"]) == 0
    assert call(["run", "--name", "first"]) == 0
    assert call(["run"]) == 0
    assert [study.options.name for study in started] == ["trial", "first", None]


def test_a_shorter_study_says_that_it_does_not_replace_the_one_that_is_there(folder, document, capsys):
    store = open_store(folder / "hkrun-store")
    save_plan(store, load_sweep("stability"))
    before = store.read("sweeps/stability-digits", "plan.json")
    _, told = document("sweep", "stability", "--seeds", "3", "--dry-run")
    assert told["sweep"] == "stability-seeds-3"
    assert call(["sweep", "stability", "--seeds", "3", "--dry-run"]) == 0
    note = "Study stability-seeds-3: stability has 20 seeds, and 3 are asked for; --seeds 20 goes on"
    assert note in " ".join(capsys.readouterr().out.split())
    assert call(["sweep", "stability", "--seeds", "3", "--name", "stability"]) == 2
    assert "Nothing replaces a study: give another name" in capsys.readouterr().err
    assert call(["sweep", "stability", "--seeds", "30", "--dry-run"]) == 0
    assert "is another one" not in capsys.readouterr().out
    assert store.read("sweeps/stability-digits", "plan.json") == before


@pytest.mark.parametrize(
    ("arguments", "shortcuts"),
    [
        ([], NO_SHORTCUTS),
        (["--search", "optuna"], Shortcuts(search=True)),
        (["--search", "optuna", "--runs", "7"], Shortcuts(search=True, budget=7)),
        (["--scheduler", "asha"], Shortcuts(stop_early=True)),
    ],
)
def test_a_space_with_axes_may_be_taken_by_a_shortcut(folder, started, arguments, shortcuts):
    pytest.importorskip("optuna")
    assert call(["sweep", "sensitivity", "--yes", *arguments]) == 0
    (study,) = started
    assert study.options.shortcuts == shortcuts


def test_what_the_command_line_changes_stands_in_the_heading_beside_the_one_name_of_the_study(folder, capsys):
    assert call(["sweep", "stability", "loss.mu=2.0", "--epochs", "60", "--dry-run"]) == 0
    lines = [line.strip() for line in capsys.readouterr().out.splitlines()]
    assert lines[0] == "Convergence stability, digits, loss.mu=2.0, student.epochs=60"
    assert any(
        line.startswith("Study stability-epochs-60-mu-2.0 on digits: 80 of 80 runs to train")
        for line in lines
    )
    assert call(["run", "method=supervised", "--dry-run"]) == 0
    assert (
        capsys.readouterr().out.strip().splitlines()[0].strip()
        == "One configuration, digits, method=supervised"
    )


def test_a_shortcut_that_does_not_suit_is_refused_in_a_line_each(folder, started, capsys):
    arguments = ["--search", "optuna", "--scheduler", "asha", "--workers", "2"]
    assert call(["sweep", "stability", *arguments]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.partition("stability.toml")[2] or line for line in lines] == [
        " has no [[axes]] to take a shortcut on",
        " has no [[axes]] to take a shortcut on",
        "hkrun: --scheduler asha: ends runs of one worker; not with --workers 2",
    ]
    assert call(["sweep", "sensitivity", "--runs", "3"]) == 2
    assert "--runs: says how many runs --search makes; give that too" in capsys.readouterr().err
    assert not started


def test_a_study_may_end_when_it_is_decided_with_as_many_seeds_as_there_may_be(folder, started):
    assert call(["sweep", "stability", "--until", "decided"]) == 0
    assert call(["sweep", "stability", "--until", "decided", "--max-seeds", "28"]) == 0
    assert call(["sweep", "stability", "--until", "decided", "--seeds", "24"]) == 0
    assert [study.options.shortcuts for study in started] == [Shortcuts(until_decided=True)] * 3
    assert [len(study.sweep.seeds) for study in started] == [20, 28, 24]


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (
            ["stability", "--max-seeds", "8"],
            ["--max-seeds: only with --until decided, whose most seeds it says; without it give --seeds"],
        ),
        (
            ["stability", "--until", "decided", "--seeds", "20", "--max-seeds", "8"],
            ["--seeds, --max-seeds: both say which seeds there may be; give one of them"],
        ),
        (
            ["stability", "--until", "decided", "--max-seeds", "5"],
            ["--until decided: 5 seeds at most, and 6 are the fewest that can decide anything; give --max-"],
        ),
        (
            ["sensitivity", "--until", "decided", "--scheduler", "asha", "--again"],
            [
                "--until decided: not with --search or --scheduler, which choose runs by their error",
                "--until decided: not with --again: what is decided would be read off the runs to be made",
            ],
        ),
    ],
)
def test_an_end_that_does_not_suit_is_refused_in_a_line_each(folder, capsys, arguments, lines):
    assert call(["sweep", *arguments, "--dry-run"]) == 2
    told = capsys.readouterr().err.splitlines()
    assert len(told) == len(lines)
    assert all(line.startswith(f"hkrun: {start}") for line, start in zip(told, lines, strict=True))
    assert not (folder / "hkrun-store").exists()


@pytest.mark.parametrize(
    ("cells", "reference", "lack"),
    [
        (("one", "two"), "", "names no reference"),
        (("one",), 'reference = "one"', "has no cell besides its reference"),
    ],
)
def test_a_study_with_nothing_to_decide_is_refused(folder, capsys, cells, reference, lack):
    text = "\n".join(
        ['title = "t"', 'dataset = "digits"', "seeds = 8", reference]
        + [
            f'[[cells]]\nname = "{name}"\nstudent.momentum = 0.{number + 5}'
            for number, name in enumerate(cells)
        ]
    )
    (folder / "mine.toml").write_text(text)
    assert call(["sweep", "mine.toml", "--until", "decided"]) == 2
    assert capsys.readouterr().err.endswith(f"mine.toml {lack}, so there is nothing to decide\n")


def test_a_dry_run_says_what_rounds_can_do(folder, document, capsys):
    _, told = document("sweep", "stability", "--until", "decided", "--max-seeds", "12", "--dry-run")
    assert (told["rounds"]["most"], told["rounds"]["comparisons"]) == (12, 3)
    assert 6 < told["rounds"]["mean_seeds"]["1.5"] < told["rounds"]["mean_seeds"]["1"] < 12
    assert 6 < told["rounds"]["equal_seeds"] < 12
    assert told["rounds"]["s2_factor"] == 2.5
    assert told["trials"] == 16  # four cells; rounds of 6, 2, 2 and 2
    assert {cell["pack"] for cell in told["cells"]} == {6}
    assert call(["sweep", "stability", "--until", "decided", "--max-seeds", "12", "--dry-run"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "at most 48 of 48 runs to train, in 16 tasks" in out
    assert "Rounds: of 12 seeds at most a cell takes on average" in out
    assert "Time: at most about" in out


def test_options_that_exclude_each_other_are_told_before_what_they_lack(folder, capsys):
    assert call(["sweep", "stability", "--max-seeds", "8", "--check", "--dry-run"]) == 2
    assert capsys.readouterr().err.startswith(
        "hkrun: --check: trains teachers and keeps what it finds; not with"
    )


def test_optuna_is_an_extra(folder, started, capsys, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert call(["sweep", "sensitivity", "--search", "optuna"]) == 2
    assert "--search optuna: needs the package optuna; run: pip install optuna" in capsys.readouterr().err


def test_a_sweep_ends_with_its_table_and_where_to_go_from_here(folder, started, capsys):
    assert call(["sweep", "stability", "--seeds", "2"]) == 0
    out = capsys.readouterr().out
    assert "L_b + L_adv + L_is" in out
    report, mlflow, command, reason = out.splitlines()[-4:]
    assert (report, mlflow) == ("Report   /somewhere/report.html", "MLflow   hkrun ui")
    assert command == "Go on    hkrun resume stability --dataset digits"
    assert reason == "         makes the 8 runs without a result"


def test_a_sweeps_document_is_the_summary_and_where_mlflow_has_it(folder, started, document):
    code, told = document("sweep", "stability", "--seeds", "2")
    assert code == 0
    assert (told["sweep"], told["dataset"]) == ("stability", "digits")
    assert {"store", "teacher", "cells", "comparisons"} <= set(told)
    assert told["mlflow"] == {"uri": "sqlite:///x", "experiment_id": "1", "view": "http://view"}


def test_the_exit_code_of_a_sweep_is_its_outcomes(folder, started, monkeypatch):
    run_study = hkrun.sweep.run_study

    def with_failures(*arguments, **named):
        return dataclasses.replace(run_study(*arguments, **named), exit_code=5)

    monkeypatch.setattr(hkrun.sweep, "run_study", with_failures)
    assert call(["sweep", "stability", "--seeds", "2"]) == 5


def test_a_dry_run_prints_the_plan_and_writes_nothing(folder, started, document, capsys):
    code, told = document("sweep", "stability", "--dry-run", "--seeds", "3")
    assert code == 0
    plan = plan_on(load_sweep("stability", seeds="3"), None, slots=2, group_slots=1)
    beside = {
        name: dataclasses.asdict(each(plan))
        for name, each in (("estimate", estimate_time), ("power", foresee_power))
    }
    assert told == {**plan.document(), **beside, "limits": []}
    assert call(["sweep", "stability", "--dry-run", "--seeds", "3"]) == 0
    out = capsys.readouterr().out
    assert "12 of 12 runs to train, in 12 tasks" in out
    assert "10 s of that for Ray's start, the teacher table, the report and MLflow (measured (2026-" in out
    assert started == []
    assert list(folder.iterdir()) == []


@pytest.mark.skipif(has_gpu_driver(), reason="torch is asked about GPUs")
def test_a_plan_waits_neither_for_torch_nor_for_ray(folder):
    plan = "import sys; from hkrun.cli.program import call; call(['sweep', 'stability', '--dry-run'])"
    look = "print('imported:', {'torch', 'ray', 'mlflow', 'matplotlib'} & set(sys.modules))"
    told = subprocess.run(
        [sys.executable, "-c", f"{plan}; {look}"], cwd=folder, check=True, capture_output=True, text=True
    )
    assert "80 of 80 runs to train" in told.stdout
    assert told.stdout.splitlines()[-1] == "imported: set()"


def test_workers_are_a_number_a_span_or_left_to_hkrun(folder, started):
    for options in ([], ["--workers", "2:4", "--per-gpu", "3"]):
        assert call(["run", *options]) == 0
    assert [study.options.workers for study in started] == [AUTO, Workers(Span(2, 4), per_gpu=3)]


def test_a_single_configuration_is_a_sweep_of_one_cell(folder, started):
    assert call(["run", "method=supervised", "--seeds", "2"]) == 0
    sweep = started[0].sweep
    assert [named.name for named in sweep.cells] == ["digits [method=supervised]"]
    assert sweep.seeds == (0, 1)


def test_a_teachers_error_is_printed(folder, document, capsys):
    put_teacher(open_store(folder / "hkrun-store"), load_cell().cells[0].cell)
    code, told = document("teacher")
    assert (code, told["teacher_id"]) == (0, teacher_id(load_cell().cells[0].cell))
    assert {"hash", "error_pct", "train_error_pct", "epochs", "store"} < set(told)
    assert call(["teacher"]) == 0
    heading = f"Teacher {told['teacher_id']}: {told['error_pct']:.2f} % test error, "
    assert heading + f"{told['train_error_pct']:.2f} % on its training images" in capsys.readouterr().out
    assert call(["teacher", "method=supervised"]) == 2
    assert "uses no teacher" in capsys.readouterr().err


def test_resume_runs_the_sweeps_that_lack_runs_with_what_they_began_with(store, started, document):
    assert document("resume") == (0, {"store": store.uri, "sweeps": []})
    assert started == []
    longer = make_sweep(num_seeds=5, name="longer")
    save_plan(store, longer, workers=Workers.exactly(2))
    code, told = document("resume")
    assert (code, [found["sweep"] for found in told["sweeps"]]) == (0, ["longer"])
    (study,) = started
    assert (study.sweep, study.options.workers) == (longer, Workers.exactly(2))


@pytest.mark.parametrize("error", [DataError, ResourceError, HeldError])
def test_resume_goes_on_with_the_others_where_one_cannot_go_on(store, started, monkeypatch, capsys, error):
    for name in ("first", "second", "third"):
        save_plan(store, make_sweep(num_seeds=5, name=name))
    original = hkrun.sweep.run_study

    def run_study(study, *arguments):
        if study.sweep.name == "second":
            raise error("it cannot go on")
        return original(study, *arguments)

    monkeypatch.setattr(hkrun.sweep, "run_study", run_study)
    assert call(["resume", "--json"]) == error.exit_code
    told = capsys.readouterr()
    document = json.loads(told.out)
    assert [sweep["sweep"] for sweep in document["sweeps"]] == ["first", "third"]
    assert document["problems"] == {"second on digits": ["it cannot go on"]}
    assert "hkrun: second on digits: it cannot go on" in told.err
    assert call(["resume", "second", "--json"]) == error.exit_code
    assert json.loads(capsys.readouterr().out)["error"]["message"] == "it cannot go on"


def test_resume_of_an_unknown_sweep_lists_those_there_are(store, capsys):
    assert call(["resume", "stabilty"]) == 2
    assert "there are: stability; did you mean 'stability'?" in capsys.readouterr().err
    assert call(["resume", "stability", "--dataset", "cifar10"]) == 2
    assert "there are: digits" in capsys.readouterr().err


def test_long_work_is_asked_about_where_somebody_can_answer(folder, started, monkeypatch):
    resolve = hkrun.sweep.resolve

    def take_long(*arguments, **named):
        study = resolve(*arguments, **named)
        vars(study)["estimate"] = Estimate(seconds=7300.0, basis="x")
        return study

    monkeypatch.setattr(hkrun.sweep, "resolve", take_long)
    asked = []
    monkeypatch.setattr("click.confirm", lambda question, **_: asked.append(question) and False)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    assert call(["sweep", "stability"]) == 75
    assert asked == ["80 runs, about 2:01 h. Start?"]
    assert call(["sweep", "stability", "--yes"]) == 0
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: False))
    assert call(["sweep", "stability"]) == 0
    assert len(asked) == 1


def test_a_dry_run_and_the_question_count_what_a_search_makes(folder, started, monkeypatch, document, capsys):
    pytest.importorskip("optuna")
    command = ["sweep", "sensitivity", "--search", "optuna", "--runs", "5"]
    code, told = document(*command, "--dry-run")
    assert (code, told["runs"], told["to_run"], told["trials"]) == (0, 2640, 85, 85)
    assert call([*command, "--dry-run"]) == 0
    assert "85 of 2640 runs to train, in 85 tasks" in capsys.readouterr().out
    monkeypatch.setattr("hkrun.cli.running._ASK_ABOVE_S", 0.0)
    asked = []
    monkeypatch.setattr("click.confirm", lambda question, **_: asked.append(question) and False)
    monkeypatch.setattr("sys.stdin", SimpleNamespace(isatty=lambda: True))
    assert call(command) == 75
    assert asked[0].startswith("85 runs, about ")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"left_out": "Runs left out: 2"}, "makes the runs that were left out"),
        ({"problems": ("a task: died",)}, "runs again what failed"),
        (
            {"left_out": "Runs left out: 2", "problems": ("a task: died",)},
            "runs again what failed and makes the runs that were left out",
        ),
    ],
    ids=["left out", "failed", "both"],
)
def test_a_sweep_says_what_resuming_it_would_do(folder, started, monkeypatch, capsys, changes, told):
    run_study = hkrun.sweep.run_study

    def with_changes(*arguments, **named):
        outcome = run_study(*arguments, **named)
        vars(outcome).update(changes)
        return outcome

    monkeypatch.setattr(hkrun.sweep, "run_study", with_changes)
    assert call(["sweep", "stability", "--seeds", "2"]) == 0
    last = capsys.readouterr().out.splitlines()[-2:]
    assert last == ["Go on    hkrun resume stability --dataset digits", f"         {told}"]
