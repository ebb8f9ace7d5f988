"""S3 servers for tests: moto's, which is always there, and Ceph's radosgw where it is installed.

Tests take one of the fixtures

    s3_store         a place on moto's server: `uri`, and the `environment` that opens it
    s3_server        the server behind it
    each_s3_server   moto's server, then radosgw; for what depends on how a server works

Where radosgw is not installed (Debian: radosgw, ceph-mon, ceph-osd) its tests are skipped, unless
HKRUN_REQUIRE_RADOSGW=1 says that they must run. Each server is a process of its own on a loopback port of its
own; its files lie in a temporary folder.
"""

import contextlib
import functools
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from ports import free_port

CEPH_PROGRAMS = (
    "ceph",
    "ceph-authtool",
    "ceph-mon",
    "ceph-osd",
    "monmaptool",
    "radosgw",
    "radosgw-admin",
)
KEY, SECRET, BUCKET = "hkrun-tests", "kept-out-of-every-message", "lab"


@dataclass(frozen=True)
class S3Server:
    """A running server.

    Attributes:
        name: Which one.
        endpoint: Its address, such as http://127.0.0.1:9000.
        log: Its access log, a request per line; None where it keeps none that is easily read.
    """

    name: str
    endpoint: str
    log: Path | None = None

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which every S3 client finds it."""
        return {
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self) -> Any:
        """A client of it that is not hkrun's; to be closed."""
        import boto3

        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id=KEY,
            aws_secret_access_key=SECRET,
        )

    def requests(self) -> list[str]:
        """The requests so far, each as its method and its path with the query."""
        assert self.log is not None
        return self.log.read_text().splitlines()

    def place(self) -> "S3Place":
        """A place of its own on the server."""
        return S3Place(f"s3://{BUCKET}/{secrets.token_hex(6)}", self)


@dataclass(frozen=True)
class S3Place:
    """An empty prefix of a bucket.

    Attributes:
        uri: Its name; the variables of `environment` must be set for it to be found.
        server: Where it is.
    """

    uri: str
    server: S3Server
    environment: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "environment", self.server.environment)

    @property
    def full_uri(self) -> str:
        """A name that says all, with which no variable has to be set."""
        host = self.server.endpoint.removeprefix("http://")
        query = f"endpoint_override={host}&scheme=http&region=us-east-1"
        return f"s3://{KEY}:{SECRET}@{self.uri.removeprefix('s3://')}?{query}"


class Gate:
    """A way to a server that can be shut: while it is, connections are refused and the open ones are cut."""

    def __init__(self, endpoint: str) -> None:
        host, _, port = endpoint.removeprefix("http://").partition(":")
        self._target = (host, int(port))
        self._port = 0
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self.open()

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def open(self) -> None:
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind(("127.0.0.1", self._port))
        self._listener.listen(64)
        self._port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def shut(self) -> None:
        if self._listener is not None:
            with contextlib.suppress(OSError):
                self._listener.shutdown(socket.SHUT_RDWR)  # wakes who waits in accept, and closes it
            self._listener = None
        for connection in list(self._open):
            _cut(connection)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                listener.close()
                return
            try:
                server = socket.create_connection(self._target)
            except OSError:
                client.close()
                continue
            threading.Thread(target=self._serve, args=(client, server), daemon=True).start()

    def _serve(self, client: socket.socket, server: socket.socket) -> None:
        with client, server:
            self._open |= {client, server}
            back = threading.Thread(target=_copy, args=(server, client), daemon=True)
            back.start()
            _copy(client, server)
            back.join()
            self._open -= {client, server}


