"""A whole sweep whose store is on S3: run, killed, resumed, reported and exported as one on a disk."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from processes import inherited_environment
from s3_server import SECRET, S3Place, S3Server

from hkrun.store import Record, Store, open_store

# Students that train for some 25 s: checkpoints are 5 s apart, and a second driver needs time to be refused.
SPACE = """
title = "A sweep on S3"
question = "Is it as on a disk?"
dataset = "digits"
seeds = 2
[analysis]
window = 3
[base]
teacher.network = "preact-8-w4"
teacher.epochs = 2
student.network = "preact-8-w4"
student.epochs = 600
augment.padding = 1
augment.flip = false
[[cells]]
name = "L_b"
loss.lambda_2 = 0.0
loss.lambda_3 = 0.0
"""
TIMES = ("started_at", "timings", "resumed")


def hkrun(folder: Path, *words: str, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "hkrun", *words],
        cwd=folder,
        env=inherited_environment() | environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def kill(process: "subprocess.Popen[str]") -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)


def finish(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=400)
    return process.returncode, out, err


def results(store: Store) -> dict[tuple[str, int], tuple[Record, dict[str, list[object]], bytes]]:
    """Everything that training decided, by run."""
    found = {}
    for cell in store._files.folders("cells"):
        for record in store.records(cell):
            plain = dataclasses.replace(record, **{name: getattr(EMPTY, name) for name in TIMES})
            curves = store.curves(cell, record.seed).drop_columns(["seconds"]).to_pydict()
            found[cell, record.seed] = (plain, curves, store.student(cell, record.seed))
    return found


EMPTY = Record(cell_id="", seed=0, status="finished", epochs=0, device="", threads=0, started_at=0.0)


@pytest.mark.slow
@pytest.mark.cluster
@pytest.mark.timeout(900)
def test_a_sweep_on_s3_is_killed_resumed_reported_and_exported_as_one_on_a_disk(
    each_s3_server: S3Server,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    (tmp_path / "space.toml").write_text(SPACE)
    place: S3Place = each_s3_server.place()
    for name, value in place.environment.items():
        monkeypatch.setenv(name, value)
    code, local, said = finish(hkrun(tmp_path, "sweep", "space.toml", "--pack", "2", "--yes", "--json"))
    assert code == 0, said

    there = {"HKRUN_STORE": place.uri, **place.environment}
    first = hkrun(tmp_path, "sweep", "space.toml", "--pack", "2", "--yes", **there)
    request.addfinalizer(lambda: kill(first))  # however the test ends
    until = time.monotonic() + 200
    store = open_store(place.uri)
    while not any("/checkpoints/" in path for path in store._files.sizes("cells")):
        assert first.poll() is None, finish(first)
        assert time.monotonic() < until
        time.sleep(0.2)
    second = finish(hkrun(tmp_path, "sweep", "space.toml", "--pack", "2", "--yes", **there))
    assert second[0] == 6, second
    assert f"sweeps/space-digits is held by process {first.pid} on" in second[2]
    kill(first)
    finish(first)

    code, _, said = finish(hkrun(tmp_path, "resume", "space", **there))
    assert code == 0, said
    code, out, said = finish(hkrun(tmp_path, "report", "space", "--json", **there))
    assert code == 0, said
    assert json.loads(out)["cells"] == json.loads(local)["cells"]
    assert results(store) == results(open_store(tmp_path / "hkrun-store"))
    assert any(record.resumed for record in store.records(json.loads(out)["cells"][0]["cell_id"]))
    assert not any("/checkpoints/" in path for path in store._files.sizes("cells"))
    for words in (["status"], ["export", "space:L_b:0", "--output", "exported"]):
        code, out, said = finish(hkrun(tmp_path, *words, **there))
        assert code == 0, (words, said)
    sizes = store._files.sizes("")
    assert "sweeps/space-digits/report.html" in sizes
    for path in sizes:
        assert SECRET.encode() not in (store._files.get(path) or b""), path
    for path in tmp_path.rglob("*"):
        assert not path.is_file() or SECRET.encode() not in path.read_bytes(), path
