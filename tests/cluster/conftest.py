"""What the tests of Ray share: a cluster to join, and an observer that remembers."""

import os
from collections.abc import Iterator

import pytest
from fake_tasks import join, python_path
from ports import free_port
from recorder import Recorder


@pytest.fixture
def observer() -> Recorder:
    return Recorder()


@pytest.fixture(scope="package")  # idle, its processes take a twentieth of a core
def cluster() -> Iterator[str]:
    """The address of a cluster of two CPUs, on which each list of tasks meets what the one before left."""
    from ray.cluster_utils import Cluster

    # For good: tests that join by themselves leave an exporter of metrics, which would crash this process
    # when it ends after the cluster.
    os.environ["RAY_enable_open_telemetry"] = "0"  # noqa: SIM112
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", python_path())
        environment.setenv("RAY_worker_niceness", "0")  # else its tasks starve beside the other tests
        head = {
            "num_cpus": 2,
            "object_store_memory": 100 << 20,
            "include_log_monitor": False,  # as a cluster of hkrun's own: nobody asks for the tasks' output
            "include_dashboard": True,
            "dashboard_port": free_port(),  # its default may be taken, and it would not look further
        }
        try:
            started = Cluster(initialize_head=True, head_node_args=head)
        except Exception:  # Ray gives its processes 30 s, which a busy machine may exceed
            head["dashboard_port"] = free_port()
            started = Cluster(initialize_head=True, head_node_args=head)
    yield started.address
    started.shutdown()


@pytest.fixture
def joined(cluster, monkeypatch) -> str:
    join(cluster, monkeypatch)
    return cluster