def _copy(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while content := source.recv(65536):
            sink.sendall(content)
    for connection in (source, sink):
        _cut(connection)


def _cut(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def await_answer(process: subprocess.Popen[bytes], endpoint: str, *, seconds: float = 60) -> None:
    """Waits until a server answers, whatever it says."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert process.poll() is None, f"the server ended with status {process.returncode}"
        try:
            urllib.request.urlopen(endpoint, timeout=5).close()
        except urllib.error.HTTPError as answer:
            answer.close()
            return
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise TimeoutError(f"no answer from {endpoint} within {seconds:g} s")


def make_bucket(server: S3Server) -> None:
    client = server.client()
    client.create_bucket(Bucket=BUCKET)
    client.close()


@contextlib.contextmanager
def moto_running(folder: Path, *, deaf: bool = False) -> Iterator[S3Server]:
    """Moto's server, which keeps what it is given in its memory.

    Args:
        folder: For its logs.
        deaf: Whether it passes over the conditions of writes, as some servers do.
    """
    port = free_port()
    server = S3Server("moto", f"http://127.0.0.1:{port}", folder / "requests.log")
    command = [sys.executable, __file__, str(port), str(server.log), *["deaf"] * deaf]
    with (
        (folder / "moto.log").open("wb") as log,
        subprocess.Popen(command, stdout=log, stderr=log) as process,
    ):
        try:
            await_answer(process, server.endpoint)
            make_bucket(server)
            yield server
        finally:
            process.send_signal(signal.SIGKILL)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Moto's server."""
    with moto_running(tmp_path_factory.mktemp("moto")) as server:
        yield server


@contextlib.contextmanager
def radosgw_running(folder: Path) -> Iterator[S3Server]:
    """Ceph's S3 server before a cluster of one monitor and one disk, which is in memory."""
    ports = [free_port() for _ in range(2)]
    configuration = folder / "ceph.conf"
    configuration.write_text(CEPH.format(folder=folder, monitor=ports[0], fsid=uuid.uuid4()))
    server = S3Server("radosgw", f"http://127.0.0.1:{ports[1]}")
    ceph = ["-c", str(configuration)]
    keyring, monitors = str(folder / "keyring"), str(folder / "monmap")
    address = f"[v2:127.0.0.1:{ports[0]}]"
    for name in ("mon", "osd", "rgw", "run"):
        (folder / name).mkdir()

    def run(*command: str) -> None:
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"

    run("ceph-authtool", "--create-keyring", keyring, "--gen-key", "-n", "mon.", "--cap", "mon", "allow *")
    for user, monitor_rights in (("client.admin", "allow *"), ("osd.0", "allow profile osd")):
        rights = ["--cap", "mon", monitor_rights, "--cap", "osd", "allow *"]
        run("ceph-authtool", keyring, "--gen-key", "-n", user, *rights)
    fsid = configuration.read_text().partition("fsid = ")[2].partition("\n")[0]
    run("monmaptool", "--create", "--addv", "a", address, "--fsid", fsid, monitors)
    run("ceph-mon", *ceph, "--mkfs", "-i", "a", "--monmap", monitors, "--keyring", keyring)
    with contextlib.ExitStack() as stack:
        stack.enter_context(background(folder, "ceph-mon", *ceph, "-f", "-i", "a"))
        run("ceph", *ceph, "--connect-timeout", "60", "osd", "create")
        run("ceph-osd", *ceph, "-i", "0", "--mkfs", "--no-mon-config")
        stack.enter_context(background(folder, "ceph-osd", *ceph, "-f", "-i", "0", "--no-mon-config"))
        user = ["--uid", "tests", "--display-name", "tests", "--access-key", KEY, "--secret-key", SECRET]
        run("radosgw-admin", *ceph, "user", "create", *user)
        frontend = f"beast endpoint=127.0.0.1:{ports[1]} tcp_nodelay=1"
        gateway = stack.enter_context(
            background(folder, "radosgw", *ceph, "-f", "-n", "client.admin", "--rgw-frontends", frontend)
        )
        await_answer(gateway, server.endpoint)
        make_bucket(server)
        yield server


@contextlib.contextmanager
def background(folder: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """A program that runs until the block ends."""
    with (folder / f"{command[0]}.out").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, start_new_session=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


CEPH = """
[global]
fsid = {fsid}
mon host = [v2:127.0.0.1:{monitor}/0]
mon data = {folder}/mon
osd data = {folder}/osd
rgw data = {folder}/rgw
run dir = {folder}/run
crash dir = {folder}/run
keyring = {folder}/keyring
admin socket = {folder}/run/$cluster-$name-$pid.asok
log file = {folder}/$name.log
pid file =
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind msgr1 = false
osd objectstore = memstore
memstore device bytes = 2147483648
osd crush chooseleaf type = 0
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd pool default pg autoscale mode = off
mon allow pool size one = true
mon data avail warn = 2
mon data avail crit = 1
"""


@pytest.fixture(scope="session")
def radosgw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """Ceph's S3 server."""
    if not all(map(shutil.which, CEPH_PROGRAMS)):
        if os.environ.get("HKRUN_REQUIRE_RADOSGW") == "1":
            pytest.fail(f"not all of {', '.join(CEPH_PROGRAMS)} are installed")
        pytest.skip("radosgw, ceph-mon and ceph-osd are not installed")
    with (
        tempfile.TemporaryDirectory(prefix="hk-ceph-") as folder,  # short: the paths of sockets are limited
        radosgw_running(Path(folder)) as server,
    ):
        yield server


@pytest.fixture(scope="session", params=["moto", pytest.param("radosgw", marks=pytest.mark.slow)])
def each_s3_server(request: pytest.FixtureRequest) -> S3Server:
    """Each S3 server in turn."""
    server: S3Server = request.getfixturevalue("s3_server" if request.param == "moto" else "radosgw")
    return server


@pytest.fixture(scope="session")
def s3_store(s3_server: S3Server) -> S3Place:
    """A place for one store on moto's server, shared by the session; `s3_server.place()` makes more."""
    return s3_server.place()


def serve_moto(port: int, log: str, *, deaf: bool) -> None:
    """Serves S3 until the process is killed, a line in the log for each request.

    One request at a time is handled: moto looks at a condition and then writes, without a lock.
    """
    from moto.core import serialize
    from moto.server import MotoRequestHandler, create_backend_app
    from werkzeug.serving import run_simple

    # It reads the time of each object anew for every list, which takes half of it.
    serialize.parse_to_aware_datetime = functools.cache(serialize.parse_to_aware_datetime)
    application = create_backend_app("s3")
    turn = threading.Lock()

    class Quiet(MotoRequestHandler):
        def log_request(self, *_: object) -> None:
            pass

    def handle(environ, start_response):  # type: ignore[no-untyped-def]
        query = environ.get("QUERY_STRING")
        line = f"{environ['REQUEST_METHOD']} {environ['PATH_INFO']}{'?' * bool(query)}{query}\n"
        if deaf:
            environ.pop("HTTP_IF_MATCH", None)
            environ.pop("HTTP_IF_NONE_MATCH", None)
        with turn:
            file.write(line)
            return list(application(environ, start_response))

    with Path(log).open("w", buffering=1) as file:
        run_simple("127.0.0.1", port, handle, threaded=True, request_handler=Quiet)


if __name__ == "__main__":
    serve_moto(int(sys.argv[1]), sys.argv[2], deaf="deaf" in sys.argv[3:])
