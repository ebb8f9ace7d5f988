"""What other training code has made is never used unasked, never lost, and never gone on with in silence."""

import contextlib
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from code_example import as_code
from study_example import make_study
from sweep_example import fill_store, make_curves, make_sweep, put_run
from task_example import make_task
from teacher_example import put_diverged_teacher, put_teacher

import hkrun
from hkrun.cli.program import call
from hkrun.code_identity import find_code
from hkrun.config import cell_id, teacher_id
from hkrun.errors import InputError, StoreError
from hkrun.plans import make_plan, save_plan
from hkrun.report import summarise, summary_document
from hkrun.spaces import load_sweep
from hkrun.store import open_store
from hkrun.sweep import plan_study, resolve
from hkrun.sweep.planning import recheck, resolve_teacher
from hkrun.sweep.study import Options
from hkrun.sweep.task_submission import leave_out_diverged
from hkrun.sweep.task_submission import make_task as make_task_of
from hkrun.tracking import sync
from hkrun.training import SingleProcess
from hkrun.trial import environment, inputs, progress
from hkrun.trial.run import run_task

pytestmark = pytest.mark.usefixtures("few_digits")

SPACE = """
title = "Small"
dataset = "digits"
seeds = 2
reference = "kd"

[base]
teacher.network = "preact-8-w4"
teacher.epochs = 1
student.network = "preact-8-w4"
student.epochs = 3
augment.padding = 0

[[cells]]
name = "kd"
method = "kd"

[[cells]]
name = "alone"
method = "supervised"
"""
LOSS = "return temperature**2 * divergence.mean()"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty working directory, whose process has read no teacher."""
    monkeypatch.chdir(tmp_path)
    for name in ("HKRUN_STORE", "HKRUN_CODE", "MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    inputs.load_teacher.cache_clear()
    yield tmp_path
    inputs.load_teacher.cache_clear()


@pytest.fixture
def store(folder):
    return open_store(folder / "hkrun-store")


@pytest.fixture
def filled(store):
    """A store with every run of `make_sweep` and their teacher, of the first numbers epoch."""
    sweep = make_sweep()
    fill_store(store, sweep)
    put_teacher(store, sweep.cells[0].cell)
    return store


@pytest.fixture
def small(folder):
    (folder / "small.toml").write_text(SPACE, encoding="utf-8")
    return load_sweep(str(folder / "small.toml"))


def train(store, sweep, **fields):
    """Makes the teacher and all runs of a sweep, each task in this process."""
    for cell in sweep.cells:
        tasks = [make_task(store, cell.cell, *sweep.seeds, **fields)]
        if cell.cell.uses_teacher:
            tasks.insert(0, make_task(store, cell.cell, **fields))
        for task in tasks:
            for outcome in run_task(task, SingleProcess()):
                assert outcome["status"] == "finished", outcome["message"]


def files_of(store, sweep):
    """The content of every run's own files, by path."""
    folders = [
        Path(store.uri, store.run_folder(cell_id(cell.cell), seed)) for cell in sweep.cells for seed in (0, 1)
    ]
    return {path: path.read_bytes() for folder in folders for path in folder.glob("*") if path.is_file()}


# What a record says


def test_run_teacher_and_table_say_which_code_made_them(store, small, monkeypatch):
    monkeypatch.setenv("HKRUN_CODE", "0123456789ab+dirty")
    train(store, small)
    told = {
        "hkrun": hkrun.__version__,
        "code": "0123456789ab+dirty",
        "numbers": find_code().numbers,
        "source": find_code().source,
    }
    cell = small.cells[0].cell
    for record in (store.record(cell_id(cell), 0), store.teacher(teacher_id(cell))):
        assert told.items() <= record.versions.items()
        assert record.code == find_code()
    (table,) = (store.local_path / "tables").glob("*/table.json")
    assert json.loads(table.read_text())["code"] == told


