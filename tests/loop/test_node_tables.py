"""Teacher tables where the store is far: each node has a copy of its own, computed once for all."""

import dataclasses
from pathlib import Path

import pytest
from s3_server import S3Place
from task_example import make_task

from hkrun.knowledge import RowComputer
from hkrun.store import open_store
from hkrun.training import SingleProcess
from hkrun.trial import inputs, teacher_answers
from hkrun.trial.run import run_task
from loop.test_trial import make_cell


@pytest.mark.slow
def test_a_second_node_fetches_the_table_that_the_first_has_filled(
    s3_store: S3Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in s3_store.environment.items():
        monkeypatch.setenv(name, value)
    store, cell = open_store(s3_store.uri), make_cell()
    task = dataclasses.replace(make_task(store, cell, 0), table="ahead")
    run_task(make_task(store, cell), SingleProcess())
    computed = []
    compute = RowComputer._compute
    monkeypatch.setattr(
        RowComputer, "_compute", lambda computer, images: computed.append(1) or compute(computer, images)
    )

    def run_on(node: str, seed: int) -> int:
        """Passes of the teacher on a node, which has its own cache and nothing in memory."""
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / node))
        inputs.load_teacher.cache_clear()
        teacher_answers._open.cache_clear()
        computed.clear()
        (outcome,) = run_task(dataclasses.replace(task, seeds=(seed,)), SingleProcess())
        assert outcome["status"] == "finished"
        return len(computed)

    probes = 3  # of one pass each: what the parts are, and whether they are steady (two)
    assert run_on("first", 0) > 10 * probes
    assert run_on("first", 1) <= 2 * probes
    assert run_on("second", 2) <= 2 * probes  # fetched, not computed
    rows = [sorted((tmp_path / node).rglob("rows")) for node in ("first", "second")]
    assert rows[0]
    assert [path.read_bytes() for path in rows[0]] == [path.read_bytes() for path in rows[1]]
