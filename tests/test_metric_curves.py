"""Runs are written by MLflow's client into MLflow's own stores; what is read of them has the same bits."""

import contextlib
import json
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from curve_example import CELLS, SEEDS, accuracy_of, make_frame
from sweep_example import fill_store, make_curves, make_summaries, make_sweep

from hkrun.cli.program import call
from hkrun.curve_files import Columns, Source, assemble
from hkrun.errors import InputError, StoreError
from hkrun.stats import stability
from hkrun.store import open_store
from hkrun.tracking import read_metric_curves, sync

ACCURACY = Columns(value="val_acc", cell="method")


@pytest.fixture
def database(tmp_path: Path, empty_database: Path) -> Path:
    path = tmp_path / "mlflow.db"
    shutil.copy(empty_database, path)
    return path


def write_runs(uri: str, *, experiment: str = "study", status: str = "FINISHED", **changes: Any) -> None:
    """The runs of the example, named CELL-SEED; parameters that are None are left out."""
    from mlflow.entities import Metric
    from mlflow.tracking import MlflowClient

    client = MlflowClient(uri)
    experiment_id = client.create_experiment(experiment)
    for (cell, seed), rows in make_frame().groupby(["cell", "seed"]):
        parameters = {"seed": seed, "method": cell} | changes
        run_id = client.create_run(experiment_id, run_name=f"{cell}-{seed}").info.run_id
        for key, value in parameters.items():
            if value is not None:
                client.log_param(run_id, key, value)
        points = zip(rows.epoch.tolist(), rows.error_pct.tolist(), strict=True)
        metrics = [Metric("val_acc", accuracy_of(error), 0, epoch) for epoch, error in points]
        client.log_batch(run_id, [*metrics, Metric("loss", 1.0, 0, 1)])
        client.set_terminated(run_id, status=status)
    client.create_run(experiment_id, run_name="sweep")  # a parent has no such metric


def read(uri: object, columns: Columns = ACCURACY, experiment: str = "study") -> Source:
    return read_metric_curves(str(uri), experiment, columns)


def assert_same_bits(source: Source) -> None:
    found = assemble([source], window=6)
    frame = make_frame()
    assert sorted(found.cells) == sorted(CELLS)
    for cell, curves in found.cells.items():
        assert curves.seeds == SEEDS
        expected = [frame[(frame.cell == cell) & (frame.seed == seed)].error_pct.tolist() for seed in SEEDS]
        assert curves.error_pct.tolist() == expected


@pytest.mark.parametrize(
    "uri", [str, lambda path: f"sqlite:///{path}"], ids=["the path of a database", "its URI"]
)
def test_runs_in_a_database_have_the_same_bits(database: Path, uri: Callable[[Path], str]) -> None:
    write_runs(f"sqlite:///{database}")
    before = sorted(database.parent.iterdir())
    source = read(uri(database))
    assert_same_bits(source)
    assert source.left_out == ["sweep"]
    assert source.doubts == []
    assert sorted(database.parent.iterdir()) == before, "reading leaves nothing"


@pytest.mark.parametrize("uri", [str, Path.as_uri], ids=["the path of a folder", "its URI"])
def test_runs_in_a_folder_have_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: Callable[[Path], str]
) -> None:
    with monkeypatch.context() as allowed:
        allowed.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        write_runs((tmp_path / "mlruns").as_uri())
    monkeypatch.delenv("MLFLOW_ALLOW_FILE_STORE", raising=False)
    assert_same_bits(read(uri(tmp_path / "mlruns")))


def test_seeds_and_cells_are_found_in_tags_and_names(database: Path) -> None:
    write_runs(f"sqlite:///{database}", seed=None, method=None)
    columns = Columns(value="val_acc", run_names="{cell}-{seed}")
    assert_same_bits(read(database, columns))
    with contextlib.closing(sqlite3.connect(database)) as opened, opened:
        rows = opened.execute("select run_uuid, name from runs where name like '%-%'").fetchall()
        for run_id, name in rows:
            cell, _, seed = name.rpartition("-")
            for key, value in (("trial", seed), ("kind", cell)):
                opened.execute(
                    "insert into tags (run_uuid, key, value) values (?, ?, ?)", (run_id, key, value)
                )
    assert_same_bits(read(database, Columns(value="val_acc", seed="trial", cell="kind")))