def test_the_commit_is_that_of_the_folder_which_hkrun_runs_from(tmp_path, monkeypatch):
    clone = tmp_path / "clone"
    (clone / "hkrun").mkdir(parents=True)
    (clone / "hkrun" / "__init__.py").touch()
    monkeypatch.setattr(hkrun, "__file__", str(clone / "hkrun" / "__init__.py"))

    def git(*arguments):
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        done = subprocess.run(
            ["git", "-C", clone, *identity, *arguments], check=True, capture_output=True, text=True
        )
        return done.stdout.strip()

    def commit_told():
        environment._find_commit.cache_clear()  # as in another process
        return environment.describe_code().get("code")

    try:
        assert commit_told() is None
        git("init")
        git("add", "hkrun")
        git("commit", "-m", "all")
        commit = git("rev-parse", "HEAD")[:12]
        (clone / "notes.txt").write_text("beside the code")
        assert commit_told() == commit
        with (clone / "hkrun" / "__init__.py").open("a") as file:
            file.write("\n")
        assert commit_told() == f"{commit}+dirty"
    finally:
        environment._find_commit.cache_clear()


# What a plan says


def test_runs_of_the_same_epoch_are_used_without_a_question(filled):
    plan = make_plan(make_sweep(), filled)
    assert (plan.num_done, plan.num_other_code, dict(plan.other_teachers)) == (12, 0, {})
    assert plan.describe_other_code() == ""
    resolve(plan_study(make_sweep(), filled, Options(store=filled.uri)))


def test_runs_of_other_code_are_named_and_refused_unless_the_user_says_what_becomes_of_them(filled):
    sweep = make_sweep()
    with as_code("abc"):
        plan = make_plan(sweep, filled)
        assert (plan.num_done, plan.num_to_run, plan.num_other_code) == (12, 0, 12)
        assert plan.document()["other_code"] == {"runs": 12, "teachers": [teacher_id(sweep.cells[0].cell)]}
        with pytest.raises(InputError) as caught:
            resolve(plan_study(sweep, filled, Options(store=filled.uri)))
        assert caught.value.message == (
            "12 runs and 1 teacher in the store are of other code (epoch 1, here source abc), which may give "
            "other numbers: L_b seeds 0-2; L_b + L_is seeds 0-2; L_b + L_adv seeds 0-2; L_b + L_adv + L_is "
            "seeds 0-2; and 1 more. --again makes them anew and keeps the old ones beside the new; --trust "
            "takes them as they are"
        )
        trusted = resolve(plan_study(sweep, filled, Options(store=filled.uri, other_code="trust")))
        assert trusted.plan.num_to_run == 0
        again = plan_study(sweep, filled, Options(store=filled.uri, other_code="again")).plan
        assert (again.num_done, again.num_to_run, again.num_other_code) == (0, 12, 12)
        assert [teacher.teacher_id for teacher in again.teachers] == [teacher_id(sweep.cells[0].cell)]


def test_of_a_mix_only_what_other_code_has_made_is_made_anew(store):
    sweep = make_sweep(num_cells=1, num_seeds=4)
    with as_code("abc"):
        put_run(store, sweep.cells[0], 0, versions=find_code().entries())
        put_run(store, sweep.cells[0], 1)
        put_run(store, sweep.cells[0], 2, status="failed", curves=None)
        plan = make_plan(sweep, store)
        (cell,) = plan.cells
        assert (sorted(cell.other_code), cell.to_run, cell.num_done) == ([1], (2, 3), 2)
        assert plan.describe_other_code() == (
            "1 run in the store is of other code (epoch 1, here source abc), which may give other numbers: "
            "L_b seed 1"
        )
        (cell,) = make_plan(sweep, store, other_code="again").cells
        assert (sorted(cell.other_code), cell.to_run, cell.num_done) == ([1], (1, 2, 3), 1)


def test_a_teacher_of_other_code_is_refused_though_no_run_is(store):
    sweep = make_sweep(num_cells=1)
    put_teacher(store, sweep.cells[0].cell)
    identity = teacher_id(sweep.cells[0].cell)
    with as_code("abc"):
        for refuse in (
            lambda **asked: resolve(plan_study(sweep, store, Options(store=store.uri, **asked))),
            lambda **asked: resolve_teacher(sweep, store, Options(store=store.uri, **asked)),
        ):
            with pytest.raises(
                InputError, match=f"1 teacher in the store is of other code .*: teacher {identity}"
            ):
                refuse()
            assert refuse(other_code="trust").plan.teachers == ()
            assert [each.teacher_id for each in refuse(other_code="again").plan.teachers] == [identity]


