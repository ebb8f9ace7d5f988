"""What a sweep stands on goes away: a node, the MLflow server, room on the disk, what it stored."""

import os
import random
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import oracles
import pytest
from damage import cut, flip
from disturbed import ACTOR, SweepFolder, kill_group
from ports import free_port

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(1800)]


def count_records(sweep):
    return len(list((sweep.folder / "hkrun-store").glob("cells/*/seeds/*/record.json")))


# --- the MLflow server --------------------------------------------------------------------------------------


@contextmanager
def mlflow_server(folder: Path, port: int) -> Iterator[subprocess.Popen[bytes]]:
    """A real server with its database in a folder, from when it answers until it is killed."""
    command = ["mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder}/server.db",
        "--artifacts-destination",
        str(folder / "a"),
    ]
    with (folder / "server.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", *command], stdout=log, stderr=log, cwd=folder, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 120
        while not answers(port):
            assert process.poll() is None, (folder / "server.log").read_text()
            assert time.monotonic() < deadline, (folder / "server.log").read_text()
            time.sleep(0.2)
        yield process
    finally:
        kill_tree(process)


def answers(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def kill_tree(process):
    """The server and its workers, which are a session of their own."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(60)


@pytest.mark.parametrize("back", ["before the end", "after the end"])
def test_an_mlflow_server_that_is_away_for_the_middle_third_costs_a_warning_and_no_run(
    sweep, undisturbed, tmp_path, back
):
    port = free_port()
    sweep.environment["MLFLOW_TRACKING_URI"] = f"http://127.0.0.1:{port}"
    folder = tmp_path / "server"
    folder.mkdir()
    with mlflow_server(folder, port) as first:
        sweep.start()
        sweep.wait_until(lambda: count_records(sweep) >= 2 and runs_of(folder / "server.db"))
        kill_tree(first)
        in_time = False
        if back == "before the end":
            away_since = count_records(sweep)
            sweep.wait_until(lambda: count_records(sweep) > away_since)
            with mlflow_server(folder, port):
                in_time = "Writing the report" not in sweep.output()
                assert sweep.wait() == 0, sweep.output()
        else:
            assert sweep.wait() == 0, sweep.output()
    assert sweep.output().count("nothing is lost") == 1
    oracles.check_results(sweep.store, undisturbed)
    oracles.check_files(sweep.store)
    if not in_time:  # nor where the server took longer to come back than the sweep to end
        with mlflow_server(folder, port):
            sweep.command = ("sync", "space", "--dataset", "failures:digits")
            assert sweep.run() == 0, sweep.output()
    oracles.check_mirrored_once(folder / "server.db", sweep.store)


def runs_of(database):
    try:
        with sqlite3.connect(f"file:{database}?mode=ro", uri=True, timeout=10) as connection:
            return connection.execute("SELECT count(*) FROM runs").fetchone()[0]
    except sqlite3.OperationalError:
        return 0


# --- the disk -----------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path) -> Iterator[Path]:
    """A file system of 512 MiB in memory."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=512m", "tmpfs", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root can mount a small disk")
    yield place
    subprocess.run(["umount", "--lazy", place], check=True)


def fill(ballast: Path) -> None:
    """Takes all the room there is."""
    with ballast.open("ab", buffering=0) as file, suppress(OSError):
        while True:
            file.write(bytes(1 << 16))


@pytest.mark.parametrize("seed", [1, 2])
def test_a_store_that_is_full_and_then_freed_loses_nothing(small_disk, undisturbed, tmp_path, seed):
    sweep = SweepFolder(small_disk / "sweep")
    sweep.log = tmp_path / "output.txt"  # not on that disk
    ballast = small_disk / "ballast"
    records = random.Random(seed).randrange(1, 6)

    def fill_up(running: SweepFolder) -> None:
        running.wait_until(lambda: count_records(running) >= records)
        fill(ballast)

    try:
        assert sweep.run(fill_up) == 6
        assert "the disk is full; free some space and run again, what is finished is kept" in sweep.output()
        ballast.unlink()
        assert sweep.run() == 0, sweep.output()
        oracles.check_all(sweep.store, undisturbed)
    finally:
        sweep.end()
        shutil.rmtree(sweep.temporary)


# --- what is stored -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("damage", [cut, flip])
def test_what_is_damaged_in_a_store_is_found_named_and_made_again(sweep, undisturbed, damage):
    """One kind of file in each pack: the whole pack, as a run that trains again alone has other bits.

    What is not repaired unasked is an error that names the folder to remove.
    """
    shutil.copytree(str(undisturbed.local_path), sweep.folder / "hkrun-store")
    root = sweep.folder / "hkrun-store"
    first, second = (root / "cells" / cell / "seeds" for cell in oracles.cells(undisturbed))
    (teacher,) = (root / "teachers").iterdir()
    damaged = [first / f"{seed}/record.json" for seed in (0, 1)]
    damaged += [first / f"{seed}/curves.parquet" for seed in (2, 3)]
    damaged += (
        [second / f"{seed}/student.pt" for seed in (0, 1)] if damage is cut else []
    )  # only export reads it
    tables = [path / "rows" for path in (root / "tables").iterdir()]
    for path in [*damaged, teacher / "weights.pt", *tables]:
        damage(path)
    code = sweep.run()
    assert code == (0 if damage is cut else 6), sweep.output()
    if code:
        told = sweep.output().rpartition("hkrun: ")[2]
        assert f"remove the folder {first / '2'}" in told.replace(sweep.store.place, str(root))
        for seed in (2, 3):
            shutil.rmtree(first / str(seed))
        assert sweep.run() == 0, sweep.output()
    for path in [*damaged, teacher / "weights.pt"]:
        if path != first / "3/curves.parquet" or damage is cut:
            assert f"{path.relative_to(root)} is damaged" in sweep.output()
    oracles.check_all(sweep.store, undisturbed)


@pytest.mark.parametrize("damage", [cut, flip])
def test_damaged_checkpoints_and_tables_of_a_killed_sweep_are_never_gone_on_with(sweep, undisturbed, damage):
    def kill(running: SweepFolder) -> None:
        running.wait_until(
            lambda: len(list((running.folder / "hkrun-store").glob("cells/*/seeds/*/checkpoints/*.pt"))) > 3
        )
        kill_group(running)

    assert sweep.run(kill) < 0
    root = sweep.folder / "hkrun-store"
    newest = [
        max(folder.glob("*.pt"))
        for folder in root.glob("cells/*/seeds/*/checkpoints")
        if any(folder.glob("*.pt"))
    ]
    tables = [path / "rows" for path in (root / "tables").iterdir()]
    assert newest
    assert tables
    for path in [*newest, *tables]:
        damage(path)
    assert sweep.run() == 0, sweep.output()
    oracles.check_all(sweep.store, undisturbed)
    logs = "".join(path.read_text() for path in root.glob("logs/*.log"))
    for path in newest:
        assert f"{path.relative_to(root)} is passed over" in logs


# --- a node -------------------------------------------------------------------------------------------------


def parent_of(pid):
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def raylet_of(node):
    (raylet,) = node.all_processes["raylet"]
    return raylet.process.pid


@pytest.mark.parametrize("seed", [1, 2])
def test_a_node_that_is_lost_without_a_word_costs_no_run(sweep, undisturbed, monkeypatch, seed):
    """Three raylets: the driver's, without CPUs, and two with one each. One of them dies in training."""
    from ray.cluster_utils import Cluster

    for name, value in sweep.environment.items():
        monkeypatch.setenv(name, value)
    path = f"{sweep.folder}:{sweep.environment.get('PYTHONPATH', '')}"
    monkeypatch.setenv("PYTHONPATH", path)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
    try:
        nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
        cluster.wait_for_nodes()
        sweep.environment |= {"RAY_ADDRESS": cluster.address, "PYTHONPATH": path}
        sweep.start()
        sweep.wait_until(sweep.is_training)
        time.sleep(random.Random(seed).uniform(0, 0.3))
        sweep.wait_until(lambda: sweep.family(f"{ACTOR}.train"))
        trains_there = parent_of(min(sweep.family(f"{ACTOR}.train")))  # the older one, if both do
        (lost,) = [node for node in nodes if raylet_of(node) == trains_there]
        cluster.remove_node(lost, allow_graceful=False)
        assert sweep.process.wait(400) == 0, sweep.output()
        deadline = time.monotonic() + 20
        while sweep.family(ACTOR) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert sweep.family(ACTOR) == []  # the cluster is there, and does nothing more for the sweep
    finally:
        sweep.end()
        cluster.shutdown()
        shutil.rmtree(sweep.temporary)  # it holds the sessions of the cluster, which is the test's
        sweep.temporary.mkdir()
    oracles.check_all(sweep.store, undisturbed)
    resumed = [record.resumed for cell in oracles.cells(sweep.store) for record in sweep.store.records(cell)]
    assert sum(resumed) >= 2, "a pack that was in training there"
