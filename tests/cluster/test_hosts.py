"""A cluster of three hosts, each in a network namespace with its own name, and a laptop beside them."""

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from namespaces import hosts
from started_cluster import StartedCluster, new_token
from users import SWEEP, User, curves

pytestmark = [pytest.mark.slow, pytest.mark.cluster, pytest.mark.timeout(500)]


@dataclass
class Lab:
    """The hosts `head`, `left` and `right`, with Ray on them, and users at `laptop` and on the head.

    What is in the folder `unshared` cannot be seen on `right`.
    """

    cluster: StartedCluster
    laptop: User
    at_head: User
    unshared: Path


@pytest.fixture(scope="module")
def lab(tmp_path_factory) -> Iterator[Lab]:
    folder = tmp_path_factory.mktemp("lab")
    unshared = folder / "unshared"
    unshared.mkdir()
    names = ("head", "left", "right", "laptop")
    with hosts(*names, hidden={"right": unshared}, folder=folder) as there:
        token = new_token()
        on = [there[name] for name in names[:3]]
        cluster = StartedCluster(
            token=token,
            cpus=(0, 1, 1),  # all training is done elsewhere than where the driver is
            prefixes=[prefix for _, prefix in on],
            addresses=[address for address, _ in on],
        )
        try:
            yield Lab(
                cluster=cluster,
                laptop=User(folder / "laptop", token=token, prefix=there["laptop"][1]),
                at_head=User(folder / "head", token=token, prefix=there["head"][1]),
                unshared=unshared,
            )
        finally:
            cluster.stop()
    assert cluster.processes() == []


def test_a_sweep_from_a_laptop_gives_the_bits_of_this_machine(lab, tmp_path):
    alone = User(tmp_path / "alone", token=None)
    assert alone.call(*SWEEP, "--store", "alone")[0] == 0
    code, log, told = lab.laptop.call(
        "submit", "--address", lab.cluster.url, "--store", "shared", "--", *SWEEP
    )
    assert code == 0, log + told
    assert "3 nodes: head (10.213.77.1), left (10.213.77.2), right (10.213.77.3)" in told
    assert "the token goes to http://10.213.77.1" in told
    assert curves(lab.laptop.store("shared")) == curves(alone.store("alone"))


def test_a_store_that_one_host_does_not_see_is_said_before_anything_starts(lab):
    store = lab.unshared / "store"
    arguments = ("--store", str(store), "--", *SWEEP)
    code, document = lab.laptop.document("submit", "--address", lab.cluster.url, *arguments)
    expected = (
        f"the store {store}: node right (10.213.77.3) cannot use it, only nodes head (10.213.77.1) and "
        "left (10.213.77.2) can: there is no store; a path must name a folder that all nodes share (NFS), or "
        "use --store s3://BUCKET/PREFIX"
    )
    assert (code, document["error"]["problems"]) == (6, [expected])
    assert not store.exists()

    # The same for a sweep that joins the cluster, from a node of it.
    code, stdout, told = lab.at_head.call(
        *SWEEP, "--store", str(store), "--json", RAY_ADDRESS=lab.cluster.gcs, RAY_AUTH_MODE="token"
    )
    assert (code, json.loads(stdout)["error"]["problems"]) == (6, [expected]), told
    assert not store.exists()


def test_data_that_one_host_does_not_see_is_said_before_anything_starts(lab):
    data = lab.unshared / "data"
    data.mkdir(exist_ok=True)
    arguments = ("--store", "nodata", "--data", str(data), "--", *SWEEP)
    code, document = lab.laptop.document("submit", "--address", lab.cluster.url, *arguments)
    assert code == 3
    assert document["error"]["problems"] == [
        f"--data: node right (10.213.77.3) cannot read it: there is no {data}; it must be there on every node"
    ]


def test_a_naive_client_gets_nowhere(lab):
    naive = User(lab.laptop.folder, token=None, prefix=lab.laptop.prefix)
    for verb in (("status",), ("logs",), ("cancel",)):
        code, _, told = naive.call(*verb, "--address", lab.cluster.url)
        assert (code, "wants a token, and there is none" in told) == (4, True)
    for path in ("/api/jobs/", "/nodes?view=summary", "/api/cluster_status"):
        assert lab.cluster.ask(path)[0] == 401
    begun = time.monotonic()
    code, _, told = naive.call(*SWEEP, "--store", "naive", RAY_ADDRESS=lab.cluster.gcs)
    assert code == 4, told
    assert "cannot join this Ray cluster" in told
    assert time.monotonic() - begun < 120
