"""What the tests of Ray share: a cluster to join, and an observer that remembers."""

import os
from collections.abc import Iterator

import pytest
from fake_tasks import python_path
from ports import free_port


class Recorder:
    """An observer that remembers what it was told."""

    def __init__(self) -> None:
        self.events: list[tuple] = []
        self.tries: list[int] = []

    def taken(self, index):
        self.tries.append(index)

    def started(self, index):
        self.events.append(("started", index))

    def progress(self, index, progress):
        self.events.append(("progress", index, progress))

    def done(self, index, outcomes):
        self.events.append(("done", index))

    def failed(self, index, message):
        self.events.append(("failed", index, message))

    def of(self, index: int) -> list[str]:
        return [event[0] for event in self.events if event[1] == index]

    def message(self, index: int) -> str:
        (message,) = [event[2] for event in self.events if event[:2] == ("failed", index)]
        return message


@pytest.fixture
def observer() -> Recorder:
    return Recorder()


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """The address of a cluster of two CPUs, on which each list of tasks meets what the one before left."""
    from ray.cluster_utils import Cluster

    # For good: tests that join by themselves leave an exporter of metrics, which would crash this process
    # when it ends after the cluster.
    os.environ["RAY_enable_open_telemetry"] = "0"  # noqa: SIM112
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("PYTHONPATH", python_path())
        head = {
            "num_cpus": 2,
            "object_store_memory": 100 << 20,
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
    monkeypatch.setenv("RAY_ADDRESS", cluster)
    if "PYTHONPATH" in os.environ:  # which the tasks' processes then have instead of the cluster's
        monkeypatch.setenv("PYTHONPATH", python_path())
    return cluster