def test_what_hkrun_mirrored_is_read_without_options_but_the_metric(
    tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store, sweep = (
        open_store(tmp_path / "store"),
        make_sweep(num_cells=2, epochs=300),
    )  # of which losses are thinned
    fill_store(store, sweep)
    shutil.move(database, tmp_path / "store" / "mlflow.db")
    sync(sweep, store, summaries=make_summaries(store, sweep), files={})
    with contextlib.closing(sqlite3.connect(tmp_path / "store" / "mlflow.db")) as opened:
        ((experiment,),) = opened.execute("select name from experiments where experiment_id != 0").fetchall()
    options = [
        "--mlflow",
        str(tmp_path / "store" / "mlflow.db"),
        "--experiment",
        experiment,
        "--window",
        "150",
    ]
    assert call(["stability", *options, "--metric", "error_pct", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    curves = {
        cell.name: [make_curves(cell.name, seed, epochs=300)["error_pct"].to_pylist() for seed in sweep.seeds]
        for cell in sweep.cells
    }
    expected = {name: stability(errors, window=150) for name, errors in curves.items()}
    assert {cell["cell"]: cell["s"] for cell in told["cells"]} == expected
    assert told["read"][0]["quantity"] == "error"


def test_runs_that_did_not_finish_are_told(database: Path) -> None:
    write_runs(f"sqlite:///{database}", status="KILLED")
    (doubt,) = read(database).doubts
    assert doubt.startswith("runs that did not finish: 'L_b-0', ")


def problem_of(uri: object, columns: Columns = ACCURACY, experiment: str = "study") -> str:
    with pytest.raises(InputError) as caught:
        read(uri, columns, experiment)
    (problem,) = caught.value.problems
    return problem


def test_what_is_not_there_is_one_line_with_what_is(database: Path) -> None:
    write_runs(f"sqlite:///{database}", method=None)
    assert problem_of(database, experiment="studie") == (
        f"--experiment 'studie': not in MLflow at {database}; did you mean 'study'?"
    )
    assert problem_of(database, Columns(value="acc")) == (
        "experiment 'study': no metric 'acc'; did you mean 'val_acc'?"
    )
    assert problem_of(database, Columns()) == (
        "experiment 'study': which metric? --metric takes one; there are 'loss', 'val_acc'"
    )
    assert problem_of(database, Columns(value="val_acc", seed="sed")) == (
        "experiment 'study': no run has the parameter or tag 'sed'"
    )
    assert problem_of(database, Columns(value="val_acc", epoch="x")) == (
        "--epoch: not with --mlflow, whose metrics have steps"
    )
    assert problem_of(database, Columns(value="val_acc")) == (
        "experiment 'study': runs 'L_b-0' and 'L_b + L_is-0' are both seed 0, and 4 more; "
        "--cell names a parameter that tells cells apart"
    )


def test_runs_without_seeds_are_refused_with_what_would_tell_them(database: Path) -> None:
    write_runs(f"sqlite:///{database}", seed=None)
    problem = problem_of(database)
    assert problem.startswith("experiment 'study': runs 'L_b-0', 'L_b-1', ")
    patterns = "--run-names '*-{seed}' for runs of one cell, '{cell}-{seed}' for several"
    assert problem.endswith(f"give such as {patterns}, or --seed PARAMETER")


def test_a_seed_that_is_no_number_and_a_cell_that_is_missing_are_named_by_run(database: Path) -> None:
    write_runs(f"sqlite:///{database}", method=None)
    with pytest.raises(InputError) as caught:
        read(database)
    assert caught.value.problems[0] == "experiment 'study': run 'L_b-0' has no parameter or tag 'method'"
    write_runs(f"sqlite:///{database}", experiment="other", seed="one")
    with pytest.raises(InputError) as caught:
        read(database, experiment="other")
    assert caught.value.problems[0] == "experiment 'other': run 'L_b-0': seed is no whole number: 'one'"


ALLOWED = "give http(s)://HOST:PORT, a database's URI, or the path of mlflow.db or mlruns"


@pytest.mark.parametrize(
    ("uri", "problem"),
    [
        ("absent.db", f"--mlflow absent.db: no such file or folder; {ALLOWED}"),
        ("sqlite:///absent.db", f"--mlflow sqlite:///absent.db: no such file or folder; {ALLOWED}"),
        (".", f"--mlflow .: a folder without runs of MLflow; {ALLOWED}"),
        ("ftp://user:secret@host", f"--mlflow ftp://host: {ALLOWED}"),
        (
            "sqlite:///:memory:",
            (
                "--mlflow sqlite:///:memory:: a database in memory ends with the process, "
                f"and what it was given with it; {ALLOWED}"
            ),
        ),
    ],
)
def test_a_place_without_mlflow_is_refused_and_nothing_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uri: str, problem: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert problem_of(uri) == problem
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_of_mlflow_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    path.write_bytes(b"no database at all, only text")
    with pytest.raises(StoreError) as caught:
        read(path)
    assert len(caught.value.problems) == 1
    assert "secret" not in caught.value.message