def test_that_a_teacher_diverged_is_known_of_the_same_code_alone(store):
    sweep = make_sweep(num_cells=1)
    put_diverged_teacher(store, sweep.cells[0].cell)
    for given, left_out in (({}, 1), ({"other_code": "again"}, 1)):
        assert len(leave_out_diverged(make_study(sweep, store, **given))[1]) == left_out
    with as_code("abc"):
        asked = make_study(sweep, store)
        assert list(asked.plan.other_teachers) == [teacher_id(sweep.cells[0].cell)]
        study, told = leave_out_diverged(make_study(sweep, store, other_code="again"))
        assert (len(study.plan.teachers), told) == (1, [])


def test_tasks_know_what_becomes_of_other_code(filled, monkeypatch):
    study = make_study(make_sweep(), filled, other_code="again")
    monkeypatch.setattr(type(study), "on", property(lambda self: type("Machine", (), {"device": "cpu"})))
    assert make_task_of(study, make_sweep().cells[0].cell, "0123456789ab", seeds=(0,)).other_code == "again"


# What the store keeps


def test_a_failed_run_of_other_code_is_no_result_to_keep(store):
    cell = make_sweep(num_cells=1).cells[0]
    failed = put_run(store, cell, 0, status="failed", curves=None)
    new = dataclasses.replace(failed, status="finished", versions={"numbers": "source a", "source": "a"})
    store.put_run(new, curves=make_curves("L_b", 0, epochs=12), student=None, keep_result=True)
    assert store.earlier_runs(new.cell_id, 0) == []


def test_a_writer_that_is_killed_between_copy_and_commit_loses_nothing(store, monkeypatch):
    cell = make_sweep(num_cells=1).cells[0]
    first = put_run(store, cell, 0)
    curves = make_curves("L_b", 0, epochs=12)
    new = dataclasses.replace(first, versions={"numbers": "source a", "source": "a"})
    put, folder = store._files.put, store.run_folder(new.cell_id, 0)

    def break_off(place, files):
        if place == folder:
            raise KeyboardInterrupt
        put(place, files)

    monkeypatch.setattr(store._files, "put", break_off)
    with pytest.raises(KeyboardInterrupt):
        store.put_run(new, curves=curves, student=None, keep_result=True)
    monkeypatch.undo()
    assert store.earlier_runs(new.cell_id, 0) == [first]
    store.put_run(new, curves=curves, student=None, keep_result=True)
    assert store.record(new.cell_id, 0) == new
    assert store.earlier_runs(new.cell_id, 0) == [first]


def test_what_is_damaged_of_other_code_makes_room_without_a_copy(store, caplog):
    cell = make_sweep(num_cells=1).cells[0]
    first = put_run(store, cell, 0)
    file = Path(store.uri, store.run_folder(first.cell_id, 0), "curves.parquet")
    file.write_bytes(bytes(file.stat().st_size))
    new = dataclasses.replace(first, versions={"numbers": "source a", "source": "a"})
    store.put_run(new, curves=make_curves("L_b", 0, epochs=12), student=None, keep_result=True)
    assert store.record(new.cell_id, 0) == new
    assert store.earlier_runs(new.cell_id, 0) == []
    assert "not kept beside the new one" in caplog.text


def test_a_teacher_of_other_code_is_kept_and_runs_of_that_code_do_not_hold_the_new_one_up(store, small):
    cell = small.cells[0].cell
    train(store, small)
    old = store.teacher(teacher_id(cell))
    weights = store.teacher_weights(old.teacher_id)
    curves = make_curves("L_b", 0, epochs=1)
    other = dataclasses.replace(old, teacher_hash="f" * 64)
    store.delete(store.teacher_folder(old.teacher_id))
    with pytest.raises(StoreError, match="trained again, the teacher has other weights"):
        store.put_teacher(other, weights=b"other", curves=curves, keep_result=True)
    store.put_teacher(old, weights=weights, curves=curves, keep_result=True)
    changed = dataclasses.replace(other, versions={"numbers": "source a", "source": "a"})
    store.put_teacher(changed, weights=b"other", curves=curves, keep_result=True)
    assert store.teacher(old.teacher_id) == changed
    (kept,) = Path(store.uri, store.teacher_folder(old.teacher_id), "earlier").iterdir()
    assert (kept / "weights.pt").read_bytes() == weights


