import shutil

import pytest
from sweep_example import fill_store, make_sweep

from hkrun import store as records
from hkrun.plans import save_plan


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty working directory, without any setting of the user's."""
    monkeypatch.chdir(tmp_path)
    for name in ("HKRUN_STORE", "MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("FOLDER_OF_TEST", str(tmp_path))  # whose processes they are: see test_python_runs
    return tmp_path


@pytest.fixture
def files(folder):
    """The store of `hkrun-store`, with the finished study `stability` on digits and one that has no runs."""
    store = records.open_store(folder / "hkrun-store")
    fill_store(store, make_sweep())
    save_plan(store, make_sweep())
    save_plan(store, make_sweep(name="empty", num_seeds=2, epochs=9))
    return store


@pytest.fixture
def quick_mirror(folder, empty_database):
    """Puts MLflow's tables, which take seconds to make, where a store will be."""

    def prepare(store):
        (folder / store).mkdir()
        shutil.copy(empty_database, folder / store / "mlflow.db")

    return prepare
