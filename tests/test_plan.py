import dataclasses
import json

import pytest
from study_example import make_study, plan_on
from teacher_example import put_teacher

from hkrun.config import Cell, canonical_json, cell_from_values, cell_id, teacher_id, teachers_id
from hkrun.plans import (
    AUTO,
    PLAN_FILE,
    Execution,
    PackingFacts,
    Shortcuts,
    StoppedRun,
    Workers,
    checkpoint_epoch,
    choose_teacher_sizes,
    describe_tables,
    estimate_time,
    find_startup,
    load_stopped,
    save_executions,
    save_plan,
    save_stopped,
    stored_plans,
)
from hkrun.plans.startup import MEASURED as MEASURED_STARTUP
from hkrun.processor import processor_name
from hkrun.spaces import NamedCell, Recipe, Sweep
from hkrun.store import Record, open_store
from hkrun.sweep import Options, plan_study

MEASURED = "measured (2025-01-01, a laptop)"
L_B = cell_from_values({"loss.lambda_2": 0.0, "loss.lambda_3": 0.0, "student.epochs": 10})
L_IS = cell_from_values({"loss.lambda_2": 0.0, "student.epochs": 10})
ALONE = cell_from_values({"method": "supervised", "student.epochs": 10})


def make_sweep(cells=(("L_b", L_B), ("L_is", L_IS)), *, seeds=(0, 1, 2), evidence=None, name="study"):
    recipe_cell = cell_from_values({"student.epochs": 5, "teacher.epochs": 300})
    return Sweep(
        name=name,
        title="Study",
        question="",
        dataset="digits",
        seeds=tuple(seeds),
        reference=None,
        cells=tuple(NamedCell(name=name, cell=cell) for name, cell in cells),
        window=2,
        ddof=0,
        published=(),
        recipe=Recipe(dataset="digits", window=2, cell=recipe_cell, evidence=evidence or {}),
        source="study.toml",
    )


@pytest.fixture
def store(tmp_path):
    return open_store(tmp_path / "store")


def put(store, cell, seed, status="finished", seconds=None, **fields):
    identity = cell_id(cell)
    store.put_cell(identity, canonical_json(cell))
    record = Record(
        cell_id=identity,
        seed=seed,
        status=status,
        epochs=10,
        device="cpu",
        threads=1,
        started_at=0.0,
        timings={} if seconds is None else {"total": seconds},
        **fields,
    )
    store.put_run(record, curves=None, student=None)


def runs_of(plan):
    return [(pack.name, *pack.seeds) for pack in plan.packs]


# --- what remains -------------------------------------------------------------------------------------------


def test_without_a_store_everything_is_to_run_seed_by_seed_across_the_cells():
    plan = plan_on(make_sweep(seeds=(5, 3)), None)
    assert runs_of(plan) == [("L_is", 5), ("L_b", 5), ("L_is", 3), ("L_b", 3)]
    assert (plan.num_runs, plan.num_done, plan.num_to_run) == (4, 0, 4)


def test_a_run_with_a_result_is_not_repeated_and_a_failed_one_is(store):
    put(store, L_B, 0)
    put(store, L_B, 1, "diverged")
    put(store, L_B, 2, "failed")
    plan = plan_on(make_sweep([("L_b", L_B)]), store)
    assert runs_of(plan) == [("L_b", 2)]
    (cell,) = plan.cells
    assert (cell.seeds("finished"), cell.seeds("diverged"), cell.seeds("failed")) == ([0], [1], [2])
    assert (cell.num_runs, cell.num_done, cell.to_run) == (3, 2, (2,))


def test_more_seeds_add_runs_and_fewer_ask_for_less(store):
    for seed in range(3):
        put(store, L_B, seed)
    assert runs_of(plan_on(make_sweep([("L_b", L_B)], seeds=range(5)), store)) == [("L_b", 3), ("L_b", 4)]
    plan = plan_on(make_sweep([("L_b", L_B)], seeds=(1,)), store)
    assert (plan.num_runs, plan.num_done, plan.packs) == (1, 1, ())


