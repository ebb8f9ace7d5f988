"""What ends a sweep before its last run, and the exit code that its user sees."""

import dataclasses
from unittest.mock import MagicMock

import pytest
from image_examples import random_samples, write_png
from sweep_example import put_run

import hkrun.cluster
import hkrun.cluster.trials.tune
import hkrun.data.folder
import hkrun.sweep.planning
import hkrun.tracking
from hkrun.cli.program import call
from hkrun.cluster import TaskResult
from hkrun.data.decoding import decode
from hkrun.errors import DataError, StoreError
from hkrun.spaces import NamedCell
from hkrun.store import open_store

ERRORS = [
    pytest.param(DataError("imagenet/val.parquet: not there"), 3, id="data"),
    pytest.param(StoreError("hkrun-store: no space left"), 6, id="store"),
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("HKRUN_STORE", "MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    mirror = MagicMock()  # the thread of a real one would outlive a test that ends early
    mirror.return_value.__exit__.return_value = False
    monkeypatch.setattr(hkrun.tracking, "Mirror", mirror)
    return tmp_path


def run_until(error, folder):
    """Stands in for `run_tasks`: all tasks are done until one that meets an error, as Ray would report it."""

    def run_tasks(work, observer):
        def do(task, context):
            if task is work.tasks[-1]:
                raise error
            named = NamedCell(name="L_b", cell=task.cell)
            put_run(open_store(task.store), named, task.seeds[0])
            return [{"seed": task.seeds[0], "status": "finished", "error_last_pct": 3.0, "epochs": 2}]

        results = []
        for index, _ in enumerate(work.tasks):
            observer.started(index)
            reported = hkrun.cluster.trials.tune._run_trial(
                {"index": index, "workers": 1},
                work=dataclasses.replace(work, function=do),
                storage=folder,
            )
            results.append(TaskResult(**reported))
            if "error" in reported:
                observer.failed(index, reported["error"])
            else:
                observer.done(index, reported["outcomes"])
        return results

    return run_tasks


@pytest.mark.parametrize(("error", "code"), ERRORS)
def test_an_error_of_data_or_store_in_a_worker_is_the_commands_exit_code(
    folder, monkeypatch, capsys, error, code
):
    monkeypatch.setattr(hkrun.cluster, "run_tasks", run_until(error, folder))
    command = ["run", "method=supervised", "--seeds", "3", "--epochs", "2", "--pack", "1", "--yes"]
    assert call(command) == code
    assert error.message in capsys.readouterr().err.splitlines()[-1]
    runs = open_store(folder / "hkrun-store").runs()
    assert runs["status"].to_pylist() == ["finished"] * 2  # what is finished is kept


@pytest.mark.parametrize("verb", [["run", "method=supervised", "--epochs", "2"], ["teacher"]])
def test_the_data_is_checked_once_whether_or_not_there_is_a_store(folder, monkeypatch, verb):
    checks = []
    monkeypatch.setattr(hkrun.sweep.planning, "check_data", lambda _: checks.append(1))
    monkeypatch.setattr(hkrun.cluster, "run_tasks", run_until(DataError("gone"), folder))
    for number in (1, 2):
        assert call([*verb, "--yes"]) == 3
        assert len(checks) == number


@pytest.mark.parametrize("pack", ["1", "2"])
def test_the_images_of_a_folder_are_decoded_once_whether_or_not_there_is_a_store(folder, monkeypatch, pack):
    files = {folder / "data" / part / name / "1.png" for part in ("train", "test") for name in ("ant", "cat")}
    for number, path in enumerate(sorted(files)):
        path.parent.mkdir(parents=True)
        path.write_bytes(write_png(random_samples(8, 8, 3, seed=number)))
    decoded = []
    monkeypatch.setattr(hkrun.data.folder, "decode", lambda content: decoded.append(1) or decode(content))
    monkeypatch.setattr(hkrun.cluster, "run_tasks", run_until(DataError("gone"), folder))
    options = ["method=supervised", "student.batch_size=2", "--epochs", "50", "--seeds", "2", "--pack", pack]
    for number in (1, 2):
        assert call(["run", "--dataset", "folder", "--data", "data", *options, "--yes"]) == 3
        assert (folder / "hkrun-store").is_dir()
        assert len(decoded) == number * len(files)


@pytest.mark.parametrize(("error", "code"), ERRORS)
def test_the_same_goes_for_a_teacher(folder, monkeypatch, capsys, error, code):
    monkeypatch.setattr(hkrun.cluster, "run_tasks", run_until(error, folder))
    assert call(["teacher", "--yes"]) == code
    assert error.message in capsys.readouterr().err.splitlines()[-1]
