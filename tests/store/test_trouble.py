"""A store that is full or away: one line, exit code 6, nothing lost, and the same goes on afterwards."""

import collections
import contextlib
import itertools
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from s3_server import SECRET, Gate, S3Place, S3Server
from sweep_example import fill_store, make_sweep, put_run

from hkrun import addresses
from hkrun.cli.program import call
from hkrun.errors import StoreError
from hkrun.store import Store, open_store, s3

FOLDER = "sweeps/stability-digits"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of half a megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=512k", "tmpfs", str(place)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def snapshot(store: Store, cell: str) -> dict[int, bytes]:
    return {
        record.seed: store.read(store.run_folder(cell, record.seed), "record.json")
        for record in store.records(cell)
    }


def test_a_full_disk_loses_nothing_and_the_same_goes_on_when_there_is_space(small_disk: Path) -> None:
    store, (cell, *_) = open_store(small_disk / "store"), make_sweep().cells
    ballast = small_disk / "ballast"
    ballast.write_bytes(bytes(300_000))
    seeds = itertools.count()
    with pytest.raises(StoreError) as caught:
        collections.deque((put_run(store, cell, seed) for seed in seeds), maxlen=0)
    seed = next(seeds) - 1
    (line,) = caught.value.problems
    assert line.startswith("cannot write ")
    assert line.endswith("the disk is full; free some space and run again, what is finished is kept")
    (folder,) = (small_disk / "store" / "cells").iterdir()
    kept = snapshot(store, folder.name)
    assert sorted(kept) == list(range(seed))
    assert not list((small_disk / "store").rglob("*.tmp"))
    ballast.unlink()
    put_run(store, cell, seed)
    assert snapshot(store, folder.name) == kept | {seed: snapshot(store, folder.name)[seed]}


def test_a_full_disk_ends_a_command_with_6(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(small_disk)
    store = open_store(small_disk / "hkrun-store")
    fill_store(store, make_sweep())
    (small_disk / "ballast").write_bytes(b"")
    with contextlib.suppress(OSError), (small_disk / "ballast").open("wb", buffering=0) as ballast:
        while True:
            ballast.write(bytes(4096))
    with pytest.raises(StoreError) as caught:
        store.commit(FOLDER, {"plan.json": bytes(100_000)})
    assert caught.value.exit_code == 6
    assert store.names(FOLDER) == []
    (small_disk / "ballast").unlink()
    store.commit(FOLDER, {"plan.json": bytes(100_000)})


@pytest.fixture
def gate(s3_server: S3Server) -> Iterator[Gate]:
    gate = Gate(s3_server.endpoint)
    yield gate
    gate.shut()


@pytest.fixture
def store(s3_server: S3Server, gate: Gate, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """A store whose server can be cut off."""
    for name, value in (s3_server.environment | {"AWS_ENDPOINT_URL": gate.endpoint}).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(addresses, "TRIES", 1)
    yield open_store(s3_server.place().uri)
    s3._client.cache_clear()


def test_a_server_that_is_away_is_one_line_soon_and_the_same_goes_on_when_it_is_back(
    store: Store, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(s3, "RETRY_S", 0.2)
    s3._client.cache_clear()
    (cell, *_) = make_sweep().cells
    record = put_run(store, cell, 0)
    gate.shut()
    calls = [
        lambda: put_run(store, cell, 1),
        lambda: store.records(record.cell_id),
        lambda: store.read(FOLDER, "plan.json"),
        lambda: open_store(store.uri),
        lambda: store.hold(FOLDER).__enter__(),
    ]
    for call_it in calls:
        began = time.monotonic()
        with pytest.raises(StoreError) as caught:
            call_it()
        assert time.monotonic() - began < 60
        (line,) = caught.value.problems
        assert store.place in line
        assert line.endswith("the server cannot be reached; run again when it can, what is finished is kept")
    gate.open()
    put_run(store, cell, 1)
    assert [found.seed for found in store.records(record.cell_id)] == [0, 1]


def test_a_server_that_is_away_for_a_moment_is_waited_for(store: Store, gate: Gate) -> None:
    (cell, *_) = make_sweep().cells
    gate.shut()
    threading.Timer(0.5, gate.open).start()
    record = put_run(store, cell, 0)
    assert store.record(record.cell_id, 0) == record


def test_a_command_with_its_server_away_ends_with_6(
    store: Store,
    gate: Gate,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(s3, "RETRY_S", 0.5)
    s3._client.cache_clear()
    monkeypatch.chdir(tmp_path)
    gate.shut()
    assert call(["status", "--store", store.uri]) == 6
    said = capfd.readouterr().err
    assert "the server cannot be reached" in said
    assert "Traceback" not in said


def test_a_bucket_that_is_not_there_is_one_line(each_s3_server: S3Server) -> None:
    uri = (
        each_s3_server.place()
        .full_uri.replace("/lab/", "/no-such-bucket/")
        .replace("@lab", "@no-such-bucket")
    )
    with pytest.raises(StoreError, match="there is no such bucket; make it first") as caught:
        open_store(uri)
    assert SECRET not in caught.value.message
    assert len(caught.value.problems) == 1


@pytest.mark.slow
def test_a_wrong_secret_is_one_line_that_does_not_hold_it(radosgw: S3Server) -> None:
    place: S3Place = radosgw.place()
    with pytest.raises(StoreError, match="access denied; see that the access key and its secret") as caught:
        open_store(place.full_uri.replace(SECRET, "wrong-and-secret"))
    assert "wrong-and-secret" not in caught.value.message
    assert len(caught.value.problems) == 1