# Training


def test_again_trains_anew_and_the_same_code_repeats_nothing(store, small, monkeypatch):
    train(store, small)
    before = files_of(store, small)
    with as_code("abc"):
        train(store, small, other_code="ask")
        train(store, small, other_code="trust")
        assert files_of(store, small) == before
        train(store, small, other_code="again")
        cell = small.cells[0].cell
        for identity in (cell_id(each.cell) for each in small.cells):
            for seed in small.seeds:
                assert store.record(identity, seed).code.numbers == "source abc"
                (old,) = store.earlier_runs(identity, seed)
                assert old.code.numbers == "epoch 1"
                # Only its hash is other: the numbers are the same.
                assert store.record(identity, seed).error_last_pct == old.error_last_pct
        assert store.teacher(teacher_id(cell)).code.numbers == "source abc"
        assert len(list((store.local_path / "tables").iterdir())) == 2, "its teacher table is one of its own"
        after = files_of(store, small)
        train(store, small, other_code="again")
        assert files_of(store, small) == after
    train(store, small, other_code="again")
    assert len(store.earlier_runs(cell_id(cell), 0)) == 2


def interrupt(task, monkeypatch, *, epoch):
    """Does a task until an epoch, after each of which a checkpoint is saved."""
    monkeypatch.setattr(progress, "CHECKPOINT_EVERY_S", 0.0)
    original = progress.Watch.epoch_done

    def stop(watch, learners):
        original(watch, learners)
        if len(learners[0].history) == epoch:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(progress.Watch, "epoch_done", stop)
        with pytest.raises(KeyboardInterrupt):
            run_task(task, SingleProcess())


@pytest.mark.parametrize("other_code", ["ask", "again"])
def test_a_checkpoint_of_other_code_is_not_gone_on_from(store, small, monkeypatch, caplog, other_code):
    cell = small.cells[1].cell
    interrupt(make_task(store, cell, 0, 1), monkeypatch, epoch=2)
    with as_code("abc"):
        run_task(make_task(store, cell, 0, 1, other_code=other_code), SingleProcess())
    assert "seed 1 begins anew: its checkpoint is of other code" in caplog.text
    record = store.record(cell_id(cell), 1)
    assert (record.resumed, record.alarms, record.epochs) == (0, (), 3)


def test_a_checkpoint_of_other_code_that_is_trusted_is_gone_on_from_and_the_record_says_so(
    store, small, monkeypatch
):
    cell = small.cells[1].cell
    interrupt(make_task(store, cell, 0), monkeypatch, epoch=2)
    with as_code("abc"):
        run_task(make_task(store, cell, 0, other_code="trust"), SingleProcess())
    record = store.record(cell_id(cell), 0)
    assert record.resumed == 1
    assert record.alarms == ("resumed after epoch 2, not bit-identical: another code",)


def test_a_checkpoint_of_another_commit_with_the_same_numbers_is_gone_on_from(store, small, monkeypatch):
    cell = small.cells[1].cell
    monkeypatch.setenv("HKRUN_CODE", "0123456789ab")
    interrupt(make_task(store, cell, 0), monkeypatch, epoch=2)
    monkeypatch.setenv("HKRUN_CODE", "ba9876543210")
    monkeypatch.setattr(hkrun, "__version__", "9.9.9")
    run_task(make_task(store, cell, 0), SingleProcess())
    record = store.record(cell_id(cell), 0)
    assert (record.resumed, record.alarms) == (1, ())


