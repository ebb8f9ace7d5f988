"""A command goes on with a study of the store or begins one of its own, and never replaces another."""

import dataclasses
import json

import pytest
from sweep_example import fill_store, make_sweep

from hkrun.errors import InputError
from hkrun.plans import (
    Looks,
    SequentialPlan,
    Shortcuts,
    Workers,
    save_looks,
    save_plan,
    stored_plan,
    stored_plans,
)
from hkrun.report import summarise
from hkrun.report.documents import describe_command
from hkrun.spaces import load_sweep, natural_name
from hkrun.store import open_store
from hkrun.sweep import Options, plan_study
from hkrun.sweep.planning import recheck

SPACE = """
dataset = "digits"
seeds = 4
[[cells]]
name = "one"
loss.lambda_2 = 0.1
[[cells]]
name = "two"
loss.lambda_2 = 0.2
"""


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "space.toml").write_text(SPACE, encoding="utf-8")
    return open_store(tmp_path / "store")


def plan(store, *overrides, space="space.toml", **asked):
    """The study of a command line."""
    of_sweep = {key: asked.pop(key) for key in ("seeds", "epochs", "dataset") if key in asked}
    sweep = load_sweep(space, overrides=overrides, **of_sweep)
    return plan_study(sweep, store, Options(store=store.uri, **asked))


def begin(store, *overrides, **asked):
    """The name of the study that a command line begins or goes on with."""
    study = plan(store, *overrides, **asked)
    save_plan(store, study.sweep, workers=study.options.workers)
    return study.sweep.name


def test_the_same_command_goes_on_with_its_study(store):
    assert [begin(store), begin(store)] == ["space", "space"]
    assert [begin(store, epochs="2"), begin(store, epochs="2")] == ["space-epochs-2"] * 2
    assert plan(store, epochs="2").note == ""
    assert len(stored_plans(store)[0]) == 2


def test_changed_keys_are_a_study_of_their_own_whichever_command_came_first(store):
    assert begin(store, epochs="2") == "space-epochs-2"
    assert begin(store) == "space"
    assert begin(store, "loss.mu=0.5", "teacher.epochs=3") == "space-mu-0.5-teacher.epochs-3"
    assert begin(store, "teacher.epochs=3", "loss.mu=0.5") == "space-mu-0.5-teacher.epochs-3"
    epochs = {found.sweep.name: found.sweep.cells[0].cell.student.epochs for found in stored_plans(store)[0]}
    assert epochs == {"space": 120, "space-epochs-2": 2, "space-mu-0.5-teacher.epochs-3": 120}


def test_another_data_set_is_another_study_of_the_same_name(store):
    assert [begin(store), begin(store, dataset="mnist5k")] == ["space", "space"]
    assert store.sweep_folders() == ["sweeps/space-digits", "sweeps/space-mnist5k"]


def test_more_seeds_go_on_and_fewer_are_a_study_of_their_own(store):
    assert [begin(store), begin(store, seeds="6")] == ["space", "space"]
    assert stored_plan(store, "space", "digits").sweep.seeds == tuple(range(6))
    study = plan(store, seeds="3")
    assert study.sweep.name == "space-seeds-3"
    assert study.note == (
        "Study space-seeds-3: space has 6 seeds, and 3 are asked for; --seeds 6 goes on with space, "
        "--name chooses another name"
    )
    assert begin(store, seeds="3") == begin(store, seeds="3") == "space-seeds-3"
    assert begin(store, seeds="7,11") == "space-seeds-7.11"
    assert stored_plan(store, "space", "digits").sweep.seeds == tuple(range(6))


def test_rounds_go_on_with_the_seeds_that_their_study_has_come_to_unless_others_are_asked_for(
    store, tmp_path
):
    text = SPACE.replace("seeds = 4", 'seeds = 4\nreference = "one"')
    (tmp_path / "space.toml").write_text(text, encoding="utf-8")
    begin(store, seeds="16")
    in_rounds = {"shortcuts": Shortcuts(until_decided=True), "seeds_asked": False}
    assert plan(store, seeds="12", **in_rounds).sweep.name == "space-seeds-12"  # it came at once
    save_looks(store, stored_plan(store, "space", "digits").sweep, Looks(plan=SequentialPlan(most=16)))
    study = plan(store, seeds="12", **in_rounds)
    assert (study.sweep.name, study.note, len(study.sweep.seeds)) == ("space", "", 16)
    assert len(plan(store, seeds="20", **in_rounds).sweep.seeds) == 20
    assert plan(store, seeds="12", shortcuts=Shortcuts(until_decided=True)).note == (
        "Study space-seeds-12: space has 16 seeds, and 12 are asked for; --max-seeds 16 goes on with space, "
        "--name chooses another name"
    )


def test_a_long_list_of_seeds_or_changes_is_a_short_name(store):
    begin(store)
    names = [begin(store, seeds=",".join(map(str, range(first, first + 40)))) for first in (5, 6)]
    names.append(
        begin(
            store,
            "loss.mu=0.5",
            "student.momentum=0.8",
            "student.weight_decay=0.0001",
            "loss.lambda_1=0.3",
            epochs="3",
        )
    )
    assert len(set(names)) == 3
    assert max(map(len, names)) < 30


