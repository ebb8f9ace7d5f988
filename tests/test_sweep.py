"""What a sweep does around its training: it leaves alone what is up to date, and refuses before it writes."""

import dataclasses
import shutil
import subprocess
import sys
import textwrap
from unittest.mock import MagicMock

import pytest
from study_example import run
from sweep_example import fill_store, make_sweep

from hkrun.cli.program import call
from hkrun.plans import save_plan
from hkrun.report import summarise, write_report
from hkrun.report.documents import renew_report
from hkrun.store import open_store


def contents(folder):
    """Every file below a folder with its size and the time of its last change."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "driver.lock"]
    return {path.relative_to(folder): (path.stat().st_size, path.stat().st_mtime_ns) for path in files}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("HKRUN_STORE", "MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path


@pytest.fixture
def store(folder):
    """A store with every run of `make_sweep`, and no report yet."""
    store = open_store(folder / "hkrun-store")
    fill_store(store, make_sweep())
    return store


def imported_by_sweep(store):
    """Asks for `make_sweep` in a process of its own; which of the heavy packages it imported."""
    code = f"""
        import sys
        from unittest.mock import MagicMock
        from sweep_example import make_sweep
        from hkrun.store import open_store
        from study_example import run
        outcome = run(make_sweep(), open_store({store.uri!r}), MagicMock())
        assert outcome.links.view and outcome.report["report.html"]
        print(*sorted({{"mlflow", "ray", "torch"}} & set(sys.modules)))
    """
    command = [sys.executable, "-c", textwrap.dedent(code)]
    path = ":".join(sys.path)
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={"PYTHONPATH": path, "PATH": ""}
    )
    return done.stdout.split()


@pytest.mark.usefixtures("undrawn_figures")
def test_a_finished_sweep_asked_for_again_writes_nothing_and_needs_neither_mlflow_nor_ray(
    store, empty_database
):
    database = store.local_path / "mlflow.db"
    shutil.copy(empty_database, database)
    empty = database.read_bytes()
    run(make_sweep(), store, MagicMock())
    assert database.read_bytes() != empty
    before = contents(store.local_path)
    assert imported_by_sweep(store) == []
    assert contents(store.local_path) == before
    database.unlink()
    run(make_sweep(), store, MagicMock())
    assert database.exists()


@pytest.mark.usefixtures("undrawn_figures")
def test_a_report_is_written_again_where_it_is_gone_or_says_something_else(store):
    sweep = make_sweep()
    save_plan(store, sweep)
    summary = summarise(sweep, store)
    paths = renew_report(summary, store)
    place = store.local_path / "sweeps" / "stability-digits"
    assert paths == {name: str(place / name) for name in paths}
    before = contents(place)
    assert renew_report(summary, store) == paths
    assert contents(place) == before
    fresh = (place / "report.md").read_bytes()
    (place / "report.md").unlink()
    assert renew_report(summary, store) == paths
    assert (place / "report.md").read_bytes() == fresh
    fewer = summarise(make_sweep(num_seeds=2), store)
    write_report(fewer, store)
    assert (place / "report.md").read_bytes() != fresh
    renew_report(summary, store)
    assert (place / "report.md").read_bytes() == fresh
    renew_report(fewer, store)
    assert (place / "report.md").read_bytes() != fresh
    written = contents(place)
    first, *rest = fewer.cells
    early = first.error_pct[:].copy()
    early[0, 0] += 1.0  # in a curve alone
    renew_report(
        dataclasses.replace(fewer, cells=(dataclasses.replace(first, error_pct=early), *rest)), store
    )
    assert contents(place) != written


@pytest.mark.parametrize(
    ("arguments", "code", "problem"),
    [
        (["sweep", "stability", "--dataset", "cifar10"], 3, "cifar10"),
        (["teacher", "--dataset", "cifar10"], 3, "cifar10"),
        (["run", "student.batch_size=301"], 2, "student.batch_size: 301 does not fit"),
        (["teacher", "teacher.batch_size=301"], 2, "teacher.batch_size: 301 does not fit"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(
    folder, monkeypatch, capsys, arguments, code, problem
):
    def refuse(*_, **__):
        raise OSError("no network")

    monkeypatch.setattr("torchvision.datasets.utils.download_url", refuse)
    (folder / "data").mkdir()
    assert call([*arguments, "--data", "data"]) == code
    assert problem in capsys.readouterr().err
    assert [path.name for path in folder.rglob("*")] == ["data"]
    store = open_store(folder / "hkrun-store")
    before = contents(folder)
    assert call([*arguments, "--data", "data"]) == code
    assert contents(folder) == before
    assert list(store.local_path.iterdir()) == [store.local_path / "store.json"]


def test_a_tracking_uri_that_cannot_be_used_is_refused_before_anything_is_written(
    folder, monkeypatch, capsys
):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "file:///runs")
    assert call(["run", "method=supervised", "--epochs", "1"]) == 2
    assert "MLFLOW_TRACKING_URI" in capsys.readouterr().err
    assert not (folder / "hkrun-store" / "sweeps").exists()


def test_a_place_without_a_store_gets_one(folder, capsys):
    (folder / "empty").mkdir()
    for place in ("empty", f"file://{folder}/nothing"):
        assert call(["sweep", "stability", "--dry-run", "--store", place]) == 0
        assert "80 of 80 runs to train" in capsys.readouterr().out
