"""When a study's verdicts were read: what the store keeps of it."""

import dataclasses
import json
import logging
from unittest.mock import MagicMock

import pytest
import sweep_example
from study_example import run

import hkrun.tracking
from hkrun.errors import StoreError
from hkrun.plans import LOOKS_FILE, Looks, SequentialPlan, load_looks, record_look, save_looks, save_plan
from hkrun.store import open_store
from hkrun.sweep import running


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("HKRUN_STORE", "MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    return open_store(tmp_path / "hkrun-store")


@pytest.fixture
def folder(store):
    return store.local_path / "sweeps" / "stability-digits"


@pytest.fixture
def mirror(monkeypatch):
    """No MLflow."""
    mirror = MagicMock()
    mirror.return_value.__exit__.return_value = False
    monkeypatch.setattr(hkrun.tracking, "Mirror", mirror)


def with_seeds(number, **changes):
    return dataclasses.replace(sweep_example.make_sweep(num_seeds=number), **changes)


# --- what is kept -------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("mirror", "undrawn_figures")
def test_sweeps_that_end_with_verdicts_are_looks_and_the_same_number_again_is_none(store):
    for number in (3, 6, 8, 8, 6):  # three seeds cannot show anything at 5 %
        sweep_example.fill_store(store, with_seeds(number))
        run(with_seeds(number), store, MagicMock())
    looks = load_looks(store, with_seeds(8))
    assert looks == Looks(ordinary=(6, 8))
    assert [looks.at(number) for number in (5, 6, 8, 20)] == [(5,), (6,), (6, 8), (6, 8, 20)]


@pytest.mark.usefixtures("mirror")
def test_a_sweep_that_wrote_no_report_is_no_look(store, monkeypatch):
    def refuse(*_):
        raise StoreError("hkrun-store: no space left")

    sweep_example.fill_store(store, with_seeds(6))
    monkeypatch.setattr(running, "_write_report", refuse)
    with pytest.raises(StoreError):
        run(with_seeds(6), store, MagicMock())
    assert load_looks(store, with_seeds(6)) == Looks()


def test_another_study_on_the_same_runs_has_looks_of_its_own(store):
    record_look(store, with_seeds(6))
    assert load_looks(store, with_seeds(6, name="other")) == Looks()


def test_a_plan_is_kept_beside_ordinary_looks_and_every_other_file_stays(store, folder):
    save_plan(store, with_seeds(20))
    looks = Looks(ordinary=(8,), plan=SequentialPlan(most=12, decided={"0123456789ab": 9}))
    save_looks(store, with_seeds(12), looks)
    assert load_looks(store, with_seeds(12)) == looks
    record_look(store, with_seeds(14))
    after = load_looks(store, with_seeds(14))
    assert after == dataclasses.replace(looks, ordinary=(8, 14))
    assert sorted(path.name for path in folder.iterdir()) == ["looks.json", "manifest.json", "plan.json"]


def test_a_plan_allows_for_a_look_after_every_seed_until_a_study_goes_beyond_it():
    looks = Looks(ordinary=(8, 30), plan=SequentialPlan(most=10))
    assert (looks.plan_of(10), looks.plan_of(11)) == (looks.plan, None)
    assert looks.at(30) == (6, 7, 8, 9, 10, 30)
    assert looks.at(40) == (6, 7, 8, 9, 10, 30, 40)
    assert Looks().plan_of(6) is None


# --- what cannot be read ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[20, 30]", "list indices must be"),
        ('{"ordinary": [20]}', "there is no 'sequential'"),
        ('{"ordinary": [20, "30"], "sequential": null}', "'30' is no number of seeds"),
        ('{"ordinary": [true], "sequential": null}', "True is no number of seeds"),
        ('{"ordinary": [0], "sequential": null}', "0 is no number of seeds"),
        ('{"ordinary": 20, "sequential": null}', "iterable"),
        ('{"ordinary": [], "sequential": {"most": 20}}', "there is no 'decided'"),
        ('{"ordinary": [], "sequential": {"most": 5, "decided": {}}}', "6 are the fewest"),
        ('{"ordinary": [], "sequential": {"most": 9, "decided": {"a": 1.5}}}', "1.5 is no number of seeds"),
        ("{", "Expecting property name"),
    ],
)
def test_looks_that_make_no_sense_are_one_warning_and_none_are_known(store, caplog, content, problem):
    sweep = with_seeds(6)
    store.commit(store.sweep_folder(sweep.name, sweep.dataset), {LOOKS_FILE: content.encode()}, keep=None)
    with caplog.at_level(logging.WARNING, "hkrun"):
        assert load_looks(store, sweep) == Looks()
    (record,) = caplog.records
    message = record.getMessage()
    assert problem in message
    assert f"{store.place}/sweeps/stability-digits/looks.json" in message
    assert "p not corrected" in message
    assert "\n" not in message


def test_a_damaged_file_of_looks_is_one_warning_and_the_next_look_mends_it(store, folder, caplog):
    record_look(store, with_seeds(6))
    (folder / LOOKS_FILE).write_text(json.dumps({"ordinary": [20, 30], "sequential": None}))
    with caplog.at_level(logging.WARNING, "hkrun"):
        assert load_looks(store, with_seeds(6)) == Looks()
    assert len(caplog.records) == 1
    record_look(store, with_seeds(8))
    assert load_looks(store, with_seeds(8)) == Looks(ordinary=(8,))


def test_a_store_of_before_has_no_looks(store, caplog):
    save_plan(store, with_seeds(6))
    assert load_looks(store, with_seeds(6)) == Looks()
    assert not caplog.records