def test_results_are_shared_by_every_sweep_that_has_the_configuration(store):
    put(store, L_B, 0)
    plan = plan_on(make_sweep([("another name", L_B)], seeds=(0, 1), name="other"), store)
    assert runs_of(plan) == [("another name", 1)]


def test_two_names_of_one_configuration_run_once(store):
    put(store, L_B, 0)
    plan = plan_on(make_sweep([("first", L_B), ("second", L_B), ("third", L_IS)], seeds=(0, 1)), store)
    assert runs_of(plan) == [("third", 0), ("third", 1), ("first", 1)]
    assert [(cell.name, cell.num_done, cell.to_run) for cell in plan.cells] == [
        ("first", 1, (1,)),
        ("second", 1, (1,)),
        ("third", 0, (0, 1)),
    ]
    assert (plan.num_runs, plan.num_done, plan.num_to_run) == (4, 1, 3)


def test_without_synchronised_batchnorm_other_workers_are_another_cell(store):
    apart = dataclasses.replace(L_B, sync_batchnorm=False)
    put(store, apart, 0)
    sweep = make_sweep([("apart", apart)], seeds=(0,))
    assert plan_on(sweep, store).num_to_run == 0
    assert plan_on(sweep, store, workers=Workers.exactly(2)).num_to_run == 1


# --- teachers -----------------------------------------------------------------------------------------------


def test_a_teacher_is_needed_once_for_all_cells_that_share_it(store):
    plan = plan_on(make_sweep([("L_b", L_B), ("L_is", L_IS), ("alone", ALONE)]), store)
    assert [teacher.teacher_id for teacher in plan.teachers] == [teacher_id(L_B)]
    put_teacher(store, L_B)
    assert plan_on(make_sweep(), store).teachers == ()


def test_a_teacher_that_no_remaining_run_uses_is_not_needed(store):
    put(store, L_B, 0)
    plan = plan_on(make_sweep([("L_b", L_B), ("alone", ALONE)], seeds=(0,)), store)
    assert runs_of(plan) == [("alone", 0)]
    assert plan.teachers == ()


# --- estimate -----------------------------------------------------------------------------------------------


def test_recorded_timings_of_the_same_cell_come_first(store):
    put_teacher(store, L_B)
    put(store, L_B, 0, seconds=8.0)
    put(store, L_B, 1, seconds=10.0)
    put(store, L_B, 2, seconds=90.0)
    put(store, L_B, 3, "failed", seconds=1.0)
    evidence = {"seconds_per_run": {"value": 1000.0, "label": MEASURED}}
    sweep = make_sweep([("L_b", L_B)], seeds=range(9), evidence=evidence)
    estimate = estimate_time(plan_on(sweep, store, slots=2))
    assert estimate.training_seconds == 6 * 10.0 / 2
    assert estimate.basis == "recorded timings of the same cell; 2 at a time"


def test_the_recipes_measurement_is_scaled_by_the_epochs(store):
    put_teacher(store, L_B)
    evidence = {"seconds_per_run": {"value": 3.0, "label": MEASURED}}
    estimate = estimate_time(plan_on(make_sweep(evidence=evidence), store, slots=3))
    assert estimate.training_seconds == 6 * (3.0 * 10 / 5) / 3
    assert estimate.basis == f"recipe digits, {MEASURED}, scaled by epochs; 3 at a time"


def test_a_method_of_two_stages_costs_the_epochs_of_both(store):
    put_teacher(store, L_B)
    evidence = {"seconds_per_run": {"value": 3.0, "label": MEASURED}}
    two_stages = dataclasses.replace(L_B, method="fsp")
    assert two_stages.stage_epochs == (3, 10)
    sweep = make_sweep([("fsp", two_stages)], seeds=(0,), evidence=evidence)
    assert estimate_time(plan_on(sweep, store)).training_seconds == pytest.approx(3.0 * 13 / 5, abs=0.05)