def test_a_teachers_checkpoint_of_other_code_is_not_gone_on_from(store, small, monkeypatch, caplog):
    cell = dataclasses.replace(
        small.cells[0].cell, teacher=dataclasses.replace(small.cells[0].cell.teacher, epochs=3)
    )
    interrupt(make_task(store, cell), monkeypatch, epoch=2)
    with as_code("abc"):
        run_task(make_task(store, cell), SingleProcess())
    assert f"teacher {teacher_id(cell)} begins anew: its checkpoint is of other code" in caplog.text
    assert store.teacher(teacher_id(cell)).resumed == 0


def test_runs_do_not_learn_from_a_teacher_of_other_code_whose_new_training_failed(store, small):
    cell = dataclasses.replace(
        small.cells[0].cell, teacher=dataclasses.replace(small.cells[0].cell.teacher, seeds="paired")
    )
    put_teacher(store, cell.with_teacher_of(0))
    with as_code("abc"):
        (outcome,) = run_task(make_task(store, cell, 0, other_code="again"), SingleProcess())
    assert outcome["status"] == "untaught"


# The code of then returns


def swap(store, sweep):
    """What the sweep's command does before anything is trained; the plan, and what it finds to do."""
    study = plan_study(sweep, store, Options(store=store.uri))
    told = study.coming_back
    recheck(study)
    return told, make_plan(sweep, store)


def test_results_of_the_code_that_returns_are_used_again_and_none_is_lost(store, small, monkeypatch):
    train(store, small)
    first, cell = files_of(store, small), small.cells[0].cell
    with as_code("abc"):
        train(store, small, other_code="again")
        second = files_of(store, small)
        assert second != first
    told, plan = swap(store, small)
    assert told == (
        "4 runs and 1 teacher of this code (epoch 1) are kept beside those of other code, and come back"
    )
    assert files_of(store, small) == first
    assert (plan.num_to_run, plan.num_other_code, plan.teachers, plan.describe_beside()) == (0, 0, (), "")
    assert store.teacher(teacher_id(cell)).code.numbers == "epoch 1"
    for identity in (cell_id(each.cell) for each in small.cells):
        for seed in small.seeds:
            (kept,) = store.earlier_runs(identity, seed)
            assert kept.code.numbers == "source abc"
    assert summarise(small, store).warnings == tuple(
        line for line in summarise(small, store).warnings if "other code" not in line
    )
    with as_code("abc"):
        told, plan = swap(store, small)
        assert told.startswith("4 runs and 1 teacher of this code (source abc)")
        assert (plan.num_to_run, plan.num_other_code) == (0, 0)
        assert files_of(store, small) == second
    assert [record.code.numbers for record in store.earlier_runs(cell_id(cell), 0)] == ["epoch 1"]


def test_the_command_shows_the_old_figure_and_trains_nothing(filled, capsys):
    sweep = make_sweep()
    save_plan(filled, sweep)
    before = summary_document(summarise(sweep, filled))["cells"]
    with as_code("abc"):
        for cell in sweep.cells:
            for seed in sweep.seeds:
                record = filled.record(cell_id(cell.cell), seed)
                worse = dataclasses.replace(record, error_last_pct=50.0, versions=find_code().entries())
                curves = make_curves("L_b", seed, epochs=12)
                filled.put_run(worse, curves=curves, student=None, keep_result=True)
        assert summary_document(summarise(sweep, filled))["cells"] != before
    assert call(["status", "stability"]) == 0
    assert "12 runs of this code (epoch 1) are kept beside" in " ".join(capsys.readouterr().out.split())
    study = plan_study(sweep, filled, Options(store=filled.uri))
    assert (study.plan.num_done, study.plan.num_to_run, study.other_code) == (12, 0, "")
    resolve(study)  # asks nothing
    recheck(study)
    assert summary_document(summarise(sweep, filled))["cells"] == before