def test_a_file_that_gained_a_cell_goes_on_and_one_that_lost_one_does_not(store, tmp_path):
    begin(store)
    more = SPACE + '[[cells]]\nname = "three"\nloss.lambda_2 = 0.3\n'
    (tmp_path / "space.toml").write_text(more, encoding="utf-8")
    assert begin(store) == "space"
    assert len(stored_plan(store, "space", "digits").sweep.cells) == 3
    (tmp_path / "space.toml").write_text(SPACE, encoding="utf-8")
    study = plan(store)
    assert (study.sweep.name, "with 1 configuration that this one has not" in study.note) == ("space-2", True)
    assert [begin(store), begin(store)] == ["space-2", "space-2"]
    (tmp_path / "space.toml").write_text(SPACE.replace("0.1", "0.15"), encoding="utf-8")
    assert begin(store) == "space-3"
    assert len(stored_plan(store, "space", "digits").sweep.cells) == 3


def test_other_names_and_another_title_of_the_same_configurations_go_on(store, tmp_path):
    begin(store)
    (tmp_path / "space.toml").write_text('title = "T"' + SPACE.replace('"one"', '"1"'), encoding="utf-8")
    assert begin(store) == "space"
    found = stored_plan(store, "space", "digits").sweep
    assert (found.title, [named.name for named in found.cells]) == ("T", ["1", "two"])


def test_two_files_of_one_name_are_two_studies(store, tmp_path):
    begin(store)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "space.toml").write_text(SPACE.replace("0.1", "0.4"), encoding="utf-8")
    assert begin(store, space="other/space.toml") == "space-2"


def test_a_number_of_workers_that_changes_results_is_another_study(store):
    alone = {"sync_batchnorm=false": Workers.exactly(1), "sync_batchnorm=true": Workers.exactly(2)}
    assert begin(store, "sync_batchnorm=false") == "space-sync_batchnorm-false"
    assert begin(store, "sync_batchnorm=false", workers=Workers.exactly(2)) == "space-sync_batchnorm-false-2"
    assert begin(store) == "space"
    assert begin(store, workers=alone["sync_batchnorm=true"]) == "space"


def test_a_given_name_is_kept_to_or_refused(store):
    assert begin(store, epochs="2", name="trial") == "trial"
    assert begin(store, epochs="2", seeds="9", name="trial") == "trial"
    before = json.loads(store.read("sweeps/trial-digits", "plan.json"))
    for asked, lost in (
        ({"epochs": "3", "seeds": "9"}, "2 configurations"),
        ({"epochs": "2"}, "5 seeds"),
        ({}, "2 configurations and 5 seeds"),
    ):
        with pytest.raises(InputError, match="remove it with hkrun rm trial") as caught:
            plan(store, name="trial", **asked)
        assert f"a study of that name on digits, with {lost} that this one has not" in caught.value.message
    assert json.loads(store.read("sweeps/trial-digits", "plan.json")) == before
    for name in ("", "../x", "a b", ".hidden", "-x", "a/b", "ä"):
        with pytest.raises(InputError, match="a name is of letters, digits"):
            plan(store, name=name)


def test_changes_that_change_nothing_go_on_with_the_study_that_is_there(store):
    begin(store)
    assert begin(store, epochs="120") == "space"
    assert len(stored_plans(store)[0]) == 1


def test_a_variant_that_an_earlier_version_called_by_its_space_is_found_and_goes_on(store):
    """Up to 0.1 every variant had the folder of its search space."""
    sweep = load_sweep("space.toml", epochs="2")
    save_plan(store, sweep)
    assert sweep.name == "space"
    assert begin(store, epochs="2", seeds="5") == "space"
    assert begin(store) == "space-2"
    assert {found.sweep.name for found in stored_plans(store)[0]} == {"space", "space-2"}


def test_a_study_that_got_the_name_meanwhile_is_not_replaced(store):
    study = plan(store, seeds="3")
    assert study.sweep.name == "space"
    save_plan(store, load_sweep("space.toml", seeds="5"))
    with pytest.raises(InputError, match="a study of that name on digits, with 2 seeds that this one"):
        recheck(study)


def test_a_plan_that_cannot_be_read_is_written_again(store):
    begin(store)
    store.commit("sweeps/space-digits", {"plan.json": b"{}"})
    assert begin(store) == "space"
    assert not stored_plans(store)[1]


@pytest.mark.parametrize(
    ("overrides", "asked", "words"),
    [
        ((), {}, ""),
        (("loss.mu=0.5",), {}, " loss.mu=0.5"),
        ((), {"seeds": "2"}, " --name space-seeds-2"),
        (("loss.mu=0.5",), {"name": "mine"}, " loss.mu=0.5 --name mine"),
    ],
)
def test_the_command_of_a_report_gives_its_study_again(store, overrides, asked, words):
    begin(store)
    sweep = plan(store, *overrides, **asked).sweep
    number = len(sweep.seeds)
    assert describe_command(summarise(sweep, store)) == (
        f"hkrun sweep space.toml{words} --dataset digits --seeds {number}"
    )


def test_a_sweep_without_a_command_is_called_what_it_is(store):
    sweep = make_sweep(name="plain")
    assert natural_name(sweep) == "plain"
    assert natural_name(dataclasses.replace(sweep, command=("hkrun", "run", "loss.mu=2"))) == "plain"


def test_runs_are_shared_by_the_studies_that_want_them(store):
    sweep = make_sweep(num_seeds=5)
    fill_store(store, sweep)
    save_plan(store, sweep)
    fewer = plan_study(make_sweep(num_seeds=2), store, Options(store=store.uri))
    assert (fewer.sweep.name, fewer.plan.num_to_run, fewer.plan.num_done) == ("stability-seeds-2", 0, 8)
