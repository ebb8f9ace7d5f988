"""A store that hkrun wrote on 2026-11-22 (commit 0ca7a52): its runs are found, reported and gone on with.

Its records have fewer fields than today's, its plan no pack sizes, its cells none of the keys of since then.
"""

import json
import shutil
from pathlib import Path

import pytest
from task_example import make_task

from hkrun.code_identity import Code, find_code
from hkrun.config import cell_id
from hkrun.plans import make_plan, stored_plans
from hkrun.report import summarise
from hkrun.spaces import load_sweep
from hkrun.store import open_store
from hkrun.training import SingleProcess
from hkrun.trial.run import run_task

OLD = Path(__file__).with_name("of_2026_11_22")
IDS = {"L_b": "74b28e6ee1cf", "L_b + L_adv + L_is": "e40ca1523bd0", "FitNets": "64921c2d4015"}
TEACHER = "c380ca5ee3a9"
ERRORS_PCT = {
    "L_b": (88.07588075880759, 92.5925925925926),
    "L_b + L_adv + L_is": (84.55284552845528, 86.26919602529358),
    "FitNets": (96.6576332429991, 85.90785907859079),
}


@pytest.fixture
def store(tmp_path):
    return open_store(shutil.copytree(OLD / "store", tmp_path / "store"))


@pytest.fixture
def sweep():
    return load_sweep(str(OLD / "small.toml"))


def test_the_store_is_older_than_todays_fields():
    record = json.loads((OLD / "store/cells/74b28e6ee1cf/seeds/0/record.json").read_text(encoding="utf-8"))
    assert "world_sizes" not in record
    plan = json.loads((OLD / "store/sweeps/small-digits/plan.json").read_text(encoding="utf-8"))
    assert "pack" not in plan


def test_its_search_space_has_the_ids_of_then_and_its_finished_runs_are_found(store, sweep):
    assert {named.name: cell_id(named.cell) for named in sweep.cells} == IDS
    plan = make_plan(sweep, store)
    assert (plan.num_done, plan.num_to_run, plan.teachers) == (6, 3, ())
    assert {cell.name: cell.to_run for cell in plan.cells} == dict.fromkeys(IDS, (2,))


def test_its_stored_plan_is_read_and_means_the_same_cells(store, sweep):
    (plan,), problems = stored_plans(store)
    assert problems == {}
    assert {named.name: cell_id(named.cell) for named in plan.sweep.cells} == IDS
    assert plan.sweep.seeds == sweep.seeds
    assert plan.sizes == {}


def test_its_report_has_the_errors_of_then(store, sweep):
    summary = summarise(sweep, store)
    for cell in summary.cells:
        assert cell.seeds == (0, 1)
        assert cell.missing == (2,)
        assert tuple(cell.error_pct[:, -1]) == ERRORS_PCT[cell.name]
    assert [each.teacher_id for teacher in summary.teachers for each in teacher.trained] == [TEACHER]


def test_what_is_missing_is_trained_by_the_teacher_of_then(store, sweep):
    before = {path: path.read_bytes() for path in (store.local_path / "cells").rglob("seeds/[01]/*")}
    assert len(before) == 6 * 4
    weights = store.teacher(TEACHER).teacher_hash
    for named in sweep.cells:
        (outcome,) = run_task(make_task(store, named.cell, 2), SingleProcess())
        assert outcome["status"] == "finished"
        assert store.record(cell_id(named.cell), 2).teacher_hash == weights
    assert {path: path.read_bytes() for path in before} == before
    assert make_plan(sweep, store).num_to_run == 0
    assert all(cell.seeds == (0, 1, 2) for cell in summarise(sweep, store).cells)


def test_its_runs_count_as_of_the_first_numbers_epoch_whose_numbers_they_have(store, sweep, tmp_path):
    records = [record for identity in IDS.values() for record in store.records(identity)]
    assert {record.code for record in (*records, store.teacher(TEACHER))} == {Code(numbers="epoch 1")}
    plan = make_plan(sweep, store)
    if find_code().numbers == "epoch 1":
        assert plan.describe_other_code() == ""
        anew = open_store(tmp_path / "anew")
        for named in sweep.cells:
            for seeds in ((), (0,)) if named.cell.uses_teacher else ((0,),):
                run_task(make_task(anew, named.cell, *seeds), SingleProcess())
            found, then = (each.curves(cell_id(named.cell), 0) for each in (anew, store))
            for name in ("loss_total", "learning_rate"):
                # In float32, on whatever processor this is.
                assert found[name].to_pylist() == pytest.approx(then[name].to_pylist(), rel=1e-3)
    else:
        assert plan.num_other_code == len(records)