def test_what_other_code_has_made_and_this_code_never_did_is_still_asked_about(filled):
    sweep = make_sweep()
    with as_code("abc"):
        cell, record = sweep.cells[0], filled.record(cell_id(sweep.cells[0].cell), 1)
        new = dataclasses.replace(record, versions=find_code().entries())
        filled.put_run(new, curves=make_curves(cell.name, 1, epochs=12), student=None, keep_result=True)
    with as_code("def"):
        study = plan_study(sweep, filled, Options(store=filled.uri))
        assert study.coming_back == ""
        with pytest.raises(InputError, match="12 runs and 1 teacher"):
            resolve(study)
    with as_code("abc"):
        study = plan_study(sweep, filled, Options(store=filled.uri))
        assert (study.coming_back, study.plan.num_other_code) == ("", 11)
    trusted = plan_study(sweep, filled, Options(store=filled.uri, other_code="trust"))
    assert (trusted.coming_back, trusted.plan.num_other_code) == ("", 1)
    again = plan_study(sweep, filled, Options(store=filled.uri, other_code="again"))
    assert (again.plan.num_to_run, again.plan.runs_beside) == (0, [(new.cell_id, 1)])


@pytest.mark.parametrize("call_number", range(1, 9))
def test_a_kill_while_results_come_back_loses_nothing_and_the_next_command_does_the_rest(
    store, monkeypatch, call_number
):
    sweep = make_sweep(num_cells=1, num_seeds=1)
    cell = sweep.cells[0].cell
    old, folder = put_run(store, sweep.cells[0], 0), store.run_folder(cell_id(cell), 0)

    def content():
        return {name: store.read(folder, name) for name in store.names(folder)}

    first = content()
    with as_code("abc"):
        new = dataclasses.replace(old, error_last_pct=9.0, versions=find_code().entries())
        store.put_run(new, curves=make_curves("L_b", 5, epochs=12), student=b"w", keep_result=True)
        second = content()
    calls = 0

    def counted(method):
        original = getattr(store._files, method)

        def run(*arguments):
            nonlocal calls
            calls += 1
            if calls == call_number:
                raise KeyboardInterrupt
            return original(*arguments)

        return run

    with monkeypatch.context() as patch:
        for method in ("put", "remove", "remove_folder"):
            patch.setattr(store._files, method, counted(method))
        killed = True
        try:
            store.bring_back_run(cell_id(cell), 0, find_code())
            killed = False
        except KeyboardInterrupt:
            pass
    assert killed or call_number > 5
    # Whatever the moment: the store is read, and both results are whole in one place at least.
    there = [store.record(cell_id(cell), 0), *store.earlier_runs(cell_id(cell), 0)]
    assert {record.error_last_pct for record in there if record} == {old.error_last_pct, 9.0}
    plan = plan_study(sweep, store, Options(store=store.uri)).plan
    assert plan.cells[0].num_done == 1
    store.bring_back_run(cell_id(cell), 0, find_code())
    assert content() == first
    with as_code("abc"):
        store.bring_back_run(cell_id(cell), 0, find_code())
        assert content() == second


def test_an_earlier_result_that_is_damaged_is_named_and_what_stands_stays(store):
    sweep = make_sweep(num_cells=1, num_seeds=1)
    first = put_run(store, sweep.cells[0], 0)
    with as_code("abc"):
        new = dataclasses.replace(first, versions=find_code().entries())
        store.put_run(new, curves=make_curves("L_b", 1, epochs=12), student=None, keep_result=True)
    (kept,) = Path(store.uri, store.run_folder(first.cell_id, 0), "earlier").iterdir()
    (kept / "curves.parquet").write_bytes(b"damaged")
    study = plan_study(sweep, store, Options(store=store.uri))
    with pytest.raises(StoreError, match=r"earlier/\w+/curves.parquet is damaged"):
        recheck(study)
    assert store.record(first.cell_id, 0) == new


# What people see


def test_the_command_refuses_runs_of_other_code_in_one_line_and_does_neither_by_itself(filled, capsys):
    sweep = make_sweep()
    save_plan(filled, sweep)
    with as_code("abc"):
        assert call(["resume", "stability"]) == 0
        assert "Nothing to resume" in capsys.readouterr().out
        assert call(["resume", "stability", "--again", "--trust"]) == 2
        assert "--again, --trust: what other code has trained is made anew or used, not both" in (
            capsys.readouterr().err
        )
        assert call(["status", "stability"]) == 0
        assert "12 runs and 1 teacher in the store are of other code" in capsys.readouterr().out
        assert call(["status", "stability", "--json"]) == 0
        (found,) = json.loads(capsys.readouterr().out)["sweeps"]
        assert found["other_code"]["runs"] == 12
        assert [cell["other_code"] for cell in found["cells"]] == [[0, 1, 2]] * 4
    assert call(["status", "stability"]) == 0
    assert "other code" not in capsys.readouterr().out


