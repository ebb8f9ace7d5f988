"""MLflow's own UI on loopback, for as long as it is looked at."""

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
import webbrowser
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from hkrun.errors import InputError, StoreError
from hkrun.redaction import redact
from hkrun.store import Store
from hkrun.tracking import supervisor
from hkrun.tracking.connection import connect, explained, is_server, resolve_uri
from hkrun.tracking.database import advised
from hkrun.tracking.experiments import (
    STORE_TAG,
    artifact_root,
    find_experiments,
    read_identity,
    renew_locations,
)
from hkrun.tracking.view import DEFAULT_PORT, HOST, Links, find_links

_PORTS_TRIED = 50
_START_S, _STOP_S = 180.0, 10.0  # it imports a lot: seconds on an idle machine, more on a busy one
_ANSWER_S = 2.0


@dataclass(frozen=True, kw_only=True)
class Site:
    """MLflow's UI, now that it answers.

    Attributes:
        uri: The tracking URI behind it, without any password.
        address: Where it answers, without a slash at the end.
        sweeps: Where to look at each sweep of the store, by its key.
        is_ours: Whether it ends with this process.
    """

    uri: str
    address: str
    sweeps: Mapping[str, Links]
    is_ours: bool


def ui(
    store: Store,
    *,
    port: int | None,
    open_browser: bool,
    begin: Callable[[str, bool], None],
    announce: Callable[[Site], None],
) -> None:
    """Serves MLflow's UI until a KeyboardInterrupt, and says where to look.

    Where MLFLOW_TRACKING_URI names a server there is nothing to start: only the links are given. Without a
    port it takes 5000 on loopback, or the next free one.

    Args:
        store: Whose database it serves.
        port: Of loopback.
        open_browser: Whether to open one.
        begin: Called at once, with the address and whether a server is started there.
        announce: Called when it answers.

    Raises:
        InputError: The port is taken.
        StoreError: The server does not start, or the one that MLFLOW_TRACKING_URI names does not answer.
    """
    uri = resolve_uri(store)
    if is_server(uri):
        begin(redact(uri).rstrip("/"), False)
        site = _look_around(store, uri, redact(uri).rstrip("/"), is_ours=False)
        _show(site, announce, open_browser=open_browser)
        return
    chosen = _choose_port(port)
    begin(f"http://{HOST}:{chosen}", True)
    with contextlib.suppress(KeyboardInterrupt), serve(store, port=chosen) as server:
        site = _look_around(store, uri, server.address, is_ours=True)
        _show(site, announce, open_browser=open_browser)
        server.wait()


def find_ui(store: Store, experiment_id: str) -> str | None:
    """Where `hkrun ui` answers for this very store, on the ports that it takes by itself; None where nowhere.

    Several stores may be looked at, each on the next port that was free when its server began: an
    experiment is asked whose it is, and a free port says nothing of those after it.
    """
    identity = read_identity(store)
    if identity is None:
        return None
    for port in range(DEFAULT_PORT, DEFAULT_PORT + _PORTS_TRIED):
        if not _is_free(port) and _find_owner(port, experiment_id) == identity:
            return f"http://{HOST}:{port}"
    return None


def _find_owner(port: int, experiment_id: str) -> str | None:
    """The mark of the store of an experiment, as the server of a port says; None where it says none."""
    connection = http.client.HTTPConnection(HOST, port, timeout=_ANSWER_S)
    try:
        connection.request("GET", f"/api/2.0/mlflow/experiments/get?experiment_id={quote(experiment_id)}")
        tags = json.loads(connection.getresponse().read())["experiment"]["tags"]
        return next((tag["value"] for tag in tags if tag["key"] == STORE_TAG), None)
    except (OSError, http.client.HTTPException, ValueError, KeyError, TypeError):
        return None  # nothing, or something else than MLflow
    finally:
        connection.close()


