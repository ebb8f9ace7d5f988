"""Runs that train on a store on S3, killed and gone on with, come out as on a disk; without a cluster."""

import dataclasses
import subprocess
import sys
import time
from pathlib import Path

import pytest
from s3_server import S3Place, S3Server

from hkrun.config import canonical_json, cell_from_values, cell_id, teacher_id
from hkrun.store import Record, Store, open_store

VALUES = {
    "dataset": "digits",
    "teacher.network": "preact-8-w4",
    "teacher.epochs": 2,
    "student.network": "preact-8-w4",
    "student.epochs": 6,
    "augment.padding": 1,
    "augment.flip": False,
}
WORKER = """
import sys
from hkrun.config import cell_from_values, cell_id, teacher_id
from hkrun.training.context import SingleProcess
from hkrun.trial import Task, progress
from hkrun.trial.run import run_task
progress.CHECKPOINT_EVERY_S, progress.QUICKLY_SAVED_S = 0.0, 1e9
cell = cell_from_values(eval(sys.argv[2]))
task = dict(cell=cell, store=sys.argv[1], data_dir=None, threads=1, device="cpu")
run_task(Task(cell_id=teacher_id(cell), seeds=(), **task), SingleProcess())
run_task(Task(cell_id=cell_id(cell), seeds=(0, 1), **task), SingleProcess())
"""


def work(uri: str, folder: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-c", WORKER, uri, repr(VALUES)], cwd=folder)


def results(store: Store, cell: str) -> list[tuple[Record, dict[str, list[object]], bytes]]:
    """What training decided of each run."""
    return [
        (
            dataclasses.replace(record, started_at=0.0, timings={}, resumed=0),
            store.curves(cell, record.seed).drop_columns(["seconds"]).to_pydict(),
            store.student(cell, record.seed),
        )
        for record in store.records(cell)
    ]


@pytest.mark.slow
def test_runs_on_s3_that_are_killed_and_gone_on_with_equal_those_on_a_disk_to_the_bit(
    each_s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place: S3Place = each_s3_server.place()
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, value in place.environment.items():
        monkeypatch.setenv(name, value)
    cell = cell_from_values(VALUES)
    disk, far = open_store(tmp_path / "store"), open_store(place.uri)
    for store in (disk, far):
        store.put_cell(cell_id(cell), canonical_json(cell))
    assert work(disk.uri, tmp_path).wait(200) == 0
    for look in (
        lambda: far.names(f"{far.teacher_folder(teacher_id(cell))}/checkpoints"),
        lambda: far.names(f"{far.run_folder(cell_id(cell), 1)}/checkpoints"),
    ):
        process = work(far.uri, tmp_path)
        until = time.monotonic() + 100
        while not look():
            assert process.poll() is None
            assert time.monotonic() < until
        process.kill()
        process.wait()
    assert far.records(cell_id(cell)) == []
    assert work(far.uri, tmp_path).wait(200) == 0
    assert results(far, cell_id(cell)) == results(disk, cell_id(cell))
    assert [record.resumed for record in far.records(cell_id(cell))] == [1, 1]
    assert far.teacher_weights(teacher_id(cell)) == disk.teacher_weights(teacher_id(cell))
    assert not any("/checkpoints/" in path for path in far._files.sizes(""))
