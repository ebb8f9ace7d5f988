"""The mirror in PostgreSQL itself, with no server before it: what rows mean, MLflow's own client says."""

import contextlib
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sweep_example import SECONDS_PER_EPOCH, STARTED_AT, fill_store, make_curves, make_summaries, make_sweep
from tracking_stack import find_postgres, running_postgres

from hkrun.config import cell_id
from hkrun.spaces import Sweep
from hkrun.store import Store, open_store
from hkrun.tracking import sync
from hkrun.tracking.connection import connect
from hkrun.tracking.experiments import search_runs
from hkrun.tracking.tables import DatabaseRuns

REQUIRED = os.environ.get("HKRUN_REQUIRE_SERVERS") == "1"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(find_postgres() is None and not REQUIRED, reason="apt-get install postgresql"),
]
PASSWORD = "postgres-test"


@pytest.fixture
def uri(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An empty database."""
    with running_postgres(password=PASSWORD) as port:
        uri = f"postgresql://mlflow:{PASSWORD}@127.0.0.1:{port}/mlflow"
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        yield uri


def histories(uri: str, experiment_id: str, names: set[str]) -> Counter[tuple[object, ...]]:
    """Every (cell, seed, metric, epoch, value, time) of the runs of seeds, as MLflow's client reads them."""
    client = connect(uri)
    found: Counter[tuple[object, ...]] = Counter()
    for run in search_runs(client, [experiment_id], "tags.`hkrun.kind` = 'run'"):
        assert run.info.status == "FINISHED"
        for name in names & run.data.metrics.keys():
            for point in client.get_metric_history(run.info.run_id, name):
                own = (run.data.tags["hkrun.cell_id"], run.data.tags["hkrun.seed"])
                found[(*own, name, point.step, point.value, point.timestamp)] += 1
    return found


def curves_of(sweep: Sweep, names: set[str]) -> Counter[tuple[object, ...]]:
    """The same from the curves that the store was filled with."""
    found: Counter[tuple[object, ...]] = Counter()
    for cell in sweep.cells:
        for seed in sweep.seeds:
            curves = make_curves(cell.name, seed, epochs=cell.cell.student.epochs)
            for name in names & set(curves.column_names):
                for epoch, value in enumerate(curves[name].to_pylist(), start=1):
                    time = round(1000 * (STARTED_AT + 100 * seed + SECONDS_PER_EPOCH * epoch))
                    found[cell_id(cell.cell), str(seed), name, epoch, value, time] += 1
    return found


def test_rows_in_postgresql_are_what_the_store_has_after_a_kill_and_after_every_epoch(
    uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store: Store = open_store(tmp_path / "store")
    sweep = make_sweep(num_cells=2, num_seeds=3, epochs=40)
    fill_store(store, sweep)
    summaries = make_summaries(store, sweep)
    original, batches = DatabaseRuns.write, []

    def dying(self: DatabaseRuns, contents: object) -> object:
        batches.append(contents)
        if len(batches) == 4:
            raise KeyboardInterrupt
        return original(self, contents)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(DatabaseRuns, "write", dying)
        with contextlib.suppress(KeyboardInterrupt):
            sync(sweep, store, summaries=summaries, files={})
    assert len(batches) == 4  # the parent and the seeds of a cell, that cell's end, the next one's parent
    links = sync(sweep, store, summaries=summaries, files={}).links
    names = {"error_pct", "loss_total", "loss_backbone", "loss_knowledge"}
    assert histories(uri, links.experiment_id, names) == curves_of(sweep, names)
    assert histories(uri, links.experiment_id, {"learning_rate", "seconds"}) == Counter()
    sync(sweep, store, summaries=summaries, files={}, every=1)
    names |= {"learning_rate", "seconds"}
    assert histories(uri, links.experiment_id, names) == curves_of(sweep, names)
    with psycopg.connect(uri) as database:
        ((runs, deleted),) = database.execute(
            "select count(*), count(*) filter (where lifecycle_stage = 'deleted') from runs"
        ).fetchall()
    assert (runs, deleted) == (2 + 6, 0)