@pytest.mark.parametrize("slots", [1, 8])
def test_rounds_take_the_time_of_their_small_packs_one_after_the_other(store, slots):
    put_teacher(store, L_B)
    evidence = {
        "seconds_per_packed_run": {"value": 3.0, "label": MEASURED},
        "pack_cpu": {"value": 20, "label": MEASURED},
    }
    sweep = make_sweep([("L_b", L_B)], seeds=range(10), evidence=evidence)
    sizes = {cell_id(L_B): 20}
    rounds = plan_on(sweep, store, shortcuts=Shortcuts(until_decided=True), sizes=sizes, slots=slots)
    # A run alone takes 2 x 3.0 / 0.2 s; packs of six, two and two 1.9, 1.24 and 1.24 times that.
    assert estimate_time(rounds).training_seconds == pytest.approx(30.0 * (1.9 + 1.24 + 1.24), abs=0.05)
    assert estimate_time(plan_on(sweep, store, sizes=sizes, slots=slots)).training_seconds == 60.0


def test_more_slots_than_runs_do_not_shorten_one_run(store):
    put_teacher(store, L_B)
    evidence = {"seconds_per_run": {"value": 3.0, "label": MEASURED}}
    assert estimate_time(plan_on(make_sweep(evidence=evidence), store, slots=100)).training_seconds == 6.0


def test_a_missing_teacher_counts_where_it_was_ever_timed():
    evidence = {"seconds_per_run": {"value": 3.0, "label": MEASURED}}
    estimate = estimate_time(plan_on(make_sweep(evidence=evidence), None))
    assert estimate.training_seconds == 36.0
    assert estimate.basis.endswith(f"without training teacher {teacher_id(L_B)}, which was never timed")
    evidence["seconds_per_teacher"] = {"value": 50.0, "label": MEASURED}
    assert (
        estimate_time(plan_on(make_sweep(evidence=evidence), None)).training_seconds
        == 36.0 + 50.0 * 600 / 300
    )


def test_runs_of_several_workers_are_shorter_and_fewer_at_a_time(store):
    evidence = {"seconds_per_run": {"value": 3.0, "label": MEASURED}}
    sweep = make_sweep(evidence=evidence)
    put_teacher(store, L_B)
    plan = plan_on(sweep, store, workers=Workers.exactly(2), slots=5)
    estimate = estimate_time(plan)
    assert estimate.training_seconds == 6 * (6.0 / 2) / 2  # the fifth process has no second
    assert estimate.basis.endswith("; 2 at a time; as if 2 workers were so many times as fast as one")
    wide = plan_on(sweep, store, workers=Workers.exactly(4), slots=5)
    assert estimate_time(wide).training_seconds == 6 * 6.0 / 4
    # What a run took is counted in seconds of all its processes.
    put(store, L_B, 0, seconds=4.0, world_size=4)
    put(store, L_IS, 0, seconds=4.0, world_size=4)
    assert estimate_time(plan_on(sweep, store, slots=2)).training_seconds == 4 * 16.0 / 2


def test_the_teacher_of_several_workers_is_trained_sooner():
    evidence = {
        "seconds_per_run": {"value": 3.0, "label": MEASURED},
        "seconds_per_teacher": {"value": 50.0, "label": MEASURED},
    }
    plan = plan_on(make_sweep(evidence=evidence), None, workers=Workers.exactly(2), slots=2)
    assert estimate_time(plan).training_seconds == 6 * 6.0 / 2 + 100.0 / 2


def test_a_plan_says_how_many_workers_each_task_gets():
    streamed = cell_from_values({"dataset": "imagenet", "student.batch_size": 6})
    own = cell_from_values({"dataset": "imagenet", "sync_batchnorm": False})
    sweep = make_sweep([("streamed", streamed), ("own", own), ("digits", L_B)])
    document = plan_on(sweep, None, slots=8, group_slots=4).document()
    assert [cell["workers"] for cell in document["cells"]] == [
        {"least": 1, "most": 4},
        {"least": 1, "most": 1},
        {"least": 1, "most": 1},
    ]
    assert {
        teacher["teacher_id"]: teacher["workers"]["most"] for teacher in document["teachers_to_train"]
    } == {
        teacher_id(streamed): 4,
        teacher_id(L_B): 1,
    }
    elastic = plan_on(sweep, None, workers=Workers.parse("2:8"), slots=8).document()
    assert elastic["cells"][0]["workers"] == {"least": 2, "most": 6}  # no more than images in a batch


