"""Jobs on real clusters of Ray, with a token: sent, followed, left, stopped, lost and gone on with."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from started_cluster import StartedCluster, new_token
from users import REPOSITORY, SWEEP, User, curves

from hkrun.store import open_store

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(300)]


def wait_for_checkpoint(store_folder: Path, process: subprocess.Popen[str] | None = None) -> None:
    deadline = time.monotonic() + 200
    while not list(store_folder.glob("cells/*/seeds/*/checkpoints/manifest.json")):
        assert process is None or process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_a_run_on_a_cluster_with_a_token(tmp_path):
    """Nobody gets in without the token, and whoever has it gets a run and its exit status."""
    token = new_token()
    cluster = StartedCluster(token=token)
    try:
        assert cluster.ask("/api/jobs/")[0] == 401
        user = User(tmp_path / "user", token=token)
        code, document = user.document(
            "submit", "--address", cluster.url, "--", "run", "method=supervised", "--epochs", "2"
        )
        assert (code, document["state"], document["exit_code"]) == (0, "finished", 0)
        (run,) = user.store("hkrun-store").runs().to_pylist()
        assert (run["status"], run["epochs"]) == ("finished", 2)
    finally:
        cluster.stop()
    assert cluster.processes() == []


@pytest.fixture(scope="module")
def token() -> str:
    return new_token()


@pytest.fixture(scope="module")
def cluster(token) -> Iterator[StartedCluster]:
    """Three raylets on this machine."""
    started = StartedCluster(token=token, cpus=(1, 1, 1))
    yield started
    started.stop()


@pytest.fixture(scope="module")
def user(tmp_path_factory, token) -> User:
    return User(tmp_path_factory.mktemp("study"), token=token)


@pytest.fixture(scope="module")
def undisturbed(user) -> dict:
    """The results of the same study on this machine alone."""
    code, told, why = user.call(*SWEEP, "--store", "alone")
    assert code == 0, told + why
    found = curves(user.store("alone"))
    assert len(found) == 4
    return found


def submit(cluster: StartedCluster, *more: str) -> tuple[str, ...]:
    return ("submit", "--address", cluster.url, *more, "--")


def test_a_study_of_ones_own_gives_the_same_bits_as_here_and_says_what_code_it_ran(
    cluster, user, undisturbed
):
    code, document = user.document(*submit(cluster, "--store", "whole"), *SWEEP)
    assert (code, document["state"], document["exit_code"]) == (0, "finished", 0)
    assert curves(user.store("whole")) == undisturbed
    assert len(document["nodes"]) == 3
    commit = subprocess.run(
        ["git", "-C", REPOSITORY, "rev-parse", "HEAD"], capture_output=True, text=True, check=False
    ).stdout.strip()
    assert document["metadata"]["commit"] == commit
    store = user.store("whole")
    for cell_id, seed in undisturbed:
        assert store.record(cell_id, seed).versions["code"] == document["metadata"]["code"]
    assert not (user.folder / "whole" / "probes").exists()

    # Again: nothing is left to do, and nothing is done twice.
    before = {path: path.stat().st_mtime_ns for path in (user.folder / "whole" / "cells").rglob("*.parquet")}
    assert user.call(*submit(cluster, "--store", "whole"), *SWEEP)[0] == 0
    after = {path: path.stat().st_mtime_ns for path in (user.folder / "whole" / "cells").rglob("*.parquet")}
    assert before == after


def test_who_detaches_finds_the_job_again_with_its_whole_log_and_exit_status(cluster, user, undisturbed):
    process = user.start(*submit(cluster, "--store", "left"), *SWEEP)
    wait_for_checkpoint(user.folder / "left", process)
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 75
    (way,) = [line.split()[2:] for line in told.splitlines() if line.startswith("Follow it")]
    assert "Detached. Job" in told

    code, log, _ = user.call(*way[1:])
    assert code == 0
    assert log.count("Running entrypoint for job") == 1
    assert "4/4 runs done" in log
    assert curves(user.store("left")) == undisturbed
    code, document = user.document("status", way[2], "--address", cluster.url)
    (job,) = document["jobs"]
    assert (code, job["id"], job["exit_code"]) == (0, way[2], 0)


def test_a_cancelled_job_ends_in_order_and_the_same_command_goes_on(cluster, user, undisturbed):
    process = user.start(*submit(cluster, "--store", "stopped"), *SWEEP)
    wait_for_checkpoint(user.folder / "stopped", process)
    code, told, _ = user.call("cancel", "--address", cluster.url)
    assert code == 0
    assert "is stopped; what is finished is kept" in told
    log, why = process.communicate(timeout=60)
    assert process.returncode == 75, log + why
    assert "interrupted; what is finished is kept" in log
    folder = user.folder / "stopped"
    assert list(folder.glob("cells/*/seeds/*/checkpoints/manifest.json"))
    with user.store("stopped").hold("sweeps/study-digits"):
        pass  # nobody holds it any more

    code, log, why = user.call(*submit(cluster, "--store", "stopped"), *SWEEP)
    assert code == 0, log + why
    assert curves(user.store("stopped")) == undisturbed
    resumed = [user.store("stopped").record(*run).resumed for run in undisturbed]
    assert max(resumed) >= 1


def test_a_job_whose_driver_is_killed_says_so_and_the_same_command_goes_on(cluster, user, undisturbed):
    process = user.start(*submit(cluster, "--store", "lost"), *SWEEP)
    wait_for_checkpoint(user.folder / "lost", process)
    (driver,) = [
        pid
        for pid in cluster.processes()
        if Path(f"/proc/{pid}/cmdline").read_bytes().startswith(b"python\0-m\0hkrun\0sweep")
    ]
    os.kill(driver, signal.SIGKILL)
    log, why = process.communicate(timeout=100)
    assert process.returncode == 75, log + why
    assert "its driver was ended by SIGKILL; what is finished is kept" in why

    code, log, why = user.call(*submit(cluster, "--store", "lost"), *SWEEP)
    assert code == 0, log + why
    assert curves(user.store("lost")) == undisturbed


def test_exit_statuses_are_those_of_the_jobs_also_for_who_comes_later(cluster, user):
    diverging = ("run", "method=supervised", "student.learning_rate=1e9", "--epochs", "3")
    code, document = user.document(*submit(cluster, "--store", "diverged"), *diverging)
    assert (code, document["exit_code"]) == (5, 5)
    assert user.call("logs", document["id"], "--address", cluster.url)[0] == 5

    store = open_store(user.folder / "held")
    with store.hold("sweeps/study-digits"):
        code, document = user.document(*submit(cluster, "--store", "held"), *SWEEP)
    assert (code, document["exit_code"]) == (6, 6)
    assert "is held by" in user.call("logs", document["id"], "--address", cluster.url, "--no-wait")[1]


def test_without_waiting_the_job_goes_on_alone(cluster, user):
    code, document = user.document(
        *submit(cluster, "--store", "alone2", "--no-wait"), "run", "method=supervised", "--epochs", "2"
    )
    assert (code, document["state"] in ("waiting", "running")) == (0, True)
    assert user.call("logs", "--address", cluster.url)[0] == 0  # the newest
    assert len(user.store("alone2").runs()) == 1


def test_data_that_is_not_there_is_said_before_anything_starts(cluster, user):
    jobs = len(user.document("status", "--address", cluster.url)[1]["jobs"])
    code, document = user.document(
        *submit(cluster, "--store", "nodata", "--data", "/no/such/folder"), "run", "--epochs", "1"
    )
    assert code == 3
    assert "there is no /no/such/folder; it must be there on every node" in document["error"]["message"]
    assert not (user.folder / "nodata").exists()
    assert len(user.document("status", "--address", cluster.url)[1]["jobs"]) == jobs


def test_no_secret_is_written_anywhere(cluster, user, token):
    """Values that look like secrets, in every variable that could hold one: not in a job, a log or a file."""
    secrets = {
        "AWS_SECRET_ACCESS_KEY": "s3cr3t-of-aws-0001",
        "MLFLOW_TRACKING_PASSWORD": "s3cr3t-of-mlflow-0002",
        "MLFLOW_TRACKING_TOKEN": "s3cr3t-of-mlflow-0003",
        "HKRUN_STORE": "s3://user:s3cr3t-of-store-0004@bucket/study",
        "MY_API_KEY": "s3cr3t-of-mine-0005",
    }
    code, told, why = user.call(
        *submit(cluster, "--store", "secret"), "run", "method=supervised", "--epochs", "2", **secrets
    )
    assert code == 0, told + why
    job = user.document("status", "--address", cluster.url)[1]["jobs"][-1]
    _, raw = cluster.ask(f"/api/jobs/{job['id']}", token=token)
    everything = {"told": told + why, "job": json.dumps(raw), "document": json.dumps(job)}
    for folder in (user.folder, cluster.folder):
        for path in folder.rglob("*"):
            if path.is_file() and not path.is_symlink():
                everything[str(path)] = path.read_bytes().decode("latin-1")
    assert any("mlflow.db" in name for name in everything)
    assert any("job-driver" in name for name in everything)
    for secret in [*secrets.values(), "s3cr3t", token]:
        assert [name for name, content in everything.items() if secret in content] == []


def test_a_cluster_that_lets_everybody_in_is_refused_unless_told_otherwise(tmp_path, token):
    cluster = StartedCluster(token=None)
    try:
        user = User(tmp_path / "user", token=token)
        code, _, why = user.call("submit", "--address", cluster.url, "--", "run", "--epochs", "1")
        assert code == 4
        assert "this cluster answers without a token" in why
        _, jobs = cluster.ask("/api/jobs/")
        assert jobs == []
        arguments = ("--insecure", "--", "run", "method=supervised", "--epochs", "1")
        assert user.call("submit", "--address", cluster.url, *arguments)[0] == 0

        # A sweep that joins it says so, and runs.
        code, _, why = user.call("run", "method=supervised", "--epochs", "2", RAY_ADDRESS=cluster.gcs)
        assert (code, "lets everybody in who reaches it" in why) == (0, True), why
    finally:
        cluster.stop()
