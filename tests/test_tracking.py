"""What is mirrored is counted in MLflow's own database, not through the code that wrote it."""

import base64
import contextlib
import dataclasses
import gc
import http.server
import itertools
import json
import math
import os
import re
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
import weakref
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from processes import find_mlflow_servers
from sweep_example import (
    SECONDS_PER_EPOCH,
    STARTED_AT,
    fill_store,
    make_curves,
    make_summaries,
    make_sweep,
    put_run,
)

import hkrun.tracking.runs
import hkrun.tracking.tables
from hkrun.config import canonical, cell_id
from hkrun.errors import DataError, InputError, StoreError
from hkrun.spaces import Sweep
from hkrun.store import CellRuns, Store, open_store
from hkrun.sweep import mirror_sweep
from hkrun.tracking import Links, Mirror, Site, background, resolve_uri, serve, server, sync, ui
from hkrun.tracking.connection import connect
from hkrun.tracking.content import RunContent, cells_of, digest, run_digest
from hkrun.tracking.mirror import Experiment
from hkrun.tracking.points import Points
from hkrun.tracking.runs import ClientRuns, MirroredRun
from hkrun.tracking.tables import DatabaseRuns

REPORT = {"report.md": b"# Report\n", "figure.svg": b"<svg/>"}


@pytest.fixture
def store(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    made = open_store(tmp_path / "store")
    shutil.copy(empty_database, tmp_path / "store" / "mlflow.db")
    return made


def mirror_all(sweep: Sweep, store: Store, *, every: int | None = None) -> Links:
    return sync(sweep, store, summaries=make_summaries(store, sweep), files=REPORT, every=every).links


def use_client(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has MLflow's client write, as for a server and for databases that are not known."""
    monkeypatch.setattr(hkrun.tracking.tables, "_DATABASES", ())


@pytest.fixture(params=["tables", "client"])
def writer(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Either way of writing."""
    if request.param == "client":
        use_client(monkeypatch)
    return str(request.param)


def query(store: Store, sql: str) -> list[tuple[Any, ...]]:
    assert store.local_path is not None
    with contextlib.closing(sqlite3.connect(store.local_path / "mlflow.db")) as database:
        return database.execute(sql).fetchall()


def tags_of_runs(store: Store) -> dict[str, dict[str, str]]:
    """Tags by run id, of the runs that are not deleted."""
    rows = query(
        store,
        "select run_uuid, key, value from runs join tags using (run_uuid) where lifecycle_stage = 'active'",
    )
    found: dict[str, dict[str, str]] = {}
    for run_id, key, value in rows:
        found.setdefault(run_id, {})[key] = value
    return found


def points(store: Store) -> Counter[tuple[Any, ...]]:
    """Every metric row of an active run as (cell_id, seed or None, key, step, value, timestamp), counted."""
    tags = tags_of_runs(store)
    rows = query(store, "select run_uuid, key, step, value, timestamp from metrics")
    return Counter(
        (tags[run_id]["hkrun.cell_id"], tags[run_id].get("hkrun.seed"), *rest)
        for run_id, *rest in rows
        if run_id in tags
    )


def run_names(store: Store) -> list[str]:
    return sorted(name for (name,) in query(store, "select name from runs where lifecycle_stage = 'active'"))


def whole_database(store: Store) -> str:
    """Everything in the database, as text."""
    assert store.local_path is not None
    with contextlib.closing(sqlite3.connect(store.local_path / "mlflow.db")) as database:
        return "\n".join(database.iterdump())


def view_state(store: Store) -> dict[str, Any]:
    ((value,),) = query(
        store, "select value from experiment_tags where key = 'mlflow.sharedViewState.hkrun-comparison'"
    )
    packed = json.loads(value)["state"].removeprefix("deflate;")
    state: dict[str, Any] = json.loads(zlib.decompress(base64.b64decode(packed)))
    return state


# --- where MLflow is ----------------------------------------------------------------------------------------


def test_the_default_is_a_database_in_a_local_store(store: Store) -> None:
    assert store.local_path is not None
    assert resolve_uri(store) == f"sqlite:///{store.local_path}/mlflow.db"


def test_the_environment_wins_over_the_default(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow.example:5000")
    assert resolve_uri(store) == "http://mlflow.example:5000"


@pytest.mark.parametrize("uri", ["file:///runs", "./mlruns", "htp://host"])
def test_a_place_that_mlflow_cannot_write_to_is_refused(
    store: Store, monkeypatch: pytest.MonkeyPatch, uri: str
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    with pytest.raises(InputError, match=r"MLFLOW_TRACKING_URI: .*sqlite:////PATH/mlflow.db"):
        resolve_uri(store)


def test_importing_tracking_does_not_import_mlflow() -> None:
    code = "import sys, hkrun.tracking; assert not {'mlflow', 'torch', 'ray'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_processes_that_open_a_fresh_database_at_once_all_succeed(tmp_path: Path) -> None:
    code = f"from hkrun.tracking.connection import connect; connect('sqlite:///{tmp_path}/mlflow.db')"
    started = [subprocess.Popen([sys.executable, "-c", code]) for _ in range(3)]
    assert [process.wait() for process in started] == [0, 0, 0]
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".new"] == []


# --- what is mirrored ---------------------------------------------------------------------------------------


def expected_points(
    sweep: Sweep, mirrored: Callable[[str, int], bool] = lambda name, epoch: True
) -> Counter[tuple[Any, ...]]:
    """The points of curves that a store filled with a sweep should have in MLflow: those of `mirrored`."""
    expected: Counter[tuple[Any, ...]] = Counter()
    for cell in sweep.cells:
        for seed in sweep.seeds:
            curves = make_curves(cell.name, seed, epochs=cell.cell.student.epochs)
            for name in set(curves.column_names) - {"epoch"}:
                for epoch, value in zip(curves["epoch"].to_pylist(), curves[name].to_pylist(), strict=True):
                    time = round(1000 * (STARTED_AT + 100 * seed + SECONDS_PER_EPOCH * epoch))
                    if mirrored(name, epoch):
                        expected[(cell_id(cell.cell), str(seed), name, epoch, value, time)] += 1
    return expected


def curve_points(store: Store) -> Counter[tuple[Any, ...]]:
    """The same as MLflow has them."""
    return Counter({key: n for key, n in points(store).items() if key[1] is not None and key[3] > 0})


def is_error_or_loss(name: str, _: int) -> bool:
    return name.startswith(("error_", "loss_"))


def test_every_error_and_loss_of_a_short_run_is_there_once_with_its_stored_time(
    store: Store, writer: str
) -> None:
    sweep = make_sweep(num_cells=2, num_seeds=2, epochs=5)
    fill_store(store, sweep)
    mirror_all(sweep, store)
    assert curve_points(store) == expected_points(sweep, is_error_or_loss)
    assert set(points(store).values()) == {1}


@pytest.mark.parametrize(
    ("epochs", "spacing", "number"), [(100, 1, 100), (101, 2, 51), (600, 6, 100), (601, 7, 86)]
)
def test_errors_stay_whole_and_losses_are_at_a_hundred_epochs_at_most_up_to_the_last(
    store: Store, epochs: int, spacing: int, number: int
) -> None:
    sweep = make_sweep(num_cells=1, num_seeds=2, epochs=epochs)
    fill_store(store, sweep)
    mirror_all(sweep, store)
    chosen = set(range(epochs, 0, -spacing))
    assert len(chosen) == number
    assert curve_points(store) == expected_points(
        sweep,
        lambda name, epoch: name == "error_pct" or (name.startswith("loss_") and epoch in chosen),
    )


def test_a_run_that_broke_off_has_its_losses_at_the_epochs_of_the_others(store: Store) -> None:
    sweep = make_sweep(num_cells=1, num_seeds=2, epochs=601)
    fill_store(store, sweep)
    short = make_curves("L_b", 1, epochs=601).slice(0, 300)
    put_run(store, sweep.cells[0], 1, curves=short, epochs=300, status="diverged", diverged_epoch=300)
    mirror_all(sweep, store)
    steps = {
        seed: [key[3] for key in curve_points(store) if (key[1], key[2]) == (seed, "loss_total")]
        for seed in "01"
    }
    assert sorted(steps["1"]) == [epoch for epoch in sorted(steps["0"]) if epoch <= 300]
    assert len(steps["1"]) == 43


@pytest.mark.parametrize("every", [1, 5])
def test_asked_for_every_so_manieth_epoch_runs_get_what_they_lack_and_stay_the_same(
    store: Store, writer: str, every: int
) -> None:
    sweep = make_sweep(num_cells=2, num_seeds=2, epochs=12)
    fill_store(store, sweep)
    mirror_all(sweep, store)
    runs = {run for run, tags in tags_of_runs(store).items() if "hkrun.seed" in tags}
    client = connect(resolve_uri(store))
    for run in runs:
        client.log_metric(run, "mine", 5.0, timestamp=1, step=7)
        client.set_tag(run, "mlflow.note.content", "mine")
    mirror_all(sweep, store, every=every)
    wanted = expected_points(
        sweep, lambda name, epoch: is_error_or_loss(name, epoch) or epoch % every == 12 % every
    )
    assert {key: n for key, n in curve_points(store).items() if key[2] != "mine"} == wanted
    tags = tags_of_runs(store)
    assert {run for run, own in tags.items() if "hkrun.seed" in own} == runs
    assert {own["mlflow.note.content"] for own in tags.values() if "hkrun.seed" in own} == {"mine"}
    assert len([key for key in curve_points(store) if key[2] == "mine"]) == 4
    assert query(store, "select count(*) from runs where lifecycle_stage = 'deleted'") == [(0,)]
    before = whole_database(store)
    mirror_all(sweep, store, every=every)
    mirror_all(sweep, store)
    assert whole_database(store) == before


def as_an_earlier_hkrun_wrote_it(sweep: Sweep, store: Store) -> None:
    """All points of all curves, and no word of them."""
    mirror_all(sweep, store, every=1)
    assert store.local_path is not None
    with contextlib.closing(sqlite3.connect(store.local_path / "mlflow.db")) as database:
        database.execute("delete from tags where key = 'hkrun.points'")
        database.commit()


def test_runs_of_an_earlier_version_keep_all_their_points_and_are_counted(store: Store) -> None:
    small = make_sweep(num_cells=1, num_seeds=2, epochs=12)
    fill_store(store, small)
    as_an_earlier_hkrun_wrote_it(small, store)
    before = {run for run, tags in tags_of_runs(store).items() if "hkrun.seed" in tags}
    sweep = dataclasses.replace(small, seeds=(0, 1, 2))
    fill_store(store, sweep)
    mirrored = sync(sweep, store, summaries=make_summaries(store, sweep), files=REPORT)
    assert (mirrored.runs, mirrored.denser) == (3, 2)
    assert before < {run for run, tags in tags_of_runs(store).items() if "hkrun.seed" in tags}
    whole = expected_points(small)
    thin = expected_points(dataclasses.replace(sweep, seeds=(2,)), is_error_or_loss)
    assert curve_points(store) == whole + thin
    assert sync(sweep, store, summaries=make_summaries(store, sweep), files=REPORT) == mirrored
    everything = sync(sweep, store, summaries=make_summaries(store, sweep), files=REPORT, every=1)
    assert (everything.runs, everything.denser) == (3, 3)
    assert curve_points(store) == expected_points(sweep)


def test_the_parent_carries_the_mean_curve_and_the_summary(store: Store) -> None:
    sweep = make_sweep(num_cells=1, num_seeds=3, epochs=4)
    fill_store(store, sweep)
    summaries = make_summaries(store, sweep)
    sync(sweep, store, summaries=summaries, files={})
    name, identity = sweep.cells[0].name, cell_id(sweep.cells[0].cell)
    curves = [make_curves(name, seed, epochs=4)["error_pct"].to_pylist() for seed in sweep.seeds]
    parent = {(key, step): value for (_, seed, key, step, value, _) in points(store) if seed is None}
    means = {("error_pct", epoch + 1): math.fsum(run[epoch] for run in curves) / 3 for epoch in range(4)}
    numbers = {(key, 0): value for key, value in summaries[identity].items() if value is not None}
    assert parent == pytest.approx(means | numbers, rel=1e-14)


def test_children_lie_under_their_cell_with_seed_status_and_every_key(store: Store) -> None:
    sweep = make_sweep(num_cells=2, num_seeds=2, epochs=3)
    fill_store(store, sweep)
    links = mirror_all(sweep, store)
    tags = tags_of_runs(store)
    parents = {run: t["hkrun.cell_id"] for run, t in tags.items() if t["hkrun.kind"] == "cell"}
    children = {run: t for run, t in tags.items() if t["hkrun.kind"] == "run"}
    assert sorted(parents.values()) == sorted(cell_id(cell.cell) for cell in sweep.cells)
    assert len(children) == 4
    assert all(parents[t["mlflow.parentRunId"]] == t["hkrun.cell_id"] for t in children.values())
    for cell in sweep.cells:
        run = next(
            r
            for r, t in children.items()
            if (t["hkrun.cell_id"], t["hkrun.seed"]) == (cell_id(cell.cell), "1")
        )
        written = dict(query(store, f"select key, value from params where run_uuid = '{run}'"))
        form = {k: v if isinstance(v, str) else json.dumps(v) for k, v in canonical(cell.cell).items()}
        assert written == {k: v for k, v in form.items() if v} | {"seed": "1", "cell.name": cell.name}
    assert query(store, f"select name from experiments where experiment_id = {links.experiment_id}") == [
        ("stability on digits",)
    ]


def test_failed_and_diverged_runs_are_marked_and_do_not_enter_the_mean(store: Store) -> None:
    sweep = make_sweep(num_cells=1, num_seeds=3, epochs=4)
    cell = sweep.cells[0]
    put_run(store, cell, 0)
    put_run(store, cell, 1, status="diverged", diverged_epoch=4, error_last_pct=None)
    put_run(
        store,
        cell,
        2,
        status="failed",
        traceback="Traceback:\nValueError: no",
        error_last_pct=None,
        curves=None,
    )
    sync(sweep, store, summaries={}, files={})
    ends = dict(query(store, "select name, status from runs"))
    assert ends == {
        "L_b": "FINISHED",
        "L_b seed 0": "FINISHED",
        "L_b seed 1": "FAILED",
        "L_b seed 2": "FAILED",
    }
    by_seed = {tags.get("hkrun.seed"): tags for tags in tags_of_runs(store).values()}
    assert [by_seed[seed].get("hkrun.status") for seed in "012"] == ["finished", "diverged", "failed"]
    assert by_seed["2"]["hkrun.error"] == "ValueError: no"
    assert by_seed[None]["hkrun.diverged"] == "1"
    assert by_seed[None]["hkrun.failed"] == "2"
    assert [seed for seed, tags in by_seed.items() if "hkrun.shown" in tags] == ["0"]
    own = make_curves(cell.name, 0, epochs=4)["error_pct"].to_pylist()
    mean = sorted(
        (step, value)
        for (_, seed, key, step, value, _) in points(store)
        if seed is None and key == "error_pct"
    )
    assert mean == list(enumerate(own, start=1))


def test_values_that_are_not_finite_are_left_out_and_named(store: Store) -> None:
    sweep = make_sweep(num_cells=1, num_seeds=1, epochs=4)
    curves = make_curves("L_b", 0, epochs=4)
    column = curves.column_names.index("loss_total")
    curves = curves.set_column(column, "loss_total", pa.array([1.0, 2.0, math.inf, math.nan]))
    put_run(store, sweep.cells[0], 0, curves=curves, status="diverged", diverged_epoch=3)
    sync(sweep, store, summaries={cell_id(sweep.cells[0].cell): {"stability": math.inf}}, files={})
    assert query(store, "select step, value from metrics where key = 'loss_total' order by step") == [
        (1, 1.0),
        (2, 2.0),
    ]
    assert query(store, "select value from tags where key = 'hkrun.not_finite'") == [
        ("loss_total: 2 from epoch 3",)
    ]
    assert query(store, "select * from metrics where is_nan or abs(value) > 1e300 or key = 'stability'") == []


def test_the_report_lies_with_every_parent(store: Store) -> None:
    sweep = make_sweep(num_cells=2, num_seeds=1, epochs=2)
    fill_store(store, sweep)
    mirror_all(sweep, store)
    assert store.local_path is not None
    found = sorted(path.read_bytes() for path in (store.local_path / "mlartifacts").rglob("report/*"))
    assert found == sorted(list(REPORT.values()) * 2)


def test_no_batch_is_larger_than_mlflow_takes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.tracking import MlflowClient

    use_client(monkeypatch)
    sizes: list[int] = []
    original = MlflowClient.log_batch

    def counting(self: Any, run_id: str, metrics: Any = (), params: Any = (), **rest: Any) -> Any:
        sizes.append(len(metrics) + len(params))
        return original(self, run_id, metrics=metrics, params=params, **rest)

    monkeypatch.setattr(MlflowClient, "log_batch", counting)
    sweep = make_sweep(num_cells=1, num_seeds=1, epochs=600)
    fill_store(store, sweep)
    sync(sweep, store, summaries={}, files={}, every=1)
    assert max(sizes) == 1000
    assert len(points(store)) == 600 * 5 + 2 + 600  # the child's curves, its two errors, the parent's mean


def test_each_batch_shows_that_mlflow_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    events: list[str] = []

    class Client:
        tracking_uri = "http://mlflow.example"

        def log_batch(self, run_id: str, **content: object) -> None:
            events.append("batch")

        def set_terminated(self, run_id: str, **content: object) -> None:
            events.append("end")

    monkeypatch.setattr(hkrun.tracking.runs, "ENTITIES_PER_BATCH", 10)
    content = RunContent(
        run_id="run",
        cell_id="cell",
        seed=0,
        name="L_b seed 0",
        status="FINISHED",
        started_at=1.0,
        ended_at=2.0,
        tags={},
        points=[Points("error_pct", [1.0] * 25, range(25), range(25))],
    )
    runs = ClientRuns(Client(), "1", progress=lambda: events.append("progress"))  # type: ignore[arg-type]
    runs.write([content])
    assert events == ["batch", "progress", "batch", "progress", "batch", "end", "progress"]


class SlowServer:
    """Stands in for MLflow's client of a server: takes 50 ms for a run, and fails or waits at one of them."""

    tracking_uri = "http://mlflow.example"

    def __init__(self, *, fails_at: str = "", waits_at: str = "") -> None:
        self.fails_at, self.waits_at = fails_at, waits_at
        self.begun: list[str] = []
        self.most_at_once = self.now = 0

    def log_batch(self, run_id: str, *, tags: object = None, **content: object) -> None:
        if tags is not None:
            return
        self.begun.append(run_id)
        self.now += 1
        self.most_at_once = max(self.most_at_once, self.now)
        time.sleep(600 if run_id == self.waits_at else 0.05)
        self.now -= 1
        if run_id == self.fails_at:
            raise ConnectionError("the server is gone")

    def set_terminated(self, run_id: str, **content: object) -> None:
        """It is ended."""


def make_contents(number: int) -> list[RunContent]:
    return [
        RunContent(
            run_id=f"run{place}",
            cell_id="cell",
            seed=place,
            name=f"L_b seed {place}",
            status="FINISHED",
            started_at=1.0,
            ended_at=2.0,
            tags={"hkrun.seed": str(place)},
            points=[Points("error_pct", [1.0], [1], [1])],
        )
        for place in range(number)
    ]


def test_a_server_gets_four_runs_at_a_time_and_they_come_back_in_order() -> None:
    server = SlowServer()
    written = ClientRuns(server, "1", progress=lambda: None).write(make_contents(12))  # type: ignore[arg-type]
    assert [run.run_id for run in written] == [f"run{place}" for place in range(12)]
    assert server.most_at_once == 4


def test_after_a_server_is_gone_no_further_run_is_begun() -> None:
    server = SlowServer(fails_at="run1")
    with pytest.raises(ConnectionError):
        ClientRuns(server, "1", progress=lambda: None).write(make_contents(12))  # type: ignore[arg-type]
    assert len(server.begun) <= 8


def test_a_server_that_falls_silent_does_not_hold_up_the_end_of_the_process() -> None:
    code = """
import signal
from test_tracking import ClientRuns, SlowServer, make_contents
signal.signal(signal.SIGALRM, signal.default_int_handler)
signal.alarm(1)
try:
    ClientRuns(SlowServer(waits_at="run0"), "1", progress=lambda: None).write(make_contents(3))
except KeyboardInterrupt:
    print("interrupted")
"""
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    ended = subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | {"PYTHONPATH": paths},
    )
    assert ended.stdout == "interrupted\n"


def test_names_and_tracebacks_are_what_postgresql_takes(store: Store) -> None:
    sweep = make_sweep(num_cells=1, num_seeds=1, epochs=2)
    cell = dataclasses.replace(sweep.cells[0], name="L" * 300)
    put_run(store, sweep.cells[0], 0, status="failed", traceback="ValueError: a\0b")
    sync(dataclasses.replace(sweep, cells=(cell,)), store, summaries={}, files={})
    assert run_names(store) == ["L" * 250, "L" * 250]
    assert query(store, "select value from tags where key = 'hkrun.error'") == [("ValueError: a\ufffdb",)]


def rows_without_ids(store: Store) -> dict[str, list[tuple[Any, ...]]]:
    """The rows of all tables that tell of runs, with a run's name in place of its id and of its parent's."""
    assert store.local_path is not None
    names = dict(query(store, "select run_uuid, name from runs"))
    found = {}
    for table in ("runs", "tags", "params", "metrics", "latest_metrics"):
        rows = query(store, f"select * from {table}")
        found[table] = sorted(
            tuple(
                re.sub("[0-9a-f]{32}", lambda match: names[match[0]], value).replace(
                    str(store.local_path), ""
                )
                if isinstance(value, str)
                else value
                for value in row
            )
            for row in rows
        )
    return found


@pytest.mark.parametrize("unknown", ["database", "column"])
@pytest.mark.parametrize("epochs", [1, 300])
def test_rows_are_those_that_mlflows_own_client_writes_where_the_tables_are_not_known(
    store: Store,
    tmp_path: Path,
    empty_database: Path,
    monkeypatch: pytest.MonkeyPatch,
    epochs: int,
    unknown: str,
) -> None:
    sweep = make_sweep(num_cells=2, num_seeds=2, epochs=epochs)
    fill_store(store, sweep)
    put_run(store, sweep.cells[0], 1, status="failed", traceback="ValueError: no", curves=None)
    mirror_all(sweep, store)
    other = open_store(tmp_path / "other")
    shutil.copy(empty_database, tmp_path / "other" / "mlflow.db")
    fill_store(other, sweep)
    put_run(other, sweep.cells[0], 1, status="failed", traceback="ValueError: no", curves=None)
    if unknown == "database":
        use_client(monkeypatch)
    else:
        columns = hkrun.tracking.tables._COLUMNS
        monkeypatch.setitem(columns, "metrics", columns["metrics"][:-1])
    monkeypatch.setattr(DatabaseRuns, "write", pytest.fail)
    mirror_all(sweep, other)
    assert rows_without_ids(store) == rows_without_ids(other)
    assert len(rows_without_ids(store)["latest_metrics"]) > 20


def count_runs_written_together(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many runs each transaction from now on has."""
    written: list[int] = []
    write = DatabaseRuns.write

    def count(runs: DatabaseRuns, contents: Sequence[RunContent]) -> list[MirroredRun]:
        written.append(len(contents))
        return write(runs, contents)

    monkeypatch.setattr(DatabaseRuns, "write", count)
    return written


@pytest.mark.parametrize(("together", "sizes"), [(1, [1, 1, 1, 1]), (2, [2, 2]), (3, [3, 1])])
def test_runs_are_written_together_up_to_so_many_points_and_are_the_same(
    store: Store,
    tmp_path: Path,
    empty_database: Path,
    monkeypatch: pytest.MonkeyPatch,
    together: int,
    sizes: list[int],
) -> None:
    sweep = make_sweep(num_cells=1, num_seeds=4, epochs=12)
    fill_store(store, sweep)
    mirror_all(sweep, store)
    [(points,)] = query(
        store, "select count(*) from metrics join tags t using (run_uuid) where t.key = 'hkrun.seed'"
    )
    other = open_store(tmp_path / "other")
    shutil.copy(empty_database, tmp_path / "other" / "mlflow.db")
    fill_store(other, sweep)
    monkeypatch.setattr(hkrun.tracking.mirror, "POINTS_PER_BATCH", together * points // 4)
    written = count_runs_written_together(monkeypatch)
    mirror_all(sweep, other)
    assert written == [1, *sizes, 1]  # the parent is begun first, and ended last
    assert rows_without_ids(store) == rows_without_ids(other)


def test_where_mlflow_is_no_file_runs_are_written_a_few_together_however_few_points_they_have(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = make_sweep(num_cells=1, num_seeds=7, epochs=2)
    fill_store(store, sweep)
    monkeypatch.setattr(hkrun.tracking.mirror, "database_path", lambda _: None)
    monkeypatch.setattr(hkrun.tracking.mirror, "RUNS_PER_BATCH", 3)
    written = count_runs_written_together(monkeypatch)
    mirror_all(sweep, store)
    assert written == [1, 3, 3, 1, 1]


@pytest.mark.parametrize("there", [False, True])
def test_each_curve_that_is_read_is_a_sign_of_life(
    store: Store, monkeypatch: pytest.MonkeyPatch, there: bool
) -> None:
    """Or the end of a sweep gives up on an MLflow that answers, where curves are slow to read."""
    sweep = make_sweep(num_cells=1, num_seeds=6, epochs=2)
    fill_store(store, sweep)
    events: list[str] = []
    read, read_each = Store.curves, Store.each_curves

    def note(store: Store, identity: str, seed: int) -> pa.Table:
        events.append("read")
        return read(store, identity, seed)

    def note_each(store: Store, *args: Any, **kwargs: Any) -> Iterator[pa.Table]:
        for curves in read_each(store, *args, **kwargs):
            events.append("read")
            yield curves

    monkeypatch.setattr(Store, "curves", note)
    monkeypatch.setattr(Store, "each_curves", note_each)
    experiment = Experiment(sweep, store, progress=lambda: events.append("sign"))
    if there:  # then only the mean over seeds is left to do
        for seed in sweep.seeds:
            experiment.add(cell_id(sweep.cells[0].cell), seed)
    events.clear()
    experiment.complete(summaries={}, files={})
    assert events.count("read") == 6
    assert ("read", "read") not in itertools.pairwise(events)


@pytest.fixture
def unfrozen() -> Iterator[None]:
    """A process that has frozen nothing, as the tests' own has."""
    gc.unfreeze()
    yield
    gc.collect()
    gc.freeze()


class Held:
    """An object in a cycle, which only a collection of garbage frees."""

    def __init__(self) -> None:
        self.itself = self


@pytest.mark.usefixtures("unfrozen")
@pytest.mark.parametrize("away", [False, True])
def test_what_a_caller_holds_while_mlflow_is_written_is_collected_once_it_is_given_up(
    store: Store, monkeypatch: pytest.MonkeyPatch, away: bool
) -> None:
    sweep = make_sweep(num_cells=1, num_seeds=1, epochs=2)
    fill_store(store, sweep)
    frozen: list[int] = []
    write = DatabaseRuns.write

    def look(runs: DatabaseRuns, contents: Sequence[RunContent]) -> list[MirroredRun]:
        frozen.append(gc.get_freeze_count())
        if away:
            raise ConnectionRefusedError
        return write(runs, contents)

    monkeypatch.setattr(DatabaseRuns, "write", look)
    held = Held()
    seen = weakref.ref(held)
    with pytest.raises(StoreError) if away else contextlib.nullcontext():
        mirror_all(sweep, store)
    del held
    gc.collect()
    assert seen() is None
    assert min(frozen) > 0
    assert gc.get_freeze_count() == 0


@pytest.mark.usefixtures("unfrozen")
def test_what_a_process_has_frozen_itself_stays_frozen(store: Store) -> None:
    sweep = make_sweep(num_cells=1, num_seeds=1, epochs=2)
    fill_store(store, sweep)
    gc.freeze()
    mirror_all(sweep, store)
    assert gc.get_freeze_count() > 0


@pytest.mark.usefixtures("undrawn_figures")
def test_the_runs_that_the_report_is_of_are_mirrored_without_another_look_at_their_folders(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = make_sweep(num_cells=2, num_seeds=3, epochs=12)
    fill_store(store, sweep)
    put_run(store, sweep.cells[1], 0, status="failed", traceback="ValueError: no", curves=None)
    put_run(store, sweep.cells[1], 1, status="diverged", diverged_epoch=12)
    put_run(store, sweep.cells[0], 7)  # which the study does not have
    listed: Counter[str] = Counter()
    look = Store.cell_runs

    def count(store: Store, identity: str) -> CellRuns:
        listed[identity] += 1
        return look(store, identity)

    monkeypatch.setattr(Store, "cell_runs", count)
    assert mirror_sweep(sweep, store).runs == 6
    assert [listed[cell_id(named.cell)] for named in sweep.cells] == [1, 1]
    ended = [own["hkrun.status"] for own in tags_of_runs(store).values() if "hkrun.seed" in own]
    assert Counter(ended) == {"finished": 4, "failed": 1, "diverged": 1}
    before = curve_points(store)
    sync(sweep, store, summaries=make_summaries(store, sweep), files=REPORT)
    assert curve_points(store) == before, "a look at their folders finds the same"


def test_the_mean_over_seeds_is_that_of_all_of_them_whichever_were_mirrored_before(
    store: Store, tmp_path: Path, empty_database: Path
) -> None:
    sweep = make_sweep(num_cells=1, num_seeds=3, epochs=12)
    fill_store(store, sweep)
    mirror_all(sweep, store)
    other = open_store(tmp_path / "other")
    shutil.copy(empty_database, tmp_path / "other" / "mlflow.db")
    fill_store(other, dataclasses.replace(sweep, seeds=(0, 1)))
    mirror_all(dataclasses.replace(sweep, seeds=(0, 1)), other)
    fill_store(other, sweep)
    mirror_all(sweep, other)
    mean = (
        "select m.step, m.value from metrics m join tags t using (run_uuid) join runs using (run_uuid) "
        "where t.value = 'cell' and m.key = 'error_pct' and lifecycle_stage = 'active'"
    )
    assert sorted(query(other, mean)) == sorted(query(store, mean))
    assert len(query(store, mean)) == 12


def test_a_database_that_another_process_writes_to_is_waited_for(store: Store) -> None:
    assert store.local_path is not None
    sweep = make_sweep(num_cells=1, num_seeds=1, epochs=2)
    fill_store(store, sweep)
    mirror_all(sweep, store)
    expected = points(store)
    with contextlib.closing(sqlite3.connect(store.local_path / "mlflow.db")) as database:
        database.execute("delete from metrics")
        database.execute("update runs set status = 'RUNNING', end_time = null")
        database.commit()
    blocker = sqlite3.connect(store.local_path / "mlflow.db", check_same_thread=False)
    blocker.execute("begin immediate")
    release = threading.Timer(0.3, blocker.rollback)
    release.start()
    mirror_all(sweep, store)
    release.join()
    blocker.close()
    assert points(store) == expected


def test_nothing_reaches_the_terminal(store: Store, capfd: pytest.CaptureFixture[str]) -> None:
    sweep = make_sweep(num_cells=1, num_seeds=1, epochs=2)
    fill_store(store, sweep)
    mirror_all(sweep, store)
    assert capfd.readouterr() == ("", "")


# --- once and only once -------------------------------------------------------------------------------------


def test_a_second_time_adds_nothing(store: Store) -> None:
    sweep = make_sweep(num_cells=2, num_seeds=2, epochs=3)
    fill_store(store, sweep)
    first = mirror_all(sweep, store)
    before = whole_database(store)
    assert mirror_all(sweep, store) == first
    assert whole_database(store) == before


def test_the_digest_of_a_run_is_that_of_earlier_versions(store: Store) -> None:
    sweep = make_sweep(num_cells=1, num_seeds=1, epochs=2)
    record = put_run(
        store, sweep.cells[0], 0, pack=(0, 1), alarms=("a",), world_sizes={"1": 2}, versions={"torch": "2"}
    )
    (cell,) = cells_of(sweep, world_size=1)
    assert run_digest(cell, record) == digest([1, "L_b", dataclasses.asdict(record)])


def test_what_is_complete_is_not_even_written_again(
    store: Store, monkeypatch: pytest.MonkeyPatch, writer: str
) -> None:
    from mlflow.tracking import MlflowClient

    sweep = make_sweep(num_cells=1, num_seeds=2, epochs=2)
    fill_store(store, sweep)
    mirror_all(sweep, store)
    for method in (
        "create_run",
        "log_batch",
        "set_terminated",
        "set_tag",
        "log_artifacts",
        "set_experiment_tag",
    ):
        monkeypatch.delattr(MlflowClient, method)
    monkeypatch.delattr(DatabaseRuns, "write")
    mirror_all(sweep, store)


def mirror_until_killed(sweep: Sweep, store: Store, owner: Any, method: str, survived: int) -> None:
    """Mirrors, and is killed after a call of the method, once it has survived so many."""
    calls = 0
    original = getattr(owner, method)

    def dying(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        result = original(*arguments, **named)
        if calls > survived:
            raise KeyboardInterrupt
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, method, dying)
        with pytest.raises(KeyboardInterrupt):
            mirror_all(sweep, store)


def assert_mirrored_once(sweep: Sweep, store: Store) -> None:
    """That two cells with one seed and three epochs are there, each point once, and nothing is open."""
    assert run_names(store) == ["L_b", "L_b + L_is", "L_b + L_is seed 0", "L_b seed 0"]
    written = points(store)
    assert set(written.values()) == {1}
    per_run = Counter(key[:2] for key in written)
    plain, with_knowledge = (cell_id(cell.cell) for cell in sweep.cells)
    assert per_run == {
        (plain, None): 3 + 4,
        (plain, "0"): 3 * 3 + 2,
        (with_knowledge, None): 3 + 4,
        (with_knowledge, "0"): 3 * 4 + 2,
    }
    tags = tags_of_runs(store)
    parents = {own["hkrun.cell_id"]: run for run, own in tags.items() if own["hkrun.kind"] == "cell"}
    children = [own for own in tags.values() if own["hkrun.kind"] == "run"]
    assert all(own["mlflow.parentRunId"] == parents[own["hkrun.cell_id"]] for own in children)
    assert query(
        store, "select count(*) from runs where status = 'RUNNING' and lifecycle_stage = 'active'"
    ) == [(0,)]


@pytest.mark.parametrize(
    ("method", "survived"),
    [
        *((method, n) for method in ("create_run", "log_batch", "set_terminated") for n in range(4)),
        ("set_tag", 0),
        ("set_tag", 1),
        ("create_experiment", 0),
        ("log_artifacts", 0),
        ("log_artifacts", 1),
        ("set_experiment_tag", 0),
    ],
)
def test_a_kill_in_the_middle_is_made_good(
    store: Store, monkeypatch: pytest.MonkeyPatch, method: str, survived: int
) -> None:
    from mlflow.tracking import MlflowClient

    use_client(monkeypatch)
    sweep = make_sweep(num_cells=2, num_seeds=1, epochs=3)
    fill_store(store, sweep)
    mirror_until_killed(sweep, store, MlflowClient, method, survived)
    mirror_all(sweep, store)
    assert_mirrored_once(sweep, store)


@pytest.mark.parametrize("survived", range(0, 60, 5))
def test_ctrl_c_while_rows_are_written_leaves_whole_runs_or_none(store: Store, survived: int) -> None:
    from sqlalchemy.orm import Session

    sweep = make_sweep(num_cells=2, num_seeds=1, epochs=3)
    fill_store(store, sweep)
    mirror_until_killed(sweep, store, Session, "execute", survived)
    per_run = Counter(key[:2] for key in points(store))
    assert set(per_run.values()) <= {3 + 4, 3 * 3 + 2, 3 * 4 + 2}
    mirror_all(sweep, store)
    assert_mirrored_once(sweep, store)


@pytest.mark.slow
@pytest.mark.parametrize("survived", [20, 40])
def test_a_process_killed_while_it_writes_rows_is_caught_up_with(store: Store, survived: int) -> None:
    sweep = make_sweep(num_cells=2, num_seeds=1, epochs=3)
    fill_store(store, sweep)
    code = f"""
import os
from sqlalchemy.orm import Session
from sweep_example import make_sweep
from hkrun.store import open_store
from hkrun.tracking import sync
calls, execute = [], Session.execute
def dying(*arguments, **named):
    calls.append(None)
    result = execute(*arguments, **named)
    return result if len(calls) <= {survived} else os.kill(os.getpid(), {signal.SIGKILL})
Session.execute = dying
store = open_store({str(store.local_path)!r})
sync(make_sweep(num_cells=2, num_seeds=1, epochs=3), store, summaries={{}}, files={{}})
"""
    paths = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    killed = subprocess.run([sys.executable, "-c", code], check=False, env=os.environ | {"PYTHONPATH": paths})
    assert killed.returncode == -signal.SIGKILL
    mirror_all(sweep, store)
    assert_mirrored_once(sweep, store)


def test_a_batch_that_arrived_in_part_is_completed(store: Store) -> None:
    sweep = make_sweep(num_cells=1, num_seeds=1, epochs=6)
    fill_store(store, sweep)
    mirror_all(sweep, store)
    expected = points(store)
    assert store.local_path is not None
    with contextlib.closing(sqlite3.connect(store.local_path / "mlflow.db")) as database:
        database.execute("delete from metrics where step > 3")
        database.execute("update runs set status = 'RUNNING', end_time = null")
        database.commit()
    mirror_all(sweep, store)
    assert points(store) == expected


def test_runs_that_stand_for_the_same_are_reduced_to_one(store: Store) -> None:
    sweep = make_sweep(num_cells=1, num_seeds=2, epochs=3)
    fill_store(store, sweep)
    links = mirror_all(sweep, store)
    expected = points(store)
    client = connect(resolve_uri(store))
    for tags in list(tags_of_runs(store).values()):
        copied = {key: value for key, value in tags.items() if key.startswith(("hkrun.", "mlflow.parent"))}
        client.create_run(links.experiment_id, tags=copied, run_name="twin")
    mirror_all(sweep, store)
    assert run_names(store) == ["L_b", "L_b seed 0", "L_b seed 1"]
    assert points(store) == expected


def test_a_repeated_run_replaces_the_failed_one(store: Store) -> None:
    sweep = make_sweep(num_cells=1, num_seeds=1, epochs=3)
    put_run(store, sweep.cells[0], 0, status="failed", started_at=1.0, traceback="ValueError: no")
    sync(sweep, store, summaries={}, files={})
    put_run(store, sweep.cells[0], 0)
    mirror_all(sweep, store)
    assert query(store, "select name, status from runs where lifecycle_stage = 'active' order by name") == [
        ("L_b", "FINISHED"),
        ("L_b seed 0", "FINISHED"),
    ]
    curve = [step for (_, seed, key, step, _, _) in points(store) if seed == "0" and key == "error_pct"]
    assert sorted(curve) == [1, 2, 3]


def test_more_seeds_renew_the_parent_and_keep_the_children(store: Store) -> None:
    small = make_sweep(num_cells=1, num_seeds=2, epochs=3)
    fill_store(store, small)
    mirror_all(small, store)
    kept = {run for run, tags in tags_of_runs(store).items() if tags["hkrun.kind"] == "run"}
    large = dataclasses.replace(small, seeds=(0, 1, 2))
    fill_store(store, large)
    mirror_all(large, store)
    tags = tags_of_runs(store)
    (parent,) = (run for run, own in tags.items() if own["hkrun.kind"] == "cell")
    children = {run: own for run, own in tags.items() if own["hkrun.kind"] == "run"}
    assert kept < children.keys()
    assert {own["mlflow.parentRunId"] for own in children.values()} == {parent}
    steps = [step for (_, seed, key, step, _, _) in points(store) if seed is None and key == "error_pct"]
    assert sorted(steps) == [1, 2, 3]


def test_a_deleted_experiment_comes_back(store: Store) -> None:
    sweep = make_sweep(num_cells=1, num_seeds=1, epochs=2)
    fill_store(store, sweep)
    links = mirror_all(sweep, store)
    connect(resolve_uri(store)).delete_experiment(links.experiment_id)
    assert mirror_all(sweep, store).experiment_id == links.experiment_id
    assert run_names(store) == ["L_b", "L_b seed 0"]


def test_stores_that_share_a_server_stay_apart(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", resolve_uri(store))
    sweep = make_sweep(num_cells=1, num_seeds=1, epochs=2)
    fill_store(store, sweep)
    other = open_store(tmp_path / "other")
    put_run(other, sweep.cells[0], 0, started_at=5.0)
    first, second = mirror_all(sweep, store), mirror_all(sweep, other)
    assert first.experiment_id != second.experiment_id
    assert mirror_all(sweep, store) == first
    assert run_names(store) == ["L_b", "L_b", "L_b seed 0", "L_b seed 0"]


def test_two_names_of_one_configuration_are_one_cell(store: Store) -> None:
    sweep = make_sweep(num_cells=1, num_seeds=1, epochs=2)
    twin = dataclasses.replace(sweep.cells[0], name="HKSANC without all")
    fill_store(store, sweep)
    mirror_all(dataclasses.replace(sweep, cells=(*sweep.cells, twin)), store)
    assert run_names(store) == ["L_b = HKSANC without all", "L_b = HKSANC without all seed 0"]


# --- the comparison view ------------------------------------------------------------------------------------


def test_the_view_groups_the_seeds_by_cell(store: Store) -> None:
    sweep = make_sweep(num_cells=2, num_seeds=2, epochs=8)
    fill_store(store, sweep)
    links = mirror_all(sweep, store)
    state = view_state(store)
    assert state["groupBy"]["groupByKeys"] == [{"mode": "param", "groupByData": "cell.name"}]
    assert [chart["metricKey"] for chart in state["compareRunCharts"]] == ["error_pct", "error_pct"]
    assert state["compareRunCharts"][1]["range"]["xMin"] == 7
    shown = [tags["hkrun.kind"] for tags in tags_of_runs(store).values() if tags.get("hkrun.shown") == "yes"]
    assert shown == ["run"] * 4
    assert "viewStateShareKey=hkrun-comparison" in links.view


def test_the_view_shows_the_parents_where_the_ui_would_not_load_all_seeds(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = make_sweep(num_cells=2, num_seeds=2, epochs=2)
    fill_store(store, sweep)
    mirror_all(sweep, store)
    monkeypatch.setattr("hkrun.tracking.view.RUNS_PER_PAGE", 3)
    mirror_all(sweep, store)
    assert view_state(store)["groupBy"] is None
    shown = [tags["hkrun.kind"] for tags in tags_of_runs(store).values() if "hkrun.shown" in tags]
    assert shown == ["cell"] * 2


def test_cells_of_earlier_settings_leave_the_view(store: Store) -> None:
    before, now = (make_sweep(num_cells=1, num_seeds=2, epochs=epochs) for epochs in (2, 3))
    for sweep in (before, now):
        fill_store(store, sweep)
        mirror_all(sweep, store)
    shown = {tags["hkrun.cell_id"] for tags in tags_of_runs(store).values() if "hkrun.shown" in tags}
    assert shown == {cell_id(now.cells[0].cell)}


# --- in the background --------------------------------------------------------------------------------------


def test_the_background_mirror_writes_what_sync_writes(store: Store) -> None:
    sweep = make_sweep(num_cells=2, num_seeds=2, epochs=3)
    warnings: list[str] = []
    mirror = Mirror(sweep, store, warn=warnings.append)
    for cell in sweep.cells:
        for seed in sweep.seeds:
            put_run(store, cell, seed)
            mirror.run_done(cell_id(cell.cell), seed)
    links = mirror.finish(summaries=make_summaries(store, sweep), files=REPORT)
    assert links is not None
    assert warnings == []
    before = whole_database(store)
    assert mirror_all(sweep, store) == links
    assert whole_database(store) == before


def test_what_is_prepared_while_nothing_is_done_is_a_database_without_an_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    store, sweep = open_store(tmp_path / "store"), make_sweep(num_cells=1, num_seeds=1, epochs=2)
    with Mirror(sweep, store, warn=pytest.fail) as mirror:
        mirror.prepare()
        mirror.prepare()
    wait_for_mirrors()
    assert query(store, "select count(*) from experiments where experiment_id <> 0") == [(0,)]
    fill_store(store, sweep)
    with Mirror(sweep, store, warn=pytest.fail) as mirror:
        mirror.prepare()
        mirror.run_done(cell_id(sweep.cells[0].cell), 0)
        assert mirror.finish(summaries={}, files={}) is not None
    assert run_names(store) == ["L_b", "L_b seed 0"]


def test_a_server_that_is_away_when_it_is_prepared_is_told_of_with_the_first_run(
    store: Store, monkeypatch: pytest.MonkeyPatch, closed_port: int
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed_port}")
    warnings: list[str] = []
    with Mirror(make_sweep(), store, warn=warnings.append) as mirror:
        mirror.prepare()
        assert mirror.finish(summaries={}, files={}) is None
    assert len(warnings) == 1


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port on which nobody listens, kept from others."""
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        yield holder.getsockname()[1]


def test_a_server_that_is_away_costs_one_line_without_the_password(
    store: Store, monkeypatch: pytest.MonkeyPatch, closed_port: int, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://me:secret@127.0.0.1:{closed_port}")
    sweep = make_sweep(num_cells=1, num_seeds=1, epochs=2)
    fill_store(store, sweep)
    warnings: list[str] = []
    mirror = Mirror(sweep, store, warn=warnings.append)
    mirror.run_done(cell_id(sweep.cells[0].cell), 0)
    assert mirror.finish(summaries={}, files=REPORT) is None
    (warning,) = warnings
    assert warning.startswith(
        f"MLflow at http://127.0.0.1:{closed_port} cannot be reached: Connection refused; "
    )
    assert warning.endswith("`hkrun sync` brings MLflow up to date later")
    assert "\n" not in warning
    assert "secret" not in warning
    assert capfd.readouterr() == ("", "")
    with pytest.raises(StoreError, match=r"MLflow at http://127\.0\.0\.1"):
        mirror_all(sweep, store)


@pytest.mark.parametrize(
    ("status", "user", "told"),
    [
        (
            401,
            "",
            "asks for a user and a password; set MLFLOW_TRACKING_USERNAME",
        ),
        (401, "ada", "refuses user 'ada' with this password; see MLFLOW_TRACKING_USERNAME"),
        (401, "token", "refuses the token in MLFLOW_TRACKING_TOKEN"),
        (403, "ada", "user 'ada' may not change this sweep's experiment, which is another's"),
    ],
)
def test_who_may_not_is_told_what_to_do(
    store: Store, monkeypatch: pytest.MonkeyPatch, status: int, user: str, told: str
) -> None:
    class Refusal(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_error(status)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    login = {"": {}, "token": {"TOKEN": "secret"}}.get(user, {"USERNAME": user, "PASSWORD": "secret"})
    for name in ("USERNAME", "PASSWORD", "TOKEN"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    for name, value in login.items():
        monkeypatch.setenv(f"MLFLOW_TRACKING_{name}", value)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Refusal) as refusing:
        threading.Thread(target=refusing.serve_forever).start()
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{refusing.server_port}")
        try:
            with pytest.raises(StoreError, match=re.escape(told)) as error:
                sync(make_sweep(), store, summaries={}, files={})
        finally:
            refusing.shutdown()
    assert "secret" not in error.value.message


def test_a_server_that_takes_connections_and_says_nothing_does_not_hold_the_end_up(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background, "SERVER_STALL_S", 0.3)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "5")
    warnings: list[str] = []
    with socket.create_server(("127.0.0.1", 0)) as silent:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{silent.getsockname()[1]}")
        with Mirror(make_sweep(), store, warn=warnings.append) as mirror:
            assert mirror.finish(summaries={}, files={}) is None
        assert len(warnings) == 1
    wait_for_mirrors()
    assert len(warnings) == 1


def wait_for_mirrors() -> None:
    """Waits until no mirror's thread lives; fails where a sweep left one waiting for ever."""
    for thread in threading.enumerate():
        if thread.name == "hkrun-mlflow":
            thread.join(60)
            assert not thread.is_alive()


@pytest.mark.parametrize("away", [False, True])
def test_a_sweep_that_breaks_off_leaves_no_thread_and_mirrors_only_what_was_done(
    store: Store, monkeypatch: pytest.MonkeyPatch, closed_port: int, away: bool
) -> None:
    if away:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{closed_port}")
    sweep = make_sweep(num_cells=1, num_seeds=1, epochs=2)
    fill_store(store, sweep)
    warnings: list[str] = []

    def break_off() -> None:
        with Mirror(sweep, store, warn=warnings.append) as mirror:
            mirror.run_done(cell_id(sweep.cells[0].cell), 0)
            raise DataError("the data is gone")

    with pytest.raises(DataError, match="the data is gone"):
        break_off()
    wait_for_mirrors()
    assert len(warnings) == (1 if away else 0)
    if not away:
        assert whole_database(store)


@pytest.mark.slow
def test_a_server_killed_in_the_middle_is_caught_up_with_later(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = make_sweep(num_cells=2, num_seeds=2, epochs=3)
    warnings: list[str] = []
    away = open_store(tmp_path / "away")
    with serve(store) as running, monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", running.address)
        mirror = Mirror(sweep, away, warn=warnings.append)
        put_run(away, sweep.cells[0], 0)
        mirror.run_done(cell_id(sweep.cells[0].cell), 0)
        while not [name for name in run_names(store) if name.endswith("seed 0")]:
            threading.Event().wait(0.1)
        running.stop()
        fill_store(away, sweep)
        mirror.run_done(cell_id(sweep.cells[1].cell), 1)
        assert mirror.finish(summaries=make_summaries(away, sweep), files=REPORT) is None
    assert len(warnings) == 1
    with serve(store) as running, monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", running.address)
        assert mirror_all(sweep, away).experiment.startswith(running.address)
        mirror_all(sweep, away)
    assert len(run_names(store)) == 2 + 4
    assert set(points(store).values()) == {1}
    assert len(points(store)) == 2 * (3 * 3 + 2) + 2 * (3 * 4 + 2) + 2 * (3 + 4)


# --- the receipt --------------------------------------------------------------------------------------------


def finish_without_runs(sweep: Sweep, store: Store, files: dict[str, bytes] = REPORT) -> Links | None:
    """What a sweep does that has nothing left to train."""
    mirror = Mirror(sweep, store, warn=pytest.fail)
    return mirror.finish(summaries=make_summaries(store, sweep), files=files)


def test_where_nothing_is_new_mlflow_is_not_asked(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = make_sweep(num_cells=2, num_seeds=2, epochs=3)
    fill_store(store, sweep)
    links = finish_without_runs(sweep, store)
    monkeypatch.delattr(background, "load")
    assert finish_without_runs(sweep, store) == links


def empty(store: Store) -> None:
    assert store.local_path is not None
    with contextlib.closing(sqlite3.connect(store.local_path / "mlflow.db")) as database:
        for table in ("metrics", "latest_metrics", "params", "tags", "runs"):
            database.execute(f"delete from {table}")
        database.commit()


def lose_run(store: Store) -> None:
    run_id = next(run for run, tags in tags_of_runs(store).items() if "hkrun.seed" in tags)
    connect(resolve_uri(store)).delete_run(run_id)


def lose_experiment(store: Store) -> None:
    connect(resolve_uri(store)).delete_experiment("1")


def garble_receipt(store: Store) -> None:
    store.commit("sweeps/stability-digits", {"mirror.json": b"{"})
    lose_run(store)


@pytest.mark.parametrize("loss", [empty, lose_run, lose_experiment, garble_receipt])
def test_what_mlflow_lost_is_noticed_in_spite_of_the_receipt(
    store: Store, loss: Callable[[Store], None]
) -> None:
    sweep = make_sweep(num_cells=2, num_seeds=1, epochs=2)
    fill_store(store, sweep)
    finish_without_runs(sweep, store)
    expected = points(store)
    loss(store)
    assert finish_without_runs(sweep, store) is not None
    assert points(store) == expected


def test_new_content_and_another_mlflow_are_no_matter_of_the_receipt(
    store: Store, tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sweep = make_sweep(num_cells=1, num_seeds=1, epochs=2)
    fill_store(store, sweep)
    finish_without_runs(sweep, store)
    finish_without_runs(sweep, store, {"report.md": b"# Another\n"})
    assert store.local_path is not None
    attached = [path.read_bytes() for path in (store.local_path / "mlartifacts").rglob("report/report.md")]
    assert attached == [b"# Another\n"]
    put_run(store, sweep.cells[0], 0, started_at=7.0)
    finish_without_runs(sweep, store)
    assert {time for (_, _, _, step, _, time) in points(store) if step == 1} == {8500}
    elsewhere = tmp_path / "elsewhere.db"
    shutil.copy(empty_database, elsewhere)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{elsewhere}")
    links = finish_without_runs(sweep, store)
    assert links is not None
    assert links.uri == f"sqlite:///{elsewhere}"
    with contextlib.closing(sqlite3.connect(elsewhere)) as database:
        assert database.execute("select count(*) from runs").fetchone() == (2,)


def test_sync_asks_mlflow_even_where_the_receipt_is_good(store: Store) -> None:
    sweep = make_sweep(num_cells=1, num_seeds=2, epochs=2)
    fill_store(store, sweep)
    mirror_all(sweep, store)
    expected = points(store)
    assert store.local_path is not None
    database = store.local_path / "mlflow.db"
    before = database.stat()
    lose_run(store)
    os.utime(database, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert database.stat().st_size == before.st_size, (
        "the receipt must look good for this test to mean anything"
    )
    mirror_all(sweep, store)
    assert points(store) == expected


# --- the UI -------------------------------------------------------------------------------------------------


def test_a_port_that_is_taken_is_refused_or_passed_over(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with (
            pytest.raises(InputError, match=f"--port: {port} on 127.0.0.1 is taken"),
            serve(store, port=port),
        ):
            pass
        monkeypatch.setattr(server, "DEFAULT_PORT", port)
        assert server._choose_port(None) > port


def test_a_server_that_does_not_start_says_why(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", resolve_uri(store))
    monkeypatch.setenv("MLFLOW_UVICORN_OPTS", "--no-such-option")
    with pytest.raises(StoreError, match=r"did not start; its last words: .*no-such-option"), serve(store):
        pass


@pytest.mark.slow
def test_a_server_takes_no_file_of_the_working_directory_for_a_library(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("numbers", "random", "typing", "fastapi", "sqlalchemy"):
        Path(f"{name}.py").write_text(f"raise RuntimeError('{name}.py of the working directory')")
    with serve(store) as running, urllib.request.urlopen(f"{running.address}/health") as answer:
        assert answer.status == 200


# `hkrun ui` whose server is STAND_IN; what it finds in MLflow's database is left out.
UI_OF_STAND_IN = """
import sys
from types import SimpleNamespace
from hkrun.cli.program import call
from hkrun.tracking import server

server.sys = SimpleNamespace(executable=sys.argv[1])
server.connect = server.renew_locations = lambda *_: None
server.find_experiments = lambda *_: {}
sys.exit(call(["ui", *sys.argv[2:]]))
"""
# As `mlflow server`: a command that waits for the process which answers.
STAND_IN = """
import http.server, subprocess, sys
if "--port" in sys.argv:
    port = sys.argv[sys.argv.index("--port") + 1]
    sys.exit(subprocess.call([sys.executable, __file__, port]))
answers = {"do_GET": lambda self: self.send_error(200)}
handler = type("Healthy", (http.server.BaseHTTPRequestHandler,), answers)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), handler).serve_forever()
"""


def ui_in_the_background(folder: Path, *, real: bool) -> subprocess.Popen[str]:
    """`hkrun ui` as a script starts it with `&`: SIGINT is ignored. It answers; its group is its own."""
    program = ["-m", "hkrun", "ui"]
    if not real:
        python, server = folder.parent / "python", folder.parent / "server.py"
        server.write_text(STAND_IN)
        python.write_text(
            f'#!/bin/sh\n[ "$1" = -m ] && exec {sys.executable} {server} "$@"\nexec {sys.executable} "$@"\n'
        )
        python.chmod(0o755)
        program = ["-c", UI_OF_STAND_IN, str(python)]
    command = [sys.executable, *program, "--no-browser", "--json", "--store", str(folder)]
    process = subprocess.Popen(
        ["sh", "-c", "trap '' INT; exec \"$@\"", "sh", *command],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    document = ""
    while not document.endswith("\n}\n"):
        line = process.stdout.readline()
        assert line, document
        document += line
    return process


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
@pytest.mark.parametrize("real", [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_server_outlives_a_ui_that_ignores_ctrl_c(
    store: Store, number: signal.Signals, real: bool
) -> None:
    folder = store.local_path
    assert folder is not None
    with ui_in_the_background(folder, real=real) as process:
        try:
            deadline = time.monotonic() + 60
            while len(find_mlflow_servers(folder)) < 3:  # the supervisor, MLflow and uvicorn
                assert time.monotonic() < deadline
                time.sleep(0.1)
            process.send_signal(number)
            assert process.wait(60) == (0 if number == signal.SIGTERM else -number)
        finally:
            process.kill()  # else leaving the block would wait for it
    deadline = time.monotonic() + 30
    while find_mlflow_servers(folder) and number != signal.SIGTERM and time.monotonic() < deadline:
        time.sleep(0.1)
    assert find_mlflow_servers(folder) == []


def test_the_ui_says_where_it_starts_a_server_before_it_does(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[tuple[str, bool]] = []

    def start(_store: Store, *, port: int) -> None:
        assert begun == [(f"http://127.0.0.1:{port}", True)]
        raise StoreError("no server")

    monkeypatch.setattr(server, "serve", start)
    with pytest.raises(StoreError, match="no server"):
        ui(
            store,
            port=None,
            open_browser=False,
            begin=lambda *told: begun.append(told),
            announce=lambda _: None,
        )
    assert len(begun) == 1


def test_with_a_server_elsewhere_only_links_are_given(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    sweep = make_sweep(num_cells=1, num_seeds=1, epochs=2)
    fill_store(store, sweep)
    mirror_all(sweep, store)
    database = connect(resolve_uri(store))
    monkeypatch.setattr(server, "connect", lambda uri: database)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:secret@mlflow.example/")
    sites: list[Site] = []
    begun: list[tuple[str, bool]] = []
    ui(
        store,
        port=None,
        open_browser=False,
        begin=lambda *told: begun.append(told),
        announce=sites.append,
    )
    assert begun == [("https://mlflow.example", False)]
    (site,) = sites
    assert (site.uri, site.address, site.is_ours) == (
        "https://mlflow.example",
        "https://mlflow.example",
        False,
    )
    links = site.sweeps["stability-digits"]
    assert links.experiment.startswith("https://mlflow.example/#/experiments/1/runs")
    assert links.comparison == (
        "https://mlflow.example/#/experiments/1/runs?workflowType=machine_learning"
        "&viewStateShareKey=hkrun-cells&compareRunsMode=TABLE"
    )
    assert "secret" not in str(site)