def test_a_plan_in_the_store_keeps_what_was_asked_of_workers_and_gpus(store):
    for workers in (AUTO, Workers.parse("2:4", per_gpu=3), Workers.exactly(2)):
        save_plan(store, make_sweep(), workers=workers)
        assert stored_plans(store)[0][0].workers == workers


# 36 s of runs and 100 s of the teacher: what comes on top are Ray, processes, table, report and MLflow.
TIMED = {
    "seconds_per_run": {"value": 3.0, "label": MEASURED},
    "seconds_per_teacher": {"value": 50.0, "label": MEASURED},
}


def test_what_comes_on_top_of_training_is_part_of_the_estimate():
    estimate = estimate_time(plan_on(make_sweep(evidence=TIMED), None))
    assert MEASURED_STARTUP.seconds == pytest.approx(4.4 + 2.4 + 2.5 + 0.9)
    assert (estimate.seconds, estimate.startup_seconds) == (36.0 + 100.0 + 10.2, 10.2)


def test_a_table_that_is_filled_ahead_costs_passes_of_the_teacher_and_none_where_the_teacher_is_there(store):
    many = make_sweep([("L_b", L_B)], seeds=range(40), evidence=TIMED)
    plan = plan_on(many, store, slots=2)
    assert [table.mode for table in plan.tables] == ["ahead"]  # 40 runs of 10 epochs, 162 views
    # 300 images to train on, each three passes, and 1,107 to test on: an epoch of 50 / 300 s.
    table_s = 50 / 300 * 300 * 162 / (3 * 300 + 1107) / 2
    assert estimate_time(plan).startup_seconds == pytest.approx(10.2 + table_s, abs=0.05)
    put_teacher(store, L_B)
    assert estimate_time(plan_on(many, store, slots=2)).startup_seconds == 10.2


def test_epochs_that_checkpoints_have_are_not_counted_again(store):
    put_teacher(store, L_B)
    sweep = make_sweep([("L_b", L_B)], seeds=(0, 1, 2), evidence=TIMED)
    for epoch in (3, 5):
        store.commit(f"{store.run_folder(cell_id(L_B), 1)}/checkpoints", {f"epoch-{epoch:06}.pt": b""})
    put(store, L_B, 2, seconds=6.0)
    plan = plan_study(sweep, store, Options(store=store.uri)).plan
    assert plan.reached == {(cell_id(L_B), 1): 5}
    estimate = estimate_time(plan)
    assert estimate.training_seconds == 1.5 * 6.0
    assert estimate.basis.endswith("; without the epochs that checkpoints have")


def test_what_executions_of_the_store_took_replaces_what_was_measured_elsewhere(store):
    def execution(started_at, *, ray, report=2.0, **phases):
        return Execution(
            started_at=started_at,
            slots=2,
            phases={"ray": ray, "training": 9.0, "report": report, "mlflow": 0.5, **phases},
            teachers={"launch": 3.0, "epochs": 5.0},
            runs={"launch": 1.0, "inputs": 2.0, "epochs": 9.0},
        )

    sweep, other = make_sweep(), dataclasses.replace(make_sweep(), name="other")
    assert find_startup(None, sweep) == find_startup(store, sweep) == MEASURED_STARTUP
    cut_off = dataclasses.replace(execution(9.0, ray=900.0), phases={"ray": 900.0, "training": 1.0})
    save_executions(store, other, [execution(1.0, ray=100.0), cut_off])
    found = find_startup(store, sweep)
    assert (found.ray_s, found.launch_s, found.report_s, found.mlflow_s) == (100.0, 3.0, 2.0, 0.5)
    save_executions(store, sweep, [execution(number, ray=float(number)) for number in (9, 1, 2, 3, 4, 5, 6)])
    assert find_startup(store, sweep).ray_s == 5.0  # the middle one of the five newest


