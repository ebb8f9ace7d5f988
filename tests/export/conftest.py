"""Real tiny runs to export: trained on digits in seconds."""

import pytest

from hkrun.config import cell_from_values, cell_id, teacher_id
from hkrun.store import open_store
from hkrun.training import SingleProcess
from hkrun.trial import Task
from hkrun.trial.run import run_task


def train(store, method):
    """Trains one run of a method and returns its record."""
    cell = cell_from_values(
        {
            "dataset": "digits",
            "method": method,
            "teacher.network": "preact-8-w6",
            "teacher.epochs": 1,
            "student.network": "preact-8-w4",
            "student.epochs": 2,
            "augment.padding": 1,
            "augment.flip": False,
        }
    )
    common = {"cell": cell, "store": store.uri, "data_dir": None, "threads": 1, "device": "cpu"}
    if cell.uses_teacher:
        run_task(Task(cell_id=teacher_id(cell), seeds=(), **common), SingleProcess())
    (outcome,) = run_task(Task(cell_id=cell_id(cell), seeds=(3,), **common), SingleProcess())
    assert outcome["status"] == "finished", outcome
    return store.record(cell_id(cell), 3)


@pytest.fixture(scope="session")
def store(tmp_path_factory):
    """A store of its own."""
    return open_store(tmp_path_factory.mktemp("exported") / "hkrun-store")


@pytest.fixture(scope="session")
def runs(store):
    """The record of each method's run, trained when it is asked for."""

    class Runs(dict):
        def __missing__(self, method):
            self[method] = train(store, method)
            return self[method]

    return Runs()
