"""Clusters of Ray as an administrator starts them: `ray start`, a token, several nodes; ended by id."""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from pathlib import Path

from ports import free_port
from processes import find_processes, inherited_environment

BIN = Path(sys.executable).parent
START_S = 120


def clean_environment(**more: str) -> dict[str, str]:
    """What commands of hkrun and Ray are started with, here or as another user."""
    kept = inherited_environment()
    return kept | {"PATH": f"{BIN}:{kept['PATH']}", "OMP_NUM_THREADS": "1"} | more


class StartedCluster:
    """A head and more nodes, each a `ray start` of its own, on this machine.

    Args:
        token: Whom it lets in; None for everybody.
        cpus: CPUs of each node, the head's first.
        prefixes: A command before each node's `ray start`, such as `ip netns exec NAME`.
        addresses: The address of each node.
        environment: More variables of its processes.
    """

    def __init__(
        self,
        *,
        token: str | None,
        cpus: Sequence[int] = (2,),
        prefixes: Sequence[Sequence[str]] | None = None,
        addresses: Sequence[str] | None = None,
        environment: dict[str, str] | None = None,
    ) -> None:
        self.token = token
        self.mark = uuid.uuid4().hex
        self.folder = Path(tempfile.mkdtemp(prefix="hkc", dir="/tmp"))  # short enough for Ray's sockets
        mode = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token} if token else {"RAY_AUTH_MODE": "disabled"}
        home = self.folder / "home"
        home.mkdir()
        self.environment = clean_environment(
            HKRUN_TEST_MARK=self.mark, HOME=str(home), **mode, **(environment or {})
        )
        self.prefixes = prefixes or [()] * len(cpus)
        self.addresses = addresses or ["127.0.0.1"] * len(cpus)
        self.port, self.dashboard_port = free_port(), free_port()
        self.gcs = f"{self.addresses[0]}:{self.port}"
        self.url = f"http://{self.addresses[0]}:{self.dashboard_port}"
        self.nodes: list[subprocess.Popen[bytes]] = []
        try:
            self._start_head(cpus[0])
            self._wait_for(1)
            for index, number in enumerate(cpus[1:], start=1):
                self._start_node(index, number)
            self._wait_for(len(cpus))
        except BaseException:
            self.stop()
            raise

    def _start_head(self, cpus: int) -> None:
        # A host of its own may listen to all; on this machine the dashboard is for this machine.
        host = "127.0.0.1" if self.addresses[0] == "127.0.0.1" else "0.0.0.0"
        options = ["--head", f"--port={self.port}", f"--dashboard-port={self.dashboard_port}"]
        options += [f"--dashboard-host={host}", "--include-dashboard=true"]
        options += [f"--ray-client-server-port={free_port()}"]
        self._ray_start(0, cpus, options)

    def _start_node(self, index: int, cpus: int) -> None:
        self._ray_start(index, cpus, [f"--address={self.gcs}"])

    def _ray_start(self, index: int, cpus: int, options: Sequence[str]) -> None:
        command = [*self.prefixes[index], str(BIN / "ray"), "start", "--block", *options]
        command += [f"--num-cpus={cpus}", f"--node-ip-address={self.addresses[index]}"]
        command += [f"--temp-dir={self.folder / f'n{index}'}", "--object-store-memory=80000000"]
        command += [f"--dashboard-agent-listen-port={free_port()}", "--disable-usage-stats"]
        with (self.folder / f"start{index}.log").open("wb") as log:
            self.nodes.append(
                subprocess.Popen(
                    command,
                    env=self.environment,
                    cwd=self.folder,
                    stdout=log,
                    stderr=log,
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )
            )

    def ask(self, path: str, *, token: str | None = None) -> tuple[int, object]:
        """The status and the document of a GET."""
        command = [sys.executable, "-c", _ASK, f"{self.url}{path}", token or ""]  # from where the head is
        done = subprocess.run([*self.prefixes[0], *command], capture_output=True, text=True, check=True)
        status, _, content = done.stdout.partition("\n")
        return int(status), json.loads(content) if status == "200" else None

    def _wait_for(self, count: int) -> None:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline:
            status, document = self.ask("/nodes?view=summary", token=self.token)
            if status == 200:
                nodes = document["data"]["summary"]
                if sum(node["raylet"].get("state") == "ALIVE" for node in nodes) == count:
                    return
            for index, node in enumerate(self.nodes):
                assert node.poll() is None, (self.folder / f"start{index}.log").read_text()
            time.sleep(0.5)
        raise AssertionError(f"no cluster of {count} nodes after {START_S} s")

    def processes(self) -> list[int]:
        """The ids of all its processes, jobs included."""
        return [int(process.name) for process in find_processes(self.mark, self.folder)]

    def stop(self) -> None:
        """Ends every process of it and removes its folder."""
        for _ in range(50):
            left = self.processes()
            for process in left:
                try:
                    os.kill(process, signal.SIGKILL)
                except ProcessLookupError:
                    continue
            for node in self.nodes:
                node.poll()  # a process that has ended is there until its parent looks
            if not left:
                break
            time.sleep(0.1)
        for node in self.nodes:
            node.wait(timeout=10)
        shutil.rmtree(self.folder, ignore_errors=True)


_ASK = """
import sys, urllib.error, urllib.request
request = urllib.request.Request(sys.argv[1])
if sys.argv[2]:
    request.add_header("Authorization", "Bearer " + sys.argv[2])
try:
    with urllib.request.urlopen(request, timeout=10) as answer:
        print(answer.status)
        print(answer.read().decode())
except urllib.error.HTTPError as error:
    print(error.code)
except OSError:
    print(0)
"""


def new_token() -> str:
    """A token as good as Ray's own."""
    return secrets.token_hex(32)