def test_runs_of_this_machine_come_before_those_of_others(store):
    put_teacher(store, L_B)
    put(store, L_B, 0, seconds=4.0, processor="a slower one")
    sweep = make_sweep([("L_b", L_B)], seeds=range(4))
    assert estimate_time(plan_on(sweep, store)).training_seconds == 3 * 4.0
    put(store, L_B, 1, seconds=1.0, processor=processor_name())
    assert estimate_time(plan_on(sweep, store)).training_seconds == 2 * 1.0


def test_without_any_measurement_there_is_no_estimate_but_a_reason(store):
    estimate = estimate_time(plan_on(make_sweep(), store))
    assert estimate.training_seconds is None
    assert estimate.basis == "no finished run of 'L_is' is in the store, and recipe digits has no measurement"


def test_the_recipes_measurement_does_not_hold_for_other_networks():
    evidence = {"seconds_per_run": {"value": 3.0, "label": MEASURED}}
    wider = cell_from_values({"method": "supervised", "student.network": "wrn-16-2"})
    estimate = estimate_time(plan_on(make_sweep([("wide", wider)], evidence=evidence), None))
    assert estimate.training_seconds is None
    assert "its networks are not the recipe's" in estimate.basis
    other_teacher = cell_from_values({"method": "supervised", "teacher.network": "wrn-16-2"})
    assert (
        estimate_time(plan_on(make_sweep([("a", other_teacher)], evidence=evidence), None)).training_seconds
        is not None
    )


def test_nothing_to_run_takes_no_time(store):
    put(store, L_B, 0)
    plan = plan_on(make_sweep([("L_b", L_B)], seeds=(0,)), store)
    assert (estimate_time(plan).training_seconds, estimate_time(plan).basis) == (0.0, "nothing to run")


# --- the document -------------------------------------------------------------------------------------------


def test_the_document_is_the_contracts(store):
    put(store, L_B, 0, seconds=4.0)
    put_teacher(store, L_B)
    document = make_study(make_sweep([("L_b", L_B)], seeds=(0, 1, 2)), store).document()
    assert json.loads(json.dumps(document)) == {
        "sweep": "study",
        "cells": [
            {
                "cell_id": cell_id(L_B),
                "name": "L_b",
                "runs": 3,
                "done": 1,
                "to_run": 2,
                "other_code": 0,
                "pack": 1,
                "workers": {"least": 1, "most": 1},
            }
        ],
        "runs": 3,
        "done": 1,
        "to_run": 2,
        "other_code": {"runs": 0, "teachers": []},
        "trials": 2,
        "teachers": [
            {
                "teacher_id": teacher_id(L_B),
                "cells": ["L_b"],
                "mode": "first_use",
                "views": 162,
                "bytes": 300 * 162 * (10 * 4 + 8),
            }
        ],
        "teachers_to_train": [],
        "limits": [],
        "power": None,
        "estimate": {
            "seconds": 18.2,
            "basis": "recorded timings of the same cell; 1 at a time",
            "startup_seconds": 10.2,
        },
    }


# --- plans in the store -------------------------------------------------------------------------------------


def test_a_started_sweep_is_found_again_without_its_file(store):
    first, second = make_sweep(), make_sweep([("alone", ALONE)], name="another")
    save_plan(store, first, workers=Workers.exactly(2))
    save_plan(store, second)
    plans, problems = stored_plans(store)
    assert [(plan.sweep, plan.workers) for plan in plans] == [(second, AUTO), (first, Workers.exactly(2))]
    assert problems == {}


def test_the_newest_plan_of_a_sweep_stands_and_its_report_stays(store):
    save_plan(store, make_sweep())
    folder = store.sweep_folder("study", "digits")
    store.commit(folder, {"report.md": b"text"}, keep=[PLAN_FILE])
    save_plan(store, make_sweep(seeds=range(9)))
    (plan,) = stored_plans(store)[0]
    assert len(plan.sweep.seeds) == 9
    assert store.read(folder, "report.md") == b"text"


def test_a_plan_of_another_version_is_named_with_its_place_and_hides_no_other(store):
    save_plan(store, make_sweep())
    save_plan(store, make_sweep(name="zebra"))
    folder = store.sweep_folder("study", "digits")
    document = json.loads(store.read(folder, PLAN_FILE))
    document["sweep"]["cells"][0]["cell"]["loss.eta"] = 1
    store.commit(folder, {PLAN_FILE: json.dumps(document).encode()})
    plans, problems = stored_plans(store)
    assert [plan.sweep.name for plan in plans] == ["zebra"]
    assert list(problems) == [folder]
    told = f"{store.place}/{folder}/plan.json: cannot be understood (plan.json: loss.eta: unknown key"
    assert problems[folder].startswith(told)


