"""When a study's verdicts were read: what the store keeps of it."""

import dataclasses
import logging
from unittest.mock import MagicMock

import pytest
import sweep_example
from study_example import run

import hkrun.tracking
from hkrun.errors import StoreError
from hkrun.plans import (
    LOOKS_FILE,
    Looks,
    SequentialPlan,
    load_looks,
    record_look,
    record_look_of_before,
    save_looks,
    save_plan,
)
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
    sweep_example.fill_store(store, with_seeds(8))
    for number in (3, 6, 8, 8, 6):  # three seeds cannot show anything at 5 %
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
        ('{"ordinary": [], "sequential": null, "lost": 3}', "lost is 3"),
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
def test_looks_that_make_no_sense_are_lost_and_may_have_been_after_every_seed(store, content, problem):
    sweep = with_seeds(6)
    store.commit(store.sweep_folder(sweep.name, sweep.dataset), {LOOKS_FILE: content.encode()}, keep=None)
    looks = load_looks(store, sweep)
    assert (looks.ordinary, looks.plan) == ((), None)
    assert looks.lost.startswith("sweeps/stability-digits/looks.json cannot be understood (")
    assert problem in looks.lost
    assert "\n" not in looks.lost
    assert [looks.at(seeds) for seeds in (5, 6, 9)] == [(5,), (6,), (6, 7, 8, 9)]


@pytest.mark.parametrize("content", [b'{"ordinary": [20', b"", b'{"ordinary": [20, 30], "sequential": null}'])
def test_a_damaged_file_of_looks_is_put_aside_and_stays_known_as_lost(store, folder, caplog, content):
    record_look(store, with_seeds(6))
    whole = (folder / LOOKS_FILE).read_bytes(), (folder / "manifest.json").read_bytes()
    (folder / LOOKS_FILE).write_bytes(content)
    lost = Looks(lost="sweeps/stability-digits/looks.json is damaged")
    assert load_looks(store, with_seeds(8)) == lost
    with caplog.at_level(logging.WARNING, "hkrun"):
        record_look(store, with_seeds(8))
        record_look(store, with_seeds(10))
    assert [record.getMessage() for record in caplog.records] == [
        f"{store.place}/sweeps/stability-digits/looks.json is damaged; put aside as looks.json.damaged-1"
    ]
    after = load_looks(store, with_seeds(12))
    assert after == dataclasses.replace(lost, ordinary=(8, 10))
    assert after.at(12) == tuple(range(6, 13))
    assert (folder / "looks.json.damaged-1").read_bytes() == content
    save_looks(store, with_seeds(12), dataclasses.replace(after, plan=SequentialPlan(most=12)))
    assert load_looks(store, with_seeds(12)).lost == lost.lost
    (folder / LOOKS_FILE).write_bytes(b"again")
    record_look(store, with_seeds(12))
    assert (folder / "looks.json.damaged-2").read_bytes() == b"again"
    assert (folder / "looks.json.damaged-1").read_bytes() == content
    for name, copy in zip((LOOKS_FILE, "manifest.json"), whole, strict=True):
        (folder / name).write_bytes(copy)
    assert load_looks(store, with_seeds(8)) == Looks(ordinary=(6,))


def test_looks_whose_file_is_gone_are_lost_and_there_is_nothing_to_put_aside(store, folder):
    record_look(store, with_seeds(6))
    (folder / LOOKS_FILE).unlink()
    record_look(store, with_seeds(8))
    assert load_looks(store, with_seeds(8)).at(8) == (6, 7, 8)
    assert sorted(path.name for path in folder.iterdir()) == ["looks.json", "manifest.json"]


# --- studies of before looks were kept ----------------------------------------------------------------------


@pytest.mark.usefixtures("mirror", "undrawn_figures")
def test_a_complete_study_of_before_that_is_extended_was_looked_at(store):
    save_plan(store, with_seeds(8))
    sweep_example.fill_store(store, with_seeds(10))
    run(with_seeds(10), store, MagicMock())
    assert load_looks(store, with_seeds(10)) == Looks(ordinary=(8, 10))


@pytest.mark.parametrize(("planned", "made", "now"), [(8, 7, 10), (3, 3, 10), (8, 8, 8)])
def test_an_incomplete_study_of_before_was_not_looked_at(store, planned, made, now):
    save_plan(store, with_seeds(planned))
    sweep_example.fill_store(store, with_seeds(made))
    record_look_of_before(store, with_seeds(now))
    assert load_looks(store, with_seeds(now)) == Looks()


def test_a_study_whose_looks_are_kept_has_no_other_than_those(store):
    save_plan(store, with_seeds(8))
    sweep_example.fill_store(store, with_seeds(8))
    record_look(store, with_seeds(6))
    record_look_of_before(store, with_seeds(10))
    assert load_looks(store, with_seeds(10)) == Looks(ordinary=(6,))


def test_a_store_of_before_has_no_looks(store, caplog):
    save_plan(store, with_seeds(6))
    assert load_looks(store, with_seeds(6)) == Looks()
    assert not caplog.records
