"""What the tests of Ray share: a cluster to join, an observer that remembers, and a driver to kill."""

import os
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest


class Recorder:
    """An observer that remembers what it was told."""

    def __init__(self) -> None:
        self.events: list[tuple] = []

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


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def cluster() -> Iterator[str]:
    """The address of a cluster of two CPUs, on which each list of tasks meets what the one before left."""
    from ray.cluster_utils import Cluster

    with pytest.MonkeyPatch.context() as environment:
        environment.setenv(
            "PYTHONPATH", str(Path(__file__).parent)
        )  # where its processes find the fake tasks
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
    return cluster


class Driver:
    """A Python process that runs tasks on a cluster of its own, and everything that it starts."""

    def __init__(self, folder: Path, *does: str) -> None:
        self.folder = folder
        self.mark = uuid.uuid4().hex
        env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
        self.temporary = Path(tempfile.mkdtemp(dir="/tmp"))  # short enough for Ray's sockets
        env |= {"HKRUN_TEST_MARK": self.mark, "TMPDIR": str(self.temporary)}
        self.process = subprocess.Popen(
            [sys.executable, Path(__file__).with_name("fake_driver.py"), folder, *does],
            env=env,
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,  # a group of its own, as a command has in a terminal
        )

    def family(self) -> list[str]:
        """The command lines of all living processes that it started, itself included."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                if self.mark.encode() in (process / "environ").read_bytes():
                    found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode()[:80])
            except OSError:
                continue
        return found

    def wait_for(self, path: Path, *, timeout_s: float = 240) -> None:
        """Waits until a file is there."""
        deadline = time.monotonic() + timeout_s
        while not path.exists():
            assert self.process.poll() is None, self.process.communicate()
            assert time.monotonic() < deadline, f"no {path} after {timeout_s} s"
            time.sleep(0.2)

    def left_behind(self, *, patience_s: float) -> list[str]:
        """The processes and temporary files that are still there after some seconds of patience."""
        deadline = time.monotonic() + patience_s
        while (
            left := self.family() + list(map(str, self.temporary.iterdir()))
        ) and time.monotonic() < deadline:
            time.sleep(0.2)
        return left