@pytest.mark.parametrize("content", [b"{", b"[]", b'{"sweep": {}, "workers": 1}', b'{"sweep": 3}'])
def test_a_plan_that_is_no_plan_is_named_too(store, content):
    folder = store.sweep_folder("study", "digits")
    store.commit(folder, {PLAN_FILE: content})
    plans, problems = stored_plans(store)
    assert (plans, list(problems)) == ([], [folder])


def test_a_plan_whose_bytes_changed_is_named_too(store):
    save_plan(store, make_sweep())
    folder = store.sweep_folder("study", "digits")
    file = store.local_path / folder / PLAN_FILE
    file.write_bytes(file.read_bytes()[:-1] + b" ")
    plans, problems = stored_plans(store)
    assert (plans, list(problems)) == ([], [folder])


def test_the_newest_checkpoint_tells_how_far_a_run_is(store):
    identity = cell_id(Cell())
    assert checkpoint_epoch(store, identity, 3) is None
    folder = f"{store.run_folder(identity, 3)}/checkpoints"
    store.commit(folder, {"epoch-000007.pt": b"", "epoch-000012.pt": b""})
    assert checkpoint_epoch(store, identity, 3) == 12


# --- size ---------------------------------------------------------------------------------------------------


def test_ten_thousand_runs_are_planned_without_a_look_at_each(store, monkeypatch):
    """Per run a dictionary look-up, per cell one listing: the store is asked once per configuration."""
    asked = []
    listed = store.cell_runs
    monkeypatch.setattr(store, "cell_runs", lambda identity: asked.append(identity) or listed(identity))
    cells = [(f"mu {index}", cell_from_values({"loss.mu": 0.1 * (index + 1)})) for index in range(100)]
    plan = plan_on(make_sweep(cells, seeds=range(100)), store)
    assert len(plan.packs) == 10_000
    assert len(asked) == 100
    assert [pack.seeds for pack in plan.packs[:101]] == [(0,)] * 100 + [(1,)]


# --- runs that were stopped early ---------------------------------------------------------------------------


def test_a_run_that_was_stopped_early_is_marked_and_can_be_made_later(store):
    sweep = make_sweep(seeds=(0, 1))
    plan = plan_on(sweep, store)
    assert load_stopped(store, sweep) == []
    first, second = (
        StoppedRun(cell_id=pack.cell_id, seed=pack.seeds[0], epoch=3, error_pct=50.0)
        for pack in plan.packs[:2]
    )
    save_plan(store, sweep)
    save_stopped(store, sweep, [first])
    save_stopped(store, sweep, [second, first])
    assert load_stopped(store, sweep) == [first, second]
    with_scheduler = plan_on(sweep, store, shortcuts=Shortcuts(stop_early=True))
    assert runs_of(with_scheduler) == runs_of(plan)[2:]
    assert (with_scheduler.num_to_run, plan.num_to_run) == (2, 4)
    assert runs_of(plan_on(sweep, store)) == runs_of(plan), "without the scheduler they are runs like others"
    save_plan(store, sweep)
    assert load_stopped(store, sweep) == [first, second]
    assert len(stored_plans(store)[0]) == 1


# --- shortcuts ----------------------------------------------------------------------------------------------


def make_axes_sweep():
    """One cell of its own and three points of an axis, two seeds each."""
    cells = [("alone", ALONE)] + [
        (f"mu {mu}", cell_from_values({"method": "supervised", "student.epochs": 10, "student.momentum": mu}))
        for mu in (0.1, 0.2, 0.3)
    ]
    evidence = {"seconds_per_run": {"value": 10.0, "label": "measured (x)"}}
    sweep = make_sweep(cells, seeds=(0, 1), evidence=evidence)
    named = tuple(
        dataclasses.replace(cell, group="grid", point={"student.momentum": cell.cell.student.momentum})
        if index
        else cell
        for index, cell in enumerate(sweep.cells)
    )
    return dataclasses.replace(sweep, cells=named)