def test_a_report_names_runs_of_different_code_and_its_conditions_the_code(filled):
    sweep = make_sweep()
    versions = {"hkrun": "0.1.0", "code": "0123456789ab", "numbers": "source abc", "source": "abc"}
    put_run(filled, sweep.cells[1], 2, versions=versions)
    summary = summarise(sweep, filled)
    (warning,) = [line for line in summary.warnings if "different code" in line]
    assert warning == (
        "Its runs are of different code, which may give other numbers: 11 runs of epoch 1 (L_b, seeds 0-2, "
        "L_b + L_is, seeds 0, 1, L_b + L_adv, seeds 0-2 and 1 more cell); 1 run of source abc (L_b + L_is, "
        "seeds 2). The sweep's command with --again makes anew what is not of the code that it runs with."
    )
    conditions = summary_document(summary)["conditions"]
    assert conditions["Numbers of its code"] == "source abc"
    assert conditions["Commit of hkrun"] == "0123456789ab"
    assert conditions["SHA-256 of its training code"] == "abc"
    put_run(filled, sweep.cells[1], 2, versions={"numbers": "epoch 1", "source": "abc"})
    assert not [line for line in summarise(sweep, filled).warnings if "code" in line]


def test_a_report_names_a_teacher_of_other_code_than_its_runs(store, small):
    train(store, small)
    with as_code("abc"):
        train(store, dataclasses.replace(small, cells=small.cells[:1], seeds=(2,)), other_code="trust")
    only = dataclasses.replace(small, cells=small.cells[:1], seeds=(2,))
    identity = teacher_id(small.cells[0].cell)
    assert f"Teacher {identity} is of other code (epoch 1) than runs of this sweep (source abc)." in (
        summarise(only, store).warnings
    )


def test_mlflow_shows_the_source_of_runs_and_of_cells_that_share_one(filled, empty_database):
    import sqlite3

    shutil.copy(empty_database, filled.local_path / "mlflow.db")
    sweep = make_sweep(num_cells=2, num_seeds=2)
    told = {"hkrun": "0.1.0", "numbers": "epoch 1", "source": "abc"}
    commits = {(0, 0): "0123456789ab", (0, 1): "0123456789ab", (1, 0): "0123456789ab+dirty", (1, 1): ""}
    for (number, seed), commit in commits.items():
        put_run(filled, sweep.cells[number], seed, versions={**told, **({"code": commit} if commit else {})})
    sync(sweep, filled, summaries={}, files={})
    rows = sqlite3.connect(filled.local_path / "mlflow.db").execute(
        "select runs.name, key, value from tags join runs using (run_uuid) where key like 'mlflow.source%' "
        "or key in ('hkrun.numbers', 'hkrun.source', 'hkrun.code')"
    )
    tags = {}
    for name, key, value in rows:
        tags.setdefault(name, {})[key] = value
    clean = {
        "mlflow.source.name": "hkrun 0.1.0",
        "mlflow.source.type": "LOCAL",
        "mlflow.source.git.commit": "0123456789ab",
        "hkrun.code": "0123456789ab",
    }
    assert tags["L_b"] == clean
    assert tags["L_b seed 1"] == {**clean, "hkrun.numbers": "epoch 1", "hkrun.source": "abc"}
    changed = tags["L_b + L_is seed 0"]
    assert changed["mlflow.source.name"] == "hkrun 0.1.0, changed since the commit"
    assert changed["mlflow.source.git.commit"] == "0123456789ab"
    assert changed["hkrun.code"] == "0123456789ab+dirty"
    assert "mlflow.source.git.commit" not in tags["L_b + L_is seed 1"]
    assert not [key for key in tags.get("L_b + L_is", {}) if key.startswith("mlflow.source")]


# A clone with another loss


