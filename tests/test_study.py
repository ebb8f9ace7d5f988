"""A study is resolved once: what is found out about a sweep on its way from the command to the cluster."""

import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from unittest.mock import MagicMock

import pytest
from study_example import make_study
from sweep_example import fill_store, make_sweep, put_run
from test_sweep_stops import run_until
from two_slots import TWO_SLOTS

import hkrun.cluster
import hkrun.tracking
from hkrun.cli.program import call
from hkrun.errors import DataError
from hkrun.plans import save_plan
from hkrun.store import open_store
from hkrun.sweep.planning import recheck

DECISIONS = (
    "make_plan",
    "estimate_time",
    "find_machine",
    "check_packs",
    "expect_sizes",
    "fix_content",
    "check_elastic",
    "check_cluster",
    "check_data",
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("HKRUN_STORE", "MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    mirror = MagicMock()  # the thread of a real one would outlive a test that ends early
    mirror.return_value.__exit__.return_value = False
    monkeypatch.setattr(hkrun.tracking, "Mirror", mirror)
    return tmp_path


@contextmanager
def counted() -> Iterator[Counter[str]]:
    """Counts the calls of hkrun's functions that decide something, whichever module calls them."""
    package, calls = str(Path(hkrun.__file__).parent), Counter()

    def look(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_name in DECISIONS and code.co_filename.startswith(package):
            calls[code.co_name] += 1

    sys.setprofile(look)
    try:
        yield calls
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize("has_store", [False, True])
def test_a_fresh_sweep_is_planned_once_and_checked_again_once_under_the_lock(folder, monkeypatch, has_store):
    monkeypatch.setattr(hkrun.cluster, "run_tasks", run_until(DataError("gone"), folder))
    if has_store:
        open_store(folder / "hkrun-store")
    with counted() as calls:
        assert call(["sweep", "stability", "--seeds", "2", "--epochs", "1", "--yes"]) == 3
    assert calls == {
        "make_plan": 2,  # the plan and its recheck
        "expect_sizes": 2,  # the same: packs may have been begun meanwhile
        "estimate_time": 1,
        "find_machine": 1,
        "check_packs": 1,
        "fix_content": 1,
        "check_elastic": 1,
        "check_cluster": 1,
        "check_data": 1,
    }


def test_a_resumed_sweep_is_planned_once_and_checked_again_once(folder, monkeypatch):
    store, sweep = open_store(folder / "hkrun-store"), make_sweep(num_seeds=2)
    fill_store(store, make_sweep(num_seeds=1))
    save_plan(store, sweep)
    monkeypatch.setattr(hkrun.cluster, "run_tasks", run_until(DataError("gone"), folder))
    with counted() as calls:
        assert call(["resume"]) == 3
    assert (calls["make_plan"], calls["find_machine"], calls["fix_content"]) == (2, 1, 1)


def test_a_recheck_sees_what_another_driver_has_done_since(tmp_path):
    store, sweep = open_store(tmp_path), make_sweep(num_seeds=2)
    study = make_study(sweep, store, machine=TWO_SLOTS, pack=1)
    assert study.plan.num_to_run == 8
    put_run(store, sweep.cells[0], 0)
    again = recheck(study)
    assert again.plan.num_to_run == 7
    assert (again.sweep, again.options, again.machine) == (study.sweep, study.options, study.machine)


def test_a_recheck_keeps_the_packs_that_another_driver_has_begun(tmp_path):
    store, sweep = open_store(tmp_path), make_sweep(num_seeds=4)
    study = make_study(sweep, store, machine=TWO_SLOTS)
    identities = [planned.cell_id for planned in study.plan.cells]
    save_plan(store, sweep, sizes=dict.fromkeys(identities, 4))
    assert {len(pack.seeds) for pack in recheck(study).plan.packs} == {4}


def test_a_study_cannot_be_changed(tmp_path):
    study = make_study(make_sweep(), open_store(tmp_path))
    for holder, name in ((study, "plan"), (study.options, "pack"), (study.plan, "packs")):
        with pytest.raises(AttributeError):
            setattr(holder, name, None)