@pytest.mark.parametrize(("budget", "num_searched"), [(None, 3), (2, 2), (99, 6), (1, 1)])
def test_a_search_plans_for_its_budget_and_for_the_cells_off_the_axes(budget, num_searched):
    sweep = make_axes_sweep()
    whole = plan_on(sweep, None)
    plan = plan_on(sweep, None, shortcuts=Shortcuts(search=True, budget=budget))
    assert plan.packs == whole.packs, "any of them may be chosen"
    assert (plan.num_runs, plan.num_to_run, plan.document()["to_run"]) == (
        8,
        2 + num_searched,
        2 + num_searched,
    )
    assert estimate_time(plan).training_seconds == pytest.approx(
        estimate_time(whole).training_seconds * (2 + num_searched) / 8
    )
    assert f"the search makes {num_searched} of the runs on the axes" in estimate_time(plan).basis


def test_a_search_whose_budget_is_spent_has_nothing_to_run(store):
    sweep = make_axes_sweep()
    for named in sweep.cells:
        put(store, named.cell, 0)
    put(store, sweep.cells[0].cell, 1)
    plan = plan_on(sweep, store, shortcuts=Shortcuts(search=True))
    assert (plan.num_to_run, len(plan.packs)) == (0, 3)
    assert (estimate_time(plan).training_seconds, estimate_time(plan).basis) == (0.0, "nothing to run")


# --- a teacher for each seed --------------------------------------------------------------------------------

PAIRED = dataclasses.replace(L_B, teacher=dataclasses.replace(L_B.teacher, seeds="paired"))
PAIRED_IS = dataclasses.replace(L_IS, teacher=PAIRED.teacher)


def test_a_plan_lists_the_teacher_of_each_seed_once_for_all_cells():
    plan = plan_on(make_sweep([("a", PAIRED), ("b", PAIRED_IS)], seeds=(4, 0, 2)), None)
    ids = [teacher_id(PAIRED.with_teacher_of(seed)) for seed in (4, 0, 2)]
    assert [(teacher.teacher_id, teacher.seed) for teacher in plan.teachers] == list(
        zip(ids, (4, 0, 2), strict=True)
    )
    assert not any(teacher.cell.has_teachers for teacher in plan.teachers)
    assert [told["seed"] for told in plan.document()["teachers_to_train"]] == [4, 0, 2]
    packs = plan.in_packs({cell_id(PAIRED): 3, cell_id(PAIRED_IS): 2}).packs
    assert [(pack.name, pack.seeds, pack.teacher_ids) for pack in packs] == [
        ("b", (4, 0), tuple(ids[:2])),
        ("a", (4, 0, 2), tuple(ids)),
        ("b", (2,), (ids[2],)),
    ]


def test_a_plan_lists_no_teacher_that_the_store_has_or_whose_run_is_made(store):
    put_teacher(store, PAIRED.with_teacher_of(0))
    put(store, PAIRED, 1, "finished")
    plan = plan_on(make_sweep([("a", PAIRED)]), store)
    assert [teacher.seed for teacher in plan.teachers] == [2]


def test_students_of_one_teacher_need_it_once():
    shared = dataclasses.replace(PAIRED, teacher=dataclasses.replace(PAIRED.teacher, students=2))
    plan = plan_on(make_sweep([("a", shared)], seeds=range(5)), None)
    assert [teacher.seed for teacher in plan.teachers] == [0, 1, 2]


def test_each_teacher_has_a_table_of_its_own():
    plan = plan_on(make_sweep([("a", PAIRED), ("b", PAIRED_IS)]), None)
    assert [(table.teacher_id, table.names) for table in plan.tables] == [
        (teacher_id(PAIRED.with_teacher_of(seed)), ("b", "a")) for seed in (0, 1, 2)
    ]
    (line,) = describe_tables(plan.tables)
    assert line.startswith("Teacher table of each of 3 teachers: filled as the runs ask")