@pytest.fixture
def clone(folder):
    """A copy of the repository in which KD's loss is a hundred times as large, with the compiled kernels."""
    repository, copy = Path(hkrun.__file__).parents[1], folder / "clone"
    for name in ("hkrun", "search_spaces"):
        shutil.copytree(repository / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    # Other processes may be compiling: kernels have their names once they are whole, and may go.
    for kernel in (repository / "hkrun").rglob("__pycache__/*.nb[ic]"):
        place = copy / kernel.relative_to(repository)
        place.parent.mkdir(exist_ok=True)
        with contextlib.suppress(FileNotFoundError):
            shutil.copy2(kernel, place)
    shutil.copy(repository / "pyproject.toml", copy)
    file = copy / "hkrun" / "losses" / "response.py"
    text = file.read_text(encoding="utf-8")
    assert LOSS in text
    file.write_text(text.replace(LOSS, LOSS.replace("return", "return 100 *")), encoding="utf-8")
    return copy


def run_in(clone, *command):
    """A command with the clone's code: its exit code and all that it printed."""
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(clone), *sys.path]),
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    return done.returncode, done.stdout, " ".join(done.stderr.split())


TRAIN = """
import sys
import hkrun
from test_other_code import train
from hkrun.spaces import load_sweep
from hkrun.store import open_store
assert hkrun.__file__.startswith(sys.argv[1]), hkrun.__file__
train(open_store("hkrun-store"), load_sweep("small.toml"), other_code=sys.argv[2])
"""


def test_a_changed_loss_never_shows_the_old_figure_as_new(store, small, clone):
    train(store, small)
    save_plan(store, small)
    identity = cell_id(small.cells[0].cell)
    old = store.record(identity, 0)
    before = files_of(store, small)
    code, out, told = run_in(clone, "-m", "hkrun", "sweep", "small.toml")
    assert (code, out) == (2, "")
    (here,) = re.findall(r"here (source [0-9a-f]{12})\)", told)
    assert told == (
        f"hkrun: 4 runs and 1 teacher in the store are of other code (epoch 1, here {here}), which may give "
        f"other numbers: kd seeds 0, 1; alone seeds 0, 1; teacher {teacher_id(small.cells[0].cell)}. --again "
        "makes them anew and keeps the old ones beside the new; --trust takes them as they are"
    )
    code, out, told = run_in(clone, "-m", "hkrun", "sweep", "small.toml", "--dry-run", "--json")
    assert (code, json.loads(out)["other_code"]["runs"]) == (0, 4)
    assert files_of(store, small) == before
    code, _, told = run_in(clone, "-c", TRAIN, str(clone), "again")
    assert code == 0, told
    new = store.record(identity, 0)
    assert new.code.numbers == here
    curves = [store.curves(identity, 0)["loss_kd"].to_pylist()[0]]
    (kept,) = Path(store.uri, store.run_folder(identity, 0), "earlier").iterdir()
    assert store.earlier_runs(identity, 0) == [old]
    from hkrun.store.columns import from_parquet

    curves.append(from_parquet((kept / "curves.parquet").read_bytes())["loss_kd"].to_pylist()[0])
    assert curves[0] > 10 * curves[1]
    # Without the change, the old figures come back, and those of the clone are kept.
    study = plan_study(small, store, Options(store=store.uri))
    resolve(study)
    assert study.coming_back.startswith("4 runs and 1 teacher of this code (epoch 1)")
    recheck(study)
    assert files_of(store, small) == before
    assert store.earlier_runs(identity, 0) == [new]


@pytest.mark.slow
def test_the_command_makes_anew_what_other_code_has_made_and_then_has_nothing_to_do(store, small, clone):
    train(store, small)
    save_plan(store, small)
    code, out, told = run_in(clone, "-m", "hkrun", "sweep", "small.toml", "--again")
    assert code == 0, told
    assert "They are made anew; the old ones are kept beside the new" in out
    assert all(
        store.record(cell_id(cell.cell), seed).code.numbers.startswith("source ")
        for cell in small.cells
        for seed in small.seeds
    )
    after = files_of(store, small)
    code, _, told = run_in(clone, "-m", "hkrun", "sweep", "small.toml")
    assert code == 0, told
    assert files_of(store, small) == after