def _look_around(store: Store, uri: str, address: str, *, is_ours: bool) -> Site:
    with advised(), explained(uri):
        client = connect(uri)
        experiments = find_experiments(client, store)
        links = {key: find_links(client, uri, found, address=address) for key, found in experiments.items()}
    return Site(uri=redact(uri), address=address, sweeps=links, is_ours=is_ours)


def _show(site: Site, announce: Callable[[Site], None], *, open_browser: bool) -> None:
    announce(site)
    if open_browser:
        webbrowser.open(next((links.view for links in site.sweeps.values()), site.address))


class Server:
    """A running `mlflow server`.

    Attributes:
        address: Where it answers, without a slash at the end.
    """

    def __init__(self, process: subprocess.Popen[bytes], address: str, log: Path) -> None:
        self._process = process
        self.address = address
        self._log = log

    def wait_ready(self) -> None:
        """Waits until it answers.

        Raises:
            StoreError: It ended, or gave no answer in three minutes.
        """
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline and self._process.poll() is None:
            if self._is_healthy():
                return
            time.sleep(0.1)
        raise StoreError(
            f"the MLflow server did not start; its last words: {self._last_words()} (all in {self._log})"
        )

    def _is_healthy(self) -> bool:
        connection = http.client.HTTPConnection(self.address.removeprefix("http://"), timeout=_ANSWER_S)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def wait(self) -> None:
        """Waits until it ends by itself.

        Raises:
            StoreError: It ended in an error.
        """
        if self._process.wait() != 0:
            raise StoreError(f"the MLflow server ended: {self._last_words()} (all in {self._log})")

    def stop(self) -> None:
        """Ends it with all its processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGTERM)
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        if self._process.stdin is not None:
            self._process.stdin.close()

    def _last_words(self) -> str:
        lines = self._log.read_text(errors="replace").split("\n")
        return next((line.strip() for line in reversed(lines) if line.strip()), "none")


@contextlib.contextmanager
def serve(store: Store, *, port: int | None = None) -> Iterator[Server]:
    """Runs `mlflow server` on the store's database, on loopback, while the block lasts.

    Raises:
        InputError: The port is taken.
        StoreError: It does not start.
    """
    uri = resolve_uri(store)
    with advised(), explained(uri):
        client = connect(uri)  # makes the database; the server's own processes would race for it
        renew_locations(client, store, uri, find_experiments(client, store))
    chosen = _choose_port(port)
    log = (store.local_path or Path(tempfile.gettempdir()) / "hkrun") / "logs" / "mlflow-ui.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [
        *(sys.executable, "-I", "-S", supervisor.__file__),  # it would outlive us where we are killed
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        HOST,
        "--port",
        str(chosen),
        "--workers",
        "1",
    ]
    command += ["--allowed-hosts", f"{HOST}:{chosen},localhost:{chosen}"]
    # The URI may hold a password: the environment is this user's alone, arguments are shown to everyone.
    settings = {
        "MLFLOW_BACKEND_STORE_URI": uri,
        "MLFLOW_DEFAULT_ARTIFACT_ROOT": artifact_root(store, uri) or "",
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        # No file of the working directory is to be taken for a library, by Python or by uvicorn.
        "PYTHONSAFEPATH": "1",
        "UVICORN_APP_DIR": sysconfig.get_path("purelib"),
    }
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command,
            env=os.environ | settings,
            stdin=subprocess.PIPE,  # nothing is written: its end tells the supervisor that we are gone
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    server = Server(process, f"http://{HOST}:{chosen}", log)
    try:
        server.wait_ready()
        yield server
    finally:
        server.stop()


def _choose_port(port: int | None) -> int:
    if port is not None:
        if not _is_free(port):
            raise InputError(
                f"--port: {port} on {HOST} is taken; give another, or none to take the next free one"
            )
        return port
    for candidate in range(DEFAULT_PORT, DEFAULT_PORT + _PORTS_TRIED):
        if _is_free(candidate):
            return candidate
    raise InputError(
        f"ports {DEFAULT_PORT} to {candidate} on {HOST} are all taken; give a free one with --port"
    )


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True