def test_teachers_are_trained_side_by_side():
    evidence = {
        "seconds_per_run": {"value": 3.0, "label": MEASURED},
        "seconds_per_teacher": {"value": 50.0, "label": MEASURED},
    }
    sweep = make_sweep([("a", PAIRED)], seeds=(0, 1), evidence=evidence)
    assert estimate_time(plan_on(sweep, None, slots=2)).training_seconds == 6.0 + 2 * 100.0 / 2
    del evidence["seconds_per_teacher"]
    untimed = make_sweep([("a", PAIRED)], seeds=(0, 1), evidence=evidence)
    assert estimate_time(plan_on(untimed, None)).basis.endswith(
        "without training 2 teachers, which were never timed"
    )


def test_a_pack_goes_on_without_the_runs_of_a_lost_teacher():
    (pack,) = plan_on(make_sweep([("a", PAIRED)]), None, sizes={cell_id(PAIRED): 3}).packs
    assert pack.without_teachers({pack.teacher_ids[1]}).seeds == (0, 2)
    assert pack.without_teachers(set(pack.teacher_ids)).seeds == ()
    (alone,) = plan_on(make_sweep([("a", L_B)], seeds=(0,)), None).packs
    assert alone.without_teachers({teacher_id(L_B)}).seeds == ()


def packs_of_teachers(plan):
    return [tuple(teacher.seed for teacher in pack) for pack in plan.teacher_packs]


def test_teachers_train_together_by_their_place_in_the_sweep_whichever_are_there(store):
    group = teachers_id(PAIRED)
    sweep = make_sweep([("a", PAIRED), ("b", PAIRED_IS)], seeds=(7, 0, 2, 3, 4))
    plan = plan_on(sweep, None, sizes={group: 2})
    assert packs_of_teachers(plan) == [(7, 0), (2, 3), (4,)]
    assert [told["pack"] for told in plan.document()["teachers_to_train"]] == [2] * 5
    put_teacher(store, PAIRED.with_teacher_of(7))
    put_teacher(store, PAIRED.with_teacher_of(2))
    assert packs_of_teachers(plan_on(sweep, store, sizes={group: 2})) == [(0,), (3,), (4,)]
    assert packs_of_teachers(plan_on(sweep, store)) == [(0,), (3,), (4,)]


def test_teachers_of_different_first_seeds_never_train_together():
    later = dataclasses.replace(PAIRED, teacher=dataclasses.replace(PAIRED.teacher, seed=9))
    sizes = {teachers_id(PAIRED): 4, teachers_id(later): 4}
    plan = plan_on(make_sweep([("a", PAIRED), ("b", later)], seeds=(0, 1)), None, sizes=sizes)
    assert packs_of_teachers(plan) == [(0, 1), (9, 10)]


def facts(**given):
    return PackingFacts(**{"workers": Workers.exactly(1), "slots": 2, "device": "cpu", **given})


def test_how_many_teachers_train_together_is_asked_begun_or_measured():
    group = teachers_id(PAIRED)
    sweep = make_sweep([("a", PAIRED), ("one", L_IS)], seeds=range(10))
    assert choose_teacher_sizes(sweep, facts()) == {group: 1}
    assert choose_teacher_sizes(sweep, facts(wanted=4)) == {group: 4}
    assert choose_teacher_sizes(sweep, facts(wanted=40)) == {group: 10}
    assert choose_teacher_sizes(sweep, facts(kept={group: 3})) == {group: 3}
    measured = make_sweep(
        [("a", PAIRED)],
        seeds=range(10),
        evidence={"teacher_pack_cpu": {"value": 8, "label": MEASURED}},
    )
    assert choose_teacher_sizes(measured, facts()) == {group: 5}  # no slot is idle
    assert choose_teacher_sizes(measured, facts(slots=1)) == {group: 8}
    assert choose_teacher_sizes(measured, facts(slots=1, limits={group: 6})) == {group: 6}
    assert choose_teacher_sizes(measured, facts(device="cuda")) == {group: 1}
    several = facts(wanted=4, workers=Workers.exactly(2))
    assert choose_teacher_sizes(measured, several) == {group: 1}
